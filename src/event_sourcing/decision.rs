//! The decisions of the event-sourcing processors, without their I/O: what a command brings about,
//! and what an event does to an aggregate. Facts in (the aggregate's record, a command or an event,
//! the time), plain data out; the processors read the facts and perform the result.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::aggregate::{Aggregate, take_in};
use super::command::{Command, CommandEnvelope, Outcome, Reply};
use super::envelope::{Envelope, EnvelopeError, Metadata, event_id};
use super::history::{HistoryEntry, HistoryKey, Known, Origin, Verdict};
use super::limits::{EventSize, EventTooLarge, event_size};
use super::message::Message;
use super::reason::{ReasonCode, Rejection, reasons};
use super::time::{TimeError, format_timestamp};
use super::upcast::{Event, EventError};
use crate::clock::Timestamp;
use crate::log::Headers;

/// An aggregate as its store keeps it. Derived: history is the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AggregateRecord<S> {
    /// Who owns it: the writer of its first event.
    pub origin: Origin,
    /// The version of its first event: 1, or higher when it was adopted.
    pub first_version: u64,
    /// The version of its last event.
    pub version: u64,
    /// The time of its last event: the event's timestamp, or that of a predecessor where another
    /// system's clock has gone back, so that the time of an aggregate rises with its version.
    pub updated_at: Timestamp,
    /// Whether its last event was its [tombstone](Aggregate::is_tombstone), at `updated_at`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tombstoned: bool,
    /// What the events add up to; the default where they end with a tombstone, since there is none.
    pub state: S,
}

impl<S> AggregateRecord<S> {
    /// Returns the record unless it is tombstoned: what a topic or a table of current states has of the
    /// aggregate, for which `None` is Kafka's tombstone.
    #[must_use]
    pub fn alive(self) -> Option<Self> {
        (!self.tombstoned).then_some(self)
    }

    /// Returns the range of versions that history holds.
    #[must_use]
    pub const fn known(&self) -> Known {
        Known {
            first_version: self.first_version,
            last_version: self.version,
        }
    }
}

/// An event that a command or a message brought about, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Its place in history; the id is also the record's key.
    pub key: HistoryKey,
    /// `eventId`.
    pub event_id: String,
    /// `eventType`.
    pub event_type: &'static str,
    /// The envelope as JSON.
    pub value: Vec<u8>,
    /// The record's headers.
    pub headers: Headers,
    /// The event's and the record's timestamp.
    pub timestamp: Timestamp,
    /// Whether it is to be logged and counted as large.
    pub size: EventSize,
}

/// What a command brings about.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<S> {
    /// The answer.
    pub reply: Reply,
    /// The events, in order; empty unless accepted.
    pub events: Vec<Appended>,
    /// The aggregate after the events; `None` when there are none.
    pub record: Option<AggregateRecord<S>>,
    /// Why an event was refused for its size; the reply says so too.
    pub too_large: Option<EventTooLarge>,
}

/// A decision that cannot be written down: a fault of the aggregate's types or of the clock, not of
/// the command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecisionError {
    /// An event's data or envelope has no JSON form.
    #[error("event `{event_type}` of command {command_id} cannot be written: {problem}")]
    Unwritable {
        /// The event's type.
        event_type: &'static str,
        /// The command.
        command_id: String,
        /// What serde said.
        problem: serde_json::Error,
    },
    /// The clock is off the calendar.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// The aggregate has no version left.
    #[error("aggregate {aggregate_id} has reached the last version")]
    VersionsExhausted {
        /// The aggregate.
        aggregate_id: String,
    },
    /// The aggregate goes on after the tombstone that it has decided itself.
    #[error("event `{event_type}` of aggregate {aggregate_id} was decided after its tombstone")]
    AfterTombstone {
        /// The aggregate.
        aggregate_id: String,
        /// The event's type.
        event_type: &'static str,
    },
}

/// Says that an aggregate is tombstoned, by which version and when.
fn tombstoned<A: Aggregate>(
    aggregate_id: &str,
    record: &AggregateRecord<A::State>,
) -> Result<(String, String), TimeError> {
    let at = format_timestamp(record.updated_at)?;
    let (what, version) = (A::TYPE, record.version);
    let message = format!("{what} {aggregate_id} was tombstoned at {at} by version {version}");
    Ok((message, at))
}

/// Decides a command against an aggregate's record (`None`: unseen) at `now`.
///
/// A tombstone comes first, then ownership, then `expectedVersion`, then the aggregate's own rules. The events'
/// timestamp is `now`, but never below their predecessor's.
///
/// # Errors
/// [`DecisionError`]. A command that cannot be read or is against a rule is no error but a reply.
pub fn decide_command<A: Aggregate>(
    record: Option<&AggregateRecord<A::State>>,
    command: &CommandEnvelope<'_>,
    now: Timestamp,
) -> Result<Decision<A::State>, DecisionError> {
    let version = record.map_or(0, |record| record.version);
    let refuse = |code: ReasonCode, message: String| {
        let (id, aggregate) = (&command.command_id, &command.aggregate_id);
        Decision {
            reply: Reply::refusal(id, A::TYPE, aggregate, version, (code, message)),
            events: Vec::new(),
            record: None,
            too_large: None,
        }
    };
    if let Some(record) = record.filter(|record| record.tombstoned) {
        let (message, at) = tombstoned::<A>(&command.aggregate_id, record)?;
        let mut decision = refuse(reasons::TOMBSTONED, message);
        decision.reply.tombstoned_at = Some(at);
        return Ok(decision);
    }
    if record.is_some_and(|record| record.origin == Origin::Foreign) {
        let message = format!(
            "{} {} is written by another system",
            A::TYPE,
            command.aggregate_id
        );
        return Ok(refuse(reasons::FOREIGN_OWNED, message));
    }
    if let Some(expected) = command
        .expected_version
        .filter(|expected| *expected != version)
    {
        let message = format!("expected version {expected}, the current version is {version}");
        return Ok(refuse(reasons::VERSION_CONFLICT, message));
    }
    let read = match A::Command::read(command) {
        Ok(read) => read,
        Err(error) => return Ok(refuse(error.code(), error.to_string())),
    };
    let unseen = A::State::default();
    let state = record.map_or(&unseen, |record| &record.state);
    let events = match A::decide(state, read) {
        Ok(events) => events,
        Err(rejection) => return Ok(refuse(rejection.code(), rejection.to_string())),
    };
    let cause = Cause {
        id: &command.command_id,
        aggregate_id: &command.aggregate_id,
        correlation_id: command.correlation_id(),
        metadata: &command_metadata(command)?,
    };
    match append::<A>(record, &cause, &events, now)? {
        Ok(decision) => Ok(decision),
        Err(too_large) => {
            let mut decision = refuse(reasons::EVENT_TOO_LARGE, too_large.to_string());
            decision.too_large = Some(too_large);
            Ok(decision)
        }
    }
}

/// Why a message is not carried out: what its dead letter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code for programs.
    pub code: ReasonCode,
    /// What is wrong, for people.
    pub message: String,
    /// Whether an event would have been over the size limit.
    pub too_large: bool,
}

/// Decides a message, read already, against an aggregate's record (`None`: unseen).
///
/// The events happened when the message says, but never before their predecessor; where that moves
/// them, the message's own time is kept in `metadata.messageTimestamp`.
///
/// # Errors
/// [`DecisionError`]. A message against a rule is no error but a [`Refusal`].
pub fn decide_message<A: Aggregate>(
    record: Option<&AggregateRecord<A::State>>,
    aggregate_id: &str,
    message: Message<A::Command>,
) -> Result<Result<Decision<A::State>, Refusal>, DecisionError> {
    if let Some(record) = record.filter(|record| record.tombstoned) {
        let (message, _) = tombstoned::<A>(aggregate_id, record)?;
        return Ok(Err(Refusal {
            code: reasons::TOMBSTONED,
            message,
            too_large: false,
        }));
    }
    let metadata = message_metadata(record.map(|record| record.updated_at), &message)?;
    let unseen = A::State::default();
    let state = record.map_or(&unseen, |record| &record.state);
    let events = match A::decide(state, message.content) {
        Ok(events) => events,
        Err(rejection) => {
            return Ok(Err(Refusal {
                code: rejection.code(),
                message: rejection.to_string(),
                too_large: false,
            }));
        }
    };
    let correlation_id = message.correlation_id.as_deref();
    let cause = Cause {
        id: &message.message_id,
        aggregate_id,
        correlation_id: correlation_id.unwrap_or(&message.message_id),
        metadata: &metadata,
    };
    let appended = append::<A>(record, &cause, &events, message.timestamp)?;
    Ok(appended.map_err(|too_large| Refusal {
        code: reasons::EVENT_TOO_LARGE,
        message: too_large.to_string(),
        too_large: true,
    }))
}

/// What brought events about.
struct Cause<'a> {
    id: &'a str,
    aggregate_id: &'a str,
    correlation_id: &'a str,
    metadata: &'a RawValue,
}

/// Writes down the events of an accepted command or message and applies them.
fn append<A: Aggregate>(
    record: Option<&AggregateRecord<A::State>>,
    cause: &Cause<'_>,
    events: &[A::Event],
    now: Timestamp,
) -> Result<Result<Decision<A::State>, EventTooLarge>, DecisionError> {
    let timestamp = record.map_or(now, |record| now.max(record.updated_at));
    let mut version = record.map_or(0, |record| record.version);
    let mut state = record
        .map(|record| record.state.clone())
        .unwrap_or_default();
    let mut ended = false;
    let mut appended = Vec::with_capacity(events.len());
    for event in events {
        if ended {
            return Err(DecisionError::AfterTombstone {
                aggregate_id: cause.aggregate_id.to_owned(),
                event_type: event.event_type(),
            });
        }
        version = version
            .checked_add(1)
            .ok_or_else(|| DecisionError::VersionsExhausted {
                aggregate_id: cause.aggregate_id.to_owned(),
            })?;
        let written = write_event::<A>(cause, event, version, timestamp)?;
        match written {
            Ok(event) => appended.push(event),
            Err(too_large) => return Ok(Err(too_large)),
        }
        ended = take_in::<A>(&mut state, event);
    }
    let tombstoned_at = ended.then(|| format_timestamp(timestamp)).transpose()?;
    let reply = Reply {
        command_id: cause.id.to_owned(),
        aggregate_type: A::TYPE.into(),
        aggregate_id: cause.aggregate_id.to_owned(),
        outcome: Outcome::Accepted,
        aggregate_version: version,
        tombstoned_at,
        event_ids: appended
            .iter()
            .map(|event| event.event_id.clone())
            .collect(),
        reason: None,
    };
    let record = (!appended.is_empty()).then(|| AggregateRecord {
        origin: Origin::Native,
        first_version: record.map_or(1, |record| record.first_version),
        version,
        updated_at: timestamp,
        tombstoned: ended,
        state,
    });
    Ok(Ok(Decision {
        reply,
        events: appended,
        record,
        too_large: None,
    }))
}

fn write_event<A: Aggregate>(
    cause: &Cause<'_>,
    event: &A::Event,
    version: u64,
    timestamp: Timestamp,
) -> Result<Result<Appended, EventTooLarge>, DecisionError> {
    let event_type = event.event_type();
    let unwritable = |problem| DecisionError::Unwritable {
        event_type,
        command_id: cause.id.to_owned(),
        problem,
    };
    let data = event.data().map_err(unwritable)?;
    let event_id = event_id(timestamp, cause.aggregate_id, version, cause.id);
    let envelope = Envelope {
        event_id: event_id.as_str().into(),
        event_type: event_type.into(),
        aggregate_id: cause.aggregate_id.into(),
        aggregate_type: A::TYPE.into(),
        aggregate_version: version,
        timestamp,
        correlation_id: cause.correlation_id.into(),
        causation_id: Some(cause.id.into()),
        metadata: Some(cause.metadata),
        data: &data,
        schema_version: event.schema_version(),
    };
    let value = envelope.to_json().map_err(unwritable)?;
    let headers = envelope.headers()?;
    let size = match event_size(event_type, &event_id, value.len()) {
        Ok(size) => size,
        Err(too_large) => return Ok(Err(too_large)),
    };
    let key = HistoryKey::new(cause.aggregate_id, version);
    Ok(Ok(Appended {
        key,
        event_id,
        event_type,
        value,
        headers,
        timestamp,
        size,
    }))
}

fn unwritable_metadata(cause_id: &str) -> impl Fn(serde_json::Error) -> DecisionError {
    move |problem| DecisionError::Unwritable {
        event_type: "metadata",
        command_id: cause_id.to_owned(),
        problem,
    }
}

/// Returns the command's metadata with its own time, which the events do not carry elsewhere.
fn command_metadata(command: &CommandEnvelope<'_>) -> Result<Box<RawValue>, DecisionError> {
    let unwritable = unwritable_metadata(&command.command_id);
    let mut metadata: Metadata = match command.metadata {
        Some(raw) => serde_json::from_str(raw.get()).map_err(&unwritable)?,
        None => Metadata::new(),
    };
    metadata.insert(
        "commandTimestamp".into(),
        format_timestamp(command.timestamp)?.into(),
    );
    serde_json::value::to_raw_value(&metadata).map_err(unwritable)
}

/// Returns the message's metadata, with its own time where its events get a later one.
fn message_metadata<C>(
    last: Option<Timestamp>,
    message: &Message<C>,
) -> Result<Box<RawValue>, DecisionError> {
    let raw = if last.is_some_and(|last| last > message.timestamp) {
        let mut metadata = message.metadata.clone();
        let own = format_timestamp(message.timestamp)?;
        metadata.insert("messageTimestamp".into(), own.into());
        serde_json::value::to_raw_value(&metadata)
    } else {
        serde_json::value::to_raw_value(&message.metadata)
    };
    raw.map_err(unwritable_metadata(&message.message_id))
}

/// Why an event does not become part of its aggregate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// The envelope cannot be read.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The data cannot be read.
    #[error(transparent)]
    Event(#[from] EventError),
    /// It is over the size limit.
    #[error(transparent)]
    TooLarge(#[from] EventTooLarge),
    /// Its place in the sequence is wrong.
    #[error("{message}")]
    Sequence {
        /// The code.
        code: ReasonCode,
        /// What is wrong, for people.
        message: String,
    },
    /// Its aggregate has ended for good.
    #[error("{aggregate_id} was tombstoned by version {tombstone}: no event follows")]
    Tombstoned {
        /// The aggregate.
        aggregate_id: String,
        /// The tombstone's version.
        tombstone: u64,
    },
    /// What it says does not follow from the state before it.
    #[error("{message}")]
    Misfit {
        /// The aggregate's code.
        code: ReasonCode,
        /// What is wrong, for people.
        message: String,
    },
}

impl FoldError {
    /// Returns the code for programs.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Envelope(error) => error.code(),
            Self::Event(error) => error.code(),
            Self::TooLarge(_) => reasons::EVENT_TOO_LARGE,
            Self::Tombstoned { .. } => reasons::TOMBSTONED,
            Self::Sequence { code, .. } | Self::Misfit { code, .. } => *code,
        }
    }

    /// Returns the dead letter's reason when `verdict` would let the event follow, now or once others
    /// have come, and the aggregate is tombstoned.
    #[must_use]
    pub fn after_tombstone<S>(
        record: Option<&AggregateRecord<S>>,
        verdict: Verdict,
        envelope: &Envelope<'_>,
    ) -> Option<Self> {
        let follows = match verdict {
            Verdict::Apply | Verdict::AdoptOpening | Verdict::Gap { .. } => true,
            Verdict::Repetition
            | Verdict::Conflict
            | Verdict::BeforeOpening { .. }
            | Verdict::Broken => false,
        };
        let record = record.filter(|record| follows && record.tombstoned)?;
        Some(Self::Tombstoned {
            aggregate_id: envelope.aggregate_id.to_string(),
            tombstone: record.version,
        })
    }

    /// Returns the dead letter's reason when `verdict` forbids the event.
    #[must_use]
    pub fn from_verdict(verdict: Verdict, envelope: &Envelope<'_>) -> Option<Self> {
        let version = envelope.aggregate_version;
        let (code, message) = match verdict {
            Verdict::Repetition | Verdict::Apply | Verdict::AdoptOpening | Verdict::Broken => {
                return None;
            }
            Verdict::Conflict => (
                reasons::VERSION_CONFLICT,
                format!("another event holds version {version}"),
            ),
            Verdict::Gap { expected } => {
                let message = format!("version {version} does not follow: expected {expected}");
                (reasons::VERSION_GAP, message)
            }
            Verdict::BeforeOpening { first } => {
                let message =
                    format!("version {version} lies before {first}, at which it was adopted");
                (reasons::VERSION_BEFORE_OPENING, message)
            }
        };
        Some(Self::Sequence { code, message })
    }
}

/// Applies an event of another system that [`judge`](super::judge) let through.
///
/// # Errors
/// [`FoldError::Tombstoned`] when nothing may follow, [`FoldError::Event`] when its data cannot be read,
/// [`FoldError::Misfit`] when it does not follow.
pub fn fold_foreign<A: Aggregate>(
    record: Option<AggregateRecord<A::State>>,
    envelope: &Envelope<'_>,
) -> Result<AggregateRecord<A::State>, FoldError> {
    if let Some(error) = FoldError::after_tombstone(record.as_ref(), Verdict::Apply, envelope) {
        return Err(error);
    }
    let event = A::Event::read(&envelope.event_type, envelope.schema_version, envelope.data)?;
    let mut record = record.unwrap_or_else(|| open::<A>(Origin::Foreign, envelope, &event));
    A::follows(&record.state, &event).map_err(|misfit| FoldError::Misfit {
        code: misfit.code(),
        message: misfit.to_string(),
    })?;
    advance::<A>(&mut record, envelope, &event);
    Ok(record)
}

/// Starts the record of an aggregate whose first event this is.
fn open<A: Aggregate>(
    origin: Origin,
    envelope: &Envelope<'_>,
    first: &A::Event,
) -> AggregateRecord<A::State> {
    let mut state = A::State::default();
    if envelope.aggregate_version > 1 {
        A::adopt(&mut state, first);
    }
    AggregateRecord {
        origin,
        first_version: envelope.aggregate_version,
        version: envelope.aggregate_version,
        updated_at: envelope.timestamp,
        tombstoned: false,
        state,
    }
}

fn advance<A: Aggregate>(
    record: &mut AggregateRecord<A::State>,
    envelope: &Envelope<'_>,
    event: &A::Event,
) {
    record.tombstoned = take_in::<A>(&mut record.state, event);
    record.version = envelope.aggregate_version;
    record.updated_at = record.updated_at.max(envelope.timestamp);
}

/// History that cannot be folded: damaged, or written by a newer build. The task stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The entry cannot be read.
    #[error("history of {aggregate_id} at version {version}: {problem}")]
    Unreadable {
        /// The aggregate.
        aggregate_id: String,
        /// The version.
        version: u64,
        /// Why.
        problem: FoldError,
    },
    /// The entry is not the one that its key or its predecessor calls for.
    #[error("history of {aggregate_id} goes from version {last} to version {version}")]
    OutOfSequence {
        /// The aggregate.
        aggregate_id: String,
        /// The version before.
        last: u64,
        /// The version found.
        version: u64,
    },
    /// The aggregate goes on after its tombstone.
    #[error("history of {aggregate_id} goes on after its tombstone, version {tombstone}")]
    AfterTombstone {
        /// The aggregate.
        aggregate_id: String,
        /// The tombstone's version.
        tombstone: u64,
    },
}

/// An entry of history, read with every upcast: what rebuilds and readers fold.
#[derive(Debug)]
pub(super) struct ReadEntry<'a, A: Aggregate> {
    pub(super) origin: Origin,
    pub(super) envelope: Envelope<'a>,
    pub(super) event: A::Event,
}

impl<'a, A: Aggregate> ReadEntry<'a, A> {
    /// Reads the entry at `key`.
    pub(super) fn parse(key: &HistoryKey, entry: &'a HistoryEntry) -> Result<Self, ReplayError> {
        let unreadable = |problem| ReplayError::Unreadable {
            aggregate_id: key.aggregate_id.clone(),
            version: key.version,
            problem,
        };
        let envelope = Envelope::parse(&entry.event).map_err(|error| unreadable(error.into()))?;
        if envelope.aggregate_version != key.version || envelope.aggregate_id != key.aggregate_id {
            return Err(out_of_sequence(key, 0));
        }
        let event = A::Event::read(&envelope.event_type, envelope.schema_version, envelope.data)
            .map_err(|error| unreadable(error.into()))?;
        Ok(Self {
            origin: entry.origin,
            envelope,
            event,
        })
    }

    /// Returns the aggregate before the event: `record`, or the opening when it is the first.
    pub(super) fn before(
        &self,
        record: Option<AggregateRecord<A::State>>,
    ) -> Result<AggregateRecord<A::State>, ReplayError> {
        let version = self.envelope.aggregate_version;
        if let Some(record) = record.as_ref().filter(|record| record.tombstoned) {
            return Err(ReplayError::AfterTombstone {
                aggregate_id: self.envelope.aggregate_id.to_string(),
                tombstone: record.version,
            });
        }
        let last = record.as_ref().map(|record| record.version);
        let follows = last.is_none_or(|last| last.checked_add(1) == Some(version));
        let native_from_one = last.is_some() || self.origin == Origin::Foreign || version == 1;
        if !follows || !native_from_one {
            let key = HistoryKey::new(self.envelope.aggregate_id.as_ref(), version);
            return Err(out_of_sequence(&key, last.unwrap_or(0)));
        }
        Ok(record.unwrap_or_else(|| open::<A>(self.origin, &self.envelope, &self.event)))
    }

    /// Applies the event to what was before it.
    pub(super) fn apply(&self, before: &mut AggregateRecord<A::State>) {
        advance::<A>(before, &self.envelope, &self.event);
    }
}

fn out_of_sequence(key: &HistoryKey, last: u64) -> ReplayError {
    ReplayError::OutOfSequence {
        aggregate_id: key.aggregate_id.clone(),
        last,
        version: key.version,
    }
}

/// Folds the next entry of an aggregate's history, as a rebuild does: what was once applied is
/// applied again, without judging it again.
///
/// # Errors
/// [`ReplayError`].
pub fn replay<A: Aggregate>(
    record: Option<AggregateRecord<A::State>>,
    key: &HistoryKey,
    entry: &HistoryEntry,
) -> Result<AggregateRecord<A::State>, ReplayError> {
    let entry = ReadEntry::<A>::parse(key, entry)?;
    let mut record = entry.before(record)?;
    entry.apply(&mut record);
    Ok(record)
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
