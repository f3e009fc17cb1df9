//! Compares two topologies: a pure function from their descriptions to a plan.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{TopologyChange, Verdict};
use crate::format::names;
use crate::topology::{
    Durability, NodeDescription, NodeRole, StoreDescription, SubTopologyDescription,
    TopologyDescription,
};

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
        stores((running, &old), (planned, &new), &mut changes);
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

/// Returns the topics whose records come to a store, also through repartition topics. It is kept by the first node
/// that has it; nodes behind that one look it up.
fn feeding<'a>(topology: &'a TopologyDescription, store: &str) -> BTreeSet<&'a str> {
    let nodes = || topology.sub_topologies.iter().flat_map(|sub| &sub.nodes);
    let internal: BTreeSet<String> = topology
        .repartition_topics
        .keys()
        .map(|name| names::repartition_suffix(name))
        .collect();
    let keeps = |node: &&NodeDescription| matches!(&node.role, NodeRole::Processor { stores } if stores.iter().any(|it| it == store));
    let mut topics = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut next: Vec<&NodeDescription> = nodes().find(keeps).into_iter().collect();
    while let Some(node) = next.pop() {
        if !seen.insert(&node.name) {
            continue;
        }
        match &node.role {
            NodeRole::Source { topic, .. } if internal.contains(topic) => {
                let writes = |it: &&NodeDescription| matches!(&it.role, NodeRole::Sink { topic: to } if to == topic);
                next.extend(nodes().filter(writes));
            }
            NodeRole::Source { topic, .. } => {
                topics.insert(topic.as_str());
            }
            NodeRole::Processor { .. } | NodeRole::Sink { .. } => {
                next.extend(nodes().filter(|it| node.predecessors.contains(&it.name)));
            }
        }
    }
    topics
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

fn stores(
    (running_topology, old): (&TopologyDescription, &Parts<'_>),
    (planned_topology, new): (&TopologyDescription, &Parts<'_>),
    changes: &mut Vec<TopologyChange>,
) {
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
        } else {
            let before = feeding(running_topology, name);
            let more = feeding(planned_topology, name).into_iter();
            let more = more.filter(|topic| !before.contains(topic));
            let missed = owned(more.filter(|topic| old.sources.contains_key(topic)));
            if !missed.is_empty() {
                let store = store();
                changes.push(TopologyChange::StoreFedMore { store, missed });
            }
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
