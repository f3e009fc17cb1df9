//! The commit × restore × takeover protocol: every decision that exactly-once rests on, as pure
//! transitions and pure functions.
//!
//! # Position
//! `runtime::commit` moves a thread's [`TransactionState`] with each answer of the log and does what
//! the new state allows; `runtime::restore` and `runtime::task` ask [`restore`] what local state is
//! worth. `tests/protocol_model.rs` drives the same type against a model of brokers, crashes,
//! zombies and compaction, so the model checks what runs.
//!
//! # The state of a thread's producer
//! ```text
//!            Initialised       Begun        OffsetsSent           CommitRequested
//!  Unsettled ──────────▶ Idle ──────▶ Open ─────────────▶ OffsetsSent ──────────▶ CommitRequested ◀┐
//!      ▲                 ▲ ▲            │                     │                  │   │   │         │
//!      │                 │ │            │ AbortDecided, AbortRequired ◀──────────┘   │   │ Commit  │ Commit
//!      │                 │ │            ▼                     ▼     AbortRequired    │   │ Unknown │ Requested
//!      │                 │ │ RolledBack          AbortSucceeded                      │   ▼         │
//!      │                 │ └─────────── Aborted ◀────────────── Aborting             │ OutcomeUnknown
//!      │                 │                                                           │   │
//!      │                 │ Applied                                 CommitSucceeded   │   │
//!      │                 └─────────── Committed ◀────────────────────────────────────┴───┘
//!      │ TasksClosed
//!      ├──────────── Fenced        ◀── Fenced, from every state with a producer but Committed
//!      └──────────── Undetermined  ◀── Fatal, likewise; AbortRequired once the outcome is unknown
//! ```
//! # Invariants
//! - A commit is requested only after the offsets of every task in the transaction were sent, fenced
//!   by the group's generation: `CommitRequested` is reached through `OffsetsSent` alone.
//! - RocksDB is written only in `Committed` ([`TransactionState::may_apply`]).
//! - Once a commit was requested, nothing but the log decides: no abort of our own, no roll-back, no
//!   record. An outcome that stays unknown closes the tasks; `init_transactions` settles the
//!   transaction, and the committed offsets tell which way it went.
//! - After an abort no record is processed before all uncommitted state was dropped (`Aborted`).
//! # Failure
//! A transition that is not drawn is a bug, [`IllegalTransition`]: the thread stops without a commit.

pub mod restore;

use crate::log::LogError;

/// Where a thread's transaction stands. See the [module](self) for the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum TransactionState {
    /// The producer is not initialised: what a predecessor (or this thread) left open is not
    /// settled, and no task runs.
    #[default]
    Unsettled,
    /// No transaction is open; stores hold nothing uncommitted.
    Idle,
    /// Records have been processed, outputs sent; nothing is decided.
    Open,
    /// Changelogs and offsets are in the transaction too: nothing may join it any more.
    OffsetsSent,
    /// A commit request is on its way.
    CommitRequested,
    /// The commit may or may not have happened: request it again.
    OutcomeUnknown,
    /// The transaction has committed, the stores do not have it yet.
    Committed,
    /// The transaction is to be aborted.
    Aborting,
    /// The transaction was aborted; stores, processors and positions still show it.
    Aborted,
    /// Another member or producer has taken over: close all tasks without a commit, rejoin.
    Fenced,
    /// The producer is lost, and with it perhaps the answer to a commit: close all tasks without a
    /// commit, create the producer anew.
    Undetermined,
}

/// What happened to a thread's transaction: steps of the thread and answers of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransactionEvent {
    /// `init_transactions` succeeded: predecessors are fenced, their transactions settled.
    Initialised,
    /// A transaction was begun.
    Begun,
    /// The changelogs and the offsets of every task in the transaction were sent.
    OffsetsSent,
    /// The commit was requested, or requested again.
    CommitRequested,
    /// The commit succeeded.
    CommitSucceeded,
    /// The commit's answer was lost or left the outcome open.
    CommitUnknown,
    /// The thread wants no commit: a task was lost, or failed.
    AbortDecided,
    /// The log demands an abort.
    AbortRequired,
    /// The abort succeeded.
    AbortSucceeded,
    /// Every task's batch is in its stores.
    Applied,
    /// Every task's uncommitted state is dropped, its positions are the committed ones.
    RolledBack,
    /// A call was refused because of a newer producer or generation.
    Fenced,
    /// The producer can do nothing more.
    Fatal,
    /// Every task is closed without a commit.
    TasksClosed,
}

/// A step that the protocol does not know: a bug in its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("transaction event {event:?} is not allowed in state {state:?}")]
pub struct IllegalTransition {
    /// The state.
    pub state: TransactionState,
    /// The event.
    pub event: TransactionEvent,
}

impl TransactionState {
    /// All states.
    pub const ALL: [Self; 11] = [
        Self::Unsettled,
        Self::Idle,
        Self::Open,
        Self::OffsetsSent,
        Self::CommitRequested,
        Self::OutcomeUnknown,
        Self::Committed,
        Self::Aborting,
        Self::Aborted,
        Self::Fenced,
        Self::Undetermined,
    ];

    /// Returns the state after `event`.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the protocol has no such step.
    pub fn next(self, event: TransactionEvent) -> Result<Self, IllegalTransition> {
        use TransactionEvent as E;
        match (self, event) {
            (Self::Unsettled, E::Initialised)
            | (Self::Committed, E::Applied)
            | (Self::Aborted, E::RolledBack) => Ok(Self::Idle),
            (Self::Idle, E::Begun) => Ok(Self::Open),
            (Self::Open, E::OffsetsSent) => Ok(Self::OffsetsSent),
            (Self::OffsetsSent | Self::OutcomeUnknown, E::CommitRequested) => {
                Ok(Self::CommitRequested)
            }
            (Self::CommitRequested | Self::OutcomeUnknown, E::CommitUnknown) => {
                Ok(Self::OutcomeUnknown)
            }
            (Self::CommitRequested | Self::OutcomeUnknown, E::CommitSucceeded) => {
                Ok(Self::Committed)
            }
            (Self::Open | Self::OffsetsSent, E::AbortDecided | E::AbortRequired)
            | (Self::CommitRequested | Self::Aborting, E::AbortRequired) => Ok(Self::Aborting),
            (Self::Aborting, E::AbortSucceeded) => Ok(Self::Aborted),
            // Aborting is not allowed any more (librdkafka: `__CONFLICT`), and the demand says
            // nothing about an earlier request that may have been served.
            (Self::OutcomeUnknown, E::AbortRequired) => Ok(Self::Undetermined),
            (Self::Fenced | Self::Undetermined, E::TasksClosed)
            | (Self::Unsettled, E::Fenced | E::Fatal) => Ok(Self::Unsettled),
            (
                Self::Idle
                | Self::Open
                | Self::OffsetsSent
                | Self::CommitRequested
                | Self::OutcomeUnknown
                | Self::Aborting
                | Self::Aborted
                | Self::Undetermined,
                E::Fenced,
            )
            | (Self::Fenced, E::Fenced | E::Fatal) => Ok(Self::Fenced),
            (
                Self::Idle
                | Self::Open
                | Self::OffsetsSent
                | Self::CommitRequested
                | Self::OutcomeUnknown
                | Self::Aborting
                | Self::Aborted
                | Self::Undetermined,
                E::Fatal,
            ) => Ok(Self::Undetermined),
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }

    /// Returns whether records may be processed and punctuators served.
    #[must_use]
    pub const fn may_process(self) -> bool {
        matches!(self, Self::Idle | Self::Open)
    }

    /// Returns whether the stores may be written.
    #[must_use]
    pub const fn may_apply(self) -> bool {
        matches!(self, Self::Committed)
    }

    /// Returns whether the thread may still choose to abort.
    #[must_use]
    pub const fn may_abort(self) -> bool {
        matches!(self, Self::Open | Self::OffsetsSent)
    }

    /// Returns whether tasks may be opened, closed cleanly, and partitions given back: nothing is
    /// uncommitted, and nothing committed is unapplied.
    #[must_use]
    pub const fn may_change_tasks(self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Returns whether all tasks must be closed without a commit.
    #[must_use]
    pub const fn must_close_tasks(self) -> bool {
        matches!(self, Self::Fenced | Self::Undetermined)
    }
}

impl TransactionEvent {
    /// All events.
    pub const ALL: [Self; 14] = [
        Self::Initialised,
        Self::Begun,
        Self::OffsetsSent,
        Self::CommitRequested,
        Self::CommitSucceeded,
        Self::CommitUnknown,
        Self::AbortDecided,
        Self::AbortRequired,
        Self::AbortSucceeded,
        Self::Applied,
        Self::RolledBack,
        Self::Fenced,
        Self::Fatal,
        Self::TasksClosed,
    ];

    /// Translates what the log said to any call but the commit; `None` where the transaction is
    /// untouched: call again ([`LogError::Retriable`]) or meet the record's policy.
    #[must_use]
    pub fn of_error(error: &LogError) -> Option<Self> {
        match error {
            LogError::AbortRequired { .. }
            | LogError::RecordRefused { .. }
            | LogError::OffsetMetadataTooLarge { .. } => Some(Self::AbortRequired),
            LogError::UnknownOutcome { .. } => Some(Self::CommitUnknown),
            LogError::Fenced { .. } | LogError::MemberUnknown { .. } => Some(Self::Fenced),
            LogError::Fatal { .. } => Some(Self::Fatal),
            LogError::Retriable { .. }
            | LogError::OffsetOutOfRange { .. }
            | LogError::UnknownTopic { .. }
            | LogError::RecordTooLarge { .. } => None,
        }
    }

    /// Translates the answer to a commit. Whatever does not clearly say that the commit failed
    /// leaves its outcome open.
    #[must_use]
    pub fn of_commit(answer: &Result<(), LogError>) -> Self {
        match answer {
            Ok(()) => Self::CommitSucceeded,
            Err(error) => Self::of_error(error).unwrap_or(Self::CommitUnknown),
        }
    }
}

#[cfg(test)]
mod tests;
