//! The read model `billing.account.balances`: what an account is now, in one compacted record.

use millstream::event_sourcing::{AggregateRecord, TimeError, format_timestamp};
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::events::Status;
use crate::money::Currency;

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
            balance: match account.currency {
                Some(currency) => account.balance.written_in(currency),
                None => account.balance.to_string(),
            },
            currency: account.currency,
            status: account.status,
            version: record.version,
            updated_at: format_timestamp(record.updated_at)?,
        })
    }
}
