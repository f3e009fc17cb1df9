//! Parity with Kafka Streams: the same topologies, the same input, the outputs compared record by
//! record.
//!
//! # Position
//! `java/` draws every case for Kafka Streams 4.3.1 and runs it with its `TopologyTestDriver`;
//! `scripts/parity` writes what came out to `golden/`, one file per case. Here every case is drawn
//! again for millstream, fed the inputs of its golden file, and compared.
//! # Adding a case
//! One `suite.add(..)` in `java/`, `scripts/parity NAME`, one function of that name (with `_` for `-`)
//! in a module here, listed in its `cases!`; then `UPDATE_GOLDEN=1` writes `docs/parity.md`. A
//! deliberate difference is a line of [`page::DIFFERENCES`] with its reason.
//! # Invariants
//! - Every golden file has a case and every case a golden file.
//! - A case with a deliberate difference does differ: a reason that no longer holds fails.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

mod aggregations;
mod golden;
mod joins;
mod page;
mod stateless;
mod stream_joins;
mod tables;
mod versioned;
mod windows;

use std::collections::BTreeSet;

use golden::Golden;
use millstream::prelude::*;

/// A case as millstream draws it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) draw: fn(&StreamsBuilder),
}

/// Lists the cases of a module, each a function that draws it.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const CASES: &[$crate::Case] =
            &[$($crate::Case { name: stringify!($name), draw: $name }),*];
    };
}
pub(crate) use cases;

fn all() -> impl Iterator<Item = Case> {
    [
        stateless::CASES,
        aggregations::CASES,
        tables::CASES,
        joins::CASES,
        stream_joins::CASES,
        versioned::CASES,
        windows::CASES,
    ]
    .concat()
    .into_iter()
}

fn compare(case: Case) -> Result<(), String> {
    let golden = Golden::read(case.name);
    let builder = StreamsBuilder::new();
    (case.draw)(&builder);
    golden.compare(builder.build().unwrap())
}

#[test]
fn every_operator_gives_what_kafka_streams_gives() {
    let wanted = std::env::var("CASE").ok();
    let mut failures = Vec::new();
    for case in all().filter(|case| wanted.as_deref().is_none_or(|name| name == case.name)) {
        let (result, reason) = (compare(case), page::difference(case.name));
        match (result, reason) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Ok(()), Some(reason)) => failures.push(format!(
                "{}: equal, although it should differ: {reason}",
                case.name
            )),
            (Err(found), None) => failures.push(format!(
                "{}: {found}\nreplay: CASE={} cargo test --release --workspace --test parity",
                case.name, case.name
            )),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_golden_file_has_a_case_and_every_case_one_golden_file() {
    let drawn: Vec<String> = all().map(|case| case.name.to_owned()).collect();
    let distinct: BTreeSet<String> = drawn.iter().cloned().collect();
    assert_eq!(drawn.len(), distinct.len(), "a case is listed twice");
    let missing: BTreeSet<String> = page::MISSING.iter().map(|&case| case.to_owned()).collect();
    assert!(
        distinct.is_disjoint(&missing),
        "a case is there and missing"
    );
    assert_eq!(&distinct | &missing, golden::names());
    for name in page::DIFFERENCES.iter().map(|(name, _)| *name) {
        assert!(distinct.contains(name), "no case is called {name}");
    }
}

#[test]
fn the_parity_page_is_current() {
    let page = page::render(&all().map(|case| case.name).collect::<Vec<_>>());
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/parity.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, page).unwrap();
        return;
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/parity.md differs from the suite; write it again with\n  \
         UPDATE_GOLDEN=1 cargo test --release --workspace --test parity"
    );
}
