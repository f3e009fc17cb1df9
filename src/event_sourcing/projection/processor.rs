//! Keeps a projection's rows, and builds them anew from history.
//!
//! # Invariants
//! - A slice is bounded in entries and bytes, and commits with the progress that speaks of it.
//! - The rows that are being built get an event once: from history, or as it comes when history has
//!   passed its place.

use std::ops::Bound;

use super::super::aggregate::Aggregate;
use super::super::recorded::Occasion;
use super::super::stores::RebuildPosition;
use super::past::{Event, Past, has_passed};
use super::progress::slot;
use super::{
    Projection, ProjectionControl, ProjectionPhase, ProjectionProgress, RowKey, RowValue, Rows,
};
use crate::metrics::ProjectionMetrics;
use crate::processor::{
    BoxError, Init, Processor, ProcessorContext, Punctuation, PunctuationId, PunctuationType,
    Record,
};
use crate::state::StoreRef;

/// How often a task looks whether a rebuild is asked for.
pub(super) const WATCH: std::time::Duration = std::time::Duration::from_millis(250);
/// Between two slices: records come in between.
pub(super) const BETWEEN_SLICES: std::time::Duration = std::time::Duration::from_millis(10);

pub(super) struct ProjectionProcessor<A: Aggregate, K, V> {
    pub(super) projection: Projection<A, K, V>,
    pub(super) past: Past,
    pub(super) progress: StoreRef<String, ProjectionProgress>,
    pub(super) slots: [StoreRef<K, V>; 2],
    pub(super) control: ProjectionControl,
    pub(super) metrics: Option<ProjectionMetrics>,
    pub(super) partition: i32,
    /// The last row that was compared while differences are sent on. Not durable: a task that is
    /// started again sends them again.
    pub(super) published_to: Option<K>,
    /// The punctuator that works, while there is work.
    pub(super) at_work: Option<PunctuationId>,
}

type Context<'a, K, V> = ProcessorContext<'a, K, Option<V>>;

/// What a slice has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slice {
    /// Its limits: there is more of the same.
    Full,
    /// The end of its phase.
    Next,
    /// The end of all work.
    Done,
}

/// A generation that is being built.
struct Build {
    generation: u64,
    version: u32,
    position: Option<RebuildPosition>,
    events: u64,
}

impl From<Build> for ProjectionPhase {
    fn from(build: Build) -> Self {
        Self::Building {
            generation: build.generation,
            version: build.version,
            cleared: true,
            position: build.position,
            events: build.events,
        }
    }
}

impl<A: Aggregate, K: RowKey, V: RowValue> Processor<String, Event<A>, K, Option<V>>
    for ProjectionProcessor<A, K, V>
{
    fn init(&mut self, context: &mut Context<'_, K, V>) -> Result<Init, BoxError> {
        let mut progress = self.progress()?;
        let version = self.projection.version;
        let under_way = match progress.phase {
            ProjectionPhase::Building { version, .. } => Some(version),
            _ => None,
        };
        let outdated = under_way.unwrap_or(progress.version) != version;
        if progress.generation == 0 && under_way.is_none() || under_way.is_some() && outdated {
            // Another program's half-built rows are started over.
            progress = progress.begun(version);
            self.set(&progress)?;
        }
        // Nothing serves before the first generation does, and all of it is sent on.
        while progress.generation == 0
            || progress.generation == 1
                && matches!(
                    progress.phase,
                    ProjectionPhase::Publishing | ProjectionPhase::Clearing
                )
        {
            if self.slice(context, &mut progress)? == Slice::Full {
                return Ok(Init::Continue);
            }
        }
        if progress.version != version && progress.phase == ProjectionPhase::Resting {
            progress = progress.begun(version);
            self.set(&progress)?;
        }
        context.schedule(WATCH, PunctuationType::WallClockTime);
        if progress.phase != ProjectionPhase::Resting {
            self.start_work(context);
        }
        self.show(&progress)?;
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        context: &mut Context<'_, K, V>,
        record: Record<String, Event<A>>,
    ) -> Result<(), BoxError> {
        let (aggregate_id, event) = (&record.key, &record.value);
        if event.occasion == Occasion::Rebuilt {
            // A reset has deleted the rows, too: they are built by themselves.
            return Ok(());
        }
        let mut progress = self.progress()?;
        let written = if progress.version == self.projection.version {
            progress.events = progress.events.saturating_add(1);
            self.apply(progress.generation, aggregate_id, event)?
        } else {
            // Made by another program's rules: it stays as it is, until the new one takes over.
            Vec::new()
        };
        if let Some(mut build) = building(&progress)
            && has_passed(build.position.as_ref(), aggregate_id, event.version)
        {
            self.apply(build.generation, aggregate_id, event)?;
            build.events = build.events.saturating_add(1);
            progress.phase = build.into();
        }
        self.set(&progress)?;
        self.show(&progress)?;
        let serving = self.rows(progress.generation);
        for key in written {
            let row = serving.get(&key)?;
            context.forward(Record::new(key, row, record.timestamp))?;
        }
        Ok(())
    }

    fn punctuate(
        &mut self,
        context: &mut Context<'_, K, V>,
        _: Punctuation,
    ) -> Result<(), BoxError> {
        let mut progress = self.progress()?;
        if progress.phase == ProjectionPhase::Resting {
            // Of another version, if the program was changed while rows were sent on or cleared.
            let outdated = progress.version != self.projection.version;
            let next = progress.generation.saturating_add(1);
            let wanted = match self.control.wanted(self.partition) {
                Some(wanted) if wanted == next => wanted,
                other => {
                    if let Some(passed) = other {
                        self.control.met(self.partition, passed);
                    }
                    if !outdated {
                        return Ok(());
                    }
                    next
                }
            };
            progress = progress.begun(self.projection.version);
            self.set(&progress)?;
            tracing::info!(
                task = %context.task(), projection = self.projection.name, generation = wanted,
                "building a projection anew"
            );
            self.start_work(context);
        }
        if self.slice(context, &mut progress)? == Slice::Done
            && let Some(work) = self.at_work.take()
        {
            context.cancel(work);
        }
        self.show(&progress)?;
        context.request_commit();
        Ok(())
    }
}

/// Returns the generation that is being built, once the place for its rows is empty.
fn building(progress: &ProjectionProgress) -> Option<Build> {
    match &progress.phase {
        ProjectionPhase::Building {
            generation,
            version,
            cleared: true,
            position,
            events,
        } => Some(Build {
            generation: *generation,
            version: *version,
            position: position.clone(),
            events: *events,
        }),
        _ => None,
    }
}

impl<A: Aggregate, K: RowKey, V: RowValue> ProjectionProcessor<A, K, V> {
    fn progress(&self) -> Result<ProjectionProgress, BoxError> {
        let found = self.progress.get(&self.projection.name)?;
        Ok(found.unwrap_or_default())
    }

    fn set(&self, progress: &ProjectionProgress) -> Result<(), BoxError> {
        Ok(self
            .progress
            .put(self.projection.name.clone(), progress.clone())?)
    }

    fn rows(&self, generation: u64) -> &StoreRef<K, V> {
        let [even, odd] = &self.slots;
        if slot(generation) == 0 { even } else { odd }
    }

    fn start_work(&mut self, context: &mut Context<'_, K, V>) {
        if self.at_work.is_none() {
            let work = context.schedule(BETWEEN_SLICES, PunctuationType::WallClockTime);
            self.at_work = Some(work);
        }
    }

    fn show(&self, progress: &ProjectionProgress) -> Result<(), BoxError> {
        let Some(metrics) = &self.metrics else {
            return Ok(());
        };
        let total = match progress.phase {
            ProjectionPhase::Building { .. } => self.past.history.approximate_count()?,
            _ => progress.events,
        };
        let shown = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.generation.set(shown(progress.generation));
        metrics.position.set(shown(progress.events));
        let lag = progress.lag(self.projection.version, total);
        metrics.lag.set(shown(lag));
        Ok(())
    }

    /// Applies an event to the rows of a generation; returns the rows that it has written.
    fn apply(
        &self,
        generation: u64,
        aggregate_id: &str,
        event: &Event<A>,
    ) -> Result<Vec<K>, BoxError> {
        let mut store = self.rows(generation).clone();
        let mut rows = Rows::new(aggregate_id, &mut store);
        self.projection.take_in(aggregate_id, event, &mut rows)?;
        Ok(rows.written)
    }

    /// Does a slice of what is under way, and writes how far it has come.
    fn slice(
        &mut self,
        context: &mut Context<'_, K, V>,
        progress: &mut ProjectionProgress,
    ) -> Result<Slice, BoxError> {
        let slice = match &progress.phase {
            // Its partitions swap by themselves, and wait for nobody.
            ProjectionPhase::Resting | ProjectionPhase::Awaiting { .. } => return Ok(Slice::Done),
            ProjectionPhase::Building {
                generation,
                version,
                cleared: false,
                ..
            } => {
                let build = Build {
                    generation: *generation,
                    version: *version,
                    position: None,
                    events: 0,
                };
                self.control.met(self.partition, build.generation);
                let slice = self.empty(build.generation)?;
                if slice == Slice::Next {
                    progress.phase = build.into();
                }
                slice
            }
            ProjectionPhase::Building { .. } => match building(progress) {
                Some(build) => self.build(context, build, progress)?,
                None => Slice::Done,
            },
            ProjectionPhase::Publishing => {
                let slice = self.publish(context, progress.generation)?;
                if slice == Slice::Next {
                    progress.phase = ProjectionPhase::Clearing;
                }
                slice
            }
            ProjectionPhase::Clearing => {
                let slice = self.clear(context, progress.generation)?;
                if slice == Slice::Done {
                    progress.phase = ProjectionPhase::Resting;
                }
                slice
            }
        };
        self.set(progress)?;
        Ok(slice)
    }

    /// Deletes rows that a build left which was started over.
    fn empty(&self, generation: u64) -> Result<Slice, BoxError> {
        let rows = self.rows(generation);
        let mut left = self.past.limits.entries;
        for found in rows.all() {
            if left == 0 {
                return Ok(Slice::Full);
            }
            left -= 1;
            rows.delete(&found?.0)?;
        }
        Ok(Slice::Next)
    }

    /// Reads a slice of history; at its end the new generation serves.
    fn build(
        &self,
        context: &Context<'_, K, V>,
        mut build: Build,
        progress: &mut ProjectionProgress,
    ) -> Result<Slice, BoxError> {
        let read = self
            .past
            .slice::<A>(build.position.as_ref(), |aggregate_id, event| {
                self.apply(build.generation, aggregate_id, event).map(drop)
            })?;
        build.events = build.events.saturating_add(read.events);
        if read.is_full {
            build.position = read.position;
            progress.phase = build.into();
            return Ok(Slice::Full);
        }
        tracing::info!(
            task = %context.task(), projection = self.projection.name,
            generation = build.generation, events = build.events,
            "the new generation serves"
        );
        *progress = ProjectionProgress {
            generation: build.generation,
            version: build.version,
            events: build.events,
            phase: ProjectionPhase::Publishing,
        };
        Ok(Slice::Next)
    }

    /// Sends on the rows in which the new generation differs from the old one.
    fn publish(
        &mut self,
        context: &mut Context<'_, K, V>,
        generation: u64,
    ) -> Result<Slice, BoxError> {
        let new = self.rows(generation).clone();
        let old = self.rows(generation + 1).clone();
        let from = self
            .published_to
            .take()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let now = context.system_time();
        let mut left = self.past.limits.entries;
        for found in new.range((from, Bound::Unbounded))? {
            let (key, row) = found?;
            if old.get(&key)?.as_ref() != Some(&row) {
                context.forward(Record::new(key.clone(), Some(row), now))?;
            }
            left -= 1;
            if left == 0 {
                self.published_to = Some(key);
                return Ok(Slice::Full);
            }
        }
        Ok(Slice::Next)
    }

    /// Deletes the rows of the old generation, and tells of those that the new one lacks.
    fn clear(&self, context: &mut Context<'_, K, V>, generation: u64) -> Result<Slice, BoxError> {
        let new = self.rows(generation);
        let old = self.rows(generation + 1);
        let now = context.system_time();
        let mut left = self.past.limits.entries;
        for found in old.all() {
            if left == 0 {
                return Ok(Slice::Full);
            }
            left -= 1;
            let key = found?.0;
            if new.get(&key)?.is_none() {
                context.forward(Record::new(key.clone(), None, now))?;
            }
            old.delete(&key)?;
        }
        Ok(Slice::Done)
    }
}
