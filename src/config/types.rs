//! The validated configuration: what the rest of the framework sees.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::{ConfigErrors, Diagnostic, Origin, Sources};
use super::parameters::Parameters;
use super::suggest;

/// A deployment's configuration, complete and checked.
///
/// `docs/configuration.md` has each key's meaning, bounds and default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// `application_id`: the consumer group and the prefix of all internal names.
    pub application_id: String,
    /// `topology`: the name of the packaged topology.
    pub topology: String,
    /// `kafka`: how to reach the cluster.
    pub kafka: KafkaConfig,
    /// `state_dir`: where this process keeps its stores.
    pub state_dir: PathBuf,
    /// `state`: how stores are kept.
    pub state: StateConfig,
    /// `threads`: stream threads of this process; at least 1.
    pub threads: usize,
    /// `commit`: when threads commit.
    pub commit: CommitConfig,
    /// `memory`: the process's budget.
    pub memory: MemoryConfig,
    /// `shutdown`: how long stopping may take.
    pub shutdown: ShutdownConfig,
    /// `task`: how tasks treat their input.
    pub task: TaskConfig,
    /// `pattern`: sources by pattern.
    pub pattern: PatternConfig,
    /// `http`: the control plane's addresses.
    pub http: HttpConfig,
    /// `topics_default`: how missing topics are created.
    pub topics_default: TopicDefaults,
    /// `topics`: by declared name, what differs from what the topology declares.
    pub topics: BTreeMap<String, TopicConfig>,
    /// `sinks`: what turns sinks on, by their names.
    pub sinks: BTreeMap<String, Parameters>,
    /// `parameters`: the topology's own settings.
    pub parameters: Parameters,
    pub(crate) places: Places,
}

/// Where values stand that can only be checked once the topology is known.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) sources: Arc<Sources>,
    pub(crate) topology: Origin,
    pub(crate) topics: Vec<(String, Origin)>,
}

/// `kafka`: how to reach the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// `kafka.bootstrap_servers`: `host:port`, separated by commas. `None` only for a process on
    /// the embedded log.
    pub bootstrap_servers: Option<String>,
    /// `kafka.properties`: librdkafka's properties.
    pub properties: KafkaProperties,
}

/// librdkafka's properties by their own names. Its `Debug` hides secrets.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct KafkaProperties(pub(crate) BTreeMap<String, String>);

impl KafkaProperties {
    /// Iterates over the properties by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Returns a property's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |name: &str| {
            [
                "password",
                "secret",
                "jaas",
                ".pem",
                "oauthbearer.config",
                "username",
            ]
            .iter()
            .any(|part| name.contains(part))
        };
        let shown = self
            .iter()
            .map(|(name, value)| (name, if secret(name) { "***" } else { value }));
        f.debug_map().entries(shown).finish()
    }
}

/// `state`: how stores are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateConfig {
    /// `state.flush_interval`: the longest time until committed state is on disk.
    pub flush_interval: Duration,
}

/// `commit`: when threads commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitConfig {
    /// `commit.interval`: the longest time between commits with something to commit.
    pub interval: Duration,
    /// `commit.min_interval`: the shortest time between commits; never above `interval`.
    pub min_interval: Duration,
}

/// `memory`: the process's budget.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// `memory.max`, in bytes.
    pub max: u64,
}

/// `shutdown`: how long stopping may take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownConfig {
    /// `shutdown.timeout`: until then a process that stops tries to commit.
    pub timeout: Duration,
}

/// `task`: how tasks treat their input.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskConfig {
    /// `task.idle_max`: how long a task waits for a partition without records; `None` for `off`.
    pub idle_max: Option<Duration>,
}

/// `pattern`: sources by pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PatternConfig {
    /// `pattern.refresh_interval`: how often to look for topics that match.
    pub refresh_interval: Duration,
}

/// `http`: the control plane's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpConfig {
    /// `http.listen`: the address to bind.
    pub listen: SocketAddr,
    /// `http.advertised`: `host:port` for others.
    pub advertised: Option<String>,
}

impl HttpConfig {
    /// Returns the address that other processes redirect to: `http.advertised`, else the address
    /// that was `bound`. `None` when that is every address of the machine, which nobody can
    /// connect to.
    #[must_use]
    pub fn advertised_as(&self, bound: SocketAddr) -> Option<String> {
        match &self.advertised {
            Some(advertised) => Some(advertised.clone()),
            None if bound.ip().is_unspecified() => None,
            None => Some(bound.to_string()),
        }
    }
}

/// `topics_default`: how missing topics are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDefaults {
    /// `topics_default.partitions`.
    pub partitions: i32,
    /// `topics_default.replication_factor`.
    pub replication_factor: i32,
}

/// `topics.<declared name>`: what differs from what the topology declares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TopicConfig {
    /// The topic's name in the cluster.
    pub name: Option<String>,
    /// Partitions, when it has to be created.
    pub partitions: Option<i32>,
    /// Replicas, when it has to be created.
    pub replication_factor: Option<i32>,
    /// Configs, when it has to be created; they replace declared ones one by one.
    pub config: BTreeMap<String, String>,
}

impl Config {
    /// Returns the name in the cluster of the topic that the topology declares as `declared`.
    #[must_use]
    pub fn topic_name<'a>(&'a self, declared: &'a str) -> &'a str {
        self.topics
            .get(declared)
            .and_then(|topic| topic.name.as_deref())
            .unwrap_or(declared)
    }

    /// Returns the replication factor for the topic that the topology declares as `declared`.
    #[must_use]
    pub fn replication_factor(&self, declared: &str) -> i32 {
        self.topics
            .get(declared)
            .and_then(|topic| topic.replication_factor)
            .unwrap_or(self.topics_default.replication_factor)
    }

    /// Checks `topology` against the names of the registered topologies.
    ///
    /// # Errors
    /// Points at the value and suggests the nearest name.
    pub fn check_topology(&self, registered: &[&str]) -> Result<(), ConfigErrors> {
        if registered.contains(&self.topology.as_str()) {
            return Ok(());
        }
        let help = suggest::did_you_mean(&self.topology, registered.iter().copied())
            .unwrap_or_else(|| format!("known topologies: {}", registered.join(", ")));
        let message = format!("unknown topology `{}`", self.topology);
        let diagnostic = Diagnostic::new(self.places.topology, message).with_help(Some(help));
        Err(ConfigErrors::new(
            Arc::clone(&self.places.sources),
            vec![diagnostic],
        ))
    }

    /// Checks the names under `sinks` against those that the topology offers.
    ///
    /// # Errors
    /// Points at the first unknown name and suggests the nearest one.
    pub fn check_sinks(&self, offered: &[&str]) -> Result<(), ConfigErrors> {
        let unknown = self
            .sinks
            .iter()
            .find(|(name, _)| !offered.contains(&name.as_str()));
        let Some((name, parameters)) = unknown else {
            return Ok(());
        };
        let help =
            suggest::did_you_mean(name, offered.iter().copied()).unwrap_or_else(|| match offered {
                [] => "it offers none".to_owned(),
                offered => format!("it offers: {}", offered.join(", ")),
            });
        let message = format!("topology `{}` offers no sink `{name}`", self.topology);
        Err(parameters.refuse_with(message, help))
    }

    /// Checks the names under `topics` against those that the topology declares.
    ///
    /// # Errors
    /// Points at each unknown name and suggests the nearest one.
    pub fn check_topics(&self, declared: &[&str]) -> Result<(), ConfigErrors> {
        let unknown = self
            .places
            .topics
            .iter()
            .filter(|(name, _)| !declared.contains(&name.as_str()));
        let diagnostics: Vec<Diagnostic> = unknown
            .map(|(name, origin)| {
                let help = suggest::did_you_mean(name, declared.iter().copied())
                    .unwrap_or_else(|| format!("declared topics: {}", declared.join(", ")));
                let message = format!("topology `{}` declares no topic `{name}`", self.topology);
                Diagnostic::new(*origin, message).with_help(Some(help))
            })
            .collect();
        if diagnostics.is_empty() {
            return Ok(());
        }
        Err(ConfigErrors::new(
            Arc::clone(&self.places.sources),
            diagnostics,
        ))
    }
}
