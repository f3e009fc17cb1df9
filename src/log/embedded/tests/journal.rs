//! The journal: what a crash leaves is a prefix, and what was answered is in it.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::model::{Op, Run, ops, partition_of, producer_spec, put, topic_spec, view_of};
use crate::clock::ManualClock;
use crate::log::embedded::{Durability, EmbeddedLog, Location, OpenError, OpenOptions};
use crate::log::{Log, LogProducer};

fn open(dir: &Path) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open(dir, Arc::new(ManualClock::at(0)))
}

/// What is left in the directory when the process is killed now: what the system has of the file.
fn killed(dir: &Path, length: Option<usize>) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(dir.join("journal")).unwrap();
    bytes.truncate(length.unwrap_or(usize::MAX));
    std::fs::write(copy.path().join("journal"), bytes).unwrap();
    copy
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_kill_after_any_step_keeps_all_that_was_answered(
        ops in ops(),
        durability in prop_oneof![Just(Durability::Process), Just(Durability::Power)],
        // The smallest makes nearly every step rewrite the journal.
        rewrite_min_bytes in prop_oneof![Just(1_u64), Just(u64::MAX)],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let options = OpenOptions { durability, rewrite_min_bytes };
        let log = EmbeddedLog::open_with(dir.path(), Arc::new(clock.clone()), options).unwrap();
        let mut run = Run::new(log, clock);
        for (at, op) in ops.iter().enumerate() {
            run.step(op);
            if at % 16 == 0 || at + 1 == ops.len() {
                // What deletes and aborts have not promised is not waited for by anybody.
                run.log.core().flush().unwrap();
                let copy = killed(dir.path(), None);
                let again = open(copy.path()).unwrap();
                prop_assert_eq!(view_of(&again), run.view());
                prop_assert_eq!(&again.core().state, &run.log.core().state);
            }
        }
    }

    #[test]
    fn a_journal_cut_anywhere_gives_a_prefix(
        ops in ops(),
        cuts in prop::collection::vec(0.0..1.0_f64, 1..8),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let log = EmbeddedLog::open(dir.path(), Arc::new(clock.clone())).unwrap();
        let mut run = Run::new(log, clock);
        run.log.core().flush().unwrap();
        let setup = std::fs::metadata(dir.path().join("journal")).unwrap().len();
        let mut views = vec![run.view()];
        // Time may abort several transactions in one step: what is between is no view of the model.
        for op in ops.iter().filter(|op| !matches!(op, Op::Pass { .. })) {
            run.step(op);
            views.push(run.view());
        }
        run.log.core().flush().unwrap();
        let length = std::fs::metadata(dir.path().join("journal")).unwrap().len();
        let mut cuts: Vec<u64> = cuts
            .iter()
            .map(|share| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "a share of a length"
                )]
                let cut = ((length - setup) as f64 * share) as u64;
                setup + cut
            })
            .collect();
        cuts.sort_unstable();
        let mut reached = 0;
        for cut in cuts {
            let copy = killed(dir.path(), Some(usize::try_from(cut).unwrap()));
            let view = view_of(&open(copy.path()).unwrap());
            // Each step shows at most one change, and a longer journal never shows less.
            let found = views[reached..].iter().position(|one| *one == view);
            prop_assert!(found.is_some(), "cut at {cut} of {length}: {view:?} is no prefix");
            reached += found.unwrap();
        }
    }
}

fn filled(dir: &Path) -> EmbeddedLog {
    let log = open(dir).unwrap();
    log.create_topics(&[topic_spec("topic", &[])]).unwrap();
    let mut producer = log.producer(&producer_spec("id")).unwrap();
    producer.init_transactions().unwrap();
    for value in 0..10_u32 {
        producer.begin_transaction().unwrap();
        put(
            &mut producer,
            &partition_of(0),
            Some(b"key"),
            Some(&value.to_be_bytes()),
        )
        .unwrap();
        producer.commit_transaction().unwrap();
    }
    log
}

#[test]
fn a_commit_is_in_the_file_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    let copy = killed(dir.path(), None);
    assert_eq!(view_of(&open(copy.path()).unwrap()), view_of(&log));
    assert_eq!(view_of(&log).0[0].1, (0..10).collect::<Vec<_>>());
    assert_eq!(
        log.location(),
        &Location::Directory(dir.path().to_path_buf())
    );
}

#[test]
fn one_directory_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains(&dir.path().display().to_string()),
        "{refused}"
    );
    drop(log);
    assert!(open(dir.path()).is_ok());
}

#[test]
fn an_open_transaction_is_still_open_after_a_restart_and_fenced_by_init() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path());
    let mut producer = log.producer(&producer_spec("id")).unwrap();
    producer.init_transactions().unwrap();
    producer.begin_transaction().unwrap();
    put(&mut producer, &partition_of(1), Some(b"key"), Some(&[0; 4])).unwrap();
    producer.flush().unwrap();
    drop((producer, log));
    let log = open(dir.path()).unwrap();
    assert_eq!(log.inspect_transactions().len(), 1);
    log.producer(&producer_spec("id"))
        .unwrap()
        .init_transactions()
        .unwrap();
    assert!(log.inspect_transactions().is_empty());
    assert!(view_of(&log).0[1].1.is_empty());
}

#[test]
fn damage_in_the_middle_is_refused_and_a_torn_tail_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let path = dir.path().join("journal");
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    assert_eq!(
        std::fs::read(&path).unwrap(),
        damaged,
        "what is refused is not touched"
    );

    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[8..30]);
    std::fs::write(&path, &torn).unwrap();
    drop(open(dir.path()).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), whole);

    std::fs::write(&path, b"something else").unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
}

#[test]
fn a_journal_of_dead_records_is_rewritten_and_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        rewrite_min_bytes: 50_000,
        ..OpenOptions::default()
    };
    let clock = Arc::new(ManualClock::at(0));
    let log = EmbeddedLog::open_with(dir.path(), clock, options).unwrap();
    log.create_topics(&[topic_spec("topic", &[])]).unwrap();
    let mut producer = log.producer(&producer_spec("id")).unwrap();
    producer.init_transactions().unwrap();
    let length = || std::fs::metadata(dir.path().join("journal")).unwrap().len();
    let mut longest = 0;
    for round in 1..200_i64 {
        producer.begin_transaction().unwrap();
        put(
            &mut producer,
            &partition_of(0),
            Some(b"key"),
            Some(&[7; 1000]),
        )
        .unwrap();
        put(
            &mut producer,
            &partition_of(0),
            Some(b"key"),
            Some(&[8; 1000]),
        )
        .unwrap();
        producer.commit_transaction().unwrap();
        log.delete_records(&[(partition_of(0), round * 3 - 1)])
            .unwrap();
        longest = longest.max(length());
    }
    assert!(longest < 60_000, "{longest}");
    let copy = killed(dir.path(), None);
    assert_eq!(open(copy.path()).unwrap().core().state, log.core().state);
}
