//! A task's beginnings: made once its stores are restored, made anew after an abort, initialised slice
//! by slice before its first record.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::{Progress, Task, sub_topology};
use crate::clock::Timestamp;
use crate::log::{LogMessage, LogProducer};
use crate::processor::{Init, TaskContext};
use crate::runtime::ResolvedTopology;
use crate::runtime::error::Fault;
use crate::runtime::meters::TaskMeters;
use crate::runtime::partition_group::{InputPartition, PartitionGroup};
use crate::runtime::suspects::Suspects;
use crate::state::{GlobalStores, SharedStreamTime, TaskDb};
use crate::topology::{TaskEnv, TaskId, TaskTopology};

/// Everything a new task needs.
pub(crate) struct TaskParts<M> {
    pub(crate) id: TaskId,
    pub(crate) topology: Arc<ResolvedTopology>,
    pub(crate) inputs: Vec<InputPartition<M>>,
    pub(crate) db: TaskDb,
    pub(crate) meters: TaskMeters,
    pub(crate) generation: u64,
    /// What operators have kept in the metadata of committed offsets.
    pub(crate) metadata: BTreeMap<Arc<str>, i64>,
    pub(crate) now: Timestamp,
    pub(crate) cache_bytes: usize,
    pub(crate) globals: GlobalStores,
}

impl<M: LogMessage> Task<M> {
    /// Makes a task whose stores are restored.
    pub(crate) fn new(parts: TaskParts<M>) -> Result<Self, Fault> {
        let TaskParts {
            id,
            topology,
            inputs,
            db,
            meters,
            generation,
            metadata,
            now,
            cache_bytes,
            globals,
        } = parts;
        let (chain, cx) = build_chain(&topology, id, &db, now, cache_bytes, &globals, &meters)?;
        let changelog_offsets = db
            .checkpoint()
            .changelogs
            .into_iter()
            .map(|(store, position)| (store, position.next_offset))
            .collect();
        let mut task = Self {
            id,
            group: PartitionGroup::new(inputs),
            db,
            progress: Progress::Initialising(0),
            meters,
            generation,
            committed_at: now,
            has_outputs: false,
            prepared: false,
            offsets_written: false,
            topology,
            chain,
            cx,
            retry: None,
            suspects: Suspects::default(),
            punctuated: false,
            globals,
            in_hand: None,
            changelog_offsets,
            committed_metadata: metadata,
        };
        for input in &mut task.group.partitions {
            let source = task.chain.sources.get(input.source);
            input.extracts = source.is_some_and(|source| source.extracts());
        }
        task.restore_stream_time();
        Ok(task)
    }

    /// Rebuilds everything that an aborted transaction may have touched: processors, punctuators,
    /// stream time, overlays, buffers, positions. Stores are at the last commit already.
    pub(crate) fn rebuild(&mut self, now: Timestamp, cache_bytes: usize) -> Result<(), Fault> {
        let (chain, cx) = build_chain(
            &self.topology,
            self.id,
            &self.db,
            now,
            cache_bytes,
            &self.globals,
            &self.meters,
        )?;
        self.close_processors();
        self.meters.aborted();
        self.chain = chain;
        self.cx = cx;
        self.group.rewind();
        self.restore_stream_time();
        self.progress = Progress::Initialising(0);
        self.retry = None;
        self.punctuated = false;
        self.in_hand = None;
        self.has_outputs = false;
        Ok(())
    }

    /// As [`rebuild`](Self::rebuild), with a planted mistake: `keep_times` leaves operators the times
    /// of the aborted transaction.
    pub(crate) fn rebuild_with(
        &mut self,
        now: Timestamp,
        cache_bytes: usize,
        keep_times: bool,
    ) -> Result<(), Fault> {
        let times = keep_times.then(|| self.cx.all_metadata().clone());
        self.rebuild(now, cache_bytes)?;
        if let Some(times) = times {
            self.cx.restore_metadata(times);
        }
        Ok(())
    }

    fn restore_stream_time(&mut self) {
        let time = self
            .group
            .partitions
            .iter()
            .filter_map(|input| input.committed_time)
            .max();
        self.cx.restore_stream_time(time);
        self.db.observe_stream_time(time);
        self.cx.restore_metadata(self.committed_metadata.clone());
    }

    pub(crate) fn close_processors(&mut self) {
        for processor in &self.chain.processors {
            processor.borrow_mut().close();
        }
    }

    /// Runs one slice of initialisation; returns whether the task runs now.
    pub(crate) fn initialise<P: LogProducer>(
        &mut self,
        now: Timestamp,
        producer: &mut P,
    ) -> Result<bool, Fault> {
        while let Progress::Initialising(index) = self.progress {
            let Some(processor) = self.chain.processors.get(index).map(Rc::clone) else {
                // Queries see what is committed: not before all that was prepared is. Once: a store that
                // is never clean must not keep its task from running.
                if self.has_results() && !self.prepared {
                    self.cx.request_commit();
                    return Ok(false);
                }
                self.progress = Progress::Running;
                return Ok(true);
            };
            self.cx.set_system_time(now);
            self.cx.begin_other(self.cx.stream_time().unwrap_or(now));
            match processor.borrow_mut().init(&mut self.cx) {
                Ok(init) => {
                    self.prepared = false;
                    self.release(producer)?;
                    if init == Init::Continue {
                        self.cx.request_commit();
                        return Ok(false);
                    }
                    self.progress = Progress::Initialising(index + 1);
                }
                Err(source) => return Err(self.fail(None, source)),
            }
        }
        Ok(true)
    }
}

fn build_chain(
    topology: &Arc<ResolvedTopology>,
    id: TaskId,
    db: &TaskDb,
    now: Timestamp,
    cache_bytes: usize,
    globals: &GlobalStores,
    meters: &TaskMeters,
) -> Result<(TaskTopology, TaskContext), Fault> {
    let sub = sub_topology(topology, id);
    let (sub, partitions) = (sub.drawn, sub.topics.tasks);
    let fault = |source| Fault::State { task: id, source };
    let timestamp = Rc::new(Cell::new(now));
    let stream_time = SharedStreamTime::default();
    let (mut backends, mut indexes) = (BTreeMap::new(), BTreeMap::new());
    for store in &sub.stores {
        indexes.extend(
            db.index(&store.name)
                .map(|index| (store.name.clone(), index)),
        );
        backends.insert(store.name.clone(), db.backend(&store.name).map_err(fault)?);
    }
    let mut env = TaskEnv {
        task: id,
        partitions,
        timestamp: Rc::clone(&timestamp),
        stream_time: Rc::clone(&stream_time),
        indexes,
        topics: topology.topics.clone(),
        backends,
        cache_bytes,
        globals: globals.clone(),
        metrics: Some(meters.metrics().clone()),
    };
    let chain = (sub.instantiate)(&mut env).map_err(fault)?;
    assert!(
        chain.sources.len() == sub.sources.len(),
        "a chain has all sources of its sub-topology"
    );
    assert!(
        chain.stores.len() == sub.stores.len(),
        "a chain has all stores of its sub-topology"
    );
    let cx = TaskContext::new(id, timestamp, now).sharing_stream_time(stream_time);
    Ok((chain, cx))
}
