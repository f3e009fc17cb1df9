//! The steps of a transfer, and how a transaction learns of an account's own movements.

use std::borrow::Cow;

use millstream::event_sourcing::{
    Aggregate, Command, CommandOutcome, CompletedCommand, JsonError, Occasion, Origin, Outcome,
    Process, ProcessStep, RecordedEvent, ReplyReason, StepAnswer, StepCommand, Trigger,
};
use millstream::prelude::BoxError;

use super::{
    CreditRefused, Failure, MovementMade, MovementRefused, Transaction, TransactionEvent,
    TransactionStatus, TransferCompensationRefused, TransferCompleted, TransferCreditRefused,
    TransferDebited, TransferFailed, TransferSettled, TransferSettlementRefused, TransferStalled,
};
use crate::account::Account;
use crate::commands::{AccountCommand, TopUp, TransferLeg, Withdraw};
use crate::events::{AccountEvent, ChangeType};
use crate::money::{Amount, Currency};
use crate::rejection::codes;

/// A step of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransferStep {
    /// The source gives the money.
    Debit,
    /// The target takes it.
    Credit,
    /// The source takes it back.
    Compensate,
    /// The account that an operator has named takes it, at this attempt.
    Settle(u32),
}

impl ProcessStep for TransferStep {
    fn name(self) -> Cow<'static, str> {
        match self {
            Self::Debit => "debit".into(),
            Self::Credit => "credit".into(),
            Self::Compensate => "compensate".into(),
            Self::Settle(attempt) => format!("settle-{attempt}").into(),
        }
    }
}

impl Process for Transaction {
    type Step = TransferStep;

    fn pending(transaction: &Self) -> Option<TransferStep> {
        match transaction.status {
            TransactionStatus::Debiting => Some(TransferStep::Debit),
            TransactionStatus::Crediting => Some(TransferStep::Credit),
            TransactionStatus::Compensating => Some(TransferStep::Compensate),
            TransactionStatus::Settling => {
                let settlement = transaction.settlement.as_ref();
                settlement.map(|settlement| TransferStep::Settle(settlement.attempt))
            }
            TransactionStatus::New
            | TransactionStatus::Requested
            | TransactionStatus::Suspended
            | TransactionStatus::Settled
            | TransactionStatus::Completed
            | TransactionStatus::Failed
            | TransactionStatus::Rejected => None,
        }
    }

    fn command(
        transaction_id: &str,
        transaction: &Self,
        step: TransferStep,
    ) -> Result<StepCommand, JsonError> {
        let leg = TransferLeg {
            amount: transaction.sum(),
            currency: transaction.currency,
            reason: transaction.reason.clone().unwrap_or_default(),
            transaction_id: transaction_id.to_owned(),
        };
        let (account, command_type) = match step {
            TransferStep::Debit => (transaction.source(), "DebitTransfer"),
            TransferStep::Credit => (transaction.target(), "CreditTransfer"),
            TransferStep::Compensate => (transaction.source(), "RefundTransfer"),
            TransferStep::Settle(_) if transaction.settles_with() == transaction.source() => {
                (transaction.source(), "RefundTransfer")
            }
            TransferStep::Settle(_) => (transaction.settles_with(), "CreditTransfer"),
        };
        StepCommand::new(Account::TYPE, account, command_type, &leg)
    }

    fn completed(
        transaction: &Self,
        step: TransferStep,
        answer: &StepAnswer,
    ) -> Vec<TransactionEvent> {
        let event = match step {
            TransferStep::Debit => return transaction.debited(debited_in(answer)),
            TransferStep::Credit => TransferCompleted {
                from_account: transaction.source(),
                to_account: transaction.target(),
                amount: transaction.sum(),
                currency: transaction.currency,
            }
            .into(),
            TransferStep::Compensate => {
                let failure = transaction.failure.clone().unwrap_or_default();
                transaction.failed(true, failure).into()
            }
            TransferStep::Settle(_) => TransferSettled {
                account_id: transaction.settles_with(),
                amount: transaction.sum(),
                currency: transaction.currency,
            }
            .into(),
        };
        vec![event]
    }

    fn refused(
        transaction: &Self,
        step: TransferStep,
        reason: &ReplyReason,
    ) -> Vec<TransactionEvent> {
        let failure = Failure {
            reason_code: reason.code.to_string(),
            message: reason.message.clone(),
        };
        let refused = |account_id| CreditRefused {
            account_id,
            failure: failure.clone(),
        };
        let event = match step {
            TransferStep::Debit => transaction.failed(false, failure).into(),
            TransferStep::Credit => TransferCreditRefused(refused(transaction.target())).into(),
            TransferStep::Compensate => {
                TransferCompensationRefused(refused(transaction.source())).into()
            }
            TransferStep::Settle(_) => {
                TransferSettlementRefused(refused(transaction.settles_with())).into()
            }
        };
        vec![event]
    }

    fn is_stuck(transaction: &Self) -> bool {
        transaction.status == TransactionStatus::Suspended
    }

    fn given_up(_: &Self, step: TransferStep, attempts: u32) -> Vec<TransactionEvent> {
        let step = step.name().into_owned();
        vec![TransferStalled { step, attempts }.into()]
    }

    fn resumes(event: &TransactionEvent) -> bool {
        matches!(event, TransactionEvent::TransferResumed(_))
    }
}

/// Returns the currency in which the source was debited.
fn debited_in(answer: &StepAnswer) -> Option<Currency> {
    answer.events.iter().find_map(|event| match event.read() {
        Ok(AccountEvent::BalanceChanged(changed)) => Some(changed.currency),
        Ok(_) | Err(_) => None,
    })
}

impl Transaction {
    fn source(&self) -> String {
        self.from_account.clone().unwrap_or_default()
    }

    fn target(&self) -> String {
        self.to_account.clone().unwrap_or_default()
    }

    fn settles_with(&self) -> String {
        let settlement = self.settlement.as_ref();
        settlement.map_or_else(String::new, |settlement| settlement.account_id.clone())
    }

    fn sum(&self) -> Amount {
        let amount = self.amount.unwrap_or_default();
        self.currency
            .map_or(amount, |currency| amount.at_least_in_scale_of(currency))
    }

    /// The source has given the money, in the currency that its event says.
    fn debited(&self, currency: Option<Currency>) -> Vec<TransactionEvent> {
        let currency = currency.or(self.currency);
        let amount = self.sum();
        let debited = TransferDebited {
            account_id: self.source(),
            amount: currency.map_or(amount, |currency| amount.at_least_in_scale_of(currency)),
            currency,
        };
        if currency.is_some() {
            return vec![debited.into()];
        }
        // Without a currency the target would take the number as its own: back it goes.
        let refused = CreditRefused {
            account_id: self.target(),
            failure: Failure {
                reason_code: codes::CURRENCY_MISMATCH.to_string(),
                message: "the currency of the debit is not known".to_owned(),
            },
        };
        vec![debited.into(), TransferCreditRefused(refused).into()]
    }

    fn failed(&self, compensated: bool, failure: Failure) -> TransferFailed {
        TransferFailed {
            from_account: self.source(),
            to_account: self.target(),
            amount: self.sum(),
            currency: self.currency,
            compensated,
            failure,
        }
    }
}

/// Returns what an account's event tells a transaction: that a top-up or withdrawal was made. Steps of
/// a transfer are answered instead, and accounts of other systems have transactions elsewhere.
///
/// # Errors
/// None but of serialisation, which does not fail here.
pub(crate) fn started_by(
    account_id: &str,
    event: &RecordedEvent<AccountEvent, Account>,
) -> Result<Option<Trigger>, BoxError> {
    let AccountEvent::BalanceChanged(changed) = &event.event else {
        return Ok(None);
    };
    let ours = event.origin == Origin::Native
        && event.process.is_none()
        && matches!(event.occasion, Occasion::Decided { .. });
    let Some(transaction_id) = changed.transaction_id.as_deref().filter(|_| ours) else {
        return Ok(None);
    };
    let made = MovementMade {
        account_id: account_id.to_owned(),
        change_type: changed.change_type,
        amount: changed.change_amount.at_least_in_scale_of(changed.currency),
        currency: changed.currency,
        reason: changed.reason.clone(),
    };
    Ok(Some(Trigger::by_event(
        event,
        transaction_id,
        "MovementMade",
        &made,
    )?))
}

/// Returns what a refused command tells a transaction: that a top-up or withdrawal was not made. A
/// conflict of versions is no refusal: its sender looks again and repeats.
///
/// # Errors
/// As [`started_by`].
pub(crate) fn refused_movement(
    account_id: &str,
    outcome: &CommandOutcome,
) -> Result<Option<Trigger>, BoxError> {
    let Some(reason) = &outcome.reply.reason else {
        return Ok(None);
    };
    let refused = outcome.reply.outcome == Outcome::Rejected
        && outcome.process.is_none()
        && !outcome.repeated;
    if !refused {
        return Ok(None);
    }
    let (movement, change_type) = match AccountCommand::read(&outcome.command()?) {
        Ok(AccountCommand::TopUp(TopUp(movement))) => (movement, ChangeType::Credit),
        Ok(AccountCommand::Withdraw(Withdraw(movement))) => (movement, ChangeType::Debit),
        Ok(_) | Err(_) => return Ok(None),
    };
    let Some(transaction_id) = movement.transaction_id.filter(|id| is_usable(id)) else {
        return Ok(None);
    };
    let refused = MovementRefused {
        account_id: account_id.to_owned(),
        change_type,
        amount: movement.amount.0.ok(),
        currency: movement.currency,
        reason: Some(movement.reason),
        failure: Failure {
            reason_code: reason.code.to_string(),
            message: reason.message.clone(),
        },
    };
    Ok(Some(Trigger::by_outcome(
        outcome,
        transaction_id,
        "MovementRefused",
        &refused,
    )?))
}

/// Returns whether a text can be an aggregate's id.
pub(crate) fn is_usable(id: &str) -> bool {
    !id.is_empty() && !id.contains('\0')
}

/// Returns the transaction that a command starts or sets in motion, for the answer over HTTP.
pub(crate) fn process_of(command: &CompletedCommand) -> Option<String> {
    matches!(
        command.command_type.as_str(),
        "Transfer" | "RequestPayment" | "AcceptPayment" | "ResumeTransfer" | "SettleTransfer"
    )
    .then(|| command.aggregate_id.clone())
}
