//! An account whose early events leave the history store and the topic: nobody who asks for the past sees
//! where it is.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

use millstream::log::{Isolation, Log, TopicPartition};
use serde_json::{Value, json};

use crate::support::{Daemon, Site, until};

const PARTITIONS: i32 = 3;
const VERSIONS: usize = 210;
/// The last snapshot is at version 200, and 50 events before it are kept.
const LAST_ARCHIVED: usize = 150;

/// A site whose configuration ends with `more`.
pub(crate) fn site(more: &str) -> Site {
    let site = Site::new(more);
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

/// Deletes all records of `topic`, as its retention would.
pub(crate) fn cut(log: &impl Log, topic: &str) {
    for partition in 0..PARTITIONS {
        let at = TopicPartition::new(topic, partition);
        let ranges = log.log_ranges(std::slice::from_ref(&at), Isolation::ReadCommitted);
        let end = ranges.unwrap().remove(0).end;
        log.delete_records(&[(at, end)]).unwrap();
    }
}

/// Asks the same of the past while the topic has it and after `cut`, when only the archive does.
pub(crate) fn is_answered_alike(site: &Site, arguments: &[&str], cut: impl FnOnce()) {
    let daemon = Daemon::start_ready(site, arguments);
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

    cut();
    let daemon = Daemon::start_ready(site, arguments);
    assert_eq!(answers(&daemon), expected, "only the archive has them");
    std::fs::remove_dir_all(site.path("archive")).unwrap();
    let gone = daemon.get("/aggregates/Account/a/timeline");
    assert_eq!((gone.status, gone.code()), (410, "EVENTS_GONE"), "{gone:?}");
    let recent = daemon.get("/aggregates/Account/a/events?from_version=160");
    assert_eq!(recent.status, 200, "{recent:?}");
    daemon.stop();
}
