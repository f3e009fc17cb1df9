//! Aggregations by window: `windowed_by(..)`, then `count`, `reduce`, `aggregate`.
//!
//! # Position
//! [`time`] has tumbling, hopping and unlimited windows, [`sliding`] and [`session`] the others; this
//! module has what they share, [`aggregate`] the methods. The result is a
//! [`KTable`](super::KTable) of [`Windowed`] keys.
//! # Invariants
//! - A window's time is that of the records that reached this very operator, as in Kafka Streams: it
//!   rises only, is kept in the metadata of committed offsets, and so outlives restarts, which in Kafka
//!   Streams it does not.
//! - A record is dropped from a window that has closed, never added to it; each drop counts in
//!   `millstream_records_dropped_total`. A record that no open window takes goes to the late records'
//!   stream, if there is one.
//! - On window close, each window is emitted exactly once: before any record that could make its
//!   store forget it is put there.

mod aggregate;
mod cogroup;
mod draw;
mod session;
mod sliding;
mod time;

pub use cogroup::{SessionWindowedCogroupedKStream, TimeWindowedCogroupedKStream};
pub(super) use draw::{Drawn, Input};
pub use draw::{SessionStoreHandle, WindowStoreHandle};
pub(super) use session::attach as attach_sessions;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::builder::StoreKey;
use super::group::KGroupedStream;
use super::nulls::Nulls;
use super::stream::KStream;
use super::table::Change;
use crate::clock::Timestamp;
use crate::log::Headers;
use crate::processor::{BoxError, Downstream, ProcessError, Record, TaskContext};
use crate::state::{Segments, WindowStore};
use crate::window::{
    SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows, Window, Windowed, Windows,
};

/// When a windowed aggregation sends its results (KIP-825).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EmitStrategy {
    on_close: bool,
}

impl EmitStrategy {
    /// Sends every update of a window. The default.
    #[must_use]
    pub const fn on_window_update() -> Self {
        Self { on_close: false }
    }

    /// Sends a window's result once, when it has closed: its end and the grace period have passed.
    ///
    /// Time and hopping windows are sent with the first record that closes them; sliding windows and
    /// sessions in steps of a 64th of the time they live, to look for closed ones that much less often.
    /// Kafka Streams looks once a second of wall-clock time, and forgets what has meanwhile expired.
    #[must_use]
    pub const fn on_window_close() -> Self {
        Self { on_close: true }
    }
}

/// Gets the stream of late records when an aggregation is drawn.
type LateConsumer<K, V> = Rc<dyn Fn(KStream<K, V>)>;

/// A grouped stream by time or sliding windows. Kafka Streams' `TimeWindowedKStream`.
pub struct TimeWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: Kind,
    emit: EmitStrategy,
    late: Option<LateConsumer<K, V>>,
}

/// Windows that a window store keeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Fixed(Windows),
    Sliding(SlidingWindows),
}

/// A grouped stream by sessions. Kafka Streams' `SessionWindowedKStream`.
pub struct SessionWindowedKStream<K, V> {
    grouped: KGroupedStream<K, V>,
    windows: SessionWindows,
    emit: EmitStrategy,
    late: Option<LateConsumer<K, V>>,
}

macro_rules! windowed_stream {
    ($($type:ident),*) => {$(
        impl<K, V> Clone for $type<K, V> {
            fn clone(&self) -> Self {
                Self {
                    grouped: self.grouped.clone(),
                    windows: self.windows,
                    emit: self.emit,
                    late: self.late.clone(),
                }
            }
        }

        impl<K, V> fmt::Debug for $type<K, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type))
                    .field("windows", &self.windows)
                    .field("emit", &self.emit)
                    .finish_non_exhaustive()
            }
        }

        impl<K, V> $type<K, V> {
            /// Says when results are sent; every update unless set.
            #[must_use]
            pub fn emit_strategy(mut self, emit: EmitStrategy) -> Self {
                self.emit = emit;
                self
            }

            /// Keeps records that come too late for every window of theirs, instead of only counting
            /// them: `consumer` draws what becomes of them. It is called for each aggregation drawn
            /// with this handle.
            ///
            /// ```
            /// # use std::time::Duration;
            /// # use millstream::prelude::*;
            /// # let builder = StreamsBuilder::new();
            /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
            /// let counts = words
            ///     .group_by_key(Grouped::as_name("by-key"))
            ///     .windowed_by(TimeWindows::of_size_with_no_grace(Duration::from_secs(60)))
            ///     .late_records(|late| {
            ///         late.to("late-words", Produced::with(serdes::string(), serdes::string()));
            ///     })
            ///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()));
            /// # drop(counts);
            /// # builder.build()?;
            /// # Ok::<(), TopologyErrors>(())
            /// ```
            #[must_use]
            pub fn late_records(mut self, consumer: impl Fn(KStream<K, V>) + 'static) -> Self {
                self.late = Some(Rc::new(consumer));
                self
            }
        }
    )*};
}

windowed_stream!(TimeWindowedKStream, SessionWindowedKStream);

/// What [`windowed_by`](KGroupedStream::windowed_by) takes; sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` are not windows that a stream can be grouped by",
    note = "pass `TimeWindows`, `SlidingWindows`, `SessionWindows` or `UnlimitedWindows`"
)]
pub trait WindowedBy<G>: sealed::Sealed {
    /// The windowed stream.
    type Stream;
    /// Puts the windows above a grouping.
    fn apply(self, grouped: G) -> Self::Stream;
}

mod sealed {
    use crate::window::{SessionWindows, SlidingWindows, TimeWindows, UnlimitedWindows};

    /// Windows of this crate.
    pub trait Sealed {}
    impl Sealed for TimeWindows {}
    impl Sealed for UnlimitedWindows {}
    impl Sealed for SlidingWindows {}
    impl Sealed for SessionWindows {}
}

fn by_time<K, V>(grouped: KGroupedStream<K, V>, windows: Kind) -> TimeWindowedKStream<K, V> {
    TimeWindowedKStream {
        grouped,
        windows,
        emit: EmitStrategy::default(),
        late: None,
    }
}

impl<K, V> WindowedBy<KGroupedStream<K, V>> for TimeWindows {
    type Stream = TimeWindowedKStream<K, V>;

    fn apply(self, grouped: KGroupedStream<K, V>) -> Self::Stream {
        by_time(grouped, Kind::Fixed(self.into()))
    }
}

impl<K, V> WindowedBy<KGroupedStream<K, V>> for UnlimitedWindows {
    type Stream = TimeWindowedKStream<K, V>;

    fn apply(self, grouped: KGroupedStream<K, V>) -> Self::Stream {
        by_time(grouped, Kind::Fixed(self.into()))
    }
}

impl<K, V> WindowedBy<KGroupedStream<K, V>> for SlidingWindows {
    type Stream = TimeWindowedKStream<K, V>;

    fn apply(self, grouped: KGroupedStream<K, V>) -> Self::Stream {
        by_time(grouped, Kind::Sliding(self))
    }
}

impl<K, V> WindowedBy<KGroupedStream<K, V>> for SessionWindows {
    type Stream = SessionWindowedKStream<K, V>;

    fn apply(self, grouped: KGroupedStream<K, V>) -> Self::Stream {
        SessionWindowedKStream {
            grouped,
            windows: self,
            emit: EmitStrategy::default(),
            late: None,
        }
    }
}

impl<K: StoreKey, V: Clone + 'static> KGroupedStream<K, V> {
    /// Parts the records of each key by windows, for aggregation.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// let size = Duration::from_millis(10);
    /// builder
    ///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
    ///     .group_by_key(Grouped::as_name("by-key"))
    ///     .windowed_by(TimeWindows::of_size_with_no_grace(size))
    ///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()))
    ///     .to_stream()
    ///     .to(
    ///         "counts-out",
    ///         Produced::with(
    ///             serdes::time_windowed(serdes::string(), size),
    ///             serdes::optional(serdes::i64()),
    ///         ),
    ///     );
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let words = driver.input_topic("words", serdes::string(), serdes::string());
    /// let counts = driver.output_topic(
    ///     "counts-out",
    ///     serdes::time_windowed(serdes::string(), size),
    ///     serdes::optional(serdes::i64()),
    /// );
    /// for time in [3, 7, 12] {
    ///     words.pipe_record(&mut driver, &Record::new("tea".to_owned(), String::new(), time))?;
    /// }
    /// let window = |start, end| Windowed::new("tea".to_owned(), Window::new(start, end));
    /// assert_eq!(
    ///     counts.read_key_values(&mut driver)?,
    ///     [
    ///         (window(0, 10), Some(1)),
    ///         (window(0, 10), Some(2)),
    ///         (window(10, 20), Some(1)),
    ///     ]
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "windows have no effect of their own"]
    pub fn windowed_by<W: WindowedBy<Self>>(&self, windows: W) -> W::Stream {
        windows.apply(self.clone())
    }
}

/// Folds a record into an aggregate; `None` deletes it.
pub(in crate::dsl) trait Fold<K, V, A>:
    Fn(&K, V, Option<A>) -> Result<Option<A>, BoxError> + Send + Sync + 'static
{
}

impl<F, K, V, A> Fold<K, V, A> for F where
    F: Fn(&K, V, Option<A>) -> Result<Option<A>, BoxError> + Send + Sync + 'static
{
}

/// The highest record timestamp that has reached an operator, kept over restarts.
pub(in crate::dsl) struct ObservedTime(Arc<str>);

impl ObservedTime {
    /// `store` is what the operator keeps its state in.
    pub(in crate::dsl) fn of(store: &str) -> Self {
        Self(Arc::from(crate::format::offset_metadata::observed_time(
            store,
        )))
    }

    /// Returns the time observed so far.
    pub(in crate::dsl) fn observed(&self, cx: &TaskContext) -> Option<Timestamp> {
        cx.metadata(&self.0)
    }

    /// Takes a record's time into account; returns the time observed now.
    pub(in crate::dsl) fn observe(&self, cx: &mut TaskContext, timestamp: Timestamp) -> Timestamp {
        match cx.metadata(&self.0) {
            Some(observed) if observed >= timestamp => observed,
            _ => {
                cx.set_metadata(&self.0, timestamp);
                timestamp
            }
        }
    }
}

/// What the nodes of all kinds of windows have: how they fold, whom they tell.
struct Windowing<F, K, V, A> {
    name: Arc<str>,
    /// Names the time up to which closed windows were emitted: Kafka Streams' processor metadata.
    store_name: Arc<str>,
    time: ObservedTime,
    emit: EmitStrategy,
    fold: Arc<F>,
    nulls: Nulls<K, V>,
    send_old: bool,
    /// Shared by the streams that are aggregated together.
    downstream: Rc<RefCell<Downstream<Windowed<K>, Change<A>>>>,
    late: Downstream<K, V>,
}

impl<F, K, V, A> Windowing<F, K, V, A>
where
    K: StoreKey,
    V: Clone + 'static,
    A: Clone + 'static,
    F: Fold<K, V, A>,
{
    fn fold(&self, key: &K, value: V, aggregate: Option<A>) -> Result<Option<A>, ProcessError> {
        (self.fold)(key, value, aggregate).map_err(|source| self.failure(source))
    }

    #[cold]
    fn failure(&self, source: BoxError) -> ProcessError {
        ProcessError::Processing {
            node: self.name.to_string(),
            source,
        }
    }

    /// Refuses a record before 1970, which no window can hold.
    fn check_time(&self, timestamp: Timestamp) -> Result<(), ProcessError> {
        if timestamp < 0 {
            let problem = format!("no window holds a record of time {timestamp}");
            return Err(self.failure(problem.into()));
        }
        Ok(())
    }

    /// Sends an update unless results are sent on close.
    fn update(
        &self,
        cx: &mut TaskContext,
        record: Record<Windowed<K>, Change<A>>,
    ) -> Result<(), ProcessError> {
        let mut downstream = self.downstream.borrow_mut();
        if self.emit.on_close || downstream.is_empty() {
            return Ok(());
        }
        downstream.process_at(cx, record)
    }

    /// Sends a window that has closed, with the headers of the record that closed it.
    fn send_closed(
        &self,
        cx: &mut TaskContext,
        key: Windowed<K>,
        value: A,
        timestamp: Timestamp,
        headers: &Headers,
    ) -> Result<(), ProcessError> {
        let value = Change {
            new: Some(value),
            old: None,
        };
        let headers = headers.clone();
        self.downstream.borrow_mut().process_at(
            cx,
            Record {
                key,
                value,
                timestamp,
                headers,
            },
        )
    }

    /// Writes a window's aggregate with its own timestamp (`None` deletes it), and sends the update.
    fn write(
        &self,
        cx: &mut TaskContext,
        store: &WindowStore<K, A>,
        window: Window,
        change: Change<A>,
        timestamp: Timestamp,
        record: &Record<K, V>,
    ) -> Result<(), ProcessError> {
        let Record { key, headers, .. } = record;
        let in_progress = cx.set_timestamp(timestamp);
        let written = match change.new.clone() {
            Some(aggregate) => store.put(key.clone(), aggregate, window.start()).map(drop),
            None => store.delete(key, window.start()).map(drop),
        };
        cx.set_timestamp(in_progress);
        written?;
        self.update(
            cx,
            Record {
                key: Windowed::new(key.clone(), window),
                value: change,
                timestamp,
                headers: headers.clone(),
            },
        )
    }

    /// Hands on a record that no window has taken.
    fn too_late(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        self.late.process(cx, record)
    }
}

/// How far stream time moves between two searches for closed windows that lie scattered.
const fn emit_step(life: i64) -> i64 {
    life / 64
}

/// The segments of a store that is searched for closed windows each time stream time has moved by
/// `step`: it keeps them for that much longer, and a search reads an eighth of them.
fn segments_on_close(retention: i64, step: i64) -> Segments {
    let kept = retention.saturating_add(step).saturating_add(2);
    Segments::with_interval(kept, retention / 8)
}
