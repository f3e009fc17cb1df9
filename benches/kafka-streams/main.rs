//! The comparison: Kafka Streams and millstream run the same topology on the same broker with the same
//! input, in turn, each as a process of its own. `scripts/compare` builds and starts it.
//!
//! One observer looks at both from outside (`observe`). Every run has an application id, a state
//! directory and an output topic of its own, is verified record by record (`verify`), and fails the
//! whole comparison when the work was not done. Which side goes first alternates.
#![expect(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

#[path = "../support/balances.rs"]
mod balances;
#[path = "../support/events.rs"]
mod events;
mod latency;
mod machine;
mod observe;
mod plot;
#[path = "../support/process.rs"]
mod process;
mod report;
mod side;
mod topics;
mod verify;
mod workload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use millstream::clock::{Clock, SystemClock};
use millstream::log::Log;
use millstream::log::kafka::KafkaLog;

use latency::Pace;
use observe::{Progress, Watched};
use report::{Outcome, Run};
use side::{Contender, Launch, RunTopics, SideArgs};
use topics::{Writer, partitions_of, retry};
use verify::Written;
use workload::{Expected, Input, Workload};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compares.
    Compare(Options),
    /// millstream's side; started by `compare`.
    #[command(hide = true)]
    Side(SideArgs),
}

#[derive(Debug, Clone, Parser)]
struct Options {
    /// What to measure: A, B, C, D, F; all when none is named.
    workloads: Vec<Workload>,
    /// Times that each side runs.
    #[arg(long, default_value_t = 3)]
    pairs: usize,
    /// Records of the input.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Records of an input of which each side works off once before anything is measured.
    #[arg(long, default_value_t = 50_000)]
    warm_up: u64,
    /// Accounts that they are about.
    #[arg(long, default_value_t = 100_000)]
    accounts: usize,
    /// Partitions of every topic.
    #[arg(long, default_value_t = 3)]
    partitions: i32,
    /// Decides the input.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records per second of F.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Seconds that F measures, after half as many that it does not.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Leave out what else Kafka Streams is run with: one Kafka Streams, one millstream.
    #[arg(long)]
    no_variants: bool,
    /// CPUs that both sides are pinned to, as for taskset; all when absent.
    #[arg(long)]
    cpus: Option<String>,
    /// The class path of Kafka Streams' side.
    #[arg(long)]
    class_path: String,
    /// Flags of its JVM, in one word.
    #[arg(long, default_value = "-Xmx1g", allow_hyphen_values = true)]
    jvm_flags: String,
    /// The command as it was typed, for the page.
    #[arg(
        long,
        hide = true,
        default_value = "scripts/compare",
        allow_hyphen_values = true
    )]
    command_line: String,
    /// Write sections and plots into this folder's `benchmarks.md` and `benchmarks/`.
    #[arg(long)]
    write_to: Option<PathBuf>,
    /// Write every run with its series of samples as JSON lines to this file.
    #[arg(long)]
    series: Option<PathBuf>,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Side(args) => side::run(&args),
        Command::Compare(options) => {
            let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_default();
            if servers.is_empty() {
                bail!("KAFKA_BOOTSTRAP_SERVERS is not set; `scripts/compare` starts a broker");
            }
            Comparison::new(&servers, options)?.run()
        }
    }
}

/// What all workloads of a run share.
struct Comparison {
    log: KafkaLog,
    options: Options,
    launch: Launch,
    /// Begins the names of all topics and applications.
    id: String,
    start_ms: i64,
}

impl Comparison {
    fn new(servers: &str, options: Options) -> Result<Self> {
        let flags = options.jvm_flags.split_whitespace();
        let launch = Launch {
            servers: servers.to_owned(),
            class_path: options.class_path.clone(),
            jvm_flags: flags.map(str::to_owned).collect(),
            cpus: options.cpus.clone(),
        };
        Ok(Self {
            log: KafkaLog::new(servers, BTreeMap::new())?,
            options,
            launch,
            id: format!("compare-{:08x}", fastrand::u32(..)),
            start_ms: Input::start_of(SystemClock.now_ms()),
        })
    }

    fn run(&self) -> Result<()> {
        let mut workloads = self.options.workloads.clone();
        if workloads.is_empty() {
            workloads = <Workload as clap::ValueEnum>::value_variants().to_vec();
        }
        self.write_inputs()?;
        for workload in workloads {
            println!("\n{}\n", workload.title());
            let runs = if workload == Workload::Latency {
                self.latency()?
            } else {
                self.throughput(workload)?
            };
            self.report(workload, &runs)?;
        }
        Ok(())
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    fn input(&self, records: u64) -> Input {
        let Options { accounts, seed, .. } = self.options;
        Input::new(records, accounts, seed, self.start_ms)
    }

    /// Writes what all sides read, once.
    fn write_inputs(&self) -> Result<()> {
        let (input, small, users) = (
            self.topic("input"),
            self.topic("warm-up"),
            self.topic("users"),
        );
        let names = [input.as_str(), &small, &users];
        topics::create(&self.log, &names, self.options.partitions)?;
        let mut writer = Writer::new(&self.log, &users)?;
        for (key, value) in workload::users() {
            // Before all events, so that these find it.
            writer.write(key.as_bytes(), value.as_bytes(), self.start_ms - 1)?;
        }
        writer.flush()?;
        for (topic, records) in [
            (&small, self.options.warm_up),
            (&input, self.options.records),
        ] {
            let mut writer = Writer::new(&self.log, topic)?;
            let mut input = self.input(records);
            while input.advance()? {
                writer.write(&input.key, &input.value, input.timestamp)?;
            }
            writer.flush()?;
        }
        Ok(())
    }

    /// The sides of a workload, millstream last.
    fn contenders(&self, workload: Workload) -> Vec<&'static Contender> {
        let all = side::contenders(workload);
        let last = all.len().saturating_sub(1);
        let is_wanted = |at: usize| !self.options.no_variants || at == 0 || at == last;
        let numbered = all.iter().enumerate();
        numbered
            .filter_map(|(at, contender)| is_wanted(at).then_some(contender))
            .collect()
    }

    /// The sides of `pair`, another one first each time.
    fn in_turn(&self, workload: Workload, pair: usize) -> Vec<&'static Contender> {
        let mut order = self.contenders(workload);
        let turns = pair % order.len();
        order.rotate_left(turns);
        order
    }

    fn throughput(&self, workload: Workload) -> Result<Vec<Run>> {
        for contender in self.contenders(workload) {
            let small = self.input(self.options.warm_up);
            let expected = workload::expected(workload, small)?;
            let run = self.run_topics("warm-up");
            self.one(workload, contender, &run, self.options.warm_up, &expected)
                .with_context(|| format!("warming up with {}", contender.name))?;
        }
        let expected = workload::expected(workload, self.input(self.options.records))?;
        let mut runs = Vec::new();
        for pair in 0..self.options.pairs {
            for contender in self.in_turn(workload, pair) {
                let load_before = machine::load()?;
                let run = self.run_topics("input");
                let name = || format!("{}, pair {}", contender.name, pair + 1);
                let records = self.options.records;
                let (watched, written) = self
                    .one(workload, contender, &run, records, &expected)
                    .with_context(name)?;
                let observed = watched
                    .figures(i64::try_from(records)?)
                    .with_context(name)?;
                let outcome = Outcome::Throughput(observed);
                runs.push(self.note(contender, pair, load_before, outcome, written)?);
            }
        }
        Ok(runs)
    }

    /// Runs one side once, verifies what it wrote, and deletes it.
    fn one(
        &self,
        workload: Workload,
        contender: &Contender,
        run: &RunTopics,
        records: u64,
        expected: &Expected,
    ) -> Result<(Watched, Written)> {
        let partitions = self.options.partitions;
        topics::create(&self.log, &[&run.output], partitions)?;
        let mut side = self.launch.start(contender, workload, run)?;
        let trailing = workload.repartition_topic(&run.application);
        let progress = Progress::of(
            &self.log,
            &self.launch.servers,
            &run.application,
            &partitions_of(&run.input, partitions),
            i64::try_from(records)?,
            trailing.map(|_| partitions_of(&run.output, partitions)),
        )?;
        let watched = observe::watch(&mut side, &progress)?;
        side.stop()?;
        let written = verify::verify(&self.log, workload, contender, run, partitions, expected)?;
        self.delete(workload, run)?;
        Ok((watched, written))
    }

    fn latency(&self) -> Result<Vec<Run>> {
        let seconds = self.options.seconds;
        let pace = Pace {
            per_second: self.options.rate,
            warm_up: Duration::from_secs(seconds / 2),
            measured: Duration::from_secs(seconds),
        };
        let workload = Workload::Latency;
        let records = pace.all()?;
        let partitions = self.options.partitions;
        let expected = workload::expected(workload, self.input(records))?;
        let mut runs = Vec::new();
        for pair in 0..self.options.pairs {
            for contender in self.in_turn(workload, pair) {
                let load_before = machine::load()?;
                let mut run = self.run_topics("input");
                run.input = format!("{}-input", run.application);
                topics::create(&self.log, &[&run.input, &run.output], partitions)?;
                let mut side = self.launch.start(contender, workload, &run)?;
                let input = self.input(records);
                let latency = latency::measure(&self.log, &mut side, &run, partitions, input, pace)
                    .with_context(|| format!("{}, pair {}", contender.name, pair + 1))?;
                side.stop()?;
                let written =
                    verify::verify(&self.log, workload, contender, &run, partitions, &expected)?;
                self.delete(workload, &run)?;
                retry(|| self.log.delete_topics(&[&run.input]))?;
                let outcome = Outcome::Latency(latency);
                runs.push(self.note(contender, pair, load_before, outcome, written)?);
            }
        }
        Ok(runs)
    }

    /// Names for a run that reads the topic `input`.
    fn run_topics(&self, input: &str) -> RunTopics {
        let application = format!("{}-{:08x}", self.id, fastrand::u32(..));
        RunTopics {
            input: self.topic(input),
            users: self.topic("users"),
            output: format!("{application}-output"),
            application,
        }
    }

    fn delete(&self, workload: Workload, run: &RunTopics) -> Result<()> {
        let mut names = vec![run.output.clone()];
        names.extend(workload.repartition_topic(&run.application));
        let stores = workload.store().into_iter();
        let stores = stores.chain((workload == Workload::Joined).then_some(workload::USERS));
        names.extend(
            stores.map(|store| millstream::format::names::changelog_topic(&run.application, store)),
        );
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ok(retry(|| self.log.delete_topics(&names))?)
    }

    /// Keeps and shows a run.
    fn note(
        &self,
        contender: &Contender,
        pair: usize,
        load_before: f64,
        outcome: Outcome,
        written: Written,
    ) -> Result<Run> {
        let run = Run {
            contender: contender.name,
            pair: pair + 1,
            load_before,
            outcome,
            written,
        };
        println!("{}", serde_json::to_string(&run)?);
        if let Some(path) = &self.options.series {
            report::append_series(path, &self.id, &run)?;
        }
        Ok(run)
    }

    fn report(&self, workload: Workload, runs: &[Run]) -> Result<()> {
        let contenders: Vec<&'static str> = self
            .contenders(workload)
            .iter()
            .map(|contender| contender.name)
            .collect();
        let table = report::table(&contenders, runs)?;
        println!("\n{table}");
        let Some(folder) = &self.options.write_to else {
            return Ok(());
        };
        let mut section = format!(
            "### {}\n\n{}\n{table}",
            workload.title(),
            self.how(workload)?
        );
        let lines: Vec<plot::Line<'_>> = runs
            .iter()
            .filter_map(|run| match &run.outcome {
                Outcome::Throughput(observed) => Some(plot::Line {
                    contender: contenders
                        .iter()
                        .position(|name| *name == run.contender)
                        .unwrap_or_default(),
                    series: &observed.series,
                }),
                Outcome::Latency(_) => None,
            })
            .collect();
        if !lines.is_empty() {
            let name = format!("compare-{}.svg", workload.letter().to_lowercase());
            std::fs::create_dir_all(folder.join("benchmarks"))?;
            let svg = plot::progress(workload.title(), &contenders, &lines)?;
            std::fs::write(folder.join("benchmarks").join(&name), svg)?;
            section += &format!("\n![Records committed over time](benchmarks/{name})\n");
        }
        report::write_section(&folder.join("benchmarks.md"), workload.letter(), &section)
    }

    /// Says how the figures came about.
    fn how(&self, workload: Workload) -> Result<String> {
        let options = &self.options;
        let amount = if workload == Workload::Latency {
            let Options { rate, seconds, .. } = options;
            let warm_up = seconds / 2;
            format!("{rate} records/s for {seconds} s, after {warm_up} s that are not measured")
        } else {
            format!("{} records", options.records)
        };
        let Options {
            accounts,
            partitions,
            pairs,
            ..
        } = options;
        ensure!(*pairs > 0, "no pairs");
        let pinned = options.cpus.as_deref();
        let pinned = pinned.map_or_else(String::new, |cpus| format!(", both sides on CPU {cpus}"));
        let date = jiff::Timestamp::from_millisecond(SystemClock.now_ms())?;
        Ok(format!(
            "{amount} of {} B over {accounts} accounts in {partitions} partitions, {pairs} pairs{pinned}; \
             JVM `{}`. {}, {}.\n\n```\n{}\n```\n",
            self.event_bytes()?,
            options.jvm_flags,
            date.strftime("%Y-%m-%d"),
            machine::describe()?,
            options.command_line,
        ))
    }

    /// Returns the mean size of the first events: JSON alone.
    fn event_bytes(&self) -> Result<usize> {
        let mut input = self.input(1000);
        let mut bytes = 0;
        while input.advance()? {
            bytes += input.value.len();
        }
        Ok(bytes / 1000)
    }
}
