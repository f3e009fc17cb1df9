//! A task: one partition of one sub-topology, with its chain, its buffers and its stores.
//!
//! # Position
//! Driven by its stream thread. Holds no producer: the thread lends its transaction.
//! # Invariants
//! - A record is atomic (invariant 5): its outputs reach the producer, and its writes join the
//!   overlay, only when the whole chain returned `Ok`.
//! - [`Task::prepare_commit`] and [`Task::finish_commit`] bracket the Kafka commit; the stores see
//!   the batch only in the latter (invariant 2).
//! # Failure
//! A [`Fault`] leaves the task as it was before the record; an aborted transaction rebuilds it.

mod commit;
mod heads;
mod lifecycle;

pub(crate) use lifecycle::TaskParts;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::dead_letter;
use super::error::{Fault, RecordCoordinates};
use super::meters::TaskMeters;
use super::partition_group::{PartitionGroup, Taken};
use super::suspects::{Refused, Suspects};
use super::{CrashPoint, PlantedBug, Probe, ResolvedTopology, SubTopologyRef, ThreadMemory};
use crate::clock::Timestamp;
use crate::log::{
    LogError, LogMessage, LogProducer, Offset, ProducerRecord, TopicName, TopicPartition,
};
use crate::metrics::Histogram;
use crate::processor::{
    ErrorPolicy, ProcessError, PunctuationType, RawRecord, RecordMetadata, Reject, Stage,
    TaskContext,
};
use crate::state::{GlobalStores, TaskDb};
use crate::topology::{TaskId, TaskTopology};

/// The largest record that is handed to the log: key, value and headers, in bytes. Topics, producer
/// and fetch limits are 16 MiB; the rest is room for batch overhead.
pub(crate) const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024 - 64 * 1024;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its processors are being initialised, starting with this one.
    Initialising(usize),
    /// It processes records.
    Running,
}

/// A record waits for its next attempt (`ErrorPolicy::Retry`).
#[derive(Debug, Clone)]
struct PendingRetry {
    at: RecordCoordinates,
    attempts: u32,
    not_before: Timestamp,
}

/// What became of a call to [`Task::process_next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Processed {
    /// A record was processed, skipped or dead-lettered.
    Record,
    /// There is none.
    Empty,
    /// The next one waits for a retry.
    NotYet(Timestamp),
}

/// A task that is restored.
pub(crate) struct Task<M> {
    pub(crate) id: TaskId,
    pub(crate) group: PartitionGroup<M>,
    pub(crate) db: TaskDb,
    pub(crate) progress: Progress,
    pub(crate) meters: TaskMeters,
    /// Reset generation: goes into every committed offset.
    pub(crate) generation: u64,
    pub(crate) committed_at: Timestamp,
    /// Outputs are in the open transaction.
    has_outputs: bool,
    /// A commit has come since a processor prepared something last.
    prepared: bool,
    /// The first commit writes every offset, unchanged ones too.
    offsets_written: bool,
    topology: Arc<ResolvedTopology>,
    chain: TaskTopology,
    cx: TaskContext,
    globals: GlobalStores,
    retry: Option<PendingRetry>,
    /// Records whose outputs the log refuses: met by policy on the next attempt.
    suspects: Suspects,
    /// A punctuator has fired since the last commit.
    punctuated: bool,
    /// The last record taken up since the last commit.
    in_hand: Option<RecordCoordinates>,
    /// By store: the next changelog offset that the stores do not have.
    changelog_offsets: BTreeMap<String, Offset>,
    /// What operators keep in the metadata of committed offsets, as of the last commit.
    committed_metadata: BTreeMap<Arc<str>, i64>,
}

impl<M> std::fmt::Debug for Task<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl<M: LogMessage> Task<M> {
    /// Returns how far each input has come since the last commit, the record in hand included; of a
    /// task that has taken up none, nothing.
    pub(crate) fn reached(&self) -> Vec<(TopicPartition, Offset)> {
        let Some(at) = &self.in_hand else {
            return Vec::new();
        };
        self.group
            .partitions
            .iter()
            .map(|input| {
                let in_hand = (input.partition == at.partition).then_some(at.offset + 1);
                let reached = in_hand.map_or(input.position, |next| next.max(input.position));
                (input.partition.clone(), input.committed, reached)
            })
            .filter(|(_, committed, reached)| reached > committed)
            .map(|(partition, _, reached)| (partition, reached))
            .collect()
    }

    /// Blames the last record taken up for a refusal; returns whether there is one.
    pub(crate) fn blame_in_hand(&mut self, refused: &Refused) -> bool {
        let Some(at) = self.in_hand.clone() else {
            return false;
        };
        tracing::warn!(task = %self.id, record = %at, error = %dead_letter::chain(&refused.error()), "the log refuses an output of this record");
        self.suspects.blame(at, refused.clone());
        true
    }

    fn sub_topology(&self) -> SubTopologyRef<'_> {
        sub_topology(&self.topology, self.id)
    }

    /// Processes the buffered record with the lowest timestamp.
    pub(crate) fn process_next<P: LogProducer>(
        &mut self,
        now: Timestamp,
        producer: &mut P,
        probe: &dyn Probe,
    ) -> Result<Processed, Fault> {
        if let Some(retry) = self.retry.as_ref().filter(|retry| retry.not_before > now) {
            return Ok(Processed::NotYet(retry.not_before));
        }
        self.look_at_heads(now);
        if self.group.ran_dry() && self.group.partitions.len() > 1 {
            // The first records of a partition were dropped: whether the others may go on without it is
            // to be decided anew.
            return Ok(Processed::Empty);
        }
        let Some(taken) = self.group.pop_lowest() else {
            return Ok(Processed::Empty);
        };
        let Taken {
            input: index,
            message,
            time,
        } = taken;
        let Some((source, at)) = self.group.partitions.get(index).map(|input| {
            let partition = input.partition.clone();
            (
                input.source,
                RecordCoordinates {
                    partition,
                    offset: message.offset(),
                },
            )
        }) else {
            return Ok(Processed::Empty);
        };
        probe.reached(CrashPoint::BeforeRecord)?;
        let headers = message.headers();
        let time = time.and_then(|time| self.valid_time(source, time));
        let event_time = time.as_ref().ok().copied();
        let raw = RawRecord {
            key: message.key(),
            value: message.value(),
            timestamp: event_time.unwrap_or_else(|| message.timestamp()),
            headers: &headers,
        };
        self.cx.set_system_time(now);
        self.in_hand = Some(at.clone());
        let result = time.and_then(|_| match self.suspects.error(&at) {
            Some(refused) => Err(refused),
            None => self.run_chain(source, &at, &raw),
        });
        let apart =
            probe.planted(PlantedBug::SubscriptionsApartFromOffsets) && self.has_subscriptions();
        match result {
            Ok(()) if apart => {
                self.release_record(producer)?;
                producer.commit_transaction()?;
                producer.begin_transaction()?;
            }
            Ok(()) => self.release_record(producer)?,
            Err(error) => {
                if !probe.planted(PlantedBug::FailedRecordKept) {
                    self.rollback();
                }
                match self.meet_policy((index, source), &at, &raw, error, now)? {
                    Met::Done => self.release_record(producer)?,
                    Met::Later(not_before) => {
                        if let Some(input) = self.group.partitions.get_mut(index) {
                            input.put_back(message);
                        }
                        return Ok(Processed::NotYet(not_before));
                    }
                }
            }
        }
        self.advance(index, &message, event_time);
        probe.reached(CrashPoint::AfterRecord)?;
        Ok(Processed::Record)
    }

    /// Whether the record in hand has sent subscriptions of a foreign-key join.
    fn has_subscriptions(&self) -> bool {
        let mut outputs = self.cx.outputs.iter();
        outputs.any(|output| output.topic.ends_with("-subscription-repartition"))
    }

    fn run_chain(
        &mut self,
        source: usize,
        at: &RecordCoordinates,
        raw: &RawRecord<'_>,
    ) -> Result<(), ProcessError> {
        let metadata = RecordMetadata {
            topic: TopicName::clone(&at.partition.topic),
            partition: at.partition.partition,
            offset: at.offset,
        };
        self.cx.begin_record(metadata, raw.timestamp);
        let Some(source) = self.chain.sources.get_mut(source) else {
            unreachable!("an input partition names a source of its sub-topology")
        };
        source.process(&mut self.cx, raw)?;
        match self
            .cx
            .outputs
            .iter()
            .find(|output| record_bytes(output) > RECORD_BYTES_MAX)
        {
            None => Ok(()),
            Some(output) => Err(ProcessError::Production {
                node: output.topic.to_string(),
                source: Box::new(Reject {
                    code: "RECORD_TOO_LARGE",
                    message: format!(
                        "an output for `{}` has {} bytes, more than {RECORD_BYTES_MAX}",
                        output.topic,
                        record_bytes(&output)
                    ),
                }),
            }),
        }
    }

    /// Moves past a record that is done; one without an event time leaves partition time as it is.
    fn advance(&mut self, index: usize, message: &M, event_time: Option<Timestamp>) {
        self.retry = None;
        if let Some(input) = self.group.partitions.get_mut(index) {
            assert!(
                message.offset() >= input.position,
                "{} delivered offset {} below position {}",
                input.partition,
                message.offset(),
                input.position
            );
            input.position = message.offset() + 1;
            input.time = input.time.max(event_time);
        }
        let bytes = message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len);
        // The latency counts from when the record was written, whatever its event time.
        self.meters.consumed(index, bytes, message.timestamp());
    }

    /// Hands the record's outputs to the producer and its writes to the transaction.
    fn release_record<P: LogProducer>(&mut self, producer: &mut P) -> Result<(), Fault> {
        match self.release(producer) {
            // The client's own refusal is of this record; a broker's may be the late answer to an
            // earlier one.
            Err(Fault::Log(error @ LogError::RecordTooLarge { .. })) => {
                let blamed = Refused::of(&error).is_some_and(|it| self.blame_in_hand(&it));
                Err(if blamed {
                    Fault::Blamed(error)
                } else {
                    error.into()
                })
            }
            other => other,
        }
    }

    /// Hands over what was staged. Where the producer refuses one output, others may be with it
    /// already: only an abort takes them back, so no refusal is left to be retried in place.
    fn release<P: LogProducer>(&mut self, producer: &mut P) -> Result<(), Fault> {
        for output in self.cx.outputs.iter() {
            match producer.send(output) {
                Ok(()) => {
                    self.meters.produced(&output);
                    self.has_outputs = true;
                }
                Err(LogError::Retriable { operation, message }) => {
                    return Err(LogError::AbortRequired { operation, message }.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        for store in &self.chain.stores {
            store.borrow_mut().release_savepoint();
        }
        for node in &self.chain.holding {
            node.borrow_mut().release_savepoint();
        }
        self.cx.release();
        Ok(())
    }

    fn rollback(&mut self) {
        for store in &self.chain.stores {
            store.borrow_mut().rollback_savepoint();
        }
        for node in &self.chain.holding {
            node.borrow_mut().rollback_savepoint();
        }
        self.cx.rollback();
    }

    fn fail(&mut self, at: Option<RecordCoordinates>, source: ProcessError) -> Fault {
        self.rollback();
        match source {
            ProcessError::State(source) => Fault::State {
                task: self.id,
                source,
            },
            ProcessError::Deserialization { .. }
            | ProcessError::Processing { .. }
            | ProcessError::Production { .. } => Fault::Processing {
                task: self.id,
                at,
                source,
            },
        }
    }

    /// Decides about a record whose chain failed and was rolled back.
    fn meet_policy(
        &mut self,
        (input, source): (usize, usize),
        at: &RecordCoordinates,
        raw: &RawRecord<'_>,
        error: ProcessError,
        now: Timestamp,
    ) -> Result<Met, Fault> {
        let spec = self.sub_topology().drawn.sources.get(source);
        let (Some(stage), Some(spec)) = (error.stage(), spec) else {
            return Err(self.fail(Some(at.clone()), error));
        };
        let mut policy = match stage {
            Stage::Deserialization => spec.on_deserialization_error.clone(),
            Stage::Processing => spec.on_processing_error.clone(),
            Stage::Production => spec.on_production_error.clone(),
        };
        let mut spent = self
            .retry
            .as_ref()
            .filter(|retry| retry.at == *at)
            .map_or(0, |r| r.attempts)
            .max(self.suspects.retries(at));
        loop {
            match policy {
                ErrorPolicy::Fail => return Err(self.fail(Some(at.clone()), error)),
                ErrorPolicy::Skip => {
                    self.meters.skipped(input);
                    tracing::warn!(task = %self.id, record = %at, error = %dead_letter::chain(&error), "record skipped");
                    return Ok(Met::Done);
                }
                ErrorPolicy::DeadLetter { topic } => {
                    dead_letter::stage(&mut self.cx, &self.topology, &topic, at, raw, &error)
                        .map_err(Fault::Refused)?;
                    if self
                        .cx
                        .outputs
                        .iter()
                        .any(|output| record_bytes(&output) > RECORD_BYTES_MAX)
                    {
                        // Original bytes and headers together are more than the log takes: neither
                        // dropped nor tried for ever, the task stops and names the record.
                        return Err(self.fail(Some(at.clone()), error));
                    }
                    if !self.suspects.may_dead_letter(at) {
                        return Err(self.fail(Some(at.clone()), error));
                    }
                    self.meters.dead_lettered(input);
                    tracing::warn!(task = %self.id, record = %at, %topic, error = %dead_letter::chain(&error), "record dead-lettered");
                    return Ok(Met::Done);
                }
                ErrorPolicy::Retry {
                    attempts,
                    backoff,
                    then,
                } => {
                    if spent < attempts {
                        let backoff = i64::try_from(backoff.as_millis()).unwrap_or(i64::MAX);
                        let not_before = now.saturating_add(backoff);
                        self.meters.retried(input);
                        self.suspects.try_again(at);
                        self.retry = Some(PendingRetry {
                            at: at.clone(),
                            attempts: spent + 1,
                            not_before,
                        });
                        return Ok(Met::Later(not_before));
                    }
                    spent -= attempts;
                    policy = *then;
                }
            }
        }
    }

    /// Fires the punctuators that are due.
    pub(crate) fn punctuate<P: LogProducer>(
        &mut self,
        now: Timestamp,
        producer: &mut P,
    ) -> Result<usize, Fault> {
        let mut fired = 0;
        self.cx.set_system_time(now);
        for kind in [PunctuationType::StreamTime, PunctuationType::WallClockTime] {
            let time = match kind {
                PunctuationType::StreamTime => self.cx.stream_time(),
                PunctuationType::WallClockTime => Some(now),
            };
            let Some(time) = time else { continue };
            while let Some((node, punctuation)) = self.cx.schedules.next_due(kind, time) {
                let Some(processor) = self.chain.processors.get(node).map(Rc::clone) else {
                    continue;
                };
                self.punctuated = true;
                self.cx.begin_other(time);
                let result = processor.borrow_mut().punctuate(&mut self.cx, punctuation);
                match result {
                    Ok(()) => self.release(producer)?,
                    Err(source) => return Err(self.fail(None, source)),
                }
                self.meters.punctuated(kind);
                fired += 1;
            }
        }
        Ok(fired)
    }

    /// Returns whether a punctuator has fired since the last commit.
    pub(crate) fn has_punctuated(&self) -> bool {
        self.punctuated
    }

    /// Returns whether a punctuator may be due.
    pub(crate) fn punctuation_due(&self, now: Timestamp) -> bool {
        let stream_time = self.cx.stream_time();
        self.cx
            .schedules
            .is_due(PunctuationType::WallClockTime, now)
            || stream_time
                .is_some_and(|time| self.cx.schedules.is_due(PunctuationType::StreamTime, time))
    }

    pub(crate) fn has_processors(&self) -> bool {
        !self.chain.processors.is_empty()
    }

    /// Shows how far behind each input is.
    pub(crate) fn publish_lag(&self, high_watermark: impl Fn(&TopicPartition) -> Option<Offset>) {
        for (index, input) in self.group.partitions.iter().enumerate() {
            if let Some(end) = high_watermark(&input.partition) {
                self.meters
                    .lag(index, end.saturating_sub(input.committed).max(0));
            }
        }
    }

    pub(crate) fn next_wall_clock(&self) -> Option<Timestamp> {
        self.cx.schedules.next_wall_clock()
    }

    pub(crate) fn take_commit_request(&mut self) -> bool {
        self.cx.take_commit_request()
    }

    /// Returns whether a commit would make anything visible.
    pub(crate) fn has_results(&self) -> bool {
        self.has_outputs
            || self
                .chain
                .stores
                .iter()
                .any(|store| store.borrow().is_dirty())
            || self
                .chain
                .holding
                .iter()
                .any(|node| node.borrow().is_holding())
    }

    pub(crate) fn has_positions(&self) -> bool {
        self.group.has_positions() || !self.offsets_written
    }

    /// Brings the stores to disk, if they have anything that is not.
    pub(crate) fn flush(&self, duration: &Histogram) -> Result<(), Fault> {
        if self.db.dirty_since().is_none() {
            return Ok(());
        }
        let began = Instant::now();
        self.db.flush().map_err(|source| Fault::State {
            task: self.id,
            source,
        })?;
        duration.observe(began.elapsed().as_secs_f64());
        self.meters.flushed();
        Ok(())
    }

    /// Shares out anew what the stores may keep of committed entries.
    pub(crate) fn share_cache(&self, bytes: usize) {
        let share = bytes / self.chain.stores.len().max(1);
        for store in &self.chain.stores {
            store.borrow_mut().share_cache(share);
        }
    }

    /// Shows what the task holds; returns it, too.
    pub(crate) fn show_memory(&self) -> ThreadMemory {
        self.meters
            .holds(self.group.buffered(), self.uncommitted_bytes());
        let stores = self.chain.stores.iter();
        ThreadMemory {
            overlays: stores
                .map(|store| store.borrow().held_bytes())
                .sum::<usize>()
                + self.held_back_bytes(),
            record_buffers: self.group.buffered_bytes(),
        }
    }

    pub(crate) fn uncommitted_bytes(&self) -> usize {
        let stores = self.chain.stores.iter();
        let stores: usize = stores.map(|store| store.borrow().uncommitted_bytes()).sum();
        stores + self.held_back_bytes()
    }

    /// What waits for the commit to go downstream.
    fn held_back_bytes(&self) -> usize {
        let nodes = self.chain.holding.iter();
        nodes.map(|node| node.borrow().held_bytes()).sum()
    }
}

/// What a policy came to.
enum Met {
    Done,
    Later(Timestamp),
}

fn record_bytes(record: &ProducerRecord<'_>) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len))
        .sum();
    record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers
}

fn sub_topology(topology: &ResolvedTopology, task: TaskId) -> SubTopologyRef<'_> {
    let Some(sub) = topology.sub_topology(task.sub_topology) else {
        unreachable!("a task is of a sub-topology of its topology")
    };
    sub
}
