//! Stores of sessions: a value per key and session.

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
use crate::format::window_key::{put_session, split_session};
use crate::processor::BoxError;
use crate::serde::Serde;
use crate::window::{Window, Windowed};

/// The key of a session store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SessionKey<K>(Windowed<K>);

impl<K: Hash + Eq + Clone + 'static> TimedKey for SessionKey<K> {
    type Key = K;

    fn key(&self) -> &K {
        &self.0.key
    }

    fn window(&self) -> Window {
        self.0.window
    }

    fn time(&self) -> Timestamp {
        self.0.window.end()
    }

    fn put_suffix(&self, out: &mut Vec<u8>) {
        put_session(out, self.0.window);
    }

    fn read(
        store_key: &[u8],
        key: impl FnOnce(&[u8]) -> Result<K, BoxError>,
    ) -> Result<Self, BoxError> {
        let (bytes, window) = split_session(store_key)?;
        Ok(Self(Windowed::new(key(bytes)?, window)))
    }
}

/// A shared reference to a task's session store: a value per key and session, for as long as its
/// retention says. Cheap to clone; stays on the task's thread.
///
/// Kafka Streams' `SessionStore`. Sessions expire by *observed stream time*, the latest end that was
/// ever put. Scans see this transaction's writes.
///
/// # Panics
/// When it is used from within its serdes.
pub struct SessionStore<K, V>(Rc<RefCell<Segmented<SessionKey<K>, V>>>)
where
    K: Hash + Eq + Clone + 'static;

impl<K: Hash + Eq + Clone + 'static, V> Clone for SessionStore<K, V> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone + 'static, V> fmt::Debug for SessionStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionStore").field(&self.0).finish()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> SessionStore<K, V> {
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
        Rc::<RefCell<Segmented<SessionKey<K>, V>>>::clone(&self.0)
    }

    /// Writes the value of a session, with the timestamp in progress. Returns `false` when the
    /// session has expired, and writes nothing then.
    ///
    /// # Errors
    /// [`StateError::Encode`] when the key has no bytes.
    pub fn put(&self, session: Windowed<K>, value: V) -> Result<bool, StateError> {
        self.0.borrow_mut().put(SessionKey(session), value)
    }

    /// Removes a session; returns what was there.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn remove(&self, session: &Windowed<K>) -> Result<Option<V>, StateError> {
        let key = SessionKey(session.clone());
        self.0.borrow_mut().delete(&key)
    }

    /// Returns the value of a session.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn fetch_session(&self, session: &Windowed<K>) -> Result<Option<V>, StateError> {
        let key = SessionKey(session.clone());
        let found = self.0.borrow_mut().get(&key)?;
        Ok(found.map(|(value, _)| value))
    }

    /// Returns the value of the session of `key` from `start` to `end`.
    ///
    /// # Errors
    /// Any [`StateError`] is fatal to the task.
    pub fn fetch_session_at(
        &self,
        key: &K,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Option<V>, StateError> {
        self.fetch_session(&Windowed::new(key.clone(), Window::new(start, end)))
    }

    /// Iterates over all sessions of `key` by their end, then their start.
    ///
    /// # Errors
    /// [`StateError::Encode`] when the key has no bytes.
    pub fn fetch(&self, key: &K) -> Result<SessionEntries<K, V>, StateError> {
        self.find_sessions(key, 0, i64::MAX)
    }

    /// As [`fetch`](Self::fetch), the latest first.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub fn backward_fetch(&self, key: &K) -> Result<SessionEntries<K, V>, StateError> {
        self.backward_find_sessions(key, 0, i64::MAX)
    }

    /// Iterates over all sessions of the keys in `keys`, in the order of
    /// [`find_ended`](Self::find_ended). Keys are compared by their serialised bytes.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # fn sum(store: &SessionStore<String, i64>) -> Result<i64, StateError> {
    /// let mut sum = 0;
    /// for session in store.fetch_key_range("a".to_owned()..="f".to_owned())? {
    ///     sum += session?.1;
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
    ) -> Result<SessionEntries<K, V>, StateError> {
        self.of_keys(&keys, 0, i64::MAX, false)
    }

    /// As [`fetch_key_range`](Self::fetch_key_range), backwards.
    ///
    /// # Errors
    /// As [`fetch_key_range`](Self::fetch_key_range).
    pub fn backward_fetch_key_range(
        &self,
        keys: impl RangeBounds<K>,
    ) -> Result<SessionEntries<K, V>, StateError> {
        self.of_keys(&keys, 0, i64::MAX, true)
    }

    /// Iterates over the sessions of the keys in `keys` that end at `earliest_end` or later and start
    /// at `latest_start` or earlier, in the order of [`find_ended`](Self::find_ended).
    ///
    /// # Errors
    /// As [`fetch_key_range`](Self::fetch_key_range).
    pub fn find_sessions_of_keys(
        &self,
        keys: impl RangeBounds<K>,
        earliest_end: Timestamp,
        latest_start: Timestamp,
    ) -> Result<SessionEntries<K, V>, StateError> {
        self.of_keys(&keys, earliest_end, latest_start, false)
    }

    /// As [`find_sessions_of_keys`](Self::find_sessions_of_keys), backwards.
    ///
    /// # Errors
    /// As [`fetch_key_range`](Self::fetch_key_range).
    pub fn backward_find_sessions_of_keys(
        &self,
        keys: impl RangeBounds<K>,
        earliest_end: Timestamp,
        latest_start: Timestamp,
    ) -> Result<SessionEntries<K, V>, StateError> {
        self.of_keys(&keys, earliest_end, latest_start, true)
    }

    /// Iterates over the sessions of `key` that end at `earliest_end` or later and start at
    /// `latest_start` or earlier, by their end, then their start.
    ///
    /// # Errors
    /// [`StateError::Encode`] when the key has no bytes.
    pub fn find_sessions(
        &self,
        key: &K,
        earliest_end: Timestamp,
        latest_start: Timestamp,
    ) -> Result<SessionEntries<K, V>, StateError> {
        self.of_key(key, earliest_end, latest_start, false)
    }

    /// As [`find_sessions`](Self::find_sessions), the latest first.
    ///
    /// # Errors
    /// As [`find_sessions`](Self::find_sessions).
    pub fn backward_find_sessions(
        &self,
        key: &K,
        earliest_end: Timestamp,
        latest_start: Timestamp,
    ) -> Result<SessionEntries<K, V>, StateError> {
        self.of_key(key, earliest_end, latest_start, true)
    }

    /// Iterates over the sessions of all keys with ends in `ends`: by segment, within one by the
    /// serialised key, then by end. Reads the segments whole that hold these ends.
    pub fn find_ended(&self, ends: impl RangeBounds<Timestamp>) -> SessionEntries<K, V> {
        let store = self.0.borrow();
        let Some((from, to)) = store.live(&ends) else {
            return self.scan(VecDeque::new(), |_| false);
        };
        let cursors = VecDeque::from([store.cursor_of_times((from, to), false)]);
        drop(store);
        self.scan(cursors, move |found| {
            (from..=to).contains(&found.0.window.end())
        })
    }

    /// Returns the latest end that was ever put.
    #[must_use]
    pub fn observed_stream_time(&self) -> Option<Timestamp> {
        self.0.borrow().observed()
    }

    fn of_keys(
        &self,
        keys: &impl RangeBounds<K>,
        earliest_end: Timestamp,
        latest_start: Timestamp,
        reverse: bool,
    ) -> Result<SessionEntries<K, V>, StateError> {
        let store = self.0.borrow();
        let Some((from, to)) = store.live(&(earliest_end..)) else {
            return Ok(self.scan(VecDeque::new(), |_| false));
        };
        let keys = store.key_bounds(keys)?;
        let cursors = store.cursors_of_keys(&keys, (from, to), reverse);
        let serde = store.key_serde();
        drop(store);
        Ok(self.scan(cursors, move |found| {
            found.0.window.end() >= from
                && found.0.window.start() <= latest_start
                && keys.contain(&*serde, &found.0.key)
        }))
    }

    fn of_key(
        &self,
        key: &K,
        earliest_end: Timestamp,
        latest_start: Timestamp,
        reverse: bool,
    ) -> Result<SessionEntries<K, V>, StateError> {
        let store = self.0.borrow();
        let Some((from, to)) = store.live(&(earliest_end..)) else {
            return Ok(self.scan(VecDeque::new(), |_| false));
        };
        let cursors = store.cursors_of_key(key, (from, to), reverse, |lower, upper| {
            put_session(lower, Window::new(0, from));
            put_session(upper, Window::new(to, to));
        })?;
        drop(store);
        let key = key.clone();
        Ok(self.scan(cursors, move |found| {
            found.0.key == key
                && found.0.window.end() >= from
                && found.0.window.start() <= latest_start
        }))
    }

    fn scan(
        &self,
        cursors: VecDeque<Cursor>,
        wanted: impl Fn(&SessionKey<K>) -> bool + 'static,
    ) -> SessionEntries<K, V> {
        SessionEntries(Scan::new(&self.0, cursors, wanted))
    }
}

/// A scan of a session store, which may be written meanwhile.
pub struct SessionEntries<K: Hash + Eq + Clone + 'static, V>(Scan<SessionKey<K>, V>);

impl<K: Hash + Eq + Clone + 'static, V> fmt::Debug for SessionEntries<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionEntries").field(&self.0).finish()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> Iterator for SessionEntries<K, V> {
    type Item = Result<(Windowed<K>, V), StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.0.next()?;
        Some(found.map(|(SessionKey(session), value, _)| (session, value)))
    }
}
