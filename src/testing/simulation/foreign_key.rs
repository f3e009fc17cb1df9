//! A foreign-key join, over its two topics and back.
//!
//! # What is determined
//! - Which subscriptions leave a left task, and in which order: they follow from its input.
//! - What the store of subscriptions holds: it follows from the subscriptions' topic.
//! - The join at rest: that of both tables' latest values.
//!
//! On the way there the answers of several right tasks race. Still every result joins a value that its
//! left key has had with a value that its foreign key has had; per key the left values come in order,
//! under one left value the right values do, and no pair comes twice.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::check::{
    Content, Sent, Stores, Wrong, committed, gathered, length_of, records, sequence, text,
};
use super::plan::Plan;
use super::process::{APPLICATION, Site};
use super::scenario::{Drawn, store_of};
use crate::clock::Timestamp;
use crate::format::names;
use crate::log::embedded::InspectedRecord;
use crate::prelude::*;
use crate::topology::Topology;

const LEFT: &str = "left";
const RIGHT: &str = "right";
const JOINED: &str = "joined";
const JOIN: &str = "of-key";
const SUBSCRIPTIONS: &str = "of-key-subscriptions";

/// The foreign key of a left value `<foreign key>:<number>`; `-` is none.
fn foreign_key(value: &str) -> Option<String> {
    let (key, _) = value.split_once(':')?;
    (key != "-").then(|| key.to_owned())
}

/// Draws a record: a fifth are deletes, a few left values have no foreign key.
pub(super) fn draw(rng: &mut Rng, plan: &Plan, now: Timestamp, number: usize) -> Drawn {
    let delete = rng.u32(0..5) == 0;
    let timestamp = now - rng.i64(0..=plan.windows.disorder);
    if rng.u32(0..5) < 3 {
        let foreign_key = match rng.u32(0..8) {
            0 => "-".to_owned(),
            other => format!("f{}", other % 5),
        };
        Drawn {
            topic: LEFT,
            key: format!("k{}", rng.u64(0..plan.keys)),
            value: (!delete).then(|| format!("{foreign_key}:{number}").into_bytes()),
            timestamp,
        }
    } else {
        Drawn {
            topic: RIGHT,
            key: format!("f{}", rng.u32(0..5)),
            value: (!delete).then(|| format!("r{number}").into_bytes()),
            timestamp,
        }
    }
}

/// Draws the topology.
///
/// # Errors
/// A mistake of this function.
pub(super) fn build(plan: &Plan) -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let texts = |name| store_of(name, plan.ageing, serdes::string(), serdes::string());
    let table = |name| {
        builder.table(
            name,
            Consumed::with(serdes::string(), serdes::string()),
            texts(name),
        )
    };
    let (left, right) = (table(LEFT), table(RIGHT));
    let extractor = |_: &String, value: &String| foreign_key(value);
    let joined = TableJoined::as_name(JOIN);
    let joined = if plan.windows.left {
        left.left_join_foreign_key(
            &right,
            extractor,
            |_, left, right| format!("{left}|{}", right.as_deref().unwrap_or("-")),
            joined,
            texts(JOINED),
        )
    } else {
        left.join_foreign_key(
            &right,
            extractor,
            |_, left, right| format!("{left}|{right}"),
            joined,
            texts(JOINED),
        )
    };
    joined.to_stream().to(
        JOINED,
        Produced::with(serdes::string(), serdes::optional(serdes::string())),
    );
    builder.build()
}

/// All values that each key of a table has had, in order; `None` is a delete.
type History = BTreeMap<String, Vec<Option<String>>>;

fn latest(history: &History) -> impl Iterator<Item = (&String, &String)> {
    let all = history.iter();
    all.filter_map(|(key, values)| Some((key, values.last()?.as_ref()?)))
}

struct Tables {
    left: History,
    right: History,
    /// What leaves each left task.
    subscriptions: Vec<Vec<Sent>>,
    /// The latest values by partition.
    stores: BTreeMap<(&'static str, i32), Content>,
}

/// A line of the subscriptions' topic. Instructions: 0 ends silently, 1 ends with an answer, 2 asks for
/// an answer, 3 asks for one if there is a right value.
fn subscription(
    (sequence, timestamp): (&str, Timestamp),
    foreign_key: &str,
    (instruction, hashed, key): (u8, bool, &str),
) -> Sent {
    let id = format!("{sequence}/{foreign_key}");
    let line = format!("{foreign_key}: {instruction} for {key}, hash {hashed}, at {timestamp}");
    (id, line)
}

impl Tables {
    fn of(site: &Site) -> Result<Self, Wrong> {
        let mut tables = Self {
            left: History::new(),
            right: History::new(),
            subscriptions: Vec::new(),
            stores: BTreeMap::new(),
        };
        for partition in 0..site.plan.partitions {
            for topic in [LEFT, RIGHT] {
                let mut store = Content::new();
                let mut sent = Vec::new();
                for record in records(site, topic, partition)? {
                    let key = text(record.key.as_deref());
                    let value = record.value.as_deref().map(|value| text(Some(value)));
                    let before = match &value {
                        Some(value) => {
                            store.insert(key.clone().into_bytes(), value.clone().into_bytes())
                        }
                        None => store.remove(key.as_bytes()),
                    };
                    let history = if topic == LEFT {
                        let before = before.map(|value| text(Some(&value)));
                        let left = site.plan.windows.left;
                        sent.extend(subscribed(left, &record, before, value.as_deref()));
                        &mut tables.left
                    } else {
                        &mut tables.right
                    };
                    history.entry(key).or_default().push(value);
                }
                if topic == LEFT {
                    tables.subscriptions.push(sent);
                }
                tables.stores.insert((topic, partition), store);
            }
        }
        Ok(tables)
    }

    /// The join at rest.
    fn joined(&self, left_join: bool) -> BTreeMap<String, String> {
        let right: BTreeMap<_, _> = latest(&self.right).collect();
        let results = latest(&self.left).filter_map(|(key, left)| {
            let found = foreign_key(left).and_then(|it| right.get(&it).copied());
            let found = found.map_or(left_join.then_some("-"), |value| Some(value.as_str()));
            Some((key.clone(), format!("{left}|{}", found?)))
        });
        results.collect()
    }
}

/// What a change of a left key sends.
fn subscribed(
    left_join: bool,
    record: &InspectedRecord,
    old: Option<String>,
    new: Option<&str>,
) -> Vec<Sent> {
    let (from, key) = (sequence(record), text(record.key.as_deref()));
    let line = |foreign_key: &str, instruction| {
        let parts = (instruction, new.is_some(), key.as_str());
        subscription((&from, record.timestamp), foreign_key, parts)
    };
    match (
        old.as_deref().and_then(foreign_key),
        new.and_then(foreign_key),
    ) {
        (Some(old), Some(new)) if old != new => vec![line(&old, 0), line(&new, 2)],
        (_, Some(new)) => vec![line(&new, if left_join { 2 } else { 3 })],
        (Some(old), None) => vec![line(&old, u8::from(!left_join))],
        (None, None) => Vec::new(),
    }
}

/// Checks every output; returns what the stores must hold.
///
/// # Errors
/// The first difference.
pub(super) fn check(site: &Site) -> Result<Stores, Wrong> {
    let tables = Tables::of(site)?;
    let joined = tables.joined(site.plan.windows.left);
    let mut stores = Stores::new();
    let mut task = |store: &str, partition, content| {
        let sub_topology = site.sub_topology_of(store)?;
        let task = TaskId {
            sub_topology,
            partition,
        };
        stores.insert((task, store.to_owned()), content);
        Ok::<(), Wrong>(())
    };
    let mut subscribers = BTreeSet::new();
    for (partition, content) in (0..).zip(subscriptions(site, &tables)?) {
        subscribers.extend(content.keys().cloned());
        task(SUBSCRIPTIONS, partition, content)?;
    }
    let expected = latest(&tables.left).filter_map(|(key, left)| {
        let foreign_key = foreign_key(left)?;
        Some(store_key(foreign_key.as_bytes(), key.as_bytes()))
    });
    let expected: BTreeSet<Vec<u8>> = expected.collect();
    if subscribers != expected {
        return Err(format!(
            "there are subscriptions {subscribers:?}, expected {expected:?}"
        ));
    }
    for partition in 0..site.plan.partitions {
        let last = results(site, &tables, partition)?;
        let here = |key: &&String| tables.stores[&(LEFT, partition)].contains_key(key.as_bytes());
        let expected: BTreeMap<String, String> = joined
            .iter()
            .filter(|(key, _)| here(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if last != expected {
            return Err(format!(
                "{JOINED}-{partition} ends at {last:?}, expected {expected:?}"
            ));
        }
        let content = expected.into_iter();
        let content = content.map(|(key, value)| (key.into_bytes(), value.into_bytes()));
        task(JOINED, partition, content.collect())?;
    }
    for ((store, partition), content) in tables.stores {
        task(store, partition, content)?;
    }
    Ok(stores)
}

/// Checks the subscriptions' topic; returns what it leads to by partition: `int32 length ‖ foreign
/// key ‖ key`, and the left value's hash with the partition that asks.
fn subscriptions(site: &Site, tables: &Tables) -> Result<Vec<Content>, Wrong> {
    let topic = names::repartition_topic(APPLICATION, &format!("{JOIN}-subscription"));
    let partitions = gathered(site, &topic, &tables.subscriptions, |record| {
        let (instruction, subscriber, key) = parts(record);
        let from = sequence(record);
        let from = (from.as_str(), record.timestamp);
        let key = text(Some(key));
        let foreign_key = text(record.key.as_deref());
        subscription(
            from,
            &foreign_key,
            (instruction, subscriber.first() == Some(&1), &key),
        )
    })?;
    let folded = partitions.iter().map(|records| {
        let mut content = Content::new();
        for record in records {
            let (instruction, subscriber, key) = parts(record);
            let key = store_key(record.key.as_deref().unwrap_or_default(), key);
            if instruction < 2 {
                content.remove(&key);
            } else {
                content.insert(key, subscriber.to_vec());
            }
        }
        content
    });
    Ok(folded.collect())
}

fn store_key(foreign_key: &[u8], key: &[u8]) -> Vec<u8> {
    let length = length_of(foreign_key);
    [&length[..], foreign_key, key].concat()
}

/// Instruction, subscriber and left key: `2 ‖ instruction ‖ (0, or 1 ‖ 16 bytes) ‖ 4 bytes ‖ key`.
fn parts(record: &InspectedRecord) -> (u8, &[u8], &[u8]) {
    let value = record.value.as_deref().unwrap_or_default();
    let [2, instruction, rest @ ..] = value else {
        return (u8::MAX, value, &[]);
    };
    let subscriber = if rest.first() == Some(&1) { 21 } else { 5 };
    let (subscriber, key) = rest.split_at_checked(subscriber).unwrap_or((rest, &[]));
    (*instruction, subscriber, key)
}

/// Checks the results of a partition one by one; returns the last of each key, where it is a value.
fn results(
    site: &Site,
    tables: &Tables,
    partition: i32,
) -> Result<BTreeMap<String, String>, Wrong> {
    let mut last = BTreeMap::new();
    let mut reached = BTreeMap::<String, (usize, Option<usize>)>::new();
    for record in committed(site, JOINED, partition)? {
        let key = text(record.key.as_deref());
        let Some(value) = record.value.as_deref().map(|value| text(Some(value))) else {
            last.remove(&key);
            continue;
        };
        let wrong = |what: &str| format!("{JOINED}-{partition}: {key} = {value} {what}");
        let (left, right) = value.split_once('|').ok_or_else(|| wrong("is no pair"))?;
        let position = |history: &History, key: &str, value: &str| {
            let history = history.get(key)?;
            history.iter().position(|it| it.as_deref() == Some(value))
        };
        let left_position = position(&tables.left, &key, left);
        let left_position =
            left_position.ok_or_else(|| wrong("has a left value of another key"))?;
        let right_position = match right {
            "-" => None,
            right => {
                let foreign_key = foreign_key(left).unwrap_or_default();
                let position = position(&tables.right, &foreign_key, right);
                Some(position.ok_or_else(|| wrong("has a right value of another key"))?)
            }
        };
        if let Some((before, right_before)) = reached.get(&key) {
            if left_position < *before {
                return Err(wrong("goes back to an older left value"));
            }
            let same_left = left_position == *before;
            if same_left && right_position.is_some() && right_position <= *right_before {
                return Err(wrong("comes twice, or goes back to an older right value"));
            }
        }
        // A right value that is gone leaves its place: what follows must be later still.
        let floor = reached
            .get(&key)
            .filter(|(before, _)| *before == left_position)
            .and_then(|(_, right)| *right);
        reached.insert(key.clone(), (left_position, right_position.or(floor)));
        last.insert(key, value);
    }
    Ok(last)
}
