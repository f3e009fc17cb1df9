//! Golden files: what Kafka Streams made of a case's input, and, where millstream differs on purpose,
//! what millstream makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use millstream::prelude::*;
use millstream::testing::{DriverError, TopologyTestDriver};
use serde::Serialize;
use serde_json::Value;

/// A record of a golden file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    topic: String,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: Timestamp,
    headers: Headers,
}

impl Entry {
    /// The entry as a golden file has it: Kafka Streams' side writes the same fields in this order.
    fn line(&self, way: &str) -> Line<'_> {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| (name, Bytes::of(value)))
            .collect();
        Line {
            input: (way == "in").then_some(&self.topic),
            output: (way == "out").then_some(&self.topic),
            key: Bytes::of(self.key.as_deref()),
            value: Bytes::of(self.value.as_deref()),
            timestamp: self.timestamp,
            headers,
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    input: Option<&'a String>,
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    output: Option<&'a String>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(&'a str, Option<Bytes>)>,
}

/// Text where it is printable ASCII, else hexadecimal digits.
#[derive(Serialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Hex { hex: String },
}

impl Bytes {
    fn of(bytes: Option<&[u8]>) -> Option<Self> {
        let bytes = bytes?;
        let printable = bytes.iter().all(|byte| (0x20..=0x7e).contains(byte));
        Some(match std::str::from_utf8(bytes) {
            Ok(text) if printable => Self::Text(text.to_owned()),
            _ => Self::Hex {
                hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            },
        })
    }
}

fn json(line: &Line<'_>) -> String {
    serde_json::to_string(line).unwrap()
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = |bytes: Option<&[u8]>| {
            bytes.map_or_else(
                || "null".to_owned(),
                |bytes| bytes.escape_ascii().to_string(),
            )
        };
        let (key, value) = (field(self.key.as_deref()), field(self.value.as_deref()));
        write!(f, "{} {key}={value}@{}", self.topic, self.timestamp)?;
        for (name, value) in self.headers.iter() {
            write!(f, " {name}:{}", field(value))?;
        }
        Ok(())
    }
}

/// What happens to a case, and what comes out before the next step.
struct Step {
    does: Does,
    outputs: Vec<Entry>,
    /// What stopped the application, with the last step. Words differ: only that it stops is compared.
    failure: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum Does {
    Pipe(Entry),
    Advance(u64),
}

/// A case's golden file.
pub(crate) struct Golden {
    pub(crate) operator: String,
    /// The first line, as it is written.
    head: String,
    steps: Vec<Step>,
}

/// Whose output a golden file holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of {
    /// Kafka Streams': written by `scripts/parity`.
    KafkaStreams,
    /// millstream's, of the cases that differ on purpose: written by this suite. `diff` of the two
    /// files shows the difference that was decided.
    Millstream,
}

impl Of {
    fn directory(self) -> PathBuf {
        let name = match self {
            Self::KafkaStreams => "golden",
            Self::Millstream => "decided",
        };
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/parity")
            .join(name)
    }

    fn path(self, case: &str) -> PathBuf {
        self.directory()
            .join(format!("{}.jsonl", case.replace('_', "-")))
    }
}

/// The names of all cases that have a golden file.
pub(crate) fn names(of: Of) -> BTreeSet<String> {
    std::fs::read_dir(of.directory())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(".jsonl").unwrap().replace('-', "_"))
        .collect()
}

impl Golden {
    pub(crate) fn read(of: Of, case: &str) -> Self {
        let text = std::fs::read_to_string(of.path(case)).unwrap();
        let mut lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let operator = lines.next().unwrap()["operator"]
            .as_str()
            .unwrap()
            .to_owned();
        let head = text.lines().next().unwrap().to_owned();
        let mut steps: Vec<Step> = Vec::new();
        for line in lines {
            if let Some(topic) = line["out"].as_str() {
                steps.last_mut().unwrap().outputs.push(entry(topic, &line));
                continue;
            }
            if let Some(failure) = line["fails"].as_str() {
                steps.last_mut().unwrap().failure = Some(failure.to_owned());
                continue;
            }
            let does = match line["in"].as_str() {
                Some(topic) => Does::Pipe(entry(topic, &line)),
                None => Does::Advance(line["advance"].as_u64().unwrap()),
            };
            steps.push(Step {
                does,
                outputs: Vec::new(),
                failure: None,
            });
        }
        Self {
            operator,
            head,
            steps,
        }
    }

    /// Writes it as millstream's own.
    pub(crate) fn write(&self, case: &str) {
        let mut text = format!("{}\n", self.head);
        for step in &self.steps {
            match &step.does {
                Does::Pipe(entry) => text.push_str(&json(&entry.line("in"))),
                Does::Advance(millis) => text.push_str(&format!("{{\"advance\":{millis}}}")),
            }
            text.push('\n');
            for output in &step.outputs {
                text.push_str(&json(&output.line("out")));
                text.push('\n');
            }
            if step.failure.is_some() {
                text.push_str("{\"fails\":\"DriverError\"}\n");
            }
        }
        std::fs::write(Of::Millstream.path(case), text).unwrap();
    }

    /// Says at which step the outputs of the same input differ first.
    pub(crate) fn compare(&self, found: &Self) -> Result<(), String> {
        for (index, (step, found)) in self.steps.iter().zip(&found.steps).enumerate() {
            assert!(step.does == found.does, "another input");
            let stopped = step.failure.is_some() == found.failure.is_some();
            if !stopped || by_topic(&found.outputs) != by_topic(&step.outputs) {
                return Err(self.difference(index, found));
            }
        }
        assert_eq!(self.steps.len(), found.steps.len());
        Ok(())
    }

    /// Runs the case's inputs through `topology`: what comes out of millstream.
    pub(crate) fn run(&self, topology: Topology, partitions: i32) -> Result<Self, String> {
        let inputs: BTreeSet<&str> = self
            .steps
            .iter()
            .filter_map(|step| step.does.topic())
            .collect();
        let outputs: Vec<String> = topology
            .declared_topics()
            .iter()
            .map(|topic| topic.name.clone())
            .filter(|name| !inputs.contains(name.as_str()))
            .collect();
        let expected = self.steps.iter().flat_map(|step| &step.outputs);
        for output in expected {
            if !outputs.contains(&output.topic) {
                return Err(format!("topic {} is not in the topology", output.topic));
            }
        }
        let mut driver = TopologyTestDriver::builder()
            .application_id("parity")
            .start_at(0)
            .partitions(partitions)
            .build(topology)
            .unwrap();
        let mut steps = Vec::new();
        for step in &self.steps {
            let failure = step.does.run(&mut driver).err();
            let mut found = Vec::new();
            for topic in &outputs {
                found.extend(read(&mut driver, topic));
            }
            steps.push(Step {
                does: step.does.clone(),
                outputs: found,
                failure: failure.map(|error| format!("{error:?}")),
            });
            if steps.last().is_some_and(|step| step.failure.is_some()) {
                break;
            }
        }
        Ok(Self {
            operator: self.operator.clone(),
            head: self.head.clone(),
            steps,
        })
    }

    fn difference(&self, index: usize, found: &Step) -> String {
        let list = |step: &Step| {
            let outputs = step.outputs.iter().map(ToString::to_string);
            let failure = step.failure.iter().map(|error| format!("stops: {error}"));
            let lines = outputs.chain(failure).map(|line| format!("\n    {line}"));
            lines.collect::<String>()
        };
        let before: Vec<String> = self.steps[index.saturating_sub(8)..=index]
            .iter()
            .map(|step| format!("\n    {}", step.does))
            .collect();
        format!(
            "step {} differs\n  input:{}\n  Kafka Streams:{}\n  millstream:{}",
            index + 1,
            before.concat(),
            list(&self.steps[index]),
            list(found)
        )
    }
}

impl Does {
    fn topic(&self) -> Option<&str> {
        match self {
            Self::Pipe(entry) => Some(&entry.topic),
            Self::Advance(_) => None,
        }
    }

    fn run(&self, driver: &mut TopologyTestDriver) -> Result<(), DriverError> {
        match self {
            Self::Pipe(entry) => driver.pipe_bytes(
                &entry.topic,
                entry.key.as_deref(),
                entry.value.as_deref(),
                entry.timestamp,
                &entry.headers,
            ),
            Self::Advance(millis) => driver.advance_wall_clock_time(Duration::from_millis(*millis)),
        }
    }
}

impl fmt::Display for Does {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipe(entry) => entry.fmt(f),
            Self::Advance(millis) => write!(f, "{millis} ms pass"),
        }
    }
}

/// Order holds within a topic only.
fn by_topic(entries: &[Entry]) -> BTreeMap<&str, Vec<&Entry>> {
    let mut topics = BTreeMap::<&str, Vec<&Entry>>::new();
    for entry in entries {
        topics.entry(&entry.topic).or_default().push(entry);
    }
    topics
}

fn read(driver: &mut TopologyTestDriver, topic: &str) -> Vec<Entry> {
    let bytes = || serdes::optional(serdes::bytes());
    let output = driver.output_topic::<Option<Vec<u8>>, Option<Vec<u8>>>(topic, bytes(), bytes());
    output
        .read_records(driver)
        .unwrap()
        .into_iter()
        .map(|record| Entry {
            topic: topic.to_owned(),
            key: record.key,
            value: record.value,
            timestamp: record.timestamp,
            headers: record.headers,
        })
        .collect()
}

fn entry(topic: &str, line: &Value) -> Entry {
    let mut headers = Headers::new();
    for header in line["headers"].as_array().into_iter().flatten() {
        headers.push(header[0].as_str().unwrap().to_owned(), field(&header[1]));
    }
    Entry {
        topic: topic.to_owned(),
        key: field(&line["key"]),
        value: field(&line["value"]),
        timestamp: line["timestamp"].as_i64().unwrap(),
        headers,
    }
}

fn field(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.as_bytes().to_vec()),
        other => {
            let digits = other["hex"].as_str().unwrap().as_bytes();
            let byte = |pair: &[u8]| {
                let digits = std::str::from_utf8(pair).unwrap();
                u8::from_str_radix(digits, 16).unwrap()
            };
            Some(digits.chunks(2).map(byte).collect())
        }
    }
}
