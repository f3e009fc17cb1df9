//! Whether a side did the work: its output and changelog against what follows from the input.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use millstream::log::kafka::KafkaLog;

use crate::contenders::Contender;
use crate::launch::Sandbox;
use crate::options::Options;
use crate::topics;
use crate::workload::{Expected, OfKey, Workload};

/// What a side wrote.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct Written {
    pub(crate) output_records: u64,
    pub(crate) changelog_records: u64,
}

/// Compares output and changelog, read committed, with `expected`.
pub(crate) fn verify(
    log: &KafkaLog,
    options: &Options,
    workload: Workload,
    contender: &Contender,
    sandbox: &Sandbox,
    expected: &Expected,
) -> Result<Written> {
    let partitions = options.partitions(workload);
    let is_ordered = workload.is_ordered();
    let mut found: HashMap<Vec<u8>, OfKey> = HashMap::with_capacity(expected.len());
    let mut written = Written::default();
    topics::read(log, &sandbox.output, partitions, |key, value| {
        written.output_records += 1;
        let value = value_of(workload, value)?;
        match found.get_mut(key) {
            Some(of_key) => of_key.add(value, is_ordered),
            None => found
                .entry(key.to_vec())
                .or_default()
                .add(value, is_ordered),
        }
        Ok(())
    })?;
    ensure!(
        found.len() == expected.len(),
        "the output has {} keys, not {}",
        found.len(),
        expected.len()
    );
    let every_update = contender.emits_every_update() && !workload.only_ends_alike();
    for (key, right) in expected {
        let name = || String::from_utf8_lossy(key).into_owned();
        let has = found
            .get(key)
            .with_context(|| format!("the output lacks {}", name()))?;
        if every_update {
            ensure!(
                has == right,
                "{}: {} records that end at {}, not {} at {}",
                name(),
                has.records,
                String::from_utf8_lossy(&has.last),
                right.records,
                String::from_utf8_lossy(&right.last)
            );
        } else {
            ensure!(
                has.last == right.last && has.records <= right.records,
                "{}: not its last value, or too many records",
                name()
            );
        }
    }
    if let Some(store) = workload.store() {
        written.changelog_records =
            verify_changelog(log, workload, sandbox, store, partitions, expected)?;
    }
    Ok(written)
}

/// Nulls come out of a foreign-key join only: of a row that refers to one that is not there yet.
fn value_of(workload: Workload, value: Option<&[u8]>) -> Result<&[u8]> {
    if workload.only_ends_alike() {
        return Ok(value.unwrap_or_default());
    }
    value.context("a null, which no workload of this kind writes")
}

/// Compares where the changelog leaves each key.
fn verify_changelog(
    log: &KafkaLog,
    workload: Workload,
    sandbox: &Sandbox,
    store: &str,
    partitions: i32,
    expected: &Expected,
) -> Result<u64> {
    let topic = millstream::format::names::changelog_topic(&sandbox.application, store);
    // A window store's key ends with a sequence number that the output's does not have.
    let surplus = if workload == Workload::Windowed { 4 } else { 0 };
    let mut last: HashMap<Vec<u8>, Vec<u8>> = HashMap::with_capacity(expected.len());
    let mut records = 0;
    topics::read(log, &topic, partitions, |key, value| {
        records += 1;
        let length = key.len().checked_sub(surplus).context("a short key")?;
        let key = key.get(..length).unwrap_or_default();
        let value = value_of(workload, value)?;
        match last.get_mut(key) {
            Some(last) => {
                last.clear();
                last.extend_from_slice(value);
            }
            None => drop(last.insert(key.to_vec(), value.to_vec())),
        }
        Ok(())
    })?;
    ensure!(
        last.len() == expected.len()
            && expected
                .iter()
                .all(|(key, right)| last.get(key) == Some(&right.last)),
        "{topic} does not end at the values that follow from the input"
    );
    Ok(records)
}
