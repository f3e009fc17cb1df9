//! What a task's local state is worth, and where its restore ends: pure decisions.
//!
//! # Position
//! `runtime::restore` gathers the facts (in the order that [`StableOffsets`] and [`RestoreTarget`]
//! force), asks [`plan_restore`], performs the plan, and asks [`check_restored`] before the task's
//! first record.
//! # Invariants
//! - The high watermark is taken after the stable committed offsets: whatever an older owner has
//!   committed lies below it, and after that no older owner can commit.
//! - A checkpoint is used only where replaying the tail gives what replaying everything gives.
//! # Failure
//! Doubt about local data sets it aside ([`Distrust`], no error). Doubt about the group's offsets
//! refuses to start ([`RestoreRefusal`]): an operator has to decide.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Timestamp;
use crate::log::{LogRange, Offset, TopicPartition};

/// The group's stable committed offsets of a task's inputs, with the reset generation they carry.
/// Made once no pending transaction held any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StableOffsets {
    /// By input partition; `None` where the group has none.
    pub inputs: BTreeMap<TopicPartition, Option<Offset>>,
    /// `millstream.reset.generation` of the offset metadata; 0 where it is absent.
    pub generation: u64,
}

/// The end of one changelog partition's restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreTarget(Offset);

impl RestoreTarget {
    /// Takes a high watermark that was asked for **after** `stable` was fetched: the argument is
    /// there to make the order visible. The last stable offset would not do: a later owner may have
    /// committed behind a dead owner's open transaction.
    #[must_use]
    pub const fn after(_stable: &StableOffsets, high_watermark: Offset) -> Self {
        Self(high_watermark)
    }

    /// Returns whether a read-committed reader at `position` has seen everything below the target.
    #[must_use]
    pub const fn is_reached(self, position: Offset) -> bool {
        position >= self.0
    }

    /// Returns the offset at which the restore ends.
    #[must_use]
    pub const fn offset(self) -> Offset {
        self.0
    }
}

/// What a task's directory says about one changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangelogCheckpoint {
    /// The topic's id when the data was written.
    pub topic_id: [u8; 16],
    /// The next changelog offset to replay.
    pub offset: Offset,
    /// When the data was last known to be at the changelog's end. For a running task that is the time
    /// **before** its commit was requested, for a restore the time its target was taken: a thread
    /// that was stopped between commit and apply must not pass for young.
    pub at_end: Timestamp,
}

/// What a task's directory says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalCheckpoint {
    /// The reset generation that the data belongs to.
    pub generation: u64,
    /// The input offsets that the data reaches.
    pub inputs: BTreeMap<TopicPartition, Offset>,
    /// By store name.
    pub changelogs: BTreeMap<String, ChangelogCheckpoint>,
    /// Stores that hold anything at all. Data and checkpoint are written together: one that has the
    /// former without the latter holds what no changelog explains.
    pub with_data: BTreeSet<String>,
}

/// What the log says about one changelog partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangelogFacts {
    /// The topic's id.
    pub topic_id: [u8; 16],
    /// From the log's start to the restore target.
    pub range: LogRange,
    /// How long a tombstone surely stays (`delete.retention.ms` less a margin), in milliseconds;
    /// `None` where the topic is not compacted.
    pub tombstone_retention: Option<i64>,
}

/// How a task's stores catch up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestorePlan {
    /// Keep local data; replay each store's changelog from the given offset.
    Replay(BTreeMap<String, Offset>),
    /// Set the directory aside; replay each changelog from the given offset, its start.
    SetAside(Distrust, BTreeMap<String, Offset>),
}

impl RestorePlan {
    /// Returns where each store's replay begins.
    #[must_use]
    pub const fn from(&self) -> &BTreeMap<String, Offset> {
        match self {
            Self::Replay(from) | Self::SetAside(_, from) => from,
        }
    }
}

/// Why local data is not used. Not an error: the changelog has everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// A reset happened since.
    #[error("a reset has happened: local generation {stored}, committed generation {committed}")]
    OlderGeneration {
        /// Of the local data.
        stored: u64,
        /// Of the group's offsets.
        committed: u64,
    },
    /// There is data, and nothing that says how far it reaches: a replay would leave in place what
    /// the changelog does not mention.
    #[error("store `{store}` has data without a checkpoint")]
    NoCheckpoint {
        /// The store.
        store: String,
    },
    /// The changelog was deleted and created again.
    #[error("the changelog of store `{store}` is another topic than the local data came from")]
    OtherTopic {
        /// The store.
        store: String,
    },
    /// The log does not hold the checkpoint's offset.
    #[error(
        "local offset {offset} of store `{store}` is outside its changelog {}..{}",
        range.start, range.end
    )]
    OutsideLog {
        /// The store.
        store: String,
        /// The checkpoint's.
        offset: Offset,
        /// The log's.
        range: LogRange,
    },
    /// Compaction may have dropped tombstones that the local data needs.
    #[error("local data of store `{store}` is {age} ms old, tombstones live {retention} ms")]
    TooOld {
        /// The store.
        store: String,
        /// Since it was last at the changelog's end, in milliseconds.
        age: i64,
        /// In milliseconds.
        retention: i64,
    },
}

/// Why a task must not start: the group's offsets do not fit its state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreRefusal {
    /// The group's offset expired or was deleted. Starting anywhere would lose or repeat records.
    #[error("no committed offset for {partition}, but the task has state; run `millstream reset`")]
    OffsetMissing {
        /// The input.
        partition: TopicPartition,
    },
    /// Another tool moved the group back: its records would be counted twice.
    #[error(
        "the group's offset {committed} of {partition} is below {stored}, which local state \
         reaches: another tool has moved it; run `millstream reset`"
    )]
    GroupRewound {
        /// The input.
        partition: TopicPartition,
        /// What local state reaches.
        stored: Offset,
        /// What the group says.
        committed: Offset,
    },
    /// Another tool wrote the group's offsets and dropped the reset generation.
    #[error(
        "the group's offsets carry reset generation {committed}, local state {stored}: another \
         tool has written them; run `millstream reset`"
    )]
    GenerationLost {
        /// Of the local data.
        stored: u64,
        /// Of the group's offsets.
        committed: u64,
    },
}

/// Decides how a task's stores catch up with their changelogs.
///
/// # Errors
/// [`RestoreRefusal`] when the group's offsets do not fit the local state.
pub fn plan_restore(
    local: Option<&LocalCheckpoint>,
    stable: &StableOffsets,
    changelogs: &BTreeMap<String, ChangelogFacts>,
    now: Timestamp,
) -> Result<RestorePlan, RestoreRefusal> {
    let starts = || {
        changelogs
            .iter()
            .map(|(store, log)| (store.clone(), log.range.start))
            .collect()
    };
    let Some(local) = local else {
        return Ok(RestorePlan::Replay(starts()));
    };
    // ORDER: the generation first. After a reset, offsets below the stored ones are no rewind, and
    // after an expiry of the offsets the generation is gone with them.
    check_offsets_present(local, stable)?;
    if local.generation < stable.generation {
        let (stored, committed) = (local.generation, stable.generation);
        return Ok(RestorePlan::SetAside(
            Distrust::OlderGeneration { stored, committed },
            starts(),
        ));
    }
    if local.generation > stable.generation {
        let (stored, committed) = (local.generation, stable.generation);
        return Err(RestoreRefusal::GenerationLost { stored, committed });
    }
    check_not_rewound(local, stable)?;
    let mut from = BTreeMap::new();
    for (store, log) in changelogs {
        let offset = match local.changelogs.get(store) {
            None if local.with_data.contains(store) => {
                let store = store.clone();
                return Ok(RestorePlan::SetAside(
                    Distrust::NoCheckpoint { store },
                    starts(),
                ));
            }
            // A store that is new in the topology has an empty column family.
            None => log.range.start,
            Some(checkpoint) => {
                if let Some(distrust) = distrust(store, checkpoint, log, now) {
                    return Ok(RestorePlan::SetAside(distrust, starts()));
                }
                checkpoint.offset
            }
        };
        from.insert(store.clone(), offset);
    }
    Ok(RestorePlan::Replay(from))
}

/// Returns where an input goes on, if that is known without a guess. `log` is what the partition held
/// after the group was found to have committed nothing for it.
///
/// A partition that never held a record starts at its beginning, also where the task has state:
/// nothing of it can have been processed. So it is with the repartition topic of an operator that is
/// new in the topology, and after a takeover from Kafka Streams, which commits no offset for an input that it
/// has read nothing of.
#[must_use]
pub fn known_start(committed: Option<Offset>, log: Option<LogRange>) -> Option<Offset> {
    let untouched = log.is_some_and(|log| log.start == 0 && log.end == 0);
    committed.or(untouched.then_some(0))
}

fn check_offsets_present(
    local: &LocalCheckpoint,
    stable: &StableOffsets,
) -> Result<(), RestoreRefusal> {
    let missing = |partition: &TopicPartition| stable.inputs.get(partition) == Some(&None);
    match local.inputs.keys().find(|partition| missing(partition)) {
        Some(partition) => Err(RestoreRefusal::OffsetMissing {
            partition: partition.clone(),
        }),
        None => Ok(()),
    }
}

fn check_not_rewound(
    local: &LocalCheckpoint,
    stable: &StableOffsets,
) -> Result<(), RestoreRefusal> {
    for (partition, &stored) in &local.inputs {
        if let Some(&Some(committed)) = stable.inputs.get(partition)
            && committed < stored
        {
            let partition = partition.clone();
            return Err(RestoreRefusal::GroupRewound {
                partition,
                stored,
                committed,
            });
        }
    }
    Ok(())
}

fn distrust(
    store: &str,
    checkpoint: &ChangelogCheckpoint,
    log: &ChangelogFacts,
    now: Timestamp,
) -> Option<Distrust> {
    let store = store.to_owned();
    if checkpoint.topic_id != log.topic_id {
        return Some(Distrust::OtherTopic { store });
    }
    if checkpoint.offset < log.range.start || checkpoint.offset > log.range.end {
        let (offset, range) = (checkpoint.offset, log.range);
        return Some(Distrust::OutsideLog {
            store,
            offset,
            range,
        });
    }
    // Nothing was written since: no tombstone can be missing, whatever the age.
    if checkpoint.offset == log.range.end {
        return None;
    }
    let age = now.saturating_sub(checkpoint.at_end);
    match log.tombstone_retention {
        Some(retention) if age >= retention => Some(Distrust::TooOld {
            store,
            age,
            retention,
        }),
        Some(_) | None => None,
    }
}

/// How much less than `delete.retention.ms` a checkpoint's age may be: covers clocks that differ and
/// a restore that takes long.
const TOMBSTONE_MARGIN_MS: i64 = 60 * 60 * 1000;

/// Returns how long a tombstone surely stays, in milliseconds, of a topic with this
/// `delete.retention.ms`.
#[must_use]
pub const fn surely_kept(delete_retention_ms: i64) -> i64 {
    let (less, half) = (
        delete_retention_ms - TOMBSTONE_MARGIN_MS,
        delete_retention_ms / 2,
    );
    if less > half { less } else { half }
}

/// Returns whether a batch that was polled at `now` may be written and the replay go on; otherwise
/// the directory is set aside and the replay starts over.
///
/// `since` is the checkpoint's [`at_end`](ChangelogCheckpoint::at_end), or, for a replay from the
/// log's start, the time it began (and what its checkpoints carry as `at_end` until the target is
/// reached). A replay that lasts longer than tombstones live may have read a key before its tombstone
/// and find the tombstone gone: the key would come back. Found by `tests/protocol_model`.
#[must_use]
pub const fn may_replay(
    since: Timestamp,
    now: Timestamp,
    tombstone_retention: Option<i64>,
) -> bool {
    match tombstone_retention {
        Some(retention) => now.saturating_sub(since) < retention,
        None => true,
    }
}

/// What reading a changelog from a checkpoint on, read committed, has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBack {
    /// How far the reader has come.
    pub position: Offset,
    /// How many records it was given.
    pub records: usize,
}

/// Returns the offset that a store may be closed with, if it is further than its checkpoint: the
/// high watermark, where nothing but commit markers and aborted records lies between.
///
/// A checkpoint ends behind the last record, and the marker of its transaction lies behind that. A
/// store that is closed there never finds its changelog at the checkpoint again, so that its age
/// would count though nothing was written since. Whether the markers are all there is follows from
/// what a reader sees, not from who owns the task: a member that is about to learn that it has lost
/// its partitions may have a successor who has written already.
///
/// `high_watermark` was taken before the reader began.
#[must_use]
pub fn closing_offset(
    checkpoint: Offset,
    high_watermark: Offset,
    read: ReadBack,
) -> Option<Offset> {
    let only_markers = read.records == 0 && read.position >= high_watermark;
    (only_markers && high_watermark > checkpoint).then_some(high_watermark)
}

/// Checks, once the changelogs are replayed, that a task with state knows where to go on.
/// `has_state` is whether any of its stores holds a record: changelogs that hold nothing but aborted
/// records are none.
///
/// # Errors
/// [`RestoreRefusal::OffsetMissing`].
pub fn check_restored(stable: &StableOffsets, has_state: bool) -> Result<(), RestoreRefusal> {
    let missing = stable.inputs.iter().find(|(_, offset)| offset.is_none());
    match missing {
        Some((partition, _)) if has_state => Err(RestoreRefusal::OffsetMissing {
            partition: partition.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
