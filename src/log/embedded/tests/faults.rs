//! What each injected fault looks like to its caller.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::model::{partition_of, producer_spec, put, topic_spec};
use crate::clock::ManualClock;
use crate::log::embedded::{
    EmbeddedLog, EmbeddedProducer, Fault, FaultPlan, FaultPoint, FaultSite,
};
use crate::log::{
    CommittedOffset, ConsumerSpec, Isolation, Log, LogConsumer, LogError, LogProducer, LogReader,
};

/// Faults by point, each injected once, in order.
#[derive(Debug)]
struct Script(Mutex<VecDeque<(FaultPoint, Fault)>>);

impl FaultPlan for Script {
    fn decide(&self, site: &FaultSite<'_>) -> Option<Fault> {
        let mut script = self.0.lock().unwrap();
        let (point, fault) = *script.front()?;
        (point == site.point).then(|| {
            script.pop_front();
            fault
        })
    }
}

fn log(script: &[(FaultPoint, Fault)]) -> (EmbeddedLog, ManualClock) {
    let clock = ManualClock::at(0);
    let log = EmbeddedLog::in_memory(Arc::new(clock.clone())).with_virtual_time();
    log.create_topics(&[topic_spec("topic", &[])]).unwrap();
    log.set_faults(Some(Arc::new(Script(Mutex::new(
        script.iter().copied().collect(),
    )))));
    (log, clock)
}

fn open(log: &EmbeddedLog) -> EmbeddedProducer {
    let mut producer = log.producer(&producer_spec("id")).unwrap();
    producer.init_transactions().unwrap();
    producer.begin_transaction().unwrap();
    producer
}

fn write(producer: &mut EmbeddedProducer) -> Result<(), LogError> {
    put(producer, &partition_of(0), Some(b"key"), Some(b"value"))
}

fn committed(log: &EmbeddedLog) -> usize {
    log.set_faults(None);
    let mut reader = log.reader(Isolation::ReadCommitted).unwrap();
    reader.assign(&[(partition_of(0), 0)]).unwrap();
    reader.poll(100, Duration::ZERO, &mut Vec::new()).unwrap()
}

#[test]
fn a_lost_send_spoils_the_transaction_until_it_is_aborted() {
    let (log, _) = log(&[(FaultPoint::Send, Fault::AbortRequired)]);
    let mut producer = open(&log);
    for refused in [
        write(&mut producer),
        write(&mut producer),
        producer.commit_transaction(),
    ] {
        assert!(
            matches!(refused, Err(LogError::AbortRequired { .. })),
            "{refused:?}"
        );
    }
    producer.abort_transaction().unwrap();
    producer.begin_transaction().unwrap();
    write(&mut producer).unwrap();
    producer.commit_transaction().unwrap();
    assert_eq!(committed(&log), 1);
}

#[test]
fn a_lost_commit_reply_has_committed_and_a_lost_request_has_not() {
    for (fault, expected) in [(Fault::ReplyLost, 1), (Fault::RequestLost, 0)] {
        let (log, _) = log(&[(FaultPoint::Commit, fault)]);
        let mut producer = open(&log);
        write(&mut producer).unwrap();
        let unknown = producer.commit_transaction();
        assert!(
            matches!(unknown, Err(LogError::UnknownOutcome { .. })),
            "{unknown:?}"
        );
        assert_eq!(committed(&log), expected);
        producer.commit_transaction().unwrap();
        assert_eq!(committed(&log), 1);
        producer.begin_transaction().unwrap();
    }
}

#[test]
fn a_commit_that_stays_unknown_is_settled_by_the_next_init() {
    for (fault, expected) in [(Fault::ReplyLost, 1), (Fault::RequestLost, 0)] {
        let (log, _) = log(&[
            (FaultPoint::Commit, fault),
            (FaultPoint::Commit, Fault::Fatal),
        ]);
        let mut producer = open(&log);
        write(&mut producer).unwrap();
        assert!(producer.commit_transaction().is_err());
        let fatal = producer.commit_transaction();
        assert!(matches!(fatal, Err(LogError::Fatal { .. })), "{fatal:?}");
        let fatal = producer.abort_transaction();
        assert!(matches!(fatal, Err(LogError::Fatal { .. })), "{fatal:?}");
        drop(producer);
        drop(open(&log));
        assert_eq!(committed(&log), expected);
        assert!(log.inspect_transactions().is_empty());
    }
}

#[test]
fn an_unresolved_commit_is_fenced_by_a_successor() {
    let (log, _) = log(&[(FaultPoint::Commit, Fault::RequestLost)]);
    let mut producer = open(&log);
    write(&mut producer).unwrap();
    assert!(producer.commit_transaction().is_err());
    drop(open(&log));
    let fenced = producer.commit_transaction();
    assert!(matches!(fenced, Err(LogError::Fenced { .. })), "{fenced:?}");
    assert_eq!(committed(&log), 0);
}

#[test]
fn retriable_faults_are_over_when_called_again() {
    let (log, _) = log(&[
        (FaultPoint::Init, Fault::Retriable),
        (FaultPoint::SendOffsets, Fault::Retriable),
        (FaultPoint::Flush, Fault::Retriable),
        (FaultPoint::Abort, Fault::Retriable),
        (FaultPoint::Committed, Fault::Retriable),
        (FaultPoint::Fetch, Fault::Retriable),
    ]);
    let mut consumer = log
        .consumer(&ConsumerSpec {
            group: "group".to_owned(),
            group_instance_id: None,
            client_id: "client".to_owned(),
            session_timeout: Duration::from_secs(10),
        })
        .unwrap();
    consumer.subscribe(&["topic".into()]).unwrap();
    assert!(consumer.poll_membership().unwrap().is_some());
    consumer.assign(&[(partition_of(0), 0)]).unwrap();
    let group = consumer.group_metadata().unwrap();
    let offsets = [(
        partition_of(0),
        CommittedOffset {
            offset: 1,
            metadata: String::new(),
        },
    )];
    let mut producer = log.producer(&producer_spec("id")).unwrap();
    let retriable = |answer: Result<(), LogError>| {
        assert!(
            matches!(answer, Err(LogError::Retriable { .. })),
            "{answer:?}"
        );
    };
    retriable(producer.init_transactions());
    producer.init_transactions().unwrap();
    producer.begin_transaction().unwrap();
    retriable(producer.send_offsets(&offsets, &group));
    producer.send_offsets(&offsets, &group).unwrap();
    retriable(producer.flush());
    producer.flush().unwrap();
    retriable(producer.abort_transaction());
    producer.abort_transaction().unwrap();
    retriable(consumer.committed(&[partition_of(0)]).map(|_| ()));
    assert_eq!(consumer.committed(&[partition_of(0)]), Ok(vec![None]));
    retriable(
        consumer
            .poll(&partition_of(0), 1, &mut VecDeque::new())
            .map(|_| ()),
    );
    assert_eq!(
        consumer.poll(&partition_of(0), 1, &mut VecDeque::new()),
        Ok(0)
    );
}

#[test]
fn a_zombie_learns_of_its_loss_by_its_commit_or_its_next_poll() {
    let (log, clock) = log(&[]);
    let mut consumer = log
        .consumer(&ConsumerSpec {
            group: "group".to_owned(),
            group_instance_id: None,
            client_id: "client".to_owned(),
            session_timeout: Duration::from_secs(10),
        })
        .unwrap();
    consumer.subscribe(&["topic".into()]).unwrap();
    assert!(consumer.poll_membership().unwrap().is_some());
    consumer.assign(&[(partition_of(0), 0)]).unwrap();
    let mut producer = open(&log);
    write(&mut producer).unwrap();
    clock.advance(10_001);
    // It does not know yet: it asks for its metadata, and is refused by the coordinator.
    let group = consumer.group_metadata().unwrap();
    assert!(consumer.is_member());
    let offsets = [(
        partition_of(0),
        CommittedOffset {
            offset: 1,
            metadata: String::new(),
        },
    )];
    let refused = producer.send_offsets(&offsets, &group);
    assert!(
        matches!(
            refused,
            Err(LogError::MemberUnknown { .. } | LogError::Fenced { .. })
        ),
        "{refused:?}"
    );
    let lost = consumer.poll_membership().unwrap();
    assert!(
        matches!(lost, Some(crate::log::MembershipEvent::Lost(_))),
        "{lost:?}"
    );
    assert!(!consumer.is_member());
    assert_eq!(
        consumer.poll_membership(),
        Ok(None),
        "until the loss is answered"
    );
    consumer
        .unassign(&[partition_of(0), partition_of(1)])
        .unwrap();
    let again = consumer.poll_membership().unwrap();
    assert!(
        matches!(again, Some(crate::log::MembershipEvent::Assigned(_))),
        "{again:?}"
    );
}
