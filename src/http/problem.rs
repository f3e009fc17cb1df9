//! An error as it is answered: a status and `{"code","message"}`.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An answer that is an error, or a redirect.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    location: Option<String>,
    current_version: Option<u64>,
    tombstoned_at: Option<String>,
}

/// The body of a [`Problem`].
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tombstoned_at: Option<&'a str>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            location: None,
            current_version: None,
            tombstoned_at: None,
        }
    }

    /// Says when an aggregate was tombstoned.
    pub(super) fn tombstoned_at(self, time: Option<String>) -> Self {
        Self {
            tombstoned_at: time,
            ..self
        }
    }

    /// Says at which version an aggregate is.
    pub(super) fn at_version(self, version: u64) -> Self {
        Self {
            current_version: Some(version),
            ..self
        }
    }

    pub(super) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(super) fn malformed(code: impl Into<Cow<'static, str>>, message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message.to_string())
    }

    pub(super) fn not_ready(message: impl Into<String>) -> Self {
        Self::unavailable("NOT_READY", message)
    }

    /// The caller may try again later.
    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
    }

    pub(super) fn elsewhere(address: &str, path_and_query: &str) -> Self {
        let location = format!("http://{address}{path_and_query}");
        Self {
            location: Some(location),
            ..Self::new(
                StatusCode::TEMPORARY_REDIRECT,
                "OWNED_ELSEWHERE",
                format!("the process at {address} owns this key"),
            )
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            code: &self.code,
            message: &self.message,
            current_version: self.current_version,
            tombstoned_at: self.tombstoned_at.as_deref(),
        };
        let mut response = (self.status, Json(body)).into_response();
        // An address that is no header value came from another process's configuration.
        if let Some(Ok(location)) = self.location.map(HeaderValue::try_from) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
