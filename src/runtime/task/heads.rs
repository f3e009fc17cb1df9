//! The first record of each partition: which time it has, before one of them is taken.

use super::{Task, sub_topology};
use crate::clock::Timestamp;
use crate::log::{LogMessage, TopicName};
use crate::processor::{HeadRecord, InvalidTimestamp, ProcessError, RawRecord, RecordMetadata};

impl<M: LogMessage> Task<M> {
    /// Asks the extractors for the times of records that have become the first of their partitions.
    /// Those with a negative time are dropped, and the ones behind them asked for.
    pub(super) fn look_at_heads(&mut self, now: Timestamp) {
        let mut dropped_last = false;
        for input in &mut self.group.partitions {
            let Some(source) = self.chain.sources.get_mut(input.source) else {
                continue;
            };
            while input.extracts
                && input.head.is_none()
                && let Some(message) = input.buffer.front()
            {
                let headers = message.headers();
                let metadata = RecordMetadata {
                    topic: TopicName::clone(&input.partition.topic),
                    partition: input.partition.partition,
                    offset: message.offset(),
                };
                let time = source.extract(&HeadRecord {
                    raw: RawRecord {
                        key: message.key(),
                        value: message.value(),
                        timestamp: message.timestamp(),
                        headers: &headers,
                    },
                    metadata: &metadata,
                    partition_time: input.time,
                    system_time: now,
                });
                if let Ok(time @ ..0) = time {
                    tracing::warn!(task = %self.id, record = %input.partition, offset = metadata.offset, time, "record dropped: its extracted time is negative");
                    input.drop_head();
                    dropped_last |= input.buffer.is_empty();
                    self.cx.drop_head();
                } else {
                    input.head = Some(time);
                }
            }
        }
        if dropped_last {
            self.group.note_dry();
        }
    }

    /// Refuses the log's own timestamp where it is none: what Kafka Streams'
    /// `FailOnInvalidTimestamp`, its default extractor, does. An extracted one is valid here.
    pub(super) fn valid_time(
        &self,
        source: usize,
        time: Timestamp,
    ) -> Result<Timestamp, ProcessError> {
        if time >= 0 {
            return Ok(time);
        }
        let sources = &sub_topology(&self.topology, self.id).drawn.sources;
        let node = sources.get(source).map(|source| source.name.clone());
        Err(ProcessError::Deserialization {
            node: node.unwrap_or_default(),
            source: Box::new(InvalidTimestamp(time)),
        })
    }
}
