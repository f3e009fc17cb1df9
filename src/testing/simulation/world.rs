//! The scheduler: one seed decides who steps, when, and what goes wrong.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::check::{self, Databases, Wrong};
use super::driver::Stepped;
use super::faults::{Ambush, Faults};
use super::mirror::Mirror;
use super::plan::{Plan, pick};
use super::process::{APPLICATION, Life, Process, SESSION_TIMEOUT_MS, Site, config};
use super::topology::{self, GARBAGE, INPUT, POISON, SEQUENCE, TOMBSTONES_LIVE_MS};
use super::{Options, Report};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::log::embedded::{EmbeddedLog, EmbeddedProducer, RecordStatus};
use crate::log::{Headers, Log, LogProducer, ProducerRecord, ProducerSpec, TopicName};
use crate::runtime::{CrashPoint, Step, ThreadError, ensure_topics};
use crate::testing::temp_dir::TempDir;
use crate::topology::TaskId;

/// 2024-01-01T00:00:00Z.
const START: Timestamp = 1_704_067_200_000;
/// Turns with faults after which a run settles, whatever its input has come to.
const TURNS_MAX: usize = 20_000;
/// Virtual time within which a run must come to rest once faults have stopped: sessions time out after
/// 10 s, transactions after a minute at most, a long absence lasts two.
const SETTLE_MAX_MS: i64 = 300_000;
/// Rounds in a row that find nothing unfinished before a run counts as at rest: longer than the
/// punctuator's and the commit's intervals.
const QUIET_ROUNDS: usize = 40;
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
        let plan = Plan::new(&mut rng);
        let clock = ManualClock::at(START);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let log = EmbeddedLog::in_memory(shared).with_virtual_time();
        let dir = TempDir::new("millstream-simulation").map_err(|error| text(&error))?;
        let topology = topology::build(plan.ageing, plan.dead_letters)
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
        let mirror = Mirror::of(topology.sub_topologies.iter().flat_map(|sub| {
            let stores = sub.changelogs.keys();
            stores.flat_map(|store| (0..plan.partitions).map(|it| check::changelog(store, it)))
        }));
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
            let thread = self.rng.usize(0..self.site.plan.threads);
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
            let key = format!("k{}", self.rng.u64(0..self.site.plan.keys));
            let poison = self.chance(self.site.plan.poison_rate);
            let value = match (poison, self.rng.bool()) {
                (true, true) => POISON.as_bytes().to_vec(),
                (true, false) => GARBAGE.to_vec(),
                (false, _) => self.rng.i64(-50..=50).to_string().into_bytes(),
            };
            let headers = Headers::new().with(SEQUENCE, format!("g:{}", self.sent));
            // Event time is not quite in order.
            let timestamp = self.now() - self.rng.i64(0..=50);
            let record = ProducerRecord {
                topic: &TopicName::from(INPUT),
                partition: None,
                key: Some(key.as_bytes()),
                value: Some(&value),
                timestamp,
                headers: &headers,
            };
            if self.generator.send(record).is_ok() {
                self.sent += 1;
            }
        }
        Ok(())
    }

    /// Draws what goes wrong in this turn.
    fn misfortune(&mut self) -> Result<(), Wrong> {
        let plan = self.site.plan.clone();
        let index = self.rng.usize(0..self.processes.len());
        if self.chance(plan.crash_rate) {
            let point = *pick(&mut self.rng, &CrashPoint::ALL);
            let countdown = self.rng.u32(0..2);
            let stall = plan.freeze_rate > 0 && self.rng.bool();
            let ambush = if stall { Ambush::Stall } else { Ambush::Crash };
            self.site.faults.arm(ambush, index, point, countdown);
        }
        if plan.crash_rate > 0 && self.chance(plan.crash_rate / 3) {
            self.kill(index, "kill")?;
        }
        if self.chance(plan.freeze_rate) {
            self.freeze(index)?;
        }
        if plan.freeze_rate > 0
            && self.chance(1)
            && let Some(running) = self.processes[index].running()
        {
            running.stop();
            self.site.faults.count("clean stop");
            self.note(format!("process {index} is told to stop"));
        }
        if plan.ageing && self.chance(3) {
            self.age(index)?;
        }
        Ok(())
    }

    /// A zombie: it does nothing for a while, which may outlast its session, and then goes on.
    /// Sometimes another process takes on its identity meanwhile.
    fn freeze(&mut self, index: usize) -> Result<(), Wrong> {
        let frozen_until = self.now() + self.rng.i64(0..=SESSION_TIMEOUT_MS * 5 / 2);
        let Some(running) = self.processes[index].running() else {
            return Ok(());
        };
        running.frozen_until = frozen_until;
        self.site.faults.count("frozen");
        self.note(format!(
            "process {index} freezes until {}",
            frozen_until - START
        ));
        let living = self
            .processes
            .iter()
            .filter(|it| !matches!(it.life, Life::Gone))
            .count();
        if living < 5 && self.rng.u32(0..5) == 0 {
            let twin = self.processes.len();
            self.processes.push(Process {
                index: twin,
                dir: self.dir.path().join(format!("process-{twin}")),
                identity: self.processes[index].identity.clone(),
                life: Life::Down(self.now()),
            });
            self.site.faults.count("twin");
            self.note(format!(
                "process {twin} takes on the identity of process {index}"
            ));
        }
        Ok(())
    }

    /// A process stays away for longer than tombstones live, while the others go on and changelogs
    /// are compacted.
    fn age(&mut self, index: usize) -> Result<(), Wrong> {
        if self.processes[index].running().is_none() {
            return Ok(());
        }
        let away = TOMBSTONES_LIVE_MS * 3;
        self.kill(index, "long absence")?;
        let back_at = self.now() + away;
        self.processes[index].kill(back_at);
        self.site.faults.count("aged");
        let until = self.now() + away;
        // Then the input is quiet: what was deleted stays deleted, and its tombstones go.
        let quiet_from = self.now() + away / 3;
        while self.now() < until {
            self.site.clock.advance(self.rng.i64(100..=3_000));
            self.start_those_due()?;
            if self.now() < quiet_from && self.chance(300) {
                self.produce()?;
            }
            let now = self.now();
            for other in 0..self.processes.len() {
                if self.processes[other].is_steppable(now) {
                    for _ in 0..4 {
                        let thread = self.rng.usize(0..self.site.plan.threads);
                        self.step(other, thread)?;
                    }
                }
            }
            if self.chance(200) {
                self.mirror
                    .refresh(&self.site.log)
                    .map_err(|error| error.to_string())?;
                self.site
                    .log
                    .maintain()
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn kill(&mut self, index: usize, why: &str) -> Result<(), Wrong> {
        if self.processes[index].running().is_none() {
            return Ok(());
        }
        let back_at = self.now() + *pick(&mut self.rng, &[0, 50, 2_000, 15_000, 40_000]);
        self.note(format!("process {index} dies: {why}"));
        self.site.faults.count("killed");
        self.processes[index].kill(back_at);
        if self.rng.u32(0..3) == 0 {
            self.check_directory(index)?;
        }
        Ok(())
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
            let back_at = self.now() + self.rng.i64(0..=3_000);
            self.note(format!("process {index} has left"));
            self.processes[index].kill(back_at);
        }
        for client in self.site.faults.take_doomed() {
            self.kill_client(&client)?;
        }
        if self.site.plan.ageing {
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

    /// Kills the process that waits for a commit's answer.
    fn kill_client(&mut self, client: &str) -> Result<(), Wrong> {
        let owner = self.processes.iter_mut().position(|process| {
            let prefix = format!("{APPLICATION}-{}-", process.identity);
            client.starts_with(&prefix) && process.running().is_some()
        });
        if let Some(index) = owner {
            self.site.faults.count("killed in doubt");
            self.kill(index, "its commit was never answered")?;
        }
        Ok(())
    }

    fn thread_ended(&mut self, index: usize, error: &ThreadError) -> Result<(), Wrong> {
        let text = crate::runtime::error_chain(error);
        self.note(format!("process {index}: {text}"));
        match error {
            ThreadError::Crash(_) => self.kill(index, "crash point"),
            ThreadError::FencedInstance { .. } => {
                self.site.faults.count("identity fenced");
                self.processes[index].life = Life::Gone;
                self.check_directory(index).map(drop)
            }
            // The supervisor of a real process replaces the thread; a whole new process is as good.
            ThreadError::Log(_) => {
                self.site.faults.count("client replaced");
                self.kill(index, "the log refused a client")
            }
            ThreadError::Processing { .. }
            | ThreadError::State { .. }
            | ThreadError::Refused(_)
            | ThreadError::Bug(_)
            | ThreadError::Panicked(_) => Err(format!("process {index} ended: {text}")),
        }
    }

    /// Lets everything come to rest without any more faults.
    fn settle(&mut self) -> Result<(), Wrong> {
        let until = self.now() + SETTLE_MAX_MS;
        let mut quiet_rounds = 0;
        while self.now() < until {
            self.start_those_due()?;
            let mut worked = false;
            for index in 0..self.processes.len() {
                if let Some(running) = self.processes[index].running() {
                    running.frozen_until = 0;
                }
                for thread in 0..self.site.plan.threads {
                    worked |= self.step(index, thread)? == Some(Step::Worked);
                }
            }
            self.site.clock.advance(if worked { 3 } else { 30 });
            // Punctuators work for ever: at rest is what stays finished.
            quiet_rounds = if self.unfinished()?.is_none() {
                quiet_rounds + 1
            } else {
                0
            };
            if quiet_rounds > QUIET_ROUNDS {
                return Ok(());
            }
        }
        let what = self
            .unfinished()?
            .unwrap_or_else(|| "it never rests".to_owned());
        self.describe();
        Err(format!(
            "no progress within {SETTLE_MAX_MS} ms of virtual time: {what}"
        ))
    }

    /// Notes where everybody stands.
    fn describe(&mut self) {
        let mut lines = vec![format!("{:?}", self.site.log.inspect_group(APPLICATION))];
        for process in &mut self.processes {
            let index = process.index;
            let threads = process
                .running()
                .map(|running| running.describe())
                .unwrap_or_default();
            lines.push(format!("process {index}: {threads:?}"));
        }
        lines.into_iter().for_each(|line| self.note(line));
    }

    /// What still has to happen, if anything.
    fn unfinished(&mut self) -> Result<Option<String>, Wrong> {
        let running = self.processes.iter_mut().filter_map(Process::running);
        let mut tasks: Vec<TaskId> = running.flat_map(|process| process.tasks()).collect();
        tasks.sort();
        let of_sub = |sub_topology| {
            let partitions = 0..self.site.plan.partitions;
            partitions.map(move |partition| TaskId {
                sub_topology,
                partition,
            })
        };
        if tasks != [0, 1].into_iter().flat_map(of_sub).collect::<Vec<_>>() {
            return Ok(Some(format!("only tasks {tasks:?} run")));
        }
        if let Some(open) = self.site.log.inspect_transactions().first() {
            return Ok(Some(format!("transaction {open:?} is open")));
        }
        let group = self.site.log.inspect_group(APPLICATION);
        let offsets = group.map(|group| group.offsets).unwrap_or_default();
        let repartition = crate::format::names::repartition_topic(APPLICATION, topology::BY_BUCKET);
        for topic in [INPUT, &repartition] {
            for partition in 0..self.site.plan.partitions {
                let records = check::records(&self.site, topic, partition)?;
                let data = |status| matches!(status, RecordStatus::Plain | RecordStatus::Committed);
                let Some(last) = records.iter().rfind(|record| data(record.status)) else {
                    continue;
                };
                let key = crate::log::TopicPartition::new(TopicName::from(topic), partition);
                let at = offsets.get(&key).map_or(0, |committed| committed.offset);
                if at <= last.offset {
                    let text = format!("{key} is committed up to {at}, its end is {}", last.offset);
                    return Ok(Some(text));
                }
            }
        }
        Ok(None)
    }

    fn check_all(&mut self) -> Result<(), Wrong> {
        self.mirror
            .refresh(&self.site.log)
            .map_err(|error| error.to_string())?;
        let expected = check::outputs(&self.site)?;
        check::changelogs(&self.mirror, &expected)?;
        self.check_queries(&expected)?;
        self.stop_all()?;
        self.mirror
            .refresh(&self.site.log)
            .map_err(|error| error.to_string())?;
        let mut found: Vec<Databases> = Vec::new();
        for index in 0..self.processes.len() {
            found.push(self.check_directory(index)?);
        }
        for ((task, store), content) in &expected {
            if *store == topology::MAX {
                continue;
            }
            let key = (*task, (*store).to_owned());
            let whole = found
                .iter()
                .any(|databases| databases.get(&key) == Some(content));
            if !whole && !content.is_empty() {
                return Err(format!(
                    "no process has all of store `{store}` of task {task}"
                ));
            }
        }
        Ok(())
    }

    /// Asks the processes for every key, as a user would.
    fn check_queries(
        &mut self,
        expected: &std::collections::BTreeMap<(TaskId, &'static str), super::oracle::Content>,
    ) -> Result<(), Wrong> {
        for ((task, store), content) in expected {
            // Ticks are written to their task's partition, which is not where their key's hash points.
            for (key, number) in content.iter().filter(|_| *store != topology::TICKS) {
                let mut answers = Vec::new();
                for process in &mut self.processes {
                    let Some(running) = process.running() else {
                        continue;
                    };
                    if let Ok(Some(found)) = running.queries.get(store, key) {
                        answers.push(found.value);
                    }
                }
                if answers != [serde_json::Value::from(*number)] {
                    return Err(format!(
                        "query of {store}/{key} (task {task}) gives {answers:?}, expected {number}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Stops every process cleanly.
    fn stop_all(&mut self) -> Result<(), Wrong> {
        for process in &mut self.processes {
            if let Some(running) = process.running() {
                running.stop();
            }
        }
        let until = self.now() + SETTLE_MAX_MS;
        while self.now() < until {
            let mut left = true;
            for index in 0..self.processes.len() {
                for thread in 0..self.site.plan.threads {
                    self.step(index, thread)?;
                }
                left &= self.processes[index].running().is_none();
            }
            if left {
                return Ok(());
            }
            self.site.clock.advance(20);
        }
        Err(format!(
            "a process does not stop within {SETTLE_MAX_MS} ms of virtual time"
        ))
    }

    fn check_directory(&mut self, index: usize) -> Result<Databases, Wrong> {
        self.mirror
            .refresh(&self.site.log)
            .map_err(|error| error.to_string())?;
        let dir = self.processes[index].dir.clone();
        if !dir.exists() {
            return Ok(Databases::new());
        }
        check::directory(&self.site, &self.mirror, &dir)
    }
}
