//! The database goes away in mid-flight, in an orderly way and by `kill -9`, and comes back.

mod support;

use std::sync::Arc;

use millstream::clock::SystemClock;
use millstream::log::embedded::EmbeddedLog;
use millstream::sink::SinkState;
use support::{Database, Items, random, server, until};

#[test]
fn what_is_written_while_the_database_is_away_arrives_when_it_is_back() {
    let Some(database) = Database::of("what_is_written_while_the_database_is_away") else {
        return;
    };
    let mut random = random("what_is_written_while_the_database_is_away");
    let log = EmbeddedLog::in_memory(Arc::new(SystemClock));
    let mut items = Items::new(&log, 3);
    let sink = database.sink("    batch_rows: 25\n");
    let running = items.run(&database, "one", sink.clone());
    for (round, how) in ["stop", "kill", "stop"].into_iter().enumerate() {
        let before = running.status.view().records;
        items.random(&mut random, 3_000, 150);
        until("some of it is written", || {
            (running.status.view().records > before).then_some(())
        });
        server(how);
        // More than a batch holds, and more than its buffers.
        items.random(&mut random, 2_000, 150);
        until("the sink waits", || {
            (running.status.view().state == SinkState::Waiting).then_some(())
        });
        let read = running.status.view();
        assert!(read.last_error().is_some(), "{read:?}");
        let line = "millstream_sink_connection_state{sink=\"items\"} 0";
        assert!(running.metrics.render().contains(line), "round {round}");
        server("start");
        items.assert_arrives(&database, &[&running]);
        until("it is well again", || {
            (running.status.view().state == SinkState::Running).then_some(())
        });
    }
    running.stop();
    // One that starts while the database is away waits for it.
    server("stop");
    items.random(&mut random, 100, 150);
    let running = items.run(&database, "one", sink);
    until("it waits", || {
        (running.status.view().state == SinkState::Waiting).then_some(())
    });
    server("start");
    items.assert_arrives(&database, &[&running]);
    running.stop();
    assert_eq!(database.rows().len(), items.expected.len());
}
