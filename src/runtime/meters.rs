//! A task's series, resolved once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::log::{ProducerRecord, TopicName, TopicPartition};
use crate::metrics::{
    LatencyRecorder, Metrics, SinkMetrics, SourceMetrics, TaskMetrics, TaskState,
};
use crate::processor::PunctuationType;
use crate::topology::TaskId;

/// What a task counts. Per-record work is a handful of additions; series are touched per commit.
#[derive(Debug)]
pub(crate) struct TaskMeters {
    task: TaskMetrics,
    sources: Vec<SourceMetrics>,
    consumed: Vec<Consumed>,
    sinks: Vec<Sink>,
    /// Where each is among them.
    sink_of: HashMap<TopicName, usize>,
    latency: LatencyRecorder,
    /// Timestamps of records whose results are not committed; bounded, then sampled by omission.
    pending: Vec<Timestamp>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Consumed {
    records: u64,
    bytes: u64,
}

/// A topic that the task writes to.
#[derive(Debug)]
struct Sink {
    topic: TopicName,
    metrics: SinkMetrics,
    records: u64,
    bytes: u64,
}

/// How many output topics are looked through before one is looked up.
const SINKS_LOOKED_AT: usize = 8;
/// How many latencies a transaction may contribute: enough for quantiles, little to hold.
const LATENCIES_PER_COMMIT_MAX: usize = 4096;

impl TaskMeters {
    pub(crate) fn new(task: TaskMetrics, inputs: &[(TopicPartition, usize)]) -> Self {
        let sources: Vec<SourceMetrics> = inputs
            .iter()
            .map(|(partition, _)| task.source(&partition.topic, partition.partition))
            .collect();
        Self {
            latency: task.latency_recorder(),
            consumed: vec![Consumed::default(); sources.len()],
            sources,
            sinks: Vec::new(),
            sink_of: HashMap::new(),
            pending: Vec::new(),
            task,
        }
    }

    /// Returns the task's metrics, for its operators.
    pub(crate) const fn metrics(&self) -> &TaskMetrics {
        &self.task
    }

    /// A record of input `index` is done.
    pub(crate) fn consumed(&mut self, index: usize, bytes: usize, timestamp: Timestamp) {
        if let Some(consumed) = self.consumed.get_mut(index) {
            consumed.records += 1;
            consumed.bytes += bytes as u64;
        }
        if self.pending.len() < LATENCIES_PER_COMMIT_MAX {
            self.pending.push(timestamp);
        }
    }

    pub(crate) fn produced(&mut self, record: &ProducerRecord<'_>) {
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        let sink = self.sink(record.topic);
        sink.records += 1;
        sink.bytes += bytes as u64;
    }

    /// A task writes to few topics as a rule, and nearly always names them by the same `Arc`: pointers
    /// are compared before names are hashed.
    fn sink(&mut self, topic: &TopicName) -> &mut Sink {
        let same = |sink: &Sink| Arc::ptr_eq(&sink.topic, topic);
        let known = self.sinks.iter().take(SINKS_LOOKED_AT).position(same);
        let known = known.or_else(|| self.sink_of.get(topic).copied());
        let index = known.unwrap_or_else(|| {
            let index = self.sinks.len();
            self.sink_of.insert(TopicName::clone(topic), index);
            self.sinks.push(Sink {
                topic: TopicName::clone(topic),
                metrics: self.task.sink(topic),
                records: 0,
                bytes: 0,
            });
            index
        });
        match self.sinks.get_mut(index) {
            Some(sink) => sink,
            None => unreachable!("it was found or added"),
        }
    }

    pub(crate) fn skipped(&self, input: usize) {
        if let Some(source) = self.sources.get(input) {
            source.skipped.inc();
        }
    }

    /// Operators have dropped records, or parts of what they would do, in a transaction that committed.
    pub(crate) fn dropped(&self, records: u64) {
        if records > 0 {
            self.task.dropped_records.inc_by(records);
        }
    }

    pub(crate) fn dead_lettered(&self, input: usize) {
        if let Some(source) = self.sources.get(input) {
            source.dead_lettered.inc();
        }
    }

    pub(crate) fn retried(&self, input: usize) {
        if let Some(source) = self.sources.get(input) {
            source.retried.inc();
        }
    }

    pub(crate) fn lag(&self, input: usize, records: i64) {
        if let Some(source) = self.sources.get(input) {
            source.lag.set(records);
        }
    }

    pub(crate) fn flushed(&self) {
        self.task.flushes.inc();
    }

    /// What the task holds at the moment.
    pub(crate) fn holds(&self, buffered_records: usize, uncommitted_bytes: usize) {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.task.buffered_records.set(gauge(buffered_records));
        self.task.overlay_bytes.set(gauge(uncommitted_bytes));
    }

    pub(crate) fn punctuated(&self, kind: PunctuationType) {
        match kind {
            PunctuationType::StreamTime => self.task.stream_time_punctuations.inc(),
            PunctuationType::WallClockTime => self.task.wall_clock_punctuations.inc(),
        }
    }

    /// Shows what the committed transaction did.
    pub(crate) fn committed(&mut self, now: Timestamp) {
        for (source, consumed) in self.sources.iter().zip(&mut self.consumed) {
            source.processed.inc_by(consumed.records);
            source.bytes.inc_by(consumed.bytes);
            *consumed = Consumed::default();
        }
        for sink in &mut self.sinks {
            let Sink { metrics, .. } = sink;
            metrics.records.inc_by(std::mem::take(&mut sink.records));
            metrics.bytes.inc_by(std::mem::take(&mut sink.bytes));
        }
        for timestamp in self.pending.drain(..) {
            self.latency.record(timestamp, now);
        }
        self.latency.flush();
    }

    /// The transaction was aborted: what it did did not happen.
    pub(crate) fn aborted(&mut self) {
        self.consumed.fill(Consumed::default());
        for sink in &mut self.sinks {
            sink.records = 0;
            sink.bytes = 0;
        }
        self.pending.clear();
    }
}

/// Shows in which state the tasks of a thread are. What a thread leaves behind when it ends goes
/// with it.
#[derive(Debug)]
pub(crate) struct TaskStates {
    metrics: Metrics,
    thread: usize,
    shown: BTreeMap<TaskId, TaskState>,
}

impl TaskStates {
    pub(crate) fn new(metrics: &Metrics, thread: usize) -> Self {
        Self {
            metrics: metrics.clone(),
            thread,
            shown: BTreeMap::new(),
        }
    }

    /// Called at every step: only what has changed costs more than a comparison.
    pub(crate) fn show(&mut self, tasks: &BTreeMap<TaskId, TaskState>) {
        if self.shown == *tasks {
            return;
        }
        for gone in self.shown.keys().filter(|task| !tasks.contains_key(task)) {
            self.metrics.remove_task(self.thread, &gone.to_string());
        }
        for (task, state) in tasks {
            if self.shown.get(task) != Some(state) {
                self.metrics
                    .task(self.thread, &task.to_string())
                    .set_state(*state);
            }
        }
        self.shown.clone_from(tasks);
    }
}

impl Drop for TaskStates {
    fn drop(&mut self) {
        self.show(&BTreeMap::new());
    }
}
