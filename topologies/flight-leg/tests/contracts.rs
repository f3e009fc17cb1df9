//! The contracts of `contracts/flight-leg`: what the topology reads and writes fits the schemas, and the
//! golden messages bring about the golden story.
//!
//! `MILLSTREAM_WRITE_GOLDEN=1` writes the story anew, for somebody who changes it on purpose.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jsonschema::Validator;
use millstream::event_sourcing::{Aggregate, AggregateRecord, Envelope, fold_foreign};
use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;
use millstream_flight_leg::{
    AdapterMessage, DEAD_LETTERS, FlightLeg, FlightLegParameters, FlightLegTopology, INPUT, OUTPUT,
};
use serde_json::{Value, json};

/// 2026-07-05: after the golden messages.
const NOW: i64 = 1_783_209_600_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../contracts/flight-leg")
}

fn load(path: &str) -> Value {
    let path = folder().join(path);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the files in a folder without `suffix`, sorted.
fn names(path: &str, suffix: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder().join(path)).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(suffix).unwrap().to_owned())
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

fn headers(record: &Record<String, Value>) -> BTreeMap<String, String> {
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    let headers = record.headers.iter();
    headers
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect()
}

/// Checks a record of `aodb-output-flightleg` against its schemas and against itself.
#[track_caller]
fn assert_event(record: &Record<String, Value>) {
    let value = &record.value;
    let text = |field: &str| value[field].as_str().unwrap().to_owned();
    let mut expected = BTreeMap::from([
        ("eventType".to_owned(), text("eventType")),
        ("timestamp".to_owned(), text("timestamp")),
    ]);
    if value["eventType"] == "FlightLegUpdated" {
        assert_fits(&schema("FlightLegUpdated"), value);
        assert_eq!(value["flightId"], record.key);
        expected.insert("sequence".into(), value["sequence"].to_string());
        expected.insert(
            "correlationId".into(),
            headers(record)["correlationId"].clone(),
        );
    } else {
        assert_fits(&schema("../../account/schemas/envelope"), value);
        let version = value
            .get("schemaVersion")
            .map_or(1, |version| version.as_u64().unwrap());
        let event_type = text("eventType");
        assert_fits(
            &schema(&format!("events/{event_type}.v{version}")),
            &value["data"],
        );
        assert_eq!(value["aggregateId"], record.key);
        assert_eq!(value["aggregateType"], "FlightLeg");
        expected.insert(
            "aggregateVersion".into(),
            value["aggregateVersion"].to_string(),
        );
        expected.insert("correlationId".into(), text("correlationId"));
    }
    assert_eq!(headers(record), expected);
}

fn driver() -> TopologyTestDriver {
    let packaged = FlightLegTopology::draw(FlightLegParameters::default()).unwrap();
    let builder = TopologyTestDriver::builder().partitions(3).start_at(NOW);
    let mut driver = builder.build(packaged.topology).unwrap();
    for name in names("golden/references", ".json") {
        let record = load(&format!("golden/references/{name}.json"));
        let topic = name.split('.').next().unwrap();
        assert_fits(&schema(&format!("references/{topic}")), &record["value"]);
        pipe(
            &mut driver,
            topic,
            record["key"].as_str(),
            Some(&record["value"].to_string()),
        );
    }
    driver
}

fn pipe(driver: &mut TopologyTestDriver, topic: &str, key: Option<&str>, value: Option<&str>) {
    let (key, value) = (key.map(str::as_bytes), value.map(str::as_bytes));
    driver
        .pipe_bytes(topic, key, value, NOW, &Headers::new())
        .unwrap();
}

fn take(driver: &mut TopologyTestDriver, topic: &str) -> Vec<Record<String, Value>> {
    let value = serdes::optional(serdes::json::<Value>());
    let output = driver.output_topic(topic, serdes::string(), value);
    let records = output.read_records(driver).unwrap().into_iter();
    // A tombstone is a null.
    records
        .map(|record| {
            let value = record.value.clone().unwrap_or_default();
            record.with_value(value)
        })
        .collect()
}

fn hide_ids(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("evt-") => *text = "evt-*".to_owned(),
        Value::Object(fields) => fields.values_mut().for_each(hide_ids),
        Value::Array(items) => items.iter_mut().for_each(hide_ids),
        _ => {}
    }
}

#[test]
fn golden_messages_fit_their_schemas_and_are_read() {
    let mut types = BTreeSet::new();
    for name in names("golden/messages", ".json") {
        let record = load(&format!("golden/messages/{name}.json"));
        let (_, message_type) = name.split_once('-').unwrap();
        assert_eq!(record["value"]["messageType"], message_type);
        assert_fits(&schema("adapter-message"), &record["value"]);
        assert_fits(
            &schema(&format!("messages/{message_type}")),
            &record["value"]["data"],
        );
        let bytes = serde_json::to_vec(&record["value"]).unwrap();
        let key = record["key"].as_str().map(str::as_bytes);
        AdapterMessage::read(key, &bytes).unwrap();
        types.insert(message_type.to_owned());
    }
    assert_eq!(types, names("schemas/messages", ".schema.json"));
}

#[test]
fn the_golden_messages_bring_about_the_golden_story() {
    let mut driver = driver();
    let mut story = Vec::new();
    let mut written = BTreeSet::new();
    let mut last: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for name in names("golden/messages", ".json") {
        let message = load(&format!("golden/messages/{name}.json"));
        pipe(
            &mut driver,
            INPUT,
            message["key"].as_str(),
            Some(&message["value"].to_string()),
        );
        let mut events = Vec::new();
        for record in take(&mut driver, OUTPUT) {
            assert_event(&record);
            let version = record
                .value
                .get("schemaVersion")
                .map_or(1, |it| it.as_u64().unwrap());
            written.insert(format!(
                "{}.v{version}",
                record.value["eventType"].as_str().unwrap()
            ));
            let mut shown = json!({
                "key": record.key, "headers": headers(&record), "value": record.value,
            });
            hide_ids(&mut shown);
            events.push(shown);
        }
        for topic in names("schemas/read-models", ".schema.json") {
            let fits = schema(&format!("read-models/{topic}"));
            for mut record in take(&mut driver, &topic) {
                let rows = last.entry(topic.clone()).or_default();
                if record.value.is_null() {
                    rows.remove(&record.key);
                    continue;
                }
                assert_fits(&fits, &record.value);
                hide_ids(&mut record.value);
                rows.insert(record.key, record.value);
            }
        }
        story.push(json!({"message": name, "events": events}));
    }
    assert_eq!(take(&mut driver, DEAD_LETTERS), Vec::new());
    // Every event type of the contract happens, but what only older builds wrote.
    let mut known = names("schemas/events", ".schema.json");
    known.remove("StandAllocated.v1");
    known.insert("FlightLegUpdated.v1".to_owned());
    assert_eq!(written, known);
    let read_models: BTreeSet<String> = last.keys().cloned().collect();
    assert_eq!(read_models, names("schemas/read-models", ".schema.json"));
    let told = json!({"story": story, "readModels": last});
    if std::env::var_os("MILLSTREAM_WRITE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&told).unwrap();
        std::fs::write(folder().join("golden/story.json"), text + "\n").unwrap();
    }
    assert_eq!(told, load("golden/story.json"));
}

/// While both legs want stand B12 the view says so and why; when one leaves it, it says so no longer.
#[test]
fn a_stand_that_two_legs_want_is_a_conflict_with_its_cause() {
    let mut driver = driver();
    let mut views = Vec::new();
    for name in names("golden/messages", ".json") {
        let message = load(&format!("golden/messages/{name}.json"));
        pipe(
            &mut driver,
            INPUT,
            message["key"].as_str(),
            Some(&message["value"].to_string()),
        );
        let records = take(&mut driver, "aodb-stands").into_iter();
        views.extend(
            records
                .filter(|record| record.key == "EWR@B12")
                .map(|record| record.value),
        );
    }
    let conflicts: Vec<usize> = views
        .iter()
        .map(|view| view["conflicts"].as_array().unwrap().len())
        .collect();
    let first = conflicts.iter().position(|count| *count == 1).unwrap();
    let conflict = &views[first]["conflicts"][0];
    // The first leg's new estimate, 12:50, reaches into the hour before the second's departure at 13:30.
    assert_eq!(conflict["causedBy"], "UA1545-2026-07-04-EWR-IAH");
    assert_eq!(conflict["cause"]["eventType"], "DepartureTimeChanged");
    assert_eq!(conflict["cause"]["reason"], "crew late");
    assert_eq!(conflict["cause"]["actorId"], "airline");
    assert_eq!(conflict["from"], "2026-07-04T12:30:00.000Z");
    assert_eq!(conflict["until"], "2026-07-04T12:50:00.000Z");
    assert!(
        views[..first]
            .iter()
            .all(|view| view["inConflict"] == false)
    );
    assert_eq!(views.last().unwrap()["inConflict"], false);
}

#[test]
fn refused_messages_are_dead_letters_with_the_documented_code_and_change_nothing() {
    let mut driver = driver();
    let schedule = load("golden/messages/01-Schedule.json");
    pipe(
        &mut driver,
        INPUT,
        schedule["key"].as_str(),
        Some(&schedule["value"].to_string()),
    );
    take(&mut driver, OUTPUT);
    for case in load("golden/refused-messages.json").as_array().unwrap() {
        let value = match case.get("text") {
            Some(text) => text.as_str().map(str::to_owned),
            None => Some(case["value"].to_string()),
        };
        pipe(&mut driver, INPUT, case["key"].as_str(), value.as_deref());
        let raw = || serdes::optional(serdes::bytes());
        let letters = driver.output_topic(DEAD_LETTERS, raw(), raw());
        let letters = letters.read_records(&mut driver).unwrap();
        let [letter] = letters.as_slice() else {
            panic!("{}: one dead letter is expected: {letters:?}", case["why"])
        };
        let code = letter.headers.last("__streams.errors.exception").unwrap();
        assert_eq!(
            code,
            case["code"].as_str().unwrap().as_bytes(),
            "{}",
            case["why"]
        );
        assert_eq!(letter.value, value.map(String::into_bytes));
    }
    assert_eq!(take(&mut driver, OUTPUT), Vec::new());
    // The topology goes on.
    let key = schedule["key"].as_str();
    let departed = say("DepartureTimes", "12:21", &json!({"delayMinutes": 21}));
    pipe(&mut driver, INPUT, key, Some(&departed));
    assert_eq!(take(&mut driver, OUTPUT).len(), 3);
}

/// A message of the first golden leg.
fn say(message_type: &str, time: &str, data: &Value) -> String {
    let schedule = load("golden/messages/01-Schedule.json");
    json!({
        "messageId": format!("{message_type}-{time}"),
        "messageType": message_type,
        "flightId": schedule["value"]["flightId"],
        "timestamp": format!("2026-07-04T{time}:00.000Z"),
        "source": "airport-ops",
        "data": data,
    })
    .to_string()
}

/// What comes late sets nothing back: the message's own time decides, not the order in the topic.
#[test]
fn messages_that_come_late_bring_about_no_event() {
    let mut driver = driver();
    let schedule = load("golden/messages/01-Schedule.json");
    let key = schedule["key"].as_str();
    pipe(
        &mut driver,
        INPUT,
        key,
        Some(&schedule["value"].to_string()),
    );
    let actual = json!({"actual": "2026-07-04T12:20:00.000Z"});
    pipe(
        &mut driver,
        INPUT,
        key,
        Some(&say("DepartureTimes", "12:21", &actual)),
    );
    take(&mut driver, OUTPUT);
    let estimated = json!({"estimated": "2026-07-04T13:00:00.000Z"});
    let late = [
        say("DepartureTimes", "11:50", &estimated),
        say("StatusReport", "11:30", &json!({"status": "Boarding"})),
    ];
    for message in late {
        pipe(&mut driver, INPUT, key, Some(&message));
        assert_eq!(take(&mut driver, OUTPUT), Vec::new(), "{message}");
    }
    assert_eq!(take(&mut driver, DEAD_LETTERS), Vec::new());
    let arrived = say("StatusReport", "16:00", &json!({"status": "Arrived"}));
    pipe(&mut driver, INPUT, key, Some(&arrived));
    assert_eq!(take(&mut driver, OUTPUT).len(), 2);
}

/// A message that is said twice, and one that says what is so, change nothing.
#[test]
fn no_change_means_no_event() {
    let mut driver = driver();
    let mut schedule = load("golden/messages/01-Schedule.json");
    let key = schedule["key"].as_str().unwrap().to_owned();
    pipe(
        &mut driver,
        INPUT,
        Some(&key),
        Some(&schedule["value"].to_string()),
    );
    assert_eq!(take(&mut driver, OUTPUT).len(), 2);
    pipe(
        &mut driver,
        INPUT,
        Some(&key),
        Some(&schedule["value"].to_string()),
    );
    schedule["value"]["messageId"] = "another".into();
    pipe(
        &mut driver,
        INPUT,
        Some(&key),
        Some(&schedule["value"].to_string()),
    );
    assert_eq!(take(&mut driver, OUTPUT), Vec::new());
    assert_eq!(take(&mut driver, DEAD_LETTERS), Vec::new());
}

#[test]
fn an_event_of_version_1_is_read_for_good() {
    let golden = load("golden/events/StandAllocated.v1.json");
    assert_fits(
        &schema("events/StandAllocated.v1"),
        &golden["value"]["data"],
    );
    let created = AggregateRecord {
        origin: millstream::event_sourcing::Origin::Native,
        first_version: 1,
        version: 1,
        updated_at: 0,
        tombstoned: false,
        state: FlightLeg::default(),
    };
    let bytes = serde_json::to_vec(&golden["value"]).unwrap();
    let envelope = Envelope::parse(&bytes).unwrap();
    envelope
        .check_record(golden["key"].as_str().map(str::as_bytes), FlightLeg::TYPE)
        .unwrap();
    let record = fold_foreign::<FlightLeg>(Some(created), &envelope).unwrap();
    let stand = record.state.stand.unwrap();
    assert_eq!(
        (stand.stand.as_str(), stand.allocated_by.as_str()),
        ("B12", "system")
    );
    assert_eq!(stand.allocated_at, None);
}

#[test]
fn every_schema_is_valid_and_every_reason_code_documented() {
    for part in [".", "messages", "events", "references", "read-models"] {
        let path = folder().join("schemas").join(part);
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|form| form == "json") {
                let text = std::fs::read_to_string(&path).unwrap();
                let text: Value = serde_json::from_str(&text).unwrap();
                assert!(jsonschema::meta::is_valid(&text), "{}", path.display());
            }
        }
    }
    let readme = std::fs::read_to_string(folder().join("../README.md")).unwrap();
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/rejection.rs");
    let text = std::fs::read_to_string(source).unwrap();
    let codes = text.split("ReasonCode::new(\"").skip(1);
    let codes: Vec<&str> = codes.map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(codes.len() > 5);
    for code in codes {
        assert!(readme.contains(&format!("`{code}`")), "{code}");
    }
}
