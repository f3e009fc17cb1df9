//! The embedded log's group member.
//!
//! A consumer that is dropped is a killed one: it stays a member until its session times out, or a
//! new one takes over its `group.instance.id`. Under virtual time its session counts from its last
//! call; under real time the heartbeats of a living client are implied, as librdkafka sends them
//! from a thread of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::coordinator::EmbeddedGroupMetadata;
use super::core::ClientId;
use super::faults::{Fault, FaultPoint};
use super::group::{MemberId, Refusal};
use super::producer::{injected_retriable, member_error};
use super::record::EmbeddedMessage;
use super::{EmbeddedLog, fetch};
use crate::log::{
    CommittedOffset, ConsumerSpec, ConsumerWaker, Isolation, LogConsumer, LogError,
    MembershipEvent, Offset, TopicName, TopicPartition,
};

/// A group member of the embedded log.
#[derive(Debug)]
pub struct EmbeddedConsumer {
    log: EmbeddedLog,
    spec: ConsumerSpec,
    client: ClientId,
    member: Option<MemberId>,
    /// The generation at the last poll.
    generation: i32,
    /// An `Assigned`, possibly empty, was delivered since the last join.
    has_assignment: bool,
    topics: Vec<TopicName>,
    /// What the group has given to this member, by its own account.
    owned: BTreeSet<TopicPartition>,
    /// What was lost and not yet unassigned.
    lost: Option<BTreeSet<TopicPartition>>,
    revoked: BTreeSet<TopicPartition>,
    positions: BTreeMap<TopicPartition, Offset>,
    waker: ConsumerWaker,
}

impl EmbeddedConsumer {
    pub(super) fn new(log: EmbeddedLog, spec: ConsumerSpec) -> Self {
        let waker = ConsumerWaker::default();
        let client = {
            let mut core = log.core();
            let client = core.next_client();
            core.watch_groups(client, &waker);
            client
        };
        Self {
            log,
            spec,
            client,
            member: None,
            generation: 0,
            has_assignment: false,
            topics: Vec::new(),
            owned: BTreeSet::new(),
            lost: None,
            revoked: BTreeSet::new(),
            positions: BTreeMap::new(),
            waker,
        }
    }

    fn fault(&self, point: FaultPoint, partition: Option<&TopicPartition>) -> Option<Fault> {
        self.log.fault(point, &self.spec.client_id, None, partition)
    }

    /// Becomes a member, under a new id.
    fn join(&mut self) {
        let mut core = self.log.core();
        let now = core.tick();
        let member = core.next_client();
        core.group_of(&self.spec.group, member, now)
            .join(member, &self.spec, &self.topics, now);
        core.reset_deadline();
        core.wake_members();
        self.member = Some(member);
    }

    /// The group does not know this member any more: what it had is lost.
    fn drop_out(&mut self) -> Option<MembershipEvent> {
        self.member = None;
        self.has_assignment = false;
        let lost = std::mem::take(&mut self.owned);
        self.revoked.clear();
        if lost.is_empty() {
            return None;
        }
        let event = MembershipEvent::Lost(lost.iter().cloned().collect());
        self.lost = Some(lost);
        Some(event)
    }

    fn next_event(&mut self, member: MemberId) -> Result<Option<MembershipEvent>, LogError> {
        let polled = {
            let mut core = self.log.core();
            let now = core.tick();
            let preparing = core
                .groups
                .get(&self.spec.group)
                .is_some_and(super::group::Group::is_preparing);
            // Only the poll that ends a rebalance looks at them.
            let partitions = if preparing {
                core.partition_counts()
            } else {
                BTreeMap::new()
            };
            let group = core.group_of(&self.spec.group, member, now);
            match group.check_member(member, self.spec.group_instance_id.as_deref()) {
                Err(refusal) => Err(refusal),
                Ok(_) => {
                    let generation = group.generation;
                    let event = group.poll(member, &partitions);
                    let group_generation = group.generation;
                    if group_generation != generation {
                        core.reset_deadline();
                        core.wake_members();
                    }
                    Ok((group_generation, event))
                }
            }
        };
        match polled {
            Ok((generation, event)) => {
                self.generation = generation;
                match &event {
                    Some(MembershipEvent::Assigned(added)) => {
                        self.has_assignment = true;
                        self.owned.extend(added.iter().cloned());
                    }
                    Some(MembershipEvent::Revoked(revoked)) => {
                        self.revoked = revoked.iter().cloned().collect();
                    }
                    Some(MembershipEvent::Lost(_)) | None => {}
                }
                Ok(event)
            }
            Err(Refusal::Fenced) => {
                self.has_assignment = false;
                Err(member_error("poll membership", Refusal::Fenced).0)
            }
            Err(Refusal::Unknown | Refusal::Generation(_)) => Ok(self.drop_out()),
        }
    }
}

impl LogConsumer for EmbeddedConsumer {
    type Message = EmbeddedMessage;
    type GroupMetadata = EmbeddedGroupMetadata;

    fn subscribe(&mut self, topics: &[TopicName]) -> Result<(), LogError> {
        self.topics = topics.to_vec();
        match self.member {
            None => self.join(),
            Some(member) => {
                let mut core = self.log.core();
                let now = core.tick();
                let group = core.group_of(&self.spec.group, member, now);
                if group.check_member(member, None).is_ok() {
                    group.join(member, &self.spec, &self.topics, now);
                    core.wake_members();
                }
            }
        }
        Ok(())
    }

    fn poll_membership(&mut self) -> Result<Option<MembershipEvent>, LogError> {
        if self.lost.is_some() || self.topics.is_empty() {
            return Ok(None);
        }
        if let Some(member) = self.member {
            let event = self.next_event(member)?;
            if event.is_some() || self.member.is_some() {
                return Ok(event);
            }
        }
        self.join();
        match self.member {
            Some(member) => self.next_event(member),
            None => Ok(None),
        }
    }

    fn assign(&mut self, from: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        let mut core = self.log.core();
        let now = core.tick();
        for (partition, offset) in from {
            core.watch(self.client, partition.clone(), &self.waker);
            self.positions.insert(partition.clone(), *offset);
        }
        if let Some(member) = self.member {
            core.group_of(&self.spec.group, member, now)
                .assign_answered(member);
        }
        if !from.is_empty() {
            self.waker.wake();
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let mut core = self.log.core();
        let now = core.tick();
        for partition in partitions {
            core.unwatch(self.client, partition);
            self.positions.remove(partition);
            if self.revoked.remove(partition) {
                self.owned.remove(partition);
            }
        }
        if let Some(lost) = &mut self.lost {
            lost.retain(|partition| !partitions.contains(partition));
            if lost.is_empty() {
                self.lost = None;
            }
        }
        if let Some(member) = self.member
            && core
                .group_of(&self.spec.group, member, now)
                .unassigned(member, partitions, now)
        {
            core.wake_members();
        }
        Ok(())
    }

    fn poll(
        &mut self,
        partition: &TopicPartition,
        max: usize,
        into: &mut VecDeque<EmbeddedMessage>,
    ) -> Result<usize, LogError> {
        const OPERATION: &str = "poll";
        let Some(position) = self.positions.get(partition).copied() else {
            let message = format!("{partition} is not assigned");
            return Err(LogError::Fatal {
                operation: OPERATION,
                message,
            });
        };
        match self.fault(FaultPoint::Fetch, Some(partition)) {
            None => {}
            Some(_) => return Err(injected_retriable(OPERATION)),
        }
        let mut core = self.log.core();
        let now = core.tick();
        if let Some(member) = self.member {
            core.group_of(&self.spec.group, member, now)
                .touch(member, now);
        }
        let fetched = fetch(
            &core,
            partition,
            position,
            max,
            Isolation::ReadCommitted,
            |message| {
                into.push_back(message);
            },
        )?;
        self.positions.insert(partition.clone(), fetched.position);
        Ok(fetched.count)
    }

    fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.positions.get(partition).copied()
    }

    fn wait(&mut self, timeout: Duration) {
        {
            let mut core = self.log.core();
            let now = core.tick();
            if let Some(member) = self.member {
                core.group_of(&self.spec.group, member, now)
                    .touch(member, now);
            }
            let readable = self.positions.iter().any(|(partition, position)| {
                core.state
                    .partition(&partition.topic, partition.partition)
                    .is_none_or(|one| one.is_readable(*position))
            });
            if readable || self.log.is_virtual() {
                // What woke it is served by the calls that follow.
                let _woken = self.waker.wait(Duration::ZERO);
                return;
            }
        }
        let _woken = self.waker.wait(timeout);
    }

    fn waker(&self) -> ConsumerWaker {
        self.waker.clone()
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        match self.positions.get_mut(partition) {
            Some(position) => {
                *position = offset;
                self.waker.wake();
                Ok(())
            }
            None => Err(LogError::Fatal {
                operation: "seek",
                message: format!("{partition} is not assigned"),
            }),
        }
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, LogError> {
        match self.fault(FaultPoint::Committed, None) {
            None => self
                .log
                .stable_offsets("committed", &self.spec.group, partitions),
            Some(_) => Err(injected_retriable("committed")),
        }
    }

    fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.positions.get(partition)?;
        let core = self.log.core();
        core.state
            .partition(&partition.topic, partition.partition)
            .map(super::partition::Partition::high_watermark)
    }

    fn group_metadata(&self) -> Result<EmbeddedGroupMetadata, LogError> {
        const OPERATION: &str = "group metadata";
        let Some(member) = self.member else {
            return Err(member_error(OPERATION, Refusal::Unknown).0);
        };
        let current = {
            let core = self.log.core();
            core.groups
                .get(&self.spec.group)
                .filter(|group| group.check_member(member, None).is_ok())
                .map(|group| group.generation)
        };
        // One that was dropped or fenced and has not been told has what it last knew, as in Kafka:
        // the commit is refused.
        Ok(EmbeddedGroupMetadata {
            group: self.spec.group.clone(),
            member,
            instance: self.spec.group_instance_id.clone(),
            generation: current.unwrap_or(self.generation),
        })
    }

    fn is_member(&self) -> bool {
        self.member.is_some() && self.has_assignment
    }

    fn leave(&mut self) -> Result<(), LogError> {
        let mut core = self.log.core();
        let now = core.tick();
        if let Some(member) = self.member.take() {
            core.group_of(&self.spec.group, member, now)
                .remove(member, now);
            core.wake_members();
        }
        for partition in std::mem::take(&mut self.positions).into_keys() {
            core.unwatch(self.client, &partition);
        }
        self.has_assignment = false;
        self.topics.clear();
        self.owned.clear();
        self.revoked.clear();
        self.lost = None;
        Ok(())
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        let mut core = self.log.core();
        core.forget_client(self.client);
        if let Some(member) = self.member {
            core.disconnect(&self.spec.group, member);
        }
    }
}
