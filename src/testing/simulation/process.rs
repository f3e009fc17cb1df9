//! A simulated process: the production stream threads over a state directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::driver::{Driver, Stepped};
use super::faults::{Faults, GlobalProbe, SimulationProbe};
use super::plan::Plan;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::log::embedded::EmbeddedLog;
use crate::metrics::Metrics;
use crate::query::QueryRegistry;
use crate::runtime::{
    GlobalSpec, GlobalThread, PlantedBug, Probe, ResolvedTopology, RestoreExecutor, RuntimeConfig,
    TaskState, ThreadError, ThreadSpec, ThreadStatus,
};
use crate::state::{MemoryBudget, StateDir};
use crate::topology::{Persistence, TaskId};

/// What all processes of a run have in common.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) plan: Plan,
    pub(super) log: EmbeddedLog,
    pub(super) clock: ManualClock,
    pub(super) faults: Faults,
    pub(super) planted: Option<PlantedBug>,
    pub(super) topology: Arc<ResolvedTopology>,
}

impl Site {
    /// Returns how many threads a process has: stream threads, and behind them one for global stores
    /// where the topology has any.
    pub(super) fn threads(&self) -> usize {
        self.plan.threads + usize::from(self.topology.globals().next().is_some())
    }

    /// Returns whether a store lives in memory only.
    pub(super) fn is_in_memory(&self, store: &str) -> bool {
        let mut stores = self.topology.all().flat_map(|sub| &sub.drawn.stores);
        stores.any(|it| it.name == store && it.persistence != Persistence::RocksDb)
    }

    /// Returns the id of the sub-topology that has a store.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn sub_topology_of(&self, store: &str) -> Result<u32, String> {
        let mut all = self.topology.all();
        all.find(|sub| sub.drawn.stores.iter().any(|it| it.name == store))
            .map(|sub| sub.drawn.id)
            .ok_or_else(|| format!("no sub-topology has store `{store}`"))
    }
}

pub(super) const APPLICATION: &str = "sim";
pub(super) const SESSION_TIMEOUT_MS: i64 = 10_000;
const MEMORY: usize = 16 * 1024 * 1024;

/// The settings of a process.
pub(super) fn config(plan: &Plan, state_dir: &Path) -> RuntimeConfig {
    let mut config = RuntimeConfig::new(APPLICATION, state_dir);
    config.threads = plan.threads;
    config.commit_interval = Duration::from_millis(plan.commit_interval_ms);
    config.commit_min_interval = Duration::from_millis(plan.commit_interval_ms.min(5));
    config.flush_interval = Duration::from_millis(plan.flush_interval_ms);
    config.memory_max = MEMORY as u64;
    config.buffered_records_per_partition = 20;
    config.session_timeout = Duration::from_millis(SESSION_TIMEOUT_MS.unsigned_abs());
    config.transaction_timeout = Duration::from_millis(plan.transaction_timeout_ms);
    config.default_partitions = plan.partitions;
    // Faults end before a run does, and a run that does not come to rest is found by its own limit.
    config.shutdown_timeout = Duration::MAX;
    // The checkers read the repartition topic from its start.
    config.repartition_purge_interval = Duration::MAX;
    config
}

/// What a process does at the moment.
pub(super) enum Life {
    Running(Running),
    /// Killed, or stopped; starts again at that time.
    Down(Timestamp),
    /// Ended for good: another process has its identity.
    Gone,
}

pub(super) struct Running {
    statuses: Vec<Arc<ThreadStatus>>,
    threads: Vec<Driver>,
    /// Stepped as one more thread. Whoever leaves closes it, whoever is killed drops it.
    global: Option<Box<GlobalThread<EmbeddedLog>>>,
    pub(super) queries: Arc<QueryRegistry>,
    /// Does nothing before this time.
    pub(super) frozen_until: Timestamp,
}

/// A process over its lives.
pub(super) struct Process {
    pub(super) index: usize,
    pub(super) dir: PathBuf,
    /// The identity to take on at the first start.
    pub(super) identity: String,
    pub(super) life: Life,
}

impl Process {
    /// Starts the process.
    ///
    /// # Errors
    /// What a real one would end with.
    pub(super) fn start(&mut self, site: &Site) -> Result<(), String> {
        let identity = self.identity.clone();
        let state = StateDir::open(&self.dir, || identity).map_err(|error| error.to_string())?;
        let state = Arc::new(state);
        let queries = QueryRegistry::of(&site.topology);
        let clock: Arc<dyn Clock> = Arc::new(site.clock.clone());
        let config = Arc::new(config(&site.plan, &self.dir));
        let budget = Arc::new(MemoryBudget::new(MEMORY));
        let metrics = Metrics::new();
        let globals = site.topology.global_stores();
        let global = (!globals.is_ready()).then(|| {
            Box::new(GlobalThread::new(GlobalSpec {
                log: site.log.clone(),
                topology: Arc::clone(&site.topology),
                config: Arc::clone(&config),
                clock: Arc::clone(&clock),
                probe: Arc::new(GlobalProbe {
                    process: self.index,
                    faults: site.faults.clone(),
                    planted: site.planted,
                }),
                state: Arc::clone(&state),
                budget: Arc::clone(&budget),
                stores: globals.clone(),
                queries: Arc::clone(&queries),
                metrics: metrics.clone(),
                status: Arc::new(ThreadStatus::default()),
            }))
        });
        let statuses: Vec<Arc<ThreadStatus>> = (0..site.plan.threads)
            .map(|_| Arc::new(ThreadStatus::default()))
            .collect();
        let mut threads = Vec::new();
        for (index, status) in statuses.iter().enumerate() {
            let (index_of_process, faults, planted) = (self.index, &site.faults, site.planted);
            let probe = |gate| SimulationProbe {
                process: index_of_process,
                faults: faults.clone(),
                planted,
                gate,
            };
            let (log, topology, config) = (
                site.log.clone(),
                Arc::clone(&site.topology),
                Arc::clone(&config),
            );
            let (clock, state, budget) =
                (Arc::clone(&clock), Arc::clone(&state), Arc::clone(&budget));
            let (queries, metrics, status) =
                (Arc::clone(&queries), metrics.clone(), Arc::clone(status));
            let (records_per_step, globals) = (site.plan.records_per_step, globals.clone());
            let spec = move |probe: Arc<dyn Probe>| ThreadSpec {
                index,
                log,
                topology,
                config,
                clock,
                probe,
                state,
                budget,
                restores: RestoreExecutor::inline(),
                globals,
                queries,
                metrics,
                status,
                records_per_step,
            };
            threads.push(Driver::start(probe, spec).map_err(|error| error.to_string())?);
        }
        let running = Running {
            statuses,
            threads,
            global,
            queries,
            frozen_until: 0,
        };
        self.life = Life::Running(running);
        Ok(())
    }

    /// `kill -9`: everything is dropped as it is.
    pub(super) fn kill(&mut self, back_at: Timestamp) {
        self.life = Life::Down(back_at);
    }

    pub(super) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.life {
            Life::Running(running) => Some(running),
            Life::Down(_) | Life::Gone => None,
        }
    }

    pub(super) fn is_steppable(&self, now: Timestamp) -> bool {
        matches!(&self.life, Life::Running(running) if running.frozen_until <= now)
    }
}

impl Running {
    /// Returns the tasks that run here.
    pub(super) fn tasks(&self) -> Vec<TaskId> {
        let snapshots = self.statuses.iter().map(|status| status.snapshot());
        snapshots
            .flat_map(|one| one.tasks)
            .filter(|(_, state)| *state == TaskState::Running)
            .map(|(task, _)| task)
            .collect()
    }

    /// Returns what each thread says of itself.
    pub(super) fn describe(&self) -> Vec<String> {
        self.statuses
            .iter()
            .map(|status| format!("{:?}", status.snapshot()))
            .collect()
    }

    /// Asks all threads to drain and leave.
    pub(super) fn stop(&mut self) {
        self.threads.iter_mut().for_each(Driver::stop);
    }

    /// Steps one thread; `None` when it has left already.
    pub(super) fn step(&mut self, index: usize) -> Option<Stepped> {
        if index == self.threads.len() {
            let step = self.global.as_mut()?.step(Duration::ZERO);
            return Some(step.map_or_else(Stepped::Ended, Stepped::Done));
        }
        let thread = self
            .threads
            .get_mut(index)
            .filter(|thread| !thread.has_left())?;
        Some(thread.step())
    }

    pub(super) fn all_left(&self) -> bool {
        self.threads.iter().all(Driver::has_left)
    }

    /// The last act of a process whose threads have left.
    ///
    /// # Errors
    /// When global state cannot be brought to disk.
    pub(super) fn close(&mut self) -> Result<(), ThreadError> {
        self.global.take().map_or(Ok(()), |global| global.close())
    }
}
