//! Waits under real time end when there is something to do, and not before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::model::{partition_of, producer_spec, put, topic_spec};
use crate::clock::SystemClock;
use crate::log::embedded::{EmbeddedConsumer, EmbeddedLog};
use crate::log::{ConsumerSpec, Isolation, Log, LogConsumer, LogProducer, LogReader};

/// Far longer than any wait that works.
const LONG: Duration = Duration::from_secs(60);

fn consumer(log: &EmbeddedLog) -> EmbeddedConsumer {
    let spec = ConsumerSpec {
        group: "group".to_owned(),
        group_instance_id: None,
        client_id: "client".to_owned(),
        session_timeout: LONG,
    };
    log.consumer(&spec).unwrap()
}

/// Returns a member that has everything assigned and nothing left to be woken for.
fn idle(log: &EmbeddedLog) -> EmbeddedConsumer {
    let mut member = consumer(log);
    member.subscribe(&["topic".into()]).unwrap();
    assert!(member.poll_membership().unwrap().is_some());
    member
        .assign(&[(partition_of(0), 0), (partition_of(1), 0)])
        .unwrap();
    let begun = Instant::now();
    for _ in 0..3 {
        member.wait(Duration::from_millis(20));
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(20),
        "an idle member waits"
    );
    member
}

fn log() -> EmbeddedLog {
    let log = EmbeddedLog::in_memory(Arc::new(SystemClock));
    log.create_topics(&[topic_spec("topic", &[])]).unwrap();
    log
}

/// Waits in another thread while `cause` happens; fails when the wait ends by its time-out.
fn woken_by(mut member: EmbeddedConsumer, cause: impl FnOnce()) {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || member.wait(LONG));
        cause();
        waiting.join().unwrap();
    });
    assert!(begun.elapsed() < LONG / 2);
}

#[test]
fn a_wait_ends_when_a_commit_becomes_visible() {
    let log = log();
    let member = idle(&log);
    let mut producer = log.producer(&producer_spec("id")).unwrap();
    producer.init_transactions().unwrap();
    producer.begin_transaction().unwrap();
    put(
        &mut producer,
        &partition_of(1),
        Some(b"key"),
        Some(b"value"),
    )
    .unwrap();
    woken_by(member, || producer.commit_transaction().unwrap());
}

#[test]
fn a_wait_ends_when_somebody_joins_and_when_it_is_woken() {
    let log = log();
    let mut other = consumer(&log);
    woken_by(idle(&log), || other.subscribe(&["topic".into()]).unwrap());

    let alone = self::log();
    let member = idle(&alone);
    let waker = member.waker();
    woken_by(member, || waker.wake());
}

#[test]
fn a_reader_waits_for_the_first_record() {
    let log = log();
    let mut reader = log.reader(Isolation::ReadCommitted).unwrap();
    reader.assign(&[(partition_of(0), 0)]).unwrap();
    let begun = Instant::now();
    let mut records = Vec::new();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || reader.poll(10, LONG, &mut records).unwrap());
        let spec = crate::log::ProducerSpec {
            transactional_id: None,
            ..producer_spec("")
        };
        let mut producer = log.producer(&spec).unwrap();
        put(&mut producer, &partition_of(0), Some(b"key"), None).unwrap();
        assert_eq!(reading.join().unwrap(), 1);
    });
    assert!(begun.elapsed() < LONG / 2);
}
