//! What a topology looks like: as text (Kafka Streams' `describe()`), as a Mermaid flowchart, as JSON.
//!
//! # Invariants
//! - The same topology gives the same bytes: everything is ordered by creation or by name.
//! - The JSON carries a format version; a change of meaning raises it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::serde::ValueVersions;
use crate::state::Layout;

use super::{DeclaredTopic, Durability, Persistence, RepartitionTopic, TopicRef};

/// The version of the JSON form.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// A whole topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TopologyDescription {
    /// The version of the JSON form.
    pub format_version: u32,
    /// By id.
    pub sub_topologies: Vec<SubTopologyDescription>,
    /// Topics of the outside world with the configs they are created with, by name.
    pub topics: BTreeMap<String, BTreeMap<String, String>>,
    /// Repartition topics, without the application id, with the partitions their author fixed.
    pub repartition_topics: BTreeMap<String, Option<i32>>,
}

/// A connected part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SubTopologyDescription {
    /// The number in task ids.
    pub id: u32,
    /// Whether every process runs it, over all partitions: the part of a global table.
    #[serde(default, skip_serializing_if = "is_false")]
    pub global: bool,
    /// In topological order.
    pub nodes: Vec<NodeDescription>,
    /// In the order they were added.
    pub stores: Vec<StoreDescription>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeDescription {
    /// The node's name.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub role: NodeRole,
    /// Names of the nodes before it.
    pub predecessors: Vec<String>,
    /// Names of the nodes after it.
    pub successors: Vec<String>,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
#[non_exhaustive]
pub enum NodeRole {
    /// Reads a topic, or all topics that match a pattern.
    Source {
        /// The topic, without the application id; the text of a pattern.
        topic: String,
        /// Whether a reset may read it again.
        rewindable: bool,
        /// Whether `topic` is a pattern.
        #[serde(default, skip_serializing_if = "is_false")]
        pattern: bool,
    },
    /// Anything between.
    Processor {
        /// The names of its stores.
        stores: Vec<String>,
    },
    /// Writes a topic.
    Sink {
        /// The topic, without the application id; several are separated by `, `.
        topic: String,
    },
}

/// A store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StoreDescription {
    /// The name.
    pub name: String,
    /// Where committed data lives.
    pub persistence: Persistence,
    /// Whether a reset deletes it.
    pub durability: Durability,
    /// Configs of the changelog topic; `None`: no changelog.
    pub changelog: Option<BTreeMap<String, String>>,
    /// The source topic that is the changelog, where it has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_changelog: Option<String>,
    /// Whether its values keep headers; absent where they do not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_headers: bool,
    /// What its entries are; absent for keys and values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowsDescription>,
    /// The versions of its values; absent where they carry none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_versions: Option<ValueVersions>,
    /// How long its entries live, in milliseconds of stream time; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<i64>,
}

/// The windows that a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WindowsDescription {
    /// Whether they are windows by time or sessions.
    pub kind: WindowKind,
    /// How long they are kept, in milliseconds of stream time.
    pub retention_ms: i64,
}

/// How the windows of a store lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WindowKind {
    /// By key and start.
    Window,
    /// By key, end and start.
    Session,
    /// Versions of keys, by key and timestamp.
    Version,
}

impl WindowsDescription {
    pub(crate) const fn of(layout: &Layout) -> Option<Self> {
        let (kind, segments) = match layout {
            Layout::KeyValue | Layout::Expiring(_) => return None,
            Layout::Versioned(history) => {
                return Some(Self {
                    kind: WindowKind::Version,
                    retention_ms: *history,
                });
            }
            Layout::Window(segments) | Layout::Duplicates(segments) => {
                (WindowKind::Window, segments)
            }
            Layout::Session(segments) => (WindowKind::Session, segments),
        };
        let retention_ms = segments.retention_ms();
        Some(Self { kind, retention_ms })
    }
}

impl TopologyDescription {
    pub(crate) const fn new(sub_topologies: Vec<SubTopologyDescription>) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            sub_topologies,
            topics: BTreeMap::new(),
            repartition_topics: BTreeMap::new(),
        }
    }

    pub(crate) fn set_topics(&mut self, declared: &[DeclaredTopic], internal: &[RepartitionTopic]) {
        self.topics = declared
            .iter()
            .map(|topic| (topic.name.clone(), topic.config.clone()))
            .collect();
        self.repartition_topics = internal
            .iter()
            .map(|topic| {
                (
                    TopicRef::Repartition(topic.name.clone()).to_string(),
                    topic.partitions,
                )
            })
            .collect();
    }

    /// Returns the description as indented JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and maps with string keys: nothing in it can fail to serialise.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Returns the description as a Mermaid flowchart.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut chart = Mermaid::default();
        for sub_topology in &self.sub_topologies {
            chart.sub_topology(sub_topology);
        }
        chart.finish()
    }
}

impl fmt::Display for TopologyDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Topologies:")?;
        for sub_topology in &self.sub_topologies {
            let global = if sub_topology.global {
                " for global store (will not generate tasks)"
            } else {
                ""
            };
            writeln!(f, "   Sub-topology: {}{global}", sub_topology.id)?;
            for node in &sub_topology.nodes {
                writeln!(f, "    {}", node.headline())?;
                if !matches!(node.role, NodeRole::Sink { .. }) {
                    writeln!(f, "      --> {}", list(&node.successors))?;
                }
                if !matches!(node.role, NodeRole::Source { .. }) {
                    writeln!(f, "      <-- {}", list(&node.predecessors))?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

impl NodeDescription {
    fn headline(&self) -> String {
        let name = &self.name;
        match &self.role {
            // Kafka Streams' text: a list of topics in brackets, a pattern without.
            NodeRole::Source {
                topic,
                pattern: true,
                ..
            } => format!("Source: {name} (topics: {topic})"),
            NodeRole::Source { topic, .. } => format!("Source: {name} (topics: [{topic}])"),
            NodeRole::Processor { stores } => {
                format!("Processor: {name} (stores: [{}])", stores.join(", "))
            }
            NodeRole::Sink { topic } => format!("Sink: {name} (topic: {topic})"),
        }
    }
}

/// A flowchart in the making. Ids are numbered, since names may hold what Mermaid reads as syntax.
#[derive(Default)]
struct Mermaid {
    parts: String,
    edges: String,
    topics: BTreeMap<String, usize>,
    nodes: usize,
}

impl Mermaid {
    fn sub_topology(&mut self, sub_topology: &SubTopologyDescription) {
        let id = sub_topology.id;
        self.line(&format!("  subgraph s{id}[\"Sub-topology {id}\"]"));
        let mut ids = BTreeMap::new();
        for node in &sub_topology.nodes {
            let node_id = format!("n{}", self.nodes);
            self.nodes += 1;
            self.line(&format!("    {node_id}[\"{}\"]", node.name));
            ids.insert(node.name.clone(), node_id);
        }
        let mut stores = BTreeMap::new();
        for (index, store) in sub_topology.stores.iter().enumerate() {
            let store_id = format!("s{id}_{index}");
            self.line(&format!("    {store_id}[(\"{}\")]", store.name));
            stores.insert(store.name.clone(), store_id);
        }
        self.line("  end");
        for node in &sub_topology.nodes {
            self.edges_of(node, &ids, &stores);
        }
    }

    fn edges_of(
        &mut self,
        node: &NodeDescription,
        ids: &BTreeMap<String, String>,
        stores: &BTreeMap<String, String>,
    ) {
        let Some(id) = ids.get(&node.name) else {
            return;
        };
        match &node.role {
            NodeRole::Source { topic, .. } => {
                let topic = self.topic(topic);
                self.edge(&format!("  t{topic} --> {id}"));
            }
            NodeRole::Processor { stores: names } => {
                for store in names.iter().filter_map(|name| stores.get(name)) {
                    self.edge(&format!("  {id} <-.-> {store}"));
                }
            }
            NodeRole::Sink { topic } => {
                let topic = self.topic(topic);
                self.edge(&format!("  {id} --> t{topic}"));
            }
        }
        let successors: BTreeSet<_> = node
            .successors
            .iter()
            .filter_map(|name| ids.get(name))
            .collect();
        for successor in successors {
            self.edge(&format!("  {id} --> {successor}"));
        }
    }

    fn topic(&mut self, name: &str) -> usize {
        let next = self.topics.len();
        *self.topics.entry(name.to_owned()).or_insert(next)
    }

    fn line(&mut self, line: &str) {
        self.parts.push_str(line);
        self.parts.push('\n');
    }

    fn edge(&mut self, line: &str) {
        self.edges.push_str(line);
        self.edges.push('\n');
    }

    fn finish(self) -> String {
        let mut chart = String::from("flowchart TD\n");
        let mut topics: Vec<_> = self
            .topics
            .into_iter()
            .map(|(name, id)| (id, name))
            .collect();
        topics.sort_unstable();
        for (id, name) in topics {
            // Writing to a string cannot fail.
            // A pattern may hold what ends a label.
            let name = name.replace('"', "#quot;");
            let _infallible = writeln!(chart, "  t{id}([\"{name}\"])");
        }
        chart + &self.parts + &self.edges
    }
}
