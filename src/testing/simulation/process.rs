//! A simulated process: the production stream threads over a state directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::faults::{Faults, SimulationProbe};
use super::plan::Plan;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::log::embedded::EmbeddedLog;
use crate::metrics::Metrics;
use crate::query::QueryRegistry;
use crate::runtime::{
    PlantedBug, Probe, ResolvedTopology, RestoreExecutor, RuntimeConfig, Step, StreamThread,
    ThreadError, ThreadSpec, ThreadStatus,
};
use crate::state::{MemoryBudget, StateDir};
use crate::topology::Topology;

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

pub(super) const APPLICATION: &str = "sim";
pub(super) const SESSION_TIMEOUT_MS: i64 = 10_000;
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
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
    config.transaction_timeout = TRANSACTION_TIMEOUT;
    config.default_partitions = plan.partitions;
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
    /// `None`: this thread has left cleanly.
    threads: Vec<Option<StreamThread<EmbeddedLog>>>,
    pub(super) queries: Arc<QueryRegistry>,
    /// Does nothing before this time.
    pub(super) frozen_until: Timestamp,
    pub(super) stopping: bool,
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
        let queries =
            QueryRegistry::new(site.topology.sub_topologies.iter().flat_map(|resolved| {
                stores_of(&site.topology.topology, resolved.id)
                    .map(move |store| (store, resolved.id, resolved.tasks))
            }));
        let probe: Arc<dyn Probe> = Arc::new(SimulationProbe {
            process: self.index,
            faults: site.faults.clone(),
            planted: site.planted,
        });
        let clock: Arc<dyn Clock> = Arc::new(site.clock.clone());
        let config = Arc::new(config(&site.plan, &self.dir));
        let budget = Arc::new(MemoryBudget::new(MEMORY));
        let metrics = Metrics::new();
        let mut threads = Vec::new();
        for index in 0..site.plan.threads {
            let thread = StreamThread::new(ThreadSpec {
                index,
                log: site.log.clone(),
                topology: Arc::clone(&site.topology),
                config: Arc::clone(&config),
                clock: Arc::clone(&clock),
                probe: Arc::clone(&probe),
                state: Arc::clone(&state),
                budget: Arc::clone(&budget),
                restores: RestoreExecutor::inline(),
                queries: Arc::clone(&queries),
                metrics: metrics.clone(),
                status: Arc::new(ThreadStatus::default()),
                records_per_step: site.plan.records_per_step,
            })
            .map_err(|error| error.to_string())?;
            threads.push(Some(thread));
        }
        let running = Running {
            threads,
            queries,
            frozen_until: 0,
            stopping: false,
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
    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Asks all threads to drain and leave.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.threads
            .iter_mut()
            .flatten()
            .for_each(StreamThread::stop);
    }

    /// Steps one thread; returns whether all threads have left.
    ///
    /// # Errors
    /// The thread has ended.
    pub(super) fn step(&mut self, index: usize) -> Result<(Option<Step>, bool), ThreadError> {
        let Some(slot) = self.threads.get_mut(index) else {
            return Ok((None, false));
        };
        let step = slot.as_mut().map(StreamThread::step).transpose()?;
        if step == Some(Step::Stopped) {
            *slot = None;
        }
        Ok((step, self.threads.iter().all(Option::is_none)))
    }
}

fn stores_of(
    topology: &Topology,
    id: u32,
) -> impl Iterator<Item = crate::topology::StoreSpec> + '_ {
    topology
        .sub_topologies()
        .iter()
        .filter(move |sub| sub.id == id)
        .flat_map(|sub| sub.stores.iter().cloned())
}
