//! What an airport operations adapter says, on `aodb-input-adapter`.
//!
//! ```text
//! key    flightId
//! value  {"messageId","messageType","flightId","timestamp","source","actorId"?,"actorType"?,
//!         "reason"?,"correlationId"?,"data"}
//! ```
//! # Invariants
//! - Unknown fields of the message are accepted, unknown fields of `data` refused: a misspelled
//!   `estimated` would otherwise be taken for an absent one.
//! - A message says what is so now, not what has changed: said twice, it changes nothing.
//! - Times are from 2000 up to 2100 and delays at most 31 days: sums over legs cannot overflow, and every
//!   time that is computed from them has a date.

use std::borrow::Cow;

use millstream::event_sourcing::{
    Command, CommandData, CommandEnvelope, CommandError, Message, Metadata, RawValue, ReasonCode,
    parse_timestamp, reasons,
};
use serde::{Deserialize, Serialize};

use crate::events::Status;
use crate::flight_id::FlightId;
use crate::instant::Instant;
use crate::references::References;
use crate::rejection::codes;

/// How late or early a leg may be, in minutes: 31 days. More is a mistake in the message.
pub const DELAY_MINUTES_MAX: i64 = 31 * 24 * 60;

millstream::commands! {
    /// What an adapter message says: its `data`, by its `messageType`.
    pub enum LegMessage {
        /// The leg is planned.
        Schedule(Schedule),
        /// It has a stand.
        StandAllocation(StandAllocation),
        /// It has a gate.
        GateAssignment(GateAssignment),
        /// When it departs, or has departed.
        DepartureTimes(DepartureTimes),
        /// When it arrives, or has arrived.
        ArrivalTimes(ArrivalTimes),
        /// Its status.
        StatusReport(StatusReport),
        /// It does not take place.
        Cancellation(Cancellation),
    }
}

/// `data` of `Schedule`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// Carrier and number, `UA1545`.
    pub flight_number: String,
    /// The carrier's code.
    pub airline: String,
    /// The airport of departure.
    pub origin: String,
    /// The airport of arrival.
    pub destination: String,
    /// When it is to depart.
    pub scheduled_departure: Instant,
    /// When it is to arrive; null where the airport's time zone is not known.
    #[serde(default)]
    pub scheduled_arrival: Option<Instant>,
    /// The tail number; null where none is planned.
    #[serde(default)]
    pub aircraft: Option<String>,
}
impl CommandData for Schedule {}

/// `data` of `StandAllocation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StandAllocation {
    /// The stand, at the airport of departure.
    pub stand: String,
    /// Who allocated it; absent means the message's `actorId`, or `system`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_by: Option<String>,
    /// When; absent means the message's `timestamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_at: Option<Instant>,
}

impl CommandData for StandAllocation {
    fn complete(&mut self, envelope: &CommandEnvelope<'_>) {
        let at = self.allocated_at.take();
        self.allocated_at = at.or_else(|| Instant::from_millis(envelope.timestamp));
    }
}

/// `data` of `GateAssignment`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GateAssignment {
    /// The gate.
    pub gate: String,
}
impl CommandData for GateAssignment {}

/// `data` of `DepartureTimes` and `ArrivalTimes`. At least one field is there; an absent one says
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Times {
    /// When it is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated: Option<Instant>,
    /// When it took place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Instant>,
    /// How late it is, in minutes, early is negative, at most [`DELAY_MINUTES_MAX`] either way; absent
    /// means as far as the times tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_minutes: Option<i64>,
}

/// `data` of `DepartureTimes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DepartureTimes(pub Times);
impl CommandData for DepartureTimes {}

/// `data` of `ArrivalTimes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ArrivalTimes(pub Times);
impl CommandData for ArrivalTimes {}

/// `data` of `StatusReport`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusReport {
    /// The status.
    pub status: Status,
}
impl CommandData for StatusReport {}

/// `data` of `Cancellation`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cancellation {
    /// Why.
    pub reason: String,
}
impl CommandData for Cancellation {}

/// What a leg decides on: a message, with what the reference tables say of its codes.
#[derive(Debug, Clone, PartialEq)]
pub struct LegInput {
    /// What the adapter says.
    pub message: LegMessage,
    /// What is known of the codes in it.
    pub references: References,
    /// The message's time: when it was so. `None` means now, after all that is known.
    pub said_at: Option<Instant>,
}

impl Command for LegInput {
    /// Without reference tables every code is a gap.
    fn read(envelope: &CommandEnvelope<'_>) -> Result<Self, CommandError> {
        let message = LegMessage::read(envelope)?;
        Ok(Self {
            said_at: Instant::from_millis(envelope.timestamp),
            ..Self::from(message)
        })
    }
}

impl<M: Into<LegMessage>> From<M> for LegInput {
    fn from(message: M) -> Self {
        Self {
            message: message.into(),
            references: References::default(),
            said_at: None,
        }
    }
}

/// An adapter message as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdapterMessage<'a> {
    /// Unique per leg; a repeated one changes nothing.
    #[serde(borrow)]
    pub message_id: Cow<'a, str>,
    /// The name of a [`LegMessage`] variant.
    #[serde(borrow)]
    pub message_type: Cow<'a, str>,
    /// The leg; also the record's key.
    #[serde(borrow)]
    pub flight_id: Cow<'a, str>,
    /// When it was so: the time of the events that come of it. RFC 3339.
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
    /// The system that says so.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// Who.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<Cow<'a, str>>,
    /// What kind of actor; absent means `adapter`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub actor_type: Option<Cow<'a, str>>,
    /// Why.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    /// Follows one request through all events; absent means the message's id.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Cow<'a, str>>,
    /// What it says.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// Why a record is not an adapter message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Not JSON at all.
    #[error("the value is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// JSON, but not a message.
    #[error("the value is not an adapter message: {0}")]
    Form(String),
    /// `messageType` is unknown.
    #[error("unknown message type `{0}`")]
    UnknownType(String),
    /// The record has no key.
    #[error("the record has no key; it must be the flight's id")]
    MissingKey,
    /// The record's key is not the flight's id.
    #[error("the record's key is not `flightId` {0}")]
    KeyMismatch(String),
    /// `flightId` has another form.
    #[error("`flightId` {0} is not <carrier><flight>-<date>-<origin>-<destination>")]
    FlightId(String),
    /// A time that no flight of this system has.
    #[error("`{0}` is not from 2000-01-01 up to 2100-01-01 (UTC)")]
    Time(&'static str),
    /// A delay that no flight has.
    #[error("`delayMinutes` {0} is beyond {max}, 31 days, either way", max = DELAY_MINUTES_MAX)]
    Delay(i64),
    /// The schedule is of another flight.
    #[error("`{field}` of the schedule is not that of `flightId` {flight_id}")]
    Mismatch {
        /// The field.
        field: &'static str,
        /// The flight.
        flight_id: String,
    },
}

impl MessageError {
    /// Returns the code for programs.
    #[must_use]
    pub const fn code(&self) -> ReasonCode {
        match self {
            Self::NotJson(_) => reasons::NOT_JSON,
            Self::Form(_) => codes::MALFORMED_MESSAGE,
            Self::UnknownType(_) => codes::UNKNOWN_MESSAGE_TYPE,
            Self::MissingKey => reasons::MISSING_KEY,
            Self::KeyMismatch(_) => reasons::KEY_MISMATCH,
            Self::FlightId(_) => codes::INVALID_FLIGHT_ID,
            Self::Time(_) | Self::Delay(_) => codes::INVALID_TIMES,
            Self::Mismatch { .. } => codes::FLIGHT_ID_MISMATCH,
        }
    }
}

impl<'a> AdapterMessage<'a> {
    /// Reads and checks a record of `aodb-input-adapter`. Returns the leg's id and the message.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn read(
        key: Option<&[u8]>,
        value: &'a [u8],
    ) -> Result<(String, Message<LegInput>), MessageError> {
        let message: Self = serde_json::from_slice(value).map_err(|error| {
            if error.is_data() {
                MessageError::Form(error.to_string())
            } else {
                MessageError::NotJson(error)
            }
        })?;
        let required = [
            ("messageId", &message.message_id),
            ("messageType", &message.message_type),
            ("source", &message.source),
        ];
        for (field, text) in required {
            if text.is_empty() || text.contains('\0') {
                let problem = format!("`{field}` is empty or contains U+0000");
                return Err(MessageError::Form(problem));
            }
        }
        let flight_id = message.flight_id.to_string();
        match key {
            None => return Err(MessageError::MissingKey),
            Some(key) if key != flight_id.as_bytes() => {
                return Err(MessageError::KeyMismatch(flight_id));
            }
            Some(_) => {}
        }
        let Some(id) = FlightId::parse(&flight_id) else {
            return Err(MessageError::FlightId(flight_id));
        };
        let envelope = message.envelope()?;
        let timestamp = envelope.timestamp;
        let mut input = LegInput::read(&envelope).map_err(|error| match error {
            CommandError::UnknownType { command_type } => MessageError::UnknownType(command_type),
            error => MessageError::Form(error.to_string()),
        })?;
        check_texts(&input.message)?;
        check_flight(&input.message, &id, &flight_id)?;
        check_time("timestamp", input.said_at)?;
        check_bounds(&input.message)?;
        if let LegMessage::StandAllocation(allocation) = &mut input.message {
            let actor = message.actor_id.as_deref().unwrap_or("system");
            allocation.allocated_by.get_or_insert_with(|| actor.into());
        }
        let message = Message {
            message_id: message.message_id.to_string(),
            correlation_id: message.correlation_id.as_deref().map(str::to_owned),
            timestamp,
            metadata: message.metadata(),
            content: input,
        };
        Ok((flight_id, message))
    }

    /// A message is read as a command is: by its type, with errors that name the field.
    fn envelope(&self) -> Result<CommandEnvelope<'a>, MessageError> {
        if !self.data.get().starts_with('{') {
            return Err(MessageError::Form("`data` is not an object".to_owned()));
        }
        let timestamp = parse_timestamp(&self.timestamp)
            .map_err(|error| MessageError::Form(format!("`timestamp`: {error}")))?;
        Ok(CommandEnvelope {
            process: None,
            command_id: self.message_id.clone(),
            command_type: self.message_type.clone(),
            aggregate_id: self.flight_id.clone(),
            expected_version: None,
            timestamp,
            correlation_id: self.correlation_id.clone(),
            metadata: None,
            data: self.data,
        })
    }

    fn metadata(&self) -> Metadata {
        let actor_type = self.actor_type.as_deref().unwrap_or("adapter");
        let fields = [
            ("actorId", self.actor_id.as_deref()),
            ("actorType", Some(actor_type)),
            ("source", Some(self.source.as_ref())),
            ("reason", self.reason.as_deref()),
        ];
        let present = fields.into_iter().filter_map(|(field, text)| {
            let text = text?;
            Some((field.to_owned(), text.into()))
        });
        present.collect()
    }
}

/// An empty code would be a stand or a gate without a name.
fn check_texts(content: &LegMessage) -> Result<(), MessageError> {
    let (field, text) = match content {
        LegMessage::StandAllocation(data) => ("stand", &data.stand),
        LegMessage::GateAssignment(data) => ("gate", &data.gate),
        LegMessage::Cancellation(data) => ("reason", &data.reason),
        LegMessage::Schedule(_)
        | LegMessage::DepartureTimes(_)
        | LegMessage::ArrivalTimes(_)
        | LegMessage::StatusReport(_) => return Ok(()),
    };
    // Keys of the stand view part airport and stand by `@`.
    if text.is_empty() || text.contains(['\0', '@']) {
        let problem = format!("`{field}` is empty or contains U+0000 or `@`");
        return Err(MessageError::Form(problem));
    }
    Ok(())
}

fn check_time(field: &'static str, at: Option<Instant>) -> Result<(), MessageError> {
    match at {
        Some(at) if !at.is_plausible() => Err(MessageError::Time(field)),
        _ => Ok(()),
    }
}

/// A typing error in a year or a delay would be in figures and views for good.
fn check_bounds(content: &LegMessage) -> Result<(), MessageError> {
    match content {
        LegMessage::Schedule(data) => {
            check_time("scheduledDeparture", Some(data.scheduled_departure))?;
            check_time("scheduledArrival", data.scheduled_arrival)
        }
        LegMessage::StandAllocation(data) => check_time("allocatedAt", data.allocated_at),
        LegMessage::DepartureTimes(DepartureTimes(times))
        | LegMessage::ArrivalTimes(ArrivalTimes(times)) => {
            check_time("estimated", times.estimated)?;
            check_time("actual", times.actual)?;
            match times.delay_minutes {
                Some(delay) if !is_plausible_delay(delay) => Err(MessageError::Delay(delay)),
                _ => Ok(()),
            }
        }
        LegMessage::GateAssignment(_)
        | LegMessage::StatusReport(_)
        | LegMessage::Cancellation(_) => Ok(()),
    }
}

/// Returns whether a leg can be so many minutes late, or early.
pub(crate) const fn is_plausible_delay(minutes: i64) -> bool {
    -DELAY_MINUTES_MAX <= minutes && minutes <= DELAY_MINUTES_MAX
}

fn check_flight(
    content: &LegMessage,
    id: &FlightId<'_>,
    flight_id: &str,
) -> Result<(), MessageError> {
    let LegMessage::Schedule(schedule) = content else {
        return Ok(());
    };
    let number_fits = schedule.flight_number == id.flight_number
        && schedule.flight_number.starts_with(&schedule.airline)
        && !schedule.airline.is_empty();
    let field = if !number_fits {
        "flightNumber"
    } else if schedule.origin != id.origin {
        "origin"
    } else if schedule.destination != id.destination {
        "destination"
    } else {
        return Ok(());
    };
    Err(MessageError::Mismatch {
        field,
        flight_id: flight_id.to_owned(),
    })
}
