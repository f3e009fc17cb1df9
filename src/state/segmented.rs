//! What window and session stores have in common: a key-value store of local keys, and expiry.
//!
//! # Invariants
//! - Observed stream time and sequence numbers move with puts and go back with the record or the
//!   transaction that they belonged to; what is committed of them is in the backend, beside the entries.
//! - An entry past its retention is neither read nor written, though its bytes may still be there
//!   ([`layout`](super::layout)).

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::ops::{Bound, RangeBounds};
use std::rc::Rc;
use std::sync::Arc;

use super::layout::{OBSERVED_TIME_KEY, Observed, Segments, next_sequence};
use super::overlay::KeyBytes;
use super::range::Cursor;
use super::{BytesStore, DirtySink, KeyValueStore, StateError, StateStore};
use crate::clock::Timestamp;
use crate::format::window_key::{SEGMENT_LEN, segment_of, split_local};
use crate::processor::BoxError;
use crate::serde::Serde;
use crate::window::Window;

/// A key with the time that its entry lives by.
pub(super) trait TimedKey: Hash + Eq + Clone + 'static {
    /// The key of the records.
    type Key;
    fn key(&self) -> &Self::Key;
    fn window(&self) -> Window;
    fn time(&self) -> Timestamp;
    /// Appends what follows the key in a store key.
    fn put_suffix(&self, out: &mut Vec<u8>);
    /// Splits a store key and makes a typed one.
    fn read(
        store_key: &[u8],
        key: impl FnOnce(&[u8]) -> Result<Self::Key, BoxError>,
    ) -> Result<Self, BoxError>;
}

/// Typed keys to local keys.
struct LocalKeySerde<K> {
    key_serde: Arc<dyn Serde<K>>,
    interval: i64,
}

impl<T: TimedKey> Serde<T> for LocalKeySerde<T::Key>
where
    T::Key: 'static,
{
    fn serialize(&self, data: &T, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(&segment_of(data.time(), self.interval));
        let present = self.key_serde.serialize(data.key(), out)?;
        data.put_suffix(out);
        Ok(present)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<T, BoxError> {
        let split = bytes.and_then(split_local);
        let (_, key) = split.ok_or_else(|| BoxError::from("too short for a local key"))?;
        T::read(key, |key| self.key_serde.deserialize(Some(key)))
    }
}

/// See the module.
pub(super) struct Segmented<T: TimedKey, V> {
    store: KeyValueStore<T, V>,
    key_serde: Arc<dyn Serde<T::Key>>,
    pub(super) segments: Segments,
    observed: Observed,
    before_record: Observed,
    committed: Observed,
}

impl<T: TimedKey, V> fmt::Debug for Segmented<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segmented")
            .field("store", &self.store)
            .field("observed", &self.observed)
            .finish_non_exhaustive()
    }
}

impl<T: TimedKey, V: Clone + 'static> Segmented<T, V>
where
    T::Key: 'static,
{
    pub(super) fn new(
        name: String,
        backend: Box<dyn BytesStore>,
        key_serde: Arc<dyn Serde<T::Key>>,
        value_serde: Arc<dyn Serde<V>>,
        timestamp: Rc<Cell<Timestamp>>,
        cache_bytes: usize,
        segments: Segments,
    ) -> Result<Self, StateError> {
        let local: Arc<dyn Serde<T>> = Arc::new(LocalKeySerde {
            key_serde: Arc::clone(&key_serde),
            interval: segments.interval(),
        });
        let store = KeyValueStore::new(name, backend, local, value_serde, timestamp, cache_bytes);
        let observed = store
            .committed_bytes(OBSERVED_TIME_KEY)?
            .map(|bytes| Observed::decode(&bytes))
            .unwrap_or_default();
        Ok(Self {
            store,
            key_serde,
            segments,
            observed,
            before_record: observed,
            committed: observed,
        })
    }

    pub(super) fn is_expired(&self, time: Timestamp) -> bool {
        self.segments.is_expired(time, self.observed.time)
    }

    pub(super) const fn observed(&self) -> Option<Timestamp> {
        self.observed.time
    }

    /// Gives out the next sequence number.
    pub(super) const fn next_sequence(&mut self) -> i32 {
        let sequence = next_sequence(self.observed.sequence);
        self.observed.sequence = Some(sequence);
        sequence
    }

    pub(super) fn get(&mut self, key: &T) -> Result<Option<(V, Timestamp)>, StateError> {
        if self.is_expired(key.time()) {
            return Ok(None);
        }
        self.store.get_with_timestamp(key)
    }

    /// Writes unless the entry has expired; returns whether it did.
    pub(super) fn put(&mut self, key: T, value: V) -> Result<bool, StateError> {
        let time = key.time();
        if key.window().start() < 0 {
            // Two's complement would put it behind all others.
            return Err(StateError::Encode {
                store: self.store.name().to_owned(),
                source: format!("a window starts before 1970, at {}", key.window().start()).into(),
            });
        }
        self.observed.time = self.observed.time.max(Some(time));
        if self.is_expired(time) {
            return Ok(false);
        }
        self.store.put(key, value)?;
        Ok(true)
    }

    pub(super) fn delete(&mut self, key: &T) -> Result<Option<V>, StateError> {
        self.observed.time = self.observed.time.max(Some(key.time()));
        if self.is_expired(key.time()) {
            return Ok(None);
        }
        self.store.delete(key)
    }

    /// Clamps a range of times to what is live: inclusive, `None` when nothing is left.
    pub(super) fn live(
        &self,
        times: &impl RangeBounds<Timestamp>,
    ) -> Option<(Timestamp, Timestamp)> {
        let observed = self.observed.time?;
        let from = match times.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from.checked_add(1)?,
            Bound::Unbounded => i64::MIN,
        };
        let to = match times.end_bound() {
            Bound::Included(to) => *to,
            Bound::Excluded(to) => to.checked_sub(1)?,
            Bound::Unbounded => i64::MAX,
        };
        let first = observed
            .saturating_sub(self.segments.retention_ms())
            .saturating_add(1)
            .max(0);
        let (from, to) = (from.max(first), to.min(observed));
        (from <= to).then_some((from, to))
    }

    /// The cursor over all keys with times from `from` to `to`, and others of their segments.
    pub(super) fn cursor_of_times(
        &self,
        (from, to): (Timestamp, Timestamp),
        reverse: bool,
    ) -> Cursor {
        let interval = self.segments.interval();
        let lower = KeyBytes::from_slice(&segment_of(from, interval));
        let beyond = self.segments.start_of(to).checked_add(interval);
        let upper = beyond.map_or(Bound::Unbounded, |next| {
            Bound::Excluded(KeyBytes::from_slice(&segment_of(next, interval)))
        });
        Cursor::new(Bound::Included(lower), upper, reverse)
    }

    /// The cursors over one key, a segment each, in the order of the scan. `bounds` appends the
    /// suffixes of the first and the last store key in question.
    pub(super) fn cursors_of_key(
        &self,
        key: &T::Key,
        (from, to): (Timestamp, Timestamp),
        reverse: bool,
        bounds: impl Fn(&mut Vec<u8>, &mut Vec<u8>),
    ) -> Result<VecDeque<Cursor>, StateError> {
        let interval = self.segments.interval();
        let (mut lower, mut upper) = (Vec::new(), Vec::new());
        let mut cursors = VecDeque::new();
        // Retention bounds the number of segments.
        let mut start = Some(self.segments.start_of(from));
        while let Some(segment) = start.filter(|start| *start <= to) {
            for bound in [&mut lower, &mut upper] {
                bound.clear();
                bound.extend_from_slice(&segment_of(segment, interval));
                self.put_key(key, bound)?;
            }
            bounds(&mut lower, &mut upper);
            let cursor = Cursor::new(
                Bound::Included(KeyBytes::from_slice(&lower)),
                Bound::Included(KeyBytes::from_slice(&upper)),
                reverse,
            );
            if reverse {
                cursors.push_front(cursor);
            } else {
                cursors.push_back(cursor);
            }
            start = segment.checked_add(interval);
        }
        Ok(cursors)
    }

    /// The serialised bounds of a range of keys.
    pub(super) fn key_bounds(
        &self,
        keys: &impl RangeBounds<T::Key>,
    ) -> Result<KeyBounds, StateError> {
        let bytes = |bound: Bound<&T::Key>| {
            let of = |key: &T::Key| {
                let mut bytes = Vec::new();
                self.put_key(key, &mut bytes).map(|()| bytes)
            };
            Ok::<_, StateError>(match bound {
                Bound::Included(key) => Bound::Included(of(key)?),
                Bound::Excluded(key) => Bound::Excluded(of(key)?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        Ok(KeyBounds(
            bytes(keys.start_bound())?,
            bytes(keys.end_bound())?,
        ))
    }

    /// The cursors over a range of keys, a segment each, in the order of the scan. Keys that are no
    /// part of the range may lie between: `b` ends it, and `ba` lies among the windows of `b`.
    pub(super) fn cursors_of_keys(
        &self,
        keys: &KeyBounds,
        (from, to): (Timestamp, Timestamp),
        reverse: bool,
    ) -> VecDeque<Cursor> {
        let interval = self.segments.interval();
        // A key that is the beginning of the last one is followed by its time, which must not lead
        // behind the end: it begins with 0 for two million years to come.
        let beyond = keys.beyond().filter(|_| to < 1 << 56);
        let mut cursors = VecDeque::new();
        let mut start = Some(self.segments.start_of(from));
        while let Some(segment) = start.filter(|start| *start <= to) {
            let mut lower = KeyBytes::from_slice(&segment_of(segment, interval));
            if let Bound::Included(key) | Bound::Excluded(key) = &keys.0 {
                lower.extend_from_slice(key);
            }
            start = segment.checked_add(interval);
            let upper = match (&beyond, start) {
                (Some(beyond), _) => {
                    let mut upper = KeyBytes::from_slice(&segment_of(segment, interval));
                    upper.extend_from_slice(beyond);
                    Bound::Excluded(upper)
                }
                (None, Some(next)) => {
                    Bound::Excluded(KeyBytes::from_slice(&segment_of(next, interval)))
                }
                (None, None) => Bound::Unbounded,
            };
            let cursor = Cursor::new(Bound::Included(lower), upper, reverse);
            if reverse {
                cursors.push_front(cursor);
            } else {
                cursors.push_back(cursor);
            }
        }
        cursors
    }

    pub(super) fn key_serde(&self) -> Arc<dyn Serde<T::Key>> {
        Arc::clone(&self.key_serde)
    }

    fn put_key(&self, key: &T::Key, out: &mut Vec<u8>) -> Result<(), StateError> {
        let encode = |source| StateError::Encode {
            store: self.store.name().to_owned(),
            source,
        };
        match self.key_serde.serialize(key, out).map_err(encode)? {
            true => Ok(()),
            false => Err(encode("a key must not be null".into())),
        }
    }
}

impl<T: TimedKey, V: Clone + 'static> StateStore for Segmented<T, V>
where
    T::Key: 'static,
{
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
        self.store.drain_dirty(&mut StoreKeys(sink))
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

/// A range of keys, serialised.
pub(super) struct KeyBounds(Bound<Vec<u8>>, Bound<Vec<u8>>);

impl KeyBounds {
    pub(super) fn contain<K: 'static>(&self, serde: &dyn Serde<K>, key: &K) -> bool {
        let mut bytes = Vec::new();
        // It was read with this serde.
        let written = serde.serialize(key, &mut bytes);
        let bounds = (self.0.as_ref(), self.1.as_ref());
        written.unwrap_or(false) && RangeBounds::<Vec<u8>>::contains(&bounds, &bytes)
    }

    /// Bytes behind all keys of the range with whatever follows them: those of the last key, each byte
    /// raised from the end on.
    fn beyond(&self) -> Option<Vec<u8>> {
        let (Bound::Included(key) | Bound::Excluded(key)) = &self.1 else {
            return None;
        };
        let mut beyond = key.clone();
        while let Some(last) = beyond.pop() {
            if let Some(next) = last.checked_add(1) {
                beyond.push(next);
                return Some(beyond);
            }
        }
        None
    }
}

/// Hands on store keys, as changelogs have them, for local ones.
struct StoreKeys<'a>(&'a mut dyn DirtySink);

impl DirtySink for StoreKeys<'_> {
    fn entry(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        let store_key = key.get(SEGMENT_LEN..).unwrap_or_default();
        self.0.entry(store_key, value, timestamp)
    }
}

/// An entry of a scan: key, value, and the value's timestamp.
pub(super) type Found<T, V> = (T, V, Timestamp);

/// A scan over cursors, one after the other. The store is borrowed within `next` only.
pub(super) struct Scan<T: TimedKey, V> {
    store: Rc<RefCell<Segmented<T, V>>>,
    cursors: VecDeque<Cursor>,
    buffer: VecDeque<Found<T, V>>,
    wanted: Box<dyn Fn(&T) -> bool>,
}

impl<T: TimedKey, V> fmt::Debug for Scan<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("cursors", &self.cursors)
            .finish_non_exhaustive()
    }
}

impl<T: TimedKey, V: Clone + 'static> Scan<T, V>
where
    T::Key: 'static,
{
    pub(super) fn new(
        store: &Rc<RefCell<Segmented<T, V>>>,
        cursors: VecDeque<Cursor>,
        wanted: impl Fn(&T) -> bool + 'static,
    ) -> Self {
        Self {
            store: Rc::clone(store),
            cursors,
            buffer: VecDeque::new(),
            wanted: Box::new(wanted),
        }
    }

    fn fill(&mut self) -> Result<bool, StateError> {
        let Some(cursor) = self.cursors.front_mut() else {
            return Ok(false);
        };
        if cursor.is_done() {
            self.cursors.pop_front();
            return Ok(true);
        }
        let mut store: RefMut<'_, Segmented<T, V>> = self.store.borrow_mut();
        store
            .store
            .fill_with(cursor, &mut self.buffer, |key, value, time| {
                (key, value, time)
            })?;
        let wanted = &self.wanted;
        self.buffer
            .retain(|(key, _, _)| wanted(key) && !store.is_expired(key.time()));
        Ok(true)
    }
}

impl<T: TimedKey, V: Clone + 'static> Iterator for Scan<T, V>
where
    T::Key: 'static,
{
    type Item = Result<Found<T, V>, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.buffer.pop_front() {
                return Some(Ok(found));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.cursors.clear();
                    self.buffer.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
