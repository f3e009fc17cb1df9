//! Rebuilds what is derived from history (current states, snapshots, the index by time) before the
//! task's first record: after a reset, and when another program has left it in another form.
//!
//! # Position
//! The event processor's `init` runs it slice by slice; the runtime commits in between.
//! # Invariants
//! - The marker is in a derived store: a reset deletes it together with what it vouches for, and it
//!   commits together with the state of the slice it speaks of.
//! - History is read in key order, so that an aggregate's entries come one after another; its state
//!   is written again and handed downstream once, when its last entry is in.
//! - Nothing is decided again: what is in history has been judged.
//! - A rebuild for a new form hands nothing downstream: nothing has changed there, and what counts
//!   changes would count them twice.
//! # Failure
//! History that does not fold (damaged, or written by a newer build) stops the task by name; so do
//! events that have left the store where no archive has them.

use std::ops::Bound;

use super::aggregate::Aggregate;
use super::decision::{AggregateRecord, ReadEntry};
use super::envelope::Envelope;
use super::event_index::IndexedEvent;
use super::history::{HistoryEntry, HistoryKey};
use super::message::{Step, StepEvent};
use super::meter::Meter;
use super::recorded::{Happened, Occasion};
use super::repository::Repository;
use super::snapshot;
use super::stores::{DerivedForm, RebuildPosition, RebuildProgress};
use super::topology::Effect;
use crate::processor::{BoxError, Init, ProcessorContext, Record};
use crate::state::StoreRef;

/// The marker's key: what was rebuilt from.
const HISTORY: &str = "history";

/// How much one slice may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SliceLimits {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Default for SliceLimits {
    /// As much as a transaction may well hold, and a heartbeat may wait for.
    fn default() -> Self {
        Self {
            entries: 5_000,
            bytes: 8 * 1024 * 1024,
        }
    }
}

/// The stores that a rebuild reads and writes.
pub(super) struct Rebuild<A: Aggregate> {
    pub(super) aggregates: Repository<A>,
    pub(super) progress: StoreRef<String, RebuildProgress>,
    pub(super) limits: SliceLimits,
    pub(super) meter: Meter,
    pub(super) tells: Tells,
}

/// What a rebuild hands downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tells {
    /// Every aggregate once, when its last entry is in.
    Changes,
    /// That, and every event before.
    ChangesAndEvents,
    /// Every event as the [`Step`] it was.
    Steps,
}

impl Tells {
    /// Returns what a topology is told, of whose events somebody makes something or nobody does.
    pub(super) const fn of(events: bool) -> Self {
        if events {
            Self::ChangesAndEvents
        } else {
            Self::Changes
        }
    }

    /// Returns whether it takes the state before each event.
    const fn compares(self) -> bool {
        !matches!(self, Self::Changes)
    }
}

/// An aggregate whose entries are being read.
struct Current<S> {
    aggregate_id: String,
    record: AggregateRecord<S>,
}

impl<A: Aggregate> Rebuild<A> {
    /// Does one slice; [`Init::Ready`] once the derived state holds all of history.
    pub(super) fn slice(
        &self,
        context: &mut ProcessorContext<'_, String, Effect<A::State>>,
    ) -> Result<Init, BoxError> {
        let progress = self.progress()?;
        if progress.complete {
            return Ok(Init::Ready);
        }
        let RebuildProgress { form, quiet, .. } = progress;
        let start = match progress.position.clone() {
            Some(RebuildPosition {
                aggregate_id,
                version,
            }) => Bound::Excluded(HistoryKey {
                aggregate_id,
                version,
            }),
            None => Bound::Unbounded,
        };
        let mut current = self.resume(progress.position)?;
        let (mut entries, mut bytes, mut last) = (0, 0, None);
        let events = self
            .aggregates
            .events((start, Bound::Unbounded), self.limits)?;
        for (key, entry) in events {
            if current
                .as_ref()
                .is_some_and(|current| current.aggregate_id != key.aggregate_id)
            {
                self.finish(context, current.take(), quiet)?;
            }
            let before = current.take().map(|current| current.record);
            let told = Some(self.tells).filter(|_| !quiet);
            let known = before.clone().filter(|_| told.is_some_and(Tells::compares));
            let read = ReadEntry::<A>::parse(&key, &entry)?;
            let mut record = read.before(before)?;
            read.apply(&mut record);
            self.aggregates
                .snapshot_if_due(&key.aggregate_id, &record)?;
            let indexed = IndexedEvent::of(&read.envelope);
            self.aggregates
                .index(&key, read.envelope.timestamp, indexed)?;
            match told {
                Some(Tells::Steps) => {
                    self.step(context, known, &record, &read.envelope, &entry)?;
                }
                Some(Tells::ChangesAndEvents) => {
                    let state = known.map(|known| known.state);
                    self.happened(context, &entry, state, &record, &key)?;
                }
                Some(Tells::Changes) | None => {}
            }
            current = Some(Current {
                aggregate_id: key.aggregate_id.clone(),
                record,
            });
            self.meter.count(|metrics| &metrics.rebuilt);
            entries += 1;
            bytes += entry.event.len();
            last = Some(key);
            if entries >= self.limits.entries || bytes >= self.limits.bytes {
                break;
            }
        }
        let full = entries >= self.limits.entries || bytes >= self.limits.bytes;
        if !full {
            self.finish(context, current, quiet)?;
            self.set(true, None, (form, quiet))?;
            tracing::info!(
                task = %context.task(), aggregate = A::TYPE, entries, "derived state is complete"
            );
            return Ok(if form == self.form() {
                Init::Ready
            } else {
                // Told whole; now quietly for the new form.
                Init::Continue
            });
        }
        // Not handed downstream yet: more entries of it may follow.
        if let Some(Current {
            aggregate_id,
            record,
        }) = current
        {
            self.aggregates.set(aggregate_id, record)?;
        }
        tracing::info!(task = %context.task(), aggregate = A::TYPE, entries, "rebuilding from history");
        let position = last.map(
            |HistoryKey {
                 aggregate_id,
                 version,
             }| RebuildPosition {
                aggregate_id,
                version,
            },
        );
        self.set(false, position, (form, quiet))?;
        Ok(Init::Continue)
    }

    /// Returns how far what this program needs is built.
    fn progress(&self) -> Result<RebuildProgress, BoxError> {
        let from_the_start = |quiet| RebuildProgress {
            form: self.form(),
            quiet,
            ..RebuildProgress::default()
        };
        Ok(match self.progress.get(&HISTORY.to_owned())? {
            None => from_the_start(false),
            Some(progress) if progress.form == self.form() => progress,
            // A rebuild that tells goes on where it was: what it has told must not be told again.
            Some(progress) if !progress.complete && !progress.quiet => progress,
            Some(_) => from_the_start(true),
        })
    }

    fn form(&self) -> DerivedForm {
        DerivedForm {
            snapshots: snapshot::FORMAT,
            state_version: A::STATE_VERSION,
            index: self.aggregates.index.is_some(),
        }
    }

    /// Returns the aggregate at which the slice before ended.
    fn resume(
        &self,
        position: Option<RebuildPosition>,
    ) -> Result<Option<Current<A::State>>, BoxError> {
        let Some(RebuildPosition {
            aggregate_id,
            version,
        }) = position
        else {
            return Ok(None);
        };
        // What another program has left may not read; the slice ended here, history does not.
        let record = self.aggregates.load_at(&aggregate_id, version)?;
        assert!(
            record.is_some(),
            "a slice commits its position together with its state"
        );
        Ok(record.map(|record| Current {
            aggregate_id,
            record,
        }))
    }

    /// Hands an event downstream, as it was when it was new.
    fn happened(
        &self,
        context: &mut ProcessorContext<'_, String, Effect<A::State>>,
        entry: &HistoryEntry,
        before: Option<A::State>,
        after: &AggregateRecord<A::State>,
        key: &HistoryKey,
    ) -> Result<(), BoxError> {
        let happened = Happened {
            event: entry.event.clone(),
            before,
            after: after.clone(),
            occasion: Occasion::Rebuilt,
            process: None,
        };
        let timestamp = after.updated_at.min(context.system_time());
        let effect = Effect::Happened(Box::new(happened));
        Ok(context.forward(Record::new(key.aggregate_id.clone(), effect, timestamp))?)
    }

    /// Writes an aggregate whose last entry is in, and hands it downstream.
    fn finish(
        &self,
        context: &mut ProcessorContext<'_, String, Effect<A::State>>,
        current: Option<Current<A::State>>,
        quiet: bool,
    ) -> Result<(), BoxError> {
        let Some(Current {
            aggregate_id,
            record,
        }) = current
        else {
            return Ok(());
        };
        self.aggregates.set(aggregate_id.clone(), record.clone())?;
        if quiet || self.tells == Tells::Steps {
            return Ok(());
        }
        // As where events are folded: a foreign clock may run ahead of what a broker takes.
        let timestamp = record.updated_at.min(context.system_time());
        context.forward(Record::new(
            aggregate_id,
            Effect::Changed(record),
            timestamp,
        ))?;
        Ok(())
    }

    /// Hands an event of history downstream, with the aggregate around it.
    fn step(
        &self,
        context: &mut ProcessorContext<'_, String, Effect<A::State>>,
        before: Option<AggregateRecord<A::State>>,
        after: &AggregateRecord<A::State>,
        envelope: &Envelope<'_>,
        entry: &HistoryEntry,
    ) -> Result<(), BoxError> {
        let timestamp = after.updated_at;
        let step = Step {
            before,
            after: after.clone(),
            events: vec![StepEvent {
                version: envelope.aggregate_version,
                timestamp: envelope.timestamp,
                headers: envelope.headers()?,
                value: entry.event.clone(),
            }],
            replayed: true,
        };
        let aggregate_id = envelope.aggregate_id.to_string();
        Ok(context.forward(Record::new(aggregate_id, Effect::Stepped(step), timestamp))?)
    }

    fn set(
        &self,
        complete: bool,
        position: Option<RebuildPosition>,
        (form, quiet): (DerivedForm, bool),
    ) -> Result<(), BoxError> {
        let progress = RebuildProgress {
            complete,
            position,
            form,
            quiet,
        };
        Ok(self.progress.put(HISTORY.to_owned(), progress)?)
    }
}
