//! Every route and status of the real binary, on the embedded log.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use serde_json::{Value, json};
use support::{Answer, Daemon, Site};

fn daemon() -> (Site, Daemon) {
    let site = Site::new("");
    let daemon = Daemon::start_ready(&site, &["--embedded"]);
    (site, daemon)
}

fn open() -> Value {
    json!({"commandType": "OpenAccount", "data": {"owner": "Ada", "currency": "EUR"}})
}

fn top_up(amount: &str) -> Value {
    json!({"commandType": "TopUp", "data": {"amount": amount, "reason": "test"}})
}

fn withdraw(amount: &str) -> Value {
    json!({"commandType": "Withdraw", "data": {"amount": amount, "reason": "test"}})
}

/// An error has a status, a code, a message, and nothing else; a conflict the version that is current.
fn assert_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{answer:?}");
    let mut fields: Vec<&str> = vec!["code", "message"];
    if code == "VERSION_CONFLICT" {
        fields.insert(1, "currentVersion");
    }
    let found: Vec<&String> = answer.body.as_object().unwrap().keys().collect();
    assert_eq!(found, fields, "{answer:?}");
    assert!(!answer.body["message"].as_str().unwrap().is_empty());
}

#[test]
fn threads_without_a_partition_keep_nobody_from_being_ready_and_those_with_one_do() {
    // Nine tasks: three partitions of accounts, of transactions, of counts.
    let site = Site::new("threads: 11");
    let daemon = Daemon::start_ready(&site, &["--embedded"]);
    // The first answer that says ready has all of them.
    let answer = daemon.get("/health/ready");
    let tasks = answer.body["tasks"].as_object().unwrap();
    assert_eq!(tasks.len(), 9, "{answer:?}");
    assert!(tasks.values().all(|state| state == "running"), "{answer:?}");
    daemon.stop();
}

#[test]
fn health_is_live_and_ready() {
    let (_site, daemon) = daemon();
    let live = daemon.get("/health/live");
    assert_eq!((live.status, live.body), (200, json!({"status": "live"})));
    let ready = daemon.get("/health/ready");
    assert_eq!(ready.status, 200);
    let tasks: serde_json::Map<_, _> = (0..9)
        .map(|task| (format!("{}_{}", task / 3, task % 3), json!("running")))
        .collect();
    assert_eq!(ready.body, json!({"status": "ready", "tasks": tasks}));
    daemon.stop();
}

#[test]
fn metrics_are_prometheus_text_and_count_requests_by_route() {
    let (_site, daemon) = daemon();
    assert_eq!(daemon.command("a", "k", &open()).status, 200);
    assert_eq!(daemon.get("/nowhere/at/all").status, 404);
    let (status, text) = daemon.text("/metrics");
    assert_eq!(status, 200);
    for expected in [
        "# TYPE millstream_records_processed_total counter",
        "# TYPE millstream_commits_total counter",
        "millstream_task_state{state=\"running\",task=\"0_0\"} 1",
        "millstream_consumer_lag_records{partition=\"0\",task=\"0_0\",",
        "millstream_http_requests_total{route=\"/commands/{aggregateType}/{aggregateId}\",status=\"200\"} 1",
        "millstream_http_requests_total{route=\"none\",status=\"404\"} 1",
        "millstream_memory_max_bytes 536870912",
    ] {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
    daemon.stop();
}

#[test]
fn the_topology_is_described_as_json() {
    let (_site, daemon) = daemon();
    let topology = daemon.get("/topology");
    assert_eq!(topology.status, 200);
    let stores = topology.body["subTopologies"][0]["stores"]
        .as_array()
        .unwrap();
    assert!(
        stores.iter().any(|store| store["name"] == "account-state"),
        "{topology:?}"
    );
    daemon.stop();
}

#[test]
fn stores_are_listed_and_read_by_key() {
    let (_site, daemon) = daemon();
    assert_eq!(daemon.command("a", "k-1", &open()).status, 200);
    assert_eq!(daemon.command("a", "k-2", &top_up("5.00")).status, 200);
    let stores = daemon.get("/stores");
    assert_eq!(stores.status, 200);
    let state = stores
        .body
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["name"] == "account-state");
    let state = state.unwrap();
    assert_eq!(state["tasks"], json!(["0_0", "0_1", "0_2"]));

    let entry = daemon.get("/stores/account-state/a");
    assert_eq!(entry.status, 200, "{entry:?}");
    assert_eq!(
        (&entry.body["store"], &entry.body["key"]),
        (&json!("account-state"), &json!("a"))
    );
    assert_eq!(entry.body["value"]["version"], 2);
    assert!(entry.body["timestamp"].is_i64());
    // Composite keys are where their aggregate is.
    for (key, event_type) in [("a@1", "AccountCreated"), ("a@2", "BalanceChanged")] {
        let entry = daemon.get(&format!("/stores/account-history/{key}"));
        assert_eq!(entry.status, 200, "{entry:?}");
        assert_eq!(entry.body["value"]["event"]["eventType"], event_type);
    }

    assert_error(&daemon.get("/stores/nothing/a"), 404, "UNKNOWN_STORE");
    assert_error(
        &daemon.get("/stores/account-state/nobody"),
        404,
        "UNKNOWN_KEY",
    );
    assert_error(
        &daemon.get("/stores/account-history/a"),
        400,
        "MALFORMED_KEY",
    );
    assert_error(
        &daemon.get("/stores/account-state/%FF"),
        400,
        "MALFORMED_PATH",
    );
    daemon.stop();
}

#[test]
fn an_accepted_command_is_answered_with_its_reply_and_a_read_after_it_sees_it() {
    let (_site, daemon) = daemon();
    for number in 0..20 {
        let id = format!("account-{number}");
        let opened = daemon.command(&id, "open", &open());
        assert_eq!(opened.status, 200, "{opened:?}");
        assert_eq!(opened.body["outcome"], "ACCEPTED");
        assert_eq!(opened.body["commandId"], "open");
        assert_eq!(opened.body["aggregateType"], "Account");
        assert_eq!(opened.body["aggregateId"], id);
        assert_eq!(opened.body["aggregateVersion"], 1);
        assert_eq!(opened.body["eventIds"].as_array().unwrap().len(), 1);
        let up = daemon.command(&id, "up", &top_up("12.30"));
        assert_eq!(up.status, 200, "{up:?}");
        let account = daemon.get(&format!("/aggregates/Account/{id}"));
        assert_eq!(account.status, 200);
        assert_eq!(account.body["aggregateType"], "Account");
        assert_eq!(account.body["aggregateId"], id);
        assert_eq!(account.body["version"], 2, "{account:?}");
        assert!(
            account.body["state"].to_string().contains("12.30"),
            "{account:?}"
        );
    }
    daemon.stop();
}

#[test]
fn a_repeated_command_gets_its_first_reply_again() {
    let (_site, daemon) = daemon();
    assert_eq!(daemon.command("a", "open", &open()).status, 200);
    let first = daemon.command("a", "up", &top_up("1.00"));
    assert_eq!(daemon.command("a", "up", &top_up("1.00")), first);
    assert_eq!(daemon.get("/aggregates/Account/a").body["version"], 2);
    daemon.stop();
}

#[test]
fn a_rule_rejects_with_422_and_a_stale_version_conflicts_with_409() {
    let (_site, daemon) = daemon();
    assert_eq!(daemon.command("a", "open", &open()).status, 200);
    assert_error(
        &daemon.command("a", "w", &withdraw("1.00")),
        422,
        "INSUFFICIENT_FUNDS",
    );
    assert_error(
        &daemon.command("b", "w", &withdraw("1.00")),
        422,
        "ACCOUNT_NOT_FOUND",
    );
    let mut stale = top_up("1.00");
    stale["expectedVersion"] = json!(7);
    let late = daemon.command("a", "s", &stale);
    assert_error(&late, 409, "VERSION_CONFLICT");
    assert_eq!(late.body["currentVersion"], 1);
    assert_eq!(daemon.get("/aggregates/Account/a").body["version"], 1);
    assert_error(
        &daemon.get("/aggregates/Account/b"),
        404,
        "UNKNOWN_AGGREGATE",
    );
    daemon.stop();
}

#[test]
fn a_malformed_command_is_400_and_its_id_stays_free() {
    let (_site, daemon) = daemon();
    assert_eq!(daemon.command("a", "open", &open()).status, 200);
    let path = "/commands/Account/a";
    assert_error(&daemon.post(path, Some("k"), "hello"), 400, "NOT_JSON");
    assert_error(&daemon.post(path, Some("k"), ""), 400, "NOT_JSON");
    assert_error(
        &daemon.post(path, None, &top_up("1.00").to_string()),
        400,
        "INVALID_COMMAND",
    );
    assert_error(
        &daemon.post(path, Some(""), &top_up("1.00").to_string()),
        400,
        "INVALID_COMMAND",
    );
    let unknown = json!({"commandType": "Fly", "data": {}});
    assert_error(&daemon.command("a", "k", &unknown), 400, "INVALID_COMMAND");
    let misspelt = json!({"commandType": "TopUp", "data": {"amuont": "1.00", "reason": "x"}});
    assert_error(&daemon.command("a", "k", &misspelt), 400, "INVALID_COMMAND");
    assert_eq!(
        daemon.command("a", "k", &top_up("1.00")).status,
        200,
        "`k` was never used"
    );
    daemon.stop();
}

#[test]
fn an_id_given_twice_must_be_the_same() {
    let (_site, daemon) = daemon();
    let mut command = open();
    command["commandId"] = json!("c-1");
    command["aggregateId"] = json!("a");
    let path = "/commands/Account/a";
    let text = command.to_string();
    assert_error(
        &daemon.post(path, Some("c-2"), &text),
        400,
        "INVALID_COMMAND",
    );
    assert_error(
        &daemon.post("/commands/Account/b", None, &text),
        400,
        "INVALID_COMMAND",
    );
    let opened = daemon.post(path, Some("c-1"), &text);
    assert_eq!(
        (opened.status, &opened.body["commandId"]),
        (200, &json!("c-1"))
    );
    assert_eq!(
        daemon.post(path, None, &text),
        opened,
        "the id may come from the body alone"
    );
    daemon.stop();
}

#[test]
fn ids_in_a_path_are_percent_decoded() {
    let (_site, daemon) = daemon();
    let opened = daemon.command("a%2Fb%20%C3%A9", "open", &open());
    assert_eq!(
        (opened.status, &opened.body["aggregateId"]),
        (200, &json!("a/b é")),
        "{opened:?}"
    );
    assert_eq!(daemon.get("/aggregates/Account/a%2Fb%20%C3%A9").status, 200);
    assert_eq!(
        daemon.get("/stores/account-state/a%2Fb%20%C3%A9").status,
        200
    );
    daemon.stop();
}

#[test]
fn what_is_not_there_is_404_and_what_does_not_fit_405() {
    let (_site, daemon) = daemon();
    assert_error(&daemon.get("/"), 404, "UNKNOWN_ROUTE");
    assert_error(&daemon.get("/stores/account-state"), 404, "UNKNOWN_ROUTE");
    assert_error(
        &daemon.get("/aggregates/account/a"),
        404,
        "UNKNOWN_AGGREGATE_TYPE",
    );
    let nobody = daemon.post("/commands/account/a", Some("k"), &open().to_string());
    assert_error(&nobody, 404, "UNKNOWN_AGGREGATE_TYPE");
    assert_error(
        &daemon.get("/commands/Account/a"),
        405,
        "METHOD_NOT_ALLOWED",
    );
    assert_error(
        &daemon.post("/stores", None, "{}"),
        405,
        "METHOD_NOT_ALLOWED",
    );
    daemon.stop();
}

#[test]
fn a_body_over_16_mib_is_413() {
    let (_site, daemon) = daemon();
    let reason = "x".repeat(16 * 1024 * 1024);
    let large = json!({"commandType": "TopUp", "data": {"amount": "1.00", "reason": reason}});
    assert_error(&daemon.command("a", "k", &large), 413, "TOO_LARGE");
    assert_eq!(
        daemon.command("a", "open", &open()).status,
        200,
        "others are served"
    );
    daemon.stop();
}

#[test]
fn many_callers_at_once_get_each_their_own_reply() {
    let (_site, daemon) = daemon();
    let daemon = &daemon;
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|caller| {
                scope.spawn(move || {
                    let id = format!("account-{caller}");
                    assert_eq!(daemon.command(&id, "open", &open()).status, 200);
                    for number in 0..25 {
                        let key = format!("up-{number}");
                        let up = daemon.command(&id, &key, &top_up("0.01"));
                        assert_eq!(
                            (up.status, up.body["commandId"].as_str()),
                            (200, Some(&*key))
                        );
                        assert_eq!(up.body["aggregateVersion"], number + 2);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.join().unwrap();
        }
    });
}
