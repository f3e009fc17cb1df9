//! The events of a topic across archive and log, for whoever keeps only recent ones: what
//! [`PastEvents`] is in a daemon.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use super::{PastError, PastReader, PastRecords, SinkRecord, SinkTopic, Span};
use crate::clock::Timestamp;
use crate::event_sourcing::PastEvents;
use crate::format::partitioner::partition_for_key;
use crate::log::{Log, Offset, TopicName, TopicPartition};

/// How long a call to the archive may take: a file is fetched and unpacked in one.
const TIMEOUT: Duration = Duration::from_secs(90);
/// How often the archive is asked how far it is.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// A topic's records, from its archive where there is one and from the log.
pub struct TopicPast<L: Log> {
    reader: PastReader<L>,
    topic: SinkTopic,
    past: Option<Arc<dyn PastRecords>>,
    /// Up to where the archive is whole, by partition.
    ends: RwLock<BTreeMap<i32, Offset>>,
}

impl<L: Log> fmt::Debug for TopicPast<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicPast")
            .field("topic", &self.topic)
            .field("past", &self.past)
            .finish_non_exhaustive()
    }
}

impl<L: Log> TopicPast<L> {
    /// Reads `topic` from `past` and `log`; calls block on `runtime`, and must not come from one of its
    /// threads but those that may block.
    #[must_use]
    pub fn new(
        log: &L,
        runtime: &Handle,
        topic: SinkTopic,
        past: Option<Arc<dyn PastRecords>>,
    ) -> Self {
        Self {
            reader: PastReader::new(log, runtime, past.clone(), TIMEOUT),
            topic,
            past,
            ends: RwLock::default(),
        }
    }

    /// Asks the archive how far it is. What it does not answer stays as it was: archives only grow.
    pub async fn refresh(&self) {
        let Some(past) = &self.past else { return };
        for number in 0..self.topic.partitions {
            let partition = TopicPartition::new(TopicName::clone(&self.topic.name), number);
            match tokio::time::timeout(TIMEOUT, past.ranges(&partition)).await {
                Ok(Ok(ranges)) => {
                    let from_the_start = ranges.first().is_some_and(|range| range.first == 0);
                    if let Some(last) = ranges.last().filter(|_| from_the_start) {
                        let mut ends = self.ends.write().unwrap_or_else(PoisonError::into_inner);
                        ends.insert(number, last.end);
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(%partition, %error, "the archive does not say how far it is");
                }
                Err(_) => tracing::debug!(%partition, "the archive does not answer"),
            }
        }
    }

    /// Asks the archive again and again how far it is, for as long as somebody has this.
    pub fn keep_fresh(self: &Arc<Self>, runtime: &Handle) {
        if self.past.is_none() {
            return;
        }
        let past: Weak<Self> = Arc::downgrade(self);
        runtime.spawn(async move {
            while let Some(past) = past.upgrade() {
                past.refresh().await;
                drop(past);
                tokio::time::sleep(REFRESH_INTERVAL).await;
            }
        });
    }
}

impl<L: Log> PastEvents for TopicPast<L> {
    fn archived_until(&self, partition: i32) -> Option<Offset> {
        let ends = self.ends.read().unwrap_or_else(PoisonError::into_inner);
        ends.get(&partition).copied()
    }

    fn partition_of(&self, aggregate_id: &str) -> i32 {
        partition_for_key(aggregate_id.as_bytes(), self.topic.partitions)
    }

    fn read(
        &self,
        partition: i32,
        since: Option<Timestamp>,
        until: Offset,
        each: &mut dyn FnMut(SinkRecord) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let partition = TopicPartition::new(TopicName::clone(&self.topic.name), partition);
        let span = Span {
            since,
            until: Some(until),
            ..Span::ALL
        };
        self.reader.read(&partition, span, each)
    }
}
