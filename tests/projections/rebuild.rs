//! Building a projection anew, beside the rows that serve.

use std::collections::BTreeMap;

use millstream::event_sourcing::ProjectionPhase;
use serde_json::Value;

use crate::library::{Library, Program};

const SHELVES: usize = 12;

fn filled(slice: usize) -> Library {
    let mut library = Library::new(Program::first(), slice);
    for number in 0..SHELVES {
        let shelf = format!("shelf-{number:02}");
        for round in 0..=number % 4 {
            library.put(&shelf, &[&format!("a{round}"), &format!("b{round}")]);
        }
    }
    library
}

fn is_building(library: &Library, name: &str) -> bool {
    let progress = library.progress(name);
    let mut progress = progress.iter();
    progress.any(|it| matches!(it.phase, ProjectionPhase::Building { .. }))
}

#[test]
fn rows_follow_events_and_every_row_is_sent_on() {
    let mut library = Library::new(Program::first(), 100);
    library.put("a", &["x", "y"]);
    library.put("b", &["z"]);
    assert_eq!(library.served("counts"), library.counts(1));
    assert_eq!(library.served("ledger").len(), 3);
    let sent: Vec<_> = library
        .sent()
        .into_iter()
        .map(|(shelf, count)| (shelf, count.map(|count| count.books)))
        .collect();
    assert_eq!(
        sent,
        [
            ("a".into(), Some(1)),
            ("a".into(), Some(2)),
            ("b".into(), Some(1))
        ]
    );
    library.clear("a");
    assert_eq!(library.served("counts"), library.counts(1));
    assert_eq!(library.sent(), [("a".to_owned(), None)]);
}

#[test]
fn a_rebuild_serves_the_old_rows_until_the_new_ones_have_caught_up_whatever_is_killed() {
    let mut library = filled(3);
    let queries = library.driver.queries();
    let asked = library.endpoint("counts").request_rebuild(queries).unwrap();
    assert_eq!(asked, BTreeMap::from([(0, 2), (1, 2)]));
    let mut looks_while_building = 0;
    for step in 0.. {
        assert!(step < 500, "{:?}", library.progress("counts"));
        library.step();
        if is_building(&library, "counts") {
            looks_while_building += 1;
        } else if library.rests("counts") && library.progress("counts")[0].generation == 2 {
            break;
        }
        assert_eq!(library.served("counts"), library.counts(1));
        // Before, at and behind the places that history has been read to.
        let shelf = format!("shelf-{:02}", step * 5 % SHELVES);
        if step % 7 == 3 {
            library.clear(&shelf);
        } else if step < 60 {
            library.put(&shelf, &[&format!("late-{step}"), &format!("later-{step}")]);
        }
        assert_eq!(library.served("counts"), library.counts(1));
        match step % 3 {
            0 => library.kill(true),
            1 => library.kill(false),
            _ => {}
        }
        assert_eq!(library.served("counts"), library.counts(1));
    }
    assert!(looks_while_building > 5, "{looks_while_building}");
    assert_eq!(library.served("counts"), library.counts(1));
    let progress = library.progress("counts");
    assert!(progress.iter().all(|it| it.generation == 2), "{progress:?}");
    // What has the events of the old generation has them all.
    let events: u64 = progress.iter().map(|it| it.events).sum();
    let history = library.rows_of("shelf-history");
    assert_eq!(events, u64::try_from(history).unwrap());
    assert_eq!(library.rows_of("counts-1"), 0, "the old rows are gone");
    // The other projection was left alone.
    let others = library.progress("ledger");
    assert!(others.iter().all(|it| it.generation == 1), "{others:?}");
}

#[test]
fn a_projection_that_is_added_later_has_all_of_history() {
    let first = Program::first();
    let without = Program {
        ledger: false,
        ..first.clone()
    };
    let mut library = Library::new(without, 3);
    for number in 0..10 {
        library.put(&format!("shelf-{number}"), &["a", "b"]);
    }
    library.restart_as(first, true);
    assert_eq!(library.served("ledger").len(), 20);
    library.put("shelf-1", &["c"]);
    assert_eq!(library.served("ledger").len(), 21);
    library.kill(false);
    assert_eq!(library.served("ledger").len(), 21);
}

#[test]
fn rows_of_another_version_stay_as_they_are_until_the_new_ones_take_over() {
    let mut library = filled(3);
    library.sent();
    let old = library.served("counts");
    let second = Program {
        weight: 10,
        version: 2,
        ..library.program.clone()
    };
    library.restart_as(second, true);
    assert_eq!(library.served("counts"), old);
    library.put("shelf-00", &["new"]);
    let mut steps = 0;
    while !(library.rests("counts") && library.progress("counts")[0].version == 2) {
        // Each task has rows of the one rule or the other.
        let new = library.counts(10);
        let served = library.served("counts");
        for row in &served {
            let of = |rows: &[Value]| rows.contains(row);
            assert!(of(&old) || of(&new), "{row}");
        }
        library.step();
        if steps % 4 == 1 {
            library.kill(false);
        }
        steps += 1;
        assert!(steps < 200, "{:?}", library.progress("counts"));
    }
    let new = library.counts(10);
    assert_eq!(library.served("counts"), new);
    // Whoever reads the rows that are sent on has them as well.
    let mut latest = BTreeMap::new();
    for (shelf, count) in library.sent() {
        latest.insert(shelf, count);
    }
    let latest: Vec<Value> = latest
        .into_values()
        .map(|count| serde_json::to_value(count.unwrap()).unwrap())
        .collect();
    let mut sorted = latest;
    sorted.sort_by_key(ToString::to_string);
    assert_eq!(sorted, new);
}

#[test]
fn a_generation_half_built_by_another_version_is_started_over() {
    let mut library = filled(2);
    let version = |version, weight| Program {
        version,
        weight,
        ..Program::first()
    };
    library.restart_as(version(2, 10), true);
    for _ in 0..4 {
        library.step();
    }
    assert!(is_building(&library, "counts"));
    library.restart_as(version(3, 100), false);
    let mut steps = 0;
    while !(library.rests("counts") && library.progress("counts")[0].version == 3) {
        library.step();
        steps += 1;
        assert!(steps < 200, "{:?}", library.progress("counts"));
    }
    assert_eq!(library.served("counts"), library.counts(100));
}

#[test]
fn rules_that_change_while_rows_are_sent_on_or_cleared_take_over_afterwards() {
    for phase in [ProjectionPhase::Publishing, ProjectionPhase::Clearing] {
        let mut library = filled(2);
        let version = |version, weight| Program {
            version,
            weight,
            ..Program::first()
        };
        library.restart_as(version(2, 10), true);
        let mut steps = 0;
        while library.progress("counts")[0].phase != phase {
            library.step();
            steps += 1;
            assert!(steps < 200, "{:?}", library.progress("counts"));
        }
        library.restart_as(version(3, 100), false);
        library.put("shelf-00", &["new"]);
        let found = library
            .endpoint("counts")
            .verify(library.driver.queries(), None, 100);
        assert_eq!(found.unwrap().other_version, [0, 1]);
        while !(library.rests("counts") && library.progress("counts")[0].version == 3) {
            library.step();
            steps += 1;
            assert!(steps < 400, "{:?}", library.progress("counts"));
        }
        assert_eq!(library.served("counts"), library.counts(100));
        let found = library
            .endpoint("counts")
            .verify(library.driver.queries(), None, 100);
        let found = found.unwrap();
        assert_eq!((found.other_version, found.difference), (vec![], None));
    }
}
