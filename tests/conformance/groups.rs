//! Consumer groups: joining, handing over, static members, offsets, reading.

use std::collections::VecDeque;
use std::time::Duration;

use millstream::log::{
    CommittedOffset, Log, LogConsumer, LogError, LogMessage, MembershipEvent, TopicName,
    TopicPartition,
};

use super::{
    Fixture, Member, Outcome, SESSION_TIMEOUT, Seen, at, await_balance, await_values, eventually,
    member_spec, poll_records, run_until, settle, stable_offsets, topic, tp, transactional, unique,
    write, write_transaction,
};

pub(crate) fn one_member_owns_everything<L: Log, F: Fixture<L>>(f: &mut F) {
    let (one, other) = (topic(f, 3, &[]), topic(f, 2, &[]));
    let spec = member_spec(&unique("group"), "client", None);
    let mut member = Member::join(
        f,
        &spec,
        &[TopicName::clone(&one), TopicName::clone(&other)],
    );
    assert!(!member.consumer.is_member());
    await_balance(f, &mut [&mut member], 5);
    assert!(member.consumer.is_member());
    let revoked = |event: &MembershipEvent| !matches!(event, MembershipEvent::Assigned(_));
    assert!(!member.events.iter().any(revoked), "{:?}", member.events);
}

pub(crate) fn partitions_move_cooperatively_when_a_member_joins<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 4, &[]);
    let group = unique("group");
    let mut first = Member::join(
        f,
        &member_spec(&group, "first", None),
        std::slice::from_ref(&topic),
    );
    await_balance(f, &mut [&mut first], 4);
    let mut second = Member::join(
        f,
        &member_spec(&group, "second", None),
        std::slice::from_ref(&topic),
    );
    await_balance(f, &mut [&mut first, &mut second], 4);
    assert_eq!((first.owned.len(), second.owned.len()), (2, 2));
    // Cooperative: what stays is never revoked.
    let revoked: Vec<&TopicPartition> = first
        .events
        .iter()
        .filter_map(|event| match event {
            MembershipEvent::Revoked(partitions) => Some(partitions),
            MembershipEvent::Assigned(_) => None,
            MembershipEvent::Lost(_) => panic!("nothing is lost: {:?}", first.events),
        })
        .flatten()
        .collect();
    assert_eq!(revoked.len(), 2, "{:?}", first.events);
    assert!(
        revoked
            .iter()
            .all(|partition| second.owned.contains(partition))
    );
}

pub(crate) fn a_partition_moves_only_after_revocation_was_answered<L: Log, F: Fixture<L>>(
    f: &mut F,
) {
    let topic = topic(f, 2, &[]);
    let group = unique("group");
    let mut first = Member::join(
        f,
        &member_spec(&group, "first", None),
        std::slice::from_ref(&topic),
    );
    await_balance(f, &mut [&mut first], 2);
    first.withholds = true;
    let mut second = Member::join(
        f,
        &member_spec(&group, "second", None),
        std::slice::from_ref(&topic),
    );
    let is_revoked = |event: &MembershipEvent| matches!(event, MembershipEvent::Revoked(_));
    run_until(
        f,
        &mut [&mut first, &mut second],
        "a partition is revoked",
        |members| members[0].events.iter().any(is_revoked),
    );
    for _ in 0..20 {
        first.step();
        second.step();
        f.pass(Duration::from_millis(20));
    }
    assert!(
        second.owned.is_empty(),
        "moved before its holder gave it back"
    );
    let Some(MembershipEvent::Revoked(partitions)) = first.events.last().cloned() else {
        panic!("{:?}", first.events);
    };
    first.consumer.unassign(&partitions).unwrap();
    first.owned.retain(|one| !partitions.contains(one));
    first.withholds = false;
    await_balance(f, &mut [&mut first, &mut second], 2);
    assert_eq!(second.owned.iter().cloned().collect::<Vec<_>>(), partitions);
}

pub(crate) fn partitions_move_when_a_member_leaves<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 4, &[]);
    let group = unique("group");
    let mut first = Member::join(
        f,
        &member_spec(&group, "first", None),
        std::slice::from_ref(&topic),
    );
    let instance = unique("instance");
    let spec = member_spec(&group, "second", Some(&instance));
    let mut second = Member::join(f, &spec, std::slice::from_ref(&topic));
    await_balance(f, &mut [&mut first, &mut second], 4);
    // To leave is final for a static member too.
    settle(f, "leave", || second.consumer.leave()).unwrap();
    assert!(!second.consumer.is_member());
    await_balance(f, &mut [&mut first], 4);
}

pub(crate) fn a_killed_members_partitions_move_after_its_session<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 2, &[]);
    let group = unique("group");
    let mut first = Member::join(
        f,
        &member_spec(&group, "first", None),
        std::slice::from_ref(&topic),
    );
    let instance = unique("instance");
    let spec = member_spec(&group, "second", Some(&instance));
    let mut second = Member::join(f, &spec, std::slice::from_ref(&topic));
    await_balance(f, &mut [&mut first, &mut second], 2);
    drop(second);
    let mut waited = Duration::ZERO;
    while waited < SESSION_TIMEOUT / 3 {
        first.step();
        f.pass(Duration::from_millis(100));
        waited += Duration::from_millis(100);
    }
    assert_eq!(first.owned.len(), 1, "moved before the session timed out");
    await_balance(f, &mut [&mut first], 2);
}

pub(crate) fn a_static_member_restarts_without_a_rebalance<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 4, &[]);
    let (group, a, b) = (unique("group"), unique("a"), unique("b"));
    let spec = member_spec(&group, "second", Some(&b));
    let mut first = Member::join(
        f,
        &member_spec(&group, "first", Some(&a)),
        std::slice::from_ref(&topic),
    );
    let mut second = Member::join(f, &spec, std::slice::from_ref(&topic));
    await_balance(f, &mut [&mut first, &mut second], 4);
    let (events, owned) = (first.events.len(), second.owned.clone());
    let metadata = first.consumer.group_metadata().unwrap();
    drop(second);
    let mut second = Member::join(f, &spec, std::slice::from_ref(&topic));
    run_until(
        f,
        &mut [&mut first, &mut second],
        "it has its partitions back",
        |members| members[1].owned == owned,
    );
    // Long enough for a rebalance, if there were one, to be noticed and to end.
    for _ in 0..40 {
        first.step();
        second.step();
        f.pass(Duration::from_millis(100));
    }
    assert_eq!(first.events.len(), events, "{:?}", first.events);
    assert_eq!(second.owned, owned);
    // The generation is the same, so metadata from before the restart still commits.
    let mut producer = transactional(f, &unique("id"));
    super::LogProducer::begin_transaction(&mut producer).unwrap();
    let offsets = [(tp(&topic, 0), at(1))];
    settle(f, "send offsets", || {
        super::LogProducer::send_offsets(&mut producer, &offsets, &metadata)
    })
    .unwrap();
    super::commit(f, &mut producer);
}

pub(crate) fn unsubscribed_partitions_can_be_assigned_too<L: Log, F: Fixture<L>>(f: &mut F) {
    let (driver, follower) = (topic(f, 2, &[]), topic(f, 2, &[]));
    for partition in 0..2 {
        write(f, &tp(&driver, partition), &[("k", "driver")]);
        write(f, &tp(&follower, partition), &[("k", "follower")]);
    }
    let spec = member_spec(&unique("group"), "client", None);
    let mut member = Member::join(f, &spec, std::slice::from_ref(&driver));
    await_balance(f, &mut [&mut member], 2);
    let mentioned = |event: &MembershipEvent| match event {
        MembershipEvent::Assigned(these)
        | MembershipEvent::Revoked(these)
        | MembershipEvent::Lost(these) => these.iter().any(|one| one.topic == follower),
    };
    assert!(!member.events.iter().any(mentioned), "{:?}", member.events);
    member
        .consumer
        .assign(&[(tp(&follower, 0), 0), (tp(&follower, 1), 0)])
        .unwrap();
    for partition in 0..2 {
        assert_eq!(
            poll_records(f, &mut member, &tp(&driver, partition), 1)[0].text(),
            "driver"
        );
        let seen = poll_records(f, &mut member, &tp(&follower, partition), 1);
        assert_eq!(seen[0].text(), "follower");
    }
    member
        .consumer
        .unassign(&[tp(&follower, 0), tp(&follower, 1)])
        .unwrap();
    assert!(member.consumer.is_member());
    assert_eq!(member.consumer.high_watermark(&tp(&follower, 0)), None);
    write(f, &tp(&driver, 0), &[("k", "more")]);
    assert_eq!(
        poll_records(f, &mut member, &tp(&driver, 0), 1)[0].text(),
        "more"
    );
}

pub(crate) fn members_show_client_id_and_assignment<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 2, &[]);
    let group = unique("group");
    let log = f.log().clone();
    assert!(
        settle(f, "members", || log.group_members(&group))
            .unwrap()
            .is_empty()
    );
    let mut member = Member::join(
        f,
        &member_spec(&group, "http://one:1", None),
        std::slice::from_ref(&topic),
    );
    await_balance(f, &mut [&mut member], 2);
    let members = settle(f, "members", || log.group_members(&group)).unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].client_id, "http://one:1");
    let mut assignment = members[0].assignment.clone();
    assignment.sort();
    assert_eq!(assignment, [tp(&topic, 0), tp(&topic, 1)]);
    settle(f, "leave", || member.consumer.leave()).unwrap();
    eventually(f, "the group is empty", |_| {
        log.group_members(&group).ok()?.is_empty().then_some(())
    });
}

pub(crate) fn offsets_keep_their_metadata<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 3, &[]);
    let group = unique("group");
    let log = f.log().clone();
    let metadata = "AgAAAAAAAAAAAAAAAA== \u{1F980}".to_owned();
    let offset = CommittedOffset {
        offset: 42,
        metadata,
    };
    let set = [(tp(&topic, 0), offset.clone()), (tp(&topic, 2), at(0))];
    settle(f, "alter", || log.alter_group_offsets(&group, &set)).unwrap();
    let asked = [tp(&topic, 2), tp(&topic, 1), tp(&topic, 0)];
    let offsets = settle(f, "offsets", || log.group_offsets(&group, &asked)).unwrap();
    assert_eq!(offsets, [Some(at(0)), None, Some(offset)]);
}

pub(crate) fn offsets_are_altered_only_without_members<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 1, &[]);
    let group = unique("group");
    let log = f.log().clone();
    let mut member = Member::join(
        f,
        &member_spec(&group, "client", None),
        std::slice::from_ref(&topic),
    );
    await_balance(f, &mut [&mut member], 1);
    let set = [(tp(&topic, 0), at(5))];
    let refused = settle(f, "alter", || log.alter_group_offsets(&group, &set));
    assert!(
        matches!(refused, Err(LogError::Fatal { .. })),
        "{refused:?}"
    );
    assert!(stable_offsets(f, &group, &[tp(&topic, 0)]).is_empty());
    settle(f, "leave", || member.consumer.leave()).unwrap();
    eventually(f, "the offsets can be altered", |_| {
        log.alter_group_offsets(&group, &set).ok()
    });
    assert_eq!(
        stable_offsets(f, &group, &[tp(&topic, 0)])[&tp(&topic, 0)],
        at(5)
    );
}

pub(crate) fn a_consumer_reads_in_order_from_its_offset<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let values: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let records: Vec<_> = values.iter().map(|value| ("k", value.as_str())).collect();
    write(f, &partition, &records);
    let spec = member_spec(&unique("group"), "client", None);
    let mut member = Member::<L>::join(f, &spec, std::slice::from_ref(&partition.topic));
    await_balance(f, &mut [&mut member], 1);
    member.consumer.seek(&partition, 100).unwrap();
    let seen = poll_records(f, &mut member, &partition, 200);
    assert_eq!(
        seen.iter().map(Seen::text).collect::<Vec<_>>(),
        values[100..]
    );
    assert_eq!(member.consumer.high_watermark(&partition), Some(300));
}

pub(crate) fn a_consumer_sees_committed_records_only<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["lost"], Outcome::Abort);
    write_transaction(f, &mut producer, &partition, &["kept"], Outcome::Commit);
    await_values(f, &partition, &["kept"]);
    let spec = member_spec(&unique("group"), "client", None);
    let mut member = Member::join(f, &spec, std::slice::from_ref(&partition.topic));
    await_balance(f, &mut [&mut member], 1);
    let seen = poll_records(f, &mut member, &partition, 1);
    assert_eq!(seen.iter().map(Seen::text).collect::<Vec<_>>(), ["kept"]);
}

pub(crate) fn seek_never_delivers_older_records<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let values: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let records: Vec<_> = values.iter().map(|value| ("k", value.as_str())).collect();
    write(f, &partition, &records);
    let spec = member_spec(&unique("group"), "client", None);
    let mut member = Member::join(f, &spec, std::slice::from_ref(&partition.topic));
    await_balance(f, &mut [&mut member], 1);
    // By now the client has fetched more than this one record.
    let mut records = VecDeque::new();
    eventually(f, "the first record", |_| {
        member.step();
        settle_ok(member.consumer.poll(&partition, 1, &mut records));
        (!records.is_empty()).then_some(())
    });
    for target in [400, 50, 499, 0] {
        settle(f, "seek", || member.consumer.seek(&partition, target)).unwrap();
        records.clear();
        eventually(f, "a record after the seek", |_| {
            member.step();
            settle_ok(member.consumer.poll(&partition, 3, &mut records));
            (!records.is_empty()).then_some(())
        });
        let offsets: Vec<i64> = records.iter().map(LogMessage::offset).collect();
        let count = i64::try_from(offsets.len()).unwrap();
        assert_eq!(offsets, (target..target + count).collect::<Vec<_>>());
    }
}

fn settle_ok(polled: Result<usize, LogError>) {
    match polled {
        Ok(_) | Err(LogError::Retriable { .. }) => {}
        Err(error) => panic!("poll: {error}"),
    }
}

pub(crate) fn a_member_without_partitions_is_a_member<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 1, &[]);
    let group = unique("group");
    let mut first = Member::join(
        f,
        &member_spec(&group, "first", None),
        std::slice::from_ref(&topic),
    );
    await_balance(f, &mut [&mut first], 1);
    let mut second = Member::join(
        f,
        &member_spec(&group, "second", None),
        std::slice::from_ref(&topic),
    );
    run_until(
        f,
        &mut [&mut first, &mut second],
        "both are members",
        |members| {
            members.iter().all(|one| one.consumer.is_member())
                && members.iter().map(|one| one.owned.len()).sum::<usize>() == 1
        },
    );
    assert_eq!(f.log().group_members(&group).unwrap().len(), 2);
}
