//! What the rest of the process may know of a thread: health, readiness, task states.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
pub use crate::metrics::TaskState;
use crate::topology::TaskId;

/// A thread's state as last published.
#[derive(Debug, Clone, Default)]
pub struct ThreadSnapshot {
    /// It is a member of the group, with an assignment that may be empty.
    pub member: bool,
    /// Its tasks.
    pub tasks: BTreeMap<TaskId, TaskState>,
    /// What it is waiting out, if anything: a broker that is away, a full disk.
    pub problem: Option<String>,
}

impl ThreadSnapshot {
    /// Returns whether the thread is a member, without a problem, with all tasks running.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.member
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
        member: bool,
        waits_until: Timestamp,
        now: Timestamp,
        tasks: BTreeMap<TaskId, TaskState>,
    ) {
        let mut snapshot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.member = member;
        snapshot.tasks = tasks;
        if waits_until <= now {
            snapshot.problem = None;
        }
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
