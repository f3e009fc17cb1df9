//! Nodes that hold something back until the transaction ends.

use super::{ProcessError, TaskContext};

/// A node whose updates go downstream at the end of the transaction, before the stores are drained:
/// what downstream makes of them, outputs and writes alike, is part of the same transaction.
///
/// The task calls, as of a store, `release_savepoint` or `rollback_savepoint` after each record; and
/// when it commits, `emit_next` until nothing is left, nodes upstream first. After an abort the node
/// is dropped with all that it holds.
pub trait HoldsBack {
    /// The record's chain succeeded: what it changed here stays.
    fn release_savepoint(&mut self);
    /// The record's chain failed: what it changed here is undone.
    fn rollback_savepoint(&mut self);
    /// Hands one update downstream; returns `false` when there was none.
    ///
    /// # Errors
    /// Any error stops the task: there is no record in progress that a policy could meet.
    fn emit_next(&mut self, cx: &mut TaskContext) -> Result<bool, ProcessError>;
    /// Returns whether anything is held back.
    fn is_holding(&self) -> bool;
    /// Returns the bytes that are held, roughly.
    fn held_bytes(&self) -> usize;
}
