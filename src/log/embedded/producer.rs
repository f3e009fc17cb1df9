//! The embedded log's producer.
//!
//! # Phases
//! ```text
//!   New ──init──▶ Ready ──begin──▶ Open ──commit, abort──▶ Ready
//!                                   │ AbortRequired               ▲
//!                                   ├──▶ AbortOnly ────abort──────┤
//!                                   │ UnknownOutcome              │
//!                                   └──▶ Unresolved ──commit──────┘
//!   any ──fenced──▶ Dead      any ──Fatal──▶ Dead
//! ```
//! A record that its topic refuses is taken, as by a client that learns of it from the broker's answer
//! only; the transaction is lost, and the next call says why ([`LogError::RecordRefused`]).
//!
//! A producer that is dropped is a killed one: its transaction stays open until its time-out, or
//! until the next producer of the same transactional id fences it.

use std::collections::BTreeMap;

use super::coordinator::{EmbeddedGroupMetadata, Identity, Refused};
use super::faults::{Fault, FaultPoint};
use super::group::Refusal as MemberRefusal;
use super::lost::Lost;
use super::record::TransactionNumber;
use super::{ChangeError, EmbeddedLog};
use crate::format::partitioner::partition_for_key;
use crate::log::{
    CommittedOffset, LogError, LogProducer, Offset, ProducerRecord, ProducerSpec, Refusal,
    TopicName, TopicPartition,
};

/// How large the metadata of a committed offset may be: a broker's default of
/// `offset.metadata.max.bytes`.
const OFFSET_METADATA_BYTES_MAX: usize = 4096;

/// Returns the first partition whose metadata is larger than that, and how large it is.
fn too_large(offsets: &[(TopicPartition, CommittedOffset)]) -> Option<(&TopicPartition, usize)> {
    let mut sizes = offsets
        .iter()
        .map(|(partition, offset)| (partition, offset.metadata.len()));
    sizes.find(|(_, len)| *len > OFFSET_METADATA_BYTES_MAX)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    New,
    Ready,
    Open,
    /// The transaction is lost; only an abort leads on.
    AbortOnly(Lost),
    /// A commit's outcome is unknown; only a commit leads on.
    Unresolved,
    /// Nothing leads on.
    Dead(LogError),
}

/// A producer of the embedded log.
#[derive(Debug)]
pub struct EmbeddedProducer {
    log: EmbeddedLog,
    spec: ProducerSpec,
    epoch: i32,
    phase: Phase,
    /// The transaction that this producer has open, once it wrote something.
    transaction: Option<TransactionNumber>,
    acknowledged: BTreeMap<TopicPartition, Offset>,
    round_robin: i32,
}

impl EmbeddedProducer {
    pub(super) fn new(log: EmbeddedLog, spec: ProducerSpec) -> Self {
        Self {
            log,
            spec,
            epoch: 0,
            phase: Phase::New,
            transaction: None,
            acknowledged: BTreeMap::new(),
            round_robin: 0,
        }
    }

    fn fault(&self, point: FaultPoint, partition: Option<&TopicPartition>) -> Option<Fault> {
        let transactional_id = self.spec.transactional_id.as_deref();
        self.log
            .fault(point, &self.spec.client_id, transactional_id, partition)
    }

    fn die(&mut self, error: LogError) -> LogError {
        self.phase = Phase::Dead(error.clone());
        error
    }

    fn injected_fatal(&mut self, operation: &'static str) -> LogError {
        self.die(LogError::Fatal {
            operation,
            message: "injected fault".to_owned(),
        })
    }

    fn lose(&mut self, operation: &'static str, message: String) -> LogError {
        self.phase = Phase::AbortOnly(message.clone().into());
        LogError::AbortRequired { operation, message }
    }

    /// Turns a refusal into what the caller is told, and into this producer's phase.
    fn refused(&mut self, operation: &'static str, topic: &str, refused: Refused) -> LogError {
        match refused {
            Refused::Epoch { current } => {
                let message = format!("epoch {} is older than {current}", self.epoch);
                self.die(LogError::Fenced { operation, message })
            }
            Refused::Member(refusal) => {
                let (error, message) = member_error(operation, refusal);
                self.phase = Phase::AbortOnly(message.into());
                error
            }
            Refused::UnknownTopic => LogError::UnknownTopic {
                topic: topic.to_owned(),
            },
            Refused::TooLarge(size) => LogError::RecordTooLarge {
                topic: topic.to_owned(),
                size,
            },
            Refused::Invalid(_, message) => self.spoil(operation, message),
            Refused::Change(ChangeError::NotWritten(message)) => self.spoil(operation, message),
            Refused::Change(error @ ChangeError::Broken(_)) => {
                self.die(error.into_log_error(operation))
            }
        }
    }

    /// A record of a transaction was refused. A broker says so in its answer, when the client has
    /// queued the record, and more, long since.
    fn lose_record(
        &mut self,
        operation: &'static str,
        record: &ProducerRecord<'_>,
        partition: i32,
        refused: Refused,
    ) -> Result<(), LogError> {
        let (refusal, message) = match refused {
            Refused::TooLarge(size) => (
                Refusal::TooLarge,
                format!("{size} bytes are more than the topic takes"),
            ),
            Refused::Invalid(refusal, message) => (refusal, message),
            other => return Err(self.refused(operation, record.topic, other)),
        };
        let at = TopicPartition::new(TopicName::clone(record.topic), partition);
        self.phase = Phase::AbortOnly(Lost {
            record: Some((at, refusal)),
            message,
        });
        Ok(())
    }

    /// A write failed: a transaction is lost by it, a single record only itself.
    fn spoil(&mut self, operation: &'static str, message: String) -> LogError {
        if self.spec.transactional_id.is_some() {
            self.lose(operation, message)
        } else {
            LogError::Retriable { operation, message }
        }
    }

    /// Returns the error of a call that this phase does not allow.
    fn refuse_phase(&self, operation: &'static str) -> LogError {
        match &self.phase {
            Phase::Dead(error) => error.clone(),
            Phase::AbortOnly(lost) => lost.error(operation),
            phase @ (Phase::New | Phase::Ready | Phase::Open | Phase::Unresolved) => {
                LogError::Fatal {
                    operation,
                    message: format!("not allowed in phase {phase:?}"),
                }
            }
        }
    }

    /// Checks that records may be written now, and returns whether in a transaction.
    fn writable(&self, operation: &'static str) -> Result<bool, LogError> {
        match (&self.phase, &self.spec.transactional_id) {
            (Phase::Open, Some(_)) => Ok(true),
            (Phase::New, None) => Ok(false),
            _ => Err(self.refuse_phase(operation)),
        }
    }

    fn partition_of(&mut self, record: &ProducerRecord<'_>, partitions: i32) -> i32 {
        match (record.partition, record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, partitions),
            (None, None) => {
                self.round_robin = self.round_robin.wrapping_add(1) & i32::MAX;
                self.round_robin % partitions
            }
        }
    }

    fn transactional_id(&self, operation: &'static str) -> Result<String, LogError> {
        self.spec
            .transactional_id
            .clone()
            .ok_or_else(|| LogError::Fatal {
                operation,
                message: "the producer has no transactional id".to_owned(),
            })
    }

    /// Ends the transaction, if it wrote anything. `Ok` also when it has ended already.
    fn end(&mut self, operation: &'static str, commit: bool) -> Result<(), LogError> {
        let Some(number) = self.transaction else {
            // Nothing was written, nothing is asked of the broker: so nothing fences it either.
            return Ok(());
        };
        let transactional_id = self.transactional_id(operation)?;
        let result = {
            let mut core = self.log.core();
            let now = core.tick();
            let identity = Identity {
                transactional_id: &transactional_id,
                epoch: self.epoch,
            };
            match core.open_transaction(identity) {
                Ok(Some(open)) if open == number => core
                    .end_transaction(number, commit, now)
                    .map_err(Refused::from),
                // The epoch is ours, so it was this producer that ended it: its reply was lost.
                Ok(_) => Ok(()),
                Err(refused) => Err(refused),
            }
        };
        match result {
            Ok(()) => Ok(()),
            Err(Refused::Change(ChangeError::NotWritten(message))) if commit => {
                Err(LogError::UnknownOutcome { message })
            }
            Err(Refused::Change(error @ ChangeError::NotWritten(_))) => {
                Err(error.into_log_error(operation))
            }
            Err(refused) => Err(self.refused(operation, "", refused)),
        }
    }
}

/// Returns the error for a member that is not current, and its text.
pub(super) fn member_error(operation: &'static str, refusal: MemberRefusal) -> (LogError, String) {
    match refusal {
        MemberRefusal::Fenced => {
            let message = "another member runs under the same group.instance.id".to_owned();
            (
                LogError::Fenced {
                    operation,
                    message: message.clone(),
                },
                message,
            )
        }
        MemberRefusal::Unknown => {
            let message = "the group does not know the member".to_owned();
            (
                LogError::MemberUnknown {
                    operation,
                    message: message.clone(),
                },
                message,
            )
        }
        MemberRefusal::Generation(current) => {
            let message = format!("the group is in generation {current}");
            (
                LogError::MemberUnknown {
                    operation,
                    message: message.clone(),
                },
                message,
            )
        }
    }
}

impl LogProducer for EmbeddedProducer {
    type GroupMetadata = EmbeddedGroupMetadata;

    fn init_transactions(&mut self) -> Result<(), LogError> {
        const OPERATION: &str = "init transactions";
        let transactional_id = self.transactional_id(OPERATION)?;
        if self.phase != Phase::New {
            return Err(self.refuse_phase(OPERATION));
        }
        match self.fault(FaultPoint::Init, None) {
            None => {}
            Some(Fault::Fatal) => return Err(self.injected_fatal(OPERATION)),
            Some(_) => return Err(injected_retriable(OPERATION)),
        }
        let timeout = self.spec.transaction_timeout.as_millis();
        let timeout_ms = Some(i64::try_from(timeout).unwrap_or(i64::MAX));
        let fenced = {
            let mut core = self.log.core();
            let now = core.tick();
            core.fence(&transactional_id, timeout_ms, now)
        };
        self.epoch = fenced.map_err(|error| error.into_log_error(OPERATION))?;
        self.phase = Phase::Ready;
        Ok(())
    }

    fn begin_transaction(&mut self) -> Result<(), LogError> {
        if self.phase != Phase::Ready {
            return Err(self.refuse_phase("begin transaction"));
        }
        self.phase = Phase::Open;
        self.transaction = None;
        self.acknowledged.clear();
        Ok(())
    }

    fn send(&mut self, record: ProducerRecord<'_>) -> Result<(), LogError> {
        const OPERATION: &str = "send";
        let transactional = self.writable(OPERATION)?;
        let partitions = self.log.core().partitions_of(record.topic);
        let Some(partitions) = partitions else {
            return Err(LogError::UnknownTopic {
                topic: record.topic.to_string(),
            });
        };
        let partition = self.partition_of(&record, partitions);
        if self.log.has_faults() {
            let at = TopicPartition::new(TopicName::clone(record.topic), partition);
            match self.fault(FaultPoint::Send, Some(&at)) {
                None => {}
                Some(Fault::Fatal) => return Err(self.injected_fatal(OPERATION)),
                Some(_) => return Err(self.spoil(OPERATION, "injected fault".to_owned())),
            }
        }
        let appended = {
            let mut core = self.log.core();
            let now = core.tick();
            let identity = self
                .spec
                .transactional_id
                .as_deref()
                .filter(|_| transactional)
                .map(|transactional_id| Identity {
                    transactional_id,
                    epoch: self.epoch,
                });
            match (identity, self.transaction) {
                // A transaction of ours that is gone was ended by the coordinator.
                (Some(identity), Some(_)) => core
                    .open_transaction(identity)
                    .and_then(|_| core.append(&record, partition, Some(identity), now)),
                (identity, _) => core.append(&record, partition, identity, now),
            }
        };
        match appended {
            Ok((offset, transaction)) => {
                self.transaction = transaction;
                let at = TopicPartition::new(TopicName::clone(record.topic), partition);
                self.acknowledged.insert(at, offset);
                Ok(())
            }
            Err(refused) if transactional => {
                self.lose_record(OPERATION, &record, partition, refused)
            }
            Err(refused) => Err(self.refused(OPERATION, record.topic, refused)),
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        const OPERATION: &str = "flush";
        if let Phase::Dead(_) | Phase::AbortOnly(_) = self.phase {
            return Err(self.refuse_phase(OPERATION));
        }
        match self.fault(FaultPoint::Flush, None) {
            None => {}
            Some(Fault::Fatal) => return Err(self.injected_fatal(OPERATION)),
            Some(Fault::AbortRequired) => {
                return Err(self.spoil(OPERATION, "injected fault".to_owned()));
            }
            Some(_) => return Err(injected_retriable(OPERATION)),
        }
        self.log
            .core()
            .flush()
            .map_err(|error| error.into_log_error(OPERATION))
    }

    fn send_offsets(
        &mut self,
        offsets: &[(TopicPartition, CommittedOffset)],
        group: &EmbeddedGroupMetadata,
    ) -> Result<(), LogError> {
        const OPERATION: &str = "send offsets";
        let transactional_id = self.transactional_id(OPERATION)?;
        self.writable(OPERATION)?;
        match self.fault(FaultPoint::SendOffsets, None) {
            None => {}
            Some(Fault::Fatal) => return Err(self.injected_fatal(OPERATION)),
            Some(Fault::AbortRequired) => {
                return Err(self.lose(OPERATION, "injected fault".to_owned()));
            }
            Some(_) => return Err(injected_retriable(OPERATION)),
        }
        if offsets.is_empty() {
            // As librdkafka: nothing is sent, so nothing fences the transaction.
            return Ok(());
        }
        if let Some((partition, len)) = too_large(offsets) {
            let message = format!(
                "the metadata for {partition} has {len} bytes, {OFFSET_METADATA_BYTES_MAX} are taken"
            );
            // As a broker's refusal does, this loses the transaction.
            drop(self.lose(OPERATION, message.clone()));
            return Err(LogError::OffsetMetadataTooLarge {
                operation: OPERATION,
                message,
            });
        }
        let added = {
            let mut core = self.log.core();
            let now = core.tick();
            let identity = Identity {
                transactional_id: &transactional_id,
                epoch: self.epoch,
            };
            core.add_offsets(identity, offsets.iter().cloned().collect(), group, now)
        };
        match added {
            Ok(transaction) => {
                self.transaction = Some(transaction);
                Ok(())
            }
            Err(Refused::Change(error @ ChangeError::NotWritten(_))) => {
                Err(error.into_log_error(OPERATION))
            }
            Err(refused) => Err(self.refused(OPERATION, "", refused)),
        }
    }

    fn commit_transaction(&mut self) -> Result<(), LogError> {
        const OPERATION: &str = "commit transaction";
        if !matches!(self.phase, Phase::Open | Phase::Unresolved) {
            return Err(self.refuse_phase(OPERATION));
        }
        let fault = self
            .transaction
            .and_then(|_| self.fault(FaultPoint::Commit, None));
        match fault {
            None | Some(Fault::ReplyLost) => {}
            Some(Fault::Fatal) => return Err(self.injected_fatal(OPERATION)),
            // Once a request is out, there is no way back to an abort.
            Some(Fault::AbortRequired) if self.phase == Phase::Open => {
                return Err(self.lose(OPERATION, "injected fault".to_owned()));
            }
            Some(Fault::AbortRequired | Fault::RequestLost | Fault::Retriable) => {
                self.phase = Phase::Unresolved;
                return Err(LogError::UnknownOutcome {
                    message: "injected fault".to_owned(),
                });
            }
        }
        match self.end(OPERATION, true) {
            Ok(()) => {}
            Err(error) => {
                if let LogError::UnknownOutcome { .. } = error {
                    self.phase = Phase::Unresolved;
                }
                return Err(error);
            }
        }
        if fault.is_some() {
            self.phase = Phase::Unresolved;
            return Err(LogError::UnknownOutcome {
                message: "injected: reply lost".to_owned(),
            });
        }
        self.phase = Phase::Ready;
        self.transaction = None;
        Ok(())
    }

    fn abort_transaction(&mut self) -> Result<(), LogError> {
        const OPERATION: &str = "abort transaction";
        if !matches!(self.phase, Phase::Open | Phase::AbortOnly(_)) {
            return Err(self.refuse_phase(OPERATION));
        }
        match self
            .transaction
            .and_then(|_| self.fault(FaultPoint::Abort, None))
        {
            None => {}
            Some(Fault::Fatal) => return Err(self.injected_fatal(OPERATION)),
            Some(_) => return Err(injected_retriable(OPERATION)),
        }
        self.end(OPERATION, false)?;
        self.phase = Phase::Ready;
        self.transaction = None;
        Ok(())
    }

    fn take_acknowledged(&mut self) -> Vec<(TopicPartition, Option<Offset>)> {
        let taken = std::mem::take(&mut self.acknowledged);
        taken
            .into_iter()
            .map(|(partition, offset)| (partition, Some(offset)))
            .collect()
    }
}

/// Returns the error of an injected fault that a repeated call gets over.
pub(super) fn injected_retriable(operation: &'static str) -> LogError {
    LogError::Retriable {
        operation,
        message: "injected fault".to_owned(),
    }
}
