//! The production stream thread, stepped by a test, on any log: what the embedded log shows under
//! virtual time, a broker shows as well.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic, in helpers as well"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

pub(crate) mod apps;
pub(crate) mod foreign_key;
pub(crate) mod idling;
pub(crate) mod positions;
pub(crate) mod queries;
pub(crate) mod refusals;

use std::sync::Arc;
use std::time::Duration;

use millstream::clock::{Clock, ManualClock};
use millstream::log::{
    Headers, Isolation, Log, LogError, LogMessage, LogProducer, LogReader, ProducerRecord,
    ProducerSpec, TopicName, TopicPartition,
};
use millstream::metrics::Metrics;
use millstream::query::QueryRegistry;
use millstream::runtime::{
    NoProbe, RestoreExecutor, RuntimeConfig, Step, StreamThread, ThreadError, ThreadSpec,
    ThreadStatus, ensure_topics,
};
use millstream::state::{MemoryBudget, StateDir};
use millstream::topology::Topology;

/// A log, its time, and how to let time pass.
pub(crate) struct Place<L: Log> {
    pub(crate) log: L,
    pub(crate) clock: Arc<dyn Clock>,
    /// The clock again, where time passes by the test's word only.
    pub(crate) advance: Option<ManualClock>,
}

impl<L: Log> Place<L> {
    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) {
        match &self.advance {
            Some(clock) => clock.advance(i64::try_from(time.as_millis()).unwrap()),
            None => std::thread::park_timeout(time),
        }
    }

    /// Calls until `check` has an answer.
    pub(crate) fn until<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let deadline = self.clock.now_ms() + 60_000;
        loop {
            if let Some(answer) = check() {
                return answer;
            }
            assert!(self.clock.now_ms() < deadline, "not within 60 s: {what}");
            self.pass(Duration::from_millis(10));
        }
    }

    /// Repeats a call as long as it is retriable.
    pub(crate) fn settle<T>(&self, what: &str, mut call: impl FnMut() -> Result<T, LogError>) -> T {
        self.until(what, || match call() {
            Ok(value) => Some(value),
            Err(LogError::Retriable { .. } | LogError::UnknownOutcome { .. }) => None,
            Err(error) => panic!("{what}: {error}"),
        })
    }

    /// Writes values under the key `k` to partition 0, outside of a transaction.
    pub(crate) fn write(&self, topic: &str, values: &[Vec<u8>]) {
        let mut producer = self.log.producer(&self.producer_spec(None)).unwrap();
        for value in values {
            self.send(&mut producer, topic, value);
        }
        self.settle("flush", || producer.flush());
    }

    /// Writes a record for each timestamp.
    pub(crate) fn write_at(&self, topic: &str, times: impl IntoIterator<Item = i64>) {
        let mut producer = self.log.producer(&self.producer_spec(None)).unwrap();
        for time in times {
            Self::send_at(&mut producer, topic, b"v", time);
        }
        self.settle("flush", || producer.flush());
    }

    /// Writes values in one transaction.
    pub(crate) fn write_transaction(&self, topic: &str, values: &[Vec<u8>], commit: bool) {
        let id = unique("writer");
        let mut producer = self.log.producer(&self.producer_spec(Some(id))).unwrap();
        self.settle("init", || producer.init_transactions());
        producer.begin_transaction().unwrap();
        for value in values {
            self.send(&mut producer, topic, value);
        }
        self.settle("flush", || producer.flush());
        if commit {
            self.settle("commit", || producer.commit_transaction());
        } else {
            self.settle("abort", || producer.abort_transaction());
        }
    }

    fn producer_spec(&self, transactional_id: Option<String>) -> ProducerSpec {
        ProducerSpec {
            transactional_id,
            transaction_timeout: Duration::from_secs(10),
            client_id: "test".to_owned(),
        }
    }

    fn send(&self, producer: &mut L::Producer, topic: &str, value: &[u8]) {
        Self::send_at(producer, topic, value, self.clock.now_ms());
    }

    fn send_at(producer: &mut L::Producer, topic: &str, value: &[u8], timestamp: i64) {
        producer
            .send(ProducerRecord {
                topic: &TopicName::from(topic),
                partition: Some(0),
                key: Some(b"k"),
                value: Some(value),
                timestamp,
                headers: &Headers::new(),
            })
            .unwrap();
    }

    /// Reads all committed records of partition 0.
    pub(crate) fn read(&self, topic: &str) -> Vec<L::Message> {
        let at = TopicPartition::new(topic, 0);
        let range = self
            .settle("ranges", || {
                self.log
                    .log_ranges(std::slice::from_ref(&at), Isolation::ReadCommitted)
            })
            .remove(0);
        let mut reader = self.log.reader(Isolation::ReadCommitted).unwrap();
        reader.assign(&[(at.clone(), range.start)]).unwrap();
        let mut records = Vec::new();
        self.until("the end of the topic", || {
            match reader.poll(1000, Duration::from_millis(20), &mut records) {
                Ok(_) | Err(LogError::Retriable { .. }) => {}
                Err(error) => panic!("read {topic}: {error}"),
            }
            (reader.position(&at)? >= range.end).then_some(())
        });
        records
    }

    /// Returns the values of partition 0 as text.
    pub(crate) fn texts(&self, topic: &str) -> Vec<String> {
        self.read(topic)
            .iter()
            .map(|record| String::from_utf8(record.value().unwrap_or_default().to_vec()).unwrap())
            .collect()
    }
}

/// Returns a name that no other test has.
pub(crate) fn unique(what: &str) -> String {
    format!("{what}-{:016x}", fastrand::u64(..))
}

/// Returns a thread's settings, with topics of one partition.
pub(crate) fn config(application: &str, dir: &tempfile::TempDir) -> RuntimeConfig {
    let mut config = RuntimeConfig::new(application, dir.path());
    config.default_partitions = 1;
    config.memory_max = 64 * 1024 * 1024;
    config
}

/// A stream thread at work.
pub(crate) struct Running<L: Log> {
    thread: StreamThread<L>,
    pub(crate) metrics: Metrics,
    pub(crate) queries: Arc<QueryRegistry>,
}

impl<L: Log> Running<L> {
    pub(crate) fn start(
        place: &Place<L>,
        topology: &Arc<Topology>,
        config: &RuntimeConfig,
    ) -> Self {
        let topology = Arc::new(ensure_topics(&place.log, topology, config).unwrap());
        let metrics = Metrics::new();
        let queries = QueryRegistry::of(&topology);
        let state = StateDir::open(&config.state_dir, || unique("process")).unwrap();
        let thread = StreamThread::new(ThreadSpec {
            index: 0,
            log: place.log.clone(),
            queries: Arc::clone(&queries),
            topology,
            config: Arc::new(config.clone()),
            clock: Arc::clone(&place.clock),
            probe: Arc::new(NoProbe),
            state: Arc::new(state),
            budget: Arc::new(MemoryBudget::new(64 * 1024 * 1024)),
            restores: RestoreExecutor::inline(),
            globals: millstream::state::GlobalStores::default(),
            metrics: metrics.clone(),
            status: Arc::new(ThreadStatus::default()),
            records_per_step: 100,
        })
        .unwrap();
        Self {
            thread,
            metrics,
            queries,
        }
    }

    /// Steps the thread until `done`.
    pub(crate) fn run_until(
        &mut self,
        place: &Place<L>,
        what: &str,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<(), ThreadError> {
        let deadline = place.clock.now_ms() + 60_000;
        loop {
            let step = self.thread.step()?;
            if done(self) {
                return Ok(());
            }
            assert!(
                place.clock.now_ms() < deadline,
                "not within 60 s: {what}\n{}",
                self.metrics.render()
            );
            if let Step::Idle(wait) = step {
                self.thread.wait(wait);
                if place.advance.is_some() {
                    place.pass(wait.max(Duration::from_millis(1)));
                }
            }
        }
    }

    /// Steps the thread until it has nothing to do.
    pub(crate) fn run_dry(&mut self, place: &Place<L>) -> Result<(), ThreadError> {
        self.run_until(place, "the thread comes to rest", |running| {
            running.thread.is_quiescent()
        })
    }

    /// Stops the thread in an orderly way.
    pub(crate) fn stop(mut self, place: &Place<L>) {
        self.thread.stop();
        place.until("the thread stops", || {
            (self.thread.step().unwrap() == Step::Stopped).then_some(())
        });
    }

    /// Returns the sum of a metric's series.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        sum(&self.metrics, name)
    }
}

/// Returns the sum of a metric's series.
pub(crate) fn sum(metrics: &Metrics, name: &str) -> f64 {
    metrics
        .render()
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}
