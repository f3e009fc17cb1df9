//! A task's input buffers: one queue per partition, lowest timestamp first across them.
//!
//! Kafka Streams' `PartitionGroup`. Ties go to the partition listed first, so that one order of
//! arrival gives one order of processing.
//! # Invariants
//! - The time of a record is asked for once it is the first of its partition, when the partition time
//!   that its extractor sees is final; the task does so before it takes a record
//!   ([`Task::look_at_heads`](super::task::Task)).

use std::collections::VecDeque;

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
}

impl<M: LogMessage> PartitionGroup<M> {
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
        let (message, time) = self.partitions.get_mut(input)?.take()?;
        Some(Taken {
            input,
            message,
            time,
        })
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
