//! Global tables: every process holds all partitions of the topic, so that any record can be joined
//! with any key.
//!
//! # Position
//! A global table is a part of the graph of its own: its source reads all partitions, its store has no
//! changelog but the topic. `runtime::global` runs that part once per process; tasks read the store
//! through [`GlobalStores`].
//! # Invariants
//! - Joins wait for nothing: a record meets what the process has read of the topic so far. Kafka Streams
//!   has it so, too.

use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::assembly::{Assembly, Children};
use super::builder::{SharedDraft, StoreKey, StreamsBuilder};
use super::config::{Consumed, Materialized, SharedSerde, StoreBuilder};
use super::nulls::Nulls;
use super::process::ProcessorSetup;
use super::stream::{KStream, Lineage};
use super::table::KTable;
use crate::format::value;
use crate::processor::{Downstream, Node, ProcessError, Processor, Record, TaskContext};
use crate::state::{GlobalStores, StateError, StoreRef};
use crate::topology::{GraphNode, NodeKind, TopicRef};

/// A table that every process holds whole: Kafka Streams' `GlobalKTable`.
///
/// Joined by any key that a record names ([`KStream::join_global_table`]), without co-partitioning and
/// without repartitioning. It costs each process the whole topic.
pub struct GlobalKTable<K, V> {
    draft: SharedDraft,
    store: String,
    key_serde: SharedSerde<K>,
    value_serde: SharedSerde<V>,
}

impl<K, V> GlobalKTable<K, V> {
    /// Returns the name of the store: Kafka Streams' `queryableStoreName`.
    #[must_use]
    pub fn store_name(&self) -> &str {
        &self.store
    }

    fn getter(&self) -> GlobalGetter<K, V> {
        GlobalGetter {
            store: self.store.clone(),
            key_serde: Arc::clone(&self.key_serde),
            value_serde: Arc::clone(&self.value_serde),
        }
    }
}

impl<K, V> Clone for GlobalKTable<K, V> {
    fn clone(&self) -> Self {
        Self {
            draft: Rc::clone(&self.draft),
            store: self.store.clone(),
            key_serde: Arc::clone(&self.key_serde),
            value_serde: Arc::clone(&self.value_serde),
        }
    }
}

impl<K, V> fmt::Debug for GlobalKTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalKTable")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl StreamsBuilder {
    /// Reads `topic` as a [`GlobalKTable`]: all its partitions, in every process, before any task
    /// begins.
    ///
    /// The topic is the store's changelog; there is no other, and a reset leaves both alone. It is read
    /// apart from the group: no offsets are committed for it. Its errors are those of the process: a
    /// record that cannot be read fails it or is skipped; there is no transaction that could dead-letter
    /// it.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// let rates = builder.global_table(
    ///     "exchange-rates",
    ///     Consumed::with(serdes::string(), serdes::i64()),
    ///     Materialized::as_store("rates", serdes::string(), serdes::i64()),
    /// );
    /// # let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// # orders
    /// #     .join_global_table(&rates, |_, _| Some("EUR".to_owned()), |_, amount, rate| amount * rate)
    /// #     .to("out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "an unused table still costs a store"]
    pub fn global_table<K, V>(
        &self,
        topic: &str,
        consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> GlobalKTable<K, V>
    where
        K: StoreKey,
        V: Clone + 'static,
    {
        let mut materialized = materialized;
        // The topic itself brings the entries back.
        materialized.changelog = None;
        materialized.reuses_source = false;
        let global = GlobalKTable {
            draft: Rc::clone(&self.draft),
            store: materialized.name.clone(),
            key_serde: Arc::clone(&materialized.key_serde),
            value_serde: Arc::clone(&materialized.value_serde),
        };
        {
            let mut draft = self.draft.borrow_mut();
            draft.graph.mention(topic);
            materialized.refuse_ttl(
                &mut draft,
                "a global table has what its topic has; leave `ttl` out, and delete from the topic",
            );
            materialized.refuse_versions(&mut draft);
        }
        let table = KTable::from_source(&self.draft, topic, consumed, materialized);
        drop(table);
        self.draft.borrow_mut().graph.make_global(topic);
        global
    }
}

impl StreamsBuilder {
    /// Reads `topic` through a [`Processor`] that maintains a global store: for what a
    /// [`global_table`](Self::global_table) does not keep as it is, such as other keys or a fold.
    ///
    /// Kafka Streams' `addGlobalStore`. The topic is the store's changelog, so that the processor runs
    /// over its records while the store is restored, as well as afterwards; the store must follow from
    /// the topic alone, each time the same. There is nothing downstream: the processor forwards
    /// [`Infallible`], which nobody can make. It cannot schedule punctuators, since no task fires them;
    /// one that does ends the process. What is returned is the store, to be joined with by its keys.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// /// Keeps the names of users by their e-mail address.
    /// struct ByAddress(StoreRef<String, String>);
    ///
    /// impl Processor<String, String, Infallible, Infallible> for ByAddress {
    ///     fn process(
    ///         &mut self,
    ///         _context: &mut ProcessorContext<'_, Infallible, Infallible>,
    ///         user: Record<String, String>,
    ///     ) -> Result<(), BoxError> {
    ///         Ok(self.0.put(user.value, user.key)?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let names = builder.add_global_store(
    ///     StoreBuilder::as_store("names", serdes::string(), serdes::string()),
    ///     "users",
    ///     Consumed::with(serdes::string(), serdes::string()),
    ///     "by-address",
    ///     |_setup, store| ByAddress(store),
    /// );
    /// builder
    ///     .stream("mails", Consumed::with(serdes::string(), serdes::string()))
    ///     .join_global_table(&names, |sender, _| Some(sender.clone()), |_, _, name| name)
    ///     .to("senders", Produced::with(serdes::string(), serdes::string()));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let users = driver.input_topic("users", serdes::string(), serdes::string());
    /// let mails = driver.input_topic("mails", serdes::string(), serdes::string());
    /// let senders = driver.output_topic("senders", serdes::string(), serdes::string());
    /// users.pipe(&mut driver, "Ada".to_owned(), "ada@example.org".to_owned())?;
    /// mails.pipe(&mut driver, "ada@example.org".to_owned(), "hello".to_owned())?;
    /// assert_eq!(senders.read_values(&mut driver)?, ["Ada"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_global_store<K, V, SK, SV, P>(
        &self,
        store: StoreBuilder<SK, SV>,
        topic: &str,
        consumed: Consumed<K, V>,
        name: &str,
        supplier: impl Fn(&ProcessorSetup, StoreRef<SK, SV>) -> P + Send + Sync + 'static,
    ) -> GlobalKTable<SK, SV>
    where
        K: Clone + 'static,
        V: Clone + 'static,
        SK: StoreKey,
        SV: Clone + 'static,
        P: Processor<K, V, Infallible, Infallible> + 'static,
    {
        let mut store = store;
        // The topic itself brings the entries back.
        store.changelog = None;
        store.reuses_source = false;
        let global = GlobalKTable {
            draft: Rc::clone(&self.draft),
            store: store.name.clone(),
            key_serde: Arc::clone(&store.key_serde),
            value_serde: Arc::clone(&store.value_serde),
        };
        let store = self.add_state_store(store);
        let lineage = Lineage {
            policies: consumed.policies.clone(),
            rewindable: consumed.rewindable,
            window_grace: None,
        };
        self.draft.borrow_mut().graph.mention(topic);
        let source = TopicRef::Declared(topic.to_owned());
        let records = KStream::from_source(&self.draft, source, consumed, lineage);
        let maintained = records.process(name, (&store,), move |setup, (store,)| {
            supplier(setup, store)
        });
        drop(maintained);
        self.draft.borrow_mut().graph.make_global(topic);
        global
    }
}

/// Finds the value of a key in a task.
struct GlobalLookup<K, V> {
    stores: GlobalStores,
    getter: GlobalGetter<K, V>,
    key_bytes: Vec<u8>,
}

struct GlobalGetter<K, V> {
    store: String,
    key_serde: SharedSerde<K>,
    value_serde: SharedSerde<V>,
}

impl<K, V> GlobalGetter<K, V> {
    fn lookup(&self, assembly: &Assembly<'_>) -> GlobalLookup<K, V> {
        GlobalLookup {
            stores: assembly.env().globals.clone(),
            getter: Self {
                store: self.store.clone(),
                key_serde: Arc::clone(&self.key_serde),
                value_serde: Arc::clone(&self.value_serde),
            },
            key_bytes: Vec::new(),
        }
    }
}

impl<K: 'static, V: 'static> GlobalLookup<K, V> {
    fn get(&mut self, key: &K) -> Result<Option<V>, StateError> {
        let GlobalGetter {
            store,
            key_serde,
            value_serde,
        } = &self.getter;
        self.key_bytes.clear();
        let present = key_serde
            .serialize(key, &mut self.key_bytes)
            .map_err(|source| StateError::Encode {
                store: store.clone(),
                source,
            })?;
        if !present {
            return Ok(None);
        }
        let Some(stored) = self.stores.get(store, &self.key_bytes)? else {
            return Ok(None);
        };
        let undecodable = |source| StateError::Decode {
            store: store.clone(),
            source,
        };
        let (_, plain) = value::decode(&stored)
            .ok_or_else(|| undecodable("the entry is too short to hold a timestamp".into()))?;
        let found = value_serde.deserialize(Some(plain));
        found.map(Some).map_err(undecodable)
    }
}

/// `S` names the table's key, `F` returns the result.
struct GlobalJoinNode<S, F, K, V, GK, GV, R> {
    select: Arc<S>,
    join: Arc<F>,
    lookup: GlobalLookup<GK, GV>,
    left: bool,
    nulls: Nulls<K, V>,
    downstream: Downstream<K, R>,
}

impl<S, F, K, V, GK, GV, R> Node<K, V> for GlobalJoinNode<S, F, K, V, GK, GV, R>
where
    K: Clone + 'static,
    V: 'static,
    GK: 'static,
    GV: 'static,
    R: Clone,
    S: Fn(&K, &V) -> Option<GK>,
    F: Fn(&K, V, Option<GV>) -> Option<R>,
{
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        if self.nulls.is_value(&value) {
            cx.drop_record();
            return Ok(());
        }
        let found = match (self.select)(&key, &value) {
            Some(selected) => self.lookup.get(&selected)?,
            None if self.left => None,
            None => {
                cx.drop_record();
                return Ok(());
            }
        };
        let Some(value) = (self.join)(&key, value, found) else {
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

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Joins every record with the global table's value of the key that `selector` names. A record
    /// without a value there has no result; one for which the selector names no key is dropped.
    ///
    /// The key stays, and with it the partitioning.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.global_table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// // By order number; the value is the buyer.
    /// let orders = builder.stream("orders", Consumed::with(serdes::i64(), serdes::string()));
    /// let named = orders.join_global_table(
    ///     &users,
    ///     |_number, buyer| Some(buyer.clone()),
    ///     |number, _buyer, name| format!("{number} for {name}"),
    /// );
    /// # named.to("out", Produced::with(serdes::i64(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn join_global_table<GK: StoreKey, GV: Clone + 'static, R: Clone + 'static>(
        &self,
        table: &GlobalKTable<GK, GV>,
        selector: impl Fn(&K, &V) -> Option<GK> + Send + Sync + 'static,
        joiner: impl Fn(&K, V, GV) -> R + Send + Sync + 'static,
    ) -> KStream<K, R> {
        self.join_with_global(table, false, selector, move |key, value, found| {
            Some(joiner(key, value, found?))
        })
    }

    /// As [`join_global_table`](Self::join_global_table); a record whose key has no value in the table,
    /// or for which the selector names no key, is joined with `None`.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.global_table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// # let orders = builder.stream("orders", Consumed::with(serdes::i64(), serdes::string()));
    /// let named = orders.left_join_global_table(
    ///     &users,
    ///     |_number, buyer| Some(buyer.clone()),
    ///     |number, buyer, name| format!("{number} for {}", name.unwrap_or(buyer)),
    /// );
    /// # named.to("out", Produced::with(serdes::i64(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn left_join_global_table<GK: StoreKey, GV: Clone + 'static, R: Clone + 'static>(
        &self,
        table: &GlobalKTable<GK, GV>,
        selector: impl Fn(&K, &V) -> Option<GK> + Send + Sync + 'static,
        joiner: impl Fn(&K, V, Option<GV>) -> R + Send + Sync + 'static,
    ) -> KStream<K, R> {
        self.join_with_global(table, true, selector, move |key, value, found| {
            Some(joiner(key, value, found))
        })
    }

    fn join_with_global<GK: StoreKey, GV: Clone + 'static, R: Clone + 'static>(
        &self,
        table: &GlobalKTable<GK, GV>,
        left: bool,
        selector: impl Fn(&K, &V) -> Option<GK> + Send + Sync + 'static,
        join: impl Fn(&K, V, Option<GV>) -> Option<R> + Send + Sync + 'static,
    ) -> KStream<K, R> {
        self.is_foreign(&table.draft, "joined global table");
        let graph = &mut self.draft.borrow_mut().graph;
        let name = graph.generate_name(if left {
            "KSTREAM-LEFTJOIN-"
        } else {
            "KSTREAM-JOIN-"
        });
        let node = graph.add(GraphNode {
            name,
            named: false,
            kind: NodeKind::Operator { processor: false },
            parents: vec![self.parts.node],
            // The store is another part's: this one only reads what that has committed.
            stores: Vec::new(),
        });
        let nulls = Nulls::new(None, self.parts.value_serde.clone());
        let children = Children::new();
        let (downstream, getter) = (children.clone(), table.getter());
        let (select, join) = (Arc::new(selector), Arc::new(join));
        self.parts.children.add(node, move |assembly| {
            Ok(Box::new(GlobalJoinNode {
                select: Arc::clone(&select),
                join: Arc::clone(&join),
                lookup: getter.lookup(assembly),
                left,
                nulls: nulls.clone(),
                downstream: downstream.assemble(assembly)?,
            }))
        });
        let lineage = self.parts.lineage.clone();
        KStream::new_in(self, node, children, self.keeps_key(), lineage)
    }
}
