//! The command line: `run`, `validate`, `describe`, `topologies`, `reset`.
//!
//! # Position
//! The outermost layer: parses arguments, reads the configuration, calls the framework, prints, and
//! turns what happened into an exit code.

mod args;
mod exit_code;

pub use args::{Arguments, Command, Deployment, Describe, Format, LogChoice, Reset, exit_code_of};
pub use exit_code::ExitCode;
