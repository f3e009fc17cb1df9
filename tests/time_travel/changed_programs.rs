//! What is left when the program changes what it keeps: states and snapshots of another form, an
//! index that was not kept.

use millstream::event_sourcing::{EventPeriod, HistoryReadError, Point};
use serde_json::json;

use crate::leg::{Misread, Plain, Reshaped, Revised};
use crate::support::Airport;

fn stands(count: usize) -> serde_json::Value {
    let stands: Vec<String> = (0..count).map(|stand| format!("S{stand}")).collect();
    json!({"stands": stands})
}

#[test]
fn a_state_that_no_longer_reads_is_folded_again_and_the_task_goes_on() {
    let mut old = Airport::<Plain>::new();
    old.record("leg", "ops", stands(250));
    old.record("quiet", "ops", stands(1));
    let mut new = old.upgrade::<Reshaped>(|leg| leg);
    // To readers at once, at the price of all events; to the task when the aggregate is next touched.
    let found = new.current("leg");
    assert_eq!(
        (found.record.version, found.record.state.stands),
        (250, 250)
    );
    assert_eq!(
        (found.reads.snapshots_unreadable, found.reads.events),
        (2, 250)
    );
    assert_eq!(new.state("leg", Point::Version(150)).unwrap().stands, 150);
    assert_eq!(new.metric("millstream_events_states_unreadable_total"), 0.0);

    assert_eq!(new.record("leg", "ops", stands(1)), 251);
    assert_eq!(new.current("leg").reads.events, 0);
    assert_eq!(new.metric("millstream_events_states_unreadable_total"), 1.0);
    assert_eq!(
        new.metric("millstream_events_snapshots_unreadable_total"),
        2.0
    );
    // Its snapshots were replaced on the way.
    let reads = new.reads("leg", Point::Version(250));
    assert_eq!(
        (reads.snapshots, reads.snapshots_unreadable, reads.events),
        (1, 0, 50)
    );
    assert_eq!(new.current("quiet").record.state.stands, 1, "untouched");
}

#[test]
fn another_state_version_rebuilds_everything_at_the_start_and_tells_nobody_downstream() {
    let mut old = Airport::<Plain>::with(1, |leg| leg.rebuild_slice_entries(40));
    old.record("a", "ops", stands(130));
    old.record("b", "ops", stands(7));
    assert_eq!(old.downstream(), [130, 7]);
    let mut new = old.upgrade::<Revised>(|leg| leg.rebuild_slice_entries(40));
    assert!(new.downstream().is_empty(), "nothing has happened");
    assert_eq!(new.metric("millstream_events_rebuilt_total"), 137.0);
    assert_eq!(new.metric("millstream_events_states_unreadable_total"), 0.0);
    // The old state would have read: it has a field of that name.
    assert_eq!(new.current("a").record.state.stands, 130_000);
    let found = new.as_of("a", Point::Version(110)).unwrap();
    assert_eq!(found.record.state.stands, 110_000);
    assert_eq!((found.reads.snapshots, found.reads.events), (1, 10));
    assert_eq!(new.record("b", "ops", stands(1)), 8);
    assert_eq!(new.downstream(), [8]);

    // And back again, as after a release that was withdrawn.
    let again = new.upgrade::<Plain>(|leg| leg);
    assert_eq!(again.current("b").record.state.stands, 8);
    assert_eq!(again.current("a").record.state.stands, 130);
}

#[test]
fn a_program_that_is_started_again_unchanged_rebuilds_nothing() {
    let mut airport = Airport::<Plain>::new();
    airport.record("a", "ops", stands(130));
    let airport = airport.upgrade::<Plain>(|leg| leg);
    assert_eq!(airport.metric("millstream_events_rebuilt_total"), 0.0);
}

#[test]
fn without_an_index_there_is_no_search_and_with_it_again_it_knows_all_events() {
    let mut without = Airport::<Plain>::with(1, |leg| leg.without_index_by_time());
    without.record("a", "ops", stands(3));
    let all = EventPeriod {
        limit: 10,
        ..EventPeriod::default()
    };
    let queries = without.driver.queries();
    let refused = without.history.events_of_period(queries, &all);
    assert!(matches!(refused, Err(HistoryReadError::NoIndex("Leg"))));
    assert!(
        without
            .driver
            .store_value("leg-events-by-time", "x")
            .is_err()
    );

    let mut with = without.upgrade::<Plain>(|leg| leg);
    with.record("b", "ops", stands(1));
    assert_eq!(with.period(&all).events.len(), 4);
    assert_eq!(with.downstream(), [3, 1], "the rebuild has told nobody");
}

#[test]
fn a_verification_finds_nothing_in_what_was_derived_and_names_the_first_difference_in_what_was_not()
{
    let mut old = Airport::<Plain>::with(3, |leg| leg);
    for leg in 0..10 {
        old.record(&format!("leg-{leg}"), "ops", stands(25));
    }
    let now = old.driver.now_ms();
    for version in 70..95 {
        old.foreign("other", version, now, "A1");
    }
    let queries = old.driver.queries();
    let (mut aggregates, mut events, mut cursor, mut pages) = (0, 0, None, 0);
    loop {
        let page = old.history.verify(queries, cursor.as_deref(), 3).unwrap();
        assert_eq!(page.difference, None);
        (aggregates, events, pages) = (
            aggregates + page.aggregates,
            events + page.events,
            pages + 1,
        );
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((aggregates, events, pages), (11, 275, 4));

    let new = old.upgrade::<Misread>(|leg| leg);
    let found = new
        .history
        .verify(new.driver.queries(), None, 1_000)
        .unwrap();
    let difference = found.difference.unwrap();
    assert_eq!(difference.store, "leg-state");
    assert_eq!(difference.problem, "the current state is another");
    let change = &difference.changes[0];
    assert_eq!(
        (&change.before, &change.after),
        (&json!(25_000), &json!(25))
    );
    let refused = new.history.verify(new.driver.queries(), Some("x"), 1);
    assert!(matches!(refused, Err(HistoryReadError::BadCursor(_))));
}

#[test]
fn a_verification_looks_at_snapshots_as_well() {
    let mut old = Airport::<Plain>::new();
    old.record("leg", "ops", stands(150));
    let new = old.upgrade::<Misread>(|leg| leg);
    let found = new.history.verify(new.driver.queries(), None, 1).unwrap();
    let difference = found.difference.unwrap();
    assert_eq!(
        (&*difference.store, difference.version),
        ("leg-snapshots", 100)
    );
}
