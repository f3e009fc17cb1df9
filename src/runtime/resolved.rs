//! A topology with the topics that it runs on.
//!
//! # Invariants
//! - There is one [`ResolvedSubTopology`] for each drawn sub-topology, in the same order; a task finds
//!   both by its id, through [`ResolvedTopology::sub_topology`] and in no other way.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::RuntimeConfig;
use crate::log::{ClientMemory, TopicName, TopicPartition};
use crate::state::{GlobalStores, MemoryShares};
use crate::topology::{ResolvedTopic, SubTopology, TaskId, TopicRef, Topology};

/// A changelog as it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changelog {
    /// The physical name.
    pub topic: TopicName,
    /// Unique per creation.
    pub id: [u8; 16],
    /// Whether it is one of the task's inputs: read by the task, and never written to.
    pub is_source: bool,
}

/// A sub-topology with its physical topics.
#[derive(Debug, Clone)]
pub struct ResolvedSubTopology {
    /// The sub-topology.
    pub id: u32,
    /// The number of tasks: the driver's partition count.
    pub tasks: i32,
    /// What a thread subscribes to: the source with the most partitions. Where a source is a pattern,
    /// an internal topic without records, so that what owns a task does not depend on what a process
    /// knows of matching topics (`docs/decisions/0006-driver-of-a-pattern.md`).
    pub driver: TopicName,
    /// The topics of each source, by its index: one, or those that match a pattern, in their order.
    pub sources: Vec<Vec<ResolvedTopic>>,
    /// By store name; stores without a changelog are absent.
    pub changelogs: BTreeMap<String, Changelog>,
}

/// A sub-topology as it was drawn, and the topics it runs on.
#[derive(Debug, Clone, Copy)]
pub struct SubTopologyRef<'a> {
    /// As drawn: sources with their policies, stores, the way to make a chain.
    pub drawn: &'a SubTopology,
    /// Its physical topics.
    pub topics: &'a ResolvedSubTopology,
}

/// A topology with its physical topics.
#[derive(Debug, Clone)]
pub struct ResolvedTopology {
    /// The topology.
    pub topology: Arc<Topology>,
    /// One for each of [`Topology::sub_topologies`], in their order.
    pub(super) sub_topologies: Vec<ResolvedSubTopology>,
    /// One for each of [`Topology::globals`], in their order. The changelog of a global store is the
    /// topic that it is read from.
    pub(super) globals: Vec<ResolvedSubTopology>,
    /// Every topic that sources and sinks name.
    pub topics: BTreeMap<TopicRef, ResolvedTopic>,
}

impl ResolvedTopology {
    /// Returns the sub-topology with this id (the first number of its task ids): the one way from a
    /// task to what it runs.
    #[must_use]
    pub fn sub_topology(&self, id: u32) -> Option<SubTopologyRef<'_>> {
        self.all().find(|sub| sub.topics.id == id)
    }

    /// Returns the parts that every process runs once, over all partitions.
    pub fn globals(&self) -> impl Iterator<Item = SubTopologyRef<'_>> {
        let drawn = self.topology.globals().iter();
        drawn
            .zip(&self.globals)
            .map(|(drawn, topics)| SubTopologyRef { drawn, topics })
    }

    /// Returns the handle of the global stores, closed where there are any.
    #[must_use]
    pub fn global_stores(&self) -> GlobalStores {
        if self.globals.is_empty() {
            GlobalStores::default()
        } else {
            GlobalStores::closed()
        }
    }

    /// Returns all sub-topologies.
    ///
    /// # Panics
    /// When one is missing or out of place: `resolve_topics` makes none such.
    pub fn all(&self) -> impl Iterator<Item = SubTopologyRef<'_>> {
        let drawn = self.topology.sub_topologies();
        drawn
            .iter()
            .zip(&self.sub_topologies)
            .map(|(drawn, topics)| {
                assert!(
                    drawn.id == topics.id,
                    "a resolved topology has every sub-topology in its place"
                );
                SubTopologyRef { drawn, topics }
            })
    }

    /// Returns what the queues of each client may hold, should this process own every partition.
    #[must_use]
    pub fn client_memory(&self, config: &RuntimeConfig) -> ClientMemory {
        let max = usize::try_from(config.memory_max).unwrap_or(usize::MAX);
        let threads = config.threads.max(1);
        let shares = MemoryShares::of(max).of_thread(threads);
        let sources = self.sub_topologies.iter().flat_map(|sub| &sub.sources);
        let partitions: usize = sources
            .flatten()
            .map(|topic| usize::try_from(topic.partitions).unwrap_or(0))
            .sum();
        ClientMemory {
            fetched_per_partition: shares.fetched_per_partition(partitions.div_ceil(threads)),
            sending: shares.sending,
        }
    }

    /// Returns the input partitions of a task with the index of their source.
    ///
    /// A task has the partition of its number of every topic. Only a topic that was found by a pattern
    /// can have more partitions than there are tasks: those beyond go round, so that none is lost.
    #[must_use]
    pub fn inputs(&self, task: TaskId) -> Vec<(TopicPartition, usize)> {
        let Some(sub) = self.sub_topology(task.sub_topology) else {
            return Vec::new();
        };
        let tasks = usize::try_from(sub.topics.tasks).unwrap_or(1).max(1);
        let sources = sub.topics.sources.iter().enumerate();
        sources
            .flat_map(|(source, topics)| topics.iter().map(move |topic| (source, topic)))
            .flat_map(|(source, topic)| {
                let partitions = (task.partition..topic.partitions).step_by(tasks);
                partitions.map(move |partition| {
                    let topic = TopicName::clone(&topic.name);
                    (TopicPartition::new(topic, partition), source)
                })
            })
            .collect()
    }
}
