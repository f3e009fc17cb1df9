use super::harness::{TestApp, consumed, produced, store};
use crate::prelude::*;

fn optional() -> Produced<String, Option<String>> {
    Produced::with(serdes::string(), serdes::optional(serdes::string()))
}

#[test]
fn a_table_keeps_the_latest_value_and_null_deletes() {
    let builder = StreamsBuilder::new();
    builder
        .table("in", consumed(), store("latest"))
        .to_stream()
        .to("out", optional());
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    app.pipe("in", "a", "2", 2).unwrap();
    app.pipe("in", "a", None, 3).unwrap();
    assert_eq!(app.take(), ["out a=1@1", "out a=2@2", "out a=null@3"]);
}

/// Shows both sides of a change.
fn changes(old_values: bool) -> TestApp {
    let builder = StreamsBuilder::new();
    let table = builder.table("in", consumed(), store("latest"));
    if old_values {
        table.enable_sending_old_values();
    }
    table
        .updates()
        .map_values(|change| format!("{:?}<-{:?}", change.new, change.old))
        .to("out", produced());
    TestApp::new(builder)
}

#[test]
fn old_values_are_sent_on_request_only() {
    let mut silent = changes(false);
    let mut telling = changes(true);
    for app in [&mut silent, &mut telling] {
        app.pipe("in", "a", "1", 1).unwrap();
        app.pipe("in", "a", "2", 2).unwrap();
        app.pipe("in", "a", None, 3).unwrap();
    }
    assert_eq!(
        silent.take(),
        [
            r#"out a=Some("1")<-None@1"#,
            r#"out a=Some("2")<-None@2"#,
            "out a=None<-None@3",
        ]
    );
    assert_eq!(
        telling.take(),
        [
            r#"out a=Some("1")<-None@1"#,
            r#"out a=Some("2")<-Some("1")@2"#,
            r#"out a=None<-Some("2")@3"#,
        ]
    );
}

#[test]
fn map_values_of_a_table_passes_deletes_on() {
    let builder = StreamsBuilder::new();
    builder
        .table("in", consumed(), store("latest"))
        .map_values(|key, value| format!("{key}{value}"))
        .to_stream()
        .to("out", optional());
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    app.pipe("in", "a", None, 2).unwrap();
    assert_eq!(app.take(), ["out a=a1@1", "out a=null@2"]);
}

#[test]
fn a_filtered_table_deletes_what_no_longer_passes() {
    let builder = StreamsBuilder::new();
    builder
        .table("in", consumed(), store("latest"))
        .filter(|_, value| value == "1")
        .to_stream()
        .to("out", optional());
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    app.pipe("in", "a", "2", 2).unwrap();
    assert_eq!(app.take(), ["out a=1@1", "out a=null@2"]);
    app.pipe("in", "b", "2", 3).unwrap();
    assert!(app.take().is_empty(), "what never passed is not deleted");
}

#[test]
fn filter_not_keeps_the_others() {
    let builder = StreamsBuilder::new();
    let table = builder.table("in", consumed(), store("latest"));
    table
        .filter_not(|_, value| value == "1")
        .to_stream()
        .to("out", optional());
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    app.pipe("in", "a", "2", 2).unwrap();
    assert_eq!(app.take(), ["out a=2@2"]);
}

#[test]
fn a_stream_becomes_a_table_and_none_deletes() {
    let builder = StreamsBuilder::new();
    builder
        .stream(
            "in",
            Consumed::with(serdes::string(), serdes::optional(serdes::string())),
        )
        .to_table(store("latest"))
        .to_stream()
        .to("out", optional());
    builder
        .stream("plain", consumed())
        .to_table(store("plain"))
        .to_stream()
        .to("out", optional());
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    app.pipe("in", "a", None, 2).unwrap();
    app.pipe("plain", "a", "1", 3).unwrap();
    assert_eq!(app.take(), ["out a=1@1", "out a=null@2", "out a=1@3"]);
}

#[test]
fn a_stream_with_a_new_key_is_repartitioned_under_the_stores_name() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", consumed())
        .select_key(|_, value| value.clone())
        .to_table(store("by-value"))
        .to_stream()
        .to("out", optional());
    let mut app = TestApp::new(builder);
    assert_eq!(app.tasks.len(), 2);
    app.pipe("in", "a", "1", 1).unwrap();
    assert_eq!(app.take(), ["out 1=1@1"]);
}

#[test]
fn stores_are_described_as_their_author_wants() {
    use crate::topology::{Durability, Persistence};
    let builder = StreamsBuilder::new();
    let kept = store("kept")
        .record()
        .changelog_config("segment.ms", "1000");
    builder
        .table("a", consumed(), kept)
        .to_stream()
        .to("out", optional());
    let cache = store("cache").in_memory().no_changelog();
    builder
        .table("b", consumed(), cache)
        .to_stream()
        .to("out", optional());
    let topology = builder.build().unwrap();
    let stores: Vec<_> = topology
        .sub_topologies()
        .iter()
        .flat_map(|sub_topology| &sub_topology.stores)
        .collect();
    assert_eq!(
        (stores[0].durability, stores[0].persistence),
        (Durability::Record, Persistence::RocksDb)
    );
    assert_eq!(stores[0].changelog.as_ref().unwrap()["segment.ms"], "1000");
    assert_eq!(
        (stores[1].durability, stores[1].persistence),
        (Durability::Derived, Persistence::InMemory)
    );
    assert_eq!(stores[1].changelog, None);
}
