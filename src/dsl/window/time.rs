//! Tumbling, hopping and unlimited windows. Kafka Streams' `KStreamWindowAggregate`.

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
use crate::window::{Window, Windowed, Windows};

pub(super) fn draw<K: StoreKey, A: Clone + 'static>(
    drawing: Drawing<'_>,
    windows: Windows,
    materialized: Materialized<K, A>,
) -> Drawn<K, A, WindowStore<K, A>> {
    let (size, grace) = (windows.size_ms(), windows.grace_ms());
    let on_close = drawing.emit.on_close;
    let unlimited = matches!(windows, Windows::Unlimited(_));
    let advance = match windows {
        Windows::Time(windows) => windows.advance_ms(),
        Windows::Unlimited(_) => i64::MAX,
    };
    let problem = windows
        .problem()
        .or_else(|| (unlimited && on_close).then_some("a window without end never closes"));
    let spec = WindowSpec {
        size,
        grace,
        retention_min: size.saturating_add(grace),
        problem,
    };
    drawing.windows(materialized, &spec, |retention| {
        // A segment per start: what closes at once lies together, and is found by point.
        Layout::Window(if on_close {
            Segments::with_interval(retention, advance)
        } else {
            Segments::new(retention)
        })
    })
}

pub(super) fn attach<K: StoreKey, V: Clone + 'static, A: Clone + 'static>(
    drawn: &Drawn<K, A, WindowStore<K, A>>,
    input: &Input<'_, K, V>,
    windows: Windows,
    fold: impl Fold<K, V, A>,
) {
    drawn.attach(input, fold, move |windowing, store| {
        Box::new(TimeWindowNode {
            windowing,
            windows,
            store,
        })
    });
}

struct TimeWindowNode<F, K: StoreKey, V, A> {
    windowing: Windowing<F, K, V, A>,
    windows: Windows,
    store: WindowStore<K, A>,
}

impl<F, K, V, A> Node<K, V> for TimeWindowNode<F, K, V, A>
where
    K: StoreKey,
    V: Clone + 'static,
    A: Clone + 'static,
    F: Fold<K, V, A>,
{
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        if self.windowing.nulls.is_key(&record.key) {
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
        let mut taken = false;
        let mut dropped = false;
        for window in self.windows.windows_for(record.timestamp) {
            if window.end() > close_time {
                taken = true;
                self.update(cx, window, &record)?;
            } else {
                dropped = true;
                cx.drop_record();
            }
        }
        if dropped && !taken {
            return self.windowing.too_late(cx, record);
        }
        Ok(())
    }
}

impl<F, K, V, A> TimeWindowNode<F, K, V, A>
where
    K: StoreKey,
    V: Clone + 'static,
    A: Clone + 'static,
    F: Fold<K, V, A>,
{
    fn update(
        &mut self,
        cx: &mut TaskContext,
        window: Window,
        record: &Record<K, V>,
    ) -> Result<(), ProcessError> {
        let key = &record.key;
        let before = self.store.fetch_with_timestamp(key, window.start())?;
        let timestamp = before
            .as_ref()
            .map_or(record.timestamp, |(_, time)| record.timestamp.max(*time));
        let before = before.map(|(aggregate, _)| aggregate);
        let old = before.clone().filter(|_| self.windowing.send_old);
        let new = self.windowing.fold(key, record.value.clone(), before)?;
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
        let Windows::Time(windows) = self.windows else {
            return Ok(());
        };
        let last = cx.metadata(&self.windowing.store_name);
        let (size, advance) = (windows.size_ms(), windows.advance_ms());
        // The latest start whose window has closed; its end is excluded.
        let upper = close_time.saturating_sub(size);
        let lower = last.map_or(0, |last| {
            last.saturating_sub(size).max(-1).saturating_add(1)
        });
        if upper < 0 || upper / advance * advance < lower {
            return Ok(());
        }
        for entry in self.store.fetch_all(lower..=upper) {
            let WindowEntry {
                key,
                start,
                value,
                timestamp,
            } = entry?;
            let window = Window::new(start, start.saturating_add(size));
            let key = Windowed::new(key, window);
            self.windowing
                .send_closed(cx, key, value, timestamp, headers)?;
        }
        cx.set_metadata(&Arc::clone(&self.windowing.store_name), close_time);
        Ok(())
    }
}
