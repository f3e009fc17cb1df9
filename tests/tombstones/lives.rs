//! What follows a tombstone: nothing, and by name.

use millstream::event_sourcing::{Outcome, Reply, given, reasons};
use serde_json::{Value, json};

use crate::note::{Burn, Drawer, Note, NoteBurnt, Write, written};

fn code(reply: &Reply) -> &str {
    reply.reason.as_ref().map_or("", |reason| &reason.code)
}

fn dead_letters(drawer: &mut Drawer<1>) -> Vec<(String, String)> {
    let letters = drawer.take("note.dlq").into_iter();
    letters
        .map(|letter| {
            let header = |name| String::from_utf8(letter.headers.last(name).unwrap().to_vec());
            (
                header("__streams.errors.exception").unwrap(),
                header("__streams.errors.message").unwrap(),
            )
        })
        .collect()
}

/// An event of another system.
fn foreign(note: &str, version: u64, kind: &str, data: Value) -> Value {
    json!({
        "eventId": format!("f-{note}-{version}"), "eventType": kind, "aggregateId": note,
        "aggregateType": "Note", "aggregateVersion": version,
        "timestamp": "2024-01-01T00:00:00.000Z", "correlationId": "x", "data": data,
    })
}

#[test]
fn a_scenario_ends_with_the_tombstone() {
    let burn = || Burn { last: None };
    let burnt = given::<Note<1>>([written("a")])
        .when(burn())
        .then([NoteBurnt {}.into()]);
    assert!(burnt.is_tombstoned());
    assert_eq!(burnt.state().lines, Vec::<String>::new());
    burnt
        .when(Write {
            lines: vec!["b".to_owned()],
        })
        .then_rejected(reasons::TOMBSTONED)
        .when(burn())
        .then_rejected(reasons::TOMBSTONED);
    let alive = given::<Note<1>>([written("a")]);
    assert!(!alive.is_tombstoned());
}

#[test]
#[should_panic(expected = "the aggregate is tombstoned")]
fn a_scenario_in_which_something_follows_a_tombstone_could_not_be() {
    drop(given::<Note<1>>([NoteBurnt {}.into(), written("a")]));
}

#[test]
fn after_the_tombstone_every_command_is_refused_by_name_version_and_time() {
    let mut drawer = Drawer::new();
    drawer.write("a", &["one", "two"]);
    let burnt = drawer.burn("a");
    assert_eq!(
        (burnt.outcome, burnt.aggregate_version),
        (Outcome::Accepted, 3)
    );
    let at = burnt.tombstoned_at.clone().unwrap();
    let events = drawer.take("note.events");
    assert_eq!(events.len(), 3);
    let tombstone = events[2].value.as_ref().unwrap();
    assert_eq!(tombstone["eventType"], "NoteBurnt");
    assert_eq!(tombstone["timestamp"], at.as_str());

    drawer
        .driver
        .advance_wall_clock_time(std::time::Duration::from_secs(5))
        .unwrap();
    for (kind, data) in [
        ("Write", json!({"lines": ["three"]})),
        ("Write", json!({"lines": []})),
        ("Burn", json!({})),
    ] {
        let reply = drawer.command("a", kind, data);
        assert_eq!(
            (reply.outcome, code(&reply), reply.aggregate_version),
            (Outcome::Rejected, "TOMBSTONED", 3)
        );
        assert_eq!(reply.tombstoned_at.as_deref(), Some(at.as_str()));
        let reason = reply.reason.unwrap();
        let expected = format!("Note a was tombstoned at {at} by version 3");
        assert_eq!(reason.message, expected);
    }
    assert_eq!(drawer.take("note.events"), []);
    assert!((drawer.metric("millstream_events_tombstones_total") - 1.0).abs() < f64::EPSILON);
    assert!(
        (drawer.metric("millstream_events_tombstone_refusals_total") - 3.0).abs() < f64::EPSILON
    );
    // Other notes are not concerned, and neither is a rule's own refusal.
    let reply = drawer.command("b", "Write", json!({"lines": []}));
    assert_eq!(code(&reply), "NO_LINES");
    assert_eq!(drawer.write("b", &["one"]).outcome, Outcome::Accepted);
}

#[test]
fn repeated_commands_get_their_first_replies_also_after_the_tombstone() {
    let mut drawer = Drawer::new();
    let line = json!({"lines": ["one"]});
    let first = drawer.send("w", "a", "Write", line.clone()).unwrap();
    let burnt = drawer
        .send("b", "a", "Burn", json!({"last": "two"}))
        .unwrap();
    assert_eq!(
        (burnt.aggregate_version, burnt.event_ids.len()),
        (3, 2),
        "a line and the tombstone, of one command"
    );
    for keep_state in [true, false] {
        assert_eq!(drawer.send("w", "a", "Write", line.clone()).unwrap(), first);
        let again = drawer
            .send("b", "a", "Burn", json!({"last": "two"}))
            .unwrap();
        assert_eq!(again, burnt);
        drawer.kill(keep_state);
    }
    let reply = drawer.send("other", "a", "Write", line).unwrap();
    assert_eq!(code(&reply), "TOMBSTONED");
}

#[test]
fn an_aggregate_that_goes_on_after_its_own_tombstone_writes_nothing() {
    let mut drawer = Drawer::new();
    drawer.write("a", &["one"]);
    drawer.take("note.events");
    assert_eq!(drawer.send("h", "a", "Haunt", json!({})), None);
    let letters = dead_letters(&mut drawer);
    assert!(
        letters[0]
            .1
            .contains("`LineWritten` of aggregate a was decided after its tombstone"),
        "{letters:?}"
    );
    assert_eq!(drawer.take("note.events"), []);
    assert_eq!(drawer.write("a", &["two"]).aggregate_version, 2);
}

#[test]
fn an_event_of_another_system_after_the_tombstone_is_a_dead_letter_by_name() {
    let mut drawer = Drawer::new();
    // The tombstone of one note is another system's, that of the other is ours.
    drawer.pipe(
        "note.events",
        "a",
        &foreign("a", 1, "LineWritten", json!({"line": "one"})),
    );
    drawer.pipe("note.events", "a", &foreign("a", 2, "NoteBurnt", json!({})));
    drawer.write("b", &["one"]);
    drawer.burn("b");
    assert_eq!(dead_letters(&mut drawer), []);
    let line = |note, version| foreign(note, version, "LineWritten", json!({"line": "boo"}));
    for (note, version, expected) in [
        ("a", 3, "TOMBSTONED"),
        // It will never follow, whatever comes between.
        ("a", 5, "TOMBSTONED"),
        ("b", 3, "TOMBSTONED"),
        ("b", 2, "VERSION_CONFLICT"),
    ] {
        drawer.pipe("note.events", note, &line(note, version));
        let letters = dead_letters(&mut drawer);
        assert_eq!(letters.len(), 1, "{note} {version}");
        assert_eq!(letters[0].0, expected, "{note} {version}");
    }
    // A repetition changes nothing, and is none of them.
    drawer.pipe("note.events", "a", &foreign("a", 2, "NoteBurnt", json!({})));
    assert_eq!(dead_letters(&mut drawer), []);
    let reply = drawer.write("a", &["two"]);
    assert_eq!(code(&reply), "TOMBSTONED", "before it is FOREIGN_OWNED");
    drawer.assert_verified();
}
