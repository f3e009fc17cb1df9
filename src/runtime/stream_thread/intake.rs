//! From the consumer's queues through the buffers into the tasks, within the thread's memory.
//!
//! # Invariants
//! - A partition whose buffer is full, by records or by bytes, is not polled: that is the
//!   back-pressure.
//! - A transaction whose overlays fill the thread's share takes no more records: it is committed
//!   first.

use super::StreamThread;
use super::slot::Slot;
use crate::clock::Timestamp;
use crate::log::{Log, LogConsumer};
use crate::runtime::ThreadMemory;
use crate::runtime::error::Fault;
use crate::runtime::task::{Processed, Progress, Task};

/// How many records a task processes between two looks at the size of its overlays.
const RECORDS_PER_LOOK: usize = 16;
/// How often gauges of memory and buffers are set.
const SHOW_EVERY_MS: i64 = 250;

impl<L: Log> StreamThread<L> {
    pub(super) fn buffered(&self) -> usize {
        self.live().map(|task| task.group.buffered()).sum()
    }

    /// Fills the buffers that have room.
    pub(super) fn poll_records(&mut self) -> Result<usize, Fault> {
        let limit = self.spec.config.buffered_records_per_partition;
        let partitions: usize = self.live().map(|task| task.group.partitions.len()).sum();
        let bytes_max = self.shares.buffered / partitions.max(1);
        let mut polled = 0;
        for slot in self.slots.values_mut() {
            let Slot::Live(task) = slot else { continue };
            if task.progress != Progress::Running {
                continue;
            }
            for input in &mut task.group.partitions {
                let room = limit.saturating_sub(input.buffer.len());
                // Half a buffer at a time: fewer calls into the client.
                if room * 2 >= limit && input.buffered_bytes <= bytes_max / 2 {
                    let before = input.buffer.len();
                    let result = self
                        .consumer
                        .poll(&input.partition, room, &mut input.buffer);
                    input.buffered(input.buffer.len() - before);
                    polled += result?;
                }
                // Past control records, or retention would one day delete what the group has
                // committed, and a restart would take that for a loss.
                if input.buffer.is_empty()
                    && let Some(position) = self.consumer.position(&input.partition)
                {
                    input.position = input.position.max(position);
                }
            }
        }
        Ok(polled)
    }

    pub(super) fn process_records(&mut self, now: Timestamp) -> Result<usize, Fault> {
        if self.is_careful_with_records() {
            return self.process_carefully(now);
        }
        let budget = self.spec.records_per_step;
        let bytes_max = self.uncommitted_bytes_max();
        let mut total = 0;
        let mut ids = self.processable_tasks(now);
        // Or a backlog of the first task would keep all others waiting until it is worked off.
        let behind = ids.partition_point(|id| Some(*id) <= self.filled_by);
        ids.rotate_left(behind);
        self.filled_by = None;
        for id in ids {
            total += self.with_task(id, |task, producer, probe| {
                let mut processed = 0;
                while processed < budget {
                    // Looked at now and then: it is a sum over stores.
                    let looks = processed > 0 && processed % RECORDS_PER_LOOK == 0;
                    if looks && task.uncommitted_bytes() >= bytes_max {
                        break;
                    }
                    match task.process_next(now, producer, probe)? {
                        Processed::Record => processed += 1,
                        Processed::Empty | Processed::NotYet(_) => break,
                    }
                    if task.group.ran_dry() && task.group.partitions.len() > 1 {
                        // What comes next may be on its way: polled for, and looked at anew.
                        break;
                    }
                }
                Ok(processed)
            })?;
            if self.uncommitted_bytes() >= bytes_max {
                self.filled_by = Some(id);
                break;
            }
        }
        Ok(total)
    }

    pub(super) fn uncommitted_bytes(&self) -> usize {
        self.live().map(Task::uncommitted_bytes).sum()
    }

    /// The overlay bytes at which a transaction is large: the thread's share, or less if so set.
    pub(super) fn uncommitted_bytes_max(&self) -> usize {
        let set = self.spec.config.uncommitted_bytes_max;
        set.min(self.shares.uncommitted)
    }

    /// Shares the cache out anew when tasks have come or gone since.
    pub(super) fn share_cache(&mut self) {
        let share = self.cache_bytes();
        if self.cache_share == Some(share) {
            return;
        }
        self.cache_share = Some(share);
        self.live().for_each(|task| task.share_cache(share));
    }

    /// Shows what the tasks hold, now and then.
    pub(super) fn show_memory(&mut self, now: Timestamp) {
        if now < self.shows_memory_at {
            return;
        }
        self.shows_memory_at = now.saturating_add(SHOW_EVERY_MS);
        let held = self.live().map(Task::show_memory);
        let memory = held.fold(ThreadMemory::default(), |sum, one| ThreadMemory {
            overlays: sum.overlays + one.overlays,
            record_buffers: sum.record_buffers + one.record_buffers,
        });
        self.spec.status.set_memory(memory);
    }
}
