//! One global table: its chain, and how far it has read each partition of its topic.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::judge::tombstone_retention;
use crate::clock::Timestamp;
use crate::format::checkpoint::{ChangelogPosition, InputPosition};
use crate::log::{LogMessage, LogRange, LogReader, Offset, TopicName, TopicPartition};
use crate::metrics::{Metrics, SourceMetrics, StoreMetrics, TaskMetrics};
use crate::processor::{
    ErrorPolicy, HeadRecord, Init, InvalidTimestamp, ProcessError, RawRecord, RecordMetadata,
    Stage, TaskContext,
};
use crate::runtime::SubTopologyRef;
use crate::runtime::dead_letter::chain;
use crate::runtime::error::{Fault, RecordCoordinates};
use crate::state::{
    CommitBatch, DirtySink, GlobalStores, SharedStreamTime, StateError, StoreId, TaskDb,
};
use crate::topology::{SourceSpec, TaskEnv, TaskId, TaskTopology, Topology};

/// Returns the partitions of a global part's topic.
pub(super) fn partitions<'a>(
    part: &SubTopologyRef<'a>,
) -> impl Iterator<Item = TopicPartition> + use<'a> {
    let sources = part.topics.sources.iter().flatten();
    sources.flat_map(|topic| {
        (0..topic.partitions)
            .map(|partition| TopicPartition::new(TopicName::clone(&topic.name), partition))
    })
}

/// Kafka Streams refuses `schedule` in a global processor, too.
fn refuse_schedules(cx: &TaskContext, node: &str) -> Result<(), ProcessError> {
    if cx.schedules.is_empty() {
        return Ok(());
    }
    Err(ProcessError::Processing {
        node: node.to_owned(),
        source: "the processor of a global store has scheduled a punctuator, which no task would \
                 fire; schedule in a processor of a stream"
            .into(),
    })
}

struct Input {
    partition: TopicPartition,
    position: Offset,
    /// The topic's end when the process started.
    target: Offset,
    time: Option<Timestamp>,
    records: u64,
    bytes: u64,
    metrics: SourceMetrics,
}

/// See the module.
pub(super) struct Part {
    id: TaskId,
    source: SourceSpec,
    topic_id: [u8; 16],
    tombstone_retention: i64,
    chain: TaskTopology,
    cx: TaskContext,
    /// By partition.
    inputs: Vec<Input>,
    task: TaskMetrics,
    store: Option<StoreMetrics>,
    /// Whether what is read now no longer counts as restored.
    restored: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        for processor in &self.chain.processors {
            processor.borrow_mut().close();
        }
    }
}

impl Part {
    pub(super) fn new(
        part: &SubTopologyRef<'_>,
        topology: &Topology,
        db: &TaskDb,
        from: &BTreeMap<TopicPartition, Offset>,
        ranges: &BTreeMap<TopicPartition, LogRange>,
        (metrics, thread): (&Metrics, usize),
        now: Timestamp,
    ) -> Result<Self, StateError> {
        let id = TaskId {
            sub_topology: part.topics.id,
            partition: 0,
        };
        let task = metrics.task(thread, &id.to_string());
        let timestamp = Rc::new(Cell::new(now));
        let mut backends = BTreeMap::new();
        for store in &part.drawn.stores {
            backends.insert(store.name.clone(), db.backend(&store.name)?);
        }
        let mut env = TaskEnv {
            task: id,
            partitions: 1,
            timestamp: Rc::clone(&timestamp),
            topics: BTreeMap::new(),
            backends,
            stream_time: SharedStreamTime::default(),
            indexes: BTreeMap::new(),
            // Tasks and queries read below the overlay.
            cache_bytes: 0,
            globals: GlobalStores::default(),
            metrics: Some(task.clone()),
        };
        let chain = (part.drawn.instantiate)(&mut env)?;
        let known = db.checkpoint().inputs;
        let inputs = partitions(part).filter_map(|partition| {
            let position = from.get(&partition).copied()?;
            let time = known.get(&partition).and_then(|input| input.partition_time);
            Some(Input {
                position,
                target: ranges.get(&partition)?.end,
                time,
                records: 0,
                bytes: 0,
                metrics: task.source(&partition.topic, partition.partition),
                partition,
            })
        });
        let inputs: Vec<Input> = inputs.collect();
        let Some(source) = part.drawn.sources.first().cloned() else {
            unreachable!("`resolve_topics` lets no part through that reads nothing")
        };
        let store = part.drawn.stores.first();
        let changelog = part.topics.changelogs.values().next();
        Ok(Self {
            id,
            source,
            topic_id: changelog.map_or([0; 16], |changelog| changelog.id),
            tombstone_retention: tombstone_retention(topology, part),
            chain,
            cx: TaskContext::new(id, timestamp, now),
            inputs,
            store: store.map(|store| task.store(&store.name)),
            task,
            restored: false,
        })
    }

    /// Lets the processor of a global store prepare. No record is read before.
    pub(super) fn init(&mut self) -> Result<(), Fault> {
        let initialised = self.init_processors();
        for store in &self.chain.stores {
            store.borrow_mut().release_savepoint();
        }
        self.cx.release();
        initialised.map_err(|source| Fault::Processing {
            task: self.id,
            at: None,
            source,
        })
    }

    fn init_processors(&mut self) -> Result<(), ProcessError> {
        self.cx.begin_other(self.cx.system_time());
        for processor in &self.chain.processors {
            // There is no transaction whose size a slice would bound.
            while processor.borrow_mut().init(&mut self.cx)? == Init::Continue {}
        }
        refuse_schedules(&self.cx, &self.source.name)
    }

    pub(super) const fn id(&self) -> TaskId {
        self.id
    }

    pub(super) const fn tombstone_retention(&self) -> i64 {
        self.tombstone_retention
    }

    pub(super) fn is_restored(&self) -> bool {
        self.inputs
            .iter()
            .all(|input| input.position >= input.target)
    }

    /// Returns the offsets up to the targets: at least as many as records.
    pub(super) fn remaining(&self) -> i64 {
        let inputs = self.inputs.iter();
        inputs
            .map(|input| (input.target - input.position).max(0))
            .sum()
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = (TopicPartition, Offset)> {
        let inputs = self.inputs.iter();
        inputs.map(|input| (input.partition.clone(), input.position))
    }

    /// Returns whether a record is of this part's topic.
    pub(super) fn reads(&self, message: &impl LogMessage) -> bool {
        let first = self.inputs.first();
        first.is_some_and(|input| *input.partition.topic == *message.topic())
    }

    /// Takes a record into the stores' overlays.
    pub(super) fn process(
        &mut self,
        message: &impl LogMessage,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let index = usize::try_from(message.partition()).unwrap_or(usize::MAX);
        let Some(input) = self.inputs.get_mut(index) else {
            return Ok(());
        };
        if message.offset() < input.position {
            return Ok(());
        }
        input.records += 1;
        input.bytes +=
            (message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len)) as u64;
        let at = RecordCoordinates {
            partition: input.partition.clone(),
            offset: message.offset(),
        };
        self.cx.set_system_time(now);
        let result = self.run_chain(index, message, &at, now);
        for store in &self.chain.stores {
            let mut store = store.borrow_mut();
            match result {
                Ok(()) => store.release_savepoint(),
                Err(_) => store.rollback_savepoint(),
            }
        }
        match result {
            Ok(()) => self.cx.release(),
            Err(error) => {
                self.cx.rollback();
                self.meet_policy(index, at, error)?;
            }
        }
        if let Some(input) = self.inputs.get_mut(index) {
            input.position = message.offset() + 1;
        }
        Ok(())
    }

    fn run_chain(
        &mut self,
        index: usize,
        message: &impl LogMessage,
        at: &RecordCoordinates,
        now: Timestamp,
    ) -> Result<(), ProcessError> {
        let (Some(source), Some(input)) =
            (self.chain.sources.first_mut(), self.inputs.get_mut(index))
        else {
            return Ok(());
        };
        let headers = message.headers();
        let metadata = RecordMetadata {
            topic: TopicName::clone(&at.partition.topic),
            partition: at.partition.partition,
            offset: at.offset,
        };
        let mut raw = RawRecord {
            key: message.key(),
            value: message.value(),
            timestamp: message.timestamp(),
            headers: &headers,
        };
        if source.extracts() {
            raw.timestamp = source.extract(&HeadRecord {
                raw,
                metadata: &metadata,
                partition_time: input.time,
                system_time: now,
            })?;
            if raw.timestamp < 0 {
                tracing::warn!(record = %at, time = raw.timestamp, "record dropped: its extracted time is negative");
                self.cx.drop_head();
                return Ok(());
            }
        } else if raw.timestamp < 0 {
            return Err(ProcessError::Deserialization {
                node: self.source.name.clone(),
                source: Box::new(InvalidTimestamp(raw.timestamp)),
            });
        }
        self.cx.begin_record(metadata, raw.timestamp);
        source.process(&mut self.cx, &raw)?;
        refuse_schedules(&self.cx, &self.source.name)?;
        input.time = input.time.max(Some(raw.timestamp));
        Ok(())
    }

    /// Decides about a record that could not be read: there is no transaction, so that it is passed
    /// over or ends the process.
    fn meet_policy(
        &self,
        index: usize,
        at: RecordCoordinates,
        error: ProcessError,
    ) -> Result<(), Fault> {
        let mut policy = match error.stage() {
            Some(Stage::Deserialization) => &self.source.on_deserialization_error,
            Some(Stage::Processing) => &self.source.on_processing_error,
            Some(Stage::Production) => &self.source.on_production_error,
            None => &ErrorPolicy::Fail,
        };
        // The same bytes give the same answer: there is nothing to wait for.
        while let ErrorPolicy::Retry { then, .. } = policy {
            policy = then;
        }
        match policy {
            ErrorPolicy::Skip => {
                if let Some(input) = self.inputs.get(index) {
                    input.metrics.skipped.inc();
                }
                tracing::warn!(record = %at, error = %chain(&error), "record skipped");
                Ok(())
            }
            ErrorPolicy::Fail | ErrorPolicy::DeadLetter { .. } | ErrorPolicy::Retry { .. } => {
                Err(match error {
                    ProcessError::State(source) => Fault::State {
                        task: self.id,
                        source,
                    },
                    source @ (ProcessError::Deserialization { .. }
                    | ProcessError::Processing { .. }
                    | ProcessError::Production { .. }) => Fault::Processing {
                        task: self.id,
                        at: Some(at),
                        source,
                    },
                })
            }
        }
    }

    /// Takes over the reader's positions, past control records too; returns whether any has moved.
    pub(super) fn follow(&mut self, reader: &impl LogReader) -> bool {
        let mut moved = false;
        for input in &mut self.inputs {
            moved |= input.records > 0;
            if let Some(position) = reader.position(&input.partition)
                && position > input.position
            {
                input.position = position;
                moved = true;
            }
        }
        moved
    }

    /// Adds the overlays' entries and the offsets that they reach to a batch.
    pub(super) fn drain(
        &self,
        db: &TaskDb,
        batch: &mut CommitBatch,
        fresh_at: Option<Timestamp>,
    ) -> Result<(), Fault> {
        for store in &self.chain.stores {
            let mut store = store.borrow_mut();
            let Some(id) = db.store_id(store.name()) else {
                return Err(Fault::Bug("a global store that its database lacks"));
            };
            let drained = store.drain_dirty(&mut Entries { batch, store: id });
            drained.map_err(|source| Fault::State {
                task: self.id,
                source,
            })?;
        }
        self.checkpoint(db, batch, fresh_at);
        Ok(())
    }

    /// Adds how far the part is to a batch. The positions are the inputs'; what is kept beside the
    /// stores is the topic's id and the age.
    pub(super) fn checkpoint(
        &self,
        db: &TaskDb,
        batch: &mut CommitBatch,
        fresh_at: Option<Timestamp>,
    ) {
        for input in &self.inputs {
            let position = InputPosition {
                next_offset: input.position,
                partition_time: input.time,
            };
            batch.set_input(input.partition.clone(), position);
        }
        for store in &self.chain.stores {
            if let Some(id) = db.store_id(store.borrow().name()) {
                let position = ChangelogPosition {
                    topic_id: self.topic_id,
                    next_offset: 0,
                    fresh_at,
                };
                batch.set_changelog(id, position);
            }
        }
    }

    /// The batch is in the stores.
    pub(super) fn applied(&mut self) {
        for store in &self.chain.stores {
            store.borrow_mut().mark_committed();
        }
        for action in self.cx.take_after_commit() {
            action();
        }
        let (mut records, mut bytes) = (0, 0);
        for input in &mut self.inputs {
            input.metrics.processed.inc_by(input.records);
            input.metrics.bytes.inc_by(input.bytes);
            records += std::mem::take(&mut input.records);
            bytes += std::mem::take(&mut input.bytes);
        }
        self.task.dropped_records.inc_by(self.cx.take_drops());
        if let Some(store) = self.store.as_ref().filter(|_| !self.restored) {
            store.restored_records.inc_by(records);
            store.restored_bytes.inc_by(bytes);
            store.remaining_records.set(self.remaining());
        }
    }

    /// The restore has ended: what comes now are updates.
    pub(super) fn end_restore(&mut self) {
        self.restored = true;
        if let Some(store) = &self.store {
            store.remaining_records.set(0);
        }
    }

    /// Shows how far behind the topic's ends the part is.
    pub(super) fn show_lag(&self, partitions: &[TopicPartition], ranges: &[LogRange]) {
        for input in &self.inputs {
            let at = partitions.iter().position(|it| *it == input.partition);
            if let Some(range) = at.and_then(|at| ranges.get(at)) {
                input.metrics.lag.set((range.end - input.position).max(0));
            }
        }
    }
}

/// Puts overlay entries into a batch: there is no changelog to send them to.
struct Entries<'a> {
    batch: &'a mut CommitBatch,
    store: StoreId,
}

impl DirtySink for Entries<'_> {
    fn entry(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.batch.entry(self.store, key, value, timestamp)
    }
}
