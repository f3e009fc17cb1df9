//! RocksDB: options, what its errors mean, and committed bytes in a column family.
//!
//! # Options
//! In the spirit of Kafka Streams' defaults: no WAL, universal compaction (fewest bytes written per
//! record, and state is small beside its changelog), Bloom filters, memtables of 16 MiB, blocks of
//! 4 KiB. Different here:
//! - **LZ4** instead of no compression: values are mostly JSON, compressing happens on flush and
//!   compaction threads, and more of the state fits the page cache.
//! - **One block cache and one write-buffer manager per process**, indexes and filters inside it.
//! - **Arena blocks of 64 KiB**: at the default (an eighth of a memtable) 200 tasks with three
//!   column families each would charge 600 MiB for next to nothing.
//! - **Memtables remember where the last entry went in**: a commit's entries come in key order, so that the
//!   next one's place is near, and not looked for from the top.
//! - **`avoid_flush_during_shutdown`**: dropping the database is what `kill -9` is, the unflushed tail
//!   is replayed from the changelog; a clean close flushes first.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, ColumnFamily, DB, DBCompactionStyle, DBCompressionType, DBIterator,
    DBRawIterator, ErrorKind, IteratorMode, LogLevel, Options, ReadOptions,
};

use super::task_db::Inner;
use super::{BytesIterator, BytesStore, MemoryBudget, StateError};

const MEMTABLE_BYTES: usize = 16 * 1024 * 1024;
const MEMTABLES_MAX: i32 = 3;
const ARENA_BLOCK_BYTES: usize = 64 * 1024;
const BLOCK_BYTES: usize = 4 * 1024;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const MANIFEST_PREALLOCATED_BYTES: usize = 64 * 1024;
const LOG_FILE_BYTES_MAX: usize = 1024 * 1024;
const LOG_FILES_KEPT: usize = 2;
/// One hint for all keys: their common prefix of no bytes.
const INSERT_HINT: &str = "memtable_insert_with_hint_prefix_extractor=capped:0";

/// Options of the database as a whole.
pub(super) fn db_options(budget: &MemoryBudget) -> Result<Options, rocksdb::Error> {
    let mut options = parsed(&format!("avoid_flush_during_shutdown=true;{INSERT_HINT}"))?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    options.set_write_buffer_manager(budget.write_buffers());
    options.set_manifest_preallocation_size(MANIFEST_PREALLOCATED_BYTES);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(LOG_FILE_BYTES_MAX);
    options.set_keep_log_file_num(LOG_FILES_KEPT);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    apply_column_family_options(&mut options, budget);
    Ok(options)
}

/// Options of each column family.
pub(super) fn column_family_options(budget: &MemoryBudget) -> Result<Options, rocksdb::Error> {
    let mut options = parsed(INSERT_HINT)?;
    apply_column_family_options(&mut options, budget);
    Ok(options)
}

/// Returns the defaults with what the bindings have no setter for.
fn parsed(text: &str) -> Result<Options, rocksdb::Error> {
    Options::default().get_options_from_string(text)
}

fn apply_column_family_options(options: &mut Options, budget: &MemoryBudget) {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(budget.block_cache());
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(MEMTABLES_MAX);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_compaction_style(DBCompactionStyle::Universal);
    options.set_compression_type(DBCompressionType::Lz4);
}

/// What a RocksDB error means for the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Corrupted,
    Locked,
    Io,
}

fn meaning(kind: &ErrorKind, message: &str) -> Meaning {
    match kind {
        ErrorKind::Corruption
        // Opening: unknown table or manifest versions, column families that do not fit.
        | ErrorKind::NotSupported
        | ErrorKind::InvalidArgument
        | ErrorKind::NotFound
        | ErrorKind::ColumnFamilyDropped => Meaning::Corrupted,
        ErrorKind::IOError if message.contains("lock file") || message.contains("lock hold") => {
            Meaning::Locked
        }
        // A file that the manifest names is gone, or the whole directory.
        ErrorKind::IOError if message.contains("No such file or directory") => Meaning::Corrupted,
        ErrorKind::IOError
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::Unknown => Meaning::Io,
    }
}

/// Maps a RocksDB error to the recovery it asks for.
pub(super) fn state_error(
    error: rocksdb::Error,
    operation: &'static str,
    path: &Path,
) -> StateError {
    let path = path.to_path_buf();
    match meaning(&error.kind(), error.as_ref()) {
        Meaning::Corrupted => StateError::Corrupted {
            path,
            source: Box::new(error),
        },
        Meaning::Locked => StateError::Locked {
            path,
            owner: String::new(),
        },
        Meaning::Io => StateError::Io {
            operation,
            path,
            source: Box::new(error),
        },
    }
}

/// Committed bytes of one store in its task's RocksDB.
#[derive(Debug, Clone)]
pub(super) struct RocksStore {
    pub(super) inner: Arc<Inner>,
    pub(super) column_family: String,
}

impl RocksStore {
    fn error(&self, error: rocksdb::Error) -> StateError {
        state_error(error, "read", &self.inner.path)
    }
}

/// Returns a column family's handle.
pub(super) fn handle<'a>(
    db: &'a DB,
    path: &Path,
    column_family: &str,
) -> Result<&'a ColumnFamily, StateError> {
    db.cf_handle(column_family)
        .ok_or_else(|| StateError::Corrupted {
            path: path.to_path_buf(),
            source: format!("column family `{column_family}` is missing").into(),
        })
}

/// Iterates over `from..to` of a column family.
pub(super) fn range<'a>(
    db: &'a DB,
    handle: &ColumnFamily,
    from: &[u8],
    to: Option<&[u8]>,
    reverse: bool,
) -> DBIterator<'a> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    if let Some(to) = to {
        options.set_iterate_upper_bound(to);
    }
    let mode = if reverse {
        IteratorMode::End
    } else {
        IteratorMode::Start
    };
    db.iterator_cf_opt(handle, options, mode)
}

impl BytesStore for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let db = &self.inner.db;
        let handle = handle(db, &self.inner.path, &self.column_family)?;
        db.get_cf(handle, key).map_err(|error| self.error(error))
    }

    fn range<'a>(&'a self, from: &[u8], to: Option<&[u8]>, reverse: bool) -> BytesIterator<'a> {
        // RocksDB takes an upper bound below the lower one for a broken caller.
        if to.is_some_and(|to| to <= from) {
            return Box::new(std::iter::empty());
        }
        let db = &self.inner.db;
        match handle(db, &self.inner.path, &self.column_family) {
            Err(error) => Box::new(std::iter::once(Err(error))),
            Ok(handle) => Box::new(
                range(db, handle, from, to, reverse)
                    .map(|entry| entry.map_err(|error| self.error(error))),
            ),
        }
    }

    fn approximate_count(&self) -> Result<u64, StateError> {
        let db = &self.inner.db;
        let handle = handle(db, &self.inner.path, &self.column_family)?;
        let count = db
            .property_int_value_cf(handle, rocksdb::properties::ESTIMATE_NUM_KEYS)
            .map_err(|error| self.error(error))?;
        Ok(count.unwrap_or(0))
    }
}

/// Returns whether a column family holds anything.
pub(super) fn has_data(db: &DB, handle: &ColumnFamily) -> Result<bool, rocksdb::Error> {
    let mut iterator: DBRawIterator<'_> = db.raw_iterator_cf(handle);
    iterator.seek_to_first();
    iterator.status()?;
    Ok(iterator.valid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meaning_of_an_error_decides_the_recovery() {
        let io = |message| meaning(&ErrorKind::IOError, message);
        assert_eq!(
            io("IO error: No space left on device: While appending to file: /s/0_0/000012.sst"),
            Meaning::Io
        );
        assert_eq!(
            io("IO error: While open a file: Read-only file system"),
            Meaning::Io
        );
        assert_eq!(
            io("IO error: While lock file: /s/LOCK: Resource temporarily unavailable"),
            Meaning::Locked
        );
        assert_eq!(
            io("IO error: lock hold by current process, acquire time 1"),
            Meaning::Locked
        );
        assert_eq!(
            io("IO error: No such file or directory: While open a file: /s/0_0/MANIFEST-000005"),
            Meaning::Corrupted
        );
        assert_eq!(
            meaning(&ErrorKind::Corruption, "Corruption: checksum"),
            Meaning::Corrupted
        );
        assert_eq!(
            meaning(&ErrorKind::Unknown, "Failed to create"),
            Meaning::Io
        );
    }
}
