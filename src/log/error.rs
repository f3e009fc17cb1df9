//! What a log operation can come back with. The variant decides what the caller does next.

use super::{Offset, TopicPartition};

/// Why a log does not take a record: written again, the same record would be refused again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Larger than the topic's `max.message.bytes` (which counts the batch it was sent in).
    TooLarge,
    /// A timestamp that the topic does not take.
    InvalidTimestamp,
    /// A record that the topic does not take, such as one without a key for a compacted topic.
    InvalidRecord,
}

impl Refusal {
    /// Returns the code that a dead letter carries.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "RECORD_TOO_LARGE",
            Self::InvalidTimestamp => "INVALID_TIMESTAMP",
            Self::InvalidRecord => "INVALID_RECORD",
        }
    }
}

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
    /// The log refused a record of the transaction after it was queued, and the transaction is lost
    /// with it: abort it. Any call may bring this news of an earlier [`send`](super::LogProducer::send).
    #[error("{operation}: transaction must be aborted: record for {partition} refused: {message}")]
    RecordRefused {
        /// What was attempted.
        operation: &'static str,
        /// Where the record was to go.
        partition: TopicPartition,
        /// What is wrong with it.
        refusal: Refusal,
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
    /// The metadata of a committed offset is larger than the log takes (`offset.metadata.max.bytes`),
    /// and will be so again: the transaction is lost, and so is the next one.
    #[error("{operation}: {message}")]
    OffsetMetadataTooLarge {
        /// What was attempted.
        operation: &'static str,
        /// What the log said.
        message: String,
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
