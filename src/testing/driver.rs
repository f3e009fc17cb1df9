//! `TopologyTestDriver`: the production stream thread on an embedded log, one record at a time.
//!
//! # Position
//! For authors' tests: pipe records in, read what comes out, advance time, look into stores. Kafka
//! Streams' class of that name drives a task by hand; this one steps the real
//! [`StreamThread`], so repartition topics, changelogs, transactions and commits are the real ones.
//! # What it does not simulate
//! Several threads or processes, rebalances, crashes within a transaction and faults of the log: that is
//! the simulation's part. A crash between two records is [`restart`](TopologyTestDriver::restart).
//! Wall-clock time stands still unless it is advanced; a pause after a failure, as of a fault that a test
//! injects into the [`log`](TopologyTestDriver::log), is waited out.

mod topics;

pub use topics::{TestInputTopic, TestOutputTopic};

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::temp_dir::TempDir;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::format::{names, value};
use crate::log::embedded::EmbeddedLog;
use crate::log::{
    Headers, Isolation, Log, LogError, LogMessage, LogProducer, LogReader, ProducerRecord,
    ProducerSpec, TopicName, TopicPartition, TopicSpec,
};
use crate::metrics::Metrics;
use crate::processor::BoxError;
use crate::query::{Found, QueryError, QueryRegistry};
use crate::runtime::{
    GlobalSpec, GlobalThread, NoProbe, ResolvedTopology, RestoreExecutor, RuntimeConfig, Step,
    StreamThread, ThreadError, ThreadSpec, ThreadStatus, TopicsError, ensure_topics,
};
use crate::serde::Serde;
use crate::state::{MemoryBudget, StateDir, StateError};
use crate::topology::{ResolvedTopic, TopicRef, Topology};

/// The driver or the topology under test failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The stream thread ended: what a process would report.
    #[error("the stream thread ended")]
    Thread(#[from] ThreadError),
    /// The topology's topics do not fit together.
    #[error("the topology's topics cannot be prepared")]
    Topics(#[from] TopicsError),
    /// The embedded log.
    #[error("the embedded log failed")]
    Log(#[from] LogError),
    /// State.
    #[error("state failed")]
    State(#[from] StateError),
    /// A temporary directory.
    #[error("no directory for state")]
    Io(#[from] std::io::Error),
    /// A serde of the test.
    #[error("a serde failed")]
    Serde(#[source] BoxError),
    /// A query.
    #[error("query failed")]
    Query(#[from] QueryError),
    /// The topology does not name this topic.
    #[error("the topology does not name topic `{0}`")]
    UnknownTopic(String),
    /// A restart has failed before.
    #[error("the stream thread is not running")]
    Stopped,
    /// The topology did not come to rest.
    #[error("the topology is still at work after {0} steps")]
    Busy(usize),
}

/// How many steps may pass before a piped record counts as never ending.
const STEPS_MAX: usize = 100_000;

/// How many steps in a row may do nothing before the thread is taken to wait for time to pass.
const IDLE_STEPS_MAX: usize = 100;

/// Settings of a [`TopologyTestDriver`].
#[derive(Debug, Clone)]
pub struct DriverBuilder {
    partitions: i32,
    start: Timestamp,
    application_id: String,
    records_per_transaction: usize,
}

impl Default for DriverBuilder {
    fn default() -> Self {
        // 2024-01-01T00:00:00Z: any fixed day will do.
        Self {
            partitions: 1,
            start: 1_704_067_200_000,
            application_id: "test".to_owned(),
            records_per_transaction: 1,
        }
    }
}

impl DriverBuilder {
    /// Sets the number of partitions of every topic; 1 unless set.
    #[must_use]
    pub const fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets the wall-clock time at the start.
    #[must_use]
    pub const fn start_at(mut self, start: Timestamp) -> Self {
        self.start = start;
        self
    }

    /// Sets the application id, which internal topics carry.
    #[must_use]
    pub fn application_id(mut self, application_id: impl Into<String>) -> Self {
        self.application_id = application_id.into();
        self
    }

    /// Sets how many records a task takes into a transaction at most; 1 unless set, so that every
    /// record is committed by itself. What is deduplicated per commit
    /// ([`emit_per_commit`](crate::dsl::KTable::emit_per_commit)) shows with more, for records that are
    /// piped together ([`TestInputTopic::pipe_all`]).
    #[must_use]
    pub const fn records_per_transaction(mut self, records: usize) -> Self {
        self.records_per_transaction = records;
        self
    }

    /// Starts `topology`.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn build(self, topology: Topology) -> Result<TopologyTestDriver, DriverError> {
        let clock = ManualClock::at(self.start);
        let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let log = EmbeddedLog::in_memory(Arc::clone(&shared_clock)).with_virtual_time();
        let state_dir = TempDir::new("millstream-test")?;
        let mut config = RuntimeConfig::new(self.application_id, state_dir.path());
        config.default_partitions = self.partitions;
        config.commit_interval = Duration::ZERO;
        config.commit_min_interval = Duration::ZERO;
        // A topic that a test has just made is read before the record that is piped into it.
        config.pattern_refresh_interval = Duration::ZERO;
        config.memory_max = 64 * 1024 * 1024;
        // Time jumps when a test says so: no jump may expire the only member.
        config.session_timeout = Duration::from_secs(100 * 365 * 24 * 3600);
        let topology = Arc::new(ensure_topics(&log, &Arc::new(topology), &config)?);
        let queries = QueryRegistry::of(&topology);
        let metrics = Metrics::new();
        let state = Arc::new(StateDir::open(state_dir.path(), || "driver".to_owned())?);
        let config = Arc::new(config);
        let producer = log.producer(&ProducerSpec {
            transactional_id: None,
            transaction_timeout: Duration::from_secs(10),
            client_id: "driver".to_owned(),
        })?;
        let mut driver = TopologyTestDriver {
            thread: None,
            globals: None,
            config,
            state,
            producer,
            queries,
            metrics,
            topology,
            log,
            clock,
            records_per_transaction: self.records_per_transaction,
            outputs: BTreeMap::new(),
            positions: BTreeMap::new(),
            _state_dir: state_dir,
        };
        driver.start()?;
        Ok(driver)
    }
}

/// A record read from an output topic, undecoded.
#[derive(Debug, Clone)]
struct Output {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: Timestamp,
    headers: Headers,
}

/// Runs a topology on records that a test pipes in.
///
/// ```
/// use millstream::prelude::*;
/// use millstream::testing::TopologyTestDriver;
///
/// let builder = StreamsBuilder::new();
/// builder
///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
///     .group_by_key(Grouped::as_name("by-word"))
///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()))
///     .to_stream()
///     .map_values(|count| count.unwrap_or(0))
///     .to("counts-out", Produced::with(serdes::string(), serdes::i64()));
///
/// let mut driver = TopologyTestDriver::new(builder.build()?)?;
/// let words = driver.input_topic("words", serdes::string(), serdes::string());
/// let counts = driver.output_topic("counts-out", serdes::string(), serdes::i64());
/// words.pipe(&mut driver, "tea".to_owned(), String::new())?;
/// words.pipe(&mut driver, "tea".to_owned(), String::new())?;
/// assert_eq!(counts.read_values(&mut driver)?, vec![1, 2]);
/// assert_eq!(driver.store_value("counts", "tea")?, Some(2.into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TopologyTestDriver {
    /// There is one unless a restart has failed.
    thread: Option<StreamThread<EmbeddedLog>>,
    /// Where the topology has global tables.
    globals: Option<GlobalThread<EmbeddedLog>>,
    config: Arc<RuntimeConfig>,
    state: Arc<StateDir>,
    producer: <EmbeddedLog as Log>::Producer,
    queries: Arc<QueryRegistry>,
    metrics: Metrics,
    topology: Arc<ResolvedTopology>,
    log: EmbeddedLog,
    clock: ManualClock,
    records_per_transaction: usize,
    outputs: BTreeMap<TopicName, VecDeque<Output>>,
    positions: BTreeMap<TopicPartition, i64>,
    _state_dir: TempDir,
}

impl fmt::Debug for TopologyTestDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopologyTestDriver")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

impl TopologyTestDriver {
    /// Starts `topology` with one partition per topic.
    ///
    /// # Errors
    /// [`DriverError`].
    pub fn new(topology: Topology) -> Result<Self, DriverError> {
        DriverBuilder::default().build(topology)
    }

    /// Returns the settings for a driver that differs from [`new`](Self::new).
    #[must_use]
    pub fn builder() -> DriverBuilder {
        DriverBuilder::default()
    }

    /// Returns a typed way into a topic, by its declared name.
    pub fn input_topic<K, V>(
        &self,
        topic: &str,
        key_serde: impl Serde<K>,
        value_serde: impl Serde<V>,
    ) -> TestInputTopic<K, V> {
        TestInputTopic {
            topic: topic.to_owned(),
            key_serde: Arc::new(key_serde),
            value_serde: Arc::new(value_serde),
            records: PhantomData,
        }
    }

    /// Returns a typed way out of a topic, by its declared name.
    pub fn output_topic<K, V>(
        &self,
        topic: &str,
        key_serde: impl Serde<K>,
        value_serde: impl Serde<V>,
    ) -> TestOutputTopic<K, V> {
        TestOutputTopic {
            topic: topic.to_owned(),
            key_serde: Arc::new(key_serde),
            value_serde: Arc::new(value_serde),
        }
    }

    /// Writes a record as bytes to a declared topic, or to one that matches a pattern, which is created
    /// first when it is not there, and lets the topology come to rest.
    ///
    /// # Errors
    /// [`DriverError::UnknownTopic`], and what the topology fails with.
    pub fn pipe_bytes(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: Timestamp,
        headers: &Headers,
    ) -> Result<(), DriverError> {
        self.send_bytes(topic, key, value, timestamp, headers)?;
        self.flush_and_settle()
    }

    fn send_bytes(
        &mut self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: Timestamp,
        headers: &Headers,
    ) -> Result<(), DriverError> {
        let topic = self.input(topic)?;
        let record = ProducerRecord {
            topic: &topic,
            partition: None,
            key,
            value,
            timestamp,
            headers,
        };
        Ok(self.producer.send(record)?)
    }

    fn flush_and_settle(&mut self) -> Result<(), DriverError> {
        self.producer.flush()?;
        self.settle()
    }

    /// Ends the thread without a word, as `kill -9` ends a process, and starts another that takes over
    /// what was committed: state from disk as far as it was flushed, the rest from changelogs; without
    /// `keep_state` everything from changelogs.
    ///
    /// ```
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// builder
    ///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
    ///     .group_by_key(Grouped::as_name("by-word"))
    ///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()))
    ///     .to_stream()
    ///     .to("out", Produced::with(serdes::string(), serdes::optional(serdes::i64())));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let words = driver.input_topic("words", serdes::string(), serdes::string());
    /// words.pipe(&mut driver, "tea".to_owned(), String::new())?;
    /// driver.restart(false)?;
    /// assert_eq!(driver.store_value("counts", "tea")?, Some(1.into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What the topology fails with when it starts.
    pub fn restart(&mut self, keep_state: bool) -> Result<(), DriverError> {
        drop(self.thread.take());
        drop(self.globals.take());
        if !keep_state {
            for task in self.state.tasks()? {
                std::fs::remove_dir_all(self.state.task_dir(task))?;
            }
            let global = names::global_directory(self.state.path());
            if global.exists() {
                std::fs::remove_dir_all(global)?;
            }
        }
        self.start()
    }

    /// As [`restart`](Self::restart), with another topology: the next version of the program finds what
    /// this one has left.
    ///
    /// # Errors
    /// As [`restart`](Self::restart), and when the topics do not fit the new topology.
    pub fn restart_with(
        &mut self,
        topology: Topology,
        keep_state: bool,
    ) -> Result<(), DriverError> {
        drop(self.thread.take());
        let topology = Arc::new(topology);
        self.topology = Arc::new(ensure_topics(&self.log, &topology, &self.config)?);
        self.queries = QueryRegistry::of(&self.topology);
        self.restart(keep_state)
    }

    fn start(&mut self) -> Result<(), DriverError> {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let globals = self.topology.global_stores();
        if !globals.is_ready() {
            self.globals = Some(GlobalThread::new(GlobalSpec {
                log: self.log.clone(),
                topology: Arc::clone(&self.topology),
                config: Arc::clone(&self.config),
                clock: Arc::clone(&clock),
                probe: Arc::new(NoProbe),
                state: Arc::clone(&self.state),
                budget: Arc::new(MemoryBudget::new(64 * 1024 * 1024)),
                stores: globals.clone(),
                queries: Arc::clone(&self.queries),
                metrics: self.metrics.clone(),
                status: Arc::new(ThreadStatus::default()),
            }));
        }
        self.thread = Some(StreamThread::new(ThreadSpec {
            index: 0,
            log: self.log.clone(),
            topology: Arc::clone(&self.topology),
            config: Arc::clone(&self.config),
            clock,
            probe: Arc::new(NoProbe),
            state: Arc::clone(&self.state),
            budget: Arc::new(MemoryBudget::new(64 * 1024 * 1024)),
            restores: RestoreExecutor::inline(),
            globals,
            queries: Arc::clone(&self.queries),
            metrics: self.metrics.clone(),
            status: Arc::new(ThreadStatus::default()),
            records_per_step: self.records_per_transaction,
        })?);
        self.settle()
    }

    /// Moves wall-clock time on; punctuators fire.
    ///
    /// # Errors
    /// What the topology fails with.
    pub fn advance_wall_clock_time(&mut self, by: Duration) -> Result<(), DriverError> {
        self.clock
            .advance(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        self.settle()
    }

    /// Returns the wall-clock time.
    #[must_use]
    pub fn now_ms(&self) -> Timestamp {
        self.clock.now_ms()
    }

    /// Returns the committed value of a key given as text, as JSON.
    ///
    /// # Errors
    /// [`DriverError::Query`].
    pub fn store_value(
        &self,
        store: &str,
        key: &str,
    ) -> Result<Option<serde_json::Value>, DriverError> {
        Ok(self
            .queries
            .get(store, key)?
            .map(|Found { value, .. }| value))
    }

    /// As [`store_value`](Self::store_value), of the value that a versioned store had at `as_of`.
    ///
    /// # Errors
    /// [`DriverError::Query`], when the store is not versioned too.
    pub fn store_value_as_of(
        &self,
        store: &str,
        key: &str,
        as_of: Timestamp,
    ) -> Result<Option<serde_json::Value>, DriverError> {
        Ok(self
            .queries
            .get_as_of(store, key, as_of)?
            .map(|Found { value, .. }| value))
    }

    /// Returns all committed entries of a store, decoded, in key order of each partition.
    ///
    /// # Errors
    /// [`DriverError::Query`], [`DriverError::Serde`].
    pub fn store_entries<K, V>(
        &self,
        store: &str,
        key_serde: &impl Serde<K>,
        value_serde: &impl Serde<V>,
    ) -> Result<Vec<(K, V)>, DriverError> {
        let mut entries = Vec::new();
        for (key, stored) in self.queries.dump(store)? {
            let plain = value::decode(&stored).map(|(_, plain)| plain);
            let key = key_serde
                .deserialize(Some(&key))
                .map_err(DriverError::Serde)?;
            let value = value_serde.deserialize(plain).map_err(DriverError::Serde)?;
            entries.push((key, value));
        }
        Ok(entries)
    }

    /// Returns the metrics in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics.render()
    }

    /// Returns the committed state, for what reads it by itself: interactive queries, the history of
    /// aggregates.
    #[must_use]
    pub const fn queries(&self) -> &Arc<QueryRegistry> {
        &self.queries
    }

    /// Returns the embedded log, to look at everything.
    #[must_use]
    pub const fn log(&self) -> &EmbeddedLog {
        &self.log
    }

    /// Returns the physical name of a topic to pipe into.
    fn input(&self, topic: &str) -> Result<TopicName, DriverError> {
        let known = self
            .resolve(topic)
            .map(|topic| TopicName::clone(&topic.name));
        let sources = self.topology.all().flat_map(|sub| &sub.drawn.sources);
        let mut patterns = sources.filter_map(|source| match &source.topic {
            TopicRef::Pattern(pattern) => Some(pattern),
            TopicRef::Declared(_) | TopicRef::Repartition(_) => None,
        });
        if known.is_ok() || !patterns.any(|pattern| pattern.matches(topic)) {
            return known;
        }
        let name = TopicName::from(topic);
        self.log.create_topics(&[TopicSpec {
            name: TopicName::clone(&name),
            partitions: self.config.default_partitions,
            replication_factor: None,
            config: BTreeMap::new(),
        }])?;
        Ok(name)
    }

    fn resolve(&self, topic: &str) -> Result<&ResolvedTopic, DriverError> {
        self.topology
            .topics
            .get(&TopicRef::Declared(topic.to_owned()))
            .ok_or_else(|| DriverError::UnknownTopic(topic.to_owned()))
    }

    /// Steps the thread until nothing is left to read, process or commit.
    fn settle(&mut self) -> Result<(), DriverError> {
        let Some(thread) = &mut self.thread else {
            return Err(DriverError::Stopped);
        };
        let mut idle_steps = 0;
        for _ in 0..STEPS_MAX {
            // Global tables first: what was piped before a record is there when it is joined.
            if let Some(globals) = &mut self.globals
                && globals.step(Duration::ZERO)? == Step::Worked
            {
                continue;
            }
            let Step::Idle(pause) = thread.step()? else {
                idle_steps = 0;
                continue;
            };
            if thread.is_quiescent() {
                return Ok(());
            }
            idle_steps += 1;
            if idle_steps >= IDLE_STEPS_MAX {
                // It waits after a failure: nobody else moves its clock.
                let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
                self.clock.advance(pause.max(1));
            }
        }
        Err(DriverError::Busy(STEPS_MAX))
    }

    /// Takes over what was committed to a topic since the last look.
    fn collect(&mut self, topic: &ResolvedTopic) -> Result<(), DriverError> {
        let partitions: Vec<(TopicPartition, i64)> = (0..topic.partitions)
            .map(|partition| {
                let partition = TopicPartition::new(TopicName::clone(&topic.name), partition);
                let position = self.positions.get(&partition).copied().unwrap_or(0);
                (partition, position)
            })
            .collect();
        let mut reader = self.log.reader(Isolation::ReadCommitted)?;
        reader.assign(&partitions)?;
        let mut messages = Vec::new();
        while reader.poll(1000, Duration::ZERO, &mut messages)? > 0 {}
        for (partition, _) in partitions {
            if let Some(position) = reader.position(&partition) {
                self.positions.insert(partition, position);
            }
        }
        let queue = self
            .outputs
            .entry(TopicName::clone(&topic.name))
            .or_default();
        queue.extend(messages.iter().map(|message| Output {
            key: message.key().map(<[u8]>::to_vec),
            value: message.value().map(<[u8]>::to_vec),
            timestamp: message.timestamp(),
            headers: message.headers(),
        }));
        Ok(())
    }
}
