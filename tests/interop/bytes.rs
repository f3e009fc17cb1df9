//! Topics of the application as they are on a broker, and what millstream's formats make of them.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use std::collections::BTreeMap;

use millstream::format::change;
use millstream::format::offset_metadata::OffsetMetadata;
use millstream::format::partitioner::partition_for_key;
use millstream::format::window_key::{
    put_session, put_window, split_session, split_time_windowed, split_window,
};
use serde_json::{Value, json};

use super::expected::{Expected, Lines, PARTITIONS, Times, window};

/// A committed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Without the application id.
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) timestamp: i64,
}

/// A committed offset of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CapturedOffset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) metadata: String,
}

/// All that the application has left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capture {
    /// When the first phase began.
    pub(crate) base: i64,
    pub(crate) records: Vec<Captured>,
    pub(crate) offsets: Vec<CapturedOffset>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(std::str::from_utf8);
    digits
        .map(|digits| u8::from_str_radix(digits.unwrap(), 16).unwrap())
        .collect()
}

impl Capture {
    /// One JSON line for each record and offset, behind one with the time.
    pub(crate) fn to_lines(&self) -> String {
        let mut lines = vec![json!({ "base": self.base })];
        lines.extend(self.records.iter().map(|it| {
            json!({
                "topic": it.topic,
                "partition": it.partition,
                "timestamp": it.timestamp,
                "key": hex(&it.key),
                "value": it.value.as_deref().map(hex),
            })
        }));
        lines.extend(self.offsets.iter().map(|it| {
            json!({
                "offset_of": it.topic,
                "partition": it.partition,
                "metadata": it.metadata,
            })
        }));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn from_lines(text: &str) -> Self {
        let mut capture = Self {
            base: 0,
            records: Vec::new(),
            offsets: Vec::new(),
        };
        let string = |value: &Value| value.as_str().unwrap().to_owned();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(base) = line.get("base") {
                capture.base = base.as_i64().unwrap();
                continue;
            }
            let partition = i32::try_from(line["partition"].as_i64().unwrap()).unwrap();
            if let Some(topic) = line.get("offset_of") {
                capture.offsets.push(CapturedOffset {
                    topic: string(topic),
                    partition,
                    metadata: string(&line["metadata"]),
                });
                continue;
            }
            capture.records.push(Captured {
                topic: string(&line["topic"]),
                partition,
                key: unhex(&string(&line["key"])),
                value: line["value"].as_str().map(unhex),
                timestamp: line["timestamp"].as_i64().unwrap(),
            });
        }
        capture
    }

    fn of(&self, topic: &str) -> impl Iterator<Item = &Captured> {
        self.records.iter().filter(move |it| it.topic == topic)
    }

    /// The latest value of each key, both in words.
    fn fold(&self, topic: &str) -> Lines {
        let mut lines = Lines::new();
        for record in self.of(topic) {
            let key = read_key(topic, &record.key);
            match &record.value {
                Some(value) => lines.insert(key, read_value(topic, value)),
                None => lines.remove(&key),
            };
        }
        lines
    }

    /// Compares every store's changelog, every output, and what offsets carry, with `expected`.
    pub(crate) fn verify(&self, expected: &Expected) {
        for (store, lines) in &expected.stores {
            let topic = format!("{store}-changelog");
            assert_eq!(self.fold(&topic), *lines, "changelog of `{store}`");
            assert!(
                self.of(&topic).next().is_some(),
                "nothing was read of {topic}"
            );
        }
        for (topic, store) in [
            ("windows-out", "windows"),
            ("sessions-out", "sessions"),
            ("joined-out", "joined"),
            ("cities-out", "cities"),
        ] {
            assert_eq!(self.fold(topic), expected.stores[store], "{topic}");
        }
        self.verify_counts(expected);
        self.verify_windows_once("closing-out", &expected.closed);
        self.verify_windows_once("final-out", &expected.suppressed);
        let mut named = BTreeMap::<String, Vec<String>>::new();
        for record in self.of("named-out") {
            let of_key = named.entry(text(&record.key)).or_default();
            of_key.push(text(record.value.as_deref().unwrap()));
        }
        assert_eq!(named, expected.named, "named-out");
        self.verify_partitions();
    }

    /// Each key counts from 1 without a gap: nothing was lost, nothing came twice.
    fn verify_counts(&self, expected: &Expected) {
        let mut found = BTreeMap::<String, Vec<i64>>::new();
        for record in self.of("counts-out") {
            let of_key = found.entry(text(&record.key)).or_default();
            of_key.push(number(record.value.as_deref().unwrap()));
        }
        let all = expected.counts.iter();
        let expected: BTreeMap<String, Vec<i64>> = all
            .map(|(key, count)| (key.clone(), (1..=*count).collect()))
            .collect();
        assert_eq!(found, expected, "counts-out");
    }

    fn verify_windows_once(&self, topic: &str, expected: &Lines) {
        let records = self.of(topic).map(|record| {
            let key = read_key(topic, &record.key);
            (key, read_value(topic, record.value.as_deref().unwrap()))
        });
        let mut found: Vec<(String, String)> = records.collect();
        found.sort();
        let expected: Vec<_> = expected.clone().into_iter().collect();
        assert_eq!(found, expected, "{topic}: each closed window once");
    }

    /// Every record lies where its key says: windowed ones by the key without the window. Changelogs
    /// follow their tasks, which are where the key says as well.
    fn verify_partitions(&self) {
        let mut seen = std::collections::BTreeSet::new();
        for record in &self.records {
            if record.topic == "final-store-changelog" {
                // Kafka Streams' own bytes.
                continue;
            }
            let base = base_key(&record.topic, &record.key);
            assert_eq!(
                record.partition,
                partition_for_key(base, PARTITIONS),
                "{record:?}"
            );
            seen.insert((base.to_vec(), record.partition));
        }
        let partitions: std::collections::BTreeSet<i32> = seen.iter().map(|it| it.1).collect();
        assert_eq!(partitions.len(), 2, "both partitions have keys");
    }

    /// The repartition topics of groupings, decoded: `by-word` has the words, `by-city` has changes.
    pub(crate) fn verify_repartition(&self, words: usize) {
        let by_word: Vec<&Captured> = self.of("by-word-repartition").collect();
        assert_eq!(by_word.len(), words);
        for record in by_word {
            assert_eq!(
                Some(&record.key),
                record.value.as_ref(),
                "grouped by the word"
            );
        }
        let mut cities = BTreeMap::<String, i64>::new();
        for record in self.of("by-city-repartition") {
            let sides = change::decode(record.value.as_deref().unwrap()).unwrap();
            let mut bytes = Vec::new();
            assert!(change::encode(sides.new, sides.old, &mut bytes));
            assert_eq!(Some(&bytes), record.value.as_ref(), "encoded as it was");
            let count = cities.entry(text(&record.key)).or_default();
            *count += i64::from(sides.new.is_some()) - i64::from(sides.old.is_some());
        }
        let cities: Lines = cities
            .into_iter()
            .map(|(city, count)| (city, count.to_string()))
            .collect();
        assert_eq!(cities, self.fold("cities-changelog"));
    }

    /// Compares what the offsets of `words` carry.
    pub(crate) fn verify_offsets(&self, expected: &BTreeMap<i32, Times>) {
        for (partition, times) in expected {
            let metadata = OffsetMetadata::decode(self.metadata_of_words(*partition)).unwrap();
            assert_eq!(metadata.partition_time, Some(times.partition_time));
            assert_eq!(metadata.entries.get("closing"), Some(&times.closed_up_to));
        }
    }

    /// What Kafka Streams alone has written is written by millstream in the same bytes.
    pub(crate) fn verify_offset_bytes(&self) {
        for partition in 0..PARTITIONS {
            let text = self.metadata_of_words(partition);
            assert_eq!(OffsetMetadata::decode(text).unwrap().encode(), text);
        }
    }

    fn metadata_of_words(&self, partition: i32) -> &str {
        let mut offsets = self.offsets.iter();
        let found = offsets.find(|it| it.topic == "words" && it.partition == partition);
        &found.unwrap().metadata
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn number(bytes: &[u8]) -> i64 {
    i64::from_be_bytes(bytes.try_into().unwrap())
}

/// Reads a key with millstream's formats, and sees that it is written as it was.
fn read_key(topic: &str, bytes: &[u8]) -> String {
    match topic {
        "windows-changelog" | "closing-changelog" => {
            let (key, start, sequence) = split_window(bytes).unwrap();
            assert_eq!(sequence, 0);
            let mut written = key.to_vec();
            put_window(&mut written, start, sequence);
            assert_eq!(written, bytes);
            window(&text(key), start)
        }
        "sessions-changelog" | "sessions-out" => {
            let (key, session) = split_session(bytes).unwrap();
            let mut written = key.to_vec();
            put_session(&mut written, session);
            assert_eq!(written, bytes);
            format!("{}@{}..{}", text(key), session.start(), session.end())
        }
        "windows-out" | "closing-out" | "final-out" => {
            let (key, start) = split_time_windowed(bytes).unwrap();
            window(&text(key), start)
        }
        _ => text(bytes),
    }
}

fn base_key<'a>(topic: &str, bytes: &'a [u8]) -> &'a [u8] {
    match topic {
        "windows-changelog" | "closing-changelog" => split_window(bytes).unwrap().0,
        "sessions-changelog" | "sessions-out" => split_session(bytes).unwrap().0,
        "windows-out" | "closing-out" | "final-out" => split_time_windowed(bytes).unwrap().0,
        _ => bytes,
    }
}

fn read_value(topic: &str, bytes: &[u8]) -> String {
    match topic {
        "users-changelog" | "left-changelog" | "right-changelog" | "joined-changelog"
        | "joined-out" | "named-out" => text(bytes),
        _ => number(bytes).to_string(),
    }
}
