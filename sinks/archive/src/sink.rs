//! The sink: what a topology declares, made into something that archives.

use std::sync::Arc;

use millstream::sink::{
    PastRecords, Sink, SinkBounds, SinkContext, SinkDeclaration, SinkFuture, SinkSession,
};

use crate::config::{ArchiveParameters, Checked};
use crate::reader::ArchiveReader;
use crate::session::ArchiveSession;
use crate::store::Store;

/// Archives topics.
#[derive(Debug)]
pub struct ArchiveSink {
    topics: Vec<String>,
    store: Store,
    bounds: SinkBounds,
    level: i32,
}

impl ArchiveSink {
    /// Declares an archive for [`Packaged::with_sink`](millstream::packaged::Packaged::with_sink): its
    /// name in the configuration, and the declared names of the topics that it keeps.
    #[must_use]
    pub fn declare(name: &str, topics: &[&str]) -> SinkDeclaration {
        let topics: Vec<String> = topics.iter().map(|&topic| topic.to_owned()).collect();
        SinkDeclaration::new(name, move |parameters| {
            let Checked {
                store,
                bounds,
                level,
            } = parameters.read::<ArchiveParameters>()?.check(parameters)?;
            Ok(Arc::new(Self {
                topics: topics.clone(),
                store,
                bounds,
                level,
            }))
        })
    }
}

impl Sink for ArchiveSink {
    fn kind(&self) -> &'static str {
        "archive"
    }

    fn topics(&self) -> Vec<String> {
        self.topics.clone()
    }

    fn bounds(&self) -> SinkBounds {
        self.bounds
    }

    fn connect<'a>(&'a self, context: &'a SinkContext) -> SinkFuture<'a, Box<dyn SinkSession>> {
        Box::pin(async move {
            let session = ArchiveSession::new(self.store.clone(), self.level, context);
            let session: Box<dyn SinkSession> = Box::new(session);
            Ok(session)
        })
    }

    fn past(&self) -> Option<Arc<dyn PastRecords>> {
        Some(Arc::new(ArchiveReader::new(self.store.clone())))
    }

    fn verify<'a>(&'a self, context: &'a SinkContext) -> SinkFuture<'a, String> {
        let reader = ArchiveReader::new(self.store.clone());
        Box::pin(async move { reader.verify(context).await })
    }
}
