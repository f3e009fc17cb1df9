//! The production stream thread on the embedded log, driven record by record.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

use std::time::Duration;

use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;

fn text() -> (
    impl Serde<String> + TextCodec + Clone,
    impl Serde<String> + TextCodec + Clone,
) {
    (serdes::string(), serdes::string())
}

fn counting() -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream("words", Consumed::with(serdes::string(), serdes::string()))
        .group_by_key(Grouped::as_name("by-word"))
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ))
        .to_stream()
        .map_values(|count| count.unwrap_or(0))
        .to(
            "counts-out",
            Produced::with(serdes::string(), serdes::i64()),
        );
    builder.build().unwrap()
}

#[test]
fn every_update_goes_downstream_and_the_store_has_the_last() {
    let mut driver = TopologyTestDriver::builder()
        .partitions(3)
        .build(counting())
        .unwrap();
    let words = driver.input_topic("words", text().0, text().1);
    let counts = driver.output_topic("counts-out", serdes::string(), serdes::i64());
    for word in ["tea", "rice", "tea", "tea"] {
        words
            .pipe(&mut driver, word.to_owned(), String::new())
            .unwrap();
    }
    let mut read = counts.read_key_values(&mut driver).unwrap();
    read.sort();
    let expected = [("rice", 1), ("tea", 1), ("tea", 2), ("tea", 3)];
    assert_eq!(read, expected.map(|(word, count)| (word.to_owned(), count)));
    assert_eq!(driver.store_value("counts", "tea").unwrap(), Some(3.into()));
    assert_eq!(driver.store_value("counts", "salt").unwrap(), None);
}

#[test]
fn a_record_that_fails_after_a_write_leaves_no_half_effect_and_is_dead_lettered() {
    let builder = StreamsBuilder::new();
    let totals = builder.add_state_store(StoreBuilder::as_store(
        "totals",
        serdes::string(),
        serdes::i64(),
    ));
    struct Adder(StoreRef<String, i64>);
    impl Processor<String, i64, String, i64> for Adder {
        fn process(
            &mut self,
            context: &mut ProcessorContext<'_, String, i64>,
            record: Record<String, i64>,
        ) -> Result<(), BoxError> {
            let total = self.0.get(&record.key)?.unwrap_or(0) + record.value;
            self.0.put(record.key.clone(), total)?;
            context.forward(Record::new(record.key, total, record.timestamp))?;
            if record.value < 0 {
                return Err(Reject {
                    code: "NEGATIVE",
                    message: "no".to_owned(),
                }
                .into());
            }
            Ok(())
        }
    }
    builder
        .stream(
            "amounts",
            Consumed::with(serdes::string(), serdes::i64()).on_error(ErrorPolicy::DeadLetter {
                topic: "dead".to_owned(),
            }),
        )
        .process("adder", (totals,), |_, (totals,)| Adder(totals))
        .to(
            "totals-out",
            Produced::with(serdes::string(), serdes::i64()),
        );
    let mut driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    let amounts = driver.input_topic("amounts", serdes::string(), serdes::i64());
    let out = driver.output_topic("totals-out", serdes::string(), serdes::i64());
    let dead = driver.output_topic("dead", serdes::string(), serdes::i64());
    for amount in [5, -3, 2] {
        amounts.pipe(&mut driver, "a".to_owned(), amount).unwrap();
    }
    assert_eq!(out.read_values(&mut driver).unwrap(), [5, 7]);
    assert_eq!(driver.store_value("totals", "a").unwrap(), Some(7.into()));
    let dead = dead.read_records(&mut driver).unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].value, -3);
    assert_eq!(
        dead[0].headers.last("__streams.errors.exception"),
        Some(&b"NEGATIVE"[..])
    );
    assert_eq!(
        dead[0].headers.last("__streams.errors.offset"),
        Some(&b"1"[..])
    );
    assert!(
        driver
            .metrics()
            .contains("millstream_dead_letter_records_total")
    );
}

#[test]
fn a_rekeyed_stream_counts_behind_a_repartition_topic() {
    let builder = StreamsBuilder::new();
    builder
        .stream("lines", Consumed::with(serdes::string(), serdes::string()))
        .flat_map_values(|line| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<String>>()
        })
        .group_by(
            |_, word| word.clone(),
            Grouped::with("by-word", serdes::string(), serdes::string()),
        )
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ))
        .to_stream()
        .map_values(|count| count.unwrap_or(0))
        .to("out", Produced::with(serdes::string(), serdes::i64()));
    let mut driver = TopologyTestDriver::builder()
        .partitions(2)
        .build(builder.build().unwrap())
        .unwrap();
    let lines = driver.input_topic("lines", serdes::string(), serdes::string());
    lines
        .pipe(&mut driver, "1".to_owned(), "a b a".to_owned())
        .unwrap();
    lines
        .pipe(&mut driver, "2".to_owned(), "b a".to_owned())
        .unwrap();
    assert_eq!(driver.store_value("counts", "a").unwrap(), Some(3.into()));
    assert_eq!(driver.store_value("counts", "b").unwrap(), Some(2.into()));
    // What is counted and committed is purged: nothing else deletes from a repartition topic.
    driver
        .advance_wall_clock_time(Duration::from_secs(31))
        .unwrap();
    let left: usize = (0..2)
        .map(|partition| {
            let at = millstream::log::TopicPartition::new("test-by-word-repartition", partition);
            driver.log().inspect_records(&at).unwrap().len()
        })
        .sum();
    assert_eq!(left, 0);
}

#[test]
fn punctuators_follow_both_times() {
    struct Ticker;
    impl Processor<String, String, String, String> for Ticker {
        fn init(
            &mut self,
            context: &mut ProcessorContext<'_, String, String>,
        ) -> Result<Init, BoxError> {
            context.schedule(Duration::from_secs(10), PunctuationType::WallClockTime);
            context.schedule(Duration::from_secs(60), PunctuationType::StreamTime);
            Ok(Init::Ready)
        }
        fn process(
            &mut self,
            _: &mut ProcessorContext<'_, String, String>,
            _: Record<String, String>,
        ) -> Result<(), BoxError> {
            Ok(())
        }
        fn punctuate(
            &mut self,
            context: &mut ProcessorContext<'_, String, String>,
            punctuation: Punctuation,
        ) -> Result<(), BoxError> {
            let kind = format!("{:?}", punctuation.kind);
            context.forward(Record::new(kind, String::new(), punctuation.timestamp))?;
            Ok(())
        }
    }
    let builder = StreamsBuilder::new();
    builder
        .stream("in", Consumed::with(serdes::string(), serdes::string()))
        .process("ticker", (), |_, ()| Ticker)
        .to("ticks", Produced::with(serdes::string(), serdes::string()));
    let mut driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    let input = driver.input_topic("in", serdes::string(), serdes::string());
    let ticks = driver.output_topic("ticks", serdes::string(), serdes::string());
    driver
        .advance_wall_clock_time(Duration::from_secs(9))
        .unwrap();
    assert!(ticks.read_records(&mut driver).unwrap().is_empty());
    driver
        .advance_wall_clock_time(Duration::from_secs(25))
        .unwrap();
    let fired: Vec<String> = ticks
        .read_records(&mut driver)
        .unwrap()
        .into_iter()
        .map(|record| record.key)
        .collect();
    assert_eq!(fired, ["WallClockTime"], "skipped intervals fire once");
    for timestamp in [1_000, 30_000, 61_000] {
        let record = Record::new("k".to_owned(), "v".to_owned(), timestamp);
        input.pipe_record(&mut driver, &record).unwrap();
    }
    let times: Vec<i64> = ticks
        .read_records(&mut driver)
        .unwrap()
        .into_iter()
        .map(|record| record.timestamp)
        .collect();
    assert_eq!(times, [1_000, 61_000]);
}

#[test]
fn a_committed_position_passes_control_records_so_that_retention_never_overtakes_it() {
    let builder = StreamsBuilder::new();
    // What it writes comes back to it: the partition ends with a commit marker.
    builder.declare_topic("loop", [("retention.ms", "86400000")]);
    builder
        .stream("start", Consumed::with(serdes::string(), serdes::string()))
        .to("loop", Produced::with(serdes::string(), serdes::string()));
    builder
        .stream("loop", Consumed::with(serdes::string(), serdes::string()))
        .for_each(|_, _| {});
    let mut driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    let start = driver.input_topic("start", serdes::string(), serdes::string());
    start
        .pipe(&mut driver, "k".to_owned(), "v".to_owned())
        .unwrap();
    let group = driver.log().inspect_group("test").unwrap();
    let partition = millstream::log::TopicPartition::new("loop", 0);
    let committed = group.offsets.get(&partition).map(|offset| offset.offset);
    assert_eq!(committed, Some(2), "the record and the marker behind it");
    driver
        .advance_wall_clock_time(Duration::from_secs(3 * 86400))
        .unwrap();
    driver.log().maintain().unwrap();
    start
        .pipe(&mut driver, "k".to_owned(), "w".to_owned())
        .unwrap();
}

/// Says which partition each record was read from.
struct WhichPartition;

impl Processor<String, String, String, String> for WhichPartition {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        let from = context.record_metadata().ok_or("of no record")?.partition;
        let value = format!("{}@{from}", record.value);
        Ok(context.forward(record.with_value(value))?)
    }
}

#[test]
fn a_multicast_record_is_in_each_partition_that_was_chosen_and_one_for_none_is_counted_as_dropped()
{
    let builder = StreamsBuilder::new();
    let (key, value) = text();
    let everywhere =
        Produced::with(key.clone(), value.clone()).multicast_by(|_, value: &String, partitions| {
            match value.as_str() {
                "all" => Some((0..partitions).collect()),
                "two" => Some(vec![2, 0]),
                "none" => Some(Vec::new()),
                _ => None,
            }
        });
    builder
        .stream("rates", Consumed::with(key.clone(), value.clone()))
        .to("everywhere", everywhere);
    builder
        .stream("everywhere", Consumed::with(key.clone(), value.clone()))
        .process("which", (), |_, ()| WhichPartition)
        .to("seen", Produced::with(key.clone(), value.clone()));

    let mut driver = TopologyTestDriver::builder()
        .partitions(3)
        .build(builder.build().unwrap())
        .unwrap();
    let rates = driver.input_topic("rates", key.clone(), value.clone());
    let seen = driver.output_topic("seen", key, value);
    let pipe = |driver: &mut TopologyTestDriver, value: &str| {
        rates
            .pipe(driver, "eur".to_owned(), value.to_owned())
            .unwrap();
        let mut values = seen.read_values(driver).unwrap();
        values.sort_unstable();
        values
    };
    assert_eq!(pipe(&mut driver, "all"), ["all@0", "all@1", "all@2"]);
    assert_eq!(pipe(&mut driver, "two"), ["two@0", "two@2"]);
    assert!(pipe(&mut driver, "none").is_empty());
    assert_eq!(pipe(&mut driver, "by key").len(), 1);
    let metrics = driver.metrics();
    let dropped: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("millstream_records_dropped_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(dropped, 1, "{metrics}");
}
