//! The audit log: every event of every leg, with who, when, why, before and after.

use millstream::event_sourcing::{Aggregate, Envelope, Event, Metadata, Step};
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

/// Returns the entries of a step, in order.
///
/// # Errors
/// An event that this build cannot read.
pub fn entries(flight_id: &str, step: &Step<FlightLeg>) -> Result<Vec<AuditEntry>, BoxError> {
    let mut record = step.before.clone();
    let mut entries = Vec::with_capacity(step.events.len());
    for event in &step.events {
        let envelope = Envelope::parse(&event.value)?;
        let read =
            FlightLegEvent::read(&envelope.event_type, envelope.schema_version, envelope.data)?;
        let before = record
            .as_ref()
            .and_then(|record| Document::of(flight_id, record));
        let mut after = record.take().unwrap_or_else(|| {
            let mut unseen = step.after.clone();
            unseen.state = FlightLeg::default();
            unseen
        });
        FlightLeg::apply(&mut after.state, &read);
        after.version = event.version;
        after.updated_at = event.timestamp;
        let shown = Document::of(flight_id, &after);
        record = Some(after);
        let (old, new) = differences(before.as_ref(), shown.as_ref())?;
        entries.push(entry(flight_id, &envelope, old, new)?);
    }
    Ok(entries)
}

fn entry(
    flight_id: &str,
    envelope: &Envelope<'_>,
    before: Map<String, Value>,
    after: Map<String, Value>,
) -> Result<AuditEntry, BoxError> {
    let metadata = envelope.metadata.map(|raw| serde_json::from_str(raw.get()));
    let metadata: Metadata = metadata.transpose()?.unwrap_or_default();
    let text = |field: &str| {
        metadata
            .get(field)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    Ok(AuditEntry {
        flight_id: flight_id.to_owned(),
        version: envelope.aggregate_version,
        event_id: envelope.event_id.to_string(),
        event_type: envelope.event_type.to_string(),
        timestamp: Instant::from_millis(envelope.timestamp).ok_or("a time off the calendar")?,
        actor_id: text("actorId"),
        actor_type: text("actorType"),
        source: text("source"),
        reason: text("reason"),
        causation_id: envelope.causation_id.as_deref().map(str::to_owned),
        before,
        after,
    })
}

/// Keeps the entries where their leg is, and hands them on.
pub(crate) struct KeepAudit {
    pub(crate) entries: StoreRef<String, AuditEntry>,
}

impl Processor<String, Step<FlightLeg>, String, AuditEntry> for KeepAudit {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, AuditEntry>,
        record: Record<String, Step<FlightLeg>>,
    ) -> Result<(), BoxError> {
        for entry in entries(&record.key, &record.value)? {
            let key = audit_key(&entry.flight_id, entry.version);
            self.entries.put(key.clone(), entry.clone())?;
            let timestamp = entry.timestamp.millis();
            context.forward(Record::new(key, entry, timestamp))?;
        }
        Ok(())
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
