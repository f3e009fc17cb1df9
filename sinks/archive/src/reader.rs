//! Reading back, and checking what was written.

use millstream::log::{TopicName, TopicPartition};
use millstream::sink::{PastRange, PastRecords, SinkContext, SinkError, SinkFuture, SinkRecord};

use crate::codec::decode;
use crate::manifest::FileEntry;
use crate::session::unblocked;
use crate::store::Store;

/// Reads an archive.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveReader {
    store: Store,
}

impl ArchiveReader {
    pub(crate) const fn new(store: Store) -> Self {
        Self { store }
    }

    async fn files(&self, partition: &TopicPartition) -> Result<Vec<FileEntry>, SinkError> {
        let manifest = self.store.manifest(partition).await?;
        Ok(manifest.map(|manifest| manifest.files).unwrap_or_default())
    }

    /// Reads a file and compares it with what the manifest says.
    async fn file(
        &self,
        partition: &TopicPartition,
        listed: &FileEntry,
    ) -> Result<Vec<SinkRecord>, SinkError> {
        let shown = self.store.shown(partition, &listed.name);
        let damaged = |problem: String| SinkError::failed(format!("file {shown} {problem}"));
        let bytes = self.store.get(partition, &listed.name).await?;
        let decoded = unblocked(move || decode(&bytes)).await?;
        let (_, records, found) =
            decoded.map_err(|problem| damaged(format!("is damaged: {problem}")))?;
        if found != *listed {
            return Err(damaged("is not the one that the manifest lists".to_owned()));
        }
        Ok(records)
    }

    /// Checks every file of the context's topics.
    pub(crate) async fn verify(&self, context: &SinkContext) -> Result<String, SinkError> {
        let (mut files, mut records) = (0_usize, 0_u64);
        let mut lines = Vec::new();
        for topic in &context.topics {
            for number in self.store.partitions(&topic.name).await? {
                let partition = TopicPartition::new(&*topic.name, number);
                let listed = self.files(&partition).await?;
                for file in &listed {
                    self.file(&partition, file).await?;
                    records += file.records;
                }
                files += listed.len();
                let first = listed.first().map_or(0, |file| file.first_offset);
                let end = listed.last().map_or(0, |file| file.end_offset);
                lines.push(format!(
                    "{partition}: offsets {first} to {end}, {} files",
                    listed.len()
                ));
            }
        }
        lines.push(format!(
            "{files} files with {records} records are as the manifests say"
        ));
        Ok(lines.join("\n"))
    }
}

impl PastRecords for ArchiveReader {
    fn partitions<'a>(&'a self, topic: &'a TopicName) -> SinkFuture<'a, Vec<i32>> {
        Box::pin(self.store.partitions(topic))
    }

    fn ranges<'a>(&'a self, partition: &'a TopicPartition) -> SinkFuture<'a, Vec<PastRange>> {
        Box::pin(async move {
            let files = self.files(partition).await?;
            Ok(files.iter().map(FileEntry::range).collect())
        })
    }

    fn records<'a>(
        &'a self,
        partition: &'a TopicPartition,
        range: PastRange,
    ) -> SinkFuture<'a, Vec<SinkRecord>> {
        Box::pin(async move {
            let files = self.files(partition).await?;
            let Some(file) = files.iter().find(|file| file.range() == range) else {
                return Err(SinkError::failed(format!(
                    "no file of {partition} covers offsets {} to {} (any more)",
                    range.first, range.end
                )));
            };
            self.file(partition, file).await
        })
    }
}
