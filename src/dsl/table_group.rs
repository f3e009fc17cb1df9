//! Tables grouped by another key, and their aggregation by adder and subtractor.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::builder::StoreKey;
use super::change::change_serde;
use super::config::{Grouped, Materialized, Repartitioned};
use super::nulls::Nulls;
use super::stream::KStream;
use super::table::{Change, KTable};
use super::table_store::{Stateful, Updates};
use crate::processor::{BoxError, Node, ProcessError, Record, TaskContext};

impl<K: StoreKey, V: Clone + 'static> KTable<K, V> {
    /// Groups the table's entries by another key, through a repartition topic. An entry that changes
    /// is taken from the aggregate it was part of and added to the one it is part of now.
    ///
    /// A null key takes the entry out of every group, as in Kafka Streams.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// let city_of_user = builder.table(
    ///     "city-of-user",
    ///     Consumed::with(serdes::string(), serdes::string()),
    ///     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// );
    /// let users_of_city = city_of_user
    ///     .group_by(
    ///         |user, city| (city, user.clone()),
    ///         Grouped::with("by-city", serdes::string(), serdes::string()),
    ///     )
    ///     .count(Materialized::as_store("users-of-city", serdes::string(), serdes::i64()));
    /// # drop(users_of_city);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "grouping has no effect of its own"]
    pub fn group_by<K2, V2>(
        &self,
        selector: impl Fn(&K, V) -> (K2, V2) + Send + Sync + 'static,
        grouped: Grouped<K2, V2>,
    ) -> KGroupedTable<K2, V2>
    where
        K2: StoreKey,
        V2: Clone + 'static,
    {
        self.enable_sending_old_values();
        let keeps = KStream::<K, Change<V>>::keeps_nothing();
        let nulls = Nulls::new(grouped.key_serde.clone(), grouped.value_serde.clone());
        let selected = self
            .updates
            .operator("KTABLE-SELECT-", keeps, move |scope, record| {
                let Record {
                    key,
                    value: Change { new, old },
                    timestamp,
                    headers,
                } = record;
                if !scope.is_latest() {
                    // The aggregate is one of latest values (KIP-914).
                    return Ok(());
                }
                let pair = |value: Option<V>| {
                    let (key, value) = selector(&key, value?);
                    (!nulls.is_key(&key) && !nulls.is_value(&value)).then_some((key, value))
                };
                let (old, new) = (pair(old), pair(new));
                let record = |key, value| Record {
                    key,
                    value,
                    timestamp,
                    headers: headers.clone(),
                };
                match (old, new) {
                    (Some((old_key, old)), Some((key, new))) if old_key == key => {
                        let (new, old) = (Some(new), Some(old));
                        scope.forward(record(key, Change { new, old }))
                    }
                    (old, new) => {
                        // ORDER: the subtractor before the adder, as in Kafka Streams.
                        if let Some((key, old)) = old {
                            let old = Some(old);
                            scope.forward(record(key, Change { new: None, old }))?;
                        }
                        if let Some((key, new)) = new {
                            let new = Some(new);
                            scope.forward(record(key, Change { new, old: None }))?;
                        }
                        Ok(())
                    }
                }
            });
        KGroupedTable {
            selected,
            grouped: Rc::new(grouped),
            partitioned: Rc::default(),
        }
    }
}

type Partitioned<K, V> = Rc<RefCell<Option<KStream<K, Change<V>>>>>;

/// A table whose entries are grouped by a key, ready to be aggregated.
///
/// Several aggregations of one grouping share its repartition topic.
pub struct KGroupedTable<K, V> {
    selected: KStream<K, Change<V>>,
    grouped: Rc<Grouped<K, V>>,
    /// The stream behind the repartition topic, once it was drawn.
    partitioned: Partitioned<K, V>,
}

impl<K, V> Clone for KGroupedTable<K, V> {
    fn clone(&self) -> Self {
        Self {
            selected: self.selected.clone(),
            grouped: Rc::clone(&self.grouped),
            partitioned: Rc::clone(&self.partitioned),
        }
    }
}

impl<K, V> fmt::Debug for KGroupedTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KGroupedTable")
            .field("grouped", &self.grouped)
            .finish_non_exhaustive()
    }
}

/// What an aggregate becomes when an entry joins it, and when one leaves it.
struct Folds<Add, Subtract> {
    add: Add,
    subtract: Subtract,
}

/// Takes the old value from the aggregate, then adds the new one.
struct TableAggregateNode<Add, Subtract, K, A> {
    name: Arc<str>,
    folds: Arc<Folds<Add, Subtract>>,
    updates: Updates<K, A>,
}

impl<Add, Subtract, K, V, A> Node<K, Change<V>> for TableAggregateNode<Add, Subtract, K, A>
where
    K: StoreKey,
    A: Clone + 'static,
    Add: Fn(&K, V, Option<A>) -> Result<Option<A>, BoxError>,
    Subtract: Fn(&K, V, A) -> Result<Option<A>, BoxError>,
{
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Record {
            key,
            value: change,
            timestamp,
            headers,
        } = record;
        let failure = |source| ProcessError::Processing {
            node: self.name.to_string(),
            source,
        };
        let before = self.updates.store.get_with_timestamp(&key)?;
        let timestamp = before
            .as_ref()
            .map_or(timestamp, |(_, at)| timestamp.max(*at));
        let before = before.map(|(aggregate, _)| aggregate);
        let old = before.clone().filter(|_| self.updates.send_old);
        let rest = match (change.old, before) {
            (Some(left), Some(aggregate)) => {
                (self.folds.subtract)(&key, left, aggregate).map_err(failure)?
            }
            (_, aggregate) => aggregate,
        };
        let new = match change.new {
            Some(joined) => (self.folds.add)(&key, joined, rest).map_err(failure)?,
            None => rest,
        };
        let in_progress = cx.set_timestamp(timestamp);
        let record = Record {
            key,
            value: Change { new, old },
            timestamp,
            headers,
        };
        let result = self.updates.apply(cx, record);
        cx.set_timestamp(in_progress);
        result
    }
}

impl<K: StoreKey, V: Clone + 'static> KGroupedTable<K, V> {
    fn partitioned(&self) -> KStream<K, Change<V>> {
        let mut partitioned = self.partitioned.borrow_mut();
        let stream = partitioned.get_or_insert_with(|| {
            self.selected.repartition(Repartitioned {
                name: self.grouped.name.clone(),
                key_serde: self.grouped.key_serde.clone(),
                value_serde: self.grouped.value_serde.as_ref().map(change_serde),
                partitions: None,
                partitioner: None,
            })
        });
        stream.clone()
    }

    fn fold<A: Clone + 'static>(
        &self,
        prefix: &str,
        materialized: Materialized<K, A>,
        add: impl Fn(&K, V, Option<A>) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
        subtract: impl Fn(&K, V, A) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
    ) -> KTable<K, A> {
        let stream = self.partitioned();
        let parts = &stream.parts;
        let Stateful {
            node,
            store,
            table,
            children,
            old_values,
        } = KTable::materialize(
            &stream.draft,
            prefix,
            vec![parts.node],
            materialized,
            &parts.lineage,
        );
        let folds = Arc::new(Folds { add, subtract });
        parts.children.add(node, move |assembly| {
            Ok(Box::new(TableAggregateNode {
                name: assembly.name(node),
                folds: Arc::clone(&folds),
                updates: Updates {
                    store: assembly.store(store),
                    send_old: old_values.sent(),
                    downstream: children.assemble(assembly)?,
                },
            }))
        });
        table
    }

    /// Folds the entries of each group: `adder` for one that joins it, `subtractor` for one that
    /// leaves it. An aggregate starts as `initializer` says.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let balances = builder.table(
    /// #     "balances",
    /// #     Consumed::with(serdes::string(), serdes::i64()),
    /// #     Materialized::as_store("balances", serdes::string(), serdes::i64()),
    /// # );
    /// let totals = balances
    ///     .group_by(
    ///         |account, balance| (account.chars().take(2).collect::<String>(), balance),
    ///         Grouped::with("by-country", serdes::string(), serdes::i64()),
    ///     )
    ///     .aggregate(
    ///         || 0,
    ///         |_, balance, total| total + balance,
    ///         |_, balance, total| total - balance,
    ///         Materialized::as_store("totals", serdes::string(), serdes::i64()),
    ///     );
    /// # drop(totals);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn aggregate<A: Clone + 'static>(
        &self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        adder: impl Fn(&K, V, A) -> A + Send + Sync + 'static,
        subtractor: impl Fn(&K, V, A) -> A + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        self.try_aggregate(
            initializer,
            move |key, value, aggregate| Ok(Some(adder(key, value, aggregate))),
            move |key, value, aggregate| Ok(Some(subtractor(key, value, aggregate))),
            materialized,
        )
    }

    /// As [`aggregate`](Self::aggregate); an error meets the source's policy, and `None` deletes the
    /// aggregate.
    pub fn try_aggregate<A: Clone + 'static>(
        &self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        adder: impl Fn(&K, V, A) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
        subtractor: impl Fn(&K, V, A) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        self.fold(
            "KTABLE-AGGREGATE-",
            materialized,
            move |key, value, aggregate| adder(key, value, aggregate.unwrap_or_else(&initializer)),
            subtractor,
        )
    }

    /// Combines the values of each group: `adder` for one that joins it, `subtractor` for one that
    /// leaves it; the first one is the start.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let balances = builder.table(
    /// #     "balances",
    /// #     Consumed::with(serdes::string(), serdes::i64()),
    /// #     Materialized::as_store("balances", serdes::string(), serdes::i64()),
    /// # );
    /// let total = balances
    ///     .group_by(
    ///         |_, balance| ("all".to_owned(), balance),
    ///         Grouped::with("all", serdes::string(), serdes::i64()),
    ///     )
    ///     .reduce(
    ///         |total, balance| total + balance,
    ///         |total, balance| total - balance,
    ///         Materialized::as_store("total", serdes::string(), serdes::i64()),
    ///     );
    /// # drop(total);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn reduce(
        &self,
        adder: impl Fn(V, V) -> V + Send + Sync + 'static,
        subtractor: impl Fn(V, V) -> V + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V> {
        self.fold(
            "KTABLE-REDUCE-",
            materialized,
            move |_, value, aggregate| {
                Ok(Some(match aggregate {
                    Some(aggregate) => adder(aggregate, value),
                    None => value,
                }))
            },
            move |_, value, aggregate| Ok(Some(subtractor(aggregate, value))),
        )
    }

    /// Counts the entries of each group.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// # let by_city = users.group_by(
    /// #     |user, city| (city, user.clone()),
    /// #     Grouped::with("by-city", serdes::string(), serdes::string()),
    /// # );
    /// let counts = by_city.count(Materialized::as_store("counts", serdes::string(), serdes::i64()));
    /// # drop(counts);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn count(&self, materialized: Materialized<K, i64>) -> KTable<K, i64> {
        let step = |count: Option<i64>, by: i64| {
            let next = count.unwrap_or(0).checked_add(by);
            next.map(Some)
                .ok_or_else(|| BoxError::from("the count overflows"))
        };
        self.fold(
            "KTABLE-AGGREGATE-",
            materialized,
            move |_, _, count| step(count, 1),
            move |_, _, count| step(Some(count), -1),
        )
    }
}
