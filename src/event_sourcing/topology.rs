//! Draws the event-sourced part of a topology: two sources, two processors, and their stores.
//!
//! ```text
//! commands ─▶ <name>-decide ─┬─▶ events (own)         stores, shared by both processors:
//!                            ├─▶ replies              <name>-state           derived
//! events ───▶ <name>-fold ───┴─▶ changed aggregates   <name>-snapshots       derived
//!                                (the read models)    <name>-events-by-time  derived, optional
//! both ─────▶ dead letters                            <name>-rebuild         derived
//!                                                     <name>-history         record
//!                                                     <name>-commands        record
//!                                                     <name>-archivable      record, optional
//!                         with projections:           <name>-projections     derived
//!                         and of each of them:        <projection>-0, -1     derived
//! ```
//! # Invariants
//! - Commands and events of one aggregate are co-partitioned, and one task owns both: it is the only
//!   writer of its aggregates' history.
//! - Neither topic is read again by a reset. Commands have had their effects. Events have been judged:
//!   those that were applied are in history, which is what derived state is rebuilt from; one that
//!   became a dead letter because its predecessor was missing would find it there by now, and be
//!   applied, or become a dead letter a second time.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use super::aggregate::Aggregate;
use super::aggregate_history::{AggregateHistory, StoreNames};
use super::archived::{EventArchive, StoredEvent};
use super::command::Reply;
use super::command_processor::CommandProcessor;
use super::current_state::{CurrentState, CurrentStateSerde};
use super::decision::AggregateRecord;
use super::event_index::{EventIndexKey, EventIndexKeySerde, IndexedEvent};
use super::event_processor::EventProcessor;
use super::history::HistoryKey;
use super::message::{Message, MessageProcessor, Step};
use super::meter::Meter;
use super::projection::Projections;
use super::reason::ReasonCode;
use super::rebuild::{Rebuild, SliceLimits, Tells};
use super::recorded::{CommandOutcome, Drawn, DrawnSteps, Happened, RecordedEvent};
use super::reply_hub::ReplyHub;
use super::repository::Repository;
use super::snapshot::SnapshotSerde;
use super::stores::{
    CommandKey, CommandKeySerde, HistoryKeySerde, RebuildProgress, RememberedCommand,
    StoredEventSerde,
};
use super::trim::{Archivable, Trim};
use crate::dsl::{
    Consumed, KStream, ProcessorSetup, Produced, StoreBuilder, StoreHandle, StreamsBuilder,
};
use crate::format::topic_config::MAX_MESSAGE_BYTES;
use crate::log::Offset;
use crate::packaged::AggregateEndpoint;
use crate::processor::{BoxError, ErrorPolicy, Reject};
use crate::serde as serdes;

/// Keys as they come: a missing one becomes a dead letter, not a failed task.
pub(super) type RawKey = Option<Vec<u8>>;
/// As [`RawKey`].
pub(super) type RawValue = Option<Vec<u8>>;

/// Returns the error that makes a record a dead letter with a code.
pub(super) fn reject(code: ReasonCode, message: &dyn fmt::Display) -> BoxError {
    Box::new(Reject {
        code: code.as_str(),
        message: message.to_string(),
    })
}

/// What the processors send on, each with the aggregate's id as its key.
#[derive(Debug, Clone)]
pub(super) enum Effect<S> {
    /// An event of ours, as its envelope.
    Appended(Vec<u8>),
    /// An aggregate after an event, whoever wrote it, or after a rebuild.
    Changed(AggregateRecord<S>),
    /// The answer to a command.
    Replied(Reply),
    /// An event with the state around it, for [`Drawn::events`].
    Happened(Box<Happened<S>>),
    /// How a command ended, for [`Drawn::outcomes`].
    Ended(Box<CommandOutcome>),
    /// What a message did, where messages and not commands come in.
    Stepped(Step<S>),
}

/// How long commands are remembered, and how forgotten ones are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandMemory {
    /// For how long a repeated command gets its first reply again; afterwards it is a new command.
    pub retention: Duration,
    /// How often a part of the memory is looked through.
    pub purge_interval: Duration,
    /// How many entries are looked through at a time.
    pub purge_entries_max: usize,
}

impl Default for CommandMemory {
    /// Seven days; a thousand entries a second.
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(7 * 24 * 60 * 60),
            purge_interval: Duration::from_secs(1),
            purge_entries_max: 1_000,
        }
    }
}

/// The declared names of an aggregate's topics; a configuration may rename them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AggregateTopics {
    /// Commands, keyed by aggregate id.
    pub commands: String,
    /// Events, ours and those of other systems.
    pub events: String,
    /// Replies to commands.
    pub replies: String,
    /// What could not be read or does not follow.
    pub dead_letters: String,
}

impl AggregateTopics {
    /// Names the topics `<prefix>.commands`, `.events`, `.replies` and `.dlq`.
    #[must_use]
    pub fn prefixed(prefix: &str) -> Self {
        let topic = |what: &str| format!("{prefix}.{what}");
        Self {
            commands: topic("commands"),
            events: topic("events"),
            replies: topic("replies"),
            dead_letters: topic("dlq"),
        }
    }
}

/// How long topics of commands, events, replies and dead letters keep their records.
pub const TOPIC_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Returns the configs of a topic whose records expire.
#[must_use]
pub fn expiring_topic() -> BTreeMap<String, String> {
    topic([
        ("cleanup.policy", "delete".into()),
        ("retention.ms", TOPIC_RETENTION.as_millis().to_string()),
    ])
}

/// Returns the configs of a topic that keeps the latest record per key.
#[must_use]
pub fn compacted_topic() -> BTreeMap<String, String> {
    topic([("cleanup.policy", "compact".into())])
}

fn topic<const N: usize>(config: [(&str, String); N]) -> BTreeMap<String, String> {
    let common = [
        ("compression.type", "zstd".to_owned()),
        ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
        ("message.timestamp.type", "CreateTime".to_owned()),
    ];
    config
        .into_iter()
        .chain(common)
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// An aggregate as part of a topology.
///
/// ```text
/// let changed = EventSourced::<Account>::new("account", topics)
///     .command_memory(memory)
///     .replies(hub)
///     .draw(&builder);
/// changed.map_values(…).to("billing.account.balances", …);
/// ```
pub struct EventSourced<A> {
    name: String,
    topics: AggregateTopics,
    memory: CommandMemory,
    on_event_error: ErrorPolicy,
    replies: ReplyHub,
    slices: SliceLimits,
    snapshot_interval: NonZeroU64,
    index_by_time: bool,
    /// How many events of an aggregate its history store keeps whole; all, unless said otherwise.
    kept: Option<NonZeroU64>,
    archive: EventArchive,
    /// Whether events and outcomes are handed downstream beside changes.
    reports: bool,
    aggregate: PhantomData<fn() -> A>,
}

/// How many versions lie between two snapshots unless said otherwise.
pub const SNAPSHOT_INTERVAL: NonZeroU64 = NonZeroU64::new(100).unwrap();

impl<A> fmt::Debug for EventSourced<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSourced")
            .field("name", &self.name)
            .field("topics", &self.topics)
            .field("memory", &self.memory)
            .field("on_event_error", &self.on_event_error)
            .finish_non_exhaustive()
    }
}

type Effects<A> = KStream<String, Effect<<A as Aggregate>::State>>;

fn changes<S: Clone + 'static>(
    changed: &KStream<String, Effect<S>>,
) -> KStream<String, AggregateRecord<S>> {
    changed.flat_map_values(|effect| match effect {
        Effect::Changed(record) => Some(record),
        _ => None,
    })
}

fn read_events<A: Aggregate>(
    effects: &Effects<A>,
) -> KStream<String, RecordedEvent<A::Event, A::State>> {
    effects.try_flat_map_values(|effect| match effect {
        Effect::Happened(happened) => Ok(Some(happened.read::<A>()?)),
        _ => Ok(None),
    })
}

fn stepped<S: Clone + 'static>(effects: &KStream<String, Effect<S>>) -> KStream<String, Step<S>> {
    let steps = effects.flat_map_values(|effect| match effect {
        Effect::Stepped(step) => Some(step),
        _ => None,
    });
    // The key is the message's: it stays.
    steps.mark_as_partitioned()
}

struct Handles<A: Aggregate> {
    state: StoreHandle<String, CurrentState<A::State>>,
    history: StoreHandle<HistoryKey, StoredEvent>,
    archivable: Option<StoreHandle<Offset, Archivable>>,
    snapshots: StoreHandle<HistoryKey, Vec<u8>>,
    index: Option<StoreHandle<EventIndexKey, IndexedEvent>>,
    progress: StoreHandle<String, RebuildProgress>,
    commands: StoreHandle<CommandKey, RememberedCommand>,
}

impl<A: Aggregate> EventSourced<A> {
    /// Describes an aggregate whose stores and nodes are called `<name>-…`. Bad events become dead
    /// letters, commands are remembered for seven days, until said otherwise.
    #[must_use]
    pub fn new(name: impl Into<String>, topics: AggregateTopics) -> Self {
        Self {
            name: name.into(),
            on_event_error: ErrorPolicy::DeadLetter {
                topic: topics.dead_letters.clone(),
            },
            archive: EventArchive::of(&topics.events),
            topics,
            memory: CommandMemory::default(),
            replies: ReplyHub::new(),
            slices: SliceLimits::default(),
            snapshot_interval: SNAPSHOT_INTERVAL,
            index_by_time: true,
            kept: None,
            reports: false,
            aggregate: PhantomData,
        }
    }

    /// Describes an aggregate that messages come to instead of commands, to be drawn by
    /// [`draw_on`](Self::draw_on). Its stores are called `<name>-…`.
    #[must_use]
    pub fn of_messages(name: impl Into<String>) -> Self {
        Self::new(name, AggregateTopics::default())
    }

    /// Says how long commands, or messages, are remembered.
    #[must_use]
    pub fn command_memory(mut self, memory: CommandMemory) -> Self {
        self.memory = memory;
        self
    }

    /// Says what happens to an event that cannot be read, is unknown, or does not follow.
    #[must_use]
    pub fn on_event_error(mut self, policy: ErrorPolicy) -> Self {
        self.on_event_error = policy;
        self
    }

    /// Delivers replies to those who wait in `hub`, once they are committed.
    #[must_use]
    pub fn replies(mut self, hub: ReplyHub) -> Self {
        self.replies = hub;
        self
    }

    /// Bounds one slice of a rebuild from history by the number of entries.
    #[must_use]
    pub fn rebuild_slice_entries(mut self, entries: usize) -> Self {
        self.slices.entries = entries.max(1);
        self
    }

    /// Takes a snapshot at every version that is a multiple of `versions`; 100 unless said otherwise.
    /// Fewer make reads of the past faster and the store larger. May change at any time; what is
    /// there stays until the next reset.
    #[must_use]
    pub fn snapshot_interval(mut self, versions: NonZeroU64) -> Self {
        self.snapshot_interval = versions;
        self
    }

    /// Keeps no index of events by time, which costs a small write for each event: then nobody can ask
    /// for the events of all aggregates in a period. Switched on again, it is built from history when
    /// a task starts.
    #[must_use]
    pub fn without_index_by_time(mut self) -> Self {
        self.index_by_time = false;
        self
    }

    /// Lets the history store keep whole only about the latest `versions` events of an aggregate, and
    /// one snapshot interval more: older ones leave it once the archive has them, and are read from
    /// there whenever they are asked for. They leave only where an archive of the events topic is
    /// [connected](EventArchive::connect), as a daemon's configuration does, that has the topic from
    /// its start. Not for aggregates that [messages](Self::of_messages) come to.
    ///
    /// What stays of an event that has left is its id and time, some 60 bytes. May be switched on and
    /// off: what has left stays away.
    #[must_use]
    pub const fn keep_recent(mut self, versions: NonZeroU64) -> Self {
        self.kept = Some(versions);
        self
    }

    /// Returns where events are read from that have left the history store.
    #[must_use]
    pub const fn archive(&self) -> &EventArchive {
        &self.archive
    }

    fn store_name(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    pub(super) const fn topics(&self) -> &AggregateTopics {
        &self.topics
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns how the aggregate is reached from outside: its command topic, its state and history, its
    /// replies. One that messages come to can only be read.
    #[must_use]
    pub fn endpoint(&self) -> AggregateEndpoint {
        if self.topics.commands.is_empty() {
            let state = self.store_name("state");
            return AggregateEndpoint::read_only::<A>(state).with_history(self.history());
        }
        AggregateEndpoint::of::<A>(
            self.topics.commands.clone(),
            self.store_name("state"),
            self.replies.clone(),
        )
        .with_history(self.history())
    }

    /// Returns the reader of what the aggregates have been through: time travel, timelines, events.
    #[must_use]
    pub fn history(&self) -> AggregateHistory<A> {
        AggregateHistory::new(self.store_names())
    }

    fn store_names(&self) -> StoreNames {
        StoreNames {
            state: self.store_name("state"),
            history: self.store_name("history"),
            snapshots: self.store_name("snapshots"),
            index: self
                .index_by_time
                .then(|| self.store_name("events-by-time")),
            archive: self.archive.clone(),
        }
    }

    /// Adds the aggregate to a topology and declares its topics. Returns every change of an
    /// aggregate: one record per event, ours and other systems', with the record after it; and one
    /// per aggregate after a rebuild. Read models are drawn from it.
    #[must_use = "read models are drawn from the changes"]
    pub fn draw(self, builder: &StreamsBuilder) -> KStream<String, AggregateRecord<A::State>> {
        let stores = self.stores(builder);
        let (changed, _, _) = self.effects(builder, &stores);
        changes(&changed)
    }

    /// As [`draw`](Self::draw), and hands downstream every event and every command's outcome as well:
    /// for read models that need each event, and for [processes](super::ProcessManager).
    #[must_use = "read models are drawn from it"]
    pub fn draw_all(mut self, builder: &StreamsBuilder) -> Drawn<A> {
        self.reports = true;
        let stores = self.stores(builder);
        let (history, snapshots) = (stores.history.clone(), stores.snapshots.clone());
        let (name, limits, names) = (self.name.clone(), self.slices, self.store_names());
        let (changed, happened, ended) = self.effects(builder, &stores);
        let events = read_events::<A>(&happened);
        Drawn {
            changes: changes(&changed),
            events: events.clone(),
            projections: Projections {
                stores: names,
                name,
                limits,
                events,
                history,
                snapshots,
                progress: Rc::default(),
            },
            outcomes: ended.flat_map_values(|effect| match effect {
                Effect::Ended(outcome) => Some(*outcome),
                _ => None,
            }),
        }
    }

    /// Draws all of it; returns changes, events and outcomes of commands.
    fn effects(
        self,
        builder: &StreamsBuilder,
        stores: &Handles<A>,
    ) -> (Effects<A>, Effects<A>, Effects<A>) {
        let AggregateTopics {
            commands,
            events,
            replies,
            dead_letters,
        } = &self.topics;
        for name in [commands, events, replies, dead_letters] {
            builder.declare_topic(name.clone(), expiring_topic());
        }
        let decided = self.decide(builder, stores);
        let folded = self.fold(builder, stores);
        let mut effects = decided
            .merge(&folded)
            .named(&self.store_name("effects"))
            // Keys are aggregate ids, which the records read had as theirs.
            .mark_as_partitioned()
            .split();
        let appended = effects.branch(|_, effect| matches!(effect, Effect::Appended(_)));
        let replied = effects.branch(|_, effect| matches!(effect, Effect::Replied(_)));
        let happened = effects.branch(|_, effect| matches!(effect, Effect::Happened(_)));
        let ended = effects.branch(|_, effect| matches!(effect, Effect::Ended(_)));
        let changed = effects.default_branch();
        appended
            .flat_map_values(|effect| match effect {
                Effect::Appended(event) => Some(event),
                _ => None,
            })
            .to(events, Produced::with(serdes::string(), serdes::bytes()));
        replied
            .flat_map_values(|effect| match effect {
                Effect::Replied(reply) => Some(reply),
                _ => None,
            })
            .to(
                replies,
                Produced::with(serdes::string(), serdes::json::<Reply>()),
            );
        (changed, happened, ended)
    }

    /// Adds the aggregate to a topology behind a stream of messages, whose key is the aggregate's id.
    /// Returns what each of them did: one record per message that brought about events, and after a
    /// reset one per event in history, which has been published before. The stream goes to no topic:
    /// what is published, and in which form, is drawn from the steps.
    ///
    /// The source of the messages must not be rewindable: like commands, they have had their effects.
    /// Its error policy is met by those that the aggregate rejects.
    ///
    /// ```text
    /// let steps = EventSourced::<FlightLeg>::of_messages("flight-leg").draw_on(&builder, &messages);
    /// ```
    #[must_use = "events are published, and read models drawn, from the steps"]
    pub fn draw_on(
        self,
        builder: &StreamsBuilder,
        messages: &KStream<String, Message<A::Command>>,
    ) -> KStream<String, Step<A::State>>
    where
        A::Command: Clone,
    {
        let stores = self.stores(builder);
        stepped(&self.decide_messages(&stores, messages))
    }

    /// As [`draw_on`](Self::draw_on), for [projections](Projections) as well.
    #[must_use = "events are published, and read models drawn, from it"]
    pub fn draw_on_all(
        mut self,
        builder: &StreamsBuilder,
        messages: &KStream<String, Message<A::Command>>,
    ) -> DrawnSteps<A>
    where
        A::Command: Clone,
    {
        self.reports = true;
        let stores = self.stores(builder);
        let effects = self.decide_messages(&stores, messages);
        DrawnSteps {
            steps: stepped(&effects),
            projections: Projections {
                stores: self.store_names(),
                events: read_events::<A>(&effects).mark_as_partitioned(),
                history: stores.history.clone(),
                snapshots: stores.snapshots.clone(),
                progress: Rc::default(),
                limits: self.slices,
                name: self.name,
            },
        }
    }

    fn decide_messages(
        &self,
        stores: &Handles<A>,
        messages: &KStream<String, Message<A::Command>>,
    ) -> Effects<A>
    where
        A::Command: Clone,
    {
        let (memory, limits, interval) = (self.memory, self.slices, self.snapshot_interval);
        let (archive, reports) = (self.archive.clone(), self.reports);
        messages.process(
            &self.store_name("decide"),
            (
                &stores.state,
                &stores.history,
                &stores.snapshots,
                stores.index.as_ref(),
                &stores.progress,
                &stores.commands,
            ),
            move |setup, (state, history, snapshots, index, progress, commands)| {
                let meter = meter::<A>(setup);
                let stores = (state, history, snapshots, index);
                let aggregates = Repository::new(stores, &archive, interval, &meter);
                MessageProcessor::<A> {
                    rebuild: Rebuild {
                        aggregates: aggregates.clone(),
                        progress,
                        limits,
                        meter: meter.clone(),
                        tells: Tells::Steps,
                    },
                    commands: CommandProcessor {
                        aggregates,
                        commands,
                        memory,
                        replies: ReplyHub::new(),
                        meter,
                        purged_to: None,
                        reports,
                    },
                }
            },
        )
    }

    fn stores(&self, builder: &StreamsBuilder) -> Handles<A> {
        Handles {
            state: builder.add_state_store(StoreBuilder::as_store(
                self.store_name("state"),
                serdes::string(),
                CurrentStateSerde::<A>::default(),
            )),
            snapshots: builder.add_state_store(StoreBuilder::as_store(
                self.store_name("snapshots"),
                HistoryKeySerde,
                SnapshotSerde,
            )),
            index: self.index_by_time.then(|| {
                builder.add_state_store(StoreBuilder::as_store(
                    self.store_name("events-by-time"),
                    EventIndexKeySerde,
                    serdes::json(),
                ))
            }),
            progress: builder.add_state_store(StoreBuilder::as_store(
                self.store_name("rebuild"),
                serdes::string(),
                serdes::json(),
            )),
            history: builder.add_state_store(
                StoreBuilder::as_store(
                    self.store_name("history"),
                    HistoryKeySerde,
                    StoredEventSerde,
                )
                .record(),
            ),
            archivable: self.kept.map(|_| {
                builder.add_state_store(
                    StoreBuilder::as_store(
                        self.store_name("archivable"),
                        serdes::i64(),
                        serdes::json(),
                    )
                    .record(),
                )
            }),
            commands: builder.add_state_store(
                StoreBuilder::as_store(
                    self.store_name("commands"),
                    CommandKeySerde,
                    serdes::json(),
                )
                .record(),
            ),
        }
    }

    fn decide(
        &self,
        builder: &StreamsBuilder,
        stores: &Handles<A>,
    ) -> KStream<String, Effect<A::State>> {
        let dead_letter = ErrorPolicy::DeadLetter {
            topic: self.topics.dead_letters.clone(),
        };
        let (memory, replies, reports) = (self.memory, self.replies.clone(), self.reports);
        let interval = self.snapshot_interval;
        let archive = self.archive.clone();
        builder
            .stream(
                &self.topics.commands,
                Consumed::with(raw(), raw())
                    .on_error(dead_letter)
                    .rewindable(false),
            )
            .process(
                &self.store_name("decide"),
                (
                    &stores.state,
                    &stores.history,
                    &stores.snapshots,
                    stores.index.as_ref(),
                    &stores.commands,
                ),
                move |setup, (state, history, snapshots, index, commands)| {
                    let meter = meter::<A>(setup);
                    let stores = (state, history, snapshots, index);
                    CommandProcessor::<A> {
                        aggregates: Repository::new(stores, &archive, interval, &meter),
                        commands,
                        memory,
                        replies: replies.clone(),
                        meter,
                        reports,
                        purged_to: None,
                    }
                },
            )
    }

    fn fold(
        &self,
        builder: &StreamsBuilder,
        stores: &Handles<A>,
    ) -> KStream<String, Effect<A::State>> {
        let (limits, reports) = (self.slices, self.reports);
        let (interval, kept) = (self.snapshot_interval, self.kept);
        let archive = self.archive.clone();
        let history_name = self.store_name("history");
        builder
            .stream(
                &self.topics.events,
                Consumed::with(raw(), raw())
                    .on_error(self.on_event_error.clone())
                    .rewindable(false),
            )
            .process(
                &self.store_name("fold"),
                (
                    &stores.state,
                    &stores.history,
                    &stores.snapshots,
                    stores.index.as_ref(),
                    &stores.progress,
                    stores.archivable.as_ref(),
                ),
                move |setup, (state, history, snapshots, index, progress, archivable)| {
                    let meter = meter::<A>(setup);
                    let stores = (state, history, snapshots, index);
                    let rebuild = Rebuild {
                        aggregates: Repository::new(stores, &archive, interval, &meter),
                        progress,
                        limits,
                        meter: meter.clone(),
                        tells: Tells::of(reports),
                    };
                    let trim = archivable.zip(kept).map(|(archivable, kept)| Trim {
                        archivable,
                        kept,
                        every: interval,
                        partition: setup.partition(),
                        archive: archive.clone(),
                        meter: meter.clone(),
                    });
                    EventProcessor::<A> {
                        rebuild,
                        trim,
                        history_name: history_name.clone(),
                        meter,
                    }
                },
            )
    }
}

fn raw() -> serdes::OptionalSerde<serdes::BytesSerde> {
    serdes::optional(serdes::bytes())
}

fn meter<A: Aggregate>(setup: &ProcessorSetup) -> Meter {
    Meter(
        setup
            .metrics()
            .map(|metrics| metrics.event_sourcing(A::TYPE)),
    )
}
