//! From a topology to physical topics: names, partition counts, what is missing.
//!
//! Kafka Streams' rules (`kafka-streams.md` §5): a repartition topic has as many partitions as the
//! largest source upstream of it; a changelog has one partition per task of its sub-topology; an
//! existing internal topic with another count is fatal, never resized.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::RuntimeConfig;
use super::patterns;
use super::resolved::{Changelog, ResolvedSubTopology, ResolvedTopology};
use crate::format::{names, topic_config};
use crate::log::{Log, LogError, TopicDescription, TopicName, TopicSpec};
use crate::topology::{ResolvedTopic, SourceSpec, SubTopology, TopicRef, Topology};

/// The topology cannot run on the topics there are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopicsError {
    /// The log did not answer.
    #[error("cannot prepare topics")]
    Log(#[from] LogError),
    /// Sources of one stateful sub-topology differ in their partition counts.
    #[error(
        "sub-topology {sub_topology} needs co-partitioned sources, but {counts}; give them the same number of partitions"
    )]
    NotCoPartitioned {
        /// The sub-topology.
        sub_topology: u32,
        /// Each source with its count.
        counts: String,
    },
    /// An internal topic exists with another number of partitions.
    #[error(
        "internal topic `{topic}` has {found} partitions, but its tasks need {needed}; run `millstream reset` or restore the old partition counts"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// What exists.
        found: i32,
        /// What the topology needs.
        needed: i32,
    },
    /// A topic matches a pattern, and something else reads it as well. Kafka Streams'
    /// `TopologyException`.
    #[error(
        "topic `{topic}` matches pattern `{pattern}` and is read by {other} already; make the pattern narrower"
    )]
    MatchedTwice {
        /// The topic.
        topic: String,
        /// The pattern.
        pattern: String,
        /// The other reader.
        other: String,
    },
    /// A sub-topology reads nothing: `build()` lets none through.
    #[error("sub-topology {sub_topology} has no source, so nothing drives its tasks")]
    NoSource {
        /// The sub-topology.
        sub_topology: u32,
    },
    /// The partition counts of repartition topics depend on each other in a circle.
    #[error("cannot tell the number of partitions of {0:?}: nothing upstream of them is a source")]
    Unresolvable(Vec<String>),
}

/// What has to exist, decided from what does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicPlan {
    /// Topics to create, with their specs.
    pub create: Vec<TopicSpec>,
    /// Partition counts of all topics, existing and to be created.
    pub partitions: BTreeMap<TopicRef, i32>,
}

/// Returns the physical name of a topic. A pattern stands for many, and keeps its text.
#[must_use]
pub fn physical_name(config: &RuntimeConfig, topic: &TopicRef) -> String {
    match topic {
        TopicRef::Declared(name) => config
            .topics
            .get(name)
            .and_then(|entry| entry.name.clone())
            .unwrap_or_else(|| name.clone()),
        TopicRef::Repartition(name) => names::repartition_topic(&config.application_id, name),
        TopicRef::Pattern(pattern) => pattern.to_string(),
    }
}

/// Decides partition counts and what to create: pure. `existing` maps physical names to counts.
///
/// # Errors
/// [`TopicsError`] names what does not fit.
pub fn plan_topics(
    topology: &Topology,
    config: &RuntimeConfig,
    existing: &BTreeMap<String, i32>,
) -> Result<TopicPlan, TopicsError> {
    let mut plan = TopicPlan::default();
    patterns::check_matches(topology, config, existing)?;
    declared_counts(topology, config, existing, &mut plan);
    patterns::driver_counts(topology, config, existing, &mut plan);
    repartition_counts(topology, config, existing, &mut plan)?;
    for sub in topology.sub_topologies() {
        let counts = source_counts(sub, config, existing, &plan);
        let tasks = counts.iter().map(|(_, count)| *count);
        let tasks = match sub.pattern_driver() {
            Some(_) => pattern_tasks(sub, &plan),
            None => tasks.max().unwrap_or(0),
        };
        if !sub.stores.is_empty() && counts.iter().any(|(_, count)| *count != tasks) {
            let driver = sub.pattern_driver().map(|source| {
                let driver = names::driver_topic(&config.application_id, source);
                format!("`{driver}`, the number of tasks, has {tasks}")
            });
            let counts = counts
                .iter()
                .map(|(name, count)| format!("`{name}` has {count}"));
            let counts: Vec<String> = counts.chain(driver).collect();
            return Err(TopicsError::NotCoPartitioned {
                sub_topology: sub.id,
                counts: counts.join(" and "),
            });
        }
        for store in &sub.stores {
            let Some(topic_config) = store.changelog_config() else {
                continue;
            };
            let name = names::changelog_topic(&config.application_id, &store.name);
            internal_topic(config, existing, name, tasks, topic_config, &mut plan)?;
        }
    }
    Ok(plan)
}

/// What a part reads, with the number of partitions: each topic that matches a pattern for itself.
fn source_counts(
    sub: &SubTopology,
    config: &RuntimeConfig,
    existing: &BTreeMap<String, i32>,
    plan: &TopicPlan,
) -> Vec<(String, i32)> {
    let mut counts = Vec::new();
    for source in &sub.sources {
        if let TopicRef::Pattern(pattern) = &source.topic {
            let matched = patterns::matched_counts(pattern, config, existing);
            counts.extend(matched.map(|(topic, count)| (topic.to_owned(), count)));
        } else {
            let count = plan.partitions.get(&source.topic).copied().unwrap_or(0);
            counts.push((source.name.clone(), count));
        }
    }
    counts
}

/// The number of tasks of a part with a driver topic.
fn pattern_tasks(sub: &SubTopology, plan: &TopicPlan) -> i32 {
    let by_pattern = |topic: &&TopicRef| matches!(topic, TopicRef::Pattern(_));
    let mut topics = sub.sources.iter().map(|source| &source.topic);
    let driven = topics.find(by_pattern);
    driven
        .and_then(|topic| plan.partitions.get(topic).copied())
        .unwrap_or(0)
}

/// Declared topics: those that exist have their count; those to be created take the count of
/// existing co-partitioned ones, or the configured one.
fn declared_counts(
    topology: &Topology,
    config: &RuntimeConfig,
    existing: &BTreeMap<String, i32>,
    plan: &mut TopicPlan,
) {
    let mut declared: BTreeSet<&str> = BTreeSet::new();
    for topic in topology.declared_topics() {
        declared.insert(topic.name.as_str());
    }
    for name in &declared {
        let reference = TopicRef::Declared((*name).to_owned());
        if let Some(count) = existing.get(&physical_name(config, &reference)) {
            plan.partitions.insert(reference, *count);
        }
    }
    for topic in topology.declared_topics() {
        let reference = TopicRef::Declared(topic.name.clone());
        if plan.partitions.contains_key(&reference) {
            continue;
        }
        let overrides = config.topics.get(&topic.name).cloned().unwrap_or_default();
        let beside = co_partitioned_count(topology, &reference, &plan.partitions);
        let partitions = beside
            .or(overrides.partitions)
            .unwrap_or(config.default_partitions);
        let mut topic_config = topic.config.clone();
        topic_config.extend(overrides.config);
        plan.create.push(TopicSpec {
            name: physical_name(config, &reference).into(),
            partitions,
            replication_factor: Some(
                overrides
                    .replication_factor
                    .unwrap_or(config.default_replication_factor),
            ),
            config: topic_config,
        });
        plan.partitions.insert(reference, partitions);
    }
}

/// The count of a topic that `reference` is read together with, if one is known.
fn co_partitioned_count(
    topology: &Topology,
    reference: &TopicRef,
    known: &BTreeMap<TopicRef, i32>,
) -> Option<i32> {
    topology
        .sub_topologies()
        .iter()
        .filter(|sub| sub.sources.iter().any(|source| source.topic == *reference))
        .flat_map(|sub| sub.sources.iter())
        .filter_map(|source| known.get(&source.topic).copied())
        .max()
}

/// The repartition topics that are read together with one, itself included: where they meet at a store
/// they have one count.
fn meeting(topology: &Topology, reference: &TopicRef) -> BTreeSet<TopicRef> {
    topology
        .sub_topologies()
        .iter()
        .filter(|sub| !sub.stores.is_empty())
        .filter(|sub| sub.sources.iter().any(|source| source.topic == *reference))
        .flat_map(|sub| sub.sources.iter().map(|source| &source.topic))
        .filter(|topic| matches!(topic, TopicRef::Repartition(_)))
        .chain(std::iter::once(reference))
        .cloned()
        .collect()
}

/// The count of the topics of the outside world that a repartition topic is joined with: those cannot
/// change, so it follows them, whatever is upstream of it.
fn joined_with(
    topology: &Topology,
    reference: &TopicRef,
    known: &BTreeMap<TopicRef, i32>,
) -> Option<i32> {
    topology
        .sub_topologies()
        .iter()
        .filter(|sub| !sub.stores.is_empty())
        .filter(|sub| sub.sources.iter().any(|source| source.topic == *reference))
        .flat_map(|sub| &sub.sources)
        .filter(|source| !matches!(source.topic, TopicRef::Repartition(_)))
        .filter_map(|source| known.get(&source.topic).copied())
        .max()
}

/// The most partitions of any topic upstream of `group`, once all are known. What the group itself
/// feeds back has the group's count, and does not matter.
fn upstream_of(
    topology: &Topology,
    group: &BTreeSet<TopicRef>,
    known: &BTreeMap<TopicRef, i32>,
) -> Option<i32> {
    let upstream: BTreeSet<&TopicRef> = topology
        .sub_topologies()
        .iter()
        .filter(|sub| sub.sinks.iter().any(|sink| group.contains(sink)))
        .flat_map(|sub| sub.sources.iter().map(|source| &source.topic))
        .filter(|topic| !group.contains(topic))
        .collect();
    let counts: Option<Vec<i32>> = upstream
        .into_iter()
        .map(|topic| known.get(topic).copied())
        .collect();
    counts?.into_iter().max()
}

/// Repartition topics that meet have the count that the author fixed for one of them; else that of the
/// topics of the outside world they meet; else the most that any topic upstream of any of them has.
/// Kafka Streams' `CopartitionedTopicsEnforcer`.
fn repartition_counts(
    topology: &Topology,
    config: &RuntimeConfig,
    existing: &BTreeMap<String, i32>,
    plan: &mut TopicPlan,
) -> Result<(), TopicsError> {
    let mut open: BTreeSet<TopicRef> = topology
        .sub_topologies()
        .iter()
        .flat_map(|sub| sub.sources.iter())
        .filter(|source| matches!(source.topic, TopicRef::Repartition(_)))
        .map(|source| source.topic.clone())
        .collect();
    while !open.is_empty() {
        let settled = open.iter().find_map(|reference| {
            let group = meeting(topology, reference);
            let fixed = group
                .iter()
                .find_map(|topic| topology.repartition_partitions(topic));
            let count = fixed
                .or_else(|| joined_with(topology, reference, &plan.partitions))
                .or_else(|| upstream_of(topology, &group, &plan.partitions))?;
            Some((group, count))
        });
        let Some((group, count)) = settled else {
            let names = open.iter().map(|topic| format!("{topic:?}")).collect();
            return Err(TopicsError::Unresolvable(names));
        };
        for reference in group {
            open.remove(&reference);
            // What the author fixed differently is reported as not co-partitioned.
            let count = topology.repartition_partitions(&reference).unwrap_or(count);
            let name = physical_name(config, &reference);
            let topic_config = topic_config::repartition(&BTreeMap::new());
            internal_topic(config, existing, name, count, topic_config, plan)?;
            plan.partitions.insert(reference, count);
        }
    }
    Ok(())
}

fn internal_topic(
    config: &RuntimeConfig,
    existing: &BTreeMap<String, i32>,
    name: String,
    needed: i32,
    topic_config: BTreeMap<String, String>,
    plan: &mut TopicPlan,
) -> Result<(), TopicsError> {
    match existing.get(&name) {
        Some(found) if *found != needed => Err(TopicsError::PartitionCount {
            topic: name,
            found: *found,
            needed,
        }),
        Some(_) => Ok(()),
        None => {
            plan.create.push(TopicSpec {
                name: name.into(),
                partitions: needed,
                replication_factor: Some(config.default_replication_factor),
                config: topic_config,
            });
            Ok(())
        }
    }
}

/// Returns the physical names of all topics a topology touches, changelogs and driver topics included;
/// not those that match a pattern.
#[must_use]
pub fn all_topic_names(topology: &Topology, config: &RuntimeConfig) -> Vec<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for topic in topology.declared_topics() {
        names.insert(physical_name(
            config,
            &TopicRef::Declared(topic.name.clone()),
        ));
    }
    for sub in topology.sub_topologies() {
        for source in &sub.sources {
            if !matches!(source.topic, TopicRef::Pattern(_)) {
                names.insert(physical_name(config, &source.topic));
            }
        }
        if let Some(source) = sub.pattern_driver() {
            names.insert(names::driver_topic(&config.application_id, source));
        }
        for sink in &sub.sinks {
            names.insert(physical_name(config, sink));
        }
        for store in sub.stores.iter().filter(|store| store.changelog.is_some()) {
            names.insert(names::changelog_topic(&config.application_id, &store.name));
        }
    }
    names.into_iter().collect()
}

/// Returns [`all_topic_names`] and the topics of the log that match a pattern.
///
/// # Errors
/// [`LogError::Retriable`] while the broker is away.
pub fn existing_topic_names<L: Log>(
    log: &L,
    topology: &Topology,
    config: &RuntimeConfig,
) -> Result<Vec<String>, LogError> {
    let mut names = patterns::matched_names(log, topology, config)?;
    names.extend(all_topic_names(topology, config));
    Ok(names.into_iter().collect())
}

/// Creates what is missing, then resolves. Safe to run in several processes at once.
///
/// # Errors
/// [`TopicsError`].
pub fn ensure_topics<L: Log>(
    log: &L,
    topology: &Arc<Topology>,
    config: &RuntimeConfig,
) -> Result<ResolvedTopology, TopicsError> {
    let (mut existing, mut plan) = look(log, topology, config)?;
    // ORDER: other topics have their partitions by the drivers'. Of two processes that saw different
    // topics one creates a driver, and both take its count.
    let drivers = patterns::drivers_to_create(topology, config, &plan);
    if !drivers.is_empty() {
        create(log, &drivers)?;
        (existing, plan) = look(log, topology, config)?;
    }
    if !plan.create.is_empty() {
        create(log, &plan.create)?;
        // Another process may have created them with other counts in the meantime: check again.
        (existing, _) = look(log, topology, config)?;
    }
    resolve_topics(topology, config, &existing)
}

fn create<L: Log>(log: &L, topics: &[TopicSpec]) -> Result<(), LogError> {
    for spec in topics {
        tracing::info!(topic = %spec.name, partitions = spec.partitions, "creating topic");
    }
    log.create_topics(topics)
}

/// Returns what exists, and what it takes.
pub(super) fn look<L: Log>(
    log: &L,
    topology: &Topology,
    config: &RuntimeConfig,
) -> Result<(BTreeMap<String, TopicDescription>, TopicPlan), TopicsError> {
    let existing = describe(log, topology, config)?;
    let counts = existing
        .iter()
        .map(|(name, topic)| (name.clone(), topic.partitions))
        .collect();
    let plan = plan_topics(topology, config, &counts)?;
    Ok((existing, plan))
}

/// Describes what a topology touches, and what matches its patterns.
fn describe<L: Log>(
    log: &L,
    topology: &Topology,
    config: &RuntimeConfig,
) -> Result<BTreeMap<String, TopicDescription>, LogError> {
    let names = existing_topic_names(log, topology, config)?;
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = log.describe_topics(&refs)?;
    Ok(names
        .iter()
        .zip(found)
        .filter_map(|(name, topic)| topic.map(|topic| (name.clone(), topic)))
        .collect())
}

/// Resolves a topology whose topics all exist: pure.
///
/// # Errors
/// [`LogError::UnknownTopic`] (retriable by asking again) names one that does not;
/// [`TopicsError::NoSource`].
pub fn resolve_topics(
    topology: &Arc<Topology>,
    config: &RuntimeConfig,
    existing: &BTreeMap<String, TopicDescription>,
) -> Result<ResolvedTopology, TopicsError> {
    let find = |name: String| {
        existing
            .get(&name)
            .cloned()
            .ok_or(TopicsError::Log(LogError::UnknownTopic { topic: name }))
    };
    let mut topics = BTreeMap::new();
    let mut sub_topologies = Vec::new();
    for sub in topology.sub_topologies() {
        let references = sub
            .sources
            .iter()
            .map(|source| &source.topic)
            .chain(&sub.sinks)
            .filter(|topic| !matches!(topic, TopicRef::Pattern(_)));
        for reference in references {
            let found = find(physical_name(config, reference))?;
            topics.insert(reference.clone(), resolved(&found));
        }
        let of_source = |source: &SourceSpec| match &source.topic {
            TopicRef::Pattern(pattern) => {
                let names = existing.keys().map(String::as_str);
                let names = patterns::matching(pattern, config, names).into_iter();
                names
                    .filter_map(|name| existing.get(name).map(resolved))
                    .collect()
            }
            topic @ (TopicRef::Declared(_) | TopicRef::Repartition(_)) => {
                topics.get(topic).cloned().into_iter().collect()
            }
        };
        let sources: Vec<Vec<ResolvedTopic>> = sub.sources.iter().map(of_source).collect();
        // Left out, it would shift every sub-topology behind it.
        let driver = match sub.pattern_driver() {
            Some(source) => Some(find(names::driver_topic(&config.application_id, source))?)
                .as_ref()
                .map(resolved),
            None => largest(sources.iter().flatten()).cloned(),
        };
        let Some(driver) = driver else {
            return Err(TopicsError::NoSource {
                sub_topology: sub.id,
            });
        };
        let mut changelogs = BTreeMap::new();
        for store in sub.stores.iter().filter(|store| store.changelog.is_some()) {
            let found = find(names::changelog_topic(&config.application_id, &store.name))?;
            changelogs.insert(store.name.clone(), changelog(&found, false));
        }
        for store in &sub.stores {
            if let Some(source) = &store.source_changelog {
                let found = find(physical_name(config, &source.topic))?;
                changelogs.insert(store.name.clone(), changelog(&found, true));
            }
        }
        sub_topologies.push(ResolvedSubTopology {
            id: sub.id,
            tasks: driver.partitions,
            driver: driver.name,
            sources,
            changelogs,
        });
    }
    for topic in topology.declared_topics() {
        let reference = TopicRef::Declared(topic.name.clone());
        let found = find(physical_name(config, &reference))?;
        topics.insert(reference, resolved(&found));
    }
    let mut globals = Vec::new();
    for part in topology.globals() {
        globals.push(resolve_global(part, config, &find)?);
    }
    Ok(ResolvedTopology {
        topology: Arc::clone(topology),
        sub_topologies,
        globals,
        topics,
    })
}

fn changelog(found: &TopicDescription, is_source: bool) -> Changelog {
    Changelog {
        topic: TopicName::clone(&found.name),
        id: found.id,
        is_source,
    }
}

fn resolved(found: &TopicDescription) -> ResolvedTopic {
    ResolvedTopic {
        name: TopicName::clone(&found.name),
        partitions: found.partitions,
    }
}

/// The first of the topics with the most partitions.
fn largest<'a>(topics: impl Iterator<Item = &'a ResolvedTopic>) -> Option<&'a ResolvedTopic> {
    topics.reduce(|best, topic| {
        if topic.partitions > best.partitions {
            topic
        } else {
            best
        }
    })
}

/// A global part has one source, whose topic is the changelog of its stores.
fn resolve_global(
    part: &SubTopology,
    config: &RuntimeConfig,
    find: &impl Fn(String) -> Result<TopicDescription, TopicsError>,
) -> Result<ResolvedSubTopology, TopicsError> {
    let Some(source) = part.sources.first() else {
        return Err(TopicsError::NoSource {
            sub_topology: part.id,
        });
    };
    let found = find(physical_name(config, &source.topic))?;
    let changelog = changelog(&found, true);
    let stores = part.stores.iter().map(|store| store.name.clone());
    Ok(ResolvedSubTopology {
        id: part.id,
        tasks: 1,
        driver: TopicName::clone(&found.name),
        sources: vec![vec![resolved(&found)]],
        changelogs: stores.map(|store| (store, changelog.clone())).collect(),
    })
}

#[cfg(test)]
mod tests;
