//! What the text of a single value means: pure functions from text to a value or a [`Problem`].

use std::net::SocketAddr;

use super::keys::{APPLICATION_ID_CHARS_MAX, TOPIC_CHARS_MAX};
use super::tree::{Resolved, Scalar, Style};
use super::units::Problem;

/// A string: quoted, or plain and nothing else by YAML's core schema.
pub(crate) fn string(scalar: &Scalar) -> Result<String, Problem> {
    let other = |what: &str| {
        let problem = Problem::new(format!("expected a string, found {what} `{}`", scalar.text));
        Err(problem.help(format!("write it in quotes: \"{}\"", scalar.text)))
    };
    match scalar.resolve() {
        Resolved::Text("") => Err(Problem::new("expected a string, found an empty one")),
        Resolved::Text(text) => Ok(text.to_owned()),
        // An environment has no numbers.
        Resolved::Unsigned(_) | Resolved::Signed(_) | Resolved::Float(_) | Resolved::Bool(_)
            if scalar.style == Style::Untyped =>
        {
            Ok(scalar.text.clone())
        }
        Resolved::Unsigned(_) | Resolved::Signed(_) | Resolved::Float(_) => other("the number"),
        Resolved::Bool(_) => other("the truth value"),
        Resolved::Null => Err(Problem::new("expected a string, found nothing")),
    }
}

/// A whole number within bounds.
pub(crate) fn integer(scalar: &Scalar, min: u64, max: u64) -> Result<u64, Problem> {
    match scalar.resolve() {
        Resolved::Unsigned(number) if (min..=max).contains(&number) => Ok(number),
        Resolved::Unsigned(_) | Resolved::Signed(_) => Err(Problem::new(format!(
            "must be between {min} and {max}, found {}",
            scalar.text
        ))),
        Resolved::Text(text) if text.parse::<u64>().is_ok() => {
            let problem = format!("expected a whole number, found the string \"{text}\"");
            Err(Problem::new(problem).help("write it without quotes"))
        }
        Resolved::Text(_) | Resolved::Float(_) | Resolved::Bool(_) | Resolved::Null => {
            let found = if scalar.text.is_empty() {
                "nothing"
            } else {
                &format!("`{}`", scalar.text)
            };
            Err(Problem::new(format!(
                "expected a whole number, found {found}"
            )))
        }
    }
}

/// Legal in names of topics, groups and transactional ids alike.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn kafka_name(text: &str, chars_max: usize) -> Result<String, Problem> {
    if let Some(c) = text.chars().find(|&c| !is_name_char(c)) {
        let problem = Problem::new(format!(
            "`{text}` contains {c:?}, which Kafka does not allow"
        ));
        return Err(problem.help("use letters, digits, `.`, `_` and `-`"));
    }
    if text == "." || text == ".." {
        return Err(Problem::new(format!("`{text}` is not a name")));
    }
    if text.len() > chars_max {
        let length = text.len();
        return Err(Problem::new(format!(
            "is {length} characters long, of at most {chars_max}"
        )));
    }
    Ok(text.to_owned())
}

/// An application id: prefix of topic names, part of transactional ids, name of a directory.
pub(crate) fn application_id(scalar: &Scalar) -> Result<String, Problem> {
    kafka_name(&string(scalar)?, APPLICATION_ID_CHARS_MAX)
}

/// A topic's name (Kafka's `Topic.validate`).
pub(crate) fn topic_name(scalar: &Scalar) -> Result<String, Problem> {
    kafka_name(&string(scalar)?, TOPIC_CHARS_MAX)
}

/// Brokers, separated by commas; returned without spaces.
pub(crate) fn bootstrap_servers(scalar: &Scalar) -> Result<String, Problem> {
    let text = string(scalar)?;
    let servers: Vec<&str> = text.split(',').map(str::trim).collect();
    for server in &servers {
        if server.is_empty() {
            return Err(Problem::new(format!(
                "expected `host:port`, found nothing in `{text}`"
            )));
        }
        if server.contains("://") {
            let problem = Problem::new(format!("expected `host:port`, found `{server}`"));
            return Err(problem.help("the protocol is `kafka.properties`' `security.protocol`"));
        }
        host_and_port(server)?;
    }
    Ok(servers.join(","))
}

/// A `host:port` that another machine can connect to.
pub(crate) fn advertised(scalar: &Scalar) -> Result<String, Problem> {
    let text = string(scalar)?;
    if let Some((_, rest)) = text.split_once("://") {
        let problem = Problem::new(format!("expected `host:port`, found `{text}`"));
        return Err(problem.help(format!("write `{}`", rest.trim_end_matches('/'))));
    }
    host_and_port(&text)?;
    let host = text.rsplit_once(':').map_or("", |(host, _)| host);
    if matches!(host, "0.0.0.0" | "[::]") {
        let problem = Problem::new(format!("`{text}` is no address that others can connect to"));
        return Err(problem.help("write this machine's name or address"));
    }
    Ok(text)
}

fn host_and_port(text: &str) -> Result<(), Problem> {
    let wrong = |what: &str| Problem::new(format!("expected `host:port`, found `{text}`{what}"));
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(wrong(" without a port").help(format!("such as `{text}:9092`")));
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !bracketed {
        return Err(wrong("").help("write an IPv6 address in brackets: `[::1]:9092`"));
    }
    let legal = |c: char| c.is_alphanumeric() || ".-_[]:%".contains(c);
    if host.is_empty() || !host.chars().all(legal) {
        return Err(wrong(" without a valid host"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => Err(wrong("").help("a port is a number from 1 to 65535")),
    }
}

/// An address of this machine to listen on.
pub(crate) fn listen(scalar: &Scalar) -> Result<SocketAddr, Problem> {
    if let Resolved::Unsigned(port) = scalar.resolve() {
        let problem = Problem::new(format!(
            "expected `address:port`, found the number `{port}`"
        ));
        return Err(problem.help(format!("did you mean `127.0.0.1:{port}`?")));
    }
    let text = string(scalar)?;
    text.parse().map_err(|_| {
        let problem = Problem::new(format!("expected `address:port`, found `{text}`"));
        match text.rsplit_once(':') {
            Some(("localhost", port)) => problem.help(format!("did you mean `127.0.0.1:{port}`?")),
            Some(("" | "*", port)) => problem.help(format!("did you mean `0.0.0.0:{port}`?")),
            Some(_) | None => problem.help("such as `127.0.0.1:8080`, or `0.0.0.0:8080` for all"),
        }
    })
}
