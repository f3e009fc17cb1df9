//! A stream joined with a global table, and a count beside it.
//!
//! Which update of the table a record meets is nobody's promise: each process reads the table's topic by
//! itself. What is promised: a record meets a value that its key has had, and one that was written to
//! the topic before the process started, or has been read since. So a run ends with a probe: all
//! processes are killed, some lose their disks, and records that were waiting for them must all meet the
//! table as it is.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::check::{Content, Stores, Wrong, committed, records, same, sequence, text};
use super::mirror::Mirror;
use super::plan::{Plan, pick};
use super::process::Site;
use super::scenario::{Drawn, changelog_config, store};
use crate::clock::Timestamp;
use crate::log::embedded::InspectedRecord;
use crate::log::{TopicName, TopicPartition};
use crate::prelude::*;
use crate::topology::{TaskId, Topology};

const ORDERS: &str = "orders";
/// The global table, and its topic.
const USERS: &str = "users";
const MET: &str = "met";
const COUNT: &str = "orders-of";
/// What stands for a user that is not in the table.
const NOBODY: &str = "-";
/// The value of orders that must meet the table's last state.
const PROBE: &str = "probe";
/// What the value of an order begins with that the last operator refuses.
const POISON: &str = "poison";

/// Draws a record; those of the table may be deletes.
pub(super) fn draw(rng: &mut Rng, plan: &Plan, now: Timestamp, number: usize) -> Drawn {
    let topic = *pick(rng, &[ORDERS, ORDERS, USERS]);
    let value = if topic == USERS {
        (rng.u32(0..4) > 0).then(|| format!("u{number}"))
    } else if rng.u32(0..1000) < plan.poison_rate {
        Some(format!("{POISON}:{number}"))
    } else {
        Some(format!("o{number}"))
    };
    Drawn {
        topic,
        key: format!("k{}", rng.u64(0..plan.keys)),
        value: value.map(String::into_bytes),
        timestamp: now - rng.i64(0..=50),
    }
}

/// Returns an order of every key.
pub(super) fn probes(plan: &Plan, now: Timestamp) -> impl Iterator<Item = Drawn> + use<> {
    (0..plan.keys).map(move |key| Drawn {
        topic: ORDERS,
        key: format!("k{key}"),
        value: Some(PROBE.as_bytes().to_vec()),
        timestamp: now,
    })
}

/// Draws the topology.
///
/// # Errors
/// A mistake of this function.
pub(super) fn build(plan: &Plan) -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let texts = || Consumed::with(serdes::string(), serdes::string());
    if plan.ageing {
        let (retention, time) = changelog_config(true);
        let config = [("cleanup.policy", "compact"), (retention, &*time)];
        builder.declare_topic(USERS, config);
    }
    let users = builder.global_table(
        USERS,
        texts(),
        Materialized::as_store(USERS, serdes::string(), serdes::string()),
    );
    let orders = builder.stream(ORDERS, texts().on_error(ErrorPolicy::Skip));
    orders
        .left_join_global_table(
            &users,
            |key, _| Some(key.clone()),
            |_, order, user| format!("{order}|{}", user.unwrap_or_else(|| NOBODY.to_owned())),
        )
        .to(MET, Produced::with(serdes::string(), serdes::string()));
    let by_key = Grouped::with(COUNT, serdes::string(), serdes::string());
    drop(orders.group_by_key(by_key).count(store(COUNT, plan.ageing)));
    orders.try_for_each(|_, value| {
        if value.starts_with(POISON) {
            Err("poison".into())
        } else {
            Ok(())
        }
    });
    builder.build()
}

/// What the table was given, by key: all its values, and the last.
#[derive(Default)]
struct User {
    values: BTreeSet<String>,
    last: Option<String>,
}

/// Returns the partitions of the table's topic, which is compacted in runs that let state age.
pub(super) fn table_partitions(plan: &Plan) -> impl Iterator<Item = TopicPartition> + use<> {
    let partitions = 0..plan.partitions;
    partitions.map(|partition| TopicPartition::new(TopicName::from(USERS), partition))
}

fn users(site: &Site, mirror: &Mirror) -> BTreeMap<String, User> {
    let mut users = BTreeMap::<String, User>::new();
    for partition in table_partitions(&site.plan) {
        for record in mirror.committed(&partition, mirror.end(&partition)) {
            let user = users.entry(text(record.key.as_deref())).or_default();
            user.last = record.value.as_deref().map(|value| text(Some(value)));
            user.values.extend(user.last.clone());
        }
    }
    users
}

/// Returns the last state of the table: of every key that it was given.
pub(super) fn table(site: &Site, mirror: &Mirror) -> BTreeMap<String, Option<String>> {
    let users = users(site, mirror).into_iter();
    users.map(|(key, user)| (key, user.last)).collect()
}

/// Returns the table's store.
pub(super) const fn table_store() -> &'static str {
    USERS
}

/// Checks every output; returns what the stores must hold.
///
/// # Errors
/// The first difference.
pub(super) fn check(site: &Site, mirror: &Mirror) -> Result<Stores, Wrong> {
    let users = users(site, mirror);
    let mut stores = Stores::new();
    let sub_topology = site.sub_topology_of(COUNT)?;
    for partition in 0..site.plan.partitions {
        let mut orders = records(site, ORDERS, partition)?;
        orders.retain(|order| !text(order.value.as_deref()).starts_with(POISON));
        let met = committed(site, MET, partition)?;
        let expected: Vec<String> = orders
            .iter()
            .map(|order| line(order, &text(order.value.as_deref())))
            .collect();
        let mut found = Vec::new();
        for record in &met {
            let value = text(record.value.as_deref());
            let (order, user) = value
                .split_once('|')
                .ok_or_else(|| format!("{value} is no join"))?;
            found.push(line(record, order));
            meets(users.get(&text(record.key.as_deref())), order, user)
                .map_err(|wrong| format!("{MET}-{partition} {}: {wrong}", line(record, order)))?;
        }
        same(&format!("{MET}-{partition}"), &found, &expected)?;
        let task = TaskId {
            sub_topology,
            partition,
        };
        stores.insert((task, COUNT.to_owned()), counts(&orders));
    }
    Ok(stores)
}

/// Whether an order may meet this value of its user.
fn meets(known: Option<&User>, order: &str, user: &str) -> Result<(), Wrong> {
    let last = known.and_then(|known| known.last.as_deref());
    let expected = last.unwrap_or(NOBODY);
    if order == PROBE && user != expected {
        return Err(format!(
            "met {user}, but the table had {expected} when the process started"
        ));
    }
    let had = known.is_some_and(|known| known.values.contains(user));
    if had || user == NOBODY {
        return Ok(());
    }
    Err(format!("met {user}, which the table never had"))
}

fn line(record: &InspectedRecord, order: &str) -> String {
    let (key, time) = (text(record.key.as_deref()), record.timestamp);
    format!("{} {key}={order}@{time}", sequence(record))
}

fn counts(orders: &[InspectedRecord]) -> Content {
    let mut counts = BTreeMap::<Vec<u8>, i64>::new();
    for order in orders {
        *counts
            .entry(order.key.clone().unwrap_or_default())
            .or_default() += 1;
    }
    let counts = counts.into_iter();
    counts
        .map(|(key, count)| (key, count.to_be_bytes().to_vec()))
        .collect()
}
