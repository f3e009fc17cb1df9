//! Resolved series, so that the hot path neither looks up nor formats a label.
//!
//! Counters and gauges are one atomic operation each: add once per batch, not once per record.

use std::time::Duration;

use prometheus::local::LocalHistogram;

use super::labels::TaskState;
use super::registry::{Metrics, Owner};
use super::{Counter, Gauge, Histogram};
use crate::log::TopicPartition;

/// Metrics of a stream thread.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ThreadMetrics {
    /// Transactions committed.
    pub commits: Counter,
    /// Transactions aborted.
    pub aborts: Counter,
    /// Transactions that failed one after the other.
    pub failed_in_a_row: Gauge,
    /// Transactions lost by a record that the log refused.
    pub refusals: Counter,
    /// Commits whose outcome had to be settled.
    pub unknown_outcomes: Counter,
    /// Time of one commit.
    pub commit_duration: Histogram,
    /// Time from assignment to restored.
    pub restore_duration: Histogram,
    /// Time of one flush.
    pub flush_duration: Histogram,
    /// Time to apply a committed transaction to the stores.
    pub batch_duration: Histogram,
    /// Changes of assignment.
    pub rebalances: Counter,
    /// Fences and lost partitions.
    pub losses: Counter,
    /// Stops without a commit.
    pub failures: Counter,
    /// Repeated operations on the log.
    pub log_retries: Counter,
}

/// Metrics of a task on its thread.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskMetrics {
    /// Time from a record's timestamp to its commit; see [`latency_recorder`](Self::latency_recorder).
    pub latency: Histogram,
    /// Records waiting in the task's buffers.
    pub buffered_records: Gauge,
    /// Records that operators have dropped.
    pub dropped_records: Counter,
    /// Flushes of the task's stores.
    pub flushes: Counter,
    /// Bytes of uncommitted entries.
    pub overlay_bytes: Gauge,
    /// Calls of stream-time punctuators.
    pub stream_time_punctuations: Counter,
    /// Calls of wall-clock punctuators.
    pub wall_clock_punctuations: Counter,
    pub(crate) owner: Owner,
}

impl TaskMetrics {
    /// Shows the state that the task is in.
    pub fn set_state(&self, state: TaskState) {
        self.owner.set_state(state);
    }

    /// Returns the metrics of an input partition, by its physical topic.
    #[must_use]
    pub fn source(&self, topic: &str, partition: i32) -> SourceMetrics {
        self.owner.source(topic, partition)
    }

    /// Returns the metrics of an output topic, sink or changelog.
    #[must_use]
    pub fn sink(&self, topic: &str) -> SinkMetrics {
        self.owner.sink(topic)
    }

    /// Returns the metrics of a store.
    #[must_use]
    pub fn store(&self, store: &str) -> StoreMetrics {
        self.owner.store(store)
    }

    /// Returns the metrics of the aggregates of one type.
    #[must_use]
    pub fn event_sourcing(&self, aggregate_type: &str) -> EventSourcingMetrics {
        self.owner.event_sourcing(aggregate_type)
    }

    /// Returns the metrics of the processes of one type.
    #[must_use]
    pub fn process(&self, aggregate_type: &str) -> ProcessMetrics {
        self.owner.process(aggregate_type)
    }

    /// Returns the metrics of a projection.
    #[must_use]
    pub fn projection(&self, name: &str) -> ProjectionMetrics {
        self.owner.projection(name)
    }

    /// Returns a counter of the topology's own, shown as
    /// `millstream_topology_counted_events_total{counter="<name>"}`.
    ///
    /// Names are constants of the topology, such as `stand_conflicts`: beyond 64 of them in a
    /// process, or 64 characters, all is counted as `other`.
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        self.owner.topology_counter(name)
    }

    /// Returns a recorder of latencies that costs no atomic operation per record.
    #[must_use]
    pub fn latency_recorder(&self) -> LatencyRecorder {
        LatencyRecorder(self.latency.local())
    }
}

/// Collects latencies on one thread; they are shown when it is flushed or dropped.
#[derive(Debug)]
pub struct LatencyRecorder(LocalHistogram);

impl LatencyRecorder {
    /// Records the time between two timestamps in milliseconds. One that lies in the future counts
    /// as no time: clocks differ.
    pub fn record(&self, from_ms: i64, to_ms: i64) {
        let millis = u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0);
        self.0.observe(Duration::from_millis(millis).as_secs_f64());
    }

    /// Shows what was recorded.
    pub fn flush(&self) {
        self.0.flush();
    }
}

/// Metrics of an input partition of a task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SourceMetrics {
    /// Records processed.
    pub processed: Counter,
    /// Records dropped by policy.
    pub skipped: Counter,
    /// Further attempts by policy.
    pub retried: Counter,
    /// Records dead-lettered.
    pub dead_lettered: Counter,
    /// Bytes of keys and values read.
    pub bytes: Counter,
    /// High watermark less committed offset.
    pub lag: Gauge,
}

/// Metrics of an output topic of a task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SinkMetrics {
    /// Records handed to the producer.
    pub records: Counter,
    /// Bytes of keys and values handed to the producer.
    pub bytes: Counter,
}

/// Metrics of a store of a task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreMetrics {
    /// Changelog records replayed.
    pub restored_records: Counter,
    /// Bytes of keys and values replayed.
    pub restored_bytes: Counter,
    /// Changelog records still to be replayed.
    pub remaining_records: Gauge,
    /// Entries deleted because they had expired.
    pub expired_entries: Counter,
}

/// Metrics of the aggregates of one type in a task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EventSourcingMetrics {
    /// Events decided here and written.
    pub appended: Counter,
    /// Events of other systems applied.
    pub folded: Counter,
    /// Events already in the history.
    pub repetitions: Counter,
    /// First events above version 1.
    pub adopted_openings: Counter,
    /// Aggregates tombstoned.
    pub tombstones: Counter,
    /// Commands, messages and events refused because their aggregate is tombstoned.
    pub tombstone_refusals: Counter,
    /// Events above the size that is worth a warning.
    pub large: Counter,
    /// Events above the largest size.
    pub refused: Counter,
    /// Events that have left the history store for the archive.
    pub archived: Counter,
    /// Events applied while derived state was rebuilt.
    pub rebuilt: Counter,
    /// Snapshots written.
    pub snapshots: Counter,
    /// Snapshots that did not read.
    pub snapshots_unreadable: Counter,
    /// Current states that did not read.
    pub states_unreadable: Counter,
    /// Commands accepted.
    pub commands_accepted: Counter,
    /// Commands rejected.
    pub commands_rejected: Counter,
    /// Commands with another expected version.
    pub commands_conflicting: Counter,
    /// Commands answered with their first reply.
    pub commands_repeated: Counter,
}

/// Metrics of the processes of one type in a task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProcessMetrics {
    /// Steps asked for.
    pub steps_issued: Counter,
    /// Steps asked for again.
    pub steps_reissued: Counter,
    /// Steps asked for no more.
    pub steps_given_up: Counter,
    /// Steps that were given up and resumed.
    pub steps_resumed: Counter,
    /// Processes that have stopped half done.
    pub stuck: Counter,
}

/// Metrics of a projection in a task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProjectionMetrics {
    /// The generation that serves.
    pub generation: Gauge,
    /// How many events it is made of.
    pub position: Gauge,
    /// How many events the one that is being built lacks.
    pub lag: Gauge,
}

/// Metrics of a sink's thread (see [`sink`](crate::sink)).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SinkThreadMetrics {
    /// 1 while there is a connection to the target.
    pub connected: Gauge,
    /// Failures of the target.
    pub failures: Counter,
    /// Times the stored offsets were not the expected ones.
    pub superseded: Counter,
    /// Records passed over by policy.
    pub skipped: Counter,
    pub(crate) records: Counter,
    pub(crate) rows: Counter,
    pub(crate) batches: Counter,
    pub(crate) duration: Histogram,
    pub(crate) sink: String,
    pub(crate) metrics: Metrics,
}

impl SinkThreadMetrics {
    /// Counts a write.
    pub fn written(&self, records: u64, rows: u64, took: Duration) {
        self.records.inc_by(records);
        self.rows.inc_by(rows);
        self.batches.inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Shows how far behind a partition is.
    pub fn position(&self, partition: &TopicPartition, lag: i64) {
        self.metrics.sink_lag(&self.sink, partition).set(lag);
    }

    /// A partition has another owner.
    pub fn give_up(&self, partition: &TopicPartition) {
        self.metrics.remove_sink_lag(&self.sink, partition);
    }
}
