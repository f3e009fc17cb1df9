//! The account: its state, its rules, and what follows from its events.
//!
//! Before its first event an account has version 0, balance 0, status `ACTIVE` and the currency of
//! its first event. An account that is closed and empty can be removed: `AccountRemoved` is its tombstone,
//! and its id is not used again. Events of another system are facts: what they must do is follow from each other
//! (balances, statuses, currency); the rules for commands, such as no overdraft, are not theirs.

use millstream::event_sourcing::Aggregate;
use serde::{Deserialize, Serialize};

use crate::commands::{
    AccountCommand, ChangeStatus, CreditTransfer, DebitTransfer, Movement, OpenAccount,
    RefundTransfer, RemoveAccount, TopUp, Withdraw,
};
use crate::events::{
    AccountCreated, AccountEvent, AccountRemoved, AccountStatusChanged, BalanceChanged, ChangeType,
    Status,
};
use crate::money::{Amount, Currency};
use crate::rejection::AccountRejection;
use crate::transaction::is_usable;

/// An account's state, and the aggregate itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Who owns it; `None` until an `AccountCreated`, which an account of another system may lack.
    pub owner: Option<String>,
    /// Its currency; `None` before the first event that has one.
    pub currency: Option<Currency>,
    /// What is in it.
    pub balance: Amount,
    /// Whether it takes part in movements.
    pub status: Status,
}

impl Aggregate for Account {
    const TYPE: &'static str = "Account";
    type State = Self;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(
        account: &Self,
        command: AccountCommand,
    ) -> Result<Vec<AccountEvent>, AccountRejection> {
        match command {
            AccountCommand::OpenAccount(command) => account.open(command),
            AccountCommand::TopUp(TopUp(movement)) => {
                account.change(account.movable()?, movement, ChangeType::Credit)
            }
            AccountCommand::Withdraw(Withdraw(movement)) => {
                account.change(account.movable()?, movement, ChangeType::Debit)
            }
            AccountCommand::DebitTransfer(DebitTransfer(leg)) => {
                account.change(account.movable()?, leg.into(), ChangeType::Debit)
            }
            AccountCommand::CreditTransfer(CreditTransfer(leg)) => {
                account.change(account.movable()?, leg.into(), ChangeType::Credit)
            }
            // The account's own money comes back: no status stands against that.
            AccountCommand::RefundTransfer(RefundTransfer(leg)) => {
                account.change(account.opened()?, leg.into(), ChangeType::Credit)
            }
            AccountCommand::ChangeStatus(command) => account.change_status(command),
            AccountCommand::RemoveAccount(command) => account.remove(command),
            AccountCommand::Transfer(_) => Err(AccountRejection::WrongAggregate {
                command: "Transfer",
            }),
            AccountCommand::RequestPayment(_) => Err(AccountRejection::WrongAggregate {
                command: "RequestPayment",
            }),
        }
        .map(|event| vec![event])
    }

    fn apply(account: &mut Self, event: &AccountEvent) {
        match event {
            AccountEvent::AccountCreated(created) => {
                account.owner = Some(created.owner.clone());
                account.currency = Some(created.currency);
                account.status = created.status;
                account.balance = account.balance.at_least_in_scale_of(created.currency);
            }
            AccountEvent::BalanceChanged(changed) => {
                account.currency = Some(changed.currency);
                account.balance = changed.new_balance.at_least_in_scale_of(changed.currency);
            }
            AccountEvent::AccountStatusChanged(changed) => account.status = changed.new_status,
            AccountEvent::AccountRemoved(_) => {}
        }
    }

    fn is_tombstone(event: &AccountEvent) -> bool {
        matches!(event, AccountEvent::AccountRemoved(_))
    }

    fn follows(account: &Self, event: &AccountEvent) -> Result<(), AccountRejection> {
        match event {
            AccountEvent::AccountCreated(_) if *account == Self::default() => Ok(()),
            AccountEvent::AccountCreated(_) => Err(AccountRejection::Exists),
            AccountEvent::BalanceChanged(changed) => account.balance_follows(changed),
            AccountEvent::AccountStatusChanged(changed)
                if changed.previous_status == account.status =>
            {
                Ok(())
            }
            AccountEvent::AccountStatusChanged(changed) => Err(AccountRejection::PreviousStatus {
                status: account.status,
                given: changed.previous_status,
            }),
            AccountEvent::AccountRemoved(_) => Ok(()),
        }
    }

    fn adopt(account: &mut Self, first: &AccountEvent) {
        match first {
            AccountEvent::AccountCreated(_) | AccountEvent::AccountRemoved(_) => {}
            AccountEvent::BalanceChanged(changed) => account.balance = changed.previous_balance,
            AccountEvent::AccountStatusChanged(changed) => account.status = changed.previous_status,
        }
    }
}

impl Account {
    fn open(&self, command: OpenAccount) -> Result<AccountEvent, AccountRejection> {
        if self.owner.is_some() {
            return Err(AccountRejection::Exists);
        }
        if command.owner.is_empty() {
            return Err(AccountRejection::Empty { field: "owner" });
        }
        let currency = command
            .currency
            .parse()
            .map_err(AccountRejection::NoCurrency)?;
        Ok(AccountCreated {
            owner: command.owner,
            currency,
            status: Status::Active,
        }
        .into())
    }

    fn change(
        &self,
        currency: Currency,
        movement: Movement,
        change_type: ChangeType,
    ) -> Result<AccountEvent, AccountRejection> {
        let transaction = movement.transaction_id.as_deref();
        if transaction.is_some_and(|id| !is_usable(id)) {
            return Err(AccountRejection::NoTransactionId);
        }
        if let Some(given) = movement.currency.filter(|given| given != currency.code()) {
            return Err(AccountRejection::CurrencyMismatch {
                account: currency,
                given,
            });
        }
        let amount = movement.amount.0.map_err(AccountRejection::NoAmount)?;
        if !amount.is_positive() {
            return Err(AccountRejection::NotPositive { amount });
        }
        if !amount.fits(currency) {
            return Err(AccountRejection::TooFine { amount, currency });
        }
        let signed_amount = match change_type {
            ChangeType::Credit => amount,
            ChangeType::Debit => amount.negated(),
        };
        let new_balance = self
            .balance
            .plus(signed_amount)
            .map_err(|_| AccountRejection::Overflow)?;
        if change_type == ChangeType::Debit && new_balance.is_negative() {
            return Err(AccountRejection::InsufficientFunds {
                balance: self.balance,
                amount,
            });
        }
        Ok(BalanceChanged {
            previous_balance: self.balance,
            new_balance: new_balance.in_scale_of(currency),
            change_amount: amount,
            change_type,
            signed_amount,
            reason: Some(movement.reason),
            transaction_id: movement.transaction_id,
            currency,
        }
        .into())
    }

    fn change_status(&self, command: ChangeStatus) -> Result<AccountEvent, AccountRejection> {
        if self.owner.is_none() {
            return Err(AccountRejection::NotFound);
        }
        if command.new_status == self.status {
            return Err(AccountRejection::StatusUnchanged);
        }
        if self.status == Status::Closed {
            return Err(AccountRejection::Closed);
        }
        Ok(AccountStatusChanged {
            previous_status: self.status,
            new_status: command.new_status,
            reason: Some(command.reason),
        }
        .into())
    }

    /// A closed account stays closed, and nothing but the refund of a transfer comes in: empty, it is
    /// empty for good, but for one whose transfer is still under way. That refund has nowhere to go then,
    /// and the transfer is suspended (`docs/processes.md`).
    fn remove(&self, command: RemoveAccount) -> Result<AccountEvent, AccountRejection> {
        self.opened()?;
        if self.status != Status::Closed {
            return Err(AccountRejection::NotClosed);
        }
        if self.balance != Amount::ZERO {
            return Err(AccountRejection::NotEmpty {
                balance: self.balance,
            });
        }
        Ok(AccountRemoved {
            reason: Some(command.reason),
        }
        .into())
    }

    /// Returns the currency of an account that was opened.
    fn opened(&self) -> Result<Currency, AccountRejection> {
        match (&self.owner, self.currency) {
            (Some(_), Some(currency)) => Ok(currency),
            _ => Err(AccountRejection::NotFound),
        }
    }

    /// Returns the currency of an account that takes part in movements.
    fn movable(&self) -> Result<Currency, AccountRejection> {
        let currency = self.opened()?;
        match self.status {
            Status::Active => Ok(currency),
            Status::Frozen => Err(AccountRejection::Frozen),
            Status::Closed => Err(AccountRejection::Closed),
        }
    }

    fn balance_follows(&self, changed: &BalanceChanged) -> Result<(), AccountRejection> {
        let wrong = |problem| Err(AccountRejection::WrongAmount { problem });
        if !changed.change_amount.is_positive() {
            return wrong("`changeAmount` is not positive");
        }
        let signed = match changed.change_type {
            ChangeType::Credit => changed.change_amount,
            ChangeType::Debit => changed.change_amount.negated(),
        };
        if changed.signed_amount != signed {
            return wrong("`signedAmount` is not `changeAmount` with the sign of `changeType`");
        }
        if changed.previous_balance.plus(signed) != Ok(changed.new_balance) {
            return wrong("`newBalance` is not `previousBalance` plus `signedAmount`");
        }
        if let Some(currency) = self
            .currency
            .filter(|currency| *currency != changed.currency)
        {
            let given = changed.currency.to_string();
            return Err(AccountRejection::CurrencyMismatch {
                account: currency,
                given,
            });
        }
        if changed.previous_balance != self.balance {
            return Err(AccountRejection::PreviousBalance {
                balance: self.balance,
                given: changed.previous_balance,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
