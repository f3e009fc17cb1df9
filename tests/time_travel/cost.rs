//! What it costs to know the past: at most one snapshot and a hundred events.

use millstream::event_sourcing::Point;
use serde_json::json;

use crate::leg::Plain;
use crate::support::{Airport, time};

/// Records `events` stands, `batch` per command and a second apart.
fn busy(airport: &mut Airport<Plain>, leg: &str, events: usize, batch: usize) {
    let mut number = 0;
    while number < events {
        let upto = events.min(number + batch);
        let stands: Vec<String> = (number..upto).map(|stand| format!("S{stand}")).collect();
        number = upto;
        airport.record(leg, "allocator", json!({"stands": stands}));
        let second = std::time::Duration::from_secs(1);
        airport.driver.advance_wall_clock_time(second).unwrap();
    }
}

#[test]
fn an_aggregate_of_10_000_events_costs_no_more_than_one_of_200() {
    let mut airport = Airport::<Plain>::new();
    busy(&mut airport, "short", 200, 7);
    busy(&mut airport, "long", 10_000, 73);
    let cost = |leg: &str, version| {
        let reads = airport.reads(leg, Point::Version(version));
        assert!(
            reads.snapshots <= 1 && reads.events <= 100,
            "{leg} {version}: {reads:?}"
        );
        (reads.snapshots, reads.events)
    };
    assert_eq!(cost("short", 200), (1, 0));
    assert_eq!(cost("long", 10_000), (1, 0));
    assert_eq!(cost("short", 199), (1, 99));
    assert_eq!(cost("long", 9_999), (1, 99));
    assert_eq!(cost("long", 99), (0, 99));
    let now = airport.current("long");
    assert_eq!((now.record.state.stands, now.reads.events), (10_000, 0));
    assert!(airport.metric("millstream_events_snapshots_total") >= 102.0);
}

#[test]
fn every_version_and_every_time_of_a_long_life_is_right_and_bounded() {
    let mut airport = Airport::<Plain>::new();
    let begin = airport.driver.now_ms();
    busy(&mut airport, "leg", 1_234, 17);
    for version in 1..=1_234 {
        let found = airport.as_of("leg", Point::Version(version)).unwrap();
        let reads = found.reads;
        assert!(
            reads.snapshots <= 1 && reads.events <= 100,
            "{version}: {reads:?}"
        );
        let state = found.record.state;
        assert_eq!((found.record.version, state.stands), (version, version));
        assert_eq!(state.stand, Some(format!("S{}", version - 1)));
    }
    for second in 0..80 {
        let moment = Point::Time(begin + second * 1_000 + 500);
        let found = airport.as_of("leg", moment).unwrap();
        // Seventeen events a second, the last of them in a command of its own.
        let expected = (17 * (second.unsigned_abs() + 1)).min(1_234);
        assert_eq!(found.record.version, expected, "{second} s");
        let reads = found.reads;
        assert!(
            reads.snapshots <= 1 && reads.events <= 100,
            "{second} s: {reads:?}"
        );
        assert!(reads.probes <= 12, "{second} s: {reads:?}");
    }
}

#[test]
fn a_command_with_many_events_leaves_snapshots_of_exactly_their_versions() {
    let mut airport = Airport::<Plain>::new();
    busy(&mut airport, "leg", 450, 450);
    for version in [100, 200, 300, 400] {
        let found = airport.as_of("leg", Point::Version(version)).unwrap();
        assert_eq!((found.reads.snapshots, found.reads.events), (1, 0));
        assert_eq!(found.record.state.stands, version);
        let key = format!("leg@{version}");
        let stored = airport
            .driver
            .store_value("leg-snapshots", &key)
            .unwrap()
            .unwrap();
        assert_eq!(stored["state"]["stands"], version);
    }
    assert_eq!(
        airport
            .driver
            .store_value("leg-snapshots", "leg@450")
            .unwrap(),
        None
    );
}

#[test]
fn other_systems_events_leave_snapshots_as_well_and_the_interval_can_be_chosen() {
    let mut airport = Airport::<Plain>::with(1, |leg| {
        leg.snapshot_interval(std::num::NonZeroU64::new(5).unwrap())
    });
    for version in 8..=23 {
        airport.foreign("leg", version, time("10:00:00"), "A1");
    }
    for version in 8..=23 {
        let reads = airport.reads("leg", Point::Version(version));
        assert!(
            reads.snapshots <= 1 && reads.events <= 5,
            "{version}: {reads:?}"
        );
        assert_eq!(reads.snapshots, u64::from(version >= 10));
    }
    let found = airport.as_of("leg", Point::Version(20)).unwrap();
    assert_eq!(
        (found.record.first_version, found.record.state.stands),
        (8, 13)
    );
}
