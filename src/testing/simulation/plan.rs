//! What one seed stands for: sizes and rates of a run.

use fastrand::Rng;

use super::Options;
use super::scenario::Scenario;

/// How a run is set up. Everything in it, and everything that happens later, follows from the seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) scenario: Scenario,
    pub(super) partitions: i32,
    pub(super) processes: usize,
    pub(super) threads: usize,
    pub(super) records: usize,
    pub(super) keys: u64,
    /// Virtual milliseconds between commits.
    pub(super) commit_interval_ms: u64,
    pub(super) flush_interval_ms: u64,
    /// Longer than a session: a dead owner's transaction outlives its membership.
    pub(super) transaction_timeout_ms: u64,
    pub(super) records_per_step: usize,
    /// In thousandths of the log's calls.
    pub(super) fault_rate: u32,
    /// In thousandths of the scheduler's turns.
    pub(super) crash_rate: u32,
    pub(super) freeze_rate: u32,
    /// Whether processes stay away for longer than tombstones live, while changelogs are compacted.
    pub(super) ageing: bool,
    /// Whether poison records are dead-lettered (or skipped).
    pub(super) dead_letters: bool,
    /// In thousandths of the input.
    pub(super) poison_rate: u32,
    pub(super) windows: WindowPlan,
}

/// What the scenarios with windows and joins draw beside it, so that runs of the first scenario stay
/// what they are. Milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WindowPlan {
    pub(super) size: i64,
    pub(super) grace: i64,
    pub(super) gap: i64,
    /// How far behind most records are, and how far those that are late.
    pub(super) disorder: i64,
    pub(super) late: i64,
    /// Whether a repartition topic lies in front.
    pub(super) regrouped: bool,
    /// Whether the join keeps entries without a counterpart.
    pub(super) left: bool,
}

impl WindowPlan {
    fn new(rng: &mut Rng) -> Self {
        Self {
            size: *pick(rng, &[20, 100, 700]),
            grace: *pick(rng, &[0, 40, 400]),
            gap: *pick(rng, &[10, 60, 300]),
            disorder: *pick(rng, &[10, 100, 500]),
            late: *pick(rng, &[1_000, 10_000]),
            regrouped: rng.bool(),
            left: rng.bool(),
        }
    }
}

impl Plan {
    pub(super) fn new(options: &Options, rng: &mut Rng) -> Self {
        let calm = rng.u32(0..10) == 0;
        Self {
            scenario: options.scenario,
            partitions: rng.i32(1..=3),
            processes: rng.usize(2..=3),
            threads: rng.usize(1..=2),
            records: rng.usize(60..=240),
            keys: *pick(rng, &[2, 6, 12, 40]),
            commit_interval_ms: *pick(rng, &[0, 20, 100, 400]),
            flush_interval_ms: *pick(rng, &[50, 500, 5_000]),
            transaction_timeout_ms: *pick(rng, &[10_000, 60_000]),
            records_per_step: *pick(rng, &[1, 3, 50]),
            fault_rate: if calm { 0 } else { *pick(rng, &[2, 10, 40]) },
            crash_rate: if calm { 0 } else { *pick(rng, &[2, 5, 12]) },
            freeze_rate: if calm { 0 } else { *pick(rng, &[0, 1, 2]) },
            ageing: rng.u32(0..4) == 0,
            dead_letters: rng.bool(),
            poison_rate: *pick(rng, &[0, 30, 100]),
            windows: WindowPlan::new(&mut Rng::with_seed(!options.seed)),
        }
    }
}

pub(super) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(0..from.len())]
}
