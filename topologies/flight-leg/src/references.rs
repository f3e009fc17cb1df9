//! Reference data: what airports, airlines, aircraft and stands are called, and what is missing.
//!
//! Records of the compacted topics `aodb-reference-*`. Real reference data has gaps: what is not there
//! is marked on the leg and loses nothing.

use serde::{Deserialize, Serialize};

/// A value of `aodb-reference-airports`, keyed by the airport's code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Airport {
    /// What people call it.
    pub name: String,
    /// Its time zone in the IANA database; null where it is not known.
    #[serde(default)]
    pub time_zone: Option<String>,
}

/// A value of `aodb-reference-airlines`, keyed by the carrier's code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Airline {
    /// What people call it.
    pub name: String,
}

/// A value of `aodb-reference-aircraft`, keyed by the tail number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aircraft {
    /// Who built it.
    pub manufacturer: String,
    /// Its model.
    pub model: String,
    /// How many passengers it seats; null where it is not known.
    #[serde(default)]
    pub seats: Option<u32>,
}

/// A value of `aodb-reference-stands`, keyed by `<airport>@<stand>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stand {
    /// The terminal that it belongs to; null for remote stands.
    #[serde(default)]
    pub terminal: Option<String>,
}

/// What the reference tables say of a message's codes; `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Of the schedule's `airline`.
    pub airline: Option<Airline>,
    /// Of the schedule's `origin`.
    pub origin: Option<Airport>,
    /// Of the schedule's `destination`.
    pub destination: Option<Airport>,
    /// Of the schedule's `aircraft`.
    pub aircraft: Option<Aircraft>,
    /// Of the stand of an allocation.
    pub stand: Option<Stand>,
}

/// What is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GapCode {
    /// The table of airlines has no such code.
    UnknownAirline,
    /// The table of airports has no such code.
    UnknownAirport,
    /// The airport is known, its time zone is not.
    UnknownTimeZone,
    /// The table of aircraft has no such tail number.
    UnknownAircraft,
    /// The schedule names no aircraft.
    NoAircraft,
    /// The schedule has no time of arrival.
    NoScheduledArrival,
    /// The table of stands has no such stand at the airport.
    UnknownStand,
}

/// A gap in the data around a leg.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The field that it is about.
    pub field: String,
    /// The field's value; null when that is what is missing.
    pub value: Option<String>,
    /// What is missing.
    pub code: GapCode,
}

impl Gap {
    /// Describes a gap.
    #[must_use]
    pub fn new(field: &str, value: Option<&str>, code: GapCode) -> Self {
        Self {
            field: field.to_owned(),
            value: value.map(str::to_owned),
            code,
        }
    }
}
