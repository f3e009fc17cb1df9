//! Punctuators: calls by stream time or wall-clock time.
//!
//! Kafka Streams' `schedule(interval, type, callback)`. The callback is the processor's own
//! `punctuate`, told apart by [`PunctuationId`].
//!
//! Each schedule has a grid, `start + n * interval`, and fires at the first time it is looked at on or
//! behind a point of it; points that were skipped fire once (`PunctuationSchedule`):
//!
//! | | start | first due |
//! | --- | --- | --- |
//! | stream time | 0 | at once, as soon as there is a stream time |
//! | wall clock | now | after an interval |
//! | anchored (KIP-1146), not passed | the anchor | at the anchor |
//! | anchored, passed | the anchor | at the next point of the grid |

use std::collections::BTreeMap;
use std::time::Duration;

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
    next: Timestamp,
}

impl Schedule {
    /// Moves on from a point that has been due, beyond `now`.
    const fn pass(&mut self, now: Timestamp) {
        let missed = (now - self.next) / self.interval;
        let passed = (missed + 1).saturating_mul(self.interval);
        self.next = self.next.saturating_add(passed);
    }
}

/// All schedules of a task. Changes made while a record is in progress can be rolled back.
#[derive(Debug, Default)]
pub struct Schedules {
    next_id: u64,
    active: BTreeMap<PunctuationId, Schedule>,
    undo: Vec<(PunctuationId, Option<Schedule>)>,
}

impl Schedules {
    /// Adds a schedule for the processor node with index `node`; `now` is the wall-clock time.
    pub(crate) fn add(
        &mut self,
        node: usize,
        interval: Duration,
        kind: PunctuationType,
        now: Timestamp,
    ) -> PunctuationId {
        let interval = millis(interval);
        let next = match kind {
            PunctuationType::StreamTime => 0,
            PunctuationType::WallClockTime => now.saturating_add(interval),
        };
        self.insert(Schedule {
            node,
            interval,
            kind,
            next,
        })
    }

    /// Adds a schedule whose grid begins at `start`; `now` is the time of its kind, if there is one.
    pub(crate) fn add_anchored(
        &mut self,
        node: usize,
        start: Timestamp,
        interval: Duration,
        kind: PunctuationType,
        now: Option<Timestamp>,
    ) -> PunctuationId {
        let mut schedule = Schedule {
            node,
            interval: millis(interval),
            kind,
            // As Kafka Streams has it, time begins at the epoch.
            next: start.max(0),
        };
        if let Some(now) = now
            && schedule.next < now
        {
            schedule.pass(now);
        }
        self.insert(schedule)
    }

    fn insert(&mut self, schedule: Schedule) -> PunctuationId {
        let id = PunctuationId(self.next_id);
        self.next_id += 1;
        self.active.insert(id, schedule);
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
    /// beyond `now`, on its grid.
    pub(crate) fn next_due(
        &mut self,
        kind: PunctuationType,
        now: Timestamp,
    ) -> Option<(usize, Punctuation)> {
        for (&id, schedule) in &mut self.active {
            if schedule.kind != kind || schedule.next > now {
                continue;
            }
            schedule.pass(now);
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
            .any(|schedule| schedule.kind == kind && schedule.next <= now)
    }

    /// Returns the earliest wall-clock time at which something is due.
    #[must_use]
    pub fn next_wall_clock(&self) -> Option<Timestamp> {
        self.active
            .values()
            .filter(|schedule| schedule.kind == PunctuationType::WallClockTime)
            .map(|schedule| schedule.next)
            .min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty()
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

/// An interval in milliseconds, at least one.
fn millis(interval: Duration) -> i64 {
    i64::try_from(interval.as_millis())
        .unwrap_or(i64::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [PunctuationType; 2] =
        [PunctuationType::StreamTime, PunctuationType::WallClockTime];

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The times out of `times`, in turn, at which something fires.
    fn fires(
        schedules: &mut Schedules,
        kind: PunctuationType,
        times: impl IntoIterator<Item = Timestamp>,
    ) -> Vec<Timestamp> {
        let mut fired = Vec::new();
        for time in times {
            let due = schedules.is_due(kind, time);
            let found = schedules.next_due(kind, time);
            assert_eq!(due, found.is_some(), "at {time}");
            fired.extend(found.map(|(_, punctuation)| punctuation.timestamp));
            assert!(schedules.next_due(kind, time).is_none(), "once at {time}");
        }
        fired
    }

    #[test]
    fn stream_time_fires_with_the_first_record_and_then_on_multiples_of_the_interval() {
        let mut schedules = Schedules::default();
        schedules.add(0, ms(10), PunctuationType::StreamTime, 0);
        let fired = fires(&mut schedules, PunctuationType::StreamTime, 105..=131);
        assert_eq!(fired, [105, 110, 120, 130]);
    }

    #[test]
    fn wall_clock_time_fires_after_each_interval_since_it_was_scheduled() {
        let mut schedules = Schedules::default();
        schedules.add(0, ms(10), PunctuationType::WallClockTime, 105);
        assert_eq!(schedules.next_wall_clock(), Some(115));
        let fired = fires(&mut schedules, PunctuationType::WallClockTime, 105..=131);
        assert_eq!(fired, [115, 125]);
    }

    #[test]
    fn an_anchor_in_the_future_is_the_first_time_to_fire() {
        for kind in KINDS {
            let mut schedules = Schedules::default();
            schedules.add_anchored(0, 120, ms(10), kind, Some(105));
            assert_eq!(
                fires(&mut schedules, kind, 105..=131),
                [120, 130],
                "{kind:?}"
            );
        }
    }

    #[test]
    fn an_anchor_that_is_now_fires_now() {
        for kind in KINDS {
            let mut schedules = Schedules::default();
            schedules.add_anchored(0, 105, ms(10), kind, Some(105));
            assert_eq!(
                fires(&mut schedules, kind, 105..=116),
                [105, 115],
                "{kind:?}"
            );
        }
    }

    #[test]
    fn an_anchor_in_the_past_fires_at_the_next_point_of_its_grid() {
        for kind in KINDS {
            let mut schedules = Schedules::default();
            schedules.add_anchored(0, 3, ms(10), kind, Some(105));
            assert_eq!(
                fires(&mut schedules, kind, 105..=124),
                [113, 123],
                "{kind:?}"
            );
        }
    }

    #[test]
    fn an_anchor_before_any_stream_time_fires_with_the_first_record_that_has_passed_it() {
        let kind = PunctuationType::StreamTime;
        let mut schedules = Schedules::default();
        schedules.add_anchored(0, 100, ms(10), kind, None);
        assert_eq!(
            fires(&mut schedules, kind, [99, 107, 109, 110, 111]),
            [107, 110]
        );
    }

    #[test]
    fn points_that_were_skipped_fire_once() {
        for kind in KINDS {
            let mut schedules = Schedules::default();
            schedules.add_anchored(0, 100, ms(10), kind, Some(100));
            assert_eq!(
                fires(&mut schedules, kind, [100, 158, 159, 160]),
                [100, 158, 160],
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_schedule_of_a_record_that_is_rolled_back_never_fires() {
        let kind = PunctuationType::WallClockTime;
        let mut schedules = Schedules::default();
        schedules.add_anchored(0, 100, ms(10), kind, Some(100));
        schedules.rollback();
        assert!(fires(&mut schedules, kind, 100..=120).is_empty());
    }
}
