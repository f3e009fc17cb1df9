//! The log's side of a sink's thread: the group, reading, and what follows when the log fails.

use std::collections::VecDeque;
use std::time::Instant;

use super::{READ_MAX, Worker};
use crate::log::{Log, LogConsumer, LogError, MembershipEvent, TopicName};
use crate::sink::SinkState;
use crate::sink::call::record_of;
use crate::sink::intake::Intake;

impl<L: Log> Worker<L> {
    pub(super) fn serve_group(&mut self) -> Result<(), LogError> {
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

    pub(super) fn log_failed(&mut self, error: &LogError) {
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
    pub(super) fn read(&mut self) -> Result<bool, LogError> {
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
}
