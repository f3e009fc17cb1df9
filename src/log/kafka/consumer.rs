//! The group member: membership, assignment, and one queue of records per partition.
//!
//! # Position
//! One per stream thread, which polls it. librdkafka's background threads heartbeat and fetch; they
//! end a [`wait`](LogConsumer::wait) through the queues' callbacks.
//! # Invariants
//! - A partition's queue is cut off from the consumer's queue before the partition is assigned, so
//!   that all its records arrive there, in order.
//! - A record below the partition's position is dropped: a rebalance pauses and resumes fetching
//!   inside librdkafka, and a seek races with what is under way.
//! - A partition's position is never beyond a visible record that was not handed out: `partition` has
//!   the reasons.
//! - Records hold the client alive; dropping the consumer closes it without leaving the group.
//! # Failure
//! A fatal client error (another process under our static identity) surfaces in
//! [`poll_membership`](LogConsumer::poll_membership), after which every call answers it. One case is
//! our own: when an outage outlasts the session, librdkafka joins again as a new member of the same
//! static identity, and the coordinator fences the old one, whose last request may still be under
//! way. librdkafka takes that for its own end. A member whose partitions were lost has nothing left
//! that could be fenced: it goes on with a new client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::config::Config;
use super::ffi::{
    Client, ClientKind, Code, EventBody, KafkaMessage, NativeError, PartitionList, Queue,
};
use super::partition::Partition;
use super::producer::KafkaGroupMetadata;
use super::{errors, events};
use crate::log::{
    CommittedOffset, ConsumerSpec, ConsumerWaker, LogConsumer, LogError, MembershipEvent, Offset,
    TopicName, TopicPartition,
};

/// How long a question for committed offsets may hold the thread up.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a seek may take to begin.
const SEEK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long leaving may take, the broker's answer included.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between looks at the progress of leaving.
const LEAVE_POLL: Duration = Duration::from_millis(10);

/// A group member on Kafka.
#[derive(Debug)]
pub struct KafkaConsumer {
    partitions: HashMap<TopicPartition, Partition>,
    events: Queue,
    waker: ConsumerWaker,
    /// Whether the group has given this member an assignment, possibly an empty one.
    joined: bool,
    /// Whether the membership was lost, and has not come back since.
    lost: bool,
    /// An assignment or a revocation was handed out, and has not been answered.
    owes_answer: bool,
    left: bool,
    client: Arc<Client>,
    subscription: Vec<TopicName>,
    config: Arc<Config>,
    spec: ConsumerSpec,
}

impl KafkaConsumer {
    pub(super) fn new(config: Arc<Config>, spec: &ConsumerSpec) -> Result<Self, LogError> {
        let waker = ConsumerWaker::default();
        let (client, events) = Self::open(&config, spec, &waker)?;
        Ok(Self {
            partitions: HashMap::new(),
            events,
            waker,
            joined: false,
            lost: false,
            owes_answer: false,
            left: false,
            client,
            subscription: Vec::new(),
            config,
            spec: spec.clone(),
        })
    }

    fn open(
        config: &Config,
        spec: &ConsumerSpec,
        waker: &ConsumerWaker,
    ) -> Result<(Arc<Client>, Queue), LogError> {
        const CREATE: &str = "create a consumer";
        let client = Client::new(ClientKind::Consumer, config.consumer(spec)?)
            .map_err(|error| errors::log_error(CREATE, error))?;
        let client = Arc::new(client);
        let mut events = Queue::consumer(&client).ok_or_else(|| LogError::Fatal {
            operation: CREATE,
            message: "the client has no consumer queue".to_owned(),
        })?;
        events.wake_when_filled(waker.clone());
        Ok((client, events))
    }

    /// Goes on with a new client, if the fatal error of this one concerns a membership that was
    /// lost before.
    fn revive(&mut self, error: &LogError) -> Result<bool, LogError> {
        if !self.lost || !self.partitions.is_empty() || !matches!(error, LogError::Fenced { .. }) {
            return Ok(false);
        }
        tracing::warn!(
            client = self.spec.client_id,
            %error,
            "the former member of this static identity was fenced, joining with a new client"
        );
        let (client, events) = Self::open(&self.config, &self.spec, &self.waker)?;
        self.client.abandon_group();
        (self.client, self.events) = (client, events);
        let subscription = self.subscription.clone();
        self.subscribe(&subscription)?;
        Ok(true)
    }

    fn error(&self, operation: &'static str, error: NativeError) -> LogError {
        errors::of_client(&self.client, operation, error)
    }

    /// Answers a revocation, or gives partitions up in between.
    fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<(), NativeError> {
        // librdkafka refuses the whole call when one partition is not assigned, as after `Lost`
        // events that cross an `assign`.
        let known = partitions
            .iter()
            .filter(|at| self.partitions.contains_key(*at));
        let list = PartitionList::of(known.map(|at| (at, 0)))?;
        if self.client.is_cooperative() {
            self.client.incremental_unassign(&list)?;
        } else {
            self.client.unassign_all()?;
        }
        self.owes_answer = false;
        for at in partitions {
            self.partitions.remove(at);
        }
        Ok(())
    }

    fn membership(&mut self, body: EventBody) -> Result<Option<MembershipEvent>, LogError> {
        match body {
            EventBody::Assign(partitions) => {
                self.owes_answer = true;
                self.joined = true;
                self.lost = false;
                Ok(Some(MembershipEvent::Assigned(partitions)))
            }
            EventBody::Revoke(partitions) if self.client.assignment_lost() => {
                self.owes_answer = true;
                self.joined = false;
                self.lost = true;
                Ok(Some(MembershipEvent::Lost(partitions)))
            }
            EventBody::Revoke(partitions) => {
                self.owes_answer = true;
                Ok(Some(MembershipEvent::Revoked(partitions)))
            }
            EventBody::Error(error) => {
                events::client_error(&self.spec.client_id, &error);
                if error.fatal {
                    self.joined = false;
                    let error = self.error("membership", error);
                    return if self.revive(&error)? {
                        Ok(None)
                    } else {
                        Err(error)
                    };
                }
                if error.code == Code::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED {
                    self.joined = false;
                }
                Ok(None)
            }
            EventBody::Reports | EventBody::Other => Ok(None),
        }
    }

    /// Answers a rebalance that waits for it, by giving up whatever is assigned.
    ///
    /// librdkafka puts leaving off until the answer, and takes nothing but an assignment for the
    /// answer to an assignment: here one of no partitions.
    fn answer_leaving(&mut self) -> Result<(), NativeError> {
        if self.client.is_cooperative() {
            self.client.incremental_assign(&PartitionList::new(0))?;
        }
        let all: Vec<_> = self.partitions.keys().cloned().collect();
        self.give_up(&all)
    }

    /// Serves the events of leaving until `done`.
    fn serve_leaving(
        &mut self,
        deadline: Instant,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), LogError> {
        let operation = "leave the group";
        while !done(self) {
            if Instant::now() >= deadline {
                let message = format!("no answer within {LEAVE_TIMEOUT:?}");
                return Err(LogError::Retriable { operation, message });
            }
            let Some(event) = self.events.poll(LEAVE_POLL) else {
                continue;
            };
            match event.body() {
                // A consumer that is closed answers nobody, and would be waited for without end.
                EventBody::Assign(_) | EventBody::Revoke(_) if self.client.is_closed() => {}
                EventBody::Assign(_) | EventBody::Revoke(_) => {
                    self.answer_leaving()
                        .map_err(|error| self.error(operation, error))?;
                }
                EventBody::Error(error) => events::client_error(&self.spec.client_id, &error),
                EventBody::Reports | EventBody::Other => {}
            }
        }
        Ok(())
    }

    /// Places a partition anew where a seek is refused: while it is not being fetched yet.
    fn reassign(&self, list: &PartitionList) -> Result<(), NativeError> {
        self.client.incremental_unassign(list)?;
        self.client.incremental_assign(list)
    }
}

impl LogConsumer for KafkaConsumer {
    type Message = KafkaMessage;
    type GroupMetadata = KafkaGroupMetadata;

    fn subscribe(&mut self, topics: &[TopicName]) -> Result<(), LogError> {
        let operation = "subscribe";
        let mut list = PartitionList::new(topics.len());
        for topic in topics {
            list.push(topic, -1, 0, None)
                .map_err(|error| errors::log_error(operation, error))?;
        }
        self.client
            .subscribe(&list)
            .map_err(|error| self.error(operation, error))?;
        // A client that is created anew joins with the same.
        self.subscription = topics.to_vec();
        Ok(())
    }

    fn poll_membership(&mut self) -> Result<Option<MembershipEvent>, LogError> {
        while let Some(event) = self.events.poll(Duration::ZERO) {
            if let Some(event) = self.membership(event.body())? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn assign(&mut self, from: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        let operation = "assign partitions";
        let list = PartitionList::of(from.iter().map(|(at, offset)| (at, *offset)))
            .map_err(|error| errors::log_error(operation, error))?;
        let mut added = Vec::with_capacity(from.len());
        for (at, offset) in from {
            let partition = Partition::new(&self.client, at, *offset, &self.waker)
                .map_err(|error| self.error(operation, error))?;
            added.push((at.clone(), partition));
        }
        self.client
            .incremental_assign(&list)
            .map_err(|error| self.error(operation, error))?;
        for (_, partition) in &mut added {
            partition.settled(&self.client);
        }
        self.owes_answer = false;
        self.partitions.extend(added);
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.give_up(partitions)
            .map_err(|error| self.error("unassign partitions", error))
    }

    fn poll(
        &mut self,
        partition: &TopicPartition,
        max: usize,
        into: &mut VecDeque<KafkaMessage>,
    ) -> Result<usize, LogError> {
        let Some(source) = self.partitions.get_mut(partition) else {
            return Ok(0);
        };
        if let Some(position) = source.to_seek() {
            self.seek(partition, position)?;
        }
        let Some(source) = self.partitions.get_mut(partition) else {
            return Ok(0);
        };
        source.poll(&self.client, partition, max, into)
    }

    fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.partitions.get(partition)?.position()
    }

    fn wait(&mut self, timeout: Duration) {
        // Woken or not, the caller looks everywhere.
        let _woken: bool = self.waker.wait(timeout);
    }

    fn waker(&self) -> ConsumerWaker {
        self.waker.clone()
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        let operation = "seek";
        let Some(source) = self.partitions.get_mut(partition) else {
            let message = format!("{partition} is not assigned");
            return Err(LogError::Fatal { operation, message });
        };
        source.begin_seek();
        let list = PartitionList::of([(partition, offset)])
            .map_err(|error| errors::log_error(operation, error))?;
        self.client
            .seek(&list, SEEK_TIMEOUT)
            .map_err(|error| self.error(operation, error))?;
        let code = list
            .entries()
            .next()
            .map_or(Code::RD_KAFKA_RESP_ERR__STATE, |entry| entry.code);
        match code {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            Code::RD_KAFKA_RESP_ERR__STATE | Code::RD_KAFKA_RESP_ERR__PREV_IN_PROGRESS => {
                // `seek` wrote its outcome over the list.
                let list = PartitionList::of([(partition, offset)])
                    .map_err(|error| errors::log_error(operation, error))?;
                self.reassign(&list)
                    .map_err(|error| self.error(operation, error))?;
            }
            code => return Err(self.error(operation, NativeError::from_code(code))),
        }
        if let Some(source) = self.partitions.get_mut(partition) {
            source.sought(&self.client, offset);
        }
        Ok(())
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, LogError> {
        let operation = "fetch committed offsets";
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let list = PartitionList::of(partitions.iter().map(|at| (at, 0)))
            .map_err(|error| errors::log_error(operation, error))?;
        self.client
            .committed(&list, COMMITTED_TIMEOUT)
            .map_err(|error| self.error(operation, error))?;
        super::admin::committed_offsets(operation, partitions, list.entries())
    }

    fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        let source = self.partitions.get(partition)?;
        self.client
            .high_watermark(&source.name, partition.partition)
    }

    fn group_metadata(&self) -> Result<KafkaGroupMetadata, LogError> {
        self.client
            .group_metadata()
            .filter(|metadata| self.joined && metadata.is_member())
            .map(KafkaGroupMetadata)
            .ok_or_else(|| LogError::MemberUnknown {
                operation: "take the group's metadata",
                message: "this consumer is no member at the moment".to_owned(),
            })
    }

    fn is_member(&self) -> bool {
        self.joined
    }

    fn leave(&mut self) -> Result<(), LogError> {
        let operation = "leave the group";
        if self.left {
            return Ok(());
        }
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        self.joined = false;
        self.client
            .unsubscribe()
            .map_err(|error| self.error(operation, error))?;
        if self.owes_answer {
            // Only then: the answer to an event that is still queued would leave the event behind, and
            // its own answer would come when nobody waits for it any more.
            self.answer_leaving()
                .map_err(|error| self.error(operation, error))?;
        }
        // ORDER: the member id is gone when the LeaveGroup request is on its way. A static member
        // sends one for unsubscribing only, not for closing, which therefore comes second.
        self.serve_leaving(deadline, |consumer| {
            !consumer
                .client
                .group_metadata()
                .is_some_and(|metadata| metadata.is_member())
        })?;
        self.client
            .close_consumer(&self.events)
            .map_err(|error| self.error(operation, error))?;
        self.serve_leaving(deadline, |consumer| consumer.client.is_closed())?;
        self.partitions.clear();
        self.left = true;
        Ok(())
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        if self.spec.group_instance_id.is_some() {
            self.client.abandon_group();
        } else if let Err(error) = self.leave() {
            // librdkafka cannot abandon a dynamic member: its destructor would wait for ever for the
            // answer to an assignment. Nothing could resume as it either, so it leaves.
            tracing::warn!(client = self.spec.client_id, %error, "a member was dropped without leaving");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use super::*;
    use crate::log::kafka::KafkaLog;
    use crate::log::{Headers, Log, LogProducer, ProducerRecord, ProducerSpec, TopicSpec};

    /// How long the group may take.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = check() {
                return answer;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn await_assigned(consumer: &mut KafkaConsumer) -> Vec<TopicPartition> {
        until("an assignment", || {
            match consumer.poll_membership().unwrap() {
                Some(MembershipEvent::Assigned(partitions)) => Some(partitions),
                Some(other) => panic!("unexpected {other:?}"),
                None => None,
            }
        })
    }

    /// A topic of its own on the broker, and a member's specification; `None` where there is no broker.
    fn place(test: &str, partitions: i32) -> Option<(KafkaLog, TopicName, ConsumerSpec)> {
        let Ok(servers) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
            // Past the harness's capture: a skip that nobody sees looks like a pass.
            let line = format!("SKIPPED {test}: KAFKA_BOOTSTRAP_SERVERS is not set\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        };
        let log = KafkaLog::new(&servers, BTreeMap::new()).unwrap();
        let unique = format!("{test}-{:016x}", fastrand::u64(..));
        let topic = TopicName::from(unique.as_str());
        let spec = TopicSpec {
            name: Arc::clone(&topic),
            partitions,
            replication_factor: None,
            config: BTreeMap::new(),
        };
        log.create_topics(&[spec]).unwrap();
        let spec = ConsumerSpec {
            group: unique.clone(),
            group_instance_id: Some(format!("{unique}-0")),
            client_id: test.to_owned(),
            session_timeout: Duration::from_secs(6),
        };
        Some((log, topic, spec))
    }

    fn write(log: &KafkaLog, at: &TopicPartition) {
        let spec = ProducerSpec {
            transactional_id: None,
            transaction_timeout: PATIENCE,
            client_id: "writer".to_owned(),
        };
        let mut producer = log.producer(&spec).unwrap();
        let record = ProducerRecord {
            topic: &at.topic,
            partition: Some(at.partition),
            key: Some(b"k"),
            value: Some(b"v"),
            timestamp: 1,
            headers: &Headers::new(),
        };
        producer.send(record).unwrap();
        producer.flush().unwrap();
    }

    #[test]
    fn a_member_leaves_with_an_assignment_or_a_revocation_unanswered() {
        let Some((log, topic, first_spec)) = place("unanswered", 2) else {
            return;
        };
        let group = first_spec.group.clone();
        let second_spec = ConsumerSpec {
            group_instance_id: None,
            ..first_spec.clone()
        };
        let mut first = log.consumer(&first_spec).unwrap();
        first.subscribe(std::slice::from_ref(&topic)).unwrap();
        // The assignment is taken and not answered.
        assert_eq!(await_assigned(&mut first).len(), 2);
        first.leave().unwrap();
        assert_eq!(log.group_members(&group).unwrap(), []);

        let mut first = log.consumer(&first_spec).unwrap();
        first.subscribe(std::slice::from_ref(&topic)).unwrap();
        let all: Vec<_> = await_assigned(&mut first)
            .into_iter()
            .map(|at| (at, 0))
            .collect();
        first.assign(&all).unwrap();
        let mut second = log.consumer(&second_spec).unwrap();
        second.subscribe(std::slice::from_ref(&topic)).unwrap();
        let revoked = until("a revocation", || {
            // What the second gets is not answered either.
            drop(second.poll_membership().unwrap());
            match first.poll_membership().unwrap() {
                Some(MembershipEvent::Revoked(partitions)) => Some(partitions),
                Some(other) => panic!("unexpected {other:?}"),
                None => None,
            }
        });
        assert_eq!(revoked.len(), 1);
        // The revocation is not answered; the second may be anywhere in its rebalance.
        first.leave().unwrap();
        second.leave().unwrap();
        assert_eq!(log.group_members(&group).unwrap(), []);
    }

    #[test]
    fn an_offset_out_of_range_is_forgotten_when_the_position_has_been_changed_since() {
        let Some((log, topic, spec)) = place("crossed_seek", 1) else {
            return;
        };
        let at = TopicPartition::new(Arc::clone(&topic), 0);
        let mut consumer = log.consumer(&spec).unwrap();
        consumer.subscribe(&[topic]).unwrap();
        await_assigned(&mut consumer);
        consumer.assign(&[(at.clone(), 17)]).unwrap();
        until("the refusal waits in the queue", || {
            (!consumer.partitions[&at].is_drained()).then_some(())
        });
        consumer.seek(&at, 0).unwrap();
        write(&log, &at);
        let mut records = VecDeque::new();
        until("the record at the new position", || {
            match consumer.poll(&at, 1, &mut records) {
                Ok(_) | Err(LogError::Retriable { .. }) => records.pop_front(),
                Err(error) => panic!("{error}"),
            }
        });
        // What is out of range at the very position is told, and once only.
        consumer.seek(&at, 18).unwrap();
        let refused = until("a refusal", || consumer.poll(&at, 1, &mut records).err());
        let offset = 18;
        assert_eq!(
            refused,
            LogError::OffsetOutOfRange {
                partition: at,
                offset
            }
        );
        consumer.leave().unwrap();
    }

    #[test]
    fn a_member_that_is_fenced_after_its_partitions_were_lost_joins_with_a_new_client() {
        let Some((log, topic, spec)) = place("revived_member", 1) else {
            return;
        };
        let unique = spec.group.clone();
        let at = TopicPartition::new(Arc::clone(&topic), 0);
        let mut consumer = log.consumer(&spec).unwrap();
        consumer.subscribe(&[topic]).unwrap();
        assert_eq!(await_assigned(&mut consumer), std::slice::from_ref(&at));
        consumer.assign(&[(at.clone(), 0)]).unwrap();

        // A fence while partitions are owned is another process's, and the end.
        let fence = Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
        let fenced = LogError::Fenced {
            operation: "membership",
            message: "of a former life".to_owned(),
        };
        assert_eq!(consumer.revive(&fenced), Ok(false));

        // What an outage that outlasts the session leaves behind: no partitions, and librdkafka's
        // belief that it was fenced, by its own next life.
        consumer.unassign(std::slice::from_ref(&at)).unwrap();
        (consumer.lost, consumer.joined) = (true, false);
        let former = Arc::clone(&consumer.client);
        former.raise_fatal_error(fence);
        assert_eq!(await_assigned(&mut consumer), std::slice::from_ref(&at));
        assert!(!Arc::ptr_eq(&former, &consumer.client));
        drop(former);
        consumer.assign(&[(at, 0)]).unwrap();
        assert!(consumer.is_member() && consumer.group_metadata().is_ok());
        assert_eq!(log.group_members(&unique).unwrap().len(), 1);
        consumer.leave().unwrap();
        assert_eq!(log.group_members(&unique).unwrap(), []);
    }
}
