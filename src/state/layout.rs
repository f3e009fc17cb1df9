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
use crate::format::{value, version_key, window_key};

/// The local key of [`Observed`]: before every segment. The entry is the time, then the sequence number
/// where there is one.
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

/// What a store of windows or sessions remembers beside its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Observed {
    /// Observed stream time.
    pub(super) time: Option<Timestamp>,
    /// The last sequence number given out, where entries have one.
    pub(super) sequence: Option<i32>,
}

impl Observed {
    /// Takes what another part of the store's history has observed into account.
    pub(super) fn merge(&mut self, other: Self) {
        self.time = self.time.max(other.time);
        let newer = match (self.sequence, other.sequence) {
            (Some(known), Some(other)) => is_later_sequence(other, known),
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if newer {
            self.sequence = other.sequence;
        }
    }

    /// Returns the entry's bytes; `None` when there is nothing to be remembered.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let sequence = self.sequence.map(i32::to_be_bytes);
        let sequence = sequence.as_ref().map_or(&[][..], |bytes| &bytes[..]);
        value::encode(self.time?, sequence, &mut bytes);
        Some(bytes)
    }

    /// Reads the entry's bytes.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let Some((time, sequence)) = value::decode(bytes) else {
            return Self::default();
        };
        Self {
            time: Some(time),
            sequence: sequence.try_into().ok().map(i32::from_be_bytes),
        }
    }
}

/// Returns the sequence number after `sequence`: Kafka Streams', which begin again at 0.
pub(super) const fn next_sequence(sequence: Option<i32>) -> i32 {
    match sequence {
        None => 1,
        Some(sequence) => sequence.wrapping_add(1) & i32::MAX,
    }
}

/// Whether `left` was given out after `right`, numbers having begun again between them or not.
const fn is_later_sequence(left: i32, right: i32) -> bool {
    let distance = left.wrapping_sub(right) & i32::MAX;
    distance != 0 && distance < 1 << 30
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
    /// Records kept for a while: as windows, with several under one key and start, told apart by
    /// their sequence numbers.
    Duplicates(Segments),
    /// Versions of keys, by key and timestamp: for this many milliseconds after they were superseded.
    Versioned(i64),
    /// Sessions: by segment of their end, then key, end and start.
    Session(Segments),
}

impl Layout {
    /// Returns the segments of windows and sessions.
    #[must_use]
    pub const fn segments(&self) -> Option<&Segments> {
        match self {
            Self::KeyValue | Self::Expiring(_) | Self::Versioned(_) => None,
            Self::Window(segments) | Self::Duplicates(segments) | Self::Session(segments) => {
                Some(segments)
            }
        }
    }

    /// Returns how long the entries of a key-value store live; `None`: for ever.
    #[must_use]
    pub const fn time_to_live(&self) -> Option<&TimeToLive> {
        match self {
            Self::Expiring(ttl) => Some(ttl),
            Self::KeyValue
            | Self::Window(_)
            | Self::Duplicates(_)
            | Self::Versioned(_)
            | Self::Session(_) => None,
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
            Self::KeyValue | Self::Expiring(_) | Self::Versioned(_) => None,
            Self::Window(segments) | Self::Duplicates(segments) => {
                Some((window_key::split_window(key)?.1, segments))
            }
            Self::Session(segments) => Some((window_key::split_session(key)?.1.end(), segments)),
        })
    }

    /// Returns whether the store remembers something beside its entries.
    pub(super) const fn observes(&self) -> bool {
        !matches!(self, Self::KeyValue | Self::Expiring(_))
    }

    /// Returns the sequence number of an entry; `None` where entries have none.
    pub(super) fn sequence_of(&self, key: &[u8]) -> Option<i32> {
        match self {
            Self::Duplicates(_) => window_key::split_window(key).ok().map(|parts| parts.2),
            Self::KeyValue
            | Self::Expiring(_)
            | Self::Window(_)
            | Self::Session(_)
            | Self::Versioned(_) => None,
        }
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
            Self::Versioned(_) => version_key::split_local(local).ok().map(|parts| parts.0),
            Self::Window(_) | Self::Duplicates(_) | Self::Session(_) => {
                window_key::split_local(local).map(|(_, key)| key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sequence_numbers_begin_again_after_the_last_one() {
        assert_eq!(next_sequence(None), 1);
        assert_eq!(next_sequence(Some(i32::MAX)), 0);
        let mut observed = Observed {
            time: Some(1),
            sequence: Some(i32::MAX),
        };
        observed.merge(Observed {
            time: Some(0),
            sequence: Some(3),
        });
        assert_eq!(
            observed,
            Observed {
                time: Some(1),
                sequence: Some(3),
            }
        );
    }

    proptest! {
        #[test]
        fn what_is_observed_round_trips(time: i64, sequence in proptest::option::of(0..=i32::MAX)) {
            let observed = Observed { time: Some(time), sequence };
            prop_assert_eq!(Observed::decode(&observed.encode().unwrap()), observed);
        }
    }
}
