//! The sinks of a process: started after its stream threads, stopped after them.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::status::{SinkState, SinkStatus};
use super::stop::Stop;
use super::worker::{Worker, WorkerSpec};
use super::{ConfiguredSink, SinkContext, SinkError, SinkTopic};
use crate::clock::Clock;
use crate::format::names::{sink_group, sink_identity};
use crate::log::{ConsumerSpec, Log, LogError, TopicName};
use crate::metrics::Metrics;

/// What the sinks of a process are made of.
pub struct SinksSpec<L: Log> {
    /// The log.
    pub log: L,
    /// The runtime that drives their connections.
    pub runtime: Handle,
    /// The application's id.
    pub application_id: String,
    /// The process's id.
    pub process_id: String,
    /// `session.timeout.ms` of their groups.
    pub session_timeout: Duration,
    /// The time that errors are shown with.
    pub clock: Arc<dyn Clock>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// Each sink with its topics, as [`resolve_topics`] finds them.
    pub sinks: Vec<(ConfiguredSink, Vec<SinkTopic>)>,
}

impl<L: Log> fmt::Debug for SinksSpec<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinksSpec")
            .field("sinks", &self.sinks)
            .finish_non_exhaustive()
    }
}

/// Finds the topics of a sink in the log; `name_of` gives a declared topic's name in the cluster.
///
/// # Errors
/// [`LogError`], [`LogError::UnknownTopic`] among them.
pub fn resolve_topics<L: Log>(
    log: &L,
    sink: &ConfiguredSink,
    name_of: impl Fn(&str) -> String,
) -> Result<Vec<SinkTopic>, LogError> {
    let declared = sink.sink.topics();
    let names: Vec<String> = declared.iter().map(|topic| name_of(topic)).collect();
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = log.describe_topics(&wanted)?;
    let topics = declared.into_iter().zip(&names).zip(found);
    topics
        .map(|((declared, name), found)| {
            let found = found.ok_or_else(|| LogError::UnknownTopic {
                topic: name.clone(),
            })?;
            Ok(SinkTopic {
                declared,
                name: TopicName::clone(&found.name),
                partitions: found.partitions,
                id: found.id,
            })
        })
        .collect()
}

/// Starts sinks.
#[derive(Debug)]
pub struct SinkSet;

impl SinkSet {
    /// Starts a thread for each sink; returns at once.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start<L: Log>(spec: SinksSpec<L>) -> io::Result<RunningSinks> {
        let mut running = RunningSinks::default();
        for (configured, topics) in spec.sinks {
            let ConfiguredSink { name, sink } = configured;
            let group = sink_group(&spec.application_id, &name);
            let status = SinkStatus::new(&name, sink.kind(), &group, Arc::clone(&spec.clock));
            let identity = sink_identity(&spec.application_id, &name, &spec.process_id);
            let stop = Arc::new(Stop::default());
            let worker = WorkerSpec {
                log: spec.log.clone(),
                consumer: ConsumerSpec {
                    group: group.clone(),
                    // Static: a process that was killed and comes back goes on at once.
                    group_instance_id: Some(identity.clone()),
                    client_id: identity,
                    session_timeout: spec.session_timeout,
                },
                runtime: spec.runtime.clone(),
                metrics: spec.metrics.sink(&name),
                context: SinkContext { group, topics },
                name: name.clone(),
                sink,
                status: status.clone(),
                stop: Arc::clone(&stop),
            };
            let shown = status.clone();
            let thread = std::thread::Builder::new()
                .name(format!("sink-{name}"))
                .spawn(move || supervise(worker, &shown))?;
            running.0.push(RunningSink {
                name,
                status,
                stop,
                thread,
            });
        }
        Ok(running)
    }
}

/// A panic ends the sink, not the process, and is seen.
fn supervise<L: Log>(spec: WorkerSpec<L>, status: &SinkStatus) {
    let (name, connected) = (spec.name.clone(), spec.metrics.connected.clone());
    let stop = Arc::clone(&spec.stop);
    let ended = catch_unwind(AssertUnwindSafe(|| Worker::new(spec).run()));
    // One that was left behind may outlive the runtime that it waits on.
    if ended.is_err() && !stop.is_set() {
        connected.set(0);
        tracing::error!(sink = name, "the sink has panicked and does not go on");
        let error = SinkError::failed("the sink has panicked: a bug; it goes on with a restart");
        status.error(SinkState::Failed, error.to_string());
    }
}

struct RunningSink {
    name: String,
    status: SinkStatus,
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

/// Sinks at work. Dropping them stops none.
#[derive(Default)]
pub struct RunningSinks(Vec<RunningSink>);

impl fmt::Debug for RunningSinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|sink| &sink.name);
        f.debug_list().entries(names).finish()
    }
}

impl RunningSinks {
    /// Returns what shows each sink.
    #[must_use]
    pub fn statuses(&self) -> Vec<SinkStatus> {
        self.0.iter().map(|sink| sink.status.clone()).collect()
    }

    /// Lets each sink end the write that is under way and leave its group; one that takes longer than
    /// `patience` is left behind. Nothing is lost by that: what was not written is read again.
    pub fn stop(self, patience: Duration) {
        for sink in &self.0 {
            sink.stop.set();
        }
        let began = Instant::now();
        for sink in self.0 {
            while !sink.thread.is_finished() && began.elapsed() < patience {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            if sink.thread.is_finished() {
                // A panic was caught and shown.
                drop(sink.thread.join());
            } else {
                tracing::warn!(sink = sink.name, "did not end in time, left behind");
            }
        }
    }
}
