//! Draws the read models from the events of all accounts.
//!
//! # Invariants
//! - Balances, movements and audit log are [projections](millstream::event_sourcing::Projections): they can
//!   be built anew while they serve. Rows of events are keyed by account and version, so that whoever has
//!   read a row before recognises it.
//! - Turnover and counts are made of [`Drawn::events`](millstream::event_sourcing::Drawn) in derived stores:
//!   a reset deletes them, and the rebuild brings every event exactly once.
//! - A removed account has no balance and no movements, and counts in no status. What it did stays: in the
//!   audit log, and in the turnover of its days.
//! - A rebuild brings events account by account, so that windows see times out of order: the grace period
//!   says how far back turnover is right after a reset, as it says how late an event may be.

use std::time::Duration;

use millstream::event_sourcing::{
    Drawn, HistoryKey, Projected, Projection, ProjectionEndpoint, Projections, compacted_topic,
    expiring_topic,
};
use millstream::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::account::Account;
use crate::events::Status;
use crate::read_model::{
    AccountRecorded, AuditEntry, Balance, MovementEntry, StatusCount, Turnover, TurnoverPart,
    TurnoverSum,
};
use crate::topology::{AUDIT, BALANCES, MOVEMENTS, STATUS_COUNTS, TURNOVER};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the audit log's topic keeps its records; its store keeps them for good.
const AUDIT_RETENTION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The projection of balances.
pub(crate) const BALANCES_VIEW: &str = "account-balances";
/// The projection of movements.
pub(crate) const MOVEMENTS_VIEW: &str = "account-movements";
/// The projection of the audit log.
pub(crate) const AUDIT_VIEW: &str = "account-audit";

type Events = KStream<String, AccountRecorded>;

/// Draws all read models; returns those that can be built anew while they serve.
pub(crate) fn draw(
    builder: &StreamsBuilder,
    accounts: &Drawn<Account>,
    turnover_grace: Duration,
) -> [ProjectionEndpoint; 3] {
    turnover(builder, &accounts.events, turnover_grace);
    status_counts(builder, &accounts.events);
    let projections = &accounts.projections;
    [
        balances(builder, projections),
        movements(builder, projections),
        audit(builder, projections),
    ]
}

fn balances(builder: &StreamsBuilder, projections: &Projections<Account>) -> ProjectionEndpoint {
    builder.declare_topic(BALANCES, compacted_topic());
    let balances = Projection::new(
        BALANCES_VIEW,
        |account_id, event: &AccountRecorded, rows| {
            rows.put(
                account_id.to_owned(),
                Balance::of(account_id, &event.record())?,
            )
        },
    );
    let Projected { rows, endpoint } = projections.draw(builder, balances);
    rows.to(
        BALANCES,
        Produced::with(
            serdes::string(),
            serdes::optional(serdes::json::<Balance>()),
        ),
    );
    endpoint
}

fn movements(builder: &StreamsBuilder, projections: &Projections<Account>) -> ProjectionEndpoint {
    builder.declare_topic(MOVEMENTS, expiring_topic());
    let movements = Projection::new(
        MOVEMENTS_VIEW,
        |account_id, event: &AccountRecorded, rows| match MovementEntry::of(account_id, event)? {
            Some(movement) => rows.put(HistoryKey::new(account_id, event.version), movement),
            None => Ok(()),
        },
    );
    ledger(projections.draw(builder, movements), MOVEMENTS)
}

fn audit(builder: &StreamsBuilder, projections: &Projections<Account>) -> ProjectionEndpoint {
    let mut config = expiring_topic();
    let retention = AUDIT_RETENTION.as_millis().to_string();
    config.insert("retention.ms".to_owned(), retention);
    builder.declare_topic(AUDIT, config);
    let audit = Projection::new(AUDIT_VIEW, |account_id, event: &AccountRecorded, rows| {
        let entry = AuditEntry::of(account_id, event)?;
        rows.put(HistoryKey::new(account_id, event.version), entry)
    })
    .keep_tombstoned();
    ledger(projections.draw(builder, audit), AUDIT)
}

/// Sends the rows of events to a topic, keyed by their account.
fn ledger<V>(projected: Projected<HistoryKey, V>, topic: &str) -> ProjectionEndpoint
where
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let Projected { rows, endpoint } = projected;
    rows.flat_map(|HistoryKey { aggregate_id, .. }, row: Option<V>| {
        row.map(|row| (aggregate_id, row))
    })
    .to(topic, Produced::with(serdes::string(), serdes::json::<V>()));
    endpoint
}

fn turnover(builder: &StreamsBuilder, events: &Events, grace: Duration) {
    builder.declare_topic(TURNOVER, compacted_topic());
    events
        .flat_map_values(|event| TurnoverPart::of(&event.event))
        .group_by_key(Grouped::with(
            "account-turnover-parts",
            serdes::string(),
            serdes::json(),
        ))
        .windowed_by(TimeWindows::of_size_and_grace(DAY, grace))
        .aggregate(
            TurnoverSum::nothing,
            |_, part: TurnoverPart, sum| sum.plus(&part),
            Materialized::as_store("account-turnover", serdes::string(), serdes::json())
                .with_retention(DAY + grace),
        )
        .to_stream()
        .try_flat_map(|Windowed { key, window }, sum| {
            let turnover = sum.map(|sum| Turnover::of(&key, window.start(), &sum));
            let turnover = turnover.transpose()?;
            Ok(turnover.map(|turnover| (turnover.key(), turnover)))
        })
        .named("account-turnover-rows")
        .to(
            TURNOVER,
            Produced::with(serdes::string(), serdes::json::<Turnover>()),
        );
}

/// A table of the accounts' statuses, counted by status: an account that changes it is taken from one
/// count and added to another; one that is removed is taken from its last.
fn status_counts(builder: &StreamsBuilder, events: &Events) {
    builder.declare_topic(STATUS_COUNTS, compacted_topic());
    events
        .flat_map_values(|event| {
            let before = event.before.as_ref().map(|before| before.status);
            let after = (!event.tombstoned).then_some(event.after.status);
            (before != after).then_some(after)
        })
        .to_table(Materialized::as_store(
            "account-statuses",
            serdes::string(),
            serdes::json::<Status>(),
        ))
        .group_by(
            |account_id, status| (status.as_str().to_owned(), account_id.clone()),
            Grouped::with("account-by-status", serdes::string(), serdes::string()),
        )
        .count(Materialized::as_store(
            "account-status-counts",
            serdes::string(),
            serdes::i64(),
        ))
        .to_stream()
        .flat_map(|status, accounts| {
            let accounts = accounts?;
            Some((status.clone(), StatusCount { status, accounts }))
        })
        .named("account-status-count-rows")
        .to(
            STATUS_COUNTS,
            Produced::with(serdes::string(), serdes::json::<StatusCount>()),
        );
}
