//! Where restores run: on threads of their own in production, inline under simulation.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Probe;
use super::restore::{RestoreError, RestoreStep, TaskRestore};
use crate::clock::Clock;
use crate::log::{ConsumerWaker, Log};
use crate::topology::TaskId;

/// A restore that has ended.
pub(crate) struct Finished<L: Log> {
    pub(crate) task: TaskId,
    pub(crate) restore: TaskRestore<L>,
    pub(crate) result: Result<(), RestoreError>,
}

struct Job<L: Log> {
    task: TaskId,
    restore: TaskRestore<L>,
    cancelled: Arc<AtomicBool>,
    probe: Arc<dyn Probe>,
    clock: Arc<dyn Clock>,
    done: Sender<Finished<L>>,
    waker: ConsumerWaker,
}

/// How long a step waits for the changelog's next records.
const POLL: Duration = Duration::from_millis(100);

impl<L: Log> Job<L> {
    /// Does one step; returns the outcome when the restore has ended.
    fn step(&mut self, wait: Duration) -> Option<Result<(), RestoreError>> {
        if self.cancelled.load(Ordering::Acquire) {
            return Some(Err(RestoreError::Cancelled));
        }
        match self.restore.step(wait, self.clock.now_ms(), &*self.probe) {
            Ok(RestoreStep::Done) => Some(Ok(())),
            Ok(RestoreStep::Progressed | RestoreStep::Waiting) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn finish(self, result: Result<(), RestoreError>) {
        let Self {
            task,
            restore,
            done,
            waker,
            ..
        } = self;
        // The stream thread may be gone; then so is the interest in its restore.
        drop(done.send(Finished {
            task,
            restore,
            result,
        }));
        waker.wake();
    }
}

/// Runs restores for one stream thread.
pub struct RestoreExecutor<L: Log> {
    pool: Option<RestorePool<L>>,
    inline: Vec<Job<L>>,
    cancels: Vec<(TaskId, Arc<AtomicBool>)>,
    done: Sender<Finished<L>>,
    finished: Receiver<Finished<L>>,
}

impl<L: Log> fmt::Debug for RestoreExecutor<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestoreExecutor")
            .field("active", &self.cancels.len())
            .finish_non_exhaustive()
    }
}

impl<L: Log> RestoreExecutor<L> {
    /// Restores within the stream thread's own steps: simulation and tests.
    #[must_use]
    pub fn inline() -> Self {
        Self::new(None)
    }

    /// Restores on the threads of `pool`.
    #[must_use]
    pub fn pooled(pool: RestorePool<L>) -> Self {
        Self::new(Some(pool))
    }

    /// Returns whether all work is done within the stream thread's own steps.
    pub(crate) const fn is_inline(&self) -> bool {
        self.pool.is_none()
    }

    fn new(pool: Option<RestorePool<L>>) -> Self {
        let (done, finished) = channel();
        Self {
            pool,
            inline: Vec::new(),
            cancels: Vec::new(),
            done,
            finished,
        }
    }

    pub(crate) fn submit(
        &mut self,
        task: TaskId,
        restore: TaskRestore<L>,
        probe: &Arc<dyn Probe>,
        clock: &Arc<dyn Clock>,
        waker: ConsumerWaker,
    ) {
        let cancelled = Arc::new(AtomicBool::new(false));
        self.cancels.push((task, Arc::clone(&cancelled)));
        let job = Job {
            task,
            restore,
            cancelled,
            probe: Arc::clone(probe),
            clock: Arc::clone(clock),
            done: self.done.clone(),
            waker,
        };
        match &self.pool {
            Some(pool) => pool.submit(job),
            None => self.inline.push(job),
        }
    }

    /// Makes a task's restore end soon; its result still arrives, as `Cancelled`.
    pub(crate) fn cancel(&mut self, task: TaskId) {
        for (_, cancelled) in self.cancels.iter().filter(|(id, _)| *id == task) {
            cancelled.store(true, Ordering::Release);
        }
    }

    /// Steps inline restores and returns one that has ended.
    pub(crate) fn poll(&mut self) -> Option<Finished<L>> {
        for mut job in std::mem::take(&mut self.inline) {
            match job.step(Duration::ZERO) {
                Some(result) => job.finish(result),
                None => self.inline.push(job),
            }
        }
        let finished = self.finished.try_recv().ok()?;
        self.cancels.retain(|(task, _)| *task != finished.task);
        Some(finished)
    }
}

impl<L: Log> Drop for RestoreExecutor<L> {
    fn drop(&mut self) {
        for (_, cancelled) in &self.cancels {
            cancelled.store(true, Ordering::Release);
        }
    }
}

/// The process's restore threads. They end when the last handle is dropped.
pub struct RestorePool<L: Log> {
    jobs: Sender<Job<L>>,
}

impl<L: Log> Clone for RestorePool<L> {
    fn clone(&self) -> Self {
        Self {
            jobs: self.jobs.clone(),
        }
    }
}

impl<L: Log> fmt::Debug for RestorePool<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestorePool").finish_non_exhaustive()
    }
}

impl<L: Log> RestorePool<L> {
    /// Starts `threads` restore threads.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job<L>>();
        let queue = Arc::new(Mutex::new(queue));
        for index in 0..threads.max(1) {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name(format!("restore-{index}"))
                .spawn(move || {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(mut job) = next else { return };
                        let result = loop {
                            // A panic ends the restore, not the thread that others wait for.
                            let stepped = catch_unwind(AssertUnwindSafe(|| job.step(POLL)))
                                .unwrap_or(Some(Err(RestoreError::Panicked)));
                            if let Some(result) = stepped {
                                break result;
                            }
                        };
                        job.finish(result);
                    }
                })?;
        }
        Ok(Self { jobs })
    }

    fn submit(&self, job: Job<L>) {
        if let Err(rejected) = self.jobs.send(job) {
            rejected.0.finish(Err(RestoreError::Cancelled));
        }
    }
}
