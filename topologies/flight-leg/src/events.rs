//! The events of a flight leg, in every schema version.
//!
//! Who, why and by what source is in the envelope's `metadata`, when in its `timestamp`.

use std::fmt;

use millstream::event_sourcing::Versioned;
use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::references::Gap;

millstream::events! {
    /// What happens to a flight leg.
    pub enum FlightLegEvent {
        /// It was planned.
        FlightLegCreated(FlightLegCreated),
        /// It got its first stand.
        StandAllocated(StandAllocated),
        /// It got another stand.
        StandChanged(StandChanged),
        /// It got its first gate.
        GateAssigned(GateAssigned),
        /// It got another gate.
        GateReassigned(GateReassigned),
        /// Its status changed.
        StatusChanged(StatusChanged),
        /// It does not take place.
        FlightCancelled(FlightCancelled),
        /// Estimated or actual departure, or the delay, changed.
        DepartureTimeChanged(DepartureTimeChanged),
        /// Estimated or actual arrival, or the delay, changed.
        ArrivalTimeChanged(ArrivalTimeChanged),
    }
}
millstream::first_version!(
    FlightLegCreated,
    StandAllocatedV1,
    StandChanged,
    GateAssigned,
    GateReassigned,
    StatusChanged,
    FlightCancelled,
    DepartureTimeChanged,
    ArrivalTimeChanged,
);

/// Where a leg is in its life.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Status {
    /// Planned.
    #[default]
    Scheduled,
    /// Passengers board.
    Boarding,
    /// Airborne.
    Departed,
    /// Expected to depart late.
    Delayed,
    /// On the ground.
    Landed,
    /// At its stand.
    Arrived,
    /// Does not take place.
    Cancelled,
}

impl Status {
    /// Returns the name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Boarding => "Boarding",
            Self::Departed => "Departed",
            Self::Delayed => "Delayed",
            Self::Landed => "Landed",
            Self::Arrived => "Arrived",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Returns whether the leg is still at its stand and may depart.
    #[must_use]
    pub const fn is_before_departure(self) -> bool {
        matches!(self, Self::Scheduled | Self::Boarding | Self::Delayed)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `data` of `FlightLegCreated` version 1. The names are those of the reference tables at the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlightLegCreated {
    /// Carrier and number.
    pub flight_number: String,
    /// The carrier's code.
    pub airline: String,
    /// The airport of departure.
    pub origin: String,
    /// The airport of arrival.
    pub destination: String,
    /// When it is to depart.
    pub scheduled_departure: Instant,
    /// When it is to arrive; null where that is not known.
    pub scheduled_arrival: Option<Instant>,
    /// The tail number; null where none is planned.
    pub aircraft: Option<String>,
    /// The carrier's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub airline_name: Option<String>,
    /// The name of the airport of departure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_name: Option<String>,
    /// The name of the airport of arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_name: Option<String>,
    /// The aircraft's manufacturer and model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aircraft_model: Option<String>,
    /// What the reference tables did not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// `data` of `StandAllocated` version 1: before it said by whom and when. Never written, read for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandAllocatedV1 {
    stand: String,
}

/// `data` of `StandAllocated` version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandAllocated {
    /// The stand.
    pub stand: String,
    /// Who allocated it.
    pub allocated_by: String,
    /// When; null in what was version 1.
    pub allocated_at: Option<Instant>,
    /// The stand is not in the reference table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

impl Versioned for StandAllocated {
    type Previous = StandAllocatedV1;

    /// Version 1 was written by the allocation system alone, and did not say when.
    fn upcast(v1: StandAllocatedV1) -> Self {
        Self {
            stand: v1.stand,
            allocated_by: "system".to_owned(),
            allocated_at: None,
            gaps: Vec::new(),
        }
    }
}

/// `data` of `StandChanged` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandChanged {
    /// The stand before.
    pub previous_stand: String,
    /// The stand from now on.
    pub new_stand: String,
    /// Who changed it.
    pub changed_by: String,
    /// When.
    pub changed_at: Option<Instant>,
    /// The stand is not in the reference table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// `data` of `GateAssigned` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateAssigned {
    /// The gate.
    pub gate: String,
}

/// `data` of `GateReassigned` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateReassigned {
    /// The gate before.
    pub previous_gate: String,
    /// The gate from now on.
    pub new_gate: String,
}

/// `data` of `StatusChanged` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusChanged {
    /// The status before.
    pub old_status: Status,
    /// The status from now on.
    pub new_status: Status,
    /// The time of the message that says so; absent where an older build wrote the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Instant>,
}

/// `data` of `FlightCancelled` version 1: the status becomes Cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlightCancelled {
    /// Why.
    pub reason: String,
    /// The time of the message that says so; absent where an older build wrote the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Instant>,
}

/// `data` of `DepartureTimeChanged` version 1: all of them as they are from now on, null where there is
/// none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DepartureTimeChanged {
    /// When it is expected to depart.
    pub estimated_departure: Option<Instant>,
    /// When it departed.
    pub actual_departure: Option<Instant>,
    /// How late, in minutes; early is negative.
    pub delay_minutes: Option<i64>,
}

/// `data` of `ArrivalTimeChanged` version 1: all of them as they are from now on, null where there is
/// none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArrivalTimeChanged {
    /// When it is expected to arrive.
    pub estimated_arrival: Option<Instant>,
    /// When it arrived.
    pub actual_arrival: Option<Instant>,
    /// How late, in minutes; early is negative.
    pub delay_minutes: Option<i64>,
}
