//! SQL. Identifiers come from checked descriptions and are quoted all the same; values are parameters.

use crate::table::{Column, Table};

/// Quotes an identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes rows, given as one array of texts for each column.
pub(crate) fn upsert(table: &Table) -> String {
    let names = list(table.columns.iter().map(|column| quoted(&column.name)));
    let casts = list(
        table
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| format!("v.c{at}::{}", column.sql_type.sql())),
    );
    let name = quoted(&table.name);
    let sql = format!(
        "INSERT INTO {name} AS t ({names}) SELECT {casts} FROM {} ",
        arrays(table.columns.len())
    );
    let keys = list(table.primary().map(|column| quoted(&column.name)));
    let others: Vec<&Column> = table
        .columns
        .iter()
        .filter(|column| !column.primary)
        .collect();
    if others.is_empty() {
        return format!("{sql}ON CONFLICT ({keys}) DO NOTHING");
    }
    let sets = list(others.iter().map(|column| {
        let name = quoted(&column.name);
        format!("{name} = EXCLUDED.{name}")
    }));
    let guard = table.version().map(|version| {
        let version = quoted(&version.name);
        format!(" WHERE t.{version} <= EXCLUDED.{version}")
    });
    let guard = guard.unwrap_or_default();
    format!("{sql}ON CONFLICT ({keys}) DO UPDATE SET {sets}{guard}")
}

/// Deletes rows, given as one array of texts for each column of the primary key.
pub(crate) fn delete(table: &Table) -> String {
    let keys: Vec<&Column> = table.primary().collect();
    let conditions: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let (name, sql_type) = (quoted(&column.name), column.sql_type.sql());
            format!("t.{name} = v.c{at}::{sql_type}")
        })
        .collect();
    format!(
        "DELETE FROM {} AS t USING {} WHERE {}",
        quoted(&table.name),
        arrays(keys.len()),
        conditions.join(" AND ")
    )
}

fn arrays(count: usize) -> String {
    let parameters = list((1..=count).map(|at| format!("${at}::text[]")));
    let names = list((0..count).map(|at| format!("c{at}")));
    format!("unnest({parameters}) AS v({names})")
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, SqlType};

    #[test]
    fn statements_are_what_a_person_would_write() {
        let table = Table::new("rows", "topic")
            .column(Column::new("id", SqlType::Text).from(Source::Key).primary())
            .column(Column::new("amount", SqlType::Numeric))
            .column(Column::new("version", SqlType::BigInt).version());
        assert_eq!(
            upsert(&table),
            "INSERT INTO \"rows\" AS t (\"id\", \"amount\", \"version\") \
             SELECT v.c0::text, v.c1::numeric, v.c2::bigint \
             FROM unnest($1::text[], $2::text[], $3::text[]) AS v(c0, c1, c2) \
             ON CONFLICT (\"id\") DO UPDATE SET \"amount\" = EXCLUDED.\"amount\", \
             \"version\" = EXCLUDED.\"version\" WHERE t.\"version\" <= EXCLUDED.\"version\""
        );
        assert_eq!(
            delete(&table),
            "DELETE FROM \"rows\" AS t USING unnest($1::text[]) AS v(c0) WHERE t.\"id\" = v.c0::text"
        );
    }
}
