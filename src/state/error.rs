//! Why a store cannot go on. Every variant stops the task; the variant says what happens next.

use std::path::PathBuf;

use crate::processor::BoxError;

/// A failed store operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Stored bytes do not decode: the value's type changed, or the data is damaged.
    #[error("store `{store}` holds bytes that do not decode")]
    Decode {
        /// The store.
        store: String,
        /// What the serde said.
        #[source]
        source: BoxError,
    },
    /// A value could not be serialised.
    #[error("store `{store}` cannot serialise an entry")]
    Encode {
        /// The store.
        store: String,
        /// What the serde said.
        #[source]
        source: BoxError,
    },
    /// The local data is damaged: set it aside and restore from the changelog.
    #[error("state in {} is damaged", path.display())]
    Corrupted {
        /// The task's directory.
        path: PathBuf,
        /// What RocksDB said.
        #[source]
        source: BoxError,
    },
    /// The disk is full, read-only or failing: stop reading, keep trying.
    #[error("state in {} cannot be {operation}", path.display())]
    Io {
        /// What was attempted, as a participle (`written`, `opened`).
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: BoxError,
    },
    /// Another process holds the directory.
    #[error("state directory {} is in use by another process{owner}", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// ` (pid …)`, where known.
        owner: String,
    },
    /// The task was closed or has moved: ask whoever runs it now.
    #[error("state in {} is closed", path.display())]
    Closed {
        /// The task's directory.
        path: PathBuf,
    },
    /// The task has no store of this name.
    #[error("there is no store `{store}`")]
    UnknownStore {
        /// The name that was asked for.
        store: String,
    },
}

/// What was wrong under one key: says which.
#[derive(Debug, thiserror::Error)]
#[error("the value under key `{key}`")]
struct AtKey {
    key: String,
    #[source]
    source: BoxError,
}

/// How much of a key an error shows.
const SHOWN_KEY_BYTES: usize = 64;

/// Adds the key, as text where it is, to what a serde said of its value.
pub(super) fn at_key(key: &[u8], source: BoxError) -> BoxError {
    let shown = key.get(..SHOWN_KEY_BYTES).unwrap_or(key);
    let mut text = shown.escape_ascii().to_string();
    if shown.len() < key.len() {
        text.push('…');
    }
    AtKey { key: text, source }.into()
}
