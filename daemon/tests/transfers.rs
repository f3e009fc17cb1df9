//! Transfers on the real binary: over HTTP, through `kill -9`, and through a reset.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod money;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream::clock::SystemClock;
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{Isolation, Log, TopicPartition};
use money::{ACCOUNTS, account, command, ended, open_accounts, state, transfer};
use serde_json::{Value, json};
use support::{Daemon, Site, millstream, stderr, until};

#[test]
fn a_transfer_is_answered_with_its_id_and_seen_to_its_end() {
    let site = Site::new("");
    let daemon = Daemon::start_ready(&site, &["--embedded"]);
    open_accounts(&daemon);
    let answer = transfer(&daemon, "tx-1", "account-0", "account-1", "12.50");
    let expected = json!({"commandId": "key-tx-1", "transactionId": "tx-1"});
    assert_eq!((answer.status, answer.body), (202, expected));
    assert_eq!(ended(&daemon, "tx-1"), "COMPLETED");
    assert_eq!(state(&daemon, "Account/account-0")["balance"], "987.50");
    assert_eq!(state(&daemon, "Account/account-1")["balance"], "1012.50");

    // Its movement, its day, its entry in the audit log.
    let movement = daemon.get("/stores/account-movements/account-1@3").body;
    let movement = &movement["value"];
    assert_eq!(
        (&movement["signedAmount"], &movement["transactionId"]),
        (&json!("12.50"), &json!("tx-1"))
    );
    let day = movement["occurredAt"].as_str().unwrap().split('T').next();
    let day = day.unwrap();
    let turnover = daemon.get(&format!("/stores/account-turnover/account-0@{day}"));
    assert_eq!(turnover.body["value"]["debits"], "12.50", "{turnover:?}");
    let page = daemon.get(&format!("/turnover?accountId=account-0&day={day}"));
    assert_eq!(
        page.body["items"],
        json!([turnover.body["value"]]),
        "{page:?}"
    );
    let audit = daemon.get("/stores/account-audit/account-0@3").body;
    assert_eq!(audit["value"]["before"]["balance"], "1000.00");
    assert_eq!(audit["value"]["after"]["balance"], "987.50");
    until("all accounts are counted", || {
        let count = daemon.get("/stores/account-status-counts/ACTIVE");
        (count.body["value"]["accounts"] == ACCOUNTS).then_some(())
    });

    let same = transfer(&daemon, "tx-2", "account-0", "account-0", "1.00");
    assert_eq!((same.status, same.code()), (422, "SAME_ACCOUNT"));
    let astray = json!({"fromAccount": "account-0", "toAccount": "account-1", "amount": "1.00",
        "reason": "test"});
    let astray = daemon.command("account-0", "astray", &command("Transfer", astray));
    assert_eq!((astray.status, astray.code()), (422, "WRONG_AGGREGATE"));
    let leg = json!({"amount": "1.00", "reason": "x", "transactionId": "tx-1"});
    let forged = daemon.command("account-0", "tx-3-credit", &command("CreditTransfer", leg));
    assert_eq!((forged.status, forged.code()), (400, "PROCESS_COMMAND"));
    daemon.stop();
}

#[test]
fn transfers_survive_kill_9_and_no_money_is_lost_or_made() {
    let site = Site::new("state: {flush_interval: 200ms}");
    let embedded = site.embedded();
    money::survive_kills(&site, &[&embedded]);
}

/// The ends of all partitions of a topic.
fn ends(site: &Site, topic: &str) -> Vec<i64> {
    let log = EmbeddedLog::open(site.path("log"), Arc::new(SystemClock)).unwrap();
    let all: Vec<_> = (0..3)
        .map(|partition| TopicPartition::new(topic, partition))
        .collect();
    let ranges = log.log_ranges(&all, Isolation::ReadCommitted).unwrap();
    ranges.iter().map(|range| range.end).collect()
}

/// What is served of accounts, transactions and read models.
fn look(daemon: &Daemon, transactions: u64, day: &str) -> BTreeMap<String, Value> {
    let mut paths: Vec<String> = (0..transactions)
        .map(|number| format!("/aggregates/Transaction/tx-{number}"))
        .collect();
    for number in 0..ACCOUNTS {
        let id = account(number);
        paths.push(format!("/aggregates/Account/{id}"));
        paths.push(format!("/stores/account-turnover/{id}@{day}"));
        for version in 1..=6 {
            paths.push(format!("/stores/account-movements/{id}@{version}"));
            paths.push(format!("/stores/account-audit/{id}@{version}"));
        }
    }
    paths.push("/stores/account-status-counts/ACTIVE".to_owned());
    paths.push("/stores/account-status-counts/FROZEN".to_owned());
    let asked = paths.into_iter().map(|path| {
        let mut body = daemon.get(&path).body;
        if let Some(body) = body.as_object_mut() {
            // When a row was written is not what it says.
            body.remove("timestamp");
        }
        (path, body)
    });
    asked.collect()
}

#[test]
fn a_reset_rebuilds_every_read_model_and_issues_no_command() {
    let site = Site::new("");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    open_accounts(&daemon);
    let freeze = json!({"newStatus": "FROZEN", "reason": "test"});
    daemon.command("account-4", "freeze", &command("ChangeStatus", freeze));
    let transfers = [(0, 1), (1, 2), (2, 4), (3, 0)];
    for (number, (from, to)) in transfers.into_iter().enumerate() {
        let id = format!("tx-{number}");
        transfer(&daemon, &id, &account(from), &account(to), "10.00");
        ended(&daemon, &id);
    }
    until("all accounts are counted", || {
        let count = daemon.get("/stores/account-status-counts/FROZEN");
        (count.body["value"]["accounts"] == 1).then_some(())
    });
    let movement = daemon.get("/stores/account-movements/account-0@2").body;
    let occurred = movement["value"]["occurredAt"].as_str().unwrap();
    let day = occurred.split('T').next().unwrap();
    let before = look(&daemon, 4, day);
    daemon.stop();
    let written = |site: &Site| {
        [
            "billing.account.commands",
            "billing.account.events",
            "billing.account.replies",
            "billing.transaction.commands",
            "billing.transaction.events",
            "billing.transaction.replies",
        ]
        .map(|topic| (topic, ends(site, topic)))
    };
    let ends_before = written(&site);

    let output = millstream(&["reset", &site.config(), &embedded, "--execute"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    let mut after = BTreeMap::new();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while after != before && std::time::Instant::now() < deadline {
        after = look(&daemon, 4, day);
    }
    for (path, before) in &before {
        assert_eq!(&after[path], before, "{path}");
    }
    daemon.stop();
    assert_eq!(
        written(&site),
        ends_before,
        "nothing is decided or asked again"
    );
}
