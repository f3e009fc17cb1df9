//! Joins of a stream with a table: every record meets the table's value of its key at that time.

use std::sync::Arc;
use std::time::Duration;

use super::assembly::Children;
use super::builder::StoreKey;
use super::config::{Joined, Repartitioned, SharedSerde};
use super::getter::LookupAsOf;
use super::grace_join::{GraceBuffer, buffer_store};
use super::nulls::Nulls;
use super::stream::KStream;
use super::table::KTable;
use crate::processor::{Downstream, Node, ProcessError, Record, TaskContext};
use crate::state::Layout;
use crate::topology::{GraphNode, NodeKind, StoreId, TopologyError};
use crate::window::millis;

/// `F` returns the result, `None` where there is none.
struct StreamTableNode<F, K: StoreKey, V, T, R> {
    join: Arc<F>,
    lookup: LookupAsOf<K, T>,
    left: bool,
    nulls: Nulls<K, V>,
    /// Where records wait for the table, if they do.
    buffer: Option<GraceBuffer<K, V>>,
    downstream: Downstream<K, R>,
}

impl<F, K, V, T, R> Node<K, V> for StreamTableNode<F, K, V, T, R>
where
    K: StoreKey,
    V: Clone + 'static,
    R: Clone,
    F: Fn(&K, V, Option<T>) -> Option<R>,
{
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        let null_key = self.nulls.is_key(&record.key);
        if (null_key && !self.left) || self.nulls.is_value(&record.value) {
            cx.drop_record();
            return Ok(());
        }
        // What has no key finds nothing, however long it waits.
        let Some(mut buffer) = self.buffer.take_if(|_| !null_key) else {
            return self.join(cx, record);
        };
        let result = match buffer.put(cx, record) {
            Ok(None) => buffer.take_due(cx, |cx, record| self.join(cx, record)),
            Ok(Some(late)) => self.join(cx, late),
            Err(error) => Err(error.into()),
        };
        self.buffer = Some(buffer);
        result
    }
}

impl<F, K, V, T, R> StreamTableNode<F, K, V, T, R>
where
    K: StoreKey,
    V: Clone + 'static,
    R: Clone,
    F: Fn(&K, V, Option<T>) -> Option<R>,
{
    fn join(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        let null_key = self.nulls.is_key(&key);
        let found = if null_key {
            None
        } else {
            (self.lookup)(&key, timestamp)?
        };
        let Some(value) = (self.join)(&key, value, found.map(|(value, _)| value)) else {
            return Ok(());
        };
        let record = Record {
            key,
            value,
            timestamp,
            headers,
        };
        self.downstream.process_at(cx, record)
    }
}

impl<K: StoreKey, V: Clone + 'static> KStream<K, V> {
    /// Joins every record with the table's value of its key. A record without one has no result; an
    /// update of the table alone has none either. Repartitions first when the key may have changed.
    ///
    /// Records and the table's updates are processed in the order of their timestamps, as far as both
    /// are there to be read.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let named = orders.join_table(
    ///     &users,
    ///     |_, amount, user| format!("{user} ordered for {amount}"),
    ///     Joined::as_name("orders-of-users"),
    /// );
    /// # named.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn join_table<T: Clone + 'static, R: Clone + 'static>(
        &self,
        table: &KTable<K, T>,
        joiner: impl Fn(&K, V, T) -> R + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, R> {
        self.join_with_table(table, joined, false, move |key, value, found| {
            Some(joiner(key, value, found?))
        })
    }

    /// As [`join_table`](Self::join_table); a record whose key has no value in the table, or that has
    /// no key, is joined with `None`.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let named = orders.left_join_table(
    ///     &users,
    ///     |_, amount, user| format!("{} ordered for {amount}", user.as_deref().unwrap_or("somebody")),
    ///     Joined::as_name("orders-of-users"),
    /// );
    /// # named.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn left_join_table<T: Clone + 'static, R: Clone + 'static>(
        &self,
        table: &KTable<K, T>,
        joiner: impl Fn(&K, V, Option<T>) -> R + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, R> {
        self.join_with_table(table, joined, true, move |key, value, found| {
            Some(joiner(key, value, found))
        })
    }

    fn join_with_table<T: Clone + 'static, R: Clone + 'static>(
        &self,
        table: &KTable<K, T>,
        joined: Joined<K, V>,
        left: bool,
        join: impl Fn(&K, V, Option<T>) -> Option<R> + Send + Sync + 'static,
    ) -> KStream<K, R> {
        let foreign = self.is_foreign(&table.updates.draft, "joined table");
        let (key_serde, value_serde) = (joined.key_serde.clone(), joined.value_serde.clone());
        let (name, grace) = (joined.name.clone(), joined.grace);
        let stream = if self.parts.repartition_required {
            self.repartition(Repartitioned {
                name: joined.name,
                key_serde: joined.key_serde,
                value_serde: joined.value_serde,
                partitions: None,
                partitioner: None,
            })
        } else {
            self.clone()
        };
        let parts = &stream.parts;
        let value_serde = value_serde.or_else(|| parts.value_serde.clone());
        let key_serde = key_serde.or_else(|| parts.key_serde.clone());
        let nulls = Nulls::new(table.key_serde.clone(), value_serde.clone());
        let buffer = grace
            .filter(|_| !foreign)
            .and_then(|grace| stream.draw_buffer(table, &name, grace, key_serde, value_serde));
        let join_name = name;
        let graph = &mut stream.draft.borrow_mut().graph;
        let name = graph.generate_name(if left {
            "KSTREAM-LEFTJOIN-"
        } else {
            "KSTREAM-JOIN-"
        });
        let node = graph.add(GraphNode {
            name,
            named: false,
            kind: NodeKind::Operator { processor: false },
            parents: vec![parts.node],
            stores: if foreign {
                Vec::new()
            } else {
                let buffer = buffer.iter().map(|(id, _)| *id);
                table.getter.stores.iter().copied().chain(buffer).collect()
            },
        });
        let children = Children::new();
        let (downstream, getter, join) = (children.clone(), table.getter.clone(), Arc::new(join));
        parts.children.add(node, move |assembly| {
            Ok(Box::new(StreamTableNode {
                join: Arc::clone(&join),
                lookup: getter.lookup_as_of(assembly),
                left,
                nulls: nulls.clone(),
                buffer: buffer
                    .map(|(id, grace)| GraceBuffer::new(&join_name, assembly.store(id), grace)),
                downstream: downstream.assemble(assembly)?,
            }))
        });
        let lineage = parts.lineage.clone();
        KStream::new_in(&stream, node, children, stream.keeps_key(), lineage)
    }

    /// Adds the store in which records wait for the table; notes why they cannot.
    fn draw_buffer<T: Clone + 'static>(
        &self,
        table: &KTable<K, T>,
        name: &str,
        grace: Duration,
        key_serde: Option<SharedSerde<K>>,
        value_serde: Option<SharedSerde<V>>,
    ) -> Option<(StoreId, Duration)> {
        let draft = &mut *self.draft.borrow_mut();
        let graph = &mut draft.graph;
        let history = table.getter.stores.iter().find_map(|id| {
            let layout = &graph.stores.get(id.0)?.layout;
            match layout {
                Layout::Versioned(history) if table.is_versioned() => Some(*history),
                _ => None,
            }
        });
        let reason = match history {
            None => Some("a join with a grace period needs a versioned table"),
            Some(history) if history < millis(grace) => {
                Some("the table must keep at least as much history as the grace period")
            }
            Some(_) => None,
        };
        if let Some(reason) = reason {
            let store = super::grace_join::buffer_name(name);
            graph
                .mistakes
                .push(TopologyError::IllegalStore { store, reason });
        }
        for (field, known) in [
            ("key", key_serde.is_some()),
            ("value", value_serde.is_some()),
        ] {
            if !known {
                let name = name.to_owned();
                graph
                    .mistakes
                    .push(TopologyError::JoinWithoutSerde { name, field });
            }
        }
        let store = draft.add_store(buffer_store(name, key_serde?, value_serde?));
        Some((store, grace))
    }
}
