//! Topics, ranges, deletion.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millstream::log::{
    Isolation, Log, LogConsumer, LogError, LogProducer, LogRange, TopicName, TopicPartition,
    TopicSpec,
};

use super::{
    Fixture, Member, await_balance, committed_values, eventually, member_spec, send, settle, topic,
    tp, transactional, unique, write,
};

pub(crate) fn topics_are_described_and_recreated_under_another_id<L: Log, F: Fixture<L>>(
    f: &mut F,
) {
    let log = f.log().clone();
    let (one, missing) = (topic(f, 3, &[]), unique("missing"));
    let described = settle(f, "describe", || log.describe_topics(&[&missing, &one])).unwrap();
    assert_eq!(described[0], None);
    let old = described[1].clone().unwrap();
    assert_eq!((&old.name, old.partitions), (&one, 3));

    settle(f, "delete", || log.delete_topics(&[&one])).unwrap();
    eventually(f, "the topic is gone", |_| {
        log.describe_topics(&[&one])
            .ok()?
            .remove(0)
            .is_none()
            .then_some(())
    });
    let spec = TopicSpec {
        name: TopicName::clone(&one),
        partitions: 2,
        replication_factor: None,
        config: BTreeMap::new(),
    };
    let new = eventually(f, "the topic is back", |_| {
        log.create_topics(std::slice::from_ref(&spec)).ok()?;
        log.describe_topics(&[&one]).ok()?.remove(0)
    });
    assert_eq!(new.partitions, 2);
    assert_ne!(new.id, old.id);
}

pub(crate) fn creating_and_deleting_topics_is_idempotent<L: Log, F: Fixture<L>>(f: &mut F) {
    let log = f.log().clone();
    let one = topic(f, 2, &[]);
    let partition = tp(&one, 1);
    write(f, &partition, &[("k", "v")]);
    let spec = TopicSpec {
        name: TopicName::clone(&one),
        partitions: 2,
        replication_factor: None,
        config: BTreeMap::new(),
    };
    settle(f, "create again", || {
        log.create_topics(std::slice::from_ref(&spec))
    })
    .unwrap();
    assert_eq!(committed_values(f, &partition), ["v"]);
    let missing = unique("missing");
    settle(f, "delete what is not there", || {
        log.delete_topics(&[&missing])
    })
    .unwrap();
    let impossible = TopicSpec {
        name: unique("topic").into(),
        partitions: 0,
        ..spec
    };
    let refused = settle(f, "create", || {
        log.create_topics(std::slice::from_ref(&impossible))
    });
    assert!(
        matches!(refused, Err(LogError::Fatal { .. })),
        "{refused:?}"
    );
}

pub(crate) fn topics_are_listed_from_their_creation_to_their_deletion<L: Log, F: Fixture<L>>(
    f: &mut F,
) {
    let log = f.log().clone();
    let (one, other) = (topic(f, 2, &[]), topic(f, 1, &[]));
    let listed = |f: &mut F| {
        let names = settle(f, "list", || log.topic_names()).unwrap();
        names.into_iter().collect::<BTreeSet<TopicName>>()
    };
    let names = eventually(f, "both topics are listed", |f| {
        let names = listed(f);
        (names.contains(&one) && names.contains(&other)).then_some(names)
    });
    let hidden = names.iter().filter(|name| name.starts_with("__"));
    assert_eq!(hidden.count(), 0, "the log's own topics: {names:?}");
    settle(f, "delete", || log.delete_topics(&[&one])).unwrap();
    eventually(f, "only the other topic is listed", |f| {
        let names = listed(f);
        (!names.contains(&one) && names.contains(&other)).then_some(())
    });
}

fn range<L: Log, F: Fixture<L>>(
    f: &mut F,
    partition: &TopicPartition,
    isolation: Isolation,
) -> LogRange {
    let log = f.log().clone();
    settle(f, "ranges", || {
        log.log_ranges(std::slice::from_ref(partition), isolation)
    })
    .unwrap()[0]
}

pub(crate) fn ranges_differ_by_isolation<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let empty = LogRange { start: 0, end: 0 };
    assert_eq!(range(f, &partition, Isolation::ReadCommitted), empty);
    write(f, &partition, &[("k", "v")]);
    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    send(&mut producer, &partition, "open", "open", f.now()).unwrap();
    settle(f, "flush", || producer.flush()).unwrap();
    assert_eq!(
        range(f, &partition, Isolation::ReadCommitted),
        LogRange { start: 0, end: 1 }
    );
    assert_eq!(
        range(f, &partition, Isolation::ReadUncommitted),
        LogRange { start: 0, end: 2 }
    );
    super::commit(f, &mut producer);
    eventually(f, "the marker", |f| {
        (range(f, &partition, Isolation::ReadCommitted).end == 3).then_some(())
    });
    assert_eq!(
        range(f, &partition, Isolation::ReadUncommitted),
        LogRange { start: 0, end: 3 }
    );
}

pub(crate) fn deleted_records_are_gone<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    write(f, &partition, &[("a", "a"), ("b", "b"), ("c", "c")]);
    let log = f.log().clone();
    let below = [(partition.clone(), 2)];
    settle(f, "delete records", || log.delete_records(&below)).unwrap();
    eventually(f, "the log start", |f| {
        (range(f, &partition, Isolation::ReadUncommitted).start == 2).then_some(())
    });
    assert_eq!(committed_values(f, &partition), ["c"]);
    // Again, and below the start: nothing to do.
    settle(f, "delete records", || log.delete_records(&below)).unwrap();

    let spec = member_spec(&unique("group"), "client", None);
    let mut member = Member::<L>::join(f, &spec, std::slice::from_ref(&partition.topic));
    await_balance(f, &mut [&mut member], 1);
    settle(f, "seek", || member.consumer.seek(&partition, 0)).unwrap();
    let error = eventually(f, "the position is refused", |_| {
        member.step();
        member
            .consumer
            .poll(&partition, 1, &mut VecDeque::new())
            .err()
            .filter(|one| !one.is_retriable())
    });
    assert_eq!(
        error,
        LogError::OffsetOutOfRange {
            partition,
            offset: 0
        }
    );
}
