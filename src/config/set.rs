//! `--set key=value`: overrides from the command line.
//!
//! Dots mean nesting, a quoted segment keeps its dots (`topics."billing.account.events".name=x`),
//! and under a flat map (`kafka.properties`, a topic's `config`) all that is left is one key. The
//! value is one scalar as it stands, never YAML, so no value needs escaping but the shell's.

use super::diagnostic::{Diagnostic, Origin};
use super::keys;
use super::tree::{Entry, Node, Scalar, Style, Value};

/// A part of a key, with its place in the argument.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    name: String,
    /// Characters from the argument's start.
    start: usize,
    width: usize,
}

/// Applies the arguments in order to `root`; a later one wins. Reports each that cannot be.
pub(crate) fn apply(root: &mut Node, sets: &[String], diagnostics: &mut Vec<Diagnostic>) {
    for (argument, text) in sets.iter().enumerate() {
        if let Err(diagnostic) = apply_one(root, argument, text) {
            diagnostics.push(diagnostic);
        }
    }
}

fn apply_one(root: &mut Node, argument: usize, text: &str) -> Result<(), Diagnostic> {
    let whole = Origin::Set {
        argument,
        start: 0,
        width: text.chars().count(),
    };
    let (segments, value) = split(text).map_err(|broken| {
        let origin = Origin::Set {
            argument,
            start: broken.at,
            width: broken.width,
        };
        Diagnostic::new(origin, broken.message).with_help(broken.help)
    })?;
    let value_start = text.chars().count() - value.chars().count();
    let value = Node {
        value: Value::Scalar(Scalar {
            text: value.to_owned(),
            style: Style::Untyped,
        }),
        origin: Origin::Set {
            argument,
            start: value_start,
            width: value.chars().count(),
        },
    };
    let Some((last, sections)) = segments.split_last() else {
        return Err(Diagnostic::new(whole, "a key is missing"));
    };
    let mut node = root;
    let mut path = String::new();
    for segment in sections {
        let origin = Origin::Set {
            argument,
            start: segment.start,
            width: segment.width,
        };
        path.push_str(&segment.name);
        node = descend(node, segment, origin).ok_or_else(|| {
            Diagnostic::new(origin, format!("`{path}` has a value and no keys below it"))
        })?;
        path.push('.');
    }
    let key_origin = Origin::Set {
        argument,
        start: last.start,
        width: last.width,
    };
    // A section of the file is a mapping by the time something is set in it.
    let Value::Mapping(entries) = &mut node.value else {
        return Err(Diagnostic::new(key_origin, "cannot be set here"));
    };
    match entries.iter_mut().find(|entry| entry.key == last.name) {
        Some(entry) => {
            *entry = Entry {
                key: last.name.clone(),
                key_origin,
                value,
            }
        }
        None => entries.push(Entry {
            key: last.name.clone(),
            key_origin,
            value,
        }),
    }
    Ok(())
}

/// Goes into the section `segment`, which is made where it is missing or empty.
fn descend<'a>(node: &'a mut Node, segment: &Segment, origin: Origin) -> Option<&'a mut Node> {
    let Value::Mapping(entries) = &mut node.value else {
        return None;
    };
    let index = match entries.iter().position(|entry| entry.key == segment.name) {
        Some(index) => index,
        None => {
            let key = segment.name.clone();
            entries.push(Entry {
                key,
                key_origin: origin,
                value: Node::empty(origin),
            });
            entries.len() - 1
        }
    };
    let section = &mut entries.get_mut(index)?.value;
    if section.is_null() {
        section.value = Value::Mapping(Vec::new());
    }
    matches!(section.value, Value::Mapping(_)).then_some(section)
}

#[derive(Debug, PartialEq, Eq)]
struct Broken {
    message: String,
    help: Option<String>,
    at: usize,
    width: usize,
}

const SHAPE: &str = "write `--set key=value`, such as `--set commit.interval=50ms`";

/// Splits an argument into the key's segments and the value.
fn split(text: &str) -> Result<(Vec<Segment>, &str), Broken> {
    let broken = |message: &str, help: Option<&str>, at, width| Broken {
        message: message.to_owned(),
        help: help.map(str::to_owned),
        at,
        width,
    };
    let mut segments: Vec<Segment> = Vec::new();
    let mut rest = text;
    loop {
        let start = text.chars().count() - rest.chars().count();
        let names: Vec<&str> = segments
            .iter()
            .map(|segment| segment.name.as_str())
            .collect();
        let flat = keys::is_flat_map(&names);
        let (name, width, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let Some((name, after)) = quoted.split_once('"') else {
                return Err(broken(
                    "a quoted segment does not end",
                    Some(SHAPE),
                    start,
                    1,
                ));
            };
            (name, name.chars().count() + 2, after)
        } else {
            let end = rest
                .find(|c| c == '=' || (c == '.' && !flat))
                .unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            (name, name.chars().count(), after)
        };
        if name.is_empty() {
            let message = if text.is_empty() || text.starts_with('=') {
                "a key is missing"
            } else {
                "a part of the key is empty"
            };
            return Err(broken(message, Some(SHAPE), start, 1));
        }
        segments.push(Segment {
            name: name.to_owned(),
            start,
            width,
        });
        if let Some(value) = after.strip_prefix('=') {
            return Ok((segments, value));
        }
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None if after.is_empty() => {
                return Err(broken(
                    "`=` and a value are missing",
                    Some(SHAPE),
                    0,
                    text.chars().count(),
                ));
            }
            None => {
                let at = text.chars().count() - after.chars().count();
                return Err(broken(
                    "expected `.` or `=` after a quoted segment",
                    Some(SHAPE),
                    at,
                    1,
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_nest_quotes_keep_dots_and_flat_maps_take_the_rest() {
        for (argument, expected, value) in [
            ("threads=4", vec!["threads"], "4"),
            ("commit.interval=50ms", vec!["commit", "interval"], "50ms"),
            (
                "kafka.properties.security.protocol=SSL",
                vec!["kafka", "properties", "security.protocol"],
                "SSL",
            ),
            (
                "kafka.properties.sasl.jaas.config=a=\"b\"; c=d",
                vec!["kafka", "properties", "sasl.jaas.config"],
                "a=\"b\"; c=d",
            ),
            (
                r#"topics."billing.account.events".name=x"#,
                vec!["topics", "billing.account.events", "name"],
                "x",
            ),
            (
                r#"topics."a.b".config.retention.ms=-1"#,
                vec!["topics", "a.b", "config", "retention.ms"],
                "-1",
            ),
            ("parameters.empty=", vec!["parameters", "empty"], ""),
        ] {
            let (segments, found) = split(argument).expect(argument);
            let names: Vec<&str> = segments
                .iter()
                .map(|segment| segment.name.as_str())
                .collect();
            assert_eq!((names, found), (expected, value), "{argument}");
        }
    }

    #[test]
    fn a_broken_argument_says_where() {
        for (argument, message, at) in [
            ("", "a key is missing", 0),
            ("=5", "a key is missing", 0),
            ("threads", "`=` and a value are missing", 0),
            ("commit..interval=1s", "a part of the key is empty", 7),
            ("commit.=1s", "a part of the key is empty", 7),
            ("topics.\"a.b=x", "a quoted segment does not end", 7),
            (
                "topics.\"a.b\"name=x",
                "expected `.` or `=` after a quoted segment",
                12,
            ),
        ] {
            let broken = split(argument).expect_err(argument);
            assert_eq!(
                (broken.message.as_str(), broken.at),
                (message, at),
                "{argument}"
            );
        }
    }
}
