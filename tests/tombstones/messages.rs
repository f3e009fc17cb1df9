//! Aggregates that messages come to.

use millstream::event_sourcing::{AggregateRecord, EventSourced, Message, Metadata, Step};
use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;
use serde_json::{Value, json};

use crate::note::{Burn, Lines, Note, NoteCommand, Write};

/// Reads `{"id","line"?}`: a message without a line burns the note.
fn message(value: &Value) -> Message<NoteCommand> {
    let content = match value["line"].as_str() {
        Some(line) => Write {
            lines: vec![line.to_owned()],
        }
        .into(),
        None => Burn { last: None }.into(),
    };
    Message {
        message_id: value["id"].as_str().unwrap().to_owned(),
        correlation_id: None,
        timestamp: value["at"].as_i64().unwrap(),
        metadata: Metadata::new(),
        content,
    }
}

fn driver(policy: ErrorPolicy) -> TopologyTestDriver {
    let builder = StreamsBuilder::new();
    let source = Consumed::with(serdes::string(), serdes::json::<Value>())
        .on_error(policy)
        .rewindable(false);
    let messages = builder
        .stream("messages", source)
        .map_values(|value: Value| message(&value));
    EventSourced::<Note<1>>::of_messages("note")
        .draw_on(&builder, &messages)
        .map_values(|step: Step<Lines>| step.after.alive().map(|it: AggregateRecord<_>| it.state))
        .to(
            "notes",
            Produced::with(serdes::string(), serdes::optional(serdes::json::<Lines>())),
        );
    TopologyTestDriver::new(builder.build().unwrap()).unwrap()
}

fn tell(driver: &mut TopologyTestDriver, id: &str, line: Option<&str>) {
    let now = driver.now_ms();
    let value = json!({"id": id, "line": line, "at": now}).to_string();
    driver
        .pipe_bytes(
            "messages",
            Some(b"a"),
            Some(value.as_bytes()),
            now,
            &Headers::new(),
        )
        .unwrap();
}

fn sum(driver: &TopologyTestDriver, name: &str) -> f64 {
    let metrics = driver.metrics();
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[test]
fn a_message_to_a_tombstoned_aggregate_meets_the_policy_and_is_counted() {
    let mut driver = driver(ErrorPolicy::DeadLetter {
        topic: "dead".to_owned(),
    });
    tell(&mut driver, "m-1", Some("one"));
    tell(&mut driver, "m-2", None);
    let value = serdes::optional(serdes::json::<Lines>());
    let notes = driver.output_topic("notes", serdes::string(), value);
    let states = notes.read_values(&mut driver).unwrap();
    let lines = vec!["one".to_owned()];
    assert_eq!(states, [Some(Lines { lines }), None]);

    tell(&mut driver, "m-3", Some("boo"));
    // A repetition has had its effect; it is no message too late.
    tell(&mut driver, "m-2", None);
    let dead = driver.output_topic("dead", serdes::string(), serdes::json::<Value>());
    let letters = dead.read_records(&mut driver).unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].value["id"], "m-3");
    let why = letters[0].headers.last("__streams.errors.exception");
    assert_eq!(why, Some(&b"TOMBSTONED"[..]));
    assert_eq!(notes.read_values(&mut driver).unwrap(), []);
    for (name, expected) in [
        ("millstream_events_tombstones_total", 1.0),
        ("millstream_events_tombstone_refusals_total", 1.0),
        ("millstream_dead_letter_records_total", 1.0),
    ] {
        let found = sum(&driver, name);
        assert!((found - expected).abs() < f64::EPSILON, "{name}: {found}");
    }
    driver.restart(false).unwrap();
    tell(&mut driver, "m-4", Some("boo"));
    assert_eq!(dead.read_records(&mut driver).unwrap().len(), 1);
}

#[test]
fn what_a_policy_skips_is_counted() {
    let mut driver = driver(ErrorPolicy::Skip);
    tell(&mut driver, "m-1", None);
    tell(&mut driver, "m-2", Some("boo"));
    let found = sum(&driver, "millstream_records_skipped_total");
    assert!((found - 1.0).abs() < f64::EPSILON, "{found}");
}
