//! Accounts of a real daemon, and money that goes between them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use serde_json::{Value, json};

use crate::support::{Answer, Daemon, Site, until};

pub(crate) const ACCOUNTS: u64 = 5;
const OPENING: u64 = 1_000;
const KILLS: u64 = 4;
const TRANSFERS: u64 = 12;

pub(crate) fn account(number: u64) -> String {
    format!("account-{number}")
}

pub(crate) fn command(kind: &str, data: Value) -> Value {
    json!({"commandType": kind, "data": data})
}

pub(crate) fn open_accounts(daemon: &Daemon) {
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

pub(crate) fn transfer(daemon: &Daemon, id: &str, from: &str, to: &str, amount: &str) -> Answer {
    let data = json!({
        "fromAccount": from, "toAccount": to, "amount": amount, "reason": "test",
    });
    let body = command("Transfer", data).to_string();
    let path = format!("/commands/Transaction/{id}");
    daemon.post(&path, Some(&format!("key-{id}")), &body)
}

pub(crate) fn state(daemon: &Daemon, path: &str) -> Value {
    daemon.get(&format!("/aggregates/{path}")).body["state"].clone()
}

/// Waits until a transaction has come to its end; returns how.
pub(crate) fn ended(daemon: &Daemon, id: &str) -> String {
    until("the transfer ends", || {
        let status = state(daemon, &format!("Transaction/{id}"))["status"].clone();
        let status = status.as_str()?;
        matches!(status, "COMPLETED" | "FAILED").then(|| status.to_owned())
    })
}

pub(crate) fn cents(amount: &Value) -> i64 {
    let text = amount.as_str().unwrap();
    let (whole, part) = text.split_once('.').unwrap();
    whole.parse::<i64>().unwrap() * 100 + part.parse::<i64>().unwrap()
}

pub(crate) fn balances(daemon: &Daemon) -> Vec<i64> {
    (0..ACCOUNTS)
        .map(|number| cents(&state(daemon, &format!("Account/{}", account(number)))["balance"]))
        .collect()
}

/// Kills the daemon while transfers are under way; what a caller has seen accepted ends all the same, and
/// what it repeats is not made twice.
pub(crate) fn survive_kills(site: &Site, arguments: &[&str]) {
    let mut daemon = Daemon::start_ready(site, arguments);
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
        daemon = Daemon::start_ready(site, arguments);
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
    remove_an_account(site, arguments, daemon);
}

/// Removes an account and kills the daemon: it is gone for good all the same.
fn remove_an_account(site: &Site, arguments: &[&str], daemon: Daemon) {
    let steps = [
        ("OpenAccount", json!({"owner": "x", "currency": "EUR"})),
        (
            "ChangeStatus",
            json!({"newStatus": "CLOSED", "reason": "test"}),
        ),
        ("RemoveAccount", json!({"reason": "test"})),
    ];
    for (kind, data) in steps {
        let answer = daemon.command("gone", kind, &command(kind, data));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    daemon.kill();
    let daemon = Daemon::start_ready(site, arguments);
    let gone = daemon.get("/aggregates/Account/gone");
    assert_eq!((gone.status, gone.code()), (410, "TOMBSTONED"), "{gone:?}");
    assert_eq!(gone.body["currentVersion"], 3);
    let opening = json!({"owner": "y", "currency": "EUR"});
    let again = daemon.command("gone", "again", &command("OpenAccount", opening));
    assert_eq!(
        (again.status, again.code()),
        (410, "TOMBSTONED"),
        "{again:?}"
    );
    // Money for it goes back.
    let sent = transfer(&daemon, "tx-gone", "account-0", "gone", "1.00");
    assert_eq!(sent.status, 202, "{sent:?}");
    assert_eq!(ended(&daemon, "tx-gone"), "FAILED");
    let failure = state(&daemon, "Transaction/tx-gone")["failure"].take();
    assert_eq!(failure["reasonCode"], "TOMBSTONED");
    daemon.stop();
}
