//! The packaged topology `flight-leg`: the flight legs of an airport operational database,
//! event-sourced.
//!
//! # Position
//! A binary registers [`FlightLegTopology`]. Here are the adapter's [messages](LegMessage), the rules of a
//! leg, pure: [`FlightLeg`] and its [events](FlightLegEvent), the read models, the drawing, and the
//! [feed](Flights) that turns a month of real departures into messages. Everything around them (envelopes,
//! history, versions, rebuild) is [`millstream::event_sourcing`].
//! # Invariants
//! - A message that changes nothing brings about no event.
//! - What reference data does not know loses no flight: the gap is marked on the leg.

mod document;
mod events;
mod feed;
mod flight_id;
mod flight_leg;
mod input;
mod instant;
mod messages;
mod projections;
mod publish;
mod read_models;
mod references;
mod rejection;
mod topology;

pub use document::{Document, differences};
pub use events::{
    ArrivalTimeChanged, DepartureTimeChanged, FlightCancelled, FlightLegCreated, FlightLegEvent,
    GateAssigned, GateReassigned, StandAllocated, StandAllocatedV1, StandChanged, Status,
    StatusChanged,
};
pub use feed::Flights;
pub use flight_id::FlightId;
pub use flight_leg::{Allocation, FlightLeg, LATE_MINUTES, Movement};
pub use instant::Instant;
pub use messages::{
    AdapterMessage, ArrivalTimes, Cancellation, DELAY_MINUTES_MAX, DepartureTimes, GateAssignment,
    LegInput, LegMessage, MessageError, Schedule, StandAllocation, StatusReport, Times,
};
pub use projections::{POSTGRES, tables};
pub use publish::{FLIGHT_LEG_UPDATED, FlightLegUpdated, Output};
pub use read_models::analytics::{CarrierFigures, Contribution, StatusCount, Totals, carrier_hour};
pub use read_models::audit::{AuditEntry, audit_key};
pub use read_models::dashboard::{Board, DashboardRow};
pub use read_models::stands::{Cause, Conflict, Occupation, Placement, StandOccupancy, StandView};
pub use references::{Aircraft, Airline, Airport, Gap, GapCode, References, Stand};
pub use rejection::{LegRejection, codes};
pub use topology::{
    AIRCRAFT, AIRLINES, AIRPORTS, ARCHIVE, AUDIT, CARRIER_HOURS, CARRIERS, DASHBOARD, DEAD_LETTERS,
    DOCUMENTS, FlightLegParameters, FlightLegTopology, INPUT, OUTPUT, STAND_OCCUPANCY, STANDS,
    STATUS_COUNTS,
};

/// Returns the packaged topology, for a binary to register.
#[must_use]
pub const fn topology() -> FlightLegTopology {
    FlightLegTopology
}
