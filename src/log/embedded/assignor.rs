//! Who gets which partition: sticky, balanced, deterministic. Pure.
//!
//! As Kafka's `StickyAssignor`: a member keeps what it has as long as the numbers of partitions per
//! member differ by no more than one where subscriptions allow.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::{TopicName, TopicPartition};

/// What the assignor knows of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) topics: BTreeSet<TopicName>,
    pub(super) owned: BTreeSet<TopicPartition>,
}

/// Who gets what.
pub(super) type Assignment<M> = BTreeMap<M, BTreeSet<TopicPartition>>;

/// Assigns all partitions of the subscribed topics among `members`.
pub(super) fn assign<M: Ord + Copy>(
    members: &BTreeMap<M, Subscriber>,
    partitions: &BTreeMap<TopicName, i32>,
) -> Assignment<M> {
    let mut assignment: Assignment<M> = members
        .keys()
        .map(|member| (*member, BTreeSet::new()))
        .collect();
    for (topic, count) in partitions {
        for number in 0..*count {
            let partition = TopicPartition::new(TopicName::clone(topic), number);
            let owner = members
                .iter()
                .find(|(_, one)| one.topics.contains(topic) && one.owned.contains(&partition));
            if let Some((member, _)) = owner {
                assignment.entry(*member).or_default().insert(partition);
            }
        }
    }
    hand_out_unowned(members, partitions, &mut assignment);
    while let Some((partition, from, to)) = next_move(members, &assignment) {
        if let Some(owned) = assignment.get_mut(&from) {
            owned.remove(&partition);
        }
        assignment.entry(to).or_default().insert(partition);
    }
    assignment
}

fn hand_out_unowned<M: Ord + Copy>(
    members: &BTreeMap<M, Subscriber>,
    partitions: &BTreeMap<TopicName, i32>,
    assignment: &mut Assignment<M>,
) {
    for (topic, count) in partitions {
        for number in 0..*count {
            let partition = TopicPartition::new(TopicName::clone(topic), number);
            if assignment.values().any(|owned| owned.contains(&partition)) {
                continue;
            }
            let least = members
                .iter()
                .filter(|(_, one)| one.topics.contains(topic))
                .map(|(member, _)| *member)
                .min_by_key(|member| (count_of(assignment, member), *member));
            if let Some(member) = least {
                assignment.entry(member).or_default().insert(partition);
            }
        }
    }
}

/// Returns a move that evens out the numbers, if there is one. Each move lowers the sum of their
/// squares, so there is an end.
fn next_move<M: Ord + Copy>(
    members: &BTreeMap<M, Subscriber>,
    assignment: &Assignment<M>,
) -> Option<(TopicPartition, M, M)> {
    let mut most: Vec<M> = members.keys().copied().collect();
    most.sort_by_key(|member| (std::cmp::Reverse(count_of(assignment, member)), *member));
    for from in &most {
        for to in most.iter().rev() {
            if count_of(assignment, from) < count_of(assignment, to) + 2 {
                break;
            }
            let topics = members.get(to).map(|one| &one.topics);
            let movable = assignment
                .get(from)
                .into_iter()
                .flatten()
                .filter(|partition| topics.is_some_and(|topics| topics.contains(&partition.topic)));
            // From the topic in which the two differ most, so that each topic is spread as well.
            let best = movable.max_by_key(|partition| {
                let here = of_topic(assignment, from, &partition.topic);
                let there = of_topic(assignment, to, &partition.topic);
                (here - there, *partition)
            });
            if let Some(partition) = best {
                return Some((partition.clone(), *from, *to));
            }
        }
    }
    None
}

fn count_of<M: Ord>(assignment: &Assignment<M>, member: &M) -> usize {
    assignment.get(member).map_or(0, BTreeSet::len)
}

fn of_topic<M: Ord>(assignment: &Assignment<M>, member: &M, topic: &str) -> i64 {
    let owned = assignment.get(member).into_iter().flatten();
    i64::try_from(owned.filter(|partition| &*partition.topic == topic).count()).unwrap_or(i64::MAX)
}
