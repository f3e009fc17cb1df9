//! Queries: committed state by store name and key, from any thread.
//!
//! # Position
//! Stream threads register the read handles of their running tasks; `http` and users of the library
//! ask. A task that restores or moves away is not registered.
//! # Invariants
//! - Answers come from committed state (invariant 4), never from a thread's overlay.

mod page;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

pub use page::{Page, PageLimits, Position};

use crate::clock::Timestamp;
use crate::format::value;
use crate::processor::BoxError;
use crate::runtime::ResolvedTopology;
use crate::serde::TextCodec;
use crate::state::{CommittedEntry, Layout, ReadHandle, StateError};
use crate::topology::{StoreSpec, TaskId};

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The topology has no such store.
    #[error("there is no store `{0}`")]
    UnknownStore(String),
    /// The key's text does not parse.
    #[error("`{text}` is not a key of store `{store}`")]
    BadKey {
        /// The store.
        store: String,
        /// The text.
        text: String,
        /// What was wrong.
        #[source]
        source: BoxError,
    },
    /// The key's task does not run here: it is restoring, or another process owns it.
    #[error("partition {partition} of store `{store}` is not served here")]
    NotHere {
        /// The store.
        store: String,
        /// The partition.
        partition: i32,
        /// The sub-topology it belongs to.
        sub_topology: u32,
    },
    /// The store does not know the past of its keys.
    #[error("store `{0}` is not versioned: it knows the latest values only")]
    NotVersioned(String),
    /// The first generation of a projection is still being built.
    #[error("`{store}` is being built for the first time")]
    NotBuilt {
        /// What is asked for.
        store: String,
    },
    /// The task has moved or stopped while it was asked.
    #[error("store `{store}` has just moved: ask again")]
    Moved {
        /// The store.
        store: String,
    },
    /// The store could not be read.
    #[error("store `{store}` cannot be read")]
    Failed {
        /// The store.
        store: String,
        /// What was wrong.
        #[source]
        source: BoxError,
    },
}

impl QueryError {
    /// Says that reading a store has failed, or that its task has left meanwhile.
    pub(crate) fn of_state(store: &str, error: StateError) -> Self {
        let store = store.to_owned();
        match error {
            StateError::Closed { .. } => Self::Moved { store },
            error => Self::Failed {
                store,
                source: error.into(),
            },
        }
    }
}

/// Entries whose store is another from task to task, and from time to time: those of a projection, which
/// is built anew beside the one that serves.
pub trait ServingStore: Send + Sync {
    /// Returns a store of the same keys and values, for how they are read.
    fn any(&self) -> &str;

    /// Returns the store that serves in a task, and the generation that it does as.
    ///
    /// # Errors
    /// [`QueryError`].
    fn serving(&self, handle: &ReadHandle) -> Result<(&str, u64), QueryError>;

    /// Turns a key's text into its bytes, of whichever generation. `codec` is the store's.
    ///
    /// # Errors
    /// When the text is no key.
    fn parse_key(&self, codec: &dyn TextCodec, text: &str) -> Result<Vec<u8>, BoxError> {
        codec.parse_text(text)
    }

    /// Puts a generation into a key's bytes, where they carry one.
    fn move_key(&self, _key: &mut [u8], _generation: u64) {}

    /// Returns where the keys of a generation begin, and before which key they end, where one store holds
    /// several.
    fn keys_of(&self, _generation: u64) -> (Vec<u8>, Option<Vec<u8>>) {
        (Vec::new(), None)
    }
}

/// A store that is the same everywhere.
struct Fixed<'a>(&'a str);

impl ServingStore for Fixed<'_> {
    fn any(&self) -> &str {
        self.0
    }

    fn serving(&self, _: &ReadHandle) -> Result<(&str, u64), QueryError> {
        Ok((self.0, 0))
    }
}

/// A value with its timestamp, as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The value.
    pub value: serde_json::Value,
    /// The timestamp of the record that wrote it.
    pub timestamp: i64,
}

#[derive(Debug)]
struct StoreEntry {
    spec: StoreSpec,
    sub_topology: u32,
    /// The number of tasks, over all processes.
    partitions: i32,
    tasks: BTreeMap<TaskId, ReadHandle>,
}

impl StoreEntry {
    fn handle_of(&self, store: &str, key: &[u8]) -> Result<&ReadHandle, QueryError> {
        let partition = crate::format::partitioner::partition_for_key(
            self.spec.key_codec.partition_key(key),
            self.partitions,
        );
        let task = TaskId {
            sub_topology: self.sub_topology,
            partition,
        };
        self.tasks.get(&task).ok_or_else(|| QueryError::NotHere {
            store: store.to_owned(),
            partition,
            sub_topology: self.sub_topology,
        })
    }
}

/// The readers of a store's tasks in this process.
#[derive(Debug, Clone)]
pub struct StoreHandles {
    /// The number of tasks, over all processes.
    pub partitions: i32,
    /// By partition, those served here.
    pub served: BTreeMap<i32, ReadHandle>,
}

impl StoreHandles {
    /// Returns the partitions that are not served here.
    #[must_use]
    pub fn missing(&self) -> Vec<i32> {
        let all = 0..self.partitions;
        all.filter(|partition| !self.served.contains_key(partition))
            .collect()
    }
}

type Handles = (BTreeMap<TaskId, ReadHandle>, Arc<dyn TextCodec>, i32);

/// The stores of this process's running tasks.
#[derive(Debug, Default)]
pub struct QueryRegistry {
    stores: RwLock<BTreeMap<String, StoreEntry>>,
}

impl QueryRegistry {
    /// Creates a registry that knows every store of a topology: name, sub-topology, partitions.
    #[must_use]
    pub fn new(stores: impl IntoIterator<Item = (StoreSpec, u32, i32)>) -> Arc<Self> {
        let stores = stores
            .into_iter()
            .map(|(spec, sub_topology, partitions)| {
                let name = spec.name.clone();
                (
                    name,
                    StoreEntry {
                        spec,
                        sub_topology,
                        partitions,
                        tasks: BTreeMap::new(),
                    },
                )
            })
            .collect();
        Arc::new(Self {
            stores: RwLock::new(stores),
        })
    }

    /// Creates a registry that knows every store of a resolved topology.
    #[must_use]
    pub fn of(topology: &ResolvedTopology) -> Arc<Self> {
        let parts = topology.all().chain(topology.globals());
        Self::new(parts.flat_map(|sub| {
            let stores = sub.drawn.stores.iter().cloned();
            stores.map(move |store| (store, sub.topics.id, sub.topics.tasks))
        }))
    }

    pub(crate) fn register(&self, task: TaskId, handle: &ReadHandle) {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        for entry in stores
            .values_mut()
            .filter(|entry| entry.sub_topology == task.sub_topology)
        {
            entry.tasks.insert(task, handle.clone());
        }
    }

    pub(crate) fn remove(&self, task: TaskId) {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        for entry in stores.values_mut() {
            entry.tasks.remove(&task);
        }
    }

    /// Returns whether a task runs here, as far as stores can tell: one without any is never served.
    #[must_use]
    pub fn serves(&self, task: TaskId) -> bool {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores.values().any(|entry| entry.tasks.contains_key(&task))
    }

    /// Returns every store with its sub-topology, the tasks served here, and roughly how many keys
    /// they hold.
    #[must_use]
    pub fn stores(&self) -> Vec<StoreSummary> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores
            .values()
            .map(|entry| StoreSummary {
                name: entry.spec.name.clone(),
                sub_topology: entry.sub_topology,
                partitions: entry.partitions,
                tasks: entry.tasks.keys().map(ToString::to_string).collect(),
                approximate_count: entry
                    .tasks
                    .values()
                    .filter_map(|handle| handle.approximate_count(&entry.spec.name).ok())
                    .sum(),
            })
            .collect()
    }

    /// Returns the committed stream time of each task here that has a store and has seen a record.
    #[must_use]
    pub fn stream_times(&self) -> BTreeMap<TaskId, Timestamp> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let handles = stores.values().flat_map(|entry| &entry.tasks);
        let times = handles.filter_map(|(task, handle)| {
            // A task that is about to leave has no time to tell.
            let time = handle.checkpoint().ok()?.stream_time?;
            Some((*task, time))
        });
        times.collect()
    }

    /// Returns a store's tasks here, how its values are read, and the number of its partitions.
    fn handles(&self, store: &str) -> Result<Handles, QueryError> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let entry = stores
            .get(store)
            .ok_or_else(|| QueryError::UnknownStore(store.to_owned()))?;
        let codec = Arc::clone(&entry.spec.value_codec);
        Ok((entry.tasks.clone(), codec, entry.partitions))
    }

    /// Returns all committed entries of a store's tasks here: key, and value with its timestamp as
    /// stored. For tests and tools: a large store has many.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn dump(&self, store: &str) -> Result<Vec<CommittedEntry>, QueryError> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let entry = stores
            .get(store)
            .ok_or_else(|| QueryError::UnknownStore(store.to_owned()))?;
        let failed = |error| QueryError::of_state(store, error);
        let mut entries = Vec::new();
        for handle in entry.tasks.values() {
            let all = handle
                .range(store, &[], None, false, usize::MAX)
                .map_err(failed)?;
            entries.extend(all);
        }
        Ok(entries)
    }

    /// Looks up the committed value of a key given as text; `None` when there is none.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn get(&self, store: &str, key: &str) -> Result<Option<Found>, QueryError> {
        self.look_up(&Fixed(store), key, ReadHandle::get)
    }

    /// As [`get`](Self::get), of the store that serves.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn get_serving(
        &self,
        of: &dyn ServingStore,
        key: &str,
    ) -> Result<Option<Found>, QueryError> {
        self.look_up(of, key, ReadHandle::get)
    }

    /// As [`get`](Self::get), of the value that a versioned store had at `as_of`, by event time. A time
    /// before the history that is kept has an answer only where the latest value is older still.
    ///
    /// # Errors
    /// [`QueryError`]; [`QueryError::NotVersioned`] for a store without a past.
    pub fn get_as_of(
        &self,
        store: &str,
        key: &str,
        as_of: Timestamp,
    ) -> Result<Option<Found>, QueryError> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let spec = stores.get(store).map(|entry| &entry.spec);
        if spec.is_some_and(|spec| !matches!(spec.layout, Layout::Versioned(_))) {
            return Err(QueryError::NotVersioned(store.to_owned()));
        }
        drop(stores);
        self.look_up(&Fixed(store), key, |handle, store, key| {
            handle.get_as_of(store, key, as_of)
        })
    }

    /// Returns the reader of the task that holds `key`, the bytes of one of the store's keys.
    ///
    /// # Errors
    /// [`QueryError::UnknownStore`], [`QueryError::NotHere`].
    pub fn handle_of(&self, store: &str, key: &[u8]) -> Result<ReadHandle, QueryError> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let entry = stores
            .get(store)
            .ok_or_else(|| QueryError::UnknownStore(store.to_owned()))?;
        entry.handle_of(store, key).cloned()
    }

    /// Returns the readers of all tasks of a store that are served here.
    ///
    /// # Errors
    /// [`QueryError::UnknownStore`].
    pub fn store_handles(&self, store: &str) -> Result<StoreHandles, QueryError> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let entry = stores
            .get(store)
            .ok_or_else(|| QueryError::UnknownStore(store.to_owned()))?;
        Ok(StoreHandles {
            partitions: entry.partitions,
            served: entry
                .tasks
                .iter()
                .map(|(task, handle)| (task.partition, handle.clone()))
                .collect(),
        })
    }

    fn look_up(
        &self,
        of: &dyn ServingStore,
        key: &str,
        read: impl Fn(&ReadHandle, &str, &[u8]) -> Result<Option<Vec<u8>>, StateError>,
    ) -> Result<Option<Found>, QueryError> {
        let store = of.any();
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        let entry = stores
            .get(store)
            .ok_or_else(|| QueryError::UnknownStore(store.to_owned()))?;
        let key_bytes = of.parse_key(&*entry.spec.key_codec, key);
        let mut key_bytes = key_bytes.map_err(|source| QueryError::BadKey {
            store: store.to_owned(),
            text: key.to_owned(),
            source,
        })?;
        let handle = entry.handle_of(store, &key_bytes)?;
        let failed = |source: BoxError| QueryError::Failed {
            store: store.to_owned(),
            source,
        };
        let found = while_serving(of, handle, |store, generation| {
            of.move_key(&mut key_bytes, generation);
            read(handle, store, &key_bytes).map_err(|error| QueryError::of_state(store, error))
        });
        let Some(bytes) = found? else {
            return Ok(None);
        };
        let (timestamp, plain) = value::decode(&bytes)
            .ok_or_else(|| failed("stored value is too short to hold a timestamp".into()))?;
        let value = entry.spec.value_codec.to_json(plain).map_err(failed)?;
        Ok(Some(Found { value, timestamp }))
    }
}

/// Reads from the store that serves; once more, when another one has taken over meanwhile: the one
/// before is emptied then.
pub(crate) fn while_serving<T>(
    of: &dyn ServingStore,
    handle: &ReadHandle,
    mut read: impl FnMut(&str, u64) -> Result<T, QueryError>,
) -> Result<T, QueryError> {
    loop {
        let (store, generation) = of.serving(handle)?;
        let found = read(store, generation)?;
        if of.serving(handle)?.1 == generation {
            return Ok(found);
        }
    }
}

/// A store, for `/stores`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreSummary {
    /// The store's name.
    pub name: String,
    /// Its sub-topology.
    pub sub_topology: u32,
    /// The number of its tasks, over all processes.
    pub partitions: i32,
    /// The tasks that this process serves.
    pub tasks: Vec<String>,
    /// Keys in these tasks, roughly.
    pub approximate_count: u64,
}
