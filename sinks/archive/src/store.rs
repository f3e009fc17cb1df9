//! Objects of an archive: named, created once, listed.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures::TryStreamExt;
use millstream::log::TopicPartition;
use millstream::sink::SinkError;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::manifest::Manifest;

const MANIFEST_PREFIX: &str = "manifest-";
const MANIFEST_SUFFIX: &str = ".json";
/// Manifests of a partition that are kept behind the latest: for whoever reads while one is written.
const MANIFESTS_KEPT: usize = 3;

/// Where an archive is.
#[derive(Clone)]
pub(crate) struct Store {
    place: Place,
    prefix: Path,
}

#[derive(Clone)]
enum Place {
    Opened(Arc<dyn ObjectStore>),
    /// A directory, made by the first who writes to it.
    Directory(PathBuf, Arc<OnceLock<Arc<dyn ObjectStore>>>),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Whether an object was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    Yes,
    /// There is one of this name.
    Exists,
}

impl Store {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        let place = Place::Opened(store);
        Self { place, prefix }
    }

    pub(crate) fn in_directory(directory: PathBuf) -> Self {
        Self {
            place: Place::Directory(directory, Arc::default()),
            prefix: Path::default(),
        }
    }

    fn objects(&self) -> Result<Arc<dyn ObjectStore>, SinkError> {
        match &self.place {
            Place::Opened(store) => Ok(Arc::clone(store)),
            Place::Directory(directory, opened) => {
                if let Some(store) = opened.get() {
                    return Ok(Arc::clone(store));
                }
                let problem = |error: String| {
                    SinkError::failed(format!("directory {}: {error}", directory.display()))
                };
                std::fs::create_dir_all(directory).map_err(|error| problem(error.to_string()))?;
                // Flushed to disk before it counts as stored: a manifest must not survive its file.
                let store = LocalFileSystem::new_with_prefix(directory)
                    .map_err(|error| problem(error.to_string()))?
                    .with_fsync(true);
                let store: Arc<dyn ObjectStore> = Arc::new(store);
                Ok(Arc::clone(opened.get_or_init(|| store)))
            }
        }
    }

    fn folder(&self, partition: &TopicPartition) -> Path {
        self.prefix
            .clone()
            .join(&*partition.topic)
            .join(partition.partition.to_string())
    }

    /// Creates an object, whole or not at all.
    pub(crate) async fn create(
        &self,
        partition: &TopicPartition,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<Created, SinkError> {
        let path = self.folder(partition).join(name);
        let options = PutOptions::from(PutMode::Create);
        let put = self
            .objects()?
            .put_opts(&path, PutPayload::from(bytes), options)
            .await;
        match put {
            Ok(_) => Ok(Created::Yes),
            Err(Error::AlreadyExists { .. }) => Ok(Created::Exists),
            Err(error) => Err(sink_error(&path, &error)),
        }
    }

    pub(crate) async fn get(
        &self,
        partition: &TopicPartition,
        name: &str,
    ) -> Result<Vec<u8>, SinkError> {
        self.get_at(&self.folder(partition).join(name)).await
    }

    async fn get_at(&self, path: &Path) -> Result<Vec<u8>, SinkError> {
        let wrong = |error| sink_error(path, &error);
        let found = self.objects()?.get(path).await.map_err(wrong)?;
        Ok(found.bytes().await.map_err(wrong)?.to_vec())
    }

    /// Returns the names of a partition's objects, sorted.
    pub(crate) async fn names(&self, partition: &TopicPartition) -> Result<Vec<String>, SinkError> {
        let folder = self.folder(partition);
        let listed = self.objects()?.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| sink_error(&folder, &error))?;
        let objects = listed.objects.iter();
        let names = objects.filter_map(|object| object.location.filename());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the partitions of a topic that have anything.
    pub(crate) async fn partitions(&self, topic: &str) -> Result<Vec<i32>, SinkError> {
        let folder = self.prefix.clone().join(topic);
        let listed: Result<Vec<_>, Error> = self.objects()?.list(Some(&folder)).try_collect().await;
        let listed = listed.map_err(|error| sink_error(&folder, &error))?;
        let mut partitions: Vec<i32> = listed
            .iter()
            .filter_map(|object| {
                let mut parts = object.location.prefix_match(&folder)?;
                parts.next()?.as_ref().parse().ok()
            })
            .collect();
        partitions.sort_unstable();
        partitions.dedup();
        Ok(partitions)
    }

    /// Returns the latest manifest of a partition.
    pub(crate) async fn manifest(
        &self,
        partition: &TopicPartition,
    ) -> Result<Option<Manifest>, SinkError> {
        // One that was listed may be swept away by a writer that is three ahead: then look again.
        loop {
            let names = self.names(partition).await?;
            let Some(name) = names.iter().rev().find(|name| is_manifest(name)) else {
                return Ok(None);
            };
            let path = self.folder(partition).join(name.as_str());
            match self.objects()?.get(&path).await {
                Ok(found) => {
                    let bytes = found.bytes().await.map_err(|it| sink_error(&path, &it))?;
                    let manifest = Manifest::parse(&bytes);
                    return manifest.map(Some).map_err(|problem| {
                        SinkError::failed(format!("manifest {path} {problem}"))
                    });
                }
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(sink_error(&path, &error)),
            }
        }
    }

    /// Makes a manifest the latest, unless another one has its number.
    pub(crate) async fn publish(
        &self,
        partition: &TopicPartition,
        manifest: &Manifest,
    ) -> Result<Created, SinkError> {
        let bytes = manifest
            .to_bytes()
            .map_err(|error| SinkError::failed(error.to_string()))?;
        let name = format!(
            "{MANIFEST_PREFIX}{:020}{MANIFEST_SUFFIX}",
            manifest.sequence
        );
        let created = self.create(partition, &name, bytes).await?;
        if created == Created::Yes {
            self.sweep(partition).await;
        }
        Ok(created)
    }

    /// Deletes manifests that nobody reads any more. What stays is deleted the next time.
    async fn sweep(&self, partition: &TopicPartition) {
        let (Ok(objects), Ok(mut names)) = (self.objects(), self.names(partition).await) else {
            return;
        };
        names.retain(|name| is_manifest(name));
        for name in names.iter().rev().skip(1 + MANIFESTS_KEPT) {
            let path = self.folder(partition).join(name.as_str());
            if let Err(error) = objects.delete(&path).await {
                tracing::debug!(%path, %error, "an old manifest stays");
            }
        }
    }

    /// Returns where an object is, for people.
    pub(crate) fn shown(&self, partition: &TopicPartition, name: &str) -> String {
        self.folder(partition).join(name).to_string()
    }
}

fn is_manifest(name: &str) -> bool {
    name.starts_with(MANIFEST_PREFIX) && name.ends_with(MANIFEST_SUFFIX)
}

fn sink_error(path: &Path, error: &Error) -> SinkError {
    let message = format!("object {path}: {error}");
    match error {
        Error::NotFound { .. }
        | Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::UnknownConfigurationKey { .. } => SinkError::failed(message),
        _ => SinkError::unavailable(message),
    }
}
