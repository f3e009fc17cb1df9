//! Timestamp extractors: which event time a record of a source has.
//!
//! # Position
//! [`Consumed::with_timestamp_extractor`](super::Consumed::with_timestamp_extractor) gives one to a
//! source. The task asks it when a record is the first of its partition, before it chooses between its
//! partitions: the extracted time is what the lowest timestamp, partition time, stream time and the
//! operators go by.
//! # Invariants
//! - A record is deserialised once: what was read for the extractor waits in [`Heads`] for its turn.
//! - A negative time drops the record: counted and logged, as in Kafka Streams (`RecordQueue`). An error
//!   meets the source's policy for [`Stage::Deserialization`](crate::processor::Stage); Kafka Streams
//!   has only failing.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::log::{Headers, Offset};
use crate::processor::{BoxError, HeadRecord, InvalidTimestamp, ProcessError, RecordMetadata};

/// A record whose timestamp is to be extracted.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConsumedRecord<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// The value; `None` is a tombstone of a table.
    pub value: Option<&'a V>,
    /// The log's timestamp: negative where the producer set none.
    pub timestamp: Timestamp,
    /// The headers.
    pub headers: &'a Headers,
    /// The physical topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: Offset,
    /// The wall-clock time.
    pub system_time: Timestamp,
}

/// Says which event time a record has: Kafka Streams' `TimestampExtractor`.
///
/// A closure that returns a [`Timestamp`] is one; one that may fail implements the trait.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no timestamp extractor of records `({K}, {V})`",
    note = "pass `|record: &ConsumedRecord<'_, {K}, {V}>, partition_time: Option<Timestamp>| -> Timestamp`, or implement `TimestampExtractor<{K}, {V}>` for `{Self}`"
)]
pub trait TimestampExtractor<K, V>: Send + Sync + 'static {
    /// Returns the record's event time in milliseconds since the Unix epoch; a negative one drops the
    /// record. `partition_time` is the latest time of this partition so far, also before a restart;
    /// `None` before the first record (Kafka Streams: -1).
    ///
    /// # Errors
    /// Any error meets the source's policy, as bytes that cannot be read do.
    fn extract(
        &self,
        record: &ConsumedRecord<'_, K, V>,
        partition_time: Option<Timestamp>,
    ) -> Result<Timestamp, BoxError>;
}

impl<K, V, F> TimestampExtractor<K, V> for F
where
    F: Fn(&ConsumedRecord<'_, K, V>, Option<Timestamp>) -> Timestamp + Send + Sync + 'static,
{
    fn extract(
        &self,
        record: &ConsumedRecord<'_, K, V>,
        partition_time: Option<Timestamp>,
    ) -> Result<Timestamp, BoxError> {
        Ok(self(record, partition_time))
    }
}

/// Takes the log's timestamp; a negative one is an error. The default.
///
/// ```
/// # use millstream::prelude::*;
/// # let builder = StreamsBuilder::new();
/// let consumed = Consumed::with(serdes::string(), serdes::string())
///     .with_timestamp_extractor(FailOnInvalidTimestamp);
/// # builder.stream("in", consumed).to("out", Produced::with(serdes::string(), serdes::string()));
/// # builder.build()?;
/// # Ok::<(), TopologyErrors>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct FailOnInvalidTimestamp;

impl<K, V> TimestampExtractor<K, V> for FailOnInvalidTimestamp {
    fn extract(
        &self,
        record: &ConsumedRecord<'_, K, V>,
        _partition_time: Option<Timestamp>,
    ) -> Result<Timestamp, BoxError> {
        valid(record.timestamp)
    }
}

/// Takes the log's timestamp; a record with a negative one is dropped, counted and logged.
///
/// ```
/// # use millstream::prelude::*;
/// # let builder = StreamsBuilder::new();
/// let consumed = Consumed::with(serdes::string(), serdes::string())
///     .with_timestamp_extractor(LogAndSkipOnInvalidTimestamp);
/// # builder.stream("in", consumed).to("out", Produced::with(serdes::string(), serdes::string()));
/// # builder.build()?;
/// # Ok::<(), TopologyErrors>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct LogAndSkipOnInvalidTimestamp;

impl<K, V> TimestampExtractor<K, V> for LogAndSkipOnInvalidTimestamp {
    fn extract(
        &self,
        record: &ConsumedRecord<'_, K, V>,
        _partition_time: Option<Timestamp>,
    ) -> Result<Timestamp, BoxError> {
        Ok(record.timestamp)
    }
}

/// Takes the log's timestamp, and the partition time in place of a negative one; an error before the
/// partition has any.
///
/// ```
/// # use millstream::prelude::*;
/// # let builder = StreamsBuilder::new();
/// let consumed = Consumed::with(serdes::string(), serdes::string())
///     .with_timestamp_extractor(UsePartitionTimeOnInvalidTimestamp);
/// # builder.stream("in", consumed).to("out", Produced::with(serdes::string(), serdes::string()));
/// # builder.build()?;
/// # Ok::<(), TopologyErrors>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct UsePartitionTimeOnInvalidTimestamp;

impl<K, V> TimestampExtractor<K, V> for UsePartitionTimeOnInvalidTimestamp {
    fn extract(
        &self,
        record: &ConsumedRecord<'_, K, V>,
        partition_time: Option<Timestamp>,
    ) -> Result<Timestamp, BoxError> {
        valid(record.timestamp).or_else(|error| partition_time.ok_or(error))
    }
}

/// Takes the wall-clock time at which the record is read: processing time.
///
/// The result of a replay depends on when it runs, and a record that is read again after an abort has
/// another time then.
///
/// ```
/// # use millstream::prelude::*;
/// # let builder = StreamsBuilder::new();
/// let consumed = Consumed::with(serdes::string(), serdes::string())
///     .with_timestamp_extractor(WallclockTimestampExtractor);
/// # builder.stream("in", consumed).to("out", Produced::with(serdes::string(), serdes::string()));
/// # builder.build()?;
/// # Ok::<(), TopologyErrors>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct WallclockTimestampExtractor;

impl<K, V> TimestampExtractor<K, V> for WallclockTimestampExtractor {
    fn extract(
        &self,
        record: &ConsumedRecord<'_, K, V>,
        _partition_time: Option<Timestamp>,
    ) -> Result<Timestamp, BoxError> {
        Ok(record.system_time)
    }
}

fn valid(timestamp: Timestamp) -> Result<Timestamp, BoxError> {
    if timestamp < 0 {
        return Err(InvalidTimestamp(timestamp).into());
    }
    Ok(timestamp)
}

/// An extractor as the sources share it.
pub(crate) type SharedExtractor<K, V> = Arc<dyn TimestampExtractor<K, V>>;

/// Returns whether two sources of one topic ask for the same times.
pub(crate) fn same_extractor<K, V>(
    one: Option<&SharedExtractor<K, V>>,
    other: Option<&SharedExtractor<K, V>>,
) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// The extractor of one source in a task, and what it has read ahead: the first record of each
/// partition. `R` is the record as its source reads it.
pub(crate) struct Heads<K, V, R> {
    extractor: SharedExtractor<K, V>,
    read: Vec<(RecordMetadata, R)>,
}

impl<K: 'static, V: 'static, R> Heads<K, V, R> {
    pub(crate) fn new(extractor: &SharedExtractor<K, V>) -> Self {
        Self {
            extractor: Arc::clone(extractor),
            read: Vec::new(),
        }
    }

    /// Asks for the time of a record that was read, and keeps it for its turn.
    pub(crate) fn extract(
        &mut self,
        node: &str,
        head: &HeadRecord<'_>,
        record: R,
        parts: impl Fn(&R) -> (&K, Option<&V>),
    ) -> Result<Timestamp, ProcessError> {
        let HeadRecord {
            raw,
            metadata,
            partition_time,
            system_time,
        } = head;
        let (key, value) = parts(&record);
        let consumed = ConsumedRecord {
            key,
            value,
            timestamp: raw.timestamp,
            headers: raw.headers,
            topic: &metadata.topic,
            partition: metadata.partition,
            offset: metadata.offset,
            system_time: *system_time,
        };
        let time = self.extractor.extract(&consumed, *partition_time);
        let time = time.map_err(|source| ProcessError::Deserialization {
            node: node.to_owned(),
            source,
        })?;
        // One that was read ahead and never had its turn is of no more use.
        self.read.retain(|(at, _)| !same_partition(at, metadata));
        if time >= 0 {
            self.read.push(((*metadata).clone(), record));
        }
        Ok(time)
    }

    /// Takes the record that was read ahead.
    pub(crate) fn take(&mut self, at: &RecordMetadata) -> Option<R> {
        let index = self.read.iter().position(|(read, _)| read == at)?;
        Some(self.read.swap_remove(index).1)
    }
}

fn same_partition(one: &RecordMetadata, other: &RecordMetadata) -> bool {
    one.partition == other.partition && one.topic == other.topic
}
