//! The event-sourced part of a topology as one task: what each record writes, and what a crash, an
//! abort, a reset and a rewind leave.

use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::bench::{Bench, Out, START};
use super::counter::{Counter, TOO_MUCH, WRONG_TOTAL};
use super::*;
use crate::dsl::{Produced, StreamsBuilder};
use crate::serde as serdes;

const DAY: i64 = 24 * 60 * 60 * 1000;

fn topics() -> AggregateTopics {
    AggregateTopics {
        commands: "commands".into(),
        events: "events".into(),
        replies: "replies".into(),
        dead_letters: "dlq".into(),
    }
}

fn bench_with(draw: impl FnOnce(EventSourced<Counter>) -> EventSourced<Counter>) -> Bench {
    let builder = StreamsBuilder::new();
    draw(EventSourced::new("counter", topics()))
        .draw(&builder)
        .map_values(|record| json!({"version": record.version, "total": record.state.total}))
        .to(
            "totals",
            Produced::with(serdes::string(), serdes::json::<Value>()),
        );
    Bench::new(builder.build().unwrap())
}

fn bench() -> Bench {
    bench_with(|counter| counter)
}

fn command_json(command_id: &str, aggregate_id: &str, by: &[u64]) -> Value {
    json!({
        "commandId": command_id, "commandType": "Count", "aggregateId": aggregate_id,
        "timestamp": "2025-12-09T11:59:59.500Z", "data": {"by": by},
    })
}

fn foreign_json(aggregate_id: &str, version: u64, before: u64, by: u64) -> Value {
    json!({
        "eventId": format!("f-{aggregate_id}-{version}"), "eventType": "Counted",
        "aggregateId": aggregate_id, "aggregateType": "Counter", "aggregateVersion": version,
        "timestamp": "2025-12-09T12:00:00.000Z", "correlationId": "x",
        "data": {"before": before, "by": by}, "schemaVersion": 2,
    })
}

impl Bench {
    fn send(&mut self, topic: &str, value: &Value) {
        let key = value["aggregateId"].as_str().map(str::to_owned);
        self.pipe(topic, key.as_deref(), Some(value.to_string().as_bytes()));
    }

    /// Sends a command, commits, and returns its reply.
    fn command(&mut self, command_id: &str, aggregate_id: &str, by: &[u64]) -> Reply {
        self.send("commands", &command_json(command_id, aggregate_id, by));
        self.commit();
        self.reply()
    }

    fn reply(&mut self) -> Reply {
        let replies = self.take("replies");
        let [reply] = replies.as_slice() else {
            panic!("one reply is expected: {replies:?}")
        };
        serde_json::from_value(reply.json()).unwrap()
    }

    /// Sends an event and commits; returns the code of its dead letter, if it became one.
    fn event(&mut self, value: &Value) -> Option<String> {
        self.send("events", value);
        self.commit();
        self.dead_letter()
    }

    fn dead_letter(&mut self) -> Option<String> {
        let letters = self.take("dlq");
        assert!(letters.len() <= 1, "{letters:?}");
        letters.first().map(|letter| letter.code().to_owned())
    }

    /// Takes the read model's new records: aggregate, version, total.
    fn totals(&mut self) -> Vec<(String, u64, u64)> {
        let number = |value: &Value| value.as_u64().unwrap();
        self.take("totals")
            .iter()
            .map(|out| (out.key.clone().unwrap(), out.json()))
            .map(|(key, json)| (key, number(&json["version"]), number(&json["total"])))
            .collect()
    }

    /// Reads own events back from their topic, as the source does.
    fn echo(&mut self) -> usize {
        let events = self.take("events");
        for event in &events {
            self.pipe("events", event.key.as_deref(), event.value.as_deref());
        }
        self.commit();
        events.len()
    }

    fn history(&self) -> Vec<(HistoryKey, HistoryEntry)> {
        self.store("counter-history")
            .into_iter()
            .map(|(key, value)| {
                (
                    HistoryKey::decode(&key).unwrap(),
                    HistoryEntry::decode(&value).unwrap(),
                )
            })
            .collect()
    }
}

fn code(reply: &Reply) -> &str {
    reply.reason.as_ref().map_or("", |reason| &reason.code)
}

fn owned(totals: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    totals
        .iter()
        .map(|(id, version, total)| ((*id).to_owned(), *version, *total))
        .collect()
}

#[test]
fn the_topology_declares_its_topics_and_durabilities() {
    let builder = StreamsBuilder::new();
    let counter = EventSourced::<Counter>::new("counter", topics());
    let endpoint = counter.endpoint();
    assert_eq!(
        (endpoint.aggregate_type(), endpoint.store()),
        ("Counter", "counter-state")
    );
    counter.draw(&builder).for_each(|_, _| {});
    let topology = builder.build().unwrap();
    let [sub] = topology.sub_topologies() else {
        panic!("one task owns commands and events")
    };
    for topic in topology.declared_topics() {
        assert_eq!(
            topic.config["retention.ms"],
            (7 * DAY).to_string(),
            "{}",
            topic.name
        );
        assert_eq!(
            topic.config["max.message.bytes"], "16777216",
            "{}",
            topic.name
        );
    }
    let rewindable: Vec<_> = sub
        .sources
        .iter()
        .map(|source| (source.topic.to_string(), source.rewindable))
        .collect();
    assert_eq!(
        rewindable,
        [("commands".into(), false), ("events".into(), false)]
    );
    let derived = |name: &str| {
        let store = sub.stores.iter().find(|store| store.name == name).unwrap();
        store.durability == crate::topology::Durability::Derived
    };
    assert!(derived("counter-state") && derived("counter-rebuild"));
    assert!(!derived("counter-history") && !derived("counter-commands"));
}

#[test]
fn a_command_writes_events_history_state_read_model_and_reply_together() {
    let mut bench = bench();
    bench.send("commands", &command_json("c-1", "a", &[1, 2]));
    assert!(
        bench.committed.is_empty(),
        "nothing is visible before the commit"
    );
    bench.commit();
    let reply = bench.reply();
    assert_eq!(
        (reply.outcome, reply.aggregate_version),
        (Outcome::Accepted, 2)
    );
    let events = bench.take("events");
    assert_eq!(events.len(), 2);
    for (event, version) in events.iter().zip(1_u64..) {
        let json = event.json();
        assert_eq!(event.key.as_deref(), Some("a"));
        assert_eq!(json["aggregateVersion"], version);
        assert_eq!(event.timestamp, START);
        let header = event.headers.last("aggregateVersion").unwrap();
        assert_eq!(header, version.to_string().as_bytes());
        assert!(reply.event_ids.iter().any(|id| json["eventId"] == **id));
    }
    let history = bench.history();
    let kept: Vec<_> = history
        .iter()
        .map(|(_, entry)| Some(entry.event.clone()))
        .collect();
    assert_eq!(
        kept,
        events
            .into_iter()
            .map(|event| event.value)
            .collect::<Vec<_>>()
    );
    assert!(
        history
            .iter()
            .all(|(_, entry)| entry.origin == Origin::Native)
    );
    assert_eq!(bench.totals(), owned(&[("a", 2, 3)]));
}

#[test]
fn a_rejected_or_conflicting_command_writes_nothing_but_its_reply() {
    let mut bench = bench();
    bench.command("c-1", "a", &[1]);
    bench.committed.clear();
    let before = (bench.history(), bench.store("counter-state"));
    let reply = bench.command("c-2", "a", &[11]);
    assert_eq!(
        (reply.outcome, code(&reply)),
        (Outcome::Rejected, TOO_MUCH.as_str())
    );
    let mut stale = command_json("c-3", "a", &[1]);
    stale["expectedVersion"] = 0.into();
    bench.send("commands", &stale);
    bench.commit();
    let reply = bench.reply();
    assert_eq!(
        (reply.outcome, code(&reply)),
        (Outcome::Conflict, "VERSION_CONFLICT")
    );
    assert_eq!(reply.aggregate_version, 1);
    assert_eq!(bench.committed, []);
    assert_eq!((bench.history(), bench.store("counter-state")), before);
}

#[test]
fn a_repeated_command_gets_its_first_reply_again_and_changes_nothing() {
    let mut bench = bench();
    let first = bench.command("c-1", "a", &[1]);
    let rejected = bench.command("c-2", "a", &[11]);
    bench.command("c-3", "a", &[5]);
    bench.committed.clear();
    bench.restart().unwrap();
    // Also when it says something else the second time.
    assert_eq!(bench.command("c-1", "a", &[9]), first);
    assert_eq!(bench.command("c-2", "a", &[1]), rejected);
    assert_eq!(bench.committed, []);
    // Ids are the aggregate's own.
    assert_eq!(bench.command("c-1", "b", &[2]).outcome, Outcome::Accepted);
}

#[test]
fn a_command_is_forgotten_after_seven_days_and_its_memory_purged() {
    let mut bench = bench();
    bench.command("c-1", "a", &[1]);
    bench.advance(6 * DAY);
    bench.command("c-2", "a", &[1]);
    assert_eq!(
        bench.command("c-1", "a", &[1]).aggregate_version,
        1,
        "still remembered"
    );
    bench.advance(DAY);
    bench.commit();
    let keys: Vec<_> = bench
        .store("counter-commands")
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, [b"a\0c-2"]);
    assert_eq!(
        bench.command("c-1", "a", &[1]).aggregate_version,
        3,
        "a new command"
    );
}

#[test]
fn a_purge_looks_through_the_memory_in_bounded_slices() {
    let memory = CommandMemory {
        retention: Duration::from_secs(10),
        purge_interval: Duration::from_secs(1),
        purge_entries_max: 2,
    };
    let mut bench = bench_with(|counter| counter.command_memory(memory));
    for id in 0..5 {
        bench.command(&format!("c-{id}"), "a", &[1]);
    }
    bench.now += 10_000;
    let mut left = Vec::new();
    for _ in 0..4 {
        bench.advance(1_000);
        bench.commit();
        left.push(bench.store("counter-commands").len());
    }
    assert_eq!(left, [3, 1, 0, 0]);
}

#[test]
fn own_events_come_back_and_are_skipped() {
    let mut bench = bench();
    bench.command("c-1", "a", &[1, 2, 3]);
    bench.totals();
    let before = (bench.history(), bench.store("counter-state"));
    assert_eq!(bench.echo(), 3);
    assert_eq!(bench.committed, []);
    assert_eq!((bench.history(), bench.store("counter-state")), before);
}

#[test]
fn foreign_events_are_folded_kept_and_shown() {
    let mut bench = bench();
    for (version, before) in [(1, 0), (2, 7)] {
        assert_eq!(bench.event(&foreign_json("a", version, before, 7)), None);
    }
    assert_eq!(bench.totals(), owned(&[("a", 1, 7), ("a", 2, 14)]));
    assert!(
        bench
            .history()
            .iter()
            .all(|(_, entry)| entry.origin == Origin::Foreign)
    );
    let reply = bench.command("c-1", "a", &[1]);
    assert_eq!(
        (reply.outcome, code(&reply)),
        (Outcome::Rejected, "FOREIGN_OWNED")
    );
    assert_eq!(reply.aggregate_version, 2);
    // A repetition is known by its id, not by its bytes.
    let mut again = foreign_json("a", 2, 7, 7);
    again["note"] = "sent twice".into();
    assert_eq!(bench.event(&again), None);
    assert_eq!(bench.committed, []);
}

#[test]
fn an_event_that_does_not_follow_is_a_dead_letter_with_its_bytes_headers_and_reason() {
    let mut bench = bench();
    bench.event(&foreign_json("a", 1, 0, 7));
    bench.totals();
    let mut conflict = foreign_json("a", 1, 0, 7);
    conflict["eventId"] = "another".into();
    let before = (bench.history(), bench.store("counter-state"));
    for (event, expected) in [
        (conflict, "VERSION_CONFLICT"),
        (foreign_json("a", 3, 7, 1), "VERSION_GAP"),
        (foreign_json("a", 2, 6, 1), WRONG_TOTAL.as_str()),
    ] {
        let bytes = event.to_string().into_bytes();
        bench.pipe("events", Some("a"), Some(&bytes));
        bench.commit();
        let letters = bench.take("dlq");
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].code(), expected);
        assert_eq!(letters[0].key.as_deref(), Some("a"));
        assert_eq!(letters[0].value.as_deref(), Some(bytes.as_slice()));
        assert_eq!(
            letters[0].headers.last("original"),
            Some(b"header".as_slice())
        );
        assert_eq!(bench.committed, []);
        assert_eq!((bench.history(), bench.store("counter-state")), before);
    }
    // The gap is filled, and the events after it are taken when they come again.
    assert_eq!(bench.event(&foreign_json("a", 2, 7, 1)), None);
    assert_eq!(bench.event(&foreign_json("a", 3, 8, 1)), None);
    assert_eq!(bench.totals(), owned(&[("a", 2, 8), ("a", 3, 9)]));
}

#[test]
fn an_aggregate_seen_first_above_version_1_is_adopted() {
    let mut bench = bench();
    assert_eq!(bench.event(&foreign_json("a", 5, 40, 2)), None);
    assert_eq!(bench.totals(), owned(&[("a", 5, 42)]));
    assert_eq!(
        bench.event(&foreign_json("a", 4, 39, 1)).as_deref(),
        Some("VERSION_BEFORE_OPENING")
    );
    assert_eq!(bench.event(&foreign_json("a", 6, 42, 1)), None);
    bench.reset();
    bench.restart().unwrap();
    assert_eq!(bench.totals().last(), owned(&[("a", 6, 43)]).last());
}

#[test]
fn records_that_cannot_be_read_are_dead_letters_and_the_next_one_is_processed() {
    let mut bench = bench();
    let good = foreign_json("a", 1, 0, 1).to_string();
    let unknown = good.replace("Counted", "Uncounted");
    let future = good.replace("\"schemaVersion\":2", "\"schemaVersion\":3");
    for (key, value, expected) in [
        (Some("a"), None, "MISSING_VALUE"),
        (None, Some(good.as_str()), "MISSING_KEY"),
        (Some("b"), Some(good.as_str()), "KEY_MISMATCH"),
        (Some("a"), Some("hello"), "NOT_JSON"),
        (Some("a"), Some("{}"), "MALFORMED_EVENT"),
        (Some("a"), Some(unknown.as_str()), "UNKNOWN_EVENT_TYPE"),
        (
            Some("a"),
            Some(future.as_str()),
            "UNSUPPORTED_SCHEMA_VERSION",
        ),
    ] {
        bench.pipe("events", key, value.map(str::as_bytes));
        bench.commit();
        assert_eq!(bench.dead_letter().as_deref(), Some(expected));
    }
    assert_eq!(bench.committed, []);
    assert_eq!(bench.event(&foreign_json("a", 1, 0, 1)), None);
    assert_eq!(bench.totals(), owned(&[("a", 1, 1)]));
}

#[test]
fn a_command_that_cannot_be_read_is_answered_if_possible_and_a_dead_letter_if_not() {
    let mut bench = bench();
    bench.command("c-1", "a", &[1]);
    bench.committed.clear();
    let mut broken = command_json("c-2", "a", &[1]);
    broken["timestamp"] = "yesterday".into();
    bench.send("commands", &broken);
    bench.commit();
    let reply = bench.reply();
    assert_eq!(
        (reply.outcome, code(&reply)),
        (Outcome::Rejected, "INVALID_COMMAND")
    );
    assert_eq!(reply.aggregate_version, 1);
    assert!(reply.reason.unwrap().message.contains("timestamp"));
    let good = command_json("c-3", "a", &[1]).to_string();
    for (key, value, expected) in [
        (Some("a"), None, "MISSING_VALUE"),
        (Some("a"), Some("hello"), "NOT_JSON"),
        (Some("a"), Some(r#"{"commandId":"c"}"#), "INVALID_COMMAND"),
        (None, Some(good.as_str()), "MISSING_KEY"),
        (Some("b"), Some(good.as_str()), "KEY_MISMATCH"),
    ] {
        bench.pipe("commands", key, value.map(str::as_bytes));
        bench.commit();
        assert_eq!(bench.dead_letter().as_deref(), Some(expected));
    }
    assert_eq!(bench.committed, []);
}

#[test]
fn a_caller_is_answered_after_the_commit_and_not_after_an_abort() {
    let hub = ReplyHub::new();
    let replies = hub.clone();
    let mut bench = bench_with(move |counter| counter.replies(replies));
    let waiter = hub.wait("Counter", "a", "c-1").unwrap();
    bench.send("commands", &command_json("c-1", "a", &[1]));
    bench.restart().unwrap();
    let mut waiter = Box::pin(waiter);
    assert_eq!(
        waiter.as_mut().now_or_never(),
        None,
        "the transaction was aborted"
    );
    bench.send("commands", &command_json("c-1", "a", &[1]));
    assert_eq!(
        waiter.as_mut().now_or_never(),
        None,
        "the transaction is open"
    );
    bench.commit();
    let reply = waiter.now_or_never().unwrap().unwrap();
    assert_eq!(
        (reply.outcome, reply.aggregate_version),
        (Outcome::Accepted, 1)
    );
    // Who asks again is answered from memory.
    let waiter = hub.wait("Counter", "a", "c-1").unwrap();
    bench.send("commands", &command_json("c-1", "a", &[1]));
    bench.commit();
    assert_eq!(waiter.now_or_never(), Some(Some(reply)));
}

#[test]
fn an_event_over_the_limit_writes_nothing_of_its_command() {
    let mut bench = bench();
    let mut large = command_json("c-1", "a", &[1, 1]);
    large["data"]["ballast"] = EVENT_BYTES_MAX.into();
    bench.send("commands", &large);
    bench.commit();
    let reply = bench.reply();
    assert_eq!(
        (reply.outcome, code(&reply)),
        (Outcome::Rejected, "EVENT_TOO_LARGE")
    );
    assert_eq!(bench.committed, []);
    assert_eq!(bench.history(), []);
    let mut foreign = foreign_json("a", 1, 0, 1);
    foreign["data"]["ballast"] = "x".repeat(EVENT_BYTES_MAX).into();
    assert_eq!(bench.event(&foreign).as_deref(), Some("EVENT_TOO_LARGE"));
}

#[test]
fn after_an_abort_nothing_of_the_transaction_is_left_and_it_is_decided_the_same_again() {
    let mut bench = bench();
    bench.command("c-1", "a", &[1]);
    bench.committed.clear();
    let stores = [
        "counter-state",
        "counter-history",
        "counter-commands",
        "counter-rebuild",
    ];
    let before = stores.map(|store| bench.store(store));
    bench.send("commands", &command_json("c-2", "a", &[2, 3]));
    bench.restart().unwrap();
    assert_eq!(stores.map(|store| bench.store(store)), before);
    assert_eq!(bench.committed, []);
    let first = bench.command("c-2", "a", &[2, 3]);
    assert_eq!(first.aggregate_version, 3);
}

#[test]
fn a_reset_loses_no_native_event_and_gains_none() {
    let three = std::num::NonZeroU64::new(3).unwrap();
    let mut bench = bench_with(|counter| {
        let counter = counter.snapshot_interval(three);
        counter.rebuild_slice_entries(4)
    });
    for round in 0..5 {
        for id in ["a", "b", "c"] {
            bench.command(&format!("c-{round}"), id, &[1, 2]);
        }
        bench.event(&foreign_json("f", round + 1, round * 2, 2));
    }
    let events: Vec<Out> = bench.take("events");
    let before = (bench.history(), bench.store("counter-state"));
    let derived = |bench: &Bench| {
        let stores = ["counter-snapshots", "counter-events-by-time"];
        stores.map(|store| bench.store(store))
    };
    let (snapshots, indexed) = (derived(&bench)[0].len(), derived(&bench)[1].len());
    assert_eq!((snapshots, indexed), (3 * 3 + 1, 35));
    let derived_before = derived(&bench);
    bench.committed.clear();

    bench.reset();
    bench.restart().unwrap();
    assert_eq!(bench.slices, 35 / 4, "35 entries, 4 at a time");
    assert_eq!((bench.history(), bench.store("counter-state")), before);
    assert_eq!(derived(&bench), derived_before);
    // The read model is written again, once per aggregate, before any record.
    let read_model = owned(&[("a", 10, 15), ("b", 10, 15), ("c", 10, 15), ("f", 5, 10)]);
    assert_eq!(bench.totals(), read_model);
    assert_eq!(
        bench.committed,
        [],
        "no event is written and no command answered by a rebuild"
    );

    // Rewound events are repetitions.
    for event in &events {
        bench.pipe("events", event.key.as_deref(), event.value.as_deref());
    }
    for round in 0..5 {
        bench.event(&foreign_json("f", round + 1, round * 2, 2));
    }
    bench.commit();
    assert_eq!(bench.committed, []);
    assert_eq!((bench.history(), bench.store("counter-state")), before);

    // And it goes on where it was: the first command sees the rebuilt state.
    assert_eq!(bench.command("c-9", "a", &[1]).aggregate_version, 11);
    assert_eq!(code(&bench.command("c-9", "f", &[1])), "FOREIGN_OWNED");
    assert_eq!(
        bench.command("c-0", "a", &[1, 2]).aggregate_version,
        2,
        "remembered"
    );
}

#[test]
fn a_task_whose_state_is_complete_rebuilds_nothing() {
    let mut bench = bench_with(|counter| counter.rebuild_slice_entries(1));
    bench.command("c-1", "a", &[1, 2, 3]);
    bench.committed.clear();
    bench.restart().unwrap();
    assert_eq!((bench.slices, bench.committed.len()), (0, 0));
}

#[test]
fn a_rebuild_that_crashes_goes_on_from_its_last_slice() {
    for crash_after in 0..9 {
        let mut bench = bench_with(|counter| counter.rebuild_slice_entries(2));
        for id in ["a", "b", "c"] {
            bench.command("c-1", id, &[1, 2, 3, 4, 5]);
        }
        let state = bench.store("counter-state");
        bench.committed.clear();
        bench.reset();
        bench.crash_in_rebuild(crash_after);
        bench.restart().unwrap();
        assert_eq!(
            bench.slices + crash_after.min(7),
            7,
            "15 entries, 2 at a time"
        );
        assert_eq!(bench.store("counter-state"), state);
        let read_model = owned(&[("a", 5, 15), ("b", 5, 15), ("c", 5, 15)]);
        assert_eq!(
            bench.totals(),
            read_model,
            "crash after {crash_after} slices"
        );
    }
}

#[test]
fn damaged_history_stops_the_rebuild_by_name() {
    let mut bench = bench();
    bench.command("c-1", "a", &[1, 2]);
    let (key, _) = bench.store("counter-history").remove(1);
    bench.damage("counter-history", &key, b"\x01{\"eventId\":");
    bench.reset();
    let error = bench.restart().unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("history of a at version 2"), "{text}");
}

#[test]
#[should_panic(expected = "contradict each other")]
fn state_that_history_contradicts_stops_the_task() {
    let mut bench = bench();
    bench.event(&foreign_json("a", 1, 0, 1));
    let record = String::from_utf8(bench.store("counter-state").remove(0).1).unwrap();
    let ahead = record.replace("\"version\":1", "\"version\":3");
    assert_ne!(ahead, record);
    bench.damage("counter-state", b"a", ahead.as_bytes());
    bench.restart().unwrap();
    bench.event(&foreign_json("a", 2, 1, 1));
}

#[derive(Debug, Clone)]
enum Step {
    Command {
        aggregate: u8,
        command: u8,
        by: Vec<u64>,
    },
    Foreign {
        aggregate: u8,
        skip: u64,
        by: u64,
        wrong: bool,
    },
    Echo,
    Commit,
    Abort,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_u8, any::<u8>(), prop::collection::vec(0..12_u64, 0..3))
            .prop_map(|(aggregate, command, by)| Step::Command { aggregate, command, by }),
        8 => (2..5_u8, 0..3_u64, 0..9_u64, prop::bool::weighted(0.1))
            .prop_map(|(aggregate, skip, by, wrong)| Step::Foreign { aggregate, skip, by, wrong }),
        2 => Just(Step::Echo),
        4 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    /// Whatever commands, events, aborts and resets come: history is gapless, the state is the fold
    /// of it, a reset changes neither, and each version of the read model is in order.
    #[test]
    fn the_state_is_always_the_fold_of_a_gapless_history(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        let mut bench = bench_with(|counter| counter.rebuild_slice_entries(3));
        for step in steps {
            match step {
                Step::Command { aggregate, command, by } => {
                    let (id, command) = (format!("x-{aggregate}"), format!("c-{command}"));
                    bench.send("commands", &command_json(&command, &id, &by));
                }
                Step::Foreign { aggregate, skip, by, wrong } => {
                    let id = format!("x-{aggregate}");
                    let last = bench.history().into_iter().filter(|(key, _)| key.aggregate_id == id);
                    let version = last.max_by_key(|(key, _)| key.version).map_or(0, |(key, _)| key.version) + skip;
                    let mut event = foreign_json(&id, version.max(1), 0, by);
                    if !wrong {
                        event["data"]["before"] = Value::Null;
                    }
                    bench.send("events", &event);
                }
                Step::Echo => drop(bench.echo()),
                Step::Commit => bench.commit(),
                Step::Abort => bench.restart().unwrap(),
                Step::Reset => {
                    bench.commit();
                    let before = (bench.history(), bench.store("counter-state"));
                    bench.reset();
                    bench.restart().unwrap();
                    prop_assert_eq!((bench.history(), bench.store("counter-state")), before);
                    bench.totals();
                }
            }
        }
        bench.commit();
        let mut folded: std::collections::BTreeMap<String, AggregateRecord<Counter>> =
            std::collections::BTreeMap::new();
        for (key, entry) in bench.history() {
            let before = folded.remove(&key.aggregate_id);
            let after = replay::<Counter>(before, &key, &entry).unwrap();
            folded.insert(key.aggregate_id, after);
        }
        let kept: std::collections::BTreeMap<String, AggregateRecord<Counter>> = bench
            .store("counter-state")
            .into_iter()
            .map(|(key, value)| {
                (String::from_utf8(key).unwrap(), serde_json::from_slice(&value).unwrap())
            })
            .collect();
        prop_assert_eq!(kept, folded);
        let mut versions = std::collections::BTreeMap::new();
        for (id, version, _) in bench.totals() {
            let before = versions.insert(id, version).unwrap_or(0);
            prop_assert!(before < version, "versions rise strictly: {before} then {version}");
        }
    }
}
