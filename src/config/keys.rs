//! Every configuration key: the one table that decides which keys exist, what they default to and
//! what the reference page says about them.

use super::suggest;

/// What a key's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// A whole number.
    Integer,
    /// A duration with its unit.
    Duration,
    /// A size with its unit.
    Size,
    /// A mapping whose keys keep their dots and whose values are taken as written.
    FlatMap,
    /// A mapping that the topology reads.
    Free,
}

impl Kind {
    /// Returns the name used on the reference page.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Integer => "integer",
            Self::Duration => "duration",
            Self::Size => "size",
            Self::FlatMap => "flat map of strings",
            Self::Free => "mapping",
        }
    }
}

/// What holds when a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The configuration is refused; the text completes "add `key: …`".
    Required(&'static str),
    /// As if this had been written.
    Default(&'static str),
    /// What follows from other keys, in words.
    Derived(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// The path; `*` stands for a name chosen by the user.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    pub(crate) absent: Absent,
    /// What may be written, in words.
    pub(crate) allowed: &'static str,
    pub(crate) meaning: &'static str,
    /// Kafka Streams' key for the same thing.
    pub(crate) kafka_streams: Option<&'static str>,
    /// What a higher and a lower value do, where the value has an order.
    pub(crate) higher_lower: Option<(&'static str, &'static str)>,
}

/// The most stream threads of a process: each has a consumer, a producer and their own threads.
pub(crate) const THREADS_MAX: u64 = 256;
/// The longest commit interval: half the transaction timeout of 10 s, so that a broker never
/// aborts a transaction that its thread still means to commit.
pub(crate) const COMMIT_INTERVAL_MAX_MS: u64 = 5_000;
/// The least memory: below it RocksDB's write buffers and librdkafka's queues starve each other.
pub(crate) const MEMORY_MIN_BYTES: u64 = 64 << 20;
/// The most partitions of a topic that the daemon creates.
pub(crate) const PARTITIONS_MAX: u64 = 10_000;
/// The most replicas of a topic that the daemon creates.
pub(crate) const REPLICATION_FACTOR_MAX: u64 = 100;
/// The longest `application_id`: with `-<store>-changelog` after it a topic name stays within
/// Kafka's 249 characters.
pub(crate) const APPLICATION_ID_CHARS_MAX: usize = 150;
/// Kafka's limit for a topic's name.
pub(crate) const TOPIC_CHARS_MAX: usize = 249;

/// All keys, in the order of the reference page.
pub(crate) const KEYS: &[Key] = &[
    Key {
        path: "application_id",
        kind: Kind::Text,
        absent: Absent::Required("<name>"),
        allowed: "letters, digits, `.`, `_` and `-`; at most 150 characters",
        meaning: "The application's name: its consumer group, the prefix of its internal topics and \
                  transactional ids, and its directory's name. Processes with the same \
                  `application_id` share the work. Changing it starts a new application without \
                  offsets or state.",
        kafka_streams: Some("application.id"),
        higher_lower: None,
    },
    Key {
        path: "topology",
        kind: Kind::Text,
        absent: Absent::Required("<topology>"),
        allowed: "a name that `millstream topologies` lists",
        meaning: "Which packaged topology runs.",
        kafka_streams: None,
        higher_lower: None,
    },
    Key {
        path: "kafka.bootstrap_servers",
        kind: Kind::Text,
        absent: Absent::Required("<host>:<port>"),
        allowed: "`host:port`, several separated by commas; not needed with `--embedded`",
        meaning: "Brokers to find the cluster by. Two or three are enough: the others are learnt \
                  from them.",
        kafka_streams: Some("bootstrap.servers"),
        higher_lower: None,
    },
    Key {
        path: "kafka.properties",
        kind: Kind::FlatMap,
        absent: Absent::Default("{}"),
        allowed: "librdkafka's properties by their own names, such as `security.protocol: SSL`; \
                  not those that carry the exactly-once guarantee (`group.id`, `transactional.id`, \
                  `isolation.level` and others)",
        meaning: "Passed to every Kafka client of the process. Keys keep their dots. Take secrets \
                  from the environment: `sasl.password: ${KAFKA_PASSWORD}`.",
        kafka_streams: Some("the clients' own properties"),
        higher_lower: None,
    },
    Key {
        path: "state_dir",
        kind: Kind::Text,
        absent: Absent::Derived("`./state/<application_id>`"),
        allowed: "a path; relative ones start at the working directory",
        meaning: "Where the stores of this process live, one RocksDB per task, and its process id. \
                  One process at a time owns it. What is lost with it is restored from changelogs.",
        kafka_streams: Some("state.dir"),
        higher_lower: None,
    },
    Key {
        path: "state.flush_interval",
        kind: Kind::Duration,
        absent: Absent::Default("10s"),
        allowed: "`100ms` to `1h`",
        meaning: "How long committed state may stay in memory before all stores of a task are \
                  flushed to disk together.",
        kafka_streams: Some("none; Kafka Streams checkpoints after 10,000 changelog records"),
        higher_lower: Some((
            "fewer, larger files and less compaction",
            "a shorter changelog tail to replay after `kill -9`",
        )),
    },
    Key {
        path: "threads",
        kind: Kind::Integer,
        absent: Absent::Default("1"),
        allowed: "`1` to `256`",
        meaning: "Stream threads in this process. Tasks are spread over the threads of all \
                  processes; threads beyond the number of tasks stand by idle.",
        kafka_streams: Some("num.stream.threads"),
        higher_lower: Some((
            "more cores used, smaller transactions, more broker connections and memory",
            "larger transactions, less overhead per record",
        )),
    },
    Key {
        path: "commit.interval",
        kind: Kind::Duration,
        absent: Absent::Default("100ms"),
        allowed: "`1ms` to `5s`, half the transaction timeout",
        meaning: "The longest time between two commits of a thread that has something to commit. A \
                  thread whose input runs dry commits at once.",
        kafka_streams: Some("commit.interval.ms"),
        higher_lower: Some((
            "more records per second, since the costs of a transaction are spread",
            "results visible sooner under load, less to repeat after a crash",
        )),
    },
    Key {
        path: "commit.min_interval",
        kind: Kind::Duration,
        absent: Absent::Default("5ms"),
        allowed: "`0ms` to `commit.interval`",
        meaning: "The shortest time between two commits of a thread: a floor under the commits at \
                  once when input runs dry.",
        kafka_streams: None,
        higher_lower: Some((
            "fewer transactions from a trickle of records",
            "a single record's result visible sooner",
        )),
    },
    Key {
        path: "memory.max",
        kind: Kind::Size,
        absent: Absent::Default("512MiB"),
        allowed: "at least `64MiB`",
        meaning: "The budget of the process for block cache, write buffers, overlays, record \
                  buffers and client queues together. Code and allocator come on top.",
        kafka_streams: Some("statestore.cache.max.bytes, of which it is only a part"),
        higher_lower: Some((
            "fewer reads from disk, larger transactions",
            "a smaller process; commits come sooner when a transaction fills its share",
        )),
    },
    Key {
        path: "shutdown.timeout",
        kind: Kind::Duration,
        absent: Absent::Default("30s"),
        allowed: "`1s` to `1h`",
        meaning: "How long a process that was told to stop (SIGTERM, SIGINT) may take to commit what \
                  it has done and to leave the group. When it has passed, as while the brokers are \
                  away, the process ends with exit code 1 and without that commit: nothing is lost, \
                  the records are processed again by whoever takes over. Give the supervisor (\
                  `TimeoutStopSec`, `terminationGracePeriodSeconds`) 15 seconds more.",
        kafka_streams: Some("the argument of KafkaStreams.close(Duration)"),
        higher_lower: Some((
            "a longer outage of the brokers is waited out",
            "a stop that is sure to be over sooner",
        )),
    },
    Key {
        path: "task.idle_max",
        kind: Kind::Duration,
        absent: Absent::Default("0ms"),
        allowed: "`0ms` to `1h`, or `off`",
        meaning: "How long a task that reads several partitions waits for one without records before \
                  it goes on with the others: the older record that the wait is for would be \
                  processed first. It waits up to 10 s for records that are known to be on the \
                  broker, in any case. `off` waits for neither: what has arrived is processed at once, in whatever \
                  order partitions were fetched.",
        kafka_streams: Some("max.task.idle.ms, where -1 is `off`"),
        higher_lower: Some((
            "records of several topics come closer to the order of their timestamps",
            "less latency while a topic is quiet",
        )),
    },
    Key {
        path: "pattern.refresh_interval",
        kind: Kind::Duration,
        absent: Absent::Default("30s"),
        allowed: "`100ms` to `1h`",
        meaning: "How often a topology that reads topics by pattern looks for topics that have \
                  appeared or gone.",
        kafka_streams: Some("metadata.max.age.ms, 5 minutes"),
        higher_lower: Some((
            "fewer requests for the names of all topics",
            "a topic that appears is read sooner",
        )),
    },
    Key {
        path: "http.listen",
        kind: Kind::Text,
        absent: Absent::Default("127.0.0.1:8080"),
        allowed: "`address:port`, such as `0.0.0.0:8080` or `[::1]:8080`; port `0` takes a free one",
        meaning: "Where metrics, health, queries and commands are served. There is no \
                  authentication: beyond the own machine put a proxy before it.",
        kafka_streams: None,
        higher_lower: None,
    },
    Key {
        path: "http.advertised",
        kind: Kind::Text,
        absent: Absent::Derived("the address of `http.listen`, unless that is `0.0.0.0` or `[::]`"),
        allowed: "`host:port`",
        meaning: "Where other processes and their clients reach this process: a request for a key \
                  that it owns is answered elsewhere by a redirect to here.",
        kafka_streams: Some("application.server"),
        higher_lower: None,
    },
    Key {
        path: "topics_default.partitions",
        kind: Kind::Integer,
        absent: Absent::Default("3"),
        allowed: "`1` to `10000`",
        meaning: "Partitions of a declared topic that has to be created and names none itself. \
                  Topics that are read together get the count of those that exist.",
        kafka_streams: None,
        higher_lower: Some((
            "more tasks, so more threads and processes can share the work",
            "fewer tasks, each with its own RocksDB",
        )),
    },
    Key {
        path: "topics_default.replication_factor",
        kind: Kind::Integer,
        absent: Absent::Default("1"),
        allowed: "`1` to `100`",
        meaning: "Replicas of every topic that is created, internal ones included. Production \
                  wants 3.",
        kafka_streams: Some("replication.factor"),
        higher_lower: Some(("data survives more lost brokers", "less disk and network")),
    },
    Key {
        path: "topics.*.name",
        kind: Kind::Text,
        absent: Absent::Derived("the declared name"),
        allowed: "a legal topic name",
        meaning: "The topic's name in the cluster, where it differs from the name that the \
                  topology declares (the `*`).",
        kafka_streams: None,
        higher_lower: None,
    },
    Key {
        path: "topics.*.partitions",
        kind: Kind::Integer,
        absent: Absent::Derived(
            "`topics_default.partitions`, or the count of existing \
                                 co-partitioned topics",
        ),
        allowed: "`1` to `10000`",
        meaning: "Partitions, when the topic has to be created. An existing topic is left as it is.",
        kafka_streams: None,
        higher_lower: None,
    },
    Key {
        path: "topics.*.replication_factor",
        kind: Kind::Integer,
        absent: Absent::Derived("`topics_default.replication_factor`"),
        allowed: "`1` to `100`",
        meaning: "Replicas, when the topic has to be created.",
        kafka_streams: None,
        higher_lower: None,
    },
    Key {
        path: "topics.*.config",
        kind: Kind::FlatMap,
        absent: Absent::Derived("what the topology declares"),
        allowed: "Kafka's topic configs by their own names, such as `retention.ms: -1`",
        meaning: "Configs, when the topic has to be created; each replaces the one that the \
                  topology declares.",
        kafka_streams: None,
        higher_lower: None,
    },
    Key {
        path: "sinks.*",
        kind: Kind::Free,
        absent: Absent::Derived("no sink runs"),
        allowed: "what the sink documents ([sinks.md](sinks.md)); the name is one that the topology \
                  offers",
        meaning: "Turns a sink on and sets it up: its topics are carried into another system, beside \
                  the stream threads. Take secrets from the environment: `url: ${POSTGRES_URL}`.",
        kafka_streams: None,
        higher_lower: None,
    },
    Key {
        path: "parameters",
        kind: Kind::Free,
        absent: Absent::Default("{}"),
        allowed: "what the topology documents",
        meaning: "The topology's own settings, checked as strictly as the rest.",
        kafka_streams: None,
        higher_lower: None,
    },
];

/// Kafka properties that are not the user's to set, and what to do instead.
pub(crate) const RESERVED_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "use `kafka.bootstrap_servers`"),
    ("metadata.broker.list", "use `kafka.bootstrap_servers`"),
    ("group.id", "it is the `application_id`"),
    (
        "group.instance.id",
        "it is made from the `application_id` and the process id",
    ),
    (
        "client.id",
        "it is made from the `application_id` and `http.advertised`",
    ),
    (
        "transactional.id",
        "it is made from the `application_id` and the process id",
    ),
    ("enable.idempotence", "exactly once needs it on"),
    (
        "enable.auto.commit",
        "offsets are committed in transactions",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed in transactions",
    ),
    (
        "auto.offset.reset",
        "a missing offset is an error where state exists",
    ),
    (
        "isolation.level",
        "exactly once reads committed records only",
    ),
    (
        "partitioner",
        "records are partitioned as by Kafka's Java clients",
    ),
];

/// Returns the key with this path. A path that is not in the table is a bug.
#[expect(
    clippy::expect_used,
    reason = "paths are literals of this module's callers, and tested"
)]
pub(crate) fn key(path: &str) -> &'static Key {
    KEYS.iter()
        .find(|key| key.path == path)
        .expect("every configuration key is in the table")
}

/// What is at a path of the tree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A key with a value.
    Key(Kind),
    /// A section with these names.
    Section(Vec<&'static str>),
    /// A section whose names the user chooses.
    AnyName,
    /// Nothing.
    Unknown,
}

/// Returns what is at the path with these segments.
pub(crate) fn place(segments: &[&str]) -> Place {
    let mut children = Vec::new();
    for key in KEYS {
        let mut parts = key.path.split('.');
        let within = segments.iter().all(|segment| {
            parts
                .next()
                .is_some_and(|part| part == "*" || part == *segment)
        });
        if !within {
            continue;
        }
        match parts.next() {
            None => return Place::Key(key.kind),
            Some("*") => return Place::AnyName,
            Some(child) if children.last() != Some(&child) => children.push(child),
            Some(_) => {}
        }
    }
    if children.is_empty() {
        Place::Unknown
    } else {
        Place::Section(children)
    }
}

/// Returns whether all below this path is one key, dots and all.
pub(crate) fn is_flat_map(segments: &[&str]) -> bool {
    matches!(place(segments), Place::Key(Kind::FlatMap))
}

/// Says what may have been meant by the unknown key `name` in a section with these names.
pub(crate) fn help_for_unknown(section: &str, name: &str, known: &[&str]) -> Option<String> {
    let full = if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    };
    let exists = |path: &str| {
        let segments: Vec<&str> = path.split('.').collect();
        place(&segments) != Place::Unknown
    };
    if name.contains('.') && exists(&full) {
        return Some(format!(
            "in the file dots do not nest: write `{}`",
            nested(name)
        ));
    }
    if let Some(help) = suggest::did_you_mean(name, known.iter().copied()) {
        return Some(help);
    }
    // The right name in the wrong section, or Kafka Streams' name.
    let elsewhere = KEYS.iter().find(|key| {
        key.path.rsplit('.').next() == Some(name)
            || key.path == name
            || key.kafka_streams == Some(name)
            || key.path.replace('.', "_") == name
    });
    match elsewhere {
        Some(key) => Some(format!("did you mean `{}`?", key.path)),
        None => Some(format!("known keys here: {}", known.join(", "))),
    }
}

/// Writes a dotted key as nested flow mappings.
fn nested(dotted: &str) -> String {
    let depth = dotted.matches('.').count();
    format!("{}: …{}", dotted.replace('.', ": {"), "}".repeat(depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_sections_keys_and_free_names_apart() {
        assert_eq!(
            place(&["commit"]),
            Place::Section(vec!["interval", "min_interval"])
        );
        assert_eq!(place(&["commit", "interval"]), Place::Key(Kind::Duration));
        assert_eq!(place(&["topics"]), Place::AnyName);
        assert_eq!(
            place(&["topics", "a.b"]),
            Place::Section(vec!["name", "partitions", "replication_factor", "config"])
        );
        assert!(is_flat_map(&["topics", "a.b", "config"]));
        assert_eq!(place(&["nothing"]), Place::Unknown);
        assert_eq!(place(&["threads", "deeper"]), Place::Unknown);
    }

    #[test]
    fn every_key_is_documented_once() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(key.meaning.ends_with('.'), "{}", key.path);
            assert!(!key.allowed.is_empty(), "{}", key.path);
            assert!(
                KEYS.iter()
                    .skip(index + 1)
                    .all(|other| other.path != key.path),
                "{}",
                key.path
            );
        }
    }

    #[test]
    fn an_unknown_key_is_explained() {
        let top = ["application_id", "commit", "threads"];
        for (name, help) in [
            ("comit", "did you mean `commit`?"),
            (
                "commit.interval",
                "in the file dots do not nest: write `commit: {interval: …}`",
            ),
            ("commit_interval", "did you mean `commit.interval`?"),
            ("num.stream.threads", "did you mean `threads`?"),
            (
                "bootstrap_servers",
                "did you mean `kafka.bootstrap_servers`?",
            ),
            ("zebra", "known keys here: application_id, commit, threads"),
        ] {
            assert_eq!(
                help_for_unknown("", name, &top).as_deref(),
                Some(help),
                "{name}"
            );
        }
    }
}
