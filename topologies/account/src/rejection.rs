//! Why an account refuses a command, or an event of another system; and the reason codes of accounts
//! and transactions.

use millstream::event_sourcing::{ReasonCode, Rejection, reasons};

use crate::events::Status;
use crate::money::{Amount, Currency, MoneyError};

/// The topology's reason codes, beside [`reasons`] of the event-sourcing layer.
pub mod codes {
    use millstream::event_sourcing::ReasonCode;

    /// The balance is below the amount.
    pub const INSUFFICIENT_FUNDS: ReasonCode = ReasonCode::new("INSUFFICIENT_FUNDS");
    /// No movement on a frozen account.
    pub const ACCOUNT_FROZEN: ReasonCode = ReasonCode::new("ACCOUNT_FROZEN");
    /// No movement and no change of status on a closed account.
    pub const ACCOUNT_CLOSED: ReasonCode = ReasonCode::new("ACCOUNT_CLOSED");
    /// An account is removed only once it is closed.
    pub const ACCOUNT_NOT_CLOSED: ReasonCode = ReasonCode::new("ACCOUNT_NOT_CLOSED");
    /// An account is removed only when nothing is in it.
    pub const ACCOUNT_NOT_EMPTY: ReasonCode = ReasonCode::new("ACCOUNT_NOT_EMPTY");
    /// The currency is not the account's.
    pub const CURRENCY_MISMATCH: ReasonCode = ReasonCode::new("CURRENCY_MISMATCH");
    /// Not a positive decimal string within the currency's scale.
    pub const INVALID_AMOUNT: ReasonCode = ReasonCode::new("INVALID_AMOUNT");
    /// Not a currency of ISO 4217.
    pub const INVALID_CURRENCY: ReasonCode = ReasonCode::new("INVALID_CURRENCY");
    /// The new balance has more digits than can be kept exactly.
    pub const AMOUNT_OVERFLOW: ReasonCode = ReasonCode::new("AMOUNT_OVERFLOW");
    /// The account is open already.
    pub const ACCOUNT_EXISTS: ReasonCode = ReasonCode::new("ACCOUNT_EXISTS");
    /// The account was never opened.
    pub const ACCOUNT_NOT_FOUND: ReasonCode = ReasonCode::new("ACCOUNT_NOT_FOUND");
    /// The account has this status already.
    pub const STATUS_UNCHANGED: ReasonCode = ReasonCode::new("STATUS_UNCHANGED");
    /// A transaction: source and target are one account.
    pub const SAME_ACCOUNT: ReasonCode = ReasonCode::new("SAME_ACCOUNT");
    /// A transaction of this id exists already.
    pub const TRANSACTION_EXISTS: ReasonCode = ReasonCode::new("TRANSACTION_EXISTS");
    /// There is no transaction of this id.
    pub const TRANSACTION_NOT_FOUND: ReasonCode = ReasonCode::new("TRANSACTION_NOT_FOUND");
    /// The transaction stands where this cannot follow.
    pub const TRANSACTION_STATUS: ReasonCode = ReasonCode::new("TRANSACTION_STATUS");
    /// Dead letter: amounts that contradict each other within one event.
    pub const WRONG_AMOUNT: ReasonCode = ReasonCode::new("WRONG_AMOUNT");
    /// Dead letter: `previousBalance` is not the balance.
    pub const PREVIOUS_BALANCE_MISMATCH: ReasonCode = ReasonCode::new("PREVIOUS_BALANCE_MISMATCH");
    /// Dead letter: `previousStatus` is not the status.
    pub const PREVIOUS_STATUS_MISMATCH: ReasonCode = ReasonCode::new("PREVIOUS_STATUS_MISMATCH");
}

/// A rule of the account that speaks against a command or an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountRejection {
    /// See [`codes::INSUFFICIENT_FUNDS`].
    #[error("the balance is {balance}, less than {amount}")]
    InsufficientFunds {
        /// What there is.
        balance: Amount,
        /// What was asked for.
        amount: Amount,
    },
    /// See [`codes::ACCOUNT_FROZEN`].
    #[error("the account is frozen")]
    Frozen,
    /// See [`codes::ACCOUNT_CLOSED`].
    #[error("the account is closed")]
    Closed,
    /// See [`codes::ACCOUNT_NOT_CLOSED`].
    #[error("the account is not closed")]
    NotClosed,
    /// See [`codes::ACCOUNT_NOT_EMPTY`].
    #[error("the balance is {balance}: what is in the account would be nowhere")]
    NotEmpty {
        /// What there is.
        balance: Amount,
    },
    /// See [`codes::CURRENCY_MISMATCH`].
    #[error("the account is in {account}, not in {given}")]
    CurrencyMismatch {
        /// The account's.
        account: Currency,
        /// The other one.
        given: String,
    },
    /// See [`codes::INVALID_AMOUNT`]: no amount at all.
    #[error(transparent)]
    NoAmount(MoneyError),
    /// See [`codes::INVALID_AMOUNT`]: zero or below.
    #[error("the amount {amount} is not positive")]
    NotPositive {
        /// What was given.
        amount: Amount,
    },
    /// See [`codes::INVALID_AMOUNT`]: finer than the currency.
    #[error("the amount {amount} is finer than the {} decimals of {currency}", currency.scale())]
    TooFine {
        /// What was given.
        amount: Amount,
        /// The account's currency.
        currency: Currency,
    },
    /// See [`codes::INVALID_CURRENCY`].
    #[error(transparent)]
    NoCurrency(MoneyError),
    /// See [`codes::AMOUNT_OVERFLOW`].
    #[error("the new balance has more digits than can be kept exactly")]
    Overflow,
    /// See [`codes::ACCOUNT_EXISTS`].
    #[error("the account exists already")]
    Exists,
    /// See [`codes::ACCOUNT_NOT_FOUND`].
    #[error("the account does not exist")]
    NotFound,
    /// See [`codes::STATUS_UNCHANGED`].
    #[error("the account has this status already")]
    StatusUnchanged,
    /// See [`reasons::INVALID_COMMAND`].
    #[error("`{field}` is empty")]
    Empty {
        /// The field's name on the wire.
        field: &'static str,
    },
    /// See [`reasons::INVALID_COMMAND`].
    #[error("`transactionId` is no id: it is empty, or contains U+0000")]
    NoTransactionId,
    /// See [`reasons::WRONG_AGGREGATE`].
    #[error("`{command}` is a command of the aggregate Transaction, not of an account")]
    WrongAggregate {
        /// The command.
        command: &'static str,
    },
    /// See [`codes::WRONG_AMOUNT`].
    #[error("{problem}")]
    WrongAmount {
        /// Which amounts contradict each other.
        problem: &'static str,
    },
    /// See [`codes::PREVIOUS_BALANCE_MISMATCH`].
    #[error("`previousBalance` is {given}, the balance is {balance}")]
    PreviousBalance {
        /// The account's.
        balance: Amount,
        /// The event's.
        given: Amount,
    },
    /// See [`codes::PREVIOUS_STATUS_MISMATCH`].
    #[error("`previousStatus` is {given:?}, the status is {status:?}")]
    PreviousStatus {
        /// The account's.
        status: Status,
        /// The event's.
        given: Status,
    },
}

impl Rejection for AccountRejection {
    fn code(&self) -> ReasonCode {
        match self {
            Self::InsufficientFunds { .. } => codes::INSUFFICIENT_FUNDS,
            Self::Frozen => codes::ACCOUNT_FROZEN,
            Self::Closed => codes::ACCOUNT_CLOSED,
            Self::NotClosed => codes::ACCOUNT_NOT_CLOSED,
            Self::NotEmpty { .. } => codes::ACCOUNT_NOT_EMPTY,
            Self::CurrencyMismatch { .. } => codes::CURRENCY_MISMATCH,
            Self::NoAmount(_) | Self::NotPositive { .. } | Self::TooFine { .. } => {
                codes::INVALID_AMOUNT
            }
            Self::NoCurrency(_) => codes::INVALID_CURRENCY,
            Self::Overflow => codes::AMOUNT_OVERFLOW,
            Self::Exists => codes::ACCOUNT_EXISTS,
            Self::NotFound => codes::ACCOUNT_NOT_FOUND,
            Self::StatusUnchanged => codes::STATUS_UNCHANGED,
            Self::Empty { .. } | Self::NoTransactionId => reasons::INVALID_COMMAND,
            Self::WrongAggregate { .. } => reasons::WRONG_AGGREGATE,
            Self::WrongAmount { .. } => codes::WRONG_AMOUNT,
            Self::PreviousBalance { .. } => codes::PREVIOUS_BALANCE_MISMATCH,
            Self::PreviousStatus { .. } => codes::PREVIOUS_STATUS_MISMATCH,
        }
    }
}
