//! One process of an application: N stream threads under supervision.
//!
//! # Position
//! `cli` and tests start an [`App`]; `http` reads its health and queries.
//! # Failure
//! A thread that fails or panics has committed nothing on its way out. It is replaced a bounded
//! number of times (`thread_replacements_max`), then the process reports the error and ends.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::dead_letter::chain;
use super::restore_pool::{RestoreExecutor, RestorePool};
use super::{
    GlobalSpec, GlobalThread, Membership, NoProbe, Probe, ResolvedTopology, RuntimeConfig, Step,
    StreamThread, TaskState, ThreadError, ThreadMemory, ThreadSpec, ThreadStatus,
};
use crate::clock::Clock;
use crate::log::{ConsumerWaker, Log};
use crate::metrics::Metrics;
use crate::query::QueryRegistry;
use crate::state::{GlobalStores, MemoryBudget, StateDir, StateError};
use crate::topology::TaskId;

/// Where the process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppState {
    /// Threads are at work.
    Running,
    /// A shutdown was asked for.
    Stopping,
    /// A thread has failed for good; the others stop.
    Failed,
}

/// The health of a process.
#[derive(Debug, Clone)]
pub struct Health {
    /// All threads have their assignment, and all its tasks run.
    pub ready: bool,
    /// The process state.
    pub state: AppState,
    /// Why it is not ready, where that is known.
    pub problems: Vec<String>,
    /// All tasks with their states.
    pub tasks: BTreeMap<TaskId, TaskState>,
}

struct Shared {
    stopping: AtomicBool,
    failure: Mutex<Option<ThreadError>>,
    /// Of the stream threads, and of global state behind them.
    statuses: Vec<Arc<ThreadStatus>>,
    stream_threads: usize,
    wakers: Mutex<Vec<ConsumerWaker>>,
}

impl Shared {
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        for waker in self
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            waker.wake();
        }
    }

    /// Keeps the first failure for whoever joins the app, who reports it; a later one is logged here.
    fn fail(&self, thread: usize, error: ThreadError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() {
            tracing::error!(thread, error = %chain(&error), "stream thread ended, too");
        } else {
            tracing::error!(thread, "stream thread ended for good, shutting down");
            *failure = Some(error);
        }
        drop(failure);
        self.stop();
    }
}

/// A running process of an application.
pub struct App<L: Log> {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    queries: Arc<QueryRegistry>,
    memory: Arc<MemoryBudget>,
    log: L,
    topology: Arc<ResolvedTopology>,
}

impl<L: Log> fmt::Debug for App<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

/// What an [`App`] is made of.
pub struct AppSpec<L: Log> {
    /// The log.
    pub log: L,
    /// The topology with its physical topics (`ensure_topics`).
    pub topology: Arc<ResolvedTopology>,
    /// The settings.
    pub config: Arc<RuntimeConfig>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The state directory, locked by this process.
    pub state: Arc<StateDir>,
}

impl<L: Log> fmt::Debug for AppSpec<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppSpec")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The process could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The state directory cannot be used.
    #[error("cannot use the state directory")]
    State(#[from] StateError),
    /// The system has no thread to give.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
}

impl<L: Log> App<L> {
    /// Starts the threads and returns at once.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(spec: AppSpec<L>) -> Result<Self, StartError> {
        let AppSpec {
            log,
            topology,
            config,
            clock,
            metrics,
            state,
        } = spec;
        let log = log.with_client_memory(topology.client_memory(&config));
        let queries = QueryRegistry::of(&topology);
        let budget = usize::try_from(config.memory_max).unwrap_or(usize::MAX);
        let budget = Arc::new(MemoryBudget::new(budget));
        metrics.set_memory_max(config.memory_max);
        let pool = RestorePool::start(config.threads)?;
        let globals = topology.global_stores();
        let global_threads = usize::from(!globals.is_ready());
        let mut statuses: Vec<Arc<ThreadStatus>> = (0..config.threads + global_threads)
            .map(|_| Arc::new(ThreadStatus::default()))
            .collect();
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            failure: Mutex::new(None),
            statuses: statuses.clone(),
            stream_threads: config.threads,
            wakers: Mutex::new(Vec::new()),
        });
        let mut threads = Vec::new();
        for status in statuses.drain(config.threads..) {
            let spec = GlobalSpec {
                log: log.clone(),
                topology: Arc::clone(&topology),
                config: Arc::clone(&config),
                clock: Arc::clone(&clock),
                probe: Arc::new(NoProbe),
                state: Arc::clone(&state),
                budget: Arc::clone(&budget),
                stores: globals.clone(),
                queries: Arc::clone(&queries),
                metrics: metrics.clone(),
                status,
            };
            let shared = Arc::clone(&shared);
            let spawned = std::thread::Builder::new()
                .name("global".to_owned())
                .spawn(move || run_global(spec, &shared))?;
            threads.push(spawned);
        }
        for (index, status) in statuses.into_iter().enumerate() {
            let supervisor = Supervisor {
                index,
                log: log.clone(),
                topology: Arc::clone(&topology),
                config: Arc::clone(&config),
                clock: Arc::clone(&clock),
                state: Arc::clone(&state),
                budget: Arc::clone(&budget),
                pool: pool.clone(),
                globals: globals.clone(),
                queries: Arc::clone(&queries),
                metrics: metrics.clone(),
                status,
                shared: Arc::clone(&shared),
            };
            let spawned = std::thread::Builder::new()
                .name(format!("stream-{index}"))
                .spawn(move || supervisor.run());
            match spawned {
                Ok(handle) => threads.push(handle),
                Err(error) => {
                    shared.stop();
                    return Err(error.into());
                }
            }
        }
        Ok(Self {
            shared,
            threads,
            queries,
            memory: budget,
            log,
            topology,
        })
    }

    /// Returns the committed stores.
    #[must_use]
    pub fn queries(&self) -> &Arc<QueryRegistry> {
        &self.queries
    }

    /// Returns the memory budget, which tells what RocksDB uses.
    #[must_use]
    pub const fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    /// Returns what overlays and record buffers of all threads hold, as last looked at.
    #[must_use]
    pub fn memory_held(&self) -> ThreadMemory {
        let snapshots = self.shared.statuses.iter().map(|status| status.snapshot());
        snapshots.fold(ThreadMemory::default(), |sum, one| ThreadMemory {
            overlays: sum.overlays + one.memory.overlays,
            record_buffers: sum.record_buffers + one.memory.record_buffers,
        })
    }

    /// Returns the log.
    #[must_use]
    pub const fn log(&self) -> &L {
        &self.log
    }

    /// Returns the topology with its physical topics.
    #[must_use]
    pub const fn topology(&self) -> &Arc<ResolvedTopology> {
        &self.topology
    }

    /// Returns a handle for health checks that outlives borrows of the app.
    #[must_use]
    pub fn health_handle(&self) -> HealthHandle {
        HealthHandle(Arc::clone(&self.shared))
    }

    /// Returns the health.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health_handle().health()
    }

    /// Asks all threads to drain, commit and leave the group; returns at once.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Returns whether all threads have ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all threads have ended.
    ///
    /// # Errors
    /// The first thread's failure that replacing it did not mend.
    pub fn join(self) -> Result<(), ThreadError> {
        for (index, thread) in self.threads.into_iter().enumerate() {
            // A panic is caught within; a supervisor that died anyway is a failure of its thread.
            if thread.join().is_err() {
                self.shared
                    .fail(index, ThreadError::Panicked("supervisor".to_owned()));
            }
        }
        let failure = self
            .shared
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        failure.map_or(Ok(()), Err)
    }
}

/// Asks for the health of a process.
#[derive(Clone)]
pub struct HealthHandle(Arc<Shared>);

impl fmt::Debug for HealthHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthHandle").finish_non_exhaustive()
    }
}

impl HealthHandle {
    /// Returns the health.
    #[must_use]
    pub fn health(&self) -> Health {
        let failure = self
            .0
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let state = if failure.is_some() {
            AppState::Failed
        } else if self.0.stopping.load(Ordering::Acquire) {
            AppState::Stopping
        } else {
            AppState::Running
        };
        let mut problems: Vec<String> = failure.iter().map(|error| chain(error)).collect();
        drop(failure);
        let mut ready = state == AppState::Running;
        let mut tasks = BTreeMap::new();
        for (index, status) in self.0.statuses.iter().enumerate() {
            let snapshot = status.snapshot();
            ready &= snapshot.ready();
            if index >= self.0.stream_threads {
                let waits = || "global state is being restored".to_owned();
                let not_ready = !snapshot.ready();
                problems.extend(not_ready.then(|| snapshot.problem.clone().unwrap_or_else(waits)));
            } else if let Some(problem) = &snapshot.problem {
                problems.push(format!("thread {index}: {problem}"));
            } else {
                match snapshot.membership {
                    Membership::Assigned => {}
                    Membership::Waiting => {
                        problems.push(format!("thread {index} waits for its partitions"));
                    }
                    Membership::Outside => {
                        problems.push(format!("thread {index} is not a member of the group"));
                    }
                }
            }
            tasks.extend(snapshot.tasks);
        }
        Health {
            ready,
            state,
            problems,
            tasks,
        }
    }
}

/// Runs one stream thread after another in one slot of the process.
struct Supervisor<L: Log> {
    index: usize,
    log: L,
    topology: Arc<ResolvedTopology>,
    config: Arc<RuntimeConfig>,
    clock: Arc<dyn Clock>,
    state: Arc<StateDir>,
    budget: Arc<MemoryBudget>,
    pool: RestorePool<L>,
    globals: GlobalStores,
    queries: Arc<QueryRegistry>,
    metrics: Metrics,
    status: Arc<ThreadStatus>,
    shared: Arc<Shared>,
}

/// Records per task between two looks at the membership.
const RECORDS_PER_STEP: usize = 1000;

impl<L: Log> Supervisor<L> {
    fn run(self) {
        let mut replacements = 0;
        loop {
            let result = std::panic::catch_unwind(AssertUnwindSafe(|| self.run_thread()))
                .unwrap_or_else(|panic| Err(ThreadError::Panicked(panic_text(&*panic))));
            let Err(error) = result else {
                self.status.clear(None);
                return;
            };
            self.metrics.thread(self.index).failures.inc();
            self.status.clear(Some(chain(&error)));
            let stopping = self.shared.stopping.load(Ordering::Acquire);
            if stopping
                || !error.replaceable()
                || replacements >= self.config.thread_replacements_max
            {
                self.shared.fail(self.index, error);
                return;
            }
            replacements += 1;
            tracing::error!(thread = self.index, error = %chain(&error), replacements, "stream thread failed, replacing it");
            self.pause(replacements);
        }
    }

    /// A replacement waits longer each time; a shutdown ends the wait.
    fn pause(&self, replacements: u32) {
        let waker = ConsumerWaker::default();
        self.shared
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(waker.clone());
        let pause = std::time::Duration::from_millis(100) * (1 << replacements.min(6));
        // Woken or not: the next thread is told of a shutdown at its first step.
        let _woken = waker.wait(pause);
    }

    fn run_thread(&self) -> Result<(), ThreadError> {
        let probe: Arc<dyn Probe> = Arc::new(NoProbe);
        let mut thread = StreamThread::new(ThreadSpec {
            index: self.index,
            log: self.log.clone(),
            topology: Arc::clone(&self.topology),
            config: Arc::clone(&self.config),
            clock: Arc::clone(&self.clock),
            probe,
            state: Arc::clone(&self.state),
            restores: RestoreExecutor::pooled(self.pool.clone()),
            globals: self.globals.clone(),
            queries: Arc::clone(&self.queries),
            metrics: self.metrics.clone(),
            budget: Arc::clone(&self.budget),
            status: Arc::clone(&self.status),
            records_per_step: RECORDS_PER_STEP,
        })?;
        self.shared
            .wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread.waker());
        let mut told = false;
        loop {
            if !told && self.shared.stopping.load(Ordering::Acquire) {
                thread.stop();
                told = true;
            }
            match thread.step() {
                Ok(Step::Worked) => {}
                Ok(Step::Idle(timeout)) => thread.wait(timeout),
                Ok(Step::Stopped) => return Ok(()),
                Err(error) => {
                    if matches!(error, ThreadError::Refused(_)) {
                        // Nobody takes this thread's place: the group need not wait for it, nor an
                        // operator who is told to run `millstream reset`.
                        thread.leave_group();
                    }
                    return Err(error);
                }
            }
        }
    }
}

/// How long global state waits for records: bounds how late it sees a shutdown.
const GLOBAL_WAIT: Duration = Duration::from_millis(100);

/// Reads global tables until the process stops. Their end is the process's: joins must not go on with
/// tables that stand still.
fn run_global<L: Log>(spec: GlobalSpec<L>, shared: &Shared) {
    let index = shared.stream_threads;
    let status = Arc::clone(&spec.status);
    let run = || {
        let mut globals = GlobalThread::new(spec);
        while !shared.stopping.load(Ordering::Acquire) {
            if let Step::Idle(wait) = globals.step(GLOBAL_WAIT)?
                && !wait.is_zero()
            {
                let _woken = ConsumerWaker::default().wait(wait);
            }
        }
        globals.close()
    };
    let result = std::panic::catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(ThreadError::Panicked(panic_text(&*panic))));
    match result {
        Ok(()) => status.clear(None),
        Err(error) => {
            status.clear(Some(chain(&error)));
            shared.fail(index, error);
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
