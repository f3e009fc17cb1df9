//! A group member's position: past whatever will never be delivered, and never past what will.
//!
//! What a member commits is its position. One that stays behind markers or aborted records is lost
//! when retention deletes them; one that goes too far loses a record.

use std::collections::VecDeque;
use std::time::Duration;

use millstream::log::{
    Isolation, Log, LogConsumer, LogError, LogMessage, LogProducer, LogReader, Offset,
    TopicPartition,
};

use super::{
    Fixture, Member, Outcome, await_balance, commit, eventually, member_spec, poll_records, send,
    settle, topic, tp, transactional, unique, write, write_transaction,
};

/// Joins a group of one member.
fn only_member<L: Log, F: Fixture<L>>(f: &mut F, partition: &TopicPartition) -> Member<L> {
    let spec = member_spec(&unique("group"), "client", None);
    let mut member = Member::join(f, &spec, std::slice::from_ref(&partition.topic));
    await_balance(f, &mut [&mut member], 1);
    member
}

/// Polls until the position is `expected`; returns the offsets that were delivered on the way, each
/// of which was below the position once it was handed out.
fn follow_to<L: Log, F: Fixture<L>>(
    f: &mut F,
    member: &mut Member<L>,
    partition: &TopicPartition,
    expected: Offset,
) -> Vec<Offset> {
    let mut records = VecDeque::new();
    let mut last = None;
    let what = format!("the position of {partition} is {expected}");
    eventually(f, &what, |_| {
        member.step();
        match member.consumer.poll(partition, 2, &mut records) {
            Ok(_) | Err(LogError::Retriable { .. }) => {}
            Err(error) => panic!("poll: {error}"),
        }
        last = member.consumer.position(partition);
        let position = last?;
        assert!(position <= expected, "{position} is beyond {expected}");
        assert!(records.iter().all(|record| record.offset() < position));
        (position == expected).then_some(())
    });
    records.iter().map(LogMessage::offset).collect()
}

/// Waits until a partition's last stable offset is `end`: markers come after a commit's answer.
fn await_end<L: Log, F: Fixture<L>>(f: &mut F, partition: &TopicPartition, end: Offset) {
    let log = f.log().clone();
    let at = std::slice::from_ref(partition);
    eventually(f, "the markers are written", |_| {
        let ranges = log.log_ranges(at, Isolation::ReadCommitted).ok()?;
        (ranges.first()?.end == end).then_some(())
    });
}

pub(crate) fn an_empty_partition_keeps_its_position_through_a_rebalance<L: Log, F: Fixture<L>>(
    f: &mut F,
) {
    let name = topic(f, 2, &[]);
    let (group, topics) = (unique("group"), std::slice::from_ref(&name));
    let mut first = Member::join(f, &member_spec(&group, "first", None), topics);
    await_balance(f, &mut [&mut first], 2);
    for partition in [tp(&name, 0), tp(&name, 1)] {
        assert_eq!(follow_to(f, &mut first, &partition, 0), [] as [Offset; 0]);
    }
    let mut second = Member::join(f, &member_spec(&group, "second", None), topics);
    await_balance(f, &mut [&mut first, &mut second], 2);
    for member in [&mut first, &mut second] {
        let partition = member.owned.first().unwrap().clone();
        assert_eq!(follow_to(f, member, &partition, 0), [] as [Offset; 0]);
        write(f, &partition, &[("k", "first")]);
        let seen = poll_records(f, member, &partition, 1);
        assert_eq!(seen[0].offset, 0);
        assert_eq!(follow_to(f, member, &partition, 1), [] as [Offset; 0]);
    }
}

pub(crate) fn a_member_at_the_end_misses_nothing_that_comes_after_a_rebalance<
    L: Log,
    F: Fixture<L>,
>(
    f: &mut F,
) {
    let name = topic(f, 2, &[]);
    let (group, topics) = (unique("group"), std::slice::from_ref(&name));
    let mut first = Member::join(f, &member_spec(&group, "first", None), topics);
    await_balance(f, &mut [&mut first], 2);
    let mut producer = transactional(f, &unique("id"));
    for partition in [tp(&name, 0), tp(&name, 1)] {
        write_transaction(f, &mut producer, &partition, &["a"], Outcome::Commit);
        write_transaction(f, &mut producer, &partition, &["b"], Outcome::Abort);
        assert_eq!(follow_to(f, &mut first, &partition, 4), [0]);
    }
    let mut second = Member::join(f, &member_spec(&group, "second", None), topics);
    await_balance(f, &mut [&mut first, &mut second], 2);
    let kept = first.owned.first().unwrap().clone();
    assert_eq!(first.consumer.position(&kept), Some(4));
    write_transaction(f, &mut producer, &kept, &["c"], Outcome::Commit);
    assert_eq!(follow_to(f, &mut first, &kept, 6), [4]);
}

pub(crate) fn a_position_passes_aborted_records_when_there_is_nothing_else<
    L: Log,
    F: Fixture<L>,
>(
    f: &mut F,
) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["a", "b"], Outcome::Abort);
    write_transaction(f, &mut producer, &partition, &["c"], Outcome::Abort);
    let mut member = only_member(f, &partition);
    assert_eq!(follow_to(f, &mut member, &partition, 5), [] as [Offset; 0]);
    write(f, &partition, &[("k", "d")]);
    assert_eq!(follow_to(f, &mut member, &partition, 6), [5]);
}

pub(crate) fn a_position_passes_the_markers_at_the_end<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut member = only_member(f, &partition);
    let mut producer = transactional(f, &unique("id"));
    let mut end = 0;
    for values in [&["a"][..], &["b", "c", "d"], &["e", "f"]] {
        write_transaction(f, &mut producer, &partition, values, Outcome::Commit);
        let first = end;
        end += i64::try_from(values.len()).unwrap() + 1;
        let expected: Vec<_> = (first..end - 1).collect();
        assert_eq!(follow_to(f, &mut member, &partition, end), expected);
    }
    assert_eq!(member.consumer.high_watermark(&partition), Some(end));
}

pub(crate) fn a_seek_moves_the_position_to_its_target_at_once<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["a", "b"], Outcome::Commit);
    write_transaction(f, &mut producer, &partition, &["c"], Outcome::Abort);
    let mut member = only_member(f, &partition);
    assert_eq!(follow_to(f, &mut member, &partition, 5), [0, 1]);
    for (target, delivered) in [
        (1, vec![1]),
        (0, vec![0, 1]),
        (2, vec![]),
        (5, vec![]),
        (0, vec![0, 1]),
    ] {
        settle(f, "seek", || member.consumer.seek(&partition, target)).unwrap();
        assert_eq!(member.consumer.position(&partition), Some(target));
        assert_eq!(follow_to(f, &mut member, &partition, 5), delivered);
    }
}

pub(crate) fn a_position_at_the_end_stays_good_when_the_log_start_moves_there<
    L: Log,
    F: Fixture<L>,
>(
    f: &mut F,
) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["a", "b"], Outcome::Commit);
    write_transaction(f, &mut producer, &partition, &["c"], Outcome::Abort);
    let mut member = only_member(f, &partition);
    follow_to(f, &mut member, &partition, 5);
    let log = f.log().clone();
    settle(f, "delete", || {
        log.delete_records(&[(partition.clone(), 5)])
    })
    .unwrap();
    assert_eq!(follow_to(f, &mut member, &partition, 5), [] as [Offset; 0]);
    // Another life, from what this one would have committed.
    settle(f, "leave", || member.consumer.leave()).unwrap();
    let mut next = only_member(f, &partition);
    settle(f, "seek", || next.consumer.seek(&partition, 5)).unwrap();
    assert_eq!(follow_to(f, &mut next, &partition, 5), [] as [Offset; 0]);
    write_transaction(f, &mut producer, &partition, &["d"], Outcome::Commit);
    assert_eq!(follow_to(f, &mut next, &partition, 7), [5]);
}

pub(crate) fn a_position_stops_at_the_last_stable_offset<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["a"], Outcome::Commit);
    await_end(f, &partition, 2);
    let mut open = transactional(f, &unique("id"));
    open.begin_transaction().unwrap();
    send(&mut open, &partition, "k", "open", f.now()).unwrap();
    settle(f, "flush", || open.flush()).unwrap();
    // Committed, but behind the open one: not visible yet.
    write_transaction(f, &mut producer, &partition, &["behind"], Outcome::Commit);
    let mut member = only_member(f, &partition);
    assert_eq!(follow_to(f, &mut member, &partition, 2), [0]);
    commit(f, &mut open);
    assert_eq!(follow_to(f, &mut member, &partition, 6), [2, 3]);
}

pub(crate) fn a_reader_is_at_the_end_exactly_when_all_of_it_was_read<L: Log, F: Fixture<L>>(
    f: &mut F,
) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut reader = f.log().reader(Isolation::ReadCommitted).unwrap();
    reader.assign(&[(partition.clone(), 0)]).unwrap();
    assert_eq!(read_to(f, &mut reader, &partition, 0), [] as [Offset; 0]);
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["a"], Outcome::Abort);
    write_transaction(f, &mut producer, &partition, &["b"], Outcome::Commit);
    assert_eq!(read_to(f, &mut reader, &partition, 4), [2]);
    // Assigned anew, behind and at the end.
    reader.assign(&[(partition.clone(), 1)]).unwrap();
    assert_eq!(reader.position(&partition), Some(1));
    assert_eq!(read_to(f, &mut reader, &partition, 4), [2]);
    let log = f.log().clone();
    settle(f, "delete", || {
        log.delete_records(&[(partition.clone(), 4)])
    })
    .unwrap();
    reader.assign(&[(partition.clone(), 4)]).unwrap();
    assert_eq!(read_to(f, &mut reader, &partition, 4), [] as [Offset; 0]);
    // What is behind an open transaction is not read, and not passed.
    let mut open = transactional(f, &unique("id"));
    open.begin_transaction().unwrap();
    send(&mut open, &partition, "k", "open", f.now()).unwrap();
    settle(f, "flush", || open.flush()).unwrap();
    write_transaction(f, &mut producer, &partition, &["behind"], Outcome::Commit);
    assert_eq!(read_to(f, &mut reader, &partition, 4), [] as [Offset; 0]);
    commit(f, &mut open);
    assert_eq!(read_to(f, &mut reader, &partition, 8), [4, 5]);
}

/// Reads until the position is `expected`, and no further; returns the offsets that were read.
fn read_to<L: Log, F: Fixture<L>>(
    f: &mut F,
    reader: &mut L::Reader,
    partition: &TopicPartition,
    expected: Offset,
) -> Vec<Offset> {
    let mut records = Vec::new();
    let what = format!("a reader's position is {expected}");
    eventually(f, &what, |_| {
        match reader.poll(100, Duration::from_millis(50), &mut records) {
            Ok(_) | Err(LogError::Retriable { .. }) => {}
            Err(error) => panic!("poll: {error}"),
        }
        let position = reader.position(partition)?;
        assert!(position <= expected, "{position} is beyond {expected}");
        (position == expected).then_some(())
    });
    records.iter().map(LogMessage::offset).collect()
}
