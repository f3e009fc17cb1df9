//! The server: routes, what every request goes through, and the process's phases.
//!
//! ```text
//! waiting (for the log) ─▶ serving ─▶ draining ─▶ stopped
//!    └──────────────────────────────────────────────▲
//! ```
//! It listens from the start, so that a process that waits for its broker is alive and says why it
//! is not ready.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, Path, Request, State};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::problem::Problem;
use super::routes::{READ_MODEL, ROUTES};
use super::serving::Serving;
use super::{commands, queries, routes};
use crate::clock::Clock;
use crate::event_sourcing::ProjectionEndpoint;
use crate::metrics::Metrics;
use crate::packaged::{AggregateEndpoint, ReadModel};
use crate::topology::Topology;

/// The label of a path without a route.
const NO_ROUTE: &str = "none";

/// What a server is made of.
#[derive(Debug)]
pub struct HttpSpec {
    /// The process's metrics.
    pub metrics: Metrics,
    /// The topology, for `/topology`.
    pub topology: Arc<Topology>,
    /// The aggregates that take commands.
    pub aggregates: Vec<AggregateEndpoint>,
    /// What is listed at paths of its own; [`ReadModel::check`] holds.
    pub read_models: Vec<ReadModel>,
    /// The read models that can be built anew.
    pub projections: Vec<ProjectionEndpoint>,
    /// The time that a command without a timestamp gets.
    pub clock: Arc<dyn Clock>,
}

/// Where the process stands, as far as requests are concerned.
#[derive(Debug, Clone)]
enum Phase {
    Waiting(Arc<str>),
    Serving(Arc<Serving>),
    /// Reads go on while they can; commands are not taken.
    Draining(Arc<Serving>),
    Stopped,
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) metrics: Metrics,
    pub(super) topology: Arc<Topology>,
    pub(super) clock: Arc<dyn Clock>,
    /// Bodies in memory, in KiB.
    pub(super) uploads: Arc<Semaphore>,
    pub(super) read_models: Vec<Arc<ReadModel>>,
    aggregates: Vec<AggregateEndpoint>,
    projections: Vec<ProjectionEndpoint>,
    phase: watch::Receiver<Phase>,
}

impl Shared {
    /// Returns the process at work.
    pub(super) fn serving(&self) -> Result<Arc<Serving>, Problem> {
        match &*self.phase.borrow() {
            Phase::Serving(serving) | Phase::Draining(serving) => Ok(Arc::clone(serving)),
            Phase::Waiting(reason) => Err(Problem::not_ready(&**reason)),
            Phase::Stopped => Err(Problem::not_ready("the process has stopped")),
        }
    }

    /// Returns the process at work, if it takes commands.
    pub(super) fn accepting(&self) -> Result<Arc<Serving>, Problem> {
        if matches!(&*self.phase.borrow(), Phase::Draining(_)) {
            return Err(Problem::not_ready("the process is stopping"));
        }
        self.serving()
    }

    /// Resolves when no reply can come any more.
    pub(super) async fn stopped(&self) {
        let mut phase = self.phase.clone();
        // A server that is gone has stopped, too.
        drop(
            phase
                .wait_for(|phase| matches!(phase, Phase::Stopped))
                .await,
        );
    }

    /// Returns the types of the aggregates that can be asked for.
    pub(super) fn aggregate_types(&self) -> Vec<&str> {
        let endpoints = self.aggregates.iter();
        endpoints.map(AggregateEndpoint::aggregate_type).collect()
    }

    pub(super) fn projections(&self) -> &[ProjectionEndpoint] {
        &self.projections
    }

    pub(super) fn projection(&self, name: &str) -> Option<&ProjectionEndpoint> {
        let mut projections = self.projections.iter();
        projections.find(|projection| projection.name() == name)
    }

    pub(super) fn endpoint(&self, aggregate_type: &str) -> Result<&AggregateEndpoint, Problem> {
        let mut endpoints = self.aggregates.iter();
        endpoints
            .find(|endpoint| endpoint.aggregate_type() == aggregate_type)
            .ok_or_else(|| {
                let known = self.aggregate_types();
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                let message = format!("unknown aggregate type `{aggregate_type}`; known: {known}");
                Problem::not_found("UNKNOWN_AGGREGATE_TYPE", message)
            })
    }
}

/// The two variable segments of a path, percent-decoded.
pub(super) struct Segments(pub(super) String, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((first, second))) => Ok(Self(first, second)),
            Err(rejection) => Err(Problem::malformed("MALFORMED_PATH", rejection.body_text())),
        }
    }
}

/// A server that listens.
pub struct HttpServer {
    phase: watch::Sender<Phase>,
    address: SocketAddr,
    task: JoinHandle<()>,
    runtime: Handle,
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl HttpServer {
    /// Starts to answer on `listener`, on `runtime`. Until [`serve`](Self::serve) is called the
    /// process is alive and not ready.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn start(runtime: &Handle, listener: TcpListener, spec: HttpSpec) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (phase, phases) = watch::channel(Phase::Waiting("the process is starting".into()));
        let shared = Arc::new(Shared {
            metrics: spec.metrics,
            topology: spec.topology,
            clock: spec.clock,
            uploads: Arc::new(Semaphore::new(commands::UPLOADS_KIB_MAX)),
            read_models: spec.read_models.into_iter().map(Arc::new).collect(),
            aggregates: spec.aggregates,
            projections: spec.projections,
            phase: phases,
        });
        // A tokio listener registers with the runtime that it is made in.
        let within = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(within);
        let until = Arc::clone(&shared);
        let task = runtime.spawn(async move {
            let service = axum::serve(listener, router(shared));
            let served = service
                .with_graceful_shutdown(async move { until.stopped().await })
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the HTTP server has ended");
            }
        });
        Ok(Self {
            phase,
            address,
            task,
            runtime: runtime.clone(),
        })
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says why the process is not ready.
    pub fn waiting(&self, reason: &str) {
        self.phase.send_replace(Phase::Waiting(reason.into()));
    }

    /// Answers for a process at work from now on.
    pub fn serve(&self, serving: Serving) {
        self.phase.send_replace(Phase::Serving(Arc::new(serving)));
    }

    /// Takes no more commands: the process is about to stop. Callers that wait for a reply go on
    /// waiting.
    pub fn drain(&self) {
        self.phase.send_if_modified(|phase| {
            let Phase::Serving(serving) = phase else {
                return false;
            };
            *phase = Phase::Draining(Arc::clone(serving));
            true
        });
    }

    /// Answers whoever still waits and closes; requests that take longer than `patience` are cut
    /// off. Not to be called from a task of the runtime.
    pub fn stop(self, patience: Duration) {
        self.phase.send_replace(Phase::Stopped);
        let abort = self.task.abort_handle();
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(patience, self.task).await });
        if ended.is_err() {
            tracing::warn!("HTTP requests cut off: they took too long to end");
            abort.abort();
        }
    }
}

fn router(shared: Arc<Shared>) -> Router {
    routes::router(&shared.read_models)
        .fallback(queries::no_such_route)
        .method_not_allowed_fallback(queries::wrong_method)
        .layer(from_fn_with_state(Arc::clone(&shared), observe))
        .with_state(shared)
}

/// Counts every answer by its route.
async fn observe(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or(NO_ROUTE, |path| {
        let mut known = ROUTES.iter().map(|route| route.path);
        known
            .find(|route| *route == path.as_str())
            .unwrap_or(READ_MODEL)
    });
    let method = request.method().clone();
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), began.elapsed());
    shared.metrics.http_request(route, status, took);
    tracing::debug!(%method, route, status, ?took, "answered");
    response
}
