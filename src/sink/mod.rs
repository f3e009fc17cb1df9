//! Sinks: committed output topics carried into other systems, beside the stream threads.
//!
//! # Position
//! A packaged topology declares sinks ([`Packaged::with_sink`](crate::packaged::Packaged::with_sink)),
//! a configuration turns them on by name (`sinks`), and the daemon runs one thread for each
//! ([`SinkSet`]). The thread reads topics read-committed, in a group of its own
//! (`<application_id>-<sink>`), through the log seam; what a sink does with them it does on the
//! control plane's tokio runtime. No stream thread knows of it. Implementations are crates of their
//! own (`millstream-postgres`, `millstream-archive`): they see [`Sink`] and [`SinkSession`], and never
//! the log's type.
//! # Invariants
//! - **The target keeps the offsets.** A session writes records and the offset that follows them in
//!   one atomic step and tells, on [`resume`](SinkSession::resume), where to go on. There is no second
//!   commit that could disagree: the group's own offsets are neither written nor read, and moving them
//!   changes nothing.
//! - After any failure the session is opened again and every partition asks anew where it stands. So
//!   the outcome of a write that was not answered is known before anything is written after it.
//! - The offset that a write expects is its fence: where it is not the stored one, another process has
//!   taken over, and nothing of that write stays ([`SinkError::Superseded`]).
//! - While the target is away nothing is read on: buffers are bounded ([`SinkBounds`]), and behind them
//!   the client's queue.
//! - A sink that is down does not make the process unready. It is seen in `/sinks`, in
//!   `millstream_sink_*` and in the log.
//! # Failure
//! [`SinkError`]'s variant decides: wait and try again, ask where to go on, or meet the policy for a
//! bad record.

mod backoff;
mod call;
mod catch_up;
mod error;
mod intake;
mod past;
mod past_events;
mod set;
mod status;
mod stop;
mod worker;

pub use catch_up::{CatchUp, CatchUpError, catch_up};
pub use error::SinkError;
pub use past::{PastError, PastRange, PastReader, PastRecords, Span};
pub use past_events::TopicPast;
pub use set::{RunningSinks, SinkSet, SinksSpec, resolve_topics};
pub use status::{SinkPosition, SinkState, SinkStatus, SinkView};

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{ConfigErrors, Parameters};
use crate::log::{Headers, Offset, TopicName, TopicPartition};

/// What a sink's asynchronous methods return.
pub type SinkFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SinkError>> + Send + 'a>>;

/// A sink that a topology offers: a name, and how to make it from the configuration's
/// `sinks.<name>`. Without that section it does not run.
#[derive(Clone)]
pub struct SinkDeclaration {
    name: String,
    make: Arc<MakeSink>,
}

type MakeSink = dyn Fn(&Parameters) -> Result<Arc<dyn Sink>, ConfigErrors> + Send + Sync;

impl fmt::Debug for SinkDeclaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkDeclaration")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl SinkDeclaration {
    /// Declares a sink. `make` reads the parameters and connects to nothing.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        make: impl Fn(&Parameters) -> Result<Arc<dyn Sink>, ConfigErrors> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            make: Arc::new(make),
        }
    }

    /// Returns the name that `sinks` in a configuration turns it on by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the sink that these parameters describe.
    ///
    /// # Errors
    /// The first parameter that does not fit.
    pub fn make(&self, parameters: &Parameters) -> Result<ConfiguredSink, ConfigErrors> {
        Ok(ConfiguredSink {
            name: self.name.clone(),
            sink: (self.make)(parameters)?,
        })
    }
}

/// A sink with its name, ready to run.
#[derive(Debug, Clone)]
pub struct ConfiguredSink {
    /// Its name in the configuration.
    pub name: String,
    /// What it does.
    pub sink: Arc<dyn Sink>,
}

/// What a sink is told of the deployment.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// `<application_id>-<sink>`: its group, and the name of its offsets in the target.
    pub group: String,
    /// The topics that it reads, in the order of [`Sink::topics`].
    pub topics: Vec<SinkTopic>,
}

/// A topic that a sink reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkTopic {
    /// As the topology declares it.
    pub declared: String,
    /// Its name in the cluster.
    pub name: TopicName,
    /// The number of partitions.
    pub partitions: i32,
    /// Unique per creation of the topic.
    pub id: [u8; 16],
}

/// Carries records of topics into another system.
pub trait Sink: Send + Sync + fmt::Debug {
    /// Returns what kind of system it writes to, in one word.
    fn kind(&self) -> &'static str;

    /// Returns the declared names of the topics that it reads.
    fn topics(&self) -> Vec<String>;

    /// Returns when a batch is full.
    fn bounds(&self) -> SinkBounds;

    /// Connects, and prepares the target where that is needed (tables, directories).
    fn connect<'a>(&'a self, context: &'a SinkContext) -> SinkFuture<'a, Box<dyn SinkSession>>;

    /// Empties what this sink has written and has it filled again from the topics' start, while
    /// processes run or not; returns what was done, for people.
    ///
    /// A sink that cannot be rebuilt says so.
    fn rebuild<'a>(&'a self, context: &'a SinkContext) -> SinkFuture<'a, String> {
        Box::pin(async move {
            Err(SinkError::Failed {
                message: format!(
                    "a sink of kind {} is not rebuilt ({})",
                    self.kind(),
                    context.group
                ),
            })
        })
    }

    /// Returns what reads back what this sink has written, where that is records: an archive.
    fn past(&self) -> Option<Arc<dyn PastRecords>> {
        None
    }

    /// Checks what was written against itself; returns what was found to be right, for people.
    ///
    /// # Errors
    /// [`SinkError::Failed`] names the first thing that is wrong.
    fn verify<'a>(&'a self, context: &'a SinkContext) -> SinkFuture<'a, String> {
        Box::pin(async move {
            Err(SinkError::Failed {
                message: format!(
                    "a sink of kind {} is not verified ({})",
                    self.kind(),
                    context.group
                ),
            })
        })
    }
}

/// A connection to the target. Dropped after any error but [`SinkError::Superseded`] and
/// [`SinkError::Refused`].
pub trait SinkSession: Send {
    /// Returns for each partition the offset to go on from: the stored one, or `log_start` where
    /// none is stored, which from now on is.
    fn resume<'a>(&'a mut self, partitions: &'a [SinkPartition]) -> SinkFuture<'a, Vec<Offset>>;

    /// Writes batches of different partitions, each with the offset that follows it in one atomic step.
    /// After an error each of them was written whole or not at all, and the partitions ask where they
    /// stand; after [`SinkError::Refused`] none was.
    ///
    /// Returns how many rows (or files) that made.
    fn write<'a>(&'a mut self, batches: &'a [SinkBatch]) -> SinkFuture<'a, u64>;

    /// Checks that the stored offsets are still these: a rebuild or another owner moves them while a
    /// topic is idle, too.
    fn check<'a>(&'a mut self, positions: &'a [(TopicPartition, Offset)]) -> SinkFuture<'a, ()>;
}

/// A partition that a session is to go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkPartition {
    /// Which.
    pub partition: TopicPartition,
    /// The first offset that the log still holds.
    pub log_start: Offset,
}

/// Consecutive records of one partition.
#[derive(Debug, Clone)]
pub struct SinkBatch {
    /// The partition, by the topic's name in the cluster.
    pub partition: TopicPartition,
    /// The topic's declared name.
    pub declared: Arc<str>,
    /// The offset that the target must have stored: the fence.
    pub expected: Offset,
    /// The offset to store with the records.
    pub next: Offset,
    /// The records at offsets from `expected` to below `next`; empty only where all of them were
    /// passed over.
    pub records: Vec<SinkRecord>,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkRecord {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, in milliseconds.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
}

impl SinkRecord {
    /// Returns roughly what it takes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len))
            .sum();
        length(&self.key) + length(&self.value) + headers + RECORD_OVERHEAD
    }
}

/// What a record takes beside its bytes.
const RECORD_OVERHEAD: usize = 96;

/// When a batch of one partition is written, and how long a call to the target may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkBounds {
    /// Records of a batch, at most.
    pub records: usize,
    /// Bytes of a batch, roughly at most: a batch is full with the record that reaches them.
    pub bytes: usize,
    /// How long the oldest record may wait for the batch to fill; zero writes what there is.
    pub linger: Duration,
    /// How long one call to the target may take until it counts as away.
    pub timeout: Duration,
    /// How often an idle sink checks that its offsets are still the stored ones.
    pub check_interval: Duration,
    /// What happens to a record that the target refuses.
    pub bad_records: BadRecords,
}

/// What happens to a record that a sink cannot write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadRecords {
    /// The sink stands still before it, says so, and tries again now and then: nothing is lost.
    #[default]
    Stop,
    /// It is counted, logged by its coordinates and passed over.
    Skip,
}
