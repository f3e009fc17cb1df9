//! `millstream run`: one process of an application, from its lock to its leave.
//!
//! ```text
//! lock the state directory ─▶ listen ─▶ wait for the log, create topics ─▶ work ─▶ drain, commit,
//!        73 in use              1             (alive, not ready)            │       leave: 0
//!                                                                          │       not in time: 1
//!                                                                          └─▶ failed: 1, 70, 73
//! ```
//! The main thread waits for events and does what they ask for; everything that may block has a
//! thread of its own.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use super::load::{Loaded, runtime_config};
use super::outcome::Exit;
use super::{Deployment, ExitCode, LogChoice, log_choice, retention, signals};
use crate::clock::{Clock, SystemClock};
use crate::event_sourcing::EventArchive;
use crate::http::{CommandProducer, HttpServer, HttpSpec, Serving};
use crate::log::{Log, LogError};
use crate::metrics::{MemoryUser, Metrics};
use crate::packaged::AggregateEndpoint;
use crate::plan;
use crate::runtime::{
    App, AppSpec, ResolvedTopology, RuntimeConfig, StartError, ThreadError, TopicsError,
    ensure_topics, error_chain, physical_name,
};
use crate::sink::{
    ConfiguredSink, RunningSinks, SinkSet, SinkTopic, SinksSpec, TopicPast, resolve_topics,
};
use crate::state::{StateDir, StateError};
use crate::topology::{TopicRef, Topology};

/// Threads of the control plane.
const HTTP_THREADS: usize = 2;
/// Reads from disk for queries at once.
const QUERY_THREADS_MAX: usize = 16;
/// How long requests may take to end after the last commit.
const HTTP_PATIENCE: Duration = Duration::from_secs(2);
/// How long a call to the log that is under way may outlast `shutdown.timeout`.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// How often the process looks at itself: memory, readiness, the end of its threads.
const TICK: Duration = Duration::from_millis(250);
/// Between attempts to reach the log: at first, and at most.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often the same trouble is logged again.
const REMIND_AFTER: Duration = Duration::from_secs(30);

/// What the main thread waits for.
enum Event {
    Signal(&'static str),
    /// The log cannot be used yet.
    Waiting(String),
    /// All topics are there, or never will be.
    Prepared(Result<ResolvedTopology, TopicsError>),
}

pub(super) fn run(deployment: &Deployment, loaded: Loaded) -> Result<(), Exit> {
    let state = open_state_dir(&loaded.config.state_dir)?;
    match deployment.log() {
        LogChoice::Kafka => run_on(log_choice::kafka(&loaded.config)?, loaded, state),
        LogChoice::EmbeddedInMemory => run_on(log_choice::in_memory(), loaded, state),
        LogChoice::EmbeddedIn(dir) => run_on(
            log_choice::in_directory(&dir, ExitCode::StateDir)?,
            loaded,
            state,
        ),
    }
}

fn open_state_dir(path: &Path) -> Result<Arc<StateDir>, Exit> {
    StateDir::open(path, || uuid::Uuid::new_v4().to_string())
        .map(Arc::new)
        .map_err(|error| Exit::because(state_exit_code(&error), &error))
}

fn run_on<L: Log>(log: L, loaded: Loaded, state: Arc<StateDir>) -> Result<(), Exit> {
    let failed = |what: &str, error: io::Error| {
        Exit::new(ExitCode::Failure, format!("error: {what}: {error}"))
    };
    let Loaded {
        config,
        topology,
        aggregates,
        projections,
        read_models,
        sinks,
    } = loaded;
    let listen = config.http.listen;
    let listener = TcpListener::bind(listen)
        .map_err(|error| failed(&format!("cannot listen on {listen} (`http.listen`)"), error))?;
    let bound = listener
        .local_addr()
        .map_err(|error| failed("no address to listen on", error))?;
    let advertised = config.http.advertised_as(bound);
    if advertised.is_none() {
        tracing::warn!("no `http.advertised`: other processes cannot redirect to this one");
    }
    let runtime = control_plane().map_err(|error| failed("cannot start threads", error))?;
    let (sender, events) = channel();
    signals::listen(runtime.handle(), sender.clone(), Event::Signal)
        .map_err(|error| failed("cannot handle signals", error))?;
    let metrics = Metrics::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let archives = aggregates.iter().filter_map(AggregateEndpoint::archive);
    let archives = archives.cloned().collect();
    let spec = HttpSpec {
        metrics: metrics.clone(),
        topology: Arc::clone(&topology),
        aggregates,
        projections,
        read_models,
        clock: Arc::clone(&clock),
    };
    let server = HttpServer::start(runtime.handle(), listener, spec)
        .map_err(|error| failed("cannot serve HTTP", error))?;
    tracing::info!(
        application = config.application_id, topology = config.topology, http = %bound,
        state_dir = %state.path().display(), process = state.process_id(),
        "listening"
    );
    let process = Process {
        log,
        topology,
        config: Arc::new(runtime_config(&config, advertised)),
        clock,
        metrics,
        state,
        server,
        control_plane: runtime.handle().clone(),
        sinks,
        archives,
    };
    let result = process.run(&events, sender);
    runtime.shutdown_timeout(HTTP_PATIENCE);
    result
}

fn control_plane() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .max_blocking_threads(QUERY_THREADS_MAX)
        .thread_name("http")
        .enable_all()
        .build()
}

struct Process<L: Log> {
    log: L,
    topology: Arc<Topology>,
    config: Arc<RuntimeConfig>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    state: Arc<StateDir>,
    server: HttpServer,
    control_plane: Handle,
    sinks: Vec<ConfiguredSink>,
    /// What the aggregates read events from that their history stores no longer have.
    archives: Vec<EventArchive>,
}

impl<L: Log> Process<L> {
    fn run(self, events: &Receiver<Event>, sender: Sender<Event>) -> Result<(), Exit> {
        let result = match self.wait_for_log(events, sender)? {
            Some(topology) => self.work(Arc::new(topology), events),
            None => Ok(()),
        };
        self.server.stop(HTTP_PATIENCE);
        if result.is_ok() {
            tracing::info!("stopped");
        }
        result
    }

    /// Waits until every topic is there. `None`: stopped by a signal first.
    fn wait_for_log(
        &self,
        events: &Receiver<Event>,
        sender: Sender<Event>,
    ) -> Result<Option<ResolvedTopology>, Exit> {
        self.server.waiting("waiting for the log");
        let (log, topology) = (self.log.clone(), Arc::clone(&self.topology));
        let config = Arc::clone(&self.config);
        let clock = Arc::clone(&self.clock);
        std::thread::Builder::new()
            .name("topics".to_owned())
            .spawn(move || prepare(&log, &topology, &config, &clock, &sender))
            .map_err(|error| Exit::because(ExitCode::Failure, &error))?;
        while let Ok(event) = events.recv() {
            match event {
                Event::Signal(signal) => {
                    tracing::info!(signal, "stopping");
                    return Ok(None);
                }
                Event::Waiting(reason) => self.server.waiting(&reason),
                Event::Prepared(Ok(topology)) => return Ok(Some(topology)),
                Event::Prepared(Err(error)) => {
                    return Err(Exit::because(ExitCode::Failure, &error));
                }
            }
        }
        Err(Exit::new(ExitCode::Bug, "nobody prepares the topics"))
    }

    fn work(&self, topology: Arc<ResolvedTopology>, events: &Receiver<Event>) -> Result<(), Exit> {
        let group = &self.config.application_id;
        let memory = topology.client_memory(&self.config);
        let log = self.log.clone().with_client_memory(memory);
        let commands = CommandProducer::start(&log, format!("{group}-commands"))
            .map_err(|error| Exit::because(ExitCode::Failure, &error))?;
        // ORDER: before tasks start, which may need events from there at once.
        self.connect_archives(&log)?;
        let sinks = self.start_sinks(&log)?;
        let app = App::start(AppSpec {
            log,
            topology,
            config: Arc::clone(&self.config),
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
            state: Arc::clone(&self.state),
        })
        .map_err(|error| Exit::because(start_exit_code(&error), &error))?;
        let serving = Serving::new(&app, group, self.state.process_id(), commands);
        self.server.serve(serving.with_sinks(sinks.statuses()));
        let (mut is_ready, mut was_ready) = (false, false);
        while !app.is_finished() {
            match events.recv_timeout(TICK) {
                Ok(Event::Signal(signal)) => {
                    tracing::info!(signal, "stopping: draining, committing, leaving the group");
                    break;
                }
                // Nobody else speaks any more.
                Ok(Event::Waiting(_) | Event::Prepared(_)) => {}
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.observe_memory(&app);
            let ready = app.health().ready;
            if ready && !was_ready {
                self.warn_of_retention(&app);
                was_ready = true;
            }
            if ready != is_ready {
                tracing::info!(ready, "readiness changed");
                is_ready = ready;
            }
        }
        self.server.drain();
        app.stop();
        let ended = self.wait_for_threads(&app);
        sinks.stop(self.config.shutdown_timeout);
        ended?;
        app.join()
            .map_err(|error| Exit::because(thread_exit_code(&error), &error))
    }

    /// Starts what the configuration has turned on. The sinks' clients have queues of their own, as
    /// large as those of one stream thread.
    fn start_sinks(&self, log: &L) -> Result<RunningSinks, Exit> {
        let mut sinks = Vec::with_capacity(self.sinks.len());
        for sink in &self.sinks {
            let name_of = |declared: &str| {
                physical_name(&self.config, &TopicRef::Declared(declared.to_owned()))
            };
            let topics = resolve_topics(log, sink, name_of)
                .map_err(|error| Exit::because(ExitCode::Unavailable, &error))?;
            sinks.push((sink.clone(), topics));
        }
        SinkSet::start(SinksSpec {
            log: log.clone(),
            runtime: self.control_plane.clone(),
            application_id: self.config.application_id.clone(),
            process_id: self.state.process_id().to_owned(),
            session_timeout: self.config.session_timeout,
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
            sinks,
        })
        .map_err(|error| Exit::because(ExitCode::Failure, &error))
    }

    /// Lets the aggregates read their events' topics, and the archive of them where there is one.
    fn connect_archives(&self, log: &L) -> Result<(), Exit> {
        for archive in &self.archives {
            let name = physical_name(
                &self.config,
                &TopicRef::Declared(archive.topic().to_owned()),
            );
            let found = log
                .describe_topics(&[&name])
                .map_err(|error| Exit::because(ExitCode::Unavailable, &error))?;
            let Some(found) = found.into_iter().flatten().next() else {
                continue;
            };
            let topic = SinkTopic {
                declared: archive.topic().to_owned(),
                name: found.name,
                partitions: found.partitions,
                id: found.id,
            };
            let mut sinks = self.sinks.iter().map(|configured| &configured.sink);
            let past = sinks.find_map(|sink| {
                let past = sink.past()?;
                sink.topics().contains(&topic.declared).then_some(past)
            });
            let past = Arc::new(TopicPast::new(log, &self.control_plane, topic, past));
            past.keep_fresh(&self.control_plane);
            archive.connect(past);
        }
        Ok(())
    }

    /// Warns when the tasks go on at a time that topics do not keep.
    fn warn_of_retention(&self, app: &App<L>) {
        let Some(at) = app.queries().stream_times().into_values().min() else {
            return;
        };
        let outlived = retention::outlived(&self.topology, &self.config, at, self.clock.now_ms());
        if !outlived.is_empty() {
            tracing::warn!(
                stream_time = at,
                topics = outlived.join(", "),
                "stream time is older than topics keep records; {}",
                retention::ADVICE
            );
        }
    }

    /// Waits for the threads, which have a limit of their own; a client that blocks in the middle of a
    /// call gets a little more, and then no longer holds up the end of the process.
    fn wait_for_threads(&self, app: &App<L>) -> Result<(), Exit> {
        let limit = self.config.shutdown_timeout.saturating_add(CALL_PATIENCE);
        let began = Instant::now();
        while !app.is_finished() {
            if began.elapsed() > limit {
                let message = format!(
                    "error: threads have not ended within {limit:?} (`shutdown.timeout` and \
                     {CALL_PATIENCE:?} for calls under way); ended without a commit"
                );
                return Err(Exit::new(ExitCode::Failure, message));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }

    fn observe_memory(&self, app: &App<L>) {
        let memory = app.memory();
        let write_buffers = memory.memtable_usage_bytes();
        // Memtables are charged to the block cache.
        let blocks = memory.rocksdb_usage_bytes().saturating_sub(write_buffers);
        let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        self.metrics
            .set_memory_used(MemoryUser::BlockCache, bytes(blocks));
        self.metrics
            .set_memory_used(MemoryUser::WriteBuffers, bytes(write_buffers));
        let held = app.memory_held();
        self.metrics
            .set_memory_used(MemoryUser::Overlays, bytes(held.overlays));
        self.metrics
            .set_memory_used(MemoryUser::RecordBuffers, bytes(held.record_buffers));
    }
}

/// Creates missing topics and records the topology, for as long as the log takes to be reached or the receiver is there.
fn prepare<L: Log>(
    log: &L,
    topology: &Arc<Topology>,
    config: &RuntimeConfig,
    clock: &Arc<dyn Clock>,
    events: &Sender<Event>,
) {
    let mut pause = RETRY_PAUSE;
    let mut last: Option<(String, Instant)> = None;
    loop {
        let prepared = ensure_topics(log, topology, config).and_then(|resolved| {
            plan::announce(log, topology.describe(), config, clock)?;
            Ok(resolved)
        });
        let error = match prepared {
            Err(TopicsError::Log(
                error @ (LogError::Retriable { .. } | LogError::UnknownTopic { .. }),
            )) => error,
            result => {
                drop(events.send(Event::Prepared(result)));
                return;
            }
        };
        let reason = format!("the log cannot be used yet: {}", error_chain(&error));
        let is_news = last
            .as_ref()
            .is_none_or(|(last, at)| *last != reason || at.elapsed() > REMIND_AFTER);
        if is_news {
            tracing::warn!(%error, "the log cannot be used yet, trying again");
            last = Some((reason.clone(), Instant::now()));
        }
        if events.send(Event::Waiting(reason)).is_err() {
            return;
        }
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

fn state_exit_code(error: &StateError) -> ExitCode {
    match error {
        StateError::Locked { .. } | StateError::Io { .. } => ExitCode::StateDir,
        _ => ExitCode::Failure,
    }
}

fn start_exit_code(error: &StartError) -> ExitCode {
    match error {
        StartError::State(error) => state_exit_code(error),
        StartError::Thread(_) => ExitCode::Failure,
    }
}

fn thread_exit_code(error: &ThreadError) -> ExitCode {
    match error {
        ThreadError::State { source, .. } => state_exit_code(source),
        ThreadError::Bug(_) | ThreadError::Panicked(_) => ExitCode::Bug,
        ThreadError::FencedInstance { .. }
        | ThreadError::Processing { .. }
        | ThreadError::DrainTimedOut { .. }
        | ThreadError::Refused(_)
        | ThreadError::Log(_)
        | ThreadError::Crash(_) => ExitCode::Failure,
    }
}
