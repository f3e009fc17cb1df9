//! The real binary with a real PostgreSQL: commands become rows, whatever is killed or away when.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use support::{Daemon, Site, millstream, stderr, stdout, until};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

const URL: &str = "MILLSTREAM_POSTGRES_URL";

/// Balance, status and version by account.
type Rows = BTreeMap<String, (String, String, i64)>;

struct Database {
    runtime: Runtime,
    url: String,
    schema: String,
}

impl Database {
    fn of(test: &str) -> Option<Self> {
        let url = std::env::var(URL).ok().filter(|url| !url.is_empty());
        let Some(url) = url else {
            // Past the harness's capture: a skip that nobody sees looks like a pass.
            let line = format!("SKIPPED {test}: {URL} is not set (scripts/test sets it)\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let process = std::process::id();
        let schema = format!("daemon_{process}_{}", test.len());
        Some(Self {
            runtime,
            url,
            schema,
        })
    }

    fn site(&self) -> Site {
        Site::new(&format!(
            "sinks:\n  postgres:\n    url: \"{}\"\n    schema: {}\n    batch_rows: 20",
            self.url, self.schema
        ))
    }

    /// Returns the table; `None` while there is none, or no server.
    fn rows(&self) -> Option<Rows> {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.ok()?;
            tokio::spawn(connection);
            let sql = format!(
                "SELECT account_id, balance::text, status, version FROM {}.account_projections",
                self.schema
            );
            let rows = client.query(&sql, &[]).await.ok()?;
            let rows = rows.iter();
            Some(
                rows.map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3))))
                    .collect(),
            )
        })
    }

    fn assert_becomes(&self, expected: &Rows) {
        until("the table is what the commands made", || {
            (self.rows().as_ref() == Some(expected)).then_some(())
        });
    }
}

fn server(command: &str) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres");
    let output = Command::new(script).arg(command).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Accounts that are paid into, and what they are to become.
struct Bank {
    commands: u64,
    expected: Rows,
}

impl Bank {
    /// Sends commands, each until it is answered; `daemon` may be killed between two calls.
    fn pay(&mut self, daemon: &Daemon, count: u64) {
        for _ in 0..count {
            let number = self.commands;
            self.commands += 1;
            let id = format!("account-{}", number % 7);
            let known = self.expected.get(&id).map(|(_, _, version)| *version);
            let body = match known {
                None => json!({"commandType": "OpenAccount",
                    "data": {"owner": "Ada", "currency": "EUR"}}),
                Some(_) => json!({"commandType": "TopUp",
                    "data": {"amount": "2.50", "reason": "test"}}),
            };
            until("the command is carried out", || {
                let answer = daemon.command(&id, &format!("command-{number}"), &body);
                let accepted = answer.status == 200 && answer.body["outcome"] == "ACCEPTED";
                accepted.then_some(())
            });
            let version = known.unwrap_or(0) + 1;
            let cents = 250 * (version - 1);
            let balance = format!("{}.{:02}", cents / 100, cents % 100);
            self.expected
                .insert(id, (balance, "ACTIVE".to_owned(), version));
        }
    }

    /// Opens, closes and removes an account: its row comes, changes and goes.
    fn remove(&mut self, daemon: &Daemon, database: &Database) {
        let steps = [
            (
                "OpenAccount",
                json!({"owner": "Eve", "currency": "EUR"}),
                Some("ACTIVE"),
            ),
            (
                "ChangeStatus",
                json!({"newStatus": "CLOSED", "reason": "test"}),
                Some("CLOSED"),
            ),
            ("RemoveAccount", json!({"reason": "test"}), None),
        ];
        for (version, (kind, data, status)) in (1..).zip(steps) {
            let body = json!({"commandType": kind, "data": data});
            let answer = daemon.command("gone", kind, &body);
            assert_eq!(answer.status, 200, "{answer:?}");
            match status {
                Some(status) => {
                    let row = ("0.00".to_owned(), status.to_owned(), version);
                    self.expected.insert("gone".to_owned(), row);
                }
                None => drop(self.expected.remove("gone")),
            }
            database.assert_becomes(&self.expected);
        }
    }
}

fn sink(daemon: &Daemon) -> Value {
    daemon.get("/sinks").body[0].clone()
}

#[test]
fn commands_become_rows_whatever_is_killed_or_away() {
    let Some(database) = Database::of("commands_become_rows_whatever_is_killed_or_away") else {
        return;
    };
    let site = database.site();
    let embedded = site.embedded();
    let mut bank = Bank {
        commands: 0,
        expected: Rows::new(),
    };
    // Killed at whatever the sink is doing, again and again.
    for _ in 0..5 {
        let daemon = Daemon::start_ready(&site, &[&embedded]);
        bank.pay(&daemon, 40);
        daemon.kill();
    }
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    database.assert_becomes(&bank.expected);

    // The database goes away: commands are answered, the process is ready, the sink says so.
    server("stop");
    bank.pay(&daemon, 30);
    let shown = until("the sink waits", || {
        let sink = sink(&daemon);
        (sink["state"] == "waiting").then_some(sink)
    });
    assert!(shown["lastError"]["message"].is_string(), "{shown}");
    assert_eq!(daemon.get("/health/ready").status, 200);
    let (_, metrics) = daemon.text("/metrics");
    assert!(metrics.contains("millstream_sink_connection_state{sink=\"postgres\"} 0"));
    server("start");
    database.assert_becomes(&bank.expected);

    // Emptied and filled again by one command while the daemon runs.
    let config = site.config();
    let before = sink(&daemon)["records"].as_u64().unwrap();
    let rebuilt = millstream(&["rebuild-sink", &config, "postgres", &embedded]);
    assert!(rebuilt.status.success(), "{}", stderr(&rebuilt));
    assert!(stdout(&rebuilt).contains("account_projections emptied"));
    bank.pay(&daemon, 20);
    database.assert_becomes(&bank.expected);
    until("it has read from the start", || {
        (sink(&daemon)["records"].as_u64().unwrap() >= before).then_some(())
    });
    bank.remove(&daemon, &database);
    let unknown = millstream(&["rebuild-sink", &config, "postgers", &embedded]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        stderr(&unknown).contains("it has: postgres"),
        "{}",
        stderr(&unknown)
    );
    daemon.stop();
    assert_eq!(database.rows().as_ref(), Some(&bank.expected));
}
