//! `${VAR}`, `${VAR:-default}` and `$$` in the scalars of a configuration file.
//!
//! Keys are left alone, and so are `--set` arguments: a shell has already done its part there.
//! A lone `$` is a mistake rather than itself, or `$VAR` would pass unnoticed as four letters.

use super::diagnostic::{Diagnostic, FileSpan, Origin};
use super::tree::{Node, Scalar, Style, Value};

/// Replaces variables in every scalar that came from the file; reports each that cannot be.
pub(crate) fn interpolate(
    node: &mut Node,
    environment: &dyn Fn(&str) -> Option<String>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    match &mut node.value {
        Value::List(items) => {
            for item in items {
                interpolate(item, environment, diagnostics);
            }
        }
        Value::Mapping(entries) => {
            for entry in entries {
                interpolate(&mut entry.value, environment, diagnostics);
            }
        }
        Value::Scalar(scalar) => {
            if let Origin::File(span) = node.origin
                && scalar.text.contains('$')
            {
                replace(scalar, span, environment, diagnostics);
            }
        }
    }
}

fn replace(
    scalar: &mut Scalar,
    span: FileSpan,
    environment: &dyn Fn(&str) -> Option<String>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut result = String::with_capacity(scalar.text.len());
    let mut rest = scalar.text.as_str();
    let mut replaced = false;
    let mut broken = false;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let at = scalar.text.chars().count() - after.chars().count() - 1;
        match reference(after, environment) {
            Ok(Reference {
                value,
                rest: remaining,
                variable,
            }) => {
                result.push_str(&value);
                replaced |= variable;
                rest = remaining;
            }
            Err(Broken {
                message,
                help,
                width,
            }) => {
                let origin = Origin::File(part(span, scalar, at, width));
                diagnostics.push(Diagnostic::new(origin, message).with_help(help));
                broken = true;
                rest = after;
            }
        }
    }
    result.push_str(rest);
    scalar.text = result;
    if broken {
        scalar.style = Style::Unresolved;
    } else if replaced {
        scalar.style = Style::Untyped;
    }
}

/// The place of a part of a scalar; the whole scalar where its text is not what the file shows.
fn part(span: FileSpan, scalar: &Scalar, at: usize, width: usize) -> FileSpan {
    let length = scalar.text.chars().count();
    let quotes = match scalar.style {
        Style::Plain => 0,
        Style::Quoted | Style::Untyped | Style::Unresolved => 1,
    };
    if span.width == length + 2 * quotes {
        FileSpan {
            column: span.column + quotes + at,
            width,
            ..span
        }
    } else {
        span
    }
}

struct Reference<'a> {
    value: String,
    rest: &'a str,
    variable: bool,
}

struct Broken {
    message: String,
    help: Option<String>,
    width: usize,
}

/// Reads what follows a `$`.
fn reference<'a>(
    after: &'a str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Reference<'a>, Broken> {
    if let Some(rest) = after.strip_prefix('$') {
        return Ok(Reference {
            value: "$".to_owned(),
            rest,
            variable: false,
        });
    }
    let Some(body) = after.strip_prefix('{') else {
        let name: String = after
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let (written, help) = if name.is_empty() {
            ("$".to_owned(), "write `$$` for a dollar sign".to_owned())
        } else {
            let help = format!("write `${{{name}}}` for a variable, `$${name}` for a dollar sign");
            (format!("${name}"), help)
        };
        let message = format!("`{written}` is neither a variable nor an escaped dollar sign");
        return Err(Broken {
            message,
            help: Some(help),
            width: written.chars().count(),
        });
    };
    let Some((inside, rest)) = body.split_once('}') else {
        let message = "`${` without its `}`".to_owned();
        return Err(Broken {
            message,
            help: None,
            width: 2,
        });
    };
    let width = inside.chars().count() + 3;
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(legal)
    {
        let message = format!("`{name}` is not the name of a variable");
        let help = "write `${VAR}` or `${VAR:-default}`".to_owned();
        return Err(Broken {
            message,
            help: Some(help),
            width,
        });
    }
    if default.is_some_and(|default| default.contains("${")) {
        let message = "a variable within a default is not supported".to_owned();
        return Err(Broken {
            message,
            help: None,
            width,
        });
    }
    // As in a shell, `:-` also replaces a variable that is set to nothing.
    let value = match (environment(name), default) {
        (Some(value), None) => value,
        (Some(value), Some(_)) if !value.is_empty() => value,
        (_, Some(default)) => default.to_owned(),
        (None, None) => {
            let message = format!("environment variable `{name}` is not set");
            let help = format!("set it, or give a default: `${{{name}:-default}}`");
            return Err(Broken {
                message,
                help: Some(help),
                width,
            });
        }
    };
    Ok(Reference {
        value,
        rest,
        variable: true,
    })
}
