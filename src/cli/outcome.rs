//! How a command ends when it does not succeed, and how text gets out.

use std::fmt;
use std::io::{self, Write};

use super::ExitCode;
use crate::config::ConfigErrors;
use crate::runtime::error_chain;

/// Why the process ends, and with which code.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) code: ExitCode,
    pub(super) message: String,
}

impl Exit {
    pub(super) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// Ends with an error and all its causes.
    pub(super) fn because(code: ExitCode, error: &dyn std::error::Error) -> Self {
        Self::new(code, error_chain(error))
    }
}

impl From<ConfigErrors> for Exit {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(ExitCode::Config, errors.to_string())
    }
}

/// Writes to standard output. Whoever closed it wanted no more.
pub(super) fn print(text: impl fmt::Display) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

/// Writes to standard error.
pub(super) fn complain(text: impl fmt::Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}
