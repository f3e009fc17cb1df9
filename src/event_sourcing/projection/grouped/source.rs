//! In an aggregate's task: keeps the shares of its aggregates, and tells what changes.
//!
//! # Invariants
//! - A slice of history is bounded, and commits with the standing that speaks of it and with the shares
//!   that it tells. Of an aggregate, it tells what has changed over the slice.
//! - A new event changes the shares of every generation that has its place.

use super::super::super::aggregate::Aggregate;
use super::super::super::recorded::Occasion;
use super::super::past::{Event, Past};
use super::super::processor::{BETWEEN_SLICES, WATCH};
use super::super::{ProjectionControl, ProjectionPhase, RowValue};
use super::GroupedProjection;
use super::standing::{Facts, GenerationEntry, Made, Standing, Turn};
use super::wire::{GenerationKey, News, Share, Shares};
use crate::clock::Timestamp;
use crate::metrics::ProjectionMetrics;
use crate::processor::{
    BoxError, Init, Processor, ProcessorContext, Punctuation, PunctuationId, PunctuationType,
    Record,
};
use crate::state::StoreRef;
use std::convert::Infallible;

/// What the task tells: the totals by the key of a share, the other partitions by any.
#[derive(Debug, Clone)]
pub(super) enum Told<C> {
    Share(Share<C>),
    News(News),
}

/// Keeps the shares of the task's aggregates.
pub(super) struct Contribute<A: Aggregate, C, T> {
    pub(super) projection: GroupedProjection<A, C, T>,
    pub(super) past: Past,
    pub(super) generations: StoreRef<i32, GenerationEntry>,
    pub(super) shares: StoreRef<GenerationKey, Shares<C>>,
    pub(super) control: ProjectionControl,
    pub(super) metrics: Option<ProjectionMetrics>,
    pub(super) partition: i32,
    pub(super) partitions: i32,
    /// The punctuator that works, while there is work.
    pub(super) at_work: Option<PunctuationId>,
}

type Context<'a, C> = ProcessorContext<'a, GenerationKey, Told<C>>;

impl<A: Aggregate, C: RowValue, T: RowValue> Processor<String, Event<A>, GenerationKey, Told<C>>
    for Contribute<A, C, T>
{
    fn init(&mut self, context: &mut Context<'_, C>) -> Result<Init, BoxError> {
        let mut standing = self.standing()?;
        // Nothing can be served without the first generation.
        while standing.followed.is_none() {
            let turn = self.turn(&standing)?;
            self.take(context, turn, &mut standing)?;
            if turn == Turn::Build && standing.next.as_ref().is_some_and(|next| !next.complete) {
                return Ok(Init::Continue);
            }
        }
        let turn = self.turn(&standing)?;
        if let Turn::Begin(_) = turn {
            self.take(context, turn, &mut standing)?;
        }
        context.schedule(WATCH, PunctuationType::WallClockTime);
        if turn != Turn::Rest {
            self.start_work(context);
        }
        self.show(&standing)?;
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        context: &mut Context<'_, C>,
        record: Record<String, Event<A>>,
    ) -> Result<(), BoxError> {
        let (aggregate_id, event) = (&record.key, &record.value);
        if event.occasion == Occasion::Rebuilt {
            // A reset has deleted the shares, too: they are built by themselves.
            return Ok(());
        }
        let mut standing = self.standing()?;
        let version = self.projection.rules();
        // One made by another program's rules stays as it is, until the next takes over.
        if let Some(followed) = &mut standing.followed
            && followed.made.version == version
        {
            followed.events = followed.events.saturating_add(1);
            self.contribute(
                context,
                followed.made,
                event,
                (aggregate_id, record.timestamp),
            )?;
        }
        if let Some(next) = &mut standing.next
            && next.made.version == version
            && next.takes(aggregate_id, event.version)
        {
            next.events = next.events.saturating_add(1);
            self.contribute(context, next.made, event, (aggregate_id, record.timestamp))?;
        }
        self.set(&standing)?;
        self.show(&standing)
    }

    fn punctuate(&mut self, context: &mut Context<'_, C>, _: Punctuation) -> Result<(), BoxError> {
        let mut standing = self.standing()?;
        let turn = self.turn(&standing)?;
        if matches!(turn, Turn::Rest | Turn::Await) {
            if let Some(work) = self.at_work.take() {
                context.cancel(work);
            }
            return Ok(());
        }
        self.take(context, turn, &mut standing)?;
        self.start_work(context);
        self.show(&standing)?;
        context.request_commit();
        Ok(())
    }
}

impl<A: Aggregate, C: RowValue, T: RowValue> Contribute<A, C, T> {
    fn standing(&self) -> Result<Standing, BoxError> {
        Ok(match self.generations.get(&self.partition)? {
            Some(GenerationEntry::Own(standing)) => standing,
            Some(GenerationEntry::Other(_)) | None => Standing::default(),
        })
    }

    fn set(&self, standing: &Standing) -> Result<(), BoxError> {
        let entry = GenerationEntry::Own(standing.clone());
        Ok(self.generations.put(self.partition, entry)?)
    }

    fn turn(&self, standing: &Standing) -> Result<Turn, BoxError> {
        let mut others = Vec::new();
        for found in self.generations.all() {
            if let (_, GenerationEntry::Other(news)) = found? {
                others.push(news);
            }
        }
        let asked = self.control.wanted(self.partition);
        if let Some(asked) = asked {
            self.control
                .met(self.partition, standing.newest().min(asked));
        }
        Ok(standing.turn(Facts {
            version: self.projection.rules(),
            asked,
            others: &others,
            partitions: self.partitions,
        }))
    }

    /// Does what was decided, and writes what has come of it.
    fn take(
        &self,
        context: &mut Context<'_, C>,
        turn: Turn,
        standing: &mut Standing,
    ) -> Result<(), BoxError> {
        match turn {
            Turn::Rest | Turn::Await => return Ok(()),
            Turn::Begin(made) => {
                tracing::info!(
                    task = %context.task(), projection = self.projection.name(),
                    generation = made.generation, "building a projection anew"
                );
                standing.begin(made);
                self.tell(context, standing, made)?;
            }
            Turn::Build => self.build(context, standing)?,
            Turn::Follow => standing.follow(),
            Turn::Clear => standing.clearing = !self.clear(standing)?,
        }
        self.set(standing)
    }

    /// Tells the other partitions how far this one is. Of a first generation they need not know: it is
    /// built by all, and nobody waits with an older one.
    fn tell(
        &self,
        context: &mut Context<'_, C>,
        standing: &Standing,
        made: Made,
    ) -> Result<(), BoxError> {
        if made.generation == 1 {
            return Ok(());
        }
        let news = standing.news(self.partition);
        // They come back to this task: of its stream time, they close nobody's windows.
        let now = context.stream_time().unwrap_or(0);
        let key = GenerationKey::new(made.generation, "");
        Ok(context.forward(Record::new(key, Told::News(news), now))?)
    }

    /// Reads a slice of history; at its end the generation is complete.
    fn build(&self, context: &mut Context<'_, C>, standing: &mut Standing) -> Result<(), BoxError> {
        let Some(next) = &mut standing.next else {
            return Ok(());
        };
        let (made, now) = (next.made, context.system_time());
        let mut current: Option<InSlice<C>> = None;
        let read = self
            .past
            .slice::<A>(next.position.as_ref(), |aggregate_id, event| {
                if current
                    .as_ref()
                    .is_none_or(|current| current.aggregate_id != aggregate_id)
                {
                    self.settle(context, made, current.take(), now)?;
                }
                let shares = match current.take() {
                    Some(shares) => shares,
                    None => self.first_in_slice(made, aggregate_id)?,
                };
                let at = current.insert(shares);
                self.projection
                    .contribute(aggregate_id, event, &mut at.after)
            })?;
        self.settle(context, made, current, now)?;
        next.events = next.events.saturating_add(read.events);
        next.position = read.position;
        if read.is_full {
            return Ok(());
        }
        tracing::info!(
            task = %context.task(), projection = self.projection.name(),
            generation = made.generation, events = next.events, "the generation is complete here"
        );
        standing.complete();
        // ORDER: behind all shares of the generation.
        let share = Share::Completed {
            partition: self.partition,
            partitions: self.partitions,
            version: made.version,
        };
        let key = GenerationKey::new(made.generation, "");
        context.forward(Record::new(key, Told::Share(share), now))?;
        self.tell(context, standing, made)
    }

    fn first_in_slice(&self, made: Made, aggregate_id: &str) -> Result<InSlice<C>, BoxError> {
        let key = GenerationKey::new(made.generation, aggregate_id);
        let before = self.shares.get(&key)?.unwrap_or_default();
        Ok(InSlice {
            aggregate_id: aggregate_id.to_owned(),
            after: before.clone(),
            before,
        })
    }

    /// Writes and tells an aggregate's shares.
    fn settle(
        &self,
        context: &mut Context<'_, C>,
        made: Made,
        aggregate: Option<InSlice<C>>,
        timestamp: Timestamp,
    ) -> Result<(), BoxError> {
        let Some(InSlice {
            aggregate_id,
            before,
            after,
        }) = aggregate
        else {
            return Ok(());
        };
        let changes = before.changes(&after);
        if changes.is_empty() {
            return Ok(());
        }
        let key = GenerationKey::new(made.generation, aggregate_id);
        if after.is_empty() {
            self.shares.delete(&key)?;
        } else {
            self.shares.put(key, after)?;
        }
        for (group, old, new) in changes {
            let key = GenerationKey::new(made.generation, group);
            let told = Told::Share(Share::Changed { old, new });
            context.forward(Record::new(key, told, timestamp))?;
        }
        Ok(())
    }

    /// Changes the shares of a generation by a new event.
    fn contribute(
        &self,
        context: &mut Context<'_, C>,
        made: Made,
        event: &Event<A>,
        (aggregate_id, timestamp): (&str, Timestamp),
    ) -> Result<(), BoxError> {
        let mut aggregate = self.first_in_slice(made, aggregate_id)?;
        self.projection
            .contribute(aggregate_id, event, &mut aggregate.after)?;
        self.settle(context, made, Some(aggregate), timestamp)
    }

    /// Deletes shares of generations that are not wanted; returns whether none is left.
    fn clear(&self, standing: &Standing) -> Result<bool, BoxError> {
        let mut left = self.past.limits.entries;
        let mut from = 0;
        let kept = standing.kept().map(Some).chain([None]);
        for kept in kept {
            let start = GenerationKey::new(from, "");
            let found = match kept {
                Some(kept) => self.shares.range(start..GenerationKey::new(kept, ""))?,
                None => self.shares.range(start..)?,
            };
            for found in found {
                if left == 0 {
                    return Ok(false);
                }
                left -= 1;
                self.shares.delete(&found?.0)?;
            }
            from = kept.map_or(from, |kept| kept.saturating_add(1));
        }
        Ok(true)
    }

    fn start_work(&mut self, context: &mut Context<'_, C>) {
        if self.at_work.is_none() {
            let work = context.schedule(BETWEEN_SLICES, PunctuationType::WallClockTime);
            self.at_work = Some(work);
        }
    }

    fn show(&self, standing: &Standing) -> Result<(), BoxError> {
        let Some(metrics) = &self.metrics else {
            return Ok(());
        };
        let progress = standing.progress();
        let total = match progress.phase {
            ProjectionPhase::Building { .. } => self.past.history.approximate_count()?,
            _ => progress.events,
        };
        let shown = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.generation.set(shown(progress.generation));
        metrics.position.set(shown(progress.events));
        metrics
            .lag
            .set(shown(progress.lag(self.projection.rules(), total)));
        Ok(())
    }
}

/// An aggregate while a slice of its history is read.
struct InSlice<C> {
    aggregate_id: String,
    before: Shares<C>,
    after: Shares<C>,
}

/// Keeps what other partitions tell.
pub(super) struct Heed {
    pub(super) partition: i32,
    pub(super) generations: StoreRef<i32, GenerationEntry>,
}

impl Processor<i32, News, Infallible, Infallible> for Heed {
    fn process(
        &mut self,
        _: &mut ProcessorContext<'_, Infallible, Infallible>,
        Record { value: news, .. }: Record<i32, News>,
    ) -> Result<(), BoxError> {
        if news.partition != self.partition {
            self.generations
                .put(news.partition, GenerationEntry::Other(news))?;
        }
        Ok(())
    }
}
