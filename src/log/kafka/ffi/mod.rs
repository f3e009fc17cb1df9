//! The only unsafe code of the crate: owned, thread-aware handles over librdkafka's C objects.
//!
//! # Position
//! Everything else in `log::kafka` is safe code on top of these types. rust-rdkafka's clients are
//! not used because of what they cost here: a floor of 100 ms under every commit (its `flush` polls
//! in slices), a topic name allocated per produced record, one event object per consumed record,
//! and messages that cannot leave the borrow of their consumer.
//! # Invariants
//! - Each C object has one Rust owner that destroys it in `Drop`, and that owner holds an
//!   `Arc<Client>`: librdkafka requires that all its objects are gone before their client is.
//! - A client is closed without leaving its group (`NO_CONSUMER_CLOSE`): leaving is explicit.
//! - Callbacks only log or set a flag; they run on librdkafka's threads and may hold its locks.
//! - Error codes that are read from memory go through [`code_of`], since a code which the bindings
//!   do not know must not become a Rust enum. Codes *returned* by functions are trusted to be
//!   known, as rust-rdkafka's bindings do.

#![expect(
    unsafe_code,
    reason = "librdkafka is a C library; docs/decisions names the alternatives"
)]

mod admin;
mod client;
mod consumer;
mod groups;
mod list;
mod message;
mod producer;
mod queue;

pub(super) use admin::{Admin, TopicResult};
pub(super) use client::{Client, ClientKind, Conf, ConfError, NativeError};
pub(super) use consumer::NativeGroupMetadata;
pub(super) use list::{Entry, PartitionList};
pub use message::KafkaMessage;
pub(super) use message::{FetchError, Fetched, Origin};
pub(super) use producer::{Produce, Topic, TopicKey};
pub(super) use queue::{EventBody, Queue, Report};

pub(super) use rdkafka_sys::types::RDKafkaRespErr as Code;

use std::time::Duration;

/// Converts an error code read from C memory.
fn code_of(raw: i32) -> Code {
    Code::try_from(raw).unwrap_or(Code::RD_KAFKA_RESP_ERR_UNKNOWN)
}

/// Converts a time-out; librdkafka reads negative values as "for ever", so none becomes negative.
fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}
