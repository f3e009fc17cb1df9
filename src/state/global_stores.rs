//! Global stores as tasks read them: the committed state of another thread's database.
//!
//! # Position
//! One per process, shared by the global state (`runtime::global`), which opens it, and the stream
//! threads, whose tasks join with it.
//! # Invariants
//! - It opens once, when every store has reached the end that its topic had when the process started.
//!   Until then no task is opened.
//! - A read sees whole batches of the topic, each key's latest value; two reads of one record may see
//!   two states.

use std::sync::{Arc, OnceLock};

use super::{ReadHandle, StateError};

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct GlobalStores {
    /// `None`: the topology has no global stores.
    handle: Option<Arc<OnceLock<ReadHandle>>>,
}

impl GlobalStores {
    /// Creates the handle of a topology with global stores; without any, the default does.
    #[must_use]
    pub fn closed() -> Self {
        Self {
            handle: Some(Arc::default()),
        }
    }

    /// Returns whether tasks may begin.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.handle
            .as_ref()
            .is_none_or(|handle| handle.get().is_some())
    }

    /// Lets tasks read what is restored.
    pub(crate) fn open(&self, stores: ReadHandle) {
        if let Some(handle) = &self.handle {
            let opened = handle.set(stores).is_ok();
            assert!(opened, "global stores are opened once");
        }
    }

    /// Returns the committed bytes under `key`: timestamp and value.
    ///
    /// # Errors
    /// [`StateError::UnknownStore`] before the stores are open; [`StateError::Closed`] once the global
    /// state has ended; what reading answers.
    pub fn get(&self, store: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let handle = self.handle.as_ref().and_then(|handle| handle.get());
        let unknown = || StateError::UnknownStore {
            store: store.to_owned(),
        };
        handle.ok_or_else(unknown)?.get(store, key)
    }
}
