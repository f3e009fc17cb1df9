//! Mistakes in a configuration, and how they are shown to the person who made them.
//!
//! A [`Diagnostic`] says what is wrong, where it was written and what to write instead. All that
//! were found travel together in one [`ConfigErrors`], because a person who mends one mistake per
//! start gives up. Only text as written is shown, never a value that came from the environment
//! into a Kafka property: such values may be secrets.

use std::fmt;
use std::sync::Arc;

/// The longest part of a line that is shown; the rest is cut with an ellipsis.
const EXCERPT_CHARS_MAX: usize = 120;

/// A place in the configuration file. Lines and columns count characters from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileSpan {
    /// The line, from 1.
    pub(crate) line: usize,
    /// The column of the first character, from 1.
    pub(crate) column: usize,
    /// How many characters on that line; at least 1 is shown.
    pub(crate) width: usize,
}

/// Where a key or a value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// In the file.
    File(FileSpan),
    /// In the `--set` argument with this index, at these characters.
    Set {
        /// Which `--set`, from 0.
        argument: usize,
        /// The first character, from 0.
        start: usize,
        /// How many characters.
        width: usize,
    },
}

impl Origin {
    /// The beginning of the file: for what is missing from it.
    pub(crate) const FILE_START: Self = Self::File(FileSpan {
        line: 1,
        column: 1,
        width: 1,
    });
}

/// The texts that a configuration was read from; kept, so that late checks can point at them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sources {
    /// The file's name, as the user gave it.
    pub(crate) file: String,
    /// The file's text.
    pub(crate) text: String,
    /// The `--set` arguments in order.
    pub(crate) sets: Vec<String>,
}

/// One mistake: what, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub(crate) message: String,
    pub(crate) origin: Option<Origin>,
    pub(crate) help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            origin: Some(origin),
            help: None,
        }
    }

    pub(crate) fn with_help(mut self, help: Option<impl Into<String>>) -> Self {
        self.help = help.map(Into::into);
        self
    }

    /// Returns what is wrong, in one line without its place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns what to do about it, where that is known.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Returns line and column, both from 1; `None` for a `--set` argument or a file as a whole.
    #[must_use]
    pub fn line_and_column(&self) -> Option<(usize, usize)> {
        match self.origin {
            Some(Origin::File(span)) => Some((span.line, span.column)),
            Some(Origin::Set { .. }) | None => None,
        }
    }
}

/// Every mistake that was found in a configuration; never empty.
///
/// Its `Display` is the whole report with source lines and carets, for a terminal. A program that
/// ends because of it ends with [`ExitCode::Config`](crate::cli::ExitCode::Config).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    sources: Arc<Sources>,
    diagnostics: Vec<Diagnostic>,
}

impl ConfigErrors {
    /// Collects `diagnostics` in the order of the file, then of the arguments.
    pub(crate) fn new(sources: Arc<Sources>, mut diagnostics: Vec<Diagnostic>) -> Self {
        assert!(!diagnostics.is_empty(), "an error report without an error");
        diagnostics.sort_by_key(|diagnostic| diagnostic.origin);
        diagnostics.dedup();
        Self {
            sources,
            diagnostics,
        }
    }

    /// Creates the report for a configuration that could not be read at all.
    #[must_use]
    pub fn unreadable(file: impl Into<String>, cause: &std::io::Error) -> Self {
        let sources = Sources {
            file: file.into(),
            ..Sources::default()
        };
        let message = format!("cannot read the configuration: {cause}");
        let diagnostics = vec![Diagnostic {
            message,
            origin: None,
            help: None,
        }];
        Self {
            sources: Arc::new(sources),
            diagnostics,
        }
    }

    /// Returns the mistakes in the order of the file, then of the `--set` arguments.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Adds the mistakes of `other`, which a later check of the same configuration found.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut diagnostics = self.diagnostics;
        diagnostics.extend(other.diagnostics);
        Self::new(self.sources, diagnostics)
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f, "\n")?;
            }
            self.sources.write(diagnostic, f)?;
        }
        match self.diagnostics.len() {
            0 | 1 => Ok(()),
            many => write!(
                f,
                "\n\n{many} errors in the configuration `{}`",
                self.sources.file
            ),
        }
    }
}

impl Sources {
    fn write(&self, diagnostic: &Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", diagnostic.message)?;
        let mut gutter = 1;
        match diagnostic.origin {
            None => write!(f, "\n --> {}", self.file)?,
            Some(Origin::File(span)) => {
                let number = span.line.to_string();
                gutter = number.len();
                write!(
                    f,
                    "\n{:gutter$}--> {}:{}:{}",
                    "", self.file, span.line, span.column
                )?;
                if let Some(line) = self.text.lines().nth(span.line.saturating_sub(1)) {
                    let start = span.column.saturating_sub(1);
                    write_excerpt(f, &number, line, start, span.width)?;
                }
            }
            Some(Origin::Set {
                argument,
                start,
                width,
            }) => {
                let text = self.sets.get(argument).map_or("", String::as_str);
                write!(f, "\n --> --set {}", shell_quoted(text))?;
                write_excerpt(f, " ", text, start, width)?;
            }
        }
        match &diagnostic.help {
            Some(help) => write!(f, "\n{:gutter$} = help: {help}", ""),
            None => Ok(()),
        }
    }
}

/// Writes a line with its number in the gutter, and a caret under its characters from `start`.
fn write_excerpt(
    f: &mut fmt::Formatter<'_>,
    number: &str,
    line: &str,
    start: usize,
    width: usize,
) -> fmt::Result {
    let gutter = number.len();
    let length = line.chars().count();
    // Far into a long line: begin a little before the caret.
    let skipped = if start + width > EXCERPT_CHARS_MAX {
        start.saturating_sub(20)
    } else {
        0
    };
    let shown: String = line.chars().skip(skipped).take(EXCERPT_CHARS_MAX).collect();
    let before = if skipped > 0 { "…" } else { "" };
    let after = if length > skipped + EXCERPT_CHARS_MAX {
        "…"
    } else {
        ""
    };
    // A tab must stay a tab, or the caret stands elsewhere than the mistake.
    let padding: String = before
        .chars()
        .chain(
            line.chars()
                .chain(std::iter::repeat(' '))
                .skip(skipped)
                .take(start - skipped),
        )
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let room = (skipped + EXCERPT_CHARS_MAX)
        .min(length)
        .saturating_sub(start);
    let carets = "^".repeat(width.min(room).max(1));
    write!(f, "\n{:gutter$} |", "")?;
    write!(f, "\n{number} | {before}{shown}{after}")?;
    write!(f, "\n{:gutter$} | {padding}{carets}", "")
}

/// Quotes an argument the way a shell wants it, where it needs that.
fn shell_quoted(argument: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-/:=,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}
