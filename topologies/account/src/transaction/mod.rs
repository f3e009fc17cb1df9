//! The transaction: a movement of money as its own aggregate, and the process of a transfer.
//!
//! ```text
//!                 Transfer                      RequestPayment
//!                    │                                │
//!                    │          AcceptPayment         ▼      RejectPayment
//!                    │  ┌──────────────────────── REQUESTED ───────────────▶ REJECTED
//!                    ▼  ▼
//!                 DEBITING ── debit refused ──────────────────────────────▶ FAILED
//!                    │                                                       ▲
//!                    ▼                                                       │
//!                CREDITING ── credit refused ──▶ COMPENSATING ─ given back ──┘
//!                    │                               │ refused
//!                    ▼                               ▼
//!                COMPLETED                       SUSPENDED ◀──┐
//!                                  SettleTransfer  │          │ refused
//!                                                  ▼          │
//!                                              SETTLING ──────┘
//!                                                  │
//!                                                  ▼
//!                                               SETTLED
//!
//!  a top-up or withdrawal of an account: COMPLETED, or FAILED and COMPLETED later
//! ```
//! # Invariants
//! - The source is debited before the target is credited, so no account is ever overdrawn for a
//!   transfer, and money that is under way is nowhere twice.
//! - What was debited is credited in the currency of the debit, whatever the command left open.
//! - A debit that was made ends in a credit of the target or of the source. The source takes its own
//!   money back whatever its status: only one that was removed meanwhile refuses, or a balance with more
//!   digits than can be kept (`SUSPENDED`). An operator says then who gets the money.
//! - A step that was given up stays pending, marked as stalled, until it is answered after all or an operator
//!   resumes it.

mod commands;
mod events;
mod process;
mod rejection;

use millstream::event_sourcing::{Aggregate, Process, ProcessStep};
use serde::{Deserialize, Serialize};

pub use commands::{
    AcceptPayment, MovementMade, MovementRefused, RejectPayment, RequestPayment, ResumeTransfer,
    SettleTransfer, TransactionCommand, Transfer, TransferOrder,
};
pub use events::{
    CreditRefused, Movement, PaymentAccepted, PaymentRejected, PaymentRequested, RefusedMovement,
    TopupCompleted, TopupFailed, TransactionEvent, TransferCompensationRefused, TransferCompleted,
    TransferCreditRefused, TransferDebited, TransferFailed, TransferRequested, TransferResumed,
    TransferSettled, TransferSettlementOrdered, TransferSettlementRefused, TransferStalled,
    TransferTerms, WithdrawalCompleted, WithdrawalFailed,
};
pub use process::TransferStep;
pub(crate) use process::{is_usable, process_of, refused_movement, started_by};
pub use rejection::TransactionRejection;

use crate::events::ChangeType;
use crate::money::{Amount, Currency};

/// What a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TransactionKind {
    /// Money goes from one account to another.
    Transfer,
    /// A transfer that somebody has asked for.
    Payment,
    /// Money comes in.
    Topup,
    /// Money goes out.
    Withdrawal,
}

/// Where a transaction stands; the header of this module draws it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TransactionStatus {
    /// Nothing has happened yet.
    #[default]
    New,
    /// A payment waits to be accepted or rejected.
    Requested,
    /// The source is asked for the money.
    Debiting,
    /// The money has left the source, and the target is asked to take it.
    Crediting,
    /// The target has refused, and the source gets its money back.
    Compensating,
    /// The source could not take its money back: an operator decides.
    Suspended,
    /// The account that an operator has named is asked to take the money.
    Settling,
    /// That account has the money.
    Settled,
    /// Done.
    Completed,
    /// Not done; every account has what it had.
    Failed,
    /// A payment was turned down.
    Rejected,
}

/// Why a transaction did not go through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The account's reason code.
    pub reason_code: String,
    /// A sentence for people.
    pub message: String,
}

/// A transaction's state, and the aggregate itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transaction {
    /// What it is; `None` before its first event.
    pub kind: Option<TransactionKind>,
    /// Where it stands.
    pub status: TransactionStatus,
    /// Where the money comes from; `None` for a top-up.
    pub from_account: Option<String>,
    /// Where the money goes to; `None` for a withdrawal.
    pub to_account: Option<String>,
    /// How much.
    pub amount: Option<Amount>,
    /// In what; `None` until the source has said, where the command did not.
    pub currency: Option<Currency>,
    /// What for.
    pub reason: Option<String>,
    /// Why it did not go through.
    pub failure: Option<Failure>,
    /// The step that was given up; `None` when the pending one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
    /// What an operator has ordered last, once it was suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settlement: Option<Settlement>,
}

/// Who gets the money of a suspended transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settlement {
    /// The account.
    pub account_id: String,
    /// Which attempt it is, from 1.
    pub attempt: u32,
}

/// How long the reason of an order may be, in bytes. It is in the events of both accounts, too, whatever
/// else these have: a refund that is refused for its size would leave the money nowhere.
pub const REASON_BYTES_MAX: usize = 4_096;

fn fits(reason: &str) -> Result<(), TransactionRejection> {
    match reason.len() {
        0..=REASON_BYTES_MAX => Ok(()),
        bytes => Err(TransactionRejection::ReasonTooLong { bytes }),
    }
}

impl Aggregate for Transaction {
    const TYPE: &'static str = "Transaction";
    type State = Self;
    type Command = TransactionCommand;
    type Event = TransactionEvent;
    type Rejection = TransactionRejection;

    fn decide(
        transaction: &Self,
        command: TransactionCommand,
    ) -> Result<Vec<TransactionEvent>, TransactionRejection> {
        match command {
            TransactionCommand::Transfer(Transfer(order)) => transaction
                .terms(order)
                .map(|terms| TransferRequested(terms).into()),
            TransactionCommand::RequestPayment(RequestPayment(order)) => transaction
                .terms(order)
                .map(|terms| PaymentRequested(terms).into()),
            TransactionCommand::AcceptPayment(AcceptPayment { reason }) => transaction
                .requested()
                .and_then(|()| reason.as_deref().map_or(Ok(()), fits))
                .map(|()| PaymentAccepted { reason }.into()),
            TransactionCommand::RejectPayment(RejectPayment { reason }) => transaction
                .requested()
                .and_then(|()| fits(&reason))
                .map(|()| PaymentRejected { reason }.into()),
            TransactionCommand::ResumeTransfer(resume) => transaction.resume(resume),
            TransactionCommand::SettleTransfer(settle) => transaction.settle(settle),
            TransactionCommand::MovementMade(movement) => transaction.moved(movement),
            TransactionCommand::MovementRefused(movement) => transaction.not_moved(movement),
        }
        .map(|event| vec![event])
    }

    fn apply(transaction: &mut Self, event: &TransactionEvent) {
        use TransactionEvent as E;
        use TransactionStatus as S;
        // Whatever happens next, the step is no longer given up, or another one is pending.
        transaction.stalled = None;
        transaction.status = match event {
            E::TransferStalled(stalled) => {
                transaction.stalled = Some(stalled.step.clone());
                transaction.status
            }
            E::TransferResumed(_) => transaction.status,
            E::TransferSettlementOrdered(ordered) => {
                transaction.settlement = Some(Settlement {
                    account_id: ordered.account_id.clone(),
                    attempt: ordered.attempt,
                });
                S::Settling
            }
            E::TransferSettlementRefused(_) => S::Suspended,
            E::TransferSettled(_) => S::Settled,
            E::TransferRequested(TransferRequested(terms)) => {
                transaction.begin(TransactionKind::Transfer, terms);
                S::Debiting
            }
            E::PaymentRequested(PaymentRequested(terms)) => {
                transaction.begin(TransactionKind::Payment, terms);
                S::Requested
            }
            E::PaymentAccepted(_) => S::Debiting,
            E::PaymentRejected(_) => S::Rejected,
            E::TransferDebited(debited) => {
                transaction.currency = debited.currency.or(transaction.currency);
                S::Crediting
            }
            E::TransferCreditRefused(TransferCreditRefused(refused)) => {
                transaction.failure = Some(refused.failure.clone());
                S::Compensating
            }
            E::TransferCompensationRefused(_) => S::Suspended,
            E::TransferCompleted(_) => S::Completed,
            E::TransferFailed(failed) => {
                transaction.failure = Some(failed.failure.clone());
                S::Failed
            }
            E::TopupCompleted(TopupCompleted(movement)) => {
                transaction.movement(ChangeType::Credit, movement);
                S::Completed
            }
            E::WithdrawalCompleted(WithdrawalCompleted(movement)) => {
                transaction.movement(ChangeType::Debit, movement);
                S::Completed
            }
            E::TopupFailed(TopupFailed(refused)) => {
                transaction.refused_movement(ChangeType::Credit, refused);
                S::Failed
            }
            E::WithdrawalFailed(WithdrawalFailed(refused)) => {
                transaction.refused_movement(ChangeType::Debit, refused);
                S::Failed
            }
        };
    }

    /// The steps must follow each other as the header draws them.
    fn follows(transaction: &Self, event: &TransactionEvent) -> Result<(), TransactionRejection> {
        use TransactionEvent as E;
        use TransactionStatus as S;
        let status = transaction.status;
        let follows = match event {
            E::TransferRequested(_) | E::PaymentRequested(_) => status == S::New,
            E::PaymentAccepted(_) | E::PaymentRejected(_) => status == S::Requested,
            E::TransferDebited(_) => status == S::Debiting,
            E::TransferCreditRefused(_) | E::TransferCompleted(_) => status == S::Crediting,
            E::TransferFailed(_) => matches!(status, S::Debiting | S::Compensating),
            E::TransferCompensationRefused(_) => status == S::Compensating,
            E::TransferStalled(stalled) => transaction.waits_for(&stalled.step),
            E::TransferResumed(resumed) => transaction.stalled.as_ref() == Some(&resumed.step),
            E::TransferSettlementOrdered(ordered) => {
                status == S::Suspended && ordered.attempt == transaction.next_attempt()
            }
            E::TransferSettlementRefused(_) | E::TransferSettled(_) => status == S::Settling,
            E::TopupCompleted(_) | E::TopupFailed(_) => transaction.may_be(TransactionKind::Topup),
            E::WithdrawalCompleted(_) | E::WithdrawalFailed(_) => {
                transaction.may_be(TransactionKind::Withdrawal)
            }
        };
        if follows {
            Ok(())
        } else {
            Err(TransactionRejection::WrongStatus { status })
        }
    }
}

impl Transaction {
    /// Checks what can be checked without asking the accounts.
    fn terms(&self, order: TransferOrder) -> Result<TransferTerms, TransactionRejection> {
        if self.kind.is_some() {
            return Err(TransactionRejection::Exists);
        }
        for (field, account) in [
            ("fromAccount", &order.from_account),
            ("toAccount", &order.to_account),
        ] {
            if account.is_empty() || account.contains('\0') {
                return Err(TransactionRejection::NoAccount { field });
            }
        }
        fits(&order.reason)?;
        if order.from_account == order.to_account {
            return Err(TransactionRejection::SameAccount);
        }
        let amount = order.amount.0.map_err(TransactionRejection::NoAmount)?;
        if !amount.is_positive() {
            return Err(TransactionRejection::NotPositive { amount });
        }
        let currency = order.currency.map(|code| code.parse());
        let currency: Option<Currency> = currency
            .transpose()
            .map_err(TransactionRejection::NoCurrency)?;
        if let Some(currency) = currency.filter(|currency| !amount.fits(*currency)) {
            return Err(TransactionRejection::TooFine { amount, currency });
        }
        Ok(TransferTerms {
            from_account: order.from_account,
            to_account: order.to_account,
            amount: currency.map_or(amount, |currency| amount.at_least_in_scale_of(currency)),
            currency,
            reason: order.reason,
        })
    }

    fn requested(&self) -> Result<(), TransactionRejection> {
        match self.status {
            TransactionStatus::New => Err(TransactionRejection::NotFound),
            TransactionStatus::Requested => Ok(()),
            status => Err(TransactionRejection::WrongStatus { status }),
        }
    }

    /// Has a step asked for again that was given up.
    fn resume(&self, command: ResumeTransfer) -> Result<TransactionEvent, TransactionRejection> {
        fits(&command.reason)?;
        match (&self.stalled, self.status) {
            (Some(step), _) => Ok(TransferResumed {
                step: step.clone(),
                reason: command.reason,
            }
            .into()),
            (None, TransactionStatus::New) => Err(TransactionRejection::NotFound),
            (None, status) => Err(TransactionRejection::NotStalled { status }),
        }
    }

    /// Says who gets the money of a suspended transfer.
    fn settle(&self, command: SettleTransfer) -> Result<TransactionEvent, TransactionRejection> {
        match self.status {
            TransactionStatus::Suspended => {}
            TransactionStatus::New => return Err(TransactionRejection::NotFound),
            status => return Err(TransactionRejection::WrongStatus { status }),
        }
        fits(&command.reason)?;
        let account_id = command.account.or_else(|| self.from_account.clone());
        let account_id = account_id
            .filter(|id| is_usable(id))
            .ok_or(TransactionRejection::NoAccount { field: "account" })?;
        Ok(TransferSettlementOrdered {
            account_id,
            attempt: self.next_attempt(),
            reason: command.reason,
        }
        .into())
    }

    fn next_attempt(&self) -> u32 {
        let last = self.settlement.as_ref();
        last.map_or(0, |settlement| settlement.attempt)
            .saturating_add(1)
    }

    fn waits_for(&self, step: &str) -> bool {
        Self::pending(self).is_some_and(|pending| pending.name() == step)
    }

    /// Returns whether an account's own movement of this kind may be recorded: once, or again after it
    /// had failed.
    fn may_be(&self, kind: TransactionKind) -> bool {
        self.kind.is_none() || (self.kind == Some(kind) && self.status == TransactionStatus::Failed)
    }

    fn moved(&self, made: MovementMade) -> Result<TransactionEvent, TransactionRejection> {
        let movement = Movement {
            account_id: made.account_id,
            amount: made.amount,
            currency: made.currency,
            reason: made.reason,
        };
        match made.change_type {
            ChangeType::Credit if self.may_be(TransactionKind::Topup) => {
                Ok(TopupCompleted(movement).into())
            }
            ChangeType::Debit if self.may_be(TransactionKind::Withdrawal) => {
                Ok(WithdrawalCompleted(movement).into())
            }
            ChangeType::Credit | ChangeType::Debit => Err(TransactionRejection::Exists),
        }
    }

    fn not_moved(
        &self,
        refused: MovementRefused,
    ) -> Result<TransactionEvent, TransactionRejection> {
        let movement = RefusedMovement {
            account_id: refused.account_id,
            amount: refused.amount,
            currency: refused.currency,
            reason: refused.reason,
            failure: refused.failure,
        };
        match refused.change_type {
            ChangeType::Credit if self.may_be(TransactionKind::Topup) => {
                Ok(TopupFailed(movement).into())
            }
            ChangeType::Debit if self.may_be(TransactionKind::Withdrawal) => {
                Ok(WithdrawalFailed(movement).into())
            }
            ChangeType::Credit | ChangeType::Debit => Err(TransactionRejection::Exists),
        }
    }

    fn begin(&mut self, kind: TransactionKind, terms: &TransferTerms) {
        self.kind = Some(kind);
        self.from_account = Some(terms.from_account.clone());
        self.to_account = Some(terms.to_account.clone());
        self.amount = Some(terms.amount);
        self.currency = terms.currency;
        self.reason = Some(terms.reason.clone());
    }

    fn movement(&mut self, change_type: ChangeType, movement: &Movement) {
        self.ends(change_type, &movement.account_id);
        self.amount = Some(movement.amount);
        self.currency = Some(movement.currency);
        self.reason.clone_from(&movement.reason);
        self.failure = None;
    }

    fn refused_movement(&mut self, change_type: ChangeType, refused: &RefusedMovement) {
        self.ends(change_type, &refused.account_id);
        self.amount = refused.amount;
        self.reason.clone_from(&refused.reason);
        self.failure = Some(refused.failure.clone());
    }

    fn ends(&mut self, change_type: ChangeType, account_id: &str) {
        let account = Some(account_id.to_owned());
        (self.kind, self.from_account, self.to_account) = match change_type {
            ChangeType::Credit => (Some(TransactionKind::Topup), None, account),
            ChangeType::Debit => (Some(TransactionKind::Withdrawal), account, None),
        };
    }
}

#[cfg(test)]
#[path = "../transaction_tests.rs"]
mod tests;
