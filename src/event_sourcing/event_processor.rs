//! Reads the events topic: own events come back, other systems' events are judged and folded.

use super::aggregate::Aggregate;
use super::archived::StoredEvent;
use super::decision::{AggregateRecord, FoldError, fold_foreign};
use super::envelope::Envelope;
use super::event_index::IndexedEvent;
use super::history::{HistoryEntry, HistoryKey, Incoming, Known, Origin, Stored, Verdict, judge};
use super::limits::event_size;
use super::meter::Meter;
use super::reason::reasons;
use super::rebuild::{Rebuild, Tells};
use super::recorded::{Happened, Occasion};
use super::repository::NewEvent;
use super::topology::{Effect, RawKey, RawValue, reject};
use super::trim::{TRIM_INTERVAL, Trim};
use crate::clock::Timestamp;
use crate::log::Offset;
use crate::processor::{
    BoxError, Init, Processor, ProcessorContext, Punctuation, PunctuationType, Record,
};
use crate::state::StateError;

pub(super) struct EventProcessor<A: Aggregate> {
    /// Holds the stores; runs before the first record.
    pub(super) rebuild: Rebuild<A>,
    /// For errors.
    pub(super) history_name: String,
    /// Where the history store keeps recent events only.
    pub(super) trim: Option<Trim>,
    pub(super) meter: Meter,
}

type Context<'a, A> = ProcessorContext<'a, String, Effect<<A as Aggregate>::State>>;

impl<A: Aggregate> Processor<RawKey, RawValue, String, Effect<A::State>> for EventProcessor<A> {
    fn init(&mut self, context: &mut Context<'_, A>) -> Result<Init, BoxError> {
        let done = self.rebuild.slice(context)?;
        if done == Init::Ready && self.trim.is_some() {
            context.schedule(TRIM_INTERVAL, PunctuationType::WallClockTime);
        }
        Ok(done)
    }

    fn process(
        &mut self,
        context: &mut Context<'_, A>,
        record: Record<RawKey, RawValue>,
    ) -> Result<(), BoxError> {
        let Some(bytes) = record.value else {
            return Err(reject(reasons::MISSING_VALUE, &"the event has no value"));
        };
        let offset = context.record_metadata().map(|read| read.offset);
        let folded =
            self.fold(offset, record.key.as_deref(), &bytes)
                .map_err(|error| match error {
                    Failure::Fold(error) => {
                        if matches!(error, FoldError::TooLarge(_)) {
                            self.meter.count(|metrics| &metrics.refused);
                        }
                        reject(error.code(), &error)
                    }
                    Failure::Task(error) => error,
                })?;
        match folded {
            Some(folded) => self.write(context, bytes, folded),
            None => Ok(()),
        }
    }

    fn punctuate(&mut self, _: &mut Context<'_, A>, _: Punctuation) -> Result<(), BoxError> {
        match &self.trim {
            Some(trim) => trim.run(&self.rebuild.aggregates),
            None => Ok(()),
        }
    }
}

/// Why an event was not folded: through its own fault, or the task's.
enum Failure {
    Fold(FoldError),
    Task(BoxError),
}

impl<E: Into<FoldError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Fold(error.into())
    }
}

/// An event that joins history, and the aggregate around it.
struct Folded<S> {
    key: HistoryKey,
    timestamp: Timestamp,
    indexed: IndexedEvent,
    before: Option<AggregateRecord<S>>,
    after: AggregateRecord<S>,
}

impl<A: Aggregate> EventProcessor<A> {
    /// Judges an event and folds it; `None` for a repetition.
    fn fold(
        &self,
        offset: Option<Offset>,
        key: Option<&[u8]>,
        bytes: &[u8],
    ) -> Result<Option<Folded<A::State>>, Failure> {
        let envelope = Envelope::parse(bytes)?;
        envelope.check_record(key, A::TYPE)?;
        let size = event_size(&envelope.event_type, &envelope.event_id, bytes.len())?;
        let at = HistoryKey::new(envelope.aggregate_id.as_ref(), envelope.aggregate_version);
        let known = self
            .rebuild
            .aggregates
            .load(&at.aggregate_id)
            .map_err(Failure::Task)?;
        let range = known.as_ref().map(AggregateRecord::known);
        let verdict = self
            .judge(range, &envelope, &at, bytes)
            .map_err(|error| Failure::Task(error.into()))?;
        if let Some(error) = FoldError::after_tombstone(known.as_ref(), verdict, &envelope) {
            self.meter.count(|metrics| &metrics.tombstone_refusals);
            return Err(error.into());
        }
        match verdict {
            Verdict::Repetition => {
                self.meter.count(|metrics| &metrics.repetitions);
                self.passed(offset, &at)?;
                return Ok(None);
            }
            Verdict::Apply => {}
            Verdict::AdoptOpening => {
                self.meter.count(|metrics| &metrics.adopted_openings);
                tracing::debug!(
                    aggregate_id = %at.aggregate_id, version = at.version,
                    "first event is above version 1: adopted"
                );
            }
            verdict @ (Verdict::Conflict
            | Verdict::Gap { .. }
            | Verdict::BeforeOpening { .. }
            | Verdict::Broken) => {
                let refused = FoldError::from_verdict(verdict, &envelope);
                assert!(
                    refused.is_some(),
                    "history and state of {} contradict each other",
                    at.aggregate_id
                );
                return refused.map_or(Ok(None), |error| Err(Failure::Fold(error)));
            }
        }
        self.meter
            .size(size, &envelope.event_type, &envelope.event_id, bytes.len());
        let after = fold_foreign::<A>(known.clone(), &envelope)?;
        self.passed(offset, &at)?;
        Ok(Some(Folded {
            key: at,
            timestamp: envelope.timestamp,
            indexed: IndexedEvent::of(&envelope),
            before: known,
            after,
        }))
    }

    /// Notes an event of history that its topic holds.
    fn passed(&self, offset: Option<Offset>, event: &HistoryKey) -> Result<(), Failure> {
        match self.trim.as_ref().zip(offset) {
            Some((trim, offset)) => trim
                .passed(offset, event)
                .map_err(|error| Failure::Task(error.into())),
            None => Ok(()),
        }
    }

    /// Looks up what history holds at the event's version, and decides.
    fn judge(
        &self,
        known: Option<Known>,
        envelope: &Envelope<'_>,
        at: &HistoryKey,
        bytes: &[u8],
    ) -> Result<Verdict, StateError> {
        let incoming = Incoming {
            event_id: &envelope.event_id,
            version: at.version,
        };
        // History holds exactly what state covers; elsewhere there is nothing to look up.
        if !known.is_some_and(|known| known.covers(at.version)) {
            return Ok(judge(known, None, incoming));
        }
        self.rebuild.aggregates.event_with(at, |entry| {
            let entry = match entry {
                None => return Ok(judge(known, None, incoming)),
                Some(StoredEvent::Archived(left)) => {
                    let event_id = &left.event_id;
                    return Ok(judge(known, Some(Stored { event_id }), incoming));
                }
                Some(StoredEvent::Whole(entry)) => entry,
            };
            if entry.event == bytes {
                // Our own events come back byte for byte: nothing to parse.
                return Ok(judge(
                    known,
                    Some(Stored {
                        event_id: incoming.event_id,
                    }),
                    incoming,
                ));
            }
            let stored = Envelope::parse(&entry.event).map_err(|error| StateError::Decode {
                store: self.history_name.clone(),
                source: error.into(),
            })?;
            Ok(judge(
                known,
                Some(Stored {
                    event_id: &stored.event_id,
                }),
                incoming,
            ))
        })?
    }

    fn write(
        &self,
        context: &mut Context<'_, A>,
        bytes: Vec<u8>,
        folded: Folded<A::State>,
    ) -> Result<(), BoxError> {
        let Folded {
            key,
            timestamp,
            indexed,
            before,
            after,
        } = folded;
        self.meter.count(|metrics| &metrics.folded);
        self.meter.tombstone::<A>(&key, &after);
        let aggregate_id = key.aggregate_id.clone();
        let reports = self.rebuild.tells == Tells::ChangesAndEvents;
        let happened = reports.then(|| Happened {
            event: bytes.clone(),
            before: before.as_ref().map(|before| before.state.clone()),
            after: after.clone(),
            occasion: Occasion::Folded,
            process: None,
        });
        let entry = HistoryEntry {
            origin: Origin::Foreign,
            event: bytes,
        };
        let event = NewEvent {
            key,
            entry,
            timestamp,
            indexed,
        };
        self.rebuild
            .aggregates
            .append(before, vec![event], after.clone())?;
        // A foreign clock may run ahead, and a broker refuses records dated far in the future: the
        // read model's record is dated now then. The event's own time stays in its state.
        let timestamp = after.updated_at.min(context.system_time());
        if let Some(happened) = happened {
            let effect = Effect::Happened(Box::new(happened));
            context.forward(Record::new(aggregate_id.clone(), effect, timestamp))?;
        }
        context.forward(Record::new(aggregate_id, Effect::Changed(after), timestamp))?;
        Ok(())
    }
}
