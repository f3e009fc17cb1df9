//! What is counted over aggregates: right at any time, and built anew beside what serves.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millstream::event_sourcing::ProjectionPhase;
use millstream::log::{Headers, Log, LogProducer, ProducerRecord, ProducerSpec};
use serde_json::Value;

use crate::library::{Library, Program};

fn with_letters() -> Program {
    Program {
        ledger: false,
        letters: true,
        ..Program::first()
    }
}

fn filled(slice: usize) -> Library {
    let mut library = Library::new(with_letters(), slice);
    for number in 0..12 {
        let shelf = format!("shelf-{number:02}");
        for round in 0..=number % 4 {
            library.put(&shelf, &[&format!("a{round}"), &format!("{}b", number % 3)]);
        }
    }
    library
}

fn verify(library: &Library) -> millstream::event_sourcing::Verification {
    let endpoint = library.endpoint("letters");
    let queries = library.driver.queries();
    endpoint.verify(queries, None, 1_000).unwrap()
}

/// Asserts that the topic of letters, as a table, is what is served.
fn assert_topic_is_served(library: &mut Library, table: &mut BTreeMap<String, Value>) {
    for (letter, row) in library.sent_letters() {
        match row {
            Some(row) => drop(table.insert(letter, serde_json::to_value(row).unwrap())),
            None => drop(table.remove(&letter)),
        }
    }
    let mut rows: Vec<Value> = table.values().cloned().collect();
    rows.sort_by_key(ToString::to_string);
    assert_eq!(rows, library.served("letters"));
}

#[test]
fn groups_follow_events_and_one_without_shares_is_gone() {
    let mut library = Library::new(with_letters(), 100);
    library.put("a", &["x1", "y1"]);
    library.put("b", &["x2"]);
    assert_eq!(library.served("letters"), library.letters(1));
    let queries = library.driver.queries();
    let serving = library.endpoint("letters").serving();
    let found = queries.get_serving(&*serving, "x").unwrap().unwrap();
    assert_eq!(found.value["books"], 2);
    let found = verify(&library);
    assert_eq!((found.aggregates, found.difference), (2, None));
    let groups = found.groups.unwrap();
    assert_eq!((groups.compared, groups.unsettled), (2, 0));
    library.sent_letters();
    library.clear("a");
    assert_eq!(library.served("letters"), library.letters(1));
    let sent: BTreeMap<_, _> = library.sent_letters().into_iter().collect();
    assert!(sent["y"].is_none(), "{sent:?}");
    assert_eq!(sent["x"].as_ref().unwrap().books, 1);
}

#[test]
fn a_damaged_count_is_named_and_mended_by_a_rebuild_under_traffic_and_kills() {
    let mut library = filled(3);
    library.program.wrong.store(true, Ordering::Relaxed);
    library.put("shelf-03", &["z"]);
    library.program.wrong.store(false, Ordering::Relaxed);
    assert_ne!(library.served("letters"), library.letters(1));
    let difference = verify(&library).difference.unwrap();
    assert_eq!(difference.store, "letters-totals");
    assert_eq!(difference.problem, "a group is another");
    let mut table = BTreeMap::new();
    assert_topic_is_served(&mut library, &mut table);

    let asked = library
        .endpoint("letters")
        .request_rebuild(library.driver.queries())
        .unwrap();
    assert_eq!(asked, BTreeMap::from([(0, 2), (1, 2)]));
    let before = library.served("letters");
    let mut looks_while_building = 0;
    for step in 0.. {
        assert!(step < 500, "{:?}", library.progress("letters"));
        library.step();
        if library.rests("letters") && library.progress("letters")[0].generation == 2 {
            break;
        }
        let progress = library.progress("letters");
        let building = |phase: &ProjectionPhase| matches!(phase, ProjectionPhase::Building { .. });
        if progress.iter().any(|it| building(&it.phase)) {
            looks_while_building += 1;
            assert_ne!(
                library.served("letters"),
                library.letters(1),
                "the old one serves"
            );
        }
        if step < 40 {
            library.put(&format!("shelf-{:02}", step * 5 % 12), &["a", "c"]);
        }
        match step % 3 {
            0 => library.kill(true),
            1 => library.kill(false),
            _ => {}
        }
    }
    assert!(looks_while_building > 3, "{looks_while_building}");
    assert_ne!(before, library.served("letters"));
    assert_eq!(library.served("letters"), library.letters(1));
    assert_eq!(verify(&library).difference, None);
    assert_topic_is_served(&mut library, &mut table);
    let groups = library.served("letters").len();
    assert_eq!(
        library.rows_of("letters-totals"),
        groups,
        "the old one is gone"
    );
    assert_eq!(library.rows_of("letters-shares"), 12);
}

#[test]
fn an_entry_that_was_lost_from_the_store_is_named_and_comes_back_by_a_rebuild() {
    let mut library = filled(100);
    // The changelog is the store's truth: what it says is restored.
    let mut key = 1_u64.to_be_bytes().to_vec();
    key.extend_from_slice(b"a");
    let mut producer = library
        .driver
        .log()
        .producer(&ProducerSpec {
            transactional_id: None,
            transaction_timeout: Duration::from_secs(10),
            client_id: "damage".to_owned(),
        })
        .unwrap();
    for partition in 0..2 {
        producer
            .send(ProducerRecord {
                topic: &"test-letters-totals-changelog".into(),
                partition: Some(partition),
                key: Some(&key),
                value: None,
                timestamp: library.driver.now_ms(),
                headers: &Headers::new(),
            })
            .unwrap();
    }
    producer.flush().unwrap();
    library.kill(false);
    let difference = verify(&library).difference.unwrap();
    assert_eq!(difference.problem, "a group is missing");
    assert_eq!(difference.row.as_deref(), Some("a"));
    let queries = library.driver.queries();
    library
        .endpoint("letters")
        .request_rebuild(queries)
        .unwrap();
    library.settle("letters");
    assert_eq!(library.served("letters"), library.letters(1));
    assert_eq!(verify(&library).difference, None);
}

#[test]
fn other_rules_take_over_everywhere_at_once_and_never_mix_with_the_old_ones() {
    let mut library = filled(2);
    let mut table = BTreeMap::new();
    assert_topic_is_served(&mut library, &mut table);
    let old = library.served("letters");
    let second = Program {
        weight: 10,
        version: 2,
        ..library.program.clone()
    };
    library.restart_as(second, true);
    let mut steps = 0;
    loop {
        let served = library.served("letters");
        assert!(served == old || served == library.letters(10), "{served:?}");
        if library.rests("letters") && library.progress("letters")[0].version == 2 {
            break;
        }
        library.step();
        match steps {
            2 | 9 => library.kill(false),
            // A group that the old rows have not, and one less.
            5 => library.put("shelf-00", &["q"]),
            7 => library.clear("shelf-01"),
            _ => {}
        }
        steps += 1;
        assert!(steps < 300, "{:?}", library.progress("letters"));
    }
    assert_eq!(library.served("letters"), library.letters(10));
    assert_eq!(verify(&library).difference, None);
    assert_topic_is_served(&mut library, &mut table);
}

#[test]
fn one_that_is_added_later_has_all_of_history() {
    let without = Program {
        letters: false,
        ..with_letters()
    };
    let mut library = Library::new(without, 3);
    for number in 0..10 {
        library.put(&format!("shelf-{number}"), &["a", "b"]);
    }
    library.restart_as(with_letters(), true);
    library.settle("letters");
    assert_eq!(library.served("letters"), library.letters(1));
    library.put("shelf-1", &["c"]);
    assert_eq!(library.served("letters"), library.letters(1));
}

#[test]
fn whatever_is_asked_killed_and_upgraded_the_groups_are_what_the_events_add_up_to() {
    let seeds = match std::env::var("MILLSTREAM_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..6).map(|_| fastrand::u64(..)).collect(),
    };
    for seed in seeds {
        println!("replay: MILLSTREAM_SEED={seed} cargo test --release --test projections whatever");
        random_life(seed);
    }
}

fn random_life(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut library = Library::new(with_letters(), random.usize(1..8));
    let mut table = BTreeMap::new();
    for _ in 0..150 {
        let shelf = format!("shelf-{:02}", random.u8(0..15));
        match random.u8(0..20) {
            0..8 => {
                let book = char::from(random.u8(b'a'..b'h')).to_string();
                library.put(&shelf, &[&book, "a"]);
            }
            8 => library.clear(&shelf),
            9 => library.kill(true),
            10 => library.kill(false),
            11 => {
                let queries = library.driver.queries();
                library
                    .endpoint("letters")
                    .request_rebuild(queries)
                    .unwrap();
            }
            12 if library.program.version < 4 => {
                let next = Program {
                    version: library.program.version + 1,
                    weight: library.program.weight * 10,
                    ..library.program.clone()
                };
                library.restart_as(next, random.bool());
            }
            _ => library.step(),
        }
        let weight = i64::try_from(library.program.weight).unwrap();
        let rules = library.progress("letters");
        if rules.iter().all(|it| it.version == library.program.version) {
            assert_eq!(
                library.served("letters"),
                library.letters(weight),
                "seed {seed}"
            );
        }
    }
    library.settle("letters");
    let weight = i64::try_from(library.program.weight).unwrap();
    assert_eq!(
        library.served("letters"),
        library.letters(weight),
        "seed {seed}"
    );
    assert_eq!(verify(&library).difference, None, "seed {seed}");
    assert_topic_is_served(&mut library, &mut table);
}
