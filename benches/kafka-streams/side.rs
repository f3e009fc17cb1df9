//! millstream's side: a process of its own, with the arguments of the Java program.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millstream::clock::SystemClock;
use millstream::log::Log;
use millstream::log::kafka::KafkaLog;
use millstream::metrics::{Metrics, TaskState};
use millstream::runtime::{App, AppSpec, RuntimeConfig, TopicOverride, ensure_topics};
use millstream::state::StateDir;
use millstream::topology::TaskId;
use tracing_subscriber::EnvFilter;

use crate::words::Word;
use crate::workload::Workload;

/// Time between two looks at the tasks until all of them run.
const LOOK_EVERY: Duration = Duration::from_millis(5);

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
    /// Over the defaults: `memory.max=BYTES`.
    settings: Vec<String>,
}

impl SideArgs {
    fn config(&self) -> Result<RuntimeConfig> {
        let mut config = RuntimeConfig::new(self.application.clone(), &self.state_dir);
        let (input, users, output) = self.workload.topics();
        let users = users.map(|users| (users, &self.users));
        let named = [(input, &self.input), (output, &self.output)];
        for (declared, topic) in named.into_iter().chain(users) {
            let named = TopicOverride {
                name: Some(topic.clone()),
                ..TopicOverride::default()
            };
            config.topics.insert(declared.to_owned(), named);
        }
        for setting in &self.settings {
            match setting.split_once('=') {
                Some(("memory.max", bytes)) => config.memory_max = bytes.parse()?,
                Some(_) | None => bail!("no setting `{setting}`"),
            }
        }
        Ok(config)
    }
}

/// Runs until standard input ends.
pub(crate) fn run(args: &SideArgs) -> Result<()> {
    let quiet = EnvFilter::builder().with_default_directive(tracing::Level::ERROR.into());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(quiet.from_env_lossy());
    subscriber.init();
    let log = KafkaLog::new(&args.servers, std::collections::BTreeMap::new())?;
    let config = args.config()?;
    let topology = Arc::new(args.workload.topology()?);
    let topology = ensure_topics(&log, &topology, &config)?;
    let state = StateDir::open(&config.state_dir, || "compare".to_owned())?;
    let metrics = Metrics::new();
    let app = App::start(AppSpec {
        log,
        topology: Arc::new(topology),
        config: Arc::new(config),
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
        state: Arc::new(state),
    })?;
    let waker = std::thread::current();
    let input = std::thread::spawn(move || {
        let ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        waker.unpark();
        ended
    });
    let mut teller = Teller::default();
    while !input.is_finished() && !app.is_finished() {
        let is_running = teller.look(&app, &metrics)?;
        let pause = if is_running {
            Duration::from_millis(100)
        } else {
            LOOK_EVERY
        };
        std::thread::park_timeout(pause);
    }
    app.stop();
    app.join()?;
    Ok(())
}

/// Tells the observer, once each, that a restore has begun, and that all tasks run.
#[derive(Debug, Default)]
struct Teller {
    has_begun: bool,
    is_running: bool,
}

impl Teller {
    /// Returns whether all tasks run or have run: then nothing is left to tell.
    fn look<L: Log>(&mut self, app: &App<L>, metrics: &Metrics) -> Result<bool> {
        if self.is_running {
            return Ok(true);
        }
        let health = app.health();
        if !self.has_begun && health.tasks.values().any(|it| *it == TaskState::Restoring) {
            self.has_begun = true;
            say(Word::Restoring)?;
        }
        if health.ready && !health.tasks.is_empty() {
            self.is_running = true;
            let restored = health.tasks.keys();
            let restored = restored.map(|id| restored_by(app, metrics, *id)).sum();
            say(Word::Running { restored })?;
        }
        Ok(self.is_running)
    }
}

/// Returns how many records a task has read from changelogs.
fn restored_by<L: Log>(app: &App<L>, metrics: &Metrics, id: TaskId) -> u64 {
    // Its only thread.
    let task = metrics.task(0, &id.to_string());
    let sub_topology = app.topology().sub_topology(id.sub_topology);
    let stores = sub_topology.iter().flat_map(|sub| &sub.drawn.stores);
    stores
        .map(|store| task.store(&store.name).restored_records.get())
        .sum()
}

fn say(word: Word) -> Result<()> {
    use std::io::Write as _;

    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{word}").context("nobody listens")?;
    stdout.flush().context("nobody listens")
}
