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
    /// What the global thread has read is not in its stores.
    BeforeGlobalWrite,
    /// What the global thread has read is in its stores.
    AfterGlobalWrite,
    /// How far global stores are is written, their memtables are about to be flushed.
    BeforeGlobalFlush,
    /// Memtables of global stores are on disk.
    AfterGlobalFlush,
}

impl CrashPoint {
    /// Every point of a task, in the order of its life.
    pub const OF_TASKS: [Self; 14] = [
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

    /// Every point of global state.
    pub const OF_GLOBALS: [Self; 4] = [
        Self::BeforeGlobalWrite,
        Self::AfterGlobalWrite,
        Self::BeforeGlobalFlush,
        Self::AfterGlobalFlush,
    ];
}

/// The process ends here: whoever gets this drops everything without another call to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("crashed at {0:?}, as the simulation asked")]
pub struct Crash(pub CrashPoint);

/// A mistake that a test plants in commit or restore, to see whether the simulation finds it. Asked of
/// the [`Probe`] where the right thing is done; no configuration reaches it.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlantedBug {
    /// A restore ends at the last stable offset.
    RestoreStopsAtLastStableOffset,
    /// A restore reads open and aborted transactions.
    RestoreReadsUncommitted,
    /// A restore passes over tombstones.
    RestoreSkipsTombstones,
    /// A checkpoint of any age is trusted.
    OldCheckpointTrusted,
    /// Offsets are committed apart from data, in a transaction that follows.
    OffsetsApartFromData,
    /// Only the first task's offsets are in the transaction.
    TransactionWithoutOffsets,
    /// A refusal by the group does not keep the thread from committing.
    FenceIgnored,
    /// The overlay survives an abort.
    OverlayKeptAfterAbort,
    /// The input is not sought back after an abort.
    PositionKeptAfterAbort,
    /// The batch is in the store before the commit is requested.
    AppliedBeforeCommit,
    /// A commit of unknown outcome is taken for aborted.
    UnknownTakenForAbort,
    /// A commit of unknown outcome is taken for committed.
    UnknownTakenForCommit,
    /// Checkpoints reach the disk before their data.
    CheckpointAheadOfData,
    /// What a failed record has written stays.
    FailedRecordKept,
    /// A task forgets the time that its windowed operators have observed when it is opened.
    ObservedTimeLost,
    /// A task forgets when it is opened which windows it has emitted.
    EmittedWindowsForgotten,
    /// Operators' times survive an abort, so that what is processed again comes too late.
    TimeKeptAfterAbort,
    /// A restore passes over the buffers of suppressions.
    SuppressBufferNotRestored,
    /// Subscriptions of a foreign-key join are committed apart from the offsets they follow from.
    SubscriptionsApartFromOffsets,
    /// A task forgets when it is opened which sequence numbers its stores with duplicates have given
    /// out.
    SequencesBeginAgain,
    /// What waits in a join for a partner stays when the partner has come, or its result was sent:
    /// deletes are lost at the commit.
    UnpairedRecordsKept,
    /// A restore passes over records that wait for a versioned table.
    GraceBufferNotRestored,
    /// A restore passes over versions older than one it has read.
    PastNotRestored,
    /// A store whose changelog is an input is restored past what the task has processed.
    SourceRestoredToItsEnd,
    /// Tasks begin before global tables are whole.
    GlobalsNotAwaited,
    /// A global store's checkpoint of any age is trusted.
    OldGlobalsTrusted,
    /// A global store's offsets reach the disk before its entries.
    GlobalOffsetsAheadOfData,
}

impl PlantedBug {
    /// Every bug.
    pub const ALL: [Self; 27] = [
        Self::RestoreStopsAtLastStableOffset,
        Self::RestoreReadsUncommitted,
        Self::RestoreSkipsTombstones,
        Self::OldCheckpointTrusted,
        Self::OffsetsApartFromData,
        Self::TransactionWithoutOffsets,
        Self::FenceIgnored,
        Self::OverlayKeptAfterAbort,
        Self::PositionKeptAfterAbort,
        Self::AppliedBeforeCommit,
        Self::UnknownTakenForAbort,
        Self::UnknownTakenForCommit,
        Self::CheckpointAheadOfData,
        Self::FailedRecordKept,
        Self::ObservedTimeLost,
        Self::EmittedWindowsForgotten,
        Self::TimeKeptAfterAbort,
        Self::SuppressBufferNotRestored,
        Self::SubscriptionsApartFromOffsets,
        Self::SequencesBeginAgain,
        Self::UnpairedRecordsKept,
        Self::GraceBufferNotRestored,
        Self::PastNotRestored,
        Self::SourceRestoredToItsEnd,
        Self::GlobalsNotAwaited,
        Self::OldGlobalsTrusted,
        Self::GlobalOffsetsAheadOfData,
    ];
}

/// Decides whether the process goes on past a named point.
pub trait Probe: Send + Sync {
    /// Called each time `point` is reached.
    ///
    /// # Errors
    /// [`Crash`] when the process is to end here.
    fn reached(&self, point: CrashPoint) -> Result<(), Crash>;

    /// Returns whether the runtime is to make this mistake. Only the simulation's own tests say yes.
    #[doc(hidden)]
    fn planted(&self, bug: PlantedBug) -> bool {
        let _ = bug;
        false
    }
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
