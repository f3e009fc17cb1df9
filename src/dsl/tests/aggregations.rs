use super::harness::{TestApp, consumed, produced, store};
use crate::prelude::*;

fn grouped() -> Grouped<String, String> {
    Grouped::as_name("grouped")
}

fn to_out(table: &KTable<String, String>) {
    table.to_stream().to(
        "out",
        Produced::with(serdes::string(), serdes::optional(serdes::string())),
    );
}

#[test]
fn aggregate_folds_each_key_from_the_initial_value() {
    let builder = StreamsBuilder::new();
    let table = builder
        .stream("in", consumed())
        .group_by_key(grouped())
        .aggregate(
            || "0".to_owned(),
            |key, value, aggregate| format!("{aggregate}{key}{value}"),
            store("folded"),
        );
    to_out(&table);
    let mut app = TestApp::new(builder);
    assert_eq!(
        app.tasks.len(),
        1,
        "the key is unchanged: nothing is repartitioned"
    );
    for (timestamp, (key, value)) in (1..).zip([("a", "1"), ("b", "1"), ("a", "2")]) {
        app.pipe("in", key, value, timestamp).unwrap();
    }
    assert_eq!(app.take(), ["out a=0a1@1", "out b=0b1@2", "out a=0a1a2@3"]);
}

#[test]
fn an_aggregate_carries_the_latest_time_of_its_records() {
    let builder = StreamsBuilder::new();
    let table = builder
        .stream("in", consumed())
        .group_by_key(grouped())
        .reduce(|aggregate, value| aggregate + &value, store("reduced"));
    to_out(&table);
    let mut app = TestApp::new(builder);
    for timestamp in [5, 3, 7, 6] {
        app.pipe("in", "a", "x", timestamp).unwrap();
    }
    assert_eq!(
        app.take(),
        ["out a=x@5", "out a=xx@5", "out a=xxx@7", "out a=xxxx@7"]
    );
}

#[test]
fn try_aggregate_deletes_on_none_and_starts_anew() {
    let builder = StreamsBuilder::new();
    let table = builder
        .stream("in", consumed())
        .group_by_key(grouped())
        .try_aggregate(
            String::new,
            |_, value, aggregate| match value.as_str() {
                "delete" => Ok(None),
                "fail" => Err("as told".into()),
                _ => Ok(Some(aggregate + &value)),
            },
            store("folded"),
        );
    to_out(&table);
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    app.pipe("in", "a", "2", 2).unwrap();
    let error = app.pipe("in", "a", "fail", 3).unwrap_err();
    assert_eq!(error.stage(), Some(Stage::Processing));
    app.pipe("in", "a", "delete", 4).unwrap();
    app.pipe("in", "a", "5", 5).unwrap();
    assert_eq!(
        app.take(),
        ["out a=1@1", "out a=12@2", "out a=null@4", "out a=5@5"]
    );
}

#[test]
fn grouping_by_a_new_key_repartitions_once_for_all_its_aggregations() {
    let builder = StreamsBuilder::new();
    let by_value = builder.stream("in", consumed()).group_by(
        |_, value| value.clone(),
        Grouped::with("by-value", serdes::string(), serdes::string()),
    );
    by_value
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ))
        .to_stream()
        .map_values(|count| count.map_or_else(String::new, |count| count.to_string()))
        .to("counts-out", produced());
    let last = by_value.reduce(|_, value| value, store("last"));
    to_out(&last);
    let topology = builder.build().unwrap();
    assert_eq!(topology.repartition_topics().len(), 1);
    assert_eq!(topology.sub_topologies().len(), 2);
}

#[test]
fn records_take_the_way_through_the_repartition_topic() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", consumed())
        .group_by(
            |_, value| value.clone(),
            Grouped::with("by-value", serdes::string(), serdes::string()),
        )
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ))
        .to_stream()
        .map_values(|count| count.map_or_else(String::new, |count| count.to_string()))
        .to("out", produced());
    let mut app = TestApp::new(builder);
    assert_eq!(app.tasks.len(), 2);
    for (timestamp, (key, value)) in (1..).zip([("a", "x"), ("b", "x"), ("b", "y")]) {
        app.pipe("in", key, value, timestamp).unwrap();
    }
    assert_eq!(app.take(), ["out x=1@1", "out x=2@2", "out y=1@3"]);
}

#[test]
fn serdes_are_inherited_as_far_as_nothing_changed() {
    let builder = StreamsBuilder::new();
    let table = builder
        .stream("in", consumed())
        .filter(|_, _| true)
        .repartition(Repartitioned::as_name("again").partitions(7))
        .group_by_key(grouped())
        .reduce(|_, value| value, store("last"));
    to_out(&table);
    let topology = builder.build().unwrap();
    let [topic] = topology.repartition_topics() else {
        panic!("one explicit repartition")
    };
    assert_eq!((topic.name.as_str(), topic.partitions), ("again", Some(7)));
}

#[test]
fn a_repartition_inherits_policies_and_rewinding_from_the_source() {
    let builder = StreamsBuilder::new();
    let consumed = consumed()
        .rewindable(false)
        .on_error(ErrorPolicy::Skip)
        .on_error_at(
            Stage::Deserialization,
            ErrorPolicy::DeadLetter {
                topic: "dead".to_owned(),
            },
        );
    builder
        .stream("in", consumed)
        .repartition(Repartitioned::as_name("again"))
        .to("out", produced());
    let topology = builder.build().unwrap();
    for sub_topology in topology.sub_topologies() {
        let [source] = sub_topology.sources.as_slice() else {
            panic!("one source each")
        };
        assert!(!source.rewindable);
        assert_eq!(source.on_processing_error, ErrorPolicy::Skip);
        assert_eq!(source.on_production_error, ErrorPolicy::Skip);
        assert!(matches!(
            source.on_deserialization_error,
            ErrorPolicy::DeadLetter { .. }
        ));
    }
    let declared: Vec<_> = topology
        .declared_topics()
        .iter()
        .map(|topic| topic.name.as_str())
        .collect();
    assert_eq!(
        declared,
        ["dead", "in", "out"],
        "dead-letter topics are declared too"
    );
}

/// Puts a count into the store of a table.
struct Preset(StoreRef<String, i64>);

impl Processor<String, String, String, String> for Preset {
    fn process(
        &mut self,
        _context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        Ok(self.0.put(record.key, record.value.parse()?)?)
    }
}

#[test]
fn a_count_that_overflows_fails_its_record() {
    let builder = StreamsBuilder::new();
    let table = builder
        .stream("in", consumed())
        .group_by_key(grouped())
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ));
    let counts = table.store().unwrap();
    assert_eq!(counts.name(), "counts");
    assert!(
        table.map_values(|_, count| count).store().is_none(),
        "only the first has a store"
    );
    builder
        .stream("preset", consumed())
        .process("preset", (counts,), |_, (counts,)| Preset(counts))
        .to("out", produced());
    let mut app = TestApp::new(builder);
    assert_eq!(app.tasks.len(), 1, "a processor can share a table's store");
    app.pipe("preset", "a", &*(i64::MAX - 1).to_string(), 1)
        .unwrap();
    app.pipe("in", "a", "", 2).unwrap();
    let error = app.pipe("in", "a", "", 3).unwrap_err();
    assert_eq!(error.stage(), Some(Stage::Processing));
}
