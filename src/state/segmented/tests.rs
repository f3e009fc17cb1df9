//! Window and session stores on a task's database, against models.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::format::window_key::{put_session, put_window};
use crate::serde::{i64 as int, string};
use crate::state::task_db::StoreId;
use crate::state::{
    CommitBatch, Layout, MemoryBudget, SessionStore, StoreDecl, TaskDb, WindowStore,
};
use crate::topology::Persistence;
use crate::window::Windowed;

const STORE: &str = "s";

fn open(dir: &Path, persistence: Persistence, layout: Layout) -> TaskDb {
    let decl = StoreDecl {
        name: STORE.to_owned(),
        persistence,
        layout,
        keeps_headers: false,
    };
    TaskDb::open(dir, &[decl], &MemoryBudget::new(16 << 20)).unwrap()
}

fn windows(db: &TaskDb, segments: Segments) -> WindowStore<String, i64> {
    let backend = db.backend(STORE).unwrap();
    let (key, value) = (Arc::new(string()), Arc::new(int()));
    let time = Rc::new(Cell::new(7));
    WindowStore::new(
        STORE.to_owned(),
        backend,
        key,
        value,
        time,
        1 << 10,
        segments,
    )
    .unwrap()
}

fn sessions(db: &TaskDb, segments: Segments) -> SessionStore<String, i64> {
    let backend = db.backend(STORE).unwrap();
    let (key, value) = (Arc::new(string()), Arc::new(int()));
    let time = Rc::new(Cell::new(7));
    SessionStore::new(
        STORE.to_owned(),
        backend,
        key,
        value,
        time,
        1 << 10,
        segments,
    )
    .unwrap()
}

/// What a commit sends to the changelog goes into the batch alike.
struct Sink<'a>(&'a mut CommitBatch, StoreId, Vec<Vec<u8>>);

impl DirtySink for Sink<'_> {
    fn entry(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.2.push(key.to_vec());
        self.0.entry(self.1, key, value, timestamp)
    }
}

fn commit(db: &TaskDb, store: &Rc<RefCell<dyn StateStore>>) -> Vec<Vec<u8>> {
    let mut store = store.borrow_mut();
    store.release_savepoint();
    let mut batch = db.batch();
    let mut sink = Sink(&mut batch, db.store_id(STORE).unwrap(), Vec::new());
    store.drain_dirty(&mut sink).unwrap();
    let changelog = sink.2;
    db.apply(batch, 0).unwrap();
    store.mark_committed();
    changelog
}

fn starts(entries: crate::state::WindowEntries<String, i64>) -> Vec<(String, i64)> {
    let entry = |entry: Result<crate::state::WindowEntry<String, i64>, _>| {
        let entry = entry.unwrap();
        assert_eq!(entry.timestamp, 7);
        (entry.key, entry.start)
    };
    entries.map(entry).collect()
}

fn key(name: &str) -> String {
    name.to_owned()
}

#[test]
fn a_scan_of_a_key_sees_committed_and_uncommitted_windows_in_order_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let segments = Segments::with_interval(1000, 10);
    let db = open(dir.path(), Persistence::RocksDb, Layout::Window(segments));
    let store = windows(&db, segments);
    for start in [3, 25, 11] {
        store.put(key("a"), start, start).unwrap();
    }
    commit(&db, &store.state_store());
    store.put(key("a"), 0, 19).unwrap();
    store.put(key("b"), 0, 12).unwrap();
    store.delete(&key("a"), 11).unwrap();
    let of = |starts: WindowEntriesResult| self::starts(starts.unwrap());
    let a = |starts: &[i64]| starts.iter().map(|s| (key("a"), *s)).collect::<Vec<_>>();
    assert_eq!(of(store.fetch_range(&key("a"), ..)), a(&[3, 19, 25]));
    assert_eq!(of(store.fetch_range(&key("a"), 3..25)), a(&[3, 19]));
    assert_eq!(of(store.backward_fetch_range(&key("a"), 4..)), a(&[25, 19]));
    assert_eq!(
        starts(store.all()),
        [
            (key("a"), 3),
            (key("a"), 19),
            (key("b"), 12),
            (key("a"), 25)
        ]
    );
    assert_eq!(
        starts(store.backward_fetch_all(12..=19)),
        [(key("b"), 12), (key("a"), 19)]
    );
}

type WindowEntriesResult = Result<crate::state::WindowEntries<String, i64>, StateError>;

#[test]
fn keys_that_begin_alike_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let segments = Segments::with_interval(1 << 60, 1 << 60);
    let db = open(dir.path(), Persistence::RocksDb, Layout::Window(segments));
    let store = windows(&db, segments);
    // The bytes of the second lie between two windows of the first.
    let longer = String::from_utf8(b"a\0\0\0\0\0\0\0\x05".to_vec()).unwrap();
    store.put(key("a"), 0, 1).unwrap();
    store.put(key("a"), 0, 9).unwrap();
    store.put(longer.clone(), 0, 2).unwrap();
    let found = starts(store.fetch_range(&key("a"), ..).unwrap());
    assert_eq!(found, [(key("a"), 1), (key("a"), 9)]);
    assert_eq!(
        starts(store.fetch_range(&longer, ..).unwrap()),
        [(longer, 2)]
    );
}

#[test]
fn changelogs_have_kafka_streams_keys() {
    let dir = tempfile::tempdir().unwrap();
    let segments = Segments::with_interval(1000, 10);
    let db = open(dir.path(), Persistence::RocksDb, Layout::Window(segments));
    let store = windows(&db, segments);
    store.put(key("a"), 1, 25).unwrap();
    let mut expected = b"a".to_vec();
    put_window(&mut expected, 25, 0);
    assert_eq!(commit(&db, &store.state_store()), [expected.clone()]);
    assert!(
        db.read_handle().get(STORE, &expected).unwrap().is_some(),
        "queries ask with them too"
    );

    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), Persistence::RocksDb, Layout::Session(segments));
    let store = sessions(&db, segments);
    store
        .put(Windowed::new(key("a"), Window::new(1, 25)), 1)
        .unwrap();
    let mut expected = b"a".to_vec();
    put_session(&mut expected, Window::new(1, 25));
    assert_eq!(commit(&db, &store.state_store()), [expected]);
}

#[test]
fn windows_expire_by_the_latest_start_and_stay_expired() {
    for persistence in [Persistence::RocksDb, Persistence::InMemory] {
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::with_interval(100, 10);
        let layout = Layout::Window(segments);
        let db = open(dir.path(), persistence, layout);
        let store = windows(&db, segments);
        assert!(store.put(key("a"), 1, 0).unwrap());
        assert!(store.put(key("a"), 2, 9).unwrap());
        commit(&db, &store.state_store());
        assert!(store.put(key("b"), 3, 100).unwrap());
        assert_eq!(store.fetch(&key("a"), 0).unwrap(), None, "100 ms later");
        assert_eq!(store.fetch(&key("a"), 9).unwrap(), Some(2), "91 ms later");
        assert!(!store.put(key("a"), 4, 0).unwrap(), "too late to be kept");
        commit(&db, &store.state_store());
        let handle = db.read_handle();
        let dump = |handle: &crate::state::ReadHandle| {
            handle
                .range(STORE, &[], None, false, usize::MAX)
                .unwrap()
                .len()
        };
        assert_eq!(
            dump(&handle),
            2,
            "hidden from queries, though its segment is still there"
        );
        store.put(key("b"), 5, 110).unwrap();
        commit(&db, &store.state_store());
        let raw = db.backend(STORE).unwrap();
        let left = raw
            .range(&[], None, false)
            .map(|entry| entry.unwrap().0.len())
            .collect::<Vec<_>>();
        assert_eq!(
            left,
            [1, 21, 21],
            "observed time, and two windows: the rest went by segment"
        );
        drop((store, raw, handle));
        if persistence == Persistence::RocksDb {
            db.flush().unwrap();
            drop(db);
            let db = open(dir.path(), persistence, layout);
            let store = windows(&db, segments);
            assert_eq!(store.observed_stream_time(), Some(110));
            assert!(!store.put(key("a"), 6, 10).unwrap());
        }
    }
}

#[test]
fn a_rolled_back_record_takes_the_time_back_that_it_observed() {
    let dir = tempfile::tempdir().unwrap();
    let segments = Segments::with_interval(100, 10);
    let db = open(dir.path(), Persistence::RocksDb, Layout::Window(segments));
    let store = windows(&db, segments);
    store.put(key("a"), 1, 0).unwrap();
    let task = store.state_store();
    task.borrow_mut().release_savepoint();
    store.put(key("a"), 1, 500).unwrap();
    assert_eq!(store.fetch(&key("a"), 0).unwrap(), None);
    task.borrow_mut().rollback_savepoint();
    assert_eq!(store.fetch(&key("a"), 0).unwrap(), Some(1));
    store.put(key("a"), 1, 500).unwrap();
    task.borrow_mut().release_savepoint();
    task.borrow_mut().discard_uncommitted();
    assert_eq!(store.observed_stream_time(), None, "an abort too");
}

#[test]
fn another_layout_is_restored_from_the_changelog() {
    let dir = tempfile::tempdir().unwrap();
    let layout = |interval| Layout::Window(Segments::with_interval(1000, interval));
    let position = |db: &TaskDb| {
        db.checkpoint()
            .changelogs
            .get(STORE)
            .map(|it| it.next_offset)
    };
    let db = open(dir.path(), Persistence::RocksDb, layout(10));
    let mut batch = db.batch();
    let mut entry = b"a".to_vec();
    put_window(&mut entry, 25, 0);
    let id = db.store_id(STORE).unwrap();
    batch.entry(id, &entry, Some(b"12345678"), 7).unwrap();
    batch.set_changelog(
        id,
        crate::format::checkpoint::ChangelogPosition {
            topic_id: [1; 16],
            next_offset: 1,
            fresh_at: None,
        },
    );
    db.apply(batch, 0).unwrap();
    db.close().unwrap();
    let db = open(dir.path(), Persistence::RocksDb, layout(10));
    assert_eq!(position(&db), Some(1));
    assert!(db.has_data(STORE).unwrap());
    drop(db);
    let db = open(dir.path(), Persistence::RocksDb, layout(20));
    assert_eq!(position(&db), None, "nothing is trusted");
    assert!(!db.has_data(STORE).unwrap());
    drop(db);
    let db = open(dir.path(), Persistence::RocksDb, layout(20));
    assert_eq!(position(&db), None, "nor after another start");
}

#[test]
fn sessions_are_found_by_what_they_touch() {
    let dir = tempfile::tempdir().unwrap();
    let segments = Segments::with_interval(1000, 10);
    let db = open(dir.path(), Persistence::RocksDb, Layout::Session(segments));
    let store = sessions(&db, segments);
    let session = |start, end| Windowed::new(key("a"), Window::new(start, end));
    for (start, end) in [(0, 5), (8, 31), (40, 40)] {
        store.put(session(start, end), end).unwrap();
    }
    commit(&db, &store.state_store());
    store.put(session(60, 70), 70).unwrap();
    store
        .put(Windowed::new(key("b"), Window::new(33, 35)), 0)
        .unwrap();
    let of = |entries: Result<crate::state::SessionEntries<String, i64>, _>| {
        entries
            .unwrap()
            .map(|entry| entry.unwrap().1)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(store.fetch(&key("a"))), [5, 31, 40, 70]);
    assert_eq!(of(store.find_sessions(&key("a"), 31, 40)), [31, 40]);
    assert_eq!(of(store.find_sessions(&key("a"), 32, 39)), [] as [i64; 0]);
    assert_eq!(
        of(store.backward_find_sessions(&key("a"), 5, 60)),
        [70, 40, 31, 5]
    );
    assert_eq!(store.fetch_session(&session(8, 31)).unwrap(), Some(31));
    assert_eq!(store.remove(&session(8, 31)).unwrap(), Some(31));
    assert_eq!(of(store.find_sessions(&key("a"), 31, 40)), [40]);
    let ended: Vec<_> = store
        .find_ended(5..=40)
        .map(|entry| entry.unwrap().0)
        .collect();
    assert_eq!(ended.len(), 3);
    assert!(
        store.put(session(-1, 5), 0).is_err(),
        "nothing begins before 1970"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, i64, i64),
    Delete(u8, i64),
    Release,
    Rollback,
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u8..3;
    let start = 0i64..300;
    prop_oneof![
        6 => (key.clone(), start.clone(), 0i64..100).prop_map(|(k, s, v)| Step::Put(k, s, v)),
        2 => (key, start).prop_map(|(k, s)| Step::Delete(k, s)),
        1 => Just(Step::Release),
        1 => Just(Step::Rollback),
        1 => Just(Step::Commit),
    ]
}

/// Entries and observed time.
type Model = (BTreeMap<(String, i64), i64>, Option<i64>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_window_store_is_a_map_that_forgets(
        steps in proptest::collection::vec(step(), 0..60),
        interval in 1i64..80,
        in_memory: bool,
    ) {
        let persistence = if in_memory { Persistence::InMemory } else { Persistence::RocksDb };
        let dir = tempfile::tempdir().unwrap();
        let segments = Segments::with_interval(100, interval);
        let db = open(dir.path(), persistence, Layout::Window(segments));
        let store = windows(&db, segments);
        let task = store.state_store();
        let mut model: Model = Default::default();
        let mut before = model.clone();
        for step in steps {
            match step {
                Step::Put(name, start, value) => {
                    store.put(name.to_string(), value, start).unwrap();
                    model.1 = model.1.max(Some(start));
                    if !segments.is_expired(start, model.1) {
                        model.0.insert((name.to_string(), start), value);
                    }
                }
                Step::Delete(name, start) => {
                    store.delete(&name.to_string(), start).unwrap();
                    model.1 = model.1.max(Some(start));
                    model.0.remove(&(name.to_string(), start));
                }
                Step::Release => {
                    task.borrow_mut().release_savepoint();
                    before.clone_from(&model);
                }
                Step::Rollback => {
                    task.borrow_mut().rollback_savepoint();
                    model.clone_from(&before);
                }
                Step::Commit => {
                    commit(&db, &task);
                    before.clone_from(&model);
                }
            }
            let observed = model.1;
            model.0.retain(|(_, start), _| !segments.is_expired(*start, observed));
            let mut found: Vec<_> = store
                .all()
                .map(|entry| entry.unwrap())
                .map(|entry| ((entry.key, entry.start), entry.value))
                .collect();
            found.sort();
            let expected: Vec<_> = model.0.clone().into_iter().collect();
            prop_assert_eq!(&found, &expected);
            for name in ["0", "1", "2"] {
                let of_key = store.backward_fetch_range(&name.to_owned(), 20..=150).unwrap();
                let found: Vec<_> = of_key.map(|entry| entry.unwrap().start).collect();
                let expected: Vec<_> = expected
                    .iter()
                    .filter(|((key, start), _)| key == name && (20..=150).contains(start))
                    .map(|((_, start), _)| *start)
                    .rev()
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn an_expired_value_takes_no_sequence_number() {
    let dir = crate::testing::temp_dir::TempDir::new("duplicates").unwrap();
    let segments = Segments::new(10);
    let db = open(
        dir.path(),
        Persistence::RocksDb,
        Layout::Duplicates(segments),
    );
    let store = windows(&db, segments);
    assert!(store.put_another(key("a"), 1, 100).unwrap());
    assert!(!store.put_another(key("a"), 2, 90).unwrap(), "it is late");
    assert!(store.put_another(key("a"), 3, 100).unwrap());
    let logged = commit(&db, &store.state_store());
    let numbered = |number| {
        let mut bytes = b"a".to_vec();
        put_window(&mut bytes, 100, number);
        bytes
    };
    assert_eq!(logged, [numbered(1), numbered(2)]);
    // So a store that is opened again goes on where it would have gone on.
    assert!(!store.put_another(key("a"), 4, 90).unwrap());
    commit(&db, &store.state_store());
    let again = windows(&db, segments);
    again.put_another(key("a"), 5, 100).unwrap();
    assert_eq!(commit(&db, &again.state_store()), [numbered(3)]);
}
