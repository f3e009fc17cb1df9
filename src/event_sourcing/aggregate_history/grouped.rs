//! Reading a grouped projection: which generations there are, who serves, and whether groups are what the
//! events of all aggregates add up to.
//!
//! It is compared in two steps: the shares of each aggregate with its events, and in the last look the
//! groups with all shares. The second takes all partitions at hand: a group has shares from each.

use std::collections::BTreeMap;

use super::changes::changes;
use super::projected::{
    GroupsPartition, GroupsView, ProjectionPartition, ProjectionReader, ProjectionView, not_built,
};
use super::reader::Reader;
use super::replayed::{ReplayedRow, StoreEntries, StoresInLog, each_event, while_serving};
use super::verify::{Deviation, Verification, begin, compare_each, next_aggregate};
use super::{HistoryReadError, StoreNames, failed, state_failed};
use crate::clock::Timestamp;
use crate::event_sourcing::aggregate::Aggregate;
use crate::event_sourcing::decision::AggregateRecord;
use crate::event_sourcing::projection::{
    GenerationEntry, GenerationKey, GroupedProjection, GroupedStore, ProjectionControl,
    ProjectionPhase, RowValue, Serving, Shares, Standing, Total, TotalSerde,
};
use crate::event_sourcing::recorded::RecordedEvent;
use crate::format::partitioner::partition_for_key;
use crate::format::value;
use crate::processor::BoxError;
use crate::query::{QueryError, QueryRegistry, ServingStore};
use crate::serde::{Serde, TextCodec};
use crate::state::ReadHandle;

/// How often an aggregate is compared again that changes meanwhile.
const ATTEMPTS: usize = 8;

/// A grouped projection as it is seen from outside.
pub(super) struct CommittedGroups<A: Aggregate, C, T> {
    of: StoreNames,
    pub(super) projection: GroupedProjection<A, C, T>,
    control: ProjectionControl,
    generations: String,
    pub(super) shares: String,
    pub(super) totals: String,
    serving: String,
}

impl<A: Aggregate, C: RowValue, T: RowValue> CommittedGroups<A, C, T> {
    pub(super) fn new(
        of: StoreNames,
        projection: GroupedProjection<A, C, T>,
        control: ProjectionControl,
    ) -> Self {
        Self {
            generations: projection.store(GroupedStore::Generations),
            shares: projection.store(GroupedStore::Shares),
            totals: projection.store(GroupedStore::Totals),
            serving: projection.store(GroupedStore::Serving),
            of,
            projection,
            control,
        }
    }
}

impl<A: Aggregate, C: RowValue, T: RowValue> ServingStore for CommittedGroups<A, C, T> {
    fn any(&self) -> &str {
        &self.totals
    }

    fn serving(&self, handle: &ReadHandle) -> Result<(&str, u64), QueryError> {
        let serving = self.state(handle).map_err(|error| match error {
            HistoryReadError::Query(error) => error,
            error => QueryError::Failed {
                store: self.serving.clone(),
                source: error.into(),
            },
        })?;
        if serving.generation == 0 {
            return Err(QueryError::NotBuilt {
                store: self.projection.name().to_owned(),
            });
        }
        Ok((&self.totals, serving.generation))
    }

    fn parse_key(&self, _: &dyn TextCodec, text: &str) -> Result<Vec<u8>, BoxError> {
        Ok(GenerationKey::new(0, text).encoded())
    }

    fn move_key(&self, key: &mut [u8], generation: u64) {
        GenerationKey::move_to(key, generation);
    }

    fn keys_of(&self, generation: u64) -> (Vec<u8>, Option<Vec<u8>>) {
        let first = |generation| GenerationKey::new(generation, "").encoded();
        (first(generation), Some(first(generation.saturating_add(1))))
    }
}

impl<A: Aggregate, C: RowValue, T: RowValue> ProjectionReader for CommittedGroups<A, C, T> {
    fn name(&self) -> &str {
        self.projection.name()
    }

    fn view(&self, queries: &QueryRegistry) -> Result<ProjectionView, HistoryReadError> {
        let handles = queries.store_handles(&self.generations)?;
        let mut partitions = Vec::with_capacity(handles.served.len());
        for (partition, handle) in &handles.served {
            let progress = self.standing(handle, *partition)?.progress();
            let history = &self.of.history;
            let total = match progress.phase {
                ProjectionPhase::Building { .. } => handle
                    .approximate_count(history)
                    .map_err(|error| state_failed(history, error))?,
                _ => progress.events,
            };
            partitions.push(ProjectionPartition {
                partition: *partition,
                lag_events: progress.lag(self.projection.rules(), total),
                progress,
            });
        }
        let groups = queries.store_handles(&self.serving)?;
        let mut groups_here = Vec::with_capacity(groups.served.len());
        for (partition, handle) in &groups.served {
            let serving = self.state(handle)?;
            groups_here.push(GroupsPartition {
                partition: *partition,
                generation: serving.generation,
                version: serving.version,
                phase: serving.phase,
            });
        }
        Ok(ProjectionView {
            name: self.projection.name().to_owned(),
            aggregate_type: A::TYPE,
            version: self.projection.rules(),
            partitions,
            partitions_missing: handles.missing(),
            groups: Some(GroupsView {
                partitions: groups_here,
                partitions_missing: groups.missing(),
            }),
        })
    }

    /// All partitions build the same generation: where one has begun it, the others will by themselves.
    fn wanted(&self, view: &ProjectionView) -> BTreeMap<i32, u64> {
        let partitions = || view.partitions.iter();
        let under_way = partitions()
            .filter(|found| found.progress.newest() > found.progress.generation)
            .map(|found| found.progress.newest());
        let next = || {
            partitions()
                .map(|found| found.progress.under_way_or_next())
                .max()
        };
        let generation = under_way.max().or_else(next).unwrap_or(0);
        partitions()
            .map(|found| (found.partition, generation))
            .collect()
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
        let handles = queries.store_handles(&self.generations)?;
        let mut found = compare_each(
            &handles,
            from,
            limit,
            |partition, handle, last| self.next_aggregate(partition, handle, last),
            |partition, handle, id| {
                let mut events = 0;
                let difference = self.compare(partition, handle, id, &mut events)?;
                Ok((difference, events))
            },
        )?;
        if found.difference.is_none() && found.cursor.is_none() {
            let (groups, difference) = self.compare_groups(queries, &handles)?;
            found.groups = Some(groups);
            found.difference = difference;
        }
        Ok(found)
    }

    fn latest_rows(&self, log: &mut dyn StoresInLog) -> Result<Vec<ReplayedRow>, BoxError> {
        let mut rows = Vec::new();
        for partition in 0..log.partitions(&self.serving)? {
            let serving = |entries: &StoreEntries| {
                let entry = entries.get(Serving::KEY);
                let serving = entry.map(|(_, plain)| serde_json::from_slice::<Serving>(plain));
                let generation = serving.transpose()?.map_or(0, |serving| serving.generation);
                if generation == 0 {
                    return Err(not_built(self.projection.name(), partition));
                }
                Ok((generation, self.totals.clone()))
            };
            let (generation, found) = while_serving(log, &self.serving, partition, serving)?;
            for (key, (timestamp, total)) in found {
                let key = GenerationKey::decode(&key)?;
                if key.generation == generation {
                    let total: Total<T> = TotalSerde::default().deserialize(Some(&total))?;
                    rows.push(ReplayedRow {
                        partition,
                        key: key.name,
                        value: serde_json::to_vec(&total.value)?,
                        timestamp,
                    });
                }
            }
        }
        Ok(rows)
    }

    fn rows_anew(
        &self,
        log: &mut dyn StoresInLog,
        before: Option<Timestamp>,
    ) -> Result<Vec<ReplayedRow>, BoxError> {
        let mut groups: BTreeMap<String, (Total<T>, Timestamp)> = BTreeMap::new();
        for partition in 0..log.partitions(&self.of.history)? {
            let history = log.entries(&self.of.history, partition)?;
            let mut shares: BTreeMap<String, (Shares<C>, Timestamp)> = BTreeMap::new();
            each_event::<A>(history, &self.of.archive, before, &mut |id, event| {
                let known = shares.entry(id.to_owned()).or_default();
                known.1 = event.updated_at;
                self.projection.contribute(id, event, &mut known.0)
            })?;
            for (shares, timestamp) in shares.into_values() {
                for (group, share) in shares.iter() {
                    let (total, at) = groups.remove(group).unzip();
                    let come = Some(share.clone());
                    if let Some(total) = self.projection.fold(group, total, None, come) {
                        let at = at.map_or(timestamp, |at: Timestamp| at.max(timestamp));
                        groups.insert(group.to_owned(), (total, at));
                    }
                }
            }
        }
        let partitions = log.partitions(&self.serving)?;
        groups
            .into_iter()
            .map(|(group, (total, timestamp))| {
                Ok(ReplayedRow {
                    partition: partition_for_key(group.as_bytes(), partitions),
                    value: serde_json::to_vec(&total.value)?,
                    key: group,
                    timestamp,
                })
            })
            .collect()
    }
}

impl<A: Aggregate, C: RowValue, T: RowValue> CommittedGroups<A, C, T> {
    fn entry<V: serde::de::DeserializeOwned>(
        &self,
        handle: &ReadHandle,
        store: &str,
        key: &[u8],
    ) -> Result<Option<V>, HistoryReadError> {
        let stored = handle.get(store, key);
        let stored = stored.map_err(|error| state_failed(store, error))?;
        let plain = stored.as_deref().and_then(value::decode);
        Ok(plain
            .map(|(_, plain)| serde_json::from_slice(plain))
            .transpose()?)
    }

    pub(super) fn standing(
        &self,
        handle: &ReadHandle,
        partition: i32,
    ) -> Result<Standing, HistoryReadError> {
        let key = partition.to_be_bytes();
        let entry: Option<GenerationEntry> = self.entry(handle, &self.generations, &key)?;
        Ok(match entry {
            Some(GenerationEntry::Own(standing)) => standing,
            Some(GenerationEntry::Other(_)) | None => Standing::default(),
        })
    }

    pub(super) fn state(&self, handle: &ReadHandle) -> Result<Serving, HistoryReadError> {
        let found = self.entry(handle, &self.serving, Serving::KEY)?;
        Ok(found.unwrap_or_default())
    }

    /// Returns the next aggregate of a task that has events, or shares.
    fn next_aggregate(
        &self,
        partition: i32,
        handle: &ReadHandle,
        last: Option<&str>,
    ) -> Result<Option<String>, HistoryReadError> {
        let history = next_aggregate(handle, &self.of.history, last)?;
        let standing = self.standing(handle, partition)?;
        let Some(followed) = standing.followed else {
            return Ok(history);
        };
        let generation = followed.made.generation;
        let mut from = GenerationKey::new(generation, last.unwrap_or_default()).encoded();
        if last.is_some() {
            from.push(0);
        }
        let (_, end) = self.keys_of(generation);
        let found = handle.range(&self.shares, &from, end.as_deref(), false, 1);
        let found = found.map_err(|error| state_failed(&self.shares, error))?;
        let of_shares = match found.first() {
            Some((key, _)) => Some(self.key(&self.shares, key)?.name),
            None => None,
        };
        Ok(match (history, of_shares) {
            (Some(history), Some(of_shares)) => Some(history.min(of_shares)),
            (history, of_shares) => history.or(of_shares),
        })
    }

    pub(super) fn key(&self, store: &str, bytes: &[u8]) -> Result<GenerationKey, HistoryReadError> {
        GenerationKey::decode(bytes).map_err(|error| failed(store, error))
    }

    /// Compares an aggregate's shares; one that changes all the time is left to a later look.
    fn compare(
        &self,
        partition: i32,
        handle: &ReadHandle,
        id: &str,
        events: &mut u64,
    ) -> Result<Option<Deviation>, HistoryReadError> {
        for _ in 0..ATTEMPTS {
            let before = self.standing(handle, partition)?;
            let Some(followed) = &before.followed else {
                return Ok(None);
            };
            let (right, version) = self.added_up(handle, id, events)?;
            let key = GenerationKey::new(followed.made.generation, id);
            let found: Option<Shares<C>> = self.entry(handle, &self.shares, &key.encoded())?;
            let found = found.unwrap_or_default();
            if found == right || followed.made.version != self.projection.rules() {
                return Ok(None);
            }
            let known = Reader::<A>::on(handle.clone(), &self.of, id).known()?;
            let unmoved = known.map_or(0, |known| known.last_version) == version;
            let after = self.standing(handle, partition)?;
            if unmoved && after.followed.as_ref().map(|it| it.made) == Some(followed.made) {
                return Ok(Some(Deviation {
                    store: self.shares.clone(),
                    aggregate_id: id.to_owned(),
                    version,
                    row: None,
                    problem: "its shares are others",
                    changes: changes(
                        &serde_json::to_value(&right)?,
                        &serde_json::to_value(&found)?,
                    ),
                }));
            }
        }
        Ok(None)
    }

    /// Returns the shares that the events of an aggregate add up to, and its version.
    fn added_up(
        &self,
        handle: &ReadHandle,
        id: &str,
        events: &mut u64,
    ) -> Result<(Shares<C>, u64), HistoryReadError> {
        let mut shares = Shares::default();
        let mut folded: Option<AggregateRecord<A::State>> = None;
        let mut reader = Reader::<A>::on(handle.clone(), &self.of, id);
        reader.each(0, u64::MAX, |_, _, read| {
            let known = folded.take();
            let mut after = read.before(known.clone())?;
            read.apply(&mut after);
            let before = known.map(|known| known.state);
            let event = RecordedEvent::of_history(read, before, &after);
            self.projection
                .contribute(id, &event, &mut shares)
                .map_err(|error| failed(self.projection.name(), error))?;
            folded = Some(after);
            Ok(true)
        })?;
        *events += reader.reads.events;
        Ok((shares, folded.map_or(0, |folded| folded.version)))
    }
}
