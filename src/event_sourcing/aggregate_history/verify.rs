//! Comparing what is derived from events with what the events add up to.
//!
//! A current state, each snapshot and the index by time are compared, aggregate by aggregate, up to the
//! version that the current state had when its turn came: what is committed meanwhile is not missed, it
//! is of a later look.

use serde::Serialize;
use serde_json::Value;

use super::changes::{Change, changes};
use super::reader::Reader;
use super::{AggregateHistory, HistoryReadError, PAGE_ENTRIES_MAX, failed, state_failed};
use crate::event_sourcing::aggregate::Aggregate;
use crate::event_sourcing::current_state::{CurrentState, CurrentStateSerde};
use crate::event_sourcing::decision::AggregateRecord;
use crate::event_sourcing::event_index::EventIndexKey;
use crate::event_sourcing::history::HistoryKey;
use crate::event_sourcing::snapshot::Snapshot;
use crate::format::value;
use crate::query::{QueryRegistry, StoreHandles};
use crate::serde::Serde;
use crate::state::ReadHandle;

/// How many events one look reads at least before it ends.
const EVENTS_MAX: u64 = 50_000;

/// What a look at some aggregates has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Verification {
    /// Aggregates compared.
    pub aggregates: u64,
    /// Events folded.
    pub events: u64,
    /// The first difference, where the look has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Deviation>,
    /// The partition and the aggregate at which the next look begins; `None` when all served here are
    /// compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The partitions that are served here, and so compared; where there are none, nothing is known.
    pub partitions_compared: Vec<i32>,
    /// The partitions that are not served here.
    pub partitions_missing: Vec<i32>,
    /// The partitions whose rows another version of the projection's rules has made: nothing was compared
    /// there. They are being built anew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_version: Vec<i32>,
    /// What has come of comparing groups; in the last look at a grouped projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupsVerified>,
}

/// How far the groups of a grouped projection are what the shares of all aggregates add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupsVerified {
    /// Groups that were compared.
    pub compared: u64,
    /// Groups that changed at every look, so that nothing is known of them.
    pub unsettled: u64,
    /// Why nothing was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
}

/// Something derived that is not what the events add up to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Deviation {
    /// The store.
    pub store: String,
    /// The aggregate; empty where the row is of a group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub aggregate_id: String,
    /// The version.
    pub version: u64,
    /// The key of the row, in a projection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
    /// What is wrong.
    pub problem: &'static str,
    /// From what the events say (`before`) to what the store has (`after`).
    pub changes: Vec<Change>,
}

impl<A: Aggregate> AggregateHistory<A> {
    /// Compares the aggregates served here with their events, from `cursor` on: up to `limit` of them,
    /// fewer where they have many events, and no further than to the first difference.
    ///
    /// What does not read is no difference: it is folded again when it is needed.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn verify(
        &self,
        queries: &QueryRegistry,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Verification, HistoryReadError> {
        let from = begin(cursor)?;
        let handles = queries.store_handles(&self.stores.history)?;
        compare_each(
            &handles,
            from,
            limit,
            |_, handle, last| next_aggregate(handle, &self.stores.history, last),
            |_, handle, id| {
                let mut reader = Reader::on(handle.clone(), &self.stores, id);
                let difference = self.compare(&mut reader, handle, id)?;
                Ok((difference, reader.reads.events))
            },
        )
    }

    /// Compares one aggregate.
    fn compare(
        &self,
        reader: &mut Reader<'_, A>,
        handle: &ReadHandle,
        id: &str,
    ) -> Result<Option<Deviation>, HistoryReadError> {
        let store = &self.stores.state;
        let deviation = |store: &str, version, problem, changes| Deviation {
            store: store.to_owned(),
            aggregate_id: id.to_owned(),
            version,
            row: None,
            problem,
            changes,
        };
        let stored = reader.get(store, id.as_bytes())?;
        let plain = stored.as_deref().and_then(value::decode);
        let state =
            plain.map(|(_, plain)| CurrentStateSerde::<A>::default().deserialize(Some(plain)));
        let state = state.transpose().map_err(|source| failed(store, source))?;
        let until = match &state {
            None => return Ok(Some(deviation(store, 0, "there is no entry", Vec::new()))),
            Some(CurrentState::Known(record)) => record.version,
            Some(CurrentState::Unreadable) => u64::MAX,
        };
        let mut folded: Option<AggregateRecord<A::State>> = None;
        let mut difference = None;
        reader.each(0, until, |key, _, read| {
            let mut next = read.before(folded.take())?;
            read.apply(&mut next);
            difference = self.compare_snapshot(handle, key, &next)?.map(|changes| {
                let store = &self.stores.snapshots;
                deviation(store, key.version, "the snapshot is another", changes)
            });
            if difference.is_none()
                && let Some(index) = &self.stores.index
            {
                let mut at = Vec::new();
                let event = key.clone();
                let timestamp = read.envelope.timestamp;
                EventIndexKey { timestamp, event }.encode(&mut at);
                let indexed = handle.get(index, &at);
                let indexed = indexed.map_err(|error| state_failed(index, error))?;
                difference = indexed
                    .is_none()
                    .then(|| deviation(index, key.version, "the event is missing", Vec::new()));
            }
            folded = Some(next);
            Ok(difference.is_none())
        })?;
        let Some(CurrentState::Known(record)) = state else {
            return Ok(difference);
        };
        if difference.is_some() || folded.as_ref() == Some(&record) {
            return Ok(difference);
        }
        let folded = folded.map(|folded| folded.state).unwrap_or_default();
        let changes = changes(
            &serde_json::to_value(&folded)?,
            &serde_json::to_value(&record.state)?,
        );
        let problem = "the current state is another";
        Ok(Some(deviation(store, record.version, problem, changes)))
    }

    /// Returns in what the snapshot of a version differs, where there is one that reads.
    fn compare_snapshot(
        &self,
        handle: &ReadHandle,
        key: &HistoryKey,
        folded: &AggregateRecord<A::State>,
    ) -> Result<Option<Vec<Change>>, HistoryReadError> {
        let store = &self.stores.snapshots;
        let mut at = Vec::new();
        key.encode(&mut at);
        let stored = handle.get(store, &at);
        let stored = stored.map_err(|error| state_failed(store, error))?;
        let snapshot = stored.as_deref().and_then(|stored| {
            let (_, plain) = value::decode(stored)?;
            Snapshot::decode(plain)?.record::<A>(key.version)
        });
        let Some(snapshot) = snapshot.filter(|snapshot| snapshot != folded) else {
            return Ok(None);
        };
        let (right, found): (Value, Value) = (
            serde_json::to_value(&folded.state)?,
            serde_json::to_value(&snapshot.state)?,
        );
        Ok(Some(changes(&right, &found)))
    }
}

/// Compares the aggregates served here one after another, from a partition and behind the aggregate in it
/// where the last look ended. `next` finds the aggregate after another, `compare` says what is wrong with
/// it and how many events it has.
pub(super) fn compare_each(
    handles: &StoreHandles,
    (first, mut after): (i32, Option<String>),
    limit: usize,
    next: impl Fn(i32, &ReadHandle, Option<&str>) -> Result<Option<String>, HistoryReadError>,
    compare: impl Fn(i32, &ReadHandle, &str) -> Result<(Option<Deviation>, u64), HistoryReadError>,
) -> Result<Verification, HistoryReadError> {
    let limit = u64::try_from(limit.clamp(1, PAGE_ENTRIES_MAX)).unwrap_or(u64::MAX);
    let mut found = Verification {
        aggregates: 0,
        events: 0,
        difference: None,
        cursor: None,
        partitions_compared: handles.served.keys().copied().collect(),
        partitions_missing: handles.missing(),
        other_version: Vec::new(),
        groups: None,
    };
    for (partition, handle) in handles.served.range(first..) {
        let mut last = after.take().filter(|_| *partition == first);
        while let Some(id) = next(*partition, handle, last.as_deref())? {
            if found.aggregates >= limit || found.events >= EVENTS_MAX {
                found.cursor = Some(format!("{partition}@{}", last.unwrap_or_default()));
                return Ok(found);
            }
            let (difference, events) = compare(*partition, handle, &id)?;
            found.aggregates += 1;
            found.events += events;
            if difference.is_some() {
                found.difference = difference;
                return Ok(found);
            }
            last = Some(id);
        }
    }
    Ok(found)
}

/// Reads a cursor: a partition, and the last aggregate in it that was compared.
pub(super) fn begin(cursor: Option<&str>) -> Result<(i32, Option<String>), HistoryReadError> {
    let Some(cursor) = cursor else {
        return Ok((0, None));
    };
    let parts = cursor.split_once('@').and_then(|(partition, id)| {
        let partition = partition.parse().ok()?;
        (!id.contains('\0')).then(|| (partition, (!id.is_empty()).then(|| id.to_owned())))
    });
    parts.ok_or_else(|| HistoryReadError::BadCursor(cursor.to_owned()))
}

/// Returns the first aggregate of a task after another.
pub(super) fn next_aggregate(
    handle: &ReadHandle,
    store: &str,
    last: Option<&str>,
) -> Result<Option<String>, HistoryReadError> {
    let mut from = Vec::new();
    if let Some(last) = last {
        HistoryKey::new(last, u64::MAX).encode(&mut from);
        from.push(0);
    }
    let found = handle.range(store, &from, None, false, 1);
    let found = found.map_err(|error| state_failed(store, error))?;
    let Some((key, _)) = found.first() else {
        return Ok(None);
    };
    let key = HistoryKey::decode(key).map_err(|error| failed(store, error.into()))?;
    Ok(Some(key.aggregate_id))
}
