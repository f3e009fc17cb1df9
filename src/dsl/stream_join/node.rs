//! One side of a join, in a task. Kafka Streams' `KStreamKStreamJoin` and `KStreamJoinWindow`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::pending::{Pending, Place, Unpaired};
use crate::clock::Timestamp;
use crate::dsl::builder::StoreKey;
use crate::dsl::nulls::Nulls;
use crate::log::Headers;
use crate::processor::{Downstream, Node, ProcessError, Record, TaskContext};
use crate::state::{WindowEntry, WindowStore};
use crate::window::JoinWindows;

/// Makes a result, the left value first; `None` for what the join has no result for.
pub(super) trait Join<K, V, W, R>:
    Fn(&K, Option<V>, Option<W>) -> Option<R> + Send + Sync + 'static
{
}

impl<F, K, V, W, R> Join<K, V, W, R> for F where
    F: Fn(&K, Option<V>, Option<W>) -> Option<R> + Send + Sync + 'static
{
}

/// What both sides of a join share. A record is on one side at a time.
pub(super) struct Shared<F, K: StoreKey, V, W, R> {
    pub(super) join: Arc<F>,
    /// Of a left or outer join.
    pub(super) pending: Option<Pending<K, V, W>>,
    pub(super) downstream: Downstream<K, R>,
}

/// The task's one instance of it.
pub(super) type SharedByBoth<F, K, V, W, R> = Rc<RefCell<Shared<F, K, V, W, R>>>;

impl<F, K, V, W, R> Shared<F, K, V, W, R>
where
    K: StoreKey,
    V: Clone + 'static,
    W: Clone + 'static,
    R: Clone,
    F: Join<K, V, W, R>,
{
    fn send(
        &mut self,
        cx: &mut TaskContext,
        key: &K,
        values: (Option<V>, Option<W>),
        timestamp: Timestamp,
        headers: &Headers,
    ) -> Result<(), ProcessError> {
        let Some(value) = (self.join)(key, values.0, values.1) else {
            return Ok(());
        };
        let record = Record {
            key: key.clone(),
            value,
            timestamp,
            headers: headers.clone(),
        };
        self.downstream.process_at(cx, record)
    }

    /// Sends the results of records that will find no partner any more.
    fn send_closed(
        &mut self,
        cx: &mut TaskContext,
        side: JoinWindows,
        stream_time: Timestamp,
        headers: &Headers,
    ) -> Result<(), ProcessError> {
        // Taken out meanwhile: sending borrows what is left.
        let Some(mut pending) = self.pending.take() else {
            return Ok(());
        };
        let result = if pending.may_have_closed(cx, side, stream_time) {
            pending.take_closed(cx, stream_time, |cx, place, value| {
                let values = match value {
                    Unpaired::Left(value) => (Some(value), None),
                    Unpaired::Right(value) => (None, Some(value)),
                };
                self.send(cx, &place.key, values, place.time, headers)
            })
        } else {
            Ok(())
        };
        self.pending = Some(pending);
        result
    }
}

/// How a side's values become those of the join: which is left, which is right.
pub(super) trait Side<This, Other, V, W>: 'static {
    /// Whether this is the left side.
    const LEFT: bool;
    /// Puts the values of both sides into their places.
    fn arrange(this: This, other: Option<Other>) -> (Option<V>, Option<W>);
    /// Makes a value to be held back.
    fn unpaired(this: This) -> Unpaired<V, W>;
}

/// The stream that `join` is called on.
pub(super) struct LeftSide;

impl<V, W> Side<V, W, V, W> for LeftSide {
    const LEFT: bool = true;

    fn arrange(this: V, other: Option<W>) -> (Option<V>, Option<W>) {
        (Some(this), other)
    }

    fn unpaired(this: V) -> Unpaired<V, W> {
        Unpaired::Left(this)
    }
}

/// The stream that is passed in.
pub(super) struct RightSide;

impl<V, W> Side<W, V, V, W> for RightSide {
    const LEFT: bool = false;

    fn arrange(this: W, other: Option<V>) -> (Option<V>, Option<W>) {
        (other, Some(this))
    }

    fn unpaired(this: W) -> Unpaired<V, W> {
        Unpaired::Right(this)
    }
}

/// See the module.
pub(super) struct SideNode<S, F, This, Other, K: StoreKey, V, W, R> {
    pub(super) name: Arc<str>,
    /// As this side sees them.
    pub(super) windows: JoinWindows,
    /// Whether a record without a partner has a result.
    pub(super) outer: bool,
    pub(super) nulls: Nulls<K, This>,
    pub(super) own: WindowStore<K, This>,
    pub(super) other: WindowStore<K, Other>,
    pub(super) shared: SharedByBoth<F, K, V, W, R>,
    pub(super) side: std::marker::PhantomData<fn() -> S>,
}

impl<S, F, This, Other, K, V, W, R> Node<K, This> for SideNode<S, F, This, Other, K, V, W, R>
where
    S: Side<This, Other, V, W>,
    F: Join<K, V, W, R>,
    K: StoreKey,
    This: Clone + 'static,
    Other: Clone + 'static,
    V: Clone + 'static,
    W: Clone + 'static,
    R: Clone,
{
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, This>,
    ) -> Result<(), ProcessError> {
        if record.timestamp < 0 {
            return Err(self.too_early(record.timestamp));
        }
        let shared = Rc::clone(&self.shared);
        let mut shared = shared.borrow_mut();
        let stream_time = match &shared.pending {
            Some(pending) => pending.observe(cx, record.timestamp),
            None => record.timestamp,
        };
        let null_key = self.nulls.is_key(&record.key);
        if self.nulls.is_value(&record.value) || (null_key && !self.outer) {
            cx.drop_record();
            return Ok(());
        }
        let (timestamp, headers) = (record.timestamp, &record.headers);
        if null_key {
            let values = S::arrange(record.value, None);
            return shared.send(cx, &record.key, values, timestamp, headers);
        }
        // ORDER: what has closed goes first, so that the record in progress cannot be its partner.
        if timestamp == stream_time {
            shared.send_closed(cx, self.windows, stream_time, headers)?;
        }
        let paired = self.pair(cx, &mut shared, &record)?;
        if self.outer && !paired {
            self.leave_alone(cx, &mut shared, &record, stream_time)?;
        }
        // ORDER: only now, or a record of a self-join would meet itself on both sides.
        let Record { key, value, .. } = record;
        if !self.own.put_another(key, value, timestamp)? {
            cx.drop_record();
        }
        Ok(())
    }
}

impl<S, F, This, Other, K, V, W, R> SideNode<S, F, This, Other, K, V, W, R>
where
    S: Side<This, Other, V, W>,
    F: Join<K, V, W, R>,
    K: StoreKey,
    This: Clone + 'static,
    Other: Clone + 'static,
    V: Clone + 'static,
    W: Clone + 'static,
    R: Clone,
{
    /// Joins a record with what the other side has kept; returns whether there was something.
    fn pair(
        &self,
        cx: &mut TaskContext,
        shared: &mut Shared<F, K, V, W, R>,
        record: &Record<K, This>,
    ) -> Result<bool, ProcessError> {
        let (from, to) = self.windows.around(record.timestamp);
        let mut paired = false;
        for entry in self.other.fetch_range(&record.key, from..=to)? {
            let WindowEntry {
                key, start, value, ..
            } = entry?;
            paired = true;
            if let Some(pending) = &shared.pending {
                pending.forget(&Place {
                    time: start,
                    left: !S::LEFT,
                    key,
                })?;
            }
            let values = S::arrange(record.value.clone(), Some(value));
            let timestamp = record.timestamp.max(start);
            shared.send(cx, &record.key, values, timestamp, &record.headers)?;
        }
        Ok(paired)
    }

    /// Holds back a record that has no partner yet, or sends its result when none can come in time.
    ///
    /// Kafka Streams does not wait for the grace period where the record itself is out of order, and
    /// so sends a result for it without a partner that may come yet.
    fn leave_alone(
        &self,
        cx: &mut TaskContext,
        shared: &mut Shared<F, K, V, W, R>,
        record: &Record<K, This>,
        stream_time: Timestamp,
    ) -> Result<(), ProcessError> {
        let value = record.value.clone();
        match &mut shared.pending {
            Some(pending) if !self.windows.is_closed(record.timestamp, stream_time) => {
                let place = Place {
                    time: record.timestamp,
                    left: S::LEFT,
                    key: record.key.clone(),
                };
                Ok(pending.put(cx, place, S::unpaired(value))?)
            }
            _ => {
                let values = S::arrange(value, None);
                shared.send(cx, &record.key, values, record.timestamp, &record.headers)
            }
        }
    }

    #[cold]
    fn too_early(&self, timestamp: Timestamp) -> ProcessError {
        ProcessError::Processing {
            node: self.name.to_string(),
            source: format!("no window holds a record of time {timestamp}").into(),
        }
    }
}
