//! The checkers. They stand outside: they read the log and the closed databases, never the runtime.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::mirror::{Fold, Mirror};
use super::process::{APPLICATION, Site};
use crate::clock::Timestamp;
use crate::format::{names, value};
use crate::log::embedded::{InspectedRecord, RecordStatus};
use crate::log::{Offset, TopicName, TopicPartition};
use crate::runtime::ResolvedTopology;
use crate::state::{Layout, MemoryBudget, StateDir, StoreDecl, TaskDb};
use crate::topology::{Persistence, SubTopology, TaskId};

/// What is wrong, for people.
pub(super) type Wrong = String;

/// The content of a store's partition: keys as changelogs have them, plain values.
pub(super) type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// What stores hold, by task and name.
pub(super) type Stores = BTreeMap<(TaskId, String), Content>;

/// Numbers each record of the input.
pub(super) const SEQUENCE: &str = "sequence";

/// All records of a partition.
pub(super) fn records(
    site: &Site,
    topic: &str,
    partition: i32,
) -> Result<Vec<InspectedRecord>, Wrong> {
    let partition = TopicPartition::new(TopicName::from(topic), partition);
    site.log
        .inspect_records(&partition)
        .map_err(|error| error.to_string())
}

/// The committed records of an output, which must hold nothing else but aborted ones.
pub(super) fn committed(
    site: &Site,
    topic: &str,
    partition: i32,
) -> Result<Vec<InspectedRecord>, Wrong> {
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

pub(super) fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(
        || "(null)".to_owned(),
        |it| String::from_utf8_lossy(it).into_owned(),
    )
}

pub(super) fn integer(bytes: Option<&[u8]>) -> Result<i64, Wrong> {
    let bytes = bytes.ok_or("a null where a number belongs")?;
    let array = bytes
        .try_into()
        .map_err(|_| format!("{bytes:?} is no number"))?;
    Ok(i64::from_be_bytes(array))
}

/// `int32` before a field; fields of a simulation are short.
pub(super) fn length_of(field: &[u8]) -> [u8; 4] {
    u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes()
}

pub(super) fn sequence(record: &InspectedRecord) -> String {
    text(record.headers.last(SEQUENCE))
}

/// Compares two sequences in lock step, and their lengths both ways.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &[T],
    expected: &[T],
) -> Result<(), Wrong> {
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        if found != expected {
            return Err(format!(
                "{what}[{position}] is {found:?}, expected {expected:?}"
            ));
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

/// What a record that several origins may have written is known by, and all that is to be compared.
pub(super) type Sent = (String, String);

/// Checks a topic that several tasks write to: each record of each origin is in it once, those of one
/// origin in order within a partition. Returns the committed records by partition.
///
/// # Errors
/// The first difference.
pub(super) fn gathered(
    site: &Site,
    topic: &str,
    origins: &[Vec<Sent>],
    describe: impl Fn(&InspectedRecord) -> Sent,
) -> Result<Vec<Vec<InspectedRecord>>, Wrong> {
    let mut by_id = BTreeMap::new();
    for (origin, sent) in origins.iter().enumerate() {
        for (position, (id, line)) in sent.iter().enumerate() {
            by_id.insert(id, (origin, position, line));
        }
    }
    let mut last = BTreeMap::new();
    let mut total = 0;
    let mut partitions = Vec::new();
    for partition in 0..site.plan.partitions {
        let found = committed(site, topic, partition)?;
        for record in &found {
            let (id, line) = describe(record);
            let Some((origin, position, expected)) = by_id.get(&id) else {
                return Err(format!(
                    "{topic}-{partition} has {id}: {line}, which nobody wrote"
                ));
            };
            if line != **expected {
                return Err(format!(
                    "{topic}-{partition} has {id}: {line}, expected {expected}"
                ));
            }
            // Of one origin: a later record may not come first, nor one come twice.
            let before = last.insert((*origin, partition), *position);
            if before.is_some_and(|before| before >= *position) {
                return Err(format!(
                    "{topic}-{partition}: {id}: {line} comes twice or out of order"
                ));
            }
            total += 1;
        }
        partitions.push(found);
    }
    if total != by_id.len() {
        return Err(format!(
            "{topic} has {total} records, expected {}",
            by_id.len()
        ));
    }
    Ok(partitions)
}

/// A record that a task has taken up, of one of several topics.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) topic: &'static str,
    pub(super) sequence: String,
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) timestamp: Timestamp,
}

/// What each task has taken up of `topics`, in its order: its witness is a topic that it writes every
/// record to. `takes` says which records are good, `read` how one reads.
///
/// # Errors
/// The first difference.
pub(super) fn witnessed(
    site: &Site,
    witness: &str,
    topics: &[&'static str],
    takes: impl Fn(&InspectedRecord) -> bool,
    read: impl Fn(&InspectedRecord) -> String,
) -> Result<Vec<Vec<Seen>>, Wrong> {
    let mut origins = Vec::new();
    let mut topic_of = BTreeMap::new();
    for topic in topics {
        for partition in 0..site.plan.partitions {
            let mut records = records(site, topic, partition)?;
            records.retain(&takes);
            topic_of.extend(records.iter().map(|record| (sequence(record), *topic)));
            let sent = records
                .iter()
                .map(|record| (sequence(record), read(record)));
            origins.push(sent.collect());
        }
    }
    let partitions = gathered(site, witness, &origins, |record| {
        (sequence(record), read(record))
    })?;
    let seen = |record: &InspectedRecord| Seen {
        topic: topic_of[&sequence(record)],
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

/// Every changelog folds to what its store must hold.
///
/// # Errors
/// The first difference.
pub(super) fn changelogs(site: &Site, mirror: &Mirror, expected: &Stores) -> Result<(), Wrong> {
    for ((task, store), content) in expected {
        let partition = changelog(&site.topology, store, task.partition);
        let layout = layout_of(site, *task, store).unwrap_or_default();
        let found = plain(fold(mirror, &layout, &partition, mirror.end(&partition)));
        if found != *content {
            return Err(format!(
                "changelog {partition} is not what store `{store}` must hold: {}",
                difference(&found, content)
            ));
        }
    }
    Ok(())
}

/// Folds a changelog as its store does: by key, of versions by key and timestamp.
fn fold(mirror: &Mirror, layout: &Layout, partition: &TopicPartition, end: Offset) -> Fold {
    match layout {
        Layout::Versioned(_) => mirror.versions(partition, end),
        Layout::KeyValue
        | Layout::Expiring(_)
        | Layout::Window(_)
        | Layout::Duplicates(_)
        | Layout::Session(_) => mirror.fold(partition, end),
    }
}

/// The latest time that a store was ever given an entry of.
fn observed_time(
    mirror: &Mirror,
    layout: &Layout,
    partition: &TopicPartition,
    end: Offset,
) -> Option<Timestamp> {
    let committed = mirror.committed(partition, end);
    match layout {
        Layout::KeyValue | Layout::Expiring(_) => None,
        Layout::Versioned(_) => committed.map(|record| record.timestamp).max(),
        Layout::Window(_) | Layout::Duplicates(_) | Layout::Session(_) => committed
            .filter_map(|record| time_of(layout, record.key.as_deref().unwrap_or_default()))
            .max(),
    }
}

fn plain(fold: Fold) -> Content {
    fold.into_iter()
        .map(|(key, (value, _))| (key, value))
        .collect()
}

/// Returns the changelog of a store: a topic of its own, or its source.
pub(super) fn changelog(
    topology: &ResolvedTopology,
    store: &str,
    partition: i32,
) -> TopicPartition {
    let mut changelogs = topology.all().flat_map(|sub| &sub.topics.changelogs);
    let found = changelogs.find(|(name, _)| *name == store);
    let topic = found.map(|(_, changelog)| TopicName::clone(&changelog.topic));
    let topic = topic.unwrap_or_else(|| names::changelog_topic(APPLICATION, store).into());
    TopicPartition::new(topic, partition)
}

/// Checks the closed databases of a process: each store is the committed changelog up to the offset
/// that the database claims, byte for byte, timestamps included. So nothing of an aborted or open
/// transaction is in any of them. Of windows and sessions, what is past its retention may be there
/// still, and so may superseded versions and deletes past the history that is kept; the observed stream time must be the latest time of any entry, deletes included.
///
/// # Errors
/// The first difference.
pub(super) fn directory(site: &Site, mirror: &Mirror, dir: &Path) -> Result<Stores, Wrong> {
    let mut found = Stores::new();
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
            let partition = changelog(&site.topology, &store.name, task.partition);
            let end = checkpoint
                .changelogs
                .get(&store.name)
                .map_or(0, |it| it.next_offset);
            if end > mirror.end(&partition) {
                return Err(format!(
                    "{} is at {end} of {partition}, past its end",
                    path.display()
                ));
            }
            let wrong = |what: String| {
                let (path, name) = (path.display(), &store.name);
                format!(
                    "{path} store `{name}` at changelog offset {end} is not the fold of {partition}: {what}"
                )
            };
            let observed = observed_time(mirror, &store.layout, &partition, end);
            let (mut content, time) = dump(&db, &store)?;
            if time != observed {
                return Err(wrong(format!(
                    "it has observed time {time:?}, expected {observed:?}"
                )));
            }
            let mut expected = fold(mirror, &store.layout, &partition, end);
            // Expired entries go by segment; until then they lie there as they once were.
            retain_live(&store.layout, observed, &mut expected, |(value, _)| value);
            retain_live(&store.layout, observed, &mut content, |(value, _)| value);
            if content != expected {
                let changes = mirror.describe(&partition);
                let difference = difference(&content, &expected);
                return Err(wrong(format!("{difference}; the changelog: {changes}")));
            }
            found.insert((task, store.name), plain(content));
        }
    }
    Ok(found)
}

/// Drops what is past its retention.
fn retain_live<V>(
    layout: &Layout,
    observed: Option<Timestamp>,
    from: &mut BTreeMap<Vec<u8>, V>,
    bytes: impl Fn(&V) -> &[u8],
) {
    if let (Layout::Versioned(history), Some(observed)) = (layout, observed) {
        return retain_known(observed - history, from, bytes);
    }
    let (Some(segments), Some(observed)) = (layout.segments(), observed) else {
        return;
    };
    let first = observed - segments.retention_ms();
    from.retain(|key, _| time_of(layout, key).is_some_and(|time| time > first));
}

/// Drops versions that were superseded at `horizon` or before, and deletes from before it. Of one key,
/// `from` has the earliest first.
fn retain_known<V>(
    horizon: Timestamp,
    from: &mut BTreeMap<Vec<u8>, V>,
    bytes: impl Fn(&V) -> &[u8],
) {
    let time_of = |time: &[u8; 8]| i64::from_be_bytes(*time) ^ i64::MIN;
    let mut past = Vec::new();
    let mut entries = from.iter().peekable();
    while let Some((key, value)) = entries.next() {
        let Some((name, time)) = key.split_last_chunk::<8>() else {
            continue;
        };
        let next = entries.peek().and_then(|(next, _)| next.split_last_chunk());
        let next = next.filter(|(next_name, _)| *next_name == name);
        let is_superseded = next.is_some_and(|(_, next)| time_of(next) <= horizon);
        // Nothing is left before such a delete: without it the answer is the same.
        if is_superseded || (bytes(value) == [0] && time_of(time) < horizon) {
            past.push(key.clone());
        }
    }
    for key in past {
        from.remove(&key);
    }
}

/// Drops what `store` may forget of its whole content, given all its committed changes.
pub(super) fn live(site: &Site, mirror: &Mirror, task: TaskId, store: &str, content: &mut Content) {
    let Some(layout) = layout_of(site, task, store) else {
        return;
    };
    let partition = changelog(&site.topology, store, task.partition);
    let observed = observed_time(mirror, &layout, &partition, mirror.end(&partition));
    retain_live(&layout, observed, content, |value| value);
}

fn layout_of(site: &Site, task: TaskId, store: &str) -> Option<Layout> {
    let stores = &sub_topology(site, task)?.stores;
    let spec = stores.iter().find(|it| it.name == store)?;
    Some(StoreDecl::from(spec).layout)
}

/// The time that an entry of a window or session store lives by: `key ‖ int64 start ‖ int32 0`, or
/// `key ‖ int64 end ‖ int64 start`.
fn time_of(layout: &Layout, key: &[u8]) -> Option<Timestamp> {
    let behind = match layout {
        Layout::KeyValue | Layout::Expiring(_) | Layout::Versioned(_) => return None,
        Layout::Window(_) | Layout::Duplicates(_) => 12,
        Layout::Session(_) => 16,
    };
    let from = key.len().checked_sub(behind)?;
    let time = key.get(from..from + 8)?;
    Some(i64::from_be_bytes(time.try_into().ok()?))
}

fn sub_topology(site: &Site, task: TaskId) -> Option<&SubTopology> {
    let topology = Arc::as_ref(&site.topology.topology);
    topology
        .sub_topologies()
        .iter()
        .find(|sub| sub.id == task.sub_topology)
}

/// Returns the entries, and the observed stream time of windows, sessions and versions.
fn dump(db: &TaskDb, store: &StoreDecl) -> Result<(Fold, Option<Timestamp>), Wrong> {
    let backend = db.backend(&store.name).map_err(|error| error.to_string())?;
    let mut content = Fold::new();
    let mut observed = None;
    for entry in backend.range(&[], None, false) {
        let (key, stored) = entry.map_err(|error| error.to_string())?;
        let (timestamp, plain) =
            value::decode(&stored).ok_or_else(|| format!("{stored:?} is no stored value"))?;
        let mut key = key.to_vec();
        if store.layout != Layout::KeyValue && key == [0] {
            observed = Some(timestamp);
            continue;
        }
        if store.layout.segments().is_some() {
            key.drain(..8);
        }
        content.insert(key, (plain.to_vec(), timestamp));
    }
    Ok((content, observed))
}

fn difference<V: PartialEq + std::fmt::Debug>(
    found: &BTreeMap<Vec<u8>, V>,
    expected: &BTreeMap<Vec<u8>, V>,
) -> String {
    let mut keys: Vec<_> = found.keys().chain(expected.keys()).collect();
    keys.sort();
    keys.dedup();
    let differing = keys
        .into_iter()
        .filter(|key| found.get(*key) != expected.get(*key));
    let lines = differing.map(|key| {
        format!(
            "{}: {:?}, expected {:?}",
            key.escape_ascii(),
            found.get(key),
            expected.get(key)
        )
    });
    lines.take(4).collect::<Vec<_>>().join("; ")
}
