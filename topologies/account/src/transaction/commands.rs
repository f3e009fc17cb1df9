//! The commands on a transaction.
//!
//! Unknown fields are refused, as for an account.

use millstream::event_sourcing::CommandData;
use serde::{Deserialize, Serialize};

use super::Failure;
use crate::events::ChangeType;
use crate::money::{Amount, AmountInput, Currency};

millstream::commands! {
    /// What can be asked of a transaction.
    pub enum TransactionCommand {
        /// Move money between two accounts.
        Transfer(Transfer),
        /// Ask for a transfer, which waits to be accepted.
        RequestPayment(RequestPayment),
        /// Accept a requested payment: it is carried out as a transfer.
        AcceptPayment(AcceptPayment),
        /// Turn a requested payment down.
        RejectPayment(RejectPayment),
        /// Ask for a step again that was given up. For operators.
        ResumeTransfer(ResumeTransfer),
        /// Send the money of a suspended transfer to an account that takes it. For operators.
        SettleTransfer(SettleTransfer),
        /// An account was topped up or withdrawn from. Told by the account's own task only.
        MovementMade(MovementMade),
        /// An account has refused a top-up or a withdrawal. Told by the account's own task only.
        MovementRefused(MovementRefused),
    }
}

/// `data` of `Transfer` and `RequestPayment`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransferOrder {
    /// Where the money comes from.
    pub from_account: String,
    /// Where it goes to.
    pub to_account: String,
    /// How much; positive, within the currency's scale.
    pub amount: AmountInput,
    /// In what; absent means the currency of `from_account`. Both accounts must have it.
    #[serde(default)]
    pub currency: Option<String>,
    /// What for.
    pub reason: String,
}

/// `data` of `Transfer`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Transfer(pub TransferOrder);
impl CommandData for Transfer {}

/// `data` of `RequestPayment`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RequestPayment(pub TransferOrder);
impl CommandData for RequestPayment {}

/// `data` of `AcceptPayment`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptPayment {
    /// Why, if there is anything to say.
    #[serde(default)]
    pub reason: Option<String>,
}
impl CommandData for AcceptPayment {}

/// `data` of `RejectPayment`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectPayment {
    /// Why.
    pub reason: String,
}
impl CommandData for RejectPayment {}

/// `data` of `ResumeTransfer`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeTransfer {
    /// Why.
    pub reason: String,
}
impl CommandData for ResumeTransfer {}

/// `data` of `SettleTransfer`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleTransfer {
    /// Who gets the money; absent: the source, asked once more.
    #[serde(default)]
    pub account: Option<String>,
    /// Why.
    pub reason: String,
}
impl CommandData for SettleTransfer {}

/// `data` of `MovementMade`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MovementMade {
    /// The account.
    pub account_id: String,
    /// Whether money came or went.
    pub change_type: ChangeType,
    /// How much.
    pub amount: Amount,
    /// In what.
    pub currency: Currency,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
impl CommandData for MovementMade {
    const OF_PROCESS: bool = true;
}

/// `data` of `MovementRefused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MovementRefused {
    /// The account.
    pub account_id: String,
    /// Whether money was to come or to go.
    pub change_type: ChangeType,
    /// How much, where it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    /// In what, where the command said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Why it was to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it was not.
    #[serde(flatten)]
    pub failure: Failure,
}
impl CommandData for MovementRefused {
    const OF_PROCESS: bool = true;
}
