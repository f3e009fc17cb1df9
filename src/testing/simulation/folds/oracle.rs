//! What a run must come to, computed from its input alone.

use std::collections::BTreeMap;

use super::topology::{COUNT, JOURNAL, MAX, MIN, POISON, SEEN, SUM, bucket, deletes, number};

/// A record that was put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) offset: i64,
    pub(super) sequence: String,
    pub(super) key: String,
    /// `None`: does not decode.
    pub(super) value: Option<String>,
}

impl Input {
    fn good(&self) -> Option<&str> {
        self.value.as_deref().filter(|value| *value != POISON)
    }
}

/// The content of a store's partition.
pub(super) type Numbers = BTreeMap<String, i64>;

/// What one input partition must lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// Sequence, key, value, in order.
    pub(super) echo: Vec<(String, String, String)>,
    /// By topic: key and number, in order.
    pub(super) numbers: BTreeMap<&'static str, Vec<(String, i64)>>,
    /// What goes to the repartition topic: sequence, new key, value, in order.
    pub(super) bucketed: Vec<(String, String, String)>,
    /// Offsets of the records that no operator may show a trace of.
    pub(super) refused: Vec<i64>,
    /// By store.
    pub(super) stores: BTreeMap<&'static str, Numbers>,
}

impl Expected {
    pub(super) fn of(inputs: &[Input]) -> Self {
        let mut expected = Self::default();
        for store in [SUM, MIN, MAX, SEEN] {
            expected.stores.insert(store, Numbers::new());
        }
        for topic in [SUM, MIN, MAX, JOURNAL] {
            expected.numbers.insert(topic, Vec::new());
        }
        for input in inputs {
            match input.good() {
                Some(value) => expected.add(input, value),
                None => expected.refused.push(input.offset),
            }
        }
        expected
    }

    fn add(&mut self, input: &Input, value: &str) {
        let (sequence, key) = (&input.sequence, &input.key);
        self.echo
            .push((sequence.clone(), key.clone(), value.to_owned()));
        self.bucketed
            .push((sequence.clone(), bucket(value), value.to_owned()));
        self.fold(SUM, key, |before| before.unwrap_or(0) + number(value));
        self.fold(MIN, key, |before| {
            before.unwrap_or(i64::MAX).min(number(value))
        });
        self.fold(MAX, key, |before| {
            before.unwrap_or(i64::MIN).max(number(value))
        });
        let seen = self.stores.entry(SEEN).or_default();
        let result = if deletes(value) {
            seen.remove(key);
            0
        } else {
            let count = seen.entry(key.clone()).or_default();
            *count += 1;
            *count
        };
        self.numbers
            .entry(JOURNAL)
            .or_default()
            .push((key.clone(), result));
    }

    fn fold(&mut self, name: &'static str, key: &str, fold: impl Fn(Option<i64>) -> i64) {
        let store = self.stores.entry(name).or_default();
        let value = fold(store.get(key).copied());
        store.insert(key.to_owned(), value);
        self.numbers
            .entry(name)
            .or_default()
            .push((key.to_owned(), value));
    }
}

/// What the counting sub-topology must write for a partition of the repartition topic, and hold.
pub(super) fn counts(buckets: impl IntoIterator<Item = String>) -> (Vec<(String, i64)>, Numbers) {
    let mut store = Numbers::new();
    let mut outputs = Vec::new();
    for key in buckets {
        let count = store.entry(key.clone()).or_default();
        *count += 1;
        outputs.push((key, *count));
    }
    (outputs, store)
}

/// The store of the counting sub-topology.
pub(super) const COUNT_STORE: &str = COUNT;
