//! The topology on the embedded log, fed from files; and what a plain pass over a file says it must be.
//! The pass shares no code with the feed or the topology.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in helpers as well"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use millstream::event_sourcing::ProjectionEndpoint;
use millstream::packaged::{Feed, FeedRequest, FeedTimes};
use millstream::prelude::*;
use millstream::query::PageLimits;
use millstream::testing::TopologyTestDriver;
use millstream_flight_leg::{FlightLegParameters, FlightLegTopology, Flights, INPUT};
use serde_json::Value;

/// 2016-01-01: after all of the files.
pub(crate) const NOW: i64 = 1_451_606_400_000;
/// Records that go in before the topology comes to rest.
const CHUNK: usize = 5_000;

pub(crate) fn january() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../data/nycflights13/flights-2013-01.csv.zst")
}

pub(crate) struct Airport {
    pub(crate) driver: TopologyTestDriver,
    pub(crate) projections: Vec<ProjectionEndpoint>,
}

impl Airport {
    pub(crate) fn new(parameters: FlightLegParameters) -> Self {
        let packaged = FlightLegTopology::draw(parameters).unwrap();
        let driver = TopologyTestDriver::builder()
            .partitions(3)
            .start_at(NOW)
            .records_per_transaction(1_000)
            .build(packaged.topology)
            .unwrap();
        Self {
            driver,
            projections: packaged.projections,
        }
    }

    /// Feeds a file as it is, and calls `after` now and then.
    pub(crate) fn feed(&mut self, file: &Path, mut after: impl FnMut(&mut Self)) -> String {
        let request = FeedRequest::new(file, NOW).with_times(FeedTimes::Kept);
        let source = Flights.open(&request).unwrap();
        for record in source.preamble {
            let (key, value) = (Some(&*record.key), Some(&*record.value));
            self.driver
                .pipe_bytes(record.topic, key, value, NOW, &Headers::new())
                .unwrap();
        }
        let input = self
            .driver
            .input_topic(INPUT, serdes::bytes(), serdes::bytes());
        let mut records = source.records.map(Result::unwrap).peekable();
        while records.peek().is_some() {
            let chunk: Vec<_> = records
                .by_ref()
                .take(CHUNK)
                .map(|record| {
                    assert_eq!(record.topic, INPUT);
                    Record::new(record.key, record.value, record.timestamp)
                })
                .collect();
            input.pipe_all(&mut self.driver, &chunk).unwrap();
            after(self);
        }
        source.summary
    }

    pub(crate) fn store(&self, name: &str) -> BTreeMap<String, Value> {
        let json = serdes::json::<Value>();
        let entries: Vec<(String, Value)> = self
            .driver
            .store_entries(name, &serdes::string(), &json)
            .unwrap();
        entries.into_iter().collect()
    }

    pub(crate) fn projection(&self, name: &str) -> &ProjectionEndpoint {
        let mut projections = self.projections.iter();
        projections.find(|it| it.name() == name).unwrap()
    }

    /// Returns the rows of a projection that are served.
    pub(crate) fn served(&self, name: &str) -> Vec<Value> {
        let limits = PageLimits {
            values: usize::MAX,
            entries: usize::MAX,
        };
        let serving = self.projection(name).serving();
        let queries = self.driver.queries();
        let page = queries.page_serving(&*serving, None, limits, |_| true);
        page.unwrap().values
    }

    pub(crate) fn take(&mut self, topic: &str) -> Vec<Record<String, Value>> {
        let output = self
            .driver
            .output_topic(topic, serdes::string(), serdes::json::<Value>());
        output.read_records(&mut self.driver).unwrap()
    }
}

/// A row, by the names of the header.
pub(crate) type Row = BTreeMap<String, String>;

/// Reads a file of the format by splitting lines at commas.
pub(crate) fn rows(path: &Path) -> Vec<Row> {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    if path.extension().is_some_and(|form| form == "zst") {
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(bytes.as_slice()).unwrap();
        decoder.read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    lines
        .map(|line| {
            let cells = line.split(',').map(str::to_owned);
            names
                .iter()
                .map(|name| (*name).to_owned())
                .zip(cells)
                .collect()
        })
        .collect()
}

pub(crate) fn number(row: &Row, name: &str) -> Option<i64> {
    match row[name].as_str() {
        "NA" => None,
        text => Some(text.parse().unwrap()),
    }
}

pub(crate) fn id(row: &Row) -> String {
    format!(
        "{}{}-{}-{:0>2}-{:0>2}-{}-{}",
        row["carrier"],
        row["flight"],
        row["year"],
        row["month"],
        row["day"],
        row["origin"],
        row["dest"]
    )
}

/// What a leg is in the end.
pub(crate) fn final_status(row: &Row) -> &'static str {
    let known = |name| number(row, name).is_some();
    match (known("dep_time"), known("arr_time"), known("arr_delay")) {
        (false, _, _) => "Cancelled",
        (true, _, true) => "Arrived",
        (true, true, false) => "Landed",
        (true, false, false) => "Departed",
    }
}

/// The figures of one carrier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) flights: i64,
    pub(crate) cancelled: i64,
    pub(crate) departed: i64,
    pub(crate) on_time: i64,
    pub(crate) delay: i64,
    pub(crate) arrival_delay: i64,
    pub(crate) diverted: i64,
}

impl Expected {
    pub(crate) fn add(&mut self, row: &Row) {
        self.flights += 1;
        match number(row, "dep_delay") {
            None => self.cancelled += 1,
            Some(delay) => {
                self.departed += 1;
                self.on_time += i64::from(delay < 15);
                self.delay += delay.max(0);
                match number(row, "arr_delay") {
                    None => self.diverted += 1,
                    Some(delay) => self.arrival_delay += delay.max(0),
                }
            }
        }
    }

    pub(crate) fn of(figures: &Value) -> Self {
        let field = |name: &str| {
            figures[name]
                .as_i64()
                .unwrap_or_else(|| panic!("{name} in {figures}"))
        };
        Self {
            flights: field("flights"),
            cancelled: field("cancelled"),
            departed: field("departed"),
            on_time: field("onTime"),
            delay: field("delayMinutes"),
            arrival_delay: field("arrivalDelayMinutes"),
            diverted: field("divertedOrUnknown"),
        }
    }
}

pub(crate) fn by_carrier(rows: &[Row]) -> BTreeMap<String, Expected> {
    let mut carriers: BTreeMap<String, Expected> = BTreeMap::new();
    for row in rows {
        carriers.entry(row["carrier"].clone()).or_default().add(row);
    }
    carriers
}

/// By carrier and hour of scheduled departure in UTC, which the files have as `time_hour`.
pub(crate) fn by_carrier_hour(rows: &[Row]) -> BTreeMap<String, Expected> {
    let mut hours: BTreeMap<String, Expected> = BTreeMap::new();
    for row in rows {
        let hour = row["time_hour"].replace("00Z", "00.000Z");
        let key = format!("{}@{hour}", row["carrier"]);
        hours.entry(key).or_default().add(row);
    }
    hours
}

pub(crate) fn by_status(rows: &[Row]) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(final_status(row).to_owned()).or_default() += 1;
    }
    counts
}
