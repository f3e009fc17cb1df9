//! Workloads A, B, C, D and E: an input that is there already, worked off as fast as it goes.

use anyhow::{Context, Result};

use crate::comparison::Comparison;
use crate::contenders::Contender;
use crate::launch::Sandbox;
use crate::observe::{self, Progress, Watched};
use crate::report::{Outcome, Run};
use crate::topics::{self, Writer, partitions_of};
use crate::verify::{self, Written};
use crate::workload::foreign_key::{self, Rows, Table};
use crate::workload::{self, Expected, Input, Workload};

/// An input that all runs of a workload read.
struct Source {
    /// Names of its topics.
    input: &'static str,
    users: &'static str,
    /// Records of both, as far as the workload reads both from the start.
    records: u64,
    expected: Expected,
}

/// Events, and the users of D.
const EVENTS: [&str; 2] = ["input", "warm-up"];
const USERS: &str = "users";
/// Accounts and owners of E.
const ACCOUNTS: [&str; 2] = ["accounts", "warm-up-accounts"];
const OWNERS: [&str; 2] = ["owners", "warm-up-owners"];

/// Writes what all sides of `workloads` read, once.
pub(crate) fn write_inputs(comparison: &Comparison, workloads: &[Workload]) -> Result<()> {
    let reads_events = |workload: &Workload| {
        matches!(
            workload,
            Workload::Balances | Workload::Stateless | Workload::Windowed | Workload::Joined
        )
    };
    if workloads.iter().any(reads_events) {
        write_events(comparison)?;
    }
    if workloads.contains(&Workload::ForeignKey) {
        write_rows(comparison)?;
    }
    Ok(())
}

/// Records of each of an input's two sizes: the measured one, the one to warm up with.
fn sizes(comparison: &Comparison) -> [u64; 2] {
    [comparison.options.records, comparison.options.warm_up]
}

fn events(comparison: &Comparison, records: u64) -> Input {
    let options = &comparison.options;
    let (accounts, seed) = (options.accounts, options.seed);
    Input::new(records, accounts, seed, comparison.start_ms)
}

fn rows(comparison: &Comparison, changes: u64) -> Result<Rows> {
    let options = &comparison.options;
    let (accounts, seed) = (options.accounts, options.seed);
    Rows::new(accounts, changes, seed, comparison.start_ms)
}

fn write_events(comparison: &Comparison) -> Result<()> {
    let (log, users) = (&comparison.log, comparison.topic(USERS));
    let names = EVENTS.map(|name| comparison.topic(name));
    let all: Vec<&str> = names.iter().chain([&users]).map(String::as_str).collect();
    topics::create(log, &all, comparison.options.partitions)?;
    let mut writer = Writer::new(log, &users)?;
    for (key, value) in workload::users() {
        // Before all events, so that these find it.
        writer.write(key.as_bytes(), value.as_bytes(), comparison.start_ms - 1)?;
    }
    writer.flush()?;
    for (topic, records) in names.iter().zip(sizes(comparison)) {
        let mut writer = Writer::new(log, topic)?;
        let mut input = events(comparison, records);
        while input.advance()? {
            writer.write(&input.key, &input.value, input.timestamp)?;
        }
        writer.flush()?;
    }
    Ok(())
}

fn write_rows(comparison: &Comparison) -> Result<()> {
    for ((accounts, owners), changes) in ACCOUNTS.iter().zip(OWNERS).zip(sizes(comparison)) {
        let (accounts, owners) = (comparison.topic(accounts), comparison.topic(owners));
        topics::create(
            &comparison.log,
            &[&accounts, &owners],
            comparison.options.partitions,
        )?;
        let mut writers = [
            Writer::new(&comparison.log, &accounts)?,
            Writer::new(&comparison.log, &owners)?,
        ];
        let mut rows = rows(comparison, changes)?;
        while rows.advance()? {
            let [accounts, owners] = &mut writers;
            let writer = match rows.table {
                Table::Accounts => accounts,
                Table::Owners => owners,
            };
            writer.write(&rows.key, &rows.value, rows.timestamp)?;
        }
        for writer in &mut writers {
            writer.flush()?;
        }
    }
    Ok(())
}

/// Returns the measured input, and the one to warm up with.
fn sources(comparison: &Comparison, workload: Workload) -> Result<[Source; 2]> {
    let one = |size: usize, records| {
        let pick = |names: [&'static str; 2]| names.get(size).copied().unwrap_or_default();
        Ok::<_, anyhow::Error>(if workload == Workload::ForeignKey {
            let rows = rows(comparison, records)?;
            Source {
                input: pick(ACCOUNTS),
                users: pick(OWNERS),
                records: rows.count(),
                expected: foreign_key::expected(rows)?,
            }
        } else {
            Source {
                input: pick(EVENTS),
                users: USERS,
                records,
                expected: workload::expected(workload, events(comparison, records))?,
            }
        })
    };
    let [measured, warm_up] = sizes(comparison);
    Ok([one(0, measured)?, one(1, warm_up)?])
}

pub(crate) fn measure(comparison: &Comparison, workload: Workload) -> Result<Vec<Run>> {
    let [measured, warm_up] = sources(comparison, workload)?;
    for contender in comparison.contenders(workload) {
        one(comparison, workload, contender, &warm_up)
            .with_context(|| format!("warming up with {}", contender.name))?;
    }
    drop(warm_up);
    comparison.pairs(workload, |contender| {
        let (watched, written) = one(comparison, workload, contender, &measured)?;
        let observed = watched.figures(i64::try_from(measured.records)?)?;
        Ok((Outcome::Throughput(observed), written))
    })
}

/// Runs one side once, verifies what it wrote, and deletes it.
fn one(
    comparison: &Comparison,
    workload: Workload,
    contender: &Contender,
    source: &Source,
) -> Result<(Watched, Written)> {
    let (log, options) = (&comparison.log, &comparison.options);
    let sandbox = comparison.sandbox(source.input, source.users)?;
    topics::create(log, &[&sandbox.output], options.partitions)?;
    let mut side = comparison.start(contender, workload, &sandbox)?;
    let progress = progress(comparison, workload, &sandbox, source.records)?;
    let watched = observe::watch(&mut side, &progress)?;
    side.stop()?;
    let expected = &source.expected;
    let written = verify::verify(log, options, workload, contender, &sandbox, expected)?;
    comparison.delete(&sandbox)?;
    Ok((watched, written))
}

fn progress<'a>(
    comparison: &'a Comparison,
    workload: Workload,
    sandbox: &Sandbox,
    records: u64,
) -> Result<Progress<'a>> {
    let partitions = comparison.options.partitions;
    let mut inputs = partitions_of(&sandbox.input, partitions);
    if workload == Workload::ForeignKey {
        inputs.extend(partitions_of(&sandbox.users, partitions));
    }
    Progress::of(
        &comparison.log,
        &comparison.launch.servers,
        &sandbox.application,
        &inputs,
        i64::try_from(records)?,
        workload
            .is_repartitioned()
            .then(|| partitions_of(&sandbox.output, partitions)),
    )
}
