//! The outputs and stores of stream-stream joins, against their oracle.

use std::collections::BTreeMap;

use super::oracle::{Bounds, Expected, Seen, bucket, line};
use super::{INNER, LEFT, LEFTS, OUTER, POISON, RIGHT, WITNESS, windows_of};
use crate::log::embedded::InspectedRecord;
use crate::testing::simulation::check::{
    Sent, Stores, Wrong, committed, gathered, records, same, sequence, text,
};
use crate::testing::simulation::process::Site;
use crate::topology::TaskId;

/// Checks every output; returns what the stores must hold.
///
/// # Errors
/// The first difference.
pub(in crate::testing::simulation) fn check(site: &Site) -> Result<Stores, Wrong> {
    let mut stores = Stores::new();
    for (partition, seen) in (0..).zip(taken_up(site)?) {
        for join in [INNER, LEFTS, OUTER] {
            let windows = windows_of(join, &site.plan.windows);
            let bounds = Bounds {
                before: windows.before_ms(),
                after: windows.after_ms(),
                grace: windows.grace_ms(),
            };
            let expected = Expected::of(join, bounds, &seen)?;
            let found: Vec<String> = committed(site, join, partition)?.iter().map(read).collect();
            same(&format!("{join}-{partition}"), &found, &expected.outputs)?;
            for (store, content) in expected.stores {
                let task = TaskId {
                    sub_topology: site.sub_topology_of(&store)?,
                    partition,
                };
                stores.insert((task, store), content);
            }
        }
    }
    Ok(stores)
}

/// What each task has taken up, in its order: the good records of both streams, the left one's by
/// their new keys.
fn taken_up(site: &Site) -> Result<Vec<Vec<Seen>>, Wrong> {
    let mut origins: Vec<Vec<Sent>> = Vec::new();
    let mut sides = BTreeMap::new();
    for topic in [LEFT, RIGHT] {
        for partition in 0..site.plan.partitions {
            let mut records = records(site, topic, partition)?;
            records.retain(is_good);
            let describe = |record: &InspectedRecord| {
                let value = text(record.value.as_deref());
                let key = if site.plan.windows.regrouped && topic == LEFT {
                    bucket(&value)
                } else {
                    text(record.key.as_deref())
                };
                (sequence(record), described(&key, &value, record))
            };
            origins.push(records.iter().map(describe).collect());
            sides.extend(
                records
                    .iter()
                    .map(|record| (sequence(record), topic == LEFT)),
            );
        }
    }
    let partitions = gathered(site, WITNESS, &origins, |record| {
        let (key, value) = (text(record.key.as_deref()), text(record.value.as_deref()));
        (sequence(record), described(&key, &value, record))
    })?;
    let seen = |record: &InspectedRecord| Seen {
        left: sides[&sequence(record)],
        sequence: sequence(record),
        key: text(record.key.as_deref()),
        value: text(record.value.as_deref()),
        timestamp: record.timestamp,
    };
    let partitions = partitions.iter();
    Ok(partitions
        .map(|records| records.iter().map(seen).collect())
        .collect())
}

fn is_good(record: &InspectedRecord) -> bool {
    let value = std::str::from_utf8(record.value.as_deref().unwrap_or_default());
    value.is_ok_and(|value| !value.starts_with(POISON))
}

fn described(key: &str, value: &str, record: &InspectedRecord) -> String {
    format!("{key} = {value} at {}", record.timestamp)
}

fn read(record: &InspectedRecord) -> String {
    line(
        &text(record.key.as_deref()),
        &text(record.value.as_deref()),
        record.timestamp,
        &sequence(record),
    )
}
