//! Why a transaction refuses a command, or an event of another system.

use millstream::event_sourcing::{ReasonCode, Rejection, reasons};

use super::{REASON_BYTES_MAX, TransactionStatus};
use crate::money::{Amount, Currency, MoneyError};
use crate::rejection::codes;

/// A rule of the transaction that speaks against a command or an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionRejection {
    /// See [`codes::TRANSACTION_EXISTS`].
    #[error("the transaction exists already")]
    Exists,
    /// See [`codes::TRANSACTION_NOT_FOUND`].
    #[error("the transaction does not exist")]
    NotFound,
    /// See [`codes::TRANSACTION_STATUS`].
    #[error("the transaction is {status:?}")]
    WrongStatus {
        /// Where it stands.
        status: TransactionStatus,
    },
    /// See [`codes::TRANSACTION_STATUS`]: no step of it was given up.
    #[error("the transaction is {status:?}, and no step of it was given up")]
    NotStalled {
        /// Where it stands.
        status: TransactionStatus,
    },
    /// See [`codes::SAME_ACCOUNT`].
    #[error("`fromAccount` and `toAccount` are the same")]
    SameAccount,
    /// See [`reasons::INVALID_COMMAND`].
    #[error("`{field}` is no account id")]
    NoAccount {
        /// The field's name on the wire.
        field: &'static str,
    },
    /// See [`reasons::INVALID_COMMAND`].
    #[error("`reason` has {bytes} bytes, more than {REASON_BYTES_MAX}")]
    ReasonTooLong {
        /// Its length.
        bytes: usize,
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
        /// The currency that was given.
        currency: Currency,
    },
    /// See [`codes::INVALID_CURRENCY`].
    #[error(transparent)]
    NoCurrency(MoneyError),
}

impl Rejection for TransactionRejection {
    fn code(&self) -> ReasonCode {
        match self {
            Self::Exists => codes::TRANSACTION_EXISTS,
            Self::NotFound => codes::TRANSACTION_NOT_FOUND,
            Self::WrongStatus { .. } | Self::NotStalled { .. } => codes::TRANSACTION_STATUS,
            Self::SameAccount => codes::SAME_ACCOUNT,
            Self::NoAccount { .. } | Self::ReasonTooLong { .. } => reasons::INVALID_COMMAND,
            Self::NoAmount(_) | Self::NotPositive { .. } | Self::TooFine { .. } => {
                codes::INVALID_AMOUNT
            }
            Self::NoCurrency(_) => codes::INVALID_CURRENCY,
        }
    }
}
