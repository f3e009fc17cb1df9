//! Mistakes that the checker must find.

/// A mistake planted in the modelled process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bug {
    /// Restore ends at the last stable offset.
    RestoreStopsAtLastStableOffset,
    /// Restore reads records of open and aborted transactions.
    RestoreReadsUncommitted,
    /// The restore target is taken before the stable committed offsets are fetched.
    TargetBeforeStableOffsets,
    /// Committed offsets are fetched without waiting for pending transactions.
    OffsetsNotStable,
    /// Offsets are committed apart from data, after the transaction.
    OffsetsApartFromData,
    /// The transaction carries no offset of the task.
    TransactionWithoutOffsets,
    /// Offsets are sent without the group's generation.
    OffsetsNotFenced,
    /// The overlay survives an abort.
    OverlayKeptAfterAbort,
    /// The input is not sought back after an abort.
    PositionKeptAfterAbort,
    /// The batch is applied when the commit is requested.
    AppliedBeforeCommit,
    /// An unknown outcome is taken for an abort.
    UnknownTakenForAbort,
    /// An unknown outcome is taken for a commit.
    UnknownTakenForCommit,
    /// After a fence the transaction's writes are applied as if it had committed.
    FencedTakenForCommit,
    /// Flush makes the checkpoint durable ahead of the data.
    CheckpointAheadOfData,
    /// A checkpoint older than tombstones live is trusted.
    OldCheckpointTrusted,
    /// A restore goes on however long it takes, while tombstones ahead of it are dropped.
    SlowRestoreTrusted,
    /// The checkpoint's age is counted from the apply instead of from the commit.
    AgeCountedFromApply,
    /// Local state of an older reset generation, or of a deleted changelog, is trusted.
    ResetIgnored,
    /// Local state beyond the committed offset is no reason to refuse.
    RewindIgnored,
    /// A producer is used without settling what its predecessor left open.
    NeverInitialised,
    /// A repeated commit answered by a fence is retried for ever instead of closing the tasks.
    FenceIgnored,
}
