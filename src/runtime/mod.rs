//! The runtime.

pub mod protocol;
