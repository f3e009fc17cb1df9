//! Values that keep the headers of their records.

use std::time::Duration;

use millstream::log::LogMessage;
use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;

use crate::support::{consumed, messages, text_store};

const CHANGELOG: &str = "keeper-latest-changelog";

fn latest() -> Materialized<String, WithHeaders<String>> {
    Materialized::with_headers("latest", serdes::string(), serdes::string())
}

/// A table of what came last, with its headers; null deletes.
fn with_headers() -> Topology {
    let builder = StreamsBuilder::new();
    let values = Consumed::with(serdes::string(), serdes::optional(serdes::string()));
    let words = builder.stream("words", values).with_headers();
    drop(words.to_table::<WithHeaders<String>>(latest()));
    builder.build().unwrap()
}

/// The same without.
fn without_headers() -> Topology {
    let builder = StreamsBuilder::new();
    let values = Consumed::with(serdes::string(), serdes::optional(serdes::string()));
    let words = builder.stream("words", values);
    drop(words.to_table::<String>(text_store("latest")));
    builder.build().unwrap()
}

fn driver(topology: Topology) -> TopologyTestDriver {
    TopologyTestDriver::builder()
        .application_id("keeper")
        .build(topology)
        .unwrap()
}

fn pipe(driver: &mut TopologyTestDriver, key: &str, value: Option<&str>, headers: &Headers) {
    let value = value.map(str::as_bytes);
    driver
        .pipe_bytes("words", Some(key.as_bytes()), value, 7, headers)
        .unwrap();
}

fn headers() -> Headers {
    let mut headers = Headers::new().with("who", "ann").with("who", "bob");
    headers.push("null", None);
    headers.push("bytes", Some(vec![0xff]));
    headers
}

fn stored(driver: &TopologyTestDriver, key: &str) -> serde_json::Value {
    driver
        .store_value("latest", key)
        .unwrap()
        .unwrap_or_default()
}

#[test]
fn headers_are_kept_with_the_value_and_come_back_from_the_changelog() {
    let mut driver = driver(with_headers());
    pipe(&mut driver, "tea", Some("green"), &headers());
    pipe(&mut driver, "jam", Some("red"), &Headers::new());
    pipe(&mut driver, "rum", Some("brown"), &headers());
    pipe(&mut driver, "rum", None, &headers());
    let tea = serde_json::json!({
        "headers": [
            {"name": "who", "value": "ann"},
            {"name": "who", "value": "bob"},
            {"name": "null", "value": null},
            {"name": "bytes", "value": [255]},
        ],
        "value": "green",
    });
    for keep_state in [true, true, false] {
        assert_eq!(stored(&driver, "tea"), tea);
        assert_eq!(
            stored(&driver, "jam"),
            serde_json::json!({"headers": [], "value": "red"})
        );
        assert_eq!(driver.store_value("latest", "rum").unwrap(), None);
        driver.restart(keep_state).unwrap();
    }
}

#[test]
fn the_changelog_has_plain_values_and_the_headers_as_headers() {
    let mut driver = driver(with_headers());
    pipe(&mut driver, "tea", Some("green"), &headers());
    pipe(&mut driver, "tea", None, &headers());
    let changes: Vec<_> = messages(driver.log(), CHANGELOG)
        .iter()
        .map(|message| {
            let value = message.value().map(<[u8]>::to_vec);
            (value, message.timestamp(), message.headers())
        })
        .collect();
    assert_eq!(
        changes,
        [
            (Some(b"green".to_vec()), 7, headers()),
            (None, 7, Headers::new())
        ]
    );
}

#[test]
fn a_store_may_begin_and_cease_to_keep_headers() {
    let mut driver = driver(without_headers());
    pipe(&mut driver, "tea", Some("green"), &headers());
    driver.restart_with(with_headers(), true).unwrap();
    assert_eq!(
        stored(&driver, "tea"),
        serde_json::json!({"headers": [], "value": "green"})
    );
    pipe(
        &mut driver,
        "tea",
        Some("black"),
        &Headers::new().with("a", "b"),
    );
    driver.restart_with(without_headers(), true).unwrap();
    assert_eq!(stored(&driver, "tea"), "black");
    // Its changelog still has them.
    driver.restart_with(with_headers(), true).unwrap();
    assert_eq!(
        stored(&driver, "tea"),
        serde_json::json!({"headers": [{"name": "a", "value": "b"}], "value": "black"})
    );
}

#[test]
fn windows_and_sessions_keep_headers_too() {
    let builder = StreamsBuilder::new();
    let by_key = builder
        .stream("words", consumed())
        .with_headers()
        .group_by_key(Grouped::as_name("by-key"));
    let second = Duration::from_secs(1);
    let last = |store: &str| Materialized::with_headers(store, serdes::string(), serdes::string());
    by_key
        .windowed_by(TimeWindows::of_size_with_no_grace(second))
        .reduce(|_, new| new, last("windows"));
    by_key
        .windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(second))
        .reduce(|_, new| new, last("sessions"));
    let mut driver = driver(builder.build().unwrap());
    pipe(
        &mut driver,
        "tea",
        Some("green"),
        &Headers::new().with("a", "b"),
    );
    let expected = serde_json::json!({"headers": [{"name": "a", "value": "b"}], "value": "green"});
    for keep_state in [true, false, true] {
        for (store, key) in [("windows", "tea@0"), ("sessions", "tea@7..7")] {
            let found = driver.store_value(store, key).unwrap();
            assert_eq!(found, Some(expected.clone()), "{store}");
        }
        driver.restart(keep_state).unwrap();
    }
}

#[test]
fn versioned_stores_refuse_headers() {
    let builder = StreamsBuilder::new();
    let words = builder.stream("words", consumed()).with_headers();
    let versioned = latest().versioned(Duration::from_secs(1));
    drop(words.to_table::<WithHeaders<String>>(versioned));
    let mistakes = builder.build().unwrap_err().to_string();
    assert!(mistakes.contains("keep no headers"), "{mistakes}");
}
