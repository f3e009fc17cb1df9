//! The shipped configuration: read as strictly as any other, and no different from the defaults.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use millstream::config::{Config, LogKind};
use millstream::packaged::{BuildEnv, PackagedTopology};
use millstream_account::{AccountParameters, BadEvents, topology};

const SHIPPED: &str = include_str!("../../../config/account.yaml");

fn parse(text: &str, sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::parse("account.yaml", text, &sets, &|_| None, LogKind::Kafka)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_shipped_configuration_says_the_defaults() {
    let shipped = parse(SHIPPED, &[]);
    let smallest = parse(
        "application_id: billing-account\ntopology: account\nkafka: {bootstrap_servers: 'localhost:9092'}\n",
        &[],
    );
    // What follows remembers where it was written.
    let shown = |config: &Config| {
        let text = format!("{config:#?}");
        text.split("\n    parameters:").next().map(str::to_owned)
    };
    assert_eq!(shown(&shipped), shown(&smallest));
    let parameters: AccountParameters = shipped.parameters.read().unwrap();
    assert_eq!(parameters, AccountParameters::default());
}

#[test]
fn the_shipped_configuration_builds_the_topology_it_names() {
    let config = parse(SHIPPED, &[]);
    assert_eq!(config.topology, topology().name());
    let env = BuildEnv::new(config.application_id.clone());
    let packaged = topology().build(&config.parameters, &env).unwrap();
    let declared: Vec<_> = packaged
        .topology
        .declared_topics()
        .iter()
        .map(|topic| topic.name.as_str())
        .collect();
    for name in declared {
        assert!(SHIPPED.contains(name), "{name} is documented in the file");
    }
}

#[test]
fn parameters_are_strict_and_can_be_set() {
    let config = parse(
        SHIPPED,
        &["parameters.command_memory=1h", "parameters.bad_events=fail"],
    );
    let parameters: AccountParameters = config.parameters.read().unwrap();
    assert_eq!(parameters.bad_events, BadEvents::Fail);
    assert_eq!(parameters.command_memory.0.as_secs(), 3600);

    let config = parse(SHIPPED, &["parameters.command_memmory=1h"]);
    let error = config
        .parameters
        .read::<AccountParameters>()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("command_memmory") && error.contains("command_memory"),
        "{error}"
    );
}
