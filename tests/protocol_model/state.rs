//! What the model keeps track of: brokers, two processes and their disks.

use millstream::runtime::protocol::TransactionState;

/// Keys of the one store.
pub const KEYS: usize = 2;
/// A stored value, and the transaction that wrote it.
pub type Cell = Option<(u8, u8)>;
/// The store's content.
pub type Content = [Cell; KEYS];
/// Two processes compete for the task.
pub const PROCESSES: usize = 2;

/// What an input record does to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Adds one to the value of a key.
    Add(usize),
    /// Deletes a key.
    Delete(usize),
}

impl Op {
    pub const fn key(self) -> usize {
        match self {
            Self::Add(key) | Self::Delete(key) => key,
        }
    }

    pub fn apply(self, before: Option<u8>) -> Option<u8> {
        match self {
            Self::Add(_) => Some(before.unwrap_or(0) + 1),
            Self::Delete(_) => None,
        }
    }
}

/// Whether a transaction's records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
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
pub struct Transaction {
    /// Index of the transactional id.
    pub identity: usize,
    pub epoch: u8,
    pub status: Status,
    /// The input offset that was added to it, with the reset generation of its metadata.
    pub offset: Option<(u8, u8)>,
    /// Whether a commit request is on its way. It may arrive after its sender has died.
    pub requested: bool,
}

impl Transaction {
    pub const fn is_decided(&self) -> bool {
        matches!(self.status, Status::Committing { .. } | Status::Committed)
    }

    /// Whether readers are past it: a read-committed reader stops at the first that is not.
    pub const fn is_settled_in_changelog(&self) -> bool {
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
    pub const fn is_pending(&self) -> bool {
        self.offset.is_some()
            && matches!(
                self.status,
                Status::Open | Status::Committing { offsets: false, .. }
            )
    }
}

/// A place in the changelog.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
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
pub struct Output {
    pub transaction: usize,
    pub input: u8,
    pub before: Option<u8>,
}

/// A RocksDB.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Store {
    pub content: Content,
    /// `None`: the directory is empty.
    pub checkpoint: Option<Checkpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    pub changelog: u8,
    pub input: u8,
    pub generation: u8,
    pub topic: u8,
    pub at_end: u8,
}

/// Where a process stands with the task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Task {
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
pub struct Running {
    pub committed: u8,
    pub generation: u8,
    pub topic: u8,
    /// The next input record.
    pub position: u8,
    /// Uncommitted writes.
    pub overlay: [Option<Option<u8>>; KEYS],
    /// The changelog offset after the transaction's last write.
    pub reached: u8,
    /// When its offsets were sent.
    pub sent_at: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    /// The production state machine.
    pub state: TransactionState,
    pub epoch: u8,
    pub transaction: Option<usize>,
    /// 0: no member.
    pub member_generation: u8,
    pub task: Task,
    /// RocksDB with its memtable.
    pub live: Store,
    /// What a crash leaves.
    pub durable: Store,
}

/// What may still go wrong; bounds the state space and makes every run end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Budget {
    pub crashes: u8,
    pub takeovers: u8,
    /// Lost requests and replies, demanded aborts, fatal errors, timed-out live transactions.
    pub faults: u8,
    /// Times that `delete.retention.ms` passes.
    pub time: u8,
    pub resets: u8,
    pub rewinds: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub transactions: Vec<Transaction>,
    pub changelog: Vec<Entry>,
    /// The changelog's topic id.
    pub topic: u8,
    pub outputs: Vec<Output>,
    /// Current producer epoch per transactional id.
    pub epochs: [u8; PROCESSES],
    pub group_generation: u8,
    pub owner: Option<usize>,
    pub committed: u8,
    pub reset_generation: u8,
    pub now: u8,
    pub processes: [Process; PROCESSES],
    pub budget: Budget,
    /// The real code refused a step that the model wanted to take.
    pub illegal: bool,
    /// Another tool has moved the group back.
    pub rewound: bool,
    /// A task with local state beyond the rewound offset was started all the same.
    pub started_over_rewound: bool,
}

impl World {
    pub fn new(budget: Budget) -> Self {
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
    pub fn last_stable_offset(&self) -> usize {
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
    pub fn decided_offset(&self) -> u8 {
        let undelivered = self.transactions.iter().find_map(|transaction| {
            match (transaction.status, transaction.offset) {
                (Status::Committing { offsets: false, .. }, Some((offset, _))) => Some(offset),
                _ => None,
            }
        });
        undelivered.unwrap_or(self.committed)
    }

    /// Folds decided writes below `end` as if nothing had been compacted.
    pub fn fold(&self, end: usize) -> Content {
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
    pub fn shows_only_decided(&self, store: &Store) -> bool {
        store.content.iter().flatten().all(|(_, transaction)| {
            self.transactions
                .get(usize::from(*transaction))
                .is_some_and(Transaction::is_decided)
        })
    }
}

pub fn as_u8(index: usize) -> u8 {
    u8::try_from(index).expect("a model stays small")
}

/// A store's values without their transactions.
pub fn values(content: &Content) -> [Option<u8>; KEYS] {
    content.map(|cell| cell.map(|(value, _)| value))
}
