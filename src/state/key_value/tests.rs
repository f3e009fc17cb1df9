//! Behaviour of typed stores, and random histories against a model.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::*;
use crate::state::{BytesIterator, MemoryStore, StoreRef};

/// Numbers as text, so that byte order differs from numeric order.
#[derive(Debug)]
struct Decimal;

impl Serde<u32> for Decimal {
    fn serialize(&self, data: &u32, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        if *data == u32::MAX {
            return Ok(false);
        }
        out.extend_from_slice(data.to_string().as_bytes());
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<u32, BoxError> {
        Ok(std::str::from_utf8(bytes.ok_or("null")?)?.parse()?)
    }
}

#[derive(Debug)]
struct Text;

impl Serde<String> for Text {
    fn serialize(&self, data: &String, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(data.as_bytes());
        Ok(data != "null")
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<String, BoxError> {
        Ok(String::from_utf8(bytes.ok_or("null")?.to_vec())?)
    }
}

/// Numbers out of numeric order may be in byte order.
fn bounds(from: u32, to: u32) -> (Bound<u32>, Bound<u32>) {
    (Bound::Included(from), Bound::Included(to))
}

/// Counts reads.
#[derive(Debug, Clone, Default)]
struct Counted {
    bytes: MemoryStore,
    gets: Rc<Cell<usize>>,
}

impl BytesStore for Counted {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.gets.set(self.gets.get() + 1);
        self.bytes.get(key)
    }

    fn range<'a>(&'a self, from: &[u8], to: Option<&[u8]>, reverse: bool) -> BytesIterator<'a> {
        self.bytes.range(from, to, reverse)
    }

    fn approximate_count(&self) -> Result<u64, StateError> {
        self.bytes.approximate_count()
    }
}

type Dirty = Vec<(Vec<u8>, Option<Vec<u8>>, Timestamp)>;

#[derive(Default)]
struct Collect(Dirty);

impl DirtySink for Collect {
    fn entry(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp: Timestamp,
    ) -> Result<(), StateError> {
        self.0
            .push((key.to_vec(), value.map(<[u8]>::to_vec), timestamp));
        Ok(())
    }
}

struct Fixture {
    store: StoreRef<u32, String>,
    state: Rc<RefCell<dyn StateStore>>,
    backend: Counted,
    time: Rc<Cell<Timestamp>>,
}

impl Fixture {
    fn new(cache: usize) -> Self {
        let backend = Counted::default();
        let time = Rc::new(Cell::new(0));
        let store = StoreRef::new(KeyValueStore::new(
            "numbers".to_owned(),
            Box::new(backend.clone()),
            Arc::new(Decimal) as Arc<dyn Serde<u32>>,
            Arc::new(Text) as Arc<dyn Serde<String>>,
            Rc::clone(&time),
            cache,
        ));
        let state = store.state_store();
        Self {
            store,
            state,
            backend,
            time,
        }
    }

    fn put(&self, key: u32, value: &str) {
        self.store.put(key, value.to_owned()).unwrap();
    }

    fn get(&self, key: u32) -> Option<String> {
        self.store.get(&key).unwrap()
    }

    fn release(&self) {
        self.state.borrow_mut().release_savepoint();
    }

    fn rollback(&self) {
        self.state.borrow_mut().rollback_savepoint();
    }

    fn discard(&self) {
        self.state.borrow_mut().discard_uncommitted();
    }

    /// What a task does at commit, with a transaction that succeeds.
    fn commit(&self) -> Dirty {
        let mut sink = Collect::default();
        self.state.borrow_mut().drain_dirty(&mut sink).unwrap();
        self.backend
            .bytes
            .apply(sink.0.iter().map(|(key, value, timestamp)| {
                let value = value.as_ref().map(|value| {
                    let mut bytes = Vec::new();
                    format::value::encode(*timestamp, value, &mut bytes);
                    bytes.into_boxed_slice()
                });
                (key.clone().into_boxed_slice(), value)
            }));
        self.state.borrow_mut().mark_committed();
        sink.0
    }

    fn all(&self) -> Vec<(u32, String)> {
        self.store.all().map(Result::unwrap).collect()
    }
}

#[test]
fn a_key_is_read_once_per_transaction_and_kept_after_it() {
    let fixture = Fixture::new(1 << 20);
    fixture.put(1, "a");
    fixture.release();
    assert_eq!(fixture.backend.gets.get(), 0, "a blind write reads nothing");
    fixture.commit();
    assert_eq!(fixture.get(1).as_deref(), Some("a"));
    assert_eq!(fixture.get(2), None);
    assert_eq!(fixture.get(2), None);
    assert_eq!(fixture.store.delete(&2).unwrap(), None);
    assert_eq!(
        fixture.backend.gets.get(),
        1,
        "committed entries and absences stay cached"
    );
    assert!(
        !fixture.state.borrow().is_dirty(),
        "deleting nothing writes nothing"
    );
}

#[test]
fn a_smaller_share_of_the_cache_takes_effect_at_once_and_a_larger_one_with_the_next_reads() {
    let fixture = Fixture::new(1 << 20);
    for key in 0..100 {
        fixture.put(key, "a");
        fixture.release();
    }
    fixture.commit();
    let held = fixture.state.borrow().held_bytes();
    assert!(held > 100);
    fixture.state.borrow_mut().share_cache(held / 2);
    let half = fixture.state.borrow().held_bytes();
    assert!(half <= held / 2 && half > 0, "{half} of {held}");
    // Nothing that is not committed goes with it.
    fixture.put(7, "b");
    fixture.state.borrow_mut().share_cache(0);
    assert_eq!(fixture.get(7).as_deref(), Some("b"));
    fixture.release();
    fixture.commit();
    assert_eq!(fixture.state.borrow().held_bytes(), 0);
    fixture.state.borrow_mut().share_cache(1 << 20);
    let gets = fixture.backend.gets.get();
    for _ in 0..3 {
        assert_eq!(fixture.get(7).as_deref(), Some("b"));
    }
    assert_eq!(fixture.backend.gets.get(), gets + 1);
}

#[test]
fn dirty_entries_are_serialised_once_in_key_order_with_their_timestamps() {
    let fixture = Fixture::new(1 << 20);
    for (time, key) in [(5, 7), (6, 10), (7, 9), (8, 7)] {
        fixture.time.set(time);
        fixture.put(key, &format!("v{time}"));
        fixture.release();
    }
    let expected: Dirty = vec![
        (b"10".to_vec(), Some(b"v6".to_vec()), 6),
        (b"7".to_vec(), Some(b"v8".to_vec()), 8),
        (b"9".to_vec(), Some(b"v7".to_vec()), 7),
    ];
    assert_eq!(fixture.commit(), expected);
    assert_eq!(fixture.commit(), Dirty::new());
    assert_eq!(
        fixture.store.get_with_timestamp(&7).unwrap(),
        Some(("v8".to_owned(), 8))
    );
    fixture.store.delete(&7).unwrap();
    fixture.release();
    assert_eq!(fixture.commit(), vec![(b"7".to_vec(), None, 8)]);
    assert_eq!(fixture.get(7), None);
}

#[test]
fn a_rolled_back_record_leaves_nothing_and_a_released_one_stays() {
    let fixture = Fixture::new(1 << 20);
    fixture.put(1, "committed");
    fixture.release();
    fixture.commit();
    fixture.put(1, "first");
    fixture.put(2, "first");
    fixture.release();
    fixture.put(1, "second");
    fixture.put(1, "third");
    fixture.store.delete(&2).unwrap();
    fixture.put(3, "new");
    assert_eq!(
        fixture
            .store
            .put_if_absent(3, "x".to_owned())
            .unwrap()
            .as_deref(),
        Some("new")
    );
    fixture.rollback();
    assert_eq!(
        fixture.all(),
        [(1, "first".to_owned()), (2, "first".to_owned())]
    );
    assert_eq!(fixture.get(3), None);
    assert_eq!(fixture.commit().len(), 2);
}

#[test]
fn an_aborted_transaction_leaves_no_trace() {
    let fixture = Fixture::new(1 << 20);
    fixture.put(1, "committed");
    fixture.release();
    fixture.commit();
    fixture.put(1, "aborted");
    fixture.put(2, "aborted");
    fixture.release();
    fixture.put(3, "half a record");
    fixture.discard();
    assert_eq!(fixture.state.borrow().uncommitted_bytes(), 0);
    assert_eq!(fixture.all(), [(1, "committed".to_owned())]);
    assert_eq!(fixture.get(1).as_deref(), Some("committed"));
    assert_eq!(fixture.get(2), None);
    assert_eq!(fixture.commit(), Dirty::new());
}

#[test]
fn the_cache_keeps_its_budget_and_what_is_in_use() {
    let fixture = Fixture::new(4 << 10);
    for key in 0..1_000 {
        fixture.put(key, "0123456789");
        fixture.release();
    }
    assert!(fixture.state.borrow().uncommitted_bytes() > 10_000);
    fixture.commit();
    let cached = || fixture.store.borrow().cached_bytes();
    assert!(cached() <= 4 << 10, "{} bytes", cached());
    for key in 0..1_000 {
        fixture.get(key);
        fixture.get(999_999);
        assert!(cached() <= 4 << 10);
    }
    assert!(
        fixture.backend.gets.get() <= 1_001,
        "a key in constant use was evicted: {} reads",
        fixture.backend.gets.get()
    );
}

#[test]
fn without_a_cache_everything_still_works() {
    let fixture = Fixture::new(0);
    fixture.put(1, "a");
    fixture.release();
    fixture.commit();
    assert_eq!(fixture.get(1).as_deref(), Some("a"));
    fixture.put(1, "b");
    fixture.rollback();
    assert_eq!(fixture.get(1).as_deref(), Some("a"));
    assert_eq!(fixture.store.borrow().cached_bytes(), 0);
}

#[test]
fn ranges_are_in_byte_order_and_may_be_written_meanwhile() {
    let fixture = Fixture::new(1 << 20);
    for key in [1, 2, 10, 20, 100] {
        fixture.put(key, "committed");
    }
    fixture.release();
    fixture.commit();
    fixture.store.delete(&10).unwrap();
    fixture.put(15, "dirty");
    let keys = |entries: &mut dyn Iterator<Item = Result<(u32, String), StateError>>| {
        entries.map(|entry| entry.unwrap().0).collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&mut fixture.store.range(1..=2).unwrap()),
        [1, 100, 15, 2]
    );
    assert_eq!(keys(&mut fixture.store.range(1..2).unwrap()), [1, 100, 15]);
    assert_eq!(
        keys(&mut fixture.store.reverse_range(bounds(100, 20)).unwrap()),
        [20, 2, 15, 100]
    );
    assert_eq!(keys(&mut fixture.store.prefix_scan(b"1")), [1, 100, 15]);
    assert_eq!(
        keys(&mut fixture.store.range(bounds(2, 1)).unwrap()),
        [0_u32; 0]
    );
    for entry in fixture.store.all() {
        fixture.store.delete(&entry.unwrap().0).unwrap();
    }
    assert_eq!(fixture.all(), []);
    assert_eq!(
        fixture.store.approximate_count().unwrap(),
        5,
        "committed keys only"
    );
}

#[test]
fn null_keys_are_refused_and_null_values_are_deletes() {
    let fixture = Fixture::new(1 << 20);
    let refused = fixture.store.put(u32::MAX, String::new()).unwrap_err();
    assert!(matches!(refused, StateError::Encode { .. }), "{refused}");
    fixture.put(1, "null");
    fixture.release();
    assert_eq!(fixture.commit(), vec![(b"1".to_vec(), None, 0)]);
    assert_eq!(fixture.get(1), None);
}

#[test]
fn damaged_values_are_decode_errors() {
    let fixture = Fixture::new(1 << 20);
    let entry = |key: &[u8], value: &[u8]| (Box::from(key), Some(Box::from(value)));
    fixture
        .backend
        .bytes
        .apply([entry(b"1", b"short"), entry(b"2", b"12345678\xff")]);
    for key in [1, 2] {
        let error = fixture.store.get(&key).unwrap_err();
        assert!(matches!(&error, StateError::Decode { store, .. } if store == "numbers"));
    }
    assert!(fixture.store.all().next().unwrap().is_err());
}

/// The model: committed map, the transaction's map, and the record's.
#[derive(Clone, Default)]
struct Model {
    committed: BTreeMap<Vec<u8>, (String, Timestamp)>,
    released: BTreeMap<Vec<u8>, (String, Timestamp)>,
    current: BTreeMap<Vec<u8>, (String, Timestamp)>,
}

fn bytes(key: u32) -> Vec<u8> {
    key.to_string().into_bytes()
}

fn check_scan(
    seed: u64,
    got: impl Iterator<Item = Result<(u32, String), StateError>>,
    expected: impl Iterator<Item = (Vec<u8>, String)>,
) {
    let got: Vec<_> = got
        .map(Result::unwrap)
        .map(|(key, value)| (bytes(key), value))
        .collect();
    assert_eq!(got, expected.collect::<Vec<_>>(), "seed {seed}");
}

fn random_history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let keys = [4, 30, 400][random.usize(..3)];
    let fixture = Fixture::new([0, 700, 1 << 20][random.usize(..3)]);
    let scans = random.bool();
    let mut model = Model::default();
    for step in 0..600 {
        let key = random.u32(..keys);
        let id = bytes(key);
        fixture.time.set(step);
        match random.u32(..100) {
            0..30 => {
                let value = format!("{step}");
                fixture.put(key, &value);
                model.current.insert(id, (value, step));
            }
            30..45 => {
                let expected = model.current.remove(&id).map(|(value, _)| value);
                assert_eq!(fixture.store.delete(&key).unwrap(), expected, "seed {seed}");
            }
            45..50 => {
                let value = format!("{step}");
                let got = fixture.store.put_if_absent(key, value.clone()).unwrap();
                assert_eq!(
                    got,
                    model.current.get(&id).map(|(v, _)| v.clone()),
                    "seed {seed}"
                );
                model.current.entry(id).or_insert((value, step));
            }
            50..65 => {
                let got = fixture.store.get_with_timestamp(&key).unwrap();
                assert_eq!(got, model.current.get(&id).cloned(), "seed {seed}");
            }
            65..75 if scans => {
                let (from, to) = (bytes(random.u32(..keys)), bytes(random.u32(..keys)));
                let parse = |id: &[u8]| Decimal.deserialize(Some(id)).unwrap();
                let range = parse(&from)..=parse(&to);
                let within = |(id, _): &(&Vec<u8>, _)| (&from..=&to).contains(id);
                let expected = model.current.iter().filter(within);
                let expected = expected.map(|(id, (value, _))| (id.clone(), value.clone()));
                if random.bool() {
                    check_scan(seed, fixture.store.range(range).unwrap(), expected);
                } else {
                    let got = fixture.store.reverse_range(range).unwrap();
                    check_scan(seed, got, expected.rev());
                }
                let prefix = &from[..1];
                let expected = model
                    .current
                    .iter()
                    .filter(|(id, _)| id.starts_with(prefix));
                let expected = expected.map(|(id, (value, _))| (id.clone(), value.clone()));
                check_scan(seed, fixture.store.prefix_scan(prefix), expected);
            }
            65..85 => {
                fixture.release();
                model.released = model.current.clone();
            }
            85..93 => {
                fixture.rollback();
                model.current = model.released.clone();
            }
            93..97 => {
                fixture.release();
                fixture.commit();
                model.committed = model.current.clone();
                model.released = model.current.clone();
            }
            _ => {
                fixture.discard();
                model.current = model.committed.clone();
                model.released = model.committed.clone();
            }
        }
    }
    fixture.release();
    fixture.commit();
    let expected = model
        .current
        .into_iter()
        .map(|(id, (value, _))| (id, value));
    check_scan(seed, fixture.store.all(), expected);
}

#[test]
fn random_histories_equal_a_model() {
    let replay = std::env::var("MILLSTREAM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = replay.map_or(0..400, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| random_history(seed));
        assert!(
            outcome.is_ok(),
            "replay: MILLSTREAM_SEED={seed} cargo test --release random_histories_equal_a_model"
        );
    }
}
