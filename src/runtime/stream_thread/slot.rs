//! What a thread holds of each of its tasks; the life of a slot is drawn in [`open`](super::open).

use crate::clock::Timestamp;
use crate::log::{CommittedOffset, Log, LogRange, Offset, TopicPartition};
use crate::metrics::TaskState;
use crate::runtime::protocol::restore::StableOffsets;
use crate::runtime::task::{Progress, Task};

/// Where an input starts, and what the group has committed for it.
#[derive(Debug, Clone)]
pub(super) struct StartOffset {
    pub(super) offset: Offset,
    pub(super) committed: Option<CommittedOffset>,
    /// What the partition held after that was asked, where nothing was committed.
    pub(super) log: Option<LogRange>,
}

/// An assigned task whose stores are not open.
#[derive(Debug)]
pub(super) struct Created {
    /// Its partitions with the index of their source.
    pub(super) inputs: Vec<(TopicPartition, usize)>,
    /// In the order of `inputs`; absent when they have to be fetched again.
    pub(super) starts: Option<Vec<StartOffset>>,
    pub(super) not_before: Timestamp,
    /// When its restore began to count: at its assignment, or when it was closed to be opened again.
    pub(super) assigned_at: Timestamp,
}

/// A task whose stores are with a restore.
#[derive(Debug)]
pub(super) struct Restoring {
    pub(super) created: Created,
    pub(super) stable: StableOffsets,
}

/// A task of this thread.
pub(super) enum Slot<L: Log> {
    Created(Created),
    Restoring(Restoring),
    Live(Box<Task<L::Message>>),
    /// Given back while it was restoring: waits for the restore to let go of the store.
    Closing,
}

impl<L: Log> Slot<L> {
    pub(super) fn state(&self) -> TaskState {
        match self {
            Self::Created(_) => TaskState::Created,
            Self::Restoring(_) => TaskState::Restoring,
            Self::Closing => TaskState::Closing,
            Self::Live(task) => match task.progress {
                Progress::Initialising(_) => TaskState::Initialising,
                Progress::Running => TaskState::Running,
            },
        }
    }
}
