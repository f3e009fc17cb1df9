//! The read models: rows of topics and stores, made of the account and its events.
//!
//! | Topic | Key | Value | Store |
//! | --- | --- | --- | --- |
//! | `billing.account.balances` | account | [`Balance`] | projection `account-balances`, by account |
//! | `billing.account.movements` | account | [`MovementEntry`] | projection `account-movements`, by account and version |
//! | `billing.account.turnover` | `<account>@<day>` | [`Turnover`] | projection `account-turnover`, by account and day |
//! | `billing.account.status-counts` | status | [`StatusCount`] | projection `account-status-counts`, by status |
//! | `billing.account.audit` | account | [`AuditEntry`] | projection `account-audit`, by account and version |

use millstream::event_sourcing::{
    AggregateRecord, Event, Metadata, RecordedEvent, TimeError, format_timestamp,
};
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::events::{AccountEvent, ChangeType, Status};
use crate::money::{Amount, Currency, MoneyError};

/// An event of an account with the state around it.
pub(crate) type AccountRecorded = RecordedEvent<AccountEvent, Account>;

/// A value of `billing.account.balances`, keyed by the account's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// The account.
    pub account_id: String,
    /// What is in it, with the currency's scale or more.
    pub balance: String,
    /// Its currency; null as long as no event has named one.
    pub currency: Option<Currency>,
    /// Its status.
    pub status: Status,
    /// The version of its last event; strictly rising from record to record.
    pub version: u64,
    /// The timestamp of its last event.
    pub updated_at: String,
}

impl Balance {
    /// Returns the read model of an account.
    ///
    /// # Errors
    /// [`TimeError::Range`] when the last event's timestamp is off the calendar.
    pub fn of(account_id: &str, record: &AggregateRecord<Account>) -> Result<Self, TimeError> {
        let account = &record.state;
        Ok(Self {
            account_id: account_id.into(),
            balance: written(account.balance, account.currency),
            currency: account.currency,
            status: account.status,
            version: record.version,
            updated_at: format_timestamp(record.updated_at)?,
        })
    }
}

fn written(amount: Amount, currency: Option<Currency>) -> String {
    currency.map_or_else(
        || amount.to_string(),
        |currency| amount.written_in(currency),
    )
}

/// A value of `billing.account.movements`, keyed by the account's id: money that came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MovementEntry {
    /// The account.
    pub account_id: String,
    /// The account's version after it; unique per account.
    pub version: u64,
    /// The event.
    pub event_id: String,
    /// When.
    pub occurred_at: String,
    /// Whether money came or went.
    pub change_type: ChangeType,
    /// How much; positive.
    pub amount: String,
    /// The same, negative for a debit.
    pub signed_amount: String,
    /// The balance afterwards.
    pub balance: String,
    /// In what.
    pub currency: Currency,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The transaction that it is part of, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
}

impl MovementEntry {
    /// Returns the row of an event; `None` when no money moved.
    ///
    /// # Errors
    /// [`TimeError::Range`] when the event's timestamp is off the calendar.
    pub fn of(account_id: &str, event: &AccountRecorded) -> Result<Option<Self>, TimeError> {
        let AccountEvent::BalanceChanged(changed) = &event.event else {
            return Ok(None);
        };
        let written = |amount: Amount| amount.written_in(changed.currency);
        Ok(Some(Self {
            account_id: account_id.into(),
            version: event.version,
            event_id: event.event_id.clone(),
            occurred_at: format_timestamp(event.timestamp)?,
            change_type: changed.change_type,
            amount: written(changed.change_amount),
            signed_amount: written(changed.signed_amount),
            balance: written(changed.new_balance),
            currency: changed.currency,
            reason: changed.reason.clone(),
            transaction_id: changed.transaction_id.clone(),
        }))
    }
}

/// What an event adds to a day's turnover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TurnoverPart {
    /// Whether money came or went.
    pub change_type: ChangeType,
    /// How much; positive.
    pub amount: Amount,
    /// In what.
    pub currency: Currency,
}

impl TurnoverPart {
    /// Returns what an event adds; `None` when no money moved.
    #[must_use]
    pub fn of(event: &AccountEvent) -> Option<Self> {
        match event {
            AccountEvent::BalanceChanged(changed) => Some(Self {
                change_type: changed.change_type,
                amount: changed.change_amount,
                currency: changed.currency,
            }),
            AccountEvent::AccountCreated(_)
            | AccountEvent::AccountStatusChanged(_)
            | AccountEvent::AccountRemoved(_) => None,
        }
    }
}

/// A value of `billing.account.turnover`, keyed by `<accountId>@<day>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turnover {
    /// The account.
    pub account_id: String,
    /// The day in UTC, such as `2025-12-09`.
    pub day: String,
    /// In what.
    pub currency: Option<Currency>,
    /// What came; null when the sum has more digits than can be kept exactly.
    pub credits: Option<String>,
    /// What went; positive, or null as above.
    pub debits: Option<String>,
    /// What came less what went; null as above.
    pub net: Option<String>,
    /// How often money came or went.
    pub movements: u64,
}

impl Turnover {
    /// Returns the row of a day that begins at `start`, and on which nothing has moved.
    ///
    /// # Errors
    /// [`TimeError::Range`] when the day is off the calendar.
    pub fn of_nothing(account_id: &str, start: i64) -> Result<Self, TimeError> {
        let zero = || Some(Amount::ZERO.to_string());
        Ok(Self {
            account_id: account_id.to_owned(),
            day: format_timestamp(start)?.chars().take(DAY_TEXT).collect(),
            currency: None,
            credits: zero(),
            debits: zero(),
            net: zero(),
            movements: 0,
        })
    }

    /// Adds a movement.
    ///
    /// # Errors
    /// When the row's own amounts do not read.
    pub fn plus(mut self, movement: &TurnoverPart) -> Result<Self, MoneyError> {
        let read = |text: Option<String>| text.map(|text| text.parse::<Amount>()).transpose();
        let (mut credits, mut debits) = (read(self.credits)?, read(self.debits)?);
        let side = match movement.change_type {
            ChangeType::Credit => &mut credits,
            ChangeType::Debit => &mut debits,
        };
        *side = side.and_then(|sum| sum.plus(movement.amount).ok());
        let net = credits.zip(debits);
        let net = net.and_then(|(credits, debits)| credits.minus(debits).ok());
        let text =
            |amount: Option<Amount>| amount.map(|amount| amount.written_in(movement.currency));
        (self.credits, self.debits, self.net) = (text(credits), text(debits), text(net));
        self.currency = Some(movement.currency);
        self.movements = self.movements.saturating_add(1);
        Ok(self)
    }
}

/// Returns the key of a day's record.
#[must_use]
pub(crate) fn turnover_key(account_id: &str, day: &str) -> String {
    format!("{account_id}@{day}")
}

/// The length of `2025-12-09`.
const DAY_TEXT: usize = 10;

/// A value of `billing.account.status-counts`, keyed by the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusCount {
    /// The status, as on the wire.
    pub status: String,
    /// How many accounts have it.
    pub accounts: i64,
}

impl StatusCount {
    /// Counts accounts more, or fewer.
    #[must_use]
    pub fn plus(self, status: &str, accounts: i64) -> Self {
        Self {
            status: status.to_owned(),
            accounts: self.accounts.saturating_add(accounts),
        }
    }
}

/// An account at one version, as the audit log shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    /// Who owns it; null until an `AccountCreated`.
    pub owner: Option<String>,
    /// Its currency.
    pub currency: Option<Currency>,
    /// What is in it.
    pub balance: String,
    /// Its status.
    pub status: Status,
}

impl From<&Account> for AccountView {
    fn from(account: &Account) -> Self {
        Self {
            owner: account.owner.clone(),
            currency: account.currency,
            balance: written(account.balance, account.currency),
            status: account.status,
        }
    }
}

/// A value of `billing.account.audit`, keyed by the account's id: who did what, when, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// The account.
    pub account_id: String,
    /// The account's version after it; unique per account.
    pub version: u64,
    /// The event.
    pub event_id: String,
    /// What.
    pub event_type: String,
    /// When.
    pub occurred_at: String,
    /// Who: `metadata.actorId`.
    pub actor_id: Option<String>,
    /// What kind of actor: `metadata.actorType`.
    pub actor_type: Option<String>,
    /// Through what: `metadata.source`.
    pub source: Option<String>,
    /// Why: `metadata.reason`, or the event's own.
    pub reason: Option<String>,
    /// The request that it belongs to.
    pub correlation_id: String,
    /// The command or event that caused it.
    pub causation_id: Option<String>,
    /// The account before; null for its first event.
    pub before: Option<AccountView>,
    /// The account after; null when it was removed.
    pub after: Option<AccountView>,
}

impl AuditEntry {
    /// Returns the row of an event.
    ///
    /// # Errors
    /// [`TimeError::Range`] when the event's timestamp is off the calendar.
    pub fn of(account_id: &str, event: &AccountRecorded) -> Result<Self, TimeError> {
        let said = |key| said(event.metadata.as_ref(), key);
        let own = match &event.event {
            AccountEvent::AccountCreated(_) => None,
            AccountEvent::BalanceChanged(changed) => changed.reason.clone(),
            AccountEvent::AccountStatusChanged(changed) => changed.reason.clone(),
            AccountEvent::AccountRemoved(removed) => removed.reason.clone(),
        };
        Ok(Self {
            account_id: account_id.into(),
            version: event.version,
            event_id: event.event_id.clone(),
            event_type: event.event.event_type().to_owned(),
            occurred_at: format_timestamp(event.timestamp)?,
            actor_id: said("actorId"),
            actor_type: said("actorType"),
            source: said("source"),
            reason: said("reason").or(own),
            correlation_id: event.correlation_id.clone(),
            causation_id: event.causation_id.clone(),
            before: event.before.as_ref().map(AccountView::from),
            after: (!event.tombstoned).then(|| AccountView::from(&event.after)),
        })
    }
}

fn said(metadata: Option<&Metadata>, key: &str) -> Option<String> {
    Some(metadata?.get(key)?.as_str()?.to_owned())
}
