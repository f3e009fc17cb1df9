//! A topology that passed all checks.

use std::collections::BTreeMap;
use std::fmt;

use super::{DeclaredTopic, RepartitionTopic, SubTopology, TopicRef, TopologyDescription};

/// What [`StreamsBuilder::build`](crate::dsl::StreamsBuilder::build) returns: sub-topologies that the
/// runtime makes tasks of, and the topics they need.
pub struct Topology {
    sub_topologies: Vec<SubTopology>,
    globals: Vec<SubTopology>,
    declared_topics: Vec<DeclaredTopic>,
    repartition_topics: Vec<RepartitionTopic>,
    description: TopologyDescription,
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology")
            .field("sub_topologies", &self.sub_topologies)
            .field("declared_topics", &self.declared_topics)
            .finish_non_exhaustive()
    }
}

impl Topology {
    pub(crate) fn new(
        sub_topologies: Vec<SubTopology>,
        globals: Vec<SubTopology>,
        declared: BTreeMap<String, BTreeMap<String, String>>,
        repartition_topics: Vec<RepartitionTopic>,
        mut description: TopologyDescription,
    ) -> Self {
        let declared_topics: Vec<_> = declared
            .into_iter()
            .map(|(name, config)| DeclaredTopic { name, config })
            .collect();
        description.set_topics(&declared_topics, &repartition_topics);
        Self {
            sub_topologies,
            globals,
            declared_topics,
            repartition_topics,
            description,
        }
    }

    /// Returns the sub-topologies; the position is the number in task ids.
    #[must_use]
    pub fn sub_topologies(&self) -> &[SubTopology] {
        &self.sub_topologies
    }

    /// Returns the parts that every process runs once, over all partitions: one for each global table.
    /// Their ids follow those of the sub-topologies.
    #[must_use]
    pub fn globals(&self) -> &[SubTopology] {
        &self.globals
    }

    /// Returns every topic of the outside world that the topology reads, writes or sends dead
    /// letters to, by name, with the configs it was declared with.
    #[must_use]
    pub fn declared_topics(&self) -> &[DeclaredTopic] {
        &self.declared_topics
    }

    /// Returns the repartition topics, in the order they were drawn.
    #[must_use]
    pub fn repartition_topics(&self) -> &[RepartitionTopic] {
        &self.repartition_topics
    }

    /// Returns the number of partitions that the author fixed for a repartition topic.
    #[must_use]
    pub fn repartition_partitions(&self, topic: &TopicRef) -> Option<i32> {
        let TopicRef::Repartition(name) = topic else {
            return None;
        };
        self.repartition_topics
            .iter()
            .find(|other| other.name == *name)?
            .partitions
    }

    /// Describes the topology; `Display` has Kafka Streams' text.
    #[must_use]
    pub const fn describe(&self) -> &TopologyDescription {
        &self.description
    }
}
