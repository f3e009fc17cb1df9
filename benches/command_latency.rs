//! Latency of commands on real Kafka: single ones on an idle daemon, or many at a fixed rate.
//!
//! Starts the daemon with `config/account.yaml` under names of its own, sends it one `TopUp` at a
//! time over HTTP, and measures from just before each request
//! - `reply`: until the HTTP answer is there;
//! - `visible`: until a read-committed consumer of this program, which knows nothing of millstream,
//!   has the balance record of that command from `billing.account.balances`.
//!
//! With `--senders` above 1, commands are due at fixed times whether those before them are answered or
//! not, and are measured from when they were due: a daemon that falls behind cannot hide it.
//!
//! Fails when a command is not accepted or its record does not come.
#![expect(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How long the daemon may take to become ready, and a command's record to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// The read model has the partition count of the shipped configuration.
const PARTITIONS: i32 = 3;
const DECLARED_TOPICS: [&str; 12] = [
    "billing.account.commands",
    "billing.account.events",
    "billing.account.replies",
    BALANCES,
    "billing.account.movements",
    "billing.account.turnover",
    "billing.account.status-counts",
    "billing.account.audit",
    "billing.transaction.commands",
    "billing.transaction.events",
    "billing.transaction.replies",
    "billing.account.dlq",
];
const BALANCES: &str = "billing.account.balances";

#[derive(Debug, Parser)]
struct Options {
    /// Commands that are measured.
    #[arg(long, default_value_t = 100)]
    commands: usize,
    /// Milliseconds from one command to the next.
    #[arg(long, default_value_t = 200)]
    interval_ms: u64,
    /// Commands before them, one after the other: a broker that has just started is slow.
    #[arg(long, default_value_t = 500)]
    warm_up: usize,
    /// Accounts that take turns.
    #[arg(long, default_value_t = 10)]
    accounts: usize,
    /// Commands that may be under way at once; enough of them keep to the interval whatever happens.
    #[arg(long, default_value_t = 1)]
    senders: usize,
    /// The daemon [default: `millstream` beside the folder of this program].
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// Its configuration.
    #[arg(long, default_value = "config/account.yaml")]
    config: PathBuf,
    /// More settings for it, as in `millstream run --set`.
    #[arg(long = "set")]
    settings: Vec<String>,
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
    let application = format!("bench-{:016x}", fastrand::u64(..));
    let daemon = Daemon::start(&options, &servers, &application)?;
    let client = Client::of(&daemon);
    client.await_ready(&daemon)?;
    let reader = ForeignReader::start(&servers, &format!("{application}.{BALANCES}"))?;
    let samples = measure(&options, &client, &reader, &application);
    // Before the daemon goes, and its log with it.
    let samples = samples.with_context(|| daemon.log_tail())?;
    reader.stop()?;
    let report = Report::of(&options, samples);
    println!("{report}");
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// The daemon under test, killed on drop: its names are this run's own, so nobody waits for it.
struct Daemon {
    process: Child,
    url: String,
    work: tempfile::TempDir,
}

impl Daemon {
    fn start(options: &Options, servers: &str, application: &str) -> Result<Self> {
        let binary = match &options.daemon {
            Some(binary) => binary.clone(),
            None => beside_this_program()?,
        };
        let work = tempfile::TempDir::with_prefix("millstream-bench-")?;
        // Free now, and most likely so in a moment: nobody else takes ports by number.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut settings = vec![
            format!("application_id={application}"),
            format!("kafka.bootstrap_servers={servers}"),
            format!("state_dir={}", work.path().join("state").display()),
            format!("http.listen={address}"),
        ];
        settings.extend(
            DECLARED_TOPICS.map(|topic| format!("topics.\"{topic}\".name={application}.{topic}")),
        );
        settings.extend_from_slice(&options.settings);
        let log = File::create(work.path().join("log"))?;
        let process = Command::new(&binary)
            .arg("run")
            .arg(&options.config)
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Self {
            process,
            url: format!("http://{address}"),
            work,
        })
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.work.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.split_at(lines.len().saturating_sub(20)).1;
        format!("the daemon's last lines:\n{}", tail.join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already ended: nothing to do.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// `target/release/deps/command_latency-…` ─▶ `target/release/millstream`.
fn beside_this_program() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program
        .parent()
        .and_then(Path::parent)
        .context("this program has no folder")?;
    let binary = folder.join("millstream");
    ensure!(
        binary.is_file(),
        "{} is missing: `cargo build --release -p millstream-daemon`, or name one by `--daemon`",
        binary.display()
    );
    Ok(binary)
}

/// Whoever sends commands: one kept-alive connection.
struct Client {
    agent: ureq::Agent,
    url: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    aggregate_version: u64,
}

impl Client {
    fn of(daemon: &Daemon) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build();
        Self {
            agent: config.into(),
            url: daemon.url.clone(),
        }
    }

    fn await_ready(&self, daemon: &Daemon) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.agent.get(format!("{}/health/ready", self.url)).call();
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the daemon is not ready after {PATIENCE:?}; {}",
                daemon.log_tail()
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Sends a command and returns the account's version after it.
    fn send(&self, account: &str, kind: &str, data: &serde_json::Value) -> Result<u64> {
        let command = json!({
            "commandId": format!("cmd-{:016x}", fastrand::u64(..)),
            "commandType": kind,
            "timestamp": "2025-12-09T12:00:00.000Z",
            "data": data,
        });
        let url = format!("{}/commands/Account/{account}", self.url);
        let mut answer = self.agent.post(url).send_json(command)?;
        let status = answer.status();
        if status != 200 {
            bail!("{kind}: {status} {}", answer.body_mut().read_to_string()?);
        }
        Ok(answer.body_mut().read_json::<Reply>()?.aggregate_version)
    }
}

/// A balance record and when it was seen.
type Seen = (String, u64, Instant);

/// A consumer by librdkafka alone.
struct ForeignReader {
    seen: Receiver<Seen>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl ForeignReader {
    fn start(servers: &str, topic: &str) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", "bench-foreign-reader")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "10")
            .create()?;
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        let (sender, seen) = channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopping);
        let thread = std::thread::spawn(move || read(&consumer, &sender, &told));
        Ok(Self {
            seen,
            stopping,
            thread,
        })
    }

    /// Waits for the record of a version of an account; returns when it was seen.
    fn await_record(&self, account: &str, version: u64) -> Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (key, found, at) = self
                .seen
                .recv_timeout(left)
                .with_context(|| format!("no balance of {account} version {version}"))?;
            if key == account && found == version {
                return Ok(at);
            }
        }
    }

    fn stop(self) -> Result<()> {
        self.stopping.store(true, Ordering::Release);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?
    }
}

fn read(consumer: &BaseConsumer, sender: &Sender<Seen>, stopping: &AtomicBool) -> Result<()> {
    #[derive(Deserialize)]
    struct Balance {
        version: u64,
    }

    while !stopping.load(Ordering::Acquire) {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let at = Instant::now();
        let message = message?;
        let key = String::from_utf8(message.key().context("no key")?.to_vec())?;
        let Balance { version } = serde_json::from_slice(message.payload().context("no value")?)?;
        if sender.send((key, version, at)).is_err() {
            break;
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Samples {
    reply: Vec<Duration>,
    visible: Vec<Duration>,
}

fn measure(
    options: &Options,
    client: &Client,
    reader: &ForeignReader,
    application: &str,
) -> Result<Samples> {
    let accounts: Vec<String> = (0..options.accounts.max(1))
        .map(|number| format!("{application}-{number}"))
        .collect();
    let top_up = json!({"amount": "1.00", "reason": "Bench"});
    for account in &accounts {
        client.send(
            account,
            "OpenAccount",
            &json!({"owner": "Bench", "currency": "EUR"}),
        )?;
        let version = client.send(account, "TopUp", &top_up)?;
        reader.await_record(account, version)?;
    }
    for account in accounts.iter().cycle().take(options.warm_up) {
        let version = client.send(account, "TopUp", &top_up)?;
        reader.await_record(account, version)?;
    }
    if options.senders > 1 {
        return at_a_rate(options, client, reader, &accounts);
    }
    let mut samples = Samples::default();
    let mut due = Instant::now();
    for account in accounts.iter().cycle().take(options.commands) {
        due += Duration::from_millis(options.interval_ms);
        wait_until(due);
        let sent = Instant::now();
        let version = client.send(account, "TopUp", &top_up)?;
        samples.reply.push(sent.elapsed());
        let visible = reader.await_record(account, version)?;
        samples
            .visible
            .push(visible.saturating_duration_since(sent));
    }
    Ok(samples)
}

fn wait_until(due: Instant) {
    while let Some(pause) = due
        .checked_duration_since(Instant::now())
        .filter(|pause| !pause.is_zero())
    {
        std::thread::park_timeout(pause);
    }
}

/// A command that was answered.
struct Answered {
    account: String,
    version: u64,
    due: Instant,
    replied: Instant,
}

/// Sends commands when they are due, from as many threads as may be under way at once.
fn at_a_rate(
    options: &Options,
    client: &Client,
    reader: &ForeignReader,
    accounts: &[String],
) -> Result<Samples> {
    let start = Instant::now() + Duration::from_millis(100);
    let interval = Duration::from_millis(options.interval_ms);
    let top_up = json!({"amount": "1.00", "reason": "Bench"});
    let sender = |first: usize| -> Result<Vec<Answered>> {
        let mut answered = Vec::new();
        let own = accounts.iter().cycle().enumerate().take(options.commands);
        for (number, account) in own.skip(first).step_by(options.senders) {
            let due = start + interval * u32::try_from(number)?;
            wait_until(due);
            let version = client.send(account, "TopUp", &top_up)?;
            answered.push(Answered {
                account: account.clone(),
                version,
                due,
                replied: Instant::now(),
            });
        }
        Ok(answered)
    };
    let answered = std::thread::scope(|scope| {
        let sender = &sender;
        let threads: Vec<_> = (0..options.senders)
            .map(|first| scope.spawn(move || sender(first)))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            let sent = thread.join();
            all.extend(sent.map_err(|_| anyhow::anyhow!("a sender panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    let mut missing: BTreeMap<(String, u64), Instant> = answered
        .iter()
        .map(|answered| ((answered.account.clone(), answered.version), answered.due))
        .collect();
    ensure!(
        missing.len() == answered.len(),
        "two commands made one version"
    );
    let mut samples = Samples::default();
    for answered in &answered {
        let took = answered.replied.saturating_duration_since(answered.due);
        samples.reply.push(took);
    }
    while !missing.is_empty() {
        let (account, version, at) = reader
            .seen
            .recv_timeout(PATIENCE)
            .with_context(|| format!("{} balances have not come", missing.len()))?;
        if let Some(due) = missing.remove(&(account, version)) {
            samples.visible.push(at.saturating_duration_since(due));
        }
    }
    Ok(samples)
}

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    commands: usize,
    interval_ms: u64,
    /// By what was waited for: milliseconds.
    latency_ms: BTreeMap<&'static str, Quantiles>,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Report {
    fn of(options: &Options, samples: Samples) -> Self {
        let latency_ms = [("reply", samples.reply), ("visible", samples.visible)];
        Self {
            bench: "command_latency",
            commands: options.commands,
            interval_ms: options.interval_ms,
            latency_ms: latency_ms
                .into_iter()
                .map(|(what, all)| (what, quantiles(all)))
                .collect(),
        }
    }
}

fn quantiles(mut all: Vec<Duration>) -> Quantiles {
    all.sort();
    // Nearest rank: the smallest sample that this many per cent of all do not exceed.
    let at = |percent: usize| {
        let rank = (all.len() * percent).div_ceil(100);
        let sample = all.get(rank.saturating_sub(1)).copied().unwrap_or_default();
        (sample.as_secs_f64() * 1e5).round() / 100.0
    };
    Quantiles {
        p50: at(50),
        p90: at(90),
        p99: at(99),
        max: at(100),
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} commands, one every {} ms",
            self.commands, self.interval_ms
        )?;
        write!(f, "\n             p50 ms   p90 ms   p99 ms   max ms")?;
        for (what, Quantiles { p50, p90, p99, max }) in &self.latency_ms {
            write!(f, "\n{what:<8}  {p50:>9.2}{p90:>9.2}{p99:>9.2}{max:>9.2}")?;
        }
        Ok(())
    }
}
