//! Several grouped streams in one aggregate (KIP-150).

use std::fmt;
use std::sync::Arc;

use super::builder::{SharedDraft, StoreKey};
use super::config::Materialized;
use super::group::KGroupedStream;
use super::stream::Lineage;
use super::table::KTable;
use super::table_store::Stateful;
use super::window::{self, Drawn, Input};
use crate::processor::BoxError;
use crate::state::{SessionStore, WindowStore};
use crate::topology::NodeId;
use crate::window::SessionWindows;

pub(super) type Initializer<A> = Arc<dyn Fn() -> A + Send + Sync>;

/// Makes one session of two that a record joins.
pub(super) type Merger<K, A> = Arc<dyn Fn(&K, A, A) -> A + Send + Sync>;

/// One of the streams, whose values and aggregator are its own.
pub(super) trait Cogrouped<K: StoreKey, A> {
    /// Attaches it to a store.
    fn attach(self: Box<Self>, target: &Stateful<K, A>, initializer: &Initializer<A>);

    /// Attaches it, as the `index`th stream, to a store of windows.
    fn attach_windows(
        self: Box<Self>,
        target: &Drawn<K, A, WindowStore<K, A>>,
        windows: window::Kind,
        index: usize,
        initializer: &Initializer<A>,
    );

    /// Attaches it, as the `index`th stream, to a store of sessions.
    fn attach_sessions(
        self: Box<Self>,
        target: &Drawn<K, A, SessionStore<K, A>>,
        windows: SessionWindows,
        index: usize,
        start: (&Initializer<A>, &Merger<K, A>),
    );
}

struct WithAggregator<K, V, F> {
    grouped: KGroupedStream<K, V>,
    aggregator: F,
}

/// Makes an aggregator one that starts by itself.
fn starting<K, V, A>(
    initializer: Initializer<A>,
    aggregator: impl Fn(&K, V, A) -> Result<Option<A>, BoxError> + Send + Sync,
) -> impl Fn(&K, V, Option<A>) -> Result<Option<A>, BoxError> + Send + Sync {
    move |key, value, aggregate| aggregator(key, value, aggregate.unwrap_or_else(|| initializer()))
}

impl<K, V, A, F> Cogrouped<K, A> for WithAggregator<K, V, F>
where
    K: StoreKey,
    V: Clone + 'static,
    A: Clone + 'static,
    F: Fn(&K, V, A) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
{
    fn attach(self: Box<Self>, target: &Stateful<K, A>, initializer: &Initializer<A>) {
        let fold = starting(Arc::clone(initializer), self.aggregator);
        self.grouped.fold_into(target, Arc::new(fold));
    }

    fn attach_windows(
        self: Box<Self>,
        target: &Drawn<K, A, WindowStore<K, A>>,
        windows: window::Kind,
        index: usize,
        initializer: &Initializer<A>,
    ) {
        let stream = self.grouped.partitioned();
        let input = Input::nth(&stream, index);
        let fold = starting(Arc::clone(initializer), self.aggregator);
        windows.attach(target, &input, fold);
    }

    fn attach_sessions(
        self: Box<Self>,
        target: &Drawn<K, A, SessionStore<K, A>>,
        windows: SessionWindows,
        index: usize,
        (initializer, merger): (&Initializer<A>, &Merger<K, A>),
    ) {
        let stream = self.grouped.partitioned();
        let input = Input::nth(&stream, index);
        let (initial, merger) = (Arc::clone(initializer), Arc::clone(merger));
        let merge = move |key: &K, one: Option<A>, other: A| {
            Ok(merger(key, one.unwrap_or_else(|| initial()), other))
        };
        let fold = starting(Arc::clone(initializer), self.aggregator);
        window::attach_sessions(target, &input, windows, fold, merge);
    }
}

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
            streams: Vec::new(),
        };
        start.try_cogroup(self, aggregator)
    }
}

/// Grouped streams that are to be aggregated together.
pub struct CogroupedKStream<K: StoreKey, A> {
    pub(super) draft: SharedDraft,
    pub(super) lineage: Lineage,
    pub(super) parents: Vec<NodeId>,
    pub(super) streams: Vec<Box<dyn Cogrouped<K, A>>>,
}

impl<K: StoreKey, A> fmt::Debug for CogroupedKStream<K, A> {
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
        self.streams.push(Box::new(WithAggregator {
            grouped,
            aggregator,
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
        for stream in self.streams {
            stream.attach(&target, &initializer);
        }
        target.table
    }
}
