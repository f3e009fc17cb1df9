//! Plan: what a changed topology means for an application that runs.
//!
//! # Position
//! The first process with a topology [records](announce) its description in the log. `cli` asks
//! [`compare`] what the topology of a new binary or configuration changes, and prints it; a process
//! that starts with another topology than the recorded one logs the same.
//! # Invariants
//! - Planning changes nothing; [`compare`] is pure.
//! - A verdict is the strongest of its changes: what may be kept running beside the old version is
//!   *safe*, what changes who does what *needs a restart* of all processes together, and what makes
//!   derived state wrong, or the start refused, *needs a reset*.
//! # Failure
//! A description of a newer format is not guessed at, and never overwritten by an older program.
//! What a value's bytes mean is part of a description where values carry a version
//! ([`VersionedValue`](crate::serde::VersionedValue)); otherwise a changed value type is not seen here.

mod change;
mod compare;
mod record;
mod render;

#[cfg(test)]
mod tests;

pub use change::{TopologyChange, Verdict};
pub use compare::{TopologyPlan, compare};
pub use record::{RecordedError, announce, recorded, set_recorded};
