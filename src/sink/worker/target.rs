//! The target's side of a sink's thread: sessions, where partitions stand, writing, refused records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Worker, show};
use crate::log::{Isolation, Log, LogConsumer, Offset, TopicPartition};
use crate::sink::call::{Trouble, refuse_outside, wait};
use crate::sink::intake::Verdict;
use crate::sink::{BadRecords, SinkBatch, SinkError, SinkPartition, SinkState};

impl<L: Log> Worker<L> {
    /// Sees to a session; returns whether there is one.
    pub(super) fn connect(&mut self) -> bool {
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
    pub(super) fn place(&mut self) -> bool {
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
    pub(super) fn write(&mut self) -> bool {
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
    pub(super) fn check(&mut self) {
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

    pub(super) fn doubt(&mut self) {
        for intake in self.intakes.values_mut() {
            intake.doubt();
        }
    }
}
