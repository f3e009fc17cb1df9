//! A topic on the embedded log, an archive of it in a directory, and ways to look at both.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic, in helpers as well"
)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::clock::SystemClock;
use millstream::config::{Config, LogKind, Parameters};
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{
    Headers, Log, LogProducer, Offset, ProducerRecord, ProducerSpec, TopicName, TopicPartition,
    TopicSpec,
};
use millstream::metrics::Metrics;
use millstream::sink::{
    CatchUp, ConfiguredSink, PastError, PastReader, RunningSinks, SinkContext, SinkRecord, SinkSet,
    SinkTopic, SinksSpec, Span, catch_up, resolve_topics,
};
use millstream_archive::{ArchiveSink, Manifest};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const TOPIC: &str = "events";
pub(crate) const PARTITIONS: i32 = 2;
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Settings for files of a few records.
pub(crate) const SMALL: &str = "    file_records: 25\n";

pub(crate) struct Site {
    directory: TempDir,
    pub(crate) log: EmbeddedLog,
    pub(crate) runtime: Runtime,
    producer: <EmbeddedLog as Log>::Producer,
    written: i64,
}

impl Site {
    pub(crate) fn new() -> Self {
        let log = EmbeddedLog::in_memory(Arc::new(SystemClock));
        create_topic(&log);
        let mut producer = log
            .producer(&ProducerSpec {
                transactional_id: Some("test".to_owned()),
                transaction_timeout: Duration::from_secs(60),
                client_id: "test".to_owned(),
            })
            .unwrap();
        producer.init_transactions().unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            log,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            producer,
            written: 0,
        }
    }

    /// Writes records in transactions of ten, every fourth of which is aborted; timestamps rise.
    pub(crate) fn write(&mut self, transactions: i64) {
        self.write_to(transactions, |number| Some(i32::from(number % 3 == 0)));
    }

    /// As [`write`](Self::write), where the key decides the partition.
    pub(crate) fn write_by_key(&mut self, transactions: i64) {
        self.write_to(transactions, |_| None);
    }

    fn write_to(&mut self, transactions: i64, partition: impl Fn(i64) -> Option<i32>) {
        for _ in 0..transactions {
            self.producer.begin_transaction().unwrap();
            for _ in 0..10 {
                let number = self.written;
                self.written += 1;
                let (key, value) = (format!("key-{}", number % 5), format!("{{\"n\":{number}}}"));
                self.producer
                    .send(ProducerRecord {
                        topic: &TOPIC.into(),
                        partition: partition(number),
                        key: Some(key.as_bytes()),
                        value: (number % 11 != 0).then_some(value.as_bytes()),
                        timestamp: 1_000_000 + number * 1_000,
                        headers: &Headers::new().with("n", number.to_string()),
                    })
                    .unwrap();
            }
            if self.written / 10 % 4 == 0 {
                self.producer.abort_transaction().unwrap();
            } else {
                self.producer.commit_transaction().unwrap();
            }
        }
    }

    pub(crate) fn parameters(&self, more: &str) -> Parameters {
        let text = format!(
            "application_id: test\ntopology: test\nsinks:\n  archive:\n    directory: {}\n{more}",
            self.directory.path().display()
        );
        let config = Config::parse("test.yaml", &text, &[], &|_| None, LogKind::Embedded);
        let mut config = config.unwrap_or_else(|errors| panic!("{errors}"));
        config.sinks.remove("archive").unwrap()
    }

    pub(crate) fn sink(&self, more: &str) -> ConfiguredSink {
        let declared = ArchiveSink::declare("archive", &[TOPIC]);
        declared.make(&self.parameters(more)).unwrap()
    }

    fn context(&self, sink: &ConfiguredSink) -> SinkContext {
        SinkContext {
            group: "test-archive".to_owned(),
            topics: resolve_topics(&self.log, sink, str::to_owned).unwrap(),
        }
    }

    /// Archives up to now.
    pub(crate) fn archive(&self, more: &str) -> CatchUp {
        self.try_archive(more)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_archive(&self, more: &str) -> Result<CatchUp, String> {
        let sink = self.sink(more);
        let context = self.context(&sink);
        catch_up(&self.log, self.runtime.handle(), &sink, &context).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        })
    }

    pub(crate) fn verify(&self) -> Result<String, String> {
        let sink = self.sink("");
        let context = self.context(&sink);
        let verified = self.runtime.block_on(sink.sink.verify(&context));
        verified.map_err(|error| error.to_string())
    }

    /// Starts a process that does nothing but archive.
    pub(crate) fn run(&self, process: &str, more: &str) -> RunningSinks {
        let sink = self.sink(more);
        let topics = resolve_topics(&self.log, &sink, str::to_owned).unwrap();
        SinkSet::start(SinksSpec {
            log: self.log.clone(),
            runtime: self.runtime.handle().clone(),
            application_id: "test".to_owned(),
            process_id: process.to_owned(),
            session_timeout: Duration::from_secs(6),
            clock: Arc::new(SystemClock),
            metrics: Metrics::new(),
            sinks: vec![(sink, topics)],
        })
        .unwrap()
    }

    /// Returns what the topic holds; all of it, as long as nothing was deleted.
    pub(crate) fn topic(&self, partition: i32) -> Vec<SinkRecord> {
        self.read(None, partition, Span::ALL).unwrap()
    }

    /// Reads across the archive and the topic.
    pub(crate) fn across(&self, partition: i32, span: Span) -> Result<Vec<SinkRecord>, PastError> {
        self.read(Some(&self.sink("")), partition, span)
    }

    pub(crate) fn read(
        &self,
        archive: Option<&ConfiguredSink>,
        partition: i32,
        span: Span,
    ) -> Result<Vec<SinkRecord>, PastError> {
        let past = archive.and_then(|sink| sink.sink.past());
        let reader = PastReader::new(&self.log, self.runtime.handle(), past, PATIENCE);
        let mut found = Vec::new();
        reader.read(&at(partition), span, |record| {
            found.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    pub(crate) fn reader(&self, archive: &ConfiguredSink) -> PastReader<EmbeddedLog> {
        PastReader::new(
            &self.log,
            self.runtime.handle(),
            archive.sink.past(),
            PATIENCE,
        )
    }

    pub(crate) fn sink_topic(&self, archive: &ConfiguredSink) -> SinkTopic {
        self.context(archive).topics.remove(0)
    }

    pub(crate) fn folder(&self, partition: i32) -> PathBuf {
        let topic = self.directory.path().join(TOPIC);
        topic.join(partition.to_string())
    }

    fn names(&self, partition: i32, suffix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder(partition)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(suffix)).collect();
        names.sort();
        names
    }

    pub(crate) fn files(&self, partition: i32) -> Vec<String> {
        self.names(partition, ".zst")
    }

    pub(crate) fn manifest(&self, partition: i32) -> Manifest {
        let latest = self.names(partition, ".json").pop().unwrap();
        let bytes = std::fs::read(self.folder(partition).join(latest)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Makes the store fail, as one does that is away.
    pub(crate) fn take_away(&self) {
        let topic = self.directory.path().join(TOPIC);
        std::fs::rename(&topic, self.directory.path().join("away")).unwrap();
        std::fs::write(&topic, "no directory").unwrap();
    }

    pub(crate) fn bring_back(&self) {
        let topic = self.directory.path().join(TOPIC);
        std::fs::remove_file(&topic).unwrap();
        std::fs::rename(self.directory.path().join("away"), &topic).unwrap();
    }

    /// Brings back what a process leaves that is killed after its file and before its manifest.
    pub(crate) fn kill_before_manifest(&self, partition: i32) {
        let latest = self.names(partition, ".json").pop().unwrap();
        std::fs::remove_file(self.folder(partition).join(latest)).unwrap();
    }

    /// Deletes the start of the topic, as retention does.
    pub(crate) fn delete_below(&self, partition: i32, offset: Offset) {
        self.log.delete_records(&[(at(partition), offset)]).unwrap();
    }

    /// Checks that the archive has each of these records in exactly one file, and no other.
    pub(crate) fn assert_once(&self, expected: &[Vec<SinkRecord>]) {
        for (partition, expected) in (0..PARTITIONS).zip(expected) {
            let manifest = self.manifest(partition);
            let listed: Vec<&str> = manifest.files.iter().map(|it| it.name.as_str()).collect();
            assert_eq!(listed, self.files(partition), "every file is listed once");
            let count: u64 = manifest.files.iter().map(|file| file.records).sum();
            assert_eq!(count, expected.len() as u64);
        }
        self.verify().unwrap_or_else(|error| panic!("{error}"));
    }
}

pub(crate) fn create_topic(log: &EmbeddedLog) {
    log.create_topics(&[TopicSpec {
        name: TOPIC.into(),
        partitions: PARTITIONS,
        replication_factor: None,
        config: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
    }])
    .unwrap();
}

pub(crate) fn at(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::from(TOPIC), partition)
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
