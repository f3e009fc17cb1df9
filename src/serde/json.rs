//! Typed JSON.

use std::fmt;
use std::marker::PhantomData;

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Serde, TextCodec, present};
use crate::processor::BoxError;

/// A `T` as JSON.
pub struct JsonSerde<T>(PhantomData<fn() -> T>);

/// Returns the serde of `T` as JSON, by its `Serialize` and `Deserialize`.
#[must_use]
pub const fn json<T: Serialize + DeserializeOwned>() -> JsonSerde<T> {
    JsonSerde(PhantomData)
}

impl<T> Clone for JsonSerde<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for JsonSerde<T> {}

impl<T> fmt::Debug for JsonSerde<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonSerde<{}>", std::any::type_name::<T>())
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Serde<T> for JsonSerde<T> {
    fn serialize(&self, data: &T, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        serde_json::to_writer(out, data)?;
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<T, BoxError> {
        let bytes = present(bytes, "JSON document")?;
        // Checked as a whole, which goes many bytes at a time, and not string by string.
        Ok(serde_json::from_str(std::str::from_utf8(bytes)?)?)
    }
}

impl<T: Serialize + DeserializeOwned + 'static> TextCodec for JsonSerde<T> {
    /// Reads the text as JSON, or, where that is no `T`, as the contents of a JSON string: a key of
    /// type `String` needs no quotes in a URL.
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        let key: T = match serde_json::from_str(text) {
            Ok(key) => key,
            Err(error) => {
                serde_json::from_value(Value::String(text.to_owned())).map_err(|_| error)?
            }
        };
        // Through `T`, so that the bytes are those that were stored.
        Ok(serde_json::to_vec(&key)?)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}
