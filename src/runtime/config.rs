//! What the runtime is told: the validated form of the config file, without its syntax.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How a declared topic differs from `topics_default`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicOverride {
    /// The physical name; the logical one when absent.
    pub name: Option<String>,
    /// Partitions, when the topic has to be created.
    pub partitions: Option<i32>,
    /// Replication factor, when the topic has to be created.
    pub replication_factor: Option<i32>,
    /// Topic configs over those the topology declares.
    pub config: BTreeMap<String, String>,
}

/// The runtime's settings.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Group id, prefix of internal topics: Kafka Streams' `application.id`.
    pub application_id: String,
    /// Where the process id, the lock and the tasks' RocksDBs live.
    pub state_dir: PathBuf,
    /// Stream threads.
    pub threads: usize,
    /// The longest time between commits while there is something to commit.
    pub commit_interval: Duration,
    /// The shortest time between commits that dry inputs trigger.
    pub commit_min_interval: Duration,
    /// How often dirty stores are flushed to disk.
    pub flush_interval: Duration,
    /// The budget for caches, memtables, overlays and buffers, in bytes.
    pub memory_max: u64,
    /// Records buffered per partition before polling of it stops.
    pub buffered_records_per_partition: usize,
    /// Uncommitted overlay bytes per thread that trigger a commit; the share of `memory_max`
    /// ([`ThreadShares::uncommitted`](crate::state::ThreadShares)) does so anyhow.
    pub uncommitted_bytes_max: usize,
    /// `session.timeout.ms`.
    pub session_timeout: Duration,
    /// `transaction.timeout.ms`.
    pub transaction_timeout: Duration,
    /// Partitions of topics that have to be created.
    pub default_partitions: i32,
    /// Replication factor of topics that have to be created, internal ones included.
    pub default_replication_factor: i32,
    /// By logical name.
    pub topics: BTreeMap<String, TopicOverride>,
    /// `host:port` at which other processes reach this one's HTTP server; carried in `client.id`.
    pub advertised: Option<String>,
    /// How long a task with several input partitions waits for one that has no records, before it goes
    /// on with the others; it always waits for records that are known to be on the broker. `None`:
    /// neither. Kafka Streams' `max.task.idle.ms`, where `None` is -1.
    pub task_idle_max: Option<Duration>,
    /// How often committed records are deleted from repartition topics: Kafka Streams'
    /// `repartition.purge.interval.ms`.
    pub repartition_purge_interval: Duration,
    /// How often a topology with sources by pattern looks for topics that have appeared or gone:
    /// `pattern.refresh_interval`.
    pub pattern_refresh_interval: Duration,
    /// How long a thread may take to drain, commit and leave once it is told to stop. Then it ends
    /// without a commit: `shutdown.timeout`.
    pub shutdown_timeout: Duration,
    /// How often a failed thread is replaced before the process gives up.
    pub thread_replacements_max: u32,
}

impl RuntimeConfig {
    /// Creates settings with the documented defaults.
    #[must_use]
    pub fn new(application_id: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            application_id: application_id.into(),
            state_dir: state_dir.into(),
            threads: 1,
            commit_interval: Duration::from_millis(100),
            commit_min_interval: Duration::from_millis(5),
            flush_interval: Duration::from_secs(10),
            memory_max: 512 * 1024 * 1024,
            buffered_records_per_partition: 2000,
            uncommitted_bytes_max: usize::MAX,
            session_timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(10),
            default_partitions: 3,
            default_replication_factor: 1,
            topics: BTreeMap::new(),
            advertised: None,
            task_idle_max: Some(Duration::ZERO),
            repartition_purge_interval: Duration::from_secs(30),
            pattern_refresh_interval: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
            thread_replacements_max: 8,
        }
    }
}
