//! Fencing: by transactional id, by generation, by instance id, by time-out.

use std::time::Duration;

use millstream::log::{Log, LogConsumer, LogError, LogProducer};

use super::{
    Fixture, Member, Outcome, SESSION_TIMEOUT, await_balance, await_values, eventually,
    member_spec, send, settle, topic, tp, transactional, transactional_with_timeout, unique,
    write_transaction,
};

pub(crate) fn a_second_producer_fences_the_first<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let id = unique("id");
    let mut old = transactional(f, &id);
    write_transaction(f, &mut old, &partition, &["old"], Outcome::Commit);
    old.begin_transaction().unwrap();
    let mut new = transactional(f, &id);
    // The old one may learn of it at the first send, or only when it commits.
    let refused = send(&mut old, &partition, "zombie", "zombie", f.now())
        .and_then(|()| settle(f, "commit", || old.commit_transaction()));
    assert!(
        matches!(refused, Err(LogError::Fenced { .. })),
        "{refused:?}"
    );
    write_transaction(f, &mut new, &partition, &["new"], Outcome::Commit);
    await_values(f, &partition, &["old", "new"]);
}

pub(crate) fn init_aborts_what_the_predecessor_left_open<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let id = unique("id");
    let mut old = transactional(f, &id);
    old.begin_transaction().unwrap();
    send(&mut old, &partition, "open", "open", f.now()).unwrap();
    settle(f, "flush", || old.flush()).unwrap();
    drop(old);
    let mut new = transactional(f, &id);
    write_transaction(f, &mut new, &partition, &["new"], Outcome::Commit);
    // Nothing holds the last stable offset any more.
    await_values(f, &partition, &["new"]);
}

pub(crate) fn a_commit_with_an_old_generation_is_refused<L: Log, F: Fixture<L>>(f: &mut F) {
    let input = topic(f, 2, &[]);
    let group = unique("group");
    let mut first = Member::join(
        f,
        &member_spec(&group, "first", None),
        std::slice::from_ref(&input),
    );
    await_balance(f, &mut [&mut first], 2);
    let old = first.consumer.group_metadata().unwrap();
    let mut second = Member::join(
        f,
        &member_spec(&group, "second", None),
        std::slice::from_ref(&input),
    );
    await_balance(f, &mut [&mut first, &mut second], 2);

    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    let offsets = [(tp(&input, 0), super::at(1))];
    let refused = settle(f, "send offsets", || producer.send_offsets(&offsets, &old));
    assert!(
        matches!(
            refused,
            Err(LogError::MemberUnknown { .. } | LogError::Fenced { .. })
        ),
        "{refused:?}"
    );
    settle(f, "abort", || producer.abort_transaction()).unwrap();

    let fresh = first.consumer.group_metadata().unwrap();
    producer.begin_transaction().unwrap();
    settle(f, "send offsets", || {
        producer.send_offsets(&offsets, &fresh)
    })
    .unwrap();
    settle(f, "commit", || producer.commit_transaction()).unwrap();
}

pub(crate) fn a_member_that_left_cannot_commit<L: Log, F: Fixture<L>>(f: &mut F) {
    let input = topic(f, 1, &[]);
    let group = unique("group");
    let mut member = Member::join(
        f,
        &member_spec(&group, "client", None),
        std::slice::from_ref(&input),
    );
    // Somebody else keeps the group alive: a broker takes any offsets for a group that is empty.
    let mut other = Member::join(
        f,
        &member_spec(&group, "other", None),
        std::slice::from_ref(&input),
    );
    await_balance(f, &mut [&mut member, &mut other], 1);
    let metadata = member.consumer.group_metadata().unwrap();
    settle(f, "leave", || member.consumer.leave()).unwrap();
    await_balance(f, &mut [&mut other], 1);
    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    let offsets = [(tp(&input, 0), super::at(1))];
    let refused = settle(f, "send offsets", || {
        producer.send_offsets(&offsets, &metadata)
    });
    assert!(
        matches!(refused, Err(LogError::MemberUnknown { .. })),
        "{refused:?}"
    );
    assert!(!member.consumer.is_member());
}

pub(crate) fn a_replaced_static_member_cannot_commit<L: Log, F: Fixture<L>>(f: &mut F) {
    let input = topic(f, 1, &[]);
    let (group, instance) = (unique("group"), unique("instance"));
    let spec = member_spec(&group, "client", Some(&instance));
    let mut old = Member::join(f, &spec, std::slice::from_ref(&input));
    await_balance(f, &mut [&mut old], 1);
    let metadata = old.consumer.group_metadata().unwrap();
    let mut new = Member::join(f, &spec, std::slice::from_ref(&input));
    await_balance(f, &mut [&mut new], 1);

    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    let offsets = [(tp(&input, 0), super::at(1))];
    let refused = settle(f, "send offsets", || {
        producer.send_offsets(&offsets, &metadata)
    });
    assert!(
        matches!(refused, Err(LogError::Fenced { .. })),
        "{refused:?}"
    );
    // The old one learns of it.
    eventually(f, "the old member is told", |_| {
        match old.consumer.poll_membership() {
            Err(LogError::Fenced { .. }) => Some(()),
            Ok(_) | Err(LogError::Retriable { .. }) => None,
            Err(error) => panic!("poll membership: {error}"),
        }
    });
}

pub(crate) fn a_transaction_that_times_out_is_aborted_and_fenced<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let id = unique("id");
    let mut slow = transactional_with_timeout(f, &id, Duration::from_secs(2));
    let mut other = transactional(f, &unique("id"));
    slow.begin_transaction().unwrap();
    send(&mut slow, &partition, "slow", "slow", f.now()).unwrap();
    settle(f, "flush", || slow.flush()).unwrap();
    write_transaction(f, &mut other, &partition, &["other"], Outcome::Commit);
    f.pass(SESSION_TIMEOUT);
    await_values(f, &partition, &["other"]);
    let refused = settle(f, "commit", || slow.commit_transaction());
    assert!(
        matches!(
            refused,
            Err(LogError::Fenced { .. } | LogError::AbortRequired { .. } | LogError::Fatal { .. })
        ),
        "{refused:?}"
    );
    let mut again = transactional(f, &id);
    write_transaction(f, &mut again, &partition, &["again"], Outcome::Commit);
    await_values(f, &partition, &["other", "again"]);
}
