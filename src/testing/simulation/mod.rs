//! Deterministic simulation: the production runtime on the embedded log, with virtual time.
//!
//! # Position
//! One seed makes a run: topology settings, input, who steps when, and what goes wrong. Several
//! processes of one or two [`StreamThread`](crate::runtime::StreamThread)s each are stepped one at a
//! time; checkers stand outside. `docs/simulation.md` tells how to use it.
//! # Invariants
//! - The same seed is the same run, so a failure is replayed by its seed alone.
//! - Nothing but the log, the clock and the [`Probe`](crate::runtime::Probe) is replaced: what runs is
//!   what ships.
//! - A checker reads the log and closed databases, never the runtime's own books.
//! # What it does not simulate
//! Network partitions between a client and one of several brokers, the wire protocol, disks that lie:
//! tests against real Kafka and `kill -9` are for those.

mod check;
mod driver;
mod faults;
mod folds;
mod foreign_key;
mod globals;
mod joins;
mod mirror;
mod plan;
mod process;
mod scenario;
mod tables;
mod versions;
mod windows;
mod world;

use std::fmt;

use crate::runtime::PlantedBug;
pub use faults::Fired;
pub use scenario::Scenario;

/// Which run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// What runs.
    pub scenario: Scenario,
    /// A mistake for the runtime to make, which the checkers are to find.
    #[doc(hidden)]
    pub planted: Option<PlantedBug>,
}

impl Options {
    /// Creates the options of a plain run; the seed decides the scenario too.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Self {
            seed,
            scenario: Scenario::of(seed),
            planted: None,
        }
    }

    /// Runs another scenario than the seed's own.
    #[must_use]
    pub const fn with_scenario(self, scenario: Scenario) -> Self {
        Self { scenario, ..self }
    }

    /// Plants a mistake.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_bug(self, bug: PlantedBug) -> Self {
        Self {
            planted: Some(bug),
            ..self
        }
    }
}

/// What a run came to that found nothing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Input records.
    pub records: usize,
    /// Steps of stream threads.
    pub steps: u64,
    /// The same for two runs that took the same steps at the same times.
    pub digest: u64,
    /// What went wrong on purpose.
    pub fired: Fired,
}

/// A run that broke a guarantee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which run.
    pub options: Options,
    /// What is wrong.
    pub wrong: String,
    /// The plan, and what happened last.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options {
            seed,
            scenario,
            planted,
        } = self.options;
        writeln!(f, "simulation of seed {seed}, {scenario:?}: {}", self.wrong)?;
        if let Some(bug) = planted {
            writeln!(f, "planted: {bug:?}")?;
        }
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "replay: MILLSTREAM_SIM_SEED={seed} MILLSTREAM_SIM_SCENARIO={scenario:?} scripts/test sim"
        )
    }
}

impl std::error::Error for Failure {}

/// Runs one seed to its end.
///
/// # Errors
/// [`Failure`] with the first guarantee that was broken.
pub fn run(options: Options) -> Result<Report, Box<Failure>> {
    let failure = |wrong, trace| {
        Box::new(Failure {
            options,
            wrong,
            trace,
        })
    };
    let mut world = world::World::new(&options).map_err(|wrong| failure(wrong, Vec::new()))?;
    world.run().map_err(|wrong| failure(wrong, world.trace()))
}
