//! Every byte layout and every derived name: one home for each.
//!
//! # Position
//! Everything that names a topic, a file, a header or a client, or that turns a durable value into
//! bytes, calls this module. `docs/formats.md` describes the same layouts for other languages.
//! # Invariants
//! - Layouts are versioned or fixed by Kafka Streams; golden bytes in the tests pin them.
//! - Decoding never indexes, never panics and never trusts a length it has not checked.

pub(crate) mod bytes;
pub mod change;
pub mod checkpoint;
pub(crate) mod fields;
pub mod foreign_key;
pub mod grace_buffer;
pub mod join_buffer;
pub mod names;
pub mod offset_metadata;
pub mod partitioner;
pub mod record_line;
pub mod suppress_buffer;
pub mod topic_config;
pub mod value;
pub mod version_key;
pub mod window_key;
pub mod with_headers;

pub use bytes::DecodeError;
