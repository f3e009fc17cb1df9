//! Joins of a stream with a table: every record meets the table's value of its key at that time.

use std::sync::Arc;

use super::assembly::Children;
use super::builder::StoreKey;
use super::config::{Joined, Repartitioned};
use super::getter::Lookup;
use super::nulls::Nulls;
use super::stream::KStream;
use super::table::KTable;
use crate::processor::{Downstream, Node, ProcessError, Record, TaskContext};
use crate::topology::{GraphNode, NodeKind};

/// `F` returns the result, `None` where there is none.
struct StreamTableNode<F, K, V, T, R> {
    join: Arc<F>,
    lookup: Lookup<K, T>,
    left: bool,
    nulls: Nulls<K, V>,
    downstream: Downstream<K, R>,
}

impl<F, K, V, T, R> Node<K, V> for StreamTableNode<F, K, V, T, R>
where
    K: Clone + 'static,
    V: 'static,
    R: Clone,
    F: Fn(&K, V, Option<T>) -> Option<R>,
{
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        let null_key = self.nulls.is_key(&key);
        if (null_key && !self.left) || self.nulls.is_value(&value) {
            cx.drop_record();
            return Ok(());
        }
        let found = if null_key { None } else { (self.lookup)(&key)? };
        let Some(value) = (self.join)(&key, value, found.map(|(value, _)| value)) else {
            return Ok(());
        };
        let record = Record {
            key,
            value,
            timestamp,
            headers,
        };
        self.downstream.process(cx, record)
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
        let value_serde = joined.value_serde.clone();
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
        let nulls = Nulls::new(
            table.key_serde.clone(),
            value_serde.or_else(|| parts.value_serde.clone()),
        );
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
                table.getter.stores.clone()
            },
        });
        let children = Children::new();
        let (downstream, getter, join) = (children.clone(), table.getter.clone(), Arc::new(join));
        parts.children.add(node, move |assembly| {
            Ok(Box::new(StreamTableNode {
                join: Arc::clone(&join),
                lookup: getter.lookup(assembly),
                left,
                nulls: nulls.clone(),
                downstream: downstream.assemble(assembly)?,
            }))
        });
        let lineage = parts.lineage.clone();
        KStream::new_in(&stream, node, children, stream.keeps_key(), lineage)
    }
}
