//! `GET /openapi.json`: what the routes take and answer, as OpenAPI 3.1.
//!
//! Made of the [table of routes](super::routes), the read models' declarations and the schemas of
//! `contracts/http`, whose dialect OpenAPI 3.1 shares: nothing is described by hand here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::routes::{
    Answer, CURSOR, Kind, LIMIT, Method, Parameter, READ_MODEL_ANSWERS, ROUTES, Route,
};
use super::server::Shared;
use crate::packaged::{ReadModel, ReadModelFilter};

macro_rules! schemas {
    ($($name:literal),* $(,)?) => {
        &[$((
            $name,
            include_str!(concat!("../../contracts/http/schemas/", $name, ".schema.json")),
        )),*]
    };
}

/// The schemas that answers refer to.
const SCHEMAS: &[(&str, &str)] = schemas![
    "aggregate",
    "aggregate-types",
    "command",
    "diff",
    "entry",
    "error",
    "events",
    "live",
    "openapi",
    "period",
    "projection",
    "projections",
    "read-model",
    "ready",
    "reply",
    "sinks",
    "stores",
    "timeline",
    "topology",
    "under-way",
    "verification",
];
const ERROR: &str = "error";
const COMMAND: &str = "command";

pub(super) async fn openapi(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let described = describe(&shared.read_models);
    let described = described.map_err(|error| Problem::internal(error.to_string()))?;
    Ok(Json(described).into_response())
}

/// Describes all routes.
fn describe(models: &[Arc<ReadModel>]) -> Result<Value, serde_json::Error> {
    let mut paths = Map::new();
    for route in ROUTES {
        let method = match route.method {
            Method::Get => "get",
            Method::Post | Method::Command => "post",
        };
        paths.insert(route.path.to_owned(), json!({ method: operation(route) }));
    }
    for model in models {
        let described = json!({ "get": read_model(model) });
        paths.insert(model.path().to_owned(), described);
    }
    let mut schemas = Map::new();
    for (name, text) in SCHEMAS {
        let mut schema: Map<String, Value> = serde_json::from_str(text)?;
        // A resource of its own: what it refers to by `#/$defs` is in itself.
        schema.insert(
            "$id".to_owned(),
            format!("urn:millstream:http:{name}").into(),
        );
        schemas.insert((*name).to_owned(), schema.into());
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "millstream",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Stores, aggregates with their past, read models and commands of a topology",
        },
        "paths": paths,
        "components": { "schemas": schemas },
    }))
}

fn operation(route: &Route) -> Value {
    let in_path = variables(route.path).map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
    });
    let mut parameters: Vec<Value> = in_path.collect();
    parameters.extend(route.query.iter().map(in_query));
    let mut described = Map::new();
    if route.method == Method::Command {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "the command's id", "schema": { "type": "string" },
        }));
        let body = json!({ "application/json": { "schema": reference(COMMAND) } });
        let body = json!({ "required": true, "content": body });
        described.insert("requestBody".to_owned(), body);
    }
    for (name, value) in [
        ("summary", route.summary.into()),
        ("operationId", operation_id(route.method, route.path).into()),
        ("parameters", parameters.into()),
        ("responses", responses(route.answers)),
    ] {
        described.insert(name.to_owned(), value);
    }
    described.into()
}

fn read_model(model: &ReadModel) -> Value {
    let filters = model.filters().iter().map(|filter: &ReadModelFilter| {
        json!({
            "name": filter.name(), "in": "query", "required": false,
            "description": format!("`{}` is this", filter.fields().join("` or `")),
            "schema": { "type": "string" },
        })
    });
    let mut parameters: Vec<Value> = filters.collect();
    parameters.extend([LIMIT, CURSOR].iter().map(in_query));
    json!({
        "summary": format!("The values of store {}, filtered and page by page", model.store()),
        "operationId": operation_id(Method::Get, model.path()),
        "parameters": parameters,
        "responses": responses(READ_MODEL_ANSWERS),
    })
}

fn responses(answers: &[(u16, Answer)]) -> Value {
    let mut described = Map::new();
    for (status, answer) in answers {
        let (what, content) = match answer {
            Answer::Json(schema) => (
                "the answer",
                json!({ "application/json": { "schema": reference(schema) } }),
            ),
            Answer::Error => (
                "an error, by its code",
                json!({ "application/json": { "schema": reference(ERROR) } }),
            ),
            Answer::Text => (
                "the answer",
                json!({ "text/plain": { "schema": { "type": "string" } } }),
            ),
        };
        let response = json!({ "description": what, "content": content });
        described.insert(status.to_string(), response);
    }
    described.into()
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn in_query(parameter: &Parameter) -> Value {
    let schema = match parameter.kind {
        Kind::Text | Kind::Point => json!({ "type": "string", "minLength": 1 }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::Version => json!({ "type": "integer", "minimum": 1 }),
        Kind::Limit => json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }),
    };
    json!({
        "name": parameter.name, "in": "query", "required": parameter.required,
        "description": parameter.about, "schema": schema,
    })
}

/// Returns the names in braces of a path.
fn variables(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// Returns an operation's name: its method and the words of its path.
fn operation_id(method: Method, path: &str) -> String {
    let method = match method {
        Method::Get => "get",
        Method::Post | Method::Command => "post",
    };
    let words = path.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .fold(method.to_owned(), |mut name, word| {
            let mut letters = word.chars();
            name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
            name.extend(letters);
            name
        })
}
