//! The real binary with a history store of recent events: nobody who asks for the past sees where it is.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::sync::Arc;

use millstream::clock::SystemClock;
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{Isolation, Log, TopicPartition};
use serde_json::{Value, json};
use support::{Daemon, Site, until};

const EVENTS: &str = "billing.account.events";
const VERSIONS: usize = 210;
/// The last snapshot is at version 200, and 50 events before it are kept.
const LAST_ARCHIVED: usize = 150;

fn site() -> Site {
    let site = Site::new("");
    let config = site.path("account.yaml");
    let more = format!(
        "parameters: {{history_events: 50}}\nsinks:\n  archive:\n    directory: {}\n    \
         max_age: 1s\n",
        site.path("archive").display()
    );
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + &more).unwrap();
    site
}

/// What is told of the account's past, at points before and after the last that has left.
fn answers(daemon: &Daemon) -> Vec<Value> {
    let account = "/aggregates/Account/a";
    let mut paths: Vec<String> = (1..=VERSIONS)
        .step_by(23)
        .map(|version| format!("{account}?version={version}"))
        .collect();
    paths.extend([
        format!("{account}/timeline?limit=1000"),
        format!("{account}/events?from_version=100&limit=100"),
        format!("{account}/diff?from=2&to=209"),
        "/aggregates/Account/events?limit=1000".to_owned(),
        "/verify/Account".to_owned(),
    ]);
    let get = |path: &String| {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    };
    paths.iter().map(get).collect()
}

#[test]
fn the_past_is_answered_alike_from_the_store_and_from_the_archive() {
    let site = site();
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    for number in 0..VERSIONS {
        let (kind, data) = if number == 0 {
            ("OpenAccount", json!({"owner": "Ada", "currency": "EUR"}))
        } else {
            ("TopUp", json!({"amount": "1.00", "reason": "test"}))
        };
        let body = json!({"commandType": kind, "data": data});
        until("the command is carried out", || {
            let answer = daemon.command("a", &format!("a-{number}"), &body);
            (answer.status == 200).then_some(())
        });
    }
    let expected = answers(&daemon);
    let stored = |daemon: &Daemon, version: usize| {
        daemon
            .get(&format!("/stores/account-history/a@{version}"))
            .body
    };
    until("events have left the store", || {
        let last = stored(&daemon, LAST_ARCHIVED);
        last.pointer("/value/archived").is_some().then_some(())
    });
    assert!(stored(&daemon, 1).pointer("/value/archived").is_some());
    let kept = stored(&daemon, LAST_ARCHIVED + 1);
    assert!(kept.pointer("/value/event").is_some(), "{kept}");
    assert_eq!(answers(&daemon), expected, "the topic still has them");
    daemon.kill();

    {
        let log = EmbeddedLog::open(site.path("log"), Arc::new(SystemClock)).unwrap();
        for partition in 0..3 {
            let at = TopicPartition::new(EVENTS, partition);
            let ranges = log.log_ranges(std::slice::from_ref(&at), Isolation::ReadCommitted);
            let end = ranges.unwrap().remove(0).end;
            log.delete_records(&[(at, end)]).unwrap();
        }
    }
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    assert_eq!(answers(&daemon), expected, "only the archive has them");
    std::fs::remove_dir_all(site.path("archive")).unwrap();
    let gone = daemon.get("/aggregates/Account/a/timeline");
    assert_eq!((gone.status, gone.code()), (410, "EVENTS_GONE"), "{gone:?}");
    let recent = daemon.get("/aggregates/Account/a/events?from_version=160");
    assert_eq!(recent.status, 200, "{recent:?}");
    daemon.stop();
}
