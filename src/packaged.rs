//! The seam between packaged topologies and the program that runs them by name.
//!
//! # Position
//! A topology crate implements [`PackagedTopology`]; a binary hands its topologies to
//! [`cli::main`](crate::cli::main), which finds the one that the configuration names, builds it and
//! serves it. `http` learns from [`AggregateEndpoint`] what it may be asked for beyond stores.
//! # Invariants
//! - Building changes nothing outside: `validate` and `describe` build too.
//! # Failure
//! [`BuildError`]; the process ends with exit code 78 before it has done anything.

use std::fmt;
use std::sync::Arc;

use crate::config::{ConfigErrors, Parameters};
use crate::event_sourcing::{
    Aggregate, AggregateHistory, Command, CommandEnvelope, CommandError, CompletedCommand,
    EventArchive, HistoryReader, ProjectionEndpoint, ReplyHub,
};
use crate::sink::SinkDeclaration;
use crate::topology::{Topology, TopologyErrors};

mod feed;
mod read_model;

pub use feed::{Feed, FeedError, FeedRecord, FeedRequest, FeedSource, FeedTimes, Shift};
pub use read_model::{ReadModel, ReadModelError, ReadModelFilter};

/// A topology that a configuration can name.
///
/// ```
/// use millstream::packaged::{BuildEnv, BuildError, Packaged, PackagedTopology};
/// use millstream::config::Parameters;
/// use millstream::prelude::*;
///
/// struct Shout;
///
/// impl PackagedTopology for Shout {
///     fn name(&self) -> &str {
///         "shout"
///     }
///     fn about(&self) -> &str {
///         "Copies `whispers` to `shouts`, in capitals"
///     }
///     fn build(&self, parameters: &Parameters, _: &BuildEnv) -> Result<Packaged, BuildError> {
///         parameters.read::<()>()?;
///         let mut builder = StreamsBuilder::new();
///         let string = serdes::string();
///         builder
///             .stream("whispers", Consumed::with(string.clone(), string.clone()))
///             .map_values(|text: String| text.to_uppercase())
///             .to("shouts", Produced::with(string.clone(), string));
///         Ok(Packaged::new(builder.build()?))
///     }
/// }
/// ```
pub trait PackagedTopology: Send + Sync {
    /// Returns the name that `topology:` in a configuration chooses it by.
    fn name(&self) -> &str;

    /// Returns what it does, in one line, for `millstream topologies`.
    fn about(&self) -> &str;

    /// Builds the topology.
    ///
    /// # Errors
    /// [`BuildError`]: the parameters do not fit, or the topology has mistakes.
    fn build(&self, parameters: &Parameters, env: &BuildEnv) -> Result<Packaged, BuildError>;

    /// Returns what `millstream feed` can fill the topology's input topics from. Nothing, unless
    /// overridden.
    fn feeds(&self) -> Vec<Box<dyn Feed>> {
        Vec::new()
    }
}

/// What a topology may want to know of the process it is built for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BuildEnv {
    /// The application's id.
    pub application_id: String,
}

impl BuildEnv {
    /// Creates the environment of an application.
    #[must_use]
    pub fn new(application_id: impl Into<String>) -> Self {
        let application_id = application_id.into();
        Self { application_id }
    }
}

/// Why a packaged topology cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The configuration's `parameters` do not fit.
    #[error(transparent)]
    Parameters(#[from] ConfigErrors),
    /// The topology has mistakes.
    #[error(transparent)]
    Topology(#[from] TopologyErrors),
}

/// A topology with what can be asked of it over HTTP beyond its stores.
#[derive(Debug)]
#[non_exhaustive]
pub struct Packaged {
    /// The topology.
    pub topology: Topology,
    /// The aggregates that can be asked for, and take commands where they do.
    pub aggregates: Vec<AggregateEndpoint>,
    /// The read models that can be built anew while they serve.
    pub projections: Vec<ProjectionEndpoint>,
    /// What is listed over HTTP.
    pub read_models: Vec<ReadModel>,
    /// The sinks that a configuration may turn on.
    pub sinks: Vec<SinkDeclaration>,
}

impl Packaged {
    /// Packages a topology without aggregates.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        Self {
            topology,
            aggregates: Vec::new(),
            projections: Vec::new(),
            read_models: Vec::new(),
            sinks: Vec::new(),
        }
    }

    /// Adds a projection, under whose name its rows can be asked for as those of a store, and read models
    /// drawn.
    #[must_use]
    pub fn with_projection(mut self, projection: ProjectionEndpoint) -> Self {
        self.projections.push(projection);
        self
    }

    /// Adds a read model.
    #[must_use]
    pub fn with_read_model(mut self, read_model: ReadModel) -> Self {
        self.read_models.push(read_model);
        self
    }

    /// Adds a sink; it runs where the configuration has a section `sinks.<name>`.
    #[must_use]
    pub fn with_sink(mut self, sink: SinkDeclaration) -> Self {
        self.sinks.push(sink);
        self
    }

    /// Adds an aggregate.
    #[must_use]
    pub fn with_aggregate(mut self, endpoint: AggregateEndpoint) -> Self {
        self.aggregates.push(endpoint);
        self
    }
}

/// Tells the transaction id of a command that starts a process; `None` for any other command.
pub type ProcessOf = fn(&CompletedCommand) -> Option<String>;

/// An aggregate type behind `/aggregates/{type}/{id}` and `/commands/{type}/{id}`.
#[derive(Clone)]
pub struct AggregateEndpoint {
    aggregate_type: String,
    command_topic: Option<String>,
    store: String,
    replies: ReplyHub,
    check: fn(&[u8]) -> Result<(), CommandError>,
    process: ProcessOf,
    history: Option<Arc<dyn HistoryReader>>,
}

impl fmt::Debug for AggregateEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateEndpoint")
            .field("aggregate_type", &self.aggregate_type)
            .field("command_topic", &self.command_topic)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl AggregateEndpoint {
    /// Describes the aggregate `A`: the declared name of its command topic, the store with its
    /// current state by aggregate id, and where its replies are handed out. It takes commands; to be
    /// read it needs [`with_history`](Self::with_history), as
    /// [`EventSourced::endpoint`](crate::event_sourcing::EventSourced::endpoint) does by itself.
    #[must_use]
    pub fn of<A: Aggregate>(
        command_topic: impl Into<String>,
        store: impl Into<String>,
        replies: ReplyHub,
    ) -> Self {
        Self {
            aggregate_type: A::TYPE.to_owned(),
            command_topic: Some(command_topic.into()),
            store: store.into(),
            replies,
            check: |value| {
                let envelope = CommandEnvelope::parse(value)?;
                A::Command::read(&envelope).map(drop)
            },
            process: |_| None,
            history: None,
        }
    }

    /// Lets the aggregates' past be asked for.
    #[must_use]
    pub fn with_history<A: Aggregate>(mut self, history: AggregateHistory<A>) -> Self {
        self.history = Some(Arc::new(history));
        self
    }

    /// Describes an aggregate that takes no commands, such as one that messages of another system come
    /// to: the store with its current state by aggregate id.
    #[must_use]
    pub fn read_only<A: Aggregate>(store: impl Into<String>) -> Self {
        Self {
            command_topic: None,
            ..Self::of::<A>("", store, ReplyHub::new())
        }
    }

    /// Sets how to tell commands that only start something (a transfer, a payment request): once
    /// accepted they are answered 202 with their transaction id.
    #[must_use]
    pub fn with_processes(mut self, process: ProcessOf) -> Self {
        self.process = process;
        self
    }

    /// Returns the aggregate's type.
    #[must_use]
    pub fn aggregate_type(&self) -> &str {
        &self.aggregate_type
    }

    /// Returns the declared name of the command topic; `None` when it takes no commands.
    #[must_use]
    pub fn command_topic(&self) -> Option<&str> {
        self.command_topic.as_deref()
    }

    /// Returns the name of the store with the current state.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Returns the reader of the aggregates' past, where there is one.
    pub(crate) const fn history(&self) -> Option<&Arc<dyn HistoryReader>> {
        self.history.as_ref()
    }

    /// Returns where events are read from that have left the aggregates' history store: to be
    /// [connected](EventArchive::connect) by whoever runs the topology. `None` without a history, and
    /// where the events come back from no topic.
    #[must_use]
    pub fn archive(&self) -> Option<&EventArchive> {
        let archive = self.history.as_ref()?.archive();
        (!archive.topic().is_empty()).then_some(archive)
    }

    /// Returns where replies are handed out.
    #[must_use]
    pub const fn replies(&self) -> &ReplyHub {
        &self.replies
    }

    /// Returns the transaction id of a command that only starts something.
    #[must_use]
    pub fn process_of(&self, command: &CompletedCommand) -> Option<String> {
        (self.process)(command)
    }

    /// Checks that a command can be read: one that cannot is refused before it is sent, so that its
    /// id stays free for the mended one.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn check(&self, command: &CompletedCommand) -> Result<(), CommandError> {
        (self.check)(&command.value)
    }
}
