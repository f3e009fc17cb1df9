//! Changelog restore: brings a task's stores up to date before it processes records.
//!
//! # Position
//! `protocol::restore` decides what local state is worth and where each store goes on; the stream
//! thread hands the answer to a [`TaskRestore`], which production steps on restore threads and the
//! simulation inline. Reads through [`LogReader`], writes [`TaskDb`].
//! # Invariants
//! - A restore ends at the high watermark that was taken after the stable committed offsets
//!   ([`RestoreTarget`]), read committed. It does not end at the last stable offset: behind a dead
//!   owner's open transaction lie writes that a later owner has committed. It waits until the broker
//!   has aborted that transaction.
//! - Values and their changelog offset reach the store in one batch: a restore that is interrupted
//!   goes on where its last durable batch ended.
//! - Input offsets and reset generation are part of the state: the generation from the first batch
//!   on, so that an interrupted restore is not taken for state from before a reset; the input offsets
//!   with the last batch, when the state has reached them.
//! # Failure
//! A log that is away is waited for. [`LogError::OffsetOutOfRange`] means that the changelog was cut
//! under the restore: the caller sets the directory aside and starts over.

use std::fmt;
use std::time::Duration;

use super::protocol::restore::{RestoreTarget, StableOffsets, may_replay};
use super::{Crash, CrashPoint, PlantedBug, Probe};
use crate::clock::Timestamp;
use crate::format::checkpoint::{ChangelogPosition, Checkpoint, InputPosition};
use crate::format::with_headers;
use crate::log::{
    ConsumerWaker, Log, LogError, LogMessage, LogReader, Offset, TopicName, TopicPartition,
};
use crate::metrics::{StoreMetrics, TaskMetrics};
use crate::state::{CommitBatch, StateError, StoreId, TaskDb};
use crate::topology::SourceChangelog;

/// How many records a step asks for.
const RECORDS_PER_STEP: usize = 4096;

/// How much goes into one write: large enough to amortise it, small beside a memtable.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// How often a long restore says how far it is.
const REPORT_EVERY_MS: i64 = 10_000;

/// One store that is behind its changelog.
#[derive(Debug, Clone)]
pub struct ChangelogRestore {
    /// The store.
    pub store: String,
    /// Its changelog's partition.
    pub partition: TopicPartition,
    /// The changelog's topic id.
    pub topic_id: [u8; 16],
    /// The first offset that the store does not have.
    pub from: Offset,
    /// Where the restore ends.
    pub target: RestoreTarget,
    /// How long the restore may build on what it has read, in milliseconds
    /// ([`ChangelogFacts::tombstone_retention`](super::protocol::restore::ChangelogFacts)).
    pub tombstone_retention: Option<i64>,
    /// Where the changelog is an input of the task: what of it reaches the store.
    pub source: Option<SourceChangelog>,
    /// Whether the store's values begin with headers.
    pub keeps_headers: bool,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreStep {
    /// Something was read; there is more.
    Progressed,
    /// There is more, but nothing could be read: a dead owner's transaction is open, or the log is
    /// away.
    Waiting,
    /// All stores have reached their targets.
    Done,
}

/// Why a restore has ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The restore has lasted longer than tombstones live: what it has read may hold keys whose
    /// tombstones are gone by now. The caller sets the directory aside and starts over.
    #[error("the restore from {changelog} has lasted longer than its tombstones live")]
    OutlivedTombstones {
        /// The changelog's partition.
        changelog: String,
    },
    /// The task was given back.
    #[error("the restore was cancelled")]
    Cancelled,
    /// The restore panicked: a bug.
    #[error("the restore panicked")]
    Panicked,
    /// The simulation ended the process.
    #[error(transparent)]
    Crash(#[from] Crash),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The changelog cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreProgress {
    /// Changelog records applied.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Offsets between the positions and the targets: at least as many as records left.
    pub remaining: u64,
    /// Since the restore began.
    pub elapsed: Duration,
    /// When the rest will be done, at the rate so far; `None` before there is one.
    pub eta: Option<Duration>,
}

#[derive(Debug)]
struct Changelog {
    store: StoreId,
    partition: TopicPartition,
    topic_id: [u8; 16],
    position: Offset,
    target: RestoreTarget,
    tombstone_retention: Option<i64>,
    /// Until the target is reached: how old the state is that the restore builds on.
    fresh_at: Option<Timestamp>,
    source: Option<SourceChangelog>,
    keeps_headers: bool,
    /// The latest time of what was read.
    newest: Option<Timestamp>,
    metrics: StoreMetrics,
    /// Since the last step's report to the metrics.
    records: u64,
    bytes: u64,
}

impl Changelog {
    fn remaining(&self) -> u64 {
        u64::try_from(self.target.offset() - self.position).unwrap_or(0)
    }

    fn report(&mut self) {
        self.metrics
            .restored_records
            .inc_by(std::mem::take(&mut self.records));
        self.metrics
            .restored_bytes
            .inc_by(std::mem::take(&mut self.bytes));
        self.metrics
            .remaining_records
            .set(i64::try_from(self.remaining()).unwrap_or(i64::MAX));
    }
}

/// The restore of one task's stores. Owned, so that it can run on a thread of its own.
pub struct TaskRestore<L: Log> {
    reader: L::Reader,
    db: TaskDb,
    changelogs: Vec<Changelog>,
    stable: StableOffsets,
    /// When the targets were taken.
    began_at: Timestamp,
    first_remaining: u64,
    records: u64,
    bytes: u64,
    reported_at: Timestamp,
    interrupted: bool,
    messages: Vec<L::Message>,
}

impl<L: Log> fmt::Debug for TaskRestore<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRestore")
            .field("db", &self.db)
            .field("changelogs", &self.changelogs)
            .finish_non_exhaustive()
    }
}

impl<L: Log> TaskRestore<L> {
    /// Starts a restore. `stable` is what the targets were taken after, `now` no later than they
    /// were taken; `reader` reads committed records only.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the reader refuses the changelogs.
    ///
    /// # Panics
    /// When a store is none of `db`'s.
    pub fn new(
        mut reader: L::Reader,
        db: TaskDb,
        changelogs: Vec<ChangelogRestore>,
        stable: StableOffsets,
        now: Timestamp,
        metrics: &TaskMetrics,
    ) -> Result<Self, LogError> {
        let from: Vec<_> = changelogs
            .iter()
            .map(|one| (one.partition.clone(), one.from))
            .collect();
        reader.assign(&from)?;
        let checkpoint = db.checkpoint();
        let changelogs: Vec<_> = changelogs
            .into_iter()
            .map(|one| {
                let Some(store) = db.store_id(&one.store) else {
                    unreachable!("store `{}` is restored and not open", one.store);
                };
                Changelog {
                    store,
                    fresh_at: fresh_at(&checkpoint, &one).or(Some(now)),
                    metrics: metrics.store(&one.store),
                    partition: one.partition,
                    topic_id: one.topic_id,
                    position: one.from,
                    target: one.target,
                    tombstone_retention: one.tombstone_retention,
                    source: one.source,
                    keeps_headers: one.keeps_headers,
                    newest: None,
                    records: 0,
                    bytes: 0,
                }
            })
            .collect();
        let first_remaining = changelogs.iter().map(Changelog::remaining).sum();
        Ok(Self {
            reader,
            db,
            changelogs,
            stable,
            began_at: now,
            first_remaining,
            records: 0,
            bytes: 0,
            reported_at: now,
            interrupted: false,
            messages: Vec::new(),
        })
    }

    /// Reads up to a few thousand records, waiting up to `wait` for the first, and applies them.
    ///
    /// # Errors
    /// [`RestoreError::Log`] unless the same call may succeed later, [`RestoreError::State`],
    /// [`RestoreError::Crash`]. What was applied stays, with its offsets.
    pub fn step(
        &mut self,
        wait: Duration,
        now: Timestamp,
        probe: &dyn Probe,
    ) -> Result<RestoreStep, RestoreError> {
        probe.reached(CrashPoint::BeforeRestoreStep)?;
        self.messages.clear();
        match self.reader.poll(RECORDS_PER_STEP, wait, &mut self.messages) {
            Ok(_) => self.interrupted = false,
            Err(error) if error.is_retriable() && self.messages.is_empty() => {
                if !std::mem::replace(&mut self.interrupted, true) {
                    let state = self.db.path().display();
                    tracing::warn!(%state, %error, "restore waits for the log");
                }
                // The log may answer at once that it is away; nobody wakes this waker.
                let _woken = ConsumerWaker::default().wait(wait);
                return Ok(RestoreStep::Waiting);
            }
            Err(error) => return Err(error.into()),
        }
        if !probe.planted(PlantedBug::OldCheckpointTrusted) {
            self.check_age(now)?;
        }
        let moved = self.apply(now, probe)?;
        probe.reached(CrashPoint::AfterRestoreStep)?;
        self.report(now);
        Ok(if self.is_done() {
            RestoreStep::Done
        } else if moved {
            RestoreStep::Progressed
        } else {
            RestoreStep::Waiting
        })
    }

    /// Returns how far the restore is.
    #[must_use]
    pub fn progress(&self, now: Timestamp) -> RestoreProgress {
        let remaining: u64 = self.changelogs.iter().map(Changelog::remaining).sum();
        let elapsed_ms = u64::try_from(now.saturating_sub(self.began_at)).unwrap_or(0);
        let passed = self.first_remaining.saturating_sub(remaining);
        let eta = (passed > 0).then(|| {
            let eta = u128::from(elapsed_ms) * u128::from(remaining) / u128::from(passed);
            Duration::from_millis(u64::try_from(eta).unwrap_or(u64::MAX))
        });
        let (records, bytes) = (self.records, self.bytes);
        RestoreProgress {
            records,
            bytes,
            remaining,
            elapsed: Duration::from_millis(elapsed_ms),
            eta,
        }
    }

    /// Gives the database back.
    #[must_use]
    pub fn into_db(self) -> TaskDb {
        self.db
    }

    fn is_done(&self) -> bool {
        self.changelogs
            .iter()
            .all(|changelog| changelog.target.is_reached(changelog.position))
    }

    /// Before what was read is written: whether it still fits what was read before.
    fn check_age(&self, now: Timestamp) -> Result<(), RestoreError> {
        for changelog in &self.changelogs {
            let since = changelog.fresh_at.unwrap_or(self.began_at);
            if !changelog.target.is_reached(changelog.position)
                && !may_replay(since, now, changelog.tombstone_retention)
            {
                let changelog = changelog.partition.to_string();
                return Err(RestoreError::OutlivedTombstones { changelog });
            }
        }
        Ok(())
    }

    /// Writes what was read; returns whether any position has moved.
    fn apply(&mut self, now: Timestamp, probe: &dyn Probe) -> Result<bool, RestoreError> {
        let before: Vec<Offset> = self.changelogs.iter().map(|one| one.position).collect();
        let mut batch = self.db.batch();
        let mut newest = Timestamp::MIN;
        for message in std::mem::take(&mut self.messages) {
            let tombstone = message.value().is_none();
            if tombstone && probe.planted(PlantedBug::RestoreSkipsTombstones) {
                continue;
            }
            // Only suppressions have stores of such names in the simulation.
            let buffer = message.topic().ends_with("-buffer-changelog");
            if buffer && probe.planted(PlantedBug::SuppressBufferNotRestored) {
                continue;
            }
            // Likewise only joins that wait, and the versioned table.
            let waiting = message.topic().ends_with("-Buffer-changelog");
            if waiting && probe.planted(PlantedBug::GraceBufferNotRestored) {
                continue;
            }
            if message.topic().ends_with("-rates-changelog") {
                newest = newest.max(message.timestamp());
                let past = message.timestamp() < newest;
                if past && probe.planted(PlantedBug::PastNotRestored) {
                    continue;
                }
            }
            self.add(&mut batch, &message)?;
            if batch.bytes() >= BATCH_BYTES {
                let full = std::mem::replace(&mut batch, self.db.batch());
                self.write(full, now)?;
            }
        }
        // Past control records and aborted ones as well, which are not delivered.
        for changelog in &mut self.changelogs {
            if let Some(position) = self.reader.position(&changelog.partition) {
                let position = match changelog.source {
                    Some(_) => position.min(changelog.target.offset()),
                    None => position,
                };
                changelog.position = changelog.position.max(position);
            }
        }
        let moved = self
            .changelogs
            .iter()
            .zip(before)
            .any(|(one, before)| one.position != before);
        if moved || self.is_done() {
            if self.is_done() {
                self.complete(&mut batch);
            }
            self.write(batch, now)?;
        }
        Ok(moved)
    }

    fn add(&mut self, batch: &mut CommitBatch, message: &L::Message) -> Result<(), StateError> {
        let (topic, partition) = (message.topic(), message.partition());
        let Some(changelog) = self.changelogs.iter_mut().find(|one| {
            one.partition.partition == partition && TopicName::as_ref(&one.partition.topic) == topic
        }) else {
            return Ok(());
        };
        if changelog.source.is_some() && changelog.target.is_reached(message.offset()) {
            // Of an input, what follows has yet to be processed.
            return Ok(());
        }
        changelog.position = message.offset() + 1;
        changelog.newest = changelog.newest.max(Some(message.timestamp()));
        let source = changelog.source.as_ref();
        let Some(key) = message.key() else {
            if source.is_some() {
                // No table has such a key.
                return Ok(());
            }
            // A compacted topic refuses these; one that was not compacted may hold them.
            tracing::warn!(
                topic,
                partition,
                offset = message.offset(),
                "changelog record without key"
            );
            return Ok(());
        };
        let bytes = (key.len() + message.value().map_or(0, <[u8]>::len)) as u64;
        changelog.records += 1;
        changelog.bytes += bytes;
        self.records += 1;
        self.bytes += bytes;
        let timestamp = message.timestamp();
        if let Some(source) = source {
            let Some((key, value)) = (source.takes)(key, message.value()) else {
                return Ok(());
            };
            return batch.entry(changelog.store, &key, value.as_deref(), timestamp);
        }
        if let Some(value) = message.value().filter(|_| changelog.keeps_headers) {
            let mut local = Vec::with_capacity(value.len() + 64);
            with_headers::put_headers(&mut local, &message.headers());
            local.extend_from_slice(value);
            return batch.entry(changelog.store, key, Some(&local), timestamp);
        }
        batch.entry(changelog.store, key, message.value(), timestamp)
    }

    /// Adds what is true once all targets are reached.
    fn complete(&mut self, batch: &mut CommitBatch) {
        for changelog in &mut self.changelogs {
            // An input goes on behind its committed offset: nothing says how old what follows is.
            if changelog.source.is_none() {
                changelog.fresh_at = Some(self.began_at);
            } else if let Some(newest) = changelog.newest {
                changelog.fresh_at = Some(newest.min(self.began_at));
            }
        }
        let known = self.db.checkpoint().inputs;
        for (partition, offset) in &self.stable.inputs {
            let Some(next_offset) = *offset else { continue };
            let partition_time = known.get(partition).and_then(|input| input.partition_time);
            batch.set_input(
                partition.clone(),
                InputPosition {
                    next_offset,
                    partition_time,
                },
            );
        }
    }

    fn write(&self, mut batch: CommitBatch, now: Timestamp) -> Result<(), StateError> {
        for changelog in &self.changelogs {
            let position = ChangelogPosition {
                topic_id: changelog.topic_id,
                next_offset: changelog.position,
                fresh_at: changelog.fresh_at,
            };
            batch.set_changelog(changelog.store, position);
        }
        batch.set_generation(self.stable.generation);
        self.db.apply(batch, now)
    }

    fn report(&mut self, now: Timestamp) {
        self.changelogs.iter_mut().for_each(Changelog::report);
        let done = self.is_done();
        if !done && now.saturating_sub(self.reported_at) < REPORT_EVERY_MS {
            return;
        }
        self.reported_at = now;
        let RestoreProgress {
            records,
            bytes,
            remaining,
            elapsed,
            eta,
        } = self.progress(now);
        let state = self.db.path().display();
        if done {
            tracing::info!(%state, records, bytes, ?elapsed, "restored");
        } else {
            tracing::info!(%state, records, bytes, remaining, ?elapsed, ?eta, "restoring");
        }
    }
}

/// Returns how old the state is that a restore goes on from; `None` when it starts over.
fn fresh_at(checkpoint: &Checkpoint, restore: &ChangelogRestore) -> Option<Timestamp> {
    let position = checkpoint.changelogs.get(&restore.store)?;
    let same = position.topic_id == restore.topic_id && position.next_offset == restore.from;
    if same { position.fresh_at } else { None }
}

#[cfg(test)]
mod tests;
