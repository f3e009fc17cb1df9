//! The contracts of `contracts/transaction`, and of the read models: what the topology writes while a
//! story is told fits the schemas and equals the golden story, and the golden records are read.
//!
//! `MILLSTREAM_WRITE_GOLDEN=1` writes the golden story and events anew; review what changes.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jsonschema::Validator;
use millstream::event_sourcing::{
    Aggregate, Command, CommandEnvelope, Envelope, Event, Managed, ProcessCommand, ProcessRef,
};
use millstream::prelude::*;
use millstream_account::{
    AUDIT, COMMANDS, DEAD_LETTERS, EVENTS, MOVEMENTS, REPLIES, STATUS_COUNTS, TRANSACTION_COMMANDS,
    TRANSACTION_EVENTS, TRANSACTION_REPLIES, TURNOVER, Transaction, TransactionEvent,
};
use serde_json::{Value, json};
use support::{Billing, movement};

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../contracts")
        .join(path)
}

fn load(path: &str) -> Value {
    let path = folder(path);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(path: &str, suffix: &str) -> BTreeSet<String> {
    std::fs::read_dir(folder(path))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(suffix).unwrap().to_owned())
        .collect()
}

/// The schemas of all contracts by their path, each compiled once.
#[derive(Default)]
struct Schemas(BTreeMap<String, Validator>);

impl Schemas {
    #[track_caller]
    fn assert_fits(&mut self, path: &str, value: &Value) {
        let schema = self.0.entry(path.to_owned()).or_insert_with(|| {
            jsonschema::validator_for(&load(&format!("{path}.schema.json"))).unwrap()
        });
        let problems: Vec<_> = schema
            .iter_errors(value)
            .map(|error| error.to_string())
            .collect();
        assert!(problems.is_empty(), "{problems:#?} in {value:#} of {path}");
    }

    /// Checks a value of a topic against its schemas.
    fn check(&mut self, topic: &str, value: &Value) {
        let aggregate = match topic {
            EVENTS | COMMANDS => "account",
            _ => "transaction",
        };
        match topic {
            EVENTS | TRANSACTION_EVENTS => {
                self.assert_fits("account/schemas/envelope", value);
                let version = value["schemaVersion"].as_u64().unwrap_or(1);
                let event_type = value["eventType"].as_str().unwrap();
                let path = format!("{aggregate}/schemas/events/{event_type}.v{version}");
                self.assert_fits(&path, &value["data"]);
            }
            COMMANDS | TRANSACTION_COMMANDS => {
                self.assert_fits("account/schemas/command", value);
                let command_type = value["commandType"].as_str().unwrap();
                let path = format!("{aggregate}/schemas/commands/{command_type}");
                self.assert_fits(&path, &value["data"]);
                if command_type == "StepAnswered" {
                    self.assert_fits("account/schemas/reply", &value["data"]["reply"]);
                }
            }
            REPLIES | TRANSACTION_REPLIES => self.assert_fits("account/schemas/reply", value),
            // Compacted: the end of a row has no value.
            STATUS_COUNTS if value.is_null() => {}
            read_model => {
                self.assert_fits(&format!("account/schemas/read-models/{read_model}"), value);
            }
        }
    }
}

/// Accounts, a transfer, one that is given back, one that is refused, payments, movements; one whose payer
/// is removed meanwhile, and that an operator settles at the second attempt.
fn tell() -> Billing {
    let mut billing = Billing::new();
    billing.accounts(&[
        ("account-123", "100.00"),
        ("account-456", "0.00"),
        ("frozen", "0.00"),
    ]);
    billing.status("frozen", "FROZEN");
    billing.transfer("tx-1", "account-123", "account-456", "10.00");
    billing.transfer("tx-2", "account-123", "frozen", "20.00");
    billing.transfer("tx-3", "account-456", "account-123", "10.01");
    let payment = json!({
        "fromAccount": "account-456", "toAccount": "account-123", "amount": "2.5",
        "currency": "EUR", "reason": "Lunch",
    });
    for id in ["pay-1", "pay-2"] {
        billing.order(id, "RequestPayment", payment.clone());
    }
    billing.order("pay-1", "AcceptPayment", json!({"reason": "thanks"}));
    billing.order("pay-2", "RejectPayment", json!({"reason": "unknown payee"}));
    billing.command("account-123", "Withdraw", movement("30.00"));
    billing.command("account-123", "Withdraw", movement("3000.00"));
    billing.command("frozen", "TopUp", movement("3.00"));
    billing.accounts(&[("leaver", "40.00")]);
    billing.suspend("tx-4", "leaver", "frozen", "15.00");
    for account in ["frozen", "account-456"] {
        let settle = json!({"account": account, "reason": "the payer has left"});
        billing.order("tx-4", "SettleTransfer", settle);
    }
    billing
}

/// Replaces ids of ours, wherever they are.
fn without_ids(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("evt-") => *text = "evt-*".to_owned(),
        Value::Array(values) => values.iter_mut().for_each(without_ids),
        Value::Object(fields) => fields.values_mut().for_each(without_ids),
        _ => {}
    }
}

fn shown(headers: &Headers) -> Value {
    let headers = headers.iter().filter(|(key, _)| *key != "original");
    headers
        .map(|(key, value)| (key.to_owned(), String::from_utf8(value.unwrap().to_vec())))
        .map(|(key, value)| (key, Value::from(value.unwrap())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What the story has written to these topics, each in the order of its aggregates' versions.
fn written(billing: &mut Billing) -> Vec<Value> {
    let mut records = Vec::new();
    for topic in [
        EVENTS,
        TRANSACTION_COMMANDS,
        TRANSACTION_EVENTS,
        COMMANDS,
        MOVEMENTS,
        TURNOVER,
        STATUS_COUNTS,
        AUDIT,
    ] {
        let key = serdes::string();
        let value = serdes::optional(serdes::json());
        let output = billing.driver.output_topic(topic, key, value);
        let mut found: Vec<Record<String, Option<Value>>> =
            output.read_records(&mut billing.driver).unwrap();
        // Among keys there is no order.
        found.sort_by(|a, b| a.key.cmp(&b.key));
        for record in found {
            records.push(json!({
                "topic": topic, "key": record.key, "headers": shown(&record.headers),
                "value": record.value,
            }));
        }
    }
    records
}

fn write_golden(path: &str, value: &Value) {
    let text = serde_json::to_string_pretty(value).unwrap();
    std::fs::write(folder(path), text + "\n").unwrap();
}

#[test]
fn what_a_story_writes_fits_the_schemas_and_is_the_golden_story() {
    let mut billing = tell();
    let mut schemas = Schemas::default();
    for topic in [REPLIES, TRANSACTION_REPLIES] {
        for reply in billing.take_json(topic) {
            schemas.check(topic, &reply);
        }
    }
    assert_eq!(billing.take(DEAD_LETTERS), []);
    let mut records = written(&mut billing);
    for record in &records {
        schemas.check(record["topic"].as_str().unwrap(), &record["value"]);
    }
    let again = std::env::var_os("MILLSTREAM_WRITE_GOLDEN").is_some();
    if again {
        for record in &records {
            if record["topic"] == TRANSACTION_EVENTS {
                let path = format!(
                    "transaction/golden/events/{}.v1.json",
                    record["value"]["eventType"].as_str().unwrap()
                );
                let mut golden = record.clone();
                golden.as_object_mut().unwrap().remove("topic");
                write_golden(&path, &golden);
            }
        }
    }
    records.iter_mut().for_each(without_ids);
    let records = Value::from(records);
    if again {
        write_golden("transaction/golden/story.json", &records);
    }
    assert_eq!(records, load("transaction/golden/story.json"));
}

#[test]
fn every_schema_of_a_transaction_has_golden_records() {
    let never_written = ["TransferStalled.v1", "TransferResumed.v1"];
    let mut events = names("transaction/schemas/events", ".schema.json");
    assert_eq!(names("transaction/golden/events", ".json"), events);
    events.retain(|name| !never_written.contains(&name.as_str()));
    let story = load("transaction/golden/story.json");
    for name in events {
        let event_type = name.strip_suffix(".v1").unwrap();
        let told = story.as_array().unwrap().iter();
        let mut told = told.filter(|record| record["value"]["eventType"] == event_type);
        assert!(told.next().is_some(), "the story has no {name}");
    }
    assert_eq!(
        names("transaction/golden/commands", ".json"),
        names("transaction/schemas/commands", ".schema.json")
    );
}

#[test]
fn golden_events_of_a_transaction_are_read_and_written_back() {
    let mut schemas = Schemas::default();
    for name in names("transaction/golden/events", ".json") {
        let record = load(&format!("transaction/golden/events/{name}.json"));
        let value = &record["value"];
        schemas.check(TRANSACTION_EVENTS, value);
        let bytes = serde_json::to_vec(value).unwrap();
        let envelope = Envelope::parse(&bytes).unwrap();
        let key = record["key"].as_str().map(str::as_bytes);
        envelope.check_record(key, Transaction::TYPE).unwrap();
        assert_eq!(shown(&envelope.headers().unwrap()), record["headers"]);
        let version = envelope.schema_version;
        let event = TransactionEvent::read(&envelope.event_type, version, envelope.data).unwrap();
        let written: Value = serde_json::from_str(event.data().unwrap().get()).unwrap();
        assert_eq!(written, value["data"], "{name}");
    }
}

#[test]
fn golden_commands_of_a_transaction_are_read() {
    let mut schemas = Schemas::default();
    for name in names("transaction/golden/commands", ".json") {
        let record = load(&format!("transaction/golden/commands/{name}.json"));
        schemas.check(TRANSACTION_COMMANDS, &record["value"]);
        assert_eq!(record["key"], record["value"]["aggregateId"]);
        let bytes = serde_json::to_vec(&record["value"]).unwrap();
        let mut envelope = CommandEnvelope::parse(&bytes).unwrap();
        let headers = record["headers"].as_object().into_iter().flatten();
        let headers = headers.fold(Headers::new(), |headers, (key, text)| {
            headers.with(key.clone(), text.as_str().unwrap())
        });
        envelope.process = ProcessRef::from_headers(&headers);
        let command = <Managed<Transaction> as Aggregate>::Command::read(&envelope).unwrap();
        let read = match command {
            ProcessCommand::StepAnswered(_) => "StepAnswered",
            ProcessCommand::StepGivenUp(_) => "StepGivenUp",
            ProcessCommand::Own(_) => name.as_str(),
        };
        assert_eq!(read, name);
        let of_process = name == "StepAnswered" || name == "StepGivenUp";
        assert_eq!(of_process, !matches!(command, ProcessCommand::Own(_)));
    }
}
