//! The events of all aggregates in a period, by type and by actor.
//!
//! # Order and pages
//! Every task has its own index; the tasks served here are read side by side and merged in the order of
//! their keys (time, aggregate, version). A cursor is the key up to which everything has been looked at,
//! so that it means the same to whoever serves the next page. A search that finds little looks at
//! a bounded number of entries per page: such a page may be short, or empty, and still have a cursor.

use std::ops::ControlFlow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;

use super::reader::{PageLimit, upcast};
use super::{AggregateHistory, HistoryReadError, PAGE_ENTRIES_MAX, failed, state_failed};
use crate::clock::Timestamp;
use crate::event_sourcing::aggregate::Aggregate;
use crate::event_sourcing::archived::StoredEvent;
use crate::event_sourcing::decision::ReadEntry;
use crate::event_sourcing::event_index::{EventIndexKey, IndexedEvent, time_bytes};
use crate::format::value;
use crate::query::QueryRegistry;
use crate::state::ReadHandle;

/// How many entries of a task's index one page looks at.
const LOOKED_AT_MAX: usize = 20_000;

/// Which events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventPeriod {
    /// From this time on.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
    /// Of this type only.
    pub event_type: Option<String>,
    /// Of this actor only (`metadata.actorId`).
    pub actor: Option<String>,
    /// How many at most; at least 1 and at most [`PAGE_ENTRIES_MAX`](super::PAGE_ENTRIES_MAX).
    pub limit: usize,
    /// Where the page before has ended.
    pub cursor: Option<String>,
}

/// A page of events of all aggregates of a type.
#[derive(Debug)]
#[non_exhaustive]
pub struct EventsOfPeriod {
    /// Envelopes in the current schema version, in the order of time.
    pub events: Vec<Box<RawValue>>,
    /// Where the next page begins; `None` when all has been looked at.
    pub cursor: Option<String>,
    /// The partitions that were read.
    pub partitions: Vec<i32>,
    /// The partitions that are not served here: their events are missing.
    pub partitions_missing: Vec<i32>,
}

/// An event that was found, and where.
struct Hit<'a> {
    key: Vec<u8>,
    handle: &'a ReadHandle,
}

/// What a look into one task's index has found.
struct Look<'a> {
    hits: Vec<Hit<'a>>,
    /// The last key looked at, when more may follow.
    stopped_at: Option<Vec<u8>>,
}

impl<A: Aggregate> AggregateHistory<A> {
    /// Returns a page of the events of all aggregates served here, in the order of their time.
    ///
    /// # Errors
    /// [`HistoryReadError`].
    pub fn events_of_period(
        &self,
        queries: &QueryRegistry,
        period: &EventPeriod,
    ) -> Result<EventsOfPeriod, HistoryReadError> {
        let index = self.stores.index.as_deref();
        let index = index.ok_or(HistoryReadError::NoIndex(A::TYPE))?;
        let (from, to) = bounds(period)?;
        let handles = queries.store_handles(index)?;
        let limit = period.limit.clamp(1, PAGE_ENTRIES_MAX);
        let mut hits = Vec::new();
        // Beyond the first key at which a look has stopped, another may not have looked yet.
        let mut safe: Option<Vec<u8>> = None;
        for handle in handles.served.values() {
            let look = look(handle, index, (&from, to.as_deref()), period, limit)?;
            hits.extend(look.hits);
            safe = match (safe, look.stopped_at) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        hits.retain(|hit| safe.as_ref().is_none_or(|safe| hit.key <= *safe));
        hits.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let mut page = PageLimit::new(limit);
        let mut stored = Vec::with_capacity(hits.len().min(limit));
        let mut last = None;
        let mut cut = false;
        for hit in &hits {
            let (key, entry) = self.fetch(index, hit)?;
            if !page.takes(entry.event_bytes()) {
                cut = true;
                break;
            }
            stored.push((key.event, entry));
            last = Some(&hit.key);
        }
        let whole = self.stores.archive.bring_back(stored)?;
        let mut events = Vec::with_capacity(whole.len());
        for (key, entry) in &whole {
            events.push(upcast(&ReadEntry::<A>::parse(key, entry)?)?);
        }
        let cursor = if cut { last } else { safe.as_ref() };
        Ok(EventsOfPeriod {
            cursor: cursor.map(|key| URL_SAFE_NO_PAD.encode(key)),
            events,
            partitions_missing: handles.missing(),
            partitions: handles.served.into_keys().collect(),
        })
    }

    /// Reads an event that the index points to.
    fn fetch(
        &self,
        index: &str,
        hit: &Hit<'_>,
    ) -> Result<(EventIndexKey, StoredEvent), HistoryReadError> {
        let store = &self.stores.history;
        let key = EventIndexKey::decode(&hit.key).map_err(|error| failed(index, error.into()))?;
        let mut bytes = Vec::new();
        key.event.encode(&mut bytes);
        let stored = hit.handle.get(store, &bytes);
        let stored = stored.map_err(|error| state_failed(store, error))?;
        let plain = stored.as_deref().and_then(value::decode);
        let (_, plain) = plain.ok_or_else(|| {
            let event = &key.event;
            let gap = format!(
                "the index by time has version {} of {}, and history has not",
                event.version, event.aggregate_id
            );
            failed(store, gap.into())
        })?;
        let entry = StoredEvent::decode(plain).map_err(|error| failed(store, error.into()))?;
        Ok((key, entry))
    }
}

/// Returns the keys to look at: inclusive, exclusive.
fn bounds(period: &EventPeriod) -> Result<(Vec<u8>, Option<Vec<u8>>), HistoryReadError> {
    let mut from = period
        .from
        .map(|from| time_bytes(from).to_vec())
        .unwrap_or_default();
    if let Some(cursor) = &period.cursor {
        let bad = || HistoryReadError::BadCursor(cursor.clone());
        let mut key = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
        EventIndexKey::decode(&key).map_err(|_| bad())?;
        // The first key behind it.
        key.push(0);
        from = from.max(key);
    }
    Ok((from, period.to.map(|to| time_bytes(to).to_vec())))
}

/// Looks into the index of one task.
fn look<'a>(
    handle: &'a ReadHandle,
    index: &str,
    bounds: (&[u8], Option<&[u8]>),
    period: &EventPeriod,
    limit: usize,
) -> Result<Look<'a>, HistoryReadError> {
    let mut hits = Vec::new();
    let mut looked_at = 0;
    let wanted = |event: &IndexedEvent| {
        let fits = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        fits(&period.event_type, Some(&event.event_type))
            && fits(&period.actor, event.actor.as_deref())
    };
    let stopped_at = handle
        .scan(index, bounds, false, |key, stored| {
            let plain = value::decode(stored).map_or(&[][..], |(_, plain)| plain);
            match serde_json::from_slice::<IndexedEvent>(plain) {
                Ok(event) if wanted(&event) => hits.push(Hit {
                    key: key.to_vec(),
                    handle,
                }),
                Ok(_) => {}
                Err(error) => return ControlFlow::Break(Err(error)),
            }
            looked_at += 1;
            // One more than asked for tells that there is one more.
            if hits.len() > limit || looked_at >= LOOKED_AT_MAX {
                return ControlFlow::Break(Ok(key.to_vec()));
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| state_failed(index, error))?
        .transpose()?;
    Ok(Look { hits, stopped_at })
}
