//! The stored offsets: where a sink stands, and the fence that its writes pass.

use std::collections::BTreeMap;

use millstream::log::{Offset, TopicPartition};
use millstream::sink::{SinkBatch, SinkContext, SinkError, SinkPartition};
use tokio_postgres::{Client, Transaction};

use crate::errors::sink_error;
use crate::statements::quoted;
use crate::table::Table;

/// By topic: which creation of it, in hexadecimal digits. Without those whose cluster does not say.
pub(crate) type TopicIds = BTreeMap<String, String>;

pub(crate) fn topic_ids(context: &SinkContext) -> TopicIds {
    let topics = context.topics.iter();
    topics
        .filter(|topic| topic.id != [0; 16])
        .map(|topic| {
            let digits = topic.id.iter().map(|byte| format!("{byte:02x}"));
            (topic.name.to_string(), digits.collect())
        })
        .collect()
}

/// What is stored for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) next_offset: Offset,
    pub(crate) generation: i64,
}

/// Makes the tables this sink's, unless they are another one's.
pub(crate) async fn claim(
    client: &mut Client,
    sink: &str,
    tables: &[Table],
) -> Result<(), SinkError> {
    let transaction = client.transaction().await.map_err(|it| sink_error(&it))?;
    register(&transaction, sink).await?;
    for table in tables {
        transaction
            .execute(
                "INSERT INTO millstream_tables (table_name, sink) VALUES ($1, $2) \
                 ON CONFLICT DO NOTHING",
                &[&table.name, &sink],
            )
            .await
            .map_err(|it| sink_error(&it))?;
        let row = transaction
            .query_one(
                "SELECT sink FROM millstream_tables WHERE table_name = $1",
                &[&table.name],
            )
            .await
            .map_err(|it| sink_error(&it))?;
        let owner: String = row.get(0);
        if owner != sink {
            return Err(SinkError::failed(format!(
                "table `{}` is filled by `{owner}`, and by one sink only: give `{sink}` a `schema` \
                 of its own",
                table.name
            )));
        }
    }
    transaction.commit().await.map_err(|it| sink_error(&it))
}

async fn register(transaction: &Transaction<'_>, sink: &str) -> Result<(), SinkError> {
    transaction
        .execute(
            "INSERT INTO millstream_sinks (sink, generation) VALUES ($1, 1) ON CONFLICT DO NOTHING",
            &[&sink],
        )
        .await
        .map(drop)
        .map_err(|it| sink_error(&it))
}

/// Returns where partitions stand; those that stand nowhere start at their log's start. Refuses those
/// that stand in a topic of the same name that is no more.
pub(crate) async fn resume(
    client: &mut Client,
    sink: &str,
    topic_ids: &TopicIds,
    partitions: &[SinkPartition],
) -> Result<Vec<Stored>, SinkError> {
    let transaction = client.transaction().await.map_err(|it| sink_error(&it))?;
    // ORDER: the generation first, so that a rebuild is over or has not begun.
    let row = transaction
        .query_one(
            "SELECT generation FROM millstream_sinks WHERE sink = $1 FOR SHARE",
            &[&sink],
        )
        .await
        .map_err(|it| sink_error(&it))?;
    let generation: i64 = row.get(0);
    let mut stored = Vec::with_capacity(partitions.len());
    for SinkPartition {
        partition,
        log_start,
    } in partitions
    {
        let (topic, number) = (&*partition.topic, partition.partition);
        let topic_id = topic_ids.get(topic);
        transaction
            .execute(
                "INSERT INTO millstream_offsets \
                 (sink, topic, partition, next_offset, generation, topic_id) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                &[&sink, &topic, &number, log_start, &generation, &topic_id],
            )
            .await
            .map_err(|it| sink_error(&it))?;
        let row = transaction
            .query_one(
                "SELECT next_offset, generation, topic_id FROM millstream_offsets \
                 WHERE sink = $1 AND topic = $2 AND partition = $3",
                &[&sink, &topic, &number],
            )
            .await
            .map_err(|it| sink_error(&it))?;
        let of_id: Option<String> = row.get(2);
        match (&of_id, topic_id) {
            (Some(of_id), Some(topic_id)) if of_id != topic_id => {
                return Err(SinkError::failed(format!(
                    "the tables have `{topic}` as it was before it was deleted and created again: \
                     `millstream rebuild-sink` starts over with the new one"
                )));
            }
            // Stored before ids were.
            (None, Some(_)) => {
                transaction
                    .execute(
                        "UPDATE millstream_offsets SET topic_id = $4 \
                         WHERE sink = $1 AND topic = $2 AND partition = $3 AND topic_id IS NULL",
                        &[&sink, &topic, &number, &topic_id],
                    )
                    .await
                    .map_err(|it| sink_error(&it))?;
            }
            (Some(_) | None, Some(_) | None) => {}
        }
        stored.push(Stored {
            next_offset: row.get(0),
            generation: row.get(1),
        });
    }
    transaction.commit().await.map_err(|it| sink_error(&it))?;
    Ok(stored)
}

/// Moves a partition's offset; returns whether it was the expected one.
pub(crate) async fn advance(
    transaction: &Transaction<'_>,
    sink: &str,
    batch: &SinkBatch,
    generation: i64,
) -> Result<bool, tokio_postgres::Error> {
    let (topic, number) = (&*batch.partition.topic, batch.partition.partition);
    let moved = transaction
        .execute(
            "UPDATE millstream_offsets SET next_offset = $1, updated_at = now() \
             WHERE sink = $2 AND topic = $3 AND partition = $4 \
             AND next_offset = $5 AND generation = $6",
            &[
                &batch.next,
                &sink,
                &topic,
                &number,
                &batch.expected,
                &generation,
            ],
        )
        .await?;
    Ok(moved == 1)
}

/// Returns the partitions that do not stand where they are believed to.
pub(crate) async fn moved(
    client: &Client,
    sink: &str,
    believed: &[(TopicPartition, Stored)],
) -> Result<Vec<TopicPartition>, SinkError> {
    let rows = client
        .query(
            "SELECT topic, partition, next_offset, generation FROM millstream_offsets \
             WHERE sink = $1",
            &[&sink],
        )
        .await
        .map_err(|it| sink_error(&it))?;
    let found: Vec<(TopicPartition, Stored)> = rows
        .iter()
        .map(|row| {
            let partition = TopicPartition::new(row.get::<_, &str>(0), row.get(1));
            let stored = Stored {
                next_offset: row.get(2),
                generation: row.get(3),
            };
            (partition, stored)
        })
        .collect();
    let moved = believed.iter().filter(|one| !found.contains(one));
    Ok(moved.map(|(partition, _)| partition.clone()).collect())
}

/// Empties the tables and forgets the offsets, under a new generation; returns that.
pub(crate) async fn rebuild(
    client: &mut Client,
    sink: &str,
    tables: &[Table],
) -> Result<i64, SinkError> {
    let transaction = client.transaction().await.map_err(|it| sink_error(&it))?;
    let row = transaction
        .query_one(
            "UPDATE millstream_sinks SET generation = generation + 1 WHERE sink = $1 \
             RETURNING generation",
            &[&sink],
        )
        .await
        .map_err(|it| sink_error(&it))?;
    let generation: i64 = row.get(0);
    // ORDER: as writers take them, or the two would wait for each other.
    transaction
        .execute(
            "SELECT 1 FROM millstream_offsets WHERE sink = $1 ORDER BY topic, partition FOR UPDATE",
            &[&sink],
        )
        .await
        .map_err(|it| sink_error(&it))?;
    transaction
        .execute("DELETE FROM millstream_offsets WHERE sink = $1", &[&sink])
        .await
        .map_err(|it| sink_error(&it))?;
    let names: Vec<String> = tables.iter().map(|table| quoted(&table.name)).collect();
    transaction
        .batch_execute(&format!("TRUNCATE {}", names.join(", ")))
        .await
        .map_err(|it| sink_error(&it))?;
    transaction.commit().await.map_err(|it| sink_error(&it))?;
    Ok(generation)
}
