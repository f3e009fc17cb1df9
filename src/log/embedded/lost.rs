//! What the embedded log's producer remembers of a transaction that can only be aborted.

use crate::log::{LogError, Refusal, TopicPartition};

/// Why a transaction is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    /// The record that its topic refused, if that was it.
    pub(super) record: Option<(TopicPartition, Refusal)>,
    pub(super) message: String,
}

impl Lost {
    /// Returns what a call says that finds the transaction lost.
    pub(super) fn error(&self, operation: &'static str) -> LogError {
        let message = self.message.clone();
        match &self.record {
            None => LogError::AbortRequired { operation, message },
            Some((partition, refusal)) => LogError::RecordRefused {
                operation,
                partition: partition.clone(),
                refusal: *refusal,
                message,
            },
        }
    }
}

impl From<String> for Lost {
    fn from(message: String) -> Self {
        Self {
            record: None,
            message,
        }
    }
}
