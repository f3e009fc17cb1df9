//! The producer: transactional, or idempotent without a transactional id.
//!
//! # Position
//! One per stream thread. A thread of its own serves delivery reports, since a commit waits for
//! them inside librdkafka; it is stopped and joined on drop.
//! # Invariants
//! - A report is recorded before librdkafka counts its record as delivered, so that after a commit
//!   or a flush [`take_acknowledged`](LogProducer::take_acknowledged) has them all.
//! - Whichever call brings the news of a lost transaction names the record that a broker refused, if
//!   that was the cause: librdkafka tells the cause to the calls, but the record to its report only.
//! # Failure
//! `errors` decides. A group's refusal in `send_offsets` ([`LogError::MemberUnknown`],
//! [`LogError::Fenced`]) leaves the transaction open: it is to be aborted before the producer is
//! used again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::config::Config;
use super::ffi::{
    Client, ClientKind, Code, EventBody, NativeError, NativeGroupMetadata, PartitionList, Produce,
    Queue, Report, Topic, TopicKey,
};
use super::{errors, events};
use crate::log::{
    CommittedOffset, LogError, LogProducer, Offset, ProducerRecord, ProducerSpec, TopicName,
    TopicPartition,
};

/// How long the first connection is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take before it is to be repeated.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the reports of a lost transaction are waited for: they say which record was refused.
const REPORTS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the report thread sleeps at most; it is woken for reports and for the end.
const REPORT_POLL: Duration = Duration::from_secs(10);

/// A member's identity at the time of a commit.
#[derive(Debug)]
pub struct KafkaGroupMetadata(pub(super) NativeGroupMetadata);

/// A producer on Kafka.
#[derive(Debug)]
pub struct KafkaProducer {
    shared: Arc<Shared>,
    reporter: Option<JoinHandle<()>>,
    topics: Vec<(TopicName, Topic)>,
    spec: ProducerSpec,
    in_transaction: bool,
    connected: bool,
    client: Arc<Client>,
}

/// What producer and report thread share.
#[derive(Debug)]
struct Shared {
    delivered: Mutex<Delivered>,
    /// Signalled after each batch of reports: there is room in the queue.
    room: Condvar,
    stop: AtomicBool,
    events: Queue,
}

#[derive(Debug, Default)]
struct Delivered {
    /// The last acknowledged offset. Reports of a partition come in offset order, so the last one
    /// is the highest; when it has none, the highest is not known.
    offsets: HashMap<(TopicKey, i32), Option<Offset>>,
    /// The first refusal of a record, or else the first failure.
    failure: Option<Failure>,
    /// Grows with each batch of reports.
    batches: u64,
}

/// A record that was queued and not delivered.
#[derive(Debug)]
struct Failure {
    topic: TopicKey,
    partition: i32,
    size: usize,
    error: NativeError,
}

impl Shared {
    fn delivered(&self) -> MutexGuard<'_, Delivered> {
        self.delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves reports until told to stop.
    fn serve(&self, name: &str) {
        while !self.stop.load(Ordering::Acquire) {
            let Some(event) = self.events.poll(REPORT_POLL) else {
                continue;
            };
            match event.body() {
                EventBody::Reports => {
                    let mut delivered = self.delivered();
                    // ORDER: recorded before the event is dropped, which is what a flush waits for.
                    event.reports(|report| delivered.record(report));
                    delivered.batches += 1;
                    drop(delivered);
                    drop(event);
                    self.room.notify_all();
                }
                EventBody::Error(error) => events::client_error(name, &error),
                EventBody::Assign(_) | EventBody::Revoke(_) | EventBody::Other => {}
            }
        }
    }
}

impl Delivered {
    fn record(&mut self, report: Report) {
        match report.code {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
                let offset = (report.offset >= 0).then_some(report.offset);
                self.offsets
                    .insert((report.topic, report.partition), offset);
            }
            // An abort took these back.
            Code::RD_KAFKA_RESP_ERR__PURGE_QUEUE | Code::RD_KAFKA_RESP_ERR__PURGE_INFLIGHT => {}
            code => {
                // The failures that follow a refusal are its consequences.
                let refused = |failure: &Failure| errors::refusal(failure.error.code).is_some();
                let known = self.failure.as_ref();
                if known.is_none_or(|known| !refused(known) && errors::refusal(code).is_some()) {
                    self.failure = Some(Failure {
                        topic: report.topic,
                        partition: report.partition,
                        size: report.size,
                        error: NativeError::from_code(code),
                    });
                }
            }
        }
    }
}

impl KafkaProducer {
    pub(super) fn new(config: &Config, spec: &ProducerSpec) -> Result<Self, LogError> {
        const CREATE: &str = "create a producer";
        let client = Client::new(ClientKind::Producer, config.producer(spec)?)
            .map_err(|error| errors::log_error(CREATE, error))?;
        let client = Arc::new(client);
        let fatal = |message: String| LogError::Fatal {
            operation: CREATE,
            message,
        };
        let events = Queue::main(&client).ok_or_else(|| fatal("no event queue".to_owned()))?;
        let shared = Arc::new(Shared {
            delivered: Mutex::default(),
            room: Condvar::new(),
            stop: AtomicBool::new(false),
            events,
        });
        let serving = Arc::clone(&shared);
        let name = spec.client_id.clone();
        let reporter = std::thread::Builder::new()
            .name("kafka-reports".to_owned())
            .spawn(move || serving.serve(&name))
            .map_err(|error| fatal(error.to_string()))?;
        Ok(Self {
            shared,
            reporter: Some(reporter),
            topics: Vec::new(),
            spec: spec.clone(),
            in_transaction: false,
            connected: false,
            client,
        })
    }

    /// Returns the topic object of a name. A thread writes to few topics, and nearly always names
    /// them by the same `Arc`: the scan compares pointers before it compares strings.
    fn topic(&mut self, name: &TopicName) -> Result<usize, LogError> {
        if let Some(index) = self
            .topics
            .iter()
            .position(|(known, _)| Arc::ptr_eq(known, name))
        {
            return Ok(index);
        }
        if let Some(index) = self.topics.iter().position(|(known, _)| known == name) {
            return Ok(index);
        }
        let topic = Topic::new(&self.client, name).map_err(|error| self.error("send", error))?;
        self.topics.push((TopicName::clone(name), topic));
        Ok(self.topics.len() - 1)
    }

    fn error(&self, operation: &'static str, error: NativeError) -> LogError {
        errors::of_client(&self.client, operation, error)
    }

    /// Converts the failure of queueing or delivering a record.
    fn record_error(
        &self,
        operation: &'static str,
        topic: &str,
        size: usize,
        error: NativeError,
    ) -> LogError {
        match error.code {
            Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE => LogError::RecordTooLarge {
                topic: topic.to_owned(),
                size,
            },
            code if errors::is_unknown_topic(code) => LogError::UnknownTopic {
                topic: topic.to_owned(),
            },
            // Inside a transaction that we opened, this is what a lost transaction answers.
            Code::RD_KAFKA_RESP_ERR__STATE if self.in_transaction => {
                self.explain(LogError::AbortRequired {
                    operation,
                    message: error.message,
                })
            }
            _ => self.error(operation, error),
        }
    }

    fn topic_name(&self, key: TopicKey) -> Option<&TopicName> {
        let (name, _) = self.topics.iter().find(|(_, topic)| topic.key() == key)?;
        Some(name)
    }

    /// Says what a transaction was lost by, where that was the fate of one of its records.
    fn explain(&self, error: LogError) -> LogError {
        let LogError::AbortRequired { operation, message } = error else {
            return error;
        };
        if self.shared.delivered().failure.is_none() {
            // The report may still be on its way. Once nothing is outstanding, all are in; what a
            // broker that is away leaves outstanding is no refusal.
            drop(self.client.flush(REPORTS_TIMEOUT));
        }
        let delivered = self.shared.delivered();
        let Some(failure) = &delivered.failure else {
            return LogError::AbortRequired { operation, message };
        };
        let topic = self.topic_name(failure.topic).map_or("", |name| &**name);
        let partition = TopicPartition::new(topic, failure.partition);
        match errors::refusal(failure.error.code) {
            Some(refusal) => LogError::RecordRefused {
                operation,
                partition,
                refusal,
                message: format!("{} ({} bytes)", failure.error.message, failure.size),
            },
            None => LogError::AbortRequired {
                operation,
                message: format!(
                    "{message}; record for {partition}: {}",
                    failure.error.message
                ),
            },
        }
    }

    /// Waits until a batch of reports has made room, or `deadline` has passed.
    fn wait_for_room(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let delivered = self.shared.delivered();
        let seen = delivered.batches;
        // A batch between the failed attempt and this lock is not seen: hence the short waits.
        let slice = left.min(Duration::from_millis(20));
        drop(
            self.shared
                .room
                .wait_timeout_while(delivered, slice, |delivered| delivered.batches == seen)
                .unwrap_or_else(PoisonError::into_inner),
        );
        !left.is_zero()
    }

    fn queue_full(&self) -> LogError {
        let operation = "send";
        let message = "the producer's queue stays full".to_owned();
        if self.in_transaction {
            LogError::AbortRequired { operation, message }
        } else {
            LogError::Retriable { operation, message }
        }
    }

    fn connect(&mut self) -> Result<(), LogError> {
        if !self.connected {
            self.client
                .connect(CONNECT_TIMEOUT)
                .map_err(|error| self.error("connect the producer", error))?;
            self.connected = true;
        }
        Ok(())
    }

    fn is_transactional(&self) -> bool {
        self.spec.transactional_id.is_some()
    }
}

impl LogProducer for KafkaProducer {
    type GroupMetadata = KafkaGroupMetadata;

    fn init_transactions(&mut self) -> Result<(), LogError> {
        // librdkafka looks for the coordinator before any connection is up, and then tries again
        // 500 ms later: connect first.
        self.connect()?;
        self.client
            .init_transactions(CALL_TIMEOUT)
            .map_err(|error| self.error("initialise transactions", error))
    }

    fn begin_transaction(&mut self) -> Result<(), LogError> {
        self.client
            .begin_transaction()
            .map_err(|error| self.error("begin a transaction", error))?;
        self.in_transaction = true;
        let mut delivered = self.shared.delivered();
        delivered.offsets.clear();
        delivered.failure = None;
        Ok(())
    }

    fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), LogError> {
        let index = self.topic(record.topic)?;
        let produce = Produce {
            partition: record.partition,
            key: record.key,
            value: record.value,
            // librdkafka reads 0 as "now"; a millisecond is the smaller lie.
            timestamp: if record.timestamp == 0 {
                1
            } else {
                record.timestamp
            },
            headers: record.headers,
        };
        let mut deadline = None;
        loop {
            let Some((_, topic)) = self.topics.get(index) else {
                return Err(self.queue_full());
            };
            match topic.produce(&produce) {
                Ok(()) => return Ok(()),
                Err(error) if error.code == Code::RD_KAFKA_RESP_ERR__QUEUE_FULL => {
                    let until = *deadline.get_or_insert_with(|| {
                        Instant::now() + self.spec.transaction_timeout.max(CALL_TIMEOUT)
                    });
                    if !self.wait_for_room(until) {
                        return Err(self.queue_full());
                    }
                }
                Err(error) => {
                    let size =
                        record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
                    return Err(self.record_error("send", record.topic, size, error));
                }
            }
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let operation = "flush";
        self.client
            .flush(CALL_TIMEOUT)
            .map_err(|error| self.error(operation, error))?;
        if self.is_transactional() {
            if self.shared.delivered().failure.is_none() {
                return Ok(());
            }
            let message = "a record was not delivered".to_owned();
            return Err(self.explain(LogError::AbortRequired { operation, message }));
        }
        let Some(failure) = self.shared.delivered().failure.take() else {
            return Ok(());
        };
        let name = self.topic_name(failure.topic).map_or("", |name| &**name);
        Err(self.record_error(operation, name, failure.size, failure.error))
    }

    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, CommittedOffset)],
        group: &KafkaGroupMetadata,
    ) -> Result<(), LogError> {
        // Without a valid offset librdkafka sends nothing, and nothing is fenced.
        assert!(
            !offsets.is_empty(),
            "a transaction carries at least one offset"
        );
        assert!(
            offsets.iter().all(|(_, committed)| committed.offset >= 0),
            "a committed offset is not negative"
        );
        let operation = "send offsets to the transaction";
        let list = PartitionList::of_committed(offsets)
            .map_err(|error| errors::log_error(operation, error))?;
        self.client
            .send_offsets(&list, &group.0, CALL_TIMEOUT)
            .map_err(|error| self.explain(self.error(operation, error)))
    }

    fn commit_transaction(&mut self) -> Result<(), LogError> {
        self.client
            .commit_transaction(CALL_TIMEOUT)
            .map_err(|error| self.explain(errors::of_commit(&self.client, error)))?;
        self.in_transaction = false;
        self.shared.delivered().failure = None;
        Ok(())
    }

    fn abort_transaction(&mut self) -> Result<(), LogError> {
        self.client
            .abort_transaction(CALL_TIMEOUT)
            .map_err(|error| errors::of_abort(&self.client, error))?;
        self.in_transaction = false;
        let mut delivered = self.shared.delivered();
        delivered.failure = None;
        delivered.offsets.clear();
        Ok(())
    }

    fn take_acknowledged(&mut self) -> Vec<(TopicPartition, Option<Offset>)> {
        let taken = std::mem::take(&mut self.shared.delivered().offsets);
        taken
            .into_iter()
            .filter_map(|((key, partition), offset)| {
                let topic = self.topic_name(key)?;
                Some((
                    TopicPartition {
                        topic: TopicName::clone(topic),
                        partition,
                    },
                    offset,
                ))
            })
            .collect()
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.events.interrupt();
        if let Some(reporter) = self.reporter.take()
            && reporter.join().is_err()
        {
            tracing::error!("the report thread of a producer panicked");
        }
    }
}
