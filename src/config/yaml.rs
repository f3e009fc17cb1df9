//! Reads YAML text into the raw tree.
//!
//! A strict part of YAML 1.2: one document, string keys, no anchors, aliases, merge keys or tags.
//! What is left out can hide where a value came from, or builds a large tree from a small file.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::diagnostic::{Diagnostic, FileSpan, Origin};
use super::tree::{Entry, Node, Scalar, Style, Value};

/// The largest file that is read; deployments have a few kilobytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The deepest nesting: bounds the recursion here and in every later walk over the tree.
const DEPTH_MAX: usize = 32;

/// Parses `text`. Returns what could be understood, and every mistake.
///
/// A mistake of syntax ends the reading, since all after it would be a guess.
pub(crate) fn parse(text: &str) -> (Node, Vec<Diagnostic>) {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        text,
        diagnostics: Vec::new(),
    };
    let root = if text.len() > FILE_BYTES_MAX {
        Err(Diagnostic::new(
            Origin::FILE_START,
            "the configuration is larger than 1 MiB",
        ))
    } else {
        reader.document()
    };
    let mut diagnostics = reader.diagnostics;
    match root {
        Ok(root) => (root, diagnostics),
        Err(fatal) => {
            diagnostics.push(fatal);
            (Node::empty(Origin::FILE_START), diagnostics)
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    text: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Diagnostic> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = error.marker();
                let origin = self.origin(marker.line(), marker.col(), 1);
                let line = self
                    .text
                    .lines()
                    .nth(marker.line().saturating_sub(1))
                    .unwrap_or("");
                let help = if error.info().contains("tab") {
                    Some("indent with spaces")
                } else if error.info().contains("flow") && line.contains("${") {
                    Some("within `{…}` and `[…]` a variable goes in quotes: \"${VAR}\"")
                } else {
                    None
                };
                Err(Diagnostic::new(origin, format!("not YAML: {}", error.info())).with_help(help))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// An origin within the text: the parser marks an early end one line after the last.
    fn origin(&self, line: usize, column: usize, width: usize) -> Origin {
        let last = self.text.lines().count().max(1);
        if line > last {
            let end = self
                .text
                .lines()
                .last()
                .map_or(0, |line| line.chars().count());
            return Origin::File(FileSpan {
                line: last,
                column: end + 1,
                width: 1,
            });
        }
        Origin::File(FileSpan {
            line: line.max(1),
            column: column + 1,
            width: width.max(1),
        })
    }

    fn span(&self, span: Span) -> Origin {
        let (start, end) = (span.start, span.end);
        let width = if end.line() == start.line() {
            end.col().saturating_sub(start.col())
        } else {
            // Over several lines: the caret takes the rest of the first.
            let line = self
                .text
                .lines()
                .nth(start.line().saturating_sub(1))
                .unwrap_or("");
            line.trim_end().chars().count().saturating_sub(start.col())
        };
        self.origin(start.line(), start.col(), width)
    }

    fn document(&mut self) -> Result<Node, Diagnostic> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    let message = "a second document: a configuration is one YAML document";
                    return Err(Diagnostic::new(self.span(span), message));
                }
                Event::DocumentStart(_) => {
                    let first = self.next()?;
                    root = Some(self.node(first, 0)?);
                }
                Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => {
                    return Err(Diagnostic::new(
                        self.span(span),
                        "not YAML: content out of place",
                    ));
                }
            }
        }
        let root = root.unwrap_or_else(|| Node::empty(Origin::FILE_START));
        if root.entries().is_none() {
            let message = format!("expected a mapping of keys, found {}", root.found());
            return Err(Diagnostic::new(root.origin, message));
        }
        Ok(root)
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, Diagnostic> {
        let origin = self.span(span);
        if depth > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(Diagnostic::new(origin, message));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(origin, anchor, tag.is_some());
                let style = if style == ScalarStyle::Plain {
                    Style::Plain
                } else {
                    Style::Quoted
                };
                // The parser reports a value left out as a plain `~` of no width.
                let text = if span.is_empty() {
                    String::new()
                } else {
                    text.into_owned()
                };
                Ok(Node {
                    value: Value::Scalar(Scalar { text, style }),
                    origin,
                })
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(origin, anchor, tag.is_some());
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        event => items.push(self.node(event, depth + 1)?),
                    }
                }
                Ok(Node {
                    value: Value::List(items),
                    origin,
                })
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(origin, anchor, tag.is_some());
                let entries = self.entries(depth)?;
                Ok(Node {
                    value: Value::Mapping(entries),
                    origin,
                })
            }
            Event::Alias(_) => Err(
                Diagnostic::new(origin, "aliases (`*name`) are not supported")
                    .with_help(Some("write the value again")),
            ),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => Err(Diagnostic::new(origin, "not YAML: a value is missing")),
        }
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Diagnostic> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                event => self.node(event, depth + 1)?,
            };
            let value = self.next()?;
            let value = self.node(value, depth + 1)?;
            let Value::Scalar(Scalar { text, .. }) = key.value else {
                let message = format!("expected a key, found {}", key.found());
                self.diagnostics.push(Diagnostic::new(key.origin, message));
                continue;
            };
            if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                let help = match first.key_origin {
                    Origin::File(span) => Some(format!("it was first given on line {}", span.line)),
                    Origin::Set { .. } => None,
                };
                let message = format!("duplicate key `{text}`");
                self.diagnostics
                    .push(Diagnostic::new(key.origin, message).with_help(help));
                continue;
            }
            entries.push(Entry {
                key: text,
                key_origin: key.origin,
                value,
            });
        }
    }

    fn refuse_extras(&mut self, origin: Origin, anchor: usize, tagged: bool) {
        // Anchors count from 1.
        if anchor != 0 {
            let message = "anchors (`&name`) are not supported";
            self.diagnostics
                .push(Diagnostic::new(origin, message).with_help(Some("write the value again")));
        }
        if tagged {
            let message = "tags (`!name`) are not supported";
            self.diagnostics.push(
                Diagnostic::new(origin, message).with_help(Some("the key decides a value's type")),
            );
        }
    }
}
