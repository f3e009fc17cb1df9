//! Transfers on the real binary: over HTTP, through `kill -9`, and through a reset.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream::clock::SystemClock;
use millstream::event_sourcing::parse_timestamp;
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{Isolation, Log, TopicPartition};
use serde_json::{Value, json};
use support::{Answer, Daemon, Site, millstream, stderr, until};

const ACCOUNTS: u64 = 5;
const OPENING: u64 = 1_000;
const KILLS: u64 = 4;
const TRANSFERS: u64 = 12;

fn account(number: u64) -> String {
    format!("account-{number}")
}

fn command(kind: &str, data: Value) -> Value {
    json!({"commandType": kind, "data": data})
}

fn open_accounts(daemon: &Daemon) {
    for number in 0..ACCOUNTS {
        let id = account(number);
        let data = json!({"owner": "x", "currency": "EUR"});
        let opened = daemon.command(&id, &format!("open-{id}"), &command("OpenAccount", data));
        assert_eq!(opened.status, 200, "{opened:?}");
        let data = json!({"amount": OPENING.to_string(), "reason": "test"});
        let filled = daemon.command(&id, &format!("fill-{id}"), &command("TopUp", data));
        assert_eq!(filled.status, 200, "{filled:?}");
    }
}

fn transfer(daemon: &Daemon, id: &str, from: &str, to: &str, amount: &str) -> Answer {
    let data = json!({
        "fromAccount": from, "toAccount": to, "amount": amount, "reason": "test",
    });
    let body = command("Transfer", data).to_string();
    let path = format!("/commands/Transaction/{id}");
    daemon.post(&path, Some(&format!("key-{id}")), &body)
}

fn state(daemon: &Daemon, path: &str) -> Value {
    daemon.get(&format!("/aggregates/{path}")).body["state"].clone()
}

/// Waits until a transaction has come to its end; returns how.
fn ended(daemon: &Daemon, id: &str) -> String {
    until("the transfer ends", || {
        let status = state(daemon, &format!("Transaction/{id}"))["status"].clone();
        let status = status.as_str()?;
        matches!(status, "COMPLETED" | "FAILED").then(|| status.to_owned())
    })
}

fn cents(amount: &Value) -> i64 {
    let text = amount.as_str().unwrap();
    let (whole, part) = text.split_once('.').unwrap();
    whole.parse::<i64>().unwrap() * 100 + part.parse::<i64>().unwrap()
}

fn balances(daemon: &Daemon) -> Vec<i64> {
    (0..ACCOUNTS)
        .map(|number| cents(&state(daemon, &format!("Account/{}", account(number)))["balance"]))
        .collect()
}

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
    let start = parse_timestamp(&format!("{}T00:00:00Z", day.unwrap())).unwrap();
    let turnover = daemon.get(&format!("/stores/account-turnover/account-0@{start}"));
    assert_eq!(turnover.body["value"]["debits"], "12.50", "{turnover:?}");
    let audit = daemon.get("/stores/account-audit/account-0@3").body;
    assert_eq!(audit["value"]["before"]["balance"], "1000.00");
    assert_eq!(audit["value"]["after"]["balance"], "987.50");
    until("all accounts are counted", || {
        let count = daemon.get("/stores/account-status-counts/ACTIVE");
        (count.body["value"] == ACCOUNTS).then_some(())
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

/// Kills the daemon while transfers are under way; what a caller has seen accepted ends all the same, and
/// what it repeats is not made twice.
#[test]
fn transfers_survive_kill_9_and_no_money_is_lost_or_made() {
    let site = Site::new("state: {flush_interval: 200ms}");
    let embedded = site.embedded();
    let mut daemon = Daemon::start_ready(&site, &[&embedded]);
    open_accounts(&daemon);
    daemon.command(
        "account-4",
        "freeze",
        &command(
            "ChangeStatus",
            json!({"newStatus": "FROZEN", "reason": "test"}),
        ),
    );
    let order = |number: u64| {
        let (from, to) = (number % 4, (number + 1 + number / 4) % ACCOUNTS);
        (account(from), account(to), format!("{}.07", number + 1))
    };
    let mut moved = 0;
    for kill in 0..KILLS {
        let numbers: Vec<u64> = (kill * TRANSFERS..(kill + 1) * TRANSFERS).collect();
        for number in &numbers {
            let (from, to, amount) = order(*number);
            let answer = transfer(&daemon, &format!("tx-{number}"), &from, &to, &amount);
            let refused = from == to;
            assert_eq!(answer.status, if refused { 422 } else { 202 }, "{answer:?}");
        }
        // Steps of the last ones are still under way.
        daemon.kill();
        daemon = Daemon::start_ready(&site, &[&embedded]);
        for number in &numbers {
            let (from, to, amount) = order(*number);
            let again = transfer(&daemon, &format!("tx-{number}"), &from, &to, &amount);
            assert_eq!(again.status, if from == to { 422 } else { 202 });
        }
    }
    for number in 0..KILLS * TRANSFERS {
        let (from, to, _) = order(number);
        if from == to {
            continue;
        }
        let status = ended(&daemon, &format!("tx-{number}"));
        let expected = if to == "account-4" {
            "FAILED"
        } else {
            "COMPLETED"
        };
        assert_eq!(status, expected, "tx-{number} from {from} to {to}");
        moved += 1;
    }
    assert!(moved > TRANSFERS);
    let total = i64::try_from(ACCOUNTS * OPENING * 100).unwrap();
    assert_eq!(balances(&daemon).iter().sum::<i64>(), total);
    daemon.stop();
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
fn look(daemon: &Daemon, transactions: u64, day: i64) -> BTreeMap<String, Value> {
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
        (count.body["value"] == 1).then_some(())
    });
    let movement = daemon.get("/stores/account-movements/account-0@2").body;
    let occurred = movement["value"]["occurredAt"].as_str().unwrap();
    let day = occurred.split('T').next().unwrap();
    let day = parse_timestamp(&format!("{day}T00:00:00Z")).unwrap();
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
