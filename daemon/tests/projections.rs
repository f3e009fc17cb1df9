//! Projections of the real binary: shown, built anew while they serve and the process is killed, compared.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use serde_json::{Value, json};
use support::{Daemon, Site, millstream, stderr, stdout, until};

const BALANCES: &str = "account-balances";
const COUNTS: &str = "account-status-counts";

fn open_accounts(daemon: &Daemon, count: usize) {
    for number in 0..count {
        let id = format!("account-{number}");
        let opened =
            json!({"commandType": "OpenAccount", "data": {"owner": "x", "currency": "EUR"}});
        let top_up = json!({"commandType": "TopUp", "data": {"amount": "5.00", "reason": "test"}});
        for (name, command) in [("open", opened), ("up", top_up)] {
            let answer = daemon.command(&id, &format!("{name}-{id}"), &command);
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}

fn rows(daemon: &Daemon, path: &str) -> Vec<Value> {
    let answer = daemon.get(path);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["partitionsNotHere"], json!([]));
    let mut rows = answer.body["items"].as_array().unwrap().clone();
    rows.sort_by_key(ToString::to_string);
    rows
}

/// Checks an answer against its contract.
fn assert_valid(answer: &Value) {
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/http/schemas");
    let schema = support::read(format!("{schemas}/projection.schema.json").as_ref());
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let problems: Vec<String> = schema
        .iter_errors(answer)
        .map(|it| it.to_string())
        .collect();
    assert!(problems.is_empty(), "{problems:#?} in {answer:#}");
}

fn partitions(daemon: &Daemon) -> Vec<Value> {
    let answer = daemon.get(&format!("/projections/{BALANCES}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_valid(&answer.body);
    answer.body["partitions"].as_array().unwrap().clone()
}

/// Whether every partition serves a generation and is at rest.
fn rests_at(daemon: &Daemon, generation: u64) -> bool {
    let partitions = partitions(daemon);
    partitions.len() == 3
        && partitions.iter().all(|partition| {
            partition["generation"] == generation && partition["phase"]["name"] == "resting"
        })
}

#[test]
fn a_projection_is_built_anew_while_it_serves_and_the_process_is_killed() {
    let site = Site::new("");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    open_accounts(&daemon, 8);
    let before = rows(&daemon, "/balances");
    assert_eq!(before.len(), 8);
    assert_eq!(rows(&daemon, "/movements").len(), 8);
    assert_eq!(rows(&daemon, "/audit?eventType=AccountCreated").len(), 8);
    assert_eq!(rows(&daemon, "/balances?accountId=account-3").len(), 1);
    let one = daemon.get(&format!("/stores/{BALANCES}/account-3"));
    assert_eq!(one.body["value"]["balance"], "5.00", "{one:?}");

    let all = daemon.get("/projections").body;
    let names: Vec<&str> = all["projections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|projection| projection["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            BALANCES,
            "account-movements",
            "account-audit",
            "account-turnover",
            COUNTS
        ]
    );
    assert!(rests_at(&daemon, 1), "{all}");
    let events: u64 = partitions(&daemon)
        .iter()
        .map(|partition| partition["events"].as_u64().unwrap())
        .sum();
    assert_eq!(events, 16);

    let answer = daemon.post(&format!("/projections/{BALANCES}/rebuild"), None, "");
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_valid(&answer.body);
    assert_eq!(rows(&daemon, "/balances"), before);
    daemon.kill();

    let daemon = Daemon::start_ready(&site, &[&embedded]);
    assert_eq!(rows(&daemon, "/balances"), before);
    until("the new generation serves", || {
        rests_at(&daemon, 2).then_some(())
    });
    assert_eq!(rows(&daemon, "/balances"), before);
    let metrics = daemon.text("/metrics").1;
    let generations: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("millstream_projection_generation"))
        .filter(|line| line.contains(BALANCES))
        .collect();
    assert_eq!(generations.len(), 3, "{generations:?}");
    assert!(
        generations.iter().all(|line| line.ends_with(" 2")),
        "{generations:?}"
    );
    counts_are_built_anew(&daemon);
    let unknown = daemon.post("/projections/nothing/rebuild", None, "");
    assert_eq!(
        (unknown.status, unknown.code()),
        (404, "UNKNOWN_PROJECTION")
    );
    daemon.stop();
}

/// What is counted over accounts is built anew by all partitions, and served meanwhile.
fn counts_are_built_anew(daemon: &Daemon) {
    let expected = json!([{"status": "ACTIVE", "accounts": 8}]);
    assert_eq!(json!(rows(daemon, "/status-counts")), expected);
    assert_eq!(rows(daemon, "/turnover?currency=EUR").len(), 8);
    let path = format!("/projections/{COUNTS}");
    let answer = daemon.post(&format!("{path}/rebuild"), None, "");
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_valid(&answer.body);
    until("all groups serve the new generation", || {
        assert_eq!(json!(rows(daemon, "/status-counts")), expected);
        let view = daemon.get(&path).body;
        assert_valid(&view);
        let groups = view["groups"]["partitions"].as_array().unwrap();
        let shares = view["partitions"].as_array().unwrap();
        let rests = |it: &Value| it["generation"] == 2 && it["phase"]["name"] == "resting";
        (groups.len() == 3 && groups.iter().chain(shares).all(rests)).then_some(())
    });
    let verified = daemon.get(&format!("{path}/verify?limit=1000")).body;
    assert_eq!(
        verified["groups"],
        json!({"compared": 1, "unsettled": 0}),
        "{verified}"
    );
    let one = daemon.get(&format!("/stores/{COUNTS}/ACTIVE"));
    assert_eq!(one.body["value"]["accounts"], 8, "{one:?}");
}

#[test]
fn the_command_line_shows_rebuilds_and_compares_projections() {
    let site = Site::new("");
    let daemon = Daemon::start_ready(&site, &[&site.embedded()]);
    open_accounts(&daemon, 3);
    let url = format!("http://{}", daemon.address);
    let config = site.config();
    let ask = |verb: &[&str]| {
        let mut arguments = vec![verb[0], config.as_str()];
        arguments.extend(&verb[1..]);
        arguments.extend(["--url", &url]);
        millstream(&arguments)
    };
    let shown = ask(&["projections"]);
    assert!(shown.status.success(), "{}", stderr(&shown));
    let table = stdout(&shown);
    let lines = table.lines().filter(|line| line.contains(BALANCES));
    assert_eq!(lines.count(), 3, "{table}");

    let rebuilt = ask(&["rebuild-projection", BALANCES]);
    assert!(rebuilt.status.success(), "{}", stderr(&rebuilt));
    assert!(
        stdout(&rebuilt).contains("3 partitions"),
        "{}",
        stdout(&rebuilt)
    );
    until("the new generation serves", || {
        rests_at(&daemon, 2).then_some(())
    });

    let verified = ask(&["verify"]);
    assert!(verified.status.success(), "{}", stderr(&verified));
    for name in [
        "Account:",
        "account-balances:",
        "account-movements:",
        "account-audit:",
    ] {
        assert!(stdout(&verified).contains(name), "{}", stdout(&verified));
    }
    daemon.stop();
}
