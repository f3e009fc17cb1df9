//! One task per sub-topology, partition 0; repartition topics are looped back at once.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::clock::Timestamp;
use crate::log::{Headers, TopicName};
use crate::prelude::*;
use crate::processor::{ProcessError, RawRecord, TaskContext};
use crate::state::MemoryStore;
use crate::topology::{ResolvedTopic, SubTopology, TaskEnv, TaskTopology, TopicRef};

/// What a topology wrote to a topic of the outside world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) topic: String,
    pub(super) partition: Option<i32>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) timestamp: Timestamp,
    pub(super) headers: Headers,
}

pub(super) const PARTITIONS: i32 = 4;

pub(super) struct TestTask {
    pub(super) chain: TaskTopology,
    pub(super) cx: TaskContext,
    /// By index of the sources.
    topics: Vec<String>,
}

impl TestTask {
    pub(super) fn new(sub_topology: &SubTopology) -> Self {
        let task = TaskId {
            sub_topology: sub_topology.id,
            partition: 0,
        };
        let timestamp = Rc::new(Cell::new(0));
        let resolve = |topic: &TopicRef| {
            let name = TopicName::from(topic.to_string());
            (
                topic.clone(),
                ResolvedTopic {
                    name,
                    partitions: PARTITIONS,
                },
            )
        };
        let mut backends = BTreeMap::new();
        for store in &sub_topology.stores {
            backends.insert(store.name.clone(), Box::new(MemoryStore::new()) as _);
        }
        let mut env = TaskEnv {
            task,
            partitions: PARTITIONS,
            timestamp: Rc::clone(&timestamp),
            stream_time: Rc::default(),
            indexes: BTreeMap::new(),
            topics: sub_topology.sinks.iter().map(resolve).collect(),
            backends,
            cache_bytes: 1 << 20,
            globals: crate::state::GlobalStores::default(),
            metrics: None,
        };
        let chain = (sub_topology.instantiate)(&mut env).unwrap();
        assert_eq!(chain.sources.len(), sub_topology.sources.len());
        assert_eq!(chain.stores.len(), sub_topology.stores.len());
        for (store, spec) in chain.stores.iter().zip(&sub_topology.stores) {
            assert_eq!(store.borrow().name(), spec.name);
        }
        let topics = sub_topology
            .sources
            .iter()
            .map(|source| source.topic.to_string())
            .collect();
        Self {
            chain,
            cx: TaskContext::new(task, timestamp, 0),
            topics,
        }
    }

    /// Does what the runtime does around one piece of work.
    pub(super) fn atomically(
        &mut self,
        work: impl FnOnce(&mut TaskTopology, &mut TaskContext) -> Result<(), ProcessError>,
    ) -> Result<Vec<Output>, ProcessError> {
        let result = work(&mut self.chain, &mut self.cx);
        let mut outputs = Vec::new();
        if result.is_ok() {
            outputs.extend(self.cx.outputs.iter().map(|record| Output {
                topic: record.topic.to_string(),
                partition: record.partition,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                timestamp: record.timestamp,
                headers: record.headers.clone(),
            }));
            self.cx.release();
        } else {
            self.cx.rollback();
        }
        for store in &self.chain.stores {
            let mut store = store.borrow_mut();
            if result.is_ok() {
                store.release_savepoint()
            } else {
                store.rollback_savepoint()
            }
        }
        result.map(|()| outputs)
    }

    pub(super) fn process(
        &mut self,
        index: usize,
        input: &Output,
    ) -> Result<Vec<Output>, ProcessError> {
        let metadata = RecordMetadata {
            topic: input.topic.as_str().into(),
            partition: 0,
            offset: 0,
        };
        self.atomically(|chain, cx| {
            cx.begin_record(metadata, input.timestamp);
            let raw = RawRecord {
                key: input.key.as_deref(),
                value: input.value.as_deref(),
                timestamp: input.timestamp,
                headers: &input.headers,
            };
            let result = chain.sources[index].process(cx, &raw);
            assert_eq!(
                cx.timestamp(),
                input.timestamp,
                "every operator restores the time"
            );
            result
        })
    }
}

pub(super) struct TestApp {
    pub(super) tasks: Vec<TestTask>,
    outputs: Vec<Output>,
}

impl TestApp {
    #[track_caller]
    pub(super) fn new(builder: StreamsBuilder) -> Self {
        let topology = builder
            .build()
            .unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let tasks = topology
            .sub_topologies()
            .iter()
            .map(TestTask::new)
            .collect();
        Self {
            tasks,
            outputs: Vec::new(),
        }
    }

    /// Feeds a record of strings; `None` is null.
    pub(super) fn pipe<'a>(
        &mut self,
        topic: &str,
        key: impl Into<Option<&'a str>>,
        value: impl Into<Option<&'a str>>,
        timestamp: Timestamp,
    ) -> Result<(), ProcessError> {
        self.pipe_raw(Output {
            topic: topic.to_owned(),
            partition: Some(0),
            key: key.into().map(|key| key.as_bytes().to_vec()),
            value: value.into().map(|value| value.as_bytes().to_vec()),
            timestamp,
            headers: Headers::new(),
        })
    }

    pub(super) fn pipe_raw(&mut self, input: Output) -> Result<(), ProcessError> {
        let mut queue = VecDeque::from([input]);
        while let Some(input) = queue.pop_front() {
            let (task, index) = self.reader_of(&input.topic);
            for output in self.tasks[task].process(index, &input)? {
                if output.topic.ends_with("-repartition") {
                    queue.push_back(output);
                } else {
                    self.outputs.push(output);
                }
            }
        }
        Ok(())
    }

    fn reader_of(&self, topic: &str) -> (usize, usize) {
        let mut readers = self.tasks.iter().enumerate().flat_map(|(task, state)| {
            state
                .topics
                .iter()
                .enumerate()
                .map(move |(index, name)| (name, (task, index)))
        });
        readers
            .find(|(name, _)| *name == topic)
            .unwrap_or_else(|| panic!("nobody reads {topic}"))
            .1
    }

    pub(super) fn take_raw(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Returns what was written since the last call, as `topic key=value@timestamp`.
    pub(super) fn take(&mut self) -> Vec<String> {
        let text = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().map_or_else(
                || "null".to_owned(),
                |bytes| String::from_utf8(bytes.clone()).unwrap(),
            )
        };
        let show = |output: &Output| {
            let Output {
                topic,
                key,
                value,
                timestamp,
                ..
            } = output;
            format!("{topic} {}={}@{timestamp}", text(key), text(value))
        };
        self.take_raw().iter().map(show).collect()
    }
}

/// Strings in, as most tests have it.
pub(super) fn consumed() -> Consumed<String, String> {
    Consumed::with(serdes::string(), serdes::string())
}

/// Strings out.
pub(super) fn produced() -> Produced<String, String> {
    Produced::with(serdes::string(), serdes::string())
}

/// A store from strings to strings.
pub(super) fn store(name: &str) -> StoreBuilder<String, String> {
    StoreBuilder::as_store(name, serdes::string(), serdes::string())
}
