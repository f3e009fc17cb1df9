//! The rules of a flight leg: given events, when a message comes, then these events happen.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use millstream::event_sourcing::{Aggregate, Envelope, Event, RawValue, given, parse_timestamp};
use millstream_flight_leg::{
    Airline, Airport, ArrivalTimeChanged, ArrivalTimes, Cancellation, Contribution,
    DELAY_MINUTES_MAX, DepartureTimeChanged, DepartureTimes, FlightCancelled, FlightLeg,
    FlightLegCreated, FlightLegEvent, Gap, GapCode, GateAssigned, GateAssignment, GateReassigned,
    Instant, LegInput, References, Schedule, Stand, StandAllocated, StandAllocation, StandChanged,
    Status, StatusChanged, StatusCount, StatusReport, Times, Totals, codes,
};

fn at(time: &str) -> Instant {
    let text = format!("2026-07-04T{time}:00.000Z");
    Instant::from_millis(parse_timestamp(&text).unwrap()).unwrap()
}

fn schedule() -> Schedule {
    Schedule {
        flight_number: "UA1545".into(),
        airline: "UA".into(),
        origin: "EWR".into(),
        destination: "IAH".into(),
        scheduled_departure: at("12:00"),
        scheduled_arrival: Some(at("16:00")),
        aircraft: None,
    }
}

fn created() -> FlightLegEvent {
    FlightLegCreated {
        flight_number: "UA1545".into(),
        airline: "UA".into(),
        origin: "EWR".into(),
        destination: "IAH".into(),
        scheduled_departure: at("12:00"),
        scheduled_arrival: Some(at("16:00")),
        aircraft: None,
        airline_name: None,
        origin_name: None,
        destination_name: None,
        aircraft_model: None,
        gaps: vec![
            Gap::new("airline", Some("UA"), GapCode::UnknownAirline),
            Gap::new("origin", Some("EWR"), GapCode::UnknownAirport),
            Gap::new("destination", Some("IAH"), GapCode::UnknownAirport),
            Gap::new("aircraft", None, GapCode::NoAircraft),
        ],
    }
    .into()
}

fn known_stand(stand: &str) -> LegInput {
    let allocation = StandAllocation {
        stand: stand.into(),
        allocated_by: Some("ann".into()),
        allocated_at: Some(at("10:05")),
    };
    LegInput {
        references: References {
            stand: Some(Stand { terminal: None }),
            ..References::default()
        },
        ..LegInput::from(allocation)
    }
}

fn departure(estimated: Option<Instant>, actual: Option<Instant>) -> DepartureTimes {
    DepartureTimes(Times {
        estimated,
        actual,
        delay_minutes: None,
    })
}

fn departs(estimated: Option<&str>, actual: Option<&str>, delay: i64) -> FlightLegEvent {
    DepartureTimeChanged {
        estimated_departure: estimated.map(at),
        actual_departure: actual.map(at),
        delay_minutes: Some(delay),
    }
    .into()
}

fn becomes(old_status: Status, new_status: Status) -> FlightLegEvent {
    StatusChanged {
        old_status,
        new_status,
        changed_at: None,
    }
    .into()
}

#[test]
fn a_schedule_creates_the_leg_with_its_gaps_and_said_again_changes_nothing() {
    given::<FlightLeg>([])
        .when(schedule())
        .then([created()])
        .when(schedule())
        .then([]);
}

#[test]
fn reference_data_names_what_it_knows_and_leaves_no_gap() {
    let airport = |name: &str, zone: Option<&str>| Airport {
        name: name.into(),
        time_zone: zone.map(str::to_owned),
    };
    let input = LegInput {
        references: References {
            airline: Some(Airline {
                name: "United".into(),
            }),
            origin: Some(airport("Newark", Some("America/New_York"))),
            destination: Some(airport("Houston", None)),
            ..References::default()
        },
        ..LegInput::from(schedule())
    };
    let leg = given::<FlightLeg>([]);
    let events = FlightLeg::decide(leg.state(), input).unwrap();
    let [FlightLegEvent::FlightLegCreated(created)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(created.airline_name.as_deref(), Some("United"));
    assert_eq!(created.destination_name.as_deref(), Some("Houston"));
    let gaps = [
        Gap::new("destination", Some("IAH"), GapCode::UnknownTimeZone),
        Gap::new("aircraft", None, GapCode::NoAircraft),
    ];
    assert_eq!(created.gaps, gaps);
}

#[test]
fn nothing_happens_to_a_leg_without_schedule_and_it_has_one_schedule_for_good() {
    let gate = GateAssignment { gate: "C70".into() };
    given::<FlightLeg>([])
        .when(gate)
        .then_rejected(codes::UNKNOWN_FLIGHT);
    let later = Schedule {
        scheduled_departure: at("12:30"),
        ..schedule()
    };
    given::<FlightLeg>([created()])
        .when(later)
        .then_rejected(codes::SCHEDULE_CONFLICT);
}

#[test]
fn stands_and_gates_are_allocated_first_and_changed_afterwards() {
    given::<FlightLeg>([created()])
        .when(known_stand("B12"))
        .then([StandAllocated {
            stand: "B12".into(),
            allocated_by: "ann".into(),
            allocated_at: Some(at("10:05")),
            gaps: Vec::new(),
        }
        .into()])
        .when(known_stand("B12"))
        .then([])
        .when(known_stand("B14"))
        .then([StandChanged {
            previous_stand: "B12".into(),
            new_stand: "B14".into(),
            changed_by: "ann".into(),
            changed_at: Some(at("10:05")),
            gaps: Vec::new(),
        }
        .into()])
        .when(GateAssignment { gate: "C70".into() })
        .then([GateAssigned { gate: "C70".into() }.into()])
        .when(GateAssignment { gate: "C71".into() })
        .then([GateReassigned {
            previous_gate: "C70".into(),
            new_gate: "C71".into(),
        }
        .into()]);
}

#[test]
fn an_unknown_stand_is_marked_and_the_mark_goes_with_a_known_one() {
    let unknown = StandAllocation {
        stand: "Z99".into(),
        allocated_by: None,
        allocated_at: None,
    };
    let gap = Gap::new("stand", Some("EWR@Z99"), GapCode::UnknownStand);
    let leg = given::<FlightLeg>([created()])
        .when(unknown)
        .then([StandAllocated {
            stand: "Z99".into(),
            allocated_by: "system".into(),
            allocated_at: None,
            gaps: vec![gap.clone()],
        }
        .into()]);
    assert!(leg.state().gaps.contains(&gap));
    let events = FlightLeg::decide(leg.state(), known_stand("B12")).unwrap();
    let mut state = leg.state().clone();
    events
        .iter()
        .for_each(|event| FlightLeg::apply(&mut state, event));
    assert!(!state.gaps.contains(&gap));
}

#[test]
fn a_late_departure_delays_the_leg_and_a_better_estimate_takes_that_back() {
    given::<FlightLeg>([created()])
        .when(departure(Some(at("12:15")), None))
        .then([
            departs(Some("12:15"), None, 15),
            becomes(Status::Scheduled, Status::Delayed),
        ])
        .when(departure(Some(at("12:15")), None))
        .then([])
        .when(departure(Some(at("12:14")), None))
        .then([
            departs(Some("12:14"), None, 14),
            becomes(Status::Delayed, Status::Scheduled),
        ])
        .when(departure(None, Some(at("12:20"))))
        .then([
            departs(Some("12:14"), Some("12:20"), 20),
            becomes(Status::Scheduled, Status::Departed),
        ]);
}

#[test]
fn an_arrival_lands_the_leg_and_cannot_be_before_the_departure() {
    let arrival = |time: &str| {
        ArrivalTimes(Times {
            actual: Some(at(time)),
            ..Times::default()
        })
    };
    let left = [
        created(),
        departs(None, Some("12:20"), 20),
        becomes(Status::Scheduled, Status::Departed),
    ];
    given::<FlightLeg>(left.clone())
        .when(arrival("12:19"))
        .then_rejected(codes::INVALID_TIMES)
        .when(ArrivalTimes::default())
        .then_rejected(codes::INVALID_TIMES)
        .when(arrival("15:50"))
        .then([
            ArrivalTimeChanged {
                estimated_arrival: None,
                actual_arrival: Some(at("15:50")),
                delay_minutes: Some(-10),
            }
            .into(),
            becomes(Status::Departed, Status::Landed),
        ])
        .when(StatusReport {
            status: Status::Arrived,
        })
        .then([becomes(Status::Landed, Status::Arrived)]);
}

#[test]
fn a_cancelled_leg_stays_so_until_a_new_status() {
    let cancel = |reason: &str| Cancellation {
        reason: reason.into(),
    };
    let leg = given::<FlightLeg>([created()])
        .when(cancel("snow"))
        .then([FlightCancelled {
            reason: "snow".into(),
            cancelled_at: None,
        }
        .into()])
        .when(cancel("snow"))
        .then([])
        .when(departure(Some(at("12:40")), None))
        .then([departs(Some("12:40"), None, 40)]);
    assert_eq!(leg.state().status, Status::Cancelled);
    let leg = leg
        .when(StatusReport {
            status: Status::Scheduled,
        })
        .then([becomes(Status::Cancelled, Status::Scheduled)]);
    assert_eq!(leg.state().cancellation_reason, None);
}

#[test]
fn an_estimate_that_comes_after_the_actual_time_changes_neither_times_nor_delay() {
    let estimate = |time: &str| Times {
        estimated: Some(at(time)),
        ..Times::default()
    };
    let with_delay = DepartureTimes(Times {
        delay_minutes: Some(90),
        ..estimate("13:30")
    });
    let corrected = DepartureTimes(Times {
        actual: Some(at("12:22")),
        ..estimate("12:50")
    });
    given::<FlightLeg>([created()])
        .when(departure(Some(at("12:10")), Some(at("12:20"))))
        .then([
            departs(Some("12:10"), Some("12:20"), 20),
            becomes(Status::Scheduled, Status::Departed),
        ])
        .when(departure(Some(at("12:40")), None))
        .then([])
        .when(with_delay)
        .then([])
        .when(corrected)
        .then([departs(Some("12:10"), Some("12:22"), 22)])
        .when(ArrivalTimes(Times {
            actual: Some(at("16:05")),
            ..Times::default()
        }))
        .then([
            ArrivalTimeChanged {
                estimated_arrival: None,
                actual_arrival: Some(at("16:05")),
                delay_minutes: Some(5),
            }
            .into(),
            becomes(Status::Departed, Status::Landed),
        ])
        .when(ArrivalTimes(estimate("17:00")))
        .then([]);
}

fn said(time: &str, message: impl Into<LegInput>) -> LegInput {
    LegInput {
        said_at: Some(at(time)),
        ..message.into()
    }
}

fn becomes_at(time: &str, old_status: Status, new_status: Status) -> FlightLegEvent {
    StatusChanged {
        old_status,
        new_status,
        changed_at: Some(at(time)),
    }
    .into()
}

#[test]
fn a_report_that_was_made_before_the_status_last_changed_does_not_set_it_back() {
    let report = |time: &str, status| said(time, StatusReport { status });
    let snow = Cancellation {
        reason: "snow".into(),
    };
    given::<FlightLeg>([created()])
        .when(report("10:30", Status::Boarding))
        .then([becomes_at("10:30", Status::Scheduled, Status::Boarding)])
        .when(report("10:29", Status::Scheduled))
        .then([])
        .when(report("10:30", Status::Delayed))
        .then([becomes_at("10:30", Status::Boarding, Status::Delayed)])
        .when(said("12:21", departure(None, Some(at("12:20")))))
        .then([
            departs(None, Some("12:20"), 20),
            becomes_at("12:21", Status::Delayed, Status::Departed),
        ])
        .when(report("12:20", Status::Boarding))
        .then([])
        .when(said("12:30", snow))
        .then([FlightCancelled {
            reason: "snow".into(),
            cancelled_at: Some(at("12:30")),
        }
        .into()])
        .when(report("12:29", Status::Departed))
        .then([])
        .when(report("12:31", Status::Departed))
        .then([becomes_at("12:31", Status::Cancelled, Status::Departed)]);
}

#[test]
fn a_time_more_than_31_days_from_its_schedule_is_refused() {
    let later = |minutes: i64| Instant::from_millis(at("12:00").millis() + minutes * 60_000);
    for minutes in [DELAY_MINUTES_MAX + 1, -DELAY_MINUTES_MAX - 1] {
        given::<FlightLeg>([created()])
            .when(departure(later(minutes), None))
            .then_rejected(codes::INVALID_TIMES)
            .when(departure(None, later(minutes)))
            .then_rejected(codes::INVALID_TIMES);
    }
    let leg = given::<FlightLeg>([created()]);
    let accepted = departure(later(DELAY_MINUTES_MAX), None);
    let events = FlightLeg::decide(leg.state(), accepted.into()).unwrap();
    assert_eq!(events.len(), 2);
}

/// An event of an older build may hold any delay.
#[test]
fn sums_of_extreme_delays_stay_at_the_end_of_their_range() {
    let leg: Contribution = serde_json::from_value(serde_json::json!({
        "cancelled": false, "departed": i64::MAX, "arrived": i64::MAX,
    }))
    .unwrap();
    let twice = Totals::default().with(leg).with(leg);
    assert_eq!(
        (
            twice.flights,
            twice.delay_minutes,
            twice.arrival_delay_minutes
        ),
        (2, i64::MAX, i64::MAX)
    );
    let none = Totals::default().without(leg).without(leg);
    assert_eq!((none.flights, none.delay_minutes), (-2, i64::MIN));
    let full = StatusCount {
        status: "Delayed".into(),
        flights: i64::MAX,
    };
    assert_eq!(full.plus("Delayed", 1).flights, i64::MAX);
}

#[test]
fn stand_allocated_version_1_reads_as_version_2() {
    let read = |version, data: &str| {
        let data = RawValue::from_string(data.into()).unwrap();
        FlightLegEvent::read("StandAllocated", version, &data).unwrap()
    };
    let old = read(1, r#"{"stand":"B12"}"#);
    let expected = read(
        2,
        r#"{"stand":"B12","allocatedBy":"system","allocatedAt":null}"#,
    );
    assert_eq!(old, expected);
    assert_eq!(old.schema_version(), 2);
}

/// The worked example: created 10:00, StandAllocated 10:05, StatusChanged to Boarding 10:30,
/// GateAssigned 10:35.
#[test]
fn at_1015_the_leg_is_scheduled_with_its_stand_and_at_1045_it_is_boarding() {
    let happened: [(&str, LegInput); 4] = [
        ("10:00", schedule().into()),
        ("10:05", known_stand("B12")),
        (
            "10:30",
            StatusReport {
                status: Status::Boarding,
            }
            .into(),
        ),
        ("10:35", GateAssignment { gate: "C70".into() }.into()),
    ];
    let mut history = Vec::new();
    let mut leg = FlightLeg::default();
    for (time, input) in happened {
        for event in FlightLeg::decide(&leg, input).unwrap() {
            FlightLeg::apply(&mut leg, &event);
            history.push((at(time), event));
        }
    }
    let state_at = |time: &str| {
        let until = history.iter().take_while(|(when, _)| *when <= at(time));
        let mut leg = FlightLeg::default();
        until.for_each(|(_, event)| FlightLeg::apply(&mut leg, event));
        leg
    };
    let early = state_at("10:15");
    assert_eq!(early.status, Status::Scheduled);
    assert_eq!(early.stand.as_ref().unwrap().stand, "B12");
    assert_eq!(early.gate, None);
    let late = state_at("10:45");
    assert_eq!(
        (late.status, late.gate.as_deref()),
        (Status::Boarding, Some("C70"))
    );
}

/// An envelope of version 1, as an older build wrote it, is folded.
#[test]
fn an_old_envelope_is_folded() {
    let text = r#"{"eventId":"e","eventType":"StandAllocated","aggregateId":"UA1545-2026-07-04-EWR-IAH","aggregateType":"FlightLeg","aggregateVersion":2,"timestamp":"2026-07-04T10:05:00.000Z","correlationId":"c","data":{"stand":"B12"}}"#;
    let envelope = Envelope::parse(text.as_bytes()).unwrap();
    let event = FlightLegEvent::read(&envelope.event_type, envelope.schema_version, envelope.data);
    let leg = given::<FlightLeg>([created(), event.unwrap()]);
    let stand = leg.state().stand.as_ref().unwrap();
    assert_eq!(
        (stand.stand.as_str(), stand.allocated_by.as_str()),
        ("B12", "system")
    );
    assert_eq!(stand.allocated_at, None);
}
