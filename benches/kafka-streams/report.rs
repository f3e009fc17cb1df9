//! Figures as tables: on the terminal, and as sections of `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::idle::Idle;
use crate::latency::Latency;
use crate::observe::{Observed, Sample};
use crate::recovery::Recovered;
use crate::restore::Restored;
use crate::verify::Written;

/// What is better of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
    /// Not compared.
    Neither,
}

/// A row of a table, as one run has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    name: &'static str,
    better: Better,
    decimals: usize,
    value: f64,
}

impl Figure {
    pub(crate) const fn new(
        name: &'static str,
        better: Better,
        decimals: usize,
        value: f64,
    ) -> Self {
        Self {
            name,
            better,
            decimals,
            value,
        }
    }

    /// A number of records, which says what was done and is not compared.
    #[expect(clippy::cast_precision_loss, reason = "far fewer records than 2^52")]
    pub(crate) const fn count(name: &'static str, records: u64) -> Self {
        Self::new(name, Better::Neither, 0, records as f64)
    }
}

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Outcome {
    Throughput(Observed),
    Latency(Latency),
    Restored(Restored),
    Recovered(Recovered),
    Idle(Idle),
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

impl Run {
    /// Returns its rows, in their order: the same for all runs of a workload.
    fn figures(&self) -> Vec<Figure> {
        let mut figures = match &self.outcome {
            Outcome::Throughput(observed) => observed.figures(),
            Outcome::Latency(latency) => latency.figures(),
            Outcome::Restored(restored) => restored.figures(),
            Outcome::Recovered(recovered) => recovered.figures(),
            Outcome::Idle(idle) => idle.figures(),
        };
        let Written {
            output_records,
            changelog_records,
        } = self.written;
        figures.push(Figure::count("output records", output_records));
        if changelog_records > 0 {
            figures.push(Figure::count("changelog records", changelog_records));
        }
        let load = self.load_before;
        figures.push(Figure::new("load average before", Better::Neither, 1, load));
        figures
    }

    /// Returns what it had committed over time, where that was watched.
    pub(crate) fn series(&self) -> &[Sample] {
        match &self.outcome {
            Outcome::Throughput(observed) => &observed.series,
            Outcome::Latency(_)
            | Outcome::Restored(_)
            | Outcome::Recovered(_)
            | Outcome::Idle(_) => &[],
        }
    }
}

/// Median, least, greatest.
#[derive(Debug, Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    fn text(self, decimals: usize) -> String {
        let [median, least, greatest] =
            [self.median, self.least, self.greatest].map(|value| thousands(value, decimals));
        if least == greatest {
            median
        } else {
            format!("{median} ({least} to {greatest})")
        }
    }
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
    let (Some((ours, theirs)), Some(first)) = (contenders.split_last(), runs.first()) else {
        return Ok(String::new());
    };
    let mut out = header(contenders, theirs)?;
    for row in first.figures() {
        let of = |contender: &str| -> Vec<f64> {
            let mut runs: Vec<&Run> = runs.iter().filter(|it| it.contender == contender).collect();
            runs.sort_by_key(|run| run.pair);
            let figures = runs.into_iter().filter_map(|run| {
                let mut figures = run.figures().into_iter();
                figures.find(|figure| figure.name == row.name)
            });
            figures.map(|figure| figure.value).collect()
        };
        write!(out, "| {} |", row.name)?;
        for contender in contenders {
            match spread(of(contender)) {
                Some(cell) => write!(out, " {} |", cell.text(row.decimals))?,
                None => out.push_str(" |"),
            }
        }
        for their in theirs {
            let pairs = of(their).into_iter().zip(of(ours));
            match spread(ratios(row.better, pairs)) {
                Some(Spread {
                    median,
                    least,
                    greatest,
                }) => write!(out, " **{median:.1}×** ({least:.1} to {greatest:.1}) |")?,
                None => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
    Ok(out)
}

fn header(contenders: &[&'static str], theirs: &[&'static str]) -> Result<String> {
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
    Ok(out)
}

/// How many times better millstream was in each pair of theirs and ours; none where a figure is not
/// compared, or nothing is divided by.
fn ratios(better: Better, pairs: impl Iterator<Item = (f64, f64)>) -> Vec<f64> {
    let ratio = |(theirs, ours): (f64, f64)| {
        let (above, below) = match better {
            Better::More => (ours, theirs),
            Better::Less => (theirs, ours),
            Better::Neither => return None,
        };
        (below > 0.0).then(|| above / below)
    };
    pairs.filter_map(ratio).collect()
}

/// Puts `section` into the page between the markers of `letter`. Where it has none, they go before the
/// first section of a later letter, or to the page's end.
pub(crate) fn write_section(page: &Path, letter: &str, section: &str) -> Result<()> {
    let text =
        std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let begin = begin_marker(letter);
    let end = format!("<!-- end of compare {letter} -->");
    let block = format!("{begin}\n{section}{end}");
    let later = || {
        let letters = ('A'..='Z').filter(|other| other.to_string().as_str() > letter);
        let mut found = letters.filter_map(|other| text.find(&begin_marker(&other.to_string())));
        found.next()
    };
    let text = match (text.find(&begin), text.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            let before = text.get(..from).unwrap_or_default();
            let after = text.get(to + end.len()..).unwrap_or_default();
            format!("{before}{block}{after}")
        }
        _ => match later().and_then(|at| text.split_at_checked(at)) {
            Some((before, after)) => format!("{before}{block}\n\n{after}"),
            None => format!("{}\n\n{block}\n", text.trim_end()),
        },
    };
    std::fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn begin_marker(letter: &str) -> String {
    format!("<!-- compare {letter}: written by scripts/compare -->")
}

/// Appends a run with all its samples to the file at `path`, a JSON document on a line.
pub(crate) fn append_series(path: &Path, comparison: &str, run: &Run) -> Result<()> {
    let samples = run.series();
    let line = serde_json::json!({ "comparison": comparison, "run": run, "samples": samples });
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    writeln!(file, "{line}").with_context(|| format!("cannot write {}", path.display()))
}
