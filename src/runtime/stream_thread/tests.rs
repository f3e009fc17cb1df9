//! Stream threads on the embedded log, stepped by hand under virtual time.

mod drain;
mod memory;
mod patterns;
mod readiness;
mod restore;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Step, StreamThread, ThreadSpec};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::log::embedded::{EmbeddedLog, Fault, FaultPlan, FaultPoint, FaultSite};
use crate::log::{Headers, Log, LogProducer, ProducerRecord, ProducerSpec, TopicName};
use crate::metrics::Metrics;
use crate::prelude::*;
use crate::query::QueryRegistry;
use crate::runtime::{
    Membership, NoProbe, ResolvedTopology, RestoreExecutor, RuntimeConfig, ThreadStatus,
    ensure_topics,
};
use crate::state::{MemoryBudget, StateDir};
use crate::testing::temp_dir::TempDir;

const START: Timestamp = 1_704_067_200_000;
const MEMORY: usize = 64 << 20;
/// Steps within which anything that a test waits for has to happen.
const STEPS_MAX: usize = 10_000;

/// Counts `words` by key in the store `counts`.
fn counts(builder: &StreamsBuilder) -> KTable<String, i64> {
    builder
        .stream("words", Consumed::with(serdes::string(), serdes::string()))
        .group_by_key(Grouped::as_name("by-word"))
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ))
}

/// A log, a topology and a clock.
struct Site {
    log: EmbeddedLog,
    clock: ManualClock,
    topology: Arc<ResolvedTopology>,
    config: RuntimeConfig,
}

impl Site {
    /// Counts `words` by key in the store `counts`.
    fn new(partitions: i32, change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let builder = StreamsBuilder::new();
        drop(counts(&builder));
        Self::of(builder, partitions, change)
    }

    fn of(
        builder: StreamsBuilder,
        partitions: i32,
        change: impl FnOnce(&mut RuntimeConfig),
    ) -> Self {
        let clock = ManualClock::at(START);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let log = EmbeddedLog::in_memory(shared).with_virtual_time();
        let mut config = RuntimeConfig::new("app", "unused");
        config.default_partitions = partitions;
        config.memory_max = MEMORY as u64;
        change(&mut config);
        let topology = Arc::new(builder.build().unwrap());
        let topology = Arc::new(ensure_topics(&log, &topology, &config).unwrap());
        Self {
            log,
            clock,
            topology,
            config,
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now_ms()
    }

    /// Writes one record for each of `keys` to `words`.
    fn write<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) {
        let mut producer = self
            .log
            .producer(&ProducerSpec {
                transactional_id: None,
                transaction_timeout: Duration::from_secs(10),
                client_id: "writer".to_owned(),
            })
            .unwrap();
        for key in keys {
            let record = ProducerRecord {
                topic: &TopicName::from("words"),
                partition: None,
                key: Some(key.as_ref().as_bytes()),
                value: Some(b"-"),
                timestamp: self.now(),
                headers: &Headers::new(),
            };
            producer.send(record).unwrap();
        }
        producer.flush().unwrap();
    }
}

/// A process with one thread.
struct Member {
    thread: StreamThread<EmbeddedLog>,
    status: Arc<ThreadStatus>,
    metrics: Metrics,
    queries: Arc<QueryRegistry>,
}

impl Member {
    fn start(site: &Site, dir: &TempDir) -> Self {
        let (status, metrics) = (Arc::new(ThreadStatus::default()), Metrics::new());
        let queries = QueryRegistry::of(&site.topology);
        let name = dir.path().file_name().unwrap().to_string_lossy();
        let state = StateDir::open(dir.path(), || name.into_owned()).unwrap();
        let thread = StreamThread::new(ThreadSpec {
            index: 0,
            log: site.log.clone(),
            topology: Arc::clone(&site.topology),
            config: Arc::new(site.config.clone()),
            clock: Arc::new(site.clock.clone()),
            probe: Arc::new(NoProbe),
            state: Arc::new(state),
            budget: Arc::new(MemoryBudget::new(MEMORY)),
            restores: RestoreExecutor::inline(),
            globals: crate::state::GlobalStores::default(),
            queries: Arc::clone(&queries),
            metrics: metrics.clone(),
            status: Arc::clone(&status),
            records_per_step: 100,
        })
        .unwrap();
        Self {
            thread,
            status,
            metrics,
            queries,
        }
    }

    fn step(&mut self) -> Step {
        self.thread.step().unwrap()
    }

    fn is_ready(&self) -> bool {
        self.status.snapshot().ready()
    }

    fn membership(&self) -> Membership {
        self.status.snapshot().membership
    }

    fn tasks(&self) -> usize {
        self.status.snapshot().tasks.len()
    }

    fn count(&self, key: &str) -> Option<i64> {
        let found = self.queries.get("counts", key).unwrap();
        found.and_then(|found| found.value.as_i64())
    }

    /// Returns the sum of a metric's series whose labels contain `label`.
    fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.metrics.render();
        let series = text.lines().filter_map(|line| line.strip_prefix(name));
        let series = series.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
        let values = series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    /// Stops the thread cleanly.
    fn stop(mut self, site: &Site) {
        self.thread.stop();
        for _ in 0..STEPS_MAX {
            if self.step() == Step::Stopped {
                return;
            }
            site.clock.advance(10);
        }
        panic!("the thread does not stop");
    }
}

/// Steps all members in turn, 10 ms apart, until `reached`.
fn run_until(
    site: &Site,
    members: &mut [&mut Member],
    what: &str,
    reached: impl Fn(&[&mut Member]) -> bool,
) {
    for _ in 0..STEPS_MAX {
        if reached(members) {
            return;
        }
        for member in members.iter_mut() {
            member.step();
        }
        site.clock.advance(10);
    }
    let statuses: Vec<_> = members.iter().map(|it| it.status.snapshot()).collect();
    panic!("not reached: {what}; {statuses:?}");
}

fn dir() -> TempDir {
    TempDir::new("millstream-thread").unwrap()
}

/// Answers every operation at one point with the same fault, while there is one.
#[derive(Debug, Clone, Default)]
struct FaultAt(Arc<Mutex<Option<(FaultPoint, Fault)>>>);

impl FaultAt {
    fn set(&self, fault: Option<(FaultPoint, Fault)>) {
        *self.0.lock().unwrap() = fault;
    }
}

impl FaultPlan for FaultAt {
    fn decide(&self, site: &FaultSite<'_>) -> Option<Fault> {
        let fault = *self.0.lock().unwrap();
        fault
            .filter(|(point, _)| *point == site.point)
            .map(|(_, fault)| fault)
    }
}
