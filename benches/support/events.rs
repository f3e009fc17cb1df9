//! Consistent `BalanceChanged` events over many accounts, the same for the same seed.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each bench that includes this file uses a part of it"
)]

use std::io::Write as _;

use fastrand::Rng;
use rust_decimal::Decimal;

/// An account as the events so far leave it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Account {
    pub(crate) version: u64,
    cents: i64,
}

impl Account {
    pub(crate) fn balance(self) -> Decimal {
        Decimal::new(self.cents, 2)
    }
}

/// The events, one after the other.
#[derive(Debug)]
pub(crate) struct Events {
    random: Rng,
    accounts: Vec<Account>,
}

/// One event: where it happened, from what to what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    account: usize,
    after: Account,
    signed_cents: i64,
}

impl Events {
    /// Starts with `accounts` accounts without events.
    pub(crate) fn new(accounts: usize, seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            accounts: vec![Account::default(); accounts],
        }
    }

    /// Starts with `accounts` accounts that have had one event each, a credit.
    pub(crate) fn opened(accounts: usize, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let opened = || Account {
            version: 1,
            cents: random.i64(1..=100_000),
        };
        Self {
            accounts: std::iter::repeat_with(opened).take(accounts).collect(),
            random: Rng::with_seed(seed),
        }
    }

    /// Returns the next event: any account, a credit or a covered debit.
    pub(crate) fn next(&mut self) -> Event {
        let account = self.random.usize(..self.accounts.len());
        let cents = self.random.i64(1..=100_000);
        let is_debit = self.random.bool();
        let mut after = self.accounts.get(account).copied().unwrap_or_default();
        let signed_cents = if is_debit && after.cents >= cents {
            -cents
        } else {
            cents
        };
        after.version += 1;
        after.cents += signed_cents;
        if let Some(entry) = self.accounts.get_mut(account) {
            *entry = after;
        }
        Event {
            account,
            after,
            signed_cents,
        }
    }

    /// Returns every account as the events so far leave it, by number.
    pub(crate) fn accounts(&self) -> &[Account] {
        &self.accounts
    }
}

/// Writes an account's id: the record key.
pub(crate) fn write_key(account: usize, key: &mut Vec<u8>) -> std::io::Result<()> {
    key.clear();
    write!(key, "account-{account:06}")
}

impl Event {
    /// Writes the record: key and JSON value.
    pub(crate) fn write(
        &self,
        random: &mut Rng,
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        let Self {
            account,
            after,
            signed_cents,
        } = *self;
        write_key(account, key)?;
        value.clear();
        let decimal = |cents| Decimal::new(cents, 2);
        write!(
            value,
            concat!(
                r#"{{"eventId":"evt-{:016x}","eventType":"BalanceChanged","#,
                r#""aggregateId":"account-{:06}","aggregateType":"Account","#,
                r#""aggregateVersion":{},"timestamp":"2025-12-09T12:00:00.000Z","#,
                r#""correlationId":"corr-{:08x}","#,
                r#""metadata":{{"actorId":"user_{}","actorType":"api"}},"#,
                r#""data":{{"previousBalance":"{}","newBalance":"{}","changeAmount":"{}","#,
                r#""changeType":"{}","signedAmount":"{}","reason":"Topup","#,
                r#""transactionId":"tx-{:08x}"}}}}"#,
            ),
            random.u64(..),
            account,
            after.version,
            random.u32(..),
            random.u32(100..1000),
            decimal(after.cents - signed_cents),
            decimal(after.cents),
            decimal(signed_cents.abs()),
            if signed_cents < 0 { "DEBIT" } else { "CREDIT" },
            decimal(signed_cents),
            random.u32(..),
        )
    }
}

/// Adds a field of random letters that makes an event `bytes` long, unless it is longer.
pub(crate) fn pad(value: &mut Vec<u8>, bytes: usize, random: &mut Rng) {
    const BEFORE: &[u8] = br#","note":""#;
    const BEHIND: &[u8] = br#""}"#;
    let length = value.len() - 1 + BEFORE.len() + BEHIND.len();
    if length >= bytes {
        return;
    }
    value.truncate(value.len() - 1);
    value.extend_from_slice(BEFORE);
    value.extend((length..bytes).map(|_| random.u8(b'a'..=b'z')));
    value.extend_from_slice(BEHIND);
}

/// Reads an amount as the events write it, in cents.
pub(crate) fn cents(text: &str) -> Result<i64, std::num::ParseIntError> {
    text.replace('.', "").parse()
}
