//! The topology that runs, as the last record of a compacted topic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Verdict, compare};
use crate::clock::Clock;
use crate::format::{names, topic_config};
use crate::log::{
    Headers, Isolation, Log, LogError, LogMessage, LogProducer, LogReader, ProducerRecord,
    ProducerSpec, TopicName, TopicPartition, TopicSpec,
};
use crate::runtime::RuntimeConfig;
use crate::topology::{FORMAT_VERSION, TopologyDescription};

/// The key under which the topology is kept.
const KEY: &[u8] = b"topology";
/// How long a reader may take for a topic of a few records.
const PATIENCE: Duration = Duration::from_secs(20);
/// For `transaction.timeout.ms`, which an idempotent producer has no use for.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The recorded topology cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordedError {
    /// The log does not answer, or refuses.
    #[error("cannot read the recorded topology")]
    Log(#[from] LogError),
    /// A newer program recorded it.
    #[error(
        "the topology in `{topic}` has format version {found}, this program knows up to {known}: use the program that recorded it, or a newer one"
    )]
    Newer {
        /// The topic.
        topic: String,
        /// The version of the record.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// It is not a description of a topology.
    #[error(
        "the last record of `{topic}` is no topology; the next start of the application replaces it"
    )]
    Damaged {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// What every version of a description has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    format_version: u32,
}

/// Returns the topology that an application recorded last; `None` when it never ran. Changes nothing.
///
/// # Errors
/// [`RecordedError`].
pub fn recorded<L: Log>(
    log: &L,
    application_id: &str,
) -> Result<Option<TopologyDescription>, RecordedError> {
    let topic = names::topology_topic(application_id);
    let Some(bytes) = last_value(log, &topic)? else {
        return Ok(None);
    };
    let damaged = |source| RecordedError::Damaged {
        topic: topic.clone(),
        source,
    };
    let Versioned { format_version } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if format_version > FORMAT_VERSION {
        return Err(RecordedError::Newer {
            topic,
            found: format_version,
            known: FORMAT_VERSION,
        });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

fn last_value<L: Log>(log: &L, topic: &str) -> Result<Option<Vec<u8>>, LogError> {
    if log.describe_topics(&[topic])?.iter().all(Option::is_none) {
        return Ok(None);
    }
    let partition = TopicPartition::new(topic, 0);
    let ranges = log.log_ranges(std::slice::from_ref(&partition), Isolation::ReadCommitted)?;
    let Some(range) = ranges.first().filter(|range| range.start < range.end) else {
        return Ok(None);
    };
    let mut reader = log.reader(Isolation::ReadCommitted)?;
    reader.assign(&[(partition.clone(), range.start)])?;
    let deadline = Instant::now() + PATIENCE;
    let mut messages = Vec::new();
    while reader.position(&partition).is_none_or(|at| at < range.end) {
        if Instant::now() > deadline {
            return Err(LogError::Retriable {
                operation: "read the recorded topology",
                message: format!("{partition} was not read to its end within {PATIENCE:?}"),
            });
        }
        reader.poll(100, Duration::from_millis(100), &mut messages)?;
    }
    let ours = messages
        .iter()
        .rev()
        .find(|message| message.key() == Some(KEY));
    Ok(ours.and_then(|message| message.value()).map(<[u8]>::to_vec))
}

/// Records a topology as the one that runs, and logs how it differs from the one that ran. Where that
/// asks for a reset, the record stays as it is: the reset [sets](set_recorded) it.
///
/// # Errors
/// [`LogError`] of the log; a record that this program cannot read is no error.
pub fn announce<L: Log>(
    log: &L,
    planned: &TopologyDescription,
    config: &RuntimeConfig,
    clock: &Arc<dyn Clock>,
) -> Result<(), LogError> {
    let running = match recorded(log, &config.application_id) {
        Ok(running) => running,
        Err(RecordedError::Log(error)) => return Err(error),
        Err(error @ RecordedError::Newer { .. }) => {
            tracing::warn!(%error, "the topology is not compared with the one that ran");
            return Ok(());
        }
        Err(error @ RecordedError::Damaged { .. }) => {
            tracing::warn!(%error, "the recorded topology is replaced");
            None
        }
    };
    if running.as_ref() == Some(planned) {
        return Ok(());
    }
    let plan = compare(&config.application_id, running.as_ref(), planned);
    for change in &plan.changes {
        if change.verdict() >= Verdict::NeedsRestart {
            tracing::warn!(%change, verdict = %change.verdict(), "the topology has changed");
        } else {
            tracing::info!(%change, verdict = %change.verdict(), "the topology has changed");
        }
    }
    if !plan.orphans.is_empty() {
        let topics: BTreeSet<&String> = plan.orphans.iter().collect();
        tracing::info!(?topics, "internal topics that nothing uses any more");
    }
    if plan.verdict() == Verdict::NeedsReset {
        // The record stays what `millstream plan` compares with, until somebody has reset.
        tracing::warn!("the topology that ran stays recorded until `millstream reset`");
        return Ok(());
    }
    set_recorded(log, planned, config, clock)
}

/// Records a topology as the one that runs, whatever ran before.
///
/// # Errors
/// [`LogError`] of the log.
pub fn set_recorded<L: Log>(
    log: &L,
    planned: &TopologyDescription,
    config: &RuntimeConfig,
    clock: &Arc<dyn Clock>,
) -> Result<(), LogError> {
    let topic: TopicName = names::topology_topic(&config.application_id).into();
    log.create_topics(&[TopicSpec {
        name: TopicName::clone(&topic),
        partitions: 1,
        replication_factor: Some(config.default_replication_factor),
        config: topic_config::topology(),
    }])?;
    let mut producer = log.producer(&ProducerSpec {
        transactional_id: None,
        transaction_timeout: TRANSACTION_TIMEOUT,
        client_id: format!("{}-topology", config.application_id),
    })?;
    producer.send(ProducerRecord {
        topic: &topic,
        partition: Some(0),
        key: Some(KEY),
        value: Some(planned.to_json().as_bytes()),
        timestamp: clock.now_ms(),
        headers: &Headers::new(),
    })?;
    producer.flush()
}
