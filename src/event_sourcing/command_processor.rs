//! Decides commands: one record of the command topic in, everything it brings about out, atomically.
//!
//! ```text
//! read → seen before? ── yes ─▶ first reply again
//!          │ no
//!          ▼
//! load → tombstoned? → own? → expectedVersion? → decide ─▶ events out; history, state, snapshots, index; read model
//!                                                      └─▶ reply, remembered; waiters after the commit
//! ```
//! A step of a process has a memory of its own, for good: nobody else can take its command id beforehand,
//! and whenever it is asked for again, it is not carried out again.

use std::ops::Bound;

use super::aggregate::Aggregate;
use super::command::{CommandEnvelope, CommandError, Outcome, Reply};
use super::decision::{Appended, Decision, decide_command};
use super::envelope::Attribution;
use super::event_index::IndexedEvent;
use super::history::{HistoryEntry, HistoryKey, Origin};
use super::meter::Meter;
use super::process::ProcessRef;
use super::reason::reasons;
use super::recorded::{CommandOutcome, Happened};
use super::reply_hub::ReplyHub;
use super::repository::{NewEvent, Repository};
use super::stores::{CommandKey, RememberedCommand};
use super::topology::{CommandMemory, Effect, RawKey, RawValue, reject};
use crate::clock::Timestamp;
use crate::processor::{
    BoxError, Init, Processor, ProcessorContext, Punctuation, PunctuationType, Record,
};
use crate::state::{StateError, StoreRef};

pub(super) struct CommandProcessor<A: Aggregate> {
    pub(super) aggregates: Repository<A>,
    pub(super) commands: StoreRef<CommandKey, RememberedCommand>,
    pub(super) memory: CommandMemory,
    pub(super) replies: ReplyHub,
    pub(super) meter: Meter,
    /// Whether events and outcomes are handed downstream beside changes.
    pub(super) reports: bool,
    /// Where the purge goes on.
    pub(super) purged_to: Option<CommandKey>,
}

type Context<'a, A> = ProcessorContext<'a, String, Effect<<A as Aggregate>::State>>;

impl<A: Aggregate> Processor<RawKey, RawValue, String, Effect<A::State>> for CommandProcessor<A> {
    fn init(&mut self, context: &mut Context<'_, A>) -> Result<Init, BoxError> {
        self.start(context)
    }

    fn process(
        &mut self,
        context: &mut Context<'_, A>,
        record: Record<RawKey, RawValue>,
    ) -> Result<(), BoxError> {
        let Some(bytes) = record.value else {
            return Err(reject(reasons::MISSING_VALUE, &"the command has no value"));
        };
        let key = record.key.as_deref();
        match CommandEnvelope::parse(&bytes) {
            Ok(mut command) => {
                check_key(key, &command.aggregate_id)?;
                command.process = ProcessRef::from_headers(&record.headers);
                let at = CommandKey {
                    aggregate_id: command.aggregate_id.to_string(),
                    command_id: ProcessRef::memory_id(
                        command.process.as_ref(),
                        &command.command_id,
                    ),
                };
                let (reply, repeated) = match self.seen(context, &at)? {
                    Some(reply) => (reply, true),
                    None => (self.decide(context, at, &command)?, false),
                };
                if self.reports {
                    self.report(context, &command, &bytes, &reply, repeated)?;
                }
                self.reply(context, command.process.as_ref(), reply)
            }
            Err(error) => self.refuse_unreadable(context, key, &bytes, &error),
        }
    }

    fn punctuate(&mut self, context: &mut Context<'_, A>, _: Punctuation) -> Result<(), BoxError> {
        Ok(self.purge(context.system_time())?)
    }
}

fn check_key(key: Option<&[u8]>, aggregate_id: &str) -> Result<(), BoxError> {
    let error = match key {
        Some(key) if key == aggregate_id.as_bytes() => return Ok(()),
        Some(_) => CommandError::KeyMismatch {
            aggregate_id: aggregate_id.into(),
        },
        None => CommandError::MissingKey,
    };
    Err(reject(error.code(), &error))
}

impl<A: Aggregate> CommandProcessor<A> {
    /// Begins to forget commands.
    pub(super) fn start(&self, context: &mut Context<'_, A>) -> Result<Init, BoxError> {
        context.schedule(self.memory.purge_interval, PunctuationType::WallClockTime);
        Ok(Init::Ready)
    }

    /// Returns the first reply to a command that is remembered, and counts the repetition.
    pub(super) fn seen(
        &self,
        context: &Context<'_, A>,
        at: &CommandKey,
    ) -> Result<Option<Reply>, StateError> {
        let Some(known) = self.commands.get(at)? else {
            return Ok(None);
        };
        if self.is_forgotten(&known, context.system_time()) {
            return Ok(None);
        }
        self.meter.count(|metrics| &metrics.commands_repeated);
        Ok(Some(known.reply))
    }

    /// Counts an input that a rule or a limit speaks against.
    pub(super) fn refused(&self, too_large: bool) {
        self.meter.outcome(Outcome::Rejected);
        if too_large {
            self.meter.count(|metrics| &metrics.refused);
        }
    }

    fn decide(
        &self,
        context: &mut Context<'_, A>,
        at: CommandKey,
        command: &CommandEnvelope<'_>,
    ) -> Result<Reply, BoxError> {
        let now = context.system_time();
        let known = self.aggregates.load(&at.aggregate_id)?;
        self.meter.after_tombstone(known.as_ref());
        let Decision {
            reply,
            events,
            record,
            too_large,
        } = decide_command::<A>(known.as_ref(), command, now)?;
        if let Some(too_large) = &too_large {
            self.meter.count(|metrics| &metrics.refused);
            tracing::warn!(
                event_type = %too_large.event_type, event_id = %too_large.event_id,
                bytes = too_large.size, "event refused for its size"
            );
        }
        if let Some(record) = record {
            let happened = if self.reports {
                Happened::decided::<A>(known.clone(), &events, &record, command.process.as_ref())?
            } else {
                Vec::new()
            };
            let actor = Attribution::of(command.metadata).actor;
            let last = HistoryKey::new(at.aggregate_id.as_str(), record.version);
            self.meter.tombstone::<A>(&last, &record);
            let mut written = Vec::with_capacity(events.len());
            for event in events {
                written.push(self.recorded(&event, actor.clone()));
                self.announce(context, event)?;
            }
            for happened in happened {
                let timestamp = happened.after.updated_at;
                let effect = Effect::Happened(Box::new(happened));
                context.forward(Record::new(at.aggregate_id.clone(), effect, timestamp))?;
            }
            self.aggregates.append(known, written, record.clone())?;
            let timestamp = record.updated_at;
            let changed = Effect::Changed(record);
            context.forward(Record::new(at.aggregate_id.clone(), changed, timestamp))?;
        }
        let step = command.process.as_ref();
        let kept = step.is_some_and(|step| step.is_step(&command.command_type));
        self.remember(context, at, (reply.clone(), kept))?;
        Ok(reply)
    }

    /// Hands downstream how a command ended; for a step of a process, with the events of it: from
    /// history, so that a repeated command is answered like the first.
    fn report(
        &self,
        context: &mut Context<'_, A>,
        command: &CommandEnvelope<'_>,
        bytes: &[u8],
        reply: &Reply,
        repeated: bool,
    ) -> Result<(), BoxError> {
        let mut events = Vec::new();
        if command.process.is_some() {
            let count = u64::try_from(reply.event_ids.len())?;
            let first = reply.aggregate_version.saturating_sub(count) + 1;
            for version in first..=reply.aggregate_version {
                let key = HistoryKey::new(command.aggregate_id.as_ref(), version);
                let event = self.aggregates.event(&key)?;
                events.extend(event.map(|entry| entry.event));
            }
        }
        let outcome = CommandOutcome {
            command: bytes.to_vec(),
            reply: reply.clone(),
            process: command.process.clone(),
            events,
            repeated,
        };
        let key = command.aggregate_id.to_string();
        let now = context.system_time();
        let effect = Effect::Ended(Box::new(outcome));
        Ok(context.forward(Record::new(key, effect, now))?)
    }

    /// Counts an event of ours, and returns it as history keeps it.
    pub(super) fn recorded(&self, event: &Appended, actor: Option<String>) -> NewEvent {
        self.meter.count(|metrics| &metrics.appended);
        let bytes = event.value.len();
        self.meter
            .size(event.size, event.event_type, &event.event_id, bytes);
        NewEvent {
            key: event.key.clone(),
            entry: HistoryEntry {
                origin: Origin::Native,
                event: event.value.clone(),
            },
            timestamp: event.timestamp,
            indexed: IndexedEvent {
                event_type: event.event_type.to_owned(),
                actor,
            },
        }
    }

    /// Sends an event to its topic.
    fn announce(&self, context: &mut Context<'_, A>, event: Appended) -> Result<(), BoxError> {
        let Appended {
            key,
            value,
            headers,
            timestamp,
            ..
        } = event;
        let aggregate_id = key.aggregate_id;
        let effect = Effect::Appended(value);
        context.forward(Record {
            key: aggregate_id,
            value: effect,
            timestamp,
            headers,
        })?;
        Ok(())
    }

    /// Remembers how a command ended, for a while or for good.
    pub(super) fn remember(
        &self,
        context: &Context<'_, A>,
        at: CommandKey,
        (reply, kept): (Reply, bool),
    ) -> Result<(), StateError> {
        self.meter.outcome(reply.outcome);
        let remembered = RememberedCommand {
            reply,
            decided_at: context.system_time(),
            kept,
        };
        self.commands.put(at, remembered)
    }

    /// Writes a reply, and tells those who wait for it once it is committed.
    fn reply(
        &self,
        context: &mut Context<'_, A>,
        process: Option<&ProcessRef>,
        reply: Reply,
    ) -> Result<(), BoxError> {
        let now = context.system_time();
        if process.is_none() && self.replies.is_awaited(&reply) {
            let (replies, reply) = (self.replies.clone(), reply.clone());
            context.after_commit(move || replies.deliver(&reply));
        }
        let key = reply.aggregate_id.clone();
        let mut record = Record::new(key, Effect::Replied(reply), now);
        if let Some(process) = process {
            process.write(&mut record.headers);
        }
        Ok(context.forward(record)?)
    }

    /// Answers a command that cannot be read when its ids can; a dead letter otherwise.
    fn refuse_unreadable(
        &self,
        context: &mut Context<'_, A>,
        key: Option<&[u8]>,
        bytes: &[u8],
        error: &CommandError,
    ) -> Result<(), BoxError> {
        let address = CommandEnvelope::address(bytes);
        let Some((command_id, aggregate_id)) =
            address.filter(|(_, aggregate_id)| key == Some(aggregate_id.as_bytes()))
        else {
            return Err(reject(error.code(), error));
        };
        let at = CommandKey {
            aggregate_id,
            command_id,
        };
        if let Some(reply) = self.seen(context, &at)? {
            return self.reply(context, None, reply);
        }
        let version = self.aggregates.version(&at.aggregate_id)?;
        let reason = (error.code(), error.to_string());
        let reply = Reply::refusal(&at.command_id, A::TYPE, &at.aggregate_id, version, reason);
        debug_assert!(reply.outcome == Outcome::Rejected, "it was never read");
        self.remember(context, at, (reply.clone(), false))?;
        self.reply(context, None, reply)
    }

    fn is_forgotten(&self, command: &RememberedCommand, now: Timestamp) -> bool {
        let retention = i64::try_from(self.memory.retention.as_millis()).unwrap_or(i64::MAX);
        !command.kept && command.decided_at.saturating_add(retention) <= now
    }

    /// Deletes forgotten commands, a bounded number of entries per call, round and round.
    pub(super) fn purge(&mut self, now: Timestamp) -> Result<(), StateError> {
        let start = self
            .purged_to
            .take()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let mut looked_at = 0;
        for found in self.commands.range((start, Bound::Unbounded))? {
            let (key, command) = found?;
            if self.is_forgotten(&command, now) {
                self.commands.delete(&key)?;
            }
            looked_at += 1;
            if looked_at >= self.memory.purge_entries_max {
                self.purged_to = Some(key);
                break;
            }
        }
        Ok(())
    }
}
