//! The workloads: millstream's topologies, and the output that follows from the input.
//!
//! `java/KafkaStreamsSide.java` has the same topologies for Kafka Streams; what both write is compared
//! byte for byte with what is computed here, so a difference between them fails the run.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each bench that includes this file uses a part of it"
)]

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use millstream::prelude::*;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::balances::{self, Balance};
use crate::events::{self, Events};

/// Topics as the topologies call them; workload A has names of its own.
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
    /// Latency of workload A at a fixed rate.
    #[value(name = "F", alias = "f")]
    Latency,
}

impl Workload {
    pub(crate) const fn letter(self) -> &'static str {
        match self {
            Self::Balances => "A",
            Self::Stateless => "B",
            Self::Windowed => "C",
            Self::Joined => "D",
            Self::Latency => "F",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Balances => "A. Balances: JSON folded per account, output and changelog",
            Self::Stateless => "B. Stateless: parse, filter, project",
            Self::Windowed => "C. Windowed turnover per account and minute",
            Self::Joined => "D. Repartition by user, then left join with a table of 997 users",
            Self::Latency => "F. Latency of workload A at a fixed rate",
        }
    }

    /// Returns the store whose changelog is compared, too.
    pub(crate) const fn store(self) -> Option<&'static str> {
        match self {
            Self::Balances | Self::Latency => Some(balances::STORE),
            Self::Windowed => Some("turnover"),
            Self::Stateless | Self::Joined => None,
        }
    }

    /// Returns whether the output follows the input's order per key: not behind a repartition topic.
    pub(crate) const fn is_ordered(self) -> bool {
        !matches!(self, Self::Joined)
    }

    /// Returns the repartition topic of an application, if the workload has one.
    pub(crate) fn repartition_topic(self, application: &str) -> Option<String> {
        (self == Self::Joined).then(|| format!("{application}-by-actor-repartition"))
    }

    /// Returns the topology's names of input, users and output.
    pub(crate) const fn topics(self) -> (&'static str, Option<&'static str>, &'static str) {
        match self {
            Self::Balances | Self::Latency => (balances::EVENTS, None, balances::BALANCES),
            Self::Stateless | Self::Windowed => (INPUT, None, OUTPUT),
            Self::Joined => (INPUT, Some(USERS), OUTPUT),
        }
    }

    pub(crate) fn topology(self) -> Result<Topology, TopologyErrors> {
        match self {
            Self::Balances | Self::Latency => balances::topology(),
            Self::Stateless => credits(),
            Self::Windowed => turnover(),
            Self::Joined => named(),
        }
    }
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

/// The rows of D's table: key and value.
pub(crate) fn users() -> impl Iterator<Item = (String, String)> {
    USER_ROWS.map(|number| (format!("user_{number}"), format!("Name of {number}")))
}

/// The input: the same records for the same seed.
#[derive(Debug)]
pub(crate) struct Input {
    events: Events,
    random: fastrand::Rng,
    records: u64,
    written: u64,
    start_ms: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) timestamp: i64,
}

impl Input {
    pub(crate) fn new(records: u64, accounts: usize, seed: u64, start_ms: i64) -> Self {
        Self {
            events: Events::new(accounts, seed),
            random: fastrand::Rng::with_seed(seed),
            records,
            written: 0,
            start_ms,
            key: Vec::new(),
            value: Vec::new(),
            timestamp: 0,
        }
    }

    /// The start of the input's event time for an input that is written at `now_ms`.
    pub(crate) const fn start_of(now_ms: i64) -> i64 {
        (now_ms - SPAN_MS) / MINUTE_MS * MINUTE_MS
    }

    /// Writes the next record to `key`, `value` and `timestamp`; `false` at the end.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        if self.written == self.records {
            return Ok(false);
        }
        let event = self.events.next();
        event.write(&mut self.random, &mut self.key, &mut self.value)?;
        let share = i128::from(SPAN_MS) * i128::from(self.written) / i128::from(self.records);
        self.timestamp = self.start_ms + i64::try_from(share)?;
        self.written += 1;
        Ok(true)
    }
}

/// What the output has of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OfKey {
    pub(crate) records: u64,
    /// Of all values: in their order, or of a set where the order is open.
    pub(crate) digest: u64,
    pub(crate) last: Vec<u8>,
}

impl OfKey {
    pub(crate) fn add(&mut self, value: &[u8], is_ordered: bool) {
        self.records += 1;
        let of_value = digest(0xcbf2_9ce4_8422_2325, value);
        if is_ordered {
            self.digest = digest(self.digest, &of_value.to_le_bytes());
            self.last.clear();
            self.last.extend_from_slice(value);
        } else {
            self.digest = self.digest.wrapping_add(of_value);
        }
    }
}

/// FNV-1a from `state`.
fn digest(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// By key: everything that the output must have.
pub(crate) type Expected = HashMap<Vec<u8>, OfKey>;

/// Computes the output from the input, by other code than the topologies'.
pub(crate) fn expected(workload: Workload, mut input: Input) -> Result<Expected> {
    let mut all = Expected::new();
    let mut turnover: HashMap<Vec<u8>, (u64, i64)> = HashMap::new();
    let names: HashMap<String, String> = users().collect();
    let mut out = Vec::new();
    while input.advance()? {
        let event: serde_json::Value = serde_json::from_slice(&input.value)?;
        let text = |pointer: &str| event.pointer(pointer).and_then(|value| value.as_str());
        let text = |pointer: &str| text(pointer).unwrap_or_default();
        let version = event.pointer("/aggregateVersion");
        let version = version.and_then(serde_json::Value::as_u64).unwrap_or(0);
        let mut key = input.key.clone();
        out.clear();
        match workload {
            Workload::Balances | Workload::Latency => {
                // The generator keeps the account's cents itself.
                let balance = text("/data/newBalance");
                write!(out, r#"{{"version":{version},"balance":"{balance}"}}"#)?;
            }
            Workload::Stateless => {
                if text("/data/changeType") != "CREDIT" {
                    continue;
                }
                write!(
                    out,
                    r#"{{"transactionId":"{}","version":{version},"amount":"{}"}}"#,
                    text("/data/transactionId"),
                    text("/data/changeAmount")
                )?;
            }
            Workload::Windowed => {
                let window = input.timestamp / MINUTE_MS * MINUTE_MS;
                key.extend_from_slice(&window.to_be_bytes());
                let (count, sum) = turnover.entry(key.clone()).or_default();
                *count += 1;
                *sum += events::cents(text("/data/changeAmount"))?;
                let sum = Decimal::new(*sum, 2);
                write!(out, r#"{{"count":{count},"turnover":"{sum}"}}"#)?;
            }
            Workload::Joined => {
                let account = String::from_utf8(key)?;
                key = text("/metadata/actorId").as_bytes().to_vec();
                let name = names.get(text("/metadata/actorId"));
                let name = name.map(String::as_str).unwrap_or_default();
                let amount = text("/data/signedAmount");
                write!(out, "{account}|{version}|{amount}|{name}")?;
            }
        }
        all.entry(key).or_default().add(&out, workload.is_ordered());
    }
    Ok(all)
}

/// Reads the version of an account out of an output record of workload A.
pub(crate) fn version_of(value: &[u8]) -> Result<u64> {
    Ok(serde_json::from_slice::<Balance>(value)?.version)
}
