//! Restores come back: to a live task, to another attempt, or to nobody.

use super::StreamThread;
use super::slot::{Created, Restoring, Slot};
use crate::clock::Timestamp;
use crate::log::{Log, LogError};
use crate::metrics::SetAsideReason;
use crate::runtime::dead_letter::chain;
use crate::runtime::error::Fault;
use crate::runtime::restore::RestoreError;
use crate::runtime::restore_pool::Finished;
use crate::topology::TaskId;

impl<L: Log> StreamThread<L> {
    /// Takes restored stores back.
    pub(super) fn collect_restored(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let mut collected = false;
        while let Some(finished) = self.spec.restores.poll() {
            collected = true;
            let Finished {
                task: id,
                restore,
                result,
            } = finished;
            match self.slots.remove(&id) {
                Some(Slot::Restoring(Restoring { created, stable })) => match result {
                    Ok(()) => {
                        let db = restore.into_db();
                        // Should it not go live, recovery finds it here and opens it again.
                        let again = Created {
                            inputs: created.inputs.clone(),
                            starts: None,
                            not_before: 0,
                            assigned_at: created.assigned_at,
                        };
                        self.slots.insert(id, Slot::Created(again));
                        self.go_live(id, created, &stable, db, now)?;
                    }
                    Err(error) => {
                        drop(restore);
                        self.restore_failed(id, created, error, now)?;
                    }
                },
                Some(Slot::Closing) => {
                    drop(restore);
                    if let Some(created) = self.reopen.remove(&id) {
                        self.slots.insert(id, Slot::Created(created));
                    }
                }
                Some(other @ (Slot::Created(_) | Slot::Live(_))) => {
                    self.slots.insert(id, other);
                }
                None => {}
            }
        }
        Ok(collected)
    }

    fn restore_failed(
        &mut self,
        id: TaskId,
        created: Created,
        error: RestoreError,
        now: Timestamp,
    ) -> Result<(), Fault> {
        // Whatever happened: the next attempt reads offsets and watermarks afresh.
        let again = Created {
            starts: None,
            ..created
        };
        self.slots.insert(id, Slot::Created(again));
        match error {
            RestoreError::Cancelled => Ok(()),
            RestoreError::Panicked => Err(Fault::Bug("a restore panicked")),
            RestoreError::Crash(crash) => Err(crash.into()),
            RestoreError::State(source) => Err(Fault::State { task: id, source }),
            RestoreError::OutlivedTombstones { .. } => {
                tracing::warn!(task = %id, error = %chain(&error), "restore starts over");
                self.start_over(id, SetAsideReason::TooOld, now)
            }
            RestoreError::Log(error) => {
                tracing::warn!(task = %id, error = %chain(&error), "restore interrupted");
                if let LogError::OffsetOutOfRange { .. } = &error {
                    self.start_over(id, SetAsideReason::OutOfRange, now)?;
                }
                self.postpone_open(id, now);
                Ok(())
            }
        }
    }

    /// Sets a task's directory aside, whose database is closed.
    fn start_over(
        &mut self,
        id: TaskId,
        reason: SetAsideReason,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.spec
            .state
            .set_aside(id, now)
            .map_err(|source| Fault::State { task: id, source })?;
        self.spec.metrics.state_set_aside(reason);
        Ok(())
    }

    pub(super) fn postpone_open(&mut self, id: TaskId, now: Timestamp) {
        if let Some(Slot::Created(created)) = self.slots.get_mut(&id) {
            created.not_before = now.saturating_add(100);
        }
    }
}
