//! A topology of one aggregate, its driver, and its history.

use millstream::event_sourcing::{
    AggregateHistory, AggregateRecord, AggregateTopics, AsOf, EventPeriod, EventSourced,
    EventsOfPeriod, Outcome, Point, Reads, Reply, TimelineEntry, format_timestamp, parse_timestamp,
};
use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;
use serde_json::{Value, json};

use crate::leg::{Leg, LegState};

pub(crate) fn time(text: &str) -> Timestamp {
    parse_timestamp(&format!("2025-07-04T{text}Z")).unwrap()
}

pub(crate) type Draw<S> = fn(EventSourced<Leg<S>>) -> EventSourced<Leg<S>>;

fn described<S: LegState>(draw: Draw<S>) -> EventSourced<Leg<S>> {
    let topics = AggregateTopics {
        commands: "commands".to_owned(),
        events: "events".to_owned(),
        replies: "replies".to_owned(),
        dead_letters: "dead".to_owned(),
    };
    draw(EventSourced::new("leg", topics))
}

fn topology<S: LegState>(draw: Draw<S>) -> Topology {
    let builder = StreamsBuilder::new();
    described::<S>(draw)
        .draw(&builder)
        .map_values(|record: AggregateRecord<S>| record.version)
        .to(
            "versions",
            Produced::with(serdes::string(), serdes::json::<u64>()),
        );
    builder.build().unwrap()
}

/// An airport: a program that runs, and the reader of what it keeps.
pub(crate) struct Airport<S> {
    pub(crate) driver: TopologyTestDriver,
    pub(crate) history: AggregateHistory<Leg<S>>,
    commands: u64,
}

impl<S: LegState> Airport<S> {
    pub(crate) fn new() -> Self {
        Self::with(1, |leg| leg)
    }

    pub(crate) fn with(partitions: i32, draw: Draw<S>) -> Self {
        let driver = TopologyTestDriver::builder()
            .partitions(partitions)
            .start_at(time("10:00:00"))
            .build(topology::<S>(draw))
            .unwrap();
        Self {
            driver,
            history: described::<S>(draw).history(),
            commands: 0,
        }
    }

    /// Stops the program and starts another one on what it has left.
    pub(crate) fn upgrade<T: LegState>(mut self, draw: Draw<T>) -> Airport<T> {
        self.driver.restart_with(topology::<T>(draw), true).unwrap();
        Airport {
            driver: self.driver,
            history: described::<T>(draw).history(),
            commands: self.commands,
        }
    }

    /// Sets the clock.
    pub(crate) fn at(&mut self, clock: &str) -> &mut Self {
        let by = time(clock) - self.driver.now_ms();
        let by = std::time::Duration::from_millis(u64::try_from(by).unwrap());
        self.driver.advance_wall_clock_time(by).unwrap();
        self
    }

    /// Sends a command by `actor`, which must be accepted; returns the version after it.
    pub(crate) fn record(&mut self, leg: &str, actor: &str, data: Value) -> u64 {
        self.commands += 1;
        let command = json!({
            "commandId": format!("c-{}", self.commands), "commandType": "Record", "aggregateId": leg,
            "timestamp": format_timestamp(self.driver.now_ms()).unwrap(),
            "metadata": {"actorId": actor, "source": "tower", "reason": "as planned"}, "data": data,
        });
        let now = self.driver.now_ms();
        let (key, value) = (leg.as_bytes(), command.to_string());
        self.driver
            .pipe_bytes(
                "commands",
                Some(key),
                Some(value.as_bytes()),
                now,
                &Headers::new(),
            )
            .unwrap();
        let replies = self
            .driver
            .output_topic("replies", serdes::string(), serdes::json::<Reply>())
            .read_values(&mut self.driver)
            .unwrap();
        let reply = replies.last().unwrap();
        assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
        reply.aggregate_version
    }

    /// Writes an event of another system.
    pub(crate) fn foreign(&mut self, leg: &str, version: u64, at: Timestamp, stand: &str) {
        let event = json!({
            "eventId": format!("f-{leg}-{version}"), "eventType": "StandAllocated",
            "aggregateId": leg, "aggregateType": "Leg", "aggregateVersion": version,
            "timestamp": format_timestamp(at).unwrap(), "correlationId": "x",
            "data": {"stand": stand},
        });
        let (key, value) = (leg.as_bytes(), event.to_string());
        let now = self.driver.now_ms();
        self.driver
            .pipe_bytes(
                "events",
                Some(key),
                Some(value.as_bytes()),
                now,
                &Headers::new(),
            )
            .unwrap();
    }

    pub(crate) fn as_of(&self, leg: &str, point: Point) -> Option<AsOf<S>> {
        let queries = self.driver.queries();
        self.history.as_of(queries, leg, point).unwrap()
    }

    pub(crate) fn state(&self, leg: &str, point: Point) -> Option<S> {
        self.as_of(leg, point).map(|found| found.record.state)
    }

    pub(crate) fn reads(&self, leg: &str, point: Point) -> Reads {
        self.as_of(leg, point).unwrap().reads
    }

    pub(crate) fn current(&self, leg: &str) -> AsOf<S> {
        let queries = self.driver.queries();
        self.history.current(queries, leg).unwrap().unwrap()
    }

    pub(crate) fn timeline(&self, leg: &str) -> Vec<TimelineEntry> {
        let queries = self.driver.queries();
        let page = self.history.timeline(queries, leg, 1, 1_000);
        page.unwrap().unwrap().items
    }

    pub(crate) fn period(&self, period: &EventPeriod) -> EventsOfPeriod {
        let queries = self.driver.queries();
        self.history.events_of_period(queries, period).unwrap()
    }

    /// Returns the versions that went downstream since the last look.
    pub(crate) fn downstream(&mut self) -> Vec<u64> {
        let versions =
            self.driver
                .output_topic("versions", serdes::string(), serdes::json::<u64>());
        versions.read_values(&mut self.driver).unwrap()
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.driver.metrics();
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}
