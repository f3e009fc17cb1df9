//! The shipped configuration: read as strictly as any other, and true to the topology.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use millstream::config::{Config, LogKind};
use millstream::packaged::{BuildEnv, PackagedTopology};
use millstream_flight_leg::{FlightLegParameters, Output, topology};

const SHIPPED: &str = include_str!("../../../config/flight-leg.yaml");

fn parse(sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::parse("flight-leg.yaml", SHIPPED, &sets, &|_| None, LogKind::Kafka)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn the_shipped_configuration_says_the_defaults_and_names_every_topic() {
    let config = parse(&[]);
    assert_eq!(config.topology, topology().name());
    let parameters: FlightLegParameters = config.parameters.read().unwrap();
    assert_eq!(parameters, FlightLegParameters::default());
    let env = BuildEnv::new(config.application_id.clone());
    let packaged = topology().build(&config.parameters, &env).unwrap();
    for topic in packaged.topology.declared_topics() {
        let days = |key: &str| {
            let retention = topic.config.get(key)?.parse::<u64>().ok()?;
            Some(format!("delete, {} days", retention / 86_400_000))
        };
        let kept = days("retention.ms").unwrap_or_else(|| "compact".to_owned());
        let line = SHIPPED.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("#") && words.next() == Some(&topic.name)
        });
        let line = line.unwrap_or_else(|| panic!("{} is not documented", topic.name));
        assert!(line.contains(&kept), "{line}: {kept}");
    }
}

#[test]
fn parameters_are_strict_and_can_be_set() {
    let config = parse(&[
        "parameters.output=combined",
        "parameters.stand_occupancy=45m",
    ]);
    let parameters: FlightLegParameters = config.parameters.read().unwrap();
    assert_eq!(parameters.output, Output::Combined);
    assert_eq!(parameters.stand_occupancy.0.as_secs(), 45 * 60);

    let config = parse(&["parameters.outptu=both"]);
    let error = config.parameters.read::<FlightLegParameters>().unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("outptu") && error.contains("output"),
        "{error}"
    );
}
