//! Task idling (KIP-695) on the embedded log under virtual time: which record is next while a partition
//! has none.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

use std::sync::Arc;
use std::time::Duration;

use millstream::clock::{Clock, ManualClock};
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{
    Headers, Isolation, Log, LogMessage, LogProducer, LogReader, ProducerRecord, ProducerSpec,
    TopicName, TopicPartition,
};
use millstream::metrics::Metrics;
use millstream::prelude::*;
use millstream::query::QueryRegistry;
use millstream::runtime::{
    NoProbe, RestoreExecutor, RuntimeConfig, StreamThread, ThreadSpec, ThreadStatus, ensure_topics,
};
use millstream::state::{GlobalStores, MemoryBudget, StateDir};

/// A thread that copies `left` and `right` to `out`.
struct Site {
    log: EmbeddedLog,
    clock: ManualClock,
    thread: StreamThread<EmbeddedLog>,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let clock = ManualClock::at(1_700_000_000_000);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let log = EmbeddedLog::in_memory(Arc::clone(&shared)).with_virtual_time();
        let dir = tempfile::tempdir().unwrap();
        let mut config = RuntimeConfig::new("app", dir.path());
        config.default_partitions = 1;
        config.memory_max = 64 * 1024 * 1024;
        config.commit_interval = Duration::from_millis(1);
        config.commit_min_interval = Duration::ZERO;
        change(&mut config);
        let builder = StreamsBuilder::new();
        let texts = Consumed::with(serdes::string(), serdes::string());
        builder
            .streams(["left", "right"], texts)
            .to("out", Produced::with(serdes::string(), serdes::string()));
        let topology = Arc::new(builder.build().unwrap());
        let topology = Arc::new(ensure_topics(&log, &topology, &config).unwrap());
        let state = StateDir::open(dir.path(), || "one".to_owned()).unwrap();
        let thread = StreamThread::new(ThreadSpec {
            index: 0,
            log: log.clone(),
            queries: QueryRegistry::of(&topology),
            topology,
            config: Arc::new(config),
            clock: shared,
            probe: Arc::new(NoProbe),
            state: Arc::new(state),
            budget: Arc::new(MemoryBudget::new(64 * 1024 * 1024)),
            restores: RestoreExecutor::inline(),
            globals: GlobalStores::default(),
            metrics: Metrics::new(),
            status: Arc::new(ThreadStatus::default()),
            records_per_step: 100,
        })
        .unwrap();
        let mut site = Self {
            log,
            clock,
            thread,
            _dir: dir,
        };
        site.pass(1000);
        site
    }

    /// Lets time pass, a millisecond a step.
    fn pass(&mut self, millis: i64) {
        for _ in 0..millis {
            self.thread.step().unwrap();
            self.clock.advance(1);
        }
    }

    fn producer(&self, transactional_id: Option<&str>) -> <EmbeddedLog as Log>::Producer {
        let spec = ProducerSpec {
            transactional_id: transactional_id.map(str::to_owned),
            transaction_timeout: Duration::from_secs(60),
            client_id: "test".to_owned(),
        };
        self.log.producer(&spec).unwrap()
    }

    fn write(&self, topic: &str, times: impl IntoIterator<Item = i64>) {
        let mut producer = self.producer(None);
        for time in times {
            send(&mut producer, topic, time);
        }
        producer.flush().unwrap();
    }

    /// The timestamps of what came out so far, in order.
    fn times(&self) -> Vec<i64> {
        let mut reader = self.log.reader(Isolation::ReadCommitted).unwrap();
        reader
            .assign(&[(TopicPartition::new("out", 0), 0)])
            .unwrap();
        let mut records = Vec::new();
        while reader.poll(1000, Duration::ZERO, &mut records).unwrap() > 0 {}
        records.iter().map(LogMessage::timestamp).collect()
    }
}

fn send(producer: &mut <EmbeddedLog as Log>::Producer, topic: &str, time: i64) {
    let record = ProducerRecord {
        topic: &TopicName::from(topic),
        partition: Some(0),
        key: Some(b"k"),
        value: Some(b"v"),
        timestamp: time,
        headers: &Headers::new(),
    };
    producer.send(record).unwrap();
}

#[test]
fn a_backlog_is_worked_off_by_timestamp_however_small_the_buffers_are() {
    let mut site = Site::new(|config| config.buffered_records_per_partition = 2);
    // One side is dense, the other sparse: buffers run dry at different times.
    site.write("left", (0..300).map(|n| 1_000 + n));
    site.write("right", (0..30).map(|n| 1_000 + n * 10));
    site.pass(2000);
    let times = site.times();
    assert_eq!(times.len(), 330);
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_partition_that_is_known_to_be_empty_holds_up_nobody_by_default() {
    let mut site = Site::new(|_| {});
    site.write("left", [5]);
    site.pass(50);
    assert_eq!(site.times(), [5]);
}

#[test]
fn a_task_waits_so_long_for_a_producer_that_may_be_about_to_write() {
    let mut site = Site::new(|config| config.task_idle_max = Some(Duration::from_millis(500)));
    site.write("left", [5]);
    site.pass(450);
    assert_eq!(site.times(), [0_i64; 0], "it waits for the other partition");
    // The older record arrives in time.
    site.write("right", [3]);
    site.pass(40);
    assert_eq!(site.times(), [3], "and now for a successor of that one");
    site.pass(600);
    assert_eq!(site.times(), [3, 5], "nothing came");
    // Late is late.
    site.write("right", [4]);
    site.pass(600);
    assert_eq!(site.times(), [3, 5, 4]);
}

#[test]
fn records_that_nobody_may_read_yet_are_not_waited_for() {
    let mut site = Site::new(|_| {});
    let mut producer = site.producer(Some("other"));
    producer.init_transactions().unwrap();
    producer.begin_transaction().unwrap();
    send(&mut producer, "right", 1);
    producer.flush().unwrap();
    // The transaction is open: its record lies below the high watermark.
    site.write("left", [5]);
    site.pass(300);
    assert_eq!(site.times(), [5]);
    producer.commit_transaction().unwrap();
    site.pass(300);
    assert_eq!(site.times(), [5, 1]);
}
