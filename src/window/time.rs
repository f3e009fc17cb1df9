//! Tumbling, hopping and unlimited windows: fixed stretches of time, whatever the records.

use std::time::Duration;

use super::{Window, millis};
use crate::clock::Timestamp;

/// Tumbling and hopping windows: of one size, starting at multiples of their advance, their end
/// excluded. Kafka Streams' `TimeWindows`.
///
/// ```
/// use std::time::Duration;
/// use millstream::window::{TimeWindows, Window};
///
/// let tumbling = TimeWindows::of_size_with_no_grace(Duration::from_millis(10));
/// assert_eq!(tumbling.windows_for(25).collect::<Vec<_>>(), [Window::new(20, 30)]);
/// let hopping = tumbling.advance_by(Duration::from_millis(5));
/// assert_eq!(
///     hopping.windows_for(25).collect::<Vec<_>>(),
///     [Window::new(20, 30), Window::new(25, 35)]
/// );
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeWindows {
    size: i64,
    advance: i64,
    grace: i64,
}

impl TimeWindows {
    /// Creates tumbling windows that close at their end: every out-of-order record for an earlier
    /// window is late. Sizes of less than a millisecond are a mistake that `build` reports.
    #[must_use]
    pub fn of_size_with_no_grace(size: Duration) -> Self {
        Self::of_size_and_grace(size, Duration::ZERO)
    }

    /// Creates tumbling windows that take out-of-order records until stream time has passed their
    /// end by `grace`.
    #[must_use]
    pub fn of_size_and_grace(size: Duration, grace: Duration) -> Self {
        let size = millis(size);
        Self {
            size,
            advance: size,
            grace: millis(grace),
        }
    }

    /// Makes the windows hop: one starts every `advance`, and they overlap. An advance of less than
    /// a millisecond or of more than the size is a mistake that `build` reports.
    #[must_use]
    pub fn advance_by(mut self, advance: Duration) -> Self {
        self.advance = millis(advance);
        self
    }

    /// Returns the windows that a record of this time belongs to, the earliest first; none for a
    /// negative time.
    pub fn windows_for(&self, timestamp: Timestamp) -> impl Iterator<Item = Window> + use<> {
        let Self { size, advance, .. } = *self;
        // Kafka Streams' arithmetic, and windows that `build` refuses have none.
        let first = if advance > 0 && timestamp >= 0 {
            let earliest = timestamp
                .saturating_sub(size)
                .saturating_add(advance)
                .max(0);
            Some(earliest / advance * advance)
        } else {
            None
        };
        std::iter::successors(first, move |start| start.checked_add(advance))
            .take_while(move |start| *start <= timestamp)
            .map(move |start| Window::new(start, start.saturating_add(size)))
    }

    /// Returns the size in milliseconds.
    #[must_use]
    pub const fn size_ms(&self) -> i64 {
        self.size
    }

    /// Returns the distance between two starts in milliseconds.
    #[must_use]
    pub const fn advance_ms(&self) -> i64 {
        self.advance
    }

    /// Returns the grace period in milliseconds.
    #[must_use]
    pub const fn grace_ms(&self) -> i64 {
        self.grace
    }
}

/// Windows without end: one, of all records from its start on. Kafka Streams' `UnlimitedWindows`.
///
/// ```
/// use millstream::window::{UnlimitedWindows, Window};
///
/// let windows = UnlimitedWindows::of().start_on(100);
/// assert_eq!(windows.window_for(100), Some(Window::new(100, i64::MAX)));
/// assert_eq!(windows.window_for(99), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct UnlimitedWindows {
    start: Timestamp,
}

impl UnlimitedWindows {
    /// Creates the window of all records since 1970.
    #[must_use]
    pub const fn of() -> Self {
        Self { start: 0 }
    }

    /// Leaves out records before `start`. A negative one is a mistake that `build` reports.
    #[must_use]
    pub const fn start_on(self, start: Timestamp) -> Self {
        Self { start }
    }

    /// Returns the window if a record of this time belongs to it.
    #[must_use]
    pub const fn window_for(&self, timestamp: Timestamp) -> Option<Window> {
        if timestamp >= self.start {
            Some(Window::new(self.start, i64::MAX))
        } else {
            None
        }
    }

    /// Returns the start.
    #[must_use]
    pub const fn start(&self) -> Timestamp {
        self.start
    }
}

/// Windows that are known without looking at other records: what
/// [`windowed_by`](crate::dsl::KGroupedStream::windowed_by) takes for
/// [`TimeWindows`] and [`UnlimitedWindows`]. Kafka Streams' `Windows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Windows {
    /// Tumbling or hopping.
    Time(TimeWindows),
    /// One without end.
    Unlimited(UnlimitedWindows),
}

impl From<TimeWindows> for Windows {
    fn from(windows: TimeWindows) -> Self {
        Self::Time(windows)
    }
}

impl From<UnlimitedWindows> for Windows {
    fn from(windows: UnlimitedWindows) -> Self {
        Self::Unlimited(windows)
    }
}

impl Windows {
    /// Returns the windows of a record, the earliest first.
    pub fn windows_for(&self, timestamp: Timestamp) -> impl Iterator<Item = Window> + use<> {
        let (time, unlimited) = match self {
            Self::Time(windows) => (Some(windows.windows_for(timestamp)), None),
            Self::Unlimited(windows) => (None, windows.window_for(timestamp)),
        };
        time.into_iter().flatten().chain(unlimited)
    }

    /// Returns the size in milliseconds.
    #[must_use]
    pub const fn size_ms(&self) -> i64 {
        match self {
            Self::Time(windows) => windows.size,
            Self::Unlimited(_) => i64::MAX,
        }
    }

    /// Returns the grace period in milliseconds.
    #[must_use]
    pub const fn grace_ms(&self) -> i64 {
        match self {
            Self::Time(windows) => windows.grace,
            Self::Unlimited(_) => 0,
        }
    }

    /// Returns what is wrong with the windows.
    pub(crate) const fn problem(&self) -> Option<&'static str> {
        match self {
            Self::Time(windows) if windows.size <= 0 => {
                Some("the size must be at least a millisecond")
            }
            Self::Time(windows) if windows.advance <= 0 || windows.advance > windows.size => {
                Some("the advance must be at least a millisecond and at most the size")
            }
            Self::Unlimited(windows) if windows.start < 0 => Some("the start must not be negative"),
            Self::Time(_) | Self::Unlimited(_) => None,
        }
    }
}
