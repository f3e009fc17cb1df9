//! Named points of the protocol at which a test may end the process.
//!
//! # Position
//! The runtime calls [`Probe::reached`] around each step whose order carries a guarantee.
//! Production passes [`NoProbe`]; the simulation passes a probe that answers [`Crash`] once, and the
//! process object that got it is dropped without another call, which is what `kill -9` does.

/// A step of commit, restore or takeover before or after which a process may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CrashPoint {
    /// A record was taken from its buffer, nothing of it has been processed.
    BeforeRecord,
    /// A record's chain is done and its outputs are with the producer.
    AfterRecord,
    /// The overlay is about to be serialised to the changelogs.
    BeforeChangelogSend,
    /// All changelog records are with the producer.
    AfterChangelogSend,
    /// Offsets are in the transaction, the commit was not asked for.
    BeforeCommitRequest,
    /// The log said that the transaction has committed.
    AfterCommitReply,
    /// The committed batch is not in the store.
    BeforeStoreBatch,
    /// The committed batch is in the store.
    AfterStoreBatch,
    /// Memtables are about to be flushed.
    BeforeFlush,
    /// Memtables are on disk.
    AfterFlush,
    /// A restore is about to read more of the changelog.
    BeforeRestoreStep,
    /// What the restore step read is in the store.
    AfterRestoreStep,
    /// A member was told to take tasks over and has not started.
    BeforeTakeover,
    /// A taken-over task is about to be restored or run.
    AfterTakeover,
}

impl CrashPoint {
    /// Every point, in the order of a task's life.
    pub const ALL: [Self; 14] = [
        Self::BeforeTakeover,
        Self::AfterTakeover,
        Self::BeforeRestoreStep,
        Self::AfterRestoreStep,
        Self::BeforeRecord,
        Self::AfterRecord,
        Self::BeforeChangelogSend,
        Self::AfterChangelogSend,
        Self::BeforeCommitRequest,
        Self::AfterCommitReply,
        Self::BeforeStoreBatch,
        Self::AfterStoreBatch,
        Self::BeforeFlush,
        Self::AfterFlush,
    ];
}

/// The process ends here: whoever gets this drops everything without another call to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("crashed at {0:?}, as the simulation asked")]
pub struct Crash(pub CrashPoint);

/// Decides whether the process goes on past a named point.
pub trait Probe: Send + Sync {
    /// Called each time `point` is reached.
    ///
    /// # Errors
    /// [`Crash`] when the process is to end here.
    fn reached(&self, point: CrashPoint) -> Result<(), Crash>;
}

/// The production probe: never ends anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    #[inline]
    fn reached(&self, _point: CrashPoint) -> Result<(), Crash> {
        Ok(())
    }
}
