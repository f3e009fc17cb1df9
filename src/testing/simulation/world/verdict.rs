//! The end of a run: it comes to rest, then everything outside of the runtime is compared.

use super::World;
use crate::log::TopicName;
use crate::log::embedded::RecordStatus;
use crate::runtime::{Step, SubTopologyRef};
use crate::testing::simulation::check::{self, Stores, Wrong};
use crate::testing::simulation::process::{APPLICATION, Life, Process};
use crate::testing::simulation::scenario::Scenario;
use crate::testing::simulation::{folds, globals};
use crate::topology::TaskId;

/// Virtual time within which a run must come to rest once faults have stopped: sessions time out after
/// 10 s, transactions after a minute at most, a long absence lasts two.
const SETTLE_MAX_MS: i64 = 300_000;

/// Rounds in a row that find nothing unfinished before a run counts as at rest: longer than the
/// punctuator's and the commit's intervals.
const QUIET_ROUNDS: usize = 40;

impl World {
    /// Lets everything come to rest without any more faults.
    pub(super) fn settle(&mut self) -> Result<(), Wrong> {
        let until = self.now() + SETTLE_MAX_MS;
        let mut quiet_rounds = 0;
        while self.now() < until {
            self.start_those_due()?;
            let mut worked = false;
            for index in 0..self.processes.len() {
                if let Some(running) = self.processes[index].running() {
                    running.frozen_until = 0;
                }
                for thread in 0..self.site.threads() {
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
        let partitions = self.site.plan.partitions;
        let of_sub = |sub: SubTopologyRef<'_>| {
            let sub_topology = sub.drawn.id;
            (0..partitions).map(move |partition| TaskId {
                sub_topology,
                partition,
            })
        };
        let mut all: Vec<TaskId> = self.site.topology.all().flat_map(of_sub).collect();
        all.sort();
        if tasks != all {
            return Ok(Some(format!("only tasks {tasks:?} run")));
        }
        if let Some(open) = self.site.log.inspect_transactions().first() {
            return Ok(Some(format!("transaction {open:?} is open")));
        }
        let group = self.site.log.inspect_group(APPLICATION);
        let offsets = group.map(|group| group.offsets).unwrap_or_default();
        let sources = self.site.topology.all().flat_map(|sub| &sub.topics.sources);
        for topic in sources.flatten() {
            for partition in 0..partitions {
                let records = check::records(&self.site, &topic.name, partition)?;
                let data = |status| matches!(status, RecordStatus::Plain | RecordStatus::Committed);
                let Some(last) = records.iter().rfind(|record| data(record.status)) else {
                    continue;
                };
                let key = crate::log::TopicPartition::new(TopicName::clone(&topic.name), partition);
                let at = offsets.get(&key).map_or(0, |committed| committed.offset);
                if at <= last.offset {
                    let text = format!("{key} is committed up to {at}, its end is {}", last.offset);
                    return Ok(Some(text));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn check_all(&mut self) -> Result<(), Wrong> {
        self.mirror
            .refresh(&self.site.log)
            .map_err(|error| error.to_string())?;
        let expected = self.site.plan.scenario.check(&self.site, &self.mirror)?;
        check::changelogs(&self.site, &self.mirror, &expected)?;
        match self.site.plan.scenario {
            Scenario::Folds => self.check_queries(&expected)?,
            Scenario::Globals => self.check_global_table()?,
            _ => {}
        }
        self.stop_all()?;
        self.mirror
            .refresh(&self.site.log)
            .map_err(|error| error.to_string())?;
        let mut found: Vec<Stores> = Vec::new();
        for index in 0..self.processes.len() {
            found.push(self.check_directory(index)?);
        }
        for ((task, store), mut content) in expected {
            if self.site.is_in_memory(&store) {
                continue;
            }
            check::live(&self.site, &self.mirror, task, &store, &mut content);
            let key = (task, store);
            let whole = found
                .iter()
                .any(|stores| stores.get(&key) == Some(&content));
            if !whole && !content.is_empty() {
                let (task, store) = key;
                return Err(format!(
                    "no process has all of store `{store}` of task {task}"
                ));
            }
        }
        Ok(())
    }

    /// Kills everybody, disks and all in part, and lets orders wait for them that must meet the whole
    /// global table.
    pub(super) fn probe_globals(&mut self) -> Result<(), Wrong> {
        for index in 0..self.processes.len() {
            if matches!(self.processes[index].life, Life::Gone) {
                continue;
            }
            self.kill(index, "before the probe")?;
            // All of them are asked afterwards.
            let now = self.now();
            self.processes[index].kill(now);
            let dir = self.processes[index].dir.clone();
            if self.rng.bool() && dir.exists() {
                self.note(format!("process {index} loses its disk"));
                std::fs::remove_dir_all(dir).map_err(|error| error.to_string())?;
            }
        }
        let now = self.now();
        for probe in globals::probes(&self.site.plan, now) {
            self.send(&probe);
        }
        self.settle()
    }

    /// Every process answers with the global table's last state.
    fn check_global_table(&mut self) -> Result<(), Wrong> {
        let table = globals::table(&self.site, &self.mirror);
        let store = globals::table_store();
        for process in &mut self.processes {
            let index = process.index;
            let Some(running) = process.running() else {
                continue;
            };
            for (key, expected) in &table {
                let found = running.queries.get(store, key);
                let found = found.map_err(|error| error.to_string())?;
                let found = found.and_then(|found| found.value.as_str().map(str::to_owned));
                if found != *expected {
                    return Err(format!(
                        "process {index} has {found:?} as {store}/{key}, expected {expected:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Asks the processes for every key, as a user would.
    fn check_queries(&mut self, expected: &Stores) -> Result<(), Wrong> {
        for ((task, store), content) in expected {
            // Ticks are written to their task's partition, which is not where their key's hash points.
            for (key, number) in content.iter().filter(|_| store != folds::TICKS) {
                let key = &String::from_utf8_lossy(key);
                let number = check::integer(Some(number))?;
                let mut answers = Vec::new();
                for process in &mut self.processes {
                    let Some(running) = process.running() else {
                        continue;
                    };
                    if let Ok(Some(found)) = running.queries.get(store, key) {
                        answers.push(found.value);
                    }
                }
                if answers != [serde_json::Value::from(number)] {
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

    pub(super) fn check_directory(&mut self, index: usize) -> Result<Stores, Wrong> {
        self.mirror
            .refresh(&self.site.log)
            .map_err(|error| error.to_string())?;
        let dir = self.processes[index].dir.clone();
        if !dir.exists() {
            return Ok(Stores::new());
        }
        check::directory(&self.site, &self.mirror, &dir)
    }
}
