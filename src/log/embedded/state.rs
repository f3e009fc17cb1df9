//! The durable state: topics, transactions and committed offsets. Changed by mutations only.

use std::collections::{BTreeMap, BTreeSet};

use super::config::TopicConfig;
use super::mutation::{Mutation, Offsets};
use super::partition::{Entry, Partition};
use super::record::{Record, TransactionNumber};
use crate::log::{TopicName, TopicPartition};

/// A topic.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Topic {
    pub(super) id: [u8; 16],
    pub(super) raw_config: BTreeMap<String, String>,
    pub(super) config: TopicConfig,
    pub(super) partitions: Vec<Partition>,
}

/// What the coordinator knows of a transactional id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Transactional {
    pub(super) epoch: i32,
    pub(super) timeout_ms: i64,
    pub(super) open: Option<Open>,
}

/// An open transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) number: TransactionNumber,
    pub(super) started: i64,
    pub(super) partitions: BTreeSet<TopicPartition>,
    pub(super) offsets: BTreeMap<String, Offsets>,
}

/// A mutation does not fit the state: the journal is not this log's, or a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Inconsistent(&'static str);

/// The durable state.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    pub(super) topics: BTreeMap<TopicName, Topic>,
    pub(super) transactional: BTreeMap<String, Transactional>,
    pub(super) offsets: BTreeMap<String, Offsets>,
    pub(super) next_transaction: TransactionNumber,
}

impl State {
    pub(super) fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.topics
            .get(topic)?
            .partitions
            .get(usize::try_from(partition).ok()?)
    }

    fn partition_mut(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Result<&mut Partition, Inconsistent> {
        usize::try_from(partition)
            .ok()
            .and_then(|at| self.topics.get_mut(topic)?.partitions.get_mut(at))
            .ok_or(Inconsistent(
                "a change names a partition that does not exist",
            ))
    }

    /// Returns the open transaction with `number`.
    fn open_mut(&mut self, number: TransactionNumber) -> Result<&mut Open, Inconsistent> {
        self.transactional
            .values_mut()
            .filter_map(|transactional| transactional.open.as_mut())
            .find(|open| open.number == number)
            .ok_or(Inconsistent(
                "a change names a transaction that is not open",
            ))
    }

    /// Returns whether an open transaction holds an offset of `group` for `partition`.
    pub(super) fn is_pending(&self, group: &str, partition: &TopicPartition) -> bool {
        self.transactional
            .values()
            .filter_map(|transactional| transactional.open.as_ref())
            .filter_map(|open| open.offsets.get(group))
            .any(|offsets| offsets.contains_key(partition))
    }

    /// Applies a mutation.
    ///
    /// # Errors
    /// [`Inconsistent`], with nothing changed.
    pub(super) fn apply(&mut self, mutation: Mutation) -> Result<(), Inconsistent> {
        match mutation {
            Mutation::TopicCreated {
                name,
                id,
                partitions,
                config,
            } => self.create_topic(name, id, partitions, config),
            Mutation::TopicDeleted { name } => self.delete_topic(&name),
            Mutation::Appended {
                topic,
                partition,
                record,
            } => self.append(&topic, partition, record),
            Mutation::EpochBumped {
                transactional_id,
                epoch,
                timeout_ms,
            } => {
                let transactional = self.transactional.entry(transactional_id).or_default();
                transactional.epoch = epoch;
                transactional.timeout_ms = timeout_ms;
                Ok(())
            }
            Mutation::TransactionBegun {
                transactional_id,
                number,
                started,
            } => self.begin(&transactional_id, number, started),
            Mutation::OffsetsPending {
                number,
                group,
                offsets,
            } => {
                self.open_mut(number)?
                    .offsets
                    .entry(group)
                    .or_default()
                    .extend(offsets);
                Ok(())
            }
            Mutation::TransactionEnded { number, commit, at } => self.end(number, commit, at),
            Mutation::OffsetsSet { group, offsets } => {
                self.offsets.entry(group).or_default().extend(offsets);
                Ok(())
            }
            Mutation::StartAdvanced { partition, start } => {
                self.partition_mut(&partition.topic, partition.partition)?
                    .advance_start(start);
                Ok(())
            }
            Mutation::Compacted {
                partition,
                removed,
                horizons,
                horizon,
                to,
            } => {
                self.partition_mut(&partition.topic, partition.partition)?
                    .compact(&removed, &horizons, horizon, to);
                Ok(())
            }
            Mutation::PartitionRestored {
                partition,
                range,
                clean_to,
                aborted,
                open,
            } => {
                for (number, _) in &open {
                    self.open_mut(*number)?.partitions.insert(partition.clone());
                }
                *self.partition_mut(&partition.topic, partition.partition)? =
                    Partition::restored(range, clean_to, aborted, open);
                Ok(())
            }
            Mutation::EntryRestored {
                topic,
                partition,
                record,
                delete_horizon,
            } => {
                let entry = Entry {
                    record: record.into(),
                    delete_horizon,
                };
                self.partition_mut(&topic, partition)?.restore_entry(entry);
                Ok(())
            }
            Mutation::Numbered { next } => {
                self.next_transaction = self.next_transaction.max(next);
                Ok(())
            }
        }
    }

    fn create_topic(
        &mut self,
        name: TopicName,
        id: [u8; 16],
        partitions: i32,
        raw_config: BTreeMap<String, String>,
    ) -> Result<(), Inconsistent> {
        let config = TopicConfig::parse(&raw_config)
            .map_err(|_| Inconsistent("a topic's configuration does not parse"))?;
        let count = usize::try_from(partitions)
            .map_err(|_| Inconsistent("a topic has a negative number of partitions"))?;
        let partitions = vec![Partition::default(); count];
        self.topics.insert(
            name,
            Topic {
                id,
                raw_config,
                config,
                partitions,
            },
        );
        Ok(())
    }

    /// Deletes a topic, with all that groups and transactions hold of it.
    fn delete_topic(&mut self, name: &str) -> Result<(), Inconsistent> {
        self.topics
            .remove(name)
            .ok_or(Inconsistent("a deleted topic does not exist"))?;
        for offsets in self.offsets.values_mut() {
            offsets.retain(|partition, _| &*partition.topic != name);
        }
        for open in self
            .transactional
            .values_mut()
            .filter_map(|one| one.open.as_mut())
        {
            open.partitions
                .retain(|partition| &*partition.topic != name);
            for offsets in open.offsets.values_mut() {
                offsets.retain(|partition, _| &*partition.topic != name);
            }
        }
        Ok(())
    }

    fn append(
        &mut self,
        topic: &TopicName,
        partition: i32,
        record: Record,
    ) -> Result<(), Inconsistent> {
        let number = record.transaction;
        let target = self.partition_mut(topic, partition)?;
        if record.offset != target.high_watermark() {
            return Err(Inconsistent(
                "a record was not appended at the end of its partition",
            ));
        }
        let joins = number.filter(|number| !target.is_open(*number));
        if let Some(number) = joins {
            let partition = TopicPartition::new(TopicName::clone(topic), partition);
            self.open_mut(number)?.partitions.insert(partition);
        }
        self.partition_mut(topic, partition)?.append(record);
        Ok(())
    }

    fn begin(
        &mut self,
        transactional_id: &str,
        number: TransactionNumber,
        started: i64,
    ) -> Result<(), Inconsistent> {
        let transactional = self
            .transactional
            .get_mut(transactional_id)
            .ok_or(Inconsistent(
                "a transaction begins under an unknown transactional id",
            ))?;
        if transactional.open.is_some() {
            return Err(Inconsistent(
                "a transaction begins before its predecessor ended",
            ));
        }
        transactional.open = Some(Open {
            number,
            started,
            partitions: BTreeSet::new(),
            offsets: BTreeMap::new(),
        });
        self.next_transaction = self.next_transaction.max(number + 1);
        Ok(())
    }

    fn end(
        &mut self,
        number: TransactionNumber,
        commit: bool,
        at: i64,
    ) -> Result<(), Inconsistent> {
        let open = self
            .transactional
            .values_mut()
            .find_map(|one| one.open.take_if(|open| open.number == number))
            .ok_or(Inconsistent("a transaction ends that is not open"))?;
        for partition in &open.partitions {
            let target = self.partition_mut(&partition.topic, partition.partition)?;
            let offset = target.high_watermark();
            target.append(Record::marker(offset, number, commit, at));
        }
        if commit {
            for (group, offsets) in open.offsets {
                self.offsets.entry(group).or_default().extend(offsets);
            }
        }
        Ok(())
    }

    /// Returns the mutations that build this state from nothing: what a journal is rewritten as.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = Mutation> {
        let ids = self.transactional.iter().flat_map(|(id, one)| {
            let bump = Mutation::EpochBumped {
                transactional_id: id.clone(),
                epoch: one.epoch,
                timeout_ms: one.timeout_ms,
            };
            let begin = one.open.as_ref().map(|open| Mutation::TransactionBegun {
                transactional_id: id.clone(),
                number: open.number,
                started: open.started,
            });
            let pending = one.open.iter().flat_map(|open| {
                open.offsets
                    .iter()
                    .map(|(group, offsets)| Mutation::OffsetsPending {
                        number: open.number,
                        group: group.clone(),
                        offsets: offsets.clone(),
                    })
            });
            std::iter::once(bump).chain(begin).chain(pending)
        });
        let topics = self
            .topics
            .iter()
            .flat_map(|(name, topic)| topic.snapshot(name));
        let offsets = self
            .offsets
            .iter()
            .map(|(group, offsets)| Mutation::OffsetsSet {
                group: group.clone(),
                offsets: offsets.clone(),
            });
        let numbered = Mutation::Numbered {
            next: self.next_transaction,
        };
        std::iter::once(numbered)
            .chain(ids)
            .chain(topics)
            .chain(offsets)
    }
}

impl Topic {
    fn snapshot<'a>(&'a self, name: &'a TopicName) -> impl Iterator<Item = Mutation> + 'a {
        let created = Mutation::TopicCreated {
            name: TopicName::clone(name),
            id: self.id,
            partitions: i32::try_from(self.partitions.len()).unwrap_or(i32::MAX),
            config: self.raw_config.clone(),
        };
        let partitions = (0_i32..)
            .zip(&self.partitions)
            .flat_map(move |(number, partition)| {
                let frame = Mutation::PartitionRestored {
                    partition: TopicPartition::new(TopicName::clone(name), number),
                    range: partition.range(crate::log::Isolation::ReadUncommitted),
                    clean_to: partition.clean_to(),
                    aborted: partition.aborted().iter().copied().collect(),
                    open: partition
                        .open()
                        .iter()
                        .map(|(number, first)| (*number, *first))
                        .collect(),
                };
                let entries =
                    partition
                        .entries()
                        .iter()
                        .map(move |entry| Mutation::EntryRestored {
                            topic: TopicName::clone(name),
                            partition: number,
                            record: (*entry.record).clone(),
                            delete_horizon: entry.delete_horizon,
                        });
                std::iter::once(frame).chain(entries)
            });
        std::iter::once(created).chain(partitions)
    }
}

/// Returns the total size of all stored records, in bytes.
pub(super) fn live_bytes(state: &State) -> usize {
    state
        .topics
        .values()
        .flat_map(|topic| &topic.partitions)
        .map(Partition::bytes)
        .sum()
}
