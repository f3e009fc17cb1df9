//! As in `transfers.rs`, on a real Kafka: `KAFKA_BOOTSTRAP_SERVERS` names it. Topics and application have
//! names of this run's own.

mod money;
mod support;

use std::io::Write;

use millstream::clock::{Clock, SystemClock};
use support::Site;

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

#[test]
fn transfers_survive_kill_9_on_kafka() {
    let Ok(servers) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
        // Past the harness's capture: a skip that nobody sees looks like a pass.
        let line = b"SKIPPED transfers_kafka: KAFKA_BOOTSTRAP_SERVERS is not set\n";
        std::io::stderr()
            .write_all(line)
            .expect("stderr is writable");
        return;
    };
    let run = format!("run-{}", SystemClock.now_ms());
    let topics: String = TOPICS
        .iter()
        .map(|topic| format!("  billing.{topic}: {{name: {run}.{topic}}}\n"))
        .collect();
    let site = Site::new(&format!(
        "state: {{flush_interval: 200ms}}\nkafka: {{bootstrap_servers: \"{servers}\"}}\n\
         topics:\n{topics}"
    ));
    let application = format!("application_id={run}");
    money::survive_kills(&site, &["--set", &application]);
}
