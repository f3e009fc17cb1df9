//! Records: order, headers, timestamps, partitioning, what is refused.

use std::collections::VecDeque;

use millstream::format::partitioner::partition_for_key;
use millstream::log::{
    Headers, Isolation, Log, LogConsumer, LogError, LogProducer, ProducerRecord, Refusal,
    TopicPartition,
};

use super::{
    Fixture, Member, Seen, await_balance, await_values, commit, eventually, idempotent,
    member_spec, read, send, settle, topic, tp, transactional, unique, write,
};

pub(crate) fn one_partition_keeps_its_order<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let values: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let mut producer = transactional(f, &unique("id"));
    for chunk in values.chunks(250) {
        producer.begin_transaction().unwrap();
        for value in chunk {
            send(&mut producer, &partition, "key", value, f.now()).unwrap();
        }
        commit(f, &mut producer);
    }
    await_values(
        f,
        &partition,
        &values.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

pub(crate) fn headers_timestamps_and_nulls_come_back_as_written<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    let mut headers = Headers::new()
        .with("a", "1")
        .with("a", "2")
        .with("empty", "");
    headers.push("null", None);
    let (now, none) = (f.now(), Headers::new());
    let record = ProducerRecord {
        topic: &partition.topic,
        partition: Some(0),
        key: Some(b"key"),
        value: Some(b"value"),
        timestamp: now - 12_345,
        headers: &headers,
    };
    let mut producer = idempotent(f);
    producer.send(record).unwrap();
    producer
        .send(ProducerRecord {
            value: None,
            timestamp: now,
            headers: &none,
            ..record
        })
        .unwrap();
    producer
        .send(ProducerRecord {
            key: None,
            timestamp: now - 1,
            ..record
        })
        .unwrap();
    producer
        .send(ProducerRecord {
            key: Some(b""),
            value: Some(b""),
            ..record
        })
        .unwrap();
    settle(f, "flush", || producer.flush()).unwrap();
    let seen = read(f, &partition, Isolation::ReadCommitted);
    let written =
        |offset, timestamp, key: Option<&[u8]>, value: Option<&[u8]>, headers: &Headers| {
            let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
            Seen {
                offset,
                timestamp,
                key,
                value,
                headers: headers.clone(),
            }
        };
    let expected = [
        written(0, now - 12_345, Some(b"key"), Some(b"value"), &headers),
        written(1, now, Some(b"key"), None, &none),
        written(2, now - 1, None, Some(b"value"), &headers),
        written(3, now - 12_345, Some(b""), Some(b""), &headers),
    ];
    assert_eq!(seen, expected);
}

pub(crate) fn keyed_records_go_where_java_puts_them<L: Log, F: Fixture<L>>(f: &mut F) {
    let topic = topic(f, 5, &[]);
    let mut producer = idempotent(f);
    let keys: Vec<String> = (0..50).map(|n| format!("account-{n}")).collect();
    for key in &keys {
        let record = ProducerRecord {
            topic: &topic,
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(b"v"),
            timestamp: f.now(),
            headers: &Headers::new(),
        };
        producer.send(record).unwrap();
    }
    settle(f, "flush", || producer.flush()).unwrap();
    for partition in 0..5 {
        let here: Vec<_> = read(f, &tp(&topic, partition), Isolation::ReadCommitted)
            .into_iter()
            .filter_map(|one| one.key)
            .collect();
        let expected: Vec<_> = keys
            .iter()
            .filter(|key| partition_for_key(key.as_bytes(), 5) == partition)
            .map(|key| key.clone().into_bytes())
            .collect();
        assert_eq!(here, expected, "partition {partition}");
    }
}

pub(crate) fn a_record_that_is_too_large_is_refused<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[("max.message.bytes", "20000")]), 0);
    // The limit is of what compression leaves.
    let mut random = fastrand::Rng::with_seed(30_000);
    let large: String = std::iter::repeat_with(|| random.alphanumeric())
        .take(30_000)
        .collect();
    let record = (Some("k"), large.as_str(), f.now());
    refused_by_a_later_call(f, &partition, record, Refusal::TooLarge);
}

pub(crate) fn a_record_without_a_key_is_refused_by_a_compacted_topic<L: Log, F: Fixture<L>>(
    f: &mut F,
) {
    let partition = tp(&topic(f, 1, &[("cleanup.policy", "compact")]), 0);
    let record = (None, "keyless", f.now());
    refused_by_a_later_call(f, &partition, record, Refusal::InvalidRecord);
}

pub(crate) fn a_timestamp_that_the_topic_does_not_take_is_refused<L: Log, F: Fixture<L>>(
    f: &mut F,
) {
    let config = [("message.timestamp.after.max.ms", "1000")];
    let partition = tp(&topic(f, 1, &config), 0);
    let record = (Some("k"), "of tomorrow", f.now() + 86_400_000);
    refused_by_a_later_call(f, &partition, record, Refusal::InvalidTimestamp);
}

/// Writes a record that the log refuses, between good ones.
fn refused_by_a_later_call<L: Log, F: Fixture<L>>(
    f: &mut F,
    partition: &TopicPartition,
    (key, value, timestamp): (Option<&str>, &str, i64),
    expected: Refusal,
) {
    let other = tp(&topic(f, 1, &[]), 0);
    let mut producer = transactional(f, &unique("id"));
    producer.begin_transaction().unwrap();
    send(&mut producer, &other, "k", "before", f.now()).unwrap();
    let bad = ProducerRecord {
        topic: &partition.topic,
        partition: Some(partition.partition),
        key: key.map(str::as_bytes),
        value: Some(value.as_bytes()),
        timestamp,
        headers: &Headers::new(),
    };
    assert_eq!(producer.send(bad), Ok(()), "a client queues the record");
    // Whichever call brings the news: it names partition and reason, and so do those after it.
    let refused = settle(f, "commit", || producer.commit_transaction());
    let check = |result: Result<(), LogError>| match result {
        Err(LogError::RecordRefused {
            partition: at,
            refusal,
            ..
        }) => assert_eq!((&at, refusal), (partition, expected)),
        other => panic!("{other:?}"),
    };
    check(refused);
    check(send(&mut producer, &other, "k", "after", f.now()));
    check(settle(f, "flush", || producer.flush()));
    settle(f, "abort", || producer.abort_transaction()).unwrap();
    // The producer goes on, and nothing of the transaction is there.
    producer.begin_transaction().unwrap();
    send(&mut producer, &other, "k", "good", f.now()).unwrap();
    commit(f, &mut producer);
    await_values(f, &other, &["good"]);
    await_values(f, partition, &[]);
}

pub(crate) fn a_topic_that_does_not_exist_is_unknown<L: Log, F: Fixture<L>>(f: &mut F) {
    let missing = tp(&unique("missing").into(), 0);
    let log = f.log().clone();
    let isolation = Isolation::ReadCommitted;
    let ranges = settle(f, "ranges", || {
        log.log_ranges(std::slice::from_ref(&missing), isolation)
    });
    let unknown = LogError::UnknownTopic {
        topic: missing.topic.to_string(),
    };
    assert_eq!(ranges, Err(unknown.clone()));
    assert_eq!(
        settle(f, "describe", || log.describe_topics(&[&missing.topic])),
        Ok(vec![None])
    );
    let mut producer = idempotent(f);
    let sent = send(&mut producer, &missing, "k", "v", f.now())
        .and_then(|()| settle(f, "flush", || producer.flush()));
    assert_eq!(sent, Err(unknown));
    assert_eq!(
        settle(f, "describe", || log.describe_topics(&[&missing.topic])),
        Ok(vec![None])
    );
}

pub(crate) fn a_position_beyond_the_end_is_out_of_range<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = tp(&topic(f, 1, &[]), 0);
    write(f, &partition, &[("k", "v")]);
    let spec = member_spec(&unique("group"), "client", None);
    let mut member = Member::<L>::join(f, &spec, std::slice::from_ref(&partition.topic));
    await_balance(f, &mut [&mut member], 1);
    settle(f, "seek", || member.consumer.seek(&partition, 17)).unwrap();
    let error = eventually(f, "the position is refused", |_| {
        member.step();
        match member.consumer.poll(&partition, 1, &mut VecDeque::new()) {
            Ok(0) | Err(LogError::Retriable { .. }) => None,
            Ok(count) => panic!("{count} records beyond the end"),
            Err(error) => Some(error),
        }
    });
    assert_eq!(
        error,
        LogError::OffsetOutOfRange {
            partition,
            offset: 17
        }
    );
}
