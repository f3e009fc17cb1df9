//! Reset: derived state and the positions of rewindable sources go back to the beginning.
//!
//! # Position
//! `cli` collects facts from the log and the topology, asks [`plan`] what to do, shows it, and with
//! `--execute` performs it.
//! # Invariants
//! - Only derived state goes; record stores keep their changelogs, and topics whose records have had
//!   their effects, of commands and of judged events, are never rewound (invariant 7).
//! - Every committed offset gets the next generation, so that local state is stale on every node,
//!   whichever of them took part.
//! # Failure
//! Nothing on Kafka makes deleting topics and committing offsets one step. Between the two the
//! offsets carry the mark [`PENDING_KEY`]: a process that finds it refuses to start until `reset`
//! has been run to its end. Running it again is always safe.

mod execute;
mod plan;
mod render;

#[cfg(test)]
mod tests;

pub use execute::{ResetError, collect_facts, execute};
pub use plan::{
    Deletion, DeletionReason, KeptStore, OffsetPlan, PartitionFacts, Position, Refusal,
    RepartitionFacts, ResetFacts, ResetPlan, ResetSteps, SourceFacts, StoreFacts, plan,
};

/// The key in the metadata of a committed offset that marks a reset which has begun and not ended;
/// its value is the generation that the reset will give.
pub const PENDING_KEY: &str = "millstream.reset.pending";
