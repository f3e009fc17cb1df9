//! Schema migrations: ordered, checksummed, recorded in a table, one process at a time.
//!
//! All that are missing run in one transaction with their records, under an advisory lock, so that
//! processes that start together wait for the first. A database that knows more than this program is
//! refused: an older program must not write into a newer schema.

use std::collections::BTreeMap;

use millstream::sink::SinkError;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Transaction};

use crate::errors::sink_error;
use crate::statements::quoted;

/// One step of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its place in the order, from 1 without gaps.
    pub version: i32,
    /// What it does, in a word or two.
    pub name: &'static str,
    /// Its statements. Once released they are never edited: the checksum would not fit any more.
    pub sql: &'static str,
}

impl Migration {
    fn checksum(&self) -> String {
        // Line ends depend on who checked the file out.
        let digest = Sha256::digest(self.sql.replace("\r\n", "\n"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Whose the tables of the sink itself are.
const OWN: &str = "millstream";
const OWN_MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "offsets",
        sql: include_str!("../sql/0001_offsets.sql"),
    },
    Migration {
        version: 2,
        name: "topic ids",
        sql: include_str!("../sql/0002_topic_ids.sql"),
    },
];
/// Of the advisory lock, with the schema's name beside it.
const LOCK: i32 = 0x6d69_6c6c;

/// Brings the schema up to date: the sink's own tables, then those of `owner`.
pub(crate) async fn migrate(
    client: &mut Client,
    schema: &str,
    owner: &str,
    migrations: &[Migration],
) -> Result<(), SinkError> {
    let transaction = client.transaction().await.map_err(|it| sink_error(&it))?;
    transaction
        .execute(
            "SELECT pg_advisory_xact_lock($1, hashtext($2))",
            &[&LOCK, &schema],
        )
        .await
        .map_err(|it| sink_error(&it))?;
    let known = transaction
        .query_opt("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema])
        .await
        .map_err(|it| sink_error(&it))?;
    // `IF NOT EXISTS` alone would ask for the right to create schemas where it is there already.
    if known.is_none() {
        let sql = format!("CREATE SCHEMA {}", quoted(schema));
        transaction
            .batch_execute(&sql)
            .await
            .map_err(|it| sink_error(&it))?;
    }
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS millstream_migrations (owner text NOT NULL, \
             version integer NOT NULL, name text NOT NULL, checksum text NOT NULL, \
             applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (owner, version))",
        )
        .await
        .map_err(|it| sink_error(&it))?;
    bring_up(&transaction, OWN, OWN_MIGRATIONS).await?;
    bring_up(&transaction, owner, migrations).await?;
    transaction.commit().await.map_err(|it| sink_error(&it))
}

async fn bring_up(
    transaction: &Transaction<'_>,
    owner: &str,
    migrations: &[Migration],
) -> Result<(), SinkError> {
    let rows = transaction
        .query(
            "SELECT version, checksum FROM millstream_migrations WHERE owner = $1",
            &[&owner],
        )
        .await
        .map_err(|it| sink_error(&it))?;
    let applied: BTreeMap<i32, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let missing = missing(owner, migrations, &applied).map_err(SinkError::failed)?;
    for migration in missing {
        transaction
            .batch_execute(migration.sql)
            .await
            .map_err(|error| {
                let what = format!(
                    "migration {owner} {} ({})",
                    migration.version, migration.name
                );
                match sink_error(&error) {
                    SinkError::Failed { message } => {
                        SinkError::failed(format!("{what}: {message}"))
                    }
                    other => other,
                }
            })?;
        transaction
            .execute(
                "INSERT INTO millstream_migrations (owner, version, name, checksum) \
                 VALUES ($1, $2, $3, $4)",
                &[
                    &owner,
                    &migration.version,
                    &migration.name,
                    &migration.checksum(),
                ],
            )
            .await
            .map_err(|it| sink_error(&it))?;
        tracing::info!(
            owner,
            version = migration.version,
            name = migration.name,
            "migrated"
        );
    }
    Ok(())
}

/// Decides what has to run.
fn missing<'a>(
    owner: &str,
    migrations: &'a [Migration],
    applied: &BTreeMap<i32, String>,
) -> Result<&'a [Migration], String> {
    for (migration, version) in migrations.iter().zip(1..) {
        if migration.version != version {
            return Err(format!(
                "migrations of {owner} are not in order: {} comes where {version} should",
                migration.version
            ));
        }
    }
    let latest = applied.keys().next_back().copied().unwrap_or(0);
    let count = migrations.len();
    if usize::try_from(latest).is_ok_and(|latest| latest > count) {
        return Err(format!(
            "the database's schema of {owner} is at version {latest}, newer than this program's \
             {count}: run the newer program"
        ));
    }
    for migration in migrations {
        match applied.get(&migration.version) {
            Some(checksum) if *checksum != migration.checksum() => {
                return Err(format!(
                    "migration {owner} {} ({}) is not the one that was applied: its checksum differs",
                    migration.version, migration.name
                ));
            }
            None if migration.version <= latest => {
                return Err(format!(
                    "migration {owner} {} was never applied, a later one was",
                    migration.version
                ));
            }
            Some(_) | None => {}
        }
    }
    Ok(migrations.get(applied.len()..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration {
        version: 1,
        name: "one",
        sql: "SELECT 1;\n",
    };
    const TWO: Migration = Migration {
        version: 2,
        name: "two",
        sql: "SELECT 2;\n",
    };

    fn applied(migrations: &[Migration]) -> BTreeMap<i32, String> {
        migrations
            .iter()
            .map(|it| (it.version, it.checksum()))
            .collect()
    }

    #[test]
    fn what_is_missing_runs_in_order() {
        assert_eq!(
            missing("x", &[ONE, TWO], &applied(&[])).unwrap(),
            [ONE, TWO]
        );
        assert_eq!(missing("x", &[ONE, TWO], &applied(&[ONE])).unwrap(), [TWO]);
        assert!(
            missing("x", &[ONE, TWO], &applied(&[ONE, TWO]))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_newer_database_and_an_edited_migration_are_refused() {
        let newer = missing("x", &[ONE], &applied(&[ONE, TWO])).unwrap_err();
        assert!(newer.contains("version 2, newer"), "{newer}");
        let edited = Migration {
            sql: "SELECT 3;",
            ..ONE
        };
        let refused = missing("x", &[edited, TWO], &applied(&[ONE])).unwrap_err();
        assert!(refused.contains("checksum differs"), "{refused}");
        let skipped = missing("x", &[ONE, TWO], &applied(&[TWO])).unwrap_err();
        assert!(skipped.contains("never applied"), "{skipped}");
        let disordered = missing("x", &[TWO, ONE], &applied(&[])).unwrap_err();
        assert!(disordered.contains("not in order"), "{disordered}");
    }

    #[test]
    fn line_ends_do_not_change_a_checksum() {
        let windows = Migration {
            sql: "SELECT 1;\r\n",
            ..ONE
        };
        assert_eq!(windows.checksum(), ONE.checksum());
    }
}
