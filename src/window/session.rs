//! Sessions: stretches of activity between stretches of none.

use std::time::Duration;

use super::{Window, millis};
use crate::clock::Timestamp;

/// Sessions: records of a key belong together while no gap between two of them is longer than the
/// inactivity gap. Both ends belong to a session: they are the times of its first and last record.
/// Kafka Streams' `SessionWindows`.
///
/// ```
/// use std::time::Duration;
/// use millstream::window::{SessionWindows, Window};
///
/// let sessions = SessionWindows::of_inactivity_gap_with_no_grace(Duration::from_millis(5));
/// assert!(sessions.joins(Window::new(10, 20), 25), "a gap of exactly 5 does not part them");
/// assert!(!sessions.joins(Window::new(10, 20), 26));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionWindows {
    gap: i64,
    grace: i64,
}

impl SessionWindows {
    /// Creates sessions that close once stream time has passed their end by more than the gap.
    #[must_use]
    pub fn of_inactivity_gap_with_no_grace(gap: Duration) -> Self {
        Self::of_inactivity_gap_and_grace(gap, Duration::ZERO)
    }

    /// Creates sessions that take out-of-order records for another `grace`.
    #[must_use]
    pub fn of_inactivity_gap_and_grace(gap: Duration, grace: Duration) -> Self {
        Self {
            gap: millis(gap),
            grace: millis(grace),
        }
    }

    /// Returns the inactivity gap in milliseconds.
    #[must_use]
    pub const fn inactivity_gap_ms(&self) -> i64 {
        self.gap
    }

    /// Returns the grace period in milliseconds.
    #[must_use]
    pub const fn grace_ms(&self) -> i64 {
        self.grace
    }

    /// Returns the earliest end and the latest start of the sessions that a record of this time
    /// becomes part of.
    #[must_use]
    pub const fn reach(&self, timestamp: Timestamp) -> (Timestamp, Timestamp) {
        (
            timestamp.saturating_sub(self.gap),
            timestamp.saturating_add(self.gap),
        )
    }

    /// Returns whether a record of this time becomes part of `session`.
    #[must_use]
    pub const fn joins(&self, session: Window, timestamp: Timestamp) -> bool {
        let (earliest_end, latest_start) = self.reach(timestamp);
        session.end() >= earliest_end && session.start() <= latest_start
    }

    /// Returns the session that a record of this time makes of `sessions`, those it joins.
    pub fn merge(
        &self,
        timestamp: Timestamp,
        sessions: impl IntoIterator<Item = Window>,
    ) -> Window {
        sessions
            .into_iter()
            .filter(|session| self.joins(*session, timestamp))
            .fold(Window::new(timestamp, timestamp), Window::union)
    }
}
