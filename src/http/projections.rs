//! `/projections`: how far projections are, whether they are what the events add up to, and their
//! rebuild.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::history::{problem, segment, verified};
use super::parameters::QueryParameters;
use super::problem::Problem;
use super::queries::{blocking, path_and_query};
use super::server::Shared;
use crate::event_sourcing::{HistoryReadError, ProjectionEndpoint, ProjectionView};

/// How often, and how many times, it is looked whether the tasks have taken a rebuild up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS_MAX: usize = 200;

#[derive(Serialize)]
struct Listed {
    projections: Vec<ProjectionView>,
}

/// `GET /projections`
pub(super) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Problem> {
    let serving = shared.serving()?;
    let endpoints = shared.projections().to_vec();
    let asked = Arc::clone(&serving);
    let read = blocking(move || {
        let views = endpoints
            .iter()
            .map(|projection| projection.view(asked.queries()));
        views.collect::<Result<Vec<_>, HistoryReadError>>()
    });
    match read.await? {
        Ok(projections) => Ok(Json(Listed { projections }).into_response()),
        Err(error) => Err(problem(&serving, error, &path_and_query(&uri)).await),
    }
}

/// `GET /projections/{name}`
pub(super) async fn one(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let projection = named(&shared, path)?;
    Ok(Json(view(&shared, &projection, &uri).await?).into_response())
}

/// `POST /projections/{name}/rebuild`: answered once the tasks have committed that they build the next
/// generation, so that it is built whatever becomes of the process.
pub(super) async fn rebuild(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let projection = named(&shared, path)?;
    let serving = shared.accepting()?;
    let (asked, of) = (Arc::clone(&serving), projection.clone());
    let wanted = match blocking(move || of.request_rebuild(asked.queries())).await? {
        Ok(wanted) => wanted,
        Err(error) => return Err(problem(&serving, error, &path_and_query(&uri)).await),
    };
    if wanted.is_empty() {
        let message = format!("no partition of `{}` is served here", projection.name());
        return Err(Problem::not_ready(message));
    }
    for _ in 0..LOOKS_MAX {
        let view = view(&shared, &projection, &uri).await?;
        if begun(&view, &wanted) {
            return Ok((StatusCode::ACCEPTED, Json(view)).into_response());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let message = format!(
        "`{}` is still at work on its last rebuild; ask again",
        projection.name()
    );
    Err(Problem::not_ready(message))
}

/// Returns whether every partition builds the generation that it was asked for, or has built it.
fn begun(view: &ProjectionView, wanted: &BTreeMap<i32, u64>) -> bool {
    let mut partitions = view.partitions.iter();
    partitions.all(|found| {
        wanted
            .get(&found.partition)
            .is_none_or(|wanted| found.progress.newest() >= *wanted)
    })
}

/// `GET /projections/{name}/verify`
pub(super) async fn verify(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let projection = named(&shared, path)?;
    let parameters = QueryParameters::read(&uri, &["limit", "cursor"])?;
    let (cursor, limit) = (parameters.text("cursor")?, parameters.limit()?);
    let serving = shared.serving()?;
    let asked = Arc::clone(&serving);
    let name = projection.name().to_owned();
    let read = blocking(move || projection.verify(asked.queries(), cursor.as_deref(), limit));
    match read.await? {
        Ok(found) => verified(found, &name),
        Err(error) => Err(problem(&serving, error, &path_and_query(&uri)).await),
    }
}

async fn view(
    shared: &Shared,
    projection: &ProjectionEndpoint,
    uri: &Uri,
) -> Result<ProjectionView, Problem> {
    let serving = shared.serving()?;
    let (asked, of) = (Arc::clone(&serving), projection.clone());
    match blocking(move || of.view(asked.queries())).await? {
        Ok(view) => Ok(view),
        Err(error) => Err(problem(&serving, error, &path_and_query(uri)).await),
    }
}

fn named(
    shared: &Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<ProjectionEndpoint, Problem> {
    let name = segment(path)?;
    shared.projection(&name).cloned().ok_or_else(|| {
        let known = shared.projections().iter();
        let known: Vec<&str> = known.map(ProjectionEndpoint::name).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        let message = format!("unknown projection `{name}`; known: {known}");
        Problem::not_found("UNKNOWN_PROJECTION", message)
    })
}
