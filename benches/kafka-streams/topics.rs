//! Topics of the comparison: created, written, read to their end, deleted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use millstream::log::kafka::{KafkaLog, KafkaProducer};
use millstream::log::{
    Headers, Isolation, Log, LogError, LogMessage, LogProducer, LogReader, ProducerRecord,
    ProducerSpec, TopicName, TopicPartition, TopicSpec,
};

/// The longest time anything may take that should be quick.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Repeats what the log calls retriable.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, LogError>) -> Result<T, LogError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call() {
            Err(LogError::Retriable { .. }) if Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

pub(crate) fn create(log: &KafkaLog, names: &[&str], partitions: i32) -> Result<()> {
    // The broker deletes by record timestamp: these records may be older than its default.
    let config = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
    let specs: Vec<TopicSpec> = names
        .iter()
        .map(|name| TopicSpec {
            name: TopicName::from(*name),
            partitions,
            replication_factor: Some(1),
            config: config.clone(),
        })
        .collect();
    Ok(retry(|| log.create_topics(&specs))?)
}

pub(crate) fn partitions_of(topic: &str, partitions: i32) -> Vec<TopicPartition> {
    let topic = TopicName::from(topic);
    (0..partitions)
        .map(|partition| TopicPartition::new(TopicName::clone(&topic), partition))
        .collect()
}

/// Writes records one by one.
pub(crate) struct Writer {
    producer: KafkaProducer,
    topic: TopicName,
    headers: Headers,
}

impl Writer {
    pub(crate) fn new(log: &KafkaLog, topic: &str) -> Result<Self> {
        let producer = log.producer(&ProducerSpec {
            transactional_id: None,
            transaction_timeout: Duration::from_secs(10),
            client_id: "compare-input".to_owned(),
        })?;
        Ok(Self {
            producer,
            topic: topic.into(),
            headers: Headers::new(),
        })
    }

    pub(crate) fn write(&mut self, key: &[u8], value: &[u8], timestamp: i64) -> Result<()> {
        let Self {
            producer,
            topic,
            headers,
        } = self;
        retry(|| {
            producer.send(ProducerRecord {
                topic,
                partition: None,
                key: Some(key),
                value: Some(value),
                timestamp,
                headers,
            })
        })?;
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(retry(|| self.producer.flush())?)
    }
}

/// Calls `each` with every committed record, in the order of its partition.
pub(crate) fn read(
    log: &KafkaLog,
    topic: &str,
    partitions: i32,
    mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<()>,
) -> Result<()> {
    let partitions = partitions_of(topic, partitions);
    // The high watermark: a commit is answered before its markers are written.
    let ranges = retry(|| log.log_ranges(&partitions, Isolation::ReadUncommitted))?;
    let mut reader = log.reader(Isolation::ReadCommitted)?;
    let from: Vec<_> = partitions
        .iter()
        .map(|partition| (partition.clone(), 0))
        .collect();
    reader.assign(&from)?;
    let deadline = Instant::now() + PATIENCE;
    let mut messages = Vec::new();
    while !partitions.iter().zip(&ranges).all(|(at, range)| {
        range.end == 0
            || reader
                .position(at)
                .is_some_and(|position| position >= range.end)
    }) {
        ensure!(
            Instant::now() < deadline,
            "{topic}: no end within {PATIENCE:?}"
        );
        retry(|| reader.poll(1000, Duration::from_millis(100), &mut messages))?;
        for message in messages.drain(..) {
            each(message.key().unwrap_or_default(), message.value())?;
        }
    }
    Ok(())
}
