//! The envelope around every event: one JSON object per record.
//!
//! # Invariants
//! - Reading borrows: strings without escapes and the event's own `data` stay in the record's bytes.
//! - Written fields have the names and the order of the contract; `schemaVersion` 1 is not written.
//! - Unknown fields are accepted on reading (fields are only ever added); a missing, empty or
//!   mistyped one is an error that names it.
//!
//! ```text
//! key      aggregateId (UTF-8)        timestamp  the envelope's `timestamp`
//! headers  eventType, aggregateVersion (decimal), correlationId, timestamp (RFC 3339)
//! value    {"eventId","eventType","aggregateId","aggregateType","aggregateVersion","timestamp",
//!           "correlationId","causationId"?,"metadata"?,"data","schemaVersion"?}
//! ```

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::{self, JsonProblem};
use super::reason::{ReasonCode, reasons};
use super::time::{TimeError, format_timestamp, parse_timestamp, write_timestamp};
use crate::clock::Timestamp;
use crate::log::Headers;

/// The small `metadata` object of an envelope: `actorId`, `actorType`, `source`, `reason`, …
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// An event as it is on the wire; borrows from the bytes it was read from.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    /// Unique; ours are `evt-` + UUIDv7, any non-empty text is accepted.
    pub event_id: Cow<'a, str>,
    /// The past-tense name, such as `BalanceChanged`.
    pub event_type: Cow<'a, str>,
    /// The aggregate; also the record's key. Never contains U+0000.
    pub aggregate_id: Cow<'a, str>,
    /// The aggregate's type, such as `Account`.
    pub aggregate_type: Cow<'a, str>,
    /// The aggregate's version **after** this event, from 1.
    pub aggregate_version: u64,
    /// When it occurred; also the record's timestamp.
    #[serde(serialize_with = "write_timestamp")]
    pub timestamp: Timestamp,
    /// Follows one request through all events.
    pub correlation_id: Cow<'a, str>,
    /// The command or event that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Cow<'a, str>>,
    /// Who, why and by what source; an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<&'a RawValue>,
    /// The event's own fields; an object. [`Event::read`](super::Event::read) reads it.
    pub data: &'a RawValue,
    /// The version of `data` for this event type; absent on the wire means 1.
    #[serde(skip_serializing_if = "is_first")]
    pub schema_version: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_first(schema_version: &u32) -> bool {
    *schema_version == 1
}

/// Why a record is not an event. The `Display` text goes into the dead letter's headers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not JSON at all.
    #[error("the value is not JSON: {0}")]
    NotJson(String),
    /// JSON, but a field is missing or has a wrong type.
    #[error("the value is not an event envelope: {0}")]
    Form(String),
    /// A field is there, but its content is not allowed.
    #[error("`{field}` {problem}")]
    Field {
        /// The field's name on the wire.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `timestamp` is not a timestamp.
    #[error("`timestamp`: {0}")]
    Timestamp(TimeError),
    /// The record has no key.
    #[error("the record has no key; it must be the aggregate's id")]
    MissingKey,
    /// The record's key is not the aggregate's id.
    #[error("the record's key is not `aggregateId` {aggregate_id}")]
    KeyMismatch {
        /// What the key must be.
        aggregate_id: String,
    },
    /// The event belongs to another aggregate type.
    #[error("`aggregateType` is {found}, this topic holds {expected}")]
    AggregateType {
        /// What the envelope says.
        found: String,
        /// What the topic is for.
        expected: &'static str,
    },
}

impl EnvelopeError {
    /// Returns the code for programs.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::NotJson(_) => reasons::NOT_JSON,
            Self::Form(_) | Self::Field { .. } | Self::Timestamp(_) => reasons::MALFORMED_EVENT,
            Self::MissingKey => reasons::MISSING_KEY,
            Self::KeyMismatch { .. } => reasons::KEY_MISMATCH,
            Self::AggregateType { .. } => reasons::AGGREGATE_TYPE_MISMATCH,
        }
    }
}

/// Who wrote an event, by what system and why: what `metadata` says where it follows convention.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    /// `actorId`.
    pub actor: Option<String>,
    /// `actorType`, such as `user` or `api`.
    pub actor_type: Option<String>,
    /// `source`, the system it came from.
    pub source: Option<String>,
    /// `reason`.
    pub reason: Option<String>,
}

impl Attribution {
    /// Reads `metadata`. A field that is no text counts as absent: the envelope leaves `metadata` to
    /// its writers.
    pub(super) fn of(metadata: Option<&RawValue>) -> Self {
        let Some(metadata) = metadata else {
            return Self::default();
        };
        let mut fields: Metadata = serde_json::from_str(metadata.get()).unwrap_or_default();
        let mut text = |field: &str| match fields.remove(field) {
            Some(serde_json::Value::String(text)) => Some(text),
            Some(_) | None => None,
        };
        Self {
            actor: text("actorId"),
            actor_type: text("actorType"),
            source: text("source"),
            reason: text("reason"),
        }
    }
}

/// What serde reads; checked and turned into an [`Envelope`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    aggregate_id: Cow<'a, str>,
    #[serde(borrow)]
    aggregate_type: Cow<'a, str>,
    aggregate_version: u64,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    correlation_id: Cow<'a, str>,
    #[serde(borrow, default)]
    causation_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    schema_version: Option<u32>,
}

/// Text that borrows inside an `Option`, where serde's `Cow` alone would allocate.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Returns whether a raw JSON value is an object. Raw values carry no leading white space.
pub(super) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

impl<'a> Envelope<'a> {
    /// Reads an envelope. Costs one pass over `bytes`; allocates only for texts with escapes.
    ///
    /// # Errors
    /// [`EnvelopeError`] but its key and type variants, which [`check_record`](Self::check_record)
    /// returns.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let wire: Wire<'a> = json::read(bytes).map_err(|problem| match problem {
            JsonProblem::Syntax(text) => EnvelopeError::NotJson(text),
            JsonProblem::Form(text) => EnvelopeError::Form(text),
        })?;
        let texts = [
            ("eventId", &wire.event_id),
            ("eventType", &wire.event_type),
            ("aggregateId", &wire.aggregate_id),
            ("aggregateType", &wire.aggregate_type),
            ("correlationId", &wire.correlation_id),
        ];
        if let Some((field, _)) = texts.into_iter().find(|(_, text)| text.is_empty()) {
            return Err(EnvelopeError::Field {
                field,
                problem: "is empty",
            });
        }
        let refuse = |field, problem| Err(EnvelopeError::Field { field, problem });
        if wire.aggregate_id.contains('\0') {
            // History keys end an id with this byte.
            return refuse("aggregateId", "contains U+0000");
        }
        if wire.aggregate_version == 0 {
            return refuse("aggregateVersion", "is 0; versions start at 1");
        }
        if wire.schema_version == Some(0) {
            return refuse("schemaVersion", "is 0; versions start at 1");
        }
        if !is_object(wire.data) {
            return refuse("data", "is not an object");
        }
        if wire.metadata.is_some_and(|metadata| !is_object(metadata)) {
            return refuse("metadata", "is not an object");
        }
        Ok(Self {
            timestamp: parse_timestamp(&wire.timestamp).map_err(EnvelopeError::Timestamp)?,
            event_id: wire.event_id,
            event_type: wire.event_type,
            aggregate_id: wire.aggregate_id,
            aggregate_type: wire.aggregate_type,
            aggregate_version: wire.aggregate_version,
            correlation_id: wire.correlation_id,
            causation_id: wire.causation_id.map(|Text(text)| text),
            metadata: wire.metadata,
            data: wire.data,
            schema_version: wire.schema_version.unwrap_or(1),
        })
    }

    /// Checks that the record around this envelope is one of `aggregate_type`'s topic: its key is
    /// the aggregate's id and so its partition the aggregate's own.
    ///
    /// # Errors
    /// [`EnvelopeError::MissingKey`], [`EnvelopeError::KeyMismatch`],
    /// [`EnvelopeError::AggregateType`].
    pub fn check_record(
        &self,
        key: Option<&[u8]>,
        aggregate_type: &'static str,
    ) -> Result<(), EnvelopeError> {
        let key = key.ok_or(EnvelopeError::MissingKey)?;
        if key != self.aggregate_id.as_bytes() {
            return Err(EnvelopeError::KeyMismatch {
                aggregate_id: self.aggregate_id.to_string(),
            });
        }
        if self.aggregate_type != aggregate_type {
            return Err(EnvelopeError::AggregateType {
                found: self.aggregate_type.to_string(),
                expected: aggregate_type,
            });
        }
        Ok(())
    }

    /// Returns who wrote the event and why.
    #[must_use]
    pub fn attribution(&self) -> Attribution {
        Attribution::of(self.metadata)
    }

    /// Returns the envelope as JSON, fields in the contract's order.
    ///
    /// # Errors
    /// When `timestamp` is off the calendar.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Returns the record's headers.
    ///
    /// # Errors
    /// [`TimeError::Range`] when `timestamp` is off the calendar.
    pub fn headers(&self) -> Result<Headers, TimeError> {
        Ok(Headers::new()
            .with("eventType", self.event_type.as_ref())
            .with("aggregateVersion", self.aggregate_version.to_string())
            .with("correlationId", self.correlation_id.as_ref())
            .with("timestamp", format_timestamp(self.timestamp)?))
    }
}

/// Returns `evt-` + a UUIDv7 at `at`. Its random bits are a hash of what the event is (aggregate,
/// version, causing command), so that deciding again after an aborted transaction gives the same
/// id and a simulation replays.
#[must_use]
pub fn event_id(at: Timestamp, aggregate_id: &str, version: u64, causation_id: &str) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, aggregate_id, version, causation_id).hash(&mut hasher);
        hasher.finish().to_be_bytes()
    };
    let mut bits = [0_u8; 10];
    for (bit, byte) in bits.iter_mut().zip(half(0).into_iter().chain(half(1))) {
        *bit = byte;
    }
    let millis = u64::try_from(at).unwrap_or(0);
    format!(
        "evt-{}",
        uuid::Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"{"eventId":"evt-550e8400-e29b-41d4-a716-446655440000","eventType":"BalanceChanged","aggregateId":"account-123","aggregateType":"Account","aggregateVersion":5,"timestamp":"2025-12-09T12:00:00.000Z","correlationId":"corr-uuid","causationId":"cmd-uuid","metadata":{"actorId":"user_123","actorType":"api"},"data":{"previousBalance":"100.00"}}"#;

    fn edited(from: &str, to: &str) -> String {
        let text = EXAMPLE.replacen(from, to, 1);
        assert_ne!(text, EXAMPLE, "the edit must hit");
        text
    }

    #[test]
    fn a_parsed_envelope_is_written_byte_for_byte() {
        let envelope = Envelope::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(envelope.aggregate_version, 5);
        assert_eq!(envelope.schema_version, 1);
        assert_eq!(envelope.timestamp, 1_765_281_600_000);
        assert!(matches!(envelope.event_id, Cow::Borrowed(_)));
        assert!(matches!(envelope.causation_id, Some(Cow::Borrowed(_))));
        assert_eq!(envelope.to_json().unwrap(), EXAMPLE.as_bytes());
    }

    #[test]
    fn a_later_schema_version_is_written_last() {
        let mut envelope = Envelope::parse(EXAMPLE.as_bytes()).unwrap();
        envelope.schema_version = 2;
        let text = String::from_utf8(envelope.to_json().unwrap()).unwrap();
        assert!(text.ends_with(r#","schemaVersion":2}"#), "{text}");
        assert_eq!(Envelope::parse(text.as_bytes()).unwrap().schema_version, 2);
    }

    #[test]
    fn optional_fields_may_be_absent_or_null_and_unknown_ones_are_ignored() {
        let text = edited(
            r#""causationId":"cmd-uuid","metadata":{"actorId":"user_123","actorType":"api"},"#,
            r#""causationId":null,"colour":"red","#,
        );
        let envelope = Envelope::parse(text.as_bytes()).unwrap();
        assert!(envelope.causation_id.is_none() && envelope.metadata.is_none());
        let written = String::from_utf8(envelope.to_json().unwrap()).unwrap();
        assert!(
            !written.contains("causationId") && !written.contains("metadata"),
            "{written}"
        );
    }

    #[test]
    fn headers_are_text_of_the_envelopes_fields() {
        let headers = Envelope::parse(EXAMPLE.as_bytes())
            .unwrap()
            .headers()
            .unwrap();
        let text: Vec<_> = headers
            .iter()
            .map(|(key, value)| (key, std::str::from_utf8(value.unwrap()).unwrap()))
            .collect();
        assert_eq!(
            text,
            [
                ("eventType", "BalanceChanged"),
                ("aggregateVersion", "5"),
                ("correlationId", "corr-uuid"),
                ("timestamp", "2025-12-09T12:00:00.000Z"),
            ]
        );
    }

    #[test]
    fn what_is_not_json_is_told_apart_from_what_is_no_envelope() {
        for text in [
            "",
            "hello",
            "{\"eventId\":",
            EXAMPLE.get(..100).unwrap(),
            "\u{0}",
        ] {
            let error = Envelope::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), reasons::NOT_JSON, "{text}");
        }
        assert_eq!(
            Envelope::parse(b"\xff\xfe").unwrap_err().code(),
            reasons::NOT_JSON
        );
        for text in ["{}", "[]", "null", "7", r#"{"eventId":7}"#] {
            let error = Envelope::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), reasons::MALFORMED_EVENT, "{text}");
        }
    }

    #[test]
    fn each_broken_field_is_named() {
        for (from, to, named) in [
            (
                r#""eventId":"evt-550e8400-e29b-41d4-a716-446655440000""#,
                r#""eventId":"""#,
                "eventId",
            ),
            (r#""eventType":"BalanceChanged","#, "", "eventType"),
            (
                r#""aggregateId":"account-123""#,
                r#""aggregateId":"a\u0000b""#,
                "aggregateId",
            ),
            (
                r#""aggregateType":"Account""#,
                r#""aggregateType":"""#,
                "aggregateType",
            ),
            (r#""aggregateVersion":5,"#, "", "aggregateVersion"),
            (
                r#""aggregateVersion":5"#,
                r#""aggregateVersion":0"#,
                "aggregateVersion",
            ),
            (
                r#""aggregateVersion":5"#,
                r#""aggregateVersion":-1"#,
                "aggregateVersion",
            ),
            (
                r#""aggregateVersion":5"#,
                r#""aggregateVersion":"5""#,
                "string \"5\"",
            ),
            (
                r#""aggregateVersion":5"#,
                r#""aggregateVersion":5.5"#,
                "5.5",
            ),
            (r#"2025-12-09T12:00:00.000Z"#, "yesterday", "timestamp"),
            (r#""correlationId":"corr-uuid","#, "", "correlationId"),
            (
                r#"{"actorId":"user_123","actorType":"api"}"#,
                "[]",
                "metadata",
            ),
            (r#"{"previousBalance":"100.00"}"#, "\"x\"", "data"),
            (
                r#"{"previousBalance":"100.00"}"#,
                r#"{},"schemaVersion":0"#,
                "schemaVersion",
            ),
            (
                r#""eventType":"#,
                r#""eventId":"again","eventType":"#,
                "eventId",
            ),
        ] {
            let error = Envelope::parse(edited(from, to).as_bytes()).unwrap_err();
            assert_eq!(error.code(), reasons::MALFORMED_EVENT, "{to}");
            assert!(error.to_string().contains(named), "{to}: {error}");
        }
    }

    #[test]
    fn the_record_must_be_keyed_by_the_aggregate() {
        let envelope = Envelope::parse(EXAMPLE.as_bytes()).unwrap();
        assert!(
            envelope
                .check_record(Some(b"account-123"), "Account")
                .is_ok()
        );
        let code = |key, kind| envelope.check_record(key, kind).unwrap_err().code();
        assert_eq!(code(None, "Account"), reasons::MISSING_KEY);
        assert_eq!(
            code(Some(b"account-12".as_slice()), "Account"),
            reasons::KEY_MISMATCH
        );
        assert_eq!(
            code(Some(b"account-123".as_slice()), "FlightLeg"),
            reasons::AGGREGATE_TYPE_MISMATCH
        );
    }

    #[test]
    fn event_ids_are_version_7_and_the_same_for_the_same_decision() {
        let id = event_id(1_765_281_600_000, "account-123", 5, "cmd-1");
        let uuid = uuid::Uuid::parse_str(id.strip_prefix("evt-").unwrap()).unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_timestamp().unwrap().to_unix().0, 1_765_281_600);
        assert_eq!(id, event_id(1_765_281_600_000, "account-123", 5, "cmd-1"));
        assert_ne!(id, event_id(1_765_281_600_000, "account-123", 6, "cmd-1"));
        assert_ne!(id, event_id(1_765_281_600_000, "account-123", 5, "cmd-2"));
        assert_ne!(id, event_id(1_765_281_600_000, "account-124", 5, "cmd-1"));
    }
}
