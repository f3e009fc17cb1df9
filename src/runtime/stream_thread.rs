//! A stream thread: one consumer, one transactional producer, the tasks of its partitions.
//!
//! # Position
//! [`StreamThread::step`] is one turn of the loop: settle what is unfinished → look for topics of
//! patterns when due → membership → open and restore tasks → poll → process → punctuate → commit when due → flush when due. In production an
//! OS thread loops it; simulation steps several of them under a seed.
//! # Invariants
//! - One transaction at a time; its state machine ([`TransactionState`]) says what is allowed, and
//!   while its outcome is open, nothing is processed.
//! - Offsets of every task in a transaction are in it, fenced by the group's metadata (invariant 1).
//! - A membership event is answered only when no transaction contains the tasks it takes away.
//! # Failure
//! [`TransactionState`] has the diagram. In short: an abort rebuilds the tasks from the last commit;
//! an unknown outcome is asked for again; a fence or a lost producer closes the tasks without a
//! commit, creates the producer anew (which settles its transaction) and opens them again.

mod careful;
mod close;
mod closing;
mod commit;
mod discovery;
mod idling;
mod intake;
pub(super) mod judge;
mod membership;
mod open;
mod planted;
mod recovery;
mod restored;
mod slot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::Fault;
use super::meters::TaskStates;
use super::protocol::{TransactionEvent, TransactionState};
use super::restore_pool::RestoreExecutor;
use super::status::ThreadStatus;
use super::task::{Progress, Task};
use super::{Probe, ResolvedTopology, RuntimeConfig, ThreadError};
use crate::clock::{Clock, Timestamp};
use crate::format::names;
use crate::log::{
    ConsumerSpec, ConsumerWaker, Log, LogConsumer, LogError, LogProducer, MembershipEvent,
    ProducerSpec, TopicName, TopicPartition,
};
use crate::metrics::{Metrics, TaskState, ThreadMetrics};
use crate::query::QueryRegistry;
use crate::state::{CommitBatch, GlobalStores, MemoryBudget, StateDir, ThreadShares};
use crate::topology::TaskId;
use careful::Careful;
use idling::KnownEnds;
use membership::NothingToOwn;
use slot::{Created, Slot};

/// Everything a stream thread is made of.
pub struct ThreadSpec<L: Log> {
    /// Its number within the process, part of its identity.
    pub index: usize,
    /// The log.
    pub log: L,
    /// The topology with its physical topics.
    pub topology: Arc<ResolvedTopology>,
    /// The settings.
    pub config: Arc<RuntimeConfig>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Simulation's way in.
    pub probe: Arc<dyn Probe>,
    /// The process's state directory, locked.
    pub state: Arc<StateDir>,
    /// Caches and memtables of all tasks of the process.
    pub budget: Arc<MemoryBudget>,
    /// Where this thread's restores run.
    pub restores: RestoreExecutor<L>,
    /// The process's global stores: no task is opened before they are.
    pub globals: GlobalStores,
    /// Where queries find committed stores.
    pub queries: Arc<QueryRegistry>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// What others may know of this thread.
    pub status: Arc<ThreadStatus>,
    /// Records processed per task and step: bounds the time between two looks at the membership.
    pub records_per_step: usize,
}

impl<L: Log> fmt::Debug for ThreadSpec<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadSpec")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something was done: step again.
    Worked,
    /// Nothing to do for up to this long.
    Idle(Duration),
    /// The thread has drained, committed and left the group.
    Stopped,
}

/// One consumer, one transactional producer and the tasks of its partitions, stepped by its owner.
pub struct StreamThread<L: Log> {
    spec: ThreadSpec<L>,
    id: String,
    meters: ThreadMetrics,
    task_states: TaskStates,
    consumer: L::Consumer,
    producer: Option<L::Producer>,
    /// Where the transaction stands; changes only by [`TransactionState::next`].
    transaction: TransactionState,
    /// The batches of a requested commit, then of a committed one on their way to the stores.
    pending: VecDeque<(TaskId, CommitBatch)>,
    slots: BTreeMap<TaskId, Slot<L>>,
    events: VecDeque<MembershipEvent>,
    /// The driver partitions that were taken over and not given back, with or without a task.
    owned: BTreeSet<TopicPartition>,
    /// When to look for topics that match a pattern.
    looks_at: Timestamp,
    /// Tasks to open again once their cancelled restore has given the store back.
    reopen: BTreeMap<TaskId, Created>,
    /// No call to the log before this time: a retriable error is being waited out.
    resume_at: Timestamp,
    backoff: Duration,
    /// Transactions that failed one after the other, for reasons that may pass.
    failed_in_a_row: u32,
    /// A record that the log refuses is looked for.
    careful: Option<Careful>,
    /// The task that filled the transaction: the next one begins behind it.
    filled_by: Option<TaskId>,
    /// When the last commit or abort ended, or results first appeared since.
    last_commit: Timestamp,
    inputs_dry: bool,
    /// What the broker said of the ends of partitions that tasks wait for.
    ends: KnownEnds,
    /// When the first of the tasks that wait goes on without.
    idles_until: Option<Timestamp>,
    /// Whether an empty assignment is all there is for this thread.
    nothing_to_own: NothingToOwn,
    /// What this thread gets of the process's memory.
    shares: ThreadShares,
    /// What each task was last told to keep cached; `None` when one has begun since.
    cache_share: Option<usize>,
    /// When the commit that is under way began.
    commit_began: Option<Instant>,
    /// When to show again what the tasks hold.
    shows_memory_at: Timestamp,
    /// When repartition topics were last purged.
    last_purge: Timestamp,
    stopping: bool,
    /// When a thread that stops gives up; set at its first step after it was told.
    drained_by: Option<Timestamp>,
}

impl<L: Log> fmt::Debug for StreamThread<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamThread")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The pause after a first retriable error; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// The longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The longest pause after transactions that fail one after the other: each costs its work again, and
/// leaves aborted records behind.
const FAILED_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The longest wait for records: bounds how late a shutdown or a wall-clock punctuator is seen.
const IDLE_MAX: Duration = Duration::from_millis(100);

impl<L: Log> StreamThread<L> {
    /// Creates the thread's clients and joins the group. The same process and index always have the
    /// same identity: static membership and transactional id (design §5).
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the log refuses the configuration.
    pub fn new(spec: ThreadSpec<L>) -> Result<Self, LogError> {
        let config = &spec.config;
        let id =
            names::thread_identity(&config.application_id, spec.state.process_id(), spec.index);
        let mut consumer = spec.log.consumer(&ConsumerSpec {
            group: config.application_id.clone(),
            group_instance_id: Some(id.clone()),
            client_id: names::client_id(&id, config.advertised.as_deref()),
            session_timeout: config.session_timeout,
        })?;
        let mut drivers: Vec<TopicName> = spec
            .topology
            .all()
            .map(|sub| TopicName::clone(&sub.topics.driver))
            .collect();
        drivers.sort();
        drivers.dedup();
        consumer.subscribe(&drivers)?;
        let now = spec.clock.now_ms();
        let shares = spec.budget.shares().of_thread(spec.config.threads);
        Ok(Self {
            meters: spec.metrics.thread(spec.index),
            task_states: TaskStates::new(&spec.metrics, spec.index),
            spec,
            id,
            consumer,
            producer: None,
            transaction: TransactionState::default(),
            pending: VecDeque::new(),
            slots: BTreeMap::new(),
            events: VecDeque::new(),
            owned: BTreeSet::new(),
            looks_at: now,
            reopen: BTreeMap::new(),
            resume_at: 0,
            backoff: BACKOFF_MIN,
            failed_in_a_row: 0,
            careful: None,
            filled_by: None,
            last_commit: now,
            inputs_dry: false,
            ends: KnownEnds::default(),
            idles_until: None,
            nothing_to_own: NothingToOwn::default(),
            shares,
            cache_share: None,
            commit_began: None,
            shows_memory_at: 0,
            last_purge: now,
            stopping: false,
            drained_by: None,
        })
    }

    /// Returns the thread's identity: `transactional.id` and `group.instance.id`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns a handle that ends an idle thread's wait.
    #[must_use]
    pub fn waker(&self) -> ConsumerWaker {
        self.consumer.waker()
    }

    /// Blocks until there may be something to do.
    pub fn wait(&mut self, timeout: Duration) {
        self.consumer.wait(timeout);
    }

    /// Leaves the group without a commit, where a thread has ended for good.
    pub fn leave_group(&mut self) {
        if let Err(error) = self.consumer.leave() {
            tracing::warn!(thread = %self.id, %error, "cannot leave the group");
        }
    }

    /// Asks the thread to stop: it finishes its transaction, commits, flushes and leaves the group,
    /// within [`RuntimeConfig::shutdown_timeout`].
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Returns whether nothing is under way: all tasks run, nothing is buffered or waits for a commit. An
    /// open transaction without results is nothing: a punctuator has looked and found nothing to do.
    #[must_use]
    pub fn is_quiescent(&self) -> bool {
        matches!(
            self.transaction,
            TransactionState::Idle | TransactionState::Open
        ) && self.events.is_empty()
            && self.consumer.is_member()
            && self.inputs_dry
            && self.slots.values().all(|slot| match slot {
                Slot::Live(task) => {
                    task.progress == Progress::Running
                        && !task.has_results()
                        && !task.has_positions()
                }
                Slot::Created(_) | Slot::Restoring(_) | Slot::Closing => false,
            })
    }

    /// Does one turn of the loop.
    ///
    /// # Errors
    /// [`ThreadError`]: the thread has ended without committing and is to be dropped.
    pub fn step(&mut self) -> Result<Step, ThreadError> {
        let now = self.spec.clock.now_ms();
        self.check_drain(now)?;
        let result = if now < self.resume_at {
            // The membership is served all the same: a broker that is away must not make a member
            // miss its polls.
            self.poll_membership().map(|()| {
                let wait = u64::try_from(self.resume_at - now).unwrap_or(0);
                Step::Idle(Duration::from_millis(wait))
            })
        } else {
            self.turn(now)
        };
        let result = result.or_else(|fault| self.recover(fault, now));
        self.publish_status(now);
        result
    }

    fn turn(&mut self, now: Timestamp) -> Result<Step, Fault> {
        self.poll_membership()?;
        if !self.settle(now)? {
            return Ok(Step::Idle(BACKOFF_MIN));
        }
        if self.look_for_topics(now)? {
            return Ok(Step::Worked);
        }
        let mut worked = self.answer_membership(now)?;
        self.confirm_empty_assignment(now);
        if self.stopping {
            return self.drain(now);
        }
        worked |= self.open_tasks(now)?;
        worked |= self.collect_restored(now)?;
        self.share_cache();
        worked |= self.initialise_tasks(now)?;
        let polled = self.poll_records()?;
        let processed = self.process_records(now)?;
        let punctuated = self.punctuate(now)?;
        self.leave_careful_when_passed();
        self.inputs_dry = polled == 0 && self.buffered() == 0;
        worked |= polled + processed + punctuated > 0;
        worked |= self.commit_if_due(now)?;
        self.flush_if_due(now)?;
        self.show_memory(now);
        self.purge_if_due(now);
        self.backoff = BACKOFF_MIN;
        Ok(if worked {
            Step::Worked
        } else {
            Step::Idle(self.idle_time(now))
        })
    }

    /// Brings an unfinished transaction to its end; returns whether records may be processed.
    fn settle(&mut self, now: Timestamp) -> Result<bool, Fault> {
        if self.transaction.must_close_tasks() {
            self.reopen_tasks()?;
        }
        if self.transaction == TransactionState::Unsettled {
            self.start_producer()?;
        }
        if self.transaction == TransactionState::OutcomeUnknown {
            self.request_commit(now)?;
        }
        if self.transaction.may_apply() {
            self.apply(now)?;
        }
        if self.transaction == TransactionState::Aborting {
            self.abort(now)?;
        }
        if self.transaction == TransactionState::Aborted {
            self.rewind_tasks(now)?;
        }
        // After an abort there may be a pause before the next attempt.
        Ok(self.transaction.may_process() && now >= self.resume_at)
    }

    /// Moves the transaction's state.
    fn transition(&mut self, event: TransactionEvent) -> Result<(), Fault> {
        self.transaction = self.transaction.next(event)?;
        Ok(())
    }

    fn start_producer(&mut self) -> Result<(), Fault> {
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.spec.log.producer(&ProducerSpec {
                transactional_id: Some(self.id.clone()),
                transaction_timeout: self.spec.config.transaction_timeout,
                client_id: self.id.clone(),
            })?,
        };
        // ORDER: before any committed offset is read. This settles what a predecessor left open.
        if let Err(error) = producer.init_transactions() {
            // One that may still succeed is asked again; any other is of no more use.
            self.producer = Some(producer).filter(|_| error.is_retriable());
            return Err(error.into());
        }
        self.producer = Some(producer);
        self.transition(TransactionEvent::Initialised)
    }

    /// Begins a transaction unless one is open.
    fn begin(&mut self) -> Result<(), Fault> {
        if self.transaction == TransactionState::Idle {
            self.producer()?.begin_transaction()?;
            self.transition(TransactionEvent::Begun)?;
        }
        Ok(())
    }

    fn producer(&mut self) -> Result<&mut L::Producer, Fault> {
        self.producer
            .as_mut()
            .ok_or(Fault::Bug("a transaction is at work without a producer"))
    }

    fn live(&self) -> impl Iterator<Item = &Task<L::Message>> {
        self.slots.values().filter_map(|slot| match slot {
            Slot::Live(task) => Some(&**task),
            Slot::Created(_) | Slot::Restoring(_) | Slot::Closing => None,
        })
    }

    fn live_mut(&mut self) -> impl Iterator<Item = &mut Task<L::Message>> {
        self.slots.values_mut().filter_map(|slot| match slot {
            Slot::Live(task) => Some(&mut **task),
            Slot::Created(_) | Slot::Restoring(_) | Slot::Closing => None,
        })
    }

    fn live_ids(&self, wanted: impl Fn(&Task<L::Message>) -> bool) -> Vec<TaskId> {
        self.live()
            .filter(|task| wanted(task))
            .map(|task| task.id)
            .collect()
    }

    /// Runs `work` on a live task with the open transaction.
    fn with_task<R>(
        &mut self,
        id: TaskId,
        work: impl FnOnce(&mut Task<L::Message>, &mut L::Producer, &dyn Probe) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        self.begin()?;
        let probe = Arc::clone(&self.spec.probe);
        let (Some(producer), Some(Slot::Live(task))) =
            (self.producer.as_mut(), self.slots.get_mut(&id))
        else {
            return Err(Fault::Bug("work for a task that is not live"));
        };
        work(task, producer, &*probe)
    }

    fn punctuate(&mut self, now: Timestamp) -> Result<usize, Fault> {
        let mut fired = 0;
        for id in
            self.live_ids(|task| task.progress == Progress::Running && task.punctuation_due(now))
        {
            fired += self.punctuate_task(id, now)?;
        }
        Ok(fired)
    }

    fn idle_time(&self, now: Timestamp) -> Duration {
        let mut until = now.saturating_add(i64::try_from(IDLE_MAX.as_millis()).unwrap_or(100));
        for task in self.live() {
            if let Some(next) = task.next_wall_clock() {
                until = until.min(next);
            }
        }
        if let Some(due) = self.next_commit_due() {
            until = until.min(due);
        }
        if let Some(idles_until) = self.idles_until {
            until = until.min(idles_until);
        }
        let wait = u64::try_from(until.saturating_sub(now)).unwrap_or(0);
        Duration::from_millis(wait.max(1))
    }

    /// Ends a drain that takes too long: a log that is away must not hold up a shutdown for ever.
    fn check_drain(&mut self, now: Timestamp) -> Result<(), ThreadError> {
        if !self.stopping {
            return Ok(());
        }
        let limit = self.spec.config.shutdown_timeout;
        let by = *self.drained_by.get_or_insert_with(|| {
            now.saturating_add(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX))
        });
        if now < by {
            return Ok(());
        }
        let problem = self.spec.status.snapshot().problem;
        Err(ThreadError::DrainTimedOut { limit, problem })
    }

    /// Commits, flushes, closes and leaves: the clean end.
    fn drain(&mut self, now: Timestamp) -> Result<Step, Fault> {
        self.commit(now)?;
        if !self.transaction.may_change_tasks() {
            return Ok(Step::Idle(BACKOFF_MIN));
        }
        self.settle_checkpoints(now)?;
        let ids: Vec<TaskId> = self.slots.keys().copied().collect();
        for id in ids {
            self.close_clean(id)?;
        }
        if !self.slots.is_empty() {
            // A restore has been told to end; its store has to come back before the lock goes.
            while let Some(finished) = self.spec.restores.poll() {
                self.slots.remove(&finished.task);
            }
            return Ok(Step::Idle(BACKOFF_MIN));
        }
        self.consumer.leave()?;
        Ok(Step::Stopped)
    }

    fn publish_status(&mut self, now: Timestamp) {
        let tasks: BTreeMap<TaskId, TaskState> = self
            .slots
            .iter()
            .map(|(id, slot)| (*id, slot.state()))
            .collect();
        self.task_states.show(&tasks);
        let membership = self.membership();
        // A task that cannot be opened yet is a problem until it is.
        let waits_until = self.slots.values().fold(self.resume_at, |until, slot| {
            let Slot::Created(created) = slot else {
                return until;
            };
            until.max(created.not_before)
        });
        self.spec.status.update(membership, waits_until, now, tasks);
    }
}

#[cfg(test)]
mod tests;
