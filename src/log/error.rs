//! What a log operation can come back with. The variant decides what the caller does next.

use super::{Offset, TopicPartition};

/// Why a log operation did not succeed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogError {
    /// The broker is away or busy: the same call may succeed later.
    #[error("{operation}: {message}")]
    Retriable {
        /// What was attempted.
        operation: &'static str,
        /// What the log said.
        message: String,
    },
    /// The transaction is lost: abort it, then go on.
    #[error("{operation}: transaction must be aborted: {message}")]
    AbortRequired {
        /// What was attempted.
        operation: &'static str,
        /// What the log said.
        message: String,
    },
    /// A commit may or may not have happened: commit again.
    #[error("commit outcome unknown: {message}")]
    UnknownOutcome {
        /// What the log said.
        message: String,
    },
    /// A newer producer or member has taken this one's place.
    #[error("{operation}: fenced: {message}")]
    Fenced {
        /// What was attempted.
        operation: &'static str,
        /// What the log said.
        message: String,
    },
    /// The group does not know this member (any more): rejoin.
    #[error("{operation}: not a member of the group: {message}")]
    MemberUnknown {
        /// What was attempted.
        operation: &'static str,
        /// What the log said.
        message: String,
    },
    /// The position is not in the log.
    #[error("offset {offset} of {partition} is out of range")]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The position that was asked for.
        offset: Offset,
    },
    /// A topic does not exist.
    #[error("topic `{topic}` does not exist")]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// A record is larger than the log takes; the transaction may go on without it.
    #[error("record of {size} bytes for `{topic}` is too large")]
    RecordTooLarge {
        /// The topic.
        topic: String,
        /// Key and value, in bytes.
        size: usize,
    },
    /// This client can do nothing more: close it and create another.
    #[error("{operation}: {message}")]
    Fatal {
        /// What was attempted.
        operation: &'static str,
        /// What the log said.
        message: String,
    },
}

impl LogError {
    /// Returns whether the same call may succeed later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Retriable { .. })
    }
}
