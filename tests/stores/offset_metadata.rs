//! What operators keep in the metadata of committed offsets has to fit there.

use std::error::Error;
use std::time::Duration;

use millstream::prelude::*;
use millstream::testing::{DriverError, TopologyTestDriver};

use crate::support::{consumed, record};

/// So many windowed aggregations of one topic, each with its own time.
fn windows(count: usize) -> TopologyTestDriver {
    let builder = StreamsBuilder::new();
    let by_key = builder
        .stream("words", consumed())
        .group_by_key(Grouped::as_name("by-key"));
    let second = TimeWindows::of_size_with_no_grace(Duration::from_secs(1));
    for number in 0..count {
        let name = format!("a-store-with-a-name-of-some-length-{number:03}");
        by_key.windowed_by(second).count(Materialized::as_store(
            name,
            serdes::string(),
            serdes::i64(),
        ));
    }
    TopologyTestDriver::new(builder.build().unwrap()).unwrap()
}

#[test]
fn too_many_times_for_an_offset_stop_the_thread_with_what_to_do() {
    let pipe = |mut driver: TopologyTestDriver| {
        let words = driver.input_topic("words", serdes::string(), serdes::string());
        words.pipe_record(&mut driver, &record("tea", "green", 0))
    };
    pipe(windows(20)).unwrap();
    let Err(DriverError::Thread(error)) = pipe(windows(60)) else {
        panic!("more than a broker takes by default was committed")
    };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    for part in [
        "4096",
        "offset.metadata.max.bytes",
        "split the sub-topology",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
