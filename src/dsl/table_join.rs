//! Joins of two tables by their key: a result per key, kept up to date from both sides.
//!
//! # Invariants
//! - Both tables send old values, so that the result is a table as well: an update says what it was
//!   before.
//! - The side that did not change is looked up, never remembered: results without a store of their own
//!   are computed from both tables' stores.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::assembly::Children;
use super::builder::StoreKey;
use super::getter::Lookup;
use super::stream::{KStream, Keeps};
use super::table::{Change, KTable, OldValues};
use crate::processor::{Downstream, Node, ProcessError, Record, TaskContext};
use crate::topology::{GraphNode, NodeKind};

/// Which sides must be there for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

impl Kind {
    /// Whether a key without a value on the side that did not change can have a result.
    const fn needs_other(self, left_changed: bool) -> bool {
        match self {
            Self::Inner => true,
            Self::Left => !left_changed,
            Self::Outer => false,
        }
    }
}

type SharedDownstream<K, R> = Rc<RefCell<Downstream<K, Change<R>>>>;

/// One side of a join: `V` changes, `W` is looked up. `F` puts them in their places.
struct JoinNode<F, K, W, R> {
    needs_other: bool,
    lookup: Lookup<K, W>,
    join: F,
    send_old: bool,
    downstream: SharedDownstream<K, R>,
}

impl<F, K, V, W, R> Node<K, Change<V>> for JoinNode<F, K, W, R>
where
    K: StoreKey,
    W: Clone,
    R: Clone,
    F: Fn(&K, Option<V>, Option<W>) -> Option<R>,
{
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Record {
            key,
            value: Change { new, old },
            timestamp,
            headers,
        } = record;
        if !cx.is_latest() {
            // The result is one of latest values (KIP-914).
            cx.drop_record();
            return Ok(());
        }
        let other = (self.lookup)(&key)?;
        if other.is_none() && (self.needs_other || (new.is_none() && old.is_none())) {
            return Ok(());
        }
        let timestamp = other
            .as_ref()
            .map_or(timestamp, |(_, at)| timestamp.max(*at));
        let other = other.map(|(value, _)| value);
        let old = if self.send_old {
            (self.join)(&key, old, other.clone())
        } else {
            None
        };
        let new = (self.join)(&key, new, other);
        let record = Record {
            key,
            value: Change { new, old },
            timestamp,
            headers,
        };
        self.downstream.borrow_mut().process_at(cx, record)
    }
}

impl<K: StoreKey, V: Clone + 'static> KTable<K, V> {
    /// Joins two tables by their key: the result has a value where both have one, and its timestamp is
    /// the later one's. Their topics must be co-partitioned.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let table = |name| builder.table(
    /// #     name,
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store(name, serdes::string(), serdes::string()),
    /// # );
    /// let (users, cities) = (table("users"), table("cities"));
    /// let addresses = users.join(&cities, |_, user, city| format!("{user} in {city}"));
    /// # addresses.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::string())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn join<V2: Clone + 'static, R: Clone + 'static>(
        &self,
        other: &KTable<K, V2>,
        joiner: impl Fn(&K, V, V2) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        self.join_tables(Kind::Inner, other, move |key, left, right| {
            Some(joiner(key, left?, right?))
        })
    }

    /// As [`join`](Self::join); a key of this table has a result also when the other table has no
    /// value for it.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let table = |name| builder.table(
    /// #     name,
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store(name, serdes::string(), serdes::string()),
    /// # );
    /// # let (users, cities) = (table("users"), table("cities"));
    /// let addresses = users.left_join(&cities, |_, user, city| match city {
    ///     Some(city) => format!("{user} in {city}"),
    ///     None => user,
    /// });
    /// # addresses.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::string())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn left_join<V2: Clone + 'static, R: Clone + 'static>(
        &self,
        other: &KTable<K, V2>,
        joiner: impl Fn(&K, V, Option<V2>) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        self.join_tables(Kind::Left, other, move |key, left, right| {
            Some(joiner(key, left?, right))
        })
    }

    /// As [`join`](Self::join); a key has a result when either table has a value for it.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let table = |name| builder.table(
    /// #     name,
    /// #     Consumed::with(serdes::string(), serdes::i64()),
    /// #     Materialized::as_store(name, serdes::string(), serdes::i64()),
    /// # );
    /// let (here, there) = (table("here"), table("there"));
    /// let stock = here.outer_join(&there, |_, here, there| here.unwrap_or(0) + there.unwrap_or(0));
    /// # stock.to_stream().to("out", Produced::with(serdes::string(), serdes::optional(serdes::i64())));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn outer_join<V2: Clone + 'static, R: Clone + 'static>(
        &self,
        other: &KTable<K, V2>,
        joiner: impl Fn(&K, Option<V>, Option<V2>) -> R + Send + Sync + 'static,
    ) -> KTable<K, R> {
        self.join_tables(Kind::Outer, other, move |key, left, right| {
            (left.is_some() || right.is_some()).then(|| joiner(key, left, right))
        })
    }

    fn join_tables<V2: Clone + 'static, R: Clone + 'static>(
        &self,
        kind: Kind,
        other: &KTable<K, V2>,
        join: impl Fn(&K, Option<V>, Option<V2>) -> Option<R> + Send + Sync + 'static,
    ) -> KTable<K, R> {
        // A foreign table is a mistake that `build` reports: its nodes mean nothing here.
        let foreign = self
            .updates
            .is_foreign(&other.updates.draft, "joined table");
        self.refuse_held_back(other);
        self.enable_sending_old_values();
        other.enable_sending_old_values();
        let join = Arc::new(join);
        let getter = self.getter.join(&other.getter, Arc::clone(&join));
        let mut parents = vec![self.updates.parts.node];
        let mut stores = self.getter.stores.clone();
        if !foreign {
            parents.push(other.updates.parts.node);
            stores.clone_from(&getter.stores);
        }
        let graph = &mut self.updates.draft.borrow_mut().graph;
        let name = graph.generate_name("KTABLE-JOIN-");
        let node = graph.add(GraphNode {
            name,
            named: false,
            kind: NodeKind::Operator { processor: false },
            parents,
            stores,
        });
        let children = Children::<K, Change<R>>::new();
        let old_values = OldValues::default();
        let (downstream, lookup) = (children.clone(), other.getter.clone());
        let (joiner, sends) = (Arc::clone(&join), old_values.clone());
        self.updates.parts.children.add(node, move |assembly| {
            let joiner = Arc::clone(&joiner);
            Ok(Box::new(JoinNode {
                needs_other: kind.needs_other(true),
                lookup: lookup.lookup(assembly),
                join: move |key: &K, left, right| joiner(key, left, right),
                send_old: sends.sent(),
                downstream: assembly.shared(node, |assembly| downstream.assemble(assembly))?,
            }))
        });
        let (downstream, lookup) = (children.clone(), self.getter.clone());
        let sends = old_values.clone();
        other.updates.parts.children.add(node, move |assembly| {
            let joiner = Arc::clone(&join);
            Ok(Box::new(JoinNode {
                needs_other: kind.needs_other(false),
                lookup: lookup.lookup(assembly),
                join: move |key: &K, right, left| joiner(key, left, right),
                send_old: sends.sent(),
                downstream: assembly.shared(node, |assembly| downstream.assemble(assembly))?,
            }))
        });
        let keeps = Keeps {
            key_serde: self.key_serde.clone(),
            value_serde: None,
            repartition_required: false,
        };
        let mut lineage = self.updates.parts.lineage.clone();
        lineage.rewindable &= other.updates.parts.lineage.rewindable;
        KTable {
            updates: KStream::new_in(&self.updates, node, children, keeps, lineage),
            key_serde: self.key_serde.clone(),
            value_serde: None,
            old_values,
            store: None,
            getter,
            skips_unseen: false,
        }
    }
}
