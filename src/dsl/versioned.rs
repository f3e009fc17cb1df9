//! Versioned tables and stores (KIP-889, KIP-914).
//!
//! # Invariants
//! - An out-of-order update becomes part of a table's past. It goes downstream, where joins of tables
//!   and groupings leave it alone, since what they keep is the latest of each key;
//!   [`TaskContext::is_latest`] tells it apart. A stream made of the table has it.
//! - Versions pass through `filter` and `map_values`; a table that keeps what they make in a store that
//!   is not versioned, or that joins or aggregates, is not versioned.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::assembly::{Assembly, Children, StoreFactory, StoreInstance};
use super::builder::{Draft, SharedDraft, StoreKey, StreamsBuilder};
use super::config::{Materialized, StoreBuilder};
use super::getter::Getter;
use super::nulls::Nulls;
use super::process::sealed;
use super::stream::Lineage;
use super::table::{Change, KTable};
use super::table_store::{Place, Stateful};
use crate::processor::{Downstream, Node, ProcessError, Record, TaskContext};
use crate::state::{Layout, VersionedPut, VersionedStore};
use crate::topology::{NodeId, StoreId, StoreSpec, TopologyError};
use crate::window::millis;

impl<K, V> Materialized<K, V> {
    /// Keeps versions of the values: for `history` of stream time it is known what a key's value was.
    /// Kafka Streams' `Materialized.as(persistentVersionedKeyValueStore(name, historyRetention))`.
    ///
    /// For tables of a topic or a stream ([`table`](StreamsBuilder::table),
    /// [`to_table`](super::KStream::to_table), [`materialized`](KTable::materialized)): an update that comes
    /// late no longer overwrites a newer value, and a stream that is joined with the table meets the
    /// value of its record's time. Updates older than `history` are dropped and counted.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// let rates = builder.table(
    ///     "rates",
    ///     Consumed::with(serdes::string(), serdes::i64()),
    ///     Materialized::as_store("rates", serdes::string(), serdes::i64())
    ///         .versioned(Duration::from_secs(3600)),
    /// );
    /// builder
    ///     .stream("orders", Consumed::with(serdes::string(), serdes::i64()))
    ///     .join_table(&rates, |_, amount, rate| amount * rate, Joined::as_name("in-euro"))
    ///     .to("in-euro", Produced::with(serdes::string(), serdes::i64()));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let rates = driver.input_topic("rates", serdes::string(), serdes::i64());
    /// let orders = driver.input_topic("orders", serdes::string(), serdes::i64());
    /// let in_euro = driver.output_topic("in-euro", serdes::string(), serdes::i64());
    /// rates.pipe_record(&mut driver, &Record::new("usd".to_owned(), 2, 1_000))?;
    /// rates.pipe_record(&mut driver, &Record::new("usd".to_owned(), 3, 5_000))?;
    /// // The order is late: it is worth what it was then.
    /// orders.pipe_record(&mut driver, &Record::new("usd".to_owned(), 10, 4_000))?;
    /// assert_eq!(in_euro.read_values(&mut driver)?, [20]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn versioned(mut self, history: Duration) -> Self {
        self.history = Some(history);
        self
    }
}

impl Draft {
    /// Adds a versioned store and how it is made.
    pub(crate) fn add_versioned_store<K: StoreKey, V: Clone + 'static>(
        &mut self,
        store: Materialized<K, V>,
        history: i64,
    ) -> StoreId {
        store.refuse_ttl(
            self,
            "versions live as long as the store's history; leave `ttl` out",
        );
        store.refuse_headers(self);
        store.refuse_source_changelog(self, "a topic that is compacted has no versions");
        let Materialized {
            name,
            key_serde,
            value_serde,
            ..
        } = store;
        let id = self.graph.add_store(StoreSpec {
            name: name.clone(),
            persistence: store.persistence,
            durability: store.durability,
            changelog: store.changelog,
            keeps_headers: false,
            source_changelog: None,
            key_codec: store.key_codec,
            value_codec: store.value_codec,
            layout: Layout::Versioned(history),
        });
        let factory: StoreFactory = Box::new(move |env, cache_bytes| {
            let backend = env.backends.remove(&name).unwrap_or_else(|| {
                unreachable!("the runtime opens every store of `SubTopology::stores`")
            });
            let typed = VersionedStore::new(
                name.clone(),
                backend,
                Arc::clone(&key_serde),
                Arc::clone(&value_serde),
                Rc::clone(&env.timestamp),
                cache_bytes,
                history,
            )?;
            Ok(StoreInstance {
                store: typed.state_store(),
                typed: Box::new(typed),
            })
        });
        self.stores.insert(id, factory);
        id
    }
}

/// Keeps the versions of each key.
struct VersionedTableNode<K: StoreKey, V> {
    store: VersionedStore<K, V>,
    nulls: Nulls<K, V>,
    send_old: bool,
    /// Whether an update from nothing to nothing goes no further, as it is with filters.
    skips_unseen: bool,
    downstream: Downstream<K, Change<V>>,
}

impl<K, V, T> Node<K, T> for VersionedTableNode<K, V>
where
    K: StoreKey,
    V: Clone + 'static,
    T: NewValue<V>,
{
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
        let old = if self.send_old || self.skips_unseen {
            self.store.get(&key)?.map(|latest| latest.value)
        } else {
            None
        };
        let new = value.new_value();
        if self.skips_unseen && new.is_none() && old.is_none() {
            return Ok(());
        }
        let put = self
            .store
            .put_or_delete(key.clone(), new.clone(), timestamp)?;
        if put == VersionedPut::Expired {
            cx.drop_record();
            return Ok(());
        }
        let record = Record {
            key,
            value: Change { new, old },
            timestamp,
            headers,
        };
        let before = cx.set_latest(put == VersionedPut::Latest);
        let result = self.downstream.process(cx, record);
        cx.set_latest(before);
        result
    }
}

/// The value that a record gives a key of a table.
pub(crate) trait NewValue<V>: 'static {
    fn new_value(self) -> Option<V>;
}

impl<V: 'static> NewValue<V> for Change<V> {
    fn new_value(self) -> Option<V> {
        self.new
    }
}

/// A record of a stream that is read as a table.
pub(crate) struct Latest<T>(pub(crate) T);

impl<V, T: Into<Option<V>> + 'static> NewValue<V> for Latest<T> {
    fn new_value(self) -> Option<V> {
        self.0.into()
    }
}

/// Wraps the records of a stream for a [`VersionedTableNode`].
struct LatestNode<N>(N);

impl<K, T, N: Node<K, Latest<T>>> Node<K, T> for LatestNode<N> {
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, T>) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        let value = Latest(value);
        self.0.process(
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

/// A versioned table that lacks its instance.
pub(crate) struct VersionedTable<K, V> {
    drawn: Stateful<K, V>,
    skips_unseen: bool,
}

impl<K: StoreKey, V: Clone + 'static> VersionedTable<K, V> {
    /// Draws the node and its store.
    pub(crate) fn draw(
        draft: &SharedDraft,
        prefix: &str,
        parents: Vec<NodeId>,
        mut materialized: Materialized<K, V>,
        history: Duration,
        lineage: &Lineage,
    ) -> Self {
        materialized.history = None;
        let place = Place {
            draft,
            prefix,
            parents,
            lineage: lineage.clone(),
            key_serde: Arc::clone(&materialized.key_serde),
            value_serde: Arc::clone(&materialized.value_serde),
        };
        let add_store =
            |draft: &mut Draft| draft.add_versioned_store(materialized, millis(history));
        Self {
            drawn: Stateful::draw(place, add_store, Getter::of_versioned_store),
            skips_unseen: false,
        }
    }

    /// Attaches it below the records of a stream.
    pub(crate) fn attach_latest<T: Into<Option<V>> + 'static>(
        self,
        parent: &Children<K, T>,
    ) -> KTable<K, V> {
        let make = self.instance();
        parent.add(self.drawn.node, move |assembly| {
            Ok(Box::new(LatestNode(make(assembly)?)))
        });
        self.drawn.table
    }

    /// Attaches it below another table.
    pub(crate) fn attach_updates(
        mut self,
        parent: &Children<K, Change<V>>,
        skips_unseen: bool,
    ) -> KTable<K, V> {
        self.skips_unseen = skips_unseen;
        self.drawn.table.skips_unseen = skips_unseen;
        let make = self.instance();
        parent.add(self.drawn.node, move |assembly| {
            Ok(Box::new(make(assembly)?))
        });
        self.drawn.table
    }

    fn instance(
        &self,
    ) -> impl Fn(&mut Assembly<'_>) -> Result<VersionedTableNode<K, V>, crate::state::StateError>
    + Send
    + Sync
    + use<K, V> {
        let Stateful {
            store,
            table,
            children,
            old_values,
            ..
        } = &self.drawn;
        let (store, children, old_values) = (*store, children.clone(), old_values.clone());
        let nulls = Nulls::new(table.key_serde.clone(), None);
        let skips_unseen = self.skips_unseen;
        move |assembly| {
            Ok(VersionedTableNode {
                store: assembly.store(store),
                nulls: nulls.clone(),
                send_old: old_values.sent(),
                skips_unseen,
                downstream: children.assemble(assembly)?,
            })
        }
    }
}

impl<K: StoreKey, V: Clone + 'static> KTable<K, V> {
    /// Notes that updates of a versioned table were to be held back, where one that is out of order would
    /// take the place of a later one. Kafka Streams refuses to suppress them, too.
    pub(crate) fn refuse_to_hold_back(&self, operator: &str) {
        if self.is_versioned() {
            let mut draft = self.updates().draft.borrow_mut();
            draft.graph.mistakes.push(TopologyError::IllegalStore {
                store: operator.to_owned(),
                reason: "updates of a versioned table may be out of order and cannot be held back; \
                         take a table that is not versioned",
            });
        }
    }
}

impl<K, V> Materialized<K, V> {
    /// Notes that entries of this store were asked to expire where they cannot.
    pub(crate) fn refuse_ttl(&self, draft: &mut Draft, reason: &'static str) {
        if self.ttl.is_some() {
            draft.graph.mistakes.push(TopologyError::IllegalStore {
                store: self.name.clone(),
                reason,
            });
        }
    }

    /// Notes that this store was asked to keep headers where it cannot.
    pub(super) fn refuse_headers(&self, draft: &mut Draft) {
        if self.keeps_headers {
            draft.graph.mistakes.push(TopologyError::IllegalStore {
                store: self.name.clone(),
                reason: "versioned and custom stores keep no headers; use `as_store`",
            });
        }
    }

    /// Notes that this store was asked for versions where there can be none.
    pub(crate) fn refuse_versions(&self, draft: &mut Draft) {
        if self.history.is_some() {
            draft.graph.mistakes.push(TopologyError::IllegalStore {
                store: self.name.clone(),
                reason: "only a table of a topic or stream (not a global one), or one kept with \
                         `materialized`, can be versioned; leave `versioned` out",
            });
        }
    }
}

impl StreamsBuilder {
    /// Adds a versioned store for [`process`](super::KStream::process) to connect, that keeps `history` of
    /// stream time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    ///
    /// struct Changed(VersionedStore<String, i64>);
    ///
    /// impl Processor<String, i64, String, i64> for Changed {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, i64>,
    ///         record: Record<String, i64>,
    ///     ) -> Result<(), BoxError> {
    ///         let Record { key, value, timestamp, .. } = &record;
    ///         let day = 86_400_000;
    ///         let yesterday = self.0.get_as_of(key, timestamp - day)?;
    ///         self.0.put(key.clone(), *value, *timestamp)?;
    ///         let change = value - yesterday.map_or(0, |version| version.value);
    ///         Ok(context.forward(record.with_value(change))?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let prices = builder.add_versioned_store(
    ///     StoreBuilder::as_store("prices", serdes::string(), serdes::i64()),
    ///     Duration::from_secs(2 * 86_400),
    /// );
    /// builder
    ///     .stream("prices", Consumed::with(serdes::string(), serdes::i64()))
    ///     .process("changed", (&prices,), |_setup, (prices,)| Changed(prices))
    ///     .to("changes", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "a store that no processor is connected to is a mistake"]
    pub fn add_versioned_store<K: StoreKey, V: Clone + 'static>(
        &self,
        store: StoreBuilder<K, V>,
        history: Duration,
    ) -> VersionedStoreHandle<K, V> {
        let name = store.name.clone();
        let id = self
            .draft
            .borrow_mut()
            .add_versioned_store(store, millis(history));
        VersionedStoreHandle {
            draft: Rc::clone(&self.draft),
            id,
            name,
            types: PhantomData,
        }
    }
}

/// A versioned store of a topology that is being drawn, typed.
pub struct VersionedStoreHandle<K, V> {
    draft: SharedDraft,
    id: StoreId,
    name: String,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> VersionedStoreHandle<K, V> {
    /// Returns the store's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<K, V> fmt::Debug for VersionedStoreHandle<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VersionedStoreHandle")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<K: StoreKey, V: Clone + 'static> sealed::Store for VersionedStoreHandle<K, V> {
    type Ref = VersionedStore<K, V>;

    fn parts(&self) -> (&SharedDraft, StoreId, &str) {
        (&self.draft, self.id, &self.name)
    }

    fn resolve(assembly: &Assembly<'_>, id: StoreId) -> Self::Ref {
        assembly.store(id)
    }
}
