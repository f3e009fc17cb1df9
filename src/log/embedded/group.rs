//! A consumer group: who is a member, who holds what, and how partitions change hands.
//!
//! # Protocol
//! Kafka's classic protocol with cooperative rebalancing (KIP-429) and static members (KIP-345):
//!
//! ```text
//!            join, leave, expiry, unassign after Revoked, topics changed
//!   Stable ─────────────────────────────────────────────────────────────▶ Preparing
//!      ▲                                                                      │
//!      └── every member has polled with no event unanswered: generation + 1 ──┘
//! ```
//!
//! # Invariants
//! - A partition is in `owned` of one member at most: a grant waits until its holder has answered
//!   `Revoked`, and the answer starts another rebalance, as in Kafka.
//! - The generation grows only when every member has polled since the rebalance began, so metadata
//!   taken after a poll is current unless the member was dropped meanwhile.
//! - A static member that comes back takes over its predecessor's partitions in the same
//!   generation; the predecessor is fenced from then on.

use std::collections::{BTreeMap, BTreeSet};

use super::assignor::{Subscriber, assign};
use crate::log::{ConsumerSpec, MembershipEvent, TopicName, TopicPartition};

/// Names a member for the life of the log.
pub(super) type MemberId = u64;

/// `max.poll.interval.ms`, and with it the rebalance timeout: Kafka's default.
pub(super) const MAX_POLL_INTERVAL_MS: i64 = 300_000;

/// The answer that a member owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaiting {
    Nothing,
    Assign,
    Unassign,
}

/// A member of a group.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) client_id: String,
    pub(super) instance: Option<String>,
    pub(super) owned: BTreeSet<TopicPartition>,
    topics: BTreeSet<TopicName>,
    session_timeout_ms: i64,
    last_seen: i64,
    /// The client lives, so its background heartbeats are implied (not under virtual time).
    connected: bool,
    to_assign: BTreeSet<TopicPartition>,
    to_revoke: BTreeSet<TopicPartition>,
    awaiting: Awaiting,
    joined: bool,
    has_assignment: bool,
}

/// Why a member's request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another member runs under the same `group.instance.id`.
    Fenced,
    /// The group does not know the member.
    Unknown,
    /// The member exists, but the generation is another.
    Generation(i32),
}

/// A group.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    pub(super) generation: i32,
    preparing_since: Option<i64>,
    pub(super) members: BTreeMap<MemberId, Member>,
    instances: BTreeMap<String, MemberId>,
}

impl Group {
    /// Adds `id`, or changes what it subscribes.
    pub(super) fn join(
        &mut self,
        id: MemberId,
        spec: &ConsumerSpec,
        topics: &[TopicName],
        now: i64,
    ) {
        let topics: BTreeSet<TopicName> = topics.iter().cloned().collect();
        if let Some(member) = self.members.get_mut(&id) {
            if member.topics != topics {
                member.topics = topics;
                self.rebalance(now);
            }
            return;
        }
        let mut member = Member {
            client_id: spec.client_id.clone(),
            instance: spec.group_instance_id.clone(),
            owned: BTreeSet::new(),
            topics,
            session_timeout_ms: i64::try_from(spec.session_timeout.as_millis()).unwrap_or(i64::MAX),
            last_seen: now,
            connected: true,
            to_assign: BTreeSet::new(),
            to_revoke: BTreeSet::new(),
            awaiting: Awaiting::Nothing,
            joined: false,
            has_assignment: false,
        };
        let predecessor = member
            .instance
            .as_ref()
            .and_then(|instance| self.instances.insert(instance.clone(), id))
            .and_then(|old| self.members.remove(&old));
        let mut resumes = false;
        if let Some(old) = predecessor {
            member.owned = &old.owned - &old.to_revoke;
            member.to_assign = member.owned.clone();
            // What the predecessor owed back is free: nobody holds it any more.
            resumes = old.topics == member.topics && old.to_revoke.is_empty();
        }
        self.members.insert(id, member);
        if !resumes {
            self.rebalance(now);
        }
    }

    /// Starts a rebalance, or starts it over.
    fn rebalance(&mut self, now: i64) {
        if self.members.is_empty() {
            self.preparing_since = None;
            return;
        }
        self.preparing_since.get_or_insert(now);
        for member in self.members.values_mut() {
            member.joined = false;
        }
    }

    /// A topic appeared or went: rebalances when somebody subscribes it.
    pub(super) fn topic_changed(&mut self, topic: &str, now: i64) -> bool {
        let concerns = self
            .members
            .values()
            .any(|member| member.topics.contains(topic));
        if concerns {
            self.rebalance(now);
        }
        concerns
    }

    /// Returns the next event of a member.
    pub(super) fn poll(
        &mut self,
        id: MemberId,
        partitions: &BTreeMap<TopicName, i32>,
    ) -> Option<MembershipEvent> {
        if let Some(event) = self.deliver(id) {
            return Some(event);
        }
        let member = self.members.get_mut(&id)?;
        if member.awaiting != Awaiting::Nothing || self.preparing_since.is_none() {
            return None;
        }
        member.joined = true;
        if !self.members.values().all(|member| member.joined) {
            return None;
        }
        self.complete(partitions);
        self.deliver(id)
    }

    fn deliver(&mut self, id: MemberId) -> Option<MembershipEvent> {
        let member = self.members.get_mut(&id)?;
        if member.awaiting != Awaiting::Nothing {
            return None;
        }
        if !member.to_revoke.is_empty() {
            member.awaiting = Awaiting::Unassign;
            return Some(MembershipEvent::Revoked(
                member.to_revoke.iter().cloned().collect(),
            ));
        }
        let first = !member.has_assignment && self.preparing_since.is_none();
        if member.to_assign.is_empty() && !first {
            return None;
        }
        member.has_assignment = true;
        let granted: Vec<_> = std::mem::take(&mut member.to_assign).into_iter().collect();
        if !granted.is_empty() {
            member.awaiting = Awaiting::Assign;
        }
        Some(MembershipEvent::Assigned(granted))
    }

    /// Ends a rebalance: a new generation, revocations, and grants of what nobody holds.
    fn complete(&mut self, partitions: &BTreeMap<TopicName, i32>) {
        self.generation += 1;
        self.preparing_since = None;
        let subscribers = self
            .members
            .iter()
            .map(|(id, member)| {
                let one = Subscriber {
                    topics: member.topics.clone(),
                    owned: member.owned.clone(),
                };
                (*id, one)
            })
            .collect();
        let held: BTreeSet<TopicPartition> = self
            .members
            .values()
            .flat_map(|member| member.owned.iter().cloned())
            .collect();
        for (id, target) in assign(&subscribers, partitions) {
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.to_revoke = &member.owned - &target;
            let granted = &target - &held;
            member.owned.extend(granted.iter().cloned());
            member.to_assign = granted;
        }
    }

    /// Takes the answer to `Assigned`.
    pub(super) fn assign_answered(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id)
            && member.awaiting == Awaiting::Assign
        {
            member.awaiting = Awaiting::Nothing;
        }
    }

    /// Takes the answer, or a part of it, to `Revoked`. Returns whether it is complete.
    pub(super) fn unassigned(
        &mut self,
        id: MemberId,
        partitions: &[TopicPartition],
        now: i64,
    ) -> bool {
        let Some(member) = self.members.get_mut(&id) else {
            return false;
        };
        if member.awaiting != Awaiting::Unassign {
            return false;
        }
        for partition in partitions {
            if member.to_revoke.remove(partition) {
                member.owned.remove(partition);
            }
        }
        if !member.to_revoke.is_empty() {
            return false;
        }
        member.awaiting = Awaiting::Nothing;
        self.rebalance(now);
        true
    }

    /// Removes a member; its partitions are free at once.
    pub(super) fn remove(&mut self, id: MemberId, now: i64) -> bool {
        let Some(member) = self.members.remove(&id) else {
            return false;
        };
        if let Some(instance) = member.instance
            && self.instances.get(&instance) == Some(&id)
        {
            self.instances.remove(&instance);
        }
        self.rebalance(now);
        true
    }

    /// Notes that a member has called.
    pub(super) fn touch(&mut self, id: MemberId, now: i64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.last_seen = now;
        }
    }

    /// Notes that a member's client is gone without having left. Under background heartbeats its
    /// session counts from now; otherwise from its last call.
    pub(super) fn disconnected(&mut self, id: MemberId, heartbeat: Option<i64>) {
        if let Some(member) = self.members.get_mut(&id) {
            member.connected = false;
            member.last_seen = heartbeat.unwrap_or(member.last_seen);
        }
    }

    /// Returns when the first member will expire, if none of them calls before.
    pub(super) fn deadline(&self, background: bool) -> Option<i64> {
        let members = self
            .members
            .values()
            .map(|member| member.deadline(background));
        let unjoined = self
            .preparing_since
            .map(|since| since.saturating_add(MAX_POLL_INTERVAL_MS));
        members.chain(unjoined).min()
    }

    /// Removes members whose session has timed out. Returns whether there were any.
    pub(super) fn expire(&mut self, now: i64, background: bool) -> bool {
        let overdue = self
            .preparing_since
            .is_some_and(|since| now > since.saturating_add(MAX_POLL_INTERVAL_MS));
        let expired: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, member)| now > member.deadline(background) || (overdue && !member.joined))
            .map(|(id, _)| *id)
            .collect();
        if overdue {
            self.preparing_since = Some(now);
        }
        for id in &expired {
            self.remove(*id, now);
        }
        !expired.is_empty()
    }

    /// Checks a member's identity.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn check_member(
        &self,
        id: MemberId,
        instance: Option<&str>,
    ) -> Result<&Member, Refusal> {
        if let Some(member) = self.members.get(&id) {
            return Ok(member);
        }
        let taken = instance.is_some_and(|instance| self.instances.contains_key(instance));
        Err(if taken {
            Refusal::Fenced
        } else {
            Refusal::Unknown
        })
    }

    /// Checks what fences a transactional offset commit (KIP-447).
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn check_generation(
        &self,
        id: MemberId,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Refusal> {
        self.check_member(id, instance)?;
        if self.generation == generation {
            Ok(())
        } else {
            Err(Refusal::Generation(self.generation))
        }
    }

    /// Returns whether a rebalance is under way.
    pub(super) fn is_preparing(&self) -> bool {
        self.preparing_since.is_some()
    }
}

impl Member {
    /// Returns what the current generation gives to the member: no longer what it has been asked to
    /// give up.
    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        self.owned.difference(&self.to_revoke).cloned().collect()
    }

    fn deadline(&self, background: bool) -> i64 {
        let timeout = if background && self.connected {
            MAX_POLL_INTERVAL_MS.max(self.session_timeout_ms)
        } else {
            self.session_timeout_ms
        };
        self.last_seen.saturating_add(timeout)
    }
}

#[cfg(test)]
mod tests;
