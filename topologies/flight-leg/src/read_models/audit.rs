//! The audit log: every event of every leg, with who, when, why, before and after.

use millstream::event_sourcing::{AggregateRecord, Event, RecordedEvent};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::{Document, differences};
use crate::events::FlightLegEvent;
use crate::flight_leg::FlightLeg;
use crate::instant::Instant;

/// A value of `aodb-audit-flightleg`, keyed by `<leg>@<version, ten digits>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// The leg.
    pub flight_id: String,
    /// Its version after the event.
    pub version: u64,
    /// The event.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// When it occurred.
    pub timestamp: Instant,
    /// Who.
    pub actor_id: Option<String>,
    /// What kind of actor.
    pub actor_type: Option<String>,
    /// By what source.
    pub source: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The message that caused it.
    pub causation_id: Option<String>,
    /// The changed fields of the leg's document, as they were.
    pub before: Map<String, Value>,
    /// As they are from then on.
    pub after: Map<String, Value>,
}

/// Returns the key of an entry. Versions have a fixed width, so that a leg's entries are in order.
#[must_use]
pub fn audit_key(flight_id: &str, version: u64) -> String {
    format!("{flight_id}@{version:010}")
}

/// An event of a leg with the state around it.
pub(crate) type LegRecorded = RecordedEvent<FlightLegEvent, FlightLeg>;

impl AuditEntry {
    /// Returns the entry of an event.
    ///
    /// # Errors
    /// A time off the calendar.
    pub fn of(flight_id: &str, event: &LegRecorded) -> Result<Self, BoxError> {
        let record = event.record();
        let before = event.before.clone().and_then(|state| {
            let before = AggregateRecord {
                state,
                ..record.clone()
            };
            Document::of(flight_id, &before)
        });
        let (before, after) =
            differences(before.as_ref(), Document::of(flight_id, &record).as_ref())?;
        let text = |field: &str| {
            let said = event.metadata.as_ref()?.get(field)?;
            said.as_str().map(str::to_owned)
        };
        Ok(Self {
            flight_id: flight_id.to_owned(),
            version: event.version,
            event_id: event.event_id.clone(),
            event_type: event.event.event_type().to_owned(),
            timestamp: Instant::from_millis(event.timestamp).ok_or("a time off the calendar")?,
            actor_id: text("actorId"),
            actor_type: text("actorType"),
            source: text("source"),
            reason: text("reason"),
            causation_id: event.causation_id.clone(),
            before,
            after,
        })
    }
}

/// A text key of which only the part before the last `@`, the leg's id, decides the partition: entries
/// lie where their leg is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AuditKeySerde;

impl Serde<String> for AuditKeySerde {
    fn serialize(&self, key: &String, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(key.as_bytes());
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<String, BoxError> {
        serdes::string().deserialize(bytes)
    }

    fn base_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        before_at(key)
    }
}

impl TextCodec for AuditKeySerde {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        Ok(text.as_bytes().to_vec())
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        Ok(std::str::from_utf8(bytes)?.into())
    }

    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        before_at(key)
    }
}

fn before_at(key: &[u8]) -> &[u8] {
    let mut parts = key.rsplitn(2, |byte| *byte == b'@');
    let last = parts.next();
    parts.next().or(last).unwrap_or(key)
}
