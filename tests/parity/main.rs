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
//! deliberate difference is a line of [`page::DIFFERENCES`] with its reason; what millstream makes of
//! that case's input is then written to `decided/`, to be read (`diff` it with `golden/`) and committed.
//! # Invariants
//! - Every golden file has a case and every case a golden file.
//! - A case of [`page::MISSING`] does not give what Kafka Streams gives: once it does, its line goes.
//! - A case with a deliberate difference does differ, and in exactly what `decided/` has: a reason that
//!   no longer holds fails, and so does any other difference.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

mod aggregations;
mod golden;
mod joins;
mod page;
mod processors;
mod stateless;
mod stores;
mod stream_joins;
mod tables;
mod versioned;
mod windows;

use std::collections::BTreeSet;

use golden::{Golden, Of};
use millstream::prelude::*;

/// A case as millstream draws it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) draw: fn(&StreamsBuilder),
    /// How many partitions the driver gives every topic. Kafka Streams' has one always.
    pub(crate) partitions: i32,
}

/// Lists the cases of a module, each a function that draws it; `in N` partitions where it is not one.
macro_rules! cases {
    ($($name:ident $(in $partitions:literal)?),* $(,)?) => {
        pub(crate) const CASES: &[$crate::Case] = &[$($crate::Case {
            name: stringify!($name),
            draw: $name,
            partitions: [$($partitions,)? 1][0],
        }),*];
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
        processors::CASES,
        stores::CASES,
    ]
    .concat()
    .into_iter()
}

fn updates() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// Holds a case to its golden file, or to the difference that was decided.
fn check(case: Case) -> Result<(), String> {
    let golden = Golden::read(Of::KafkaStreams, case.name);
    let builder = StreamsBuilder::new();
    (case.draw)(&builder);
    let found = golden.run(builder.build().unwrap(), case.partitions)?;
    if page::MISSING.contains(&case.name) {
        return match golden.compare(&found) {
            Err(_) => Ok(()),
            Ok(()) => Err("equal: take it off the list of what is missing".to_owned()),
        };
    }
    let Some(reason) = page::difference(case.name) else {
        return golden.compare(&found);
    };
    if golden.compare(&found).is_ok() {
        return Err(format!("equal, although it should differ: {reason}"));
    }
    if updates() {
        found.write(case.name);
    }
    Golden::read(Of::Millstream, case.name)
        .compare(&found)
        .map_err(|found| format!("differs from what was decided: {found}"))
}

#[test]
fn every_operator_gives_what_kafka_streams_gives() {
    let wanted = std::env::var("CASE").ok();
    let failures: Vec<String> = all()
        .filter(|case| wanted.as_deref().is_none_or(|name| name == case.name))
        .filter_map(|case| {
            let found = check(case).err()?;
            let name = case.name;
            Some(format!(
                "{name}: {found}\nreplay: CASE={name} cargo test --release --workspace --test parity"
            ))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_golden_file_has_a_case_and_every_case_one_golden_file() {
    let drawn: Vec<String> = all().map(|case| case.name.to_owned()).collect();
    let distinct: BTreeSet<String> = drawn.iter().cloned().collect();
    assert_eq!(drawn.len(), distinct.len(), "a case is listed twice");
    assert_eq!(distinct, golden::names(Of::KafkaStreams));
    for name in page::MISSING {
        assert!(distinct.contains(*name), "no case is called {name}");
    }
    for name in page::DIFFERENCES.iter().map(|(name, _)| *name) {
        assert!(distinct.contains(name), "no case is called {name}");
    }
    let decided: BTreeSet<String> = page::DIFFERENCES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(decided, golden::names(Of::Millstream));
}

#[test]
fn the_parity_page_is_current() {
    let page = page::render(&all().map(|case| case.name).collect::<Vec<_>>());
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/parity.md");
    if updates() {
        std::fs::write(&path, page).unwrap();
        return;
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/parity.md differs from the suite; write it again with\n  \
         UPDATE_GOLDEN=1 cargo test --release --workspace --test parity"
    );
}
