//! The metadata string of a committed offset: Kafka Streams' `TopicPartitionMetadata`.
//!
//! ```text
//! base64( byte 2 ‖ int64 partition time ‖ [ int32 n ‖ n × (int32 length ‖ key ‖ int64 value) ] )
//! base64( byte 1 ‖ int64 partition time )                                    (read only)
//! ```
//! Partition time −1 means that none is known. The bracket is left out when there are no entries.
//! Entries are Kafka Streams' processor metadata. A store's name keeps how far closed windows were
//! emitted, as in Kafka Streams; ours are [`RESET_GENERATION`] and [`observed_time`], which a Java
//! application that takes the group over carries along.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::bytes::{DecodeError, Reader};
use crate::clock::Timestamp;

/// The entry under which `reset` counts itself: local state of an older generation is stale.
pub const RESET_GENERATION: &str = "millstream.reset.generation";

/// The beginning of entries that keep the time observed by a windowed operator.
/// What the entries of operators' observed times begin with.
pub const OBSERVED_TIME_PREFIX: &str = "millstream.time.";

/// Returns the entry of the highest record timestamp that the operator with this store has seen.
/// Kafka Streams forgets it when a task moves.
#[must_use]
pub fn observed_time(store: &str) -> String {
    format!("{OBSERVED_TIME_PREFIX}{store}")
}

/// The beginning of entries that keep from when on a join looks for records without a partner.
const JOIN_PENDING: &str = "millstream.join.";

/// Returns the entry of the earliest record that the join with this store may hold back. Kafka Streams
/// forgets it when a task moves.
#[must_use]
pub fn join_pending(store: &str) -> String {
    format!("{JOIN_PENDING}{store}")
}

/// The beginning of entries that number the records in a buffer.
const BUFFER_SEQUENCE: &str = "millstream.sequence.";

/// Returns the entry of the last number that a record in this buffer got.
#[must_use]
pub fn buffer_sequence(store: &str) -> String {
    format!("{BUFFER_SEQUENCE}{store}")
}

const MAGIC: u8 = 2;
const MAGIC_TIME_ONLY: u8 = 1;
const UNKNOWN_TIME: i64 = -1;

/// What a committed offset carries beside the offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetMetadata {
    /// The highest record timestamp that was processed from the partition.
    pub partition_time: Option<Timestamp>,
    /// Processor metadata: Kafka Streams' own entries and ours.
    pub entries: BTreeMap<String, i64>,
}

impl OffsetMetadata {
    /// Creates metadata of a partition time and a reset generation.
    #[must_use]
    pub fn new(partition_time: Option<Timestamp>, generation: u64) -> Self {
        let mut metadata = Self {
            partition_time,
            entries: BTreeMap::new(),
        };
        metadata.set_generation(generation);
        metadata
    }

    /// Returns how many resets went before; 0 when none was recorded.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.entries
            .get(RESET_GENERATION)
            .map_or(0, |&n| u64::try_from(n).unwrap_or(0))
    }

    /// Sets how many resets went before; 0 leaves no entry.
    pub fn set_generation(&mut self, generation: u64) {
        if generation == 0 {
            self.entries.remove(RESET_GENERATION);
        } else {
            let generation = i64::try_from(generation).unwrap_or(i64::MAX);
            self.entries.insert(RESET_GENERATION.to_owned(), generation);
        }
    }

    /// Returns the metadata string.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = vec![MAGIC];
        bytes.extend_from_slice(&self.partition_time.unwrap_or(UNKNOWN_TIME).to_be_bytes());
        if !self.entries.is_empty() {
            put_len(&mut bytes, self.entries.len());
            for (key, value) in &self.entries {
                put_len(&mut bytes, key.len());
                bytes.extend_from_slice(key.as_bytes());
                bytes.extend_from_slice(&value.to_be_bytes());
            }
        }
        STANDARD.encode(bytes)
    }

    /// Reads a metadata string.
    ///
    /// # Errors
    /// When it is neither empty nor of version 1 or 2. Another tool may have written it: whoever
    /// only wants to go on takes [`decode_or_default`](Self::decode_or_default).
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let error = |problem: String| DecodeError {
            what: "offset metadata",
            problem,
        };
        let bytes = STANDARD
            .decode(text)
            .map_err(|cause| error(cause.to_string()))?;
        let mut reader = Reader::new("offset metadata", &bytes);
        let magic = reader.u8()?;
        if magic != MAGIC && magic != MAGIC_TIME_ONLY {
            return Err(reader.error(format!("version {magic} is not known")));
        }
        let time = reader.i64()?;
        let mut metadata = Self {
            partition_time: (time >= 0).then_some(time),
            entries: BTreeMap::new(),
        };
        if magic == MAGIC && reader.remaining() > 0 {
            let count = reader.i32()?;
            for _ in 0..count {
                let len = reader.i32()?;
                let len = usize::try_from(len)
                    .map_err(|_| reader.error(format!("a key of {len} bytes")))?;
                let key = String::from_utf8(reader.bytes(len)?.to_vec())
                    .map_err(|_| reader.error("a key that is not UTF-8"))?;
                metadata.entries.insert(key, reader.i64()?);
            }
        }
        Ok(metadata)
    }

    /// Reads a metadata string, as Kafka Streams does: text that is none counts as empty.
    #[must_use]
    pub fn decode_or_default(text: &str) -> Self {
        Self::decode(text).unwrap_or_else(|error| {
            tracing::warn!(metadata = text, %error, "unknown offset metadata, taken as empty");
            Self::default()
        })
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // The broker refuses metadata above `offset.metadata.max.bytes`, 4 KiB by default.
    out.extend_from_slice(&i32::try_from(len).unwrap_or(i32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes_without_entries_are_kafka_streams_own() {
        let metadata = OffsetMetadata::new(Some(1_700_000_000_000), 0);
        let mut bytes = vec![2];
        bytes.extend_from_slice(&[0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0]);
        assert_eq!(STANDARD.encode(bytes), "AgAAAYvP5WgA");
        assert_eq!(metadata.encode(), "AgAAAYvP5WgA");
        assert_eq!(OffsetMetadata::decode("AgAAAYvP5WgA"), Ok(metadata));
    }

    #[test]
    fn golden_bytes_of_an_unknown_time() {
        assert_eq!(OffsetMetadata::default().encode(), "Av//////////");
        assert_eq!(
            OffsetMetadata::decode("Av//////////"),
            Ok(OffsetMetadata::default())
        );
    }

    #[test]
    fn golden_bytes_with_a_generation() {
        let text = OffsetMetadata::new(Some(5), 3).encode();
        let mut bytes = b"\x02\0\0\0\0\0\0\0\x05\0\0\0\x01\0\0\0\x1b".to_vec();
        bytes.extend_from_slice(RESET_GENERATION.as_bytes());
        bytes.extend_from_slice(b"\0\0\0\0\0\0\0\x03");
        assert_eq!(text, STANDARD.encode(bytes));
        assert_eq!(
            OffsetMetadata::decode(&text).map(|read| read.generation()),
            Ok(3)
        );
    }

    #[test]
    fn version_1_and_empty_text_are_read() {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&9_i64.to_be_bytes());
        let read = OffsetMetadata::decode(&STANDARD.encode(bytes));
        assert_eq!(read, Ok(OffsetMetadata::new(Some(9), 0)));
        assert_eq!(OffsetMetadata::decode(""), Ok(OffsetMetadata::default()));
    }

    #[test]
    fn foreign_text_is_an_error_or_empty_as_the_caller_likes() {
        let huge = STANDARD.encode(b"\x02\0\0\0\0\0\0\0\x05\0\0\0\x01\x7f\xff\xff\xffx");
        let negative = STANDARD.encode(b"\x02\0\0\0\0\0\0\0\x05\0\0\0\x01\xff\xff\xff\xffx");
        for text in ["{\"x\":1}", "AQ==", "A", "CQAAAYvPwGgA", &huge, &negative] {
            assert!(OffsetMetadata::decode(text).is_err(), "{text}");
            assert_eq!(
                OffsetMetadata::decode_or_default(text),
                OffsetMetadata::default()
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            time in proptest::option::of(0_i64..),
            entries in proptest::collection::btree_map(".{0,12}", any::<i64>(), 0..5),
        ) {
            let metadata = OffsetMetadata { partition_time: time, entries };
            prop_assert_eq!(OffsetMetadata::decode(&metadata.encode()), Ok(metadata));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = STANDARD.encode(&bytes);
            let read = OffsetMetadata::decode(&text);
            prop_assert_eq!(OffsetMetadata::decode_or_default(&text), read.unwrap_or_default());
        }
    }
}
