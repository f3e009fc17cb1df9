//! One task of a topology on memory stores, driven by hand: records in, outputs out, commit, abort,
//! restart and reset. Stands for `runtime::task` where no log is needed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::format::value;
use crate::log::Headers;
use crate::processor::{
    ErrorPolicy, Init, ProcessError, PunctuationType, RawRecord, RecordMetadata, Reject,
    TaskContext,
};
use crate::state::{BytesStore, DirtySink, MemoryStore, StateError};
use crate::topology::{
    Durability, ResolvedTopic, TaskEnv, TaskId, TaskTopology, TopicRef, Topology,
};

pub(super) const START: Timestamp = 1_765_281_600_000;
const TASK: TaskId = TaskId {
    sub_topology: 0,
    partition: 0,
};

/// A record that left the task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Out {
    pub(super) topic: String,
    pub(super) key: Option<String>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Headers,
    pub(super) timestamp: Timestamp,
}

impl Out {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(self.value.as_deref().unwrap()).unwrap()
    }

    /// Returns the reason code of a dead letter.
    pub(super) fn code(&self) -> &str {
        std::str::from_utf8(self.headers.last("code").unwrap()).unwrap()
    }
}

pub(super) struct Bench {
    topology: Topology,
    stores: BTreeMap<String, MemoryStore>,
    chain: TaskTopology,
    cx: TaskContext,
    pub(super) now: Timestamp,
    offset: i64,
    /// Of the open transaction.
    pending: Vec<Out>,
    /// Of committed transactions.
    pub(super) committed: Vec<Out>,
    /// How often `init` asked for more in the last start.
    pub(super) slices: usize,
}

type Bytes = Box<[u8]>;

/// Takes what the overlay held, in the local form.
#[derive(Default)]
struct Entries(Vec<(Bytes, Option<Bytes>)>);

impl DirtySink for Entries {
    fn entry(
        &mut self,
        key: &[u8],
        plain: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        let local = plain.map(|plain| {
            let mut local = Vec::new();
            value::encode(timestamp, plain, &mut local);
            local.into_boxed_slice()
        });
        self.0.push((key.into(), local));
        Ok(())
    }
}

fn assemble(
    topology: &Topology,
    stores: &BTreeMap<String, MemoryStore>,
    now: Timestamp,
) -> (TaskTopology, TaskContext) {
    let [sub] = topology.sub_topologies() else {
        panic!("one sub-topology is expected")
    };
    let timestamp = Rc::new(Cell::new(now));
    let topic = |name: &TopicRef| match name {
        TopicRef::Declared(name) => ResolvedTopic {
            name: name.as_str().into(),
            partitions: 1,
        },
        TopicRef::Repartition(_) | TopicRef::Pattern(_) => panic!("{name} is not expected"),
    };
    let backend = |name: &String, store: &MemoryStore| {
        (name.clone(), Box::new(store.clone()) as Box<dyn BytesStore>)
    };
    let mut env = TaskEnv {
        task: TASK,
        partitions: 1,
        timestamp: Rc::clone(&timestamp),
        stream_time: Rc::default(),
        indexes: std::collections::BTreeMap::new(),
        topics: sub
            .sinks
            .iter()
            .map(|name| (name.clone(), topic(name)))
            .collect(),
        backends: stores
            .iter()
            .map(|(name, store)| backend(name, store))
            .collect(),
        cache_bytes: 1 << 20,
        globals: crate::state::GlobalStores::default(),
        metrics: None,
    };
    let chain = (sub.instantiate)(&mut env).unwrap();
    (chain, TaskContext::new(TASK, timestamp, now))
}

impl Bench {
    pub(super) fn new(topology: Topology) -> Self {
        let stores: BTreeMap<_, _> = topology.sub_topologies()[0]
            .stores
            .iter()
            .map(|store| (store.name.clone(), MemoryStore::new()))
            .collect();
        let (chain, cx) = assemble(&topology, &stores, START);
        let mut bench = Self {
            topology,
            stores,
            chain,
            cx,
            now: START,
            offset: 0,
            pending: Vec::new(),
            committed: Vec::new(),
            slices: 0,
        };
        bench.restart().unwrap();
        bench
    }

    /// Makes the task anew on the committed stores, as after an abort or a crash.
    pub(super) fn restart(&mut self) -> Result<(), ProcessError> {
        self.start()?;
        self.commit();
        Ok(())
    }

    fn start(&mut self) -> Result<(), ProcessError> {
        (self.chain, self.cx) = assemble(&self.topology, &self.stores, self.now);
        self.pending.clear();
        self.slices = 0;
        for processor in self.chain.processors.clone() {
            while self.init(&processor)? == Init::Continue {
                self.commit();
                self.slices += 1;
            }
        }
        Ok(())
    }

    /// As a crash after `slices` slices of `init`.
    pub(super) fn crash_in_rebuild(&mut self, slices: usize) {
        (self.chain, self.cx) = assemble(&self.topology, &self.stores, self.now);
        self.pending.clear();
        for _ in 0..slices {
            for processor in self.chain.processors.clone() {
                self.init(&processor).unwrap();
            }
            self.commit();
        }
    }

    fn init(
        &mut self,
        processor: &Rc<std::cell::RefCell<dyn crate::processor::ProcessorNode>>,
    ) -> Result<Init, ProcessError> {
        self.cx.begin_other(self.now);
        let init = processor.borrow_mut().init(&mut self.cx)?;
        self.release();
        Ok(init)
    }

    /// Deletes derived state, as `reset` does; the task is made anew by [`restart`](Self::restart).
    pub(super) fn reset(&mut self) {
        for store in &self.topology.sub_topologies()[0].stores {
            if store.durability == Durability::Derived {
                self.stores.insert(store.name.clone(), MemoryStore::new());
            }
        }
    }

    /// Processes a record; what its chain refuses meets the source's policy.
    pub(super) fn pipe(&mut self, topic: &str, key: Option<&str>, value: Option<&[u8]>) {
        let sources = &self.topology.sub_topologies()[0].sources;
        let index = sources
            .iter()
            .position(|source| source.topic == TopicRef::Declared(topic.into()))
            .unwrap_or_else(|| panic!("no source reads {topic}"));
        let policy = sources[index].on_processing_error.clone();
        let headers = Headers::new().with("original", "header");
        let raw = RawRecord {
            key: key.map(str::as_bytes),
            value,
            timestamp: self.now,
            headers: &headers,
        };
        let metadata = RecordMetadata {
            topic: topic.into(),
            partition: 0,
            offset: self.offset,
        };
        self.offset += 1;
        self.cx.set_system_time(self.now);
        self.cx.begin_record(metadata, self.now);
        match self.chain.sources[index].process(&mut self.cx, &raw) {
            Ok(()) => self.release(),
            Err(error) => self.refuse(&policy, &error, &raw),
        }
    }

    fn refuse(&mut self, policy: &ErrorPolicy, error: &ProcessError, raw: &RawRecord<'_>) {
        self.cx.rollback();
        for store in &self.chain.stores {
            store.borrow_mut().rollback_savepoint();
        }
        let source = std::error::Error::source(error).unwrap();
        let Some(reject) = source.downcast_ref::<Reject>() else {
            panic!("{error:?}")
        };
        let ErrorPolicy::DeadLetter { topic } = policy else {
            panic!("{policy:?}: {reject}")
        };
        self.pending.push(Out {
            topic: topic.clone(),
            key: raw.key.map(|key| String::from_utf8(key.to_vec()).unwrap()),
            value: raw.value.map(<[u8]>::to_vec),
            headers: raw.headers.clone().with("code", reject.code),
            timestamp: raw.timestamp,
        });
    }

    fn release(&mut self) {
        for record in self.cx.outputs.iter() {
            self.pending.push(Out {
                topic: record.topic.to_string(),
                key: record
                    .key
                    .map(|key| String::from_utf8(key.to_vec()).unwrap()),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers.clone(),
                timestamp: record.timestamp,
            });
        }
        self.cx.release();
        for store in &self.chain.stores {
            store.borrow_mut().release_savepoint();
        }
    }

    pub(super) fn commit(&mut self) {
        for store in &self.chain.stores {
            let mut store = store.borrow_mut();
            let mut entries = Entries::default();
            store.drain_dirty(&mut entries).unwrap();
            self.stores[store.name()].apply(entries.0);
            store.mark_committed();
        }
        self.committed.append(&mut self.pending);
        for action in self.cx.take_after_commit() {
            action();
        }
    }

    /// Lets the clock run and serves wall-clock punctuators.
    pub(super) fn advance(&mut self, millis: i64) {
        self.now += millis;
        self.cx.set_system_time(self.now);
        let kind = PunctuationType::WallClockTime;
        while let Some((node, punctuation)) = self.cx.schedules.next_due(kind, self.now) {
            self.cx.begin_other(self.now);
            let processor = Rc::clone(&self.chain.processors[node]);
            processor
                .borrow_mut()
                .punctuate(&mut self.cx, punctuation)
                .unwrap();
            self.release();
        }
    }

    /// Returns the committed entries of a store: key bytes, plain value.
    pub(super) fn store(&self, name: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.stores[name]
            .range(&[], None, false)
            .map(|entry| {
                let (key, local) = entry.unwrap();
                (key.into_vec(), value::decode(&local).unwrap().1.to_vec())
            })
            .collect()
    }

    /// Overwrites a committed entry, as damage would.
    pub(super) fn damage(&self, store: &str, key: &[u8], plain: &[u8]) {
        let mut local = Vec::new();
        value::encode(self.now, plain, &mut local);
        self.stores[store].apply([(key.into(), Some(local.into_boxed_slice()))]);
    }

    /// Takes the committed records of a topic.
    pub(super) fn take(&mut self, topic: &str) -> Vec<Out> {
        let (taken, rest) = std::mem::take(&mut self.committed)
            .into_iter()
            .partition(|out| out.topic == topic);
        self.committed = rest;
        taken
    }
}
