//! Reading a projection: its progress, who serves, and whether its rows are what the events add up to.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::changes::changes;
use super::grouped::CommittedGroups;
use super::reader::Reader;
use super::replayed::{ReplayedRow, StoreEntries, StoresInLog, each_event, while_serving};
use super::verify::{Deviation, Verification, begin, compare_each, next_aggregate};
use super::{HistoryReadError, StoreNames, failed, state_failed};
use crate::clock::Timestamp;
use crate::event_sourcing::aggregate::Aggregate;
use crate::event_sourcing::decision::AggregateRecord;
use crate::event_sourcing::projection::{
    GroupedProjection, Projection, ProjectionControl, ProjectionPhase, ProjectionProgress, RowKey,
    RowValue, Rows, slot,
};
use crate::event_sourcing::recorded::RecordedEvent;
use crate::format::value;
use crate::processor::BoxError;
use crate::query::{QueryError, QueryRegistry, ServingStore};
use crate::serde::Serde;
use crate::state::ReadHandle;

/// How often an aggregate is compared again that changes meanwhile.
const ATTEMPTS: usize = 8;

/// Where a projection's stores are.
#[derive(Debug, Clone)]
pub(in crate::event_sourcing) struct ProjectionStores {
    pub(in crate::event_sourcing) of: StoreNames,
    pub(in crate::event_sourcing) progress: String,
    pub(in crate::event_sourcing) slots: [String; 2],
}

/// A projection as it is seen from outside: its progress, its rows, and how it is built anew. Made by
/// [`Projections::draw`](crate::event_sourcing::Projections::draw).
#[derive(Clone)]
pub struct ProjectionEndpoint(Arc<dyn ProjectionReader>);

impl fmt::Debug for ProjectionEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProjectionEndpoint")
            .field(&self.name())
            .finish()
    }
}

/// A projection in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ProjectionPartition {
    /// The partition.
    pub partition: i32,
    /// How far it is.
    #[serde(flatten)]
    pub progress: ProjectionProgress,
    /// How many events are missing: in the generation that is being built, where there is one.
    pub lag_events: u64,
}

/// The groups of a [grouped projection](crate::event_sourcing::GroupedProjection) in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupsPartition {
    /// The partition of the groups.
    pub partition: i32,
    /// The generation that serves; 0 before the first.
    pub generation: u64,
    /// The version of the rules that its rows are made by.
    pub version: u32,
    /// What goes on beside: `Publishing`, `Clearing`, or nothing.
    pub phase: ProjectionPhase,
}

/// The groups of a grouped projection, as far as they are served here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupsView {
    /// The partitions served here.
    pub partitions: Vec<GroupsPartition>,
    /// The others.
    pub partitions_missing: Vec<i32>,
}

/// A projection, as far as it is served here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ProjectionView {
    /// Its name.
    pub name: String,
    /// The type of the aggregates that it is made of.
    pub aggregate_type: &'static str,
    /// The version of its rules in this program.
    pub version: u32,
    /// The partitions served here.
    pub partitions: Vec<ProjectionPartition>,
    /// The others.
    pub partitions_missing: Vec<i32>,
    /// Where rows are of groups: which generation of them serves. `partitions` say then how far the
    /// aggregates' shares are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupsView>,
}

impl ProjectionEndpoint {
    pub(in crate::event_sourcing) fn new<A: Aggregate, K: RowKey, V: RowValue>(
        stores: ProjectionStores,
        projection: Projection<A, K, V>,
        control: ProjectionControl,
    ) -> Self {
        Self(Arc::new(Committed {
            stores,
            projection,
            control,
        }))
    }

    pub(in crate::event_sourcing) fn grouped<A: Aggregate, C: RowValue, T: RowValue>(
        of: StoreNames,
        projection: GroupedProjection<A, C, T>,
        control: ProjectionControl,
    ) -> Self {
        Self(Arc::new(CommittedGroups::new(of, projection, control)))
    }

    /// Returns the projection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Returns how far the projection is, in the partitions served here.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn view(&self, queries: &QueryRegistry) -> Result<ProjectionView, HistoryReadError> {
        self.0.view(queries)
    }

    /// Asks the tasks of this process to build the next generation from history, where none is being
    /// built; returns by partition the generation that is asked for. Rows are served on until it has
    /// caught up. The tasks take it up shortly; a request that meets the end of the process is lost.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn request_rebuild(
        &self,
        queries: &QueryRegistry,
    ) -> Result<BTreeMap<i32, u64>, HistoryReadError> {
        let view = self.view(queries)?;
        let asked = self.0.wanted(&view);
        for (partition, generation) in &asked {
            self.0.request(*partition, *generation);
        }
        Ok(asked)
    }

    /// Compares the rows of the aggregates served here with what their events add up to, as
    /// [`AggregateHistory::verify`](super::AggregateHistory::verify) does with their states.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn verify(
        &self,
        queries: &QueryRegistry,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Verification, HistoryReadError> {
        self.0.verify(queries, cursor, limit)
    }

    /// Returns the rows that serve, read from the log.
    pub(crate) fn latest_rows(
        &self,
        log: &mut dyn StoresInLog,
    ) -> Result<Vec<ReplayedRow>, BoxError> {
        self.0.latest_rows(log)
    }

    /// Returns the rows that the events of before a time make, read from the log.
    pub(crate) fn rows_anew(
        &self,
        log: &mut dyn StoresInLog,
        before: Option<Timestamp>,
    ) -> Result<Vec<ReplayedRow>, BoxError> {
        self.0.rows_anew(log, before)
    }

    /// Returns a way to the rows of the generation that serves, which differs from task to task.
    #[must_use]
    pub fn serving(&self) -> Arc<dyn ServingStore> {
        Arc::<dyn ProjectionReader>::clone(&self.0)
    }
}

/// [`ProjectionEndpoint`] without its types.
pub(super) trait ProjectionReader: ServingStore {
    fn name(&self) -> &str;
    fn view(&self, queries: &QueryRegistry) -> Result<ProjectionView, HistoryReadError>;
    /// By partition, the generation that is built or is to be.
    fn wanted(&self, view: &ProjectionView) -> BTreeMap<i32, u64> {
        let partitions = view.partitions.iter();
        let next = partitions.map(|found| (found.partition, found.progress.under_way_or_next()));
        next.collect()
    }
    fn request(&self, partition: i32, generation: u64);
    fn verify(
        &self,
        queries: &QueryRegistry,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Verification, HistoryReadError>;
    /// The rows that serve, as changelogs have them.
    fn latest_rows(&self, log: &mut dyn StoresInLog) -> Result<Vec<ReplayedRow>, BoxError>;
    /// The rows that the events of before a time make.
    fn rows_anew(
        &self,
        log: &mut dyn StoresInLog,
        before: Option<Timestamp>,
    ) -> Result<Vec<ReplayedRow>, BoxError>;
}

struct Committed<A: Aggregate, K, V> {
    stores: ProjectionStores,
    projection: Projection<A, K, V>,
    control: ProjectionControl,
}

impl<A: Aggregate, K: RowKey, V: RowValue> ServingStore for Committed<A, K, V> {
    fn any(&self) -> &str {
        self.slot(0)
    }

    fn serving(&self, handle: &ReadHandle) -> Result<(&str, u64), QueryError> {
        let progress = self.progress(handle).map_err(|error| match error {
            HistoryReadError::Query(error) => error,
            error => QueryError::Failed {
                store: self.stores.progress.clone(),
                source: error.into(),
            },
        })?;
        Ok((self.slot(progress.generation), progress.generation))
    }
}

impl<A: Aggregate, K: RowKey, V: RowValue> ProjectionReader for Committed<A, K, V> {
    fn name(&self) -> &str {
        &self.projection.name
    }

    fn view(&self, queries: &QueryRegistry) -> Result<ProjectionView, HistoryReadError> {
        let handles = queries.store_handles(&self.stores.progress)?;
        let mut partitions = Vec::with_capacity(handles.served.len());
        for (partition, handle) in &handles.served {
            let progress = self.progress(handle)?;
            let history = &self.stores.of.history;
            let total = match progress.phase {
                ProjectionPhase::Building { .. } => handle
                    .approximate_count(history)
                    .map_err(|error| state_failed(history, error))?,
                _ => progress.events,
            };
            partitions.push(ProjectionPartition {
                partition: *partition,
                lag_events: progress.lag(self.projection.version, total),
                progress,
            });
        }
        Ok(ProjectionView {
            name: self.projection.name.clone(),
            aggregate_type: A::TYPE,
            version: self.projection.version,
            partitions,
            partitions_missing: handles.missing(),
            groups: None,
        })
    }

    fn request(&self, partition: i32, generation: u64) {
        self.control.request(partition, generation);
    }

    fn verify(
        &self,
        queries: &QueryRegistry,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Verification, HistoryReadError> {
        let from = begin(cursor)?;
        let handles = queries.store_handles(&self.stores.progress)?;
        let mut found = compare_each(
            &handles,
            from,
            limit,
            |_, handle, last| self.next_aggregate(handle, last),
            |_, handle, id| {
                let mut events = 0;
                let difference = self.compare(handle, id, &mut events)?;
                Ok((difference, events))
            },
        )?;
        for (partition, handle) in &handles.served {
            if self.progress(handle)?.version != self.projection.version {
                found.other_version.push(*partition);
            }
        }
        Ok(found)
    }

    fn latest_rows(&self, log: &mut dyn StoresInLog) -> Result<Vec<ReplayedRow>, BoxError> {
        let mut rows = Vec::new();
        for partition in 0..log.partitions(&self.stores.progress)? {
            let serving = |entries: &StoreEntries| {
                let progress = progress_in(entries, &self.projection.name)?;
                if progress.generation == 0 {
                    return Err(not_built(&self.projection.name, partition));
                }
                Ok((
                    progress.generation,
                    self.slot(progress.generation).to_owned(),
                ))
            };
            let (_, found) = while_serving(log, &self.stores.progress, partition, serving)?;
            for (key, (timestamp, value)) in found {
                let key = K::Serde::default().deserialize(Some(&key))?;
                rows.push(ReplayedRow {
                    partition,
                    key: key.text(),
                    value,
                    timestamp,
                });
            }
        }
        Ok(rows)
    }

    fn rows_anew(
        &self,
        log: &mut dyn StoresInLog,
        before: Option<Timestamp>,
    ) -> Result<Vec<ReplayedRow>, BoxError> {
        let mut rows = Vec::new();
        for partition in 0..log.partitions(&self.stores.of.history)? {
            let history = log.entries(&self.stores.of.history, partition)?;
            let (mut made, mut times) = (RowMap::<K, V>::new(), BTreeMap::new());
            each_event::<A>(
                history,
                &self.stores.of.archive,
                before,
                &mut |id, event| {
                    let mut rows = Rows::new(id, &mut made);
                    self.projection.take_in(id, event, &mut rows)?;
                    for key in rows.into_written() {
                        times.insert(key, event.updated_at);
                    }
                    Ok(())
                },
            )?;
            for (key, value) in made {
                rows.push(ReplayedRow {
                    partition,
                    key: key.text(),
                    value: serde_json::to_vec(&value)?,
                    timestamp: times.get(&key).copied().unwrap_or_default(),
                });
            }
        }
        Ok(rows)
    }
}

/// Returns a partition's progress out of its entries.
fn progress_in(entries: &StoreEntries, name: &str) -> Result<ProjectionProgress, BoxError> {
    let entry = entries.get(name.as_bytes());
    let progress = entry.map(|(_, plain)| serde_json::from_slice(plain));
    Ok(progress.transpose()?.unwrap_or_default())
}

type RowMap<K, V> = BTreeMap<K, V>;

impl<A: Aggregate, K: RowKey, V: RowValue> Committed<A, K, V> {
    fn slot(&self, generation: u64) -> &str {
        let [even, odd] = &self.stores.slots;
        if slot(generation) == 0 { even } else { odd }
    }

    fn progress(&self, handle: &ReadHandle) -> Result<ProjectionProgress, HistoryReadError> {
        let store = &self.stores.progress;
        let stored = handle.get(store, self.projection.name.as_bytes());
        let stored = stored.map_err(|error| state_failed(store, error))?;
        let Some((_, plain)) = stored.as_deref().and_then(value::decode) else {
            return Ok(ProjectionProgress::default());
        };
        Ok(serde_json::from_slice(plain)?)
    }

    fn encode(&self, store: &str, key: &K) -> Result<Vec<u8>, HistoryReadError> {
        let mut bytes = Vec::new();
        let encoded = K::Serde::default().serialize(key, &mut bytes);
        encoded.map_err(|error| failed(store, error))?;
        Ok(bytes)
    }

    fn decode(&self, store: &str, key: &[u8]) -> Result<K, HistoryReadError> {
        let decoded = K::Serde::default().deserialize(Some(key));
        decoded.map_err(|error| failed(store, error))
    }

    /// Returns the next aggregate of a task that has events, or rows.
    fn next_aggregate(
        &self,
        handle: &ReadHandle,
        last: Option<&str>,
    ) -> Result<Option<String>, HistoryReadError> {
        let history = next_aggregate(handle, &self.stores.of.history, last)?;
        let store = self.slot(self.progress(handle)?.generation);
        let mut from = Vec::new();
        if let Some(last) = last {
            from = self.encode(store, K::rows_of(last).end())?;
            from.push(0);
        }
        let found = handle.range(store, &from, None, false, 1);
        let found = found.map_err(|error| state_failed(store, error))?;
        let row = match found.first() {
            Some((key, _)) => Some(self.decode(store, key)?.aggregate_id().to_owned()),
            None => None,
        };
        Ok(match (history, row) {
            (Some(history), Some(row)) => Some(history.min(row)),
            (history, row) => history.or(row),
        })
    }

    /// Compares one aggregate; one that changes all the time is left to a later look.
    fn compare(
        &self,
        handle: &ReadHandle,
        id: &str,
        events: &mut u64,
    ) -> Result<Option<Deviation>, HistoryReadError> {
        let mut difference = None;
        for _ in 0..ATTEMPTS {
            let before = self.progress(handle)?;
            let (right, version) = self.added_up(handle, id, events)?;
            let store = self.slot(before.generation);
            let rows = self.stored(handle, store, id)?;
            difference = self.difference(store, id, version, &right, &rows)?;
            let known = Reader::<A>::on(handle.clone(), &self.stores.of, id).known()?;
            let unmoved = known.map_or(0, |known| known.last_version) == version;
            if difference.is_none()
                || unmoved && self.progress(handle)?.generation == before.generation
            {
                return Ok(difference.filter(|_| before.version == self.projection.version));
            }
        }
        drop(difference);
        Ok(None)
    }

    /// Returns the rows that the events of an aggregate add up to, and its version.
    fn added_up(
        &self,
        handle: &ReadHandle,
        id: &str,
        events: &mut u64,
    ) -> Result<(RowMap<K, V>, u64), HistoryReadError> {
        let mut rows = BTreeMap::new();
        let mut folded: Option<AggregateRecord<A::State>> = None;
        let mut reader = Reader::<A>::on(handle.clone(), &self.stores.of, id);
        reader.each(0, u64::MAX, |_, _, read| {
            let known = folded.take();
            let mut after = read.before(known.clone())?;
            read.apply(&mut after);
            let before = known.map(|known| known.state);
            let event = RecordedEvent::of_history(read, before, &after);
            self.projection
                .take_in(id, &event, &mut Rows::new(id, &mut rows))
                .map_err(|error| failed(&self.projection.name, error))?;
            folded = Some(after);
            Ok(true)
        })?;
        *events += reader.reads.events;
        Ok((rows, folded.map_or(0, |folded| folded.version)))
    }

    fn stored(
        &self,
        handle: &ReadHandle,
        store: &str,
        id: &str,
    ) -> Result<RowMap<K, V>, HistoryReadError> {
        let range: RangeInclusive<K> = K::rows_of(id);
        let from = self.encode(store, range.start())?;
        let mut to = self.encode(store, range.end())?;
        to.push(0);
        let found = handle.range(store, &from, Some(&to), false, usize::MAX);
        let found = found.map_err(|error| state_failed(store, error))?;
        let mut rows = BTreeMap::new();
        for (key, stored) in found {
            let key = self.decode(store, &key)?;
            let plain = value::decode(&stored).map(|(_, plain)| plain);
            rows.insert(key, serde_json::from_slice(plain.unwrap_or_default())?);
        }
        Ok(rows)
    }

    /// Returns the first row that differs.
    fn difference(
        &self,
        store: &str,
        id: &str,
        version: u64,
        right: &RowMap<K, V>,
        rows: &RowMap<K, V>,
    ) -> Result<Option<Deviation>, HistoryReadError> {
        let mut keys: Vec<&K> = right.keys().chain(rows.keys()).collect();
        keys.sort_unstable();
        let Some(key) = keys.into_iter().find(|key| right.get(key) != rows.get(key)) else {
            return Ok(None);
        };
        let (by_events, found) = (right.get(key), rows.get(key));
        let problem = match (by_events, found) {
            (Some(_), None) => "a row is missing",
            (None, Some(_)) => "there is a row that no event has made",
            _ => "a row is another",
        };
        let json = |row: Option<&V>| row.map_or(Ok(Value::Null), serde_json::to_value);
        Ok(Some(Deviation {
            store: store.to_owned(),
            aggregate_id: id.to_owned(),
            version,
            row: Some(key.text()),
            problem,
            changes: changes(&json(by_events)?, &json(found)?),
        }))
    }
}

/// What a replay of rows that are there says where there are none yet.
pub(super) fn not_built(projection: &str, partition: i32) -> BoxError {
    format!(
        "partition {partition} of projection `{projection}` has built no generation yet: wait until the \
         daemon serves it, or make the rows from history with `--anew`"
    )
    .into()
}
