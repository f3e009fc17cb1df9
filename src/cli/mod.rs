//! The command line: `run`, `validate`, `describe`, `plan`, `topologies`, `reset`, `inspect`, `events`,
//! `verify`, `feed`, `rebuild-sink`, `archive`.
//!
//! # Position
//! The outermost layer: parses arguments, reads the configuration, calls the framework, prints, and
//! turns what happened into an exit code. A binary registers its topologies in three lines:
//!
//! ```no_run
//! # use millstream::packaged::PackagedTopology;
//! # fn topologies() -> [&'static dyn PackagedTopology; 0] { [] }
//! fn main() -> std::process::ExitCode {
//!     millstream::cli::main(&topologies())
//! }
//! ```
//! # Failure
//! Standard output is what was asked for; everything else goes to standard error. [`ExitCode`] says
//! how it ended.

mod archive;
mod args;
mod ask;
mod events;
mod exit_code;
mod feed;
mod inspect;
mod load;
mod log_choice;
mod outcome;
mod period;
mod plan;
mod projections;
mod replay;
mod reset;
mod retention;
mod run;
mod signals;
mod sinks;
mod verify;

pub use args::{
    Archive, Arguments, Asked, Command, Deployment, Describe, Events, Feed, Format, Inspect,
    LogChoice, Plan, Projections, RebuildProjection, RebuildSink, Replay, Reset, Speed, Verify,
    exit_code_of,
};
pub use exit_code::ExitCode;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use self::load::load;
use self::outcome::{Exit, complain, print};
use crate::packaged::PackagedTopology;

/// Does what the command line says with the topologies of this program.
#[must_use]
pub fn main(topologies: &[&dyn PackagedTopology]) -> std::process::ExitCode {
    let arguments = match Arguments::parse_from_line(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            // To standard error, or to standard output for `--help`; in colour where that is wanted.
            drop(error.print());
            return exit_code_of(&error).into();
        }
    };
    match execute(&arguments.command, topologies) {
        Ok(()) => ExitCode::Success.into(),
        Err(Exit { code, message }) => {
            complain(message);
            code.into()
        }
    }
}

fn execute(command: &Command, topologies: &[&dyn PackagedTopology]) -> Result<(), Exit> {
    match command {
        Command::Run(deployment) => {
            let loaded = load(deployment, topologies)?;
            log_to_stderr("info")?;
            run::run(deployment, loaded)
        }
        Command::Validate(deployment) => {
            load(deployment, topologies)?;
            print(format_args!("{} is valid", deployment.config.display()));
            Ok(())
        }
        Command::Describe(describe) => {
            let loaded = load(&describe.deployment, topologies)?;
            let description = loaded.topology.describe();
            match describe.format {
                Format::Text => print(description.to_string().trim_end()),
                Format::Mermaid => print(description.to_mermaid().trim_end()),
                Format::Json => print(description.to_json()),
            }
            Ok(())
        }
        Command::Plan(arguments) => {
            log_to_stderr("warn")?;
            plan::plan(arguments, topologies)
        }
        Command::Topologies => {
            let width = topologies
                .iter()
                .map(|topology| topology.name().len())
                .max()
                .unwrap_or(0);
            for topology in topologies {
                print(format_args!(
                    "{:width$}  {}",
                    topology.name(),
                    topology.about()
                ));
            }
            Ok(())
        }
        Command::Reset(arguments) => {
            log_to_stderr("warn")?;
            reset::reset(arguments, topologies)
        }
        Command::Inspect(arguments) => inspect::inspect(arguments),
        Command::Events(arguments) => events::events(arguments),
        Command::Verify(arguments) => verify::verify(arguments),
        Command::Projections(arguments) => projections::projections(arguments),
        Command::RebuildProjection(arguments) => projections::rebuild(arguments),
        Command::Feed(arguments) => {
            log_to_stderr("warn")?;
            feed::feed(arguments, topologies)
        }
        Command::Replay(arguments) => {
            log_to_stderr("warn")?;
            replay::replay(arguments, topologies)
        }
        Command::RebuildSink(arguments) => {
            log_to_stderr("warn")?;
            sinks::rebuild(arguments, topologies)
        }
        Command::Archive(arguments) => {
            log_to_stderr("warn")?;
            sinks::archive(arguments, topologies)
        }
    }
}

/// Sends the log to standard error; `RUST_LOG` filters it.
fn log_to_stderr(default: &str) -> Result<(), Exit> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(&filter).map_err(|error| {
            Exit::new(
                ExitCode::Config,
                format!("error: RUST_LOG `{filter}`: {error}"),
            )
        })?,
        Ok(_) | Err(_) => EnvFilter::new(default),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    subscriber.try_init().map_err(|error| {
        Exit::new(
            ExitCode::Bug,
            format!("error: logging is set up already: {error}"),
        )
    })
}
