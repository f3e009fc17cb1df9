//! What is particular to Kafka, on a real broker: latency, sizes, static identity, outages. What
//! every log must do is in the conformance suite.

mod apps;
mod membership;
mod outage;
mod positions;
mod refusals;
#[path = "../running/mod.rs"]
mod running;
mod support;
mod transactions;
