//! A point in time on the wire: RFC 3339, UTC, milliseconds.

use std::fmt;

use millstream::event_sourcing::{format_timestamp, parse_timestamp};
use millstream::prelude::Timestamp;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970; written as `2025-12-09T12:00:00.000Z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instant(Timestamp);

/// 2000-01-01T00:00:00.000Z.
const EARLIEST: Timestamp = 946_684_800_000;
/// 2100-01-01T00:00:00.000Z.
const END: Timestamp = 4_102_444_800_000;

impl Instant {
    /// Returns whether a message may speak of it: from 2000 up to 2100, in UTC.
    #[must_use]
    pub const fn is_plausible(self) -> bool {
        EARLIEST <= self.0 && self.0 < END
    }

    /// Takes milliseconds since 1970; `None` for what no calendar date stands for.
    #[must_use]
    pub fn from_millis(millis: Timestamp) -> Option<Self> {
        format_timestamp(millis).is_ok().then_some(Self(millis))
    }

    /// Returns milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> Timestamp {
        self.0
    }

    /// Returns whole minutes from `earlier` to here, rounded down; negative when this is before it.
    #[must_use]
    pub const fn minutes_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).div_euclid(60_000)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_timestamp(self.0).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = format_timestamp(self.0).map_err(S::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        parse_timestamp(&text).map(Self).map_err(D::Error::custom)
    }
}
