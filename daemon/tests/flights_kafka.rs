//! January 2013 through `flight-leg` on a real broker, with the daemon killed on the way. Skipped, visibly,
//! when there is no broker.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

#[path = "support/flights.rs"]
mod flights;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use flights::{data, feed, said_by, shown_by, site, wait_until_shown};
use support::Daemon;

const JANUARY: &str = "flights-2013-01.csv.zst";
const PATIENCE: Duration = Duration::from_secs(600);
/// How many kills, each after so many more legs.
const KILLS: usize = 3;
const LEGS_BETWEEN: usize = 5_000;

const TOPICS: [&str; 14] = [
    "aodb-input-adapter",
    "aodb-output-flightleg",
    "aodb-dlq",
    "aodb-reference-airports",
    "aodb-reference-airlines",
    "aodb-reference-aircraft",
    "aodb-reference-stands",
    "aodb-query-flightleg",
    "aodb-audit-flightleg",
    "aodb-dashboard",
    "aodb-analytics-status",
    "aodb-analytics-carriers",
    "aodb-analytics-carrier-hours",
    "aodb-stands",
];

#[test]
fn january_2013_survives_kills_with_the_totals_of_its_file() {
    let Ok(servers) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
        // Past the capture of the test harness: a skipped test is to be seen.
        let mut error = std::io::stderr().lock();
        writeln!(
            error,
            "SKIPPED: KAFKA_BOOTSTRAP_SERVERS is not set (scripts/test sets it)"
        )
        .unwrap();
        return;
    };
    let application = format!("flights-{}", std::process::id());
    let mut more = format!("kafka: {{bootstrap_servers: '{servers}'}}\ntopics:\n");
    for topic in TOPICS {
        more += &format!("  {topic}: {{name: {application}.{topic}}}\n");
    }
    let site = site(&application, &more);
    let printed = feed(&site, JANUARY, &[]);
    assert!(printed.contains("27004 flights"), "{printed}");

    let said = said_by(&plain());
    assert_eq!(
        (said.ids.len(), said.statuses.get("Cancelled")),
        (27_004, Some(&521))
    );

    let mut daemon = Daemon::start_ready(&site, &[]);
    for kill in 1..=KILLS {
        let deadline = Instant::now() + PATIENCE;
        while shown_by(&daemon).ids.len() < kill * LEGS_BETWEEN {
            assert!(Instant::now() < deadline, "{}", daemon.log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
        daemon.kill();
        daemon = Daemon::start_ready(&site, &[]);
    }
    wait_until_shown(&daemon, &said, PATIENCE);
    daemon.stop();
}

fn plain() -> String {
    let bytes = std::fs::read(data(JANUARY)).unwrap();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(bytes.as_slice()).unwrap();
    let mut text = String::new();
    decoder.read_to_string(&mut text).unwrap();
    text
}
