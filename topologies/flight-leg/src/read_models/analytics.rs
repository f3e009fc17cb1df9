//! Analytics: counts per status, delays and punctuality per carrier and per carrier and hour.

use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::events::Status;
use crate::flight_leg::LATE_MINUTES;
use crate::instant::Instant;

const HOUR_MS: i64 = 60 * 60 * 1000;

/// What one leg adds to the figures of its carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contribution {
    cancelled: bool,
    /// How late it departed, once it has.
    departed: Option<i64>,
    /// How late it arrived, once it has.
    arrived: Option<i64>,
}

impl Contribution {
    /// Returns what a leg adds.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        let has_departed = document.actual_departure.is_some();
        // The delay of an estimate is not one of an arrival. Where times of arrival cannot be told, the
        // delay comes with the status.
        let has_arrived = document.actual_arrival.is_some() || document.status == Status::Arrived;
        Self {
            cancelled: document.status == Status::Cancelled,
            departed: has_departed.then(|| document.departure_delay_minutes.unwrap_or(0)),
            arrived: document.arrival_delay_minutes.filter(|_| has_arrived),
        }
    }
}

/// Figures over legs. At the ends of what an i64 holds they stay there: wrong figures are better than an
/// application that has stopped. Messages are bounded so that no number of legs leads there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Legs that were planned.
    pub flights: i64,
    /// Of those, cancelled.
    pub cancelled: i64,
    /// Of those, departed.
    pub departed: i64,
    /// Of the departed, less than 15 minutes late.
    pub on_time: i64,
    /// Minutes of late departures; early ones count nothing.
    pub delay_minutes: i64,
    /// Minutes of late arrivals; early ones count nothing.
    pub arrival_delay_minutes: i64,
    /// Legs that left and have no arrival delay: diverted, lost from sight, or still under way.
    pub diverted_or_unknown: i64,
}

impl Totals {
    /// Adds a leg.
    #[must_use]
    pub fn with(self, leg: Contribution) -> Self {
        self.plus(leg, 1)
    }

    /// Takes a leg out again.
    #[must_use]
    pub fn without(self, leg: Contribution) -> Self {
        self.plus(leg, -1)
    }

    fn plus(self, leg: Contribution, sign: i64) -> Self {
        let count = |is: bool| if is { sign } else { 0 };
        let late = |delay: Option<i64>| delay.unwrap_or(0).max(0).saturating_mul(sign);
        let on_time = leg.departed.is_some_and(|delay| delay < LATE_MINUTES);
        let lost = leg.departed.is_some() && leg.arrived.is_none();
        Self {
            flights: self.flights.saturating_add(sign),
            cancelled: self.cancelled.saturating_add(count(leg.cancelled)),
            departed: self.departed.saturating_add(count(leg.departed.is_some())),
            on_time: self.on_time.saturating_add(count(on_time)),
            delay_minutes: self.delay_minutes.saturating_add(late(leg.departed)),
            arrival_delay_minutes: self.arrival_delay_minutes.saturating_add(late(leg.arrived)),
            diverted_or_unknown: self.diverted_or_unknown.saturating_add(count(lost)),
        }
    }
}

/// The hour of scheduled departures that a leg counts in, and its carrier: `UA@2013-01-01T10:00:00.000Z`.
#[must_use]
pub fn carrier_hour(document: &Document) -> String {
    let millis = document.scheduled_departure.millis();
    let hour = millis - millis.rem_euclid(HOUR_MS);
    // An hour that holds a time of the calendar begins within it.
    let start = Instant::from_millis(hour).unwrap_or(document.scheduled_departure);
    format!("{}@{start}", document.airline)
}

/// A value of `aodb-analytics-status`, keyed by the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusCount {
    /// The status.
    pub status: String,
    /// How many legs have it now.
    pub flights: i64,
}

impl StatusCount {
    /// Counts legs more, or fewer.
    #[must_use]
    pub fn plus(self, status: &str, flights: i64) -> Self {
        Self {
            status: status.to_owned(),
            flights: self.flights.saturating_add(flights),
        }
    }
}

/// A value of `aodb-analytics-carriers`, keyed by the carrier, and of `aodb-analytics-carrier-hours`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CarrierFigures {
    /// The carrier.
    pub airline: String,
    /// The start of the hour of scheduled departures; absent over all hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_start: Option<Instant>,
    /// Its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_end: Option<Instant>,
    /// The figures.
    #[serde(flatten)]
    pub totals: Totals,
    /// `onTime` over `departed`, four decimals; null before the first departure.
    pub on_time_share: Option<f64>,
}

impl CarrierFigures {
    /// Shows the figures under a key: `<carrier>` or `<carrier>@<hour>`.
    #[must_use]
    pub fn of(key: &str, totals: Totals) -> Self {
        let (airline, hour) = match key.split_once('@') {
            Some((airline, hour)) => (airline, serde_json::from_value(hour.into()).ok()),
            None => (key, None),
        };
        let end = hour.and_then(|hour: Instant| Instant::from_millis(hour.millis() + HOUR_MS));
        Self {
            airline: airline.to_owned(),
            window_start: hour,
            window_end: end,
            totals,
            on_time_share: share(totals.on_time, totals.departed),
        }
    }
}

/// Four decimals of a share; counts of flights are far below what an f64 holds exactly.
#[expect(clippy::cast_precision_loss, reason = "ten thousandths are small")]
fn share(part: i64, whole: i64) -> Option<f64> {
    let ten_thousandths = part.checked_mul(10_000)?.checked_div(whole)?;
    Some(ten_thousandths as f64 / 10_000.0)
}
