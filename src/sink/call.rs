//! What every reader and writer of sinks does: wait for a target, take a record over, refuse to go on
//! where the log has nothing.

use std::time::Duration;

use tokio::runtime::Handle;

use super::{SinkError, SinkFuture, SinkRecord};
use crate::log::{LogError, LogMessage, Offset, TopicPartition};

/// Which side did not do its part.
pub(super) enum Trouble {
    Log(LogError),
    Target(SinkError),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<SinkError> for Trouble {
    fn from(error: SinkError) -> Self {
        Self::Target(error)
    }
}

/// Refuses an offset that the log does not hold: going on elsewhere would lose or repeat records.
pub(super) fn refuse_outside(
    sink: &str,
    partition: &TopicPartition,
    stored: Offset,
    (start, end): (Offset, Offset),
) -> Result<(), SinkError> {
    let what = if stored < start {
        format!(
            "records from {stored} to {} were deleted before this sink had them",
            start - 1
        )
    } else if stored > end {
        format!("it ends at {end}: the topic was deleted, or is another one")
    } else {
        return Ok(());
    };
    Err(SinkError::failed(format!(
        "the target has {partition} up to offset {stored}, but {what}; `millstream rebuild-sink \
         CONFIG {sink}` starts over"
    )))
}

/// Waits for the target, within a bound.
pub(super) fn wait<T>(
    runtime: &Handle,
    timeout: Duration,
    call: SinkFuture<'_, T>,
) -> Result<T, SinkError> {
    runtime.block_on(async {
        match tokio::time::timeout(timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(SinkError::unavailable(format!(
                "no answer within {timeout:?}"
            ))),
        }
    })
}

pub(super) fn record_of<M: LogMessage>(message: &M) -> SinkRecord {
    SinkRecord {
        offset: message.offset(),
        timestamp: message.timestamp(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.value().map(<[u8]>::to_vec),
        headers: message.headers(),
    }
}
