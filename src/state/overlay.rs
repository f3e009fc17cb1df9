//! The typed write-back overlay: what a task knows about a store beyond its committed bytes.
//!
//! # Position
//! Below [`KeyValueStore`](super::KeyValueStore), which reads misses from the backend and knows the
//! serdes; this module knows neither.
//! # Invariants
//! - An entry is *dirty* from its first write until the transaction's outcome is known. Everything
//!   else is *clean*: what committed bytes say, absence included, kept within a byte budget.
//! - The journal holds, for each entry the record in progress has written, what it was before, moved
//!   and not cloned. Undoing costs the record's writes, not the transaction's.
//! - `dirty` is in order of first write, so that the record in progress owns its tail.
//!
//! ```text
//! absent ──read──▶ clean ──write──▶ dirty ──commit──▶ clean ──evict──▶ absent
//!    └──────────────write────────────▲ └──abort, or rollback of a blind write──▶ absent
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::ops::Bound;

use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;

use crate::clock::Timestamp;

/// A serialised key; most are short.
pub(super) type KeyBytes = SmallVec<[u8; 24]>;

/// The index of a live entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At(u32);

/// What is known under a key.
#[derive(Debug)]
struct Held<V> {
    value: Option<V>,
    timestamp: Timestamp,
    dirty: bool,
    /// The serialised size, or a guess until the first serialisation.
    value_bytes: usize,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    hash: u64,
    key_bytes: KeyBytes,
    held: Held<V>,
    /// Second chance: read or written since the eviction hand last passed.
    referenced: bool,
    /// The record that last put this entry into the journal.
    journaled_in: u64,
}

#[derive(Debug)]
struct Position<K, V> {
    entry: Option<Entry<K, V>>,
    /// Whether the eviction queue names this position (perhaps for an entry that is gone).
    queued: bool,
}

#[derive(Debug)]
struct Undo<V> {
    at: At,
    /// `None`: there was no entry.
    before: Option<Held<V>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Overlay<K, V> {
    hasher: DefaultHashBuilder,
    index: HashTable<At>,
    positions: Vec<Position<K, V>>,
    free: Vec<At>,
    journal: Vec<Undo<V>>,
    dirty: Vec<At>,
    /// How many of `dirty` were dirty before the record in progress.
    dirty_before_record: usize,
    /// Counts savepoints; 0 is never current.
    record: u64,
    /// Dirty entries by key bytes: built by the first range scan of a transaction, kept up after.
    sorted: Option<BTreeMap<KeyBytes, At>>,
    /// Clean entries in eviction order; those that became dirty are dropped when met.
    clean_queue: VecDeque<At>,
    clean_bytes: usize,
    dirty_bytes: usize,
    clean_budget: usize,
}

impl<K, V> Entry<K, V> {
    /// The typed and the serialised key, the value as if serialised, and the entry itself.
    fn cost(&self) -> usize {
        Self::cost_of(self.key_bytes.len(), self.held.value_bytes)
    }

    fn cost_of(key_bytes: usize, value_bytes: usize) -> usize {
        2 * key_bytes + value_bytes + size_of::<Position<K, V>>() + size_of::<At>()
    }
}

impl<K: Hash + Eq, V> Overlay<K, V> {
    pub(super) fn new(clean_budget: usize) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            positions: Vec::new(),
            free: Vec::new(),
            journal: Vec::new(),
            dirty: Vec::new(),
            dirty_before_record: 0,
            record: 1,
            sorted: None,
            clean_queue: VecDeque::new(),
            clean_bytes: 0,
            dirty_bytes: 0,
            clean_budget,
        }
    }

    pub(super) fn hash(&self, key: &K) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Returns the entry of `key` and marks it as used.
    pub(super) fn find(&mut self, hash: u64, key: &K) -> Option<At> {
        let positions = &self.positions;
        let at = *self
            .index
            .find(hash, |&at| entry(positions, at).key == *key)?;
        entry_mut(&mut self.positions, at).referenced = true;
        Some(at)
    }

    pub(super) fn get(&self, at: At) -> (Option<&V>, Timestamp) {
        let held = &entry(&self.positions, at).held;
        (held.value.as_ref(), held.timestamp)
    }

    pub(super) fn key(&self, at: At) -> &K {
        &entry(&self.positions, at).key
    }

    pub(super) fn key_bytes(&self, at: At) -> &[u8] {
        &entry(&self.positions, at).key_bytes
    }

    /// Adds what committed bytes say about a key. Evicts nothing: the caller is about to use it.
    pub(super) fn insert_clean(
        &mut self,
        hash: u64,
        key: K,
        key_bytes: KeyBytes,
        value: Option<(V, Timestamp)>,
        value_bytes: usize,
    ) -> At {
        let (value, timestamp) = value.map_or((None, 0), |(value, time)| (Some(value), time));
        let held = Held {
            value,
            timestamp,
            dirty: false,
            value_bytes,
        };
        self.clean_bytes += Entry::<K, V>::cost_of(key_bytes.len(), value_bytes);
        let entry = Entry {
            key,
            hash,
            key_bytes,
            held,
            referenced: false,
            journaled_in: 0,
        };
        let at = self.insert(entry);
        self.enqueue(at);
        at
    }

    /// Writes to a key of which nothing is known.
    pub(super) fn insert_dirty(
        &mut self,
        hash: u64,
        key: K,
        key_bytes: KeyBytes,
        value: Option<V>,
        timestamp: Timestamp,
        value_bytes: usize,
    ) {
        self.dirty_bytes += Entry::<K, V>::cost_of(key_bytes.len(), value_bytes);
        let held = Held {
            value,
            timestamp,
            dirty: true,
            value_bytes,
        };
        let journaled_in = self.record;
        let at = self.insert(Entry {
            key,
            hash,
            key_bytes,
            held,
            referenced: true,
            journaled_in,
        });
        self.journal.push(Undo { at, before: None });
        self.add_dirty(at);
    }

    /// Writes to a known key.
    pub(super) fn write(
        &mut self,
        at: At,
        value: Option<V>,
        timestamp: Timestamp,
        value_bytes: usize,
    ) {
        let record = self.record;
        let entry = entry_mut(&mut self.positions, at);
        let cost_before = entry.cost();
        let new = Held {
            value,
            timestamp,
            dirty: true,
            value_bytes,
        };
        let before = std::mem::replace(&mut entry.held, new);
        let cost = entry.cost();
        let was_dirty = before.dirty;
        if entry.journaled_in != record {
            entry.journaled_in = record;
            self.journal.push(Undo {
                at,
                before: Some(before),
            });
        }
        self.dirty_bytes += cost;
        if was_dirty {
            self.dirty_bytes -= cost_before;
        } else {
            self.clean_bytes -= cost_before;
            self.add_dirty(at);
        }
    }

    pub(super) fn release(&mut self) {
        self.journal.clear();
        self.next_record();
    }

    pub(super) fn rollback(&mut self) {
        for at in self.dirty.drain(self.dirty_before_record..) {
            if let Some(sorted) = &mut self.sorted {
                sorted.remove(&entry(&self.positions, at).key_bytes);
            }
        }
        while let Some(Undo { at, before }) = self.journal.pop() {
            let entry = entry_mut(&mut self.positions, at);
            self.dirty_bytes -= entry.cost();
            let Some(before) = before else {
                self.remove(at);
                continue;
            };
            let dirty = before.dirty;
            entry.held = before;
            let cost = entry.cost();
            if dirty {
                self.dirty_bytes += cost;
            } else {
                self.clean_bytes += cost;
                self.enqueue(at);
            }
        }
        self.next_record();
        self.evict();
    }

    /// The transaction's writes are gone; what was only read stays.
    pub(super) fn discard(&mut self) {
        self.journal.clear();
        for at in std::mem::take(&mut self.dirty) {
            self.remove(at);
        }
        self.dirty_bytes = 0;
        self.sorted = None;
        self.next_record();
    }

    /// The transaction's writes are what committed bytes say now.
    pub(super) fn mark_committed(&mut self) {
        assert!(
            self.journal.is_empty(),
            "a commit while a record is in progress"
        );
        for at in std::mem::take(&mut self.dirty) {
            entry_mut(&mut self.positions, at).held.dirty = false;
            self.enqueue(at);
        }
        self.clean_bytes += std::mem::take(&mut self.dirty_bytes);
        self.sorted = None;
        self.next_record();
        self.evict();
    }

    /// Returns the dirty entries in key order.
    pub(super) fn dirty_in_key_order(&self) -> Vec<At> {
        assert!(
            self.journal.is_empty(),
            "a commit while a record is in progress"
        );
        if let Some(sorted) = &self.sorted {
            return sorted.values().copied().collect();
        }
        // Comparing the first 16 bytes out of line with the entries keeps the sort in cache.
        let mut keyed: Vec<_> = self
            .dirty
            .iter()
            .map(|&at| (leading_bytes(self.key_bytes(at)), at))
            .collect();
        keyed.sort_unstable_by(|(left, left_at), (right, right_at)| {
            left.cmp(right)
                .then_with(|| self.key_bytes(*left_at).cmp(self.key_bytes(*right_at)))
        });
        keyed.into_iter().map(|(_, at)| at).collect()
    }

    /// Returns the dirty entries in the order of their first writes.
    pub(super) fn dirty_in_write_order(&self) -> Vec<At> {
        assert!(
            self.journal.is_empty(),
            "a commit while a record is in progress"
        );
        self.dirty.clone()
    }

    /// Notes the true serialised size of a dirty value; `None` makes it a delete.
    pub(super) fn serialised(&mut self, at: At, value_bytes: Option<usize>) {
        let entry = entry_mut(&mut self.positions, at);
        self.dirty_bytes -= entry.cost();
        entry.held.value_bytes = value_bytes.unwrap_or(0);
        if value_bytes.is_none() {
            entry.held.value = None;
        }
        self.dirty_bytes += entry.cost();
    }

    /// Returns the first (or last) dirty entry between two bounds of key bytes.
    pub(super) fn next_dirty(
        &mut self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        reverse: bool,
    ) -> Option<At> {
        if self.dirty.is_empty() || is_empty_range(lower, upper) {
            return None;
        }
        let sorted = self.sorted.get_or_insert_with(|| {
            let key = |&at: &At| (entry(&self.positions, at).key_bytes.clone(), at);
            self.dirty.iter().map(key).collect()
        });
        let mut range = sorted.range::<[u8], _>((lower, upper));
        let found = if reverse {
            range.next_back()
        } else {
            range.next()
        };
        found.map(|(_, at)| *at)
    }

    /// Keeps to another budget for clean entries from now on.
    pub(super) fn set_clean_budget(&mut self, bytes: usize) {
        self.clean_budget = bytes;
        self.evict();
    }

    /// Drops clean entries until the budget holds: first those not used since the last pass.
    pub(super) fn evict(&mut self) {
        while self.clean_bytes > self.clean_budget {
            let Some(at) = self.clean_queue.pop_front() else {
                break;
            };
            let position = position_mut(&mut self.positions, at);
            position.queued = false;
            let Some(entry) = &mut position.entry else {
                continue;
            };
            if entry.held.dirty {
                continue;
            }
            if std::mem::take(&mut entry.referenced) {
                position.queued = true;
                self.clean_queue.push_back(at);
            } else {
                self.clean_bytes -= entry.cost();
                self.remove(at);
            }
        }
    }

    pub(super) fn is_dirty_at(&self, at: At) -> bool {
        entry(&self.positions, at).held.dirty
    }

    pub(super) const fn dirty_entries(&self) -> usize {
        self.dirty.len()
    }

    pub(super) const fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    pub(super) const fn clean_bytes(&self) -> usize {
        self.clean_bytes
    }

    pub(super) const fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn next_record(&mut self) {
        self.record += 1;
        self.dirty_before_record = self.dirty.len();
    }

    fn add_dirty(&mut self, at: At) {
        self.dirty.push(at);
        if let Some(sorted) = &mut self.sorted {
            sorted.insert(entry(&self.positions, at).key_bytes.clone(), at);
        }
    }

    fn enqueue(&mut self, at: At) {
        let position = position_mut(&mut self.positions, at);
        if !position.queued {
            position.queued = true;
            self.clean_queue.push_back(at);
        }
    }

    fn insert(&mut self, new: Entry<K, V>) -> At {
        let hash = new.hash;
        let at = if let Some(at) = self.free.pop() {
            position_mut(&mut self.positions, at).entry = Some(new);
            at
        } else {
            let Ok(at) = u32::try_from(self.positions.len()) else {
                unreachable!("memory ends before four thousand million entries");
            };
            self.positions.push(Position {
                entry: Some(new),
                queued: false,
            });
            At(at)
        };
        let positions = &self.positions;
        self.index
            .insert_unique(hash, at, |&at| entry(positions, at).hash);
        at
    }

    fn remove(&mut self, at: At) {
        let hash = entry(&self.positions, at).hash;
        match self.index.find_entry(hash, |&other| other == at) {
            Ok(found) => drop(found.remove()),
            Err(_) => unreachable!("a live entry is in the index"),
        }
        position_mut(&mut self.positions, at).entry = None;
        self.free.push(at);
    }
}

fn position_mut<K, V>(positions: &mut [Position<K, V>], At(at): At) -> &mut Position<K, V> {
    match positions.get_mut(at as usize) {
        Some(position) => position,
        None => unreachable!("positions are never given back"),
    }
}

fn entry<K, V>(positions: &[Position<K, V>], At(at): At) -> &Entry<K, V> {
    match positions
        .get(at as usize)
        .and_then(|position| position.entry.as_ref())
    {
        Some(entry) => entry,
        None => unreachable!("an index names a live entry"),
    }
}

fn entry_mut<K, V>(positions: &mut [Position<K, V>], at: At) -> &mut Entry<K, V> {
    match &mut position_mut(positions, at).entry {
        Some(entry) => entry,
        None => unreachable!("an index names a live entry"),
    }
}

/// Orders as the first 16 bytes do; shorter keys are padded with zeros, so ties need a full look.
fn leading_bytes(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(key) {
        *to = *from;
    }
    u128::from_be_bytes(bytes)
}

/// `BTreeMap::range` panics on these.
fn is_empty_range(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (
            Bound::Included(lower) | Bound::Excluded(lower),
            Bound::Included(upper) | Bound::Excluded(upper),
        ) => lower >= upper,
    }
}
