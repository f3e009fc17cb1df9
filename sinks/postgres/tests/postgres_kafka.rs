//! The sink on real Kafka and a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;

use millstream::log::kafka::KafkaLog;
use support::{Database, Items, random, until};

fn kafka(test: &str) -> Option<KafkaLog> {
    let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok();
    let Some(servers) = servers.filter(|servers| !servers.is_empty()) else {
        let line = format!("SKIPPED {test}: KAFKA_BOOTSTRAP_SERVERS is not set\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    };
    Some(KafkaLog::new(&servers, BTreeMap::new()).unwrap())
}

#[test]
fn on_kafka_two_processes_share_a_sink_and_survive_each_other() {
    let test = "on_kafka_two_processes_share_a_sink_and_survive_each_other";
    let (Some(log), Some(database)) = (kafka(test), Database::of(test)) else {
        return;
    };
    let mut random = random(test);
    let mut items = Items::new(&log, 4);
    items.random(&mut random, 3_000, 200);
    let sink = || database.sink("    batch_rows: 100\n");
    let first = items.run(&database, "one", sink());
    items.assert_arrives(&database, &[&first]);
    let second = items.run(&database, "two", sink());
    until("both have partitions", || {
        let counts = [&first, &second].map(|it| it.status.view().partitions.len());
        (counts == [2, 2]).then_some(())
    });
    items.random(&mut random, 3_000, 200);
    first.stop();
    items.random(&mut random, 1_000, 200);
    items.assert_arrives(&database, &[&second]);
    // Rebuilt while it runs, from Kafka's start.
    let configured = sink();
    let context = items.context(&configured);
    let rebuilt = database.runtime.block_on(configured.sink.rebuild(&context));
    assert!(rebuilt.is_ok(), "{rebuilt:?}");
    items.random(&mut random, 100, 200);
    items.assert_arrives(&database, &[&second]);
    second.stop();
}
