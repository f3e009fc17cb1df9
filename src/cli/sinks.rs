//! `millstream rebuild-sink` and `millstream archive`: what is done to a sink beside the daemons.

use tokio::runtime::{Builder, Runtime};

use super::load::{Loaded, load};
use super::outcome::{Exit, print};
use super::{Archive, ExitCode, LogChoice, RebuildSink, archive, log_choice};
use crate::format::names::sink_group;
use crate::log::{Isolation, Log, LogError, TopicName, TopicPartition};
use crate::packaged::PackagedTopology;
use crate::sink::{
    CatchUpError, ConfiguredSink, SinkContext, SinkError, SinkTopic, catch_up, resolve_topics,
};
use crate::topology::DeclaredTopic;

/// What an archive calls its kind.
const ARCHIVE: &str = "archive";

/// Rebuilds a sink from the start of its topics.
pub(super) fn rebuild(
    arguments: &RebuildSink,
    topologies: &[&dyn PackagedTopology],
) -> Result<(), Exit> {
    let loaded = load(&arguments.deployment, topologies)?;
    let Some(sink) = loaded.sinks.iter().find(|sink| sink.name == arguments.sink) else {
        let known: Vec<&str> = loaded.sinks.iter().map(|sink| sink.name.as_str()).collect();
        let message = format!(
            "error: the configuration turns on no sink `{}`; it has: {}",
            arguments.sink,
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        );
        return Err(Exit::new(ExitCode::Usage, message));
    };
    match arguments.deployment.log() {
        LogChoice::Kafka if !arguments.partial => {
            refuse_partial(&log_choice::kafka(&loaded.config)?, &loaded, sink)?;
        }
        LogChoice::Kafka => {}
        // Not checked: its directory belongs to the daemon while that runs. What is written from
        // then on begins where the topics do now, and nobody says what came before.
        LogChoice::EmbeddedInMemory | LogChoice::EmbeddedIn(_) => {}
    }
    let context = SinkContext {
        group: sink_group(&loaded.config.application_id, &sink.name),
        topics: Vec::new(),
    };
    let runtime = runtime()?;
    let done = runtime
        .block_on(sink.sink.rebuild(&context))
        .map_err(|error| of_target(&sink.name, &error))?;
    print(done);
    Ok(())
}

/// A table that is filled from a topic whose start has expired would lack rows, and nobody would know.
fn refuse_partial<L: Log>(log: &L, loaded: &Loaded, sink: &ConfiguredSink) -> Result<(), Exit> {
    let declared = loaded.topology.declared_topics();
    for topic in topics_of(log, loaded, sink)? {
        let config = declared.iter().find(|known| known.name == topic.declared);
        if config.is_some_and(is_compacted) {
            continue;
        }
        let partitions: Vec<TopicPartition> = (0..topic.partitions)
            .map(|partition| TopicPartition::new(TopicName::clone(&topic.name), partition))
            .collect();
        let ranges = log
            .log_ranges(&partitions, Isolation::ReadCommitted)
            .map_err(|error| of_log(&error))?;
        for (partition, range) in partitions.iter().zip(ranges) {
            if range.start > 0 {
                let message = format!(
                    "rebuild of sink `{}` refused: {partition} no longer starts at offset 0 but at \
                     {}, so what was written from the records before would be lost; `--partial` \
                     rebuilds from what is left",
                    sink.name, range.start
                );
                return Err(Exit::new(ExitCode::Refused, message));
            }
        }
    }
    Ok(())
}

fn is_compacted(topic: &DeclaredTopic) -> bool {
    let policy = topic.config.get("cleanup.policy");
    policy.is_some_and(|policy| policy == "compact")
}

/// Archives up to the log's present end, or checks what was archived.
pub(super) fn archive(
    arguments: &Archive,
    topologies: &[&dyn PackagedTopology],
) -> Result<(), Exit> {
    let loaded = load(&arguments.deployment, topologies)?;
    let archives = loaded.sinks.iter();
    let archives: Vec<&ConfiguredSink> = archives
        .filter(|sink| sink.sink.kind() == ARCHIVE)
        .collect();
    if archives.is_empty() {
        let message = "error: the configuration turns on no archive (`sinks`)";
        return Err(Exit::new(ExitCode::Usage, message));
    }
    for sink in archives {
        if arguments.list || arguments.events {
            archive::show(arguments, &loaded, sink, &runtime()?)?;
            continue;
        }
        if arguments.verify {
            verify(&loaded, sink)?;
            continue;
        }
        match arguments.deployment.log() {
            LogChoice::Kafka => archive_on(&log_choice::kafka(&loaded.config)?, &loaded, sink)?,
            LogChoice::EmbeddedIn(dir) => {
                let log = log_choice::in_directory(&dir, ExitCode::Refused)?;
                archive_on(&log, &loaded, sink)?;
            }
            LogChoice::EmbeddedInMemory => {
                return Err(Exit::new(
                    ExitCode::Usage,
                    "a log in memory has nothing to archive",
                ));
            }
        }
    }
    Ok(())
}

fn verify(loaded: &Loaded, sink: &ConfiguredSink) -> Result<(), Exit> {
    let topics = sink.sink.topics().into_iter();
    let context = SinkContext {
        group: sink_group(&loaded.config.application_id, &sink.name),
        topics: topics
            .map(|declared| SinkTopic {
                name: loaded.config.topic_name(&declared).into(),
                declared,
                partitions: 0,
                id: [0; 16],
            })
            .collect(),
    };
    let found = runtime()?
        .block_on(sink.sink.verify(&context))
        .map_err(|error| of_target(&sink.name, &error))?;
    print(found);
    Ok(())
}

fn archive_on<L: Log>(log: &L, loaded: &Loaded, sink: &ConfiguredSink) -> Result<(), Exit> {
    let context = SinkContext {
        group: sink_group(&loaded.config.application_id, &sink.name),
        topics: topics_of(log, loaded, sink)?,
    };
    let runtime = runtime()?;
    let done = catch_up(log, runtime.handle(), sink, &context).map_err(|error| match error {
        CatchUpError::Log(error) => of_log(&error),
        CatchUpError::Target { sink, source } => of_target(&sink, &source),
    })?;
    print(format_args!(
        "{}: {} records in {} files",
        sink.name, done.records, done.rows
    ));
    Ok(())
}

fn topics_of<L: Log>(
    log: &L,
    loaded: &Loaded,
    sink: &ConfiguredSink,
) -> Result<Vec<SinkTopic>, Exit> {
    let name_of = |declared: &str| loaded.config.topic_name(declared).to_owned();
    resolve_topics(log, sink, name_of).map_err(|error| of_log(&error))
}

pub(super) fn of_log(error: &LogError) -> Exit {
    let code = if error.is_retriable() {
        ExitCode::Unavailable
    } else {
        ExitCode::Failure
    };
    Exit::because(code, error)
}

pub(super) fn of_target(sink: &str, error: &SinkError) -> Exit {
    let code = match error {
        SinkError::Unavailable { .. } => ExitCode::Unavailable,
        _ => ExitCode::Failure,
    };
    Exit::new(code, format!("error: sink `{sink}`: {error}"))
}

pub(super) fn runtime() -> Result<Runtime, Exit> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Exit::because(ExitCode::Failure, &error))
}
