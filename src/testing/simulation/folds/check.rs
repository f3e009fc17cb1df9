//! The outputs of the folds, against their oracle.

use super::oracle::{COUNT_STORE, Expected, Input, Numbers, counts};
use super::topology::*;
use crate::format::names;
use crate::testing::simulation::check::{
    Content, Sent, Stores, Wrong, committed, gathered, integer, records, same, sequence, text,
};
use crate::testing::simulation::process::{APPLICATION, Site};
use crate::topology::TaskId;

/// The input as it stands in the log.
pub(super) fn inputs(site: &Site, partition: i32) -> Result<Vec<Input>, Wrong> {
    let records = records(site, INPUT, partition)?;
    Ok(records
        .into_iter()
        .map(|record| Input {
            offset: record.offset,
            sequence: sequence(&record),
            key: text(record.key.as_deref()),
            value: record.value.and_then(|value| String::from_utf8(value).ok()),
        })
        .collect())
}

/// Checks every output against the oracle; returns what the stores must hold, by task and store.
///
/// # Errors
/// The first difference.
pub(in crate::testing::simulation) fn outputs(site: &Site) -> Result<Stores, Wrong> {
    let mut stores = Stores::new();
    let mut all = Vec::new();
    for partition in 0..site.plan.partitions {
        let expected = Expected::of(&inputs(site, partition)?);
        let ticks = partition_outputs(site, partition, &expected)?;
        let task = TaskId {
            sub_topology: 0,
            partition,
        };
        stores.insert((task, TICKS.to_owned()), bytes(&ticks));
        for (store, content) in &expected.stores {
            stores.insert((task, (*store).to_owned()), bytes(content));
        }
        all.push(expected);
    }
    dead_letters(site, &all)?;
    for (partition, content) in repartitioned(site, &all)? {
        let task = TaskId {
            sub_topology: 1,
            partition,
        };
        stores.insert((task, COUNT_STORE.to_owned()), bytes(&content));
    }
    Ok(stores)
}

fn partition_outputs(site: &Site, partition: i32, expected: &Expected) -> Result<Numbers, Wrong> {
    let echo: Vec<_> = committed(site, ECHO, partition)?
        .iter()
        .map(|it| {
            (
                sequence(it),
                text(it.key.as_deref()),
                text(it.value.as_deref()),
            )
        })
        .collect();
    same(&format!("{ECHO}-{partition}"), &echo, &expected.echo)?;
    let mut ticks = Numbers::new();
    for (topic, expected) in &expected.numbers {
        let mut found = Vec::new();
        for record in committed(site, topic, partition)? {
            let (key, number) = (
                text(record.key.as_deref()),
                integer(record.value.as_deref())?,
            );
            if tick_partition(&key).is_none() {
                found.push((key, number));
                continue;
            }
            let before = ticks.insert(key, number).unwrap_or(0);
            if number != before + 1 {
                return Err(format!(
                    "{topic}-{partition}: tick {number} follows tick {before}"
                ));
            }
        }
        same(&format!("{topic}-{partition}"), &found, expected)?;
    }
    Ok(ticks)
}

/// Each refused record is dead-lettered once, where that is the policy.
fn dead_letters(site: &Site, all: &[Expected]) -> Result<(), Wrong> {
    if !site.plan.dead_letters {
        return Ok(());
    }
    let mut found = Vec::new();
    for partition in 0..site.plan.partitions {
        for record in committed(site, DEAD_LETTERS, partition)? {
            let header = |name: &str| text(record.headers.last(name));
            found.push((
                header(names::dead_letter::PARTITION),
                header(names::dead_letter::OFFSET),
            ));
        }
    }
    let mut expected: Vec<_> = all
        .iter()
        .enumerate()
        .flat_map(|(partition, one)| {
            one.refused
                .iter()
                .map(move |offset| (partition.to_string(), offset.to_string()))
        })
        .collect();
    found.sort();
    expected.sort();
    same(DEAD_LETTERS, &found, &expected)
}

/// The repartition topic has each record once, those of one input partition in order; the counts
/// follow it in lock step.
fn repartitioned(site: &Site, all: &[Expected]) -> Result<Vec<(i32, Numbers)>, Wrong> {
    let topic = names::repartition_topic(APPLICATION, BY_BUCKET);
    let line = |key: &str, value: &str| format!("{key} = {value}");
    let origins: Vec<Vec<Sent>> = all
        .iter()
        .map(|one| {
            let sent = one.bucketed.iter();
            sent.map(|(id, key, value)| (id.clone(), line(key, value)))
                .collect()
        })
        .collect();
    let partitions = gathered(site, &topic, &origins, |record| {
        let (key, value) = (text(record.key.as_deref()), text(record.value.as_deref()));
        (sequence(record), line(&key, &value))
    })?;
    let mut stores = Vec::new();
    for (partition, records) in (0..).zip(partitions) {
        let keys = records.iter().map(|record| text(record.key.as_deref()));
        let (expected, content) = counts(keys);
        let mut found = Vec::new();
        for record in committed(site, COUNT, partition)? {
            found.push((
                text(record.key.as_deref()),
                integer(record.value.as_deref())?,
            ));
        }
        same(&format!("{COUNT}-{partition}"), &found, &expected)?;
        stores.push((partition, content));
    }
    Ok(stores)
}

fn bytes(numbers: &Numbers) -> Content {
    numbers
        .iter()
        .map(|(key, number)| (key.clone().into_bytes(), number.to_be_bytes().to_vec()))
        .collect()
}
