//! A stream thread on an OS thread of its own, moved one step at a time.
//!
//! The scheduler hands out a step and waits for its end, so only one thread ever runs: a seed stays
//! a run. The OS thread is there so that a step can stop in its middle (a zombie) while others go on.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::faults::{Gate, SimulationProbe};
use crate::log::embedded::EmbeddedLog;
use crate::runtime::{CrashPoint, Probe, Step, StreamThread, ThreadError, ThreadSpec};

enum Command {
    Step,
    Stop,
}

/// How a step has ended.
pub(super) enum Stepped {
    /// The thread was made: it has asked to join the group.
    Started,
    Done(Step),
    /// It has stopped in its middle; the next step goes on from there.
    Stalled(CrashPoint),
    Ended(ThreadError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Stalled,
    Left,
}

/// See the [module](self).
pub(super) struct Driver {
    state: State,
    /// `None` once the thread is to end.
    commands: Option<Sender<Command>>,
    resume: Option<Sender<()>>,
    replies: Receiver<Stepped>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts a thread; `spec` is completed by the thread's own probe.
    ///
    /// # Errors
    /// When the system has no thread to give, or the log refuses it.
    pub(super) fn start(
        probe: impl FnOnce(Mutex<Gate>) -> SimulationProbe,
        spec: impl FnOnce(Arc<dyn Probe>) -> ThreadSpec<EmbeddedLog> + Send + 'static,
    ) -> Result<Self, ThreadError> {
        let (resume, resumed) = channel();
        let (commands, orders) = channel();
        let (reply, replies) = channel();
        let probe = probe(Mutex::new(Gate {
            stalled: reply.clone(),
            resume: resumed,
        }));
        let thread = std::thread::Builder::new()
            .name("simulated".to_owned())
            .spawn(move || {
                let work = AssertUnwindSafe(|| work(spec(Arc::new(probe)), &orders, &reply));
                if let Err(panic) = std::panic::catch_unwind(work) {
                    let error = ThreadError::Panicked(panic_text(&*panic));
                    drop(reply.send(Stepped::Ended(error)));
                }
            });
        let thread = thread.map_err(|error| ThreadError::Panicked(error.to_string()))?;
        let (commands, resume, thread) = (Some(commands), Some(resume), Some(thread));
        let mut driver = Self {
            state: State::Ready,
            commands,
            resume,
            replies,
            thread,
        };
        match driver.reply() {
            Stepped::Ended(error) => Err(error),
            Stepped::Started | Stepped::Done(_) | Stepped::Stalled(_) => Ok(driver),
        }
    }

    pub(super) fn has_left(&self) -> bool {
        self.state == State::Left
    }

    /// Asks the thread to drain and leave.
    pub(super) fn stop(&mut self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // One that has ended has said so already.
            drop(commands.send(command));
        }
    }

    /// Does a step, or the rest of one.
    pub(super) fn step(&mut self) -> Stepped {
        match self.state {
            State::Left => return Stepped::Done(Step::Stopped),
            State::Ready => self.send(Command::Step),
            State::Stalled => {
                if let Some(resume) = &self.resume {
                    let _nobody_waits = resume.send(()).is_err();
                }
            }
        }
        self.reply()
    }

    fn reply(&mut self) -> Stepped {
        let reply = self.replies.recv().unwrap_or_else(|_| {
            Stepped::Ended(ThreadError::Panicked(
                "a thread has ended without a word".to_owned(),
            ))
        });
        self.state = match &reply {
            Stepped::Done(Step::Stopped) => State::Left,
            Stepped::Stalled(_) => State::Stalled,
            Stepped::Started | Stepped::Done(_) | Stepped::Ended(_) => State::Ready,
        };
        reply
    }
}

impl Drop for Driver {
    /// `kill -9`: a stalled step ends where it stands, and everything is dropped as it is.
    fn drop(&mut self) {
        self.resume = None;
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported as the thread's end.
            drop(thread.join());
        }
    }
}

fn work(spec: ThreadSpec<EmbeddedLog>, orders: &Receiver<Command>, reply: &Sender<Stepped>) {
    let mut thread = match StreamThread::new(spec) {
        Ok(thread) => {
            drop(reply.send(Stepped::Started));
            thread
        }
        Err(error) => {
            drop(reply.send(Stepped::Ended(error.into())));
            return;
        }
    };
    for order in orders {
        match order {
            Command::Stop => thread.stop(),
            Command::Step => {
                let (stepped, ended) = match thread.step() {
                    Ok(step) => (Stepped::Done(step), false),
                    Err(error) => (Stepped::Ended(error), true),
                };
                if reply.send(stepped).is_err() || ended {
                    return;
                }
            }
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}
