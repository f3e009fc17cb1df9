//! The input of the application in phases, and what it comes to, computed without either library.
//!
//! A phase is one owner's turn. It begins with a jump of stream time, so that what was open at the
//! hand-over closes under the new owner.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use std::collections::BTreeMap;

use millstream::format::partitioner::partition_for_key;

use super::topology::{GAP_MS, GRACE_MS, SIZE_MS};

pub(crate) const PARTITIONS: i32 = 2;
pub(crate) const INPUTS: [&str; 4] = ["users", "words", "left", "right"];
pub(crate) const OUTPUTS: [&str; 9] = [
    "counts-out",
    "windows-out",
    "final-out",
    "closing-out",
    "sessions-out",
    "word-counts-out",
    "named-out",
    "cities-out",
    "joined-out",
];
const PHASE_MS: i64 = 10_000;
/// When the second burst of words comes within its phase, and closes the windows of the first.
const SECOND_BURST_MS: i64 = 4_000;

/// A record of the input.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) topic: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: Option<&'static str>,
    pub(crate) timestamp: i64,
}

/// Returns the input of a phase, in order; `base` is when the first begins.
pub(crate) fn phase(base: i64, number: i64) -> Vec<Input> {
    let begin = base + number * PHASE_MS;
    let mut inputs = Vec::new();
    let mut table = |topic, at, entries: &[(&'static str, Option<&'static str>)]| {
        for (key, value) in entries {
            inputs.push(Input {
                topic,
                key,
                value: *value,
                timestamp: begin + at,
            });
        }
    };
    let users: &[_] = match number {
        0 => &[
            ("a", Some("oslo")),
            ("b", Some("rome")),
            ("c", Some("oslo")),
        ],
        1 => &[("a", Some("rome")), ("d", Some("lima"))],
        _ => &[("c", None), ("b", Some("oslo"))],
    };
    table("users", 0, users);
    // The subscriptions of a foreign-key join stay behind when an application moves, so the left
    // table's entries are published again before the right one's go on.
    let left: &[_] = match number {
        0 => &[("k1", Some("f1")), ("k2", Some("f1")), ("k3", Some("f2"))],
        1 => &[("k1", Some("f1")), ("k2", Some("f1")), ("k3", Some("f1"))],
        _ => &[("k1", Some("f1")), ("k2", None), ("k3", Some("f1"))],
    };
    table("left", 10, left);
    let right: &[_] = match number {
        0 => &[("f1", Some("r1")), ("f2", Some("r2"))],
        1 => &[("f1", Some("r3"))],
        _ => &[("f1", Some("r4")), ("f2", Some("r5"))],
    };
    table("right", 20, right);
    let words = (0..20).map(|index| (index, 100 + index * 70));
    let later = (20..28).map(|index| (index, SECOND_BURST_MS + index * 30));
    for (index, at) in words.chain(later) {
        let index = usize::try_from(index).unwrap_or(0);
        inputs.push(Input {
            topic: "words",
            key: ["a", "b", "c", "d"][index % 4],
            value: Some(["tea", "coffee", "milk"][index % 3]),
            timestamp: begin + at,
        });
    }
    inputs
}

/// Text by text.
pub(crate) type Lines = BTreeMap<String, String>;

/// What the application has come to.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// By store: key and value of its changelog, in words.
    pub(crate) stores: BTreeMap<&'static str, Lines>,
    /// Windows that have closed: `key@start`, and their counts.
    pub(crate) closed: Lines,
    /// The same as a suppression lets them go. What it holds back at a hand-over does not move: it goes
    /// when its owner is back, with every other phase.
    pub(crate) suppressed: Lines,
    /// By key: how many records.
    pub(crate) counts: BTreeMap<String, i64>,
    /// Words joined with users, in the order of their key.
    pub(crate) named: BTreeMap<String, Vec<String>>,
}

pub(crate) fn window(key: &str, start: i64) -> String {
    format!("{key}@{start}")
}

/// What the offsets of a partition of `words` carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// The latest record.
    pub(crate) partition_time: i64,
    /// Up to when windows were emitted on close: as of the last record that closed any.
    pub(crate) closed_up_to: i64,
}

/// Returns the times of each partition after all these phases.
pub(crate) fn times(base: i64, phases: &[Vec<Input>]) -> BTreeMap<i32, Times> {
    let last = i64::try_from(phases.len()).unwrap_or(0) - 1;
    let second_burst = base + last * PHASE_MS + SECOND_BURST_MS;
    let mut times = BTreeMap::new();
    for word in phases.iter().flatten().filter(|it| it.topic == "words") {
        let partition = partition_for_key(word.key.as_bytes(), PARTITIONS);
        if word.timestamp < second_burst {
            continue;
        }
        let of_partition = times.entry(partition).or_insert(Times {
            partition_time: word.timestamp,
            closed_up_to: word.timestamp - GRACE_MS,
        });
        of_partition.partition_time = word.timestamp.max(of_partition.partition_time);
    }
    times
}

impl Expected {
    /// Computes it for what has been put in so far.
    pub(crate) fn of(phases: &[Vec<Input>]) -> Self {
        let mut expected = Self::default();
        let inputs = || phases.iter().flatten();
        for table in ["users", "left", "right"] {
            let mut lines = Lines::new();
            for input in inputs().filter(|it| it.topic == table) {
                match input.value {
                    Some(value) => lines.insert(input.key.to_owned(), value.to_owned()),
                    None => lines.remove(input.key),
                };
            }
            expected.stores.insert(table, lines);
        }
        expected.join_tables();
        let words: Vec<&Input> = inputs().filter(|it| it.topic == "words").collect();
        let mut by_word = BTreeMap::<String, i64>::new();
        for word in &words {
            *expected.counts.entry(word.key.to_owned()).or_default() += 1;
            let value = word.value.unwrap_or_default().to_owned();
            *by_word.entry(value).or_default() += 1;
        }
        let counts = lines(&expected.counts);
        expected.stores.insert("counts", counts);
        expected.stores.insert("word-counts", lines(&by_word));
        expected.cities(phases);
        expected.windows(phases, &words);
        expected.sessions(&words);
        expected.name(phases);
        expected
    }

    fn join_tables(&mut self) {
        let right = &self.stores["right"];
        let joined = self.stores["left"].iter().filter_map(|(key, foreign)| {
            let found = right.get(foreign)?;
            Some((key.clone(), format!("{foreign}|{found}")))
        });
        let joined = joined.collect();
        self.stores.insert("joined", joined);
    }

    /// A city that nobody is left in keeps its count of nothing.
    fn cities(&mut self, phases: &[Vec<Input>]) {
        let named = phases.iter().flatten().filter(|it| it.topic == "users");
        let mut cities: BTreeMap<String, i64> = named
            .filter_map(|it| Some((it.value?.to_owned(), 0)))
            .collect();
        for city in self.stores["users"].values() {
            *cities.entry(city.clone()).or_default() += 1;
        }
        self.stores.insert("cities", lines(&cities));
    }

    fn windows(&mut self, phases: &[Vec<Input>], words: &[&Input]) {
        let mut windows = BTreeMap::<(i64, &str), i64>::new();
        for word in words {
            let start = word.timestamp - word.timestamp.rem_euclid(SIZE_MS);
            *windows.entry((start, word.key)).or_default() += 1;
        }
        // Every partition has all of the times that matter: each key comes in each burst.
        let latest = |inputs: &mut dyn Iterator<Item = &Input>| {
            inputs
                .filter(|it| it.topic == "words")
                .map(|it| it.timestamp)
                .max()
                .unwrap_or(0)
        };
        let now = latest(&mut phases.iter().flatten());
        let is_closed = |start: i64, at: i64| start + SIZE_MS <= at - GRACE_MS;
        for ((start, key), count) in &windows {
            if !is_closed(*start, now) {
                continue;
            }
            let line = (window(key, *start), count.to_string());
            self.closed.extend([line.clone()]);
            // In whose buffer it was held back, and whether that owner has come back since.
            let held_at = phases.iter().position(|phase| {
                let at = latest(&mut phase.iter());
                *start <= at && !is_closed(*start, at)
            });
            if held_at.is_none_or(|held_at| held_at + 2 < phases.len()) {
                self.suppressed.extend([line]);
            }
        }
        let all = windows.iter();
        let all: Lines = all
            .map(|((start, key), count)| (window(key, *start), count.to_string()))
            .collect();
        self.stores.insert("closing", all.clone());
        self.stores.insert("windows", all);
    }

    fn sessions(&mut self, words: &[&Input]) {
        let mut sessions = BTreeMap::<&str, Vec<(i64, i64, i64)>>::new();
        for word in words {
            let of_key = sessions.entry(word.key).or_default();
            match of_key.last_mut() {
                Some((_, end, count)) if word.timestamp - *end <= GAP_MS => {
                    *end = word.timestamp;
                    *count += 1;
                }
                _ => of_key.push((word.timestamp, word.timestamp, 1)),
            }
        }
        let lines = sessions.iter().flat_map(|(key, sessions)| {
            let line = move |(start, end, count): &(i64, i64, i64)| {
                (format!("{key}@{start}..{end}"), count.to_string())
            };
            sessions.iter().map(line)
        });
        self.stores.insert("sessions", lines.collect());
    }

    /// In each phase the users come before the words.
    fn name(&mut self, phases: &[Vec<Input>]) {
        let mut users = BTreeMap::new();
        for input in phases.iter().flatten() {
            match (input.topic, input.value) {
                ("users", Some(city)) => drop(users.insert(input.key, city)),
                ("users", None) => drop(users.remove(input.key)),
                ("words", Some(word)) => {
                    if let Some(city) = users.get(input.key) {
                        let named = self.named.entry(input.key.to_owned()).or_default();
                        named.push(format!("{word} by {city}"));
                    }
                }
                _ => {}
            }
        }
    }
}

fn lines(numbers: &BTreeMap<String, i64>) -> Lines {
    let numbers = numbers.iter();
    numbers
        .map(|(key, number)| (key.clone(), number.to_string()))
        .collect()
}
