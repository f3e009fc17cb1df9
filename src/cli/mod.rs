//! The command line: `run`, `validate`, `describe`, `topologies`, `reset`.
//!
//! # Position
//! The outermost layer: parses arguments, reads the configuration, calls the framework, prints, and
//! turns what happened into an exit code.

mod exit_code;

pub use exit_code::ExitCode;
