//! The index by time of a store that gets a time-to-live, loses it, and gets another.

use std::path::Path;

use millstream::state::{Layout, MemoryBudget, StoreDecl, TaskDb, TimeToLive};
use millstream::topology::Persistence;

fn open(dir: &Path, layout: Layout) -> TaskDb {
    let decl = StoreDecl {
        name: "entries".to_owned(),
        persistence: Persistence::RocksDb,
        layout,
        keeps_headers: false,
    };
    TaskDb::open(dir, &[decl], &MemoryBudget::new(64 << 20)).unwrap()
}

fn put(db: &TaskDb, keys: std::ops::Range<u8>) {
    let mut batch = db.batch();
    let store = db.store_id("entries").unwrap();
    for key in keys {
        let time = i64::from(key) * 1000;
        batch.entry(store, &[key], Some(b"x"), time).unwrap();
    }
    db.apply(batch, 1).unwrap();
}

/// The keys that the index has, in order of time.
fn indexed(db: &TaskDb) -> Vec<u8> {
    let index = db.index("entries").unwrap();
    let keys = index.range(&[0], None, false);
    keys.map(|entry| *entry.unwrap().0.last().unwrap())
        .collect()
}

#[test]
fn a_time_to_live_that_comes_and_goes_finds_every_entry_indexed() {
    let dir = tempfile::tempdir().unwrap();
    let expiring = |ms| Layout::Expiring(TimeToLive::of_millis(ms));
    let db = open(dir.path(), Layout::KeyValue);
    put(&db, 0..5);
    assert!(db.index("entries").is_none());
    db.close().unwrap();
    let db = open(dir.path(), expiring(640));
    assert_eq!(indexed(&db), [0, 1, 2, 3, 4], "of what was there before");
    put(&db, 5..7);
    db.close().unwrap();
    // Without one, entries are written that no index hears of.
    let db = open(dir.path(), Layout::KeyValue);
    put(&db, 7..9);
    db.close().unwrap();
    let db = open(dir.path(), expiring(6400));
    assert_eq!(indexed(&db), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    db.close().unwrap();
    // Buckets of another length lie beside the old ones.
    let db = open(dir.path(), expiring(640_000));
    put(&db, 9..10);
    assert_eq!(indexed(&db).len(), 10);
}
