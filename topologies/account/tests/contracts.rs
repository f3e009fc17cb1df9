//! The contracts of `contracts/account`; those of transactions are in `contracts_transfers.rs`: what the code writes fits the schemas and equals the golden
//! records, and the golden records are read.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use jsonschema::Validator;
use millstream::event_sourcing::{
    Aggregate, AggregateRecord, Command, CommandEnvelope, Envelope, FoldError, Given, Incoming,
    ProcessRef, Rejection, Stored, decide_command, fold_foreign, given, judge, parse_timestamp,
};
use millstream_account::{Account, AccountCommand, Balance};
use serde_json::{Value, json};

type Loaded = Option<AggregateRecord<Account>>;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../contracts/account")
}

fn load(path: &str) -> Value {
    let path = folder().join(path);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the names of the files in a folder without `suffix`, sorted.
fn names(path: &str, suffix: &str) -> BTreeSet<String> {
    std::fs::read_dir(folder().join(path))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| {
            name.strip_suffix(suffix)
                .unwrap_or_else(|| panic!("{name}"))
                .to_owned()
        })
        .collect()
}

fn schema(path: &str) -> Validator {
    jsonschema::validator_for(&load(&format!("schemas/{path}.schema.json"))).unwrap()
}

#[track_caller]
fn assert_fits(schema: &Validator, value: &Value) {
    let problems: Vec<_> = schema
        .iter_errors(value)
        .map(|error| error.to_string())
        .collect();
    assert!(problems.is_empty(), "{problems:#?} in {value:#}");
}

/// Checks an event's record against the schemas and against itself.
#[track_caller]
fn assert_event(record: &Value) {
    let value = &record["value"];
    assert_fits(&schema("envelope"), value);
    let version = value
        .get("schemaVersion")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    let event_type = value["eventType"].as_str().unwrap();
    assert_fits(
        &schema(&format!("events/{event_type}.v{version}")),
        &value["data"],
    );
    assert_eq!(record["key"], value["aggregateId"]);
    let headers = json!({
        "eventType": value["eventType"],
        "aggregateVersion": value["aggregateVersion"].to_string(),
        "correlationId": value["correlationId"],
        "timestamp": value["timestamp"],
    });
    assert_eq!(record["headers"], headers);
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Returns what an envelope's headers are as JSON.
fn headers_of(headers: &millstream::log::Headers) -> Value {
    headers
        .iter()
        .map(|(key, value)| (key, String::from_utf8(value.unwrap().to_vec()).unwrap()))
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Returns headers from JSON; none from null.
fn headers_from(json: &Value) -> millstream::log::Headers {
    let texts = json.as_object().into_iter().flatten();
    texts.fold(millstream::log::Headers::new(), |headers, (key, text)| {
        headers.with(key.clone(), text.as_str().unwrap())
    })
}

/// Replaces ids of ours, having checked that they are `evt-` + UUIDv7.
fn without_id(id: &mut Value) {
    let uuid = id
        .as_str()
        .and_then(|id| id.strip_prefix("evt-"))
        .map(uuid::Uuid::parse_str);
    let version = uuid.unwrap().unwrap().get_version_num();
    assert_eq!(version, 7, "{id}");
    *id = "evt-*".into();
}

fn fold(loaded: Loaded, record: &Value) -> Result<Loaded, FoldError> {
    let bytes = serde_json::to_vec(&record["value"]).unwrap();
    let envelope = Envelope::parse(&bytes)?;
    envelope.check_record(record["key"].as_str().map(str::as_bytes), Account::TYPE)?;
    let known = loaded.as_ref().map(AggregateRecord::known);
    let version = envelope.aggregate_version;
    let stored = known
        .is_some_and(|known| known.covers(version))
        .then_some(Stored {
            event_id: "evt-stored",
        });
    let verdict = judge(
        known,
        stored,
        Incoming {
            event_id: &envelope.event_id,
            version,
        },
    );
    match FoldError::from_verdict(verdict, &envelope) {
        Some(error) => Err(error),
        None => fold_foreign::<Account>(loaded, &envelope).map(Some),
    }
}

#[test]
fn every_schema_is_valid_and_has_golden_records() {
    for name in names("schemas/events", ".schema.json") {
        assert!(
            names("golden/events", ".json").contains(&name),
            "no golden record of {name}"
        );
    }
    for name in names("schemas/commands", ".schema.json") {
        assert!(
            names("golden/commands", ".json").contains(&name),
            "no golden record of {name}"
        );
    }
    for path in [
        "envelope",
        "command",
        "reply",
        "read-models/billing.account.balances",
        "read-models/billing.account.movements",
        "read-models/billing.account.turnover",
        "read-models/billing.account.status-counts",
        "read-models/billing.account.audit",
    ] {
        let text = load(&format!("schemas/{path}.schema.json"));
        assert!(jsonschema::meta::is_valid(&text), "{path}");
    }
}

#[test]
fn golden_events_fit_their_schemas_and_are_read_and_written_back() {
    for name in names("golden/events", ".json") {
        let record = load(&format!("golden/events/{name}.json"));
        assert_event(&record);
        let bytes = serde_json::to_vec(&record["value"]).unwrap();
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(
            json_of(&envelope.to_json().unwrap()),
            record["value"],
            "{name}"
        );
        assert_eq!(
            headers_of(&envelope.headers().unwrap()),
            record["headers"],
            "{name}"
        );
        assert!(fold(None, &record).is_ok(), "{name}");
    }
}

/// The worked example of the domain, as another system writes it: `BalanceChanged` v1.
#[test]
fn the_worked_example_is_read_and_written_byte_for_meaning() {
    let example = r#"
{"eventId":"evt-550e8400-e29b-41d4-a716-446655440000","eventType":"BalanceChanged","aggregateId":"account-123","aggregateType":"Account",
 "aggregateVersion":5,"timestamp":"2025-12-09T12:00:00.000Z","correlationId":"corr-uuid","causationId":"cmd-uuid",
 "metadata":{"actorId":"user_123","actorType":"api"},
 "data":{"previousBalance":"100.00","newBalance":"150.00","changeAmount":"50.00","changeType":"CREDIT","signedAmount":"50.00",
         "reason":"Topup","transactionId":"tx-uuid"}}"#;
    let golden = load("golden/events/BalanceChanged.v1.json");
    assert_eq!(json_of(example.as_bytes()), golden["value"]);

    let envelope = Envelope::parse(example.as_bytes()).unwrap();
    let written = String::from_utf8(envelope.to_json().unwrap()).unwrap();
    let compact: String = example.split('\n').map(str::trim).collect();
    assert_eq!(written.replace(['\n', ' '], ""), compact.replace(' ', ""));

    let record = fold(None, &golden).unwrap().unwrap();
    let balance = serde_json::to_value(Balance::of("account-123", &record).unwrap()).unwrap();
    assert_fits(&schema("read-models/billing.account.balances"), &balance);
    let expected = json!({
        "accountId": "account-123", "balance": "150.00", "currency": "USD", "status": "ACTIVE",
        "version": 5, "updatedAt": "2025-12-09T12:00:00.000Z",
    });
    assert_eq!(balance, expected);
}

#[test]
fn versions_1_and_2_of_balance_changed_mean_the_same() {
    let v1 = fold(None, &load("golden/events/BalanceChanged.v1.json")).unwrap();
    let v2 = fold(None, &load("golden/events/BalanceChanged.v2.json")).unwrap();
    assert_eq!(v1, v2);
}

#[test]
fn golden_commands_fit_their_schemas_and_are_read() {
    for name in names("golden/commands", ".json") {
        let record = load(&format!("golden/commands/{name}.json"));
        assert_fits(&schema("command"), &record["value"]);
        assert_fits(
            &schema(&format!("commands/{name}")),
            &record["value"]["data"],
        );
        assert_eq!(record["key"], record["value"]["aggregateId"]);
        let bytes = serde_json::to_vec(&record["value"]).unwrap();
        let mut envelope = CommandEnvelope::parse(&bytes).unwrap();
        envelope.process = ProcessRef::from_headers(&headers_from(&record["headers"]));
        assert_eq!(envelope.command_type, name);
        assert!(AccountCommand::read(&envelope).is_ok(), "{name}");
    }
}

#[test]
fn the_story_of_golden_commands_is_written_as_recorded() {
    let now = parse_timestamp("2025-12-09T12:00:00.000Z").unwrap();
    let mut loaded: Loaded = None;
    let mut follower: Loaded = None;
    for chapter in load("golden/story.json").as_array().unwrap() {
        let name = chapter["command"].as_str().unwrap();
        let mut command = load(&format!("golden/commands/{name}.json"));
        for (path, value) in chapter["edit"].as_object().into_iter().flatten() {
            *command["value"].pointer_mut(path).unwrap() = value.clone();
        }
        assert_fits(&schema("command"), &command["value"]);
        let bytes = serde_json::to_vec(&command["value"]).unwrap();
        let envelope = CommandEnvelope::parse(&bytes).unwrap();
        let decision = decide_command::<Account>(loaded.as_ref(), &envelope, now).unwrap();

        let mut events = Vec::new();
        for event in &decision.events {
            let mut record = json!({
                "key": event.key.aggregate_id,
                "headers": headers_of(&event.headers),
                "value": json_of(&event.value),
            });
            assert_event(&record);
            assert_eq!(event.timestamp, now);
            // What one system writes, another can fold.
            follower = fold(follower, &record).unwrap();
            without_id(&mut record["value"]["eventId"]);
            events.push(record);
        }
        assert_eq!(Value::from(events), chapter["events"], "{name}");

        let mut reply = serde_json::to_value(&decision.reply).unwrap();
        assert_fits(&schema("reply"), &reply);
        reply["eventIds"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(without_id);
        assert_eq!(
            json!({"key": envelope.aggregate_id, "value": reply}),
            chapter["reply"]
        );

        let balance = decision.record.clone().map(|record| {
            // A removed account has no row: its record is Kafka's tombstone.
            let value = record.alive().map(|record| {
                let value = Balance::of(&envelope.aggregate_id, &record).unwrap();
                let value = serde_json::to_value(value).unwrap();
                assert_fits(&schema("read-models/billing.account.balances"), &value);
                value
            });
            json!({"key": envelope.aggregate_id, "value": value})
        });
        assert_eq!(balance.as_ref(), chapter.get("balance"), "{name}");
        loaded = decision.record.or(loaded);
    }
    let state = |loaded: &Loaded| loaded.as_ref().map(|record| record.state.clone());
    assert_eq!(state(&loaded), state(&follower));
}

#[test]
fn refused_events_are_refused_with_the_documented_code() {
    let before = fold(None, &load("golden/events/BalanceChanged.v1.json")).unwrap();
    let mut next = load("golden/events/BalanceChanged.v2.json");
    for (path, value) in [
        ("/aggregateVersion", json!(6)),
        ("/data/previousBalance", json!("150.00")),
        ("/data/newBalance", json!("160.00")),
        ("/data/changeAmount", json!("10.00")),
        ("/data/signedAmount", json!("10.00")),
    ] {
        *next["value"].pointer_mut(path).unwrap() = value;
    }
    assert!(
        fold(before.clone(), &next).is_ok(),
        "the unedited event follows"
    );
    for case in load("golden/refused-events.json").as_array().unwrap() {
        let mut record = next.clone();
        record["key"] = case["key"].clone();
        for (path, value) in case["edit"].as_object().unwrap() {
            *record["value"].pointer_mut(path).unwrap() = value.clone();
        }
        let error = fold(before.clone(), &record).unwrap_err();
        assert_eq!(error.code().as_str(), case["code"], "{}", case["why"]);
    }
}

#[test]
fn every_reason_code_is_documented() {
    let readme = std::fs::read_to_string(folder().join("../README.md")).unwrap();
    let sources = [
        "src/event_sourcing/reason.rs",
        "topologies/account/src/rejection.rs",
    ];
    for source in sources {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(source);
        let text = std::fs::read_to_string(path).unwrap();
        let mut found = 0;
        for (_, rest) in text
            .match_indices("ReasonCode::new(\"")
            .map(|(at, m)| text.split_at(at + m.len()))
        {
            let code = rest.split('"').next().unwrap();
            assert!(readme.contains(&format!("`{code}`")), "{code} of {source}");
            found += 1;
        }
        assert!(found > 5, "{source} holds the constants");
    }
}

/// The crate's public face is enough to test a rule.
#[test]
fn the_public_harness_tells_an_overdraft() {
    let open: Given<Account> = given([]);
    let command = load("golden/commands/Withdraw.json");
    let bytes = serde_json::to_vec(&command["value"]).unwrap();
    let command = AccountCommand::read(&CommandEnvelope::parse(&bytes).unwrap()).unwrap();
    let rejection = Account::decide(open.state(), command).unwrap_err();
    assert_eq!(
        rejection.code(),
        millstream_account::codes::ACCOUNT_NOT_FOUND
    );
}
