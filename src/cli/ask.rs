//! Asking the running daemon over HTTP, and showing what it answers to people.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::outcome::Exit;
use super::{Asked, ExitCode};
use crate::config::{Config, LogKind};

/// How long an answer may take: longer than any the daemon gives.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a page asks for.
pub(super) const PAGE_ENTRIES: &str = "1000";

/// A daemon to ask.
pub(super) struct Daemon {
    agent: ureq::Agent,
    /// Without a slash at its end.
    base: String,
}

impl Daemon {
    /// Finds out where the daemon is.
    pub(super) fn of(asked: &Asked) -> Result<Self, Exit> {
        let base = match &asked.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", listens_at(asked)?),
        };
        // Redirects to the process that owns a key are followed.
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Ok(Self { agent, base })
    }

    /// Asks for a path, given as its segments, with parameters.
    pub(super) fn get(
        &self,
        segments: &[&str],
        parameters: &[(&str, &str)],
    ) -> Result<Value, Exit> {
        let mut url = self.base.clone();
        for segment in segments {
            url.push('/');
            url.push_str(&encoded(segment));
        }
        for (index, (name, value)) in parameters.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&encoded(value));
        }
        self.answered(&url, self.agent.get(&url).call())
    }

    /// Asks for something to be done, at a path given as its segments.
    pub(super) fn post(&self, segments: &[&str]) -> Result<Value, Exit> {
        let mut url = self.base.clone();
        for segment in segments {
            url.push('/');
            url.push_str(&encoded(segment));
        }
        self.answered(&url, self.agent.post(&url).send_empty())
    }

    fn answered(
        &self,
        url: &str,
        answered: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Exit> {
        let mut response = answered.map_err(|error| self.away(&error))?;
        let status = response.status();
        let body: Result<Value, _> = response
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_json();
        let body = body.map_err(|error| {
            let message = format!("error: {url} answered {status}, and no JSON: {error}");
            Exit::new(ExitCode::Failure, message)
        })?;
        if status.is_success() {
            return Ok(body);
        }
        let said = body.get("message").and_then(Value::as_str);
        let message = format!("error: {}", said.unwrap_or("the daemon gave no reason"));
        let code = match status.as_u16() {
            503 => ExitCode::Unavailable,
            _ => ExitCode::Failure,
        };
        Err(Exit::new(code, message))
    }

    fn away(&self, error: &ureq::Error) -> Exit {
        let message = format!(
            "error: no daemon answers at {}: {error}\nis it running? `--url` asks elsewhere",
            self.base
        );
        Exit::new(ExitCode::Unavailable, message)
    }
}

/// Returns where the daemon of a configuration can be reached from this machine.
fn listens_at(asked: &Asked) -> Result<SocketAddr, Exit> {
    let Some(config) = &asked.config else {
        let message = "error: say whom to ask: CONFIG or `--url`";
        return Err(Exit::new(ExitCode::Usage, message));
    };
    let file = config.display().to_string();
    let text = std::fs::read_to_string(config).map_err(|error| {
        let message = format!("error: cannot read the configuration `{file}`: {error}");
        Exit::new(ExitCode::Config, message)
    })?;
    let environment = |name: &str| std::env::var(name).ok();
    // Whatever log the daemon runs on: it is not touched.
    let config = Config::parse(&file, &text, &asked.sets, &environment, LogKind::Embedded)?;
    let mut listen = config.http.listen;
    if listen.port() == 0 {
        let message = "error: `http.listen` leaves the port open: say `--url`";
        return Err(Exit::new(ExitCode::Usage, message));
    }
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(listen)
}

/// Percent-encodes all but what RFC 3986 leaves unreserved.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// Returns a value as people read it: text without quotes, what is not there as a dash. Control
/// characters are spelled out: what an event says must not steer the terminal.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => printable(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            printable(&value.to_string())
        }
    }
}

/// Returns the text under a field; empty when there is none.
pub(super) fn text_of(value: &Value, field: &str) -> String {
    value.get(field).map(shown).unwrap_or_default()
}

fn printable(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// Lays rows out in columns that are as wide as their widest cell; the last is as long as it is.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lay_out = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    rows.iter().map(lay_out).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_encoded_and_control_characters_do_not_reach_the_terminal() {
        assert_eq!(encoded("a/b c?é"), "a%2Fb%20c%3F%C3%A9");
        assert_eq!(shown(&json!("a\u{1b}[2J")), "a\\u{1b}[2J");
        assert_eq!(shown(&json!({"a": "b"})), r#"{"a":"b"}"#);
        assert_eq!(shown(&Value::Null), "–");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bb", "c"], ["aaa", "b", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), ["a    bb  c", "aaa  b"]);
    }
}
