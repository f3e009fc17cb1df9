//! `GET`: what the process does, how it is, and what it knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::problem::Problem;
use super::server::{Segments, Shared};
use super::serving::Serving;
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
    let serving = shared.serving()?;
    let found = look_up(&serving, &store, &key, &path_and_query(&uri)).await?;
    let Some(Found { value, timestamp }) = found else {
        let message = format!("store `{store}` has no key `{key}`");
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Aggregate {
    aggregate_type: String,
    aggregate_id: String,
    #[serde(flatten)]
    record: serde_json::Map<String, Value>,
}

pub(super) async fn aggregate(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Segments(aggregate_type, aggregate_id): Segments,
) -> Result<Response, Problem> {
    let store = shared.endpoint(&aggregate_type)?.store().to_owned();
    let serving = shared.serving()?;
    let found = look_up(&serving, &store, &aggregate_id, &path_and_query(&uri)).await?;
    let Some(found) = found else {
        let message = format!("there is no {aggregate_type} `{aggregate_id}`");
        return Err(Problem::not_found("UNKNOWN_AGGREGATE", message));
    };
    let record = match found.value {
        Value::Object(fields) => fields,
        other => serde_json::Map::from_iter([("state".to_owned(), other)]),
    };
    Ok(Json(Aggregate {
        aggregate_type,
        aggregate_id,
        record,
    })
    .into_response())
}

async fn look_up(
    serving: &Arc<Serving>,
    store: &str,
    key: &str,
    path_and_query: &str,
) -> Result<Option<Found>, Problem> {
    let (asked, store, key) = (Arc::clone(serving), store.to_owned(), key.to_owned());
    match blocking(move || asked.queries().get(&store, &key)).await? {
        Ok(found) => Ok(found),
        Err(error @ QueryError::UnknownStore(_)) => {
            Err(Problem::not_found("UNKNOWN_STORE", error.to_string()))
        }
        Err(error @ QueryError::BadKey { .. }) => {
            Err(Problem::malformed("MALFORMED_KEY", chain(&error)))
        }
        Err(QueryError::NotHere {
            partition,
            sub_topology,
            ..
        }) => Err(serving
            .not_here(
                TaskId {
                    sub_topology,
                    partition,
                },
                path_and_query,
            )
            .await),
        Err(error @ (QueryError::Failed { .. } | QueryError::NotVersioned(_))) => {
            tracing::error!(error = %chain(&error), "query failed");
            Err(Problem::internal(error.to_string()))
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
