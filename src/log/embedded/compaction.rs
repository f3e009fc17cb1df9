//! Decides what compaction removes. Pure: the caller journals the plan and carries it out.
//!
//! As Kafka's log cleaner does: below the last stable offset only the latest record of a key stays;
//! aborted records go; a tombstone, or a transaction's marker, stays `delete.retention.ms` after the
//! first compaction that saw it, so that a reader who started before sees it.

use std::collections::HashMap;

use super::config::TopicConfig;
use super::partition::Partition;
use super::record::{Kind, Record};
use crate::log::Offset;

/// What a compaction does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Offsets to remove.
    pub(super) removed: Vec<Offset>,
    /// Tombstones and markers that a compaction sees for the first time.
    pub(super) horizons: Vec<Offset>,
    /// The first offset that was not looked at.
    pub(super) to: Offset,
}

/// Plans the compaction of `partition` at `now`; `None` when there is nothing to do.
pub(super) fn plan(partition: &Partition, config: &TopicConfig, now: i64) -> Option<Plan> {
    let youngest = now.saturating_sub(config.min_compaction_lag_ms);
    let stable = partition.last_stable_offset();
    let to = partition
        .entries()
        .iter()
        .map(|entry| &entry.record)
        .find(|record| {
            let lags = config.min_compaction_lag_ms > 0 && record.timestamp > youngest;
            record.offset >= stable || lags
        })
        .map_or(stable, |record| record.offset);
    let latest = latest_offsets(partition, to);

    let mut plan = Plan {
        to,
        ..Plan::default()
    };
    for entry in partition.entries() {
        let record = &entry.record;
        if record.offset >= to {
            break;
        }
        if is_superseded(partition, record, &latest) {
            plan.removed.push(record.offset);
        } else if record.kind != Kind::Data || record.value.is_none() {
            match entry.delete_horizon {
                None => plan.horizons.push(record.offset),
                Some(horizon) if horizon < now => plan.removed.push(record.offset),
                Some(_) => {}
            }
        }
    }
    let idle = plan.removed.is_empty() && plan.horizons.is_empty() && to <= partition.clean_to();
    (!idle).then_some(plan)
}

/// Returns whether enough of `partition` is new since the last compaction.
pub(super) fn is_due(partition: &Partition, config: &TopicConfig, now: i64) -> bool {
    let (mut clean, mut dirty, mut expired) = (0_usize, 0_usize, false);
    for entry in partition.entries() {
        expired |= entry.delete_horizon.is_some_and(|horizon| horizon < now);
        if entry.record.offset < partition.clean_to() {
            clean += entry.record.size();
        } else {
            dirty += entry.record.size();
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio of byte counts")]
    let ratio = dirty as f64 / (clean + dirty).max(1) as f64;
    expired || (dirty > 0 && ratio >= config.min_cleanable_dirty_ratio)
}

fn latest_offsets(partition: &Partition, to: Offset) -> HashMap<&[u8], Offset> {
    partition
        .entries()
        .iter()
        .map(|entry| &entry.record)
        .take_while(|record| record.offset < to)
        .filter(|record| is_committed_data(partition, record))
        .filter_map(|record| record.key.as_deref().map(|key| (key, record.offset)))
        .collect()
}

fn is_superseded(partition: &Partition, record: &Record, latest: &HashMap<&[u8], Offset>) -> bool {
    if record.kind != Kind::Data {
        return false;
    }
    let newest = record.key.as_deref().and_then(|key| latest.get(key));
    !is_committed_data(partition, record) || newest.is_none_or(|newest| *newest > record.offset)
}

fn is_committed_data(partition: &Partition, record: &Record) -> bool {
    record.kind == Kind::Data
        && record
            .transaction
            .is_none_or(|number| !partition.aborted().contains(&number))
}
