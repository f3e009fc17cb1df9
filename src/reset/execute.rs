//! Collects a reset's facts from the log, and carries its plan out.
//!
//! # Failure
//! What a busy broker refuses is asked again for half a minute. An execution that ends early leaves the
//! mark on the offsets (see the module above); to run it again is safe at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::PENDING_KEY;
use super::plan::{
    DeletionReason, PartitionFacts, Position, RepartitionFacts, ResetFacts, ResetSteps,
    SourceFacts, StoreFacts,
};
use crate::format::offset_metadata::OffsetMetadata;
use crate::format::{names, topic_config};
use crate::log::{
    CommittedOffset, Isolation, Log, LogError, Offset, TopicDescription, TopicName, TopicPartition,
    TopicSpec,
};
use crate::runtime::{
    RuntimeConfig, TopicsError, existing_topic_names, physical_name, plan_topics,
};
use crate::topology::{TopicRef, Topology};

/// How long a step is tried. A transaction left open by a dead process is aborted well within it.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a reset could not be planned or carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResetError {
    /// The log does not answer, or refuses.
    #[error("cannot {step}")]
    Log {
        /// What was attempted.
        step: &'static str,
        /// What the log said.
        #[source]
        source: LogError,
    },
    /// The topics that exist do not fit the topology.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// Somebody committed after the plan was made.
    #[error("the committed offset of {0} has moved since the plan was made: plan again")]
    Moved(TopicPartition),
    /// The cluster accepted a deletion or a creation and has not carried it out.
    #[error("topic `{topic}` is still not {state}")]
    TopicPending {
        /// The topic.
        topic: TopicName,
        /// What it should be.
        state: &'static str,
    },
}

/// Asks the log for everything that [`plan`](super::plan) decides from. Changes nothing.
///
/// # Errors
/// [`ResetError`].
pub fn collect_facts<L: Log>(
    log: &L,
    topology: &Topology,
    config: &RuntimeConfig,
) -> Result<ResetFacts, ResetError> {
    let group = &config.application_id;
    let members = patiently("ask for the group's members", || log.group_members(group))?;
    let names = patiently("list topics", || {
        existing_topic_names(log, topology, config)
    })?;
    let topics = describe(log, names)?;
    let counts = topics
        .iter()
        .map(|(name, topic)| (name.to_string(), topic.partitions))
        .collect();
    let partitions = plan_topics(topology, config, &counts)?.partitions;
    let mut sources = Vec::new();
    let mut repartitions = Vec::new();
    let mut stores = Vec::new();
    for sub in topology.sub_topologies() {
        for source in &sub.sources {
            if let TopicRef::Pattern(pattern) = &source.topic {
                let own = |topic: &&TopicName| !names::is_internal_topic(group, topic);
                let matched = topics.keys().filter(|topic| pattern.matches(topic));
                for topic in matched.filter(own) {
                    let count = topics.get(topic).map_or(0, |topic| topic.partitions);
                    sources.push(SourceFacts {
                        topic: Arc::clone(topic),
                        rewindable: source.rewindable,
                        partitions: partition_facts(log, group, topic, count)?,
                    });
                }
                continue;
            }
            let topic: TopicName = physical_name(config, &source.topic).into();
            let existing = topics.get(&topic).map_or(0, |topic| topic.partitions);
            let facts = partition_facts(log, group, &topic, existing)?;
            match source.topic {
                TopicRef::Declared(_) | TopicRef::Pattern(_) => {
                    let rewindable = source.rewindable;
                    sources.push(SourceFacts {
                        topic,
                        rewindable,
                        partitions: facts,
                    });
                }
                TopicRef::Repartition(_) => repartitions.push(RepartitionFacts {
                    topic,
                    partitions: partitions.get(&source.topic).copied().unwrap_or(existing),
                    generation: facts
                        .iter()
                        .filter_map(|facts| Some(facts.committed?.generation))
                        .max()
                        .unwrap_or(0),
                }),
            }
        }
        stores.extend(sub.stores.iter().map(|store| {
            StoreFacts {
                name: store.name.clone(),
                durability: store.durability,
                changelog: store
                    .changelog
                    .is_some()
                    .then(|| names::changelog_topic(group, &store.name).into()),
            }
        }));
    }
    let declared = topology.declared_topics().iter();
    let outputs = declared
        .map(|topic| physical_name(config, &TopicRef::Declared(topic.name.clone())).into())
        .collect();
    Ok(ResetFacts {
        application_id: group.clone(),
        members,
        sources,
        repartitions,
        stores,
        outputs,
        existing: topics.into_keys().collect(),
    })
}

fn partition_facts<L: Log>(
    log: &L,
    group: &str,
    topic: &TopicName,
    count: i32,
) -> Result<Vec<PartitionFacts>, ResetError> {
    let partitions: Vec<TopicPartition> = (0..count)
        .map(|partition| TopicPartition::new(Arc::clone(topic), partition))
        .collect();
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let committed = patiently("fetch the committed offsets", || {
        log.group_offsets(group, &partitions)
    })?;
    let ranges = patiently("ask for the ends of the log", || {
        log.log_ranges(&partitions, Isolation::ReadUncommitted)
    })?;
    Ok(partitions
        .iter()
        .zip(committed)
        .zip(ranges)
        .map(|((partition, committed), range)| PartitionFacts {
            partition: partition.partition,
            committed: committed.map(|committed| Position {
                offset: committed.offset,
                generation: OffsetMetadata::decode_or_default(&committed.metadata).generation(),
            }),
            range,
        })
        .collect())
}

/// Carries out the steps of a plan, in their order.
///
/// # Errors
/// [`ResetError`]; what was done until then stays done, and a process that starts is told to finish
/// the reset.
pub fn execute<L: Log>(
    log: &L,
    config: &RuntimeConfig,
    steps: &ResetSteps,
) -> Result<(), ResetError> {
    let group = &config.application_id;
    // ORDER: the mark before anything is deleted, and its end after all is in place again.
    mark(log, group, steps)?;
    delete(log, steps)?;
    create_again(log, config, steps)?;
    let metadata = OffsetMetadata::new(None, steps.generation).encode();
    let after: Vec<_> = steps
        .offsets_after()
        .map(|(partition, offset)| {
            (
                partition,
                CommittedOffset {
                    offset,
                    metadata: metadata.clone(),
                },
            )
        })
        .collect();
    if !after.is_empty() {
        patiently("commit the new offsets", || {
            log.alter_group_offsets(group, &after)
        })?;
    }
    tracing::info!(
        offsets = after.len(),
        generation = steps.generation,
        "offsets committed"
    );
    Ok(())
}

/// Marks the committed offsets, where they are and with the metadata that they have.
pub(super) fn mark<L: Log>(log: &L, group: &str, steps: &ResetSteps) -> Result<(), ResetError> {
    let planned: Vec<(TopicPartition, Offset)> = steps
        .offsets_before()
        .map(|(partition, offset)| (partition.clone(), offset))
        .collect();
    if planned.is_empty() {
        return Ok(());
    }
    let partitions: Vec<TopicPartition> = planned
        .iter()
        .map(|(partition, _)| partition.clone())
        .collect();
    let committed = patiently("fetch the committed offsets", || {
        log.group_offsets(group, &partitions)
    })?;
    let pending = i64::try_from(steps.generation).unwrap_or(i64::MAX);
    let mut marked = Vec::new();
    for ((partition, offset), committed) in planned.into_iter().zip(committed) {
        let Some(committed) = committed.filter(|committed| committed.offset == offset) else {
            return Err(ResetError::Moved(partition));
        };
        let mut metadata = OffsetMetadata::decode_or_default(&committed.metadata);
        metadata.entries.insert(PENDING_KEY.to_owned(), pending);
        marked.push((
            partition,
            CommittedOffset {
                offset,
                metadata: metadata.encode(),
            },
        ));
    }
    patiently("mark the committed offsets", || {
        log.alter_group_offsets(group, &marked)
    })?;
    tracing::info!(offsets = marked.len(), "offsets marked");
    Ok(())
}

pub(super) fn delete<L: Log>(log: &L, steps: &ResetSteps) -> Result<(), ResetError> {
    let doomed: Vec<&str> = steps
        .deletions
        .iter()
        .filter(|deletion| deletion.exists)
        .map(|deletion| &*deletion.topic)
        .collect();
    if doomed.is_empty() {
        return Ok(());
    }
    patiently("delete topics", || log.delete_topics(&doomed))?;
    // A broker answers before the topic is gone, and takes a creation meanwhile for a repetition.
    until("deleted", &doomed, |found| found.is_none(), log)?;
    tracing::info!(topics = doomed.join(", "), "topics deleted");
    Ok(())
}

fn create_again<L: Log>(
    log: &L,
    config: &RuntimeConfig,
    steps: &ResetSteps,
) -> Result<(), ResetError> {
    let specs: Vec<TopicSpec> = steps
        .deletions
        .iter()
        .filter_map(|deletion| match deletion.reason {
            DeletionReason::Repartition(partitions) => Some(TopicSpec {
                name: Arc::clone(&deletion.topic),
                partitions,
                replication_factor: Some(config.default_replication_factor),
                config: topic_config::repartition(&BTreeMap::new()),
            }),
            DeletionReason::DerivedStore(_) => None,
        })
        .collect();
    if specs.is_empty() {
        return Ok(());
    }
    patiently("create topics", || log.create_topics(&specs))?;
    let created: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
    until("created", &created, |found| found.is_some(), log)?;
    tracing::info!(topics = created.join(", "), "topics created");
    Ok(())
}

/// Waits until every topic is as it should be.
fn until<L: Log>(
    state: &'static str,
    topics: &[&str],
    reached: impl Fn(&Option<TopicDescription>) -> bool,
    log: &L,
) -> Result<(), ResetError> {
    let deadline = Instant::now() + STEP_TIMEOUT;
    loop {
        let found = patiently("describe topics", || log.describe_topics(topics))?;
        let Some(open) = found.iter().position(|topic| !reached(topic)) else {
            return Ok(());
        };
        if Instant::now() > deadline {
            let topic = topics.get(open).copied().unwrap_or_default().into();
            return Err(ResetError::TopicPending { topic, state });
        }
        std::thread::park_timeout(PAUSE);
    }
}

fn describe<L: Log>(
    log: &L,
    names: Vec<String>,
) -> Result<BTreeMap<TopicName, TopicDescription>, ResetError> {
    let names: BTreeSet<String> = names.into_iter().collect();
    let refs: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = patiently("describe topics", || log.describe_topics(&refs))?;
    Ok(found
        .into_iter()
        .flatten()
        .map(|topic| (Arc::clone(&topic.name), topic))
        .collect())
}

/// Repeats a request while the log is busy, or has not heard of a topic that was just created.
fn patiently<T>(
    step: &'static str,
    mut request: impl FnMut() -> Result<T, LogError>,
) -> Result<T, ResetError> {
    let deadline = Instant::now() + STEP_TIMEOUT;
    loop {
        match request() {
            Ok(answer) => return Ok(answer),
            Err(source) => {
                let passing =
                    source.is_retriable() || matches!(source, LogError::UnknownTopic { .. });
                if !passing || Instant::now() > deadline {
                    return Err(ResetError::Log { step, source });
                }
                tracing::warn!(error = %source, "cannot {step} yet");
                std::thread::park_timeout(PAUSE);
            }
        }
    }
}
