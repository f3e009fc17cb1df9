//! The production runtime under simulation: seeds, faults, and planted bugs.

#![expect(
    clippy::print_stdout,
    reason = "which faults fired, and which seed found which bug"
)]

use millstream::log::embedded::FaultPoint;
use millstream::runtime::{CrashPoint, PlantedBug};
use millstream::testing::simulation::{Fired, Options, Scenario, run};

/// Seeds of the ordinary run; `MILLSTREAM_SIM_SEEDS` asks for more.
const SEEDS: u64 = 240;
/// Seeds that once found a bug; each stays.
const REGRESSIONS: [(Scenario, u64); 5] = [
    // A right value's delete passed a change of the left value: the old result stayed.
    (Scenario::ForeignKey, 13),
    (Scenario::ForeignKey, 51),
    // A left value lost its foreign key and changed again before the answer was back.
    (Scenario::ForeignKey, 3),
    (Scenario::ForeignKey, 18),
    (Scenario::ForeignKey, 32),
];
/// Within how many seeds each planted bug must be found.
const SEEDS_PER_BUG: u64 = 60;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The scenario that `MILLSTREAM_SIM_SCENARIO` names.
fn named_scenario() -> Option<Scenario> {
    let name = std::env::var("MILLSTREAM_SIM_SCENARIO").ok()?;
    let mut all = Scenario::ALL.into_iter();
    all.find(|scenario| format!("{scenario:?}") == name)
}

/// The options of a seed, in the scenario that is named, or its own.
fn replayed(seed: u64) -> Options {
    let options = Options::seed(seed);
    named_scenario().map_or(options, |scenario| options.with_scenario(scenario))
}

#[test]
fn every_seed_keeps_every_guarantee_and_every_fault_fires() {
    if let Some(seed) = number("MILLSTREAM_SIM_SEED") {
        // `RUST_LOG=millstream=debug` shows what the threads say.
        drop(
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_writer(std::io::stderr)
                .try_init(),
        );
        match run(replayed(seed)) {
            Ok(report) => println!("{report:#?}"),
            Err(failure) => panic!("{failure}"),
        }
        return;
    }
    let seeds = number("MILLSTREAM_SIM_SEEDS").unwrap_or(SEEDS);
    let mut fired = Fired::default();
    let mut failures = Vec::new();
    let regressions =
        REGRESSIONS.map(|(scenario, seed)| Options::seed(seed).with_scenario(scenario));
    for options in regressions.into_iter().chain((0..seeds).map(replayed)) {
        match run(options) {
            Ok(report) => fired.add(&report.fired),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(
        failures.is_empty(),
        "{} seeds failed:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    println!("{fired:#?}");
    assert_fired(&fired);
}

fn assert_fired(fired: &Fired) {
    let globals = named_scenario().is_none_or(|named| named == Scenario::Globals);
    let of_globals = CrashPoint::OF_GLOBALS.iter().filter(|_| globals);
    for point in CrashPoint::OF_TASKS.iter().chain(of_globals) {
        assert!(
            fired.crashes.contains_key(point),
            "no crash at {point:?} has fired"
        );
    }
    let expected: [(FaultPoint, &[&str]); 6] = [
        (
            FaultPoint::Commit,
            &[
                "ReplyLost",
                "RequestLost",
                "AbortRequired",
                "Fatal",
                "Retriable",
            ],
        ),
        (FaultPoint::Init, &["Fatal", "Retriable"]),
        (FaultPoint::Send, &["AbortRequired", "Fatal"]),
        (FaultPoint::SendOffsets, &["AbortRequired", "Retriable"]),
        (FaultPoint::Committed, &["Retriable"]),
        (FaultPoint::Fetch, &["Retriable"]),
    ];
    for (point, faults) in expected {
        for fault in faults {
            let key = (point, (*fault).to_owned());
            assert!(
                fired.log.contains_key(&key),
                "{fault} at {point:?} has never fired"
            );
        }
    }
    for name in [
        "killed",
        "killed in doubt",
        "frozen",
        "twin",
        "identity fenced",
        "clean stop",
        "aged",
    ] {
        assert!(
            fired.other.contains_key(name),
            "`{name}` has never happened"
        );
    }
}

#[test]
fn a_seed_replays_to_the_same_step() {
    for seed in 0..12 {
        let (first, second) = (run(Options::seed(seed)), run(Options::seed(seed)));
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Where a planted bug is to be found: those of windows, suppression, joins and versions in their own
/// scenario, those of commit and restore in the first.
const fn home(bug: PlantedBug) -> Scenario {
    match bug {
        PlantedBug::ObservedTimeLost
        | PlantedBug::EmittedWindowsForgotten
        | PlantedBug::TimeKeptAfterAbort
        | PlantedBug::SuppressBufferNotRestored => Scenario::Windows,
        PlantedBug::SubscriptionsApartFromOffsets => Scenario::ForeignKey,
        PlantedBug::SequencesBeginAgain | PlantedBug::UnpairedRecordsKept => Scenario::StreamJoins,
        PlantedBug::GraceBufferNotRestored | PlantedBug::PastNotRestored => Scenario::Versions,
        PlantedBug::SourceRestoredToItsEnd => Scenario::Tables,
        PlantedBug::GlobalsNotAwaited
        | PlantedBug::OldGlobalsTrusted
        | PlantedBug::GlobalOffsetsAheadOfData => Scenario::Globals,
        _ => Scenario::Folds,
    }
}

/// Bugs of commit and restore that every scenario's checkers must see: what they compare is not
/// empty.
const FOUND_EVERYWHERE: [PlantedBug; 4] = [
    PlantedBug::RestoreSkipsTombstones,
    PlantedBug::OffsetsApartFromData,
    PlantedBug::OverlayKeptAfterAbort,
    PlantedBug::PositionKeptAfterAbort,
];

/// Bugs of what operators keep beside their stores, and of records that fail, which joins must show
/// too.
const FOUND_IN_JOINS: [PlantedBug; 4] = [
    PlantedBug::ObservedTimeLost,
    PlantedBug::EmittedWindowsForgotten,
    PlantedBug::TimeKeptAfterAbort,
    PlantedBug::FailedRecordKept,
];

/// Returns whether `bug` is found in `scenario` within the number of seeds it is given.
fn is_found(bug: PlantedBug, scenario: Scenario) -> bool {
    let options = |seed| Options::seed(seed).with_scenario(scenario);
    let finds = |seed| {
        let failure = run(options(seed).with_bug(bug)).err()?;
        // It is the bug that was found, not something else.
        run(options(seed)).is_ok().then_some(failure)
    };
    let failure = (0..SEEDS_PER_BUG).find_map(finds);
    if let Some(failure) = &failure {
        let (seed, wrong) = (failure.options.seed, &failure.wrong);
        println!("{bug:?} in {scenario:?}: seed {seed}: {wrong}");
    }
    failure.is_some()
}

#[test]
fn every_planted_bug_is_found() {
    let others = Scenario::ALL
        .into_iter()
        .filter(|it| *it != Scenario::Folds);
    let everywhere = others.flat_map(|scenario| FOUND_EVERYWHERE.map(|bug| (bug, scenario)));
    // The stores of that one never delete.
    let everywhere =
        everywhere.filter(|it| *it != (PlantedBug::RestoreSkipsTombstones, Scenario::Globals));
    let in_joins = [Scenario::StreamJoins, Scenario::Versions]
        .into_iter()
        .flat_map(|scenario| FOUND_IN_JOINS.map(|bug| (bug, scenario)));
    let missed: Vec<_> = PlantedBug::ALL
        .map(|bug| (bug, home(bug)))
        .into_iter()
        .chain(everywhere)
        .chain(in_joins)
        .filter(|(_, scenario)| named_scenario().is_none_or(|named| named == *scenario))
        .filter(|(bug, scenario)| !is_found(*bug, *scenario))
        .collect();
    assert!(
        missed.is_empty(),
        "not found within {SEEDS_PER_BUG} seeds: {missed:?}"
    );
}
