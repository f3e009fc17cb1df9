//! Which topology a run drives, its input, and what it must come to.
//!
//! # What an oracle may rely on
//! A task with one input partition processes it in order: everything follows from the input. Where
//! several partitions meet in a task their order is not determined; what the task has chosen is then
//! read from the log, from an output that it writes with every record it takes up (a *witness*), or
//! from the repartition topic behind it. The witness itself is checked: every input record is in it
//! exactly once, those of one partition in order. Outputs, changelogs and stores must be what that
//! order leads to, and nothing else.

use fastrand::Rng;

use super::check::{Stores, Wrong};
use super::mirror::Mirror;
use super::plan::Plan;
use super::process::Site;
use super::{folds, foreign_key, globals, joins, tables, versions, windows};
use crate::clock::Timestamp;
use crate::prelude::*;
use crate::topology::Topology;

/// How long tombstones live in runs that let state age.
pub(super) const TOMBSTONES_LIVE_MS: i64 = 60_000;

/// What a run runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scenario {
    /// Kafka's five-operator exactly-once test, and a processor with stores and a punctuator.
    Folds,
    /// Tumbling windows and sessions with late records, emission on close, both kinds of `suppress`;
    /// directly or behind a repartition topic.
    Windows,
    /// Stream-table and table-table joins, a table grouped anew with adder and subtractor.
    Tables,
    /// A foreign-key join with its two topics.
    ForeignKey,
    /// Stream-stream joins: inner, left and outer, with grace; directly or behind a repartition topic.
    StreamJoins,
    /// A versioned table; stream-table joins that look into its past, and that wait for it.
    Versions,
    /// A stream joined with a global table, which every process reads by itself.
    Globals,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 7] = [
        Self::Folds,
        Self::Windows,
        Self::Tables,
        Self::ForeignKey,
        Self::StreamJoins,
        Self::Versions,
        Self::Globals,
    ];

    /// Returns the scenario of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        match seed % 7 {
            0 => Self::Folds,
            1 => Self::Windows,
            2 => Self::Tables,
            3 => Self::ForeignKey,
            4 => Self::StreamJoins,
            5 => Self::Versions,
            _ => Self::Globals,
        }
    }

    pub(super) fn build(self, plan: &Plan) -> Result<Topology, TopologyErrors> {
        match self {
            Self::Folds => folds::build(plan.ageing, plan.dead_letters),
            Self::Windows => windows::build(plan),
            Self::Tables => tables::build(plan),
            Self::ForeignKey => foreign_key::build(plan),
            Self::StreamJoins => joins::build(plan),
            Self::Versions => versions::build(plan),
            Self::Globals => globals::build(plan),
        }
    }

    /// Checks every output; returns what the stores must hold.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn check(self, site: &Site, mirror: &Mirror) -> Result<Stores, Wrong> {
        match self {
            Self::Folds => folds::outputs(site),
            Self::Windows => windows::check(site),
            Self::Tables => tables::check(site),
            Self::ForeignKey => foreign_key::check(site),
            Self::StreamJoins => joins::check(site),
            Self::Versions => versions::check(site),
            Self::Globals => globals::check(site, mirror),
        }
    }
}

/// A record of the input.
pub(super) struct Drawn {
    pub(super) topic: &'static str,
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
    pub(super) timestamp: Timestamp,
}

impl Drawn {
    /// Draws the `number`-th record.
    pub(super) fn new(rng: &mut Rng, plan: &Plan, now: Timestamp, number: usize) -> Self {
        match plan.scenario {
            Scenario::Folds => folds::draw(rng, plan, now),
            Scenario::Windows => windows::draw(rng, plan, now),
            Scenario::Tables => tables::draw(rng, plan, now, number),
            Scenario::ForeignKey => foreign_key::draw(rng, plan, now, number),
            Scenario::StreamJoins => joins::draw(rng, plan, now, number),
            Scenario::Versions => versions::draw(rng, plan, now, number),
            Scenario::Globals => globals::draw(rng, plan, now, number),
        }
    }
}

/// A store of any type, its changelog as the run needs it.
pub(super) fn store_of<K, V>(
    name: &str,
    ageing: bool,
    key: impl Serde<K> + TextCodec,
    value: impl Serde<V> + TextCodec,
) -> Materialized<K, V> {
    let store = Materialized::as_store(name, key, value);
    let (config, value) = changelog_config(ageing);
    store.changelog_config(config, value)
}

/// A store of numbers.
pub(super) fn store(name: &str, ageing: bool) -> Materialized<String, i64> {
    store_of(name, ageing, serdes::string(), serdes::i64())
}

/// What a changelog of the run is configured with.
pub(super) fn changelog_config(ageing: bool) -> (&'static str, String) {
    if ageing {
        ("delete.retention.ms", TOMBSTONES_LIVE_MS.to_string())
    } else {
        ("min.compaction.lag.ms", i64::MAX.to_string())
    }
}
