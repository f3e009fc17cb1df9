//! Global tables on the embedded log: the production threads, through `TopologyTestDriver`.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

use std::convert::Infallible;
use std::time::Duration;

use millstream::log::{Log, LogProducer, ProducerRecord, ProducerSpec, TopicName};
use millstream::prelude::*;
use millstream::testing::{DriverError, TopologyTestDriver};

fn texts() -> Consumed<String, String> {
    Consumed::with(serdes::string(), serdes::string())
}

fn users(
    builder: &StreamsBuilder,
    consumed: Consumed<String, String>,
) -> GlobalKTable<String, String> {
    let store = Materialized::as_store("users", serdes::string(), serdes::string());
    builder.global_table("users", consumed, store)
}

/// Orders by number, each with its buyer, joined with the buyer's name.
fn named_orders(consumed: Consumed<String, String>) -> Topology {
    let builder = StreamsBuilder::new();
    let users = users(&builder, consumed);
    builder
        .stream("orders", texts())
        .left_join_global_table(
            &users,
            |_, buyer| (buyer != "-").then(|| buyer.clone()),
            |_, buyer, name| format!("{buyer}={}", name.unwrap_or_else(|| "?".to_owned())),
        )
        .to("out", Produced::with(serdes::string(), serdes::string()));
    builder.build().unwrap()
}

fn pipe(driver: &mut TopologyTestDriver, topic: &str, records: &[(&str, &str)]) {
    let input = driver.input_topic(topic, serdes::string(), serdes::string());
    for (key, value) in records {
        input
            .pipe(driver, (*key).to_owned(), (*value).to_owned())
            .unwrap();
    }
}

fn delete(driver: &mut TopologyTestDriver, key: &str) {
    let key = Some(key.as_bytes());
    driver
        .pipe_bytes("users", key, None, 0, &Headers::new())
        .unwrap();
}

fn read(driver: &mut TopologyTestDriver) -> Vec<String> {
    let out = driver.output_topic::<String, String>("out", serdes::string(), serdes::string());
    out.read_values(driver).unwrap()
}

/// The value of the first series of `name` that has `label`.
fn metric(driver: &TopologyTestDriver, name: &str, label: &str) -> f64 {
    let metrics = driver.metrics();
    let wanted = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(label);
    let line = metrics.lines().find(wanted).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_record_meets_what_the_table_holds_when_it_is_processed() {
    let mut driver = TopologyTestDriver::new(named_orders(texts())).unwrap();
    pipe(&mut driver, "orders", &[("1", "ann")]);
    pipe(&mut driver, "users", &[("ann", "Ann")]);
    pipe(
        &mut driver,
        "orders",
        &[("2", "ann"), ("3", "bob"), ("4", "-")],
    );
    pipe(&mut driver, "users", &[("ann", "Anna"), ("bob", "Bob")]);
    pipe(&mut driver, "orders", &[("5", "ann")]);
    delete(&mut driver, "ann");
    pipe(&mut driver, "orders", &[("6", "ann")]);
    assert_eq!(
        read(&mut driver),
        ["ann=?", "ann=Ann", "bob=?", "-=?", "ann=Anna", "ann=?"],
        "updates of the table alone have no results"
    );
    assert_eq!(
        driver.store_value("users", "bob").unwrap(),
        Some("Bob".into())
    );
    assert_eq!(driver.store_value("users", "ann").unwrap(), None);
}

#[test]
fn every_task_sees_all_partitions_of_the_table() {
    let mut driver = TopologyTestDriver::builder()
        .partitions(3)
        .build(named_orders(texts()))
        .unwrap();
    let buyers: Vec<String> = (0..30).map(|n| format!("buyer-{n}")).collect();
    for buyer in &buyers {
        pipe(&mut driver, "users", &[(buyer, "known")]);
    }
    for (number, buyer) in buyers.iter().enumerate() {
        // The order lies wherever its number puts it.
        pipe(&mut driver, "orders", &[(&number.to_string(), buyer)]);
    }
    let mut results = read(&mut driver);
    results.sort();
    let mut expected: Vec<String> = buyers.iter().map(|it| format!("{it}=known")).collect();
    expected.sort();
    assert_eq!(results, expected);
}

#[test]
fn a_restart_keeps_the_table_and_reads_only_the_tail_of_its_topic() {
    const RESTORED: &str = "millstream_restore_records_total";
    let mut driver = TopologyTestDriver::new(named_orders(texts())).unwrap();
    pipe(
        &mut driver,
        "users",
        &[("ann", "Ann"), ("bob", "Bob"), ("cid", "Cid")],
    );
    // On disk by now.
    driver
        .advance_wall_clock_time(Duration::from_secs(60))
        .unwrap();
    pipe(&mut driver, "users", &[("bob", "Robert"), ("dan", "Dan")]);
    driver.restart(true).unwrap();
    let tail = metric(&driver, RESTORED, "store=\"users\"");
    assert!(
        (tail - 2.0).abs() < f64::EPSILON,
        "{tail}\n{}",
        driver.metrics()
    );
    let orders = [("1", "ann"), ("2", "bob"), ("3", "dan")];
    pipe(&mut driver, "orders", &orders);
    assert_eq!(read(&mut driver), ["ann=Ann", "bob=Robert", "dan=Dan"]);

    driver.restart(false).unwrap();
    // The series are those of the life that has begun.
    let all = metric(&driver, RESTORED, "store=\"users\"");
    assert!((all - 5.0).abs() < f64::EPSILON, "{all}");
    pipe(&mut driver, "orders", &orders);
    assert_eq!(read(&mut driver), ["ann=Ann", "bob=Robert", "dan=Dan"]);
}

#[test]
fn a_table_is_restored_before_the_first_record_is_processed() {
    let mut driver = TopologyTestDriver::new(named_orders(texts())).unwrap();
    let many: Vec<(String, String)> = (0..10_000)
        .map(|n| (format!("buyer-{n}"), format!("name-{n}")))
        .collect();
    // Past the driver, which runs the threads after each record: both topics wait for the next life.
    let spec = ProducerSpec {
        transactional_id: None,
        transaction_timeout: Duration::from_secs(60),
        client_id: "test".to_owned(),
    };
    let mut producer = driver.log().producer(&spec).unwrap();
    let mut write = |topic: &str, key: &str, value: &str| {
        let record = ProducerRecord {
            topic: &TopicName::from(topic),
            partition: Some(0),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            timestamp: 0,
            headers: &Headers::new(),
        };
        producer.send(record).unwrap();
        producer.flush().unwrap();
    };
    write("orders", "1", "buyer-9900");
    for (key, value) in &many {
        write("users", key, value);
    }
    driver.restart(false).unwrap();
    pipe(&mut driver, "orders", &[("2", "buyer-9901")]);
    assert_eq!(
        read(&mut driver),
        ["buyer-9900=name-9900", "buyer-9901=name-9901"]
    );
}

#[test]
fn a_record_that_cannot_be_read_ends_the_process_or_is_skipped() {
    let numbers = || Consumed::with(serdes::string(), serdes::i64());
    let draw = |consumed| {
        let builder = StreamsBuilder::new();
        let store = Materialized::as_store("rates", serdes::string(), serdes::i64());
        let rates = builder.global_table("rates", consumed, store);
        builder
            .stream("orders", texts())
            .join_global_table(
                &rates,
                |_, of| Some(of.clone()),
                |_, _, rate| rate.to_string(),
            )
            .to("out", Produced::with(serdes::string(), serdes::string()));
        TopologyTestDriver::new(builder.build().unwrap()).unwrap()
    };
    let broken = |driver: &mut TopologyTestDriver| {
        let value = Some(b"no number".as_slice());
        driver.pipe_bytes("rates", Some(b"EUR"), value, 0, &Headers::new())
    };
    assert!(matches!(
        broken(&mut draw(numbers())),
        Err(DriverError::Thread(_))
    ));

    let mut driver = draw(numbers().on_error(ErrorPolicy::Skip));
    let rates = driver.input_topic("rates", serdes::string(), serdes::i64());
    rates.pipe(&mut driver, "EUR".to_owned(), 7).unwrap();
    broken(&mut driver).unwrap();
    pipe(&mut driver, "orders", &[("1", "EUR"), ("2", "USD")]);
    assert_eq!(
        read(&mut driver),
        ["7"],
        "an inner join drops what it cannot join"
    );
}

#[test]
fn a_global_table_has_no_changelog_no_task_and_a_part_of_its_own() {
    let topology = named_orders(texts());
    assert_eq!(topology.sub_topologies().len(), 1);
    assert_eq!(topology.globals().len(), 1);
    let described = topology.describe().to_string();
    assert!(
        described.contains("Sub-topology: 1 for global store (will not generate tasks)"),
        "{described}"
    );
    let driver = TopologyTestDriver::new(topology).unwrap();
    let metrics = driver.metrics();
    assert!(metrics.contains("store=\"users\""), "{metrics}");
    assert!(
        driver
            .log()
            .inspect_records(&millstream::log::TopicPartition::new(
                "test-users-changelog",
                0
            ))
            .is_err(),
        "the topic is the changelog"
    );
}

#[test]
fn a_global_table_that_would_dead_letter_is_a_mistake() {
    let builder = StreamsBuilder::new();
    let policy = ErrorPolicy::DeadLetter {
        topic: "dead".to_owned(),
    };
    let _users = users(&builder, texts().on_error(policy));
    let mistakes = builder.build().unwrap_err();
    assert!(
        mistakes.iter().any(|mistake| matches!(
            mistake,
            TopologyError::GlobalDeadLetter { topic } if topic == "users"
        )),
        "{mistakes}"
    );
}

#[test]
fn a_topic_is_not_both_a_global_table_and_a_stream() {
    let builder = StreamsBuilder::new();
    let _users = users(&builder, texts());
    builder
        .stream("users", texts())
        .to("out", Produced::with(serdes::string(), serdes::string()));
    let mistakes = builder.build().unwrap_err();
    assert!(
        mistakes
            .iter()
            .any(|mistake| matches!(mistake, TopologyError::TopicReadTwice { .. })),
        "{mistakes}"
    );
}

/// Counts how often each user was named, and schedules where it must not.
struct Namings {
    counts: StoreRef<String, i64>,
    schedules: bool,
}

impl Processor<String, String, Infallible, Infallible> for Namings {
    fn init(
        &mut self,
        context: &mut ProcessorContext<'_, Infallible, Infallible>,
    ) -> Result<Init, BoxError> {
        if self.schedules {
            context.schedule(Duration::from_secs(1), PunctuationType::WallClockTime);
        }
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        _context: &mut ProcessorContext<'_, Infallible, Infallible>,
        user: Record<String, String>,
    ) -> Result<(), BoxError> {
        if user.value == "poison" {
            self.counts.put(user.key, -1)?;
            return Err("poison".into());
        }
        let count = self.counts.get(&user.key)?.unwrap_or(0);
        Ok(self.counts.put(user.key, count + 1)?)
    }
}

/// Orders by number, each with its buyer, joined with how often the buyer was named.
fn counted_orders(consumed: Consumed<String, String>, schedules: bool) -> Topology {
    let builder = StreamsBuilder::new();
    let counts = builder.add_global_store(
        StoreBuilder::as_store("namings", serdes::string(), serdes::i64()),
        "users",
        consumed,
        "count-namings",
        move |_setup, counts| Namings { counts, schedules },
    );
    builder
        .stream("orders", texts())
        .join_global_table(
            &counts,
            |_, buyer| Some(buyer.clone()),
            |_, buyer, count| format!("{buyer}={count}"),
        )
        .to("out", Produced::with(serdes::string(), serdes::string()));
    builder.build().unwrap()
}

#[test]
fn a_global_store_is_what_its_processor_makes_of_the_topic_after_every_restart() {
    let topology = counted_orders(texts(), false);
    let mut driver = TopologyTestDriver::builder()
        .partitions(3)
        .build(topology)
        .unwrap();
    pipe(
        &mut driver,
        "users",
        &[("u1", "a"), ("u2", "b"), ("u1", "c")],
    );
    pipe(
        &mut driver,
        "orders",
        &[("1", "u1"), ("2", "u2"), ("3", "u3")],
    );
    assert_eq!(read(&mut driver), ["u1=2", "u2=1"]);
    // With the checkpoint no record counts twice, without it all of them once more.
    for keep_state in [true, false] {
        driver.restart(keep_state).unwrap();
        assert_eq!(driver.store_value("namings", "u1").unwrap(), Some(2.into()));
    }
    pipe(&mut driver, "users", &[("u1", "d")]);
    pipe(&mut driver, "orders", &[("4", "u1")]);
    assert_eq!(read(&mut driver), ["u1=3"]);
}

#[test]
fn a_record_that_the_processor_of_a_global_store_refuses_leaves_no_trace_when_it_is_skipped() {
    let consumed = texts().on_error(ErrorPolicy::Skip);
    let mut driver = TopologyTestDriver::new(counted_orders(consumed, false)).unwrap();
    pipe(
        &mut driver,
        "users",
        &[("u1", "a"), ("u1", "poison"), ("u2", "poison")],
    );
    assert_eq!(driver.store_value("namings", "u1").unwrap(), Some(1.into()));
    assert_eq!(driver.store_value("namings", "u2").unwrap(), None);
}

#[test]
fn the_processor_of_a_global_store_cannot_schedule() {
    let Err(DriverError::Thread(error)) = TopologyTestDriver::new(counted_orders(texts(), true))
    else {
        panic!("it starts");
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text.push_str(&error.to_string());
        source = error.source();
    }
    assert!(text.contains("has scheduled a punctuator"), "{text}");
}
