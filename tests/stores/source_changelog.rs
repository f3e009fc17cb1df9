//! Stores whose changelog is the topic that they are read from.

use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;

use crate::support::{consumed, text_store};

fn users() -> StoreBuilder<String, String> {
    text_store("users").source_topic_as_changelog()
}

/// A table of users, joined with orders by the user's id.
fn orders_of_users(of_users: Consumed<String, String>) -> Topology {
    let builder = StreamsBuilder::new();
    let users = builder.table("users", of_users, users());
    builder
        .stream("orders", consumed())
        .join_table(
            &users,
            |_, order, user| format!("{order} of {user}"),
            Joined::as_name("named"),
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

fn entries(driver: &TopologyTestDriver) -> Vec<(String, String)> {
    driver
        .store_entries("users", &serdes::string(), &serdes::string())
        .unwrap()
        .into_iter()
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn the_table_comes_back_from_its_topic_and_there_is_no_other() {
    let topology = orders_of_users(consumed());
    let described = topology.describe().to_json();
    assert!(
        described.contains(r#""sourceChangelog": "users""#),
        "{described}"
    );
    let mut driver = TopologyTestDriver::builder()
        .partitions(3)
        .build(topology)
        .unwrap();
    pipe(
        &mut driver,
        "users",
        &[("1", "Ann"), ("2", "Bob"), ("3", "Cid"), ("1", "Anna")],
    );
    driver
        .pipe_bytes("users", Some(b"2"), None, 0, &Headers::new())
        .unwrap();
    let held = pairs(&[("1", "Anna"), ("3", "Cid")]);
    assert_eq!(entries(&driver), held);
    for keep_state in [true, false] {
        driver.restart(keep_state).unwrap();
        assert_eq!(entries(&driver), held, "state kept: {keep_state}");
    }
    pipe(&mut driver, "orders", &[("1", "tea"), ("2", "jam")]);
    let out = driver.output_topic("out", serdes::string(), serdes::string());
    assert_eq!(out.read_values(&mut driver).unwrap(), ["tea of Anna"]);
    let restored = driver.metrics();
    let restored = restored
        .lines()
        .filter(|line| {
            line.starts_with("millstream_restore_records_total{") && line.contains("users")
        })
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum::<u64>();
    assert_eq!(restored, 5, "all of the topic, once");
}

#[test]
fn what_the_source_has_refused_does_not_come_back() {
    let builder = StreamsBuilder::new();
    let numbers = Consumed::with(serdes::string(), serdes::i64())
        .on_error_at(Stage::Deserialization, ErrorPolicy::Skip);
    let store = Materialized::as_store("numbers", serdes::string(), serdes::i64());
    let table = builder.table("numbers", numbers, store.source_topic_as_changelog());
    drop(table);
    let mut driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    let number = 7_i64.to_be_bytes();
    let headers = Headers::new();
    for (key, value) in [
        (Some(&b"a"[..]), &number[..]),
        (Some(b"b"), b"no number"),
        (Some(&[0xff]), &number),
        (None, &number),
        // What was there before stays, also after a restore.
        (Some(b"a"), b"nor this one"),
    ] {
        driver
            .pipe_bytes("numbers", key, Some(value), 0, &headers)
            .unwrap();
    }
    for keep_state in [true, false] {
        driver.restart(keep_state).unwrap();
        let entries = driver
            .store_entries("numbers", &serdes::string(), &serdes::i64())
            .unwrap();
        let entries: Vec<(String, i64)> = entries.into_iter().collect();
        assert_eq!(entries, [("a".to_owned(), 7)], "state kept: {keep_state}");
    }
}

struct Named(ReadOnlyStore<String, String>);

impl Processor<String, String, String, String> for Named {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        let name = self.0.get(&record.key)?.unwrap_or_default();
        let text = format!("{} of {name}", record.value);
        Ok(context.forward(record.with_value(text))?)
    }
}

#[test]
fn a_processor_reads_a_read_only_store_after_every_restart() {
    let builder = StreamsBuilder::new();
    let users = builder.add_read_only_state_store("users", consumed(), text_store("users"));
    assert_eq!(users.name(), "users");
    builder
        .stream("orders", consumed())
        .process("named", (&users,), |_setup, (users,)| Named(users))
        .to("out", Produced::with(serdes::string(), serdes::string()));
    let mut driver = TopologyTestDriver::builder()
        .partitions(2)
        .build(builder.build().unwrap())
        .unwrap();
    pipe(&mut driver, "users", &[("1", "Ann"), ("2", "Bob")]);
    driver.restart(false).unwrap();
    pipe(&mut driver, "users", &[("2", "Bill")]);
    driver.restart(false).unwrap();
    pipe(&mut driver, "orders", &[("1", "tea"), ("2", "jam")]);
    let out = driver.output_topic("out", serdes::string(), serdes::string());
    let mut values: Vec<String> = out.read_values(&mut driver).unwrap();
    values.sort();
    assert_eq!(values, ["jam of Bill", "tea of Ann"]);
}

#[test]
fn a_store_may_turn_to_its_topic_and_keeps_what_it_holds() {
    let with_own = || {
        let builder = StreamsBuilder::new();
        drop(builder.table("users", consumed(), text_store("users")));
        builder.build().unwrap()
    };
    let with_source = || {
        let builder = StreamsBuilder::new();
        drop(builder.table("users", consumed(), users()));
        builder.build().unwrap()
    };
    let mut driver = TopologyTestDriver::new(with_own()).unwrap();
    pipe(&mut driver, "users", &[("1", "Ann")]);
    driver.restart_with(with_source(), true).unwrap();
    assert_eq!(entries(&driver), pairs(&[("1", "Ann")]));
    pipe(&mut driver, "users", &[("2", "Bob")]);
    driver.restart(false).unwrap();
    assert_eq!(entries(&driver), pairs(&[("1", "Ann"), ("2", "Bob")]));
}

/// Builds, and returns every mistake as text.
fn mistakes(draw: impl FnOnce(&StreamsBuilder)) -> String {
    let builder = StreamsBuilder::new();
    draw(&builder);
    builder.build().unwrap_err().to_string()
}

#[test]
fn what_the_topic_could_not_bring_back_is_refused() {
    use std::time::Duration;
    let hour = Duration::from_secs(3600);
    let table = |consumed: Consumed<String, String>, store: StoreBuilder<String, String>| {
        mistakes(|builder| drop(builder.table("users", consumed, store)))
    };
    let timed = consumed().with_timestamp_extractor(WallclockTimestampExtractor);
    let cases = [
        (table(timed, users()), "timestamp extractor"),
        (table(consumed(), users().ttl(hour)), "leave `ttl` out"),
        (table(consumed(), users().versioned(hour)), "no versions"),
        (
            table(consumed().on_error(ErrorPolicy::Skip), users()),
            "skipped or dead-lettered when processing it fails",
        ),
        (
            mistakes(|builder| {
                drop(
                    builder
                        .stream("users", consumed())
                        .to_table::<String>(users()),
                )
            }),
            "do not come from a topic as they are",
        ),
        (
            mistakes(|builder| {
                let by_key = builder
                    .stream("users", consumed())
                    .group_by_key(Grouped::as_name("by-key"));
                drop(
                    by_key
                        .windowed_by(TimeWindows::of_size_with_no_grace(hour))
                        .reduce(|one, _| one, users()),
                );
            }),
            "windows and sessions do not come from a topic",
        ),
    ];
    for (mistakes, expected) in cases {
        assert!(mistakes.contains(expected), "{mistakes}");
    }
}
