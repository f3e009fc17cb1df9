//! Figures as tables: on the terminal, and as sections of `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::latency::Latency;
use crate::observe::Observed;
use crate::verify::Written;

/// What is better of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
    /// Not compared.
    Neither,
}

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Outcome {
    Throughput(Observed),
    Latency(Latency),
}

/// One run of one side, verified.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) contender: &'static str,
    pub(crate) pair: usize,
    pub(crate) load_before: f64,
    pub(crate) outcome: Outcome,
    pub(crate) written: Written,
}

type Row = (&'static str, Better, usize, fn(&Run) -> Option<f64>);

fn throughput(run: &Run) -> Option<&Observed> {
    match &run.outcome {
        Outcome::Throughput(observed) => Some(observed),
        Outcome::Latency(_) => None,
    }
}

fn latency(run: &Run) -> Option<&Latency> {
    match &run.outcome {
        Outcome::Throughput(_) => None,
        Outcome::Latency(latency) => Some(latency),
    }
}

/// Name, what is better, decimals, value.
const ROWS: [Row; 14] = [
    ("records/s, whole run", Better::More, 0, |run| {
        Some(throughput(run)?.whole.records_per_second)
    }),
    ("records/s, warmed up", Better::More, 0, |run| {
        Some(throughput(run)?.second_half.records_per_second)
    }),
    ("CPU µs per record, whole run", Better::Less, 2, |run| {
        Some(throughput(run)?.whole.cpu_us_per_record)
    }),
    ("CPU µs per record, warmed up", Better::Less, 2, |run| {
        Some(throughput(run)?.second_half.cpu_us_per_record)
    }),
    ("start to first commit, s", Better::Less, 2, |run| {
        Some(throughput(run)?.first_commit_seconds)
    }),
    ("p50, ms", Better::Less, 1, |run| Some(latency(run)?.p50)),
    ("p99, ms", Better::Less, 1, |run| Some(latency(run)?.p99)),
    ("p99.9, ms", Better::Less, 1, |run| Some(latency(run)?.p999)),
    ("greatest, ms", Better::Less, 1, |run| {
        Some(latency(run)?.max)
    }),
    ("CPU, % of a core", Better::Less, 1, |run| {
        Some(latency(run)?.cpu_percent)
    }),
    ("peak RSS, MiB", Better::Less, 0, |run| match &run.outcome {
        Outcome::Throughput(observed) => Some(observed.peak_rss_mib),
        Outcome::Latency(latency) => Some(latency.peak_rss_mib),
    }),
    ("output records", Better::Neither, 0, |run| {
        count(run.written.output_records)
    }),
    ("changelog records", Better::Neither, 0, |run| {
        count(run.written.changelog_records)
    }),
    ("load average before", Better::Neither, 1, |run| {
        Some(run.load_before)
    }),
];

#[expect(clippy::cast_precision_loss, reason = "far fewer records than 2^52")]
fn count(records: u64) -> Option<f64> {
    (records > 0).then_some(records as f64)
}

/// Median, least, greatest.
#[derive(Debug, Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    let median = if values.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(*values.get(middle - 1)?, upper)
    };
    Some(Spread {
        median,
        least: *values.first()?,
        greatest: *values.last()?,
    })
}

fn thousands(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// The table of a workload's runs; the last contender is compared with the others, pair by pair.
pub(crate) fn table(contenders: &[&'static str], runs: &[Run]) -> Result<String> {
    let of = |name: &str, pick: fn(&Run) -> Option<f64>| -> Vec<f64> {
        let mut runs: Vec<&Run> = runs.iter().filter(|run| run.contender == name).collect();
        runs.sort_by_key(|run| run.pair);
        runs.into_iter().filter_map(pick).collect()
    };
    let Some((ours, theirs)) = contenders.split_last() else {
        return Ok(String::new());
    };
    let mut out = String::from("| median (least to greatest) |");
    for name in contenders {
        write!(out, " {name} |")?;
    }
    for name in theirs {
        let name = name.strip_prefix("Kafka Streams").unwrap_or(name);
        let name = name.trim_start_matches(", ");
        if name.is_empty() {
            out.push_str(" ratio |");
        } else {
            write!(out, " against {name} |")?;
        }
    }
    out.push_str("\n| --- |");
    out.push_str(&" ---: |".repeat(contenders.len() + theirs.len()));
    out.push('\n');
    for (name, better, decimals, pick) in ROWS {
        let cells: Vec<Option<Spread>> = contenders
            .iter()
            .map(|contender| spread(of(contender, pick)))
            .collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        write!(out, "| {name} |")?;
        for cell in cells {
            let Some(cell) = cell else {
                out.push_str(" |");
                continue;
            };
            let [median, least, greatest] =
                [cell.median, cell.least, cell.greatest].map(|value| thousands(value, decimals));
            if least == greatest {
                write!(out, " {median} |")?;
            } else {
                write!(out, " {median} ({least} to {greatest}) |")?;
            }
        }
        for their in theirs {
            let ratios = of(their, pick)
                .into_iter()
                .zip(of(ours, pick))
                .map(|(theirs, ours)| match better {
                    Better::More | Better::Neither => ours / theirs,
                    Better::Less => theirs / ours,
                });
            match spread(ratios.collect()) {
                Some(ratio) if better != Better::Neither => {
                    let Spread {
                        median,
                        least,
                        greatest,
                    } = ratio;
                    write!(out, " **{median:.1}×** ({least:.1} to {greatest:.1}) |")?;
                }
                _ => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
    Ok(out)
}

/// Puts `section` into the page between the markers of `letter`; appends it where it has none.
pub(crate) fn write_section(page: &Path, letter: &str, section: &str) -> Result<()> {
    let text =
        std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let begin = format!("<!-- compare {letter}: written by scripts/compare -->");
    let end = format!("<!-- end of compare {letter} -->");
    let block = format!("{begin}\n{section}{end}");
    let text = match (text.find(&begin), text.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            let before = text.get(..from).unwrap_or_default();
            let after = text.get(to + end.len()..).unwrap_or_default();
            format!("{before}{block}{after}")
        }
        _ => format!("{}\n\n{block}\n", text.trim_end()),
    };
    std::fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

/// Appends a run with all its samples to the file at `path`, a JSON document on a line.
pub(crate) fn append_series(path: &Path, comparison: &str, run: &Run) -> Result<()> {
    let samples: &[_] = throughput(run).map_or(&[], |observed| &observed.series);
    let line = serde_json::json!({ "comparison": comparison, "run": run, "samples": samples });
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))
}
