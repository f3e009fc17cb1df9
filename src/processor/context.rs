//! What a task offers its operators.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Downstream, OutputStage, ProcessError, PunctuationId, PunctuationType, Record, Schedules,
};
use crate::clock::Timestamp;
use crate::log::{Offset, TopicName};
use crate::state::SharedStreamTime;
use crate::topology::TaskId;

/// Where the record in progress came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The physical topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: Offset,
}

type AfterCommit = Box<dyn FnOnce() + Send>;

/// The state of a task that its operators share: outputs, times, schedules, after-commit actions.
pub struct TaskContext {
    task: TaskId,
    record: Option<RecordMetadata>,
    /// Shared with the stores: the timestamp of what is being processed, for their writes.
    timestamp: Rc<Cell<Timestamp>>,
    /// Shared with the stores, whose entries may expire by it.
    stream_time: SharedStreamTime,
    system_time: Timestamp,
    pub(crate) outputs: OutputStage,
    pub(crate) schedules: Schedules,
    /// Actions of the record in progress, then (from `released`) of the transaction.
    staged_after_commit: Vec<AfterCommit>,
    released_after_commit: Vec<AfterCommit>,
    commit_requested: bool,
    /// What operators keep in the metadata of committed offsets.
    metadata: BTreeMap<Arc<str>, i64>,
    metadata_undo: Vec<(Arc<str>, Option<i64>)>,
    /// Records dropped by operators: of the record in progress, then of the transaction.
    staged_drops: u64,
    released_drops: u64,
    /// How often a record was rolled back.
    rollbacks: u64,
    /// Whether the update in progress is out of order in a versioned table.
    out_of_order: bool,
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext")
            .field("task", &self.task)
            .field("record", &self.record)
            .field("stream_time", &self.stream_time)
            .finish_non_exhaustive()
    }
}

impl TaskContext {
    /// Creates the context of a task.
    #[must_use]
    pub fn new(task: TaskId, timestamp: Rc<Cell<Timestamp>>, system_time: Timestamp) -> Self {
        Self {
            task,
            record: None,
            timestamp,
            stream_time: SharedStreamTime::default(),
            system_time,
            outputs: OutputStage::default(),
            schedules: Schedules::default(),
            staged_after_commit: Vec::new(),
            released_after_commit: Vec::new(),
            commit_requested: false,
            metadata: BTreeMap::new(),
            metadata_undo: Vec::new(),
            staged_drops: 0,
            released_drops: 0,
            rollbacks: 0,
            out_of_order: false,
        }
    }

    /// Keeps stream time where the task's stores see it.
    #[must_use]
    pub(crate) fn sharing_stream_time(self, stream_time: SharedStreamTime) -> Self {
        Self {
            stream_time,
            ..self
        }
    }

    /// Returns the task.
    #[must_use]
    pub const fn task(&self) -> TaskId {
        self.task
    }

    /// Returns a number that an operator keeps over restarts: Kafka Streams' processor metadata.
    pub(crate) fn metadata(&self, key: &str) -> Option<i64> {
        self.metadata.get(key).copied()
    }

    /// Sets a number to be kept over restarts, with the transaction of what is being processed. There
    /// is room for a few dozen: they go with every committed offset.
    pub(crate) fn set_metadata(&mut self, key: &Arc<str>, value: i64) {
        let before = self.metadata.insert(Arc::clone(key), value);
        self.metadata_undo.push((Arc::clone(key), before));
    }

    pub(crate) const fn all_metadata(&self) -> &BTreeMap<Arc<str>, i64> {
        &self.metadata
    }

    pub(crate) fn restore_metadata(&mut self, metadata: BTreeMap<Arc<str>, i64>) {
        self.metadata = metadata;
    }

    /// Counts that an operator drops the record in progress, or part of what it would do.
    pub(crate) const fn drop_record(&mut self) {
        self.staged_drops += 1;
    }

    /// Counts a record that is dropped before its turn has come: no record is in progress that could
    /// be rolled back.
    pub(crate) const fn drop_head(&mut self) {
        self.released_drops += 1;
    }

    /// Takes the number of dropped records of the transaction.
    pub(crate) const fn take_drops(&mut self) -> u64 {
        std::mem::replace(&mut self.released_drops, 0)
    }

    /// Returns a number that is another after each rollback: what an operator remembered of its store
    /// before may not be so any more.
    pub(crate) const fn rollbacks(&self) -> u64 {
        self.rollbacks
    }

    /// Returns whether the update of a table in progress is its key's latest: not where it is out of
    /// order, and the table versioned. Kafka Streams' `Change.isLatest`.
    pub(crate) const fn is_latest(&self) -> bool {
        !self.out_of_order
    }

    /// Says whether the update that goes downstream is its key's latest; returns what was said before.
    pub(crate) const fn set_latest(&mut self, latest: bool) -> bool {
        !std::mem::replace(&mut self.out_of_order, !latest)
    }

    /// Returns where the record in progress came from; `None` while a punctuator or `init` runs.
    #[must_use]
    pub const fn record_metadata(&self) -> Option<&RecordMetadata> {
        self.record.as_ref()
    }

    /// Returns the timestamp of what is being processed.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp.get()
    }

    /// Returns the highest record timestamp the task has seen; `None` before the first.
    #[must_use]
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.stream_time.get()
    }

    /// Returns the wall-clock time of the current batch.
    #[must_use]
    pub const fn system_time(&self) -> Timestamp {
        self.system_time
    }

    /// Asks for a commit as soon as the record in progress is done.
    pub fn request_commit(&mut self) {
        self.commit_requested = true;
    }

    /// Runs `action` once the transaction of what is being processed has committed and is applied
    /// to the stores. Dropped when the record is rolled back or the transaction aborts.
    pub fn after_commit(&mut self, action: impl FnOnce() + Send + 'static) {
        self.staged_after_commit.push(Box::new(action));
    }

    pub(crate) fn set_system_time(&mut self, now: Timestamp) {
        self.system_time = now;
    }

    pub(crate) fn restore_stream_time(&mut self, stream_time: Option<Timestamp>) {
        self.stream_time.set(stream_time);
    }

    /// Starts a record: advances stream time.
    pub(crate) fn begin_record(&mut self, metadata: RecordMetadata, timestamp: Timestamp) {
        self.record = Some(metadata);
        self.out_of_order = false;
        self.timestamp.set(timestamp);
        self.stream_time
            .set(self.stream_time.get().max(Some(timestamp)));
    }

    /// Starts a punctuation or `init`.
    pub(crate) fn begin_other(&mut self, timestamp: Timestamp) {
        self.record = None;
        self.out_of_order = false;
        self.timestamp.set(timestamp);
    }

    /// Starts an update that was held back: `origin` is where its record came from.
    pub(crate) fn begin_held(&mut self, origin: Option<RecordMetadata>, timestamp: Timestamp) {
        self.record = origin;
        self.timestamp.set(timestamp);
    }

    pub(crate) fn set_timestamp(&self, timestamp: Timestamp) -> Timestamp {
        self.timestamp.replace(timestamp)
    }

    /// The record's chain returned `Ok`: what it staged joins the transaction. Outputs must have
    /// been handed to the producer.
    pub(crate) fn release(&mut self) {
        self.outputs.clear();
        self.schedules.release();
        self.metadata_undo.clear();
        self.released_drops += std::mem::replace(&mut self.staged_drops, 0);
        self.released_after_commit
            .append(&mut self.staged_after_commit);
    }

    /// The record's chain failed: nothing it staged stays.
    pub(crate) fn rollback(&mut self) {
        self.outputs.clear();
        self.schedules.rollback();
        self.staged_after_commit.clear();
        while let Some((key, before)) = self.metadata_undo.pop() {
            match before {
                Some(before) => drop(self.metadata.insert(key, before)),
                None => drop(self.metadata.remove(&key)),
            }
        }
        self.staged_drops = 0;
        self.rollbacks += 1;
    }

    pub(crate) fn take_commit_request(&mut self) -> bool {
        std::mem::take(&mut self.commit_requested)
    }

    pub(crate) fn take_after_commit(&mut self) -> Vec<AfterCommit> {
        std::mem::take(&mut self.released_after_commit)
    }
}

/// What a [`Processor`](super::Processor) sees: its task, and the way downstream.
pub struct ProcessorContext<'a, KOut, VOut> {
    task: &'a mut TaskContext,
    node: usize,
    downstream: &'a mut Downstream<KOut, VOut>,
    /// The first error of a forward: it fails the record even when the processor ignores it.
    failed: Option<ProcessError>,
}

impl<KOut, VOut> fmt::Debug for ProcessorContext<'_, KOut, VOut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorContext")
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}

/// A record could not be processed downstream. The record in progress fails with the original
/// error, whatever the processor makes of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a downstream operator failed")]
pub struct ForwardError;

impl<'a, KOut, VOut> ProcessorContext<'a, KOut, VOut> {
    pub(crate) fn new(
        task: &'a mut TaskContext,
        node: usize,
        downstream: &'a mut Downstream<KOut, VOut>,
    ) -> Self {
        Self {
            task,
            node,
            downstream,
            failed: None,
        }
    }

    pub(crate) fn into_failure(self) -> Option<ProcessError> {
        self.failed
    }

    /// Hands a record to everything downstream. Its stores write with the record's timestamp.
    ///
    /// # Errors
    /// [`ForwardError`] when an operator downstream failed; pass it on with `?`.
    pub fn forward(&mut self, record: Record<KOut, VOut>) -> Result<(), ForwardError>
    where
        KOut: Clone,
        VOut: Clone,
    {
        if self.failed.is_some() {
            return Err(ForwardError);
        }
        self.downstream
            .process_at(self.task, record)
            .map_err(|error| {
                self.failed = Some(error);
                ForwardError
            })
    }

    /// Hands a record to one operator downstream, by its name (Kafka Streams' `forward(record,
    /// childName)`): what [`named`](crate::dsl::KStream::named) or
    /// [`Produced::named`](crate::dsl::Produced::named) gave it.
    ///
    /// ```
    /// use millstream::prelude::*;
    ///
    /// struct Router;
    ///
    /// impl Processor<String, i64, String, i64> for Router {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, i64>,
    ///         record: Record<String, i64>,
    ///     ) -> Result<(), BoxError> {
    ///         let child = if record.value > 1000 { "large" } else { "small" };
    ///         Ok(context.forward_to(child, record)?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// let routed = orders.process("router", (), |_, ()| Router);
    /// let produced = || Produced::with(serdes::string(), serdes::i64());
    /// routed.to("large-orders", produced().named("large"));
    /// routed.to("small-orders", produced().named("small"));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    ///
    /// # Errors
    /// [`ForwardError`] when that operator failed, or when there is none of that name.
    pub fn forward_to(
        &mut self,
        child: &str,
        record: Record<KOut, VOut>,
    ) -> Result<(), ForwardError> {
        if self.failed.is_some() {
            return Err(ForwardError);
        }
        let result = self.downstream.process_to(self.task, child, record);
        let result = result.unwrap_or_else(|| {
            Err(ProcessError::Processing {
                node: child.to_owned(),
                source: "no operator of this name follows the processor".into(),
            })
        });
        result.map_err(|error| {
            self.failed = Some(error);
            ForwardError
        })
    }

    /// Calls [`Processor::punctuate`](super::Processor::punctuate) every `interval`: by stream time with
    /// the first record and then at multiples of the interval, by wall-clock time an interval from now
    /// on.
    pub fn schedule(&mut self, interval: Duration, kind: PunctuationType) -> PunctuationId {
        let now = self.task.system_time;
        self.task.schedules.add(self.node, interval, kind, now)
    }

    /// Calls [`Processor::punctuate`](super::Processor::punctuate) at `start` and every `interval` from
    /// there on: an anchored schedule (KIP-1146). Of a start that has passed, the points behind now are
    /// left out; the grid stays, over restarts too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    ///
    /// const HOUR: Duration = Duration::from_secs(3600);
    ///
    /// /// Reports on the hour, whenever the task was started.
    /// struct Hourly;
    ///
    /// impl Processor<String, i64, String, i64> for Hourly {
    ///     fn init(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, i64>,
    ///     ) -> Result<Init, BoxError> {
    ///         context.schedule_from(0, HOUR, PunctuationType::WallClockTime);
    ///         Ok(Init::Ready)
    ///     }
    ///
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, i64>,
    ///         record: Record<String, i64>,
    ///     ) -> Result<(), BoxError> {
    ///         Ok(context.forward(record)?)
    ///     }
    ///
    ///     fn punctuate(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, i64>,
    ///         punctuation: Punctuation,
    ///     ) -> Result<(), BoxError> {
    ///         let report = Record::new("report".to_owned(), 1, punctuation.timestamp);
    ///         Ok(context.forward(report)?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// let reported = orders.process("hourly", (), |_, ()| Hourly);
    /// reported.to("reports", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn schedule_from(
        &mut self,
        start: Timestamp,
        interval: Duration,
        kind: PunctuationType,
    ) -> PunctuationId {
        let now = match kind {
            PunctuationType::StreamTime => self.task.stream_time(),
            PunctuationType::WallClockTime => Some(self.task.system_time),
        };
        let schedules = &mut self.task.schedules;
        schedules.add_anchored(self.node, start, interval, kind, now)
    }

    /// Cancels a punctuator.
    pub fn cancel(&mut self, id: PunctuationId) {
        self.task.schedules.cancel(id);
    }

    /// See [`TaskContext::task`].
    #[must_use]
    pub const fn task(&self) -> TaskId {
        self.task.task()
    }

    /// See [`TaskContext::record_metadata`].
    #[must_use]
    pub const fn record_metadata(&self) -> Option<&RecordMetadata> {
        self.task.record_metadata()
    }

    /// See [`TaskContext::stream_time`].
    #[must_use]
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.task.stream_time()
    }

    /// See [`TaskContext::system_time`].
    #[must_use]
    pub const fn system_time(&self) -> Timestamp {
        self.task.system_time()
    }

    /// See [`TaskContext::request_commit`].
    pub fn request_commit(&mut self) {
        self.task.request_commit();
    }

    /// See [`TaskContext::after_commit`].
    pub fn after_commit(&mut self, action: impl FnOnce() + Send + 'static) {
        self.task.after_commit(action);
    }
}
