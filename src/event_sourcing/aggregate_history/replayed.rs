//! The rows of projections out of the log, without a process that serves them: as their changelogs have
//! them, or made anew from the history's.
//!
//! # Invariants
//! - Rows of a partition are of one generation, the one that serves: it is looked up before and after.
//! - Made anew, rows are what `verify` compares with: the events, folded by this program's rules.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::event_sourcing::aggregate::Aggregate;
use crate::event_sourcing::archived::{EventArchive, StoredEvent};
use crate::event_sourcing::decision::{AggregateRecord, ReadEntry};
use crate::event_sourcing::history::HistoryKey;
use crate::event_sourcing::recorded::RecordedEvent;
use crate::processor::BoxError;

/// How often a partition is read again whose generation has changed meanwhile.
const ATTEMPTS: usize = 8;

/// By key, the plain values of a store with their timestamps.
pub(crate) type StoreEntries = BTreeMap<Vec<u8>, (Timestamp, Vec<u8>)>;

/// The stores of an application as its log has them.
pub(crate) trait StoresInLog {
    /// Returns the number of a store's partitions.
    fn partitions(&mut self, store: &str) -> Result<i32, BoxError>;

    /// Returns what a partition of a store has by now, as far as it is committed.
    fn entries(&mut self, store: &str, partition: i32) -> Result<StoreEntries, BoxError>;
}

/// A row of a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplayedRow {
    /// The partition that has it.
    pub(crate) partition: i32,
    /// Its key, as queries take it.
    pub(crate) key: String,
    /// JSON.
    pub(crate) value: Vec<u8>,
    /// Of what was written last.
    pub(crate) timestamp: Timestamp,
}

/// Reads the rows of a partition in the generation that serves. `serving` tells the generation and the
/// store by the entries of the store `of`.
pub(super) fn while_serving(
    log: &mut dyn StoresInLog,
    of: &str,
    partition: i32,
    serving: impl Fn(&StoreEntries) -> Result<(u64, String), BoxError>,
) -> Result<(u64, StoreEntries), BoxError> {
    for _ in 0..ATTEMPTS {
        let (generation, store) = serving(&log.entries(of, partition)?)?;
        let rows = log.entries(&store, partition)?;
        if serving(&log.entries(of, partition)?)?.0 == generation {
            return Ok((generation, rows));
        }
    }
    Err(format!("partition {partition} of `{of}` takes another generation over: try again").into())
}

/// Takes an event of an aggregate.
type Each<'a, A> = dyn FnMut(
        &str,
        &RecordedEvent<<A as Aggregate>::Event, <A as Aggregate>::State>,
    ) -> Result<(), BoxError>
    + 'a;

/// Calls `each` with the events of a partition's history, aggregate by aggregate, each as long as its time
/// is before `before`.
pub(super) fn each_event<A: Aggregate>(
    history: StoreEntries,
    archive: &EventArchive,
    before: Option<Timestamp>,
    each: &mut Each<'_, A>,
) -> Result<(), BoxError> {
    let mut entries = Vec::with_capacity(history.len());
    for (key, (_, stored)) in history {
        entries.push((HistoryKey::decode(&key)?, StoredEvent::decode(&stored)?));
    }
    let mut current: Option<(String, AggregateRecord<A::State>)> = None;
    let mut over: Option<String> = None;
    for (key, entry) in archive.bring_back(entries)? {
        if over.as_ref() == Some(&key.aggregate_id) {
            continue;
        }
        let known = current
            .take()
            .filter(|(id, _)| *id == key.aggregate_id)
            .map(|(_, record)| record);
        let read = ReadEntry::<A>::parse(&key, &entry)?;
        let mut after = read.before(known.clone())?;
        read.apply(&mut after);
        if before.is_some_and(|before| after.updated_at >= before) {
            over = Some(key.aggregate_id);
            continue;
        }
        let event = RecordedEvent::of_history(read, known.map(|known| known.state), &after);
        each(&key.aggregate_id, &event)?;
        current = Some((key.aggregate_id, after));
    }
    Ok(())
}
