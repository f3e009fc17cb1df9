//! The registry as a scraper sees it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::names::Metric;
use super::{MemoryUser, Metrics, SetAsideReason, TaskState, reference_page};
use crate::log::TopicPartition;

/// Uses every handle once.
fn everything(metrics: &Metrics) {
    metrics.thread(0).commits.inc();
    let task = metrics.task(0, "0_1");
    task.set_state(TaskState::Restoring);
    task.source("events", 1).processed.inc_by(10);
    task.sink("balances").records.inc();
    task.store("accounts").restored_records.inc();
    task.event_sourcing("Account").appended.inc();
    task.process("Transaction").stuck.inc();
    task.projection("balances").lag.set(3);
    task.counter("stand_conflicts").inc();
    metrics.state_set_aside(SetAsideReason::TooOld);
    metrics.set_memory_used(MemoryUser::BlockCache, 5);
    metrics.set_memory_max(10);
    metrics.http_request("/health/live", 200, Duration::from_millis(2));
    let sink = metrics.sink("postgres");
    sink.position(&TopicPartition::new("balances", 0), 5);
}

#[test]
fn every_metric_of_the_table_is_reachable_and_no_other_is_shown() {
    let metrics = Metrics::new();
    everything(&metrics);
    let text = metrics.render();
    let shown: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let table: BTreeSet<&str> = Metric::ALL
        .iter()
        .map(|metric| metric.spec().name)
        .collect();
    assert_eq!(shown, table);
}

#[test]
fn a_scrape_shows_names_labels_and_values() {
    let metrics = Metrics::new();
    everything(&metrics);
    let text = metrics.render();
    for line in [
        r#"millstream_records_processed_total{partition="1",task="0_1",thread="0",topic="events"} 10"#,
        r#"millstream_commits_total{thread="0"} 1"#,
        r#"millstream_restore_records_total{store="accounts",task="0_1",thread="0"} 1"#,
        r#"millstream_dead_letter_records_total{partition="1",task="0_1",thread="0",topic="events"} 0"#,
        r#"millstream_consumer_lag_records{partition="1",task="0_1",thread="0",topic="events"} 0"#,
        r#"millstream_task_state{state="restoring",task="0_1"} 1"#,
        r#"millstream_task_state{state="running",task="0_1"} 0"#,
        r#"millstream_state_directories_set_aside_total{reason="too_old"} 1"#,
        r#"millstream_topology_counted_events_total{counter="stand_conflicts",task="0_1",thread="0"} 1"#,
        r#"millstream_http_request_duration_seconds_bucket{route="/health/live",le="0.0025"} 1"#,
    ] {
        assert!(
            text.lines().any(|shown| shown == line),
            "{line}\nis not in\n{text}"
        );
    }
}

#[test]
fn a_task_that_leaves_takes_its_series_along() {
    let metrics = Metrics::new();
    let before = metrics.render();
    let task = metrics.task(0, "0_1");
    task.set_state(TaskState::Running);
    task.source("events", 1).processed.inc();
    task.sink("balances").records.inc();
    task.store("accounts").restored_records.inc();
    task.event_sourcing("Account").appended.inc();
    task.projection("balances").lag.set(3);
    task.counter("x").inc();
    let other = metrics.task(0, "0_2");
    other.source("events", 2).processed.inc();
    metrics.remove_task(0, "0_1");
    let text = metrics.render();
    assert!(!text.contains("0_1"), "{text}");
    assert!(text.contains("0_2"), "{text}");
    metrics.remove_task(0, "0_2");
    metrics.remove_task(0, "0_2");
    assert_eq!(metrics.render(), before);
}

#[test]
fn a_task_that_moves_within_the_process_keeps_the_state_its_new_thread_shows() {
    let metrics = Metrics::new();
    let old = metrics.task(0, "0_1");
    old.set_state(TaskState::Running);
    let new = metrics.task(1, "0_1");
    new.set_state(TaskState::Restoring);
    old.set_state(TaskState::Closing);
    metrics.remove_task(0, "0_1");
    let text = metrics.render();
    assert!(
        text.contains(r#"millstream_task_state{state="restoring",task="0_1"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"millstream_task_state{state="closing",task="0_1"} 0"#),
        "{text}"
    );
}

#[test]
fn resolving_twice_gives_the_same_series() {
    let metrics = Metrics::new();
    metrics
        .task(0, "0_1")
        .source("events", 1)
        .processed
        .inc_by(2);
    metrics
        .task(0, "0_1")
        .source("events", 1)
        .processed
        .inc_by(3);
    assert_eq!(
        metrics.task(0, "0_1").source("events", 1).processed.get(),
        5
    );
}

#[test]
fn a_sink_shows_the_lag_of_the_partitions_that_it_has() {
    let metrics = Metrics::new();
    let sink = metrics.sink("postgres");
    let partition = TopicPartition::new("balances", 2);
    sink.position(&partition, 5);
    let line = r#"millstream_sink_lag_records{partition="2",sink="postgres",topic="balances"} 5"#;
    assert!(metrics.render().contains(line));
    sink.give_up(&partition);
    assert!(!metrics.render().contains("millstream_sink_lag_records{"));
}

#[test]
fn two_processes_count_apart() {
    let (one, two) = (Metrics::new(), Metrics::new());
    one.thread(0).commits.inc();
    assert_eq!(two.thread(0).commits.get(), 0);
}

#[test]
fn a_topologys_counters_are_bounded() {
    let metrics = Metrics::new();
    let task = metrics.task(0, "0_0");
    for index in 0..100 {
        task.counter(&format!("counter_{index}")).inc();
    }
    task.counter(&"x".repeat(65)).inc();
    assert_eq!(task.counter("counter_63").get(), 1);
    assert_eq!(task.counter("other").get(), 37);
}

#[test]
fn latencies_are_shown_when_flushed_and_never_negative() {
    let metrics = Metrics::new();
    let task = metrics.task(0, "0_0");
    let recorder = task.latency_recorder();
    recorder.record(1_000, 1_007);
    recorder.record(5_000, 1_000);
    recorder.record(i64::MIN, i64::MAX);
    assert_eq!(task.latency.get_sample_count(), 0);
    recorder.flush();
    assert_eq!(task.latency.get_sample_count(), 3);
    let text = metrics.render();
    let bucket = |le: &str, count: u32| {
        let line = format!(
            "millstream_records_latency_seconds_bucket{{task=\"0_0\",thread=\"0\",le=\"{le}\"}} {count}"
        );
        assert!(
            text.lines().any(|shown| shown == line),
            "{line}\nis not in\n{text}"
        );
    };
    bucket("0.001", 1);
    bucket("0.005", 1);
    bucket("0.01", 2);
    bucket("+Inf", 3);
}

#[test]
fn the_reference_page_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = reference_page();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, page).expect("a writable source tree");
        return;
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/metrics.md differs from the table of metrics; write it again with\n  \
         UPDATE_GOLDEN=1 cargo test --release -p millstream --lib metrics::tests"
    );
}
