//! A copy of the changelogs that compaction does not touch.

use std::collections::BTreeMap;

use super::check::length_of;
use crate::log::embedded::{EmbeddedLog, InspectedRecord, RecordStatus};
use crate::log::{Isolation, Log, LogError, Offset, TopicPartition};

/// Value and record timestamp by key.
pub(super) type Fold = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

#[derive(Debug, Default)]
struct Copy {
    end: Offset,
    records: BTreeMap<Offset, InspectedRecord>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Mirror(BTreeMap<TopicPartition, Copy>);

impl Mirror {
    pub(super) fn of(partitions: impl IntoIterator<Item = TopicPartition>) -> Self {
        Self(
            partitions
                .into_iter()
                .map(|partition| (partition, Copy::default()))
                .collect(),
        )
    }

    /// Copies what is new. Called before compaction can pass.
    ///
    /// # Errors
    /// When a changelog is gone.
    pub(super) fn refresh(&mut self, log: &EmbeddedLog) -> Result<(), LogError> {
        let partitions: Vec<TopicPartition> = self.0.keys().cloned().collect();
        let ranges = log.log_ranges(&partitions, Isolation::ReadUncommitted)?;
        for ((partition, copy), range) in self.0.iter_mut().zip(ranges) {
            if copy.end == range.end {
                continue;
            }
            copy.end = range.end;
            for record in log.inspect_records(partition)? {
                copy.records.insert(record.offset, record);
            }
        }
        Ok(())
    }

    pub(super) fn end(&self, partition: &TopicPartition) -> Offset {
        self.0.get(partition).map_or(0, |copy| copy.end)
    }

    /// Folds what was committed below `end`.
    pub(super) fn fold(&self, partition: &TopicPartition, end: Offset) -> Fold {
        let mut fold = Fold::new();
        for record in self.committed(partition, end) {
            let key = record.key.clone().unwrap_or_default();
            match &record.value {
                Some(value) => fold.insert(key, (value.clone(), record.timestamp)),
                None => fold.remove(&key),
            };
        }
        fold
    }

    /// Folds versions that were committed below `end`: by `int32 length ‖ key ‖ int64 timestamp (sign
    /// flipped)`, to `byte 1 ‖ value` or, for a delete, `byte 0`.
    pub(super) fn versions(&self, partition: &TopicPartition, end: Offset) -> Fold {
        let version = |record: &InspectedRecord| {
            let name = record.key.as_deref().unwrap_or_default();
            let mut key = length_of(name).to_vec();
            key.extend(name);
            key.extend((record.timestamp ^ i64::MIN).to_be_bytes());
            let value = match &record.value {
                Some(value) => [&[1], &value[..]].concat(),
                None => vec![0],
            };
            (key, (value, record.timestamp))
        };
        self.committed(partition, end).map(version).collect()
    }

    /// Iterates over all that was committed below `end`, deletes included.
    pub(super) fn committed(
        &self,
        partition: &TopicPartition,
        end: Offset,
    ) -> impl Iterator<Item = &InspectedRecord> {
        let copies = self.0.get(partition).into_iter();
        copies
            .flat_map(move |copy| copy.records.range(..end))
            .map(|(_, record)| record)
            // A changelog that is an input has records of producers without transactions.
            .filter(|record| matches!(record.status, RecordStatus::Committed | RecordStatus::Plain))
    }

    /// Returns the latest records, for people.
    pub(super) fn describe(&self, partition: &TopicPartition) -> String {
        let copies = self.0.get(partition).into_iter();
        let records = copies.flat_map(|copy| copy.records.values());
        let lines = records.map(|it| {
            let key = it.key.as_deref().unwrap_or_default().escape_ascii();
            let change = if it.value.is_some() { "put" } else { "delete" };
            format!("{} {change} {key} {:?}", it.offset, it.status)
        });
        lines.collect::<Vec<_>>().join(", ")
    }
}
