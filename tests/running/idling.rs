//! Task idling (KIP-695): the order of two topics' records.

use std::sync::Arc;

use millstream::log::{Log, LogMessage};
use millstream::prelude::*;

use super::{Place, Running, config, unique};

pub(crate) fn a_backlog_of_two_topics_is_worked_off_by_timestamp<L: Log>(place: &Place<L>) {
    let dir = tempfile::tempdir().unwrap();
    let application = unique("idling");
    let [left, right, out] = ["left", "right", "out"].map(|name| format!("{application}.{name}"));
    let builder = StreamsBuilder::new();
    builder
        .streams(
            [left.as_str(), right.as_str()],
            Consumed::with(serdes::string(), serdes::string()),
        )
        .to(&out, Produced::with(serdes::string(), serdes::string()));
    let topology = Arc::new(builder.build().unwrap());
    let mut config = config(&application, &dir);
    config.buffered_records_per_partition = 20;
    // Makes the topics; the backlog is there before the next life takes its first record.
    Running::start(place, &topology, &config).stop(place);
    let from = place.clock.now_ms();
    // One side is dense, the other sparse: buffers run dry at different times.
    place.write_at(&left, (0..3_000).map(|n| from + n));
    place.write_at(&right, (0..300).map(|n| from + n * 10));
    let mut running = Running::start(place, &topology, &config);
    running
        .run_until(place, "all records are processed", |running| {
            running.metric("millstream_records_processed_total") >= 3_300.0
        })
        .unwrap();
    running.stop(place);
    let records = place.read(&out);
    let times: Vec<i64> = records.iter().map(LogMessage::timestamp).collect();
    assert_eq!(times.len(), 3_300);
    assert!(times.is_sorted(), "{times:?}");
}
