//! The two sides as processes: how each is started, and millstream's own `main`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use millstream::clock::SystemClock;
use millstream::log::kafka::KafkaLog;
use millstream::metrics::Metrics;
use millstream::runtime::{App, AppSpec, RuntimeConfig, TopicOverride, ensure_topics};
use millstream::state::StateDir;

use crate::workload::Workload;

/// How long a side may take to stop once its standard input has ended.
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// A side with its settings.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// In tables.
    pub(crate) name: &'static str,
    pub(crate) is_millstream: bool,
    /// Over the settings that all workloads have.
    pub(crate) settings: &'static [&'static str],
}

pub(crate) const MILLSTREAM: Contender = Contender {
    name: "millstream",
    is_millstream: true,
    settings: &[],
};

/// What Kafka Streams is told for every workload; the page says why.
pub(crate) const STREAMS_SETTINGS: [&str; 6] = [
    "commit.interval.ms=100",
    "producer.compression.type=lz4",
    "producer.batch.size=131072",
    "main.consumer.max.poll.records=5000",
    "buffered.records.per.partition=5000",
    "topology.optimization=all",
];

const CACHE_OFF: Contender = Contender {
    name: "Kafka Streams, cache off",
    is_millstream: false,
    settings: &["statestore.cache.max.bytes=0"],
};

/// The sides of a workload; the last one is compared with all others.
pub(crate) const fn contenders(workload: Workload) -> &'static [Contender] {
    match workload {
        Workload::Balances | Workload::Windowed => &[
            CACHE_OFF,
            Contender {
                name: "Kafka Streams, cache 10 MB",
                is_millstream: false,
                settings: &["statestore.cache.max.bytes=10485760"],
            },
            MILLSTREAM,
        ],
        Workload::Stateless | Workload::Joined => &[
            Contender {
                name: "Kafka Streams",
                is_millstream: false,
                settings: &[],
            },
            MILLSTREAM,
        ],
        Workload::Latency => &[
            CACHE_OFF,
            Contender {
                name: "Kafka Streams, commit 10 ms",
                is_millstream: false,
                settings: &["statestore.cache.max.bytes=0", "commit.interval.ms=10"],
            },
            MILLSTREAM,
        ],
    }
}

impl Contender {
    /// Returns whether the side emits every update, and not the last of each commit only.
    pub(crate) fn emits_every_update(&self) -> bool {
        !self
            .settings
            .iter()
            .any(|setting| setting.starts_with("statestore.cache") && !setting.ends_with("=0"))
    }
}

/// How processes are started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) servers: String,
    /// The class path of Kafka Streams' side.
    pub(crate) class_path: String,
    pub(crate) jvm_flags: Vec<String>,
    /// For `taskset`; all when absent.
    pub(crate) cpus: Option<String>,
}

/// The topics of one run of one side.
#[derive(Debug, Clone)]
pub(crate) struct RunTopics {
    pub(crate) application: String,
    pub(crate) input: String,
    pub(crate) users: String,
    pub(crate) output: String,
}

/// A side that runs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) started: Instant,
    /// Deleted after the process has ended.
    _state_dir: tempfile::TempDir,
}

impl Launch {
    pub(crate) fn start(
        &self,
        contender: &Contender,
        workload: Workload,
        topics: &RunTopics,
    ) -> Result<Running> {
        let state_dir = tempfile::TempDir::with_prefix("millstream-compare-")?;
        let mut line: Vec<String> = Vec::new();
        if let Some(cpus) = &self.cpus {
            line.extend(["taskset", "--cpu-list", cpus].map(str::to_owned));
        }
        if contender.is_millstream {
            let program = std::env::current_exe()?;
            line.extend([program.display().to_string(), "side".to_owned()]);
        } else {
            line.push("java".to_owned());
            line.extend(self.jvm_flags.iter().cloned());
            line.extend(
                [
                    "-Dlog4j2.level=ERROR",
                    "-cp",
                    &self.class_path,
                    "KafkaStreamsSide",
                ]
                .map(str::to_owned),
            );
        }
        line.extend([
            workload.letter().to_owned(),
            self.servers.clone(),
            topics.application.clone(),
            state_dir.path().display().to_string(),
            topics.input.clone(),
            topics.users.clone(),
            topics.output.clone(),
        ]);
        if !contender.is_millstream {
            let settings = STREAMS_SETTINGS.iter().chain(contender.settings);
            line.extend(settings.map(|setting| (*setting).to_owned()));
        }
        let (program, arguments) = line.split_first().context("an empty command line")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Running {
            child,
            started: Instant::now(),
            _state_dir: state_dir,
        })
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the process has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the side ended by itself: {status}");
        }
        Ok(())
    }

    /// Ends the process in an orderly way.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + STOP_WITHIN;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "the side does not stop within {STOP_WITHIN:?}"
            );
            std::thread::park_timeout(Duration::from_millis(10));
        };
        ensure!(status.success(), "the side failed at its end: {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A child that has been waited for is left alone by both.
        let killed = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = killed {
            tracing::warn!(%error, "a side could not be ended");
        }
    }
}

/// The arguments of `side`, the same as those of the Java program.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SideArgs {
    workload: Workload,
    servers: String,
    application: String,
    state_dir: PathBuf,
    input: String,
    users: String,
    output: String,
}

/// millstream's side: runs until standard input ends.
pub(crate) fn run(args: &SideArgs) -> Result<()> {
    let log = KafkaLog::new(&args.servers, std::collections::BTreeMap::new())?;
    let mut config = RuntimeConfig::new(args.application.clone(), &args.state_dir);
    let (input, users, output) = args.workload.topics();
    let users = users.map(|users| (users, &args.users));
    let named = [(input, &args.input), (output, &args.output)];
    for (declared, topic) in named.into_iter().chain(users) {
        let named = TopicOverride {
            name: Some(topic.clone()),
            ..TopicOverride::default()
        };
        config.topics.insert(declared.to_owned(), named);
    }
    let topology = Arc::new(args.workload.topology()?);
    let topology = ensure_topics(&log, &topology, &config)?;
    let state = StateDir::open(Path::new(&config.state_dir), || "compare".to_owned())?;
    let app = App::start(AppSpec {
        log,
        topology: Arc::new(topology),
        config: Arc::new(config),
        clock: Arc::new(SystemClock),
        metrics: Metrics::new(),
        state: Arc::new(state),
    })?;
    let waker = std::thread::current();
    let input = std::thread::spawn(move || {
        let ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        waker.unpark();
        ended
    });
    while !input.is_finished() && !app.is_finished() {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    app.stop();
    app.join()?;
    Ok(())
}
