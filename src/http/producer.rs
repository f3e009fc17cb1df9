//! Sends commands to their topics, on a thread of its own: a log's producer blocks.
//!
//! # Invariants
//! - A command that was reported as sent is in the log. One that was not may be there too: its
//!   caller repeats it under the same id, which the aggregate knows.
//! - A command whose caller has given up is not sent, if that is not too late.
//! # Failure
//! What a broker that is away leaves unsent is sent again while its caller waits; a producer that
//! can do nothing more is replaced.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::log::{Headers, Log, LogError, LogProducer, ProducerRecord, ProducerSpec, TopicName};

/// Commands that wait for the thread at most.
const QUEUE_MAX: usize = 4096;
/// Commands that one flush waits for at most.
const BATCH_MAX: usize = 256;
/// Between two attempts while the broker is away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// For `transaction.timeout.ms`, which an idempotent producer has no use for.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a command was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SendFailure {
    /// It is larger than the log takes.
    TooLarge(String),
    /// The log refuses it for good.
    Refused(String),
}

/// A command as a record of its topic.
#[derive(Debug)]
pub(super) struct CommandRecord {
    pub(super) topic: TopicName,
    pub(super) partition: i32,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) timestamp: Timestamp,
}

/// Tells what became of a command.
pub(super) type SendOutcome = oneshot::Receiver<Result<(), SendFailure>>;

struct Outgoing {
    record: CommandRecord,
    done: oneshot::Sender<Result<(), SendFailure>>,
}

/// Hands commands to the thread that sends them. Cheap to clone; the thread ends with the last one.
#[derive(Clone)]
pub struct CommandProducer(SyncSender<Outgoing>);

impl fmt::Debug for CommandProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandProducer").finish_non_exhaustive()
    }
}

impl CommandProducer {
    /// Starts the thread, which connects at once.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start<L: Log>(log: &L, client_id: impl Into<String>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let worker = Worker {
            log: log.clone(),
            spec: ProducerSpec {
                transactional_id: None,
                transaction_timeout: TRANSACTION_TIMEOUT,
                client_id: client_id.into(),
            },
            producer: None,
        };
        std::thread::Builder::new()
            .name("commands".to_owned())
            .spawn(move || worker.run(&receiver))?;
        Ok(Self(sender))
    }

    /// Queues a command; `None` when there is no room.
    pub(super) fn send(&self, record: CommandRecord) -> Option<SendOutcome> {
        let (done, outcome) = oneshot::channel();
        let queued = self.0.try_send(Outgoing { record, done });
        queued.is_ok().then_some(outcome)
    }
}

struct Worker<L: Log> {
    log: L,
    spec: ProducerSpec,
    producer: Option<L::Producer>,
}

impl<L: Log> Worker<L> {
    fn run(mut self, queue: &Receiver<Outgoing>) {
        // A client connects when it is made: the first command should not have to wait for that.
        if let Ok(producer) = self.log.producer(&self.spec) {
            self.producer = Some(producer);
        }
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            batch.extend(queue.try_iter().take(BATCH_MAX - 1));
            self.deliver(batch);
        }
    }

    /// Sends a batch until it is in the log or nobody waits for it any more.
    fn deliver(&mut self, mut batch: Vec<Outgoing>) {
        loop {
            batch.retain(|command| !command.done.is_closed());
            if batch.is_empty() {
                return;
            }
            match self.attempt(&mut batch) {
                Ok(()) => {
                    for command in batch {
                        // A caller that has just given up needs no word.
                        drop(command.done.send(Ok(())));
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, commands = batch.len(), "commands not sent yet");
                    if !error.is_retriable() {
                        self.producer = None;
                    }
                    std::thread::park_timeout(RETRY_PAUSE);
                }
            }
        }
    }

    /// Sends all of the batch and waits for the acknowledgements. What can never be sent is
    /// answered and removed. After a failure it is not known which records are in the log: all are
    /// sent again.
    fn attempt(&mut self, batch: &mut Vec<Outgoing>) -> Result<(), LogError> {
        let producer = match &mut self.producer {
            Some(producer) => producer,
            none @ None => none.insert(self.log.producer(&self.spec)?),
        };
        let mut failure = None;
        let mut unsent = Vec::new();
        for command in batch.drain(..) {
            if failure.is_some() {
                unsent.push(command);
                continue;
            }
            let headers = Headers::new();
            let sent = producer.send(ProducerRecord {
                topic: &command.record.topic,
                partition: Some(command.record.partition),
                key: Some(&command.record.key),
                value: Some(&command.record.value),
                timestamp: command.record.timestamp,
                headers: &headers,
            });
            match sent {
                Ok(()) => unsent.push(command),
                Err(error @ LogError::RecordTooLarge { .. }) => {
                    refuse(command, SendFailure::TooLarge(error.to_string()));
                }
                Err(error @ LogError::UnknownTopic { .. }) => {
                    refuse(command, SendFailure::Refused(error.to_string()));
                }
                Err(error) => {
                    unsent.push(command);
                    failure = Some(error);
                }
            }
        }
        *batch = unsent;
        match failure {
            Some(error) => Err(error),
            None => producer.flush(),
        }
    }
}

fn refuse(command: Outgoing, failure: SendFailure) {
    drop(command.done.send(Err(failure)));
}
