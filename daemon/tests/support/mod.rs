//! The real binary under test: started, asked over HTTP, stopped by signals.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic, in helpers as well"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a test waits for a condition.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command of the binary to its end.
pub(crate) fn millstream(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(arguments)
        .env_remove("KAFKA_BOOTSTRAP_SERVERS")
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary starts")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until `condition` gives something.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A directory with a configuration, state and perhaps a log.
pub(crate) struct Site(TempDir);

impl Site {
    /// Writes `account.yaml` with what every test needs, and `more` below it.
    pub(crate) fn new(more: &str) -> Self {
        let site = Self(tempfile::tempdir().expect("a temporary directory"));
        let text = format!(
            "application_id: test-account\ntopology: account\nstate_dir: {}\n\
             http: {{listen: \"127.0.0.1:0\"}}\n{more}\n",
            site.path("state").display()
        );
        fs::write(site.path("account.yaml"), text).expect("the configuration is written");
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn config(&self) -> String {
        self.path("account.yaml").display().to_string()
    }

    /// The flag for a log that is kept here.
    pub(crate) fn embedded(&self) -> String {
        format!("--embedded={}", self.path("log").display())
    }
}

/// A daemon that runs. Killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    pub(crate) address: String,
    agent: ureq::Agent,
}

/// Status, body and, where there is one, the `Location`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) location: Option<String>,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Daemon {
    /// Starts `run CONFIG` with `arguments` and waits until it listens.
    pub(crate) fn start(site: &Site, arguments: &[&str]) -> Self {
        let log = site.path(&format!("daemon-{}.log", unique()));
        let file = File::create(&log).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .arg("run")
            .arg(site.config())
            .args(arguments)
            .env_remove("KAFKA_BOOTSTRAP_SERVERS")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the binary starts");
        let mut daemon = Self {
            child,
            log,
            address: String::new(),
            agent: agent(),
        };
        daemon.address = until("the daemon listens", || {
            let text = daemon.log();
            // What it said before it ended counts: some tests want it to end.
            let address = text
                .split_once("http=")
                .and_then(|(_, rest)| rest.split_once(char::is_whitespace))
                .map(|(address, _)| address.to_owned());
            if address.is_none()
                && let Some(status) = daemon.child.try_wait().expect("the daemon's status")
            {
                panic!("the daemon has ended: {status}\n{text}");
            }
            address
        });
        daemon
    }

    pub(crate) fn start_ready(site: &Site, arguments: &[&str]) -> Self {
        let daemon = Self::start(site, arguments);
        daemon.wait_ready();
        daemon
    }

    pub(crate) fn wait_ready(&self) {
        until("the daemon is ready", || {
            let answer = self.get("/health/ready");
            (answer.status == 200).then_some(())
        });
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the daemon's log")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(&self.agent, &self.address, path)
    }

    pub(crate) fn text(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.address);
        let mut response = self.agent.get(url).call().expect("an answer");
        let body = response.body_mut().read_to_string().expect("a body");
        (response.status().as_u16(), body)
    }

    /// Sends a command with an `Idempotency-Key`.
    pub(crate) fn command(&self, id: &str, key: &str, body: &Value) -> Answer {
        let path = format!("/commands/Account/{id}");
        self.post(&path, Some(key), &body.to_string())
    }

    pub(crate) fn post(&self, path: &str, key: Option<&str>, body: &str) -> Answer {
        post(&self.agent, &self.address, path, key, body.as_bytes())
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(sent.expect("`kill` runs").success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the daemon ends", || {
            self.child.try_wait().expect("the daemon's status")
        })
    }

    /// SIGTERM, and exit code 0.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    pub(crate) fn kill(mut self) {
        self.signal("KILL");
        self.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

pub(crate) fn get(agent: &ureq::Agent, address: &str, path: &str) -> Answer {
    answer(agent.get(format!("http://{address}{path}")).call())
}

pub(crate) fn post(
    agent: &ureq::Agent,
    address: &str,
    path: &str,
    key: Option<&str>,
    body: &[u8],
) -> Answer {
    let mut request = agent.post(format!("http://{address}{path}"));
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    answer(request.send(body))
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.expect("an answer");
    let location = response.headers().get("location");
    let location = location.map(|value| value.to_str().expect("ASCII").to_owned());
    let text = response.body_mut().read_to_string().expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer {
        status: response.status().as_u16(),
        body,
        location,
    }
}

/// A number that no other call in this process gets.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A file's whole text.
pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the file")
}
