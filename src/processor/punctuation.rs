//! Punctuators: calls by stream time or wall-clock time.
//!
//! Kafka Streams' `schedule(interval, type, callback)`. The callback is the processor's own
//! `punctuate`, told apart by [`PunctuationId`]. As in Kafka Streams a stream-time punctuator fires
//! first as soon as the first record sets the time, and intervals that were skipped fire once.

use std::collections::BTreeMap;

use crate::clock::Timestamp;

/// Names one schedule of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PunctuationId(u64);

/// What moves a punctuator's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PunctuationType {
    /// The highest record timestamp the task has seen.
    StreamTime,
    /// The clock.
    WallClockTime,
}

/// A punctuation that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Punctuation {
    /// The schedule, as returned by `schedule`.
    pub id: PunctuationId,
    /// Which time it follows.
    pub kind: PunctuationType,
    /// The time it fires for: stream time or wall-clock time now.
    pub timestamp: Timestamp,
}

#[derive(Debug, Clone)]
struct Schedule {
    node: usize,
    interval: i64,
    kind: PunctuationType,
    /// `None` until a stream-time schedule has seen a first record.
    next: Option<Timestamp>,
}

/// All schedules of a task. Changes made while a record is in progress can be rolled back.
#[derive(Debug, Default)]
pub struct Schedules {
    next_id: u64,
    active: BTreeMap<PunctuationId, Schedule>,
    undo: Vec<(PunctuationId, Option<Schedule>)>,
}

impl Schedules {
    /// Adds a schedule for the processor node with index `node`.
    pub(crate) fn add(
        &mut self,
        node: usize,
        interval: i64,
        kind: PunctuationType,
        now: Timestamp,
    ) -> PunctuationId {
        let interval = interval.max(1);
        let id = PunctuationId(self.next_id);
        self.next_id += 1;
        let next = match kind {
            PunctuationType::StreamTime => None,
            PunctuationType::WallClockTime => Some(now.saturating_add(interval)),
        };
        self.active.insert(
            id,
            Schedule {
                node,
                interval,
                kind,
                next,
            },
        );
        self.undo.push((id, None));
        id
    }

    /// Cancels a schedule; unknown ids are ignored, as a second cancel is.
    pub(crate) fn cancel(&mut self, id: PunctuationId) {
        if let Some(schedule) = self.active.remove(&id) {
            self.undo.push((id, Some(schedule)));
        }
    }

    /// Returns one punctuation that is due with the index of its node, and moves its next time
    /// beyond `now`, on the grid its first firing set.
    pub(crate) fn next_due(
        &mut self,
        kind: PunctuationType,
        now: Timestamp,
    ) -> Option<(usize, Punctuation)> {
        for (&id, schedule) in &mut self.active {
            if schedule.kind != kind {
                continue;
            }
            let due = schedule.next.unwrap_or(now);
            if due > now {
                continue;
            }
            let missed = (now - due) / schedule.interval;
            schedule.next =
                Some(due.saturating_add((missed + 1).saturating_mul(schedule.interval)));
            return Some((
                schedule.node,
                Punctuation {
                    id,
                    kind,
                    timestamp: now,
                },
            ));
        }
        None
    }

    /// Returns whether something is due; costs nothing where nothing is scheduled.
    pub(crate) fn is_due(&self, kind: PunctuationType, now: Timestamp) -> bool {
        self.active
            .values()
            .any(|schedule| schedule.kind == kind && schedule.next.is_none_or(|due| due <= now))
    }

    /// Returns the earliest wall-clock time at which something is due.
    #[must_use]
    pub fn next_wall_clock(&self) -> Option<Timestamp> {
        self.active
            .values()
            .filter(|schedule| schedule.kind == PunctuationType::WallClockTime)
            .filter_map(|schedule| schedule.next)
            .min()
    }

    pub(crate) fn release(&mut self) {
        self.undo.clear();
    }

    pub(crate) fn rollback(&mut self) {
        for (id, before) in self.undo.drain(..).rev() {
            match before {
                None => drop(self.active.remove(&id)),
                Some(schedule) => drop(self.active.insert(id, schedule)),
            }
        }
    }
}
