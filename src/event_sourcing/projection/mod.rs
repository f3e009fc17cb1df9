//! Projections: read models that are folded from an aggregate's events, beside them, and that can be
//! built anew from history while the old one serves.
//!
//! ```text
//! events ─▶ <projection>-project ─┬─▶ <projection>-0   rows of even generations   derived
//! history ────────▲ (slices)      ├─▶ <projection>-1   rows of odd ones           derived
//!                                 ├─▶ <aggregate>-projections   who serves, how far   derived
//!                                 └─▶ changed rows, of the generation that serves
//! ```
//! # Position
//! Drawn by [`Projections::draw`] behind an aggregate, in its task: rows, history and progress commit
//! together. `http` reads the rows of the generation that serves by [`ProjectionEndpoint`].
//! # Invariants
//! - Every task has one generation that serves, from its first record on, and at most one that is being
//!   built. History is read in the order of its keys; an event that comes meanwhile is applied to the one
//!   being built exactly if its place has been passed. So at the end of history both have every event
//!   once.
//! - The swap is one entry of the progress store, in the transaction of the last slice. A task that is
//!   killed goes on at the committed slice, with the rows that the slice left.
//! - Nobody sees rows of two generations in one answer: a reader looks who serves before and after.
//! - A row belongs to one aggregate, and is a function of that aggregate's events. A tombstone deletes all
//!   rows of its aggregate, unless the projection keeps them.
//! # Failure
//! An event that the projection cannot be made of meets the error policy of the event's source when it is
//! new, and stops the task by name when it comes from history.
//!
//! What is counted over aggregates is a [`GroupedProjection`].

mod control;
mod grouped;
mod part_key;
mod past;
mod processor;
mod progress;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;

pub(crate) use control::ProjectionControl;
pub(super) use grouped::{
    GenerationEntry, GenerationKey, GroupedStore, Serving, Standing, Total, TotalSerde,
};
pub use grouped::{Grouped, GroupedProjection, Shares};
pub use part_key::{PartKey, PartKeySerde};
pub(super) use progress::slot;
pub use progress::{ProjectionPhase, ProjectionProgress};

use self::past::Past;
use self::processor::ProjectionProcessor;
use super::aggregate::Aggregate;
use super::aggregate_history::{ProjectionEndpoint, ProjectionStores, StoreNames};
use super::archived::StoredEvent;
use super::history::{HistoryKey, history_range};
use super::rebuild::SliceLimits;
use super::recorded::RecordedEvent;
use super::stores::HistoryKeySerde;
use crate::dsl::{KStream, StoreBuilder, StoreHandle, StreamsBuilder};
use crate::processor::BoxError;
use crate::serde::{self as serdes, Serde, TextCodec};
use crate::state::StoreRef;

/// The key of a projection's row, which names the aggregate that the row belongs to.
///
/// Implemented for `String`, one row for each aggregate under its id; for [`HistoryKey`], any number of
/// rows, such as one for each event; and for [`PartKey`], rows by name.
pub trait RowKey: Clone + Eq + Hash + Ord + fmt::Debug + Send + Sync + 'static {
    /// How the key is stored. Its bytes keep the order of aggregates' ids.
    type Serde: Serde<Self> + TextCodec + Default;

    /// Returns the aggregate.
    fn aggregate_id(&self) -> &str;

    /// Returns the first and last key that rows of an aggregate can have.
    fn rows_of(aggregate_id: &str) -> RangeInclusive<Self>;

    /// Returns the key as queries take it.
    fn text(&self) -> String;
}

impl RowKey for String {
    type Serde = serdes::StringSerde;

    fn aggregate_id(&self) -> &str {
        self
    }

    fn rows_of(aggregate_id: &str) -> RangeInclusive<Self> {
        aggregate_id.to_owned()..=aggregate_id.to_owned()
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl RowKey for HistoryKey {
    type Serde = HistoryKeySerde;

    fn aggregate_id(&self) -> &str {
        &self.aggregate_id
    }

    fn rows_of(aggregate_id: &str) -> RangeInclusive<Self> {
        let (first, last) = history_range(aggregate_id, 0);
        first..=last
    }

    fn text(&self) -> String {
        format!("{}@{}", self.aggregate_id, self.version)
    }
}

impl RowKey for PartKey {
    type Serde = PartKeySerde;

    fn aggregate_id(&self) -> &str {
        &self.aggregate_id
    }

    fn rows_of(aggregate_id: &str) -> RangeInclusive<Self> {
        // No text is behind it: it begins with the last character there is, and is as long as any name.
        let last = char::MAX.to_string().repeat(PART_NAME_CHARS_MAX);
        Self::new(aggregate_id, "")..=Self::new(aggregate_id, last)
    }

    fn text(&self) -> String {
        format!("{}@{}", self.aggregate_id, self.part)
    }
}

/// How much of a name of a row orders it among those of its aggregate.
const PART_NAME_CHARS_MAX: usize = 64;

/// A value of a projection: JSON over HTTP and in its store.
pub trait RowValue:
    Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
}
impl<V: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static> RowValue for V {}

/// The rows of one aggregate, as a projection sees them while it takes in an event.
pub struct Rows<'a, K, V> {
    aggregate_id: &'a str,
    store: &'a mut dyn RowStore<K, V>,
    written: Vec<K>,
}

impl<K: fmt::Debug, V> fmt::Debug for Rows<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("aggregate_id", &self.aggregate_id)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// Where rows are: a store of the task, or memory where they are verified.
pub(super) trait RowStore<K, V> {
    fn get(&self, key: &K) -> Result<Option<V>, BoxError>;
    fn set(&mut self, key: K, value: Option<V>) -> Result<(), BoxError>;
    /// Returns the keys of an aggregate's rows.
    fn keys_of(&self, aggregate_id: &str) -> Result<Vec<K>, BoxError>;
}

impl<K: RowKey, V: RowValue> RowStore<K, V> for StoreRef<K, V> {
    fn get(&self, key: &K) -> Result<Option<V>, BoxError> {
        Ok(Self::get(self, key)?)
    }

    fn set(&mut self, key: K, value: Option<V>) -> Result<(), BoxError> {
        match value {
            Some(value) => self.put(key, value)?,
            None => drop(self.delete(&key)?),
        }
        Ok(())
    }

    fn keys_of(&self, aggregate_id: &str) -> Result<Vec<K>, BoxError> {
        let rows = self.range(K::rows_of(aggregate_id))?;
        rows.map(|row| Ok(row?.0)).collect()
    }
}

impl<K: RowKey, V: RowValue> RowStore<K, V> for BTreeMap<K, V> {
    fn get(&self, key: &K) -> Result<Option<V>, BoxError> {
        Ok(Self::get(self, key).cloned())
    }

    fn set(&mut self, key: K, value: Option<V>) -> Result<(), BoxError> {
        match value {
            Some(value) => drop(self.insert(key, value)),
            None => drop(self.remove(&key)),
        }
        Ok(())
    }

    fn keys_of(&self, aggregate_id: &str) -> Result<Vec<K>, BoxError> {
        let rows = self.range(K::rows_of(aggregate_id));
        Ok(rows.map(|(key, _)| key.clone()).collect())
    }
}

impl<'a, K: RowKey, V: RowValue> Rows<'a, K, V> {
    pub(super) const fn new(aggregate_id: &'a str, store: &'a mut dyn RowStore<K, V>) -> Self {
        Self {
            aggregate_id,
            store,
            written: Vec::new(),
        }
    }

    /// Returns a row.
    ///
    /// # Errors
    /// When it does not read.
    pub fn get(&self, key: &K) -> Result<Option<V>, BoxError> {
        self.store.get(key)
    }

    /// Writes a row.
    ///
    /// # Errors
    /// When the key is another aggregate's.
    pub fn put(&mut self, key: K, value: V) -> Result<(), BoxError> {
        self.set(key, Some(value))
    }

    /// Deletes a row.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&mut self, key: K) -> Result<(), BoxError> {
        self.set(key, None)
    }

    /// Deletes all rows of the aggregate, however many there are, in the event's transaction.
    ///
    /// # Errors
    /// When the keys do not read.
    pub fn clear(&mut self) -> Result<(), BoxError> {
        let mut gone = self.store.keys_of(self.aggregate_id)?;
        gone.sort_unstable();
        for key in &gone {
            self.store.set(key.clone(), None)?;
        }
        let written = std::mem::take(&mut self.written).into_iter();
        let others: Vec<K> = written
            .filter(|key| gone.binary_search(key).is_err())
            .collect();
        self.written = gone;
        self.written.extend(others);
        Ok(())
    }

    /// Returns the keys that were written.
    pub(super) fn into_written(self) -> Vec<K> {
        self.written
    }

    fn set(&mut self, key: K, value: Option<V>) -> Result<(), BoxError> {
        if key.aggregate_id() != self.aggregate_id {
            let (of, here) = (key.aggregate_id(), self.aggregate_id);
            return Err(format!("a row of {of} cannot be made of an event of {here}").into());
        }
        if !self.written.contains(&key) {
            self.written.push(key.clone());
        }
        self.store.set(key, value)
    }
}

/// What a projection does with an event.
pub(super) type Project<A, K, V> = dyn Fn(
        &str,
        &RecordedEvent<<A as Aggregate>::Event, <A as Aggregate>::State>,
        &mut Rows<'_, K, V>,
    ) -> Result<(), BoxError>
    + Send
    + Sync;

/// A read model: rows made of an aggregate's events, one event after another.
///
/// ```
/// # use millstream::event_sourcing::{Aggregate, Projection};
/// # fn latest<A: Aggregate>() -> Projection<A, String, u64> {
/// Projection::new("loan-versions", |loan, event, rows| {
///     rows.put(loan.to_owned(), event.version)
/// })
/// # }
/// ```
pub struct Projection<A: Aggregate, K, V> {
    pub(super) name: String,
    pub(super) version: u32,
    project: Arc<Project<A, K, V>>,
    keeps_tombstoned: bool,
}

impl<A: Aggregate, K, V> Clone for Projection<A, K, V> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            version: self.version,
            project: Arc::clone(&self.project),
            keeps_tombstoned: self.keeps_tombstoned,
        }
    }
}

impl<A: Aggregate, K, V> fmt::Debug for Projection<A, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("keeps_tombstoned", &self.keeps_tombstoned)
            .finish_non_exhaustive()
    }
}

impl<A: Aggregate, K: RowKey, V: RowValue> Projection<A, K, V> {
    /// Describes a projection by its name, which its stores carry, and by what it does with an event of
    /// an aggregate. That must depend on the event and the aggregate's rows alone. With the aggregate's
    /// [tombstone](Aggregate::is_tombstone) its rows are deleted, unless they are
    /// [kept](Self::keep_tombstoned).
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        project: impl Fn(
            &str,
            &RecordedEvent<A::Event, A::State>,
            &mut Rows<'_, K, V>,
        ) -> Result<(), BoxError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            version: 1,
            project: Arc::new(project),
            keeps_tombstoned: false,
        }
    }

    /// Keeps the rows of tombstoned aggregates, and makes rows of tombstones as of any other event: for a
    /// log of what has happened. Like any other rule, it is changed with a new [version](Self::version).
    #[must_use]
    pub const fn keep_tombstoned(mut self) -> Self {
        self.keeps_tombstoned = true;
        self
    }

    /// Takes an event into the rows of its aggregate.
    pub(in crate::event_sourcing) fn take_in(
        &self,
        aggregate_id: &str,
        event: &RecordedEvent<A::Event, A::State>,
        rows: &mut Rows<'_, K, V>,
    ) -> Result<(), BoxError> {
        if event.tombstoned && !self.keeps_tombstoned {
            return rows.clear();
        }
        (self.project)(aggregate_id, event, rows)
    }

    /// Sets the version of what it does; 1 unless said otherwise. Another one than the rows were made by
    /// has them built anew at the next start: those that serve stay as they are until the new ones have
    /// caught up. They must still read: fields are added with defaults, or the projection is renamed.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }
}

/// Draws projections of an aggregate. Part of [`Drawn`](super::Drawn) and
/// [`DrawnSteps`](super::DrawnSteps).
pub struct Projections<A: Aggregate> {
    pub(super) stores: StoreNames,
    pub(super) name: String,
    pub(super) limits: SliceLimits,
    pub(super) events: KStream<String, RecordedEvent<A::Event, A::State>>,
    pub(super) history: StoreHandle<HistoryKey, StoredEvent>,
    pub(super) snapshots: StoreHandle<HistoryKey, Vec<u8>>,
    /// Made with the first projection: an aggregate without any needs none.
    pub(super) progress: Rc<OnceCell<StoreHandle<String, ProjectionProgress>>>,
}

impl<A: Aggregate> Clone for Projections<A> {
    fn clone(&self) -> Self {
        Self {
            stores: self.stores.clone(),
            name: self.name.clone(),
            limits: self.limits,
            events: self.events.clone(),
            history: self.history.clone(),
            snapshots: self.snapshots.clone(),
            progress: Rc::clone(&self.progress),
        }
    }
}

impl<A: Aggregate> fmt::Debug for Projections<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projections")
            .field("aggregate", &A::TYPE)
            .finish_non_exhaustive()
    }
}

/// A projection as part of a topology.
pub struct Projected<K, V> {
    /// The rows that change, in the generation that serves; `None` for one that is deleted. After a
    /// rebuild, those in which the generations differ; after a reset, all. A row may come twice.
    pub rows: KStream<K, Option<V>>,
    /// The projection as it is seen from outside, for
    /// [`Packaged::with_projection`](crate::packaged::Packaged::with_projection).
    pub endpoint: ProjectionEndpoint,
}

impl<K, V> fmt::Debug for Projected<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projected")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl<A: Aggregate> Projections<A> {
    /// Adds a projection to the topology: at once with what history has, when it is added to one that
    /// has been running.
    #[must_use = "without its endpoint a projection cannot be read"]
    pub fn draw<K: RowKey, V: RowValue>(
        &self,
        builder: &StreamsBuilder,
        projection: Projection<A, K, V>,
    ) -> Projected<K, V> {
        let progress_name = format!("{}-projections", self.name);
        let progress = self.progress.get_or_init(|| {
            builder.add_state_store(StoreBuilder::as_store(
                &progress_name,
                serdes::string(),
                serdes::json(),
            ))
        });
        let slots = [0, 1].map(|slot| format!("{}-{slot}", projection.name));
        let [even, odd] = slots.each_ref().map(|slot| {
            builder.add_state_store(StoreBuilder::as_store(
                slot,
                K::Serde::default(),
                serdes::json::<V>(),
            ))
        });
        let control = ProjectionControl::default();
        let endpoint = ProjectionEndpoint::new(
            ProjectionStores {
                of: self.stores.clone(),
                progress: progress_name,
                slots,
            },
            projection.clone(),
            control.clone(),
        );
        let (limits, archive) = (self.limits, self.stores.archive.clone());
        let rows = self
            .events
            .process(
                &format!("{}-project", projection.name),
                (&self.history, &self.snapshots, progress, &even, &odd),
                move |setup, (history, snapshots, progress, even, odd)| {
                    let metrics = setup.metrics();
                    ProjectionProcessor {
                        metrics: metrics.map(|metrics| metrics.projection(&projection.name)),
                        projection: projection.clone(),
                        past: Past {
                            history,
                            archive: archive.clone(),
                            snapshots,
                            limits,
                        },
                        progress,
                        slots: [even, odd],
                        control: control.clone(),
                        partition: setup.partition(),
                        published_to: None,
                        at_work: None,
                    }
                },
            )
            // Rows lie where their aggregate is.
            .mark_as_partitioned();
        Projected { rows, endpoint }
    }
}
