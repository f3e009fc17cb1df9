//! Several grouped streams in one aggregate (KIP-150).

use std::fmt;
use std::sync::Arc;

use super::builder::{SharedDraft, StoreKey};
use super::config::Materialized;
use super::group::KGroupedStream;
use super::stream::Lineage;
use super::table::KTable;
use super::table_store::Stateful;
use crate::processor::BoxError;
use crate::topology::NodeId;

type Initializer<A> = Arc<dyn Fn() -> A + Send + Sync>;

/// Attaches one of the streams to the store, once that is known.
type Attach<K, A> = Box<dyn FnOnce(&Stateful<K, A>, &Initializer<A>)>;

impl<K: StoreKey, V: Clone + 'static> KGroupedStream<K, V> {
    /// Starts an aggregate that several grouped streams make together, each with an aggregator of its
    /// own (KIP-150): one store and one repartition per stream, instead of tables that are joined.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let text = || Consumed::with(serdes::string(), serdes::i64());
    /// let bought = builder.stream("bought", text()).group_by_key(Grouped::as_name("bought"));
    /// let sold = builder.stream("sold", text()).group_by_key(Grouped::as_name("sold"));
    /// let stock = bought
    ///     .cogroup(|_, amount, stock| stock + amount)
    ///     .cogroup(&sold, |_, amount, stock| stock - amount)
    ///     .aggregate(|| 0, Materialized::as_store("stock", serdes::string(), serdes::i64()));
    /// # drop(stock);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "call `aggregate` to get the table"]
    pub fn cogroup<A: Clone + 'static>(
        &self,
        aggregator: impl Fn(&K, V, A) -> A + Send + Sync + 'static,
    ) -> CogroupedKStream<K, A> {
        self.try_cogroup(move |key, value, aggregate| Ok(Some(aggregator(key, value, aggregate))))
    }

    /// As [`cogroup`](Self::cogroup); an error meets the source's policy, and `None` deletes the
    /// aggregate.
    #[must_use = "call `aggregate` to get the table"]
    pub fn try_cogroup<A: Clone + 'static>(
        &self,
        aggregator: impl Fn(&K, V, A) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
    ) -> CogroupedKStream<K, A> {
        let start = CogroupedKStream {
            draft: SharedDraft::clone(&self.stream.draft),
            lineage: self.stream.parts.lineage.clone(),
            parents: Vec::new(),
            attach: Vec::new(),
        };
        start.try_cogroup(self, aggregator)
    }
}

/// Grouped streams that are to be aggregated together.
pub struct CogroupedKStream<K, A> {
    draft: SharedDraft,
    lineage: Lineage,
    parents: Vec<NodeId>,
    attach: Vec<Attach<K, A>>,
}

impl<K, A> fmt::Debug for CogroupedKStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CogroupedKStream")
            .field("parents", &self.parents)
            .finish_non_exhaustive()
    }
}

impl<K: StoreKey, A: Clone + 'static> CogroupedKStream<K, A> {
    /// Adds a stream with its aggregator.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let numbers = || Consumed::with(serdes::string(), serdes::i64());
    /// # let bought = builder.stream("bought", numbers()).group_by_key(Grouped::as_name("bought"));
    /// # let sold = builder.stream("sold", numbers()).group_by_key(Grouped::as_name("sold"));
    /// let trades = bought
    ///     .cogroup(|_, _, (bought, sold)| (bought + 1, sold))
    ///     .cogroup(&sold, |_, _, (bought, sold)| (bought, sold + 1));
    /// # let json = serdes::json::<(i64, i64)>();
    /// # drop(trades.aggregate(|| (0, 0), Materialized::as_store("trades", serdes::string(), json)));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "call `aggregate` to get the table"]
    pub fn cogroup<V: Clone + 'static>(
        self,
        grouped: &KGroupedStream<K, V>,
        aggregator: impl Fn(&K, V, A) -> A + Send + Sync + 'static,
    ) -> Self {
        self.try_cogroup(grouped, move |key, value, aggregate| {
            Ok(Some(aggregator(key, value, aggregate)))
        })
    }

    /// As [`cogroup`](Self::cogroup); an error meets the source's policy, and `None` deletes the
    /// aggregate.
    #[must_use = "call `aggregate` to get the table"]
    pub fn try_cogroup<V: Clone + 'static>(
        mut self,
        grouped: &KGroupedStream<K, V>,
        aggregator: impl Fn(&K, V, A) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let stream = grouped.partitioned();
        if stream.is_foreign(&self.draft, "cogrouped stream") {
            return self;
        }
        self.parents.push(stream.parts.node);
        self.lineage.rewindable &= stream.parts.lineage.rewindable;
        let grouped = grouped.clone();
        let aggregator = Arc::new(aggregator);
        self.attach.push(Box::new(move |target, initializer| {
            let initializer = Arc::clone(initializer);
            let fold = move |key: &K, value: V, aggregate: Option<A>| {
                aggregator(key, value, aggregate.unwrap_or_else(|| initializer()))
            };
            grouped.fold_into(target, Arc::new(fold));
        }));
        self
    }

    /// Makes the table: an aggregate starts as `initializer` says, and every record of any of the
    /// streams updates it.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let numbers = || Consumed::with(serdes::string(), serdes::i64());
    /// # let bought = builder.stream("bought", numbers()).group_by_key(Grouped::as_name("bought"));
    /// # let sold = builder.stream("sold", numbers()).group_by_key(Grouped::as_name("sold"));
    /// let stock = bought
    ///     .cogroup(|_, amount, stock| stock + amount)
    ///     .cogroup(&sold, |_, amount, stock| stock - amount)
    ///     .aggregate(|| 0, Materialized::as_store("stock", serdes::string(), serdes::i64()));
    /// # drop(stock);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn aggregate(
        self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<K, A> {
        let target = KTable::materialize(
            &self.draft,
            "COGROUPKSTREAM-AGGREGATE-",
            self.parents,
            materialized,
            &self.lineage,
        );
        let initializer: Initializer<A> = Arc::new(initializer);
        for attach in self.attach {
            attach(&target, &initializer);
        }
        target.table
    }
}
