//! What a sink is doing, for people: behind `GET /sinks`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::clock::{Clock, Timestamp};
use crate::log::{Offset, TopicPartition};

/// Where a sink stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SinkState {
    /// It has not connected yet.
    Connecting,
    /// It writes what arrives.
    Running,
    /// The target or the log is away; it tries again by itself.
    Waiting,
    /// Somebody has to act; it tries again now and then.
    Failed,
    /// The process is stopping.
    Stopped,
}

/// A partition's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkPosition {
    /// The topic's name in the cluster.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset that the target has stored.
    pub next_offset: Offset,
    /// Records between that and the log's end, as far as the client knows.
    pub lag: i64,
}

/// The last thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct LastError {
    message: String,
    /// Milliseconds since 1970.
    at: Timestamp,
}

/// What a sink shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkView {
    /// Its name in the configuration.
    pub name: String,
    /// What it writes to.
    pub kind: &'static str,
    /// Its group.
    pub group: String,
    /// Where it stands.
    pub state: SinkState,
    /// Records written by this process.
    pub records: u64,
    /// Rows or files that they made.
    pub rows: u64,
    /// Writes, each atomic.
    pub batches: u64,
    /// Bad records passed over.
    pub skipped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError>,
    /// The partitions that this process owns.
    pub partitions: Vec<SinkPosition>,
}

impl SinkView {
    /// Returns the last error's text.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_ref().map(|error| error.message.as_str())
    }
}

/// A sink's status, shared by its thread and whoever asks.
#[derive(Debug, Clone)]
pub struct SinkStatus(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    view: SinkView,
    positions: BTreeMap<TopicPartition, (Offset, i64)>,
    clock: Arc<dyn Clock>,
}

impl SinkStatus {
    pub(super) fn new(name: &str, kind: &'static str, group: &str, clock: Arc<dyn Clock>) -> Self {
        let view = SinkView {
            name: name.to_owned(),
            kind,
            group: group.to_owned(),
            state: SinkState::Connecting,
            records: 0,
            rows: 0,
            batches: 0,
            skipped: 0,
            last_error: None,
            partitions: Vec::new(),
        };
        Self(Arc::new(Mutex::new(Inner {
            view,
            positions: BTreeMap::new(),
            clock,
        })))
    }

    /// Returns what the sink is doing.
    #[must_use]
    pub fn view(&self) -> SinkView {
        let inner = self.inner();
        let partitions = inner.positions.iter();
        SinkView {
            partitions: partitions
                .map(|(at, (next_offset, lag))| SinkPosition {
                    topic: at.topic.to_string(),
                    partition: at.partition,
                    next_offset: *next_offset,
                    lag: *lag,
                })
                .collect(),
            ..inner.view.clone()
        }
    }

    pub(super) fn set_state(&self, state: SinkState) {
        self.inner().view.state = state;
    }

    pub(super) fn state(&self) -> SinkState {
        self.inner().view.state
    }

    pub(super) fn error(&self, state: SinkState, message: String) {
        let mut inner = self.inner();
        let at = inner.clock.now_ms();
        inner.view.state = state;
        inner.view.last_error = Some(LastError { message, at });
    }

    pub(super) fn written(&self, records: u64, rows: u64) {
        let view = &mut self.inner().view;
        view.records += records;
        view.rows += rows;
        view.batches += 1;
    }

    pub(super) fn skipped(&self) {
        self.inner().view.skipped += 1;
    }

    pub(super) fn position(&self, partition: &TopicPartition, next: Offset, lag: i64) {
        let mut inner = self.inner();
        match inner.positions.get_mut(partition) {
            Some(known) => *known = (next, lag),
            None => drop(inner.positions.insert(partition.clone(), (next, lag))),
        }
    }

    pub(super) fn give_up(&self, partition: &TopicPartition) {
        self.inner().positions.remove(partition);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
