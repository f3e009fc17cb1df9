//! What the model keeps track of: brokers, two processes and their disks.

use millstream::runtime::protocol::TransactionState;

/// Keys of the one store.
pub(crate) const KEYS: usize = 2;
/// A stored value, and the transaction that wrote it.
pub(crate) type Cell = Option<(u8, u8)>;
/// The store's content.
pub(crate) type Content = [Cell; KEYS];
/// Two processes compete for the task.
pub(crate) const PROCESSES: usize = 2;

/// What an input record does to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// Adds one to the value of a key.
    Add(usize),
    /// Deletes a key.
    Delete(usize),
}

impl Op {
    pub(crate) const fn key(self) -> usize {
        match self {
            Self::Add(key) | Self::Delete(key) => key,
        }
    }

    pub(crate) fn apply(self, before: Option<u8>) -> Option<u8> {
        match self {
            Self::Add(_) => Some(before.unwrap_or(0) + 1),
            Self::Delete(_) => None,
        }
    }
}

/// Whether a transaction's records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    Open,
    /// Decided; its markers may still be missing in the offsets topic and in the changelog.
    Committing {
        offsets: bool,
        changelog: bool,
    },
    Committed,
    Aborted,
}

/// A transaction as its coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Transaction {
    /// Index of the transactional id.
    pub(crate) identity: usize,
    pub(crate) epoch: u8,
    pub(crate) status: Status,
    /// The input offset that was added to it, with the reset generation of its metadata.
    pub(crate) offset: Option<(u8, u8)>,
    /// Whether a commit request is on its way. It may arrive after its sender has died.
    pub(crate) requested: bool,
}

impl Transaction {
    pub(crate) const fn is_decided(&self) -> bool {
        matches!(self.status, Status::Committing { .. } | Status::Committed)
    }

    /// Whether readers are past it: a read-committed reader stops at the first that is not.
    pub(crate) const fn is_settled_in_changelog(&self) -> bool {
        matches!(
            self.status,
            Status::Committed
                | Status::Aborted
                | Status::Committing {
                    changelog: true,
                    ..
                }
        )
    }

    /// Whether it holds back the group's stable offsets.
    pub(crate) const fn is_pending(&self) -> bool {
        self.offset.is_some()
            && matches!(
                self.status,
                Status::Open | Status::Committing { offsets: false, .. }
            )
    }
}

/// A place in the changelog.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    Put {
        transaction: usize,
        key: usize,
        value: Option<u8>,
        /// When a cleaner first passed over it: a tombstone's delete horizon counts from there
        /// (KIP-534).
        cleaned_at: Option<u8>,
        /// Removed by compaction. Kept here, so that properties can still fold the whole history.
        compacted: bool,
    },
    Marker,
}

/// An output record: which input it came from, and what the store held before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Output {
    pub(crate) transaction: usize,
    pub(crate) input: u8,
    pub(crate) before: Option<u8>,
}

/// A RocksDB.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Store {
    pub(crate) content: Content,
    /// `None`: the directory is empty.
    pub(crate) checkpoint: Option<Checkpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Checkpoint {
    pub(crate) changelog: u8,
    pub(crate) input: u8,
    pub(crate) generation: u8,
    pub(crate) topic: u8,
    pub(crate) at_end: u8,
}

/// Where a process stands with the task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    Closed,
    /// A member that owns the partition; knows nothing yet.
    Assigned {
        /// Only the planted bug takes the target here.
        early_target: Option<u8>,
    },
    /// Stable committed offsets are known.
    Fetched {
        committed: u8,
        generation: u8,
        early_target: Option<u8>,
    },
    Restoring {
        committed: u8,
        generation: u8,
        target: u8,
        topic: u8,
        taken_at: u8,
    },
    Running(Running),
    /// Refused to start.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Running {
    pub(crate) committed: u8,
    pub(crate) generation: u8,
    pub(crate) topic: u8,
    /// The next input record.
    pub(crate) position: u8,
    /// Uncommitted writes.
    pub(crate) overlay: [Option<Option<u8>>; KEYS],
    /// The changelog offset after the transaction's last write.
    pub(crate) reached: u8,
    /// When its offsets were sent.
    pub(crate) sent_at: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    /// The production state machine.
    pub(crate) state: TransactionState,
    pub(crate) epoch: u8,
    pub(crate) transaction: Option<usize>,
    /// 0: no member.
    pub(crate) member_generation: u8,
    pub(crate) task: Task,
    /// RocksDB with its memtable.
    pub(crate) live: Store,
    /// What a crash leaves.
    pub(crate) durable: Store,
}

/// What may still go wrong; bounds the state space and makes every run end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) crashes: u8,
    pub(crate) takeovers: u8,
    /// Lost requests and replies, demanded aborts, fatal errors, timed-out live transactions.
    pub(crate) faults: u8,
    /// Times that `delete.retention.ms` passes.
    pub(crate) time: u8,
    pub(crate) resets: u8,
    pub(crate) rewinds: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) changelog: Vec<Entry>,
    /// The changelog's topic id.
    pub(crate) topic: u8,
    pub(crate) outputs: Vec<Output>,
    /// Current producer epoch per transactional id.
    pub(crate) epochs: [u8; PROCESSES],
    pub(crate) group_generation: u8,
    pub(crate) owner: Option<usize>,
    pub(crate) committed: u8,
    pub(crate) reset_generation: u8,
    pub(crate) now: u8,
    pub(crate) processes: [Process; PROCESSES],
    pub(crate) budget: Budget,
    /// The real code refused a step that the model wanted to take.
    pub(crate) illegal: bool,
    /// Another tool has moved the group back.
    pub(crate) rewound: bool,
    /// A task with local state beyond the rewound offset was started all the same.
    pub(crate) started_over_rewound: bool,
}

impl World {
    pub(crate) fn new(budget: Budget) -> Self {
        let process = Process {
            state: TransactionState::default(),
            epoch: 0,
            transaction: None,
            member_generation: 0,
            task: Task::Closed,
            live: Store::default(),
            durable: Store::default(),
        };
        Self {
            transactions: Vec::new(),
            changelog: Vec::new(),
            topic: 1,
            outputs: Vec::new(),
            epochs: [0; PROCESSES],
            group_generation: 0,
            owner: None,
            committed: 0,
            reset_generation: 0,
            now: 0,
            processes: [process.clone(), process],
            budget,
            illegal: false,
            rewound: false,
            started_over_rewound: false,
        }
    }

    /// The changelog's last stable offset.
    pub(crate) fn last_stable_offset(&self) -> usize {
        let open = |entry: &Entry| match entry {
            Entry::Put { transaction, .. } => {
                !self.transactions[*transaction].is_settled_in_changelog()
            }
            Entry::Marker => false,
        };
        self.changelog
            .iter()
            .position(open)
            .unwrap_or(self.changelog.len())
    }

    /// The input offset that decided transactions reach, wherever their markers are.
    pub(crate) fn decided_offset(&self) -> u8 {
        let undelivered = self.transactions.iter().find_map(|transaction| {
            match (transaction.status, transaction.offset) {
                (Status::Committing { offsets: false, .. }, Some((offset, _))) => Some(offset),
                _ => None,
            }
        });
        undelivered.unwrap_or(self.committed)
    }

    /// Folds decided writes below `end` as if nothing had been compacted.
    pub(crate) fn fold(&self, end: usize) -> Content {
        let mut content = Content::default();
        for entry in &self.changelog[..end.min(self.changelog.len())] {
            if let Entry::Put {
                transaction,
                key,
                value,
                ..
            } = entry
                && self.transactions[*transaction].is_decided()
            {
                content[*key] = value.map(|value| (value, as_u8(*transaction)));
            }
        }
        content
    }

    /// Whether every write that a store shows belongs to a decided transaction.
    pub(crate) fn shows_only_decided(&self, store: &Store) -> bool {
        store.content.iter().flatten().all(|(_, transaction)| {
            self.transactions
                .get(usize::from(*transaction))
                .is_some_and(Transaction::is_decided)
        })
    }
}

pub(crate) fn as_u8(index: usize) -> u8 {
    u8::try_from(index).expect("a model stays small")
}

/// A store's values without their transactions.
pub(crate) fn values(content: &Content) -> [Option<u8>; KEYS] {
    content.map(|cell| cell.map(|(value, _)| value))
}
