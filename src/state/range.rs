//! Iteration over a store's keys in the order of their serialised bytes.
//!
//! Entries are fetched in chunks, so that no lock, snapshot or borrow outlives a call of `next`: a
//! store may be written while it is iterated, and a scan holds a bounded number of entries. A write
//! ahead of the scan is seen, one behind it is not; a scan never returns a key twice.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::ops::Bound;

use super::overlay::KeyBytes;
use super::{KeyValueStore, StateError, StoreRef};

/// The first chunk is small, since many scans stop early; then they double.
const FIRST_CHUNK: usize = 16;
const LARGEST_CHUNK: usize = 1024;

/// Where a scan is: the bounds of what is left of it.
#[derive(Debug)]
pub(super) struct Cursor {
    /// Inclusive.
    lower: KeyBytes,
    /// Exclusive.
    upper: Option<KeyBytes>,
    reverse: bool,
    chunk: usize,
    done: bool,
}

impl Cursor {
    pub(super) fn new(lower: Bound<KeyBytes>, upper: Bound<KeyBytes>, reverse: bool) -> Self {
        let lower = match lower {
            Bound::Included(key) => key,
            Bound::Excluded(key) => successor(key),
            Bound::Unbounded => KeyBytes::new(),
        };
        let upper = match upper {
            Bound::Included(key) => Some(successor(key)),
            Bound::Excluded(key) => Some(key),
            Bound::Unbounded => None,
        };
        let done = upper.as_ref().is_some_and(|upper| *upper <= lower);
        Self {
            lower,
            upper,
            reverse,
            chunk: FIRST_CHUNK,
            done,
        }
    }

    pub(super) fn prefix(prefix: &[u8]) -> Self {
        let lower = Bound::Included(KeyBytes::from_slice(prefix));
        let upper = prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self::new(lower, upper, false)
    }

    /// Fetches entries one by one: for a scan that wants the first only.
    pub(super) const fn one_at_a_time(mut self) -> Self {
        self.chunk = 1;
        self
    }

    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    pub(super) const fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// The bounds as a backend takes them: inclusive, exclusive.
    pub(super) fn bytes(&self) -> (&[u8], Option<&[u8]>) {
        (&self.lower, self.upper.as_deref())
    }

    pub(super) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let upper = self
            .upper
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        (Bound::Included(&self.lower), upper)
    }

    pub(super) fn next_chunk(&mut self) -> usize {
        let chunk = self.chunk;
        self.chunk = (2 * chunk).min(LARGEST_CHUNK);
        chunk
    }

    /// Leaves everything up to `last` behind; `more` says whether there may be anything beyond.
    pub(super) fn advance(&mut self, last: Option<KeyBytes>, more: bool) {
        self.done = !more;
        match last {
            Some(last) if self.reverse => self.upper = Some(last),
            Some(last) => self.lower = successor(last),
            None => self.done = true,
        }
    }
}

/// The next key in byte order.
fn successor(mut key: KeyBytes) -> KeyBytes {
    key.push(0);
    key
}

/// The first key beyond all that start with `prefix`; `None` when there is none.
fn prefix_end(prefix: &[u8]) -> Option<KeyBytes> {
    let mut end = KeyBytes::from_slice(prefix);
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// A scan of a store that is borrowed meanwhile.
pub struct Entries<'a, K, V> {
    store: &'a mut KeyValueStore<K, V>,
    cursor: Cursor,
    buffer: VecDeque<(K, V)>,
}

impl<'a, K, V> Entries<'a, K, V> {
    pub(super) fn new(store: &'a mut KeyValueStore<K, V>, cursor: Cursor) -> Self {
        Self {
            store,
            cursor,
            buffer: VecDeque::new(),
        }
    }
}

impl<K, V> fmt::Debug for Entries<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> Iterator for Entries<'_, K, V> {
    type Item = Result<(K, V), StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        next(&mut self.cursor, &mut self.buffer, |cursor, buffer| {
            self.store.fill(cursor, buffer)
        })
    }
}

/// A scan through a [`StoreRef`]. The store is borrowed within `next` only and may be written in
/// between.
pub struct RefEntries<K, V> {
    store: StoreRef<K, V>,
    cursor: Cursor,
    buffer: VecDeque<(K, V)>,
}

impl<K, V> RefEntries<K, V> {
    pub(super) fn new(store: StoreRef<K, V>, cursor: Cursor) -> Self {
        Self {
            store,
            cursor,
            buffer: VecDeque::new(),
        }
    }
}

impl<K, V> fmt::Debug for RefEntries<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefEntries")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> Iterator for RefEntries<K, V> {
    type Item = Result<(K, V), StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        next(&mut self.cursor, &mut self.buffer, |cursor, buffer| {
            self.store.fill(cursor, buffer)
        })
    }
}

fn next<K, V>(
    cursor: &mut Cursor,
    buffer: &mut VecDeque<(K, V)>,
    fill: impl FnOnce(&mut Cursor, &mut VecDeque<(K, V)>) -> Result<(), StateError>,
) -> Option<Result<(K, V), StateError>> {
    if buffer.is_empty()
        && !cursor.done
        && let Err(error) = fill(cursor, buffer)
    {
        cursor.done = true;
        buffer.clear();
        return Some(Err(error));
    }
    buffer.pop_front().map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_prefix() {
        assert_eq!(prefix_end(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(prefix_end(b"a\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn an_inverted_range_is_empty_from_the_start() {
        let key = |bytes: &[u8]| KeyBytes::from_slice(bytes);
        assert!(
            Cursor::new(
                Bound::Included(key(b"b")),
                Bound::Included(key(b"a")),
                false
            )
            .done
        );
        assert!(
            Cursor::new(
                Bound::Excluded(key(b"a")),
                Bound::Included(key(b"a")),
                false
            )
            .done
        );
        assert!(
            !Cursor::new(
                Bound::Included(key(b"a")),
                Bound::Included(key(b"a")),
                false
            )
            .done
        );
    }
}
