//! Windows: which stretches of event time a record belongs to, as pure functions.
//!
//! # Position
//! `dsl` asks for the windows of a record and when one closes; `state` keeps a value per key and
//! window; `format::window_key` has the bytes. Nothing here knows a clock, a store or a stream.
//! # Invariants
//! - All times are event time in milliseconds since the Unix epoch, and never negative: a window
//!   starts at 0 at the earliest, as in Kafka Streams.
//! - Grace is always said, never assumed (KIP-633): a constructor either takes it or is called
//!   `…_with_no_grace`.
//! - A window closes when *stream time*, the highest record timestamp seen so far, has passed its end
//!   by the grace period. A record for a closed window is late.

mod join;
mod session;
mod sliding;
mod time;

pub use join::JoinWindows;
pub use session::SessionWindows;
pub use sliding::SlidingWindows;
pub use time::{TimeWindows, UnlimitedWindows, Windows};

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;

/// A stretch of event time.
///
/// Whether [`end`](Self::end) belongs to it depends on what it is a window of: not for tumbling and
/// hopping windows, but for sliding ones and sessions. Kafka Streams' `Window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    start: Timestamp,
    end: Timestamp,
}

impl Window {
    /// Creates a window. One that would end before it starts ends at its start.
    #[must_use]
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        let end = if end < start { start } else { end };
        Self { start, end }
    }

    /// Returns the first millisecond of the window.
    #[must_use]
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// Returns the end: see the type.
    #[must_use]
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// Returns the smallest window that holds both: what two sessions become.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

/// `[start,end]`, in milliseconds.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{},{}]", self.start, self.end)
    }
}

/// A key and one of its windows: the key of a windowed table. Kafka Streams' `Windowed`.
///
/// Ordered by key, then by window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Windowed<K> {
    /// The key of the records.
    pub key: K,
    /// The window they fell into.
    pub window: Window,
}

impl<K> Windowed<K> {
    /// Creates a windowed key.
    pub const fn new(key: K, window: Window) -> Self {
        Self { key, window }
    }
}

/// `key@[start,end]`.
impl<K: fmt::Display> fmt::Display for Windowed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.window)
    }
}

/// A duration in milliseconds; one of more than 292 million years is cut.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
