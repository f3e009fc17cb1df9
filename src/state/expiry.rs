//! Time-to-live of key-value stores.
//!
//! # Semantics
//! An entry lives by the time it was written with. It has expired once the *stream time of the task*,
//! the highest timestamp that any of its inputs has shown, has passed that time by the store's
//! time-to-live or more. From then on neither processors nor queries see it, and a write with such a
//! time is a delete. Stream time is kept in committed offsets, so that nothing which was hidden comes
//! back after a restart or on another machine.
//! # How entries go
//! Beside the entries lies an index, `bucket of time ‖ key`, where a bucket is a 64th of the time to
//! live: a key that is written all the time has 65 entries in it at most, and one that is written
//! once has one. At each commit the store looks at the front of the index, at entries whose bucket has
//! passed: those whose key was not written since are deleted, in the same transaction, with a
//! tombstone in the changelog. What it looks at is bounded by what the transaction has written, so
//! that a record pays for two expiries at most, and the backlog of a leap in time shrinks all the
//! same.
//!
//! A scan of the store by a punctuator would need no index, and cost a read of everything per round,
//! in bursts that grow with the store; RocksDB's own TTL knows neither stream time nor changelogs.
//! # Invariants
//! - Every entry has an index entry whose bucket ends behind the entry's time. A bucket is taken up
//!   when its end has expired, and then all its entries have that were not written again.
//! - Entries and index change in one batch. A restore writes the index anew.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use super::BytesStore;
use crate::clock::Timestamp;
use crate::metrics::Counter;

/// How many index entries a commit looks at, though it has written nothing.
pub(super) const LOOKED_AT_MIN: usize = 1024;

/// A time-to-live is cut into as many buckets.
const BUCKETS: i64 = 64;

/// What an index entry begins with: the end of its bucket.
pub(super) const BUCKET_LEN: usize = size_of::<i64>();

/// The stream time of a task, shared with its stores; `None` before the first record.
pub type SharedStreamTime = Rc<Cell<Option<Timestamp>>>;

/// How long the entries of a key-value store live, by stream time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeToLive(i64);

impl TimeToLive {
    /// Lets entries live for so many milliseconds, one at least.
    #[must_use]
    pub fn of_millis(ms: i64) -> Self {
        Self(ms.max(1))
    }

    /// Returns the milliseconds.
    #[must_use]
    pub const fn millis(&self) -> i64 {
        self.0
    }

    /// Returns whether an entry written with `time` has expired.
    #[must_use]
    pub fn is_expired(&self, time: Timestamp, stream_time: Option<Timestamp>) -> bool {
        stream_time.is_some_and(|now| time <= now.saturating_sub(self.0))
    }

    /// Appends the index entry of a key that is written with `time`.
    pub(super) fn put_index(&self, key: &[u8], time: Timestamp, out: &mut Vec<u8>) {
        let bucket = (self.0 / BUCKETS).max(1);
        let end = time
            .div_euclid(bucket)
            .saturating_add(1)
            .saturating_mul(bucket);
        out.extend_from_slice(&ordered(end));
        out.extend_from_slice(key);
    }

    /// Returns the bound behind the index entries whose buckets have passed.
    fn passed(&self, stream_time: Timestamp) -> [u8; BUCKET_LEN] {
        // All times of a bucket are below its end; it has passed when its last one has expired.
        let first_live = stream_time.saturating_sub(self.0).saturating_add(1);
        ordered(first_live.saturating_add(1))
    }
}

/// Big endian with the sign flipped: in the order of bytes as in the order of time.
fn ordered(time: Timestamp) -> [u8; BUCKET_LEN] {
    (time ^ i64::MIN).to_be_bytes()
}

/// The index of a store, and how far it has been worked off.
pub(super) struct Expiry {
    ttl: TimeToLive,
    stream_time: SharedStreamTime,
    index: Box<dyn BytesStore>,
    /// Everything below is gone. In memory only: a new owner passes the deleted entries once.
    from: Vec<u8>,
    committed_from: Vec<u8>,
    /// Index entries that the transaction removes.
    pub(super) done: Vec<Box<[u8]>>,
    /// Entries that the transaction deletes.
    expired: u64,
    counter: Option<Counter>,
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiry")
            .field("ttl", &self.ttl)
            .field("stream_time", &self.stream_time)
            .finish_non_exhaustive()
    }
}

impl Expiry {
    pub(super) fn new(
        ttl: TimeToLive,
        stream_time: SharedStreamTime,
        index: Box<dyn BytesStore>,
        counter: Option<Counter>,
    ) -> Self {
        // Behind the empty key, which says that the index is complete.
        let from = vec![0];
        Self {
            ttl,
            stream_time,
            index,
            committed_from: from.clone(),
            from,
            done: Vec::new(),
            expired: 0,
            counter,
        }
    }

    pub(super) fn is_expired(&self, time: Timestamp) -> bool {
        self.ttl.is_expired(time, self.stream_time.get())
    }

    pub(super) fn stream_time(&self) -> Option<Timestamp> {
        self.stream_time.get()
    }

    /// Takes up to `limit` entries from the front of the index whose buckets have passed.
    pub(super) fn take_passed(
        &mut self,
        limit: usize,
    ) -> Result<Vec<Box<[u8]>>, super::StateError> {
        let Some(now) = self.stream_time.get() else {
            return Ok(Vec::new());
        };
        let upper = self.ttl.passed(now);
        let passed: Vec<Box<[u8]>> = self
            .index
            .range(&self.from, Some(&upper), false)
            .take(limit)
            .map(|entry| entry.map(|(key, _)| key))
            .collect::<Result<_, _>>()?;
        if let Some(last) = passed.last() {
            self.from.clear();
            self.from.extend_from_slice(last);
            self.from.push(0);
        }
        Ok(passed)
    }

    pub(super) const fn count(&mut self) {
        self.expired += 1;
    }

    pub(super) fn mark_committed(&mut self) {
        self.committed_from.clone_from(&self.from);
        self.done.clear();
        let expired = std::mem::take(&mut self.expired);
        if let Some(counter) = &self.counter {
            counter.inc_by(expired);
        }
    }

    pub(super) fn discard_uncommitted(&mut self) {
        self.from.clone_from(&self.committed_from);
        self.done.clear();
        self.expired = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_has_passed_only_when_all_its_times_have_expired(
            ttl in 1_i64..1_000_000,
            time in -1_000_000_i64..10_000_000,
            later in 0_i64..3_000_000,
        ) {
            let ttl = TimeToLive::of_millis(ttl);
            let now = time + later;
            let mut index = Vec::new();
            ttl.put_index(b"key", time, &mut index);
            let passed = index.as_slice() < ttl.passed(now).as_slice();
            if passed {
                prop_assert!(ttl.is_expired(time, Some(now)));
            }
            // It is not left for long either.
            if ttl.is_expired(time, Some(now - ttl.millis() / BUCKETS - 1)) {
                prop_assert!(passed);
            }
        }
    }
}
