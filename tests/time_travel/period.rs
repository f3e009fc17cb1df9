//! The events of all aggregates in a period, by type and by actor.

use millstream::event_sourcing::{EventPeriod, HistoryReadError};
use serde_json::{Value, json};

use crate::leg::Plain;
use crate::support::{Airport, time};

/// What tells an event apart.
fn names(events: &[Box<serde_json::value::RawValue>]) -> Vec<(String, String, u64)> {
    events
        .iter()
        .map(|event| {
            let event: Value = serde_json::from_str(event.get()).unwrap();
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            let version = event["aggregateVersion"].as_u64().unwrap();
            (text("timestamp"), text("aggregateId"), version)
        })
        .collect()
}

fn day() -> Airport<Plain> {
    let mut airport = Airport::<Plain>::with(3, |leg| leg);
    for leg in 0..20 {
        let leg = format!("leg-{leg}");
        airport.record(&leg, "planner", json!({"created": true}));
        airport
            .driver
            .advance_wall_clock_time(std::time::Duration::from_secs(60))
            .unwrap();
        let actor = if leg.ends_with('7') { "ops-7" } else { "ops-1" };
        airport.record(
            &leg,
            actor,
            json!({"stands": ["A1", "A2"], "status": "Boarding"}),
        );
    }
    airport
}

#[test]
fn all_events_of_all_partitions_come_in_the_order_of_time_whatever_the_size_of_a_page() {
    let airport = day();
    let whole = airport.period(&EventPeriod {
        limit: 1_000,
        ..EventPeriod::default()
    });
    let expected = names(&whole.events);
    assert_eq!((expected.len(), whole.cursor), (80, None));
    assert!(expected.is_sorted(), "{expected:?}");
    assert_eq!(
        (whole.partitions, whole.partitions_missing),
        (vec![0, 1, 2], vec![])
    );
    for limit in [1, 2, 3, 7, 79, 80, 81] {
        let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = airport.period(&EventPeriod {
                limit,
                cursor,
                ..EventPeriod::default()
            });
            assert!(page.events.len() <= limit);
            found.extend(names(&page.events));
            pages += 1;
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {limit}");
        assert!(
            pages <= 80_usize.div_ceil(limit) + 1,
            "{pages} pages of {limit}"
        );
    }
}

#[test]
fn a_search_is_by_period_type_and_actor() {
    let airport = day();
    let count = |period: EventPeriod| {
        let limit = 1_000;
        airport
            .period(&EventPeriod { limit, ..period })
            .events
            .len()
    };
    let all = EventPeriod::default();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        count(EventPeriod {
            event_type: some("StandAllocated"),
            ..all.clone()
        }),
        40
    );
    assert_eq!(
        count(EventPeriod {
            actor: some("ops-7"),
            ..all.clone()
        }),
        6
    );
    assert_eq!(
        count(EventPeriod {
            actor: some("nobody"),
            ..all.clone()
        }),
        0
    );
    let both = EventPeriod {
        actor: some("ops-7"),
        event_type: some("StatusChanged"),
        ..all.clone()
    };
    assert_eq!(count(both), 2);
    // From this time on, before that one.
    let (from, to) = (Some(time("10:01:00")), Some(time("10:02:00")));
    let minute = airport.period(&EventPeriod {
        from,
        to,
        limit: 10,
        ..all.clone()
    });
    let minute = names(&minute.events);
    assert_eq!(minute.len(), 4);
    assert!(
        minute
            .iter()
            .all(|(at, ..)| at == "2025-07-04T10:01:00.000Z"),
        "{minute:?}"
    );
    let empty = EventPeriod {
        from: to,
        to: from,
        ..all
    };
    assert_eq!(count(empty), 0);
}

#[test]
fn an_event_dated_before_1970_is_found_first() {
    let mut airport = Airport::<Plain>::new();
    airport.foreign("old", 1, -5, "A1");
    airport.record("new", "ops", json!({"created": true}));
    let found = airport.period(&EventPeriod {
        limit: 10,
        ..EventPeriod::default()
    });
    let found: Vec<String> = names(&found.events)
        .into_iter()
        .map(|(_, id, _)| id)
        .collect();
    assert_eq!(found, ["old", "new"]);
}

#[test]
fn a_cursor_that_no_page_has_given_out_is_refused() {
    let airport = day();
    let queries = airport.driver.queries();
    for cursor in ["", "!", "AAAA", "bm8gY3Vyc29y"] {
        let period = EventPeriod {
            limit: 1,
            cursor: Some(cursor.to_owned()),
            ..EventPeriod::default()
        };
        let refused = airport.history.events_of_period(queries, &period);
        assert!(
            matches!(refused, Err(HistoryReadError::BadCursor(_))),
            "{cursor}"
        );
    }
}
