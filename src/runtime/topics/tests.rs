//! Partition counts, and what has no place.

use std::time::Duration;

use super::*;
use crate::prelude::*;

fn sub_topology(id: u32, sources: Vec<SourceSpec>) -> SubTopology {
    SubTopology {
        id,
        sources,
        sinks: Vec::new(),
        stores: Vec::new(),
        instantiate: Box::new(|_| {
            Err(StateError::UnknownStore {
                store: "none".to_owned(),
            })
        }),
    }
}

#[test]
fn a_sub_topology_without_a_source_is_an_error_and_shifts_none() {
    let builder = StreamsBuilder::new();
    for topic in ["a", "b"] {
        builder
            .stream(topic, Consumed::with(serdes::string(), serdes::string()))
            .to("out", Produced::with(serdes::string(), serdes::string()));
    }
    let drawn = builder.build().unwrap();
    let sources = |index: usize| drawn.sub_topologies()[index].sources.clone();
    let topology = Topology::new(
        vec![
            sub_topology(0, sources(0)),
            sub_topology(1, Vec::new()),
            sub_topology(2, sources(1)),
        ],
        Vec::new(),
        BTreeMap::new(),
        Vec::new(),
        drawn.describe().clone(),
    );
    let topic = |name: &str| TopicDescription {
        name: name.into(),
        id: [0; 16],
        partitions: 1,
    };
    let existing = ["a", "b"].map(|name| (name.to_owned(), topic(name)));
    let config = RuntimeConfig::new("app", "unused");
    let resolved = resolve_topics(&Arc::new(topology), &config, &existing.into());
    assert!(
        matches!(resolved, Err(TopicsError::NoSource { sub_topology: 1 })),
        "{resolved:?}"
    );
}

fn counts(builder: StreamsBuilder, existing: &[(&str, i32)]) -> BTreeMap<String, i32> {
    let config = RuntimeConfig::new("app", "unused");
    let existing = existing
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect();
    let plan = plan_topics(&builder.build().unwrap(), &config, &existing).unwrap();
    let counts = plan.partitions.into_iter();
    counts
        .map(|(topic, count)| (topic.to_string(), count))
        .collect()
}

fn table(builder: &StreamsBuilder, name: &str) -> KTable<String, String> {
    builder.table(
        name,
        Consumed::with(serdes::string(), serdes::string()),
        Materialized::as_store(name, serdes::string(), serdes::string()),
    )
}

#[test]
fn a_repartitioned_stream_has_as_many_partitions_as_the_table_it_is_joined_with() {
    let builder = StreamsBuilder::new();
    let users = table(&builder, "users");
    builder
        .stream("orders", Consumed::with(serdes::string(), serdes::string()))
        .select_key(|_, user| user.clone())
        .join_table(
            &users,
            |_, order, user| order + &user,
            Joined::with("by-user", serdes::string(), serdes::string()),
        )
        .to("out", Produced::with(serdes::string(), serdes::string()));
    let counts = counts(builder, &[("orders", 6), ("users", 3), ("out", 1)]);
    assert_eq!(counts.get("by-user-repartition"), Some(&3));
}

#[test]
fn repartition_topics_that_meet_at_a_join_have_as_many_partitions_as_the_largest_needs() {
    let builder = StreamsBuilder::new();
    let texts = || Consumed::with(serdes::string(), serdes::string());
    let by_value = |name| builder.stream(name, texts()).select_key(|_, v| v.clone());
    let join = |left: &KStream<String, String>, right: &KStream<String, String>, name| {
        let windows = JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(1));
        let text = serdes::string;
        let joined = StreamJoined::with(name, text(), text(), text());
        left.join(right, |_, left, right| left + &right, windows, joined)
    };
    let first = join(&by_value("two"), &by_value("five"), "first");
    join(&first, &by_value("three"), "second")
        .to("out", Produced::with(serdes::string(), serdes::string()));
    let counts = counts(
        builder,
        &[("two", 2), ("three", 3), ("five", 5), ("out", 1)],
    );
    for name in ["first-left", "first-right", "second-right"] {
        let topic = format!("{name}-repartition");
        assert_eq!(counts.get(&topic), Some(&5), "{topic} in {counts:?}");
    }
}

#[test]
fn a_count_that_the_author_fixed_holds_for_what_meets_it() {
    let builder = StreamsBuilder::new();
    let texts = || Consumed::with(serdes::string(), serdes::string());
    let by_value = |name| builder.stream(name, texts()).select_key(|_, v| v.clone());
    let text = serdes::string;
    let fixed = Repartitioned::with("fixed", text(), text()).partitions(7);
    by_value("two")
        .repartition(fixed)
        .left_join(
            &by_value("five"),
            |_, left, _| left,
            JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(1)),
            StreamJoined::with("joined", text(), text(), text()),
        )
        .to("out", Produced::with(serdes::string(), serdes::string()));
    let counts = counts(builder, &[("two", 2), ("five", 5), ("out", 1)]);
    assert_eq!(counts.get("joined-right-repartition"), Some(&7));
}

#[test]
fn the_topics_of_a_foreign_key_join_follow_the_table_that_reads_them() {
    let builder = StreamsBuilder::new();
    let (left, right) = (table(&builder, "left"), table(&builder, "right"));
    let joined = left.join_foreign_key(
        &right,
        |_, value| Some(value.clone()),
        |_, left, right| left + &right,
        TableJoined::as_name("fk"),
        Materialized::as_store("joined", serdes::string(), serdes::string()),
    );
    drop(joined);
    let counts = counts(builder, &[("left", 6), ("right", 4)]);
    assert_eq!(counts.get("fk-subscription-repartition"), Some(&4));
    assert_eq!(counts.get("fk-response-repartition"), Some(&6));
}
