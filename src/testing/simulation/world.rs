//! The scheduler: one seed decides who steps, when, and what goes wrong.

mod misfortune;
mod verdict;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::check::{self, SEQUENCE, Wrong};
use super::driver::Stepped;
use super::faults::Faults;
use super::mirror::Mirror;
use super::plan::{Plan, pick};
use super::process::{Life, Process, SESSION_TIMEOUT_MS, Site, config};
use super::scenario::{Drawn, Scenario};
use super::{Options, Report, globals};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::log::embedded::{EmbeddedLog, EmbeddedProducer};
use crate::log::{Headers, Log, LogProducer, ProducerRecord, ProducerSpec, TopicName};
use crate::runtime::{Step, ensure_topics};
use crate::testing::temp_dir::TempDir;

/// 2024-01-01T00:00:00Z.
const START: Timestamp = 1_704_067_200_000;
/// Turns with faults after which a run settles, whatever its input has come to.
const TURNS_MAX: usize = 20_000;
/// What a failure shows of what went before.
const TRACE_LENGTH: usize = 60;

/// A run.
pub(super) struct World {
    rng: Rng,
    site: Site,
    processes: Vec<Process>,
    generator: EmbeddedProducer,
    sent: usize,
    mirror: Mirror,
    trace: VecDeque<String>,
    steps: u64,
    commits_digest: u64,
    dir: TempDir,
}

impl World {
    pub(super) fn new(options: &Options) -> Result<Self, Wrong> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let mut rng = Rng::with_seed(options.seed);
        let plan = Plan::new(options, &mut rng);
        let clock = ManualClock::at(START);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let log = EmbeddedLog::in_memory(shared).with_virtual_time();
        let dir = TempDir::new("millstream-simulation").map_err(|error| text(&error))?;
        let topology = plan
            .scenario
            .build(&plan)
            .map_err(|errors| format!("{errors:?}"))?;
        let topology = ensure_topics(&log, &Arc::new(topology), &config(&plan, dir.path()))
            .map_err(|error| text(&error))?;
        let faults = Faults::new(rng.fork(), plan.fault_rate);
        let generator = log
            .producer(&ProducerSpec {
                transactional_id: None,
                transaction_timeout: Duration::from_secs(10),
                client_id: "generator".to_owned(),
            })
            .map_err(|error| text(&error))?;
        let processes = (0..plan.processes)
            .map(|index| Process {
                index,
                dir: dir.path().join(format!("process-{index}")),
                identity: format!("p{index}"),
                life: Life::Down(START),
            })
            .collect();
        let changelogs = topology.all().flat_map(|sub| {
            let stores = sub.topics.changelogs.keys();
            stores.flat_map(|store| {
                (0..plan.partitions).map(|it| check::changelog(&topology, store, it))
            })
        });
        let globals =
            (plan.scenario == Scenario::Globals).then(|| globals::table_partitions(&plan));
        let mirror = Mirror::of(changelogs.chain(globals.into_iter().flatten()));
        let planted = options.planted;
        let topology = Arc::new(topology);
        let site = Site {
            plan,
            log,
            clock,
            faults,
            planted,
            topology,
        };
        Ok(Self {
            rng,
            site,
            processes,
            generator,
            sent: 0,
            mirror,
            trace: VecDeque::new(),
            steps: 0,
            commits_digest: 0,
            dir,
        })
    }

    pub(super) fn trace(&self) -> Vec<String> {
        let mut lines = vec![format!("{:?}", self.site.plan)];
        lines.extend(self.trace.iter().cloned());
        lines
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn run(&mut self) -> Result<Report, Wrong> {
        let plan = Arc::new(self.site.faults.clone());
        self.site.log.set_faults(Some(plan));
        let mut turns = 0;
        while turns < TURNS_MAX && (self.sent < self.site.plan.records || turns < 400) {
            self.turn()?;
            turns += 1;
        }
        self.note("faults stop");
        self.site.faults.stop();
        self.settle()?;
        if self.site.plan.scenario == Scenario::Globals {
            self.probe_globals()?;
        }
        self.check_all()?;
        let fired = self.site.faults.fired();
        let records = self.sent;
        Ok(Report {
            records,
            steps: self.steps,
            digest: self.commits_digest,
            fired,
        })
    }

    fn now(&self) -> Timestamp {
        self.site.clock.now_ms()
    }

    fn note(&mut self, line: impl Into<String>) {
        if self.trace.len() == TRACE_LENGTH {
            self.trace.pop_front();
        }
        self.trace
            .push_back(format!("{:>7} {}", self.now() - START, line.into()));
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        self.rng.u32(0..1000) < thousandths
    }

    /// One turn of the scheduler.
    fn turn(&mut self) -> Result<(), Wrong> {
        let jump = match self.rng.u32(0..100) {
            0..70 => self.rng.i64(0..=4),
            70..96 => self.rng.i64(5..=80),
            _ => self.rng.i64(200..=2_500),
        };
        self.site.clock.advance(jump);
        self.start_those_due()?;
        if self.sent < self.site.plan.records && self.chance(40) {
            self.produce()?;
        }
        self.misfortune()?;
        let now = self.now();
        let able: Vec<usize> = (0..self.processes.len())
            .filter(|index| self.processes[*index].is_steppable(now))
            .collect();
        if !able.is_empty() {
            let index = *pick(&mut self.rng, &able);
            let thread = self.rng.usize(0..self.site.threads());
            self.step(index, thread)?;
        }
        Ok(())
    }

    fn start_those_due(&mut self) -> Result<(), Wrong> {
        let now = self.now();
        for index in 0..self.processes.len() {
            if matches!(self.processes[index].life, Life::Down(at) if at <= now) {
                self.note(format!("process {index} starts"));
                self.processes[index].start(&self.site)?;
            }
        }
        Ok(())
    }

    fn produce(&mut self) -> Result<(), Wrong> {
        for _ in 0..self.rng.usize(1..=6) {
            let now = self.now();
            let drawn = Drawn::new(&mut self.rng, &self.site.plan, now, self.sent);
            self.send(&drawn);
        }
        Ok(())
    }

    fn send(&mut self, drawn: &Drawn) {
        let headers = Headers::new().with(SEQUENCE, format!("g:{}", self.sent));
        let record = ProducerRecord {
            topic: &TopicName::from(drawn.topic),
            partition: None,
            key: Some(drawn.key.as_bytes()),
            value: drawn.value.as_deref(),
            timestamp: drawn.timestamp,
            headers: &headers,
        };
        if self.generator.send(record).is_ok() {
            self.sent += 1;
        }
    }

    /// Steps a thread of a running process and meets what comes of it.
    fn step(&mut self, index: usize, thread: usize) -> Result<Option<Step>, Wrong> {
        let Some(running) = self.processes[index].running() else {
            return Ok(None);
        };
        self.steps += 1;
        let stepped = running.step(thread);
        let all_left = running.all_left();
        let outcome = match stepped {
            None | Some(Stepped::Started) => None,
            Some(Stepped::Done(step)) => Some(step),
            Some(Stepped::Stalled(point)) => {
                let frozen_until = self.now() + self.rng.i64(0..=SESSION_TIMEOUT_MS * 5 / 2);
                self.note(format!(
                    "process {index} stalls at {point:?} until {}",
                    frozen_until - START
                ));
                if let Some(running) = self.processes[index].running() {
                    running.frozen_until = frozen_until;
                }
                None
            }
            Some(Stepped::Ended(error)) => {
                self.thread_ended(index, &error)?;
                None
            }
        };
        if all_left {
            if let Some(running) = self.processes[index].running() {
                running
                    .close()
                    .map_err(|error| format!("process {index} cannot close: {error}"))?;
            }
            let back_at = self.now() + self.rng.i64(0..=3_000);
            self.note(format!("process {index} has left"));
            self.processes[index].kill(back_at);
        }
        for client in self.site.faults.take_doomed() {
            self.kill_client(&client)?;
        }
        // Where compaction may pass at any time: the changelogs of subscriptions and of the records that
        // wait for a versioned table cannot be told to wait.
        let eager = matches!(
            self.site.plan.scenario,
            Scenario::ForeignKey | Scenario::Versions
        );
        if self.site.plan.ageing || eager {
            self.mirror
                .refresh(&self.site.log)
                .map_err(|error| error.to_string())?;
        }
        self.digest(index, outcome);
        Ok(outcome)
    }

    fn digest(&mut self, index: usize, outcome: Option<Step>) {
        let outcome = match outcome {
            Some(Step::Worked) => 1,
            Some(Step::Idle(_)) => 2,
            Some(Step::Stopped) => 3,
            None => 4,
        };
        let word = (index as u64) << 8 | outcome;
        self.commits_digest = (self.commits_digest ^ word ^ self.now().unsigned_abs())
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(5);
    }
}
