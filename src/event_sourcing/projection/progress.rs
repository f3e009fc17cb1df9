//! How far the generations of a projection are: one entry for each task and projection.
//!
//! ```text
//!             asked, or another version           end of history
//! Resting ────────────────────────────▶ Building ────────────────▶ Publishing ─▶ Clearing ─▶ Resting
//!                                          │ slices of history       differences   the old
//! ```

use serde::{Deserialize, Serialize};

use super::super::stores::RebuildPosition;

/// What a task knows of a projection's generations. Derived itself: a reset deletes it with the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProjectionProgress {
    /// The generation that serves; 0 while the first is being built.
    pub generation: u64,
    /// The [version](super::Projection::version) that its rows are made by.
    pub version: u32,
    /// How many events it is made of: its position.
    pub events: u64,
    /// What is going on beside.
    pub phase: ProjectionPhase,
}

/// What goes on beside the generation that serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "name"
)]
pub enum ProjectionPhase {
    /// Nothing.
    #[default]
    Resting,
    /// A generation is built from history.
    Building {
        /// It.
        generation: u64,
        /// The version that it is made by.
        version: u32,
        /// Whether the rows that were there before are gone.
        cleared: bool,
        /// The last event of history that is in; absent before the first.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        position: Option<RebuildPosition>,
        /// How many events are in.
        events: u64,
    },
    /// Of a [grouped projection](super::GroupedProjection): the next generation is complete here, and is
    /// kept up to date beside the one that serves until it is complete everywhere.
    Awaiting {
        /// It.
        generation: u64,
    },
    /// The new generation serves; the rows in which it differs are sent on.
    Publishing,
    /// The rows of the old generation are deleted.
    Clearing,
}

/// Returns the place of a generation's rows.
pub(in crate::event_sourcing) const fn slot(generation: u64) -> usize {
    if generation.is_multiple_of(2) { 0 } else { 1 }
}

impl ProjectionProgress {
    /// Returns the progress with a generation to be built beside the one that serves.
    pub(super) fn begun(self, version: u32) -> Self {
        let generation = self.generation.saturating_add(1);
        Self {
            phase: ProjectionPhase::Building {
                generation,
                version,
                cleared: false,
                position: None,
                events: 0,
            },
            ..self
        }
    }

    /// Returns the newest generation that there is, or that is being built.
    #[must_use]
    pub const fn newest(&self) -> u64 {
        match self.phase {
            ProjectionPhase::Building { generation, .. }
            | ProjectionPhase::Awaiting { generation } => generation,
            ProjectionPhase::Resting | ProjectionPhase::Publishing | ProjectionPhase::Clearing => {
                self.generation
            }
        }
    }

    /// Returns the generation that is being built, or the one that comes next.
    pub(in crate::event_sourcing) const fn under_way_or_next(&self) -> u64 {
        let newest = self.newest();
        if newest > self.generation {
            newest
        } else {
            newest.saturating_add(1)
        }
    }

    /// Returns how many events the generation that is being built lacks of those that the one that
    /// serves has; of `total`, as long as that says nothing.
    pub(in crate::event_sourcing) fn lag(&self, version: u32, total: u64) -> u64 {
        let follows = self.generation > 0 && self.version == version;
        let all = if follows { self.events } else { total };
        match self.phase {
            ProjectionPhase::Building { events, .. } => all.saturating_sub(events),
            _ => all.saturating_sub(self.events),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_and_the_next_one_have_places_of_their_own() {
        for generation in 0..4 {
            assert_ne!(slot(generation), slot(generation + 1));
        }
    }

    #[test]
    fn the_lag_is_what_the_new_generation_lacks() {
        let serving = ProjectionProgress {
            generation: 1,
            version: 1,
            events: 10,
            phase: ProjectionPhase::Resting,
        };
        assert_eq!(serving.lag(1, 99), 0);
        let mut building = serving.begun(1);
        assert_eq!(building.lag(1, 99), 10);
        if let ProjectionPhase::Building { events, .. } = &mut building.phase {
            *events = 7;
        }
        assert_eq!(building.lag(1, 99), 3);
        // One of another version stands still: history goes on.
        assert_eq!(building.lag(2, 99), 92);
    }
}
