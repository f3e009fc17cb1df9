//! `GET /aggregates/…`: aggregates as they are and as they were.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::parameters::QueryParameters;
use super::problem::Problem;
use super::queries::{blocking, path_and_query, query_problem};
use super::server::{Segments, Shared};
use super::serving::Serving;
use crate::event_sourcing::{
    AggregateRecord, AsOf, Difference, EventPeriod, HistoryReadError, HistoryReader, Known, Page,
    Point, TimelineEntry, Verification, format_timestamp, reasons,
};
use crate::query::QueryRegistry;
use crate::runtime::error_chain as chain;

/// An aggregate that is asked for.
struct Asked {
    serving: Arc<Serving>,
    history: Arc<dyn HistoryReader>,
    aggregate_type: String,
    aggregate_id: String,
    path_and_query: String,
}

impl Asked {
    fn new(shared: &Shared, uri: &Uri, segments: Segments) -> Result<Self, Problem> {
        let Segments(aggregate_type, aggregate_id) = segments;
        Ok(Self {
            history: reader(shared, &aggregate_type)?,
            serving: shared.serving()?,
            aggregate_type,
            aggregate_id,
            path_and_query: path_and_query(uri),
        })
    }

    /// Reads on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn HistoryReader, &QueryRegistry, &str) -> Result<T, HistoryReadError>
        + Send
        + 'static,
    ) -> Result<T, Problem> {
        let (serving, history) = (Arc::clone(&self.serving), Arc::clone(&self.history));
        let id = self.aggregate_id.clone();
        let answer = blocking(move || read(&*history, serving.queries(), &id)).await?;
        match answer {
            Ok(found) => Ok(found),
            Err(error) => Err(problem(&self.serving, error, &self.path_and_query).await),
        }
    }

    /// Says that the aggregate has ended, where only its past can be asked for.
    fn gone<S>(&self, record: &AggregateRecord<S>) -> Problem {
        let time = format_timestamp(record.updated_at).ok();
        let message = format!(
            "{} `{}` was tombstoned at {} by version {}; its past can be asked for",
            self.aggregate_type,
            self.aggregate_id,
            time.as_deref().unwrap_or("an unknown time"),
            record.version,
        );
        Problem::new(StatusCode::GONE, reasons::TOMBSTONED.as_str(), message)
            .at_version(record.version)
            .tombstoned_at(time)
    }

    /// Says why there is no answer: there is no such aggregate, or it was not there then.
    async fn nothing(&self, points: &[Point]) -> Problem {
        let known = self.read(|history, queries, id| history.known(queries, id));
        let (what, id) = (&self.aggregate_type, &self.aggregate_id);
        match known.await {
            Err(problem) => problem,
            Ok(None) => {
                let message = format!("there is no {what} `{id}`");
                Problem::not_found("UNKNOWN_AGGREGATE", message)
            }
            Ok(Some(Known {
                first_version,
                last_version,
            })) => {
                let points: Vec<String> = points.iter().map(ToString::to_string).collect();
                let message = format!(
                    "{what} `{id}` has versions {first_version} to {last_version}, and was not there at {}",
                    points.join(" and ")
                );
                Problem::not_found("UNKNOWN_POINT", message)
            }
        }
    }
}

fn reader(shared: &Shared, aggregate_type: &str) -> Result<Arc<dyn HistoryReader>, Problem> {
    let history = shared.endpoint(aggregate_type)?.history();
    history.cloned().ok_or_else(|| {
        let message = format!("the history of aggregate type `{aggregate_type}` is not served");
        Problem::not_found("NO_HISTORY", message)
    })
}

pub(super) async fn problem(
    serving: &Serving,
    error: HistoryReadError,
    path_and_query: &str,
) -> Problem {
    match error {
        HistoryReadError::Query(error) => query_problem(serving, error, path_and_query).await,
        HistoryReadError::NoIndex(_) => Problem::not_found("NO_INDEX", error.to_string()),
        HistoryReadError::Archived(error) => {
            let message = chain(&error);
            tracing::warn!(error = message, "events were not brought back");
            if error.is_unavailable() {
                Problem::unavailable("ARCHIVE_UNAVAILABLE", message)
            } else {
                Problem::new(StatusCode::GONE, "EVENTS_GONE", message)
            }
        }
        HistoryReadError::BadCursor(_) => Problem::malformed("MALFORMED_QUERY", error),
        HistoryReadError::Replay(_) | HistoryReadError::Json(_) => {
            tracing::error!(error = %chain(&error), "history cannot be read");
            Problem::internal(error.to_string())
        }
    }
}

/// An aggregate's answer: which it is, then what is told of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfAggregate<T> {
    aggregate_type: String,
    aggregate_id: String,
    #[serde(flatten)]
    answer: T,
}

fn answer<T: Serialize>(asked: Asked, answer: T) -> Response {
    Json(OfAggregate {
        aggregate_type: asked.aggregate_type,
        aggregate_id: asked.aggregate_id,
        answer,
    })
    .into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Timeline {
    entries: Vec<TimelineEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_version: Option<u64>,
}

/// Not through [`OfAggregate`]: what is flattened is buffered, and raw JSON does not survive that.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Events {
    aggregate_type: String,
    aggregate_id: String,
    events: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_version: Option<u64>,
}

#[derive(Serialize)]
struct Partitions {
    served: Vec<i32>,
    missing: Vec<i32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Period {
    aggregate_type: String,
    events: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    partitions: Partitions,
}

/// `/aggregates`
pub(super) async fn aggregate_types(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, Problem> {
    QueryParameters::read(&uri, &[])?;
    let types = BTreeMap::from([("aggregateTypes", shared.aggregate_types())]);
    Ok(Json(types).into_response())
}

/// `/aggregates/{type}/{id}[?at=|version=]`
pub(super) async fn aggregate(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    segments: Segments,
) -> Result<Response, Problem> {
    let parameters = QueryParameters::read(&uri, &["at", "version"])?;
    let point = match (parameters.time("at")?, parameters.version("version")?) {
        (None, None) => None,
        (Some(time), None) => Some(Point::Time(time)),
        (None, Some(version)) => Some(Point::Version(version)),
        (Some(_), Some(_)) => {
            let message = "`at` and `version` are both given, and one point is asked for";
            return Err(Problem::malformed("MALFORMED_QUERY", message));
        }
    };
    let asked = Asked::new(&shared, &uri, segments)?;
    let found = asked
        .read(move |history, queries, id| history.as_of(queries, id, point))
        .await?;
    match found {
        Some(AsOf { record, .. }) if record.tombstoned => Err(asked.gone(&record)),
        Some(AsOf { record, .. }) => Ok(answer(asked, record)),
        None => Err(asked.nothing(point.as_slice()).await),
    }
}

/// Reads which version a page begins with, and how long it is.
fn page(uri: &Uri) -> Result<(u64, usize), Problem> {
    let parameters = QueryParameters::read(uri, &["from_version", "limit"])?;
    let from = parameters.version("from_version")?.unwrap_or(1);
    Ok((from, parameters.limit()?))
}

/// `/aggregates/{type}/{id}/timeline`
pub(super) async fn timeline(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    segments: Segments,
) -> Result<Response, Problem> {
    let (from, limit) = page(&uri)?;
    let asked = Asked::new(&shared, &uri, segments)?;
    let found = asked
        .read(move |history, queries, id| history.timeline(queries, id, from, limit))
        .await?;
    match found {
        Some(Page {
            items: entries,
            next_version,
        }) => Ok(answer(
            asked,
            Timeline {
                entries,
                next_version,
            },
        )),
        None => Err(asked.nothing(&[]).await),
    }
}

/// `/aggregates/{type}/{id}/diff`
pub(super) async fn diff(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    segments: Segments,
) -> Result<Response, Problem> {
    let parameters = QueryParameters::read(&uri, &["from", "to"])?;
    let (from, to) = (parameters.point("from")?, parameters.point("to")?);
    let asked = Asked::new(&shared, &uri, segments)?;
    let found: Option<Difference> = asked
        .read(move |history, queries, id| history.diff(queries, id, from, to))
        .await?;
    match found {
        Some(difference) => Ok(answer(asked, difference)),
        None => Err(asked.nothing(&[from, to]).await),
    }
}

/// `/aggregates/{type}/{id}/events`
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    segments: Segments,
) -> Result<Response, Problem> {
    let (from, limit) = page(&uri)?;
    let asked = Asked::new(&shared, &uri, segments)?;
    let found = asked
        .read(move |history, queries, id| history.events(queries, id, from, limit))
        .await?;
    match found {
        Some(Page {
            items: events,
            next_version,
        }) => Ok(Json(Events {
            aggregate_type: asked.aggregate_type,
            aggregate_id: asked.aggregate_id,
            events,
            next_version,
        })
        .into_response()),
        None => Err(asked.nothing(&[]).await),
    }
}

/// `/aggregates/{type}/events`: of all aggregates served here.
pub(super) async fn events_of_period(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let aggregate_type = segment(path)?;
    let known = ["from", "to", "type", "actor", "limit", "cursor"];
    let parameters = QueryParameters::read(&uri, &known)?;
    let period = EventPeriod {
        from: parameters.time("from")?,
        to: parameters.time("to")?,
        event_type: parameters.text("type")?,
        actor: parameters.text("actor")?,
        limit: parameters.limit()?,
        cursor: parameters.text("cursor")?,
    };
    if let (Some(from), Some(to)) = (period.from, period.to)
        && from > to
    {
        let [from, to] = [from, to].map(|time| format_timestamp(time).unwrap_or_default());
        let message = format!("`from` {from} is after `to` {to}");
        return Err(Problem::malformed("MALFORMED_QUERY", message));
    }
    let history = reader(&shared, &aggregate_type)?;
    let serving = shared.serving()?;
    let asked = Arc::clone(&serving);
    let read = blocking(move || history.events_of_period(asked.queries(), &period)).await?;
    let found = match read {
        Ok(found) => found,
        Err(error) => return Err(problem(&serving, error, &path_and_query(&uri)).await),
    };
    if found.partitions.is_empty() {
        let message = format!("no partition of {aggregate_type} is served here");
        return Err(Problem::not_ready(message));
    }
    Ok(Json(Period {
        aggregate_type,
        events: found.events,
        cursor: found.cursor,
        partitions: Partitions {
            served: found.partitions,
            missing: found.partitions_missing,
        },
    })
    .into_response())
}

/// `/verify/{type}`: what is derived against the events, for the aggregates served here.
pub(super) async fn verify(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let aggregate_type = segment(path)?;
    let parameters = QueryParameters::read(&uri, &["limit", "cursor"])?;
    let (cursor, limit) = (parameters.text("cursor")?, parameters.limit()?);
    let history = reader(&shared, &aggregate_type)?;
    let serving = shared.serving()?;
    let asked = Arc::clone(&serving);
    let read = blocking(move || history.verify(asked.queries(), cursor.as_deref(), limit)).await?;
    match read {
        Ok(found) => verified(found, &aggregate_type),
        Err(error) => Err(problem(&serving, error, &path_and_query(&uri)).await),
    }
}

/// Answers with what was compared. Where nothing was, nothing is well.
pub(super) fn verified(found: Verification, of: &str) -> Result<Response, Problem> {
    if found.partitions_compared.is_empty() {
        let message = format!("no partition of {of} is served here: nothing was compared");
        return Err(Problem::not_ready(message));
    }
    Ok(Json(found).into_response())
}

pub(super) fn segment(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let Path(segment) =
        path.map_err(|rejection| Problem::malformed("MALFORMED_PATH", rejection.body_text()))?;
    Ok(segment)
}
