//! A task's input buffers: one queue per partition, lowest timestamp first across them.
//!
//! Kafka Streams' `PartitionGroup`. Ties go to the partition listed first, so that one order of
//! arrival gives one order of processing.

use std::collections::VecDeque;

use crate::log::{LogMessage, Offset, TopicPartition};

/// One input partition of a task.
#[derive(Debug)]
pub(crate) struct InputPartition<M> {
    pub(crate) partition: TopicPartition,
    /// Index into the sub-topology's sources.
    pub(crate) source: usize,
    pub(crate) buffer: VecDeque<M>,
    /// Of the keys and values in the buffer.
    pub(crate) buffered_bytes: usize,
    /// The next offset to process: what a commit would write.
    pub(crate) position: Offset,
    /// What the group has committed.
    pub(crate) committed: Offset,
    /// The highest timestamp processed: Kafka Streams' partition time, kept in offset metadata.
    pub(crate) time: Option<i64>,
    pub(crate) committed_time: Option<i64>,
}

impl<M: LogMessage> InputPartition<M> {
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
    pub(crate) fn pop_lowest(&mut self) -> Option<(usize, M)> {
        let mut lowest: Option<(usize, i64)> = None;
        for (index, input) in self.partitions.iter().enumerate() {
            if let Some(head) = input.buffer.front() {
                let timestamp = head.timestamp();
                if lowest.is_none_or(|(_, best)| timestamp < best) {
                    lowest = Some((index, timestamp));
                }
            }
        }
        let (index, _) = lowest?;
        let input = self.partitions.get_mut(index)?;
        let message = input.buffer.pop_front()?;
        input.buffered_bytes -= message_bytes(&message);
        Some((index, message))
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
