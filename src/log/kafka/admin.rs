//! Administrative requests of the seam: topics, offsets, groups.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::config::Config;
use super::errors;
use super::ffi::{Admin, Client, ClientKind, Code, Entry, NativeError, PartitionList, TopicResult};
use crate::log::{
    CommittedOffset, GroupMember, Isolation, LogError, LogRange, Offset, TopicDescription,
    TopicName, TopicPartition, TopicSpec,
};

/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long brokers may take to learn of a topic that was created or deleted.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two looks whether they have.
const PROPAGATION_POLL: Duration = Duration::from_millis(10);

/// What `ListOffsets` reads as "the first" and "one past the last".
const EARLIEST: Offset = -2;
const LATEST: Offset = -1;

/// What brokers keep for themselves. librdkafka does not pass on that a topic is internal.
const BROKERS_OWN: [&str; 4] = [
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
    "__cluster_metadata",
];

/// Makes the seam's administrative requests.
#[derive(Debug)]
pub(super) struct KafkaAdmin(Admin);

impl KafkaAdmin {
    pub(super) fn new(config: &Config) -> Result<Self, LogError> {
        let client = Client::new(ClientKind::Admin, config.admin()?)
            .map_err(|error| errors::log_error("create an admin client", error))?;
        Ok(Self(Admin::new(Arc::new(client), REQUEST_TIMEOUT)))
    }

    /// For requests that a group's coordinator answers.
    pub(super) fn of_group(config: &Config, group: &str) -> Result<Self, LogError> {
        let client = Client::new(ClientKind::GroupAdmin, config.group_admin(group)?)
            .map_err(|error| errors::log_error("create an admin client of a group", error))?;
        Ok(Self(Admin::new(Arc::new(client), REQUEST_TIMEOUT)))
    }

    pub(super) fn topic_names(&self) -> Result<Vec<TopicName>, LogError> {
        let names = self.0.topic_names().map_err(of("list topics"))?;
        let foreign = names
            .iter()
            .filter(|name| !BROKERS_OWN.contains(&name.as_str()));
        Ok(foreign.map(|name| TopicName::from(name.as_str())).collect())
    }

    pub(super) fn describe_topics(
        &self,
        topics: &[&str],
    ) -> Result<Vec<Option<TopicDescription>>, LogError> {
        let operation = "describe topics";
        let wanted: Vec<&str> = topics
            .iter()
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let facts = self.0.describe_topics(&wanted).map_err(of(operation))?;
        let mut described = HashMap::new();
        for topic in facts {
            match topic.result {
                Ok(()) => {
                    let description = TopicDescription {
                        name: TopicName::from(topic.name.as_str()),
                        id: topic.id,
                        partitions: i32::try_from(topic.partitions).unwrap_or(i32::MAX),
                    };
                    described.insert(topic.name, description);
                }
                Err(error) if errors::is_unknown_topic(error.code) => {}
                Err(error) => return Err(of(operation)(named(&topic.name, error))),
            }
        }
        Ok(topics
            .iter()
            .map(|name| described.get(*name).cloned())
            .collect())
    }

    pub(super) fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let operation = "create topics";
        if topics.is_empty() {
            return Ok(());
        }
        let results = self.0.create_topics(topics).map_err(of(operation))?;
        first_error(operation, results, |code| {
            code == Code::RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS
        })?;
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
        // A broker answers when the controller has agreed, and may itself learn of it later.
        self.wait_until(operation, &names, |topic| topic.is_some())
    }

    pub(super) fn delete_topics(&self, topics: &[&str]) -> Result<(), LogError> {
        let operation = "delete topics";
        if topics.is_empty() {
            return Ok(());
        }
        let results = self.0.delete_topics(topics).map_err(of(operation))?;
        first_error(operation, results, errors::is_unknown_topic)?;
        self.wait_until(operation, topics, |topic| topic.is_none())
    }

    fn wait_until(
        &self,
        operation: &'static str,
        topics: &[&str],
        settled: impl Fn(&Option<TopicDescription>) -> bool,
    ) -> Result<(), LogError> {
        let deadline = Instant::now() + PROPAGATION_TIMEOUT;
        while !self.describe_topics(topics)?.iter().all(&settled) {
            if Instant::now() >= deadline {
                let message = format!("brokers do not know of it after {PROPAGATION_TIMEOUT:?}");
                return Err(LogError::Retriable { operation, message });
            }
            std::thread::park_timeout(PROPAGATION_POLL);
        }
        Ok(())
    }

    pub(super) fn delete_records(
        &self,
        below: &[(TopicPartition, Offset)],
    ) -> Result<(), LogError> {
        let operation = "delete records";
        if below.is_empty() {
            return Ok(());
        }
        let list =
            PartitionList::of(below.iter().map(|(at, to)| (at, *to))).map_err(of(operation))?;
        let mut failed = None;
        self.0
            .delete_records(&list, &mut |entry| {
                note_failure(operation, &mut failed, entry)
            })
            .map_err(of(operation))?;
        failed.map_or(Ok(()), |error| Err(self.refused(operation, error)))
    }

    pub(super) fn log_ranges(
        &self,
        partitions: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Vec<LogRange>, LogError> {
        // ORDER: start before end, so that a range never ends before it starts.
        let starts = self.offsets(partitions, isolation, EARLIEST)?;
        let ends = self.offsets(partitions, isolation, LATEST)?;
        Ok(starts
            .into_iter()
            .zip(ends)
            .map(|(start, end)| LogRange { start, end })
            .collect())
    }

    fn offsets(
        &self,
        partitions: &[TopicPartition],
        isolation: Isolation,
        which: Offset,
    ) -> Result<Vec<Offset>, LogError> {
        let operation = "list offsets";
        let unique: BTreeSet<&TopicPartition> = partitions.iter().collect();
        if unique.is_empty() {
            return Ok(Vec::new());
        }
        let list =
            PartitionList::of(unique.into_iter().map(|at| (at, which))).map_err(of(operation))?;
        let (mut offsets, mut failed) = (HashMap::new(), None);
        self.0
            .list_offsets(&list, isolation, &mut |entry| {
                note_failure(operation, &mut failed, entry);
                offsets.insert(entry.topic_partition(), entry.offset);
            })
            .map_err(|error| self.without_leader(partitions, of(operation), error))?;
        if let Some(error) = failed {
            return Err(self.refused(operation, error));
        }
        partitions
            .iter()
            .map(|at| {
                offsets.get(at).copied().ok_or_else(|| LogError::Retriable {
                    operation,
                    message: format!("no answer for {at}"),
                })
            })
            .collect()
    }

    /// Judges a refusal of one broker, and prepares for the next attempt.
    ///
    /// A broker may not know yet of a topic that others know. And an admin request goes by the
    /// leaders that are known, whose refusal (they lead no longer, or in another epoch) does not
    /// make librdkafka ask anew.
    fn refused(&self, operation: &'static str, error: LogError) -> LogError {
        if let LogError::UnknownTopic { topic } = &error
            && let Ok(described) = self.describe_topics(&[topic])
            && described.iter().any(Option::is_some)
        {
            let message = format!("a broker does not know topic `{topic}` yet");
            return LogError::Retriable { operation, message };
        }
        if error.is_retriable()
            && let Err(error) = self.0.refresh()
        {
            tracing::debug!("leaders could not be refreshed: {}", error.message);
        }
        error
    }

    /// Tells partitions without a leader at the moment from those that do not exist: both are "no
    /// entry" where librdkafka looks for leaders.
    fn without_leader(
        &self,
        partitions: &[TopicPartition],
        convert: impl Fn(NativeError) -> LogError,
        error: NativeError,
    ) -> LogError {
        if error.code != Code::RD_KAFKA_RESP_ERR__NOENT {
            return convert(error);
        }
        let topics: Vec<&str> = partitions.iter().map(|at| &*at.topic).collect();
        let described = match self.describe_topics(&topics) {
            Ok(described) => described,
            Err(error) => return error,
        };
        let exists = |at: &TopicPartition, topic: &Option<TopicDescription>| {
            topic
                .as_ref()
                .is_some_and(|topic| at.partition < topic.partitions)
        };
        match partitions
            .iter()
            .zip(&described)
            .find(|(at, topic)| !exists(at, topic))
        {
            Some((at, _)) => LogError::UnknownTopic {
                topic: at.topic.to_string(),
            },
            None => convert(NativeError {
                retriable: true,
                ..error
            }),
        }
    }

    pub(super) fn group_members(&self, group: &str) -> Result<Vec<GroupMember>, LogError> {
        match self.0.group_members(group) {
            Ok(members) => Ok(members
                .into_iter()
                .map(|member| GroupMember {
                    client_id: member.client_id,
                    group_instance_id: member.group_instance_id,
                    assignment: member.assignment,
                })
                .collect()),
            Err(error) if error.code == Code::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND => {
                Ok(Vec::new())
            }
            Err(error) => Err(of("describe the group")(error)),
        }
    }

    pub(super) fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, LogError> {
        let operation = "fetch the group's offsets";
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let list = PartitionList::of(partitions.iter().map(|at| (at, 0))).map_err(of(operation))?;
        let (mut found, mut failed) = (HashMap::new(), None);
        self.0
            .group_offsets(group, &list, &mut |entry| {
                note_failure(operation, &mut failed, entry);
                found.insert(entry.topic_partition(), entry.committed());
            })
            .map_err(of(operation))?;
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(partitions
            .iter()
            .map(|at| found.get(at).cloned().flatten())
            .collect())
    }

    pub(super) fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<(), LogError> {
        let operation = "set the group's offsets";
        if offsets.is_empty() {
            return Ok(());
        }
        let list = PartitionList::of_committed(offsets).map_err(of(operation))?;
        let mut failed = None;
        self.0
            .alter_group_offsets(group, &list, &mut |entry| {
                note_failure(operation, &mut failed, entry);
            })
            .map_err(|error| has_members(operation, of(operation)(error)))?;
        failed.map_or(Ok(()), |error| {
            Err(self.refused(operation, has_members(operation, error)))
        })
    }
}

/// The coordinator answers a simple commit to a group with members by "unknown member".
fn has_members(operation: &'static str, error: LogError) -> LogError {
    match error {
        LogError::MemberUnknown { message, .. } => LogError::Fatal {
            operation,
            message: format!("the group has members: {message}"),
        },
        other => other,
    }
}

/// Puts an answer with committed offsets into the order of the question.
pub(super) fn committed_offsets<'a>(
    operation: &'static str,
    partitions: &[TopicPartition],
    entries: impl Iterator<Item = Entry<'a>>,
) -> Result<Vec<Option<CommittedOffset>>, LogError> {
    let (mut found, mut failed) = (HashMap::new(), None);
    for entry in entries {
        note_failure(operation, &mut failed, entry);
        found.insert(entry.topic_partition(), entry.committed());
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(partitions
            .iter()
            .map(|at| found.get(at).cloned().flatten())
            .collect()),
    }
}

fn of(operation: &'static str) -> impl Fn(NativeError) -> LogError {
    move |error| errors::log_error(operation, error)
}

fn named(topic: &str, mut error: NativeError) -> NativeError {
    error.message = format!("`{topic}`: {}", error.message);
    error
}

fn first_error(
    operation: &'static str,
    results: Vec<TopicResult>,
    harmless: impl Fn(Code) -> bool,
) -> Result<(), LogError> {
    for (topic, result) in results {
        if let Err(error) = result
            && !harmless(error.code)
        {
            return Err(of(operation)(named(&topic, error)));
        }
    }
    Ok(())
}

/// Keeps the first failed entry of an answer.
fn note_failure(operation: &'static str, failed: &mut Option<LogError>, entry: Entry<'_>) {
    if entry.code == Code::RD_KAFKA_RESP_ERR_NO_ERROR || failed.is_some() {
        return;
    }
    *failed = Some(if errors::is_unknown_topic(entry.code) {
        LogError::UnknownTopic {
            topic: entry.topic.to_owned(),
        }
    } else if entry.code == Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE {
        LogError::OffsetOutOfRange {
            partition: entry.topic_partition(),
            offset: entry.offset,
        }
    } else {
        let at = entry.topic_partition().to_string();
        of(operation)(named(&at, NativeError::from_code(entry.code)))
    });
}
