//! What windows must come to, by brute force over the records that a task has taken up, in their
//! order. Written from the rules of `docs/formats.md` and Kafka Streams' documentation; it shares
//! nothing with the operators.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::testing::simulation::check::{Content, length_of};
use crate::testing::simulation::plan::WindowPlan;

/// A record that a task has taken up.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) sequence: String,
    pub(super) key: String,
    pub(super) timestamp: Timestamp,
}

/// A line of an output: key, window, value, timestamp.
pub(super) fn line(
    (key, start, end): (&str, i64, i64),
    value: Option<i64>,
    timestamp: Timestamp,
) -> String {
    format!("{key}@{start}..{end} = {value:?} at {timestamp}")
}

/// What one partition must hold.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// By topic.
    pub(super) outputs: BTreeMap<&'static str, Vec<String>>,
    /// By store.
    pub(super) stores: BTreeMap<&'static str, Content>,
}

impl Expected {
    pub(super) fn of(plan: &WindowPlan, seen: &[Seen]) -> Self {
        let mut expected = Self::default();
        expected.tumbling(plan, seen);
        expected.sessions(plan, seen);
        expected.limited(plan, seen);
        expected
    }

    fn tumbling(&mut self, plan: &WindowPlan, seen: &[Seen]) {
        let (mut updates, mut late, mut finals) = (Vec::new(), Vec::new(), Vec::new());
        let mut windows = BTreeMap::<(i64, String), Vec<&Seen>>::new();
        let mut open = BTreeMap::<(i64, String), Vec<u8>>::new();
        let mut observed = i64::MIN;
        for record in seen {
            observed = observed.max(record.timestamp);
            let closed = |start: i64| start + plan.size <= observed - plan.grace;
            let start = record.timestamp - record.timestamp.rem_euclid(plan.size);
            if closed(start) {
                late.push(format!("{} {}", record.sequence, record.key));
            } else {
                let place = (start, record.key.clone());
                let members = windows.entry(place.clone()).or_default();
                members.push(record);
                let count = members.len() as i64;
                let latest = latest(members);
                let window = (record.key.as_str(), start, start + plan.size);
                updates.push(line(window, Some(count), latest));
                open.insert(place, held(latest, count, None, &record.sequence));
            }
            let (gone, stay) = open.into_iter().partition(|((start, _), _)| closed(*start));
            open = stay;
            let gone: BTreeMap<_, Vec<u8>> = gone;
            for (start, key) in gone.into_keys() {
                let members = &windows[&(start, key.clone())];
                let window = (key.as_str(), start, start + plan.size);
                finals.push(line(window, Some(members.len() as i64), latest(members)));
            }
        }
        let counts: Content = windows
            .iter()
            .map(|((start, key), members)| {
                let key = [key.as_bytes(), &start.to_be_bytes(), &[0; 4]].concat();
                (key, (members.len() as i64).to_be_bytes().to_vec())
            })
            .collect();
        let buffer = open.into_iter().map(|((start, key), value)| {
            let place = in_order(start + plan.size);
            let key = [&place[..], key.as_bytes(), &start.to_be_bytes()].concat();
            (key, value)
        });
        self.stores.insert("final-buffer", buffer.collect());
        self.stores.insert(super::CLOSING, counts.clone());
        self.stores.insert(super::TUMBLING, counts);
        self.outputs.insert(super::TUMBLING, updates);
        self.outputs.insert(super::LATE, late);
        // Each window once, in the same order, whichever way it is asked for.
        self.outputs.insert(super::CLOSING, finals.clone());
        self.outputs.insert(super::FINAL, finals);
    }

    /// A session is as the store has it: start, end and count by key. One whose end lies the gap and
    /// the grace period behind the latest end is forgotten.
    fn sessions(&mut self, plan: &WindowPlan, seen: &[Seen]) {
        let life = plan.gap + plan.grace;
        let mut updates = Vec::new();
        let mut sessions = BTreeMap::<String, Vec<(i64, i64, i64)>>::new();
        let (mut observed, mut latest_end) = (i64::MIN, i64::MIN / 2);
        for Seen { key, timestamp, .. } in seen {
            let timestamp = *timestamp;
            observed = observed.max(timestamp);
            let of_key = sessions.entry(key.clone()).or_default();
            of_key.sort_unstable_by_key(|(start, end, _)| (*end, *start));
            let joined: Vec<_> = of_key
                .iter()
                .copied()
                .filter(|(start, end, _)| {
                    *end > latest_end - life
                        && *end >= timestamp - plan.gap
                        && *start <= timestamp + plan.gap
                })
                .collect();
            let start = joined.iter().map(|it| it.0).fold(timestamp, i64::min);
            let end = joined.iter().map(|it| it.1).fold(timestamp, i64::max);
            if end < observed - life {
                continue;
            }
            of_key.retain(|session| !joined.contains(session));
            if (start, end) != (timestamp, timestamp) {
                for (start, end, _) in &joined {
                    updates.push(line((key, *start, *end), None, *end));
                }
            }
            let count = joined.iter().map(|it| it.2).sum::<i64>() + 1;
            latest_end = latest_end.max(end);
            if end > latest_end - life {
                of_key.push((start, end, count));
            }
            updates.push(line((key, start, end), Some(count), end));
        }
        let content = sessions.iter().flat_map(|(key, sessions)| {
            sessions.iter().map(move |(start, end, count)| {
                let (start, end) = (start.to_be_bytes(), end.to_be_bytes());
                let key = [key.as_bytes(), &end, &start].concat();
                (key, count.to_be_bytes().to_vec())
            })
        });
        self.stores.insert(super::SESSIONS, content.collect());
        self.outputs.insert(super::SESSIONS, updates);
    }

    /// The count of each key, held back until stream time is the gap past the first update held back.
    fn limited(&mut self, plan: &WindowPlan, seen: &[Seen]) {
        let mut outputs = Vec::new();
        let mut counts = BTreeMap::<&str, (i64, i64)>::new();
        // By place: count, its time, the count before all that is held back, the last record.
        let mut held_back = BTreeMap::<(i64, &str), (i64, i64, Option<i64>, &str)>::new();
        let mut observed = i64::MIN;
        for record in seen {
            let key = record.key.as_str();
            let before = counts.get(key).copied();
            let (count, time) = before.map_or((1, record.timestamp), |(count, time)| {
                (count + 1, time.max(record.timestamp))
            });
            counts.insert(key, (count, time));
            observed = observed.max(time);
            let place = held_back.keys().find(|(_, it)| *it == key).copied();
            let place = place.unwrap_or((time, key));
            let prior = match held_back.get(&place) {
                Some((_, _, prior, _)) => *prior,
                None => before.map(|(count, _)| count),
            };
            held_back.insert(place, (count, time, prior, &record.sequence));
            while let Some(first) = held_back.first_entry()
                && first.key().0 <= observed - plan.gap
            {
                let ((_, key), (count, time, ..)) = first.remove_entry();
                outputs.push(format!("{key} = {count} at {time}"));
            }
        }
        let number = |number: i64| number.to_be_bytes().to_vec();
        let content = counts
            .iter()
            .map(|(key, (count, _))| (key.as_bytes().to_vec(), number(*count)));
        self.stores.insert(super::COUNTS, content.collect());
        let buffer = held_back
            .iter()
            .map(|((place, key), (count, time, prior, sequence))| {
                let key = [&in_order(*place)[..], key.as_bytes()].concat();
                (key, held(*time, *count, *prior, sequence))
            });
        self.stores.insert("limited-buffer", buffer.collect());
        let index = held_back
            .keys()
            .map(|(place, key)| (key.as_bytes().to_vec(), number(*place)));
        self.stores.insert("limited-index", index.collect());
        self.outputs.insert(super::LIMITED, outputs);
    }
}

fn latest(members: &[&Seen]) -> Timestamp {
    members.iter().map(|it| it.timestamp).fold(0, i64::max)
}

/// A time whose bytes are in its order.
fn in_order(time: i64) -> [u8; 8] {
    (time ^ i64::MIN).to_be_bytes()
}

/// What a suppression's buffer has of a count (`docs/formats.md`).
fn held(timestamp: Timestamp, count: i64, prior: Option<i64>, sequence: &str) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend(timestamp.to_be_bytes());
    bytes.push(if prior.is_some() { 3 } else { 1 });
    let mut put = |field: &[u8]| {
        bytes.extend(length_of(field));
        bytes.extend_from_slice(field);
    };
    put(&count.to_be_bytes());
    if let Some(prior) = prior {
        put(&prior.to_be_bytes());
    }
    bytes.extend(1_u32.to_be_bytes());
    for field in ["sequence", sequence].map(str::as_bytes) {
        bytes.extend(length_of(field));
        bytes.extend_from_slice(field);
    }
    bytes
}
