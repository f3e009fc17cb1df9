//! [`KTable`]: the latest value per key.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::assembly::Children;
use super::builder::{SharedDraft, StoreKey};
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
    key_serde: Option<SharedSerde<K>>,
    value_serde: Option<SharedSerde<V>>,
    old_values: OldValues,
}

/// Whether somebody downstream needs [`Change::old`]: set while drawing, read by every node up to
/// the store.
#[derive(Debug, Clone, Default)]
pub(crate) struct OldValues(Arc<AtomicBool>);

impl OldValues {
    pub(crate) fn sent(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<K, V> Clone for KTable<K, V> {
    fn clone(&self) -> Self {
        Self {
            updates: self.updates.clone(),
            key_serde: self.key_serde.clone(),
            value_serde: self.value_serde.clone(),
            old_values: self.old_values.clone(),
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

/// Writes a key's latest value and forwards the change.
struct TableNode<K, V> {
    store: StoreRef<K, V>,
    send_old: bool,
    downstream: Downstream<K, Change<V>>,
}

impl<K: StoreKey, V: Clone + 'static, T: Into<Option<V>>> Node<K, T> for TableNode<K, V> {
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, T>) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        let new: Option<V> = value.into();
        let old = if self.send_old {
            self.store.get(&key)?
        } else {
            None
        };
        match &new {
            Some(value) => self.store.put(key.clone(), value.clone())?,
            None => drop(self.store.delete(&key)?),
        }
        let value = Change { new, old };
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
        };
        Stateful {
            node,
            store,
            table,
            children,
            old_values,
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
    #[must_use = "mapping a table has no effect of its own"]
    pub fn map_values<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(&K, V) -> V2 + Send + Sync + 'static,
    ) -> KTable<K, V2> {
        let keeps = Keeps {
            key_serde: self.key_serde.clone(),
            value_serde: None,
            repartition_required: false,
        };
        let updates = self
            .updates
            .operator("KTABLE-MAPVALUES-", keeps, move |scope, record| {
                let Record {
                    key,
                    value: Change { new, old },
                    timestamp,
                    headers,
                } = record;
                let value = Change {
                    new: new.map(|value| mapper(&key, value)),
                    old: old.map(|value| mapper(&key, value)),
                };
                scope.forward(Record {
                    key,
                    value,
                    timestamp,
                    headers,
                })
            });
        let (key_serde, old_values) = (self.key_serde.clone(), self.old_values.clone());
        KTable {
            updates,
            key_serde,
            value_serde: None,
            old_values,
        }
    }

    /// Keeps the keys whose value the predicate holds for: others are deleted. The result has no
    /// store of its own; as in Kafka Streams a value that never passed is forwarded as a delete
    /// unless old values are sent.
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
        let keeps = Keeps {
            key_serde: self.key_serde.clone(),
            value_serde: None,
            repartition_required: false,
        };
        let old_values = self.old_values.clone();
        let updates = self
            .updates
            .operator("KTABLE-FILTER-", keeps, move |scope, record| {
                let Record {
                    key,
                    value: Change { new, old },
                    timestamp,
                    headers,
                } = record;
                let new = new.filter(|value| keep(&key, value));
                let old = old.filter(|value| keep(&key, value));
                if old_values.sent() && new.is_none() && old.is_none() {
                    return Ok(());
                }
                scope.forward(Record {
                    key,
                    value: Change { new, old },
                    timestamp,
                    headers,
                })
            });
        Self {
            updates,
            ..self.clone()
        }
    }

    /// Asks for [`Change::old`] from here up to the store.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "joins and table groupings ask for it")
    )]
    pub(crate) fn enable_sending_old_values(&self) {
        self.old_values.0.store(true, Ordering::Relaxed);
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
            Ok(Box::new(TableNode {
                store: assembly.store(store),
                send_old: old_values.sent(),
                downstream: children.assemble(assembly)?,
            }))
        });
        table
    }
}

impl<K: StoreKey, V: Clone + 'static> KStream<K, V> {
    /// Reads the stream as a table: the latest value per key. A stream of `Option<T>` becomes a
    /// table of `T`, in which `None` deletes the key.
    ///
    /// Repartitions first when the key may have changed, through a topic that has the store's name.
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
