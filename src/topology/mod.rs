//! The built topology: what the runtime needs to know, as plain data, and how to make a task.
//!
//! # Position
//! `dsl` builds a [`Topology`]; `runtime`, `reset`, `cli` read it. Pure: no clock, client or store.
//! # Invariants
//! - Names of durable things come from the author; a counter never names a topic.
//! - A sub-topology is a connected part of the graph; its source topics are co-partitioned, and
//!   task `<sub-topology>_<partition>` owns that partition of each.

mod built;
mod check;
mod describe;
mod error;
mod graph;
mod names;
mod pattern;
mod task_id;

pub use built::Topology;
pub(crate) use describe::FORMAT_VERSION;
pub use describe::{
    NodeDescription, NodeRole, StoreDescription, SubTopologyDescription, TopologyDescription,
    WindowKind, WindowsDescription,
};
pub use error::{TopologyError, TopologyErrors};
pub use graph::RepartitionTopic;
pub(crate) use graph::{Graph, GraphNode, NodeId, NodeKind, StoreId};
pub use pattern::TopicPattern;
pub use task_id::{ParseTaskIdError, TaskId};

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::format::topic_config;
use crate::log::TopicName;
use crate::metrics::TaskMetrics;
use crate::processor::{ErrorPolicy, HoldsBack, ProcessorNode, SourceNode};
use crate::serde::TextCodec;
use crate::state::{BytesStore, GlobalStores, Layout, SharedStreamTime, StateError, StateStore};

/// How a topology names a topic; `runtime` resolves it to a physical name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicRef {
    /// A topic of the outside world, by its logical name: the config may rename it.
    Declared(String),
    /// `<application_id>-<name>-repartition`.
    Repartition(String),
    /// Every topic of the outside world whose physical name matches; only a source reads one.
    Pattern(TopicPattern),
}

/// The name without the application id; the text of a pattern.
impl fmt::Display for TopicRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Declared(name) => f.write_str(name),
            Self::Repartition(name) => f.write_str(&crate::format::names::repartition_suffix(name)),
            Self::Pattern(pattern) => pattern.fmt(f),
        }
    }
}

/// A source node.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// The node's name.
    pub name: String,
    /// What it reads.
    pub topic: TopicRef,
    /// Whether every process reads all partitions: the source of a global table.
    pub global: bool,
    /// Whether `reset --to-earliest` may read the topic again. Never for commands (invariant 7).
    pub rewindable: bool,
    /// What happens when a record of this source cannot be read, processed or written.
    pub on_deserialization_error: ErrorPolicy,
    /// See [`on_deserialization_error`](Self::on_deserialization_error).
    pub on_processing_error: ErrorPolicy,
    /// See [`on_deserialization_error`](Self::on_deserialization_error).
    pub on_production_error: ErrorPolicy,
}

/// Whether a store can be rebuilt (invariant 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Durability {
    /// A projection of something else: `reset` deletes it.
    Derived,
    /// The truth once topics have expired: `reset` keeps it.
    Record,
}

/// Where a store keeps its committed data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Persistence {
    /// A column family of the task's RocksDB.
    #[serde(rename = "rocksdb")]
    RocksDb,
    /// Memory; restored from the start of the changelog at each start.
    InMemory,
}

/// Turns key and value of a source's record into those of the store; `None` where the table does not take
/// the record.
pub type Takes = dyn Fn(&[u8], Option<&[u8]>) -> Option<StoredRecord> + Send + Sync;

/// Key and value as a store has them; no value deletes.
pub type StoredRecord = (Vec<u8>, Option<Vec<u8>>);

/// A source topic that is a store's changelog: it is replayed up to the committed input offset, and
/// nothing is written to it.
#[derive(Clone)]
pub struct SourceChangelog {
    /// The topic.
    pub topic: TopicRef,
    /// What the source cannot read never reached the store, and what did has the form of the store's
    /// serdes.
    pub takes: Arc<Takes>,
}

impl fmt::Debug for SourceChangelog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceChangelog")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// A store's description, and how to make its typed front for a task.
#[derive(Clone)]
pub struct StoreSpec {
    /// The store's name; its changelog is `<application_id>-<name>-changelog`.
    pub name: String,
    /// Where committed data lives.
    pub persistence: Persistence,
    /// Whether `reset` deletes it.
    pub durability: Durability,
    /// Whether there is a changelog, and topic configs beyond the defaults.
    pub changelog: Option<BTreeMap<String, String>>,
    /// The source topic that is the changelog, where there is no topic of the store's own.
    pub source_changelog: Option<SourceChangelog>,
    /// Whether values begin with headers, which are the record's in the changelog
    /// ([`format::with_headers`](crate::format::with_headers)).
    pub keeps_headers: bool,
    /// How entries lie on disk, and how long they live.
    pub layout: Layout,
    /// How queries turn text into key bytes, and key and value bytes into JSON.
    pub key_codec: Arc<dyn TextCodec>,
    /// See [`key_codec`](Self::key_codec).
    pub value_codec: Arc<dyn TextCodec>,
}

impl StoreSpec {
    /// Returns the configs that the changelog topic is created with; `None` without a changelog.
    #[must_use]
    pub fn changelog_config(&self) -> Option<BTreeMap<String, String>> {
        let overrides = self.changelog.as_ref()?;
        if let Layout::Versioned(history) = self.layout {
            return Some(topic_config::versioned_changelog(overrides, history));
        }
        Some(match self.layout.segments() {
            None => topic_config::key_value_changelog(overrides),
            Some(segments) => topic_config::windowed_changelog(overrides, segments.retention_ms()),
        })
    }
}

impl fmt::Debug for StoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSpec")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A topic the author declared: created when it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTopic {
    /// The logical name; the physical one unless the config says otherwise.
    pub name: String,
    /// Topic configs, such as `retention.ms`.
    pub config: BTreeMap<String, String>,
}

/// Makes the processor chain of one task.
pub(crate) type Instantiate =
    Box<dyn Fn(&mut TaskEnv) -> Result<TaskTopology, StateError> + Send + Sync>;

/// A connected part of the topology.
pub struct SubTopology {
    /// The number in task ids.
    pub id: u32,
    /// Its sources; the position is the index in [`TaskTopology::sources`].
    pub sources: Vec<SourceSpec>,
    /// Topics its sinks write to.
    pub sinks: Vec<TopicRef>,
    /// Its stores; the position is the index in [`TaskTopology::stores`].
    pub stores: Vec<StoreSpec>,
    /// Makes the processor chain of one task.
    pub(crate) instantiate: Instantiate,
}

impl SubTopology {
    /// Returns what names the driver topic of a part with sources by pattern; `None` for one without.
    /// It must not depend on the pattern nor on what it matches: processes that see different topics,
    /// or that run the next version of the pattern, have to agree on who owns a task.
    #[must_use]
    pub fn pattern_driver(&self) -> Option<&str> {
        let by_pattern = |source: &&SourceSpec| matches!(source.topic, TopicRef::Pattern(_));
        let names = self.sources.iter().filter(by_pattern);
        names.map(|source| source.name.as_str()).min()
    }
}

impl fmt::Debug for SubTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubTopology")
            .field("id", &self.id)
            .field("sources", &self.sources)
            .field("sinks", &self.sinks)
            .field("stores", &self.stores)
            .finish_non_exhaustive()
    }
}

/// Where physical topics are, for sinks of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedTopic {
    /// The physical name.
    pub name: TopicName,
    /// The number of partitions.
    pub partitions: i32,
}

/// What a sub-topology needs to make a task.
#[derive(Debug)]
pub struct TaskEnv {
    /// The task.
    pub task: TaskId,
    /// The number of tasks of the sub-topology, over all processes.
    pub partitions: i32,
    /// The timestamp of what is being processed, for the stores' writes.
    pub timestamp: Rc<Cell<Timestamp>>,
    /// The task's stream time, by which entries of stores expire.
    pub stream_time: SharedStreamTime,
    /// All topics that sinks name.
    pub topics: BTreeMap<TopicRef, ResolvedTopic>,
    /// The committed bytes of each store, by name.
    pub backends: BTreeMap<String, Box<dyn BytesStore>>,
    /// The indexes by time of stores whose entries expire, by name.
    pub indexes: BTreeMap<String, Box<dyn BytesStore>>,
    /// What the stores of the task may keep cached of clean entries, in bytes.
    pub cache_bytes: usize,
    /// Global stores, for joins with them.
    pub globals: GlobalStores,
    /// Where the task's operators count; `None` in a task whose metrics nobody reads.
    pub metrics: Option<TaskMetrics>,
}

/// A task's processor chain. Stays on one thread.
pub struct TaskTopology {
    /// By index of [`SubTopology::sources`].
    pub sources: Vec<Box<dyn SourceNode>>,
    /// By index of [`SubTopology::stores`].
    pub stores: Vec<Rc<RefCell<dyn StateStore>>>,
    /// Stateful processors in topological order; the position is the node index of schedules.
    pub processors: Vec<Rc<RefCell<dyn ProcessorNode>>>,
    /// Nodes that hold updates back until the commit, in topological order.
    pub holding: Vec<Rc<RefCell<dyn HoldsBack>>>,
}

impl fmt::Debug for TaskTopology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskTopology")
            .field("sources", &self.sources.len())
            .finish_non_exhaustive()
    }
}
