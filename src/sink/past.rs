//! Reading records that the log may no longer hold: from an archive, then from the topic, without a
//! gap or a repetition where they meet.
//!
//! # Invariants
//! - Everything is by offset: each record that was ever committed has one, in the archive and in the
//!   topic. So what is read where does not matter, and retention may delete while a read goes on.
//! - What neither holds is an error that names it ([`PastError::Missing`]), never a shorter answer.
//! - The end is fixed when a read begins: the last stable offset.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::call::{record_of, wait};
use super::{SinkError, SinkFuture, SinkRecord, SinkTopic};
use crate::clock::Timestamp;
use crate::format::partitioner::partition_for_key;
use crate::log::{Isolation, Log, LogError, LogReader, Offset, TopicName, TopicPartition};

/// How long one read of the log waits for records that it says are there.
const READ_WAIT: Duration = Duration::from_millis(200);
/// Records of one read of the log.
const READ_MAX: usize = 500;

/// A range of offsets that an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastRange {
    /// The first offset that it covers.
    pub first: Offset,
    /// The offset after the last that it covers.
    pub end: Offset,
    /// The lowest timestamp of its records.
    pub min_timestamp: Timestamp,
    /// The highest timestamp of its records.
    pub max_timestamp: Timestamp,
}

/// Records that have left the log: what an archive is for whoever reads across both.
pub trait PastRecords: Send + Sync + fmt::Debug {
    /// Returns the partitions of a topic that it holds anything of.
    fn partitions<'a>(&'a self, topic: &'a TopicName) -> SinkFuture<'a, Vec<i32>>;

    /// Returns what it holds of a partition, in the order of offsets, as of now.
    fn ranges<'a>(&'a self, partition: &'a TopicPartition) -> SinkFuture<'a, Vec<PastRange>>;

    /// Returns the records of one of these ranges, in the order of offsets.
    fn records<'a>(
        &'a self,
        partition: &'a TopicPartition,
        range: PastRange,
    ) -> SinkFuture<'a, Vec<SinkRecord>>;
}

/// Which records are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From this offset on; 0 is the beginning of all.
    pub from: Offset,
    /// Not before this time, where there is one.
    pub since: Option<Timestamp>,
    /// Before this time, where there is one.
    pub before: Option<Timestamp>,
    /// Below this offset, where there is one.
    pub until: Option<Offset>,
}

impl Span {
    /// Every record there ever was.
    pub const ALL: Self = Self {
        from: 0,
        since: None,
        before: None,
        until: None,
    };

    /// Records with timestamps from `since` to before `before`.
    #[must_use]
    pub const fn of_period(since: Timestamp, before: Timestamp) -> Self {
        Self {
            since: Some(since),
            before: Some(before),
            ..Self::ALL
        }
    }

    fn has(&self, record: &SinkRecord) -> bool {
        let late_enough = self.since.is_none_or(|since| record.timestamp >= since);
        late_enough
            && self.before.is_none_or(|before| record.timestamp < before)
            && self.until.is_none_or(|until| record.offset < until)
    }

    fn may_be_in(&self, range: &PastRange) -> bool {
        let late_enough = self.since.is_none_or(|since| range.max_timestamp >= since);
        late_enough
            && self
                .before
                .is_none_or(|before| range.min_timestamp < before)
    }
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PastError {
    /// Neither the archive nor the topic holds them.
    #[error(
        "records {from} to {} of {partition} are neither in the topic nor in an archive",
        .until - 1
    )]
    Missing {
        /// Of which partition.
        partition: TopicPartition,
        /// The first that is missing.
        from: Offset,
        /// The first that is there again.
        until: Offset,
    },
    /// The log.
    #[error("the log")]
    Log(#[from] LogError),
    /// The archive.
    #[error("the archive")]
    Archive(#[source] SinkError),
}

/// Reads partitions across archive and log.
#[derive(Debug, Clone)]
pub struct PastReader<L: Log> {
    log: L,
    runtime: Handle,
    past: Option<Arc<dyn PastRecords>>,
    timeout: Duration,
}

/// What to do next at an offset: a pure decision, tested by itself.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Topic,
    Archive(PastRange),
    /// Up to here there is nothing.
    Missing(Offset),
}

fn next(at: Offset, log_start: Offset, ranges: &[PastRange]) -> Next {
    if at >= log_start {
        return Next::Topic;
    }
    if let Some(range) = ranges
        .iter()
        .find(|range| range.first <= at && at < range.end)
    {
        return Next::Archive(*range);
    }
    let later = ranges.iter().map(|range| range.first);
    let later = later.filter(|first| *first > at).min();
    Next::Missing(later.map_or(log_start, |first| first.min(log_start)))
}

impl<L: Log> PastReader<L> {
    /// Reads from `log` and, where that no longer reaches back, from `past`. A call to the archive
    /// may take `timeout`. Not to be used on a thread of the runtime: it blocks.
    #[must_use]
    pub fn new(
        log: &L,
        runtime: &Handle,
        past: Option<Arc<dyn PastRecords>>,
        timeout: Duration,
    ) -> Self {
        Self {
            log: log.clone(),
            runtime: runtime.clone(),
            past,
            timeout,
        }
    }

    /// Calls `each` with the records of a partition that `span` has, in the order of their offsets,
    /// until it breaks or the partition's present end is reached.
    ///
    /// A span of time passes over archived ranges without a record of it. It cannot know what a range
    /// that is missing had, so such a range is an error, unless an archived range comes right after it
    /// that has a record from before the span: then, as timestamps rise along a partition, it had
    /// nothing. Where the topic comes right after it, it is always an error.
    ///
    /// # Errors
    /// [`PastError`]; records before it were handed out.
    pub fn read(
        &self,
        partition: &TopicPartition,
        span: Span,
        mut each: impl FnMut(SinkRecord) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let (_, end) = self.log_range(partition)?;
        let end = span.until.map_or(end, |until| until.min(end));
        let mut at = span.from;
        while at < end {
            let (log_start, _) = self.log_range(partition)?;
            let ranges = match &self.past {
                Some(past) if at < log_start => {
                    wait(&self.runtime, self.timeout, past.ranges(partition))
                        .map_err(PastError::Archive)?
                }
                Some(_) | None => Vec::new(),
            };
            let flow = match next(at, log_start, &ranges) {
                Next::Topic => match self.read_log(partition, &mut at, end, span, &mut each) {
                    // Retention was faster: what it has deleted is in the archive, or missing.
                    Err(LogError::OffsetOutOfRange { .. }) => ControlFlow::Continue(()),
                    result => result?,
                },
                Next::Archive(range) => {
                    let flow = self.read_range(partition, range, at, span, &mut each)?;
                    at = range.end;
                    flow
                }
                Next::Missing(until) => {
                    let following = ranges.iter().find(|range| range.first == until);
                    let starts_earlier = following.zip(span.since);
                    if starts_earlier.is_none_or(|(range, since)| range.min_timestamp >= since) {
                        let partition = partition.clone();
                        return Err(PastError::Missing {
                            partition,
                            from: at,
                            until,
                        });
                    }
                    at = until;
                    ControlFlow::Continue(())
                }
            };
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// As [`read`](Self::read), for the records of one key: the events of an aggregate. Reads the
    /// partition that the key's records go to.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_key(
        &self,
        topic: &SinkTopic,
        key: &[u8],
        span: Span,
        mut each: impl FnMut(SinkRecord) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let number = partition_for_key(key, topic.partitions);
        let partition = TopicPartition::new(TopicName::clone(&topic.name), number);
        self.read(&partition, span, |record| {
            if record.key.as_deref() == Some(key) {
                each(record)
            } else {
                ControlFlow::Continue(())
            }
        })
    }

    /// As [`read`](Self::read), for one partition of a topic after the other: the events of all
    /// aggregates in a period. The order between partitions is not that of time.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_topic(
        &self,
        topic: &SinkTopic,
        span: Span,
        mut each: impl FnMut(SinkRecord) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let mut flow = ControlFlow::Continue(());
        for number in 0..topic.partitions {
            let partition = TopicPartition::new(TopicName::clone(&topic.name), number);
            self.read(&partition, span, |record| {
                flow = each(record);
                flow
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn log_range(&self, partition: &TopicPartition) -> Result<(Offset, Offset), LogError> {
        let one = std::slice::from_ref(partition);
        let ranges = self.log.log_ranges(one, Isolation::ReadCommitted)?;
        Ok(ranges
            .first()
            .map_or((0, 0), |range| (range.start, range.end)))
    }

    fn read_range(
        &self,
        partition: &TopicPartition,
        range: PastRange,
        at: Offset,
        span: Span,
        each: &mut impl FnMut(SinkRecord) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PastError> {
        let Some(past) = self.past.as_ref().filter(|_| span.may_be_in(&range)) else {
            return Ok(ControlFlow::Continue(()));
        };
        let records = wait(&self.runtime, self.timeout, past.records(partition, range))
            .map_err(PastError::Archive)?;
        let wanted = records.into_iter();
        for record in wanted.filter(|record| record.offset >= at && span.has(record)) {
            if each(record).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads the log from `at`, which follows what was read, to `end`.
    fn read_log(
        &self,
        partition: &TopicPartition,
        at: &mut Offset,
        end: Offset,
        span: Span,
        each: &mut impl FnMut(SinkRecord) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LogError> {
        let mut reader = self.log.reader(Isolation::ReadCommitted)?;
        reader.assign(&[(partition.clone(), *at)])?;
        let mut messages = Vec::new();
        loop {
            reader.poll(READ_MAX, READ_WAIT, &mut messages)?;
            for message in messages.drain(..) {
                let record = record_of(&message);
                if record.offset >= end {
                    *at = end;
                    return Ok(ControlFlow::Continue(()));
                }
                *at = record.offset + 1;
                if span.has(&record) && each(record).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            // Passes control records at the end, too.
            if reader
                .position(partition)
                .is_some_and(|position| position >= end)
            {
                *at = end;
                return Ok(ControlFlow::Continue(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: Offset, end: Offset) -> PastRange {
        PastRange {
            first,
            end,
            min_timestamp: first * 10,
            max_timestamp: end * 10,
        }
    }

    #[test]
    fn the_topic_is_read_where_it_reaches_and_the_archive_before() {
        let ranges = [range(0, 10), range(10, 25), range(30, 40)];
        for (at, log_start, expected) in [
            (0, 0, Next::Topic),
            (20, 20, Next::Topic),
            (12, 20, Next::Archive(ranges[1])),
            (0, 20, Next::Archive(ranges[0])),
            // A hole between two files, and one between the archive and the topic.
            (25, 40, Next::Missing(30)),
            (40, 45, Next::Missing(45)),
            (25, 28, Next::Missing(28)),
        ] {
            assert_eq!(next(at, log_start, &ranges), expected, "{at} {log_start}");
        }
        assert_eq!(next(3, 5, &[]), Next::Missing(5));
        assert_eq!(next(0, 50, &ranges[1..]), Next::Missing(10));
    }

    #[test]
    fn a_period_skips_what_cannot_have_it() {
        let span = Span::of_period(100, 200);
        assert!(!span.may_be_in(&range(0, 9)));
        assert!(span.may_be_in(&range(0, 10)));
        assert!(span.may_be_in(&range(19, 30)));
        assert!(!span.may_be_in(&range(20, 30)));
    }
}
