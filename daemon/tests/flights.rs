//! `flight-leg` on the real binary and the embedded log: a slice of real departures is fed, served page by
//! page, and still there after a reset.

mod support;

#[path = "support/flights.rs"]
mod flights;

use std::collections::BTreeMap;
use std::time::Duration;

use flights::{data, feed, pages, said_by, site, text, wait_until_shown};
use serde_json::Value;
use support::{Daemon, millstream, read, stderr};

const SLICE: &str = "flights-2013-01-08.slice.csv";
const PATIENCE: Duration = Duration::from_secs(60);

/// Every read model, whole.
fn read_models(daemon: &Daemon) -> BTreeMap<&'static str, BTreeMap<String, Value>> {
    let two = |one: &'static str, other: &'static str| {
        move |item: &Value| format!("{} {}", item[one], item[other])
    };
    BTreeMap::from([
        ("flights", pages(daemon, "/flights", text("flightId"))),
        (
            "dashboard",
            pages(daemon, "/dashboard", two("flightId", "board")),
        ),
        ("status", pages(daemon, "/analytics/status", text("status"))),
        (
            "carriers",
            pages(daemon, "/analytics/carriers", text("airline")),
        ),
        (
            "hours",
            pages(
                daemon,
                "/analytics/carrier-hours",
                two("airline", "windowStart"),
            ),
        ),
        ("audit", pages(daemon, "/audit", two("flightId", "version"))),
        ("stands", pages(daemon, "/stands", two("airport", "stand"))),
    ])
}

/// An aggregate that has gone back to nothing.
fn is_nothing(name: &str, item: &Value) -> bool {
    name == "status" && item["flights"] == 0
}

/// How many items each read model has that are something.
fn counted<'a>(
    models: &'a BTreeMap<&'static str, BTreeMap<String, Value>>,
) -> impl Iterator<Item = usize> + 'a {
    models.iter().map(|(name, items)| {
        let items = items.values();
        items.filter(|item| !is_nothing(name, item)).count()
    })
}

#[test]
fn fed_flights_are_served_and_are_the_same_after_a_reset() {
    let site = site("test-flights", "");
    let log = site.embedded();
    let printed = feed(&site, SLICE, &[&log]);
    assert!(printed.contains("257 flights"), "{printed}");
    let said = said_by(&read(&data(SLICE)));

    let daemon = Daemon::start_ready(&site, &[&log]);
    wait_until_shown(&daemon, &said, PATIENCE);
    let before = read_models(&daemon);
    assert_eq!(before["dashboard"].len(), 2 * 257);
    assert!(before["audit"].len() > 2 * 257);
    daemon.stop();

    // What was fed before changes nothing.
    feed(&site, SLICE, &[&log]);
    let daemon = Daemon::start_ready(&site, &[&log]);
    wait_until_shown(&daemon, &said, PATIENCE);
    assert_eq!(read_models(&daemon), before);
    daemon.stop();

    let output = millstream(&["reset", &site.config(), &log, "--execute"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let daemon = Daemon::start_ready(&site, &[&log]);
    wait_until_shown(&daemon, &said, PATIENCE);
    let after = support::until("every read model is back", || {
        let after = read_models(&daemon);
        counted(&after).eq(counted(&before)).then_some(after)
    });
    for (name, items) in &before {
        for (key, item) in items {
            // An aggregate that has gone back to nothing was never there after a rebuild.
            assert!(
                is_nothing(name, item) || after[name].get(key) == Some(item),
                "{name} {key}"
            );
        }
    }
    daemon.stop();
}

#[test]
fn a_read_model_is_filtered_and_paged_and_refuses_what_it_does_not_know() {
    let site = site("test-flights", "");
    let log = site.embedded();
    feed(&site, SLICE, &[&log]);
    let csv = read(&data(SLICE));
    let said = said_by(&csv);
    let daemon = Daemon::start_ready(&site, &[&log]);
    wait_until_shown(&daemon, &said, PATIENCE);

    let cancelled = pages(&daemon, "/flights?status=Cancelled", text("flightId"));
    assert_eq!(
        i64::try_from(cancelled.len()).unwrap(),
        said.statuses.get("Cancelled").copied().unwrap_or(0)
    );
    let at_jfk = pages(&daemon, "/flights?airport=JFK", text("flightId"));
    let expected = said.ids.iter().filter(|id| id.contains("-JFK")).count();
    assert_eq!(at_jfk.len(), expected);
    let both = pages(
        &daemon,
        "/flights?airport=JFK&status=Arrived&airline=B6",
        text("flightId"),
    );
    assert!(!both.is_empty());
    for item in both.values() {
        assert_eq!(
            (&item["status"], &item["airline"]),
            (&"Arrived".into(), &"B6".into())
        );
    }

    // Small pages, one after the other, are the whole.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = daemon.get(&format!("/flights?limit=7{cursor}")).body;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 7);
        seen.extend(items.iter().map(text("flightId")));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.sort();
    assert!(seen.iter().eq(said.ids.iter()));

    for (query, code, named) in [
        ("colour=red", "UNKNOWN_FILTER", "airport"),
        ("limit=0", "MALFORMED_LIMIT", "1000"),
        ("limit=1001", "MALFORMED_LIMIT", "1000"),
        ("cursor=!", "MALFORMED_CURSOR", "cursor"),
    ] {
        let answer = daemon.get(&format!("/flights?{query}"));
        assert_eq!((answer.status, answer.code()), (400, code), "{answer:?}");
        assert!(
            answer.body["message"].as_str().unwrap().contains(named),
            "{answer:?}"
        );
    }
    // Messages come from the airport's adapter alone.
    let refused = daemon.post("/commands/FlightLeg/x", Some("k"), "{}");
    assert_eq!((refused.status, refused.code()), (404, "NO_COMMANDS"));
    let leg = said.ids.first().unwrap();
    let aggregate = daemon.get(&format!("/aggregates/FlightLeg/{leg}"));
    assert_eq!(aggregate.status, 200, "{aggregate:?}");
    daemon.stop();
}

#[test]
fn times_that_topics_do_not_keep_are_warned_of_by_the_feed_and_at_start() {
    let keep = "{config: {retention.ms: -1}}";
    let topics = format!("topics: {{aodb-input-adapter: {keep}, aodb-output-flightleg: {keep}}}");
    let site = site("test-flights", &topics);
    let log = site.embedded();
    let (file, config) = (data(SLICE).display().to_string(), site.config());
    let feed = [
        "feed",
        "flights",
        &file,
        "--config",
        &config,
        "--keep-times",
        &log,
    ];
    let warned = stderr(&millstream(&feed));
    assert!(
        warned.contains("aodb-dlq") && warned.contains("retention.ms"),
        "{warned}"
    );
    assert!(!warned.contains("aodb-output-flightleg"), "{warned}");

    let daemon = Daemon::start_ready(&site, &[&log]);
    wait_until_shown(&daemon, &said_by(&read(&data(SLICE))), PATIENCE);
    daemon.stop();
    let daemon = Daemon::start_ready(&site, &[&log]);
    support::until("the daemon warns", || {
        let log = daemon.log();
        (log.contains("stream time is older") && log.contains("aodb-dlq")).then_some(())
    });
    daemon.stop();
}

#[test]
fn a_feed_that_cannot_be_is_refused_before_anything_is_written() {
    let site = site("test-flights", "");
    let log = site.embedded();
    let config = site.config();
    let run = |name: &str, file: &str| {
        let output = millstream(&["feed", name, file, "--config", &config, &log]);
        (output.status.code(), stderr(&output))
    };
    let (code, error) = run("trains", "x.csv");
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("flights"), "{error}");
    let (code, error) = run("flights", "/nowhere/x.csv");
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("/nowhere/"), "{error}");
    for table in ["airlines.csv.zst", "airports.csv.zst", "planes.csv.zst"] {
        std::fs::copy(data(table), site.path(table)).unwrap();
    }
    let broken = site.path("broken.csv");
    let csv = read(&data(SLICE));
    let mut lines: Vec<&str> = csv.lines().take(4).collect();
    let row = lines[3].replacen("2013,", "twenty,", 1);
    lines[3] = &row;
    std::fs::write(&broken, lines.join("\n")).unwrap();
    let (code, error) = run("flights", &broken.display().to_string());
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("row 3"), "{error}");
}
