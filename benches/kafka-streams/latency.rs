//! Workload F: records come in at a fixed rate; how long until a committed output can be read?

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::comparison::Comparison;
use crate::contenders::Contender;
use crate::feed::Feed;
use crate::process;
use crate::report::{Better, Figure, Outcome, Run};
use crate::verify::{self, Written};
use crate::workload::{self, Expected, Input, Workload};

/// Milliseconds from when a record was due to when its output was read, read committed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
    /// Share of one core while the rate lasted, in percent.
    cpu_percent: f64,
    peak_rss_mib: f64,
}

impl Latency {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let less = |name, decimals, value| Figure::new(name, Better::Less, decimals, value);
        vec![
            less("p50, ms", 1, self.p50),
            less("p99, ms", 1, self.p99),
            less("p99.9, ms", 1, self.p999),
            less("greatest, ms", 1, self.max),
            less("CPU, % of a core", 1, self.cpu_percent),
            less("peak RSS, MiB", 0, self.peak_rss_mib),
        ]
    }
}

/// Numbers of records.
#[derive(Debug, Clone, Copy)]
struct Pace {
    warm_up: usize,
    measured: usize,
    /// How long those that are measured take.
    span: Duration,
}

pub(crate) fn measure(comparison: &Comparison) -> Result<Vec<Run>> {
    let options = &comparison.options;
    let rate = u64::from(options.rate);
    let pace = Pace {
        warm_up: usize::try_from(rate * options.seconds / 2)?,
        measured: usize::try_from(rate * options.seconds)?,
        span: Duration::from_secs(options.seconds),
    };
    // One more comes before the rate begins.
    let records = u64::try_from(1 + pace.warm_up + pace.measured)?;
    let input = || {
        let (accounts, seed) = (options.accounts, options.seed);
        Input::new(records, accounts, seed, comparison.start_ms)
    };
    let expected = workload::expected(Workload::Latency, input())?;
    comparison.pairs(Workload::Latency, |contender| {
        one(comparison, contender, pace, input(), &expected)
    })
}

fn one(
    comparison: &Comparison,
    contender: &Contender,
    pace: Pace,
    input: Input,
    expected: &Expected,
) -> Result<(Outcome, Written)> {
    let workload = Workload::Latency;
    let (log, options) = (&comparison.log, &comparison.options);
    let sandbox = comparison.sandbox_with_input(workload)?;
    let mut side = comparison.start(contender, workload, &sandbox)?;
    let Pace {
        warm_up,
        measured,
        span,
    } = pace;
    let records = u64::try_from(1 + warm_up + measured)?;
    let mut feed = Feed::new(
        log,
        &sandbox,
        options.partitions,
        input,
        records,
        options.rate,
    )?;
    feed.begin(&mut side)?;
    for _ in 0..warm_up {
        feed.next()?;
    }
    side.check()?;
    let before = side.now()?;
    for _ in 0..measured {
        feed.next()?;
    }
    feed.flush()?;
    let cpu = side.now()?.cpu - before.cpu;
    let peak_rss_mib = process::peak_rss_mib(side.pid())?;
    let arrivals = feed.finish()?;
    let measured_ones = arrivals.iter().filter(|arrival| arrival.number > warm_up);
    let mut latencies: Vec<Duration> = measured_ones
        .map(|arrival| late(arrival.due, arrival.read_at))
        .collect();
    ensure!(
        latencies.len() == measured,
        "{} outputs of {measured} records",
        latencies.len()
    );
    latencies.sort_unstable();
    side.stop()?;
    let written = verify::verify(log, options, workload, contender, &sandbox, expected)?;
    comparison.delete(&sandbox)?;
    let outcome = Outcome::Latency(Latency {
        p50: percentile(&latencies, 500),
        p99: percentile(&latencies, 990),
        p999: percentile(&latencies, 999),
        max: percentile(&latencies, 1000),
        cpu_percent: 100.0 * cpu.as_secs_f64() / span.as_secs_f64(),
        peak_rss_mib,
    });
    Ok((outcome, written))
}

fn late(due: Instant, read_at: Instant) -> Duration {
    read_at.saturating_duration_since(due)
}

/// Returns the milliseconds that `per_mille` of `sorted` do not exceed.
fn percentile(sorted: &[Duration], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).saturating_sub(1);
    sorted.get(rank).map_or(0.0, |one| one.as_secs_f64() * 1e3)
}
