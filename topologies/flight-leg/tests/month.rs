//! A whole month through the topology, compared with a plain pass over its file.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use millstream::event_sourcing::{Aggregate, Envelope, Event, ProjectionPhase, parse_timestamp};
use millstream::packaged::{Feed, FeedRequest, FeedTimes};
use millstream_flight_leg::{
    DEAD_LETTERS, DOCUMENTS, FlightLeg, FlightLegEvent, FlightLegParameters, Flights, OUTPUT,
    Status,
};
use serde_json::Value;

use support::{Airport, Expected, Row};

/// What came out of a file.
struct Outcome {
    airport: Airport,
    rows: Vec<Row>,
    /// Envelopes by leg, in order.
    specific: BTreeMap<String, Vec<Value>>,
    /// Sequences by leg, in order.
    sequences: BTreeMap<String, Vec<u64>>,
    dead: usize,
}

fn run(file: &Path) -> Outcome {
    let mut airport = Airport::new(FlightLegParameters::default());
    let mut specific: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut sequences: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut dead = 0;
    airport.feed(file, |airport| {
        for record in airport.take(OUTPUT) {
            match record.value["sequence"].as_u64() {
                Some(sequence) => sequences.entry(record.key).or_default().push(sequence),
                None => specific.entry(record.key).or_default().push(record.value),
            }
        }
        dead += airport.take(DEAD_LETTERS).len();
        airport.take(DOCUMENTS);
    });
    let rows = support::rows(file);
    Outcome {
        airport,
        rows,
        specific,
        sequences,
        dead,
    }
}

impl Outcome {
    fn check_totals(&self) {
        assert_eq!(self.dead, 0, "dead letters");
        let airport = &self.airport;
        let figures = |name: &str| -> BTreeMap<String, Expected> {
            let figures = airport.served(name).into_iter();
            figures
                .map(|value| {
                    let airline = value["airline"].as_str().unwrap();
                    let key = match value["windowStart"].as_str() {
                        Some(hour) => format!("{airline}@{hour}"),
                        None => airline.to_owned(),
                    };
                    (key, Expected::of(&value))
                })
                .collect()
        };
        assert_eq!(
            figures("flight-leg-carriers"),
            support::by_carrier(&self.rows)
        );
        let hours = figures("flight-leg-carrier-hours");
        assert_eq!(hours, support::by_carrier_hour(&self.rows));
        let counts: BTreeMap<String, i64> = airport
            .served("flight-leg-status-counts")
            .into_iter()
            .map(|count| {
                let status = count["status"].as_str().unwrap();
                (status.to_owned(), count["flights"].as_i64().unwrap())
            })
            .collect();
        assert_eq!(counts, support::by_status(&self.rows));
        let documents = airport.served("flight-leg-documents");
        let documents: BTreeMap<&str, &Value> = documents
            .iter()
            .map(|document| (document["flightId"].as_str().unwrap(), document))
            .collect();
        assert_eq!(documents.len(), self.rows.len());
        for row in &self.rows {
            let document = documents[support::id(row).as_str()];
            assert_eq!(document["status"], support::final_status(row), "{document}");
        }
        assert_eq!(
            airport.served("flight-leg-dashboard").len(),
            2 * self.rows.len()
        );
    }

    /// The next generation of those over legs is what the first was, and what the events add up to.
    fn check_projections(&mut self) {
        const OVER_LEGS: [&str; 4] = [
            "flight-leg-status-counts",
            "flight-leg-carriers",
            "flight-leg-carrier-hours",
            "flight-leg-stands",
        ];
        let before = OVER_LEGS.map(|name| self.airport.served(name));
        for name in OVER_LEGS {
            let queries = self.airport.driver.queries();
            let asked = self.airport.projection(name).request_rebuild(queries);
            assert_eq!(asked.unwrap().len(), 3, "{name}");
        }
        let rests = |airport: &Airport, name: &str| {
            let view = airport.projection(name).view(airport.driver.queries());
            let view = view.unwrap();
            let rows = view.partitions.iter();
            let groups = view.groups.iter().flat_map(|groups| &groups.partitions);
            rows.map(|it| (it.progress.generation, &it.progress.phase))
                .chain(groups.map(|it| (it.generation, &it.phase)))
                .all(|found| found == (2, &ProjectionPhase::Resting))
        };
        for steps in 0.. {
            assert!(steps < 1_000, "a rebuild goes on");
            let by = Duration::from_millis(250);
            self.airport.driver.advance_wall_clock_time(by).unwrap();
            if OVER_LEGS.iter().all(|name| rests(&self.airport, name)) {
                break;
            }
        }
        assert_eq!(before, OVER_LEGS.map(|name| self.airport.served(name)));
        // Each folds all events once more: one over legs, and one of a leg, stand for all.
        for name in ["flight-leg-carrier-hours", "flight-leg-dashboard"] {
            let projection = self.airport.projection(name);
            let mut cursor = None::<String>;
            loop {
                let queries = self.airport.driver.queries();
                let found = projection.verify(queries, cursor.as_deref(), 1_000);
                let found = found.unwrap();
                assert_eq!(found.difference, None, "{name}");
                match found.cursor {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
        }
    }

    /// Versions and sequences have no gap, and one audit entry stands for each event.
    fn check_numbers(&self) {
        let gapless = |numbers: &[u64]| numbers.iter().copied().eq(1..=numbers.len() as u64);
        for (leg, sequences) in &self.sequences {
            assert!(gapless(sequences), "{leg}: {sequences:?}");
        }
        let mut events = 0;
        for (leg, envelopes) in &self.specific {
            let versions: Vec<u64> = envelopes
                .iter()
                .map(|envelope| envelope["aggregateVersion"].as_u64().unwrap())
                .collect();
            assert!(gapless(&versions), "{leg}: {versions:?}");
            events += versions.len();
        }
        assert_eq!(self.airport.store("flight-leg-audit-1").len(), events);
        assert_eq!(self.sequences.len(), self.rows.len());
        assert_eq!(self.specific.len(), self.rows.len());
    }

    /// The state of random legs at random times is what their rows say up to then.
    fn check_past(&self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let row = random.choice(&self.rows).unwrap();
            let leg = support::id(row);
            // The scheduled departure is the feed's; what follows from it is the row's.
            let planned = self.specific[&leg][0]["data"]["scheduledDeparture"]
                .as_str()
                .unwrap();
            let planned = parse_timestamp(planned).unwrap();
            let hour = parse_timestamp(&row["time_hour"]).unwrap();
            let minute = support::number(row, "sched_dep_time").unwrap() % 100;
            assert_eq!(planned, hour + minute * 60_000, "{leg}");
            let at = planned + random.i64(-26 * 3_600_000..26 * 3_600_000);
            let state = self.state_at(&leg, at);
            let scene = format!("{leg} at {at}, seed {seed}");
            assert_eq!(
                state.plan.is_some(),
                at >= planned - 24 * 3_600_000,
                "{scene}"
            );
            let Some(delay) = support::number(row, "dep_delay") else {
                let expected = if at < planned {
                    Status::Scheduled
                } else {
                    Status::Cancelled
                };
                assert_eq!(state.status, expected, "{scene}");
                continue;
            };
            let left = at >= planned + delay * 60_000;
            assert_eq!(state.has_departed(), left, "{scene}");
            if left {
                assert_eq!(state.departure.delay_minutes, Some(delay), "{scene}");
                assert!(!state.status.is_before_departure(), "{scene}");
            } else {
                let late = delay >= 15 && at >= planned;
                let expected = if late {
                    Status::Delayed
                } else {
                    Status::Scheduled
                };
                assert_eq!(state.status, expected, "{scene}");
            }
        }
    }

    fn state_at(&self, leg: &str, at: i64) -> FlightLeg {
        let mut state = FlightLeg::default();
        for value in &self.specific[leg] {
            let bytes = serde_json::to_vec(value).unwrap();
            let envelope = Envelope::parse(&bytes).unwrap();
            if envelope.timestamp > at {
                break;
            }
            let event =
                FlightLegEvent::read(&envelope.event_type, envelope.schema_version, envelope.data);
            FlightLeg::apply(&mut state, &event.unwrap());
        }
        state
    }
}

#[test]
fn january_2013_is_what_a_plain_pass_over_its_file_says() {
    let mut outcome = run(&support::january());
    let cancelled = outcome.rows.iter().filter(|row| row["dep_time"] == "NA");
    assert_eq!((outcome.rows.len(), cancelled.count()), (27_004, 521));
    outcome.check_totals();
    outcome.check_numbers();
    outcome.check_past(20_130_101);
    outcome.check_projections();
    let documents = outcome.airport.served("flight-leg-documents");
    let gap = |code: &str| {
        let has = |document: &&Value| {
            let gaps = document["gaps"].as_array().unwrap();
            gaps.iter().any(|gap| gap["code"] == code)
        };
        documents.iter().filter(has).count()
    };
    // Four destinations are in no table of airports; they have no time zone and so no arrival.
    assert_eq!(
        (gap("UNKNOWN_AIRPORT"), gap("NO_SCHEDULED_ARRIVAL")),
        (680, 680)
    );
    assert_eq!(gap("NO_AIRCRAFT"), 155);
    assert!(gap("UNKNOWN_AIRCRAFT") > 0);
}

/// What `millstream feed --shift-days` rests on.
#[test]
fn a_file_that_is_moved_by_as_many_days_gives_the_same_messages_at_any_time_of_day() {
    const DAY: i64 = 24 * 3_600_000;
    let slice = support::january().with_file_name("flights-2013-01-08.slice.csv");
    let open = |now: i64| {
        let source = Flights.open(&FeedRequest::new(&slice, now)).unwrap();
        let records: Vec<_> = source.records.map(Result::unwrap).collect();
        (source.summary, records)
    };
    let (_, at_now) = open(support::NOW);
    let last = at_now.last().unwrap().timestamp;
    // The last record is not after now, and less than a day before it.
    let (summary, first_run) = open(last);
    assert_eq!(first_run, at_now);
    let days = (last - last_of_the_file(&slice)) / DAY;
    assert!(
        summary.ends_with(&format!("`--shift-days {days}`")),
        "{summary}"
    );
    for now in [last, last + 1, last + DAY - 1, last + 6 * DAY] {
        let request = FeedRequest::new(&slice, now).with_times(FeedTimes::MovedByDays(days));
        let again = Flights.open(&request).unwrap();
        // Reference data is of now, whenever records are of.
        assert!(again.preamble.iter().all(|record| record.timestamp == now));
        let records: Vec<_> = again.records.map(Result::unwrap).collect();
        assert_eq!(records, first_run);
    }
    assert_eq!(open(last + DAY - 1).1, first_run);
    assert_ne!(open(last + DAY).1, first_run);
    assert_ne!(open(last - 1).1, first_run);
}

fn last_of_the_file(slice: &Path) -> i64 {
    let request = FeedRequest::new(slice, support::NOW).with_times(FeedTimes::Kept);
    let records = Flights.open(&request).unwrap().records;
    records.last().unwrap().unwrap().timestamp
}

/// Writes a month of another year, other airports and carriers, in the format of the files.
fn synthetic(folder: &Path, seed: u64) -> std::path::PathBuf {
    let mut random = fastrand::Rng::with_seed(seed);
    let airports = [
        ("MUC", "Europe/Berlin", 2),
        ("LHR", "Europe/London", 1),
        ("HND", "Asia/Tokyo", 9),
        ("SFO", "America/Los_Angeles", -7),
    ];
    let mut text = String::from("faa,name,lat,lon,alt,tz,dst,tzone\n");
    for (code, zone, hours) in airports {
        text += &format!("{code},\"Airport, {code}\",0,0,0,{hours},A,{zone}\n");
    }
    std::fs::write(folder.join("airports.csv"), text).unwrap();
    let airlines = "carrier,name\nXX,Cross Air\nY1,One\nZZZ,Sleep\n";
    std::fs::write(folder.join("airlines.csv"), airlines).unwrap();
    let planes = "tailnum,year,type,manufacturer,model,engines,seats,speed,engine\n\
                  D-AAAA,NA,Fixed,DORNIER,DO-1,2,NA,NA,Jet\n";
    std::fs::write(folder.join("planes.csv"), planes).unwrap();
    let mut text = String::from(
        "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,\
         flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour\n",
    );
    for flight in 0..1_500 {
        let (origin, _, hours) = *random.choice(&airports[..3]).unwrap();
        let dest = *random.choice(&["SFO", "LHR", "QQQ"]).unwrap();
        let dest = if dest == origin { "SFO" } else { dest };
        let day = random.i64(1..=31);
        let (hour, minute) = (random.i64(0..24), random.i64(0..60));
        let delay = random.i64(-20..90);
        let fate = random.u8(0..10);
        let clock = |minutes: i64| {
            let minutes = minutes.rem_euclid(24 * 60);
            minutes / 60 * 100 + minutes % 60
        };
        let departure = clock(hour * 60 + minute + delay);
        let planned_arrival = random.i64(0..24) * 100 + random.i64(0..60);
        let arrival_delay = delay.max(0) + random.i64(0..30);
        let arrival = clock(planned_arrival / 100 * 60 + planned_arrival % 100 + arrival_delay);
        let known = |is: bool, value: i64| {
            if is {
                value.to_string()
            } else {
                "NA".to_owned()
            }
        };
        let (left, arrived, timed) = (fate > 0, fate > 1, fate > 2);
        // July: all these zones are whole hours from UTC.
        let utc = day * 24 + hour - hours - 24;
        let (utc_day, utc_hour) = (utc.div_euclid(24) + 1, utc.rem_euclid(24));
        let (month, utc_day) = match utc_day {
            0 => ("06", 30),
            32 => ("08", 1),
            day => ("07", day),
        };
        text += &format!(
            "2015,7,{day},{},{},{},{},{planned_arrival},{},{},{flight},{},{origin},{dest},{},0,{hour},\
             {minute},2015-{month}-{utc_day:02}T{utc_hour:02}:00:00Z\n",
            known(left, departure),
            hour * 100 + minute,
            known(left, delay),
            known(left && arrived, arrival),
            known(left && arrived && timed, arrival_delay),
            random.choice(&["XX", "Y1", "ZZZ"]).unwrap(),
            random.choice(&["D-AAAA", "D-BBBB", "NA"]).unwrap(),
            known(left && arrived && timed, random.i64(30..600)),
        );
    }
    let file = folder.join("flights-2015-07.csv");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "a failure is to show how to run it again"
)]
fn another_month_in_the_format_is_what_a_plain_pass_says_too() {
    let seed = std::env::var("MILLSTREAM_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("replay: MILLSTREAM_SEED={seed} cargo test --release --test month another");
    let folder = tempfile::tempdir().unwrap();
    let file = synthetic(folder.path(), seed);
    let mut outcome = run(&file);
    outcome.check_totals();
    outcome.check_numbers();
    outcome.check_past(seed);
    outcome.check_projections();
}
