//! Global state: the stores that every process holds whole.
//!
//! # Position
//! One [`GlobalThread`] per process whose topology has global tables. In production an OS thread of its
//! own loops [`GlobalThread::step`]; `TopologyTestDriver` steps it inline. It reads all partitions of
//! the topics, read committed and outside the group, into a RocksDB of its own below the state
//! directory; tasks and queries read that through [`GlobalStores`].
//!
//! ```text
//! Closed ── checkpoint judged, chains made ──▶ Restoring ── topics' ends of that time reached ──▶ Running
//!   ▲                                             │
//!   └── damaged, cut, outlived: set aside ────────┘
//! ```
//! # Invariants
//! - Stream threads open no task before the stores are open: [`GlobalStores::is_ready`].
//! - Entries and the offsets they reach are one write; the checkpoint is judged by the rules of tasks
//!   ([`plan_restore`](super::protocol::restore::plan_restore)), with a topic in the place of a
//!   changelog: a restart replays the tail only.
//! - There is no transaction: the topic is the truth, and what a crash loses is read again.
//! # Failure
//! The log that is away is waited for. A damaged store is set aside and read again as long as nobody
//! reads it; after that the thread ends, and with it the process: tasks must not go on with a table that
//! has stopped. Kafka Streams ends its client then, too.

mod judge;
mod part;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::dead_letter::chain;
use super::error::Fault;
use super::meters::TaskStates;
use super::protocol::restore::may_replay;
use super::{
    CrashPoint, Membership, PlantedBug, Probe, ResolvedTopology, RuntimeConfig, Step, TaskState,
    ThreadError, ThreadStatus,
};
use crate::clock::{Clock, Timestamp};
use crate::format::names;
use crate::log::{Isolation, Log, LogError, LogReader, Offset, TopicPartition};
use crate::metrics::{Metrics, SetAsideReason};
use crate::query::QueryRegistry;
use crate::state::{
    GlobalStores, MemoryBudget, StateDir, StateError, StoreDecl, TaskDb, set_aside,
};
use crate::topology::TaskId;
use judge::{Judged, judge};
use part::Part;

/// How many records go into one write.
const RECORDS_PER_STEP: usize = 4096;
/// The pause after a first error that may pass; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Everything global state is made of.
pub struct GlobalSpec<L: Log> {
    /// The log.
    pub log: L,
    /// The topology with its physical topics.
    pub topology: Arc<ResolvedTopology>,
    /// The settings.
    pub config: Arc<RuntimeConfig>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// May end the process at a [`CrashPoint`].
    pub probe: Arc<dyn Probe>,
    /// The process's state directory, locked.
    pub state: Arc<StateDir>,
    /// Caches and memtables of the process.
    pub budget: Arc<MemoryBudget>,
    /// What tasks read the stores through.
    pub stores: GlobalStores,
    /// Where queries find committed stores.
    pub queries: Arc<QueryRegistry>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// What others may know of it.
    pub status: Arc<ThreadStatus>,
}

impl<L: Log> fmt::Debug for GlobalSpec<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalSpec").finish_non_exhaustive()
    }
}

/// See the module.
pub struct GlobalThread<L: Log> {
    spec: GlobalSpec<L>,
    task_states: TaskStates,
    open: Option<Open<L>>,
    /// No call to the log before this time.
    resume_at: Timestamp,
    backoff: Duration,
}

impl<L: Log> fmt::Debug for GlobalThread<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalThread").finish_non_exhaustive()
    }
}

/// Stores that are being read into.
struct Open<L: Log> {
    reader: L::Reader,
    db: TaskDb,
    parts: Vec<Part>,
    ready: bool,
    /// Before the ends were asked for.
    opened_at: Timestamp,
    /// When everything there was had been read: of a restore, what it builds on.
    fresh_at: Timestamp,
    /// Ends that the broker has told, and before when: once they are read, the stores are that young.
    /// Reading nothing tells nothing: the broker may be away.
    ends: Option<(Timestamp, BTreeMap<TopicPartition, Offset>)>,
    /// When the checkpoint is brought to disk again.
    checkpoint_at: Timestamp,
    messages: Vec<L::Message>,
}

impl<L: Log> GlobalThread<L> {
    /// Prepares to read; the first step does.
    #[must_use]
    pub fn new(spec: GlobalSpec<L>) -> Self {
        // Shown beside the stream threads, behind the last of them.
        let task_states = TaskStates::new(&spec.metrics, spec.config.threads);
        Self {
            spec,
            task_states,
            open: None,
            resume_at: 0,
            backoff: BACKOFF_MIN,
        }
    }

    /// Reads what there is, waiting up to `wait` for the first record.
    ///
    /// # Errors
    /// [`ThreadError`]: global state has ended, and the process with it.
    pub fn step(&mut self, wait: Duration) -> Result<Step, ThreadError> {
        let now = self.spec.clock.now_ms();
        if now < self.resume_at {
            let left = u64::try_from(self.resume_at - now).unwrap_or(0);
            return Ok(Step::Idle(Duration::from_millis(left)));
        }
        let step = match self.turn(wait, now) {
            Ok(step) => {
                self.backoff = BACKOFF_MIN;
                Ok(step)
            }
            Err(fault) => self.recover(fault, now),
        };
        self.publish(now);
        step
    }

    /// Brings everything to disk.
    ///
    /// # Errors
    /// [`ThreadError::State`].
    pub fn close(mut self) -> Result<(), ThreadError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let now = self.spec.clock.now_ms();
        let closed = open.checkpoint(now).and_then(|()| open.db.flush());
        closed.map_err(|source| state_error(&open, source))
    }

    fn turn(&mut self, wait: Duration, now: Timestamp) -> Result<Step, Fault> {
        if self.open.is_none() {
            self.open = Some(self.open_stores(now)?);
        }
        let Some(open) = &mut self.open else {
            return Err(Fault::Bug("global stores are open and are not"));
        };
        let moved = open.read(&*self.spec.probe, wait, now)?;
        if !open.ready {
            if let Some(partition) = open.outlived(now) {
                tracing::warn!(%partition, "the restore has lasted longer than tombstones live");
                self.open = None;
                let task = self.task_id();
                self.set_aside(SetAsideReason::TooOld, now)
                    .map_err(|source| Fault::State { task, source })?;
                return Ok(Step::Worked);
            }
            if open.parts.iter().all(Part::is_restored) {
                self.make_ready(now)?;
                return Ok(Step::Worked);
            }
        }
        self.checkpoint_if_due(now)?;
        Ok(if moved {
            Step::Worked
        } else {
            Step::Idle(Duration::ZERO)
        })
    }

    fn directory(&self) -> PathBuf {
        names::global_directory(self.spec.state.path())
    }

    fn task_id(&self) -> TaskId {
        let first = self.spec.topology.globals().next();
        TaskId {
            sub_topology: first.map_or(0, |part| part.topics.id),
            partition: 0,
        }
    }

    /// Opens the stores at what the checkpoint is worth.
    fn open_stores(&self, now: Timestamp) -> Result<Open<L>, Fault> {
        let spec = &self.spec;
        let task = self.task_id();
        let fault = |source| Fault::State { task, source };
        let partitions: Vec<TopicPartition> = spec
            .topology
            .globals()
            .flat_map(|part| part::partitions(&part))
            .collect();
        // ORDER: the ends first; what is written after them is not waited for.
        let ranges = spec.log.log_ranges(&partitions, Isolation::ReadCommitted)?;
        let ranges: BTreeMap<_, _> = partitions.into_iter().zip(ranges).collect();
        let stores = spec.topology.globals().flat_map(|part| &part.drawn.stores);
        let stores: Vec<StoreDecl> = stores.map(StoreDecl::from).collect();
        let mut db = TaskDb::open(&self.directory(), &stores, &spec.budget).map_err(fault)?;
        let Judged { from, distrust } = judge(&spec.topology, &db, &ranges, now, &*spec.probe)
            .map_err(|error| error.into_fault(task))?;
        if let Some(distrust) = distrust {
            tracing::warn!(reason = %distrust, "setting global state aside");
            drop(db);
            self.set_aside(distrust.metric_reason(), now)
                .map_err(fault)?;
            db = TaskDb::open(&self.directory(), &stores, &spec.budget).map_err(fault)?;
        }
        let fresh_at = judge::fresh_at(&db).unwrap_or(now);
        let mut parts = Vec::new();
        for part in spec.topology.globals() {
            let metrics = &spec.metrics;
            let metrics = (metrics, spec.config.threads);
            let part = Part::new(
                &part,
                &spec.topology.topology,
                &db,
                &from,
                &ranges,
                metrics,
                now,
            );
            let mut part = part.map_err(fault)?;
            part.init()?;
            parts.push(part);
        }
        let mut reader = spec.log.reader(Isolation::ReadCommitted)?;
        let starts: Vec<_> = parts.iter().flat_map(Part::positions).collect();
        reader.assign(&starts)?;
        let records: i64 = parts.iter().map(Part::remaining).sum();
        tracing::info!(records, "restoring global state");
        Ok(Open {
            reader,
            db,
            parts,
            ready: false,
            opened_at: now,
            fresh_at,
            ends: None,
            checkpoint_at: now,
            messages: Vec::new(),
        })
    }

    fn set_aside(&self, reason: SetAsideReason, now: Timestamp) -> Result<(), StateError> {
        set_aside(&self.directory(), now)?;
        self.spec.metrics.state_set_aside(reason);
        Ok(())
    }

    fn make_ready(&mut self, now: Timestamp) -> Result<(), Fault> {
        let Some(open) = &mut self.open else {
            return Err(Fault::Bug("global stores are ready and not open"));
        };
        open.ready = true;
        open.fresh_at = open.opened_at;
        open.flush(&*self.spec.probe, now)?;
        let handle = open.db.read_handle();
        for part in &mut open.parts {
            part.end_restore();
            self.spec.queries.register(part.id(), &handle);
        }
        self.spec.stores.open(handle);
        tracing::info!("global state is restored");
        Ok(())
    }

    /// Now and then: an idle table stays young, and shows how far it is.
    fn checkpoint_if_due(&mut self, now: Timestamp) -> Result<(), Fault> {
        let Some(open) = self.open.as_mut().filter(|open| now >= open.checkpoint_at) else {
            return Ok(());
        };
        let interval = self.spec.config.flush_interval.as_millis();
        let interval = i64::try_from(interval).unwrap_or(i64::MAX);
        open.checkpoint_at = now.saturating_add(interval);
        if open.ready {
            open.flush(&*self.spec.probe, now)?;
            let positions: Vec<_> = open.parts.iter().flat_map(Part::positions).collect();
            let partitions: Vec<_> = positions
                .into_iter()
                .map(|(partition, _)| partition)
                .collect();
            if let Some(partition) = open.overdue(now) {
                return Err(Fault::Refused(format!(
                    "{partition} of a global table could not be read for longer than its topic keeps \
                     tombstones, so that deleted keys may still be in the table; restart to read the \
                     topic from its start"
                )));
            }
            let ranges = self
                .spec
                .log
                .log_ranges(&partitions, Isolation::ReadCommitted)?;
            for part in &open.parts {
                part.show_lag(&partitions, &ranges);
            }
            if open.ends.is_none() {
                let ends = ranges.iter().map(|range| range.end);
                open.ends = Some((now, partitions.into_iter().zip(ends).collect()));
            }
        }
        Ok(())
    }

    fn publish(&mut self, now: Timestamp) {
        let ready = self.open.as_ref().is_some_and(|open| open.ready);
        let state = if ready {
            TaskState::Running
        } else {
            TaskState::Restoring
        };
        let parts = self.spec.topology.globals();
        let tasks: BTreeMap<TaskId, TaskState> = parts
            .map(|part| {
                let id = TaskId {
                    sub_topology: part.topics.id,
                    partition: 0,
                };
                (id, state)
            })
            .collect();
        self.task_states.show(&tasks);
        let membership = Membership::Assigned;
        self.spec
            .status
            .update(membership, self.resume_at, now, tasks);
    }

    /// Turns a fault into the next move, or the end.
    fn recover(&mut self, fault: Fault, now: Timestamp) -> Result<Step, ThreadError> {
        let ready = self.open.as_ref().is_some_and(|open| open.ready);
        match fault {
            Fault::Log(error) | Fault::Settled(error) | Fault::Blamed(error) => {
                self.recover_log(error, ready, now)
            }
            Fault::State { task, source } => match &source {
                StateError::Corrupted { .. } if !ready => {
                    tracing::error!(error = %chain(&source), "global state is damaged");
                    self.start_over(SetAsideReason::Damaged, now)
                }
                StateError::Io { .. } | StateError::Locked { .. } if !ready => {
                    self.open = None;
                    self.note(&source);
                    Ok(self.back_off(now))
                }
                StateError::Corrupted { .. }
                | StateError::Io { .. }
                | StateError::Locked { .. }
                | StateError::Decode { .. }
                | StateError::Encode { .. }
                | StateError::Closed { .. }
                | StateError::UnknownStore { .. } => Err(ThreadError::State { task, source }),
            },
            Fault::Processing { task, at, source } => {
                Err(ThreadError::Processing { task, at, source })
            }
            Fault::Refused(text) => Err(ThreadError::Refused(text)),
            Fault::FencedInstance(message) => Err(ThreadError::FencedInstance { message }),
            Fault::Bug(text) => Err(ThreadError::Bug(text.to_owned())),
            Fault::Illegal(transition) => Err(ThreadError::Bug(transition.to_string())),
            Fault::Crash(crash) => Err(ThreadError::Crash(crash)),
        }
    }

    fn recover_log(
        &mut self,
        error: LogError,
        ready: bool,
        now: Timestamp,
    ) -> Result<Step, ThreadError> {
        match &error {
            LogError::Retriable { .. } | LogError::UnknownOutcome { .. } => {
                self.note(&error);
                Ok(self.back_off(now))
            }
            LogError::OffsetOutOfRange { .. } if !ready => {
                tracing::warn!(%error, "a global topic was cut while it was read");
                self.start_over(SetAsideReason::OutOfRange, now)
            }
            LogError::UnknownTopic { topic } => Err(ThreadError::Refused(format!(
                "topic `{topic}` of a global table has been deleted under the running application; \
                 restart to create it again"
            ))),
            LogError::OffsetOutOfRange { partition, offset } => Err(ThreadError::Refused(format!(
                "offset {offset} of {partition}, which a global table reads, is no longer in the \
                     log: restart to read the topic from its start"
            ))),
            LogError::AbortRequired { .. }
            | LogError::RecordTooLarge { .. }
            | LogError::RecordRefused { .. }
            | LogError::Fenced { .. }
            | LogError::MemberUnknown { .. }
            | LogError::OffsetMetadataTooLarge { .. }
            | LogError::Fatal { .. } => Err(ThreadError::Log(error)),
        }
    }

    fn start_over(&mut self, reason: SetAsideReason, now: Timestamp) -> Result<Step, ThreadError> {
        self.open = None;
        if let Err(source) = self.set_aside(reason, now) {
            let task = self.task_id();
            return Err(ThreadError::State { task, source });
        }
        Ok(self.back_off(now))
    }

    fn note(&self, error: &dyn std::error::Error) {
        tracing::warn!(error = %chain(error), "global state waits");
        self.spec.status.set_problem(chain(error));
    }

    fn back_off(&mut self, now: Timestamp) -> Step {
        let wait = self.backoff;
        self.resume_at = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(1000));
        self.backoff = (wait * 2).min(BACKOFF_MAX);
        Step::Idle(wait)
    }
}

impl<L: Log> Open<L> {
    /// Reads once and writes what came; returns whether any position has moved.
    fn read(&mut self, probe: &dyn Probe, wait: Duration, now: Timestamp) -> Result<bool, Fault> {
        self.messages.clear();
        let polled = self.reader.poll(RECORDS_PER_STEP, wait, &mut self.messages);
        match polled {
            // Records that came before the error are written, and the error comes again.
            Err(error) if self.messages.is_empty() => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        for message in &self.messages {
            let reads = |part: &&mut Part| part.reads(message);
            if let Some(part) = self.parts.iter_mut().find(reads) {
                part.process(message, now)?;
            }
        }
        let mut batch = self.db.batch();
        let mut moved = false;
        let fresh_at = Some(self.fresh_at);
        for part in &mut self.parts {
            if part.follow(&self.reader) {
                moved = true;
                part.drain(&self.db, &mut batch, fresh_at)?;
            }
        }
        if moved {
            if probe.planted(PlantedBug::GlobalOffsetsAheadOfData) {
                let ahead = self.checkpoint(now).and_then(|()| self.db.flush());
                ahead.map_err(|source| self.state_fault(source))?;
            }
            probe.reached(CrashPoint::BeforeGlobalWrite)?;
            let applied = self.db.apply(batch, now);
            applied.map_err(|source| self.state_fault(source))?;
            probe.reached(CrashPoint::AfterGlobalWrite)?;
            for part in &mut self.parts {
                part.applied();
            }
        }
        if self.ready {
            self.note_ends_reached();
        }
        Ok(moved)
    }

    fn note_ends_reached(&mut self) {
        let Some((asked_at, ends)) = &self.ends else {
            return;
        };
        let mut positions = self.parts.iter().flat_map(Part::positions);
        let reached = |(partition, position): (TopicPartition, Offset)| {
            ends.get(&partition).is_none_or(|end| position >= *end)
        };
        if positions.all(reached) {
            self.fresh_at = *asked_at;
            self.ends = None;
        }
    }

    /// Returns a partition that has been behind for longer than tombstones live, while tasks read its
    /// table: keys may be in the store that the topic has forgotten.
    fn overdue(&self, now: Timestamp) -> Option<TopicPartition> {
        let overdue =
            |part: &&Part| !may_replay(self.fresh_at, now, Some(part.tombstone_retention()));
        let part = self.parts.iter().find(overdue)?;
        part.positions().next().map(|(partition, _)| partition)
    }

    /// Returns a partition whose restore has outlasted tombstones: it may have read keys whose
    /// tombstones are gone by now.
    fn outlived(&self, now: Timestamp) -> Option<TopicPartition> {
        let outlived = |part: &&Part| {
            let retention = Some(part.tombstone_retention());
            !part.is_restored() && !may_replay(self.fresh_at, now, retention)
        };
        let part = self.parts.iter().find(outlived)?;
        part.positions().next().map(|(partition, _)| partition)
    }

    /// Brings everything to disk, and how far it is.
    fn flush(&self, probe: &dyn Probe, now: Timestamp) -> Result<(), Fault> {
        let written = self.checkpoint(now);
        written.map_err(|source| self.state_fault(source))?;
        probe.reached(CrashPoint::BeforeGlobalFlush)?;
        let flushed = self.db.flush();
        flushed.map_err(|source| self.state_fault(source))?;
        probe.reached(CrashPoint::AfterGlobalFlush)?;
        Ok(())
    }

    fn state_fault(&self, source: StateError) -> Fault {
        let task = self.parts.first().map_or_else(unnumbered, Part::id);
        Fault::State { task, source }
    }

    /// Writes how far everything is and how young.
    fn checkpoint(&self, now: Timestamp) -> Result<(), StateError> {
        let mut batch = self.db.batch();
        for part in &self.parts {
            part.checkpoint(&self.db, &mut batch, Some(self.fresh_at));
        }
        self.db.apply(batch, now)
    }
}

const fn unnumbered() -> TaskId {
    TaskId {
        sub_topology: 0,
        partition: 0,
    }
}

fn state_error<L: Log>(open: &Open<L>, source: StateError) -> ThreadError {
    let task = open.parts.first().map_or_else(unnumbered, Part::id);
    ThreadError::State { task, source }
}
