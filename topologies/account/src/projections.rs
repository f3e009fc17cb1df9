//! The read models as tables of a PostgreSQL database (`contracts/account/sql`).

use millstream::sink::SinkDeclaration;
use millstream_postgres::{Column, Migration, PostgresSink, Source, SqlType, Table};

use crate::topology::BALANCES;

/// The name of the PostgreSQL sink in a configuration.
pub const POSTGRES: &str = "postgres";

/// The schema, step by step. A step that was released is never edited.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "account_projections",
    sql: include_str!("../../../contracts/account/sql/0001_account_projections.sql"),
}];

/// Declares the sink; `sinks.postgres` in the configuration turns it on.
pub(crate) fn postgres() -> SinkDeclaration {
    PostgresSink::declare(POSTGRES, "account", MIGRATIONS, tables())
}

/// Returns the tables and what fills them.
#[must_use]
pub fn tables() -> Vec<Table> {
    let account = Table::new("account_projections", BALANCES)
        .column(
            Column::new("account_id", SqlType::Text)
                .from(Source::Key)
                .primary(),
        )
        .column(Column::new("balance", SqlType::Numeric))
        .column(Column::new("currency", SqlType::Text).nullable())
        .column(Column::new("status", SqlType::Text))
        .column(Column::new("version", SqlType::BigInt).version())
        .column(Column::new("updated_at", SqlType::Timestamp).field("updatedAt"));
    vec![account]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_described_without_mistakes() {
        for table in tables() {
            assert_eq!(table.check(), Ok(()));
        }
    }
}
