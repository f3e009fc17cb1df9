//! From a topology to physical topics: names, partition counts, what is missing.
//!
//! Kafka Streams' rules (`kafka-streams.md` §5): a repartition topic has as many partitions as the
//! largest source upstream of it; a changelog has one partition per task of its sub-topology; an
//! existing internal topic with another count is fatal, never resized.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::RuntimeConfig;
use super::resolved::{Changelog, ResolvedSubTopology, ResolvedTopology};
use crate::format::{names, topic_config};
use crate::log::{Log, LogError, TopicDescription, TopicName, TopicSpec};
use crate::topology::{ResolvedTopic, SubTopology, TopicRef, Topology};

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

/// Returns the physical name of a topic.
#[must_use]
pub fn physical_name(config: &RuntimeConfig, topic: &TopicRef) -> String {
    match topic {
        TopicRef::Declared(name) => config
            .topics
            .get(name)
            .and_then(|entry| entry.name.clone())
            .unwrap_or_else(|| name.clone()),
        TopicRef::Repartition(name) => names::repartition_topic(&config.application_id, name),
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
    declared_counts(topology, config, existing, &mut plan);
    repartition_counts(topology, config, existing, &mut plan)?;
    for sub in topology.sub_topologies() {
        let counts: Vec<(&str, i32)> = sub
            .sources
            .iter()
            .map(|source| {
                (
                    source.name.as_str(),
                    plan.partitions.get(&source.topic).copied().unwrap_or(0),
                )
            })
            .collect();
        let tasks = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
        if !sub.stores.is_empty() && counts.iter().any(|(_, count)| *count != tasks) {
            let counts: Vec<String> = counts
                .iter()
                .map(|(name, count)| format!("`{name}` has {count}"))
                .collect();
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
        .filter(|source| matches!(source.topic, TopicRef::Declared(_)))
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

/// Returns the physical names of all topics a topology touches, changelogs included.
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
            names.insert(physical_name(config, &source.topic));
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

/// Creates what is missing, then resolves. Safe to run in several processes at once.
///
/// # Errors
/// [`TopicsError`].
pub fn ensure_topics<L: Log>(
    log: &L,
    topology: &Arc<Topology>,
    config: &RuntimeConfig,
) -> Result<ResolvedTopology, TopicsError> {
    let existing = describe(log, topology, config)?;
    let counts = existing
        .iter()
        .map(|(name, topic)| (name.clone(), topic.partitions))
        .collect();
    let plan = plan_topics(topology, config, &counts)?;
    if plan.create.is_empty() {
        return resolve_topics(topology, config, &existing);
    }
    for spec in &plan.create {
        tracing::info!(topic = %spec.name, partitions = spec.partitions, "creating topic");
    }
    log.create_topics(&plan.create)?;
    let existing = describe(log, topology, config)?;
    // Another process may have created them with other counts in the meantime: check again.
    let counts = existing
        .iter()
        .map(|(name, topic)| (name.clone(), topic.partitions))
        .collect();
    plan_topics(topology, config, &counts)?;
    resolve_topics(topology, config, &existing)
}

fn describe<L: Log>(
    log: &L,
    topology: &Topology,
    config: &RuntimeConfig,
) -> Result<BTreeMap<String, TopicDescription>, LogError> {
    let names = all_topic_names(topology, config);
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
            .chain(&sub.sinks);
        for reference in references {
            let found = find(physical_name(config, reference))?;
            topics.insert(
                reference.clone(),
                ResolvedTopic {
                    name: found.name,
                    partitions: found.partitions,
                },
            );
        }
        let sources: Vec<ResolvedTopic> = sub
            .sources
            .iter()
            .filter_map(|source| topics.get(&source.topic).cloned())
            .collect();
        let mut driver: Option<&ResolvedTopic> = None;
        for source in &sources {
            if driver.is_none_or(|best| source.partitions > best.partitions) {
                driver = Some(source);
            }
        }
        // Left out, it would shift every sub-topology behind it.
        let Some(driver) = driver else {
            return Err(TopicsError::NoSource {
                sub_topology: sub.id,
            });
        };
        let mut changelogs = BTreeMap::new();
        for store in sub.stores.iter().filter(|store| store.changelog.is_some()) {
            let found = find(names::changelog_topic(&config.application_id, &store.name))?;
            changelogs.insert(
                store.name.clone(),
                Changelog {
                    topic: found.name,
                    id: found.id,
                },
            );
        }
        sub_topologies.push(ResolvedSubTopology {
            id: sub.id,
            tasks: driver.partitions,
            driver: TopicName::clone(&driver.name),
            sources,
            changelogs,
        });
    }
    for topic in topology.declared_topics() {
        let reference = TopicRef::Declared(topic.name.clone());
        let found = find(physical_name(config, &reference))?;
        topics.insert(
            reference,
            ResolvedTopic {
                name: found.name,
                partitions: found.partitions,
            },
        );
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
    let changelog = Changelog {
        topic: TopicName::clone(&found.name),
        id: found.id,
    };
    let stores = part.stores.iter().map(|store| store.name.clone());
    Ok(ResolvedSubTopology {
        id: part.id,
        tasks: 1,
        driver: TopicName::clone(&found.name),
        sources: vec![ResolvedTopic {
            name: found.name,
            partitions: found.partitions,
        }],
        changelogs: stores.map(|store| (store, changelog.clone())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::prelude::*;
    use crate::topology::{SourceSpec, SubTopology};

    fn sub_topology(id: u32, sources: Vec<SourceSpec>) -> SubTopology {
        SubTopology {
            id,
            sources,
            sinks: Vec::new(),
            stores: Vec::new(),
            instantiate: Box::new(|_| {
                Err(StateError::UnknownStore {
                    store: "none".to_owned(),
                })
            }),
        }
    }

    #[test]
    fn a_sub_topology_without_a_source_is_an_error_and_shifts_none() {
        let builder = StreamsBuilder::new();
        for topic in ["a", "b"] {
            builder
                .stream(topic, Consumed::with(serdes::string(), serdes::string()))
                .to("out", Produced::with(serdes::string(), serdes::string()));
        }
        let drawn = builder.build().unwrap();
        let sources = |index: usize| drawn.sub_topologies()[index].sources.clone();
        let topology = Topology::new(
            vec![
                sub_topology(0, sources(0)),
                sub_topology(1, Vec::new()),
                sub_topology(2, sources(1)),
            ],
            Vec::new(),
            BTreeMap::new(),
            Vec::new(),
            drawn.describe().clone(),
        );
        let topic = |name: &str| TopicDescription {
            name: name.into(),
            id: [0; 16],
            partitions: 1,
        };
        let existing = ["a", "b"].map(|name| (name.to_owned(), topic(name)));
        let config = RuntimeConfig::new("app", "unused");
        let resolved = resolve_topics(&Arc::new(topology), &config, &existing.into());
        assert!(
            matches!(resolved, Err(TopicsError::NoSource { sub_topology: 1 })),
            "{resolved:?}"
        );
    }

    fn counts(builder: StreamsBuilder, existing: &[(&str, i32)]) -> BTreeMap<String, i32> {
        let config = RuntimeConfig::new("app", "unused");
        let existing = existing
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        let plan = plan_topics(&builder.build().unwrap(), &config, &existing).unwrap();
        let counts = plan.partitions.into_iter();
        counts
            .map(|(topic, count)| (topic.to_string(), count))
            .collect()
    }

    fn table(builder: &StreamsBuilder, name: &str) -> KTable<String, String> {
        builder.table(
            name,
            Consumed::with(serdes::string(), serdes::string()),
            Materialized::as_store(name, serdes::string(), serdes::string()),
        )
    }

    #[test]
    fn a_repartitioned_stream_has_as_many_partitions_as_the_table_it_is_joined_with() {
        let builder = StreamsBuilder::new();
        let users = table(&builder, "users");
        builder
            .stream("orders", Consumed::with(serdes::string(), serdes::string()))
            .select_key(|_, user| user.clone())
            .join_table(
                &users,
                |_, order, user| order + &user,
                Joined::with("by-user", serdes::string(), serdes::string()),
            )
            .to("out", Produced::with(serdes::string(), serdes::string()));
        let counts = counts(builder, &[("orders", 6), ("users", 3), ("out", 1)]);
        assert_eq!(counts.get("by-user-repartition"), Some(&3));
    }

    #[test]
    fn repartition_topics_that_meet_at_a_join_have_as_many_partitions_as_the_largest_needs() {
        let builder = StreamsBuilder::new();
        let texts = || Consumed::with(serdes::string(), serdes::string());
        let by_value = |name| builder.stream(name, texts()).select_key(|_, v| v.clone());
        let join = |left: &KStream<String, String>, right: &KStream<String, String>, name| {
            let windows = JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(1));
            let text = serdes::string;
            let joined = StreamJoined::with(name, text(), text(), text());
            left.join(right, |_, left, right| left + &right, windows, joined)
        };
        let first = join(&by_value("two"), &by_value("five"), "first");
        join(&first, &by_value("three"), "second")
            .to("out", Produced::with(serdes::string(), serdes::string()));
        let counts = counts(
            builder,
            &[("two", 2), ("three", 3), ("five", 5), ("out", 1)],
        );
        for name in ["first-left", "first-right", "second-right"] {
            let topic = format!("{name}-repartition");
            assert_eq!(counts.get(&topic), Some(&5), "{topic} in {counts:?}");
        }
    }

    #[test]
    fn a_count_that_the_author_fixed_holds_for_what_meets_it() {
        let builder = StreamsBuilder::new();
        let texts = || Consumed::with(serdes::string(), serdes::string());
        let by_value = |name| builder.stream(name, texts()).select_key(|_, v| v.clone());
        let text = serdes::string;
        let fixed = Repartitioned::with("fixed", text(), text()).partitions(7);
        by_value("two")
            .repartition(fixed)
            .left_join(
                &by_value("five"),
                |_, left, _| left,
                JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(1)),
                StreamJoined::with("joined", text(), text(), text()),
            )
            .to("out", Produced::with(serdes::string(), serdes::string()));
        let counts = counts(builder, &[("two", 2), ("five", 5), ("out", 1)]);
        assert_eq!(counts.get("joined-right-repartition"), Some(&7));
    }

    #[test]
    fn the_topics_of_a_foreign_key_join_follow_the_table_that_reads_them() {
        let builder = StreamsBuilder::new();
        let (left, right) = (table(&builder, "left"), table(&builder, "right"));
        let joined = left.join_foreign_key(
            &right,
            |_, value| Some(value.clone()),
            |_, left, right| left + &right,
            TableJoined::as_name("fk"),
            Materialized::as_store("joined", serdes::string(), serdes::string()),
        );
        drop(joined);
        let counts = counts(builder, &[("left", 6), ("right", 4)]);
        assert_eq!(counts.get("fk-subscription-repartition"), Some(&4));
        assert_eq!(counts.get("fk-response-repartition"), Some(&6));
    }
}
