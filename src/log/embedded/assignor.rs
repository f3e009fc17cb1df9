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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOPICS: [&str; 3] = ["a", "b", "c"];

    fn partitions(counts: [i32; 3]) -> BTreeMap<TopicName, i32> {
        TOPICS
            .iter()
            .map(|name| TopicName::from(*name))
            .zip(counts)
            .collect()
    }

    fn subscriber(topics: &[usize]) -> Subscriber {
        let topics = topics
            .iter()
            .map(|at| TopicName::from(TOPICS[*at]))
            .collect();
        Subscriber {
            topics,
            owned: BTreeSet::new(),
        }
    }

    /// Lets members own what they were assigned.
    fn owning(
        members: &BTreeMap<u8, Subscriber>,
        assignment: &Assignment<u8>,
    ) -> BTreeMap<u8, Subscriber> {
        let own = |(member, one): (&u8, &Subscriber)| {
            (
                *member,
                Subscriber {
                    owned: assignment[member].clone(),
                    ..one.clone()
                },
            )
        };
        members.iter().map(own).collect()
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_who_subscribes_it(
            counts in [0..6_i32, 0..6, 0..6],
            topics in prop::collection::vec(prop::collection::vec(0..3_usize, 1..3), 1..5),
        ) {
            let members: BTreeMap<u8, Subscriber> =
                (0..).zip(topics.iter().map(|topics| subscriber(topics))).collect();
            let partitions = partitions(counts);
            let assignment = assign(&members, &partitions);
            for (topic, count) in &partitions {
                let subscribed = members.values().any(|one| one.topics.contains(topic));
                for number in 0..*count {
                    let partition = TopicPartition::new(TopicName::clone(topic), number);
                    let owners: Vec<_> = assignment
                        .iter()
                        .filter(|(_, owned)| owned.contains(&partition))
                        .map(|(member, _)| member)
                        .collect();
                    prop_assert_eq!(owners.len(), usize::from(subscribed));
                    prop_assert!(owners.iter().all(|one| members[one].topics.contains(topic)));
                }
            }
            // Stable: assigned again, nothing moves.
            prop_assert_eq!(&assign(&owning(&members, &assignment), &partitions), &assignment);
        }

        #[test]
        fn equal_subscribers_differ_by_one_at_most_and_keep_what_they_can(
            counts in [0..8_i32, 0..8, 0..8],
            size in 1..6_u8,
        ) {
            let partitions = partitions(counts);
            let members: BTreeMap<u8, Subscriber> =
                (0..size).map(|member| (member, subscriber(&[0, 1, 2]))).collect();
            let before = assign(&members, &partitions);
            let mut grown = owning(&members, &before);
            grown.insert(size, subscriber(&[0, 1, 2]));
            let after = assign(&grown, &partitions);
            let sizes: Vec<usize> = after.values().map(BTreeSet::len).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", sizes);
            // Only what the new member gets has moved.
            let moved: usize =
                members.keys().map(|member| (&before[member] - &after[member]).len()).sum();
            prop_assert_eq!(moved, after[&size].len());
        }
    }
}
