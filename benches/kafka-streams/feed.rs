//! Records that come in at a fixed rate, and the outputs that come out of them: F and H.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream::clock::{Clock, SystemClock};
use millstream::log::kafka::KafkaLog;
use millstream::log::{Isolation, Log, LogMessage, LogReader};

use crate::launch::{Running, Sandbox};
use crate::topics::{PATIENCE, Writer, partitions_of, retry};
use crate::workload::{Input, version_of};

/// Sends an input to a side, one record at a time, and reads its output, read committed.
pub(crate) struct Feed {
    writer: Writer,
    input: Input,
    per_second: u32,
    arrivals: Arrivals,
    /// By key and version of its output: the record's number.
    sequence: HashMap<(Vec<u8>, u64), usize>,
    /// By number: when the record was to be sent, whether or not its sender was late.
    due: Vec<Instant>,
}

/// An output: the number of its record, when that was due, when it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) number: usize,
    pub(crate) due: Instant,
    pub(crate) read_at: Instant,
}

impl Feed {
    /// Of an input of `records`.
    pub(crate) fn new(
        log: &KafkaLog,
        sandbox: &Sandbox,
        partitions: i32,
        input: Input,
        records: u64,
        per_second: u32,
    ) -> Result<Self> {
        Ok(Self {
            writer: Writer::new(log, &sandbox.input)?,
            input,
            per_second,
            arrivals: Arrivals::start(log, &sandbox.output, partitions, records)?,
            sequence: HashMap::new(),
            due: Vec::new(),
        })
    }

    /// Sends one record alone: the side has started once it comes out. The rate begins then.
    pub(crate) fn begin(&mut self, side: &mut Running) -> Result<()> {
        self.send()?;
        self.writer.flush()?;
        let deadline = Instant::now() + PATIENCE;
        while !self.arrivals.has_begun.load(Ordering::Acquire) {
            side.check()?;
            ensure!(Instant::now() < deadline, "no output within {PATIENCE:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.due.push(Instant::now());
        Ok(())
    }

    /// Waits until the next record is due, and sends it.
    pub(crate) fn next(&mut self) -> Result<()> {
        let number = u32::try_from(self.due.len())?;
        let start = *self.due.first().context("the feed has not begun")?;
        let at = start + Duration::from_secs(1) * number / self.per_second;
        while let Some(rest) = at.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(rest);
        }
        self.send()?;
        self.due.push(at);
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        let Self {
            writer,
            input,
            sequence,
            due,
            ..
        } = self;
        ensure!(input.advance()?, "the input is too short");
        sequence.insert((input.key.clone(), version_in(&input.value)?), due.len());
        writer.write(&input.key, &input.value, SystemClock.now_ms())
    }

    /// Returns once all records are written.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.writer.flush()
    }

    /// Returns all outputs, in the order in which they were read.
    pub(crate) fn finish(self) -> Result<Vec<Arrival>> {
        let Self { sequence, due, .. } = self;
        let outputs = self.arrivals.finish()?;
        let arrivals = outputs.into_iter().map(|(key, version, read_at)| {
            let number = *sequence
                .get(&(key, version))
                .context("an output that no input has")?;
            let due = *due.get(number).context("a number beyond the input")?;
            Ok(Arrival {
                number,
                due,
                read_at,
            })
        });
        arrivals.collect()
    }
}

fn version_in(event: &[u8]) -> Result<u64> {
    let event: serde_json::Value = serde_json::from_slice(event)?;
    let version = event.get("aggregateVersion");
    version
        .and_then(serde_json::Value::as_u64)
        .context("an event without a version")
}

/// Key, version, when it was read.
type Output = (Vec<u8>, u64, Instant);

/// Reads the output on a thread of its own.
struct Arrivals {
    has_begun: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Vec<Output>>>,
}

impl Arrivals {
    fn start(log: &KafkaLog, topic: &str, partitions: i32, wanted: u64) -> Result<Self> {
        let mut reader = log.reader(Isolation::ReadCommitted)?;
        let from: Vec<_> = partitions_of(topic, partitions)
            .into_iter()
            .map(|partition| (partition, 0))
            .collect();
        reader.assign(&from)?;
        let wanted = usize::try_from(wanted)?;
        let has_begun = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&has_begun);
        let thread = std::thread::spawn(move || {
            let mut outputs = Vec::with_capacity(wanted);
            let mut messages = Vec::new();
            let mut moved_at = Instant::now();
            while outputs.len() < wanted && moved_at.elapsed() < PATIENCE {
                retry(|| reader.poll(1000, Duration::from_millis(100), &mut messages))?;
                let now = Instant::now();
                for message in messages.drain(..) {
                    let key = message.key().unwrap_or_default().to_vec();
                    let version = version_of(message.value().unwrap_or_default())?;
                    outputs.push((key, version, now));
                    moved_at = now;
                    begun.store(true, Ordering::Release);
                }
            }
            Ok(outputs)
        });
        Ok(Self { has_begun, thread })
    }

    fn finish(self) -> Result<Vec<Output>> {
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the reader of the output panicked"))?
    }
}
