//! Mistakes that the simulation's tests plant in the commit. No configuration reaches them: they are
//! here, in the production path, because a checker that has never caught one proves nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Slot, StreamThread};
use crate::clock::Timestamp;
use crate::format::offset_metadata::OBSERVED_TIME_PREFIX;
use crate::log::{CommittedOffset, Log, LogProducer, TopicPartition};
use crate::runtime::error::Fault;
use crate::runtime::protocol::TransactionState;
use crate::runtime::{PlantedBug, Probe};
use crate::state::{CommitBatch, TaskDb};
use crate::topology::TaskId;

/// Mistakes made when a task takes up what its operators have kept.
pub(super) fn forget_metadata(probe: &dyn Probe, metadata: &mut BTreeMap<Arc<str>, i64>) {
    let of_time = |key: &str| key.starts_with(OBSERVED_TIME_PREFIX);
    if probe.planted(PlantedBug::ObservedTimeLost) {
        metadata.retain(|key, _| !of_time(key));
    }
    if probe.planted(PlantedBug::EmittedWindowsForgotten) {
        metadata.retain(|key, _| of_time(key));
    }
}

/// A mistake made when a task's stores are opened.
pub(super) fn forget_sequences(
    probe: &dyn Probe,
    task: TaskId,
    db: &TaskDb,
    now: Timestamp,
) -> Result<(), Fault> {
    if !probe.planted(PlantedBug::SequencesBeginAgain) {
        return Ok(());
    }
    let fault = |source| Fault::State { task, source };
    let mut batch = db.batch();
    batch.forget_sequences().map_err(fault)?;
    db.apply(batch, now).map_err(fault)
}

impl<L: Log> StreamThread<L> {
    pub(super) fn planted(&self, bug: PlantedBug) -> bool {
        self.spec.probe.planted(bug)
    }

    /// Mistakes made before the offsets are sent.
    pub(super) fn plant_before_offsets(
        &mut self,
        offsets: &mut Vec<(TopicPartition, CommittedOffset)>,
        batches: &mut VecDeque<(TaskId, CommitBatch)>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        if self.planted(PlantedBug::TransactionWithoutOffsets) {
            offsets.truncate(1);
        }
        if self.planted(PlantedBug::OffsetsApartFromData) {
            self.producer()?.commit_transaction()?;
            self.producer()?.begin_transaction()?;
        }
        if self.planted(PlantedBug::AppliedBeforeCommit) {
            for (id, batch) in batches {
                let Some(Slot::Live(task)) = self.slots.get_mut(id) else {
                    continue;
                };
                let early = std::mem::replace(batch, task.db.batch());
                task.db
                    .apply(early, now)
                    .map_err(|source| Fault::State { task: *id, source })?;
            }
        }
        Ok(())
    }

    /// Mistakes about a commit whose outcome is unknown; returns whether one was made.
    pub(super) fn plant_outcome(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let outcome = if self.planted(PlantedBug::UnknownTakenForAbort) {
            TransactionState::Aborted
        } else if self.planted(PlantedBug::UnknownTakenForCommit) {
            TransactionState::Committed
        } else {
            return Ok(false);
        };
        self.producer = None;
        self.transaction = TransactionState::Unsettled;
        self.start_producer()?;
        self.transaction = outcome;
        if outcome == TransactionState::Aborted {
            self.pending.clear();
            self.rewind_tasks(now)?;
        }
        Ok(true)
    }
}
