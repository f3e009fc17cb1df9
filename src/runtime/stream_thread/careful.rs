//! Finding the input record whose output the log refuses.
//!
//! # Position
//! A broker's refusal of a record (too large for its topic, a timestamp that it does not take) comes
//! after the record was queued, with many others of the same transaction. It costs the transaction,
//! and would cost every later one that contains the record.
//! # How
//! The thread goes on in transactions of **one** input record each, until it has passed what the
//! failed transaction had reached. The one that fails again contains the record to blame, which then
//! meets its source's policy (`runtime/suspects.rs`). When none fails, no record was to blame: a topic
//! whose `max.message.bytes` is small refuses a batch of small records as well.
//! # Invariants
//! - While careful, a transaction holds one record's outputs and changelog entries, or one task's
//!   punctuations, and nothing else. What is committed is committed as ever: exactly once.
//! # Failure
//! An output that no input record stands for (a punctuator's, an initialisation's) cannot be dead-
//! lettered and would be refused for ever: the thread ends and names the task.

use std::collections::BTreeMap;

use super::{Slot, StreamThread};
use crate::clock::Timestamp;
use crate::log::{Log, LogError, Offset, TopicPartition};
use crate::runtime::ThreadError;
use crate::runtime::error::Fault;
use crate::runtime::suspects::Refused;
use crate::runtime::task::{Processed, Task};
use crate::topology::TaskId;

/// The thread looks for a record that the log refuses.
#[derive(Debug)]
pub(super) struct Careful {
    /// What the failed transaction had reached, by partition.
    until: BTreeMap<TopicPartition, Offset>,
    /// Whose work is in the open transaction.
    trial: Option<TaskId>,
}

impl<L: Log> StreamThread<L> {
    /// A record of the transaction was refused; the transaction is about to be aborted. Blames its
    /// input record, or begins to look for it.
    pub(super) fn meet_refusal(
        &mut self,
        refused: &Refused,
        error: &LogError,
    ) -> Result<(), ThreadError> {
        self.meters.refusals.inc();
        let failed = |task| ThreadError::Processing {
            task,
            at: None,
            source: refused.error(),
        };
        if let Some(id) = self
            .careful
            .as_mut()
            .and_then(|careful| careful.trial.take())
            && let Some(Slot::Live(task)) = self.slots.get_mut(&id)
        {
            return task
                .blame_in_hand(refused)
                .then_some(())
                .ok_or_else(|| failed(id));
        }
        let until: BTreeMap<_, _> = self.live().flat_map(Task::reached).collect();
        if until.is_empty() {
            let writer = self.live().find(|task| task.has_results());
            return Err(writer.map_or_else(|| error.clone().into(), |task| failed(task.id)));
        }
        tracing::warn!(
            thread = %self.id,
            %error,
            "looking for the record that the log refuses, one transaction for each"
        );
        self.careful = Some(Careful { until, trial: None });
        Ok(())
    }

    pub(super) fn is_careful(&self) -> bool {
        self.careful.is_some()
    }

    /// Begins a transaction that contains this task's next piece of work alone.
    pub(super) fn begin_trial(&mut self, id: TaskId, now: Timestamp) -> Result<(), Fault> {
        if self.is_careful() {
            self.commit(now)?;
        }
        if let Some(careful) = &mut self.careful {
            careful.trial = Some(id);
        }
        Ok(())
    }

    /// Ends a trial whose transaction is lost: it tells nothing about what comes next.
    pub(super) fn give_up_trial(&mut self) {
        if let Some(careful) = &mut self.careful {
            careful.trial = None;
        }
    }

    /// Commits what [`begin_trial`](Self::begin_trial) isolated.
    pub(super) fn end_trial(&mut self, now: Timestamp) -> Result<(), Fault> {
        if self.is_careful() {
            self.commit(now)?;
        }
        if let Some(careful) = &mut self.careful {
            careful.trial = None;
        }
        Ok(())
    }

    /// Processes one record of each task that has one, each in a transaction of its own.
    pub(super) fn process_carefully(&mut self, now: Timestamp) -> Result<usize, Fault> {
        let mut total = 0;
        for id in self.processable_tasks(now) {
            self.begin_trial(id, now)?;
            let processed = self.with_task(id, |task, producer, probe| {
                task.process_next(now, producer, probe)
            })?;
            total += usize::from(processed == Processed::Record);
            self.end_trial(now)?;
        }
        self.leave_careful_when_passed();
        Ok(total)
    }

    fn leave_careful_when_passed(&mut self) {
        let positions: BTreeMap<TopicPartition, Offset> = self
            .live()
            .flat_map(|task| &task.group.partitions)
            .map(|input| (input.partition.clone(), input.position))
            .collect();
        let all_live = self
            .slots
            .values()
            .all(|slot| matches!(slot, Slot::Live(_)));
        let Some(careful) = &mut self.careful else {
            return;
        };
        // A partition that has gone is somebody else's to look through.
        careful.until.retain(|partition, until| {
            positions
                .get(partition)
                .map_or(!all_live, |position| position < until)
        });
        if careful.until.is_empty() {
            tracing::info!(thread = %self.id, "passed what the refused transaction had reached");
            self.careful = None;
        }
    }
}
