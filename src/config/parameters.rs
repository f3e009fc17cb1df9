//! A topology's or a sink's own settings: a piece of the tree, read by serde into the topology's type.
//!
//! The deserialiser carries each value's origin into serde's errors, so a topology gets strict
//! checks with line and caret from `#[derive(Deserialize)] #[serde(deny_unknown_fields)]` alone.

use std::fmt;
use std::sync::Arc;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::diagnostic::{ConfigErrors, Diagnostic, Origin, Sources};
use super::suggest;
use super::tree::{Entry, Node, Resolved, Style, Value};

/// The `parameters` of a configuration, or a sink's section: what only its reader knows.
#[derive(Debug, Clone)]
pub struct Parameters {
    entry: Entry,
    sources: Arc<Sources>,
}

impl Parameters {
    pub(crate) fn new(entry: Option<&Entry>, sources: Arc<Sources>) -> Self {
        let absent = || Entry {
            key: "parameters".to_owned(),
            key_origin: Origin::FILE_START,
            value: Node::empty(Origin::FILE_START),
        };
        Self {
            entry: entry.cloned().unwrap_or_else(absent),
            sources,
        }
    }

    /// The settings of something that has a section of its own, by its whole path.
    pub(crate) fn named(path: String, entry: &Entry, sources: &Arc<Sources>) -> Self {
        Self {
            entry: Entry {
                key: path,
                ..entry.clone()
            },
            sources: Arc::clone(sources),
        }
    }

    /// Returns the place of these settings with a message, as an error: for what only their reader
    /// can judge.
    #[must_use]
    pub fn refuse(&self, message: impl Into<String>) -> ConfigErrors {
        let message = format!("`{}`: {}", self.entry.key, message.into());
        let diagnostic = Diagnostic::new(self.entry.key_origin, message);
        ConfigErrors::new(Arc::clone(&self.sources), vec![diagnostic])
    }

    pub(crate) fn refuse_with(&self, message: String, help: String) -> ConfigErrors {
        let diagnostic = Diagnostic::new(self.entry.key_origin, message).with_help(Some(help));
        ConfigErrors::new(Arc::clone(&self.sources), vec![diagnostic])
    }

    /// Reads the parameters into the topology's own type.
    ///
    /// Give that type `#[serde(deny_unknown_fields)]`, and [`DurationValue`](super::DurationValue)
    /// or [`SizeValue`](super::SizeValue) where a value has a unit.
    ///
    /// # Errors
    /// The first value that does not fit, with its line and a caret.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigErrors> {
        let empty = Node::empty(self.entry.value.origin);
        let node = if self.entry.value.is_null() {
            &empty
        } else {
            &self.entry.value
        };
        T::deserialize(NodeDeserializer(node)).map_err(|mut error| {
            error.locate(self.entry.key_origin);
            // What is missing from the whole is shown at its name.
            if error.origin == Some(node.origin) && node.entries().is_some() {
                error.origin = Some(self.entry.key_origin);
            }
            let path: Vec<&str> = error.path.iter().rev().map(String::as_str).collect();
            let path = if path.is_empty() {
                self.entry.key.clone()
            } else {
                format!("{}.{}", self.entry.key, path.join("."))
            };
            let diagnostic = Diagnostic {
                message: format!("`{path}`: {}", error.message),
                origin: error.origin,
                help: error.help,
            };
            ConfigErrors::new(Arc::clone(&self.sources), vec![diagnostic])
        })
    }
}

/// serde's error with the place where it happened, which is known one level further out.
#[derive(Debug)]
struct Error {
    message: String,
    help: Option<String>,
    origin: Option<Origin>,
    /// From the inside out.
    path: Vec<String>,
}

impl Error {
    fn new(message: String) -> Self {
        Self {
            message,
            help: None,
            origin: None,
            path: Vec::new(),
        }
    }

    /// Gives the error a place unless it has a nearer one.
    fn locate(&mut self, origin: Origin) {
        self.origin.get_or_insert(origin);
    }

    fn at(mut self, origin: Origin) -> Self {
        self.locate(origin);
        self
    }

    fn within(mut self, key: impl Into<String>) -> Self {
        self.path.push(key.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {unexpected}"))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {unexpected}"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self {
            help: nearest_or_all(field, expected),
            ..Self::new(format!("unknown key `{field}`"))
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let message = format!("unknown value `{variant}`");
        Self {
            help: nearest_or_all(variant, expected),
            ..Self::new(message)
        }
    }

    fn missing_field(field: &'static str) -> Self {
        let help = Some(format!("add `{field}: …`"));
        Self {
            help,
            ..Self::new(format!("`{field}` is missing"))
        }
    }
}

fn nearest_or_all(name: &str, known: &'static [&'static str]) -> Option<String> {
    suggest::did_you_mean(name, known.iter().copied()).or_else(|| match known {
        [] => Some("nothing is known here".to_owned()),
        known => Some(format!("known here: {}", known.join(", "))),
    })
}

struct NodeDeserializer<'a>(&'a Node);

impl<'de> de::Deserializer<'de> for NodeDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let origin = self.0.origin;
        let result = match &self.0.value {
            Value::List(items) => visitor.visit_seq(Items {
                items: items.iter(),
                index: 0,
            }),
            Value::Mapping(entries) => visitor.visit_map(Entries {
                entries: entries.iter(),
                value: None,
            }),
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Null => visitor.visit_unit(),
                Resolved::Bool(value) => visitor.visit_bool(value),
                Resolved::Unsigned(value) => visitor.visit_u64(value),
                Resolved::Signed(value) => visitor.visit_i64(value),
                Resolved::Float(value) => visitor.visit_f64(value),
                Resolved::Text(text) => visitor.visit_str(text),
            },
        };
        result.map_err(|error| error.at(origin))
    }

    // What came from the environment or `--set` is text where text is wanted.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Scalar(scalar) if scalar.style == Style::Untyped => visitor
                .visit_str(&scalar.text)
                .map_err(|error: Error| error.at(self.0.origin)),
            Value::Scalar(_) | Value::List(_) | Value::Mapping(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let origin = self.0.origin;
        let result = match &self.0.value {
            Value::Scalar(scalar) => visitor.visit_enum(Variant {
                name: &scalar.text,
                value: None,
            }),
            Value::Mapping(entries) => match entries.as_slice() {
                [Entry { key, value, .. }] => visitor.visit_enum(Variant {
                    name: key,
                    value: Some(value),
                }),
                _ => Err(Error::new(format!(
                    "expected one key, found {}",
                    entries.len()
                ))),
            },
            Value::List(_) => Err(Error::new("expected a name, found a list".to_owned())),
        };
        result.map_err(|error| error.at(origin))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.items.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(NodeDeserializer(item))
            .map(Some)
            .map_err(|error| error.at(item.origin).within(index.to_string()))
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, Entry>,
    value: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(entry);
        let key: StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|error| error.at(entry.key_origin))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.value.take() else {
            return Err(Error::new(
                "a value was asked for before its key".to_owned(),
            ));
        };
        // Beside an empty value (`key:`) or an empty section the key is the better place to show.
        let empty = entry.value.is_null();
        let origin = if empty {
            entry.key_origin
        } else {
            entry.value.origin
        };
        let missing_within = matches!(entry.value.value, Value::Mapping(_));
        seed.deserialize(NodeDeserializer(&entry.value))
            .map_err(|mut error| {
                if empty || (missing_within && error.origin == Some(entry.value.origin)) {
                    error.origin = Some(entry.key_origin);
                }
                error.at(origin).within(entry.key.clone())
            })
    }
}

struct Variant<'a> {
    name: &'a str,
    value: Option<&'a Node>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = VariantValue<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, VariantValue<'a>), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((
            seed.deserialize(name)?,
            VariantValue {
                name: self.name,
                node: self.value,
            },
        ))
    }
}

struct VariantValue<'a> {
    name: &'a str,
    node: Option<&'a Node>,
}

impl VariantValue<'_> {
    fn read<T>(
        self,
        read: impl FnOnce(NodeDeserializer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self.node {
            Some(node) => read(NodeDeserializer(node)).map_err(|error| error.within(self.name)),
            None => Err(Error::new(format!("`{}` needs a value", self.name))),
        }
    }
}

impl<'de> VariantAccess<'de> for VariantValue<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.node {
            None => Ok(()),
            Some(_) => Err(Error::new(format!("`{}` takes no value", self.name))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        self.read(|node| seed.deserialize(node))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.read(|node| de::Deserializer::deserialize_any(node, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.read(|node| de::Deserializer::deserialize_any(node, visitor))
    }
}
