//! Every route: where it is, who answers, and what it takes and gives.
//!
//! # Position
//! The one table that the router, the labels of metrics and `/openapi.json` are made of: a route that
//! is answered and not described cannot be written. Read models add a path each, by their declaration.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post};

use super::server::Shared;
use super::{commands, history, openapi, projections, queries, read_models};
use crate::packaged::ReadModel;

/// A route.
pub(super) struct Route {
    /// As its metrics are labelled.
    pub(super) path: &'static str,
    pub(super) method: Method,
    pub(super) summary: &'static str,
    pub(super) query: &'static [Parameter],
    /// Statuses other than those of every route, each with its schema, an error's unless said.
    pub(super) answers: &'static [(u16, Answer)],
    handler: fn() -> MethodRouter<Arc<Shared>>,
}

/// How a route is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    /// With no body.
    Post,
    /// With a command as its body.
    Command,
}

/// What an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// JSON of this schema (`contracts/http/schemas`).
    Json(&'static str),
    /// An error.
    Error,
    /// Prometheus' text format.
    Text,
}

/// A parameter of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

/// What a parameter's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Time,
    Version,
    /// A version or a time.
    Point,
    Limit,
}

const fn parameter(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter {
        name,
        about,
        kind,
        required: false,
    }
}

const fn required(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter {
        required: true,
        ..parameter(name, kind, about)
    }
}

pub(super) const LIMIT: Parameter = parameter("limit", Kind::Limit, "entries of a page, at most");
pub(super) const CURSOR: Parameter = parameter("cursor", Kind::Text, "where the last page ended");
const FROM_VERSION: Parameter = parameter("from_version", Kind::Version, "from this version on");

const ELSEWHERE: (u16, Answer) = (307, Answer::Error);
const MALFORMED: (u16, Answer) = (400, Answer::Error);
const UNKNOWN: (u16, Answer) = (404, Answer::Error);
const CONFLICT: (u16, Answer) = (409, Answer::Error);
const GONE: (u16, Answer) = (410, Answer::Error);
const BROKEN: (u16, Answer) = (500, Answer::Error);
const NOT_READY: (u16, Answer) = (503, Answer::Error);

const fn ok(schema: &'static str) -> (u16, Answer) {
    (200, Answer::Json(schema))
}

/// The label of all read models.
pub(super) const READ_MODEL: &str = "/{readModel}";
/// The path of the description.
pub(super) const OPENAPI: &str = "/openapi.json";

/// All routes but those of read models.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: OPENAPI,
        method: Method::Get,
        summary: "This description",
        query: &[],
        answers: &[ok("openapi"), BROKEN],
        handler: || get(openapi::openapi),
    },
    Route {
        path: "/metrics",
        method: Method::Get,
        summary: "Prometheus metrics",
        query: &[],
        answers: &[(200, Answer::Text)],
        handler: || get(queries::metrics),
    },
    Route {
        path: "/health/live",
        method: Method::Get,
        summary: "Whether the process is alive",
        query: &[],
        answers: &[ok("live")],
        handler: || get(queries::live),
    },
    Route {
        path: "/health/ready",
        method: Method::Get,
        summary: "Whether every task is restored and running",
        query: &[],
        answers: &[ok("ready"), NOT_READY],
        handler: || get(queries::ready),
    },
    Route {
        path: "/topology",
        method: Method::Get,
        summary: "The topology",
        query: &[],
        answers: &[ok("topology")],
        handler: || get(queries::topology),
    },
    Route {
        path: "/sinks",
        method: Method::Get,
        summary: "The sinks of this process",
        query: &[],
        answers: &[ok("sinks"), NOT_READY],
        handler: || get(queries::sinks),
    },
    Route {
        path: "/stores",
        method: Method::Get,
        summary: "The stores",
        query: &[],
        answers: &[ok("stores"), BROKEN, NOT_READY],
        handler: || get(queries::stores),
    },
    Route {
        path: "/stores/{name}/{key}",
        method: Method::Get,
        summary: "What a store has under a key",
        query: &[parameter(
            "as_of",
            Kind::Time,
            "what a versioned store had at this time",
        )],
        answers: &[
            ok("entry"),
            ELSEWHERE,
            MALFORMED,
            UNKNOWN,
            BROKEN,
            NOT_READY,
        ],
        handler: || get(queries::entry),
    },
    Route {
        path: "/aggregates",
        method: Method::Get,
        summary: "The types of aggregates",
        query: &[],
        answers: &[ok("aggregate-types"), MALFORMED],
        handler: || get(history::aggregate_types),
    },
    Route {
        path: "/aggregates/{aggregateType}/{aggregateId}",
        method: Method::Get,
        summary: "An aggregate, as it is or as it was",
        query: &[
            parameter("at", Kind::Time, "as it was at this time"),
            parameter("version", Kind::Version, "as it was at this version"),
        ],
        answers: &[
            ok("aggregate"),
            ELSEWHERE,
            MALFORMED,
            UNKNOWN,
            GONE,
            BROKEN,
            NOT_READY,
        ],
        handler: || get(history::aggregate),
    },
    Route {
        path: "/aggregates/{aggregateType}/{aggregateId}/timeline",
        method: Method::Get,
        summary: "How an aggregate came about: when, what, who, what changed",
        query: &[FROM_VERSION, LIMIT],
        answers: &[
            ok("timeline"),
            ELSEWHERE,
            MALFORMED,
            UNKNOWN,
            GONE,
            BROKEN,
            NOT_READY,
        ],
        handler: || get(history::timeline),
    },
    Route {
        path: "/aggregates/{aggregateType}/{aggregateId}/diff",
        method: Method::Get,
        summary: "What has changed between two points",
        query: &[
            required("from", Kind::Point, "the first point"),
            required("to", Kind::Point, "the second point"),
        ],
        answers: &[
            ok("diff"),
            ELSEWHERE,
            MALFORMED,
            UNKNOWN,
            GONE,
            BROKEN,
            NOT_READY,
        ],
        handler: || get(history::diff),
    },
    Route {
        path: "/aggregates/{aggregateType}/{aggregateId}/events",
        method: Method::Get,
        summary: "The events of an aggregate",
        query: &[FROM_VERSION, LIMIT],
        answers: &[
            ok("events"),
            ELSEWHERE,
            MALFORMED,
            UNKNOWN,
            GONE,
            BROKEN,
            NOT_READY,
        ],
        handler: || get(history::events),
    },
    Route {
        path: "/aggregates/{aggregateType}/events",
        method: Method::Get,
        summary: "The events of all aggregates served here, in the order of their time",
        query: &[
            parameter("from", Kind::Time, "from this time on"),
            parameter("to", Kind::Time, "before this time"),
            parameter("type", Kind::Text, "of this event type"),
            parameter("actor", Kind::Text, "of this actor"),
            LIMIT,
            CURSOR,
        ],
        answers: &[ok("period"), MALFORMED, UNKNOWN, GONE, BROKEN, NOT_READY],
        handler: || get(history::events_of_period),
    },
    Route {
        path: "/verify/{aggregateType}",
        method: Method::Get,
        summary: "Compares what is derived from events with the events",
        query: &[LIMIT, CURSOR],
        answers: &[
            ok("verification"),
            MALFORMED,
            UNKNOWN,
            GONE,
            BROKEN,
            NOT_READY,
        ],
        handler: || get(history::verify),
    },
    Route {
        path: "/projections",
        method: Method::Get,
        summary: "The projections: who serves, and how far they are",
        query: &[],
        answers: &[ok("projections"), BROKEN, NOT_READY],
        handler: || get(projections::list),
    },
    Route {
        path: "/projections/{name}",
        method: Method::Get,
        summary: "A projection",
        query: &[],
        answers: &[ok("projection"), UNKNOWN, BROKEN, NOT_READY],
        handler: || get(projections::one),
    },
    Route {
        path: "/projections/{name}/rebuild",
        method: Method::Post,
        summary: "Builds a projection anew from history, beside the rows that serve",
        query: &[],
        answers: &[
            (202, Answer::Json("projection")),
            UNKNOWN,
            BROKEN,
            NOT_READY,
        ],
        handler: || post(projections::rebuild),
    },
    Route {
        path: "/projections/{name}/verify",
        method: Method::Get,
        summary: "Compares a projection with what the events add up to",
        query: &[LIMIT, CURSOR],
        answers: &[
            ok("verification"),
            MALFORMED,
            UNKNOWN,
            GONE,
            BROKEN,
            NOT_READY,
        ],
        handler: || get(projections::verify),
    },
    Route {
        path: "/commands/{aggregateType}/{aggregateId}",
        method: Method::Command,
        summary: "Decides a command",
        query: &[],
        answers: &[
            ok("reply"),
            (202, Answer::Json("under-way")),
            ELSEWHERE,
            MALFORMED,
            UNKNOWN,
            (408, Answer::Error),
            CONFLICT,
            GONE,
            (413, Answer::Error),
            (422, Answer::Error),
            BROKEN,
            NOT_READY,
        ],
        handler: || post(commands::command),
    },
];

/// The answers of a read model.
pub(super) const READ_MODEL_ANSWERS: &[(u16, Answer)] =
    &[ok("read-model"), MALFORMED, BROKEN, NOT_READY];

/// Makes the router of all routes and these read models.
pub(super) fn router(models: &[Arc<ReadModel>]) -> Router<Arc<Shared>> {
    let listed = models.iter().fold(Router::new(), |routes, model| {
        let path = model.path().to_owned();
        let model = Arc::clone(model);
        let list = move |state, query| read_models::list(state, Arc::clone(&model), query);
        routes.route(&path, get(list))
    });
    ROUTES.iter().fold(listed, |routes, route| {
        routes.route(route.path, (route.handler)())
    })
}
