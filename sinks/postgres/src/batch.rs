//! From records to what they change in one table: rows to delete, then rows to write.
//!
//! One statement must not meet a row twice, so records of one key are folded here, with the same rules
//! that the statements have: a tombstone deletes, and a row of a lower version changes nothing.

use std::collections::BTreeMap;

use millstream::log::Offset;
use millstream::sink::{SinkBatch, SinkRecord};
use serde_json::Value;

use crate::table::{Source, Table};
use crate::value::{Cell, cell, key_cell};

/// A record that does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) offset: Offset,
    pub(crate) problem: String,
}

/// What batches change in one table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// By primary key.
    rows: BTreeMap<Vec<String>, Change>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    delete: bool,
    row: Option<(Option<i64>, Vec<Cell>)>,
}

impl Changes {
    /// Adds the records of a batch in their order.
    pub(crate) fn add(&mut self, table: &Table, batch: &SinkBatch) -> Result<(), Misfit> {
        for record in &batch.records {
            self.add_record(table, record).map_err(|problem| Misfit {
                offset: record.offset,
                problem: format!("table `{}`: {problem}", table.name),
            })?;
        }
        Ok(())
    }

    fn add_record(&mut self, table: &Table, record: &SinkRecord) -> Result<(), String> {
        let Some(value) = &record.value else {
            let key = tombstone_key(table, record)?;
            let change = self.rows.entry(key).or_default();
            change.delete = true;
            change.row = None;
            return Ok(());
        };
        let value: Value =
            serde_json::from_slice(value).map_err(|error| format!("not JSON: {error}"))?;
        let mut cells = Vec::with_capacity(table.columns.len());
        let mut key = Vec::new();
        let mut version = None;
        for column in &table.columns {
            let found = cell(column, record, &value)?;
            if column.primary {
                key.extend(found.clone());
            }
            if column.version {
                version = found.as_ref().and_then(|text| text.parse::<i64>().ok());
            }
            cells.push(found);
        }
        let change = self.rows.entry(key).or_default();
        let known = change.row.as_ref().and_then(|(version, _)| *version);
        if version >= known {
            change.row = Some((version, cells));
        }
        Ok(())
    }

    /// Returns the primary keys of rows to delete, one list for each column of the key.
    pub(crate) fn deletes(&self, table: &Table) -> Vec<Vec<&str>> {
        let mut columns = vec![Vec::new(); table.primary().count()];
        for (key, _) in self.rows.iter().filter(|(_, change)| change.delete) {
            for (column, value) in columns.iter_mut().zip(key) {
                column.push(value.as_str());
            }
        }
        columns
    }

    /// Returns the rows to write, one list for each column.
    pub(crate) fn upserts(&self, table: &Table) -> Vec<Vec<Option<&str>>> {
        let mut columns = vec![Vec::new(); table.columns.len()];
        for (_, cells) in self.rows.values().filter_map(|change| change.row.as_ref()) {
            for (column, value) in columns.iter_mut().zip(cells) {
                column.push(value.as_deref());
            }
        }
        columns
    }
}

/// A tombstone has nothing but its key.
fn tombstone_key(table: &Table, record: &SinkRecord) -> Result<Vec<String>, String> {
    let mut key = Vec::new();
    for column in table.primary() {
        if column.source != Source::Key {
            let name = &column.name;
            return Err(format!(
                "a tombstone does not tell `{name}` of the primary key, which is not the record's key"
            ));
        }
        key.extend(key_cell(column, record)?);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use millstream::log::{Headers, TopicPartition};

    use super::*;
    use crate::{Column, SqlType};

    fn table() -> Table {
        Table::new("rows", "topic")
            .column(Column::new("id", SqlType::Text).from(Source::Key).primary())
            .column(Column::new("x", SqlType::Text))
            .column(Column::new("version", SqlType::BigInt).version())
    }

    fn fold(records: &[(&str, Option<(&str, i64)>)]) -> Result<Changes, Misfit> {
        let records = records
            .iter()
            .zip(10..)
            .map(|((key, value), offset)| SinkRecord {
                offset,
                timestamp: 0,
                key: Some(key.as_bytes().to_vec()),
                value: value.map(|(x, version)| {
                    format!(r#"{{"x":"{x}","version":{version}}}"#).into_bytes()
                }),
                headers: Headers::new(),
            });
        let batch = SinkBatch {
            partition: TopicPartition::new("topic", 0),
            declared: "topic".into(),
            expected: 10,
            next: 20,
            records: records.collect(),
        };
        let mut changes = Changes::default();
        changes.add(&table(), &batch)?;
        Ok(changes)
    }

    #[test]
    fn records_of_one_key_become_one_row_of_the_highest_version() {
        let changes = fold(&[
            ("a", Some(("one", 1))),
            ("b", Some(("only", 4))),
            ("a", Some(("three", 3))),
            ("a", Some(("two", 2))),
        ])
        .unwrap();
        let rows = changes.upserts(&table());
        assert_eq!(rows[0], [Some("a"), Some("b")]);
        assert_eq!(rows[1], [Some("three"), Some("only")]);
        assert_eq!(changes.deletes(&table()), [Vec::<&str>::new()]);
    }

    #[test]
    fn what_comes_after_a_tombstone_starts_afresh() {
        let changes = fold(&[
            ("a", Some(("old", 9))),
            ("a", None),
            ("a", Some(("new", 1))),
            ("b", Some(("gone", 1))),
            ("b", None),
        ])
        .unwrap();
        assert_eq!(changes.deletes(&table()), [["a", "b"]]);
        assert_eq!(changes.upserts(&table())[1], [Some("new")]);
    }

    #[test]
    fn a_tombstone_needs_a_table_whose_key_is_the_records() {
        let table = Table::new("rows", "topic").column(Column::new("x", SqlType::Text).primary());
        let record = SinkRecord {
            offset: 3,
            timestamp: 0,
            key: Some(b"a".to_vec()),
            value: None,
            headers: Headers::new(),
        };
        let refused = Changes::default().add_record(&table, &record).unwrap_err();
        assert!(refused.contains("`x`"), "{refused}");
    }
}
