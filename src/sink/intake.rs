//! What a sink has read of one partition and not yet written. Decides what the next batch is; knows
//! neither log nor target.

use std::sync::Arc;
use std::time::Instant;

use super::backoff::Backoff;
use super::{SinkBatch, SinkBounds, SinkRecord};
use crate::log::{Offset, TopicPartition};

/// A partition's records between log and target.
#[derive(Debug)]
pub(super) struct Intake {
    declared: Arc<str>,
    /// The offset that the target has stored, as far as is known.
    stored: Option<Offset>,
    /// Whether `stored` was asked for, or written, since something last went wrong.
    confirmed: bool,
    /// In the order of their offsets: every visible record from `stored` on that was read.
    records: Vec<SinkRecord>,
    bytes: usize,
    /// When the first of `records` came.
    since: Option<Instant>,
    /// A record up to here was refused, nobody knows which: they are written one by one.
    careful_until: Option<Offset>,
    /// This record is refused: what comes before it is written first.
    refused: Option<Offset>,
    /// Before the first record is tried again.
    blocked: Backoff,
}

/// What a refusal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Smaller batches will tell.
    TryOthers,
    /// The first record, at this offset, is to blame.
    Blame(Offset),
}

impl Intake {
    pub(super) fn new(declared: Arc<str>) -> Self {
        Self {
            declared,
            stored: None,
            confirmed: false,
            records: Vec::new(),
            bytes: 0,
            since: None,
            careful_until: None,
            refused: None,
            blocked: Backoff::default(),
        }
    }

    /// The offset that the target has stored, when that is certain.
    pub(super) fn position(&self) -> Option<Offset> {
        self.stored.filter(|_| self.confirmed)
    }

    /// Something went wrong: the target has to be asked before anything else is written.
    pub(super) fn doubt(&mut self) {
        self.confirmed = false;
    }

    /// Takes what the target has stored; returns whether reading has to start over from there, since
    /// what was read does not follow it.
    pub(super) fn confirm(&mut self, stored: Offset) -> bool {
        let moved = self.stored != Some(stored);
        self.confirmed = true;
        if moved {
            self.stored = Some(stored);
            self.records.clear();
            self.bytes = 0;
            self.since = None;
            self.careful_until = None;
            self.refused = None;
            self.blocked.succeed();
        }
        moved
    }

    /// Returns whether what was read from `stored` on reaches to `start`: then the log need not have
    /// it any more.
    pub(super) fn reaches(&self, stored: Offset, start: Offset) -> bool {
        let last = self.records.last().map(|record| record.offset + 1);
        self.stored == Some(stored) && last.is_some_and(|end| end >= start)
    }

    /// Returns how many records there is room for.
    pub(super) fn room(&self, bounds: &SinkBounds) -> usize {
        if !self.confirmed || self.bytes >= bounds.bytes {
            return 0;
        }
        bounds.records.saturating_sub(self.records.len())
    }

    pub(super) fn push(&mut self, record: SinkRecord, now: Instant) {
        self.bytes = self.bytes.saturating_add(record.bytes());
        self.since.get_or_insert(now);
        self.records.push(record);
    }

    /// Returns whether a batch is to be written now; `all` takes what there is.
    pub(super) fn is_due(&self, bounds: &SinkBounds, now: Instant, all: bool) -> bool {
        let Some(since) = self.since.filter(|_| self.confirmed) else {
            return false;
        };
        let full = self.records.len() >= bounds.records || self.bytes >= bounds.bytes;
        let waited = now.saturating_duration_since(since) >= bounds.linger;
        let part = self.careful_until.is_some() || self.refused.is_some();
        self.blocked.remaining().is_zero() && (full || waited || all || part)
    }

    /// Whether the first record was refused and the sink stands before it.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.has_failed()
    }

    /// Takes the next batch out; [`put_back`](Self::put_back) undoes it.
    pub(super) fn take(&mut self, partition: &TopicPartition) -> Option<SinkBatch> {
        let expected = self.position()?;
        let first = self.records.first()?.offset;
        let count = match (self.refused, self.careful_until) {
            (Some(refused), _) if refused > first => self
                .records
                .partition_point(|record| record.offset < refused),
            (Some(_), _) => 1,
            (None, Some(until)) if first <= until => 1,
            (None, _) => self.records.len(),
        };
        let rest = self.records.split_off(count.min(self.records.len()));
        let records = std::mem::replace(&mut self.records, rest);
        Some(SinkBatch {
            partition: partition.clone(),
            declared: Arc::clone(&self.declared),
            expected,
            next: records.last()?.offset + 1,
            records,
        })
    }

    /// Takes a batch back that was not written.
    pub(super) fn put_back(&mut self, batch: SinkBatch) {
        let rest = std::mem::replace(&mut self.records, batch.records);
        self.records.extend(rest);
    }

    /// The batch, taken before, is in the target.
    pub(super) fn written(&mut self, batch: &SinkBatch, now: Instant) {
        self.stored = Some(batch.next);
        self.bytes = self.records.iter().map(SinkRecord::bytes).sum();
        self.since = (!self.records.is_empty()).then_some(now);
        self.careful_until = self.careful_until.filter(|until| *until >= batch.next);
        self.refused = self.refused.filter(|refused| *refused >= batch.next);
        self.blocked.succeed();
    }

    /// A batch, put back before, was refused, because of the record at `offset` where that is known.
    pub(super) fn refuse(&mut self, count: usize, offset: Option<Offset>) -> Verdict {
        let Some(first) = self.records.first().map(|record| record.offset) else {
            return Verdict::TryOthers;
        };
        let blamed = offset.or((count <= 1).then_some(first));
        match blamed {
            Some(blamed) if blamed <= first => {
                self.refused = Some(first);
                Verdict::Blame(first)
            }
            Some(blamed) => {
                self.refused = Some(blamed);
                Verdict::TryOthers
            }
            None => {
                let last = self.records.get(count.saturating_sub(1));
                self.careful_until = last.or(self.records.last()).map(|record| record.offset);
                Verdict::TryOthers
            }
        }
    }

    /// Stands still before the first record for a while.
    pub(super) fn block(&mut self) {
        self.blocked.fail();
    }

    /// Returns a batch that passes over the first record: its offset without its rows.
    pub(super) fn skip_first(&mut self, partition: &TopicPartition) -> Option<SinkBatch> {
        let expected = self.position()?;
        let next = self.records.first()?.offset + 1;
        Some(SinkBatch {
            partition: partition.clone(),
            declared: Arc::clone(&self.declared),
            expected,
            next,
            records: Vec::new(),
        })
    }

    /// The batch of [`skip_first`](Self::skip_first) is in the target.
    pub(super) fn skipped(&mut self, batch: &SinkBatch, now: Instant) {
        self.records.retain(|record| record.offset >= batch.next);
        self.written(batch, now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::BadRecords;
    use super::*;
    use crate::log::Headers;

    const BOUNDS: SinkBounds = SinkBounds {
        records: 4,
        bytes: 10_000,
        linger: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        check_interval: Duration::from_secs(1),
        bad_records: BadRecords::Stop,
    };

    fn record(offset: Offset, bytes: usize) -> SinkRecord {
        SinkRecord {
            offset,
            timestamp: 0,
            key: None,
            value: Some(vec![0; bytes]),
            headers: Headers::new(),
        }
    }

    fn partition() -> TopicPartition {
        TopicPartition::new("topic", 0)
    }

    fn intake(offsets: &[Offset]) -> (Intake, Instant) {
        let now = Instant::now();
        let mut intake = Intake::new("topic".into());
        assert!(intake.confirm(0));
        for offset in offsets {
            intake.push(record(*offset, 10), now);
        }
        (intake, now)
    }

    fn offsets(batch: &SinkBatch) -> Vec<Offset> {
        batch.records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn a_batch_is_due_when_it_is_full_or_has_waited() {
        let (mut intake, now) = intake(&[0, 2]);
        assert!(!intake.is_due(&BOUNDS, now, false));
        assert!(intake.is_due(&BOUNDS, now, true));
        assert!(intake.is_due(&BOUNDS, now + BOUNDS.linger, false));
        assert_eq!(intake.room(&BOUNDS), 2);
        intake.push(record(5, 20_000), now);
        assert!(intake.is_due(&BOUNDS, now, false), "bytes");
        assert_eq!(intake.room(&BOUNDS), 0);
        let batch = intake.take(&partition()).unwrap();
        assert_eq!((batch.expected, batch.next), (0, 6));
        intake.written(&batch, now);
        assert_eq!(intake.position(), Some(6));
        assert_eq!(intake.room(&BOUNDS), 4);
        assert!(!intake.is_due(&BOUNDS, now, true), "nothing is left");
    }

    #[test]
    fn in_doubt_nothing_is_read_nor_written() {
        let (mut intake, now) = intake(&[0, 1]);
        intake.doubt();
        assert_eq!(intake.room(&BOUNDS), 0);
        assert!(!intake.is_due(&BOUNDS, now, true));
        assert_eq!(intake.take(&partition()).map(|batch| batch.next), None);
        assert!(!intake.confirm(0), "what was read follows on");
        assert_eq!(offsets(&intake.take(&partition()).unwrap()), [0, 1]);
    }

    #[test]
    fn a_target_that_stands_elsewhere_makes_reading_start_over() {
        for stored in [1, 2, 7] {
            let (mut intake, now) = intake(&[0, 1]);
            intake.doubt();
            assert!(intake.confirm(stored), "{stored}");
            assert!(!intake.is_due(&BOUNDS, now, true));
            assert_eq!(intake.position(), Some(stored));
        }
    }

    #[test]
    fn what_was_read_need_not_be_in_the_log_any_more() {
        let (intake, _) = intake(&[0, 1, 4]);
        for (stored, start, expected) in [
            (0, 1, true),
            (0, 5, true),
            (0, 6, false),
            // The target stands elsewhere: all is read again.
            (1, 5, false),
        ] {
            assert_eq!(intake.reaches(stored, start), expected, "{stored} {start}");
        }
        let nothing = Intake::new("topic".into());
        assert!(!nothing.reaches(0, 1));
    }

    #[test]
    fn a_refused_record_that_is_known_is_reached_in_two_steps() {
        let (mut intake, now) = intake(&[0, 1, 2, 3]);
        let batch = intake.take(&partition()).unwrap();
        intake.put_back(batch);
        assert_eq!(intake.refuse(4, Some(2)), Verdict::TryOthers);
        let batch = intake.take(&partition()).unwrap();
        assert_eq!(offsets(&batch), [0, 1]);
        intake.written(&batch, now);
        let batch = intake.take(&partition()).unwrap();
        assert_eq!(offsets(&batch), [2]);
        intake.put_back(batch);
        assert_eq!(intake.refuse(1, Some(2)), Verdict::Blame(2));
        intake.block();
        assert!(intake.is_blocked() && !intake.is_due(&BOUNDS, now, true));
        let batch = intake.skip_first(&partition()).unwrap();
        assert_eq!((batch.expected, batch.next, batch.records.len()), (2, 3, 0));
        intake.skipped(&batch, now);
        assert_eq!(offsets(&intake.take(&partition()).unwrap()), [3]);
    }

    #[test]
    fn a_refused_record_that_is_unknown_is_found_one_by_one() {
        let (mut intake, now) = intake(&[0, 4, 5, 9]);
        let batch = intake.take(&partition()).unwrap();
        intake.put_back(batch);
        assert_eq!(intake.refuse(4, None), Verdict::TryOthers);
        for expected in [0, 4] {
            let batch = intake.take(&partition()).unwrap();
            assert_eq!(offsets(&batch), [expected]);
            intake.written(&batch, now);
        }
        let batch = intake.take(&partition()).unwrap();
        intake.put_back(batch);
        assert_eq!(intake.refuse(1, None), Verdict::Blame(5));
        let batch = intake.skip_first(&partition()).unwrap();
        intake.skipped(&batch, now);
        let batch = intake.take(&partition()).unwrap();
        assert_eq!(offsets(&batch), [9]);
        intake.written(&batch, now);
        intake.push(record(10, 1), now);
        intake.push(record(11, 1), now);
        assert_eq!(offsets(&intake.take(&partition()).unwrap()), [10, 11]);
    }
}
