//! Versioned stores on a task's database, against a model.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::serde::{i64 as int, string};
use crate::state::{CommitBatch, Layout, MemoryBudget, StoreDecl, TaskDb};
use crate::topology::Persistence;

const STORE: &str = "s";
const HISTORY: i64 = 20;

type Logged = (Vec<u8>, Option<Vec<u8>>, Timestamp);

fn open(dir: &Path, persistence: Persistence) -> TaskDb {
    let decl = StoreDecl {
        name: STORE.to_owned(),
        persistence,
        layout: Layout::Versioned(HISTORY),
        keeps_headers: false,
    };
    TaskDb::open(dir, &[decl], &MemoryBudget::new(16 << 20)).unwrap()
}

fn versions(db: &TaskDb) -> VersionedStore<String, i64> {
    let backend = db.backend(STORE).unwrap();
    let (key, value) = (Arc::new(string()), Arc::new(int()));
    let time = Rc::new(Cell::new(7));
    VersionedStore::new(
        STORE.to_owned(),
        backend,
        key,
        value,
        time,
        1 << 10,
        HISTORY,
    )
    .unwrap()
}

/// Writes a batch, and what the changelog gets.
struct Sink<'a>(CommitBatch, &'a mut Vec<Logged>, &'a TaskDb);

impl DirtySink for Sink<'_> {
    fn entry(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.1
            .push((key.to_vec(), value.map(<[u8]>::to_vec), timestamp));
        let store = self.2.store_id(STORE).unwrap();
        self.0.entry(store, key, value, timestamp)
    }
}

fn commit(db: &TaskDb, store: &VersionedStore<String, i64>, log: &mut Vec<Logged>) {
    let state = store.state_store();
    let mut state = state.borrow_mut();
    state.release_savepoint();
    let mut sink = Sink(db.batch(), log, db);
    state.drain_dirty(&mut sink).unwrap();
    db.apply(sink.0, 0).unwrap();
    state.mark_committed();
}

fn at(
    store: &VersionedStore<String, i64>,
    key: &str,
    time: i64,
) -> Option<(i64, i64, Option<i64>)> {
    let found = store.get_as_of(&key.to_owned(), time).unwrap();
    found.map(|version| (version.value, version.timestamp, version.valid_to))
}

#[test]
fn a_version_is_valid_until_the_next_one_and_a_delete_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), Persistence::RocksDb);
    let store = versions(&db);
    let key = || "k".to_owned();
    assert_eq!(store.put(key(), 1, 100).unwrap(), VersionedPut::Latest);
    assert_eq!(store.put(key(), 3, 110).unwrap(), VersionedPut::Latest);
    assert_eq!(
        store.put(key(), 2, 105).unwrap(),
        VersionedPut::SupersededAt(110)
    );
    let deleted = store.delete(&key(), 115).unwrap().unwrap();
    assert_eq!((deleted.value, deleted.timestamp), (3, 110));
    let mut log = Vec::new();
    for committed in [false, true] {
        if committed {
            commit(&db, &store, &mut log);
        }
        assert_eq!(store.get(&key()).unwrap(), None, "deleted");
        assert_eq!(at(&store, "k", 99), None);
        assert_eq!(at(&store, "k", 104), Some((1, 100, Some(105))));
        assert_eq!(at(&store, "k", 105), Some((2, 105, Some(110))));
        assert_eq!(at(&store, "k", 114), Some((3, 110, Some(115))));
        assert_eq!(at(&store, "k", 115), None);
    }
    let times: Vec<_> = log.iter().map(|(_, _, time)| *time).collect();
    assert_eq!(
        times,
        [100, 110, 105, 115],
        "the changelog has them as written"
    );
    assert_eq!(log[3].1, None);
}

#[test]
fn what_is_older_than_the_history_is_refused_and_only_a_latest_version_outlives_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), Persistence::RocksDb);
    let store = versions(&db);
    store.put("old".to_owned(), 1, 10).unwrap();
    store.put("k".to_owned(), 2, 100).unwrap();
    assert_eq!(
        store.put("k".to_owned(), 3, 79).unwrap(),
        VersionedPut::Expired
    );
    assert_eq!(
        store.put("k".to_owned(), 4, 80).unwrap(),
        VersionedPut::SupersededAt(100)
    );
    assert_eq!(at(&store, "old", 10), Some((1, 10, None)));
    assert_eq!(at(&store, "k", 79), None);
}

#[test]
fn versions_that_nobody_can_ask_for_leave_the_disk_with_the_next_write_of_their_key() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), Persistence::RocksDb);
    let store = versions(&db);
    let mut log = Vec::new();
    for time in (0..200).step_by(10) {
        store.put("k".to_owned(), time, time).unwrap();
        commit(&db, &store, &mut log);
    }
    let left = db
        .backend(STORE)
        .unwrap()
        .range(&[0, 0], None, false)
        .count();
    assert_eq!(left, 3, "170 to 190");
    assert_eq!(
        log.len(),
        20,
        "what leaves the disk is no delete in the changelog"
    );
}

/// Writes a version of a hundred keys: enough to look for what others have left behind.
fn busy(store: &VersionedStore<String, i64>, time: i64) {
    for number in 0..100 {
        store.put(format!("busy-{number}"), number, time).unwrap();
    }
}

#[test]
fn a_past_delete_stays_as_long_as_something_may_come_to_lie_before_it() {
    for persistence in [Persistence::RocksDb, Persistence::InMemory] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), persistence);
        let store = versions(&db);
        let mut log = Vec::new();
        let [hidden, again] = ["hidden", "again"].map(str::to_owned);
        store.delete(&hidden, 100).unwrap();
        store.delete(&again, 100).unwrap();
        commit(&db, &store, &mut log);
        // In one batch: a version before the one delete, one in the place of the other, and then time
        // passes until both deletes are past.
        store.put(hidden.clone(), 1, 95).unwrap();
        store.put(again.clone(), 2, 100).unwrap();
        busy(&store, 121);
        commit(&db, &store, &mut log);
        for _ in 0..10 {
            assert_eq!(store.get(&hidden).unwrap(), None, "{persistence:?}");
            let found = store.get(&again).unwrap().map(|version| version.value);
            assert_eq!(found, Some(2), "{persistence:?}");
            busy(&store, 130);
            commit(&db, &store, &mut log);
        }
    }
}

#[test]
fn a_look_that_ends_before_a_key_begins_anew_with_its_first_version() {
    for persistence in [Persistence::RocksDb, Persistence::InMemory] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), persistence);
        let store = versions(&db);
        let mut log = Vec::new();
        // The first look goes through as many versions as come before the delete.
        for number in 0..64 {
            store.put(format!("a{number:02}"), number, 100).unwrap();
        }
        let key = "kkk".to_owned();
        store.delete(&key, 100).unwrap();
        commit(&db, &store, &mut log);
        for number in 0..32 {
            store.put(format!("z{number:02}"), number, 100).unwrap();
        }
        commit(&db, &store, &mut log);
        // In time still, before the delete.
        store.put(key.clone(), 1, 90).unwrap();
        commit(&db, &store, &mut log);
        for time in [125, 126, 127] {
            for number in 0..32 {
                store.put(format!("z{number:02}"), number, time).unwrap();
            }
            commit(&db, &store, &mut log);
            assert_eq!(store.get(&key).unwrap(), None, "{persistence:?} at {time}");
        }
    }
}

#[test]
fn what_keys_leave_behind_that_are_never_written_again_leaves_the_disk_with_writes_of_others() {
    for persistence in [Persistence::RocksDb, Persistence::InMemory] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), persistence);
        let store = versions(&db);
        let mut log = Vec::new();
        for number in 0..300 {
            let (kept, gone) = (format!("kept-{number}"), format!("gone-{number}"));
            for time in 0..3 {
                store.put(kept.clone(), time, time).unwrap();
                store.put(gone.clone(), time, time).unwrap();
            }
            store.delete(&gone, 3).unwrap();
        }
        commit(&db, &store, &mut log);
        let count = || {
            let backend = db.backend(STORE).unwrap();
            backend.range(&[0, 0], None, false).count()
        };
        assert_eq!(count(), 300 * 7, "{persistence:?}");
        // A round over what is there takes half as many writes; the first begins before it is past.
        for _ in 0..40 {
            busy(&store, 1_000);
            commit(&db, &store, &mut log);
        }
        assert_eq!(count(), 300 + 100, "{persistence:?}");
        assert_eq!(log.len(), 300 * 7 + 4_000, "no deletes in the changelog");
        for number in 0..300 {
            assert_eq!(at(&store, &format!("gone-{number}"), 2_000), None);
            let kept = at(&store, &format!("kept-{number}"), 2_000);
            assert_eq!(kept, Some((2, 2, None)));
        }
    }
}

#[test]
fn a_query_reads_the_latest_version_or_that_of_a_time() {
    for persistence in [Persistence::RocksDb, Persistence::InMemory] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), persistence);
        let store = versions(&db);
        for (key, value, time) in [("b", 1, 100), ("b", 2, 110), ("aa", 3, 105)] {
            store.put(key.to_owned(), value, time).unwrap();
        }
        store.delete(&"aa".to_owned(), 112).unwrap();
        commit(&db, &store, &mut Vec::new());
        let handle = db.read_handle();
        let value = |bytes: Option<Vec<u8>>| bytes.map(|bytes| bytes[15]);
        assert_eq!(value(handle.get(STORE, b"b").unwrap()), Some(2));
        assert_eq!(value(handle.get_as_of(STORE, b"b", 109).unwrap()), Some(1));
        assert_eq!(handle.get_as_of(STORE, b"b", 99).unwrap(), None);
        assert_eq!(handle.get(STORE, b"aa").unwrap(), None);
        assert_eq!(value(handle.get_as_of(STORE, b"aa", 111).unwrap()), Some(3));
        let all = handle.range(STORE, &[], None, false, 9).unwrap();
        assert_eq!(all.len(), 1, "{persistence:?}");
    }
}

/// What a store should know: versions by key and time.
#[derive(Default)]
struct Model {
    versions: BTreeMap<(String, i64), Option<i64>>,
    observed: Option<i64>,
}

impl Model {
    fn put(&mut self, key: &str, value: Option<i64>, time: i64) {
        if self
            .observed
            .is_none_or(|observed| time >= observed - HISTORY)
        {
            self.observed = self.observed.max(Some(time));
            self.versions.insert((key.to_owned(), time), value);
        }
    }

    fn at(&self, key: &str, time: i64) -> Option<i64> {
        let of_key = (key.to_owned(), i64::MIN)..=(key.to_owned(), i64::MAX);
        let expired = self
            .observed
            .is_some_and(|observed| time < observed - HISTORY);
        let mut of_key = self.versions.range(of_key);
        let found = if expired {
            of_key.next_back().filter(|((_, at), _)| *at <= time)
        } else {
            of_key.rfind(|((_, at), _)| *at <= time)
        };
        found.and_then(|(_, value)| *value)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_store_is_its_model_over_commits_rollbacks_and_a_restore(
        steps in proptest::collection::vec(
            (0usize..3, proptest::option::of(0i64..9), 0i64..8, 0i64..30, 0u8..8),
            1..200,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), Persistence::RocksDb);
        let store = versions(&db);
        let (mut model, mut log, mut now) = (Model::default(), Vec::new(), 50);
        // The last one is never written again.
        let keys = ["a", "ab", "b"];
        let mut written = 0;
        for (key, value, step, behind, then) in steps {
            now += step;
            written += 1;
            let key = if written > 20 { key % 2 } else { key };
            let time = now - behind;
            store.put_or_delete(keys[key].to_owned(), value, time).unwrap();
            let state = store.state_store();
            if then == 0 {
                state.borrow_mut().rollback_savepoint();
                continue;
            }
            state.borrow_mut().release_savepoint();
            model.put(keys[key], value, time);
            if then == 1 {
                commit(&db, &store, &mut log);
            }
        }
        commit(&db, &store, &mut log);
        let restored_dir = tempfile::tempdir().unwrap();
        let restored_db = open(restored_dir.path(), Persistence::RocksDb);
        let id = restored_db.store_id(STORE).unwrap();
        for records in log.chunks(7) {
            let mut batch = restored_db.batch();
            for (key, value, time) in records {
                batch.entry(id, key, value.as_deref(), *time).unwrap();
            }
            restored_db.apply(batch, 0).unwrap();
        }
        let restored = versions(&restored_db);
        prop_assert_eq!(restored.observed_stream_time(), store.observed_stream_time());
        for key in keys {
            for time in 0..now + 5 {
                let expected = model.at(key, time);
                for store in [&store, &restored] {
                    let found = store.get_as_of(&key.to_owned(), time).unwrap();
                    prop_assert_eq!(found.map(|version| version.value), expected, "{}@{}", key, time);
                }
            }
        }
    }
}
