//! Joins with tables, and a table grouped anew.
//!
//! One task reads three topics, so the order is its own choice: it writes every record it takes up to
//! [`WITNESS`] as well. The oracle goes through that order.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::check::{
    Content, Seen, Sent, Stores, Wrong, committed, gathered, integer, same, sequence, text,
    witnessed,
};
use super::plan::Plan;
use super::process::{APPLICATION, Site};
use super::scenario::{Drawn, store, store_of};
use crate::clock::Timestamp;
use crate::format::names;
use crate::log::embedded::InspectedRecord;
use crate::prelude::*;
use crate::topology::Topology;

const ORDERS: &str = "orders";
const USERS: &str = "users";
const ITEMS: &str = "items";
const WITNESS: &str = "taken-up";
const NAMED: &str = "named";
const MAYBE_NAMED: &str = "maybe-named";
const INNER: &str = "inner";
const LEFT: &str = "left";
const OUTER: &str = "outer";
const SUMS: &str = "sums";
const BY_BUCKET: &str = "by-bucket";

/// The amount that a value begins with; the rest makes it unlike any other.
fn amount(value: &str) -> i64 {
    let digits = value.split(':').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

fn bucket(value: &str) -> String {
    format!("b{}", amount(value).rem_euclid(3))
}

/// Draws a record; those of the two tables may be deletes.
pub(super) fn draw(rng: &mut Rng, plan: &Plan, now: Timestamp, number: usize) -> Drawn {
    let topic = *super::plan::pick(rng, &[ORDERS, USERS, ITEMS]);
    let delete = topic != ORDERS && rng.u32(0..4) == 0;
    Drawn {
        topic,
        key: format!("k{}", rng.u64(0..plan.keys)),
        value: (!delete).then(|| format!("{}:{number}", rng.i64(0..=20)).into_bytes()),
        timestamp: now - rng.i64(0..=plan.windows.disorder),
    }
}

/// Draws the topology.
///
/// # Errors
/// A mistake of this function.
pub(super) fn build(plan: &Plan) -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let text = || Produced::with(serdes::string(), serdes::string());
    let maybe = || Produced::with(serdes::string(), serdes::optional(serdes::string()));
    let texts = |name| store_of(name, plan.ageing, serdes::string(), serdes::string());
    let orders = builder.stream(ORDERS, Consumed::with(serdes::string(), serdes::string()));
    orders.to(WITNESS, text());
    let users = builder.stream(
        USERS,
        Consumed::with(serdes::string(), serdes::optional(serdes::string())),
    );
    users.to(WITNESS, maybe());
    let users = users.to_table::<String>(texts(USERS));
    // One table with a changelog of its own, and one whose topic is the changelog.
    let items = builder.table(
        ITEMS,
        Consumed::with(serdes::string(), serdes::string()),
        Materialized::as_store(ITEMS, serdes::string(), serdes::string())
            .source_topic_as_changelog(),
    );
    items.to_stream().to(WITNESS, maybe());
    let joined = || Joined::as_name("orders-of-users");
    orders
        .join_table(&users, |_, order, user| format!("{order}|{user}"), joined())
        .to(NAMED, text());
    orders
        .left_join_table(
            &users,
            |_, order, user| format!("{order}|{}", user.as_deref().unwrap_or("-")),
            joined(),
        )
        .to(MAYBE_NAMED, text());
    users
        .join(&items, |_, user, item| format!("{user}|{item}"))
        .to_stream()
        .to(INNER, maybe());
    users
        .left_join(&items, |_, user, item| {
            format!("{user}|{}", item.as_deref().unwrap_or("-"))
        })
        .to_stream()
        .to(LEFT, maybe());
    users
        .outer_join(&items, |_, user, item| {
            let side = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            format!("{}|{}", side(user), side(item))
        })
        .to_stream()
        .to(OUTER, maybe());
    users
        .group_by(
            |_, user| (bucket(&user), amount(&user)),
            Grouped::with(BY_BUCKET, serdes::string(), serdes::i64()),
        )
        .aggregate(
            || 0,
            |_, amount, sum| sum + amount,
            |_, amount, sum| sum - amount,
            store(SUMS, plan.ageing),
        )
        .to_stream()
        .to(
            SUMS,
            Produced::with(serdes::string(), serdes::optional(serdes::i64())),
        );
    builder.build()
}

/// Latest values with their timestamps.
type Table = BTreeMap<String, (String, Timestamp)>;

/// What one partition must hold.
#[derive(Debug, Default)]
struct Expected {
    outputs: BTreeMap<&'static str, Vec<String>>,
    users: Table,
    items: Table,
    /// What goes to the repartition topic.
    grouped: Vec<Sent>,
}

fn line(key: &str, value: Option<&str>, timestamp: Timestamp) -> String {
    format!("{key} = {} at {timestamp}", value.unwrap_or("(null)"))
}

/// One line of the repartition topic: the group, and both sides of the change.
fn change(record: (&str, Timestamp), group: &str, new: Option<i64>, old: Option<i64>) -> Sent {
    let (sequence, timestamp) = record;
    let id = format!("{sequence}/{}{}", new.is_some(), old.is_some());
    (id, format!("{group}: {old:?} -> {new:?} at {timestamp}"))
}

impl Expected {
    fn of(seen: &[Seen]) -> Self {
        let mut expected = Self::default();
        for topic in [NAMED, MAYBE_NAMED, INNER, LEFT, OUTER] {
            expected.outputs.insert(topic, Vec::new());
        }
        for record in seen {
            match record.topic {
                ORDERS => expected.order(record),
                USERS => expected.user(record),
                _ => expected.item(record),
            }
        }
        expected
    }

    fn output(&mut self, topic: &'static str, line: String) {
        self.outputs.entry(topic).or_default().push(line);
    }

    fn order(&mut self, record: &Seen) {
        let order = record.value.as_deref().unwrap_or_default();
        let user = self.users.get(&record.key).map(|(user, _)| user.clone());
        let joined = |user: &str| {
            line(
                &record.key,
                Some(&format!("{order}|{user}")),
                record.timestamp,
            )
        };
        if let Some(user) = &user {
            self.output(NAMED, joined(user));
        }
        self.output(MAYBE_NAMED, joined(user.as_deref().unwrap_or("-")));
    }

    fn user(&mut self, record: &Seen) {
        let old = put(&mut self.users, record);
        self.group(record, old.as_deref());
        let item = self.items.get(&record.key).cloned();
        let unknown = record.value.is_none() && old.is_none();
        let timestamp = item
            .as_ref()
            .map_or(record.timestamp, |(_, at)| record.timestamp.max(*at));
        let item = item.as_ref().map(|(item, _)| item.as_str());
        let with = |other: &str| record.value.as_ref().map(|user| format!("{user}|{other}"));
        if let Some(item) = item {
            self.output(INNER, line(&record.key, with(item).as_deref(), timestamp));
        }
        if item.is_some() || !unknown {
            let left = with(item.unwrap_or("-"));
            self.output(LEFT, line(&record.key, left.as_deref(), timestamp));
            let outer = both(record.value.as_deref(), item);
            self.output(OUTER, line(&record.key, outer.as_deref(), timestamp));
        }
    }

    fn item(&mut self, record: &Seen) {
        let old = put(&mut self.items, record);
        let user = self.users.get(&record.key).cloned();
        let unknown = record.value.is_none() && old.is_none();
        let timestamp = user
            .as_ref()
            .map_or(record.timestamp, |(_, at)| record.timestamp.max(*at));
        let item = record.value.as_deref();
        let user = user.as_ref().map(|(user, _)| user.as_str());
        if let Some(user) = user {
            let inner = item.map(|item| format!("{user}|{item}"));
            self.output(INNER, line(&record.key, inner.as_deref(), timestamp));
            let left = format!("{user}|{}", item.unwrap_or("-"));
            self.output(LEFT, line(&record.key, Some(&left), timestamp));
        }
        if user.is_some() || !unknown {
            let outer = both(user, item);
            self.output(OUTER, line(&record.key, outer.as_deref(), timestamp));
        }
    }

    /// The old side goes first, unless both meet in one group.
    fn group(&mut self, record: &Seen, old: Option<&str>) {
        let new = record.value.as_deref();
        let from = (record.sequence.as_str(), record.timestamp);
        match (old, new) {
            (Some(old), Some(new)) if bucket(old) == bucket(new) => {
                let both = change(from, &bucket(new), Some(amount(new)), Some(amount(old)));
                self.grouped.push(both);
            }
            (old, new) => {
                let old = old.map(|old| change(from, &bucket(old), None, Some(amount(old))));
                let new = new.map(|new| change(from, &bucket(new), Some(amount(new)), None));
                self.grouped.extend(old.into_iter().chain(new));
            }
        }
    }
}

fn both(user: Option<&str>, item: Option<&str>) -> Option<String> {
    let any = user.or(item).is_some();
    any.then(|| format!("{}|{}", user.unwrap_or("-"), item.unwrap_or("-")))
}

/// Returns the value before.
fn put(table: &mut Table, record: &Seen) -> Option<String> {
    let before = match &record.value {
        Some(value) => table.insert(record.key.clone(), (value.clone(), record.timestamp)),
        None => table.remove(&record.key),
    };
    before.map(|(value, _)| value)
}

/// Checks every output; returns what the stores must hold.
///
/// # Errors
/// The first difference.
pub(super) fn check(site: &Site) -> Result<Stores, Wrong> {
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
    let mut grouped = Vec::new();
    let mut sums = BTreeMap::<String, i64>::new();
    for (partition, seen) in (0..).zip(witnessed(
        site,
        WITNESS,
        &[ORDERS, USERS, ITEMS],
        |_| true,
        read,
    )?) {
        let expected = Expected::of(&seen);
        for (topic, expected) in &expected.outputs {
            let records = committed(site, topic, partition)?;
            let found: Vec<String> = records.iter().map(read).collect();
            same(&format!("{topic}-{partition}"), &found, expected)?;
        }
        for (user, _) in expected.users.values() {
            *sums.entry(bucket(user)).or_default() += amount(user);
        }
        let bytes = |table: Table| -> Content {
            let entries = table.into_iter();
            entries
                .map(|(key, (value, _))| (key.into_bytes(), value.into_bytes()))
                .collect()
        };
        task(USERS, partition, bytes(expected.users))?;
        task(ITEMS, partition, bytes(expected.items))?;
        grouped.push(expected.grouped);
    }
    for (partition, content) in (0..).zip(regrouped(site, &grouped)?) {
        for (group, sum) in &content {
            // What remains to be found is in the other partitions.
            let expected = sums.remove(group).unwrap_or(0);
            if *sum != expected {
                return Err(format!("the sum of {group} is {sum}, expected {expected}"));
            }
        }
        let content = content.into_iter();
        let content = content.map(|(group, sum)| (group.into_bytes(), sum.to_be_bytes().to_vec()));
        task(SUMS, partition, content.collect())?;
    }
    if !sums.is_empty() {
        return Err(format!("nobody has summed up {sums:?}"));
    }
    Ok(stores)
}

fn read(record: &InspectedRecord) -> String {
    let value = record.value.as_deref().map(|value| text(Some(value)));
    line(
        &text(record.key.as_deref()),
        value.as_deref(),
        record.timestamp,
    )
}

/// Checks the repartition topic and the sums that follow it; returns them by partition.
fn regrouped(site: &Site, sent: &[Vec<Sent>]) -> Result<Vec<BTreeMap<String, i64>>, Wrong> {
    let topic = names::repartition_topic(APPLICATION, BY_BUCKET);
    let partitions = gathered(site, &topic, sent, |record| {
        let (new, old) = sides(record.value.as_deref().unwrap_or_default());
        let from = sequence(record);
        let from = (from.as_str(), record.timestamp);
        change(from, &text(record.key.as_deref()), new, old)
    })?;
    let mut all = Vec::new();
    for (partition, records) in (0..).zip(partitions) {
        let mut sums = BTreeMap::<String, (i64, Timestamp)>::new();
        let mut expected = Vec::new();
        for record in &records {
            let group = text(record.key.as_deref());
            let (new, old) = sides(record.value.as_deref().unwrap_or_default());
            let (sum, at) = sums.entry(group.clone()).or_insert((0, record.timestamp));
            *sum += new.unwrap_or(0) - old.unwrap_or(0);
            *at = record.timestamp.max(*at);
            expected.push(format!("{group} = {sum} at {at}"));
        }
        let mut found = Vec::new();
        for record in committed(site, SUMS, partition)? {
            let (key, sum) = (
                text(record.key.as_deref()),
                integer(record.value.as_deref())?,
            );
            found.push(format!("{key} = {sum} at {}", record.timestamp));
        }
        same(&format!("{SUMS}-{partition}"), &found, &expected)?;
        let sums = sums.into_iter().map(|(group, (sum, _))| (group, sum));
        all.push(sums.collect());
    }
    Ok(all)
}

/// New and old side of a change: `new ‖ 1`, `old ‖ 0`, or `16 (zig-zag 8) ‖ new ‖ old ‖ 2`.
fn sides(bytes: &[u8]) -> (Option<i64>, Option<i64>) {
    let number = |bytes: &[u8]| integer(Some(bytes)).ok();
    match bytes {
        [new @ .., 1] => (number(new), None),
        [old @ .., 0] => (None, number(old)),
        [16, both @ .., 2] if both.len() == 16 => (number(&both[..8]), number(&both[8..])),
        _ => (None, None),
    }
}
