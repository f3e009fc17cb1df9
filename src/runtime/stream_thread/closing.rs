//! The last look at the changelogs before a thread ends: its stores are closed at their changelogs'
//! very ends, so that an application that stands still keeps its state however long it is stopped.
//!
//! [`closing_offset`] says why and when. Nothing depends on success: a checkpoint that stays behind
//! the last marker costs a short replay, or a long one after tombstones have gone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::StreamThread;
use super::slot::Slot;
use crate::clock::Timestamp;
use crate::log::{Isolation, Log, LogError, LogReader, Offset, TopicPartition};
use crate::runtime::error::Fault;
use crate::runtime::protocol::restore::{ReadBack, closing_offset};

/// How long one poll may wait, and how many there are: a second at most, once per shutdown. A marker
/// is in the log before the commit is answered, so that the first poll or two see it.
const POLL: Duration = Duration::from_millis(50);
const POLLS_MAX: usize = 20;

impl<L: Log> StreamThread<L> {
    /// Moves the checkpoints of all tasks to the ends of their changelogs, where nothing but markers
    /// lies between. Called when everything is committed and applied.
    pub(super) fn settle_checkpoints(&mut self, now: Timestamp) -> Result<(), Fault> {
        let from: Vec<(TopicPartition, Offset)> =
            self.live().flat_map(|task| task.changelog_ends()).collect();
        if from.is_empty() {
            return Ok(());
        }
        let ends = match self.changelog_ends(&from) {
            Ok(ends) => ends,
            Err(error) => {
                tracing::debug!(thread = %self.id, %error, "checkpoints stay behind their markers");
                return Ok(());
            }
        };
        for slot in self.slots.values_mut() {
            let Slot::Live(task) = slot else { continue };
            task.move_checkpoint(&ends, now)?;
        }
        Ok(())
    }

    /// Returns the high watermarks of the changelogs that hold nothing but markers behind `from`.
    fn changelog_ends(
        &self,
        from: &[(TopicPartition, Offset)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, LogError> {
        let partitions: Vec<TopicPartition> = from.iter().map(|(it, _)| it.clone()).collect();
        // ORDER: the watermarks first; what is written after them is not looked for.
        let ranges = self
            .spec
            .log
            .log_ranges(&partitions, Isolation::ReadUncommitted)?;
        let mut reader = self.spec.log.reader(Isolation::ReadCommitted)?;
        reader.assign(from)?;
        let mut found = Vec::new();
        for _ in 0..POLLS_MAX {
            let arrived = partitions
                .iter()
                .zip(&ranges)
                .all(|(partition, range)| reader.position(partition) >= Some(range.end));
            // Any record is one too many: there is a successor, and its records come first.
            if arrived || reader.poll(1, POLL, &mut found)? > 0 {
                break;
            }
        }
        let read = |partition, checkpoint| ReadBack {
            position: reader.position(partition).unwrap_or(checkpoint),
            records: found.len(),
        };
        Ok(from
            .iter()
            .zip(&ranges)
            .filter_map(|((partition, checkpoint), range)| {
                let read = read(partition, *checkpoint);
                let end = closing_offset(*checkpoint, range.end, read)?;
                Some((partition.clone(), end))
            })
            .collect())
    }
}
