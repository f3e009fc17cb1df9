//! The packaged topology `account`: billing accounts, event-sourced.
//!
//! # Position
//! A binary registers [`AccountTopology`]. Here are the rules of an account, pure: [`Account`], its
//! [commands](AccountCommand) and [events](AccountEvent), its money, its read model, and the drawing.
//! Everything around them (envelopes, replies, history, ownership) is
//! [`millstream::event_sourcing`].
//! # Invariants
//! - An account's balance is the sum of the signed amounts of its events, exactly.
//! - No command brings a balance below zero, and none moves money on a frozen or closed account.
//! # Later
//! The aggregate `Transaction` (transfers with compensation, payment requests), movements, turnover,
//! counts per status and the audit log come with a later issue. Until then `Transfer` and
//! `RequestPayment` are rejected `NOT_IMPLEMENTED`.

mod account;
mod commands;
mod events;
mod money;
mod projections;
mod read_model;
mod rejection;
mod topology;

pub use account::Account;
pub use commands::{
    AccountCommand, ChangeStatus, Movement, OpenAccount, RequestPayment, TopUp, Transfer, Withdraw,
};
pub use events::{
    AccountCreated, AccountEvent, AccountStatusChanged, BalanceChanged, BalanceChangedV1,
    ChangeType, Status,
};
pub use money::{Amount, AmountInput, Currency, MoneyError};
pub use projections::{POSTGRES, tables};
pub use read_model::Balance;
pub use rejection::{AccountRejection, codes};
pub use topology::{
    ARCHIVE, AccountParameters, AccountTopology, BALANCES, BadEvents, COMMANDS, DEAD_LETTERS,
    EVENTS, REPLIES,
};

/// Returns the packaged topology, for a binary to register.
#[must_use]
pub const fn topology() -> AccountTopology {
    AccountTopology
}
