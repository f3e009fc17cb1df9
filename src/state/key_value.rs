//! Typed key-value stores.
//!
//! # Position
//! Operators hold a [`StoreRef`]; the task drives the same object as a
//! [`StateStore`]. Below lie the overlay and the committed bytes.
//! # Invariants
//! - Within a transaction a key is read from the backend at most once while it fits the cache, kept
//!   typed, and serialised once at commit.
//! - Equal keys have equal bytes: `Eq` and the serde must agree (`1.0` and `1.00` as one key must
//!   serialise alike), since committed bytes are found by bytes and the overlay by `Eq`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::ops::{Bound, RangeBounds};
use std::rc::Rc;
use std::sync::Arc;

use super::error::at_key;
use super::expiry::{BUCKET_LEN, Expiry, LOOKED_AT_MIN};
use super::overlay::{At, KeyBytes, Overlay};
use super::range::{Cursor, Entries};
use super::{BytesStore, DirtySink, SharedStreamTime, StateError, StateStore, TimeToLive};
use crate::clock::Timestamp;
use crate::format;
use crate::metrics::Counter;
use crate::processor::BoxError;
use crate::serde::Serde;

/// What a value is taken to weigh before the first one was serialised.
const FIRST_VALUE_BYTES: usize = 64;

/// A key-value store of one task: a typed write-back overlay above committed bytes.
///
/// Kafka Streams' `TimestampedKeyValueStore`. A written value's timestamp is that of the record in
/// progress. A value whose serde answers null counts as a delete.
pub struct KeyValueStore<K, V> {
    name: String,
    backend: Box<dyn BytesStore>,
    key_serde: Arc<dyn Serde<K>>,
    value_serde: Arc<dyn Serde<V>>,
    timestamp: Rc<Cell<Timestamp>>,
    overlay: Overlay<K, V>,
    scratch: Vec<u8>,
    /// A moving average, to guess what unserialised values weigh.
    average_value_bytes: usize,
    /// Where entries do not live for ever.
    expiry: Option<Expiry>,
}

impl<K, V> fmt::Debug for KeyValueStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueStore")
            .field("name", &self.name)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> KeyValueStore<K, V> {
    /// Creates a store above `backend`. `timestamp` is the task's, read at each write;
    /// `clean_cache_bytes` bounds what is kept of committed entries between transactions.
    #[must_use]
    pub fn new(
        name: String,
        backend: Box<dyn BytesStore>,
        key_serde: Arc<dyn Serde<K>>,
        value_serde: Arc<dyn Serde<V>>,
        timestamp: Rc<Cell<Timestamp>>,
        clean_cache_bytes: usize,
    ) -> Self {
        Self {
            name,
            backend,
            key_serde,
            value_serde,
            timestamp,
            overlay: Overlay::new(clean_cache_bytes),
            scratch: Vec::new(),
            average_value_bytes: FIRST_VALUE_BYTES,
            expiry: None,
        }
    }

    /// Lets entries expire. `index` is the store's index by time ([`TaskDb::index`](super::TaskDb::index)),
    /// `expired` counts the entries that go.
    #[must_use]
    pub fn with_expiry(
        mut self,
        ttl: TimeToLive,
        stream_time: SharedStreamTime,
        index: Box<dyn BytesStore>,
        expired: Option<Counter>,
    ) -> Self {
        self.expiry = Some(Expiry::new(ttl, stream_time, index, expired));
        self
    }

    /// Returns the value under `key`, this transaction's writes included.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn get(&mut self, key: &K) -> Result<Option<V>, StateError> {
        self.get_with(key, |value| value.cloned())
    }

    /// Calls `look` with the value under `key` instead of cloning it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_with<R>(
        &mut self,
        key: &K,
        look: impl FnOnce(Option<&V>) -> R,
    ) -> Result<R, StateError> {
        let at = self.load(key)?;
        let result = look(self.live(at).0);
        self.overlay.evict();
        Ok(result)
    }

    /// Returns the value under `key` with the timestamp it was written with.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_with_timestamp(&mut self, key: &K) -> Result<Option<(V, Timestamp)>, StateError> {
        let at = self.load(key)?;
        let (value, timestamp) = self.live(at);
        let result = value.map(|value| (value.clone(), timestamp));
        self.overlay.evict();
        Ok(result)
    }

    /// Writes `value` under `key`. Reads nothing.
    ///
    /// # Errors
    /// [`StateError::Encode`] when the key has no bytes.
    pub fn put(&mut self, key: K, value: V) -> Result<(), StateError> {
        let hash = self.overlay.hash(&key);
        let timestamp = self.timestamp.get();
        let weight = self.average_value_bytes;
        if let Some(at) = self.overlay.find(hash, &key) {
            self.overlay.write(at, Some(value), timestamp, weight);
        } else {
            let key_bytes = self.key_bytes(&key)?;
            self.overlay
                .insert_dirty(hash, key, key_bytes, Some(value), timestamp, weight);
        }
        Ok(())
    }

    /// As [`put`](Self::put), for a key that the caller goes on using: only a key of which nothing is
    /// known is cloned.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_ref(&mut self, key: &K, value: V) -> Result<(), StateError> {
        let hash = self.overlay.hash(key);
        match self.overlay.find(hash, key) {
            None => self.put(key.clone(), value),
            Some(at) => {
                let weight = self.average_value_bytes;
                self.overlay
                    .write(at, Some(value), self.timestamp.get(), weight);
                Ok(())
            }
        }
    }

    /// Writes `value` under `key` unless there is one; returns the one there is.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn put_if_absent(&mut self, key: K, value: V) -> Result<Option<V>, StateError> {
        let at = self.load(&key)?;
        let existing = self.live(at).0.cloned();
        if existing.is_none() {
            let weight = self.average_value_bytes;
            self.overlay
                .write(at, Some(value), self.timestamp.get(), weight);
        }
        self.overlay.evict();
        Ok(existing)
    }

    /// Deletes `key`; returns what was there. Deleting nothing writes nothing.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&mut self, key: &K) -> Result<Option<V>, StateError> {
        let at = self.load(key)?;
        let existing = self.live(at).0.cloned();
        if existing.is_some() {
            self.overlay.write(at, None, self.timestamp.get(), 0);
        }
        self.overlay.evict();
        Ok(existing)
    }

    /// Iterates over the keys of `range` in the order of their **serialised** bytes, this
    /// transaction's writes included.
    ///
    /// # Errors
    /// [`StateError::Encode`] when a bound has no bytes.
    pub fn range(&mut self, range: impl RangeBounds<K>) -> Result<Entries<'_, K, V>, StateError> {
        let cursor = self.cursor(&range, false)?;
        Ok(Entries::new(self, cursor))
    }

    /// As [`range`](Self::range), from the last key to the first.
    ///
    /// # Errors
    /// As [`range`](Self::range).
    pub fn reverse_range(
        &mut self,
        range: impl RangeBounds<K>,
    ) -> Result<Entries<'_, K, V>, StateError> {
        let cursor = self.cursor(&range, true)?;
        Ok(Entries::new(self, cursor))
    }

    /// Iterates, in order, over the keys whose serialised bytes start with `prefix`.
    pub fn prefix_scan(&mut self, prefix: &[u8]) -> Entries<'_, K, V> {
        Entries::new(self, Cursor::prefix(prefix))
    }

    /// Iterates over all keys in order.
    pub fn all(&mut self) -> Entries<'_, K, V> {
        Entries::new(self, Cursor::prefix(&[]))
    }

    /// Returns the number of committed keys, roughly; cheap. This transaction's writes do not count.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn approximate_count(&self) -> Result<u64, StateError> {
        self.backend.approximate_count()
    }

    /// Returns the bytes that clean entries hold, roughly: within the budget after each operation.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.overlay.clean_bytes()
    }

    /// What is known of an entry that has not expired.
    fn live(&self, at: At) -> (Option<&V>, Timestamp) {
        let (value, timestamp) = self.overlay.get(at);
        (value.filter(|_| !self.is_expired(timestamp)), timestamp)
    }

    fn is_expired(&self, time: Timestamp) -> bool {
        let expiry = self.expiry.as_ref();
        expiry.is_some_and(|expiry| expiry.is_expired(time))
    }

    /// Whether committed bytes are an entry that has expired.
    fn has_expired(&self, bytes: &[u8]) -> bool {
        self.expiry.is_some()
            && format::value::decode(bytes).is_some_and(|(time, _)| self.is_expired(time))
    }

    /// Deletes, as writes of this transaction, entries from the front of the index.
    fn expire(&mut self) -> Result<(), StateError> {
        let Some(mut expiry) = self.expiry.take() else {
            return Ok(());
        };
        let result = self.expire_by(&mut expiry);
        self.expiry = Some(expiry);
        // They are no record's, and not undone with one.
        self.overlay.release();
        result
    }

    fn expire_by(&mut self, expiry: &mut Expiry) -> Result<(), StateError> {
        let Some(now) = expiry.stream_time() else {
            return Ok(());
        };
        let limit = LOOKED_AT_MIN.max(2 * self.overlay.dirty_entries());
        for index_key in expiry.take_passed(limit)? {
            let key_bytes = index_key.get(BUCKET_LEN..).unwrap_or_default();
            let key = self
                .key_serde
                .deserialize(Some(key_bytes))
                .map_err(|source| self.decode_error(source))?;
            let hash = self.overlay.hash(&key);
            if let Some(at) = self.overlay.find(hash, &key) {
                let (value, time) = self.overlay.get(at);
                // What is dirty is looked at when it is drained.
                if value.is_some() && expiry.is_expired(time) && !self.overlay.is_dirty_at(at) {
                    self.overlay.write(at, None, now, 0);
                    expiry.count();
                }
            } else if let Some(bytes) = self.backend.get(key_bytes)?
                && format::value::decode(&bytes).is_some_and(|(time, _)| expiry.is_expired(time))
            {
                let key_bytes = KeyBytes::from_slice(key_bytes);
                self.overlay
                    .insert_dirty(hash, key, key_bytes, None, now, 0);
                expiry.count();
            }
            expiry.done.push(index_key);
        }
        Ok(())
    }

    fn load(&mut self, key: &K) -> Result<At, StateError> {
        let hash = self.overlay.hash(key);
        if let Some(at) = self.overlay.find(hash, key) {
            return Ok(at);
        }
        let key_bytes = self.key_bytes(key)?;
        let (value, value_bytes) = match self.backend.get(&key_bytes)? {
            None => (None, 0),
            Some(bytes) => (Some(self.decode_value(&key_bytes, &bytes)?), bytes.len()),
        };
        Ok(self
            .overlay
            .insert_clean(hash, key.clone(), key_bytes, value, value_bytes))
    }

    fn key_bytes(&mut self, key: &K) -> Result<KeyBytes, StateError> {
        self.scratch.clear();
        let present = self
            .key_serde
            .serialize(key, &mut self.scratch)
            .map_err(|source| self.encode_error(source))?;
        if !present {
            return Err(self.encode_error("a key must not be null".into()));
        }
        Ok(KeyBytes::from_slice(&self.scratch))
    }

    fn decode_value(&self, key: &[u8], bytes: &[u8]) -> Result<(V, Timestamp), StateError> {
        let failed = |source| self.decode_error(at_key(key, source));
        let Some((timestamp, value)) = format::value::decode(bytes) else {
            return Err(failed("too short for a timestamped value".into()));
        };
        let value = self.value_serde.deserialize(Some(value)).map_err(failed)?;
        Ok((value, timestamp))
    }

    fn encode_error(&self, source: BoxError) -> StateError {
        StateError::Encode {
            store: self.name.clone(),
            source,
        }
    }

    fn decode_error(&self, source: BoxError) -> StateError {
        StateError::Decode {
            store: self.name.clone(),
            source,
        }
    }

    /// Returns what the backend has under `key`, uninterpreted.
    pub(super) fn committed_bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.backend.get(key)
    }

    pub(super) fn cursor(
        &mut self,
        range: &impl RangeBounds<K>,
        reverse: bool,
    ) -> Result<Cursor, StateError> {
        let mut bound = |bound: Bound<&K>| {
            Ok::<_, StateError>(match bound {
                Bound::Included(key) => Bound::Included(self.key_bytes(key)?),
                Bound::Excluded(key) => Bound::Excluded(self.key_bytes(key)?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        let lower = bound(range.start_bound())?;
        let upper = bound(range.end_bound())?;
        Ok(Cursor::new(lower, upper, reverse))
    }

    /// Appends the cursor's next entries to `into`, and moves the cursor past them.
    pub(super) fn fill(
        &mut self,
        cursor: &mut Cursor,
        into: &mut VecDeque<(K, V)>,
    ) -> Result<(), StateError> {
        self.fill_with(cursor, into, |key, value, _| (key, value))
    }

    /// As [`fill`](Self::fill); `make` also gets the entries' timestamps.
    pub(super) fn fill_with<T>(
        &mut self,
        cursor: &mut Cursor,
        into: &mut VecDeque<T>,
        make: impl Fn(K, V, Timestamp) -> T,
    ) -> Result<(), StateError> {
        let wanted = cursor.next_chunk();
        let reverse = cursor.is_reverse();
        let mut last = None;
        let (lower, upper) = cursor.bytes();
        let mut committed = self.backend.range(lower, upper, reverse);
        let mut next_committed = committed.next().transpose()?;
        let mut next_dirty = next_dirty(&mut self.overlay, cursor, None);
        while into.len() < wanted {
            let dirty_key = next_dirty.map(|at| self.overlay.key_bytes(at));
            let committed_key = next_committed.as_ref().map(|(key, _)| &**key);
            let dirty_first = match (dirty_key, committed_key) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(dirty), Some(committed)) => {
                    dirty == committed || (dirty < committed) != reverse
                }
            };
            // The overlay's entry shadows the committed one.
            let both = dirty_key == committed_key;
            if dirty_first && let Some(at) = next_dirty {
                let key_bytes = KeyBytes::from_slice(self.overlay.key_bytes(at));
                if let (Some(value), timestamp) = self.live(at) {
                    let key = self.overlay.key(at).clone();
                    into.push_back(make(key, value.clone(), timestamp));
                }
                next_dirty = self::next_dirty(&mut self.overlay, cursor, Some(&key_bytes));
                last = Some(key_bytes);
            } else if let Some((key, value)) = &next_committed {
                if !self.has_expired(value) {
                    let (value, timestamp) = self.decode_value(key, value)?;
                    let typed = self
                        .key_serde
                        .deserialize(Some(key))
                        .map_err(|source| self.decode_error(source))?;
                    into.push_back(make(typed, value, timestamp));
                }
                last = Some(KeyBytes::from_slice(key));
            }
            if both || !dirty_first {
                next_committed = committed.next().transpose()?;
            }
        }
        drop(committed);
        cursor.advance(last, into.len() >= wanted);
        Ok(())
    }

    /// Drains dirty entries in the order they were first written in, for stores whose changelog's order
    /// matters.
    pub(super) fn drain_in_write_order(
        &mut self,
        sink: &mut dyn DirtySink,
    ) -> Result<(), StateError> {
        let dirty = self.overlay.dirty_in_write_order();
        self.drain(dirty, sink)
    }

    fn drain(&mut self, dirty: Vec<At>, sink: &mut dyn DirtySink) -> Result<(), StateError> {
        for at in dirty {
            self.scratch.clear();
            let (value, timestamp) = self.overlay.get(at);
            let expired = value.is_some() && self.is_expired(timestamp);
            if expired && let Some(expiry) = &mut self.expiry {
                expiry.count();
            }
            let value = self.overlay.get(at).0.filter(|_| !expired);
            let present = match value {
                None => false,
                Some(value) => self
                    .value_serde
                    .serialize(value, &mut self.scratch)
                    .map_err(|source| StateError::Encode {
                        store: self.name.clone(),
                        source,
                    })?,
            };
            let bytes = present.then_some(&self.scratch[..]);
            sink.entry(self.overlay.key_bytes(at), bytes, timestamp)?;
            self.overlay.serialised(at, bytes.map(<[u8]>::len));
            if let Some(bytes) = bytes {
                self.average_value_bytes = (7 * self.average_value_bytes + bytes.len()) / 8;
            }
        }
        Ok(())
    }
}

/// Returns the first dirty entry of the cursor's range, or the first beyond `after`.
fn next_dirty<K: Hash + Eq, V>(
    overlay: &mut Overlay<K, V>,
    cursor: &Cursor,
    after: Option<&[u8]>,
) -> Option<At> {
    let (mut lower, mut upper) = cursor.bounds();
    if let Some(after) = after {
        let side = if cursor.is_reverse() {
            &mut upper
        } else {
            &mut lower
        };
        *side = Bound::Excluded(after);
    }
    overlay.next_dirty(lower, upper, cursor.is_reverse())
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> StateStore for KeyValueStore<K, V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn release_savepoint(&mut self) {
        self.overlay.release();
    }

    fn rollback_savepoint(&mut self) {
        self.overlay.rollback();
    }

    fn drain_dirty(&mut self, sink: &mut dyn DirtySink) -> Result<(), StateError> {
        self.expire()?;
        let dirty = self.overlay.dirty_in_key_order();
        self.drain(dirty, sink)?;
        let done = self.expiry.iter().flat_map(|expiry| &expiry.done);
        done.map(|key| &**key)
            .try_for_each(|key| sink.remove_from_index(key))
    }

    fn mark_committed(&mut self) {
        self.overlay.mark_committed();
        if let Some(expiry) = &mut self.expiry {
            expiry.mark_committed();
        }
    }

    fn discard_uncommitted(&mut self) {
        self.overlay.discard();
        if let Some(expiry) = &mut self.expiry {
            expiry.discard_uncommitted();
        }
    }

    fn uncommitted_bytes(&self) -> usize {
        self.overlay.dirty_bytes()
    }

    fn held_bytes(&self) -> usize {
        self.overlay.dirty_bytes() + self.overlay.clean_bytes()
    }

    fn is_dirty(&self) -> bool {
        self.overlay.is_dirty()
    }

    fn share_cache(&mut self, bytes: usize) {
        self.overlay.set_clean_budget(bytes);
    }
}

#[cfg(test)]
mod tests;
