//! Which properties a client gets: our defaults, the user's over them, and over those the ones that
//! exactly-once and the seam's contract rest on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::ffi::{Conf, ConfError};
use crate::log::{ClientMemory, ConsumerSpec, Isolation, LogError, ProducerSpec};

/// The largest record and batch a client sends, in bytes with key, headers and framing: what topics
/// take (16 MiB) less what compressing incompressible bytes adds, so that the client refuses what
/// the broker would refuse. The broker's refusal would cost the transaction.
const MESSAGE_MAX_BYTES: &str = "16711680";

/// Properties that a user cannot set, with the reason.
const RESERVED: &[(&str, &str)] = &[
    ("acks", ACKNOWLEDGED_BY_ALL),
    ("auto.commit.enable", COMMITTED_IN_TRANSACTIONS),
    ("auto.commit.interval.ms", COMMITTED_IN_TRANSACTIONS),
    (
        "auto.offset.reset",
        "a missing offset where state exists is an error, never a reset",
    ),
    ("bootstrap.servers", "it is a setting of its own"),
    ("client.id", "it carries the process's identity"),
    (
        "delivery.report.only.error",
        "acknowledged offsets are needed for checkpoints",
    ),
    ("enable.auto.commit", COMMITTED_IN_TRANSACTIONS),
    ("enable.auto.offset.store", COMMITTED_IN_TRANSACTIONS),
    ("enable.gapless.guarantee", ACKNOWLEDGED_BY_ALL),
    ("enable.idempotence", ACKNOWLEDGED_BY_ALL),
    (
        "enable.partition.eof",
        "the end of a partition is handled here",
    ),
    ("group.id", "it is the application id"),
    (
        "group.instance.id",
        "it is derived from the application id and the state directory",
    ),
    ("group.protocol", "the membership protocol is chosen here"),
    ("isolation.level", "input is read committed"),
    ("log.queue", "logs are handled here"),
    ("metadata.broker.list", "it is a setting of its own"),
    (
        "partition.assignment.strategy",
        "the membership protocol is chosen here",
    ),
    (
        "partitioner",
        "records must go where Kafka's Java client puts them",
    ),
    ("request.required.acks", ACKNOWLEDGED_BY_ALL),
    ("session.timeout.ms", "it is a setting of its own"),
    ("transaction.timeout.ms", "it is a setting of its own"),
    (
        "transactional.id",
        "it is derived from the application id and the state directory",
    ),
];
const COMMITTED_IN_TRANSACTIONS: &str = "offsets are committed in transactions";
const ACKNOWLEDGED_BY_ALL: &str =
    "exactly-once needs idempotent writes acknowledged by all replicas";

/// Defaults of every client; the user may override them.
const COMMON: &[(&str, &str)] = &[
    ("message.max.bytes", MESSAGE_MAX_BYTES),
    // A broker that comes back is found within a second.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    // Closing idle connections is the broker's routine.
    ("log.connection.close", "false"),
];

/// Bounds a producer's queue, in KiB.
const SEND_QUEUE: &str = "queue.buffering.max.kbytes";
/// Bounds what is fetched ahead of each partition whose queue is polled by itself, in KiB.
const FETCH_QUEUE: &str = "queued.max.messages.kbytes";
/// The most that librdkafka takes for either.
const QUEUE_MAX_KIB: usize = 2_097_151;

/// Defaults of producers.
const PRODUCER: &[(&str, &str)] = &[
    ("compression.type", "lz4"),
    // A commit sends at once whatever still lingers, so that this delays no result. Shorter is dear:
    // for the last millisecond of every wait librdkafka's thread polls without a pause.
    ("linger.ms", "25"),
    // The broker answers "concurrent transactions" while it finishes the last one: with the
    // default of 100 ms that is the p99 of back-to-back commits.
    ("retry.backoff.ms", "1"),
    // How long a topic that was just created may be unknown before its records are refused.
    ("topic.metadata.propagation.max.ms", "10000"),
    ("queue.buffering.max.messages", "500000"),
    (SEND_QUEUE, "131072"),
];

/// Defaults of consumers and readers.
const CONSUMER: &[(&str, &str)] = &[
    ("check.crcs", "true"),
    ("fetch.min.bytes", "1"),
    // A member that subscribes a topic before its broker knows it looks again after this time only;
    // the default of five minutes would leave the topic unassigned for as long.
    ("topic.metadata.refresh.interval.ms", "5000"),
    // A partition that gets room again waits for the fetch that is under way without it.
    ("fetch.wait.max.ms", "100"),
    ("fetch.error.backoff.ms", "100"),
    // The default of 1 s stalls a consumer that has emptied its prefetch queue.
    ("fetch.queue.backoff.ms", "5"),
    ("queued.min.messages", "100000"),
    (FETCH_QUEUE, "32768"),
];

/// A property that bounds a queue, with its value.
type Queue = (&'static str, String);

/// Checked properties.
#[derive(Clone)]
pub(super) struct Config {
    bootstrap_servers: String,
    properties: BTreeMap<String, String>,
    /// Over the defaults, under what the user sets.
    memory: Option<ClientMemory>,
}

// Properties hold secrets: none are shown.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .finish_non_exhaustive()
    }
}

impl Config {
    pub(super) fn new(
        bootstrap_servers: &str,
        properties: BTreeMap<String, String>,
    ) -> Result<Self, LogError> {
        if bootstrap_servers.trim().is_empty() {
            return Err(refused("bootstrap servers are empty".to_owned()));
        }
        let reserved = |key: &str| RESERVED.iter().find(|(name, _)| *name == key);
        if let Some((key, reason)) = properties.keys().find_map(|key| reserved(key)) {
            return Err(refused(format!("property `{key}` cannot be set: {reason}")));
        }
        if let Some(key) = properties
            .keys()
            .find(|key| key.ends_with("_cb") || *key == "opaque")
        {
            return Err(refused(format!(
                "property `{key}` cannot be set: it is not a value"
            )));
        }
        let config = Self {
            bootstrap_servers: bootstrap_servers.to_owned(),
            properties,
            memory: None,
        };
        // Every client has the same properties: what is wrong with one is found here.
        config.base(&[], None)?;
        Ok(config)
    }

    /// The same with bounds for the queues of clients, where the user has set none.
    pub(super) fn with_memory(&self, memory: ClientMemory) -> Self {
        Self {
            memory: Some(memory),
            ..self.clone()
        }
    }

    pub(super) fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    fn base(&self, defaults: &[(&str, &str)], queue: Option<Queue>) -> Result<Conf, LogError> {
        let mut conf = Conf::new();
        for (key, value) in self.layers(defaults, queue.as_ref()) {
            set(&mut conf, key, value)?;
        }
        Ok(conf)
    }

    /// All properties, the later ones over the earlier.
    fn layers<'a>(
        &'a self,
        defaults: &'a [(&'a str, &'a str)],
        queue: Option<&'a Queue>,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let fixed = [("bootstrap.servers", self.bootstrap_servers.as_str())];
        let user = self
            .properties
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        COMMON
            .iter()
            .chain(defaults)
            .copied()
            .chain(queue.map(|(key, value)| (*key, value.as_str())))
            .chain(user)
            .chain(fixed)
    }

    /// The bound of a producer's queue.
    fn send_queue(&self) -> Option<Queue> {
        let memory = self.memory?;
        Some((SEND_QUEUE, kibibytes(memory.sending)))
    }

    /// The bound of each partition's queue of a consumer or reader.
    fn fetch_queue(&self) -> Option<Queue> {
        let memory = self.memory?;
        Some((FETCH_QUEUE, kibibytes(memory.fetched_per_partition)))
    }

    /// Properties of a client for administrative requests.
    pub(super) fn admin(&self) -> Result<Conf, LogError> {
        let mut conf = self.base(&[], None)?;
        set(&mut conf, "client.id", "millstream-admin")?;
        Ok(conf)
    }

    /// Properties of a client for requests about one group. It never joins: it subscribes to nothing.
    pub(super) fn group_admin(&self, group: &str) -> Result<Conf, LogError> {
        let mut conf = self.admin()?;
        set(&mut conf, "group.id", group)?;
        set(&mut conf, "enable.auto.commit", "false")?;
        Ok(conf)
    }

    /// Properties of a producer.
    pub(super) fn producer(&self, spec: &ProducerSpec) -> Result<Conf, LogError> {
        let mut conf = self.base(PRODUCER, self.send_queue())?;
        if spec.transactional_id.is_none() && !self.properties.contains_key("linger.ms") {
            // Single commands, each waited for: there is no commit that would send them at once.
            set(&mut conf, "linger.ms", "0")?;
        }
        set(&mut conf, "client.id", &spec.client_id)?;
        set(&mut conf, "enable.idempotence", "true")?;
        set(&mut conf, "acks", "all")?;
        set(&mut conf, "partitioner", "murmur2_random")?;
        if let Some(id) = &spec.transactional_id {
            set(&mut conf, "transactional.id", id)?;
            set(
                &mut conf,
                "transaction.timeout.ms",
                &millis(spec.transaction_timeout),
            )?;
        }
        Ok(conf)
    }

    /// Properties of a group member.
    pub(super) fn consumer(&self, spec: &ConsumerSpec) -> Result<Conf, LogError> {
        let mut conf = self.fetching(&spec.client_id, Isolation::ReadCommitted)?;
        set(&mut conf, "group.id", &spec.group)?;
        // Each event would move librdkafka's own position one past the end, and a rebalance would go
        // on from there: past the next record. `partition` says how a position passes markers instead.
        set(&mut conf, "enable.partition.eof", "false")?;
        if let Some(id) = &spec.group_instance_id {
            set(&mut conf, "group.instance.id", id)?;
        }
        set(
            &mut conf,
            "partition.assignment.strategy",
            "cooperative-sticky",
        )?;
        set(
            &mut conf,
            "session.timeout.ms",
            &millis(spec.session_timeout),
        )?;
        if !self.properties.contains_key("heartbeat.interval.ms") {
            // A heartbeat is how a member learns of a rebalance, of which cooperative ones take
            // two: often enough that a takeover takes a second or two.
            let interval = (spec.session_timeout / 5)
                .clamp(Duration::from_millis(100), Duration::from_secs(1));
            set(&mut conf, "heartbeat.interval.ms", &millis(interval))?;
        }
        Ok(conf)
    }

    /// Properties of a reader outside of any group.
    pub(super) fn reader(&self, isolation: Isolation) -> Result<Conf, LogError> {
        let mut conf = self.fetching("millstream-reader", isolation)?;
        // How a position passes control records and aborted ones at the end of a partition.
        set(&mut conf, "enable.partition.eof", "true")?;
        Ok(conf)
    }

    fn fetching(&self, client_id: &str, isolation: Isolation) -> Result<Conf, LogError> {
        let mut conf = self.base(CONSUMER, self.fetch_queue())?;
        let level = match isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        set(&mut conf, "client.id", client_id)?;
        set(&mut conf, "isolation.level", level)?;

        set(&mut conf, "enable.auto.commit", "false")?;
        set(&mut conf, "enable.auto.offset.store", "false")?;
        set(&mut conf, "auto.offset.reset", "error")?;
        Ok(conf)
    }
}

fn kibibytes(bytes: usize) -> String {
    (bytes / 1024).clamp(1, QUEUE_MAX_KIB).to_string()
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn refused(message: String) -> LogError {
    LogError::Fatal {
        operation: "configure the Kafka client",
        message,
    }
}

fn set(conf: &mut Conf, key: &str, value: &str) -> Result<(), LogError> {
    conf.set(key, value).map_err(|error| match error {
        ConfError::Unknown(key) => refused(format!("`{key}` is no property of librdkafka")),
        ConfError::Invalid { key, message } => refused(format!("property `{key}`: {message}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(properties: &[(&str, &str)]) -> Result<Config, LogError> {
        let properties = properties
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::new("localhost:1", properties.collect())
    }

    fn message(result: Result<Config, LogError>) -> String {
        match result {
            Err(LogError::Fatal { message, .. }) => message,
            Err(other) => panic!("unexpected {other}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn an_unknown_property_is_refused_by_name() {
        assert_eq!(
            message(config(&[("no.such", "1")])),
            "`no.such` is no property of librdkafka"
        );
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_key() {
        let message = message(config(&[("linger.ms", "soon")]));
        assert!(message.starts_with("property `linger.ms`: "), "{message}");
    }

    #[test]
    fn what_exactly_once_rests_on_cannot_be_overridden() {
        for (key, reason) in RESERVED {
            let expected = format!("property `{key}` cannot be set: {reason}");
            assert_eq!(message(config(&[(key, "x")])), expected);
        }
    }

    #[test]
    fn reserved_properties_exist() {
        for (key, _) in RESERVED {
            let mut conf = Conf::new();
            let result = conf.set(key, "1");
            assert!(
                !matches!(result, Err(ConfError::Unknown(_))),
                "`{key}` does not exist"
            );
        }
    }

    #[test]
    fn defaults_can_be_overridden_and_every_client_takes_them() {
        let tls = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanisms", "PLAIN"),
        ];
        let config = config(&[tls[0], tls[1], ("compression.type", "zstd")]).unwrap();
        let producer = ProducerSpec {
            transactional_id: Some("t".into()),
            transaction_timeout: Duration::from_secs(10),
            client_id: "c".into(),
        };
        let consumer = ConsumerSpec {
            group: "g".into(),
            group_instance_id: Some("g-0".into()),
            client_id: "c".into(),
            session_timeout: Duration::from_secs(10),
        };
        config.admin().unwrap();
        config.producer(&producer).unwrap();
        config.consumer(&consumer).unwrap();
        config.reader(Isolation::ReadUncommitted).unwrap();
    }

    #[test]
    fn queues_are_bounded_by_their_share_unless_the_operator_says_otherwise() {
        let memory = ClientMemory {
            fetched_per_partition: 3 << 20,
            sending: 40 << 20,
        };
        let value = |config: &Config, defaults, queue: Option<Queue>, key| {
            let layers = config.layers(defaults, queue.as_ref());
            let of_key = layers.filter(|(name, _)| *name == key);
            of_key.last().map(|(_, value)| value.to_owned())
        };
        let bounds = |config: &Config| {
            (
                value(config, CONSUMER, config.fetch_queue(), FETCH_QUEUE),
                value(config, PRODUCER, config.send_queue(), SEND_QUEUE),
            )
        };
        let plain = config(&[]).unwrap().with_memory(memory);
        assert_eq!(bounds(&plain), (Some("3072".into()), Some("40960".into())));
        let own = config(&[(FETCH_QUEUE, "77"), (SEND_QUEUE, "99999")]).unwrap();
        let own = own.with_memory(memory);
        assert_eq!(bounds(&own), (Some("77".into()), Some("99999".into())));
    }
}
