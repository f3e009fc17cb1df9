//! Workload A: the balance of each account, folded from `BalanceChanged` events.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each bench that includes this file uses a part of it"
)]

use millstream::prelude::*;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// The topology's names for its topics and its store.
pub(crate) const EVENTS: &str = "events";
pub(crate) const BALANCES: &str = "balances";
pub(crate) const STORE: &str = "balances";

/// What the fold needs of an event; the other fields are passed over while parsing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BalanceChanged {
    event_type: EventType,
    aggregate_version: u64,
    data: Movement,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum EventType {
    BalanceChanged,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Movement {
    #[serde(with = "millstream::serde::decimal_text")]
    signed_amount: Decimal,
}

/// Value of the store, its changelog and the output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Balance {
    pub(crate) version: u64,
    #[serde(with = "millstream::serde::decimal_text")]
    pub(crate) balance: Decimal,
}

/// Draws events ─▶ fold per account (RocksDB, changelog) ─▶ balances.
pub(crate) fn topology() -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    builder
        .stream(
            EVENTS,
            Consumed::with(serdes::string(), serdes::json::<BalanceChanged>()),
        )
        .group_by_key(Grouped::as_name("by-account"))
        .try_aggregate(
            Balance::default,
            |account, event, before| fold(account, &event, &before).map(Some),
            Materialized::as_store(STORE, serdes::string(), serdes::json::<Balance>()),
        )
        .to_stream()
        .to(
            BALANCES,
            Produced::with(
                serdes::string(),
                serdes::optional(serdes::json::<Balance>()),
            ),
        );
    builder.build()
}

fn fold(account: &str, event: &BalanceChanged, before: &Balance) -> Result<Balance, BoxError> {
    let EventType::BalanceChanged = event.event_type;
    let version = before.version + 1;
    if event.aggregate_version != version {
        let found = event.aggregate_version;
        return Err(format!("{account}: version {found} where {version} follows").into());
    }
    let balance = before
        .balance
        .checked_add(event.data.signed_amount)
        .ok_or_else(|| format!("{account}: the balance overflows"))?;
    Ok(Balance { version, balance })
}
