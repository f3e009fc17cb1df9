//! Stores of windows: a value per key and window start.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::ops::RangeBounds;
use std::rc::Rc;
use std::sync::Arc;

use super::layout::Segments;
use super::range::Cursor;
use super::segmented::{Scan, Segmented, TimedKey};
use super::{BytesStore, StateError, StateStore};
use crate::clock::Timestamp;
use crate::format::window_key::{put_window, split_window};
use crate::processor::BoxError;
use crate::serde::Serde;
use crate::window::Window;

/// The key of a window store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct WindowKey<K> {
    key: K,
    start: Timestamp,
    /// Tells the values under one key and start apart in a store that keeps duplicates.
    sequence: i32,
}

impl<K: Clone> WindowKey<K> {
    /// The key in a store that keeps no duplicates.
    fn single(key: &K, start: Timestamp) -> Self {
        Self {
            key: key.clone(),
            start,
            sequence: SINGLE,
        }
    }
}

/// The sequence number of a value that is the only one under its key and start.
const SINGLE: i32 = 0;

impl<K: Hash + Eq + Clone + 'static> TimedKey for WindowKey<K> {
    type Key = K;

    fn key(&self) -> &K {
        &self.key
    }

    fn window(&self) -> Window {
        Window::new(self.start, self.start)
    }

    fn time(&self) -> Timestamp {
        self.start
    }

    fn put_suffix(&self, out: &mut Vec<u8>) {
        put_window(out, self.start, self.sequence);
    }

    fn read(
        store_key: &[u8],
        key: impl FnOnce(&[u8]) -> Result<K, BoxError>,
    ) -> Result<Self, BoxError> {
        let (bytes, start, sequence) = split_window(store_key)?;
        Ok(Self {
            key: key(bytes)?,
            start,
            sequence,
        })
    }
}

/// A value of a window store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowEntry<K, V> {
    /// The key.
    pub key: K,
    /// The window's start.
    pub start: Timestamp,
    /// The value.
    pub value: V,
    /// The timestamp the value was written with.
    pub timestamp: Timestamp,
}

/// A shared reference to a task's window store: a value per key and window start, for as long as its
/// retention says. Cheap to clone; stays on the task's thread.
///
/// Kafka Streams' `TimestampedWindowStore`. Entries expire by *observed stream time*, the latest
/// start that was ever put: one that starts at or before that time less the retention is neither read
/// nor written. Scans see this transaction's writes.
///
/// # Panics
/// When it is used from within its serdes.
pub struct WindowStore<K, V>(Rc<RefCell<Segmented<WindowKey<K>, V>>>)
where
    K: Hash + Eq + Clone + 'static;

impl<K: Hash + Eq + Clone + 'static, V> Clone for WindowStore<K, V> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone + 'static, V> fmt::Debug for WindowStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WindowStore").field(&self.0).finish()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> WindowStore<K, V> {
    /// Creates a store above `backend`, whose keys are local ones. `timestamp` is the task's, read at
    /// each write.
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
        segments: Segments,
    ) -> Result<Self, StateError> {
        let store = Segmented::new(
            name,
            backend,
            key_serde,
            value_serde,
            timestamp,
            cache_bytes,
            segments,
        )?;
        Ok(Self(Rc::new(RefCell::new(store))))
    }

    /// Returns the same store as its task sees it.
    #[must_use]
    pub fn state_store(&self) -> Rc<RefCell<dyn StateStore>> {
        Rc::<RefCell<Segmented<WindowKey<K>, V>>>::clone(&self.0)
    }

    /// Writes the value of `key` in the window that starts at `start`, with the timestamp in
    /// progress. Returns `false` when the window has expired, and writes nothing then.
    ///
    /// # Errors
    /// [`StateError::Encode`] when the key has no bytes.
    pub fn put(&self, key: K, value: V, start: Timestamp) -> Result<bool, StateError> {
        let sequence = SINGLE;
        let key = WindowKey {
            key,
            start,
            sequence,
        };
        self.0.borrow_mut().put(key, value)
    }

    /// Writes another value of `key` at `start`, beside those that are there: a store is written with
    /// this or with [`put`](Self::put). Kafka Streams' `retainDuplicates`; scans return values of one
    /// key and start in the order they were written in.
    ///
    /// The store's layout must be [`Layout::Duplicates`](super::Layout::Duplicates), which keeps the
    /// sequence numbers over restarts. An expired value takes no number: those given out are those in
    /// the changelog, so that a restart changes none that follow.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub(crate) fn put_another(
        &self,
        key: K,
        value: V,
        start: Timestamp,
    ) -> Result<bool, StateError> {
        let mut store = self.0.borrow_mut();
        if store.is_expired(start) {
            return Ok(false);
        }
        let sequence = store.next_sequence();
        let key = WindowKey {
            key,
            start,
            sequence,
        };
        store.put(key, value)
    }

    /// Deletes the value of `key` in the window that starts at `start`; returns what was there.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn delete(&self, key: &K, start: Timestamp) -> Result<Option<V>, StateError> {
        self.0.borrow_mut().delete(&WindowKey::single(key, start))
    }

    /// Returns the value of `key` in the window that starts at `start`.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn fetch(&self, key: &K, start: Timestamp) -> Result<Option<V>, StateError> {
        let found = self.fetch_with_timestamp(key, start)?;
        Ok(found.map(|(value, _)| value))
    }

    /// As [`fetch`](Self::fetch), with the timestamp that the value was written with.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub fn fetch_with_timestamp(
        &self,
        key: &K,
        start: Timestamp,
    ) -> Result<Option<(V, Timestamp)>, StateError> {
        self.0.borrow_mut().get(&WindowKey::single(key, start))
    }

    /// Iterates over the windows of `key` with starts in `starts`, in order.
    ///
    /// # Errors
    /// [`StateError::Encode`] when the key has no bytes.
    pub fn fetch_range(
        &self,
        key: &K,
        starts: impl RangeBounds<Timestamp>,
    ) -> Result<WindowEntries<K, V>, StateError> {
        self.of_key(key, &starts, false)
    }

    /// As [`fetch_range`](Self::fetch_range), the latest first.
    ///
    /// # Errors
    /// As [`fetch_range`](Self::fetch_range).
    pub fn backward_fetch_range(
        &self,
        key: &K,
        starts: impl RangeBounds<Timestamp>,
    ) -> Result<WindowEntries<K, V>, StateError> {
        self.of_key(key, &starts, true)
    }

    /// Iterates over the windows of all keys with starts in `starts`: by segment, within one by the
    /// serialised key, then by start. Reads the segments whole that hold these starts.
    pub fn fetch_all(&self, starts: impl RangeBounds<Timestamp>) -> WindowEntries<K, V> {
        self.of_all(&starts, false)
    }

    /// As [`fetch_all`](Self::fetch_all), backwards.
    pub fn backward_fetch_all(&self, starts: impl RangeBounds<Timestamp>) -> WindowEntries<K, V> {
        self.of_all(&starts, true)
    }

    /// Iterates over the windows of the keys in `keys` with starts in `starts`, in the order of
    /// [`fetch_all`](Self::fetch_all). Keys are compared by their serialised bytes.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # fn sum(store: &WindowStore<String, i64>) -> Result<i64, StateError> {
    /// let mut sum = 0;
    /// for entry in store.fetch_key_range("a".to_owned()..="f".to_owned(), 0..60_000)? {
    ///     sum += entry?.value;
    /// }
    /// # Ok(sum)
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`StateError::Encode`] when a bound has no bytes.
    pub fn fetch_key_range(
        &self,
        keys: impl RangeBounds<K>,
        starts: impl RangeBounds<Timestamp>,
    ) -> Result<WindowEntries<K, V>, StateError> {
        self.of_keys(&keys, &starts, false)
    }

    /// As [`fetch_key_range`](Self::fetch_key_range), backwards.
    ///
    /// # Errors
    /// As [`fetch_key_range`](Self::fetch_key_range).
    pub fn backward_fetch_key_range(
        &self,
        keys: impl RangeBounds<K>,
        starts: impl RangeBounds<Timestamp>,
    ) -> Result<WindowEntries<K, V>, StateError> {
        self.of_keys(&keys, &starts, true)
    }

    /// Iterates over everything in the order of [`fetch_all`](Self::fetch_all).
    #[must_use]
    pub fn all(&self) -> WindowEntries<K, V> {
        self.fetch_all(..)
    }

    /// As [`all`](Self::all), backwards.
    #[must_use]
    pub fn backward_all(&self) -> WindowEntries<K, V> {
        self.backward_fetch_all(..)
    }

    /// Returns the latest start that was ever put.
    #[must_use]
    pub fn observed_stream_time(&self) -> Option<Timestamp> {
        self.0.borrow().observed()
    }

    fn of_key(
        &self,
        key: &K,
        starts: &impl RangeBounds<Timestamp>,
        reverse: bool,
    ) -> Result<WindowEntries<K, V>, StateError> {
        let store = self.0.borrow();
        let Some((from, to)) = store.live(starts) else {
            return Ok(self.scan(VecDeque::new(), |_| false));
        };
        let cursors = store.cursors_of_key(key, (from, to), reverse, |lower, upper| {
            put_window(lower, from, 0);
            put_window(upper, to, i32::MAX);
        })?;
        drop(store);
        // Bytes of another key may lie between: `a` with a late start, and `a…` with an early one.
        let key = key.clone();
        Ok(self.scan(cursors, move |found| found.key == key))
    }

    fn of_keys(
        &self,
        keys: &impl RangeBounds<K>,
        starts: &impl RangeBounds<Timestamp>,
        reverse: bool,
    ) -> Result<WindowEntries<K, V>, StateError> {
        let store = self.0.borrow();
        let Some((from, to)) = store.live(starts) else {
            return Ok(self.scan(VecDeque::new(), |_| false));
        };
        let keys = store.key_bounds(keys)?;
        let cursors = store.cursors_of_keys(&keys, (from, to), reverse);
        let serde = store.key_serde();
        drop(store);
        Ok(self.scan(cursors, move |found| {
            (from..=to).contains(&found.start) && keys.contain(&*serde, &found.key)
        }))
    }

    fn of_all(&self, starts: &impl RangeBounds<Timestamp>, reverse: bool) -> WindowEntries<K, V> {
        let store = self.0.borrow();
        let Some((from, to)) = store.live(starts) else {
            return self.scan(VecDeque::new(), |_| false);
        };
        let cursors = VecDeque::from([store.cursor_of_times((from, to), reverse)]);
        drop(store);
        self.scan(cursors, move |found| (from..=to).contains(&found.start))
    }

    fn scan(
        &self,
        cursors: VecDeque<Cursor>,
        wanted: impl Fn(&WindowKey<K>) -> bool + 'static,
    ) -> WindowEntries<K, V> {
        WindowEntries(Scan::new(&self.0, cursors, wanted))
    }
}

/// A scan of a window store, which may be written meanwhile.
pub struct WindowEntries<K: Hash + Eq + Clone + 'static, V>(Scan<WindowKey<K>, V>);

impl<K: Hash + Eq + Clone + 'static, V> fmt::Debug for WindowEntries<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WindowEntries").field(&self.0).finish()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> Iterator for WindowEntries<K, V> {
    type Item = Result<WindowEntry<K, V>, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.0.next()?;
        Some(found.map(
            |(WindowKey { key, start, .. }, value, timestamp)| WindowEntry {
                key,
                start,
                value,
                timestamp,
            },
        ))
    }
}
