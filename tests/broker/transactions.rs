//! Transactions on a real broker.

#![expect(clippy::print_stdout, reason = "a test shows what it measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::log::{
    CommittedOffset, Headers, Isolation, Log, LogConsumer, LogError, LogMessage, LogProducer,
    ProducerRecord, TopicPartition,
};

use crate::support::{
    await_assigned, await_records, broker, member, producer, read_all, send, topic, unique,
};

#[test]
fn a_one_record_transaction_takes_milliseconds_to_commit_and_to_reach_a_reader() {
    const ROUNDS: usize = 200;
    let Some(log) = broker("one_record_latency") else {
        return;
    };
    let name = topic(&log, "latency", 1);
    let at = TopicPartition::new(Arc::clone(&name), 0);
    let group = unique("latency");
    let mut consumer = log.consumer(&member(&group, Some("0"))).unwrap();
    consumer.subscribe(&[Arc::clone(&name)]).unwrap();
    await_assigned(&mut consumer);
    consumer.assign(&[(at.clone(), 0)]).unwrap();
    let mut producer = producer(&log, &unique("latency"));
    let (mut commits, mut visible) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        producer.begin_transaction().unwrap();
        send(&mut producer, &name, 0, "k", round.to_string().as_bytes()).unwrap();
        let offset = CommittedOffset {
            offset: 1,
            metadata: String::new(),
        };
        let metadata = consumer.group_metadata().unwrap();
        producer
            .send_offsets(&[(at.clone(), offset)], &metadata)
            .unwrap();
        producer.commit_transaction().unwrap();
        commits.push(begun.elapsed());
        let read = await_records(&mut consumer, &at, 1);
        assert_eq!(read[0].value(), Some(round.to_string().as_bytes()));
        visible.push(begun.elapsed());
    }
    // The first ones find cold caches on both sides.
    let p = |times: &mut Vec<Duration>, percent: usize| {
        times.drain(..20.min(times.len() / 4));
        times.sort();
        times[times.len() * percent / 100]
    };
    let (c50, c99) = (p(&mut commits.clone(), 50), p(&mut commits, 99));
    let (v50, v99) = (p(&mut visible.clone(), 50), p(&mut visible, 99));
    println!("commit with offsets: p50 {c50:?}, p99 {c99:?}; visible: p50 {v50:?}, p99 {v99:?}");
    assert!(
        c50 < Duration::from_millis(50),
        "p50 of a commit is {c50:?}"
    );
    assert!(
        v50 < Duration::from_millis(60),
        "p50 to a reader is {v50:?}"
    );
}

#[test]
fn an_aborted_transaction_is_never_read_and_does_not_hold_the_reader_up() {
    let Some(log) = broker("abort") else { return };
    let name = topic(&log, "abort", 1);
    let at = TopicPartition::new(Arc::clone(&name), 0);
    let mut producer = producer(&log, &unique("abort"));
    for (value, commit) in [("a", true), ("b", false), ("c", true), ("d", false)] {
        producer.begin_transaction().unwrap();
        send(&mut producer, &name, 0, "k", value.as_bytes()).unwrap();
        if commit {
            producer.commit_transaction().unwrap();
        } else {
            producer.flush().unwrap();
            producer.abort_transaction().unwrap();
        }
    }
    let committed = read_all(&log, &at, 0, Isolation::ReadCommitted);
    let values: Vec<_> = committed.iter().filter_map(LogMessage::value).collect();
    assert_eq!(values, [b"a", b"c"]);
    let all = read_all(&log, &at, 0, Isolation::ReadUncommitted);
    assert_eq!(all.len(), 4);
}

#[test]
fn a_second_producer_of_the_same_id_fences_the_first() {
    let Some(log) = broker("fencing") else { return };
    let name = topic(&log, "fencing", 1);
    let id = unique("fencing");
    let mut first = producer(&log, &id);
    first.begin_transaction().unwrap();
    send(&mut first, &name, 0, "k", b"zombie").unwrap();
    first.flush().unwrap();
    let mut second = producer(&log, &id);
    let result = first.commit_transaction();
    assert!(matches!(result, Err(LogError::Fenced { .. })), "{result:?}");
    let result = first.begin_transaction();
    assert!(matches!(result, Err(LogError::Fenced { .. })), "{result:?}");
    second.begin_transaction().unwrap();
    send(&mut second, &name, 0, "k", b"owner").unwrap();
    second.commit_transaction().unwrap();
    let at = TopicPartition::new(name, 0);
    let read = read_all(&log, &at, 0, Isolation::ReadCommitted);
    let values: Vec<_> = read.iter().filter_map(LogMessage::value).collect();
    assert_eq!(values, [b"owner"]);
}

#[test]
fn acknowledged_offsets_are_the_last_written_ones_of_the_transaction() {
    let Some(log) = broker("acknowledged") else {
        return;
    };
    let name = topic(&log, "acknowledged", 2);
    let mut producer = producer(&log, &unique("acknowledged"));
    for base in [0, 4] {
        producer.begin_transaction().unwrap();
        for _ in 0..3 {
            send(&mut producer, &name, 0, "k", b"v").unwrap();
        }
        producer.commit_transaction().unwrap();
        // Each transaction takes three offsets and one for its marker.
        let expected = vec![(TopicPartition::new(Arc::clone(&name), 0), Some(base + 2))];
        assert_eq!(producer.take_acknowledged(), expected);
        assert_eq!(producer.take_acknowledged(), Vec::new());
    }
}

#[test]
fn a_record_of_9_9_mib_passes_and_one_over_16_mib_is_refused_without_harm() {
    let Some(log) = broker("sizes") else { return };
    let name = topic(&log, "sizes", 1);
    let mut producer = producer(&log, &unique("sizes"));
    // Random bytes: the limits are of what compression leaves.
    let mut large = vec![0; 99 * 1024 * 1024 / 10];
    fastrand::Rng::with_seed(7).fill(&mut large);
    producer.begin_transaction().unwrap();
    send(&mut producer, &name, 0, "large", &large).unwrap();
    let result = send(
        &mut producer,
        &name,
        0,
        "too large",
        &vec![1; 17 * 1024 * 1024],
    );
    assert!(
        matches!(result, Err(LogError::RecordTooLarge { .. })),
        "{result:?}"
    );
    send(&mut producer, &name, 0, "small", b"s").unwrap();
    producer.commit_transaction().unwrap();
    let read = read_all(
        &log,
        &TopicPartition::new(name, 0),
        0,
        Isolation::ReadCommitted,
    );
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].value(), Some(large.as_slice()));
    assert_eq!(read[1].key(), Some(b"small".as_slice()));
}

#[test]
fn the_largest_record_that_the_client_takes_is_taken_by_a_16_mib_topic() {
    let Some(log) = broker("largest") else { return };
    let name = topic(&log, "largest", 1);
    let mut producer = producer(&log, &unique("largest"));
    let mut bytes = vec![0; 16 * 1024 * 1024];
    fastrand::Rng::with_seed(8).fill(&mut bytes);
    producer.begin_transaction().unwrap();
    // Approach the limit from above: the first that is queued is the largest.
    let taken = (0..200_000).find(|step| {
        let size = bytes.len() - step;
        match send(&mut producer, &name, 0, "", &bytes[..size]) {
            Ok(()) => true,
            Err(LogError::RecordTooLarge { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    });
    assert!(
        taken.is_some(),
        "the limit is less than 200 kB below 16 MiB"
    );
    producer.commit_transaction().unwrap();
}

#[test]
fn keyed_records_go_where_the_java_client_puts_them() {
    let Some(log) = broker("murmur2") else { return };
    let name = topic(&log, "murmur2", 7);
    let mut producer = producer(&log, &unique("murmur2"));
    producer.begin_transaction().unwrap();
    // Utils.murmur2 of Kafka's own UtilsTest, positive, modulo 7.
    let expected = [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("abc", 479_470_107),
    ];
    for (key, _) in expected {
        producer
            .send(ProducerRecord {
                topic: &name,
                partition: None,
                key: Some(key.as_bytes()),
                value: None,
                timestamp: 1,
                headers: &Headers::new(),
            })
            .unwrap();
    }
    producer.commit_transaction().unwrap();
    for (key, hash) in expected {
        let partition = (hash & 0x7fff_ffff) % 7;
        let at = TopicPartition::new(Arc::clone(&name), partition);
        let read = read_all(&log, &at, 0, Isolation::ReadCommitted);
        assert!(
            read.iter()
                .any(|record| record.key() == Some(key.as_bytes())),
            "{key} is at {at}"
        );
    }
}

#[test]
fn a_stale_generation_cannot_commit_offsets() {
    let Some(log) = broker("generation") else {
        return;
    };
    let name = topic(&log, "generation", 1);
    let at = TopicPartition::new(Arc::clone(&name), 0);
    let group = unique("generation");
    let mut consumer = log.consumer(&member(&group, None)).unwrap();
    consumer.subscribe(&[Arc::clone(&name)]).unwrap();
    await_assigned(&mut consumer);
    consumer.assign(&[(at.clone(), 0)]).unwrap();
    let stale = consumer.group_metadata().unwrap();
    consumer.leave().unwrap();
    let result = consumer.group_metadata();
    assert!(
        matches!(result, Err(LogError::MemberUnknown { .. })),
        "{result:?}"
    );
    let mut producer = producer(&log, &unique("generation"));
    producer.begin_transaction().unwrap();
    let offset = CommittedOffset {
        offset: 1,
        metadata: String::new(),
    };
    let result = producer.send_offsets(&[(at.clone(), offset)], &stale);
    assert!(
        matches!(result, Err(LogError::MemberUnknown { .. })),
        "{result:?}"
    );
    producer.abort_transaction().unwrap();
    assert_eq!(log.group_offsets(&group, &[at]).unwrap(), [None]);
}
