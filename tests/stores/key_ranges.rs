//! Ranges of keys in window and session stores, against filtered brute force.

use std::cell::Cell;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use millstream::prelude::*;
use millstream::state::{MemoryStore, Segments};
use proptest::prelude::*;

type Key = Vec<u8>;

/// Keys that begin alike, with the bytes that ranges trip over.
fn key() -> impl Strategy<Value = Key> {
    prop::collection::vec(prop::sample::select(vec![0, 1, b'a', 0xfe, 0xff]), 0..4)
}

fn bound() -> impl Strategy<Value = Bound<Key>> {
    prop_oneof![
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn is_inverted(keys: &(Bound<Key>, Bound<Key>)) -> bool {
    let side = |bound: &Bound<Key>| match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key.clone()),
        Bound::Unbounded => None,
    };
    matches!((side(&keys.0), side(&keys.1)), (Some(from), Some(to)) if from > to)
}

/// The order of scans: by segment, key, time.
fn by_segment(interval: i64, time: i64, key: &Key) -> (i64, Vec<u8>) {
    let mut bytes = key.clone();
    bytes.extend_from_slice(&time.to_be_bytes());
    (time.div_euclid(interval), bytes)
}

const INTERVAL: i64 = 50;

proptest! {
    #[test]
    fn windows_of_a_range_of_keys_are_those_whose_keys_lie_in_it(
        entries in prop::collection::btree_set((key(), 0_i64..300), 0..40),
        keys in (bound(), bound()),
        from in 0_i64..300,
        len in 0_i64..300,
    ) {
        let store = WindowStore::new(
            "windows".to_owned(),
            Box::new(MemoryStore::new()),
            Arc::new(serdes::bytes()),
            Arc::new(serdes::i64()),
            Rc::new(Cell::new(0)),
            1 << 20,
            Segments::with_interval(10_000, INTERVAL),
        ).unwrap();
        for (key, start) in &entries {
            store.put(key.clone(), *start, *start).unwrap();
        }
        let starts = from..=from + len;
        let mut expected: Vec<_> = entries
            .iter()
            .filter(|(key, start)| starts.contains(start)
                && !is_inverted(&keys)
                && std::ops::RangeBounds::contains(&keys, key))
            .cloned()
            .collect();
        expected.sort_by_key(|(key, start)| by_segment(INTERVAL, *start, key));
        let found = store.fetch_key_range(keys.clone(), starts.clone()).unwrap();
        let found: Vec<_> = found
            .map(|entry| entry.map(|entry| (entry.key, entry.start)))
            .collect::<Result<_, _>>()
            .unwrap();
        prop_assert_eq!(&found, &expected);
        let back = store.backward_fetch_key_range(keys, starts).unwrap();
        let mut back: Vec<_> = back
            .map(|entry| entry.map(|entry| (entry.key, entry.start)))
            .collect::<Result<_, _>>()
            .unwrap();
        back.reverse();
        prop_assert_eq!(&back, &expected);
    }

    #[test]
    fn sessions_of_a_range_of_keys_are_those_whose_keys_lie_in_it(
        entries in prop::collection::btree_set((key(), 0_i64..200, 0_i64..100), 0..40),
        keys in (bound(), bound()),
        earliest_end in 0_i64..300,
        latest_start in 0_i64..300,
    ) {
        let store = SessionStore::new(
            "sessions".to_owned(),
            Box::new(MemoryStore::new()),
            Arc::new(serdes::bytes()),
            Arc::new(serdes::i64()),
            Rc::new(Cell::new(0)),
            1 << 20,
            Segments::with_interval(10_000, INTERVAL),
        ).unwrap();
        for (key, start, length) in &entries {
            let window = Window::new(*start, start + length);
            store.put(Windowed::new(key.clone(), window), *start).unwrap();
        }
        let mut expected: Vec<_> = entries
            .iter()
            .map(|(key, start, length)| (key.clone(), *start, start + length))
            .filter(|(key, start, end)| *end >= earliest_end
                && *start <= latest_start
                && !is_inverted(&keys)
                && std::ops::RangeBounds::contains(&keys, key))
            .collect();
        expected.sort_by_key(|(key, start, end)| {
            let (segment, mut bytes) = by_segment(INTERVAL, *end, key);
            bytes.extend_from_slice(&start.to_be_bytes());
            (segment, bytes)
        });
        let read = |sessions: millstream::state::SessionEntries<Key, i64>| -> Vec<_> {
            sessions
                .map(|session| session.unwrap().0)
                .map(|session| (session.key, session.window.start(), session.window.end()))
                .collect()
        };
        let found = store
            .find_sessions_of_keys(keys.clone(), earliest_end, latest_start)
            .unwrap();
        prop_assert_eq!(&read(found), &expected);
        let back = store
            .backward_find_sessions_of_keys(keys.clone(), earliest_end, latest_start)
            .unwrap();
        let mut back = read(back);
        back.reverse();
        prop_assert_eq!(&back, &expected);
        if earliest_end == 0 && latest_start == 299 {
            prop_assert_eq!(&read(store.fetch_key_range(keys).unwrap()), &expected);
        }
    }
}
