//! The commands on an account.
//!
//! Unknown fields are refused: a misspelled `currency` or `transactionId` would otherwise be taken
//! for an absent one, and money would move under another meaning.

use millstream::event_sourcing::{CommandData, CommandEnvelope};
use serde::Deserialize;

use crate::events::Status;
use crate::money::AmountInput;

millstream::commands! {
    /// What can be asked of an account.
    pub enum AccountCommand {
        /// Open it.
        OpenAccount(OpenAccount),
        /// Bring money in.
        TopUp(TopUp),
        /// Take money out.
        Withdraw(Withdraw),
        /// Freeze, thaw or close it.
        ChangeStatus(ChangeStatus),
        /// Of the aggregate `Transaction`, which is not part of this version; rejected
        /// `NOT_IMPLEMENTED`.
        Transfer(Transfer),
        /// As [`Transfer`](Self::Transfer).
        RequestPayment(RequestPayment),
    }
}

/// `data` of `OpenAccount`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAccount {
    /// Who owns it.
    pub owner: String,
    /// Its currency: a code of ISO 4217.
    pub currency: String,
}
impl CommandData for OpenAccount {}

/// `data` of `TopUp` and `Withdraw`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Movement {
    /// How much; positive, within the currency's scale.
    pub amount: AmountInput,
    /// Why.
    pub reason: String,
    /// Must be the account's; absent means the account's.
    #[serde(default)]
    pub currency: Option<String>,
    /// The transaction that it is part of; absent means `tx-<commandId>`.
    #[serde(default)]
    pub transaction_id: Option<String>,
}

impl Movement {
    fn complete(&mut self, envelope: &CommandEnvelope<'_>) {
        self.transaction_id
            .get_or_insert_with(|| format!("tx-{}", envelope.command_id));
    }
}

/// `data` of `TopUp`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TopUp(pub Movement);
impl CommandData for TopUp {
    fn complete(&mut self, envelope: &CommandEnvelope<'_>) {
        self.0.complete(envelope);
    }
}

/// `data` of `Withdraw`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Withdraw(pub Movement);
impl CommandData for Withdraw {
    fn complete(&mut self, envelope: &CommandEnvelope<'_>) {
        self.0.complete(envelope);
    }
}

/// `data` of `ChangeStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeStatus {
    /// The status from now on.
    pub new_status: Status,
    /// Why.
    pub reason: String,
}
impl CommandData for ChangeStatus {}

/// `data` of `Transfer`: not looked at in this version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Transfer {}
impl CommandData for Transfer {}

/// `data` of `RequestPayment`: not looked at in this version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RequestPayment {}
impl CommandData for RequestPayment {}
