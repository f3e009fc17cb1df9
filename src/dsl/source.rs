//! Sources: bytes to typed records.

use std::sync::Arc;

use super::config::SharedSerde;
use super::timestamp::Heads;
use crate::clock::Timestamp;
use crate::processor::{
    BoxError, Downstream, HeadRecord, ProcessError, RawRecord, Record, SourceNode, TaskContext,
};

/// Reads a topic as a stream.
pub(crate) struct StreamSource<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) key_serde: SharedSerde<K>,
    pub(crate) value_serde: SharedSerde<V>,
    /// Where the author has chosen a timestamp extractor.
    pub(crate) heads: Option<Heads<K, V, (K, V)>>,
    pub(crate) downstream: Downstream<K, V>,
}

impl<K: 'static, V: 'static> StreamSource<K, V> {
    fn read(&self, raw: &RawRecord<'_>) -> Result<(K, V), ProcessError> {
        let key = self.key_serde.deserialize(raw.key);
        let key = key.map_err(|error| unreadable(&self.name, error))?;
        let value = self.value_serde.deserialize(raw.value);
        let value = value.map_err(|error| unreadable(&self.name, error))?;
        Ok((key, value))
    }
}

impl<K: Clone + 'static, V: Clone + 'static> SourceNode for StreamSource<K, V> {
    fn extracts(&self) -> bool {
        self.heads.is_some()
    }

    fn extract(&mut self, head: &HeadRecord<'_>) -> Result<Timestamp, ProcessError> {
        let record = self.read(&head.raw)?;
        let Some(heads) = &mut self.heads else {
            return Ok(head.raw.timestamp);
        };
        heads.extract(&self.name, head, record, |(key, value)| (key, Some(value)))
    }

    fn process(&mut self, cx: &mut TaskContext, raw: &RawRecord<'_>) -> Result<(), ProcessError> {
        let (key, value) = match read_ahead(&mut self.heads, cx) {
            Some(record) => record,
            None => self.read(raw)?,
        };
        let (timestamp, headers) = (raw.timestamp, raw.headers.clone());
        self.downstream.process(
            cx,
            Record {
                key,
                value,
                timestamp,
                headers,
            },
        )
    }
}

/// Reads a topic as a table: a null value is a delete, whatever the value's serde makes of null.
pub(crate) struct TableSource<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) key_serde: SharedSerde<K>,
    pub(crate) value_serde: SharedSerde<V>,
    /// Where the author has chosen a timestamp extractor.
    pub(crate) heads: Option<Heads<K, V, (K, Option<V>)>>,
    pub(crate) downstream: Downstream<K, Option<V>>,
}

impl<K: 'static, V: 'static> TableSource<K, V> {
    fn read(&self, raw: &RawRecord<'_>) -> Result<(K, Option<V>), ProcessError> {
        let key = self.key_serde.deserialize(raw.key);
        let key = key.map_err(|error| unreadable(&self.name, error))?;
        let value = raw
            .value
            .map(|bytes| self.value_serde.deserialize(Some(bytes)))
            .transpose();
        let value = value.map_err(|error| unreadable(&self.name, error))?;
        Ok((key, value))
    }
}

impl<K: Clone + 'static, V: Clone + 'static> SourceNode for TableSource<K, V> {
    fn extracts(&self) -> bool {
        self.heads.is_some()
    }

    fn extract(&mut self, head: &HeadRecord<'_>) -> Result<Timestamp, ProcessError> {
        if head.raw.key.is_none() {
            // Dropped below, and no key for an extractor to look at.
            return Ok(head.raw.timestamp);
        }
        let record = self.read(&head.raw)?;
        let Some(heads) = &mut self.heads else {
            return Ok(head.raw.timestamp);
        };
        heads.extract(&self.name, head, record, |(key, value)| {
            (key, value.as_ref())
        })
    }

    fn process(&mut self, cx: &mut TaskContext, raw: &RawRecord<'_>) -> Result<(), ProcessError> {
        if raw.key.is_none() {
            // As in Kafka Streams: whatever the key's serde makes of null, no table has such a key.
            cx.drop_record();
            return Ok(());
        }
        let (key, value) = match read_ahead(&mut self.heads, cx) {
            Some(record) => record,
            None => self.read(raw)?,
        };
        let (timestamp, headers) = (raw.timestamp, raw.headers.clone());
        self.downstream.process(
            cx,
            Record {
                key,
                value,
                timestamp,
                headers,
            },
        )
    }
}

/// Takes what the extractor has read already of the record in progress.
fn read_ahead<K, V, R>(heads: &mut Option<Heads<K, V, R>>, cx: &TaskContext) -> Option<R>
where
    K: 'static,
    V: 'static,
{
    heads.as_mut()?.take(cx.record_metadata()?)
}

#[cold]
fn unreadable(name: &str, source: BoxError) -> ProcessError {
    ProcessError::Deserialization {
        node: name.to_owned(),
        source,
    }
}
