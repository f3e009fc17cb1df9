//! Two processes of one application over one embedded log: redirects, replies that do not come, and
//! what a reset says while they live.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::clock::{Clock, SystemClock};
use millstream::event_sourcing::ReplyHub;
use millstream::http::{CommandProducer, HttpServer, HttpSpec, Serving};
use millstream::log::embedded::{EmbeddedLog, Fault, FaultPlan, FaultPoint, FaultSite};
use millstream::log::{Headers, Log, LogProducer, ProducerRecord, ProducerSpec, TopicName};
use millstream::metrics::Metrics;
use millstream::packaged::{AggregateEndpoint, Packaged};
use millstream::reset::{ResetPlan, collect_facts, plan};
use millstream::runtime::{App, AppSpec, RuntimeConfig, ThreadError, ensure_topics};
use millstream::state::StateDir;
use millstream::topology::Topology;
use millstream_account::{Account, AccountParameters, AccountTopology, COMMANDS};
use serde_json::{Value, json};
use support::{Answer, agent, get, post, until};
use tempfile::TempDir;

const APPLICATION: &str = "shared-account";

/// A process of the application, in this one.
struct Process {
    app: App<EmbeddedLog>,
    server: HttpServer,
    config: RuntimeConfig,
    topology: Arc<Topology>,
    _state: TempDir,
}

impl Process {
    fn start(
        runtime: &tokio::runtime::Runtime,
        log: &EmbeddedLog,
        endpoint: impl FnOnce(&AggregateEndpoint) -> AggregateEndpoint,
    ) -> Self {
        Self::start_with(runtime, log, endpoint, |_| {})
    }

    fn start_with(
        runtime: &tokio::runtime::Runtime,
        log: &EmbeddedLog,
        endpoint: impl FnOnce(&AggregateEndpoint) -> AggregateEndpoint,
        change: impl FnOnce(&mut RuntimeConfig),
    ) -> Self {
        let Packaged {
            topology,
            aggregates,
            projections,
            read_models,
            ..
        } = AccountTopology::draw(AccountParameters::default()).unwrap();
        let topology = Arc::new(topology);
        let directory = tempfile::tempdir().unwrap();
        let process_id = directory
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let state = Arc::new(StateDir::open(directory.path(), || process_id).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = RuntimeConfig::new(APPLICATION, directory.path());
        change(&mut config);
        config.advertised = Some(listener.local_addr().unwrap().to_string());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Metrics::new();
        let spec = HttpSpec {
            metrics: metrics.clone(),
            topology: Arc::clone(&topology),
            aggregates: vec![endpoint(&aggregates[0])],
            projections,
            read_models,
            clock: Arc::clone(&clock),
        };
        let server = HttpServer::start(runtime.handle(), listener, spec).unwrap();
        let resolved = Arc::new(ensure_topics(log, &topology, &config).unwrap());
        let app = App::start(AppSpec {
            log: log.clone(),
            topology: resolved,
            config: Arc::new(config.clone()),
            clock,
            metrics,
            state: Arc::clone(&state),
        })
        .unwrap();
        let commands = CommandProducer::start(log, "commands").unwrap();
        server.serve(Serving::new(
            &app,
            APPLICATION,
            state.process_id(),
            commands,
        ));
        Self {
            app,
            server,
            config,
            topology,
            _state: directory,
        }
    }

    fn address(&self) -> String {
        self.server.address().to_string()
    }

    fn get(&self, path: &str) -> Answer {
        get(&agent(), &self.address(), path)
    }

    fn command(&self, id: &str, key: &str, body: &Value) -> Answer {
        let path = format!("/commands/Account/{id}?from=test");
        post(
            &agent(),
            &self.address(),
            &path,
            Some(key),
            body.to_string().as_bytes(),
        )
    }

    fn wait_ready(&self) {
        until("the process is ready", || {
            (self.get("/health/ready").status == 200).then_some(())
        });
    }

    fn stop(self) {
        self.server.drain();
        self.app.stop();
        self.app.join().unwrap();
        self.server.stop(Duration::from_secs(5));
    }
}

fn open() -> Value {
    json!({"commandType": "OpenAccount", "data": {"owner": "Ada", "currency": "EUR"}})
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn log() -> EmbeddedLog {
    EmbeddedLog::in_memory(Arc::new(SystemClock))
}

#[test]
fn a_key_of_another_process_is_answered_by_a_redirect_that_works() {
    let (runtime, log) = (runtime(), log());
    let first = Process::start(&runtime, &log, Clone::clone);
    first.wait_ready();
    let second = Process::start(&runtime, &log, Clone::clone);
    let tasks = |process: &Process| {
        process.get("/health/ready").body["tasks"]
            .as_object()
            .map_or(0, serde_json::Map::len)
    };
    until("the partitions are shared", || {
        let (one, other) = (tasks(&first), tasks(&second));
        (one > 0 && other > 0 && one + other == 9).then_some(())
    });
    let mut redirected = 0;
    for number in 0..12 {
        let id = format!("account-{number}");
        // What was remembered of the owners may be older than the last move.
        let mut answer = until("an owner is known", || {
            let answer = first.command(&id, "open", &open());
            (answer.status != 503).then_some(answer)
        });
        if answer.status == 307 {
            redirected += 1;
            assert_eq!(answer.code(), "OWNED_ELSEWHERE");
            let expected = format!(
                "http://{}/commands/Account/{id}?from=test",
                second.address()
            );
            assert_eq!(answer.location.as_deref(), Some(&*expected));
            let read = first.get(&format!("/aggregates/Account/{id}"));
            let expected = format!("http://{}/aggregates/Account/{id}", second.address());
            assert_eq!(
                (read.status, read.location.as_deref()),
                (307, Some(&*expected))
            );
            assert_eq!(
                first.get(&format!("/stores/account-state/{id}")).status,
                307
            );
            answer = second.command(&id, "open", &open());
        }
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(redirected > 0 && redirected < 12, "{redirected} of 12");
    second.stop();
    first.stop();
}

#[test]
fn where_no_partition_is_served_nothing_is_listed_compared_or_rebuilt() {
    let (runtime, log) = (runtime(), log());
    let process = Process::start(&runtime, &log, Clone::clone);
    process.wait_ready();
    let answer = process.command("account-0", "open", &open());
    assert_eq!(answer.status, 200, "{answer:?}");
    let paths = [
        "/balances",
        "/verify/Account",
        "/projections/account-balances/verify",
    ];
    for path in paths {
        assert_eq!(process.get(path).status, 200, "{path}");
    }
    let Process { app, server, .. } = process;
    app.stop();
    app.join().unwrap();
    let address = server.address().to_string();
    for path in paths {
        let answer = get(&agent(), &address, path);
        assert_eq!((answer.status, answer.code()), (503, "NOT_READY"), "{path}");
    }
    let path = "/projections/account-balances/rebuild";
    let answer = post(&agent(), &address, path, None, b"");
    assert_eq!((answer.status, answer.code()), (503, "NOT_READY"));
    let shown = get(&agent(), &address, "/projections/account-balances");
    assert_eq!(shown.body["partitionsMissing"], json!([0, 1, 2]));
    server.stop(Duration::from_secs(5));
}

#[test]
fn a_process_that_joins_is_ready_only_with_its_share_of_the_partitions() {
    let (runtime, log) = (runtime(), log());
    let first = Process::start(&runtime, &log, Clone::clone);
    first.wait_ready();
    let second = Process::start(&runtime, &log, Clone::clone);
    // Of nine partitions it gets its share, which the first has to give up before.
    let answer = until("the second is ready", || {
        let answer = second.get("/health/ready");
        (answer.status == 200).then_some(answer)
    });
    let tasks = answer.body["tasks"].as_object().unwrap();
    assert!((3..=5).contains(&tasks.len()), "{answer:?}");
    assert!(tasks.values().all(|state| state == "running"), "{answer:?}");
    second.stop();
    first.stop();
}

#[test]
fn a_command_without_a_reply_in_time_is_under_way() {
    let (runtime, log) = (runtime(), log());
    let deaf = |_: &AggregateEndpoint| {
        AggregateEndpoint::of::<Account>(COMMANDS, "account-state", ReplyHub::new())
    };
    let process = Process::start(&runtime, &log, deaf);
    process.wait_ready();
    let began = Instant::now();
    let answer = process.command("a", "open", &open());
    assert_eq!(
        (answer.status, answer.body),
        (202, json!({"commandId": "open"}))
    );
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_secs(5) && waited < Duration::from_secs(8),
        "{waited:?}"
    );
    assert_eq!(
        process.get("/stores/account-state/a").status,
        200,
        "it was carried out"
    );
    process.stop();
}

#[test]
fn a_command_that_starts_a_process_is_answered_with_its_transaction_id() {
    let (runtime, log) = (runtime(), log());
    let starts = |endpoint: &AggregateEndpoint| {
        endpoint
            .clone()
            .with_processes(|command| Some(format!("tx-{}", command.command_id)))
    };
    let process = Process::start(&runtime, &log, starts);
    process.wait_ready();
    let answer = process.command("a", "open", &open());
    let expected = json!({"commandId": "open", "transactionId": "tx-open"});
    assert_eq!((answer.status, answer.body), (202, expected));
    let again = process.command("a", "again", &open());
    assert_eq!(
        (again.status, again.code()),
        (422, "ACCOUNT_EXISTS"),
        "a refusal starts nothing"
    );
    process.stop();
}

#[test]
fn a_process_that_drains_takes_no_commands() {
    let (runtime, log) = (runtime(), log());
    let process = Process::start(&runtime, &log, Clone::clone);
    process.wait_ready();
    process.server.drain();
    let answer = process.command("a", "open", &open());
    assert_eq!((answer.status, answer.code()), (503, "NOT_READY"));
    process.stop();
}

#[test]
fn a_reset_is_refused_while_a_member_is_alive_and_names_it() {
    let (runtime, log) = (runtime(), log());
    let process = Process::start(&runtime, &log, Clone::clone);
    process.wait_ready();
    let facts = collect_facts(&log, &process.topology, &process.config).unwrap();
    let refused = plan(&facts);
    assert!(matches!(refused, ResetPlan::Refused(_)), "{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("shared-account-") && text.contains("is alive"),
        "{text}"
    );
    let (config, topology) = (process.config.clone(), Arc::clone(&process.topology));
    process.stop();
    let facts = collect_facts(&log, &topology, &config).unwrap();
    assert!(matches!(plan(&facts), ResetPlan::Reset(_)), "it has left");
}

/// A log that answers everything but commits.
#[derive(Debug)]
struct NoCommits;

impl FaultPlan for NoCommits {
    fn decide(&self, site: &FaultSite<'_>) -> Option<Fault> {
        (site.point == FaultPoint::Commit).then_some(Fault::Retriable)
    }
}

#[test]
fn a_process_whose_log_is_away_stops_within_its_limit_and_says_that_it_has_not_committed() {
    let (runtime, log) = (runtime(), log());
    let limit = Duration::from_secs(1);
    let process = Process::start_with(&runtime, &log, Clone::clone, |config| {
        config.shutdown_timeout = limit;
    });
    process.wait_ready();
    log.set_faults(Some(Arc::new(NoCommits)));
    let spec = ProducerSpec {
        transactional_id: None,
        transaction_timeout: limit,
        client_id: "test".to_owned(),
    };
    let mut producer = log.producer(&spec).unwrap();
    let record = ProducerRecord {
        topic: &TopicName::from(COMMANDS),
        partition: Some(0),
        key: Some(b"a"),
        value: Some(b"not a command"),
        timestamp: 0,
        headers: &Headers::new(),
    };
    producer.send(record).unwrap();
    producer.flush().unwrap();
    until("the commit fails", || {
        (process.get("/health/ready").status == 503).then_some(())
    });
    process.server.drain();
    process.app.stop();
    let error = process.app.join().unwrap_err();
    assert!(
        matches!(error, ThreadError::DrainTimedOut { .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("shutdown.timeout") && text.contains("without a commit"),
        "{text}"
    );
    process.server.stop(Duration::from_secs(5));
}
