//! How long to wait before the next attempt: twice as long each time, with jitter, up to a limit.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// When the next attempt is due.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Notes a failure.
    pub(super) fn fail(&mut self) {
        self.until = Some(Instant::now() + pause(self.failures, fastrand::f64()));
        self.failures = self.failures.saturating_add(1);
    }

    /// Notes a failure that nothing but a person will mend.
    pub(super) fn fail_for_long(&mut self) {
        self.failures = u32::MAX;
        self.fail();
    }

    /// Returns whether the last attempt failed.
    pub(super) const fn has_failed(&self) -> bool {
        self.until.is_some()
    }

    /// Notes a success.
    pub(super) fn succeed(&mut self) {
        *self = Self::default();
    }

    /// Returns how long there is to wait; zero when an attempt is due.
    pub(super) fn remaining(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }
}

/// The pause after this many failures in a row before; `jitter` is from 0 to 1.
fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX));
    doubled.min(LONGEST).mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(pause(0, 1.0), FIRST);
        assert_eq!(pause(0, 0.0), FIRST / 2);
        assert_eq!(pause(3, 1.0), FIRST * 8);
        for failures in [6, 16, 17, 40, u32::MAX] {
            assert_eq!(pause(failures, 1.0), LONGEST, "{failures}");
            assert_eq!(pause(failures, 0.0), LONGEST / 2, "{failures}");
        }
    }
}
