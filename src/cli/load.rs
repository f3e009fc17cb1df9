//! From a deployment on the command line to a checked configuration and a built topology.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::outcome::Exit;
use super::{Deployment, ExitCode};
use crate::config::Config;
use crate::event_sourcing::ProjectionEndpoint;
use crate::packaged::{
    AggregateEndpoint, BuildEnv, BuildError, Packaged, PackagedTopology, ReadModel,
};
use crate::runtime::{RuntimeConfig, TopicOverride};
use crate::sink::{ConfiguredSink, SinkDeclaration};
use crate::state::Layout;
use crate::topology::Topology;

/// A deployment that can be run.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) topology: Arc<Topology>,
    pub(super) aggregates: Vec<AggregateEndpoint>,
    pub(super) projections: Vec<ProjectionEndpoint>,
    pub(super) read_models: Vec<ReadModel>,
    /// Those that the configuration turns on.
    pub(super) sinks: Vec<ConfiguredSink>,
}

/// Reads the configuration and builds its topology; changes nothing.
pub(super) fn load(
    deployment: &Deployment,
    topologies: &[&dyn PackagedTopology],
) -> Result<Loaded, Exit> {
    let file = deployment.config.display().to_string();
    let text = std::fs::read_to_string(&deployment.config).map_err(|error| {
        let message = format!("error: cannot read the configuration `{file}`: {error}");
        Exit::new(ExitCode::Config, message)
    })?;
    let environment = |name: &str| std::env::var(name).ok();
    let config = Config::parse(
        &file,
        &text,
        &deployment.sets,
        &environment,
        deployment.log_kind(),
    )?;
    let names: Vec<&str> = topologies.iter().map(|topology| topology.name()).collect();
    config.check_topology(&names)?;
    let chosen = topologies
        .iter()
        .find(|topology| topology.name() == config.topology);
    let chosen = chosen.ok_or_else(|| Exit::new(ExitCode::Bug, "the topology is not there"))?;
    let built = chosen.build(&config.parameters, &BuildEnv::new(&config.application_id));
    let packaged = built.map_err(|error| match error {
        BuildError::Parameters(errors) => errors.into(),
        BuildError::Topology(errors) => Exit::new(
            ExitCode::Bug,
            format!(
                "error: topology `{}` cannot be built: {errors}",
                config.topology
            ),
        ),
    })?;
    let declared: Vec<&str> = packaged
        .topology
        .declared_topics()
        .iter()
        .map(|topic| topic.name.as_str())
        .collect();
    config.check_topics(&declared)?;
    check_endpoints(&packaged.topology, &packaged.aggregates)?;
    check_read_models(&packaged)?;
    let sinks = make_sinks(&config, &packaged, &declared)?;
    Ok(Loaded {
        config,
        topology: Arc::new(packaged.topology),
        aggregates: packaged.aggregates,
        projections: packaged.projections,
        read_models: packaged.read_models,
        sinks,
    })
}

/// Makes the sinks that the configuration turns on.
fn make_sinks(
    config: &Config,
    packaged: &Packaged,
    declared: &[&str],
) -> Result<Vec<ConfiguredSink>, Exit> {
    let offered: Vec<&str> = packaged.sinks.iter().map(SinkDeclaration::name).collect();
    config.check_sinks(&offered)?;
    let mut sinks = Vec::new();
    for declaration in &packaged.sinks {
        let Some(parameters) = config.sinks.get(declaration.name()) else {
            continue;
        };
        let made = declaration.make(parameters)?;
        let topics = made.sink.topics();
        if let Some(topic) = topics
            .iter()
            .find(|topic| !declared.contains(&topic.as_str()))
        {
            let name = declaration.name();
            let message = format!(
                "error: sink `{name}` reads topic `{topic}`, which the topology does not declare"
            );
            return Err(Exit::new(ExitCode::Bug, message));
        }
        sinks.push(made);
    }
    Ok(sinks)
}

/// An endpoint that names what is not there would answer every request with an error.
fn check_endpoints(topology: &Topology, aggregates: &[AggregateEndpoint]) -> Result<(), Exit> {
    for endpoint in aggregates {
        let (store, topic) = (endpoint.store(), endpoint.command_topic());
        let mut subs = topology.sub_topologies().iter();
        let has_store = subs.any(|sub| sub.stores.iter().any(|spec| spec.name == store));
        let has_topic = topic.is_none_or(|topic| {
            let mut declared = topology.declared_topics().iter();
            declared.any(|known| known.name == topic)
        });
        if !has_store || !has_topic {
            let message = format!(
                "error: aggregate `{}` names store `{store}` and command topic `{}`, which \
                 the topology does not have both",
                endpoint.aggregate_type(),
                topic.unwrap_or_default()
            );
            return Err(Exit::new(ExitCode::Bug, message));
        }
    }
    Ok(())
}

/// As an endpoint: a read model of a store that is not there could only fail.
fn check_read_models(packaged: &Packaged) -> Result<(), Exit> {
    let (topology, models) = (&packaged.topology, &packaged.read_models);
    ReadModel::check(models).map_err(|error| Exit::because(ExitCode::Bug, &error))?;
    for model in models {
        let mut projections = packaged.projections.iter();
        if projections.any(|projection| projection.name() == model.store()) {
            continue;
        }
        let mut stores = topology.sub_topologies().iter().flat_map(|sub| &sub.stores);
        // Pages go by keys; windows, sessions and versions do not lie by them alone.
        let by_key = |layout| matches!(layout, Layout::KeyValue | Layout::Expiring(_));
        if !stores.any(|spec| spec.name == model.store() && by_key(spec.layout)) {
            let message = format!(
                "error: read model `{}` names `{}`, which is no key-value store of the topology",
                model.path(),
                model.store()
            );
            return Err(Exit::new(ExitCode::Bug, message));
        }
    }
    Ok(())
}

/// Returns what the runtime is told.
pub(super) fn runtime_config(config: &Config, advertised: Option<String>) -> RuntimeConfig {
    let topics: BTreeMap<String, TopicOverride> = config
        .topics
        .iter()
        .map(|(declared, topic)| {
            let of_topic = TopicOverride {
                name: topic.name.clone(),
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                config: topic.config.clone(),
            };
            (declared.clone(), of_topic)
        })
        .collect();
    RuntimeConfig {
        threads: config.threads,
        commit_interval: config.commit.interval,
        commit_min_interval: config.commit.min_interval,
        flush_interval: config.state.flush_interval,
        memory_max: config.memory.max,
        shutdown_timeout: config.shutdown.timeout,
        task_idle_max: config.task.idle_max,
        pattern_refresh_interval: config.pattern.refresh_interval,
        default_partitions: config.topics_default.partitions,
        default_replication_factor: config.topics_default.replication_factor,
        topics,
        advertised,
        ..RuntimeConfig::new(&config.application_id, &config.state_dir)
    }
}
