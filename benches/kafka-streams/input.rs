//! The input of A, B, C and D, and the output that follows from it.

use std::collections::HashMap;
use std::io::Write as _;

use anyhow::{Result, bail};
use rust_decimal::Decimal;

use super::{Drawing, MINUTE_MS, SPAN_MS, USER_ROWS, Workload};
use crate::balances::Balance;
use crate::events::{self, Events};

/// The rows of D's table: key and value.
pub(crate) fn users() -> impl Iterator<Item = (String, String)> {
    USER_ROWS.map(|number| (format!("user_{number}"), format!("Name of {number}")))
}

/// The input: the same records for the same seed.
#[derive(Debug)]
pub(crate) struct Input {
    events: Events,
    random: fastrand::Rng,
    records: u64,
    written: u64,
    start_ms: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) timestamp: i64,
}

impl Input {
    pub(crate) fn new(records: u64, accounts: usize, seed: u64, start_ms: i64) -> Self {
        Self::after(Events::new(accounts, seed), records, seed, start_ms)
    }

    /// Goes on where `events` is.
    pub(crate) fn after(events: Events, records: u64, seed: u64, start_ms: i64) -> Self {
        Self {
            events,
            random: fastrand::Rng::with_seed(seed),
            records,
            written: 0,
            start_ms,
            key: Vec::new(),
            value: Vec::new(),
            timestamp: 0,
        }
    }

    /// The start of the input's event time for an input that is written at `now_ms`.
    pub(crate) const fn start_of(now_ms: i64) -> i64 {
        (now_ms - SPAN_MS) / MINUTE_MS * MINUTE_MS
    }

    /// Writes the next record to `key`, `value` and `timestamp`; `false` at the end.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        if self.written == self.records {
            return Ok(false);
        }
        let event = self.events.next();
        event.write(&mut self.random, &mut self.key, &mut self.value)?;
        let share = i128::from(SPAN_MS) * i128::from(self.written) / i128::from(self.records);
        self.timestamp = self.start_ms + i64::try_from(share)?;
        self.written += 1;
        Ok(true)
    }

    /// Returns every account as the events so far leave it.
    pub(crate) fn accounts(&self) -> &[events::Account] {
        self.events.accounts()
    }
}

/// What the output has of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OfKey {
    pub(crate) records: u64,
    /// Of all values: in their order, or of a set where the order is open.
    pub(crate) digest: u64,
    pub(crate) last: Vec<u8>,
}

impl OfKey {
    pub(crate) fn add(&mut self, value: &[u8], is_ordered: bool) {
        self.records += 1;
        let of_value = digest_of(value);
        if is_ordered {
            self.digest = digest(self.digest, &of_value.to_le_bytes());
            self.last.clear();
            self.last.extend_from_slice(value);
        } else {
            self.digest = self.digest.wrapping_add(of_value);
        }
    }
}

/// Returns what tells a value from others.
pub(crate) fn digest_of(value: &[u8]) -> u64 {
    digest(0xcbf2_9ce4_8422_2325, value)
}

/// FNV-1a from `state`.
fn digest(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// By key: everything that the output must have.
pub(crate) type Expected = HashMap<Vec<u8>, OfKey>;

/// Computes the output from the input, by other code than the topologies'.
pub(crate) fn expected(workload: Workload, mut input: Input) -> Result<Expected> {
    let mut all = Expected::new();
    let mut turnover: HashMap<Vec<u8>, (u64, i64)> = HashMap::new();
    let names: HashMap<String, String> = users().collect();
    let mut out = Vec::new();
    while input.advance()? {
        let event: serde_json::Value = serde_json::from_slice(&input.value)?;
        let text = |pointer: &str| event.pointer(pointer).and_then(|value| value.as_str());
        let text = |pointer: &str| text(pointer).unwrap_or_default();
        let version = event.pointer("/aggregateVersion");
        let version = version.and_then(serde_json::Value::as_u64).unwrap_or(0);
        let mut key = input.key.clone();
        out.clear();
        match workload.drawing() {
            Drawing::Balances => {
                // The generator keeps the account's cents itself.
                let balance = text("/data/newBalance");
                write!(out, r#"{{"version":{version},"balance":"{balance}"}}"#)?;
            }
            Drawing::Credits => {
                if text("/data/changeType") != "CREDIT" {
                    continue;
                }
                write!(
                    out,
                    r#"{{"transactionId":"{}","version":{version},"amount":"{}"}}"#,
                    text("/data/transactionId"),
                    text("/data/changeAmount")
                )?;
            }
            Drawing::Turnover => {
                let window = input.timestamp / MINUTE_MS * MINUTE_MS;
                key.extend_from_slice(&window.to_be_bytes());
                let (count, sum) = turnover.entry(key.clone()).or_default();
                *count += 1;
                *sum += events::cents(text("/data/changeAmount"))?;
                let sum = Decimal::new(*sum, 2);
                write!(out, r#"{{"count":{count},"turnover":"{sum}"}}"#)?;
            }
            Drawing::Named => {
                let account = String::from_utf8(key)?;
                key = text("/metadata/actorId").as_bytes().to_vec();
                let name = names.get(text("/metadata/actorId"));
                let name = name.map(String::as_str).unwrap_or_default();
                let amount = text("/data/signedAmount");
                write!(out, "{account}|{version}|{amount}|{name}")?;
            }
            Drawing::Owned => bail!("workload E has rows, not events"),
        }
        all.entry(key).or_default().add(&out, workload.is_ordered());
    }
    Ok(all)
}

/// Writes what workload A's store holds of an account.
pub(crate) fn write_balance(account: events::Account, value: &mut Vec<u8>) -> Result<()> {
    let (version, balance) = (account.version, account.balance());
    value.clear();
    Ok(write!(
        value,
        r#"{{"version":{version},"balance":"{balance}"}}"#
    )?)
}

/// Reads the version of an account out of an output record of workload A.
pub(crate) fn version_of(value: &[u8]) -> Result<u64> {
    Ok(serde_json::from_slice::<Balance>(value)?.version)
}
