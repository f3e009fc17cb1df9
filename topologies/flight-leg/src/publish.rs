//! Publishes what happened to a leg on `aodb-output-flightleg`: specific events, the combined
//! `FlightLegUpdated`, or both.
//!
//! # Invariants
//! - One `FlightLegUpdated` per message that changed something, in the same transaction as its events.
//! - `sequence` is gapless per leg, from 1. It counts what was published, not the leg's versions, and is
//!   kept in a record store: a reset publishes nothing again and goes on counting.
//! - What comes back from history has been published.

use millstream::event_sourcing::{Envelope, Metadata, Step, event_id};
use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::{Document, differences};
use crate::flight_leg::FlightLeg;
use crate::instant::Instant;

/// Which events are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// One event per kind of change, in the envelope of all events.
    Specific,
    /// `FlightLegUpdated`, in the shape of its own that older consumers know.
    Combined,
    /// Both, the specific ones first.
    #[default]
    Both,
}

impl Output {
    const fn has_specific(self) -> bool {
        matches!(self, Self::Specific | Self::Both)
    }

    const fn has_combined(self) -> bool {
        matches!(self, Self::Combined | Self::Both)
    }
}

/// The name of the combined event.
pub const FLIGHT_LEG_UPDATED: &str = "FlightLegUpdated";

/// The combined event: everything that one message changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlightLegUpdated {
    /// `evt-` + UUIDv7.
    pub event_id: String,
    /// The leg; also the record's key.
    pub flight_id: String,
    /// Always [`FLIGHT_LEG_UPDATED`].
    pub event_type: String,
    /// When it occurred; also the record's timestamp.
    pub timestamp: Instant,
    /// Counts the leg's combined events, without gaps, from 1.
    pub sequence: u64,
    /// The fields of the leg's [`Document`] that changed, with their new values; null stands for
    /// nothing.
    pub changes: Map<String, Value>,
    /// Who changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// Turns steps into records of `aodb-output-flightleg`.
pub(crate) struct Publish {
    pub(crate) output: Output,
    /// The last sequence per leg.
    pub(crate) sequences: StoreRef<String, u64>,
}

impl Processor<String, Step<FlightLeg>, String, Vec<u8>> for Publish {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, Vec<u8>>,
        record: Record<String, Step<FlightLeg>>,
    ) -> Result<(), BoxError> {
        let Record {
            key: flight_id,
            value: step,
            ..
        } = record;
        if step.replayed {
            return Ok(());
        }
        let combined = self
            .output
            .has_combined()
            .then(|| self.combine(&flight_id, &step))
            .transpose()?
            .flatten();
        if self.output.has_specific() {
            for event in step.events {
                context.forward(Record {
                    key: flight_id.clone(),
                    value: event.value,
                    timestamp: event.timestamp,
                    headers: event.headers,
                })?;
            }
        }
        if let Some(record) = combined {
            context.forward(record)?;
        }
        Ok(())
    }
}

impl Publish {
    /// Makes the combined event of a step; `None` for one that changes nothing in the document.
    fn combine(
        &self,
        flight_id: &String,
        step: &Step<FlightLeg>,
    ) -> Result<Option<Record<String, Vec<u8>>>, BoxError> {
        let Some(last) = step.events.last() else {
            return Ok(None);
        };
        let before = step.before.as_ref();
        let before = before.and_then(|record| Document::of(flight_id, record));
        let after = Document::of(flight_id, &step.after);
        let (_, changes) = differences(before.as_ref(), after.as_ref())?;
        if changes.is_empty() {
            return Ok(None);
        }
        let envelope = Envelope::parse(&last.value)?;
        let metadata = envelope.metadata.map(|raw| serde_json::from_str(raw.get()));
        let metadata: Metadata = metadata.transpose()?.unwrap_or_default();
        let sequence = self
            .sequences
            .get(flight_id)?
            .unwrap_or(0)
            .saturating_add(1);
        self.sequences.put(flight_id.clone(), sequence)?;
        let timestamp = Instant::from_millis(last.timestamp).ok_or("a time off the calendar")?;
        let cause = format!("{FLIGHT_LEG_UPDATED} of {}", envelope.event_id);
        let updated = FlightLegUpdated {
            event_id: event_id(last.timestamp, flight_id, sequence, &cause),
            flight_id: flight_id.clone(),
            event_type: FLIGHT_LEG_UPDATED.to_owned(),
            timestamp,
            sequence,
            changes,
            user_id: metadata
                .get("actorId")
                .and_then(Value::as_str)
                .map(str::to_owned),
        };
        let headers = Headers::new()
            .with("eventType", FLIGHT_LEG_UPDATED)
            .with("timestamp", timestamp.to_string())
            .with("correlationId", envelope.correlation_id.as_ref())
            .with("sequence", sequence.to_string());
        Ok(Some(Record {
            key: flight_id.clone(),
            value: serde_json::to_vec(&updated)?,
            timestamp: last.timestamp,
            headers,
        }))
    }
}
