//! What joins of two streams must come to, by brute force over the records that a task has taken up,
//! in their order: every pair is found by looking at all records of the other side. Written from the
//! rules of `docs/formats.md` and Kafka Streams' documentation; it shares nothing with the operators.

use std::collections::BTreeMap;

use super::{INNER, LEFTS, OUTER};
use crate::clock::Timestamp;
use crate::testing::simulation::check::{Content, Wrong, length_of};

/// The key of a left record behind the repartition topic.
pub(super) fn bucket(value: &str) -> String {
    let digits = value.trim_start_matches(|it: char| !it.is_ascii_digit());
    format!("b{}", digits.parse::<i64>().unwrap_or(0).rem_euclid(5))
}

/// The value of a result.
pub(super) fn pair(left: Option<&str>, right: Option<&str>) -> String {
    format!("{}+{}", left.unwrap_or("-"), right.unwrap_or("-"))
}

/// A record that the task has taken up.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) left: bool,
    pub(super) sequence: String,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) timestamp: Timestamp,
}

/// How far apart records may be, in milliseconds, as the left one sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) before: i64,
    pub(super) after: i64,
    pub(super) grace: i64,
}

impl Bounds {
    /// How far back and how far ahead a record of this side looks.
    const fn of(self, left: bool) -> (i64, i64) {
        if left {
            (self.before, self.after)
        } else {
            (self.after, self.before)
        }
    }

    /// Whether nothing within the grace period can meet a record of this side and time any more.
    const fn has_closed(self, left: bool, time: Timestamp, stream_time: Timestamp) -> bool {
        time + self.of(left).1 + self.grace < stream_time
    }

    const fn retention(self) -> i64 {
        let whole = self.before + self.after + self.grace;
        if whole < 1 { 1 } else { whole }
    }
}

/// A line of an output. `by` is the record that was in progress.
pub(super) fn line(key: &str, value: &str, timestamp: Timestamp, by: &str) -> String {
    format!("{key} = {value} at {timestamp} by {by}")
}

/// What one partition must hold of one join.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) outputs: Vec<String>,
    /// By store.
    pub(super) stores: BTreeMap<String, Content>,
}

/// One side's records that were kept, in the order they came, the dropped ones left out.
#[derive(Debug, Default)]
struct Kept<'a> {
    records: Vec<&'a Seen>,
    latest: Option<Timestamp>,
}

impl<'a> Kept<'a> {
    /// Whether a record of this time is past the retention.
    fn is_gone(&self, time: Timestamp, bounds: Bounds) -> bool {
        self.latest
            .is_some_and(|latest| time <= latest - bounds.retention())
    }

    fn keep(&mut self, record: &'a Seen, bounds: Bounds) {
        self.latest = self.latest.max(Some(record.timestamp));
        if !self.is_gone(record.timestamp, bounds) {
            self.records.push(record);
        }
    }

    /// The partners of a record of the other side, by time, then as they came.
    fn partners(&self, of: &Seen, bounds: Bounds) -> Vec<&'a Seen> {
        let (back, ahead) = bounds.of(of.left);
        let times = (of.timestamp - back)..=(of.timestamp + ahead);
        let all = self.records.iter().copied().filter(|one| {
            one.key == of.key
                && times.contains(&one.timestamp)
                && !self.is_gone(one.timestamp, bounds)
        });
        let mut all: Vec<&Seen> = all.collect();
        all.sort_by_key(|one| one.timestamp);
        all
    }

    /// `key ‖ int64 time ‖ int32 number`, counted from 1.
    fn content(&self) -> Content {
        let mut content = Content::new();
        for (number, record) in (1_i32..).zip(&self.records) {
            let mut key = record.key.clone().into_bytes();
            key.extend(record.timestamp.to_be_bytes());
            key.extend(number.to_be_bytes());
            content.insert(key, record.value.clone().into_bytes());
        }
        content
    }
}

/// Records of one place without a partner: time, side (right before left), key.
type Waiting<'a> = BTreeMap<(Timestamp, bool, &'a str), Vec<&'a Seen>>;

/// When the next search for closed windows is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    Unknown,
    Nothing,
    From(Timestamp),
}

/// A join under way.
struct Run<'a> {
    /// Whether left and right records without a partner have results.
    outer: (bool, bool),
    bounds: Bounds,
    left: Kept<'a>,
    right: Kept<'a>,
    waiting: Waiting<'a>,
    search: Search,
    stream_time: Timestamp,
    outputs: Vec<String>,
    /// Pairs and results without a partner, by the sequences of their records.
    pairs: Vec<(&'a Seen, &'a Seen)>,
    alone: Vec<&'a Seen>,
}

impl<'a> Run<'a> {
    fn record(&mut self, record: &'a Seen) {
        self.stream_time = self.stream_time.max(record.timestamp);
        let outer = if record.left {
            self.outer.0
        } else {
            self.outer.1
        };
        if record.timestamp == self.stream_time {
            self.send_closed(record);
        }
        let other = if record.left { &self.right } else { &self.left };
        let partners = other.partners(record, self.bounds);
        for partner in &partners {
            let place = (partner.timestamp, partner.left, partner.key.as_str());
            self.waiting.remove(&place);
            let (left, right) = if record.left {
                (record, *partner)
            } else {
                (*partner, record)
            };
            self.pairs.push((left, right));
            let value = pair(Some(&left.value), Some(&right.value));
            let timestamp = left.timestamp.max(right.timestamp);
            let line = line(&record.key, &value, timestamp, &record.sequence);
            self.outputs.push(line);
        }
        if outer && partners.is_empty() {
            let (time, stream_time) = (record.timestamp, self.stream_time);
            if self.bounds.has_closed(record.left, time, stream_time) {
                self.send_alone(record, record);
            } else {
                if let Search::Nothing = self.search {
                    self.search = Search::From(time);
                } else if let Search::From(from) = self.search {
                    self.search = Search::From(from.min(time));
                }
                let place = (time, record.left, record.key.as_str());
                self.waiting.entry(place).or_default().push(record);
            }
        }
        let own = if record.left {
            &mut self.left
        } else {
            &mut self.right
        };
        own.keep(record, self.bounds);
    }

    fn send_alone(&mut self, record: &'a Seen, by: &Seen) {
        self.alone.push(record);
        let value = if record.left {
            pair(Some(&record.value), None)
        } else {
            pair(None, Some(&record.value))
        };
        let line = line(&record.key, &value, record.timestamp, &by.sequence);
        self.outputs.push(line);
    }

    /// As Kafka Streams batches them: a search ends behind the first record after both sides have met
    /// one whose window is open, and the next one is due when the record it ended at can have closed.
    fn send_closed(&mut self, by: &'a Seen) {
        let due = match self.search {
            Search::Unknown => true,
            Search::Nothing => false,
            Search::From(from) => self.bounds.has_closed(by.left, from, self.stream_time),
        };
        if !due {
            return;
        }
        let (mut open, mut closed) = ((false, false), Vec::new());
        self.search = Search::Nothing;
        for (time, left, key) in self.waiting.keys().copied() {
            self.search = Search::From(time);
            if open == (true, true) {
                break;
            }
            if self.bounds.has_closed(left, time, self.stream_time) {
                closed.push((time, left, key));
            } else if left {
                open.0 = true;
            } else {
                open.1 = true;
            }
        }
        for place in closed {
            for record in self.waiting.remove(&place).unwrap_or_default() {
                self.send_alone(record, by);
            }
        }
    }

    /// What holds however results are batched.
    fn check(&self, seen: &'a [Seen]) -> Result<(), Wrong> {
        let mut ends = BTreeMap::<&str, (usize, usize, usize)>::new();
        for (left, right) in &self.pairs {
            ends.entry(&left.sequence).or_default().0 += 1;
            ends.entry(&right.sequence).or_default().0 += 1;
        }
        for record in &self.alone {
            ends.entry(&record.sequence).or_default().1 += 1;
        }
        for record in self.waiting.values().flatten() {
            ends.entry(&record.sequence).or_default().2 += 1;
        }
        for record in seen {
            let outer = if record.left {
                self.outer.0
            } else {
                self.outer.1
            };
            let end = ends.get(record.sequence.as_str()).copied();
            let (pairs, alone, waiting) = end.unwrap_or_default();
            let fair = match (outer, pairs) {
                (false, _) => alone + waiting == 0,
                (true, 0) => alone + waiting == 1,
                // A partner that came when the grace period was over makes the result a wrong one.
                (true, _) => waiting == 0 && alone <= 1,
            };
            if !fair {
                return Err(format!(
                    "the oracle has {record:?} {pairs} times in pairs, {alone} times alone, \
                     {waiting} times waiting"
                ));
            }
        }
        Ok(())
    }
}

impl Expected {
    /// # Errors
    /// When the oracle contradicts itself.
    pub(super) fn of(join: &str, bounds: Bounds, seen: &[Seen]) -> Result<Self, Wrong> {
        let mut run = Run {
            outer: (join != INNER, join == OUTER),
            bounds,
            left: Kept::default(),
            right: Kept::default(),
            waiting: Waiting::new(),
            search: Search::Unknown,
            stream_time: i64::MIN,
            outputs: Vec::new(),
            pairs: Vec::new(),
            alone: Vec::new(),
        };
        for record in seen {
            run.record(record);
        }
        run.check(seen)?;
        let [left, right] = stores_of(join);
        let mut stores = BTreeMap::new();
        stores.insert(left, run.left.content());
        stores.insert(right, run.right.content());
        if let Some(name) = waiting_store_of(join) {
            stores.insert(name, content_of(&run.waiting));
        }
        Ok(Self {
            outputs: run.outputs,
            stores,
        })
    }
}

/// The names of both sides' stores, as Kafka Streams has them.
pub(super) fn stores_of(join: &str) -> [String; 2] {
    let (left, right) = match join {
        OUTER => ("outer-this", "outer-other"),
        LEFTS => ("this", "outer-other"),
        _ => ("this", "other"),
    };
    [left, right].map(|side| format!("{join}-{side}-join-store"))
}

fn waiting_store_of(join: &str) -> Option<String> {
    match join {
        OUTER => Some(format!("{join}-outer-shared-join-store")),
        LEFTS => Some(format!("{join}-left-shared-join-store")),
        _ => None,
    }
}

/// `int64 time ‖ byte side ‖ key`, and `byte 1 ‖ int32 n ‖ n × (int32 length ‖ byte side ‖ value)`.
fn content_of(waiting: &Waiting<'_>) -> Content {
    let mut content = Content::new();
    for ((time, left, key), records) in waiting {
        let mut bytes = time.to_be_bytes().to_vec();
        bytes.push(u8::from(*left));
        bytes.extend(key.as_bytes());
        let mut value = vec![1];
        value.extend(
            u32::try_from(records.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        for record in records {
            let mut entry = vec![u8::from(*left)];
            entry.extend(record.value.as_bytes());
            value.extend(length_of(&entry));
            value.extend(entry);
        }
        content.insert(bytes, value);
    }
    content
}
