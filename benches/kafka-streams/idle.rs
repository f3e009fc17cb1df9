//! Workload J: what a process costs that has many tasks and nothing to do.
//!
//! Each partition gets some events first, so that every task has its store open and written to; once they
//! are committed, the process is left alone for a while before the clock starts. More events afterwards
//! prove that it was at its post all the time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::comparison::Comparison;
use crate::contenders::Contender;
use crate::observe;
use crate::process;
use crate::report::{Better, Figure, Outcome, Run};
use crate::topics::Writer;
use crate::verify::{self, Written};
use crate::workload::{self, Expected, Input, Workload};

/// Events before, and as many after: far more than partitions, so that each gets some.
const EVENTS: u64 = 4000;
const ACCOUNTS: usize = 4000;
/// How long a side may come to rest.
const SETTLE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Idle {
    /// Share of one core, in percent.
    cpu_percent: f64,
    /// At the end of the time.
    rss_mib: f64,
    peak_rss_mib: f64,
    /// From the start of the process until all tasks run.
    running_seconds: f64,
}

impl Idle {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let less = |name, decimals, value| Figure::new(name, Better::Less, decimals, value);
        vec![
            less("CPU, % of a core", 2, self.cpu_percent),
            less("RSS, MiB", 0, self.rss_mib),
            less("peak RSS, MiB", 0, self.peak_rss_mib),
            less("start to all tasks running, s", 2, self.running_seconds),
        ]
    }
}

pub(crate) fn measure(comparison: &Comparison) -> Result<Vec<Run>> {
    let input = || {
        let seed = comparison.options.seed;
        Input::new(2 * EVENTS, ACCOUNTS, seed, comparison.start_ms)
    };
    let expected = workload::expected(Workload::Idle, input())?;
    comparison.pairs(Workload::Idle, |contender| {
        one(comparison, contender, input(), &expected)
    })
}

fn one(
    comparison: &Comparison,
    contender: &Contender,
    mut input: Input,
    expected: &Expected,
) -> Result<(Outcome, Written)> {
    let workload = Workload::Idle;
    let (log, options) = (&comparison.log, &comparison.options);
    let sandbox = comparison.sandbox_with_input(workload)?;
    let mut side = comparison.start(contender, workload, &sandbox)?;
    let ready = side.ready()?;
    let running_seconds = (ready.running.at - side.started).as_secs_f64();
    let mut writer = Writer::new(log, &sandbox.input)?;
    for _ in 0..EVENTS {
        ensure!(input.advance()?, "the input is too short");
        writer.write(&input.key, &input.value, input.timestamp)?;
    }
    writer.flush()?;
    observe::watch(&mut side, &comparison.progress(workload, &sandbox, EVENTS)?)?;
    wait(SETTLE);
    side.check()?;
    let before = side.now()?;
    wait(Duration::from_secs(options.idle_seconds));
    side.check()?;
    let after = side.now()?;
    let rss_mib = process::rss_mib(side.pid())?;
    let peak_rss_mib = process::peak_rss_mib(side.pid())?;
    while input.advance()? {
        writer.write(&input.key, &input.value, input.timestamp)?;
    }
    writer.flush()?;
    let all = comparison.progress(workload, &sandbox, 2 * EVENTS)?;
    observe::watch(&mut side, &all)?;
    side.stop()?;
    let written = verify::verify(log, options, workload, contender, &sandbox, expected)?;
    comparison.delete(&sandbox)?;
    let outcome = Outcome::Idle(Idle {
        cpu_percent: 100.0 * (after.cpu - before.cpu).as_secs_f64()
            / (after.at - before.at).as_secs_f64(),
        rss_mib,
        peak_rss_mib,
        running_seconds,
    });
    Ok((outcome, written))
}

/// Lets time pass: what is measured is what happens in it.
fn wait(time: Duration) {
    let end = Instant::now() + time;
    while let Some(rest) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(rest);
    }
}
