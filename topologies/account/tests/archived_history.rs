//! A history store that keeps recent events only: whatever is asked of the past is answered as if it had
//! all of them, from the archive, though the events' topic has lost its head.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::error::Error;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use millstream::config::{Config, LogKind};
use millstream::event_sourcing::{
    AggregateHistory, AggregateTopics, EventArchive, EventPeriod, EventSourced, HistoryReadError,
    PastEvents, Point, Reads,
};
use millstream::log::{Isolation, Log, TopicPartition};
use millstream::prelude::*;
use millstream::sink::{
    ConfiguredSink, SinkContext, SinkTopic, TopicPast, catch_up, resolve_topics,
};
use millstream::testing::TopologyTestDriver;
use millstream::topology::Topology;
use millstream_account::Account;
use millstream_archive::ArchiveSink;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const EVENTS: &str = "billing.events";
const DEAD_LETTERS: &str = "billing.dlq";
const PARTITIONS: i32 = 3;
const ACCOUNTS: [&str; 4] = ["account-1", "account-2", "account-3", "account-4"];
const VERSIONS: u64 = 47;
/// Snapshots and the events kept: version 40 is noted last, so that versions up to 30 leave.
const EVERY: NonZeroU64 = NonZeroU64::new(10).unwrap();
const LAST_ARCHIVED: u64 = 30;

struct Drawn {
    topology: Topology,
    history: AggregateHistory<Account>,
    archive: EventArchive,
}

fn draw(index_by_time: bool) -> Drawn {
    let builder = StreamsBuilder::new();
    let accounts = EventSourced::<Account>::new("account", AggregateTopics::prefixed("billing"))
        .snapshot_interval(EVERY)
        .rebuild_slice_entries(17)
        .keep_recent(EVERY);
    let accounts = if index_by_time {
        accounts
    } else {
        accounts.without_index_by_time()
    };
    let (history, archive) = (accounts.history(), accounts.archive().clone());
    accounts.draw(&builder).for_each(|_, _| {});
    let topology = builder.build().unwrap();
    Drawn {
        topology,
        history,
        archive,
    }
}

struct Site {
    directory: TempDir,
    runtime: Runtime,
    driver: TopologyTestDriver,
    history: AggregateHistory<Account>,
    archive: EventArchive,
}

impl Site {
    /// Accounts with events, all of them still in the store.
    fn new() -> Self {
        let Drawn {
            topology,
            history,
            archive,
        } = draw(true);
        let driver = TopologyTestDriver::builder()
            .partitions(PARTITIONS)
            .build(topology)
            .unwrap();
        let mut site = Self {
            directory: tempfile::tempdir().unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            driver,
            history,
            archive,
        };
        for number in 0..VERSIONS {
            for account in ACCOUNTS {
                let (kind, data) = if number == 0 {
                    ("OpenAccount", json!({"owner": "ann", "currency": "EUR"}))
                } else {
                    ("TopUp", json!({"amount": "1.25", "reason": "test"}))
                };
                site.command(account, number, kind, &data);
            }
            let minute = Duration::from_secs(60);
            site.driver.advance_wall_clock_time(minute).unwrap();
        }
        site
    }

    fn command(&mut self, account: &str, number: u64, kind: &str, data: &Value) {
        let command = json!({
            "commandId": format!("{account}-{number}"), "commandType": kind, "aggregateId": account,
            "timestamp": "2024-01-01T00:00:00.000Z", "metadata": {"actorId": "ann"}, "data": data,
        });
        self.pipe("billing.commands", account, &command);
    }

    fn pipe(&mut self, topic: &str, account: &str, value: &Value) {
        let (now, value) = (self.driver.now_ms(), value.to_string());
        let (key, value) = (Some(account.as_bytes()), Some(value.as_bytes()));
        let headers = Headers::new();
        self.driver
            .pipe_bytes(topic, key, value, now, &headers)
            .unwrap();
    }

    fn sink(&self) -> ConfiguredSink {
        let text = format!(
            "application_id: test\ntopology: test\nsinks:\n  archive:\n    directory: {}\n    \
             file_records: 25\n",
            self.directory.path().display()
        );
        let config = Config::parse("test.yaml", &text, &[], &|_| None, LogKind::Embedded);
        let parameters = config.unwrap().sinks.remove("archive").unwrap();
        let declared = ArchiveSink::declare("archive", &[EVENTS]);
        declared.make(&parameters).unwrap()
    }

    fn topic(&self, sink: &ConfiguredSink) -> SinkTopic {
        let topics = resolve_topics(self.driver.log(), sink, str::to_owned).unwrap();
        topics.into_iter().next().unwrap()
    }

    /// Archives what there is, connects the archive, and lets events leave the store.
    fn trim(&mut self) {
        let sink = self.sink();
        let context = SinkContext {
            group: "test-archive".to_owned(),
            topics: vec![self.topic(&sink)],
        };
        catch_up(self.driver.log(), self.runtime.handle(), &sink, &context).unwrap();
        let archive = self.archive.clone();
        self.connect(&archive);
        let while_ = Duration::from_secs(3);
        self.driver.advance_wall_clock_time(while_).unwrap();
    }

    fn connect(&self, archive: &EventArchive) {
        let sink = self.sink();
        let past = TopicPast::new(
            self.driver.log(),
            self.runtime.handle(),
            self.topic(&sink),
            sink.sink.past(),
        );
        self.runtime.block_on(past.refresh());
        for partition in 0..PARTITIONS {
            assert!(past.archived_until(partition).is_some(), "{partition}");
        }
        archive.connect(Arc::new(past));
    }

    /// Retention passes everything that the events' topic has.
    fn delete_head(&self) {
        let log = self.driver.log();
        let partitions: Vec<_> = (0..PARTITIONS)
            .map(|partition| TopicPartition::new(EVENTS, partition))
            .collect();
        let ends = log.log_ranges(&partitions, Isolation::ReadCommitted);
        let below: Vec<_> = partitions
            .into_iter()
            .zip(ends.unwrap().iter().map(|range| range.end))
            .collect();
        log.delete_records(&below).unwrap();
    }

    fn has_left(&self, account: &str, version: u64) -> bool {
        let key = format!("{account}@{version}");
        let stored = self.driver.store_value("account-history", &key);
        stored.unwrap().unwrap().get("archived").is_some()
    }

    /// Starts the next version of the program; `connected` says whether it knows the archive.
    fn restart(&mut self, index_by_time: bool, connected: bool) -> Result<(), String> {
        let drawn = draw(index_by_time);
        if connected {
            self.connect(&drawn.archive);
        }
        (self.history, self.archive) = (drawn.history, drawn.archive);
        let restarted = self.driver.restart_with(drawn.topology, true);
        restarted.map_err(|error| chain(&error))
    }

    /// All that can be asked of the past, answered.
    fn answers(&self) -> Vec<Value> {
        let queries = self.driver.queries();
        let start = 1_704_067_200_000;
        let mut answers = Vec::new();
        for account in ACCOUNTS {
            for version in 1..=VERSIONS {
                let then = self
                    .history
                    .as_of(queries, account, Point::Version(version));
                answers.push(shown(then.unwrap().unwrap().record.state));
                let time = start + i64::try_from(version).unwrap() * 60_000 - 1;
                let then = self.history.as_of(queries, account, Point::Time(time));
                answers.push(shown(then.unwrap().unwrap().record.state));
            }
            let timeline = self.history.timeline(queries, account, 1, 1_000);
            answers.push(shown(timeline.unwrap().unwrap().items));
            let events = self.history.events(queries, account, 5, 33);
            answers.push(shown(events.unwrap().unwrap().items));
            let (from, to) = (Point::Version(3), Point::Version(44));
            let diff = self.history.diff(queries, account, from, to);
            answers.push(shown(diff.unwrap()));
        }
        let mut period = EventPeriod {
            from: Some(start + 60_000),
            limit: 30,
            actor: Some("ann".to_owned()),
            ..EventPeriod::default()
        };
        loop {
            let page = self.history.events_of_period(queries, &period).unwrap();
            answers.push(shown(page.events));
            let Some(cursor) = page.cursor else { break };
            period.cursor = Some(cursor);
        }
        answers
    }

    fn cost(&self, account: &str, version: u64) -> Reads {
        let point = Point::Version(version);
        let then = self.history.as_of(self.driver.queries(), account, point);
        then.unwrap().unwrap().reads
    }
}

fn shown(answer: impl serde::Serialize) -> Value {
    serde_json::to_value(answer).unwrap()
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn the_past_is_answered_alike_wherever_its_events_are() {
    let mut site = Site::new();
    let expected = site.answers();
    for account in ACCOUNTS {
        assert!(!site.has_left(account, 1), "nobody has archived anything");
    }
    site.trim();
    for account in ACCOUNTS {
        for version in 1..=VERSIONS {
            let left = site.has_left(account, version);
            assert_eq!(left, version <= LAST_ARCHIVED, "{account} {version}");
        }
        assert_eq!(site.cost(account, 9).archived, 9);
        assert_eq!(site.cost(account, 45).archived, 0);
    }
    assert_eq!(site.answers(), expected, "from the topic");
    site.delete_head();
    assert_eq!(site.answers(), expected, "from the archive");
    let metrics = site.driver.metrics();
    let mut archived = metrics.lines().filter_map(|line| {
        let line = line.strip_prefix("millstream_events_archived_total{")?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    });
    let archived: u64 = archived.by_ref().sum();
    assert_eq!(archived, 4 * LAST_ARCHIVED);
}

#[test]
fn no_point_costs_more_than_a_snapshot_and_the_events_up_to_the_next() {
    let mut site = Site::new();
    site.trim();
    site.delete_head();
    for version in 1..=VERSIONS {
        let reads = site.cost("account-1", version);
        assert!(reads.snapshots <= 1, "{version}: {reads:?}");
        assert!(reads.events < EVERY.get(), "{version}: {reads:?}");
    }
}

#[test]
fn ten_thousand_events_cost_no_more_to_read_than_two_hundred() {
    let builder = StreamsBuilder::new();
    let accounts = EventSourced::<Account>::new("account", AggregateTopics::prefixed("billing"));
    let history = accounts.history();
    accounts.draw(&builder).for_each(|_, _| {});
    let mut driver = TopologyTestDriver::builder()
        .records_per_transaction(500)
        .build(builder.build().unwrap())
        .unwrap();
    let raw = serdes::bytes();
    let events = driver.input_topic(EVENTS, serdes::string(), raw);
    let now = driver.now_ms();
    for (account, versions) in [("short", 200_u64), ("long", 10_000)] {
        let records = (1..=versions).map(|version| {
            let event = json!({
                "eventId": format!("{account}-{version}"), "eventType": "BalanceChanged",
                "aggregateId": account, "aggregateType": "Account", "aggregateVersion": version,
                "timestamp": "2024-01-01T00:00:00.000Z", "correlationId": "test",
                "data": {
                    "previousBalance": format!("{}.00", version - 1),
                    "newBalance": format!("{version}.00"), "changeAmount": "1.00",
                    "changeType": "CREDIT", "signedAmount": "1.00", "reason": "test",
                },
            });
            Record::new(account.to_owned(), event.to_string().into_bytes(), now)
        });
        let records: Vec<_> = records.collect();
        events.pipe_all(&mut driver, &records).unwrap();
    }
    let queries = driver.queries();
    let dearest = |account: &str, versions: std::ops::RangeInclusive<u64>| {
        let reads = versions.map(|version| {
            let then = history.as_of(queries, account, Point::Version(version));
            let then = then.unwrap().unwrap();
            assert_eq!(then.record.version, version);
            then.reads
        });
        reads.fold((0, 0), |(snapshots, events), reads| {
            (reads.snapshots.max(snapshots), reads.events.max(events))
        })
    };
    assert_eq!(dearest("short", 1..=200), (1, 99));
    assert_eq!(dearest("long", 1..=10_000), (1, 99));
    let now = history.current(queries, "long").unwrap().unwrap();
    assert_eq!((now.record.version, now.reads.events), (10_000, 0));
}

#[test]
fn a_rebuild_reads_what_has_left_from_the_archive_and_comes_to_the_same() {
    let mut site = Site::new();
    let expected = site.answers();
    site.trim();
    site.delete_head();
    site.restart(false, true).unwrap();
    // With the index the derived state has another form, and is built anew from all events.
    site.restart(true, true).unwrap();
    assert_eq!(site.answers(), expected);
    let verified = site.history.verify(site.driver.queries(), None, 100);
    let verified = verified.unwrap();
    assert_eq!(verified.difference, None);
    assert_eq!(verified.events, 4 * VERSIONS);
}

#[test]
fn a_rebuild_without_the_archive_is_refused_by_name() {
    let mut site = Site::new();
    site.trim();
    site.delete_head();
    let refused = site.restart(false, false).unwrap_err();
    let expected = "version 1 of account-";
    assert!(refused.contains(expected), "{refused}");
    assert!(refused.contains("there is no archive"), "{refused}");
    // Given one, it goes on.
    site.restart(false, true).unwrap();
    assert_eq!(site.cost("account-1", 30).snapshots, 1);
}

#[test]
fn a_question_that_only_a_missing_archive_could_answer_is_an_error_by_name() {
    let mut site = Site::new();
    site.trim();
    site.delete_head();
    // Another reader of the same stores, as of a configuration that has lost its archive.
    let without = draw(true);
    let queries = site.driver.queries();
    let asked = without.history.events(queries, "account-1", 1, 10);
    let refused = asked.unwrap_err();
    assert!(
        matches!(refused, HistoryReadError::Archived(_)),
        "{refused}"
    );
    assert!(refused.to_string().contains("version 1 of account-1"));
    let recent = without.history.events(queries, "account-1", 31, 100);
    assert_eq!(recent.unwrap().unwrap().items.len(), 17);
    for file in std::fs::read_dir(site.directory.path()).unwrap() {
        std::fs::remove_dir_all(file.unwrap().path()).unwrap();
    }
    let asked = site.history.events(queries, "account-1", 1, 10);
    let refused = chain(&asked.unwrap_err());
    assert!(refused.contains("version 1 of account-1"), "{refused}");
    assert!(
        refused.contains("neither in the topic nor in an archive"),
        "{refused}"
    );
}

#[test]
fn an_event_that_has_left_is_still_known_when_it_comes_again() {
    let mut site = Site::new();
    let page = site
        .history
        .events(site.driver.queries(), "account-1", 7, 1);
    let event = page.unwrap().unwrap().items.remove(0);
    let event: Value = serde_json::from_str(event.get()).unwrap();
    site.trim();
    assert!(site.has_left("account-1", 7));
    site.pipe(EVENTS, "account-1", &event);
    let mut other = event.clone();
    other["eventId"] = json!("evt-of-somebody-else");
    site.pipe(EVENTS, "account-1", &other);
    let key = serdes::optional(serdes::string());
    let letters = site
        .driver
        .output_topic(DEAD_LETTERS, key, serdes::bytes())
        .read_records(&mut site.driver)
        .unwrap();
    assert_eq!(letters.len(), 1, "the repetition is none");
    let value: Value = serde_json::from_slice(&letters.first().unwrap().value).unwrap();
    assert_eq!(value, other);
}
