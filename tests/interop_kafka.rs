//! An application moves from Kafka Streams to millstream and back, on a real broker, exactly once.
//!
//! Three phases of input, three owners: Kafka Streams 4.3.1, millstream, Kafka Streams. All have the same
//! application id and the same names, each begins with an empty state directory: what it knows, it has
//! from the changelogs and the committed offsets of the one before. After each phase all that is on the
//! broker is read with millstream's formats and compared with what all input so far must come to.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

#[path = "interop/bytes.rs"]
mod bytes;
#[path = "interop/expected.rs"]
mod expected;
#[path = "running/mod.rs"]
mod running;
#[path = "broker/support.rs"]
mod support;
#[path = "interop/topology.rs"]
mod topology;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Capture, Captured, CapturedOffset};
use expected::{Expected, INPUTS, Input, OUTPUTS, PARTITIONS, phase, times};
use millstream::clock::{Clock, SystemClock};
use millstream::log::kafka::KafkaLog;
use millstream::log::{
    Headers, Isolation, Log, LogMessage, LogProducer, ProducerRecord, ProducerSpec, TopicName,
    TopicPartition, TopicSpec,
};
use running::{Place, Running};

/// Topics that both have; `by-…` are of groupings, which have the same bytes too.
const INTERNAL: [&str; 13] = [
    "counts-changelog",
    "windows-changelog",
    "closing-changelog",
    "sessions-changelog",
    "word-counts-changelog",
    "users-changelog",
    "cities-changelog",
    "left-changelog",
    "right-changelog",
    "joined-changelog",
    "by-word-repartition",
    "by-city-repartition",
    "final-store-changelog",
];

struct Application {
    servers: String,
    log: KafkaLog,
    id: String,
    base: i64,
    phases: Vec<Vec<Input>>,
}

impl Application {
    fn create_topics(&self) {
        let topics: Vec<TopicSpec> = INPUTS
            .iter()
            .chain(&OUTPUTS)
            .map(|topic| TopicSpec {
                name: TopicName::from(self.topic(topic)),
                partitions: PARTITIONS,
                replication_factor: None,
                config: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
            })
            .collect();
        support::retry("create_topics", || self.log.create_topics(&topics));
    }

    /// Writes what is next of the input, of one or all topics.
    fn produce(&self, inputs: &[Input], wanted: impl Fn(&str) -> bool) {
        let spec = ProducerSpec {
            transactional_id: None,
            transaction_timeout: Duration::from_secs(10),
            client_id: "input".to_owned(),
        };
        let mut producer = self.log.producer(&spec).unwrap();
        for input in inputs.iter().filter(|input| wanted(input.topic)) {
            producer
                .send(ProducerRecord {
                    topic: &TopicName::from(self.topic(input.topic)),
                    partition: None,
                    key: Some(input.key.as_bytes()),
                    value: input.value.map(str::as_bytes),
                    timestamp: input.timestamp,
                    headers: &Headers::new(),
                })
                .unwrap();
        }
        support::retry("flush", || producer.flush());
    }

    fn topic(&self, name: &str) -> String {
        if INPUTS.contains(&name) || OUTPUTS.contains(&name) {
            format!("{}.{name}", self.id)
        } else {
            format!("{}-{name}", self.id)
        }
    }

    /// Kafka Streams works off what there is.
    fn run_kafka_streams(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/interop");
        let output = Command::new(script)
            .args([&self.servers, &self.id])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "scripts/interop: {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// millstream works off what there is: the tables first, as their timestamps say.
    fn run_millstream(&self, inputs: &[Input]) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = running::config(&self.id, &dir);
        config.default_partitions = PARTITIONS;
        config.repartition_purge_interval = Duration::MAX;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let place = Place {
            log: self.log.clone(),
            clock,
            advance: None,
        };
        let topology = Arc::new(topology::topology(&self.id).unwrap());
        let mut running = Running::start(&place, &topology, &config);
        self.produce(inputs, |topic| topic != "words");
        self.settle(&mut running, &place);
        self.produce(inputs, |topic| topic == "words");
        self.settle(&mut running, &place);
        running.stop(&place);
    }

    /// Steps until every input was committed to its end.
    fn settle(&self, running: &mut Running<KafkaLog>, place: &Place<KafkaLog>) {
        let topics = INPUTS.iter().copied().chain([
            "by-word-repartition",
            "by-city-repartition",
            "of-key-subscription-repartition",
            "of-key-response-repartition",
        ]);
        let partitions: Vec<TopicPartition> = topics
            .flat_map(|topic| {
                let topic = TopicName::from(self.topic(topic));
                (0..PARTITIONS).map(move |it| TopicPartition::new(Arc::clone(&topic), it))
            })
            .collect();
        let mut quiet = 0;
        running
            .run_until(place, "all input is committed", |_| {
                let ends = self.log.log_ranges(&partitions, Isolation::ReadUncommitted);
                let committed = self.log.group_offsets(&self.id, &partitions);
                let (Ok(ends), Ok(committed)) = (ends, committed) else {
                    return false;
                };
                let done = ends.iter().zip(committed).all(|(end, committed)| {
                    // A marker may follow the last record.
                    end.end - committed.map_or(0, |it| it.offset) <= 1
                });
                quiet = if done { quiet + 1 } else { 0 };
                quiet > 20
            })
            .unwrap();
    }

    /// Reads all that is committed.
    fn capture(&self) -> Capture {
        let mut records = Vec::new();
        for topic in INTERNAL.iter().chain(&OUTPUTS) {
            for partition in 0..PARTITIONS {
                let at = TopicPartition::new(TopicName::from(self.topic(topic)), partition);
                let found = support::read_all(&self.log, &at, 0, Isolation::ReadCommitted);
                records.extend(found.iter().map(|record| Captured {
                    topic: (*topic).to_owned(),
                    partition,
                    key: record.key().unwrap_or_default().to_vec(),
                    value: record.value().map(<[u8]>::to_vec),
                    timestamp: record.timestamp(),
                }));
            }
        }
        let mut offsets = Vec::new();
        for topic in INPUTS {
            for partition in 0..PARTITIONS {
                let at = [TopicPartition::new(
                    TopicName::from(self.topic(topic)),
                    partition,
                )];
                let found =
                    support::retry("group_offsets", || self.log.group_offsets(&self.id, &at));
                if let [Some(committed)] = &found[..] {
                    offsets.push(CapturedOffset {
                        topic: topic.to_owned(),
                        partition,
                        metadata: committed.metadata.clone(),
                    });
                }
            }
        }
        Capture {
            base: self.base,
            records,
            offsets,
        }
    }

    fn verify(&self) -> Capture {
        let capture = self.capture();
        capture.verify(&Expected::of(&self.phases));
        let words = self.phases.iter().flatten();
        capture.verify_repartition(words.filter(|it| it.topic == "words").count());
        capture
    }
}

#[test]
fn an_application_moves_from_kafka_streams_to_millstream_and_back() {
    let Some(servers) = support::bootstrap_servers("an_application_moves") else {
        return;
    };
    let log = support::connect(&servers);
    // Near to now: a broker deletes changelogs of windows by their records' time.
    let base = (SystemClock.now_ms() / 1_000_000) * 1_000_000;
    let mut application = Application {
        servers,
        log,
        id: support::unique("interop"),
        base,
        phases: Vec::new(),
    };

    application.create_topics();

    let inputs = phase(application.base, 0);
    application.produce(&inputs, |_| true);
    application.phases.push(inputs);
    application.run_kafka_streams();
    let capture = application.verify();
    capture.verify_offsets(&times(application.base, &application.phases));
    capture.verify_offset_bytes();
    if std::env::var_os("MILLSTREAM_INTEROP_GOLDEN").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/golden");
        std::fs::write(path.join("kafka-streams.jsonl"), capture.to_lines()).unwrap();
    }

    let inputs = phase(application.base, 1);
    application.phases.push(inputs.clone());
    application.run_millstream(&inputs);
    application.verify();

    let inputs = phase(application.base, 2);
    application.produce(&inputs, |_| true);
    application.phases.push(inputs);
    application.run_kafka_streams();
    let capture = application.verify();
    capture.verify_offsets(&times(application.base, &application.phases));
}
