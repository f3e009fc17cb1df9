//! The stores of an event-sourced aggregate, and their bytes.
//!
//! | Store | Key | Value | Durability |
//! | --- | --- | --- | --- |
//! | `<name>-state` | aggregate id | [`AggregateRecord`](super::AggregateRecord), JSON | derived |
//! | `<name>-snapshots` | [`HistoryKey`] | the state at a version (`snapshot.rs`) | derived |
//! | `<name>-events-by-time` | time, then [`HistoryKey`] (`event_index.rs`) | type and actor, JSON | derived |
//! | `<name>-rebuild` | `history` | [`RebuildProgress`], JSON | derived |
//! | `<name>-history` | [`HistoryKey`] | [`StoredEvent`] | record |
//! | `<name>-archivable` | offset on the events topic | aggregate and version (`trim.rs`), JSON | record, optional |
//! | `<name>-commands` | [`CommandKey`] | [`RememberedCommand`], JSON | record |
//!
//! In the text form of a key, for queries, the last `@` parts its two fields: `account-123@5`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::archived::StoredEvent;
use super::command::Reply;
use super::history::{HistoryKey, Origin};
use crate::clock::Timestamp;
use crate::processor::BoxError;
use crate::serde::{Serde, TextCodec};

/// A command as it is remembered: command ids are unique per aggregate.
///
/// ```text
/// aggregate id (UTF-8, no U+0000) ‖ 0x00 ‖ command id (UTF-8)
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandKey {
    /// The aggregate.
    pub aggregate_id: String,
    /// The command.
    pub command_id: String,
}

/// The first reply to a command, and when it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RememberedCommand {
    /// What was replied.
    pub reply: Reply,
    /// The wall-clock time of the decision, in milliseconds; the memory ends a while after it.
    pub decided_at: Timestamp,
    /// Whether it is remembered for good: a step of a process may be issued again at any time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

/// How far derived state was rebuilt from history. Derived itself: a reset deletes it with what it
/// speaks of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebuildProgress {
    /// Whether all of history is in.
    pub complete: bool,
    /// The last entry that is in, as long as it is not complete.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub position: Option<RebuildPosition>,
    /// The form of what is derived. Another program's is built anew; one from before there were
    /// forms, too.
    #[serde(default)]
    pub form: DerivedForm,
    /// Whether the rebuild is for a new form only: it tells nobody downstream, where all is known.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub quiet: bool,
}

/// The form of what is derived from history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DerivedForm {
    /// The layout of snapshots; 0 where there are none.
    pub snapshots: u8,
    /// [`Aggregate::STATE_VERSION`](super::Aggregate::STATE_VERSION).
    pub state_version: u32,
    /// Whether there is an index by time.
    pub index: bool,
}

/// A place in history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RebuildPosition {
    /// The aggregate.
    pub aggregate_id: String,
    /// The version.
    pub version: u64,
}

fn present<'a>(bytes: Option<&'a [u8]>, what: &str) -> Result<&'a [u8], BoxError> {
    bytes.ok_or_else(|| format!("{what} is null").into())
}

/// Parts the text form of a key.
fn parts(text: &str) -> Result<(&str, &str), BoxError> {
    text.rsplit_once('@')
        .filter(|(id, _)| !id.is_empty() && !id.contains('\0'))
        .ok_or_else(|| format!("`{text}` has no form `<aggregate id>@<rest>`").into())
}

/// The serde of [`HistoryKey`]; also for stores of read models with a row for each event. In text,
/// `account-123@5`.
#[derive(Debug, Clone, Copy, Default)]
pub struct HistoryKeySerde;

impl Serde<HistoryKey> for HistoryKeySerde {
    fn serialize(&self, key: &HistoryKey, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        key.encode(out);
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<HistoryKey, BoxError> {
        Ok(HistoryKey::decode(present(bytes, "a history key")?)?)
    }
}

impl TextCodec for HistoryKeySerde {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        let (id, version) = parts(text)?;
        let mut bytes = Vec::new();
        HistoryKey::new(id, version.parse()?).encode(&mut bytes);
        Ok(bytes)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let key = HistoryKey::decode(bytes)?;
        Ok(json!({"aggregateId": key.aggregate_id, "version": key.version}))
    }

    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        aggregate_id(key)
    }
}

/// The serde of [`StoredEvent`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StoredEventSerde;

impl Serde<StoredEvent> for StoredEventSerde {
    fn serialize(&self, stored: &StoredEvent, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        stored.encode(out);
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<StoredEvent, BoxError> {
        Ok(StoredEvent::decode(present(bytes, "a history entry")?)?)
    }
}

impl TextCodec for StoredEventSerde {
    fn parse_text(&self, _: &str) -> Result<Vec<u8>, BoxError> {
        Err("a history entry is a value, not a key".into())
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let name = |origin| match origin {
            Origin::Native => "native",
            Origin::Foreign => "foreign",
        };
        Ok(match StoredEvent::decode(bytes)? {
            StoredEvent::Whole(entry) => {
                let event: Value = serde_json::from_slice(&entry.event)?;
                json!({"origin": name(entry.origin), "event": event})
            }
            StoredEvent::Archived(event) => json!({
                "origin": name(event.origin),
                "archived": {"eventId": event.event_id, "bytes": event.bytes, "until": event.until},
            }),
        })
    }
}

/// The serde of [`CommandKey`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CommandKeySerde;

impl Serde<CommandKey> for CommandKeySerde {
    fn serialize(&self, key: &CommandKey, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(key.aggregate_id.as_bytes());
        out.push(0);
        out.extend_from_slice(key.command_id.as_bytes());
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<CommandKey, BoxError> {
        let text = std::str::from_utf8(present(bytes, "a command key")?)?;
        let (aggregate_id, command_id) = text
            .split_once('\0')
            .ok_or("a command key has no separator")?;
        Ok(CommandKey {
            aggregate_id: aggregate_id.into(),
            command_id: command_id.into(),
        })
    }
}

impl TextCodec for CommandKeySerde {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        let (aggregate_id, command_id) = parts(text)?;
        let key = CommandKey {
            aggregate_id: aggregate_id.into(),
            command_id: command_id.into(),
        };
        let mut bytes = Vec::new();
        self.serialize(&key, &mut bytes)?;
        Ok(bytes)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let key = self.deserialize(Some(bytes))?;
        Ok(json!({"aggregateId": key.aggregate_id, "commandId": key.command_id}))
    }

    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        aggregate_id(key)
    }
}

/// The part of a key before U+0000: what the aggregate's records are keyed by.
fn aggregate_id(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_a_text_form_for_queries() {
        let mut bytes = Vec::new();
        HistoryKey::new("a@b", 7).encode(&mut bytes);
        assert_eq!(HistoryKeySerde.parse_text("a@b@7").unwrap(), bytes);
        let shown = HistoryKeySerde.to_json(&bytes).unwrap();
        assert_eq!(shown, json!({"aggregateId": "a@b", "version": 7}));
        for text in ["7", "@7", "a@", "a@x", "a\0@1"] {
            assert!(HistoryKeySerde.parse_text(text).is_err(), "{text}");
        }
    }

    #[test]
    fn command_keys_round_trip_and_sort_by_aggregate() {
        let key = |aggregate_id: &str, command_id: &str| CommandKey {
            aggregate_id: aggregate_id.into(),
            command_id: command_id.into(),
        };
        let bytes = |key: &CommandKey| {
            let mut bytes = Vec::new();
            assert!(CommandKeySerde.serialize(key, &mut bytes).unwrap());
            bytes
        };
        let mut keys = [key("a", "z"), key("ab", "a"), key("a", "b"), key("b", "")];
        keys.sort();
        assert!(
            keys.windows(2)
                .all(|pair| bytes(&pair[0]) < bytes(&pair[1]))
        );
        for key in &keys {
            assert_eq!(
                CommandKeySerde.deserialize(Some(&bytes(key))).unwrap(),
                *key
            );
        }
        assert_eq!(
            CommandKeySerde.parse_text("a@z").unwrap(),
            bytes(&key("a", "z"))
        );
        assert!(CommandKeySerde.deserialize(Some(b"no separator")).is_err());
    }

    #[test]
    fn history_is_shown_with_its_origin() {
        let shown = StoredEventSerde
            .to_json(b"\x02{\"eventId\":\"e\"}")
            .unwrap();
        assert_eq!(
            shown,
            json!({"origin": "foreign", "event": {"eventId": "e"}})
        );
    }
}
