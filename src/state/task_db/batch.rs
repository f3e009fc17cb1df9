//! What one commit changes.

use std::fmt;
use std::sync::Arc;

use rocksdb::WriteBatch;

use super::{Index, Inner, SEGMENTS_BEGIN, StoreId};
use crate::clock::Timestamp;
use crate::format::checkpoint::{ChangelogPosition, Checkpoint, InputPosition};
use crate::format::value;
use crate::log::TopicPartition;
use crate::state::layout::{OBSERVED_TIME_KEY, Observed};
use crate::state::{Layout, StateError, rocks};

type MemoryEntries = Vec<(Box<[u8]>, Option<Box<[u8]>>)>;

/// Everything that one commit, or one step of a restore, changes in a task's state.
pub struct CommitBatch {
    pub(super) inner: Arc<Inner>,
    pub(super) batch: WriteBatch,
    /// By store; empty until an in-memory store is written.
    pub(super) memory: Vec<MemoryEntries>,
    /// By store, as [`memory`](Self::memory): the index by time.
    pub(super) memory_index: Vec<MemoryEntries>,
    pub(super) change: Checkpoint,
    pub(super) scratch: Vec<u8>,
    pub(super) local_key: Vec<u8>,
    pub(super) index_key: Vec<u8>,
    /// By store: what it has observed, with what this batch adds.
    pub(super) observed: Vec<Observed>,
    pub(super) entries: usize,
    pub(super) memory_bytes: usize,
}

impl fmt::Debug for CommitBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitBatch")
            .field("entries", &self.entries)
            .field("change", &self.change)
            .finish_non_exhaustive()
    }
}

impl CommitBatch {
    /// Writes a plain value with its timestamp under `key`; `None` deletes.
    ///
    /// # Errors
    /// [`StateError::UnknownStore`] when the id is another database's.
    pub fn entry(
        &mut self,
        store: StoreId,
        key: &[u8],
        plain: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        let Some(slot) = self.inner.stores.get(store.0) else {
            return Err(StateError::UnknownStore {
                store: format!("number {}", store.0),
            });
        };
        self.entries += 1;
        if let Layout::Versioned(history) = slot.layout {
            return self.version(store, key, plain, timestamp, history);
        }
        self.local_key.clear();
        let time = slot
            .layout
            .put_local(key, &mut self.local_key)
            .map_err(|error| StateError::Decode {
                store: slot.name.clone(),
                source: error.into(),
            })?;
        if let Some((time, segments)) = time
            && let Some(observed) = self.observed.get_mut(store.0)
        {
            // Another batch may have been applied since this one was started.
            observed.merge(slot.observed());
            observed.merge(Observed {
                time: Some(time),
                sequence: slot.layout.sequence_of(key),
            });
            if segments.is_expired(time, observed.time) {
                return Ok(());
            }
        }
        self.scratch.clear();
        if let Some(plain) = plain {
            value::encode(timestamp, plain, &mut self.scratch);
        }
        let local_key = std::mem::take(&mut self.local_key);
        let value = std::mem::take(&mut self.scratch);
        let mut written = self.put(store, &local_key, plain.map(|_| value.as_slice()));
        let ttl = self.inner.stores.get(store.0);
        let ttl = ttl.and_then(|slot| slot.layout.time_to_live().copied());
        if let (Some(ttl), true, true) = (ttl, plain.is_some(), written.is_ok()) {
            let mut index_key = std::mem::take(&mut self.index_key);
            index_key.clear();
            ttl.put_index(key, timestamp, &mut index_key);
            written = self.put_index(store, &index_key, true);
            self.index_key = index_key;
        }
        (self.local_key, self.scratch) = (local_key, value);
        written
    }

    /// Removes an entry of the index by time.
    ///
    /// # Errors
    /// [`StateError::Corrupted`] when the store has lost its index.
    pub fn remove_from_index(
        &mut self,
        store: StoreId,
        index_key: &[u8],
    ) -> Result<(), StateError> {
        self.put_index(store, index_key, false)
    }

    fn put_index(&mut self, store: StoreId, key: &[u8], present: bool) -> Result<(), StateError> {
        let slot = self.inner.stores.get(store.0);
        match slot.and_then(|slot| slot.index.as_ref()) {
            None => {}
            Some(Index::Memory(_)) => {
                self.memory_bytes += key.len();
                self.memory_index
                    .resize_with(self.inner.stores.len(), Vec::new);
                if let Some(entries) = self.memory_index.get_mut(store.0) {
                    entries.push((key.into(), present.then(Box::default)));
                }
            }
            Some(Index::ColumnFamily(family)) => {
                let handle = rocks::handle(&self.inner.db, &self.inner.path, family)?;
                if present {
                    self.batch.put_cf(handle, key, []);
                } else {
                    self.batch.delete_cf(handle, key);
                }
            }
        }
        Ok(())
    }

    /// Writes a local entry.
    pub(super) fn put(
        &mut self,
        store: StoreId,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), StateError> {
        let Some(slot) = self.inner.stores.get(store.0) else {
            return Ok(());
        };
        if slot.memory.is_some() {
            self.memory_bytes += key.len() + value.map_or(0, <[u8]>::len);
            self.memory.resize_with(self.inner.stores.len(), Vec::new);
            if let Some(entries) = self.memory.get_mut(store.0) {
                entries.push((key.into(), value.map(Into::into)));
            }
            return Ok(());
        }
        let handle = rocks::handle(&self.inner.db, &self.inner.path, &slot.column_family)?;
        match value {
            Some(value) => self.batch.put_cf(handle, key, value),
            None => self.batch.delete_cf(handle, key),
        }
        Ok(())
    }

    /// Forgets the sequence numbers that stores with duplicates have given out: a mistake that the
    /// simulation plants.
    pub(crate) fn forget_sequences(&mut self) -> Result<(), StateError> {
        let inner = Arc::clone(&self.inner);
        for (index, slot) in inner.stores.iter().enumerate() {
            let forgetful = Observed {
                sequence: None,
                ..slot.observed()
            };
            if let (Layout::Duplicates(_), Some(bytes)) = (slot.layout, forgetful.encode()) {
                self.put(StoreId(index), OBSERVED_TIME_KEY, Some(&bytes))?;
            }
        }
        Ok(())
    }

    /// Adds what follows from the entries: what was observed, and the deletes of segments that it
    /// has left behind.
    pub(super) fn expire(&mut self) -> Result<(), StateError> {
        let inner = Arc::clone(&self.inner);
        for (index, slot) in inner.stores.iter().enumerate() {
            let before = slot.observed();
            let mut now = before;
            now.merge(self.observed.get(index).copied().unwrap_or_default());
            let Some(observed) = now.encode().filter(|_| now != before) else {
                continue;
            };
            self.put(StoreId(index), OBSERVED_TIME_KEY, Some(&observed))?;
            let first_live = slot.first_live(now.time);
            let first_before = slot.first_live(before.time);
            if let Some(first_live) = first_live
                && first_before != Some(first_live)
                && slot.memory.is_none()
            {
                let handle = rocks::handle(&inner.db, &inner.path, &slot.column_family)?;
                let from = first_before
                    .as_ref()
                    .map_or(SEGMENTS_BEGIN, |from| &from[..]);
                self.batch.delete_range_cf(handle, from, &first_live);
            }
        }
        Ok(())
    }

    /// Sets how far a store has its changelog. Ignored for a store in memory.
    pub fn set_changelog(&mut self, store: StoreId, position: ChangelogPosition) {
        if let Some(slot) = self.inner.stores.get(store.0)
            && slot.memory.is_none()
        {
            self.change.changelogs.insert(slot.name.clone(), position);
        }
    }

    /// Sets how far an input partition was read.
    pub fn set_input(&mut self, partition: TopicPartition, position: InputPosition) {
        self.change.inputs.insert(partition, position);
    }

    /// Sets the reset generation.
    pub const fn set_generation(&mut self, generation: u64) {
        self.change.generation = Some(generation);
    }

    /// Sets the task's stream time.
    pub const fn set_stream_time(&mut self, stream_time: Timestamp) {
        self.change.stream_time = Some(stream_time);
    }

    /// Returns the number of entries.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.entries
    }

    /// Returns what the batch holds in memory, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.batch.size_in_bytes() + self.memory_bytes
    }
}
