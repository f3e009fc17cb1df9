//! From the raw tree to the validated configuration: shape first, then every value, then what
//! holds between values. All mistakes of all three are reported together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::{ConfigErrors, Diagnostic, Origin, Sources};
use super::keys::{self, Absent, Kind, Place};
use super::parameters::Parameters;
use super::tree::{Entry, Node, Scalar, Style, Value};
use super::types::{
    CommitConfig, Config, HttpConfig, KafkaConfig, KafkaProperties, MemoryConfig, PatternConfig,
    Places, ShutdownConfig, StateConfig, TaskConfig, TopicConfig, TopicDefaults,
};
use super::units::{self, Problem};
use super::{LogKind, values};

/// Turns the tree into a configuration. `diagnostics` has what was found before.
pub(crate) fn read(
    root: &Node,
    log: LogKind,
    sources: Arc<Sources>,
    diagnostics: Vec<Diagnostic>,
) -> Result<Config, ConfigErrors> {
    let mut reader = Reader { root, diagnostics };
    reader.shape(root, &mut Vec::new());
    let config = reader.config(log, &sources);
    match config {
        Some(config) if reader.diagnostics.is_empty() => Ok(config),
        // Every `None` above has left its reason behind.
        Some(_) | None => Err(ConfigErrors::new(sources, reader.diagnostics)),
    }
}

struct Reader<'a> {
    root: &'a Node,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    /// Reports unknown keys, and values where sections should be or the other way round.
    fn shape(&mut self, node: &'a Node, path: &mut Vec<&'a str>) {
        let place = keys::place(path);
        match place {
            Place::Key(Kind::Free) => self.expect_mapping(node, path),
            Place::Key(Kind::FlatMap) => self.flat_map_shape(node, path),
            Place::Key(_) => match &node.value {
                Value::Scalar(_) => {}
                Value::List(_) | Value::Mapping(_) => {
                    let message = format!(
                        "`{}`: expected one value, found {}",
                        path.join("."),
                        node.found()
                    );
                    self.diagnostics.push(Diagnostic::new(node.origin, message));
                }
            },
            Place::AnyName => self.children(node, path, None),
            Place::Section(known) => self.children(node, path, Some(&known)),
            Place::Unknown => {}
        }
    }

    fn children(&mut self, node: &'a Node, path: &mut Vec<&'a str>, known: Option<&[&str]>) {
        self.expect_mapping(node, path);
        for entry in node.entries().unwrap_or(&[]) {
            match known {
                Some(known) if !known.contains(&entry.key.as_str()) => {
                    self.unknown(entry, path, known);
                }
                Some(_) | None => {
                    path.push(&entry.key);
                    self.shape(&entry.value, path);
                    path.pop();
                }
            }
        }
    }

    fn unknown(&mut self, entry: &Entry, path: &[&str], known: &[&str]) {
        let section = path.join(".");
        let message = if section.is_empty() {
            format!("unknown key `{}`", entry.key)
        } else {
            format!("unknown key `{}` in `{section}`", entry.key)
        };
        let from_set = matches!(entry.key_origin, Origin::Set { .. });
        // `--set topics.billing.account.events.name=x`: the name was cut at its dots.
        let help = if from_set && path.first() == Some(&"topics") {
            Some("a topic's name with dots goes in quotes: `topics.\"a.b\".name=x`".to_owned())
        } else {
            keys::help_for_unknown(&section, &entry.key, known)
        };
        self.diagnostics
            .push(Diagnostic::new(entry.key_origin, message).with_help(help));
    }

    fn expect_mapping(&mut self, node: &Node, path: &[&str]) {
        if node.entries().is_none() {
            let message = format!(
                "`{}`: expected a mapping, found {}",
                path.join("."),
                node.found()
            );
            self.diagnostics.push(Diagnostic::new(node.origin, message));
        }
    }

    fn flat_map_shape(&mut self, node: &Node, path: &[&str]) {
        self.expect_mapping(node, path);
        let section = path.join(".");
        for entry in node.entries().unwrap_or(&[]) {
            let found = match &entry.value.value {
                Value::Scalar(_) if entry.value.is_null() => "nothing",
                Value::Scalar(_) => continue,
                Value::List(_) => "a list",
                Value::Mapping(_) => "a mapping",
            };
            let message = format!(
                "`{}` in `{section}`: expected one value, found {found}",
                entry.key
            );
            let help = match entry.value.entries().and_then(<[Entry]>::first) {
                Some(child) => Some(format!(
                    "keys keep their dots: `{}.{}: …`",
                    entry.key, child.key
                )),
                None if found == "nothing" => Some("write `\"\"` for the empty string".to_owned()),
                None => None,
            };
            self.diagnostics
                .push(Diagnostic::new(entry.value.origin, message).with_help(help));
        }
    }

    /// Reads the value at `path`, or what stands for it when it is absent.
    ///
    /// `None` has its reason in the diagnostics, save for a derived key that is absent.
    fn value<T>(&mut self, path: &str, parse: impl Fn(&Scalar) -> Result<T, Problem>) -> Option<T> {
        let key = keys::key(path);
        if let Some(node) = self.find(path) {
            return self.parse_value(path, node, parse);
        }
        match key.absent {
            Absent::Derived(_) => None,
            Absent::Default(text) => {
                let default = Scalar {
                    text: text.to_owned(),
                    style: Style::Untyped,
                };
                let value = parse(&default);
                assert!(
                    value.is_ok(),
                    "the default of `{path}` is not a legal value"
                );
                value.ok()
            }
            Absent::Required(example) => {
                self.missing(path, example);
                None
            }
        }
    }

    fn parse_value<T>(
        &mut self,
        path: &str,
        node: &Node,
        parse: impl Fn(&Scalar) -> Result<T, Problem>,
    ) -> Option<T> {
        // Anything but a scalar has been reported as a wrong shape.
        let Value::Scalar(scalar) = &node.value else {
            return None;
        };
        if scalar.style == Style::Unresolved {
            return None;
        }
        match parse(scalar) {
            Ok(value) => Some(value),
            Err(problem) => {
                let message = format!("`{path}`: {}", problem.message);
                let diagnostic = Diagnostic::new(node.origin, message).with_help(problem.help);
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }

    fn missing(&mut self, path: &str, example: &str) {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        // Beside a section of the wrong shape this would be a second report of one mistake.
        let origin = match self.find_entry(section) {
            Some(entry) if entry.value.entries().is_none() => return,
            Some(entry) => entry.key_origin,
            None => self.root.origin,
        };
        // Nor is a slip of the fingers two mistakes.
        let near = format!("did you mean `{name}`?");
        let elsewhere = format!("did you mean `{path}`?");
        let typo = |diagnostic: &Diagnostic| {
            diagnostic.help.as_ref() == Some(&elsewhere)
                || (diagnostic.help.as_ref() == Some(&near)
                    && (section.is_empty()
                        || diagnostic.message.ends_with(&format!("in `{section}`"))))
        };
        if self.diagnostics.iter().any(typo) {
            return;
        }
        let example = match self.find_entry(section) {
            Some(_) => format!("add `{name}: {example}` to `{section}`"),
            None if section.is_empty() => format!("add `{name}: {example}`"),
            None => format!("add `{section}: {{{name}: \"{example}\"}}`"),
        };
        let diagnostic = Diagnostic::new(origin, format!("`{path}` is missing"));
        self.diagnostics.push(diagnostic.with_help(Some(example)));
    }

    fn find_entry(&self, path: &str) -> Option<&'a Entry> {
        let mut found: Option<&'a Entry> = None;
        for segment in path.split('.') {
            let node = found.map_or(self.root, |entry| &entry.value);
            found = Some(node.entry(segment)?);
        }
        found
    }

    fn find(&self, path: &str) -> Option<&'a Node> {
        self.find_entry(path).map(|entry| &entry.value)
    }

    fn config(&mut self, log: LogKind, sources: &Arc<Sources>) -> Option<Config> {
        // Every value is read before the first `?`, so that all mistakes are found.
        let application_id = self.value("application_id", values::application_id);
        let topology = self.value("topology", values::string);
        let kafka = self.kafka(log);
        let state_dir = self.value("state_dir", values::string);
        let flush_interval = self.value("state.flush_interval", |scalar| {
            duration_within(scalar, Duration::from_millis(100), Duration::from_hours(1))
        });
        let threads = self.value("threads", |scalar| {
            values::integer(scalar, 1, keys::THREADS_MAX)
        });
        let commit = self.commit();
        let memory = self.value("memory.max", memory);
        let shutdown = self.value("shutdown.timeout", |scalar| {
            duration_within(scalar, Duration::from_secs(1), Duration::from_hours(1))
        });
        let idle_max = self.value("task.idle_max", idle_max);
        let refresh = self.value("pattern.refresh_interval", |scalar| {
            duration_within(scalar, Duration::from_millis(100), Duration::from_hours(1))
        });
        let listen = self.value("http.listen", values::listen);
        let advertised = self.value("http.advertised", values::advertised);
        let partitions = self.value("topics_default.partitions", partitions);
        let replicas = self.value("topics_default.replication_factor", replication_factor);
        let topics = self.topics();
        let parameters = self.find_entry("parameters");
        let sinks = self.find("sinks").and_then(Node::entries).unwrap_or(&[]);
        let application_id = application_id?;
        Some(Config {
            state_dir: state_dir.map_or_else(
                || PathBuf::from("./state").join(&application_id),
                PathBuf::from,
            ),
            application_id,
            topology: topology?,
            kafka: kafka?,
            state: StateConfig {
                flush_interval: flush_interval?,
            },
            threads: usize::try_from(threads?).ok()?,
            commit: commit?,
            memory: MemoryConfig { max: memory? },
            shutdown: ShutdownConfig { timeout: shutdown? },
            task: TaskConfig {
                idle_max: idle_max?,
            },
            pattern: PatternConfig {
                refresh_interval: refresh?,
            },
            http: HttpConfig {
                listen: listen?,
                advertised,
            },
            topics_default: TopicDefaults {
                partitions: partitions?,
                replication_factor: replicas?,
            },
            topics: topics
                .iter()
                .map(|(name, _, topic)| (name.clone(), topic.clone()))
                .collect(),
            sinks: sinks
                .iter()
                .map(|entry| {
                    let parameters =
                        Parameters::named(format!("sinks.{}", entry.key), entry, sources);
                    (entry.key.clone(), parameters)
                })
                .collect(),
            parameters: Parameters::new(parameters, Arc::clone(sources)),
            places: Places {
                sources: Arc::clone(sources),
                topology: self.find("topology")?.origin,
                topics: topics
                    .into_iter()
                    .map(|(name, origin, _)| (name, origin))
                    .collect(),
            },
        })
    }

    fn kafka(&mut self, log: LogKind) -> Option<KafkaConfig> {
        let absent = self.find("kafka.bootstrap_servers").is_none();
        let bootstrap_servers = match log {
            LogKind::Embedded if absent => None,
            LogKind::Embedded | LogKind::Kafka => {
                Some(self.value("kafka.bootstrap_servers", values::bootstrap_servers))
            }
        };
        let entries = self
            .find("kafka.properties")
            .and_then(Node::entries)
            .unwrap_or(&[]);
        for entry in entries {
            let reserved = keys::RESERVED_PROPERTIES
                .iter()
                .find(|(name, _)| *name == entry.key);
            if let Some((name, instead)) = reserved {
                let message = format!("`{name}` in `kafka.properties` is set by millstream");
                let diagnostic = Diagnostic::new(entry.key_origin, message);
                self.diagnostics.push(diagnostic.with_help(Some(*instead)));
            }
        }
        let properties = KafkaProperties(flat_map(entries));
        match bootstrap_servers {
            None => Some(KafkaConfig {
                bootstrap_servers: None,
                properties,
            }),
            Some(servers) => Some(KafkaConfig {
                bootstrap_servers: Some(servers?),
                properties,
            }),
        }
    }

    fn commit(&mut self) -> Option<CommitConfig> {
        let longest = Duration::from_millis(keys::COMMIT_INTERVAL_MAX_MS);
        let interval = self.value("commit.interval", |scalar| {
            duration_within(scalar, Duration::from_millis(1), longest)
        });
        let min_interval = self.value("commit.min_interval", |scalar| {
            duration_within(scalar, Duration::ZERO, longest)
        });
        let (interval, min_interval) = (interval?, min_interval?);
        if min_interval > interval {
            let at = self
                .find("commit.min_interval")
                .or_else(|| self.find("commit.interval"));
            let (low, high) = (
                units::duration_text(min_interval),
                units::duration_text(interval),
            );
            let default = match self.find("commit.min_interval") {
                Some(_) => "",
                None => ", its default",
            };
            let message = format!(
                "`commit.min_interval` ({low}{default}) is above `commit.interval` ({high})"
            );
            let origin = at.map_or(self.root.origin, |node| node.origin);
            let help = format!("set `commit.min_interval` to at most `{high}`");
            self.diagnostics
                .push(Diagnostic::new(origin, message).with_help(Some(help)));
        }
        Some(CommitConfig {
            interval,
            min_interval,
        })
    }

    fn topics(&mut self) -> Vec<(String, Origin, TopicConfig)> {
        let entries = self.find("topics").and_then(Node::entries).unwrap_or(&[]);
        entries
            .iter()
            .map(|entry| {
                (
                    entry.key.clone(),
                    entry.key_origin,
                    self.topic(&entry.key, &entry.value),
                )
            })
            .collect()
    }

    fn topic(&mut self, declared: &str, node: &Node) -> TopicConfig {
        let path = |name: &str| format!("topics.{declared}.{name}");
        let child = |name: &str| node.entry(name).map(|entry| &entry.value);
        TopicConfig {
            name: child("name")
                .and_then(|node| self.parse_value(&path("name"), node, values::topic_name)),
            partitions: child("partitions")
                .and_then(|node| self.parse_value(&path("partitions"), node, partitions)),
            replication_factor: child("replication_factor").and_then(|node| {
                self.parse_value(&path("replication_factor"), node, replication_factor)
            }),
            config: flat_map(child("config").and_then(Node::entries).unwrap_or(&[])),
        }
    }
}

fn flat_map(entries: &[Entry]) -> BTreeMap<String, String> {
    entries
        .iter()
        .filter_map(|entry| match &entry.value.value {
            Value::Scalar(scalar) => Some((entry.key.clone(), scalar.text.clone())),
            Value::List(_) | Value::Mapping(_) => None,
        })
        .collect()
}

fn duration_within(scalar: &Scalar, min: Duration, max: Duration) -> Result<Duration, Problem> {
    let duration = units::parse_duration(&scalar.text)?;
    if duration < min || duration > max {
        let (min, max) = (units::duration_text(min), units::duration_text(max));
        let found = &scalar.text;
        return Err(Problem::new(format!(
            "must be between {min} and {max}, found {found}"
        )));
    }
    Ok(duration)
}

fn idle_max(scalar: &Scalar) -> Result<Option<Duration>, Problem> {
    if scalar.text == "off" {
        return Ok(None);
    }
    duration_within(scalar, Duration::ZERO, Duration::from_hours(1)).map(Some)
}

fn memory(scalar: &Scalar) -> Result<u64, Problem> {
    let bytes = units::parse_size(&scalar.text)?;
    if bytes < keys::MEMORY_MIN_BYTES {
        let least = units::size_text(keys::MEMORY_MIN_BYTES);
        return Err(Problem::new(format!(
            "must be at least {least}, found {}",
            scalar.text
        )));
    }
    Ok(bytes)
}

fn partitions(scalar: &Scalar) -> Result<i32, Problem> {
    values::integer(scalar, 1, keys::PARTITIONS_MAX).and_then(narrow)
}

fn replication_factor(scalar: &Scalar) -> Result<i32, Problem> {
    values::integer(scalar, 1, keys::REPLICATION_FACTOR_MAX).and_then(narrow)
}

fn narrow(number: u64) -> Result<i32, Problem> {
    i32::try_from(number).map_err(|_| Problem::new("is too large"))
}
