//! How sources are read, sinks written, state kept: Kafka Streams' `Consumed`, `Produced`,
//! `Grouped`, `Repartitioned`, `Materialized`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::sink::Partitions;
use super::timestamp::{SharedExtractor, TimestampExtractor};
use crate::processor::{ErrorPolicy, Stage};
use crate::serde::{Serde, TextCodec};
use crate::topology::{Durability, Persistence, SourceChangelog};

/// A serde that is shared by the tasks of a topology.
pub type SharedSerde<T> = Arc<dyn Serde<T>>;

/// What happens to a record of a source whose chain failed, by stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) deserialization: ErrorPolicy,
    pub(crate) processing: ErrorPolicy,
    pub(crate) production: ErrorPolicy,
}

impl Policies {
    pub(crate) fn all(policy: &ErrorPolicy) -> Self {
        Self {
            deserialization: policy.clone(),
            processing: policy.clone(),
            production: policy.clone(),
        }
    }
}

/// How a source reads its topic.
pub struct Consumed<K, V> {
    pub(crate) key_serde: SharedSerde<K>,
    pub(crate) value_serde: SharedSerde<V>,
    pub(crate) policies: Policies,
    pub(crate) rewindable: bool,
    pub(crate) name: Option<String>,
    /// `None`: [`FailOnInvalidTimestamp`](super::FailOnInvalidTimestamp), without reading ahead.
    pub(crate) timestamps: Option<SharedExtractor<K, V>>,
}

impl<K, V> Consumed<K, V> {
    /// Reads keys and values with these serdes. Errors stop the task and the topic is rewindable,
    /// until said otherwise.
    pub fn with(key_serde: impl Serde<K>, value_serde: impl Serde<V>) -> Self {
        Self {
            key_serde: Arc::new(key_serde),
            value_serde: Arc::new(value_serde),
            policies: Policies::all(&ErrorPolicy::Fail),
            rewindable: true,
            name: None,
            timestamps: None,
        }
    }

    /// Says which event time records have, in place of the log's timestamp: Kafka Streams'
    /// `withTimestampExtractor`. Lowest timestamp first, partition time, stream time and windows go by
    /// it. A record with a negative time is dropped, counted in
    /// `millstream_records_dropped_total` and logged.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// // The payload knows when it happened; where it does not, the partition's time goes on.
    /// let consumed = Consumed::with(serdes::string(), serdes::i64()).with_timestamp_extractor(
    ///     |record: &ConsumedRecord<'_, String, i64>, partition_time: Option<Timestamp>| {
    ///         let sent = record.value.copied().filter(|sent| *sent >= 0);
    ///         sent.or(partition_time).unwrap_or(record.timestamp)
    ///     },
    /// );
    /// # builder.stream("in", consumed).to("out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use]
    pub fn with_timestamp_extractor(mut self, extractor: impl TimestampExtractor<K, V>) -> Self {
        self.timestamps = Some(Arc::new(extractor));
        self
    }

    /// Says what happens when a record of this source cannot be read, processed or written.
    #[must_use]
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.policies = Policies::all(&policy);
        self
    }

    /// Says what happens when a record of this source fails at `stage`; overrides
    /// [`on_error`](Self::on_error) when called after it.
    #[must_use]
    pub fn on_error_at(mut self, stage: Stage, policy: ErrorPolicy) -> Self {
        match stage {
            Stage::Deserialization => self.policies.deserialization = policy,
            Stage::Processing => self.policies.processing = policy,
            Stage::Production => self.policies.production = policy,
        }
        self
    }

    /// Says whether a reset may read the topic again. Never for commands: they have had their
    /// effects. Nor for events that are judged on the way into a history.
    #[must_use]
    pub fn rewindable(mut self, rewindable: bool) -> Self {
        self.rewindable = rewindable;
        self
    }

    /// Names the source node.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

impl<K, V> Clone for Consumed<K, V> {
    fn clone(&self) -> Self {
        Self {
            key_serde: Arc::clone(&self.key_serde),
            value_serde: Arc::clone(&self.value_serde),
            policies: self.policies.clone(),
            rewindable: self.rewindable,
            name: self.name.clone(),
            timestamps: self.timestamps.clone(),
        }
    }
}

/// Chooses the partitions of an output from key, value and their number.
pub(crate) type Partitioner<K, V> = Arc<dyn Fn(&K, &V, i32) -> Partitions + Send + Sync>;

fn one_partition<K, V>(
    choose: impl Fn(&K, &V, i32) -> Option<i32> + Send + Sync + 'static,
) -> Partitioner<K, V> {
    Arc::new(move |key, value, partitions| {
        choose(key, value, partitions)
            .map_or(Partitions::ByKey, |chosen| Partitions::These(vec![chosen]))
    })
}

fn several_partitions<K, V>(
    choose: impl Fn(&K, &V, i32) -> Option<Vec<i32>> + Send + Sync + 'static,
) -> Partitioner<K, V> {
    Arc::new(move |key, value, partitions| {
        choose(key, value, partitions).map_or(Partitions::ByKey, Partitions::These)
    })
}

/// How a sink writes its topic.
pub struct Produced<K, V> {
    pub(crate) key_serde: SharedSerde<K>,
    pub(crate) value_serde: SharedSerde<V>,
    pub(crate) partitioner: Option<Partitioner<K, V>>,
    pub(crate) name: Option<String>,
}

impl<K, V> Produced<K, V> {
    /// Writes keys and values with these serdes, partitioned by murmur2 of the key bytes.
    pub fn with(key_serde: impl Serde<K>, value_serde: impl Serde<V>) -> Self {
        Self {
            key_serde: Arc::new(key_serde),
            value_serde: Arc::new(value_serde),
            partitioner: None,
            name: None,
        }
    }

    /// Chooses the partition from key, value and the number of partitions; `None` falls back to
    /// the default.
    #[must_use]
    pub fn partitioned_by(
        mut self,
        partitioner: impl Fn(&K, &V, i32) -> Option<i32> + Send + Sync + 'static,
    ) -> Self {
        self.partitioner = Some(one_partition(partitioner));
        self
    }

    /// Chooses any number of partitions from key, value and their number (KIP-873): the record is
    /// written to each of them, and to none when the choice is empty, which counts it as dropped. `None` falls
    /// back to the default.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let rates = builder.stream("rates", Consumed::with(serdes::string(), serdes::string()));
    /// // Everybody needs to know the rates.
    /// let everywhere = Produced::with(serdes::string(), serdes::string())
    ///     .multicast_by(|_, _, partitions| Some((0..partitions).collect()));
    /// rates.to("rates-everywhere", everywhere);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use]
    pub fn multicast_by(
        mut self,
        partitioner: impl Fn(&K, &V, i32) -> Option<Vec<i32>> + Send + Sync + 'static,
    ) -> Self {
        self.partitioner = Some(several_partitions(partitioner));
        self
    }

    /// Names the sink node.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// How records are grouped: the name of the repartition topic, should one be needed, and the serdes
/// it is written with.
pub struct Grouped<K, V> {
    pub(crate) name: String,
    pub(crate) key_serde: Option<SharedSerde<K>>,
    pub(crate) value_serde: Option<SharedSerde<V>>,
}

impl<K, V> Grouped<K, V> {
    /// Names the repartition topic `<application_id>-<name>-repartition`. Serdes are those of the
    /// stream, as far as key and value are unchanged since its source.
    pub fn as_name(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            key_serde: None,
            value_serde: None,
        }
    }

    /// Names the repartition topic and says how its records are written.
    pub fn with(
        name: impl Into<String>,
        key_serde: impl Serde<K>,
        value_serde: impl Serde<V>,
    ) -> Self {
        Self {
            name: name.into(),
            key_serde: Some(Arc::new(key_serde)),
            value_serde: Some(Arc::new(value_serde)),
        }
    }
}

/// How a stream is joined with a table: the name of the repartition topic, should one be needed, and the
/// serdes the stream's records are written with.
pub struct Joined<K, V> {
    pub(crate) name: String,
    pub(crate) key_serde: Option<SharedSerde<K>>,
    pub(crate) value_serde: Option<SharedSerde<V>>,
    /// How long records wait for the table.
    pub(crate) grace: Option<Duration>,
}

impl<K, V> Joined<K, V> {
    /// Names the repartition topic `<application_id>-<name>-repartition`; see [`Grouped::as_name`].
    pub fn as_name(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            key_serde: None,
            value_serde: None,
            grace: None,
        }
    }

    /// Names the repartition topic and says how the stream's records are written.
    pub fn with(
        name: impl Into<String>,
        key_serde: impl Serde<K>,
        value_serde: impl Serde<V>,
    ) -> Self {
        Self {
            name: name.into(),
            key_serde: Some(Arc::new(key_serde)),
            value_serde: Some(Arc::new(value_serde)),
            grace: None,
        }
    }
}

type KeyPartitioner<K> = Arc<dyn Fn(&K, i32) -> Option<i32> + Send + Sync>;

/// How two tables are joined by a foreign key: the name of what that needs, and where foreign keys are.
pub struct TableJoined<FK> {
    pub(crate) name: String,
    other_partitioner: Option<KeyPartitioner<FK>>,
}

impl<FK: 'static> TableJoined<FK> {
    /// Names the topics `<application_id>-<name>-subscription-repartition` and
    /// `<application_id>-<name>-response-repartition`, and the store `<name>-subscriptions`.
    pub fn as_name(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            other_partitioner: None,
        }
    }

    /// Says where the other table's writers put a key, of that number of partitions, when it is not by
    /// murmur2 of the key's bytes; `None` falls back to that (`TableJoined.otherPartitioner` of KIP-775).
    ///
    /// Kafka Streams takes a partitioner of this table, too. None is needed: answers go back to the
    /// partition that has asked.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// // Cities are numbered, and written round robin.
    /// let joined = TableJoined::<i64>::as_name("city-of-user").other_partitioned_by(|city, partitions| {
    ///     i32::try_from(city % i64::from(partitions)).ok()
    /// });
    /// # drop(joined);
    /// ```
    #[must_use]
    pub fn other_partitioned_by(
        mut self,
        partitioner: impl Fn(&FK, i32) -> Option<i32> + Send + Sync + 'static,
    ) -> Self {
        self.other_partitioner = Some(Arc::new(partitioner));
        self
    }

    /// Returns the partitioner of records with the other table's keys.
    pub(crate) fn partitioner<V: 'static>(&self) -> Option<Partitioner<FK, V>> {
        let choose = Arc::clone(self.other_partitioner.as_ref()?);
        Some(one_partition(move |key, _: &V, partitions| {
            choose(key, partitions)
        }))
    }
}

impl<FK> Clone for TableJoined<FK> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            other_partitioner: self.other_partitioner.clone(),
        }
    }
}

impl<FK> std::fmt::Debug for TableJoined<FK> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableJoined")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How a stream is written to and read back from a repartition topic.
pub struct Repartitioned<K, V> {
    pub(crate) name: String,
    pub(crate) key_serde: Option<SharedSerde<K>>,
    pub(crate) value_serde: Option<SharedSerde<V>>,
    pub(crate) partitions: Option<i32>,
    pub(crate) partitioner: Option<Partitioner<K, V>>,
}

impl<K, V> Repartitioned<K, V> {
    /// Names the topic `<application_id>-<name>-repartition`; see [`Grouped::as_name`].
    pub fn as_name(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            key_serde: None,
            value_serde: None,
            partitions: None,
            partitioner: None,
        }
    }

    /// Names the topic and says how its records are written.
    pub fn with(
        name: impl Into<String>,
        key_serde: impl Serde<K>,
        value_serde: impl Serde<V>,
    ) -> Self {
        Self {
            name: name.into(),
            key_serde: Some(Arc::new(key_serde)),
            value_serde: Some(Arc::new(value_serde)),
            partitions: None,
            partitioner: None,
        }
    }

    /// Fixes the number of partitions; otherwise it is the most that any topic upstream has.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Chooses the partition from key, value and the number of partitions; `None` falls back to
    /// murmur2 of the key bytes.
    #[must_use]
    pub fn partitioned_by(
        mut self,
        partitioner: impl Fn(&K, &V, i32) -> Option<i32> + Send + Sync + 'static,
    ) -> Self {
        self.partitioner = Some(one_partition(partitioner));
        self
    }

    /// Chooses any number of partitions (KIP-873); see [`Produced::multicast_by`].
    #[must_use]
    pub fn multicast_by(
        mut self,
        partitioner: impl Fn(&K, &V, i32) -> Option<Vec<i32>> + Send + Sync + 'static,
    ) -> Self {
        self.partitioner = Some(several_partitions(partitioner));
        self
    }
}

/// How a store is kept: its name, serdes, place, changelog.
pub struct Materialized<K, V> {
    pub(crate) name: String,
    pub(crate) key_serde: SharedSerde<K>,
    pub(crate) value_serde: SharedSerde<V>,
    pub(crate) key_codec: Arc<dyn TextCodec>,
    pub(crate) value_codec: Arc<dyn TextCodec>,
    pub(crate) persistence: Persistence,
    pub(crate) durability: Durability,
    pub(crate) changelog: Option<BTreeMap<String, String>>,
    pub(crate) retention: Option<Duration>,
    /// Of a versioned store.
    pub(crate) history: Option<Duration>,
    pub(crate) ttl: Option<Duration>,
    /// Whether values begin with headers.
    pub(crate) keeps_headers: bool,
    /// Whether the table's topic is to be the changelog.
    pub(crate) reuses_source: bool,
    /// The topic, once it is known.
    pub(crate) source_changelog: Option<SourceChangelog>,
}

/// Describes a store for [`add_state_store`](super::StreamsBuilder::add_state_store): the same as
/// a materialised table's.
pub type StoreBuilder<K, V> = Materialized<K, V>;

impl<K, V> Materialized<K, V> {
    /// Names a store: derived, in RocksDB, with the changelog `<application_id>-<name>-changelog`.
    pub fn as_store(
        name: impl Into<String>,
        key_serde: impl Serde<K> + TextCodec,
        value_serde: impl Serde<V> + TextCodec,
    ) -> Self {
        let (key, value) = (Arc::new(key_serde), Arc::new(value_serde));
        Self {
            name: name.into(),
            key_codec: Arc::clone(&key) as Arc<dyn TextCodec>,
            value_codec: Arc::clone(&value) as Arc<dyn TextCodec>,
            key_serde: key,
            value_serde: value,
            persistence: Persistence::RocksDb,
            durability: Durability::Derived,
            changelog: Some(BTreeMap::new()),
            retention: None,
            history: None,
            ttl: None,
            keeps_headers: false,
            reuses_source: false,
            source_changelog: None,
        }
    }

    /// Lets entries expire, by event time: one whose timestamp lies `ttl` or more behind the stream
    /// time of the task is not returned any more, neither to processors nor to queries, and is deleted,
    /// in the changelog as well. Kafka Streams has nothing of the kind.
    ///
    /// - Stream time is the highest timestamp that any input of the task has shown. It stands still
    ///   when nothing arrives, and outlives restarts.
    ///   A record that is skipped or dead-lettered counts as well: one with a time far ahead lets
    ///   everything expire, so give sources of doubtful times a
    ///   [timestamp extractor](super::Consumed::with_timestamp_extractor).
    /// - A write sets the time anew; a read does not. A write with a time that has expired already is a
    ///   delete: the last write counts, as ever.
    /// - Deletes join the transactions of the task, at most two for each write and a thousand in any
    ///   case, so that a leap in time costs no burst. Until then an entry is hidden.
    /// - Nothing is sent downstream when an entry expires: an aggregate begins anew with the next
    ///   record of its key, and what tables downstream have made of it stays as it is.
    ///
    /// `millstream_state_expired_entries_total` counts. `build` refuses it for windows and sessions,
    /// which have [`with_retention`](Self::with_retention), for versioned, record, custom and global stores. A store may be given a time-to-live at any
    /// time, and another one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// let hour = Duration::from_secs(3600);
    /// builder
    ///     .stream("logins", Consumed::with(serdes::string(), serdes::string()))
    ///     .group_by_key(Grouped::as_name("by-user"))
    ///     .count(Materialized::as_store("recent", serdes::string(), serdes::i64()).ttl(hour));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let logins = driver.input_topic("logins", serdes::string(), serdes::string());
    /// let login = |user: &str, time| Record::new(user.to_owned(), String::new(), time);
    /// logins.pipe_record(&mut driver, &login("ann", 0))?;
    /// logins.pipe_record(&mut driver, &login("bob", 3_599_999))?;
    /// assert_eq!(driver.store_value("recent", "ann")?, Some(1.into()));
    /// logins.pipe_record(&mut driver, &login("bob", 3_600_000))?;
    /// assert_eq!(driver.store_value("recent", "ann")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Keeps windows for longer than their size and grace, such as for queries. Means nothing to a
    /// store without windows.
    #[must_use]
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Keeps the data in memory: restored from the start of the changelog at each start.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.persistence = Persistence::InMemory;
        self
    }

    /// Makes the store the truth: a reset keeps it.
    #[must_use]
    pub fn record(mut self) -> Self {
        self.durability = Durability::Record;
        self
    }

    /// Makes the store a projection of something else: a reset deletes it. The default.
    #[must_use]
    pub fn derived(mut self) -> Self {
        self.durability = Durability::Derived;
        self
    }

    /// Sets a config of the changelog topic, such as `segment.ms`.
    #[must_use]
    pub fn changelog_config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.changelog
            .get_or_insert_default()
            .insert(key.into(), value.into());
        self
    }

    /// Keeps no changelog: the store is lost with its machine.
    #[must_use]
    pub fn no_changelog(mut self) -> Self {
        self.changelog = None;
        self
    }
}

/// Serdes have no `Debug`; the name tells what matters.
macro_rules! debug_by_name {
    ($($type:ident),*) => {$(
        impl<K, V> fmt::Debug for $type<K, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type)).field("name", &self.name).finish_non_exhaustive()
            }
        }
    )*};
}

debug_by_name!(
    Consumed,
    Produced,
    Grouped,
    Joined,
    Repartitioned,
    Materialized
);
