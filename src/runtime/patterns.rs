//! Sources by pattern: which topics match, what stands for their tasks, and looking again.
//!
//! # Position
//! [`plan_topics`](super::plan_topics) and [`resolve_topics`](super::resolve_topics) ask what matches; a stream thread asks
//! from time to time whether that has changed ([`look_again`]) and opens the affected tasks anew.
//! # Invariants
//! - The driver topic, and with it the number of tasks and who owns them, does not depend on what
//!   matches: processes may know of different topics for a while, but never own one task both.
//! - A topic is read by one source only, as in Kafka Streams.
//! - The application's own topics match no pattern: it would read back its changelogs.

use std::collections::{BTreeMap, BTreeSet};

use super::RuntimeConfig;
use super::resolved::ResolvedTopology;
use super::topics::{TopicPlan, TopicsError, look, physical_name, resolve_topics};
use crate::format::names;
use crate::log::{Log, LogError, TopicSpec};
use crate::topology::{SubTopology, TopicPattern, TopicRef, Topology};

/// Returns the patterns of a topology.
fn patterns(topology: &Topology) -> impl Iterator<Item = &TopicPattern> {
    let sources = topology
        .sub_topologies()
        .iter()
        .flat_map(|sub| &sub.sources);
    sources.filter_map(|source| match &source.topic {
        TopicRef::Pattern(pattern) => Some(pattern),
        TopicRef::Declared(_) | TopicRef::Repartition(_) => None,
    })
}

/// Returns those of `existing` that match a pattern, in their order.
pub(super) fn matching<'a>(
    pattern: &TopicPattern,
    config: &RuntimeConfig,
    existing: impl IntoIterator<Item = &'a str>,
) -> Vec<&'a str> {
    let own = |topic: &str| names::is_internal_topic(&config.application_id, topic);
    let matches = |topic: &&str| pattern.matches(topic) && !own(topic);
    existing.into_iter().filter(matches).collect()
}

/// Returns the topics of the log that any pattern matches. Asks nothing where there is no pattern.
pub(super) fn matched_names<L: Log>(
    log: &L,
    topology: &Topology,
    config: &RuntimeConfig,
) -> Result<BTreeSet<String>, LogError> {
    if patterns(topology).next().is_none() {
        return Ok(BTreeSet::new());
    }
    let listed = log.topic_names()?;
    let found = patterns(topology)
        .flat_map(|pattern| matching(pattern, config, listed.iter().map(|name| &**name)));
    Ok(found.map(str::to_owned).collect())
}

/// Refuses a topic that two sources would read.
pub(super) fn check_matches(
    topology: &Topology,
    config: &RuntimeConfig,
    existing: &BTreeMap<String, i32>,
) -> Result<(), TopicsError> {
    let mut readers: BTreeMap<String, String> = BTreeMap::new();
    let parts = topology.sub_topologies().iter().chain(topology.globals());
    for source in parts.flat_map(|part| &part.sources) {
        if let TopicRef::Declared(name) = &source.topic {
            // The config may have given it a physical name that a pattern matches.
            readers.insert(
                physical_name(config, &source.topic),
                format!("source `{name}`"),
            );
        }
    }
    for pattern in patterns(topology) {
        for topic in matching(pattern, config, existing.keys().map(String::as_str)) {
            let reader = format!("pattern `{pattern}`");
            if let Some(other) = readers.insert(topic.to_owned(), reader) {
                return Err(TopicsError::MatchedTwice {
                    topic: topic.to_owned(),
                    pattern: pattern.to_string(),
                    other,
                });
            }
        }
    }
    Ok(())
}

/// The partitions of driver topics: those it has, for ever; for a new one as many as the largest topic
/// that is read has, or what the author or the config asks for where nothing matches yet.
pub(super) fn driver_counts(
    topology: &Topology,
    config: &RuntimeConfig,
    existing: &BTreeMap<String, i32>,
    plan: &mut TopicPlan,
) {
    for sub in topology.sub_topologies() {
        let Some(source) = sub.pattern_driver() else {
            continue;
        };
        let name = names::driver_topic(&config.application_id, source);
        let partitions = match existing.get(&name) {
            Some(partitions) => *partitions,
            None => {
                let partitions = largest(sub, config, existing, plan)
                    .or_else(|| fixed(topology, sub))
                    .unwrap_or(config.default_partitions);
                plan.create.push(TopicSpec {
                    name: name.into(),
                    partitions,
                    replication_factor: Some(config.default_replication_factor),
                    config: BTreeMap::new(),
                });
                partitions
            }
        };
        for source in &sub.sources {
            if let TopicRef::Pattern(_) = &source.topic {
                plan.partitions.insert(source.topic.clone(), partitions);
            }
        }
    }
}

/// Returns the driver topics that are to be created.
pub(super) fn drivers_to_create(
    topology: &Topology,
    config: &RuntimeConfig,
    plan: &TopicPlan,
) -> Vec<TopicSpec> {
    let sources = topology.sub_topologies().iter();
    let drivers: BTreeSet<String> = sources
        .filter_map(SubTopology::pattern_driver)
        .map(|source| names::driver_topic(&config.application_id, source))
        .collect();
    let is_driver = |spec: &&TopicSpec| drivers.contains(&*spec.name);
    plan.create.iter().filter(is_driver).cloned().collect()
}

/// The most partitions of any topic of the outside world that a part reads.
fn largest(
    sub: &SubTopology,
    config: &RuntimeConfig,
    existing: &BTreeMap<String, i32>,
    plan: &TopicPlan,
) -> Option<i32> {
    let counts = sub.sources.iter().flat_map(|source| match &source.topic {
        TopicRef::Declared(_) => plan
            .partitions
            .get(&source.topic)
            .copied()
            .into_iter()
            .collect(),
        TopicRef::Pattern(pattern) => matched_counts(pattern, config, existing)
            .map(|(_, count)| count)
            .collect::<Vec<_>>(),
        TopicRef::Repartition(_) => Vec::new(),
    });
    counts.max()
}

/// What the author asks of a repartition topic that is read beside the pattern.
fn fixed(topology: &Topology, sub: &SubTopology) -> Option<i32> {
    let sources = sub.sources.iter();
    sources
        .filter_map(|source| topology.repartition_partitions(&source.topic))
        .max()
}

/// Returns what matches, with its partitions.
pub(super) fn matched_counts<'a>(
    pattern: &TopicPattern,
    config: &RuntimeConfig,
    existing: &'a BTreeMap<String, i32>,
) -> impl Iterator<Item = (&'a str, i32)> {
    let names = matching(pattern, config, existing.keys().map(String::as_str));
    names
        .into_iter()
        .filter_map(|name| Some((name, existing.get(name).copied()?)))
}

impl ResolvedTopology {
    /// Returns whether any source is a pattern.
    pub(super) fn has_patterns(&self) -> bool {
        patterns(&self.topology).next().is_some()
    }

    /// Returns the topics that patterns have matched.
    fn matched(&self) -> BTreeSet<&str> {
        let sources = self
            .all()
            .flat_map(|sub| sub.drawn.sources.iter().zip(&sub.topics.sources));
        sources
            .filter(|(source, _)| matches!(source.topic, TopicRef::Pattern(_)))
            .flat_map(|(_, topics)| topics.iter().map(|topic| &*topic.name))
            .collect()
    }

    /// Returns whether a pattern has matched this topic: it may come and go.
    pub(super) fn is_matched(&self, topic: &str) -> bool {
        self.matched().contains(topic)
    }
}

/// Returns the topology with the topics that match by now, when they are others than before. Creates
/// nothing.
///
/// # Errors
/// As [`ensure_topics`](super::ensure_topics): a topic that has appeared may not fit.
pub(super) fn look_again<L: Log>(
    log: &L,
    known: &ResolvedTopology,
    config: &RuntimeConfig,
) -> Result<Option<ResolvedTopology>, TopicsError> {
    let topology = &known.topology;
    let found = matched_names(log, topology, config)?;
    if known
        .matched()
        .into_iter()
        .eq(found.iter().map(String::as_str))
    {
        return Ok(None);
    }
    let (existing, _) = look(log, topology, config)?;
    let resolved = resolve_topics(topology, config, &existing)?;
    // What is listed may be gone, or not be there yet, when it is described.
    Ok((resolved.matched() != known.matched()).then_some(resolved))
}
