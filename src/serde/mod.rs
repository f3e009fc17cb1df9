//! How keys and values become bytes and text.
//!
//! Byte forms are those of Kafka's own serializers, so that a Java program reads what is written
//! here: strings in UTF-8, integers and floats big endian, UUIDs as text. Decimals travel as text
//! too, since money never passes through a float.

mod builtin;
pub mod decimal_text;
mod json;
mod optional;
mod versioned;
mod windowed;

pub use builtin::{
    BoolSerde, BytesSerde, DecimalSerde, F32Serde, F64Serde, I16Serde, I32Serde, I64Serde,
    StringSerde, UuidSerde, VoidSerde, bool, bytes, decimal, f32, f64, i16, i32, i64, string, uuid,
    void,
};
pub use json::{JsonSerde, json};
pub use optional::{OptionalSerde, optional};
pub use versioned::{ValueVersions, VersionedValue};
pub use windowed::{
    SessionStoreCodec, SessionWindowedSerde, TimeWindowedSerde, WindowStoreCodec, session_windowed,
    time_windowed,
};

use std::fmt::Debug;
use std::sync::Arc;

use crate::processor::BoxError;

/// Turns a `T` into bytes and back. Null is a value of its own: types that have no null answer
/// `None` with an error, and `optional(serde)` maps it to `Option::None`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not turn `{T}` into bytes",
    note = "take a matching serde, such as `serdes::string()` for `String`, \
            `serdes::json::<{T}>()` for JSON, `serdes::optional(..)` for an `Option`"
)]
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

    /// Returns the part of a key's bytes that a sink partitions by: all of it, unless records of
    /// several keys belong together, as all windows of a key do.
    fn base_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key
    }

    /// Returns whether `data` is null: [`serialize`](Self::serialize) would answer `false`. Operators
    /// that Kafka Streams has drop null keys and values ask this way.
    fn is_null(&self, _data: &T) -> bool {
        false
    }
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

    /// Returns the part of a key that decides its partition: what the records that write it are
    /// keyed by. All of it, unless the key carries more than that.
    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key
    }

    /// Returns the versions of values that carry one ([`VersionedValue`]).
    fn versions(&self) -> Option<ValueVersions> {
        None
    }
}

impl<T: 'static> Serde<T> for Arc<dyn Serde<T>> {
    fn serialize(&self, data: &T, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        (**self).serialize(data, out)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<T, BoxError> {
        (**self).deserialize(bytes)
    }

    fn base_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        (**self).base_key(key)
    }

    fn is_null(&self, data: &T) -> bool {
        (**self).is_null(data)
    }
}

/// The bytes of a field that must not be null.
fn present<'a>(bytes: Option<&'a [u8]>, what: &str) -> Result<&'a [u8], BoxError> {
    bytes.ok_or_else(|| format!("null is no {what}; `serdes::optional` reads it as `None`").into())
}

#[cfg(test)]
mod tests;
