//! Draws the read models from the events of all accounts.
//!
//! # Invariants
//! - All of them are [projections](millstream::event_sourcing::Projections): they can be built anew while
//!   they serve. Rows of events are keyed by account and version, so that whoever has read a row before
//!   recognises it.
//! - A removed account has no balance and no movements, and counts in no status. What it did stays: in the
//!   audit log, and in the turnover of its days.
//! - The windows of turnover are days of one account, and closed by its time alone: a rebuild, which brings
//!   events account by account, comes to the same sums.

use std::time::Duration;

use millstream::event_sourcing::{
    Drawn, Grouped, GroupedProjection, HistoryKey, PartKey, Projected, Projection,
    ProjectionEndpoint, Projections, Rows, Shares, compacted_topic, expiring_topic,
};
use millstream::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::account::Account;
use crate::read_model::{
    AccountRecorded, AuditEntry, Balance, MovementEntry, StatusCount, Turnover, TurnoverPart,
    turnover_key,
};
use crate::topology::{AUDIT, BALANCES, MOVEMENTS, STATUS_COUNTS, TURNOVER};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How long the audit log's topic keeps its records; its store keeps them for good.
const AUDIT_RETENTION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The projection of balances.
pub(crate) const BALANCES_VIEW: &str = "account-balances";
/// The projection of movements.
pub(crate) const MOVEMENTS_VIEW: &str = "account-movements";
/// The projection of the audit log.
pub(crate) const AUDIT_VIEW: &str = "account-audit";
/// The projection of turnover per account and day.
pub(crate) const TURNOVER_VIEW: &str = "account-turnover";
/// The projection of counts per status.
pub(crate) const STATUS_COUNTS_VIEW: &str = "account-status-counts";

/// Draws all read models.
pub(crate) fn draw(
    builder: &StreamsBuilder,
    accounts: &Drawn<Account>,
    turnover_grace: Duration,
) -> [ProjectionEndpoint; 5] {
    let projections = &accounts.projections;
    [
        balances(builder, projections),
        movements(builder, projections),
        audit(builder, projections),
        turnover(builder, projections, turnover_grace),
        status_counts(builder, projections),
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

/// What moved on an account in a day. A day is closed by the account's own time, so that it is the same in
/// a rebuild, whatever the order of accounts.
fn turnover(
    builder: &StreamsBuilder,
    projections: &Projections<Account>,
    grace: Duration,
) -> ProjectionEndpoint {
    builder.declare_topic(TURNOVER, compacted_topic());
    let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
    let turnover = Projection::new(
        TURNOVER_VIEW,
        move |account_id, event: &AccountRecorded, rows: &mut Rows<'_, PartKey, Turnover>| {
            let Some(part) = TurnoverPart::of(&event.event) else {
                return Ok(());
            };
            let start = event.timestamp - event.timestamp.rem_euclid(DAY_MS);
            if start.saturating_add(DAY_MS).saturating_add(grace_ms) <= event.updated_at {
                return Ok(());
            }
            let nothing = Turnover::of_nothing(account_id, start)?;
            let key = PartKey::new(account_id, nothing.day.as_str());
            let day = rows.get(&key)?.unwrap_or(nothing);
            rows.put(key, day.plus(&part)?)
        },
    )
    // Its grace is one of its rules: with another one, turnover is built anew.
    .version(u32::try_from(grace.as_secs()).unwrap_or(u32::MAX))
    .keep_tombstoned();
    let Projected { rows, endpoint } = projections.draw(builder, turnover);
    rows.map(|PartKey { aggregate_id, part }, day| (turnover_key(&aggregate_id, &part), day))
        .named("account-turnover-rows")
        .to(
            TURNOVER,
            Produced::with(
                serdes::string(),
                serdes::optional(serdes::json::<Turnover>()),
            ),
        );
    endpoint
}

/// The accounts of each status: one that changes it is taken from one count and added to another.
fn status_counts(
    builder: &StreamsBuilder,
    projections: &Projections<Account>,
) -> ProjectionEndpoint {
    builder.declare_topic(STATUS_COUNTS, compacted_topic());
    let counts = GroupedProjection::new(
        STATUS_COUNTS_VIEW,
        |_, event: &AccountRecorded, shares: &mut Shares<i64>| {
            shares.only(event.after.status.as_str(), 1);
            Ok(())
        },
        StatusCount::default,
        |status, accounts, count| count.plus(status, accounts),
        |status, accounts, count| count.plus(status, -accounts),
    );
    let Grouped { rows, endpoint } = projections.draw_grouped(builder, counts);
    rows.to(
        STATUS_COUNTS,
        Produced::with(
            serdes::string(),
            serdes::optional(serdes::json::<StatusCount>()),
        ),
    );
    endpoint
}
