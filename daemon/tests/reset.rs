//! `millstream reset` on the real binary: the plan, the execution, and what is the same afterwards.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream::clock::{Clock as _, SystemClock};
use millstream::format::offset_metadata::OffsetMetadata;
use millstream::format::partitioner::partition_for_key;
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{
    CommittedOffset, Headers, Isolation, Log, LogProducer, LogReader, ProducerRecord, ProducerSpec,
    TopicName, TopicPartition,
};
use millstream::reset::PENDING_KEY;
use serde_json::{Value, json};
use support::{Daemon, Site, millstream, stderr, stdout, until};

const APPLICATION: &str = "test-account";
const EVENTS: &str = "billing.account.events";
const DEAD_LETTERS: &str = "billing.account.dlq";
const COMMANDS: &str = "billing.account.commands";

fn command(kind: &str, data: Value) -> Value {
    json!({"commandType": kind, "data": data})
}

/// Opens accounts and moves money; returns how they look.
fn work(daemon: &Daemon, round: usize) -> BTreeMap<String, Value> {
    let mut accounts = BTreeMap::new();
    for number in 0..6 {
        let id = format!("account-{number}");
        if round == 0 {
            let data = json!({"owner": "x", "currency": "EUR"});
            let opened = daemon.command(&id, &format!("open-{id}"), &command("OpenAccount", data));
            assert_eq!(opened.status, 200, "{opened:?}");
        }
        let data = json!({"amount": format!("{}.10", number + 1), "reason": "test"});
        let moved = daemon.command(&id, &format!("up-{round}"), &command("TopUp", data));
        assert_eq!(moved.status, 200, "{moved:?}");
        accounts.insert(
            id.clone(),
            daemon.get(&format!("/aggregates/Account/{id}")).body,
        );
    }
    accounts
}

fn look(daemon: &Daemon) -> BTreeMap<String, Value> {
    (0..6)
        .map(|number| {
            let id = format!("account-{number}");
            let body = daemon.get(&format!("/aggregates/Account/{id}")).body;
            (id, body)
        })
        .collect()
}

fn open_log(site: &Site) -> EmbeddedLog {
    EmbeddedLog::open(site.path("log"), Arc::new(SystemClock)).unwrap()
}

fn partitions(topic: &str) -> Vec<TopicPartition> {
    (0..3)
        .map(|partition| TopicPartition::new(topic, partition))
        .collect()
}

fn committed(log: &EmbeddedLog, topic: &str) -> Vec<Option<CommittedOffset>> {
    log.group_offsets(APPLICATION, &partitions(topic)).unwrap()
}

/// The values of all records of a topic.
fn values(log: &EmbeddedLog, topic: &str) -> Vec<Value> {
    let mut reader = log.reader(Isolation::ReadCommitted).unwrap();
    let all = partitions(topic);
    let ends = log.log_ranges(&all, Isolation::ReadCommitted).unwrap();
    let from: Vec<_> = all
        .iter()
        .cloned()
        .zip(ends.iter().map(|range| range.start))
        .collect();
    reader.assign(&from).unwrap();
    let mut messages = Vec::new();
    until("all records are read", || {
        reader
            .poll(1000, std::time::Duration::from_millis(50), &mut messages)
            .unwrap();
        let done = all
            .iter()
            .zip(&ends)
            .all(|(partition, range)| reader.position(partition).unwrap_or(0) >= range.end);
        done.then_some(())
    });
    messages
        .iter()
        .map(|message| {
            use millstream::log::LogMessage as _;
            serde_json::from_slice(message.value().unwrap()).unwrap()
        })
        .collect()
}

/// Every event in the log: by aggregate and version, its id.
fn events(log: &EmbeddedLog) -> Vec<(String, u64, String)> {
    let mut events: Vec<_> = values(log, EVENTS)
        .iter()
        .map(|event| {
            (
                event["aggregateId"].as_str().unwrap().to_owned(),
                event["aggregateVersion"].as_u64().unwrap(),
                event["eventId"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    events.sort();
    events
}

#[test]
fn a_dry_run_shows_the_plan_and_changes_nothing() {
    let site = Site::new("");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    work(&daemon, 0);
    daemon.stop();
    let before = {
        let log = open_log(&site);
        (
            committed(&log, EVENTS),
            committed(&log, COMMANDS),
            log.inspect_topics(),
        )
    };
    for flags in [&[][..], &["--dry-run"], &["--to-earliest"]] {
        let config = site.config();
        let mut arguments = vec!["reset", &config, &embedded];
        arguments.extend(flags);
        let output = millstream(&arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        let text = stdout(&output);
        for expected in [
            "test-account-account-state-changelog: changelog of the derived store",
            "records up to",
            "test-account-account-history-changelog: changelog of the record store",
            "generation 0 -> 1",
            "Nothing was changed",
        ] {
            assert!(text.contains(expected), "no `{expected}` in\n{text}");
        }
    }
    let log = open_log(&site);
    assert_eq!(
        (
            committed(&log, EVENTS),
            committed(&log, COMMANDS),
            log.inspect_topics()
        ),
        before
    );
}

#[test]
fn a_reset_rebuilds_the_same_accounts_and_no_event_is_lost_or_gained() {
    let site = Site::new("");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    work(&daemon, 0);
    let before = work(&daemon, 1);
    daemon.stop();
    let events_before = events(&open_log(&site));
    assert_eq!(events_before.len(), 18);

    let output = millstream(&["reset", &site.config(), &embedded, "--execute"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("Done."), "{}", stdout(&output));
    {
        let log = open_log(&site);
        let generation =
            |offset: &CommittedOffset| OffsetMetadata::decode(&offset.metadata).unwrap();
        for topic in [EVENTS, COMMANDS] {
            let offsets = committed(&log, topic);
            for offset in offsets.iter().flatten() {
                assert_eq!(generation(offset).generation(), 1);
                assert!(!generation(offset).entries.contains_key(PENDING_KEY));
            }
            let done: i64 = offsets.iter().flatten().map(|done| done.offset).sum();
            assert!(done >= 18, "{topic} is never rewound");
        }
        let state = log
            .describe_topics(&["test-account-account-state-changelog"])
            .unwrap();
        assert_eq!(state, [None]);
    }

    let daemon = Daemon::start_ready(&site, &[&embedded]);
    until("the accounts are rebuilt", || {
        (look(&daemon) == before).then_some(())
    });
    assert!(
        daemon.log().contains("set"),
        "local state was set aside: {}",
        daemon.log()
    );
    // The rebuilt account goes on where it was.
    let data = json!({"amount": "1.00", "reason": "after"});
    let more = daemon.command("account-0", "after", &command("TopUp", data));
    assert_eq!(
        (more.status, more.body["aggregateVersion"].as_u64()),
        (200, Some(4)),
        "{more:?}"
    );
    daemon.stop();
    let mut events_after = events(&open_log(&site));
    events_after.retain(|(id, version, _)| !(id == "account-0" && *version == 4));
    assert_eq!(events_after, events_before);
}

#[test]
fn a_reset_that_was_interrupted_keeps_the_daemon_from_starting_until_it_is_finished() {
    let site = Site::new("");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    let before = work(&daemon, 0);
    daemon.stop();
    {
        // What the first step of a reset leaves behind.
        let log = open_log(&site);
        let mut marked = Vec::new();
        for topic in [EVENTS, COMMANDS] {
            for (partition, offset) in partitions(topic).into_iter().zip(committed(&log, topic)) {
                let Some(offset) = offset else { continue };
                let mut metadata = OffsetMetadata::decode(&offset.metadata).unwrap();
                metadata.entries.insert(PENDING_KEY.to_owned(), 1);
                let metadata = metadata.encode();
                marked.push((partition, CommittedOffset { metadata, ..offset }));
            }
        }
        assert!(!marked.is_empty());
        log.alter_group_offsets(APPLICATION, &marked).unwrap();
    }
    let mut daemon = Daemon::start(&site, &[&embedded]);
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log());
    assert!(
        daemon.log().contains("millstream reset"),
        "{}",
        daemon.log()
    );
    // A failure is told once, with its whole chain.
    assert_eq!(
        daemon
            .log()
            .matches("a reset has begun and not ended")
            .count(),
        1,
        "{}",
        daemon.log()
    );
    drop(daemon);

    let output = millstream(&["reset", &site.config(), &embedded, "--execute"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    until("the accounts are rebuilt", || {
        (look(&daemon) == before).then_some(())
    });
    daemon.stop();
}

/// Writes events of another system, all of one account.
fn ledger(log: &EmbeddedLog, account: &str, versions: &[u64]) {
    let spec = ProducerSpec {
        transactional_id: None,
        transaction_timeout: std::time::Duration::from_secs(10),
        client_id: "ledger".to_owned(),
    };
    let mut producer = log.producer(&spec).unwrap();
    let topic = TopicName::from(EVENTS);
    for version in versions {
        let event = json!({
            "eventId": format!("ledger-{version}"), "eventType": "BalanceChanged",
            "aggregateId": account, "aggregateType": "Account", "aggregateVersion": version,
            "timestamp": "2024-01-01T00:00:00.000Z", "correlationId": "ledger",
            "data": {
                "previousBalance": format!("{}.00", version - 1), "newBalance": format!("{version}.00"),
                "changeAmount": "1.00", "changeType": "CREDIT", "signedAmount": "1.00",
                "reason": "ledger",
            },
        });
        let value = event.to_string();
        let record = ProducerRecord {
            topic: &topic,
            partition: Some(partition_for_key(account.as_bytes(), 3)),
            key: Some(account.as_bytes()),
            value: Some(value.as_bytes()),
            // The log would drop what is older than it keeps records.
            timestamp: SystemClock.now_ms(),
            headers: &Headers::new(),
        };
        producer.send(record).unwrap();
    }
    producer.flush().unwrap();
}

fn version(daemon: &Daemon, account: &str) -> Option<u64> {
    let answer = daemon.get(&format!("/aggregates/Account/{account}"));
    answer.body["version"].as_u64()
}

#[test]
fn a_reset_does_not_judge_events_again() {
    let site = Site::new("");
    let embedded = site.embedded();
    // Creates the topics.
    Daemon::start_ready(&site, &[&embedded]).stop();
    ledger(&open_log(&site), "ledger-a", &[1, 3, 2]);
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    until("the predecessor has come", || {
        (version(&daemon, "ledger-a") == Some(2)).then_some(())
    });
    daemon.stop();
    let letters = values(&open_log(&site), DEAD_LETTERS);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["aggregateVersion"], 3);

    let output = millstream(&["reset", &site.config(), &embedded, "--execute"]);
    assert!(output.status.success(), "{}", stderr(&output));
    // Behind the events of the first, in its partition: once it is there, they have been read again if
    // they ever are.
    let partition = partition_for_key(b"ledger-a", 3);
    let mut behind = (0..).map(|number| format!("ledger-b{number}"));
    let behind = behind
        .find(|id| partition_for_key(id.as_bytes(), 3) == partition)
        .unwrap();
    ledger(&open_log(&site), &behind, &[1]);
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    until("the later account is there", || {
        (version(&daemon, &behind) == Some(1)).then_some(())
    });
    assert_eq!(version(&daemon, "ledger-a"), Some(2), "judged once");
    daemon.stop();
    assert_eq!(values(&open_log(&site), DEAD_LETTERS), letters);
}

#[test]
fn an_application_that_never_ran_has_nothing_to_reset() {
    let site = Site::new("");
    let output = millstream(&["reset", &site.config(), &site.embedded(), "--execute"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("nothing to reset"),
        "{}",
        stdout(&output)
    );
}
