//! Why an adapter message does not become part of its leg: the codes of `aodb-dlq`.

use millstream::event_sourcing::{ReasonCode, Rejection};

/// The topology's reason codes, beside the ones of the event-sourcing layer.
pub mod codes {
    use millstream::event_sourcing::ReasonCode;

    /// JSON, but not an adapter message, or its `data` is not what its type says.
    pub const MALFORMED_MESSAGE: ReasonCode = ReasonCode::new("MALFORMED_MESSAGE");
    /// A `messageType` that this build does not know.
    pub const UNKNOWN_MESSAGE_TYPE: ReasonCode = ReasonCode::new("UNKNOWN_MESSAGE_TYPE");
    /// `flightId` is not `<carrier><flight>-<date>-<origin>-<destination>`.
    pub const INVALID_FLIGHT_ID: ReasonCode = ReasonCode::new("INVALID_FLIGHT_ID");
    /// The schedule is not of the flight that `flightId` names.
    pub const FLIGHT_ID_MISMATCH: ReasonCode = ReasonCode::new("FLIGHT_ID_MISMATCH");
    /// The message says that it was made over an hour from now.
    pub const TIMESTAMP_IN_FUTURE: ReasonCode = ReasonCode::new("TIMESTAMP_IN_FUTURE");
    /// The leg has no schedule yet: nothing can happen to it.
    pub const UNKNOWN_FLIGHT: ReasonCode = ReasonCode::new("UNKNOWN_FLIGHT");
    /// The leg has another schedule already.
    pub const SCHEDULE_CONFLICT: ReasonCode = ReasonCode::new("SCHEDULE_CONFLICT");
    /// Times that cannot be: neither estimated nor actual nor a delay, an arrival before the departure, a
    /// time outside 2000 to 2100, or a delay of more than 31 days.
    pub const INVALID_TIMES: ReasonCode = ReasonCode::new("INVALID_TIMES");
}

/// A rule of the flight leg that speaks against a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LegRejection {
    /// See [`codes::UNKNOWN_FLIGHT`].
    #[error("the leg has no schedule yet")]
    UnknownFlight,
    /// See [`codes::SCHEDULE_CONFLICT`].
    #[error("the leg is scheduled already, with another `{field}`")]
    ScheduleConflict {
        /// The field that differs.
        field: &'static str,
    },
    /// See [`codes::INVALID_TIMES`].
    #[error("{problem}")]
    InvalidTimes {
        /// What cannot be.
        problem: &'static str,
    },
}

impl Rejection for LegRejection {
    fn code(&self) -> ReasonCode {
        match self {
            Self::UnknownFlight => codes::UNKNOWN_FLIGHT,
            Self::ScheduleConflict { .. } => codes::SCHEDULE_CONFLICT,
            Self::InvalidTimes { .. } => codes::INVALID_TIMES,
        }
    }
}
