//! The outputs and stores of a versioned table and its joins, against their oracle.

use std::collections::BTreeMap;

use super::oracle::{Expected, Seen, line};
use super::{LABELS, ORDERS, POISON, RATES, WITNESS};
use crate::log::embedded::InspectedRecord;
use crate::testing::simulation::check::{
    Stores, Wrong, committed, gathered, records, same, sequence, text,
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
        let expected = Expected::of(&site.plan.windows, &seen);
        for (topic, expected) in &expected.outputs {
            let found: Vec<String> = committed(site, topic, partition)?
                .iter()
                .map(read)
                .collect();
            same(&format!("{topic}-{partition}"), &found, expected)?;
        }
        for (store, content) in expected.stores {
            let task = TaskId {
                sub_topology: site.sub_topology_of(&store)?,
                partition,
            };
            stores.insert((task, store), content);
        }
    }
    Ok(stores)
}

/// What each task has taken up, in its order.
fn taken_up(site: &Site) -> Result<Vec<Vec<Seen>>, Wrong> {
    let mut origins = Vec::new();
    let mut topics = BTreeMap::new();
    for topic in [ORDERS, RATES, LABELS] {
        for partition in 0..site.plan.partitions {
            let mut records = records(site, topic, partition)?;
            records.retain(|record| !text(record.value.as_deref()).starts_with(POISON));
            topics.extend(records.iter().map(|record| (sequence(record), topic)));
            let sent = records
                .iter()
                .map(|record| (sequence(record), read(record)));
            origins.push(sent.collect());
        }
    }
    let partitions = gathered(site, WITNESS, &origins, |record| {
        (sequence(record), read(record))
    })?;
    let seen = |record: &InspectedRecord| Seen {
        topic: topics[&sequence(record)],
        sequence: sequence(record),
        key: text(record.key.as_deref()),
        value: record.value.as_deref().map(|value| text(Some(value))),
        timestamp: record.timestamp,
    };
    let partitions = partitions.iter();
    Ok(partitions
        .map(|records| records.iter().map(seen).collect())
        .collect())
}

fn read(record: &InspectedRecord) -> String {
    let value = record.value.as_deref().map(|value| text(Some(value)));
    line(
        &text(record.key.as_deref()),
        value.as_deref(),
        record.timestamp,
        &sequence(record),
    )
}
