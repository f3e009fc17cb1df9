//! The seam to the log: everything the runtime asks of Kafka, as traits.
//!
//! # Position
//! `runtime`, `testing`, `reset` and `cli` are generic over [`Log`]; `kafka` (the only place that
//! names rdkafka) and `embedded` implement it. One conformance suite runs against both.
//! # Invariants
//! - Nothing here is called through a trait object per record: the Kafka path pays nothing.
//! - Every error says what its caller may do next ([`LogError`]).

pub mod embedded;
mod error;
pub mod kafka;
mod types;

pub use error::{LogError, Refusal};
pub use types::*;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::Duration;

/// A log: the factory of its clients. Cheap to clone.
pub trait Log: Clone + Send + Sync + Debug + 'static {
    /// A record that was read; owns its bytes.
    type Message: LogMessage;
    /// What fences a commit: the consumer's generation (KIP-447).
    type GroupMetadata: Send;
    /// A group member.
    type Consumer: LogConsumer<Message = Self::Message, GroupMetadata = Self::GroupMetadata>;
    /// A transactional or idempotent producer.
    type Producer: LogProducer<GroupMetadata = Self::GroupMetadata>;
    /// A reader of explicitly named partitions, outside any group.
    type Reader: LogReader<Message = Self::Message>;

    /// Returns the same log with bounds for the queues of clients that are created from now on; a log
    /// whose clients have no queues is as it was. Bounds that the operator has set stay.
    #[must_use]
    fn with_client_memory(self, _memory: ClientMemory) -> Self {
        self
    }

    /// Creates a group member. It joins on [`LogConsumer::subscribe`].
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the configuration is refused.
    fn consumer(&self, spec: &ConsumerSpec) -> Result<Self::Consumer, LogError>;

    /// Creates a producer.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the configuration is refused.
    fn producer(&self, spec: &ProducerSpec) -> Result<Self::Producer, LogError>;

    /// Creates a reader.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the configuration is refused.
    fn reader(&self, isolation: Isolation) -> Result<Self::Reader, LogError>;

    /// Describes topics, in the order of `topics`; `None` for one that does not exist.
    ///
    /// # Errors
    /// [`LogError::Retriable`] while the broker is away.
    fn describe_topics(&self, topics: &[&str]) -> Result<Vec<Option<TopicDescription>>, LogError>;

    /// Returns the names of all topics that this client may see, in no particular order, without those
    /// that the log keeps for itself.
    ///
    /// # Errors
    /// [`LogError::Retriable`] while the broker is away.
    fn topic_names(&self) -> Result<Vec<TopicName>, LogError>;

    /// Creates topics; one that exists already is no error.
    ///
    /// # Errors
    /// [`LogError::Retriable`] while the broker is away, [`LogError::Fatal`] when it refuses.
    fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError>;

    /// Deletes topics; one that does not exist is no error.
    ///
    /// # Errors
    /// As [`create_topics`](Self::create_topics).
    fn delete_topics(&self, topics: &[&str]) -> Result<(), LogError>;

    /// Deletes all records below the given offsets (repartition topics are purged this way).
    ///
    /// # Errors
    /// As [`create_topics`](Self::create_topics).
    fn delete_records(&self, below: &[(TopicPartition, Offset)]) -> Result<(), LogError>;

    /// Returns log start and end per partition. The end is the **high watermark** for
    /// [`Isolation::ReadUncommitted`] and the last stable offset for [`Isolation::ReadCommitted`].
    ///
    /// # Errors
    /// [`LogError::Retriable`] while the broker is away, [`LogError::UnknownTopic`].
    fn log_ranges(
        &self,
        partitions: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Vec<LogRange>, LogError>;

    /// Returns the members of a group; empty when it does not exist.
    ///
    /// # Errors
    /// [`LogError::Retriable`] while the broker is away.
    fn group_members(&self, group: &str) -> Result<Vec<GroupMember>, LogError>;

    /// Returns a group's stable committed offsets, in the order of `partitions`.
    ///
    /// # Errors
    /// [`LogError::Retriable`] while the broker is away or a pending transaction holds an offset.
    fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, LogError>;

    /// Sets offsets of a group without members (`reset`).
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the group has members.
    fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<(), LogError>;
}

/// A record as it was read.
pub trait LogMessage: Send {
    /// Returns the key's bytes.
    fn key(&self) -> Option<&[u8]>;
    /// Returns the value's bytes; `None` is a tombstone.
    fn value(&self) -> Option<&[u8]>;
    /// Returns the record timestamp.
    fn timestamp(&self) -> i64;
    /// Returns the offset within the partition.
    fn offset(&self) -> Offset;
    /// Returns the topic's partition number.
    fn partition(&self) -> i32;
    /// Returns the topic's name.
    fn topic(&self) -> &str;
    /// Returns a copy of the headers.
    fn headers(&self) -> Headers;
}

/// A group member. Used by one thread. Dropping a static one does **not** leave the group (a killed
/// static member resumes as itself); [`leave`](Self::leave) does. Whether a dynamic one leaves when it
/// is dropped is the log's affair.
///
/// The membership protocol is the caller's: [`poll_membership`](Self::poll_membership) hands out an
/// event, the caller answers `Assigned` with [`assign`](Self::assign) and `Revoked`/`Lost` with
/// [`unassign`](Self::unassign); until then the group waits (so the caller can commit first).
pub trait LogConsumer {
    /// See [`Log::Message`].
    type Message: LogMessage;
    /// See [`Log::GroupMetadata`].
    type GroupMetadata;

    /// Joins the group and subscribes `topics`.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the subscription is refused.
    fn subscribe(&mut self, topics: &[TopicName]) -> Result<(), LogError>;

    /// Serves heartbeats and rebalances and returns the next event, if any. Does not block. Must be
    /// called at least every `max.poll.interval`.
    ///
    /// # Errors
    /// [`LogError::Fenced`] when another process runs under the same static identity;
    /// [`LogError::Retriable`] conditions of the connection are reported once and need no answer.
    fn poll_membership(&mut self) -> Result<Option<MembershipEvent>, LogError>;

    /// Adds partitions with the offsets to start from. May name partitions of topics that are not
    /// subscribed (co-partitioned topics follow the driver topic). An empty slice is a valid answer.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the client refuses.
    fn assign(&mut self, from: &[(TopicPartition, Offset)]) -> Result<(), LogError>;

    /// Gives partitions back.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the client refuses.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Appends up to `max` read-committed records of one assigned partition to `into`, in offset
    /// order, without blocking; returns how many. Never called for a partition whose buffer is
    /// full: that is the back-pressure.
    ///
    /// # Errors
    /// [`LogError::Retriable`] when the broker is away, [`LogError::OffsetOutOfRange`] when the log
    /// no longer holds the position, [`LogError::UnknownTopic`] when the topic was deleted.
    fn poll(
        &mut self,
        partition: &TopicPartition,
        max: usize,
        into: &mut VecDeque<Self::Message>,
    ) -> Result<usize, LogError>;

    /// Blocks until a partition may have records, an event may be due, [`ConsumerWaker::wake`] is
    /// called, or `timeout` has passed. The embedded log under virtual time returns at once.
    fn wait(&mut self, timeout: Duration);

    /// Returns a handle with which another thread ends a [`wait`](Self::wait).
    fn waker(&self) -> ConsumerWaker;

    /// Moves an assigned partition's position; records prefetched before it are never delivered.
    ///
    /// # Errors
    /// [`LogError::Retriable`] when the broker is away.
    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError>;

    /// Returns the group's **stable** committed offsets, in the order of `partitions`.
    ///
    /// # Errors
    /// [`LogError::Retriable`] while a pending transaction holds an offset (ask again) or the
    /// broker is away.
    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, LogError>;

    /// Returns an assigned partition's position: every visible record below it was handed out by
    /// [`poll`](Self::poll). Moves past control records and aborted ones at the end of the
    /// partition, so that a committed offset does not stay behind where retention will delete.
    fn position(&self, partition: &TopicPartition) -> Option<Offset>;

    /// Returns the last known high watermark of an assigned partition, without asking the broker.
    fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset>;

    /// Returns the metadata that fences a commit; taken afresh for each.
    ///
    /// # Errors
    /// [`LogError::MemberUnknown`] when this is no member.
    fn group_metadata(&self) -> Result<Self::GroupMetadata, LogError>;

    /// Returns whether this is a member with an assignment (possibly empty).
    fn is_member(&self) -> bool;

    /// Leaves the group, so that partitions move at once.
    ///
    /// # Errors
    /// [`LogError::Retriable`] when the broker could not be told.
    fn leave(&mut self) -> Result<(), LogError>;
}

/// A producer. Transactional when its spec names a transactional id, idempotent otherwise.
pub trait LogProducer: Send {
    /// See [`Log::GroupMetadata`].
    type GroupMetadata;

    /// Fences older producers of the same transactional id and settles what they left open.
    ///
    /// # Errors
    /// [`LogError::Retriable`]: call again. [`LogError::Fatal`].
    fn init_transactions(&mut self) -> Result<(), LogError>;

    /// Opens a transaction.
    ///
    /// # Errors
    /// [`LogError::Fenced`], [`LogError::Fatal`].
    fn begin_transaction(&mut self) -> Result<(), LogError>;

    /// Queues a record. Keyed records without a partition go where Kafka's Java client puts them
    /// (murmur2). Waits, bounded, while the queue is full. In a transaction the log's refusal of a
    /// record comes with a later call, as [`LogError::RecordRefused`].
    ///
    /// # Errors
    /// [`LogError::AbortRequired`], [`LogError::RecordRefused`], [`LogError::Fenced`],
    /// [`LogError::RecordTooLarge`], [`LogError::Fatal`].
    fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), LogError>;

    /// Waits until all queued records are acknowledged.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`LogError::Retriable`] after a time-out.
    fn flush(&mut self) -> Result<(), LogError>;

    /// Adds consumed offsets to the transaction, fenced by the group's generation.
    ///
    /// # Errors
    /// [`LogError::Fenced`] or [`LogError::MemberUnknown`] when the member is no longer current,
    /// [`LogError::AbortRequired`], [`LogError::RecordRefused`], [`LogError::Retriable`]: call again.
    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, CommittedOffset)],
        group: &Self::GroupMetadata,
    ) -> Result<(), LogError>;

    /// Flushes and commits.
    ///
    /// # Errors
    /// [`LogError::UnknownOutcome`]: call again until it succeeds or is fatal; aborting is not
    /// allowed then. [`LogError::AbortRequired`], [`LogError::RecordRefused`], [`LogError::Fenced`],
    /// [`LogError::Fatal`].
    fn commit_transaction(&mut self) -> Result<(), LogError>;

    /// Aborts the open transaction.
    ///
    /// # Errors
    /// [`LogError::Retriable`]: call again. [`LogError::Fenced`], [`LogError::Fatal`].
    fn abort_transaction(&mut self) -> Result<(), LogError>;

    /// Returns the highest acknowledged offset per partition written since the last
    /// [`begin_transaction`](Self::begin_transaction), and forgets them. `None` where the broker
    /// acknowledged without an offset (a duplicate sequence).
    fn take_acknowledged(&mut self) -> Vec<(TopicPartition, Option<Offset>)>;
}

/// Reads explicitly assigned partitions, outside any group: restore, tools, tests.
pub trait LogReader: Send {
    /// See [`Log::Message`].
    type Message: LogMessage;

    /// Replaces the assignment.
    ///
    /// # Errors
    /// [`LogError::Fatal`] when the client refuses.
    fn assign(&mut self, from: &[(TopicPartition, Offset)]) -> Result<(), LogError>;

    /// Appends up to `max` records of any assigned partition; waits up to `timeout` for the first.
    ///
    /// # Errors
    /// As [`LogConsumer::poll`].
    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        into: &mut Vec<Self::Message>,
    ) -> Result<usize, LogError>;

    /// Returns the position: all visible records below it were delivered. Moves past control
    /// records and aborted ones too, so that a reader can tell that it has reached an end.
    fn position(&self, partition: &TopicPartition) -> Option<Offset>;
}
