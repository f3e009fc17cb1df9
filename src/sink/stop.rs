//! Telling a sink's thread to end, whatever it waits for.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::log::ConsumerWaker;

/// Tells a sink's thread to end.
#[derive(Debug, Default)]
pub(super) struct Stop {
    stopping: Mutex<bool>,
    changed: Condvar,
    waker: Mutex<Option<ConsumerWaker>>,
}

impl Stop {
    pub(super) fn set(&self) {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = &*waker {
            waker.wake();
        }
    }

    pub(super) fn is_set(&self) -> bool {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait(&self, timeout: Duration) {
        let stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.changed
                .wait_timeout_while(stopping, timeout, |stopping| !*stopping),
        );
    }

    pub(super) fn wake_with(&self, waker: Option<ConsumerWaker>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = waker;
    }
}
