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
//!
//! Punctuators of the failed transaction stay apart until each of their tasks has punctuated in a
//! transaction of its own: by then their outputs are cleared, or known to be the ones.
//! # Invariants
//! - While careful, a transaction holds one record's outputs and changelog entries, or one task's
//!   punctuations, and nothing else. What is committed is committed as ever: exactly once.
//! # Failure
//! An output that no input record stands for (a punctuator's, an initialisation's) cannot be dead-
//! lettered and would be refused for ever: the thread ends and names the task.

use std::collections::{BTreeMap, BTreeSet};

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
    /// What the failed transaction had reached, by partition. Until then, one record at a time.
    until: BTreeMap<TopicPartition, (TaskId, Offset)>,
    /// Tasks that punctuated in it, and have not in a transaction of its own since.
    punctuated: BTreeSet<TaskId>,
    /// What is in the open transaction.
    trial: Option<Trial>,
}

/// The one piece of work in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trial {
    /// An input record of this task.
    Record(TaskId),
    /// What this task does for no record: punctuators, initialisation.
    OfNoRecord(TaskId),
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
        let trial = self.careful.as_mut().and_then(|it| it.trial.take());
        match trial {
            Some(Trial::OfNoRecord(id)) => return Err(failed(id)),
            Some(Trial::Record(id)) => {
                let blamed = match self.slots.get_mut(&id) {
                    Some(Slot::Live(task)) => task.blame_in_hand(refused),
                    _ => false,
                };
                return blamed.then_some(()).ok_or_else(|| failed(id));
            }
            None => {}
        }
        let until: BTreeMap<_, _> = self
            .live()
            .flat_map(|task| {
                let reached = task.reached().into_iter();
                reached.map(|(partition, offset)| (partition, (task.id, offset)))
            })
            .collect();
        let writers = self.live_ids(Task::has_results);
        if until.is_empty() && writers.len() < 2 {
            return Err(match writers.first() {
                Some(id) => failed(*id),
                None => error.clone().into(),
            });
        }
        tracing::warn!(
            thread = %self.id,
            %error,
            "looking for the record that the log refuses, one transaction for each"
        );
        let punctuated = self.live_ids(Task::has_punctuated).into_iter().collect();
        self.careful = Some(Careful {
            until,
            punctuated,
            trial: None,
        });
        Ok(())
    }

    /// Whether records are processed one by one.
    pub(super) fn is_careful_with_records(&self) -> bool {
        self.careful.as_ref().is_some_and(|it| !it.until.is_empty())
    }

    /// While careful, begins a transaction that contains this piece of work alone.
    pub(super) fn begin_trial(&mut self, trial: Trial, now: Timestamp) -> Result<(), Fault> {
        if self.careful.is_some() {
            self.commit(now)?;
        }
        if let Some(careful) = &mut self.careful {
            careful.trial = Some(trial);
        }
        Ok(())
    }

    /// Ends a trial whose transaction has ended: it tells nothing about what comes next.
    pub(super) fn give_up_trial(&mut self) {
        if let Some(careful) = &mut self.careful {
            careful.trial = None;
        }
    }

    /// Commits what [`begin_trial`](Self::begin_trial) isolated.
    pub(super) fn end_trial(&mut self, now: Timestamp) -> Result<(), Fault> {
        if self.careful.is_some() {
            self.commit(now)?;
        }
        if let Some(careful) = &mut self.careful {
            careful.trial = None;
        }
        Ok(())
    }

    /// Lets a task punctuate; while careful, in a transaction of its own.
    pub(super) fn punctuate_task(&mut self, id: TaskId, now: Timestamp) -> Result<usize, Fault> {
        self.begin_trial(Trial::OfNoRecord(id), now)?;
        let fired = self.with_task(id, |task, producer, _| task.punctuate(now, producer))?;
        self.end_trial(now)?;
        if fired > 0
            && let Some(careful) = &mut self.careful
        {
            careful.punctuated.remove(&id);
        }
        Ok(fired)
    }

    /// Processes one record of each task that has one, each in a transaction of its own.
    pub(super) fn process_carefully(&mut self, now: Timestamp) -> Result<usize, Fault> {
        let mut total = 0;
        for id in self.processable_tasks(now) {
            self.begin_trial(Trial::Record(id), now)?;
            let processed = self.with_task(id, |task, producer, probe| {
                task.process_next(now, producer, probe)
            })?;
            total += usize::from(processed == Processed::Record);
            self.end_trial(now)?;
        }
        Ok(total)
    }

    /// Ends the search behind what the refused transaction had reached.
    pub(super) fn leave_careful_when_passed(&mut self) {
        let positions: BTreeMap<TopicPartition, Offset> = self
            .live()
            .flat_map(|task| &task.group.partitions)
            .map(|input| (input.partition.clone(), input.position))
            .collect();
        let Some(careful) = &mut self.careful else {
            return;
        };
        // A partition that has gone is somebody else's to look through.
        careful.until.retain(|partition, (task, until)| {
            positions.get(partition).map_or_else(
                || self.slots.contains_key(task),
                |position| position < until,
            )
        });
        careful.punctuated.retain(|id| self.slots.contains_key(id));
        if careful.until.is_empty() && careful.punctuated.is_empty() {
            tracing::info!(thread = %self.id, "passed what the refused transaction had reached");
            self.careful = None;
        }
    }
}
