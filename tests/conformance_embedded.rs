//! The conformance suite on the embedded log.

#![expect(
    clippy::expect_used,
    reason = "a test fails by a panic, in helpers as well"
)]

#[macro_use]
mod conformance;

use std::sync::Arc;
use std::time::Duration;

use conformance::Fixture;
use millstream::clock::{Clock, ManualClock, SystemClock};
use millstream::log::embedded::EmbeddedLog;

/// Time that moves only when the test says so.
struct VirtualTime {
    log: EmbeddedLog,
    clock: ManualClock,
}

impl VirtualTime {
    fn new() -> Self {
        let clock = ManualClock::at(1_700_000_000_000);
        Self {
            log: EmbeddedLog::in_memory(Arc::new(clock.clone())).with_virtual_time(),
            clock,
        }
    }
}

impl Fixture<EmbeddedLog> for VirtualTime {
    fn log(&self) -> &EmbeddedLog {
        &self.log
    }

    fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    fn pass(&mut self, time: Duration) {
        self.clock
            .advance(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    }

    fn maintain(&mut self) {
        assert_eq!(self.log.maintain(), Ok(()));
    }
}

/// The machine's clock, and waits that block.
struct RealTime {
    log: EmbeddedLog,
}

impl RealTime {
    fn new() -> Self {
        Self {
            log: EmbeddedLog::in_memory(Arc::new(SystemClock)),
        }
    }
}

impl Fixture<EmbeddedLog> for RealTime {
    fn log(&self) -> &EmbeddedLog {
        &self.log
    }

    fn now(&self) -> i64 {
        SystemClock.now_ms()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the step of a wait that has a deadline"
    )]
    fn pass(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn maintain(&mut self) {
        assert_eq!(self.log.maintain(), Ok(()));
    }
}

/// A log in a directory, under virtual time.
struct InDirectory {
    inner: VirtualTime,
    _dir: tempfile::TempDir,
}

impl InDirectory {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = ManualClock::at(1_700_000_000_000);
        let log = EmbeddedLog::open(dir.path(), Arc::new(clock.clone())).expect("an empty log");
        Self {
            inner: VirtualTime {
                log: log.with_virtual_time(),
                clock,
            },
            _dir: dir,
        }
    }
}

impl Fixture<EmbeddedLog> for InDirectory {
    fn log(&self) -> &EmbeddedLog {
        self.inner.log()
    }

    fn now(&self) -> i64 {
        self.inner.now()
    }

    fn pass(&mut self, time: Duration) {
        self.inner.pass(time);
    }

    fn maintain(&mut self) {
        self.inner.maintain();
    }
}

/// Makes a `#[test]` of each case, on a fresh fixture.
macro_rules! conformance_tests {
    ($fixture:expr; $($module:ident::$case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                crate::conformance::$module::$case(&mut $fixture);
            }
        )*
    };
}

mod virtual_time {
    use super::VirtualTime;

    conformance_suite!(VirtualTime::new());
    conformance_slow_suite!(VirtualTime::new());
}

mod in_directory {
    use super::InDirectory;

    conformance_suite!(InDirectory::new());
    conformance_slow_suite!(InDirectory::new());
}

mod real_time {
    use super::RealTime;

    conformance_suite!(RealTime::new());
}
