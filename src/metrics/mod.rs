//! Metrics: what an operator sees of a process, in Prometheus' terms.
//!
//! # Position
//! One [`Metrics`] per process, made at start and handed to the runtime, the stores and the HTTP
//! server. Threads and tasks resolve their series once ([`ThreadMetrics`], [`TaskMetrics`]).
//! # Invariants
//! - Names, types and labels come from one table; `docs/metrics.md` is written from it.
//! - Labels are bounded by topology and process; a task's series go when it leaves.
//! - Nothing on the hot path looks up a label.
//! # Failure
//! None: a metric never fails the work that it counts.

mod handles;
mod labels;
mod names;
mod reference;
mod registry;

#[cfg(test)]
mod tests;

pub use handles::{
    EventSourcingMetrics, LatencyRecorder, ProcessMetrics, ProjectionMetrics, SinkMetrics,
    SinkThreadMetrics, SourceMetrics, StoreMetrics, TaskMetrics, ThreadMetrics,
};
pub use labels::{CommandOutcome, MemoryUser, SetAsideReason, TaskState};
pub use prometheus::{Histogram, IntCounter as Counter, IntGauge as Gauge};
pub use reference::reference_page;
pub use registry::Metrics;
