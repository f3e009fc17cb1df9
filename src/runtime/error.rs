//! What ends a step, and what the thread does about it. One exhaustive decision per kind.

use super::Crash;
use super::protocol::IllegalTransition;
use crate::log::{LogError, TopicPartition};
use crate::processor::ProcessError;
use crate::state::StateError;
use crate::topology::TaskId;

/// Why a step could not go on. Internal: the thread turns it into a recovery.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The log, at a call whose meaning for the transaction is still to be decided.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log, where the transaction's state has moved already.
    #[error(transparent)]
    Settled(LogError),
    /// The log does not take a record, and the input record to blame is known.
    #[error(transparent)]
    Blamed(LogError),
    /// The thread's own logic is broken.
    #[error("{0}")]
    Bug(&'static str),
    /// Likewise.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// A task's stores.
    #[error("state of task {task}")]
    State {
        task: TaskId,
        #[source]
        source: StateError,
    },
    /// A record that its source's policy says to stop for, or a failed `init` or punctuator.
    #[error("task {task} failed{}", at.as_ref().map_or_else(String::new, |at| format!(" at {at}")))]
    Processing {
        task: TaskId,
        at: Option<RecordCoordinates>,
        #[source]
        source: ProcessError,
    },
    /// Something the operator has to decide.
    #[error("{0}")]
    Refused(String),
    /// Another process runs under this one's identity.
    #[error("another process runs with the identity of this one: {0}")]
    FencedInstance(String),
    /// Simulation only.
    #[error(transparent)]
    Crash(#[from] Crash),
}

/// Names one input record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordCoordinates {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset.
    pub offset: i64,
}

impl std::fmt::Display for RecordCoordinates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} offset {}", self.partition, self.offset)
    }
}

/// Why a stream thread has ended. Nothing uncommitted was committed on the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThreadError {
    /// Another process runs under this one's identity.
    #[error(
        "another process runs with the identity of this one (a copied state directory?): {message}"
    )]
    FencedInstance {
        /// What the log said.
        message: String,
    },
    /// A task met an error that its policy says to stop for, or user code failed outside a record.
    #[error("task {task} failed{}", at.as_ref().map_or_else(String::new, |at| format!(" at {at}")))]
    Processing {
        /// The task.
        task: TaskId,
        /// The record, where there was one.
        at: Option<RecordCoordinates>,
        /// What failed.
        #[source]
        source: ProcessError,
    },
    /// A store failed in a way that waiting or restoring does not mend.
    #[error("state of task {task}")]
    State {
        /// The task.
        task: TaskId,
        /// What failed.
        #[source]
        source: StateError,
    },
    /// The state and the group contradict each other; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// The thread was told to stop and could not commit what it had in time, as when the log is away.
    /// It ended without: whoever takes its tasks over processes those records again.
    #[error(
        "not drained within {limit:?} (`shutdown.timeout`), ended without a commit{}",
        problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"))
    )]
    DrainTimedOut {
        /// The limit.
        limit: std::time::Duration,
        /// What it was waiting out.
        problem: Option<String>,
    },
    /// The log refuses this client for good.
    #[error("the log refuses this client")]
    Log(#[from] LogError),
    /// The thread found its own logic broken: a bug of millstream.
    #[error("stream thread is in an impossible state: {0}")]
    Bug(String),
    /// The thread panicked.
    #[error("stream thread panicked: {0}")]
    Panicked(String),
    /// Simulation only.
    #[error(transparent)]
    Crash(#[from] Crash),
}

impl ThreadError {
    /// Returns whether a new thread in its place may do better.
    #[must_use]
    pub fn replaceable(&self) -> bool {
        match self {
            Self::Processing { .. }
            | Self::State { .. }
            | Self::Log(_)
            | Self::Bug(_)
            | Self::Panicked(_) => true,
            Self::FencedInstance { .. }
            | Self::DrainTimedOut { .. }
            | Self::Refused(_)
            | Self::Crash(_) => false,
        }
    }
}
