//! An assigned partition of a group member: its queue and its position.
//!
//! # Position
//! Owned by the consumer, which assigns, seeks and polls.
//! # How a position passes control records
//! librdkafka keeps a position per partition (`rktp_app_pos`), one past the last entry that was taken
//! from the partition's queue. Commit and abort markers are entries too: they are enqueued behind the
//! records they follow, and dropped when they are taken. Aborted records are never enqueued, but their
//! marker is, behind them. So this position passes both, and it is safe to commit:
//! - The queue is first in, first out, filled by one broker thread in offset order. What is taken is
//!   handed out by the same call, so nothing visible below the position is left anywhere.
//! - Entries that a seek, an assignment or a rebalance's pause has outdated are dropped by their
//!   version, and move nothing. A pause goes on fetching at this very position.
//! - A seek and a stop make it invalid before they are answered. Should an older one ever show, it is
//!   the one that [`Partition::settled`] finds there, and is not believed until it has changed:
//!   only entries taken since then change it.
//! - An *error* entry moves it to one past the error's offset, where a record that was not seen may
//!   be; and a rebalance would go on fetching behind that record. So after any error entry the rest
//!   of the queue is dropped, and the partition is sought to our own position before it is read on.
//!   For the same reason the events of a partition's end are not asked for (`enable.partition.eof`):
//!   they are error entries at the offset of the **next** record. With them, a rebalance while the
//!   consumer stood at the end of a partition passed over the next record of it.
//!
//! What stays behind is a gap that compaction has left at the very end of a partition: it has no
//! entry. The next record closes it.
//! # Failure
//! A condition that arrives behind records is told by the poll after them.
//!
//! An offset out of range is told without a version (`rd_kafka_offset_reset`), so that a seek does not
//! outdate it, and one that crosses a seek also stops the fetching that the seek began. It names the
//! offset it is about: if that is not our position, and nothing was taken since the position was set, it
//! says nothing about it, and the seek that follows every error entry asks again. After a record it may
//! be a truncated log, found where the client reads ahead, and is told.

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::Arc;

use super::errors;
use super::ffi::{
    Client, Code, FetchError, KafkaMessage, NativeError, Origin, PartitionList, Queue,
};
use crate::log::{ConsumerWaker, LogError, LogMessage, Offset, TopicName, TopicPartition};

/// An assigned partition.
#[derive(Debug)]
pub(super) struct Partition {
    queue: Queue,
    origin: Arc<Origin>,
    /// The topic's name for calls that take C strings.
    pub(super) name: CString,
    /// The next offset to deliver; smaller ones were delivered or skipped.
    position: Offset,
    /// A condition that arrived behind records, due at the next poll.
    condition: Option<FetchError>,
    /// A seek was begun and not confirmed: the queue may hold records of the old position.
    unsettled: bool,
    /// No record was taken since the position was set.
    fresh: bool,
    /// An error entry was taken: librdkafka's position is not to be trusted before a seek.
    misplaced: bool,
    /// The partition, to ask librdkafka for its position with.
    place: PartitionList,
    /// What librdkafka's position was when reading began: of a former life, if it was any.
    former: Option<Offset>,
}

impl Partition {
    pub(super) fn new(
        client: &Arc<Client>,
        at: &TopicPartition,
        offset: Offset,
        waker: &ConsumerWaker,
    ) -> Result<Self, NativeError> {
        let mut queue = Queue::partition(client, at)?;
        queue.wake_when_filled(waker.clone());
        let name = CString::new(&*at.topic)
            .map_err(|_| NativeError::from_code(Code::RD_KAFKA_RESP_ERR__INVALID_ARG))?;
        let origin = Origin {
            topic: TopicName::clone(&at.topic),
            client: Arc::clone(client),
        };
        Ok(Self {
            queue,
            origin: Arc::new(origin),
            name,
            position: offset,
            condition: None,
            unsettled: false,
            fresh: true,
            misplaced: false,
            place: PartitionList::of([(at, 0)])?,
            former: None,
        })
    }

    /// Returns the position, unless it is being changed.
    pub(super) fn position(&self) -> Option<Offset> {
        (!self.unsettled).then_some(self.position)
    }

    /// Returns where to seek to before reading on, after an error entry that was told.
    pub(super) fn to_seek(&self) -> Option<Offset> {
        (self.misplaced && self.condition.is_none()).then_some(self.position)
    }

    /// A seek is tried: until it has begun, what the queue holds is of the old position.
    pub(super) fn begin_seek(&mut self) {
        self.unsettled = true;
    }

    /// A seek has begun.
    pub(super) fn sought(&mut self, client: &Client, offset: Offset) {
        self.position = offset;
        self.condition = None;
        self.unsettled = false;
        self.fresh = true;
        self.misplaced = false;
        self.settled(client);
    }

    /// Reading begins at our position; what librdkafka says of its own up to here is of the past.
    pub(super) fn settled(&mut self, client: &Client) {
        self.former = client.position(&self.place);
    }

    /// Follows librdkafka past control records. To be called when all that was taken is handed out.
    fn follow(&mut self, client: &Client) {
        let reached = client.position(&self.place);
        if reached != self.former {
            self.former = None;
            self.position = reached.map_or(self.position, |reached| reached.max(self.position));
        }
    }

    #[cfg(test)]
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes what is there; see [`LogConsumer::poll`](crate::log::LogConsumer::poll).
    pub(super) fn poll(
        &mut self,
        client: &Client,
        at: &TopicPartition,
        max: usize,
        into: &mut VecDeque<KafkaMessage>,
    ) -> Result<usize, LogError> {
        if self.unsettled {
            let message = format!("a seek of {at} has not begun");
            return Err(LogError::Retriable {
                operation: "poll",
                message,
            });
        }
        if let Some(condition) = self.condition.take() {
            return Err(errors::of_fetch(at, condition));
        }
        // Nothing to take: nothing that moves the position either.
        if self.queue.is_empty() {
            return Ok(0);
        }
        let (origin, position, condition) = (&self.origin, &mut self.position, &mut self.condition);
        let mut delivered = 0;
        self.queue
            .take(max, |fetched| match fetched.into_record(origin) {
                // Read again, after the seek that follows an error.
                _ if condition.is_some() => {}
                Ok(record) if record.offset() >= *position => {
                    *position = record.offset() + 1;
                    into.push_back(record);
                    delivered += 1;
                }
                Ok(_below) => {}
                Err(error) => *condition = Some(error),
            })
            .map_err(|error| errors::log_error("poll", error))?;
        if self.condition.is_some() {
            self.misplaced = true;
        } else if !self.misplaced {
            self.follow(client);
        }
        self.fresh &= delivered == 0;
        let told = self.condition.take().filter(|condition| {
            let told = !self.fresh || concerns(condition, self.position);
            if !told {
                tracing::warn!(
                    partition = %at, offset = condition.offset, position = self.position,
                    "an offset out of range is of before the last seek: asking again"
                );
            }
            told
        });
        match told {
            // Records first: the condition is of the position behind them.
            condition @ Some(_) if delivered > 0 => {
                self.condition = condition;
                Ok(delivered)
            }
            Some(condition) => Err(errors::of_fetch(at, condition)),
            None => Ok(delivered),
        }
    }
}

/// Returns whether a condition is about `position`, and not of a fetch before a seek.
fn concerns(condition: &FetchError, position: Offset) -> bool {
    // A negative offset stands for none, as where the log was found cut off.
    !condition.is_out_of_range() || condition.offset < 0 || condition.offset == position
}
