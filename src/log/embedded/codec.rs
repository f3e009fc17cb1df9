//! The bytes of a [`Mutation`] in the journal.
//!
//! ```text
//! byte tag ‖ fields in the order of the variant
//! text, bytes     int32 length ‖ bytes (text is UTF-8)
//! optional bytes  int32 length, -1 when absent ‖ bytes
//! optional int64  byte 0, or byte 1 ‖ int64
//! list, map       int32 count ‖ elements
//! record          int64 offset ‖ int64 timestamp ‖ optional bytes key ‖ optional bytes value
//!                 ‖ list of (text, optional bytes) headers ‖ optional int64 transaction ‖ byte kind
//! ```
//! All integers are big-endian. Tags are never used twice for different fields.

use std::collections::BTreeMap;

use super::mutation::{Mutation, Offsets};
use super::record::{Kind, Record, TransactionNumber};
use crate::format::DecodeError;
use crate::format::bytes::{Reader, put_optional_i64};
use crate::log::{CommittedOffset, Headers, LogRange, Offset, TopicName, TopicPartition};

const WHAT: &str = "journal entry";

const TOPIC_CREATED: u8 = 1;
const TOPIC_DELETED: u8 = 2;
const APPENDED: u8 = 3;
const EPOCH_BUMPED: u8 = 4;
const TRANSACTION_BEGUN: u8 = 5;
const OFFSETS_PENDING: u8 = 6;
const TRANSACTION_ENDED: u8 = 7;
const OFFSETS_SET: u8 = 8;
const START_ADVANCED: u8 = 9;
const COMPACTED: u8 = 10;
const PARTITION_RESTORED: u8 = 11;
const ENTRY_RESTORED: u8 = 12;
const NUMBERED: u8 = 13;

/// Appends the bytes of `mutation` to `out`.
pub(super) fn encode(mutation: &Mutation, out: &mut Vec<u8>) {
    let mut put = Writer(out);
    match mutation {
        Mutation::TopicCreated {
            name,
            id,
            partitions,
            config,
        } => {
            put.tag(TOPIC_CREATED).text(name);
            put.0.extend_from_slice(id);
            put.i32(*partitions)
                .list(config.iter(), |put, (key, value)| {
                    put.text(key).text(value);
                });
        }
        Mutation::TopicDeleted { name } => {
            put.tag(TOPIC_DELETED).text(name);
        }
        Mutation::Appended {
            topic,
            partition,
            record,
        } => {
            put.tag(APPENDED).text(topic).i32(*partition).record(record);
        }
        Mutation::EpochBumped {
            transactional_id,
            epoch,
            timeout_ms,
        } => {
            put.tag(EPOCH_BUMPED)
                .text(transactional_id)
                .i32(*epoch)
                .i64(*timeout_ms);
        }
        Mutation::TransactionBegun {
            transactional_id,
            number,
            started,
        } => {
            put.tag(TRANSACTION_BEGUN)
                .text(transactional_id)
                .number(*number)
                .i64(*started);
        }
        Mutation::OffsetsPending {
            number,
            group,
            offsets,
        } => {
            put.tag(OFFSETS_PENDING)
                .number(*number)
                .text(group)
                .offsets(offsets);
        }
        Mutation::TransactionEnded { number, commit, at } => {
            put.tag(TRANSACTION_ENDED)
                .number(*number)
                .tag(u8::from(*commit))
                .i64(*at);
        }
        Mutation::OffsetsSet { group, offsets } => {
            put.tag(OFFSETS_SET).text(group).offsets(offsets);
        }
        Mutation::StartAdvanced { partition, start } => {
            put.tag(START_ADVANCED).partition(partition).i64(*start);
        }
        Mutation::Compacted {
            partition,
            removed,
            horizons,
            horizon,
            to,
        } => {
            put.tag(COMPACTED).partition(partition);
            put.list(removed.iter(), |put, offset| {
                put.i64(*offset);
            });
            put.list(horizons.iter(), |put, offset| {
                put.i64(*offset);
            });
            put.i64(*horizon).i64(*to);
        }
        Mutation::PartitionRestored {
            partition,
            range,
            clean_to,
            aborted,
            open,
        } => {
            put.tag(PARTITION_RESTORED).partition(partition);
            put.i64(range.start).i64(range.end).i64(*clean_to);
            put.list(aborted.iter(), |put, number| {
                put.number(*number);
            });
            put.list(open.iter(), |put, (number, first)| {
                put.number(*number).i64(*first);
            });
        }
        Mutation::EntryRestored {
            topic,
            partition,
            record,
            delete_horizon,
        } => {
            put.tag(ENTRY_RESTORED)
                .text(topic)
                .i32(*partition)
                .record(record);
            put_optional_i64(put.0, *delete_horizon);
        }
        Mutation::Numbered { next } => {
            put.tag(NUMBERED).number(*next);
        }
    }
}

/// Reads a mutation back.
///
/// # Errors
/// [`DecodeError`] when the bytes are not one.
pub(super) fn decode(bytes: &[u8]) -> Result<Mutation, DecodeError> {
    let mut take = Reader::new(WHAT, bytes);
    let tag = take.u8()?;
    let mutation = match tag {
        TOPIC_CREATED => Mutation::TopicCreated {
            name: text(&mut take)?.into(),
            id: take.array()?,
            partitions: take.i32()?,
            config: list(&mut take, |take| Ok((text(take)?, text(take)?)))?,
        },
        TOPIC_DELETED => Mutation::TopicDeleted {
            name: text(&mut take)?.into(),
        },
        APPENDED => Mutation::Appended {
            topic: text(&mut take)?.into(),
            partition: take.i32()?,
            record: record(&mut take)?,
        },
        EPOCH_BUMPED => Mutation::EpochBumped {
            transactional_id: text(&mut take)?,
            epoch: take.i32()?,
            timeout_ms: take.i64()?,
        },
        TRANSACTION_BEGUN => Mutation::TransactionBegun {
            transactional_id: text(&mut take)?,
            number: number(&mut take)?,
            started: take.i64()?,
        },
        OFFSETS_PENDING => Mutation::OffsetsPending {
            number: number(&mut take)?,
            group: text(&mut take)?,
            offsets: offsets(&mut take)?,
        },
        TRANSACTION_ENDED => Mutation::TransactionEnded {
            number: number(&mut take)?,
            commit: take.u8()? == 1,
            at: take.i64()?,
        },
        OFFSETS_SET => Mutation::OffsetsSet {
            group: text(&mut take)?,
            offsets: offsets(&mut take)?,
        },
        START_ADVANCED => Mutation::StartAdvanced {
            partition: partition(&mut take)?,
            start: take.i64()?,
        },
        COMPACTED => Mutation::Compacted {
            partition: partition(&mut take)?,
            removed: list(&mut take, |take| take.i64())?,
            horizons: list(&mut take, |take| take.i64())?,
            horizon: take.i64()?,
            to: take.i64()?,
        },
        PARTITION_RESTORED => Mutation::PartitionRestored {
            partition: partition(&mut take)?,
            range: LogRange {
                start: take.i64()?,
                end: take.i64()?,
            },
            clean_to: take.i64()?,
            aborted: list(&mut take, number)?,
            open: list(&mut take, |take| Ok((number(take)?, take.i64()?)))?,
        },
        ENTRY_RESTORED => Mutation::EntryRestored {
            topic: text(&mut take)?.into(),
            partition: take.i32()?,
            record: record(&mut take)?,
            delete_horizon: take.optional_i64()?,
        },
        NUMBERED => Mutation::Numbered {
            next: number(&mut take)?,
        },
        other => return Err(take.error(format!("tag {other} is unknown"))),
    };
    take.end()?;
    Ok(mutation)
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn tag(&mut self, tag: u8) -> &mut Self {
        self.0.push(tag);
        self
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn number(&mut self, value: TransactionNumber) -> &mut Self {
        self.i64(value.cast_signed())
    }

    fn length(&mut self, length: usize) -> &mut Self {
        let length = i32::try_from(length);
        assert!(
            length.is_ok(),
            "lengths are bounded by max.message.bytes, far below 2 GiB"
        );
        self.i32(length.unwrap_or(i32::MAX))
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn optional(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            None => self.i32(-1),
            Some(bytes) => {
                self.length(bytes.len());
                self.0.extend_from_slice(bytes);
                self
            }
        }
    }

    fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Writer<'_>, T),
    ) -> &mut Self {
        self.length(items.len());
        for item in items {
            each(self, item);
        }
        self
    }

    fn partition(&mut self, partition: &TopicPartition) -> &mut Self {
        self.text(&partition.topic).i32(partition.partition)
    }

    fn offsets(&mut self, offsets: &Offsets) -> &mut Self {
        self.list(offsets.iter(), |put, (partition, committed)| {
            put.partition(partition)
                .i64(committed.offset)
                .text(&committed.metadata);
        })
    }

    fn record(&mut self, record: &Record) -> &mut Self {
        self.i64(record.offset).i64(record.timestamp);
        self.optional(record.key.as_deref())
            .optional(record.value.as_deref());
        self.length(record.headers.len());
        for (name, value) in record.headers.iter() {
            self.text(name).optional(value);
        }
        put_optional_i64(
            self.0,
            record.transaction.map(TransactionNumber::cast_signed),
        );
        self.tag(match record.kind {
            Kind::Data => 0,
            Kind::CommitMarker => 1,
            Kind::AbortMarker => 2,
        })
    }
}

fn number(take: &mut Reader<'_>) -> Result<TransactionNumber, DecodeError> {
    take.i64().map(i64::cast_unsigned)
}

fn optional<'a>(take: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    match take.i32()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| take.error("negative length"))?;
            take.bytes(length).map(Some)
        }
    }
}

fn text(take: &mut Reader<'_>) -> Result<String, DecodeError> {
    let bytes = optional(take)?.ok_or_else(|| take.error("text is absent"))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| take.error("text is not UTF-8"))
}

fn list<T, C: FromIterator<T>>(
    take: &mut Reader<'_>,
    each: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<C, DecodeError> {
    let count = take.i32()?;
    (0..count).map(|_| each(take)).collect()
}

fn partition(take: &mut Reader<'_>) -> Result<TopicPartition, DecodeError> {
    let topic: TopicName = text(take)?.into();
    Ok(TopicPartition {
        topic,
        partition: take.i32()?,
    })
}

fn offsets(take: &mut Reader<'_>) -> Result<Offsets, DecodeError> {
    let offsets: BTreeMap<_, _> = list(take, |take| {
        let partition = partition(take)?;
        let offset: Offset = take.i64()?;
        Ok((
            partition,
            CommittedOffset {
                offset,
                metadata: text(take)?,
            },
        ))
    })?;
    Ok(offsets)
}

fn record(take: &mut Reader<'_>) -> Result<Record, DecodeError> {
    let (offset, timestamp) = (take.i64()?, take.i64()?);
    let key = optional(take)?.map(Into::into);
    let value = optional(take)?.map(Into::into);
    let mut headers = Headers::new();
    for _ in 0..take.i32()? {
        let name = text(take)?;
        headers.push(name, optional(take)?.map(<[u8]>::to_vec));
    }
    let transaction = take.optional_i64()?.map(i64::cast_unsigned);
    let kind = match take.u8()? {
        0 => Kind::Data,
        1 => Kind::CommitMarker,
        2 => Kind::AbortMarker,
        other => return Err(take.error(format!("kind {other} is unknown"))),
    };
    Ok(Record {
        offset,
        timestamp,
        key,
        value,
        headers,
        transaction,
        kind,
    })
}
