//! What the rest of the process may know of a thread: health, readiness, task states.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
pub use crate::metrics::TaskState;
use crate::topology::TaskId;

/// Where a thread stands with its group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Membership {
    /// It is no member: it has not joined yet, was fenced, or has left.
    #[default]
    Outside,
    /// It is a member, and its partitions are on their way: the group has not said which, their
    /// owners have not given them up, or the thread has not taken them over.
    Waiting,
    /// What the group gave it are its tasks. None, where others own every partition.
    Assigned,
}

/// What a thread holds in memory, in bytes, roughly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadMemory {
    /// Overlays: uncommitted and clean entries.
    pub overlays: usize,
    /// Records read and not processed: keys and values.
    pub record_buffers: usize,
}

/// A thread's state as last published.
#[derive(Debug, Clone, Default)]
pub struct ThreadSnapshot {
    /// Where it stands with its group.
    pub membership: Membership,
    /// Its tasks.
    pub tasks: BTreeMap<TaskId, TaskState>,
    /// What it holds in memory.
    pub memory: ThreadMemory,
    /// What it is waiting out, if anything: a broker that is away, a full disk.
    pub problem: Option<String>,
}

impl ThreadSnapshot {
    /// Returns whether the thread has its assignment, no problem, and all its tasks running.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.membership == Membership::Assigned
            && self.problem.is_none()
            && self
                .tasks
                .values()
                .all(|state| *state == TaskState::Running)
    }
}

/// Shared between a thread and those who ask.
#[derive(Debug, Default)]
pub struct ThreadStatus(Mutex<ThreadSnapshot>);

impl ThreadStatus {
    /// Returns the state as last published.
    #[must_use]
    pub fn snapshot(&self) -> ThreadSnapshot {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Publishes; clears the problem once the thread no longer waits.
    pub(crate) fn update(
        &self,
        membership: Membership,
        waits_until: Timestamp,
        now: Timestamp,
        tasks: BTreeMap<TaskId, TaskState>,
    ) {
        let mut snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.membership = membership;
        snapshot.tasks = tasks;
        if waits_until <= now {
            snapshot.problem = None;
        }
    }

    pub(crate) fn set_memory(&self, memory: ThreadMemory) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).memory = memory;
    }

    pub(crate) fn set_problem(&self, problem: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .problem = Some(problem);
    }

    /// The thread is gone.
    pub(crate) fn clear(&self, problem: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ThreadSnapshot {
            problem,
            ..ThreadSnapshot::default()
        };
    }
}
