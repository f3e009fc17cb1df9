//! What is wrong with a topology. `build` reports every mistake at once.

use std::fmt;

/// One mistake of a topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// There is nothing to run.
    #[error("the topology is empty: it reads no topic")]
    Empty,
    /// A name that Kafka or the state directory cannot bear.
    #[error("{what} name `{name}` is illegal: {reason}")]
    IllegalName {
        /// Which kind of name.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two things of one kind under one name.
    #[error("{what} name `{name}` is used more than once; each needs a name of its own")]
    DuplicateName {
        /// Which kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A topic has more than one reader that cannot be one.
    #[error(
        "topic `{topic}` is read more than once, {how}; read it once and attach both parts to \
         the same stream or table"
    )]
    TopicReadTwice {
        /// The topic.
        topic: String,
        /// How the readers differ.
        how: &'static str,
    },
    /// A pattern that is no regular expression.
    #[error(
        "pattern `{pattern}` is no regular expression (look-around and back-references are not \
         supported): {reason}"
    )]
    IllegalPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The driver topic of a source by pattern needs a name that outlives the pattern.
    #[error(
        "the source by pattern `{pattern}` has no name; give it one with `Consumed::named`: its \
         internal topic `<application id>-<name>-millstream-driver` is called by it"
    )]
    UnnamedPattern {
        /// The pattern.
        pattern: String,
    },
    /// A topic would reach two sources.
    #[error(
        "pattern `{pattern}` matches topic `{topic}`, which another source reads; make the pattern \
         narrower, or read the topic through the pattern only"
    )]
    PatternOverlaps {
        /// The pattern.
        pattern: String,
        /// The topic.
        topic: String,
    },
    /// A store nobody uses.
    #[error("store `{store}` is not connected to any processor; pass its handle to `process`")]
    StoreNotConnected {
        /// The store.
        store: String,
    },
    /// A source nobody reads.
    #[error("topic `{topic}` is read by `{node}`, but nothing is done with its records")]
    SourceNotRead {
        /// The topic.
        topic: String,
        /// The source node.
        node: String,
    },
    /// A declared topic that neither a source, a sink nor an error policy names.
    #[error("topic `{topic}` is declared, but nothing reads or writes it")]
    TopicNotUsed {
        /// The topic.
        topic: String,
    },
    /// A topic was declared twice, differently.
    #[error("topic `{topic}` is declared more than once with different configs")]
    TopicDeclaredTwice {
        /// The topic.
        topic: String,
    },
    /// Records must be repartitioned, but nobody said how they become bytes.
    #[error(
        "repartition `{name}` does not know the {field} serde, since the {field} was changed \
         upstream; give it with `Grouped::with` or `Repartitioned::with`"
    )]
    MissingSerde {
        /// The repartition topic's name.
        name: String,
        /// `key` or `value`.
        field: &'static str,
    },
    /// Records of a joined stream must be kept, but nobody said how they become bytes.
    #[error(
        "join `{name}` does not know the {field} serde, since the {field} was changed upstream; \
         give it with `StreamJoined::with` or `Joined::with`"
    )]
    JoinWithoutSerde {
        /// The join.
        name: String,
        /// `key`, `value` or `other value`.
        field: &'static str,
    },
    /// A repartition topic was asked to have no partitions.
    #[error("repartition `{name}` must have at least one partition")]
    IllegalPartitions {
        /// The repartition topic's name.
        name: String,
    },
    /// A record store would lose the only copy of its data with the machine.
    #[error(
        "store `{store}` is a record store without a changelog: its data would live on one \
         machine only; give it a changelog, or make it derived"
    )]
    RecordStoreWithoutChangelog {
        /// The store.
        store: String,
    },
    /// A stream, table or store of another builder.
    #[error("`{name}` belongs to another builder; a topology is drawn with one")]
    ForeignHandle {
        /// What was passed in.
        name: String,
    },
    /// The topology reads its own dead letters: a poison record would go round for ever.
    #[error("topic `{topic}` takes dead letters of a source that reads it")]
    DeadLetterLoop {
        /// The topic.
        topic: String,
    },
    /// A global table is read outside any transaction: nothing could be written with its records.
    #[error(
        "global table of topic `{topic}` cannot dead-letter what it cannot read: choose `Fail` or \
         `Skip`"
    )]
    GlobalDeadLetter {
        /// The topic.
        topic: String,
    },
    /// Windows that cannot be, or a store that forgets them too soon.
    #[error("the windows of store `{store}` are illegal: {reason}")]
    IllegalWindows {
        /// The store.
        store: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A store with an option, or a use of one, that cannot be.
    #[error("store `{store}` cannot be used so: {reason}")]
    IllegalStore {
        /// The store.
        store: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A suppression that cannot be.
    #[error("suppression `{name}` is illegal: {reason}")]
    IllegalSuppress {
        /// The suppression.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Records of one key could meet the same store in different tasks.
    #[error(
        "topics {} must have the same number of partitions, but repartition topics among them ask \
         for {}",
        join(topics),
        join(partitions)
    )]
    NotCoPartitioned {
        /// The topics.
        topics: Vec<String>,
        /// What the repartition topics ask for.
        partitions: Vec<i32>,
    },
}

fn join(items: &[impl fmt::Display]) -> String {
    items
        .iter()
        .map(|item| format!("`{item}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Every mistake of a topology, in the order they were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyErrors(Vec<TopologyError>);

impl TopologyErrors {
    pub(crate) fn new(mistakes: Vec<TopologyError>) -> Self {
        assert!(!mistakes.is_empty(), "an error says what is wrong");
        Self(mistakes)
    }

    /// Iterates over the mistakes.
    pub fn iter(&self) -> impl Iterator<Item = &TopologyError> {
        self.0.iter()
    }
}

impl fmt::Display for TopologyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the topology has a mistake: {one}"),
            all => {
                write!(f, "the topology has {} mistakes:", all.len())?;
                all.iter()
                    .try_for_each(|mistake| write!(f, "\n- {mistake}"))
            }
        }
    }
}

impl std::error::Error for TopologyErrors {}
