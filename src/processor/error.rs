//! Why a record could not be processed, and what the source wants done about it.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::state::StateError;

/// Any error of user code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The part of a chain that failed; each has its own policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The source could not read key or value (Kafka Streams: deserialization handler, KIP-161).
    Deserialization,
    /// An operator returned an error (processing handler, KIP-1033).
    Processing,
    /// A sink could not serialise, or the record is too large (production handler, KIP-210).
    Production,
}

/// Why a record's chain failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// Key or value bytes do not decode.
    #[error("source `{node}` cannot read the record")]
    Deserialization {
        /// The source node.
        node: String,
        /// What the serde said.
        #[source]
        source: BoxError,
    },
    /// An operator failed.
    #[error("processor `{node}` failed")]
    Processing {
        /// The node.
        node: String,
        /// What it returned.
        #[source]
        source: BoxError,
    },
    /// An output could not be serialised.
    #[error("sink `{node}` cannot write the record")]
    Production {
        /// The sink node.
        node: String,
        /// What the serde said.
        #[source]
        source: BoxError,
    },
    /// A store failed. Never subject to a policy: fatal to the task.
    #[error("a state store failed")]
    State(#[from] StateError),
}

impl ProcessError {
    /// Returns the failed store's error, however deep user code has wrapped it.
    #[must_use]
    pub fn state_error(&self) -> Option<&StateError> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(state) = error.downcast_ref::<StateError>() {
                return Some(state);
            }
            cause = error.source();
        }
        None
    }

    /// Returns the stage whose policy decides; `None` for a failed store, also when user code has
    /// wrapped its error: no policy may pass over a store that cannot be trusted.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        if self.state_error().is_some() {
            return None;
        }
        match self {
            Self::Deserialization { .. } => Some(Stage::Deserialization),
            Self::Processing { .. } => Some(Stage::Processing),
            Self::Production { .. } => Some(Stage::Production),
            Self::State(_) => None,
        }
    }
}

/// The record carries no usable time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the timestamp {0} is negative: the producer set none; choose another timestamp extractor to \
     process such records"
)]
pub struct InvalidTimestamp(pub Timestamp);

/// A refusal with a reason code, for dead letters: `code` becomes the
/// `__streams.errors.exception` header, `message` `__streams.errors.message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Reject {
    /// A documented constant such as `VERSION_GAP`.
    pub code: &'static str,
    /// What was wrong, for people.
    pub message: String,
}

/// What happens to a record whose chain failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// The task stops. Kafka Streams' default (`LogAndFail`).
    Fail,
    /// The record is logged, counted and passed over.
    Skip,
    /// The record goes to the dead-letter topic (declared logical name), inside the transaction,
    /// with its original bytes and headers and `__streams.errors.*` headers (KIP-1034).
    DeadLetter {
        /// The declared dead-letter topic.
        topic: String,
    },
    /// The record is tried again, then meets `then`.
    Retry {
        /// How many more attempts.
        attempts: u32,
        /// The pause before each.
        backoff: Duration,
        /// What happens when all attempts failed.
        then: Box<ErrorPolicy>,
    },
}
