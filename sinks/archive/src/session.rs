//! Writing: a file, then the manifest that lists it.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream::log::{Offset, TopicPartition};
use millstream::sink::{
    SinkBatch, SinkContext, SinkError, SinkFuture, SinkPartition, SinkRecord, SinkSession,
};

use crate::codec::{Encoded, Origin, decode, encode, file_name};
use crate::manifest::{FileEntry, Manifest};
use crate::store::{Created, Store};

/// A writer of an archive.
pub(crate) struct ArchiveSession {
    store: Store,
    level: i32,
    /// By topic: which creation of it, in hexadecimal digits.
    topic_ids: BTreeMap<String, String>,
    /// The latest manifest of each partition, and where it ends.
    manifests: BTreeMap<TopicPartition, (Manifest, Offset)>,
}

impl ArchiveSession {
    pub(crate) fn new(store: Store, level: i32, context: &SinkContext) -> Self {
        let topics = context.topics.iter();
        Self {
            store,
            level,
            topic_ids: topics
                .map(|topic| (topic.name.to_string(), hexadecimal(&topic.id)))
                .collect(),
            manifests: BTreeMap::new(),
        }
    }

    fn topic_id(&self, partition: &TopicPartition) -> &str {
        let id = self.topic_ids.get(&*partition.topic);
        id.map_or("", String::as_str)
    }

    /// Finds where a partition's archive ends, having listed the file that a killed process left.
    async fn resume_one(&mut self, asked: &SinkPartition) -> Result<Offset, SinkError> {
        let partition = &asked.partition;
        let topic_id = self.topic_id(partition).to_owned();
        let mut manifest = match self.store.manifest(partition).await? {
            Some(manifest) => manifest,
            None => self.begin(asked, &topic_id).await?,
        };
        if manifest.topic_id != topic_id {
            return Err(SinkError::failed(format!(
                "the archive of {partition} is of a topic that was deleted and created again since: \
                 archive the new one elsewhere"
            )));
        }
        loop {
            let end = manifest.end().unwrap_or(asked.log_start);
            let name = file_name(end);
            if !self.store.names(partition).await?.contains(&name) {
                self.manifests.insert(partition.clone(), (manifest, end));
                return Ok(end);
            }
            let entry = self.adopt(partition, &name, &topic_id, end).await?;
            tracing::info!(%partition, file = name, "a file that no manifest lists is adopted");
            manifest = self.publish(partition, &manifest, entry).await?;
        }
    }

    /// Begins an archive where the topic begins now. Stored before anything else is: whoever asks
    /// later must hear the same, although retention moves the topic's start.
    async fn begin(&self, asked: &SinkPartition, topic_id: &str) -> Result<Manifest, SinkError> {
        let partition = &asked.partition;
        let (topic, number) = (&partition.topic, partition.partition);
        let empty = Manifest::new(topic, topic_id, number, asked.log_start);
        // Another one may have begun it meanwhile, elsewhere, and have got further: the store tells.
        self.store.publish(partition, &empty).await?;
        let begun = self.store.manifest(partition).await?;
        begun.ok_or_else(|| {
            SinkError::unavailable(format!("the manifest of {partition} is not there yet"))
        })
    }

    /// Checks a file that no manifest lists: it was put there whole, by a process that was killed
    /// before it could list it.
    async fn adopt(
        &self,
        partition: &TopicPartition,
        name: &str,
        topic_id: &str,
        first: Offset,
    ) -> Result<FileEntry, SinkError> {
        let shown = self.store.shown(partition, name);
        let bytes = self.store.get(partition, name).await?;
        let (heading, _, entry) = unblocked(move || decode(&bytes))
            .await?
            .map_err(|problem| SinkError::failed(format!("file {shown} {problem}")))?;
        let fits = heading.topic == *partition.topic
            && heading.topic_id == topic_id
            && heading.partition == partition.partition
            && entry.first_offset == first
            && entry.name == name;
        if fits {
            Ok(entry)
        } else {
            Err(SinkError::failed(format!(
                "file {shown} is not what its name says"
            )))
        }
    }

    async fn publish(
        &self,
        partition: &TopicPartition,
        manifest: &Manifest,
        entry: FileEntry,
    ) -> Result<Manifest, SinkError> {
        let next = manifest.with(entry);
        match self.store.publish(partition, &next).await? {
            Created::Yes => Ok(next),
            // Another owner, or this one before its answer was lost: the manifest tells.
            Created::Exists => Err(SinkError::Superseded {
                partitions: vec![partition.clone()],
            }),
        }
    }

    async fn write_one(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        let partition = &batch.partition;
        let superseded = || SinkError::Superseded {
            partitions: vec![partition.clone()],
        };
        let known = self.manifests.get(partition);
        let Some((manifest, _)) = known.filter(|(_, end)| *end == batch.expected) else {
            return Err(superseded());
        };
        let manifest = manifest.clone();
        let range = (batch.expected, batch.next);
        let records: Arc<[SinkRecord]> = batch.records.as_slice().into();
        let (topic_id, level) = (self.topic_id(partition).to_owned(), self.level);
        let at = partition.clone();
        let Encoded { entry, compressed } = unblocked(move || {
            let origin = Origin {
                topic: &at.topic,
                topic_id: &topic_id,
                partition: at.partition,
            };
            encode(origin, range, &records, level)
        })
        .await?
        .map_err(SinkError::failed)?;
        // ORDER: the file, then the manifest: what is listed is there.
        let created = self.store.create(partition, &entry.name, compressed);
        if created.await? == Created::Exists {
            // Another owner was here, or this one before its answer was lost: the file is adopted.
            return Err(superseded());
        }
        let next = self.publish(partition, &manifest, entry).await?;
        self.manifests.insert(partition.clone(), (next, batch.next));
        Ok(())
    }
}

/// Does what takes a processor a while where it holds nobody up.
pub(crate) async fn unblocked<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SinkError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SinkError::failed(format!("a bug: {error}")))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl SinkSession for ArchiveSession {
    fn resume<'a>(&'a mut self, partitions: &'a [SinkPartition]) -> SinkFuture<'a, Vec<Offset>> {
        Box::pin(async move {
            let mut ends = Vec::with_capacity(partitions.len());
            for asked in partitions {
                ends.push(self.resume_one(asked).await?);
            }
            Ok(ends)
        })
    }

    fn write<'a>(&'a mut self, batches: &'a [SinkBatch]) -> SinkFuture<'a, u64> {
        Box::pin(async move {
            let mut files = 0;
            for batch in batches.iter().filter(|batch| !batch.records.is_empty()) {
                match self.write_one(batch).await {
                    Ok(()) => files += 1,
                    // Those before were written: all ask where they stand.
                    Err(SinkError::Superseded { .. }) => {
                        let partitions = batches.iter().map(|batch| batch.partition.clone());
                        return Err(SinkError::Superseded {
                            partitions: partitions.collect(),
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(files)
        })
    }

    fn check<'a>(&'a mut self, positions: &'a [(TopicPartition, Offset)]) -> SinkFuture<'a, ()> {
        Box::pin(async move {
            let mut moved = Vec::new();
            for (partition, position) in positions {
                let end = self.store.manifest(partition).await?;
                if let Some(end) = end.and_then(|manifest| manifest.end())
                    && end != *position
                {
                    moved.push(partition.clone());
                }
            }
            if moved.is_empty() {
                Ok(())
            } else {
                Err(SinkError::Superseded { partitions: moved })
            }
        })
    }
}
