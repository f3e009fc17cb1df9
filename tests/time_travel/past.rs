//! What was, when, why and by whom.

use millstream::event_sourcing::{HistoryReadError, Point};
use millstream::query::QueryError;
use serde_json::{Value, json};

use crate::leg::Plain;
use crate::support::{Airport, time};

/// The worked example: created 10:00, stand 10:05, boarding 10:30, gate 10:35.
fn morning() -> Airport<Plain> {
    let mut airport = Airport::new();
    airport.record("LH1", "planner", json!({"created": true}));
    airport.at("10:05:00");
    airport.record("LH1", "ops-7", json!({"stands": ["A12"]}));
    airport.at("10:30:00");
    airport.record("LH1", "gate-3", json!({"status": "Boarding"}));
    airport.at("10:35:00");
    airport.record("LH1", "gate-3", json!({"gate": "B4"}));
    airport
}

fn at(clock: &str) -> Point {
    Point::Time(time(clock))
}

#[test]
fn at_a_quarter_past_ten_the_leg_is_scheduled_with_its_stand_and_later_it_is_boarding() {
    let airport = morning();
    let leg = airport.state("LH1", at("10:15:00")).unwrap();
    assert_eq!(leg.status.as_deref(), Some("Scheduled"));
    assert_eq!((leg.stand.as_deref(), leg.gate), (Some("A12"), None));
    let leg = airport.state("LH1", at("10:45:00")).unwrap();
    assert_eq!(leg.status.as_deref(), Some("Boarding"));
    assert_eq!(leg.gate.as_deref(), Some("B4"));
    assert_eq!(airport.state("LH1", at("09:59:59.999")), None);
}

#[test]
fn an_event_counts_from_its_own_millisecond_on() {
    let airport = morning();
    let version = |clock| {
        airport
            .as_of("LH1", at(clock))
            .map(|leg| leg.record.version)
    };
    assert_eq!(version("10:04:59.999"), Some(1));
    assert_eq!(version("10:05:00"), Some(2));
    assert_eq!(
        airport
            .as_of("LH1", Point::Version(3))
            .unwrap()
            .record
            .version,
        3
    );
    for version in [0, 5, u64::MAX] {
        assert_eq!(airport.as_of("LH1", Point::Version(version)), None);
    }
    assert_eq!(airport.current("LH1").record.version, 4);
    assert_eq!(airport.as_of("LH2", at("10:45:00")), None);
}

#[test]
fn the_timeline_tells_when_what_who_why_and_what_changed() {
    let airport = morning();
    let timeline = airport.timeline("LH1");
    let told: Vec<Value> = timeline
        .iter()
        .map(|entry| {
            let mut told = serde_json::to_value(entry).unwrap();
            let fields = told.as_object_mut().unwrap();
            for unique in ["eventId", "correlationId", "causationId"] {
                assert!(fields.remove(unique).unwrap().is_string());
            }
            told
        })
        .collect();
    assert_eq!(
        told[0],
        json!({
            "version": 1, "timestamp": "2025-07-04T10:00:00.000Z", "eventType": "LegCreated",
            "actor": "planner", "source": "tower", "reason": "as planned",
            "changes": [{"field": "status", "before": null, "after": "Scheduled"}],
        })
    );
    assert_eq!(told[1]["actor"], "ops-7");
    assert_eq!(
        told[1]["changes"],
        json!([
            {"field": "allocatedBy", "before": null, "after": "allocator"},
            {"field": "stand", "before": null, "after": "A12"},
            {"field": "stands", "before": 0, "after": 1},
        ])
    );
    let change = json!([{"field": "status", "before": "Scheduled", "after": "Boarding"}]);
    assert_eq!(told[2]["changes"], change);
    assert_eq!(
        timeline[2].to_string(),
        "2025-07-04T10:30:00.000Z  v3  StatusChanged  by gate-3: status \"Scheduled\" → \"Boarding\""
    );
}

#[test]
fn a_timeline_and_events_are_read_in_pages_that_join_without_a_seam() {
    let airport = morning();
    let queries = airport.driver.queries();
    let whole = airport.timeline("LH1");
    let (mut entries, mut events, mut from) = (Vec::new(), Vec::new(), Some(1));
    while let Some(version) = from {
        let page = airport.history.timeline(queries, "LH1", version, 1);
        let page = page.unwrap().unwrap();
        assert_eq!(page.items.len(), 1);
        entries.extend(page.items);
        let events_page = airport.history.events(queries, "LH1", version, 1);
        let events_page = events_page.unwrap().unwrap();
        assert_eq!(events_page.next_version, page.next_version);
        events.extend(events_page.items);
        from = page.next_version;
    }
    assert_eq!(entries, whole);
    let ids: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str::<Value>(event.get()).unwrap()["eventId"].take())
        .collect();
    assert_eq!(
        ids,
        whole
            .iter()
            .map(|entry| json!(entry.event_id))
            .collect::<Vec<_>>()
    );
    let beyond = airport.history.timeline(queries, "LH1", 9, 10);
    let beyond = beyond.unwrap().unwrap();
    assert_eq!((beyond.items, beyond.next_version), (Vec::new(), None));
    assert!(
        airport
            .history
            .events(queries, "LH2", 1, 10)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_difference_lies_between_any_two_points_and_in_both_directions() {
    let airport = morning();
    let queries = airport.driver.queries();
    let diff = |from, to| {
        let found = airport.history.diff(queries, "LH1", from, to).unwrap();
        found.map(|found| serde_json::to_value(found).unwrap())
    };
    let expected = json!({
        "from": {"version": 2, "timestamp": "2025-07-04T10:05:00.000Z"},
        "to": {"version": 4, "timestamp": "2025-07-04T10:35:00.000Z"},
        "changes": [
            {"field": "gate", "before": null, "after": "B4"},
            {"field": "status", "before": "Scheduled", "after": "Boarding"},
        ],
    });
    assert_eq!(diff(at("10:15:00"), at("10:45:00")), Some(expected.clone()));
    assert_eq!(diff(Point::Version(2), Point::Version(4)), Some(expected));
    let back = diff(Point::Version(4), Point::Version(3)).unwrap();
    assert_eq!(
        back["changes"],
        json!([{"field": "gate", "before": "B4", "after": null}])
    );
    // Before its first event it is as if new.
    let first = diff(at("09:00:00"), Point::Version(1)).unwrap();
    assert_eq!(first["from"], json!({"version": 0}));
    assert_eq!(diff(Point::Version(1), Point::Version(5)), None);
}

#[test]
fn events_of_old_schema_versions_are_upcast_on_every_path() {
    let mut airport = Airport::<Plain>::new();
    airport.foreign("LH9", 1, time("10:00:00"), "A1");
    airport.foreign("LH9", 2, time("10:10:00"), "A2");
    let queries = airport.driver.queries();
    let leg = airport.state("LH9", at("10:05:00")).unwrap();
    assert_eq!(leg.allocated_by.as_deref(), Some("system"));
    let change = json!({"field": "allocatedBy", "before": null, "after": "system"});
    let timeline = airport.timeline("LH9");
    assert_eq!(
        serde_json::to_value(&timeline[0].changes[0]).unwrap(),
        change
    );
    let events = airport
        .history
        .events(queries, "LH9", 2, 10)
        .unwrap()
        .unwrap();
    let event: Value = serde_json::from_str(events.items[0].get()).unwrap();
    assert_eq!(event["schemaVersion"], 2);
    assert_eq!(
        event["data"],
        json!({"stand": "A2", "allocatedBy": "system"})
    );
    let period = airport.period(&millstream::event_sourcing::EventPeriod {
        limit: 10,
        ..Default::default()
    });
    let event: Value = serde_json::from_str(period.events[0].get()).unwrap();
    assert_eq!(
        event["data"],
        json!({"stand": "A1", "allocatedBy": "system"})
    );
}

#[test]
fn an_adopted_aggregate_begins_where_it_was_adopted() {
    let mut airport = Airport::<Plain>::new();
    airport.foreign("LH9", 250, time("10:00:00"), "A1");
    airport.foreign("LH9", 251, time("10:10:00"), "A2");
    assert_eq!(airport.as_of("LH9", Point::Version(249)), None);
    let leg = airport.as_of("LH9", Point::Version(250)).unwrap().record;
    assert_eq!((leg.first_version, leg.version), (250, 250));
    let versions: Vec<u64> = airport
        .timeline("LH9")
        .iter()
        .map(|entry| entry.version)
        .collect();
    assert_eq!(versions, [250, 251]);
}

#[test]
fn an_event_from_a_clock_that_has_gone_back_is_not_earlier_than_those_before_it() {
    let mut airport = Airport::<Plain>::new();
    for (version, clock) in [
        (1, "10:00:00"),
        (2, "10:30:00"),
        (3, "10:20:00"),
        (4, "10:40:00"),
    ] {
        airport.foreign("LH9", version, time(clock), &format!("S{version}"));
    }
    let version = |clock| airport.as_of("LH9", at(clock)).unwrap().record.version;
    assert_eq!(
        version("10:25:00"),
        1,
        "version 3 is behind version 2, which is later"
    );
    assert_eq!(version("10:30:00"), 3);
    assert_eq!(version("10:40:00"), 4);
    assert_eq!(
        airport.timeline("LH9")[2].timestamp,
        time("10:20:00"),
        "told as it is"
    );
}

#[test]
fn the_past_survives_a_restart_from_changelogs_alone() {
    let mut airport = morning();
    let before = airport.timeline("LH1");
    airport.driver.restart(false).unwrap();
    assert_eq!(airport.timeline("LH1"), before);
    assert_eq!(airport.state("LH1", at("10:15:00")).unwrap().stands, 1);
}

#[test]
fn an_id_that_cannot_be_is_refused_and_not_looked_for() {
    let airport = morning();
    let queries = airport.driver.queries();
    let refused = airport.history.current(queries, "LH\0");
    assert!(matches!(
        refused,
        Err(HistoryReadError::Query(QueryError::BadKey { .. }))
    ));
}
