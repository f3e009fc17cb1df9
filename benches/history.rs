//! What it costs to read an aggregate's past, whatever its length: `scripts/bench history`.
//!
//! One account with 200 events and one with 10,000, in a store on disk, written by the production
//! stream thread; snapshots every 100 versions, as shipped. The past is asked for at the dearest point,
//! a version before a snapshot. How many events that reads is asserted by a test
//! (`tests/time_travel/cost.rs`); here it is timed.
#![expect(clippy::expect_used, reason = "a bench has nobody to report to")]

use divan::{Bencher, black_box};
use millstream::event_sourcing::{
    Aggregate, AggregateHistory, AggregateTopics, EventSourced, Point, ReasonCode, Rejection,
};
use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;
use serde::{Deserialize, Serialize};
use serde_json::json;

const LENGTHS: [u64; 2] = [200, 10_000];

fn main() {
    divan::main();
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Count {}

millstream::command_data!(Count);
millstream::commands! { enum CounterCommand { Count(Count) } }

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Counted {
    by: u64,
}

millstream::first_version!(Counted);
millstream::events! { enum CounterEvent { Counted(Counted) } }

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Rejection for Never {
    fn code(&self) -> ReasonCode {
        ReasonCode::new("NEVER")
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Counter {
    total: u64,
}

impl Aggregate for Counter {
    const TYPE: &'static str = "Counter";
    type State = Self;
    type Command = CounterCommand;
    type Event = CounterEvent;
    type Rejection = Never;

    fn decide(_: &Self, command: CounterCommand) -> Result<Vec<CounterEvent>, Never> {
        let CounterCommand::Count(Count {}) = command;
        Ok(vec![Counted { by: 1 }.into()])
    }

    fn apply(counter: &mut Self, event: &CounterEvent) {
        let CounterEvent::Counted(counted) = event;
        counter.total += counted.by;
    }
}

struct Written {
    driver: TopologyTestDriver,
    history: AggregateHistory<Counter>,
}

/// Writes both aggregates, as another system's events.
fn written() -> Written {
    let builder = StreamsBuilder::new();
    let counters = EventSourced::<Counter>::new("counter", AggregateTopics::prefixed("counter"));
    let history = counters.history();
    counters.draw(&builder).for_each(|_, _| {});
    let topology = builder.build().expect("the topology is whole");
    let mut driver = TopologyTestDriver::builder()
        .records_per_transaction(500)
        .build(topology)
        .expect("the driver starts");
    let events = driver.input_topic("counter.events", serdes::string(), serdes::bytes());
    let now = driver.now_ms();
    for length in LENGTHS {
        let event = |version: u64| {
            let event = json!({
                "eventId": format!("{length}-{version}"), "eventType": "Counted",
                "aggregateId": name(length), "aggregateType": "Counter",
                "aggregateVersion": version, "timestamp": "2024-01-01T00:00:00.000Z",
                "correlationId": "bench", "data": {"by": 1},
            });
            Record::new(name(length), event.to_string().into_bytes(), now)
        };
        let records: Vec<_> = (1..=length).map(event).collect();
        events
            .pipe_all(&mut driver, &records)
            .expect("the events are folded");
    }
    Written { driver, history }
}

fn name(length: u64) -> String {
    format!("counter-{length}")
}

/// The aggregate as it was one version before its last snapshot: a snapshot and 99 events.
#[divan::bench(args = LENGTHS)]
fn as_of_the_dearest_version(bencher: Bencher<'_, '_>, length: u64) {
    let written = written();
    let id = name(length);
    bencher.bench_local(|| {
        let point = Point::Version(black_box(length - 1));
        let found = written.history.as_of(written.driver.queries(), &id, point);
        found.expect("it is read").expect("it is there")
    });
}

/// The aggregate as it is: one entry.
#[divan::bench(args = LENGTHS)]
fn as_it_is(bencher: Bencher<'_, '_>, length: u64) {
    let written = written();
    let id = name(length);
    bencher.bench_local(|| {
        let found = written.history.current(written.driver.queries(), &id);
        found.expect("it is read").expect("it is there")
    });
}
