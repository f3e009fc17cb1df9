//! Sources: bytes to typed records.

use std::sync::Arc;

use super::config::SharedSerde;
use crate::processor::{
    BoxError, Downstream, ProcessError, RawRecord, Record, SourceNode, TaskContext,
};

/// Reads a topic as a stream.
pub(crate) struct StreamSource<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) key_serde: SharedSerde<K>,
    pub(crate) value_serde: SharedSerde<V>,
    pub(crate) downstream: Downstream<K, V>,
}

impl<K: Clone + 'static, V: Clone + 'static> SourceNode for StreamSource<K, V> {
    fn process(&mut self, cx: &mut TaskContext, raw: &RawRecord<'_>) -> Result<(), ProcessError> {
        let key = self
            .key_serde
            .deserialize(raw.key)
            .map_err(|e| unreadable(&self.name, e))?;
        let value = self.value_serde.deserialize(raw.value);
        let value = value.map_err(|error| unreadable(&self.name, error))?;
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
    pub(crate) downstream: Downstream<K, Option<V>>,
}

impl<K: Clone + 'static, V: Clone + 'static> SourceNode for TableSource<K, V> {
    fn process(&mut self, cx: &mut TaskContext, raw: &RawRecord<'_>) -> Result<(), ProcessError> {
        if raw.key.is_none() {
            // As in Kafka Streams: whatever the key's serde makes of null, no table has such a key.
            cx.drop_record();
            return Ok(());
        }
        let key = self
            .key_serde
            .deserialize(raw.key)
            .map_err(|e| unreadable(&self.name, e))?;
        let value = raw
            .value
            .map(|bytes| self.value_serde.deserialize(Some(bytes)))
            .transpose();
        let value = value.map_err(|error| unreadable(&self.name, error))?;
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

#[cold]
fn unreadable(name: &str, source: BoxError) -> ProcessError {
    ProcessError::Deserialization {
        node: name.to_owned(),
        source,
    }
}
