//! Sliding windows: every set of records that are close enough to each other (KIP-450).

use std::time::Duration;

use super::{Window, millis};
use crate::clock::Timestamp;

/// Windows that slide over the records of a key: one for each different set of records that lie
/// within the time difference of each other. Both ends belong to a window. Kafka Streams'
/// `SlidingWindows`.
///
/// A record at `t` opens two windows at most: `[t - difference, t]`, which it ends, and
/// `[t + 1, t + 1 + difference]`, which begins right after it and exists once it holds a record.
///
/// ```
/// use std::time::Duration;
/// use millstream::window::{SlidingWindows, Window};
///
/// let windows = SlidingWindows::of_time_difference_with_no_grace(Duration::from_millis(10));
/// assert_eq!(windows.left_of(25), Window::new(15, 25));
/// assert_eq!(windows.right_of(25), Window::new(26, 36));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlidingWindows {
    difference: i64,
    grace: i64,
}

impl SlidingWindows {
    /// Creates sliding windows that close once stream time has passed their end.
    #[must_use]
    pub fn of_time_difference_with_no_grace(difference: Duration) -> Self {
        Self::of_time_difference_and_grace(difference, Duration::ZERO)
    }

    /// Creates sliding windows that take out-of-order records until stream time has passed their
    /// end by `grace`.
    #[must_use]
    pub fn of_time_difference_and_grace(difference: Duration, grace: Duration) -> Self {
        Self {
            difference: millis(difference),
            grace: millis(grace),
        }
    }

    /// Returns the time difference in milliseconds.
    #[must_use]
    pub const fn time_difference_ms(&self) -> i64 {
        self.difference
    }

    /// Returns the grace period in milliseconds.
    #[must_use]
    pub const fn grace_ms(&self) -> i64 {
        self.grace
    }

    /// Returns the window that starts at `start`.
    #[must_use]
    pub const fn window_at(&self, start: Timestamp) -> Window {
        Window::new(start, start.saturating_add(self.difference))
    }

    /// Returns the window that a record of this time ends. Close to 1970 that is the first window
    /// there is, as in Kafka Streams.
    #[must_use]
    pub fn left_of(&self, timestamp: Timestamp) -> Window {
        self.window_at(timestamp.saturating_sub(self.difference).max(0))
    }

    /// Returns the window right after a record of this time.
    #[must_use]
    pub const fn right_of(&self, timestamp: Timestamp) -> Window {
        self.window_at(timestamp.saturating_add(1))
    }
}
