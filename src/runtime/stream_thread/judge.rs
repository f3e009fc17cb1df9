//! What a task's local state is worth: the facts, in the order that the decision needs, and its
//! execution. The decision itself is [`plan_restore`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::StreamThread;
use super::slot::StartOffset;
use crate::clock::Timestamp;
use crate::format::offset_metadata::{OffsetMetadata, RESET_GENERATION};
use crate::format::topic_config;
use crate::log::{Isolation, Log, LogRange, Offset, TopicName, TopicPartition};
use crate::metrics::SetAsideReason;
use crate::reset::PENDING_KEY;
use crate::runtime::PlantedBug;
use crate::runtime::error::Fault;
use crate::runtime::protocol::restore::{
    ChangelogCheckpoint, ChangelogFacts, Distrust, LocalCheckpoint, RestorePlan, StableOffsets,
    known_start, plan_restore, surely_kept,
};
use crate::state::{StateError, StoreDecl, TaskDb};
use crate::topology::{DeclaredTopic, Persistence, SourceChangelog, StoreSpec, TaskId, TopicRef};

/// A changelog partition of a task.
#[derive(Debug)]
pub(super) struct ChangelogOf {
    pub(super) partition: TopicPartition,
    pub(super) facts: ChangelogFacts,
    /// Of one that is an input: what of it reaches the store.
    pub(super) source: Option<SourceChangelog>,
    /// Whether the store's values begin with headers.
    pub(super) keeps_headers: bool,
}

impl<L: Log> StreamThread<L> {
    /// Ranges of the task's changelogs, taken after the stable offsets. One that is an input ends for
    /// the task where its committed offset is: what follows, it has yet to process.
    pub(super) fn changelog_facts(
        &self,
        id: TaskId,
        after: &StableOffsets,
    ) -> Result<BTreeMap<String, ChangelogOf>, Fault> {
        let sub = self.sub_topology(id)?;
        let changelogs = sub.topics.changelogs.iter().map(|(store, changelog)| {
            let topic = TopicName::clone(&changelog.topic);
            (store, changelog, TopicPartition::new(topic, id.partition))
        });
        // A topic with fewer partitions than there are tasks is no input of the last ones.
        let changelogs: Vec<_> = changelogs
            .filter(|(_, changelog, partition)| {
                !changelog.is_source || after.inputs.contains_key(partition)
            })
            .collect();
        let partitions: Vec<TopicPartition> = changelogs
            .iter()
            .map(|(_, _, partition)| partition.clone())
            .collect();
        let planted = self
            .spec
            .probe
            .planted(PlantedBug::RestoreStopsAtLastStableOffset);
        let isolation = if planted {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        };
        let ranges: Vec<LogRange> = self.spec.log.log_ranges(&partitions, isolation)?;
        let mut facts = BTreeMap::new();
        for ((store, changelog, partition), range) in changelogs.into_iter().zip(ranges) {
            let stores = &sub.drawn.stores;
            let spec = stores.iter().find(|spec| spec.name == *store);
            let source = spec.and_then(|spec| spec.source_changelog.clone());
            let declared = self.spec.topology.topology.declared_topics();
            let (range, config) = match &source {
                Some(source) => (
                    self.up_to_committed(range, &partition, after)?,
                    Some(table_config(declared, &source.topic)),
                ),
                None => (range, spec.and_then(StoreSpec::changelog_config)),
            };
            let tombstone_retention = config
                .and_then(|config| topic_config::delete_retention_ms(&config))
                .map(surely_kept);
            let of_store = ChangelogOf {
                partition,
                facts: ChangelogFacts {
                    topic_id: changelog.id,
                    range,
                    tombstone_retention,
                },
                source,
                keeps_headers: spec.is_some_and(|spec| spec.keeps_headers),
            };
            facts.insert(store.clone(), of_store);
        }
        Ok(facts)
    }

    /// Returns the part of an input that a task has committed: nothing where the log has lost it, or
    /// where the group has read nothing yet.
    fn up_to_committed(
        &self,
        range: LogRange,
        partition: &TopicPartition,
        stable: &StableOffsets,
    ) -> Result<LogRange, Fault> {
        if self.spec.probe.planted(PlantedBug::SourceRestoredToItsEnd) {
            return Ok(range);
        }
        let start = range.start;
        let committed = stable.inputs.get(partition).copied().flatten();
        let committed = committed.unwrap_or(start);
        if committed > range.end {
            return Err(Fault::Refused(format!(
                "the group has committed offset {committed} of {partition}, which ends at {}: the topic \
                 was deleted and created again, or cut; run `millstream reset`",
                range.end
            )));
        }
        Ok(LogRange {
            start,
            end: committed.max(start),
        })
    }

    /// Opens the task's stores and decides where each has to go on.
    pub(super) fn open_stores(
        &mut self,
        id: TaskId,
        stable: &StableOffsets,
        changelogs: &BTreeMap<String, ChangelogOf>,
        now: Timestamp,
    ) -> Result<(TaskDb, BTreeMap<String, Offset>), Fault> {
        let fault = |source| Fault::State { task: id, source };
        let stores: Vec<StoreDecl> = self
            .sub_topology(id)?
            .drawn
            .stores
            .iter()
            .map(StoreDecl::from)
            .collect();
        let db = TaskDb::open(&self.spec.state.task_dir(id), &stores, &self.spec.budget)
            .map_err(fault)?;
        let mut local = local_checkpoint(&db, &stores).map_err(fault)?;
        if self.spec.probe.planted(PlantedBug::OldCheckpointTrusted) {
            local
                .iter_mut()
                .flat_map(|it| it.changelogs.values_mut())
                .for_each(|it| it.at_end = now);
        }
        let facts = changelogs
            .iter()
            .map(|(store, changelog)| (store.clone(), changelog.facts))
            .collect();
        let plan = plan_restore(local.as_ref(), stable, &facts, now)
            .map_err(|refusal| Fault::Refused(refusal.to_string()))?;
        match plan {
            RestorePlan::Replay(from) => Ok((db, from)),
            RestorePlan::SetAside(distrust, from) => {
                tracing::warn!(task = %id, reason = %distrust, "setting local state aside");
                drop(db);
                self.spec.state.set_aside(id, now).map_err(fault)?;
                self.spec.metrics.state_set_aside(reason(&distrust));
                let db = TaskDb::open(&self.spec.state.task_dir(id), &stores, &self.spec.budget)
                    .map_err(fault)?;
                Ok((db, from))
            }
        }
    }
}

/// Returns the configs of a topic that is read as a table: those its author has declared, of a topic that
/// is compacted.
pub(in crate::runtime) fn table_config(
    declared: &[DeclaredTopic],
    topic: &TopicRef,
) -> BTreeMap<String, String> {
    let mut config = BTreeMap::new();
    if let TopicRef::Declared(name) = topic {
        let declared = declared.iter().filter(|it| it.name == *name);
        config.extend(declared.flat_map(|it| it.config.clone()));
    }
    config.insert("cleanup.policy".to_owned(), "compact".to_owned());
    config
}

/// A reset that has begun may have deleted some topics and not others: nothing is to be built on
/// what is left.
pub(super) fn refuse_pending_reset(
    partitions: &[TopicPartition],
    starts: &[StartOffset],
) -> Result<(), Fault> {
    for (partition, start) in partitions.iter().zip(starts) {
        let committed = start.committed.as_ref();
        let metadata =
            committed.map(|committed| OffsetMetadata::decode_or_default(&committed.metadata));
        if metadata.is_some_and(|metadata| metadata.entries.contains_key(PENDING_KEY)) {
            return Err(Fault::Refused(format!(
                "a reset has begun and not ended (the committed offset of {partition} is marked): \
                 run `millstream reset --execute` again to finish it"
            )));
        }
    }
    Ok(())
}

/// What operators have kept in the committed offsets, of which each carries all; the latest counts.
pub(super) fn kept_metadata<'a>(
    starts: impl Iterator<Item = &'a StartOffset>,
) -> BTreeMap<Arc<str>, i64> {
    let mut kept = BTreeMap::<Arc<str>, i64>::new();
    for committed in starts.filter_map(|start| start.committed.as_ref()) {
        let entries = OffsetMetadata::decode_or_default(&committed.metadata).entries;
        for (key, value) in entries {
            if key != RESET_GENERATION {
                let known = kept.entry(key.into()).or_insert(value);
                *known = value.max(*known);
            }
        }
    }
    kept
}

pub(super) fn stable_offsets(
    partitions: &[TopicPartition],
    starts: &[StartOffset],
) -> StableOffsets {
    let generation = starts
        .iter()
        .filter_map(|start| start.committed.as_ref())
        .map(|committed| OffsetMetadata::decode_or_default(&committed.metadata).generation())
        .max()
        .unwrap_or(0);
    let inputs = partitions
        .iter()
        .zip(starts)
        .map(|(partition, start)| {
            let committed = start.committed.as_ref().map(|committed| committed.offset);
            (partition.clone(), known_start(committed, start.log))
        })
        .collect();
    StableOffsets { inputs, generation }
}

/// What the directory says; in-memory stores have nothing to say, they start over.
fn local_checkpoint(
    db: &TaskDb,
    stores: &[StoreDecl],
) -> Result<Option<LocalCheckpoint>, StateError> {
    let checkpoint = db.checkpoint();
    let mut with_data = BTreeSet::new();
    for store in stores {
        if db.has_data(&store.name)? {
            with_data.insert(store.name.clone());
        }
    }
    if checkpoint.is_empty() && with_data.is_empty() {
        return Ok(None);
    }
    let on_disk = |store: &str| {
        stores
            .iter()
            .any(|decl| decl.name == store && decl.persistence == Persistence::RocksDb)
    };
    Ok(Some(LocalCheckpoint {
        with_data,
        generation: checkpoint.generation.unwrap_or(0),
        inputs: checkpoint
            .inputs
            .iter()
            .map(|(partition, position)| (partition.clone(), position.next_offset))
            .collect(),
        changelogs: checkpoint
            .changelogs
            .iter()
            .filter(|(store, _)| on_disk(store))
            .map(|(store, position)| {
                let of_store = ChangelogCheckpoint {
                    topic_id: position.topic_id,
                    offset: position.next_offset,
                    at_end: position.fresh_at.unwrap_or(0),
                };
                (store.clone(), of_store)
            })
            .collect(),
    }))
}

pub(in crate::runtime) fn reason(distrust: &Distrust) -> SetAsideReason {
    match distrust {
        Distrust::OlderGeneration { .. } => SetAsideReason::Reset,
        Distrust::NoCheckpoint { .. } => SetAsideReason::NoCheckpoint,
        Distrust::OtherTopic { .. } => SetAsideReason::TopicId,
        Distrust::OutsideLog { .. } => SetAsideReason::OutOfRange,
        Distrust::TooOld { .. } => SetAsideReason::TooOld,
    }
}
