//! Versioned tables and joins that wait for them: mistakes, restarts, reads of the past.

use std::time::Duration;

use crate::prelude::*;
use crate::query::QueryError;
use crate::testing::{DriverError, TopologyTestDriver};

fn consumed() -> Consumed<String, i64> {
    Consumed::with(serdes::string(), serdes::i64())
}

fn produced() -> Produced<String, i64> {
    Produced::with(serdes::string(), serdes::i64())
}

fn store(name: &str) -> Materialized<String, i64> {
    Materialized::as_store(name, serdes::string(), serdes::i64())
}

fn mistakes(builder: StreamsBuilder) -> Vec<String> {
    let errors = builder.build().expect_err("a mistake");
    errors.iter().map(ToString::to_string).collect()
}

const fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

#[test]
fn a_join_waits_for_a_versioned_table_only_and_not_longer_than_its_history() {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", consumed());
    let plain = builder.table("plain", consumed(), store("plain"));
    let short = builder.table("short", consumed(), store("short").versioned(ms(9)));
    for (name, table) in [("of-plain", &plain), ("of-short", &short)] {
        let joined = Joined::as_name(name).with_grace_period(ms(10));
        orders
            .join_table(table, |_, left, right| left + right, joined)
            .to("out", produced());
    }
    // As long as its history is allowed.
    let joined = Joined::as_name("enough").with_grace_period(ms(9));
    orders
        .join_table(&short, |_, left, right| left + right, joined)
        .to("out", produced());
    assert_eq!(
        mistakes(builder),
        [
            "store `of-plain-Buffer` cannot be used so: a join with a grace period needs a versioned table",
            "store `of-short-Buffer` cannot be used so: the table must keep at least as much history as \
             the grace period",
        ]
    );
}

#[test]
fn a_join_that_waits_needs_the_serdes_of_what_it_keeps() {
    let builder = StreamsBuilder::new();
    let rates = builder.table("rates", consumed(), store("rates").versioned(ms(10)));
    builder
        .stream("orders", consumed())
        .map_values(|amount| amount + 1)
        .join_table(
            &rates,
            |_, left, right| left + right,
            Joined::as_name("waits").with_grace_period(ms(10)),
        )
        .to("out", produced());
    let errors = builder.build().unwrap_err();
    let found: Vec<_> = errors.iter().cloned().collect();
    assert!(
        matches!(
            &found[..],
            [TopologyError::JoinWithoutSerde { name, field: "value" }] if name == "waits"
        ),
        "{found:?}"
    );
}

#[test]
fn an_aggregate_has_no_versions() {
    let builder = StreamsBuilder::new();
    let grouped = builder
        .stream("in", consumed())
        .group_by_key(Grouped::as_name("by-key"));
    let counts = grouped.count(store("counts").versioned(ms(10)));
    counts.to_stream().to(
        "out",
        Produced::with(serdes::string(), serdes::optional(serdes::i64())),
    );
    let windowed = grouped
        .windowed_by(TimeWindows::of_size_with_no_grace(ms(10)))
        .count(store("windowed").versioned(ms(10)));
    windowed.to_stream().for_each(|_, _| {});
    let reason = "only a table of a topic or stream (not a global one), or one kept with `materialized`, \
         can be versioned; leave `versioned` out";
    assert_eq!(
        mistakes(builder),
        ["counts", "windowed"].map(|name| format!("store `{name}` cannot be used so: {reason}"))
    );
}

/// Orders that wait 10 ms for rates.
fn waiting() -> TopologyTestDriver {
    let builder = StreamsBuilder::new();
    let rates = builder.table("rates", consumed(), store("rates").versioned(ms(100)));
    builder
        .stream("orders", consumed())
        .join_table(
            &rates,
            |_, amount, rate| amount * rate,
            Joined::as_name("waits").with_grace_period(ms(10)),
        )
        .to("out", produced());
    TopologyTestDriver::new(builder.build().unwrap()).unwrap()
}

fn pipe(driver: &mut TopologyTestDriver, topic: &str, value: i64, time: Timestamp) {
    let topic = driver.input_topic(topic, serdes::string(), serdes::i64());
    let record = Record::new("k".to_owned(), value, time);
    topic.pipe_record(driver, &record).unwrap();
}

fn joined(driver: &mut TopologyTestDriver) -> Vec<(i64, Timestamp)> {
    let out = driver.output_topic("out", serdes::string(), serdes::i64());
    let records = out.read_records(driver).unwrap().into_iter();
    records
        .map(|record| (record.value, record.timestamp))
        .collect()
}

#[test]
fn records_that_wait_for_a_table_survive_a_restart_with_and_without_local_state() {
    for keep_state in [true, false] {
        let mut driver = waiting();
        pipe(&mut driver, "rates", 2, 990);
        pipe(&mut driver, "orders", 10, 1_005);
        pipe(&mut driver, "orders", 20, 1_005);
        assert_eq!(joined(&mut driver), [], "they wait");
        driver.restart(keep_state).unwrap();
        // Of the same key and time: it must not take the place of one that waits.
        pipe(&mut driver, "orders", 30, 1_005);
        pipe(&mut driver, "rates", 3, 1_004);
        // That it comes too late to wait is known from the records before the restart.
        pipe(&mut driver, "orders", 40, 994);
        assert_eq!(joined(&mut driver), [(80, 994)], "state kept: {keep_state}");
        pipe(&mut driver, "orders", 50, 1_015);
        assert_eq!(
            joined(&mut driver),
            [(30, 1_005), (60, 1_005), (90, 1_005)],
            "state kept: {keep_state}"
        );
    }
}

#[test]
fn a_versioned_store_tells_what_was_valid_at_a_time() {
    let mut driver = waiting();
    for (value, time) in [(1, 1_000), (2, 1_050), (3, 1_020)] {
        pipe(&mut driver, "rates", value, time);
    }
    let as_of = |time| {
        let found = driver.store_value_as_of("rates", "k", time).unwrap();
        found.and_then(|value| value.as_i64())
    };
    assert_eq!(as_of(999), None);
    assert_eq!(as_of(1_000), Some(1));
    assert_eq!(as_of(1_019), Some(1));
    assert_eq!(as_of(1_020), Some(3));
    assert_eq!(as_of(1_050), Some(2));
    assert_eq!(driver.store_value("rates", "k").unwrap(), Some(2.into()));
    assert_eq!(driver.store_value_as_of("rates", "l", 1_050).unwrap(), None);
    let refused = driver.store_value_as_of("waits-Buffer", "k", 1_000);
    assert!(
        matches!(&refused, Err(DriverError::Query(QueryError::NotVersioned(store))) if store == "waits-Buffer"),
        "{refused:?}"
    );
}
