//! A running broker for tests, or a visible skip.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic, in helpers as well"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::log::kafka::{KafkaConsumer, KafkaLog, KafkaMessage, KafkaProducer};
use millstream::log::{
    ConsumerSpec, Headers, Isolation, Log, LogConsumer, LogError, LogProducer, LogReader,
    MembershipEvent, Offset, ProducerRecord, ProducerSpec, TopicName, TopicPartition, TopicSpec,
};

/// How long a test waits for a condition.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the broker's address, or says that the test is skipped.
pub(crate) fn bootstrap_servers(test: &str) -> Option<String> {
    let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS")
        .ok()
        .filter(|value| !value.is_empty());
    if servers.is_none() {
        // Past the harness's capture: a skip that nobody sees looks like a pass.
        let line =
            format!("SKIPPED {test}: KAFKA_BOOTSTRAP_SERVERS is not set (scripts/test sets it)\n");
        std::io::stderr()
            .write_all(line.as_bytes())
            .expect("stderr is writable");
    }
    servers
}

/// Returns a client of the broker, or says that the test is skipped.
pub(crate) fn broker(test: &str) -> Option<KafkaLog> {
    bootstrap_servers(test).map(|servers| connect(&servers))
}

/// Returns a client of a broker.
pub(crate) fn connect(servers: &str) -> KafkaLog {
    KafkaLog::new(servers, BTreeMap::new()).expect("the defaults are accepted")
}

/// Returns a name that no other test has.
pub(crate) fn unique(what: &str) -> String {
    format!("{what}-{:016x}", fastrand::u64(..))
}

/// Creates a topic under a unique name.
pub(crate) fn topic(log: &KafkaLog, what: &str, partitions: i32) -> TopicName {
    let name = TopicName::from(unique(what));
    log.create_topics(&[TopicSpec {
        name: Arc::clone(&name),
        partitions,
        replication_factor: None,
        config: BTreeMap::from([
            ("max.message.bytes".to_owned(), "16777216".to_owned()),
            // A broker deletes by record timestamp, and the tests' ones are old.
            ("retention.ms".to_owned(), "-1".to_owned()),
        ]),
    }])
    .expect("the topic is created");
    name
}

/// Creates a transactional producer and initialises it.
pub(crate) fn producer(log: &KafkaLog, transactional_id: &str) -> KafkaProducer {
    let mut producer = log
        .producer(&ProducerSpec {
            transactional_id: Some(transactional_id.to_owned()),
            transaction_timeout: Duration::from_secs(10),
            client_id: "test".to_owned(),
        })
        .expect("the producer is created");
    retry("init_transactions", || producer.init_transactions());
    producer
}

/// Returns the settings of a member; a static one with an instance id.
pub(crate) fn member(group: &str, instance: Option<&str>) -> ConsumerSpec {
    ConsumerSpec {
        group: group.to_owned(),
        group_instance_id: instance.map(|instance| format!("{group}-{instance}")),
        client_id: format!("client-{}", instance.unwrap_or("dynamic")),
        session_timeout: Duration::from_secs(6),
    }
}

/// Queues a record with a timestamp and no headers.
pub(crate) fn send(
    producer: &mut KafkaProducer,
    topic: &TopicName,
    partition: i32,
    key: &str,
    value: &[u8],
) -> Result<(), LogError> {
    producer.send(ProducerRecord {
        topic,
        partition: Some(partition),
        key: Some(key.as_bytes()),
        value: Some(value),
        timestamp: 1_700_000_000_000,
        headers: &Headers::new(),
    })
}

/// Calls again while the log says so.
pub(crate) fn retry<T>(what: &str, mut call: impl FnMut() -> Result<T, LogError>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call() {
            Ok(value) => return value,
            Err(LogError::Retriable { .. } | LogError::UnknownOutcome { .. })
                if Instant::now() < deadline => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// Waits until `check` has an answer.
pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Reads a partition from `from` up to its end, under `isolation`.
pub(crate) fn read_all(
    log: &KafkaLog,
    at: &TopicPartition,
    from: Offset,
    isolation: Isolation,
) -> Vec<KafkaMessage> {
    // The high watermark: a commit is answered before its markers are written, so that the last
    // stable offset may still be the one before it.
    let ranges = retry("log_ranges", || {
        log.log_ranges(std::slice::from_ref(at), Isolation::ReadUncommitted)
    });
    let end = ranges.first().expect("one range per partition").end;
    let mut reader = log.reader(isolation).expect("the reader is created");
    reader
        .assign(&[(at.clone(), from)])
        .expect("the partition is assigned");
    let mut records = Vec::new();
    until("the end of the partition", || {
        retry("poll", || {
            reader.poll(1000, Duration::from_millis(100), &mut records)
        });
        (reader.position(at) >= Some(end)).then_some(())
    });
    records
}

/// Serves a member until it has been given partitions; returns them unanswered.
pub(crate) fn await_assigned(consumer: &mut KafkaConsumer) -> Vec<TopicPartition> {
    until("an assignment", || match membership(consumer)? {
        MembershipEvent::Assigned(partitions) => Some(partitions),
        other => panic!("unexpected {other:?}"),
    })
}

/// Serves a member once.
pub(crate) fn membership(consumer: &mut KafkaConsumer) -> Option<MembershipEvent> {
    match consumer.poll_membership() {
        Ok(event) => event,
        Err(LogError::Retriable { .. }) => None,
        Err(error) => panic!("membership: {error}"),
    }
}

/// Polls an assigned partition until `count` records have come.
pub(crate) fn await_records(
    consumer: &mut KafkaConsumer,
    at: &TopicPartition,
    count: usize,
) -> VecDeque<KafkaMessage> {
    let mut records = VecDeque::new();
    until("records", || {
        assert_eq!(membership(consumer), None, "no rebalance was expected");
        retry("poll", || {
            consumer.poll(at, count - records.len(), &mut records)
        });
        if records.len() < count {
            consumer.wait(Duration::from_millis(100));
        }
        (records.len() >= count).then_some(())
    });
    records
}

/// A cluster of one test's own, which it may kill and start again.
pub(crate) struct OwnCluster {
    directory: PathBuf,
    pub(crate) servers: String,
}

impl OwnCluster {
    pub(crate) fn start() -> Self {
        let directory = std::env::temp_dir().join(unique("millstream-own-kafka"));
        let mut cluster = Self {
            directory,
            servers: String::new(),
        };
        let status = cluster.run(&["start"]);
        cluster.servers = status
            .lines()
            .find_map(|line| line.strip_prefix("KAFKA_BOOTSTRAP_SERVERS="))
            .expect("scripts/kafka prints the servers")
            .to_owned();
        cluster
    }

    /// Runs `scripts/kafka` on this cluster.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka");
        let output = Command::new(script)
            .args(arguments)
            .env("MILLSTREAM_KAFKA_DIR", &self.directory)
            .env("MILLSTREAM_KAFKA_HEAP", "512m")
            .output()
            .expect("scripts/kafka runs");
        assert!(
            output.status.success(),
            "scripts/kafka {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        self.run(&["clean"]);
        // What is left is the lock file.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}
