//! Pages of a store's committed values.
//!
//! # Invariants
//! - The order is that of partitions, within one of keys, so that a cursor means the same in every
//!   process and at every time: what is written meanwhile appears where it belongs, nothing twice.
//! - A page looks at a bounded number of entries. One that found little within that bound is short, and
//!   goes on where it ended.

use serde_json::Value;

use super::{QueryError, QueryRegistry};
use crate::format::value;
use crate::processor::BoxError;
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
        let (tasks, codec, partitions) = self.handles(store)?;
        let failed = |source: BoxError| QueryError::Failed {
            store: store.to_owned(),
            source,
        };
        let served = |partition: i32| {
            tasks
                .keys()
                .any(|task: &TaskId| task.partition == partition)
        };
        let mut page = Page {
            not_here: (0..partitions)
                .filter(|partition| !served(*partition))
                .collect(),
            ..Page::default()
        };
        let mut looked_at = 0;
        for (task, handle) in &tasks {
            let mut from = match &after {
                Some(after) if after.partition > task.partition => continue,
                Some(after) if after.partition == task.partition => following(&after.key),
                Some(_) | None => Vec::new(),
            };
            loop {
                let chunk = handle
                    .range(store, &from, None, false, CHUNK)
                    .map_err(|error| failed(error.into()))?;
                let is_last = chunk.len() < CHUNK;
                for (key, stored) in chunk {
                    let (_, plain) = value::decode(&stored)
                        .ok_or_else(|| failed("stored value is too short".into()))?;
                    let shown = codec.to_json(plain).map_err(failed)?;
                    looked_at += 1;
                    from = following(&key);
                    if matches(&shown) {
                        page.values.push(shown);
                    }
                    if page.values.len() >= limits.values || looked_at >= limits.entries {
                        let partition = task.partition;
                        page.next = Some(Position { partition, key });
                        return Ok(page);
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(page)
    }
}

/// Returns the first key after `key`.
fn following(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
