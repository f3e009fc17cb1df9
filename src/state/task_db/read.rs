//! Committed state for queries.

use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::Weak;

use super::versions::{latest_entries, version_at};
use super::{Inner, SEGMENTS_BEGIN, Slot, TaskDb};
use crate::clock::Timestamp;
use crate::format::checkpoint::Checkpoint;
use crate::state::{Layout, StateError};

/// Committed bytes under a key: `int64 BE timestamp ‖ value`.
pub type CommittedEntry = (Box<[u8]>, Box<[u8]>);

/// Reads a task's committed state from any thread. Does not keep the database open: after the task
/// has moved, every call answers [`StateError::Closed`].
#[derive(Debug, Clone)]
pub struct ReadHandle {
    pub(super) inner: Weak<Inner>,
    pub(super) path: PathBuf,
}

impl ReadHandle {
    /// Returns the committed bytes under `key`: timestamp and value
    /// ([`format::value`](crate::format::value)).
    ///
    /// # Errors
    /// [`StateError::Closed`], [`StateError::UnknownStore`], or what reading answers.
    pub fn get(&self, store: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let db = self.open()?;
        let slot = db.inner.slot(store)?;
        if let Layout::Versioned(history) = slot.layout {
            return version_at(&db, slot, key, None, history);
        }
        let mut local_key = Vec::new();
        match slot.layout.put_local(key, &mut local_key) {
            // What is no key of this store is not in it.
            Err(_) => return Ok(None),
            Ok(Some((time, segments))) if segments.is_expired(time, slot.observed().time) => {
                return Ok(None);
            }
            Ok(_) => {}
        }
        let found = db.backend(store)?.get(&local_key)?;
        let stream_time = db.inner.checkpoint().stream_time;
        Ok(found.filter(|bytes| !slot.hides(bytes, stream_time)))
    }

    /// Returns the bytes that were valid under `key` at a time, by a versioned store; those of now by
    /// any other.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_as_of(
        &self,
        store: &str,
        key: &[u8],
        timestamp: Timestamp,
    ) -> Result<Option<Vec<u8>>, StateError> {
        let db = self.open()?;
        let slot = db.inner.slot(store)?;
        match slot.layout {
            Layout::Versioned(history) => version_at(&db, slot, key, Some(timestamp), history),
            _ => self.get(store, key),
        }
    }

    /// Returns up to `limit` entries from `from` (inclusive) to `to` (exclusive; `None`: to the end),
    /// in key order or backwards from the end of the range, all of one committed state. Windows and
    /// sessions are in order of their segments, within one of their keys; to be between two keys they
    /// are read all.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn range(
        &self,
        store: &str,
        from: &[u8],
        to: Option<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<CommittedEntry>, StateError> {
        let db = self.open()?;
        let slot = db.inner.slot(store)?;
        if slot.layout.segments().is_some() {
            return live_entries(&db, slot, (from, to), reverse, limit);
        }
        if matches!(slot.layout, Layout::Versioned(_)) {
            return latest_entries(&db, slot, (from, to), reverse, limit);
        }
        let stream_time = db.inner.checkpoint().stream_time;
        let hidden = |(_, bytes): &CommittedEntry| slot.hides(bytes, stream_time);
        if let Some(memory) = &slot.memory {
            let upper = to.map_or(Bound::Unbounded, Bound::Excluded);
            let expires = slot.layout.time_to_live().is_some();
            let read = if expires { usize::MAX } else { limit };
            let mut entries = memory.entries(Bound::Included(from), upper, reverse, read);
            entries.retain(|entry| !hidden(entry));
            entries.truncate(limit);
            return Ok(entries);
        }
        // A RocksDB iterator reads from one implicit snapshot.
        let backend = db.backend(store)?;
        let entries = backend.range(from, to, reverse);
        let live = entries.filter(|entry| !matches!(entry, Ok(entry) if hidden(entry)));
        live.take(limit).collect()
    }

    /// Calls `visit` with the entries from `from` (inclusive) to `to` (exclusive; `None`: to the end),
    /// in the order of [`range`](Self::range), until it breaks; returns what it broke with. Entries of
    /// a key-value store in RocksDB are read one by one, all of one committed state.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn scan<B>(
        &self,
        store: &str,
        (from, to): (&[u8], Option<&[u8]>),
        reverse: bool,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<Option<B>, StateError> {
        let db = self.open()?;
        let slot = db.inner.slot(store)?;
        let plain = slot.layout.segments().is_none()
            && !matches!(slot.layout, Layout::Versioned(_))
            && slot.memory.is_none();
        if !plain {
            for (key, value) in self.range(store, from, to, reverse, usize::MAX)? {
                if let ControlFlow::Break(broke) = visit(&key, &value) {
                    return Ok(Some(broke));
                }
            }
            return Ok(None);
        }
        let stream_time = db.inner.checkpoint().stream_time;
        for entry in db.backend(store)?.range(from, to, reverse) {
            let (key, value) = entry?;
            if slot.hides(&value, stream_time) {
                continue;
            }
            if let ControlFlow::Break(broke) = visit(&key, &value) {
                return Ok(Some(broke));
            }
        }
        Ok(None)
    }

    /// Returns the number of keys of a store, roughly.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn approximate_count(&self, store: &str) -> Result<u64, StateError> {
        self.open()?.backend(store)?.approximate_count()
    }

    /// Returns how far the committed state reaches.
    ///
    /// # Errors
    /// [`StateError::Closed`].
    pub fn checkpoint(&self) -> Result<Checkpoint, StateError> {
        Ok(self.open()?.checkpoint())
    }

    fn open(&self) -> Result<TaskDb, StateError> {
        let inner = self.inner.upgrade();
        let closed = || StateError::Closed {
            path: self.path.clone(),
        };
        Ok(TaskDb {
            inner: inner.ok_or_else(closed)?,
        })
    }
}

/// The entries of a window or session store that have not expired, under their store keys.
fn live_entries(
    db: &TaskDb,
    slot: &Slot,
    (from, to): (&[u8], Option<&[u8]>),
    reverse: bool,
    limit: usize,
) -> Result<Vec<CommittedEntry>, StateError> {
    let observed = slot.observed().time;
    let backend = db.backend(&slot.name)?;
    let mut found = Vec::new();
    for entry in backend.range(SEGMENTS_BEGIN, None, reverse) {
        let (local_key, value) = entry?;
        let Some(key) = slot.layout.store_key(&local_key) else {
            continue;
        };
        let time = slot.layout.time_of(key).ok().flatten();
        let live = time.is_some_and(|(time, segments)| !segments.is_expired(time, observed));
        if live && key >= from && to.is_none_or(|to| key < to) {
            found.push((key.into(), value));
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}
