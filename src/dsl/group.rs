//! Grouping and aggregation.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::builder::StoreKey;
use super::config::{Grouped, Materialized, Repartitioned};
use super::nulls::Nulls;
use super::stream::KStream;
use super::table::{Change, KTable};
use super::table_store::{Stateful, Updates};
use crate::processor::{BoxError, Node, ProcessError, Record, TaskContext};

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Groups records by their key, for aggregation. Repartitions only when the key may have
    /// changed since the source.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let counts = words
    ///     .group_by_key(Grouped::as_name("by-key"))
    ///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()));
    /// # counts.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::i64())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "grouping has no effect of its own"]
    pub fn group_by_key(&self, grouped: Grouped<K, V>) -> KGroupedStream<K, V> {
        KGroupedStream {
            stream: self.clone(),
            grouped: Rc::new(grouped),
            partitioned: Rc::default(),
        }
    }

    /// Groups records by a new key, through a repartition topic.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let counts = words
    ///     .group_by(
    ///         |_, word| word.clone(),
    ///         Grouped::with("by-word", serdes::string(), serdes::string()),
    ///     )
    ///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()));
    /// # counts.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::i64())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "grouping has no effect of its own"]
    pub fn group_by<K2: Clone + 'static>(
        &self,
        selector: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
        grouped: Grouped<K2, V>,
    ) -> KGroupedStream<K2, V> {
        self.select_key(selector).group_by_key(grouped)
    }
}

/// A stream whose records of one key are together, ready to be aggregated.
///
/// Several aggregations of one grouping share its repartition topic.
pub struct KGroupedStream<K, V> {
    pub(crate) stream: KStream<K, V>,
    grouped: Rc<Grouped<K, V>>,
    /// The stream behind the repartition topic, once one was needed.
    partitioned: Rc<RefCell<Option<KStream<K, V>>>>,
}

impl<K, V> Clone for KGroupedStream<K, V> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream.clone(),
            grouped: Rc::clone(&self.grouped),
            partitioned: Rc::clone(&self.partitioned),
        }
    }
}

impl<K, V> fmt::Debug for KGroupedStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KGroupedStream")
            .field("grouped", &self.grouped)
            .finish_non_exhaustive()
    }
}

/// Folds records into the store. `F` returns the next aggregate; `None` deletes it.
struct AggregateNode<F, K, V, A> {
    name: Arc<str>,
    fold: Arc<F>,
    nulls: Nulls<K, V>,
    /// Shared by the streams that are aggregated together.
    updates: Rc<RefCell<Updates<K, A>>>,
}

impl<F, K, V: 'static, A> Node<K, V> for AggregateNode<F, K, V, A>
where
    K: StoreKey,
    A: Clone + 'static,
    F: Fn(&K, V, Option<A>) -> Result<Option<A>, BoxError>,
{
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        if self.nulls.is_key(&key) || self.nulls.is_value(&value) {
            cx.drop_record();
            return Ok(());
        }
        let mut updates = self.updates.borrow_mut();
        let before = updates.store.get_with_timestamp(&key)?;
        // The result carries the latest time of what it is made of, also after a late record.
        let timestamp = before
            .as_ref()
            .map_or(timestamp, |(_, time)| timestamp.max(*time));
        let before = before.map(|(aggregate, _)| aggregate);
        let old = if updates.send_old {
            before.clone()
        } else {
            None
        };
        let new = (self.fold)(&key, value, before).map_err(|source| ProcessError::Processing {
            node: self.name.to_string(),
            source,
        })?;
        let in_progress = cx.set_timestamp(timestamp);
        let value = Change { new, old };
        let result = updates.apply(
            cx,
            Record {
                key,
                value,
                timestamp,
                headers,
            },
        );
        cx.set_timestamp(in_progress);
        result
    }
}

impl<K: StoreKey, V: Clone + 'static> KGroupedStream<K, V> {
    /// Returns the stream, behind a repartition topic if it needs one.
    pub(crate) fn partitioned(&self) -> KStream<K, V> {
        if !self.stream.parts.repartition_required {
            return self.stream.clone();
        }
        let mut partitioned = self.partitioned.borrow_mut();
        let stream = partitioned.get_or_insert_with(|| {
            self.stream.repartition(Repartitioned {
                name: self.grouped.name.clone(),
                key_serde: self.grouped.key_serde.clone(),
                value_serde: self.grouped.value_serde.clone(),
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
        fold: impl Fn(&K, V, Option<A>) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
    ) -> KTable<K, A> {
        let parts = self.partitioned().parts;
        let stateful = KTable::materialize(
            &self.stream.draft,
            prefix,
            vec![parts.node],
            materialized,
            &parts.lineage,
        );
        self.fold_into(&stateful, Arc::new(fold));
        stateful.table
    }

    /// Attaches the node that folds this stream's records into a store.
    pub(crate) fn fold_into<A, F>(&self, target: &Stateful<K, A>, fold: Arc<F>)
    where
        A: Clone + 'static,
        F: Fn(&K, V, Option<A>) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
    {
        let parts = self.partitioned().parts;
        let value_serde = self.grouped.value_serde.clone();
        let nulls = Nulls::new(
            target.table.key_serde.clone(),
            value_serde.or_else(|| parts.value_serde.clone()),
        );
        let (node, store) = (target.node, target.store);
        let (children, old_values) = (target.children.clone(), target.old_values.clone());
        parts.children.add(node, move |assembly| {
            let updates = assembly.shared(node, |assembly| {
                Ok(Updates {
                    store: assembly.store(store),
                    send_old: old_values.sent(),
                    downstream: children.assemble(assembly)?,
                })
            })?;
            Ok(Box::new(AggregateNode {
                name: assembly.name(node),
                fold: Arc::clone(&fold),
                nulls: nulls.clone(),
                updates,
            }))
        });
    }

    /// Folds the records of each key into an aggregate that starts as `initializer` says. The
    /// result's timestamp is the latest of its records'.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// # let by_key = words.group_by_key(Grouped::as_name("by-key"));
    /// let lengths = by_key.aggregate(
    ///     || 0,
    ///     |_, word, total| total + word.len() as i64,
    ///     Materialized::as_store("lengths", serdes::string(), serdes::i64()),
    /// );
    /// # lengths.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::i64())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn aggregate<A: Clone + 'static>(
        &self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> A + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        self.fold(
            "KSTREAM-AGGREGATE-",
            materialized,
            move |key, value, aggregate| {
                Ok(Some(aggregator(
                    key,
                    value,
                    aggregate.unwrap_or_else(&initializer),
                )))
            },
        )
    }

    /// As [`aggregate`](Self::aggregate); an error meets the source's policy, and `None` deletes
    /// the aggregate.
    pub fn try_aggregate<A: Clone + 'static>(
        &self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        self.fold(
            "KSTREAM-AGGREGATE-",
            materialized,
            move |key, value, aggregate| {
                aggregator(key, value, aggregate.unwrap_or_else(&initializer))
            },
        )
    }

    /// Combines the values of each key; the first one is the start.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// # let by_key = words.group_by_key(Grouped::as_name("by-key"));
    /// let longest = by_key.reduce(
    ///     |longest, word| if word.len() > longest.len() { word } else { longest },
    ///     Materialized::as_store("longest", serdes::string(), serdes::string()),
    /// );
    /// # longest.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::string())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn reduce(
        &self,
        reducer: impl Fn(V, V) -> V + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V> {
        self.try_reduce(
            move |aggregate, value| Ok(Some(reducer(aggregate, value))),
            materialized,
        )
    }

    /// As [`reduce`](Self::reduce); an error meets the source's policy, and `None` deletes the
    /// aggregate.
    pub fn try_reduce(
        &self,
        reducer: impl Fn(V, V) -> Result<Option<V>, BoxError> + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V> {
        self.fold(
            "KSTREAM-REDUCE-",
            materialized,
            move |_, value, aggregate| match aggregate {
                Some(aggregate) => reducer(aggregate, value),
                None => Ok(Some(value)),
            },
        )
    }

    /// Counts the records of each key.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// # let by_key = words.group_by_key(Grouped::as_name("by-key"));
    /// let counts = by_key.count(Materialized::as_store("counts", serdes::string(), serdes::i64()));
    /// # counts.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::i64())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn count(&self, materialized: Materialized<K, i64>) -> KTable<K, i64> {
        self.fold(
            "KSTREAM-AGGREGATE-",
            materialized,
            |_, _, count: Option<i64>| {
                let next = count.unwrap_or(0).checked_add(1);
                next.map(Some)
                    .ok_or_else(|| BoxError::from("the count overflows"))
            },
        )
    }
}
