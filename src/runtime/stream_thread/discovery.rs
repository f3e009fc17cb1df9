//! Topics that come and go under a pattern.
//!
//! # Position
//! First in a turn, once the transaction is settled. A thread looks every
//! [`pattern_refresh_interval`](crate::runtime::RuntimeConfig::pattern_refresh_interval); when what
//! matches has changed, it gives up the partitions of the tasks concerned and takes them over again,
//! with their inputs as they are now. The group takes no part: the driver's partitions stay where they
//! are, so a new topic costs no rebalance.
//! # Invariants
//! - ORDER: commit, then tell the client, then ask for membership events, then process. The client may
//!   have a revocation in its queue that this thread has not seen, and takes what is unassigned here
//!   for the answer to it: the partitions may have their next owner before the revocation is read. By
//!   then all work is committed, in the generation that owned it, and none is added until the
//!   revocation is answered too, since the turn ends here.
//! - Two threads may see different topics for a while; never do they own one task both
//!   (`docs/decisions/0006-driver-of-a-pattern.md`). A topic that one has not seen yet is read from its
//!   committed offset, or its start, once it is.
//! # Failure
//! A topic that does not fit (another number of partitions beside a store, a second pattern that matches
//! it) is refused in words: the process ends, as it would not start. A topic that was deleted is left.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::StreamThread;
use crate::clock::Timestamp;
use crate::log::{Log, MembershipEvent, TopicPartition};
use crate::runtime::ResolvedTopology;
use crate::runtime::TopicsError;
use crate::runtime::dead_letter::chain;
use crate::runtime::error::Fault;
use crate::runtime::patterns;

impl<L: Log> StreamThread<L> {
    /// Looks for topics that match by now; returns whether the turn has to end.
    pub(super) fn look_for_topics(&mut self, now: Timestamp) -> Result<bool, Fault> {
        if self.stopping || now < self.looks_at || !self.spec.topology.has_patterns() {
            return Ok(false);
        }
        let found = patterns::look_again(&self.spec.log, &self.spec.topology, &self.spec.config);
        let Some(topology) = found.map_err(refused)? else {
            self.look_later(now);
            return Ok(false);
        };
        self.commit(now)?;
        if !self.transaction.may_change_tasks() {
            return Ok(true);
        }
        let affected = self.affected_by(&topology);
        if let Err(fault) = self.give_back(&affected, true) {
            // All work is committed: a store that cannot be flushed has its tail replayed.
            tracing::warn!(thread = %self.id, error = %chain(&fault), "tasks closed as they are");
            self.give_back(&affected, false)?;
        }
        tracing::info!(thread = %self.id, tasks = affected.len(), "topics of a pattern have changed");
        self.spec.topology = Arc::new(topology);
        if !affected.is_empty() {
            // Where an answer that fails is repeated.
            self.events.push_front(MembershipEvent::Assigned(affected));
        }
        self.look_later(now);
        Ok(true)
    }

    fn look_later(&mut self, now: Timestamp) {
        let interval = self.spec.config.pattern_refresh_interval.as_millis();
        self.looks_at = now.saturating_add(i64::try_from(interval).unwrap_or(i64::MAX));
    }

    /// A topic that a pattern has matched is gone: looks at the next turn. Returns whether it is one.
    pub(super) fn look_since_gone(&mut self, topic: &str, now: Timestamp) -> bool {
        let matched = self.spec.topology.is_matched(topic);
        if matched {
            self.looks_at = now;
        }
        matched
    }

    /// The driver partitions of this thread whose tasks have other inputs in `topology`.
    fn affected_by(&self, topology: &ResolvedTopology) -> Vec<TopicPartition> {
        let before = self.spec.topology.all().map(|sub| sub.topics);
        let changed: BTreeSet<&str> = before
            .zip(topology.all())
            .filter(|(before, after)| before.sources != after.topics.sources)
            .map(|(before, _)| &*before.driver)
            .collect();
        let owned = self.owned.iter();
        owned
            .filter(|partition| changed.contains(&*partition.topic))
            .cloned()
            .collect()
    }
}

fn refused(error: TopicsError) -> Fault {
    match error {
        TopicsError::Log(error) => Fault::Log(error),
        error @ (TopicsError::NotCoPartitioned { .. }
        | TopicsError::PartitionCount { .. }
        | TopicsError::MatchedTwice { .. }
        | TopicsError::NoSource { .. }
        | TopicsError::Unresolvable(_)) => Fault::Refused(error.to_string()),
    }
}
