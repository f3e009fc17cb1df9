//! A removed account over HTTP and on the command line: refused by name, gone from what shows the present,
//! whole in what shows the past; the same after a kill, a rebuild of projections and a reset.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use serde_json::{Value, json};
use support::{Answer, Daemon, Site, millstream, stderr, stdout, until};

/// The versions of the removed account: opened, topped up, emptied, closed, removed.
const TOMBSTONE: u64 = 5;

fn send(daemon: &Daemon, id: &str, key: &str, kind: &str, data: Value) -> Answer {
    let metadata = json!({"actorId": "clerk", "reason": "test"});
    let body = json!({"commandType": kind, "metadata": metadata, "data": data});
    daemon.command(id, key, &body)
}

fn accepted(daemon: &Daemon, id: &str, key: &str, kind: &str, data: Value) -> Value {
    let answer = send(daemon, id, key, kind, data);
    assert_eq!(answer.status, 200, "{kind}: {answer:?}");
    answer.body
}

/// Removes the account `gone`, beside `here`, which stays; returns the reply to the removal.
fn remove(daemon: &Daemon) -> Value {
    let movement = |amount: &str| json!({"amount": amount, "reason": "test"});
    let opening = json!({"owner": "Ada", "currency": "EUR"});
    for id in ["gone", "here"] {
        accepted(daemon, id, "open", "OpenAccount", opening.clone());
        accepted(daemon, id, "up", "TopUp", movement("7.00"));
    }
    let too_early = send(
        daemon,
        "gone",
        "early",
        "RemoveAccount",
        json!({"reason": "x"}),
    );
    assert_eq!(
        (too_early.status, too_early.code()),
        (422, "ACCOUNT_NOT_CLOSED")
    );
    accepted(daemon, "gone", "down", "Withdraw", movement("7.00"));
    let close = json!({"newStatus": "CLOSED", "reason": "moved"});
    accepted(daemon, "gone", "close", "ChangeStatus", close);
    let reply = accepted(daemon, "gone", "remove", "RemoveAccount", removal());
    assert_fits("reply", &reply);
    assert_eq!(reply["aggregateVersion"], TOMBSTONE);
    reply
}

fn removal() -> Value {
    json!({"reason": "retention has ended"})
}

#[track_caller]
fn assert_fits(schema: &str, answer: &Value) {
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/http/schemas");
    let schema = support::read(format!("{schemas}/{schema}.schema.json").as_ref());
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let problems: Vec<String> = schema
        .iter_errors(answer)
        .map(|problem| problem.to_string())
        .collect();
    assert!(problems.is_empty(), "{problems:#?} in {answer:#}");
}

/// Checks an answer that says that the account has ended, by which version and when.
#[track_caller]
fn assert_tombstoned(answer: &Answer, at: &str) {
    assert_eq!(
        (answer.status, answer.code()),
        (410, "TOMBSTONED"),
        "{answer:?}"
    );
    assert_eq!(answer.body["currentVersion"], TOMBSTONE);
    assert_eq!(answer.body["tombstonedAt"], at);
    assert_fits("error", &answer.body);
}

#[track_caller]
fn ok(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.body
}

/// What shows the present shows nothing of the account, and refuses what comes.
fn assert_gone(daemon: &Daemon, removed: &Value) {
    let at = removed["tombstonedAt"].as_str().unwrap();
    let account = "/aggregates/Account/gone";
    for path in [
        account.to_owned(),
        format!("{account}?version={TOMBSTONE}"),
        format!("{account}?at={at}"),
        format!("{account}?at=2200-01-01T00:00:00Z"),
    ] {
        assert_tombstoned(&daemon.get(&path), at);
    }
    // New commands are refused, whatever they are; the id is not used again.
    for (number, (kind, data)) in [
        ("TopUp", json!({"amount": "1.00", "reason": "x"})),
        ("OpenAccount", json!({"owner": "Eve", "currency": "EUR"})),
        ("RemoveAccount", removal()),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = send(daemon, "gone", &format!("late-{number}"), kind, data);
        assert_tombstoned(&answer, at);
    }
    // The removal itself, repeated, gets its reply again.
    let again = accepted(daemon, "gone", "remove", "RemoveAccount", removal());
    assert_eq!(&again, removed);

    assert_eq!(daemon.get("/stores/account-balances/gone").status, 404);
    for (list, rows) in [("balances", 1), ("movements", 1)] {
        let items = ok(daemon, &format!("/{list}"))["items"].take();
        assert_eq!(items.as_array().unwrap().len(), rows, "{list}");
        assert_eq!(items[0]["accountId"], "here", "{list}");
    }
    let log = ok(daemon, "/audit?accountId=gone")["items"].take();
    assert_eq!(log.as_array().unwrap().len(), 5);
    let end = log.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&end["eventType"], &end["after"]),
        (&json!("AccountRemoved"), &json!(null))
    );
    assert_eq!(
        (&end["actorId"], &end["reason"]),
        (&json!("clerk"), &json!("test"))
    );
    until("the removed account counts no more", || {
        let counts = daemon.get("/status-counts");
        let expected = json!([{"status": "ACTIVE", "accounts": 1}]);
        (counts.body["items"] == expected).then_some(())
    });
    for path in [
        "/verify/Account",
        "/projections/account-balances/verify",
        "/projections/account-movements/verify",
        "/projections/account-audit/verify",
        "/projections/account-turnover/verify",
        "/projections/account-status-counts/verify",
    ] {
        assert_eq!(ok(daemon, path).get("difference"), None, "{path}");
    }
}

/// What shows the past shows all of it.
fn assert_past(daemon: &Daemon, removed: &Value) {
    let at = removed["tombstonedAt"].as_str().unwrap();
    let account = "/aggregates/Account/gone";
    let before = ok(daemon, &format!("{account}?version=4"));
    assert_fits("aggregate", &before);
    assert_eq!(before["state"]["status"], "CLOSED");
    assert_eq!(
        ok(daemon, &format!("{account}?version=2"))["state"]["balance"],
        "7.00"
    );
    let unknown = daemon.get(&format!("{account}?version=6"));
    assert_eq!((unknown.status, unknown.code()), (404, "UNKNOWN_POINT"));

    let timeline = ok(daemon, &format!("{account}/timeline"));
    assert_fits("timeline", &timeline);
    let entries = timeline["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 5);
    let end = &entries[4];
    assert_eq!(
        (&end["tombstoned"], &end["timestamp"]),
        (&json!(true), &json!(at))
    );
    assert_eq!(
        (&end["eventType"], &end["actor"]),
        (&json!("AccountRemoved"), &json!("clerk"))
    );
    let gone = &end["changes"][0];
    assert_eq!((&gone["field"], &gone["after"]), (&json!(""), &json!(null)));
    assert_eq!(gone["before"], before["state"]);
    assert!(
        entries[..4]
            .iter()
            .all(|entry| entry.get("tombstoned").is_none())
    );

    let diff = ok(daemon, &format!("{account}/diff?from=2&to={at}"));
    assert_fits("diff", &diff);
    assert_eq!(
        diff["to"],
        json!({"version": 5, "timestamp": at, "tombstoned": true})
    );
    assert_eq!(diff["changes"][0]["before"]["balance"], "7.00");
    let events = ok(daemon, &format!("{account}/events"));
    assert_eq!(events["events"].as_array().unwrap().len(), 5);
    let found = ok(
        daemon,
        "/aggregates/Account/events?type=AccountRemoved&actor=clerk",
    );
    assert_eq!(found["events"][0]["data"], removal());
}

#[test]
fn a_removed_account_is_gone_by_name_and_its_past_is_not_whatever_is_killed_rebuilt_and_reset() {
    let site = Site::new("");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    let removed = remove(&daemon);
    assert_gone(&daemon, &removed);
    assert_past(&daemon, &removed);
    daemon.kill();

    let daemon = Daemon::start_ready(&site, &[&embedded]);
    assert_gone(&daemon, &removed);
    for projection in ["account-balances", "account-movements", "account-audit"] {
        let path = format!("/projections/{projection}");
        let asked = daemon.post(&format!("{path}/rebuild"), None, "");
        assert_eq!(asked.status, 202, "{asked:?}");
        until("the next generation serves", || {
            let partitions = ok(&daemon, &path)["partitions"].take();
            let mut partitions = partitions.as_array().unwrap().iter();
            let rests =
                partitions.all(|it| it["generation"] == 2 && it["phase"]["name"] == "resting");
            rests.then_some(())
        });
    }
    assert_gone(&daemon, &removed);
    daemon.stop();

    let reset = millstream(&["reset", &site.config(), &embedded, "--execute"]);
    assert!(reset.status.success(), "{}", stderr(&reset));
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    assert_gone(&daemon, &removed);
    assert_past(&daemon, &removed);
    daemon.stop();
}

#[test]
fn the_command_line_says_that_an_account_is_tombstoned_and_shows_its_past() {
    let site = Site::new("");
    let daemon = Daemon::start_ready(&site, &["--embedded"]);
    let removed = remove(&daemon);
    let at = removed["tombstonedAt"].as_str().unwrap();
    let url = format!("http://{}", daemon.address);
    let config = site.config();
    let inspect = |more: &[&str]| {
        let mut arguments = vec!["inspect", &config, "Account", "gone", "--url", &url];
        arguments.extend(more);
        millstream(&arguments)
    };
    let now = inspect(&[]);
    assert_eq!(now.status.code(), Some(1));
    let said = stderr(&now);
    let expected = format!("Account `gone` was tombstoned at {at} by version 5");
    assert!(said.contains(&expected), "{said}");
    let before = inspect(&["--version", "4"]);
    assert!(stdout(&before).contains("CLOSED"), "{}", stdout(&before));
    let timeline = stdout(&inspect(&["--timeline"]));
    let last = timeline.lines().last().unwrap();
    assert!(last.starts_with(at), "{timeline}");
    assert!(last.contains("  AccountRemoved  "), "{timeline}");
    assert!(last.ends_with("  clerk  tombstoned  [test]"), "{timeline}");
    let diff = stdout(&inspect(&["--diff", "4", "5"]));
    assert!(
        diff.contains(&format!("to version 5 ({at}, tombstoned)")),
        "{diff}"
    );
    daemon.stop();
}
