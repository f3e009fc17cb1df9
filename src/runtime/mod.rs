//! The runtime: tasks, commits, restore.

pub mod probe;
pub mod restore;
