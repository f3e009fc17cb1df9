//! Restores from the embedded log into real RocksDB.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::format::value;
use crate::log::embedded::{
    EmbeddedLog, EmbeddedProducer, Fault, FaultPlan, FaultPoint, FaultSite,
};
use crate::log::{
    Headers, Isolation, LogProducer, LogRange, ProducerRecord, ProducerSpec, TopicSpec,
};
use crate::metrics::Metrics;
use crate::runtime::NoProbe;
use crate::state::{Layout, MemoryBudget, StoreDecl};
use crate::topology::Persistence;

const NOW: Timestamp = 1_000_000;
const TRANSACTION_TIMEOUT_MS: i64 = 10_000;
const TOMBSTONES_LIVE_MS: i64 = 86_400_000;

struct World {
    clock: ManualClock,
    log: EmbeddedLog,
    metrics: Metrics,
    topics: BTreeMap<String, [u8; 16]>,
}

type Entry<'a> = (&'a str, Option<&'a str>);

impl World {
    fn new(stores: &[&str]) -> Self {
        let clock = ManualClock::at(NOW);
        let log = EmbeddedLog::in_memory(Arc::new(clock.clone())).with_virtual_time();
        let mut topics = BTreeMap::new();
        for store in stores {
            let spec = TopicSpec {
                name: topic(store),
                partitions: 2,
                replication_factor: None,
                config: BTreeMap::new(),
            };
            log.create_topics(&[spec]).unwrap();
            let described = log
                .describe_topics(&[&topic(store)])
                .unwrap()
                .remove(0)
                .unwrap();
            topics.insert((*store).to_owned(), described.id);
        }
        Self {
            clock,
            log,
            metrics: Metrics::new(),
            topics,
        }
    }

    fn producer(&self, id: &str) -> EmbeddedProducer {
        let spec = ProducerSpec {
            transactional_id: Some(id.to_owned()),
            transaction_timeout: Duration::from_millis(TRANSACTION_TIMEOUT_MS.unsigned_abs()),
            client_id: id.to_owned(),
        };
        let mut producer = self.log.producer(&spec).unwrap();
        producer.init_transactions().unwrap();
        producer
    }

    /// Writes into an open transaction of a new producer.
    fn open(&self, id: &str, store: &str, entries: &[Entry<'_>]) -> EmbeddedProducer {
        let mut producer = self.producer(id);
        producer.begin_transaction().unwrap();
        for (key, value) in entries {
            send(&mut producer, store, key, *value, self.clock.now_ms());
        }
        producer
    }

    fn write(&self, store: &str, entries: &[Entry<'_>]) {
        self.open("writer", store, entries)
            .commit_transaction()
            .unwrap();
    }

    fn range(&self, store: &str) -> LogRange {
        self.log
            .log_ranges(&[partition(store)], Isolation::ReadUncommitted)
            .unwrap()[0]
    }

    /// What a stream thread does with `plan_restore`'s answer: `from`, or where the store is.
    fn restore(&self, db: &TaskDb, stable: &StableOffsets) -> TaskRestore<EmbeddedLog> {
        let checkpoint = db.checkpoint();
        let changelogs = self.topics.iter().map(|(store, topic_id)| {
            let range = self.range(store);
            let stored = checkpoint.changelogs.get(store);
            ChangelogRestore {
                store: store.clone(),
                partition: partition(store),
                topic_id: *topic_id,
                from: stored.map_or(range.start, |position| position.next_offset),
                target: RestoreTarget::after(stable, range.end),
                tombstone_retention: Some(TOMBSTONES_LIVE_MS),
                source: None,
                keeps_headers: false,
            }
        });
        let reader = self.log.reader(Isolation::ReadCommitted).unwrap();
        let metrics = self.metrics.task(0, "0_1");
        let now = self.clock.now_ms();
        TaskRestore::new(
            reader,
            db.clone(),
            changelogs.collect(),
            stable.clone(),
            now,
            &metrics,
        )
        .unwrap()
    }

    fn step(&self, restore: &mut TaskRestore<EmbeddedLog>) -> RestoreStep {
        restore
            .step(Duration::ZERO, self.clock.now_ms(), &NoProbe)
            .unwrap()
    }

    fn finish(&self, restore: &mut TaskRestore<EmbeddedLog>) {
        for _ in 0..10_000 {
            match self.step(restore) {
                RestoreStep::Done => return,
                RestoreStep::Progressed => {}
                RestoreStep::Waiting => self.clock.advance(1_000),
            }
        }
        panic!("the restore does not end: {restore:?}");
    }
}

fn send(producer: &mut EmbeddedProducer, store: &str, key: &str, value: Option<&str>, time: i64) {
    let record = ProducerRecord {
        topic: &topic(store),
        partition: Some(1),
        key: Some(key.as_bytes()),
        value: value.map(str::as_bytes),
        timestamp: time,
        headers: &Headers::new(),
    };
    producer.send(record).unwrap();
}

fn topic(store: &str) -> TopicName {
    format!("app-{store}-changelog").into()
}

fn partition(store: &str) -> TopicPartition {
    TopicPartition::new(topic(store), 1)
}

fn input() -> TopicPartition {
    TopicPartition::new("events", 1)
}

fn stable(offset: Option<Offset>, generation: u64) -> StableOffsets {
    StableOffsets {
        inputs: BTreeMap::from([(input(), offset)]),
        generation,
    }
}

fn open(dir: &Path, stores: &[(&str, Persistence)]) -> TaskDb {
    let decl = |&(name, persistence): &(&str, _)| StoreDecl {
        name: name.to_owned(),
        persistence,
        layout: Layout::KeyValue,
        keeps_headers: false,
    };
    let stores: Vec<_> = stores.iter().map(decl).collect();
    TaskDb::open(dir, &stores, &MemoryBudget::new(64 << 20)).unwrap()
}

const ONE: &[(&str, Persistence)] = &[("s", Persistence::RocksDb)];

fn contents(db: &TaskDb, store: &str) -> BTreeMap<String, (String, i64)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let entries = db
        .read_handle()
        .range(store, &[], None, false, usize::MAX)
        .unwrap();
    let decode = |(key, bytes): (Box<[u8]>, Box<[u8]>)| {
        let (timestamp, value) = value::decode(&bytes).unwrap();
        (text(&key), (text(value), timestamp))
    };
    entries.into_iter().map(decode).collect()
}

fn of(entries: &[(&str, &str, i64)]) -> BTreeMap<String, (String, i64)> {
    let owned =
        |(key, value, time): &(&str, &str, i64)| ((*key).to_owned(), ((*value).to_owned(), *time));
    entries.iter().map(owned).collect()
}

#[test]
fn a_restore_brings_values_timestamps_deletes_and_the_checkpoint() {
    let world = World::new(&["s"]);
    world.write("s", &[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]);
    world.clock.advance(5);
    world.write("s", &[("a", Some("2")), ("b", None)]);
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), ONE);
    let mut restore = world.restore(&db, &stable(Some(77), 3));
    let began = world.clock.now_ms();
    world.clock.advance(100);
    world.finish(&mut restore);
    assert_eq!(
        contents(&db, "s"),
        of(&[("a", "2", NOW + 5), ("c", "1", NOW)])
    );
    let checkpoint = db.checkpoint();
    let position = &checkpoint.changelogs["s"];
    assert_eq!(position.next_offset, world.range("s").end);
    assert_eq!(position.topic_id, world.topics["s"]);
    assert_eq!(
        position.fresh_at,
        Some(began),
        "the age counts from when the target was taken"
    );
    assert_eq!(checkpoint.generation, Some(3));
    assert_eq!(checkpoint.inputs[&input()].next_offset, 77);
    let progress = restore.progress(world.clock.now_ms());
    assert_eq!(
        (progress.records, progress.bytes, progress.remaining),
        (5, 9, 0)
    );
    assert_eq!(progress.elapsed, Duration::from_millis(100));
    assert_eq!(progress.eta, Some(Duration::ZERO));
    let text = world.metrics.render();
    let series = r#"millstream_restore_records_total{store="s",task="0_1",thread="0"} 5"#;
    assert!(text.contains(series), "{text}");
}

#[test]
fn a_restore_passes_a_dead_owners_open_transaction() {
    let world = World::new(&["s"]);
    world.write("s", &[("a", Some("before"))]);
    // The dead owner left a transaction open; a later owner has committed behind it.
    drop(world.open("dead", "s", &[("a", Some("lost")), ("b", Some("lost"))]));
    world.write("s", &[("c", Some("behind"))]);
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), ONE);
    let mut restore = world.restore(&db, &stable(Some(1), 0));
    assert_eq!(world.step(&mut restore), RestoreStep::Progressed);
    for _ in 0..3 {
        assert_eq!(world.step(&mut restore), RestoreStep::Waiting);
    }
    assert!(
        !db.checkpoint().inputs.contains_key(&input()),
        "the state has not reached them"
    );
    world.clock.advance(TRANSACTION_TIMEOUT_MS + 1);
    world.finish(&mut restore);
    assert_eq!(
        contents(&db, "s"),
        of(&[("a", "before", NOW), ("c", "behind", NOW)])
    );
}

#[test]
fn aborted_records_are_passed_and_not_restored() {
    let world = World::new(&["s"]);
    world
        .open("writer", "s", &[("a", Some("aborted"))])
        .abort_transaction()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), ONE);
    world.finish(&mut world.restore(&db, &stable(None, 0)));
    assert!(!db.has_data("s").unwrap());
    assert_eq!(
        db.checkpoint().changelogs["s"].next_offset,
        world.range("s").end
    );
    assert!(db.checkpoint().inputs.is_empty());
}

#[test]
fn an_interrupted_restore_goes_on_where_its_last_durable_batch_ended() {
    let world = World::new(&["s"]);
    let keys: Vec<_> = (0..10_000).map(|key| format!("{key:05}")).collect();
    let entries: Vec<_> = keys.iter().map(|key| (key.as_str(), Some("v"))).collect();
    world.write("s", &entries);
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), ONE);
    let mut restore = world.restore(&db, &stable(Some(9), 2));
    assert_eq!(world.step(&mut restore), RestoreStep::Progressed);
    db.flush().unwrap();
    assert_eq!(world.step(&mut restore), RestoreStep::Progressed);
    drop((restore, db));

    let db = open(dir.path(), ONE);
    let checkpoint = db.checkpoint();
    let durable = u64::try_from(checkpoint.changelogs["s"].next_offset).unwrap();
    assert_eq!(durable, RECORDS_PER_STEP as u64);
    assert_eq!(
        contents(&db, "s").len(),
        RECORDS_PER_STEP,
        "offsets equal data"
    );
    assert_eq!(
        checkpoint.generation,
        Some(2),
        "or it would pass for older than the reset"
    );
    assert!(checkpoint.inputs.is_empty());
    assert_eq!(checkpoint.changelogs["s"].fresh_at, Some(NOW));
    world.clock.advance(500);
    let mut restore = world.restore(&db, &stable(Some(9), 2));
    assert_eq!(world.step(&mut restore), RestoreStep::Progressed);
    let fresh_at = db.checkpoint().changelogs["s"].fresh_at;
    assert_eq!(
        fresh_at,
        Some(NOW),
        "what it builds on is as old as the first attempt"
    );
    world.finish(&mut restore);
    assert_eq!(restore.progress(0).records, 10_000 - durable);
    assert_eq!(contents(&db, "s").len(), 10_000);
    assert_eq!(db.checkpoint().changelogs["s"].fresh_at, Some(NOW + 500));
}

#[test]
fn only_the_tail_is_replayed_and_older_records_leave_newer_ones_alone() {
    let world = World::new(&["s"]);
    world.write("s", &[("a", Some("1")), ("b", Some("1"))]);
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), ONE);
    world.finish(&mut world.restore(&db, &stable(Some(2), 0)));
    world.write("s", &[("a", None), ("c", Some("2"))]);
    let mut restore = world.restore(&db, &stable(Some(4), 0));
    world.finish(&mut restore);
    assert_eq!(restore.progress(0).records, 2);
    assert_eq!(contents(&db, "s"), of(&[("b", "1", NOW), ("c", "2", NOW)]));
    assert_eq!(db.checkpoint().inputs[&input()].next_offset, 4);
}

#[test]
fn a_changelog_that_was_cut_is_out_of_range() {
    let world = World::new(&["s"]);
    world.write("s", &[("a", Some("1")), ("b", Some("1"))]);
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), ONE);
    let mut restore = world.restore(&db, &stable(Some(2), 0));
    world.log.delete_records(&[(partition("s"), 2)]).unwrap();
    let error = restore.step(Duration::ZERO, NOW, &NoProbe).unwrap_err();
    assert!(
        matches!(error, RestoreError::Log(LogError::OffsetOutOfRange { .. })),
        "{error}"
    );
}

#[test]
fn stores_in_memory_are_restored_without_a_checkpoint() {
    let world = World::new(&["disk", "memory"]);
    world.write("disk", &[("a", Some("1"))]);
    world.write("memory", &[("a", Some("1")), ("b", Some("1"))]);
    world.write("memory", &[("b", None)]);
    let stores = [
        ("disk", Persistence::RocksDb),
        ("memory", Persistence::InMemory),
    ];
    let dir = tempfile::tempdir().unwrap();
    for attempt in 0..2 {
        let db = open(dir.path(), &stores);
        world.finish(&mut world.restore(&db, &stable(Some(3), 0)));
        for store in ["disk", "memory"] {
            assert_eq!(
                contents(&db, store),
                of(&[("a", "1", NOW)]),
                "attempt {attempt} {store}"
            );
        }
        assert_eq!(
            db.checkpoint().changelogs.keys().collect::<Vec<_>>(),
            ["disk"]
        );
        db.close().unwrap();
    }
}

#[derive(Debug, Default)]
struct Away(AtomicBool);

impl FaultPlan for Away {
    fn decide(&self, site: &FaultSite<'_>) -> Option<Fault> {
        (site.point == FaultPoint::Fetch && self.0.load(Ordering::SeqCst))
            .then_some(Fault::Retriable)
    }
}

#[test]
fn a_log_that_is_away_is_waited_for() {
    let world = World::new(&["s"]);
    world.write("s", &[("a", Some("1"))]);
    let away = Arc::new(Away(AtomicBool::new(true)));
    world.log.set_faults(Some(Arc::<Away>::clone(&away)));
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), ONE);
    let mut restore = world.restore(&db, &stable(Some(1), 0));
    for _ in 0..3 {
        assert_eq!(world.step(&mut restore), RestoreStep::Waiting);
    }
    away.0.store(false, Ordering::SeqCst);
    world.finish(&mut restore);
    assert_eq!(contents(&db, "s"), of(&[("a", "1", NOW)]));
}

/// Crashes when a point is reached for the n-th time.
#[derive(Debug)]
struct CrashAt(CrashPoint, AtomicUsize);

impl Probe for CrashAt {
    fn reached(&self, point: CrashPoint) -> Result<(), Crash> {
        let crashes = point == self.0 && self.1.fetch_sub(1, Ordering::SeqCst) == 1;
        if crashes { Err(Crash(point)) } else { Ok(()) }
    }
}

#[test]
fn a_crash_before_or_after_a_step_is_passed_on() {
    let world = World::new(&["s"]);
    world.write("s", &[("a", Some("1"))]);
    for (point, applied) in [
        (CrashPoint::BeforeRestoreStep, false),
        (CrashPoint::AfterRestoreStep, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path(), ONE);
        let probe = CrashAt(point, AtomicUsize::new(1));
        let mut restore = world.restore(&db, &stable(Some(1), 0));
        let error = restore.step(Duration::ZERO, NOW, &probe).unwrap_err();
        assert!(matches!(error, RestoreError::Crash(Crash(at)) if at == point));
        assert_eq!(db.has_data("s").unwrap(), applied);
    }
}

/// Committed, aborted and open transactions over two changelogs; kills, flushes and restores in
/// between. Whatever happens, a finished restore equals the fold of what was committed.
fn random_history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(&["s", "t"]);
    let stores = [("s", Persistence::RocksDb), ("t", Persistence::RocksDb)];
    let mut expected = BTreeMap::from([("s", BTreeMap::new()), ("t", BTreeMap::new())]);
    let mut dead = 0;
    let dir = tempfile::tempdir().unwrap();
    let mut db = open(dir.path(), &stores);
    for round in 0..30 {
        world.clock.advance(1);
        let mut producer = world.producer("owner");
        producer.begin_transaction().unwrap();
        let mut writes = Vec::new();
        for _ in 0..random.usize(1..20) {
            let store = if random.bool() { "s" } else { "t" };
            let key = random.u32(..12).to_string();
            let value = (random.u32(..4) > 0).then(|| format!("{round}"));
            let time = world.clock.now_ms();
            send(&mut producer, store, &key, value.as_deref(), time);
            writes.push((store, key, value.map(|value| (value, time))));
        }
        match random.u32(..10) {
            0..6 => {
                producer.commit_transaction().unwrap();
                for (store, key, value) in writes {
                    let map = expected.get_mut(store).unwrap();
                    match value {
                        Some(value) => drop(map.insert(key, value)),
                        None => drop(map.remove(&key)),
                    }
                }
            }
            6..8 => producer.abort_transaction().unwrap(),
            _ => {
                // A dead owner's transaction stays open until the broker's timeout.
                drop(producer);
                dead += 1;
                drop(world.open(&format!("dead-{dead}"), "s", &[("0", Some("never"))]));
            }
        }
        if random.u32(..3) > 0 {
            continue;
        }
        let mut restore = world.restore(&db, &stable(Some(round), 0));
        let point = if random.bool() {
            CrashPoint::BeforeRestoreStep
        } else {
            CrashPoint::AfterRestoreStep
        };
        let probe = CrashAt(point, AtomicUsize::new(random.usize(1..4)));
        let outcome = loop {
            match restore.step(Duration::ZERO, world.clock.now_ms(), &probe) {
                Ok(RestoreStep::Done) => break Ok(()),
                Ok(RestoreStep::Progressed) => {}
                Ok(RestoreStep::Waiting) => world.clock.advance(2_000),
                Err(error) => break Err(error),
            }
            if random.u32(..4) == 0 {
                db.flush().unwrap();
            }
        };
        if outcome.is_ok() {
            for (store, _) in stores {
                assert_eq!(
                    contents(&db, store),
                    expected[store],
                    "seed {seed} round {round}"
                );
            }
        }
        if outcome.is_err() || random.bool() {
            drop((restore, db));
            db = open(dir.path(), &stores);
        }
    }
    world.finish(&mut world.restore(&db, &stable(Some(30), 0)));
    for (store, _) in stores {
        assert_eq!(contents(&db, store), expected[store], "seed {seed}");
    }
}

#[test]
fn random_restores_equal_the_fold_of_the_changelog() {
    let replay = std::env::var("MILLSTREAM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = replay.map_or(0..24, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| random_history(seed));
        assert!(
            outcome.is_ok(),
            "replay: MILLSTREAM_SEED={seed} cargo test --release \
             random_restores_equal_the_fold_of_the_changelog"
        );
    }
}

/// Found by `tests/protocol_model`: a key read before its tombstone was cleaned away would come back.
#[test]
fn a_restore_that_outlives_tombstones_starts_over() {
    let world = World::new(&["s"]);
    world.write("s", &[("a", Some("1")), ("b", Some("2"))]);
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path(), ONE);
    let _dead = world.open("dead", "s", &[("c", Some("3"))]);
    let mut restore = world.restore(&db, &stable(Some(2), 0));
    assert_eq!(world.step(&mut restore), RestoreStep::Progressed);
    world.clock.advance(TOMBSTONES_LIVE_MS - 1);
    assert_eq!(world.step(&mut restore), RestoreStep::Done, "still in time");
    let mut late = world.restore(&open(&dir.path().join("other"), ONE), &stable(Some(2), 0));
    world.clock.advance(TOMBSTONES_LIVE_MS);
    let step = late.step(Duration::ZERO, world.clock.now_ms(), &NoProbe);
    assert!(
        matches!(step, Err(RestoreError::OutlivedTombstones { .. })),
        "{step:?}"
    );
}
