//! Reads an aggregate type's history, in the order of its keys, a bounded slice at a time.

use std::ops::Bound;

use super::super::aggregate::Aggregate;
use super::super::archived::{EventArchive, StoredEvent};
use super::super::decision::{AggregateRecord, ReadEntry, replay};
use super::super::history::{HistoryKey, history_range};
use super::super::rebuild::SliceLimits;
use super::super::recorded::RecordedEvent;
use super::super::repository::events;
use super::super::snapshot::Snapshot;
use super::super::stores::RebuildPosition;
use crate::processor::BoxError;
use crate::state::StoreRef;

/// An event of history or a new one, with the state around it.
pub(super) type Event<A> = RecordedEvent<<A as Aggregate>::Event, <A as Aggregate>::State>;

/// The history of a task's aggregates.
pub(super) struct Past {
    pub(super) history: StoreRef<HistoryKey, StoredEvent>,
    /// Where events are that have left history.
    pub(super) archive: EventArchive,
    pub(super) snapshots: StoreRef<HistoryKey, Vec<u8>>,
    pub(super) limits: SliceLimits,
}

/// Returns whether reading has passed the place of an event.
pub(super) fn has_passed(
    position: Option<&RebuildPosition>,
    aggregate_id: &str,
    version: u64,
) -> bool {
    position.is_some_and(|position| {
        (aggregate_id, version) <= (position.aggregate_id.as_str(), position.version)
    })
}

/// What a slice has come to.
pub(super) struct ReadSlice {
    /// The last event that was read, in this slice or before; `None` when there is none at all.
    pub(super) position: Option<RebuildPosition>,
    /// How many events it had.
    pub(super) events: u64,
    /// Whether its limits have ended it: there may be more.
    pub(super) is_full: bool,
}

impl Past {
    /// Calls `each` with the events after a position, with the states around them.
    pub(super) fn slice<A: Aggregate>(
        &self,
        position: Option<&RebuildPosition>,
        mut each: impl FnMut(&str, &Event<A>) -> Result<(), BoxError>,
    ) -> Result<ReadSlice, BoxError> {
        let start = match position {
            Some(position) => Bound::Excluded(HistoryKey::new(
                position.aggregate_id.as_str(),
                position.version,
            )),
            None => Bound::Unbounded,
        };
        let mut current = match position {
            Some(position) => self.folded::<A>(&position.aggregate_id, position.version)?,
            None => None,
        };
        let range = (start, Bound::Unbounded);
        let slice = events(&self.history, &self.archive, range, self.limits)?;
        let bytes: usize = slice.iter().map(|(_, entry)| entry.event.len()).sum();
        let mut read_slice = ReadSlice {
            position: position.cloned(),
            events: 0,
            is_full: slice.len() >= self.limits.entries || bytes >= self.limits.bytes,
        };
        for (key, entry) in slice {
            let follows = read_slice
                .position
                .as_ref()
                .is_some_and(|at| at.aggregate_id == key.aggregate_id);
            let known = current.take().filter(|_| follows);
            let read = ReadEntry::<A>::parse(&key, &entry)?;
            let mut after = read.before(known.clone())?;
            read.apply(&mut after);
            let before = known.map(|known| known.state);
            let event = RecordedEvent::of_history(read, before, &after);
            each(&key.aggregate_id, &event)?;
            read_slice.events += 1;
            current = Some(after);
            read_slice.position = Some(RebuildPosition {
                aggregate_id: key.aggregate_id,
                version: key.version,
            });
        }
        Ok(read_slice)
    }

    /// Returns an aggregate as it was at a version, from the nearest snapshot that reads.
    fn folded<A: Aggregate>(
        &self,
        aggregate_id: &str,
        version: u64,
    ) -> Result<Option<AggregateRecord<A::State>>, BoxError> {
        let (first, _) = history_range(aggregate_id, 0);
        let last = HistoryKey::new(aggregate_id, version);
        let mut record = None;
        for found in self.snapshots.reverse_range(first.clone()..=last.clone())? {
            let (key, bytes) = found?;
            record = Snapshot::decode(&bytes).and_then(|read| read.record::<A>(key.version));
            if record.is_some() {
                break;
            }
        }
        let from = record.as_ref().map_or(
            Bound::Included(first),
            |record: &AggregateRecord<A::State>| {
                Bound::Excluded(HistoryKey::new(aggregate_id, record.version))
            },
        );
        let all = SliceLimits {
            entries: usize::MAX,
            bytes: usize::MAX,
        };
        let range = (from, Bound::Included(last));
        for (key, entry) in events(&self.history, &self.archive, range, all)? {
            record = Some(replay::<A>(record, &key, &entry)?);
        }
        Ok(record)
    }
}
