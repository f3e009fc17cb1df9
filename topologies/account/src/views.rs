//! Draws the read models from the events of all accounts.
//!
//! # Invariants
//! - Each is made of [`Drawn::events`](millstream::event_sourcing::Drawn) or `changes` in derived stores:
//!   a reset deletes them, and the rebuild brings every event exactly once. Rows are keyed by account and
//!   version, so that whoever has read a row before recognises it.
//! - A rebuild brings events account by account, so that windows see times out of order: the grace period
//!   says how far back turnover is right after a reset, as it says how late an event may be.

use std::time::Duration;

use millstream::event_sourcing::{
    AggregateRecord, Drawn, HistoryKey, HistoryKeySerde, compacted_topic, expiring_topic,
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

type Events = KStream<String, AccountRecorded>;

/// Draws all read models.
pub(crate) fn draw(builder: &StreamsBuilder, accounts: &Drawn<Account>, turnover_grace: Duration) {
    balances(builder, &accounts.changes);
    movements(builder, &accounts.events);
    turnover(builder, &accounts.events, turnover_grace);
    status_counts(builder, &accounts.events);
    audit(builder, &accounts.events);
}

fn balances(builder: &StreamsBuilder, changed: &KStream<String, AggregateRecord<Account>>) {
    builder.declare_topic(BALANCES, compacted_topic());
    changed
        .try_map_values_with_key(|account_id, record| Ok(Balance::of(account_id, &record)?))
        .named("account-balances")
        .to(
            BALANCES,
            Produced::with(serdes::string(), serdes::json::<Balance>()),
        );
}

fn movements(builder: &StreamsBuilder, events: &Events) {
    builder.declare_topic(MOVEMENTS, expiring_topic());
    ledger(builder, "account-movements", events, |account_id, event| {
        Ok(MovementEntry::of(account_id, event)?)
    })
    .to(
        MOVEMENTS,
        Produced::with(serdes::string(), serdes::json::<MovementEntry>()),
    );
}

fn audit(builder: &StreamsBuilder, events: &Events) {
    let mut config = expiring_topic();
    let retention = AUDIT_RETENTION.as_millis().to_string();
    config.insert("retention.ms".to_owned(), retention);
    builder.declare_topic(AUDIT, config);
    ledger(builder, "account-audit", events, |account_id, event| {
        Ok(Some(AuditEntry::of(account_id, event)?))
    })
    .to(
        AUDIT,
        Produced::with(serdes::string(), serdes::json::<AuditEntry>()),
    );
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
/// count and added to another.
fn status_counts(builder: &StreamsBuilder, events: &Events) {
    builder.declare_topic(STATUS_COUNTS, compacted_topic());
    events
        .flat_map_values(|event| {
            let before = event.before.as_ref().map(|before| before.status);
            (before != Some(event.after.status)).then_some(event.after.status)
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

/// Keeps a row for each event that `row` makes one of, by account and version, and sends it on.
fn ledger<V>(
    builder: &StreamsBuilder,
    name: &str,
    events: &Events,
    row: fn(&str, &AccountRecorded) -> Result<Option<V>, BoxError>,
) -> KStream<String, V>
where
    V: Clone + Serialize + DeserializeOwned + 'static,
{
    let rows = builder.add_state_store(StoreBuilder::as_store(
        name,
        HistoryKeySerde,
        serdes::json::<V>(),
    ));
    events.process(&format!("{name}-rows"), (&rows,), move |_, (rows,)| {
        Ledger { rows, row }
    })
}

struct Ledger<V> {
    rows: StoreRef<HistoryKey, V>,
    row: fn(&str, &AccountRecorded) -> Result<Option<V>, BoxError>,
}

impl<V: Clone + 'static> Processor<String, AccountRecorded, String, V> for Ledger<V> {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, V>,
        record: Record<String, AccountRecorded>,
    ) -> Result<(), BoxError> {
        let Some(row) = (self.row)(&record.key, &record.value)? else {
            return Ok(());
        };
        let key = HistoryKey::new(record.key.as_str(), record.value.version);
        self.rows.put(key, row.clone())?;
        Ok(context.forward(record.with_value(row))?)
    }
}
