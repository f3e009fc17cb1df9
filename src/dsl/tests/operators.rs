use std::sync::{Arc, Mutex};

use super::harness::{Output, PARTITIONS, TestApp, consumed, produced};
use crate::prelude::*;
use crate::processor::{ProcessError, Stage};

/// Builds `in` → operator → `out`.
fn app(operator: impl FnOnce(KStream<String, String>) -> KStream<String, String>) -> TestApp {
    let builder = StreamsBuilder::new();
    operator(builder.stream("in", consumed())).to("out", produced());
    TestApp::new(builder)
}

#[track_caller]
fn assert_outputs(app: &mut TestApp, inputs: &[(&str, &str)], expected: &[&str]) {
    for (timestamp, (key, value)) in (1..).zip(inputs) {
        app.pipe("in", *key, *value, timestamp).unwrap();
    }
    assert_eq!(app.take(), expected);
}

#[test]
fn a_stream_copies_records_with_time_and_headers() {
    let mut app = app(|stream| stream);
    let input = Output {
        topic: "in".to_owned(),
        partition: Some(0),
        key: Some(b"k".to_vec()),
        value: Some(b"v".to_vec()),
        timestamp: 42,
        headers: Headers::new().with("a", "1").with("a", "2"),
    };
    app.pipe_raw(input.clone()).unwrap();
    let output = Output {
        topic: "out".to_owned(),
        partition: None,
        ..input
    };
    assert_eq!(app.take_raw(), [output]);
}

#[test]
fn map_changes_key_and_value() {
    let mut app = app(|stream| stream.map(|key, value| (value, key)));
    assert_outputs(&mut app, &[("a", "1")], &["out 1=a@1"]);
}

#[test]
fn map_values_keeps_the_key() {
    let mut app = app(|stream| {
        stream
            .map_values(|value| value.len())
            .map_values_with_key(|key, length| format!("{key}:{length}"))
    });
    assert_outputs(&mut app, &[("a", "xyz")], &["out a=a:3@1"]);
}

#[test]
fn map_records_sets_time_and_headers() {
    let mut app = app(|stream| {
        stream.map_records(|mut record| {
            record.timestamp += 100;
            record.headers.push("seen", None);
            record
        })
    });
    app.pipe("in", "a", "1", 1).unwrap();
    let outputs = app.take_raw();
    assert_eq!(outputs[0].timestamp, 101);
    assert_eq!(
        outputs[0].headers.iter().collect::<Vec<_>>(),
        [("seen", None)]
    );
}

#[test]
fn filter_keeps_and_filter_not_drops_what_holds() {
    let inputs = [("a", "1"), ("b", "2")];
    let mut kept = app(|stream| stream.filter(|_, value| value == "1"));
    assert_outputs(&mut kept, &inputs, &["out a=1@1"]);
    let mut dropped = app(|stream| stream.filter_not(|_, value| value == "1"));
    assert_outputs(&mut dropped, &inputs, &["out b=2@2"]);
}

#[test]
fn filter_map_drops_none() {
    let mut app = app(|stream| {
        stream.filter_map(|key, value| value.parse::<u8>().ok().map(|n| (key, (n + 1).to_string())))
    });
    assert_outputs(&mut app, &[("a", "1"), ("b", "x")], &["out a=2@1"]);
}

#[test]
fn flat_map_forwards_all_results_in_order() {
    let mut app =
        app(|stream| stream.flat_map(|key, value| [(value.clone(), key), (value.clone(), value)]));
    assert_outputs(&mut app, &[("a", "1")], &["out 1=a@1", "out 1=1@1"]);
}

#[test]
fn flat_map_values_may_forward_nothing() {
    let mut app = app(|stream| {
        stream.flat_map_values(|value| {
            value
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
    });
    assert_outputs(
        &mut app,
        &[("a", "x y"), ("b", "")],
        &["out a=x@1", "out a=y@1"],
    );
}

#[test]
fn select_key_keeps_the_value() {
    let mut app = app(|stream| stream.select_key(|key, value| format!("{key}{value}")));
    assert_outputs(&mut app, &[("a", "1")], &["out a1=1@1"]);
}

#[test]
fn peek_sees_every_record_and_for_each_ends_the_stream() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let builder = StreamsBuilder::new();
    let (peeked, ended) = (Arc::clone(&seen), Arc::clone(&seen));
    builder
        .stream("in", consumed())
        .peek(move |key, value| peeked.lock().unwrap().push(format!("peek {key}={value}")))
        .for_each(move |key, value| ended.lock().unwrap().push(format!("end {key}={value}")));
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    assert_eq!(*seen.lock().unwrap(), ["peek a=1", "end a=1"]);
    assert!(app.take().is_empty());
}

#[test]
fn several_children_see_a_record_in_the_order_they_were_attached() {
    let builder = StreamsBuilder::new();
    let stream = builder.stream("in", consumed());
    stream.to("first", produced());
    stream
        .map_values(|value| value + "!")
        .to("second", produced());
    stream.to("third", produced());
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    assert_eq!(app.take(), ["first a=1@1", "second a=1!@1", "third a=1@1"]);
}

#[test]
fn a_topic_that_is_read_twice_alike_is_one_source() {
    let builder = StreamsBuilder::new();
    builder.stream("in", consumed()).to("first", produced());
    builder.stream("in", consumed()).to("second", produced());
    let mut app = TestApp::new(builder);
    assert_eq!(app.tasks.len(), 1);
    app.pipe("in", "a", "1", 1).unwrap();
    assert_eq!(app.take(), ["first a=1@1", "second a=1@1"]);
}

#[test]
fn merge_passes_on_the_records_of_both() {
    let builder = StreamsBuilder::new();
    let left = builder.stream("left", consumed());
    let right = builder
        .stream("right", consumed())
        .map_values(|value| value + "!");
    left.merge(&right).to("out", produced());
    let mut app = TestApp::new(builder);
    app.pipe("left", "a", "1", 1).unwrap();
    app.pipe("right", "b", "2", 2).unwrap();
    assert_eq!(app.take(), ["out a=1@1", "out b=2!@2"]);
}

#[test]
fn a_stream_merged_with_itself_sends_twice() {
    let mut app = app(|stream| stream.merge(&stream));
    assert_outputs(&mut app, &[("a", "1")], &["out a=1@1", "out a=1@1"]);
}

#[test]
fn a_record_takes_the_first_branch_that_holds() {
    let builder = StreamsBuilder::new();
    let mut split = builder.stream("in", consumed()).split();
    split
        .branch(|_, value| value.starts_with('x'))
        .to("x", produced());
    split
        .branch(|_, value| value.ends_with('y'))
        .to("y", produced());
    split.default_branch().to("rest", produced());
    let mut app = TestApp::new(builder);
    for (timestamp, value) in (1..).zip(["xy", "ay", "a"]) {
        app.pipe("in", "k", value, timestamp).unwrap();
    }
    assert_eq!(app.take(), ["x k=xy@1", "y k=ay@2", "rest k=a@3"]);
}

#[test]
fn without_a_default_branch_the_rest_is_dropped() {
    let builder = StreamsBuilder::new();
    let mut split = builder.stream("in", consumed()).split();
    split.branch(|_, value| value == "1").to("one", produced());
    split.no_default_branch();
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    app.pipe("in", "a", "2", 2).unwrap();
    assert_eq!(app.take(), ["one a=1@1"]);
}

#[test]
fn a_partitioner_chooses_or_leaves_it_to_the_key() {
    let builder = StreamsBuilder::new();
    let produced = produced().partitioned_by(|key, _, partitions| {
        assert_eq!(partitions, PARTITIONS);
        key.parse().ok()
    });
    builder.stream("in", consumed()).to("out", produced);
    let mut app = TestApp::new(builder);
    app.pipe("in", "3", "", 1).unwrap();
    app.pipe("in", "x", "", 2).unwrap();
    let partitions: Vec<_> = app
        .take_raw()
        .iter()
        .map(|output| output.partition)
        .collect();
    assert_eq!(partitions, [Some(3), None]);
    let error = app.pipe("in", "4", "", 3).unwrap_err();
    assert_eq!(error.stage(), Some(Stage::Production), "no such partition");
}

#[test]
fn a_null_is_written_by_an_optional_serde() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", consumed())
        .map_values(|value| Some(value).filter(|value| value != "gone"))
        .to(
            "out",
            Produced::with(serdes::string(), serdes::optional(serdes::string())),
        );
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "1", 1).unwrap();
    app.pipe("in", "a", "gone", 2).unwrap();
    assert_eq!(app.take(), ["out a=1@1", "out a=null@2"]);
}

#[test]
fn a_record_that_cannot_be_read_names_its_source() {
    let builder = StreamsBuilder::new();
    let consumed = Consumed::with(serdes::string(), serdes::i64()).named("numbers");
    builder
        .stream("in", consumed)
        .to("out", Produced::with(serdes::string(), serdes::i64()));
    let mut app = TestApp::new(builder);
    for (key, value) in [
        (Some("a"), Some("text")),
        (Some("a"), None),
        (None, Some("12345678")),
    ] {
        let error = app.pipe("in", key, value, 1).unwrap_err();
        assert_eq!(error.stage(), Some(Stage::Deserialization));
        assert_eq!(error.to_string(), "source `numbers` cannot read the record");
    }
    assert!(app.take_raw().is_empty());
}

type Attempt = fn(&KStream<String, String>) -> KStream<String, String>;

#[test]
fn every_try_operator_fails_the_record_and_undoes_its_outputs() {
    fn refuse<T>() -> Result<T, BoxError> {
        Err(Reject {
            code: "NO",
            message: "no".to_owned(),
        }
        .into())
    }
    let operators: [(&str, Attempt); 9] = [
        ("map", |stream| stream.try_map(|_, _| refuse())),
        ("map_values", |stream| stream.try_map_values(|_| refuse())),
        ("map_values_with_key", |stream| {
            stream.try_map_values_with_key(|_, _| refuse())
        }),
        ("map_records", |stream| stream.try_map_records(|_| refuse())),
        ("filter", |stream| stream.try_filter(|_, _| refuse())),
        ("filter_map", |stream| {
            stream.try_filter_map(|_, _| refuse())
        }),
        ("flat_map", |stream| {
            stream.try_flat_map(|_, _| refuse::<Vec<_>>())
        }),
        ("flat_map_values", |stream| {
            stream.try_flat_map_values(|_| refuse::<Vec<_>>())
        }),
        ("select_key", |stream| {
            stream.try_select_key(|_, _| refuse())
        }),
    ];
    for (name, operator) in operators {
        let builder = StreamsBuilder::new();
        let stream = builder.stream("in", consumed());
        stream.to("before", produced());
        operator(&stream).named(name).to("out", produced());
        let mut app = TestApp::new(builder);
        let error = app.pipe("in", "a", "1", 1).unwrap_err();
        let ProcessError::Processing { node, source } = &error else {
            panic!("{error}")
        };
        assert_eq!(node, name);
        assert!(
            source
                .downcast_ref::<Reject>()
                .is_some_and(|reject| reject.code == "NO")
        );
        assert!(
            app.take().is_empty(),
            "`{name}` leaves no output of the failed record"
        );
        assert!(app.tasks[0].cx.outputs.is_empty());
    }
}

#[test]
fn try_for_each_fails_the_record() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", consumed())
        .try_for_each(|_, _| Err("no".into()));
    let error = TestApp::new(builder).pipe("in", "a", "1", 1).unwrap_err();
    assert_eq!(error.stage(), Some(Stage::Processing));
}
