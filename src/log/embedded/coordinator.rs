//! Transactions: who may write, what is open, and how it ends.
//!
//! A transactional id has one epoch. `init_transactions` raises it and aborts what the predecessor
//! left open, so everything an older producer still tries is fenced. A transaction that is open
//! longer than its time-out is aborted, and its producer fenced (Kafka's coordinator does the same).

use super::core::{ChangeError, Core};
use super::group::{MemberId, Refusal as MemberRefusal};
use super::mutation::{Mutation, Offsets};
use super::record::{Kind, Record, TransactionNumber, payload_size};
use super::state::Topic;
use crate::log::{Offset, ProducerRecord, Refusal, TopicName, TopicPartition};

/// What a record batch adds to key, value and headers, at most: its own header and one record's.
const BATCH_OVERHEAD: usize = 61 + 21;

/// Proof of identity of a transactional producer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) transactional_id: &'a str,
    pub(super) epoch: i32,
}

/// What fences a commit: the consumer's generation (KIP-447).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedGroupMetadata {
    pub(super) group: String,
    pub(super) member: MemberId,
    pub(super) instance: Option<String>,
    pub(super) generation: i32,
}

/// Why the coordinator or the partition refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// The producer's epoch is old.
    Epoch {
        current: i32,
    },
    /// The group member is not current.
    Member(MemberRefusal),
    UnknownTopic,
    /// The record is larger than `max.message.bytes`.
    TooLarge(usize),
    /// The record is not valid in its topic.
    Invalid(Refusal, String),
    Change(ChangeError),
}

impl From<ChangeError> for Refused {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl Core {
    /// Returns the open transaction of a producer that is current.
    ///
    /// # Errors
    /// [`Refused::Epoch`].
    pub(super) fn open_transaction(
        &self,
        identity: Identity<'_>,
    ) -> Result<Option<TransactionNumber>, Refused> {
        match self.state.transactional.get(identity.transactional_id) {
            Some(one) if one.epoch == identity.epoch => {
                Ok(one.open.as_ref().map(|open| open.number))
            }
            other => Err(Refused::Epoch {
                current: other.map_or(0, |one| one.epoch),
            }),
        }
    }

    /// Raises the epoch of a transactional id and aborts what is open. Returns the new epoch.
    ///
    /// # Errors
    /// When the journal cannot be written; to call again is safe.
    pub(super) fn fence(
        &mut self,
        transactional_id: &str,
        timeout_ms: Option<i64>,
        now: i64,
    ) -> Result<i32, ChangeError> {
        let known = self.state.transactional.get(transactional_id);
        let open = known
            .and_then(|one| one.open.as_ref())
            .map(|open| open.number);
        let epoch = known.map_or(0, |one| one.epoch + 1);
        let timeout_ms = timeout_ms
            .or_else(|| known.map(|one| one.timeout_ms))
            .unwrap_or(i64::MAX);
        if let Some(number) = open {
            self.end_transaction(number, false, now)?;
        }
        let transactional_id = transactional_id.to_owned();
        self.change(Mutation::EpochBumped {
            transactional_id,
            epoch,
            timeout_ms,
        })?;
        Ok(epoch)
    }

    fn ensure_transaction(
        &mut self,
        identity: Identity<'_>,
        now: i64,
    ) -> Result<TransactionNumber, Refused> {
        if let Some(number) = self.open_transaction(identity)? {
            return Ok(number);
        }
        let number = self.state.next_transaction;
        self.change(Mutation::TransactionBegun {
            transactional_id: identity.transactional_id.to_owned(),
            number,
            started: now,
        })?;
        if let Some(one) = self.state.transactional.get(identity.transactional_id) {
            self.note_deadline(now.saturating_add(one.timeout_ms).saturating_add(1));
        }
        Ok(number)
    }

    /// Appends a record, in a transaction when there is an identity. Returns its offset and the
    /// transaction.
    ///
    /// # Errors
    /// [`Refused`], with nothing appended.
    pub(super) fn append(
        &mut self,
        record: &ProducerRecord<'_>,
        partition: i32,
        identity: Option<Identity<'_>>,
        now: i64,
    ) -> Result<(Offset, Option<TransactionNumber>), Refused> {
        let topic = self
            .state
            .topics
            .get(record.topic)
            .ok_or(Refused::UnknownTopic)?;
        validate(topic, record, now)?;
        let timestamp = if topic.config.log_append_time {
            now
        } else {
            record.timestamp
        };
        let offset = self
            .state
            .partition(record.topic, partition)
            .ok_or(Refused::UnknownTopic)?
            .high_watermark();
        let transaction = identity
            .map(|identity| self.ensure_transaction(identity, now))
            .transpose()?;
        let stored = Record {
            offset,
            timestamp,
            key: record.key.map(Into::into),
            value: record.value.map(Into::into),
            headers: record.headers.clone(),
            transaction,
            kind: Kind::Data,
        };
        let topic = TopicName::clone(record.topic);
        self.change(Mutation::Appended {
            topic,
            partition,
            record: stored,
        })?;
        if transaction.is_none() {
            let topic = TopicName::clone(record.topic);
            self.wake_readers(&TopicPartition { topic, partition });
        }
        Ok((offset, transaction))
    }

    /// Adds offsets to a transaction.
    ///
    /// # Errors
    /// [`Refused`], with nothing added.
    pub(super) fn add_offsets(
        &mut self,
        identity: Identity<'_>,
        offsets: Offsets,
        group: &EmbeddedGroupMetadata,
        now: i64,
    ) -> Result<TransactionNumber, Refused> {
        self.open_transaction(identity)?;
        self.groups
            .get(&group.group)
            .ok_or(MemberRefusal::Unknown)
            .and_then(|one| {
                one.check_generation(group.member, group.instance.as_deref(), group.generation)
            })
            .map_err(Refused::Member)?;
        let number = self.ensure_transaction(identity, now)?;
        let group = group.group.clone();
        self.change(Mutation::OffsetsPending {
            number,
            group,
            offsets,
        })?;
        Ok(number)
    }

    /// Ends an open transaction: markers in all its partitions and its offsets, at once.
    ///
    /// # Errors
    /// When the journal cannot be written: the transaction is still open.
    pub(super) fn end_transaction(
        &mut self,
        number: TransactionNumber,
        commit: bool,
        now: i64,
    ) -> Result<(), ChangeError> {
        let partitions: Vec<TopicPartition> = self
            .state
            .transactional
            .values()
            .filter_map(|one| one.open.as_ref())
            .find(|open| open.number == number)
            .map(|open| open.partitions.iter().cloned().collect())
            .unwrap_or_default();
        self.change(Mutation::TransactionEnded {
            number,
            commit,
            at: now,
        })?;
        for partition in &partitions {
            self.wake_readers(partition);
        }
        Ok(())
    }
}

/// Checks a record as a broker does.
fn validate(topic: &Topic, record: &ProducerRecord<'_>, now: i64) -> Result<(), Refused> {
    let config = &topic.config;
    let size = BATCH_OVERHEAD + payload_size(record.key, record.value, record.headers);
    if size > config.max_message_bytes {
        return Err(Refused::TooLarge(size));
    }
    if config.compact && record.key.is_none() {
        let message = format!(
            "`{}` is compacted and takes no record without a key",
            record.topic
        );
        return Err(Refused::Invalid(Refusal::InvalidRecord, message));
    }
    let ahead = record.timestamp.saturating_sub(now);
    if !config.log_append_time && config.timestamp_after_max_ms.is_some_and(|max| ahead > max) {
        let message = format!("timestamp {} is {ahead} ms ahead", record.timestamp);
        return Err(Refused::Invalid(Refusal::InvalidTimestamp, message));
    }
    Ok(())
}
