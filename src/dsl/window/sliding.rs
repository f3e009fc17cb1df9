//! Sliding windows. Kafka Streams' `KStreamSlidingWindowAggregate` (KIP-450), record by record.
//!
//! A key's windows are those that begin right after one of its records or end with one, and hold any.
//! A new record updates the windows around it, then makes up to three: the one that begins after the
//! record before it, which it is the first of; the one it ends; the one that begins after it, when
//! there are later records. The timestamp of a window's value is that of its latest record, which tells
//! whether a window around the new record holds anything later.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draw::{Drawing, Drawn, Input, WindowSpec};
use super::{Fold, Windowing};
use crate::clock::Timestamp;
use crate::dsl::builder::StoreKey;
use crate::dsl::config::Materialized;
use crate::dsl::table::Change;
use crate::log::Headers;
use crate::processor::{Node, ProcessError, Record, TaskContext};
use crate::state::{Layout, Segments, WindowEntry, WindowStore};
use crate::window::{SlidingWindows, Window, Windowed};

/// A window is needed for as long as a record may come whose own window touches it.
const fn retention_min(windows: SlidingWindows) -> i64 {
    windows
        .time_difference_ms()
        .saturating_mul(2)
        .saturating_add(windows.grace_ms())
}

pub(super) fn draw<K: StoreKey, A: Clone + 'static>(
    drawing: Drawing<'_>,
    windows: SlidingWindows,
    materialized: Materialized<K, A>,
) -> Drawn<K, A, WindowStore<K, A>> {
    let retention_min = retention_min(windows);
    let on_close = drawing.emit.on_close;
    let spec = WindowSpec {
        size: windows.time_difference_ms(),
        // The end belongs to the window, which is open while stream time is just there. Kafka
        // Streams' `suppress` takes it for closed then, and sends what comes later once more.
        grace: windows.grace_ms().saturating_add(1),
        retention_min,
        problem: None,
    };
    drawing.windows(materialized, &spec, |retention| {
        Layout::Window(if on_close {
            super::segments_on_close(retention, super::emit_step(retention_min))
        } else {
            Segments::new(retention)
        })
    })
}

pub(super) fn attach<K: StoreKey, V: Clone + 'static, A: Clone + 'static>(
    drawn: &Drawn<K, A, WindowStore<K, A>>,
    input: &Input<'_, K, V>,
    windows: SlidingWindows,
    fold: impl Fold<K, V, A>,
) {
    let step = super::emit_step(retention_min(windows));
    drawn.attach(input, fold, move |windowing, store| {
        Box::new(SlidingWindowNode {
            windowing,
            windows,
            step,
            store,
        })
    });
}

struct SlidingWindowNode<F, K: StoreKey, V, A> {
    windowing: Windowing<F, K, V, A>,
    windows: SlidingWindows,
    step: i64,
    store: WindowStore<K, A>,
}

/// An aggregate with the time of its latest record.
type Aggregate<A> = Option<(A, Timestamp)>;

/// What the windows around a record say, once they are updated.
struct Around<A> {
    starts: BTreeSet<Timestamp>,
    /// Of the records in front of this one that its own window may hold.
    left: Aggregate<A>,
    /// Of the records behind this one.
    right: Aggregate<A>,
    left_exists: bool,
    right_exists: bool,
    /// The time of the record in front of this one.
    previous: Option<Timestamp>,
}

impl<A> Default for Around<A> {
    fn default() -> Self {
        Self {
            starts: BTreeSet::new(),
            left: None,
            right: None,
            left_exists: false,
            right_exists: false,
            previous: None,
        }
    }
}

impl<F, K, V, A> Node<K, V> for SlidingWindowNode<F, K, V, A>
where
    K: StoreKey,
    V: Clone + 'static,
    A: Clone + 'static,
    F: Fold<K, V, A>,
{
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        let nulls = &self.windowing.nulls;
        if nulls.is_key(&record.key) || nulls.is_value(&record.value) {
            cx.drop_record();
            return Ok(());
        }
        self.windowing.check_time(record.timestamp)?;
        let observed = self.windowing.time.observe(cx, record.timestamp);
        let close_time = observed.saturating_sub(self.windows.grace_ms());
        // ORDER: closed windows are sent before the put that may make the store forget them.
        if self.windowing.emit.on_close {
            self.emit_closed(cx, &record.headers, close_time)?;
        }
        let difference = self.windows.time_difference_ms();
        // The latest window that could still take the record.
        if record.timestamp.saturating_add(difference) < close_time {
            cx.drop_record();
            return self.windowing.too_late(cx, record);
        }
        if record.timestamp < difference {
            self.process_early(cx, &record, close_time)
        } else {
            self.process_regular(cx, &record, close_time)
        }
    }
}

impl<F, K, V, A> SlidingWindowNode<F, K, V, A>
where
    K: StoreKey,
    V: Clone + 'static,
    A: Clone + 'static,
    F: Fold<K, V, A>,
{
    fn process_regular(
        &mut self,
        cx: &mut TaskContext,
        record: &Record<K, V>,
        close_time: Timestamp,
    ) -> Result<(), ProcessError> {
        let Some(around) = self.look_around(cx, record, close_time)? else {
            return Ok(());
        };
        let difference = self.windows.time_difference_ms();
        let time = record.timestamp;
        if let Some(previous) = around.previous {
            let window = self.windows.right_of(previous);
            if !around.starts.contains(&window.start()) && window.end() >= time {
                self.update(cx, window, None, record, close_time)?;
            }
        }
        if !around.left_exists {
            let reaches = |previous: &Timestamp| time.saturating_sub(difference) <= *previous;
            let left = around
                .left
                .filter(|_| around.previous.as_ref().is_some_and(reaches));
            let before = left.map(|(aggregate, _)| (aggregate, time));
            self.update(cx, self.windows.left_of(time), before, record, close_time)?;
        }
        if !around.right_exists {
            self.begin_right(cx, record, around.right)?;
        }
        Ok(())
    }

    /// Updates the windows that hold the record, the latest first, and gathers what the others need.
    /// `None` when there is nothing to make: another record has the same time.
    fn look_around(
        &mut self,
        cx: &mut TaskContext,
        record: &Record<K, V>,
        close_time: Timestamp,
    ) -> Result<Option<Around<A>>, ProcessError> {
        let time = record.timestamp;
        let difference = self.windows.time_difference_ms();
        let from = time.saturating_sub(difference.saturating_mul(2)).max(0);
        let to = time.saturating_add(1);
        let mut around = Around::default();
        for entry in self.store.backward_fetch_range(&record.key, from..=to)? {
            let WindowEntry {
                start,
                value,
                timestamp: latest,
                ..
            } = entry?;
            around.starts.insert(start);
            let window = self.windows.window_at(start);
            let found = Some((value, latest));
            if start == to {
                around.right_exists = true;
            } else if window.end() > time {
                if around.right.is_none() {
                    around.right.clone_from(&found);
                }
                self.update(cx, window, found, record, close_time)?;
            } else if window.end() == time {
                around.left_exists = true;
                self.update(cx, window, found, record, close_time)?;
                if latest >= time {
                    return Ok(None);
                }
                around.previous = Some(latest);
            } else {
                around.left = found;
                around.previous = Some(latest);
                break;
            }
        }
        Ok(Some(around))
    }

    /// A record so close to 1970 that its window would begin before: all of those share the first
    /// window there is.
    fn process_early(
        &mut self,
        cx: &mut TaskContext,
        record: &Record<K, V>,
        close_time: Timestamp,
    ) -> Result<(), ProcessError> {
        let time = record.timestamp;
        let to = time.saturating_add(1);
        let mut around = Around::default();
        let mut first = None;
        for entry in self.store.fetch_range(&record.key, 0..=to)? {
            let WindowEntry {
                start,
                value,
                timestamp: latest,
                ..
            } = entry?;
            around.starts.insert(start);
            let found = Some((value, latest));
            if start == 0 {
                first = found;
                around.previous = Some(latest).filter(|latest| *latest < time);
            } else if start <= time {
                around.right.clone_from(&found);
                let window = self.windows.window_at(start);
                self.update(cx, window, found, record, close_time)?;
            } else {
                around.right_exists = true;
            }
        }
        // With records on both sides there would be a window in between; so all are behind this one.
        if around.right.is_none() {
            around.right = first.clone().filter(|(_, latest)| *latest > time);
        }
        if !around.right_exists {
            self.begin_right(cx, record, around.right)?;
        }
        if let Some(previous) = around.previous {
            let window = self.windows.right_of(previous);
            if !around.starts.contains(&window.start()) {
                self.update(cx, window, None, record, close_time)?;
            }
        }
        self.update(cx, self.windows.window_at(0), first, record, close_time)
    }

    /// Makes the window that begins after the record, of the records behind it, if there are any.
    fn begin_right(
        &mut self,
        cx: &mut TaskContext,
        record: &Record<K, V>,
        right: Aggregate<A>,
    ) -> Result<(), ProcessError> {
        let Some((aggregate, latest)) = right.filter(|(_, latest)| *latest > record.timestamp)
        else {
            return Ok(());
        };
        let window = self.windows.right_of(record.timestamp);
        let change = Change {
            new: Some(aggregate),
            old: None,
        };
        self.windowing
            .write(cx, &self.store, window, change, latest, record)
    }

    /// Adds the record to a window that is open.
    fn update(
        &mut self,
        cx: &mut TaskContext,
        window: Window,
        before: Aggregate<A>,
        record: &Record<K, V>,
        close_time: Timestamp,
    ) -> Result<(), ProcessError> {
        if window.end() < close_time {
            cx.drop_record();
            return Ok(());
        }
        let timestamp = before.as_ref().map_or(record.timestamp, |(_, latest)| {
            record.timestamp.max(*latest)
        });
        let before = before.map(|(aggregate, _)| aggregate);
        let old = before.clone().filter(|_| self.windowing.send_old);
        let new = self
            .windowing
            .fold(&record.key, record.value.clone(), before)?;
        let change = Change { new, old };
        self.windowing
            .write(cx, &self.store, window, change, timestamp, record)
    }

    /// Sends the windows that have closed since the last time, by start, then by key.
    fn emit_closed(
        &mut self,
        cx: &mut TaskContext,
        headers: &Headers,
        close_time: Timestamp,
    ) -> Result<(), ProcessError> {
        let difference = self.windows.time_difference_ms();
        let name = Arc::clone(&self.windowing.store_name);
        let last = cx.metadata(&name);
        // Both ends belong to a window: one that ends at the close time is open.
        let upper = close_time.saturating_sub(difference).saturating_sub(1);
        let lower = last.map_or(0, |last| last.saturating_sub(difference).max(0));
        if upper < lower || last.is_some_and(|last| close_time.saturating_sub(last) < self.step) {
            return Ok(());
        }
        let closed = self.store.fetch_all(lower..=upper);
        let mut closed = closed.collect::<Result<Vec<_>, _>>()?;
        // Within a segment they come by key; stable, so that keys stay in order.
        closed.sort_by_key(|entry| entry.start);
        for entry in closed {
            let window = self.windows.window_at(entry.start);
            let key = Windowed::new(entry.key, window);
            self.windowing
                .send_closed(cx, key, entry.value, entry.timestamp, headers)?;
        }
        cx.set_metadata(&name, close_time);
        Ok(())
    }
}
