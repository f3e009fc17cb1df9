//! Workloads A, B and C on the embedded log, once, for a counter of instructions to look at:
//! `scripts/instructions`.
//!
//! The production stream thread processes the first `--records` of an input of `--input` records, in
//! transactions of some thousands. Everything but processing depends on `--input` alone (the input is
//! made before the first record is sent), so that the difference between two runs of the same input is
//! what the additional records cost, the embedded log's part included. One thread under virtual time
//! does all of it: the same command executes the same instructions but for the seeds of hash maps.
//!
//! With `--verify` the output is compared, record by record, with what other code computes.

#[path = "support/balances.rs"]
mod balances;
#[path = "support/events.rs"]
mod events;
#[path = "kafka-streams/workload.rs"]
mod workload;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{
    Headers, Isolation, Log, LogMessage, LogProducer, LogReader, ProducerRecord, ProducerSpec,
    TopicName, TopicPartition,
};
use millstream::testing::TopologyTestDriver;

use workload::{Expected, Input, Workload};

const PARTITIONS: i32 = 3;
/// Records that the thread finds at once, and commits together.
const BATCH: usize = 2_500;
/// Virtual time that a batch takes.
const BATCH_TIME: Duration = Duration::from_millis(100);

#[derive(Debug, Parser)]
struct Options {
    /// A, B or C.
    workload: Workload,
    /// Records that are processed.
    #[arg(long)]
    records: usize,
    /// Records that are made.
    #[arg(long)]
    input: usize,
    /// Accounts they are about: few enough that most are known when a record comes, as in a long run.
    #[arg(long, default_value_t = 5_000)]
    accounts: usize,
    /// Decides the input.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Compare the output with what follows from the input.
    #[arg(long)]
    verify: bool,
    /// What cargo passes to a bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A record of the input.
struct Made {
    key: Vec<u8>,
    value: Vec<u8>,
    timestamp: i64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut driver = TopologyTestDriver::builder()
        .partitions(PARTITIONS)
        .records_per_transaction(BATCH)
        .build(options.workload.topology()?)?;
    let start_ms = Input::start_of(driver.now_ms());
    let made = make(&options, start_ms)?;
    let records = made.get(..options.records);
    process(&mut driver, options.workload, records.unwrap_or(&made))?;
    if options.verify {
        let records = u64::try_from(made.len())?;
        let input = Input::new(records, options.accounts, options.seed, start_ms);
        let expected = workload::expected(options.workload, input)?;
        verify(driver.log(), options.workload, &expected)?;
    }
    Ok(())
}

fn make(options: &Options, start_ms: i64) -> Result<Vec<Made>> {
    let records = u64::try_from(options.input)?;
    let mut input = Input::new(records, options.accounts, options.seed, start_ms);
    let mut made = Vec::with_capacity(options.input);
    while input.advance()? {
        made.push(Made {
            key: input.key.clone(),
            value: input.value.clone(),
            timestamp: input.timestamp,
        });
    }
    Ok(made)
}

/// Writes the records batch by batch and lets the thread work each off.
fn process(driver: &mut TopologyTestDriver, workload: Workload, records: &[Made]) -> Result<()> {
    let mut producer = driver.log().producer(&ProducerSpec {
        transactional_id: None,
        transaction_timeout: Duration::from_secs(10),
        client_id: "input".to_owned(),
    })?;
    let topic = TopicName::from(workload.topics().0);
    let headers = Headers::new();
    for batch in records.chunks(BATCH) {
        for made in batch {
            producer.send(ProducerRecord {
                topic: &topic,
                partition: None,
                key: Some(&made.key),
                value: Some(&made.value),
                timestamp: made.timestamp,
                headers: &headers,
            })?;
        }
        producer.flush()?;
        driver.advance_wall_clock_time(BATCH_TIME)?;
    }
    Ok(())
}

fn verify(log: &EmbeddedLog, workload: Workload, expected: &Expected) -> Result<()> {
    let topic = TopicName::from(workload.topics().2);
    let partitions: Vec<_> = (0..PARTITIONS)
        .map(|partition| (TopicPartition::new(TopicName::clone(&topic), partition), 0))
        .collect();
    let mut reader = log.reader(Isolation::ReadCommitted)?;
    reader.assign(&partitions)?;
    let (mut found, mut messages) = (Expected::new(), Vec::new());
    while reader.poll(10_000, Duration::ZERO, &mut messages)? > 0 {
        for message in messages.drain(..) {
            let of_key = found.entry(message.key().unwrap_or_default().to_vec());
            of_key
                .or_default()
                .add(message.value().unwrap_or_default(), workload.is_ordered());
        }
    }
    ensure!(
        found == *expected,
        "workload {}: the output is not what follows from the input",
        workload.letter()
    );
    Ok(())
}
