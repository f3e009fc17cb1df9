//! The QueryStream document: a leg as it is now, flat, with the names of its codes.
//!
//! It is a function of the leg alone, so that it can be rebuilt, and what differs between two of them
//! is what `FlightLegUpdated` calls `changes`.

use millstream::event_sourcing::AggregateRecord;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::events::{FlightLegCreated, Status};
use crate::flight_leg::{Allocation, FlightLeg};
use crate::instant::Instant;
use crate::references::Gap;

/// A value of `aodb-query-flightleg`, keyed by the leg's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// The leg.
    pub flight_id: String,
    /// Carrier and number.
    pub flight_number: String,
    /// The carrier's code.
    pub airline: String,
    /// The carrier's name.
    pub airline_name: Option<String>,
    /// The airport of departure.
    pub origin: String,
    /// Its name.
    pub origin_name: Option<String>,
    /// The airport of arrival.
    pub destination: String,
    /// Its name.
    pub destination_name: Option<String>,
    /// The tail number.
    pub aircraft: Option<String>,
    /// Manufacturer and model.
    pub aircraft_model: Option<String>,
    /// Where the leg is in its life.
    pub status: Status,
    /// Its stand at the airport of departure.
    pub stand: Option<String>,
    /// Who allocated it.
    pub stand_allocated_by: Option<String>,
    /// When.
    pub stand_allocated_at: Option<Instant>,
    /// Its gate.
    pub gate: Option<String>,
    /// When it is to depart.
    pub scheduled_departure: Instant,
    /// When it is expected to.
    pub estimated_departure: Option<Instant>,
    /// When it did.
    pub actual_departure: Option<Instant>,
    /// How late, in minutes; early is negative.
    pub departure_delay_minutes: Option<i64>,
    /// When it is to arrive.
    pub scheduled_arrival: Option<Instant>,
    /// When it is expected to.
    pub estimated_arrival: Option<Instant>,
    /// When it did.
    pub actual_arrival: Option<Instant>,
    /// How late, in minutes; early is negative.
    pub arrival_delay_minutes: Option<i64>,
    /// Why it does not take place.
    pub cancellation_reason: Option<String>,
    /// What reference data did not know.
    pub gaps: Vec<Gap>,
    /// The version of the leg's last event.
    pub version: u64,
    /// The time of the leg's last event.
    pub updated_at: Instant,
}

/// What says which document it is, not what the leg is.
const NOT_CHANGES: [&str; 3] = ["flightId", "version", "updatedAt"];

impl Document {
    /// Returns the document of a leg; `None` for one without a schedule, which has no events.
    #[must_use]
    pub fn of(flight_id: &str, record: &AggregateRecord<FlightLeg>) -> Option<Self> {
        let leg = record.state.clone();
        let FlightLegCreated {
            flight_number,
            airline,
            origin,
            destination,
            scheduled_departure,
            scheduled_arrival,
            aircraft,
            airline_name,
            origin_name,
            destination_name,
            aircraft_model,
            gaps: _,
        } = leg.plan?;
        let (stand, stand_allocated_by, stand_allocated_at) = match leg.stand {
            Some(Allocation {
                stand,
                allocated_by,
                allocated_at,
            }) => (Some(stand), Some(allocated_by), allocated_at),
            None => (None, None, None),
        };
        Some(Self {
            flight_id: flight_id.to_owned(),
            flight_number,
            airline,
            airline_name,
            origin,
            origin_name,
            destination,
            destination_name,
            aircraft,
            aircraft_model,
            status: leg.status,
            stand,
            stand_allocated_by,
            stand_allocated_at,
            gate: leg.gate,
            scheduled_departure,
            estimated_departure: leg.departure.estimated,
            actual_departure: leg.departure.actual,
            departure_delay_minutes: leg.departure.delay_minutes,
            scheduled_arrival,
            estimated_arrival: leg.arrival.estimated,
            actual_arrival: leg.arrival.actual,
            arrival_delay_minutes: leg.arrival.delay_minutes,
            cancellation_reason: leg.cancellation_reason,
            gaps: leg.gaps,
            version: record.version,
            updated_at: Instant::from_millis(record.updated_at)?,
        })
    }

    /// Returns when the leg departs, as well as that is known.
    #[must_use]
    pub fn best_departure(&self) -> Instant {
        let moved = self.actual_departure.or(self.estimated_departure);
        moved.unwrap_or(self.scheduled_departure)
    }
}

/// Fields by name.
type Fields = Map<String, Value>;

fn fields(document: Option<&Document>) -> Result<Fields, serde_json::Error> {
    match document.map(serde_json::to_value).transpose()? {
        Some(Value::Object(fields)) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

/// Returns the fields that differ, with what they were and what they are: null stands for nothing.
///
/// # Errors
/// When a document has no JSON form.
pub fn differences(
    before: Option<&Document>,
    after: Option<&Document>,
) -> Result<(Fields, Fields), serde_json::Error> {
    let (before, after) = (fields(before)?, fields(after)?);
    let (mut old, mut new) = (Map::new(), Map::new());
    for (field, value) in after {
        if NOT_CHANGES.contains(&field.as_str()) {
            continue;
        }
        let was = before.get(&field).cloned().unwrap_or(Value::Null);
        let nothing = was.is_null() && value.as_array().is_some_and(Vec::is_empty);
        if was != value && !nothing {
            old.insert(field.clone(), was);
            new.insert(field, value);
        }
    }
    Ok((old, new))
}
