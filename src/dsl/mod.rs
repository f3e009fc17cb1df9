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
mod config;
mod flat_map;
mod group;
mod map;
mod merge;
mod operator;
mod peek;
mod process;
mod sink;
mod source;
mod stream;
mod suppress;
mod table;
mod window;

pub use builder::{StoreHandle, StoreKey, StreamsBuilder};
pub use config::{Consumed, Grouped, Materialized, Produced, Repartitioned, StoreBuilder};
pub use group::KGroupedStream;
pub use merge::BranchedKStream;
pub use process::{ProcessorSetup, Store, Stores};
pub use stream::KStream;
pub use suppress::{BufferBounds, BufferConfig, EagerBufferConfig, StrictBufferConfig, Suppressed};
pub use table::{Change, KTable};
pub use window::{
    EmitStrategy, SessionStoreHandle, SessionWindowedKStream, TimeWindowedKStream,
    WindowStoreHandle, WindowedBy,
};

#[cfg(test)]
mod tests;
