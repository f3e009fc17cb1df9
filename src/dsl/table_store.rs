//! Tables with a store: what keeps the latest value per key.

use std::sync::Arc;

use super::assembly::Children;
use super::builder::{Draft, SharedDraft, StoreHandle, StoreKey};
use super::config::{Consumed, Materialized, Repartitioned, SharedSerde};
use super::getter::Getter;
use super::nulls::Nulls;
use super::source::TableSource;
use super::stream::{KStream, Keeps, Lineage};
use super::table::{Change, KTable, OldValues};
use super::timestamp::Heads;
use super::versioned::VersionedTable;
use crate::processor::{Downstream, Node, ProcessError, Record, TaskContext};
use crate::state::StoreRef;
use crate::topology::{GraphNode, NodeId, NodeKind, StoreId, TopicRef};

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
            Some(new) => self.store.put_ref(&record.key, new.clone())?,
            None => drop(self.store.delete(&record.key)?),
        }
        // What is written last is the latest here, whatever a versioned table upstream makes of it.
        let before = cx.set_latest(true);
        let result = self.downstream.process(cx, record);
        cx.set_latest(before);
        result
    }
}

/// Keeps the latest value of each key.
struct TableNode<K, V> {
    updates: Updates<K, V>,
    nulls: Nulls<K, V>,
}

impl<K: StoreKey, V: Clone + 'static, T: Into<Option<V>>> Node<K, T> for TableNode<K, V> {
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, T>) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        if self.nulls.is_key(&key) {
            cx.drop_record();
            return Ok(());
        }
        let old = if self.updates.send_old {
            self.updates.store.get(&key)?
        } else {
            None
        };
        let value = Change {
            new: value.into(),
            old,
        };
        self.updates.apply(
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

/// Keeps what a table without a store makes of its updates.
struct MaterializedNode<K, V> {
    updates: Updates<K, V>,
    skips_unseen: bool,
}

impl<K: StoreKey, V: Clone + 'static> Node<K, Change<V>> for MaterializedNode<K, V> {
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, Change<V>>,
    ) -> Result<(), ProcessError> {
        // A filter needs it to tell a delete from a key that never was there.
        let old = if self.updates.send_old || self.skips_unseen {
            self.updates.store.get(&record.key)?
        } else {
            None
        };
        let new = record.value.new.clone();
        if self.skips_unseen && new.is_none() && old.is_none() {
            return Ok(());
        }
        self.updates
            .apply(cx, record.with_value(Change { new, old }))
    }
}

/// A node with a store whose updates are a table; it lacks its instances.
pub(crate) struct Stateful<K, V> {
    pub(crate) node: NodeId,
    pub(crate) store: StoreId,
    pub(crate) table: KTable<K, V>,
    pub(crate) children: Children<K, Change<V>>,
    pub(crate) old_values: OldValues,
}

/// Where a [`Stateful`] node stands in the drawing, and what its updates are written with.
pub(crate) struct Place<'a, K, V> {
    pub(crate) draft: &'a SharedDraft,
    /// Of the node's generated name.
    pub(crate) prefix: &'a str,
    pub(crate) parents: Vec<NodeId>,
    pub(crate) lineage: Lineage,
    pub(crate) key_serde: SharedSerde<K>,
    pub(crate) value_serde: SharedSerde<V>,
}

impl<K: StoreKey, V: Clone + 'static> Stateful<K, V> {
    /// Draws the node with the store that `add_store` adds and `getter` reads.
    pub(crate) fn draw(
        place: Place<'_, K, V>,
        add_store: impl FnOnce(&mut Draft) -> StoreId,
        getter: impl FnOnce(StoreId) -> Getter<K, V>,
    ) -> Self {
        let Place {
            draft,
            prefix,
            parents,
            lineage,
            key_serde,
            value_serde,
        } = place;
        let mut borrowed = draft.borrow_mut();
        // ORDER: the counter of generated names runs in the order of drawing.
        let name = borrowed.graph.generate_name(prefix);
        let store = add_store(&mut borrowed);
        let node = borrowed.graph.add(GraphNode {
            name,
            named: false,
            kind: NodeKind::Operator { processor: false },
            parents,
            stores: vec![store],
        });
        drop(borrowed);
        let children = Children::new();
        let keeps = Keeps {
            key_serde: Some(Arc::clone(&key_serde)),
            value_serde: None,
            repartition_required: false,
        };
        let updates = KStream::new(draft, node, children.clone(), keeps, lineage);
        let old_values = OldValues::default();
        let (key, value) = (Some(key_serde), Some(value_serde));
        let table = KTable::derived(updates, key, value, &old_values, getter(store));
        Self {
            node,
            store,
            table,
            children,
            old_values,
        }
    }
}

impl<K: StoreKey, V: Clone + 'static> KTable<K, V> {
    /// Draws a node with a store whose updates are the table; the caller attaches its instance.
    pub(crate) fn materialize(
        draft: &SharedDraft,
        prefix: &str,
        parents: Vec<NodeId>,
        materialized: Materialized<K, V>,
        lineage: &Lineage,
    ) -> Stateful<K, V> {
        let place = Place {
            draft,
            prefix,
            parents,
            lineage: lineage.clone(),
            key_serde: Arc::clone(&materialized.key_serde),
            value_serde: Arc::clone(&materialized.value_serde),
        };
        let store_name = materialized.name.clone();
        let add_store = |draft: &mut Draft| {
            materialized.refuse_versions(draft);
            draft.add_store(materialized)
        };
        let mut stateful = Stateful::draw(place, add_store, Getter::of_store);
        let handle = StoreHandle::new(draft, stateful.store, store_name);
        stateful.table.store = Some(handle);
        stateful
    }

    pub(crate) fn from_source(
        draft: &SharedDraft,
        topic: &str,
        consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> Self {
        let mut materialized = materialized;
        materialized.reuse_source(&mut draft.borrow_mut(), topic, &consumed);
        let Consumed {
            key_serde,
            value_serde,
            policies,
            rewindable,
            name,
            timestamps,
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
                    heads: timestamps.as_ref().map(Heads::new),
                    downstream: downstream.assemble(assembly)?,
                }))
            })
        });
        if let Some(history) = materialized.history {
            let parents = vec![source];
            let prefix = "KTABLE-SOURCE-";
            return VersionedTable::draw(draft, prefix, parents, materialized, history, &lineage)
                .attach_latest(&records);
        }
        let stateful = Self::materialize(
            draft,
            "KTABLE-SOURCE-",
            vec![source],
            materialized,
            &lineage,
        );
        stateful.attach_latest(&records)
    }

    /// Keeps a table that has no store of its own in one: to query it, or so that its values are not
    /// computed again (Kafka Streams' `filter(.., Materialized)`, `mapValues(.., Materialized)`).
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let lengths = users
    ///     .map_values(|_, user| user.len() as i64)
    ///     .materialized(Materialized::as_store("lengths", serdes::string(), serdes::i64()));
    /// # drop(lengths);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "a store that nobody reads or queries costs all the same"]
    pub fn materialized(&self, materialized: Materialized<K, V>) -> Self {
        let parts = &self.updates.parts;
        if let Some(history) = materialized.history {
            let (draft, parents) = (&self.updates.draft, vec![parts.node]);
            let prefix = "KTABLE-MATERIALIZED-";
            let lineage = &parts.lineage;
            return VersionedTable::draw(draft, prefix, parents, materialized, history, lineage)
                .attach_updates(&parts.children, self.skips_unseen && !self.is_versioned());
        }
        let stateful = Self::materialize(
            &self.updates.draft,
            "KTABLE-MATERIALIZED-",
            vec![parts.node],
            materialized,
            &parts.lineage,
        );
        let Stateful {
            node,
            store,
            mut table,
            children,
            old_values,
        } = stateful;
        table.skips_unseen = self.skips_unseen;
        let skips_unseen = self.skips_unseen;
        parts.children.add(node, move |assembly| {
            Ok(Box::new(MaterializedNode {
                skips_unseen,
                updates: Updates {
                    store: assembly.store(store),
                    send_old: old_values.sent(),
                    downstream: children.assemble(assembly)?,
                },
            }))
        });
        table
    }
}

impl<K: StoreKey, V: Clone + 'static> Stateful<K, V> {
    /// Attaches a node that keeps the latest value of what `parent` forwards.
    fn attach_latest<T: Into<Option<V>> + 'static>(self, parent: &Children<K, T>) -> KTable<K, V> {
        let nulls = Nulls::new(self.table.key_serde.clone(), None);
        let Self {
            node,
            store,
            table,
            children,
            old_values,
        } = self;
        parent.add(node, move |assembly| {
            Ok(Box::new(TableNode {
                nulls: nulls.clone(),
                updates: Updates {
                    store: assembly.store(store),
                    send_old: old_values.sent(),
                    downstream: children.assemble(assembly)?,
                },
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
        if let Some(history) = materialized.history {
            let (draft, parents) = (&stream.draft, vec![parts.node]);
            let prefix = "KSTREAM-TOTABLE-";
            let lineage = &parts.lineage;
            return VersionedTable::draw(draft, prefix, parents, materialized, history, lineage)
                .attach_latest(&parts.children);
        }
        KTable::materialize(
            &stream.draft,
            "KSTREAM-TOTABLE-",
            vec![parts.node],
            materialized,
            &parts.lineage,
        )
        .attach_latest(&parts.children)
    }
}
