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

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::dead_letter;
use super::error::{Fault, RecordCoordinates};
use super::meters::TaskMeters;
use super::partition_group::{InputPartition, PartitionGroup};
use super::{CrashPoint, PlantedBug, Probe, ResolvedTopology};
use crate::clock::Timestamp;
use crate::format::checkpoint::{ChangelogPosition, InputPosition};
use crate::format::offset_metadata::OffsetMetadata;
use crate::log::{
    CommittedOffset, Headers, LogError, LogMessage, LogProducer, Offset, ProducerRecord, TopicName,
    TopicPartition,
};
use crate::processor::{
    ErrorPolicy, Init, ProcessError, PunctuationType, RawRecord, RecordMetadata, Reject, Stage,
    TaskContext,
};
use crate::state::{CommitBatch, DirtySink, StateError, StoreId, TaskDb};
use crate::topology::{SubTopology, TaskEnv, TaskId, TaskTopology};

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
    /// Position in the topology's list of sub-topologies.
    pub(crate) sub_index: usize,
    pub(crate) group: PartitionGroup<M>,
    pub(crate) db: TaskDb,
    pub(crate) progress: Progress,
    pub(crate) meters: TaskMeters,
    /// Reset generation: goes into every committed offset.
    pub(crate) generation: u64,
    pub(crate) committed_at: Timestamp,
    /// Outputs are in the open transaction.
    has_outputs: bool,
    /// The first commit writes every offset, unchanged ones too.
    offsets_written: bool,
    topology: Arc<ResolvedTopology>,
    chain: TaskTopology,
    cx: TaskContext,
    retry: Option<PendingRetry>,
    /// Records that made a transaction fail, with how often: met by policy on the next attempt.
    suspects: BTreeMap<RecordCoordinates, u32>,
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

/// Everything a new task needs.
pub(crate) struct TaskParts<M> {
    pub(crate) id: TaskId,
    pub(crate) sub_index: usize,
    pub(crate) topology: Arc<ResolvedTopology>,
    pub(crate) inputs: Vec<InputPartition<M>>,
    pub(crate) db: TaskDb,
    pub(crate) meters: TaskMeters,
    pub(crate) generation: u64,
    pub(crate) now: Timestamp,
    pub(crate) cache_bytes: usize,
    /// What operators have kept in the metadata of committed offsets.
    pub(crate) metadata: BTreeMap<Arc<str>, i64>,
}

/// How often a record may take its transaction down before its policy decides about it.
const TRANSACTION_FAILURES_MAX: u32 = 3;

impl<M: LogMessage> Task<M> {
    /// Makes a task whose stores are restored.
    pub(crate) fn new(parts: TaskParts<M>) -> Result<Self, Fault> {
        let TaskParts {
            id,
            sub_index,
            topology,
            inputs,
            db,
            meters,
            generation,
            now,
            cache_bytes,
            metadata,
        } = parts;
        let (chain, cx) = build_chain(&topology, sub_index, id, &db, now, cache_bytes, &meters)?;
        let changelog_offsets = db
            .checkpoint()
            .changelogs
            .into_iter()
            .map(|(store, position)| (store, position.next_offset))
            .collect();
        let mut task = Self {
            id,
            sub_index,
            group: PartitionGroup { partitions: inputs },
            db,
            progress: Progress::Initialising(0),
            meters,
            generation,
            committed_at: now,
            has_outputs: false,
            offsets_written: false,
            topology,
            chain,
            cx,
            retry: None,
            suspects: BTreeMap::new(),
            changelog_offsets,
            committed_metadata: metadata,
        };
        task.restore_stream_time();
        Ok(task)
    }

    /// Rebuilds everything that an aborted transaction may have touched: processors, punctuators,
    /// stream time, overlays, buffers, positions. Stores are at the last commit already.
    pub(crate) fn rebuild(&mut self, now: Timestamp, cache_bytes: usize) -> Result<(), Fault> {
        let (chain, cx) = build_chain(
            &self.topology,
            self.sub_index,
            self.id,
            &self.db,
            now,
            cache_bytes,
            &self.meters,
        )?;
        self.close_processors();
        self.meters.aborted();
        self.chain = chain;
        self.cx = cx;
        self.group.rewind();
        self.restore_stream_time();
        self.progress = Progress::Initialising(0);
        self.retry = None;
        self.has_outputs = false;
        Ok(())
    }

    fn restore_stream_time(&mut self) {
        let time = self
            .group
            .partitions
            .iter()
            .filter_map(|input| input.committed_time)
            .max();
        self.cx.restore_stream_time(time);
        self.cx.restore_metadata(self.committed_metadata.clone());
    }

    pub(crate) fn close_processors(&mut self) {
        for processor in &self.chain.processors {
            processor.borrow_mut().close();
        }
    }

    fn sub_topology(&self) -> Option<&SubTopology> {
        self.topology.topology.sub_topologies().get(self.sub_index)
    }

    /// Runs one slice of initialisation; returns whether the task runs now.
    pub(crate) fn initialise<P: LogProducer>(
        &mut self,
        now: Timestamp,
        producer: &mut P,
    ) -> Result<bool, Fault> {
        while let Progress::Initialising(index) = self.progress {
            let Some(processor) = self.chain.processors.get(index).map(Rc::clone) else {
                self.progress = Progress::Running;
                return Ok(true);
            };
            self.cx.set_system_time(now);
            self.cx.begin_other(self.cx.stream_time().unwrap_or(now));
            match processor.borrow_mut().init(&mut self.cx) {
                Ok(init) => {
                    self.release(producer)?;
                    if init == Init::Continue {
                        self.cx.request_commit();
                        return Ok(false);
                    }
                    self.progress = Progress::Initialising(index + 1);
                }
                Err(source) => return Err(self.fail(None, source)),
            }
        }
        Ok(true)
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
        let Some((index, message)) = self.group.pop_lowest() else {
            return Ok(Processed::Empty);
        };
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
        let raw = RawRecord {
            key: message.key(),
            value: message.value(),
            timestamp: message.timestamp(),
            headers: &headers,
        };
        self.cx.set_system_time(now);
        let result = match self.suspects.get(&at) {
            Some(failures) if *failures >= TRANSACTION_FAILURES_MAX => {
                Err(suspect_error(*failures))
            }
            _ => self.run_chain(source, &at, &raw),
        };
        match result {
            Ok(()) => self.release_record(&at, producer)?,
            Err(error) => {
                if !probe.planted(PlantedBug::FailedRecordKept) {
                    self.rollback();
                }
                match self.meet_policy((index, source), &at, &raw, error, now)? {
                    Met::Done => self.release(producer)?,
                    Met::Later(not_before) => {
                        if let Some(input) = self.group.partitions.get_mut(index) {
                            input.buffer.push_front(message);
                        }
                        return Ok(Processed::NotYet(not_before));
                    }
                }
            }
        }
        self.advance(index, &message);
        probe.reached(CrashPoint::AfterRecord)?;
        Ok(Processed::Record)
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

    /// Moves past a record that is done.
    fn advance(&mut self, index: usize, message: &M) {
        self.retry = None;
        let timestamp = message.timestamp();
        if let Some(input) = self.group.partitions.get_mut(index) {
            assert!(
                message.offset() >= input.position,
                "{} delivered offset {} below position {}",
                input.partition,
                message.offset(),
                input.position
            );
            input.position = message.offset() + 1;
            input.time = Some(input.time.map_or(timestamp, |time| time.max(timestamp)));
        }
        let bytes = message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len);
        self.meters.consumed(index, bytes, timestamp);
    }

    /// Hands the record's outputs to the producer and its writes to the transaction.
    fn release_record<P: LogProducer>(
        &mut self,
        at: &RecordCoordinates,
        producer: &mut P,
    ) -> Result<(), Fault> {
        let result = self.release(producer);
        // Any other refusal may be the late answer to an earlier record: nobody is blamed for it.
        if let Err(Fault::Log(LogError::RecordTooLarge { .. })) = &result {
            *self.suspects.entry(at.clone()).or_default() += 1;
        }
        result
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
        self.cx.release();
        Ok(())
    }

    fn rollback(&mut self) {
        for store in &self.chain.stores {
            store.borrow_mut().rollback_savepoint();
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
        let spec = self.sub_topology().and_then(|sub| sub.sources.get(source));
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
            .map_or(0, |r| r.attempts);
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
    }

    pub(crate) fn has_positions(&self) -> bool {
        self.group.has_positions() || !self.offsets_written
    }

    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.chain
            .stores
            .iter()
            .map(|store| store.borrow().uncommitted_bytes())
            .sum()
    }

    /// Serialises the overlays: into the changelogs and into the batch for the stores.
    pub(crate) fn prepare_commit<P: LogProducer>(
        &mut self,
        producer: &mut P,
        probe: &dyn Probe,
    ) -> Result<CommitBatch, Fault> {
        probe.reached(CrashPoint::BeforeChangelogSend)?;
        let mut batch = self.db.batch();
        let resolved = self.topology.sub_topologies.get(self.sub_index);
        for store in &self.chain.stores {
            let mut store = store.borrow_mut();
            let name = store.name().to_owned();
            let changelog = resolved.and_then(|sub| sub.changelogs.get(&name));
            let Some(id) = self.db.store_id(&name) else {
                return Err(Fault::Bug(
                    "a task writes to a store that its database lacks",
                ));
            };
            let mut sink = CommitSink {
                batch: &mut batch,
                name: &name,
                store: id,
                topic: changelog.map(|changelog| &changelog.topic),
                partition: self.id.partition,
                producer,
                failed: None,
            };
            let drained = store.drain_dirty(&mut sink);
            if let Some(error) = sink.failed.take() {
                return Err(error.into());
            }
            drained.map_err(|source| Fault::State {
                task: self.id,
                source,
            })?;
        }
        probe.reached(CrashPoint::AfterChangelogSend)?;
        Ok(batch)
    }

    /// Returns every input offset of the task, unchanged ones too: without offsets librdkafka skips
    /// the fencing by group metadata (invariant 1).
    pub(crate) fn offsets(&self) -> Vec<(TopicPartition, CommittedOffset)> {
        self.group
            .partitions
            .iter()
            .map(|input| {
                let mut metadata = OffsetMetadata::new(input.time, self.generation);
                let kept = self.cx.all_metadata().iter();
                metadata
                    .entries
                    .extend(kept.map(|(key, value)| (key.to_string(), *value)));
                let metadata = metadata.encode();
                (
                    input.partition.clone(),
                    CommittedOffset {
                        offset: input.position,
                        metadata,
                    },
                )
            })
            .collect()
    }

    /// The transaction has committed: adds what the stores have to remember with the data.
    /// `requested_at` is when the commit was asked for.
    pub(crate) fn seal_batch(
        &mut self,
        batch: &mut CommitBatch,
        acknowledged: &BTreeMap<TopicPartition, Option<Offset>>,
        requested_at: Timestamp,
    ) {
        let resolved = self.topology.sub_topologies.get(self.sub_index);
        for (name, changelog) in resolved.iter().flat_map(|sub| &sub.changelogs) {
            let Some(store) = self.db.store_id(name) else {
                continue;
            };
            let partition =
                TopicPartition::new(TopicName::clone(&changelog.topic), self.id.partition);
            // An acknowledgement without an offset leaves the older checkpoint: restore then
            // replays more of the tail than it needs, to the same end.
            if let Some(Some(offset)) = acknowledged.get(&partition) {
                self.changelog_offsets.insert(name.clone(), offset + 1);
            }
            // Every store is at its changelog's end now, the ones that were not written too.
            if let Some(next_offset) = self.changelog_offsets.get(name).copied() {
                let fresh_at = Some(requested_at);
                let position = ChangelogPosition {
                    topic_id: changelog.id,
                    next_offset,
                    fresh_at,
                };
                batch.set_changelog(store, position);
            }
        }
        for input in &self.group.partitions {
            let position = InputPosition {
                next_offset: input.position,
                partition_time: input.time,
            };
            batch.set_input(input.partition.clone(), position);
        }
        if let Some(stream_time) = self.cx.stream_time() {
            batch.set_stream_time(stream_time);
        }
        batch.set_generation(self.generation);
    }

    /// The batch is in the stores: the overlay is clean, and what waited for the commit runs.
    pub(crate) fn finish_commit(&mut self, now: Timestamp) {
        for store in &self.chain.stores {
            store.borrow_mut().mark_committed();
        }
        self.group.mark_committed();
        self.has_outputs = false;
        self.offsets_written = true;
        self.committed_at = now;
        self.suspects.clear();
        self.committed_metadata.clone_from(self.cx.all_metadata());
        self.meters.dropped(self.cx.take_drops());
        self.meters.committed(now);
        for action in self.cx.take_after_commit() {
            action();
        }
    }
}

/// What a policy came to.
enum Met {
    Done,
    Later(Timestamp),
}

fn suspect_error(failures: u32) -> ProcessError {
    ProcessError::Production {
        node: "producer".to_owned(),
        source: Box::new(Reject {
            code: "TRANSACTION_FAILED",
            message: format!("the transaction was aborted {failures} times at this record"),
        }),
    }
}

fn record_bytes(record: &ProducerRecord<'_>) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len))
        .sum();
    record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers
}

fn build_chain(
    topology: &Arc<ResolvedTopology>,
    sub_index: usize,
    id: TaskId,
    db: &TaskDb,
    now: Timestamp,
    cache_bytes: usize,
    meters: &TaskMeters,
) -> Result<(TaskTopology, TaskContext), Fault> {
    let Some(sub) = topology.topology.sub_topologies().get(sub_index) else {
        unreachable!("a task's sub-topology exists")
    };
    let fault = |source| Fault::State { task: id, source };
    let timestamp = Rc::new(Cell::new(now));
    let mut backends = BTreeMap::new();
    for store in &sub.stores {
        backends.insert(store.name.clone(), db.backend(&store.name).map_err(fault)?);
    }
    let mut env = TaskEnv {
        task: id,
        timestamp: Rc::clone(&timestamp),
        topics: topology.topics.clone(),
        backends,
        cache_bytes,
        metrics: Some(meters.metrics().clone()),
    };
    let chain = (sub.instantiate)(&mut env).map_err(fault)?;
    assert!(
        chain.sources.len() == sub.sources.len(),
        "a chain has all sources of its sub-topology"
    );
    assert!(
        chain.stores.len() == sub.stores.len(),
        "a chain has all stores of its sub-topology"
    );
    Ok((chain, TaskContext::new(id, timestamp, now)))
}

/// Sends an overlay entry to the changelog and puts it into the batch.
struct CommitSink<'a, P> {
    batch: &'a mut CommitBatch,
    name: &'a str,
    store: StoreId,
    topic: Option<&'a TopicName>,
    partition: i32,
    producer: &'a mut P,
    /// The log's error, which `StateError` has no place for.
    failed: Option<LogError>,
}

impl<P: LogProducer> DirtySink for CommitSink<'_, P> {
    fn entry(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        let bytes = key.len() + value.map_or(0, <[u8]>::len);
        if bytes > RECORD_BYTES_MAX {
            let message = format!("an entry of {bytes} bytes is more than a changelog takes");
            return Err(StateError::Encode {
                store: self.name.to_owned(),
                source: message.into(),
            });
        }
        if let Some(topic) = self.topic.filter(|_| self.failed.is_none()) {
            let record = ProducerRecord {
                topic,
                partition: Some(self.partition),
                key: Some(key),
                value,
                timestamp,
                headers: const { &Headers::new() },
            };
            if let Err(error) = self.producer.send(record) {
                self.failed = Some(error);
            }
        }
        self.batch.entry(self.store, key, value, timestamp)
    }
}
