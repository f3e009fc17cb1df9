//! A task's part in a commit.
//!
//! ORDER: [`Task::prepare_commit`] sends what was held back and serialises the overlays, [`Task::offsets`] joins the transaction,
//! the log answers, [`Task::seal_batch`] adds what the answer tells, the thread applies the batch,
//! [`Task::finish_commit`] lets go of what waited.

use std::collections::BTreeMap;

use super::{RECORD_BYTES_MAX, Task, sub_topology};
use crate::clock::Timestamp;
use crate::format::checkpoint::{ChangelogPosition, InputPosition};
use crate::format::offset_metadata::OffsetMetadata;
use crate::format::with_headers;
use crate::log::{
    CommittedOffset, Headers, LogError, LogMessage, LogProducer, Offset, ProducerRecord, TopicName,
    TopicPartition,
};
use crate::runtime::error::Fault;
use crate::runtime::{CrashPoint, PlantedBug, Probe};
use crate::state::{CommitBatch, DirtySink, StateError, StoreId};

impl<M: LogMessage> Task<M> {
    /// Hands downstream what nodes have held back, each update as a record of its own. Nodes upstream
    /// come first: what they send may be held back further down.
    fn emit_held<P: LogProducer>(&mut self, producer: &mut P) -> Result<(), Fault> {
        for node in self.chain.holding.clone() {
            loop {
                let emitted = node.borrow_mut().emit_next(&mut self.cx);
                match emitted {
                    Ok(true) => self.release(producer)?,
                    Ok(false) => break,
                    Err(source) => return Err(self.fail(None, source)),
                }
            }
        }
        Ok(())
    }

    /// Empties the nodes that hold updates back, and serialises the overlays: into the changelogs and
    /// into the batch for the stores.
    pub(crate) fn prepare_commit<P: LogProducer>(
        &mut self,
        producer: &mut P,
        probe: &dyn Probe,
    ) -> Result<CommitBatch, Fault> {
        self.emit_held(producer)?;
        probe.reached(CrashPoint::BeforeChangelogSend)?;
        let mut batch = self.db.batch();
        let sub = sub_topology(&self.topology, self.id);
        let changelogs = &sub.topics.changelogs;
        for store in &self.chain.stores {
            let mut store = store.borrow_mut();
            let name = store.name().to_owned();
            let changelog = changelogs.get(&name);
            let Some(id) = self.db.store_id(&name) else {
                return Err(Fault::Bug(
                    "a task writes to a store that its database lacks",
                ));
            };
            let spec = sub.drawn.stores.iter().find(|spec| spec.name == name);
            let mut sink = CommitSink {
                keeps_headers: spec.is_some_and(|spec| spec.keeps_headers),
                batch: &mut batch,
                name: &name,
                store: id,
                topic: changelog
                    .filter(|changelog| !changelog.is_source)
                    .map(|changelog| &changelog.topic),
                partition: self.id.partition,
                producer,
                failed: None,
                // Only stream-stream joins have stores of such names in the simulation.
                loses_deletes: name.ends_with("-shared-join-store")
                    && probe.planted(PlantedBug::UnpairedRecordsKept),
            };
            let drained = store.drain_dirty(&mut sink);
            if let Some(error) = sink.failed.take() {
                return Err(error.into());
            }
            drained.map_err(|source| Fault::State {
                task: self.id,
                source,
            })?;
        }
        probe.reached(CrashPoint::AfterChangelogSend)?;
        Ok(batch)
    }

    /// Returns every input offset of the task, unchanged ones too: without offsets librdkafka skips
    /// the fencing by group metadata (invariant 1).
    pub(crate) fn offsets(&self) -> Vec<(TopicPartition, CommittedOffset)> {
        self.group
            .partitions
            .iter()
            .map(|input| {
                let mut metadata = OffsetMetadata::new(input.time, self.generation);
                let kept = self.cx.all_metadata().iter();
                metadata
                    .entries
                    .extend(kept.map(|(key, value)| (key.to_string(), *value)));
                let metadata = metadata.encode();
                (
                    input.partition.clone(),
                    CommittedOffset {
                        offset: input.position,
                        metadata,
                    },
                )
            })
            .collect()
    }

    /// The transaction has committed: adds what the stores have to remember with the data.
    /// `requested_at` is when the commit was asked for.
    pub(crate) fn seal_batch(
        &mut self,
        batch: &mut CommitBatch,
        acknowledged: &BTreeMap<TopicPartition, Option<Offset>>,
        requested_at: Timestamp,
    ) {
        for (name, changelog) in &sub_topology(&self.topology, self.id).topics.changelogs {
            let Some(store) = self.db.store_id(name) else {
                continue;
            };
            let partition =
                TopicPartition::new(TopicName::clone(&changelog.topic), self.id.partition);
            let mut fresh_at = requested_at;
            if changelog.is_source {
                // The store is where the input is, in the very write that says so.
                let inputs = self.group.partitions.iter();
                let mut inputs = inputs.filter(|input| input.partition == partition);
                if let Some(input) = inputs.next() {
                    self.changelog_offsets.insert(name.clone(), input.position);
                    // The input may be far behind its end: a tombstone that follows is younger than
                    // the last record, and not younger than that for sure.
                    fresh_at = fresh_at.min(input.time.unwrap_or(0));
                }
            }
            // An acknowledgement without an offset leaves the older checkpoint: restore then
            // replays more of the tail than it needs, to the same end.
            if let Some(Some(offset)) = acknowledged.get(&partition) {
                self.changelog_offsets.insert(name.clone(), offset + 1);
            }
            // Every other store is at its changelog's end now, the ones that were not written too.
            if let Some(next_offset) = self.changelog_offsets.get(name).copied() {
                let fresh_at = Some(fresh_at);
                let position = ChangelogPosition {
                    topic_id: changelog.id,
                    next_offset,
                    fresh_at,
                };
                batch.set_changelog(store, position);
            }
        }
        for input in &self.group.partitions {
            let position = InputPosition {
                next_offset: input.position,
                partition_time: input.time,
            };
            batch.set_input(input.partition.clone(), position);
        }
        if let Some(stream_time) = self.cx.stream_time() {
            batch.set_stream_time(stream_time);
        }
        batch.set_generation(self.generation);
    }

    /// Returns how far each store on disk has its changelog, by the changelog's partition.
    pub(crate) fn changelog_ends(&self) -> Vec<(TopicPartition, Offset)> {
        let changelogs = &sub_topology(&self.topology, self.id).topics.changelogs;
        let checkpoint = self.db.checkpoint();
        changelogs
            .iter()
            // Behind where an input was committed lies what has yet to be processed.
            .filter(|(_, changelog)| !changelog.is_source)
            .filter_map(|(store, changelog)| {
                let position = checkpoint.changelogs.get(store)?;
                let topic = TopicName::clone(&changelog.topic);
                let partition = TopicPartition::new(topic, self.id.partition);
                Some((partition, position.next_offset))
            })
            .collect()
    }

    /// Moves the checkpoint to `ends`, behind which there is nothing that the stores lack. `now` is
    /// no later than the ends were taken.
    pub(crate) fn move_checkpoint(
        &mut self,
        ends: &BTreeMap<TopicPartition, Offset>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let mut batch = self.db.batch();
        for (name, changelog) in &sub_topology(&self.topology, self.id).topics.changelogs {
            let topic = TopicName::clone(&changelog.topic);
            let partition = TopicPartition::new(topic, self.id.partition);
            let (Some(store), Some(end)) = (self.db.store_id(name), ends.get(&partition)) else {
                continue;
            };
            self.changelog_offsets.insert(name.clone(), *end);
            let position = ChangelogPosition {
                topic_id: changelog.id,
                next_offset: *end,
                fresh_at: Some(now),
            };
            batch.set_changelog(store, position);
        }
        self.db.apply(batch, now).map_err(|source| Fault::State {
            task: self.id,
            source,
        })
    }

    /// The batch is in the stores: the overlay is clean, and what waited for the commit runs.
    pub(crate) fn finish_commit(&mut self, now: Timestamp) {
        for store in &self.chain.stores {
            store.borrow_mut().mark_committed();
        }
        self.group.mark_committed();
        self.has_outputs = false;
        self.prepared = true;
        self.offsets_written = true;
        self.committed_at = now;
        self.punctuated = false;
        self.in_hand = None;
        for input in &self.group.partitions {
            self.suspects
                .forget_below(&input.partition, input.committed);
        }
        self.committed_metadata.clone_from(self.cx.all_metadata());
        self.meters.dropped(self.cx.take_drops());
        self.meters.committed(now);
        for action in self.cx.take_after_commit() {
            action();
        }
    }
}

/// Sends an overlay entry to the changelog and puts it into the batch.
struct CommitSink<'a, P> {
    batch: &'a mut CommitBatch,
    name: &'a str,
    store: StoreId,
    topic: Option<&'a TopicName>,
    partition: i32,
    /// Whether values begin with headers.
    keeps_headers: bool,
    producer: &'a mut P,
    /// The log's error, which `StateError` has no place for.
    failed: Option<LogError>,
    /// A planted mistake.
    loses_deletes: bool,
}

impl<P: LogProducer> DirtySink for CommitSink<'_, P> {
    fn entry(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        if self.loses_deletes && value.is_none() {
            return Ok(());
        }
        let bytes = key.len() + value.map_or(0, <[u8]>::len);
        if bytes > RECORD_BYTES_MAX {
            let message = format!("an entry of {bytes} bytes is more than a changelog takes");
            return Err(StateError::Encode {
                store: self.name.to_owned(),
                source: message.into(),
            });
        }
        if let Some(topic) = self.topic.filter(|_| self.failed.is_none()) {
            let (headers, plain) = match value.filter(|_| self.keeps_headers) {
                Some(value) => {
                    let split = with_headers::split(value);
                    let (headers, plain) = split.map_err(|source| StateError::Encode {
                        store: self.name.to_owned(),
                        source: source.into(),
                    })?;
                    (Some(headers), Some(plain))
                }
                None => (None, value),
            };
            let record = ProducerRecord {
                topic,
                partition: Some(self.partition),
                key: Some(key),
                value: plain,
                timestamp,
                headers: headers.as_ref().unwrap_or(const { &Headers::new() }),
            };
            if let Err(error) = self.producer.send(record) {
                self.failed = Some(error);
            }
        }
        self.batch.entry(self.store, key, value, timestamp)
    }

    fn remove_from_index(&mut self, index_key: &[u8]) -> Result<(), StateError> {
        self.batch.remove_from_index(self.store, index_key)
    }
}
