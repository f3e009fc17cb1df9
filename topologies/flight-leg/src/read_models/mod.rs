//! The read models beside the [`Document`](crate::Document): each a projection of it or of the steps, a
//! store served over HTTP, and a compacted topic.
//!
//! # Invariants
//! - All of them are functions of history, whatever the order in which legs come: after a reset they are
//!   what they were.
//! - What counts over legs is a grouped projection: a leg that changes is taken out of where it counted
//!   and added where it counts now. A window that was closed by stream time could not take a correction
//!   back, and a rebuild brings the legs in another order than their hours.

pub(crate) mod analytics;
pub(crate) mod audit;
pub(crate) mod dashboard;
pub(crate) mod stands;
