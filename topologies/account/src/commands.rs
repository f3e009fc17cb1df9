//! The commands on an account.
//!
//! Unknown fields are refused: a misspelled `currency` or `transactionId` would otherwise be taken
//! for an absent one, and money would move under another meaning.

use millstream::event_sourcing::{CommandData, CommandEnvelope};
use serde::{Deserialize, Serialize};

use crate::events::Status;
use crate::money::{Amount, AmountInput, Currency};

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
        /// Remove it for good, closed and empty as it is.
        RemoveAccount(RemoveAccount),
        /// The first step of a transfer: money leaves. Given by the aggregate `Transaction` only.
        DebitTransfer(DebitTransfer),
        /// The second step of a transfer: money arrives. As [`DebitTransfer`](Self::DebitTransfer).
        CreditTransfer(CreditTransfer),
        /// The step instead of the second: money comes back, whatever the account's status. As
        /// [`DebitTransfer`](Self::DebitTransfer).
        RefundTransfer(RefundTransfer),
        /// Of the aggregate `Transaction`: rejected `WRONG_AGGREGATE`.
        Transfer(Misdirected),
        /// As [`Transfer`](Self::Transfer).
        RequestPayment(MisdirectedPayment),
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

/// `data` of `RemoveAccount`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveAccount {
    /// Why.
    pub reason: String,
}
impl CommandData for RemoveAccount {}

/// `data` of the steps of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferLeg {
    /// How much.
    pub amount: Amount,
    /// In what; absent in a debit whose transfer leaves it to the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// What for.
    pub reason: String,
    /// The transfer.
    pub transaction_id: String,
}

impl From<TransferLeg> for Movement {
    fn from(leg: TransferLeg) -> Self {
        Self {
            amount: AmountInput(Ok(leg.amount)),
            reason: leg.reason,
            currency: leg.currency.map(|currency| currency.to_string()),
            transaction_id: Some(leg.transaction_id),
        }
    }
}

macro_rules! steps_of_a_transfer {
    ($($(#[$meta:meta])* $step:ident),+) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $step(pub TransferLeg);
        impl CommandData for $step {
            const OF_PROCESS: bool = true;
        }
    )+ };
}

steps_of_a_transfer!(
    /// `data` of `DebitTransfer`.
    DebitTransfer,
    /// `data` of `CreditTransfer`.
    CreditTransfer,
    /// `data` of `RefundTransfer`.
    RefundTransfer
);

/// `data` of a `Transfer` that was sent to an account: not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Misdirected {}
impl CommandData for Misdirected {}

/// `data` of a `RequestPayment` that was sent to an account: not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MisdirectedPayment {}
impl CommandData for MisdirectedPayment {}
