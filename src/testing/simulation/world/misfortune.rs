//! What goes wrong in a run: kills, freezes, twins, long absences, and the ends that threads come to.

use super::{START, World};
use crate::runtime::{CrashPoint, ThreadError};
use crate::testing::simulation::check::Wrong;
use crate::testing::simulation::faults::Ambush;
use crate::testing::simulation::plan::pick;
use crate::testing::simulation::process::{APPLICATION, Life, Process, SESSION_TIMEOUT_MS};
use crate::testing::simulation::scenario::{Scenario, TOMBSTONES_LIVE_MS};

impl World {
    /// Draws what goes wrong in this turn.
    pub(super) fn misfortune(&mut self) -> Result<(), Wrong> {
        let plan = self.site.plan.clone();
        let index = self.rng.usize(0..self.processes.len());
        if self.chance(plan.crash_rate) {
            self.set_ambush(index);
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

    /// Lets a process die, or stop for a while, where it next comes to a point of its work.
    fn set_ambush(&mut self, index: usize) {
        let plan = &self.site.plan;
        let of_globals = plan.scenario == Scenario::Globals && self.rng.u32(0..3) == 0;
        let (point, stall) = if of_globals {
            (*pick(&mut self.rng, &CrashPoint::OF_GLOBALS), false)
        } else {
            let point = *pick(&mut self.rng, &CrashPoint::OF_TASKS);
            (point, plan.freeze_rate > 0)
        };
        let countdown = self.rng.u32(0..2);
        let stall = stall && self.rng.bool();
        let ambush = if stall { Ambush::Stall } else { Ambush::Crash };
        self.site.faults.arm(ambush, index, point, countdown);
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
                        let thread = self.rng.usize(0..self.site.threads());
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

    pub(super) fn kill(&mut self, index: usize, why: &str) -> Result<(), Wrong> {
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

    /// Kills the process that waits for a commit's answer.
    pub(super) fn kill_client(&mut self, client: &str) -> Result<(), Wrong> {
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

    pub(super) fn thread_ended(&mut self, index: usize, error: &ThreadError) -> Result<(), Wrong> {
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
            | ThreadError::DrainTimedOut { .. }
            | ThreadError::Refused(_)
            | ThreadError::Bug(_)
            | ThreadError::Panicked(_) => Err(format!("process {index} ended: {text}")),
        }
    }
}
