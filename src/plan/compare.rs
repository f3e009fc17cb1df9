//! Compares two topologies: a pure function from their descriptions to a plan.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::format::names;
use crate::serde::ValueVersions;
use crate::topology::{
    Durability, NodeDescription, NodeRole, Persistence, StoreDescription, SubTopologyDescription,
    TopologyDescription,
};

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

/// What a topology means for the application that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyPlan {
    /// The application.
    pub application_id: String,
    /// Whether a topology was recorded to compare with; without one there is nothing to change.
    pub is_recorded: bool,
    /// The strongest first.
    pub changes: Vec<TopologyChange>,
    /// Internal topics that nothing uses any more, by physical name.
    pub orphans: Vec<String>,
}

impl TopologyPlan {
    /// Returns the strongest verdict of all changes.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.changes.iter().map(TopologyChange::verdict);
        verdicts.max().unwrap_or(Verdict::Unchanged)
    }
}

/// Compares the topology that runs, if one was recorded, with the one that is planned.
#[must_use]
pub fn compare(
    application_id: &str,
    running: Option<&TopologyDescription>,
    planned: &TopologyDescription,
) -> TopologyPlan {
    let mut changes = Vec::new();
    let mut orphans = Vec::new();
    if let Some(running) = running {
        let (old, new) = (Parts::of(running), Parts::of(planned));
        sub_topologies(&old, &new, &mut changes);
        stores(&old, &new, &mut changes);
        topics(&old, &new, &mut changes);
        repartitions(running, planned, &mut changes);
        configs(running, planned, &mut changes);
        changes.sort_by_key(|change| std::cmp::Reverse(change.verdict()));
        orphans = orphaned(application_id, running, planned);
    }
    TopologyPlan {
        application_id: application_id.to_owned(),
        is_recorded: running.is_some(),
        changes,
        orphans,
    }
}

/// A topology by name.
struct Parts<'a> {
    stores: BTreeMap<&'a str, (&'a SubTopologyDescription, &'a StoreDescription)>,
    /// By topic, with whether it is rewindable.
    sources: BTreeMap<&'a str, (&'a SubTopologyDescription, bool)>,
    sinks: BTreeSet<&'a str>,
    processors: BTreeSet<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(topology: &'a TopologyDescription) -> Self {
        let mut parts = Self {
            stores: BTreeMap::new(),
            sources: BTreeMap::new(),
            sinks: BTreeSet::new(),
            processors: BTreeSet::new(),
        };
        for sub in &topology.sub_topologies {
            for store in &sub.stores {
                parts.stores.insert(&store.name, (sub, store));
            }
            for node in &sub.nodes {
                match &node.role {
                    NodeRole::Source {
                        topic, rewindable, ..
                    } => {
                        parts.sources.insert(topic, (sub, *rewindable));
                    }
                    NodeRole::Sink { topic } => {
                        parts.sinks.insert(topic);
                    }
                    NodeRole::Processor { .. } => {
                        parts.processors.insert(&node.name);
                    }
                }
            }
        }
        parts
    }
}

fn source_topics(sub: &SubTopologyDescription) -> BTreeSet<&str> {
    let topics = sub.nodes.iter().filter_map(|node| match &node.role {
        NodeRole::Source { topic, .. } => Some(topic.as_str()),
        NodeRole::Processor { .. } | NodeRole::Sink { .. } => None,
    });
    topics.collect()
}

fn owned<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// Sub-topologies are the same part when they read a topic in common.
fn sub_topologies(old: &Parts<'_>, new: &Parts<'_>, changes: &mut Vec<TopologyChange>) {
    let numbers: BTreeSet<(u32, u32)> = old
        .sources
        .iter()
        // The state of a global part is not kept under its number.
        .filter(|(_, (before, _))| !before.global)
        .filter_map(|(topic, (before, _))| Some((before.id, new.sources.get(topic)?.0.id)))
        .filter(|(from, to)| from != to)
        .collect();
    let renumbered = numbers.into_iter();
    changes.extend(renumbered.map(|(from, to)| TopologyChange::Renumbered { from, to }));
    let drivers: BTreeSet<(&str, &str)> = old
        .sources
        .iter()
        .filter_map(|(topic, (before, _))| {
            let (after, _) = new.sources.get(topic)?;
            Some((driver_of(before)?, driver_of(after)?))
        })
        .filter(|(from, to)| from != to)
        .collect();
    changes.extend(drivers.into_iter().map(|(from, to)| {
        let (from, to) = (from.to_owned(), to.to_owned());
        TopologyChange::DriverRenamed { from, to }
    }));
}

fn stores(old: &Parts<'_>, new: &Parts<'_>, changes: &mut Vec<TopologyChange>) {
    for name in old
        .stores
        .keys()
        .filter(|name| !new.stores.contains_key(*name))
    {
        let store = (*name).to_owned();
        changes.push(TopologyChange::StoreRemoved { store });
    }
    for (name, (sub, planned)) in &new.stores {
        let store = || (*name).to_owned();
        let feeds = source_topics(sub);
        let Some((old_sub, running)) = old.stores.get(name) else {
            let read = |topic: &&str| old.sources.contains_key(topic);
            // What is the truth itself is not rebuilt from topics: it begins when it begins.
            let missed = match planned.durability {
                Durability::Derived => owned(feeds.into_iter().filter(read)),
                Durability::Record => Vec::new(),
            };
            let store = store();
            changes.push(TopologyChange::StoreAdded { store, missed });
            continue;
        };
        let fed = source_topics(old_sub);
        if !feeds.is_superset(&fed) && !fed.is_superset(&feeds) {
            changes.push(TopologyChange::StoreFedOtherwise {
                store: store(),
                from: owned(fed),
                to: owned(feeds),
            });
        }
        match (running.windows, planned.windows) {
            (Some(from), Some(to)) if from.kind == to.kind => {
                if from.retention_ms != to.retention_ms {
                    let to = to.retention_ms;
                    changes.push(TopologyChange::RetentionChanged { store: store(), to });
                }
            }
            (None, None) => {}
            (None | Some(_), None | Some(_)) => {
                changes.push(TopologyChange::StoreKindChanged { store: store() });
            }
        }
        let versions = values(&store(), running, planned);
        let upgraded =
            |change: &TopologyChange| matches!(change, TopologyChange::ValuesUpgraded { .. });
        let subscribes =
            |node: &NodeDescription| node.name.starts_with(names::FOREIGN_KEY_SUBSCRIBE);
        if versions.iter().any(upgraded) && old_sub.nodes.iter().any(subscribes) {
            changes.push(TopologyChange::ForeignKeyValuesUpgraded { store: store() });
        }
        changes.extend(versions);
        if running.persistence != planned.persistence {
            let to = planned.persistence;
            changes.push(TopologyChange::PersistenceChanged { store: store(), to });
        }
        if running.durability != planned.durability {
            let to = planned.durability;
            changes.push(TopologyChange::DurabilityChanged { store: store(), to });
        }
        match (&running.changelog, &planned.changelog) {
            (_, None) if running.source_changelog != planned.source_changelog => {
                changes.push(match planned.source_changelog.clone() {
                    Some(topic) => TopologyChange::ChangelogIsSource {
                        store: store(),
                        topic,
                    },
                    None => TopologyChange::ChangelogRemoved { store: store() },
                });
            }
            (None, Some(_)) => changes.push(TopologyChange::ChangelogAdded { store: store() }),
            (Some(_), None) => changes.push(TopologyChange::ChangelogRemoved { store: store() }),
            (Some(from), Some(to)) if from != to => {
                let topic = format!("{name}-changelog");
                changes.push(TopologyChange::TopicConfigChanged { topic });
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

/// What changes for a store's values: their version, and how long they live.
fn values(
    store: &str,
    running: &StoreDescription,
    planned: &StoreDescription,
) -> Vec<TopologyChange> {
    let mut changes = Vec::new();
    let store = || store.to_owned();
    let from = running
        .value_versions
        .map_or(0, |versions| versions.current);
    let reads = planned.value_versions;
    let to = reads.map_or(0, |versions| versions.current);
    let oldest = reads.map_or(0, |versions| versions.oldest);
    if from > to || from < oldest {
        let store = store();
        changes.push(TopologyChange::ValuesUnreadable { store, from, reads });
    } else if from < to {
        let store = store();
        changes.push(TopologyChange::ValuesUpgraded { store, from, to });
    }
    if running.ttl_ms != planned.ttl_ms {
        let (store, to) = (store(), planned.ttl_ms);
        changes.push(TopologyChange::TimeToLiveChanged { store, to });
    }
    changes
}

fn topics(old: &Parts<'_>, new: &Parts<'_>, changes: &mut Vec<TopologyChange>) {
    for (name, (sub, rewindable)) in &new.sources {
        let topic = (*name).to_owned();
        match old.sources.get(name) {
            None => {
                let beside = sub.stores.iter().map(|store| store.name.as_str());
                let beside = beside.filter(|store| old.stores.contains_key(store));
                let beside = beside.map(str::to_owned).next();
                changes.push(TopologyChange::SourceAdded { topic, beside });
            }
            Some((_, was)) if was != rewindable => {
                let to = *rewindable;
                changes.push(TopologyChange::RewindableChanged { topic, to });
            }
            Some(_) => {}
        }
    }
    let removed = old
        .sources
        .keys()
        .filter(|name| !new.sources.contains_key(*name));
    changes.extend(
        owned(removed.copied())
            .into_iter()
            .map(|topic| TopologyChange::SourceRemoved { topic }),
    );
    let difference =
        |from: &BTreeSet<&str>, to: &BTreeSet<&str>| owned(to.difference(from).copied());
    let added = difference(&old.sinks, &new.sinks).into_iter();
    changes.extend(added.map(|topic| TopologyChange::SinkAdded { topic }));
    let removed = difference(&new.sinks, &old.sinks).into_iter();
    changes.extend(removed.map(|topic| TopologyChange::SinkRemoved { topic }));
    let added = difference(&old.processors, &new.processors).into_iter();
    changes.extend(added.map(|node| TopologyChange::ProcessorAdded { node }));
    let removed = difference(&new.processors, &old.processors).into_iter();
    changes.extend(removed.map(|node| TopologyChange::ProcessorRemoved { node }));
}

fn repartitions(
    old: &TopologyDescription,
    new: &TopologyDescription,
    changes: &mut Vec<TopologyChange>,
) {
    for (topic, from) in &old.repartition_topics {
        let topic = topic.clone();
        match new.repartition_topics.get(&topic) {
            None => changes.push(TopologyChange::RepartitionRemoved { topic }),
            Some(to) if to != from => {
                let (from, to) = (*from, *to);
                changes.push(TopologyChange::RepartitionPartitions { topic, from, to });
            }
            Some(_) => {}
        }
    }
}

fn configs(
    old: &TopologyDescription,
    new: &TopologyDescription,
    changes: &mut Vec<TopologyChange>,
) {
    for (topic, to) in &new.topics {
        if old.topics.get(topic).is_some_and(|from| from != to) {
            let topic = topic.clone();
            changes.push(TopologyChange::TopicConfigChanged { topic });
        }
    }
}

/// As [`SubTopology::pattern_driver`](crate::topology::SubTopology::pattern_driver).
fn driver_of(sub: &SubTopologyDescription) -> Option<&str> {
    let by_pattern =
        |node: &&NodeDescription| matches!(&node.role, NodeRole::Source { pattern: true, .. });
    let sources = sub.nodes.iter().filter(by_pattern);
    sources.map(|node| node.name.as_str()).min()
}

fn orphaned(
    application_id: &str,
    old: &TopologyDescription,
    new: &TopologyDescription,
) -> Vec<String> {
    let internal = |topology: &TopologyDescription| -> BTreeSet<String> {
        let stores = topology.sub_topologies.iter().flat_map(|sub| &sub.stores);
        let logged = stores.filter(|store| store.changelog.is_some());
        let changelogs = logged.map(|store| names::changelog_topic(application_id, &store.name));
        let repartitions = topology.repartition_topics.keys();
        let repartitions = repartitions.map(|name| names::repartition_topic(application_id, name));
        let nodes = topology.sub_topologies.iter().filter_map(driver_of);
        let drivers = nodes.map(|source| names::driver_topic(application_id, source));
        changelogs.chain(repartitions).chain(drivers).collect()
    };
    let (before, after) = (internal(old), internal(new));
    before.difference(&after).cloned().collect()
}
