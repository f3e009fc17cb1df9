//! `account` on a real Kafka that `KAFKA_BOOTSTRAP_SERVERS` names, under names of this run's own.

#![expect(
    clippy::expect_used,
    reason = "a test fails by a panic, in helpers as well"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use std::io::Write;

use millstream::clock::{Clock, SystemClock};

const TOPICS: [&str; 12] = [
    "account.audit",
    "account.balances",
    "account.commands",
    "account.dlq",
    "account.events",
    "account.movements",
    "account.replies",
    "account.status-counts",
    "account.turnover",
    "transaction.commands",
    "transaction.events",
    "transaction.replies",
];

/// Names of a deployment that nothing else has.
pub(crate) struct Deployment {
    pub(crate) servers: String,
    run: String,
}

impl Deployment {
    /// Returns nothing, and says so, where there is no broker.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let Ok(servers) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
            // Past the harness's capture: a skip that nobody sees looks like a pass.
            let line = format!("SKIPPED {test}: KAFKA_BOOTSTRAP_SERVERS is not set\n");
            std::io::stderr()
                .write_all(line.as_bytes())
                .expect("stderr is writable");
            return None;
        };
        let run = format!("{test}-{}", SystemClock.now_ms());
        Some(Self { servers, run })
    }

    /// Returns what the configuration says of it.
    pub(crate) fn config(&self) -> String {
        let topics: String = TOPICS
            .iter()
            .map(|topic| format!("  billing.{topic}: {{name: {}}}\n", self.topic(topic)))
            .collect();
        let servers = &self.servers;
        format!("kafka: {{bootstrap_servers: \"{servers}\"}}\ntopics:\n{topics}")
    }

    /// Returns the name that a topic has here.
    pub(crate) fn topic(&self, topic: &str) -> String {
        format!("{}.{topic}", self.run)
    }

    /// Returns what follows `--set`.
    pub(crate) fn application(&self) -> String {
        format!("application_id={}", self.run)
    }
}
