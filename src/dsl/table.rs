//! [`KTable`]: the latest value per key.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::builder::{StoreHandle, StoreKey};
use super::config::SharedSerde;
use super::getter::Getter;
use super::stream::{KStream, Keeps};
use crate::processor::Record;
use crate::serde::OptionalSerde;

/// An update of a table: what a key's value becomes, and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<V> {
    /// The value from now on; `None` when the key is deleted.
    pub new: Option<V>,
    /// The value before; `None` when there was none, or when nobody downstream asked for it (as in
    /// Kafka Streams, old values cost a copy and are sent on request).
    pub old: Option<V>,
}

/// A changelog stream read as the latest value per key.
///
/// Kafka Streams' `KTable`. Every update goes downstream at once.
pub struct KTable<K, V> {
    pub(crate) updates: KStream<K, Change<V>>,
    pub(crate) key_serde: Option<SharedSerde<K>>,
    pub(crate) value_serde: Option<SharedSerde<V>>,
    pub(crate) old_values: OldValues,
    /// Where the table has a store of its own.
    pub(crate) store: Option<StoreHandle<K, V>>,
    /// How a join finds the value of a key.
    pub(crate) getter: Getter<K, V>,
    /// Whether an update from nothing to nothing goes no further, as it is with filters.
    pub(crate) skips_unseen: bool,
}

/// Whether somebody downstream of a table's node needs [`Change::old`]. A request goes up to the
/// store; tables beside the way there keep sending none, as in Kafka Streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct OldValues(Arc<Request>);

#[derive(Debug, Default)]
struct Request {
    made: AtomicBool,
    parent: Option<OldValues>,
}

impl OldValues {
    pub(crate) fn child(&self) -> Self {
        Self(Arc::new(Request {
            made: AtomicBool::new(false),
            parent: Some(self.clone()),
        }))
    }

    pub(crate) fn request(&self) {
        self.0.made.store(true, Ordering::Relaxed);
        if let Some(parent) = &self.0.parent {
            parent.request();
        }
    }

    pub(crate) fn sent(&self) -> bool {
        self.0.made.load(Ordering::Relaxed)
    }
}

impl<K, V> Clone for KTable<K, V> {
    fn clone(&self) -> Self {
        Self {
            updates: self.updates.clone(),
            key_serde: self.key_serde.clone(),
            value_serde: self.value_serde.clone(),
            old_values: self.old_values.clone(),
            store: self.store.clone(),
            getter: self.getter.clone(),
            skips_unseen: self.skips_unseen,
        }
    }
}

impl<K, V> fmt::Debug for KTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KTable")
            .field("updates", &self.updates)
            .finish_non_exhaustive()
    }
}

impl<K: StoreKey, V: Clone + 'static> KTable<K, V> {
    /// Makes a table of updates that come from elsewhere.
    pub(crate) fn derived(
        updates: KStream<K, Change<V>>,
        key_serde: Option<SharedSerde<K>>,
        value_serde: Option<SharedSerde<V>>,
        old_values: &OldValues,
        getter: Getter<K, V>,
    ) -> Self {
        Self {
            updates,
            key_serde,
            value_serde,
            old_values: old_values.clone(),
            store: None,
            getter,
            skips_unseen: false,
        }
    }

    /// Names the node this table comes from, in place of the generated name.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let known = users.filter(|_, user| !user.is_empty()).named("known-users");
    /// # known.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::string())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self {
            updates: self.updates.named(name),
            ..self
        }
    }

    /// Reads the table's updates as a stream; `None` is a deleted key.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let updates = users.to_stream().filter(|_, user| user.is_some());
    /// # updates.to("out", Produced::with(serdes::string(), serdes::optional(serdes::string())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "reading a table as a stream has no effect of its own"]
    pub fn to_stream(&self) -> KStream<K, Option<V>> {
        let value_serde = self
            .value_serde
            .clone()
            .map(|serde| -> SharedSerde<Option<V>> {
                Arc::new(OptionalSerde::<SharedSerde<V>>::new(serde))
            });
        let keeps = Keeps {
            key_serde: self.key_serde.clone(),
            value_serde,
            repartition_required: false,
        };
        self.updates
            .operator("KTABLE-TOSTREAM-", keeps, |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                scope.forward_latest(Record {
                    key,
                    value: value.new,
                    timestamp,
                    headers,
                })
            })
    }

    /// Gives every value another; the result has no store of its own.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let lengths = users.map_values(|_, user| user.len() as i64);
    /// # lengths.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::i64())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "mapping a table has no effect of its own"]
    pub fn map_values<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(&K, V) -> V2 + Send + Sync + 'static,
    ) -> KTable<K, V2> {
        self.derive("KTABLE-MAPVALUES-", None, false, move |key, value| {
            Some(mapper(key, value))
        })
    }

    /// As [`map_values`](Self::map_values); a value that becomes `None` is deleted, as where a mapper
    /// of Kafka Streams returns null.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let numbers = users.filter_map_values(|_, user| user.parse::<i64>().ok());
    /// # numbers.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::i64())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "mapping a table has no effect of its own"]
    pub fn filter_map_values<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(&K, V) -> Option<V2> + Send + Sync + 'static,
    ) -> KTable<K, V2> {
        self.derive("KTABLE-MAPVALUES-", None, false, mapper)
    }

    /// Keeps the keys whose value the predicate holds for: others are deleted. The result has no
    /// store of its own. A delete of a key that was not in the result goes no further.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let known = users.filter(|_, user| !user.is_empty());
    /// # known.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::string())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "filtering a table has no effect of its own"]
    pub fn filter(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.filter_with(predicate)
    }

    /// As [`filter`](Self::filter), for values the predicate does not hold for.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let known = users.filter_not(|_, user| user.is_empty());
    /// # known.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::string())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "filtering a table has no effect of its own"]
    pub fn filter_not(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.filter_with(move |key, value| !predicate(key, value))
    }

    fn filter_with(&self, keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        let value_serde = self.value_serde.clone();
        self.derive("KTABLE-FILTER-", value_serde, true, move |key, value| {
            keep(key, &value).then_some(value)
        })
    }

    /// Draws a table without a store of its own; `derive` returns what a value becomes.
    pub(crate) fn derive<V2: Clone + 'static>(
        &self,
        prefix: &str,
        value_serde: Option<SharedSerde<V2>>,
        skips_unseen: bool,
        derive: impl Fn(&K, V) -> Option<V2> + Send + Sync + 'static,
    ) -> KTable<K, V2> {
        let keeps = Keeps {
            key_serde: self.key_serde.clone(),
            value_serde: None,
            repartition_required: false,
        };
        let old_values = self.old_values.child();
        if skips_unseen {
            // Only the value before tells whether the key was there: a delete of what never was goes
            // no further.
            old_values.request();
        }
        let own = old_values.clone();
        // A delete of what never was is news of a time in the past.
        let skips_nothing = skips_unseen && !self.is_versioned();
        let derive = Arc::new(derive);
        let getter = self.getter.derive(Arc::clone(&derive));
        let updates = self.updates.operator(prefix, keeps, move |scope, record| {
            let Change { new, old } = record.value.clone();
            let old = old.filter(|_| own.sent());
            let new = new.and_then(|value| derive(&record.key, value));
            let old = old.and_then(|value| derive(&record.key, value));
            if skips_nothing && new.is_none() && old.is_none() {
                return Ok(());
            }
            scope.forward(record.with_value(Change { new, old }))
        });
        KTable {
            updates,
            key_serde: self.key_serde.clone(),
            value_serde,
            old_values,
            store: None,
            getter,
            skips_unseen,
        }
    }

    /// Returns the handle of the table's store, to connect a processor to it; `None` where the table
    /// has no key-value store of its own, as a windowed one.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let store = users.store().expect("a table that was read from a topic has one");
    /// assert_eq!(store.name(), "users");
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use]
    pub fn store(&self) -> Option<StoreHandle<K, V>> {
        self.store.clone()
    }

    /// Returns whether it is known what a key's value was.
    pub(crate) const fn is_versioned(&self) -> bool {
        self.getter.is_versioned()
    }

    /// Reads the updates with both sides.
    pub(crate) const fn updates(&self) -> &KStream<K, Change<V>> {
        &self.updates
    }

    /// Asks for [`Change::old`] from here up to the store.
    pub(crate) fn enable_sending_old_values(&self) {
        self.old_values.request();
    }
}
