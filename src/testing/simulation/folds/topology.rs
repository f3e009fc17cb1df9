//! The topology that simulations run: Kafka's five-operator exactly-once test, and a processor with
//! stores, deletes and a punctuator beside it.

use std::time::Duration;

use crate::prelude::*;
use crate::testing::simulation::scenario::store;
use crate::topology::Topology;

pub(super) const INPUT: &str = "in";
pub(super) const DEAD_LETTERS: &str = "dead-letters";
pub(super) const ECHO: &str = "echo";
pub(super) const SUM: &str = "sum";
pub(super) const MIN: &str = "min";
pub(super) const MAX: &str = "max";
pub(super) const COUNT: &str = "count";
pub(super) const JOURNAL: &str = "journal";
pub(super) const SEEN: &str = "seen";
pub(in crate::testing::simulation) const TICKS: &str = "ticks";
pub(super) const BY_BUCKET: &str = "by-bucket";

/// A value that the last operator of the chain refuses, when all others have done their work.
pub(super) const POISON: &str = "poison";
/// A value that does not decode.
pub(super) const GARBAGE: &[u8] = &[0xff, 0xfe];

/// The number that a value stands for.
pub(super) fn number(value: &str) -> i64 {
    value.parse().unwrap_or(0)
}

/// The key of the repartitioned count.
pub(super) fn bucket(value: &str) -> String {
    format!("b{}", number(value).rem_euclid(5))
}

/// Whether a record deletes its key from [`SEEN`].
pub(super) fn deletes(value: &str) -> bool {
    number(value) % 3 == 0
}

/// Counts the records of each key since its last delete; a wall-clock punctuator counts the times
/// that it found something new.
struct Journal {
    partition: i32,
    seen: StoreRef<String, i64>,
    ticks: StoreRef<String, i64>,
    /// Lost with the instance: a tick may be left out then, which nothing depends on.
    news: bool,
}

impl Processor<String, String, String, i64> for Journal {
    fn init(&mut self, context: &mut ProcessorContext<'_, String, i64>) -> Result<Init, BoxError> {
        context.schedule(Duration::from_millis(40), PunctuationType::WallClockTime);
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, i64>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        self.news = true;
        let seen = if deletes(&record.value) {
            self.seen.delete(&record.key)?;
            0
        } else {
            let seen = self.seen.get(&record.key)?.unwrap_or(0) + 1;
            self.seen.put(record.key.clone(), seen)?;
            seen
        };
        context.forward(record.with_value(seen))?;
        Ok(())
    }

    fn punctuate(
        &mut self,
        context: &mut ProcessorContext<'_, String, i64>,
        punctuation: Punctuation,
    ) -> Result<(), BoxError> {
        if std::mem::take(&mut self.news) {
            let key = tick_key(self.partition);
            let ticks = self.ticks.get(&key)?.unwrap_or(0) + 1;
            self.ticks.put(key.clone(), ticks)?;
            context.forward(Record::new(key, ticks, punctuation.timestamp))?;
        }
        Ok(())
    }
}

pub(super) fn tick_key(partition: i32) -> String {
    format!("tick-{partition}")
}

/// The partition that a tick was counted in; `None` for what is no tick.
pub(super) fn tick_partition(key: &str) -> Option<i32> {
    key.strip_prefix("tick-")?.parse().ok()
}

/// An aggregate: its name, where it starts, how it goes on.
type Fold = (&'static str, fn() -> i64, fn(i64, i64) -> i64);

/// Draws the topology.
///
/// # Errors
/// A mistake of this function.
pub(in crate::testing::simulation) fn build(
    ageing: bool,
    dead_letters: bool,
) -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let numbers = || Produced::with(serdes::string(), serdes::i64());
    let policy = if dead_letters {
        builder.declare_topic(DEAD_LETTERS, [("retention.ms", "-1")]);
        ErrorPolicy::DeadLetter {
            topic: DEAD_LETTERS.to_owned(),
        }
    } else {
        ErrorPolicy::Skip
    };
    let input = builder.stream(
        INPUT,
        Consumed::with(serdes::string(), serdes::string()).on_error(policy),
    );
    input.to(ECHO, Produced::with(serdes::string(), serdes::string()));
    let by_key = input.group_by_key(Grouped::as_name("by-key"));
    let folds: [Fold; 3] = [
        (SUM, || 0, |value, sum| sum + value),
        (MIN, || i64::MAX, i64::min),
        (MAX, || i64::MIN, i64::max),
    ];
    for (name, initial, fold) in folds {
        let store = store(name, ageing);
        let store = if name == MAX {
            store.in_memory()
        } else {
            store
        };
        by_key
            .aggregate(
                initial,
                move |_, value: String, sum| fold(number(&value), sum),
                store,
            )
            .to_stream()
            .map_values(|value| value.unwrap_or(0))
            .to(name, numbers());
    }
    let seen = builder.add_state_store(store(SEEN, ageing));
    let ticks = builder.add_state_store(store(TICKS, ageing));
    input
        .process("journal", (&seen, &ticks), |setup, (seen, ticks)| Journal {
            partition: setup.partition(),
            seen,
            ticks,
            news: false,
        })
        .to(
            JOURNAL,
            numbers().partitioned_by(|key, _, _| tick_partition(key)),
        );
    input
        .group_by(
            |_, value| bucket(value),
            Grouped::with(BY_BUCKET, serdes::string(), serdes::string()),
        )
        .count(store(COUNT, ageing))
        .to_stream()
        .map_values(|count| count.unwrap_or(0))
        .to(COUNT, numbers());
    // Last: everything above has staged its outputs and writes when this refuses.
    input.try_for_each(|_, value| {
        if value == POISON {
            Err("poison".into())
        } else {
            Ok(())
        }
    });
    builder.build()
}
