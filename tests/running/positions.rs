//! Committed positions past control records.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream::log::{Isolation, Log, TopicPartition};
use millstream::prelude::*;

use super::{Place, Running, config, unique};

pub(crate) fn an_idle_partition_whose_records_were_deleted_is_taken_up_again<L: Log>(
    place: &Place<L>,
) {
    let dir = tempfile::tempdir().unwrap();
    let application = unique("positions");
    let (input, output) = (format!("{application}.in"), format!("{application}.out"));
    let builder = StreamsBuilder::new();
    builder
        .stream(&input, Consumed::with(serdes::string(), serdes::string()))
        .to(&output, Produced::with(serdes::string(), serdes::string()));
    let topology = Arc::new(builder.build().unwrap());
    let config = config(&application, &dir);
    let mut running = Running::start(place, &topology, &config);
    running.run_dry(place).unwrap();
    let bytes = |values: &[&str]| -> Vec<Vec<u8>> {
        values
            .iter()
            .map(|value| value.as_bytes().to_vec())
            .collect()
    };
    place.write_transaction(&input, &bytes(&["a", "b"]), true);
    place.write_transaction(&input, &bytes(&["lost"]), false);
    place.write_transaction(&input, &bytes(&["c"]), true);
    place.write_transaction(&input, &bytes(&["lost", "too"]), false);
    // 3 offsets, 2, 2 and 3: the last record is at 5, the end at 10.
    let at = TopicPartition::new(&*input, 0);
    let partitions = [at.clone()];
    running
        .run_until(place, "the end is committed", |_| {
            let offsets = place.log.group_offsets(&application, &partitions);
            offsets.is_ok_and(|offsets| {
                offsets[0]
                    .as_ref()
                    .is_some_and(|committed| committed.offset == 10)
            })
        })
        .unwrap();
    running.run_dry(place).unwrap();
    let lags: BTreeSet<String> = running
        .metrics
        .render()
        .lines()
        .filter(|line| line.starts_with("millstream_consumer_lag_records{"))
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(lags, BTreeSet::from(["0".to_owned()]));
    // An idle thread commits nothing more.
    let commits = running.metric("millstream_commits_total");
    for _ in 0..5 {
        running.run_dry(place).unwrap();
        place.pass(config.commit_interval * 2);
    }
    running.run_dry(place).unwrap();
    assert!((running.metric("millstream_commits_total") - commits).abs() < 0.5);
    running.stop(place);

    place.settle("delete", || place.log.delete_records(&[(at.clone(), 10)]));
    let range = place.settle("ranges", || {
        place
            .log
            .log_ranges(&partitions, Isolation::ReadUncommitted)
    });
    assert_eq!((range[0].start, range[0].end), (10, 10));
    let mut again = Running::start(place, &topology, &config);
    again.run_dry(place).unwrap();
    place.write_transaction(&input, &bytes(&["d"]), true);
    again
        .run_until(place, "the next record is processed", |again| {
            again.metric("millstream_records_processed_total") >= 1.0
        })
        .unwrap();
    assert_eq!(place.texts(&output), ["a", "b", "c", "d"]);
    again.stop(place);
}
