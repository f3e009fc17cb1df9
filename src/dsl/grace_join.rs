//! Joins of a stream with a versioned table that wait for a grace period (KIP-923).
//!
//! # Invariants
//! - A record waits in the buffer until stream time has passed its own by the grace period, so that the
//!   table has had that much time to catch up; then it meets the value of its time. Records leave by
//!   time, then key, then arrival. One that comes later than the grace period meets the table at once.
//! - Stream time is that of the records that waited, as in Kafka Streams; it is kept with committed
//!   offsets, as is the number that tells records of one key and time apart.

use std::sync::Arc;
use std::time::Duration;

use super::builder::StoreKey;
use super::config::{Joined, Materialized, SharedSerde};
use super::suppress::{Buffered, BufferedSerde};
use super::window::ObservedTime;
use crate::clock::Timestamp;
use crate::format::grace_buffer;
use crate::format::offset_metadata::buffer_sequence;
use crate::processor::{BoxError, ProcessError, Record, TaskContext};
use crate::serde::{BytesSerde, Serde};
use crate::state::{StateError, StoreRef};
use crate::topology::{Durability, Persistence};
use crate::window::millis;

impl<K, V> Joined<K, V> {
    /// Lets the stream's records wait until stream time has passed theirs by `grace`, so that updates
    /// of the table that belong before them arrive (KIP-923). The table must be
    /// [versioned](Materialized::versioned), with at least that much history.
    ///
    /// Records wait in the store `<name>-Buffer`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// let rates = builder.table(
    ///     "rates",
    ///     Consumed::with(serdes::string(), serdes::i64()),
    ///     Materialized::as_store("rates", serdes::string(), serdes::i64())
    ///         .versioned(Duration::from_secs(3600)),
    /// );
    /// let in_euro = orders.join_table(
    ///     &rates,
    ///     |_, amount, rate| amount * rate,
    ///     Joined::as_name("in-euro").with_grace_period(Duration::from_secs(60)),
    /// );
    /// # in_euro.to("out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use]
    pub fn with_grace_period(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }
}

/// The place of a record that waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place<K> {
    time: Timestamp,
    key: K,
    sequence: i32,
}

struct PlaceSerde<K>(SharedSerde<K>);

impl<K: 'static> Serde<Place<K>> for PlaceSerde<K> {
    fn serialize(&self, data: &Place<K>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        grace_buffer::put_time(out, data.time);
        let present = self.0.serialize(&data.key, out)?;
        grace_buffer::put_sequence(out, data.sequence);
        Ok(present)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Place<K>, BoxError> {
        let (time, key, sequence) = grace_buffer::split(bytes.unwrap_or_default())?;
        let key = self.0.deserialize(Some(key))?;
        Ok(Place {
            time,
            key,
            sequence,
        })
    }
}

/// Returns the name of the store in which records of a join wait.
pub(super) fn buffer_name(join: &str) -> String {
    format!("{join}-Buffer")
}

/// Describes that store.
pub(super) fn buffer_store<K: 'static, V: 'static>(
    join: &str,
    key_serde: SharedSerde<K>,
    value_serde: SharedSerde<V>,
) -> Materialized<Place<K>, Buffered<V>> {
    Materialized {
        name: buffer_name(join),
        key_serde: Arc::new(PlaceSerde(key_serde)),
        value_serde: Arc::new(BufferedSerde(value_serde)),
        key_codec: Arc::new(BytesSerde),
        value_codec: Arc::new(BytesSerde),
        persistence: Persistence::RocksDb,
        durability: Durability::Derived,
        changelog: Some(std::collections::BTreeMap::new()),
        retention: None,
        history: None,
        ttl: None,
        keeps_headers: false,
        reuses_source: false,
        source_changelog: None,
    }
}

/// The records that wait, in a task.
pub(super) struct GraceBuffer<K: StoreKey, V> {
    store: StoreRef<Place<K>, Buffered<V>>,
    grace: i64,
    time: ObservedTime,
    sequence: Arc<str>,
    /// No record lies before it: a scan from it does not pass over the deletes that a queue leaves.
    first: Timestamp,
    /// The number of rollbacks that `first` is as of.
    rollbacks: u64,
}

impl<K: StoreKey, V: Clone + 'static> GraceBuffer<K, V> {
    pub(super) fn new(join: &str, store: StoreRef<Place<K>, Buffered<V>>, grace: Duration) -> Self {
        let name = buffer_name(join);
        Self {
            store,
            grace: millis(grace),
            time: ObservedTime::of(&name),
            sequence: Arc::from(buffer_sequence(&name)),
            first: i64::MIN,
            rollbacks: 0,
        }
    }

    /// Lets a record wait; gives it back when it comes too late for that.
    pub(super) fn put(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, V>,
    ) -> Result<Option<Record<K, V>>, StateError> {
        self.catch_up(cx);
        let late = |observed: Timestamp| observed.saturating_sub(self.grace) > record.timestamp;
        if self.time.observed(cx).is_some_and(late) {
            return Ok(Some(record));
        }
        self.time.observe(cx, record.timestamp);
        let sequence =
            cx.metadata(&self.sequence).unwrap_or(0).wrapping_add(1) & i64::from(i32::MAX);
        cx.set_metadata(&self.sequence, sequence);
        let place = Place {
            time: record.timestamp,
            key: record.key,
            sequence: i32::try_from(sequence).unwrap_or(0),
        };
        self.first = self.first.min(place.time);
        let held = Buffered {
            new: Some(record.value),
            prior: None,
            timestamp: record.timestamp,
            headers: record.headers,
        };
        self.store.put(place, held)?;
        Ok(None)
    }

    /// Takes the records that have waited long enough, and hands each to `join`.
    pub(super) fn take_due(
        &mut self,
        cx: &mut TaskContext,
        mut join: impl FnMut(&mut TaskContext, Record<K, V>) -> Result<(), ProcessError>,
    ) -> Result<(), ProcessError> {
        self.catch_up(cx);
        let due = self
            .time
            .observed(cx)
            .map(|time| time.saturating_sub(self.grace));
        let Some(due) = due.filter(|due| self.first <= *due) else {
            return Ok(());
        };
        let mut from = Vec::new();
        if self.first >= 0 {
            grace_buffer::put_time(&mut from, self.first);
        }
        let mut first = i64::MAX;
        for entry in self.store.range_from(&from) {
            let (place, held) = entry?;
            if place.time > due {
                first = place.time;
                break;
            }
            self.store.delete(&place)?;
            if let Some(value) = held.new {
                let record = Record {
                    key: place.key,
                    value,
                    timestamp: held.timestamp,
                    headers: held.headers,
                };
                join(cx, record)?;
            }
        }
        self.first = first;
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
