//! A store that its operators only read.

use std::fmt;
use std::hash::Hash;
use std::ops::RangeBounds;

use super::range::RefEntries;
use super::{StateError, StoreRef};
use crate::clock::Timestamp;

/// A shared reference to a task's store that does not write. Cheap to clone; stays on the task's thread.
///
/// # Panics
/// As [`StoreRef`].
pub struct ReadOnlyStore<K, V>(StoreRef<K, V>);

impl<K, V> Clone for ReadOnlyStore<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> fmt::Debug for ReadOnlyStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadOnlyStore").field(&self.0).finish()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> ReadOnlyStore<K, V> {
    pub(crate) const fn new(store: StoreRef<K, V>) -> Self {
        Self(store)
    }

    /// See [`StoreRef::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: &K) -> Result<Option<V>, StateError> {
        self.0.get(key)
    }

    /// See [`StoreRef::get_with`].
    ///
    /// # Errors
    /// As there.
    pub fn get_with<R>(
        &self,
        key: &K,
        look: impl FnOnce(Option<&V>) -> R,
    ) -> Result<R, StateError> {
        self.0.get_with(key, look)
    }

    /// See [`StoreRef::get_with_timestamp`].
    ///
    /// # Errors
    /// As there.
    pub fn get_with_timestamp(&self, key: &K) -> Result<Option<(V, Timestamp)>, StateError> {
        self.0.get_with_timestamp(key)
    }

    /// See [`StoreRef::range`].
    ///
    /// # Errors
    /// As there.
    pub fn range(&self, range: impl RangeBounds<K>) -> Result<RefEntries<K, V>, StateError> {
        self.0.range(range)
    }

    /// See [`StoreRef::reverse_range`].
    ///
    /// # Errors
    /// As there.
    pub fn reverse_range(
        &self,
        range: impl RangeBounds<K>,
    ) -> Result<RefEntries<K, V>, StateError> {
        self.0.reverse_range(range)
    }

    /// See [`StoreRef::prefix_scan`].
    #[must_use]
    pub fn prefix_scan(&self, prefix: &[u8]) -> RefEntries<K, V> {
        self.0.prefix_scan(prefix)
    }

    /// See [`StoreRef::all`].
    #[must_use]
    pub fn all(&self) -> RefEntries<K, V> {
        self.0.all()
    }

    /// See [`StoreRef::approximate_count`].
    ///
    /// # Errors
    /// As there.
    pub fn approximate_count(&self) -> Result<u64, StateError> {
        self.0.approximate_count()
    }
}
