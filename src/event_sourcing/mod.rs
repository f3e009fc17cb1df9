//! Event sourcing on streams: aggregates whose only truth is their events.
//!
//! # Position
//! Built **on** the public DSL and Processor API, not inside the runtime. A topology crate brings an
//! [`Aggregate`] (its state, commands, events and rules, all pure); this module brings what every
//! aggregate needs: the wire forms ([`Envelope`], [`CommandEnvelope`], [`Reply`]), the chain of
//! schema versions ([`Versioned`]), the judgement of what is read back ([`judge`]), size limits, and
//! the stores with all that is derived from events.
//!
//! [`EventSourced::draw`] is enough for one aggregate; [`EventSourced::draw_all`] also hands on every
//! event and every command's outcome, for read models that count events and for a [`Process`]: an
//! aggregate that moves others, step by step.
//! # Invariants
//! - Versions of an aggregate are gapless, and an event once written is never edited.
//! - A command is answered once: its id is remembered, and repeated it gets its first reply again.
//! - What is written for one command is written whole (events, history, state, read model, reply) or
//!   not at all.
//! - Upcasters run on every read path; there is one function to read an event and it is [`Event::read`].
//! # Failure
//! What cannot be read, does not follow or is unknown carries a [`ReasonCode`]: a command gets a
//! rejection, an event a dead letter. Nothing here panics on input.
//!
//! The past is read through [`AggregateHistory`]: states at any time or version, timelines, differences,
//! the events of a period; across its store, an archive ([`EventArchive`]) and the topic. [`Projections`]
//! are read models that are rebuilt beside the one that serves.

mod aggregate;
mod aggregate_history;
mod archived;
mod command;
mod command_processor;
mod current_state;
mod decision;
mod envelope;
mod event_index;
mod event_processor;
mod history;
mod json;
mod limits;
mod message;
mod meter;
mod process;
mod projection;
mod reason;
mod rebuild;
mod recorded;
mod reply_hub;
mod repository;
mod snapshot;
mod stores;
mod time;
mod topology;
mod trim;
mod upcast;

pub use aggregate::{Aggregate, Given, Then, given};
pub use aggregate_history::{
    AggregateHistory, AsOf, Change, Deviation, Difference, DifferencePoint, EventPeriod,
    EventsOfPeriod, GroupsPartition, GroupsVerified, GroupsView, HistoryReadError,
    PAGE_ENTRIES_MAX, Page, Point, PointError, ProjectionEndpoint, ProjectionPartition,
    ProjectionView, Reads, TimelineEntry, Verification,
};
pub(crate) use aggregate_history::{HistoryReader, ReplayedRow, StoreEntries, StoresInLog};
pub use archived::{ArchivedEvent, ArchivedEventsError, EventArchive, PastEvents, StoredEvent};
pub use command::{
    Command, CommandData, CommandEnvelope, CommandError, CompletedCommand, Outcome, Reply,
    ReplyReason,
};
pub use decision::{
    AggregateRecord, Appended, Decision, DecisionError, FoldError, Refusal, ReplayError,
    decide_command, decide_message, fold_foreign, replay,
};
pub use envelope::{Attribution, Envelope, EnvelopeError, Metadata, event_id};
pub use history::{
    HistoryEntry, HistoryError, HistoryKey, Incoming, Known, Origin, Stored, Verdict,
    history_range, judge,
};
pub use limits::{EVENT_BYTES_LARGE, EVENT_BYTES_MAX, EventSize, EventTooLarge, event_size};
pub use message::{Message, Step, StepEvent};
pub use process::{
    AnswerEvent, Managed, ManagedRejection, Patience, PendingStep, Process, ProcessCommand,
    ProcessManager, ProcessRef, ProcessStep, StepAnswer, StepCommand, StepGivenUp, Trigger,
};
pub use projection::{
    Grouped, GroupedProjection, PartKey, PartKeySerde, Projected, Projection, ProjectionPhase,
    ProjectionProgress, Projections, RowKey, RowValue, Rows, Shares,
};
pub use reason::{ReasonCode, Rejection, reasons};
pub use recorded::{CommandOutcome, Drawn, DrawnSteps, Occasion, RecordedEvent};
pub use reply_hub::{ReplyHub, ReplyWaiter};
pub use serde_json::Error as JsonError;
pub use serde_json::value::RawValue;
pub use stores::{
    CommandKey, DerivedForm, HistoryKeySerde, RebuildPosition, RebuildProgress, RememberedCommand,
};
pub use time::{TimeError, format_timestamp, parse_timestamp};
pub use topology::{
    AggregateTopics, CommandMemory, EventSourced, SNAPSHOT_INTERVAL, TOPIC_RETENTION,
    compacted_topic, expiring_topic,
};
pub use upcast::{Event, EventError, FirstVersion, Versioned};

#[cfg(test)]
mod bench;
#[cfg(test)]
mod counter;
#[cfg(test)]
mod processor_tests;
