//! The embedded log: Kafka's semantics in one process, behind the seam of [`crate::log`].
//!
//! # Position
//! Serves `TopologyTestDriver`, tests of configured topologies, the simulation (virtual time, seeded
//! faults) and `--embedded`. It does not speak the wire protocol and is not a broker: past one
//! process the answer is Kafka. The conformance suite (`tests/conformance`) runs against both.
//! # Invariants
//! - All state is behind one lock; a call is atomic. Time acts when a client calls, by the log's
//!   clock, never by a thread of its own: one seed replays a run.
//! - A client that is dropped is a killed process: nothing is aborted and no group is left.
//! - The durable state changes by journaled mutations only, so a reopened log equals the old one.
//! # Failure
//! A fault that is injected ([`FaultPlan`]) shows as the [`LogError`] that a broker's would be.
//! A journal that cannot be written refuses changes, and takes them again once it can.

mod assignor;
mod codec;
mod compaction;
mod config;
mod consumer;
mod coordinator;
mod core;
mod faults;
mod frame;
mod group;
mod inspect;
mod journal;
mod lost;
mod mutation;
mod partition;
mod producer;
mod reader;
mod record;
mod state;

pub use consumer::EmbeddedConsumer;
pub use coordinator::EmbeddedGroupMetadata;
pub use faults::{Fault, FaultPlan, FaultPoint, FaultSite};
pub use inspect::{
    GroupView, InspectedRecord, MemberView, OpenTransaction, RecordStatus, TopicView,
};
pub use journal::{Durability, OpenError, OpenOptions};
pub use producer::EmbeddedProducer;
pub use reader::EmbeddedReader;
pub use record::EmbeddedMessage;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::core::{ChangeError, Core};
use self::journal::Journal;
use self::state::State;
use crate::clock::Clock;
use crate::log::{
    CommittedOffset, ConsumerSpec, GroupMember, Isolation, Log, LogError, LogRange, Offset,
    ProducerSpec, TopicDescription, TopicName, TopicPartition, TopicSpec,
};

/// An in-process log. Cloning shares it.
#[derive(Debug, Clone)]
pub struct EmbeddedLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    location: Location,
    virtual_time: AtomicBool,
    has_faults: AtomicBool,
    faults: Mutex<Option<Arc<dyn FaultPlan>>>,
}

/// Where a log lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In memory: nothing survives the process.
    Memory,
    /// In a directory.
    Directory(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("in memory"),
            Self::Directory(dir) => write!(f, "in {}", dir.display()),
        }
    }
}

impl EmbeddedLog {
    /// Creates an empty log that lives as long as its last clone.
    #[must_use]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        tracing::info!("embedded log in memory: nothing survives this process");
        Self::over(Core::new(clock, State::default(), None), Location::Memory)
    }

    /// Opens or creates the log in a directory: what was committed survives `kill -9`.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has it open, and others.
    pub fn open(dir: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_with(dir, clock, OpenOptions::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        dir: impl AsRef<Path>,
        clock: Arc<dyn Clock>,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        let (journal, state) = Journal::open(dir.as_ref(), options)?;
        let topics = state.topics.len();
        tracing::info!(dir = %journal.dir().display(), topics, "embedded log in a directory");
        let location = Location::Directory(journal.dir().to_path_buf());
        Ok(Self::over(Core::new(clock, state, Some(journal)), location))
    }

    /// Returns where the log lives.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.0.location
    }

    fn over(core: Core, location: Location) -> Self {
        Self(Arc::new(Shared {
            core: Mutex::new(core),
            location,
            virtual_time: AtomicBool::new(false),
            has_faults: AtomicBool::new(false),
            faults: Mutex::new(None),
        }))
    }

    /// Never blocks from now on, for callers that move the clock themselves: waits return at once,
    /// and a member's session counts from its last call (no heartbeats are implied).
    #[must_use]
    pub fn with_virtual_time(self) -> Self {
        self.0.virtual_time.store(true, Ordering::SeqCst);
        self.set_background_heartbeats(false);
        self
    }

    /// Sets whether the heartbeats of consumers that are alive are implied. When they are, a session
    /// counts from the drop of its consumer, and a living one must poll every 5 minutes.
    pub fn set_background_heartbeats(&self, implied: bool) {
        let mut core = self.core();
        core.background_heartbeats = implied;
        core.reset_deadline();
    }

    /// Sets what goes wrong from now on; `None` for nothing.
    pub fn set_faults(&self, plan: Option<Arc<dyn FaultPlan>>) {
        let mut faults = self.0.faults.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.has_faults.store(plan.is_some(), Ordering::SeqCst);
        *faults = plan;
    }

    /// Lets time act now: sessions and transactions that are due, retention and compaction (without
    /// waiting for their intervals and ratios).
    ///
    /// # Errors
    /// [`LogError::Retriable`] when the journal cannot be written.
    pub fn maintain(&self) -> Result<(), LogError> {
        let mut core = self.core();
        let now = core.tick();
        core.maintain(now, true)
            .map_err(|error| error.into_log_error("maintain"))
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // A panic under the lock is a broken invariant that an assertion stopped before it spread.
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_virtual(&self) -> bool {
        self.0.virtual_time.load(Ordering::SeqCst)
    }

    fn has_faults(&self) -> bool {
        self.0.has_faults.load(Ordering::SeqCst)
    }

    fn fault(
        &self,
        point: FaultPoint,
        client_id: &str,
        transactional_id: Option<&str>,
        partition: Option<&TopicPartition>,
    ) -> Option<Fault> {
        if !self.has_faults() {
            return None;
        }
        let plan = self
            .0
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        plan.decide(&FaultSite {
            point,
            client_id,
            transactional_id,
            partition,
        })
    }

    fn stable_offsets(
        &self,
        operation: &'static str,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, LogError> {
        let mut core = self.core();
        core.tick();
        if let Some(pending) = partitions
            .iter()
            .find(|one| core.state.is_pending(group, one))
        {
            let message = format!("an open transaction holds an offset of {pending}");
            return Err(LogError::Retriable { operation, message });
        }
        let offsets = core.state.offsets.get(group);
        Ok(partitions
            .iter()
            .map(|one| offsets?.get(one).cloned())
            .collect())
    }
}

/// Fetches from one partition.
fn fetch(
    core: &Core,
    partition: &TopicPartition,
    from: Offset,
    max: usize,
    isolation: Isolation,
    mut sink: impl FnMut(EmbeddedMessage),
) -> Result<partition::Fetched, LogError> {
    let source = core
        .state
        .partition(&partition.topic, partition.partition)
        .ok_or_else(|| LogError::UnknownTopic {
            topic: partition.topic.to_string(),
        })?;
    source
        .fetch(from, max, isolation, |record| {
            sink(EmbeddedMessage {
                topic: Arc::clone(&partition.topic),
                partition: partition.partition,
                record: Arc::clone(record),
            });
        })
        .map_err(|partition::OutOfRange| LogError::OffsetOutOfRange {
            partition: partition.clone(),
            offset: from,
        })
}

impl Log for EmbeddedLog {
    type Message = EmbeddedMessage;
    type GroupMetadata = EmbeddedGroupMetadata;
    type Consumer = EmbeddedConsumer;
    type Producer = EmbeddedProducer;
    type Reader = EmbeddedReader;

    fn consumer(&self, spec: &ConsumerSpec) -> Result<EmbeddedConsumer, LogError> {
        Ok(EmbeddedConsumer::new(self.clone(), spec.clone()))
    }

    fn producer(&self, spec: &ProducerSpec) -> Result<EmbeddedProducer, LogError> {
        Ok(EmbeddedProducer::new(self.clone(), spec.clone()))
    }

    fn reader(&self, isolation: Isolation) -> Result<EmbeddedReader, LogError> {
        Ok(EmbeddedReader::new(self.clone(), isolation))
    }

    fn describe_topics(&self, topics: &[&str]) -> Result<Vec<Option<TopicDescription>>, LogError> {
        let core = self.core();
        let describe = |name: &&str| {
            let (name, topic) = core.state.topics.get_key_value(*name)?;
            Some(TopicDescription {
                name: Arc::clone(name),
                id: topic.id,
                partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            })
        };
        Ok(topics.iter().map(describe).collect())
    }

    fn topic_names(&self) -> Result<Vec<TopicName>, LogError> {
        Ok(self.core().state.topics.keys().map(Arc::clone).collect())
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<(), LogError> {
        let mut core = self.core();
        core.tick();
        for topic in topics {
            core.create_topic(topic, uuid::Uuid::new_v4().into_bytes())?;
        }
        core.flush()
            .map_err(|error| error.into_log_error("create topics"))
    }

    fn delete_topics(&self, topics: &[&str]) -> Result<(), LogError> {
        let mut core = self.core();
        core.tick();
        for topic in topics {
            core.delete_topic(topic)?;
        }
        core.flush()
            .map_err(|error| error.into_log_error("delete topics"))
    }

    fn delete_records(&self, below: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        let mut core = self.core();
        core.tick();
        for (partition, offset) in below {
            core.delete_records(partition, *offset)?;
        }
        core.flush()
            .map_err(|error| error.into_log_error("delete records"))
    }

    fn log_ranges(
        &self,
        partitions: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<Vec<LogRange>, LogError> {
        let mut core = self.core();
        core.tick();
        partitions
            .iter()
            .map(|one| {
                core.state
                    .partition(&one.topic, one.partition)
                    .map(|partition| partition.range(isolation))
                    .ok_or_else(|| LogError::UnknownTopic {
                        topic: one.topic.to_string(),
                    })
            })
            .collect()
    }

    fn group_members(&self, group: &str) -> Result<Vec<GroupMember>, LogError> {
        let mut core = self.core();
        core.tick();
        let members = core.groups.get(group).map(|group| &group.members);
        Ok(members
            .into_iter()
            .flat_map(|members| members.values())
            .map(|member| GroupMember {
                client_id: member.client_id.clone(),
                group_instance_id: member.instance.clone(),
                assignment: member.assignment(),
            })
            .collect())
    }

    fn group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, LogError> {
        self.stable_offsets("group offsets", group, partitions)
    }

    fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &[(TopicPartition, CommittedOffset)],
    ) -> Result<(), LogError> {
        let mut core = self.core();
        core.tick();
        core.alter_offsets(group, offsets)
    }
}

#[cfg(test)]
mod tests;
