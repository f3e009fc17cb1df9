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
    CommandMemory, DrawnSteps, EventSourced, HistoryKey, Message, Occasion, Projected, Projection,
    ProjectionEndpoint, Projections, Step, compacted_topic, expiring_topic,
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
type Documents = KTable<String, Document>;

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
        stands(&builder, &steps, before_departure);
        let audit = audit(&builder, &projections);
        let (documents, queried) = documents(&builder, &projections);
        dashboard(&builder, &documents);
        status_counts(&builder, &documents);
        carriers(&builder, &documents);
        carrier_hours(&builder, &documents);
        let packaged = Packaged::new(builder.build()?)
            .with_aggregate(endpoint)
            .with_projection(queried)
            .with_projection(audit)
            .with_sink(projections::postgres())
            .with_sink(ArchiveSink::declare(ARCHIVE, &[OUTPUT]));
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

/// The documents, and a table of them for what is counted over legs.
fn documents(
    builder: &StreamsBuilder,
    projections: &Projections<FlightLeg>,
) -> (Documents, ProjectionEndpoint) {
    let documents = Projection::new(
        "flight-leg-documents",
        |flight_id, event: &LegRecorded, rows| {
            // The row is of the last event: those of a message before it would be seen by nobody.
            if matches!(event.occasion, Occasion::Decided { last: false }) {
                return Ok(());
            }
            match Document::of(flight_id, &event.record()) {
                Some(document) => rows.put(flight_id.to_owned(), document),
                None => rows.delete(flight_id.to_owned()),
            }
        },
    );
    let Projected { rows, endpoint } = projections.draw(builder, documents);
    // Of the name that it had before documents were a projection: what is counted by it goes on.
    let documents = rows.to_table(Materialized::as_store(
        "flight-leg-documents",
        serdes::string(),
        serdes::json::<Document>(),
    ));
    compacted(builder, DOCUMENTS, &documents.to_stream());
    (documents, endpoint)
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

fn dashboard(builder: &StreamsBuilder, documents: &Documents) {
    let name = "flight-leg-dashboard";
    let row = serdes::json::<DashboardRow>;
    let rows = documents
        .to_stream()
        .flat_map(|_, document| {
            let rows = document.as_ref().map(DashboardRow::of);
            let rows = rows.into_iter().flatten();
            rows.map(|row| (row.key(), row)).collect::<Vec<_>>()
        })
        .repartition(Repartitioned::with(name, serdes::string(), row()))
        .to_table(Materialized::as_store(name, serdes::string(), row()));
    compacted(builder, DASHBOARD, &rows.to_stream());
}

fn status_counts(builder: &StreamsBuilder, documents: &Documents) {
    let counts = documents
        .group_by(
            |_, document| (document.status.as_str().to_owned(), 1),
            Grouped::with("flight-leg-by-status", serdes::string(), serdes::i64()),
        )
        .aggregate(
            StatusCount::default,
            |status, flights, count| count.plus(status, flights),
            |status, flights, count| count.plus(status, -flights),
            Materialized::as_store("flight-leg-status-counts", serdes::string(), serdes::json()),
        );
    compacted(builder, STATUS_COUNTS, &counts.to_stream());
}

/// Draws figures by a key that tells carrier and perhaps hour; `name` is the store's.
fn figures(
    builder: &StreamsBuilder,
    documents: &Documents,
    (grouping, name, topic): (&str, &str, &str),
    key: impl Fn(&Document) -> String + Send + Sync + 'static,
) {
    let figures = documents
        .group_by(
            move |_, document| (key(&document), Contribution::of(&document)),
            Grouped::with(grouping, serdes::string(), serdes::json::<Contribution>()),
        )
        .aggregate(
            CarrierFigures::default,
            |key, leg, figures| CarrierFigures::of(key, figures.totals.with(leg)),
            |key, leg, figures| CarrierFigures::of(key, figures.totals.without(leg)),
            Materialized::as_store(name, serdes::string(), serdes::json()),
        );
    compacted(builder, topic, &figures.to_stream());
}

fn carriers(builder: &StreamsBuilder, documents: &Documents) {
    let names = ("flight-leg-by-carrier", "flight-leg-carriers", CARRIERS);
    figures(builder, documents, names, |document| {
        document.airline.clone()
    });
}

fn carrier_hours(builder: &StreamsBuilder, documents: &Documents) {
    let names = (
        "flight-leg-by-carrier-hour",
        "flight-leg-carrier-hours",
        CARRIER_HOURS,
    );
    figures(builder, documents, names, carrier_hour);
}

fn stands(builder: &StreamsBuilder, steps: &Steps, before_departure: Duration) {
    let placements = steps
        .try_map_values_with_key(move |flight_id, step| {
            placement(flight_id, &step, before_departure)
        })
        .flat_map_values(|placement| placement)
        .to_table(Materialized::as_store(
            "flight-leg-placements",
            serdes::string(),
            serdes::json::<Placement>(),
        ));
    let views = placements
        .group_by(
            |_, placement| (placement.stand, placement.occupation),
            Grouped::with(
                "flight-leg-by-stand",
                serdes::string(),
                serdes::json::<Occupation>(),
            ),
        )
        .aggregate(
            StandOccupancy::default,
            |stand, leg, occupancy| StandOccupancy::of(stand, occupancy.view.with(leg)),
            |stand, leg, occupancy| StandOccupancy::of(stand, occupancy.view.without(&leg)),
            Materialized::as_store("flight-leg-stands", serdes::string(), serdes::json()),
        );
    compacted(builder, STAND_OCCUPANCY, &views.to_stream());
}
