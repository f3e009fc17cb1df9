//! A database of the tests' own, a topic that fills a table, and processes that do it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic, in helpers as well, and says how to run it again"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::clock::SystemClock;
use millstream::config::{Config, LogKind, Parameters};
use millstream::log::{
    Headers, Isolation, Log, LogProducer, ProducerRecord, ProducerSpec, TopicName, TopicPartition,
    TopicSpec,
};
use millstream::metrics::Metrics;
use millstream::sink::{
    ConfiguredSink, RunningSinks, SinkContext, SinkDeclaration, SinkSet, SinkStatus, SinkView,
    SinksSpec, resolve_topics,
};
use millstream_postgres::{Column, Migration, PostgresSink, Source, SqlType, Table};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

/// How long a test waits for a condition.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The declared name of the topic.
pub(crate) const TOPIC: &str = "items";
const URL: &str = "MILLSTREAM_POSTGRES_URL";

/// A table whose trigger refuses to see one version of an item twice: what is written again, rather
/// than once, is an error of the database and stops the sink.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "items",
    sql: "CREATE TABLE items (id text PRIMARY KEY, amount numeric NOT NULL, note text, \
          version bigint NOT NULL CHECK (version <> 666));
          CREATE TABLE applied (id text, version bigint, PRIMARY KEY (id, version));
          CREATE FUNCTION note_applied() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN
              INSERT INTO applied VALUES (NEW.id, NEW.version);
              RETURN NEW;
          END $$;
          CREATE TRIGGER applied_once AFTER INSERT OR UPDATE ON items
              FOR EACH ROW EXECUTE FUNCTION note_applied();
          CREATE FUNCTION forget_applied() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN
              TRUNCATE applied;
              RETURN NULL;
          END $$;
          CREATE TRIGGER applied_afresh AFTER TRUNCATE ON items EXECUTE FUNCTION forget_applied();",
}];

pub(crate) fn table() -> Table {
    Table::new("items", TOPIC)
        .column(Column::new("id", SqlType::Text).from(Source::Key).primary())
        .column(Column::new("amount", SqlType::Numeric))
        .column(Column::new("note", SqlType::Text).nullable())
        .column(Column::new("version", SqlType::BigInt).version())
}

pub(crate) fn declaration() -> SinkDeclaration {
    PostgresSink::declare("items", "test", MIGRATIONS, vec![table()])
}

/// Prints the seed that a failure needs.
pub(crate) fn random(test: &str) -> fastrand::Rng {
    let seed = std::env::var("MILLSTREAM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("again with MILLSTREAM_SEED={seed} scripts/test postgres ({test})");
    fastrand::Rng::with_seed(seed)
}

pub(crate) fn unique(what: &str) -> String {
    format!("{what}_{:016x}", fastrand::u64(..))
}

/// Waits until `condition` gives something.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Runs `scripts/postgres` with the server of these tests.
pub(crate) fn server(command: &str) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/postgres");
    let output = Command::new(script).arg(command).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
}

/// A schema of a test's own.
pub(crate) struct Database {
    pub(crate) runtime: Runtime,
    pub(crate) url: String,
    pub(crate) schema: String,
}

impl Database {
    /// Returns a schema, or says that the test is skipped.
    pub(crate) fn of(test: &str) -> Option<Self> {
        let url = std::env::var(URL).ok().filter(|url| !url.is_empty());
        let Some(url) = url else {
            // Past the harness's capture: a skip that nobody sees looks like a pass.
            let line = format!("SKIPPED {test}: {URL} is not set (scripts/test sets it)\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Some(Self {
            runtime,
            url,
            schema: unique("test"),
        })
    }

    /// Connects, with the schema as the search path.
    pub(crate) fn client(&self) -> Client {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
            tokio::spawn(connection);
            let path = format!("SET search_path TO {}", self.schema);
            client.batch_execute(&path).await.unwrap();
            client
        })
    }

    pub(crate) fn execute(&self, sql: &str) {
        let client = self.client();
        self.runtime.block_on(client.batch_execute(sql)).unwrap();
    }

    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.try_number(sql).expect("the tables are there")
    }

    /// `None` as long as there are no tables.
    pub(crate) fn try_number(&self, sql: &str) -> Option<i64> {
        let client = self.client();
        let row = self.runtime.block_on(client.query_one(sql, &[])).ok()?;
        Some(row.get(0))
    }

    /// Returns the table: amount, note and version by id.
    pub(crate) fn rows(&self) -> Rows {
        let client = self.client();
        let sql = "SELECT id, amount::text, note, version FROM items";
        let rows = self.runtime.block_on(client.query(sql, &[])).unwrap();
        rows.iter()
            .map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3))))
            .collect()
    }

    /// Returns the settings of a sink on this schema.
    pub(crate) fn parameters(&self, more: &str) -> Parameters {
        let text = format!(
            "application_id: test\ntopology: test\nsinks:\n  items:\n    url: \"{}\"\n    \
             schema: {}\n{more}",
            self.url, self.schema
        );
        let config = Config::parse("test.yaml", &text, &[], &|_| None, LogKind::Embedded);
        let mut config = config.unwrap_or_else(|errors| panic!("{errors}"));
        config.sinks.remove("items").unwrap()
    }

    pub(crate) fn sink(&self, more: &str) -> ConfiguredSink {
        declaration().make(&self.parameters(more)).unwrap()
    }
}

/// What a table is to be: amount, note and version by id.
pub(crate) type Rows = BTreeMap<String, (String, Option<String>, i64)>;

/// A topic, and what its records fold to.
pub(crate) struct Items<L: Log> {
    pub(crate) log: L,
    pub(crate) topic: TopicName,
    pub(crate) application: String,
    pub(crate) partitions: i32,
    producer: L::Producer,
    pub(crate) expected: Rows,
    /// The last version of each id, deleted ones too.
    versions: BTreeMap<String, i64>,
}

impl<L: Log> Items<L> {
    pub(crate) fn new(log: &L, partitions: i32) -> Self {
        let topic = TopicName::from(unique("items"));
        create_topic(log, &topic, partitions);
        let producer = log
            .producer(&ProducerSpec {
                transactional_id: None,
                transaction_timeout: Duration::from_secs(10),
                client_id: "test".to_owned(),
            })
            .unwrap();
        Self {
            log: log.clone(),
            topic,
            application: unique("app"),
            partitions,
            producer,
            expected: Rows::new(),
            versions: BTreeMap::new(),
        }
    }

    /// Deletes the topic and creates another one of its name.
    pub(crate) fn create_again(&mut self) {
        self.log.delete_topics(&[&self.topic]).unwrap();
        create_topic(&self.log, &self.topic, self.partitions);
        self.expected.clear();
        self.versions.clear();
    }

    /// Writes a record as it is; `None` lets the producer choose the partition by the key.
    pub(crate) fn raw(&mut self, partition: Option<i32>, key: &str, value: Option<&[u8]>) {
        self.producer
            .send(ProducerRecord {
                topic: &self.topic,
                partition,
                key: Some(key.as_bytes()),
                value,
                timestamp: 1_700_000_000_000,
                headers: &Headers::new(),
            })
            .unwrap();
    }

    /// Writes the next version of an item.
    pub(crate) fn put(&mut self, id: &str, amount: &str) -> i64 {
        let version = self.versions.get(id).copied().unwrap_or(0) + 1;
        self.versions.insert(id.to_owned(), version);
        let value = format!(r#"{{"amount":"{amount}","version":{version}}}"#);
        self.raw(None, id, Some(value.as_bytes()));
        let row = (amount.to_owned(), None, version);
        self.expected.insert(id.to_owned(), row);
        version
    }

    pub(crate) fn delete(&mut self, id: &str) {
        self.raw(None, id, None);
        self.expected.remove(id);
    }

    /// Writes random records of `ids` items, one in eight a tombstone.
    pub(crate) fn random(&mut self, random: &mut fastrand::Rng, count: usize, ids: usize) {
        for _ in 0..count {
            let id = format!("item-{}", random.usize(..ids));
            if random.u8(..8) == 0 {
                self.delete(&id);
            } else {
                let amount = format!("{}.{:02}", random.i32(-1000..1000), random.u8(..100));
                self.put(&id, &amount);
            }
        }
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        self.producer.flush().unwrap();
    }

    pub(crate) fn ends(&self) -> i64 {
        let partitions: Vec<TopicPartition> = (0..self.partitions)
            .map(|partition| TopicPartition::new(TopicName::clone(&self.topic), partition))
            .collect();
        let ranges = self.log.log_ranges(&partitions, Isolation::ReadCommitted);
        ranges.unwrap().iter().map(|range| range.end).sum()
    }

    pub(crate) fn group(&self) -> String {
        format!("{}-items", self.application)
    }

    /// Starts a process that does nothing but run this sink.
    pub(crate) fn run(&self, database: &Database, process: &str, sink: ConfiguredSink) -> Running {
        let topics = resolve_topics(&self.log, &sink, |_| self.topic.to_string()).unwrap();
        let metrics = Metrics::new();
        let sinks = SinkSet::start(SinksSpec {
            log: self.log.clone(),
            runtime: database.runtime.handle().clone(),
            application_id: self.application.clone(),
            process_id: process.to_owned(),
            session_timeout: Duration::from_secs(6),
            clock: Arc::new(SystemClock),
            metrics: metrics.clone(),
            sinks: vec![(sink, topics)],
        })
        .unwrap();
        Running {
            status: sinks.statuses().remove(0),
            sinks,
            metrics,
        }
    }

    pub(crate) fn context(&self, sink: &ConfiguredSink) -> SinkContext {
        SinkContext {
            group: self.group(),
            topics: resolve_topics(&self.log, sink, |_| self.topic.to_string()).unwrap(),
        }
    }

    /// Waits until the database has every record, and compares the table.
    pub(crate) fn assert_arrives(&self, database: &Database, running: &[&Running]) {
        let sql = format!(
            "SELECT COALESCE(sum(next_offset), 0)::bigint FROM millstream_offsets WHERE topic = '{}'",
            self.topic
        );
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stored = database.try_number(&sql);
            if stored == Some(self.ends()) {
                break;
            }
            if Instant::now() > deadline {
                let views: Vec<SinkView> = running.iter().map(|it| it.status.view()).collect();
                panic!("{stored:?} of {}: {views:#?}", self.ends());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        assert_eq!(database.rows(), self.expected);
    }
}

fn create_topic<L: Log>(log: &L, topic: &TopicName, partitions: i32) {
    log.create_topics(&[TopicSpec {
        name: TopicName::clone(topic),
        partitions,
        replication_factor: None,
        config: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
    }])
    .unwrap();
}

/// A process at work.
pub(crate) struct Running {
    pub(crate) status: SinkStatus,
    pub(crate) sinks: RunningSinks,
    pub(crate) metrics: Metrics,
}

impl Running {
    pub(crate) fn stop(self) {
        self.sinks.stop(PATIENCE);
    }
}
