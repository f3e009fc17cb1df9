//! Process managers (sagas): aggregates that move other aggregates, one step after the other.
//!
//! ```text
//!            commands of the process ─▶ Managed<P> ─▶ its events ─▶ pending(state)? ─┐
//!                     ▲                                                              ▼
//!  StepAnswered ──────┤                                   command `<process id>-<step>`
//!  triggers ──────────┘                                                              │
//!       ▲                                                                            ▼
//!       └────────────── outcomes, events ◀──────────────── the other aggregate decides
//! ```
//! # Position
//! A process is itself event-sourced: history, versions, stores, replies are those of
//! [`EventSourced`](super::EventSourced). What is added, all of it on the public DSL and Processor API:
//! a node that issues the pending step's command, and ways for answers and triggers into the process's
//! own command topic.
//! # Invariants
//! - A step is issued in the transaction of the event that makes it pending, and its answer reaches the
//!   process in the transaction that decides it. Nothing is between the two that could be lost.
//! - Command ids are `<process id>-<step>` and `<process id>-<step>-answer`: whatever is repeated meets
//!   the command memory of its receiver. That memory is the process's own ([`ProcessRef::memory_id`]):
//!   no other command can take the id beforehand.
//! - What is pending is a pure function of state; a rebuild issues nothing
//!   ([`Occasion::Rebuilt`](super::Occasion)), and an answer to a step that is not pending changes nothing.
//! - `<name>-pending` is a record store: a reset keeps what is under way.
//! - Receivers remember steps for good ([`ProcessRef::is_step`]): whenever one is issued again, it is
//!   carried out once.
//! # Failure
//! A step without an answer is issued again every [`Patience::reissue_after`], and given up after
//! [`Patience::give_up_after`]: logged, counted, marked in the store, and told to the process
//! ([`Process::given_up`]), which may have an operator resume it ([`Process::resumes`]). A late answer
//! still counts. `millstream_process_*` counts all of this.

mod issue;
mod manager;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use issue::{Patience, PendingStep};
pub use manager::{ProcessManager, Trigger};

use super::aggregate::Aggregate;
use super::command::{
    Command, CommandData, CommandEnvelope, CommandError, Outcome, Reply, ReplyReason,
};
use super::reason::{ReasonCode, Rejection, reasons};
use super::upcast::{Event, EventError};
use crate::log::Headers;

const PROCESS: &str = "process";
const PROCESS_ID: &str = "processId";
const PROCESS_STEP: &str = "processStep";
/// What the headers of a record name as its step that tells a process something.
const TRIGGER: &str = "trigger";

/// The step of a process that a command carries out: the headers `process`, `processId` and
/// `processStep` of its record, which its reply carries as well.
///
/// The headers are what makes a command one of a process. HTTP callers cannot set them; whoever else
/// may write to a command topic is trusted as the process is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessRef {
    /// The process's aggregate type.
    pub process: String,
    /// The process.
    pub process_id: String,
    /// The step.
    pub step: String,
}

impl ProcessRef {
    /// Reads it from a record's headers.
    #[must_use]
    pub fn from_headers(headers: &Headers) -> Option<Self> {
        let text = |key| {
            let value = headers.last(key)?;
            let text = std::str::from_utf8(value).ok()?;
            (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
        };
        Some(Self {
            process: text(PROCESS)?,
            process_id: text(PROCESS_ID)?,
            step: text(PROCESS_STEP)?,
        })
    }

    /// Appends it to a record's headers.
    pub fn write(&self, headers: &mut Headers) {
        for (key, text) in [
            (PROCESS, &self.process),
            (PROCESS_ID, &self.process_id),
            (PROCESS_STEP, &self.step),
        ] {
            headers.push(key, Some(text.clone().into_bytes()));
        }
    }

    /// Returns whether a command of a type is a step: neither an answer nor something that a process is
    /// told.
    #[must_use]
    pub fn is_step(&self, command_type: &str) -> bool {
        self.step != TRIGGER && command_type != StepAnswer::COMMAND_TYPE
    }

    /// Returns the id under which a command is remembered: its own, and for one of a process together
    /// with the process's type. No command's own id contains the U+0000 between them.
    #[must_use]
    pub fn memory_id(process: Option<&Self>, command_id: &str) -> String {
        match process {
            Some(process) => format!("{}\0{command_id}", process.process),
            None => command_id.to_owned(),
        }
    }
}

/// The steps of a process, usually an enum.
pub trait ProcessStep: fmt::Debug + Copy + Eq + 'static {
    /// Returns the name, part of the command's id. A process issues each name at most once: a second
    /// attempt is another step.
    fn name(self) -> Cow<'static, str>;
}

/// An aggregate that moves others: what it asks of whom follows from its state, and what comes back
/// are events of its own.
///
/// ```
/// # use std::borrow::Cow;
/// # use millstream::event_sourcing::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, PartialEq, Deserialize)]
/// # struct Order { room: String }
/// # impl CommandData for Order {}
/// # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// # struct Ordered { room: String }
/// # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// # struct Confirmed {}
/// # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// # struct Declined { code: String }
/// # millstream::first_version!(Ordered, Confirmed, Declined);
/// # millstream::commands! { pub enum TripCommand { Order(Order) } }
/// # millstream::events! { pub enum TripEvent { Ordered(Ordered), Confirmed(Confirmed), Declined(Declined) } }
/// # #[derive(Debug, thiserror::Error)]
/// # #[error("never")]
/// # struct Never;
/// # impl Rejection for Never { fn code(&self) -> ReasonCode { reasons::INVALID_COMMAND } }
/// /// A trip needs a room, which is reserved by another aggregate.
/// #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
/// struct Trip { room: Option<String>, decided: bool }
/// # impl Aggregate for Trip {
/// #     const TYPE: &'static str = "Trip";
/// #     type State = Self;
/// #     type Command = TripCommand;
/// #     type Event = TripEvent;
/// #     type Rejection = Never;
/// #     fn decide(_: &Trip, TripCommand::Order(order): TripCommand) -> Result<Vec<TripEvent>, Never> {
/// #         Ok(vec![Ordered { room: order.room }.into()])
/// #     }
/// #     fn apply(trip: &mut Trip, event: &TripEvent) {
/// #         match event {
/// #             TripEvent::Ordered(ordered) => trip.room = Some(ordered.room.clone()),
/// #             TripEvent::Confirmed(_) | TripEvent::Declined(_) => trip.decided = true,
/// #         }
/// #     }
/// # }
///
/// #[derive(Debug, Clone, Copy, PartialEq, Eq)]
/// enum Step { Reserve }
/// impl ProcessStep for Step {
///     fn name(self) -> Cow<'static, str> { "reserve".into() }
/// }
///
/// impl Process for Trip {
///     type Step = Step;
///
///     fn pending(trip: &Trip) -> Option<Step> {
///         (trip.room.is_some() && !trip.decided).then_some(Step::Reserve)
///     }
///     fn command(id: &str, trip: &Trip, _: Step) -> Result<StepCommand, JsonError> {
///         let room = trip.room.clone().unwrap_or_default();
///         StepCommand::new("Room", room, "Reserve", &serde_json::json!({"for": id}))
///     }
///     fn completed(_: &Trip, _: Step, _: &StepAnswer) -> Vec<TripEvent> {
///         vec![Confirmed {}.into()]
///     }
///     fn refused(_: &Trip, _: Step, reason: &ReplyReason) -> Vec<TripEvent> {
///         vec![Declined { code: reason.code.to_string() }.into()]
///     }
/// }
///
/// let ordered = || given::<Managed<Trip>>([Ordered { room: "12".into() }.into()]);
/// ordered().when(StepAnswer::accepted("reserve")).then([Confirmed {}.into()]);
/// ordered()
///     .when(StepAnswer::rejected("reserve", reasons::FOREIGN_OWNED))
///     .then([Declined { code: "FOREIGN_OWNED".into() }.into()])
///     .when(StepAnswer::accepted("reserve"))
///     .then_rejected(reasons::STEP_NOT_PENDING);
/// ```
pub trait Process: Aggregate {
    /// Its steps.
    type Step: ProcessStep;

    /// Returns the step whose answer it waits for; `None` at rest.
    fn pending(state: &Self::State) -> Option<Self::Step>;

    /// Returns what the step asks of whom. Must be the same whenever it is asked for.
    ///
    /// # Errors
    /// When the command's data has no JSON form.
    fn command(
        process_id: &str,
        state: &Self::State,
        step: Self::Step,
    ) -> Result<StepCommand, serde_json::Error>;

    /// Returns the events of a step that was carried out; at least one, which ends the step.
    fn completed(state: &Self::State, step: Self::Step, answer: &StepAnswer) -> Vec<Self::Event>;

    /// Returns the events of a step that was refused, at least one: the process fails, goes another way,
    /// or compensates, which is a further step.
    fn refused(state: &Self::State, step: Self::Step, reason: &ReplyReason) -> Vec<Self::Event>;

    /// Returns whether it has stopped half done, as when a compensation was refused. That is logged as an
    /// error and counted when it happens: an operator decides, by a command of the process that makes
    /// another step pending. Never, unless overridden.
    fn is_stuck(state: &Self::State) -> bool {
        let _ = state;
        false
    }

    /// Returns the events of a pending step that has had no answer for long and is issued no more. The
    /// step stays pending, as an answer may still come. None, unless overridden.
    #[expect(unused_variables, reason = "names for implementors")]
    fn given_up(state: &Self::State, step: Self::Step, attempts: u32) -> Vec<Self::Event> {
        Vec::new()
    }

    /// Returns whether an event has the pending step issued again that was given up, as when an operator
    /// has said so. Receivers remember steps for good: one that was carried out is answered again, and not
    /// carried out again. Never, unless overridden.
    #[expect(unused_variables, reason = "names for implementors")]
    fn resumes(event: &Self::Event) -> bool {
        false
    }
}

/// What a step asks of whom.
#[derive(Debug, Clone)]
pub struct StepCommand {
    /// The aggregate's type; see [`ProcessManager::asks`].
    pub aggregate_type: &'static str,
    /// The aggregate.
    pub aggregate_id: String,
    /// `commandType`.
    pub command_type: &'static str,
    /// `data`.
    pub data: Box<RawValue>,
}

impl StepCommand {
    /// Creates a command.
    ///
    /// # Errors
    /// When `data` has no JSON form.
    pub fn new(
        aggregate_type: &'static str,
        aggregate_id: impl Into<String>,
        command_type: &'static str,
        data: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            aggregate_type,
            aggregate_id: aggregate_id.into(),
            command_type,
            data: serde_json::value::to_raw_value(data)?,
        })
    }
}

/// How a step ended: `data` of the command `StepAnswered`, which only the process itself gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepAnswer {
    /// The step.
    pub step: String,
    /// What the other aggregate replied.
    pub reply: Reply,
    /// The events that the step has brought about.
    pub events: Vec<AnswerEvent>,
}

impl CommandData for StepAnswer {
    const OF_PROCESS: bool = true;
}

impl StepAnswer {
    const COMMAND_TYPE: &'static str = "StepAnswered";

    /// Returns an answer that says yes, for tests.
    #[must_use]
    pub fn accepted(step: &str) -> Self {
        Self::of(step, Outcome::Accepted, None)
    }

    /// Returns an answer that says no, for tests.
    #[must_use]
    pub fn rejected(step: &str, code: ReasonCode) -> Self {
        let reason = ReplyReason {
            code: code.as_str().into(),
            message: code.to_string(),
        };
        Self::of(step, Outcome::Rejected, Some(reason))
    }

    fn of(step: &str, outcome: Outcome, reason: Option<ReplyReason>) -> Self {
        Self {
            step: step.to_owned(),
            reply: Reply {
                command_id: step.to_owned(),
                aggregate_type: "".into(),
                aggregate_id: String::new(),
                outcome,
                aggregate_version: 0,
                tombstoned_at: None,
                event_ids: Vec::new(),
                reason,
            },
            events: Vec::new(),
        }
    }

    /// Adds an event that the step has brought about, for tests.
    ///
    /// # Errors
    /// When the event has no JSON form.
    pub fn with_event(mut self, event: &impl Event) -> Result<Self, serde_json::Error> {
        self.events.push(AnswerEvent {
            event_type: event.event_type().to_owned(),
            schema_version: event.schema_version(),
            data: event.data()?,
        });
        Ok(self)
    }
}

/// A step was given up: `data` of the command `StepGivenUp`, which only the process itself gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepGivenUp {
    /// The step.
    pub step: String,
    /// How often it was issued.
    pub attempts: u32,
}

impl CommandData for StepGivenUp {
    const OF_PROCESS: bool = true;
}

impl StepGivenUp {
    const COMMAND_TYPE: &'static str = "StepGivenUp";
}

/// An event that a step has brought about.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerEvent {
    /// `eventType`.
    pub event_type: String,
    /// The version of `data`.
    pub schema_version: u32,
    /// The event's own fields.
    pub data: Box<RawValue>,
}

impl AnswerEvent {
    /// Reads the event, upcasting where it is older.
    ///
    /// # Errors
    /// [`EventError`].
    pub fn read<E: Event>(&self) -> Result<E, EventError> {
        E::read(&self.event_type, self.schema_version, &self.data)
    }
}

/// A [`Process`] as the aggregate that is drawn: it takes the process's own commands, and answers.
#[derive(Debug)]
pub struct Managed<P>(PhantomData<fn() -> P>);

/// A command of a [`Managed`] process.
#[derive(Debug, Clone)]
pub enum ProcessCommand<C> {
    /// One of its own.
    Own(C),
    /// A step was answered.
    StepAnswered(Box<StepAnswer>),
    /// A step was given up.
    StepGivenUp(StepGivenUp),
}

impl<C> From<StepGivenUp> for ProcessCommand<C> {
    fn from(given_up: StepGivenUp) -> Self {
        Self::StepGivenUp(given_up)
    }
}

impl<C> From<StepAnswer> for ProcessCommand<C> {
    fn from(answer: StepAnswer) -> Self {
        Self::StepAnswered(Box::new(answer))
    }
}

impl<C: Command> Command for ProcessCommand<C> {
    fn read(envelope: &CommandEnvelope<'_>) -> Result<Self, CommandError> {
        match envelope.command_type.as_ref() {
            StepAnswer::COMMAND_TYPE => Ok(<StepAnswer as CommandData>::read(envelope)?.into()),
            StepGivenUp::COMMAND_TYPE => Ok(<StepGivenUp as CommandData>::read(envelope)?.into()),
            _ => C::read(envelope).map(Self::Own),
        }
    }
}

/// Why a [`Managed`] process refuses a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagedRejection<R> {
    /// A rule of its own.
    Own(R),
    /// A step that it does not wait for was answered, or given up.
    NotPending {
        /// The step.
        step: String,
    },
}

impl<R: fmt::Display> fmt::Display for ManagedRejection<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(rejection) => rejection.fmt(f),
            Self::NotPending { step } => write!(f, "the process does not wait for step `{step}`"),
        }
    }
}

impl<R: Rejection> Rejection for ManagedRejection<R> {
    fn code(&self) -> ReasonCode {
        match self {
            Self::Own(rejection) => rejection.code(),
            Self::NotPending { .. } => reasons::STEP_NOT_PENDING,
        }
    }
}

/// Returns the step of a name, if it is the one that the process waits for.
fn pending<P: Process>(
    state: &P::State,
    name: &str,
) -> Result<P::Step, ManagedRejection<P::Rejection>> {
    let step = P::pending(state).filter(|step| step.name() == name);
    step.ok_or_else(|| ManagedRejection::NotPending {
        step: name.to_owned(),
    })
}

impl<P: Process> Aggregate for Managed<P> {
    const TYPE: &'static str = P::TYPE;
    type State = P::State;
    type Command = ProcessCommand<P::Command>;
    type Event = P::Event;
    type Rejection = ManagedRejection<P::Rejection>;

    fn decide(state: &P::State, command: Self::Command) -> Result<Vec<P::Event>, Self::Rejection> {
        let answer = match command {
            ProcessCommand::Own(command) => {
                return P::decide(state, command).map_err(ManagedRejection::Own);
            }
            ProcessCommand::StepGivenUp(StepGivenUp { step, attempts }) => {
                let step = pending::<P>(state, &step)?;
                return Ok(P::given_up(state, step, attempts));
            }
            ProcessCommand::StepAnswered(answer) => answer,
        };
        let step = pending::<P>(state, &answer.step)?;
        Ok(match (answer.reply.outcome, &answer.reply.reason) {
            (Outcome::Accepted, _) => P::completed(state, step, &answer),
            (Outcome::Rejected | Outcome::Conflict, Some(reason)) => {
                P::refused(state, step, reason)
            }
            (Outcome::Rejected | Outcome::Conflict, None) => {
                let reason = ReplyReason {
                    code: reasons::INVALID_COMMAND.as_str().into(),
                    message: "the step was refused without a reason".to_owned(),
                };
                P::refused(state, step, &reason)
            }
        })
    }

    fn apply(state: &mut P::State, event: &P::Event) {
        P::apply(state, event);
    }

    fn follows(state: &P::State, event: &P::Event) -> Result<(), Self::Rejection> {
        P::follows(state, event).map_err(ManagedRejection::Own)
    }

    fn adopt(state: &mut P::State, first: &P::Event) {
        P::adopt(state, first);
    }

    fn is_tombstone(event: &P::Event) -> bool {
        P::is_tombstone(event)
    }
}
