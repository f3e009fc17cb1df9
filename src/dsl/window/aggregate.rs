//! `count`, `reduce` and `aggregate` of windowed streams.

use std::sync::Arc;

use super::draw::{Drawing, Drawn, Input};
use super::session::Merge;
use super::{Fold, Kind, SessionWindowedKStream, TimeWindowedKStream, session, sliding, time};
use crate::dsl::builder::StoreKey;
use crate::dsl::config::Materialized;
use crate::dsl::table::KTable;
use crate::processor::BoxError;
use crate::state::WindowStore;
use crate::window::Windowed;

fn counted<K, V>(_: &K, _: V, count: Option<i64>) -> Result<Option<i64>, BoxError> {
    let next = count.unwrap_or(0).checked_add(1);
    next.map(Some)
        .ok_or_else(|| BoxError::from("the count overflows"))
}

impl<K: StoreKey, V: Clone + 'static> TimeWindowedKStream<K, V> {
    /// Counts the records of each key and window.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// # let by_key = words.group_by_key(Grouped::as_name("by-key"));
    /// let counts = by_key
    ///     .windowed_by(SlidingWindows::of_time_difference_and_grace(
    ///         Duration::from_secs(60),
    ///         Duration::from_secs(5),
    ///     ))
    ///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()));
    /// # drop(counts);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn count(&self, materialized: Materialized<K, i64>) -> KTable<Windowed<K>, i64> {
        self.fold("KSTREAM-AGGREGATE-", materialized, counted)
    }

    /// Combines the values of each key and window; the first one is the start.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// # let by_key = words.group_by_key(Grouped::as_name("by-key"));
    /// let longest = by_key
    ///     .windowed_by(
    ///         TimeWindows::of_size_and_grace(Duration::from_secs(60), Duration::from_secs(5))
    ///             .advance_by(Duration::from_secs(10)),
    ///     )
    ///     .reduce(
    ///         |longest, word| if word.len() > longest.len() { word } else { longest },
    ///         Materialized::as_store("longest", serdes::string(), serdes::string()),
    ///     );
    /// # drop(longest);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn reduce(
        &self,
        reducer: impl Fn(V, V) -> V + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<Windowed<K>, V> {
        self.try_reduce(
            move |one, other| Ok(Some(reducer(one, other))),
            materialized,
        )
    }

    /// As [`reduce`](Self::reduce); an error meets the source's policy, and `None` deletes the
    /// aggregate.
    pub fn try_reduce(
        &self,
        reducer: impl Fn(V, V) -> Result<Option<V>, BoxError> + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<Windowed<K>, V> {
        self.fold(
            "KSTREAM-REDUCE-",
            materialized,
            move |_: &K, value, aggregate: Option<V>| match aggregate {
                Some(aggregate) => reducer(aggregate, value),
                None => Ok(Some(value)),
            },
        )
    }

    /// Folds the records of each key and window into an aggregate that starts as `initializer` says.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// # let by_key = words.group_by_key(Grouped::as_name("by-key"));
    /// let lengths = by_key
    ///     .windowed_by(TimeWindows::of_size_with_no_grace(Duration::from_secs(60)))
    ///     .emit_strategy(EmitStrategy::on_window_close())
    ///     .aggregate(
    ///         || 0,
    ///         |_, word, total| total + word.len() as i64,
    ///         Materialized::as_store("lengths", serdes::string(), serdes::i64()),
    ///     );
    /// # drop(lengths);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn aggregate<A: Clone + 'static>(
        &self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> A + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        self.try_aggregate(
            initializer,
            move |key, value, aggregate| Ok(Some(aggregator(key, value, aggregate))),
            materialized,
        )
    }

    /// As [`aggregate`](Self::aggregate); an error meets the source's policy, and `None` deletes the
    /// aggregate.
    pub fn try_aggregate<A: Clone + 'static>(
        &self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> Result<Option<A>, BoxError> + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        self.fold(
            "KSTREAM-AGGREGATE-",
            materialized,
            move |key: &K, value, aggregate: Option<A>| {
                aggregator(key, value, aggregate.unwrap_or_else(&initializer))
            },
        )
    }

    fn fold<A: Clone + 'static>(
        &self,
        prefix: &str,
        materialized: Materialized<K, A>,
        fold: impl Fold<K, V, A>,
    ) -> KTable<Windowed<K>, A> {
        let stream = self.grouped.partitioned();
        let drawing = Drawing::of(&stream, self.emit, prefix);
        let drawn = self.windows.draw(drawing, materialized);
        let input = Input::of(&stream, self.late.as_ref());
        self.windows.attach(&drawn, &input, fold);
        drawn.stateful.table
    }
}

impl Kind {
    pub(super) fn draw<K: StoreKey, A: Clone + 'static>(
        self,
        drawing: Drawing<'_>,
        materialized: Materialized<K, A>,
    ) -> Drawn<K, A, WindowStore<K, A>> {
        match self {
            Self::Fixed(windows) => time::draw(drawing, windows, materialized),
            Self::Sliding(windows) => sliding::draw(drawing, windows, materialized),
        }
    }

    pub(in crate::dsl) fn attach<K: StoreKey, V: Clone + 'static, A: Clone + 'static>(
        self,
        drawn: &Drawn<K, A, WindowStore<K, A>>,
        input: &Input<'_, K, V>,
        fold: impl Fold<K, V, A>,
    ) {
        match self {
            Self::Fixed(windows) => time::attach(drawn, input, windows, fold),
            Self::Sliding(windows) => sliding::attach(drawn, input, windows, fold),
        }
    }
}

impl<K: StoreKey, V: Clone + 'static> SessionWindowedKStream<K, V> {
    /// Counts the records of each session.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let clicks = builder.stream("clicks", Consumed::with(serdes::string(), serdes::string()));
    /// # let by_user = clicks.group_by_key(Grouped::as_name("by-user"));
    /// let counts = by_user
    ///     .windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(Duration::from_secs(300)))
    ///     .count(Materialized::as_store("clicks-per-session", serdes::string(), serdes::i64()));
    /// # drop(counts);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn count(&self, materialized: Materialized<K, i64>) -> KTable<Windowed<K>, i64> {
        self.fold(
            "KSTREAM-AGGREGATE-",
            materialized,
            counted,
            |_: &K, one: Option<i64>, other: i64| match one {
                None => Ok(other),
                Some(one) => one
                    .checked_add(other)
                    .ok_or_else(|| BoxError::from("the count overflows")),
            },
        )
    }

    /// Combines the values of each session, and sessions that a record joins.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let clicks = builder.stream("clicks", Consumed::with(serdes::string(), serdes::string()));
    /// # let by_user = clicks.group_by_key(Grouped::as_name("by-user"));
    /// let paths = by_user
    ///     .windowed_by(SessionWindows::of_inactivity_gap_and_grace(
    ///         Duration::from_secs(300),
    ///         Duration::from_secs(10),
    ///     ))
    ///     .reduce(
    ///         |path, page| format!("{path},{page}"),
    ///         Materialized::as_store("paths", serdes::string(), serdes::string()),
    ///     );
    /// # drop(paths);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn reduce(
        &self,
        reducer: impl Fn(V, V) -> V + Send + Sync + 'static,
        materialized: Materialized<K, V>,
    ) -> KTable<Windowed<K>, V> {
        let reducer = Arc::new(reducer);
        let merger = Arc::clone(&reducer);
        self.fold(
            "KSTREAM-REDUCE-",
            materialized,
            move |_: &K, value, aggregate: Option<V>| {
                Ok(Some(match aggregate {
                    Some(aggregate) => reducer(aggregate, value),
                    None => value,
                }))
            },
            move |_: &K, one: Option<V>, other: V| {
                Ok(match one {
                    Some(one) => merger(one, other),
                    None => other,
                })
            },
        )
    }

    /// Folds the records of each session into an aggregate; `merger` makes one of two when a record
    /// joins their sessions.
    ///
    /// As in Kafka Streams each record starts from a fresh aggregate, into which the sessions it joins
    /// are merged before it is added: `merger` must take the initial value as if it were not there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let clicks = builder.stream("clicks", Consumed::with(serdes::string(), serdes::string()));
    /// # let by_user = clicks.group_by_key(Grouped::as_name("by-user"));
    /// let lengths = by_user
    ///     .windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(Duration::from_secs(300)))
    ///     .aggregate(
    ///         || 0,
    ///         |_, page, total| total + page.len() as i64,
    ///         |_, one, other| one + other,
    ///         Materialized::as_store("lengths", serdes::string(), serdes::i64()),
    ///     );
    /// # drop(lengths);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn aggregate<A: Clone + 'static>(
        &self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        aggregator: impl Fn(&K, V, A) -> A + Send + Sync + 'static,
        merger: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let initializer = Arc::new(initializer);
        let initial = Arc::clone(&initializer);
        self.fold(
            "KSTREAM-AGGREGATE-",
            materialized,
            move |key: &K, value, aggregate: Option<A>| {
                let aggregate = aggregate.unwrap_or_else(|| initializer());
                Ok(Some(aggregator(key, value, aggregate)))
            },
            move |key: &K, one: Option<A>, other| {
                Ok(merger(key, one.unwrap_or_else(|| initial()), other))
            },
        )
    }

    fn fold<A: Clone + 'static>(
        &self,
        prefix: &str,
        materialized: Materialized<K, A>,
        fold: impl Fold<K, V, A>,
        merge: impl Merge<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let stream = self.grouped.partitioned();
        let drawing = Drawing::of(&stream, self.emit, prefix);
        let drawn = session::draw(drawing, self.windows, materialized);
        let input = Input::of(&stream, self.late.as_ref());
        session::attach(&drawn, &input, self.windows, fold, merge);
        drawn.stateful.table
    }
}
