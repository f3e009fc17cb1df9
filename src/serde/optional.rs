//! Null as a value.

use serde_json::Value;

use super::{Serde, TextCodec, ValueVersions};
use crate::processor::BoxError;

/// An `Option<T>`: null is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OptionalSerde<S>(S);

impl<S> OptionalSerde<S> {
    /// Wraps the serde of what is there.
    #[must_use]
    pub const fn new(serde: S) -> Self {
        Self(serde)
    }
}

/// Returns the serde of an `Option`: null, a tombstone, is `None`.
#[must_use]
pub const fn optional<S>(serde: S) -> OptionalSerde<S> {
    OptionalSerde(serde)
}

impl<T, S: Serde<T>> Serde<Option<T>> for OptionalSerde<S> {
    fn serialize(&self, data: &Option<T>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        data.as_ref()
            .map_or(Ok(false), |data| self.0.serialize(data, out))
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Option<T>, BoxError> {
        bytes
            .map(|bytes| self.0.deserialize(Some(bytes)))
            .transpose()
    }

    fn base_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        self.0.base_key(key)
    }

    fn is_null(&self, data: &Option<T>) -> bool {
        data.as_ref().is_none_or(|data| self.0.is_null(data))
    }
}

impl<S: TextCodec> TextCodec for OptionalSerde<S> {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        self.0.parse_text(text)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        self.0.to_json(bytes)
    }

    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        self.0.partition_key(key)
    }

    fn versions(&self) -> Option<ValueVersions> {
        self.0.versions()
    }
}
