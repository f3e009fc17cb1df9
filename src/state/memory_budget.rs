//! One memory budget per process: what `memory.max` is spent on.
//!
//! | share | for | kept by |
//! | --- | --- | --- |
//! | 40 % | RocksDB: one block cache for all tasks, which memtables are charged to (at most half of it) | the cache and its write-buffer manager |
//! | 25 % | overlays: one half uncommitted writes, one half clean entries | a commit that is due because the transaction is large; eviction |
//! | 15 % | records read and not yet processed | a partition over its part is not polled |
//! | 20 % | librdkafka's queues: one half fetched, one half to be sent | `queued.max.messages.kbytes`, `queue.buffering.max.kbytes` |
//!
//! All but the first are divided by the number of stream threads ([`MemoryShares::of_thread`]). The
//! limits are soft by one item: the record that crosses a limit is taken, a transaction ends behind
//! it. Kafka Streams has a block cache of 50 MiB and three memtables of 16 MiB *per store and
//! partition*, which is what gets its containers killed.

use std::fmt;

use rocksdb::{Cache, LruCacheOptions, WriteBufferManager};

const ROCKSDB_PERCENT: usize = 40;
const OVERLAY_PERCENT: usize = 25;
const RECORD_BUFFER_PERCENT: usize = 15;
const CLIENT_PERCENT: usize = 20;
const _: () =
    assert!(ROCKSDB_PERCENT + OVERLAY_PERCENT + RECORD_BUFFER_PERCENT + CLIENT_PERCENT == 100);
/// What a producer's queue holds at least: one record of the largest size (16 MiB) and another.
const SEND_QUEUE_MIN: usize = 32 << 20;
/// What is fetched ahead of one partition at least: below it every poll waits for a round trip.
const FETCH_QUEUE_MIN: usize = 256 << 10;

/// What `memory.max` is divided into: a pure function of it. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryShares {
    /// Blocks, indexes, filters and memtables of all tasks' RocksDBs.
    pub rocksdb: usize,
    /// Overlays of all stores: uncommitted and clean entries.
    pub overlays: usize,
    /// Records that were read and not processed.
    pub record_buffers: usize,
    /// The queues of the log's clients.
    pub clients: usize,
}

/// What one stream thread gets of [`MemoryShares`]. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadShares {
    /// Uncommitted entries of all its tasks: a transaction that reaches this is committed.
    pub uncommitted: usize,
    /// Clean entries that its tasks keep.
    pub cached: usize,
    /// Records buffered over all its partitions.
    pub buffered: usize,
    /// What its consumer fetches ahead, over all its partitions.
    pub fetched: usize,
    /// Its producer's queue. The process's producer of commands has one of the same size.
    pub sending: usize,
}

impl MemoryShares {
    /// Divides `max` bytes.
    #[must_use]
    pub const fn of(max: usize) -> Self {
        Self {
            rocksdb: share(max, ROCKSDB_PERCENT),
            overlays: share(max, OVERLAY_PERCENT),
            record_buffers: share(max, RECORD_BUFFER_PERCENT),
            clients: share(max, CLIENT_PERCENT),
        }
    }

    /// Returns what each of `threads` stream threads gets.
    #[must_use]
    pub fn of_thread(self, threads: usize) -> ThreadShares {
        let threads = threads.max(1);
        ThreadShares {
            uncommitted: self.overlays / 2 / threads,
            cached: self.overlays / 2 / threads,
            buffered: self.record_buffers / threads,
            fetched: self.clients / 2 / threads,
            sending: (self.clients / 2 / (threads + 1)).max(SEND_QUEUE_MIN),
        }
    }
}

impl ThreadShares {
    /// Returns what may be fetched ahead of each of `partitions`: librdkafka counts each partition's
    /// queue by itself.
    #[must_use]
    pub fn fetched_per_partition(self, partitions: usize) -> usize {
        (self.fetched / partitions.max(1)).max(FETCH_QUEUE_MIN)
    }
}

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
        let rocksdb = MemoryShares::of(max).rocksdb;
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

    /// Returns what `memory.max` is divided into.
    #[must_use]
    pub const fn shares(&self) -> MemoryShares {
        MemoryShares::of(self.max)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_leave_next_to_nothing_over() {
        for max in [64 << 20, 100_000_007, 512 << 20, 7 << 30] {
            let MemoryShares {
                rocksdb,
                overlays,
                record_buffers,
                clients,
            } = MemoryShares::of(max);
            let sum = rocksdb + overlays + record_buffers + clients;
            assert!(sum <= max && max - sum < 100, "{sum} of {max}");
        }
    }

    #[test]
    fn threads_divide_their_shares_and_no_more() {
        let shares = MemoryShares::of(8 << 30);
        for threads in 1..=12 {
            let one = shares.of_thread(threads);
            assert!(threads * (one.uncommitted + one.cached) <= shares.overlays);
            assert!(threads * one.buffered <= shares.record_buffers);
            let queues = threads * one.fetched + (threads + 1) * one.sending;
            assert!(queues <= shares.clients, "{threads} threads: {queues}");
            for partitions in [1, 3, 40] {
                assert!(partitions * one.fetched_per_partition(partitions) <= one.fetched);
            }
        }
        assert_eq!(shares.of_thread(0), shares.of_thread(1));
    }

    #[test]
    fn the_default_budget_commits_at_64_mib_per_process() {
        let one = MemoryShares::of(512 << 20).of_thread(1);
        assert!((63 << 20..=64 << 20).contains(&one.uncommitted), "{one:?}");
    }

    #[test]
    fn however_small_the_share_a_queue_takes_the_largest_record() {
        let one = MemoryShares::of(64 << 20).of_thread(16);
        assert!(one.sending > 16 << 20);
        assert!(one.fetched_per_partition(1000) >= FETCH_QUEUE_MIN);
    }
}
