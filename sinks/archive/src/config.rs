//! What a configuration says under `sinks.<name>`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millstream::config::{ConfigErrors, DurationValue, Parameters, SizeValue};
use millstream::sink::{BadRecords, SinkBounds};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, parse_url_opts};
use serde::Deserialize;
use url::Url;

use crate::store::Store;

/// How often an archive that does nothing checks its offsets: each check asks the store.
const CHECK_INTERVAL: Duration = Duration::from_mins(1);
/// How long a file may take to be stored: within the group's `max.poll.interval.ms` of five minutes,
/// with what comes before and after.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Limits of the settings.
const FILE_BYTES: (u64, u64) = (64 << 10, 1 << 30);
const FILE_RECORDS_MAX: usize = 10_000_000;
const MAX_AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));
const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// The settings of an archive.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveParameters {
    /// A directory of this machine, or of a mounted file system. Either this or `url`.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// A place in an object store, such as `s3://bucket/prefix`. What it takes is a feature of the
    /// build (`s3`, `gcs`, `azure`).
    #[serde(default)]
    pub url: Option<String>,
    /// The store's settings by `object_store`'s names, such as `region`; take secrets from the
    /// environment.
    #[serde(default)]
    pub options: Options,
    /// A file is written when its records have this size, before compression. Default `32MiB`. Higher:
    /// fewer files, more memory. Each partition of this process buffers as much.
    #[serde(default = "file_bytes")]
    pub file_bytes: SizeValue,
    /// Records of a file, at most. Default 1000000.
    #[serde(default = "file_records")]
    pub file_records: usize,
    /// How long a record may wait for its file to fill. Default `1h`. It has to stay far below the
    /// topics' retention: what is deleted before it was archived is lost.
    #[serde(default = "max_age")]
    pub max_age: DurationValue,
    /// zstd's compression level, 1 to 19. Default 3.
    #[serde(default = "level")]
    pub level: i32,
}

/// Settings of a store, which may be secrets.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub struct Options(BTreeMap<String, String>);

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

const fn file_bytes() -> SizeValue {
    SizeValue(32 << 20)
}

const fn file_records() -> usize {
    1_000_000
}

const fn max_age() -> DurationValue {
    DurationValue(Duration::from_hours(1))
}

const fn level() -> i32 {
    3
}

/// What the settings come to.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) store: Store,
    pub(crate) bounds: SinkBounds,
    pub(crate) level: i32,
}

impl ArchiveParameters {
    /// Checks what serde cannot; connects to nothing and creates nothing.
    pub(crate) fn check(self, parameters: &Parameters) -> Result<Checked, ConfigErrors> {
        let refuse = |message: String| Err(parameters.refuse(message));
        let (SizeValue(bytes), DurationValue(max_age)) = (self.file_bytes, self.max_age);
        if !(FILE_BYTES.0..=FILE_BYTES.1).contains(&bytes) {
            return refuse("`file_bytes` must be between 64KiB and 1GiB".to_owned());
        }
        if !(1..=FILE_RECORDS_MAX).contains(&self.file_records) {
            return refuse(format!(
                "`file_records` must be between 1 and {FILE_RECORDS_MAX}"
            ));
        }
        if !(MAX_AGE.0..=MAX_AGE.1).contains(&max_age) {
            return refuse("`max_age` must be between 1s and 24h".to_owned());
        }
        if !LEVELS.contains(&self.level) {
            return refuse("`level` must be between 1 and 19".to_owned());
        }
        let store = match (self.directory, self.url) {
            (Some(directory), None) => Store::in_directory(directory),
            (None, Some(url)) => match open(&url, &self.options) {
                Ok((store, prefix)) => Store::new(store, prefix),
                Err(problem) => return refuse(format!("`url`: {problem}")),
            },
            (Some(_), Some(_)) | (None, None) => {
                return refuse("say where: either `directory` or `url`".to_owned());
            }
        };
        let bounds = SinkBounds {
            records: self.file_records,
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            linger: max_age,
            timeout: TIMEOUT,
            check_interval: CHECK_INTERVAL,
            // Nothing in a record can be wrong for an archive.
            bad_records: BadRecords::Stop,
        };
        Ok(Checked {
            store,
            bounds,
            level: self.level,
        })
    }
}

fn open(url: &str, options: &Options) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    if url.scheme() == "file" {
        // Flushed to disk before it counts as stored: a manifest must not survive its file.
        let store = LocalFileSystem::new().with_fsync(true);
        let prefix = Path::from_url_path(url.path()).map_err(|error| error.to_string())?;
        return Ok((Arc::new(store), prefix));
    }
    let options = options.0.iter().map(|(key, value)| (key, value.clone()));
    let (store, prefix) = parse_url_opts(&url, options).map_err(|error| error.to_string())?;
    Ok((store.into(), prefix))
}
