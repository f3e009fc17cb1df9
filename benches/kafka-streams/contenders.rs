//! Who takes part in a workload, and with which settings.

use crate::workload::Workload;

/// A side with its settings.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// In tables.
    pub(crate) name: &'static str,
    pub(crate) is_millstream: bool,
    /// Over the settings that all workloads have.
    pub(crate) settings: &'static [&'static str],
    /// A peak of its resident memory above this fails the run.
    pub(crate) rss_mib_max: Option<f64>,
}

const fn streams(name: &'static str, settings: &'static [&'static str]) -> Contender {
    Contender {
        name,
        is_millstream: false,
        settings,
        rss_mib_max: None,
    }
}

const MILLSTREAM: Contender = Contender {
    name: "millstream",
    is_millstream: true,
    settings: &[],
    rss_mib_max: None,
};

/// What Kafka Streams is told for every workload; the page says why.
pub(crate) const STREAMS_SETTINGS: [&str; 7] = [
    "commit.interval.ms=100",
    "producer.compression.type=lz4",
    "producer.batch.size=131072",
    "main.consumer.max.poll.records=5000",
    "restore.consumer.max.poll.records=5000",
    "buffered.records.per.partition=5000",
    "topology.optimization=all",
];

const PLAIN: Contender = streams("Kafka Streams", &[]);
const CACHE_OFF: Contender = streams(
    "Kafka Streams, cache off",
    &["statestore.cache.max.bytes=0"],
);
const CACHE_10_MB: Contender = streams(
    "Kafka Streams, cache 10 MB",
    &["statestore.cache.max.bytes=10485760"],
);
const COMMIT_10_MS: Contender = streams(
    "Kafka Streams, commit 10 ms",
    &["statestore.cache.max.bytes=0", "commit.interval.ms=10"],
);
/// Where a cache of records has nothing to save, every update comes out.
const WITHOUT_CACHE: Contender = streams("Kafka Streams", &["statestore.cache.max.bytes=0"]);
const STATIC_MEMBER: Contender = streams(
    "Kafka Streams",
    &["statestore.cache.max.bytes=0", "group.instance.id=member"],
);
/// Static members: the second process need not wait for the session of the first to expire.
const BOUNDED: Contender = streams(
    "Kafka Streams, 40 MiB",
    &[
        "group.instance.id=member",
        "statestore.cache.max.bytes=0",
        "rocksdb.config.setter=KafkaStreamsSide$BoundedMemory",
    ],
);
const UNBOUNDED: Contender = streams(
    "Kafka Streams, its defaults",
    &["group.instance.id=member", "statestore.cache.max.bytes=0"],
);
const BOUNDED_MILLSTREAM: Contender = Contender {
    // Of which RocksDB has 40 %, for blocks, indexes, filters and memtables.
    settings: &["memory.max=104857600"],
    rss_mib_max: Some(256.0),
    ..MILLSTREAM
};

/// The sides of a workload; the last one is compared with all others.
pub(crate) const fn contenders(workload: Workload) -> &'static [Contender] {
    match workload {
        Workload::Balances | Workload::Windowed | Workload::ForeignKey => {
            &[CACHE_OFF, CACHE_10_MB, MILLSTREAM]
        }
        Workload::Stateless | Workload::Joined => &[PLAIN, MILLSTREAM],
        Workload::Latency => &[CACHE_OFF, COMMIT_10_MS, MILLSTREAM],
        Workload::Restore | Workload::Idle => &[WITHOUT_CACHE, MILLSTREAM],
        Workload::Recovery => &[STATIC_MEMBER, MILLSTREAM],
        Workload::Updates => &[BOUNDED, UNBOUNDED, BOUNDED_MILLSTREAM],
    }
}

impl Contender {
    /// Returns whether the side emits every update, and not the last of each commit only.
    pub(crate) fn emits_every_update(&self) -> bool {
        !self
            .settings
            .iter()
            .any(|setting| setting.starts_with("statestore.cache") && !setting.ends_with("=0"))
    }
}
