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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::backoff::Backoff;
use super::call::{Trouble, record_of, refuse_outside, wait};
use super::intake::{Intake, Verdict};
use super::status::{SinkState, SinkStatus};
use super::stop::Stop;
use super::{
    BadRecords, Sink, SinkBatch, SinkBounds, SinkContext, SinkError, SinkPartition, SinkSession,
};
use crate::log::{
    ConsumerSpec, Isolation, Log, LogConsumer, LogError, MembershipEvent, Offset, TopicName,
    TopicPartition,
};
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

    // --- the log --------------------------------------------------------------------------------

    fn serve_group(&mut self) -> Result<(), LogError> {
        if !self.log_pause.remaining().is_zero() {
            return Ok(());
        }
        if self.consumer.is_none() {
            let mut consumer = self.spec.log.consumer(&self.spec.consumer)?;
            let topics = self.spec.context.topics.iter();
            let topics: Vec<TopicName> =
                topics.map(|topic| TopicName::clone(&topic.name)).collect();
            consumer.subscribe(&topics)?;
            self.spec.stop.wake_with(Some(consumer.waker()));
            self.consumer = Some(consumer);
        }
        let Some(consumer) = &mut self.consumer else {
            return Ok(());
        };
        while let Some(event) = consumer.poll_membership()? {
            match event {
                MembershipEvent::Assigned(partitions) => {
                    for partition in partitions {
                        let mut topics = self.spec.context.topics.iter();
                        let topic = topics.find(|topic| topic.name == partition.topic);
                        let declared = topic.map_or("", |topic| &topic.declared);
                        self.intakes.insert(partition, Intake::new(declared.into()));
                    }
                    // Read once the target has said from where.
                    consumer.assign(&[])?;
                }
                MembershipEvent::Revoked(partitions) | MembershipEvent::Lost(partitions) => {
                    consumer.unassign(&partitions)?;
                    for partition in &partitions {
                        self.intakes.remove(partition);
                        self.reading.remove(partition);
                        self.spec.status.give_up(partition);
                        self.spec.metrics.give_up(partition);
                    }
                }
            }
        }
        self.log_pause.succeed();
        Ok(())
    }

    fn log_failed(&mut self, error: &LogError) {
        self.log_pause.fail();
        let state = match error {
            LogError::Retriable { .. } | LogError::UnknownTopic { .. } => SinkState::Waiting,
            LogError::OffsetOutOfRange { .. } => {
                self.doubt();
                SinkState::Failed
            }
            _ => {
                // Fenced, unknown to the group, or of no more use: another client takes over.
                self.spec.stop.wake_with(None);
                self.consumer = None;
                self.reading.clear();
                for partition in std::mem::take(&mut self.intakes).into_keys() {
                    self.spec.status.give_up(&partition);
                    self.spec.metrics.give_up(&partition);
                }
                SinkState::Waiting
            }
        };
        self.report(state, format!("the log: {error}"));
    }

    /// Reads what there is room for.
    fn read(&mut self) -> Result<bool, LogError> {
        let Some(consumer) = &mut self.consumer else {
            return Ok(false);
        };
        let mut any = false;
        let mut messages = VecDeque::new();
        let now = Instant::now();
        for (partition, intake) in &mut self.intakes {
            let mut room = intake.room(&self.bounds);
            while room > 0 {
                let count = consumer.poll(partition, room.min(READ_MAX), &mut messages)?;
                any |= count > 0;
                for message in messages.drain(..) {
                    intake.push(record_of(&message), now);
                }
                room = if count == 0 {
                    0
                } else {
                    intake.room(&self.bounds)
                };
            }
        }
        Ok(any)
    }

    // --- the target -----------------------------------------------------------------------------

    /// Sees to a session; returns whether there is one.
    fn connect(&mut self) -> bool {
        if self.session.is_some() {
            return true;
        }
        if !self.target_pause.remaining().is_zero() {
            return false;
        }
        let (sink, context) = (Arc::clone(&self.spec.sink), self.spec.context.clone());
        match wait(
            &self.spec.runtime,
            self.bounds.timeout,
            sink.connect(&context),
        ) {
            Ok(session) => {
                self.session = Some(session);
                tracing::info!(sink = self.spec.name, kind = sink.kind(), "connected");
                true
            }
            Err(error) => {
                self.target_failed(error);
                false
            }
        }
    }

    /// Asks the target where partitions in doubt stand, and reads them from there.
    fn place(&mut self) -> bool {
        let unsure: Vec<TopicPartition> = self
            .intakes
            .iter()
            .filter(|(at, intake)| intake.position().is_none() || !self.reading.contains(*at))
            .map(|(at, _)| at.clone())
            .collect();
        if unsure.is_empty() {
            // Others may own every partition: that is no trouble.
            if self.log_pause.remaining().is_zero() {
                self.settle();
            }
            return true;
        }
        if !self.log_pause.remaining().is_zero() || !self.target_pause.remaining().is_zero() {
            return false;
        }
        match self.place_each(&unsure) {
            Ok(()) => {
                self.target_pause.succeed();
                self.settle();
                true
            }
            Err(Trouble::Log(error)) => {
                self.log_failed(&error);
                false
            }
            Err(Trouble::Target(error)) => {
                self.target_failed(error);
                false
            }
        }
    }

    fn place_each(&mut self, unsure: &[TopicPartition]) -> Result<(), Trouble> {
        let (Some(consumer), Some(session)) = (&mut self.consumer, &mut self.session) else {
            return Ok(());
        };
        let ranges = |log: &L| log.log_ranges(unsure, Isolation::ReadUncommitted);
        let starts = ranges(&self.spec.log)?;
        let asked: Vec<SinkPartition> = unsure
            .iter()
            .zip(&starts)
            .map(|(partition, range)| SinkPartition {
                partition: partition.clone(),
                log_start: range.start,
            })
            .collect();
        let (runtime, timeout) = (&self.spec.runtime, self.bounds.timeout);
        let stored = wait(runtime, timeout, session.resume(&asked))?;
        // Asked again: what was written meanwhile is not beyond the end.
        let ends = ranges(&self.spec.log)?;
        for ((asked, range), stored) in asked.iter().zip(&ends).zip(stored) {
            let at = &asked.partition;
            let Some(intake) = self.intakes.get_mut(at) else {
                continue;
            };
            // What is in memory is written, though retention has passed it while the target was away.
            let held = self.reading.contains(at) && intake.reaches(stored, asked.log_start);
            let start = if held { stored } else { asked.log_start };
            refuse_outside(&self.spec.name, at, stored, (start, range.end))?;
            let moved = intake.confirm(stored);
            if !self.reading.contains(at) {
                consumer.assign(&[(at.clone(), stored)])?;
                self.reading.insert(at.clone());
            } else if moved {
                consumer.seek(at, stored)?;
            }
            tracing::info!(sink = self.spec.name, partition = %at, offset = stored, moved, "goes on");
            show(&self.spec, consumer, at, stored);
        }
        Ok(())
    }

    /// Writes the batches that are due; returns whether there were any.
    fn write(&mut self) -> bool {
        let now = Instant::now();
        let mut batches: Vec<SinkBatch> = Vec::new();
        for (partition, intake) in &mut self.intakes {
            if intake.is_due(&self.bounds, now, false) {
                batches.extend(intake.take(partition));
            }
        }
        if batches.is_empty() {
            return false;
        }
        let Some(session) = &mut self.session else {
            self.put_back(batches);
            return false;
        };
        let (runtime, timeout) = (&self.spec.runtime, self.bounds.timeout);
        match wait(runtime, timeout, session.write(&batches)) {
            Ok(rows) => {
                self.wrote(&batches, rows, now.elapsed());
                true
            }
            Err(error) => {
                let counts = batches.iter();
                let counts: BTreeMap<TopicPartition, usize> = counts
                    .map(|batch| (batch.partition.clone(), batch.records.len()))
                    .collect();
                self.put_back(batches);
                if let SinkError::Refused { partition, .. } = &error
                    && let Some(count) = counts.get(partition).copied()
                {
                    self.refused(&error, count);
                } else {
                    self.target_failed(error);
                }
                false
            }
        }
    }

    fn put_back(&mut self, batches: Vec<SinkBatch>) {
        for batch in batches {
            if let Some(intake) = self.intakes.get_mut(&batch.partition) {
                intake.put_back(batch);
            }
        }
    }

    fn wrote(&mut self, batches: &[SinkBatch], rows: u64, took: Duration) {
        let now = Instant::now();
        let mut records = 0_u64;
        for batch in batches {
            if let Some(intake) = self.intakes.get_mut(&batch.partition) {
                intake.written(batch, now);
            }
            let count = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
            records = records.saturating_add(count);
            if let Some(consumer) = &self.consumer {
                show(&self.spec, consumer, &batch.partition, batch.next);
            }
        }
        self.spec.metrics.written(records, rows, took);
        self.spec.status.written(records, rows);
        self.target_pause.succeed();
        self.settle();
    }

    /// A record was refused: finds it, and meets the policy.
    fn refused(&mut self, error: &SinkError, count: usize) {
        let SinkError::Refused {
            partition, offset, ..
        } = error
        else {
            return;
        };
        let Some(intake) = self.intakes.get_mut(partition) else {
            return;
        };
        let Verdict::Blame(offset) = intake.refuse(count, *offset) else {
            return;
        };
        match self.bounds.bad_records {
            BadRecords::Stop => {
                intake.block();
                self.spec.metrics.failures.inc();
                self.report(SinkState::Failed, error.to_string());
            }
            BadRecords::Skip => {
                let (Some(batch), Some(session)) =
                    (intake.skip_first(partition), &mut self.session)
                else {
                    return;
                };
                let batch = [batch];
                let (runtime, timeout) = (&self.spec.runtime, self.bounds.timeout);
                match wait(runtime, timeout, session.write(&batch)) {
                    Ok(_) => {
                        let [batch] = batch;
                        intake.skipped(&batch, Instant::now());
                        self.spec.metrics.skipped.inc();
                        self.spec.status.skipped();
                        tracing::error!(
                            sink = self.spec.name, %partition, offset, %error, "record skipped"
                        );
                    }
                    Err(error) => self.target_failed(error),
                }
            }
        }
    }

    /// Looks now and then whether the target still has what this thread believes.
    fn check(&mut self) {
        if self.checked.elapsed() < self.bounds.check_interval {
            return;
        }
        self.checked = Instant::now();
        let positions = self.intakes.iter();
        let positions: Vec<(TopicPartition, Offset)> = positions
            .filter_map(|(at, intake)| Some((at.clone(), intake.position()?)))
            .collect();
        let Some(session) = &mut self.session else {
            return;
        };
        if let Some(consumer) = &self.consumer {
            for (at, position) in &positions {
                show(&self.spec, consumer, at, *position);
            }
        }
        let (runtime, timeout) = (&self.spec.runtime, self.bounds.timeout);
        if let Err(error) = wait(runtime, timeout, session.check(&positions)) {
            self.target_failed(error);
        }
    }

    fn target_failed(&mut self, error: SinkError) {
        match error {
            SinkError::Superseded { partitions } => {
                self.spec.metrics.superseded.inc();
                tracing::warn!(
                    sink = self.spec.name,
                    ?partitions,
                    "offsets have moved, asking again"
                );
                for partition in &partitions {
                    if let Some(intake) = self.intakes.get_mut(partition) {
                        intake.doubt();
                    }
                }
            }
            SinkError::Unavailable { .. } => {
                self.disconnect();
                self.target_pause.fail();
                self.report(SinkState::Waiting, error.to_string());
            }
            SinkError::Refused { .. } | SinkError::Failed { .. } => {
                self.disconnect();
                self.target_pause.fail_for_long();
                self.report(SinkState::Failed, error.to_string());
            }
        }
    }

    fn disconnect(&mut self) {
        self.session = None;
        self.spec.metrics.connected.set(0);
        self.spec.metrics.failures.inc();
        self.doubt();
    }

    fn doubt(&mut self) {
        for intake in self.intakes.values_mut() {
            intake.doubt();
        }
    }

    // --- what people see ------------------------------------------------------------------------

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
