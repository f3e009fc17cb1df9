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
    /// Whether times stay what they were, instead of being moved up to now.
    pub keep_times: bool,
    /// The wall-clock time: no record is later, unless times are kept.
    pub now: Timestamp,
}

impl FeedRequest {
    /// Asks for a file, its times moved so that the last is not after `now`.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>, now: Timestamp) -> Self {
        Self {
            file: file.into(),
            keep_times: false,
            now,
        }
    }

    /// Leaves times as they were.
    #[must_use]
    pub fn with_times_kept(mut self) -> Self {
        self.keep_times = true;
        self
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
