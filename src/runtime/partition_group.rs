//! A task's input buffers: one queue per partition, lowest timestamp first across them.
//!
//! Kafka Streams' `PartitionGroup`. Ties go to the partition listed first, so that one order of
//! arrival gives one order of processing.
//! # Invariants
//! - The time of a record is asked for once it is the first of its partition, when the partition time
//!   that its extractor sees is final; the task does so before it takes a record
//!   ([`Task::look_at_heads`](super::task::Task)).
//! - A partition without records holds up the others while there is, or may be, an older record on its
//!   way ([`PartitionGroup::processable`], KIP-695): otherwise a join would depend on which fetch came
//!   first.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::log::{LogMessage, Offset, TopicPartition};
use crate::processor::ProcessError;

/// One input partition of a task.
#[derive(Debug)]
pub(crate) struct InputPartition<M> {
    pub(crate) partition: TopicPartition,
    /// Index into the sub-topology's sources.
    pub(crate) source: usize,
    pub(crate) buffer: VecDeque<M>,
    /// Of the keys and values in the buffer.
    pub(crate) buffered_bytes: usize,
    /// Whether times are extracted from records; otherwise they are the log's.
    pub(crate) extracts: bool,
    /// Since when the partition has held up the task.
    pub(crate) idle: Idle,
    /// What the extractor says of the first record in the buffer, once it was asked.
    pub(crate) head: Option<Result<Timestamp, ProcessError>>,
    /// The next offset to process: what a commit would write.
    pub(crate) position: Offset,
    /// What the group has committed.
    pub(crate) committed: Offset,
    /// The highest timestamp processed: Kafka Streams' partition time, kept in offset metadata.
    pub(crate) time: Option<i64>,
    pub(crate) committed_time: Option<i64>,
}

/// How long a task waits for a partition whose records are on the broker, and do not arrive: the log
/// may know of an end that no reader reaches, such as a gap that compaction has left there. Kafka Streams
/// would wait for ever.
const KNOWN_DATA_MAX_MS: i64 = 10_000;

/// A partition without records, as long as it holds up its task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Idle {
    /// When the task no longer waits for records that nobody has seen yet.
    until: Option<Timestamp>,
    /// When it no longer waits for those that are on the broker.
    known_until: Option<Timestamp>,
}

/// Whether a task may take its next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Processable {
    /// It may.
    Yes,
    /// It waits for a partition, at the latest until then.
    Waits(Timestamp),
    /// There is no record.
    Empty,
}

/// A record that was taken to be processed.
#[derive(Debug)]
pub(crate) struct Taken<M> {
    /// The index of its partition.
    pub(crate) input: usize,
    pub(crate) message: M,
    /// Its event time, or why it has none.
    pub(crate) time: Result<Timestamp, ProcessError>,
}

impl<M: LogMessage> InputPartition<M> {
    /// Returns the time by which the first record's turn comes. One that cannot be read is due at
    /// once, as Kafka Streams' deserialization handler is called at once.
    fn head_time(&self) -> Option<Timestamp> {
        let first = self.buffer.front()?;
        Some(match &self.head {
            None => first.timestamp(),
            Some(Ok(time)) => *time,
            Some(Err(_)) => Timestamp::MIN,
        })
    }

    fn take(&mut self) -> Option<(M, Result<Timestamp, ProcessError>)> {
        let message = self.buffer.pop_front()?;
        self.buffered_bytes -= message_bytes(&message);
        let time = self.head.take();
        let time = time.unwrap_or_else(|| Ok(message.timestamp()));
        Some((message, time))
    }

    /// Passes over the first record, whose time is negative.
    pub(crate) fn drop_head(&mut self) {
        if let Some((message, _)) = self.take() {
            self.position = message.offset() + 1;
        }
    }

    /// The last `count` records of the buffer are new.
    pub(crate) fn buffered(&mut self, count: usize) {
        let new = self.buffer.iter().rev().take(count);
        self.buffered_bytes += new.map(message_bytes).sum::<usize>();
    }

    /// Gives back the record that was taken last.
    pub(crate) fn put_back(&mut self, message: M) {
        self.buffered_bytes += message_bytes(&message);
        self.buffer.push_front(message);
    }
}

fn message_bytes(message: &impl LogMessage) -> usize {
    message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len)
}

/// The input of one task.
#[derive(Debug)]
pub struct PartitionGroup<M> {
    pub(crate) partitions: Vec<InputPartition<M>>,
    /// The last record that was taken was its partition's only one.
    ran_dry: bool,
}

impl<M: LogMessage> PartitionGroup<M> {
    pub(crate) const fn new(partitions: Vec<InputPartition<M>>) -> Self {
        Self {
            partitions,
            ran_dry: false,
        }
    }

    /// Returns whether a partition has no more records since [`processable`](Self::processable) was
    /// asked: it has to be asked again before the next record is taken.
    pub(crate) const fn ran_dry(&self) -> bool {
        self.ran_dry
    }

    /// Notes that the last record of a partition was dropped before its turn.
    pub(crate) const fn note_dry(&mut self) {
        self.ran_dry = true;
    }

    /// Takes the record to process next.
    pub(crate) fn pop_lowest(&mut self) -> Option<Taken<M>> {
        let mut lowest: Option<(usize, Timestamp)> = None;
        for (index, partition) in self.partitions.iter().enumerate() {
            if let Some(time) = partition.head_time()
                && lowest.is_none_or(|(_, best)| time < best)
            {
                lowest = Some((index, time));
            }
        }
        let (input, _) = lowest?;
        let partition = self.partitions.get_mut(input)?;
        let (message, time) = partition.take()?;
        self.ran_dry |= partition.buffer.is_empty();
        Some(Taken {
            input,
            message,
            time,
        })
    }

    /// Decides whether the record with the lowest timestamp may be taken, by Kafka Streams' rules for
    /// `max.task.idle.ms` (KIP-695): not while a partition is empty that is known to have records on
    /// the broker; nor for `idle_max` after one has none, since its producer may be about to write
    /// one. Without `idle_max` what is here is taken at once. `at_end` says whether a partition has
    /// been read to the log's end.
    pub(crate) fn processable(
        &mut self,
        now: Timestamp,
        idle_max: Option<Duration>,
        mut at_end: impl FnMut(&TopicPartition, Offset) -> bool,
    ) -> Processable {
        self.ran_dry = false;
        if self.partitions.iter().all(|input| input.buffer.is_empty()) {
            return Processable::Empty;
        }
        let Some(idle_max) = idle_max else {
            return Processable::Yes;
        };
        let idle_max = i64::try_from(idle_max.as_millis()).unwrap_or(i64::MAX);
        let mut waits: Option<Timestamp> = None;
        for input in &mut self.partitions {
            if !input.buffer.is_empty() {
                input.idle = Idle::default();
                continue;
            }
            let until = if at_end(&input.partition, input.position) {
                input.idle.known_until = None;
                let until = now.saturating_add(idle_max);
                *input.idle.until.get_or_insert(until)
            } else {
                input.idle.until = None;
                let until = now.saturating_add(KNOWN_DATA_MAX_MS);
                *input.idle.known_until.get_or_insert(until)
            };
            if now < until {
                waits = Some(waits.map_or(until, |other| other.max(until)));
            }
        }
        waits.map_or(Processable::Yes, Processable::Waits)
    }

    /// Returns the number of buffered records.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.partitions.iter().map(|input| input.buffer.len()).sum()
    }

    /// Returns the bytes of their keys and values.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.partitions.iter().map(|it| it.buffered_bytes).sum()
    }

    /// Returns whether a commit would move any offset.
    #[must_use]
    pub fn has_positions(&self) -> bool {
        self.partitions
            .iter()
            .any(|input| input.position != input.committed)
    }

    /// Forgets what is buffered and goes back to what is committed.
    pub(crate) fn rewind(&mut self) {
        for input in &mut self.partitions {
            input.buffer.clear();
            input.head = None;
            input.idle = Idle::default();
            input.buffered_bytes = 0;
            input.position = input.committed;
            input.time = input.committed_time;
        }
    }

    /// The positions are committed now.
    pub(crate) fn mark_committed(&mut self) {
        for input in &mut self.partitions {
            input.committed = input.position;
            input.committed_time = input.time;
        }
    }
}
