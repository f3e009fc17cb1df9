//! A sink's thread: membership, reading, writing, and what follows when one of them fails.
//!
//! ```text
//! join ─▶ connect ─▶ ask where each partition stands ─▶ read ─▶ write rows and offsets ─┐
//!           ▲               ▲                            ▲──────────────────────────────┤
//!           │               └──── offsets have moved ────────────────────────────────────┤
//!           └──── away, or no answer: pause, then again ─────────────────────────────────┘
//! ```
//! The thread blocks on the target's futures, which the control plane's runtime drives. While it does,
//! the group is not served, so every such wait is bounded well below `max.poll.interval.ms`.

mod group;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::backoff::Backoff;
use super::intake::Intake;
use super::status::{SinkState, SinkStatus};
use super::stop::Stop;
use super::{Sink, SinkBounds, SinkContext, SinkSession};
use crate::log::{ConsumerSpec, Log, LogConsumer, Offset, TopicPartition};
use crate::metrics::SinkThreadMetrics;

/// Records of one partition that are taken over at once: between two looks at a batch's bytes.
const READ_MAX: usize = 256;
/// The longest the thread sleeps: a rebalance is answered, a pause ends.
const SLEEP_MAX: Duration = Duration::from_millis(250);
/// How often the same trouble is logged again.
const REMIND_AFTER: Duration = Duration::from_secs(30);

/// What a thread is made of.
pub(super) struct WorkerSpec<L: Log> {
    pub(super) log: L,
    pub(super) consumer: ConsumerSpec,
    pub(super) runtime: Handle,
    pub(super) name: String,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) context: SinkContext,
    pub(super) status: SinkStatus,
    pub(super) metrics: SinkThreadMetrics,
    pub(super) stop: Arc<Stop>,
}

/// See the module.
pub(super) struct Worker<L: Log> {
    spec: WorkerSpec<L>,
    bounds: SinkBounds,
    consumer: Option<L::Consumer>,
    session: Option<Box<dyn SinkSession>>,
    /// What the group has given to this process.
    intakes: BTreeMap<TopicPartition, Intake>,
    /// Those of them that the consumer reads.
    reading: BTreeSet<TopicPartition>,
    log_pause: Backoff,
    target_pause: Backoff,
    checked: Instant,
    trouble: Option<(String, Instant)>,
}

impl<L: Log> Worker<L> {
    pub(super) fn new(spec: WorkerSpec<L>) -> Self {
        let bounds = spec.sink.bounds();
        Self {
            spec,
            bounds,
            consumer: None,
            session: None,
            intakes: BTreeMap::new(),
            reading: BTreeSet::new(),
            log_pause: Backoff::default(),
            target_pause: Backoff::default(),
            checked: Instant::now(),
            trouble: None,
        }
    }

    /// Works until it is told to stop; then writes nothing more, leaves the group and ends.
    pub(super) fn run(mut self) {
        while !self.spec.stop.is_set() {
            if !self.step() {
                self.sleep();
            }
        }
        if let Some(mut consumer) = self.consumer.take()
            && let Err(error) = consumer.leave()
        {
            tracing::warn!(sink = self.spec.name, %error, "left the group without a word");
        }
        self.spec.metrics.connected.set(0);
        self.spec.status.set_state(SinkState::Stopped);
    }

    /// Does what can be done now; returns whether that was anything.
    fn step(&mut self) -> bool {
        if let Err(error) = self.serve_group() {
            self.log_failed(&error);
        }
        if !self.connect() || !self.place() {
            return false;
        }
        let read = match self.read() {
            Ok(read) => read,
            Err(error) => {
                self.log_failed(&error);
                false
            }
        };
        let written = self.write();
        self.check();
        read || written
    }

    fn sleep(&mut self) {
        let pauses = [self.log_pause.remaining(), self.target_pause.remaining()];
        let pause = pauses.into_iter().filter(|pause| !pause.is_zero()).min();
        let timeout = pause.unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
        let mut intakes = self.intakes.values();
        let may_read = pause.is_none() && intakes.all(|intake| intake.room(&self.bounds) > 0);
        match &mut self.consumer {
            Some(consumer) if may_read => consumer.wait(timeout),
            // What waits to be read must not wake it while there is no room for it.
            _ => self.spec.stop.wait(timeout),
        }
    }

    /// Notes that target and log answer.
    fn settle(&mut self) {
        self.spec.metrics.connected.set(1);
        let blocked = self.intakes.values().any(Intake::is_blocked);
        if blocked || self.spec.status.state() == SinkState::Running {
            return;
        }
        if self.trouble.take().is_some() {
            tracing::info!(sink = self.spec.name, "the sink is well again");
        }
        self.spec.status.set_state(SinkState::Running);
    }

    fn report(&mut self, state: SinkState, message: String) {
        let is_news = self
            .trouble
            .as_ref()
            .is_none_or(|(last, at)| *last != message || at.elapsed() > REMIND_AFTER);
        if is_news {
            match state {
                SinkState::Failed => {
                    tracing::error!(
                        sink = self.spec.name,
                        error = message,
                        "the sink needs attention"
                    );
                }
                _ => tracing::warn!(sink = self.spec.name, error = message, "the sink waits"),
            }
            self.trouble = Some((message.clone(), Instant::now()));
        }
        self.spec.status.error(state, message);
    }
}

fn show<L: Log>(spec: &WorkerSpec<L>, consumer: &L::Consumer, at: &TopicPartition, next: Offset) {
    let end = consumer.high_watermark(at).unwrap_or(next);
    let lag = end.saturating_sub(next).max(0);
    spec.status.position(at, next, lag);
    spec.metrics.position(at, lag);
}
