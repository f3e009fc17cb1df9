//! The command line's grammar.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::ExitCode;
use crate::config::LogKind;
use crate::event_sourcing::{Point, parse_timestamp};

/// Runs stream topologies, exactly once.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "millstream", version, disable_help_subcommand = true, after_help = exit_codes())]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Run a deployment until SIGTERM or SIGINT
    Run(Deployment),
    /// Check a configuration and its topology; change nothing
    Validate(Deployment),
    /// Show a deployment's topology
    Describe(Describe),
    /// Compare a deployment's topology with the one that runs; change nothing
    Plan(Plan),
    /// List the topologies in this program
    Topologies,
    /// Rebuild derived state: read rewindable topics again from the beginning
    Reset(Reset),
    /// Ask the running daemon for an aggregate: as it is, as it was, and how it came about
    Inspect(Inspect),
    /// Ask the running daemon for events: of one aggregate, or of all in a period
    Events(Events),
    /// Ask the running daemon whether what it derives from events is what the events add up to
    Verify(Verify),
    /// Ask the running daemon how far its projections are
    Projections(Projections),
    /// Have the running daemon build a projection anew from history, beside the rows that serve
    RebuildProjection(RebuildProjection),
    /// Fill a deployment's input topics from a file
    Feed(Feed),
    /// Write records once more: of a topic, an aggregate or a file, into a topic, a cluster or a file
    Replay(Replay),
    /// Empty what a sink has written and fill it again from its topics' start; daemons may run
    RebuildSink(RebuildSink),
    /// Archive the events of a deployment up to now; list, show or check its archive
    Archive(Archive),
}

/// The daemon that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Asked {
    /// The configuration file of the daemon: it is asked at `http.listen`. With `--url` it may be left
    /// out
    #[arg(value_name = "CONFIG", required = true)]
    pub config: Option<PathBuf>,

    /// Override a key of the configuration, as for `run`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,

    /// Ask at this address instead, such as http://node-2:8080; the configuration is not read then
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// Show the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Inspect {
    /// Whom to ask.
    #[command(flatten)]
    pub asked: Asked,

    /// The aggregate's type, such as Account
    #[arg(value_name = "TYPE")]
    pub aggregate_type: String,

    /// The aggregate's id
    #[arg(value_name = "ID")]
    pub aggregate_id: String,

    /// Its state at a time, such as 2025-07-04T10:15:00Z
    #[arg(long, value_name = "TIME", value_parser = time, group = "view")]
    pub at: Option<String>,

    /// Its state after the event with this version, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), group = "view")]
    pub version: Option<u64>,

    /// All its events: when, what, who, what changed
    #[arg(long, group = "view")]
    pub timeline: bool,

    /// What has changed between two points, each a version or a time
    #[arg(long, value_names = ["FROM", "TO"], num_args = 2, value_parser = point, group = "view")]
    pub diff: Option<Vec<String>>,
}

/// Arguments of `events`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Events {
    /// Whom to ask.
    #[command(flatten)]
    pub asked: Asked,

    /// Of the aggregates of this type only, or of one; all types unless given
    #[arg(long, value_names = ["TYPE", "ID"], num_args = 1..=2)]
    pub aggregate: Option<Vec<String>>,

    /// From this time on, such as 2025-07-04T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<String>,

    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<String>,

    /// Of this event type only
    #[arg(long = "type", value_name = "EVENT_TYPE")]
    pub event_type: Option<String>,

    /// Of this actor only (`metadata.actorId`)
    #[arg(long, value_name = "ACTOR")]
    pub actor: Option<String>,

    /// At most so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Arguments of `projections`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Projections {
    /// Whom to ask.
    #[command(flatten)]
    pub asked: Asked,
}

/// Arguments of `rebuild-projection`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RebuildProjection {
    /// Whom to ask.
    #[command(flatten)]
    pub asked: Asked,

    /// The projection's name, as `projections` shows it
    #[arg(value_name = "PROJECTION")]
    pub projection: String,
}

/// Arguments of `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Verify {
    /// Whom to ask.
    #[command(flatten)]
    pub asked: Asked,

    /// The aggregates' type; all, and their projections, unless given
    #[arg(value_name = "TYPE")]
    pub aggregate_type: Option<String>,

    /// Be content with the partitions that this process serves; otherwise a part that was not compared is
    /// exit code 3
    #[arg(long)]
    pub partial: bool,
}

/// Checks a time, which is passed on as it is.
fn time(text: &str) -> Result<String, String> {
    let checked = parse_timestamp(text).map(|_| text.to_owned());
    checked.map_err(|error| error.to_string())
}

/// Checks a version or a time.
fn point(text: &str) -> Result<String, String> {
    let checked = text.parse::<Point>().map(|_| text.to_owned());
    checked.map_err(|error| error.to_string())
}

/// A configuration, what overrides it, and the log it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Deployment {
    /// The configuration file
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,

    /// Override a key of the configuration; dots nest, quotes keep dots:
    /// 'topics."a.b".name=x'
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,

    /// Use the log inside this process instead of Kafka: in memory, or kept in DIR
    // `require_equals`: or `--embedded CONFIG` would take the configuration for the directory.
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub embedded: Option<Option<PathBuf>>,
}

/// Where the records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogChoice {
    /// A Kafka cluster.
    Kafka,
    /// The embedded log, gone with the process.
    EmbeddedInMemory,
    /// The embedded log, kept in a directory.
    EmbeddedIn(PathBuf),
}

impl Deployment {
    /// Returns where the records are.
    #[must_use]
    pub fn log(&self) -> LogChoice {
        match &self.embedded {
            None => LogChoice::Kafka,
            Some(None) => LogChoice::EmbeddedInMemory,
            Some(Some(directory)) => LogChoice::EmbeddedIn(directory.clone()),
        }
    }

    /// Returns what the configuration has to say about the log.
    #[must_use]
    pub fn log_kind(&self) -> LogKind {
        match self.log() {
            LogChoice::Kafka => LogKind::Kafka,
            LogChoice::EmbeddedInMemory | LogChoice::EmbeddedIn(_) => LogKind::Embedded,
        }
    }
}

/// Arguments of `describe`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Describe {
    /// What to describe.
    #[command(flatten)]
    pub deployment: Deployment,

    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How a topology is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As Kafka Streams' `TopologyDescription`.
    Text,
    /// As a Mermaid flow chart.
    Mermaid,
    /// As JSON.
    Json,
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Mermaid, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Text => "text",
            Self::Mermaid => "mermaid",
            Self::Json => "json",
        }))
    }
}

/// Arguments of `plan`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Plan {
    /// What is planned.
    #[command(flatten)]
    pub deployment: Deployment,

    /// Show the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `reset`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Reset {
    /// What to reset.
    #[command(flatten)]
    pub deployment: Deployment,

    /// Go to the earliest offsets (the default, and the only place to go so far)
    #[arg(long)]
    pub to_earliest: bool,

    /// Show the plan and change nothing (the default)
    #[arg(long, conflicts_with = "execute")]
    pub dry_run: bool,

    /// Carry the plan out
    #[arg(long)]
    pub execute: bool,
}

/// Arguments of `feed`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Feed {
    /// What is fed; one that the deployment's topology has
    pub name: String,

    /// The file
    pub file: PathBuf,

    /// The deployment whose topics are filled
    #[arg(long, value_name = "CONFIG")]
    pub config: PathBuf,

    /// Override a key of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,

    /// Fill the embedded log in DIR, which no process may use at the time, instead of Kafka
    #[arg(long, value_name = "DIR", require_equals = true)]
    pub embedded: Option<PathBuf>,

    /// How many times faster than they took place records are written, or `max`: as fast as it goes
    #[arg(long, value_name = "N|max", default_value = "max")]
    pub speed: Speed,

    /// Leave times as they are in the file, instead of moving them up to now
    #[arg(long)]
    pub keep_times: bool,

    /// Move times by N days, instead of up to now: by as many as a run that was interrupted, whose
    /// messages are then the same
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "keep_times",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(-SHIFT_DAYS_MAX..=SHIFT_DAYS_MAX)
    )]
    pub shift_days: Option<i64>,
}

/// How far times of a feed can be moved; more has no date.
const SHIFT_DAYS_MAX: i64 = 1_000_000;

impl Feed {
    /// Returns the deployment.
    #[must_use]
    pub fn deployment(&self) -> Deployment {
        Deployment {
            config: self.config.clone(),
            sets: self.sets.clone(),
            embedded: self.embedded.clone().map(Some),
        }
    }
}

/// How fast a feed goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// As fast as the log takes it.
    Max,
    /// So many times faster than it took place.
    Times(f64),
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse() {
            Ok(times) if times > 0.0 && f64::is_finite(times) => Ok(Self::Times(times)),
            _ => Err("a positive number, or `max`".to_owned()),
        }
    }
}

/// Arguments of `rebuild-sink`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RebuildSink {
    /// Whose sink.
    #[command(flatten)]
    pub deployment: Deployment,

    /// The sink, by its name under `sinks` in the configuration
    #[arg(value_name = "NAME")]
    pub sink: String,

    /// Rebuild from what the topics still hold, even where they no longer start at offset 0
    #[arg(long)]
    pub partial: bool,
}

/// Arguments of `replay`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group(ArgGroup::new("source").required(true)))]
#[command(group(ArgGroup::new("target").required(true)))]
pub struct Replay {
    /// Where the records are: its log, and its archive for what has left the log.
    #[command(flatten)]
    pub deployment: Deployment,

    /// The records of this topic
    #[arg(long, value_name = "TOPIC", group = "source")]
    pub topic: Option<String>,

    /// The events of an aggregate
    #[arg(long, value_names = ["TYPE", "ID"], num_args = 2, group = "source")]
    pub aggregate: Option<Vec<String>>,

    /// The rows of a projection, as they are; with `--to`, as the events before that time make them
    #[arg(long, value_name = "NAME", group = "source", conflicts_with_all = ["from", "partitions"])]
    pub projection: Option<String>,

    /// Make the rows anew from history
    #[arg(long, requires = "projection")]
    pub anew: bool,

    /// The records of a file that `--to-file` has written
    #[arg(long, value_name = "FILE", group = "source", conflicts_with_all = ["from", "to", "partitions"])]
    pub from_file: Option<PathBuf>,

    /// From this time on, such as 2025-07-04T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<String>,

    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<String>,

    /// Of this partition only; may be repeated
    #[arg(long = "partition", value_name = "N", conflicts_with = "aggregate")]
    pub partitions: Vec<i32>,

    /// Write into this topic, which must be there
    #[arg(long, value_name = "TOPIC", group = "target")]
    pub into: Option<String>,

    /// Write into this file, which must not be there
    #[arg(long, value_name = "FILE", group = "target")]
    pub to_file: Option<PathBuf>,

    /// The topic is in the cluster of these brokers, instead of the source's
    #[arg(long, value_name = "HOST:PORT,…", requires = "into")]
    pub to_brokers: Option<String>,

    /// A client property for that cluster, such as security.protocol=SSL
    #[arg(long = "to-property", value_name = "KEY=VALUE", value_parser = property, requires = "to_brokers")]
    pub to_properties: Vec<(String, String)>,

    /// The topic is in the embedded log kept in DIR, instead of the source's
    #[arg(
        long,
        value_name = "DIR",
        requires = "into",
        conflicts_with = "to_brokers"
    )]
    pub to_embedded: Option<PathBuf>,

    /// The replay's name: under the same one it goes on where it was, and ends once. Default
    /// `<application_id>-replay-<TOPIC>`
    #[arg(long, value_name = "NAME", requires = "into")]
    pub name: Option<String>,

    /// Say what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn property(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = parts.ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Arguments of `archive`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Archive {
    /// What is archived.
    #[command(flatten)]
    pub deployment: Deployment,

    /// Read every file of the archive again and check it, instead of archiving
    #[arg(long, group = "view")]
    pub verify: bool,

    /// List the ranges that the archive holds, instead of archiving: offsets and times
    #[arg(long, group = "view")]
    pub list: bool,

    /// Show the archive's records, instead of archiving: one JSON document a line
    #[arg(long, group = "view")]
    pub events: bool,

    /// With `--list` and `--events`: of this topic only
    #[arg(long, value_name = "TOPIC", requires = "view")]
    pub topic: Option<String>,

    /// Of this partition only
    #[arg(long, value_name = "N", requires = "view")]
    pub partition: Option<i32>,

    /// Of this key only, such as an aggregate's id
    #[arg(long, value_name = "KEY", requires = "events")]
    pub key: Option<String>,

    /// From this time on, such as 2025-07-04T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time, requires = "view")]
    pub from: Option<String>,

    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time, requires = "view")]
    pub to: Option<String>,
}

impl Archive {
    /// Returns whether it archives: neither lists, shows nor checks.
    fn writes(&self) -> bool {
        !self.verify && !self.list && !self.events
    }
}

impl Arguments {
    /// Parses a command line, the program's name first.
    ///
    /// # Errors
    /// A wrong command line, and also `--help` and `--version`: print the error, and end with
    /// [`exit_code_of`].
    pub fn parse_from_line<I, T>(line: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let line: Vec<std::ffi::OsString> = line.into_iter().map(Into::into).collect();
        let arguments = Self::try_parse_from(&line)
            .or_else(|error| Self::try_parse_without_config(&line).map_err(|_| error))?;
        let in_memory = |deployment: &Deployment| deployment.log() == LogChoice::EmbeddedInMemory;
        let message = match &arguments.command {
            Command::Reset(reset) if in_memory(&reset.deployment) => {
                "a log in memory has nothing to reset: write `--embedded=DIR`"
            }
            Command::Plan(plan) if in_memory(&plan.deployment) => {
                "a log in memory has recorded nothing to compare with: write `--embedded=DIR`"
            }
            Command::Archive(archive) if archive.writes() && in_memory(&archive.deployment) => {
                "a log in memory is gone with its process: write `--embedded=DIR`"
            }
            Command::Events(events) if events.ends_before_it_begins() => {
                "`--from` is after `--to`: no event is in between"
            }
            _ => return Ok(arguments),
        };
        Err(Self::command().error(ErrorKind::ArgumentConflict, message))
    }
}

/// The commands that ask a daemon.
const ASKING: [&str; 3] = ["inspect", "events", "verify"];

impl Arguments {
    /// Parses a line with `--url` and without CONFIG. The configuration is an option there that nobody
    /// sets: an optional place cannot stand before others.
    fn try_parse_without_config(line: &[std::ffi::OsString]) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        for asking in ASKING {
            command = command.mut_subcommand(asking, |asking| {
                let left_out = |config: clap::Arg| config.long("config").required(false).hide(true);
                asking
                    .mut_arg("config", left_out)
                    .mut_arg("url", |url| url.required(true))
            });
        }
        Self::from_arg_matches(&command.try_get_matches_from(line)?)
    }
}

impl Verify {
    /// Returns the type that is asked for. With `--url`, where CONFIG may be left out, the only place is
    /// a type unless there is such a file.
    pub(super) fn wanted_type(&self) -> Option<String> {
        let only = || {
            let config = self.asked.config.as_ref()?;
            let is_type = self.asked.url.is_some() && !config.exists();
            is_type.then(|| config.display().to_string())
        };
        self.aggregate_type.clone().or_else(only)
    }
}

impl Events {
    fn ends_before_it_begins(&self) -> bool {
        let time =
            |text: &Option<String>| text.as_deref().and_then(|text| parse_timestamp(text).ok());
        time(&self.from)
            .zip(time(&self.to))
            .is_some_and(|(from, to)| from > to)
    }
}

/// Returns the exit code for what [`Arguments::parse_from_line`] came back with.
#[must_use]
pub fn exit_code_of(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        ExitCode::Usage
    } else {
        ExitCode::Success
    }
}

fn exit_codes() -> String {
    let lines = ExitCode::ALL
        .iter()
        .map(|code| format!("  {:>2}  {}", code.code(), code.meaning()));
    format!("Exit codes:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("millstream").chain(line.split_whitespace());
        Arguments::parse_from_line(words).map(|arguments| arguments.command)
    }

    fn deployment(config: &str, sets: &[&str], embedded: Option<Option<&str>>) -> Deployment {
        Deployment {
            config: config.into(),
            sets: sets.iter().map(|&set| set.to_owned()).collect(),
            embedded: embedded.map(|directory| directory.map(PathBuf::from)),
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_directory_for_the_embedded_log_needs_an_equals_sign() {
        for (line, expected) in [
            ("run c.yaml", deployment("c.yaml", &[], None)),
            (
                "run c.yaml --embedded",
                deployment("c.yaml", &[], Some(None)),
            ),
            (
                "run --embedded c.yaml",
                deployment("c.yaml", &[], Some(None)),
            ),
            (
                "run --embedded=data c.yaml",
                deployment("c.yaml", &[], Some(Some("data"))),
            ),
            (
                "run c.yaml --embedded=data",
                deployment("c.yaml", &[], Some(Some("data"))),
            ),
        ] {
            assert_eq!(parse(line).ok(), Some(Command::Run(expected)), "{line}");
        }
        assert_eq!(deployment("c", &[], None).log(), LogChoice::Kafka);
        assert_eq!(
            deployment("c", &[], Some(None)).log(),
            LogChoice::EmbeddedInMemory
        );
        let kept = deployment("c", &[], Some(Some("data")));
        assert_eq!(kept.log(), LogChoice::EmbeddedIn("data".into()));
        assert_eq!(kept.log_kind(), LogKind::Embedded);
    }

    #[test]
    fn every_command_on_a_deployment_takes_sets_and_the_embedded_log() {
        let expected = deployment("c.yaml", &["threads=2", "a.b=c=d"], Some(Some("x")));
        let rest = "--set threads=2 c.yaml --embedded=x --set a.b=c=d";
        let parsed = |command: &str| parse(&format!("{command} {rest}")).expect(command);
        assert_eq!(parsed("run"), Command::Run(expected.clone()));
        assert_eq!(parsed("validate"), Command::Validate(expected.clone()));
        let describe = Describe {
            deployment: expected.clone(),
            format: Format::Text,
        };
        assert_eq!(parsed("describe"), Command::Describe(describe));
        let reset = Reset {
            deployment: expected,
            to_earliest: false,
            dry_run: false,
            execute: false,
        };
        assert_eq!(parsed("reset"), Command::Reset(reset));
        let plan = Plan {
            deployment: deployment("c.yaml", &["threads=2", "a.b=c=d"], Some(Some("x"))),
            json: false,
        };
        assert_eq!(parsed("plan"), Command::Plan(plan));
        assert_eq!(parse("topologies").ok(), Some(Command::Topologies));
    }

    #[test]
    fn describe_has_three_formats() {
        for (word, format) in [
            ("text", Format::Text),
            ("mermaid", Format::Mermaid),
            ("json", Format::Json),
        ] {
            let parsed = parse(&format!("describe c.yaml --format {word}")).expect(word);
            let deployment = deployment("c.yaml", &[], None);
            assert_eq!(parsed, Command::Describe(Describe { deployment, format }));
        }
        assert!(parse("describe c.yaml --format dot").is_err());
    }

    #[test]
    fn reset_executes_only_when_told_to() {
        let reset = |line: &str| match parse(line) {
            Ok(Command::Reset(reset)) => (reset.to_earliest, reset.dry_run, reset.execute),
            other => panic!("{other:?}"),
        };
        assert_eq!(reset("reset c.yaml"), (false, false, false));
        assert_eq!(
            reset("reset c.yaml --to-earliest --dry-run"),
            (true, true, false)
        );
        assert_eq!(reset("reset c.yaml --execute"), (false, false, true));
        assert!(parse("reset c.yaml --dry-run --execute").is_err());
    }

    #[test]
    fn inspect_shows_one_view_and_times_are_checked_before_anybody_is_asked() {
        let inspect = |line: &str| match parse(&format!("inspect c.yaml Account a-1 {line}")) {
            Ok(Command::Inspect(inspect)) => Ok(inspect),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        };
        let diff = inspect("--diff 3 2025-07-04T10:15:00Z --url http://h:1 --json").unwrap();
        let points = ["3", "2025-07-04T10:15:00Z"].map(str::to_owned);
        assert_eq!(diff.diff.as_deref(), Some(&points[..]));
        assert!(diff.asked.json && diff.asked.url.as_deref() == Some("http://h:1"));
        assert_eq!(inspect("--version 7").unwrap().version, Some(7));
        for wrong in [
            "--at yesterday",
            "--diff 3",
            "--diff 3 soon",
            "--version -1",
            "--version 1 --timeline",
            "--at 2025-07-04T10:15:00Z --version 1",
        ] {
            assert!(inspect(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn events_are_of_all_aggregates_of_a_type_or_of_one() {
        let events = |line: &str| match parse(&format!("events c.yaml {line}")) {
            Ok(Command::Events(events)) => events,
            other => panic!("{other:?}"),
        };
        assert_eq!(events("").aggregate, None);
        let one = events("--aggregate Account a-1 --type BalanceChanged --actor u");
        let account = ["Account", "a-1"].map(str::to_owned);
        assert_eq!(one.aggregate.as_deref(), Some(&account[..]));
        assert_eq!(one.event_type.as_deref(), Some("BalanceChanged"));
        assert!(parse("events c.yaml --from yesterday").is_err());
        assert!(parse("events c.yaml --aggregate").is_err());
    }

    #[test]
    fn a_feed_moves_times_by_so_many_days_or_leaves_them() {
        let days = |line: &str| match parse(line) {
            Ok(Command::Feed(feed)) => Some(feed.shift_days),
            _ => None,
        };
        let line = "feed flights f.csv --config c.yaml";
        assert_eq!(days(line), Some(None));
        assert_eq!(days(&format!("{line} --shift-days 12")), Some(Some(12)));
        assert_eq!(days(&format!("{line} --shift-days -3")), Some(Some(-3)));
        for wrong in ["x", "1.5", "9223372036854775807", "1 --keep-times"] {
            assert_eq!(days(&format!("{line} --shift-days {wrong}")), None);
        }
    }

    #[test]
    fn a_feed_goes_as_fast_as_it_can_or_so_many_times_faster() {
        let speed = |line: &str| match parse(line) {
            Ok(Command::Feed(feed)) => Some(feed.speed),
            _ => None,
        };
        let line = "feed flights f.csv --config c.yaml";
        assert_eq!(speed(line), Some(Speed::Max));
        assert_eq!(
            speed(&format!("{line} --speed 2.5")),
            Some(Speed::Times(2.5))
        );
        assert_eq!(speed(&format!("{line} --speed max")), Some(Speed::Max));
        for wrong in ["0", "-1", "fast", "inf", "NaN"] {
            assert_eq!(speed(&format!("{line} --speed={wrong}")), None, "{wrong}");
        }
        // A log in the memory of the feed would be gone with it.
        assert_eq!(speed(&format!("{line} --embedded")), None);
    }

    #[test]
    fn a_log_in_memory_cannot_be_reset_nor_compared_with() {
        let error = parse("plan c.yaml --embedded").expect_err("refused");
        assert!(error.to_string().contains("--embedded=DIR"), "{error}");
        let error = parse("reset c.yaml --embedded --execute").expect_err("refused");
        assert!(error.to_string().contains("--embedded=DIR"), "{error}");
        assert!(parse("reset c.yaml --embedded=data --execute").is_ok());
    }

    #[test]
    fn a_wrong_command_line_is_a_usage_error_and_help_is_not() {
        for line in [
            "",
            "fly",
            "run",
            "run a.yaml b.yaml",
            "run a.yaml --fast",
            "topologies --set a=b",
        ] {
            let error = parse(line).expect_err(line);
            // Without a command clap shows the help, on standard error.
            assert_eq!(exit_code_of(&error), ExitCode::Usage, "{line}");
        }
        for line in ["--help", "--version", "run --help"] {
            assert_eq!(
                exit_code_of(&parse(line).expect_err(line)),
                ExitCode::Success,
                "{line}"
            );
        }
    }

    #[test]
    fn the_help_lists_the_exit_codes() {
        let help = parse("--help").expect_err("help").to_string();
        for code in ExitCode::ALL {
            assert!(
                help.contains(&format!("{:>2}  {}", code.code(), code.meaning())),
                "{help}"
            );
        }
    }
}
