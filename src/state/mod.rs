//! State: typed stores with a write-back overlay above committed bytes.
//!
//! # Position
//! Operators see typed stores ([`KeyValueStore`], [`WindowStore`], [`SessionStore`]); `runtime::task` sees [`StateStore`] and drives
//! savepoints and commits; committed bytes live behind [`BytesStore`] in the task's RocksDB or in
//! memory.
//! # Invariants
//! - [`BytesStore`]s hold committed state only (invariant 2): the overlay reaches them in one batch
//!   per task, after the Kafka transaction has committed.
//! - A store belongs to one task on one thread: nothing is locked.

mod error;
mod expiry;
mod global_stores;
mod key_value;
mod layout;
mod memory;
mod memory_budget;
mod overlay;
mod range;
mod read_only;
mod rocks;
mod segmented;
mod session_store;
mod state_dir;
mod store_ref;
mod task_db;
mod versioned;
mod window_store;

pub use error::StateError;
pub use expiry::{SharedStreamTime, TimeToLive};
pub use global_stores::GlobalStores;
pub use key_value::KeyValueStore;
pub use layout::{Layout, Segments};
pub use memory::MemoryStore;
pub use memory_budget::{MemoryBudget, MemoryShares, ThreadShares};
pub use range::{Entries, RefEntries};
pub use read_only::ReadOnlyStore;
pub use session_store::{SessionEntries, SessionStore};
pub use state_dir::{SET_ASIDE_KEPT, StateDir, set_aside};
pub use store_ref::StoreRef;
pub use task_db::{CommitBatch, CommittedEntry, ReadHandle, StoreDecl, StoreId, TaskDb};
pub use versioned::{VersionedPut, VersionedRecord, VersionedStore};
pub use window_store::{WindowEntries, WindowEntry, WindowStore};

use std::fmt::Debug;

use crate::clock::Timestamp;

/// Receives the overlay's dirty entries at commit, serialised once, in key order.
pub trait DirtySink {
    /// Takes one entry; `value` is plain (without timestamp), `None` is a delete.
    ///
    /// # Errors
    /// Stops the commit.
    fn entry(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError>;

    /// Removes an entry of the index of a store whose entries expire. Changelogs have no index.
    ///
    /// # Errors
    /// Stops the commit.
    fn remove_from_index(&mut self, _index_key: &[u8]) -> Result<(), StateError> {
        Ok(())
    }
}

/// A store as its task sees it. The task calls, in turn: operators write; then per record either
/// `release_savepoint` or `rollback_savepoint`; at commit `drain_dirty`, and after the outcome
/// `mark_committed` or `discard_uncommitted`.
pub trait StateStore {
    /// Returns the store's name.
    fn name(&self) -> &str;
    /// The record's chain succeeded: its writes join the transaction.
    fn release_savepoint(&mut self);
    /// The record's chain failed: its writes are undone.
    fn rollback_savepoint(&mut self);
    /// Hands over every entry written since the last commit. Entries stay dirty until the outcome
    /// is known.
    ///
    /// # Errors
    /// [`StateError`] of serialisation or of the sink.
    fn drain_dirty(&mut self, sink: &mut dyn DirtySink) -> Result<(), StateError>;
    /// The transaction has committed and the batch is applied: entries are clean; cold ones may be
    /// evicted.
    fn mark_committed(&mut self);
    /// The transaction was aborted: every uncommitted entry is dropped.
    fn discard_uncommitted(&mut self);
    /// Returns the bytes that uncommitted entries hold, roughly.
    fn uncommitted_bytes(&self) -> usize;
    /// Returns what the store holds in memory above its backend, clean entries included, roughly.
    fn held_bytes(&self) -> usize {
        self.uncommitted_bytes()
    }
    /// Returns whether anything waits for a commit.
    fn is_dirty(&self) -> bool;
    /// Tells how many bytes of committed entries the store may keep in memory from now on: a thread
    /// shares its budget out anew when tasks come and go.
    fn share_cache(&mut self, _bytes: usize) {}
}

/// Committed bytes of one store, ordered by key. Values are `int64 BE timestamp ‖ value`.
pub trait BytesStore: Debug {
    /// Returns the committed bytes under `key`.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;

    /// Iterates from `from` (inclusive) to `to` (exclusive; `None`: to the end), in key order, or
    /// backwards from the end of that range.
    fn range<'a>(&'a self, from: &[u8], to: Option<&[u8]>, reverse: bool) -> BytesIterator<'a>;

    /// Returns the number of keys, roughly; cheap.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    fn approximate_count(&self) -> Result<u64, StateError>;
}

/// Committed entries in order.
pub type BytesIterator<'a> =
    Box<dyn Iterator<Item = Result<(Box<[u8]>, Box<[u8]>), StateError>> + 'a>;
