//! Static identity and driver topics on a real broker.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by a panic, in helpers as well, and shows what it measured"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::log::{
    Log, LogConsumer, LogError, LogMessage, LogProducer, MembershipEvent, TopicPartition,
};

use crate::support::{
    PATIENCE, await_assigned, await_records, broker, member, membership, producer, send, topic,
    unique, until,
};

/// Answers events until every member owns something and the topic is divided.
fn settle(
    consumers: &mut [&mut millstream::log::kafka::KafkaConsumer],
    mut owned: Vec<Vec<TopicPartition>>,
    partitions: usize,
) -> Vec<Vec<TopicPartition>> {
    until("a balanced group", || {
        for (consumer, owned) in consumers.iter_mut().zip(&mut owned) {
            match membership(consumer) {
                Some(MembershipEvent::Assigned(added)) => {
                    let from: Vec<_> = added.iter().map(|at| (at.clone(), 0)).collect();
                    consumer.assign(&from).unwrap();
                    owned.extend(added);
                }
                Some(MembershipEvent::Revoked(gone) | MembershipEvent::Lost(gone)) => {
                    consumer.unassign(&gone).unwrap();
                    owned.retain(|at| !gone.contains(at));
                }
                None => {}
            }
        }
        let total: usize = owned.iter().map(Vec::len).sum();
        (total == partitions && owned.iter().all(|own| !own.is_empty())).then_some(())
    });
    owned.iter_mut().for_each(|own| own.sort());
    owned
}

#[test]
fn a_killed_static_member_that_comes_back_resumes_without_a_rebalance() {
    let Some(log) = broker("static_member") else {
        return;
    };
    let name = topic(&log, "static", 4);
    let group = unique("static");
    let mut stays = log.consumer(&member(&group, Some("stays"))).unwrap();
    let mut dies = log.consumer(&member(&group, Some("dies"))).unwrap();
    stays.subscribe(&[Arc::clone(&name)]).unwrap();
    dies.subscribe(&[Arc::clone(&name)]).unwrap();
    let before = settle(&mut [&mut stays, &mut dies], vec![vec![]; 2], 4);
    let killed = Instant::now();
    drop(dies);
    let mut back = log.consumer(&member(&group, Some("dies"))).unwrap();
    back.subscribe(&[Arc::clone(&name)]).unwrap();
    let mut again = until("the assignment of the former life", || {
        assert_eq!(
            membership(&mut stays),
            None,
            "the other member sees no rebalance"
        );
        match membership(&mut back)? {
            MembershipEvent::Assigned(partitions) => Some(partitions),
            other => panic!("unexpected {other:?}"),
        }
    });
    println!(
        "a static member had its partitions back after {:?}",
        killed.elapsed()
    );
    again.sort();
    assert_eq!(again, before[1]);
    // Less than the session time-out: nobody waited for it.
    assert!(killed.elapsed() < Duration::from_secs(5));
}

#[test]
fn leaving_moves_the_partitions_of_a_static_member_at_once() {
    let Some(log) = broker("leave") else { return };
    let name = topic(&log, "leave", 4);
    let group = unique("leave");
    let mut stays = log.consumer(&member(&group, Some("stays"))).unwrap();
    let mut leaves = log.consumer(&member(&group, Some("leaves"))).unwrap();
    stays.subscribe(&[Arc::clone(&name)]).unwrap();
    leaves.subscribe(&[Arc::clone(&name)]).unwrap();
    let mut owned = settle(&mut [&mut stays, &mut leaves], vec![vec![]; 2], 4);
    assert!(leaves.is_member());
    let members = log.group_members(&group).unwrap();
    let mut instances: Vec<_> = members
        .iter()
        .filter_map(|member| member.group_instance_id.clone())
        .collect();
    instances.sort();
    assert_eq!(
        instances,
        [format!("{group}-leaves"), format!("{group}-stays")]
    );
    assert!(
        members
            .iter()
            .all(|member| member.client_id.starts_with("client-"))
    );
    assert_eq!(
        members
            .iter()
            .map(|member| member.assignment.len())
            .sum::<usize>(),
        4
    );
    let left = Instant::now();
    leaves.leave().unwrap();
    println!("leaving took {:?}", left.elapsed());
    assert!(!leaves.is_member());
    assert_eq!(log.group_members(&group).unwrap().len(), 1);
    owned.truncate(1);
    settle(&mut [&mut stays], owned, 4);
    println!(
        "the other member had all partitions after {:?}",
        left.elapsed()
    );
    assert!(
        left.elapsed() < Duration::from_secs(5),
        "the session time-out was not waited for"
    );
}

#[test]
fn a_second_process_under_the_same_identity_fences_the_first() {
    let Some(log) = broker("same_identity") else {
        return;
    };
    let name = topic(&log, "identity", 1);
    let group = unique("identity");
    let mut first = log.consumer(&member(&group, Some("0"))).unwrap();
    first.subscribe(&[Arc::clone(&name)]).unwrap();
    settle(&mut [&mut first], vec![vec![]], 1);
    let mut second = log.consumer(&member(&group, Some("0"))).unwrap();
    second.subscribe(&[Arc::clone(&name)]).unwrap();
    await_assigned(&mut second);
    second.assign(&[]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let fenced = loop {
        match first.poll_membership() {
            Ok(_) => assert!(Instant::now() < deadline, "the first is never fenced"),
            Err(LogError::Retriable { .. }) => {}
            Err(error) => break error,
        }
        first.wait(Duration::from_millis(20));
    };
    assert!(matches!(fenced, LogError::Fenced { .. }), "{fenced:?}");
    assert!(!first.is_member());
    let result = first.group_metadata().err();
    assert!(
        matches!(result, Some(LogError::MemberUnknown { .. })),
        "{result:?}"
    );
}

#[test]
fn co_partitioned_topics_follow_the_driver_topic() {
    let Some(log) = broker("driver_topic") else {
        return;
    };
    let driver = topic(&log, "driver", 2);
    let follower = topic(&log, "follower", 2);
    let group = unique("driver");
    let mut producer = producer(&log, &unique("driver"));
    producer.begin_transaction().unwrap();
    for partition in 0..2 {
        send(&mut producer, &driver, partition, "k", b"driver").unwrap();
        send(&mut producer, &follower, partition, "k", b"follower").unwrap();
    }
    producer.commit_transaction().unwrap();
    let mut first = log.consumer(&member(&group, Some("0"))).unwrap();
    first.subscribe(&[Arc::clone(&driver)]).unwrap();
    let of = |topic: &Arc<str>, partition| TopicPartition::new(Arc::clone(topic), partition);
    let both = |partition| vec![of(&driver, partition), of(&follower, partition)];
    let from_start = |partitions: &[TopicPartition]| -> Vec<_> {
        partitions.iter().map(|at| (at.clone(), 0)).collect()
    };
    let mut assigned = await_assigned(&mut first);
    assigned.sort();
    assert_eq!(
        assigned,
        [of(&driver, 0), of(&driver, 1)],
        "only the driver is assigned"
    );
    first
        .assign(&from_start(&[both(0), both(1)].concat()))
        .unwrap();
    for partition in 0..2 {
        for at in both(partition) {
            assert_eq!(await_records(&mut first, &at, 1).len(), 1, "{at}");
        }
    }
    // A second member takes one driver partition over, and with it the follower's.
    let mut second = log.consumer(&member(&group, Some("1"))).unwrap();
    second.subscribe(&[Arc::clone(&driver)]).unwrap();
    let moved = until("a takeover", || {
        if let Some(event) = membership(&mut first) {
            match event {
                MembershipEvent::Revoked(gone) => {
                    let gone: Vec<_> = gone.iter().flat_map(|at| both(at.partition)).collect();
                    first.unassign(&gone).unwrap();
                }
                MembershipEvent::Assigned(none) => {
                    assert!(none.is_empty());
                    first.assign(&[]).unwrap();
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        match membership(&mut second)? {
            MembershipEvent::Assigned(added) if added.is_empty() => {
                second.assign(&[]).unwrap();
                None
            }
            MembershipEvent::Assigned(added) => Some(added),
            other => panic!("unexpected {other:?}"),
        }
    });
    assert_eq!(moved.len(), 1);
    let taken = both(moved[0].partition);
    second.assign(&from_start(&taken)).unwrap();
    let follower_record = await_records(&mut second, &taken[1], 1);
    assert_eq!(follower_record[0].value(), Some(b"follower".as_slice()));
}

#[test]
fn a_seek_goes_back_and_forward_and_nothing_prefetched_is_delivered() {
    let Some(log) = broker("seek") else { return };
    let name = topic(&log, "seek", 1);
    let at = TopicPartition::new(Arc::clone(&name), 0);
    let mut producer = producer(&log, &unique("seek"));
    producer.begin_transaction().unwrap();
    for number in 0..1000_u32 {
        send(&mut producer, &name, 0, "k", &number.to_be_bytes()).unwrap();
    }
    producer.commit_transaction().unwrap();
    let mut consumer = log.consumer(&member(&unique("seek"), None)).unwrap();
    consumer.subscribe(&[name]).unwrap();
    await_assigned(&mut consumer);
    // At once: the partition is not being fetched yet.
    consumer.assign(&[(at.clone(), 0)]).unwrap();
    consumer.seek(&at, 500).unwrap();
    assert_eq!(await_records(&mut consumer, &at, 1)[0].offset(), 500);
    for target in [10, 990, 0, 999, 3] {
        consumer.seek(&at, target).unwrap();
        let count = usize::try_from(1000 - target).unwrap().min(100);
        let read = await_records(&mut consumer, &at, count);
        let offsets: Vec<_> = read.iter().map(LogMessage::offset).collect();
        let expected: Vec<_> = (target..).take(count).collect();
        assert_eq!(offsets, expected, "after a seek to {target}");
    }
    assert_eq!(consumer.high_watermark(&at), Some(1001));
}
