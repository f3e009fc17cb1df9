//! Every metric: its name, type, labels and help, in one table.
//!
//! Names follow `millstream_<area>_<noun>_<unit>[_total]`; where a thing is counted, the thing is
//! the unit. Labels are bounded by the topology and the process, never by data.

/// A label. Every value comes from a bounded set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// A stream thread's index in the process.
    Thread,
    /// A task id, such as `0_3`.
    Task,
    /// A physical topic.
    Topic,
    /// A partition of the topic.
    Partition,
    /// A store.
    Store,
    /// A state of a task: [`TaskState`](super::TaskState).
    State,
    /// Why a state directory was set aside: [`SetAsideReason`](super::SetAsideReason).
    Reason,
    /// A user of memory: [`MemoryUser`](super::MemoryUser).
    Component,
    /// Which time a punctuator follows: `stream_time` or `wall_clock`.
    Kind,
    /// An aggregate type that the topology declares.
    AggregateType,
    /// How a command was answered: [`CommandOutcome`](super::CommandOutcome).
    Outcome,
    /// A counter that the topology names; at most [`TOPOLOGY_COUNTERS_MAX`] and `other`.
    Counter,
    /// A route's pattern, such as `/stores/{name}/{key}`.
    Route,
    /// An HTTP status code.
    Status,
    /// A projection, by its name in the topology.
    Projection,
    /// A sink, by its name in the configuration.
    Sink,
    /// The version of the program.
    Version,
}

impl Label {
    /// Returns the label's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Task => "task",
            Self::Topic => "topic",
            Self::Partition => "partition",
            Self::Store => "store",
            Self::State => "state",
            Self::Reason => "reason",
            Self::Component => "component",
            Self::Kind => "kind",
            Self::AggregateType => "aggregate_type",
            Self::Outcome => "outcome",
            Self::Counter => "counter",
            Self::Route => "route",
            Self::Status => "status",
            Self::Projection => "projection",
            Self::Sink => "sink",
            Self::Version => "version",
        }
    }
}

/// The most counters that a topology can name; what it names beyond is counted as `other`.
pub(crate) const TOPOLOGY_COUNTERS_MAX: usize = 64;

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Type {
    /// Only rises; starts at 0 with the process, or with the task that it belongs to.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// Seconds, for work of a thread: from a fast round trip to the transaction timeout.
const WORK_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Seconds from a record's timestamp to its results: up to an hour of backlog.
const LATENCY_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 3600.0,
];

/// Seconds of a restore.
const RESTORE_SECONDS: &[f64] = &[
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
];

/// A metric's description.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) kind: Type,
    pub(crate) labels: &'static [Label],
    pub(crate) help: &'static str,
}

macro_rules! metrics {
    ($($metric:ident: $kind:expr, $name:literal, [$($label:ident),*], $help:literal;)*) => {
        /// A metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Metric {
            $(#[doc = $help] $metric,)*
        }

        impl Metric {
            /// All metrics, in the order of the reference page.
            pub(crate) const ALL: &[Self] = &[$(Self::$metric,)*];

            /// Returns the metric's description.
            pub(crate) const fn spec(self) -> Spec {
                match self {
                    $(Self::$metric => Spec {
                        name: $name,
                        kind: $kind,
                        labels: &[$(Label::$label),*],
                        help: $help,
                    },)*
                }
            }
        }
    };
}

metrics! {
    RecordsProcessed: Type::Counter, "millstream_records_processed_total",
        [Thread, Task, Topic, Partition],
        "Input records whose whole chain succeeded and that joined a transaction.";
    RecordsSkipped: Type::Counter, "millstream_records_skipped_total",
        [Thread, Task, Topic, Partition],
        "Input records dropped by a `skip` policy.";
    RecordsRetried: Type::Counter, "millstream_records_retried_total",
        [Thread, Task, Topic, Partition],
        "Further attempts at an input record by a `retry` policy.";
    DeadLetterRecords: Type::Counter, "millstream_dead_letter_records_total",
        [Thread, Task, Topic, Partition],
        "Input records written to a dead-letter topic; topic and partition are those they came from.";
    RecordsDropped: Type::Counter, "millstream_records_dropped_total",
        [Thread, Task],
        "Times an operator dropped a record: for a null key or value that it has no use for, for a negative extracted timestamp, or as too late, once per window that had closed.";
    RecordsLatency: Type::Histogram(LATENCY_SECONDS), "millstream_records_latency_seconds",
        [Thread, Task],
        "Time from an input record's timestamp until its results were committed.";
    ConsumerBytes: Type::Counter, "millstream_consumer_bytes_total",
        [Thread, Task, Topic, Partition],
        "Bytes of keys and values read.";
    ConsumerLag: Type::Gauge, "millstream_consumer_lag_records",
        [Thread, Task, Topic, Partition],
        "High watermark less committed offset.";
    ConsumerBuffered: Type::Gauge, "millstream_consumer_buffered_records",
        [Thread, Task],
        "Records read and waiting in the task's buffers.";
    ProducerRecords: Type::Counter, "millstream_producer_records_total",
        [Thread, Task, Topic],
        "Records handed to the producer, changelogs included.";
    ProducerBytes: Type::Counter, "millstream_producer_bytes_total",
        [Thread, Task, Topic],
        "Bytes of keys and values handed to the producer, changelogs included.";
    Commits: Type::Counter, "millstream_commits_total",
        [Thread],
        "Transactions committed.";
    CommitAborts: Type::Counter, "millstream_commit_aborts_total",
        [Thread],
        "Transactions aborted; their records are processed again.";
    CommitConsecutiveAborts: Type::Gauge, "millstream_commit_consecutive_aborts",
        [Thread],
        "Transactions that failed one after the other, for reasons that may pass; 0 after a commit. The pause before the next grows with it.";
    CommitRefusals: Type::Counter, "millstream_commit_refusals_total",
        [Thread],
        "Transactions lost because the log refused one of their records; the input record to blame meets its error policy.";
    CommitUnknownOutcomes: Type::Counter, "millstream_commit_unknown_outcomes_total",
        [Thread],
        "Commits whose outcome was not known at first and had to be settled.";
    CommitDuration: Type::Histogram(WORK_SECONDS), "millstream_commit_duration_seconds",
        [Thread],
        "Time a thread spends in one commit, from the last record to the next.";
    RestoreRecords: Type::Counter, "millstream_restore_records_total",
        [Thread, Task, Store],
        "Changelog records replayed.";
    RestoreBytes: Type::Counter, "millstream_restore_bytes_total",
        [Thread, Task, Store],
        "Bytes of changelog keys and values replayed.";
    RestoreRemaining: Type::Gauge, "millstream_restore_remaining_records",
        [Thread, Task, Store],
        "Changelog records still to be replayed before the store is ready; 0 when it is.";
    StateExpired: Type::Counter, "millstream_state_expired_entries_total",
        [Thread, Task, Store],
        "Entries of a store with a time-to-live that were deleted because they had expired.";
    RestoreDuration: Type::Histogram(RESTORE_SECONDS), "millstream_restore_duration_seconds",
        [Thread],
        "Time from a task's assignment until its stores were restored.";
    StateDirectoriesSetAside: Type::Counter, "millstream_state_directories_set_aside_total",
        [Reason],
        "State directories of tasks that were not trusted and were restored from the start.";
    StateFlushes: Type::Counter, "millstream_state_flushes_total",
        [Thread, Task],
        "Flushes of a task's stores to disk.";
    StateFlushDuration: Type::Histogram(WORK_SECONDS), "millstream_state_flush_duration_seconds",
        [Thread],
        "Time of one flush of a task's stores.";
    StateBatchDuration: Type::Histogram(WORK_SECONDS), "millstream_state_batch_duration_seconds",
        [Thread],
        "Time to apply a committed transaction to the stores of all its tasks.";
    StateOverlay: Type::Gauge, "millstream_state_overlay_bytes",
        [Thread, Task],
        "Bytes of uncommitted entries in the task's overlays, roughly.";
    MemoryUsed: Type::Gauge, "millstream_memory_used_bytes",
        [Component],
        "Memory by user, against the budget. The queues of Kafka clients are bounded and not measured.";
    MemoryMax: Type::Gauge, "millstream_memory_max_bytes",
        [],
        "The budget: `memory.max`.";
    TaskStates: Type::Gauge, "millstream_task_state",
        [Task, State],
        "1 for the task's current state, 0 for the others.";
    TaskPunctuations: Type::Counter, "millstream_task_punctuations_total",
        [Thread, Task, Kind],
        "Calls of punctuators.";
    MembershipRebalances: Type::Counter, "millstream_membership_rebalances_total",
        [Thread],
        "Times the thread's assignment changed.";
    MembershipLosses: Type::Counter, "millstream_membership_losses_total",
        [Thread],
        "Times the thread was fenced, lost its partitions or its producer, and closed its tasks without a commit.";
    ThreadFailures: Type::Counter, "millstream_thread_failures_total",
        [Thread],
        "Times the thread stopped without a commit because of a bug or a task's error.";
    LogRetries: Type::Counter, "millstream_log_retries_total",
        [Thread],
        "Operations on the log repeated because a broker was away or busy.";
    EventsAppended: Type::Counter, "millstream_events_appended_total",
        [Thread, Task, AggregateType],
        "Events decided here and written.";
    EventsFolded: Type::Counter, "millstream_events_folded_total",
        [Thread, Task, AggregateType],
        "Events of other systems applied.";
    EventsRepetitions: Type::Counter, "millstream_events_repetitions_total",
        [Thread, Task, AggregateType],
        "Events already in the history and skipped, own events read back among them.";
    EventsAdoptedOpenings: Type::Counter, "millstream_events_adopted_openings_total",
        [Thread, Task, AggregateType],
        "First events of an aggregate above version 1, whose opening state was adopted.";
    EventsTombstones: Type::Counter, "millstream_events_tombstones_total",
        [Thread, Task, AggregateType],
        "Aggregates tombstoned by an event, decided here or of another system.";
    EventsTombstoneRefusals: Type::Counter, "millstream_events_tombstone_refusals_total",
        [Thread, Task, AggregateType],
        "Commands, messages and events of other systems refused because their aggregate is tombstoned.";
    EventsLarge: Type::Counter, "millstream_events_large_total",
        [Thread, Task, AggregateType],
        "Events above the size that is worth a warning.";
    EventsRefused: Type::Counter, "millstream_events_refused_total",
        [Thread, Task, AggregateType],
        "Events above the largest size, with whose command nothing was written.";
    EventsArchived: Type::Counter, "millstream_events_archived_total",
        [Thread, Task, AggregateType],
        "Events that have left the history store, as the archive has them.";
    EventsRebuilt: Type::Counter, "millstream_events_rebuilt_total",
        [Thread, Task, AggregateType],
        "Events of the history applied while derived state was rebuilt.";
    SnapshotsWritten: Type::Counter, "millstream_events_snapshots_total",
        [Thread, Task, AggregateType],
        "Snapshots of aggregates written.";
    SnapshotsUnreadable: Type::Counter, "millstream_events_snapshots_unreadable_total",
        [Thread, Task, AggregateType],
        "Snapshots that did not read, passed over while a current state was folded again.";
    StatesUnreadable: Type::Counter, "millstream_events_states_unreadable_total",
        [Thread, Task, AggregateType],
        "Current states of aggregates that did not read and were folded again from their events.";
    CommandsHandled: Type::Counter, "millstream_commands_handled_total",
        [Thread, Task, AggregateType, Outcome],
        "Commands answered.";
    ProcessStepsIssued: Type::Counter, "millstream_process_steps_issued_total",
        [Thread, Task, AggregateType],
        "Steps of processes asked for.";
    ProcessStepsReissued: Type::Counter, "millstream_process_steps_reissued_total",
        [Thread, Task, AggregateType],
        "Steps of processes without an answer, asked for again under their command id.";
    ProcessStepsGivenUp: Type::Counter, "millstream_process_steps_given_up_total",
        [Thread, Task, AggregateType],
        "Steps of processes without an answer that are asked for no more, until an operator resumes them.";
    ProcessStepsResumed: Type::Counter, "millstream_process_steps_resumed_total",
        [Thread, Task, AggregateType],
        "Steps of processes that were given up and resumed by an operator.";
    ProcessStuck: Type::Counter, "millstream_process_stuck_total",
        [Thread, Task, AggregateType],
        "Processes that have stopped half done, until an operator settles them.";
    ProjectionGeneration: Type::Gauge, "millstream_projection_generation",
        [Thread, Task, Projection],
        "Generation of the projection that serves; 0 while the first is built.";
    ProjectionPosition: Type::Gauge, "millstream_projection_position_events",
        [Thread, Task, Projection],
        "Events that the serving generation of the projection is made of.";
    ProjectionLag: Type::Gauge, "millstream_projection_lag_events",
        [Thread, Task, Projection],
        "Events that the generation being built lacks; 0 while none is built.";
    TopologyCounted: Type::Counter, "millstream_topology_counted_events_total",
        [Thread, Task, Counter],
        "What the topology itself counts, by the name that it gives the counter.";
    SinkRecords: Type::Counter, "millstream_sink_records_total",
        [Sink],
        "Records that a sink has written to its target, with their offsets.";
    SinkRows: Type::Counter, "millstream_sink_rows_total",
        [Sink],
        "Rows or files that those records made.";
    SinkBatches: Type::Counter, "millstream_sink_batches_total",
        [Sink],
        "Writes of a sink, each of them atomic.";
    SinkBatchDuration: Type::Histogram(WORK_SECONDS), "millstream_sink_batch_duration_seconds",
        [Sink],
        "Time of one write.";
    SinkLag: Type::Gauge, "millstream_sink_lag_records",
        [Sink, Topic, Partition],
        "High watermark less the offset that the target has stored, for the partitions of this process.";
    SinkConnected: Type::Gauge, "millstream_sink_connection_state",
        [Sink],
        "1 while the sink has a connection to its target, 0 otherwise.";
    SinkFailures: Type::Counter, "millstream_sink_failures_total",
        [Sink],
        "Times the target was away, did not answer or refused something; `/sinks` has the last error.";
    SinkSuperseded: Type::Counter, "millstream_sink_superseded_total",
        [Sink],
        "Times the stored offsets were not the expected ones: another owner, or a rebuild.";
    SinkSkipped: Type::Counter, "millstream_sink_skipped_total",
        [Sink],
        "Records that the target refuses and that were passed over by policy.";
    HttpRequests: Type::Counter, "millstream_http_requests_total",
        [Route, Status],
        "HTTP requests answered.";
    HttpDuration: Type::Histogram(WORK_SECONDS), "millstream_http_request_duration_seconds",
        [Route],
        "Time to answer an HTTP request.";
    ProcessInfo: Type::Gauge, "millstream_process_build_info",
        [Version],
        "Always 1; the version is in the label.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names that issue 3 fixes; they win over the template.
    const FIXED: [(&str, &[Label]); 6] = [
        (
            "millstream_records_processed_total",
            &[Label::Thread, Label::Task, Label::Topic, Label::Partition],
        ),
        ("millstream_commits_total", &[Label::Thread]),
        (
            "millstream_restore_records_total",
            &[Label::Thread, Label::Task, Label::Store],
        ),
        (
            "millstream_dead_letter_records_total",
            &[Label::Thread, Label::Task, Label::Topic, Label::Partition],
        ),
        (
            "millstream_consumer_lag_records",
            &[Label::Thread, Label::Task, Label::Topic, Label::Partition],
        ),
        ("millstream_task_state", &[Label::Task, Label::State]),
    ];

    #[test]
    fn names_follow_the_template() {
        let areas = [
            "records",
            "consumer",
            "producer",
            "commit",
            "restore",
            "state",
            "memory",
            "task",
            "membership",
            "thread",
            "log",
            "events",
            "commands",
            "topology",
            "sink",
            "http",
            "process",
            "projection",
        ];
        for metric in Metric::ALL {
            let Spec {
                name, kind, help, ..
            } = metric.spec();
            assert!(help.ends_with('.'), "{name}");
            if FIXED.iter().any(|(fixed, _)| *fixed == name) {
                continue;
            }
            let parts: Vec<&str> = name.split('_').collect();
            assert!(parts.len() >= 3, "{name}");
            assert_eq!(parts[0], "millstream", "{name}");
            assert!(areas.contains(&parts[1]), "{name}");
            let legal =
                |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase());
            assert!(parts.iter().all(legal), "{name}");
            match kind {
                Type::Counter => assert!(name.ends_with("_total"), "{name}"),
                Type::Histogram(_) => assert!(name.ends_with("_seconds"), "{name}"),
                Type::Gauge => {
                    let units = [
                        "_records",
                        "_bytes",
                        "_aborts",
                        "_events",
                        "_generation",
                        "_info",
                        "_state",
                    ];
                    let unit = units.iter().any(|unit| name.ends_with(unit));
                    assert!(unit, "{name}");
                }
            }
        }
    }

    #[test]
    fn names_fixed_by_the_issue_are_there_with_their_labels() {
        for (name, labels) in FIXED {
            let metric = Metric::ALL.iter().find(|metric| metric.spec().name == name);
            assert_eq!(
                metric.map(|metric| metric.spec().labels),
                Some(labels),
                "{name}"
            );
        }
    }

    #[test]
    fn no_name_is_used_twice() {
        let names: BTreeSet<&str> = Metric::ALL
            .iter()
            .map(|metric| metric.spec().name)
            .collect();
        assert_eq!(names.len(), Metric::ALL.len());
    }

    #[test]
    fn buckets_rise() {
        for metric in Metric::ALL {
            if let Type::Histogram(buckets) = metric.spec().kind {
                assert!(
                    buckets.windows(2).all(|pair| pair[0] < pair[1]),
                    "{metric:?}"
                );
            }
        }
    }
}
