//! `GET /{read model}?{field}=&limit=&cursor=`: the values of a store, page by page.
//!
//! A page holds what this process serves; it names the partitions that others do. Where it serves none,
//! there is no page.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

use super::problem::Problem;
use super::queries::{blocking, query_problem};
use super::server::Shared;
use crate::event_sourcing::ProjectionEndpoint;
use crate::packaged::{ReadModel, ReadModelFilter};
use crate::query::{Page, PageLimits, Position};

/// Values of a page, unless the request says otherwise; and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// Entries that one request looks at: a filter that matches little must not read a store whole.
const ENTRIES_MAX: usize = 20_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    items: Vec<Value>,
    /// For the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// Partitions that other processes serve, or none for now.
    partitions_not_here: Vec<i32>,
}

/// What a request asks for.
#[derive(Debug, PartialEq)]
struct Asked {
    limit: usize,
    after: Option<Position>,
    /// Fields, one of which must be the text.
    wanted: Vec<(Vec<String>, String)>,
}

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    model: Arc<ReadModel>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let Asked {
        limit,
        after,
        wanted,
    } = asked(&model, parameters)?;
    let serving = shared.serving()?;
    let limits = PageLimits {
        values: limit,
        entries: ENTRIES_MAX,
    };
    let projection = shared.projection(model.store());
    let projection = projection.map(ProjectionEndpoint::serving);
    let (asked, store) = (Arc::clone(&serving), model.store().to_owned());
    let read = blocking(move || {
        let matches = |value: &Value| wanted.iter().all(|(fields, text)| is(value, fields, text));
        let queries = asked.queries();
        match projection {
            Some(of) => queries.page_serving(&*of, after, limits, matches),
            None => queries.page(&store, after, limits, matches),
        }
    });
    let Page {
        values,
        next,
        here,
        not_here,
    } = match read.await? {
        Ok(page) => page,
        Err(error) => return Err(query_problem(&serving, error, model.path()).await),
    };
    if here.is_empty() {
        let message = format!("no partition of `{}` is served here", model.path());
        return Err(Problem::not_ready(message));
    }
    Ok(Json(Listed {
        items: values,
        cursor: next.as_ref().map(write_cursor),
        partitions_not_here: not_here,
    })
    .into_response())
}

fn asked(model: &ReadModel, parameters: Vec<(String, String)>) -> Result<Asked, Problem> {
    let mut asked = Asked {
        limit: LIMIT,
        after: None,
        wanted: Vec::new(),
    };
    for (name, text) in parameters {
        match name.as_str() {
            "limit" => {
                let limit = text
                    .parse()
                    .ok()
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit));
                asked.limit = limit.ok_or_else(|| {
                    let problem = format!("`limit` is a number from 1 to {LIMIT_MAX}");
                    Problem::malformed("MALFORMED_LIMIT", problem)
                })?;
            }
            "cursor" => {
                let after = read_cursor(&text).ok_or_else(|| {
                    let problem = "`cursor` is not one that a page ended with";
                    Problem::malformed("MALFORMED_CURSOR", problem)
                })?;
                asked.after = Some(after);
            }
            _ => {
                let filter = model.filters().iter().find(|filter| filter.name() == name);
                let filter = filter.ok_or_else(|| unknown(model, &name))?;
                asked.wanted.push((filter.fields().to_vec(), text));
            }
        }
    }
    Ok(asked)
}

fn unknown(model: &ReadModel, name: &str) -> Problem {
    let known = model.filters().iter().map(ReadModelFilter::name);
    let known: Vec<&str> = known.chain(["limit", "cursor"]).collect();
    let problem = format!("unknown parameter `{name}`; known: {}", known.join(", "));
    Problem::malformed("UNKNOWN_FILTER", problem)
}

/// Returns whether one of the fields is what the text says.
fn is(value: &Value, fields: &[String], text: &str) -> bool {
    fields.iter().any(|field| match value.get(field) {
        Some(Value::String(found)) => found == text,
        Some(Value::Null) | None => false,
        Some(found) => {
            let shown = found.to_string();
            shown == text
        }
    })
}

fn write_cursor(position: &Position) -> String {
    let mut bytes = position.partition.to_be_bytes().to_vec();
    bytes.extend_from_slice(&position.key);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str) -> Option<Position> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (partition, key) = bytes.split_first_chunk()?;
    Some(Position {
        partition: i32::from_be_bytes(*partition),
        key: key.into(),
    })
}
