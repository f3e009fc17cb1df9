//! How keys and values become bytes and text.

use std::fmt::Debug;

use crate::processor::BoxError;

/// Turns a `T` into bytes and back. Null is a value of its own: types that have no null answer
/// `None` with an error, and `optional(serde)` maps it to `Option::None`.
pub trait Serde<T>: Send + Sync + 'static {
    /// Appends the bytes of `data` to `out`; returns whether the field is present (`false`: null).
    ///
    /// # Errors
    /// When `data` has no byte form.
    fn serialize(&self, data: &T, out: &mut Vec<u8>) -> Result<bool, BoxError>;

    /// Reads a `T`.
    ///
    /// # Errors
    /// When the bytes (or a null) are no `T`.
    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<T, BoxError>;
}

/// Untyped text forms of a serde, for queries: `/stores/{name}/{key}`.
pub trait TextCodec: Debug + Send + Sync {
    /// Turns a key's text, as in a URL, into its bytes.
    ///
    /// # Errors
    /// When the text is no such key.
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError>;

    /// Renders bytes as JSON.
    ///
    /// # Errors
    /// When the bytes do not decode.
    fn to_json(&self, bytes: &[u8]) -> Result<serde_json::Value, BoxError>;
}
