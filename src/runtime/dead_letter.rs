//! Dead letters: the original record with headers that say where it came from and what was wrong.
//!
//! Header names and contents follow KIP-1034. Unlike Kafka Streams' producer-side handler the record
//! is part of the transaction that moves past it.

use super::ResolvedTopology;
use super::error::RecordCoordinates;
use crate::format::names::dead_letter as header;
use crate::processor::{ProcessError, RawRecord, Reject, TaskContext};
use crate::topology::TopicRef;

/// Returns an error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Returns reason code and message: those of a [`Reject`] among the causes, or the stage and text.
fn reason(error: &ProcessError) -> (String, String) {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(reject) = cause.downcast_ref::<Reject>() {
            return (reject.code.to_owned(), reject.message.clone());
        }
        source = cause.source();
    }
    let code = match error {
        ProcessError::Deserialization { .. } => "DESERIALIZATION_FAILED",
        ProcessError::Processing { .. } => "PROCESSING_FAILED",
        ProcessError::Production { .. } => "PRODUCTION_FAILED",
        ProcessError::State(_) => "STATE_FAILED",
    };
    (code.to_owned(), chain(error))
}

/// Stages the dead letter of a record.
///
/// # Errors
/// When `topic` is no declared topic: a mistake of the topology.
pub(crate) fn stage(
    cx: &mut TaskContext,
    topology: &ResolvedTopology,
    topic: &str,
    at: &RecordCoordinates,
    raw: &RawRecord<'_>,
    error: &ProcessError,
) -> Result<(), String> {
    let reference = TopicRef::Declared(topic.to_owned());
    let Some(target) = topology.topics.get(&reference) else {
        return Err(format!(
            "dead-letter topic `{topic}` is not declared by the topology"
        ));
    };
    let (code, message) = reason(error);
    let headers = raw
        .headers
        .clone()
        .with(header::EXCEPTION, code)
        .with(header::MESSAGE, message)
        .with(header::STACKTRACE, chain(error))
        .with(header::TOPIC, at.partition.topic.to_string())
        .with(header::PARTITION, at.partition.partition.to_string())
        .with(header::OFFSET, at.offset.to_string());
    let copy = |bytes: Option<&[u8]>, out: &mut Vec<u8>| {
        if let Some(bytes) = bytes {
            out.extend_from_slice(bytes);
        }
        Ok::<bool, std::convert::Infallible>(bytes.is_some())
    };
    let staged = cx.outputs.stage(
        &target.name,
        raw.timestamp,
        headers,
        |out| copy(raw.key, out),
        |out| copy(raw.value, out),
        |_| None,
    );
    match staged {
        Ok(()) => Ok(()),
        Err(never) => match never {},
    }
}
