//! librdkafka's log lines and client errors, into `tracing`, each kind at most once per interval:
//! a broker that is away is reported by every connection attempt of every client.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use super::ffi::NativeError;

/// The reason with which a dropped group member ends; no news to anybody.
pub(super) const ABANDONED: &CStr = c"the consumer was dropped";

/// How often a repeated condition is logged.
const INTERVAL: Duration = Duration::from_secs(10);
/// How many kinds of conditions are remembered; more are a sign of text in the key.
const KINDS_MAX: usize = 256;

/// Syslog levels as librdkafka uses them.
const LEVEL_ERROR: i32 = 3;
const LEVEL_WARNING: i32 = 4;
const LEVEL_NOTICE: i32 = 5;
const LEVEL_INFO: i32 = 6;

struct Limiter(Mutex<HashMap<String, (Instant, u64)>>);

static LIMITER: LazyLock<Limiter> = LazyLock::new(|| Limiter(Mutex::new(HashMap::new())));

impl Limiter {
    /// Returns how many were suppressed before this one, or `None` when this one is, too.
    fn admit(&self, kind: &str, now: Instant) -> Option<u64> {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, suppressed)) = kinds.get_mut(kind) {
            if now.duration_since(*since) < INTERVAL {
                *suppressed += 1;
                return None;
            }
            *since = now;
            return Some(std::mem::take(suppressed));
        }
        if kinds.len() >= KINDS_MAX {
            kinds.clear();
        }
        kinds.insert(kind.to_owned(), (now, 0));
        Some(0)
    }
}

/// Logs a line of librdkafka.
pub(super) fn library_log(client: &str, level: i32, facility: &str, line: &str) {
    // Each kind of client gets properties of the other kinds, which it ignores: not worth a line.
    let level =
        if facility == "CONFWARN" || ABANDONED.to_str().is_ok_and(|ours| line.contains(ours)) {
            LEVEL_INFO + 1
        } else {
            level
        };
    if level > LEVEL_INFO {
        debug!(target: "librdkafka", client, facility, "{line}");
        return;
    }
    let Some(suppressed) = LIMITER.admit(facility, Instant::now()) else {
        return;
    };
    match level {
        ..=LEVEL_ERROR => error!(target: "librdkafka", client, facility, suppressed, "{line}"),
        LEVEL_WARNING => warn!(target: "librdkafka", client, facility, suppressed, "{line}"),
        LEVEL_NOTICE.. => info!(target: "librdkafka", client, facility, suppressed, "{line}"),
    }
}

/// Logs an error of a client that no call returns: connections, brokers, coordinators.
pub(super) fn client_error(client: &str, error: &NativeError) {
    let code = format!("{:?}", error.code);
    let Some(suppressed) = LIMITER.admit(&code, Instant::now()) else {
        return;
    };
    if error.fatal {
        error!(
            client,
            code, suppressed, "Kafka client failed: {}", error.message
        );
    } else {
        warn!(client, code, suppressed, "Kafka client: {}", error.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_condition_is_admitted_once_per_interval_and_counted() {
        let limiter = Limiter(Mutex::new(HashMap::new()));
        let start = Instant::now();
        assert_eq!(limiter.admit("FAIL", start), Some(0));
        assert_eq!(limiter.admit("FAIL", start), None);
        assert_eq!(limiter.admit("FAIL", start + INTERVAL / 2), None);
        assert_eq!(limiter.admit("OTHER", start), Some(0));
        assert_eq!(limiter.admit("FAIL", start + INTERVAL), Some(2));
        assert_eq!(limiter.admit("FAIL", start + INTERVAL), None);
    }
}
