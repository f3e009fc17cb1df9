//! Plain values that cross the seam.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A topic's name, shared.
pub type TopicName = Arc<str>;

/// A position in a partition: never negative.
pub type Offset = i64;

/// A topic's partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Creates a topic partition.
    #[must_use]
    pub fn new(topic: impl Into<TopicName>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Record headers, in order; a key may repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, Option<Vec<u8>>)>);

impl Headers {
    /// Creates empty headers; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a header.
    pub fn push(&mut self, key: impl Into<Cow<'static, str>>, value: Option<Vec<u8>>) {
        self.0.push((key.into(), value));
    }

    /// Appends a UTF-8 header and returns the headers, for building.
    #[must_use]
    pub fn with(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.push(key, Some(value.into().into_bytes()));
        self
    }

    /// Returns the last value under `key`, as Kafka's `lastHeader` does.
    #[must_use]
    pub fn last(&self, key: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .rev()
            .find(|(k, _)| k == key)
            .and_then(|(_, v)| v.as_deref())
    }

    /// Iterates over all headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v.as_deref()))
    }

    /// Returns the number of headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a client's queues may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientMemory {
    /// Fetched ahead and not polled, for each partition of a consumer or reader.
    pub fetched_per_partition: usize,
    /// Sent and not acknowledged, for each producer.
    pub sending: usize,
}

/// What a transaction's records look like to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Only records of committed transactions, up to the last stable offset.
    ReadCommitted,
    /// All records, up to the high watermark.
    ReadUncommitted,
}

/// A committed offset with its metadata string (`format::offset_metadata` has its bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: Offset,
    /// Opaque to the broker; Kafka Streams' format.
    pub metadata: String,
}

/// A record to write.
#[derive(Debug, Clone, Copy)]
pub struct ProducerRecord<'a> {
    /// The topic.
    pub topic: &'a TopicName,
    /// The partition; `None` lets the producer choose (murmur2 of the key).
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The record timestamp.
    pub timestamp: i64,
    /// The headers.
    pub headers: &'a Headers,
}

/// How a group member is set up.
#[derive(Debug, Clone)]
pub struct ConsumerSpec {
    /// `group.id`: Kafka Streams' `application.id`.
    pub group: String,
    /// `group.instance.id`: static membership (KIP-345).
    pub group_instance_id: Option<String>,
    /// `client.id`; carries the advertised HTTP address.
    pub client_id: String,
    /// `session.timeout.ms`.
    pub session_timeout: Duration,
}

/// How a producer is set up.
#[derive(Debug, Clone)]
pub struct ProducerSpec {
    /// `transactional.id`; `None` for an idempotent producer.
    pub transactional_id: Option<String>,
    /// `transaction.timeout.ms`.
    pub transaction_timeout: Duration,
    /// `client.id`.
    pub client_id: String,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name.
    pub name: TopicName,
    /// The number of partitions.
    pub partitions: i32,
    /// The replication factor; `None` for the broker's default.
    pub replication_factor: Option<i32>,
    /// Topic configs by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// A topic that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// The name.
    pub name: TopicName,
    /// Unique per creation: a topic deleted and created again has another (KIP-516).
    pub id: [u8; 16],
    /// The number of partitions.
    pub partitions: i32,
}

/// A partition's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// The first offset that still exists.
    pub start: Offset,
    /// One past the last offset, by the isolation that was asked for.
    pub end: Offset,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// `client.id`.
    pub client_id: String,
    /// `group.instance.id`, where the log tells it.
    pub group_instance_id: Option<String>,
    /// What it owns.
    pub assignment: Vec<TopicPartition>,
}

/// A change of what this member owns. Names partitions of subscribed topics only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipEvent {
    /// Partitions were added. Answer with `assign`.
    Assigned(Vec<TopicPartition>),
    /// Partitions are to be given back. Commit, then answer with `unassign`.
    Revoked(Vec<TopicPartition>),
    /// Partitions were taken away already: close without a commit, answer with `unassign`.
    Lost(Vec<TopicPartition>),
}

/// Ends a consumer's wait from another thread.
#[derive(Debug, Clone, Default)]
pub struct ConsumerWaker(Arc<(Mutex<bool>, Condvar)>);

impl ConsumerWaker {
    /// Makes the current or next wait return.
    pub fn wake(&self) {
        let (flag, condition) = &*self.0;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        condition.notify_one();
    }

    /// Blocks until woken or until `timeout` has passed; returns whether it was woken.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let (flag, condition) = &*self.0;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut guard, _) = condition
            .wait_timeout_while(guard, timeout, |woken| !*woken)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *guard)
    }
}
