//! Faults that happen once, and short forms.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use millstream::log::embedded::{Fault, FaultPlan, FaultPoint, FaultSite};
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
