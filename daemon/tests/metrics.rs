//! Every declared metric is observed by a daemon at work, or is named here with the reason why not.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use millstream::clock::SystemClock;
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{Headers, Log, LogProducer, ProducerRecord, ProducerSpec, TopicName};
use millstream::metrics::reference_page;
use serde_json::{Value, json};
use support::{Daemon, Site, until};

/// What this test does not bring about, and who does.
const ELSEWHERE: [(&str, &str); 37] = [
    (
        "millstream_events_archived_total",
        "no archive in this deployment: topologies/account/tests/archived_history.rs",
    ),
    (
        "millstream_events_snapshots_total",
        "no account has a hundred events here: tests of history",
    ),
    (
        "millstream_events_snapshots_unreadable_total",
        "a fault: tests of time travel",
    ),
    (
        "millstream_events_states_unreadable_total",
        "a fault: tests of time travel",
    ),
    (
        "millstream_sink_batch_duration_seconds",
        "no sink in this deployment: tests of sinks",
    ),
    (
        "millstream_sink_batches_total",
        "no sink in this deployment: tests of sinks",
    ),
    (
        "millstream_sink_connection_state",
        "no sink in this deployment: tests of sinks",
    ),
    (
        "millstream_sink_failures_total",
        "no sink in this deployment: tests of sinks",
    ),
    (
        "millstream_sink_lag_records",
        "no sink in this deployment: tests of sinks",
    ),
    (
        "millstream_sink_records_total",
        "no sink in this deployment: tests of sinks",
    ),
    (
        "millstream_sink_rows_total",
        "no sink in this deployment: tests of sinks",
    ),
    (
        "millstream_sink_skipped_total",
        "no sink in this deployment: tests of sinks",
    ),
    (
        "millstream_sink_superseded_total",
        "no sink in this deployment: tests of sinks",
    ),
    ("millstream_commit_aborts_total", "a fault: thread tests"),
    (
        "millstream_commit_unknown_outcomes_total",
        "a fault: thread tests",
    ),
    (
        "millstream_commit_refusals_total",
        "a record that the log refuses: broker tests",
    ),
    (
        "millstream_records_dropped_total",
        "no window and no null key in this topology: tests of the DSL",
    ),
    (
        "millstream_state_expired_entries_total",
        "no time-to-live in this topology: tests of stores",
    ),
    ("millstream_log_retries_total", "a fault: thread tests"),
    (
        "millstream_membership_losses_total",
        "a fault: thread tests",
    ),
    ("millstream_thread_failures_total", "a fault"),
    (
        "millstream_state_directories_set_aside_total",
        "untrusted state: thread tests",
    ),
    (
        "millstream_records_skipped_total",
        "no source of this topology skips",
    ),
    (
        "millstream_records_retried_total",
        "no source of this topology retries",
    ),
    (
        "millstream_task_punctuations_total",
        "no punctuator in this topology",
    ),
    (
        "millstream_topology_counted_events_total",
        "foreign events in conflict",
    ),
    (
        "millstream_events_adopted_openings_total",
        "foreign events without their beginning",
    ),
    ("millstream_events_folded_total", "foreign events"),
    (
        "millstream_events_tombstones_total",
        "a removed account: tests of tombstones",
    ),
    (
        "millstream_events_tombstone_refusals_total",
        "a removed account: tests of tombstones",
    ),
    ("millstream_process_steps_issued_total", "a transfer"),
    (
        "millstream_process_steps_reissued_total",
        "a step without an answer: tests of transfers",
    ),
    (
        "millstream_process_steps_given_up_total",
        "a step without an answer: tests of transfers",
    ),
    (
        "millstream_process_steps_resumed_total",
        "a step without an answer: tests of transfers",
    ),
    (
        "millstream_process_stuck_total",
        "a suspended transfer: tests of transfers",
    ),
    ("millstream_events_large_total", "an event near 16 MiB"),
    ("millstream_events_refused_total", "an event beyond 16 MiB"),
];

/// Name and type of every declared metric, from the page that is written from the table.
fn declared() -> Vec<(String, String)> {
    let page = reference_page();
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `millstream_"));
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let name = cells.next().unwrap().trim_end_matches('`');
        let kind = cells.next().unwrap();
        (format!("millstream_{name}"), kind.to_owned())
    })
    .collect()
}

/// The metrics that a scrape shows to have been observed: counted, timed, or set at all.
fn observed(scrape: &str) -> BTreeSet<String> {
    let value = |name: &str| {
        let series = scrape.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' ']).then_some(rest)
        });
        let values: Vec<f64> = series
            .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>())
    };
    declared()
        .into_iter()
        .filter(|(name, kind)| match kind.as_str() {
            "gauge" => value(name).is_some(),
            "histogram" => value(&format!("{name}_count")).is_some_and(|count| count > 0.0),
            _ => value(name).is_some_and(|count| count > 0.0),
        })
        .map(|(name, _)| name)
        .collect()
}

fn scrape(daemon: &Daemon) -> String {
    let (status, text) = daemon.text("/metrics");
    assert_eq!(status, 200);
    text
}

fn command(kind: &str, data: Value) -> Value {
    json!({"commandType": kind, "data": data})
}

/// Writes what no account understands.
fn write_garbage(site: &Site) {
    let log = EmbeddedLog::open(site.path("log"), Arc::new(SystemClock)).unwrap();
    let spec = ProducerSpec {
        transactional_id: None,
        transaction_timeout: Duration::from_secs(10),
        client_id: "test".to_owned(),
    };
    let mut producer = log.producer(&spec).unwrap();
    let record = ProducerRecord {
        topic: &TopicName::from("billing.account.commands"),
        partition: Some(0),
        key: Some(b"a"),
        value: Some(b"not a command"),
        timestamp: 1_704_067_200_000,
        headers: &Headers::new(),
    };
    producer.send(record).unwrap();
    producer.flush().unwrap();
}

#[test]
fn every_declared_metric_is_observed_through_commits_a_flush_and_a_restore() {
    let site = Site::new("state: {flush_interval: 100ms}");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    let opened = command("OpenAccount", json!({"owner": "x", "currency": "EUR"}));
    let moved = command("TopUp", json!({"amount": "5.00", "reason": "test"}));
    for id in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(daemon.command(id, "open", &opened).status, 200);
        assert_eq!(daemon.command(id, "up", &moved).status, 200);
    }
    until("stores are flushed and memory is shown", || {
        let seen = observed(&scrape(&daemon));
        let wanted = [
            "millstream_state_flushes_total",
            "millstream_memory_used_bytes",
        ];
        wanted.iter().all(|name| seen.contains(*name)).then_some(())
    });
    let mut seen = observed(&scrape(&daemon));
    daemon.stop();

    // The derived state goes; a rebuild from history and a restore from changelogs follow.
    for entry in fs::read_dir(site.path("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    write_garbage(&site);
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    until("what is no command is dead-lettered", || {
        let seen = observed(&scrape(&daemon));
        seen.contains("millstream_dead_letter_records_total")
            .then_some(())
    });
    seen.extend(observed(&scrape(&daemon)));
    daemon.stop();
    let output = support::millstream(&["reset", &site.config(), &embedded, "--execute"]);
    assert!(output.status.success(), "{}", support::stderr(&output));
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    seen.extend(observed(&scrape(&daemon)));
    daemon.stop();

    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
    let names: BTreeSet<String> = declared().into_iter().map(|(name, _)| name).collect();
    assert!(names.len() > 30, "the page is read: {names:?}");
    let unknown: Vec<_> = elsewhere
        .iter()
        .filter(|name| !names.contains(**name))
        .collect();
    assert!(
        unknown.is_empty(),
        "listed here and not declared: {unknown:?}"
    );
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !seen.contains(*name) && !elsewhere.contains(name.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "declared and never observed: {missing:?}"
    );
}
