//! Golden files: what Kafka Streams made of a case's input.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use millstream::prelude::*;
use millstream::testing::{DriverError, TopologyTestDriver};
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
}

enum Does {
    Pipe(Entry),
    Advance(u64),
}

/// A case's golden file.
pub(crate) struct Golden {
    pub(crate) operator: String,
    steps: Vec<Step>,
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/parity/golden")
}

/// The names of all cases that have a golden file.
pub(crate) fn names() -> BTreeSet<String> {
    std::fs::read_dir(directory())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(".jsonl").unwrap().replace('-', "_"))
        .collect()
}

impl Golden {
    pub(crate) fn read(case: &str) -> Self {
        let path = directory().join(format!("{}.jsonl", case.replace('_', "-")));
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let head = lines.next().unwrap();
        let operator = head["operator"].as_str().unwrap().to_owned();
        let mut steps: Vec<Step> = Vec::new();
        for line in lines {
            if let Some(topic) = line["out"].as_str() {
                steps.last_mut().unwrap().outputs.push(entry(topic, &line));
                continue;
            }
            let does = match line["in"].as_str() {
                Some(topic) => Does::Pipe(entry(topic, &line)),
                None => Does::Advance(line["advance"].as_u64().unwrap()),
            };
            steps.push(Step {
                does,
                outputs: Vec::new(),
            });
        }
        Self { operator, steps }
    }

    /// Runs the case's inputs through `topology`; says at which step the outputs differ first.
    pub(crate) fn compare(&self, topology: Topology) -> Result<(), String> {
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
            .build(topology)
            .unwrap();
        for (index, step) in self.steps.iter().enumerate() {
            if let Err(error) = step.does.run(&mut driver) {
                return Err(format!("step {}: {}: {error:?}", index + 1, step.does));
            }
            let mut found = Vec::new();
            for topic in &outputs {
                found.extend(read(&mut driver, topic));
            }
            if by_topic(&found) != by_topic(&step.outputs) {
                return Err(self.difference(index, &found));
            }
        }
        Ok(())
    }

    fn difference(&self, index: usize, found: &[Entry]) -> String {
        let list = |entries: &[Entry]| {
            let lines: Vec<String> = entries
                .iter()
                .map(|entry| format!("\n    {entry}"))
                .collect();
            lines.concat()
        };
        let before: Vec<String> = self.steps[index.saturating_sub(8)..=index]
            .iter()
            .map(|step| format!("\n    {}", step.does))
            .collect();
        format!(
            "step {} differs\n  input:{}\n  Kafka Streams:{}\n  millstream:{}",
            index + 1,
            before.concat(),
            list(&self.steps[index].outputs),
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
