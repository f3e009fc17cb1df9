//! The aggregate: what a leg is, and what a message changes in it.
//!
//! # Invariants
//! - A message that says what is so already brings about no event.
//! - Nothing happens to a leg before its schedule, and it has one schedule for good.
//! - Messages that come late set nothing back: an estimate says nothing once the actual time is known, and
//!   neither does a report of the status that was made before the status last changed.
//! - Only a new status event un-cancels a leg: times, stands and gates leave it cancelled.

use millstream::event_sourcing::Aggregate;
use serde::{Deserialize, Serialize};

use crate::events::{
    ArrivalTimeChanged, DepartureTimeChanged, FlightCancelled, FlightLegCreated, FlightLegEvent,
    GateAssigned, GateReassigned, StandAllocated, StandChanged, Status, StatusChanged,
};
use crate::instant::Instant;
use crate::messages::{LegInput, LegMessage, Schedule, StandAllocation, Times, is_plausible_delay};
use crate::references::{Gap, GapCode, References};
use crate::rejection::LegRejection;

/// From how many minutes on a departure counts as late: the bound of airlines' punctuality statistics
/// ("D15").
pub const LATE_MINUTES: i64 = 15;

/// A departure or an arrival, beside its schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Movement {
    /// When it is expected.
    pub estimated: Option<Instant>,
    /// When it took place.
    pub actual: Option<Instant>,
    /// How late, in minutes; early is negative.
    pub delay_minutes: Option<i64>,
}

/// Where a leg stands, and by whose decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// The stand.
    pub stand: String,
    /// Who allocated it.
    pub allocated_by: String,
    /// When; null where that is not known.
    pub allocated_at: Option<Instant>,
}

/// A flight leg; the default is one without a schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlightLeg {
    /// What was planned; null before the first event.
    pub plan: Option<FlightLegCreated>,
    /// Where it is in its life.
    pub status: Status,
    /// The latest time of a message that changed the status; null before the first, and where only older
    /// builds' events say so.
    #[serde(default)]
    pub status_at: Option<Instant>,
    /// Its stand at the airport of departure.
    pub stand: Option<Allocation>,
    /// Its gate.
    pub gate: Option<String>,
    /// Its departure.
    pub departure: Movement,
    /// Its arrival.
    pub arrival: Movement,
    /// Why it does not take place.
    pub cancellation_reason: Option<String>,
    /// What reference data did not know.
    pub gaps: Vec<Gap>,
}

impl Aggregate for FlightLeg {
    const TYPE: &'static str = "FlightLeg";
    type State = Self;
    type Command = LegInput;
    type Event = FlightLegEvent;
    type Rejection = LegRejection;

    fn decide(leg: &Self, input: LegInput) -> Result<Vec<FlightLegEvent>, LegRejection> {
        let LegInput {
            message,
            references,
            said_at,
        } = input;
        let Some(plan) = &leg.plan else {
            return match message {
                LegMessage::Schedule(schedule) => Ok(vec![create(schedule, references)?.into()]),
                _ => Err(LegRejection::UnknownFlight),
            };
        };
        match message {
            LegMessage::Schedule(schedule) => check_same(plan, &schedule).map(|()| Vec::new()),
            LegMessage::StandAllocation(allocation) => {
                Ok(leg.allocate(plan, allocation, &references))
            }
            LegMessage::GateAssignment(assignment) => Ok(leg.assign_gate(assignment.gate)),
            LegMessage::DepartureTimes(times) => leg.depart(plan, &times.0, said_at),
            LegMessage::ArrivalTimes(times) => leg.arrive(plan, &times.0, said_at),
            LegMessage::StatusReport(report) => Ok(leg.report_status(report.status, said_at)),
            LegMessage::Cancellation(cancellation) => Ok(leg.cancel(cancellation.reason, said_at)),
        }
    }

    fn apply(leg: &mut Self, event: &FlightLegEvent) {
        match event {
            FlightLegEvent::FlightLegCreated(data) => {
                leg.gaps.clone_from(&data.gaps);
                leg.plan = Some(FlightLegCreated {
                    // Kept once, among the leg's own.
                    gaps: Vec::new(),
                    ..data.clone()
                });
            }
            FlightLegEvent::StandAllocated(data) => {
                leg.take_stand(
                    &data.stand,
                    &data.allocated_by,
                    data.allocated_at,
                    &data.gaps,
                );
            }
            FlightLegEvent::StandChanged(data) => {
                leg.take_stand(
                    &data.new_stand,
                    &data.changed_by,
                    data.changed_at,
                    &data.gaps,
                );
            }
            FlightLegEvent::GateAssigned(data) => leg.gate = Some(data.gate.clone()),
            FlightLegEvent::GateReassigned(data) => leg.gate = Some(data.new_gate.clone()),
            FlightLegEvent::StatusChanged(data) => {
                leg.status = data.new_status;
                leg.status_at = leg.status_at.max(data.changed_at);
                if data.new_status != Status::Cancelled {
                    leg.cancellation_reason = None;
                }
            }
            FlightLegEvent::FlightCancelled(data) => {
                leg.status = Status::Cancelled;
                leg.status_at = leg.status_at.max(data.cancelled_at);
                leg.cancellation_reason = Some(data.reason.clone());
            }
            FlightLegEvent::DepartureTimeChanged(data) => {
                leg.departure = Movement {
                    estimated: data.estimated_departure,
                    actual: data.actual_departure,
                    delay_minutes: data.delay_minutes,
                };
            }
            FlightLegEvent::ArrivalTimeChanged(data) => {
                leg.arrival = Movement {
                    estimated: data.estimated_arrival,
                    actual: data.actual_arrival,
                    delay_minutes: data.delay_minutes,
                };
            }
        }
    }
}

/// Plans the leg, and notes what reference data does not know.
fn create(schedule: Schedule, references: References) -> Result<FlightLegCreated, LegRejection> {
    if let Some(arrival) = schedule.scheduled_arrival
        && arrival <= schedule.scheduled_departure
    {
        return Err(LegRejection::InvalidTimes {
            problem: "`scheduledArrival` is not after `scheduledDeparture`",
        });
    }
    let mut gaps = Vec::new();
    let mut gap = |field, value: Option<&str>, code| gaps.push(Gap::new(field, value, code));
    if references.airline.is_none() {
        gap("airline", Some(&schedule.airline), GapCode::UnknownAirline);
    }
    let airports = [
        ("origin", &schedule.origin, &references.origin),
        (
            "destination",
            &schedule.destination,
            &references.destination,
        ),
    ];
    for (field, code, airport) in airports {
        match airport {
            None => gap(field, Some(code), GapCode::UnknownAirport),
            Some(airport) if airport.time_zone.is_none() => {
                gap(field, Some(code), GapCode::UnknownTimeZone);
            }
            Some(_) => {}
        }
    }
    if schedule.scheduled_arrival.is_none() {
        gap("scheduledArrival", None, GapCode::NoScheduledArrival);
    }
    match &schedule.aircraft {
        None => gap("aircraft", None, GapCode::NoAircraft),
        Some(tail) if references.aircraft.is_none() => {
            gap("aircraft", Some(tail), GapCode::UnknownAircraft);
        }
        Some(_) => {}
    }
    let model = references.aircraft;
    Ok(FlightLegCreated {
        flight_number: schedule.flight_number,
        airline: schedule.airline,
        origin: schedule.origin,
        destination: schedule.destination,
        scheduled_departure: schedule.scheduled_departure,
        scheduled_arrival: schedule.scheduled_arrival,
        aircraft: schedule.aircraft,
        airline_name: references.airline.map(|airline| airline.name),
        origin_name: references.origin.map(|airport| airport.name),
        destination_name: references.destination.map(|airport| airport.name),
        aircraft_model: model
            .map(|aircraft| format!("{} {}", aircraft.manufacturer, aircraft.model)),
        gaps,
    })
}

/// A schedule that is said again says the same.
fn check_same(plan: &FlightLegCreated, schedule: &Schedule) -> Result<(), LegRejection> {
    let field = if plan.scheduled_departure != schedule.scheduled_departure {
        "scheduledDeparture"
    } else if plan.scheduled_arrival != schedule.scheduled_arrival {
        "scheduledArrival"
    } else if plan.aircraft != schedule.aircraft {
        "aircraft"
    } else {
        return Ok(());
    };
    Err(LegRejection::ScheduleConflict { field })
}

/// Returns `before` with what `times` says; `None` when that changes nothing, as an estimate does that comes
/// after the actual time.
fn moved(
    before: &Movement,
    scheduled: Option<Instant>,
    times: &Times,
) -> Result<Option<Movement>, LegRejection> {
    let Times {
        estimated,
        actual,
        delay_minutes,
    } = *times;
    if estimated.is_none() && actual.is_none() && delay_minutes.is_none() {
        return Err(LegRejection::InvalidTimes {
            problem: "neither `estimated` nor `actual` nor `delayMinutes` is given",
        });
    }
    let estimated = match before.actual {
        Some(_) if estimated.is_some() && actual.is_none() => return Ok(None),
        Some(_) => before.estimated,
        None => estimated.or(before.estimated),
    };
    let actual = actual.or(before.actual);
    let best = actual.or(estimated);
    let computed = best.zip(scheduled).map(|(best, at)| best.minutes_since(at));
    if computed.is_some_and(|delay| !is_plausible_delay(delay)) {
        return Err(LegRejection::InvalidTimes {
            problem: "a time is more than 31 days from its schedule",
        });
    }
    let after = Movement {
        estimated,
        actual,
        delay_minutes: delay_minutes.or(computed).or(before.delay_minutes),
    };
    Ok((after != *before).then_some(after))
}

impl FlightLeg {
    /// Returns when the leg departs, as well as that is known.
    #[must_use]
    pub fn best_departure(&self) -> Option<Instant> {
        let plan = self.plan.as_ref();
        let planned = plan.map(|plan| plan.scheduled_departure);
        self.departure
            .actual
            .or(self.departure.estimated)
            .or(planned)
    }

    /// Returns whether the leg has left.
    #[must_use]
    pub const fn has_departed(&self) -> bool {
        self.departure.actual.is_some()
    }

    fn take_stand(&mut self, stand: &str, by: &str, at: Option<Instant>, gaps: &[Gap]) {
        self.gaps.retain(|gap| gap.code != GapCode::UnknownStand);
        self.gaps.extend_from_slice(gaps);
        self.stand = Some(Allocation {
            stand: stand.to_owned(),
            allocated_by: by.to_owned(),
            allocated_at: at,
        });
    }

    fn allocate(
        &self,
        plan: &FlightLegCreated,
        allocation: StandAllocation,
        references: &References,
    ) -> Vec<FlightLegEvent> {
        let StandAllocation {
            stand,
            allocated_by,
            allocated_at,
        } = allocation;
        let by = allocated_by.unwrap_or_else(|| "system".to_owned());
        let mut gaps = Vec::new();
        if references.stand.is_none() {
            let named = format!("{}@{stand}", plan.origin);
            gaps.push(Gap::new("stand", Some(&named), GapCode::UnknownStand));
        }
        match &self.stand {
            Some(before) if before.stand == stand => Vec::new(),
            Some(before) => vec![
                StandChanged {
                    previous_stand: before.stand.clone(),
                    new_stand: stand,
                    changed_by: by,
                    changed_at: allocated_at,
                    gaps,
                }
                .into(),
            ],
            None => vec![
                StandAllocated {
                    stand,
                    allocated_by: by,
                    allocated_at,
                    gaps,
                }
                .into(),
            ],
        }
    }

    fn assign_gate(&self, gate: String) -> Vec<FlightLegEvent> {
        match &self.gate {
            Some(before) if *before == gate => Vec::new(),
            Some(before) => vec![
                GateReassigned {
                    previous_gate: before.clone(),
                    new_gate: gate,
                }
                .into(),
            ],
            None => vec![GateAssigned { gate }.into()],
        }
    }

    fn depart(
        &self,
        plan: &FlightLegCreated,
        times: &Times,
        said_at: Option<Instant>,
    ) -> Result<Vec<FlightLegEvent>, LegRejection> {
        let scheduled = Some(plan.scheduled_departure);
        let Some(after) = moved(&self.departure, scheduled, times)? else {
            return Ok(Vec::new());
        };
        let is_late = after.delay_minutes.is_some_and(|late| late >= LATE_MINUTES);
        let status = match self.status {
            status if after.actual.is_some() && status.is_before_departure() => Status::Departed,
            Status::Scheduled if is_late => Status::Delayed,
            Status::Delayed if !is_late => Status::Scheduled,
            status => status,
        };
        let changed = DepartureTimeChanged {
            estimated_departure: after.estimated,
            actual_departure: after.actual,
            delay_minutes: after.delay_minutes,
        };
        let mut events = vec![changed.into()];
        events.extend(self.change_status(status, said_at));
        Ok(events)
    }

    fn arrive(
        &self,
        plan: &FlightLegCreated,
        times: &Times,
        said_at: Option<Instant>,
    ) -> Result<Vec<FlightLegEvent>, LegRejection> {
        if let (Some(arrived), Some(departed)) = (times.actual, self.departure.actual)
            && arrived < departed
        {
            return Err(LegRejection::InvalidTimes {
                problem: "the leg would arrive before it departed",
            });
        }
        let Some(after) = moved(&self.arrival, plan.scheduled_arrival, times)? else {
            return Ok(Vec::new());
        };
        let in_the_air = self.status == Status::Departed || self.status.is_before_departure();
        let changed = ArrivalTimeChanged {
            estimated_arrival: after.estimated,
            actual_arrival: after.actual,
            delay_minutes: after.delay_minutes,
        };
        let mut events = vec![changed.into()];
        if after.actual.is_some() && in_the_air {
            events.extend(self.change_status(Status::Landed, said_at));
        }
        Ok(events)
    }

    /// Takes a report of the status, unless it was made before the status last changed.
    fn report_status(&self, status: Status, said_at: Option<Instant>) -> Vec<FlightLegEvent> {
        let is_old = said_at
            .zip(self.status_at)
            .is_some_and(|(said, known)| said < known);
        if is_old {
            return Vec::new();
        }
        self.change_status(status, said_at).into_iter().collect()
    }

    fn change_status(&self, status: Status, said_at: Option<Instant>) -> Option<FlightLegEvent> {
        (status != self.status).then(|| {
            StatusChanged {
                old_status: self.status,
                new_status: status,
                changed_at: said_at,
            }
            .into()
        })
    }

    fn cancel(&self, reason: String, said_at: Option<Instant>) -> Vec<FlightLegEvent> {
        let is_so =
            self.status == Status::Cancelled && self.cancellation_reason.as_ref() == Some(&reason);
        if is_so {
            Vec::new()
        } else {
            let cancelled_at = said_at;
            vec![
                FlightCancelled {
                    reason,
                    cancelled_at,
                }
                .into(),
            ]
        }
    }
}
