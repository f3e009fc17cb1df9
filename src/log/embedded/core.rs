//! The log behind its lock: durable state, groups, and what happens as time passes.
//!
//! # Invariants
//! - The durable state changes in [`Core::change`] only: journal first, then memory.
//! - Whatever time brings about (sessions, transactions, retention, compaction) happens in
//!   [`Core::tick`], which every client call begins with: there is no thread in the background.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::compaction;
use super::group::{Group, MemberId};
use super::journal::Journal;
use super::mutation::Mutation;
use super::state::{State, Topic, live_bytes};
use crate::clock::Clock;
use crate::log::{
    CommittedOffset, ConsumerWaker, Isolation, LogError, Offset, TopicName, TopicPartition,
    TopicSpec,
};

/// How often retention and compaction look, by the log's clock.
const MAINTENANCE_INTERVAL_MS: i64 = 15_000;
/// How long a record outside of transactions may wait to be written, unless flushed.
const FLUSH_INTERVAL_MS: i64 = 1_000;
/// How soon what could not be written for lack of space is tried again.
const RETRY_INTERVAL_MS: i64 = 1_000;

/// Names a client for the life of the log.
pub(super) type ClientId = u64;

/// A durable change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChangeError {
    /// The journal could not be written: the same change may succeed later.
    NotWritten(String),
    /// The journal is in doubt: nothing more is written.
    Broken(String),
}

impl ChangeError {
    /// Returns the error for an operation that may be repeated.
    pub(super) fn into_log_error(self, operation: &'static str) -> LogError {
        match self {
            Self::NotWritten(message) => LogError::Retriable { operation, message },
            Self::Broken(message) => LogError::Fatal { operation, message },
        }
    }
}

/// Everything behind the lock.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) state: State,
    journal: Option<Journal>,
    pub(super) groups: BTreeMap<String, Group>,
    clock: Arc<dyn Clock>,
    pub(super) background_heartbeats: bool,
    next_client: ClientId,
    next_deadline: i64,
    next_flush: i64,
    next_maintenance: i64,
    watchers: HashMap<TopicPartition, Vec<(ClientId, ConsumerWaker)>>,
    members: HashMap<ClientId, ConsumerWaker>,
}

impl Core {
    pub(super) fn new(clock: Arc<dyn Clock>, state: State, journal: Option<Journal>) -> Self {
        Self {
            state,
            journal,
            groups: BTreeMap::new(),
            next_maintenance: clock.now_ms().saturating_add(MAINTENANCE_INTERVAL_MS),
            clock,
            background_heartbeats: true,
            next_client: 0,
            // What a journal brought back may be due.
            next_deadline: i64::MIN,
            next_flush: i64::MIN,
            watchers: HashMap::new(),
            members: HashMap::new(),
        }
    }

    /// Returns a number that no client or member had before.
    pub(super) fn next_client(&mut self) -> ClientId {
        self.next_client += 1;
        self.next_client
    }

    /// Makes a durable change.
    ///
    /// # Errors
    /// [`ChangeError`], with nothing changed.
    pub(super) fn change(&mut self, mutation: Mutation) -> Result<(), ChangeError> {
        if let Some(journal) = &mut self.journal {
            journal.append(&mutation)?;
        }
        let applied = self.state.apply(mutation);
        if let Some(journal) = &mut self.journal
            && journal.has_grown()
        {
            let live = u64::try_from(live_bytes(&self.state)).unwrap_or(u64::MAX);
            journal.shrink(&self.state, live);
        }
        applied.map_err(|error| ChangeError::Broken(error.to_string()))
    }

    /// Hands everything journaled to the operating system.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(super) fn flush(&mut self) -> Result<(), ChangeError> {
        self.journal.as_mut().map_or(Ok(()), Journal::flush)
    }

    /// Lets time act, and returns it.
    pub(super) fn tick(&mut self) -> i64 {
        let now = self.clock.now_ms();
        if now >= self.next_deadline {
            self.expire_sessions(now);
            self.expire_transactions(now);
            self.next_deadline = self.first_deadline(now);
        }
        if now >= self.next_maintenance {
            self.next_maintenance = now.saturating_add(MAINTENANCE_INTERVAL_MS);
            if let Err(error) = self.maintain(now, false) {
                tracing::warn!(?error, "retention and compaction put off");
            }
        }
        if now >= self.next_flush {
            self.next_flush = now.saturating_add(FLUSH_INTERVAL_MS);
            if let Err(error) = self.flush() {
                tracing::warn!(?error, "journal not written, trying again");
            }
        }
        now
    }

    /// A deadline may have come nearer.
    pub(super) fn note_deadline(&mut self, at: i64) {
        self.next_deadline = self.next_deadline.min(at);
    }

    /// Recomputes the next deadline, when heartbeats are counted another way.
    pub(super) fn reset_deadline(&mut self) {
        self.next_deadline = i64::MIN;
    }

    fn first_deadline(&self, now: i64) -> i64 {
        let sessions = self
            .groups
            .values()
            .filter_map(|group| group.deadline(self.background_heartbeats));
        let transactions = self.state.transactional.values().filter_map(|one| {
            one.open
                .as_ref()
                .map(|open| open.started.saturating_add(one.timeout_ms))
        });
        let first = sessions.chain(transactions).min().unwrap_or(i64::MAX);
        // One that is due and still there could not be written.
        if first < now {
            now.saturating_add(RETRY_INTERVAL_MS)
        } else {
            first.saturating_add(1)
        }
    }

    fn expire_sessions(&mut self, now: i64) {
        let background = self.background_heartbeats;
        let mut expired = Vec::new();
        for (name, group) in &mut self.groups {
            if group.expire(now, background) {
                expired.push(name.clone());
            }
        }
        for group in expired {
            tracing::debug!(%group, "a session of the group has timed out");
            self.wake_members();
        }
    }

    /// Aborts transactions that are open for too long, and fences their producers.
    fn expire_transactions(&mut self, now: i64) {
        let expired: Vec<String> = self
            .state
            .transactional
            .iter()
            .filter(|(_, one)| {
                one.open
                    .as_ref()
                    .is_some_and(|open| now > open.started.saturating_add(one.timeout_ms))
            })
            .map(|(id, _)| id.clone())
            .collect();
        for transactional_id in expired {
            tracing::warn!(transactional_id, "transaction has timed out and is aborted");
            if let Err(error) = self.fence(&transactional_id, None, now) {
                tracing::warn!(transactional_id, ?error, "time-out put off");
            }
        }
    }

    /// Applies retention and, where due or `forced`, compaction.
    ///
    /// # Errors
    /// [`ChangeError`]: what was not done is tried again later.
    pub(super) fn maintain(&mut self, now: i64, forced: bool) -> Result<(), ChangeError> {
        let mut changes = Vec::new();
        for (name, topic) in &self.state.topics {
            for (number, partition) in (0_i32..).zip(&topic.partitions) {
                if let Some(start) = partition.retention_start(&topic.config, now) {
                    let partition = TopicPartition::new(TopicName::clone(name), number);
                    changes.push(Mutation::StartAdvanced { partition, start });
                }
            }
        }
        for change in std::mem::take(&mut changes) {
            self.change(change)?;
        }
        for (name, topic) in &self.state.topics {
            changes.extend(compactions(name, topic, now, forced));
        }
        for change in changes {
            self.change(change)?;
        }
        Ok(())
    }

    /// Creates a topic unless it exists.
    ///
    /// # Errors
    /// [`LogError::Fatal`] for a specification that cannot be.
    pub(super) fn create_topic(&mut self, spec: &TopicSpec, id: [u8; 16]) -> Result<(), LogError> {
        const OPERATION: &str = "create topic";
        let refuse = |message| LogError::Fatal {
            operation: OPERATION,
            message,
        };
        if self.state.topics.contains_key(&spec.name) {
            return Ok(());
        }
        if spec.partitions < 1 {
            return Err(refuse(format!(
                "`{}` needs at least one partition",
                spec.name
            )));
        }
        super::config::TopicConfig::parse(&spec.config)
            .map_err(|message| refuse(format!("`{}`: {message}", spec.name)))?;
        self.change(Mutation::TopicCreated {
            name: TopicName::clone(&spec.name),
            id,
            partitions: spec.partitions,
            config: spec.config.clone(),
        })
        .map_err(|error| error.into_log_error(OPERATION))?;
        self.topic_changed(&spec.name);
        Ok(())
    }

    /// Deletes a topic if it exists.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(super) fn delete_topic(&mut self, name: &str) -> Result<(), LogError> {
        let Some((name, _)) = self.state.topics.get_key_value(name) else {
            return Ok(());
        };
        let name = TopicName::clone(name);
        self.change(Mutation::TopicDeleted {
            name: TopicName::clone(&name),
        })
        .map_err(|error| error.into_log_error("delete topic"))?;
        self.topic_changed(&name);
        for watchers in self
            .watchers
            .iter()
            .filter(|(partition, _)| partition.topic == name)
            .map(|(_, watchers)| watchers)
        {
            watchers.iter().for_each(|(_, waker)| waker.wake());
        }
        Ok(())
    }

    /// Deletes records below an offset, at most up to the high watermark.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::OffsetOutOfRange`].
    pub(super) fn delete_records(
        &mut self,
        partition: &TopicPartition,
        below: Offset,
    ) -> Result<(), LogError> {
        let source = self
            .state
            .partition(&partition.topic, partition.partition)
            .ok_or_else(|| LogError::UnknownTopic {
                topic: partition.topic.to_string(),
            })?;
        let range = source.range(Isolation::ReadUncommitted);
        if below > range.end {
            let partition = partition.clone();
            return Err(LogError::OffsetOutOfRange {
                partition,
                offset: below,
            });
        }
        if below <= range.start {
            return Ok(());
        }
        self.change(Mutation::StartAdvanced {
            partition: partition.clone(),
            start: below,
        })
        .map_err(|error| error.into_log_error("delete records"))
    }

    /// Sets offsets of a group without members.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when it has members.
    pub(super) fn alter_offsets(
        &mut self,
        group: &str,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<(), LogError> {
        const OPERATION: &str = "alter group offsets";
        let members = self
            .groups
            .get(group)
            .map_or(0, |group| group.members.len());
        if members > 0 {
            let message = format!("group `{group}` has {members} members");
            return Err(LogError::Fatal {
                operation: OPERATION,
                message,
            });
        }
        self.change(Mutation::OffsetsSet {
            group: group.to_owned(),
            offsets: offsets.iter().cloned().collect(),
        })
        .and_then(|()| self.flush())
        .map_err(|error| error.into_log_error(OPERATION))
    }

    /// Notes that a member's client is gone without having left.
    pub(super) fn disconnect(&mut self, group: &str, member: MemberId) {
        let heartbeat = self.background_heartbeats.then(|| self.clock.now_ms());
        if let Some(group) = self.groups.get_mut(group) {
            group.disconnected(member, heartbeat);
            self.reset_deadline();
        }
    }

    /// Returns a topic's number of partitions.
    pub(super) fn partitions_of(&self, topic: &str) -> Option<i32> {
        let topic = self.state.topics.get(topic)?;
        i32::try_from(topic.partitions.len()).ok()
    }

    fn topic_changed(&mut self, name: &str) {
        let now = self.clock.now_ms();
        let mut concerned = false;
        for group in self.groups.values_mut() {
            concerned |= group.topic_changed(name, now);
        }
        if concerned {
            self.reset_deadline();
            self.wake_members();
        }
    }

    /// Returns the number of partitions of every topic.
    pub(super) fn partition_counts(&self) -> BTreeMap<TopicName, i32> {
        self.state
            .topics
            .iter()
            .map(|(name, topic)| {
                let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                (TopicName::clone(name), count)
            })
            .collect()
    }

    /// Returns a member's group, with the member noted as alive.
    pub(super) fn group_of(&mut self, group: &str, member: MemberId, now: i64) -> &mut Group {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.to_owned(), Group::default());
        }
        let group = self.groups.entry(group.to_owned()).or_default();
        group.touch(member, now);
        group
    }

    /// Registers a client to be woken when a partition changes.
    pub(super) fn watch(
        &mut self,
        client: ClientId,
        partition: TopicPartition,
        waker: &ConsumerWaker,
    ) {
        let watchers = self.watchers.entry(partition).or_default();
        if watchers.iter().all(|(one, _)| *one != client) {
            watchers.push((client, waker.clone()));
        }
    }

    /// Takes a client's registration back.
    pub(super) fn unwatch(&mut self, client: ClientId, partition: &TopicPartition) {
        if let Some(watchers) = self.watchers.get_mut(partition) {
            watchers.retain(|(one, _)| *one != client);
            if watchers.is_empty() {
                self.watchers.remove(partition);
            }
        }
    }

    /// Registers a consumer to be woken when its group changes.
    pub(super) fn watch_groups(&mut self, client: ClientId, waker: &ConsumerWaker) {
        self.members.insert(client, waker.clone());
    }

    /// Takes all registrations of a client back.
    pub(super) fn forget_client(&mut self, client: ClientId) {
        self.members.remove(&client);
        self.watchers.retain(|_, watchers| {
            watchers.retain(|(one, _)| *one != client);
            !watchers.is_empty()
        });
    }

    /// Wakes those who read `partition`.
    pub(super) fn wake_readers(&self, partition: &TopicPartition) {
        for (_, waker) in self.watchers.get(partition).into_iter().flatten() {
            waker.wake();
        }
    }

    /// Wakes all group members: rare, and few.
    pub(super) fn wake_members(&self) {
        for waker in self.members.values() {
            waker.wake();
        }
    }
}

fn compactions(
    name: &TopicName,
    topic: &Topic,
    now: i64,
    forced: bool,
) -> impl Iterator<Item = Mutation> {
    let config = &topic.config;
    (0_i32..)
        .zip(&topic.partitions)
        .filter(|_| config.compact)
        .filter(move |(_, partition)| forced || compaction::is_due(partition, config, now))
        .filter_map(move |(number, partition)| {
            let plan = compaction::plan(partition, config, now)?;
            Some(Mutation::Compacted {
                partition: TopicPartition::new(TopicName::clone(name), number),
                removed: plan.removed,
                horizons: plan.horizons,
                horizon: now.saturating_add(config.delete_retention_ms),
                to: plan.to,
            })
        })
}
