//! Outputs of the record in progress: serialised, but not yet in the transaction.

use std::ops::Range;

use crate::clock::Timestamp;
use crate::log::{Headers, ProducerRecord, TopicName};

/// Where a field's bytes are in the arena; `None` is null.
type Field = Option<Range<usize>>;

/// One staged output. Key and value are ranges of the stage's arena.
#[derive(Debug)]
pub struct StagedOutput {
    topic: TopicName,
    partition: Option<i32>,
    key: Field,
    value: Field,
    timestamp: Timestamp,
    headers: Headers,
}

/// The outputs of one record, in the order they were forwarded. The arena is reused.
#[derive(Debug, Default)]
pub struct OutputStage {
    arena: Vec<u8>,
    outputs: Vec<StagedOutput>,
}

impl OutputStage {
    /// Stages an output; `key` and `value` append their bytes to the arena and return whether the
    /// field is present (`false`: null). `partition` sees the serialised key.
    ///
    /// # Errors
    /// What the closures return; nothing is staged then.
    pub fn stage<E>(
        &mut self,
        topic: &TopicName,
        timestamp: Timestamp,
        headers: Headers,
        key: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
        partition: impl FnOnce(Option<&[u8]>) -> Option<i32>,
    ) -> Result<(), E> {
        let start = self.arena.len();
        match self.fill(start, key, value) {
            Ok((key, value)) => {
                let partition = partition(key.clone().and_then(|range| self.arena.get(range)));
                let topic = TopicName::clone(topic);
                self.outputs.push(StagedOutput {
                    topic,
                    partition,
                    key,
                    value,
                    timestamp,
                    headers,
                });
                Ok(())
            }
            Err(error) => {
                self.arena.truncate(start);
                Err(error)
            }
        }
    }

    fn fill<E>(
        &mut self,
        start: usize,
        key: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<(Field, Field), E> {
        let key_present = key(&mut self.arena)?;
        let middle = self.arena.len();
        let value_present = value(&mut self.arena)?;
        let end = self.arena.len();
        Ok((
            key_present.then_some(start..middle),
            value_present.then_some(middle..end),
        ))
    }

    /// Iterates over the staged outputs in order.
    pub fn iter(&self) -> impl Iterator<Item = ProducerRecord<'_>> {
        self.outputs.iter().map(|output| ProducerRecord {
            topic: &output.topic,
            partition: output.partition,
            key: output.key.clone().and_then(|range| self.arena.get(range)),
            value: output.value.clone().and_then(|range| self.arena.get(range)),
            timestamp: output.timestamp,
            headers: &output.headers,
        })
    }

    /// Returns the number of staged outputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Returns whether nothing is staged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Returns the staged bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Forgets everything staged; keeps the arena.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.outputs.clear();
    }
}
