//! What is replayed: a topic across archive and log, or a file.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::super::load::Loaded;
use super::super::outcome::Exit;
use super::super::sinks::of_log;
use super::super::{ExitCode, Replay};
use super::file::{self, Lines};
use super::position::{Position, Stretch};
use super::{Each, find};
use crate::clock::Timestamp;
use crate::event_sourcing::parse_timestamp;
use crate::format::partitioner::partition_for_key;
use crate::log::{Isolation, Log, TopicName, TopicPartition};
use crate::sink::{PastError, PastReader, SinkTopic, Span};

/// How long a call to the archive may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(90);

/// Records in the order of their partitions' offsets.
pub(super) trait Source {
    /// Returns what is replayed, the same for the same request.
    fn describe(&self) -> String;

    /// Returns the number of partitions that the records were in.
    fn partitions(&self) -> i32;

    /// Returns whether records stay in their partitions where the target has equally many.
    fn keeps_partitions(&self) -> bool {
        true
    }

    /// Returns the topic that is read; `None` for what is none.
    fn topic(&self) -> Option<&str>;

    /// Returns the entry of a [`Position`] that records of a partition move.
    fn slot(&self, partition: i32) -> i32;

    /// Returns where each partition begins and ends at present.
    fn spans(&self) -> Result<BTreeMap<i32, Stretch>, Exit>;

    /// Calls `each` with the records from a position on until it breaks.
    fn read(&self, from: &Position, each: &mut Each<'_>) -> Result<(), Exit>;
}

/// A topic, or the records of one key in it.
pub(super) struct TopicSource<'a, L: Log> {
    log: &'a L,
    reader: PastReader<L>,
    topic: SinkTopic,
    key: Option<Vec<u8>>,
    partitions: Vec<i32>,
    since: Option<Timestamp>,
    before: Option<Timestamp>,
}

impl<'a, L: Log> TopicSource<'a, L> {
    pub(super) fn open(
        log: &'a L,
        runtime: &Runtime,
        loaded: &Loaded,
        arguments: &Replay,
    ) -> Result<Self, Exit> {
        let (declared, key): (String, Option<Vec<u8>>) = match (
            &arguments.topic,
            arguments.aggregate.as_deref(),
        ) {
            (Some(topic), _) => (topic.clone(), None),
            (None, Some([aggregate_type, id])) => (
                events_topic(loaded, aggregate_type)?,
                Some(id.clone().into_bytes()),
            ),
            (None, _) => {
                let message =
                    "error: say what: `--topic`, `--aggregate`, `--projection` or `--from-file`";
                return Err(Exit::new(ExitCode::Usage, message));
            }
        };
        let topic = find(log, loaded.config.topic_name(&declared))?;
        let mut sinks = loaded.sinks.iter().map(|configured| &configured.sink);
        let past = sinks.find_map(|sink| {
            let past = sink.past()?;
            let mut archived = sink.topics().into_iter();
            archived
                .any(|archived| loaded.config.topic_name(&archived) == &*topic.name)
                .then_some(past)
        });
        let partitions = match &key {
            Some(key) => vec![partition_for_key(key, topic.partitions)],
            None if arguments.partitions.is_empty() => (0..topic.partitions).collect(),
            None => arguments.partitions.clone(),
        };
        if let Some(none) = partitions
            .iter()
            .find(|it| !(0..topic.partitions).contains(*it))
        {
            let message = format!(
                "error: {} has partitions 0 to {}, and no {none}",
                topic.name,
                topic.partitions - 1
            );
            return Err(Exit::new(ExitCode::Usage, message));
        }
        let time = |text: &Option<String>| {
            let parsed = text.as_deref().map(parse_timestamp).transpose();
            parsed.map_err(|error| Exit::because(ExitCode::Usage, &error))
        };
        Ok(Self {
            reader: PastReader::new(log, runtime.handle(), past, TIMEOUT),
            log,
            topic,
            key,
            partitions,
            since: time(&arguments.from)?,
            before: time(&arguments.to)?,
        })
    }

    fn place(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(TopicName::clone(&self.topic.name), partition)
    }
}

/// Returns the declared name of the topic that an aggregate's events are on.
fn events_topic(loaded: &Loaded, aggregate_type: &str) -> Result<String, Exit> {
    let mut endpoints = loaded.aggregates.iter();
    let found = endpoints.find(|endpoint| endpoint.aggregate_type() == aggregate_type);
    let archive = found.and_then(|endpoint| endpoint.archive());
    archive
        .map(|archive| archive.topic().to_owned())
        .ok_or_else(|| {
            let message = format!(
                "error: the topology has no topic of the events of `{aggregate_type}`; say `--topic`"
            );
            Exit::new(ExitCode::Usage, message)
        })
}

impl<L: Log> Source for TopicSource<'_, L> {
    fn describe(&self) -> String {
        let mut text = format!("topic {}", self.topic.name);
        if let Some(key) = &self.key {
            text.push_str(&format!(", key {}", String::from_utf8_lossy(key)));
        } else if self.partitions.len() != usize::try_from(self.topic.partitions).unwrap_or(0) {
            text.push_str(&format!(", partitions {:?}", self.partitions));
        }
        for (what, time) in [("from", self.since), ("to", self.before)] {
            if let Some(time) = time {
                text.push_str(&format!(", {what} {time}"));
            }
        }
        text
    }

    fn partitions(&self) -> i32 {
        self.topic.partitions
    }

    fn slot(&self, partition: i32) -> i32 {
        partition
    }

    fn topic(&self) -> Option<&str> {
        Some(&self.topic.name)
    }

    fn spans(&self) -> Result<BTreeMap<i32, Stretch>, Exit> {
        let places: Vec<_> = self.partitions.iter().map(|it| self.place(*it)).collect();
        let ranges = self.log.log_ranges(&places, Isolation::ReadCommitted);
        let ranges = ranges.map_err(|error| of_log(&error))?;
        let ends = ranges.iter().map(|range| Stretch {
            next: 0,
            end: range.end,
        });
        Ok(self.partitions.iter().copied().zip(ends).collect())
    }

    fn read(&self, from: &Position, each: &mut Each<'_>) -> Result<(), Exit> {
        for (partition, stretch) in &from.partitions {
            let span = Span {
                from: stretch.next,
                since: self.since,
                before: self.before,
                until: Some(stretch.end),
            };
            let mut flow = ControlFlow::Continue(());
            let read = self.reader.read(&self.place(*partition), span, |record| {
                if self
                    .key
                    .as_deref()
                    .is_none_or(|key| record.key.as_deref() == Some(key))
                {
                    let next = record.offset + 1;
                    flow = each(*partition, record, next);
                }
                flow
            });
            read.map_err(|error| unread(&error))?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn unread(error: &PastError) -> Exit {
    match error {
        PastError::Log(error) => of_log(error),
        PastError::Missing { .. } | PastError::Archive(_) => {
            Exit::because(ExitCode::Failure, error)
        }
    }
}

/// A file that a replay has written.
pub(super) struct FileSource {
    path: std::path::PathBuf,
    heading: file::Heading,
}

impl FileSource {
    pub(super) fn open(path: &Path) -> Result<Self, Exit> {
        let lines = Lines::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            heading: lines.heading,
        })
    }
}

/// A file has one position: the number of its next record.
const WHOLE_FILE: i32 = 0;

impl Source for FileSource {
    fn describe(&self) -> String {
        format!("file of {} ({})", self.heading.source, self.heading.id)
    }

    fn partitions(&self) -> i32 {
        self.heading.partitions
    }

    fn slot(&self, _: i32) -> i32 {
        WHOLE_FILE
    }

    fn topic(&self) -> Option<&str> {
        None
    }

    fn spans(&self) -> Result<BTreeMap<i32, Stretch>, Exit> {
        let end = i64::try_from(self.heading.records).unwrap_or(i64::MAX);
        Ok(BTreeMap::from([(WHOLE_FILE, Stretch { next: 0, end })]))
    }

    fn read(&self, from: &Position, each: &mut Each<'_>) -> Result<(), Exit> {
        let first = from.partitions.get(&WHOLE_FILE);
        let first = first.map_or(0, |stretch| stretch.next);
        let lines = Lines::open(&self.path)?;
        for (number, line) in (0_i64..).zip(lines) {
            let (partition, record) = line?;
            if number >= first && each(partition, record, number + 1).is_break() {
                break;
            }
        }
        Ok(())
    }
}
