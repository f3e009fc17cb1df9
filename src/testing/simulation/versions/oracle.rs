//! What a versioned table and the joins with it must come to, by brute force over the records that a
//! task has taken up, in their order: all that was ever written is kept, and looked through. Written
//! from the rules of `docs/formats.md` and Kafka Streams' documentation; it shares nothing with the
//! operators.

use std::collections::BTreeMap;

use super::{
    LABELLED, LABELS, MAYBE_MET, MAYBE_WAITED, MET, ORDERS, RATES, UPDATES, WAITED, grace_of,
    history,
};
use crate::clock::Timestamp;
use crate::testing::simulation::check::{Content, SEQUENCE, Seen, length_of};
use crate::testing::simulation::plan::WindowPlan;

/// A line of an output. `by` is the record whose headers it has.
pub(super) fn line(key: &str, value: Option<&str>, timestamp: Timestamp, by: &str) -> String {
    let value = value.unwrap_or("(null)");
    format!("{key} = {value} at {timestamp} by {by}")
}

/// Everything that was written to the versioned table, in the order of writes.
#[derive(Debug, Default)]
struct Past<'a> {
    writes: Vec<&'a Seen>,
    latest_time: Option<Timestamp>,
    history: i64,
}

impl<'a> Past<'a> {
    fn is_too_old(&self, time: Timestamp) -> bool {
        self.latest_time
            .is_some_and(|latest| time < latest - self.history)
    }

    /// Returns whether the write is of its key's latest version, `None` when it is refused.
    fn write(&mut self, record: &'a Seen) -> Option<bool> {
        if self.is_too_old(record.timestamp) {
            return None;
        }
        self.latest_time = self.latest_time.max(Some(record.timestamp));
        self.writes.push(record);
        let later = |one: &&&Seen| one.key == record.key && one.timestamp > record.timestamp;
        Some(self.writes.iter().find(later).is_none())
    }

    /// The last write among those of the greatest time up to `time`.
    fn version(&self, key: &str, time: Timestamp) -> Option<&'a Seen> {
        let of_key = self.writes.iter().copied().filter(|one| one.key == key);
        let until = of_key.filter(|one| one.timestamp <= time);
        until.max_by_key(|one| one.timestamp)
    }

    fn latest(&self, key: &str) -> Option<(&'a str, Timestamp)> {
        let found = self.version(key, i64::MAX)?;
        Some((found.value.as_deref()?, found.timestamp))
    }

    /// A time before the history that is kept has an answer only where nothing came since.
    fn as_of(&self, key: &str, time: Timestamp) -> Option<&'a str> {
        let found = self.version(key, time)?;
        let superseded = self
            .version(key, i64::MAX)
            .is_some_and(|last| last.timestamp > time);
        if self.is_too_old(time) && superseded {
            return None;
        }
        found.value.as_deref()
    }

    /// All versions: `int32 length ‖ key ‖ int64 time (sign flipped)`, and `byte 1 ‖ value` or `byte 0`.
    fn content(&self) -> Content {
        let mut content = Content::new();
        for write in &self.writes {
            let mut key = length_of(write.key.as_bytes()).to_vec();
            key.extend(write.key.as_bytes());
            key.extend((write.timestamp ^ i64::MIN).to_be_bytes());
            let value = match &write.value {
                Some(value) => [&[1], value.as_bytes()].concat(),
                None => vec![0],
            };
            content.insert(key, value);
        }
        content
    }
}

/// The records of a join that wait.
#[derive(Debug, Default)]
struct Waiting<'a> {
    grace: i64,
    latest: Option<Timestamp>,
    number: i32,
    records: BTreeMap<(Timestamp, &'a str, i32), &'a Seen>,
}

impl<'a> Waiting<'a> {
    /// Takes a record; returns those whose turn it is to be joined.
    fn take(&mut self, record: &'a Seen) -> Vec<&'a Seen> {
        let time = record.timestamp;
        if self.latest.is_some_and(|latest| latest - self.grace > time) {
            return vec![record];
        }
        let latest = self.latest.map_or(time, |latest| latest.max(time));
        self.latest = Some(latest);
        self.number += 1;
        self.records
            .insert((time, &record.key, self.number), record);
        let due = |place: &&(Timestamp, &str, i32)| place.0 <= latest - self.grace;
        let due: Vec<_> = self.records.keys().take_while(due).copied().collect();
        due.iter()
            .filter_map(|place| self.records.remove(place))
            .collect()
    }

    /// `byte 0 ‖ int64 time ‖ key ‖ int32 number`, and a suppressed update with no prior value.
    fn content(&self) -> Content {
        let mut content = Content::new();
        for ((time, key, number), record) in &self.records {
            let mut bytes = vec![0];
            bytes.extend(time.to_be_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(number.to_be_bytes());
            let mut value = vec![1];
            value.extend(time.to_be_bytes());
            value.push(1);
            let mut field = |bytes: &[u8]| {
                value.extend(length_of(bytes));
                value.extend(bytes);
            };
            field(record.value.as_deref().unwrap_or_default().as_bytes());
            value.extend(1_u32.to_be_bytes());
            for bytes in [SEQUENCE, &record.sequence] {
                value.extend(length_of(bytes.as_bytes()));
                value.extend(bytes.as_bytes());
            }
            content.insert(bytes, value);
        }
        content
    }
}

/// What one partition must hold.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// By topic.
    pub(super) outputs: BTreeMap<&'static str, Vec<String>>,
    /// By store.
    pub(super) stores: BTreeMap<String, Content>,
}

impl Expected {
    pub(super) fn of(plan: &WindowPlan, seen: &[Seen]) -> Self {
        let mut run = Run {
            rates: Past {
                history: history(plan),
                ..Past::default()
            },
            ..Run::default()
        };
        for join in [WAITED, MAYBE_WAITED] {
            let grace = grace_of(join, plan);
            let waiting = Waiting {
                grace,
                ..Waiting::default()
            };
            run.waiting.insert(join, waiting);
        }
        for topic in [UPDATES, MET, MAYBE_MET, WAITED, MAYBE_WAITED, LABELLED] {
            run.outputs.insert(topic, Vec::new());
        }
        for record in seen {
            match record.topic {
                ORDERS => run.order(record),
                RATES => run.rate(record),
                _ => run.label(record),
            }
        }
        let labels = run.labels.iter();
        let labels = labels.map(|(key, (label, _))| ((*key).into(), (*label).into()));
        let mut stores = BTreeMap::from([
            (RATES.to_owned(), run.rates.content()),
            (LABELS.to_owned(), labels.collect()),
        ]);
        for (join, waiting) in &run.waiting {
            stores.insert(format!("{join}-Buffer"), waiting.content());
        }
        Self {
            outputs: run.outputs,
            stores,
        }
    }
}

#[derive(Debug, Default)]
struct Run<'a> {
    rates: Past<'a>,
    labels: BTreeMap<&'a str, (&'a str, Timestamp)>,
    waiting: BTreeMap<&'static str, Waiting<'a>>,
    outputs: BTreeMap<&'static str, Vec<String>>,
}

impl<'a> Run<'a> {
    fn output(&mut self, topic: &'static str, line: String) {
        self.outputs.entry(topic).or_default().push(line);
    }

    fn order(&mut self, record: &'a Seen) {
        self.join(MET, record);
        self.join(MAYBE_MET, record);
        for join in [WAITED, MAYBE_WAITED] {
            let due = self.waiting.entry(join).or_default().take(record);
            due.into_iter().for_each(|record| self.join(join, record));
        }
    }

    fn join(&mut self, join: &'static str, record: &Seen) {
        let rate = self.rates.as_of(&record.key, record.timestamp);
        let rate = match (join, rate) {
            (MET | WAITED, None) => return,
            (MAYBE_MET, Some(rate)) => format!("{rate}{rate}"),
            (_, rate) => rate.unwrap_or("-").to_owned(),
        };
        let value = format!("{}|{rate}", record.value.as_deref().unwrap_or_default());
        let line = line(
            &record.key,
            Some(&value),
            record.timestamp,
            &record.sequence,
        );
        self.output(join, line);
    }

    fn rate(&mut self, record: &'a Seen) {
        let Some(latest) = self.rates.write(record) else {
            return;
        };
        let (key, time) = (record.key.as_str(), record.timestamp);
        let value = record.value.as_deref();
        self.output(UPDATES, line(key, value, time, &record.sequence));
        // The joined table keeps the latest only: the past does not concern it.
        if let Some((label, at)) = self.labels.get(key).copied()
            && latest
        {
            let value = value.map(|rate| format!("{rate}|{label}"));
            let line = line(key, value.as_deref(), time.max(at), &record.sequence);
            self.output(LABELLED, line);
        }
    }

    fn label(&mut self, record: &'a Seen) {
        let (key, time) = (record.key.as_str(), record.timestamp);
        match &record.value {
            Some(value) => drop(self.labels.insert(key, (value, time))),
            None => drop(self.labels.remove(key)),
        }
        if let Some((rate, at)) = self.rates.latest(key) {
            let value = record.value.as_ref().map(|label| format!("{rate}|{label}"));
            let line = line(key, value.as_deref(), time.max(at), &record.sequence);
            self.output(LABELLED, line);
        }
    }
}
