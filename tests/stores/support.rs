//! Faults that happen once, and short forms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millstream::log::embedded::{EmbeddedLog, Fault, FaultPlan, FaultPoint, FaultSite};
use millstream::log::{Isolation, Log, LogMessage, LogReader, TopicPartition};
use millstream::prelude::*;

/// Answers the next operations at one point with a fault.
#[derive(Debug)]
pub(crate) struct FaultNext {
    point: FaultPoint,
    fault: Fault,
    left: AtomicUsize,
}

impl FaultNext {
    pub(crate) fn new(point: FaultPoint, fault: Fault, times: usize) -> Arc<Self> {
        Arc::new(Self {
            point,
            fault,
            left: AtomicUsize::new(times),
        })
    }

    pub(crate) fn has_fired(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

impl FaultPlan for FaultNext {
    fn decide(&self, site: &FaultSite<'_>) -> Option<Fault> {
        // The test's own producer writes without a transaction.
        if site.point != self.point || site.transactional_id.is_none() {
            return None;
        }
        let less = |left: usize| left.checked_sub(1);
        let fires = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        fires.is_ok().then_some(self.fault)
    }
}

pub(crate) fn consumed() -> Consumed<String, String> {
    Consumed::with(serdes::string(), serdes::string())
}

pub(crate) fn text_store(name: &str) -> StoreBuilder<String, String> {
    StoreBuilder::as_store(name, serdes::string(), serdes::string())
}

pub(crate) fn record(key: &str, value: &str, timestamp: Timestamp) -> Record<String, String> {
    Record::new(key.to_owned(), value.to_owned(), timestamp)
}

/// What compaction leaves of a topic's only partition: the latest value per key.
pub(crate) fn compacted(log: &EmbeddedLog, topic: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut entries = BTreeMap::new();
    for message in messages(log, topic) {
        let key = message.key().unwrap().to_vec();
        match message.value() {
            Some(value) => drop(entries.insert(key, value.to_vec())),
            None => drop(entries.remove(&key)),
        }
    }
    entries
}

/// Everything that was committed to a topic's only partition.
pub(crate) fn messages(log: &EmbeddedLog, topic: &str) -> Vec<<EmbeddedLog as Log>::Message> {
    let mut reader = log.reader(Isolation::ReadCommitted).unwrap();
    reader
        .assign(&[(TopicPartition::new(topic, 0), 0)])
        .unwrap();
    let mut messages = Vec::new();
    while reader.poll(1000, Duration::ZERO, &mut messages).unwrap() > 0 {}
    messages
}
