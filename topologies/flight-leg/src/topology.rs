//! The topology `flight-leg`: what it reads, keeps and writes.
//!
//! ```text
//! aodb-input-adapter ─▶ read, check ─▶ enrich ─▶ flight-leg-decide ─▶ steps ─┬─▶ aodb-output-flightleg
//!        └─▶ aodb-dlq                    ▲                                   ├─▶ aodb-audit-flightleg
//! aodb-reference-{airports,airlines,     │                                   └─▶ aodb-query-flightleg
//!                aircraft,stands} ───────┘ (global tables)                          │
//!                                                              by airport ─▶ aodb-dashboard
//!                                                              by status, carrier, hour ─▶ aodb-analytics-*
//!                                                              by stand ─▶ aodb-stands
//! ```
//! Record stores: `flight-leg-history`, `flight-leg-commands` (ids of messages), `flight-leg-sequences`.
//! All others are derived.
//! # Invariants
//! - Adapter messages are never read again by a reset: like commands, they have had their effects.
//! - A message, its events and its sequence are one transaction; the read models follow by the runtime's.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::config::{DurationValue, Parameters};
use millstream::event_sourcing::{
    CommandMemory, DrawnSteps, EventSourced, Grouped, GroupedProjection, HistoryKey, Message,
    Occasion, PartKey, Projected, Projection, ProjectionEndpoint, Projections, Rows, Shares, Step,
    compacted_topic, expiring_topic,
};
use millstream::packaged::{BuildEnv, BuildError, Feed, Packaged, PackagedTopology, ReadModel};
use millstream::prelude::*;
use millstream_archive::ArchiveSink;
use serde::Deserialize;

use crate::document::Document;
use crate::feed::Flights;
use crate::flight_id::FlightId;
use crate::flight_leg::FlightLeg;
use crate::input::ReadMessages;
use crate::messages::{LegInput, LegMessage};
use crate::projections;
use crate::publish::{Output, Publish};
use crate::read_models::analytics::{CarrierFigures, Contribution, StatusCount, carrier_hour};
use crate::read_models::audit::{AuditEntry, AuditKeySerde, LegRecorded, audit_key};
use crate::read_models::dashboard::DashboardRow;
use crate::read_models::stands::{Occupation, Placement, StandOccupancy, placement};
use crate::references::{Aircraft, Airline, Airport, Stand};

/// The declared name of the topic of adapter messages.
pub const INPUT: &str = "aodb-input-adapter";
/// The declared name of the topic of events.
pub const OUTPUT: &str = "aodb-output-flightleg";
/// The declared name of the dead-letter topic.
pub const DEAD_LETTERS: &str = "aodb-dlq";
/// The declared name of the table of airports.
pub const AIRPORTS: &str = "aodb-reference-airports";
/// The declared name of the table of airlines.
pub const AIRLINES: &str = "aodb-reference-airlines";
/// The declared name of the table of aircraft.
pub const AIRCRAFT: &str = "aodb-reference-aircraft";
/// The declared name of the table of stands.
pub const STANDS: &str = "aodb-reference-stands";
/// The declared name of the topic of QueryStream documents.
pub const DOCUMENTS: &str = "aodb-query-flightleg";
/// The declared name of the audit log's topic.
pub const AUDIT: &str = "aodb-audit-flightleg";
/// The declared name of the dashboard's topic.
pub const DASHBOARD: &str = "aodb-dashboard";
/// The declared name of the topic of counts per status.
pub const STATUS_COUNTS: &str = "aodb-analytics-status";
/// The declared name of the topic of figures per carrier.
pub const CARRIERS: &str = "aodb-analytics-carriers";
/// The declared name of the topic of figures per carrier and hour.
pub const CARRIER_HOURS: &str = "aodb-analytics-carrier-hours";
/// The declared name of the topic of stand occupancy.
pub const STAND_OCCUPANCY: &str = "aodb-stands";
/// The name of the archive of events in a configuration.
pub const ARCHIVE: &str = "archive";

/// For how long `aodb-input-adapter` keeps messages: a month that was fed at once, and lies back by that
/// time, is still there to be read.
const INPUT_RETENTION: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// For how long `aodb-output-flightleg` keeps events, unless the configuration of the topic says
/// otherwise.
const OUTPUT_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The topology's own settings: `parameters` of its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlightLegParameters {
    /// Which events go to `aodb-output-flightleg`. Default `both`.
    pub output: Output,
    /// How long a message id is remembered: until then a repeated message changes nothing. Default
    /// `7d`. Higher: more state. Lower: an old message that comes again may set a leg back.
    pub message_memory: DurationValue,
    /// For how long before its departure a leg holds its stand, in the view of stands. Default `1h`.
    pub stand_occupancy: DurationValue,
}

impl Default for FlightLegParameters {
    fn default() -> Self {
        Self {
            output: Output::default(),
            message_memory: DurationValue(CommandMemory::default().retention),
            stand_occupancy: DurationValue(Duration::from_secs(60 * 60)),
        }
    }
}

/// The packaged topology `flight-leg`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlightLegTopology;

impl PackagedTopology for FlightLegTopology {
    fn name(&self) -> &str {
        "flight-leg"
    }

    fn about(&self) -> &str {
        "Airport operational database: adapter messages in, flight leg events and read models out"
    }

    fn build(&self, parameters: &Parameters, _: &BuildEnv) -> Result<Packaged, BuildError> {
        Ok(Self::draw(parameters.read()?)?)
    }

    fn feeds(&self) -> Vec<Box<dyn Feed>> {
        vec![Box::new(Flights)]
    }
}

type Steps = KStream<String, Step<FlightLeg>>;

impl FlightLegTopology {
    /// Draws the topology with these settings.
    ///
    /// # Errors
    /// A mistake in the drawing, which a test rules out.
    pub fn draw(parameters: FlightLegParameters) -> Result<Packaged, TopologyErrors> {
        let FlightLegParameters {
            output,
            message_memory: DurationValue(retention),
            stand_occupancy: DurationValue(before_departure),
        } = parameters;
        let builder = StreamsBuilder::new();
        let legs =
            EventSourced::<FlightLeg>::of_messages("flight-leg").command_memory(CommandMemory {
                retention,
                ..CommandMemory::default()
            });
        let endpoint = legs.endpoint();
        let messages = enriched(&builder, &messages(&builder));
        let DrawnSteps { steps, projections } = legs.draw_on_all(&builder, &messages);
        publish(&builder, &steps, output);
        let read_from_history = [
            documents(&builder, &projections),
            audit(&builder, &projections),
            dashboard(&builder, &projections),
            status_counts(&builder, &projections),
            carriers(&builder, &projections),
            carrier_hours(&builder, &projections),
            stands(&builder, &projections, before_departure),
        ];
        let packaged = Packaged::new(builder.build()?)
            .with_aggregate(endpoint)
            .with_sink(projections::postgres())
            .with_sink(ArchiveSink::declare(ARCHIVE, &[OUTPUT]));
        let packaged = read_from_history
            .into_iter()
            .fold(packaged, Packaged::with_projection);
        Ok(read_models()
            .into_iter()
            .fold(packaged, Packaged::with_read_model))
    }
}

fn read_models() -> [ReadModel; 7] {
    [
        ReadModel::new("/flights", "flight-leg-documents")
            .filter("status", ["status"])
            .filter("airport", ["origin", "destination"])
            .filter("origin", ["origin"])
            .filter("destination", ["destination"])
            .filter("airline", ["airline"])
            .filter("aircraft", ["aircraft"])
            .filter("stand", ["stand"])
            .filter("gate", ["gate"])
            .filter("flightNumber", ["flightNumber"]),
        ReadModel::new("/dashboard", "flight-leg-dashboard")
            .filter("airport", ["airport"])
            .filter("board", ["board"])
            .filter("status", ["status"]),
        ReadModel::new("/analytics/status", "flight-leg-status-counts")
            .filter("status", ["status"]),
        ReadModel::new("/analytics/carriers", "flight-leg-carriers").filter("airline", ["airline"]),
        ReadModel::new("/analytics/carrier-hours", "flight-leg-carrier-hours")
            .filter("airline", ["airline"])
            .filter("windowStart", ["windowStart"]),
        ReadModel::new("/audit", "flight-leg-audit")
            .filter("flightId", ["flightId"])
            .filter("eventType", ["eventType"])
            .filter("actorId", ["actorId"]),
        ReadModel::new("/stands", "flight-leg-stands")
            .filter("airport", ["airport"])
            .filter("stand", ["stand"])
            .filter("inConflict", ["inConflict"]),
    ]
}

fn kept_for(retention: Duration) -> BTreeMap<String, String> {
    let mut config = expiring_topic();
    config.insert("retention.ms".to_owned(), retention.as_millis().to_string());
    config
}

fn messages(builder: &StreamsBuilder) -> KStream<String, Message<LegInput>> {
    let raw = || serdes::optional(serdes::bytes());
    builder.declare_topic(INPUT, kept_for(INPUT_RETENTION));
    builder.declare_topic(DEAD_LETTERS, expiring_topic());
    builder
        .stream(
            INPUT,
            Consumed::with(raw(), raw())
                .on_error(ErrorPolicy::DeadLetter {
                    topic: DEAD_LETTERS.to_owned(),
                })
                .rewindable(false),
        )
        .process("flight-leg-read", (), |_, ()| ReadMessages)
}

/// Reads a reference table. What cannot be read there is a gap, not an end.
fn table<V>(builder: &StreamsBuilder, topic: &str, store: &str) -> GlobalKTable<String, V>
where
    V: Clone + serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    builder.declare_topic(topic, compacted_topic());
    builder.global_table(
        topic,
        Consumed::with(serdes::string(), serdes::json::<V>()).on_error(ErrorPolicy::Skip),
        Materialized::as_store(store, serdes::string(), serdes::json::<V>()),
    )
}

/// Looks up the codes of each message.
fn enriched(
    builder: &StreamsBuilder,
    messages: &KStream<String, Message<LegInput>>,
) -> KStream<String, Message<LegInput>> {
    let airlines = table::<Airline>(builder, AIRLINES, "reference-airlines");
    let airports = table::<Airport>(builder, AIRPORTS, "reference-airports");
    let aircraft = table::<Aircraft>(builder, AIRCRAFT, "reference-aircraft");
    let stands = table::<Stand>(builder, STANDS, "reference-stands");
    messages
        .left_join_global_table(
            &airlines,
            |_, message| match &message.content.message {
                LegMessage::Schedule(schedule) => Some(schedule.airline.clone()),
                _ => None,
            },
            |_, mut message, found| {
                message.content.references.airline = found;
                message
            },
        )
        .left_join_global_table(
            &airports,
            |_, message| match &message.content.message {
                LegMessage::Schedule(schedule) => Some(schedule.origin.clone()),
                _ => None,
            },
            |_, mut message, found| {
                message.content.references.origin = found;
                message
            },
        )
        .left_join_global_table(
            &airports,
            |_, message| match &message.content.message {
                LegMessage::Schedule(schedule) => Some(schedule.destination.clone()),
                _ => None,
            },
            |_, mut message, found| {
                message.content.references.destination = found;
                message
            },
        )
        .left_join_global_table(
            &aircraft,
            |_, message| match &message.content.message {
                LegMessage::Schedule(schedule) => schedule.aircraft.clone(),
                _ => None,
            },
            |_, mut message, found| {
                message.content.references.aircraft = found;
                message
            },
        )
        .left_join_global_table(
            &stands,
            |flight_id, message| match &message.content.message {
                LegMessage::StandAllocation(allocation) => {
                    let id = FlightId::parse(flight_id)?;
                    Some(format!("{}@{}", id.origin, allocation.stand))
                }
                _ => None,
            },
            |_, mut message, found| {
                message.content.references.stand = found;
                message
            },
        )
}

fn publish(builder: &StreamsBuilder, steps: &Steps, output: Output) {
    builder.declare_topic(OUTPUT, kept_for(OUTPUT_RETENTION));
    let sequences = builder.add_state_store(
        StoreBuilder::as_store(
            "flight-leg-sequences",
            serdes::string(),
            serdes::json::<u64>(),
        )
        .record(),
    );
    steps
        .process(
            "flight-leg-publish",
            (&sequences,),
            move |_, (sequences,)| Publish { output, sequences },
        )
        .to(OUTPUT, Produced::with(serdes::string(), serdes::bytes()));
}

fn audit(builder: &StreamsBuilder, projections: &Projections<FlightLeg>) -> ProjectionEndpoint {
    builder.declare_topic(AUDIT, compacted_topic());
    let audit = Projection::new(
        "flight-leg-audit",
        |flight_id, event: &LegRecorded, rows| {
            let entry = AuditEntry::of(flight_id, event)?;
            rows.put(HistoryKey::new(flight_id, event.version), entry)
        },
    );
    let Projected { rows, endpoint } = projections.draw(builder, audit);
    rows.map(|key, entry| (audit_key(&key.aggregate_id, key.version), entry))
        .to(
            AUDIT,
            Produced::with(
                AuditKeySerde,
                serdes::optional(serdes::json::<AuditEntry>()),
            ),
        );
    endpoint
}

/// Returns whether an event is one that nobody sees the leg after: another of the same message follows.
fn is_passed_over(event: &LegRecorded) -> bool {
    matches!(event.occasion, Occasion::Decided { last: false })
}

fn documents(builder: &StreamsBuilder, projections: &Projections<FlightLeg>) -> ProjectionEndpoint {
    let documents = Projection::new(
        "flight-leg-documents",
        |flight_id, event: &LegRecorded, rows| {
            if is_passed_over(event) {
                return Ok(());
            }
            match Document::of(flight_id, &event.record()) {
                Some(document) => rows.put(flight_id.to_owned(), document),
                None => rows.delete(flight_id.to_owned()),
            }
        },
    );
    let Projected { rows, endpoint } = projections.draw(builder, documents);
    compacted(builder, DOCUMENTS, &rows);
    endpoint
}

/// Writes a read model to its compacted topic.
fn compacted<V>(builder: &StreamsBuilder, topic: &str, changes: &KStream<String, Option<V>>)
where
    V: Clone + serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    builder.declare_topic(topic, compacted_topic());
    changes.to(
        topic,
        Produced::with(serdes::string(), serdes::optional(serdes::json::<V>())),
    );
}

fn dashboard(builder: &StreamsBuilder, projections: &Projections<FlightLeg>) -> ProjectionEndpoint {
    let dashboard = Projection::new(
        "flight-leg-dashboard",
        |flight_id, event: &LegRecorded, rows: &mut Rows<'_, PartKey, DashboardRow>| {
            if is_passed_over(event) {
                return Ok(());
            }
            let document = Document::of(flight_id, &event.record());
            for row in document
                .as_ref()
                .map(DashboardRow::of)
                .into_iter()
                .flatten()
            {
                rows.put(PartKey::new(flight_id, row.board.as_str()), row)?;
            }
            Ok(())
        },
    );
    let Projected { rows, endpoint } = projections.draw(builder, dashboard);
    let rows = rows.flat_map(|PartKey { aggregate_id, part }, row| {
        Some((DashboardRow::key_of(&aggregate_id, &part)?, row))
    });
    compacted(builder, DASHBOARD, &rows);
    endpoint
}

fn status_counts(
    builder: &StreamsBuilder,
    projections: &Projections<FlightLeg>,
) -> ProjectionEndpoint {
    let counts = GroupedProjection::new(
        "flight-leg-status-counts",
        |flight_id, event: &LegRecorded, shares: &mut Shares<i64>| {
            if is_passed_over(event) {
                return Ok(());
            }
            match Document::of(flight_id, &event.record()) {
                Some(document) => shares.only(document.status.as_str(), 1),
                None => shares.clear(),
            }
            Ok(())
        },
        StatusCount::default,
        |status, flights, count| count.plus(status, flights),
        |status, flights, count| count.plus(status, -flights),
    );
    let Grouped { rows, endpoint } = projections.draw_grouped(builder, counts);
    compacted(builder, STATUS_COUNTS, &rows);
    endpoint
}

/// Draws figures by a key that tells carrier and perhaps hour; `name` is the projection's.
fn figures(
    builder: &StreamsBuilder,
    projections: &Projections<FlightLeg>,
    (name, topic): (&str, &str),
    key: impl Fn(&Document) -> String + Send + Sync + 'static,
) -> ProjectionEndpoint {
    let figures = GroupedProjection::new(
        name,
        move |flight_id, event: &LegRecorded, shares: &mut Shares<Contribution>| {
            if is_passed_over(event) {
                return Ok(());
            }
            match Document::of(flight_id, &event.record()) {
                Some(document) => shares.only(key(&document), Contribution::of(&document)),
                None => shares.clear(),
            }
            Ok(())
        },
        CarrierFigures::default,
        |key, leg, figures| CarrierFigures::of(key, figures.totals.with(leg)),
        |key, leg, figures| CarrierFigures::of(key, figures.totals.without(leg)),
    );
    let Grouped { rows, endpoint } = projections.draw_grouped(builder, figures);
    compacted(builder, topic, &rows);
    endpoint
}

fn carriers(builder: &StreamsBuilder, projections: &Projections<FlightLeg>) -> ProjectionEndpoint {
    let names = ("flight-leg-carriers", CARRIERS);
    figures(builder, projections, names, |document| {
        document.airline.clone()
    })
}

fn carrier_hours(
    builder: &StreamsBuilder,
    projections: &Projections<FlightLeg>,
) -> ProjectionEndpoint {
    let names = ("flight-leg-carrier-hours", CARRIER_HOURS);
    figures(builder, projections, names, carrier_hour)
}

fn stands(
    builder: &StreamsBuilder,
    projections: &Projections<FlightLeg>,
    before_departure: Duration,
) -> ProjectionEndpoint {
    let stands = GroupedProjection::new(
        "flight-leg-stands",
        move |flight_id, event: &LegRecorded, shares: &mut Shares<Occupation>| {
            if let Some(placement) = placement(flight_id, event, before_departure)? {
                shares.clear();
                if let Some(Placement { stand, occupation }) = placement {
                    shares.set(stand, occupation);
                }
            }
            Ok(())
        },
        StandOccupancy::default,
        |stand, leg, occupancy| StandOccupancy::of(stand, occupancy.view.with(leg)),
        |stand, leg, occupancy| StandOccupancy::of(stand, occupancy.view.without(&leg)),
    )
    // How long a stand is held is one of its rules: with another time, stands are built anew.
    .version(u32::try_from(before_departure.as_secs()).unwrap_or(u32::MAX));
    let Grouped { rows, endpoint } = projections.draw_grouped(builder, stands);
    compacted(builder, STAND_OCCUPANCY, &rows);
    endpoint
}
