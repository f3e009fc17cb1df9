//! The runtime: stream threads, tasks, commits, restores.
//!
//! # Position
//! [`App`] runs N [`StreamThread`]s; a thread owns one consumer, one transactional producer and its
//! tasks; a task owns a partition of a sub-topology with its RocksDB. Generic over the
//! [`Log`](crate::log::Log).
//! # Invariants
//! - Decisions are pure functions ([`commit_due`], `plan_restore`, [`resolve_topics`]); this module
//!   reads the facts, asks, and performs.
//! - A thread at work never blocks but in `LogConsumer::wait`: simulation steps the same code.
//! - A panic, a fence or a lost membership never leads to a commit (invariant 9).
#![warn(clippy::wildcard_enum_match_arm)]

mod app;
mod commit;
mod config;
mod dead_letter;
mod error;
mod global;
mod meters;
mod partition_group;
mod patterns;
mod probe;
pub mod protocol;
mod resolved;
pub mod restore;
mod restore_pool;
mod status;
mod stream_thread;
mod suspects;
mod task;
mod topics;

pub use app::{App, AppSpec, AppState, Health, HealthHandle, StartError};
pub use commit::{CommitFacts, CommitReason, CommitSettings, commit_due};
pub use config::{RuntimeConfig, TopicOverride};
pub(crate) use dead_letter::chain as error_chain;
pub use error::ThreadError;
pub use global::{GlobalSpec, GlobalThread};
pub use partition_group::PartitionGroup;
pub use probe::{Crash, CrashPoint, NoProbe, PlantedBug, Probe};
pub use resolved::{Changelog, ResolvedSubTopology, ResolvedTopology, SubTopologyRef};
pub use restore_pool::RestoreExecutor;
pub use status::{Membership, TaskState, ThreadMemory, ThreadSnapshot, ThreadStatus};
pub use stream_thread::{Step, StreamThread, ThreadSpec};
pub use topics::{
    TopicPlan, TopicsError, all_topic_names, ensure_topics, existing_topic_names, physical_name,
    plan_topics, resolve_topics,
};
