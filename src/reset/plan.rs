//! What a reset does: a pure function from facts to a plan.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::log::{GroupMember, LogRange, Offset, TopicName, TopicPartition};
use crate::topology::Durability;

/// What is known of an application before its reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetFacts {
    /// The application, which is the group.
    pub application_id: String,
    /// Members of the group that the log takes for alive.
    pub members: Vec<GroupMember>,
    /// Source topics of the outside world, by physical name.
    pub sources: Vec<SourceFacts>,
    /// Repartition topics of the topology.
    pub repartitions: Vec<RepartitionFacts>,
    /// Stores of the topology.
    pub stores: Vec<StoreFacts>,
    /// Topics that sinks write to, by physical name.
    pub outputs: Vec<TopicName>,
    /// Topics that exist.
    pub existing: BTreeSet<TopicName>,
}

/// A source topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    /// The topic.
    pub topic: TopicName,
    /// Whether it may be read again. Never for commands, nor for events that were judged.
    pub rewindable: bool,
    /// Its partitions; none when it does not exist.
    pub partitions: Vec<PartitionFacts>,
}

/// A partition of a source topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionFacts {
    /// The partition.
    pub partition: i32,
    /// What the group has committed.
    pub committed: Option<Position>,
    /// What the log still has, to the high watermark.
    pub range: LogRange,
}

/// A committed offset with the reset generation from its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The next offset to read.
    pub offset: Offset,
    /// The generation; 0 before the first reset.
    pub generation: u64,
}

/// A repartition topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepartitionFacts {
    /// The topic.
    pub topic: TopicName,
    /// The partitions it has, or will have when it does not exist.
    pub partitions: i32,
    /// The highest reset generation among its committed offsets.
    pub generation: u64,
}

/// A store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFacts {
    /// The store's name.
    pub name: String,
    /// Whether it can be rebuilt.
    pub durability: Durability,
    /// Its changelog topic, if it has one.
    pub changelog: Option<TopicName>,
}

/// What a reset will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResetPlan {
    /// Nothing, because it would do harm.
    Refused(Vec<Refusal>),
    /// Nothing, because the application has left no trace in the log.
    Nothing,
    /// These steps.
    Reset(ResetSteps),
}

/// Why a reset is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The member would go on and commit over the reset.
    MemberAlive(GroupMember),
    /// It is not known which commands were carried out, or which events were judged: any position would
    /// repeat or lose some.
    PositionUnknown {
        /// The partition of a topic that is never read again.
        partition: TopicPartition,
        /// What the log still has.
        range: LogRange,
    },
    /// A record store has no changelog, so it would go with the local state.
    RecordStoreWithoutChangelog {
        /// The store.
        store: String,
    },
}

/// The steps of a reset. [`PENDING_KEY`](super::PENDING_KEY) says why there are three.
///
/// ORDER: commit [`offsets_before`](Self::offsets_before) with the pending mark, delete
/// [`deletions`](Self::deletions) and create those again that say so, commit
/// [`offsets_after`](Self::offsets_after) with the generation and without the mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetSteps {
    /// The generation that every committed offset gets.
    pub generation: u64,
    /// Positions of rewindable sources.
    pub rewinds: Vec<OffsetPlan>,
    /// Positions of topics that are never read again, of commands and of judged events: they stay.
    pub kept_positions: Vec<OffsetPlan>,
    /// Topics to delete, and repartition topics that are gone already and are to be there again.
    pub deletions: Vec<Deletion>,
    /// Stores that keep what they have.
    pub kept: Vec<KeptStore>,
    /// Output topics that keep old results, and get them again.
    pub outputs: Vec<TopicName>,
}

/// What happens to a partition's committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetPlan {
    /// The partition.
    pub partition: TopicPartition,
    /// What is committed now.
    pub from: Option<Offset>,
    /// What will be committed.
    pub to: Offset,
}

/// A topic to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// The topic.
    pub topic: TopicName,
    /// Whether it is there. A reset that was interrupted may have deleted a repartition topic and not
    /// created it again: the next one finishes that.
    pub exists: bool,
    /// Why it can go.
    pub reason: DeletionReason,
}

/// Why a topic can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeletionReason {
    /// The changelog of a derived store.
    DerivedStore(String),
    /// A repartition topic: to be created again with this many partitions, so that its offsets can
    /// carry the generation.
    Repartition(i32),
}

/// A record store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptStore {
    /// The store.
    pub store: String,
    /// Its changelog.
    pub changelog: TopicName,
}

/// Plans a reset to the earliest offsets.
#[must_use]
pub fn plan(facts: &ResetFacts) -> ResetPlan {
    let mut refusals: Vec<Refusal> = facts
        .members
        .iter()
        .cloned()
        .map(Refusal::MemberAlive)
        .collect();
    let deletions = deletions(facts);
    let has_topics = deletions.iter().any(|deletion| deletion.exists);
    if refusals.is_empty() && !has_topics && !has_positions(facts) && !has_records(facts) {
        return ResetPlan::Nothing;
    }
    let mut rewinds = Vec::new();
    let mut kept_positions = Vec::new();
    for source in &facts.sources {
        for facts_of_partition in &source.partitions {
            let PartitionFacts {
                partition,
                committed,
                range,
            } = *facts_of_partition;
            let partition = TopicPartition {
                topic: Arc::clone(&source.topic),
                partition,
            };
            let from = committed.map(|position| position.offset);
            if rewindable(facts, &source.topic) {
                rewinds.push(OffsetPlan {
                    partition,
                    from,
                    to: range.start,
                });
                continue;
            }
            match from {
                Some(to) => kept_positions.push(OffsetPlan {
                    partition,
                    from,
                    to,
                }),
                // Nothing to repeat and nothing to lose.
                None if range.start == range.end => {
                    kept_positions.push(OffsetPlan {
                        partition,
                        from,
                        to: range.end,
                    });
                }
                None => refusals.push(Refusal::PositionUnknown { partition, range }),
            }
        }
    }
    let mut kept = Vec::new();
    for store in facts
        .stores
        .iter()
        .filter(|store| store.durability == Durability::Record)
    {
        let store_name = store.name.clone();
        match store.changelog.clone() {
            Some(changelog) => kept.push(KeptStore {
                store: store_name,
                changelog,
            }),
            None => refusals.push(Refusal::RecordStoreWithoutChangelog { store: store_name }),
        }
    }
    if !refusals.is_empty() {
        return ResetPlan::Refused(refusals);
    }
    let outputs = outputs(facts);
    let generation = generation(facts) + 1;
    ResetPlan::Reset(ResetSteps {
        generation,
        rewinds,
        kept_positions,
        deletions,
        kept,
        outputs,
    })
}

impl ResetSteps {
    /// Returns the offsets of the first step, where they are now: they get the pending mark.
    pub fn offsets_before(&self) -> impl Iterator<Item = (&TopicPartition, Offset)> {
        let all = self.rewinds.iter().chain(&self.kept_positions);
        all.filter_map(|plan| plan.from.map(|offset| (&plan.partition, offset)))
    }

    /// Returns the offsets of the last step, with the generation: those of the outside world's
    /// topics, and the start of every repartition topic that was created again.
    pub fn offsets_after(&self) -> impl Iterator<Item = (TopicPartition, Offset)> {
        let sources = self.rewinds.iter().chain(&self.kept_positions);
        let sources = sources.map(|plan| (plan.partition.clone(), plan.to));
        let repartitions = self.deletions.iter().flat_map(|deletion| {
            let partitions = match deletion.reason {
                DeletionReason::Repartition(partitions) => partitions,
                DeletionReason::DerivedStore(_) => 0,
            };
            let topic = Arc::clone(&deletion.topic);
            (0..partitions)
                .map(move |partition| (TopicPartition::new(Arc::clone(&topic), partition), 0))
        });
        sources.chain(repartitions)
    }
}

/// A topic that two sources read is rewound only if both allow it: it has one committed offset.
fn rewindable(facts: &ResetFacts, topic: &TopicName) -> bool {
    facts
        .sources
        .iter()
        .filter(|source| source.topic == *topic)
        .all(|source| source.rewindable)
}

fn deletions(facts: &ResetFacts) -> Vec<Deletion> {
    let derived = facts
        .stores
        .iter()
        .filter(|store| store.durability == Durability::Derived);
    let exists = |topic: &TopicName| facts.existing.contains(topic);
    let changelogs = derived.filter_map(|store| {
        let topic = store.changelog.clone().filter(exists)?;
        Some(Deletion {
            topic,
            exists: true,
            reason: DeletionReason::DerivedStore(store.name.clone()),
        })
    });
    // Missing or not: it has to be there afterwards, with offsets that carry the generation.
    let repartitions = facts.repartitions.iter().map(|repartition| Deletion {
        topic: Arc::clone(&repartition.topic),
        exists: exists(&repartition.topic),
        reason: DeletionReason::Repartition(repartition.partitions),
    });
    changelogs.chain(repartitions).collect()
}

fn positions(facts: &ResetFacts) -> impl Iterator<Item = Position> {
    let partitions = facts.sources.iter().flat_map(|source| &source.partitions);
    partitions.filter_map(|partition| partition.committed)
}

fn has_positions(facts: &ResetFacts) -> bool {
    positions(facts).next().is_some()
}

/// Whether a record store has anything: then positions that are missing have expired.
fn has_records(facts: &ResetFacts) -> bool {
    let changelogs = facts
        .stores
        .iter()
        .filter_map(|store| store.changelog.as_ref());
    changelogs
        .into_iter()
        .any(|changelog| facts.existing.contains(changelog))
}

/// The highest generation that any offset carries.
fn generation(facts: &ResetFacts) -> u64 {
    let sources = positions(facts).map(|position| position.generation);
    let repartitions = facts
        .repartitions
        .iter()
        .map(|repartition| repartition.generation);
    sources.chain(repartitions).max().unwrap_or(0)
}

/// Output topics that hold results. One that is also read is input to the next run, not a result.
fn outputs(facts: &ResetFacts) -> Vec<TopicName> {
    let read = |topic: &TopicName| facts.sources.iter().any(|source| source.topic == *topic);
    let outputs: BTreeSet<TopicName> = facts.outputs.iter().cloned().collect();
    outputs
        .into_iter()
        .filter(|topic| facts.existing.contains(topic) && !read(topic))
        .collect()
}
