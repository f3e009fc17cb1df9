//! What a topology author writes: an aggregate, as four types and a few pure functions.
//!
//! ```
//! # use millstream::event_sourcing::*;
//! # use serde::{Deserialize, Serialize};
//! #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
//! struct Door { open: bool }
//!
//! #[derive(Debug, Clone, PartialEq, Deserialize)]
//! struct Open {}
//! impl CommandData for Open {}
//!
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
//! struct DoorOpened {}
//! millstream::first_version!(DoorOpened);
//!
//! millstream::commands! { pub enum DoorCommand { Open(Open) } }
//! millstream::events! { pub enum DoorEvent { DoorOpened(DoorOpened) } }
//!
//! const ALREADY_OPEN: ReasonCode = ReasonCode::new("ALREADY_OPEN");
//! #[derive(Debug, thiserror::Error)]
//! #[error("the door is open already")]
//! struct AlreadyOpen;
//! impl Rejection for AlreadyOpen {
//!     fn code(&self) -> ReasonCode { ALREADY_OPEN }
//! }
//!
//! impl Aggregate for Door {
//!     const TYPE: &'static str = "Door";
//!     type State = Self;
//!     type Command = DoorCommand;
//!     type Event = DoorEvent;
//!     type Rejection = AlreadyOpen;
//!
//!     fn decide(door: &Door, command: DoorCommand) -> Result<Vec<DoorEvent>, AlreadyOpen> {
//!         match command {
//!             DoorCommand::Open(_) if door.open => Err(AlreadyOpen),
//!             DoorCommand::Open(_) => Ok(vec![DoorOpened {}.into()]),
//!         }
//!     }
//!
//!     fn apply(door: &mut Door, event: &DoorEvent) {
//!         match event { DoorEvent::DoorOpened(_) => door.open = true }
//!     }
//! }
//!
//! given::<Door>([])
//!     .when(Open {}).then([DoorOpened {}.into()])
//!     .when(Open {}).then_rejected(ALREADY_OPEN);
//! ```

use std::fmt::Debug;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::command::Command;
use super::reason::{ReasonCode, Rejection, reasons};
use super::upcast::Event;

/// A consistency boundary: one id, one gapless sequence of events, one place that decides.
///
/// All functions are pure. Time, ids, versions, envelopes, duplicates and stores are the layer's.
pub trait Aggregate: 'static {
    /// `aggregateType` on the wire.
    const TYPE: &'static str;
    /// The version of [`State`](Self::State)'s stored form, in snapshots and the current state. Raise it
    /// when older forms no longer read, or no longer mean what they say (a field whose content
    /// changed): everything derived is then rebuilt from history when a task starts. A form that does
    /// not read is rebuilt without that, one aggregate at a time.
    const STATE_VERSION: u32 = 1;
    /// What the events add up to; [`Default`] is the state before the first. It is derived, so its
    /// stored form may change: see [`STATE_VERSION`](Self::STATE_VERSION).
    type State: Debug + Clone + Default + PartialEq + Serialize + DeserializeOwned + Send;
    /// The commands; see [`commands!`](crate::commands).
    type Command: Command + Debug;
    /// The events; see [`events!`](crate::events).
    type Event: Event + Debug + Clone + PartialEq;
    /// Why a command is refused, or an event of another system does not follow.
    type Rejection: Rejection;

    /// Decides a command: the events that happen because of it, or why nothing does.
    ///
    /// # Errors
    /// A rule that speaks against it. Nothing but the reply is written then.
    fn decide(
        state: &Self::State,
        command: Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Applies an event. Cannot fail: what an event says has happened. Not asked for a
    /// [tombstone](Self::is_tombstone), after which there is no state.
    fn apply(state: &mut Self::State, event: &Self::Event);

    /// Returns whether an event is its aggregate's tombstone: it ends the aggregate for good. An event
    /// like any other, versioned and kept, but the last: commands, messages and events of other systems
    /// are refused `TOMBSTONED` from then on, and the id is not used again. The state and the rows of
    /// projections are gone; the past can be read as before. No event is one unless overridden.
    ///
    /// An event that is out may become one later only where nothing has followed it; raise
    /// [`STATE_VERSION`](Self::STATE_VERSION) with it. History that goes on behind a tombstone stops the
    /// task by name.
    #[expect(unused_variables, reason = "names for implementors")]
    fn is_tombstone(event: &Self::Event) -> bool {
        false
    }

    /// Checks that an event of another system follows from `state`, before it is applied. Events of
    /// this system follow by construction and are not checked. Accepts everything unless
    /// overridden.
    ///
    /// # Errors
    /// What does not follow; the event becomes a dead letter.
    #[expect(unused_variables, reason = "names for implementors")]
    fn follows(state: &Self::State, event: &Self::Event) -> Result<(), Self::Rejection> {
        Ok(())
    }

    /// Sets the opening of an aggregate whose first event is of another system and above version 1:
    /// takes over what `first` says of the state before it. Does nothing unless overridden.
    #[expect(unused_variables, reason = "names for implementors")]
    fn adopt(state: &mut Self::State, first: &Self::Event) {}
}

/// Takes an event into a state; returns whether it is the tombstone, after which the state is the
/// default: there is none. The one way in which events add up.
pub(super) fn take_in<A: Aggregate>(state: &mut A::State, event: &A::Event) -> bool {
    let ends = A::is_tombstone(event);
    if ends {
        *state = A::State::default();
    } else {
        A::apply(state, event);
    }
    ends
}

/// Starts a scenario: the state after `events`. See [`Aggregate`] for an example.
///
/// # Panics
/// When an event does not follow from those before it: such a history could not be.
#[must_use]
#[track_caller]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut given = Given {
        state: A::State::default(),
        tombstoned: false,
        aggregate: PhantomData,
    };
    for event in events {
        given.take(&event);
    }
    given
}

/// A scenario that waits for a command. Made by [`given`].
#[derive(Debug)]
pub struct Given<A: Aggregate> {
    state: A::State,
    tombstoned: bool,
    aggregate: PhantomData<A>,
}

impl<A: Aggregate> Given<A> {
    /// Lets the aggregate decide a command; after its [tombstone](Aggregate::is_tombstone) the layer
    /// refuses it `TOMBSTONED`.
    #[must_use = "a scenario without expectation shows nothing"]
    pub fn when(self, command: impl Into<A::Command>) -> Then<A> {
        let outcome = if self.tombstoned {
            Err(Refused::Tombstoned)
        } else {
            A::decide(&self.state, command.into()).map_err(Refused::Rule)
        };
        Then {
            given: self,
            outcome,
        }
    }

    /// Returns the state; of a tombstoned aggregate the default.
    #[must_use]
    pub const fn state(&self) -> &A::State {
        &self.state
    }

    /// Returns whether the last event was the aggregate's [tombstone](Aggregate::is_tombstone).
    #[must_use]
    pub const fn is_tombstoned(&self) -> bool {
        self.tombstoned
    }

    #[track_caller]
    fn take(&mut self, event: &A::Event) {
        assert!(
            !self.tombstoned,
            "{event:?} does not follow: the aggregate is tombstoned"
        );
        let follows = A::follows(&self.state, event);
        assert!(follows.is_ok(), "{event:?} does not follow: {follows:?}");
        self.tombstoned = take_in::<A>(&mut self.state, event);
    }
}

/// Why a scenario's command was refused.
#[derive(Debug)]
enum Refused<R> {
    /// By the layer: the aggregate is tombstoned.
    Tombstoned,
    /// By a rule.
    Rule(R),
}

impl<R: Rejection> Refused<R> {
    fn code(&self) -> ReasonCode {
        match self {
            Self::Tombstoned => reasons::TOMBSTONED,
            Self::Rule(rejection) => rejection.code(),
        }
    }
}

/// A scenario in which a command was decided. Made by [`Given::when`].
#[derive(Debug)]
pub struct Then<A: Aggregate> {
    given: Given<A>,
    outcome: Result<Vec<A::Event>, Refused<A::Rejection>>,
}

impl<A: Aggregate> Then<A> {
    /// Expects exactly these events, and goes on from the state after them.
    ///
    /// # Panics
    /// When others happened, when one would not follow if another system had written it, or when one
    /// comes after a tombstone.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) -> Given<A> {
        let expected: Vec<_> = expected.into_iter().collect();
        let mut given = self.given;
        match self.outcome {
            Ok(events) => {
                assert!(
                    events == expected,
                    "expected {expected:#?}, got {events:#?}"
                );
            }
            Err(rejection) => {
                let rejected = Some(rejection);
                assert!(
                    rejected.is_none(),
                    "expected {expected:#?}, got {rejected:?}"
                );
            }
        }
        for event in &expected {
            given.take(event);
        }
        given
    }

    /// Expects a rejection with this code, and goes on from the unchanged state.
    ///
    /// # Panics
    /// When the command was accepted or rejected with another code.
    #[track_caller]
    pub fn then_rejected(self, code: ReasonCode) -> Given<A> {
        let found = self.outcome.as_ref().map_err(Refused::code);
        assert!(
            found == Err(code),
            "expected a rejection {code}, got {:?}",
            self.outcome
        );
        self.given
    }
}
