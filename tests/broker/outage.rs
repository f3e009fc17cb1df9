//! A broker that is killed and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::log::{
    CommittedOffset, Isolation, Log, LogConsumer, LogError, LogMessage, LogProducer,
    MembershipEvent, TopicPartition,
};

use crate::support::{
    OwnCluster, PATIENCE, await_assigned, await_records, bootstrap_servers, connect, member,
    membership, producer as initialised, read_all, retry, send, topic, unique, until,
};

#[test]
fn a_broker_that_is_killed_and_comes_back_loses_nothing_and_doubles_nothing() {
    if bootstrap_servers("outage").is_none() {
        return;
    }
    let cluster = OwnCluster::start();
    let log = connect(&cluster.servers);
    let name = topic(&log, "outage", 1);
    let at = TopicPartition::new(Arc::clone(&name), 0);
    let group = unique("outage");
    let mut consumer = log.consumer(&member(&group, Some("0"))).unwrap();
    consumer.subscribe(&[Arc::clone(&name)]).unwrap();
    await_assigned(&mut consumer);
    consumer.assign(&[(at.clone(), 0)]).unwrap();
    let id = unique("outage");
    let mut producer = initialised(&log, &id);
    producer.begin_transaction().unwrap();
    send(&mut producer, &name, 0, "k", b"before").unwrap();
    producer.commit_transaction().unwrap();
    assert_eq!(
        await_records(&mut consumer, &at, 1)[0].value(),
        Some(b"before".as_slice())
    );

    // A transaction is open, its record written, when the broker dies.
    producer.begin_transaction().unwrap();
    send(&mut producer, &name, 0, "k", b"across").unwrap();
    producer.flush().unwrap();
    cluster.run(&["kill-broker", "1"]);
    let away = log.describe_topics(&[&*name]);
    assert!(matches!(away, Err(LogError::Retriable { .. })), "{away:?}");
    let committed = consumer.committed(std::slice::from_ref(&at));
    assert!(
        matches!(committed, Err(LogError::Retriable { .. })),
        "{committed:?}"
    );
    cluster.run(&["start-broker", "1"]);

    let offset = CommittedOffset {
        offset: 1,
        metadata: String::new(),
    };
    let deadline = Instant::now() + PATIENCE;
    let mut open = true;
    loop {
        assert!(
            Instant::now() < deadline,
            "the transaction is neither committed nor refused"
        );
        if !open {
            producer.begin_transaction().unwrap();
            send(&mut producer, &name, 0, "k", b"across").unwrap();
            open = true;
        }
        let result = consumer
            .group_metadata()
            .and_then(|group| producer.send_offsets(&[(at.clone(), offset.clone())], &group))
            .and_then(|()| producer.commit_transaction());
        let settled = match result {
            Ok(()) => break,
            Err(LogError::Retriable { .. } | LogError::UnknownOutcome { .. }) => continue,
            Err(LogError::AbortRequired { .. } | LogError::MemberUnknown { .. }) => {
                until("an abort", || match producer.abort_transaction() {
                    Err(LogError::Retriable { .. }) => None,
                    result => Some(result),
                })
            }
            Err(error) => Err(error),
        };
        match settled {
            Ok(()) => {}
            // The coordinator aborted the transaction when its time was over, which fences.
            Err(LogError::Fenced { .. }) => producer = initialised(&log, &id),
            Err(error) => panic!("{error}"),
        }
        open = false;
        // An outage that outlasts the session costs the membership: answer, and it comes back.
        match membership(&mut consumer) {
            Some(MembershipEvent::Assigned(_)) => consumer.assign(&[(at.clone(), 0)]).unwrap(),
            Some(MembershipEvent::Revoked(gone) | MembershipEvent::Lost(gone)) => {
                consumer.unassign(&gone).unwrap();
            }
            None => consumer.wait(Duration::from_millis(100)),
        }
    }
    let read = read_all(&log, &at, 0, Isolation::ReadCommitted);
    let values: Vec<_> = read.iter().filter_map(LogMessage::value).collect();
    assert_eq!(values, [b"before", b"across"]);
    let offsets = retry("group_offsets", || {
        log.group_offsets(&group, std::slice::from_ref(&at))
    });
    assert_eq!(offsets, [Some(offset)]);
}
