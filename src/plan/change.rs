//! What may change between two topologies, and what each change asks for.

use serde::Serialize;

use crate::serde::ValueVersions;
use crate::topology::{Durability, Persistence};

/// What a change asks of those who roll it out, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The topologies are the same.
    Unchanged,
    /// Old and new processes may run side by side: replace one after the other.
    Safe,
    /// Stop all processes, then start the new ones.
    NeedsRestart,
    /// Stop all processes, run `millstream reset`, then start the new ones.
    NeedsReset,
}

/// One difference between what runs and what is planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
#[non_exhaustive]
pub enum TopologyChange {
    /// A store that was not there.
    StoreAdded {
        /// The store.
        store: String,
        /// Topics that were read already and feed it from now on: their past is not in it.
        missed: Vec<String>,
    },
    /// A store that is no longer there.
    StoreRemoved {
        /// The store.
        store: String,
    },
    /// A store is fed by other topics: its keys may be in other partitions.
    StoreFedOtherwise {
        /// The store.
        store: String,
        /// The topics of its sub-topology so far.
        from: Vec<String>,
        /// And from now on.
        to: Vec<String>,
    },
    /// A store is fed by more topics, of which some were read already for something else: their past is
    /// not in it.
    StoreFedMore {
        /// The store.
        store: String,
        /// Those topics.
        missed: Vec<String>,
    },
    /// A store holds windows instead of keys and values, or windows of another kind: what its
    /// changelog has means something else.
    StoreKindChanged {
        /// The store.
        store: String,
    },
    /// A store keeps its windows for another time; its changelog topic keeps its own retention.
    RetentionChanged {
        /// The store.
        store: String,
        /// From now on, in milliseconds.
        to: i64,
    },
    /// Values of a store get a newer version, and older ones are upgraded as they are read.
    ValuesUpgraded {
        /// The store.
        store: String,
        /// The version so far; 0: without one.
        from: u32,
        /// And from now on.
        to: u32,
    },
    /// Values of a foreign-key join's left table get a newer version: the right side remembers the left
    /// values by a hash of their bytes, which are others when they are upgraded.
    ForeignKeyValuesUpgraded {
        /// The store of the left table, or one beside it.
        store: String,
    },
    /// Values of a store have a version that the planned topology does not read.
    ValuesUnreadable {
        /// The store.
        store: String,
        /// The version so far; 0: without one.
        from: u32,
        /// What is read from now on; `None`: values without a version.
        reads: Option<ValueVersions>,
    },
    /// Entries of a store live for another time.
    TimeToLiveChanged {
        /// The store.
        store: String,
        /// From now on, in milliseconds; `None`: for ever.
        to: Option<i64>,
    },
    /// A store's committed data lives elsewhere.
    PersistenceChanged {
        /// The store.
        store: String,
        /// Where it lives from now on.
        to: Persistence,
    },
    /// A reset deletes a store that it kept, or keeps one that it deleted.
    DurabilityChanged {
        /// The store.
        store: String,
        /// What it is from now on.
        to: Durability,
    },
    /// A store gets a changelog, in which what it holds is missing.
    ChangelogAdded {
        /// The store.
        store: String,
    },
    /// A store loses its changelog.
    ChangelogRemoved {
        /// The store.
        store: String,
    },
    /// A store is restored from its source topic from now on, and has no changelog of its own.
    ChangelogIsSource {
        /// The store.
        store: String,
        /// The topic.
        topic: String,
    },
    /// A topic that is read from now on.
    SourceAdded {
        /// The topic.
        topic: String,
        /// A store that is there already and whose task reads it: without a committed offset for
        /// the topic such a task refuses to start.
        beside: Option<String>,
    },
    /// A topic that is no longer read.
    SourceRemoved {
        /// The topic.
        topic: String,
    },
    /// Whether a reset may read a topic again.
    RewindableChanged {
        /// The topic.
        topic: String,
        /// Whether it may from now on.
        to: bool,
    },
    /// A topic that is written from now on.
    SinkAdded {
        /// The topic.
        topic: String,
    },
    /// A topic that is no longer written.
    SinkRemoved {
        /// The topic.
        topic: String,
    },
    /// A repartition topic whose unread records nobody will read.
    RepartitionRemoved {
        /// The topic, without the application id.
        topic: String,
    },
    /// The author fixed another number of partitions.
    RepartitionPartitions {
        /// The topic, without the application id.
        topic: String,
        /// So far; `None`: as its sources.
        from: Option<i32>,
        /// From now on.
        to: Option<i32>,
    },
    /// The same part of the graph under another number: its tasks have other ids.
    Renumbered {
        /// The sub-topology's id so far.
        from: u32,
        /// And from now on.
        to: u32,
    },
    /// The source that names the driver topic of a pattern is called otherwise: processes of old and new
    /// would both own every task.
    DriverRenamed {
        /// The source's name so far.
        from: String,
        /// And from now on.
        to: String,
    },
    /// A processor that was not there.
    ProcessorAdded {
        /// The node.
        node: String,
    },
    /// A processor that is no longer there.
    ProcessorRemoved {
        /// The node.
        node: String,
    },
    /// The configs that a topic is created with; one that exists keeps its own.
    TopicConfigChanged {
        /// The topic, without the application id.
        topic: String,
    },
}

impl TopologyChange {
    /// Returns what this change alone asks for.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::StoreAdded { missed, .. } if !missed.is_empty() => Verdict::NeedsReset,
            Self::SourceAdded {
                beside: Some(_), ..
            }
            | Self::StoreFedOtherwise { .. }
            | Self::StoreFedMore { .. }
            | Self::StoreKindChanged { .. }
            | Self::ValuesUnreadable { .. }
            | Self::ForeignKeyValuesUpgraded { .. }
            | Self::ChangelogAdded { .. }
            | Self::RepartitionRemoved { .. }
            | Self::RepartitionPartitions { .. } => Verdict::NeedsReset,
            Self::StoreAdded { .. }
            | Self::StoreRemoved { .. }
            | Self::RetentionChanged { .. }
            | Self::PersistenceChanged { .. }
            | Self::ChangelogRemoved { .. }
            | Self::ChangelogIsSource { .. }
            | Self::SourceAdded { .. }
            | Self::SourceRemoved { .. }
            | Self::DriverRenamed { .. }
            | Self::Renumbered { .. } => Verdict::NeedsRestart,
            Self::DurabilityChanged { .. }
            | Self::ValuesUpgraded { .. }
            | Self::TimeToLiveChanged { .. }
            | Self::RewindableChanged { .. }
            | Self::SinkAdded { .. }
            | Self::SinkRemoved { .. }
            | Self::ProcessorAdded { .. }
            | Self::ProcessorRemoved { .. }
            | Self::TopicConfigChanged { .. } => Verdict::Safe,
        }
    }
}
