//! The events of a transaction; all of them in their first schema version.
//!
//! Amounts of a known currency have its scale, others are as they were given.

use serde::{Deserialize, Serialize};

use super::Failure;
use crate::money::{Amount, Currency};

millstream::events! {
    /// What happens to a transaction.
    pub enum TransactionEvent {
        /// A transfer begins.
        TransferRequested(TransferRequested),
        /// The source has given the money.
        TransferDebited(TransferDebited),
        /// The target has refused the money.
        TransferCreditRefused(TransferCreditRefused),
        /// The source has refused its own money back.
        TransferCompensationRefused(TransferCompensationRefused),
        /// The money has arrived.
        TransferCompleted(TransferCompleted),
        /// The transfer did not go through, and every account has what it had.
        TransferFailed(TransferFailed),
        /// A step has had no answer for long, and is asked for no more.
        TransferStalled(TransferStalled),
        /// An operator has had the step asked for again.
        TransferResumed(TransferResumed),
        /// An operator has said who gets the money of a suspended transfer.
        TransferSettlementOrdered(TransferSettlementOrdered),
        /// That account has refused it: suspended as before.
        TransferSettlementRefused(TransferSettlementRefused),
        /// That account has the money.
        TransferSettled(TransferSettled),
        /// Somebody has asked for a payment.
        PaymentRequested(PaymentRequested),
        /// The payment is carried out.
        PaymentAccepted(PaymentAccepted),
        /// The payment was turned down.
        PaymentRejected(PaymentRejected),
        /// An account was topped up.
        TopupCompleted(TopupCompleted),
        /// An account has refused a top-up.
        TopupFailed(TopupFailed),
        /// An account was withdrawn from.
        WithdrawalCompleted(WithdrawalCompleted),
        /// An account has refused a withdrawal.
        WithdrawalFailed(WithdrawalFailed),
    }
}

/// What is to be moved: `data` of `TransferRequested` and `PaymentRequested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferTerms {
    /// Where the money comes from.
    pub from_account: String,
    /// Where it goes to.
    pub to_account: String,
    /// How much.
    pub amount: Amount,
    /// In what; absent: in the currency of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// What for.
    pub reason: String,
}

/// `data` of `TransferRequested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferRequested(pub TransferTerms);

/// `data` of `PaymentRequested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRequested(pub TransferTerms);

/// `data` of `PaymentAccepted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentAccepted {
    /// Why, where something was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `data` of `PaymentRejected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRejected {
    /// Why.
    pub reason: String,
}

/// `data` of `TransferDebited`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferDebited {
    /// The source.
    pub account_id: String,
    /// How much it gave.
    pub amount: Amount,
    /// In what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
}

/// Who refused, and why: `data` of `TransferCreditRefused`, `TransferCompensationRefused` and
/// `TransferSettlementRefused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreditRefused {
    /// The account.
    pub account_id: String,
    /// Why.
    #[serde(flatten)]
    pub failure: Failure,
}

/// `data` of `TransferCreditRefused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferCreditRefused(pub CreditRefused);

/// `data` of `TransferCompensationRefused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferCompensationRefused(pub CreditRefused);

/// `data` of `TransferCompleted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferCompleted {
    /// Where the money came from.
    pub from_account: String,
    /// Where it went to.
    pub to_account: String,
    /// How much.
    pub amount: Amount,
    /// In what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
}

/// `data` of `TransferFailed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferFailed {
    /// Where the money was to come from.
    pub from_account: String,
    /// Where it was to go to.
    pub to_account: String,
    /// How much.
    pub amount: Amount,
    /// In what, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// Whether the source was debited and has its money back.
    pub compensated: bool,
    /// Why.
    #[serde(flatten)]
    pub failure: Failure,
}

/// `data` of `TransferStalled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStalled {
    /// The step.
    pub step: String,
    /// How often it was asked for.
    pub attempts: u32,
}

/// `data` of `TransferResumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferResumed {
    /// The step.
    pub step: String,
    /// Why.
    pub reason: String,
}

/// `data` of `TransferSettlementOrdered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferSettlementOrdered {
    /// Who is to get the money.
    pub account_id: String,
    /// Which attempt at it this is, from 1; part of the step's name.
    pub attempt: u32,
    /// Why.
    pub reason: String,
}

/// `data` of `TransferSettlementRefused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferSettlementRefused(pub CreditRefused);

/// `data` of `TransferSettled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferSettled {
    /// Who has the money.
    pub account_id: String,
    /// How much.
    pub amount: Amount,
    /// In what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
}

/// A movement of one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Movement {
    /// The account.
    pub account_id: String,
    /// How much.
    pub amount: Amount,
    /// In what.
    pub currency: Currency,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `data` of `TopupCompleted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopupCompleted(pub Movement);

/// `data` of `WithdrawalCompleted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawalCompleted(pub Movement);

/// A movement that an account has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedMovement {
    /// The account.
    pub account_id: String,
    /// How much it was to be, where that can be read.
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

/// `data` of `TopupFailed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopupFailed(pub RefusedMovement);

/// `data` of `WithdrawalFailed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawalFailed(pub RefusedMovement);

millstream::first_version!(
    TransferRequested,
    TransferDebited,
    TransferCreditRefused,
    TransferCompensationRefused,
    TransferCompleted,
    TransferFailed,
    TransferStalled,
    TransferResumed,
    TransferSettlementOrdered,
    TransferSettlementRefused,
    TransferSettled,
    PaymentRequested,
    PaymentAccepted,
    PaymentRejected,
    TopupCompleted,
    TopupFailed,
    WithdrawalCompleted,
    WithdrawalFailed,
);
