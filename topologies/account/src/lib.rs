//! The packaged topology `account`: billing accounts, event-sourced.
//!
//! # Position
//! A binary registers [`AccountTopology`]. Here are the rules of an account, pure: [`Account`], its
//! [commands](AccountCommand) and [events](AccountEvent), its money; those of a [`Transaction`], which
//! is the process of a transfer; the read models, and the drawing. Everything around them (envelopes,
//! replies, history, ownership, the issuing of steps) is [`millstream::event_sourcing`].
//! # Invariants
//! - An account's balance is the sum of the signed amounts of its events, exactly.
//! - An account is removed only when it is closed and empty: no money goes with it.
//! - No command brings a balance below zero, and none moves money on a frozen or closed account, but
//!   for a refused transfer, whose money comes back.
//! - At rest, the sum of all balances is what came in less what went out: a transfer moves all of its
//!   money or none.

mod account;
mod commands;
mod events;
mod money;
mod projections;
mod read_model;
mod rejection;
mod topology;
mod transaction;
mod views;

pub use account::Account;
pub use commands::{
    AccountCommand, ChangeStatus, CreditTransfer, DebitTransfer, Misdirected, MisdirectedPayment,
    Movement, OpenAccount, RefundTransfer, RemoveAccount, TopUp, TransferLeg, Withdraw,
};
pub use events::{
    AccountCreated, AccountEvent, AccountRemoved, AccountStatusChanged, BalanceChanged,
    BalanceChangedV1, ChangeType, Status,
};
pub use money::{Amount, AmountInput, Currency, MoneyError};
pub use projections::{POSTGRES, tables};
pub use read_model::{
    AccountView, AuditEntry, Balance, MovementEntry, StatusCount, Turnover, TurnoverPart,
};
pub use rejection::{AccountRejection, codes};
pub use topology::{
    ARCHIVE, AUDIT, AccountParameters, AccountTopology, BALANCES, BadEvents, COMMANDS,
    DEAD_LETTERS, EVENTS, MOVEMENTS, REPLIES, STATUS_COUNTS, TRANSACTION_COMMANDS,
    TRANSACTION_EVENTS, TRANSACTION_REPLIES, TURNOVER,
};
pub use transaction::{
    AcceptPayment, CreditRefused, Failure, Movement as TransactionMovement, MovementMade,
    MovementRefused, PaymentAccepted, PaymentRejected, PaymentRequested, REASON_BYTES_MAX,
    RefusedMovement, RejectPayment, RequestPayment, ResumeTransfer, SettleTransfer, Settlement,
    TopupCompleted, TopupFailed, Transaction, TransactionCommand, TransactionEvent,
    TransactionKind, TransactionRejection, TransactionStatus, Transfer,
    TransferCompensationRefused, TransferCompleted, TransferCreditRefused, TransferDebited,
    TransferFailed, TransferOrder, TransferRequested, TransferResumed, TransferSettled,
    TransferSettlementOrdered, TransferSettlementRefused, TransferStalled, TransferStep,
    TransferTerms, WithdrawalCompleted, WithdrawalFailed,
};

/// Returns the packaged topology, for a binary to register.
#[must_use]
pub const fn topology() -> AccountTopology {
    AccountTopology
}
