//! Typed ways into and out of the topics of a test driver.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{DriverError, TopologyTestDriver};
use crate::processor::Record;
use crate::serde::Serde;

/// A typed way into a topic.
pub struct TestInputTopic<K, V> {
    pub(super) topic: String,
    pub(super) key_serde: Arc<dyn Serde<K>>,
    pub(super) value_serde: Arc<dyn Serde<V>>,
    pub(super) records: PhantomData<fn(K, V)>,
}

impl<K, V> fmt::Debug for TestInputTopic<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestInputTopic")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> TestInputTopic<K, V> {
    /// Pipes a key and a value, stamped with the wall-clock time.
    ///
    /// # Errors
    /// As [`TopologyTestDriver::pipe_bytes`].
    pub fn pipe(
        &self,
        driver: &mut TopologyTestDriver,
        key: K,
        value: V,
    ) -> Result<(), DriverError> {
        let now = driver.now_ms();
        self.pipe_record(driver, &Record::new(key, value, now))
    }

    /// Pipes a record with its own timestamp and headers.
    ///
    /// # Errors
    /// As [`TopologyTestDriver::pipe_bytes`].
    pub fn pipe_record(
        &self,
        driver: &mut TopologyTestDriver,
        record: &Record<K, V>,
    ) -> Result<(), DriverError> {
        self.pipe_all(driver, std::slice::from_ref(record))
    }

    /// Pipes records that the topology finds all at once: with
    /// [`records_per_transaction`](super::DriverBuilder::records_per_transaction) they share
    /// transactions.
    ///
    /// # Errors
    /// As [`TopologyTestDriver::pipe_bytes`].
    pub fn pipe_all(
        &self,
        driver: &mut TopologyTestDriver,
        records: &[Record<K, V>],
    ) -> Result<(), DriverError> {
        for record in records {
            self.send(driver, record)?;
        }
        driver.flush_and_settle()
    }

    fn send(
        &self,
        driver: &mut TopologyTestDriver,
        record: &Record<K, V>,
    ) -> Result<(), DriverError> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let has_key = self
            .key_serde
            .serialize(&record.key, &mut key)
            .map_err(DriverError::Serde)?;
        let has_value = self
            .value_serde
            .serialize(&record.value, &mut value)
            .map_err(DriverError::Serde)?;
        driver.send_bytes(
            &self.topic,
            has_key.then_some(&key),
            has_value.then_some(&value),
            record.timestamp,
            &record.headers,
        )
    }
}

/// A typed way out of a topic.
pub struct TestOutputTopic<K, V> {
    pub(super) topic: String,
    pub(super) key_serde: Arc<dyn Serde<K>>,
    pub(super) value_serde: Arc<dyn Serde<V>>,
}

impl<K, V> fmt::Debug for TestOutputTopic<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestOutputTopic")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> TestOutputTopic<K, V> {
    /// Takes every record that was committed and not read yet.
    ///
    /// # Errors
    /// [`DriverError::UnknownTopic`], [`DriverError::Serde`].
    pub fn read_records(
        &self,
        driver: &mut TopologyTestDriver,
    ) -> Result<Vec<Record<K, V>>, DriverError> {
        let topic = driver.resolve(&self.topic)?.clone();
        driver.collect(&topic)?;
        let queue = driver.outputs.remove(&topic.name).unwrap_or_default();
        queue
            .into_iter()
            .map(|output| {
                Ok(Record {
                    key: self
                        .key_serde
                        .deserialize(output.key.as_deref())
                        .map_err(DriverError::Serde)?,
                    value: self
                        .value_serde
                        .deserialize(output.value.as_deref())
                        .map_err(DriverError::Serde)?,
                    timestamp: output.timestamp,
                    headers: output.headers,
                })
            })
            .collect()
    }

    /// Takes every record's key and value.
    ///
    /// # Errors
    /// As [`read_records`](Self::read_records).
    pub fn read_key_values(
        &self,
        driver: &mut TopologyTestDriver,
    ) -> Result<Vec<(K, V)>, DriverError> {
        Ok(self
            .read_records(driver)?
            .into_iter()
            .map(|record| (record.key, record.value))
            .collect())
    }

    /// Takes every record's value.
    ///
    /// # Errors
    /// As [`read_records`](Self::read_records).
    pub fn read_values(&self, driver: &mut TopologyTestDriver) -> Result<Vec<V>, DriverError> {
        Ok(self
            .read_records(driver)?
            .into_iter()
            .map(|record| record.value)
            .collect())
    }
}
