//! Transactions: what becomes visible, when, and together with what.

use std::time::Duration;

use millstream::log::{
    CommittedOffset, Isolation, Log, LogConsumer, LogError, LogProducer, LogReader,
};

use super::{
    Fixture, Member, Outcome, Seen, abort, await_balance, await_values, commit, committed_values,
    eventually, member_spec, read, send, settle, stable_offsets, topic, tp, transactional, unique,
    write_transaction,
};

pub(crate) fn a_commit_is_visible_in_all_partitions<L: Log, F: Fixture<L>>(f: &mut F) {
    let (one, other) = (topic(f, 2, &[]), topic(f, 1, &[]));
    let partitions = [tp(&one, 0), tp(&one, 1), tp(&other, 0)];
    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    for partition in &partitions {
        send(&mut producer, partition, "key", "value", f.now()).unwrap();
    }
    settle(f, "flush", || producer.flush()).unwrap();
    for partition in &partitions {
        assert!(
            committed_values(f, partition).is_empty(),
            "visible before the commit"
        );
    }
    commit(f, &mut producer);
    for partition in &partitions {
        await_values(f, partition, &["value"]);
    }
}

pub(crate) fn an_abort_is_never_visible<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["a", "b"], Outcome::Abort);
    write_transaction(f, &mut producer, &partition, &["c"], Outcome::Commit);
    write_transaction(f, &mut producer, &partition, &["d"], Outcome::Abort);
    await_values(f, &partition, &["c"]);
}

pub(crate) fn an_open_transaction_holds_the_last_stable_offset<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut holder = transactional(f, &unique("holder"));
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["before"], Outcome::Commit);
    await_values(f, &partition, &["before"]);

    holder.begin_transaction().unwrap();
    send(&mut holder, &partition, "held", "held", f.now()).unwrap();
    settle(f, "flush", || holder.flush()).unwrap();
    write_transaction(f, &mut producer, &partition, &["behind"], Outcome::Commit);
    let ranges = |f: &mut F, isolation| {
        let log = f.log().clone();
        settle(f, "ranges", || {
            log.log_ranges(std::slice::from_ref(&partition), isolation)
        })
        .unwrap()[0]
    };
    // Offsets: before, its marker, held, behind, its marker.
    assert_eq!(ranges(f, Isolation::ReadCommitted).end, 2);
    eventually(f, "the marker of the second commit", |f| {
        (ranges(f, Isolation::ReadUncommitted).end == 5).then_some(())
    });
    assert_eq!(ranges(f, Isolation::ReadCommitted).end, 2);
    assert_eq!(committed_values(f, &partition), ["before"]);
    abort(f, &mut holder);
    await_values(f, &partition, &["before", "behind"]);
}

pub(crate) fn position_moves_past_markers_and_aborted_records<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["a"], Outcome::Commit);
    write_transaction(f, &mut producer, &partition, &["b", "c"], Outcome::Abort);
    // a, marker, b, c, marker.
    let log = f.log().clone();
    eventually(f, "both ended", |_| {
        let ranges = log.log_ranges(std::slice::from_ref(&partition), Isolation::ReadCommitted);
        (ranges.ok()?[0].end == 5).then_some(())
    });
    let mut reader = log.reader(Isolation::ReadCommitted).unwrap();
    reader.assign(&[(partition.clone(), 0)]).unwrap();
    let mut seen = Vec::new();
    eventually(f, "the position is the end", |_| {
        settle_poll::<L>(&mut reader, &mut seen);
        (reader.position(&partition) == Some(5)).then_some(())
    });
    assert_eq!(seen.iter().map(Seen::text).collect::<Vec<_>>(), ["a"]);
}

fn settle_poll<L: Log>(reader: &mut L::Reader, seen: &mut Vec<Seen>) {
    let mut batch = Vec::new();
    match reader.poll(10, Duration::from_millis(50), &mut batch) {
        Ok(_) | Err(LogError::Retriable { .. }) => {}
        Err(error) => panic!("poll: {error}"),
    }
    seen.extend(batch.iter().map(Seen::of));
}

pub(crate) fn markers_take_an_offset<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["a"], Outcome::Commit);
    write_transaction(f, &mut producer, &partition, &["b"], Outcome::Commit);
    await_values(f, &partition, &["a", "b"]);
    let seen = read(f, &partition, Isolation::ReadCommitted);
    assert_eq!(
        seen.iter().map(|one| one.offset).collect::<Vec<_>>(),
        [0, 2]
    );
}

pub(crate) fn an_uncommitted_reader_sees_everything<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["aborted"], Outcome::Abort);
    producer.begin_transaction().unwrap();
    send(&mut producer, &partition, "open", "open", f.now()).unwrap();
    settle(f, "flush", || producer.flush()).unwrap();
    let seen = read(f, &partition, Isolation::ReadUncommitted);
    assert_eq!(
        seen.iter().map(Seen::text).collect::<Vec<_>>(),
        ["aborted", "open"]
    );
    assert!(committed_values(f, &partition).is_empty());
    abort(f, &mut producer);
}

pub(crate) fn offsets_commit_with_the_transaction<L: Log, F: Fixture<L>>(f: &mut F) {
    let (input, output) = (topic(f, 1, &[]), tp(&topic(f, 1, &[]), 0));
    let group = unique("group");
    let mut member = Member::join(
        f,
        &member_spec(&group, "client", None),
        std::slice::from_ref(&input),
    );
    await_balance(f, &mut [&mut member], 1);
    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    send(&mut producer, &output, "k", "v", f.now()).unwrap();
    let offset = CommittedOffset {
        offset: 7,
        metadata: "meta".to_owned(),
    };
    let metadata = member.consumer.group_metadata().unwrap();
    settle(f, "send offsets", || {
        producer.send_offsets(&[(tp(&input, 0), offset.clone())], &metadata)
    })
    .unwrap();
    commit(f, &mut producer);
    await_values(f, &output, &["v"]);
    let stable = settle(f, "committed", || {
        member.consumer.committed(&[tp(&input, 0)])
    })
    .unwrap();
    assert_eq!(stable, [Some(offset.clone())]);
    assert_eq!(
        stable_offsets(f, &group, &[tp(&input, 0)])[&tp(&input, 0)],
        offset
    );
}

pub(crate) fn metadata_beyond_the_limit_is_refused<L: Log, F: Fixture<L>>(f: &mut F) {
    let (input, output) = (topic(f, 1, &[]), tp(&topic(f, 1, &[]), 0));
    let spec = member_spec(&unique("group"), "client", None);
    let mut member = Member::join(f, &spec, std::slice::from_ref(&input));
    await_balance(f, &mut [&mut member], 1);
    let mut producer = transactional(f, &unique("id"));
    for (len, taken) in [(4096, true), (4097, false), (10, true)] {
        producer.begin_transaction().unwrap();
        send(&mut producer, &output, "k", &format!("{len}"), f.now()).unwrap();
        let offset = CommittedOffset {
            offset: 7,
            metadata: "m".repeat(len),
        };
        let group = member.consumer.group_metadata().unwrap();
        let sent = settle(f, "send offsets", || {
            producer.send_offsets(&[(tp(&input, 0), offset.clone())], &group)
        });
        if taken {
            sent.unwrap();
            commit(f, &mut producer);
        } else {
            let error = sent.unwrap_err();
            assert!(
                matches!(error, LogError::OffsetMetadataTooLarge { .. }),
                "{error:?}"
            );
            settle(f, "abort", || producer.abort_transaction()).unwrap();
        }
    }
    await_values(f, &output, &["4096", "10"]);
}

pub(crate) fn offsets_of_an_aborted_transaction_are_forgotten<L: Log, F: Fixture<L>>(f: &mut F) {
    let input = topic(f, 1, &[]);
    let group = unique("group");
    let mut member = Member::join(
        f,
        &member_spec(&group, "client", None),
        std::slice::from_ref(&input),
    );
    await_balance(f, &mut [&mut member], 1);
    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    let metadata = member.consumer.group_metadata().unwrap();
    let offsets = [(tp(&input, 0), super::at(3))];
    settle(f, "send offsets", || {
        producer.send_offsets(&offsets, &metadata)
    })
    .unwrap();
    abort(f, &mut producer);
    let stable = settle(f, "committed", || {
        member.consumer.committed(&[tp(&input, 0)])
    })
    .unwrap();
    assert_eq!(stable, [None]);
}

pub(crate) fn pending_offsets_are_retriable<L: Log, F: Fixture<L>>(f: &mut F) {
    let input = topic(f, 2, &[]);
    let group = unique("group");
    let mut member = Member::join(
        f,
        &member_spec(&group, "client", None),
        std::slice::from_ref(&input),
    );
    await_balance(f, &mut [&mut member], 2);
    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    let metadata = member.consumer.group_metadata().unwrap();
    let offsets = [(tp(&input, 0), super::at(3))];
    settle(f, "send offsets", || {
        producer.send_offsets(&offsets, &metadata)
    })
    .unwrap();
    let pending = member.consumer.committed(&[tp(&input, 0)]);
    assert!(
        matches!(pending, Err(LogError::Retriable { .. })),
        "{pending:?}"
    );
    // Only the partition that the transaction holds is affected.
    let other = settle(f, "committed", || {
        member.consumer.committed(&[tp(&input, 1)])
    })
    .unwrap();
    assert_eq!(other, [None]);
    commit(f, &mut producer);
    let stable = settle(f, "committed", || {
        member.consumer.committed(&[tp(&input, 0)])
    })
    .unwrap();
    assert_eq!(stable, [Some(super::at(3))]);
}

pub(crate) fn acknowledged_offsets_are_taken_once<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 2, &[]);
    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    for partition in [0, 1, 1] {
        send(&mut producer, &tp(&topic, partition), "k", "v", f.now()).unwrap();
    }
    commit(f, &mut producer);
    let mut acknowledged = producer.take_acknowledged();
    acknowledged.sort();
    assert_eq!(
        acknowledged,
        [(tp(&topic, 0), Some(0)), (tp(&topic, 1), Some(1))]
    );
    assert!(producer.take_acknowledged().is_empty());
    producer.begin_transaction().unwrap();
    send(&mut producer, &tp(&topic, 0), "k", "v", f.now()).unwrap();
    commit(f, &mut producer);
    // After the first record and its marker.
    assert_eq!(producer.take_acknowledged(), [(tp(&topic, 0), Some(2))]);
}

pub(crate) fn an_empty_transaction_commits_and_aborts<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &[], Outcome::Commit);
    write_transaction(f, &mut producer, &partition, &[], Outcome::Abort);
    write_transaction(f, &mut producer, &partition, &["a"], Outcome::Commit);
    await_values(f, &partition, &["a"]);
    assert_eq!(read(f, &partition, Isolation::ReadUncommitted)[0].offset, 0);
}
