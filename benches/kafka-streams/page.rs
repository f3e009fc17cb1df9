//! A workload's section of `docs/benchmarks.md`: how it was measured, its table, its plot.

use std::path::Path;

use anyhow::{Result, ensure};
use millstream::clock::{Clock, SystemClock};

use crate::machine;
use crate::options::Options;
use crate::plot;
use crate::report::{self, Run};
use crate::workload::{Input, Workload};

/// Writes the section, and the plot where progress was watched, into `folder`.
pub(crate) fn write(
    folder: &Path,
    options: &Options,
    workload: Workload,
    contenders: &[&'static str],
    runs: &[Run],
    table: &str,
) -> Result<()> {
    let how = how(options, workload)?;
    let mut section = format!("### {}\n\n{how}\n{table}", workload.title());
    let lines: Vec<plot::Line<'_>> = runs
        .iter()
        .filter(|run| !run.series().is_empty())
        .map(|run| {
            let of = contenders.iter().position(|name| *name == run.contender);
            plot::Line {
                contender: of.unwrap_or_default(),
                series: run.series(),
            }
        })
        .collect();
    if !lines.is_empty() {
        let name = format!("compare-{}.svg", workload.letter().to_lowercase());
        std::fs::create_dir_all(folder.join("benchmarks"))?;
        let svg = plot::progress(workload.title(), contenders, &lines)?;
        std::fs::write(folder.join("benchmarks").join(&name), svg)?;
        section += &format!("\n![Records committed over time](benchmarks/{name})\n");
    }
    report::write_section(&folder.join("benchmarks.md"), workload.letter(), &section)
}

/// Says how the figures came about.
fn how(options: &Options, workload: Workload) -> Result<String> {
    let Options {
        pairs, jvm_flags, ..
    } = options;
    ensure!(*pairs > 0, "no pairs");
    let pinned = options.cpus.as_deref();
    let pinned = pinned.map_or_else(String::new, |cpus| format!(", both sides on CPU {cpus}"));
    let date = jiff::Timestamp::from_millisecond(SystemClock.now_ms())?;
    Ok(format!(
        "{} in {} partitions, {pairs} pairs{pinned}; JVM `{jvm_flags}`. {}, {}.\n\n```\n{}\n```\n",
        amount(options, workload)?,
        options.partitions(workload),
        date.strftime("%Y-%m-%d"),
        machine::describe()?,
        options.command_line,
    ))
}

/// Says how much is done.
fn amount(options: &Options, workload: Workload) -> Result<String> {
    let Options {
        records,
        accounts,
        rate,
        seconds,
        idle_seconds,
        ..
    } = options;
    let (keys, bytes) = (options.keys(workload), event_bytes(options)?);
    Ok(match workload {
        Workload::Balances | Workload::Stateless | Workload::Windowed | Workload::Joined => {
            format!("{records} records of {bytes} B over {accounts} accounts")
        }
        Workload::ForeignKey => format!(
            "{accounts} accounts and a tenth as many owners, then {records} changes, one in ten of them \
             an owner's,"
        ),
        Workload::Latency => format!(
            "{rate} records/s for {seconds} s, after {} s that are not measured, of {bytes} B over \
             {accounts} accounts",
            seconds / 2
        ),
        Workload::Restore => format!("{keys} keys of about 50 B with their values"),
        Workload::Recovery => format!(
            "{keys} keys; {rate} records/s of {bytes} B for {} s before the kill and as long after it",
            seconds / 2
        ),
        Workload::Updates => {
            format!("{records} records of {bytes} B, any of {keys} keys each,")
        }
        Workload::Idle => format!("{idle_seconds} s without a record"),
    })
}

/// Returns the mean size of the first events: JSON alone.
fn event_bytes(options: &Options) -> Result<usize> {
    let mut input = Input::new(1000, options.accounts, options.seed, 0);
    let mut bytes = 0;
    while input.advance()? {
        bytes += input.value.len();
    }
    Ok(bytes / 1000)
}
