//! The reader of explicitly named partitions: restore, tools, tests. No group is involved, so that
//! a cluster with access control needs to grant nothing for one.
//!
//! # How a position passes control records
//! By the events of a partition's end. Such an event is enqueued behind all records of the fetches
//! before it, under the version of the assignment, at the offset where the next fetch begins, and only
//! when a fetch has found that offset to be the end (the last stable offset, where reads are
//! committed). So nothing visible below it is left when it is taken; an event of a former assignment
//! is dropped by its version, with the queue that it was meant for. A group member must not use them
//! (see `partition`): they spoil the position that a rebalance resumes from, but here there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::config::Config;
use super::ffi::{
    Client, ClientKind, Code, EventBody, FetchError, Fetched, KafkaMessage, NativeError, Origin,
    Queue, Topic, TopicKey,
};
use super::{errors, events};
use crate::log::{
    ConsumerWaker, Isolation, LogError, LogMessage, LogReader, Offset, TopicName, TopicPartition,
};

/// A reader on Kafka.
#[derive(Debug)]
pub struct KafkaReader {
    assigned: HashMap<(TopicKey, i32), Assigned>,
    topics: Vec<(Topic, Arc<Origin>)>,
    /// Receives all partitions; replaced with the assignment.
    records: Queue,
    /// A condition that arrived behind records, due at the next poll.
    condition: Option<(TopicPartition, FetchError)>,
    waker: ConsumerWaker,
    events: Queue,
    client: Arc<Client>,
}

#[derive(Debug)]
struct Assigned {
    at: TopicPartition,
    origin: Arc<Origin>,
    position: Offset,
}

impl KafkaReader {
    pub(super) fn new(config: &Config, isolation: Isolation) -> Result<Self, LogError> {
        const CREATE: &str = "create a reader";
        let client = Client::new(ClientKind::Consumer, config.reader(isolation)?)
            .map_err(|error| errors::log_error(CREATE, error))?;
        let client = Arc::new(client);
        let waker = ConsumerWaker::default();
        let no_queue = || LogError::Fatal {
            operation: CREATE,
            message: "no queue".to_owned(),
        };
        let events = Queue::main(&client).ok_or_else(no_queue)?;
        let records = Self::queue(&client, &waker).ok_or_else(no_queue)?;
        Ok(Self {
            assigned: HashMap::new(),
            topics: Vec::new(),
            records,
            condition: None,
            waker,
            events,
            client,
        })
    }

    fn queue(client: &Arc<Client>, waker: &ConsumerWaker) -> Option<Queue> {
        let mut queue = Queue::new(client)?;
        queue.wake_when_filled(waker.clone());
        Some(queue)
    }

    fn error(&self, operation: &'static str, error: NativeError) -> LogError {
        errors::of_client(&self.client, operation, error)
    }

    fn topic(&mut self, name: &TopicName) -> Result<usize, NativeError> {
        if let Some(index) = self
            .topics
            .iter()
            .position(|(_, origin)| origin.topic == *name)
        {
            return Ok(index);
        }
        let topic = Topic::new(&self.client, name)?;
        let origin = Origin {
            topic: TopicName::clone(name),
            client: Arc::clone(&self.client),
        };
        self.topics.push((topic, Arc::new(origin)));
        Ok(self.topics.len() - 1)
    }

    fn stop_all(&mut self) -> Result<(), NativeError> {
        for ((key, partition), _) in self.assigned.drain() {
            if let Some((topic, _)) = self.topics.iter().find(|(topic, _)| topic.key() == key) {
                topic.stop(partition)?;
            }
        }
        Ok(())
    }

    /// Serves what concerns no partition.
    fn serve_events(&mut self) -> Result<(), LogError> {
        while let Some(event) = self.events.poll(Duration::ZERO) {
            if let EventBody::Error(error) = event.body() {
                events::client_error("reader", &error);
                if error.fatal {
                    return Err(self.error("read", error));
                }
            }
        }
        Ok(())
    }

    /// Takes what is there; returns the number of records, and whether a position has moved.
    fn take(
        &mut self,
        max: usize,
        into: &mut Vec<KafkaMessage>,
    ) -> Result<(usize, bool), LogError> {
        let (assigned, condition) = (&mut self.assigned, &mut self.condition);
        let (mut delivered, mut moved) = (0, false);
        self.records
            .take(max, |fetched| match accept(assigned, fetched) {
                Accepted::Record(record) => {
                    into.push(record);
                    delivered += 1;
                }
                Accepted::End => moved = true,
                Accepted::Condition(at, error) => *condition = Some((at, error)),
                Accepted::Nothing => {}
            })
            .map_err(|error| errors::log_error("read", error))?;
        Ok((delivered, moved || delivered > 0))
    }
}

/// What an entry of the queue turned out to be.
enum Accepted {
    Record(KafkaMessage),
    End,
    Condition(TopicPartition, FetchError),
    Nothing,
}

fn accept(assigned: &mut HashMap<(TopicKey, i32), Assigned>, fetched: Fetched) -> Accepted {
    let Some(source) = assigned.get_mut(&fetched.place()) else {
        return Accepted::Nothing;
    };
    match fetched.into_record(&source.origin) {
        Ok(record) if record.offset() >= source.position => {
            source.position = record.offset() + 1;
            Accepted::Record(record)
        }
        Ok(_below) => Accepted::Nothing,
        Err(error) if error.code == Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
            // Past control records and aborted ones, which are never delivered.
            source.position = source.position.max(error.offset);
            Accepted::End
        }
        Err(error) => Accepted::Condition(source.at.clone(), error),
    }
}

impl LogReader for KafkaReader {
    type Message = KafkaMessage;

    fn assign(&mut self, from: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        let operation = "assign partitions to a reader";
        self.stop_all()
            .map_err(|error| self.error(operation, error))?;
        self.condition = None;
        self.records = Self::queue(&self.client, &self.waker).ok_or_else(|| LogError::Fatal {
            operation,
            message: "no queue".to_owned(),
        })?;
        for (at, offset) in from {
            let index = self
                .topic(&at.topic)
                .map_err(|error| self.error(operation, error))?;
            let Some((topic, origin)) = self.topics.get(index) else {
                continue;
            };
            topic
                .start(at.partition, *offset, &self.records)
                .map_err(|error| self.error(operation, error))?;
            let source = Assigned {
                at: at.clone(),
                origin: Arc::clone(origin),
                position: *offset,
            };
            self.assigned.insert((topic.key(), at.partition), source);
        }
        Ok(())
    }

    fn poll(
        &mut self,
        max: usize,
        timeout: Duration,
        into: &mut Vec<KafkaMessage>,
    ) -> Result<usize, LogError> {
        self.serve_events()?;
        let deadline = Instant::now() + timeout;
        loop {
            if let Some((at, condition)) = self.condition.take() {
                return Err(errors::of_fetch(&at, condition));
            }
            let (delivered, moved) = self.take(max, into)?;
            let left = deadline.saturating_duration_since(Instant::now());
            // Having reached an end is news to a caller that waits for it.
            if delivered > 0 || (self.condition.is_none() && (moved || left.is_zero())) {
                return Ok(delivered);
            }
            if self.condition.is_none() {
                // A wake that was meant for entries already taken costs one more look.
                let _woken: bool = self.waker.wait(left);
            }
        }
    }

    fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        let (topic, _) = self
            .topics
            .iter()
            .find(|(_, origin)| origin.topic == partition.topic)?;
        Some(
            self.assigned
                .get(&(topic.key(), partition.partition))?
                .position,
        )
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        if let Err(error) = self.stop_all() {
            tracing::warn!("a reader did not stop cleanly: {}", error.message);
        }
    }
}
