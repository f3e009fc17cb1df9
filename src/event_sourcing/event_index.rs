//! The events of all aggregates in the order of their time: an index into history.
//!
//! ```text
//! key    timestamp: i64 BE, sign bit flipped ‖ aggregate id ‖ 0x00 ‖ version: u64 BE
//! value  {"type":"StandChanged","actor":"user-7"}          actor absent where the event names none
//! ```
//! The flipped sign bit keeps bytes in the order of times, those before 1970 included. In the text
//! form of a key, for queries, `@` parts its fields: `2025-12-09T12:00:00.000Z@account-123@5`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::history::{HistoryError, HistoryKey};
use super::stores::HistoryKeySerde;
use super::time::{format_timestamp, parse_timestamp};
use crate::clock::Timestamp;
use crate::processor::BoxError;
use crate::serde::{Serde, TextCodec};

const TIME_LEN: usize = size_of::<Timestamp>();
const SIGN: u64 = 1 << 63;

/// The place of an event among those of all aggregates.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EventIndexKey {
    /// The event's own timestamp.
    pub(super) timestamp: Timestamp,
    /// Its place in history.
    pub(super) event: HistoryKey,
}

/// What a search by type and actor looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IndexedEvent {
    /// `eventType`.
    #[serde(rename = "type")]
    pub(super) event_type: String,
    /// `metadata.actorId`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) actor: Option<String>,
}

/// Returns the first bytes of the keys of a time.
pub(super) fn time_bytes(timestamp: Timestamp) -> [u8; TIME_LEN] {
    (timestamp.cast_unsigned() ^ SIGN).to_be_bytes()
}

impl EventIndexKey {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&time_bytes(self.timestamp));
        self.event.encode(into);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HistoryError> {
        let (time, event) = bytes
            .split_first_chunk::<TIME_LEN>()
            .ok_or(HistoryError::Key { len: bytes.len() })?;
        Ok(Self {
            timestamp: (u64::from_be_bytes(*time) ^ SIGN).cast_signed(),
            event: HistoryKey::decode(event)?,
        })
    }
}

/// The serde of [`EventIndexKey`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EventIndexKeySerde;

impl Serde<EventIndexKey> for EventIndexKeySerde {
    fn serialize(&self, key: &EventIndexKey, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        key.encode(out);
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<EventIndexKey, BoxError> {
        Ok(EventIndexKey::decode(
            bytes.ok_or("an event index key is null")?,
        )?)
    }
}

impl TextCodec for EventIndexKeySerde {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        let (time, event) = text
            .split_once('@')
            .ok_or_else(|| format!("`{text}` has no form `<time>@<aggregate id>@<version>`"))?;
        let mut bytes = time_bytes(parse_timestamp(time)?).to_vec();
        bytes.extend(HistoryKeySerde.parse_text(event)?);
        Ok(bytes)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let EventIndexKey { timestamp, event } = EventIndexKey::decode(bytes)?;
        Ok(json!({
            "timestamp": format_timestamp(timestamp)?,
            "aggregateId": event.aggregate_id, "version": event.version,
        }))
    }

    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        HistoryKeySerde.partition_key(key.get(TIME_LEN..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_time_then_aggregate_then_version_and_read_back() {
        let mut keys = Vec::new();
        for timestamp in [i64::MIN, -1, 0, 255, 256, i64::MAX] {
            for (id, version) in [("a", 1), ("a", 300), ("ab", 2)] {
                let event = HistoryKey::new(id, version);
                keys.push(EventIndexKey { timestamp, event });
            }
        }
        let bytes = |key: &EventIndexKey| {
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            bytes
        };
        let encoded: Vec<_> = keys.iter().map(bytes).collect();
        assert!(encoded.is_sorted(), "{encoded:?}");
        for (key, bytes) in keys.iter().zip(&encoded) {
            assert_eq!(EventIndexKey::decode(bytes).as_ref(), Ok(key));
            let partition = EventIndexKeySerde.partition_key(bytes);
            assert_eq!(partition, key.event.aggregate_id.as_bytes());
        }
    }

    #[test]
    fn a_key_has_a_text_form_for_queries() {
        let bytes = EventIndexKeySerde
            .parse_text("1970-01-01T00:00:00.258Z@a@b@7")
            .unwrap();
        assert_eq!(bytes, b"\x80\0\0\0\0\0\x01\x02a@b\0\0\0\0\0\0\0\0\x07");
        let shown =
            json!({"timestamp": "1970-01-01T00:00:00.258Z", "aggregateId": "a@b", "version": 7});
        assert_eq!(EventIndexKeySerde.to_json(&bytes).unwrap(), shown);
        for text in ["", "a@7", "yesterday@a@7", "1970-01-01T00:00:00Z@7"] {
            assert!(EventIndexKeySerde.parse_text(text).is_err(), "{text}");
        }
    }
}
