//! The events of an account, in every schema version.

use millstream::event_sourcing::Versioned;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::money::{Amount, Currency};

millstream::events! {
    /// What happens to an account.
    pub enum AccountEvent {
        /// It was opened.
        AccountCreated(AccountCreated),
        /// Money came or went.
        BalanceChanged(BalanceChanged),
        /// It was frozen, thawed or closed.
        AccountStatusChanged(AccountStatusChanged),
        /// It was removed for good: its tombstone.
        AccountRemoved(AccountRemoved),
    }
}

/// Whether an account takes part in movements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Money may come and go.
    #[default]
    Active,
    /// No movement until it is active again.
    Frozen,
    /// No movement, for good.
    Closed,
}

impl Status {
    /// Returns the status as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Frozen => "FROZEN",
            Self::Closed => "CLOSED",
        }
    }
}

/// `data` of `AccountCreated` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCreated {
    /// Who owns it.
    pub owner: String,
    /// Its currency, for good.
    pub currency: Currency,
    /// Its first status.
    pub status: Status,
}
millstream::first_version!(
    AccountCreated,
    AccountStatusChanged,
    AccountRemoved,
    BalanceChangedV1,
);

/// `data` of `AccountStatusChanged` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountStatusChanged {
    /// The status before.
    pub previous_status: Status,
    /// The status from now on.
    pub new_status: Status,
    /// Why; absent in events of systems that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `data` of `AccountRemoved` version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRemoved {
    /// Why; absent in events of systems that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The direction of a movement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChangeType {
    /// Money came in: `signedAmount` is positive.
    Credit,
    /// Money went out: `signedAmount` is negative.
    Debit,
}

/// `data` of `BalanceChanged` version 1: before currencies. Never written, read for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BalanceChangedV1 {
    previous_balance: Amount,
    new_balance: Amount,
    change_amount: Amount,
    change_type: ChangeType,
    signed_amount: Amount,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    transaction_id: Option<String>,
}

/// `data` of `BalanceChanged` version 2: with its currency.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BalanceChanged {
    /// The balance before.
    pub previous_balance: Amount,
    /// The balance from now on.
    pub new_balance: Amount,
    /// What came or went; always positive.
    pub change_amount: Amount,
    /// Whether it came or went.
    pub change_type: ChangeType,
    /// `change_amount`, negative for a debit.
    pub signed_amount: Amount,
    /// Why; absent in events of systems that do not say.
    #[serde(default)]
    pub reason: Option<String>,
    /// The transaction that it is part of.
    #[serde(default)]
    pub transaction_id: Option<String>,
    /// What the amounts are in.
    pub currency: Currency,
}

impl Versioned for BalanceChanged {
    type Previous = BalanceChangedV1;

    /// Before there were currencies, all accounts were in US dollars.
    fn upcast(v1: BalanceChangedV1) -> Self {
        Self {
            previous_balance: v1.previous_balance,
            new_balance: v1.new_balance,
            change_amount: v1.change_amount,
            change_type: v1.change_type,
            signed_amount: v1.signed_amount,
            reason: v1.reason,
            transaction_id: v1.transaction_id,
            currency: Currency::USD,
        }
    }
}

impl Serialize for BalanceChanged {
    /// Amounts are written with the currency's scale, which only the whole record knows.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = |amount: Amount| amount.written_in(self.currency);
        let mut data = serializer.serialize_struct("BalanceChanged", 8)?;
        data.serialize_field("previousBalance", &written(self.previous_balance))?;
        data.serialize_field("newBalance", &written(self.new_balance))?;
        data.serialize_field("changeAmount", &written(self.change_amount))?;
        data.serialize_field("changeType", &self.change_type)?;
        data.serialize_field("signedAmount", &written(self.signed_amount))?;
        match &self.reason {
            Some(reason) => data.serialize_field("reason", reason)?,
            None => data.skip_field("reason")?,
        }
        match &self.transaction_id {
            Some(transaction) => data.serialize_field("transactionId", transaction)?,
            None => data.skip_field("transactionId")?,
        }
        data.serialize_field("currency", &self.currency)?;
        data.end()
    }
}
