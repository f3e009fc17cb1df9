//! What a running process is asked, and where a key is.

use std::fmt;
use std::sync::Arc;

use super::owners::{Owner, Owners};
use super::problem::Problem;
use super::producer::CommandProducer;
use crate::format::partitioner::partition_for_key;
use crate::log::{Log, TopicName, TopicPartition};
use crate::query::QueryRegistry;
use crate::runtime::{App, Health, HealthHandle, ResolvedTopology};
use crate::sink::SinkStatus;
use crate::topology::{TaskId, TopicRef};

/// A process at work, as HTTP sees it.
pub struct Serving {
    health: HealthHandle,
    queries: Arc<QueryRegistry>,
    topology: Arc<ResolvedTopology>,
    owners: Owners,
    commands: CommandProducer,
    sinks: Vec<SinkStatus>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("owners", &self.owners)
            .finish_non_exhaustive()
    }
}

/// Where a key's commands go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandPlace {
    pub(super) topic: TopicName,
    pub(super) task: TaskId,
}

impl Serving {
    /// Serves `app`, a process of the group `application_id` whose state directory says
    /// `process_id`.
    #[must_use]
    pub fn new<L: Log>(
        app: &App<L>,
        application_id: &str,
        process_id: &str,
        commands: CommandProducer,
    ) -> Self {
        Self {
            health: app.health_handle(),
            queries: Arc::clone(app.queries()),
            topology: Arc::clone(app.topology()),
            owners: Owners::new(app.log(), application_id, process_id),
            commands,
            sinks: Vec::new(),
        }
    }

    /// Shows these sinks.
    #[must_use]
    pub fn with_sinks(mut self, sinks: Vec<SinkStatus>) -> Self {
        self.sinks = sinks;
        self
    }

    pub(super) fn sinks(&self) -> &[SinkStatus] {
        &self.sinks
    }

    pub(super) fn health(&self) -> Health {
        self.health.health()
    }

    pub(super) const fn queries(&self) -> &Arc<QueryRegistry> {
        &self.queries
    }

    pub(super) const fn commands(&self) -> &CommandProducer {
        &self.commands
    }

    /// Returns the partition of a declared command topic that `key` goes to, and the task that
    /// reads it.
    pub(super) fn command_place(&self, declared: &str, key: &str) -> Option<CommandPlace> {
        let reference = TopicRef::Declared(declared.to_owned());
        let topic = self.topology.topics.get(&reference)?;
        let subs = self.topology.topology.sub_topologies();
        let reader = subs
            .iter()
            .find(|sub| sub.sources.iter().any(|source| source.topic == reference))?;
        let partition = partition_for_key(key.as_bytes(), topic.partitions);
        Some(CommandPlace {
            topic: TopicName::clone(&topic.name),
            task: TaskId {
                sub_topology: reader.id,
                partition,
            },
        })
    }

    /// Says why a task is not served here: by a redirect when another process owns it.
    pub(super) async fn not_here(&self, task: TaskId, path_and_query: &str) -> Problem {
        if let Some(state) = self.health().tasks.get(&task) {
            return Problem::not_ready(format!("task {task} is {}", state.label()));
        }
        let Some(sub) = self.topology.sub_topology(task.sub_topology) else {
            return Problem::internal(format!("task {task} has no sub-topology"));
        };
        // Members own partitions of the topic that they subscribe to; the task's other inputs follow.
        let partition = TopicPartition::new(TopicName::clone(&sub.topics.driver), task.partition);
        match self.owners.owner_of(&partition).await {
            Ok(Owner::At(address)) => Problem::elsewhere(&address, path_and_query),
            Ok(Owner::Here) => Problem::not_ready(format!("task {task} is not running yet")),
            Ok(Owner::Nobody) => Problem::not_ready(format!("no process owns task {task} yet")),
            Ok(Owner::Unreachable(client_id)) => Problem::not_ready(format!(
                "member `{client_id}` owns task {task} and advertises no address: set \
                 `http.advertised` there"
            )),
            Err(error) => Problem::not_ready(format!("cannot ask who owns task {task}: {error}")),
        }
    }
}
