//! Sides as processes: started, listened to, stopped, killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::contenders::{Contender, STREAMS_SETTINGS};
use crate::process;
use crate::words::Word;
use crate::workload::Workload;

/// How long a side may take to stop once its standard input has ended.
const STOP_WITHIN: Duration = Duration::from_secs(40);
/// How long a side may take until all of its tasks run, millions of records restored.
const RUNNING_WITHIN: Duration = Duration::from_secs(300);

/// How processes are started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) servers: String,
    /// The class path of Kafka Streams' side.
    pub(crate) class_path: String,
    pub(crate) jvm_flags: Vec<String>,
    /// For `taskset`; all when absent.
    pub(crate) cpus: Option<String>,
}

/// What one run of one side has to itself, but for topics that several read.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) application: String,
    pub(crate) input: String,
    pub(crate) users: String,
    pub(crate) output: String,
    /// Outlives a process, so that a next one finds its state. Deleted with this.
    pub(crate) state: tempfile::TempDir,
}

/// A moment of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    /// What the process had used by then.
    pub(crate) cpu: Duration,
}

/// How a side came up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    /// `None` where there was nothing to restore.
    pub(crate) restoring: Option<Moment>,
    pub(crate) running: Moment,
    /// Records that it has read from changelogs, by its own count.
    pub(crate) restored: u64,
}

/// A side that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    heard: Receiver<(Word, Moment)>,
    pub(crate) started: Instant,
}

impl Launch {
    pub(crate) fn start(
        &self,
        contender: &Contender,
        workload: Workload,
        sandbox: &Sandbox,
    ) -> Result<Running> {
        let mut line: Vec<String> = Vec::new();
        if let Some(cpus) = &self.cpus {
            line.extend(["taskset", "--cpu-list", cpus].map(str::to_owned));
        }
        if contender.is_millstream {
            let program = std::env::current_exe()?;
            line.extend([program.display().to_string(), "side".to_owned()]);
        } else {
            line.push("java".to_owned());
            line.extend(self.jvm_flags.iter().cloned());
            line.extend(
                [
                    "-Dlog4j2.level=ERROR",
                    "-cp",
                    &self.class_path,
                    "KafkaStreamsSide",
                ]
                .map(str::to_owned),
            );
        }
        line.extend([
            workload.letter().to_owned(),
            self.servers.clone(),
            sandbox.application.clone(),
            sandbox.state.path().display().to_string(),
            sandbox.input.clone(),
            sandbox.users.clone(),
            sandbox.output.clone(),
        ]);
        if !contender.is_millstream {
            line.extend(STREAMS_SETTINGS.map(str::to_owned));
        }
        line.extend(contender.settings.iter().map(|it| (*it).to_owned()));
        let (program, arguments) = line.split_first().context("an empty command line")?;
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let stdout = child.stdout.take().context("a side without output")?;
        Ok(Running {
            heard: listen(stdout, child.id()),
            child,
            started,
        })
    }
}

/// Notes when the process says a word; what else it prints is passed on.
#[expect(clippy::print_stderr, reason = "what a library has to complain of")]
fn listen(stdout: ChildStdout, pid: u32) -> Receiver<(Word, Moment)> {
    let (say, heard) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let at = Instant::now();
            let Some(word) = Word::parse(&line) else {
                eprintln!("{line}");
                continue;
            };
            // Of a process that is gone there is nothing to note.
            if let Ok(cpu) = process::cpu_time(pid) {
                let _heard = say.send((word, Moment { at, cpu }));
            }
        }
    });
    heard
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns what the process has used so far.
    pub(crate) fn now(&self) -> Result<Moment> {
        Ok(Moment {
            at: Instant::now(),
            cpu: process::cpu_time(self.pid())?,
        })
    }

    /// Fails when the process has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the side ended by itself: {status}");
        }
        Ok(())
    }

    /// Waits until all tasks run.
    pub(crate) fn ready(&mut self) -> Result<Ready> {
        let deadline = Instant::now() + RUNNING_WITHIN;
        let mut restoring = None;
        loop {
            self.check()?;
            ensure!(
                Instant::now() < deadline,
                "not all tasks run within {RUNNING_WITHIN:?}"
            );
            match self.heard.recv_timeout(Duration::from_millis(100)) {
                Ok((Word::Restoring, moment)) => restoring = Some(moment),
                Ok((Word::Running { restored }, running)) => {
                    return Ok(Ready {
                        restoring,
                        running,
                        restored,
                    });
                }
                // It may be about to end; `check` says how.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    /// Ends the process in an orderly way.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + STOP_WITHIN;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "the side does not stop within {STOP_WITHIN:?}"
            );
            std::thread::park_timeout(Duration::from_millis(10));
        };
        ensure!(status.success(), "the side failed at its end: {status}");
        Ok(())
    }

    /// Ends the process by SIGKILL; returns when it was sent.
    pub(crate) fn kill(mut self) -> Result<Instant> {
        self.check()?;
        let at = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        Ok(at)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A child that has been waited for is left alone by both.
        let killed = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = killed {
            tracing::warn!(%error, "a side could not be ended");
        }
    }
}
