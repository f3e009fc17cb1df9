//! One memory budget per process: what `memory.max` is spent on.
//!
//! | share | for |
//! | --- | --- |
//! | 40 % | RocksDB: one block cache for all tasks, which memtables are charged to (at most half of it) |
//! | 25 % | overlays: uncommitted writes and clean entries of all stores |
//! | 15 % | records read and not yet processed |
//! | 20 % | librdkafka's fetch and send queues |
//!
//! Kafka Streams has a block cache of 50 MiB and three memtables of 16 MiB *per store and partition*,
//! which is what gets its containers killed.

use std::fmt;

use rocksdb::{Cache, LruCacheOptions, WriteBufferManager};

const ROCKSDB_PERCENT: usize = 40;
const OVERLAY_PERCENT: usize = 25;
const RECORD_BUFFER_PERCENT: usize = 15;
const CLIENT_PERCENT: usize = 20;
const _: () =
    assert!(ROCKSDB_PERCENT + OVERLAY_PERCENT + RECORD_BUFFER_PERCENT + CLIENT_PERCENT == 100);

/// The process's memory, split. Cheap to clone; clones share the caches.
#[derive(Clone)]
pub struct MemoryBudget {
    max: usize,
    block_cache: Cache,
    write_buffers: WriteBufferManager,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl MemoryBudget {
    /// Splits `max` bytes (`memory.max`).
    #[must_use]
    pub fn new(max: usize) -> Self {
        let rocksdb = share(max, ROCKSDB_PERCENT);
        let mut options = LruCacheOptions::default();
        options.set_capacity(rocksdb);
        let block_cache = Cache::new_lru_cache_opts(&options);
        // No stalls: the manager only flushes a database that is being written, so a writer could
        // wait for memory that an idle one holds until its flush by time.
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            rocksdb / 2,
            false,
            block_cache.clone(),
        );
        Self {
            max,
            block_cache,
            write_buffers,
        }
    }

    /// Returns `memory.max`.
    #[must_use]
    pub const fn max_bytes(&self) -> usize {
        self.max
    }

    /// Returns what RocksDB gets: blocks, indexes, filters and memtables of all tasks.
    #[must_use]
    pub const fn rocksdb_bytes(&self) -> usize {
        share(self.max, ROCKSDB_PERCENT)
    }

    /// Returns what the overlays of all stores get, uncommitted and clean entries together.
    #[must_use]
    pub const fn overlay_bytes(&self) -> usize {
        share(self.max, OVERLAY_PERCENT)
    }

    /// Returns what records that were read and not processed get.
    #[must_use]
    pub const fn record_buffer_bytes(&self) -> usize {
        share(self.max, RECORD_BUFFER_PERCENT)
    }

    /// Returns what the log's clients get for their queues.
    #[must_use]
    pub const fn client_queue_bytes(&self) -> usize {
        share(self.max, CLIENT_PERCENT)
    }

    /// Returns what RocksDB uses now, for metrics: block cache with memtables.
    #[must_use]
    pub fn rocksdb_usage_bytes(&self) -> usize {
        self.block_cache.get_usage()
    }

    /// Returns what memtables use now, for metrics.
    #[must_use]
    pub fn memtable_usage_bytes(&self) -> usize {
        self.write_buffers.get_usage()
    }

    pub(super) const fn block_cache(&self) -> &Cache {
        &self.block_cache
    }

    pub(super) const fn write_buffers(&self) -> &WriteBufferManager {
        &self.write_buffers
    }
}

const fn share(max: usize, percent: usize) -> usize {
    // Divides first: `max * percent` could overflow on 32 bits.
    max / 100 * percent
}
