//! Workload I: random updates of a store that is much larger than its caches.
//!
//! Three processes' work, of which the last is measured: one that wrote the changelog (`preload`), one that
//! restores it and stops in an orderly way, and one that finds its state and an input of updates. So
//! neither the restore nor the writing of the input is in the figures.

use anyhow::{Context, Result, ensure};

use crate::comparison::Comparison;
use crate::contenders::Contender;
use crate::launch::{Running, Sandbox};
use crate::observe::{self, Watched};
use crate::preload::Preload;
use crate::process;
use crate::report::{Outcome, Run};
use crate::topics::Writer;
use crate::verify::{self, Written};
use crate::workload::{self, Expected, Workload};

/// A store, and what happens to it.
struct Case {
    preload: Preload,
    records: u64,
    expected: Expected,
}

impl Case {
    fn new(preload: Preload, records: u64) -> Result<Self> {
        Ok(Self {
            preload,
            records,
            expected: workload::expected(Workload::Updates, preload.input(records))?,
        })
    }
}

pub(crate) fn measure(comparison: &Comparison) -> Result<Vec<Run>> {
    let workload = Workload::Updates;
    let options = &comparison.options;
    let warm_up = usize::try_from(options.warm_up)?;
    let small = Case::new(Preload::new(comparison, warm_up), options.warm_up)?;
    for contender in comparison.contenders(workload) {
        one(comparison, contender, &small)
            .with_context(|| format!("warming up with {}", contender.name))?;
    }
    let preload = Preload::new(comparison, options.keys(workload));
    let case = Case::new(preload, options.records)?;
    comparison.pairs(workload, |contender| {
        let (watched, written) = one(comparison, contender, &case)?;
        let observed = watched.figures(i64::try_from(case.records)?)?;
        Ok((Outcome::Throughput(observed), written))
    })
}

fn one(comparison: &Comparison, contender: &Contender, case: &Case) -> Result<(Watched, Written)> {
    let workload = Workload::Updates;
    let (log, options) = (&comparison.log, &comparison.options);
    let sandbox = comparison.sandbox_with_input(workload)?;
    case.preload.write(comparison, &sandbox)?;
    restore(comparison, contender, &sandbox, case.preload)?;
    let mut writer = Writer::new(log, &sandbox.input)?;
    let mut input = case.preload.input(case.records);
    while input.advance()? {
        writer.write(&input.key, &input.value, input.timestamp)?;
    }
    writer.flush()?;
    let mut side = comparison.start(contender, workload, &sandbox)?;
    let progress = comparison.progress(workload, &sandbox, case.records)?;
    let watched = observe::watch(&mut side, &progress)?;
    check_memory(contender, &side)?;
    side.stop()?;
    let expected = &case.expected;
    let mut written = verify::verify(log, options, workload, contender, &sandbox, expected)?;
    let input = case.preload.input(case.records);
    written.changelog_records = case.preload.verify(comparison, &sandbox, input)?;
    comparison.delete(&sandbox)?;
    Ok((watched, written))
}

/// Lets a side take the store in.
fn restore(
    comparison: &Comparison,
    contender: &Contender,
    sandbox: &Sandbox,
    preload: Preload,
) -> Result<()> {
    let mut side = comparison.start(contender, Workload::Updates, sandbox)?;
    let restored = side.ready()?.restored;
    ensure!(
        restored == u64::try_from(preload.keys())?,
        "{restored} records were restored, not {}",
        preload.keys()
    );
    check_memory(contender, &side)?;
    side.stop()
}

/// Fails when a side took more memory than it may.
fn check_memory(contender: &Contender, side: &Running) -> Result<()> {
    let Some(max) = contender.rss_mib_max else {
        return Ok(());
    };
    let peak = process::peak_rss_mib(side.pid())?;
    ensure!(
        peak <= max,
        "its resident memory peaked at {peak:.0} MiB, {max:.0} MiB are allowed"
    );
    Ok(())
}
