//! Sessions. Kafka Streams' `KStreamSessionWindowAggregate`.

use std::sync::Arc;

use super::draw::{Drawing, Drawn, Input, WindowSpec};
use super::{Fold, Windowing};
use crate::clock::Timestamp;
use crate::dsl::builder::StoreKey;
use crate::dsl::config::Materialized;
use crate::dsl::table::Change;
use crate::log::Headers;
use crate::processor::{BoxError, Node, ProcessError, Record, TaskContext};
use crate::state::{Layout, Segments, SessionStore};
use crate::window::{SessionWindows, Window, Windowed};

/// Merges a session into what a record starts from.
pub(in crate::dsl) trait Merge<K, A>:
    Fn(&K, Option<A>, A) -> Result<A, BoxError> + Send + Sync + 'static
{
}

impl<F, K, A> Merge<K, A> for F where
    F: Fn(&K, Option<A>, A) -> Result<A, BoxError> + Send + Sync + 'static
{
}

/// How far stream time passes a session's last record before it closes.
const fn life(windows: SessionWindows) -> i64 {
    windows
        .inactivity_gap_ms()
        .saturating_add(windows.grace_ms())
}

pub(super) fn draw<K: StoreKey, A: Clone + 'static>(
    drawing: Drawing<'_>,
    windows: SessionWindows,
    materialized: Materialized<K, A>,
) -> Drawn<K, A, SessionStore<K, A>> {
    let life = life(windows);
    let on_close = drawing.emit.on_close;
    let spec = WindowSpec {
        size: 0,
        grace: life,
        retention_min: life,
        problem: None,
    };
    drawing.sessions(materialized, &spec, |retention| {
        Layout::Session(if on_close {
            super::segments_on_close(retention, super::emit_step(life))
        } else {
            Segments::new(retention)
        })
    })
}

pub(in crate::dsl) fn attach<K: StoreKey, V: Clone + 'static, A: Clone + 'static>(
    drawn: &Drawn<K, A, SessionStore<K, A>>,
    input: &Input<'_, K, V>,
    windows: SessionWindows,
    fold: impl Fold<K, V, A>,
    merge: impl Merge<K, A>,
) {
    let step = super::emit_step(life(windows));
    let merge = Arc::new(merge);
    drawn.attach(input, fold, move |windowing, store| {
        Box::new(SessionNode {
            windowing,
            windows,
            step,
            merge: Arc::clone(&merge),
            store,
        })
    });
}

struct SessionNode<F, M, K: StoreKey, V, A> {
    windowing: Windowing<F, K, V, A>,
    windows: SessionWindows,
    step: i64,
    merge: Arc<M>,
    store: SessionStore<K, A>,
}

impl<F, M, K, V, A> Node<K, V> for SessionNode<F, M, K, V, A>
where
    K: StoreKey,
    V: Clone + 'static,
    A: Clone + 'static,
    F: Fold<K, V, A>,
    M: Merge<K, A>,
{
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        if self.windowing.nulls.is_key(&record.key) {
            cx.drop_record();
            return Ok(());
        }
        self.windowing.check_time(record.timestamp)?;
        let observed = self.windowing.time.observe(cx, record.timestamp);
        let close_time = observed
            .saturating_sub(self.windows.grace_ms())
            .saturating_sub(self.windows.inactivity_gap_ms());
        // ORDER: closed sessions are sent before the put that may make the store forget them.
        if self.windowing.emit.on_close {
            self.emit_closed(cx, &record.headers, close_time)?;
        }
        let (earliest_end, latest_start) = self.windows.reach(record.timestamp);
        let mut aggregate = None;
        let mut session = Window::new(record.timestamp, record.timestamp);
        let mut joined = Vec::new();
        for found in self
            .store
            .find_sessions(&record.key, earliest_end, latest_start)?
        {
            let (key, value) = found?;
            // What was sent as closed stays as it was sent.
            if self.windowing.emit.on_close && key.window.end() < close_time {
                continue;
            }
            let merged = (self.merge)(&record.key, aggregate, value.clone());
            aggregate = Some(merged.map_err(|source| self.windowing.failure(source))?);
            session = session.union(key.window);
            joined.push((key, value));
        }
        if session.end() < close_time {
            cx.drop_record();
            return self.windowing.too_late(cx, record);
        }
        let alone = Window::new(record.timestamp, record.timestamp);
        if session != alone {
            for (key, value) in joined {
                self.store.remove(&key)?;
                self.change(cx, key, Some(value), None)?;
            }
        }
        let new = self.windowing.fold(&record.key, record.value, aggregate)?;
        let key = Windowed::new(record.key, session);
        if let Some(new) = &new {
            let in_progress = cx.set_timestamp(session.end());
            let put = self.store.put(key.clone(), new.clone());
            cx.set_timestamp(in_progress);
            put?;
        } else {
            self.store.remove(&key)?;
        }
        self.change(cx, key, None, new)
    }
}

impl<F, M, K, V, A> SessionNode<F, M, K, V, A>
where
    K: StoreKey,
    V: Clone + 'static,
    A: Clone + 'static,
    F: Fold<K, V, A>,
    M: Merge<K, A>,
{
    /// Sends an update of a session at the time of its end, without headers as Kafka Streams does.
    fn change(
        &mut self,
        cx: &mut TaskContext,
        key: Windowed<K>,
        old: Option<A>,
        new: Option<A>,
    ) -> Result<(), ProcessError> {
        let old = old.filter(|_| self.windowing.send_old);
        let timestamp = key.window.end();
        self.windowing
            .update(cx, Record::new(key, Change { new, old }, timestamp))
    }

    /// Sends the sessions that have closed since the last time, by end, then start, then key.
    fn emit_closed(
        &mut self,
        cx: &mut TaskContext,
        headers: &Headers,
        close_time: Timestamp,
    ) -> Result<(), ProcessError> {
        let name = Arc::clone(&self.windowing.store_name);
        let last = cx.metadata(&name);
        // Both ends belong to a session: one that ends at the close time is open.
        let (lower, upper) = (last.unwrap_or(0).max(0), close_time.saturating_sub(1));
        if upper < lower || last.is_some_and(|last| close_time.saturating_sub(last) < self.step) {
            return Ok(());
        }
        let closed = self.store.find_ended(lower..=upper);
        let mut closed = closed.collect::<Result<Vec<_>, _>>()?;
        // Within a segment they come by key; stable, so that keys stay in order.
        closed.sort_by_key(|(key, _)| (key.window.end(), key.window.start()));
        for (key, value) in closed {
            let timestamp = key.window.end();
            self.windowing
                .send_closed(cx, key, value, timestamp, headers)?;
        }
        cx.set_metadata(&name, close_time);
        Ok(())
    }
}
