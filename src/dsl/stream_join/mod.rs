//! Joins of two streams: records of one key that are close enough in time meet each other.
//!
//! # Position
//! [`node`] has what a record does, [`pending`] the records without a partner, [`config`] the names and
//! serdes; this module draws the join: a node per side, where both sides' results come together, and
//! two or three stores.
//! # Invariants
//! - A pair of records within the windows has one result, when the later one is processed, as long as
//!   the other has not left its store: records are kept for the windows' size and grace.
//! - A left or outer join sends a record's result without a partner at most once, after its window and
//!   the grace period have passed. A record that has had a partner has none. So where the grace period
//!   covers the disorder, no result is ever wrong.
//! - Stream time and the pending records' place in it are kept with committed offsets: results do not
//!   depend on restarts, as they do in Kafka Streams.

mod config;
mod node;
mod pending;

pub use config::StreamJoined;

use std::marker::PhantomData;
use std::sync::Arc;

use super::assembly::{Assembly, Children};
use super::builder::{Draft, StoreKey};
use super::config::{Repartitioned, SharedSerde};
use super::nulls::Nulls;
use super::stream::{KStream, Keeps};
use crate::processor::Node;
use crate::state::{Layout, Segments, StateError};
use crate::topology::{GraphNode, NodeId, NodeKind, StoreId, TopologyError};
use crate::window::JoinWindows;
use node::{Join, LeftSide, RightSide, Shared, SharedByBoth, Side, SideNode};
use pending::{Pending, PlaceSerde, UnpairedSerde};

/// Which records without a partner have a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

impl Kind {
    const fn keeps_left(self) -> bool {
        matches!(self, Self::Left | Self::Outer)
    }

    const fn keeps_right(self) -> bool {
        matches!(self, Self::Outer)
    }
}

/// A stream that one with keys `K` can be joined with: a [`KStream`] of the same keys. Sealed.
#[diagnostic::on_unimplemented(
    message = "a stream with keys of type `{K}` cannot be joined with `{Self}`",
    note = "both streams of a join have keys of one type: bring one to the other's with `select_key` or `map`"
)]
pub trait StreamWithKey<K>: sealed::Sealed {
    /// The type of its values.
    type Value: Clone + 'static;
    /// Returns the stream.
    fn as_stream(&self) -> &KStream<K, Self::Value>;
}

impl<K, V: Clone + 'static> StreamWithKey<K> for KStream<K, V> {
    type Value = V;

    fn as_stream(&self) -> &Self {
        self
    }
}

mod sealed {
    /// Streams of this crate.
    pub trait Sealed {}
    impl<K, V> Sealed for crate::dsl::KStream<K, V> {}
}

impl<K: StoreKey, V: Clone + 'static> KStream<K, V> {
    /// Joins two streams: each record meets those of the other stream with its key and a time within
    /// `windows`, now or when they come. A result has the later one's timestamp and the headers of
    /// the record that came last.
    ///
    /// Both streams must be co-partitioned; one whose key may have changed is repartitioned first.
    /// Records without a key or value are dropped and counted. A record that comes so late that its
    /// store has forgotten its time still meets what the other side has kept, but nobody will meet it:
    /// it counts as dropped. A stream can be joined with itself.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// let texts = || Consumed::with(serdes::string(), serdes::string());
    /// let (views, clicks) = (builder.stream("views", texts()), builder.stream("clicks", texts()));
    /// views
    ///     .join(
    ///         &clicks,
    ///         |_, view, click| format!("{view} then {click}"),
    ///         JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(10))
    ///             .before(Duration::ZERO),
    ///         StreamJoined::as_name("views-with-clicks"),
    ///     )
    ///     .to("out", Produced::with(serdes::string(), serdes::string()));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let views = driver.input_topic("views", serdes::string(), serdes::string());
    /// let clicks = driver.input_topic("clicks", serdes::string(), serdes::string());
    /// let out = driver.output_topic("out", serdes::string(), serdes::string());
    /// let record = |value: &str, time| Record::new("ann".to_owned(), value.to_owned(), time);
    /// views.pipe_record(&mut driver, &record("offer", 5_000))?;
    /// clicks.pipe_record(&mut driver, &record("buy", 12_000))?;
    /// clicks.pipe_record(&mut driver, &record("too late", 15_001))?;
    /// assert_eq!(out.read_values(&mut driver)?, ["offer then buy"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn join<S: StreamWithKey<K>, R: Clone + 'static>(
        &self,
        other: &S,
        joiner: impl Fn(&K, V, S::Value) -> R + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, S::Value>,
    ) -> KStream<K, R> {
        let join = move |key: &K, left: Option<V>, right: Option<S::Value>| {
            Some(joiner(key, left?, right?))
        };
        self.join_streams(Kind::Inner, other.as_stream(), join, windows, joined)
    }

    /// As [`join`](Self::join); a record of this stream that finds no partner is joined with `None`
    /// once its window has closed, at once when it has no key.
    ///
    /// The result without a partner is sent with the first record that shows, on either stream, that
    /// stream time has passed the window's end and the grace period (KAFKA-10847). It has the record's
    /// own timestamp.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let texts = || Consumed::with(serdes::string(), serdes::string());
    /// # let (orders, payments) = (builder.stream("orders", texts()), builder.stream("payments", texts()));
    /// let paid = orders.left_join(
    ///     &payments,
    ///     |_, order, payment| match payment {
    ///         Some(payment) => format!("{order} was paid by {payment}"),
    ///         None => format!("{order} was not paid"),
    ///     },
    ///     JoinWindows::of_time_difference_and_grace(Duration::from_secs(600), Duration::from_secs(60)),
    ///     StreamJoined::as_name("orders-with-payments"),
    /// );
    /// # paid.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn left_join<S: StreamWithKey<K>, R: Clone + 'static>(
        &self,
        other: &S,
        joiner: impl Fn(&K, V, Option<S::Value>) -> R + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, S::Value>,
    ) -> KStream<K, R> {
        let join = move |key: &K, left: Option<V>, right: Option<S::Value>| {
            Some(joiner(key, left?, right))
        };
        self.join_streams(Kind::Left, other.as_stream(), join, windows, joined)
    }

    /// As [`left_join`](Self::left_join), for records of both streams. At least one of the joiner's
    /// values is there.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let amounts = || Consumed::with(serdes::string(), serdes::i64());
    /// # let (booked, billed) = (builder.stream("booked", amounts()), builder.stream("billed", amounts()));
    /// let difference = booked.outer_join(
    ///     &billed,
    ///     |_, booked, billed| booked.unwrap_or(0) - billed.unwrap_or(0),
    ///     JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(60)),
    ///     StreamJoined::as_name("reconciled"),
    /// );
    /// # difference.to("out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "joining has no effect of its own"]
    pub fn outer_join<S: StreamWithKey<K>, R: Clone + 'static>(
        &self,
        other: &S,
        joiner: impl Fn(&K, Option<V>, Option<S::Value>) -> R + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, S::Value>,
    ) -> KStream<K, R> {
        let join = move |key: &K, left: Option<V>, right: Option<S::Value>| {
            (left.is_some() || right.is_some()).then(|| joiner(key, left, right))
        };
        self.join_streams(Kind::Outer, other.as_stream(), join, windows, joined)
    }

    fn join_streams<W: Clone + 'static, R: Clone + 'static>(
        &self,
        kind: Kind,
        other: &KStream<K, W>,
        join: impl Join<K, V, W, R>,
        windows: JoinWindows,
        joined: StreamJoined<K, V, W>,
    ) -> KStream<K, R> {
        let foreign = self.is_foreign(&other.draft, "joined stream");
        let serdes = self.resolve_serdes(other, &joined);
        let (Some(serdes), false) = (serdes, foreign) else {
            // Reported by `build`; what follows is drawn below this stream so that it is checked too.
            return self.without_join();
        };
        let left = self.partitioned_for(&joined.name, "left", &serdes.key, &serdes.left);
        let right = other.partitioned_for(&joined.name, "right", &serdes.key, &serdes.right);
        let plan = JoinPlan::draw(kind, (&left, &right), &serdes, windows, &joined);
        let children = Children::new();
        plan.attach(
            kind,
            (&left, &right),
            Arc::new(join),
            &children,
            serdes.clone(),
        );
        let keeps = Keeps {
            key_serde: Some(serdes.key),
            value_serde: None,
            repartition_required: false,
        };
        let mut lineage = left.parts.lineage.clone();
        lineage.rewindable &= right.parts.lineage.rewindable;
        KStream::new(&self.draft, plan.merge, children, keeps, lineage)
    }

    /// What a join that cannot be drawn returns.
    fn without_join<R: Clone + 'static>(&self) -> KStream<K, R> {
        let parents = vec![self.parts.node];
        let node = self
            .draft
            .borrow_mut()
            .graph
            .add_operator("KSTREAM-MERGE-", parents);
        let lineage = self.parts.lineage.clone();
        KStream::new(
            &self.draft,
            node,
            Children::new(),
            self.keeps_key(),
            lineage,
        )
    }

    /// Finds the serdes of the stores; notes which are missing.
    fn resolve_serdes<W: 'static>(
        &self,
        other: &KStream<K, W>,
        joined: &StreamJoined<K, V, W>,
    ) -> Option<Serdes<K, V, W>> {
        let (left, right) = (&self.parts, &other.parts);
        let key = joined.key_serde.clone();
        let key = key.or_else(|| left.key_serde.clone().or_else(|| right.key_serde.clone()));
        let left = joined
            .value_serde
            .clone()
            .or_else(|| left.value_serde.clone());
        let right = joined.other_value_serde.clone();
        let right = right.or_else(|| other.parts.value_serde.clone());
        let mistakes = &mut self.draft.borrow_mut().graph.mistakes;
        for (field, known) in [
            ("key", key.is_some()),
            ("value", left.is_some()),
            ("other value", right.is_some()),
        ] {
            if !known {
                let name = joined.name.clone();
                mistakes.push(TopologyError::JoinWithoutSerde { name, field });
            }
        }
        let (key, left, right) = (key?, left?, right?);
        Some(Serdes { key, left, right })
    }

    fn partitioned_for(
        &self,
        name: &str,
        side: &str,
        key_serde: &SharedSerde<K>,
        value_serde: &SharedSerde<V>,
    ) -> Self {
        if !self.parts.repartition_required {
            return self.clone();
        }
        self.repartition(Repartitioned {
            name: format!("{name}-{side}"),
            key_serde: Some(Arc::clone(key_serde)),
            value_serde: Some(Arc::clone(value_serde)),
            partitions: None,
            partitioner: None,
        })
    }
}

/// What the stores of a join are written with.
struct Serdes<K, V, W> {
    key: SharedSerde<K>,
    left: SharedSerde<V>,
    right: SharedSerde<W>,
}

impl<K, V, W> Clone for Serdes<K, V, W> {
    fn clone(&self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            left: Arc::clone(&self.left),
            right: Arc::clone(&self.right),
        }
    }
}

/// The nodes and stores of a join.
#[derive(Clone)]
struct JoinPlan {
    windows: JoinWindows,
    this: NodeId,
    other: NodeId,
    merge: NodeId,
    this_store: StoreId,
    other_store: StoreId,
    /// Of a left or outer join, with its name.
    pending: Option<(StoreId, Arc<str>)>,
}

impl JoinPlan {
    fn draw<K: StoreKey, V: Clone + 'static, W: Clone + 'static>(
        kind: Kind,
        (left, right): (&KStream<K, V>, &KStream<K, W>),
        serdes: &Serdes<K, V, W>,
        windows: JoinWindows,
        joined: &StreamJoined<K, V, W>,
    ) -> Self {
        let this_suffix = if kind.keeps_right() {
            "outer-this-join"
        } else {
            "this-join"
        };
        let other_suffix = if kind.keeps_left() {
            "outer-other-join"
        } else {
            "other-join"
        };
        let layout = Layout::Duplicates(Segments::new(windows.retention_ms()));
        let draft = &mut *left.draft.borrow_mut();
        let name = joined.name_of_store(this_suffix);
        if let Some(problem) = windows.problem() {
            draft.graph.mistakes.push(TopologyError::IllegalWindows {
                store: name.clone(),
                reason: problem.to_owned(),
            });
        }
        let (key, value) = (Arc::clone(&serdes.key), Arc::clone(&serdes.left));
        let this_store = draft.add_window_store(joined.store(name, key, value), layout);
        let name = joined.name_of_store(other_suffix);
        let (key, value) = (Arc::clone(&serdes.key), Arc::clone(&serdes.right));
        let other_store = draft.add_window_store(joined.store(name, key, value), layout);
        let pending = add_pending(draft, kind, serdes, joined);
        let stores: Vec<StoreId> = [this_store, other_store]
            .into_iter()
            .chain(pending.iter().map(|(id, _)| *id))
            .collect();
        let mut add = |suffix: &str, parents: Vec<NodeId>, stores: Vec<StoreId>| {
            let node = draft.graph.add(GraphNode {
                name: String::new(),
                named: true,
                kind: NodeKind::Operator { processor: false },
                parents,
                stores,
            });
            draft
                .graph
                .rename(node, &format!("{}-{suffix}", joined.name));
            node
        };
        let this = add(this_suffix, vec![left.parts.node], stores.clone());
        let other = add(other_suffix, vec![right.parts.node], stores);
        let merge = add("merge", vec![this, other], Vec::new());
        Self {
            windows,
            this,
            other,
            merge,
            this_store,
            other_store,
            pending,
        }
    }

    /// Attaches both sides, the left one first: a self-join meets a record's earlier ones there, and
    /// the record itself on the right.
    fn attach<F, K, V, W, R>(
        &self,
        kind: Kind,
        (left, right): (&KStream<K, V>, &KStream<K, W>),
        join: Arc<F>,
        children: &Children<K, R>,
        serdes: Serdes<K, V, W>,
    ) where
        F: Join<K, V, W, R>,
        K: StoreKey,
        V: Clone + 'static,
        W: Clone + 'static,
        R: Clone + 'static,
    {
        let nulls = Nulls::new(Some(Arc::clone(&serdes.key)), Some(serdes.left));
        let (plan, downstream, joiner) = (self.clone(), children.clone(), Arc::clone(&join));
        left.parts.children.add(self.this, move |assembly| {
            let shared = plan.shared(assembly, &joiner, &downstream)?;
            let outer = kind.keeps_left();
            Ok(plan.side::<LeftSide, F, V, W, K, V, W, R>(assembly, outer, nulls.clone(), shared))
        });
        let nulls = Nulls::new(Some(serdes.key), Some(serdes.right));
        let (plan, downstream) = (self.clone(), children.clone());
        right.parts.children.add(self.other, move |assembly| {
            let shared = plan.shared(assembly, &join, &downstream)?;
            let outer = kind.keeps_right();
            Ok(plan.side::<RightSide, F, W, V, K, V, W, R>(assembly, outer, nulls.clone(), shared))
        });
    }

    fn side<S, F, This, Other, K, V, W, R>(
        &self,
        assembly: &Assembly<'_>,
        outer: bool,
        nulls: Nulls<K, This>,
        shared: SharedByBoth<F, K, V, W, R>,
    ) -> Box<dyn Node<K, This>>
    where
        S: Side<This, Other, V, W>,
        F: Join<K, V, W, R>,
        K: StoreKey,
        This: Clone + 'static,
        Other: Clone + 'static,
        V: Clone + 'static,
        W: Clone + 'static,
        R: Clone + 'static,
    {
        let (node, windows, own, other) = if S::LEFT {
            (self.this, self.windows, self.this_store, self.other_store)
        } else {
            let windows = self.windows.reversed();
            (self.other, windows, self.other_store, self.this_store)
        };
        Box::new(SideNode::<S, F, This, Other, K, V, W, R> {
            name: assembly.name(node),
            windows,
            outer,
            nulls,
            own: assembly.store(own),
            other: assembly.store(other),
            shared,
            side: PhantomData,
        })
    }

    /// Returns the task's one instance of what both sides share.
    fn shared<F, K, V, W, R>(
        &self,
        assembly: &mut Assembly<'_>,
        join: &Arc<F>,
        downstream: &Children<K, R>,
    ) -> Result<SharedByBoth<F, K, V, W, R>, StateError>
    where
        F: Join<K, V, W, R>,
        K: StoreKey,
        V: Clone + 'static,
        W: Clone + 'static,
        R: Clone + 'static,
    {
        assembly.shared(self.merge, |assembly| {
            let pending = self
                .pending
                .as_ref()
                .map(|(id, name)| Pending::new(name, assembly.store(*id), self.windows));
            Ok(Shared {
                join: Arc::clone(join),
                pending,
                downstream: downstream.assemble(assembly)?,
            })
        })
    }
}

/// Adds the store of records without a partner, where those have results.
fn add_pending<K: StoreKey, V: Clone + 'static, W: Clone + 'static>(
    draft: &mut Draft,
    kind: Kind,
    serdes: &Serdes<K, V, W>,
    joined: &StreamJoined<K, V, W>,
) -> Option<(StoreId, Arc<str>)> {
    let name = joined.name_of_store(match kind {
        Kind::Inner => return None,
        Kind::Left => "left-shared-join",
        Kind::Outer => "outer-shared-join",
    });
    let Serdes { key, left, right } = serdes.clone();
    let store = draft.add_store(joined.store(
        name.clone(),
        Arc::new(PlaceSerde(key)),
        Arc::new(UnpairedSerde { left, right }),
    ));
    Some((store, Arc::from(name)))
}
