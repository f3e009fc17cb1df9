//! The journal of a log that lives in a directory.
//!
//! # Position
//! [`Core::change`](super::core::Core::change) writes each [`Mutation`] here before it applies it;
//! opening applies them all again.
//! # Invariants
//! - Frames reach the file in the order of the changes: what a crash leaves is a prefix.
//! - What is [urgent](Mutation::is_urgent), commits above all, has been handed to the operating
//!   system before the caller is answered: it survives `kill -9`. Records of open transactions may
//!   wait in the buffer, since without their commit they are nothing. Power loss is survived with
//!   [`Durability::Power`] only.
//! - One process per directory: a file lock.
//! # Failure
//! - A torn tail is cut off, with a warning. Damage that whole frames follow is no torn tail: opening
//!   is refused.
//! - A failed write leaves the file as it was, and may be tried again. After a failed `fsync`
//!   nothing is known of the file, and nothing more is written.

use std::fs::{File, OpenOptions as FileOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::core::ChangeError;
use super::mutation::Mutation;
use super::state::State;
use super::{codec, frame};

/// The most that waits in memory to be written.
const BUFFER_MAX: usize = 1024 * 1024;
const JOURNAL: &str = "journal";
const JOURNAL_NEW: &str = "journal.new";
const LOCK: &str = "LOCK";

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The death of the process, by `kill -9` too: written to the operating system.
    #[default]
    Process,
    /// The loss of power: synchronised to the device (`fdatasync`) as well.
    Power,
}

/// How a directory is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// What a commit survives.
    pub durability: Durability,
    /// The journal is rewritten when it is longer than this and twice what is live, in bytes.
    /// Default: 64 MiB.
    pub rewrite_min_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            rewrite_min_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Why a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another log of this one, has the directory open.
    #[error("directory {} of the embedded log is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The file is no journal, or one of another version.
    #[error("{} is not a journal that this version reads", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The journal is damaged in its middle: a part of what was committed is missing.
    #[error("{} is damaged at byte {at}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage begins.
        at: u64,
        /// What is wrong.
        problem: String,
    },
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    file: File,
    /// Held as long as the journal is.
    _lock: File,
    options: OpenOptions,
    /// The length of the file, all of it whole frames.
    written: u64,
    /// Frames that follow, not yet in the file.
    buffer: Vec<u8>,
    /// The length at which to see next whether to rewrite.
    check_at: u64,
    broken: Option<String>,
}

impl Journal {
    /// Opens or creates the journal in `dir` and rebuilds the state from it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) fn open(dir: &Path, options: OpenOptions) -> Result<(Self, State), OpenError> {
        let failed = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io {
                operation,
                path,
                source,
            }
        };
        std::fs::create_dir_all(dir).map_err(failed("create", dir))?;
        let lock = lock(dir)?;
        let path = dir.join(JOURNAL);
        let mut file = FileOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("open", &path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(failed("read", &path))?;
        let (state, good) = replay(&path, &bytes)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if good < length {
            let torn = length - good;
            tracing::warn!(path = %path.display(), torn, "the journal's torn tail is cut off");
        }
        file.set_len(good).map_err(failed("cut", &path))?;
        file.seek(SeekFrom::End(0)).map_err(failed("seek", &path))?;
        let mut journal = Self {
            dir: dir.to_path_buf(),
            file,
            _lock: lock,
            options,
            written: good,
            buffer: Vec::new(),
            check_at: options.rewrite_min_bytes,
            broken: None,
        };
        if good == 0 {
            journal.buffer.extend_from_slice(&frame::FILE_HEADER);
            journal.write_buffer().map_err(failed("write", &path))?;
        }
        Ok((journal, state))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a mutation; an urgent one is written before this returns.
    ///
    /// # Errors
    /// [`ChangeError`]: then the mutation is not in the journal.
    pub(super) fn append(&mut self, mutation: &Mutation) -> Result<(), ChangeError> {
        self.check()?;
        let before = self.buffer.len();
        frame::put(&mut self.buffer, |out| codec::encode(mutation, out));
        if !mutation.is_urgent() && self.buffer.len() < BUFFER_MAX {
            return Ok(());
        }
        let flushed = self.flush();
        if flushed.is_err() {
            self.buffer.truncate(before);
        }
        flushed
    }

    /// Writes everything that waits.
    ///
    /// # Errors
    /// [`ChangeError`]: it still waits.
    pub(super) fn flush(&mut self) -> Result<(), ChangeError> {
        self.check()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.write_buffer() {
            // What was written of it must go, or the next write would follow a torn frame.
            let restored = self
                .file
                .set_len(self.written)
                .and_then(|()| self.file.seek(SeekFrom::End(0)));
            return Err(match restored {
                Ok(_) => ChangeError::NotWritten(format!("{}: {error}", self.dir.display())),
                Err(worse) => self.break_down(&worse),
            });
        }
        if self.options.durability == Durability::Power
            && let Err(error) = self.file.sync_data()
        {
            return Err(self.break_down(&error));
        }
        Ok(())
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.written += u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        self.buffer.clear();
        Ok(())
    }

    fn check(&self) -> Result<(), ChangeError> {
        match &self.broken {
            None => Ok(()),
            Some(message) => Err(ChangeError::Broken(message.clone())),
        }
    }

    fn break_down(&mut self, error: &io::Error) -> ChangeError {
        let message = format!("{}: the journal is in doubt: {error}", self.dir.display());
        self.broken = Some(message.clone());
        ChangeError::Broken(message)
    }

    /// Returns whether the journal has grown enough to see whether to rewrite it.
    pub(super) fn has_grown(&self) -> bool {
        self.written >= self.check_at
    }

    /// Rewrites the journal as `state`, when it is much longer than that takes.
    pub(super) fn shrink(&mut self, state: &State, live_bytes: u64) {
        let limit = self
            .options
            .rewrite_min_bytes
            .max(live_bytes.saturating_mul(2));
        self.check_at = limit;
        if self.written < limit || self.broken.is_some() {
            return;
        }
        match self.rewrite(state) {
            Ok(length) => {
                tracing::info!(dir = %self.dir.display(), before = self.written, after = length, "journal rewritten");
                self.written = length;
                // All that waited is in the new file.
                self.buffer.clear();
                self.check_at = self.options.rewrite_min_bytes.max(length.saturating_mul(2));
            }
            Err(error) => {
                // The old one is as good as before; half as much again is the next occasion.
                self.check_at = self.written.saturating_add(self.written / 2);
                tracing::warn!(dir = %self.dir.display(), %error, "journal not rewritten");
            }
        }
    }

    /// Writes the state beside the journal and puts it in the journal's place.
    fn rewrite(&mut self, state: &State) -> io::Result<u64> {
        let new = self.dir.join(JOURNAL_NEW);
        let mut out = BufWriter::new(
            FileOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&new)?,
        );
        out.write_all(&frame::FILE_HEADER)?;
        let mut bytes = Vec::new();
        for mutation in state.snapshot() {
            bytes.clear();
            frame::put(&mut bytes, |put| codec::encode(&mutation, put));
            out.write_all(&bytes)?;
        }
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        // ORDER: the new file is on the device before its name is, whatever the durability: a
        // rename that outlives its content would lose the whole log.
        file.sync_all()?;
        let length = file.seek(SeekFrom::End(0))?;
        std::fs::rename(&new, self.dir.join(JOURNAL))?;
        self.file = file;
        if let Err(error) = File::open(&self.dir).and_then(|dir| dir.sync_all()) {
            tracing::warn!(dir = %self.dir.display(), %error, "directory not synchronised");
        }
        Ok(length)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(?error, "the journal's last changes are lost");
        }
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let opened = FileOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let lock = match opened {
        Ok(lock) => lock,
        Err(source) => {
            return Err(OpenError::Io {
                operation: "open",
                path,
                source,
            });
        }
    };
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            dir: dir.to_path_buf(),
        }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io {
            operation: "lock",
            path,
            source,
        }),
    }
}

/// Rebuilds the state; returns it with the length of what is whole.
fn replay(path: &Path, bytes: &[u8]) -> Result<(State, u64), OpenError> {
    let position = |rest: &[u8]| u64::try_from(bytes.len() - rest.len()).unwrap_or(u64::MAX);
    let mut state = State::default();
    let Some(mut rest) = bytes.strip_prefix(&frame::FILE_HEADER) else {
        // A crash may have torn the header itself.
        return if frame::FILE_HEADER.starts_with(bytes) {
            Ok((state, 0))
        } else {
            Err(OpenError::Foreign {
                path: path.to_path_buf(),
            })
        };
    };
    while let Some((payload, after)) = frame::take(rest) {
        let damaged = |problem: String| OpenError::Damaged {
            path: path.to_path_buf(),
            at: position(rest),
            problem,
        };
        let mutation = codec::decode(payload).map_err(|error| damaged(error.to_string()))?;
        state
            .apply(mutation)
            .map_err(|error| damaged(error.to_string()))?;
        rest = after;
    }
    if frame::any_whole(rest) {
        let problem = "whole entries follow a broken one".to_owned();
        return Err(OpenError::Damaged {
            path: path.to_path_buf(),
            at: position(rest),
            problem,
        });
    }
    Ok((state, position(rest)))
}
