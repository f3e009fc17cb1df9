//! Workload G: a process that has lost its state reads millions of keys from the changelog.
//!
//! The clock runs from when the side begins to read until all of its tasks run, as it says (`words`): the
//! start of a JVM, and joining the group, stand in rows of their own. A thousand events that wait in the
//! input prove that the store is whole: each continues the version that it finds.

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::comparison::Comparison;
use crate::contenders::Contender;
use crate::observe;
use crate::preload::Preload;
use crate::process;
use crate::report::{Better, Figure, Outcome, Run};
use crate::topics::Writer;
use crate::verify::{self, Written};
use crate::workload::{self, Workload};

/// Events that wait in the input.
const PROBES: u64 = 1000;

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Restored {
    records: u64,
    records_per_second: f64,
    cpu_us_per_record: f64,
    /// From the start of the process until all tasks run.
    running_seconds: f64,
    /// From the start of the process until the waiting events are committed.
    committed_seconds: f64,
    peak_rss_mib: f64,
}

impl Restored {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let less = |name, decimals, value| Figure::new(name, Better::Less, decimals, value);
        vec![
            Figure::new(
                "records restored/s",
                Better::More,
                0,
                self.records_per_second,
            ),
            less("CPU µs per restored record", 2, self.cpu_us_per_record),
            less("start to all tasks running, s", 2, self.running_seconds),
            less("start to last commit, s", 2, self.committed_seconds),
            less("peak RSS, MiB", 0, self.peak_rss_mib),
            Figure::count("restored records", self.records),
        ]
    }
}

pub(crate) fn measure(comparison: &Comparison) -> Result<Vec<Run>> {
    let workload = Workload::Restore;
    let warm_up = usize::try_from(comparison.options.warm_up)?;
    for contender in comparison.contenders(workload) {
        one(comparison, contender, Preload::new(comparison, warm_up))
            .with_context(|| format!("warming up with {}", contender.name))?;
    }
    let preload = Preload::new(comparison, comparison.options.keys(workload));
    comparison.pairs(workload, |contender| one(comparison, contender, preload))
}

fn one(
    comparison: &Comparison,
    contender: &Contender,
    preload: Preload,
) -> Result<(Outcome, Written)> {
    let workload = Workload::Restore;
    let (log, options) = (&comparison.log, &comparison.options);
    let sandbox = comparison.sandbox_with_input(workload)?;
    preload.write(comparison, &sandbox)?;
    let mut writer = Writer::new(log, &sandbox.input)?;
    let mut input = preload.input(PROBES);
    while input.advance()? {
        writer.write(&input.key, &input.value, input.timestamp)?;
    }
    writer.flush()?;
    let mut side = comparison.start(contender, workload, &sandbox)?;
    let ready = side.ready()?;
    let progress = comparison.progress(workload, &sandbox, PROBES)?;
    let watched = observe::watch(&mut side, &progress)?;
    let peak_rss_mib = process::peak_rss_mib(side.pid())?;
    let started = side.started;
    side.stop()?;
    let restoring = ready.restoring.context("nothing was restored")?;
    let records = ready.restored;
    ensure!(
        records == u64::try_from(preload.keys())?,
        "{records} records were restored, not {}",
        preload.keys()
    );
    let expected = workload::expected(workload, preload.input(PROBES))?;
    let mut written = verify::verify(log, options, workload, contender, &sandbox, &expected)?;
    written.changelog_records = preload.verify(comparison, &sandbox, preload.input(PROBES))?;
    comparison.delete(&sandbox)?;
    let cpu = ready.running.cpu - restoring.cpu;
    #[expect(clippy::cast_precision_loss, reason = "far fewer records than 2^52")]
    let count = records as f64;
    let outcome = Outcome::Restored(Restored {
        records,
        records_per_second: count / (ready.running.at - restoring.at).as_secs_f64(),
        cpu_us_per_record: cpu.as_secs_f64() * 1e6 / count,
        running_seconds: (ready.running.at - started).as_secs_f64(),
        committed_seconds: watched.last_seconds()?,
        peak_rss_mib,
    });
    Ok((outcome, written))
}
