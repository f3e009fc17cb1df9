//! Which tasks may take records: task idling (KIP-695).
//!
//! [`PartitionGroup::processable`] decides; this tells it whether an empty partition has been read to the
//! log's end. The client's high watermark answers as a rule. It does not where it is unknown yet, and
//! where an open transaction lies behind the position, whose records nobody may read: then the broker is
//! asked for the last stable offset, for all such partitions at once.
//! # Invariants
//! - The stream thread does not wait for the answer: a partition without a leader would hold up the open
//!   transaction of all the others until the broker gives it up. Simulation asks inline.
//!
//! [`PartitionGroup::processable`]: crate::runtime::PartitionGroup

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use super::StreamThread;
use super::slot::Slot;
use crate::clock::Timestamp;
use crate::log::{ConsumerWaker, Isolation, Log, LogConsumer, LogError, Offset, TopicPartition};
use crate::runtime::partition_group::Processable;
use crate::runtime::task::Progress;
use crate::topology::TaskId;

/// How old an answer is before the broker is asked again.
const ASK_EVERY_MS: i64 = 100;
/// How old it may get while the next one is on its way.
const ANSWER_MAX_MS: i64 = 1_000;
/// The pause after a question that was not answered.
const PAUSE_MS: i64 = 1_000;

type Answer = Result<Vec<(TopicPartition, Offset)>, LogError>;

/// Last stable offsets, as far as they were asked for, and when the answers came.
#[derive(Debug, Default)]
pub(super) struct KnownEnds {
    known: BTreeMap<TopicPartition, (Timestamp, Offset)>,
    /// What to ask for next.
    wanted: BTreeSet<TopicPartition>,
    /// The answer that is on its way.
    answer: Option<Receiver<Answer>>,
    /// No question before this time.
    not_before: Timestamp,
}

impl KnownEnds {
    /// Returns whether a reader of committed records at `position` has read all there is, as far as is
    /// known.
    fn reached(&mut self, partition: &TopicPartition, position: Offset, now: Timestamp) -> bool {
        let known = self.known.get(partition);
        let within = |limit: i64| known.filter(|(at, _)| now < at.saturating_add(limit));
        if within(ASK_EVERY_MS).is_none() {
            self.wanted.insert(partition.clone());
        }
        within(ANSWER_MAX_MS).is_some_and(|(_, end)| position >= *end)
    }

    fn take_answer(&mut self, now: Timestamp) {
        let Some(answer) = &self.answer else { return };
        match answer.try_recv() {
            Ok(answer) => self.note(answer, now),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                self.answer = None;
                self.not_before = now.saturating_add(PAUSE_MS);
            }
        }
    }

    fn note(&mut self, answer: Answer, now: Timestamp) {
        self.answer = None;
        match answer {
            Ok(ends) => {
                let ends = ends.into_iter().map(|(at, end)| (at, (now, end)));
                self.known.extend(ends);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot ask for the ends of partitions");
                self.not_before = now.saturating_add(PAUSE_MS);
            }
        }
    }

    /// Asks for what is wanted, unless an answer is on its way; returns whether it has come already.
    fn ask<L: Log>(&mut self, log: &L, waker: Option<ConsumerWaker>, now: Timestamp) -> bool {
        let wanted: Vec<_> = std::mem::take(&mut self.wanted).into_iter().collect();
        if wanted.is_empty() || self.answer.is_some() || now < self.not_before {
            return false;
        }
        let Some(waker) = waker else {
            self.note(ask(log, wanted), now);
            return true;
        };
        let (sender, receiver) = channel();
        let log = log.clone();
        let spawned = std::thread::Builder::new()
            .name("millstream-ends".to_owned())
            .spawn(move || {
                // Nobody waits for it once the stream thread has gone.
                drop(sender.send(ask(&log, wanted)));
                waker.wake();
            });
        match spawned {
            Ok(_) => self.answer = Some(receiver),
            Err(error) => {
                tracing::warn!(%error, "cannot start a thread to ask for the ends of partitions");
                self.not_before = now.saturating_add(PAUSE_MS);
            }
        }
        false
    }
}

fn ask(log: &impl Log, partitions: Vec<TopicPartition>) -> Answer {
    let ranges = log.log_ranges(&partitions, Isolation::ReadCommitted)?;
    let ends = ranges.into_iter().map(|range| range.end);
    Ok(partitions.into_iter().zip(ends).collect())
}

impl<L: Log> StreamThread<L> {
    /// Returns the running tasks that may take their next record.
    pub(super) fn processable_tasks(&mut self, now: Timestamp) -> Vec<TaskId> {
        self.ends.take_answer(now);
        let processable = self.look_at_inputs(now);
        let waker = (!self.spec.restores.is_inline()).then(|| self.consumer.waker());
        if self.ends.ask(&self.spec.log, waker, now) {
            return self.look_at_inputs(now);
        }
        processable
    }

    fn look_at_inputs(&mut self, now: Timestamp) -> Vec<TaskId> {
        let idle_max = self.spec.config.task_idle_max;
        let (consumer, ends) = (&self.consumer, &mut self.ends);
        let mut processable = Vec::new();
        self.idles_until = None;
        for (id, slot) in &mut self.slots {
            let Slot::Live(task) = slot else { continue };
            if task.progress != Progress::Running {
                continue;
            }
            let at_end = |partition: &TopicPartition, position: Offset| {
                let end = consumer.high_watermark(partition);
                end.is_some_and(|end| position >= end) || ends.reached(partition, position, now)
            };
            match task.group.processable(now, idle_max, at_end) {
                Processable::Yes => processable.push(*id),
                Processable::Waits(until) => {
                    let first = self.idles_until.map_or(until, |other| other.min(until));
                    self.idles_until = Some(first);
                }
                Processable::Empty => {}
            }
        }
        processable
    }
}
