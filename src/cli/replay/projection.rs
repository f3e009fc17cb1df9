//! The rows of a projection as a source: a table, not a log.
//!
//! Rows are read whole when the replay starts, out of the changelogs, so that no process need run; a
//! replay that goes on after a kill reads them again, and writes those of unfinished partitions once more:
//! by their keys they are the same rows, or newer ones.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::super::load::Loaded;
use super::super::outcome::Exit;
use super::super::sinks::of_log;
use super::super::{ExitCode, Replay};
use super::position::{Position, Stretch};
use super::source::{Source, TIMEOUT};
use super::{Each, find};
use crate::clock::Timestamp;
use crate::event_sourcing::{
    EventArchive, ProjectionEndpoint, ReplayedRow, StoreEntries, StoresInLog, parse_timestamp,
};
use crate::format::names;
use crate::log::{Headers, Isolation, Log, TopicName, TopicPartition};
use crate::processor::BoxError;
use crate::runtime::error_chain;
use crate::sink::{PastReader, SinkRecord, SinkTopic, Span, TopicPast};

/// The rows of a projection.
pub(super) struct ProjectionSource {
    described: String,
    /// By partition.
    rows: BTreeMap<i32, Vec<ReplayedRow>>,
}

impl ProjectionSource {
    pub(super) fn open<L: Log>(
        log: &L,
        runtime: &Runtime,
        loaded: &Loaded,
        name: &str,
        arguments: &Replay,
    ) -> Result<Self, Exit> {
        let projection = named(loaded, name)?;
        let before = arguments.to.as_deref().map(parse_timestamp).transpose();
        let before = before.map_err(|error| Exit::because(ExitCode::Usage, &error))?;
        let anew = arguments.anew || before.is_some();
        let mut stores = Changelogs {
            log,
            reader: PastReader::new(log, runtime.handle(), None, TIMEOUT),
            application_id: &loaded.config.application_id,
        };
        let read = if anew {
            connect_archives(log, runtime, loaded)?;
            projection.rows_anew(&mut stores, before)
        } else {
            projection.latest_rows(&mut stores)
        };
        let read = read.map_err(|error| {
            let message = format!("error: the rows of `{name}`: {}", error_chain(&*error));
            Exit::new(ExitCode::Failure, message)
        })?;
        let mut rows: BTreeMap<i32, Vec<ReplayedRow>> = BTreeMap::new();
        for row in read {
            rows.entry(row.partition).or_default().push(row);
        }
        Ok(Self {
            described: described(name, anew, arguments.to.as_deref()),
            rows,
        })
    }
}

fn described(name: &str, anew: bool, before: Option<&str>) -> String {
    let mut described = format!("projection {name}");
    if anew {
        described.push_str(", made anew from history");
    }
    if let Some(before) = before {
        described.push_str(&format!(", of events before {before}"));
    }
    described
}

fn named<'a>(loaded: &'a Loaded, name: &str) -> Result<&'a ProjectionEndpoint, Exit> {
    let mut projections = loaded.projections.iter();
    projections.find(|it| it.name() == name).ok_or_else(|| {
        let known = loaded.projections.iter().map(ProjectionEndpoint::name);
        let known: Vec<&str> = known.collect();
        let message = format!(
            "error: the topology has no projection `{name}`; it has {}",
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        );
        Exit::new(ExitCode::Usage, message)
    })
}

/// Lets events be read that have left the history store.
fn connect_archives<L: Log>(log: &L, runtime: &Runtime, loaded: &Loaded) -> Result<(), Exit> {
    let endpoints = loaded.aggregates.iter();
    let archives: Vec<&EventArchive> = endpoints.filter_map(|it| it.archive()).collect();
    for archive in archives {
        let declared = archive.topic().to_owned();
        let found = find(log, loaded.config.topic_name(&declared))?;
        let topic = SinkTopic { declared, ..found };
        let mut sinks = loaded.sinks.iter().map(|configured| &configured.sink);
        let past = sinks.find_map(|sink| {
            let past = sink.past()?;
            sink.topics().contains(&topic.declared).then_some(past)
        });
        archive.connect(Arc::new(TopicPast::new(log, runtime.handle(), topic, past)));
    }
    Ok(())
}

/// Changelogs, read into memory partition by partition.
struct Changelogs<'a, L: Log> {
    log: &'a L,
    reader: PastReader<L>,
    application_id: &'a str,
}

impl<L: Log> Changelogs<'_, L> {
    fn topic(&self, store: &str) -> Result<SinkTopic, BoxError> {
        let name = names::changelog_topic(self.application_id, store);
        find(self.log, &name)
            .map_err(|exit| format!("{}; has the application run?", exit.message).into())
    }
}

impl<L: Log> StoresInLog for Changelogs<'_, L> {
    fn partitions(&mut self, store: &str) -> Result<i32, BoxError> {
        Ok(self.topic(store)?.partitions)
    }

    fn entries(&mut self, store: &str, partition: i32) -> Result<StoreEntries, BoxError> {
        let topic = self.topic(store)?;
        let place = TopicPartition::new(TopicName::clone(&topic.name), partition);
        let ranges = self
            .log
            .log_ranges(std::slice::from_ref(&place), Isolation::ReadCommitted);
        let ranges = ranges.map_err(|error| of_log(&error).message)?;
        let span = Span {
            from: ranges.first().map_or(0, |range| range.start),
            since: None,
            before: None,
            until: ranges.first().map(|range| range.end),
        };
        let mut entries = StoreEntries::new();
        self.reader.read(&place, span, |record| {
            if let Some(key) = record.key {
                match record.value {
                    Some(value) => drop(entries.insert(key, (record.timestamp, value))),
                    None => drop(entries.remove(&key)),
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }
}

/// A partition that has been written whole is behind this position.
const DONE: i64 = 1;

impl Source for ProjectionSource {
    fn describe(&self) -> String {
        self.described.clone()
    }

    fn partitions(&self) -> i32 {
        self.rows.keys().next_back().map_or(1, |last| last + 1)
    }

    /// Keys of rows are their aggregates' with more behind: the target has them by the whole key.
    fn keeps_partitions(&self) -> bool {
        false
    }

    fn topic(&self) -> Option<&str> {
        None
    }

    fn slot(&self, partition: i32) -> i32 {
        partition
    }

    fn spans(&self) -> Result<BTreeMap<i32, Stretch>, Exit> {
        let whole = Stretch { next: 0, end: DONE };
        Ok(self.rows.keys().map(|it| (*it, whole)).collect())
    }

    fn read(&self, from: &Position, each: &mut Each<'_>) -> Result<(), Exit> {
        for (partition, rows) in &self.rows {
            let written = from.partitions.get(partition);
            if written.is_some_and(|stretch| stretch.next >= DONE) {
                continue;
            }
            for (index, row) in rows.iter().enumerate() {
                let next = if index + 1 == rows.len() { DONE } else { 0 };
                if each(*partition, record(row), next).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn record(row: &ReplayedRow) -> SinkRecord {
    let timestamp: Timestamp = row.timestamp;
    SinkRecord {
        offset: 0,
        timestamp,
        key: Some(row.key.clone().into_bytes()),
        value: Some(row.value.clone()),
        headers: Headers::new(),
    }
}
