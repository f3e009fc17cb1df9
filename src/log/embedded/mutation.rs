//! Every durable change of the log, as a value.
//!
//! The live log changes only by applying mutations, and a reopened one applies the same ones from
//! its journal: so both are equal by construction.

use std::collections::BTreeMap;

use super::record::{Record, TransactionNumber};
use crate::log::{CommittedOffset, LogRange, Offset, TopicName, TopicPartition};

/// Offsets of one group.
pub(super) type Offsets = BTreeMap<TopicPartition, CommittedOffset>;

/// A durable change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mutation {
    /// A topic was created.
    TopicCreated {
        name: TopicName,
        id: [u8; 16],
        partitions: i32,
        config: BTreeMap<String, String>,
    },
    /// A topic was deleted.
    TopicDeleted { name: TopicName },
    /// A record was appended at the end of a partition.
    Appended {
        topic: TopicName,
        partition: i32,
        record: Record,
    },
    /// A transactional id has a new epoch: older producers are fenced.
    EpochBumped {
        transactional_id: String,
        epoch: i32,
        timeout_ms: i64,
    },
    /// A transaction wrote its first record or offset.
    TransactionBegun {
        transactional_id: String,
        number: TransactionNumber,
        started: i64,
    },
    /// A transaction holds offsets that become a group's on commit.
    OffsetsPending {
        number: TransactionNumber,
        group: String,
        offsets: Offsets,
    },
    /// A transaction ended: markers in all its partitions and its offsets, at once.
    TransactionEnded {
        number: TransactionNumber,
        commit: bool,
        at: i64,
    },
    /// A group's offsets were set outside a transaction.
    OffsetsSet { group: String, offsets: Offsets },
    /// Everything below an offset was deleted.
    StartAdvanced {
        partition: TopicPartition,
        start: Offset,
    },
    /// A partition was compacted.
    Compacted {
        partition: TopicPartition,
        removed: Vec<Offset>,
        horizons: Vec<Offset>,
        horizon: i64,
        to: Offset,
    },
    /// Snapshot only: a partition's frame.
    PartitionRestored {
        partition: TopicPartition,
        range: LogRange,
        clean_to: Offset,
        aborted: Vec<TransactionNumber>,
        open: Vec<(TransactionNumber, Offset)>,
    },
    /// Snapshot only: an entry of a partition.
    EntryRestored {
        topic: TopicName,
        partition: i32,
        record: Record,
        delete_horizon: Option<i64>,
    },
    /// Snapshot only: the next transaction's number.
    Numbered { next: TransactionNumber },
}

impl Mutation {
    /// Returns whether the caller's answer promises that the change survives the process.
    pub(super) fn is_urgent(&self) -> bool {
        match self {
            Self::TopicCreated { .. }
            | Self::TopicDeleted { .. }
            | Self::EpochBumped { .. }
            | Self::OffsetsSet { .. } => true,
            Self::TransactionEnded { commit, .. } => *commit,
            Self::Appended { .. }
            | Self::TransactionBegun { .. }
            | Self::OffsetsPending { .. }
            | Self::StartAdvanced { .. }
            | Self::Compacted { .. }
            | Self::PartitionRestored { .. }
            | Self::EntryRestored { .. }
            | Self::Numbered { .. } => false,
        }
    }
}
