//! Whole configurations: what they mean, and the golden texts of what is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::keys::{Absent, KEYS, Kind};
use super::{Config, ConfigErrors, DurationValue, LogKind, SizeValue, reference_page};

const MINIMAL: &str =
    "application_id: billing\ntopology: account\nkafka: {bootstrap_servers: \"k:9092\"}\n";

fn parse(text: &str, sets: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let lookup = |name: &str| {
        environment
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    Config::parse("account.yaml", text, &sets, &lookup, LogKind::Kafka)
}

fn valid(text: &str, sets: &[&str], environment: &[(&str, &str)]) -> Config {
    parse(text, sets, environment).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_smallest_configuration_has_every_default() {
    let config = valid(MINIMAL, &[], &[]);
    assert_eq!(config.application_id, "billing");
    assert_eq!(config.topology, "account");
    assert_eq!(config.kafka.bootstrap_servers.as_deref(), Some("k:9092"));
    assert_eq!(config.kafka.properties.iter().count(), 0);
    assert_eq!(config.state_dir, Path::new("./state/billing"));
    assert_eq!(config.state.flush_interval, Duration::from_secs(10));
    assert_eq!(config.threads, 1);
    assert_eq!(config.commit.interval, Duration::from_millis(100));
    assert_eq!(config.commit.min_interval, Duration::from_millis(5));
    assert_eq!(config.memory.max, 512 << 20);
    assert_eq!(config.shutdown.timeout, Duration::from_secs(30));
    assert_eq!(config.task.idle_max, Some(Duration::ZERO));
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.advertised, None);
    assert_eq!(
        (
            config.topics_default.partitions,
            config.topics_default.replication_factor
        ),
        (3, 1)
    );
    assert!(config.topics.is_empty());
    assert_eq!(
        config.topic_name("billing.account.events"),
        "billing.account.events"
    );
}

const FULL: &str = "\
application_id: billing-account   # the group
topology: account
kafka:
  bootstrap_servers: ${KAFKA_BOOTSTRAP_SERVERS:-localhost:9092}
  properties:
    security.protocol: SASL_SSL
    sasl.password: ${PASSWORD}
    linger.ms: 5
    socket.keepalive.enable: true
    ssl.key.password: pa$$word
state_dir: /var/lib/millstream
state: {flush_interval: 1m}
threads: 4
commit:
  interval: 1s
  min_interval: 0ms
memory: {max: 2GiB}
shutdown: {timeout: 1m}
http:
  listen: 0.0.0.0:8080
  advertised: node-1.example:8080
topics_default: {partitions: 12, replication_factor: 3}
topics:
  billing.account.events:
    name: prod.billing.account.events
    partitions: 24
    config:
      retention.ms: -1
      max.message.bytes: 16777216
  billing.account.dlq:
parameters:
  command_memory: 7d
";

#[test]
fn every_key_can_be_given() {
    let config = valid(FULL, &[], &[("PASSWORD", "s3cret")]);
    assert_eq!(
        config.kafka.bootstrap_servers.as_deref(),
        Some("localhost:9092")
    );
    let properties: Vec<(&str, &str)> = config.kafka.properties.iter().collect();
    assert_eq!(
        properties,
        [
            ("linger.ms", "5"),
            ("sasl.password", "s3cret"),
            ("security.protocol", "SASL_SSL"),
            ("socket.keepalive.enable", "true"),
            ("ssl.key.password", "pa$word"),
        ]
    );
    assert_eq!(config.state_dir, Path::new("/var/lib/millstream"));
    assert_eq!(config.state.flush_interval, Duration::from_mins(1));
    assert_eq!(config.threads, 4);
    assert_eq!(config.commit.interval, Duration::from_secs(1));
    assert_eq!(config.commit.min_interval, Duration::ZERO);
    assert_eq!(config.memory.max, 2 << 30);
    assert_eq!(config.shutdown.timeout, Duration::from_mins(1));
    assert_eq!(
        config.http.advertised.as_deref(),
        Some("node-1.example:8080")
    );
    assert_eq!(
        config.topic_name("billing.account.events"),
        "prod.billing.account.events"
    );
    assert_eq!(config.replication_factor("billing.account.events"), 3);
    let events = &config.topics["billing.account.events"];
    assert_eq!(events.partitions, Some(24));
    assert_eq!(events.config["retention.ms"], "-1");
    assert_eq!(events.config["max.message.bytes"], "16777216");
    assert_eq!(
        config.topics["billing.account.dlq"],
        super::TopicConfig::default()
    );
    config
        .check_topics(&["billing.account.events", "billing.account.dlq"])
        .expect("both declared");
}

#[test]
fn secrets_do_not_appear_in_debug_output() {
    let config = valid(FULL, &[], &[("PASSWORD", "s3cret")]);
    let shown = format!("{:?}", config.kafka);
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(!shown.contains("pa$word"), "{shown}");
    assert!(shown.contains("SASL_SSL"), "{shown}");
}

#[test]
fn set_overrides_the_file_and_the_last_one_wins() {
    let sets = [
        "threads=2",
        "threads=3",
        "commit.interval=50ms",
        "task.idle_max=off",
        "kafka.properties.security.protocol=SSL",
        "kafka.bootstrap_servers=a:1,b:2",
        r#"topics."billing.account.events".name=x"#,
        r#"topics."billing.account.events".config.retention.ms=60000"#,
        "parameters.command_memory=1d",
        "parameters.limits.events=5",
    ];
    let config = valid(FULL, &sets, &[("PASSWORD", "")]);
    assert_eq!(config.threads, 3);
    assert_eq!(config.commit.interval, Duration::from_millis(50));
    assert_eq!(config.task.idle_max, None);
    assert_eq!(
        config.kafka.properties.get("security.protocol"),
        Some("SSL")
    );
    assert_eq!(config.kafka.properties.get("sasl.password"), Some(""));
    assert_eq!(config.kafka.bootstrap_servers.as_deref(), Some("a:1,b:2"));
    assert_eq!(config.topic_name("billing.account.events"), "x");
    assert_eq!(
        config.topics["billing.account.events"].config["retention.ms"],
        "60000"
    );
    assert_eq!(config.topics["billing.account.events"].partitions, Some(24));
    let parameters: BTreeMap<String, serde_json::Value> = config.parameters.read().expect("free");
    assert_eq!(parameters["command_memory"], "1d");
    assert_eq!(parameters["limits"]["events"], 5);
}

#[test]
fn a_value_that_set_replaces_needs_no_variable() {
    let text = MINIMAL.replace("\"k:9092\"", "\"${NOT_SET}\"");
    let config = valid(&text, &["kafka.bootstrap_servers=here:9092"], &[]);
    assert_eq!(config.kafka.bootstrap_servers.as_deref(), Some("here:9092"));
    assert!(parse(&text, &[], &[]).is_err());
}

#[test]
fn the_embedded_log_needs_no_brokers() {
    let text = "application_id: a\ntopology: b\n";
    let config = Config::parse("a.yaml", text, &[], &|_| None, LogKind::Embedded).expect("valid");
    assert_eq!(config.kafka.bootstrap_servers, None);
    assert!(Config::parse("a.yaml", text, &[], &|_| None, LogKind::Kafka).is_err());
}

#[test]
fn an_address_that_nobody_can_connect_to_is_not_advertised() {
    let bound = |text: &str| text.parse().expect("an address");
    let http = valid(MINIMAL, &[], &[]).http;
    assert_eq!(
        http.advertised_as(bound("127.0.0.1:4711")).as_deref(),
        Some("127.0.0.1:4711")
    );
    assert_eq!(http.advertised_as(bound("0.0.0.0:4711")), None);
    let http = valid(MINIMAL, &["http.advertised=node:80"], &[]).http;
    assert_eq!(
        http.advertised_as(bound("0.0.0.0:4711")).as_deref(),
        Some("node:80")
    );
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Settings {
    command_memory: DurationValue,
    #[serde(default)]
    event_max: Option<SizeValue>,
    #[serde(default)]
    currencies: Vec<String>,
    #[serde(default)]
    policy: Policy,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Policy {
    #[default]
    Fail,
    DeadLetter,
    Retry {
        times: u8,
    },
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    events: u32,
}

#[test]
fn parameters_become_the_topologys_own_type() {
    let text = format!(
        "{MINIMAL}parameters:\n  command_memory: 7d\n  event_max: ${{MAX:-10MiB}}\n  \
         currencies: [USD, \"EUR\"]\n  policy: {{retry: {{times: 3}}}}\n  limits: {{events: 5}}\n"
    );
    let settings: Settings = valid(&text, &[], &[]).parameters.read().expect("valid");
    assert_eq!(
        settings,
        Settings {
            command_memory: DurationValue(Duration::from_hours(7 * 24)),
            event_max: Some(SizeValue(10 << 20)),
            currencies: vec!["USD".to_owned(), "EUR".to_owned()],
            policy: Policy::Retry { times: 3 },
            limits: Limits { events: 5 },
        }
    );
    let overridden = valid(
        &text,
        &[
            "parameters.policy=dead_letter",
            "parameters.limits.events=6",
        ],
        &[],
    );
    let settings: Settings = overridden.parameters.read().expect("valid");
    assert_eq!(
        (settings.policy, settings.limits.events),
        (Policy::DeadLetter, 6)
    );
}

#[test]
fn every_default_of_the_table_is_a_legal_value() {
    // Reading asserts it; this walks the whole table, `--set` by `--set`.
    for key in KEYS {
        let Absent::Default(text) = key.absent else {
            continue;
        };
        if matches!(key.kind, Kind::FlatMap | Kind::Free) {
            assert_eq!(text, "{}");
            continue;
        }
        valid(MINIMAL, &[&format!("{}={text}", key.path)], &[]);
    }
}

/// One case of `errors.txt`.
struct Case {
    title: String,
    sets: Vec<String>,
    environment: Vec<(String, String)>,
    config: String,
    errors: String,
}

fn cases(golden: &str) -> Vec<Case> {
    golden
        .split("=== ")
        .skip(1)
        .map(|case| {
            let (head, rest) = case.split_once("--- config\n").expect("a config");
            let (config, errors) = rest.split_once("--- errors\n").expect("errors");
            let mut lines = head.lines();
            let title = lines.next().expect("a title").to_owned();
            let (mut sets, mut environment) = (Vec::new(), Vec::new());
            for line in lines {
                if let Some(set) = line.strip_prefix("set: ") {
                    sets.push(set.to_owned());
                } else if let Some((name, value)) = line
                    .strip_prefix("env: ")
                    .and_then(|pair| pair.split_once('='))
                {
                    environment.push((name.to_owned(), value.to_owned()));
                }
            }
            let (config, errors) = (config.to_owned(), errors.trim_end().to_owned());
            Case {
                title,
                sets,
                environment,
                config,
                errors,
            }
        })
        .collect()
}

/// Runs a case as the daemon does: the configuration, then what only the topology knows.
fn report(case: &Case) -> String {
    let lookup = |name: &str| {
        case.environment
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let parsed = Config::parse(
        "account.yaml",
        &case.config,
        &case.sets,
        &lookup,
        LogKind::Kafka,
    );
    let config = match parsed {
        Ok(config) => config,
        Err(errors) => return errors.to_string(),
    };
    let late = [
        config.check_topology(&["account", "flight-leg"]).err(),
        config
            .check_topics(&["billing.account.events", "billing.account.commands"])
            .err(),
        config.parameters.read::<Settings>().err(),
    ];
    let late = late.into_iter().flatten().reduce(ConfigErrors::and);
    late.map_or_else(|| "no error".to_owned(), |errors| errors.to_string())
}

#[test]
fn every_mistake_is_shown_with_its_place_and_its_mending() {
    let golden = include_str!("tests/errors.txt");
    let cases = cases(golden);
    assert!(cases.len() > 40, "the golden file was not read");
    let mut rewritten = golden.split("=== ").next().unwrap_or_default().to_owned();
    let mut different = Vec::new();
    for case in &cases {
        let found = report(case);
        if found != case.errors {
            different.push(format!(
                "{}\n--- expected\n{}\n--- found\n{found}",
                case.title, case.errors
            ));
        }
        let sets: String = case
            .sets
            .iter()
            .map(|set| format!("set: {set}\n"))
            .collect();
        let environment: String = case
            .environment
            .iter()
            .map(|(name, value)| format!("env: {name}={value}\n"))
            .collect();
        let (title, config) = (&case.title, &case.config);
        rewritten.push_str(&format!(
            "=== {title}\n{sets}{environment}--- config\n{config}--- errors\n{found}\n\n"
        ));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/errors.txt");
        std::fs::write(path, rewritten.trim_end().to_owned() + "\n")
            .expect("a writable source tree");
        return;
    }
    assert!(
        different.is_empty(),
        "{}\n\nif the new texts are right:\n  \
         UPDATE_GOLDEN=1 cargo test --release -p millstream --lib config::tests",
        different.join("\n\n")
    );
}

#[test]
fn the_reference_page_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = reference_page();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, page).expect("a writable source tree");
        return;
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/configuration.md differs from the table of keys; write it again with\n  \
         UPDATE_GOLDEN=1 cargo test --release -p millstream --lib config::tests"
    );
}

#[test]
fn the_example_of_the_reference_page_is_valid() {
    let page = reference_page();
    let example = page
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    valid(example.expect("an example"), &[], &[]);
}

#[test]
fn arbitrary_text_never_panics() {
    use proptest::prelude::*;
    let pieces = prop::sample::select(vec![
        "application_id",
        "topology",
        "kafka",
        "topics",
        ":",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "$",
        "${",
        "${A:-",
        "}",
        "&a",
        "*a",
        "!t",
        "|",
        ">",
        "#",
        "~",
        "ü",
        "\t",
        "1",
        "100ms",
        ",",
        "---",
        "...",
        "%",
        "?",
        "<<",
    ]);
    let text = prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat());
    let set = prop::option::of("[a-z.\"=$ü]{0,20}");
    proptest!(|(text in text, set in set)| {
        let sets: Vec<String> = set.into_iter().collect();
        if let Err(errors) = Config::parse("a.yaml", &text, &sets, &|_| None, LogKind::Kafka) {
            prop_assert!(errors.to_string().starts_with("error: "));
        }
    });
}
