//! millstream: Kafka Streams for Rust, and a step beyond it.
//!
//! A typed topology DSL (consumer → processors → RocksDB state with changelogs → exactly-once
//! producers), a runtime that commits outputs, changelogs and input offsets together, and a daemon
//! that runs packaged topologies from config files.

pub mod cli;
pub mod clock;
pub mod config;
pub mod dsl;
pub mod event_sourcing;
pub mod format;
pub mod http;
pub mod log;
pub mod metrics;
pub mod packaged;
pub mod plan;
pub mod prelude;
pub mod processor;
pub mod query;
pub mod reset;
pub mod runtime;
pub mod serde;
pub mod sink;
pub mod state;
pub mod testing;
pub mod topology;
pub mod window;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
