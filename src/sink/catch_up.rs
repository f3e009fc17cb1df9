//! Runs a sink to the log's present end and returns: for commands, beside or without a daemon.
//!
//! No group: every partition is read. Should a daemon's sink do the same work, the target's fence keeps
//! the two apart; whoever finds the offsets moved goes on from where they are now.

use tokio::runtime::Handle;

use std::time::Duration;

use super::call::{Trouble, record_of, refuse_outside, wait};
use super::{
    ConfiguredSink, SinkBatch, SinkBounds, SinkContext, SinkError, SinkPartition, SinkRecord,
    SinkSession,
};
use crate::log::{Isolation, Log, LogError, LogReader, Offset, TopicName, TopicPartition};

/// How long one read waits for records that the log says are there.
const READ_WAIT: Duration = Duration::from_millis(200);
/// Records of one read.
const READ_MAX: usize = 256;
/// How often offsets may have moved in a row until this gives up.
const SUPERSEDED_MAX: u32 = 20;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatchUp {
    /// Records written.
    pub records: u64,
    /// Rows or files that they made.
    pub rows: u64,
}

/// Why a sink did not catch up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatchUpError {
    /// The log.
    #[error("the log")]
    Log(#[from] LogError),
    /// The target.
    #[error("the sink `{sink}`")]
    Target {
        /// Which sink.
        sink: String,
        /// What is wrong.
        source: SinkError,
    },
}

/// Writes everything up to the present end of the sink's topics, in batches as its bounds say, the
/// last one of each partition as it is.
///
/// # Errors
/// [`CatchUpError`]; what was written before stays.
pub fn catch_up<L: Log>(
    log: &L,
    runtime: &Handle,
    configured: &ConfiguredSink,
    context: &SinkContext,
) -> Result<CatchUp, CatchUpError> {
    let (sink, bounds) = (&configured.sink, configured.sink.bounds());
    let target = |source| CatchUpError::Target {
        sink: configured.name.clone(),
        source,
    };
    let mut run = Run {
        log,
        runtime,
        name: &configured.name,
        bounds,
        session: wait(runtime, bounds.timeout, sink.connect(context)).map_err(target)?,
        done: CatchUp::default(),
    };
    for topic in &context.topics {
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(TopicName::clone(&topic.name), partition);
            run.partition(&at, &topic.declared)
                .map_err(|trouble| match trouble {
                    Trouble::Log(error) => error.into(),
                    Trouble::Target(error) => target(error),
                })?;
        }
    }
    Ok(run.done)
}

struct Run<'a, L: Log> {
    log: &'a L,
    runtime: &'a Handle,
    name: &'a str,
    bounds: SinkBounds,
    session: Box<dyn SinkSession>,
    done: CatchUp,
}

impl<L: Log> Run<'_, L> {
    fn partition(&mut self, at: &TopicPartition, declared: &str) -> Result<(), Trouble> {
        let mut superseded = 0;
        loop {
            match self.attempt(at, declared) {
                Err(Trouble::Target(SinkError::Superseded { .. }))
                    if superseded < SUPERSEDED_MAX =>
                {
                    superseded += 1;
                }
                other => return other,
            }
        }
    }

    fn attempt(&mut self, at: &TopicPartition, declared: &str) -> Result<(), Trouble> {
        let one = std::slice::from_ref(at);
        // The last stable offset: what lies beyond is of transactions that have not ended.
        let ranges = self.log.log_ranges(one, Isolation::ReadCommitted)?;
        let Some(range) = ranges.first().copied() else {
            return Ok(());
        };
        let asked = [SinkPartition {
            partition: at.clone(),
            log_start: range.start,
        }];
        let resumed = wait(
            self.runtime,
            self.bounds.timeout,
            self.session.resume(&asked),
        )
        .map_err(Trouble::Target)?;
        let Some(mut stored) = resumed.first().copied() else {
            return Ok(());
        };
        let latest = self.log.log_ranges(one, Isolation::ReadUncommitted)?;
        let end = latest.first().map_or(range.end, |range| range.end);
        refuse_outside(self.name, at, stored, (range.start, end)).map_err(Trouble::Target)?;
        if stored >= range.end {
            return Ok(());
        }
        let mut reader = self.log.reader(Isolation::ReadCommitted)?;
        reader.assign(&[(at.clone(), stored)])?;
        let (mut messages, mut records, mut bytes) = (Vec::new(), Vec::new(), 0);
        loop {
            let at_end = reader
                .position(at)
                .is_none_or(|position| position >= range.end);
            let full = records.len() >= self.bounds.records || bytes >= self.bounds.bytes;
            if (at_end || full) && !records.is_empty() {
                stored = self.write(at, declared, stored, std::mem::take(&mut records))?;
                bytes = 0;
            }
            if at_end {
                return Ok(());
            }
            let room = self.bounds.records.saturating_sub(records.len());
            reader.poll(room.clamp(1, READ_MAX), READ_WAIT, &mut messages)?;
            for message in messages.drain(..) {
                let record = record_of(&message);
                bytes += record.bytes();
                records.push(record);
            }
        }
    }

    fn write(
        &mut self,
        at: &TopicPartition,
        declared: &str,
        expected: Offset,
        records: Vec<SinkRecord>,
    ) -> Result<Offset, Trouble> {
        let next = records.last().map_or(expected, |record| record.offset + 1);
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let batch = [SinkBatch {
            partition: at.clone(),
            declared: declared.into(),
            expected,
            next,
            records,
        }];
        let rows = wait(
            self.runtime,
            self.bounds.timeout,
            self.session.write(&batch),
        )
        .map_err(Trouble::Target)?;
        self.done.records += count;
        self.done.rows += rows;
        Ok(next)
    }
}
