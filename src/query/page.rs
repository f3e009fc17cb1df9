//! Pages of a store's committed values.
//!
//! # Invariants
//! - The order is that of partitions, within one of keys, so that a cursor means the same in every
//!   process and at every time: what is written meanwhile appears where it belongs, nothing twice.
//! - A page looks at a bounded number of entries. One that found little within that bound is short, and
//!   goes on where it ended.

use serde_json::Value;

use super::{Fixed, QueryError, QueryRegistry, ServingStore, while_serving};
use crate::format::value;
use crate::processor::BoxError;
use crate::serde::TextCodec;
use crate::state::ReadHandle;
use crate::topology::TaskId;

/// Entries that are read at a time.
const CHUNK: usize = 256;

/// Where a page ended: the partition and key of its last entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The key's bytes; everything up to it has been looked at.
    pub key: Box<[u8]>,
}

/// Some of a store's values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The values, as JSON.
    pub values: Vec<Value>,
    /// Where to go on; `None` at the end.
    pub next: Option<Position>,
    /// Partitions of the store that are served here.
    pub here: Vec<i32>,
    /// Partitions of the store that are not served here, and so not looked at.
    pub not_here: Vec<i32>,
}

/// How much a page holds and costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Values at most.
    pub values: usize,
    /// Entries looked at, at most.
    pub entries: usize,
}

impl QueryRegistry {
    /// Returns the values of a store after a position for which `matches` holds.
    ///
    /// # Errors
    /// [`QueryError::UnknownStore`], [`QueryError::Failed`].
    pub fn page(
        &self,
        store: &str,
        after: Option<Position>,
        limits: PageLimits,
        matches: impl Fn(&Value) -> bool,
    ) -> Result<Page, QueryError> {
        self.page_serving(&Fixed(store), after, limits, matches)
    }

    /// As [`page`](Self::page), of the store that serves. What a task has on a page is of one
    /// generation.
    ///
    /// # Errors
    /// As [`page`](Self::page).
    pub fn page_serving(
        &self,
        of: &dyn ServingStore,
        after: Option<Position>,
        limits: PageLimits,
        matches: impl Fn(&Value) -> bool,
    ) -> Result<Page, QueryError> {
        let (tasks, codec, partitions) = self.handles(of.any())?;
        let served = |partition: i32| {
            tasks
                .keys()
                .any(|task: &TaskId| task.partition == partition)
        };
        let mut page = Page {
            here: tasks.keys().map(|task| task.partition).collect(),
            not_here: (0..partitions)
                .filter(|partition| !served(*partition))
                .collect(),
            ..Page::default()
        };
        let mut looked_at = 0;
        for (task, handle) in &tasks {
            let from = match &after {
                Some(after) if after.partition > task.partition => continue,
                Some(after) if after.partition == task.partition => following(&after.key),
                Some(_) | None => Vec::new(),
            };
            let before = (page.values.len(), looked_at);
            let last = while_serving(of, handle, |store, generation| {
                page.values.truncate(before.0);
                looked_at = before.1;
                let (first, end) = of.keys_of(generation);
                let entries = Entries {
                    handle,
                    store,
                    codec: &*codec,
                    end,
                };
                let mut from = from.clone();
                of.move_key(&mut from, generation);
                from = from.max(first);
                entries.collect(
                    &mut from,
                    limits,
                    &matches,
                    (&mut page.values, &mut looked_at),
                )
            })?;
            if let Some(key) = last {
                let partition = task.partition;
                page.next = Some(Position { partition, key });
                return Ok(page);
            }
        }
        Ok(page)
    }
}

/// The entries of a store's task.
struct Entries<'a> {
    handle: &'a ReadHandle,
    store: &'a str,
    codec: &'a dyn TextCodec,
    /// The key before which they end.
    end: Option<Vec<u8>>,
}

impl Entries<'_> {
    /// Adds the values from a key on; returns the key at which the page is full.
    fn collect(
        &self,
        from: &mut Vec<u8>,
        limits: PageLimits,
        matches: &impl Fn(&Value) -> bool,
        (values, looked_at): (&mut Vec<Value>, &mut usize),
    ) -> Result<Option<Box<[u8]>>, QueryError> {
        let failed = |source: BoxError| QueryError::Failed {
            store: self.store.to_owned(),
            source,
        };
        loop {
            let end = self.end.as_deref();
            let chunk = self.handle.range(self.store, from, end, false, CHUNK);
            let chunk = chunk.map_err(|error| QueryError::of_state(self.store, error))?;
            let is_last = chunk.len() < CHUNK;
            for (key, stored) in chunk {
                let (_, plain) = value::decode(&stored)
                    .ok_or_else(|| failed("stored value is too short".into()))?;
                let shown = self.codec.to_json(plain).map_err(failed)?;
                *looked_at += 1;
                *from = following(&key);
                if matches(&shown) {
                    values.push(shown);
                }
                if values.len() >= limits.values || *looked_at >= limits.entries {
                    return Ok(Some(key));
                }
            }
            if is_last {
                return Ok(None);
            }
        }
    }
}

/// Returns the first key after `key`.
fn following(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
