//! Several grouped streams in one windowed aggregate: `cogroup(..)`, `windowed_by(..)`, `aggregate`
//! (KIP-150).
//!
//! As in Kafka Streams, results are sent with every update, and late records are counted.

use std::fmt;
use std::sync::Arc;

use super::draw::Drawing;
use super::{EmitStrategy, Kind, WindowedBy, session};
use crate::dsl::builder::StoreKey;
use crate::dsl::cogroup::{CogroupedKStream, Initializer, Merger};
use crate::dsl::config::Materialized;
use crate::dsl::table::KTable;
use crate::window::{SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows, Windowed};

const PREFIX: &str = "COGROUPKSTREAM-AGGREGATE-";

/// Cogrouped streams by time or sliding windows. Kafka Streams' `TimeWindowedCogroupedKStream`.
pub struct TimeWindowedCogroupedKStream<K: StoreKey, A> {
    cogrouped: CogroupedKStream<K, A>,
    windows: Kind,
}

/// Cogrouped streams by sessions. Kafka Streams' `SessionWindowedCogroupedKStream`.
pub struct SessionWindowedCogroupedKStream<K: StoreKey, A> {
    cogrouped: CogroupedKStream<K, A>,
    windows: SessionWindows,
}

impl<K: StoreKey, A> fmt::Debug for TimeWindowedCogroupedKStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeWindowedCogroupedKStream")
            .field("windows", &self.windows)
            .finish_non_exhaustive()
    }
}

impl<K: StoreKey, A> fmt::Debug for SessionWindowedCogroupedKStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionWindowedCogroupedKStream")
            .field("windows", &self.windows)
            .finish_non_exhaustive()
    }
}

macro_rules! by_time {
    ($windows:ty, $kind:expr) => {
        impl<K: StoreKey, A> WindowedBy<CogroupedKStream<K, A>> for $windows {
            type Stream = TimeWindowedCogroupedKStream<K, A>;

            fn apply(self, cogrouped: CogroupedKStream<K, A>) -> Self::Stream {
                let windows = $kind(self);
                TimeWindowedCogroupedKStream { cogrouped, windows }
            }
        }
    };
}

by_time!(TimeWindows, |windows: TimeWindows| Kind::Fixed(
    windows.into()
));
by_time!(UnlimitedWindows, |windows: UnlimitedWindows| Kind::Fixed(
    windows.into()
));
by_time!(SlidingWindows, Kind::Sliding);

impl<K: StoreKey, A> WindowedBy<CogroupedKStream<K, A>> for SessionWindows {
    type Stream = SessionWindowedCogroupedKStream<K, A>;

    fn apply(self, cogrouped: CogroupedKStream<K, A>) -> Self::Stream {
        let windows = self;
        SessionWindowedCogroupedKStream { cogrouped, windows }
    }
}

impl<K: StoreKey, A: Clone + 'static> CogroupedKStream<K, A> {
    /// Parts the records of each key by windows, for aggregation.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let numbers = || Consumed::with(serdes::string(), serdes::i64());
    /// # let bought = builder.stream("bought", numbers()).group_by_key(Grouped::as_name("bought"));
    /// # let sold = builder.stream("sold", numbers()).group_by_key(Grouped::as_name("sold"));
    /// let per_minute = bought
    ///     .cogroup(|_, amount, balance| balance + amount)
    ///     .cogroup(&sold, |_, amount, balance| balance - amount)
    ///     .windowed_by(TimeWindows::of_size_with_no_grace(Duration::from_secs(60)));
    /// # let store = Materialized::as_store("per-minute", serdes::string(), serdes::i64());
    /// # drop(per_minute.aggregate(|| 0, store));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "call `aggregate` to get the table"]
    pub fn windowed_by<W: WindowedBy<Self>>(self, windows: W) -> W::Stream {
        windows.apply(self)
    }

    fn drawing(&mut self) -> Drawing<'_> {
        Drawing {
            draft: &self.draft,
            prefix: PREFIX,
            parents: std::mem::take(&mut self.parents),
            lineage: self.lineage.clone(),
            emit: EmitStrategy::on_window_update(),
        }
    }
}

impl<K: StoreKey, A: Clone + 'static> TimeWindowedCogroupedKStream<K, A> {
    /// Makes the table: the aggregate of a key and window starts as `initializer` says, and every
    /// record of any of the streams updates it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let numbers = || Consumed::with(serdes::string(), serdes::i64());
    /// # let bought = builder.stream("bought", numbers()).group_by_key(Grouped::as_name("bought"));
    /// # let sold = builder.stream("sold", numbers()).group_by_key(Grouped::as_name("sold"));
    /// let per_minute = bought
    ///     .cogroup(|_, amount, balance| balance + amount)
    ///     .cogroup(&sold, |_, amount, balance| balance - amount)
    ///     .windowed_by(SlidingWindows::of_time_difference_with_no_grace(Duration::from_secs(60)))
    ///     .aggregate(
    ///         || 0,
    ///         Materialized::as_store("per-minute", serdes::string(), serdes::i64()),
    ///     );
    /// # drop(per_minute);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn aggregate(
        self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let Self {
            mut cogrouped,
            windows,
        } = self;
        let drawn = windows.draw(cogrouped.drawing(), materialized);
        let initializer: Initializer<A> = Arc::new(initializer);
        for (index, stream) in cogrouped.streams.into_iter().enumerate() {
            stream.attach_windows(&drawn, windows, index, &initializer);
        }
        drawn.stateful.table
    }
}

impl<K: StoreKey, A: Clone + 'static> SessionWindowedCogroupedKStream<K, A> {
    /// Makes the table: the aggregate of a session starts as `initializer` says, every record of any
    /// of the streams updates it, and `merger` makes one of two when a record joins their sessions.
    ///
    /// As with one stream, `merger` must take the initial value as if it were not there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let numbers = || Consumed::with(serdes::string(), serdes::i64());
    /// # let bought = builder.stream("bought", numbers()).group_by_key(Grouped::as_name("bought"));
    /// # let sold = builder.stream("sold", numbers()).group_by_key(Grouped::as_name("sold"));
    /// let per_visit = bought
    ///     .cogroup(|_, amount, balance| balance + amount)
    ///     .cogroup(&sold, |_, amount, balance| balance - amount)
    ///     .windowed_by(SessionWindows::of_inactivity_gap_with_no_grace(Duration::from_secs(300)))
    ///     .aggregate(
    ///         || 0,
    ///         |_, one, other| one + other,
    ///         Materialized::as_store("per-visit", serdes::string(), serdes::i64()),
    ///     );
    /// # drop(per_visit);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn aggregate(
        self,
        initializer: impl Fn() -> A + Send + Sync + 'static,
        merger: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
        materialized: Materialized<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let Self {
            mut cogrouped,
            windows,
        } = self;
        let drawn = session::draw(cogrouped.drawing(), windows, materialized);
        let initializer: Initializer<A> = Arc::new(initializer);
        let merger: Merger<K, A> = Arc::new(merger);
        for (index, stream) in cogrouped.streams.into_iter().enumerate() {
            stream.attach_sessions(&drawn, windows, index, (&initializer, &merger));
        }
        drawn.stateful.table
    }
}
