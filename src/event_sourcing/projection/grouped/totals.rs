//! Where groups are: adds shares up by generation, and serves one of them.
//!
//! ```text
//!          all partitions of the source have completed a newer one by the same rules
//! Resting ───────────────────────────────────────────────────────────────────────▶ Publishing ─▶ Clearing ─▶ Resting
//!                                                                                   differences   older ones
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;

use ::serde::{Deserialize, Serialize};

use super::super::super::aggregate::Aggregate;
use super::super::super::rebuild::SliceLimits;
use super::super::processor::{BETWEEN_SLICES, WATCH};
use super::super::{ProjectionPhase, RowValue};
use super::GroupedProjection;
use super::standing::Made;
use super::wire::{GenerationKey, Share, Total};
use crate::processor::{
    BoxError, Init, Processor, ProcessorContext, Punctuation, PunctuationId, PunctuationType,
    Record,
};
use crate::state::StoreRef;

/// The key of the one entry of `<name>-serving`.
const SERVING: &str = "serving";

/// Which generation serves, and what its successors lack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::event_sourcing) struct Serving {
    /// 0 before the first.
    pub(in crate::event_sourcing) generation: u64,
    /// The version of its rules.
    pub(in crate::event_sourcing) version: u32,
    /// The generation that has been sent on whole, while the one that serves is compared with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    before: Option<u64>,
    /// What goes on beside; never `Building`.
    pub(in crate::event_sourcing) phase: ProjectionPhase,
    /// By partition of the source, the newer generations that it has completed.
    completed: BTreeMap<i32, Vec<Made>>,
}

impl Serving {
    /// The bytes of its key.
    pub(in crate::event_sourcing) const KEY: &'static [u8] = SERVING.as_bytes();

    /// Notes that a partition of the source has completed a generation; returns whether another one serves
    /// from now on.
    fn note(&mut self, made: Made, partition: i32, partitions: i32) -> bool {
        if made.generation <= self.generation {
            return false;
        }
        self.completed.entry(partition).or_default().push(made);
        let by_all = |made: &Made| {
            let mut of_each = (0..partitions).map(|partition| self.completed.get(&partition));
            of_each.all(|completed| completed.is_some_and(|of_one| of_one.contains(made)))
        };
        let Some(newest) = Some(made).filter(by_all) else {
            return false;
        };
        // One that was not sent on whole is no measure of what has been: then all is sent.
        let is_whole = self.phase == ProjectionPhase::Resting && self.generation > 0;
        self.before = is_whole.then_some(self.generation);
        (self.generation, self.version) = (newest.generation, newest.version);
        self.phase = ProjectionPhase::Publishing;
        for completed in self.completed.values_mut() {
            completed.retain(|made| made.generation > newest.generation);
        }
        true
    }
}

/// Adds the shares of groups up.
pub(super) struct SumUp<A: Aggregate, C, T> {
    pub(super) projection: GroupedProjection<A, C, T>,
    pub(super) totals: StoreRef<GenerationKey, Total<T>>,
    pub(super) serving: StoreRef<String, Serving>,
    pub(super) limits: SliceLimits,
    /// The last group that was compared while differences are sent on. Not durable: a task that is
    /// started again sends them again.
    pub(super) published_to: Option<GenerationKey>,
    /// The punctuator that works, while there is work.
    pub(super) at_work: Option<PunctuationId>,
}

type Context<'a, T> = ProcessorContext<'a, String, Option<T>>;

impl<A: Aggregate, C: RowValue, T: RowValue> Processor<GenerationKey, Share<C>, String, Option<T>>
    for SumUp<A, C, T>
{
    fn init(&mut self, context: &mut Context<'_, T>) -> Result<Init, BoxError> {
        context.schedule(WATCH, PunctuationType::WallClockTime);
        if self.state()?.phase != ProjectionPhase::Resting {
            self.start_work(context);
        }
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        context: &mut Context<'_, T>,
        record: Record<GenerationKey, Share<C>>,
    ) -> Result<(), BoxError> {
        let Record {
            key,
            value: share,
            timestamp,
            ..
        } = record;
        match share {
            Share::Changed { old, new } => {
                let known = |serving: Option<&Serving>| serving.map_or(0, |it| it.generation);
                let serving = self.serving.get_with(&SERVING.to_owned(), known)?;
                if key.generation < serving {
                    // Its time is over here; the source has yet to learn of it.
                    return Ok(());
                }
                let total = self.totals.get(&key)?;
                let total = self.projection.fold(&key.name, total, old, new);
                let serves = key.generation == serving;
                let row = serves.then(|| total.as_ref().map(|total| total.value.clone()));
                let group = row.is_some().then(|| key.name.clone());
                match total {
                    Some(total) => self.totals.put(key, total)?,
                    None => drop(self.totals.delete(&key)?),
                }
                if let (Some(group), Some(row)) = (group, row) {
                    context.forward(Record::new(group, row, timestamp))?;
                }
            }
            Share::Completed {
                partition,
                partitions,
                version,
            } => {
                let mut serving = self.state()?;
                let made = Made {
                    generation: key.generation,
                    version,
                };
                if serving.note(made, partition, partitions) {
                    tracing::info!(
                        task = %context.task(), projection = self.projection.name(),
                        generation = serving.generation, "the new generation serves"
                    );
                    // What fits into a slice is done at once; of a first generation that is mostly all.
                    // The rest is found by the punctuator: this record may be rolled back, and what the
                    // processor remembers, or has scheduled, is not.
                    let mut from = None;
                    self.work(context, &mut serving, &mut from)?;
                    self.work(context, &mut serving, &mut from)?;
                }
                self.set(serving)?;
            }
        }
        Ok(())
    }

    fn punctuate(&mut self, context: &mut Context<'_, T>, _: Punctuation) -> Result<(), BoxError> {
        let mut serving = self.state()?;
        if serving.phase != ProjectionPhase::Resting {
            let generation = serving.generation;
            let of_this = |from: &GenerationKey| from.generation == generation;
            let mut from = self.published_to.take().filter(of_this);
            self.work(context, &mut serving, &mut from)?;
            self.published_to = from;
            self.set(serving.clone())?;
            context.request_commit();
        }
        if serving.phase != ProjectionPhase::Resting {
            self.start_work(context);
        } else if let Some(work) = self.at_work.take() {
            context.cancel(work);
        }
        Ok(())
    }
}

impl<A: Aggregate, C: RowValue, T: RowValue> SumUp<A, C, T> {
    fn state(&self) -> Result<Serving, BoxError> {
        Ok(self.serving.get(&SERVING.to_owned())?.unwrap_or_default())
    }

    fn set(&self, serving: Serving) -> Result<(), BoxError> {
        Ok(self.serving.put(SERVING.to_owned(), serving)?)
    }

    /// Does a slice of what follows when another generation serves; `from`: the last group that was compared.
    fn work(
        &self,
        context: &mut Context<'_, T>,
        serving: &mut Serving,
        from: &mut Option<GenerationKey>,
    ) -> Result<(), BoxError> {
        match serving.phase {
            ProjectionPhase::Publishing => {
                *from = self.publish(context, serving, from.take())?;
                if from.is_none() {
                    serving.phase = ProjectionPhase::Clearing;
                }
            }
            ProjectionPhase::Clearing => {
                if self.clear(context, serving)? {
                    (serving.phase, serving.before) = (ProjectionPhase::Resting, None);
                }
            }
            ProjectionPhase::Resting
            | ProjectionPhase::Building { .. }
            | ProjectionPhase::Awaiting { .. } => {}
        }
        Ok(())
    }

    fn start_work(&mut self, context: &mut Context<'_, T>) {
        if self.at_work.is_none() {
            let work = context.schedule(BETWEEN_SLICES, PunctuationType::WallClockTime);
            self.at_work = Some(work);
        }
    }

    /// Sends on a slice of the groups behind `from` in which the new generation differs from the one before;
    /// returns the last one, where there may be more.
    fn publish(
        &self,
        context: &mut Context<'_, T>,
        serving: &Serving,
        from: Option<GenerationKey>,
    ) -> Result<Option<GenerationKey>, BoxError> {
        let first = Bound::Included(GenerationKey::new(serving.generation, ""));
        let from = from.map_or(first, Bound::Excluded);
        let behind = GenerationKey::new(serving.generation.saturating_add(1), "");
        let now = context.system_time();
        let mut left = self.limits.entries;
        for found in self.totals.range((from, Bound::Excluded(behind)))? {
            let (key, total) = found?;
            let known = match serving.before {
                Some(before) => self
                    .totals
                    .get(&GenerationKey::new(before, key.name.clone()))?,
                None => None,
            };
            if known.is_none_or(|known| known.value != total.value) {
                context.forward(Record::new(key.name.clone(), Some(total.value), now))?;
            }
            left -= 1;
            if left == 0 {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// Deletes a slice of older generations, and tells of groups that the new one lacks; returns whether
    /// it was the last.
    fn clear(&self, context: &mut Context<'_, T>, serving: &Serving) -> Result<bool, BoxError> {
        let now = context.system_time();
        let mut left = self.limits.entries;
        let older = ..GenerationKey::new(serving.generation, "");
        for found in self.totals.range(older)? {
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            let (key, _) = found?;
            let was_sent = serving.before.is_none_or(|before| before == key.generation);
            let current = GenerationKey::new(serving.generation, key.name.clone());
            if was_sent && self.totals.get(&current)?.is_none() {
                context.forward(Record::new(key.name.clone(), None, now))?;
            }
            self.totals.delete(&key)?;
        }
        Ok(true)
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

    #[test]
    fn a_generation_serves_once_all_partitions_have_completed_it_by_the_same_rules() {
        let mut serving = Serving::default();
        assert!(!serving.note(made(1, 1), 0, 3));
        assert!(!serving.note(made(1, 1), 2, 3));
        assert!(serving.note(made(1, 1), 1, 3));
        assert_eq!((serving.generation, serving.before), (1, None));
        serving.phase = ProjectionPhase::Resting;
        for (made, partition) in [(made(2, 1), 0), (made(2, 2), 1), (made(2, 2), 2)] {
            assert!(!serving.note(made, partition, 3), "by different rules");
        }
        assert!(!serving.note(made(3, 2), 0, 3));
        assert!(!serving.note(made(3, 2), 1, 3));
        assert!(serving.note(made(3, 2), 2, 3));
        assert_eq!((serving.generation, serving.version), (3, 2));
        assert_eq!(serving.before, Some(1));
        // Another one before the differences were sent on: nobody knows what has been.
        for partition in 0..3 {
            serving.note(made(4, 2), partition, 3);
        }
        assert_eq!((serving.generation, serving.before), (4, None));
        assert!(
            !serving.note(made(2, 1), 1, 3),
            "of a generation that is over"
        );
    }
}
