//! Reason codes: why a command was rejected or an event dead-lettered.
//!
//! Codes are a wire contract: upper snake case, never renamed, only added. A topology adds its own
//! beside the ones of this module.

use std::fmt;

use serde::{Serialize, Serializer};

/// A documented constant that says why, for programs; the message beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReasonCode(&'static str);

impl ReasonCode {
    /// Creates a code.
    ///
    /// # Panics
    /// Unless it is upper snake case; in a constant that is a compile error.
    #[must_use]
    pub const fn new(code: &'static str) -> Self {
        let bytes = code.as_bytes();
        assert!(!bytes.is_empty(), "a reason code is not empty");
        let mut rest = bytes;
        while let [first, tail @ ..] = rest {
            assert!(
                first.is_ascii_uppercase() || first.is_ascii_digit() || *first == b'_',
                "a reason code is upper snake case"
            );
            rest = tail;
        }
        Self(code)
    }

    /// Returns the code's text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// Why an aggregate refuses a command, or an event that was written elsewhere. `Display` is the
/// message, a sentence for the caller.
pub trait Rejection: fmt::Display + fmt::Debug {
    /// Returns the code for programs.
    fn code(&self) -> ReasonCode;
}

/// The codes of the event-sourcing layer itself, whatever the aggregate.
pub mod reasons {
    use super::ReasonCode;

    /// The record's value is not JSON.
    pub const NOT_JSON: ReasonCode = ReasonCode::new("NOT_JSON");
    /// JSON, but not an event envelope, or its `data` is not what its type says.
    pub const MALFORMED_EVENT: ReasonCode = ReasonCode::new("MALFORMED_EVENT");
    /// A record without a value.
    pub const MISSING_VALUE: ReasonCode = ReasonCode::new("MISSING_VALUE");
    /// A record without a key: its partition means nothing.
    pub const MISSING_KEY: ReasonCode = ReasonCode::new("MISSING_KEY");
    /// The key is not the aggregate's id, so the record may be in a wrong partition.
    pub const KEY_MISMATCH: ReasonCode = ReasonCode::new("KEY_MISMATCH");
    /// An event of another aggregate type on this aggregate's topic.
    pub const AGGREGATE_TYPE_MISMATCH: ReasonCode = ReasonCode::new("AGGREGATE_TYPE_MISMATCH");
    /// An event type that this build does not know.
    pub const UNKNOWN_EVENT_TYPE: ReasonCode = ReasonCode::new("UNKNOWN_EVENT_TYPE");
    /// A schema version above what this build reads.
    pub const UNSUPPORTED_SCHEMA_VERSION: ReasonCode =
        ReasonCode::new("UNSUPPORTED_SCHEMA_VERSION");
    /// As a dead letter: another event holds this version. As a reply: `expectedVersion` is not the
    /// current one.
    pub const VERSION_CONFLICT: ReasonCode = ReasonCode::new("VERSION_CONFLICT");
    /// The event's version is above last + 1; so are all that follow until the gap is filled.
    pub const VERSION_GAP: ReasonCode = ReasonCode::new("VERSION_GAP");
    /// The event's version is below the one at which a foreign aggregate was adopted.
    pub const VERSION_BEFORE_OPENING: ReasonCode = ReasonCode::new("VERSION_BEFORE_OPENING");
    /// A serialised event is over the hard limit.
    pub const EVENT_TOO_LARGE: ReasonCode = ReasonCode::new("EVENT_TOO_LARGE");
    /// The aggregate's events are written by another system.
    pub const FOREIGN_OWNED: ReasonCode = ReasonCode::new("FOREIGN_OWNED");
    /// The aggregate has ended for good: nothing follows its tombstone. As a reply, and as the dead letter
    /// of a message or of another system's event.
    pub const TOMBSTONED: ReasonCode = ReasonCode::new("TOMBSTONED");
    /// The command cannot be read: envelope, type or data.
    pub const INVALID_COMMAND: ReasonCode = ReasonCode::new("INVALID_COMMAND");
    /// A command that only a process may give, from somebody else.
    pub const PROCESS_COMMAND: ReasonCode = ReasonCode::new("PROCESS_COMMAND");
    /// The answer to a step that a process does not wait for.
    pub const STEP_NOT_PENDING: ReasonCode = ReasonCode::new("STEP_NOT_PENDING");
    /// A command of another aggregate type.
    pub const WRONG_AGGREGATE: ReasonCode = ReasonCode::new("WRONG_AGGREGATE");
    /// A known command that this version does not carry out yet.
    pub const NOT_IMPLEMENTED: ReasonCode = ReasonCode::new("NOT_IMPLEMENTED");
}
