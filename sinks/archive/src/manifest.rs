//! The manifest of a partition: which files there are, in the order of their offsets.

use millstream::clock::Timestamp;
use millstream::log::Offset;
use millstream::sink::PastRange;
use serde::{Deserialize, Serialize};

/// What a manifest calls itself.
const FORMAT: &str = "millstream-archive-manifest";
/// The version that is written; no other is read.
const VERSION: u32 = 1;

/// The files of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    format: String,
    version: u32,
    /// Counts the manifests of the partition; the highest is the one that holds.
    pub sequence: u64,
    /// The topic's name in the cluster.
    pub topic: String,
    /// Which creation of the topic, in hexadecimal digits.
    pub topic_id: String,
    /// The partition.
    pub partition: i32,
    /// Where the archive begins: where the topic did when the first came to archive it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_offset: Option<Offset>,
    /// The files, without a gap between them.
    pub files: Vec<FileEntry>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Its name, beside the manifest.
    pub name: String,
    /// The first offset that it covers.
    pub first_offset: Offset,
    /// The offset after the last that it covers.
    pub end_offset: Offset,
    /// The number of records; offsets have holes.
    pub records: u64,
    /// The lowest timestamp.
    pub min_timestamp: Timestamp,
    /// The highest timestamp.
    pub max_timestamp: Timestamp,
    /// Its size.
    pub compressed_bytes: u64,
    /// The size of what is compressed in it.
    pub bytes: u64,
    /// SHA-256 of what is compressed in it, in hexadecimal digits: another release of the
    /// compressor may compress it otherwise.
    pub sha256: String,
}

impl FileEntry {
    pub(crate) fn range(&self) -> PastRange {
        PastRange {
            first: self.first_offset,
            end: self.end_offset,
            min_timestamp: self.min_timestamp,
            max_timestamp: self.max_timestamp,
        }
    }
}

impl Manifest {
    /// Starts a manifest.
    pub(crate) fn new(topic: &str, topic_id: &str, partition: i32, start: Offset) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            sequence: 0,
            topic: topic.to_owned(),
            topic_id: topic_id.to_owned(),
            partition,
            start_offset: Some(start),
            files: Vec::new(),
        }
    }

    /// Returns the manifest that also has `file`.
    pub(crate) fn with(&self, file: FileEntry) -> Self {
        let mut next = self.clone();
        next.sequence += 1;
        next.files.push(file);
        next
    }

    /// Returns where the archive ends, which is where it begins while it is empty.
    #[must_use]
    pub fn end(&self) -> Option<Offset> {
        let last = self.files.last().map(|file| file.end_offset);
        last.or(self.start_offset)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("is no manifest but `{}`", manifest.format));
        }
        if manifest.version != VERSION {
            return Err(format!(
                "has version {}, and this program reads {VERSION}",
                manifest.version
            ));
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks that the files follow each other.
    fn check(&self) -> Result<(), String> {
        for file in &self.files {
            if file.first_offset < 0 || file.first_offset >= file.end_offset {
                return Err(format!("file {} covers no offset", file.name));
            }
        }
        if let (Some(start), Some(file)) = (self.start_offset, self.files.first())
            && file.first_offset != start
        {
            return Err(format!(
                "begins at {start}, but its first file {} at {}",
                file.name, file.first_offset
            ));
        }
        for pair in self.files.windows(2) {
            let [one, other] = pair else { continue };
            if one.end_offset != other.first_offset {
                return Err(format!(
                    "has a gap or an overlap: {} ends at {}, {} begins at {}",
                    one.name, one.end_offset, other.name, other.first_offset
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: Offset, end: Offset) -> FileEntry {
        FileEntry {
            name: format!("{first}-{end}"),
            first_offset: first,
            end_offset: end,
            records: 1,
            min_timestamp: 0,
            max_timestamp: 0,
            compressed_bytes: 0,
            bytes: 0,
            sha256: String::new(),
        }
    }

    #[test]
    fn a_manifest_with_a_gap_or_of_another_version_is_refused() {
        let empty = Manifest::new("events", "00", 1, 0);
        let manifest = empty.with(file(0, 5)).with(file(5, 9));
        let parse = |manifest: &Manifest| Manifest::parse(&manifest.to_bytes().unwrap());
        assert_eq!(parse(&manifest), Ok(manifest.clone()));
        assert_eq!((manifest.sequence, manifest.end()), (2, Some(9)));
        assert_eq!(parse(&empty).map(|it| it.end()), Ok(Some(0)));
        for (wrong, problem) in [
            (manifest.with(file(10, 11)), "gap or an overlap"),
            (manifest.with(file(8, 11)), "gap or an overlap"),
            (manifest.with(file(9, 9)), "covers no offset"),
            (empty.with(file(3, 9)), "its first file 3-9 at 3"),
        ] {
            let refused = parse(&wrong).unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
        let later = Manifest {
            version: 2,
            ..manifest
        };
        assert!(parse(&later).unwrap_err().contains("version 2"));
    }
}
