//! What the group gives and takes. The client's callbacks only record facts; this acts on them.

use std::collections::BTreeSet;

use super::StreamThread;
use super::slot::{Created, Slot, StartOffset};
use crate::clock::Timestamp;
use crate::log::{
    GroupMember, Isolation, Log, LogConsumer, LogError, MembershipEvent, Offset, TopicName,
    TopicPartition,
};
use crate::runtime::error::Fault;
use crate::runtime::protocol::TransactionEvent;
use crate::runtime::{CrashPoint, Membership};
use crate::topology::TaskId;

/// Whether an empty assignment is final, as far as the thread knows.
///
/// The group hands partitions over in two rounds: a new member's first assignment lacks those that
/// their owners still have to give up, and says nothing of more to come. So an empty one may mean
/// that there are more threads than partitions, or that the partitions are on their way. The
/// difference is whether somebody owns every partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum NothingToOwn {
    /// Not known: something has changed since it was.
    #[default]
    Unknown,
    /// Asked, and there was a partition without an owner; asked again at this time.
    NotBefore(Timestamp),
    /// Others own every partition.
    Confirmed,
}

/// How often a thread without partitions asks who has them, while it is not ready.
const CONFIRM_EVERY_MS: i64 = 500;

impl<L: Log> StreamThread<L> {
    /// Returns where the thread stands, for health checks.
    pub(super) fn membership(&self) -> Membership {
        if !self.consumer.is_member() {
            return Membership::Outside;
        }
        let taken_over = self.events.is_empty() && self.reopen.is_empty();
        let owns = !self.slots.is_empty() || self.nothing_to_own == NothingToOwn::Confirmed;
        if taken_over && owns {
            Membership::Assigned
        } else {
            Membership::Waiting
        }
    }

    /// Asks the group whether a member without partitions is to stay without. Readiness alone
    /// depends on the answer: a failure to ask is no fault.
    pub(super) fn confirm_empty_assignment(&mut self, now: Timestamp) {
        let due = match self.nothing_to_own {
            NothingToOwn::Unknown => true,
            NothingToOwn::NotBefore(time) => time <= now,
            NothingToOwn::Confirmed => false,
        };
        if !due || self.stopping || !self.slots.is_empty() || !self.consumer.is_member() {
            return;
        }
        self.nothing_to_own = match self
            .spec
            .log
            .group_members(&self.spec.config.application_id)
        {
            Ok(members) if self.all_owned(&members) => NothingToOwn::Confirmed,
            Ok(_) => NothingToOwn::NotBefore(now.saturating_add(CONFIRM_EVERY_MS)),
            Err(error) => {
                tracing::debug!(thread = %self.id, %error, "cannot ask who owns the partitions");
                NothingToOwn::NotBefore(now.saturating_add(CONFIRM_EVERY_MS))
            }
        };
    }

    fn all_owned(&self, members: &[GroupMember]) -> bool {
        let owned: BTreeSet<&TopicPartition> =
            members.iter().flat_map(|it| &it.assignment).collect();
        self.spec.topology.all().all(|sub| {
            (0..sub.topics.tasks).all(|partition| {
                owned.contains(&TopicPartition::new(
                    TopicName::clone(&sub.topics.driver),
                    partition,
                ))
            })
        })
    }

    pub(super) fn poll_membership(&mut self) -> Result<(), Fault> {
        while let Some(event) = self.consumer.poll_membership().map_err(fenced_instance)? {
            tracing::debug!(thread = %self.id, ?event, "membership");
            self.meters.rebalances.inc();
            self.nothing_to_own = NothingToOwn::Unknown;
            self.events.push_back(event);
        }
        Ok(())
    }

    /// Answers events in order. One whose time has not come yet stays, with all after it.
    pub(super) fn answer_membership(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let mut answered = false;
        while let Some(event) = self.events.front().cloned() {
            match event {
                MembershipEvent::Assigned(partitions) => self.take_over(&partitions)?,
                MembershipEvent::Revoked(partitions) => {
                    // ORDER: commit, close, and only then let the next owner begin.
                    self.commit(now)?;
                    if !self.transaction.may_change_tasks() {
                        return Ok(answered);
                    }
                    self.give_back(&partitions, true)?;
                }
                MembershipEvent::Lost(partitions) => {
                    // The partitions have an owner already, who may have read further: what this
                    // thread did for them must not be committed.
                    if self.transaction.may_abort() {
                        self.transition(TransactionEvent::AbortDecided)?;
                        self.abort(now)?;
                        self.rewind_tasks(now)?;
                    }
                    if !self.transaction.may_change_tasks() {
                        return Ok(answered);
                    }
                    self.meters.losses.inc();
                    self.give_back(&partitions, false)?;
                }
            }
            self.events.pop_front();
            answered = true;
        }
        Ok(answered)
    }

    /// The tasks of driver partitions. There is none without an input: nothing would fence its
    /// transactions, and Kafka Streams has none either while no topic matches a pattern.
    fn tasks_of(&self, partitions: &[TopicPartition]) -> BTreeSet<TaskId> {
        let mut tasks = BTreeSet::new();
        for partition in partitions {
            let driven = self.spec.topology.all();
            let driven = driven.filter(|sub| sub.topics.driver == partition.topic);
            tasks.extend(driven.map(|sub| TaskId {
                sub_topology: sub.topics.id,
                partition: partition.partition,
            }));
        }
        tasks.retain(|task| !self.spec.topology.inputs(*task).is_empty());
        tasks
    }

    /// Those of `drivers` that no task reads: the partitions of a pattern's driver topic. The client has
    /// them all the same, or a revocation of such a one would stay without its answer.
    fn silent(&self, drivers: &[TopicPartition]) -> Vec<TopicPartition> {
        let subs = self.spec.topology.all();
        let silent: BTreeSet<&str> = subs
            .filter(|sub| sub.drawn.pattern_driver().is_some())
            .map(|sub| &*sub.topics.driver)
            .collect();
        let drivers = drivers.iter();
        drivers
            .filter(|driver| silent.contains(&*driver.topic))
            .cloned()
            .collect()
    }

    fn take_over(&mut self, drivers: &[TopicPartition]) -> Result<(), Fault> {
        let silent = self.silent(drivers).into_iter();
        let mut assignment: Vec<(TopicPartition, Offset)> =
            silent.map(|driver| (driver, 0)).collect();
        let mut created = Vec::new();
        for task in self.tasks_of(drivers) {
            let inputs = self.spec.topology.inputs(task);
            let partitions: Vec<TopicPartition> = inputs
                .iter()
                .map(|(partition, _)| partition.clone())
                .collect();
            let starts = self.start_offsets(&partitions)?;
            assignment.extend(
                partitions
                    .into_iter()
                    .zip(starts.iter().map(|start| start.offset)),
            );
            created.push((
                task,
                Created {
                    inputs,
                    starts: Some(starts),
                    not_before: 0,
                    assigned_at: self.spec.clock.now_ms(),
                },
            ));
        }
        self.spec.probe.reached(CrashPoint::BeforeTakeover)?;
        self.consumer.assign(&assignment)?;
        self.owned.extend(drivers.iter().cloned());
        for (task, slot) in created {
            tracing::info!(thread = %self.id, %task, "task assigned");
            self.slots.insert(task, Slot::Created(slot));
        }
        Ok(())
    }

    /// Where to start reading: the stable committed offsets, or the log's start where there is none.
    pub(super) fn start_offsets(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<StartOffset>, Fault> {
        let committed = self.consumer.committed(partitions)?;
        let ranges = if committed.iter().any(Option::is_none) {
            self.spec
                .log
                .log_ranges(partitions, Isolation::ReadUncommitted)?
        } else {
            Vec::new()
        };
        Ok(committed
            .into_iter()
            .enumerate()
            .map(|(index, committed)| {
                let log = ranges.get(index).copied();
                let first = log.map_or(0, |range| range.start);
                StartOffset {
                    offset: committed.as_ref().map_or(first, |it| it.offset),
                    log: log.filter(|_| committed.is_none()),
                    committed,
                }
            })
            .collect())
    }

    pub(super) fn give_back(
        &mut self,
        partitions: &[TopicPartition],
        clean: bool,
    ) -> Result<(), Fault> {
        let mut inputs = self.silent(partitions);
        for task in self.tasks_of(partitions) {
            let of_task = self.spec.topology.inputs(task);
            inputs.extend(of_task.into_iter().map(|(partition, _)| partition));
            if clean {
                self.close_clean(task)?;
            } else {
                self.close_dirty(task);
            }
            tracing::info!(thread = %self.id, %task, clean, "task given back");
        }
        match self.consumer.unassign(&inputs) {
            Ok(()) | Err(LogError::MemberUnknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.owned.retain(|driver| !partitions.contains(driver));
        Ok(())
    }
}

/// A membership that is fenced is another process under this one's identity, whatever the log calls the
/// operation: to take the identity back would make two processes fence each other for ever.
fn fenced_instance(error: LogError) -> Fault {
    match error {
        LogError::Fenced { message, .. } => Fault::FencedInstance(message),
        other @ (LogError::Retriable { .. }
        | LogError::AbortRequired { .. }
        | LogError::UnknownOutcome { .. }
        | LogError::MemberUnknown { .. }
        | LogError::OffsetOutOfRange { .. }
        | LogError::UnknownTopic { .. }
        | LogError::RecordTooLarge { .. }
        | LogError::RecordRefused { .. }
        | LogError::OffsetMetadataTooLarge { .. }
        | LogError::Fatal { .. }) => other.into(),
    }
}
