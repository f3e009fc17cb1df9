//! The windows of a stream-stream join: how far apart two records may be.

use std::time::Duration;

use super::millis;
use crate::clock::Timestamp;

/// How far apart in time records of two streams may be to be joined. Kafka Streams' `JoinWindows`.
///
/// A record of the left stream at `t` meets those of the right stream between `t - before` and
/// `t + after`, both included. A pair can still come about until stream time has passed the later end
/// by the grace period; only then is it known that a record has no partner, which is when a left or
/// outer join says so.
///
/// ```
/// use std::time::Duration;
/// use millstream::window::JoinWindows;
///
/// let seconds = Duration::from_secs;
/// // A payment belongs to an order of the last ten minutes; clocks differ by up to five seconds.
/// let windows = JoinWindows::of_time_difference_and_grace(seconds(600), seconds(60)).before(seconds(5));
/// assert_eq!((windows.before_ms(), windows.after_ms(), windows.grace_ms()), (5000, 600_000, 60_000));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JoinWindows {
    before: i64,
    after: i64,
    grace: i64,
}

impl JoinWindows {
    /// Joins records that are at most `difference` apart; a record's window closes at its end.
    #[must_use]
    pub fn of_time_difference_with_no_grace(difference: Duration) -> Self {
        Self::of_time_difference_and_grace(difference, Duration::ZERO)
    }

    /// Joins records that are at most `difference` apart, and waits for out-of-order ones until
    /// stream time has passed a window's end by `grace`.
    #[must_use]
    pub fn of_time_difference_and_grace(difference: Duration, grace: Duration) -> Self {
        let difference = millis(difference);
        Self {
            before: difference,
            after: difference,
            grace: millis(grace),
        }
    }

    /// Sets by how much the right record may be earlier than the left one.
    #[must_use]
    pub fn before(mut self, before: Duration) -> Self {
        self.before = millis(before);
        self
    }

    /// Sets by how much the right record may be later than the left one.
    #[must_use]
    pub fn after(mut self, after: Duration) -> Self {
        self.after = millis(after);
        self
    }

    /// Sets by how much the right record must be later than the left one at least: a negative
    /// [`before`](Self::before). More than `after` allows is a mistake that `build` reports.
    #[must_use]
    pub fn at_least_after(mut self, later: Duration) -> Self {
        self.before = millis(later).saturating_neg();
        self
    }

    /// Sets by how much the right record must be earlier than the left one at least: a negative
    /// [`after`](Self::after). More than `before` allows is a mistake that `build` reports.
    #[must_use]
    pub fn at_least_before(mut self, earlier: Duration) -> Self {
        self.after = millis(earlier).saturating_neg();
        self
    }

    /// Returns by how many milliseconds the right record may be earlier than the left one.
    #[must_use]
    pub const fn before_ms(&self) -> i64 {
        self.before
    }

    /// Returns by how many milliseconds the right record may be later than the left one.
    #[must_use]
    pub const fn after_ms(&self) -> i64 {
        self.after
    }

    /// Returns the grace period in milliseconds.
    #[must_use]
    pub const fn grace_ms(&self) -> i64 {
        self.grace
    }

    /// Returns how long records are kept to be joined: the windows' size and grace, as in Kafka Streams.
    /// Windows whose ends lie on one side keep a record for less than the way to its partner: a stream
    /// that runs ahead of the other by more than that loses pairs, here as there.
    #[must_use]
    pub const fn retention_ms(&self) -> i64 {
        self.before
            .saturating_add(self.after)
            .saturating_add(self.grace)
    }

    /// Says what is wrong with the windows.
    pub(crate) const fn problem(&self) -> Option<&'static str> {
        if self.before.saturating_add(self.after) < 0 {
            return Some("they end before they start");
        }
        None
    }

    /// As the stream sees it that these windows call the right one.
    pub(crate) const fn reversed(self) -> Self {
        Self {
            before: self.after,
            after: self.before,
            grace: self.grace,
        }
    }

    /// The times of the other stream's records that a record at `timestamp` is joined with, both
    /// included; nothing lies between them when the first is the greater one.
    pub(crate) const fn around(&self, timestamp: Timestamp) -> (Timestamp, Timestamp) {
        let from = timestamp.saturating_sub(self.before);
        let to = timestamp.saturating_add(self.after);
        (if from < 0 { 0 } else { from }, if to < 0 { 0 } else { to })
    }

    /// Whether the window of a record at `timestamp`, and its grace period, have passed.
    pub(crate) const fn is_closed(&self, timestamp: Timestamp, stream_time: Timestamp) -> bool {
        let end = timestamp.saturating_add(self.after);
        end.saturating_add(self.grace) < stream_time
    }
}
