//! G, H and I begin with a store of millions of keys: its changelog, written before a side has run.
//!
//! Both sides find the same: a compacted changelog of plain JSON values, one record for each key in any
//! order, and a group that has committed the start of an empty input, as an application leaves them whose machine is
//! lost before it was done.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use millstream::format::names;
use millstream::log::kafka::KafkaLog;
use millstream::log::{CommittedOffset, Log, TopicName, TopicSpec};

use crate::balances;
use crate::comparison::Comparison;
use crate::events::{self, Events};
use crate::launch::Sandbox;
use crate::topics::{self, Writer, partitions_of, retry};
use crate::workload::{Input, digest_of, write_balance};

/// A store: one opened account for each key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preload {
    keys: usize,
    seed: u64,
    start_ms: i64,
}

impl Preload {
    pub(crate) fn new(comparison: &Comparison, keys: usize) -> Self {
        Self {
            keys,
            seed: comparison.options.seed,
            start_ms: comparison.start_ms,
        }
    }

    pub(crate) const fn keys(self) -> usize {
        self.keys
    }

    /// Returns `records` events of the accounts in the store.
    pub(crate) fn input(self, records: u64) -> Input {
        let opened = Events::opened(self.keys, self.seed);
        Input::after(opened, records, self.seed, self.start_ms)
    }

    /// Writes the changelog, and commits the start of the input.
    pub(crate) fn write(self, comparison: &Comparison, sandbox: &Sandbox) -> Result<()> {
        let (log, partitions) = (&comparison.log, comparison.options.partitions);
        let changelog = changelog(sandbox);
        retry(|| {
            log.create_topics(&[TopicSpec {
                name: TopicName::from(changelog.as_str()),
                partitions,
                replication_factor: Some(1),
                config: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
            }])
        })?;
        // Full batches, as a side under load leaves them.
        let lingers = BTreeMap::from([("linger.ms".to_owned(), "50".to_owned())]);
        let bulk = KafkaLog::new(&comparison.launch.servers, lingers)?;
        let mut writer = Writer::new(&bulk, &changelog)?;
        let opened = Events::opened(self.keys, self.seed);
        let mut accounts: Vec<_> = opened.accounts().iter().enumerate().collect();
        // A changelog has its keys in the order of their last changes, which is none of their own.
        fastrand::Rng::with_seed(self.seed).shuffle(&mut accounts);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for (number, account) in accounts {
            events::write_key(number, &mut key)?;
            write_balance(*account, &mut value)?;
            writer.write(&key, &value, self.start_ms - 1)?;
        }
        writer.flush()?;
        let start: Vec<_> = partitions_of(&sandbox.input, partitions)
            .into_iter()
            .map(|partition| {
                let committed = CommittedOffset {
                    offset: 0,
                    metadata: String::new(),
                };
                (partition, committed)
            })
            .collect();
        Ok(retry(|| {
            log.alter_group_offsets(&sandbox.application, &start)
        })?)
    }

    /// Compares where the changelog leaves each key with what `input` comes to, worked off to its end.
    /// Returns how many records it has, those written before included.
    pub(crate) fn verify(
        self,
        comparison: &Comparison,
        sandbox: &Sandbox,
        mut input: Input,
    ) -> Result<u64> {
        while input.advance()? {}
        // By account: millions of values would take a gigabyte.
        let mut last = vec![0; self.keys];
        let (topic, mut records) = (changelog(sandbox), 0);
        topics::read(
            &comparison.log,
            &topic,
            comparison.options.partitions,
            |key, value| {
                records += 1;
                let number = account_in(key).context("a key that is no account's")?;
                let last = last.get_mut(number).context("an account beyond all")?;
                *last = digest_of(value.context("the changelog has a null")?);
                Ok(())
            },
        )?;
        let mut value = Vec::new();
        for (number, (account, last)) in input.accounts().iter().zip(last).enumerate() {
            write_balance(*account, &mut value)?;
            ensure!(
                digest_of(&value) == last,
                "{topic} does not leave account {number} at {}",
                String::from_utf8_lossy(&value)
            );
        }
        Ok(records)
    }
}

fn changelog(sandbox: &Sandbox) -> String {
    names::changelog_topic(&sandbox.application, balances::STORE)
}

/// Reads what `write_key` writes.
fn account_in(key: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(key).ok()?.strip_prefix("account-")?;
    digits.parse().ok()
}
