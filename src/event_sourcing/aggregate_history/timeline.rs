//! How a state came about: the timeline of an aggregate, and the difference between two points.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::changes::{Change, changes};
use super::reader::{PageLimit, next_version};
use super::{AggregateHistory, HistoryReadError, Page, Point};
use crate::clock::Timestamp;
use crate::event_sourcing::aggregate::Aggregate;
use crate::event_sourcing::decision::AggregateRecord;
use crate::event_sourcing::envelope::Attribution;
use crate::event_sourcing::time::{format_timestamp, write_timestamp};
use crate::query::QueryRegistry;

/// An event as people want to know it: when, what, who, why, and what it changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TimelineEntry {
    /// The aggregate's version after it.
    pub version: u64,
    /// The event's timestamp.
    #[serde(serialize_with = "write_timestamp")]
    pub timestamp: Timestamp,
    /// `eventType`.
    pub event_type: String,
    /// `eventId`.
    pub event_id: String,
    /// `metadata.actorId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// `metadata.actorType`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_type: Option<String>,
    /// `metadata.source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `metadata.reason`, or the text `reason` of the event's own data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `correlationId`.
    pub correlation_id: String,
    /// `causationId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// Whether it is the aggregate's [tombstone](Aggregate::is_tombstone).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tombstoned: bool,
    /// What it changed in the state; a tombstone changes all of it to nothing.
    pub changes: Vec<Change>,
}

/// One end of a [`Difference`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DifferencePoint {
    /// The aggregate's version there; 0 before its first event.
    pub version: u64,
    /// The aggregate's time there; absent before its first event.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_optional"
    )]
    pub timestamp: Option<Timestamp>,
    /// Whether the aggregate is tombstoned there: it has no state.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tombstoned: bool,
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn write_optional<S: serde::Serializer>(
    millis: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match millis {
        Some(millis) => write_timestamp(millis, serializer),
        None => serializer.serialize_none(),
    }
}

/// What has changed between two points.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// The first point.
    pub from: DifferencePoint,
    /// The second; it may be the earlier one.
    pub to: DifferencePoint,
    /// What is different at the second.
    pub changes: Vec<Change>,
}

fn own_reason(data: &RawValue) -> Option<String> {
    let mut data: serde_json::Map<String, Value> = serde_json::from_str(data.get()).ok()?;
    match data.remove("reason") {
        Some(Value::String(reason)) => Some(reason),
        Some(_) | None => None,
    }
}

impl<A: Aggregate> AggregateHistory<A> {
    /// Returns up to `limit` entries of an aggregate's timeline from `from_version` on; `None` when it
    /// has no event at all.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn timeline(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        from_version: u64,
        limit: usize,
    ) -> Result<Option<Page<TimelineEntry>>, HistoryReadError> {
        let mut reader = self.reader(queries, aggregate_id)?;
        let Some(known) = reader.known()? else {
            return Ok(None);
        };
        let from_version = from_version.max(known.first_version);
        let mut record = match from_version.checked_sub(1) {
            Some(before) if known.covers(before) => reader.state_at(Point::Version(before))?,
            Some(_) | None => None,
        };
        let mut shown: Option<Value> = None;
        let mut page = PageLimit::new(limit);
        let mut items: Vec<TimelineEntry> = Vec::new();
        reader.each(from_version, u64::MAX, |key, entry, read| {
            if !page.takes(entry.event.len()) {
                return Ok(false);
            }
            let mut next = read.before(record.take())?;
            let before = match shown.take() {
                Some(before) => before,
                None => state_of(&next)?,
            };
            read.apply(&mut next);
            let after = state_of(&next)?;
            let Attribution {
                actor,
                actor_type,
                source,
                reason,
            } = read.envelope.attribution();
            let envelope = &read.envelope;
            items.push(TimelineEntry {
                version: key.version,
                timestamp: envelope.timestamp,
                event_type: envelope.event_type.as_ref().into(),
                event_id: envelope.event_id.as_ref().into(),
                actor,
                actor_type,
                source,
                reason: reason.or_else(|| own_reason(envelope.data)),
                correlation_id: envelope.correlation_id.as_ref().into(),
                causation_id: envelope.causation_id.as_deref().map(Into::into),
                tombstoned: next.tombstoned,
                changes: changes(&before, &after),
            });
            (record, shown) = (Some(next), Some(after));
            Ok(true)
        })?;
        let next_version = next_version(items.last().map(|entry| entry.version), known);
        Ok(Some(Page {
            items,
            next_version,
        }))
    }

    /// Returns what is different at `to` from what was at `from`; `None` when the aggregate has no
    /// event at all, or no such version. Before its first event it is in its default state, at
    /// version 0.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn diff(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        from: Point,
        to: Point,
    ) -> Result<Option<Difference>, HistoryReadError> {
        let mut reader = self.reader(queries, aggregate_id)?;
        let Some(known) = reader.known()? else {
            return Ok(None);
        };
        let exists = |point| match point {
            Point::Version(version) => version == 0 || known.covers(version),
            Point::Time(_) => true,
        };
        if !exists(from) || !exists(to) {
            return Ok(None);
        }
        let (before, from) = at::<A>(reader.state_at(from)?)?;
        let (after, to) = at::<A>(reader.state_at(to)?)?;
        Ok(Some(Difference {
            from,
            to,
            changes: changes(&before, &after),
        }))
    }
}

fn at<A: Aggregate>(
    record: Option<AggregateRecord<A::State>>,
) -> Result<(Value, DifferencePoint), HistoryReadError> {
    let point = DifferencePoint {
        version: record.as_ref().map_or(0, |record| record.version),
        timestamp: record.as_ref().map(|record| record.updated_at),
        tombstoned: record.as_ref().is_some_and(|record| record.tombstoned),
    };
    let state = match &record {
        Some(record) => state_of(record)?,
        None => serde_json::to_value(A::State::default())?,
    };
    Ok((state, point))
}

/// Returns the state as JSON: null where there is none any more.
fn state_of<S: Serialize>(record: &AggregateRecord<S>) -> Result<Value, serde_json::Error> {
    if record.tombstoned {
        return Ok(Value::Null);
    }
    serde_json::to_value(&record.state)
}

/// As people read it: `2025-07-04T10:05:00.000Z  v2  StandAllocated  by ops-7: stand null → "A12"`.
impl std::fmt::Display for TimelineEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = format_timestamp(self.timestamp).unwrap_or_default();
        write!(f, "{time}  v{}  {}", self.version, self.event_type)?;
        if let Some(actor) = &self.actor {
            write!(f, "  by {actor}")?;
        }
        if self.tombstoned {
            // What it took away is what the lines before have told.
            return f.write_str(": tombstoned");
        }
        for (index, change) in self.changes.iter().enumerate() {
            let mark = if index == 0 { ": " } else { ", " };
            write!(
                f,
                "{mark}{} {} → {}",
                change.field, change.before, change.after
            )?;
        }
        Ok(())
    }
}
