//! CSV files, plain or compressed.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use millstream::packaged::FeedError;
use millstream::prelude::BoxError;
use ruzstd::decoding::StreamingDecoder;
use serde::de::DeserializeOwned;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Reads all rows of a file by the names in its header; other columns are ignored. The first bytes tell
/// how it is compressed.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, FeedError> {
    let input = open(path).map_err(|error| FeedError::read(path, error))?;
    let mut reader = csv::Reader::from_reader(input);
    let mut rows = Vec::new();
    for (row, read) in reader.deserialize().enumerate() {
        rows.push(read.map_err(|error: csv::Error| FeedError::Row {
            path: path.to_owned(),
            row: (row as u64).saturating_add(1),
            problem: error.to_string(),
        })?);
    }
    Ok(rows)
}

fn open(path: &Path) -> Result<Box<dyn Read>, BoxError> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    Read::by_ref(&mut file)
        .take(ZSTD.len() as u64)
        .read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    let file = BufReader::new(file);
    Ok(if head.starts_with(&GZIP) {
        Box::new(MultiGzDecoder::new(file))
    } else if head == ZSTD {
        Box::new(StreamingDecoder::new(file)?)
    } else {
        Box::new(file)
    })
}

/// Returns the file `name` in the folder of `path`, or its compressed form.
pub(super) fn beside(path: &Path, name: &str) -> Result<PathBuf, FeedError> {
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let forms = [String::new(), ".gz".to_owned(), ".zst".to_owned()];
    let mut candidates = forms
        .into_iter()
        .map(|form| folder.join(format!("{name}{form}")));
    candidates.find(|file| file.exists()).ok_or_else(|| {
        let missing = "it is needed beside the flights, as it is, with .gz or with .zst";
        FeedError::read(&folder.join(name), missing)
    })
}
