//! Workload E: accounts joined with their owners by a foreign key, both of them tables that change.
//!
//! An account's value is `OWNER|NUMBER`, where the number counts its changes; an owner's value is a
//! name with such a number. First come all owners, then all accounts, then changes of both: one in ten is
//! an owner's, which changes the results of all its accounts, and every fourth of an account finds it
//! another owner.
//!
//! How often a result comes out depends on which side of a change is seen first; where it ends does not.

use std::collections::HashMap;
use std::io::Write as _;

use anyhow::Result;
use millstream::prelude::*;

use super::{Expected, OUTPUT, SPAN_MS, USERS};

/// Accounts per owner, on average.
const ACCOUNTS_PER_OWNER: usize = 10;
/// Store of the results.
pub(crate) const JOINED: &str = "joined";

/// Each account with its owner's name.
pub(super) fn owned() -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let table = |topic, store| {
        builder.table(
            topic,
            Consumed::with(serdes::string(), serdes::string()),
            Materialized::as_store(store, serdes::string(), serdes::string())
                .source_topic_as_changelog(),
        )
    };
    let accounts = table(super::INPUT, "accounts");
    let owners = table(USERS, "owners");
    accounts
        .join_foreign_key(
            &owners,
            |_, account: &String| Some(owner_in(account).to_owned()),
            |_, account, owner: String| format!("{account}|{owner}"),
            TableJoined::as_name("by-owner"),
            Materialized::as_store(JOINED, serdes::string(), serdes::string()),
        )
        .to_stream()
        .to(
            OUTPUT,
            Produced::with(serdes::string(), serdes::optional(serdes::string())),
        );
    builder.build()
}

fn owner_in(account: &str) -> &str {
    account.split_once('|').map_or(account, |(owner, _)| owner)
}

/// What a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Accounts,
    Owners,
}

#[derive(Debug, Clone, Default)]
struct Account {
    changes: u64,
    /// All owners that it has had; the last one counts.
    owners: Vec<usize>,
}

/// The rows of both tables, the same for the same seed.
#[derive(Debug)]
pub(crate) struct Rows {
    random: fastrand::Rng,
    accounts: Vec<Account>,
    /// How often each has changed.
    owners: Vec<u64>,
    rows: u64,
    written: u64,
    start_ms: i64,
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) timestamp: i64,
}

impl Rows {
    /// All rows of `accounts` accounts and their owners, and `changes` of them.
    pub(crate) fn new(accounts: usize, changes: u64, seed: u64, start_ms: i64) -> Result<Self> {
        let owners = (accounts / ACCOUNTS_PER_OWNER).max(1);
        Ok(Self {
            random: fastrand::Rng::with_seed(seed),
            accounts: vec![Account::default(); accounts],
            owners: vec![0; owners],
            rows: u64::try_from(accounts + owners)? + changes,
            written: 0,
            start_ms,
            table: Table::Owners,
            key: Vec::new(),
            value: Vec::new(),
            timestamp: 0,
        })
    }

    /// Returns how many rows both tables get.
    pub(crate) const fn count(&self) -> u64 {
        self.rows
    }

    /// Writes the next row to the fields; `false` at the end.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        if self.written == self.rows {
            return Ok(false);
        }
        let number = usize::try_from(self.written)?;
        let (accounts, owners) = (self.accounts.len(), self.owners.len());
        match number.checked_sub(owners) {
            None => self.change_owner(number)?,
            Some(number) if number < accounts => self.change_account(number)?,
            Some(_) if self.random.u8(..10) == 0 => {
                let owner = self.random.usize(..owners);
                self.change_owner(owner)?;
            }
            Some(_) => {
                let account = self.random.usize(..accounts);
                self.change_account(account)?;
            }
        }
        let share = i128::from(SPAN_MS) * i128::from(self.written) / i128::from(self.rows);
        self.timestamp = self.start_ms + i64::try_from(share)?;
        self.written += 1;
        Ok(true)
    }

    fn change_owner(&mut self, number: usize) -> Result<()> {
        self.table = Table::Owners;
        let Some(changes) = self.owners.get_mut(number) else {
            return Ok(());
        };
        *changes += 1;
        self.key.clear();
        self.value.clear();
        write!(self.key, "owner-{number:05}")?;
        write_owner(number, *changes, &mut self.value)
    }

    fn change_account(&mut self, number: usize) -> Result<()> {
        self.table = Table::Accounts;
        let (random, owners) = (&mut self.random, self.owners.len());
        let Some(account) = self.accounts.get_mut(number) else {
            return Ok(());
        };
        account.changes += 1;
        if account.owners.is_empty() || random.u8(..4) == 0 {
            account.owners.push(random.usize(..owners));
        }
        self.key.clear();
        self.value.clear();
        write!(self.key, "account-{number:06}")?;
        write_account(account, &mut self.value)
    }
}

fn write_owner(number: usize, changes: u64, value: &mut Vec<u8>) -> Result<()> {
    Ok(write!(value, "Name of {number}, {changes}")?)
}

fn write_account(account: &Account, value: &mut Vec<u8>) -> Result<()> {
    let owner = account.owners.last().copied().unwrap_or_default();
    Ok(write!(value, "owner-{owner:05}|{}", account.changes)?)
}

/// Computes what is joined in the end. `records` is the most that may come out of an account: one for
/// each of its changes, and one for each change of any owner it has had.
pub(crate) fn expected(mut rows: Rows) -> Result<Expected> {
    while rows.advance()? {}
    let mut all = Expected::with_capacity(rows.accounts.len());
    for (number, account) in rows.accounts.iter().enumerate() {
        let changes_of = |owner: usize| rows.owners.get(owner).copied().unwrap_or_default();
        let had: HashMap<usize, u64> = account
            .owners
            .iter()
            .map(|owner| (*owner, changes_of(*owner)))
            .collect();
        let owner = account.owners.last().copied().unwrap_or_default();
        let of_key = all
            .entry(format!("account-{number:06}").into_bytes())
            .or_default();
        of_key.records = account.changes + had.values().sum::<u64>();
        write_account(account, &mut of_key.last)?;
        of_key.last.push(b'|');
        write_owner(owner, changes_of(owner), &mut of_key.last)?;
    }
    Ok(all)
}
