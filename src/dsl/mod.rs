//! The typed topology DSL: Kafka Streams' operators under their names, in snake case.
//!
//! # Position
//! An author draws a topology with a [`StreamsBuilder`]; `build` checks it and returns a
//! [`Topology`](crate::topology::Topology) that `runtime` makes tasks of.
//! # Invariants
//! - Typed through and through: a chain is made of monomorphised operators with one dynamic call
//!   between two of them, from the sinks upwards.
//! - Whatever owns durable state takes a name from its author; counters name nodes only.
//! - Drawing never fails; `build` reports every mistake together.

mod assembly;
mod build;
mod builder;
mod change;
mod cogroup;
mod config;
mod custom_store;
mod emit_per_commit;
mod fixed_key;
mod flat_map;
mod foreign_key;
mod getter;
mod global;
mod grace_join;
mod group;
mod map;
mod merge;
mod nulls;
mod operator;
mod peek;
mod print;
mod process;
mod sink;
mod source;
mod source_changelog;
mod stream;
mod stream_join;
mod stream_table_join;
mod suppress;
mod table;
mod table_group;
mod table_join;
mod table_store;
mod timestamp;
mod versioned;
mod window;
mod with_headers;

pub use builder::{StoreHandle, StoreKey, StreamsBuilder};
pub use cogroup::CogroupedKStream;
pub use config::{
    Consumed, Grouped, Joined, Materialized, Produced, Repartitioned, SharedSerde, StoreBuilder,
    TableJoined,
};
pub use custom_store::{CustomStore, CustomStoreHandle, StoreContext};
pub use fixed_key::{FixedKeyProcessor, FixedKeyProcessorContext, FixedKeyRecord};
pub use global::GlobalKTable;
pub use group::KGroupedStream;
pub use merge::BranchedKStream;
pub use print::Printed;
pub use process::{ProcessorSetup, Store, Stores};
pub use source_changelog::ReadOnlyStoreHandle;
pub use stream::KStream;
pub use stream_join::{StreamJoined, StreamWithKey};
pub use suppress::{BufferBounds, BufferConfig, EagerBufferConfig, StrictBufferConfig, Suppressed};
pub use table::{Change, KTable};
pub use table_group::KGroupedTable;
pub use timestamp::{
    ConsumedRecord, FailOnInvalidTimestamp, LogAndSkipOnInvalidTimestamp, TimestampExtractor,
    UsePartitionTimeOnInvalidTimestamp, WallclockTimestampExtractor,
};
pub use versioned::VersionedStoreHandle;
pub use window::{
    EmitStrategy, SessionStoreHandle, SessionWindowedCogroupedKStream, SessionWindowedKStream,
    TimeWindowedCogroupedKStream, TimeWindowedKStream, WindowStoreHandle, WindowedBy,
};
pub use with_headers::WithHeaders;

#[cfg(test)]
mod tests;
