//! Configuration: strict YAML, variables from the environment, `--set` from the command line.
//!
//! # Position
//! Read once at start, before anything else happens. The steps are pure functions on one raw tree
//! that remembers where each value was written: parse, apply `--set`, interpolate, check the
//! shape, read the values. The environment is passed in as a function and the file as text.
//! # Invariants
//! - Nothing is ignored: an unknown key, a duplicate, a wrong type or unit is an error.
//! - A [`Config`] is complete and within its bounds; no later code checks it again, save for the
//!   names that only the topology knows ([`Config::check_topics`], [`Parameters::read`]).
//! - All mistakes are reported together, each with its line, a caret and what to write instead.
//! # Failure
//! [`ConfigErrors`]; the process ends with exit code 78 (`EX_CONFIG`) before it has done anything.

mod diagnostic;
mod interpolate;
mod keys;
mod parameters;
mod read;
mod reference;
mod set;
mod suggest;
mod tree;
mod types;
mod units;
mod values;
mod yaml;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use diagnostic::{ConfigErrors, Diagnostic};
pub use parameters::Parameters;
pub use reference::reference_page;
pub use types::{
    CommitConfig, Config, HttpConfig, KafkaConfig, KafkaProperties, MemoryConfig, PatternConfig,
    ShutdownConfig, StateConfig, TaskConfig, TopicConfig, TopicDefaults,
};
pub use units::{DurationValue, SizeValue};

use diagnostic::Sources;

/// Which log the process will run on; decides what is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// A Kafka cluster: `kafka.bootstrap_servers` is required.
    Kafka,
    /// The embedded log.
    Embedded,
}

impl Config {
    /// Reads a configuration from the `text` of the file called `file`, the `--set` arguments and
    /// the environment.
    ///
    /// A value that a `--set` replaces is not interpolated, so it needs no variable.
    ///
    /// # Errors
    /// Every mistake of the file and the arguments.
    ///
    /// ```
    /// use millstream::config::{Config, LogKind};
    ///
    /// let text = "application_id: billing\ntopology: account\ncomit: {interval: 50ms}\n";
    /// let errors = Config::parse("account.yaml", text, &[], &|_| None, LogKind::Embedded)
    ///     .unwrap_err();
    /// assert_eq!(errors.to_string(), "\
    /// error: unknown key `comit`
    ///  --> account.yaml:3:1
    ///   |
    /// 3 | comit: {interval: 50ms}
    ///   | ^^^^^
    ///   = help: did you mean `commit`?");
    /// ```
    pub fn parse(
        file: &str,
        text: &str,
        sets: &[String],
        environment: &dyn Fn(&str) -> Option<String>,
        log: LogKind,
    ) -> Result<Self, ConfigErrors> {
        let sources = Arc::new(Sources {
            file: file.into(),
            text: text.into(),
            sets: sets.to_vec(),
        });
        let (mut root, mut diagnostics) = yaml::parse(text);
        let syntax = !diagnostics.is_empty() && root.entries().is_none_or(<[_]>::is_empty);
        if syntax {
            // Without a tree, every required key would be reported missing as well.
            return Err(ConfigErrors::new(sources, diagnostics));
        }
        set::apply(&mut root, sets, &mut diagnostics);
        interpolate::interpolate(&mut root, environment, &mut diagnostics);
        read::read(&root, log, sources, diagnostics)
    }
}
