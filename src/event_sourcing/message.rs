//! An aggregate whose input is a stream of messages instead of a command topic with replies.
//!
//! # Position
//! [`EventSourced::draw_on`](super::EventSourced::draw_on) draws it behind whatever reads, checks and
//! enriches the messages. Deciding and writing are the command processor's, rebuilding is the event
//! processor's; here is only what differs.
//! # Invariants
//! - A message is carried out once: its id is remembered as a command's is.
//! - The events are the message's, and so is their time: nobody else writes this aggregate, and nothing
//!   is read back from a topic.
//! # Failure
//! A message against a rule, or to a tombstoned aggregate, is rejected with its code and meets the error
//! policy of the stream's source. There is nobody to reply to.

use super::aggregate::Aggregate;
use super::command_processor::CommandProcessor;
use super::decision::{AggregateRecord, Appended, decide_message};
use super::envelope::Metadata;
use super::history::HistoryKey;
use super::rebuild::Rebuild;
use super::recorded::Happened;
use super::stores::CommandKey;
use super::topology::{Effect, reject};
use crate::clock::Timestamp;
use crate::log::Headers;
use crate::processor::{BoxError, Init, Processor, ProcessorContext, Punctuation, Record};

/// A message to an aggregate, read and checked; the record's key is the aggregate's id.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<C> {
    /// Unique per aggregate; a repeated one changes nothing. The events' `causationId`.
    pub message_id: String,
    /// Follows one request through all events; absent means the message's id.
    pub correlation_id: Option<String>,
    /// When it happened: the events' time, unless the aggregate has a later event.
    pub timestamp: Timestamp,
    /// Who, why and by what source; handed on to the events.
    pub metadata: Metadata,
    /// What it says.
    pub content: C,
}

/// An event of a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepEvent {
    /// The aggregate's version after it.
    pub version: u64,
    /// When it occurred.
    pub timestamp: Timestamp,
    /// The headers of its record.
    pub headers: Headers,
    /// Its envelope as JSON.
    pub value: Vec<u8>,
}

impl From<Appended> for StepEvent {
    fn from(event: Appended) -> Self {
        Self {
            version: event.key.version,
            timestamp: event.timestamp,
            headers: event.headers,
            value: event.value,
        }
    }
}

/// What one message did to an aggregate, or one event of its history in a rebuild.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<S> {
    /// The aggregate before; `None` before its first event.
    pub before: Option<AggregateRecord<S>>,
    /// The aggregate after.
    pub after: AggregateRecord<S>,
    /// The events between the two; at least one.
    pub events: Vec<StepEvent>,
    /// Whether it comes from history, after a reset: it has been published, projections have lost it.
    pub replayed: bool,
}

/// Decides messages; [`CommandProcessor`] without replies, and with the rebuild that an aggregate
/// without an event processor has to do itself.
pub(super) struct MessageProcessor<A: Aggregate> {
    pub(super) commands: CommandProcessor<A>,
    pub(super) rebuild: Rebuild<A>,
}

type Context<'a, A> = ProcessorContext<'a, String, Effect<<A as Aggregate>::State>>;

impl<A: Aggregate> Processor<String, Message<A::Command>, String, Effect<A::State>>
    for MessageProcessor<A>
{
    fn init(&mut self, context: &mut Context<'_, A>) -> Result<Init, BoxError> {
        match self.rebuild.slice(context)? {
            Init::Continue => Ok(Init::Continue),
            Init::Ready => self.commands.start(context),
        }
    }

    fn process(
        &mut self,
        context: &mut Context<'_, A>,
        record: Record<String, Message<A::Command>>,
    ) -> Result<(), BoxError> {
        let at = CommandKey {
            aggregate_id: record.key,
            command_id: record.value.message_id.clone(),
        };
        if self.commands.seen(context, &at)?.is_some() {
            return Ok(());
        }
        let aggregates = &self.commands.aggregates;
        let before = aggregates.load(&at.aggregate_id)?;
        self.commands.meter.after_tombstone(before.as_ref());
        let actor = record.value.metadata.get("actorId");
        let actor = actor.and_then(|actor| actor.as_str()).map(str::to_owned);
        let decided = decide_message::<A>(before.as_ref(), &at.aggregate_id, record.value)?;
        let decision = decided.map_err(|refusal| {
            self.commands.refused(refusal.too_large);
            reject(refusal.code, &refusal.message)
        })?;
        if let Some(after) = decision.record {
            let key = at.aggregate_id.clone();
            let last = HistoryKey::new(key.as_str(), after.version);
            self.commands.meter.tombstone::<A>(&last, &after);
            let events = decision.events.iter();
            let written = events.map(|event| self.commands.recorded(event, actor.clone()));
            aggregates.append(before.clone(), written.collect(), after.clone())?;
            if self.commands.reports {
                let events = &decision.events;
                let happened = Happened::decided::<A>(before.clone(), events, &after, None)?;
                for happened in happened {
                    let timestamp = happened.after.updated_at;
                    let effect = Effect::Happened(Box::new(happened));
                    context.forward(Record::new(key.clone(), effect, timestamp))?;
                }
            }
            let timestamp = after.updated_at;
            let step = Step {
                before,
                after,
                events: decision.events.into_iter().map(StepEvent::from).collect(),
                replayed: false,
            };
            context.forward(Record::new(key, Effect::Stepped(step), timestamp))?;
        }
        self.commands
            .remember(context, at, (decision.reply, false))?;
        Ok(())
    }

    fn punctuate(&mut self, context: &mut Context<'_, A>, _: Punctuation) -> Result<(), BoxError> {
        Ok(self.commands.purge(context.system_time())?)
    }
}
