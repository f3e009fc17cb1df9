//! The seam on real Kafka: librdkafka through `rdkafka-sys`.
//!
//! # Position
//! The only place that names librdkafka. `ffi` has all unsafe code; `config` decides properties,
//! `errors` what an error means, `consumer` (with `partition`), `producer`, `reader` and `admin` implement the traits.
//! # Invariants
//! - Properties that exactly-once rests on cannot be overridden.
//! - Nothing blocks without a bound; a broker that is away makes calls retriable, not endless.
//! - An idle client costs a fetch every 100 ms per broker, and no polling of ours.
//! # Failure
//! Connection errors are logged, at most once per kind and interval, and repaired by librdkafka.

mod admin;
mod config;
mod consumer;
mod errors;
mod events;
mod ffi;
mod partition;
mod producer;
mod reader;

pub use consumer::KafkaConsumer;
pub use ffi::KafkaMessage;
pub use producer::{KafkaGroupMetadata, KafkaProducer};
pub use reader::KafkaReader;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{
    ClientMemory, CommittedOffset, ConsumerSpec, GroupMember, Isolation, Log, LogError, LogRange,
    Offset, ProducerSpec, TopicDescription, TopicName, TopicPartition, TopicSpec,
};
use admin::KafkaAdmin;
use config::Config;

/// A Kafka cluster.
#[derive(Clone)]
pub struct KafkaLog(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    /// Created by the first administrative request.
    admin: Mutex<Option<Arc<KafkaAdmin>>>,
}

impl KafkaLog {
    /// Creates the factory of clients of one cluster; does not connect.
    ///
    /// `properties` are librdkafka's, by their flat names (`security.protocol`, `sasl.username`,
    /// `ssl.ca.location`, `compression.type`, …). They apply to every client and override the
    /// defaults here: `message.max.bytes` 16 MiB less 64 KiB; producers `compression.type` `lz4`, `linger.ms` 25,
    /// `retry.backoff.ms` 1, a queue of 500,000 records or 128 MiB; consumers `fetch.wait.max.ms`
    /// 100, `fetch.queue.backoff.ms` 5, a prefetch of 32 MiB per partition, CRCs checked.
    ///
    /// # Errors
    /// [`LogError::Fatal`] names a property that librdkafka does not have, whose value it refuses,
    /// or that cannot be set because exactly-once rests on it (`isolation.level`,
    /// `enable.idempotence`, `group.id`, `partitioner`, …).
    pub fn new(
        bootstrap_servers: &str,
        properties: BTreeMap<String, String>,
    ) -> Result<Self, LogError> {
        let config = Arc::new(Config::new(bootstrap_servers, properties)?);
        Ok(Self(Arc::new(Inner {
            config,
            admin: Mutex::new(None),
        })))
    }

    fn admin(&self) -> Result<Arc<KafkaAdmin>, LogError> {
        let mut admin = self.0.admin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(admin) = &*admin {
            return Ok(Arc::clone(admin));
        }
        let created = Arc::new(KafkaAdmin::new(&self.0.config)?);
        *admin = Some(Arc::clone(&created));
        Ok(created)
    }
}

// Properties hold secrets: none are shown.
impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog")
            .field("bootstrap_servers", &self.0.config.bootstrap_servers())
            .finish_non_exhaustive()
    }
}

impl Log for KafkaLog {
    type Message = KafkaMessage;
    type GroupMetadata = KafkaGroupMetadata;
    type Consumer = KafkaConsumer;
    type Producer = KafkaProducer;
    type Reader = KafkaReader;

    fn with_client_memory(self, memory: ClientMemory) -> Self {
        Self(Arc::new(Inner {
            config: Arc::new(self.0.config.with_memory(memory)),
            admin: Mutex::new(
                self.0
                    .admin
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone(),
            ),
        }))
    }

    fn consumer(&self, spec: &ConsumerSpec) -> Result<KafkaConsumer, LogError> {
        KafkaConsumer::new(Arc::clone(&self.0.config), spec)
    }

    fn producer(&self, spec: &ProducerSpec) -> Result<KafkaProducer, LogError> {
        KafkaProducer::new(&self.0.config, spec)
    }

    fn reader(&self, isolation: Isolation) -> Result<KafkaReader, LogError> {
        KafkaReader::new(&self.0.config, isolation)
    }

    fn describe_topics(&self, topics: &[&str]) -> Result<Vec<Option<TopicDescription>>, LogError> {
        self.admin()?.describe_topics(topics)
    }

    fn topic_names(&self) -> Result<Vec<TopicName>, LogError> {
        self.admin()?.topic_names()
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        self.admin()?.create_topics(topics)
    }

    fn delete_topics(&self, topics: &[&str]) -> Result<(), LogError> {
        self.admin()?.delete_topics(topics)
    }

    fn delete_records(&self, below: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        self.admin()?.delete_records(below)
    }

    fn log_ranges(
        &self,
        partitions: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Vec<LogRange>, LogError> {
        self.admin()?.log_ranges(partitions, isolation)
    }

    fn group_members(&self, group: &str) -> Result<Vec<GroupMember>, LogError> {
        self.admin()?.group_members(group)
    }

    fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, LogError> {
        // Rare enough for a client of its own: reset asks.
        KafkaAdmin::of_group(&self.0.config, group)?.group_offsets(group, partitions)
    }

    fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<(), LogError> {
        self.admin()?.alter_group_offsets(group, offsets)
    }
}
