//! The handle through which operators share a store.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::ops::{Bound, RangeBounds};
use std::rc::Rc;

use super::overlay::KeyBytes;
use super::range::{Cursor, RefEntries};
use super::{KeyValueStore, StateError, StateStore};
use crate::clock::Timestamp;

/// A shared reference to a task's [`KeyValueStore`]. Cheap to clone; stays on the task's thread.
///
/// # Panics
/// Every method panics when called from within the closure of [`get_with`](Self::get_with) on the
/// same store, or from within its serdes.
pub struct StoreRef<K, V>(Rc<RefCell<KeyValueStore<K, V>>>);

impl<K, V> Clone for StoreRef<K, V> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<K, V> fmt::Debug for StoreRef<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreRef").field(&self.0).finish()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> From<KeyValueStore<K, V>>
    for StoreRef<K, V>
{
    fn from(store: KeyValueStore<K, V>) -> Self {
        Self::new(store)
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> StoreRef<K, V> {
    /// Shares `store`.
    #[must_use]
    pub fn new(store: KeyValueStore<K, V>) -> Self {
        Self(Rc::new(RefCell::new(store)))
    }

    /// Returns the same store as its task sees it.
    #[must_use]
    pub fn state_store(&self) -> Rc<RefCell<dyn StateStore>> {
        Rc::<RefCell<KeyValueStore<K, V>>>::clone(&self.0)
    }

    /// See [`KeyValueStore::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: &K) -> Result<Option<V>, StateError> {
        self.borrow().get(key)
    }

    /// See [`KeyValueStore::get_with`].
    ///
    /// # Errors
    /// As there.
    pub fn get_with<R>(
        &self,
        key: &K,
        look: impl FnOnce(Option<&V>) -> R,
    ) -> Result<R, StateError> {
        self.borrow().get_with(key, look)
    }

    /// See [`KeyValueStore::get_with_timestamp`].
    ///
    /// # Errors
    /// As there.
    pub fn get_with_timestamp(&self, key: &K) -> Result<Option<(V, Timestamp)>, StateError> {
        self.borrow().get_with_timestamp(key)
    }

    /// See [`KeyValueStore::put`].
    ///
    /// # Errors
    /// As there.
    pub fn put(&self, key: K, value: V) -> Result<(), StateError> {
        self.borrow().put(key, value)
    }

    /// See [`KeyValueStore::put_ref`].
    ///
    /// # Errors
    /// As there.
    pub fn put_ref(&self, key: &K, value: V) -> Result<(), StateError> {
        self.borrow().put_ref(key, value)
    }

    /// Writes every entry, in their order. They may be read from this store meanwhile. Nothing more than one
    /// [`put`](Self::put) after the other: what a record writes is one transaction's in any case.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # fn copy(from: &StoreRef<String, i64>, to: &StoreRef<String, i64>) -> Result<(), StateError> {
    /// let entries: Vec<_> = from.prefix_scan(b"eu-").collect::<Result<_, _>>()?;
    /// to.put_all(entries)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put); the record in progress fails, and none of them stays.
    pub fn put_all(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), StateError> {
        entries
            .into_iter()
            .try_for_each(|(key, value)| self.put(key, value))
    }

    /// See [`KeyValueStore::put_if_absent`].
    ///
    /// # Errors
    /// As there.
    pub fn put_if_absent(&self, key: K, value: V) -> Result<Option<V>, StateError> {
        self.borrow().put_if_absent(key, value)
    }

    /// See [`KeyValueStore::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, key: &K) -> Result<Option<V>, StateError> {
        self.borrow().delete(key)
    }

    /// See [`KeyValueStore::range`]. The store may be written while it is iterated.
    ///
    /// # Errors
    /// As there.
    pub fn range(&self, range: impl RangeBounds<K>) -> Result<RefEntries<K, V>, StateError> {
        let cursor = self.borrow().cursor(&range, false)?;
        Ok(RefEntries::new(self.clone(), cursor))
    }

    /// See [`KeyValueStore::reverse_range`].
    ///
    /// # Errors
    /// As there.
    pub fn reverse_range(
        &self,
        range: impl RangeBounds<K>,
    ) -> Result<RefEntries<K, V>, StateError> {
        let cursor = self.borrow().cursor(&range, true)?;
        Ok(RefEntries::new(self.clone(), cursor))
    }

    /// See [`KeyValueStore::prefix_scan`].
    #[must_use]
    pub fn prefix_scan(&self, prefix: &[u8]) -> RefEntries<K, V> {
        RefEntries::new(self.clone(), Cursor::prefix(prefix))
    }

    /// Iterates over the keys whose serialised bytes are `lower` or greater.
    pub(crate) fn range_from(&self, lower: &[u8]) -> RefEntries<K, V> {
        let lower = Bound::Included(KeyBytes::from_slice(lower));
        RefEntries::new(self.clone(), Cursor::new(lower, Bound::Unbounded, false))
    }

    /// See [`KeyValueStore::all`].
    #[must_use]
    pub fn all(&self) -> RefEntries<K, V> {
        self.prefix_scan(&[])
    }

    /// See [`KeyValueStore::approximate_count`].
    ///
    /// # Errors
    /// As there.
    pub fn approximate_count(&self) -> Result<u64, StateError> {
        self.borrow().approximate_count()
    }

    pub(super) fn fill(
        &self,
        cursor: &mut Cursor,
        into: &mut VecDeque<(K, V)>,
    ) -> Result<(), StateError> {
        self.borrow().fill(cursor, into)
    }

    pub(super) fn borrow(&self) -> RefMut<'_, KeyValueStore<K, V>> {
        self.0.borrow_mut()
    }
}
