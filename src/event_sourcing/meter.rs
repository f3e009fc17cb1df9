//! What the event-sourcing processors count, where there is somebody to count for.

use super::aggregate::Aggregate;
use super::command::Outcome;
use super::decision::AggregateRecord;
use super::history::HistoryKey;
use super::limits::EventSize;
use crate::metrics::{Counter, EventSourcingMetrics};

/// The metrics of one aggregate type in a task; counts nothing in a task without metrics.
///
/// Counts are of attempts: a record that is processed again after an aborted transaction counts
/// again.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(pub(super) Option<EventSourcingMetrics>);

impl Meter {
    pub(super) fn count(&self, counter: impl FnOnce(&EventSourcingMetrics) -> &Counter) {
        if let Some(metrics) = &self.0 {
            counter(metrics).inc();
        }
    }

    pub(super) fn outcome(&self, outcome: Outcome) {
        self.count(|metrics| match outcome {
            Outcome::Accepted => &metrics.commands_accepted,
            Outcome::Rejected => &metrics.commands_rejected,
            Outcome::Conflict => &metrics.commands_conflicting,
        });
    }

    /// Logs and counts the last of some events, where it is a tombstone.
    pub(super) fn tombstone<A: Aggregate>(
        &self,
        last: &HistoryKey,
        after: &AggregateRecord<A::State>,
    ) {
        if after.tombstoned {
            self.count(|metrics| &metrics.tombstones);
            let HistoryKey {
                aggregate_id,
                version,
            } = last;
            tracing::info!(aggregate = A::TYPE, aggregate_id, version, "tombstoned");
        }
    }

    /// Counts an input that comes after the tombstone of its aggregate.
    pub(super) fn after_tombstone<S>(&self, known: Option<&AggregateRecord<S>>) {
        if known.is_some_and(|known| known.tombstoned) {
            self.count(|metrics| &metrics.tombstone_refusals);
        }
    }

    /// Logs and counts an event that is large.
    pub(super) fn size(&self, size: EventSize, event_type: &str, event_id: &str, bytes: usize) {
        if size == EventSize::Large {
            self.count(|metrics| &metrics.large);
            tracing::warn!(event_type, event_id, bytes, "large event");
        }
    }
}
