//! Committed bytes in memory: for stores that are restored from the start of their changelog.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::{BytesIterator, BytesStore, StateError};

type Bytes = Box<[u8]>;

/// How many entries an iterator copies under one lock.
const CHUNK: usize = 256;

/// A shared, ordered map of committed bytes. Cheap to clone; all clones see the same map.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<RwLock<BTreeMap<Bytes, Bytes>>>);

impl MemoryStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a commit: readers see all of it or nothing. Values carry their timestamp
    /// ([`format::value`](crate::format::value)); `None` deletes.
    pub fn apply(&self, entries: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in entries {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
    }

    /// Deletes everything from `from` (inclusive) to `to` (exclusive), at the cost of what goes.
    pub(super) fn delete_range(&self, from: &[u8], to: &[u8]) {
        if from >= to {
            return;
        }
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut middle = map.split_off(from);
        let mut tail = middle.split_off(to);
        map.append(&mut tail);
    }

    /// Returns whether there is nothing in the store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Copies up to `limit` entries between two bounds, all of one committed state.
    pub(super) fn entries(
        &self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> Vec<(Bytes, Bytes)> {
        if let (
            Bound::Included(lower) | Bound::Excluded(lower),
            Bound::Included(upper) | Bound::Excluded(upper),
        ) = (lower, upper)
            && lower >= upper
        {
            return Vec::new();
        }
        let map = self.read();
        let range = map.range::<[u8], _>((lower, upper));
        let copy = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        if reverse {
            range.rev().take(limit).map(copy).collect()
        } else {
            range.take(limit).map(copy).collect()
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Bytes, Bytes>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BytesStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.read().get(key).map(|value| value.to_vec()))
    }

    fn range<'a>(&'a self, from: &[u8], to: Option<&[u8]>, reverse: bool) -> BytesIterator<'a> {
        let mut lower = Bound::Included(Bytes::from(from));
        let mut upper = to.map_or(Bound::Unbounded, |to| Bound::Excluded(Bytes::from(to)));
        let mut chunk = Vec::new().into_iter();
        Box::new(std::iter::from_fn(move || {
            if chunk.len() == 0 {
                let entries = self.entries(as_slice(&lower), as_slice(&upper), reverse, CHUNK);
                if let Some((last, _)) = entries.last() {
                    let side = if reverse { &mut upper } else { &mut lower };
                    *side = Bound::Excluded(last.clone());
                }
                chunk = entries.into_iter();
            }
            chunk.next().map(Ok)
        }))
    }

    fn approximate_count(&self) -> Result<u64, StateError> {
        Ok(self.read().len() as u64)
    }
}

fn as_slice(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|bytes| &**bytes)
}
