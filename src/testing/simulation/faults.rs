//! What goes wrong: crashes at named points, and the log's faults.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use super::driver::Stepped;
use crate::log::embedded::{Fault, FaultPlan, FaultPoint, FaultSite};
use crate::runtime::{Crash, CrashPoint, PlantedBug, Probe};

/// How often each thing has happened. Asserted upon: a fault that never fires tests nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fired {
    /// Crashes, by point.
    pub crashes: BTreeMap<CrashPoint, u64>,
    /// Zombies, by the point at which they stopped for a while.
    pub stalls: BTreeMap<CrashPoint, u64>,
    /// Faults of the log, by operation.
    pub log: BTreeMap<(FaultPoint, String), u64>,
    /// Everything else, by name.
    pub other: BTreeMap<&'static str, u64>,
}

impl Fired {
    /// Adds what another run has counted.
    pub fn add(&mut self, other: &Self) {
        for (point, count) in &other.crashes {
            *self.crashes.entry(*point).or_default() += count;
        }
        for (point, count) in &other.stalls {
            *self.stalls.entry(*point).or_default() += count;
        }
        for (site, count) in &other.log {
            *self.log.entry(site.clone()).or_default() += count;
        }
        for (name, count) in &other.other {
            *self.other.entry(name).or_default() += count;
        }
    }
}

/// How many ambushes wait at a time: points of rare events must not keep out the others for ever.
const ARMED_MAX: usize = 12;

/// What the log, the probes and the scheduler of one run share.
#[derive(Debug)]
struct Shared {
    rng: Rng,
    /// In thousandths; 0 when the run settles.
    rate: u32,
    fired: Fired,
    /// Processes to kill once their step has returned: the reply that they wait for never comes.
    doomed: Vec<String>,
    armed: Vec<Armed>,
}

/// What waits at a named point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ambush {
    /// The process dies there.
    Crash,
    /// The process stops there, and goes on later: a zombie in the middle of what it did.
    Stall,
}

/// At a point of one process, the `countdown`-th time that it is reached.
#[derive(Debug)]
struct Armed {
    ambush: Ambush,
    process: usize,
    point: CrashPoint,
    countdown: u32,
}

/// The faults of one run. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Faults(Arc<Mutex<Shared>>);

impl Faults {
    pub(super) fn new(rng: Rng, rate: u32) -> Self {
        let shared = Shared {
            rng,
            rate,
            fired: Fired::default(),
            doomed: Vec::new(),
            armed: Vec::new(),
        };
        Self(Arc::new(Mutex::new(shared)))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        let mut shared = self.shared();
        shared.rate = 0;
        shared.armed.clear();
    }

    pub(super) fn count(&self, name: &'static str) {
        *self.shared().fired.other.entry(name).or_default() += 1;
    }

    pub(super) fn arm(&self, ambush: Ambush, process: usize, point: CrashPoint, countdown: u32) {
        let mut shared = self.shared();
        if shared.armed.len() < ARMED_MAX {
            shared.armed.push(Armed {
                ambush,
                process,
                point,
                countdown,
            });
        }
    }

    /// What happens to `process` at `point`, of those things that can.
    fn meet(
        &self,
        process: usize,
        point: CrashPoint,
        can: impl Fn(Ambush) -> bool,
    ) -> Option<Ambush> {
        let mut shared = self.shared();
        let here =
            |armed: &Armed| armed.process == process && armed.point == point && can(armed.ambush);
        let index = shared.armed.iter().position(here)?;
        let armed = shared.armed.get_mut(index)?;
        if armed.countdown > 0 {
            armed.countdown -= 1;
            return None;
        }
        let ambush = shared.armed.swap_remove(index).ambush;
        let fired = match ambush {
            Ambush::Crash => &mut shared.fired.crashes,
            Ambush::Stall => &mut shared.fired.stalls,
        };
        *fired.entry(point).or_default() += 1;
        Some(ambush)
    }

    /// Returns the client ids that are to die now.
    pub(super) fn take_doomed(&self) -> Vec<String> {
        std::mem::take(&mut self.shared().doomed)
    }

    pub(super) fn fired(&self) -> Fired {
        self.shared().fired.clone()
    }
}

impl FaultPlan for Faults {
    fn decide(&self, site: &FaultSite<'_>) -> Option<Fault> {
        let mut shared = self.shared();
        // One call in a transaction is a commit, hundreds are sends and polls.
        let rate = match site.point {
            FaultPoint::Commit => shared.rate * 4,
            FaultPoint::Init | FaultPoint::SendOffsets | FaultPoint::Abort => shared.rate * 2,
            FaultPoint::Committed | FaultPoint::Flush => shared.rate,
            FaultPoint::Send | FaultPoint::Fetch => shared.rate.div_ceil(8),
        };
        if shared.rate == 0 || shared.rng.u32(0..1000) >= rate {
            return None;
        }
        let draw = shared.rng.u32(0..10);
        let fault = match site.point {
            FaultPoint::Fetch | FaultPoint::Committed => Fault::Retriable,
            _ if draw == 9 => Fault::Fatal,
            FaultPoint::Commit if draw < 3 => Fault::ReplyLost,
            FaultPoint::Commit if draw < 6 => Fault::RequestLost,
            FaultPoint::Commit if draw < 8 => Fault::AbortRequired,
            FaultPoint::Send | FaultPoint::SendOffsets if draw < 6 => Fault::AbortRequired,
            _ => Fault::Retriable,
        };
        let in_doubt = matches!(fault, Fault::ReplyLost | Fault::RequestLost);
        if in_doubt && shared.rng.u32(0..4) == 0 {
            shared.doomed.push(site.client_id.to_owned());
        }
        *shared
            .fired
            .log
            .entry((site.point, format!("{fault:?}")))
            .or_default() += 1;
        Some(fault)
    }
}

/// A thread's side of its stall: it tells the scheduler, and waits to be let go.
pub(super) struct Gate {
    pub(super) stalled: Sender<Stepped>,
    /// Closed when the process is killed.
    pub(super) resume: Receiver<()>,
}

/// One thread's probe.
pub(super) struct SimulationProbe {
    pub(super) process: usize,
    pub(super) faults: Faults,
    pub(super) planted: Option<PlantedBug>,
    pub(super) gate: Mutex<Gate>,
}

impl Probe for SimulationProbe {
    fn reached(&self, point: CrashPoint) -> Result<(), Crash> {
        match self.faults.meet(self.process, point, |_| true) {
            None => Ok(()),
            Some(Ambush::Crash) => Err(Crash(point)),
            Some(Ambush::Stall) => {
                let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
                let told = gate.stalled.send(Stepped::Stalled(point)).is_ok();
                // Nobody lets a killed process go on.
                if told && gate.resume.recv().is_ok() {
                    Ok(())
                } else {
                    Err(Crash(point))
                }
            }
        }
    }

    fn planted(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }
}

/// The global thread's probe. It is stepped on the scheduler's own thread, and so cannot stall.
pub(super) struct GlobalProbe {
    pub(super) process: usize,
    pub(super) faults: Faults,
    pub(super) planted: Option<PlantedBug>,
}

impl Probe for GlobalProbe {
    fn reached(&self, point: CrashPoint) -> Result<(), Crash> {
        let crashes = |ambush| ambush == Ambush::Crash;
        match self.faults.meet(self.process, point, crashes) {
            None => Ok(()),
            Some(_) => Err(Crash(point)),
        }
    }

    fn planted(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }
}
