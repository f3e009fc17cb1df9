//! What an aggregate is kept in: the one way to load it, and the one way to write its events.
//!
//! ```text
//! <name>-state           current state          derived   one entry per aggregate
//! <name>-history         every event            record    the truth
//! <name>-snapshots       state at every 100th   derived   read by time travel
//! <name>-events-by-time  the index by time      derived   optional
//! ```
//! # Position
//! Commands, other systems' events and the rebuild write through it; queries read the same stores,
//! committed ([`AggregateHistory`](super::AggregateHistory)).
//! # Invariants
//! - What is derived from an event is written in the event's transaction.
//! - A snapshot is of exactly its version, also when one command brings about several events.
//! - A tombstoned aggregate keeps its entry in the current state, without a state, and gets no snapshot.
//! # Failure
//! A current state that does not read is folded again, from the nearest snapshot that does; snapshots
//! that do not are replaced on the way. History that does not fold stops the task by name.

use std::num::NonZeroU64;
use std::ops::Bound;

use super::aggregate::Aggregate;
use super::archived::{EventArchive, RETURN_BYTES_MAX, RETURN_ENTRIES_MAX, StoredEvent};
use super::current_state::CurrentState;
use super::decision::{AggregateRecord, replay};
use super::envelope::Envelope;
use super::event_index::{EventIndexKey, IndexedEvent};
use super::history::{HistoryEntry, HistoryKey, history_range};
use super::meter::Meter;
use super::rebuild::SliceLimits;
use super::snapshot::{self, Snapshot};
use crate::clock::Timestamp;
use crate::processor::BoxError;
use crate::state::{StateError, StoreRef};

pub(super) struct Repository<A: Aggregate> {
    pub(super) state: StoreRef<String, CurrentState<A::State>>,
    pub(super) history: StoreRef<HistoryKey, StoredEvent>,
    pub(super) snapshots: StoreRef<HistoryKey, Vec<u8>>,
    pub(super) index: Option<StoreRef<EventIndexKey, IndexedEvent>>,
    /// Where events are that have left the history store.
    pub(super) archive: EventArchive,
    pub(super) snapshot_interval: NonZeroU64,
    pub(super) meter: Meter,
}

/// What a processor is handed of an aggregate's stores: state, history, snapshots, and the index where
/// there is one.
pub(super) type RepositoryStores<S> = (
    StoreRef<String, CurrentState<S>>,
    StoreRef<HistoryKey, StoredEvent>,
    StoreRef<HistoryKey, Vec<u8>>,
    Option<StoreRef<EventIndexKey, IndexedEvent>>,
);

/// Two processors of a task share its stores.
impl<A: Aggregate> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            history: self.history.clone(),
            snapshots: self.snapshots.clone(),
            index: self.index.clone(),
            archive: self.archive.clone(),
            snapshot_interval: self.snapshot_interval,
            meter: self.meter.clone(),
        }
    }
}

/// An event that joins history.
pub(super) struct NewEvent {
    pub(super) key: HistoryKey,
    pub(super) entry: HistoryEntry,
    pub(super) timestamp: Timestamp,
    pub(super) indexed: IndexedEvent,
}

impl IndexedEvent {
    pub(super) fn of(envelope: &Envelope<'_>) -> Self {
        Self {
            event_type: envelope.event_type.as_ref().into(),
            actor: envelope.attribution().actor,
        }
    }
}

impl<A: Aggregate> Repository<A> {
    pub(super) fn new(
        (state, history, snapshots, index): RepositoryStores<A::State>,
        archive: &EventArchive,
        snapshot_interval: NonZeroU64,
        meter: &Meter,
    ) -> Self {
        Self {
            state,
            history,
            snapshots,
            index,
            archive: archive.clone(),
            snapshot_interval,
            meter: meter.clone(),
        }
    }

    /// Loads an aggregate as it is now.
    pub(super) fn load(
        &self,
        aggregate_id: &String,
    ) -> Result<Option<AggregateRecord<A::State>>, BoxError> {
        match self.state.get(aggregate_id)? {
            None => Ok(None),
            Some(CurrentState::Known(record)) => Ok(Some(record)),
            Some(CurrentState::Unreadable) => self.fold_again(aggregate_id, u64::MAX).map(Some),
        }
    }

    /// Loads an aggregate as a rebuild has left it at `version`: history goes on behind it.
    pub(super) fn load_at(
        &self,
        aggregate_id: &String,
        version: u64,
    ) -> Result<Option<AggregateRecord<A::State>>, BoxError> {
        match self.state.get(aggregate_id)? {
            None => Ok(None),
            Some(CurrentState::Known(record)) if record.version == version => Ok(Some(record)),
            Some(_) => self.fold_again(aggregate_id, version).map(Some),
        }
    }

    /// Returns the version of an aggregate; 0 before its first event.
    pub(super) fn version(&self, aggregate_id: &String) -> Result<u64, BoxError> {
        Ok(self.load(aggregate_id)?.map_or(0, |record| record.version))
    }

    /// Looks at the event of a version.
    pub(super) fn event_with<R>(
        &self,
        key: &HistoryKey,
        look: impl FnOnce(Option<&StoredEvent>) -> R,
    ) -> Result<R, StateError> {
        self.history.get_with(key, look)
    }

    /// Returns the event of a version, from the archive where it has left the store.
    pub(super) fn event(&self, key: &HistoryKey) -> Result<Option<HistoryEntry>, BoxError> {
        let Some(stored) = self.history.get(key)? else {
            return Ok(None);
        };
        let whole = self.archive.bring_back(vec![(key.clone(), stored)])?;
        Ok(whole.into_iter().next().map(|(_, entry)| entry))
    }

    /// Returns the first events of a range, in the order of keys, as many as `limits` has room for;
    /// those that have left the store come from the archive, all in one read of each partition.
    pub(super) fn events(
        &self,
        range: (Bound<HistoryKey>, Bound<HistoryKey>),
        limits: SliceLimits,
    ) -> Result<Vec<(HistoryKey, HistoryEntry)>, BoxError> {
        events(&self.history, &self.archive, range, limits)
    }

    /// Writes events and all that is derived from them: `before` and `after` are the aggregate before
    /// the first and after the last of them.
    pub(super) fn append(
        &self,
        before: Option<AggregateRecord<A::State>>,
        events: Vec<NewEvent>,
        after: AggregateRecord<A::State>,
    ) -> Result<(), BoxError> {
        let Some(last) = events.last().map(|event| event.key.clone()) else {
            return Ok(());
        };
        let mut events_before_last = events.iter().rev().skip(1);
        if events_before_last.any(|event| self.is_due(event.key.version)) {
            let mut record = before;
            for event in &events {
                let next = replay::<A>(record, &event.key, &event.entry)?;
                self.snapshot_if_due(&event.key.aggregate_id, &next)?;
                record = Some(next);
            }
        } else {
            self.snapshot_if_due(&last.aggregate_id, &after)?;
        }
        for event in events {
            self.index(&event.key, event.timestamp, event.indexed)?;
            self.history
                .put(event.key, StoredEvent::Whole(event.entry))?;
        }
        self.set(last.aggregate_id, after)
    }

    /// Writes the index entry of an event.
    pub(super) fn index(
        &self,
        event: &HistoryKey,
        timestamp: Timestamp,
        indexed: IndexedEvent,
    ) -> Result<(), BoxError> {
        let Some(index) = &self.index else {
            return Ok(());
        };
        let event = event.clone();
        Ok(index.put(EventIndexKey { timestamp, event }, indexed)?)
    }

    /// Writes the current state of an aggregate.
    pub(super) fn set(
        &self,
        aggregate_id: String,
        record: AggregateRecord<A::State>,
    ) -> Result<(), BoxError> {
        Ok(self.state.put(aggregate_id, CurrentState::Known(record))?)
    }

    /// Writes the snapshot of an aggregate whose version calls for one, and that has a state.
    pub(super) fn snapshot_if_due(
        &self,
        aggregate_id: &str,
        record: &AggregateRecord<A::State>,
    ) -> Result<(), BoxError> {
        if self.is_due(record.version) && !record.tombstoned {
            let key = HistoryKey::new(aggregate_id, record.version);
            self.snapshots.put(key, snapshot::encode::<A>(record)?)?;
            self.meter.count(|metrics| &metrics.snapshots);
        }
        Ok(())
    }

    fn is_due(&self, version: u64) -> bool {
        version.is_multiple_of(self.snapshot_interval.get())
    }

    /// Folds the state of an aggregate up to a version again, from the nearest readable snapshot.
    fn fold_again(
        &self,
        aggregate_id: &str,
        up_to: u64,
    ) -> Result<AggregateRecord<A::State>, BoxError> {
        self.meter.count(|metrics| &metrics.states_unreadable);
        let (first, _) = history_range(aggregate_id, 0);
        let last = HistoryKey::new(aggregate_id, up_to);
        let mut record = self.nearest_snapshot(first.clone()..=last.clone())?;
        let mut from = record.as_ref().map_or(Bound::Included(first), |record| {
            Bound::Excluded(HistoryKey::new(aggregate_id, record.version))
        });
        let limits = SliceLimits {
            entries: RETURN_ENTRIES_MAX,
            bytes: RETURN_BYTES_MAX,
        };
        loop {
            // Not the fault of the command or event at hand, whose policy must not meet it.
            let undecoded = |source| StateError::Decode {
                store: format!("history of {}", A::TYPE),
                source,
            };
            let events = self.events((from.clone(), Bound::Included(last.clone())), limits);
            let events = events.map_err(undecoded)?;
            let Some((read, _)) = events.last() else {
                break;
            };
            from = Bound::Excluded(read.clone());
            for (key, entry) in events {
                let next =
                    replay::<A>(record, &key, &entry).map_err(|source| undecoded(source.into()))?;
                self.snapshot_if_due(aggregate_id, &next)?;
                record = Some(next);
            }
        }
        let record = record
            .ok_or_else(|| format!("{} {aggregate_id} has a state and no history", A::TYPE))?;
        tracing::info!(
            aggregate = A::TYPE,
            aggregate_id,
            version = record.version,
            "the stored state did not read and was folded again"
        );
        self.set(aggregate_id.to_owned(), record.clone())?;
        Ok(record)
    }

    fn nearest_snapshot(
        &self,
        range: std::ops::RangeInclusive<HistoryKey>,
    ) -> Result<Option<AggregateRecord<A::State>>, BoxError> {
        for found in self.snapshots.reverse_range(range)? {
            let (key, bytes) = found?;
            let record = Snapshot::decode(&bytes).and_then(|read| read.record::<A>(key.version));
            if record.is_some() {
                return Ok(record);
            }
            self.meter.count(|metrics| &metrics.snapshots_unreadable);
        }
        Ok(None)
    }
}

/// Returns the first events of a range of history, in the order of keys, as many as `limits` has room
/// for; those that have left the store come from the archive.
pub(super) fn events(
    history: &StoreRef<HistoryKey, StoredEvent>,
    archive: &EventArchive,
    range: (Bound<HistoryKey>, Bound<HistoryKey>),
    limits: SliceLimits,
) -> Result<Vec<(HistoryKey, HistoryEntry)>, BoxError> {
    let (mut stored, mut bytes) = (Vec::new(), 0);
    for found in history.range(range)? {
        let (key, entry) = found?;
        bytes += entry.event_bytes();
        stored.push((key, entry));
        if stored.len() >= limits.entries || bytes >= limits.bytes {
            break;
        }
    }
    Ok(archive.bring_back(stored)?)
}
