//! Local times of airports, by the time zone database that is built in.

use std::collections::HashMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan as _};
use millstream::prelude::Timestamp;

/// The time zones of airports.
#[derive(Debug, Default)]
pub(super) struct Zones(HashMap<String, TimeZone>);

/// A time of day as the files have it: `HHMM` as a number, `2400` the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HourMinute(i64);

impl HourMinute {
    pub(super) fn parse(number: i64) -> Option<Self> {
        let (hour, minute) = (number / 100, number % 100);
        let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) || number == 2400;
        is_time.then_some(Self(hour * 60 + minute))
    }
}

impl Zones {
    /// Notes an airport's zone; a zone that is not in the database is as good as none.
    pub(super) fn insert(&mut self, airport: &str, zone: &str) {
        if let Ok(zone) = TimeZone::get(zone) {
            self.0.insert(airport.to_owned(), zone);
        }
    }

    /// Returns when it is `time` of `date` at an airport; `None` where its zone is not known.
    pub(super) fn at(&self, airport: &str, date: Date, time: HourMinute) -> Option<Timestamp> {
        let zone = self.0.get(airport)?;
        let civil = date
            .at(0, 0, 0, 0)
            .checked_add(SignedDuration::from_mins(time.0))
            .ok()?;
        let zoned = civil.to_zoned(zone.clone()).ok()?;
        Some(zoned.timestamp().as_millisecond())
    }

    /// Returns the first time after `after` at which it is `time` at an airport, around `date`.
    pub(super) fn next(
        &self,
        airport: &str,
        date: Date,
        time: HourMinute,
        after: Timestamp,
    ) -> Option<Timestamp> {
        (-1..=2).find_map(|days: i64| {
            let day = date.checked_add(days.days()).ok()?;
            self.at(airport, day, time).filter(|at| *at > after)
        })
    }
}
