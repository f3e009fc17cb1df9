//! What `build` reads off a finished graph: mistakes, connected parts, descriptions.

use std::collections::{BTreeMap, BTreeSet};

use crate::processor::ErrorPolicy;

use super::{
    Durability, Graph, GraphNode, NodeDescription, NodeId, NodeKind, NodeRole, SourceSpec,
    StoreDescription, StoreId, SubTopologyDescription, TopicRef, TopologyError, WindowsDescription,
};
use crate::state::TimeToLive;

impl Graph {
    /// Returns every mistake: those noted while drawing, then those of the whole.
    pub(crate) fn check(&self) -> Vec<TopologyError> {
        let mut mistakes = self.mistakes.clone();
        self.check_node_names(&mut mistakes);
        self.check_sources(&mut mistakes);
        self.check_patterns(&mut mistakes);
        self.check_stores(&mut mistakes);
        self.check_partitions(&mut mistakes);
        for topic in self
            .declared
            .keys()
            .filter(|topic| !self.mentioned.contains(*topic))
        {
            mistakes.push(TopologyError::TopicNotUsed {
                topic: topic.clone(),
            });
        }
        mistakes
    }

    fn check_node_names(&self, mistakes: &mut Vec<TopologyError>) {
        let mut seen = BTreeMap::<&str, usize>::new();
        for node in &self.nodes {
            *seen.entry(&node.name).or_default() += 1;
        }
        for (name, _) in seen.into_iter().filter(|(_, count)| *count > 1) {
            let name = name.to_owned();
            mistakes.push(TopologyError::DuplicateName { what: "node", name });
        }
    }

    fn check_sources(&self, mistakes: &mut Vec<TopologyError>) {
        let mut readers = BTreeMap::<&str, usize>::new();
        let parents: BTreeSet<_> = self.nodes.iter().flat_map(|node| &node.parents).collect();
        let mut empty = true;
        for (id, node) in self.nodes_with_ids() {
            let NodeKind::Source(spec) = &node.kind else {
                continue;
            };
            empty = false;
            if let TopicRef::Declared(topic) = &spec.topic {
                *readers.entry(topic).or_default() += 1;
            }
            if spec.global
                && [
                    &spec.on_deserialization_error,
                    &spec.on_processing_error,
                    &spec.on_production_error,
                ]
                .into_iter()
                .any(dead_letters)
            {
                let topic = spec.topic.to_string();
                mistakes.push(TopologyError::GlobalDeadLetter { topic });
            }
            if !parents.contains(&id) {
                mistakes.push(TopologyError::SourceNotRead {
                    topic: spec.topic.to_string(),
                    node: node.name.clone(),
                });
            }
        }
        if empty {
            mistakes.push(TopologyError::Empty);
        }
        for (topic, _) in readers.into_iter().filter(|(_, count)| *count > 1) {
            let reported = mistakes.iter().any(|mistake| {
                matches!(mistake, TopologyError::TopicReadTwice { topic: known, .. } if known == topic)
            });
            if !reported {
                let topic = topic.to_owned();
                mistakes.push(TopologyError::TopicReadTwice {
                    topic,
                    how: "once as a table",
                });
            }
        }
    }

    /// Kafka Streams refuses a pattern that matches a topic of another source. Two patterns are
    /// compared when it is known what they match.
    fn check_patterns(&self, mistakes: &mut Vec<TopologyError>) {
        let sources = || {
            self.nodes.iter().filter_map(|node| match &node.kind {
                NodeKind::Source(spec) => Some((node, &spec.topic)),
                NodeKind::Operator { .. } | NodeKind::Sink(_) => None,
            })
        };
        for (node, topic) in sources() {
            let TopicRef::Pattern(pattern) = topic else {
                continue;
            };
            if !node.named {
                let pattern = pattern.to_string();
                mistakes.push(TopologyError::UnnamedPattern { pattern });
            }
            let named: BTreeSet<&str> = sources()
                .filter_map(|(_, topic)| match topic {
                    TopicRef::Declared(name) => Some(name.as_str()),
                    TopicRef::Repartition(_) | TopicRef::Pattern(_) => None,
                })
                .filter(|name| pattern.matches(name))
                .collect();
            mistakes.extend(
                named
                    .into_iter()
                    .map(|topic| TopologyError::PatternOverlaps {
                        pattern: pattern.to_string(),
                        topic: topic.to_owned(),
                    }),
            );
        }
    }

    fn check_stores(&self, mistakes: &mut Vec<TopologyError>) {
        let used: BTreeSet<_> = self.nodes.iter().flat_map(|node| &node.stores).collect();
        for (index, store) in self.stores.iter().enumerate() {
            if !used.contains(&StoreId(index)) {
                mistakes.push(TopologyError::StoreNotConnected {
                    store: store.name.clone(),
                });
            }
            if store.durability == Durability::Record && store.changelog.is_none() {
                mistakes.push(TopologyError::RecordStoreWithoutChangelog {
                    store: store.name.clone(),
                });
            }
        }
    }

    /// Repartition topics that meet at a store must not ask for different partition counts. Topics
    /// of the outside world are checked when they are known.
    fn check_partitions(&self, mistakes: &mut Vec<TopologyError>) {
        for nodes in self.components() {
            if self.stores_of(&nodes).is_empty() {
                continue;
            }
            let asked: BTreeMap<&str, i32> = self
                .source_nodes(&nodes)
                .filter_map(|(_, spec)| match &spec.topic {
                    TopicRef::Declared(_) | TopicRef::Pattern(_) => None,
                    TopicRef::Repartition(name) => {
                        let topic = self.repartitions.iter().find(|topic| topic.name == *name)?;
                        Some((topic.name.as_str(), topic.partitions?))
                    }
                })
                .collect();
            let counts: BTreeSet<i32> = asked.values().copied().collect();
            if counts.len() > 1 {
                mistakes.push(TopologyError::NotCoPartitioned {
                    topics: asked.keys().map(|&name| name.to_owned()).collect(),
                    partitions: counts.into_iter().collect(),
                });
            }
        }
    }

    /// Returns the connected parts: over edges and over shared stores, ordered by their first node;
    /// global ones last, so that adding one renames no task.
    pub(crate) fn components(&self) -> Vec<BTreeSet<NodeId>> {
        let mut leader: Vec<usize> = (0..self.nodes.len()).collect();
        let mut first_user = BTreeMap::<StoreId, usize>::new();
        for (id, node) in self.nodes_with_ids() {
            for parent in &node.parents {
                union(&mut leader, parent.0, id.0);
            }
            for store in &node.stores {
                let other = *first_user.entry(*store).or_insert(id.0);
                union(&mut leader, other, id.0);
            }
        }
        let mut components = BTreeMap::<(bool, usize), BTreeSet<NodeId>>::new();
        for index in 0..leader.len() {
            // The leader of a part is its lowest id. A global source is the first node of its part.
            let first = find(&leader, index);
            components
                .entry((self.is_global_source(NodeId(first)), first))
                .or_default()
                .insert(NodeId(index));
        }
        components.into_values().collect()
    }

    /// Returns whether a connected part is run once per process, over all partitions.
    pub(crate) fn is_global(&self, nodes: &BTreeSet<NodeId>) -> bool {
        nodes.iter().any(|node| self.is_global_source(*node))
    }

    fn is_global_source(&self, id: NodeId) -> bool {
        let node = self.nodes.get(id.0);
        node.is_some_and(|node| matches!(&node.kind, NodeKind::Source(spec) if spec.global))
    }

    pub(crate) fn stores_of(&self, nodes: &BTreeSet<NodeId>) -> BTreeSet<StoreId> {
        self.select(nodes)
            .flat_map(|(_, node)| node.stores.iter().copied())
            .collect()
    }

    pub(crate) fn source_specs(&self, nodes: &BTreeSet<NodeId>) -> Vec<SourceSpec> {
        self.source_nodes(nodes)
            .map(|(node, spec)| SourceSpec {
                name: node.name.clone(),
                ..spec.clone()
            })
            .collect()
    }

    /// Returns what the sinks write to, each topic once, in the order of the sinks.
    pub(crate) fn sink_topics(&self, nodes: &BTreeSet<NodeId>) -> Vec<TopicRef> {
        let mut topics = Vec::new();
        for (_, node) in self.select(nodes) {
            if let NodeKind::Sink(written) = &node.kind {
                for topic in written {
                    if !topics.contains(topic) {
                        topics.push(topic.clone());
                    }
                }
            }
        }
        topics
    }

    pub(crate) fn describe(
        &self,
        id: u32,
        nodes: &BTreeSet<NodeId>,
        stores: &BTreeSet<StoreId>,
    ) -> SubTopologyDescription {
        let nodes_of_part = nodes.clone();
        let name_of = |id: &NodeId| self.nodes.get(id.0).map(|node| node.name.clone());
        let nodes = self.select(nodes).map(|(id, node)| NodeDescription {
            name: node.name.clone(),
            role: self.role(node),
            predecessors: node.parents.iter().filter_map(name_of).collect(),
            successors: self
                .nodes
                .iter()
                .filter(|child| child.parents.contains(&id))
                .map(|child| child.name.clone())
                .collect(),
        });
        let stores = stores.iter().filter_map(|id| self.stores.get(id.0));
        SubTopologyDescription {
            id,
            global: self.is_global(&nodes_of_part),
            nodes: nodes.collect(),
            stores: stores
                .map(|store| StoreDescription {
                    name: store.name.clone(),
                    persistence: store.persistence,
                    durability: store.durability,
                    changelog: store.changelog.clone(),
                    source_changelog: store
                        .source_changelog
                        .as_ref()
                        .map(|source| source.topic.to_string()),
                    keeps_headers: store.keeps_headers,
                    windows: WindowsDescription::of(&store.layout),
                    value_versions: store.value_codec.versions(),
                    ttl_ms: store.layout.time_to_live().map(TimeToLive::millis),
                })
                .collect(),
        }
    }

    fn role(&self, node: &GraphNode) -> NodeRole {
        match &node.kind {
            NodeKind::Source(spec) => NodeRole::Source {
                topic: spec.topic.to_string(),
                rewindable: spec.rewindable,
                pattern: matches!(spec.topic, TopicRef::Pattern(_)),
            },
            NodeKind::Operator { .. } => {
                let stores = node.stores.iter().filter_map(|id| self.stores.get(id.0));
                NodeRole::Processor {
                    stores: stores.map(|store| store.name.clone()).collect(),
                }
            }
            NodeKind::Sink(topics) => NodeRole::Sink {
                topic: topics
                    .iter()
                    .map(TopicRef::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            },
        }
    }

    fn nodes_with_ids(&self) -> impl Iterator<Item = (NodeId, &GraphNode)> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(index, node)| (NodeId(index), node))
    }

    fn select<'a>(
        &'a self,
        nodes: &'a BTreeSet<NodeId>,
    ) -> impl Iterator<Item = (NodeId, &'a GraphNode)> {
        nodes
            .iter()
            .filter_map(|id| self.nodes.get(id.0).map(|node| (*id, node)))
    }

    fn source_nodes<'a>(
        &'a self,
        nodes: &'a BTreeSet<NodeId>,
    ) -> impl Iterator<Item = (&'a GraphNode, &'a SourceSpec)> {
        self.select(nodes).filter_map(|(_, node)| match &node.kind {
            NodeKind::Source(spec) => Some((node, &**spec)),
            NodeKind::Operator { .. } | NodeKind::Sink(_) => None,
        })
    }
}

fn dead_letters(policy: &ErrorPolicy) -> bool {
    match policy {
        ErrorPolicy::Fail | ErrorPolicy::Skip => false,
        ErrorPolicy::DeadLetter { .. } => true,
        ErrorPolicy::Retry { then, .. } => dead_letters(then),
    }
}

/// Returns the leader of `index`. Every leader chain descends, so it ends.
fn find(leader: &[usize], mut index: usize) -> usize {
    while let Some(&next) = leader.get(index)
        && next != index
    {
        index = next;
    }
    index
}

fn union(leader: &mut [usize], a: usize, b: usize) {
    let (a, b) = (find(leader, a), find(leader, b));
    if let Some(slot) = leader.get_mut(a.max(b)) {
        *slot = a.min(b);
    }
}
