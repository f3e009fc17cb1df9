//! Feeds: what fills a topology's input topics from a file, behind `millstream feed`.

use std::path::{Path, PathBuf};

use crate::clock::Timestamp;
use crate::log::Headers;
use crate::processor::BoxError;

/// A way to fill a topology's input topics.
///
/// A feed reads and renders; how fast its records are written, where to and by what client is the
/// command's.
pub trait Feed {
    /// Returns the name that `millstream feed NAME` chooses it by.
    fn name(&self) -> &str;

    /// Returns what it feeds, in one line.
    fn about(&self) -> &str;

    /// Reads the file.
    ///
    /// # Errors
    /// [`FeedError`].
    fn open(&self, request: &FeedRequest) -> Result<FeedSource, FeedError>;
}

/// What is to be fed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedRequest {
    /// The file.
    pub file: PathBuf,
    /// What becomes of its times.
    pub times: FeedTimes,
    /// The wall-clock time: no record is later, unless times are kept.
    pub now: Timestamp,
}

/// What becomes of a file's times. They are moved by whole days: hours stay what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedTimes {
    /// Moved as far as the last record is not after now.
    UpToNow,
    /// Moved by so many days: the same messages again, whatever the time is.
    MovedByDays(i64),
    /// Left as they are.
    Kept,
}

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// By how much times are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shift {
    /// In days.
    pub days: i64,
}

impl Shift {
    /// Returns it in milliseconds.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.days.saturating_mul(DAY_MS)
    }
}

impl FeedRequest {
    /// Asks for a file, its times moved so that the last is not after `now`.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>, now: Timestamp) -> Self {
        Self {
            file: file.into(),
            times: FeedTimes::UpToNow,
            now,
        }
    }

    /// Says what becomes of times.
    #[must_use]
    pub const fn with_times(mut self, times: FeedTimes) -> Self {
        self.times = times;
        self
    }

    /// Returns by how much the times of a file are moved whose last record is at `last`.
    ///
    /// # Errors
    /// [`FeedError::PastNow`].
    pub fn shift(&self, last: Timestamp) -> Result<Shift, FeedError> {
        let most = self.now.saturating_sub(last).div_euclid(DAY_MS);
        match self.times {
            FeedTimes::UpToNow => Ok(Shift { days: most }),
            FeedTimes::MovedByDays(days) if days <= most => Ok(Shift { days }),
            FeedTimes::MovedByDays(days) => Err(FeedError::PastNow { days, most }),
            FeedTimes::Kept => Ok(Shift::default()),
        }
    }
}

/// What a feed has read.
pub struct FeedSource {
    /// Reference data and the like: written first, at once.
    pub preamble: Vec<FeedRecord>,
    /// The records, by their time.
    pub records: Box<dyn Iterator<Item = Result<FeedRecord, FeedError>>>,
    /// What was read, for people: what it is, how much, by how much times were moved.
    pub summary: String,
    /// The time of the first record; `None` without records.
    pub first: Option<Timestamp>,
}

impl std::fmt::Debug for FeedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeedSource")
            .field("preamble", &self.preamble.len())
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRecord {
    /// The declared name of the topic.
    pub topic: &'static str,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The headers.
    pub headers: Headers,
    /// When it is written, in the feed's own time: also the record's timestamp.
    pub timestamp: Timestamp,
}

/// Why a file cannot be fed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// Times moved so far would lie in the future.
    #[error("moved by {days} days, times are past now; moved by {most} at most they are not")]
    PastNow {
        /// The days that were asked for.
        days: i64,
        /// The most there can be.
        most: i64,
    },
    /// A row is not what the format says.
    #[error("`{}`, row {row}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row, from 1, without the header.
        row: u64,
        /// What is wrong.
        problem: String,
    },
    /// A record cannot be rendered.
    #[error("a record cannot be made")]
    Render(#[source] BoxError),
}

impl FeedError {
    /// Says that a file cannot be read.
    pub fn read(path: &Path, source: impl Into<BoxError>) -> Self {
        Self::Read {
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time of a file's last record.
    const LAST: Timestamp = 40 * DAY_MS + 7_000;

    fn moved(now: Timestamp, times: FeedTimes) -> Result<Timestamp, FeedError> {
        let request = FeedRequest::new("f", now).with_times(times);
        Ok(LAST + request.shift(LAST)?.millis())
    }

    #[test]
    fn the_same_shift_gives_the_same_times_at_any_time() {
        let first = LAST + 100 * DAY_MS + 5;
        let expected = LAST + 100 * DAY_MS;
        for now in [
            first,
            first - 5,
            first + 1,
            first + DAY_MS - 6,
            first + 6 * DAY_MS,
        ] {
            let again = moved(now, FeedTimes::MovedByDays(100)).unwrap();
            assert_eq!(again, expected);
        }
        assert_eq!(moved(first, FeedTimes::UpToNow).unwrap(), expected);
        let back = moved(first, FeedTimes::MovedByDays(-3)).unwrap();
        assert_eq!(back, LAST - 3 * DAY_MS);
        assert_eq!(moved(0, FeedTimes::Kept).unwrap(), LAST);
    }

    #[test]
    fn a_shift_past_now_is_refused() {
        let now = LAST + 100 * DAY_MS + 5;
        for days in [101, 1_000_000, i64::MAX] {
            let refused = moved(now, FeedTimes::MovedByDays(days));
            assert!(matches!(refused, Err(FeedError::PastNow { most: 100, .. })));
        }
    }
}
