//! What the directory of global stores is worth: the facts for [`plan_restore`], with a topic in the
//! place of a changelog.

use std::collections::{BTreeMap, BTreeSet};

use super::part::partitions;
use crate::clock::Timestamp;
use crate::format::topic_config;
use crate::log::{LogRange, Offset, TopicPartition};
use crate::metrics::SetAsideReason;
use crate::runtime::error::Fault;
use crate::runtime::protocol::restore::{
    ChangelogCheckpoint, ChangelogFacts, Distrust, LocalCheckpoint, RestorePlan, RestoreRefusal,
    StableOffsets, plan_restore, surely_kept,
};
use crate::runtime::stream_thread::judge::{reason, table_config};
use crate::runtime::{PlantedBug, Probe, ResolvedTopology, SubTopologyRef};
use crate::state::{StateError, TaskDb};
use crate::topology::{Persistence, TaskId, Topology};

/// Where each partition goes on, and why local data is not used.
pub(super) struct Judged {
    pub(super) from: BTreeMap<TopicPartition, Offset>,
    pub(super) distrust: Option<GlobalDistrust>,
}

/// Why local data is not used.
#[derive(Debug)]
pub(super) struct GlobalDistrust(Distrust);

impl std::fmt::Display for GlobalDistrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl GlobalDistrust {
    pub(super) fn metric_reason(&self) -> SetAsideReason {
        reason(&self.0)
    }
}

/// Judging failed.
pub(super) enum JudgeError {
    State(StateError),
    Refused(RestoreRefusal),
}

impl JudgeError {
    pub(super) fn into_fault(self, task: TaskId) -> Fault {
        match self {
            Self::State(source) => Fault::State { task, source },
            Self::Refused(refusal) => Fault::Refused(refusal.to_string()),
        }
    }
}

/// Judges the directory of `db`. Every partition is a changelog of its own to the decision.
pub(super) fn judge(
    topology: &ResolvedTopology,
    db: &TaskDb,
    ranges: &BTreeMap<TopicPartition, LogRange>,
    now: Timestamp,
    probe: &dyn Probe,
) -> Result<Judged, JudgeError> {
    let mut local = LocalCheckpoint::default();
    let mut facts = BTreeMap::new();
    for part in topology.globals() {
        facts.extend(facts_of(&topology.topology, &part, ranges));
        add_checkpoint(&part, db, &mut local).map_err(JudgeError::State)?;
    }
    if probe.planted(PlantedBug::OldGlobalsTrusted) {
        let checkpoints = local.changelogs.values_mut();
        checkpoints.for_each(|checkpoint| checkpoint.at_end = now);
    }
    // There is no group: no offsets, and no reset that would rewind them.
    let stable = StableOffsets {
        inputs: BTreeMap::new(),
        generation: 0,
    };
    let plan = plan_restore(Some(&local), &stable, &facts, now).map_err(JudgeError::Refused)?;
    let (from, distrust) = match plan {
        RestorePlan::Replay(from) => (from, None),
        RestorePlan::SetAside(distrust, from) => (from, Some(GlobalDistrust(distrust))),
    };
    let from = ranges
        .iter()
        .map(|(partition, range)| {
            let from = from.get(&partition.to_string()).copied();
            (partition.clone(), from.unwrap_or(range.start))
        })
        .collect();
    Ok(Judged { from, distrust })
}

/// Returns how old what the directory holds is; `None` where it holds nothing.
pub(super) fn fresh_at(db: &TaskDb) -> Option<Timestamp> {
    let checkpoint = db.checkpoint();
    let positions = checkpoint.changelogs.values();
    positions
        .map(|position| position.fresh_at.unwrap_or(0))
        .min()
}

/// Returns how long the topic of a global part surely keeps tombstones. It is taken for compacted, as a
/// table's topic is; its configs are known where the author has declared them.
pub(super) fn tombstone_retention(topology: &Topology, part: &SubTopologyRef<'_>) -> i64 {
    let source = part.drawn.sources.first();
    let config = source.map(|source| table_config(topology.declared_topics(), &source.topic));
    config
        .and_then(|config| topic_config::delete_retention_ms(&config))
        .map_or(i64::MAX, surely_kept)
}

fn facts_of(
    topology: &Topology,
    part: &SubTopologyRef<'_>,
    ranges: &BTreeMap<TopicPartition, LogRange>,
) -> Vec<(String, ChangelogFacts)> {
    let topic_id = part.topics.changelogs.values().next().map(|it| it.id);
    let tombstone_retention = Some(tombstone_retention(topology, part));
    let of_partition = |partition: TopicPartition| {
        let facts = ChangelogFacts {
            topic_id: topic_id?,
            range: *ranges.get(&partition)?,
            tombstone_retention,
        };
        Some((partition.to_string(), facts))
    };
    partitions(part).filter_map(of_partition).collect()
}

fn add_checkpoint(
    part: &SubTopologyRef<'_>,
    db: &TaskDb,
    local: &mut LocalCheckpoint,
) -> Result<(), StateError> {
    let checkpoint = db.checkpoint();
    let mut has_data = false;
    let mut position = None;
    for store in &part.drawn.stores {
        if store.persistence == Persistence::InMemory {
            // Nothing of it is left: the topic is read from its start.
            return Ok(());
        }
        has_data |= db.has_data(&store.name)?;
        position = checkpoint.changelogs.get(&store.name);
    }
    let mut known = BTreeSet::new();
    for partition in partitions(part) {
        let (Some(input), Some(position)) = (checkpoint.inputs.get(&partition), position) else {
            continue;
        };
        let of_partition = ChangelogCheckpoint {
            topic_id: position.topic_id,
            offset: input.next_offset,
            at_end: position.fresh_at.unwrap_or(0),
        };
        known.insert(partition.to_string());
        local.changelogs.insert(partition.to_string(), of_partition);
    }
    // A partition that the topic has got since has no position, and nothing in the store.
    if has_data && known.is_empty() {
        let all = partitions(part).map(|partition| partition.to_string());
        local.with_data.extend(all);
    }
    Ok(())
}
