//! The commit × restore × takeover protocol, model-checked.
//!
//! Two processes compete for one task with an input partition, a store with its changelog, and an
//! output. Each process moves the production [`TransactionState`] and asks the production
//! [`plan_restore`]; brokers, disks, crashes, zombies, lost requests and replies, late markers,
//! compaction, reset and a rewinding tool are modelled. The checker visits every interleaving
//! within a budget of faults, and finds a counterexample for every planted bug.
//!
//! [`TransactionState`]: millstream::runtime::protocol::TransactionState
//! [`plan_restore`]: millstream::runtime::protocol::restore::plan_restore

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a test crate"
)]

mod broker;
mod bugs;
mod effect;
mod state;
mod step;

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

use bugs::Bug;
use state::{Budget, Op, Task, World, values};
use step::Action;

const EVERY_STEP_IS_LEGAL: &str = "the production state machine knows every step";
const OUTPUTS_EXACT: &str = "committed outputs are the oracle's, exactly once";
const CHANGELOG_IS_ORACLE: &str = "the changelog is the oracle at the committed offset";
const STORE_IS_FOLD: &str = "a store is the committed changelog up to its offset";
const NO_UNCOMMITTED_WRITE: &str = "no store shows an uncommitted or aborted write";
const RUNNING_TASK_IS_ORACLE: &str = "a running task's store is the oracle";
const NO_START_OVER_REWOUND: &str = "nothing starts over a rewound group";
const RUNS_END_WELL: &str = "a run ends only when all input is committed";

/// A configuration of the model.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    input: Vec<Op>,
    /// Each process's transactional id: two of one identity are a zombie and its successor.
    identities: [usize; state::PROCESSES],
    compaction: bool,
    budget: Budget,
    bug: Option<Bug>,
}

impl Protocol {
    fn new(budget: Budget) -> Self {
        let input = vec![Op::Add(0), Op::Add(0)];
        Self {
            input,
            identities: [0, 1],
            compaction: false,
            budget,
            bug: None,
        }
    }

    /// A zombie and its successor under one identity.
    fn with_one_identity(mut self) -> Self {
        self.identities = [0, 0];
        self
    }

    fn with_compaction(mut self) -> Self {
        self.compaction = true;
        self.input = vec![Op::Add(0), Op::Delete(0)];
        self
    }

    fn with_bug(mut self, bug: Bug) -> Self {
        self.bug = Some(bug);
        self
    }

    /// The store's values after the first `count` input records.
    fn oracle(&self, count: u8) -> [Option<u8>; state::KEYS] {
        let mut content = [None; state::KEYS];
        for op in &self.input[..usize::from(count)] {
            content[op.key()] = op.apply(content[op.key()]);
        }
        content
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.budget.clone())]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.enabled(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.take(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EVERY_STEP_IS_LEGAL, |_, world: &World| !world.illegal),
            Property::always(OUTPUTS_EXACT, outputs_are_exact),
            Property::always(CHANGELOG_IS_ORACLE, |model: &Self, world: &World| {
                world.rewound
                    || values(&world.fold(world.changelog.len()))
                        == model.oracle(world.decided_offset())
            }),
            Property::always(STORE_IS_FOLD, stores_fold),
            Property::always(NO_UNCOMMITTED_WRITE, |_, world: &World| {
                world.processes.iter().all(|process| {
                    world.shows_only_decided(&process.live)
                        && world.shows_only_decided(&process.durable)
                })
            }),
            Property::always(RUNNING_TASK_IS_ORACLE, running_tasks_match),
            Property::always(NO_START_OVER_REWOUND, |_, world: &World| {
                !world.started_over_rewound
            }),
            Property::always(RUNS_END_WELL, |model: &Self, world: &World| {
                let mut actions = Vec::new();
                model.enabled(world, &mut actions);
                !actions.is_empty()
                    || world.rewound
                    || usize::from(world.committed) == model.input.len()
            }),
        ]
    }
}

fn outputs_are_exact(model: &Protocol, world: &World) -> bool {
    let committed: Vec<_> = world
        .outputs
        .iter()
        .filter(|output| world.transactions[output.transaction].is_decided())
        .map(|output| (output.input, output.before))
        .collect();
    let expected: Vec<_> = (0..world.decided_offset())
        .map(|input| {
            let key = model.input[usize::from(input)].key();
            (input, model.oracle(input)[key])
        })
        .collect();
    world.rewound || committed == expected
}

fn stores_fold(_: &Protocol, world: &World) -> bool {
    world
        .processes
        .iter()
        .flat_map(|process| [&process.live, &process.durable])
        .all(|store| {
            match &store.checkpoint {
                None => store.content == state::Content::default(),
                // A deleted changelog cannot be folded any more; such a store is set aside.
                Some(checkpoint) if checkpoint.topic != world.topic => true,
                Some(checkpoint) => store.content == world.fold(usize::from(checkpoint.changelog)),
            }
        })
}

fn running_tasks_match(model: &Protocol, world: &World) -> bool {
    // A member that is no more (but does not know it) may have restored its successor's writes: it
    // cannot commit.
    let current = |p: &&state::Process| p.member_generation == world.group_generation;
    world.rewound
        || world
            .processes
            .iter()
            .filter(current)
            .all(|process| match &process.task {
                Task::Running(running) => {
                    values(&process.live.content) == model.oracle(running.committed)
                }
                Task::Closed
                | Task::Assigned { .. }
                | Task::Fetched { .. }
                | Task::Restoring { .. }
                | Task::Refused => true,
            })
}

/// Visits every state and asserts all properties.
fn assert_holds(name: &str, model: Protocol) {
    let checker = model.checker().threads(2).spawn_dfs().join();
    println!(
        "{name}: {} states, depth {}",
        checker.unique_state_count(),
        checker.max_depth()
    );
    let violated: Vec<_> = checker
        .discoveries()
        .into_iter()
        .map(|(property, path)| format!("{property}: {:?}", path.into_actions()))
        .collect();
    assert!(violated.is_empty(), "{name}: {violated:#?}");
}

const fn budget(crashes: u8, takeovers: u8, faults: u8) -> Budget {
    Budget {
        crashes,
        takeovers,
        faults,
        time: 0,
        resets: 0,
        rewinds: 0,
    }
}

#[test]
fn crashes_and_takeovers_keep_exactly_once() {
    assert_holds("two crashes", Protocol::new(budget(2, 0, 0)));
    assert_holds("two takeovers", Protocol::new(budget(0, 2, 0)));
    assert_holds("a crash and a takeover", Protocol::new(budget(1, 1, 0)));
}

#[test]
fn lost_replies_aborts_and_fatal_errors_keep_exactly_once() {
    assert_holds("a crash and a fault", Protocol::new(budget(1, 0, 1)));
    assert_holds("a takeover and a fault", Protocol::new(budget(0, 1, 1)));
    assert_holds("two faults", Protocol::new(budget(0, 0, 2)));
}

#[test]
fn a_zombie_under_its_successors_identity_keeps_exactly_once() {
    assert_holds(
        "a takeover",
        Protocol::new(budget(0, 1, 0)).with_one_identity(),
    );
    assert_holds(
        "and a fault",
        Protocol::new(budget(0, 1, 1)).with_one_identity(),
    );
}

#[test]
fn compaction_and_age_resurrect_nothing() {
    let time = Budget {
        time: 1,
        ..budget(0, 2, 0)
    };
    assert_holds(
        "compaction, two takeovers",
        Protocol::new(time).with_compaction(),
    );
    let time = Budget {
        time: 1,
        ..budget(1, 0, 0)
    };
    assert_holds("compaction, a crash", Protocol::new(time).with_compaction());
}

#[test]
fn a_reset_leaves_no_local_state_behind() {
    let reset = Budget {
        resets: 1,
        ..budget(0, 1, 0)
    };
    assert_holds("reset and a takeover", Protocol::new(reset));
    let reset = Budget {
        resets: 1,
        ..budget(1, 0, 0)
    };
    assert_holds("reset and a crash", Protocol::new(reset));
}

#[test]
fn a_group_rewound_by_another_tool_is_refused() {
    let rewind = Budget {
        rewinds: 1,
        ..budget(1, 0, 0)
    };
    assert_holds("rewind", Protocol::new(rewind));
}

/// Asserts that the checker finds `bug`, as a violation of `property`.
fn assert_found(bug: Bug, model: Protocol, property: &'static str) {
    let checker = model
        .with_bug(bug)
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([property])))
        .spawn_bfs()
        .join();
    let Some(path) = checker.discovery(property) else {
        panic!("{bug:?} passes for correct: \"{property}\" holds in all its states");
    };
    println!("{bug:?} breaks \"{property}\": {:?}", path.into_actions());
}

#[test]
fn every_planted_bug_has_a_counterexample() {
    let crash = || Protocol::new(budget(1, 0, 0));
    let takeover = || Protocol::new(budget(0, 1, 0));
    let fault = || Protocol::new(budget(0, 0, 1));
    let aged = || {
        Protocol::new(Budget {
            time: 1,
            ..budget(0, 2, 0)
        })
        .with_compaction()
    };
    let reset = Protocol::new(Budget {
        resets: 1,
        ..budget(1, 0, 0)
    });
    let rewind = Protocol::new(Budget {
        rewinds: 1,
        ..budget(1, 0, 0)
    });
    let fenced_and_crashed = Protocol::new(budget(1, 1, 0)).with_one_identity();
    let cases = [
        (
            Bug::RestoreStopsAtLastStableOffset,
            takeover(),
            RUNNING_TASK_IS_ORACLE,
        ),
        (
            Bug::RestoreReadsUncommitted,
            takeover(),
            NO_UNCOMMITTED_WRITE,
        ),
        (
            Bug::TargetBeforeStableOffsets,
            takeover(),
            RUNNING_TASK_IS_ORACLE,
        ),
        (Bug::OffsetsNotStable, takeover(), RUNNING_TASK_IS_ORACLE),
        (Bug::OffsetsApartFromData, crash(), OUTPUTS_EXACT),
        (Bug::TransactionWithoutOffsets, crash(), OUTPUTS_EXACT),
        (Bug::OffsetsNotFenced, takeover(), RUNNING_TASK_IS_ORACLE),
        (Bug::OverlayKeptAfterAbort, fault(), OUTPUTS_EXACT),
        (Bug::PositionKeptAfterAbort, fault(), OUTPUTS_EXACT),
        (Bug::AppliedBeforeCommit, crash(), NO_UNCOMMITTED_WRITE),
        (Bug::UnknownTakenForAbort, fault(), OUTPUTS_EXACT),
        (Bug::UnknownTakenForCommit, fault(), NO_UNCOMMITTED_WRITE),
        (
            Bug::FencedTakenForCommit,
            takeover().with_one_identity(),
            NO_UNCOMMITTED_WRITE,
        ),
        (Bug::CheckpointAheadOfData, crash(), STORE_IS_FOLD),
        (Bug::OldCheckpointTrusted, aged(), STORE_IS_FOLD),
        (Bug::SlowRestoreTrusted, aged(), STORE_IS_FOLD),
        (Bug::AgeCountedFromApply, aged(), STORE_IS_FOLD),
        (Bug::ResetIgnored, reset, RUNNING_TASK_IS_ORACLE),
        (Bug::RewindIgnored, rewind, NO_START_OVER_REWOUND),
        (Bug::NeverInitialised, crash(), OUTPUTS_EXACT),
        (Bug::FenceIgnored, fenced_and_crashed, RUNS_END_WELL),
    ];
    for (bug, model, property) in cases {
        assert_found(bug, model, property);
    }
}
