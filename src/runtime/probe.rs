//! Named points of the commit and restore path, so that simulation can crash exactly there.
//!
//! A production thread runs with [`NoProbe`]. A crash is an error like any other up to the thread's
//! owner, which then drops everything without a word to the log, as `kill -9` would.

use std::fmt::Debug;

/// A point of the production path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CrashPoint {
    /// A record is about to enter its chain.
    BeforeRecord,
    /// A record's outputs are with the producer.
    AfterRecord,
    /// The overlay is about to be serialised and sent.
    BeforeChangelogSend,
    /// All changelog records of a task are with the producer.
    AfterChangelogSend,
    /// Offsets are in the transaction; the commit request is next.
    BeforeCommitRequest,
    /// The transaction has committed; nothing is applied yet.
    AfterCommitReply,
    /// A task's batch is about to go to its stores.
    BeforeStoreBatch,
    /// A task's batch is in its stores, in memory.
    AfterStoreBatch,
    /// A task's stores are about to be flushed.
    BeforeFlush,
    /// A task's stores are durable.
    AfterFlush,
    /// A restore is about to read.
    BeforeRestoreStep,
    /// A restore has applied what it read.
    AfterRestoreStep,
    /// A task was assigned; nothing is opened yet.
    BeforeTakeover,
    /// A task runs.
    AfterTakeover,
}

/// The process "died" at a point. Never made in production.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("crashed at {0:?}")]
pub struct Crash(pub CrashPoint);

/// Is told when a thread passes a point, and may crash it.
pub trait Probe: Send + Sync + Debug {
    /// A thread has reached `point`.
    ///
    /// # Errors
    /// [`Crash`] ends the thread without another call to the log.
    fn reached(&self, point: CrashPoint) -> Result<(), Crash>;
}

/// Never crashes.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn reached(&self, _point: CrashPoint) -> Result<(), Crash> {
        Ok(())
    }
}
