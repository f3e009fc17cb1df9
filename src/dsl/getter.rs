//! How a join finds the value of a key in a table, also in one without a store of its own.
//!
//! Kafka Streams' `KTableValueGetter`: a table made of another one computes its value from that one's.

use std::sync::Arc;

use super::assembly::Assembly;
use super::builder::StoreKey;
use crate::clock::Timestamp;
use crate::state::{StateError, StoreRef, VersionedRecord, VersionedStore};
use crate::topology::StoreId;

/// The value of a key with its timestamp, in a task.
pub(crate) type Lookup<K, V> = Box<dyn Fn(&K) -> Result<Option<(V, Timestamp)>, StateError>>;

type MakeLookup<K, V> = Arc<dyn Fn(&Assembly<'_>) -> Lookup<K, V> + Send + Sync>;

/// The value that a key had at a time, with its timestamp, in a task.
pub(crate) type LookupAsOf<K, V> =
    Box<dyn Fn(&K, Timestamp) -> Result<Option<(V, Timestamp)>, StateError>>;

type MakeLookupAsOf<K, V> = Arc<dyn Fn(&Assembly<'_>) -> LookupAsOf<K, V> + Send + Sync>;

/// Makes the lookup of a task, and knows the stores it reads.
pub(crate) struct Getter<K, V> {
    pub(crate) stores: Vec<StoreId>,
    make: MakeLookup<K, V>,
    /// Of a versioned table.
    make_as_of: Option<MakeLookupAsOf<K, V>>,
    /// Values are here before the table's updates: those wait for the commit.
    held_back: bool,
}

impl<K, V> Clone for Getter<K, V> {
    fn clone(&self) -> Self {
        Self {
            stores: self.stores.clone(),
            make: Arc::clone(&self.make),
            make_as_of: self.make_as_of.clone(),
            held_back: self.held_back,
        }
    }
}

impl<K: StoreKey, V: Clone + 'static> Getter<K, V> {
    /// Reads what `make` makes of `stores`.
    pub(crate) fn new(
        stores: Vec<StoreId>,
        make: impl Fn(&Assembly<'_>) -> Lookup<K, V> + Send + Sync + 'static,
    ) -> Self {
        Self {
            stores,
            make: Arc::new(make),
            make_as_of: None,
            held_back: false,
        }
    }

    /// Reads a store.
    pub(crate) fn of_store(id: StoreId) -> Self {
        Self {
            stores: vec![id],
            make: Arc::new(move |assembly| {
                let store: StoreRef<K, V> = assembly.store(id);
                Box::new(move |key| store.get_with_timestamp(key))
            }),
            make_as_of: None,
            held_back: false,
        }
    }

    /// Reads a versioned store.
    pub(crate) fn of_versioned_store(id: StoreId) -> Self {
        let plain = |found: Option<VersionedRecord<V>>| {
            found.map(|version| (version.value, version.timestamp))
        };
        Self {
            stores: vec![id],
            make: Arc::new(move |assembly| {
                let store: VersionedStore<K, V> = assembly.store(id);
                Box::new(move |key| store.get(key).map(plain))
            }),
            make_as_of: Some(Arc::new(move |assembly| {
                let store: VersionedStore<K, V> = assembly.store(id);
                Box::new(move |key, time| store.get_as_of(key, time).map(plain))
            })),
            held_back: false,
        }
    }

    /// As this one, of a table whose updates wait for the commit.
    pub(crate) fn held_back(self) -> Self {
        Self {
            held_back: true,
            ..self
        }
    }

    /// Returns whether values are here before the table's updates.
    pub(crate) const fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// Returns whether values of the past are known.
    pub(crate) const fn is_versioned(&self) -> bool {
        self.make_as_of.is_some()
    }

    /// The value at a time of a versioned table, the latest of any other.
    pub(crate) fn lookup_as_of(&self, assembly: &Assembly<'_>) -> LookupAsOf<K, V> {
        if let Some(make) = &self.make_as_of {
            return make(assembly);
        }
        let lookup = self.lookup(assembly);
        Box::new(move |key, _| lookup(key))
    }

    pub(crate) fn lookup(&self, assembly: &Assembly<'_>) -> Lookup<K, V> {
        (self.make)(assembly)
    }

    /// Makes the value of this table's.
    pub(crate) fn derive<V2: 'static>(
        &self,
        derive: Arc<impl Fn(&K, V) -> Option<V2> + Send + Sync + 'static>,
    ) -> Getter<K, V2> {
        let make = Arc::clone(&self.make);
        let make_as_of = self.make_as_of.clone().map(|make| {
            let derive = Arc::clone(&derive);
            let make: MakeLookupAsOf<K, V2> = Arc::new(move |assembly| {
                let (lookup, derive) = (make(assembly), Arc::clone(&derive));
                Box::new(move |key, time| {
                    let found = lookup(key, time)?;
                    Ok(found.and_then(|(value, time)| Some((derive(key, value)?, time))))
                })
            });
            make
        });
        Getter {
            make_as_of,
            held_back: self.held_back,
            stores: self.stores.clone(),
            make: Arc::new(move |assembly| {
                let (lookup, derive) = (make(assembly), Arc::clone(&derive));
                Box::new(move |key| {
                    let found = lookup(key)?;
                    Ok(found.and_then(|(value, time)| Some((derive(key, value)?, time))))
                })
            }),
        }
    }

    /// Makes the value of two tables', with the later time.
    pub(crate) fn join<V2: Clone + 'static, R: 'static>(
        &self,
        other: &Getter<K, V2>,
        join: Arc<impl Fn(&K, Option<V>, Option<V2>) -> Option<R> + Send + Sync + 'static>,
    ) -> Getter<K, R> {
        let mut stores = self.stores.clone();
        stores.extend(&other.stores);
        stores.sort_unstable();
        stores.dedup();
        let (left, right) = (Arc::clone(&self.make), Arc::clone(&other.make));
        Getter {
            stores,
            make_as_of: None,
            held_back: self.held_back || other.held_back,
            make: Arc::new(move |assembly| {
                let (left, right) = (left(assembly), right(assembly));
                let join = Arc::clone(&join);
                Box::new(move |key| {
                    let (left, right) = (left(key)?, right(key)?);
                    let times = (left.as_ref().map(|l| l.1), right.as_ref().map(|r| r.1));
                    let joined = join(key, left.map(|l| l.0), right.map(|r| r.0));
                    let Some(time) = times.0.max(times.1) else {
                        return Ok(None);
                    };
                    Ok(joined.map(|joined| (joined, time)))
                })
            }),
        }
    }
}
