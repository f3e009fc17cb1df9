//! Which generations a partition of the source has, and what it does next: decisions without I/O.
//!
//! ```text
//!              asked, told of, or other rules             end of history        all have completed it
//! followed only ────────────────────────────▶ + building ──────────────▶ + complete ───────────────▶ the next
//!                                                 │  will never be complete everywhere  │            is followed
//!                                                 └────────▶ a newer one is begun ◀─────┘
//! ```
//! # Invariants
//! - Numbers of generations only rise, and none is used for two sets of rules or of shares.
//! - The generation that is followed gets every event, until it is known that all partitions have completed
//!   the next by the same rules.

use ::serde::{Deserialize, Serialize};

use super::super::super::stores::RebuildPosition;
use super::super::past::has_passed;
use super::super::{ProjectionPhase, ProjectionProgress};
use super::wire::News;

/// How many completed generations are told: a partition is ahead of another by one at most.
const COMPLETED_TOLD: usize = 2;

/// A generation, and the version of the rules that it is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::event_sourcing) struct Made {
    pub(in crate::event_sourcing) generation: u64,
    pub(in crate::event_sourcing) version: u32,
}

/// The generation that is kept up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::event_sourcing) struct Followed {
    pub(in crate::event_sourcing) made: Made,
    /// How many events are in.
    pub(in crate::event_sourcing) events: u64,
}

/// The generation that is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::event_sourcing) struct Next {
    pub(in crate::event_sourcing) made: Made,
    /// How many events are in.
    pub(in crate::event_sourcing) events: u64,
    /// The last event of history that is in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::event_sourcing) position: Option<RebuildPosition>,
    /// Whether all of history is.
    pub(in crate::event_sourcing) complete: bool,
}

impl Next {
    /// Returns whether a new event is due in it, or still to be met in history.
    pub(super) fn takes(&self, aggregate_id: &str, version: u64) -> bool {
        self.complete || has_passed(self.position.as_ref(), aggregate_id, version)
    }
}

/// The generations of a partition of the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::event_sourcing) struct Standing {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::event_sourcing) followed: Option<Followed>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::event_sourcing) next: Option<Next>,
    /// The last generations that were completed.
    pub(in crate::event_sourcing) completed: Vec<Made>,
    /// Whether there may be shares of generations that are neither of the two.
    pub(in crate::event_sourcing) clearing: bool,
}

/// An entry of `<name>-generations`, by partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::event_sourcing) enum GenerationEntry {
    /// Of the partition itself.
    Own(Standing),
    /// Of another, as it has told.
    Other(News),
}

/// What a partition does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    Rest,
    /// Begin a generation, in place of the one that is built.
    Begin(Made),
    /// Read a slice of history.
    Build,
    /// Nothing, until others have completed the generation too.
    Await,
    /// Follow the generation that was built, and no longer the one before.
    Follow,
    /// Delete shares of generations that are left behind.
    Clear,
}

/// What a decision depends on beside the standing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The version of this program's rules.
    pub(super) version: u32,
    /// The generation that somebody asks for.
    pub(super) asked: Option<u64>,
    /// What the other partitions have told.
    pub(super) others: &'a [News],
    /// The number of partitions.
    pub(super) partitions: i32,
}

impl Standing {
    /// Returns the newest generation that was begun; 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        let followed = self.followed.as_ref().map(|followed| followed.made);
        let next = self.next.as_ref().map(|next| next.made);
        let known = followed.iter().chain(&next).chain(&self.completed);
        known.map(|made| made.generation).max().unwrap_or(0)
    }

    /// Decides what to do next.
    pub(super) fn turn(&self, facts: Facts<'_>) -> Turn {
        let newest = self.newest();
        let told = facts
            .others
            .iter()
            .map(|news| news.begun)
            .max()
            .unwrap_or(0);
        let begin = |generation| {
            let version = facts.version;
            Turn::Begin(Made {
                generation,
                version,
            })
        };
        let Some(next) = &self.next else {
            return match &self.followed {
                None => begin(told.max(1)),
                Some(_) if told > newest => begin(told),
                Some(_) if facts.asked.is_some_and(|asked| asked > newest) => {
                    begin(facts.asked.unwrap_or(newest))
                }
                Some(followed) if followed.made.version != facts.version => begin(newest + 1),
                Some(_) if self.clearing => Turn::Clear,
                Some(_) => Turn::Rest,
            };
        };
        let completed = |news: &News| news.completed.contains(&next.made);
        let is_left_behind = |news: &News| news.begun > next.made.generation && !completed(news);
        if next.made.version != facts.version || facts.others.iter().any(is_left_behind) {
            // Another program's, or one that will never be complete everywhere.
            return begin(told.max(newest + 1));
        }
        if !next.complete {
            return Turn::Build;
        }
        let others = facts.others.iter().filter(|news| completed(news)).count();
        let all = usize::try_from(facts.partitions).unwrap_or(usize::MAX);
        if self.followed.is_none() || others + 1 >= all {
            Turn::Follow
        } else if self.clearing {
            Turn::Clear
        } else {
            Turn::Await
        }
    }

    pub(super) fn begin(&mut self, made: Made) {
        self.clearing |= self.next.is_some();
        self.next = Some(Next {
            made,
            events: 0,
            position: None,
            complete: false,
        });
    }

    /// Notes that the generation that is built has all of history.
    pub(super) fn complete(&mut self) {
        if let Some(next) = &mut self.next {
            next.complete = true;
            next.position = None;
            self.completed.push(next.made);
            let surplus = self.completed.len().saturating_sub(COMPLETED_TOLD);
            self.completed.drain(..surplus);
        }
    }

    pub(super) fn follow(&mut self) {
        if let Some(next) = self.next.take() {
            self.clearing |= self.followed.is_some();
            self.followed = Some(Followed {
                made: next.made,
                events: next.events,
            });
        }
    }

    pub(super) fn news(&self, partition: i32) -> News {
        News {
            partition,
            begun: self.newest(),
            completed: self.completed.clone(),
        }
    }

    /// Returns the generations whose shares are wanted.
    pub(super) fn kept(&self) -> impl Iterator<Item = u64> {
        let followed = self
            .followed
            .as_ref()
            .map(|followed| followed.made.generation);
        let next = self.next.as_ref().map(|next| next.made.generation);
        followed.into_iter().chain(next)
    }

    /// Returns the standing as progress is shown.
    pub(in crate::event_sourcing) fn progress(&self) -> ProjectionProgress {
        let phase = match &self.next {
            Some(next) if next.complete => ProjectionPhase::Awaiting {
                generation: next.made.generation,
            },
            Some(next) => ProjectionPhase::Building {
                generation: next.made.generation,
                version: next.made.version,
                cleared: true,
                position: next.position.clone(),
                events: next.events,
            },
            None if self.clearing => ProjectionPhase::Clearing,
            None => ProjectionPhase::Resting,
        };
        let none = Followed {
            made: Made {
                generation: 0,
                version: 0,
            },
            events: 0,
        };
        let followed = self.followed.as_ref().unwrap_or(&none);
        ProjectionProgress {
            generation: followed.made.generation,
            version: followed.made.version,
            events: followed.events,
            phase,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn made(generation: u64, version: u32) -> Made {
        Made {
            generation,
            version,
        }
    }

    fn turn(standing: &Standing, asked: Option<u64>, others: &[News]) -> Turn {
        standing.turn(Facts {
            version: 1,
            asked,
            others,
            partitions: 2,
        })
    }

    fn following(generation: u64) -> Standing {
        let mut standing = Standing::default();
        standing.begin(made(generation, 1));
        standing.complete();
        standing.follow();
        standing
    }

    fn told(begun: u64, completed: &[Made]) -> News {
        News {
            partition: 1,
            begun,
            completed: completed.to_vec(),
        }
    }

    #[test]
    fn the_first_generation_waits_for_nobody_and_a_later_one_for_all() {
        let mut standing = Standing::default();
        assert_eq!(turn(&standing, None, &[]), Turn::Begin(made(1, 1)));
        standing.begin(made(1, 1));
        assert_eq!(turn(&standing, None, &[]), Turn::Build);
        standing.complete();
        assert_eq!(turn(&standing, None, &[]), Turn::Follow);
        standing.follow();
        assert_eq!(turn(&standing, None, &[]), Turn::Rest);
        assert_eq!(turn(&standing, Some(2), &[]), Turn::Begin(made(2, 1)));
        standing.begin(made(2, 1));
        standing.complete();
        assert_eq!(turn(&standing, None, &[]), Turn::Await);
        let others = [told(2, &[made(1, 1)])];
        assert_eq!(turn(&standing, None, &others), Turn::Await);
        let others = [told(2, &[made(1, 1), made(2, 1)])];
        assert_eq!(turn(&standing, None, &others), Turn::Follow);
        standing.follow();
        assert_eq!(turn(&standing, None, &others), Turn::Clear);
    }

    #[test]
    fn what_one_has_begun_all_begin_once_what_they_are_at_is_settled() {
        let mut standing = following(1);
        let begun = [told(2, &[made(1, 1)])];
        assert_eq!(turn(&standing, None, &begun), Turn::Begin(made(2, 1)));
        standing.begin(made(2, 1));
        standing.complete();
        // The other one has completed the second generation, and is at the third.
        let ahead = [told(3, &[made(1, 1), made(2, 1)])];
        assert_eq!(turn(&standing, None, &ahead), Turn::Follow);
        standing.follow();
        assert_eq!(turn(&standing, None, &ahead), Turn::Begin(made(3, 1)));
    }

    #[test]
    fn a_generation_that_another_has_left_or_made_by_other_rules_is_given_up() {
        let mut standing = following(1);
        standing.begin(made(2, 1));
        let left = [told(3, &[made(1, 1)])];
        assert_eq!(turn(&standing, None, &left), Turn::Begin(made(3, 1)));
        standing.complete();
        let by_other_rules = [told(2, &[made(1, 1), made(2, 7)])];
        assert_eq!(turn(&standing, None, &by_other_rules), Turn::Await);
        let mended = [told(3, &[made(1, 1), made(2, 7)])];
        assert_eq!(turn(&standing, None, &mended), Turn::Begin(made(3, 1)));
        // This program has other rules itself.
        let upgraded = standing.turn(Facts {
            version: 2,
            asked: None,
            others: &[],
            partitions: 2,
        });
        assert_eq!(upgraded, Turn::Begin(made(3, 2)));
    }

    #[test]
    fn a_new_event_is_due_where_history_has_been_read_past_it() {
        let mut next = Next {
            made: made(2, 1),
            events: 0,
            position: Some(RebuildPosition {
                aggregate_id: "b".to_owned(),
                version: 3,
            }),
            complete: false,
        };
        assert!(next.takes("a", 9) && next.takes("b", 3));
        assert!(!next.takes("b", 4) && !next.takes("c", 1));
        next.complete = true;
        assert!(next.takes("c", 1));
    }
}
