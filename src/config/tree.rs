//! The raw configuration: a tree of scalars, lists and mappings that remembers where each was
//! written.
//!
//! Scalars keep their text as written (`007` stays `007`, `1e3` stays `1e3`): what they mean is
//! decided by the key that they belong to, so a Kafka property needs no quotes to stay itself.

use super::diagnostic::Origin;

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes in the file: may be a number, a truth value or nothing.
    Plain,
    /// In quotes or as a block: a string, whatever it looks like.
    Quoted,
    /// By `--set` or through a `${VAR}`: whatever its key wants, since neither a shell nor an
    /// environment has types.
    Untyped,
    /// With a variable that could not be replaced: reported, and not to be read.
    Unresolved,
}

/// A scalar's text and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) style: Style,
}

/// What a plain scalar is by YAML's core schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Resolved<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
}

impl Scalar {
    /// Resolves the text by YAML 1.2's core schema (§10.3.2).
    pub(crate) fn resolve(&self) -> Resolved<'_> {
        let text = self.text.as_str();
        if self.style == Style::Quoted {
            return Resolved::Text(text);
        }
        match text {
            // By `--set a=` or an empty variable one means the empty string.
            "" if self.style == Style::Untyped => return Resolved::Text(text),
            "" | "~" | "null" | "Null" | "NULL" => return Resolved::Null,
            "true" | "True" | "TRUE" => return Resolved::Bool(true),
            "false" | "False" | "FALSE" => return Resolved::Bool(false),
            _ => {}
        }
        if let Ok(number) = text.strip_prefix('+').unwrap_or(text).parse::<u64>() {
            return Resolved::Unsigned(number);
        }
        if let Ok(number) = text.parse::<i64>() {
            return Resolved::Signed(number);
        }
        // `inf`, `nan` and `infinity` are floats to Rust and words to YAML.
        let numeric = text
            .chars()
            .all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
        match text.parse::<f64>() {
            Ok(number) if numeric => Resolved::Float(number),
            Ok(_) | Err(_) => Resolved::Text(text),
        }
    }
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// A mapping's key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_origin: Origin,
    pub(crate) value: Node,
}

impl Node {
    /// Creates an empty mapping.
    pub(crate) const fn empty(origin: Origin) -> Self {
        Self {
            value: Value::Mapping(Vec::new()),
            origin,
        }
    }

    /// Returns whether nothing was written here (`key:` alone, `~`, `null`).
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.resolve() == Resolved::Null)
    }

    /// Returns the entries of a mapping; a section that was left empty has none.
    pub(crate) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            Value::Scalar(_) if self.is_null() => Some(&[]),
            Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// Returns the entry under `key`.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// Describes what was found, for "expected …, found …".
    pub(crate) fn found(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Null => "nothing".to_owned(),
                Resolved::Text("") => "an empty string".to_owned(),
                Resolved::Bool(_) => format!("the truth value `{}`", scalar.text),
                Resolved::Unsigned(_) | Resolved::Signed(_) | Resolved::Float(_) => {
                    format!("the number `{}`", scalar.text)
                }
                Resolved::Text(text) => format!("the string `{text}`"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_resolve_by_the_core_schema_and_quoted_ones_are_strings() {
        let plain = |text: &str| Scalar {
            text: text.to_owned(),
            style: Style::Plain,
        };
        assert_eq!(plain("~").resolve(), Resolved::Null);
        assert_eq!(plain("true").resolve(), Resolved::Bool(true));
        assert_eq!(plain("yes").resolve(), Resolved::Text("yes"));
        assert_eq!(plain("12").resolve(), Resolved::Unsigned(12));
        assert_eq!(plain("-12").resolve(), Resolved::Signed(-12));
        assert_eq!(plain("1.5e3").resolve(), Resolved::Float(1500.0));
        assert_eq!(plain("inf").resolve(), Resolved::Text("inf"));
        assert_eq!(plain("10s").resolve(), Resolved::Text("10s"));
        let quoted = Scalar {
            text: "12".to_owned(),
            style: Style::Quoted,
        };
        assert_eq!(quoted.resolve(), Resolved::Text("12"));
    }
}
