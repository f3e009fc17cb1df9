//! The current state of legs as a table of a PostgreSQL database (`contracts/flight-leg/sql`).

use millstream::sink::SinkDeclaration;
use millstream_postgres::{Column, Migration, PostgresSink, Source, SqlType, Table};

use crate::topology::DOCUMENTS;

/// The name of the PostgreSQL sink in a configuration.
pub const POSTGRES: &str = "postgres";

/// The schema, step by step. A step that was released is never edited.
const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "flight_leg",
    sql: include_str!("../../../contracts/flight-leg/sql/0001_flight_leg.sql"),
}];

/// Declares the sink; `sinks.postgres` in the configuration turns it on.
pub(crate) fn postgres() -> SinkDeclaration {
    PostgresSink::declare(POSTGRES, "flight-leg", MIGRATIONS, tables())
}

/// Returns the tables and what fills them.
#[must_use]
pub fn tables() -> Vec<Table> {
    use SqlType::{BigInt, Integer, Jsonb, Text, Timestamp};
    let required = |name, field, sql_type| Column::new(name, sql_type).field(field);
    let optional = |name, field, sql_type| Column::new(name, sql_type).field(field).nullable();
    let columns = [
        Column::new("flight_id", Text).from(Source::Key).primary(),
        required("flight_number", "flightNumber", Text),
        required("airline", "airline", Text),
        optional("airline_name", "airlineName", Text),
        required("origin", "origin", Text),
        optional("origin_name", "originName", Text),
        required("destination", "destination", Text),
        optional("destination_name", "destinationName", Text),
        optional("aircraft", "aircraft", Text),
        optional("aircraft_model", "aircraftModel", Text),
        required("status", "status", Text),
        optional("stand", "stand", Text),
        optional("stand_allocated_by", "standAllocatedBy", Text),
        optional("stand_allocated_at", "standAllocatedAt", Timestamp),
        optional("gate", "gate", Text),
        required("scheduled_departure", "scheduledDeparture", Timestamp),
        optional("estimated_departure", "estimatedDeparture", Timestamp),
        optional("actual_departure", "actualDeparture", Timestamp),
        optional("departure_delay_minutes", "departureDelayMinutes", Integer),
        optional("scheduled_arrival", "scheduledArrival", Timestamp),
        optional("estimated_arrival", "estimatedArrival", Timestamp),
        optional("actual_arrival", "actualArrival", Timestamp),
        optional("arrival_delay_minutes", "arrivalDelayMinutes", Integer),
        optional("cancellation_reason", "cancellationReason", Text),
        required("gaps", "gaps", Jsonb),
        required("version", "version", BigInt).version(),
        required("updated_at", "updatedAt", Timestamp),
    ];
    vec![
        columns
            .into_iter()
            .fold(Table::new("flight_leg", DOCUMENTS), Table::column),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_described_without_mistakes() {
        for table in tables() {
            assert_eq!(table.check(), Ok(()));
        }
    }
}
