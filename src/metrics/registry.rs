//! The process's metrics: one family per [`Metric`], and who owns which series.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::handles::{
    EventSourcingMetrics, ProcessMetrics, ProjectionMetrics, SinkMetrics, SourceMetrics,
    StoreMetrics,
};
use super::labels::{CommandOutcome, MemoryUser, SetAsideReason, TaskState};
use super::names::{Label, Metric, TOPOLOGY_COUNTERS_MAX, Type};
use super::{Counter, Gauge, Histogram, SinkThreadMetrics, TaskMetrics, ThreadMetrics};
use crate::log::TopicPartition;

/// The longest name of a topology's counter.
const COUNTER_NAME_CHARS_MAX: usize = 64;

/// All metrics of a process. Cheap to clone; every clone is the same registry.
///
/// There is no global registry: two processes of one simulation count apart.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    /// By [`Metric`], in the order of [`Metric::ALL`].
    families: Vec<Family>,
    owned: Mutex<Owned>,
}

/// A metric with the values of its labels.
type Series = (Metric, Vec<String>);

/// Series that go when their task does.
#[derive(Debug, Default)]
struct Owned {
    /// By thread and task.
    series: HashMap<(usize, String), Vec<Series>>,
    /// The thread a task is on: `millstream_task_state` has no thread label, so the thread that
    /// gave a task away must not remove what the next one shows.
    threads: HashMap<String, usize>,
    counters: BTreeSet<String>,
}

#[derive(Debug)]
enum Family {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
    Histogram(HistogramVec),
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates the metrics of a process, all without series but the build information.
    ///
    /// # Panics
    /// When the table of metrics is not legal for Prometheus: a bug that every test would show.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the table is constant and tested")]
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Metric::ALL
            .iter()
            .map(|metric| Family::register(*metric, &registry))
            .collect::<Result<Vec<_>, _>>()
            .expect("the table of metrics is legal for Prometheus");
        let metrics = Self(Arc::new(Inner {
            registry,
            families,
            owned: Mutex::default(),
        }));
        metrics
            .gauge(Metric::ProcessInfo, &[env!("CARGO_PKG_VERSION")])
            .set(1);
        metrics
    }

    /// Returns the metrics of the stream thread with this index.
    #[must_use]
    pub fn thread(&self, thread: usize) -> ThreadMetrics {
        let label = thread.to_string();
        let labels = [label.as_str()];
        ThreadMetrics {
            commits: self.counter(Metric::Commits, &labels),
            aborts: self.counter(Metric::CommitAborts, &labels),
            failed_in_a_row: self.gauge(Metric::CommitConsecutiveAborts, &labels),
            refusals: self.counter(Metric::CommitRefusals, &labels),
            unknown_outcomes: self.counter(Metric::CommitUnknownOutcomes, &labels),
            commit_duration: self.histogram(Metric::CommitDuration, &labels),
            restore_duration: self.histogram(Metric::RestoreDuration, &labels),
            flush_duration: self.histogram(Metric::StateFlushDuration, &labels),
            batch_duration: self.histogram(Metric::StateBatchDuration, &labels),
            rebalances: self.counter(Metric::MembershipRebalances, &labels),
            losses: self.counter(Metric::MembershipLosses, &labels),
            failures: self.counter(Metric::ThreadFailures, &labels),
            log_retries: self.counter(Metric::LogRetries, &labels),
        }
    }

    /// Returns the metrics of a task (`0_3`) on a stream thread. Every call gives the same series;
    /// [`remove_task`](Self::remove_task) ends them.
    #[must_use]
    pub fn task(&self, thread: usize, task: &str) -> TaskMetrics {
        self.owned().threads.insert(task.to_owned(), thread);
        let owner = Owner {
            metrics: self.clone(),
            thread,
            task: task.to_owned(),
        };
        TaskMetrics {
            latency: owner.histogram(Metric::RecordsLatency, &[]),
            buffered_records: owner.gauge(Metric::ConsumerBuffered, &[]),
            dropped_records: owner.counter(Metric::RecordsDropped, &[]),
            flushes: owner.counter(Metric::StateFlushes, &[]),
            overlay_bytes: owner.gauge(Metric::StateOverlay, &[]),
            stream_time_punctuations: owner.counter(Metric::TaskPunctuations, &["stream_time"]),
            wall_clock_punctuations: owner.counter(Metric::TaskPunctuations, &["wall_clock"]),
            owner,
        }
    }

    /// Removes every series of a task that left the thread, so that a scrape shows what is here.
    pub fn remove_task(&self, thread: usize, task: &str) {
        let mut owned = self.owned();
        let series = owned
            .series
            .remove(&(thread, task.to_owned()))
            .unwrap_or_default();
        for (metric, labels) in &series {
            self.remove(*metric, labels);
        }
        if owned.threads.get(task) == Some(&thread) {
            owned.threads.remove(task);
            for state in TaskState::ALL {
                self.remove(Metric::TaskStates, &[task, state.label()]);
            }
        }
    }

    /// Counts a state directory that was set aside.
    pub fn state_set_aside(&self, reason: SetAsideReason) {
        self.counter(Metric::StateDirectoriesSetAside, &[reason.label()])
            .inc();
    }

    /// Sets the memory that a part of the process uses.
    pub fn set_memory_used(&self, user: MemoryUser, bytes: u64) {
        self.gauge(Metric::MemoryUsed, &[user.label()])
            .set(saturating(bytes));
    }

    /// Sets the memory budget of the process.
    pub fn set_memory_max(&self, bytes: u64) {
        self.gauge(Metric::MemoryMax, &[]).set(saturating(bytes));
    }

    /// Counts an answered HTTP request. `route` is the pattern, never the path.
    pub fn http_request(&self, route: &'static str, status: u16, duration: Duration) {
        self.counter(Metric::HttpRequests, &[route, &status.to_string()])
            .inc();
        self.histogram(Metric::HttpDuration, &[route])
            .observe(duration.as_secs_f64());
    }

    /// Returns the metrics of a sink.
    #[must_use]
    pub fn sink(&self, sink: &str) -> SinkThreadMetrics {
        let labels = [sink];
        SinkThreadMetrics {
            connected: self.gauge(Metric::SinkConnected, &labels),
            failures: self.counter(Metric::SinkFailures, &labels),
            superseded: self.counter(Metric::SinkSuperseded, &labels),
            skipped: self.counter(Metric::SinkSkipped, &labels),
            records: self.counter(Metric::SinkRecords, &labels),
            rows: self.counter(Metric::SinkRows, &labels),
            batches: self.counter(Metric::SinkBatches, &labels),
            duration: self.histogram(Metric::SinkBatchDuration, &labels),
            sink: sink.to_owned(),
            metrics: self.clone(),
        }
    }

    pub(super) fn sink_lag(&self, sink: &str, at: &TopicPartition) -> Gauge {
        let partition = at.partition.to_string();
        self.gauge(Metric::SinkLag, &[sink, &*at.topic, &*partition])
    }

    pub(super) fn remove_sink_lag(&self, sink: &str, at: &TopicPartition) {
        let partition = at.partition.to_string();
        self.remove(Metric::SinkLag, &[sink, &*at.topic, &*partition]);
    }

    /// Returns all series in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        // The encoder fails on families without metrics only, which `gather` leaves out.
        TextEncoder::new()
            .encode_to_string(&self.0.registry.gather())
            .unwrap_or_default()
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.0.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(
        clippy::expect_used,
        reason = "a label missing here is a bug that every test shows"
    )]
    fn family<T>(&self, metric: Metric, pick: impl Fn(&Family) -> Option<T>) -> T {
        self.0
            .families
            .get(metric as usize)
            .and_then(pick)
            .expect("a metric is used with the type and the labels of the table")
    }

    fn counter(&self, metric: Metric, labels: &[&str]) -> Counter {
        self.family(metric, |family| match family {
            Family::Counter(family) => family.get_metric_with_label_values(labels).ok(),
            Family::Gauge(_) | Family::Histogram(_) => None,
        })
    }

    fn gauge(&self, metric: Metric, labels: &[&str]) -> Gauge {
        self.family(metric, |family| match family {
            Family::Gauge(family) => family.get_metric_with_label_values(labels).ok(),
            Family::Counter(_) | Family::Histogram(_) => None,
        })
    }

    fn histogram(&self, metric: Metric, labels: &[&str]) -> Histogram {
        self.family(metric, |family| match family {
            Family::Histogram(family) => family.get_metric_with_label_values(labels).ok(),
            Family::Counter(_) | Family::Gauge(_) => None,
        })
    }

    /// Removes a series; one that is not there is fine.
    fn remove<V: AsRef<str> + std::fmt::Debug>(&self, metric: Metric, labels: &[V]) {
        let removed = match self.0.families.get(metric as usize) {
            Some(Family::Counter(family)) => family.remove_label_values(labels),
            Some(Family::Gauge(family)) => family.remove_label_values(labels),
            Some(Family::Histogram(family)) => family.remove_label_values(labels),
            None => Ok(()),
        };
        removed.unwrap_or_default();
    }
}

fn saturating(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Family {
    fn register(metric: Metric, registry: &Registry) -> prometheus::Result<Self> {
        let spec = metric.spec();
        let labels: Vec<&str> = spec.labels.iter().map(|label| label.name()).collect();
        let options = Opts::new(spec.name, spec.help);
        Ok(match spec.kind {
            Type::Counter => {
                let family = IntCounterVec::new(options, &labels)?;
                registry.register(Box::new(family.clone()))?;
                Self::Counter(family)
            }
            Type::Gauge => {
                let family = IntGaugeVec::new(options, &labels)?;
                registry.register(Box::new(family.clone()))?;
                Self::Gauge(family)
            }
            Type::Histogram(buckets) => {
                let options = HistogramOpts::from(options).buckets(buckets.to_vec());
                let family = HistogramVec::new(options, &labels)?;
                registry.register(Box::new(family.clone()))?;
                Self::Histogram(family)
            }
        })
    }
}

/// A task on a thread, to which series belong.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    metrics: Metrics,
    thread: usize,
    task: String,
}

impl Owner {
    /// Completes the labels, and remembers the series for its removal.
    fn labels(&self, metric: Metric, rest: &[&str]) -> Vec<String> {
        let thread = self.thread.to_string();
        let own = [thread.as_str(), self.task.as_str()];
        assert!(
            matches!(metric.spec().labels, [Label::Thread, Label::Task, ..]),
            "a task's metric is labelled by thread and task first"
        );
        let labels: Vec<String> = own
            .iter()
            .chain(rest)
            .map(|&label| label.to_owned())
            .collect();
        let mut owned = self.metrics.owned();
        let series = owned
            .series
            .entry((self.thread, self.task.clone()))
            .or_default();
        let entry = (metric, labels.clone());
        if !series.contains(&entry) {
            series.push(entry);
        }
        labels
    }

    pub(crate) fn counter(&self, metric: Metric, rest: &[&str]) -> Counter {
        let labels = self.labels(metric, rest);
        self.metrics.counter(metric, &borrowed(&labels))
    }

    pub(crate) fn gauge(&self, metric: Metric, rest: &[&str]) -> Gauge {
        let labels = self.labels(metric, rest);
        self.metrics.gauge(metric, &borrowed(&labels))
    }

    pub(crate) fn histogram(&self, metric: Metric, rest: &[&str]) -> Histogram {
        let labels = self.labels(metric, rest);
        self.metrics.histogram(metric, &borrowed(&labels))
    }

    pub(crate) fn set_state(&self, state: TaskState) {
        // A thread that has lost the task to another of this process is too late to speak for it.
        let owned = self.metrics.owned();
        if owned.threads.get(&self.task) != Some(&self.thread) {
            return;
        }
        for other in TaskState::ALL {
            let labels = [self.task.as_str(), other.label()];
            self.metrics
                .gauge(Metric::TaskStates, &labels)
                .set(i64::from(*other == state));
        }
    }

    pub(crate) fn source(&self, topic: &str, partition: i32) -> SourceMetrics {
        let partition = partition.to_string();
        let labels = [topic, partition.as_str()];
        SourceMetrics {
            processed: self.counter(Metric::RecordsProcessed, &labels),
            skipped: self.counter(Metric::RecordsSkipped, &labels),
            retried: self.counter(Metric::RecordsRetried, &labels),
            dead_lettered: self.counter(Metric::DeadLetterRecords, &labels),
            bytes: self.counter(Metric::ConsumerBytes, &labels),
            lag: self.gauge(Metric::ConsumerLag, &labels),
        }
    }

    pub(crate) fn sink(&self, topic: &str) -> SinkMetrics {
        SinkMetrics {
            records: self.counter(Metric::ProducerRecords, &[topic]),
            bytes: self.counter(Metric::ProducerBytes, &[topic]),
        }
    }

    pub(crate) fn store(&self, store: &str) -> StoreMetrics {
        StoreMetrics {
            restored_records: self.counter(Metric::RestoreRecords, &[store]),
            restored_bytes: self.counter(Metric::RestoreBytes, &[store]),
            remaining_records: self.gauge(Metric::RestoreRemaining, &[store]),
            expired_entries: self.counter(Metric::StateExpired, &[store]),
        }
    }

    pub(crate) fn event_sourcing(&self, aggregate_type: &str) -> EventSourcingMetrics {
        let counter = |metric| self.counter(metric, &[aggregate_type]);
        let commands = |outcome: CommandOutcome| {
            self.counter(Metric::CommandsHandled, &[aggregate_type, outcome.label()])
        };
        EventSourcingMetrics {
            appended: counter(Metric::EventsAppended),
            folded: counter(Metric::EventsFolded),
            repetitions: counter(Metric::EventsRepetitions),
            adopted_openings: counter(Metric::EventsAdoptedOpenings),
            tombstones: counter(Metric::EventsTombstones),
            tombstone_refusals: counter(Metric::EventsTombstoneRefusals),
            large: counter(Metric::EventsLarge),
            refused: counter(Metric::EventsRefused),
            archived: counter(Metric::EventsArchived),
            rebuilt: counter(Metric::EventsRebuilt),
            snapshots: counter(Metric::SnapshotsWritten),
            snapshots_unreadable: counter(Metric::SnapshotsUnreadable),
            states_unreadable: counter(Metric::StatesUnreadable),
            commands_accepted: commands(CommandOutcome::Accepted),
            commands_rejected: commands(CommandOutcome::Rejected),
            commands_conflicting: commands(CommandOutcome::Conflict),
            commands_repeated: commands(CommandOutcome::Repeated),
        }
    }

    pub(crate) fn process(&self, aggregate_type: &str) -> ProcessMetrics {
        let counter = |metric| self.counter(metric, &[aggregate_type]);
        ProcessMetrics {
            steps_issued: counter(Metric::ProcessStepsIssued),
            steps_reissued: counter(Metric::ProcessStepsReissued),
            steps_given_up: counter(Metric::ProcessStepsGivenUp),
            steps_resumed: counter(Metric::ProcessStepsResumed),
            stuck: counter(Metric::ProcessStuck),
        }
    }

    pub(crate) fn projection(&self, name: &str) -> ProjectionMetrics {
        ProjectionMetrics {
            generation: self.gauge(Metric::ProjectionGeneration, &[name]),
            position: self.gauge(Metric::ProjectionPosition, &[name]),
            lag: self.gauge(Metric::ProjectionLag, &[name]),
        }
    }

    pub(crate) fn topology_counter(&self, name: &str) -> Counter {
        let known = {
            let counters = &mut self.metrics.owned().counters;
            let short = name.chars().count() <= COUNTER_NAME_CHARS_MAX;
            let room = counters.len() < TOPOLOGY_COUNTERS_MAX;
            counters.contains(name) || (short && room && counters.insert(name.to_owned()))
        };
        self.counter(
            Metric::TopologyCounted,
            &[if known { name } else { "other" }],
        )
    }
}

fn borrowed(labels: &[String]) -> Vec<&str> {
    labels.iter().map(String::as_str).collect()
}
