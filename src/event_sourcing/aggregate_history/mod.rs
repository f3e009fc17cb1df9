//! Reading history: the state of an aggregate at any point, how it came about, and the events of all
//! aggregates in a period.
//!
//! # Position
//! Reads the committed stores that the [repository](super::repository) writes, from any thread,
//! through [`QueryRegistry`]; `http` asks it by [`HistoryReader`], which knows no types.
//! # Invariants
//! - Whatever is read is what the events add up to, upcast as everywhere: a snapshot saves work and
//!   changes nothing.
//! - A state costs at most one snapshot and as many events as lie between two of them
//!   ([`SNAPSHOT_INTERVAL`](super::SNAPSHOT_INTERVAL)), whatever the length of the history; to find the
//!   snapshot of a time, the times of a few others are looked at (a binary search). Snapshots that do
//!   not read are passed over, and counted in [`Reads`].
//! - Whether an event is in the history store, in the archive or on its topic shows in nothing but
//!   [`Reads::archived`].
//! - Pages are bounded by entries and bytes.
//! # Failure
//! [`HistoryReadError`]; an event that this program cannot read (of a newer one, or damaged) is an
//! error by name, never left out.

mod changes;
mod grouped;
mod groups;
mod period;
mod projected;
mod reader;
mod replayed;
mod timeline;
mod verify;

use std::fmt;
use std::marker::PhantomData;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

pub use changes::Change;
pub use period::{EventPeriod, EventsOfPeriod};
pub(super) use projected::ProjectionStores;
pub use projected::{
    GroupsPartition, GroupsView, ProjectionEndpoint, ProjectionPartition, ProjectionView,
};
pub(crate) use replayed::{ReplayedRow, StoreEntries, StoresInLog};
pub use timeline::{Difference, DifferencePoint, TimelineEntry};
pub use verify::{Deviation, GroupsVerified, Verification};

use self::reader::Reader;
use super::aggregate::Aggregate;
use super::archived::{ArchivedEventsError, EventArchive};
use super::current_state::{CurrentState, CurrentStateSerde};
use super::decision::{AggregateRecord, ReplayError};
use super::history::Known;
use super::time::{TimeError, format_timestamp, parse_timestamp};
use crate::clock::Timestamp;
use crate::format::value;
use crate::query::{QueryError, QueryRegistry};
use crate::serde::Serde;
use crate::state::StateError;

/// How many entries a page has at most.
pub const PAGE_ENTRIES_MAX: usize = 1_000;
/// After how many bytes of events a page ends early.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A point in an aggregate's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// After the last event that is not later than this. Where another system's clock has gone back,
    /// an event counts as not earlier than those before it.
    Time(Timestamp),
    /// After the event with this version.
    Version(u64),
}

/// Why a text is no [`Point`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PointError {
    /// A number, but no version.
    #[error("`{text}` is no version: {source}")]
    Version {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: ParseIntError,
    },
    /// Neither a number nor a time.
    #[error("neither a version nor a time: {0}")]
    Time(TimeError),
}

impl FromStr for Point {
    type Err = PointError;

    /// Reads a version in decimal digits, or an RFC 3339 timestamp in UTC.
    fn from_str(text: &str) -> Result<Self, PointError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Version).map_err(|source| {
                let text = text.to_owned();
                PointError::Version { text, source }
            });
        }
        parse_timestamp(text)
            .map(Self::Time)
            .map_err(PointError::Time)
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => match format_timestamp(*time) {
                Ok(text) => f.write_str(&text),
                Err(error) => error.fmt(f),
            },
            Self::Version(version) => version.fmt(f),
        }
    }
}

/// What an answer cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reads {
    /// Snapshots whose state was read.
    pub snapshots: u64,
    /// Snapshots whose state was read in vain: of another state version, or damaged.
    pub snapshots_unreadable: u64,
    /// Snapshots of which only the time was looked at.
    pub probes: u64,
    /// Events read.
    pub events: u64,
    /// Those of them that had left the history store.
    pub archived: u64,
}

/// An aggregate at a point, and what it cost to tell.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AsOf<S> {
    /// The aggregate.
    pub record: AggregateRecord<S>,
    /// The cost.
    pub reads: Reads,
}

/// A part of a longer list.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// The version at which the next part begins; `None` at the end.
    pub next_version: Option<u64>,
}

/// Why history was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryReadError {
    /// The stores did not answer: unknown, elsewhere, or broken.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// History does not fold.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A state or an event has no JSON form.
    #[error("a state or an event has no JSON form")]
    Json(#[from] serde_json::Error),
    /// The aggregate keeps no index by time
    /// ([`without_index_by_time`](super::EventSourced::without_index_by_time)).
    #[error("aggregate type {0} keeps no index of its events by time")]
    NoIndex(&'static str),
    /// Events that have left the history store were not brought back.
    #[error(transparent)]
    Archived(#[from] ArchivedEventsError),
    /// A cursor that no page has given out.
    #[error("`{0}` is no cursor")]
    BadCursor(String),
}

/// Where an aggregate's stores are.
#[derive(Debug, Clone)]
pub(super) struct StoreNames {
    pub(super) state: String,
    pub(super) history: String,
    pub(super) snapshots: String,
    pub(super) index: Option<String>,
    pub(super) archive: EventArchive,
}

/// Reads the history of the aggregates of one type; made by
/// [`EventSourced::history`](super::EventSourced::history).
pub struct AggregateHistory<A> {
    stores: StoreNames,
    aggregate: PhantomData<fn() -> A>,
}

impl<A> Clone for AggregateHistory<A> {
    fn clone(&self) -> Self {
        Self::new(self.stores.clone())
    }
}

impl<A> fmt::Debug for AggregateHistory<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateHistory")
            .field("stores", &self.stores)
            .finish()
    }
}

impl<A> AggregateHistory<A> {
    pub(super) const fn new(stores: StoreNames) -> Self {
        Self {
            stores,
            aggregate: PhantomData,
        }
    }
}

impl<A: Aggregate> AggregateHistory<A> {
    /// Returns the versions that an aggregate has; `None` without events.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn known(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
    ) -> Result<Option<Known>, HistoryReadError> {
        self.reader(queries, aggregate_id)?.known()
    }

    /// Returns an aggregate as it is now; `None` without events. Reads one entry, and history only
    /// where that entry does not read. Of a tombstoned one the record says so, and has no state.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn current(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
    ) -> Result<Option<AsOf<A::State>>, HistoryReadError> {
        let mut reader = self.reader(queries, aggregate_id)?;
        let store = &self.stores.state;
        let stored = reader.get(store, aggregate_id.as_bytes())?;
        let Some((_, plain)) = stored.as_deref().and_then(value::decode) else {
            return Ok(None);
        };
        let read = CurrentStateSerde::<A>::default().deserialize(Some(plain));
        let record = match read.map_err(|source| failed(store, source))? {
            CurrentState::Known(record) => Some(record),
            CurrentState::Unreadable => reader.state_at(Point::Time(Timestamp::MAX))?,
        };
        let reads = reader.reads;
        Ok(record.map(|record| AsOf { record, reads }))
    }

    /// Returns an aggregate as it was at a point; `None` when it had no event then, or has no such
    /// version. From its tombstone on the record says so, and has no state.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn as_of(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        point: Point,
    ) -> Result<Option<AsOf<A::State>>, HistoryReadError> {
        let mut reader = self.reader(queries, aggregate_id)?;
        let record = reader.state_at(point)?;
        let reads = reader.reads;
        Ok(record.map(|record| AsOf { record, reads }))
    }

    /// Returns up to `limit` events of an aggregate from `from_version` on, as envelopes in the
    /// current schema version; `None` when it has none at all.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn events(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        from_version: u64,
        limit: usize,
    ) -> Result<Option<Page<Box<RawValue>>>, HistoryReadError> {
        let mut reader = self.reader(queries, aggregate_id)?;
        let Some(known) = reader.known()? else {
            return Ok(None);
        };
        let mut page = reader::PageLimit::new(limit);
        let (mut items, mut last) = (Vec::new(), None);
        reader.each(from_version, u64::MAX, |key, entry, read| {
            if !page.takes(entry.event.len()) {
                return Ok(false);
            }
            items.push(reader::upcast(&read)?);
            last = Some(key.version);
            Ok(true)
        })?;
        let next_version = reader::next_version(last, known);
        Ok(Some(Page {
            items,
            next_version,
        }))
    }

    fn reader(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
    ) -> Result<Reader<'_, A>, HistoryReadError> {
        Reader::new(queries, &self.stores, aggregate_id)
    }
}

fn failed(store: &str, source: crate::processor::BoxError) -> HistoryReadError {
    HistoryReadError::Query(QueryError::Failed {
        store: store.to_owned(),
        source,
    })
}

fn state_failed(store: &str, error: StateError) -> HistoryReadError {
    HistoryReadError::Query(QueryError::of_state(store, error))
}

/// [`AggregateHistory`] without its types: states are JSON.
pub(crate) trait HistoryReader: Send + Sync {
    /// Where events are that have left the history store.
    fn archive(&self) -> &EventArchive;

    fn known(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
    ) -> Result<Option<Known>, HistoryReadError>;

    /// `None` for the point: as it is now.
    fn as_of(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        point: Option<Point>,
    ) -> Result<Option<AsOf<Value>>, HistoryReadError>;

    fn timeline(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        from_version: u64,
        limit: usize,
    ) -> Result<Option<Page<TimelineEntry>>, HistoryReadError>;

    fn diff(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        from: Point,
        to: Point,
    ) -> Result<Option<Difference>, HistoryReadError>;

    fn events(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        from_version: u64,
        limit: usize,
    ) -> Result<Option<Page<Box<RawValue>>>, HistoryReadError>;

    fn events_of_period(
        &self,
        queries: &QueryRegistry,
        period: &EventPeriod,
    ) -> Result<EventsOfPeriod, HistoryReadError>;

    fn verify(
        &self,
        queries: &QueryRegistry,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Verification, HistoryReadError>;
}

fn untyped<S: Serialize>(found: AsOf<S>) -> Result<AsOf<Value>, HistoryReadError> {
    let AsOf { record, reads } = found;
    Ok(AsOf {
        record: AggregateRecord {
            origin: record.origin,
            first_version: record.first_version,
            version: record.version,
            updated_at: record.updated_at,
            tombstoned: record.tombstoned,
            state: serde_json::to_value(&record.state)?,
        },
        reads,
    })
}

impl<A: Aggregate> HistoryReader for AggregateHistory<A> {
    fn archive(&self) -> &EventArchive {
        &self.stores.archive
    }

    fn known(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
    ) -> Result<Option<Known>, HistoryReadError> {
        self.known(queries, aggregate_id)
    }

    fn as_of(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        point: Option<Point>,
    ) -> Result<Option<AsOf<Value>>, HistoryReadError> {
        let found = match point {
            None => self.current(queries, aggregate_id)?,
            Some(point) => self.as_of(queries, aggregate_id, point)?,
        };
        found.map(untyped).transpose()
    }

    fn timeline(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        from_version: u64,
        limit: usize,
    ) -> Result<Option<Page<TimelineEntry>>, HistoryReadError> {
        self.timeline(queries, aggregate_id, from_version, limit)
    }

    fn diff(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        from: Point,
        to: Point,
    ) -> Result<Option<Difference>, HistoryReadError> {
        self.diff(queries, aggregate_id, from, to)
    }

    fn events(
        &self,
        queries: &QueryRegistry,
        aggregate_id: &str,
        from_version: u64,
        limit: usize,
    ) -> Result<Option<Page<Box<RawValue>>>, HistoryReadError> {
        self.events(queries, aggregate_id, from_version, limit)
    }

    fn events_of_period(
        &self,
        queries: &QueryRegistry,
        period: &EventPeriod,
    ) -> Result<EventsOfPeriod, HistoryReadError> {
        self.events_of_period(queries, period)
    }

    fn verify(
        &self,
        queries: &QueryRegistry,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Verification, HistoryReadError> {
        self.verify(queries, cursor, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_version_or_a_time() {
        assert_eq!("7".parse(), Ok(Point::Version(7)));
        let time = Point::Time(1_765_281_600_000);
        assert_eq!("2025-12-09T12:00:00Z".parse(), Ok(time));
        assert_eq!(time.to_string(), "2025-12-09T12:00:00.000Z");
        for text in ["", "-1", "yesterday", "18446744073709551616", "2025-12-09"] {
            let error = text.parse::<Point>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }
}
