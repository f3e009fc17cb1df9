//! One partition's records, and what of them a reader may see.
//!
//! # Invariants
//! - `start <= last stable offset <= next`; entries are in rising offset order, with gaps where
//!   compaction removed some, and all of them lie in `start..next`.
//! - A transaction is in `open` from its first record until its marker; the marker takes an offset.
//! - Retention and compaction never touch what lies at or above the last stable offset.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::config::TopicConfig;
use super::record::{Kind, Record, TransactionNumber};
use crate::log::{Isolation, LogRange, Offset};

/// A record and what compaction knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) record: Arc<Record>,
    /// From when on compaction may remove this tombstone or marker; set by the first one to see it.
    pub(super) delete_horizon: Option<i64>,
}

/// What a fetch delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) count: usize,
    /// Where to go on: past control records and aborted ones.
    pub(super) position: Offset,
}

/// The position is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfRange;

/// One partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Partition {
    start: Offset,
    next: Offset,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// First offset of each open transaction.
    open: BTreeMap<TransactionNumber, Offset>,
    /// Aborted transactions whose records may still be here.
    aborted: BTreeSet<TransactionNumber>,
    /// Where the last compaction stopped.
    clean_to: Offset,
}

impl Partition {
    /// Restores the frame of a partition from a snapshot; its entries follow.
    pub(super) fn restored(
        range: LogRange,
        clean_to: Offset,
        aborted: Vec<TransactionNumber>,
        open: Vec<(TransactionNumber, Offset)>,
    ) -> Self {
        Self {
            start: range.start,
            next: range.end,
            aborted: aborted.into_iter().collect(),
            open: open.into_iter().collect(),
            clean_to,
            ..Self::default()
        }
    }

    /// Adds an entry below `next`, in offset order: only when a snapshot is read back.
    pub(super) fn restore_entry(&mut self, entry: Entry) {
        self.bytes += entry.record.size();
        self.entries.push_back(entry);
    }

    /// Returns the first offset of each open transaction.
    pub(super) fn open(&self) -> &BTreeMap<TransactionNumber, Offset> {
        &self.open
    }

    pub(super) fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }

    pub(super) fn aborted(&self) -> &BTreeSet<TransactionNumber> {
        &self.aborted
    }

    pub(super) fn clean_to(&self) -> Offset {
        self.clean_to
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_open(&self, transaction: TransactionNumber) -> bool {
        self.open.contains_key(&transaction)
    }

    /// Returns the offset that the next record takes: the high watermark.
    pub(super) fn high_watermark(&self) -> Offset {
        self.next
    }

    /// Returns the first offset of the earliest open transaction, or the high watermark.
    pub(super) fn last_stable_offset(&self) -> Offset {
        self.open
            .values()
            .min()
            .map_or(self.next, |first| self.start.max(*first))
    }

    /// Returns the range that `isolation` may read.
    pub(super) fn range(&self, isolation: Isolation) -> LogRange {
        let end = match isolation {
            Isolation::ReadCommitted => self.last_stable_offset(),
            Isolation::ReadUncommitted => self.next,
        };
        LogRange {
            start: self.start,
            end,
        }
    }

    /// Appends a record at the end; a data record of a transaction opens it here.
    pub(super) fn append(&mut self, record: Record) {
        assert!(
            record.offset == self.next,
            "records are appended at the end of their partition"
        );
        self.next += 1;
        self.bytes += record.size();
        if let Some(transaction) = record.transaction {
            match record.kind {
                Kind::Data => {
                    self.open.entry(transaction).or_insert(record.offset);
                }
                Kind::CommitMarker => {
                    self.open.remove(&transaction);
                }
                Kind::AbortMarker => {
                    self.open.remove(&transaction);
                    self.aborted.insert(transaction);
                }
            }
        }
        self.entries.push_back(Entry {
            record: Arc::new(record),
            delete_horizon: None,
        });
    }

    /// Hands up to `max` records from `from` on to `sink`, in offset order.
    pub(super) fn fetch(
        &self,
        from: Offset,
        max: usize,
        isolation: Isolation,
        mut sink: impl FnMut(&Arc<Record>),
    ) -> Result<Fetched, OutOfRange> {
        if from < self.start || from > self.next {
            return Err(OutOfRange);
        }
        let end = self.range(isolation).end;
        let mut fetched = Fetched {
            count: 0,
            position: from,
        };
        let first = self.index_of(from);
        for entry in self.entries.range(first..) {
            let record = &entry.record;
            if record.offset >= end {
                break;
            }
            if self.is_visible(record, isolation) {
                if fetched.count == max {
                    return Ok(fetched);
                }
                sink(record);
                fetched.count += 1;
            }
            fetched.position = record.offset + 1;
        }
        fetched.position = from.max(end);
        Ok(fetched)
    }

    /// Returns whether a fetch from `from` would deliver something or move the position.
    pub(super) fn is_readable(&self, from: Offset) -> bool {
        from < self.start || from > self.next || from < self.last_stable_offset()
    }

    fn is_visible(&self, record: &Record, isolation: Isolation) -> bool {
        record.kind == Kind::Data
            && (isolation == Isolation::ReadUncommitted
                || record
                    .transaction
                    .is_none_or(|number| !self.aborted.contains(&number)))
    }

    fn index_of(&self, offset: Offset) -> usize {
        self.entries
            .partition_point(|entry| entry.record.offset < offset)
    }

    /// Returns the log start that retention asks for at `now`, when it is another than now.
    pub(super) fn retention_start(&self, config: &TopicConfig, now: i64) -> Option<Offset> {
        if !config.delete {
            return None;
        }
        let stable = self.last_stable_offset();
        let mut bytes = self.bytes;
        let mut start = self.start;
        for entry in &self.entries {
            let record = &entry.record;
            let expired = config
                .retention_ms
                .is_some_and(|retention| record.timestamp < now.saturating_sub(retention));
            let oversized = config.retention_bytes.is_some_and(|limit| bytes > limit);
            if record.offset >= stable || !(expired || oversized) {
                break;
            }
            bytes -= record.size();
            start = record.offset + 1;
        }
        (start > self.start).then_some(start)
    }

    /// Deletes everything below `start`.
    pub(super) fn advance_start(&mut self, start: Offset) {
        self.start = self.start.max(start.min(self.next));
        while let Some(entry) = self.entries.front() {
            if entry.record.offset >= self.start {
                break;
            }
            self.bytes -= entry.record.size();
            self.entries.pop_front();
        }
        self.clean_to = self.clean_to.max(self.start);
        self.forget_aborted();
    }

    /// Carries out a compaction.
    pub(super) fn compact(
        &mut self,
        removed: &[Offset],
        horizons: &[Offset],
        horizon: i64,
        to: Offset,
    ) {
        let removed: BTreeSet<Offset> = removed.iter().copied().collect();
        let horizons: BTreeSet<Offset> = horizons.iter().copied().collect();
        self.entries
            .retain(|entry| !removed.contains(&entry.record.offset));
        for entry in &mut self.entries {
            if horizons.contains(&entry.record.offset) {
                entry.delete_horizon = Some(horizon);
            }
        }
        self.bytes = self.entries.iter().map(|entry| entry.record.size()).sum();
        self.clean_to = self.clean_to.max(to);
        self.forget_aborted();
    }

    /// Drops aborted transactions of which no record is left.
    fn forget_aborted(&mut self) {
        if self.aborted.is_empty() {
            return;
        }
        let left: BTreeSet<TransactionNumber> = self
            .entries
            .iter()
            .filter_map(|entry| entry.record.transaction)
            .collect();
        self.aborted.retain(|number| left.contains(number));
    }
}
