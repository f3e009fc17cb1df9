//! Timestamp extractors, on the driver: the production thread, real commits.

use crate::log::{Log, LogProducer, ProducerRecord, ProducerSpec, TopicName};
use crate::prelude::*;
use crate::testing::{DriverError, TopologyTestDriver};

fn texts() -> Consumed<String, String> {
    Consumed::with(serdes::string(), serdes::string())
}

/// The value is the time.
fn of_value(
    record: &ConsumedRecord<'_, String, String>,
    _partition_time: Option<Timestamp>,
) -> Timestamp {
    record
        .value
        .and_then(|value| value.parse().ok())
        .unwrap_or(-1)
}

fn copying(consumed: Consumed<String, String>) -> TopologyTestDriver {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", consumed)
        .to("out", Produced::with(serdes::string(), serdes::string()));
    TopologyTestDriver::new(builder.build().unwrap()).unwrap()
}

fn pipe(driver: &mut TopologyTestDriver, value: &str, time: i64) -> Result<(), DriverError> {
    let (key, value) = (Some(b"k".as_slice()), Some(value.as_bytes()));
    driver.pipe_bytes("in", key, value, time, &Headers::new())
}

/// Values with their timestamps.
fn read(driver: &mut TopologyTestDriver) -> Vec<(String, i64)> {
    let out = driver.output_topic("out", serdes::string(), serdes::string());
    let records = out.read_records(driver).unwrap();
    records
        .into_iter()
        .map(|record: Record<String, String>| (record.value, record.timestamp))
        .collect()
}

fn owned(records: &[(&str, i64)]) -> Vec<(String, i64)> {
    records
        .iter()
        .map(|(value, time)| ((*value).to_owned(), *time))
        .collect()
}

fn dropped(driver: &TopologyTestDriver) -> u64 {
    let metrics = driver.metrics();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("millstream_records_dropped_total{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn without_an_extractor_a_negative_timestamp_stops_the_task() {
    let mut driver = copying(texts());
    let error = pipe(&mut driver, "a", -1).unwrap_err();
    let DriverError::Thread(error) = &error else {
        panic!("{error:?}");
    };
    let text = crate::runtime::error_chain(error);
    assert!(text.contains("the timestamp -1 is negative"), "{text}");
}

#[test]
fn a_negative_timestamp_meets_the_policy_for_records_that_cannot_be_read() {
    let mut driver = copying(texts().on_error_at(Stage::Deserialization, ErrorPolicy::Skip));
    pipe(&mut driver, "a", -1).unwrap();
    pipe(&mut driver, "b", 5).unwrap();
    assert_eq!(read(&mut driver), owned(&[("b", 5)]));
}

#[test]
fn log_and_skip_drops_a_negative_timestamp_and_counts_it() {
    let mut driver = copying(texts().with_timestamp_extractor(LogAndSkipOnInvalidTimestamp));
    pipe(&mut driver, "a", 3).unwrap();
    pipe(&mut driver, "b", -1).unwrap();
    pipe(&mut driver, "c", 5).unwrap();
    assert_eq!(read(&mut driver), owned(&[("a", 3), ("c", 5)]));
    assert_eq!(dropped(&driver), 1);
}

#[test]
fn partition_time_stands_in_for_a_negative_timestamp_and_survives_a_restart() {
    let mut driver = copying(texts().with_timestamp_extractor(UsePartitionTimeOnInvalidTimestamp));
    for (value, time) in [("a", 7), ("b", 4), ("c", -1)] {
        pipe(&mut driver, value, time).unwrap();
    }
    driver.restart(true).unwrap();
    pipe(&mut driver, "d", -1).unwrap();
    assert_eq!(
        read(&mut driver),
        owned(&[("a", 7), ("b", 4), ("c", 7), ("d", 7)])
    );
}

#[test]
fn partition_time_cannot_stand_in_before_there_is_any() {
    let mut driver = copying(texts().with_timestamp_extractor(UsePartitionTimeOnInvalidTimestamp));
    assert!(matches!(
        pipe(&mut driver, "a", -1),
        Err(DriverError::Thread(_))
    ));
}

#[test]
fn the_wall_clock_is_the_time_of_what_is_read() {
    let mut driver = copying(texts().with_timestamp_extractor(WallclockTimestampExtractor));
    let now = driver.now_ms();
    pipe(&mut driver, "a", 3).unwrap();
    assert_eq!(read(&mut driver), owned(&[("a", now)]));
}

#[test]
fn an_extractor_may_refuse_a_record() {
    struct Refusing;
    impl TimestampExtractor<String, String> for Refusing {
        fn extract(
            &self,
            record: &ConsumedRecord<'_, String, String>,
            _partition_time: Option<Timestamp>,
        ) -> Result<Timestamp, BoxError> {
            if record.value.is_some_and(|value| value == "bad") {
                return Err("no time in it".into());
            }
            Ok(record.timestamp)
        }
    }
    let policy = ErrorPolicy::DeadLetter {
        topic: "dead".to_owned(),
    };
    let mut driver = copying(texts().with_timestamp_extractor(Refusing).on_error(policy));
    pipe(&mut driver, "bad", 3).unwrap();
    pipe(&mut driver, "good", 4).unwrap();
    assert_eq!(read(&mut driver), owned(&[("good", 4)]));
    let dead = driver.output_topic("dead", serdes::string(), serdes::string());
    let dead = dead.read_records(&mut driver).unwrap();
    let dead: Vec<(String, i64)> = dead
        .into_iter()
        .map(|it| (it.value, it.timestamp))
        .collect();
    assert_eq!(dead, owned(&[("bad", 3)]));
}

#[test]
fn the_lowest_extracted_time_comes_first_across_partitions() {
    let builder = StreamsBuilder::new();
    builder
        .streams(
            ["left", "right"],
            texts().with_timestamp_extractor(of_value),
        )
        .to("out", Produced::with(serdes::string(), serdes::string()));
    let mut driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    // Written behind the driver's back: all are there when the task looks.
    let spec = ProducerSpec {
        transactional_id: None,
        transaction_timeout: std::time::Duration::from_secs(10),
        client_id: "test".to_owned(),
    };
    let mut producer = driver.log().producer(&spec).unwrap();
    for (topic, values) in [("left", ["5", "-3", "6"]), ("right", ["1", "9", "2"])] {
        for (log_time, value) in (100..).zip(values) {
            let record = ProducerRecord {
                topic: &TopicName::from(topic),
                partition: Some(0),
                key: Some(b"k"),
                value: Some(value.as_bytes()),
                timestamp: log_time,
                headers: &Headers::new(),
            };
            producer.send(record).unwrap();
        }
    }
    producer.flush().unwrap();
    driver
        .advance_wall_clock_time(std::time::Duration::from_millis(1))
        .unwrap();
    // "2" is out of order in its partition: it waits behind "9".
    let expected = [("1", 1), ("5", 5), ("6", 6), ("9", 9), ("2", 2)];
    assert_eq!(read(&mut driver), owned(&expected));
    assert_eq!(dropped(&driver), 1);
}

#[test]
fn stream_time_and_windows_go_by_the_extracted_time() {
    let builder = StreamsBuilder::new();
    let windows = TimeWindows::of_size_with_no_grace(std::time::Duration::from_millis(10));
    builder
        .stream("in", texts().with_timestamp_extractor(of_value))
        .group_by_key(Grouped::as_name("by-key"))
        .windowed_by(windows)
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ))
        .to_stream()
        .map(|window, count| (window.to_string(), format!("{count:?}")))
        .to("out", Produced::with(serdes::string(), serdes::string()));
    let mut driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    // The log's timestamps say the opposite; the last one is late.
    for (value, log_time) in [("1", 900), ("15", 10), ("2", 1000)] {
        pipe(&mut driver, value, log_time).unwrap();
    }
    let times: Vec<i64> = read(&mut driver)
        .into_iter()
        .map(|(_, time)| time)
        .collect();
    assert_eq!(times, [1, 15]);
}

#[test]
fn a_table_is_read_by_the_extracted_time_tombstones_included() {
    let builder = StreamsBuilder::new();
    let of_table = |record: &ConsumedRecord<'_, String, String>, _: Option<Timestamp>| {
        record.timestamp + if record.value.is_some() { 1 } else { 2 }
    };
    let store = Materialized::as_store("table", serdes::string(), serdes::string());
    builder
        .table("in", texts().with_timestamp_extractor(of_table), store)
        .to_stream()
        .map_values(|value| value.unwrap_or_default())
        .to("out", Produced::with(serdes::string(), serdes::string()));
    let mut driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    pipe(&mut driver, "a", 10).unwrap();
    driver
        .pipe_bytes("in", Some(b"k"), None, 20, &Headers::new())
        .unwrap();
    assert_eq!(read(&mut driver), owned(&[("a", 11), ("", 22)]));
}

#[test]
fn one_topic_cannot_be_read_with_two_extractors() {
    let builder = StreamsBuilder::new();
    let out = || Produced::with(serdes::string(), serdes::string());
    builder.stream("in", texts()).to("out", out());
    let other = texts().with_timestamp_extractor(WallclockTimestampExtractor);
    builder.stream("in", other).to("out", out());
    let mistakes = builder.build().unwrap_err().to_string();
    assert!(
        mistakes.contains("with different timestamp extractors"),
        "{mistakes}"
    );
}
