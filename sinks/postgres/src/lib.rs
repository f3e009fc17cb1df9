//! PostgreSQL sink of millstream: read models as tables, exactly once.
//!
//! # Position
//! A topology crate describes [`Table`]s and their [`Migration`]s and offers them as a sink
//! ([`PostgresSink::declare`]); a configuration turns it on with a `url`. The framework's
//! [`sink`](millstream::sink) reads the topics and calls this.
//! # Invariants
//! - Rows and source offsets are written in **one** database transaction. The stored offset is the
//!   only position there is (table `millstream_offsets`).
//! - The fence: `UPDATE … WHERE next_offset = expected AND generation = …`. No row means that another
//!   process has written meanwhile, or that the sink is being rebuilt; the transaction is rolled back.
//! - A row is replaced by one of the same or a later version only, where the table has a version.
//! - A table belongs to one sink (`millstream_tables`): emptying it for a rebuild empties nothing else.
//! - Locks are taken in one order: the sink's generation, offsets by topic and partition, tables.
//! # Failure
//! [`SinkError`](millstream::sink::SinkError) by SQLSTATE class: data that does not fit refuses the
//! record, what a person has to mend fails, all else is taken for a database that is away.

mod batch;
mod config;
mod connect;
mod errors;
mod migrate;
mod offsets;
mod session;
mod sink;
mod statements;
mod table;
mod value;

pub use config::PostgresParameters;
pub use migrate::Migration;
pub use sink::PostgresSink;
pub use table::{Column, Source, SqlType, Table, TableError};
