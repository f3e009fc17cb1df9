//! The past of tombstoned aggregates stays readable.

use std::time::Duration;

use millstream::event_sourcing::{Change, Point};
use serde_json::json;

use crate::note::{Drawer, Lines};

/// A note of two lines, written and burnt an hour after each other; the third version would be due a
/// snapshot.
fn burnt() -> Drawer<1> {
    let mut drawer = Drawer::new();
    let hour = Duration::from_secs(60 * 60);
    drawer.write("a", &["one"]);
    drawer.driver.advance_wall_clock_time(hour).unwrap();
    drawer.write("a", &["two"]);
    drawer.driver.advance_wall_clock_time(hour).unwrap();
    drawer.burn("a");
    drawer
}

fn lines(lines: &[&str]) -> Lines {
    let lines = lines.iter().map(|line| (*line).to_owned()).collect();
    Lines { lines }
}

#[test]
fn the_state_is_told_up_to_the_tombstone_and_the_tombstone_from_then_on() {
    let drawer = burnt();
    let queries = drawer.driver.queries();
    let timeline = drawer.history.timeline(queries, "a", 1, 100).unwrap();
    let times: Vec<_> = timeline
        .unwrap()
        .items
        .iter()
        .map(|it| it.timestamp)
        .collect();
    let as_of = |point| {
        let found = drawer.history.as_of(queries, "a", point).unwrap();
        found.map(|found| {
            (
                found.record.version,
                found.record.tombstoned,
                found.record.state,
            )
        })
    };
    let second = Some((2, false, lines(&["one", "two"])));
    let ended = Some((3, true, Lines::default()));
    assert_eq!(as_of(Point::Version(1)), Some((1, false, lines(&["one"]))));
    assert_eq!(as_of(Point::Version(2)), second);
    assert_eq!(as_of(Point::Version(3)), ended);
    assert_eq!(as_of(Point::Version(4)), None);
    assert_eq!(as_of(Point::Time(times[0] - 1)), None);
    assert_eq!(as_of(Point::Time(times[2] - 1)), second);
    assert_eq!(as_of(Point::Time(times[2])), ended);
    assert_eq!(as_of(Point::Time(i64::MAX)), ended);
    let now = drawer.history.current(queries, "a").unwrap().unwrap();
    assert_eq!((now.record.version, now.record.tombstoned), (3, true));
    assert_eq!(now.record.updated_at, times[2]);
    assert_eq!(now.record.alive(), None);
    // The interval is three: a state that is gone has no snapshot.
    let snapshot = drawer.driver.store_value("note-snapshots", "a@3").unwrap();
    assert_eq!(snapshot, None);
}

#[test]
fn the_timeline_ends_with_who_when_and_tombstoned() {
    let drawer = burnt();
    let queries = drawer.driver.queries();
    let timeline = drawer.history.timeline(queries, "a", 1, 100).unwrap();
    let entries = timeline.unwrap().items;
    let ends: Vec<_> = entries.iter().map(|entry| entry.tombstoned).collect();
    assert_eq!(ends, [false, false, true]);
    let last = &entries[2];
    assert_eq!(last.actor.as_deref(), Some("ann"));
    let gone = |change: &Change| {
        (
            change.field.as_str(),
            change.before.clone(),
            change.after.clone(),
        ) == ("", json!({"lines": ["one", "two"]}), json!(null))
    };
    assert!(
        last.changes.iter().all(gone) && last.changes.len() == 1,
        "{last:?}"
    );
    assert!(
        last.to_string()
            .ends_with("v3  NoteBurnt  by ann: tombstoned"),
        "{last}"
    );
    let json = serde_json::to_value(&entries).unwrap();
    assert_eq!(json[0].get("tombstoned"), None);
    assert_eq!(json[2]["tombstoned"], true);
    // A page that begins at the tombstone tells the same of it.
    let page = drawer
        .history
        .timeline(queries, "a", 3, 1)
        .unwrap()
        .unwrap();
    assert_eq!(page.items, entries[2..]);
}

#[test]
fn a_difference_to_the_tombstone_is_all_that_there_was() {
    let drawer = burnt();
    let queries = drawer.driver.queries();
    let diff = |from, to| {
        let diff = drawer.history.diff(queries, "a", from, to);
        diff.unwrap().unwrap()
    };
    let ended = diff(Point::Version(1), Point::Version(3));
    assert!(ended.to.tombstoned && !ended.from.tombstoned);
    assert_eq!(ended.changes.len(), 1);
    assert_eq!(ended.changes[0].before, json!({"lines": ["one"]}));
    assert_eq!(ended.changes[0].after, json!(null));
    let same = diff(Point::Version(3), Point::Time(i64::MAX));
    assert_eq!(same.changes, []);
    let events = drawer.history.events(queries, "a", 1, 100).unwrap();
    assert_eq!(events.unwrap().items.len(), 3);
}
