//! The conformance suite on a real broker. Skipped, visibly, when there is none.

#[macro_use]
mod conformance;

#[path = "broker/support.rs"]
mod support;

use std::time::Duration;

use conformance::Fixture;
use millstream::clock::{Clock, SystemClock};
use millstream::log::kafka::KafkaLog;

/// A broker, and the machine's clock.
struct Broker {
    log: KafkaLog,
}

impl Fixture<KafkaLog> for Broker {
    fn log(&self) -> &KafkaLog {
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
        // `scripts/kafka` makes the broker look for work every second.
    }
}

/// Runs a case on the broker, if there is one.
macro_rules! conformance_tests {
    ($fixture:expr; $($module:ident::$case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                if let Some(log) = $crate::support::broker(stringify!($case)) {
                    conformance::$module::$case(&mut Broker { log });
                }
            }
        )*
    };
}

conformance_suite! { () }
conformance_slow_suite! { () }
