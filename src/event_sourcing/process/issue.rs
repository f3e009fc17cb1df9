//! Issues the commands of pending steps, and those that stay without an answer once more.
//!
//! ```text
//!          event                 no answer for reissue_after: again
//! (none) ────────▶ issued ──┐◀──────────────┘
//!                    ▲      │ no answer for give_up_after
//!      event resumes │      ▼
//!                    └── given up ──▶ told to the process
//! answered, in whatever state: (none), or the next step
//! ```

use std::marker::PhantomData;
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Process, ProcessRef, ProcessStep, StepCommand, StepGivenUp, TRIGGER};
use crate::clock::Timestamp;
use crate::event_sourcing::command::CommandEnvelope;
use crate::event_sourcing::envelope::Metadata;
use crate::event_sourcing::recorded::{Occasion, RecordedEvent};
use crate::event_sourcing::time::format_timestamp;
use crate::metrics::{Counter, ProcessMetrics};
use crate::processor::{
    BoxError, Init, Processor, ProcessorContext, Punctuation, PunctuationType, Record,
};
use crate::state::StoreRef;

/// How long a process waits for an answer, and what it does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long after a command without an answer it is issued again.
    pub reissue_after: Duration,
    /// How long after the first time, or after it was [resumed](super::Process::resumes), it is issued no
    /// more.
    pub give_up_after: Duration,
    /// How often a part of the pending steps is looked through.
    pub check_interval: Duration,
    /// How many are looked through at a time.
    pub check_entries_max: usize,
}

impl Default for Patience {
    /// Again after 30 seconds, no more after a day; a thousand entries a second.
    fn default() -> Self {
        Self {
            reissue_after: Duration::from_secs(30),
            give_up_after: Duration::from_secs(24 * 60 * 60),
            check_interval: Duration::from_secs(1),
            check_entries_max: 1_000,
        }
    }
}

/// A step without an answer: a value of the store `<name>-pending`, by process id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingStep {
    /// The step.
    pub step: String,
    /// The type of the aggregate that was asked.
    pub aggregate_type: String,
    /// The aggregate that was asked.
    pub aggregate_id: String,
    /// The command, as it was issued and will be again.
    pub command: Box<RawValue>,
    /// When it was issued first, in milliseconds.
    pub first_issued_at: Timestamp,
    /// When it was last resumed after it had been given up; absent unless it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// When it was issued last.
    pub issued_at: Timestamp,
    /// How often it was issued.
    pub attempts: u32,
    /// Whether it is issued no more.
    pub given_up: bool,
}

/// What to do about a pending step. Facts in, decision out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overdue {
    Wait,
    Reissue,
    GiveUp,
}

impl PendingStep {
    fn overdue(&self, patience: &Patience, now: Timestamp) -> Overdue {
        let since = |from: Timestamp| {
            let passed = u64::try_from(now.saturating_sub(from)).unwrap_or(0);
            Duration::from_millis(passed)
        };
        if self.given_up {
            Overdue::Wait
        } else if since(self.resumed_at.unwrap_or(self.first_issued_at)) >= patience.give_up_after {
            Overdue::GiveUp
        } else if since(self.issued_at) >= patience.reissue_after {
            Overdue::Reissue
        } else {
            Overdue::Wait
        }
    }
}

/// A command on its way to another aggregate's topic; the record's key is that aggregate's id.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    pub(super) aggregate_type: String,
    pub(super) command: Vec<u8>,
}

/// A command on the wire, as a process writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommandWire<'a> {
    pub(super) command_id: &'a str,
    pub(super) command_type: &'a str,
    pub(super) aggregate_id: &'a str,
    pub(super) timestamp: String,
    pub(super) correlation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<&'a Metadata>,
    pub(super) data: &'a RawValue,
}

pub(super) struct StepIssuer<P> {
    pub(super) pending: StoreRef<String, PendingStep>,
    pub(super) patience: Patience,
    /// The types of aggregates that have a command topic here.
    pub(super) known: Vec<String>,
    pub(super) metrics: Option<ProcessMetrics>,
    /// Where the look goes on.
    pub(super) checked_to: Option<String>,
    pub(super) process: PhantomData<fn() -> P>,
}

type EventOf<P> = RecordedEvent<
    <P as crate::event_sourcing::Aggregate>::Event,
    <P as crate::event_sourcing::Aggregate>::State,
>;
type Context<'a> = ProcessorContext<'a, String, Issued>;

impl<P: Process> Processor<String, EventOf<P>, String, Issued> for StepIssuer<P> {
    fn init(&mut self, context: &mut Context<'_>) -> Result<Init, BoxError> {
        context.schedule(self.patience.check_interval, PunctuationType::WallClockTime);
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        context: &mut Context<'_>,
        record: Record<String, EventOf<P>>,
    ) -> Result<(), BoxError> {
        let Record {
            key: process_id,
            value: event,
            ..
        } = record;
        // Neither what a rebuild tells again nor what another system has done moves anything.
        if event.occasion != (Occasion::Decided { last: true }) {
            return Ok(());
        }
        if P::is_stuck(&event.after) && !event.before.as_ref().is_some_and(P::is_stuck) {
            self.count(|metrics| &metrics.stuck);
            tracing::error!(process = P::TYPE, %process_id, "a process has stopped half done");
        }
        let pending = self.pending.get(&process_id)?;
        match (P::pending(&event.after), pending) {
            (Some(step), Some(pending)) if step.name() == pending.step => {
                if pending.given_up && P::resumes(&event.event) {
                    self.resume(context, process_id, pending)
                } else {
                    Ok(())
                }
            }
            (Some(step), _) => self.issue(context, process_id, step, &event),
            (None, Some(_)) => Ok(self.pending.delete(&process_id).map(drop)?),
            (None, None) => Ok(()),
        }
    }

    fn punctuate(&mut self, context: &mut Context<'_>, _: Punctuation) -> Result<(), BoxError> {
        let start = self
            .checked_to
            .take()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let now = context.system_time();
        let mut looked_at = 0;
        let mut overdue = Vec::new();
        for found in self.pending.range((start, Bound::Unbounded))? {
            let (process_id, pending) = found?;
            looked_at += 1;
            if looked_at >= self.patience.check_entries_max {
                self.checked_to = Some(process_id.clone());
            }
            match pending.overdue(&self.patience, now) {
                Overdue::Wait => {}
                decision => overdue.push((process_id, pending, decision)),
            }
            if self.checked_to.is_some() {
                break;
            }
        }
        for (process_id, pending, decision) in overdue {
            match decision {
                Overdue::GiveUp => self.give_up(context, process_id, pending)?,
                Overdue::Reissue | Overdue::Wait => self.reissue(context, process_id, pending)?,
            }
        }
        Ok(())
    }
}

impl<P: Process> StepIssuer<P> {
    fn count(&self, counter: impl FnOnce(&ProcessMetrics) -> &Counter) {
        if let Some(metrics) = &self.metrics {
            counter(metrics).inc();
        }
    }

    fn issue(
        &self,
        context: &mut Context<'_>,
        process_id: String,
        step: P::Step,
        event: &EventOf<P>,
    ) -> Result<(), BoxError> {
        let now = context.system_time();
        let StepCommand {
            aggregate_type,
            aggregate_id,
            command_type,
            data,
        } = P::command(&process_id, &event.after, step)?;
        if !self.known.iter().any(|known| known == aggregate_type) {
            let process = P::TYPE;
            let text =
                format!("process {process} asks {aggregate_type}, whose topic it was not told");
            return Err(text.into());
        }
        let step = step.name().into_owned();
        let command = serde_json::value::to_raw_value(&CommandWire {
            command_id: &format!("{process_id}-{step}"),
            command_type,
            aggregate_id: &aggregate_id,
            timestamp: format_timestamp(now)?,
            correlation_id: &event.correlation_id,
            metadata: event.metadata.as_ref(),
            data: &data,
        })?;
        let pending = PendingStep {
            step,
            aggregate_type: aggregate_type.to_owned(),
            aggregate_id,
            command,
            first_issued_at: now,
            resumed_at: None,
            issued_at: now,
            attempts: 1,
            given_up: false,
        };
        self.count(|metrics| &metrics.steps_issued);
        self.send(context, process_id, pending)
    }

    fn reissue(
        &self,
        context: &mut Context<'_>,
        process_id: String,
        mut pending: PendingStep,
    ) -> Result<(), BoxError> {
        pending.issued_at = context.system_time();
        pending.attempts = pending.attempts.saturating_add(1);
        self.count(|metrics| &metrics.steps_reissued);
        tracing::warn!(
            process = P::TYPE, %process_id, step = %pending.step, attempts = pending.attempts,
            "a step has no answer yet: issued again"
        );
        self.send(context, process_id, pending)
    }

    /// Issues a step again that was given up.
    fn resume(
        &self,
        context: &mut Context<'_>,
        process_id: String,
        mut pending: PendingStep,
    ) -> Result<(), BoxError> {
        let now = context.system_time();
        pending.given_up = false;
        (pending.resumed_at, pending.issued_at) = (Some(now), now);
        pending.attempts = pending.attempts.saturating_add(1);
        self.count(|metrics| &metrics.steps_resumed);
        tracing::warn!(
            process = P::TYPE, %process_id, step = %pending.step, attempts = pending.attempts,
            "a step that was given up is issued again"
        );
        self.send(context, process_id, pending)
    }

    /// Issues a step no more, and tells the process so.
    fn give_up(
        &self,
        context: &mut Context<'_>,
        process_id: String,
        mut pending: PendingStep,
    ) -> Result<(), BoxError> {
        pending.given_up = true;
        self.count(|metrics| &metrics.steps_given_up);
        let PendingStep { step, attempts, .. } = &pending;
        tracing::error!(
            process = P::TYPE, %process_id, %step, attempts,
            "a step has no answer: issued no more"
        );
        let now = context.system_time();
        let issued = CommandEnvelope::parse(pending.command.get().as_bytes())?;
        let given_up = StepGivenUp {
            step: step.clone(),
            attempts: *attempts,
        };
        let command = serde_json::to_vec(&CommandWire {
            // Given up once more after it was resumed, it has had more attempts.
            command_id: &format!("{process_id}-{step}-given-up-{attempts}"),
            command_type: StepGivenUp::COMMAND_TYPE,
            aggregate_id: &process_id,
            timestamp: format_timestamp(now)?,
            correlation_id: issued.correlation_id(),
            metadata: None,
            data: &serde_json::value::to_raw_value(&given_up)?,
        })?;
        let told = Issued {
            aggregate_type: P::TYPE.to_owned(),
            command,
        };
        let mut record = Record::new(process_id.clone(), told, now);
        let origin = ProcessRef {
            process: P::TYPE.to_owned(),
            process_id: process_id.clone(),
            step: TRIGGER.to_owned(),
        };
        origin.write(&mut record.headers);
        self.pending.put(process_id, pending)?;
        Ok(context.forward(record)?)
    }

    fn send(
        &self,
        context: &mut Context<'_>,
        process_id: String,
        pending: PendingStep,
    ) -> Result<(), BoxError> {
        let origin = ProcessRef {
            process: P::TYPE.to_owned(),
            process_id: process_id.clone(),
            step: pending.step.clone(),
        };
        let issued = Issued {
            aggregate_type: pending.aggregate_type.clone(),
            command: pending.command.get().as_bytes().to_vec(),
        };
        let key = pending.aggregate_id.clone();
        self.pending.put(process_id, pending)?;
        let mut record = Record::new(key, issued, context.system_time());
        origin.write(&mut record.headers);
        Ok(context.forward(record)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_issued_again_in_time_and_given_up_in_the_end() {
        let patience = Patience::default();
        let pending = |first_issued_at, resumed_at, issued_at, given_up| PendingStep {
            step: "debit".into(),
            aggregate_type: "Account".into(),
            aggregate_id: "a".into(),
            command: RawValue::from_string("{}".into()).unwrap(),
            first_issued_at,
            resumed_at,
            issued_at,
            attempts: 1,
            given_up,
        };
        let day = 24 * 60 * 60 * 1000;
        let resumed = Some(5 * day);
        for (first, resumed, last, given_up, now, expected) in [
            (0, None, 0, false, 29_999, Overdue::Wait),
            (0, None, 0, false, 30_000, Overdue::Reissue),
            (0, None, 30_000, false, 59_999, Overdue::Wait),
            (0, None, day - 1, false, day, Overdue::GiveUp),
            (0, None, 0, true, 2 * day, Overdue::Wait),
            // Resumed, it has its time again.
            (
                0,
                resumed,
                5 * day,
                false,
                5 * day + 30_000,
                Overdue::Reissue,
            ),
            (0, resumed, 5 * day, false, 6 * day, Overdue::GiveUp),
            // A clock that was set back makes nothing overdue.
            (50_000, None, 50_000, false, 0, Overdue::Wait),
        ] {
            let decided = pending(first, resumed, last, given_up).overdue(&patience, now);
            assert_eq!(
                decided, expected,
                "{first} {resumed:?} {last} {given_up} {now}"
            );
        }
    }
}
