//! Opens the log that the command line chose.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::ExitCode;
use super::outcome::Exit;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::log::embedded::{EmbeddedLog, OpenError};
use crate::log::kafka::KafkaLog;

/// Creates the cluster's clients' factory; connects to nothing yet.
pub(super) fn kafka(config: &Config) -> Result<KafkaLog, Exit> {
    let servers = config
        .kafka
        .bootstrap_servers
        .as_deref()
        .unwrap_or_default();
    let properties: BTreeMap<String, String> = config
        .kafka
        .properties
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    KafkaLog::new(servers, properties).map_err(|error| {
        Exit::new(
            ExitCode::Config,
            format!("error: kafka.properties: {error}"),
        )
    })
}

pub(super) fn in_memory() -> EmbeddedLog {
    EmbeddedLog::in_memory(Arc::new(SystemClock))
}

/// `in_use` is the exit code when another process has the directory.
pub(super) fn in_directory(dir: &Path, in_use: ExitCode) -> Result<EmbeddedLog, Exit> {
    EmbeddedLog::open(dir, Arc::new(SystemClock)).map_err(|error| {
        let code = match &error {
            OpenError::InUse { .. } => in_use,
            OpenError::Io { .. } => ExitCode::StateDir,
            OpenError::Foreign { .. } | OpenError::Damaged { .. } => ExitCode::Failure,
        };
        Exit::because(code, &error)
    })
}
