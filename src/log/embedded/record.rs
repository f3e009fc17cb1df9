//! A stored record and the message that a reader gets: both share one allocation.

use std::sync::Arc;

use crate::log::{Headers, LogMessage, Offset, TopicName};

/// Identifies one transaction for the life of a log: never used twice, so that a record names its
/// transaction without a lookup by producer and epoch.
pub(super) type TransactionNumber = u64;

/// What stands at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A record that somebody wrote.
    Data,
    /// The end of a committed transaction in this partition. Never delivered.
    CommitMarker,
    /// The end of an aborted transaction in this partition. Never delivered.
    AbortMarker,
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) offset: Offset,
    pub(super) timestamp: i64,
    pub(super) key: Option<Box<[u8]>>,
    pub(super) value: Option<Box<[u8]>>,
    pub(super) headers: Headers,
    pub(super) transaction: Option<TransactionNumber>,
    pub(super) kind: Kind,
}

impl Record {
    /// Creates the marker that ends `transaction` in a partition.
    pub(super) fn marker(
        offset: Offset,
        transaction: TransactionNumber,
        commit: bool,
        timestamp: i64,
    ) -> Self {
        Self {
            offset,
            timestamp,
            key: None,
            value: None,
            headers: Headers::new(),
            transaction: Some(transaction),
            kind: if commit {
                Kind::CommitMarker
            } else {
                Kind::AbortMarker
            },
        }
    }

    /// Returns about what the record takes up, in bytes: for `retention.bytes` and journal growth.
    pub(super) fn size(&self) -> usize {
        const FIXED: usize = 64;
        FIXED + payload_size(self.key.as_deref(), self.value.as_deref(), &self.headers)
    }
}

/// Returns the bytes of key, value and headers.
pub(super) fn payload_size(key: Option<&[u8]>, value: Option<&[u8]>, headers: &Headers) -> usize {
    let headers: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len))
        .sum();
    key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers
}

/// A record that was read from the embedded log. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct EmbeddedMessage {
    pub(super) topic: TopicName,
    pub(super) partition: i32,
    pub(super) record: Arc<Record>,
}

impl LogMessage for EmbeddedMessage {
    fn key(&self) -> Option<&[u8]> {
        self.record.key.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.record.value.as_deref()
    }

    fn timestamp(&self) -> i64 {
        self.record.timestamp
    }

    fn offset(&self) -> Offset {
        self.record.offset
    }

    fn partition(&self) -> i32 {
        self.partition
    }

    fn topic(&self) -> &str {
        &self.topic
    }

    fn headers(&self) -> Headers {
        self.record.headers.clone()
    }
}
