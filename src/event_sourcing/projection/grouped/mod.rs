//! Projections over aggregates: what many aggregates add up to, by group, and built anew from history
//! like any other projection.
//!
//! ```text
//! the aggregate's task, partition p                        the groups' task, partition q
//! events ─▶ <name>-contribute ──<name>-shares-repartition──▶ <name>-sum-up ─▶ rows that serve
//! history ───────▲  │      ▲      shares, then "p has           │    │
//!                   │      │      completed generation g"       │    └─▶ <name>-totals    derived
//!  <name>-shares ◀──┤      │                                    └──────▶ <name>-serving   derived
//!  <name>-generations ◀────┤
//!                   └─<name>-generations-repartition─▶ <name>-heed   (to every partition)
//! ```
//! # Position
//! Drawn by [`Projections::draw_grouped`] with the public DSL. An aggregate's shares are in its task, in
//! the transaction of its event; what they add up to is behind a repartition topic, where the group is.
//! # Invariants
//! - The key of a share and of a total begins with its generation. A new one starts from nothing,
//!   whatever has happened to the one before.
//! - A partition of the source tells that it has completed a generation behind all shares that complete
//!   it, in the same partitions. Totals serve the newest generation that **all** partitions have
//!   completed by the same rules: a figure is never made of two generations.
//! - A generation that one partition begins is begun by all. Each keeps the one that serves up to date
//!   until it knows that all have completed the next.
//! - Totals are taken over by each of their partitions by itself, in one transaction; a share of a
//!   generation before the one that serves changes nothing.
//! # Failure
//! As with any projection. A partition that does not run holds up the next generation, not the one that
//! serves.
//!
//! Why it is so: `docs/decisions/0014-grouped-projections.md`.

mod source;
mod standing;
mod totals;
mod wire;

use std::fmt;
use std::sync::Arc;

use super::super::aggregate::Aggregate;
use super::super::aggregate_history::ProjectionEndpoint;
use super::super::recorded::RecordedEvent;
use super::past::Past;
use super::{ProjectionControl, Projections, RowValue};
use crate::dsl::{KStream, Repartitioned, StoreBuilder, StreamsBuilder};
use crate::processor::BoxError;
use crate::serde as serdes;

pub(in crate::event_sourcing) use self::standing::{GenerationEntry, Standing};
pub(in crate::event_sourcing) use self::totals::Serving;
pub use self::wire::Shares;
pub(in crate::event_sourcing) use self::wire::{GenerationKey, Total, TotalSerde};

use self::source::{Contribute, Heed, Told};
use self::totals::SumUp;
use self::wire::{GenerationKeySerde, Share};

/// What an aggregate adds to which groups, after an event.
type Contributes<A, C> = dyn Fn(
        &str,
        &RecordedEvent<<A as Aggregate>::Event, <A as Aggregate>::State>,
        &mut Shares<C>,
    ) -> Result<(), BoxError>
    + Send
    + Sync;

/// What a group becomes by a share.
type Folds<C, T> = dyn Fn(&str, C, T) -> T + Send + Sync;

/// A read model over aggregates: every aggregate has shares in groups, and a group is what its shares add
/// up to.
///
/// ```
/// # use millstream::event_sourcing::{Aggregate, GroupedProjection, Shares};
/// # fn by_length<A: Aggregate>() -> GroupedProjection<A, u64, u64> {
/// GroupedProjection::new(
///     "loans-by-length",
///     |_loan, event, shares: &mut Shares<u64>| {
///         shares.only(if event.version > 10 { "long" } else { "short" }, 1);
///         Ok(())
///     },
///     || 0,
///     |_group, loan, loans| loans + loan,
///     |_group, loan, loans| loans.saturating_sub(loan),
/// )
/// # }
/// ```
pub struct GroupedProjection<A: Aggregate, C, T> {
    name: String,
    version: u32,
    contributes: Arc<Contributes<A, C>>,
    initial: Arc<dyn Fn() -> T + Send + Sync>,
    add: Arc<Folds<C, T>>,
    subtract: Arc<Folds<C, T>>,
}

impl<A: Aggregate, C, T> Clone for GroupedProjection<A, C, T> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            version: self.version,
            contributes: Arc::clone(&self.contributes),
            initial: Arc::clone(&self.initial),
            add: Arc::clone(&self.add),
            subtract: Arc::clone(&self.subtract),
        }
    }
}

impl<A: Aggregate, C, T> fmt::Debug for GroupedProjection<A, C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupedProjection")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl<A: Aggregate, C: RowValue, T: RowValue> GroupedProjection<A, C, T> {
    /// Describes a projection by its name, which its stores and topics carry; by the shares that an
    /// aggregate has after an event, which must depend on the event and its shares before it alone; and
    /// by how a group's value is made of them, whatever their order: from `initial`, with `adder` for a
    /// share that comes and `subtractor` for one that goes. A group without shares is no row. The shares
    /// of an aggregate go with its [tombstone](Aggregate::is_tombstone).
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        contributes: impl Fn(
            &str,
            &RecordedEvent<A::Event, A::State>,
            &mut Shares<C>,
        ) -> Result<(), BoxError>
        + Send
        + Sync
        + 'static,
        initial: impl Fn() -> T + Send + Sync + 'static,
        adder: impl Fn(&str, C, T) -> T + Send + Sync + 'static,
        subtractor: impl Fn(&str, C, T) -> T + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            version: 1,
            contributes: Arc::new(contributes),
            initial: Arc::new(initial),
            add: Arc::new(adder),
            subtract: Arc::new(subtractor),
        }
    }

    /// Sets the version of its rules; see [`Projection::version`](super::Projection::version). A version
    /// takes over once all partitions are of it: while processes of the one before run, that goes on.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    pub(in crate::event_sourcing) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::event_sourcing) const fn rules(&self) -> u32 {
        self.version
    }

    pub(in crate::event_sourcing) fn store(&self, store: GroupedStore) -> String {
        format!("{}-{}", self.name, store.suffix())
    }

    /// Changes an aggregate's shares by an event; those of a tombstoned one are gone.
    pub(in crate::event_sourcing) fn contribute(
        &self,
        aggregate_id: &str,
        event: &RecordedEvent<A::Event, A::State>,
        shares: &mut Shares<C>,
    ) -> Result<(), BoxError> {
        if event.tombstoned {
            shares.clear();
            return Ok(());
        }
        (self.contributes)(aggregate_id, event, shares)
    }

    /// Returns a group after a share has gone and another one has come; `None` where none is left.
    pub(in crate::event_sourcing) fn fold(
        &self,
        group: &str,
        total: Option<Total<T>>,
        gone: Option<C>,
        come: Option<C>,
    ) -> Option<Total<T>> {
        // As with tables: from a group that is not there, nothing is taken.
        let total = total.map(|mut total| {
            if let Some(gone) = gone {
                total.value = (self.subtract)(group, gone, total.value);
                total.shares = total.shares.saturating_sub(1);
            }
            total
        });
        let mut total = total.unwrap_or_else(|| Total {
            shares: 0,
            value: (self.initial)(),
        });
        if let Some(come) = come {
            total.value = (self.add)(group, come, total.value);
            total.shares = total.shares.saturating_add(1);
        }
        (total.shares > 0).then_some(total)
    }
}

/// The stores of a grouped projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::event_sourcing) enum GroupedStore {
    /// By partition, in the aggregate's task: which generations it has, and what the others have told.
    Generations,
    /// By generation and aggregate, in the aggregate's task.
    Shares,
    /// By generation and group.
    Totals,
    /// One entry: which generation of the totals serves.
    Serving,
}

impl GroupedStore {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Generations => "generations",
            Self::Shares => "shares",
            Self::Totals => "totals",
            Self::Serving => "serving",
        }
    }
}

/// A grouped projection as part of a topology.
pub struct Grouped<T> {
    /// The groups that change, in the generation that serves; `None` for one that is gone. After a
    /// rebuild, those in which the generations differ; after a reset, all. A group may come twice.
    pub rows: KStream<String, Option<T>>,
    /// The projection as it is seen from outside, for
    /// [`Packaged::with_projection`](crate::packaged::Packaged::with_projection).
    pub endpoint: ProjectionEndpoint,
}

impl<T> fmt::Debug for Grouped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grouped")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl<A: Aggregate> Projections<A> {
    /// Adds a projection over aggregates to the topology; what is in history by then is in it.
    #[must_use = "without its endpoint a projection cannot be read"]
    pub fn draw_grouped<C: RowValue, T: RowValue>(
        &self,
        builder: &StreamsBuilder,
        projection: GroupedProjection<A, C, T>,
    ) -> Grouped<T> {
        let control = ProjectionControl::default();
        let endpoint =
            ProjectionEndpoint::grouped(self.stores.clone(), projection.clone(), control.clone());
        let told = self.contribute(builder, &projection, control);
        let shares = told
            .flat_map(|key, told| match told {
                Told::Share(share) => Some((key, share)),
                Told::News(_) => None,
            })
            // A share that is passed over is wrong for good, and a completed generation never served.
            .failing()
            .repartition(
                Repartitioned::with(
                    projection.store(GroupedStore::Shares),
                    GenerationKeySerde,
                    serdes::json::<Share<C>>(),
                )
                .multicast_by(|_, share, partitions| match share {
                    Share::Changed { .. } => None,
                    Share::Completed { .. } => Some((0..partitions).collect()),
                }),
            );
        let totals = builder.add_state_store(StoreBuilder::as_store(
            projection.store(GroupedStore::Totals),
            GenerationKeySerde,
            TotalSerde::<T>::default(),
        ));
        let serving = builder.add_state_store(StoreBuilder::as_store(
            projection.store(GroupedStore::Serving),
            serdes::string(),
            serdes::json::<Serving>(),
        ));
        let limits = self.limits;
        let rows = shares
            .process(
                &format!("{}-sum-up", projection.name),
                (&totals, &serving),
                move |_, (totals, serving)| SumUp {
                    projection: projection.clone(),
                    totals,
                    serving,
                    limits,
                    published_to: None,
                    at_work: None,
                },
            )
            // Shares lie where their group is.
            .mark_as_partitioned();
        Grouped { rows, endpoint }
    }

    /// Draws what is in the aggregates' tasks; returns what they tell the totals and each other.
    fn contribute<C: RowValue, T: RowValue>(
        &self,
        builder: &StreamsBuilder,
        projection: &GroupedProjection<A, C, T>,
        control: ProjectionControl,
    ) -> KStream<GenerationKey, Told<C>> {
        let generations = builder.add_state_store(StoreBuilder::as_store(
            projection.store(GroupedStore::Generations),
            serdes::i32(),
            serdes::json::<GenerationEntry>(),
        ));
        let shares = builder.add_state_store(StoreBuilder::as_store(
            projection.store(GroupedStore::Shares),
            GenerationKeySerde,
            serdes::json::<Shares<C>>(),
        ));
        let (limits, archive, of) = (self.limits, self.stores.archive.clone(), projection.clone());
        let told = self.events.process(
            &format!("{}-contribute", projection.name),
            (&self.history, &self.snapshots, &generations, &shares),
            move |setup, (history, snapshots, generations, shares)| Contribute {
                metrics: setup.metrics().map(|metrics| metrics.projection(&of.name)),
                projection: of.clone(),
                past: Past {
                    history,
                    archive: archive.clone(),
                    snapshots,
                    limits,
                },
                generations,
                shares,
                control: control.clone(),
                partition: setup.partition(),
                partitions: setup.partitions(),
                at_work: None,
            },
        );
        let heeded = told
            .flat_map(|_, told| match told {
                Told::News(news) => Some((news.partition, news)),
                Told::Share(_) => None,
            })
            .failing()
            .repartition(
                Repartitioned::with(
                    projection.store(GroupedStore::Generations),
                    serdes::i32(),
                    serdes::json(),
                )
                .multicast_by(|_, _, partitions| Some((0..partitions).collect())),
            )
            .process(
                &format!("{}-heed", projection.name),
                (&generations,),
                |setup, (generations,)| Heed {
                    partition: setup.partition(),
                    generations,
                },
            );
        // It keeps what it hears, and sends nothing on.
        drop(heeded);
        told
    }
}
