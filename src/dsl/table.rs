//! [`KTable`]: the latest value per key.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::assembly::Children;
use super::builder::{SharedDraft, StoreHandle, StoreKey};
use super::config::{Consumed, Materialized, Repartitioned, SharedSerde};
use super::source::TableSource;
use super::stream::{KStream, Keeps, Lineage};
use crate::processor::{Downstream, Node, ProcessError, Record, TaskContext};
use crate::serde::OptionalSerde;
use crate::state::StoreRef;
use crate::topology::{GraphNode, NodeId, NodeKind, StoreId, TopicRef};

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
    updates: KStream<K, Change<V>>,
    pub(crate) key_serde: Option<SharedSerde<K>>,
    pub(crate) value_serde: Option<SharedSerde<V>>,
    pub(crate) old_values: OldValues,
    /// Where the table has a store of its own.
    store: Option<StoreHandle<K, V>>,
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

    fn request(&self) {
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

/// A store of latest values, and who hears of changes.
pub(crate) struct Updates<K, V> {
    pub(crate) store: StoreRef<K, V>,
    pub(crate) send_old: bool,
    pub(crate) downstream: Downstream<K, Change<V>>,
}

impl<K: StoreKey, V: Clone + 'static> Updates<K, V> {
    /// Writes `record`'s new value with the time in progress, and forwards the change.
    pub(crate) fn apply(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, Change<V>>,
    ) -> Result<(), ProcessError> {
        if self.downstream.is_empty() {
            let Record { key, value, .. } = record;
            match value.new {
                Some(new) => self.store.put(key, new)?,
                None => drop(self.store.delete(&key)?),
            }
            return Ok(());
        }
        match &record.value.new {
            Some(new) => self.store.put(record.key.clone(), new.clone())?,
            None => drop(self.store.delete(&record.key)?),
        }
        self.downstream.process(cx, record)
    }
}

/// Keeps the latest value of each key.
struct TableNode<K, V>(Updates<K, V>);

impl<K: StoreKey, V: Clone + 'static, T: Into<Option<V>>> Node<K, T> for TableNode<K, V> {
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, T>) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        let old = if self.0.send_old {
            self.0.store.get(&key)?
        } else {
            None
        };
        let value = Change {
            new: value.into(),
            old,
        };
        self.0.apply(
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

/// What a node with a store is drawn with.
pub(crate) struct Stateful<K, V> {
    pub(crate) node: NodeId,
    pub(crate) store: StoreId,
    pub(crate) table: KTable<K, V>,
    pub(crate) children: Children<K, Change<V>>,
    pub(crate) old_values: OldValues,
}

impl<K: StoreKey, V: Clone + 'static> KTable<K, V> {
    /// Draws a node with a store whose updates are the table; the caller attaches its instance.
    pub(crate) fn materialize(
        draft: &SharedDraft,
        prefix: &str,
        parent: NodeId,
        materialized: Materialized<K, V>,
        lineage: &Lineage,
    ) -> Stateful<K, V> {
        let key_serde = Some(Arc::clone(&materialized.key_serde));
        let value_serde = Some(Arc::clone(&materialized.value_serde));
        let mut borrowed = draft.borrow_mut();
        let store_name = materialized.name.clone();
        let name = borrowed.graph.generate_name(prefix);
        let store = borrowed.add_store(materialized);
        let node = borrowed.graph.add(GraphNode {
            name,
            named: false,
            kind: NodeKind::Operator { processor: false },
            parents: vec![parent],
            stores: vec![store],
        });
        drop(borrowed);
        let children = Children::new();
        let keeps = Keeps {
            key_serde: key_serde.clone(),
            value_serde: None,
            repartition_required: false,
        };
        let updates = KStream::new(draft, node, children.clone(), keeps, lineage.clone());
        let old_values = OldValues::default();
        let table = Self {
            updates,
            key_serde,
            value_serde,
            old_values: old_values.clone(),
            store: Some(StoreHandle::new(draft, store, store_name)),
        };
        Stateful {
            node,
            store,
            table,
            children,
            old_values,
        }
    }

    /// Makes a table of updates that come from elsewhere.
    pub(crate) fn derived(
        updates: KStream<K, Change<V>>,
        key_serde: Option<SharedSerde<K>>,
        value_serde: Option<SharedSerde<V>>,
        old_values: &OldValues,
    ) -> Self {
        Self {
            updates,
            key_serde,
            value_serde,
            old_values: old_values.clone(),
            store: None,
        }
    }

    pub(crate) fn from_source(
        draft: &SharedDraft,
        topic: &str,
        consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> Self {
        let Consumed {
            key_serde,
            value_serde,
            policies,
            rewindable,
            name,
        } = consumed;
        let lineage = Lineage {
            policies,
            rewindable,
            window_grace: None,
        };
        let records = Children::<K, Option<V>>::new();
        let downstream = records.clone();
        let topic = TopicRef::Declared(topic.to_owned());
        let source = draft.borrow_mut().add_source(topic, name, &lineage, |id| {
            Box::new(move |assembly| {
                Ok(Box::new(TableSource {
                    name: assembly.name(id),
                    key_serde: Arc::clone(&key_serde),
                    value_serde: Arc::clone(&value_serde),
                    downstream: downstream.assemble(assembly)?,
                }))
            })
        });
        let stateful = Self::materialize(draft, "KTABLE-SOURCE-", source, materialized, &lineage);
        stateful.attach_latest(&records)
    }

    /// Names the node this table comes from, in place of the generated name.
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
                scope.forward(Record {
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
        self.derive("KTABLE-MAPVALUES-", None, move |old_values, key, change| {
            let Change { new, old } = change;
            let old = old.filter(|_| old_values.sent());
            let map = |value: Option<V>| value.map(|value| mapper(key, value));
            Some(Change {
                new: map(new),
                old: map(old),
            })
        })
    }

    /// Keeps the keys whose value the predicate holds for: others are deleted. The result has no
    /// store of its own; as in Kafka Streams a value that never passed is forwarded as a delete
    /// unless old values are sent.
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
    #[must_use = "filtering a table has no effect of its own"]
    pub fn filter_not(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.filter_with(move |key, value| !predicate(key, value))
    }

    fn filter_with(&self, keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.derive(
            "KTABLE-FILTER-",
            self.value_serde.clone(),
            move |old_values, key, change| {
                let new = change.new.filter(|value| keep(key, value));
                let old = change
                    .old
                    .filter(|value| old_values.sent() && keep(key, value));
                let unseen = old_values.sent() && new.is_none() && old.is_none();
                (!unseen).then_some(Change { new, old })
            },
        )
    }

    /// Draws a table without a store of its own; `change` returns what it makes of an update.
    fn derive<V2: Clone + 'static>(
        &self,
        prefix: &str,
        value_serde: Option<SharedSerde<V2>>,
        change: impl Fn(&OldValues, &K, Change<V>) -> Option<Change<V2>> + Send + Sync + 'static,
    ) -> KTable<K, V2> {
        let key_serde = self.key_serde.clone();
        let keeps = Keeps {
            key_serde: key_serde.clone(),
            value_serde: None,
            repartition_required: false,
        };
        let old_values = self.old_values.child();
        let own = old_values.clone();
        let updates = self.updates.operator(prefix, keeps, move |scope, record| {
            let Record {
                key,
                value,
                timestamp,
                headers,
            } = record;
            match change(&own, &key, value) {
                Some(value) => scope.forward(Record {
                    key,
                    value,
                    timestamp,
                    headers,
                }),
                None => Ok(()),
            }
        });
        KTable {
            updates,
            key_serde,
            value_serde,
            old_values,
            store: None,
        }
    }

    /// Returns the handle of the table's store, to connect a processor to it; `None` where the table
    /// has no key-value store of its own, as a windowed one.
    #[must_use]
    pub fn store(&self) -> Option<StoreHandle<K, V>> {
        self.store.clone()
    }

    /// Reads the updates with both sides.
    pub(crate) const fn updates(&self) -> &KStream<K, Change<V>> {
        &self.updates
    }

    /// Asks for [`Change::old`] from here up to the store.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "joins and table groupings ask for it")
    )]
    pub(crate) fn enable_sending_old_values(&self) {
        self.old_values.request();
    }
}

impl<K: StoreKey, V: Clone + 'static> Stateful<K, V> {
    /// Attaches a node that keeps the latest value of what `parent` forwards.
    fn attach_latest<T: Into<Option<V>> + 'static>(self, parent: &Children<K, T>) -> KTable<K, V> {
        let Self {
            store,
            table,
            children,
            old_values,
            ..
        } = self;
        parent.add(move |assembly| {
            Ok(Box::new(TableNode(Updates {
                store: assembly.store(store),
                send_old: old_values.sent(),
                downstream: children.assemble(assembly)?,
            })))
        });
        table
    }
}

impl<K: StoreKey, V: Clone + 'static> KStream<K, V> {
    /// Reads the stream as a table: the latest value per key. A stream of `Option<T>` becomes a
    /// table of `T`, in which `None` deletes the key.
    ///
    /// Repartitions first when the key may have changed, through a topic that has the store's name.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let latest = words.to_table(
    ///     Materialized::as_store("latest", serdes::string(), serdes::string()),
    /// );
    /// # drop(latest);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "an unused table still costs a store"]
    pub fn to_table<T>(&self, materialized: Materialized<K, T>) -> KTable<K, T>
    where
        T: Clone + 'static,
        V: Into<Option<T>>,
    {
        let stream = if self.parts.repartition_required {
            let mut repartitioned = Repartitioned::as_name(materialized.name.clone());
            repartitioned.key_serde = Some(Arc::clone(&materialized.key_serde));
            self.repartition(repartitioned)
        } else {
            self.clone()
        };
        let parts = &stream.parts;
        KTable::materialize(
            &stream.draft,
            "KSTREAM-TOTABLE-",
            parts.node,
            materialized,
            &parts.lineage,
        )
        .attach_latest(&parts.children)
    }
}
