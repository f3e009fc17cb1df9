//! Windowed keys: in topics as Kafka Streams' windowed serdes write them, and the text forms of store
//! keys for queries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Serde, TextCodec};
use crate::clock::Timestamp;
use crate::format::window_key::{
    put_session, put_window, split_session, split_time_windowed, split_window,
};
use crate::processor::BoxError;
use crate::window::{Window, Windowed, millis};

/// Windowed keys of time windows: `key ‖ int64 start`, Kafka Streams' `TimeWindowedSerde`. The size is
/// not in the bytes: whoever reads must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindowedSerde<S> {
    inner: S,
    size: i64,
}

/// Returns the serde of keys windowed by time. `size` is that of the windows; for sliding windows their
/// time difference.
///
/// ```
/// use std::time::Duration;
/// use millstream::prelude::*;
///
/// let serde = serdes::time_windowed(serdes::string(), Duration::from_millis(10));
/// let key = Windowed::new("a".to_owned(), Window::new(20, 30));
/// let mut bytes = Vec::new();
/// serde.serialize(&key, &mut bytes)?;
/// assert_eq!(bytes, b"a\0\0\0\0\0\0\0\x14");
/// assert_eq!(serde.deserialize(Some(&bytes))?, key);
/// # Ok::<(), BoxError>(())
/// ```
#[must_use]
pub fn time_windowed<S>(inner: S, size: Duration) -> TimeWindowedSerde<S> {
    TimeWindowedSerde::of_millis(inner, millis(size))
}

impl<S> TimeWindowedSerde<S> {
    pub(crate) const fn of_millis(inner: S, size: i64) -> Self {
        Self { inner, size }
    }
}

impl<K, S: Serde<K>> Serde<Windowed<K>> for TimeWindowedSerde<S> {
    fn serialize(&self, data: &Windowed<K>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let present = self.inner.serialize(&data.key, out)?;
        if present {
            out.extend_from_slice(&data.window.start().to_be_bytes());
        }
        Ok(present)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Windowed<K>, BoxError> {
        let (key, start) = split_time_windowed(super::present(bytes, "windowed key")?)?;
        let window = Window::new(start, start.saturating_add(self.size));
        Ok(Windowed::new(self.inner.deserialize(Some(key))?, window))
    }

    fn base_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        split_time_windowed(key).map_or(key, |(base, _)| base)
    }
}

/// Windowed keys of sessions: `key ‖ int64 end ‖ int64 start`, Kafka Streams' `SessionWindowedSerde`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionWindowedSerde<S> {
    inner: S,
}

/// Returns the serde of keys windowed by session.
///
/// ```
/// use millstream::prelude::*;
///
/// let serde = serdes::session_windowed(serdes::string());
/// let key = Windowed::new("a".to_owned(), Window::new(1, 2));
/// let mut bytes = Vec::new();
/// serde.serialize(&key, &mut bytes)?;
/// assert_eq!(bytes, b"a\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01");
/// assert_eq!(serde.deserialize(Some(&bytes))?, key);
/// # Ok::<(), BoxError>(())
/// ```
#[must_use]
pub const fn session_windowed<S>(inner: S) -> SessionWindowedSerde<S> {
    SessionWindowedSerde { inner }
}

impl<K, S: Serde<K>> Serde<Windowed<K>> for SessionWindowedSerde<S> {
    fn serialize(&self, data: &Windowed<K>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let present = self.inner.serialize(&data.key, out)?;
        if present {
            put_session(out, data.window);
        }
        Ok(present)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Windowed<K>, BoxError> {
        let (key, window) = split_session(super::present(bytes, "windowed key")?)?;
        Ok(Windowed::new(self.inner.deserialize(Some(key))?, window))
    }

    fn base_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        split_session(key).map_or(key, |(base, _)| base)
    }
}

/// Text of a window store's keys: `key@start`.
#[derive(Clone)]
pub struct WindowStoreCodec(pub(crate) Arc<dyn TextCodec>);

/// Text of a session store's keys: `key@start..end`.
#[derive(Clone)]
pub struct SessionStoreCodec(pub(crate) Arc<dyn TextCodec>);

impl fmt::Debug for WindowStoreCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WindowStoreCodec").field(&self.0).finish()
    }
}

impl fmt::Debug for SessionStoreCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionStoreCodec").field(&self.0).finish()
    }
}

impl TextCodec for WindowStoreCodec {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        let (key, start) = text
            .rsplit_once('@')
            .ok_or("a windowed key reads `key@start`, the start in milliseconds")?;
        let mut bytes = self.0.parse_text(key)?;
        put_window(&mut bytes, start.parse::<Timestamp>()?, 0);
        Ok(bytes)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let (key, start, _) = split_window(bytes)?;
        Ok(json!({ "key": self.0.to_json(key)?, "start": start }))
    }

    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        split_window(key).map_or(key, |(base, _, _)| self.0.partition_key(base))
    }
}

impl TextCodec for SessionStoreCodec {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        let parts = text
            .rsplit_once('@')
            .and_then(|(key, window)| Some((key, window.split_once("..")?)));
        let (key, (start, end)) =
            parts.ok_or("a session's key reads `key@start..end`, in milliseconds")?;
        let mut bytes = self.0.parse_text(key)?;
        put_session(&mut bytes, Window::new(start.parse()?, end.parse()?));
        Ok(bytes)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let (key, window) = split_session(bytes)?;
        Ok(json!({
            "key": self.0.to_json(key)?,
            "start": window.start(),
            "end": window.end(),
        }))
    }

    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        split_session(key).map_or(key, |(base, _)| self.0.partition_key(base))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{optional, string};
    use super::*;

    fn round_trip(serde: &impl Serde<Windowed<String>>, key: &Windowed<String>) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(serde.serialize(key, &mut bytes).unwrap());
        assert_eq!(serde.deserialize(Some(&bytes)).unwrap(), *key);
        assert_eq!(serde.base_key(&bytes), key.key.as_bytes());
        bytes
    }

    #[test]
    fn a_window_ends_where_its_size_says() {
        let serde = time_windowed(string(), Duration::from_millis(i64::MAX as u64));
        let key = Windowed::new("k".to_owned(), Window::new(5, i64::MAX));
        assert_eq!(round_trip(&serde, &key), b"k\0\0\0\0\0\0\0\x05");
    }

    #[test]
    fn null_is_no_windowed_key() {
        let serde = time_windowed(optional(string()), Duration::from_millis(1));
        let key = Windowed::new(None, Window::new(1, 2));
        let mut bytes = Vec::new();
        assert!(!serde.serialize(&key, &mut bytes).unwrap());
        assert!(Serde::<Windowed<Option<String>>>::deserialize(&serde, None).is_err());
    }

    #[test]
    fn store_keys_have_a_text_form() {
        let codec = WindowStoreCodec(Arc::new(string()));
        let bytes = codec.parse_text("a@b@258").unwrap();
        assert_eq!(bytes, b"a@b\0\0\0\0\0\0\x01\x02\0\0\0\0");
        assert_eq!(
            codec.to_json(&bytes).unwrap(),
            json!({"key": "a@b", "start": 258})
        );
        assert_eq!(codec.partition_key(&bytes), b"a@b");
        assert!(codec.parse_text("a").is_err());

        let codec = SessionStoreCodec(Arc::new(string()));
        let bytes = codec.parse_text("a@1..2").unwrap();
        assert_eq!(
            codec.to_json(&bytes).unwrap(),
            json!({"key": "a", "start": 1, "end": 2})
        );
        assert_eq!(codec.partition_key(&bytes), b"a");
        assert!(codec.parse_text("a@1").is_err());
    }

    proptest! {
        #[test]
        fn windowed_keys_round_trip(key: String, start in 0..i64::MAX / 2, size in 0..i64::MAX / 2) {
            let window = Window::new(start, start + size);
            let key = Windowed::new(key, window);
            round_trip(&TimeWindowedSerde::of_millis(string(), size), &key);
            round_trip(&session_windowed(string()), &key);
        }
    }
}
