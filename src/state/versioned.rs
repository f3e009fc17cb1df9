//! Versioned stores: what a key's value was at any time of the recent past (KIP-889).
//!
//! # Position
//! Operators hold a [`VersionedStore`]; below lies a key-value store of versions, under local keys of
//! key and timestamp ([`version_key`]). [`TaskDb`](super::TaskDb) makes local keys of changelog
//! records, and drops versions that nobody can ask for any more.
//! # Invariants
//! - A version is valid from its timestamp to that of the next one of its key. A delete is a version.
//! - The latest version of a key never expires unless it is a delete; others do once they were
//!   superseded before observed stream time less the history retention. A write older than that is
//!   refused.
//! - Every version goes to the changelog, in the order of writes: a restore comes to the same decisions
//!   on what is too old.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use super::layout::{OBSERVED_TIME_KEY, Observed};
use super::overlay::KeyBytes;
use super::range::Cursor;
use super::{BytesStore, DirtySink, KeyValueStore, StateError, StateStore};
use crate::clock::Timestamp;
use crate::format::version_key::{self, put_presence, put_time};
use crate::processor::BoxError;
use crate::serde::Serde;

/// A value and since when it holds. Kafka Streams' `VersionedRecord`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionedRecord<V> {
    /// The value.
    pub value: V,
    /// When it was written, by the record's timestamp.
    pub timestamp: Timestamp,
    /// When the next version superseded it, if one has.
    pub valid_to: Option<Timestamp>,
}

/// What has become of a write. Kafka Streams' `put` returns a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionedPut {
    /// The version is the key's latest.
    Latest,
    /// The version is one of the past: a later one began at this time.
    SupersededAt(Timestamp),
    /// The version is older than the history that is kept: nothing was written.
    Expired,
}

/// A shared reference to a task's versioned store. Cheap to clone; stays on the task's thread.
///
/// Kafka Streams' `VersionedKeyValueStore`. Out-of-order writes become part of the past instead of
/// overwriting what is newer. Reads see this transaction's writes.
///
/// # Panics
/// When it is used from within its serdes.
pub struct VersionedStore<K: Hash + Eq + Clone + 'static, V>(Rc<RefCell<Versions<K, V>>>);

impl<K: Hash + Eq + Clone + 'static, V> Clone for VersionedStore<K, V> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone + 'static, V> fmt::Debug for VersionedStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VersionedStore").field(&self.0).finish()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> VersionedStore<K, V> {
    /// Creates a store above `backend`, whose keys are local ones, that keeps `history` milliseconds
    /// of the past.
    ///
    /// # Errors
    /// Any [`StateError`] of reading what is committed.
    pub fn new(
        name: String,
        backend: Box<dyn BytesStore>,
        key_serde: Arc<dyn Serde<K>>,
        value_serde: Arc<dyn Serde<V>>,
        timestamp: Rc<Cell<Timestamp>>,
        cache_bytes: usize,
        history: i64,
    ) -> Result<Self, StateError> {
        let keys: Arc<dyn Serde<VersionKey<K>>> = Arc::new(VersionKeySerde(Arc::clone(&key_serde)));
        let values: Arc<dyn Serde<Option<V>>> = Arc::new(VersionSerde(value_serde));
        let store = KeyValueStore::new(name, backend, keys, values, timestamp, cache_bytes);
        let observed = store
            .committed_bytes(OBSERVED_TIME_KEY)?
            .map(|bytes| Observed::decode(&bytes))
            .unwrap_or_default()
            .time;
        Ok(Self(Rc::new(RefCell::new(Versions {
            store,
            key_serde,
            history,
            observed,
            before_record: observed,
            committed: observed,
        }))))
    }

    /// Returns the same store as its task sees it.
    #[must_use]
    pub fn state_store(&self) -> Rc<RefCell<dyn StateStore>> {
        Rc::<RefCell<Versions<K, V>>>::clone(&self.0)
    }

    /// Writes the value that `key` has from `timestamp` on, up to the next version there is.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn put(&self, key: K, value: V, timestamp: Timestamp) -> Result<VersionedPut, StateError> {
        self.0.borrow_mut().put(key, Some(value), timestamp)
    }

    /// Deletes `key` from `timestamp` on, up to the next version there is; returns the version that
    /// was valid then, `None` also when the time is older than the history that is kept.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn delete(
        &self,
        key: &K,
        timestamp: Timestamp,
    ) -> Result<Option<VersionedRecord<V>>, StateError> {
        let mut store = self.0.borrow_mut();
        if store.is_expired(timestamp) {
            return Ok(None);
        }
        let existing = store.get_as_of(key, timestamp)?;
        store.put(key.clone(), None, timestamp)?;
        Ok(existing)
    }

    /// As [`put`](Self::put); `None` deletes.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn put_or_delete(
        &self,
        key: K,
        value: Option<V>,
        timestamp: Timestamp,
    ) -> Result<VersionedPut, StateError> {
        self.0.borrow_mut().put(key, value, timestamp)
    }

    /// Returns the latest version of `key`; `None` when it was deleted.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn get(&self, key: &K) -> Result<Option<VersionedRecord<V>>, StateError> {
        self.0.borrow_mut().get(key)
    }

    /// Returns the version of `key` that was valid at `timestamp`. A time older than the history that
    /// is kept has an answer only where the latest version is older still.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn get_as_of(
        &self,
        key: &K,
        timestamp: Timestamp,
    ) -> Result<Option<VersionedRecord<V>>, StateError> {
        self.0.borrow_mut().get_as_of(key, timestamp)
    }

    /// Returns the latest timestamp that was ever put.
    #[must_use]
    pub fn observed_stream_time(&self) -> Option<Timestamp> {
        self.0.borrow().observed
    }
}

/// A version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct VersionKey<K> {
    key: K,
    timestamp: Timestamp,
}

struct VersionKeySerde<K>(Arc<dyn Serde<K>>);

impl<K: 'static> Serde<VersionKey<K>> for VersionKeySerde<K> {
    fn serialize(&self, data: &VersionKey<K>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let mut key = Vec::new();
        let present = self.0.serialize(&data.key, &mut key)?;
        version_key::put_local(out, &key, data.timestamp);
        Ok(present)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<VersionKey<K>, BoxError> {
        let (key, timestamp) = version_key::split_local(bytes.unwrap_or_default())?;
        let key = self.0.deserialize(Some(key))?;
        Ok(VersionKey { key, timestamp })
    }
}

struct VersionSerde<V>(Arc<dyn Serde<V>>);

impl<V: 'static> Serde<Option<V>> for VersionSerde<V> {
    fn serialize(&self, data: &Option<V>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let start = out.len();
        put_presence(out, true);
        let present = match data {
            Some(value) => self.0.serialize(value, out)?,
            None => false,
        };
        if !present {
            out.truncate(start);
            put_presence(out, false);
        }
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Option<V>, BoxError> {
        let value = version_key::split_value(bytes.unwrap_or_default())?;
        value
            .map(|bytes| self.0.deserialize(Some(bytes)))
            .transpose()
    }
}

struct Versions<K, V> {
    store: KeyValueStore<VersionKey<K>, Option<V>>,
    key_serde: Arc<dyn Serde<K>>,
    history: i64,
    observed: Option<Timestamp>,
    before_record: Option<Timestamp>,
    committed: Option<Timestamp>,
}

impl<K, V> fmt::Debug for Versions<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versions")
            .field("store", &self.store)
            .field("observed", &self.observed)
            .finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> Versions<K, V> {
    fn is_expired(&self, timestamp: Timestamp) -> bool {
        is_expired(timestamp, self.observed, self.history)
    }

    fn put(
        &mut self,
        key: K,
        value: Option<V>,
        timestamp: Timestamp,
    ) -> Result<VersionedPut, StateError> {
        if self.is_expired(timestamp) {
            return Ok(VersionedPut::Expired);
        }
        self.observed = self.observed.max(Some(timestamp));
        let next = self.first_after(&key, timestamp)?;
        self.store.put(VersionKey { key, timestamp }, value)?;
        Ok(next.map_or(VersionedPut::Latest, VersionedPut::SupersededAt))
    }

    fn get(&mut self, key: &K) -> Result<Option<VersionedRecord<V>>, StateError> {
        let found = self.find(key, i64::MIN..=i64::MAX, true)?;
        Ok(found.and_then(|(timestamp, value)| {
            Some(VersionedRecord {
                value: value?,
                timestamp,
                valid_to: None,
            })
        }))
    }

    fn get_as_of(
        &mut self,
        key: &K,
        timestamp: Timestamp,
    ) -> Result<Option<VersionedRecord<V>>, StateError> {
        if self.is_expired(timestamp) {
            let latest = self.get(key)?;
            return Ok(latest.filter(|latest| latest.timestamp <= timestamp));
        }
        let Some((found, Some(value))) = self.find(key, i64::MIN..=timestamp, true)? else {
            return Ok(None);
        };
        Ok(Some(VersionedRecord {
            value,
            timestamp: found,
            valid_to: self.first_after(key, timestamp)?,
        }))
    }

    /// The time of the first version after `timestamp`.
    fn first_after(
        &mut self,
        key: &K,
        timestamp: Timestamp,
    ) -> Result<Option<Timestamp>, StateError> {
        let Some(after) = timestamp.checked_add(1) else {
            return Ok(None);
        };
        let found = self.find(key, after..=i64::MAX, false)?;
        Ok(found.map(|(timestamp, _)| timestamp))
    }

    /// The first or last version in a range of times.
    fn find(
        &mut self,
        key: &K,
        times: std::ops::RangeInclusive<Timestamp>,
        last: bool,
    ) -> Result<Option<(Timestamp, Option<V>)>, StateError> {
        let prefix = self.prefix(key)?;
        let bound = |time: Timestamp| {
            let mut bytes = prefix.clone();
            put_time(&mut bytes, time);
            Bound::Included(KeyBytes::from_vec(bytes))
        };
        let mut cursor =
            Cursor::new(bound(*times.start()), bound(*times.end()), last).one_at_a_time();
        let mut found = VecDeque::new();
        self.store
            .fill_with(&mut cursor, &mut found, |key, value, _| {
                (key.timestamp, value)
            })?;
        Ok(found.pop_front())
    }

    fn prefix(&self, key: &K) -> Result<Vec<u8>, StateError> {
        let mut bytes = Vec::new();
        let encode = |source| StateError::Encode {
            store: self.store.name().to_owned(),
            source,
        };
        if !self.key_serde.serialize(key, &mut bytes).map_err(encode)? {
            return Err(encode("a key must not be null".into()));
        }
        let mut prefix = Vec::with_capacity(bytes.len() + 12);
        version_key::put_prefix(&mut prefix, &bytes);
        Ok(prefix)
    }
}

/// Whether a version of this time is too old to be written, and a time to be asked for.
pub(super) fn is_expired(timestamp: Timestamp, observed: Option<Timestamp>, history: i64) -> bool {
    observed.is_some_and(|observed| timestamp < observed.saturating_sub(history))
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> StateStore for Versions<K, V> {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn release_savepoint(&mut self) {
        self.before_record = self.observed;
        self.store.release_savepoint();
    }

    fn rollback_savepoint(&mut self) {
        self.observed = self.before_record;
        self.store.rollback_savepoint();
    }

    fn drain_dirty(&mut self, sink: &mut dyn DirtySink) -> Result<(), StateError> {
        let store = self.store.name().to_owned();
        // ORDER: as written, so that a restore finds too old what was found too old here.
        self.store
            .drain_in_write_order(&mut ChangelogRecords { store, sink })
    }

    fn mark_committed(&mut self) {
        self.committed = self.observed;
        self.store.mark_committed();
    }

    fn discard_uncommitted(&mut self) {
        self.observed = self.committed;
        self.before_record = self.committed;
        self.store.discard_uncommitted();
    }

    fn uncommitted_bytes(&self) -> usize {
        self.store.uncommitted_bytes()
    }

    fn held_bytes(&self) -> usize {
        self.store.held_bytes()
    }

    fn is_dirty(&self) -> bool {
        self.store.is_dirty()
    }

    fn share_cache(&mut self, bytes: usize) {
        self.store.share_cache(bytes);
    }
}

/// Hands on changelog records for versions.
struct ChangelogRecords<'a> {
    store: String,
    sink: &'a mut dyn DirtySink,
}

impl DirtySink for ChangelogRecords<'_> {
    fn entry(&mut self, key: &[u8], value: Option<&[u8]>, _: Timestamp) -> Result<(), StateError> {
        let decode = |error: crate::format::DecodeError| StateError::Decode {
            store: self.store.clone(),
            source: error.into(),
        };
        let (key, timestamp) = version_key::split_local(key).map_err(decode)?;
        let value = version_key::split_value(value.unwrap_or_default()).map_err(decode)?;
        self.sink.entry(key, value, timestamp)
    }
}

#[cfg(test)]
mod tests;
