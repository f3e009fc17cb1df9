//! Time as a value that is passed in, so that one seed replays a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Milliseconds since 1970-01-01T00:00:00Z, Kafka's unit for record timestamps.
pub type Timestamp = i64;

/// The source of wall-clock time. Read per batch, not per record.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Returns the wall-clock time in milliseconds since the Unix epoch.
    fn now_ms(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn now_ms(&self) -> Timestamp {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            })
    }
}

/// A clock that moves only when told to: simulation and `TopologyTestDriver`.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Creates a clock that stands at `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now)))
    }

    /// Moves the clock forward by `by` milliseconds.
    ///
    /// # Panics
    /// When `by` is negative: time does not run backwards.
    pub fn advance(&self, by: i64) {
        assert!(by >= 0, "a clock does not run backwards");
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> Timestamp {
        self.0.load(Ordering::SeqCst)
    }
}
