//! What a fault means: one decision per kind (design §6), no catch-all.

use std::time::Duration;

use super::{BACKOFF_MAX, BACKOFF_MIN, FAILED_BACKOFF_MAX, Step, StreamThread};
use crate::clock::Timestamp;
use crate::log::{Log, LogError};
use crate::metrics::SetAsideReason;
use crate::runtime::ThreadError;
use crate::runtime::dead_letter::chain;
use crate::runtime::error::Fault;
use crate::runtime::protocol::TransactionEvent;
use crate::runtime::suspects::Refused;
use crate::state::StateError;
use crate::topology::TaskId;

impl<L: Log> StreamThread<L> {
    /// Turns a fault into the thread's next move, or its end.
    pub(super) fn recover(&mut self, fault: Fault, now: Timestamp) -> Result<Step, ThreadError> {
        match fault {
            Fault::Crash(crash) => Err(ThreadError::Crash(crash)),
            Fault::Refused(text) => Err(ThreadError::Refused(text)),
            Fault::FencedInstance(message) => Err(ThreadError::FencedInstance { message }),
            Fault::Bug(text) => Err(ThreadError::Bug(text.to_owned())),
            Fault::Illegal(transition) => Err(ThreadError::Bug(transition.to_string())),
            Fault::Processing { task, at, source } => {
                Err(ThreadError::Processing { task, at, source })
            }
            Fault::Settled(error) => {
                self.meters.log_retries.inc();
                self.note_failure(&error)?;
                Ok(self.back_off(now))
            }
            Fault::Blamed(error) => {
                self.note(&error);
                self.meters.refusals.inc();
                self.lose_transaction(&error, now)
            }
            Fault::Log(error) => self.recover_log(error, now),
            Fault::State { task, source } => self.recover_state(task, source, now),
        }
    }

    fn recover_log(&mut self, error: LogError, now: Timestamp) -> Result<Step, ThreadError> {
        match &error {
            // An unknown outcome is a commit's answer only, and met there; elsewhere it is a wait.
            LogError::Retriable { .. } | LogError::UnknownOutcome { .. } => {
                self.meters.log_retries.inc();
                self.note(&error);
                Ok(self.back_off(now))
            }
            LogError::OffsetOutOfRange { partition, offset } => Err(ThreadError::Refused(format!(
                "offset {offset} of {partition} is no longer in the log: records of it were deleted before they were processed; look at the topic's retention, then run `millstream reset`"
            ))),
            LogError::UnknownTopic { topic } if self.look_since_gone(topic, now) => {
                self.note(&error);
                Ok(self.back_off(now))
            }
            LogError::UnknownTopic { topic } => Err(ThreadError::Refused(format!(
                "topic `{topic}` has been deleted under the running application; restart to create it again"
            ))),
            LogError::OffsetMetadataTooLarge { .. } => Err(ThreadError::Refused(format!(
                "{error}: the windows, joins and suppressions of one sub-topology keep their times in \
                 the metadata of its committed offsets, some 40 bytes and the store's name for each; \
                 split the sub-topology, shorten the names of its stores, or raise \
                 `offset.metadata.max.bytes` of the brokers"
            ))),
            LogError::AbortRequired { .. }
            | LogError::RecordTooLarge { .. }
            | LogError::RecordRefused { .. }
            | LogError::Fenced { .. }
            | LogError::MemberUnknown { .. }
            | LogError::Fatal { .. } => {
                self.note_failure(&error)?;
                self.lose_transaction(&error, now)
            }
        }
    }

    fn lose_transaction(&mut self, error: &LogError, now: Timestamp) -> Result<Step, ThreadError> {
        let event = TransactionEvent::of_error(error).unwrap_or(TransactionEvent::AbortRequired);
        match self.transition(event) {
            Ok(()) => Ok(self.back_off(now)),
            Err(fault) => self.recover(fault, now),
        }
    }

    /// Notes what a transaction was lost by: a record that would cost the next one as well, or
    /// something that may pass.
    fn note_failure(&mut self, error: &LogError) -> Result<(), ThreadError> {
        self.note(error);
        if let Some(refused) = Refused::of(error) {
            return self.meet_refusal(&refused, error);
        }
        if matches!(error, LogError::AbortRequired { .. }) {
            self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
            self.meters.failed_in_a_row.set(self.failed_in_a_row.into());
        }
        Ok(())
    }

    /// Waits before the next transaction when one after the other has failed; the failed one is
    /// aborted by now, so that nobody waits for its end.
    pub(super) fn pause_after_failures(&mut self, now: Timestamp) {
        let Some(doublings) = self.failed_in_a_row.checked_sub(2) else {
            return;
        };
        let factor = 2_u32.saturating_pow(doublings);
        let wait = BACKOFF_MIN.saturating_mul(factor).min(FAILED_BACKOFF_MAX);
        tracing::warn!(
            thread = %self.id,
            failed = self.failed_in_a_row,
            ?wait,
            "transactions fail one after the other, waiting before the next"
        );
        self.resume_at = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(1000));
    }

    fn recover_state(
        &mut self,
        task: TaskId,
        error: StateError,
        now: Timestamp,
    ) -> Result<Step, ThreadError> {
        match &error {
            StateError::Corrupted { .. } => {
                tracing::error!(%task, error = %chain(&error), "state is damaged, setting it aside");
                if let Err(fault) = self.condemn(task, now) {
                    return self.recover(fault, now);
                }
                Ok(self.back_off(now))
            }
            StateError::Io { .. } | StateError::Locked { .. } => {
                tracing::error!(%task, error = %chain(&error), "state cannot be used, trying again");
                self.spec.status.set_problem(chain(&error));
                // What was committed is in the changelogs: the task is opened again, as often as
                // it takes, and restores what its store missed.
                if let Err(fault) = self.close_failed(task) {
                    return self.recover(fault, now);
                }
                Ok(self.back_off(now))
            }
            StateError::Decode { .. }
            | StateError::Encode { .. }
            | StateError::Closed { .. }
            | StateError::UnknownStore { .. } => Err(ThreadError::State {
                task,
                source: error,
            }),
        }
    }

    /// Closes every task without a commit, to be opened again from the committed offsets, and drops
    /// the producer: the next one settles what this one left.
    pub(super) fn reopen_tasks(&mut self) -> Result<(), Fault> {
        self.producer = None;
        self.pending.clear();
        self.give_up_trial();
        // The producer that failed is gone, and with it what made it fail.
        self.failed_in_a_row = 0;
        self.meters.failed_in_a_row.set(0);
        self.commit_began = None;
        self.meters.losses.inc();
        let ids: Vec<TaskId> = self.slots.keys().copied().collect();
        for id in ids {
            self.close_for_reopen(id);
        }
        self.transition(TransactionEvent::TasksClosed)
    }

    /// Sets a damaged task's directory aside; the task is restored from its changelogs.
    fn condemn(&mut self, task: TaskId, now: Timestamp) -> Result<(), Fault> {
        self.close_failed(task)?;
        self.spec
            .state
            .set_aside(task, now)
            .map_err(|source| Fault::State { task, source })?;
        self.spec.metrics.state_set_aside(SetAsideReason::Damaged);
        Ok(())
    }

    /// Closes a task whose store failed. What it did in an open transaction is undone with that.
    fn close_failed(&mut self, task: TaskId) -> Result<(), Fault> {
        // A batch of this task that waits for its store is in the changelogs: restore brings it.
        self.pending.retain(|(id, _)| *id != task);
        self.close_for_reopen(task);
        if self.transaction.may_abort() {
            self.transition(TransactionEvent::AbortDecided)?;
        }
        Ok(())
    }

    fn note(&self, error: &LogError) {
        tracing::warn!(thread = %self.id, state = ?self.transaction, error = %chain(error), "log");
        self.spec.status.set_problem(chain(error));
    }

    /// Waits out a condition that may pass by itself.
    fn back_off(&mut self, now: Timestamp) -> Step {
        let wait = self.backoff;
        self.resume_at = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(1000));
        self.backoff = (wait * 2).min(BACKOFF_MAX);
        Step::Idle(wait.max(Duration::from_millis(1)))
    }
}
