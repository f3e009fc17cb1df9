//! A connection at work: one transaction for rows and offsets.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream::log::{Offset, TopicPartition};
use millstream::sink::{SinkBatch, SinkContext, SinkError, SinkFuture, SinkPartition, SinkSession};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement, Transaction};

use crate::batch::Changes;
use crate::errors::{Meaning, meaning, sink_error, text};
use crate::offsets::{self, Stored, TopicIds};
use crate::statements;
use crate::table::Table;

/// A table with its statements.
pub(crate) struct Prepared {
    table: Table,
    upsert: Statement,
    delete: Statement,
}

/// A session of a PostgreSQL sink.
pub(crate) struct PostgresSession {
    client: Client,
    sink: String,
    topic_ids: TopicIds,
    tables: Arc<[Prepared]>,
    generations: BTreeMap<TopicPartition, i64>,
}

/// Why a transaction did not come about.
enum Failure {
    /// Offsets were not the expected ones.
    Moved(Vec<TopicPartition>),
    Database(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl PostgresSession {
    pub(crate) async fn new(
        client: Client,
        context: &SinkContext,
        tables: &[Table],
    ) -> Result<Self, SinkError> {
        let mut prepared = Vec::with_capacity(tables.len());
        for table in tables {
            let prepare = async |sql: String| {
                let statement = client.prepare(&sql).await;
                statement.map_err(|it| match sink_error(&it) {
                    SinkError::Failed { message } => {
                        SinkError::failed(format!("table `{}`: {message}", table.name))
                    }
                    other => other,
                })
            };
            prepared.push(Prepared {
                upsert: prepare(statements::upsert(table)).await?,
                delete: prepare(statements::delete(table)).await?,
                table: table.clone(),
            });
        }
        Ok(Self {
            client,
            sink: context.group.clone(),
            topic_ids: offsets::topic_ids(context),
            tables: prepared.into(),
            generations: BTreeMap::new(),
        })
    }

    async fn write_all(&mut self, batches: &[SinkBatch]) -> Result<u64, SinkError> {
        let mut batches: Vec<&SinkBatch> = batches.iter().collect();
        // ORDER: every writer takes the locks of its partitions in the same one.
        batches.sort_by(|one, other| one.partition.cmp(&other.partition));
        let mut changes = Vec::with_capacity(self.tables.len());
        for prepared in self.tables.iter() {
            changes.push(changes_of(&prepared.table, &batches)?);
        }
        match self.commit(&batches, &changes).await {
            Ok(rows) => Ok(rows),
            Err(Failure::Moved(partitions)) => Err(SinkError::Superseded { partitions }),
            Err(Failure::Database(error)) if meaning(&error) == Meaning::Data => {
                self.find_refused(&batches, &error).await
            }
            Err(Failure::Database(error)) => Err(sink_error(&error)),
        }
    }

    async fn commit(
        &mut self,
        batches: &[&SinkBatch],
        changes: &[Changes],
    ) -> Result<u64, Failure> {
        let transaction = self.client.transaction().await?;
        let mut moved = Vec::new();
        for batch in batches {
            let generation = self.generations.get(&batch.partition).copied().unwrap_or(0);
            if !offsets::advance(&transaction, &self.sink, batch, generation).await? {
                moved.push(batch.partition.clone());
            }
        }
        if !moved.is_empty() {
            transaction.rollback().await?;
            return Err(Failure::Moved(moved));
        }
        let mut rows = 0;
        for (prepared, changes) in self.tables.iter().zip(changes) {
            rows += apply(&transaction, prepared, changes).await?;
        }
        transaction.commit().await?;
        Ok(rows)
    }

    /// The database refused data that fits the description, such as by a check constraint: finds the
    /// partition that it came from, by trying each alone and rolling back.
    async fn find_refused(
        &mut self,
        batches: &[&SinkBatch],
        refusal: &Error,
    ) -> Result<u64, SinkError> {
        for batch in batches {
            let transaction = self
                .client
                .transaction()
                .await
                .map_err(|it| sink_error(&it))?;
            for prepared in self.tables.iter() {
                let changes = changes_of(&prepared.table, &[batch])?;
                if let Err(error) = apply(&transaction, prepared, &changes).await {
                    if meaning(&error) != Meaning::Data {
                        return Err(sink_error(&error));
                    }
                    return Err(SinkError::Refused {
                        partition: batch.partition.clone(),
                        offset: None,
                        message: text(&error),
                    });
                }
            }
            transaction.rollback().await.map_err(|it| sink_error(&it))?;
        }
        Err(SinkError::failed(text(refusal)))
    }
}

fn changes_of(table: &Table, batches: &[&SinkBatch]) -> Result<Changes, SinkError> {
    let mut changes = Changes::default();
    for batch in batches
        .iter()
        .filter(|batch| *batch.declared == *table.topic)
    {
        changes
            .add(table, batch)
            .map_err(|misfit| SinkError::Refused {
                partition: batch.partition.clone(),
                offset: Some(misfit.offset),
                message: misfit.problem,
            })?;
    }
    Ok(changes)
}

/// Deletes and writes rows; returns how many.
async fn apply(
    transaction: &Transaction<'_>,
    prepared: &Prepared,
    changes: &Changes,
) -> Result<u64, Error> {
    let mut rows = 0;
    let deletes = changes.deletes(&prepared.table);
    if deletes.first().is_some_and(|keys| !keys.is_empty()) {
        let parameters: Vec<&(dyn ToSql + Sync)> = deletes
            .iter()
            .map(|column| column as &(dyn ToSql + Sync))
            .collect();
        rows += transaction.execute(&prepared.delete, &parameters).await?;
    }
    let upserts = changes.upserts(&prepared.table);
    if upserts.first().is_some_and(|column| !column.is_empty()) {
        let parameters: Vec<&(dyn ToSql + Sync)> = upserts
            .iter()
            .map(|column| column as &(dyn ToSql + Sync))
            .collect();
        rows += transaction.execute(&prepared.upsert, &parameters).await?;
    }
    Ok(rows)
}

impl SinkSession for PostgresSession {
    fn resume<'a>(&'a mut self, partitions: &'a [SinkPartition]) -> SinkFuture<'a, Vec<Offset>> {
        Box::pin(async move {
            let (sink, topic_ids) = (&self.sink, &self.topic_ids);
            let stored = offsets::resume(&mut self.client, sink, topic_ids, partitions).await?;
            for (asked, stored) in partitions.iter().zip(&stored) {
                self.generations
                    .insert(asked.partition.clone(), stored.generation);
            }
            Ok(stored.iter().map(|stored| stored.next_offset).collect())
        })
    }

    fn write<'a>(&'a mut self, batches: &'a [SinkBatch]) -> SinkFuture<'a, u64> {
        Box::pin(self.write_all(batches))
    }

    fn check<'a>(&'a mut self, positions: &'a [(TopicPartition, Offset)]) -> SinkFuture<'a, ()> {
        Box::pin(async move {
            let believed: Vec<(TopicPartition, Stored)> = positions
                .iter()
                .map(|(partition, next_offset)| {
                    let generation = self.generations.get(partition).copied().unwrap_or(0);
                    let stored = Stored {
                        next_offset: *next_offset,
                        generation,
                    };
                    (partition.clone(), stored)
                })
                .collect();
            let partitions = offsets::moved(&self.client, &self.sink, &believed).await?;
            if partitions.is_empty() {
                Ok(())
            } else {
                Err(SinkError::Superseded { partitions })
            }
        })
    }
}
