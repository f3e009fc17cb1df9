//! The dashboard: what the boards of an airport show, a row per leg and airport.

use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::events::Status;
use crate::flight_id::FlightId;
use crate::instant::Instant;

/// Which board a row is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Board {
    /// At the airport of departure.
    Departures,
    /// At the airport of arrival.
    Arrivals,
}

impl Board {
    /// Returns the board's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Departures => "departures",
            Self::Arrivals => "arrivals",
        }
    }
}

/// A value of `aodb-dashboard`, keyed by `<airport>@<board>@<leg>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DashboardRow {
    /// The airport whose board it is.
    pub airport: String,
    /// Which board.
    pub board: Board,
    /// The leg.
    pub flight_id: String,
    /// Carrier and number.
    pub flight_number: String,
    /// The carrier's name, or its code where that is not known.
    pub airline: String,
    /// The airport at the other end.
    pub other_airport: String,
    /// Its name, or its code where that is not known.
    pub other_airport_name: String,
    /// When it is planned; null where that is not known.
    pub scheduled: Option<Instant>,
    /// When it is expected, or was; null where that is not known.
    pub expected: Option<Instant>,
    /// How late, in minutes; early is negative.
    pub delay_minutes: Option<i64>,
    /// Where the leg is in its life.
    pub status: Status,
    /// The gate; on departures only.
    pub gate: Option<String>,
    /// The stand; on departures only.
    pub stand: Option<String>,
    /// The time of the leg's last event.
    pub updated_at: Instant,
}

impl DashboardRow {
    /// Returns the key of a leg's record, by the name of the board; `None` for names of other things.
    #[must_use]
    pub fn key_of(flight_id: &str, board: &str) -> Option<String> {
        let id = FlightId::parse(flight_id)?;
        let boards = [
            (Board::Departures, id.origin),
            (Board::Arrivals, id.destination),
        ];
        let (_, airport) = boards.into_iter().find(|(of, _)| of.as_str() == board)?;
        Some(format!("{airport}@{board}@{flight_id}"))
    }

    /// Returns the rows of a leg: one at each end.
    #[must_use]
    pub fn of(document: &Document) -> [Self; 2] {
        let airline = document.airline_name.as_ref().unwrap_or(&document.airline);
        let departure = Self {
            airport: document.origin.clone(),
            board: Board::Departures,
            flight_id: document.flight_id.clone(),
            flight_number: document.flight_number.clone(),
            airline: airline.clone(),
            other_airport: document.destination.clone(),
            other_airport_name: document
                .destination_name
                .as_ref()
                .unwrap_or(&document.destination)
                .clone(),
            scheduled: Some(document.scheduled_departure),
            expected: document.actual_departure.or(document.estimated_departure),
            delay_minutes: document.departure_delay_minutes,
            status: document.status,
            gate: document.gate.clone(),
            stand: document.stand.clone(),
            updated_at: document.updated_at,
        };
        let arrival = Self {
            airport: document.destination.clone(),
            board: Board::Arrivals,
            other_airport: document.origin.clone(),
            other_airport_name: document
                .origin_name
                .as_ref()
                .unwrap_or(&document.origin)
                .clone(),
            scheduled: document.scheduled_arrival,
            expected: document.actual_arrival.or(document.estimated_arrival),
            delay_minutes: document.arrival_delay_minutes,
            gate: None,
            stand: None,
            ..departure.clone()
        };
        [departure, arrival]
    }
}
