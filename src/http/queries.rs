//! `GET`: what the process does, how it is, and what it knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::parameters::QueryParameters;
use super::problem::Problem;
use super::server::{Segments, Shared};
use super::serving::Serving;
use crate::event_sourcing::ProjectionEndpoint;
use crate::query::{Found, QueryError};
use crate::runtime::error_chain as chain;
use crate::sink::{SinkStatus, SinkView};
use crate::topology::TaskId;

/// Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    (
        [(header::CONTENT_TYPE, METRICS_TYPE)],
        shared.metrics.render(),
    )
        .into_response()
}

pub(super) async fn live() -> Response {
    Json(BTreeMap::from([("status", "live")])).into_response()
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    tasks: BTreeMap<String, &'static str>,
}

pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let health = shared.serving()?.health();
    let tasks: BTreeMap<String, &str> = health
        .tasks
        .iter()
        .map(|(task, state)| (task.to_string(), state.label()))
        .collect();
    if health.ready {
        return Ok(Json(Ready {
            status: "ready",
            tasks,
        })
        .into_response());
    }
    let mut reasons = health.problems;
    let waiting = tasks.iter().filter(|(_, state)| **state != "running");
    reasons.extend(waiting.map(|(task, state)| format!("task {task} is {state}")));
    Err(Problem::not_ready(reasons.join("; ")))
}

pub(super) async fn topology(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.topology.describe()).into_response()
}

pub(super) async fn stores(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let serving = shared.serving()?;
    let stores = blocking(move || serving.queries().stores()).await?;
    Ok(Json(stores).into_response())
}

pub(super) async fn sinks(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let serving = shared.serving()?;
    let views: Vec<SinkView> = serving.sinks().iter().map(SinkStatus::view).collect();
    Ok(Json(views).into_response())
}

#[derive(Serialize)]
struct Entry {
    store: String,
    key: String,
    value: Value,
    timestamp: i64,
}

pub(super) async fn entry(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Segments(store, key): Segments,
) -> Result<Response, Problem> {
    let as_of = QueryParameters::read(&uri, &["as_of"])?.time("as_of")?;
    let serving = shared.serving()?;
    let (asked, of, at) = (Arc::clone(&serving), store.clone(), key.clone());
    let projection = shared.projection(&store).map(ProjectionEndpoint::serving);
    let read = blocking(move || match (as_of, projection) {
        (Some(_), Some(_)) => Err(QueryError::NotVersioned(of)),
        (Some(as_of), None) => asked.queries().get_as_of(&of, &at, as_of),
        (None, Some(of)) => asked.queries().get_serving(&*of, &at),
        (None, None) => asked.queries().get(&of, &at),
    });
    let found = match read.await? {
        Ok(found) => found,
        Err(error) => return Err(query_problem(&serving, error, &path_and_query(&uri)).await),
    };
    let Some(Found { value, timestamp }) = found else {
        let then = if as_of.is_some() { " at that time" } else { "" };
        let message = format!("store `{store}` has no key `{key}`{then}");
        return Err(Problem::not_found("UNKNOWN_KEY", message));
    };
    Ok(Json(Entry {
        store,
        key,
        value,
        timestamp,
    })
    .into_response())
}

/// Says why stores have no answer.
pub(super) async fn query_problem(
    serving: &Serving,
    error: QueryError,
    path_and_query: &str,
) -> Problem {
    match error {
        QueryError::UnknownStore(_) => Problem::not_found("UNKNOWN_STORE", error.to_string()),
        QueryError::BadKey { .. } => Problem::malformed("MALFORMED_KEY", chain(&error)),
        QueryError::NotVersioned(_) => Problem::malformed("NOT_VERSIONED", error),
        QueryError::NotHere {
            partition,
            sub_topology,
            ..
        } => {
            let task = TaskId {
                sub_topology,
                partition,
            };
            serving.not_here(task, path_and_query).await
        }
        QueryError::Moved { .. } | QueryError::NotBuilt { .. } => {
            Problem::not_ready(error.to_string())
        }
        QueryError::Failed { .. } => {
            tracing::error!(error = %chain(&error), "query failed");
            Problem::internal(error.to_string())
        }
    }
}

/// Reads from disk do not hold up other requests.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(read).await.map_err(|error| {
        tracing::error!(%error, "query panicked");
        Problem::internal("the query failed")
    })
}

pub(super) fn path_and_query(uri: &Uri) -> String {
    uri.path_and_query()
        .map_or_else(|| uri.path().to_owned(), ToString::to_string)
}

pub(super) async fn no_such_route(uri: Uri) -> Problem {
    Problem::not_found(
        "UNKNOWN_ROUTE",
        format!("there is nothing at `{}`", uri.path()),
    )
}

pub(super) async fn wrong_method() -> Problem {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(
        status,
        "METHOD_NOT_ALLOWED",
        "this path does not take that method",
    )
}
