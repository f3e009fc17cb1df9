//! Requests to build a projection anew, from HTTP to the tasks of this process.
//!
//! A request is not durable: whoever asks waits until the task's progress shows it, and asks again
//! otherwise.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// By partition, the generation that is wanted. Shared by the tasks of a projection in a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProjectionControl(Arc<Mutex<BTreeMap<i32, u64>>>);

impl ProjectionControl {
    /// Asks the task of a partition for a generation.
    pub(crate) fn request(&self, partition: i32, generation: u64) {
        let mut wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.insert(partition, generation);
    }

    /// Returns the generation that the task of a partition is asked for.
    pub(super) fn wanted(&self, partition: i32) -> Option<u64> {
        let wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.get(&partition).copied()
    }

    /// Forgets a request for a generation that is being built, or was.
    pub(super) fn met(&self, partition: i32, generation: u64) {
        let mut wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.get(&partition).is_some_and(|it| *it <= generation) {
            wanted.remove(&partition);
        }
    }
}
