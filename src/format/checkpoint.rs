//! The `offsets` column family of a task's RocksDB: how far the committed state reaches.
//!
//! ```text
//! key                                          value (after a version byte, 1)
//! 'c' ‖ store name                             topic id (16) ‖ int64 next offset ‖ optional int64
//! 'i' ‖ int32 partition ‖ topic name           int64 next offset ‖ optional int64 partition time
//! 'g'                                          int64 reset generation
//! 't'                                          int64 stream time
//! ```
//! All integers are big-endian; an optional int64 is `byte 0`, or `byte 1 ‖ int64`. The optional of a
//! changelog is the time up to which compaction cannot have hidden a tombstone from this state.
//! An unknown first key byte or version is an error: the directory is set aside, never guessed at.

use std::collections::BTreeMap;

use super::bytes::{DecodeError, Reader, put_optional_i64};
use crate::clock::Timestamp;
use crate::log::{Offset, TopicPartition};

const VERSION: u8 = 1;
const WHAT: &str = "checkpoint";

/// How far a store has its changelog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangelogPosition {
    /// The topic's id: a topic deleted and created again has another (KIP-516).
    pub topic_id: [u8; 16],
    /// The first offset that is not in the store.
    pub next_offset: Offset,
    /// When the store was last known to miss nothing of the changelog, or when the restore that is
    /// filling it began. The age that is compared with `delete.retention.ms`.
    pub fresh_at: Option<Timestamp>,
}

/// How far a task has read an input partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputPosition {
    /// The first offset that is not in the state.
    pub next_offset: Offset,
    /// The partition's highest record timestamp.
    pub partition_time: Option<Timestamp>,
}

/// What a task's directory says about itself. Also the change that one batch makes to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// By store name.
    pub changelogs: BTreeMap<String, ChangelogPosition>,
    /// By input partition.
    pub inputs: BTreeMap<TopicPartition, InputPosition>,
    /// The reset generation the state belongs to.
    pub generation: Option<u64>,
    /// The task's stream time.
    pub stream_time: Option<Timestamp>,
}

impl Checkpoint {
    /// Returns whether the directory says nothing: it is new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over everything that `change` sets.
    pub fn merge(&mut self, change: Self) {
        self.changelogs.extend(change.changelogs);
        self.inputs.extend(change.inputs);
        self.generation = change.generation.or(self.generation);
        self.stream_time = change.stream_time.or(self.stream_time);
    }

    /// Calls `put` with the key and value of every entry.
    pub fn encode(&self, mut put: impl FnMut(&[u8], &[u8])) {
        let mut key = Vec::new();
        let mut value = Vec::new();
        for (store, position) in &self.changelogs {
            start(&mut key, b'c', &mut value);
            key.extend_from_slice(store.as_bytes());
            value.extend_from_slice(&position.topic_id);
            value.extend_from_slice(&position.next_offset.to_be_bytes());
            put_optional_i64(&mut value, position.fresh_at);
            put(&key, &value);
        }
        for (partition, position) in &self.inputs {
            start(&mut key, b'i', &mut value);
            key.extend_from_slice(&partition.partition.to_be_bytes());
            key.extend_from_slice(partition.topic.as_bytes());
            value.extend_from_slice(&position.next_offset.to_be_bytes());
            put_optional_i64(&mut value, position.partition_time);
            put(&key, &value);
        }
        if let Some(generation) = self.generation {
            start(&mut key, b'g', &mut value);
            value.extend_from_slice(&generation.to_be_bytes());
            put(&key, &value);
        }
        if let Some(stream_time) = self.stream_time {
            start(&mut key, b't', &mut value);
            value.extend_from_slice(&stream_time.to_be_bytes());
            put(&key, &value);
        }
    }

    /// Returns the key under which a store's changelog position is kept.
    #[must_use]
    pub fn changelog_key(store: &str) -> Vec<u8> {
        [b"c", store.as_bytes()].concat()
    }

    /// Adds one entry as it was read from disk.
    ///
    /// # Errors
    /// [`DecodeError`] when the entry is none that [`encode`](Self::encode) writes.
    pub fn decode_entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
        let mut value = Reader::new(WHAT, value);
        let version = value.u8()?;
        if version != VERSION {
            return Err(value.error(format!("version {version} is not known")));
        }
        let mut name = Reader::new(WHAT, key);
        match name.u8()? {
            b'c' => {
                let store = text(&mut name)?;
                let position = ChangelogPosition {
                    topic_id: value.array()?,
                    next_offset: value.i64()?,
                    fresh_at: value.optional_i64()?,
                };
                self.changelogs.insert(store, position);
            }
            b'i' => {
                let partition = name.i32()?;
                let partition = TopicPartition::new(text(&mut name)?, partition);
                let position = InputPosition {
                    next_offset: value.i64()?,
                    partition_time: value.optional_i64()?,
                };
                self.inputs.insert(partition, position);
            }
            b'g' => self.generation = Some(u64::from_be_bytes(value.array()?)),
            b't' => self.stream_time = Some(value.i64()?),
            other => return Err(name.error(format!("key of unknown kind {other}"))),
        }
        value.end()?;
        name.end()
    }
}

fn start(key: &mut Vec<u8>, kind: u8, value: &mut Vec<u8>) {
    key.clear();
    key.push(kind);
    value.clear();
    value.push(VERSION);
}

fn text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let bytes = reader.bytes(reader.remaining())?;
    String::from_utf8(bytes.to_vec()).map_err(|_| reader.error("a name that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Checkpoint {
        Checkpoint {
            changelogs: BTreeMap::from([(
                "accounts".to_owned(),
                ChangelogPosition {
                    topic_id: [7; 16],
                    next_offset: 258,
                    fresh_at: Some(1),
                },
            )]),
            inputs: BTreeMap::from([(
                TopicPartition::new("events", 2),
                InputPosition {
                    next_offset: 5,
                    partition_time: None,
                },
            )]),
            generation: Some(3),
            stream_time: Some(-2),
        }
    }

    fn entries(checkpoint: &Checkpoint) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut entries = Vec::new();
        checkpoint.encode(|key, value| entries.push((key.to_vec(), value.to_vec())));
        entries
    }

    fn read(entries: &[(Vec<u8>, Vec<u8>)]) -> Result<Checkpoint, DecodeError> {
        let mut checkpoint = Checkpoint::default();
        for (key, value) in entries {
            checkpoint.decode_entry(key, value)?;
        }
        Ok(checkpoint)
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let entries = entries(&sample());
        let expected: [(&[u8], &[u8]); 4] = [
            (
                b"caccounts",
                b"\x01\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
                  \0\0\0\0\0\0\x01\x02\x01\0\0\0\0\0\0\0\x01",
            ),
            (b"i\0\0\0\x02events", b"\x01\0\0\0\0\0\0\0\x05\0"),
            (b"g", b"\x01\0\0\0\0\0\0\0\x03"),
            (b"t", b"\x01\xff\xff\xff\xff\xff\xff\xff\xfe"),
        ];
        assert_eq!(entries.len(), expected.len());
        for ((key, value), expected) in entries.iter().zip(expected) {
            assert_eq!((&key[..], &value[..]), expected);
        }
        assert_eq!(read(&entries), Ok(sample()));
    }

    #[test]
    fn a_change_overwrites_only_what_it_names() {
        let mut checkpoint = sample();
        let mut change = Checkpoint {
            stream_time: Some(10),
            ..Checkpoint::default()
        };
        let other = TopicPartition::new("events", 3);
        change.inputs.insert(
            other,
            InputPosition {
                next_offset: 1,
                partition_time: Some(4),
            },
        );
        checkpoint.merge(change);
        assert_eq!(checkpoint.generation, Some(3));
        assert_eq!(checkpoint.stream_time, Some(10));
        assert_eq!(checkpoint.inputs.len(), 2);
        assert!(!checkpoint.is_empty());
        assert!(Checkpoint::default().is_empty());
    }

    #[test]
    fn damaged_and_future_entries_are_errors() {
        let read = |key: &[u8], value: &[u8]| Checkpoint::default().decode_entry(key, value);
        assert!(read(b"g", b"\x02\0\0\0\0\0\0\0\x03").is_err());
        assert!(read(b"g", b"\x01\0").is_err());
        assert!(read(b"g", b"\x01\0\0\0\0\0\0\0\x03\x04").is_err());
        assert!(read(b"gg", b"\x01\0\0\0\0\0\0\0\x03").is_err());
        assert!(read(b"z", b"\x01").is_err());
        assert!(read(b"", b"\x01").is_err());
        assert!(read(b"t", b"").is_err());
        assert!(read(b"c\xff", b"\x01").is_err());
        assert!(read(b"i\0", b"\x01").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            key in proptest::collection::vec(any::<u8>(), 0..24),
            value in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut checkpoint = Checkpoint::default();
            let decoded = checkpoint.decode_entry(&key, &value);
            prop_assert_eq!(decoded.is_err(), checkpoint.is_empty());
        }
    }
}
