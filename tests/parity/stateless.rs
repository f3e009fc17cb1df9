//! Operators without state.

use millstream::prelude::*;

use crate::cases;

cases![
    copy,
    filter,
    filter_not,
    map,
    map_values,
    map_values_with_key,
    flat_map,
    flat_map_values,
    select_key,
    peek,
    merge,
    split,
    split_no_default,
    repartition,
    process,
    process_values,
    stream_of_topics,
    stream_of_pattern,
    dynamic_to,
    partitioner in 3,
    multicast in 3,
    child_forward,
    timestamp_extractor,
];

pub(crate) type Text = Option<String>;

/// Null keys and values are `None`.
pub(crate) fn nullable(builder: &StreamsBuilder) -> KStream<Text, Text> {
    builder.stream("in", reads())
}

pub(crate) fn reads() -> Consumed<Text, Text> {
    let text = || serdes::optional(serdes::string());
    Consumed::with(text(), text())
}

pub(crate) fn writes() -> Produced<Text, Text> {
    let text = || serdes::optional(serdes::string());
    Produced::with(text(), text())
}

/// Null keys are `None`; there are no null values.
fn values(builder: &StreamsBuilder) -> KStream<Text, String> {
    builder.stream("in", reads_values())
}

fn reads_values() -> Consumed<Text, String> {
    Consumed::with(serdes::optional(serdes::string()), serdes::string())
}

fn writes_values() -> Produced<Text, String> {
    Produced::with(serdes::optional(serdes::string()), serdes::string())
}

/// There are no nulls.
fn strings(builder: &StreamsBuilder) -> KStream<String, String> {
    builder.stream("in", Consumed::with(serdes::string(), serdes::string()))
}

fn writes_strings() -> Produced<String, String> {
    Produced::with(serdes::string(), serdes::string())
}

/// Text as Java joins it.
pub(crate) fn java(text: &Text) -> &str {
    text.as_deref().unwrap_or("null")
}

fn copy(builder: &StreamsBuilder) {
    nullable(builder).to("out", writes());
}

fn filter(builder: &StreamsBuilder) {
    values(builder)
        .filter(|_, value| value.as_str() > "5")
        .to("out", writes_values());
}

fn filter_not(builder: &StreamsBuilder) {
    values(builder)
        .filter_not(|_, value| value.as_str() > "5")
        .to("out", writes_values());
}

fn map(builder: &StreamsBuilder) {
    strings(builder)
        .map(|key, value| (value, key))
        .to("out", writes_strings());
}

fn map_values(builder: &StreamsBuilder) {
    let double = |value: Text| value.map_or_else(|| "none".to_owned(), |value| value.repeat(2));
    nullable(builder)
        .map_values(double)
        .to("out", writes_values());
}

fn map_values_with_key(builder: &StreamsBuilder) {
    strings(builder)
        .map_values_with_key(|key, value| format!("{key}{value}"))
        .to("out", writes_strings());
}

fn flat_map(builder: &StreamsBuilder) {
    strings(builder)
        .flat_map(|key, value| [(key.clone(), value.clone()), (value, key)])
        .to("out", writes_strings());
}

fn flat_map_values(builder: &StreamsBuilder) {
    values(builder)
        .flat_map_values(|value| value.chars().map(String::from).collect::<Vec<_>>())
        .to("out", writes_values());
}

fn select_key(builder: &StreamsBuilder) {
    values(builder)
        .select_key(|key, value| format!("{value}{}", java(key)))
        .to("out", writes_strings());
}

fn peek(builder: &StreamsBuilder) {
    strings(builder).peek(|_, _| {}).to("out", writes_strings());
}

fn merge(builder: &StreamsBuilder) {
    let more = builder.stream("more", reads_values());
    values(builder).merge(&more).to("out", writes_values());
}

fn split(builder: &StreamsBuilder) {
    let mut split = values(builder).split();
    let high = split.branch(|_, value| value.as_str() > "7");
    let middle = split.branch(|_, value| value.as_str() > "3");
    let low = split.default_branch();
    high.to("out-high", writes_values());
    middle.to("out-middle", writes_values());
    low.to("out-low", writes_values());
}

fn split_no_default(builder: &StreamsBuilder) {
    let mut split = strings(builder).split();
    let high = split.branch(|_, value| value.as_str() > "7");
    split.no_default_branch();
    high.to("out", writes_strings());
}

fn repartition(builder: &StreamsBuilder) {
    let text = || serdes::optional(serdes::string());
    nullable(builder)
        .select_key(|_, value| value.clone())
        .repartition(Repartitioned::with("by-value", text(), text()).partitions(1))
        .to("out", writes());
}

/// Forwards a record changed in every part, then the record itself.
struct Echo;

impl Processor<String, String, String, String> for Echo {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        let mut changed = record.clone();
        std::mem::swap(&mut changed.key, &mut changed.value);
        changed.timestamp += 5;
        changed.headers.push("echo", Some(vec![1]));
        context.forward(changed)?;
        Ok(context.forward(record)?)
    }
}

fn process(builder: &StreamsBuilder) {
    strings(builder)
        .process("echo", (), |_, ()| Echo)
        .to("out", writes_strings());
}

/// Forwards the value twice.
struct Twice;

impl FixedKeyProcessor<Text, String, String> for Twice {
    fn process(
        &mut self,
        context: &mut FixedKeyProcessorContext<'_, '_, Text, String>,
        record: FixedKeyRecord<Text, String>,
    ) -> Result<(), BoxError> {
        let (first, second) = (
            format!("{}!", record.value()),
            format!("{}?", record.value()),
        );
        context.forward(record.clone().with_value(first))?;
        let later = record.timestamp() + 1;
        Ok(context.forward(record.with_value(second).with_timestamp(later))?)
    }
}

fn process_values(builder: &StreamsBuilder) {
    values(builder)
        .process_values("twice", (), |_, ()| Twice)
        .to("out", writes_values());
}

fn stream_of_topics(builder: &StreamsBuilder) {
    builder
        .streams(["in", "more"], reads_values())
        .to("out", writes_values());
}

fn stream_of_pattern(builder: &StreamsBuilder) {
    builder
        .stream_pattern("in-.*", reads_values().named("inputs"))
        .to("out", writes_values());
}

fn timestamp_extractor(builder: &StreamsBuilder) {
    let later = |record: &ConsumedRecord<'_, String, String>, partition_time: Option<Timestamp>| {
        match record.value {
            Some(value) if value.as_str() < "3" => -1,
            _ => record.timestamp + 7 + partition_time.unwrap_or(0) / 2,
        }
    };
    let consumed = Consumed::with(serdes::string(), serdes::string());
    builder
        .stream("in", consumed.with_timestamp_extractor(later))
        .to("out", writes_strings());
}

fn high_or_low(value: &str) -> &'static str {
    if value > "5" { "high" } else { "low" }
}

fn dynamic_to(builder: &StreamsBuilder) {
    values(builder).to_dynamic(
        ["out-high", "out-low"],
        |record| format!("out-{}", high_or_low(&record.value)),
        writes_values(),
    );
}

fn partitioner(builder: &StreamsBuilder) {
    let by_value = |_: &Text, value: &String, partitions| {
        let number: i32 = value.parse().unwrap_or(0);
        (number >= 5).then_some(number % partitions)
    };
    values(builder).to("out", writes_values().partitioned_by(by_value));
}

/// By its value a record is partitioned by its key, or dropped, or written to several partitions.
fn multicast(builder: &StreamsBuilder) {
    let everywhere = |_: &Text, value: &Text, partitions| match value.as_deref() {
        None | Some("0" | "1") => None,
        Some("2" | "3" | "4") => Some(Vec::new()),
        Some("5" | "6" | "7") => Some(vec![0, 2]),
        Some(_) => Some((0..partitions).collect()),
    };
    nullable(builder).to("out", writes().multicast_by(everywhere));
}

/// Forwards to one child by name, every ninth value to all.
struct Router;

impl Processor<Text, String, Text, String> for Router {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, Text, String>,
        record: Record<Text, String>,
    ) -> Result<(), BoxError> {
        if record.value == "9" {
            return Ok(context.forward(record)?);
        }
        let child = high_or_low(&record.value);
        Ok(context.forward_to(child, record)?)
    }
}

fn child_forward(builder: &StreamsBuilder) {
    let routed = values(builder).process("router", (), |_, ()| Router);
    routed.to("out-high", writes_values().named("high"));
    routed.to("out-low", writes_values().named("low"));
}
