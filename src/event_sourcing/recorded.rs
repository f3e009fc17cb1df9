//! What read models and processes are drawn from beside an aggregate's changes: every event with the
//! state around it, and how every command ended.
//!
//! # Invariants
//! - [`Drawn::events`] is complete exactly once with respect to the derived stores below it: an event
//!   comes when it becomes part of its aggregate, and again only in a rebuild, which has deleted what
//!   was made of it before. So a sum over it is right after a reset, too.
//! - A rebuild brings events aggregate by aggregate: within an aggregate in order, among aggregates
//!   not by time. [`Occasion::Rebuilt`] marks them; nothing with an effect beyond derived state
//!   (issuing a command) may follow from one.

use std::fmt;

use super::aggregate::Aggregate;
use super::command::{CommandEnvelope, CommandError, Reply};
use super::decision::{AggregateRecord, Appended, FoldError, ReadEntry, ReplayError, replay};
use super::envelope::{Envelope, Metadata};
use super::history::{HistoryEntry, Origin};
use super::message::Step;
use super::process::ProcessRef;
use super::projection::Projections;
use super::upcast::Event;
use crate::clock::Timestamp;
use crate::dsl::KStream;

/// An aggregate as part of a topology, with all that can be drawn from it. Made by
/// [`EventSourced::draw_all`](super::EventSourced::draw_all); the keys are aggregate ids.
pub struct Drawn<A: Aggregate> {
    /// As [`EventSourced::draw`](super::EventSourced::draw) returns it: one record per event with the
    /// aggregate after it, one per aggregate after a rebuild. A topic of current states is drawn from
    /// it by [`AggregateRecord::alive`].
    pub changes: KStream<String, AggregateRecord<A::State>>,
    /// Every event, in a rebuild as well. A record's timestamp is the event's, or the clock's where
    /// that of another system runs ahead.
    pub events: KStream<String, RecordedEvent<A::Event, A::State>>,
    /// How each command ended, those that are repeated too; nothing in a rebuild.
    pub outcomes: KStream<String, CommandOutcome>,
    /// Draws read models that can be built anew while they serve.
    pub projections: Projections<A>,
}

/// An aggregate that messages come to, with all that can be drawn from it. Made by
/// [`EventSourced::draw_on_all`](super::EventSourced::draw_on_all); the keys are aggregate ids.
pub struct DrawnSteps<A: Aggregate> {
    /// As [`EventSourced::draw_on`](super::EventSourced::draw_on) returns it.
    pub steps: KStream<String, Step<A::State>>,
    /// Draws read models that can be built anew while they serve.
    pub projections: Projections<A>,
}

impl<A: Aggregate> fmt::Debug for DrawnSteps<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrawnSteps")
            .field("aggregate", &A::TYPE)
            .finish_non_exhaustive()
    }
}

impl<A: Aggregate> fmt::Debug for Drawn<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drawn")
            .field("aggregate", &A::TYPE)
            .finish_non_exhaustive()
    }
}

/// Why an event is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// A command has brought it about just now.
    Decided {
        /// Whether it is the last of its command: the aggregate comes to rest with it.
        last: bool,
    },
    /// Another system's event has been folded just now.
    Folded,
    /// Derived state is rebuilt from history.
    Rebuilt,
}

/// An event with the state around it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvent<E, S> {
    /// The event, in its current schema version.
    pub event: E,
    /// `eventId`.
    pub event_id: String,
    /// The version of the aggregate's first event.
    pub first_version: u64,
    /// The aggregate's version after it.
    pub version: u64,
    /// The aggregate's time after it: the event's, or that of a predecessor where another system's clock
    /// has gone back.
    pub updated_at: Timestamp,
    /// When it occurred.
    pub timestamp: Timestamp,
    /// `correlationId`.
    pub correlation_id: String,
    /// `causationId`: of ours, the command's id.
    pub causation_id: Option<String>,
    /// Who, why and by what source.
    pub metadata: Option<Metadata>,
    /// The state before; `None` for the first event.
    pub before: Option<S>,
    /// The state after; the default when this is the tombstone, since there is none.
    pub after: S,
    /// Whether this is the aggregate's [tombstone](Aggregate::is_tombstone).
    pub tombstoned: bool,
    /// Who owns the aggregate.
    pub origin: Origin,
    /// Why it is handed on.
    pub occasion: Occasion,
    /// The process whose step brought it about; `None` for any other command, and in a rebuild.
    pub process: Option<ProcessRef>,
}

impl<E, S: Clone> RecordedEvent<E, S> {
    /// Reads an event out of history.
    pub(super) fn of_history<A: Aggregate<Event = E, State = S>>(
        read: ReadEntry<'_, A>,
        before: Option<S>,
        after: &AggregateRecord<S>,
    ) -> Self {
        let ReadEntry {
            envelope, event, ..
        } = read;
        let metadata = envelope.metadata.map(|raw| serde_json::from_str(raw.get()));
        Self {
            event,
            event_id: envelope.event_id.into_owned(),
            first_version: after.first_version,
            version: envelope.aggregate_version,
            updated_at: after.updated_at,
            timestamp: envelope.timestamp,
            correlation_id: envelope.correlation_id.into_owned(),
            causation_id: envelope.causation_id.map(Into::into),
            // An object, as the envelope has checked.
            metadata: metadata.and_then(Result::ok),
            before,
            after: after.state.clone(),
            tombstoned: after.tombstoned,
            origin: after.origin,
            occasion: Occasion::Rebuilt,
            process: None,
        }
    }

    /// Returns the aggregate after the event.
    #[must_use]
    pub fn record(&self) -> AggregateRecord<S> {
        AggregateRecord {
            origin: self.origin,
            first_version: self.first_version,
            version: self.version,
            updated_at: self.updated_at,
            tombstoned: self.tombstoned,
            state: self.after.clone(),
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct CommandOutcome {
    /// The command as it came, JSON.
    pub(super) command: Vec<u8>,
    /// What was replied.
    pub reply: Reply,
    /// The process whose step it was.
    pub process: Option<ProcessRef>,
    /// The events of an accepted step of a process, as envelopes.
    pub(super) events: Vec<Vec<u8>>,
    /// Whether it was seen before, and this is its first reply again.
    pub repeated: bool,
}

impl CommandOutcome {
    /// Returns the command.
    ///
    /// # Errors
    /// [`CommandError`]: never for one that was handed on.
    pub fn command(&self) -> Result<CommandEnvelope<'_>, CommandError> {
        let mut command = CommandEnvelope::parse(&self.command)?;
        command.process.clone_from(&self.process);
        Ok(command)
    }
}

/// An event on its way downstream: read only where somebody listens.
#[derive(Debug, Clone)]
pub(super) struct Happened<S> {
    /// Its envelope.
    pub(super) event: Vec<u8>,
    pub(super) before: Option<S>,
    pub(super) after: AggregateRecord<S>,
    pub(super) occasion: Occasion,
    pub(super) process: Option<ProcessRef>,
}

impl<S: Clone> Happened<S> {
    /// Returns the events of a command with the states between them.
    pub(super) fn decided<A: Aggregate<State = S>>(
        known: Option<AggregateRecord<S>>,
        events: &[Appended],
        record: &AggregateRecord<S>,
        process: Option<&ProcessRef>,
    ) -> Result<Vec<Self>, ReplayError> {
        let mut before = known;
        let mut happened = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let last = index + 1 == events.len();
            let state = before.as_ref().map(|before| before.state.clone());
            let after = if last {
                record.clone()
            } else {
                let entry = HistoryEntry {
                    origin: Origin::Native,
                    event: event.value.clone(),
                };
                replay::<A>(before.take(), &event.key, &entry)?
            };
            happened.push(Self {
                event: event.value.clone(),
                before: state,
                after: after.clone(),
                occasion: Occasion::Decided { last },
                process: process.cloned(),
            });
            before = Some(after);
        }
        Ok(happened)
    }

    /// Reads the event.
    pub(super) fn read<A: Aggregate<State = S>>(
        self,
    ) -> Result<RecordedEvent<A::Event, S>, FoldError> {
        let envelope = Envelope::parse(&self.event)?;
        let event = A::Event::read(&envelope.event_type, envelope.schema_version, envelope.data)?;
        let metadata = envelope.metadata.map(|raw| serde_json::from_str(raw.get()));
        Ok(RecordedEvent {
            event,
            event_id: envelope.event_id.into_owned(),
            first_version: self.after.first_version,
            version: envelope.aggregate_version,
            updated_at: self.after.updated_at,
            timestamp: envelope.timestamp,
            correlation_id: envelope.correlation_id.into_owned(),
            causation_id: envelope.causation_id.map(Into::into),
            // An object, as the envelope has checked.
            metadata: metadata.and_then(Result::ok),
            before: self.before,
            tombstoned: self.after.tombstoned,
            after: self.after.state,
            origin: self.after.origin,
            occasion: self.occasion,
            process: self.process,
        })
    }
}
