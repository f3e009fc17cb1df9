//! Processors: punctuators, what a context tells, stores that others fill; timestamp extractors.

use std::convert::Infallible;
use std::time::Duration;

use millstream::prelude::*;

use crate::aggregations::store;
use crate::cases;
use crate::stateless::{Text, java, nullable, reads, writes};

cases![
    punctuate_stream_time,
    punctuate_wall_clock,
    punctuate_stream_time_anchored,
    punctuate_wall_clock_anchored,
    punctuate_later,
    context,
    request_commit,
    global_store,
    read_only_store,
    timestamp_fail,
    timestamp_skip,
    timestamp_of_partition,
    timestamp_of_partition_none,
];

const INTERVAL: Duration = Duration::from_millis(700);

type Context<'a> = ProcessorContext<'a, String, String>;

fn strings() -> Consumed<String, String> {
    Consumed::with(serdes::string(), serdes::string())
}

fn writes_strings() -> Produced<String, String> {
    Produced::with(serdes::string(), serdes::string())
}

/// Says when it was called, and what the clocks are then.
fn tick(context: &mut Context<'_>, punctuation: Punctuation) -> Result<(), BoxError> {
    let time = punctuation.timestamp;
    let stream = context.stream_time().unwrap_or(-1);
    let value = format!("{time} stream {stream} system {}", context.system_time());
    Ok(context.forward(Record::new("tick".to_owned(), value, time))?)
}

/// Passes records on, between what its schedule makes it say.
struct Ticking(fn(&mut Context<'_>));

impl Processor<String, String, String, String> for Ticking {
    fn init(&mut self, context: &mut Context<'_>) -> Result<Init, BoxError> {
        (self.0)(context);
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        context: &mut Context<'_>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        Ok(context.forward(record)?)
    }

    fn punctuate(
        &mut self,
        context: &mut Context<'_>,
        punctuation: Punctuation,
    ) -> Result<(), BoxError> {
        tick(context, punctuation)
    }
}

fn punctuate(builder: &StreamsBuilder, schedule: fn(&mut Context<'_>)) {
    builder
        .stream("in", strings())
        .process("ticking", (), move |_, ()| Ticking(schedule))
        .to("out", writes_strings());
}

fn punctuate_stream_time(builder: &StreamsBuilder) {
    punctuate(builder, |context| {
        context.schedule(INTERVAL, PunctuationType::StreamTime);
    });
}

fn punctuate_wall_clock(builder: &StreamsBuilder) {
    punctuate(builder, |context| {
        context.schedule(INTERVAL, PunctuationType::WallClockTime);
    });
}

fn punctuate_stream_time_anchored(builder: &StreamsBuilder) {
    punctuate(builder, |context| {
        context.schedule_from(33_333, INTERVAL, PunctuationType::StreamTime);
    });
}

fn punctuate_wall_clock_anchored(builder: &StreamsBuilder) {
    punctuate(builder, |context| {
        context.schedule_from(1_234, INTERVAL, PunctuationType::WallClockTime);
    });
}

/// Schedules with every `1`, cancels with every `2`.
#[derive(Default)]
struct Restless(Option<PunctuationId>);

impl Processor<String, String, String, String> for Restless {
    fn process(
        &mut self,
        context: &mut Context<'_>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        match (record.value.as_str(), self.0) {
            ("1", None) => {
                let interval = Duration::from_millis(500);
                self.0 = Some(context.schedule(interval, PunctuationType::StreamTime));
            }
            ("2", Some(schedule)) => {
                context.cancel(schedule);
                self.0 = None;
            }
            _ => {}
        }
        Ok(context.forward(record)?)
    }

    fn punctuate(
        &mut self,
        context: &mut Context<'_>,
        punctuation: Punctuation,
    ) -> Result<(), BoxError> {
        tick(context, punctuation)
    }
}

fn punctuate_later(builder: &StreamsBuilder) {
    builder
        .stream("in", strings())
        .process("restless", (), |_, ()| Restless::default())
        .to("out", writes_strings());
}

/// Says where each record is from, and what the clocks are.
struct Where;

impl Processor<Text, Text, Text, Text> for Where {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, Text, Text>,
        record: Record<Text, Text>,
    ) -> Result<(), BoxError> {
        let from = context
            .record_metadata()
            .ok_or("a record is from somewhere")?;
        let (topic, partition, offset) = (&from.topic, from.partition, from.offset);
        let stream = context.stream_time().unwrap_or(-1);
        let system = context.system_time();
        let value = format!("{topic}-{partition}@{offset} stream {stream} system {system}");
        Ok(context.forward(record.with_value(Some(value)))?)
    }
}

fn context(builder: &StreamsBuilder) {
    nullable(builder)
        .merge(&builder.stream("more", reads()))
        .process("where", (), |_, ()| Where)
        .to("out", writes());
}

/// Asks for a commit with each record.
struct Hasty;

impl Processor<String, String, String, String> for Hasty {
    fn process(
        &mut self,
        context: &mut Context<'_>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        context.forward(record)?;
        context.request_commit();
        Ok(())
    }
}

fn request_commit(builder: &StreamsBuilder) {
    builder
        .stream("in", strings())
        .process("hasty", (), |_, ()| Hasty)
        .to("out", writes_strings());
}

/// Keeps keys by value: what a global store makes of its topic is up to its processor.
struct ByValue(StoreRef<Text, String>);

impl Processor<Text, Text, Infallible, Infallible> for ByValue {
    fn process(
        &mut self,
        _context: &mut ProcessorContext<'_, Infallible, Infallible>,
        record: Record<Text, Text>,
    ) -> Result<(), BoxError> {
        if let (Some(key), Some(value)) = (record.key, record.value) {
            let found = format!("{key}@{}", record.timestamp);
            self.0.put(Some(value), found)?;
        }
        Ok(())
    }
}

fn global_store(builder: &StreamsBuilder) {
    let global = builder.add_global_store(
        store("global", serdes::string()),
        "table",
        reads(),
        "by-value",
        |_, store| ByValue(store),
    );
    nullable(builder)
        .left_join_global_table(
            &global,
            |_, value| value.is_some().then(|| value.clone()),
            |_, value, found| {
                let found = found.unwrap_or_else(|| "none".to_owned());
                Some(format!("{}:{found}", java(&value)))
            },
        )
        .to("out", writes());
}

/// Looks every record up by its key.
struct LookUp(ReadOnlyStore<Text, String>);

impl Processor<Text, Text, Text, Text> for LookUp {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, Text, Text>,
        record: Record<Text, Text>,
    ) -> Result<(), BoxError> {
        let found = match &record.key {
            Some(_) => self.0.get_with_timestamp(&record.key)?,
            None => None,
        };
        let found = found.map_or_else(
            || "none".to_owned(),
            |(text, time)| format!("{text}@{time}"),
        );
        let value = format!("{}:{found}", java(&record.value));
        Ok(context.forward(record.with_value(Some(value)))?)
    }
}

fn read_only_store(builder: &StreamsBuilder) {
    let names = builder.add_read_only_state_store(
        "table",
        Consumed::with(serdes::optional(serdes::string()), serdes::string()),
        store("names", serdes::string()),
    );
    nullable(builder)
        .process("look-up", (&names,), |_, (names,)| LookUp(names))
        .to("out", writes());
}

fn timestamp_fail(builder: &StreamsBuilder) {
    builder.stream("in", strings()).to("out", writes_strings());
}

fn timestamp_skip(builder: &StreamsBuilder) {
    let consumed = strings().with_timestamp_extractor(LogAndSkipOnInvalidTimestamp);
    builder.stream("in", consumed).to("out", writes_strings());
}

fn timestamp_of_partition(builder: &StreamsBuilder) {
    let consumed = strings().with_timestamp_extractor(UsePartitionTimeOnInvalidTimestamp);
    builder.stream("in", consumed).to("out", writes_strings());
}

fn timestamp_of_partition_none(builder: &StreamsBuilder) {
    timestamp_of_partition(builder);
}
