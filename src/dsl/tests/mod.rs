//! Chains driven directly, as the runtime does: no log, stores in memory. Windows and timestamps: on the
//! driver.

mod aggregations;
mod describe;
mod harness;
mod joins;
mod mistakes;
mod operators;
mod processors;
mod stream_joins;
mod tables;
mod timestamps;
mod versions;
mod windows;
