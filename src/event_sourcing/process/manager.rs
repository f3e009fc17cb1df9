//! Draws a process: the aggregate that it is, the commands it gives, the ways back to it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde_json::value::RawValue;

use super::issue::{CommandWire, Issued, Patience, StepIssuer};
use super::{AnswerEvent, Managed, Process, ProcessRef, StepAnswer, TRIGGER};
use crate::clock::Timestamp;
use crate::dsl::{KStream, Produced, StoreBuilder, StreamsBuilder};
use crate::event_sourcing::envelope::{Envelope, Metadata};
use crate::event_sourcing::recorded::{CommandOutcome, Drawn, Occasion, RecordedEvent};
use crate::event_sourcing::time::format_timestamp;
use crate::event_sourcing::topology::EventSourced;
use crate::packaged::AggregateEndpoint;
use crate::processor::{BoxError, Processor, ProcessorContext, Record};
use crate::serde as serdes;

/// Something that has happened elsewhere and concerns a process: it becomes a command of the process,
/// which its author marks as [of processes only](crate::event_sourcing::CommandData::OF_PROCESS).
#[derive(Debug, Clone)]
pub struct Trigger {
    /// The process.
    pub process_id: String,
    /// The command's id: the same whenever the same thing is told.
    pub command_id: String,
    /// `commandType`.
    pub command_type: &'static str,
    /// `correlationId`.
    pub correlation_id: String,
    /// Who and why.
    pub metadata: Option<Metadata>,
    /// `data`.
    pub data: Box<RawValue>,
}

impl Trigger {
    /// Returns what an event tells a process; the event's id is the command's.
    ///
    /// # Errors
    /// When `data` has no JSON form.
    pub fn by_event<E, S>(
        event: &RecordedEvent<E, S>,
        process_id: impl Into<String>,
        command_type: &'static str,
        data: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            process_id: process_id.into(),
            command_id: event.event_id.clone(),
            command_type,
            correlation_id: event.correlation_id.clone(),
            metadata: event.metadata.clone(),
            data: serde_json::value::to_raw_value(data)?,
        })
    }

    /// Returns what the outcome of a command tells a process; the command's id, marked as an outcome,
    /// is the new command's.
    ///
    /// # Errors
    /// When `data` has no JSON form, or the command cannot be read.
    pub fn by_outcome(
        outcome: &CommandOutcome,
        process_id: impl Into<String>,
        command_type: &'static str,
        data: &impl Serialize,
    ) -> Result<Self, BoxError> {
        let command = outcome.command()?;
        let metadata = command.metadata.map(|raw| serde_json::from_str(raw.get()));
        Ok(Self {
            process_id: process_id.into(),
            command_id: format!("{}-outcome", command.command_id),
            command_type,
            correlation_id: command.correlation_id().to_owned(),
            metadata: metadata.transpose()?,
            data: serde_json::value::to_raw_value(data)?,
        })
    }
}

/// A process as part of a topology.
///
/// ```text
/// let accounts = EventSourced::<Account>::new("account", …).draw_all(&builder);
/// let transfers = ProcessManager::new(EventSourced::<Managed<Transfer>>::new("transfer", …), commands)
///     .asks("Account", "billing.account.commands");
/// transfers.answered_by("transfer-answers", &accounts.outcomes);
/// let transfers = transfers.draw(&builder);
/// ```
/// Beside the nodes and stores of the aggregate there is `<name>-steps` with the store `<name>-pending`.
pub struct ProcessManager<P: Process> {
    aggregate: EventSourced<Managed<P>>,
    patience: Patience,
    targets: BTreeMap<&'static str, String>,
}

impl<P: Process> fmt::Debug for ProcessManager<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessManager")
            .field("aggregate", &self.aggregate)
            .field("patience", &self.patience)
            .field("targets", &self.targets)
            .finish()
    }
}

impl<P: Process> ProcessManager<P> {
    /// Makes a process of its aggregate.
    #[must_use]
    pub fn new(aggregate: EventSourced<Managed<P>>) -> Self {
        Self {
            aggregate,
            patience: Patience::default(),
            targets: BTreeMap::new(),
        }
    }

    /// Says where commands of an aggregate type go: to the declared name of its command topic.
    #[must_use]
    pub fn asks(mut self, aggregate_type: &'static str, command_topic: impl Into<String>) -> Self {
        self.targets.insert(aggregate_type, command_topic.into());
        self
    }

    /// Says how long it waits for answers.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Returns how the process is reached from outside.
    #[must_use]
    pub fn endpoint(&self) -> AggregateEndpoint {
        self.aggregate.endpoint()
    }

    /// Brings the answers of another aggregate back: `name` names the node. `outcomes` is what
    /// [`draw_all`](EventSourced::draw_all) returned of it.
    pub fn answered_by(&self, name: &str, outcomes: &KStream<String, CommandOutcome>) {
        let answers = outcomes.filter(|_, outcome| {
            let process = outcome.process.as_ref();
            process.is_some_and(|process| process.process == P::TYPE && process.step != TRIGGER)
        });
        let answers = answers.process(name, (), |_, ()| ToCommands(answer));
        self.to_commands(name, &answers);
    }

    /// Lets a stream tell processes something: `name` names the node, `trigger` says what. The keys and
    /// times of the stream mean nothing.
    ///
    /// Events of a rebuild ([`Occasion::Rebuilt`]) have been told before: use
    /// [`triggered_by_events`](Self::triggered_by_events) for [`Drawn::events`].
    pub fn triggered_by<V: Clone + 'static>(
        &self,
        name: &str,
        stream: &KStream<String, V>,
        trigger: impl Fn(&str, &V) -> Result<Option<Trigger>, BoxError> + Clone + Send + Sync + 'static,
    ) {
        let commands = stream.process(name, (), move |_, ()| {
            let trigger = trigger.clone();
            ToCommands(move |key: &str, value: &V, now| {
                let Some(trigger) = trigger(key, value)? else {
                    return Ok(None);
                };
                let origin = ProcessRef {
                    process: P::TYPE.to_owned(),
                    process_id: trigger.process_id.clone(),
                    step: TRIGGER.to_owned(),
                };
                Ok(Some((origin, write(&trigger, now)?)))
            })
        });
        self.to_commands(name, &commands);
    }

    /// As [`triggered_by`](Self::triggered_by), for the events of another aggregate; those that a
    /// rebuild brings once more are left out.
    pub fn triggered_by_events<E: Clone + 'static, S: Clone + 'static>(
        &self,
        name: &str,
        events: &KStream<String, RecordedEvent<E, S>>,
        trigger: impl Fn(&str, &RecordedEvent<E, S>) -> Result<Option<Trigger>, BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    ) {
        let new = events.filter(|_, event| event.occasion != Occasion::Rebuilt);
        self.triggered_by(name, &new, trigger);
    }

    fn to_commands(&self, name: &str, commands: &KStream<String, Vec<u8>>) {
        let produced = Produced::with(serdes::string(), serdes::bytes());
        let sink = format!("{name}-sink");
        commands.to(&self.aggregate.topics().commands, produced.named(sink));
    }

    /// Adds the process to a topology.
    #[must_use = "read models are drawn from it"]
    pub fn draw(self, builder: &StreamsBuilder) -> Drawn<Managed<P>> {
        let name = self.aggregate.name().to_owned();
        let own = self.aggregate.topics().commands.clone();
        let drawn = self.aggregate.draw_all(builder);
        let pending = builder.add_state_store(
            StoreBuilder::as_store(format!("{name}-pending"), serdes::string(), serdes::json())
                .record(),
        );
        let (patience, mut targets) = (self.patience, self.targets);
        let known: Vec<String> = targets.keys().map(|known| (*known).to_owned()).collect();
        let issued = drawn.events.process(
            &format!("{name}-steps"),
            (&pending,),
            move |setup, (pending,)| StepIssuer::<P> {
                pending,
                patience,
                known: known.clone(),
                metrics: setup.metrics().map(|metrics| metrics.process(P::TYPE)),
                checked_to: None,
                process: PhantomData,
            },
        );
        // What it gives up it tells itself.
        targets.entry(P::TYPE).or_insert(own);
        for (aggregate_type, topic) in targets {
            issued
                .filter(move |_, issued: &Issued| issued.aggregate_type == aggregate_type)
                .map_values(|issued| issued.command)
                .to(
                    &topic,
                    Produced::with(serdes::string(), serdes::bytes())
                        .named(format!("{name}-asks-{aggregate_type}")),
                );
        }
        drawn
    }
}

/// Turns what it is told into commands of a process.
struct ToCommands<F>(F);

impl<V, F> Processor<String, V, String, Vec<u8>> for ToCommands<F>
where
    F: Fn(&str, &V, Timestamp) -> Result<Option<(ProcessRef, Vec<u8>)>, BoxError>,
{
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, Vec<u8>>,
        record: Record<String, V>,
    ) -> Result<(), BoxError> {
        let now = context.system_time();
        let Some((origin, command)) = (self.0)(&record.key, &record.value, now)? else {
            return Ok(());
        };
        let mut record = Record::new(origin.process_id.clone(), command, now);
        origin.write(&mut record.headers);
        Ok(context.forward(record)?)
    }
}

fn write(trigger: &Trigger, now: Timestamp) -> Result<Vec<u8>, BoxError> {
    Ok(serde_json::to_vec(&CommandWire {
        command_id: &trigger.command_id,
        command_type: trigger.command_type,
        aggregate_id: &trigger.process_id,
        timestamp: format_timestamp(now)?,
        correlation_id: &trigger.correlation_id,
        metadata: trigger.metadata.as_ref(),
        data: &trigger.data,
    })?)
}

/// Makes the answer to a step a command of the process that has issued it.
fn answer(
    _: &str,
    outcome: &CommandOutcome,
    now: Timestamp,
) -> Result<Option<(ProcessRef, Vec<u8>)>, BoxError> {
    let Some(origin) = outcome.process.clone() else {
        return Ok(None);
    };
    let command = outcome.command()?;
    let mut events = Vec::with_capacity(outcome.events.len());
    for event in &outcome.events {
        let envelope = Envelope::parse(event)?;
        events.push(AnswerEvent {
            event_type: envelope.event_type.into_owned(),
            schema_version: envelope.schema_version,
            data: envelope.data.to_owned(),
        });
    }
    let answer = StepAnswer {
        step: origin.step.clone(),
        reply: outcome.reply.clone(),
        events,
    };
    let metadata: Option<Metadata> = match command.metadata {
        Some(raw) => Some(serde_json::from_str(raw.get())?),
        None => None,
    };
    let command = CommandWire {
        command_id: &format!("{}-answer", command.command_id),
        command_type: StepAnswer::COMMAND_TYPE,
        aggregate_id: &origin.process_id,
        timestamp: format_timestamp(now)?,
        correlation_id: command.correlation_id(),
        metadata: metadata.as_ref(),
        data: &serde_json::value::to_raw_value(&answer)?,
    };
    let command = serde_json::to_vec(&command)?;
    Ok(Some((origin, command)))
}
