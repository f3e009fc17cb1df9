//! When to commit: pure.
//!
//! Adaptive, unlike Kafka Streams' fixed `commit.interval.ms`: a single command on an idle system is
//! committed at once, a backlog is committed in batches.

use std::time::Duration;

/// What the decision looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitFacts {
    /// Time since the last commit (or abort) ended, or since the first change if that is later.
    pub since_last_ms: i64,
    /// Outputs or store writes wait to become visible.
    pub has_results: bool,
    /// Consumed positions differ from the committed ones.
    pub has_positions: bool,
    /// No running task has a buffered record, and the last poll brought none.
    pub inputs_dry: bool,
    /// Bytes that the open transaction holds in overlays.
    pub uncommitted_bytes: usize,
    /// A processor or a membership change asked.
    pub requested: bool,
    /// A task's offsets have not been committed for an hour (brokers expire them).
    pub offsets_stale: bool,
}

/// The settings that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitSettings {
    /// See [`RuntimeConfig::commit_interval`](super::RuntimeConfig::commit_interval).
    pub interval: Duration,
    /// See [`RuntimeConfig::commit_min_interval`](super::RuntimeConfig::commit_min_interval).
    pub min_interval: Duration,
    /// See [`RuntimeConfig::uncommitted_bytes_max`](super::RuntimeConfig::uncommitted_bytes_max).
    pub uncommitted_bytes_max: usize,
}

/// Why a commit is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitReason {
    /// Asked for.
    Requested,
    /// The transaction is large.
    Large,
    /// The interval has passed.
    Interval,
    /// Nothing more to read, and results to show.
    InputsDry,
    /// Old offsets are committed again.
    OffsetsStale,
}

/// Decides whether to commit now.
#[must_use]
pub fn commit_due(facts: CommitFacts, settings: CommitSettings) -> Option<CommitReason> {
    let passed = |limit: Duration| {
        facts.since_last_ms >= i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)
    };
    if !facts.has_results && !facts.has_positions {
        return facts.offsets_stale.then_some(CommitReason::OffsetsStale);
    }
    if facts.requested {
        return Some(CommitReason::Requested);
    }
    if facts.uncommitted_bytes >= settings.uncommitted_bytes_max {
        return Some(CommitReason::Large);
    }
    if passed(settings.interval) {
        return Some(CommitReason::Interval);
    }
    // Never for offsets alone: an idle copy of nothing would commit as fast as it polls.
    if facts.has_results && facts.inputs_dry && passed(settings.min_interval) {
        return Some(CommitReason::InputsDry);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: CommitSettings = CommitSettings {
        interval: Duration::from_millis(100),
        min_interval: Duration::from_millis(5),
        uncommitted_bytes_max: 1000,
    };

    fn results() -> CommitFacts {
        CommitFacts {
            has_results: true,
            has_positions: true,
            ..CommitFacts::default()
        }
    }

    #[test]
    fn nothing_to_show_is_never_committed_but_stale_offsets_are() {
        let idle = CommitFacts {
            since_last_ms: 1_000_000,
            inputs_dry: true,
            ..Default::default()
        };
        assert_eq!(commit_due(idle, SETTINGS), None);
        let stale = CommitFacts {
            offsets_stale: true,
            ..idle
        };
        assert_eq!(
            commit_due(stale, SETTINGS),
            Some(CommitReason::OffsetsStale)
        );
    }

    #[test]
    fn dry_inputs_commit_results_after_the_floor_and_offsets_alone_only_by_interval() {
        let dry = CommitFacts {
            inputs_dry: true,
            since_last_ms: 5,
            ..results()
        };
        assert_eq!(commit_due(dry, SETTINGS), Some(CommitReason::InputsDry));
        assert_eq!(
            commit_due(
                CommitFacts {
                    since_last_ms: 4,
                    ..dry
                },
                SETTINGS
            ),
            None
        );
        let offsets = CommitFacts {
            has_results: false,
            since_last_ms: 99,
            ..dry
        };
        assert_eq!(commit_due(offsets, SETTINGS), None);
        let later = CommitFacts {
            since_last_ms: 100,
            ..offsets
        };
        assert_eq!(commit_due(later, SETTINGS), Some(CommitReason::Interval));
    }

    #[test]
    fn a_backlog_is_batched_until_the_interval_or_the_size_limit() {
        assert_eq!(
            commit_due(
                CommitFacts {
                    since_last_ms: 99,
                    ..results()
                },
                SETTINGS
            ),
            None
        );
        let interval = CommitFacts {
            since_last_ms: 100,
            ..results()
        };
        assert_eq!(commit_due(interval, SETTINGS), Some(CommitReason::Interval));
        let large = CommitFacts {
            uncommitted_bytes: 1000,
            ..results()
        };
        assert_eq!(commit_due(large, SETTINGS), Some(CommitReason::Large));
        let requested = CommitFacts {
            requested: true,
            ..results()
        };
        assert_eq!(
            commit_due(requested, SETTINGS),
            Some(CommitReason::Requested)
        );
    }
}
