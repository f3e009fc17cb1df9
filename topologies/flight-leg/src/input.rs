//! Reads adapter messages: the first step behind `aodb-input-adapter`.

use std::time::Duration;

use millstream::event_sourcing::{Message, ReasonCode, reasons};
use millstream::prelude::*;

use crate::messages::{AdapterMessage, LegInput};
use crate::rejection::codes;

/// How far a message may be ahead of the wall clock. Its events would be as far ahead, and brokers
/// refuse records that are more than an hour ahead.
const AHEAD_MAX: Duration = Duration::from_secs(60 * 60);

/// Turns records into messages; a bad one meets the source's policy, with a reason code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadMessages;

fn reject(code: ReasonCode, message: impl ToString) -> BoxError {
    Box::new(Reject {
        code: code.as_str(),
        message: message.to_string(),
    })
}

impl Processor<Option<Vec<u8>>, Option<Vec<u8>>, String, Message<LegInput>> for ReadMessages {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, Message<LegInput>>,
        record: Record<Option<Vec<u8>>, Option<Vec<u8>>>,
    ) -> Result<(), BoxError> {
        let Some(value) = &record.value else {
            return Err(reject(reasons::MISSING_VALUE, "the message has no value"));
        };
        let (flight_id, message) = AdapterMessage::read(record.key.as_deref(), value)
            .map_err(|error| reject(error.code(), error))?;
        let ahead = i64::try_from(AHEAD_MAX.as_millis()).unwrap_or(i64::MAX);
        if message.timestamp > context.system_time().saturating_add(ahead) {
            let problem = "`timestamp` is more than an hour ahead";
            return Err(reject(codes::TIMESTAMP_IN_FUTURE, problem));
        }
        let timestamp = message.timestamp;
        context.forward(Record::new(flight_id, message, timestamp))?;
        Ok(())
    }
}
