//! `/openapi.json` of the real binary: what is described answers, as described.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{Answer, Daemon, Site, until};

struct Described(Value);

impl Described {
    fn of(daemon: &Daemon) -> Self {
        let answer = daemon.get("/openapi.json");
        assert_eq!(answer.status, 200, "{answer:?}");
        Self(answer.body)
    }

    fn paths(&self) -> BTreeSet<String> {
        self.0["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    /// Checks an answer against what is described of its path.
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let operation = &self.0["paths"][path][method];
        assert!(operation.is_object(), "{method} {path} is not described");
        let response = &operation["responses"][answer.status.to_string()];
        assert!(response.is_object(), "{method} {path}: {answer:?}");
        let Some(content) = response["content"].get("application/json") else {
            assert!(answer.body.is_string(), "{path}");
            return;
        };
        // Each schema is a resource of its own and refers to no other.
        let reference = content["schema"]["$ref"].as_str().unwrap();
        let schema = self.0.pointer(reference.trim_start_matches('#')).unwrap();
        let schema = jsonschema::validator_for(schema).unwrap();
        let errors: Vec<String> = schema
            .iter_errors(&answer.body)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{method} {path}: {errors:?}\n{answer:?}");
    }
}

#[test]
fn every_path_that_is_described_answers_as_described() {
    let site = Site::new("");
    let daemon = Daemon::start_ready(&site, &["--embedded"]);
    let described = Described::of(&daemon);
    let command = "/commands/{aggregateType}/{aggregateId}";
    let post = |key: &str, kind: &str, data: Value, more: Value| {
        let mut body = json!({"commandType": kind, "data": data});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = daemon.command("a", key, &body);
        described.check("post", command, &answer);
        answer
    };
    let top_up = json!({"amount": "10.00", "reason": "test"});
    let open = json!({"owner": "Ada", "currency": "EUR"});
    assert_eq!(post("1", "OpenAccount", open, json!({})).status, 200);
    assert_eq!(post("2", "TopUp", top_up.clone(), json!({})).status, 200);
    let late = post("3", "TopUp", top_up, json!({"expectedVersion": 1}));
    assert_eq!((late.status, late.code()), (409, "VERSION_CONFLICT"));
    assert_eq!(late.body["currentVersion"], 2);
    let much = json!({"amount": "99.00", "reason": "test"});
    assert_eq!(post("4", "Withdraw", much, json!({})).status, 422);
    assert_eq!(post("5", "Fly", json!({}), json!({})).status, 400);
    let transfer = json!({
        "commandType": "Transfer",
        "data": {"fromAccount": "a", "toAccount": "b", "amount": "1.00", "reason": "test"},
    });
    let answer = daemon.post("/commands/Transaction/t", Some("t"), &transfer.to_string());
    assert_eq!(answer.status, 202, "{answer:?}");
    described.check("post", command, &answer);

    let account = "/aggregates/{aggregateType}/{aggregateId}";
    let mut asked = BTreeSet::from([command.to_owned()]);
    for (path, real, status) in [
        ("/openapi.json", "/openapi.json", 200),
        ("/metrics", "/metrics", 200),
        ("/health/live", "/health/live", 200),
        ("/health/ready", "/health/ready", 200),
        ("/topology", "/topology", 200),
        ("/sinks", "/sinks", 200),
        ("/stores", "/stores", 200),
        ("/stores/{name}/{key}", "/stores/account-state/a", 200),
        ("/stores/{name}/{key}", "/stores/account-state/x", 404),
        ("/stores/{name}/{key}", "/stores/account-history/a", 400),
        ("/aggregates", "/aggregates", 200),
        ("/aggregates", "/aggregates?colour=red", 400),
        (account, "/aggregates/Account/a", 200),
        (account, "/aggregates/Account/a?version=1", 200),
        (account, "/aggregates/Account/a?version=0", 400),
        (account, "/aggregates/Account/nobody", 404),
        (
            &format!("{account}/timeline"),
            "/aggregates/Account/a/timeline",
            200,
        ),
        (
            &format!("{account}/timeline"),
            "/aggregates/Account/a/timeline?limit=1",
            200,
        ),
        (
            &format!("{account}/diff"),
            "/aggregates/Account/a/diff?from=1&to=2",
            200,
        ),
        (
            &format!("{account}/diff"),
            "/aggregates/Account/a/diff?from=1",
            400,
        ),
        (
            &format!("{account}/events"),
            "/aggregates/Account/a/events",
            200,
        ),
        (
            "/aggregates/{aggregateType}/events",
            "/aggregates/Account/events?limit=1",
            200,
        ),
        ("/verify/{aggregateType}", "/verify/Account", 200),
        ("/verify/{aggregateType}", "/verify/Nobody", 404),
        ("/projections", "/projections", 200),
        ("/projections/{name}", "/projections/account-movements", 200),
        ("/projections/{name}", "/projections/nothing", 404),
        (
            "/projections/{name}/verify",
            "/projections/account-movements/verify",
            200,
        ),
        ("/balances", "/balances", 200),
        ("/movements", "/movements?limit=1", 200),
        ("/turnover", "/turnover?currency=EUR", 200),
        ("/status-counts", "/status-counts?status=ACTIVE", 200),
        (
            "/projections/{name}",
            "/projections/account-status-counts",
            200,
        ),
        (
            "/projections/{name}/verify",
            "/projections/account-status-counts/verify",
            200,
        ),
        ("/audit", "/audit", 200),
    ] {
        let answer = daemon.get(real);
        assert_eq!(answer.status, status, "{real}: {answer:?}");
        described.check("get", path, &answer);
        asked.insert(path.to_owned());
    }
    let rebuild = "/projections/{name}/rebuild";
    for (name, status) in [("account-movements", 202), ("nothing", 404)] {
        let answer = daemon.post(&format!("/projections/{name}/rebuild"), None, "");
        assert_eq!(answer.status, status, "{answer:?}");
        described.check("post", rebuild, &answer);
    }
    asked.insert(rebuild.to_owned());
    assert_eq!(
        asked,
        described.paths(),
        "every path is tried, and no other"
    );
    daemon.stop();
}

#[test]
fn read_models_are_described_with_their_filters() {
    let site = Site::new("");
    let topology = [
        "--set",
        "topology=flight-leg",
        "--set",
        "application_id=legs",
    ];
    let daemon = Daemon::start_ready(&site, &[&["--embedded"], &topology[..]].concat());
    let described = Described::of(&daemon);
    let flights = &described.0["paths"]["/flights"]["get"];
    let parameters = flights["parameters"].as_array().unwrap();
    let names: BTreeSet<&str> = parameters
        .iter()
        .map(|parameter| parameter["name"].as_str().unwrap())
        .collect();
    for name in ["status", "airport", "limit", "cursor"] {
        assert!(names.contains(name), "{names:?}");
    }
    let models = described.paths();
    let models = models.iter().filter(|path| {
        let id = &described.0["paths"][*path]["get"]["responses"]["200"]["content"];
        let schema = &id["application/json"]["schema"]["$ref"];
        schema == "#/components/schemas/read-model"
    });
    let models: Vec<&String> = models.collect();
    assert!(models.len() >= 7, "{models:?}");
    for path in models {
        let answer = until("the read model answers", || {
            let answer = daemon.get(path);
            (answer.status == 200).then_some(answer)
        });
        described.check("get", path, &answer);
        described.check("get", path, &daemon.get(&format!("{path}?colour=red")));
    }
    daemon.stop();
}

#[test]
fn operations_have_names_of_their_own_and_references_lead_somewhere() {
    let site = Site::new("");
    let daemon = Daemon::start_ready(&site, &["--embedded"]);
    let described = Described::of(&daemon);
    let operations = described.0["paths"].as_object().unwrap().values();
    let operations = operations.flat_map(|path| path.as_object().unwrap().values());
    let ids: Vec<&str> = operations
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
    let text = described.0.to_string();
    let schemas = described.0["components"]["schemas"].as_object().unwrap();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    daemon.stop();
}
