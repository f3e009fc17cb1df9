//! `emit_per_commit`: one update per key and transaction.

use std::sync::Arc;

use millstream::log::embedded::{Fault, FaultPoint};
use millstream::prelude::*;
use millstream::testing::{TestInputTopic, TestOutputTopic, TopologyTestDriver};

use super::support::{FaultNext, consumed, record, text_store};

type Counts = TestOutputTopic<String, Option<i64>>;

/// Counts words; updates of the counts leave once per commit.
fn counting() -> (TopologyTestDriver, TestInputTopic<String, String>, Counts) {
    let builder = StreamsBuilder::new();
    builder
        .stream("words", consumed())
        .group_by_key(Grouped::as_name("by-word"))
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ))
        .emit_per_commit()
        .to_stream()
        .to(
            "out",
            Produced::with(serdes::string(), serdes::optional(serdes::i64())),
        );
    let driver = driver(builder);
    let words = driver.input_topic("words", serdes::string(), serdes::string());
    let counts = driver.output_topic("out", serdes::string(), serdes::optional(serdes::i64()));
    (driver, words, counts)
}

fn driver(builder: StreamsBuilder) -> TopologyTestDriver {
    TopologyTestDriver::builder()
        .records_per_transaction(100)
        .build(builder.build().unwrap())
        .unwrap()
}

fn words(of: &[(&str, Timestamp)]) -> Vec<Record<String, String>> {
    of.iter()
        .map(|(key, time)| record(key, "", *time))
        .collect()
}

fn read(counts: &Counts, driver: &mut TopologyTestDriver) -> Vec<(String, Option<i64>, Timestamp)> {
    let records = counts.read_records(driver).unwrap();
    let parts = records.into_iter();
    parts.map(|it| (it.key, it.value, it.timestamp)).collect()
}

fn row(key: &str, count: i64, time: Timestamp) -> (String, Option<i64>, Timestamp) {
    (key.to_owned(), Some(count), time)
}

#[test]
fn a_transaction_sends_the_last_update_of_each_key_in_the_order_of_last_updates() {
    let (mut driver, input, counts) = counting();
    let batch = words(&[
        ("tea", 1),
        ("rice", 5),
        ("salt", 3),
        ("tea", 4),
        ("rice", 2),
    ]);
    input.pipe_all(&mut driver, &batch).unwrap();
    assert_eq!(
        read(&counts, &mut driver),
        [row("salt", 1, 3), row("tea", 2, 4), row("rice", 2, 5)]
    );
    input.pipe_all(&mut driver, &words(&[("tea", 9)])).unwrap();
    assert_eq!(read(&counts, &mut driver), [row("tea", 3, 9)]);
}

/// A table of teams by player; per team, the sum of the points of its players.
#[test]
fn the_old_value_is_the_one_of_the_last_commit() {
    let builder = StreamsBuilder::new();
    let teams = builder
        .table("players", consumed(), text_store("players"))
        .emit_per_commit()
        .group_by(
            |_, team| (team.clone(), 1_i64),
            Grouped::with("by-team", serdes::string(), serdes::i64()),
        );
    teams
        .aggregate(
            || 0,
            |_, one, sum| sum + one,
            |_, one, sum| sum - one,
            Materialized::as_store("sizes", serdes::string(), serdes::i64()),
        )
        .to_stream()
        .to(
            "out",
            Produced::with(serdes::string(), serdes::optional(serdes::i64())),
        );
    let mut driver = driver(builder);
    let players = driver.input_topic("players", serdes::string(), serdes::string());
    let batch = [record("ann", "red", 1), record("bob", "red", 2)];
    players.pipe_all(&mut driver, &batch).unwrap();
    // Red, blue and green are passed through: only the way from red to gold counts.
    let batch = ["blue", "green", "gold"].map(|team| record("ann", team, 3));
    players.pipe_all(&mut driver, &batch).unwrap();
    let size = |driver: &TopologyTestDriver, team| driver.store_value("sizes", team).unwrap();
    assert_eq!(size(&driver, "red"), Some(1.into()));
    assert_eq!(size(&driver, "gold"), Some(1.into()));
    assert_eq!(size(&driver, "blue"), None, "nobody ever saw blue");
}

#[test]
fn a_key_that_is_made_and_deleted_between_commits_leaves_nothing() {
    let builder = StreamsBuilder::new();
    builder
        .table("in", consumed(), text_store("latest"))
        .emit_per_commit()
        .to_stream()
        .to(
            "out",
            Produced::with(serdes::string(), serdes::optional(serdes::string())),
        );
    let mut driver = driver(builder);
    let optional = || serdes::optional(serdes::string());
    let input = driver.input_topic("in", serdes::string(), optional());
    let output = driver.output_topic("out", serdes::string(), optional());
    let update =
        |key: &str, value: Option<&str>| Record::new(key.to_owned(), value.map(str::to_owned), 1);
    let batch = [
        update("passing", Some("1")),
        update("kept", Some("1")),
        update("passing", None),
    ];
    input.pipe_all(&mut driver, &batch).unwrap();
    let kept = ("kept".to_owned(), Some("1".to_owned()));
    assert_eq!(output.read_key_values(&mut driver).unwrap(), [kept]);
    // What was sent before is deleted by a tombstone.
    let batch = [update("kept", Some("2")), update("kept", None)];
    input.pipe_all(&mut driver, &batch).unwrap();
    let gone = ("kept".to_owned(), None);
    assert_eq!(output.read_key_values(&mut driver).unwrap(), [gone]);
}

#[test]
fn an_aborted_transaction_leaves_nothing_and_its_updates_are_sent_once() {
    for (point, fault) in [
        (FaultPoint::Commit, Fault::AbortRequired),
        (FaultPoint::SendOffsets, Fault::AbortRequired),
        (FaultPoint::Commit, Fault::ReplyLost),
        (FaultPoint::Commit, Fault::Fatal),
        // The update itself cannot be sent.
        (FaultPoint::Send, Fault::AbortRequired),
    ] {
        let (mut driver, input, counts) = counting();
        input.pipe_all(&mut driver, &words(&[("tea", 1)])).unwrap();
        assert_eq!(read(&counts, &mut driver), [row("tea", 1, 1)]);
        let plan = FaultNext::new(point, fault, 1);
        driver.log().set_faults(Some(Arc::clone(&plan) as _));
        let batch = words(&[("tea", 2), ("tea", 3), ("rice", 4)]);
        input.pipe_all(&mut driver, &batch).unwrap();
        assert!(plan.has_fired(), "{point:?}");
        assert_eq!(
            read(&counts, &mut driver),
            [row("tea", 3, 3), row("rice", 1, 4)],
            "{point:?} {fault:?}"
        );
    }
}

#[test]
fn a_record_that_is_rolled_back_takes_its_update_with_it() {
    let builder = StreamsBuilder::new();
    let table = builder.table(
        "in",
        consumed().on_error(ErrorPolicy::Skip),
        text_store("latest"),
    );
    let produced = || Produced::with(serdes::string(), serdes::optional(serdes::string()));
    table.emit_per_commit().to_stream().to("out", produced());
    // Drawn behind: it fails when the update is held back already.
    table
        .to_stream()
        .try_map_values(|value| match value.as_deref() {
            Some("bad") => Err("refused".into()),
            _ => Ok(value),
        })
        .to("checked", produced());
    let mut driver = driver(builder);
    let input = driver.input_topic("in", serdes::string(), serdes::string());
    let optional = || serdes::optional(serdes::string());
    let output = driver.output_topic("out", serdes::string(), optional());
    let batch = [
        record("a", "1", 1),
        record("a", "bad", 2),
        record("b", "bad", 3),
        record("c", "1", 4),
        record("a", "2", 5),
        record("c", "bad", 6),
    ];
    input.pipe_all(&mut driver, &batch).unwrap();
    let sent = output.read_records(&mut driver).unwrap();
    let sent: Vec<_> = sent
        .iter()
        .map(|it| (it.key.as_str(), it.value.as_deref(), it.timestamp))
        .collect();
    assert_eq!(sent, [("c", Some("1"), 4), ("a", Some("2"), 5)]);
}

#[test]
fn stores_downstream_belong_to_the_same_transaction() {
    let builder = StreamsBuilder::new();
    // Held back twice: what the first node sends reaches the second before it is emptied.
    builder
        .table("in", consumed(), text_store("latest"))
        .emit_per_commit()
        .map_values(|_, value| value.len() as i64)
        .materialized(Materialized::as_store(
            "lengths",
            serdes::string(),
            serdes::i64(),
        ))
        .emit_per_commit()
        .to_stream()
        .to(
            "out",
            Produced::with(serdes::string(), serdes::optional(serdes::i64())),
        );
    let mut driver = driver(builder);
    let input = driver.input_topic("in", serdes::string(), serdes::string());
    let output = driver.output_topic("out", serdes::string(), serdes::optional(serdes::i64()));
    let plan = FaultNext::new(FaultPoint::Commit, Fault::AbortRequired, 1);
    driver.log().set_faults(Some(Arc::clone(&plan) as _));
    let batch = [record("a", "xx", 1), record("a", "xxx", 2)];
    input.pipe_all(&mut driver, &batch).unwrap();
    assert!(plan.has_fired());
    assert_eq!(output.read_values(&mut driver).unwrap(), [Some(3)]);
    assert_eq!(driver.store_value("lengths", "a").unwrap(), Some(3.into()));
    driver.restart(false).unwrap();
    assert_eq!(
        driver.store_value("lengths", "a").unwrap(),
        Some(3.into()),
        "the changelog has it"
    );
}
