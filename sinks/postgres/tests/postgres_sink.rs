//! The sink against a real PostgreSQL, on the embedded log: tables equal the fold of the topic, and
//! nothing is written twice (a trigger of the test's schema refuses that).

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream::clock::SystemClock;
use millstream::log::embedded::EmbeddedLog;
use millstream::log::{CommittedOffset, Headers, Log, Offset, TopicName, TopicPartition};
use millstream::sink::{
    ConfiguredSink, Sink, SinkBatch, SinkBounds, SinkContext, SinkError, SinkFuture, SinkPartition,
    SinkRecord, SinkSession, SinkState,
};
use millstream_postgres::{Migration, PostgresSink};
use support::{Database, Items, declaration, random, table, until};

fn log() -> EmbeddedLog {
    EmbeddedLog::in_memory(Arc::new(SystemClock))
}

#[test]
fn the_table_equals_the_fold_of_the_topic() {
    let Some(database) = Database::of("the_table_equals_the_fold_of_the_topic") else {
        return;
    };
    let mut random = random("the_table_equals_the_fold_of_the_topic");
    let mut items = Items::new(&log(), 3);
    items.random(&mut random, 5_000, 300);
    let running = items.run(&database, "one", database.sink("    batch_rows: 100\n"));
    items.random(&mut random, 500, 300);
    items.assert_arrives(&database, &[&running]);
    let view = running.status.view();
    assert_eq!((view.state, view.records), (SinkState::Running, 5_500));
    assert_eq!(view.partitions.len(), 3);
    until("no lag", || {
        let partitions = running.status.view().partitions;
        partitions.iter().all(|it| it.lag == 0).then_some(())
    });
    let text = running.metrics.render();
    for line in [
        "millstream_sink_records_total{sink=\"items\"} 5500",
        "millstream_sink_connection_state{sink=\"items\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    running.stop();
}

#[test]
fn a_sink_goes_on_where_the_database_stands_whatever_the_groups_offsets_say() {
    let Some(database) = Database::of("a_sink_goes_on_where_the_database_stands") else {
        return;
    };
    let mut items = Items::new(&log(), 2);
    for number in 0..200 {
        items.put(&format!("item-{}", number % 7), &format!("{number}.00"));
    }
    items.flush();
    let running = items.run(&database, "one", database.sink(""));
    items.assert_arrives(&database, &[&running]);
    running.stop();
    for offset in [0, 1_000_000] {
        let offsets: Vec<(TopicPartition, CommittedOffset)> = (0..2)
            .map(|partition| {
                let metadata = String::new();
                let committed = CommittedOffset { offset, metadata };
                let at = TopicPartition::new(TopicName::clone(&items.topic), partition);
                (at, committed)
            })
            .collect();
        items
            .log
            .alter_group_offsets(&items.group(), &offsets)
            .unwrap();
        items.put("item-1", "5.00");
        items.flush();
        let running = items.run(&database, "one", database.sink(""));
        items.assert_arrives(&database, &[&running]);
        assert_eq!(running.status.view().records, 1, "only the new record");
        running.stop();
    }
}

#[test]
fn two_processes_share_a_sink_and_write_everything_once() {
    let Some(database) = Database::of("two_processes_share_a_sink") else {
        return;
    };
    let mut random = random("two_processes_share_a_sink_and_write_everything_once");
    let mut items = Items::new(&log(), 4);
    let sink = || database.sink("    batch_rows: 20\n");
    let mut first = items.run(&database, "one", sink());
    let mut second = items.run(&database, "two", sink());
    until("both have partitions", || {
        let counts = [&first, &second].map(|it| it.status.view().partitions.len());
        (counts.iter().sum::<usize>() == 4 && counts.iter().all(|it| *it > 0)).then_some(())
    });
    for round in 0..6 {
        items.random(&mut random, 400, 50);
        // One goes and comes back as another, so that partitions move under load.
        let name = format!("next-{round}");
        if random.bool() {
            first.stop();
            first = items.run(&database, &name, sink());
        } else {
            second.stop();
            second = items.run(&database, &name, sink());
        }
    }
    items.assert_arrives(&database, &[&first, &second]);
    first.stop();
    second.stop();
}

fn batch(partition: &TopicPartition, expected: Offset, ids: &[(&str, i64)]) -> SinkBatch {
    let records = ids
        .iter()
        .zip(expected..)
        .map(|((id, version), offset)| SinkRecord {
            offset,
            timestamp: 0,
            key: Some(id.as_bytes().to_vec()),
            value: Some(format!(r#"{{"amount":"1.00","version":{version}}}"#).into_bytes()),
            headers: Headers::new(),
        });
    let records: Vec<SinkRecord> = records.collect();
    SinkBatch {
        partition: partition.clone(),
        declared: support::TOPIC.into(),
        expected,
        next: records.last().unwrap().offset + 1,
        records,
    }
}

#[test]
fn an_owner_that_was_overtaken_writes_nothing_and_learns_where_to_go_on() {
    let Some(database) = Database::of("an_owner_that_was_overtaken") else {
        return;
    };
    let items = Items::new(&log(), 2);
    let sink = database.sink("");
    let context = items.context(&sink);
    let at = |partition| TopicPartition::new(TopicName::clone(&items.topic), partition);
    let asked = [0, 1].map(|partition| SinkPartition {
        partition: at(partition),
        log_start: 0,
    });
    database.runtime.block_on(async {
        let mut old = sink.sink.connect(&context).await.unwrap();
        let mut new = sink.sink.connect(&context).await.unwrap();
        assert_eq!(old.resume(&asked).await, Ok(vec![0, 0]));
        assert_eq!(new.resume(&asked).await, Ok(vec![0, 0]));
        assert_eq!(
            new.write(&[batch(&at(0), 0, &[("a", 1), ("b", 1)])]).await,
            Ok(2)
        );
        // One partition was overtaken: the other's rows must not be written either, since the
        // transaction is one.
        let both = [batch(&at(1), 0, &[("c", 1)]), batch(&at(0), 0, &[("a", 1)])];
        let partitions = vec![at(0)];
        let superseded = Err(SinkError::Superseded { partitions });
        assert_eq!(old.write(&both).await, superseded);
        let believed = [(at(0), 0), (at(1), 0)];
        assert!(matches!(
            old.check(&believed).await,
            Err(SinkError::Superseded { .. })
        ));
        assert_eq!(old.resume(&asked).await, Ok(vec![2, 0]));
        assert_eq!(old.check(&[(at(0), 2), (at(1), 0)]).await, Ok(()));
        assert_eq!(old.write(&[batch(&at(0), 2, &[("a", 2)])]).await, Ok(1));
    });
    assert_eq!(database.number("SELECT count(*) FROM items"), 2);
    assert_eq!(
        database.number("SELECT count(*) FROM items WHERE id = 'c'"),
        0
    );
}

#[test]
fn an_older_row_never_overwrites_a_newer_one() {
    let Some(database) = Database::of("an_older_row_never_overwrites_a_newer_one") else {
        return;
    };
    let items = Items::new(&log(), 1);
    let sink = database.sink("");
    let context = items.context(&sink);
    let at = TopicPartition::new(TopicName::clone(&items.topic), 0);
    database.runtime.block_on(async {
        let mut session = sink.sink.connect(&context).await.unwrap();
        let asked = [SinkPartition {
            partition: at.clone(),
            log_start: 0,
        }];
        session.resume(&asked).await.unwrap();
        session.write(&[batch(&at, 0, &[("a", 7)])]).await.unwrap();
        assert_eq!(session.write(&[batch(&at, 1, &[("a", 3)])]).await, Ok(0));
    });
    let version = database.number("SELECT version FROM items WHERE id = 'a'");
    assert_eq!(version, 7, "the offset has moved, the row has not");
}

/// Commits, and then says that no answer came.
#[derive(Debug)]
struct LosesAnswers {
    inner: Arc<dyn Sink>,
    writes: AtomicU64,
}

struct LosingSession {
    inner: Box<dyn SinkSession>,
    lose: bool,
}

impl Sink for LosesAnswers {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn topics(&self) -> Vec<String> {
        self.inner.topics()
    }
    fn bounds(&self) -> SinkBounds {
        self.inner.bounds()
    }
    fn connect<'a>(&'a self, context: &'a SinkContext) -> SinkFuture<'a, Box<dyn SinkSession>> {
        Box::pin(async move {
            let inner = self.inner.connect(context).await?;
            let lose = self.writes.fetch_add(1, Ordering::Relaxed) < 12;
            let session: Box<dyn SinkSession> = Box::new(LosingSession { inner, lose });
            Ok(session)
        })
    }
}

impl SinkSession for LosingSession {
    fn resume<'a>(&'a mut self, partitions: &'a [SinkPartition]) -> SinkFuture<'a, Vec<Offset>> {
        self.inner.resume(partitions)
    }
    fn write<'a>(&'a mut self, batches: &'a [SinkBatch]) -> SinkFuture<'a, u64> {
        Box::pin(async move {
            let rows = self.inner.write(batches).await?;
            if self.lose {
                return Err(SinkError::unavailable("the answer was lost"));
            }
            Ok(rows)
        })
    }
    fn check<'a>(&'a mut self, positions: &'a [(TopicPartition, Offset)]) -> SinkFuture<'a, ()> {
        self.inner.check(positions)
    }
}

#[test]
fn a_commit_whose_answer_is_lost_is_not_written_again() {
    let Some(database) = Database::of("a_commit_whose_answer_is_lost_is_not_written_again") else {
        return;
    };
    let mut random = random("a_commit_whose_answer_is_lost_is_not_written_again");
    let mut items = Items::new(&log(), 2);
    items.random(&mut random, 2_000, 100);
    let ConfiguredSink { name, sink } = database.sink("    batch_rows: 50\n");
    let losing = LosesAnswers {
        inner: sink,
        writes: AtomicU64::new(0),
    };
    let sink = ConfiguredSink {
        name,
        sink: Arc::new(losing),
    };
    let running = items.run(&database, "one", sink);
    items.assert_arrives(&database, &[&running]);
    // Every connection of the first ones has lost its first answer.
    assert!(running.status.view().last_error().is_some());
    running.stop();
}

#[test]
fn a_rebuild_while_the_sink_runs_starts_over_and_ends_with_the_same_table() {
    let Some(database) = Database::of("a_rebuild_while_the_sink_runs") else {
        return;
    };
    let mut random = random("a_rebuild_while_the_sink_runs");
    let mut items = Items::new(&log(), 3);
    items.random(&mut random, 3_000, 200);
    let running = items.run(&database, "one", database.sink("    batch_rows: 50\n"));
    let sink = database.sink("");
    let context = items.context(&sink);
    // Once with rows under way, then while nothing happens: an idle sink notices too.
    for _ in 0..2 {
        until("rows", || {
            (running.status.view().records > 500).then_some(())
        });
        database.execute("INSERT INTO items VALUES ('stray', 1, NULL, 1)");
        let said = database
            .runtime
            .block_on(sink.sink.rebuild(&context))
            .unwrap();
        assert!(
            said.contains("items") && said.contains("generation"),
            "{said}"
        );
        items.random(&mut random, 100, 200);
        items.assert_arrives(&database, &[&running]);
    }
    let generation = database.number("SELECT generation FROM millstream_sinks");
    assert_eq!(generation, 3);
    items.assert_arrives(&database, &[&running]);
    until("the thread has seen the last rebuild", || {
        let partitions = running.status.view().partitions;
        partitions.iter().all(|it| it.lag == 0).then_some(())
    });
    running.stop();
}

#[test]
fn processes_that_start_together_migrate_once() {
    let Some(database) = Database::of("processes_that_start_together_migrate_once") else {
        return;
    };
    let items = Items::new(&log(), 1);
    let sink = database.sink("");
    let context = items.context(&sink);
    database.runtime.block_on(async {
        let mut sessions = Vec::new();
        for _ in 0..8 {
            let (sink, context) = (Arc::clone(&sink.sink), context.clone());
            sessions.push(tokio::spawn(async move {
                sink.connect(&context).await.map(drop)
            }));
        }
        for session in sessions {
            assert_eq!(session.await.unwrap(), Ok(()));
        }
    });
    assert_eq!(
        database.number("SELECT count(*) FROM millstream_migrations"),
        3
    );
}

#[test]
fn a_schema_that_this_program_does_not_know_is_refused_by_name() {
    const EDITED: &[Migration] = &[Migration {
        version: 1,
        name: "items",
        sql: "CREATE TABLE items (id text);",
    }];
    let Some(database) = Database::of("a_schema_that_this_program_does_not_know") else {
        return;
    };
    let items = Items::new(&log(), 1);
    let sink = database.sink("");
    let context = items.context(&sink);
    let connect = |sink: &ConfiguredSink| {
        let connected = database.runtime.block_on(sink.sink.connect(&context));
        connected.map(drop).unwrap_err().to_string()
    };
    database
        .runtime
        .block_on(sink.sink.connect(&context))
        .map(drop)
        .unwrap();
    let edited = PostgresSink::declare("items", "test", EDITED, vec![table()]);
    let edited = edited.make(&database.parameters("")).unwrap();
    let refused = connect(&edited);
    assert!(refused.contains("checksum differs"), "{refused}");
    database.execute("INSERT INTO millstream_migrations VALUES ('test', 2, 'later', 'x')");
    let refused = connect(&sink);
    assert!(
        refused.contains("at version 2, newer than this program's 1"),
        "{refused}"
    );
}

#[test]
fn a_table_that_another_sink_fills_is_left_alone() {
    let Some(database) = Database::of("a_table_that_another_sink_fills_is_left_alone") else {
        return;
    };
    let (one, other) = (Items::new(&log(), 1), Items::new(&log(), 1));
    let sink = database.sink("");
    let connect = |items: &Items<EmbeddedLog>| {
        let context = items.context(&sink);
        database
            .runtime
            .block_on(sink.sink.connect(&context))
            .map(drop)
    };
    assert_eq!(connect(&one), Ok(()));
    let refused = connect(&other).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("is filled by `{}`", one.group())),
        "{refused}"
    );
}

#[test]
fn a_record_that_does_not_fit_stops_its_partition_and_no_other() {
    let Some(database) = Database::of("a_record_that_does_not_fit_stops_its_partition") else {
        return;
    };
    let mut items = Items::new(&log(), 2);
    let row = |version: i64| format!(r#"{{"amount":"1","version":{version}}}"#);
    items.raw(Some(0), "a", Some(row(1).as_bytes()));
    items.raw(Some(0), "b", Some(br#"{"amount":1.5,"version":1}"#));
    items.raw(Some(0), "c", Some(row(1).as_bytes()));
    items.raw(Some(1), "d", Some(row(1).as_bytes()));
    items.flush();
    let running = items.run(&database, "one", database.sink(""));
    until("it says so", || {
        let view = running.status.view();
        let error = view.last_error().unwrap_or_default().to_owned();
        let names = error.contains("offset 1 of") && error.contains("column `amount`");
        (view.state == SinkState::Failed && names).then_some(())
    });
    items.raw(Some(1), "e", Some(row(1).as_bytes()));
    items.flush();
    until("the other partition goes on", || {
        let ids: Vec<String> = database.rows().into_keys().collect();
        (ids == ["a", "d", "e"]).then_some(())
    });
    assert_eq!(
        running.status.view().state,
        SinkState::Failed,
        "it still stands"
    );
    running.stop();
    let running = items.run(&database, "one", database.sink("    bad_records: skip\n"));
    until("it was passed over", || {
        database.rows().contains_key("c").then_some(())
    });
    until("it was counted", || {
        (running.status.view().skipped == 1).then_some(())
    });
    assert!(!database.rows().contains_key("b"));
    running.stop();
}

#[test]
fn a_record_that_only_the_database_refuses_is_found_among_others() {
    let Some(database) = Database::of("a_record_that_only_the_database_refuses") else {
        return;
    };
    let mut items = Items::new(&log(), 2);
    for number in 0..40 {
        items.put(&format!("item-{number}"), "1.00");
    }
    // The table's check constraint forbids this version.
    items.raw(
        Some(0),
        "refused",
        Some(br#"{"amount":"1.00","version":666}"#),
    );
    for number in 40..80 {
        items.put(&format!("item-{number}"), "1.00");
    }
    items.flush();
    let running = items.run(&database, "one", database.sink("    bad_records: skip\n"));
    items.assert_arrives(&database, &[&running]);
    assert_eq!(running.status.view().skipped, 1);
    running.stop();
}

#[test]
fn a_key_that_is_too_long_for_the_index_is_refused_and_not_waited_for() {
    let Some(database) = Database::of("a_key_that_is_too_long_for_the_index") else {
        return;
    };
    let mut items = Items::new(&log(), 1);
    items.put("before", "1.00");
    let letters = std::iter::repeat_with(fastrand::alphanumeric).take(30_000);
    let key: String = letters.collect();
    items.raw(None, &key, Some(br#"{"amount":"1.00","version":1}"#));
    items.put("after", "1.00");
    items.flush();
    let running = items.run(&database, "one", database.sink(""));
    let error = until("it says so", || {
        let view = running.status.view();
        let failed = view.state == SinkState::Failed;
        failed.then(|| view.last_error().unwrap_or_default().to_owned())
    });
    assert!(error.contains("PostgreSQL: 54000"), "{error}");
    running.stop();
    let running = items.run(&database, "one", database.sink("    bad_records: skip\n"));
    items.assert_arrives(&database, &[&running]);
    assert_eq!(running.status.view().skipped, 1);
    running.stop();
}

#[test]
fn a_topic_that_was_created_again_is_refused_by_name_until_the_sink_is_rebuilt() {
    let Some(database) = Database::of("a_topic_that_was_created_again_is_refused") else {
        return;
    };
    let mut items = Items::new(&log(), 2);
    for number in 0..20 {
        items.put(&format!("old-{number}"), "1.00");
    }
    items.flush();
    let running = items.run(&database, "one", database.sink(""));
    items.assert_arrives(&database, &[&running]);
    running.stop();
    // As a database is that was filled before ids were stored: what it has is taken for this topic's.
    database.execute(
        "ALTER TABLE millstream_offsets DROP COLUMN topic_id; \
         DELETE FROM millstream_migrations WHERE owner = 'millstream' AND version = 2",
    );
    items.put("old-0", "2.00");
    items.flush();
    let running = items.run(&database, "one", database.sink(""));
    items.assert_arrives(&database, &[&running]);
    running.stop();
    let without = "SELECT count(*) FROM millstream_offsets WHERE topic_id IS NULL";
    assert_eq!(database.number(without), 0);

    let old = items.expected.clone();
    items.create_again();
    // More than there were: the old offsets exist in the new topic.
    for number in 0..60 {
        items.put(&format!("new-{number}"), "3.00");
    }
    items.flush();
    let running = items.run(&database, "one", database.sink(""));
    let error = until("it says so", || {
        let view = running.status.view();
        let failed = view.state == SinkState::Failed;
        failed.then(|| view.last_error().unwrap_or_default().to_owned())
    });
    for part in [&items.topic, "created again", "millstream rebuild-sink"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert_eq!(database.rows(), old, "nothing was written");
    let sink = database.sink("");
    let context = items.context(&sink);
    database
        .runtime
        .block_on(sink.sink.rebuild(&context))
        .unwrap();
    items.assert_arrives(&database, &[&running]);
    running.stop();
}

#[test]
fn records_that_were_deleted_before_the_sink_had_them_are_missed_aloud() {
    let Some(database) = Database::of("records_that_were_deleted_before_the_sink_had_them") else {
        return;
    };
    let mut items = Items::new(&log(), 1);
    items.put("a", "1.00");
    items.flush();
    let running = items.run(&database, "one", database.sink(""));
    items.assert_arrives(&database, &[&running]);
    running.stop();
    for _ in 0..5 {
        items.put("a", "2.00");
    }
    items.flush();
    let at = TopicPartition::new(TopicName::clone(&items.topic), 0);
    items.log.delete_records(&[(at, 4)]).unwrap();
    let running = items.run(&database, "one", database.sink(""));
    let error = until("it says so", || {
        let view = running.status.view();
        let failed = view.state == SinkState::Failed;
        failed.then(|| view.last_error().unwrap_or_default().to_owned())
    });
    assert!(
        error.contains("records from 1 to 3 were deleted"),
        "{error}"
    );
    assert!(error.contains("rebuild-sink"), "{error}");
    // A repair needs no restart.
    let sink = database.sink("");
    let context = items.context(&sink);
    database
        .runtime
        .block_on(sink.sink.rebuild(&context))
        .unwrap();
    items.assert_arrives(&database, &[&running]);
    running.stop();
}

#[test]
fn parameters_that_do_not_fit_are_refused_and_secrets_are_not_shown() {
    let Some(database) = Database::of("parameters_that_do_not_fit_are_refused") else {
        return;
    };
    for (more, expected) in [
        ("    batch_rows: 0\n", "batch_rows"),
        ("    timeout: 10m\n", "timeout"),
        ("    colour: red\n", "unknown key `colour`"),
        ("    bad_records: ignore\n", "unknown value `ignore`"),
    ] {
        let refused = declaration().make(&database.parameters(more)).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    let mut secret = database;
    secret.url = "postgresql://user:hunter2@localhost/db".to_owned();
    let sink = declaration().make(&secret.parameters("")).unwrap();
    assert!(!format!("{sink:?}").contains("hunter2"));
}
