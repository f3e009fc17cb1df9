//! A task's committed state: one RocksDB, a column family per store, and the checkpoint.
//!
//! # Position
//! `runtime::task` opens it, fills a [`CommitBatch`] while it serialises the overlays, applies the
//! batch after the Kafka transaction has committed; `runtime::restore` fills it from changelogs;
//! queries read it through a [`ReadHandle`].
//! # Invariants
//! - Data of all stores, changelog offsets and input offsets change in **one** write, and reach disk
//!   together: the WAL is off, flushes are atomic over all column families (a flush of one family
//!   would make offsets durable ahead of data).
//! - Dropping the last handle without [`flush`](TaskDb::flush) is `kill -9`: an older committed state
//!   is left, and the changelog has the rest.
//! - In-memory stores have no checkpoint: they are restored from the start each time.
//! # Failure
//! [`StateError::Corrupted`] → set the directory aside and restore; [`StateError::Io`] → close, wait,
//! open again (RocksDB accepts no writes after a failed flush; what it had not flushed is replayed);
//! [`StateError::Locked`] → another process, or a query of this one that is about to end.

mod batch;
mod index;
mod read;
mod versions;

pub use batch::CommitBatch;
pub use read::{CommittedEntry, ReadHandle};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, WriteBatch, WriteOptions};

use super::layout::{OBSERVED_TIME_KEY, Observed};
use super::rocks::{self, RocksStore, state_error};
use super::{BytesStore, Layout, MemoryBudget, MemoryStore, StateError};
use crate::clock::Timestamp;
use crate::format::checkpoint::Checkpoint;
use crate::format::names::{
    OFFSETS_COLUMN_FAMILY, expiry_column_family, headers_column_family, is_column_family_of,
    segmented_column_family, segmented_headers_column_family, store_column_family,
    versioned_column_family,
};
use crate::format::value;
use crate::format::window_key::SEGMENT_LEN;
use crate::topology::{Persistence, StoreSpec};

/// Before the local key of every entry of a segment, and behind that of observed stream time.
const SEGMENTS_BEGIN: &[u8] = &[0, 0];

/// A store to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreDecl {
    /// The store's name.
    pub name: String,
    /// Where its committed data lives.
    pub persistence: Persistence,
    /// How its entries lie there.
    pub layout: Layout,
    /// Whether its values begin with headers.
    pub keeps_headers: bool,
}

impl StoreDecl {
    fn column_family(&self) -> String {
        match (self.layout, self.layout.segments()) {
            (Layout::Versioned(_), _) => versioned_column_family(&self.name),
            (_, None) if self.keeps_headers => headers_column_family(&self.name),
            (_, None) => store_column_family(&self.name),
            (_, Some(segments)) if self.keeps_headers => {
                segmented_headers_column_family(&self.name, segments.interval())
            }
            (_, Some(segments)) => segmented_column_family(&self.name, segments.interval()),
        }
    }

    /// The family of the index by time, where there is one on disk.
    fn index_family(&self) -> Option<String> {
        let on_disk = self.persistence == Persistence::RocksDb;
        let expires = self.layout.time_to_live().is_some();
        (on_disk && expires).then(|| expiry_column_family(&self.name))
    }
}

impl From<&StoreSpec> for StoreDecl {
    fn from(spec: &StoreSpec) -> Self {
        Self {
            name: spec.name.clone(),
            persistence: spec.persistence,
            layout: spec.layout,
            keeps_headers: spec.keeps_headers,
        }
    }
}

/// A store of a [`TaskDb`]: its position among those it was opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(usize);

#[derive(Debug)]
struct Slot {
    name: String,
    column_family: String,
    layout: Layout,
    /// Of windows and sessions: the latest time of any entry, expired ones too, and what else the
    /// store remembers.
    observed: Mutex<Observed>,
    /// `None`: the data is in the column family.
    memory: Option<MemoryStore>,
    /// Of entries that expire: where they are found by time.
    index: Option<Index>,
    /// Of versions: how far they were looked through.
    sweep: Mutex<versions::Sweep>,
}

/// Where the index by time of a store lies.
#[derive(Debug)]
enum Index {
    ColumnFamily(String),
    Memory(MemoryStore),
}

/// What the handles share.
pub(super) struct Inner {
    pub(super) db: DB,
    pub(super) path: PathBuf,
    stores: Vec<Slot>,
    checkpoint: Mutex<Checkpoint>,
    /// When the oldest batch that may not be on disk was applied.
    dirty_since: Mutex<Option<Timestamp>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskDb")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A task's committed state. Cheap to clone; the database closes with the last clone, backend and
/// batch.
#[derive(Debug, Clone)]
pub struct TaskDb {
    inner: Arc<Inner>,
}

impl TaskDb {
    /// Opens or creates the database in `dir` with a column family for each of `stores`. Families of
    /// stores that the topology no longer has stay as they are.
    ///
    /// # Errors
    /// [`StateError::Locked`], [`StateError::Corrupted`], [`StateError::Io`].
    pub fn open(
        dir: &Path,
        stores: &[StoreDecl],
        budget: &MemoryBudget,
    ) -> Result<Self, StateError> {
        std::fs::create_dir_all(dir).map_err(|source| StateError::Io {
            operation: "created",
            path: dir.to_path_buf(),
            source: Box::new(source),
        })?;
        let open_error = |error| state_error(error, "opened", dir);
        let options = rocks::db_options(budget).map_err(open_error)?;
        let mut families = existing_families(dir, &options)?;
        let existing = families.clone();
        if !families.iter().any(|name| name == OFFSETS_COLUMN_FAMILY) {
            families.push(OFFSETS_COLUMN_FAMILY.to_owned());
        }
        let mut descriptors = Vec::with_capacity(families.len());
        for name in families {
            let options = rocks::column_family_options(budget).map_err(open_error)?;
            descriptors.push(ColumnFamilyDescriptor::new(name, options));
        }
        let mut db = DB::open_cf_descriptors(&options, dir, descriptors).map_err(open_error)?;
        create_families(&mut db, dir, stores, &existing, budget)?;
        let checkpoint = read_checkpoint(&db, dir)?;
        let stores = stores
            .iter()
            .map(|store| open_slot(&db, dir, store))
            .collect::<Result<_, _>>()?;
        let inner = Inner {
            db,
            path: dir.to_path_buf(),
            stores,
            checkpoint: Mutex::new(checkpoint),
            dirty_since: Mutex::new(None),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Returns the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Returns the id of a store.
    #[must_use]
    pub fn store_id(&self, name: &str) -> Option<StoreId> {
        self.inner
            .stores
            .iter()
            .position(|slot| slot.name == name)
            .map(StoreId)
    }

    /// Returns a store's committed bytes, for its typed front.
    ///
    /// # Errors
    /// [`StateError::UnknownStore`].
    pub fn backend(&self, name: &str) -> Result<Box<dyn BytesStore>, StateError> {
        let slot = self.inner.slot(name)?;
        Ok(match &slot.memory {
            Some(memory) => Box::new(memory.clone()),
            None => Box::new(RocksStore {
                inner: Arc::clone(&self.inner),
                column_family: slot.column_family.clone(),
            }),
        })
    }

    /// Returns the index by time of a store whose entries expire.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<Box<dyn BytesStore>> {
        Some(match self.inner.slot(name).ok()?.index.as_ref()? {
            Index::Memory(memory) => Box::new(memory.clone()),
            Index::ColumnFamily(column_family) => Box::new(RocksStore {
                inner: Arc::clone(&self.inner),
                column_family: column_family.clone(),
            }),
        })
    }

    /// Takes the stream time that committed offsets tell: a restored store knows only then what has
    /// expired.
    pub(crate) fn observe_stream_time(&self, stream_time: Option<Timestamp>) {
        let mut checkpoint = self.inner.checkpoint();
        checkpoint.stream_time = checkpoint.stream_time.max(stream_time);
    }

    /// Returns how far the committed state reaches.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.inner.checkpoint().clone()
    }

    /// Returns whether a store holds anything.
    ///
    /// # Errors
    /// [`StateError::UnknownStore`], or what reading answers.
    pub fn has_data(&self, name: &str) -> Result<bool, StateError> {
        let slot = self.inner.slot(name)?;
        if let Some(memory) = &slot.memory {
            return Ok(!memory.is_empty());
        }
        let handle = rocks::handle(&self.inner.db, &self.inner.path, &slot.column_family)?;
        rocks::has_data(&self.inner.db, handle)
            .map_err(|error| state_error(error, "read", &self.inner.path))
    }

    /// Starts a batch.
    #[must_use]
    pub fn batch(&self) -> CommitBatch {
        CommitBatch {
            inner: Arc::clone(&self.inner),
            batch: WriteBatch::default(),
            memory: Vec::new(),
            memory_index: Vec::new(),
            change: Checkpoint::default(),
            scratch: Vec::new(),
            local_key: Vec::new(),
            index_key: Vec::new(),
            observed: self.inner.stores.iter().map(Slot::observed).collect(),
            entries: 0,
            memory_bytes: 0,
        }
    }

    /// Makes a batch the committed state: data and checkpoint in one write. `now` is when.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::Corrupted`]: nothing of the batch is applied.
    ///
    /// # Panics
    /// When the batch was started on another database: offsets would be written apart from their
    /// data.
    pub fn apply(&self, batch: CommitBatch, now: Timestamp) -> Result<(), StateError> {
        let mut batch = batch;
        batch.expire()?;
        let CommitBatch {
            inner,
            mut batch,
            memory,
            memory_index,
            change,
            observed,
            ..
        } = batch;
        assert!(
            Arc::ptr_eq(&inner, &self.inner),
            "a batch belongs to the database it is from"
        );
        let inner = &self.inner;
        let offsets = rocks::handle(&inner.db, &inner.path, OFFSETS_COLUMN_FAMILY)?;
        change.encode(|key, value| batch.put_cf(offsets, key, value));
        if !batch.is_empty() {
            let mut options = WriteOptions::default();
            options.disable_wal(true);
            inner
                .db
                .write_opt(batch, &options)
                .map_err(|error| state_error(error, "written", &inner.path))?;
            inner.dirty_since().get_or_insert(now);
        }
        for (slot, entries) in inner.stores.iter().zip(memory) {
            if let Some(store) = &slot.memory {
                store.apply(entries);
            }
        }
        for (slot, entries) in inner.stores.iter().zip(memory_index) {
            if let Some(Index::Memory(index)) = &slot.index {
                index.apply(entries);
            }
        }
        for (slot, observed) in inner.stores.iter().zip(observed) {
            slot.observe(observed);
        }
        inner.checkpoint().merge(change);
        Ok(())
    }

    /// Returns when the oldest batch that may not be on disk was applied.
    #[must_use]
    pub fn dirty_since(&self) -> Option<Timestamp> {
        *self.inner.dirty_since()
    }

    /// Brings everything applied so far to disk, all column families together. Blocks.
    ///
    /// # Errors
    /// [`StateError::Io`], [`StateError::Corrupted`]: the database takes no more writes then.
    pub fn flush(&self) -> Result<(), StateError> {
        self.flush_families(true)
    }

    /// As [`flush`](Self::flush), on RocksDB's own threads: the caller does not wait. A failure is
    /// reported by a later write.
    ///
    /// # Errors
    /// As [`flush`](Self::flush), for an earlier failure.
    pub fn start_flush(&self) -> Result<(), StateError> {
        self.flush_families(false)
    }

    /// Flushes and gives this handle back. The database closes with the last handle.
    ///
    /// # Errors
    /// As [`flush`](Self::flush); the unflushed tail is replayed at the next start then.
    pub fn close(self) -> Result<(), StateError> {
        if self.dirty_since().is_some() {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Returns a handle for queries. It does not keep the database open.
    #[must_use]
    pub fn read_handle(&self) -> ReadHandle {
        ReadHandle {
            inner: Arc::downgrade(&self.inner),
            path: self.inner.path.clone(),
        }
    }

    fn flush_families(&self, wait: bool) -> Result<(), StateError> {
        let inner = &self.inner;
        let before = inner.dirty_since().take();
        let flushed = inner.families().and_then(|handles| {
            let mut options = FlushOptions::default();
            options.set_wait(wait);
            let handles: Vec<_> = handles.iter().collect();
            inner
                .db
                .flush_cfs_opt(&handles, &options)
                .map_err(|error| state_error(error, "flushed", &inner.path))
        });
        if flushed.is_err()
            && let Some(before) = before
        {
            inner.dirty_since().get_or_insert(before);
        }
        flushed
    }
}

impl Slot {
    /// What the store has observed.
    fn observed(&self) -> Observed {
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what a batch that was applied has observed.
    fn observe(&self, observed: Observed) {
        let mut known = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        known.merge(observed);
        let first_live = self.first_live(known.time);
        if let (Some(memory), Some(first_live)) = (&self.memory, first_live) {
            memory.delete_range(SEGMENTS_BEGIN, &first_live);
        }
    }

    /// Whether committed bytes are an entry that has expired.
    fn hides(&self, bytes: &[u8], stream_time: Option<Timestamp>) -> bool {
        let ttl = self.layout.time_to_live();
        ttl.is_some_and(|ttl| {
            value::decode(bytes).is_some_and(|(time, _)| ttl.is_expired(time, stream_time))
        })
    }

    /// The first segment of the store that is not all expired.
    fn first_live(&self, observed: Option<Timestamp>) -> Option<[u8; SEGMENT_LEN]> {
        Some(self.layout.segments()?.first_live(observed?))
    }
}

impl Inner {
    fn slot(&self, name: &str) -> Result<&Slot, StateError> {
        let unknown = || StateError::UnknownStore {
            store: name.to_owned(),
        };
        self.stores
            .iter()
            .find(|slot| slot.name == name)
            .ok_or_else(unknown)
    }

    /// Handles of all families that are written.
    fn families(&self) -> Result<Vec<&ColumnFamily>, StateError> {
        let stores = self.stores.iter().filter(|slot| slot.memory.is_none());
        let names = stores.map(|slot| slot.column_family.as_str());
        let indexes = self.stores.iter().filter_map(|slot| match &slot.index {
            Some(Index::ColumnFamily(family)) => Some(family.as_str()),
            Some(Index::Memory(_)) | None => None,
        });
        std::iter::once(OFFSETS_COLUMN_FAMILY)
            .chain(names)
            .chain(indexes)
            .map(|name| rocks::handle(&self.db, &self.path, name))
            .collect()
    }

    fn checkpoint(&self) -> MutexGuard<'_, Checkpoint> {
        self.checkpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn dirty_since(&self) -> MutexGuard<'_, Option<Timestamp>> {
        self.dirty_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates the families that stores lack.
///
/// A store may have lain elsewhere before, in another layout: its entries are of no more use, and its
/// changelog position is forgotten, so that it is restored from the start.
fn create_families(
    db: &mut DB,
    dir: &Path,
    stores: &[StoreDecl],
    existing: &[String],
    budget: &MemoryBudget,
) -> Result<(), StateError> {
    let failed = |error| state_error(error, "opened", dir);
    for store in stores {
        let family = store.column_family();
        let index = expiry_column_family(&store.name);
        let indexed = existing.contains(&index);
        // An index of entries that do not expire any more, or are gone, would be wrong one day.
        let keeps_index = store.index_family().is_some() && existing.contains(&family);
        if indexed && !keeps_index {
            db.drop_cf(&index).map_err(failed)?;
        }
        if store.index_family().is_some() && !(indexed && keeps_index) {
            let options = rocks::column_family_options(budget).map_err(failed)?;
            db.create_cf(&index, &options).map_err(failed)?;
        }
        if existing.contains(&family) {
            continue;
        }
        let before: Vec<_> = existing
            .iter()
            .filter(|other| is_column_family_of(other, &store.name))
            .collect();
        if !before.is_empty() {
            // ORDER: forgotten on disk before the new family exists, which would be taken for what
            // the position speaks of.
            let offsets = rocks::handle(db, dir, OFFSETS_COLUMN_FAMILY)?;
            let mut options = WriteOptions::default();
            options.disable_wal(true);
            db.delete_cf_opt(offsets, Checkpoint::changelog_key(&store.name), &options)
                .and_then(|()| db.flush_cf(offsets))
                .map_err(failed)?;
            tracing::info!(store = store.name, "store has another layout, restoring it");
        }
        for other in before {
            db.drop_cf(other).map_err(failed)?;
        }
        let options = rocks::column_family_options(budget).map_err(failed)?;
        db.create_cf(&family, &options).map_err(failed)?;
    }
    Ok(())
}

fn open_slot(db: &DB, dir: &Path, store: &StoreDecl) -> Result<Slot, StateError> {
    let column_family = store.column_family();
    let memory = match store.persistence {
        Persistence::RocksDb => None,
        Persistence::InMemory => Some(MemoryStore::new()),
    };
    let observed = if store.layout.observes() && memory.is_none() {
        let handle = rocks::handle(db, dir, &column_family)?;
        db.get_cf(handle, OBSERVED_TIME_KEY)
            .map_err(|error| state_error(error, "read", dir))?
            .map(|bytes| Observed::decode(&bytes))
            .unwrap_or_default()
    } else {
        Observed::default()
    };
    let index = match (store.layout.time_to_live(), store.index_family()) {
        (Some(ttl), Some(index)) => {
            index::complete(db, dir, &column_family, &index, ttl)?;
            Some(Index::ColumnFamily(index))
        }
        (Some(_), None) => Some(Index::Memory(MemoryStore::new())),
        (None, _) => None,
    };
    Ok(Slot {
        name: store.name.clone(),
        column_family,
        layout: store.layout,
        observed: Mutex::new(observed),
        memory,
        index,
        sweep: Mutex::default(),
    })
}

/// Column families in an existing directory; empty for a new one.
fn existing_families(dir: &Path, options: &rocksdb::Options) -> Result<Vec<String>, StateError> {
    if dir.join("CURRENT").exists() {
        return DB::list_cf(options, dir).map_err(|error| state_error(error, "opened", dir));
    }
    // Without CURRENT, RocksDB would start afresh and delete what is there.
    let entries = std::fs::read_dir(dir).map_err(|source| StateError::Io {
        operation: "read",
        path: dir.to_path_buf(),
        source: Box::new(source),
    })?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".sst") || name.starts_with("MANIFEST-") {
            return Err(StateError::Corrupted {
                path: dir.to_path_buf(),
                source: format!("there is `{name}`, but no file `CURRENT`").into(),
            });
        }
    }
    Ok(Vec::new())
}

fn read_checkpoint(db: &DB, dir: &Path) -> Result<Checkpoint, StateError> {
    let mut checkpoint = Checkpoint::default();
    let handle = rocks::handle(db, dir, OFFSETS_COLUMN_FAMILY)?;
    for entry in rocks::range(db, handle, &[], None, false) {
        let (key, value) = entry.map_err(|error| state_error(error, "read", dir))?;
        checkpoint
            .decode_entry(&key, &value)
            .map_err(|error| StateError::Corrupted {
                path: dir.to_path_buf(),
                source: Box::new(error),
            })?;
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests;
