//! Workload A on real Kafka: JSON `BalanceChanged` events folded into a balance per account, with
//! output, changelog and RocksDB store, exactly once.
//!
//! Another process writes the input beforehand, so that neither its time nor its memory counts. The
//! clock starts when the first task runs (joined, restored) and stops when the last input offset is
//! committed. The work is verified afterwards, and a run that did not do it fails:
//! - the group's committed offsets are the input's end, nothing was aborted or dead-lettered;
//! - the output, read committed, has every version of every account once and in order;
//! - output, changelog and store end at the balances that follow from the input.
#![expect(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

#[path = "support/balances.rs"]
mod balances;
#[path = "support/events.rs"]
mod events;
#[path = "support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use millstream::clock::{Clock, SystemClock};
use millstream::format::{names, value};
use millstream::log::kafka::KafkaLog;
use millstream::log::{
    Headers, Isolation, Log, LogError, LogMessage, LogProducer, LogReader, ProducerRecord,
    ProducerSpec, TopicName, TopicPartition, TopicSpec,
};
use millstream::metrics::{Counter, Metrics, TaskMetrics, ThreadMetrics};
use millstream::runtime::{App, AppSpec, RuntimeConfig, TaskState, TopicOverride, ensure_topics};
use millstream::state::StateDir;
use serde::Serialize;

use balances::Balance;
use events::Events;

/// The longest time without a commit before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the committed count is looked at: what the times are exact to.
const LOOK_EVERY: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Parser)]
struct Options {
    /// Events in the input.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Accounts they are about.
    #[arg(long, default_value_t = 100_000)]
    accounts: usize,
    /// Partitions of every topic.
    #[arg(long, default_value_t = 3)]
    partitions: i32,
    /// Milliseconds between commits.
    #[arg(long, default_value_t = 100)]
    commit_interval: u64,
    /// Stream threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Bytes that each event is padded to.
    #[arg(long, default_value_t = 0)]
    event_bytes: usize,
    /// Take the stores away afterwards, and measure how they are restored.
    #[arg(long)]
    restore: bool,
    /// Decides the input.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only write the input, to this topic; used by the bench itself.
    #[arg(long, hide = true)]
    write_input_to: Option<String>,
    /// What cargo passes to a bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let servers = std::env::var("KAFKA_BOOTSTRAP_SERVERS").unwrap_or_default();
    if servers.is_empty() {
        bail!(
            "KAFKA_BOOTSTRAP_SERVERS is not set; `scripts/bench` starts a broker and sets it, \
             `scripts/kafka start` prints it"
        );
    }
    let log = KafkaLog::new(&servers, BTreeMap::new())?;
    if let Some(topic) = &options.write_input_to {
        return write_input(&log, &topic.as_str().into(), &options);
    }
    let run = Run::prepare(&log, &options)?;
    let result = run.measure().and_then(|measured| run.verify(measured));
    run.delete_topics();
    let report = result?;
    println!("{report}");
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Repeats what the log calls retriable.
fn retry<T>(mut call: impl FnMut() -> Result<T, LogError>) -> Result<T, LogError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call() {
            Err(LogError::Retriable { .. }) if Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn write_input(log: &KafkaLog, topic: &TopicName, options: &Options) -> Result<()> {
    let mut producer = log.producer(&ProducerSpec {
        transactional_id: None,
        transaction_timeout: Duration::from_secs(10),
        client_id: "bench-input".to_owned(),
    })?;
    let mut events = Events::new(options.accounts, options.seed);
    let mut random = fastrand::Rng::with_seed(options.seed);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let headers = Headers::new();
    let timestamp = SystemClock.now_ms();
    for _ in 0..options.records {
        events.next().write(&mut random, &mut key, &mut value)?;
        events::pad(&mut value, options.event_bytes, &mut random);
        retry(|| {
            producer.send(ProducerRecord {
                topic,
                partition: None,
                key: Some(&key),
                value: Some(&value),
                timestamp,
                headers: &headers,
            })
        })?;
    }
    retry(|| producer.flush())?;
    Ok(())
}

/// A run's own names, topics and directory.
struct Run<'a> {
    log: &'a KafkaLog,
    options: &'a Options,
    application: String,
    input: TopicName,
    output: TopicName,
    changelog: TopicName,
    state_dir: tempfile::TempDir,
}

/// A moment of a run.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    cpu: Duration,
    committed: u64,
}

impl Moment {
    fn now(committed: u64) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            cpu: process::cpu_time(std::process::id())?,
            committed,
        })
    }

    fn until(&self, end: &Self) -> Speed {
        #[expect(clippy::cast_precision_loss, reason = "far fewer records than 2^52")]
        let records = (end.committed - self.committed) as f64;
        let seconds = (end.at - self.at).as_secs_f64();
        let cpu_us = (end.cpu - self.cpu).as_secs_f64() * 1e6;
        Speed {
            records_per_second: (records / seconds).round(),
            cpu_us_per_record: rounded(cpu_us / records, 2),
            seconds: rounded(seconds, 3),
        }
    }
}

fn rounded(number: f64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    (number * unit).round() / unit
}

/// What a stretch of a run came to.
#[derive(Debug, Clone, Serialize)]
struct Speed {
    records_per_second: f64,
    cpu_us_per_record: f64,
    seconds: f64,
}

/// A run that did its work.
#[derive(Debug, Clone, Serialize)]
struct Report {
    bench: &'static str,
    records: u64,
    accounts: usize,
    partitions: i32,
    threads: usize,
    event_bytes: u64,
    /// From start to the first running task: connecting, joining, opening the stores.
    start_seconds: f64,
    whole: Speed,
    second_half: Speed,
    peak_rss_mib: f64,
    commits: u64,
    /// How long a commit takes, in the mean: from the first serialised entry to the stores.
    commit_ms: f64,
    changelog_records: u64,
    /// From the first restored record to the last running task.
    restore: Option<Speed>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            records,
            accounts,
            partitions,
            event_bytes,
            ..
        } = self;
        writeln!(
            f,
            "{records} events of {event_bytes} B, {accounts} accounts, {partitions} partitions, \
             one thread; verified"
        )?;
        writeln!(f, "             records/s  CPU µs/record  seconds")?;
        let parts = [
            ("whole", Some(&self.whole)),
            ("second half", Some(&self.second_half)),
            ("restore", self.restore.as_ref()),
        ];
        for (name, speed) in parts {
            let Some(speed) = speed else { continue };
            let Speed {
                records_per_second,
                cpu_us_per_record,
                seconds,
            } = speed;
            writeln!(
                f,
                "{name:<11}  {records_per_second:>9}  {cpu_us_per_record:>13.2}  {seconds:>7.2}"
            )?;
        }
        write!(
            f,
            "start {:.2} s, peak RSS {:.0} MiB, {} commits of {:.1} ms, {} changelog records",
            self.start_seconds,
            self.peak_rss_mib,
            self.commits,
            self.commit_ms,
            self.changelog_records
        )
    }
}

/// What was measured, and what the stores held at the end.
struct Measured {
    report: Report,
    stored: BTreeMap<Vec<u8>, Balance>,
}

impl<'a> Run<'a> {
    /// Creates topics of its own and has another process write the input.
    fn prepare(log: &'a KafkaLog, options: &'a Options) -> Result<Self> {
        let application = format!("bench-{:016x}", fastrand::u64(..));
        let run = Self {
            log,
            options,
            input: format!("{application}-events").into(),
            output: format!("{application}-balances").into(),
            changelog: names::changelog_topic(&application, balances::STORE).into(),
            application,
            state_dir: tempfile::TempDir::with_prefix("millstream-bench-")?,
        };
        let spec = |name: &TopicName| TopicSpec {
            name: TopicName::clone(name),
            partitions: options.partitions,
            replication_factor: Some(1),
            config: BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]),
        };
        retry(|| log.create_topics(&[spec(&run.input), spec(&run.output)]))?;
        let status = Command::new(std::env::current_exe()?)
            .args(["--records", &options.records.to_string()])
            .args(["--accounts", &options.accounts.to_string()])
            .args(["--seed", &options.seed.to_string()])
            .args(["--event-bytes", &options.event_bytes.to_string()])
            .args(["--write-input-to", &run.input])
            .status()?;
        if !status.success() {
            run.delete_topics();
            bail!("writing the input failed");
        }
        Ok(run)
    }

    fn delete_topics(&self) {
        let topics: [&str; 3] = [&self.input, &self.output, &self.changelog];
        if let Err(error) = retry(|| self.log.delete_topics(&topics)) {
            println!("the topics of this run are left behind: {error}");
        }
    }

    fn partitions(&self, topic: &TopicName) -> Vec<TopicPartition> {
        (0..self.options.partitions)
            .map(|partition| TopicPartition::new(TopicName::clone(topic), partition))
            .collect()
    }

    fn start(&self, metrics: &Metrics) -> Result<App<KafkaLog>> {
        let mut config = RuntimeConfig::new(self.application.clone(), self.state_dir.path());
        config.commit_interval = Duration::from_millis(self.options.commit_interval);
        config.threads = self.options.threads;
        for (declared, topic) in [
            (balances::EVENTS, &self.input),
            (balances::BALANCES, &self.output),
        ] {
            let named = TopicOverride {
                name: Some(topic.to_string()),
                ..TopicOverride::default()
            };
            config.topics.insert(declared.to_owned(), named);
        }
        let topology = ensure_topics(self.log, &Arc::new(balances::topology()?), &config)?;
        let state = StateDir::open(&config.state_dir, || "bench".to_owned())?;
        Ok(App::start(AppSpec {
            log: self.log.clone(),
            topology: Arc::new(topology),
            config: Arc::new(config),
            clock: Arc::new(SystemClock),
            metrics: metrics.clone(),
            state: Arc::new(state),
        })?)
    }

    /// Processes the whole input.
    fn measure(&self) -> Result<Measured> {
        let metrics = Metrics::new();
        let started = Instant::now();
        let app = self.start(&metrics)?;
        let is_running = || {
            let tasks = app.health().tasks;
            Ok(tasks
                .values()
                .any(|state| *state == TaskState::Running)
                .then_some(()))
        };
        self.watch(&app, is_running)?;
        let begin = Moment::now(0)?;

        let progress = Progress::of(&metrics, self);
        let (mut middle, mut last) = (None, 0);
        let mut moved_at = begin.at;
        let end = self.watch(&app, || {
            let committed = progress.committed();
            if committed > last {
                (last, moved_at) = (committed, Instant::now());
                if middle.is_none() && committed * 2 >= self.options.records {
                    middle = Some(Moment::now(committed)?);
                }
            }
            ensure!(
                moved_at.elapsed() < PATIENCE,
                "no commit in {PATIENCE:?}: {:?}",
                app.health()
            );
            let is_done = committed >= self.options.records;
            is_done.then(|| Moment::now(committed)).transpose()
        })?;
        let peak_rss_mib = process::peak_rss_mib(std::process::id())?.round();
        let middle = middle.context("too few records to have a middle")?;

        let stored = app.queries().dump(balances::STORE)?;
        let stored = stored
            .into_iter()
            .map(|(key, stored)| {
                let (_, plain) = value::decode(&stored).context("a stored value is too short")?;
                Ok((key.into_vec(), serde_json::from_slice(plain)?))
            })
            .collect::<Result<_>>()?;
        app.stop();
        app.join()?;
        let threads: Vec<_> = (0..self.options.threads)
            .map(|thread| metrics.thread(thread))
            .collect();
        let aborts: u64 = threads.iter().map(|thread| thread.aborts.get()).sum();
        ensure!(aborts == 0, "{aborts} transactions were aborted");
        let commits = threads.iter().map(|thread| thread.commits.get()).sum();
        let duration = |thread: &ThreadMetrics| thread.commit_duration.get_sample_sum();
        let in_commits: f64 = threads.iter().map(duration).sum();
        let restore = self.options.restore.then(|| self.restore()).transpose()?;
        let report = Report {
            bench: "balances_kafka",
            records: self.options.records,
            accounts: self.options.accounts,
            partitions: self.options.partitions,
            threads: self.options.threads,
            event_bytes: 0,
            start_seconds: rounded((begin.at - started).as_secs_f64(), 2),
            whole: begin.until(&end),
            second_half: middle.until(&end),
            peak_rss_mib,
            commits,
            #[expect(clippy::cast_precision_loss, reason = "far fewer commits than 2^52")]
            commit_ms: rounded(in_commits * 1e3 / commits as f64, 1),
            changelog_records: 0,
            restore,
        };
        Ok(Measured { report, stored })
    }

    /// Starts once more, without any state.
    fn restore(&self) -> Result<Speed> {
        std::fs::remove_dir_all(self.state_dir.path())?;
        std::fs::create_dir(self.state_dir.path())?;
        let metrics = Metrics::new();
        let app = self.start(&metrics)?;
        let restored: Vec<Counter> = self
            .tasks(&metrics)
            .map(|(task, _)| task.store(balances::STORE).restored_records)
            .collect();
        let restored = || restored.iter().map(Counter::get).sum::<u64>();
        let begun = || Ok((restored() > 0).then_some(()));
        self.watch(&app, begun)?;
        let begin = Moment::now(restored())?;
        let partitions = usize::try_from(self.options.partitions)?;
        let end = self.watch(&app, || {
            let tasks = app.health().tasks;
            let running = tasks.values().filter(|it| **it == TaskState::Running);
            (running.count() == partitions)
                .then(|| Moment::now(restored()))
                .transpose()
        })?;
        app.stop();
        app.join()?;
        ensure!(
            begin.committed < end.committed,
            "all was restored at the first look"
        );
        Ok(begin.until(&end))
    }

    /// The metrics of each partition's task on each thread that may have it.
    fn tasks(&self, metrics: &Metrics) -> impl Iterator<Item = (TaskMetrics, i32)> {
        let threads = self.options.threads;
        let metrics = metrics.clone();
        (0..self.options.partitions).flat_map(move |partition| {
            let task = |thread| metrics.task(thread, &format!("0_{partition}"));
            let tasks: Vec<_> = (0..threads).map(|at| (task(at), partition)).collect();
            tasks
        })
    }

    /// Looks again and again until `look` has an answer or the app has ended.
    fn watch<T>(
        &self,
        app: &App<KafkaLog>,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        loop {
            if let Some(answer) = look()? {
                return Ok(answer);
            }
            ensure!(
                !app.is_finished(),
                "the application ended: {:?}",
                app.health()
            );
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    /// Compares everything the run left behind with what follows from the input.
    fn verify(&self, measured: Measured) -> Result<Report> {
        let Measured { mut report, stored } = measured;
        let mut events = Events::new(self.options.accounts, self.options.seed);
        for _ in 0..self.options.records {
            events.next();
        }
        let mut expected = BTreeMap::new();
        for (number, account) in events.accounts().iter().enumerate() {
            let mut key = Vec::new();
            events::write_key(number, &mut key)?;
            if account.version > 0 {
                let balance = account.balance();
                expected.insert(
                    key,
                    Balance {
                        version: account.version,
                        balance,
                    },
                );
            }
        }
        self.verify_offsets()?;
        let mut last: BTreeMap<Vec<u8>, Balance> = BTreeMap::new();
        let mut outputs = 0;
        self.read(&self.output, |key, balance| {
            let before = last.get(key).map_or(0, |balance| balance.version);
            ensure!(
                balance.version == before + 1,
                "output: version {} of {} after {before}",
                balance.version,
                String::from_utf8_lossy(key)
            );
            outputs += 1;
            last.insert(key.to_vec(), balance);
            Ok(())
        })?;
        ensure!(outputs == self.options.records, "{outputs} output records");
        let mut logged: BTreeMap<Vec<u8>, Balance> = BTreeMap::new();
        self.read(&self.changelog, |key, balance| {
            report.changelog_records += 1;
            logged.insert(key.to_vec(), balance);
            Ok(())
        })?;
        for (what, found) in [
            ("output", &last),
            ("changelog", &logged),
            ("store", &stored),
        ] {
            let sum: rust_decimal::Decimal = found.values().map(|entry| entry.balance).sum();
            let right: rust_decimal::Decimal = expected.values().map(|entry| entry.balance).sum();
            ensure!(
                sum == right,
                "{what}: balances sum up to {sum}, not to {right}"
            );
            ensure!(
                *found == expected,
                "{what}: not the balances that follow from the input"
            );
        }
        report.event_bytes = self.event_bytes()?;
        Ok(report)
    }

    fn verify_offsets(&self) -> Result<()> {
        let partitions = self.partitions(&self.input);
        let committed = retry(|| self.log.group_offsets(&self.application, &partitions))?;
        let ranges = retry(|| self.log.log_ranges(&partitions, Isolation::ReadCommitted))?;
        for ((partition, committed), range) in partitions.iter().zip(committed).zip(ranges) {
            let committed = committed.map(|committed| committed.offset);
            // A partition without records is never committed.
            let is_right = committed == Some(range.end) || range.end == 0;
            ensure!(
                is_right,
                "{partition:?}: committed {committed:?} of {}",
                range.end
            );
        }
        Ok(())
    }

    /// Calls `each` with every committed record, in the order of its partition.
    fn read(
        &self,
        topic: &TopicName,
        mut each: impl FnMut(&[u8], Balance) -> Result<()>,
    ) -> Result<()> {
        let partitions = self.partitions(topic);
        // The high watermark: a commit is answered before its markers are written.
        let ranges = retry(|| self.log.log_ranges(&partitions, Isolation::ReadUncommitted))?;
        let mut reader = self.log.reader(Isolation::ReadCommitted)?;
        let from: Vec<_> = partitions
            .iter()
            .map(|partition| (partition.clone(), 0))
            .collect();
        reader.assign(&from)?;
        let deadline = Instant::now() + PATIENCE;
        let mut messages = Vec::new();
        while !partitions.iter().zip(&ranges).all(|(at, range)| {
            range.end == 0
                || reader
                    .position(at)
                    .is_some_and(|position| position >= range.end)
        }) {
            ensure!(
                Instant::now() < deadline,
                "{topic}: no end within {PATIENCE:?}"
            );
            retry(|| reader.poll(1000, Duration::from_millis(100), &mut messages))?;
            for message in messages.drain(..) {
                let key = message.key().context("a record without a key")?;
                let value = message.value().context("a record without a value")?;
                each(key, serde_json::from_slice(value)?)?;
            }
        }
        Ok(())
    }

    /// Returns the mean size of the first events: JSON alone.
    fn event_bytes(&self) -> Result<u64> {
        let mut events = Events::new(self.options.accounts, self.options.seed);
        let mut random = fastrand::Rng::with_seed(self.options.seed);
        let (mut key, mut value, mut bytes) = (Vec::new(), Vec::new(), 0);
        let sample = self.options.records.clamp(1, 1000);
        for _ in 0..sample {
            events.next().write(&mut random, &mut key, &mut value)?;
            events::pad(&mut value, self.options.event_bytes, &mut random);
            bytes += u64::try_from(value.len())?;
        }
        Ok(bytes / sample)
    }
}

/// The committed records of each partition; read without asking the broker.
struct Progress(Vec<Counter>);

impl Progress {
    fn of(metrics: &Metrics, run: &Run<'_>) -> Self {
        let source =
            |(task, partition): (TaskMetrics, i32)| task.source(&run.input, partition).processed;
        Self(run.tasks(metrics).map(source).collect())
    }

    fn committed(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}
