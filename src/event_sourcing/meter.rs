//! What the event-sourcing processors count, where there is somebody to count for.

use super::command::Outcome;
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

    /// Logs and counts an event that is large.
    pub(super) fn size(&self, size: EventSize, event_type: &str, event_id: &str, bytes: usize) {
        if size == EventSize::Large {
            self.count(|metrics| &metrics.large);
            tracing::warn!(event_type, event_id, bytes, "large event");
        }
    }
}
