//! Current states and rows of tombstoned aggregates: gone, and gone again after every rebuild.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::note::Drawer;

#[test]
fn the_current_state_and_the_rows_are_gone_and_the_log_stays() {
    let mut drawer = Drawer::new();
    drawer.write("a", &["one", "two"]);
    drawer.write("b", &["three"]);
    drawer.burn("a");
    let notes: Vec<_> = drawer
        .take("notes")
        .into_iter()
        .filter(|record| record.key == "a")
        .map(|record| record.value)
        .collect();
    // One record for each command, the last of them Kafka's tombstone.
    assert_eq!(notes, [Some(json!({"lines": ["one", "two"]})), None]);
    let expected = BTreeMap::from([
        ("a@1".to_owned(), None),
        ("a@2".to_owned(), None),
        (
            "b@1".to_owned(),
            Some(json!({"note": "b", "line": "three"})),
        ),
    ]);
    assert_eq!(drawer.latest("lines"), expected);
    assert_eq!(
        drawer.rows("lines"),
        [json!({"note": "b", "line": "three"})]
    );
    let log = drawer.rows("log");
    assert_eq!(log.len(), 4);
    let last = json!({"note": "a", "version": 3, "linesBefore": 2, "burnt": true});
    assert!(log.contains(&last), "{log:?}");

    // What stays of the state is what keeps the id from being used again.
    let kept = drawer
        .driver
        .store_value("note-state", "a")
        .unwrap()
        .unwrap();
    assert_eq!(
        (&kept["tombstoned"], &kept["version"], kept.get("state")),
        (&json!(true), &json!(3), None)
    );
    drawer.assert_verified();
}

#[test]
fn a_rebuild_beside_the_rows_that_serve_comes_to_the_same_whatever_is_burnt_meanwhile() {
    let mut drawer = Drawer::new();
    let names: Vec<String> = (0..8).map(|number| format!("note-{number}")).collect();
    for name in &names {
        drawer.write(name, &["one", "two", "three"]);
    }
    for name in &names[..3] {
        drawer.burn(name);
    }
    let rows = |burnt: usize| -> Vec<Value> {
        let lines = ["one", "three", "two"];
        let left = names[burnt..].iter();
        left.flat_map(|note| lines.map(|line| json!({"note": note, "line": line})))
            .collect()
    };
    let sorted = |mut rows: Vec<Value>| {
        rows.sort_by_key(ToString::to_string);
        rows
    };
    assert_eq!(drawer.rows("lines"), sorted(rows(3)));
    // One is burnt early, when its place is still to come; one late, when it has been passed.
    drawer.rebuild("lines", 2, |drawer, step| match step {
        0 => drop(drawer.burn("note-3")),
        1 => drawer.kill(false),
        6 => drop(drawer.burn("note-4")),
        _ => {}
    });
    let log = drawer.rows("log");
    drawer.rebuild("log", 2, |_, _| {});
    let burnt = log.iter().filter(|row| row["burnt"] == true).count();
    assert_eq!(drawer.rows("lines"), sorted(rows(burnt)));
    assert_eq!(drawer.rows("log"), log, "the log keeps all of them");
    drawer.assert_verified();
    // Whoever follows the topic has the same.
    let mut followed: Vec<Value> = drawer.latest("lines").into_values().flatten().collect();
    followed.sort_by_key(ToString::to_string);
    assert_eq!(followed, sorted(rows(burnt)));
}

#[test]
fn a_program_of_another_state_form_finds_them_gone_as_well() {
    let mut drawer = Drawer::new();
    drawer.write("a", &["one", "two", "three"]);
    drawer.write("b", &["one"]);
    drawer.burn("a");
    let mut drawer = drawer.upgrade::<2>();
    let reply = drawer.write("a", &["four"]);
    assert_eq!(reply.reason.unwrap().code, "TOMBSTONED");
    assert_eq!(drawer.write("b", &["two"]).aggregate_version, 2);
    assert_eq!(drawer.rows("lines").len(), 2);
    drawer.assert_verified();
    drawer.kill(false);
    let reply = drawer.write("a", &["four"]);
    assert_eq!(reply.reason.unwrap().code, "TOMBSTONED");
}
