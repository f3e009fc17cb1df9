//! Real RocksDB in temporary directories: what survives, what is refused.

use std::fs;

use super::*;
use crate::format::checkpoint::{ChangelogPosition, InputPosition};
use crate::format::value;
use crate::log::TopicPartition;

const INPUT: &str = "events";

fn budget() -> MemoryBudget {
    MemoryBudget::new(64 << 20)
}

fn decls() -> Vec<StoreDecl> {
    let decl = |name: &str, persistence| StoreDecl {
        name: name.to_owned(),
        persistence,
        layout: Layout::KeyValue,
        keeps_headers: false,
    };
    vec![
        decl("accounts", Persistence::RocksDb),
        decl("history", Persistence::RocksDb),
        decl("recent", Persistence::InMemory),
    ]
}

fn open(dir: &Path) -> Result<TaskDb, StateError> {
    TaskDb::open(dir, &decls(), &budget())
}

/// Writes number `n` everywhere: data of each store, and every offset.
fn commit(db: &TaskDb, n: i64) {
    let mut batch = db.batch();
    for name in ["accounts", "history", "recent"] {
        let store = db.store_id(name).unwrap();
        batch
            .entry(store, b"last", Some(n.to_string().as_bytes()), n)
            .unwrap();
        batch
            .entry(store, &n.to_be_bytes(), Some(&[7; 100]), n)
            .unwrap();
        batch.entry(store, &(n - 3).to_be_bytes(), None, n).unwrap();
        let position = ChangelogPosition {
            topic_id: [1; 16],
            next_offset: n,
            fresh_at: Some(n * 10),
        };
        batch.set_changelog(store, position);
    }
    let input = TopicPartition::new(INPUT, 0);
    batch.set_input(
        input,
        InputPosition {
            next_offset: n,
            partition_time: Some(n),
        },
    );
    batch.set_generation(u64::try_from(n).unwrap());
    batch.set_stream_time(n);
    assert_eq!(batch.entries(), 9);
    assert!(batch.bytes() > 300);
    db.apply(batch, n).unwrap();
}

/// Asserts that all of the directory says that `n` was the last commit on disk.
fn assert_last(db: &TaskDb, n: i64) {
    let expected = value_of(n);
    for name in ["accounts", "history"] {
        let backend = db.backend(name).unwrap();
        assert_eq!(
            backend.get(b"last").unwrap(),
            Some(expected.clone()),
            "{name}"
        );
        let numbers = backend.range(&[0], Some(b"l"), false).count();
        assert_eq!(numbers, 3.min(usize::try_from(n).unwrap()), "{name}");
    }
    let checkpoint = db.checkpoint();
    assert_eq!(checkpoint.changelogs.len(), 2, "memory has no checkpoint");
    assert!(
        checkpoint
            .changelogs
            .values()
            .all(|position| position.next_offset == n)
    );
    assert_eq!(
        checkpoint.inputs[&TopicPartition::new(INPUT, 0)].next_offset,
        n
    );
    assert_eq!(checkpoint.generation, Some(u64::try_from(n).unwrap()));
    assert_eq!(checkpoint.stream_time, Some(n));
}

fn value_of(n: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    value::encode(n, n.to_string().as_bytes(), &mut bytes);
    bytes
}

#[test]
fn a_new_directory_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("0_0")).unwrap();
    assert!(db.checkpoint().is_empty());
    assert_eq!(db.dirty_since(), None);
    for name in ["accounts", "history", "recent"] {
        assert!(!db.has_data(name).unwrap());
    }
    assert!(matches!(
        db.backend("typo"),
        Err(StateError::UnknownStore { .. })
    ));
    assert_eq!(db.store_id("typo"), None);
}

#[test]
fn a_kill_loses_only_the_unflushed_tail_and_offsets_equal_data() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path()).unwrap();
    (1..=5).for_each(|n| commit(&db, n));
    assert_eq!(db.dirty_since(), Some(1));
    db.flush().unwrap();
    assert_eq!(db.dirty_since(), None);
    (6..=9).for_each(|n| commit(&db, n));
    assert_eq!(db.dirty_since(), Some(6));
    assert_last(&db, 9);
    drop(db);
    assert_last(&open(dir.path()).unwrap(), 5);
}

#[test]
fn a_clean_close_loses_nothing_but_memory() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path()).unwrap();
    (1..=7).for_each(|n| commit(&db, n));
    assert!(db.has_data("recent").unwrap());
    db.close().unwrap();
    let db = open(dir.path()).unwrap();
    assert_last(&db, 7);
    assert!(db.has_data("accounts").unwrap());
    assert!(!db.has_data("recent").unwrap());
}

#[test]
fn a_flush_that_rocksdb_starts_by_itself_is_atomic_across_families() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path()).unwrap();
    let accounts = db.store_id("accounts").unwrap();
    // More than one family's memtable takes; the other families hold a few bytes each.
    for n in 1..=60 {
        let mut batch = db.batch();
        batch
            .entry(
                accounts,
                &n.to_string().into_bytes(),
                Some(&vec![1; 1 << 19]),
                n,
            )
            .unwrap();
        db.apply(batch, n).unwrap();
        commit(&db, n);
    }
    drop(db);
    let db = open(dir.path()).unwrap();
    let reached = db.checkpoint().stream_time.unwrap();
    assert!((1..=60).contains(&reached), "{reached}");
    assert_last_of_many(&db, reached);
}

fn assert_last_of_many(db: &TaskDb, n: i64) {
    for name in ["accounts", "history"] {
        let backend = db.backend(name).unwrap();
        assert_eq!(backend.get(b"last").unwrap(), Some(value_of(n)), "{name}");
    }
    let backend = db.backend("accounts").unwrap();
    assert!(backend.get(n.to_string().as_bytes()).unwrap().is_some());
}

#[test]
fn a_flush_on_rocksdbs_own_threads_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path()).unwrap();
    commit(&db, 1);
    db.start_flush().unwrap();
    assert_eq!(db.dirty_since(), None);
    // A waiting flush of nothing new ends after the one in progress.
    db.flush().unwrap();
    drop(db);
    assert_last(&open(dir.path()).unwrap(), 1);
}

#[test]
fn a_store_may_be_added_or_removed_between_starts() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path()).unwrap();
    commit(&db, 1);
    db.close().unwrap();
    let mut stores = decls();
    stores.remove(0);
    stores.push(StoreDecl {
        name: "new".to_owned(),
        persistence: Persistence::RocksDb,
        layout: Layout::KeyValue,
        keeps_headers: false,
    });
    let db = TaskDb::open(dir.path(), &stores, &budget()).unwrap();
    assert!(!db.has_data("new").unwrap());
    assert!(db.has_data("history").unwrap());
    db.close().unwrap();
    assert_last(&open(dir.path()).unwrap(), 1);
}

#[test]
fn backends_iterate_both_ways_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path()).unwrap();
    let mut batch = db.batch();
    for name in ["accounts", "recent"] {
        let store = db.store_id(name).unwrap();
        for n in 0..600_u32 {
            batch.entry(store, &n.to_be_bytes(), Some(b""), 0).unwrap();
        }
    }
    db.apply(batch, 0).unwrap();
    for name in ["accounts", "recent"] {
        let backend = db.backend(name).unwrap();
        let keys = |from: u32, to: Option<u32>, reverse| {
            let to = to.map(u32::to_be_bytes);
            let to = to.as_ref().map(|to| &to[..]);
            let keys = backend.range(&from.to_be_bytes(), to, reverse);
            keys.map(|entry| u32::from_be_bytes(*entry.unwrap().0.as_array().unwrap()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            keys(3, Some(500), false),
            (3..500).collect::<Vec<_>>(),
            "{name}"
        );
        assert_eq!(
            keys(3, Some(500), true),
            (3..500).rev().collect::<Vec<_>>(),
            "{name}"
        );
        assert_eq!(
            keys(590, None, true),
            (590..600).rev().collect::<Vec<_>>(),
            "{name}"
        );
        assert_eq!(keys(5, Some(5), false), [0_u32; 0], "{name}");
        assert_eq!(keys(6, Some(5), true), [0_u32; 0], "{name}");
        assert_eq!(backend.approximate_count().unwrap(), 600, "{name}");
    }
}

#[test]
fn queries_see_committed_state_from_any_thread_until_the_task_moves() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path()).unwrap();
    (1..=4).for_each(|n| commit(&db, n));
    let handle = db.read_handle();
    let reader = std::thread::spawn(move || {
        for name in ["accounts", "recent"] {
            let last = handle.get(name, b"last").unwrap();
            assert_eq!(last, Some(value_of(4)), "{name}");
            assert_eq!(handle.range(name, &[], None, true, 2).unwrap().len(), 2);
            assert_eq!(
                handle
                    .range(name, &[], Some(b"l"), false, 100)
                    .unwrap()
                    .len(),
                3
            );
            assert!(handle.approximate_count(name).unwrap() > 0);
        }
        assert_eq!(handle.checkpoint().unwrap().stream_time, Some(4));
        assert!(matches!(
            handle.get("typo", b""),
            Err(StateError::UnknownStore { .. })
        ));
        handle
    });
    let handle = reader.join().unwrap();
    drop(db);
    assert!(matches!(
        handle.get("accounts", b"last"),
        Err(StateError::Closed { .. })
    ));
    open(dir.path()).unwrap();
}

#[test]
fn a_directory_in_use_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let _db = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StateError::Locked { .. }), "{error:?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_io_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(&file.path().join("0_0")).unwrap_err();
    assert!(matches!(error, StateError::Io { .. }), "{error:?}");
}

/// Makes a flushed directory, lets `damage` loose on the files of one kind, and returns the first
/// error of opening or reading.
fn after_damage(kind: &str, damage: impl Fn(&Path)) -> Option<StateError> {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path()).unwrap();
    (1..=5).for_each(|n| commit(&db, n));
    db.close().unwrap();
    let mut damaged = 0;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().contains(kind) {
            damage(&path);
            damaged += 1;
        }
    }
    assert!(damaged > 0, "no file of kind `{kind}`");
    let db = match open(dir.path()) {
        Ok(db) => db,
        Err(error) => return Some(error),
    };
    ["accounts", "history"].iter().find_map(|name| {
        db.backend(name)
            .and_then(|backend| backend.get(b"last"))
            .err()
    })
}

#[test]
fn damaged_and_missing_files_are_corruption() {
    let garbage = |path: &Path| {
        let len = fs::metadata(path).unwrap().len();
        fs::write(path, vec![0x5a; usize::try_from(len).unwrap()]).unwrap();
    };
    let truncate = |path: &Path| fs::write(path, b"").unwrap();
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.iter_mut().take(60).for_each(|byte| *byte ^= 0xff);
        fs::write(path, bytes).unwrap();
    };
    type Damage<'a> = (&'a str, &'a str, &'a dyn Fn(&Path));
    let kinds: [Damage<'_>; 9] = [
        (".sst", "garbage", &garbage),
        (".sst", "truncated", &truncate),
        (".sst", "removed", &remove),
        (".sst", "flipped", &flip),
        ("CURRENT", "garbage", &garbage),
        ("CURRENT", "truncated", &truncate),
        ("CURRENT", "removed", &remove),
        ("MANIFEST", "garbage", &garbage),
        ("MANIFEST", "removed", &remove),
    ];
    for (kind, what, damage) in kinds {
        let error = after_damage(kind, damage);
        assert!(
            matches!(error, Some(StateError::Corrupted { .. })),
            "{kind} {what}: {error:?}"
        );
    }
}

#[test]
fn an_unknown_checkpoint_is_corruption_and_not_guessed_at() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path()).unwrap();
    let handle = rocks::handle(&db.inner.db, dir.path(), OFFSETS_COLUMN_FAMILY).unwrap();
    db.inner.db.put_cf(handle, b"g", b"\x63future").unwrap();
    db.flush().unwrap();
    drop(db);
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StateError::Corrupted { .. }), "{error:?}");
}

#[test]
fn handles_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    fn moves<T: Send>() {}
    crosses::<TaskDb>();
    crosses::<ReadHandle>();
    crosses::<MemoryBudget>();
    moves::<CommitBatch>();
}
