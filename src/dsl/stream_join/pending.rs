//! Records of a left or outer join that have found no partner yet.
//!
//! # Invariants
//! - A record is here from when it came without a partner until one comes, or until its window has
//!   closed and its result without one was sent. Kafka Streams' KAFKA-10847.
//! - The bytes are Kafka Streams' ([`join_buffer`]); their order is that of results: time, right before
//!   left, key.
//! - What is remembered of the store beside it (`first`) is forgotten with every rolled-back record.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::dsl::builder::StoreKey;
use crate::dsl::config::SharedSerde;
use crate::dsl::window::ObservedTime;
use crate::format::join_buffer::{self, put_prefix, put_time, split_key};
use crate::format::offset_metadata::join_pending;
use crate::processor::{BoxError, ProcessError, TaskContext};
use crate::serde::Serde;
use crate::state::{StateError, StoreRef};
use crate::window::JoinWindows;

/// Where records of one key, time and side wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place<K> {
    pub(super) time: Timestamp,
    pub(super) left: bool,
    pub(super) key: K,
}

/// The value of a record without a partner.
#[derive(Debug, Clone)]
pub(super) enum Unpaired<V, W> {
    Left(V),
    Right(W),
}

pub(super) struct PlaceSerde<K>(pub(super) SharedSerde<K>);

impl<K: 'static> Serde<Place<K>> for PlaceSerde<K> {
    fn serialize(&self, data: &Place<K>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        put_prefix(out, data.time, data.left);
        self.0.serialize(&data.key, out)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Place<K>, BoxError> {
        let (time, left, key) = split_key(bytes.unwrap_or_default())?;
        let key = self.0.deserialize(Some(key))?;
        Ok(Place { time, left, key })
    }
}

/// All records of a place, in the order they came.
pub(super) struct UnpairedSerde<V, W> {
    pub(super) left: SharedSerde<V>,
    pub(super) right: SharedSerde<W>,
}

impl<V: 'static, W: 'static> Serde<Vec<Unpaired<V, W>>> for UnpairedSerde<V, W> {
    fn serialize(&self, data: &Vec<Unpaired<V, W>>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let mut values = Vec::with_capacity(data.len());
        for value in data {
            let mut bytes = Vec::new();
            let (left, present) = match value {
                Unpaired::Left(value) => (true, self.left.serialize(value, &mut bytes)?),
                Unpaired::Right(value) => (false, self.right.serialize(value, &mut bytes)?),
            };
            if !present {
                return Err("a record without a value is not kept".into());
            }
            values.push((left, bytes));
        }
        let values = values.iter().map(|(left, bytes)| (*left, bytes.as_slice()));
        join_buffer::encode(values, out);
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Vec<Unpaired<V, W>>, BoxError> {
        join_buffer::decode(bytes.unwrap_or_default())?
            .into_iter()
            .map(|(left, bytes)| {
                Ok(if left {
                    Unpaired::Left(self.left.deserialize(Some(bytes))?)
                } else {
                    Unpaired::Right(self.right.deserialize(Some(bytes))?)
                })
            })
            .collect()
    }
}

/// Nothing is held back.
const NOTHING: Timestamp = i64::MAX;

/// See the module.
pub(super) struct Pending<K: StoreKey, V, W> {
    store: StoreRef<Place<K>, Vec<Unpaired<V, W>>>,
    /// As the left stream sees them.
    windows: JoinWindows,
    time: ObservedTime,
    /// Names the time of the earliest record, as far as a search needs to know.
    search_from: Arc<str>,
    /// No record lies before it: a scan from it does not pass over the deletes that a queue leaves.
    first: Timestamp,
    /// The number of rollbacks that `first` is as of.
    rollbacks: u64,
}

impl<K: StoreKey, V: Clone + 'static, W: Clone + 'static> Pending<K, V, W> {
    pub(super) fn new(
        name: &str,
        store: StoreRef<Place<K>, Vec<Unpaired<V, W>>>,
        windows: JoinWindows,
    ) -> Self {
        Self {
            store,
            windows,
            time: ObservedTime::of(name),
            search_from: Arc::from(join_pending(name)),
            first: i64::MIN,
            rollbacks: 0,
        }
    }

    /// Takes a record's time into account; returns the latest time of both streams.
    pub(super) fn observe(&self, cx: &mut TaskContext, timestamp: Timestamp) -> Timestamp {
        self.time.observe(cx, timestamp)
    }

    /// Holds a record back.
    pub(super) fn put(
        &mut self,
        cx: &mut TaskContext,
        place: Place<K>,
        value: Unpaired<V, W>,
    ) -> Result<(), StateError> {
        self.catch_up(cx);
        self.first = self.first.min(place.time);
        // Unknown stays unknown: the next search looks at everything.
        if let Some(from) = cx.metadata(&self.search_from)
            && place.time < from
        {
            cx.set_metadata(&self.search_from, place.time);
        }
        let mut values = self.store.get(&place)?.unwrap_or_default();
        values.push(value);
        self.store.put(place, values)
    }

    /// Forgets the records of a place, since a partner has come.
    pub(super) fn forget(&self, place: &Place<K>) -> Result<(), StateError> {
        self.store.delete(place).map(drop)
    }

    /// Returns whether windows may have closed, as seen from the side whose windows `side` are.
    pub(super) fn may_have_closed(
        &self,
        cx: &TaskContext,
        side: JoinWindows,
        stream_time: Timestamp,
    ) -> bool {
        match cx.metadata(&self.search_from) {
            None => true,
            Some(NOTHING) => false,
            Some(from) => side.is_closed(from, stream_time),
        }
    }

    /// Takes the records whose windows have closed, and hands each to `send`, the earliest first.
    ///
    /// As in Kafka Streams the search ends once both sides have met an open window, and the next one
    /// begins when the last record it saw can have closed: so results of a left join come in batches,
    /// about a window apart, and a record is looked at twice on average rather than once per record
    /// of the streams.
    pub(super) fn take_closed(
        &mut self,
        cx: &mut TaskContext,
        stream_time: Timestamp,
        mut send: impl FnMut(&mut TaskContext, &Place<K>, Unpaired<V, W>) -> Result<(), ProcessError>,
    ) -> Result<(), ProcessError> {
        self.catch_up(cx);
        let mut from = Vec::new();
        if self.first >= 0 {
            put_time(&mut from, self.first);
        }
        let (mut left_open, mut right_open) = (false, false);
        let (mut last, mut first_open) = (NOTHING, NOTHING);
        for entry in self.store.range_from(&from) {
            let (place, values) = entry?;
            last = place.time;
            if left_open && right_open {
                break;
            }
            let side = if place.left {
                self.windows
            } else {
                self.windows.reversed()
            };
            if side.is_closed(place.time, stream_time) {
                for value in values {
                    send(cx, &place, value)?;
                }
                self.store.delete(&place)?;
                continue;
            }
            first_open = first_open.min(place.time);
            if place.left {
                left_open = true;
            } else {
                right_open = true;
            }
        }
        self.first = first_open;
        cx.set_metadata(&self.search_from, last);
        Ok(())
    }

    /// A rollback has undone writes: what was remembered may be wrong.
    fn catch_up(&mut self, cx: &TaskContext) {
        if self.rollbacks != cx.rollbacks() {
            self.rollbacks = cx.rollbacks();
            self.first = i64::MIN;
        }
    }
}
