//! The checkers. They stand outside: they read the log and the closed databases, never the runtime.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::mirror::{Fold, Mirror};
use super::oracle::{COUNT_STORE, Content, Expected, Input, counts};
use super::process::{APPLICATION, Site};
use super::topology::*;
use crate::format::{names, value};
use crate::log::embedded::{InspectedRecord, RecordStatus};
use crate::log::{TopicName, TopicPartition};
use crate::state::{MemoryBudget, StateDir, StoreDecl, TaskDb};
use crate::topology::{Persistence, SubTopology, TaskId};

/// What is wrong, for people.
pub(super) type Wrong = String;

/// All records of a partition.
pub(super) fn records(
    site: &Site,
    topic: &str,
    partition: i32,
) -> Result<Vec<InspectedRecord>, Wrong> {
    let partition = TopicPartition::new(TopicName::from(topic), partition);
    site.log.inspect_records(&partition).map_err(|error| error.to_string())
}

/// The committed records of an output, which must hold nothing else but aborted ones.
fn committed(site: &Site, topic: &str, partition: i32) -> Result<Vec<InspectedRecord>, Wrong> {
    let mut found = Vec::new();
    for record in records(site, topic, partition)? {
        match record.status {
            RecordStatus::Committed => found.push(record),
            RecordStatus::Aborted | RecordStatus::CommitMarker | RecordStatus::AbortMarker => {}
            RecordStatus::Plain | RecordStatus::Open => {
                return Err(format!(
                    "{topic}-{partition} offset {} is {:?}",
                    record.offset, record.status
                ));
            }
        }
    }
    Ok(found)
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "(null)".to_owned(), |it| String::from_utf8_lossy(it).into_owned())
}

fn integer(bytes: Option<&[u8]>) -> Result<i64, Wrong> {
    let bytes = bytes.ok_or("a null where a number belongs")?;
    let array = bytes.try_into().map_err(|_| format!("{bytes:?} is no number"))?;
    Ok(i64::from_be_bytes(array))
}

fn sequence(record: &InspectedRecord) -> String {
    text(record.headers.last(SEQUENCE))
}

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

/// Compares two sequences in lock step, and their lengths both ways.
fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &[T],
    expected: &[T],
) -> Result<(), Wrong> {
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        if found != expected {
            return Err(format!("{what}[{position}] is {found:?}, expected {expected:?}"));
        }
    }
    if found.len() == expected.len() {
        return Ok(());
    }
    let shorter = found.len().min(expected.len());
    let (extra, missing) = (found.get(shorter), expected.get(shorter));
    Err(format!(
        "{what} has {} entries, expected {}; first extra {extra:?}, first missing {missing:?}",
        found.len(),
        expected.len()
    ))
}

/// Checks every output against the oracle; returns what the stores must hold, by task and store.
///
/// # Errors
/// The first difference.
pub(super) fn outputs(site: &Site) -> Result<BTreeMap<(TaskId, &'static str), Content>, Wrong> {
    let mut stores = BTreeMap::new();
    let mut all = Vec::new();
    for partition in 0..site.plan.partitions {
        let expected = Expected::of(&inputs(site, partition)?);
        let ticks = partition_outputs(site, partition, &expected)?;
        let task = TaskId { sub_topology: 0, partition };
        stores.insert((task, TICKS), ticks);
        for (store, content) in &expected.stores {
            stores.insert((task, *store), content.clone());
        }
        all.push(expected);
    }
    dead_letters(site, &all)?;
    for (partition, content) in repartitioned(site, &all)? {
        stores.insert((TaskId { sub_topology: 1, partition }, COUNT_STORE), content);
    }
    Ok(stores)
}

fn partition_outputs(site: &Site, partition: i32, expected: &Expected) -> Result<Content, Wrong> {
    let echo: Vec<_> = committed(site, ECHO, partition)?
        .iter()
        .map(|it| (sequence(it), text(it.key.as_deref()), text(it.value.as_deref())))
        .collect();
    same(&format!("{ECHO}-{partition}"), &echo, &expected.echo)?;
    let mut ticks = Content::new();
    for (topic, expected) in &expected.numbers {
        let mut found = Vec::new();
        for record in committed(site, topic, partition)? {
            let (key, number) =
                (text(record.key.as_deref()), integer(record.value.as_deref())?);
            if tick_partition(&key).is_none() {
                found.push((key, number));
                continue;
            }
            let before = ticks.insert(key, number).unwrap_or(0);
            if number != before + 1 {
                return Err(format!("{topic}-{partition}: tick {number} follows tick {before}"));
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
            one.refused.iter().map(move |offset| (partition.to_string(), offset.to_string()))
        })
        .collect();
    found.sort();
    expected.sort();
    same(DEAD_LETTERS, &found, &expected)
}

/// The repartition topic has each record once, those of one input partition in order; the counts
/// follow it in lock step.
fn repartitioned(site: &Site, all: &[Expected]) -> Result<Vec<(i32, Content)>, Wrong> {
    let topic = names::repartition_topic(APPLICATION, BY_BUCKET);
    let mut by_sequence = BTreeMap::new();
    for (partition, expected) in all.iter().enumerate() {
        for (position, record) in expected.bucketed.iter().enumerate() {
            by_sequence.insert(record.0.clone(), (partition, position, record));
        }
    }
    let mut last = BTreeMap::new();
    let mut total = 0;
    let mut stores = Vec::new();
    for partition in 0..site.plan.partitions {
        let mut keys = Vec::new();
        for record in committed(site, &topic, partition)? {
            let found =
                (sequence(&record), text(record.key.as_deref()), text(record.value.as_deref()));
            let Some((origin, position, expected)) = by_sequence.get(&found.0) else {
                return Err(format!("{topic}-{partition} has {found:?}, which nobody wrote"));
            };
            if found != **expected {
                return Err(format!("{topic}-{partition} has {found:?}, expected {expected:?}"));
            }
            // Of one origin: a later record may not come first, nor one come twice.
            let before = last.insert((*origin, partition), *position);
            if before.is_some_and(|before| before >= *position) {
                return Err(format!("{topic}-{partition}: {found:?} comes twice or out of order"));
            }
            total += 1;
            keys.push(found.1);
        }
        let (expected, content) = counts(keys);
        let mut found = Vec::new();
        for record in committed(site, COUNT, partition)? {
            found.push((text(record.key.as_deref()), integer(record.value.as_deref())?));
        }
        same(&format!("{COUNT}-{partition}"), &found, &expected)?;
        stores.push((partition, content));
    }
    if total != by_sequence.len() {
        return Err(format!("{topic} has {total} records, expected {}", by_sequence.len()));
    }
    Ok(stores)
}

/// Every changelog folds to what its store must hold.
///
/// # Errors
/// The first difference.
pub(super) fn changelogs(
    mirror: &Mirror,
    expected: &BTreeMap<(TaskId, &'static str), Content>,
) -> Result<(), Wrong> {
    for ((task, store), content) in expected {
        let partition = changelog(store, task.partition);
        let fold = mirror.fold(&partition, mirror.end(&partition));
        let found = plain(fold)?;
        if found != *content {
            return Err(format!("changelog {partition} folds to {found:?}, expected {content:?}"));
        }
    }
    Ok(())
}

fn plain(fold: Fold) -> Result<Content, Wrong> {
    fold.into_iter()
        .map(|(key, (value, _))| Ok((text(Some(&key)), integer(Some(&value))?)))
        .collect()
}

pub(super) fn changelog(store: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(names::changelog_topic(APPLICATION, store), partition)
}

/// What a directory's database of a task holds, by store.
pub(super) type Databases = BTreeMap<(TaskId, String), Content>;

/// Checks the closed databases of a process: each store is the committed changelog up to the offset
/// that the database claims, byte for byte, timestamps included. So nothing of an aborted or open
/// transaction is in any of them.
///
/// # Errors
/// The first difference.
pub(super) fn directory(site: &Site, mirror: &Mirror, dir: &Path) -> Result<Databases, Wrong> {
    let mut found = Databases::new();
    let state = StateDir::open(dir, || "checker".to_owned()).map_err(|error| error.to_string())?;
    for task in state.tasks().map_err(|error| error.to_string())? {
        let Some(sub) = sub_topology(site, task) else {
            return Err(format!("{} has a directory of task {task}", dir.display()));
        };
        let path = state.task_dir(task);
        let budget = MemoryBudget::new(16 * 1024 * 1024);
        let stores: Vec<StoreDecl> = sub
            .stores
            .iter()
            .filter(|store| store.persistence == Persistence::RocksDb)
            .map(StoreDecl::from)
            .collect();
        let db = TaskDb::open(&path, &stores, &budget).map_err(|error| error.to_string())?;
        let checkpoint = db.checkpoint();
        for store in stores {
            let partition = changelog(&store.name, task.partition);
            let end = checkpoint.changelogs.get(&store.name).map_or(0, |it| it.next_offset);
            if end > mirror.end(&partition) {
                return Err(format!("{} is at {end} of {partition}, past its end", path.display()));
            }
            let content = dump(&db, &store.name)?;
            let expected = mirror.fold(&partition, end);
            if content != expected {
                return Err(format!(
                    "{} store `{}` at changelog offset {end} is not the fold of {partition}: {}",
                    path.display(),
                    store.name,
                    difference(&content, &expected),
                ));
            }
            found.insert((task, store.name), plain(content)?);
        }
    }
    Ok(found)
}

fn sub_topology(site: &Site, task: TaskId) -> Option<&SubTopology> {
    let topology = Arc::as_ref(&site.topology.topology);
    topology.sub_topologies().iter().find(|sub| sub.id == task.sub_topology)
}

fn dump(db: &TaskDb, store: &str) -> Result<Fold, Wrong> {
    let backend = db.backend(store).map_err(|error| error.to_string())?;
    let mut content = Fold::new();
    for entry in backend.range(&[], None, false) {
        let (key, stored) = entry.map_err(|error| error.to_string())?;
        let (timestamp, plain) =
            value::decode(&stored).ok_or_else(|| format!("{stored:?} is no stored value"))?;
        content.insert(key.to_vec(), (plain.to_vec(), timestamp));
    }
    Ok(content)
}

fn difference(found: &Fold, expected: &Fold) -> String {
    let mut keys: Vec<_> = found.keys().chain(expected.keys()).collect();
    keys.sort();
    keys.dedup();
    let differing = keys.into_iter().filter(|key| found.get(*key) != expected.get(*key));
    let lines = differing.map(|key| {
        let show = |fold: &Fold| {
            fold.get(key).map(|(value, time)| (integer(Some(value)), *time))
        };
        format!("{}: {:?}, expected {:?}", text(Some(key)), show(found), show(expected))
    });
    lines.take(4).collect::<Vec<_>>().join("; ")
}
