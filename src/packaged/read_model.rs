//! Read models over HTTP: a path, the store behind it, and the fields it can be filtered by.

use std::collections::BTreeSet;

/// A store whose values are listed, page by page, at a path of its own.
///
/// ```
/// # use millstream::packaged::ReadModel;
/// let flights = ReadModel::new("/flights", "flight-leg-documents")
///     .filter("status", ["status"])
///     .filter("airport", ["origin", "destination"]);
/// assert_eq!(flights.path(), "/flights");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadModel {
    path: String,
    store: String,
    filters: Vec<ReadModelFilter>,
}

/// A query parameter that a read model is filtered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadModelFilter {
    name: String,
    fields: Vec<String>,
}

impl ReadModelFilter {
    /// Returns the parameter's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the value's fields that it is compared with.
    #[must_use]
    pub fn fields(&self) -> &[String] {
        &self.fields
    }
}

/// Why a read model cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadModelError {
    /// The path is not one of its own.
    #[error("read model `{path}`: {problem}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A parameter is taken.
    #[error("read model `{path}`: the parameter `{name}` is taken")]
    Parameter {
        /// The path.
        path: String,
        /// The parameter.
        name: String,
    },
}

/// The parameters of paging, which no field can be filtered by.
const PAGING: [&str; 2] = ["limit", "cursor"];

/// What the server has under its own paths.
const TAKEN: [&str; 11] = [
    "metrics",
    "health",
    "topology",
    "stores",
    "aggregates",
    "commands",
    "projections",
    "events",
    "openapi.json",
    "sinks",
    "verify",
];

impl ReadModel {
    /// Serves the values of `store`, or of the projection of that name, at `path`, which starts with a slash. The values are JSON objects.
    #[must_use]
    pub fn new(path: impl Into<String>, store: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            store: store.into(),
            filters: Vec::new(),
        }
    }

    /// Lets the query parameter `name` choose the values of which one of `fields` is what it says. Texts
    /// are compared as they are, other scalars by their JSON.
    #[must_use]
    pub fn filter<const N: usize>(mut self, name: impl Into<String>, fields: [&str; N]) -> Self {
        self.filters.push(ReadModelFilter {
            name: name.into(),
            fields: fields.into_iter().map(str::to_owned).collect(),
        });
        self
    }

    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the store's name.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Returns what it can be filtered by.
    #[must_use]
    pub fn filters(&self) -> &[ReadModelFilter] {
        &self.filters
    }

    /// Checks read models that are to be served together.
    ///
    /// # Errors
    /// [`ReadModelError`], the first.
    pub fn check(read_models: &[Self]) -> Result<(), ReadModelError> {
        let mut paths = BTreeSet::new();
        for model in read_models {
            model.check_path()?;
            if !paths.insert(model.path()) {
                return Err(model.path_error("another one has it"));
            }
            let mut names: BTreeSet<&str> = PAGING.into();
            for filter in &model.filters {
                if !names.insert(&filter.name) {
                    return Err(ReadModelError::Parameter {
                        path: model.path.clone(),
                        name: filter.name.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn check_path(&self) -> Result<(), ReadModelError> {
        let mut segments = self.path.split('/');
        let first = segments.next();
        let plain = |segment: &str| {
            !segment.is_empty()
                && segment
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let segments: Vec<&str> = segments.collect();
        if first != Some("") || segments.is_empty() || !segments.iter().all(|one| plain(one)) {
            return Err(
                self.path_error("a path is `/` and names of letters, digits, `-`, `_`, `.`")
            );
        }
        if segments.first().is_some_and(|first| TAKEN.contains(first)) {
            return Err(self.path_error("the server has routes of its own there"));
        }
        Ok(())
    }

    fn path_error(&self, problem: &'static str) -> ReadModelError {
        ReadModelError::Path {
            path: self.path.clone(),
            problem,
        }
    }
}
