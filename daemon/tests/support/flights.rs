//! A deployment of `flight-leg` under test, and what a plain pass over a file of flights says that it must
//! show. The pass shares no code with the feed or the topology.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in helpers as well"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Daemon, Site, until};

pub(crate) fn data(file: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/nycflights13");
    folder.join(file)
}

/// Returns a place with a configuration of `flight-leg` and `more` below it.
pub(crate) fn site(application_id: &str, more: &str) -> Site {
    let site = Site::new("");
    let text = format!(
        "application_id: {application_id}\ntopology: flight-leg\nstate_dir: {}\n\
         http: {{listen: \"127.0.0.1:0\"}}\n{more}\n",
        site.path("state").display()
    );
    fs::write(site.config(), text).unwrap();
    site
}

/// Runs `millstream feed flights FILE` to its end; returns what it printed.
pub(crate) fn feed(site: &Site, file: &str, more: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["feed", "flights"])
        .arg(data(file))
        .args(["--config", &site.config()])
        .args(more)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Reads all pages of a read model; returns its items by `key`.
pub(crate) fn pages(
    daemon: &Daemon,
    path: &str,
    key: impl Fn(&Value) -> String,
) -> BTreeMap<String, Value> {
    let mut items = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let mark = if path.contains('?') { '&' } else { '?' };
        // Groups are answered once all partitions have built them, which is a moment after "ready".
        let answer = until("the read model is built", || {
            let answer = daemon.get(&format!("{path}{mark}limit=1000{cursor}"));
            (answer.status != 503).then_some(answer)
        });
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["partitionsNotHere"], serde_json::json!([]));
        for item in answer.body["items"].as_array().unwrap() {
            let before = items.insert(key(item), item.clone());
            assert_eq!(before, None, "an item comes once");
        }
        match answer.body["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

pub(crate) fn text(field: &'static str) -> impl Fn(&Value) -> String {
    move |item| item[field].as_str().unwrap().to_owned()
}

/// Flights, cancelled, minutes of late departures, minutes of late arrivals, left without arrival delay.
pub(crate) type Figures = (i64, i64, i64, i64, i64);

/// What a file says: figures by carrier, and legs by the status that they end in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) carriers: BTreeMap<String, Figures>,
    pub(crate) statuses: BTreeMap<String, i64>,
    pub(crate) ids: BTreeSet<String>,
}

pub(crate) fn said_by(csv: &str) -> Said {
    let mut said = Said::default();
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |name: &str| cells[names.iter().position(|known| *known == name).unwrap()];
        let number = |name: &str| cell(name).parse::<i64>().ok();
        let figures = said.carriers.entry(cell("carrier").to_owned()).or_default();
        figures.0 += 1;
        let left = number("dep_time").is_some();
        figures.1 += i64::from(!left);
        figures.2 += number("dep_delay").unwrap_or(0).max(0);
        figures.3 += number("arr_delay").unwrap_or(0).max(0);
        figures.4 += i64::from(left && number("arr_delay").is_none());
        let status = match (left, number("arr_time"), number("arr_delay")) {
            (false, ..) => "Cancelled",
            (true, _, Some(_)) => "Arrived",
            (true, Some(_), None) => "Landed",
            (true, None, None) => "Departed",
        };
        *said.statuses.entry(status.to_owned()).or_default() += 1;
        said.ids.insert(format!(
            "{}{}-{}-{:0>2}-{:0>2}-{}-{}",
            cell("carrier"),
            cell("flight"),
            cell("year"),
            cell("month"),
            cell("day"),
            cell("origin"),
            cell("dest")
        ));
    }
    said
}

/// What the daemon's analytics say.
pub(crate) fn shown_by(daemon: &Daemon) -> Said {
    let number = |item: &Value, name: &str| item[name].as_i64().unwrap();
    let carriers = pages(daemon, "/analytics/carriers", text("airline"));
    let statuses = pages(daemon, "/analytics/status", text("status"));
    Said {
        carriers: carriers
            .into_iter()
            .map(|(carrier, item)| {
                let figures = (
                    number(&item, "flights"),
                    number(&item, "cancelled"),
                    number(&item, "delayMinutes"),
                    number(&item, "arrivalDelayMinutes"),
                    number(&item, "divertedOrUnknown"),
                );
                (carrier, figures)
            })
            .collect(),
        statuses: statuses
            .into_iter()
            .map(|(status, item)| (status, number(&item, "flights")))
            .filter(|(_, flights)| *flights != 0)
            .collect(),
        ids: pages(daemon, "/flights", text("flightId"))
            .into_keys()
            .collect(),
    }
}

/// Waits until the daemon shows what the file says.
pub(crate) fn wait_until_shown(daemon: &Daemon, said: &Said, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let shown = shown_by(daemon);
        if shown == *said {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not within {patience:?}: {:?} {:?}\nbut {:?} {:?}\n{}",
            said.carriers,
            said.statuses,
            shown.carriers,
            shown.statuses,
            daemon.log()
        );
        std::thread::park_timeout(Duration::from_millis(200));
    }
}
