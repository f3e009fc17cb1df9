//! Stand occupancy: which leg holds a stand from when to when, and which legs want it at one time.
//!
//! A departing leg holds its stand for a while before it departs, as well as its departure is known, and
//! gives it up by departing or by being cancelled.
//! # Invariants
//! - Up to 512 occupations of a stand, the view is a function of the set of legs on it: two that overlap are
//!   a conflict, whoever came first. Its cause is what last moved either of them.
//! # Limits
//! - Beyond 512 occupations it is not. The earliest is let go for each that comes, and does not come back
//!   when a later one is taken out again: what is kept then depends on the order of changes, and after a
//!   reset, which brings legs in the order of their ids, it may differ. Conflicts are judged among what is
//!   kept.

use std::time::Duration;

use millstream::event_sourcing::Event;
use millstream::prelude::BoxError;
use serde::{Deserialize, Serialize};

use super::audit::LegRecorded;
use crate::document::Document;
use crate::events::{FlightLegEvent, Status};
use crate::instant::Instant;

/// How many occupations of a stand are kept, the latest: a month of a busy stand. See the module's limits.
const OCCUPATIONS_MAX: usize = 512;

/// A leg on its stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Occupation {
    /// The leg.
    pub flight_id: String,
    /// From when on it holds the stand.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
    /// What last changed the leg's stand or departure.
    pub since: Cause,
}

/// What put a leg where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// When.
    pub timestamp: Instant,
    /// The leg's event.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// Who.
    pub actor_id: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Two legs that want one stand at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// The two legs, by the time that they come.
    pub flight_ids: [String; 2],
    /// From when on both want it.
    pub from: Instant,
    /// Until when.
    pub until: Instant,
    /// The leg whose change brought it about.
    pub caused_by: String,
    /// That change.
    pub cause: Cause,
}

/// Who holds a stand when, and who wants it at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandView {
    /// Who holds it when, by the time that they come.
    pub occupations: Vec<Occupation>,
    /// Who wants it at one time.
    pub conflicts: Vec<Conflict>,
}

/// A value of `aodb-stands`, keyed by `<airport>@<stand>`: a view with its stand's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandOccupancy {
    /// The airport.
    pub airport: String,
    /// The stand.
    pub stand: String,
    /// Whether there are conflicts.
    pub in_conflict: bool,
    /// Who holds it when, and who wants it at one time.
    #[serde(flatten)]
    pub view: StandView,
}

impl StandOccupancy {
    /// Names a view by its key.
    #[must_use]
    pub fn of(key: &str, view: StandView) -> Self {
        let (airport, stand) = key.split_once('@').unwrap_or((key, ""));
        Self {
            airport: airport.to_owned(),
            stand: stand.to_owned(),
            in_conflict: !view.conflicts.is_empty(),
            view,
        }
    }
}

/// A leg and the stand that it holds, `<airport>@<stand>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The key of the stand's view.
    pub stand: String,
    /// When the leg holds it.
    pub occupation: Occupation,
}

/// Returns what an event means for the leg's stand: nothing (outer `None`), or where the leg stands from
/// then on, which may be nowhere.
///
/// # Errors
/// A time off the calendar.
pub(crate) fn placement(
    flight_id: &str,
    event: &LegRecorded,
    before_departure: Duration,
) -> Result<Option<Option<Placement>>, BoxError> {
    if !moves(&event.event) {
        return Ok(None);
    }
    let cause = cause_of(event)?;
    let document = Document::of(flight_id, &event.record());
    Ok(Some(document.and_then(|document| {
        place(&document, cause, before_departure)
    })))
}

/// Returns whether an event may change where or when a leg stands.
fn moves(event: &FlightLegEvent) -> bool {
    match event {
        FlightLegEvent::StandAllocated(_)
        | FlightLegEvent::StandChanged(_)
        | FlightLegEvent::DepartureTimeChanged(_)
        | FlightLegEvent::FlightCancelled(_) => true,
        FlightLegEvent::StatusChanged(data) => {
            [data.old_status, data.new_status].contains(&Status::Cancelled)
        }
        FlightLegEvent::FlightLegCreated(_)
        | FlightLegEvent::GateAssigned(_)
        | FlightLegEvent::GateReassigned(_)
        | FlightLegEvent::ArrivalTimeChanged(_) => false,
    }
}

fn cause_of(event: &LegRecorded) -> Result<Cause, BoxError> {
    let text = |field: &str| {
        let said = event.metadata.as_ref()?.get(field)?;
        said.as_str().map(str::to_owned)
    };
    Ok(Cause {
        timestamp: Instant::from_millis(event.timestamp).ok_or("a time off the calendar")?,
        event_id: event.event_id.clone(),
        event_type: event.event.event_type().to_owned(),
        actor_id: text("actorId"),
        reason: text("reason"),
    })
}

fn place(document: &Document, cause: Cause, before_departure: Duration) -> Option<Placement> {
    let stand = document.stand.as_ref()?;
    if document.status == Status::Cancelled {
        return None;
    }
    let until = document.best_departure();
    let before = i64::try_from(before_departure.as_millis()).unwrap_or(i64::MAX);
    let from = Instant::from_millis(until.millis().saturating_sub(before))?;
    Some(Placement {
        stand: format!("{}@{stand}", document.origin),
        occupation: Occupation {
            flight_id: document.flight_id.clone(),
            from,
            until,
            since: cause,
        },
    })
}

impl StandView {
    /// Adds a leg.
    #[must_use]
    pub fn with(mut self, leg: Occupation) -> Self {
        self.occupations.push(leg);
        self.occupations
            .sort_by(|one, other| (one.from, &one.flight_id).cmp(&(other.from, &other.flight_id)));
        let surplus = self.occupations.len().saturating_sub(OCCUPATIONS_MAX);
        self.occupations.drain(..surplus);
        self.judge()
    }

    /// Takes a leg out again.
    #[must_use]
    pub fn without(mut self, leg: &Occupation) -> Self {
        self.occupations
            .retain(|known| known.flight_id != leg.flight_id);
        self.judge()
    }

    /// Finds what overlaps. Occupations are sorted by their start, so that what follows one without
    /// overlapping it ends the search for it.
    fn judge(mut self) -> Self {
        let mut conflicts = Vec::new();
        for (at, first) in self.occupations.iter().enumerate() {
            let rest = self.occupations.iter().skip(at + 1);
            for second in rest.take_while(|second| second.from < first.until) {
                let later = if first.since > second.since {
                    first
                } else {
                    second
                };
                conflicts.push(Conflict {
                    flight_ids: [first.flight_id.clone(), second.flight_id.clone()],
                    from: second.from,
                    until: first.until.min(second.until),
                    caused_by: later.flight_id.clone(),
                    cause: later.since.clone(),
                });
            }
        }
        self.conflicts = conflicts;
        self
    }
}
