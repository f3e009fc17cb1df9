//! The parameters of a query (`?at=…`): strict, so that a mistyped one is no silent default.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::Query;
use axum::http::Uri;

use super::problem::Problem;
use crate::clock::Timestamp;
use crate::event_sourcing::{PAGE_ENTRIES_MAX, Point, parse_timestamp};

/// How many entries a page has unless `limit` says otherwise.
const PAGE_ENTRIES: usize = 100;

/// The parameters of one request. Each is given at most once, and none that is not known.
#[derive(Debug)]
pub(super) struct QueryParameters(Vec<(String, String)>);

fn malformed(message: String) -> Problem {
    Problem::malformed("MALFORMED_QUERY", message)
}

impl QueryParameters {
    /// Reads the parameters of a path that takes those named.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|rejection| malformed(rejection.body_text()))?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let takes = match known {
                    [] => "this path takes none".to_owned(),
                    known => format!("this path takes {}", known.join(", ")),
                };
                return Err(malformed(format!("unknown parameter `{name}`; {takes}")));
            }
            if pairs.iter().skip(index + 1).any(|(other, _)| other == name) {
                return Err(malformed(format!("`{name}` is given twice")));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        let given = self.0.iter().find(|(given, _)| given == name);
        match given {
            Some((_, text)) if text.is_empty() => Err(malformed(format!("`{name}` is empty"))),
            Some((_, text)) => Ok(Some(text.clone())),
            None => Ok(None),
        }
    }

    fn parsed<T, E: Display>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        self.text(name)?
            .map(|text| parse(&text).map_err(|error| malformed(format!("`{name}`: {error}"))))
            .transpose()
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.parsed(name, parse_timestamp)
    }

    /// Reads a time or a version, which must be given.
    pub(super) fn point(&self, name: &str) -> Result<Point, Problem> {
        self.parsed(name, Point::from_str)?
            .ok_or_else(|| malformed(format!("`{name}` is missing: a version, or a time in UTC")))
    }

    /// Reads a version: from 1.
    pub(super) fn version(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.parsed(name, |text| match text.parse::<u64>() {
            Ok(0) => Err("versions start at 1".to_owned()),
            Ok(version) => Ok(version),
            Err(error) => Err(format!("`{text}` is no version: {error}")),
        })
    }

    /// Reads `limit`: how many entries a page has at most.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.parsed("limit", |text| {
            let limit = text.parse().ok();
            limit
                .filter(|limit| (1..=PAGE_ENTRIES_MAX).contains(limit))
                .ok_or_else(|| format!("`{text}` is not between 1 and {PAGE_ENTRIES_MAX}"))
        })?;
        Ok(limit.unwrap_or(PAGE_ENTRIES))
    }
}
