use super::harness::{consumed, produced, store};
use crate::prelude::*;

#[track_caller]
fn mistakes(builder: StreamsBuilder) -> Vec<TopologyError> {
    builder
        .build()
        .expect_err("a mistake")
        .iter()
        .cloned()
        .collect()
}

#[test]
fn an_empty_topology_is_refused() {
    assert_eq!(mistakes(StreamsBuilder::new()), [TopologyError::Empty]);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let builder = StreamsBuilder::new();
    builder.declare_topic("nobody", [("retention.ms", "1")]);
    let _unread = builder.stream("unread", consumed());
    let _unconnected = builder.add_state_store(store("unconnected"));
    let stream = builder.stream("bad topic", consumed());
    stream.to("..", produced());
    stream
        .filter(|_, _| true)
        .named("twice")
        .peek(|_, _| ())
        .named("twice")
        .to("out", produced());
    let errors = builder.build().unwrap_err();
    assert_eq!(
        errors.to_string(),
        "the topology has 6 mistakes:\n\
         - topic name `bad topic` is illegal: it contains ' '; Kafka allows letters, digits, `.`, `_` and `-`\n\
         - topic name `..` is illegal: Kafka refuses `.` and `..`\n\
         - node name `twice` is used more than once; each needs a name of its own\n\
         - topic `unread` is read by `KSTREAM-SOURCE-0000000000`, but nothing is done with its records\n\
         - store `unconnected` is not connected to any processor; pass its handle to `process`\n\
         - topic `nobody` is declared, but nothing reads or writes it"
    );
}

#[test]
fn a_store_name_is_used_once_and_legal() {
    let builder = StreamsBuilder::new();
    for topic in ["a", "b"] {
        let _table = builder.table(topic, consumed(), store("same"));
    }
    let _reserved = builder.table("c", consumed(), store("offsets"));
    let mistakes = mistakes(builder);
    assert!(
        matches!(&mistakes[0], TopologyError::DuplicateName { what: "store", name } if name == "same")
    );
    assert!(matches!(
        &mistakes[1],
        TopologyError::IllegalName { what: "store", .. }
    ));
    assert_eq!(mistakes.len(), 2);
}

type SecondReader = fn(&StreamsBuilder);

#[test]
fn a_topic_is_read_in_one_way() {
    let cases: [(SecondReader, &str); 4] = [
        (
            |builder| {
                builder
                    .stream("in", Consumed::with(serdes::string(), serdes::i64()))
                    .for_each(|_, _| ())
            },
            "as different types",
        ),
        (
            |builder| {
                builder
                    .stream("in", consumed().on_error(ErrorPolicy::Skip))
                    .for_each(|_, _| ())
            },
            "with different error policies",
        ),
        (
            |builder| {
                builder
                    .stream("in", consumed().rewindable(false))
                    .for_each(|_, _| ())
            },
            "once rewindable, once not",
        ),
        (
            |builder| drop(builder.table("in", consumed(), store("table"))),
            "once as a table",
        ),
    ];
    for (second, expected) in cases {
        let builder = StreamsBuilder::new();
        builder.stream("in", consumed()).to("out", produced());
        second(&builder);
        let mistakes = mistakes(builder);
        let [TopologyError::TopicReadTwice { topic, how }] = mistakes.as_slice() else {
            panic!("{mistakes:?}")
        };
        assert_eq!((topic.as_str(), *how), ("in", expected));
    }
}

#[test]
fn two_tables_over_one_topic_are_refused() {
    let builder = StreamsBuilder::new();
    let _first = builder.table("in", consumed(), store("first"));
    let _second = builder.table("in", consumed(), store("second"));
    assert!(matches!(
        mistakes(builder).as_slice(),
        [TopologyError::TopicReadTwice { .. }]
    ));
}

#[test]
fn a_repartition_without_serdes_says_which_one_is_missing() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", consumed())
        .map(|key, value| (value, key))
        .group_by_key(Grouped::as_name("swapped"))
        .reduce(|_, value| value, store("last"))
        .to_stream()
        .for_each(|_, _| ());
    let mistakes = mistakes(builder);
    let fields: Vec<_> = mistakes
        .iter()
        .map(|mistake| match mistake {
            TopologyError::MissingSerde { name, field } if name == "swapped" => *field,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(fields, ["key", "value"]);
}

#[test]
fn repartition_names_are_used_once() {
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", consumed());
    for name in ["again", "again-repartition"] {
        stream
            .repartition(Repartitioned::as_name(name))
            .for_each(|_, _| ());
    }
    assert!(matches!(
        mistakes(builder).as_slice(),
        [TopologyError::DuplicateName {
            what: "repartition",
            ..
        }]
    ));
}

#[test]
fn repartition_topics_that_meet_at_a_store_agree_on_their_partitions() {
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", consumed());
    let three = stream.repartition(Repartitioned::as_name("three").partitions(3));
    let four = stream.repartition(Repartitioned::as_name("four").partitions(4));
    three
        .merge(&four)
        .group_by_key(Grouped::as_name("both"))
        .reduce(|_, value| value, store("last"))
        .to_stream()
        .for_each(|_, _| ());
    assert_eq!(
        mistakes(builder),
        [TopologyError::NotCoPartitioned {
            topics: vec!["four".to_owned(), "three".to_owned()],
            partitions: vec![3, 4],
        }]
    );
}

#[test]
fn a_repartition_has_at_least_one_partition() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", consumed())
        .repartition(Repartitioned::as_name("none").partitions(0))
        .for_each(|_, _| ());
    assert!(matches!(
        mistakes(builder).as_slice(),
        [TopologyError::IllegalPartitions { .. }]
    ));
}

#[test]
fn a_record_store_needs_a_changelog() {
    let builder = StreamsBuilder::new();
    let _table = builder.table("in", consumed(), store("truth").record().no_changelog());
    assert!(matches!(
        mistakes(builder).as_slice(),
        [TopologyError::RecordStoreWithoutChangelog { .. }]
    ));
}

#[test]
fn handles_of_another_builder_are_refused() {
    let (builder, other) = (StreamsBuilder::new(), StreamsBuilder::new());
    let theirs = other.stream("in", consumed());
    builder
        .stream("in", consumed())
        .merge(&theirs)
        .for_each(|_, _| ());
    assert!(matches!(
        mistakes(builder).as_slice(),
        [TopologyError::ForeignHandle { .. }]
    ));
}

#[test]
fn a_topic_does_not_take_its_own_dead_letters() {
    let builder = StreamsBuilder::new();
    let loops = ErrorPolicy::Retry {
        attempts: 1,
        backoff: std::time::Duration::ZERO,
        then: Box::new(ErrorPolicy::DeadLetter {
            topic: "in".to_owned(),
        }),
    };
    builder
        .stream("in", consumed().on_error(loops))
        .for_each(|_, _| ());
    assert_eq!(
        mistakes(builder),
        [TopologyError::DeadLetterLoop {
            topic: "in".to_owned()
        }]
    );
}

#[test]
fn a_dead_letter_topic_has_a_legal_name() {
    let builder = StreamsBuilder::new();
    let policy = ErrorPolicy::DeadLetter {
        topic: "dead letters".to_owned(),
    };
    builder
        .stream("in", consumed().on_error(policy))
        .for_each(|_, _| ());
    assert!(matches!(
        mistakes(builder).as_slice(),
        [TopologyError::IllegalName { what: "topic", .. }]
    ));
}

#[test]
fn a_topic_is_declared_in_one_way() {
    let builder = StreamsBuilder::new();
    builder.declare_topic("in", [("retention.ms", "1")]);
    builder.declare_topic("in", [("retention.ms", "1")]);
    builder.declare_topic("in", [("retention.ms", "2")]);
    builder.stream("in", consumed()).for_each(|_, _| ());
    assert!(matches!(
        mistakes(builder).as_slice(),
        [TopologyError::TopicDeclaredTwice { .. }]
    ));
}

#[test]
fn declaring_adds_config_to_topics_that_are_used() {
    let builder = StreamsBuilder::new();
    builder.declare_topic("out", [("cleanup.policy", "compact")]);
    builder.stream("in", consumed()).to("out", produced());
    let topology = builder.build().unwrap();
    let configs: Vec<_> = topology
        .declared_topics()
        .iter()
        .map(|topic| (&*topic.name, topic.config.len()))
        .collect();
    assert_eq!(configs, [("in", 0), ("out", 1)]);
}

#[test]
#[should_panic(expected = "draw before `build`")]
fn nothing_is_drawn_after_the_topology_is_built() {
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", consumed());
    stream.to("out", produced());
    builder.build().unwrap();
    stream.to("late", produced());
}

#[test]
fn updates_of_a_versioned_table_are_not_held_back() {
    use std::time::Duration;
    let builder = StreamsBuilder::new();
    let versioned = Materialized::as_store("prices", serdes::string(), serdes::string())
        .versioned(Duration::from_secs(60));
    let prices = builder.table("prices", consumed(), versioned);
    drop(prices.suppress(Suppressed::until_time_limit(
        "late-prices",
        Duration::from_secs(1),
        BufferConfig::unbounded(),
    )));
    drop(prices.emit_per_commit());
    let found = mistakes(builder);
    for operator in ["suppress", "emit_per_commit"] {
        let refused = |mistake: &TopologyError| matches!(mistake, TopologyError::IllegalStore { store, .. } if store == operator);
        assert!(found.iter().any(refused), "{operator}: {found:?}");
    }
}

#[test]
fn a_table_that_waits_for_the_commit_is_not_joined_with_another() {
    let builder = StreamsBuilder::new();
    let table = |name: &str| {
        let store = Materialized::as_store(name, serdes::string(), serdes::string());
        builder.table(name, consumed(), store)
    };
    let (left, right) = (table("left"), table("right"));
    let held = left.emit_per_commit().filter(|_, _| true);
    drop(right.join(&held, |_, right, _| right));
    let refused = |mistake: &TopologyError| matches!(mistake, TopologyError::IllegalStore { store, .. } if store == "emit_per_commit");
    let found = mistakes(builder);
    assert!(found.iter().any(refused), "{found:?}");
}

#[test]
fn a_global_table_has_no_versions() {
    use std::time::Duration;
    let builder = StreamsBuilder::new();
    let versioned = Materialized::as_store("rates", serdes::string(), serdes::string())
        .versioned(Duration::from_secs(60));
    drop(builder.global_table("rates", consumed(), versioned));
    let refused = |mistake: &TopologyError| matches!(mistake, TopologyError::IllegalStore { store, reason } if store == "rates" && reason.contains("leave `versioned` out"));
    let found = mistakes(builder);
    assert!(found.iter().any(refused), "{found:?}");
}

#[test]
fn a_time_to_live_is_refused_where_entries_live_by_something_else() {
    use std::time::Duration;
    let hour = Duration::from_secs(3600);
    let ttl =
        |name: &str| Materialized::as_store(name, serdes::string(), serdes::string()).ttl(hour);
    let builder = StreamsBuilder::new();
    drop(builder.table("prices", consumed(), ttl("prices").versioned(hour)));
    drop(builder.global_table("rates", consumed(), ttl("rates")));
    let _record = builder.add_state_store(ttl("history").record());
    let _windows = builder.add_window_store(ttl("windows"), hour);
    let found = mistakes(builder);
    for name in ["prices", "rates", "history", "windows"] {
        let refused = |mistake: &TopologyError| matches!(mistake, TopologyError::IllegalStore { store, reason } if store == name && reason.contains("leave `ttl` out"));
        assert!(found.iter().any(refused), "{name}: {found:?}");
    }
}

#[test]
fn a_pattern_needs_a_name_and_keeps_away_from_topics_of_other_sources() {
    let builder = StreamsBuilder::new();
    for source in [
        builder.stream_pattern("in-.*", consumed()),
        builder.stream_pattern("(?=x)", consumed().named("look-ahead")),
        builder.stream("in-1", consumed()),
        builder.stream("xin-1", consumed()),
    ] {
        source.to("out", produced());
    }
    let errors = mistakes(builder);
    assert!(
        matches!(&errors[0], TopologyError::IllegalPattern { pattern, .. } if pattern == "(?=x)"),
        "{errors:?}"
    );
    assert_eq!(
        errors[1..],
        [
            TopologyError::UnnamedPattern {
                pattern: "in-.*".to_owned()
            },
            TopologyError::PatternOverlaps {
                pattern: "in-.*".to_owned(),
                topic: "in-1".to_owned()
            },
        ]
    );
}

#[test]
fn the_same_pattern_twice_is_one_source() {
    let builder = StreamsBuilder::new();
    for topic in ["first", "second"] {
        builder
            .stream_pattern("in-.*", consumed().named("inputs"))
            .to(topic, produced());
    }
    let topology = builder.build().unwrap();
    let [sub] = topology.sub_topologies() else {
        panic!("one part: {topology:?}");
    };
    assert_eq!(sub.sources.len(), 1);
    assert_eq!(sub.pattern_driver(), Some("inputs"));
}
