//! How a store's entries lie on disk, and how those that are past their retention go.
//!
//! # Position
//! A changelog knows store keys; RocksDB and memory know local keys. [`TaskDb`](super::TaskDb) turns
//! one into the other by the store's layout, when a commit or a restore writes and when a query reads;
//! the typed fronts of window and session stores work with local keys throughout.
//! # Expiry
//! Local keys of windows and sessions begin with their *segment*, a stretch of time
//! ([`format::window_key`](crate::format::window_key)). An entry expires as Kafka Streams has it: when
//! its time is not after *observed stream time*, the latest time of any entry the store was ever
//! given, less the retention. Reads hide it at once. Its bytes go with the rest of its segment, in
//! **one range delete** that joins the batch which moved observed stream time over the segment's end: a
//! range delete costs one entry whatever the segment holds, where deletes by key would cost as much as
//! the writes did. A prefix of the key instead of Kafka Streams' database per segment, since flushes
//! and checkpoints are atomic over one database. Changelogs get no tombstones: `retention.ms` deletes
//! there.
//! # Invariants
//! - Observed stream time is in the store ([`OBSERVED_TIME_KEY`]), written with the entries that moved
//!   it, and is the same after a restore: nothing that was hidden comes back.

use super::TimeToLive;
use crate::clock::Timestamp;
use crate::format::DecodeError;
use crate::format::window_key;

/// The local key of observed stream time: before every segment. The entry is that time alone.
pub(super) const OBSERVED_TIME_KEY: &[u8] = &[0];

/// Kafka Streams' smallest segment.
const SEGMENT_INTERVAL_MIN_MS: i64 = 60_000;

/// The segments of a window or session store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    retention: i64,
    interval: i64,
}

impl Segments {
    /// Keeps entries for `retention` milliseconds, in segments as long as Kafka Streams': half of
    /// that, a minute at least.
    #[must_use]
    pub fn new(retention: i64) -> Self {
        let retention = retention.max(1);
        Self::with_interval(retention, (retention / 2).max(SEGMENT_INTERVAL_MIN_MS))
    }

    /// Keeps entries for `retention` milliseconds in segments of `interval`. Short segments suit
    /// reads by time over all keys, long ones reads by key over much time. A store that is opened
    /// with another interval than before is restored from its changelog.
    #[must_use]
    pub fn with_interval(retention: i64, interval: i64) -> Self {
        Self {
            retention: retention.max(1),
            interval: interval.max(1),
        }
    }

    /// Returns how long entries live, in milliseconds of stream time.
    #[must_use]
    pub const fn retention_ms(&self) -> i64 {
        self.retention
    }

    pub(super) const fn interval(&self) -> i64 {
        self.interval
    }

    /// Returns whether an entry of `time` is past its retention.
    pub(super) fn is_expired(&self, time: Timestamp, observed: Option<Timestamp>) -> bool {
        observed.is_some_and(|observed| time <= observed.saturating_sub(self.retention))
    }

    /// Returns the first segment that is not all expired, as local keys begin.
    pub(super) fn first_live(&self, observed: Timestamp) -> [u8; window_key::SEGMENT_LEN] {
        window_key::segment_of(observed.saturating_sub(self.retention), self.interval)
    }

    /// Returns the start of the segment that holds `time`.
    pub(super) fn start_of(&self, time: Timestamp) -> Timestamp {
        time.div_euclid(self.interval).saturating_mul(self.interval)
    }
}

/// How a store's entries lie on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// By their keys.
    #[default]
    KeyValue,
    /// By their keys, with an index by time beside them ([`TimeToLive`]).
    Expiring(TimeToLive),
    /// Windows: by segment of their start, then key and start.
    Window(Segments),
    /// Sessions: by segment of their end, then key, end and start.
    Session(Segments),
}

impl Layout {
    /// Returns the segments of windows and sessions.
    #[must_use]
    pub const fn segments(&self) -> Option<&Segments> {
        match self {
            Self::KeyValue | Self::Expiring(_) => None,
            Self::Window(segments) | Self::Session(segments) => Some(segments),
        }
    }

    /// Returns how long the entries of a key-value store live; `None`: for ever.
    #[must_use]
    pub const fn time_to_live(&self) -> Option<&TimeToLive> {
        match self {
            Self::Expiring(ttl) => Some(ttl),
            Self::KeyValue | Self::Window(_) | Self::Session(_) => None,
        }
    }

    /// Returns the time that an entry lives by, and the segments; `None` where entries do not expire.
    ///
    /// # Errors
    /// When the bytes are no key of such a store.
    pub(super) fn time_of(
        &self,
        key: &[u8],
    ) -> Result<Option<(Timestamp, &Segments)>, DecodeError> {
        Ok(match self {
            Self::KeyValue | Self::Expiring(_) => None,
            Self::Window(segments) => Some((window_key::split_window(key)?.1, segments)),
            Self::Session(segments) => Some((window_key::split_session(key)?.1.end(), segments)),
        })
    }

    /// Appends the local form of a store key to `out`; returns the time it lives by.
    ///
    /// # Errors
    /// As [`time_of`](Self::time_of).
    pub(super) fn put_local(
        &self,
        key: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<(Timestamp, &Segments)>, DecodeError> {
        let found = self.time_of(key)?;
        if let Some((time, segments)) = found {
            out.extend_from_slice(&window_key::segment_of(time, segments.interval));
        }
        out.extend_from_slice(key);
        Ok(found)
    }

    /// Returns the store key of a local key; `None` for what is no entry.
    pub(super) fn store_key<'a>(&self, local: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::KeyValue | Self::Expiring(_) => Some(local),
            Self::Window(_) | Self::Session(_) => {
                window_key::split_local(local).map(|(_, key)| key)
            }
        }
    }
}
