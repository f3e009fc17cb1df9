//! What the group gives and takes. The client's callbacks only record facts; this acts on them.

use std::collections::BTreeSet;

use super::{Slot, StreamThread};
use crate::clock::Timestamp;
use crate::log::{Isolation, Log, LogConsumer, LogError, MembershipEvent, TopicPartition};
use crate::runtime::CrashPoint;
use crate::runtime::error::Fault;
use crate::runtime::protocol::TransactionEvent;
use crate::runtime::stream_thread::open::{Created, StartOffset};
use crate::topology::TaskId;

impl<L: Log> StreamThread<L> {
    pub(super) fn poll_membership(&mut self) -> Result<(), Fault> {
        while let Some(event) = self.consumer.poll_membership().map_err(fenced_instance)? {
            tracing::debug!(thread = %self.id, ?event, "membership");
            self.meters.rebalances.inc();
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
                    self.give_back(&partitions, false)?;
                }
            }
            self.events.pop_front();
            answered = true;
        }
        Ok(answered)
    }

    /// The tasks of driver partitions: sub-topology index and task.
    fn tasks_of(&self, partitions: &[TopicPartition]) -> Vec<(usize, TaskId)> {
        let mut tasks: BTreeSet<(usize, TaskId)> = BTreeSet::new();
        for partition in partitions {
            for (index, sub) in self.spec.topology.sub_topologies.iter().enumerate() {
                if sub.driver == partition.topic {
                    let task = TaskId {
                        sub_topology: sub.id,
                        partition: partition.partition,
                    };
                    tasks.insert((index, task));
                }
            }
        }
        tasks.into_iter().collect()
    }

    fn take_over(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        let mut assignment = Vec::new();
        let mut created = Vec::new();
        for (sub_index, task) in self.tasks_of(partitions) {
            let inputs = self.spec.topology.inputs(sub_index, task.partition);
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
                    sub_index,
                    inputs,
                    starts: Some(starts),
                    not_before: 0,
                },
            ));
        }
        self.spec.probe.reached(CrashPoint::BeforeTakeover)?;
        self.consumer.assign(&assignment)?;
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
            .map(|(index, committed)| StartOffset {
                offset: committed.as_ref().map_or_else(
                    || ranges.get(index).map_or(0, |range| range.start),
                    |committed| committed.offset,
                ),
                committed,
            })
            .collect())
    }

    fn give_back(&mut self, partitions: &[TopicPartition], clean: bool) -> Result<(), Fault> {
        let mut inputs = Vec::new();
        for (sub_index, task) in self.tasks_of(partitions) {
            let of_task = self.spec.topology.inputs(sub_index, task.partition);
            inputs.extend(of_task.into_iter().map(|(partition, _)| partition));
            if clean {
                self.close_clean(task)?;
            } else {
                self.close_dirty(task);
            }
            tracing::info!(thread = %self.id, %task, clean, "task given back");
        }
        match self.consumer.unassign(&inputs) {
            Ok(()) | Err(LogError::MemberUnknown { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
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
        | LogError::Fatal { .. }) => other.into(),
    }
}
