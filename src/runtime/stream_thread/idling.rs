//! Which tasks may take records: task idling (KIP-695).
//!
//! [`PartitionGroup::processable`] decides; this tells it whether an empty partition has been read to the
//! log's end. The client's high watermark answers as a rule. It does not where it is unknown yet, and
//! where an open transaction lies behind the position, whose records nobody may read: then the broker is
//! asked for the last stable offset.
//!
//! [`PartitionGroup::processable`]: crate::runtime::PartitionGroup

use std::collections::BTreeMap;

use super::StreamThread;
use super::slot::Slot;
use crate::clock::Timestamp;
use crate::log::{Isolation, Log, LogConsumer, Offset, TopicPartition};
use crate::runtime::partition_group::Processable;
use crate::runtime::task::Progress;
use crate::topology::TaskId;

/// How often the broker is asked for the end of one partition.
const ASK_EVERY_MS: i64 = 100;

/// Last stable offsets, as far as they were asked for, and when.
#[derive(Debug, Default)]
pub(super) struct KnownEnds(BTreeMap<TopicPartition, (Timestamp, Option<Offset>)>);

impl KnownEnds {
    /// Returns whether a reader of committed records at `position` has read all there is.
    fn reached(
        &mut self,
        log: &impl Log,
        partition: &TopicPartition,
        position: Offset,
        now: Timestamp,
    ) -> bool {
        let known = self.0.get(partition).copied();
        let fresh = known.filter(|(at, _)| now < at.saturating_add(ASK_EVERY_MS));
        let end = match fresh {
            Some((_, end)) => end,
            None => {
                let asked = std::slice::from_ref(partition);
                let end = match log.log_ranges(asked, Isolation::ReadCommitted) {
                    Ok(ranges) => ranges.first().map(|range| range.end),
                    Err(error) => {
                        tracing::debug!(%partition, %error, "cannot ask for the end of a partition");
                        None
                    }
                };
                self.0.insert(partition.clone(), (now, end));
                end
            }
        };
        end.is_some_and(|end| position >= end)
    }
}

impl<L: Log> StreamThread<L> {
    /// Returns the running tasks that may take their next record.
    pub(super) fn processable_tasks(&mut self, now: Timestamp) -> Vec<TaskId> {
        let idle_max = self.spec.config.task_idle_max;
        let (consumer, log, ends) = (&self.consumer, &self.spec.log, &mut self.ends);
        let mut processable = Vec::new();
        self.idles_until = None;
        for (id, slot) in &mut self.slots {
            let Slot::Live(task) = slot else { continue };
            if task.progress != Progress::Running {
                continue;
            }
            let at_end = |partition: &TopicPartition, position: Offset| {
                let end = consumer.high_watermark(partition);
                end.is_some_and(|end| position >= end)
                    || ends.reached(log, partition, position, now)
            };
            match task.group.processable(now, idle_max, at_end) {
                Processable::Yes => processable.push(*id),
                Processable::Waits(until) => {
                    let first = self.idles_until.map_or(until, |other| other.min(until));
                    self.idles_until = Some(first);
                }
                Processable::Empty => {}
            }
        }
        processable
    }
}
