//! The life of a leg, as its row tells it.
//!
//! ```text
//! a day before    Schedule
//! scheduled       DepartureTimes and ArrivalTimes estimated, when it leaves 15 minutes late or more
//!                 or Cancellation, when it never left
//! departure       DepartureTimes actual
//! arrival         ArrivalTimes actual, StatusReport Arrived
//!                 or StatusReport Landed, when there is a time of arrival and no delay: diverted
//! ```
//! A leg whose row ends with its departure ends Departed. Where the destination's time zone is not known
//! there are no times of arrival, only the delay; it is said when the time in the air has passed.

use jiff::civil::Date;
use millstream::event_sourcing::RawValue;
use millstream::packaged::{FeedError, FeedRecord};
use millstream::prelude::{BoxError, Headers, Timestamp};
use serde::Serialize;

use super::rows::FlightRow;
use super::zones::{HourMinute, Zones};
use crate::events::Status;
use crate::flight_id::FlightId;
use crate::flight_leg::LATE_MINUTES;
use crate::instant::Instant;
use crate::messages::{
    AdapterMessage, Cancellation, DELAY_MINUTES_MAX, Schedule, StatusReport, Times,
    is_plausible_delay,
};
use crate::topology::INPUT;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
const SOURCE: &str = "flights-csv";

/// A row in universal time.
#[derive(Debug, Clone)]
pub(super) struct Leg {
    flight_id: String,
    flight_number: String,
    airline: String,
    origin: String,
    destination: String,
    aircraft: Option<String>,
    scheduled_departure: Timestamp,
    scheduled_arrival: Option<Timestamp>,
    /// Minutes late, when it left.
    departed: Option<i64>,
    arrival: Arrival,
}

#[derive(Debug, Clone, Copy)]
enum Arrival {
    /// It has none in the file.
    Unknown,
    /// Minutes late, and when it was said.
    Arrived { delay: i64, at: Timestamp },
    /// Somewhere, some time.
    Landed { at: Timestamp },
}

/// What is said, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) at: Timestamp,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Schedule,
    ExpectDeparture { at: Timestamp },
    ExpectArrival { at: Timestamp },
    Cancel,
    Depart { at: Timestamp },
    Arrive { at: Option<Timestamp>, delay: i64 },
    Report(Status),
}

impl Leg {
    /// Reads a row; the error says what is wrong with it.
    pub(super) fn of(row: FlightRow, zones: &Zones) -> Result<Self, String> {
        let date = Date::new(row.year, row.month, row.day).map_err(|error| error.to_string())?;
        let time = |name: &str, number: i64| {
            HourMinute::parse(number).ok_or_else(|| format!("{name} {number} is no time of day"))
        };
        let planned = time("sched_dep_time", row.sched_dep_time)?;
        let scheduled_departure = zones
            .at(&row.origin, date, planned)
            .ok_or_else(|| format!("the time zone of origin {} is not known", row.origin))?;
        let arrival_time = time("sched_arr_time", row.sched_arr_time)?;
        let scheduled_arrival = zones.next(&row.dest, date, arrival_time, scheduled_departure);
        for (name, delay) in [
            ("dep_delay", row.dep_delay.0),
            ("arr_delay", row.arr_delay.0),
        ] {
            if delay.is_some_and(|minutes| !is_plausible_delay(minutes)) {
                return Err(format!("{name} is more than 31 days"));
            }
        }
        let departed = match (row.dep_time.0, row.dep_delay.0) {
            (None, _) => None,
            (Some(_), Some(delay)) => Some(delay),
            (Some(_), None) => return Err("dep_time without dep_delay".to_owned()),
        };
        let flight_number = format!("{}{}", row.carrier, row.flight);
        let flight_id = FlightId {
            flight_number: &flight_number,
            date,
            origin: &row.origin,
            destination: &row.dest,
        }
        .to_string();
        if FlightId::parse(&flight_id).is_none() {
            return Err(format!("{flight_id} is not the id of a flight"));
        }
        let left = departed.map(|delay| scheduled_departure + delay * MINUTE_MS);
        let in_the_air = row.air_time.0.unwrap_or(0).clamp(0, DELAY_MINUTES_MAX) * MINUTE_MS;
        let arrival = match (left, row.arr_time.0, row.arr_delay.0) {
            (Some(left), _, Some(delay)) => Arrival::Arrived {
                delay,
                at: match scheduled_arrival {
                    Some(scheduled) => scheduled + delay * MINUTE_MS,
                    None => left + in_the_air,
                },
            },
            (Some(left), Some(number), None) => Arrival::Landed {
                at: zones
                    .next(&row.dest, date, time("arr_time", number)?, left)
                    .unwrap_or(left + in_the_air),
            },
            _ => Arrival::Unknown,
        };
        Ok(Self {
            flight_id,
            flight_number,
            airline: row.carrier,
            origin: row.origin,
            destination: row.dest,
            aircraft: row.tailnum.0,
            scheduled_departure,
            scheduled_arrival,
            departed,
            arrival,
        })
    }

    /// Returns what is said of the leg, in the order of its life.
    pub(super) fn life(&self) -> Vec<Said> {
        let mut life = Vec::with_capacity(6);
        let mut say = |at, what| life.push(Said { at, what });
        let scheduled = self.scheduled_departure;
        say(scheduled - DAY_MS, What::Schedule);
        let Some(delay) = self.departed else {
            say(scheduled, What::Cancel);
            return life;
        };
        let left = scheduled + delay * MINUTE_MS;
        if delay >= LATE_MINUTES {
            say(scheduled, What::ExpectDeparture { at: left });
            if let Some(arrival) = self.scheduled_arrival {
                let at = arrival + delay * MINUTE_MS;
                say(scheduled, What::ExpectArrival { at });
            }
        }
        say(left, What::Depart { at: left });
        match self.arrival {
            Arrival::Unknown => {}
            Arrival::Landed { at } => say(at, What::Report(Status::Landed)),
            Arrival::Arrived { delay, at } => {
                let known = self.scheduled_arrival.map(|_| at);
                say(at, What::Arrive { at: known, delay });
                say(at, What::Report(Status::Arrived));
            }
        }
        life
    }

    /// Writes what is said, with all times moved by `shift`.
    pub(super) fn render(
        &self,
        said: &Said,
        step: usize,
        shift: i64,
    ) -> Result<FeedRecord, FeedError> {
        let timestamp = said.at + shift;
        let value = self.message(said, step, shift).map_err(FeedError::Render)?;
        Ok(FeedRecord {
            topic: INPUT,
            key: self.flight_id.clone().into_bytes(),
            value,
            headers: Headers::new(),
            timestamp,
        })
    }

    fn message(&self, said: &Said, step: usize, shift: i64) -> Result<Vec<u8>, BoxError> {
        let instant = |at: Timestamp| {
            Instant::from_millis(at + shift)
                .ok_or_else(|| BoxError::from("a time off the calendar"))
        };
        let (message_type, data) = match said.what {
            What::Schedule => ("Schedule", raw(&self.schedule(instant)?)),
            What::ExpectDeparture { at } => ("DepartureTimes", raw(&estimated(instant(at)?))),
            What::ExpectArrival { at } => ("ArrivalTimes", raw(&estimated(instant(at)?))),
            What::Cancel => {
                let reason = "the source does not say why".to_owned();
                ("Cancellation", raw(&Cancellation { reason }))
            }
            What::Depart { at } => {
                let actual = Some(instant(at)?);
                let times = Times {
                    actual,
                    ..Times::default()
                };
                ("DepartureTimes", raw(&times))
            }
            What::Arrive { at, delay } => {
                let times = Times {
                    actual: at.map(instant).transpose()?,
                    estimated: None,
                    delay_minutes: Some(delay),
                };
                ("ArrivalTimes", raw(&times))
            }
            What::Report(status) => ("StatusReport", raw(&StatusReport { status })),
        };
        let message = AdapterMessage {
            message_id: format!("{SOURCE}-{}-{}", self.flight_id, step + 1).into(),
            message_type: message_type.into(),
            flight_id: self.flight_id.as_str().into(),
            timestamp: instant(said.at)?.to_string().into(),
            source: SOURCE.into(),
            actor_id: Some("feed".into()),
            actor_type: None,
            reason: None,
            correlation_id: Some(self.flight_id.as_str().into()),
            data: &data?,
        };
        Ok(serde_json::to_vec(&message)?)
    }

    fn schedule(
        &self,
        instant: impl Fn(Timestamp) -> Result<Instant, BoxError>,
    ) -> Result<Schedule, BoxError> {
        Ok(Schedule {
            flight_number: self.flight_number.clone(),
            airline: self.airline.clone(),
            origin: self.origin.clone(),
            destination: self.destination.clone(),
            scheduled_departure: instant(self.scheduled_departure)?,
            scheduled_arrival: self.scheduled_arrival.map(instant).transpose()?,
            aircraft: self.aircraft.clone(),
        })
    }
}

fn raw(data: &impl Serialize) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::value::to_raw_value(data)
}

fn estimated(at: Instant) -> Times {
    Times {
        estimated: Some(at),
        ..Times::default()
    }
}
