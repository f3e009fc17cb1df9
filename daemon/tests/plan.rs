//! `millstream plan` on the real binary: what runs is recorded, and what differs is told.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use millstream::clock::SystemClock;
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{Headers, Log, LogProducer, ProducerRecord, ProducerSpec, TopicName};
use serde_json::Value;
use support::{Daemon, Site, millstream, stderr, stdout};

fn plan(site: &Site, arguments: &[&str]) -> String {
    let (config, embedded) = (site.config(), site.embedded());
    let mut all = vec!["plan", &config, &embedded];
    all.extend(arguments);
    let output = millstream(&all);
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

/// Puts another topology in the place of the recorded one, as another version of the program would.
fn record(site: &Site, description: &Value) {
    let log = EmbeddedLog::open(site.path("log"), Arc::new(SystemClock)).unwrap();
    let mut producer = log
        .producer(&ProducerSpec {
            transactional_id: None,
            transaction_timeout: Duration::from_secs(1),
            client_id: "another-version".to_owned(),
        })
        .unwrap();
    let topic: TopicName = "test-account-millstream-topology".into();
    let record = ProducerRecord {
        topic: &topic,
        partition: Some(0),
        key: Some(b"topology"),
        value: Some(&serde_json::to_vec(description).unwrap()),
        timestamp: 1,
        headers: &Headers::new(),
    };
    producer.send(record).unwrap();
    producer.flush().unwrap();
}

#[test]
fn a_deployment_is_compared_with_the_topology_that_ran() {
    let site = Site::new("");
    assert!(plan(&site, &[]).contains("has recorded no topology yet"));
    Daemon::start_ready(&site, &[&site.embedded()]).stop();
    assert_eq!(
        plan(&site, &[]),
        "`test-account`: unchanged; nothing to do\n"
    );

    let described = millstream(&["describe", &site.config(), "--embedded", "--format", "json"]);
    let mut older: Value = serde_json::from_slice(&described.stdout).unwrap();
    let stores = older["subTopologies"][0]["stores"].as_array_mut().unwrap();
    let mut store = stores[0].clone();
    store["name"] = "owners".into();
    stores.push(store);
    record(&site, &older);
    let text = plan(&site, &[]);
    assert!(
        text.starts_with("`test-account`: needs restart; stop all processes"),
        "{text}"
    );
    assert!(text.contains("store `owners` is gone"), "{text}");
    assert!(
        text.contains("\n  test-account-owners-changelog\n"),
        "{text}"
    );
    let json: Value = serde_json::from_str(&plan(&site, &["--json"])).unwrap();
    assert_eq!(json["verdict"], "needsRestart");
    assert_eq!(json["changes"][0]["type"], "storeRemoved");

    let daemon = Daemon::start_ready(&site, &[&site.embedded()]);
    let log = daemon.log();
    assert!(log.contains("store `owners` is gone"), "{log}");
    daemon.stop();
    assert!(plan(&site, &[]).contains("unchanged"));
}

#[test]
fn a_plan_is_refused_while_the_embedded_log_is_in_use() {
    let site = Site::new("");
    let daemon = Daemon::start_ready(&site, &[&site.embedded()]);
    let output = millstream(&["plan", &site.config(), &site.embedded()]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("in use"), "{}", stderr(&output));
    drop(daemon);
}
