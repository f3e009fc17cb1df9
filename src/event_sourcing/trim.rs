//! Keeps the history store to recent events: older ones leave it once the archive has them.
//!
//! ```text
//! events topic ─▶ version 300 of account-1 passes at offset 5 012 ─▶ <name>-archivable: 5 012 → account-1, 300
//! archive beyond 5 012 ─▶ versions up to 300 − kept become ArchivedEvents in <name>-history
//! ```
//! # Position
//! The event processor tells of every event that passes on its topic, own ones among them, and runs it
//! by the clock.
//! # Invariants
//! - An event leaves only when one of its aggregate at a higher version, and so at a higher offset, is
//!   archived; the archive holds its partition from the start ([`PastEvents`](super::PastEvents)).
//! - An event leaves in the transaction in which what stays of it is written. A bounded number leaves at
//!   a time.
//! # Failure
//! Without an archive, or while it is away, everything stays.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::aggregate::Aggregate;
use super::archived::{ArchivedEvent, EventArchive, StoredEvent};
use super::envelope::Envelope;
use super::history::{HistoryEntry, HistoryKey};
use super::meter::Meter;
use super::repository::Repository;
use crate::log::Offset;
use crate::processor::BoxError;
use crate::state::{StateError, StoreRef};

/// How often events leave.
pub(super) const TRIM_INTERVAL: Duration = Duration::from_secs(1);
/// How many leave at a time.
const TRIM_ENTRIES_MAX: usize = 500;

/// An event that has passed on its topic, before which others may leave once it is archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Archivable {
    aggregate_id: String,
    version: u64,
    /// Down to here, exclusive, they have left already; absent at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_from: Option<u64>,
}

/// Trims one task's history store.
pub(super) struct Trim {
    /// By offset on the events topic.
    pub(super) archivable: StoreRef<Offset, Archivable>,
    pub(super) kept: NonZeroU64,
    /// Which versions are noted: the multiples of it.
    pub(super) every: NonZeroU64,
    pub(super) partition: i32,
    pub(super) archive: EventArchive,
    pub(super) meter: Meter,
}

impl Trim {
    /// Notes an event that passes on the events topic at `offset` and is in history.
    pub(super) fn passed(&self, offset: Offset, event: &HistoryKey) -> Result<(), StateError> {
        let due = event.version.is_multiple_of(self.every.get());
        if !due || event.version <= self.kept.get() {
            return Ok(());
        }
        let noted = Archivable {
            aggregate_id: event.aggregate_id.clone(),
            version: event.version,
            left_from: None,
        };
        self.archivable.put(offset, noted)
    }

    /// Lets a bounded number of events leave whose successors are archived.
    pub(super) fn run<A: Aggregate>(&self, aggregates: &Repository<A>) -> Result<(), BoxError> {
        let Some(archived) = self.archive.archived_until(self.partition) else {
            return Ok(());
        };
        let mut room = TRIM_ENTRIES_MAX;
        while room > 0 {
            let first = self.archivable.range(0..archived)?.next().transpose()?;
            let Some((offset, noted)) = first else {
                return Ok(());
            };
            room = self.trim(aggregates, offset, noted, room)?;
        }
        Ok(())
    }

    /// Lets up to `room` events leave that one of them stands for, latest first; returns the room left.
    fn trim<A: Aggregate>(
        &self,
        aggregates: &Repository<A>,
        offset: Offset,
        noted: Archivable,
        room: usize,
    ) -> Result<usize, BoxError> {
        let below = noted.left_from.unwrap_or_else(|| {
            let last = noted.version.saturating_sub(self.kept.get());
            last.saturating_add(1)
        });
        let id = &noted.aggregate_id;
        let range = HistoryKey::new(id, 0)..HistoryKey::new(id, below);
        let mut leaving = Vec::new();
        for found in aggregates.history.reverse_range(range)? {
            match found? {
                (key, StoredEvent::Whole(entry)) if leaving.len() < room => {
                    leaving.push((key, entry));
                }
                // The rest comes with the next call, or has left before.
                (_, StoredEvent::Whole(_) | StoredEvent::Archived(_)) => break,
            }
        }
        let left = leaving.len();
        let lowest = leaving.last().map_or(below, |(key, _)| key.version);
        for (key, entry) in leaving {
            let stays = StoredEvent::Archived(what_stays(&entry, offset)?);
            aggregates.history.put(key, stays)?;
            self.meter.count(|metrics| &metrics.archived);
        }
        if left < room {
            self.archivable.delete(&offset)?;
            return Ok(room - left);
        }
        let left_from = Some(lowest);
        let noted = Archivable { left_from, ..noted };
        self.archivable.put(offset, noted)?;
        Ok(0)
    }
}

fn what_stays(entry: &HistoryEntry, offset: Offset) -> Result<ArchivedEvent, BoxError> {
    let envelope = Envelope::parse(&entry.event)?;
    Ok(ArchivedEvent {
        origin: entry.origin,
        // The event that was noted has a higher version, and no lower offset.
        until: offset.saturating_add(1),
        timestamp: envelope.timestamp,
        bytes: u32::try_from(entry.event.len())?,
        event_id: envelope.event_id.to_string(),
    })
}
