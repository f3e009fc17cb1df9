//! The parts of the hot path, one by one: `scripts/bench micro`.
//!
//! Numbers here say which part has become slower; what a record costs in all says `balances_kafka`.
#![expect(clippy::expect_used, reason = "a bench has nobody to report to")]

#[path = "support/balances.rs"]
mod balances;
#[path = "support/events.rs"]
mod events;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use millstream::event_sourcing::Envelope;
use millstream::serde as serdes;
use millstream::serde::Serde;

use balances::{Balance, BalanceChanged};
use events::Events;

const ACCOUNTS: usize = 100_000;
/// Keys that one commit changes: of 100,000 accounts at a high rate, about this many in 100 ms.
const KEYS_PER_COMMIT: usize = 10_000;
/// Calls per sample of what takes less than a few microseconds: one is within the noise of a clock.
const SMALL: u32 = 1000;

fn main() {
    divan::main();
}

fn key(account: usize) -> String {
    let mut key = Vec::new();
    events::write_key(account, &mut key).expect("a Vec takes all");
    String::from_utf8(key).expect("keys are ASCII")
}

/// Key and JSON of an event in the middle of a run.
fn event() -> (Vec<u8>, Vec<u8>) {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut events = Events::new(1, 1);
    for _ in 0..100 {
        events
            .next()
            .write(&mut random, &mut key, &mut value)
            .expect("a Vec takes all");
    }
    (key, value)
}

/// A task's store on its RocksDB, as the runtime puts it together.
mod store {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;

    use millstream::clock::Timestamp;
    use millstream::state::{
        CommitBatch, DirtySink, KeyValueStore, Layout, MemoryBudget, StateError, StateStore,
        StoreDecl, StoreId, TaskDb,
    };
    use millstream::topology::Persistence;

    use super::{Balance, balances, key, serdes};

    pub(super) struct Store {
        pub(super) front: KeyValueStore<String, Balance>,
        pub(super) keys: Vec<String>,
        db: TaskDb,
        _dir: tempfile::TempDir,
    }

    struct Batch<'a>(&'a mut CommitBatch, StoreId);

    impl DirtySink for Batch<'_> {
        fn entry(
            &mut self,
            key: &[u8],
            value: Option<&[u8]>,
            timestamp: Timestamp,
        ) -> Result<(), StateError> {
            self.0.entry(self.1, key, value, timestamp)
        }
    }

    impl Store {
        /// Opens an empty store that keeps `cache_bytes` of committed entries typed.
        pub(super) fn open(accounts: usize, cache_bytes: usize) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let decl = StoreDecl {
                name: balances::STORE.to_owned(),
                persistence: Persistence::RocksDb,
                layout: Layout::KeyValue,
                keeps_headers: false,
            };
            let budget = MemoryBudget::new(512 * 1024 * 1024);
            let db = TaskDb::open(dir.path(), &[decl], &budget).expect("the database opens");
            let front = KeyValueStore::new(
                balances::STORE.to_owned(),
                db.backend(balances::STORE).expect("the store is there"),
                Arc::new(serdes::string()),
                Arc::new(serdes::json::<Balance>()),
                Rc::new(Cell::new(0)),
                cache_bytes,
            );
            Self {
                front,
                keys: (0..accounts).map(key).collect(),
                db,
                _dir: dir,
            }
        }

        pub(super) fn put(&mut self, account: usize, version: u64) {
            let key = self.keys.get(account).expect("an account of this store");
            let balance = Balance {
                version,
                balance: rust_decimal::Decimal::new(123_456, 2),
            };
            self.front
                .put(key.clone(), balance)
                .expect("the key has bytes");
            self.front.release_savepoint();
        }

        /// Brings what was put into RocksDB, as a commit does.
        pub(super) fn commit(&mut self) {
            let mut batch = self.db.batch();
            let id = self
                .db
                .store_id(balances::STORE)
                .expect("the store is there");
            self.front
                .drain_dirty(&mut Batch(&mut batch, id))
                .expect("balances have bytes");
            self.db.apply(batch, 0).expect("the batch is written");
            self.front.mark_committed();
        }

        /// Fills the store and brings all of it to disk.
        pub(super) fn fill(&mut self) {
            for account in 0..self.keys.len() {
                self.put(account, 1);
            }
            self.commit();
            self.db.flush().expect("the flush succeeds");
        }
    }
}

/// Per item: one key put, serialised, and written with the batch of its commit.
mod store_put {
    use super::store::Store;
    use super::{ACCOUNTS, Bencher, ItemsCount, KEYS_PER_COMMIT};

    #[divan::bench(sample_count = 50)]
    fn rocksdb(bencher: Bencher<'_, '_>) {
        let mut store = Store::open(ACCOUNTS, 64 * 1024 * 1024);
        let mut random = fastrand::Rng::with_seed(1);
        let mut version = 0;
        bencher
            .counter(ItemsCount::new(KEYS_PER_COMMIT))
            .bench_local(|| {
                version += 1;
                for _ in 0..KEYS_PER_COMMIT {
                    store.put(random.usize(..ACCOUNTS), version);
                }
                store.commit();
            });
    }
}

/// One random key of 100,000.
mod store_get {
    use super::store::Store;
    use super::{ACCOUNTS, Bencher, SMALL, black_box};

    /// The key is typed in memory already.
    #[divan::bench(sample_size = SMALL)]
    fn overlay(bencher: Bencher<'_, '_>) {
        get(bencher, 1024 * 1024 * 1024);
    }

    /// The key is read from RocksDB and parsed: nothing is kept.
    #[divan::bench(sample_size = SMALL)]
    fn rocksdb(bencher: Bencher<'_, '_>) {
        get(bencher, 0);
    }

    fn get(bencher: Bencher<'_, '_>, cache_bytes: usize) {
        let mut store = Store::open(ACCOUNTS, cache_bytes);
        store.fill();
        let mut random = fastrand::Rng::with_seed(1);
        bencher.bench_local(|| {
            let key = store
                .keys
                .get(random.usize(..ACCOUNTS))
                .expect("an account of this store");
            let balance = store.front.get(key).expect("the store is read");
            assert!(balance.is_some(), "every account was filled");
            black_box(balance)
        });
    }
}

mod decimal {
    use super::{Bencher, SMALL, Serde, black_box, serdes};

    #[divan::bench(sample_size = SMALL)]
    fn parse(bencher: Bencher<'_, '_>) {
        let serde = serdes::decimal();
        bencher.bench(|| {
            serde
                .deserialize(Some(black_box(b"-12345.67")))
                .expect("a decimal")
        });
    }
}

/// One JSON event of about 420 B.
mod event {
    use super::{BalanceChanged, Bencher, BytesCount, Envelope, SMALL, Serde, black_box, serdes};

    /// What workload A takes of it, typed.
    #[divan::bench(sample_size = SMALL)]
    fn parse(bencher: Bencher<'_, '_>) {
        let (_, json) = super::event();
        let serde = serdes::json::<BalanceChanged>();
        bencher
            .counter(BytesCount::new(json.len()))
            .bench(|| serde.deserialize(Some(black_box(&json))).expect("an event"));
    }

    /// The whole envelope, checked, borrowed.
    #[divan::bench(sample_size = SMALL)]
    fn envelope(bencher: Bencher<'_, '_>) {
        let (_, json) = super::event();
        bencher.counter(BytesCount::new(json.len())).bench(|| {
            let envelope = Envelope::parse(black_box(&json)).expect("an event");
            envelope.aggregate_version
        });
    }
}

/// What is written with every commit beside the data.
mod checkpoint {
    use millstream::format::checkpoint::{ChangelogPosition, Checkpoint, InputPosition};
    use millstream::log::TopicPartition;

    use super::{Bencher, SMALL, balances, black_box};

    #[divan::bench(sample_size = SMALL)]
    fn encode(bencher: Bencher<'_, '_>) {
        let mut checkpoint = Checkpoint::default();
        let changelog = ChangelogPosition {
            topic_id: [7; 16],
            next_offset: 1 << 40,
            fresh_at: Some(1 << 40),
        };
        checkpoint
            .changelogs
            .insert(balances::STORE.to_owned(), changelog);
        let input = InputPosition {
            next_offset: 1 << 40,
            partition_time: Some(1 << 40),
        };
        checkpoint
            .inputs
            .insert(TopicPartition::new(balances::EVENTS, 0), input);
        checkpoint.stream_time = Some(1 << 40);
        bencher.bench(|| {
            let mut bytes = 0;
            black_box(&checkpoint).encode(|key, value| bytes += key.len() + value.len());
            bytes
        });
    }
}

/// One event through workload A on the embedded log: written, read, folded, committed, applied.
mod record {
    use millstream::log::Headers;
    use millstream::testing::TopologyTestDriver;

    use super::{Bencher, Events, balances};

    #[divan::bench(sample_count = 50, sample_size = 20)]
    fn embedded(bencher: Bencher<'_, '_>) {
        let topology = balances::topology().expect("the topology builds");
        let mut driver = TopologyTestDriver::new(topology).expect("the driver starts");
        let mut events = Events::new(1000, 1);
        let mut random = fastrand::Rng::with_seed(1);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let (now, headers) = (driver.now_ms(), Headers::new());
        bencher.bench_local(|| {
            events
                .next()
                .write(&mut random, &mut key, &mut value)
                .expect("a Vec takes all");
            driver
                .pipe_bytes(balances::EVENTS, Some(&key), Some(&value), now, &headers)
                .expect("the event is folded");
        });
    }
}
