//! From an assigned partition to a running task.
//!
//! ```text
//!              ┌────────── not yet: the store is locked, the disk is full, the log is away ──────────┐
//!              ▼                                                                                      │
//! assigned ─▶ Created ── stores judged and opened, changelogs ahead ──▶ Restoring ── failed ──────────┤
//!              ▲  │                                                       │    │                      │
//!              │  └─ nothing to replay ─┐                       restored ─┘    └─ given back ─▶ Closing
//!              │                        ▼                           ▼                            │  │
//!              │                 Live (Initialising) ── processors are ready ──▶ Live (Running)  │  │
//!              │                        │                                          │             │  │
//!              └── store failed, damaged, or fenced: closed to be opened again ◀───┴─────────────┘  │
//!                                                                                                   ▼
//! given back, thread stops: from Created and Live at once, from Closing when the restore lets go ─▶ gone
//! ```
//! `Live` is [`super::slot::Slot::Live`]; its progress is [`Progress`]. A restore owns the stores while it
//! runs, so that a slot which loses its partitions then waits in `Closing`, and a slot that is to be
//! opened again finds its way back to `Created` from there.
//! # Invariants
//! - ORDER: stable committed offsets, then changelog high watermarks, then the stores (invariant 3).
//! - A task is queried and processes records only once it is restored and initialised.

use std::collections::BTreeMap;
use std::time::Duration;

use super::careful::Trial;
use super::judge::{ChangelogOf, kept_metadata, refuse_pending_reset, stable_offsets};
use super::slot::{Created, Restoring, Slot};
use super::{BACKOFF_MAX, StreamThread};
use crate::clock::Timestamp;
use crate::format::offset_metadata::OffsetMetadata;
use crate::log::{Isolation, Log, LogConsumer, Offset, TopicPartition};
use crate::runtime::dead_letter::chain;
use crate::runtime::error::Fault;
use crate::runtime::meters::TaskMeters;
use crate::runtime::partition_group::{Idle, InputPartition};
use crate::runtime::protocol::restore::{RestoreTarget, StableOffsets, check_restored};
use crate::runtime::restore::{ChangelogRestore, TaskRestore};
use crate::runtime::task::{Progress, Task, TaskParts};
use crate::runtime::{CrashPoint, PlantedBug, SubTopologyRef};
use crate::state::{StateError, TaskDb};
use crate::topology::{TaskId, TopicRef};

/// How long a step opens tasks at most, the last one's time apart.
const OPENING_MAX_MS: i64 = 250;

impl<L: Log> StreamThread<L> {
    /// Opens the tasks that were assigned.
    pub(super) fn open_tasks(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let awaits = !self.spec.probe.planted(PlantedBug::GlobalsNotAwaited);
        if awaits && !self.spec.globals.is_ready() {
            return Ok(false);
        }
        let due: Vec<TaskId> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Created(created) if created.not_before <= now))
            .map(|(id, _)| *id)
            .collect();
        let began = self.spec.clock.now_ms();
        for id in &due {
            if let Err(fault) = self.open_task(*id, now) {
                return self.postpone(*id, fault, now).map(|()| true);
            }
            // Each asks the broker and opens a database. Of many, those that run go on meanwhile: their
            // transaction would time out.
            if self.spec.clock.now_ms().saturating_sub(began) >= OPENING_MAX_MS {
                break;
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
        let (inputs, assigned_at) = (created.inputs.clone(), created.assigned_at);
        let partitions: Vec<TopicPartition> = inputs
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
        let changelogs = self.changelog_facts(id, &stable)?;
        let (db, from) = self.open_stores(id, &stable, &changelogs, now)?;
        let behind = behind(&changelogs, from, &stable);
        let created = Created {
            inputs,
            starts: Some(starts),
            not_before: 0,
            assigned_at,
        };
        if behind.is_empty() {
            self.go_live(id, created, &stable, db, now)
        } else {
            self.restore(id, created, stable, db, behind, now)
        }
    }

    /// Hands the stores to a restore.
    fn restore(
        &mut self,
        id: TaskId,
        created: Created,
        stable: StableOffsets,
        db: TaskDb,
        behind: Vec<ChangelogRestore>,
        now: Timestamp,
    ) -> Result<(), Fault> {
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

    pub(super) fn sub_topology(&self, id: TaskId) -> Result<SubTopologyRef<'_>, Fault> {
        let sub = self.spec.topology.sub_topology(id.sub_topology);
        sub.ok_or(Fault::Bug("a task without a sub-topology"))
    }

    pub(super) fn go_live(
        &mut self,
        id: TaskId,
        created: Created,
        stable: &StableOffsets,
        db: TaskDb,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let mut has_state = false;
        for store in &self.sub_topology(id)?.drawn.stores {
            let has_data = db.has_data(&store.name);
            has_state |= has_data.map_err(|source| Fault::State { task: id, source })?;
        }
        let sources = &self.sub_topology(id)?.drawn.sources;
        let read = db.checkpoint().inputs;
        let has_appeared = |partition: &TopicPartition| {
            let input = created.inputs.iter().find(|(input, _)| input == partition);
            let source = input.and_then(|(_, source)| sources.get(*source));
            source.is_some_and(|source| matches!(source.topic, TopicRef::Pattern(_)))
                && !read.contains_key(partition)
        };
        // A topic that a pattern has found since has no offset because nobody has read it.
        let mut known = stable.clone();
        known
            .inputs
            .retain(|partition, offset| offset.is_some() || !has_appeared(partition));
        check_restored(&known, has_state).map_err(|refusal| Fault::Refused(refusal.to_string()))?;
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
                    buffered_bytes: 0,
                    extracts: false,
                    head: None,
                    idle: Idle::default(),
                    position: start.offset,
                    committed: start.offset,
                    time,
                    committed_time: time,
                }
            })
            .collect();
        let metrics = self.spec.metrics.task(self.spec.index, &id.to_string());
        // The series exist from here on: a scrape shows that nothing had to be restored.
        for store in &self.sub_topology(id)?.drawn.stores {
            drop(metrics.store(&store.name));
        }
        let restored_after = self.spec.clock.now_ms().saturating_sub(created.assigned_at);
        let restored_after = Duration::from_millis(u64::try_from(restored_after).unwrap_or(0));
        self.meters
            .restore_duration
            .observe(restored_after.as_secs_f64());
        let meters = TaskMeters::new(metrics, &created.inputs);
        let mut metadata = kept_metadata(created.starts.iter().flatten());
        super::planted::forget_metadata(&*self.spec.probe, &mut metadata);
        super::planted::forget_sequences(&*self.spec.probe, id, &db, now)?;
        let task = Task::new(TaskParts {
            id,
            topology: std::sync::Arc::clone(&self.spec.topology),
            inputs,
            db,
            meters,
            generation: stable.generation,
            metadata,
            now,
            cache_bytes: self.cache_bytes(),
            globals: self.spec.globals.clone(),
        })?;
        self.slots.insert(id, Slot::Live(Box::new(task)));
        self.cache_share = None;
        Ok(())
    }

    /// Lets processors prepare; a task whose processors are all ready runs, and can be queried.
    pub(super) fn initialise_tasks(&mut self, now: Timestamp) -> Result<bool, Fault> {
        let mut worked = false;
        for id in self.live_ids(|task| task.progress != Progress::Running) {
            worked = true;
            let ready = if self.needs_transaction_to_initialise(id) {
                self.begin_trial(Trial::OfNoRecord(id), now)?;
                let ready =
                    self.with_task(id, |task, producer, _| task.initialise(now, producer))?;
                self.end_trial(now)?;
                ready
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

    /// What one task may keep cached of clean entries.
    pub(super) fn cache_bytes(&self) -> usize {
        self.shares.cached / self.slots.len().max(1)
    }
}

/// The stores that have not reached their changelogs' ends.
fn behind(
    changelogs: &BTreeMap<String, ChangelogOf>,
    from: BTreeMap<String, Offset>,
    stable: &StableOffsets,
) -> Vec<ChangelogRestore> {
    from.into_iter()
        .filter_map(|(store, from)| {
            let ChangelogOf {
                partition,
                facts,
                source,
                keeps_headers,
            } = changelogs.get(&store)?;
            let target = RestoreTarget::after(stable, facts.range.end);
            (!target.is_reached(from)).then(|| ChangelogRestore {
                store,
                partition: partition.clone(),
                topic_id: facts.topic_id,
                from,
                target,
                tombstone_retention: facts.tombstone_retention,
                source: source.clone(),
                keeps_headers: *keeps_headers,
            })
        })
        .collect()
}
