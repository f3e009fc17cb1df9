//! The sink: what a topology declares, made into something that connects.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream::config::{ConfigErrors, Parameters};
use millstream::sink::{
    Sink, SinkBounds, SinkContext, SinkDeclaration, SinkError, SinkFuture, SinkSession,
};
use tokio_postgres::Client;

use crate::config::PostgresParameters;
use crate::connect::Target;
use crate::migrate::{Migration, migrate};
use crate::offsets;
use crate::session::PostgresSession;
use crate::table::Table;

/// Fills tables of a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresSink {
    target: Target,
    bounds: SinkBounds,
    owner: String,
    tables: Arc<[Table]>,
    migrations: &'static [Migration],
}

impl PostgresSink {
    /// Declares a sink for [`Packaged::with_sink`](millstream::packaged::Packaged::with_sink): its
    /// name in the configuration, whose the schema's migrations are (a topology's name), the
    /// migrations, and the tables that they make.
    #[must_use]
    pub fn declare(
        name: &str,
        owner: &str,
        migrations: &'static [Migration],
        tables: Vec<Table>,
    ) -> SinkDeclaration {
        let owner = owner.to_owned();
        let tables: Arc<[Table]> = tables.into();
        SinkDeclaration::new(name, move |parameters| {
            let sink = Self::new(parameters, &owner, migrations, Arc::clone(&tables))?;
            Ok(Arc::new(sink))
        })
    }

    fn new(
        parameters: &Parameters,
        owner: &str,
        migrations: &'static [Migration],
        tables: Arc<[Table]>,
    ) -> Result<Self, ConfigErrors> {
        for table in tables.iter() {
            table
                .check()
                .map_err(|error| parameters.refuse(error.to_string()))?;
        }
        let (target, bounds) = parameters.read::<PostgresParameters>()?.check(parameters)?;
        Ok(Self {
            target,
            bounds,
            owner: owner.to_owned(),
            tables,
            migrations,
        })
    }

    /// Connects to a schema that is up to date and whose tables are this sink's.
    async fn open(&self, sink: &str) -> Result<Client, SinkError> {
        let mut client = self.target.connect(sink).await?;
        let schema = &self.target.schema;
        migrate(&mut client, schema, &self.owner, self.migrations).await?;
        offsets::claim(&mut client, sink, &self.tables).await?;
        Ok(client)
    }
}

impl Sink for PostgresSink {
    fn kind(&self) -> &'static str {
        "postgresql"
    }

    fn topics(&self) -> Vec<String> {
        let topics: BTreeSet<&String> = self.tables.iter().map(|table| &table.topic).collect();
        topics.into_iter().cloned().collect()
    }

    fn bounds(&self) -> SinkBounds {
        self.bounds
    }

    fn connect<'a>(&'a self, context: &'a SinkContext) -> SinkFuture<'a, Box<dyn SinkSession>> {
        Box::pin(async move {
            let client = self.open(&context.group).await?;
            let session = PostgresSession::new(client, context, &self.tables).await?;
            let session: Box<dyn SinkSession> = Box::new(session);
            Ok(session)
        })
    }

    fn rebuild<'a>(&'a self, context: &'a SinkContext) -> SinkFuture<'a, String> {
        Box::pin(async move {
            let mut client = self.open(&context.group).await?;
            let generation = offsets::rebuild(&mut client, &context.group, &self.tables).await?;
            let names: Vec<&str> = self.tables.iter().map(Table::name).collect();
            Ok(format!(
                "{} emptied; `{}` fills them again from the start of its topics (generation \
                 {generation})",
                names.join(", "),
                context.group
            ))
        })
    }
}
