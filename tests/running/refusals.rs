//! An output that its topic refuses.

use std::sync::Arc;
use std::time::Duration;

use millstream::log::{Log, LogMessage};
use millstream::prelude::*;
use millstream::runtime::{RuntimeConfig, ThreadError, TopicOverride};
use millstream::topology::Topology;

use super::{Place, Running, config, unique};

/// Largest batch that the output topic takes.
const OUTPUT_MAX: &str = "20000";

struct Counter(StoreRef<String, i64>);

impl Processor<String, i64, String, String> for Counter {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, i64>,
    ) -> Result<(), BoxError> {
        let count = self.0.get(&record.key)?.unwrap_or(0) + 1;
        self.0.put(record.key.clone(), count)?;
        // Random, because the limit is of what compression leaves.
        let mut random = fastrand::Rng::with_seed(u64::try_from(count)?);
        let size = usize::try_from(record.value)?;
        let filler: String = std::iter::repeat_with(|| random.alphanumeric())
            .take(size)
            .collect();
        let text = format!("{count}:{filler}");
        context.forward(Record::new(record.key, text, record.timestamp))?;
        Ok(())
    }
}

/// Counts records and writes, with the count, as many characters as the record says.
fn topology(policy: ErrorPolicy) -> Arc<Topology> {
    let builder = StreamsBuilder::new();
    let counts = builder.add_state_store(StoreBuilder::as_store(
        "counts",
        serdes::string(),
        serdes::i64(),
    ));
    builder
        .stream(
            "sizes",
            Consumed::with(serdes::string(), serdes::i64()).on_error(policy),
        )
        .process("counter", (counts,), |_, (counts,)| Counter(counts))
        .to("texts", Produced::with(serdes::string(), serdes::string()));
    Arc::new(builder.build().unwrap())
}

struct Names {
    sizes: String,
    texts: String,
    dead: String,
}

fn setup(dir: &tempfile::TempDir) -> (Names, RuntimeConfig) {
    let application = unique("refusals");
    let name = |logical: &str| format!("{application}.{logical}");
    let names = Names {
        sizes: name("sizes"),
        texts: name("texts"),
        dead: name("dead"),
    };
    let mut config = config(&application, dir);
    for (logical, physical) in [
        ("sizes", &names.sizes),
        ("texts", &names.texts),
        ("dead", &names.dead),
    ] {
        let mut topic = TopicOverride {
            name: Some(physical.clone()),
            ..TopicOverride::default()
        };
        if logical == "texts" {
            topic
                .config
                .insert("max.message.bytes".into(), OUTPUT_MAX.into());
        }
        config.topics.insert(logical.into(), topic);
    }
    (names, config)
}

fn sizes(sizes: &[i64]) -> Vec<Vec<u8>> {
    let serde = serdes::i64();
    sizes
        .iter()
        .map(|size| {
            let mut bytes = Vec::new();
            serde.serialize(size, &mut bytes).unwrap();
            bytes
        })
        .collect()
}

/// Twenty records; the eighth and the sixteenth make an output that is too large.
const SIZES: [i64; 20] = [
    10, 10, 10, 10, 10, 10, 10, 30_000, 10, 10, 10, 10, 10, 10, 10, 40_000, 10, 10, 10, 10,
];

/// The counts in the outputs: each good record once, in order.
fn counts(place: &Place<impl Log>, topic: &str) -> Vec<i64> {
    place
        .texts(topic)
        .iter()
        .map(|text| text.split(':').next().unwrap().parse().unwrap())
        .collect()
}

fn dead_letter() -> ErrorPolicy {
    ErrorPolicy::DeadLetter {
        topic: "dead".to_owned(),
    }
}

pub(crate) fn the_record_to_blame_is_dead_lettered_and_the_others_arrive_once<L: Log>(
    place: &Place<L>,
) {
    let dir = tempfile::tempdir().unwrap();
    let (names, config) = setup(&dir);
    let mut running = Running::start(place, &topology(dead_letter()), &config);
    running.run_dry(place).unwrap();
    place.write(&names.sizes, &sizes(&SIZES));
    running
        .run_until(place, "all records are processed", |running| {
            running.metric("millstream_records_processed_total") >= 20.0
        })
        .unwrap();
    assert_eq!(counts(place, &names.texts), (1..=18).collect::<Vec<_>>());
    let dead = place.read(&names.dead);
    let offsets: Vec<_> = dead
        .iter()
        .map(|record| {
            let headers = record.headers();
            let text = |key| String::from_utf8(headers.last(key).unwrap().to_vec()).unwrap();
            assert_eq!(text("__streams.errors.exception"), "RECORD_TOO_LARGE");
            assert_eq!(text("__streams.errors.topic"), names.sizes);
            assert!(text("__streams.errors.message").contains(&names.texts));
            text("__streams.errors.offset")
        })
        .collect();
    assert_eq!(offsets, ["7", "15"]);
    let values: Vec<_> = dead
        .iter()
        .map(|one| one.value().unwrap().to_vec())
        .collect();
    assert_eq!(values, sizes(&[30_000, 40_000]));
    assert!((running.metric("millstream_dead_letter_records_total") - 2.0).abs() < 0.5);
    // A look costs one transaction, each record to blame another; the second record may need a
    // look of its own. Batches of good records are small enough here.
    let refusals = running.metric("millstream_commit_refusals_total");
    assert!((3.0..=4.0).contains(&refusals), "{refusals} refusals");
    // The thread is as before: a backlog goes in few transactions.
    let commits = running.metric("millstream_commits_total");
    place.write(&names.sizes, &sizes(&[1; 200]));
    running
        .run_until(place, "the backlog is processed", |running| {
            running.metric("millstream_records_processed_total") >= 220.0
        })
        .unwrap();
    assert!(running.metric("millstream_commits_total") - commits < 100.0);
    assert_eq!(counts(place, &names.texts), (1..=218).collect::<Vec<_>>());
    running.stop(place);
}

pub(crate) fn the_policy_fail_stops_the_thread_and_names_the_record<L: Log>(place: &Place<L>) {
    let dir = tempfile::tempdir().unwrap();
    let (names, config) = setup(&dir);
    let mut running = Running::start(place, &topology(ErrorPolicy::Fail), &config);
    running.run_dry(place).unwrap();
    place.write(&names.sizes, &sizes(&SIZES));
    let error = running
        .run_until(place, "the thread stops", |_| false)
        .unwrap_err();
    let ThreadError::Processing { at: Some(at), .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(at.to_string(), format!("{}-0 offset 7", names.sizes));
    drop(running);
    // What came before it is committed.
    assert_eq!(counts(place, &names.texts), (1..=7).collect::<Vec<_>>());
}

pub(crate) fn the_policies_retry_and_skip_are_followed<L: Log>(place: &Place<L>) {
    let dir = tempfile::tempdir().unwrap();
    let (names, config) = setup(&dir);
    let policy = ErrorPolicy::Retry {
        attempts: 2,
        backoff: Duration::from_millis(20),
        then: Box::new(ErrorPolicy::Skip),
    };
    let mut running = Running::start(place, &topology(policy), &config);
    running.run_dry(place).unwrap();
    place.write(&names.sizes, &sizes(&SIZES[..10]));
    running
        .run_until(place, "all records are processed", |running| {
            running.metric("millstream_records_processed_total") >= 10.0
        })
        .unwrap();
    assert_eq!(counts(place, &names.texts), (1..=9).collect::<Vec<_>>());
    assert!((running.metric("millstream_records_skipped_total") - 1.0).abs() < 0.5);
    // The first look, the record itself, and twice again.
    assert!((running.metric("millstream_commit_refusals_total") - 4.0).abs() < 0.5);
    running.stop(place);
}

pub(crate) fn a_refused_dead_letter_stops_the_thread<L: Log>(place: &Place<L>) {
    let dir = tempfile::tempdir().unwrap();
    let (names, mut config) = setup(&dir);
    let dead = config.topics.get_mut("dead").unwrap();
    dead.config.insert("max.message.bytes".into(), "150".into());
    let mut running = Running::start(place, &topology(dead_letter()), &config);
    running.run_dry(place).unwrap();
    place.write(&names.sizes, &sizes(&SIZES));
    let error = running
        .run_until(place, "the thread stops", |_| false)
        .unwrap_err();
    assert!(
        matches!(&error, ThreadError::Processing { at: Some(at), .. } if at.offset == 7),
        "{error}"
    );
}

/// Writes each record on, and now and then what no topic takes, of nobody's order.
struct Chatter;

impl Processor<String, i64, String, String> for Chatter {
    fn init(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
    ) -> Result<Init, BoxError> {
        context.schedule(Duration::from_millis(600), PunctuationType::WallClockTime);
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, i64>,
    ) -> Result<(), BoxError> {
        let text = format!("{}:", record.value);
        context.forward(Record::new(record.key, text, record.timestamp))?;
        Ok(())
    }

    fn punctuate(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        at: Punctuation,
    ) -> Result<(), BoxError> {
        let mut random = fastrand::Rng::with_seed(7);
        let text: String = std::iter::repeat_with(|| random.alphanumeric())
            .take(40_000)
            .collect();
        context.forward(Record::new("k".to_owned(), text, at.timestamp))?;
        Ok(())
    }
}

pub(crate) fn a_punctuators_refused_output_is_blamed_on_no_record<L: Log>(place: &Place<L>) {
    let dir = tempfile::tempdir().unwrap();
    let (names, config) = setup(&dir);
    let builder = StreamsBuilder::new();
    builder
        .stream(
            "sizes",
            Consumed::with(serdes::string(), serdes::i64()).on_error(dead_letter()),
        )
        .process("chatter", (), |_, ()| Chatter)
        .to("texts", Produced::with(serdes::string(), serdes::string()));
    let mut running = Running::start(place, &Arc::new(builder.build().unwrap()), &config);
    let mut written = 0;
    let error = running
        .run_until(place, "the thread stops", |_| {
            // There are records in every transaction.
            written += 1;
            place.write(&names.sizes, &sizes(&[written]));
            place.pass(Duration::from_millis(10));
            false
        })
        .unwrap_err();
    assert!(
        matches!(&error, ThreadError::Processing { at: None, .. }),
        "{error}"
    );
    drop(running);
    assert!(place.read(&names.dead).is_empty());
    let texts = counts(place, &names.texts);
    assert!(!texts.is_empty());
    assert_eq!(
        texts,
        (1..=i64::try_from(texts.len()).unwrap()).collect::<Vec<_>>()
    );
}
