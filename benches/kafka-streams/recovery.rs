//! Workload H: a process is killed while records come in, and started again at once.
//!
//! The clock runs from the signal until the first output can be read, read committed, of a record that
//! was due after it. The records go on coming in at their rate all the while, and every one of them has
//! to come out once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::comparison::Comparison;
use crate::contenders::Contender;
use crate::feed::Feed;
use crate::launch::{Ready, Running, Sandbox};
use crate::preload::Preload;
use crate::process;
use crate::report::{Better, Figure, Outcome, Run};
use crate::verify::{self, Written};
use crate::workload::{self, Expected, Workload};

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Recovered {
    /// From the kill to the first output of a record behind it.
    output_seconds: f64,
    /// From the kill until all tasks run again.
    running_seconds: f64,
    /// The longest that any record has waited for its output.
    longest_wait_seconds: f64,
    /// Records that the second process has read from changelogs.
    restored: u64,
    peak_rss_mib: f64,
}

impl Recovered {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let less = |name, decimals, value| Figure::new(name, Better::Less, decimals, value);
        vec![
            less("kill to first new output, s", 2, self.output_seconds),
            less("kill to all tasks running, s", 2, self.running_seconds),
            less("longest wait of a record, s", 2, self.longest_wait_seconds),
            less("peak RSS after the kill, MiB", 0, self.peak_rss_mib),
            Figure::count("restored records after the kill", self.restored),
        ]
    }
}

pub(crate) fn measure(comparison: &Comparison) -> Result<Vec<Run>> {
    let (workload, options) = (Workload::Recovery, &comparison.options);
    let preload = Preload::new(comparison, options.keys(workload));
    let half = u64::from(options.rate) * options.seconds / 2;
    let expected = workload::expected(workload, preload.input(records(half)))?;
    comparison.pairs(workload, |contender| {
        one(comparison, contender, preload, half, &expected)
    })
}

/// All records, the one included that comes before the rate begins.
const fn records(half: u64) -> u64 {
    1 + 2 * half
}

fn one(
    comparison: &Comparison,
    contender: &Contender,
    preload: Preload,
    half: u64,
    expected: &Expected,
) -> Result<(Outcome, Written)> {
    let workload = Workload::Recovery;
    let (log, options) = (&comparison.log, &comparison.options);
    let sandbox = comparison.sandbox_with_input(workload)?;
    preload.write(comparison, &sandbox)?;
    let mut side = comparison.start(contender, workload, &sandbox)?;
    let restored = side.ready()?.restored;
    ensure!(
        restored == u64::try_from(preload.keys())?,
        "{restored} records were restored, not {}",
        preload.keys()
    );
    let mut feed = Feed::new(
        log,
        &sandbox,
        options.partitions,
        preload.input(records(half)),
        records(half),
        options.rate,
    )?;
    feed.begin(&mut side)?;
    for _ in 0..half {
        feed.next()?;
    }
    let killed_at = side.kill()?;
    let (mut side, ready) = restarted(comparison, contender, &sandbox, &mut feed, half)?;
    side.check()?;
    feed.flush()?;
    let arrivals = feed.finish()?;
    let peak_rss_mib = process::peak_rss_mib(side.pid())?;
    side.stop()?;
    let first = arrivals.iter().find(|arrival| arrival.due > killed_at);
    let first = first.context("no output came after the kill")?;
    let waits = arrivals
        .iter()
        .map(|it| it.read_at.saturating_duration_since(it.due));
    let longest = waits.max().unwrap_or(Duration::ZERO);
    let mut written = verify::verify(log, options, workload, contender, &sandbox, expected)?;
    let input = preload.input(records(half));
    written.changelog_records = preload.verify(comparison, &sandbox, input)?;
    comparison.delete(&sandbox)?;
    let outcome = Outcome::Recovered(Recovered {
        output_seconds: (first.read_at - killed_at).as_secs_f64(),
        running_seconds: (ready.running.at - killed_at).as_secs_f64(),
        longest_wait_seconds: longest.as_secs_f64(),
        restored: ready.restored,
        peak_rss_mib,
    });
    Ok((outcome, written))
}

/// Starts the side again on what is left of it, and sends the second half meanwhile.
fn restarted(
    comparison: &Comparison,
    contender: &Contender,
    sandbox: &Sandbox,
    feed: &mut Feed,
    half: u64,
) -> Result<(Running, Ready)> {
    let mut side = comparison.start(contender, Workload::Recovery, sandbox)?;
    for _ in 0..half {
        feed.next()?;
    }
    // What it has said meanwhile was noted when it was said.
    let ready = side.ready()?;
    Ok((side, ready))
}
