//! `millstream archive --list` and `--events`: what an archive holds, asked of the archive alone.

use std::ops::ControlFlow;

use tokio::runtime::Runtime;

use super::load::Loaded;
use super::outcome::{Exit, print};
use super::period::Period;
use super::sinks::of_target;
use super::{Archive, ExitCode};
use crate::clock::Timestamp;
use crate::event_sourcing::format_timestamp;
use crate::format::record_line::RecordLine;
use crate::log::{TopicName, TopicPartition};
use crate::sink::{ConfiguredSink, PastRange, PastRecords, SinkRecord};

/// What is wanted of the records.
struct Wanted<'a> {
    arguments: &'a Archive,
    period: Period,
}

impl<'a> Wanted<'a> {
    fn of(arguments: &'a Archive) -> Result<Self, Exit> {
        let period = Period::of(arguments.from.as_deref(), arguments.to.as_deref())?;
        Ok(Self { arguments, period })
    }

    fn may_be_in(&self, range: &PastRange) -> bool {
        let Period { from, to } = self.period;
        from.is_none_or(|from| range.max_timestamp >= from)
            && to.is_none_or(|to| range.min_timestamp < to)
    }

    fn has(&self, record: &SinkRecord) -> bool {
        let key = self.arguments.key.as_deref().map(str::as_bytes);
        key.is_none_or(|key| record.key.as_deref() == Some(key))
            && self.period.contains(record.timestamp)
    }
}

/// An archive, opened.
struct Opened<'a> {
    runtime: &'a Runtime,
    name: &'a str,
    past: &'a dyn PastRecords,
}

impl Opened<'_> {
    /// Calls `each` with the partitions that are archived of a topic, and their ranges.
    fn partitions(
        &self,
        topic: &str,
        mut each: impl FnMut(&TopicPartition, Vec<PastRange>) -> Result<ControlFlow<()>, Exit>,
    ) -> Result<(), Exit> {
        let failed = |error| of_target(self.name, &error);
        let topic: TopicName = topic.into();
        let numbers = self.runtime.block_on(self.past.partitions(&topic));
        for number in numbers.map_err(failed)? {
            let partition = TopicPartition::new(TopicName::clone(&topic), number);
            let ranges = self.runtime.block_on(self.past.ranges(&partition));
            if each(&partition, ranges.map_err(failed)?)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Lists the ranges, or shows the records, of an archive.
pub(super) fn show(
    arguments: &Archive,
    loaded: &Loaded,
    sink: &ConfiguredSink,
    runtime: &Runtime,
) -> Result<(), Exit> {
    let past = sink.sink.past().ok_or_else(|| {
        let message = format!("error: sink `{}` reads nothing back", sink.name);
        Exit::new(ExitCode::Bug, message)
    })?;
    let opened = Opened {
        runtime,
        name: &sink.name,
        past: &*past,
    };
    let wanted = Wanted::of(arguments)?;
    let declared = sink.sink.topics();
    let names = declared
        .iter()
        .map(|topic| loaded.config.topic_name(topic).to_owned());
    let named = |name: &String| arguments.topic.as_ref().is_none_or(|topic| topic == name);
    let topics: Vec<String> = names.filter(named).collect();
    if let (true, Some(topic)) = (topics.is_empty(), &arguments.topic) {
        let message = format!(
            "error: `{}` does not archive topic `{topic}`; it has: {}",
            sink.name,
            declared.join(", ")
        );
        return Err(Exit::new(ExitCode::Usage, message));
    }
    for topic in topics {
        opened.partitions(&topic, |partition, ranges| {
            if arguments
                .partition
                .is_some_and(|wanted| wanted != partition.partition)
            {
                return Ok(ControlFlow::Continue(()));
            }
            for range in ranges.iter().filter(|range| wanted.may_be_in(range)) {
                if arguments.list {
                    print(listed(partition, range));
                } else {
                    records(&opened, partition, *range, &wanted)?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

fn listed(partition: &TopicPartition, range: &PastRange) -> String {
    let time = |millis: Timestamp| format_timestamp(millis).unwrap_or_else(|_| millis.to_string());
    format!(
        "{partition}  offsets {} to {}  {} to {}",
        range.first,
        range.end - 1,
        time(range.min_timestamp),
        time(range.max_timestamp)
    )
}

fn records(
    opened: &Opened<'_>,
    partition: &TopicPartition,
    range: PastRange,
    wanted: &Wanted<'_>,
) -> Result<(), Exit> {
    let records = opened
        .runtime
        .block_on(opened.past.records(partition, range));
    let records = records.map_err(|error| of_target(opened.name, &error))?;
    for record in records.iter().filter(|record| wanted.has(record)) {
        let line = serde_json::to_string(&RecordLine::of(partition.partition, record));
        print(line.map_err(|error| Exit::because(ExitCode::Bug, &error))?);
    }
    Ok(())
}
