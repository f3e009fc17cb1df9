//! `millstream replay`: records of a topic, the events of an aggregate, or the rows of a projection, once
//! more: into another topic, another cluster or a file; and a file into a topic.
//!
//! # Position
//! Reads across archive and topic ([`PastReader`]); writes through the log seam. Runs beside daemons.
//! # Invariants
//! - Into a topic, exactly once: each batch is one transaction with the [position](position::Position)
//!   that follows it. A replay that was killed goes on there, and one that has ended writes nothing more,
//!   under the same name.
//!   Rows of a projection are a table: of one that was killed, some may be there twice, by their keys.
//! - What is replayed is fixed when it begins: up to the ends that partitions have then.
//! - Key, value, headers and timestamp are the record's. The partition is, too, where source and target
//!   have equally many; otherwise the key decides, as for a Kafka producer.
//! - A file is there whole, or not at all.
//! # Failure
//! A range that neither archive nor topic holds, a record or a line that does not read, another replay
//! under the same name: refused by name.

mod file;
mod into_topic;
mod position;
mod projection;
mod source;

use std::ops::ControlFlow;

use self::position::{Position, Request};
use self::projection::ProjectionSource;
use self::source::{FileSource, Source, TopicSource};
use super::load::{Loaded, load};
use super::outcome::{Exit, print};
use super::sinks::{of_log, runtime};
use super::{ExitCode, LogChoice, Replay, log_choice};
use crate::log::kafka::KafkaLog;
use crate::log::{Log, LogError};
use crate::packaged::PackagedTopology;
use crate::sink::{SinkRecord, SinkTopic};

pub(super) fn replay(arguments: &Replay, topologies: &[&dyn PackagedTopology]) -> Result<(), Exit> {
    let loaded = load(&arguments.deployment, topologies)?;
    match arguments.deployment.log() {
        LogChoice::Kafka => from(&log_choice::kafka(&loaded.config)?, &loaded, arguments),
        LogChoice::EmbeddedIn(dir) => {
            let log = log_choice::in_directory(&dir, ExitCode::Refused)?;
            from(&log, &loaded, arguments)
        }
        LogChoice::EmbeddedInMemory => Err(Exit::new(
            ExitCode::Usage,
            "error: a log in memory has nothing to replay: write `--embedded=DIR`",
        )),
    }
}

fn from<S: Log>(log: &S, loaded: &Loaded, arguments: &Replay) -> Result<(), Exit> {
    let runtime = runtime()?;
    let source: Box<dyn Source + '_> = match (&arguments.from_file, &arguments.projection) {
        (Some(file), _) => Box::new(FileSource::open(file)?),
        (None, Some(name)) => {
            let rows = ProjectionSource::open(log, &runtime, loaded, name, arguments)?;
            Box::new(rows)
        }
        (None, None) => Box::new(TopicSource::open(log, &runtime, loaded, arguments)?),
    };
    let source = &*source;
    if let Some(file) = &arguments.to_file {
        return file::write(source, file, arguments.dry_run);
    }
    let Some(into) = &arguments.into else {
        return Err(Exit::new(ExitCode::Usage, "error: say where to: `--into`"));
    };
    if let Some(brokers) = &arguments.to_brokers {
        let properties = arguments.to_properties.iter().cloned().collect();
        let target = KafkaLog::new(brokers, properties).map_err(|error| {
            Exit::new(ExitCode::Usage, format!("error: `--to-property`: {error}"))
        })?;
        return into_topic(source, &target, into, loaded, arguments);
    }
    if let Some(dir) = &arguments.to_embedded {
        let target = log_choice::in_directory(dir, ExitCode::Refused)?;
        return into_topic(source, &target, into, loaded, arguments);
    }
    if source.topic() == Some(into) {
        let message = format!(
            "error: `{into}` would be replayed into itself: every record of it would be there twice"
        );
        return Err(Exit::new(ExitCode::Usage, message));
    }
    into_topic(source, log, into, loaded, arguments)
}

fn into_topic<T: Log>(
    source: &dyn Source,
    log: &T,
    into: &str,
    loaded: &Loaded,
    arguments: &Replay,
) -> Result<(), Exit> {
    let target = find(log, into)?;
    let application = &loaded.config.application_id;
    let name = arguments.name.clone();
    let name = name.unwrap_or_else(|| format!("{application}-replay-{into}"));
    let request = Request::of(&source.describe());
    let starting = Position::starting(source.spans()?);
    starting.check_size()?;
    let same = source.keeps_partitions() && source.partitions() == target.partitions;
    print(format_args!(
        "{} into {into} ({} partitions): {}",
        source.describe(),
        target.partitions,
        if same {
            "partitions are kept"
        } else {
            "the key decides the partition"
        }
    ));
    if arguments.dry_run {
        let begun = Position::stored(log, &name, &target, &request)?;
        let position = begun.unwrap_or(starting);
        if position.replayed > 0 {
            print(goes_on(&name, &position));
        }
        let mut records: u64 = 0;
        source.read(&position, &mut |_, _, _| {
            records += 1;
            ControlFlow::Continue(())
        })?;
        print(format_args!("would write {records} records"));
        return Ok(());
    }
    let written = into_topic::write(source, log, &target, &name, &request, starting)?;
    print(format_args!("written: {written} records"));
    Ok(())
}

fn goes_on(name: &str, position: &Position) -> String {
    format!("`{name}` goes on after {} records", position.replayed)
}

/// Finds a topic of a log.
fn find<L: Log>(log: &L, name: &str) -> Result<SinkTopic, Exit> {
    let found = log
        .describe_topics(&[name])
        .map_err(|error| of_log(&error))?;
    let found = found.into_iter().flatten().next().ok_or_else(|| {
        let topic = name.to_owned();
        Exit::because(ExitCode::Failure, &LogError::UnknownTopic { topic })
    })?;
    Ok(SinkTopic {
        declared: name.to_owned(),
        name: found.name,
        partitions: found.partitions,
        id: found.id,
    })
}

/// Gets the partition that a record was in, the record, and what follows it there.
type Each<'a> = dyn FnMut(i32, SinkRecord, i64) -> ControlFlow<()> + 'a;
