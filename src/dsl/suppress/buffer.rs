//! The buffer of a suppression: updates by time and key, in a store.
//!
//! # Invariants
//! - A table key is in the buffer once. Its place is found by its time, which either follows from the
//!   key or is kept in the index.
//! - What is remembered of the store (first time, size) is forgotten with every rolled-back record. The
//!   first time is at most the true one: a scan from it misses nothing, and does not pass over the
//!   deletes that a queue leaves behind.

use std::hash::Hash;
use std::sync::Arc;

use super::config::BufferBounds;
use crate::clock::Timestamp;
use crate::dsl::builder::StoreKey;
use crate::dsl::config::SharedSerde;
use crate::dsl::table::Change;
use crate::format::suppress_buffer::{self, Update, put_time, split_key};
use crate::log::Headers;
use crate::processor::{BoxError, Record, TaskContext};
use crate::serde::{BytesSerde, Serde};
use crate::state::{RefEntries, StateError, StoreRef};

/// Queries see bytes: the table's serdes have no text form.
pub(super) type BytesCodec = BytesSerde;

/// A table's key in its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BufferKey<K> {
    pub(super) time: Timestamp,
    pub(super) key: K,
}

/// What is held back of a key.
#[derive(Debug, Clone)]
pub(in crate::dsl) struct Buffered<V> {
    pub(in crate::dsl) new: Option<V>,
    /// What readers downstream know of the key.
    pub(in crate::dsl) prior: Option<V>,
    pub(in crate::dsl) timestamp: Timestamp,
    pub(in crate::dsl) headers: Headers,
}

pub(super) struct BufferKeySerde<K>(pub(super) SharedSerde<K>);

impl<K: 'static> Serde<BufferKey<K>> for BufferKeySerde<K> {
    fn serialize(&self, data: &BufferKey<K>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        put_time(out, data.time);
        self.0.serialize(&data.key, out)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<BufferKey<K>, BoxError> {
        let (time, key) = split_key(bytes.unwrap_or_default())?;
        let key = self.0.deserialize(Some(key))?;
        Ok(BufferKey { time, key })
    }
}

pub(in crate::dsl) struct BufferedSerde<V>(pub(in crate::dsl) SharedSerde<V>);

impl<V: 'static> Serde<Buffered<V>> for BufferedSerde<V> {
    fn serialize(&self, data: &Buffered<V>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let bytes = |value: &Option<V>| {
            let mut bytes = Vec::new();
            let present = match value {
                Some(value) => self.0.serialize(value, &mut bytes)?,
                None => false,
            };
            Ok::<_, BoxError>(present.then_some(bytes))
        };
        let (new, prior) = (bytes(&data.new)?, bytes(&data.prior)?);
        let update = Update {
            timestamp: data.timestamp,
            new: new.as_deref(),
            prior: prior.as_deref(),
            headers: data.headers.clone(),
        };
        suppress_buffer::encode(&update, out);
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Buffered<V>, BoxError> {
        let update = suppress_buffer::decode(bytes.unwrap_or_default())?;
        let value = |bytes: Option<&[u8]>| {
            bytes
                .map(|bytes| self.0.deserialize(Some(bytes)))
                .transpose()
        };
        Ok(Buffered {
            new: value(update.new)?,
            prior: value(update.prior)?,
            timestamp: update.timestamp,
            headers: update.headers,
        })
    }
}

/// Updates and bytes in the buffer.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    records: usize,
    bytes: usize,
}

/// See the module.
pub(super) struct Buffer<K: StoreKey, V> {
    store: StoreRef<BufferKey<K>, Buffered<V>>,
    /// Where the time does not follow from the key.
    index: Option<StoreRef<K, Timestamp>>,
    key_serde: SharedSerde<K>,
    value_serde: BufferedSerde<V>,
    bounds: BufferBounds,
    /// No update lies before it.
    first: Timestamp,
    /// Known once a bound needed it.
    size: Option<Size>,
    /// The number of rollbacks that this is as of.
    rollbacks: u64,
}

impl<K: StoreKey, V: Clone + 'static> Buffer<K, V> {
    pub(super) fn new(
        store: StoreRef<BufferKey<K>, Buffered<V>>,
        index: Option<StoreRef<K, Timestamp>>,
        (key_serde, value_serde): (SharedSerde<K>, SharedSerde<V>),
        bounds: BufferBounds,
    ) -> Self {
        Self {
            store,
            index,
            key_serde,
            value_serde: BufferedSerde(Arc::clone(&value_serde)),
            bounds,
            first: i64::MIN,
            size: None,
            rollbacks: 0,
        }
    }

    pub(super) fn records(&self) -> usize {
        self.size.unwrap_or_default().records
    }

    pub(super) fn bytes(&self) -> usize {
        self.size.unwrap_or_default().bytes
    }

    /// Holds an update back: in the place of an earlier one of its key, if there is one, else under
    /// `time`.
    pub(super) fn put(
        &mut self,
        cx: &TaskContext,
        time: Timestamp,
        record: Record<K, Change<V>>,
    ) -> Result<(), StateError> {
        self.catch_up(cx);
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        let place = match &self.index {
            Some(index) => index.put_if_absent(key.clone(), time)?,
            None => None,
        };
        let key = BufferKey {
            time: place.unwrap_or(time),
            key,
        };
        let before = self.store.get(&key)?;
        let prior = match &before {
            Some(before) => before.prior.clone(),
            None => value.old,
        };
        let update = Buffered {
            new: value.new,
            prior,
            timestamp,
            headers,
        };
        if self.size.is_some() {
            let out = before.map_or(Ok(None), |before| self.weight(&key, &before).map(Some))?;
            let weight = self.weight(&key, &update)?;
            if let Some(size) = &mut self.size {
                size.records += usize::from(out.is_none());
                size.bytes = size.bytes.saturating_sub(out.unwrap_or(0)) + weight;
            }
        }
        self.first = self.first.min(key.time);
        self.store.put(key, update)
    }

    /// Returns whether an update may lie in front of `due`, at `due` included; costs nothing.
    pub(super) fn may_be_due(&mut self, cx: &TaskContext, due: Timestamp) -> bool {
        self.catch_up(cx);
        self.first <= due
    }

    /// Iterates from the update in front. What is taken meanwhile stays taken.
    pub(super) fn scan(&self) -> RefEntries<BufferKey<K>, Buffered<V>> {
        let mut lower = Vec::new();
        put_time(&mut lower, self.first);
        self.store.range_from(&lower)
    }

    /// Notes where a scan has stopped: the update in front from now on, `None` when there is none.
    pub(super) fn set_first(&mut self, first: Option<&BufferKey<K>>) {
        self.first = first.map_or(i64::MAX, |key| key.time);
    }

    /// Takes an update out of the buffer.
    pub(super) fn take(
        &mut self,
        key: &BufferKey<K>,
        update: &Buffered<V>,
    ) -> Result<(), StateError> {
        self.store.delete(key)?;
        if let Some(index) = &self.index {
            index.delete(&key.key)?;
        }
        if self.size.is_some() {
            let weight = self.weight(key, update)?;
            if let Some(size) = &mut self.size {
                size.records = size.records.saturating_sub(1);
                size.bytes = size.bytes.saturating_sub(weight);
            }
        }
        Ok(())
    }

    /// Makes sure that [`records`](Self::records) and [`bytes`](Self::bytes) are known.
    pub(super) fn measure(&mut self, cx: &TaskContext) -> Result<(), StateError> {
        self.catch_up(cx);
        if self.size.is_some() {
            return Ok(());
        }
        let mut size = Size::default();
        for entry in self.scan() {
            let (key, update) = entry?;
            size.records += 1;
            size.bytes += self.weight(&key, &update)?;
        }
        self.size = Some(size);
        Ok(())
    }

    /// A rollback has undone writes: what was remembered may be wrong.
    fn catch_up(&mut self, cx: &TaskContext) {
        if self.rollbacks != cx.rollbacks() {
            self.rollbacks = cx.rollbacks();
            self.first = i64::MIN;
            self.size = None;
        }
    }

    fn weight(&self, key: &BufferKey<K>, update: &Buffered<V>) -> Result<usize, StateError> {
        if !self.bounds.bounds_bytes() {
            return Ok(0);
        }
        let mut bytes = Vec::new();
        let encoded = self
            .key_serde
            .serialize(&key.key, &mut bytes)
            .and_then(|_| self.value_serde.serialize(update, &mut bytes));
        encoded.map_err(|source| StateError::Encode {
            store: "suppress".to_owned(),
            source,
        })?;
        Ok(size_of::<Timestamp>() + bytes.len())
    }
}
