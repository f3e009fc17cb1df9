//! How a thread lets go of a task: with its work committed, or as it is.

use super::StreamThread;
use super::slot::{Created, Slot};
use crate::log::Log;
use crate::runtime::error::Fault;
use crate::topology::TaskId;

impl<L: Log> StreamThread<L> {
    /// Closes a task whose work is committed: its stores are flushed, so that the next owner of this
    /// directory has nothing to replay.
    pub(super) fn close_clean(&mut self, id: TaskId) -> Result<(), Fault> {
        if let Some(Slot::Live(task)) = self.slots.get(&id) {
            assert!(
                !task.has_results(),
                "task {id} is closed with uncommitted results"
            );
            task.flush(&self.meters.flush_duration)?;
        }
        self.close_dirty(id);
        Ok(())
    }

    /// Closes a task as it is. What was not committed is gone; what was not flushed is replayed.
    pub(super) fn close_dirty(&mut self, id: TaskId) {
        self.reopen.remove(&id);
        self.spec.queries.remove(id);
        match self.slots.remove(&id) {
            Some(Slot::Live(mut task)) => task.close_processors(),
            Some(Slot::Restoring(_) | Slot::Closing) => {
                self.spec.restores.cancel(id);
                self.slots.insert(id, Slot::Closing);
            }
            Some(Slot::Created(_)) | None => {}
        }
    }

    /// Puts a task back to where it was when it was assigned. Its partitions stay assigned; their
    /// positions are set when it is opened.
    pub(super) fn close_for_reopen(&mut self, id: TaskId) {
        let restoring = match self.slots.get(&id) {
            Some(Slot::Restoring(_)) => true,
            Some(Slot::Live(_) | Slot::Created(_)) => false,
            Some(Slot::Closing) | None => return,
        };
        self.close_dirty(id);
        let created = Created {
            inputs: self.spec.topology.inputs(id),
            starts: None,
            not_before: 0,
            assigned_at: self.spec.clock.now_ms(),
        };
        if restoring {
            // The restore still holds the store: it reopens when the restore has ended.
            self.reopen.insert(id, created);
        } else {
            self.slots.insert(id, Slot::Created(created));
        }
    }
}
