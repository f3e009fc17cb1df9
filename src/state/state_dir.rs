//! The state directory: one owner at a time, an identity that outlives restarts, and what was set
//! aside.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::StateError;
use crate::clock::Timestamp;
use crate::format::names;
use crate::topology::TaskId;

/// How many directories per task are kept after they were set aside: enough to see what went wrong,
/// too few to fill a disk.
pub const SET_ASIDE_KEPT: usize = 2;

/// A state directory that this process owns until the value is dropped or the process ends.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    process_id: String,
    /// Holds the lock.
    _lock: File,
}

impl StateDir {
    /// Takes the directory, creating it when it is missing. `new_process_id` makes an identity if the
    /// directory has none yet.
    ///
    /// # Errors
    /// [`StateError::Locked`] names the directory and the owner's pid; [`StateError::Io`] when the
    /// directory cannot be written.
    pub fn open(path: &Path, new_process_id: impl FnOnce() -> String) -> Result<Self, StateError> {
        fs::create_dir_all(path).map_err(|error| io("created", path, error))?;
        let lock = take_lock(path)?;
        let process_id = process_id(path, new_process_id)?;
        Ok(Self {
            path: path.to_path_buf(),
            process_id,
            _lock: lock,
        })
    }

    /// Returns the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the identity of whoever owns this directory: the same after a restart.
    #[must_use]
    pub fn process_id(&self) -> &str {
        &self.process_id
    }

    /// Returns the directory of a task's RocksDB.
    #[must_use]
    pub fn task_dir(&self, task: TaskId) -> PathBuf {
        names::task_directory(&self.path, task)
    }

    /// Returns the tasks that have a directory here, in order: what this process can restore
    /// cheaply.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn tasks(&self) -> Result<Vec<TaskId>, StateError> {
        let mut tasks: Vec<_> = file_names(&self.path)?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        tasks.sort();
        Ok(tasks)
    }

    /// See [`set_aside`].
    ///
    /// # Errors
    /// As there.
    pub fn set_aside(&self, task: TaskId, now: Timestamp) -> Result<Option<PathBuf>, StateError> {
        set_aside(&self.task_dir(task), now)
    }
}

fn take_lock(path: &Path) -> Result<File, StateError> {
    let file_path = path.join(names::LOCK_FILE);
    // Not truncated: the pid in it is the owner's until the lock is ours.
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file_path)
        .map_err(|error| io("opened", &file_path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&file_path).unwrap_or_default();
            let pid = pid.trim();
            let owner = if pid.is_empty() {
                String::new()
            } else {
                format!(" (pid {pid})")
            };
            return Err(StateError::Locked {
                path: path.to_path_buf(),
                owner,
            });
        }
        Err(TryLockError::Error(error)) => return Err(io("locked", &file_path, error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|error| io("written", &file_path, error))?;
    Ok(file)
}

/// Reads the process id, or creates it: on disk, whole, before anyone uses it.
fn process_id(path: &Path, new_id: impl FnOnce() -> String) -> Result<String, StateError> {
    let file_path = path.join(names::PROCESS_ID_FILE);
    match fs::read_to_string(&file_path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => tracing::warn!(path = %file_path.display(), "empty process id, making a new one"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("read", &file_path, error)),
    }
    let id = new_id();
    let temporary = file_path.with_extension("new");
    let write = || {
        let mut file = File::create(&temporary)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&temporary, &file_path)
    };
    write().map_err(|error| io("written", &file_path, error))?;
    Ok(id)
}

/// Renames a task's directory to `<task>.set-aside-<now>`, and deletes the oldest of those beyond
/// [`SET_ASIDE_KEPT`]. Returns where it went; `None` when there is none. The database must be closed.
///
/// # Errors
/// [`StateError::Io`] when it cannot be renamed.
pub fn set_aside(task_dir: &Path, now: Timestamp) -> Result<Option<PathBuf>, StateError> {
    if !task_dir.exists() {
        return Ok(None);
    }
    let name = task_dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut at = now;
    let mut target = task_dir.with_file_name(names::set_aside_name(&name, at));
    while target.exists() {
        at += 1;
        target = task_dir.with_file_name(names::set_aside_name(&name, at));
    }
    fs::rename(task_dir, &target).map_err(|error| io("set aside", task_dir, error))?;
    tracing::warn!(from = %task_dir.display(), to = %target.display(), "state set aside");
    if let Some(parent) = task_dir.parent() {
        prune(parent, &name)?;
    }
    Ok(Some(target))
}

fn prune(parent: &Path, task_dir_name: &str) -> Result<(), StateError> {
    let mut aside: Vec<_> = file_names(parent)?
        .into_iter()
        .filter_map(|name| Some((names::set_aside_time(task_dir_name, &name)?, name)))
        .collect();
    aside.sort();
    let surplus = aside.len().saturating_sub(SET_ASIDE_KEPT);
    for (_, name) in aside.into_iter().take(surplus) {
        let path = parent.join(name);
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "old state cannot be deleted");
        }
    }
    Ok(())
}

fn file_names(path: &Path) -> Result<Vec<String>, StateError> {
    let entries = fs::read_dir(path).map_err(|error| io("read", path, error))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

fn io(operation: &'static str, path: &Path, error: std::io::Error) -> StateError {
    StateError::Io {
        operation,
        path: path.to_path_buf(),
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<StateDir, StateError> {
        StateDir::open(path, || "new-id".to_owned())
    }

    #[test]
    fn a_second_owner_is_refused_and_told_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        let refused = open(dir.path()).unwrap_err();
        assert!(matches!(&refused, StateError::Locked { .. }), "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains(&format!("pid {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains(dir.path().to_str().unwrap()), "{text}");
        drop(first);
        open(dir.path()).unwrap();
    }

    #[test]
    fn the_process_id_is_created_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert_eq!(
            StateDir::open(&path, || "a".to_owned())
                .unwrap()
                .process_id(),
            "a"
        );
        assert_eq!(
            StateDir::open(&path, || "b".to_owned())
                .unwrap()
                .process_id(),
            "a"
        );
        fs::write(path.join(names::PROCESS_ID_FILE), "").unwrap();
        assert_eq!(
            StateDir::open(&path, || "c".to_owned())
                .unwrap()
                .process_id(),
            "c"
        );
    }

    #[test]
    fn a_directory_that_cannot_be_created_is_an_io_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = open(&file.path().join("state")).unwrap_err();
        assert!(
            matches!(
                error,
                StateError::Io {
                    operation: "created",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn only_the_newest_set_aside_directories_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path()).unwrap();
        let task = TaskId {
            sub_topology: 0,
            partition: 1,
        };
        let other = TaskId {
            sub_topology: 0,
            partition: 10,
        };
        assert_eq!(state.set_aside(task, 5).unwrap(), None);
        for now in [10, 10, 20] {
            fs::create_dir(state.task_dir(task)).unwrap();
            fs::write(state.task_dir(task).join("data"), now.to_string()).unwrap();
            fs::create_dir_all(state.task_dir(other)).unwrap();
            assert_eq!(state.tasks().unwrap(), [task, other]);
            let target = state.set_aside(task, now).unwrap().unwrap();
            assert!(target.join("data").exists());
        }
        let mut left = file_names(dir.path()).unwrap();
        left.retain(|name| name.contains("set-aside"));
        left.sort();
        assert_eq!(
            left,
            ["0_1.set-aside-0000000000011", "0_1.set-aside-0000000000020"]
        );
        assert_eq!(state.tasks().unwrap(), [other]);
    }
}
