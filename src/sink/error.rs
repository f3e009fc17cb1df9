//! Why a sink could not do something. The variant decides what happens next.

use crate::log::{Offset, TopicPartition};

/// Why a call to a sink's target did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The target is away or busy, or did not answer: the session is opened again, after a pause
    /// that grows, and every partition asks where it stands.
    #[error("{message}")]
    Unavailable {
        /// What the target or the connection said.
        message: String,
    },
    /// The stored offsets of these partitions are not the expected ones: another process has taken
    /// over, or the sink is being rebuilt. Nothing was written; they ask where they stand.
    #[error("offsets have moved: {}", list(.partitions))]
    Superseded {
        /// Whose.
        partitions: Vec<TopicPartition>,
    },
    /// A record cannot be written, now or later. Nothing was written.
    #[error("record at offset {} of {partition} refused: {message}", .offset.map_or_else(|| "?".to_owned(), |offset| offset.to_string()))]
    Refused {
        /// Its partition.
        partition: TopicPartition,
        /// Its offset, where it is known: the target may refuse a whole batch.
        offset: Option<Offset>,
        /// What is wrong with it.
        message: String,
    },
    /// It takes a person to mend it: no permission, a newer schema, a gap. Tried again now and then,
    /// so that a repair needs no restart.
    #[error("{message}")]
    Failed {
        /// What is wrong.
        message: String,
    },
}

fn list(partitions: &[TopicPartition]) -> String {
    let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl SinkError {
    /// Says that the target is away.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Unavailable { message }
    }

    /// Says that somebody has to act.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Failed { message }
    }
}
