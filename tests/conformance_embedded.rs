//! The conformance suite on the embedded log.

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

mod virtual_time {
    use super::VirtualTime;

    conformance_suite!(VirtualTime::new());
    conformance_slow_suite!(VirtualTime::new());
}

mod real_time {
    use super::RealTime;

    conformance_suite!(RealTime::new());
}
