//! Input records whose outputs the log refuses.
//!
//! # Position
//! A task's memory across aborted transactions. The thread finds out which record it was
//! (`stream_thread/careful.rs`) and blames it here; when the record comes again, its source's policy
//! meets the refusal instead of the chain's result.
//! # Invariants
//! - A record stays blamed until a commit has moved past it: an abort for another reason changes
//!   nothing about it.
//! - A dead letter that is refused itself is not written again: the task stops and names the record.

use std::collections::BTreeMap;

use super::error::RecordCoordinates;
use crate::log::{LogError, Offset, Refusal, TopicPartition};
use crate::processor::{ProcessError, Reject};

/// What the log said about a record that it does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Where the record was to go.
    target: String,
    refusal: Refusal,
    message: String,
}

impl Refused {
    /// Returns what an error says about a record; `None` where it speaks of something else.
    pub(crate) fn of(error: &LogError) -> Option<Self> {
        match error {
            LogError::RecordRefused {
                partition,
                refusal,
                message,
                ..
            } => Some(Self {
                target: partition.to_string(),
                refusal: *refusal,
                message: message.clone(),
            }),
            LogError::RecordTooLarge { topic, .. } => Some(Self {
                target: topic.clone(),
                refusal: Refusal::TooLarge,
                message: error.to_string(),
            }),
            LogError::Retriable { .. }
            | LogError::AbortRequired { .. }
            | LogError::UnknownOutcome { .. }
            | LogError::Fenced { .. }
            | LogError::MemberUnknown { .. }
            | LogError::OffsetOutOfRange { .. }
            | LogError::UnknownTopic { .. }
            | LogError::OffsetMetadataTooLarge { .. }
            | LogError::Fatal { .. } => None,
        }
    }

    /// Returns the refusal as the failure of the chain that wrote the record.
    pub(crate) fn error(&self) -> ProcessError {
        ProcessError::Production {
            node: self.target.clone(),
            source: Box::new(Reject {
                code: self.refusal.code(),
                message: format!("record for {} refused: {}", self.target, self.message),
            }),
        }
    }
}

#[derive(Debug)]
struct Suspect {
    refused: Refused,
    /// How often the policy has had it tried again.
    retries: u32,
    /// The policy wants the chain to run once more.
    try_again: bool,
    /// Its dead letter was written into a transaction.
    dead_lettered: bool,
    /// The dead letter was refused, too.
    hopeless: bool,
}

/// The blamed records of a task.
#[derive(Debug, Default)]
pub(crate) struct Suspects(BTreeMap<RecordCoordinates, Suspect>);

impl Suspects {
    /// Blames a record for a refusal.
    pub(crate) fn blame(&mut self, at: RecordCoordinates, refused: Refused) {
        let suspect = self.0.entry(at).or_insert_with(|| Suspect {
            refused: refused.clone(),
            retries: 0,
            try_again: false,
            dead_lettered: false,
            hopeless: false,
        });
        suspect.hopeless |= suspect.dead_lettered;
        suspect.refused = refused;
        suspect.try_again = false;
    }

    /// Returns what a record is blamed for, unless it is to be tried again.
    pub(crate) fn error(&self, at: &RecordCoordinates) -> Option<ProcessError> {
        let suspect = self.0.get(at)?;
        (!suspect.try_again).then(|| suspect.refused.error())
    }

    /// Returns how often a record was tried again.
    pub(crate) fn retries(&self, at: &RecordCoordinates) -> u32 {
        self.0.get(at).map_or(0, |suspect| suspect.retries)
    }

    /// Notes that a record is to be tried again.
    pub(crate) fn try_again(&mut self, at: &RecordCoordinates) {
        if let Some(suspect) = self.0.get_mut(at) {
            suspect.retries += 1;
            suspect.try_again = true;
        }
    }

    /// Notes that a dead letter of a record is written; returns whether it may be.
    pub(crate) fn may_dead_letter(&mut self, at: &RecordCoordinates) -> bool {
        self.0.get_mut(at).is_none_or(|suspect| {
            suspect.dead_lettered = true;
            !suspect.hopeless
        })
    }

    /// Forgets records that a commit has moved past.
    pub(crate) fn forget_below(&mut self, partition: &TopicPartition, committed: Offset) {
        self.0
            .retain(|at, _| at.partition != *partition || at.offset >= committed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Refused {
        let error = LogError::RecordRefused {
            operation: "commit",
            partition: TopicPartition::new("out", 3),
            refusal: Refusal::InvalidTimestamp,
            message: "m".to_owned(),
        };
        Refused::of(&error).unwrap()
    }

    fn at(offset: Offset) -> RecordCoordinates {
        RecordCoordinates {
            partition: TopicPartition::new("in", 0),
            offset,
        }
    }

    #[test]
    fn a_blamed_record_fails_with_the_code_until_a_commit_has_passed_it() {
        let mut suspects = Suspects::default();
        assert!(suspects.error(&at(7)).is_none());
        suspects.blame(at(7), refused());
        let error = suspects.error(&at(7)).unwrap();
        assert!(crate::runtime::dead_letter::chain(&error).contains("out-3"));
        suspects.forget_below(&at(7).partition, 7);
        assert!(suspects.error(&at(7)).is_some());
        suspects.forget_below(&at(7).partition, 8);
        assert!(suspects.error(&at(7)).is_none());
    }

    #[test]
    fn a_retry_runs_the_chain_again_and_is_counted_across_refusals() {
        let mut suspects = Suspects::default();
        suspects.blame(at(7), refused());
        suspects.try_again(&at(7));
        assert!(suspects.error(&at(7)).is_none());
        suspects.blame(at(7), refused());
        assert!(suspects.error(&at(7)).is_some());
        assert_eq!(suspects.retries(&at(7)), 1);
    }

    #[test]
    fn a_refused_dead_letter_is_not_written_again_but_an_aborted_one_is() {
        let mut suspects = Suspects::default();
        assert!(suspects.may_dead_letter(&at(7)), "nobody is blamed");
        suspects.blame(at(7), refused());
        assert!(suspects.may_dead_letter(&at(7)));
        assert!(
            suspects.may_dead_letter(&at(7)),
            "the transaction was aborted for another reason"
        );
        suspects.blame(at(7), refused());
        assert!(!suspects.may_dead_letter(&at(7)));
    }
}
