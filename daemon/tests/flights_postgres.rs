//! The current state of flight legs in a real PostgreSQL: a slice of real departures, and the table emptied
//! and filled again.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

#[path = "support/flights.rs"]
mod flights;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use flights::{data, feed, pages, said_by, site, text, wait_until_shown};
use serde_json::Value;
use support::{Daemon, millstream, read, stderr, stdout, until};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

const URL: &str = "MILLSTREAM_POSTGRES_URL";
const SLICE: &str = "flights-2013-01-08.slice.csv";
const PATIENCE: Duration = Duration::from_secs(60);

/// By leg: status, gate, the scheduled departure, departure delay, gaps, version.
type Rows = BTreeMap<String, (String, Option<String>, String, Option<i64>, Value, i64)>;

/// Reads the table; `None` while there is none.
fn rows(runtime: &Runtime, url: &str, schema: &str) -> Option<Rows> {
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
        tokio::spawn(connection);
        let sql = format!(
            "SELECT flight_id, status, gate, \
             to_char(scheduled_departure AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), \
             departure_delay_minutes::bigint, gaps::text, version FROM {schema}.flight_leg"
        );
        let rows = client.query(&sql, &[]).await.ok()?;
        let rows = rows.iter().map(|row| {
            let gaps: String = row.get(5);
            let row_of = (
                row.get(1),
                row.get(2),
                row.get(3),
                row.get(4),
                serde_json::from_str(&gaps).unwrap(),
                row.get(6),
            );
            (row.get(0), row_of)
        });
        Some(rows.collect())
    })
}

/// Makes every row wrong, so that only filling the table again mends it.
fn spoil(runtime: &Runtime, url: &str, schema: &str) {
    let sql = format!("UPDATE {schema}.flight_leg SET status = 'wrong'");
    let spoilt = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.execute(&sql, &[]).await.unwrap()
    });
    assert!(spoilt > 0);
}

/// What the documents say that the rows must hold.
fn documents(daemon: &Daemon) -> Rows {
    let string = |item: &Value, field: &str| item[field].as_str().map(str::to_owned);
    pages(daemon, "/flights", text("flightId"))
        .into_iter()
        .map(|(id, item)| {
            let row = (
                string(&item, "status").unwrap(),
                string(&item, "gate"),
                string(&item, "scheduledDeparture").unwrap(),
                item["departureDelayMinutes"].as_i64(),
                item["gaps"].clone(),
                item["version"].as_i64().unwrap(),
            );
            (id, row)
        })
        .collect()
}

#[test]
fn legs_become_rows_and_again_after_the_table_was_emptied() {
    let url = std::env::var(URL).ok().filter(|url| !url.is_empty());
    let Some(url) = url else {
        let line = format!("SKIPPED legs_become_rows: {URL} is not set (scripts/test sets it)\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let schema = format!("legs_{}", std::process::id());
    let site = site(
        "test-flights",
        &format!(
            "sinks:\n  postgres:\n    url: \"{url}\"\n    schema: {schema}\n    batch_rows: 50"
        ),
    );
    let log = site.embedded();
    feed(&site, SLICE, &[&log]);
    let daemon = Daemon::start_ready(&site, &[&log]);
    wait_until_shown(&daemon, &said_by(&read(&data(SLICE))), PATIENCE);
    let expected = documents(&daemon);
    assert_eq!(expected.len(), 257);
    let becomes = |what: &str| {
        until(what, || {
            (rows(&runtime, &url, &schema).as_ref() == Some(&expected)).then_some(())
        });
    };
    becomes("the table is what the documents say");
    daemon.kill();

    let daemon = Daemon::start_ready(&site, &[&log]);
    spoil(&runtime, &url, &schema);
    assert_ne!(rows(&runtime, &url, &schema).as_ref(), Some(&expected));
    let rebuilt = millstream(&["rebuild-sink", &site.config(), "postgres", &log]);
    assert!(rebuilt.status.success(), "{}", stderr(&rebuilt));
    assert!(stdout(&rebuilt).contains("flight_leg emptied"));
    becomes("the table is filled again");
    daemon.stop();
}
