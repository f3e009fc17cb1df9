//! The workloads: what is measured, and millstream's topologies.
//!
//! `java/KafkaStreamsSide.java` has the same topologies for Kafka Streams; what both write is compared
//! byte for byte with what `input` computes, so a difference between them fails the run.
#![allow(
    dead_code,
    unused_imports,
    clippy::allow_attributes,
    reason = "each bench that includes this file uses a part of it"
)]

// Relative to this file, whichever bench includes it.
#[path = "foreign_key.rs"]
pub(crate) mod foreign_key;
#[path = "input.rs"]
mod input;

use std::time::Duration;

use millstream::prelude::*;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::balances;
pub(crate) use input::{
    Expected, Input, OfKey, digest_of, expected, users, version_of, write_balance,
};

/// Topics as the topologies call them; workload A has names of its own, which its other uses share.
pub(crate) const INPUT: &str = "input";
pub(crate) const USERS: &str = "users";
pub(crate) const OUTPUT: &str = "output";

const MINUTE_MS: i64 = 60_000;
/// Event time that the whole input takes: the windows of C.
const SPAN_MS: i64 = 10 * MINUTE_MS;
/// Rows of D's table. Actors are `user_100` to `user_999`, so that some find nobody.
const USER_ROWS: std::ops::Range<u32> = 150..1147;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Workload {
    /// Balances: JSON folded per account, output and changelog.
    #[value(name = "A", alias = "a")]
    Balances,
    /// Stateless: parse, filter, project.
    #[value(name = "B", alias = "b")]
    Stateless,
    /// Turnover per account and minute.
    #[value(name = "C", alias = "c")]
    Windowed,
    /// A new key by a repartition topic, then a left join with a table.
    #[value(name = "D", alias = "d")]
    Joined,
    /// Two tables joined by a foreign key, and changes of both.
    #[value(name = "E", alias = "e")]
    ForeignKey,
    /// Latency of workload A at a fixed rate.
    #[value(name = "F", alias = "f")]
    Latency,
    /// Restore of workload A's store from nothing.
    #[value(name = "G", alias = "g")]
    Restore,
    /// `kill -9` of workload A while records come in.
    #[value(name = "H", alias = "h")]
    Recovery,
    /// Workload A on a store that is much larger than its caches.
    #[value(name = "I", alias = "i")]
    Updates,
    /// Workload A with many partitions and nothing to do.
    #[value(name = "J", alias = "j")]
    Idle,
}

impl Workload {
    pub(crate) const fn letter(self) -> &'static str {
        match self {
            Self::Balances => "A",
            Self::Stateless => "B",
            Self::Windowed => "C",
            Self::Joined => "D",
            Self::ForeignKey => "E",
            Self::Latency => "F",
            Self::Restore => "G",
            Self::Recovery => "H",
            Self::Updates => "I",
            Self::Idle => "J",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Balances => "A. Balances: JSON folded per account, output and changelog",
            Self::Stateless => "B. Stateless: parse, filter, project",
            Self::Windowed => "C. Windowed turnover per account and minute",
            Self::Joined => "D. Repartition by user, then left join with a table of 997 users",
            Self::ForeignKey => "E. Foreign-key join of two tables that both change",
            Self::Latency => "F. Latency of workload A at a fixed rate",
            Self::Restore => "G. Cold restore of workload A's store",
            Self::Recovery => "H. kill -9 of workload A while records come in",
            Self::Updates => "I. Random updates of a store larger than its caches",
            Self::Idle => "J. Idle, with many partitions",
        }
    }

    /// Returns the topology that it runs: several measure different things of workload A's.
    const fn drawing(self) -> Drawing {
        match self {
            Self::Balances
            | Self::Latency
            | Self::Restore
            | Self::Recovery
            | Self::Updates
            | Self::Idle => Drawing::Balances,
            Self::Stateless => Drawing::Credits,
            Self::Windowed => Drawing::Turnover,
            Self::Joined => Drawing::Named,
            Self::ForeignKey => Drawing::Owned,
        }
    }

    /// Returns the store whose changelog is compared, too, where it begins empty.
    pub(crate) const fn store(self) -> Option<&'static str> {
        match self {
            Self::Balances | Self::Latency | Self::Idle => Some(balances::STORE),
            Self::Windowed => Some("turnover"),
            Self::ForeignKey => Some(foreign_key::JOINED),
            Self::Stateless | Self::Joined => None,
            // `preload` knows what it holds.
            Self::Restore | Self::Recovery | Self::Updates => None,
        }
    }

    /// Returns whether the output follows the input's order per key: not behind a repartition topic.
    pub(crate) const fn is_ordered(self) -> bool {
        !matches!(self, Self::Joined)
    }

    /// Returns whether it is open how often a key comes out.
    pub(crate) const fn only_ends_alike(self) -> bool {
        matches!(self, Self::ForeignKey)
    }

    /// Returns whether outputs follow behind a repartition topic, after their input is committed.
    pub(crate) const fn is_repartitioned(self) -> bool {
        matches!(self, Self::Joined | Self::ForeignKey)
    }

    /// Returns the topology's names of input, users and output.
    pub(crate) const fn topics(self) -> (&'static str, Option<&'static str>, &'static str) {
        match self.drawing() {
            Drawing::Balances => (balances::EVENTS, None, balances::BALANCES),
            Drawing::Credits | Drawing::Turnover => (INPUT, None, OUTPUT),
            Drawing::Named | Drawing::Owned => (INPUT, Some(USERS), OUTPUT),
        }
    }

    pub(crate) fn topology(self) -> Result<Topology, TopologyErrors> {
        match self.drawing() {
            Drawing::Balances => balances::topology(),
            Drawing::Credits => credits(),
            Drawing::Turnover => turnover(),
            Drawing::Named => named(),
            Drawing::Owned => foreign_key::owned(),
        }
    }
}

/// A topology.
#[derive(Debug, Clone, Copy)]
enum Drawing {
    Balances,
    Credits,
    Turnover,
    Named,
    Owned,
}

/// B's view of an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Movement {
    aggregate_version: u64,
    data: MovementData,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MovementData {
    #[serde(with = "millstream::serde::decimal_text")]
    change_amount: Decimal,
    change_type: ChangeType,
    transaction_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ChangeType {
    Debit,
    Credit,
}

/// B's output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credit {
    transaction_id: String,
    version: u64,
    #[serde(with = "millstream::serde::decimal_text")]
    amount: Decimal,
}

/// Credits only, three fields of them.
fn credits() -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let events = Consumed::with(serdes::string(), serdes::json::<Movement>());
    builder
        .stream(INPUT, events)
        .filter(|_, event| event.data.change_type == ChangeType::Credit)
        .map_values(|event| Credit {
            transaction_id: event.data.transaction_id,
            version: event.aggregate_version,
            amount: event.data.change_amount,
        })
        .to(
            OUTPUT,
            Produced::with(serdes::string(), serdes::json::<Credit>()),
        );
    builder.build()
}

/// C's view of an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    data: ChangeData,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeData {
    #[serde(with = "millstream::serde::decimal_text")]
    change_amount: Decimal,
}

/// C's store, changelog and output.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Turnover {
    count: u64,
    #[serde(with = "millstream::serde::decimal_text")]
    turnover: Decimal,
}

/// How much was moved on each account in each minute.
fn turnover() -> Result<Topology, TopologyErrors> {
    let minute = Duration::from_secs(60);
    let builder = StreamsBuilder::new();
    let events = Consumed::with(serdes::string(), serdes::json::<Change>());
    builder
        .stream(INPUT, events)
        .group_by_key(Grouped::as_name("by-account"))
        .windowed_by(TimeWindows::of_size_with_no_grace(minute))
        .aggregate(
            Turnover::default,
            |_, event: Change, before: Turnover| Turnover {
                count: before.count + 1,
                turnover: before.turnover + event.data.change_amount,
            },
            Materialized::as_store("turnover", serdes::string(), serdes::json::<Turnover>()),
        )
        .to_stream()
        .to(
            OUTPUT,
            Produced::with(
                serdes::time_windowed(serdes::string(), minute),
                serdes::optional(serdes::json::<Turnover>()),
            ),
        );
    builder.build()
}

/// D's view of an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Caused {
    aggregate_version: u64,
    metadata: CausedBy,
    data: CausedData,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CausedBy {
    actor_id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CausedData {
    #[serde(with = "millstream::serde::decimal_text")]
    signed_amount: Decimal,
}

/// Events by who caused them, with that user's name.
fn named() -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let users = builder.table(
        USERS,
        Consumed::with(serdes::string(), serdes::string()),
        Materialized::as_store("users", serdes::string(), serdes::string()),
    );
    let events = Consumed::with(serdes::string(), serdes::json::<Caused>());
    builder
        .stream(INPUT, events)
        .map(|account, event| {
            let version = event.aggregate_version;
            let amount = event.data.signed_amount;
            let movement = format!("{account}|{version}|{amount}");
            (event.metadata.actor_id, movement)
        })
        .repartition(Repartitioned::with(
            "by-actor",
            serdes::string(),
            serdes::string(),
        ))
        .left_join_table(
            &users,
            |_, movement, name: Option<String>| {
                format!("{movement}|{}", name.as_deref().unwrap_or_default())
            },
            Joined::as_name("named"),
        )
        .to(OUTPUT, Produced::with(serdes::string(), serdes::string()));
    builder.build()
}
