//! Workload F: records come in at a fixed rate; how long until a committed output can be read?

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millstream::clock::{Clock, SystemClock};
use millstream::log::kafka::KafkaLog;
use millstream::log::{Isolation, Log, LogMessage, LogReader};
use serde::Serialize;

use crate::process;
use crate::side::{RunTopics, Running};
use crate::topics::{PATIENCE, Writer, partitions_of, retry};
use crate::workload::{Input, version_of};

/// The rate, and how long it lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: u32,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

impl Pace {
    fn records(self, span: Duration) -> Result<usize> {
        Ok(usize::try_from(
            u128::from(self.per_second) * span.as_millis() / 1000,
        )?)
    }

    /// Returns how many records the input has.
    pub(crate) fn all(self) -> Result<u64> {
        Ok(u64::try_from(
            1 + self.records(self.warm_up)? + self.records(self.measured)?,
        )?)
    }
}

/// Milliseconds from when a record was due to when its output was read, read committed.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Share of one core while the rate lasted, in percent.
    pub(crate) cpu_percent: f64,
    pub(crate) peak_rss_mib: f64,
}

/// An output record: key, version, when it was read.
type Arrival = (Vec<u8>, u64, Instant);

pub(crate) fn measure(
    log: &KafkaLog,
    side: &mut Running,
    topics: &RunTopics,
    partitions: i32,
    mut input: Input,
    pace: Pace,
) -> Result<Latency> {
    let mut writer = Writer::new(log, &topics.input)?;
    let arrivals = Arrivals::start(log, &topics.output, partitions, pace.all()?)?;
    // One record alone: the side has started once it comes out.
    let mut sequence = HashMap::new();
    let mut send = |number: usize, writer: &mut Writer| -> Result<()> {
        ensure!(input.advance()?, "the input is too short");
        sequence.insert((input.key.clone(), version_in(&input.value)?), number);
        writer.write(&input.key, &input.value, SystemClock.now_ms())
    };
    send(0, &mut writer)?;
    writer.flush()?;
    let deadline = Instant::now() + PATIENCE;
    while !arrivals.has_begun.load(Ordering::Acquire) {
        side.check()?;
        ensure!(Instant::now() < deadline, "no output within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let (warm_up, measured) = (pace.records(pace.warm_up)?, pace.records(pace.measured)?);
    let start = Instant::now();
    let mut due = vec![start];
    let mut cpu_before = Duration::ZERO;
    for number in 1..=warm_up + measured {
        let at = start + Duration::from_secs(1) * u32::try_from(number)? / pace.per_second;
        while let Some(rest) = at.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(rest);
        }
        if number == warm_up + 1 {
            side.check()?;
            cpu_before = process::cpu_time(side.pid())?;
        }
        due.push(at);
        send(number, &mut writer)?;
    }
    writer.flush()?;
    let cpu = process::cpu_time(side.pid())? - cpu_before;
    let peak_rss_mib = process::peak_rss_mib(side.pid())?;
    let mut latencies = Vec::with_capacity(measured);
    for (key, version, read_at) in arrivals.finish()? {
        let number = sequence
            .get(&(key, version))
            .copied()
            .context("an output that no input has")?;
        if number > warm_up {
            let due = due.get(number).context("a number beyond the input")?;
            latencies.push(read_at.saturating_duration_since(*due));
        }
    }
    ensure!(
        latencies.len() == measured,
        "{} outputs of {measured} records",
        latencies.len()
    );
    latencies.sort_unstable();
    Ok(Latency {
        p50: percentile(&latencies, 500),
        p99: percentile(&latencies, 990),
        p999: percentile(&latencies, 999),
        max: percentile(&latencies, 1000),
        cpu_percent: 100.0 * cpu.as_secs_f64() / pace.measured.as_secs_f64(),
        peak_rss_mib,
    })
}

/// Returns the milliseconds that `per_mille` of `sorted` do not exceed.
fn percentile(sorted: &[Duration], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).saturating_sub(1);
    sorted.get(rank).map_or(0.0, |one| one.as_secs_f64() * 1e3)
}

fn version_in(event: &[u8]) -> Result<u64> {
    let event: serde_json::Value = serde_json::from_slice(event)?;
    let version = event.get("aggregateVersion");
    version
        .and_then(serde_json::Value::as_u64)
        .context("an event without a version")
}

/// Reads the output on a thread of its own.
struct Arrivals {
    has_begun: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Vec<Arrival>>>,
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
            let mut arrivals = Vec::with_capacity(wanted);
            let mut messages = Vec::new();
            let mut moved_at = Instant::now();
            while arrivals.len() < wanted && moved_at.elapsed() < PATIENCE {
                retry(|| reader.poll(1000, Duration::from_millis(100), &mut messages))?;
                let now = Instant::now();
                for message in messages.drain(..) {
                    let key = message.key().unwrap_or_default().to_vec();
                    let version = version_of(message.value().unwrap_or_default())?;
                    arrivals.push((key, version, now));
                    moved_at = now;
                    begun.store(true, Ordering::Release);
                }
            }
            Ok(arrivals)
        });
        Ok(Self { has_begun, thread })
    }

    fn finish(self) -> Result<Vec<Arrival>> {
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the reader of the output panicked"))?
    }
}
