//! What a table looks like and where its columns come from: written by topology crates.

use std::collections::BTreeSet;
use std::fmt;

/// The longest identifier that PostgreSQL does not cut.
const IDENTIFIER_MAX: usize = 63;

/// What a column holds. Values are checked here before they are sent, so that a record that does not
/// fit is named, and sent as text, so that numbers keep every digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlType {
    /// `text`, from a JSON string.
    Text,
    /// `integer`, from a JSON integer.
    Integer,
    /// `bigint`, from a JSON integer.
    BigInt,
    /// `numeric`, from a decimal string or a JSON integer; never from a float.
    Numeric,
    /// `boolean`.
    Boolean,
    /// `timestamptz`, from an RFC 3339 string.
    Timestamp,
    /// `date`, from a string like `2025-12-09`.
    Date,
    /// `jsonb`, from any JSON value.
    Jsonb,
}

impl SqlType {
    /// Returns PostgreSQL's name of the type.
    #[must_use]
    pub const fn sql(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
            Self::Numeric => "numeric",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamptz",
            Self::Date => "date",
            Self::Jsonb => "jsonb",
        }
    }
}

/// Where a column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The record's key, as UTF-8 text.
    Key,
    /// A field of the JSON value; several names lead into nested objects.
    Field(Vec<String>),
    /// The whole JSON value.
    Value,
    /// The record's timestamp.
    RecordTimestamp,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub(crate) name: String,
    pub(crate) sql_type: SqlType,
    pub(crate) source: Source,
    pub(crate) nullable: bool,
    pub(crate) primary: bool,
    pub(crate) version: bool,
}

impl Column {
    /// Describes a column that is filled from the field of the same name.
    #[must_use]
    pub fn new(name: impl Into<String>, sql_type: SqlType) -> Self {
        let name = name.into();
        Self {
            source: Source::Field(vec![name.clone()]),
            name,
            sql_type,
            nullable: false,
            primary: false,
            version: false,
        }
    }

    /// Fills it from a field; dots lead into nested objects (`state.stand`).
    #[must_use]
    pub fn field(mut self, path: &str) -> Self {
        self.source = Source::Field(path.split('.').map(str::to_owned).collect());
        self
    }

    /// Fills it from something else.
    #[must_use]
    pub fn from(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Lets it be null, and its field be absent.
    #[must_use]
    pub const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// Makes it a part of the primary key.
    #[must_use]
    pub const fn primary(mut self) -> Self {
        self.primary = true;
        self
    }

    /// Makes it the version: a row is replaced only by one whose version is not lower.
    #[must_use]
    pub const fn version(mut self) -> Self {
        self.version = true;
        self
    }
}

/// A table that a topic fills: a record is a row, a tombstone deletes one.
///
/// ```
/// use millstream_postgres::{Column, Source, SqlType, Table};
///
/// let table = Table::new("stands", "airport.stands")
///     .column(Column::new("stand_id", SqlType::Text).from(Source::Key).primary())
///     .column(Column::new("free", SqlType::Boolean))
///     .column(Column::new("version", SqlType::BigInt).version());
/// assert!(table.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) columns: Vec<Column>,
}

/// What is wrong with a table's description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table `{table}`: {problem}")]
pub struct TableError {
    table: String,
    problem: String,
}

impl Table {
    /// Describes a table and the declared name of the topic that fills it.
    #[must_use]
    pub fn new(name: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            topic: topic.into(),
            columns: Vec::new(),
        }
    }

    /// Adds a column.
    #[must_use]
    pub fn column(mut self, column: Column) -> Self {
        self.columns.push(column);
        self
    }

    /// Returns the table's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the declared name of the topic that fills it.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn primary(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.primary)
    }

    pub(crate) fn version(&self) -> Option<&Column> {
        self.columns.iter().find(|column| column.version)
    }

    /// Checks the description.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), TableError> {
        let wrong = |problem: String| {
            Err(TableError {
                table: self.name.clone(),
                problem,
            })
        };
        let mut names = BTreeSet::new();
        for name in std::iter::once(&self.name).chain(self.columns.iter().map(|it| &it.name)) {
            if !is_identifier(name) {
                return wrong(format!("`{name}` is no plain lower-case identifier"));
            }
        }
        for column in &self.columns {
            let name = &column.name;
            if !names.insert(name) {
                return wrong(format!("two columns are called `{name}`"));
            }
            if column.primary && column.nullable {
                return wrong(format!("`{name}` is in the primary key and nullable"));
            }
            if column.primary && column.sql_type == SqlType::Jsonb {
                return wrong(format!("`{name}` is in the primary key and JSON"));
            }
            let timed = column.sql_type == SqlType::Timestamp;
            match column.source {
                Source::Key if column.sql_type != SqlType::Text => {
                    return wrong(format!("`{name}` is the record's key and not text"));
                }
                Source::Value if column.sql_type != SqlType::Jsonb => {
                    return wrong(format!("`{name}` is the record's value and not jsonb"));
                }
                Source::RecordTimestamp if !timed => {
                    return wrong(format!("`{name}` is a time and not timestamptz"));
                }
                _ => {}
            }
            if column.version && (column.sql_type != SqlType::BigInt || column.nullable) {
                return wrong(format!(
                    "the version `{name}` has to be bigint and not nullable"
                ));
            }
        }
        if self.primary().next().is_none() {
            return wrong("no column is primary".to_owned());
        }
        if self.columns.iter().filter(|column| column.version).count() > 1 {
            return wrong("two columns are the version".to_owned());
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether a name needs no quotes and is the same in any case.
pub(crate) fn is_identifier(name: &str) -> bool {
    let starts = |c: char| c.is_ascii_lowercase() || c == '_';
    name.len() <= IDENTIFIER_MAX
        && name.chars().next().is_some_and(starts)
        && name.chars().all(|c| starts(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Column {
        Column::new("id", SqlType::Text).from(Source::Key).primary()
    }

    #[test]
    fn a_mistake_in_a_description_is_named() {
        let table = || Table::new("rows", "topic");
        for (table, problem) in [
            (
                Table::new("Rows", "topic").column(key()),
                "`Rows` is no plain",
            ),
            (
                table().column(Column::new("a-b", SqlType::Text)),
                "`a-b` is no plain",
            ),
            (
                table().column(Column::new("a", SqlType::Text)),
                "no column is primary",
            ),
            (
                table().column(key()).column(key()),
                "two columns are called `id`",
            ),
            (table().column(key().nullable()), "primary key and nullable"),
            (
                table().column(
                    Column::new("id", SqlType::BigInt)
                        .from(Source::Key)
                        .primary(),
                ),
                "key and not text",
            ),
            (
                table()
                    .column(key())
                    .column(Column::new("v", SqlType::Integer).version()),
                "has to be bigint",
            ),
            (
                table()
                    .column(key())
                    .column(Column::new("v", SqlType::BigInt).version())
                    .column(Column::new("w", SqlType::BigInt).version()),
                "two columns are the version",
            ),
        ] {
            let error = table.check().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        assert_eq!(table().column(key()).check(), Ok(()));
    }
}
