//! The thread's transaction, from "commit is due" to "the stores have it".

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::{Slot, StreamThread};
use crate::clock::Timestamp;
use crate::log::{Log, LogConsumer, LogProducer};
use crate::runtime::error::Fault;
use crate::runtime::protocol::{TransactionEvent, TransactionState};
use crate::runtime::task::Task;
use crate::runtime::{CommitFacts, CommitSettings, CrashPoint, PlantedBug, commit_due};
use crate::topology::TopicRef;

/// Offsets of owned partitions are committed again this often: brokers expire the offsets of topics
/// that the group does not subscribe (`offsets.retention.minutes`), even of a stable group.
const OFFSETS_REFRESH_MS: i64 = 60 * 60 * 1000;

impl<L: Log> StreamThread<L> {
    pub(super) fn commit_if_due(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let requested = self.live_mut().fold(false, |requested, task| {
            task.take_commit_request() | requested
        });
        let facts = CommitFacts {
            since_last_ms: now.saturating_sub(self.last_commit).max(0),
            has_results: self.live().any(Task::has_results),
            has_positions: self.live().any(Task::has_positions),
            inputs_dry: self.inputs_dry,
            uncommitted_bytes: self.uncommitted_bytes(),
            requested,
            offsets_stale: self
                .live()
                .any(|task| now - task.committed_at >= OFFSETS_REFRESH_MS),
        };
        if now < self.last_commit {
            // The clock was set back: intervals count from here.
            self.last_commit = now;
        }
        let settings = CommitSettings {
            interval: self.spec.config.commit_interval,
            min_interval: self.spec.config.commit_min_interval,
            uncommitted_bytes_max: self.uncommitted_bytes_max(),
        };
        match commit_due(facts, settings) {
            None => Ok(false),
            Some(reason) => {
                tracing::trace!(thread = %self.id, ?reason, "committing");
                self.commit(now)
            }
        }
    }

    /// When an idle thread has to look again, because something waits for a commit.
    pub(super) fn next_commit_due(&self) -> Option<Timestamp> {
        let interval = |limit: std::time::Duration| {
            self.last_commit
                .saturating_add(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX))
        };
        if self.live().any(Task::has_results) {
            Some(interval(self.spec.config.commit_min_interval))
        } else if self.live().any(Task::has_positions) {
            Some(interval(self.spec.config.commit_interval))
        } else {
            None
        }
    }

    /// Commits everything there is; returns whether there was anything. The stage tells the outcome.
    pub(super) fn commit(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let stale = |task: &Task<L::Message>| now - task.committed_at >= OFFSETS_REFRESH_MS;
        let ids = self.live_ids(|task| task.has_results() || task.has_positions() || stale(task));
        if ids.is_empty() {
            self.end_empty_transaction()?;
            return Ok(false);
        }
        self.commit_began = Some(Instant::now());
        let mut batches = VecDeque::with_capacity(ids.len());
        let mut offsets = Vec::new();
        for id in ids {
            let (batch, positions) = self.with_task(id, |task, producer, probe| {
                Ok((task.prepare_commit(producer, probe)?, task.offsets()))
            })?;
            assert!(
                !positions.is_empty(),
                "task {id} has no input offset to fence its commit with"
            );
            offsets.extend(positions);
            batches.push_back((id, batch));
        }
        self.plant_before_offsets(&mut offsets, &mut batches, now)?;
        // Invariant 1: metadata is taken afresh for each commit.
        let group = self.consumer.group_metadata()?;
        let sent = self.producer()?.send_offsets(&offsets, &group);
        if !self.planted(PlantedBug::FenceIgnored) {
            sent?;
        }
        self.transition(TransactionEvent::OffsetsSent)?;
        self.pending = batches;
        self.spec.probe.reached(CrashPoint::BeforeCommitRequest)?;
        self.request_commit(now)?;
        if self.transaction.may_apply() {
            self.apply(now)?;
        }
        Ok(true)
    }

    /// Ends a transaction in which nothing has happened: a punctuator that found nothing to do, a
    /// record that waits for its retry. Left open it would hold up whoever waits for a thread without
    /// a transaction: a revocation, a shutdown.
    fn end_empty_transaction(&mut self) -> Result<(), Fault> {
        if self.transaction == TransactionState::Open {
            self.transition(TransactionEvent::AbortDecided)?;
            self.producer()?.abort_transaction()?;
            self.transition(TransactionEvent::AbortSucceeded)?;
            self.transition(TransactionEvent::RolledBack)?;
        }
        Ok(())
    }

    /// Asks for the commit, for the first time or again.
    pub(super) fn request_commit(&mut self, now: Timestamp) -> Result<(), Fault> {
        self.transition(TransactionEvent::CommitRequested)?;
        let requested_at = self.spec.clock.now_ms();
        let answer = self.producer()?.commit_transaction();
        self.transition(TransactionEvent::of_commit(&answer))?;
        if self.transaction == TransactionState::OutcomeUnknown {
            self.meters.unknown_outcomes.inc();
            if self.plant_outcome(now)? {
                return Ok(());
            }
        }
        answer.map_err(Fault::Settled)?;
        let acknowledged: BTreeMap<_, _> =
            self.producer()?.take_acknowledged().into_iter().collect();
        for (id, batch) in &mut self.pending {
            if let Some(Slot::Live(task)) = self.slots.get_mut(id) {
                task.seal_batch(batch, &acknowledged, requested_at);
                if self.spec.probe.planted(PlantedBug::CheckpointAheadOfData) {
                    let mut ahead = task.db.batch();
                    task.seal_batch(&mut ahead, &acknowledged, requested_at);
                    let fault = |source| Fault::State {
                        task: task.id,
                        source,
                    };
                    task.db
                        .apply(ahead, now)
                        .and_then(|()| task.db.flush())
                        .map_err(fault)?;
                }
            }
        }
        self.meters.commits.inc();
        self.spec.probe.reached(CrashPoint::AfterCommitReply)?;
        Ok(())
    }

    /// Applies the committed batches. Where a store fails, recovery reopens its task, which finds the
    /// batch in its changelogs; the rest is applied by the next step.
    pub(super) fn apply(&mut self, now: Timestamp) -> Result<(), Fault> {
        assert!(
            self.transaction.may_apply(),
            "stores are written after the commit only"
        );
        let began = Instant::now();
        while let Some((id, batch)) = self.pending.pop_front() {
            let Some(Slot::Live(task)) = self.slots.get_mut(&id) else {
                continue;
            };
            self.spec.probe.reached(CrashPoint::BeforeStoreBatch)?;
            task.db
                .apply(batch, now)
                .map_err(|source| Fault::State { task: id, source })?;
            self.spec.probe.reached(CrashPoint::AfterStoreBatch)?;
            task.finish_commit(self.spec.clock.now_ms());
            task.publish_lag(|partition| self.consumer.high_watermark(partition));
        }
        self.transition(TransactionEvent::Applied)?;
        self.meters
            .batch_duration
            .observe(began.elapsed().as_secs_f64());
        if let Some(began) = self.commit_began.take() {
            self.meters
                .commit_duration
                .observe(began.elapsed().as_secs_f64());
        }
        self.give_up_trial();
        self.last_commit = self.spec.clock.now_ms();
        self.failed_in_a_row = 0;
        self.meters.failed_in_a_row.set(0);
        Ok(())
    }

    /// Aborts the transaction.
    pub(super) fn abort(&mut self, now: Timestamp) -> Result<(), Fault> {
        self.producer()?.abort_transaction()?;
        drop(self.producer()?.take_acknowledged());
        self.transition(TransactionEvent::AbortSucceeded)?;
        self.pending.clear();
        self.commit_began = None;
        self.give_up_trial();
        self.meters.aborts.inc();
        self.last_commit = now;
        self.pause_after_failures(now);
        Ok(())
    }

    /// Puts all tasks back to their last commit, after an abort.
    pub(super) fn rewind_tasks(&mut self, now: Timestamp) -> Result<(), Fault> {
        let cache_bytes = self.cache_bytes();
        for slot in self.slots.values_mut() {
            let Slot::Live(task) = slot else { continue };
            let positions: Vec<_> = task.group.partitions.iter().map(|it| it.position).collect();
            if self.spec.probe.planted(PlantedBug::OverlayKeptAfterAbort) {
                task.group.rewind();
            } else {
                let kept = self.spec.probe.planted(PlantedBug::TimeKeptAfterAbort);
                task.rebuild_with(now, cache_bytes, kept)?;
            }
            if self.spec.probe.planted(PlantedBug::PositionKeptAfterAbort) {
                for (input, position) in task.group.partitions.iter_mut().zip(positions) {
                    input.position = position;
                }
            }
            for input in &task.group.partitions {
                self.consumer.seek(&input.partition, input.position)?;
            }
        }
        self.transition(TransactionEvent::RolledBack)
    }

    /// Deletes what is committed from repartition topics, which nothing else ever deletes (their
    /// retention is unlimited, as Kafka Streams' is). Losing a purge costs space until the next.
    pub(super) fn purge_if_due(&mut self, now: Timestamp) {
        let interval = self.spec.config.repartition_purge_interval.as_millis();
        if now.saturating_sub(self.last_purge) < i64::try_from(interval).unwrap_or(i64::MAX) {
            return;
        }
        self.last_purge = now;
        let mut below = Vec::new();
        for task in self.live() {
            let Some(sub) = self.spec.topology.sub_topology(task.id.sub_topology) else {
                continue;
            };
            below.extend(
                task.group
                    .partitions
                    .iter()
                    .filter(|input| {
                        let source = sub.drawn.sources.get(input.source);
                        source
                            .is_some_and(|source| matches!(source.topic, TopicRef::Repartition(_)))
                    })
                    .filter(|input| input.committed > 0)
                    .map(|input| (input.partition.clone(), input.committed)),
            );
        }
        if below.is_empty() {
            return;
        }
        if let Err(error) = self.spec.log.delete_records(&below) {
            tracing::warn!(thread = %self.id, %error, "cannot purge repartition topics");
        }
    }

    pub(super) fn flush_if_due(&mut self, now: Timestamp) -> Result<(), Fault> {
        let interval =
            i64::try_from(self.spec.config.flush_interval.as_millis()).unwrap_or(i64::MAX);
        let due = |since: Timestamp| now.saturating_sub(since) >= interval;
        for task in self.live() {
            if task.db.dirty_since().is_some_and(due) {
                self.spec.probe.reached(CrashPoint::BeforeFlush)?;
                task.flush(&self.meters.flush_duration)?;
                self.spec.probe.reached(CrashPoint::AfterFlush)?;
            }
        }
        Ok(())
    }
}
