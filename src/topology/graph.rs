//! The untyped graph that the DSL draws while an author builds a topology.
//!
//! # Invariants
//! - A node is added after its parents, so ids are a topological order and cycles cannot be drawn.
//! - Mistakes are collected, never raised at once: `build` reports all of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::names::repartition_suffix;

use super::{SourceSpec, StoreSpec, TopicRef, TopologyError, names};

/// A node of the graph. Ids rise in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) usize);

/// A store of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(pub(crate) usize);

/// What a node does, as far as the graph cares.
#[derive(Debug, Clone)]
pub(crate) enum NodeKind {
    /// Reads a topic. The node's name is authoritative; the one in the spec is set by `build`.
    Source(Box<SourceSpec>),
    /// Anything between.
    Operator {
        /// Whether the author wrote it: it has `init`, punctuators, `close`.
        processor: bool,
    },
    /// Writes a topic, or the one of several that a record names.
    Sink(Vec<TopicRef>),
}

#[derive(Debug, Clone)]
pub(crate) struct GraphNode {
    pub(crate) name: String,
    /// Whether the author chose the name: generated ones give way.
    pub(crate) named: bool,
    pub(crate) kind: NodeKind,
    pub(crate) parents: Vec<NodeId>,
    pub(crate) stores: Vec<StoreId>,
}

/// A repartition topic as the author asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepartitionTopic {
    /// The name within `<application_id>-<name>-repartition`.
    pub name: String,
    /// The number of partitions, where the author fixed it; otherwise the most that any topic
    /// upstream has, or what co-partitioned topics have.
    pub partitions: Option<i32>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<GraphNode>,
    pub(crate) stores: Vec<StoreSpec>,
    pub(crate) repartitions: Vec<RepartitionTopic>,
    /// Declared by the author, with config.
    pub(crate) declared: BTreeMap<String, BTreeMap<String, String>>,
    /// Named by a source, sink or policy.
    pub(crate) mentioned: BTreeSet<String>,
    pub(crate) mistakes: Vec<TopologyError>,
    counter: u32,
    /// The topology is built: nothing can be added.
    closed: bool,
}

impl Graph {
    /// What is left to the handles of a topology that is built.
    pub(crate) fn closed() -> Self {
        Self {
            closed: true,
            ..Self::default()
        }
    }

    /// Makes up a node name from Kafka Streams' prefix and the one global counter. Never for
    /// anything durable.
    pub(crate) fn generate_name(&mut self, prefix: &str) -> String {
        let name = format!("{prefix}{:010}", self.counter);
        self.counter += 1;
        name
    }

    /// Adds an operator with a generated name.
    pub(crate) fn add_operator(&mut self, prefix: &str, parents: Vec<NodeId>) -> NodeId {
        let name = self.generate_name(prefix);
        self.add(GraphNode {
            name,
            named: false,
            kind: NodeKind::Operator { processor: false },
            parents,
            stores: Vec::new(),
        })
    }

    /// Lets a node read more stores.
    pub(crate) fn connect(&mut self, id: NodeId, stores: &[StoreId]) {
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.stores.extend(stores);
            node.stores.sort_unstable();
            node.stores.dedup();
        }
    }

    /// Adds a node.
    pub(crate) fn add(&mut self, node: GraphNode) -> NodeId {
        assert!(!self.closed, "the topology is built: draw before `build`");
        assert!(
            node.parents
                .iter()
                .all(|parent| parent.0 < self.nodes.len()),
            "parents are added before their children"
        );
        let id = NodeId(self.nodes.len());
        self.nodes.push(node);
        id
    }

    /// Gives a node the name its author wants.
    pub(crate) fn rename(&mut self, id: NodeId, name: &str) {
        if let Some(reason) = names::illegal_node_name(name) {
            self.mistakes.push(TopologyError::IllegalName {
                what: "node",
                name: name.to_owned(),
                reason,
            });
        }
        if let Some(node) = self.nodes.get_mut(id.0) {
            name.clone_into(&mut node.name);
            node.named = true;
        }
    }

    /// Makes the source that was drawn last for `topic` one that every process reads whole.
    pub(crate) fn make_global(&mut self, topic: &str) {
        for node in self.nodes.iter_mut().rev() {
            if let NodeKind::Source(spec) = &mut node.kind
                && matches!(&spec.topic, TopicRef::Declared(name) if name == topic)
            {
                spec.global = true;
                return;
            }
        }
    }

    /// Notes a topic of the outside world that the topology uses.
    pub(crate) fn mention(&mut self, topic: &str) {
        if self.mentioned.insert(topic.to_owned()) && !self.declared.contains_key(topic) {
            self.check_topic(topic);
        }
    }

    pub(crate) fn check_topic(&mut self, topic: &str) {
        if let Some(reason) = names::illegal_topic_name(topic) {
            self.mistakes.push(TopologyError::IllegalName {
                what: "topic",
                name: topic.to_owned(),
                reason,
            });
        }
    }

    /// Adds a store. A second one of the same name is a mistake.
    pub(crate) fn add_store(&mut self, spec: StoreSpec) -> StoreId {
        assert!(!self.closed, "the topology is built: draw before `build`");
        if let Some(reason) = names::illegal_store_name(&spec.name) {
            self.mistakes.push(TopologyError::IllegalName {
                what: "store",
                name: spec.name.clone(),
                reason,
            });
        }
        if self.stores.iter().any(|store| store.name == spec.name) {
            self.mistakes.push(TopologyError::DuplicateName {
                what: "store",
                name: spec.name.clone(),
            });
        }
        let id = StoreId(self.stores.len());
        self.stores.push(spec);
        id
    }

    /// Adds a repartition topic.
    pub(crate) fn add_repartition(&mut self, topic: RepartitionTopic) -> TopicRef {
        let name = topic.name.clone();
        if let Some(reason) = names::illegal_internal_name(&name) {
            self.mistakes.push(TopologyError::IllegalName {
                what: "repartition",
                name: name.clone(),
                reason,
            });
        }
        if topic.partitions.is_some_and(|partitions| partitions < 1) {
            self.mistakes
                .push(TopologyError::IllegalPartitions { name: name.clone() });
        }
        let suffix = repartition_suffix(&name);
        if self
            .repartitions
            .iter()
            .any(|other| repartition_suffix(&other.name) == suffix)
        {
            self.mistakes.push(TopologyError::DuplicateName {
                what: "repartition",
                name: name.clone(),
            });
        }
        self.repartitions.push(topic);
        TopicRef::Repartition(name)
    }
}
