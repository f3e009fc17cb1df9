//! From an assigned partition to a running task, and back.
//!
//! # Invariants
//! - ORDER: stable committed offsets, then changelog high watermarks, then the stores (invariant 3).
//! - A task is queried and processes records only once it is restored and initialised.

use std::collections::BTreeMap;

use super::{BACKOFF_MAX, StreamThread};
use crate::clock::Timestamp;
use crate::format::offset_metadata::{OffsetMetadata, RESET_GENERATION};
use crate::format::topic_config;
use crate::log::{
    CommittedOffset, Isolation, Log, LogConsumer, LogRange, Offset, TopicName, TopicPartition,
};
use crate::metrics::{SetAsideReason, TaskState};
use crate::reset::PENDING_KEY;
use crate::runtime::dead_letter::chain;
use crate::runtime::error::Fault;
use crate::runtime::meters::TaskMeters;
use crate::runtime::partition_group::InputPartition;
use crate::runtime::protocol::restore::{
    ChangelogCheckpoint, ChangelogFacts, Distrust, LocalCheckpoint, RestorePlan, RestoreTarget,
    StableOffsets, check_restored, plan_restore,
};
use crate::runtime::restore::{ChangelogRestore, RestoreError, TaskRestore};
use crate::runtime::restore_pool::Finished;
use crate::runtime::task::{Progress, Task, TaskParts};
use crate::runtime::topics::Changelog;
use crate::runtime::{CrashPoint, PlantedBug};
use crate::state::{StateError, StoreDecl, TaskDb};
use crate::topology::{Persistence, StoreSpec, SubTopology, TaskId};

/// Where an input starts, and what the group has committed for it.
#[derive(Debug, Clone)]
pub(super) struct StartOffset {
    pub(super) offset: Offset,
    pub(super) committed: Option<CommittedOffset>,
}

/// An assigned task whose stores are not open.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) sub_index: usize,
    /// Its partitions with the index of their source.
    pub(super) inputs: Vec<(TopicPartition, usize)>,
    /// In the order of `inputs`; absent when they have to be fetched again.
    pub(super) starts: Option<Vec<StartOffset>>,
    pub(super) not_before: Timestamp,
}

/// A task whose stores are with a restore.
#[derive(Debug)]
pub(super) struct Restoring {
    pub(super) created: Created,
    stable: StableOffsets,
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

/// How much less than `delete.retention.ms` a checkpoint's age may be: covers clocks that differ and
/// a restore that takes long.
const TOMBSTONE_MARGIN_MS: i64 = 60 * 60 * 1000;

impl<L: Log> StreamThread<L> {
    /// Opens the tasks that were assigned.
    pub(super) fn open_tasks(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let due: Vec<TaskId> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Created(created) if created.not_before <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in &due {
            if let Err(fault) = self.open_task(*id, now) {
                return self.postpone(*id, fault, now).map(|()| true);
            }
        }
        Ok(!due.is_empty())
    }

    /// A store that another thread is still closing, or a disk that is full, holds up one task only.
    fn postpone(&mut self, id: TaskId, fault: Fault, now: Timestamp) -> Result<(), Fault> {
        let Fault::State {
            source: StateError::Locked { .. } | StateError::Io { .. },
            ..
        } = &fault
        else {
            return Err(fault);
        };
        tracing::warn!(task = %id, error = %chain(&fault), "cannot open the task's state yet");
        self.spec.status.set_problem(chain(&fault));
        if let Some(Slot::Created(created)) = self.slots.get_mut(&id) {
            let pause = i64::try_from(BACKOFF_MAX.as_millis()).unwrap_or(1000);
            created.not_before = now.saturating_add(pause);
        }
        Ok(())
    }

    fn open_task(&mut self, id: TaskId, now: Timestamp) -> Result<(), Fault> {
        let Some(Slot::Created(created)) = self.slots.get(&id) else {
            return Err(Fault::Bug("a task is opened that is not waiting for it"));
        };
        let sub_index = created.sub_index;
        let partitions: Vec<TopicPartition> = created
            .inputs
            .iter()
            .map(|(partition, _)| partition.clone())
            .collect();
        let starts = match created.starts.clone() {
            Some(starts) => starts,
            None => {
                let starts = self.start_offsets(&partitions)?;
                for (partition, start) in partitions.iter().zip(&starts) {
                    self.consumer.seek(partition, start.offset)?;
                }
                starts
            }
        };
        refuse_pending_reset(&partitions, &starts)?;
        let stable = stable_offsets(&partitions, &starts);
        let changelogs = self.changelog_facts(sub_index, id, &stable)?;
        let (db, from) = self.open_stores(sub_index, id, &stable, &changelogs, now)?;
        let behind: Vec<ChangelogRestore> = from
            .into_iter()
            .filter_map(|(store, from)| {
                let (changelog, partition, facts) = changelogs.get(&store)?;
                let target = RestoreTarget::after(&stable, facts.range.end);
                (!target.is_reached(from)).then(|| ChangelogRestore {
                    store,
                    partition: partition.clone(),
                    topic_id: changelog.id,
                    from,
                    target,
                    tombstone_retention: facts.tombstone_retention,
                })
            })
            .collect();
        let created = Created {
            sub_index,
            inputs: std::mem::take(&mut self.created_inputs(id)),
            starts: Some(starts),
            not_before: 0,
        };
        if behind.is_empty() {
            return self.go_live(id, created, &stable, db, now);
        }
        let records: i64 = behind
            .iter()
            .map(|part| part.target.offset() - part.from)
            .sum();
        tracing::info!(task = %id, records, "restoring from changelogs");
        let planted = self.spec.probe.planted(PlantedBug::RestoreReadsUncommitted);
        let isolation = if planted {
            Isolation::ReadUncommitted
        } else {
            Isolation::ReadCommitted
        };
        let reader = self.spec.log.reader(isolation)?;
        let metrics = self.spec.metrics.task(self.spec.index, &id.to_string());
        let restore = TaskRestore::new(reader, db, behind, stable.clone(), now, &metrics)?;
        let waker = self.consumer.waker();
        self.spec
            .restores
            .submit(id, restore, &self.spec.probe, &self.spec.clock, waker);
        self.slots
            .insert(id, Slot::Restoring(Restoring { created, stable }));
        Ok(())
    }

    fn created_inputs(&self, id: TaskId) -> Vec<(TopicPartition, usize)> {
        match self.slots.get(&id) {
            Some(Slot::Created(created)) => created.inputs.clone(),
            Some(Slot::Restoring(_) | Slot::Live(_) | Slot::Closing) | None => Vec::new(),
        }
    }

    fn sub_topology(&self, sub_index: usize) -> Result<&SubTopology, Fault> {
        let id = self
            .spec
            .topology
            .sub_topologies
            .get(sub_index)
            .map(|sub| sub.id);
        self.spec
            .topology
            .topology
            .sub_topologies()
            .iter()
            .find(|sub| Some(sub.id) == id)
            .ok_or(Fault::Bug("a task without a sub-topology"))
    }

    /// Ranges of the task's changelogs, taken after the stable offsets.
    fn changelog_facts(
        &self,
        sub_index: usize,
        id: TaskId,
        _after: &StableOffsets,
    ) -> Result<BTreeMap<String, (Changelog, TopicPartition, ChangelogFacts)>, Fault> {
        let Some(resolved) = self.spec.topology.sub_topologies.get(sub_index) else {
            return Err(Fault::Bug("a task without a sub-topology"));
        };
        let partitions: Vec<TopicPartition> = resolved
            .changelogs
            .values()
            .map(|changelog| TopicPartition::new(TopicName::clone(&changelog.topic), id.partition))
            .collect();
        let planted = self
            .spec
            .probe
            .planted(PlantedBug::RestoreStopsAtLastStableOffset);
        let isolation = if planted {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        };
        let ranges: Vec<LogRange> = self.spec.log.log_ranges(&partitions, isolation)?;
        let sub = self.sub_topology(sub_index)?;
        let mut facts = BTreeMap::new();
        for (((store, changelog), partition), range) in
            resolved.changelogs.iter().zip(partitions).zip(ranges)
        {
            let config = sub
                .stores
                .iter()
                .find(|spec| spec.name == *store)
                .and_then(StoreSpec::changelog_config)
                .unwrap_or_default();
            let tombstone_retention = topic_config::delete_retention_ms(&config)
                .map(|retention| (retention - TOMBSTONE_MARGIN_MS).max(retention / 2));
            let of_store = ChangelogFacts {
                topic_id: changelog.id,
                range,
                tombstone_retention,
            };
            facts.insert(store.clone(), (changelog.clone(), partition, of_store));
        }
        Ok(facts)
    }

    /// Opens the task's stores and decides where each has to go on.
    fn open_stores(
        &mut self,
        sub_index: usize,
        id: TaskId,
        stable: &StableOffsets,
        changelogs: &BTreeMap<String, (Changelog, TopicPartition, ChangelogFacts)>,
        now: Timestamp,
    ) -> Result<(TaskDb, BTreeMap<String, Offset>), Fault> {
        let fault = |source| Fault::State { task: id, source };
        let stores: Vec<StoreDecl> = self
            .sub_topology(sub_index)?
            .stores
            .iter()
            .map(StoreDecl::from)
            .collect();
        let db = TaskDb::open(&self.spec.state.task_dir(id), &stores, &self.spec.budget)
            .map_err(fault)?;
        let mut local = local_checkpoint(&db, &stores);
        if self.spec.probe.planted(PlantedBug::OldCheckpointTrusted) {
            local
                .iter_mut()
                .flat_map(|it| it.changelogs.values_mut())
                .for_each(|it| it.at_end = now);
        }
        let facts = changelogs
            .iter()
            .map(|(store, (_, _, facts))| (store.clone(), *facts))
            .collect();
        let plan = plan_restore(local.as_ref(), stable, &facts, now)
            .map_err(|refusal| Fault::Refused(refusal.to_string()))?;
        match plan {
            RestorePlan::Replay(from) => Ok((db, from)),
            RestorePlan::SetAside(distrust, from) => {
                tracing::warn!(task = %id, reason = %distrust, "setting local state aside");
                drop(db);
                self.spec.state.set_aside(id, now).map_err(fault)?;
                self.spec.metrics.state_set_aside(reason(&distrust));
                let db = TaskDb::open(&self.spec.state.task_dir(id), &stores, &self.spec.budget)
                    .map_err(fault)?;
                Ok((db, from))
            }
        }
    }

    /// Takes restored stores back.
    pub(super) fn collect_restored(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let mut collected = false;
        while let Some(finished) = self.spec.restores.poll() {
            collected = true;
            let Finished {
                task: id,
                restore,
                result,
            } = finished;
            match self.slots.remove(&id) {
                Some(Slot::Restoring(Restoring { created, stable })) => match result {
                    Ok(()) => {
                        let db = restore.into_db();
                        // Should it not go live, recovery finds it here and opens it again.
                        let again = Created {
                            sub_index: created.sub_index,
                            inputs: created.inputs.clone(),
                            starts: None,
                            not_before: 0,
                        };
                        self.slots.insert(id, Slot::Created(again));
                        self.go_live(id, created, &stable, db, now)?;
                    }
                    Err(error) => {
                        drop(restore);
                        self.restore_failed(id, created, error, now)?;
                    }
                },
                Some(Slot::Closing) => {
                    drop(restore);
                    if let Some(created) = self.reopen.remove(&id) {
                        self.slots.insert(id, Slot::Created(created));
                    }
                }
                Some(other @ (Slot::Created(_) | Slot::Live(_))) => {
                    self.slots.insert(id, other);
                }
                None => {}
            }
        }
        Ok(collected)
    }

    fn restore_failed(
        &mut self,
        id: TaskId,
        created: Created,
        error: RestoreError,
        now: Timestamp,
    ) -> Result<(), Fault> {
        // Whatever happened: the next attempt reads offsets and watermarks afresh.
        let again = Created {
            starts: None,
            ..created
        };
        self.slots.insert(id, Slot::Created(again));
        match error {
            RestoreError::Cancelled => Ok(()),
            RestoreError::Panicked => Err(Fault::Bug("a restore panicked")),
            RestoreError::Crash(crash) => Err(crash.into()),
            RestoreError::State(source) => Err(Fault::State { task: id, source }),
            RestoreError::OutlivedTombstones { .. } => {
                tracing::warn!(task = %id, error = %chain(&error), "restore starts over");
                self.start_over(id, SetAsideReason::TooOld, now)
            }
            RestoreError::Log(error) => {
                tracing::warn!(task = %id, error = %chain(&error), "restore interrupted");
                if let crate::log::LogError::OffsetOutOfRange { .. } = &error {
                    self.start_over(id, SetAsideReason::OutOfRange, now)?;
                }
                self.postpone_open(id, now);
                Ok(())
            }
        }
    }

    /// Sets a task's directory aside, whose database is closed.
    fn start_over(
        &mut self,
        id: TaskId,
        reason: SetAsideReason,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.spec
            .state
            .set_aside(id, now)
            .map_err(|source| Fault::State { task: id, source })?;
        self.spec.metrics.state_set_aside(reason);
        Ok(())
    }

    fn postpone_open(&mut self, id: TaskId, now: Timestamp) {
        if let Some(Slot::Created(created)) = self.slots.get_mut(&id) {
            created.not_before = now.saturating_add(100);
        }
    }

    fn has_state(&self, db: &TaskDb, sub_index: usize) -> Result<bool, StateError> {
        let Ok(sub) = self.sub_topology(sub_index) else {
            return Ok(false);
        };
        for store in &sub.stores {
            if db.has_data(&store.name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn go_live(
        &mut self,
        id: TaskId,
        created: Created,
        stable: &StableOffsets,
        db: TaskDb,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let has_state = self
            .has_state(&db, created.sub_index)
            .map_err(|source| Fault::State { task: id, source })?;
        check_restored(stable, has_state).map_err(|refusal| Fault::Refused(refusal.to_string()))?;
        let inputs = created
            .inputs
            .iter()
            .zip(created.starts.iter().flatten())
            .map(|((partition, source), start)| {
                let time = start.committed.as_ref().and_then(|committed| {
                    OffsetMetadata::decode_or_default(&committed.metadata).partition_time
                });
                InputPartition {
                    partition: partition.clone(),
                    source: *source,
                    buffer: std::collections::VecDeque::new(),
                    position: start.offset,
                    committed: start.offset,
                    time,
                    committed_time: time,
                }
            })
            .collect();
        let metrics = self.spec.metrics.task(self.spec.index, &id.to_string());
        // The series exist from here on: a scrape shows that nothing had to be restored.
        for store in &self.sub_topology(created.sub_index)?.stores {
            drop(metrics.store(&store.name));
        }
        let meters = TaskMeters::new(metrics, &created.inputs);
        let metadata = kept_metadata(created.starts.iter().flatten());
        let task = Task::new(TaskParts {
            id,
            sub_index: created.sub_index,
            topology: std::sync::Arc::clone(&self.spec.topology),
            inputs,
            db,
            meters,
            generation: stable.generation,
            now,
            cache_bytes: self.cache_bytes(),
            metadata,
        })?;
        self.slots.insert(id, Slot::Live(Box::new(task)));
        Ok(())
    }

    /// Lets processors prepare; a task whose processors are all ready runs, and can be queried.
    pub(super) fn initialise_tasks(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let mut worked = false;
        for id in self.live_ids(|task| task.progress != Progress::Running) {
            worked = true;
            let ready = if self.needs_transaction_to_initialise(id) {
                self.with_task(id, |task, producer, _| task.initialise(now, producer))?
            } else {
                true
            };
            if !ready {
                continue;
            }
            if let Some(Slot::Live(task)) = self.slots.get_mut(&id) {
                task.progress = Progress::Running;
                self.spec.queries.register(id, &task.db.read_handle());
                tracing::info!(thread = %self.id, task = %id, "task runs");
            }
            self.spec.probe.reached(CrashPoint::AfterTakeover)?;
        }
        Ok(worked)
    }

    fn needs_transaction_to_initialise(&self, id: TaskId) -> bool {
        matches!(self.slots.get(&id), Some(Slot::Live(task)) if task.has_processors())
    }

    /// What one task may keep cached of clean entries: an eighth of the budget over all tasks.
    pub(super) fn cache_bytes(&self) -> usize {
        let tasks = self.slots.len().max(1) * self.spec.config.threads.max(1);
        let budget = usize::try_from(self.spec.config.memory_max / 8).unwrap_or(usize::MAX);
        budget / tasks
    }

    /// Closes a task whose work is committed: its stores are flushed, so that the next owner of this
    /// directory has nothing to replay.
    pub(super) fn close_clean(&mut self, id: TaskId) -> Result<(), Fault> {
        if let Some(Slot::Live(task)) = self.slots.get_mut(&id) {
            assert!(
                !task.has_results(),
                "task {id} is closed with uncommitted results"
            );
            task.db
                .flush()
                .map_err(|source| Fault::State { task: id, source })?;
        }
        self.close_dirty(id);
        Ok(())
    }

    /// Closes a task as it is. What was not committed is gone; what was not flushed is replayed.
    pub(super) fn close_dirty(&mut self, id: TaskId) {
        self.reopen.remove(&id);
        self.spec.queries.remove(id);
        match self.slots.remove(&id) {
            Some(Slot::Live(mut task)) => task.close_processors(),
            Some(Slot::Restoring(_) | Slot::Closing) => {
                self.spec.restores.cancel(id);
                self.slots.insert(id, Slot::Closing);
            }
            Some(Slot::Created(_)) | None => {}
        }
    }
}

/// A reset that has begun may have deleted some topics and not others: nothing is to be built on
/// what is left.
fn refuse_pending_reset(
    partitions: &[TopicPartition],
    starts: &[StartOffset],
) -> Result<(), Fault> {
    for (partition, start) in partitions.iter().zip(starts) {
        let committed = start.committed.as_ref();
        let metadata =
            committed.map(|committed| OffsetMetadata::decode_or_default(&committed.metadata));
        if metadata.is_some_and(|metadata| metadata.entries.contains_key(PENDING_KEY)) {
            return Err(Fault::Refused(format!(
                "a reset has begun and not ended (the committed offset of {partition} is marked): \
                 run `millstream reset --execute` again to finish it"
            )));
        }
    }
    Ok(())
}

/// What operators have kept in the committed offsets, of which each carries all; the latest counts.
fn kept_metadata<'a>(
    starts: impl Iterator<Item = &'a StartOffset>,
) -> BTreeMap<std::sync::Arc<str>, i64> {
    let mut kept = BTreeMap::<std::sync::Arc<str>, i64>::new();
    for committed in starts.filter_map(|start| start.committed.as_ref()) {
        let entries = OffsetMetadata::decode_or_default(&committed.metadata).entries;
        for (key, value) in entries {
            if key != RESET_GENERATION {
                let known = kept.entry(key.into()).or_insert(value);
                *known = value.max(*known);
            }
        }
    }
    kept
}

fn stable_offsets(partitions: &[TopicPartition], starts: &[StartOffset]) -> StableOffsets {
    let generation = starts
        .iter()
        .filter_map(|start| start.committed.as_ref())
        .map(|committed| OffsetMetadata::decode_or_default(&committed.metadata).generation())
        .max()
        .unwrap_or(0);
    let inputs = partitions
        .iter()
        .zip(starts)
        .map(|(partition, start)| {
            (
                partition.clone(),
                start.committed.as_ref().map(|committed| committed.offset),
            )
        })
        .collect();
    StableOffsets { inputs, generation }
}

/// What the directory says; in-memory stores have nothing to say, they start over.
fn local_checkpoint(db: &TaskDb, stores: &[StoreDecl]) -> Option<LocalCheckpoint> {
    let checkpoint = db.checkpoint();
    if checkpoint.is_empty() {
        return None;
    }
    let on_disk = |store: &str| {
        stores
            .iter()
            .any(|decl| decl.name == store && decl.persistence == Persistence::RocksDb)
    };
    Some(LocalCheckpoint {
        generation: checkpoint.generation.unwrap_or(0),
        inputs: checkpoint
            .inputs
            .iter()
            .map(|(partition, position)| (partition.clone(), position.next_offset))
            .collect(),
        changelogs: checkpoint
            .changelogs
            .iter()
            .filter(|(store, _)| on_disk(store))
            .map(|(store, position)| {
                let of_store = ChangelogCheckpoint {
                    topic_id: position.topic_id,
                    offset: position.next_offset,
                    at_end: position.fresh_at.unwrap_or(0),
                };
                (store.clone(), of_store)
            })
            .collect(),
    })
}

fn reason(distrust: &Distrust) -> SetAsideReason {
    match distrust {
        Distrust::OlderGeneration { .. } => SetAsideReason::Reset,
        Distrust::OtherTopic { .. } => SetAsideReason::TopicId,
        Distrust::OutsideLog { .. } => SetAsideReason::OutOfRange,
        Distrust::TooOld { .. } => SetAsideReason::TooOld,
    }
}
