//! Versions of keys, as a commit or a restore writes them and as queries read them.

use std::sync::PoisonError;

use super::batch::CommitBatch;
use super::read::CommittedEntry;
use super::{Slot, StoreId, TaskDb};
use crate::clock::Timestamp;
use crate::format::value;
use crate::format::version_key::{put_local, put_presence, split_local, split_value};
use crate::state::StateError;
use crate::state::layout::Observed;
use crate::state::versioned::is_expired;

/// How many expired versions of a key one write drops at most.
const DROPPED_AT_ONCE: usize = 16;
/// After how many writes a store looks for what other keys have left behind.
const SWEPT_EVERY: usize = 32;
/// How many versions it looks at then, to the end of the key it is at: two for each write, so that a
/// round ends before as much again as was there is written.
const SWEPT_AT_ONCE: usize = 2 * SWEPT_EVERY;
/// How many it looks at on the way to the end of a key. One with more versions is passed over.
const SWEPT_AT_MOST: usize = 4 * SWEPT_AT_ONCE;

/// A round goes through all versions, and the next one begins when the horizon has moved on by this part
/// of the history: what was not past in the last one is not looked at again before.
const ROUNDS_PER_HISTORY: i64 = 4;

/// How far a store was looked through for versions that nobody can ask for any more.
///
/// A write drops those of its own key; keys that are never written again would keep theirs for ever,
/// and a deleted one its delete. Kafka Streams drops both with their segments.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    writes: usize,
    /// The first local key of the next look; empty between rounds. In memory only: a new owner begins
    /// anew.
    from: Vec<u8>,
    /// The horizon at which the next round begins.
    not_before: Option<Timestamp>,
}

impl CommitBatch {
    /// Writes a version, and drops versions of its key that nobody can ask for any more.
    pub(super) fn version(
        &mut self,
        store: StoreId,
        key: &[u8],
        plain: Option<&[u8]>,
        timestamp: Timestamp,
        history: i64,
    ) -> Result<(), StateError> {
        let inner = std::sync::Arc::clone(&self.inner);
        let (Some(slot), Some(observed)) =
            (inner.stores.get(store.0), self.observed.get_mut(store.0))
        else {
            return Ok(());
        };
        observed.merge(slot.observed());
        if is_expired(timestamp, observed.time, history) {
            return Ok(());
        }
        observed.merge(Observed {
            time: Some(timestamp),
            sequence: None,
        });
        let horizon = observed.time.unwrap_or(timestamp).saturating_sub(history);
        let (mut local_key, mut version) = (Vec::new(), Vec::new());
        put_local(&mut local_key, key, timestamp);
        put_presence(&mut version, plain.is_some());
        version.extend_from_slice(plain.unwrap_or_default());
        let mut local_value = Vec::new();
        value::encode(timestamp, &version, &mut local_value);
        self.put(store, &local_key, Some(&local_value))?;
        for expired in slot.versions_before(&inner, key, horizon)? {
            self.put(store, &expired, None)?;
        }
        // ORDER: by what is applied. Every version in this batch was let in by that horizon or a later
        // one, so that none lies before what is dropped, nor in its place; by the batch's own, a delete
        // could go that hides a version from this very batch.
        if let Some(applied) = slot.observed().time {
            for unused in slot.sweep(&inner, applied.saturating_sub(history), history)? {
                self.put(store, &unused, None)?;
            }
        }
        Ok(())
    }
}

/// A version that is on disk.
struct Stored {
    local_key: Box<[u8]>,
    timestamp: Timestamp,
    is_delete: bool,
}

impl Stored {
    fn key(&self) -> &[u8] {
        split_local(&self.local_key).map_or(&[], |(key, _)| key)
    }

    /// Returns the local key of a delete that is the last of its key, once it is past.
    fn unused_as_last(self, horizon: Timestamp) -> Option<Box<[u8]>> {
        (self.is_delete && self.timestamp < horizon).then_some(self.local_key)
    }
}

impl Slot {
    /// The local keys of the next versions, in the order of keys, that nobody can ask for any more:
    /// those that were superseded at `horizon` or before, and a delete from before it that is the last
    /// of its key. The horizon is that of what is applied, as is what is looked at.
    fn sweep(
        &self,
        inner: &std::sync::Arc<super::Inner>,
        horizon: Timestamp,
        history: i64,
    ) -> Result<Vec<Box<[u8]>>, StateError> {
        let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        sweep.writes += 1;
        if sweep.writes < SWEPT_EVERY {
            return Ok(Vec::new());
        }
        sweep.writes = 0;
        let from = std::mem::take(&mut sweep.from);
        let from = Some(&from[..]).filter(|from| !from.is_empty());
        if from.is_none() {
            if sweep.not_before.is_some_and(|begin| horizon < begin) {
                return Ok(Vec::new());
            }
            sweep.not_before = Some(horizon.saturating_add(history / ROUNDS_PER_HISTORY));
        }
        let db = TaskDb {
            inner: std::sync::Arc::clone(inner),
        };
        let backend = db.backend(&self.name)?;
        let (mut unused, mut before) = (Vec::new(), None::<Stored>);
        let entries = backend.range(from.unwrap_or(super::SEGMENTS_BEGIN), None, false);
        for (seen, entry) in entries.enumerate() {
            let stored = self.stored(entry?)?;
            match before.take() {
                Some(last) if last.key() == stored.key() => {
                    if stored.timestamp <= horizon {
                        unused.push(last.local_key);
                    }
                    if seen >= SWEPT_AT_MOST {
                        // Whether the last one is a delete is not asked: with a part of its
                        // predecessors left, one of them would come back.
                        put_local(&mut sweep.from, stored.key(), i64::MAX);
                        sweep.from.push(0);
                        return Ok(unused);
                    }
                }
                last => {
                    unused.extend(last.and_then(|last| last.unused_as_last(horizon)));
                    if seen >= SWEPT_AT_ONCE {
                        // From the first version that the key may have by then: with a part of them in
                        // view, a delete would be taken for all there is.
                        put_local(&mut sweep.from, stored.key(), i64::MIN);
                        return Ok(unused);
                    }
                }
            }
            before = Some(stored);
        }
        unused.extend(before.and_then(|last| last.unused_as_last(horizon)));
        Ok(unused)
    }

    fn stored(&self, (local_key, local): (Box<[u8]>, Box<[u8]>)) -> Result<Stored, StateError> {
        let (_, timestamp) = split_local(&local_key).map_err(|error| decode(self, error))?;
        let (_, version) = value::decode(&local).ok_or_else(|| StateError::Decode {
            store: self.name.clone(),
            source: "stored value is too short to hold a timestamp".into(),
        })?;
        let version = split_value(version).map_err(|error| decode(self, error))?;
        Ok(Stored {
            timestamp,
            is_delete: version.is_none(),
            local_key,
        })
    }

    /// The local keys of versions that were superseded at `horizon` or before.
    fn versions_before(
        &self,
        inner: &std::sync::Arc<super::Inner>,
        key: &[u8],
        horizon: Timestamp,
    ) -> Result<Vec<Box<[u8]>>, StateError> {
        let db = TaskDb {
            inner: std::sync::Arc::clone(inner),
        };
        let backend = db.backend(&self.name)?;
        let bounds = |time| {
            let mut bytes = Vec::new();
            put_local(&mut bytes, key, time);
            bytes
        };
        let (from, to) = (bounds(i64::MIN), bounds(horizon.saturating_add(1)));
        let past = backend.range(&from, Some(&to), true);
        // The first is the one that is valid at the horizon.
        past.skip(1)
            .take(DROPPED_AT_ONCE)
            .map(|entry| entry.map(|(key, _)| key))
            .collect()
    }
}

/// Returns the version of `key` that is valid at `as_of`, the latest for `None`, as timestamp and value.
pub(super) fn version_at(
    db: &TaskDb,
    slot: &Slot,
    key: &[u8],
    as_of: Option<Timestamp>,
    history: i64,
) -> Result<Option<Vec<u8>>, StateError> {
    let expired = as_of.is_some_and(|time| is_expired(time, slot.observed().time, history));
    let last = as_of.filter(|_| !expired).unwrap_or(i64::MAX);
    let (mut from, mut to) = (Vec::new(), Vec::new());
    put_local(&mut from, key, i64::MIN);
    put_local(&mut to, key, last);
    to.push(0);
    let backend = db.backend(&slot.name)?;
    let Some(entry) = backend.range(&from, Some(&to), true).next() else {
        return Ok(None);
    };
    let found = plain(slot, &entry?.1)?;
    // Past the history that is kept, only the latest version may be known to be old enough.
    Ok(found.filter(|found| {
        let time = value::decode(found).map(|(time, _)| time);
        !expired || time <= as_of
    }))
}

/// Returns the latest versions of the keys of a range, in order of their keys. Reads all versions.
pub(super) fn latest_entries(
    db: &TaskDb,
    slot: &Slot,
    (from, to): (&[u8], Option<&[u8]>),
    reverse: bool,
    limit: usize,
) -> Result<Vec<CommittedEntry>, StateError> {
    let backend = db.backend(&slot.name)?;
    let mut found = std::collections::BTreeMap::new();
    for entry in backend.range(super::SEGMENTS_BEGIN, None, false) {
        let (local_key, value) = entry?;
        let (key, _) = split_local(&local_key).map_err(|error| decode(slot, error))?;
        if key < from || to.is_some_and(|to| key >= to) {
            continue;
        }
        // In order of time: the last one stays.
        match plain(slot, &value)? {
            Some(plain) => drop(found.insert(Box::<[u8]>::from(key), plain.into_boxed_slice())),
            None => drop(found.remove(key)),
        }
    }
    let entries = found.into_iter();
    Ok(if reverse {
        entries.rev().take(limit).collect()
    } else {
        entries.take(limit).collect()
    })
}

/// Timestamp and value of a version; `None` for a delete.
fn plain(slot: &Slot, local: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
    let Some((timestamp, version)) = value::decode(local) else {
        return Ok(None);
    };
    let version = split_value(version).map_err(|error| decode(slot, error))?;
    Ok(version.map(|version| {
        let mut bytes = Vec::new();
        value::encode(timestamp, version, &mut bytes);
        bytes
    }))
}

fn decode(slot: &Slot, error: crate::format::DecodeError) -> StateError {
    StateError::Decode {
        store: slot.name.clone(),
        source: error.into(),
    }
}
