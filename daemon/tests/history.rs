//! The past over HTTP and on the command line: the real binary, on the embedded log.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::net::TcpListener;

use serde_json::{Value, json};
use support::{Answer, Daemon, Site, millstream, stderr, stdout};

/// A daemon with two accounts: `a` opened, topped up by two people and frozen; `b` opened.
fn daemon() -> (Site, Daemon) {
    let site = Site::new("");
    let daemon = Daemon::start_ready(&site, &["--embedded"]);
    let top_up = |amount: &str| json!({"amount": amount, "reason": "payday"});
    for (id, kind, actor, data) in [
        (
            "a",
            "OpenAccount",
            "clerk",
            json!({"owner": "Ada", "currency": "EUR"}),
        ),
        ("a", "TopUp", "ada", top_up("10.00")),
        ("a", "TopUp", "bob", top_up("5.50")),
        (
            "a",
            "ChangeStatus",
            "clerk",
            json!({"newStatus": "FROZEN", "reason": "lost card"}),
        ),
        (
            "b",
            "OpenAccount",
            "clerk",
            json!({"owner": "Bob", "currency": "EUR"}),
        ),
    ] {
        let key = format!("{id}-{kind}-{actor}");
        let metadata = json!({"actorId": actor, "actorType": "user", "source": "test"});
        let body = json!({"commandType": kind, "metadata": metadata, "data": data});
        let answer = daemon.command(id, &key, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    (site, daemon)
}

/// Returns an answer of 200, which fits the contract of its route.
fn ok(daemon: &Daemon, path: &str) -> Value {
    let answer = daemon.get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    let bare = path.split('?').next().unwrap();
    let route = match bare
        .trim_start_matches("/aggregates")
        .split('/')
        .collect::<Vec<_>>()[..]
    {
        ["", _, "events"] => "period",
        ["", _, _] => "aggregate",
        ["", _, _, route] => route,
        _ => return answer.body,
    };
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/http/schemas");
    let schema = support::read(format!("{schemas}/{route}.schema.json").as_ref());
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let problems: Vec<String> = schema
        .iter_errors(&answer.body)
        .map(|problem| problem.to_string())
        .collect();
    assert!(
        problems.is_empty(),
        "{path}: {problems:#?} in {:#}",
        answer.body
    );
    answer.body
}

fn assert_error(answer: &Answer, status: u16, code: &str, message: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
    let said = answer.body["message"].as_str().unwrap();
    assert!(said.contains(message), "`{message}` is not in: {said}");
}

/// The time of an event, by its version.
fn time_of(daemon: &Daemon, version: usize) -> String {
    let timeline = ok(daemon, "/aggregates/Account/a/timeline");
    let time = &timeline["entries"][version - 1]["timestamp"];
    time.as_str().unwrap().to_owned()
}

#[test]
fn an_account_is_shown_as_it_was_at_any_version_and_time() {
    let (_site, daemon) = daemon();
    let now = ok(&daemon, "/aggregates/Account/a");
    assert_eq!(
        (&now["version"], &now["state"]["status"]),
        (&json!(4), &json!("FROZEN"))
    );
    let then = ok(&daemon, "/aggregates/Account/a?version=2");
    assert_eq!(then["aggregateType"], "Account");
    assert_eq!(
        (&then["aggregateId"], &then["origin"]),
        (&json!("a"), &json!("native"))
    );
    assert_eq!(
        (&then["version"], &then["firstVersion"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(then["state"]["balance"], "10.00");
    // By the time of its last event it is what it is now.
    let at = ok(
        &daemon,
        &format!("/aggregates/Account/a?at={}", time_of(&daemon, 4)),
    );
    assert_eq!(at, now);
    let same = ok(&daemon, "/aggregates/Account/a?version=4");
    assert_eq!(same, now);
    daemon.stop();
}

#[test]
fn the_timeline_tells_who_did_what_and_pages_follow_each_other() {
    let (_site, daemon) = daemon();
    let timeline = ok(&daemon, "/aggregates/Account/a/timeline");
    assert_eq!(timeline["nextVersion"], Value::Null);
    let entries = timeline["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 4);
    let topped_up = &entries[2];
    assert_eq!(topped_up["eventType"], "BalanceChanged");
    assert_eq!(
        (&topped_up["actor"], &topped_up["actorType"]),
        (&json!("bob"), &json!("user"))
    );
    assert_eq!(
        (&topped_up["source"], &topped_up["reason"]),
        (&json!("test"), &json!("payday"))
    );
    let change = json!([{"field": "balance", "before": "10.00", "after": "15.50"}]);
    assert_eq!(topped_up["changes"], change);

    let first = ok(&daemon, "/aggregates/Account/a/timeline?limit=3");
    assert_eq!(first["nextVersion"], 4);
    let rest = ok(
        &daemon,
        "/aggregates/Account/a/timeline?from_version=4&limit=3",
    );
    assert_eq!(rest["nextVersion"], Value::Null);
    assert_eq!(rest["entries"], json!([entries[3]]));

    let events = ok(
        &daemon,
        "/aggregates/Account/a/events?from_version=3&limit=1",
    );
    assert_eq!(
        (&events["nextVersion"], &events["aggregateId"]),
        (&json!(4), &json!("a"))
    );
    let event = &events["events"][0];
    assert_eq!(event["data"]["newBalance"], "15.50");
    assert_eq!(event["eventId"], topped_up["eventId"]);
    daemon.stop();
}

#[test]
fn a_difference_is_between_versions_or_times() {
    let (_site, daemon) = daemon();
    let diff = ok(&daemon, "/aggregates/Account/a/diff?from=1&to=4");
    let changes = json!([
        {"field": "balance", "before": "0.00", "after": "15.50"},
        {"field": "status", "before": "ACTIVE", "after": "FROZEN"},
    ]);
    assert_eq!(
        (&diff["changes"], &diff["to"]["version"]),
        (&changes, &json!(4))
    );
    let time = time_of(&daemon, 4);
    assert_eq!(diff["to"]["timestamp"], json!(time));
    let same = ok(
        &daemon,
        &format!("/aggregates/Account/a/diff?from=1&to={time}"),
    );
    assert_eq!(same, diff);
    daemon.stop();
}

#[test]
fn events_of_all_accounts_are_found_by_type_and_actor_page_by_page() {
    let (_site, daemon) = daemon();
    let all = ok(&daemon, "/aggregates/Account/events");
    assert_eq!(all["events"].as_array().unwrap().len(), 5);
    assert_eq!(
        all["partitions"],
        json!({"served": [0, 1, 2], "missing": []})
    );
    assert_eq!(all["cursor"], Value::Null);
    let opened = ok(&daemon, "/aggregates/Account/events?type=AccountCreated");
    let ids: Vec<&Value> = opened["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["aggregateId"])
        .collect();
    assert_eq!(ids, ["a", "b"]);
    let clerk = ok(&daemon, "/aggregates/Account/events?actor=clerk&limit=2");
    assert_eq!(clerk["events"].as_array().unwrap().len(), 2);
    let cursor = clerk["cursor"].as_str().unwrap();
    let rest = ok(
        &daemon,
        &format!("/aggregates/Account/events?actor=clerk&limit=2&cursor={cursor}"),
    );
    assert_eq!(rest["events"][0]["aggregateId"], "b");
    let none = ok(
        &daemon,
        "/aggregates/Account/events?to=2001-01-01T00:00:00Z",
    );
    assert_eq!(none["events"], json!([]));
    let types = ok(&daemon, "/aggregates")["aggregateTypes"].take();
    assert_eq!(types, json!(["Account", "Transaction"]));
    daemon.stop();
}

#[test]
fn what_is_wrongly_asked_is_400_and_what_was_not_there_is_404() {
    let (_site, daemon) = daemon();
    let account = "/aggregates/Account/a";
    for (path, message) in [
        (
            format!("{account}?at=yesterday"),
            "`at`: `yesterday` is not an RFC 3339",
        ),
        (format!("{account}?version=0"), "versions start at 1"),
        (format!("{account}?version=x"), "`x` is no version"),
        (
            format!("{account}?version=1&at=2025-12-09T12:00:00Z"),
            "both given",
        ),
        (
            format!("{account}?verison=1"),
            "unknown parameter `verison`",
        ),
        (
            format!("{account}?version=1&version=2"),
            "`version` is given twice",
        ),
        (format!("{account}?version="), "`version` is empty"),
        (format!("{account}/timeline?limit=0"), "between 1 and 1000"),
        (
            format!("{account}/timeline?limit=1001"),
            "between 1 and 1000",
        ),
        (
            format!("{account}/timeline?from=1"),
            "unknown parameter `from`",
        ),
        (
            format!("{account}/events?from_version=0"),
            "versions start at 1",
        ),
        (format!("{account}/diff?from=1"), "`to` is missing"),
        (
            format!("{account}/diff?from=soon&to=1"),
            "`from`: neither a version nor a time",
        ),
        (
            "/aggregates/Account/events?cursor=x".to_owned(),
            "`x` is no cursor",
        ),
        (
            "/aggregates/Account/events?from=2025-01-02T00:00:00Z&to=2025-01-01T00:00:00Z"
                .to_owned(),
            "is after `to`",
        ),
        (
            "/stores/account-state/a?at=1".to_owned(),
            "unknown parameter `at`",
        ),
        ("/stores/account-state/a?as_of=1".to_owned(), "`as_of`"),
    ] {
        assert_error(&daemon.get(&path), 400, "MALFORMED_QUERY", message);
    }
    let versioned = daemon.get("/stores/account-state/a?as_of=2025-12-09T12:00:00Z");
    assert_error(&versioned, 400, "NOT_VERSIONED", "account-state");
    for (path, code, message) in [
        (
            format!("{account}?version=5"),
            "UNKNOWN_POINT",
            "versions 1 to 4",
        ),
        (
            format!("{account}?at=2001-01-01T00:00:00Z"),
            "UNKNOWN_POINT",
            "2001-01-01T00:00:00.000Z",
        ),
        (
            format!("{account}/diff?from=1&to=9"),
            "UNKNOWN_POINT",
            "1 and 9",
        ),
        (
            "/aggregates/Account/nobody?version=1".to_owned(),
            "UNKNOWN_AGGREGATE",
            "nobody",
        ),
        (
            "/aggregates/Account/nobody/timeline".to_owned(),
            "UNKNOWN_AGGREGATE",
            "nobody",
        ),
        (
            "/aggregates/Account/nobody/events".to_owned(),
            "UNKNOWN_AGGREGATE",
            "nobody",
        ),
        (
            "/aggregates/Account/nobody/diff?from=0&to=1".to_owned(),
            "UNKNOWN_AGGREGATE",
            "nobody",
        ),
        (
            "/aggregates/Acount/a/timeline".to_owned(),
            "UNKNOWN_AGGREGATE_TYPE",
            "known: Account",
        ),
        (
            "/aggregates/Acount/events".to_owned(),
            "UNKNOWN_AGGREGATE_TYPE",
            "known: Account",
        ),
        (format!("{account}/future"), "UNKNOWN_ROUTE", "future"),
    ] {
        assert_error(&daemon.get(&path), 404, code, message);
    }
    daemon.stop();
}

#[test]
fn the_command_line_shows_an_account_its_timeline_and_events_to_people() {
    let (site, daemon) = daemon();
    let url = format!("http://{}", daemon.address);
    let run = |command: &str, arguments: &[&str]| {
        let config = site.config();
        let mut line = vec![command, &config, "--url", &url];
        line.extend(arguments);
        let output = millstream(&line);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let now = run("inspect", &["Account", "a"]);
    assert!(now.starts_with("Account a, version 4, since 2"), "{now}");
    assert!(now.contains("\n  balance   15.50\n"), "{now}");
    let then = run("inspect", &["Account", "a", "--version", "1"]);
    assert!(then.contains("  balance   0.00\n"), "{then}");
    let at = run(
        "inspect",
        &["Account", "a", "--at", &time_of(&daemon, 4), "--json"],
    );
    let at: Value = serde_json::from_str(&at).unwrap();
    assert_eq!(at["state"]["status"], "FROZEN");

    let timeline = run("inspect", &["Account", "a", "--timeline"]);
    let lines: Vec<&str> = timeline.lines().collect();
    assert_eq!(lines.len(), 4, "{timeline}");
    let expected = "v3  BalanceChanged        bob (test)    balance: 10.00 → 15.50  [payday]";
    assert!(lines[2].ends_with(expected), "{timeline}");
    let diff = run("inspect", &["Account", "a", "--diff", "3", "4"]);
    assert!(diff.contains("  status  ACTIVE → FROZEN"), "{diff}");

    let events = run("events", &["--actor", "clerk"]);
    let lines: Vec<&str> = events.lines().collect();
    assert_eq!(lines.len(), 3, "{events}");
    assert!(
        lines[1].contains("AccountStatusChanged  a v4  clerk"),
        "{events}"
    );
    let of_one = run(
        "events",
        &[
            "--aggregate",
            "Account",
            "a",
            "--type",
            "BalanceChanged",
            "--json",
        ],
    );
    let of_one: Vec<Value> = of_one
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let versions: Vec<&Value> = of_one
        .iter()
        .map(|event| &event["aggregateVersion"])
        .collect();
    assert_eq!(versions, [2, 3]);
    let verified = run("verify", &[]);
    let expected = "Account: 2 aggregates are what their 5 events add up to";
    assert!(verified.lines().any(|line| line == expected), "{verified}");
    let limited = run("events", &["--aggregate", "Account", "--limit", "2"]);
    assert_eq!(limited.lines().count(), 2);
    daemon.stop();
}

#[test]
fn the_command_line_says_who_did_not_answer_and_what_was_not_found() {
    let (site, daemon) = daemon();
    let config = site.config();
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let listen = format!("http.listen={free}");
    let nobody = millstream(&["inspect", &config, "Account", "a", "--set", &listen]);
    assert_eq!(nobody.status.code(), Some(69));
    let said = stderr(&nobody);
    assert!(
        said.contains(&format!("no daemon answers at http://{free}")),
        "{said}"
    );
    let open = millstream(&["events", &config]);
    assert_eq!(open.status.code(), Some(2));
    assert!(stderr(&open).contains("`--url`"), "{}", stderr(&open));

    let url = format!("http://{}/", daemon.address);
    for (arguments, expected) in [
        (
            ["Account", "nobody", "--timeline", "--json"],
            "there is no Account `nobody`",
        ),
        (["Acount", "a", "--timeline", "--json"], "known: Account"),
        (["Account", "a", "--version", "9"], "versions 1 to 4"),
    ] {
        let mut line = vec!["inspect", &config, "--url", &url];
        line.extend(arguments);
        let output = millstream(&line);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    daemon.stop();
}

#[test]
fn a_reset_rebuilds_the_past_as_it_was() {
    let site = Site::new("");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    let open = json!({"commandType": "OpenAccount", "data": {"owner": "Ada", "currency": "EUR"}});
    assert_eq!(daemon.command("a", "open", &open).status, 200);
    for number in 2..=103 {
        let data = json!({"amount": "1.00", "reason": "drop"});
        let top_up = json!({"commandType": "TopUp", "data": data});
        let answer = daemon.command("a", &format!("k-{number}"), &top_up);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let paths = [
        "/aggregates/Account/a?version=102",
        "/aggregates/Account/a/timeline?from_version=99",
        "/aggregates/Account/events?limit=1000",
    ];
    let told = |daemon: &Daemon| {
        let snapshot = daemon.get("/stores/account-snapshots/a@100");
        assert_eq!(snapshot.status, 200, "{snapshot:?}");
        let snapshot = snapshot.body["value"].clone();
        (snapshot, paths.map(|path| ok(daemon, path)))
    };
    let before = told(&daemon);
    assert_eq!(before.0["state"]["balance"], "99.00");
    assert_eq!(before.1[2]["events"].as_array().unwrap().len(), 103);
    daemon.stop();

    let reset = millstream(&["reset", &site.config(), &embedded, "--execute"]);
    assert!(reset.status.success(), "{}", stderr(&reset));
    let said = stdout(&reset);
    for store in ["state", "snapshots", "events-by-time"] {
        let changelog = format!("test-account-account-{store}-changelog");
        assert!(said.contains(&changelog), "{said}");
    }
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    assert_eq!(told(&daemon), before);
    let verified = daemon.get("/verify/Account");
    let nothing = json!({
        "aggregates": 1, "events": 103, "partitionsCompared": [0, 1, 2], "partitionsMissing": [],
    });
    assert_eq!((verified.status, verified.body), (200, nothing));
    daemon.stop();
}
