//! Views of everything in the log, for checkers that stand outside of what they check.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::EmbeddedLog;
use super::record::{Kind, Record};
use crate::log::{CommittedOffset, Headers, LogError, Offset, TopicName, TopicPartition};

/// What became of what stands at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordStatus {
    /// Written outside of any transaction.
    Plain,
    /// Of a transaction that has committed.
    Committed,
    /// Of a transaction that was aborted.
    Aborted,
    /// Of a transaction that is open.
    Open,
    /// The marker of a commit.
    CommitMarker,
    /// The marker of an abort.
    AbortMarker,
}

/// What stands at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedRecord {
    /// The offset.
    pub offset: Offset,
    /// The record timestamp.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone, or a marker.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Headers,
    /// What became of it.
    pub status: RecordStatus,
    /// The number of its transaction: unique in the log.
    pub transaction: Option<u64>,
}

/// A transaction that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Its number, as in [`InspectedRecord::transaction`].
    pub number: u64,
    /// The producer's transactional id.
    pub transactional_id: String,
    /// The producer's epoch.
    pub epoch: i32,
    /// When it wrote first, by the log's clock.
    pub started: i64,
    /// Where it has written.
    pub partitions: Vec<TopicPartition>,
    /// The offsets it holds, by group.
    pub offsets: BTreeMap<String, BTreeMap<TopicPartition, CommittedOffset>>,
}

/// A group's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// The generation; 0 before the first rebalance has ended.
    pub generation: i32,
    /// Whether a rebalance is under way.
    pub rebalancing: bool,
    /// The members.
    pub members: Vec<MemberView>,
    /// The committed offsets.
    pub offsets: BTreeMap<TopicPartition, CommittedOffset>,
}

/// A group member's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// The member's number: unique in the log.
    pub id: u64,
    /// `client.id`.
    pub client_id: String,
    /// `group.instance.id`.
    pub group_instance_id: Option<String>,
    /// What it holds, until it has given it back.
    pub owned: Vec<TopicPartition>,
}

/// A topic's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// The name.
    pub name: TopicName,
    /// Unique per creation.
    pub id: [u8; 16],
    /// The number of partitions.
    pub partitions: i32,
    /// The configs that it was created with.
    pub config: BTreeMap<String, String>,
}

/// Looking in, for outside checkers. Nothing here changes the log or lets time act.
impl EmbeddedLog {
    /// Returns everything that stands in a partition, markers included, in offset order.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    pub fn inspect_records(
        &self,
        partition: &TopicPartition,
    ) -> Result<Vec<InspectedRecord>, LogError> {
        let core = self.core();
        let source = core
            .state
            .partition(&partition.topic, partition.partition)
            .ok_or_else(|| LogError::UnknownTopic {
                topic: partition.topic.to_string(),
            })?;
        let status = |record: &Record| match (record.kind, record.transaction) {
            (Kind::CommitMarker, _) => RecordStatus::CommitMarker,
            (Kind::AbortMarker, _) => RecordStatus::AbortMarker,
            (Kind::Data, None) => RecordStatus::Plain,
            (Kind::Data, Some(number)) if source.is_open(number) => RecordStatus::Open,
            (Kind::Data, Some(number)) if source.aborted().contains(&number) => {
                RecordStatus::Aborted
            }
            (Kind::Data, Some(_)) => RecordStatus::Committed,
        };
        Ok(source
            .entries()
            .iter()
            .map(|entry| &entry.record)
            .map(|record| InspectedRecord {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.as_deref().map(<[u8]>::to_vec),
                value: record.value.as_deref().map(<[u8]>::to_vec),
                headers: record.headers.clone(),
                status: status(record),
                transaction: record.transaction,
            })
            .collect())
    }

    /// Returns all open transactions.
    #[must_use]
    pub fn inspect_transactions(&self) -> Vec<OpenTransaction> {
        let core = self.core();
        let open = core.state.transactional.iter().filter_map(|(id, one)| {
            let open = one.open.as_ref()?;
            Some(OpenTransaction {
                number: open.number,
                transactional_id: id.clone(),
                epoch: one.epoch,
                started: open.started,
                partitions: open.partitions.iter().cloned().collect(),
                offsets: open.offsets.clone(),
            })
        });
        open.collect()
    }

    /// Returns a group's state; `None` when it has neither members nor offsets.
    #[must_use]
    pub fn inspect_group(&self, name: &str) -> Option<GroupView> {
        let core = self.core();
        let (group, offsets) = (core.groups.get(name), core.state.offsets.get(name));
        if group.is_none() && offsets.is_none() {
            return None;
        }
        let members = group.into_iter().flat_map(|group| &group.members);
        Some(GroupView {
            generation: group.map_or(0, |group| group.generation),
            rebalancing: group.is_some_and(super::group::Group::is_preparing),
            members: members
                .map(|(id, member)| MemberView {
                    id: *id,
                    client_id: member.client_id.clone(),
                    group_instance_id: member.instance.clone(),
                    owned: member.owned.iter().cloned().collect(),
                })
                .collect(),
            offsets: offsets.cloned().unwrap_or_default(),
        })
    }

    /// Returns all topics, by name.
    #[must_use]
    pub fn inspect_topics(&self) -> Vec<TopicView> {
        let core = self.core();
        let topics = core.state.topics.iter().map(|(name, topic)| TopicView {
            name: Arc::clone(name),
            id: topic.id,
            partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            config: topic.raw_config.clone(),
        });
        topics.collect()
    }
}
