//! Folding one aggregate's committed history up to a point.

use std::marker::PhantomData;
use std::ops::ControlFlow;

use serde_json::value::RawValue;

use super::{HistoryReadError, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, Point, Reads, StoreNames};
use super::{failed, state_failed};
use crate::clock::Timestamp;
use crate::event_sourcing::aggregate::Aggregate;
use crate::event_sourcing::archived::{RETURN_BYTES_MAX, RETURN_ENTRIES_MAX, StoredEvent};
use crate::event_sourcing::decision::{AggregateRecord, ReadEntry};
use crate::event_sourcing::envelope::Envelope;
use crate::event_sourcing::history::{HistoryEntry, HistoryKey, Known};
use crate::event_sourcing::snapshot::Snapshot;
use crate::event_sourcing::upcast::Event;
use crate::format::value;
use crate::processor::BoxError;
use crate::query::{QueryError, QueryRegistry};
use crate::state::ReadHandle;

/// Reads one aggregate, and counts.
pub(super) struct Reader<'a, A> {
    handle: ReadHandle,
    stores: &'a StoreNames,
    aggregate_id: String,
    pub(super) reads: Reads,
    aggregate: PhantomData<fn() -> A>,
}

/// What one scan of the history store has come to.
#[derive(Default)]
struct Stretch {
    /// Events that have left the store, after those that were visited.
    left: Vec<(HistoryKey, StoredEvent)>,
    /// Where to go on behind them; `None` at the end.
    next: Option<u64>,
    /// The visitor wants no more.
    ended: bool,
}

/// What ends a page.
pub(super) struct PageLimit {
    entries: usize,
    bytes: usize,
}

impl PageLimit {
    pub(super) fn new(entries: usize) -> Self {
        Self {
            entries: entries.clamp(1, PAGE_ENTRIES_MAX),
            bytes: PAGE_BYTES_MAX,
        }
    }

    /// Returns whether the page has room for an event; the first always has.
    pub(super) fn takes(&mut self, bytes: usize) -> bool {
        if self.entries == 0 || self.bytes == 0 {
            return false;
        }
        self.entries -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

/// Returns where the page after `last` begins.
pub(super) fn next_version(last: Option<u64>, known: Known) -> Option<u64> {
    last.filter(|last| *last < known.last_version)
        .and_then(|last| last.checked_add(1))
}

/// Returns an event's envelope with its data in the current schema version.
pub(super) fn upcast<A: Aggregate>(
    read: &ReadEntry<'_, A>,
) -> Result<Box<RawValue>, HistoryReadError> {
    let data = read.event.data()?;
    let envelope = Envelope {
        data: &data,
        schema_version: read.event.schema_version(),
        ..read.envelope.clone()
    };
    Ok(serde_json::value::to_raw_value(&envelope)?)
}

fn key_bytes(aggregate_id: &str, version: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    HistoryKey::new(aggregate_id, version).encode(&mut bytes);
    bytes
}

/// The bytes of the keys of all versions from `first` to `last`: inclusive, exclusive.
fn versions(aggregate_id: &str, first: u64, last: u64) -> (Vec<u8>, Vec<u8>) {
    let mut end = key_bytes(aggregate_id, last);
    end.push(0);
    (key_bytes(aggregate_id, first), end)
}

impl<'a, A: Aggregate> Reader<'a, A> {
    pub(super) fn new(
        queries: &QueryRegistry,
        stores: &'a StoreNames,
        aggregate_id: &str,
    ) -> Result<Self, HistoryReadError> {
        if aggregate_id.contains('\0') {
            return Err(HistoryReadError::Query(QueryError::BadKey {
                store: stores.history.clone(),
                text: aggregate_id.to_owned(),
                source: "an aggregate id contains no U+0000".into(),
            }));
        }
        let handle = queries.handle_of(&stores.history, &key_bytes(aggregate_id, 0))?;
        Ok(Self::on(handle, stores, aggregate_id))
    }

    /// Reads an aggregate of the task that `handle` reads.
    pub(super) fn on(handle: ReadHandle, stores: &'a StoreNames, aggregate_id: &str) -> Self {
        Self {
            handle,
            stores,
            aggregate_id: aggregate_id.to_owned(),
            reads: Reads::default(),
            aggregate: PhantomData,
        }
    }

    pub(super) fn get(&self, store: &str, key: &[u8]) -> Result<Option<Vec<u8>>, HistoryReadError> {
        self.handle
            .get(store, key)
            .map_err(|error| state_failed(store, error))
    }

    /// Returns the versions that history holds.
    pub(super) fn known(&self) -> Result<Option<Known>, HistoryReadError> {
        let store = &self.stores.history;
        let (from, to) = versions(&self.aggregate_id, 0, u64::MAX);
        let end = |reverse| -> Result<Option<u64>, HistoryReadError> {
            let found = self
                .handle
                .range(store, &from, Some(&to), reverse, 1)
                .map_err(|error| state_failed(store, error))?;
            let Some((key, _)) = found.first() else {
                return Ok(None);
            };
            let key = HistoryKey::decode(key).map_err(|error| failed(store, error.into()))?;
            Ok(Some(key.version))
        };
        let (first, last) = (end(false)?, end(true)?);
        Ok(first.zip(last).map(|(first_version, last_version)| Known {
            first_version,
            last_version,
        }))
    }

    /// Folds the aggregate up to a point.
    pub(super) fn state_at(
        &mut self,
        point: Point,
    ) -> Result<Option<AggregateRecord<A::State>>, HistoryReadError> {
        let (last, until) = match point {
            Point::Version(version) => (version, Timestamp::MAX),
            Point::Time(time) => (u64::MAX, time),
        };
        let newest = match point {
            Point::Version(version) => Some(version),
            Point::Time(Timestamp::MAX) => Some(u64::MAX),
            Point::Time(time) => self.snapshot_at(time)?,
        };
        let mut record = match newest {
            Some(newest) => self.snapshot_up_to(newest)?,
            None => None,
        };
        let first = record.as_ref().map_or(Some(0), |record| {
            record.version.checked_add(1).filter(|next| *next <= last)
        });
        if let Some(first) = first {
            self.each(first, last, |_, _, read| {
                let time = record
                    .as_ref()
                    .map_or(Timestamp::MIN, |record| record.updated_at);
                if time.max(read.envelope.timestamp) > until {
                    return Ok(false);
                }
                let mut next = read.before(record.take())?;
                read.apply(&mut next);
                record = Some(next);
                Ok(true)
            })?;
        }
        Ok(record.filter(|record| match point {
            Point::Version(version) => record.version == version,
            Point::Time(_) => true,
        }))
    }

    /// Calls `visit` with the events from version `first` to `last` until it answers `false`. Those
    /// that have left the store are brought back a batch at a time.
    pub(super) fn each(
        &mut self,
        first: u64,
        last: u64,
        mut visit: impl FnMut(
            &HistoryKey,
            &HistoryEntry,
            ReadEntry<'_, A>,
        ) -> Result<bool, HistoryReadError>,
    ) -> Result<(), HistoryReadError> {
        let mut from = Some(first);
        while let Some(first) = from.filter(|first| *first <= last) {
            let stretch = self.stretch(first, last, &mut visit)?;
            if stretch.ended {
                return Ok(());
            }
            from = stretch.next;
            for (key, entry) in self.stores.archive.bring_back(stretch.left)? {
                self.reads.events += 1;
                self.reads.archived += 1;
                if !visit(&key, &entry, ReadEntry::parse(&key, &entry)?)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Visits events as long as they are in the store, and then collects those that have left.
    fn stretch(
        &mut self,
        first: u64,
        last: u64,
        visit: &mut impl FnMut(
            &HistoryKey,
            &HistoryEntry,
            ReadEntry<'_, A>,
        ) -> Result<bool, HistoryReadError>,
    ) -> Result<Stretch, HistoryReadError> {
        let store = &self.stores.history;
        let (from, to) = versions(&self.aggregate_id, first, last);
        let reads = &mut self.reads;
        let (mut stretch, mut bytes) = (Stretch::default(), 0);
        let mut look = |key: &[u8], stored: &[u8]| -> Result<bool, HistoryReadError> {
            let undecoded = |error: BoxError| failed(store, error);
            let key = HistoryKey::decode(key).map_err(|error| undecoded(error.into()))?;
            let (_, plain) = value::decode(stored)
                .ok_or_else(|| undecoded("stored value is too short to hold a timestamp".into()))?;
            let stored = StoredEvent::decode(plain).map_err(|error| undecoded(error.into()))?;
            let version = key.version;
            match stored {
                StoredEvent::Whole(entry) if stretch.left.is_empty() => {
                    reads.events += 1;
                    let goes_on = visit(&key, &entry, ReadEntry::parse(&key, &entry)?)?;
                    stretch.ended = !goes_on;
                    Ok(goes_on)
                }
                StoredEvent::Whole(_) => {
                    stretch.next = Some(version);
                    Ok(false)
                }
                left @ StoredEvent::Archived(_) => {
                    bytes += left.event_bytes();
                    stretch.left.push((key, left));
                    let full =
                        stretch.left.len() >= RETURN_ENTRIES_MAX || bytes >= RETURN_BYTES_MAX;
                    if full {
                        stretch.next = version.checked_add(1);
                    }
                    Ok(!full)
                }
            }
        };
        let broke = self
            .handle
            .scan(store, (&from, Some(&to)), false, |key, stored| {
                match look(key, stored) {
                    Ok(true) => ControlFlow::Continue(()),
                    Ok(false) => ControlFlow::Break(Ok(())),
                    Err(error) => ControlFlow::Break(Err(error)),
                }
            })
            .map_err(|error| state_failed(store, error))?;
        broke.unwrap_or(Ok(()))?;
        Ok(stretch)
    }

    /// Returns the aggregate at its newest readable snapshot up to a version.
    fn snapshot_up_to(
        &mut self,
        version: u64,
    ) -> Result<Option<AggregateRecord<A::State>>, HistoryReadError> {
        let store = &self.stores.snapshots;
        let (from, to) = versions(&self.aggregate_id, 0, version);
        let reads = &mut self.reads;
        let found = self
            .handle
            .scan(store, (&from, Some(&to)), true, |key, stored| {
                let record = HistoryKey::decode(key).ok().and_then(|key| {
                    let (_, plain) = value::decode(stored)?;
                    Snapshot::decode(plain)?.record::<A>(key.version)
                });
                match record {
                    Some(record) => {
                        reads.snapshots += 1;
                        ControlFlow::Break(record)
                    }
                    None => {
                        reads.snapshots_unreadable += 1;
                        ControlFlow::Continue(())
                    }
                }
            })
            .map_err(|error| state_failed(store, error))?;
        Ok(found)
    }

    /// Returns the version of the newest snapshot that is not later than `time`, by a binary search
    /// among versions: times rise with them.
    fn snapshot_at(&mut self, time: Timestamp) -> Result<Option<u64>, HistoryReadError> {
        let Some((newest, at)) = self.probe(u64::MAX)? else {
            return Ok(None);
        };
        if at <= time {
            return Ok(Some(newest));
        }
        // All snapshots up to `low` are not later, all from `high` on are.
        let (mut low, mut high, mut found) = (0, newest, None);
        while let Some(middle) = high
            .checked_sub(low)
            .filter(|gap| *gap > 1)
            .map(|gap| low + gap / 2)
        {
            match self.probe(middle)?.filter(|(version, _)| *version > low) {
                Some((version, at)) if at > time => high = version,
                Some((version, _)) => {
                    found = Some(version);
                    low = middle;
                }
                None => low = middle,
            }
        }
        Ok(found)
    }

    /// Returns version and time of the newest snapshot up to a version.
    fn probe(&mut self, version: u64) -> Result<Option<(u64, Timestamp)>, HistoryReadError> {
        let store = &self.stores.snapshots;
        let (from, to) = versions(&self.aggregate_id, 0, version);
        let reads = &mut self.reads;
        self.handle
            .scan(store, (&from, Some(&to)), true, |key, stored| {
                reads.probes += 1;
                let found = HistoryKey::decode(key).ok().and_then(|key| {
                    let (_, plain) = value::decode(stored)?;
                    Some((key.version, Snapshot::decode(plain)?.time))
                });
                // One of another format tells no time: the one below it does.
                found.map_or(ControlFlow::Continue(()), ControlFlow::Break)
            })
            .map_err(|error| state_failed(store, error))
    }
}
