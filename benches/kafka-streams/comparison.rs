//! What all workloads of a comparison share: the log, the order of the sides, the names of their topics.
#![expect(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use millstream::clock::{Clock, SystemClock};
use millstream::log::Log;
use millstream::log::kafka::KafkaLog;

use crate::contenders::{self, Contender};
use crate::launch::{Launch, Running, Sandbox};
use crate::machine;
use crate::observe::Progress;
use crate::options::Options;
use crate::page;
use crate::report::{self, Outcome, Run};
use crate::throughput;
use crate::topics::{self, partitions_of, retry};
use crate::verify::Written;
use crate::workload::{Input, Workload};

pub(crate) struct Comparison {
    pub(crate) log: KafkaLog,
    pub(crate) options: Options,
    pub(crate) launch: Launch,
    /// Begins the names of all topics and applications.
    id: String,
    /// Start of the input's event time.
    pub(crate) start_ms: i64,
}

impl Comparison {
    pub(crate) fn new(servers: &str, options: Options) -> Result<Self> {
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

    pub(crate) fn run(&self) -> Result<()> {
        let mut workloads = self.options.workloads.clone();
        if workloads.is_empty() {
            workloads = <Workload as clap::ValueEnum>::value_variants().to_vec();
        }
        throughput::write_inputs(self, &workloads)?;
        for workload in workloads {
            println!("\n{}\n", workload.title());
            let runs = match workload {
                Workload::Balances
                | Workload::Stateless
                | Workload::Windowed
                | Workload::Joined
                | Workload::ForeignKey => throughput::measure(self, workload)?,
                Workload::Latency => crate::latency::measure(self)?,
                Workload::Restore => crate::restore::measure(self)?,
                Workload::Recovery => crate::recovery::measure(self)?,
                Workload::Updates => crate::updates::measure(self)?,
                Workload::Idle => crate::idle::measure(self)?,
            };
            let contenders: Vec<&'static str> =
                self.contenders(workload).iter().map(|it| it.name).collect();
            let table = report::table(&contenders, &runs)?;
            println!("\n{table}");
            if let Some(folder) = &self.options.write_to {
                page::write(folder, &self.options, workload, &contenders, &runs, &table)?;
            }
        }
        Ok(())
    }

    /// Runs every side as often as asked, another one first each time, and keeps what `one` measures.
    pub(crate) fn pairs(
        &self,
        workload: Workload,
        mut one: impl FnMut(&'static Contender) -> Result<(Outcome, Written)>,
    ) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for pair in 0..self.options.pairs {
            let mut order = self.contenders(workload);
            let turns = pair % order.len();
            order.rotate_left(turns);
            for contender in order {
                let load_before = machine::load()?;
                let (outcome, written) = one(contender)
                    .with_context(|| format!("{}, pair {}", contender.name, pair + 1))?;
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
                runs.push(run);
            }
        }
        Ok(runs)
    }

    /// The sides of a workload, millstream last.
    pub(crate) fn contenders(&self, workload: Workload) -> Vec<&'static Contender> {
        let all = contenders::contenders(workload);
        let last = all.len().saturating_sub(1);
        let is_wanted = |at: usize| !self.options.no_variants || at == 0 || at == last;
        let numbered = all.iter().enumerate();
        numbered
            .filter_map(|(at, contender)| is_wanted(at).then_some(contender))
            .collect()
    }

    /// Returns the name of a topic that all runs read.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// Returns names for a run that reads what all read.
    pub(crate) fn sandbox(&self, input: &str, users: &str) -> Result<Sandbox> {
        let application = format!("{}-{:08x}", self.id, fastrand::u32(..));
        Ok(Sandbox {
            input: self.topic(input),
            users: self.topic(users),
            output: format!("{application}-output"),
            application,
            state: tempfile::TempDir::with_prefix("millstream-compare-")?,
        })
    }

    /// Returns names for a run with an input of its own, whose topics are created here.
    pub(crate) fn sandbox_with_input(&self, workload: Workload) -> Result<Sandbox> {
        let mut sandbox = self.sandbox("", "")?;
        sandbox.input = format!("{}-input", sandbox.application);
        let names = [sandbox.input.as_str(), &sandbox.output];
        topics::create(&self.log, &names, self.options.partitions(workload))?;
        Ok(sandbox)
    }

    pub(crate) fn start(
        &self,
        contender: &Contender,
        workload: Workload,
        sandbox: &Sandbox,
    ) -> Result<Running> {
        self.launch.start(contender, workload, sandbox)
    }

    /// Returns what tells how far a run is that commits `records` of its input, and writes no output
    /// behind that.
    pub(crate) fn progress(
        &self,
        workload: Workload,
        sandbox: &Sandbox,
        records: u64,
    ) -> Result<Progress<'_>> {
        let partitions = self.options.partitions(workload);
        Progress::of(
            &self.log,
            &self.launch.servers,
            &sandbox.application,
            &partitions_of(&sandbox.input, partitions),
            i64::try_from(records)?,
            None,
        )
    }

    /// Deletes the topics that a run has to itself, internal ones included.
    pub(crate) fn delete(&self, sandbox: &Sandbox) -> Result<()> {
        let names = retry(|| self.log.topic_names())?;
        let names: Vec<&str> = names
            .iter()
            .map(AsRef::as_ref)
            .filter(|name: &&str| name.starts_with(&sandbox.application))
            .collect();
        Ok(retry(|| self.log.delete_topics(&names))?)
    }
}
