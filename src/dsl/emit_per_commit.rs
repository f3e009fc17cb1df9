//! `emit_per_commit`: of each key, one update per transaction.
//!
//! # Position
//! What Kafka Streams' record cache does to a table's updates, and nothing else of it: the store's
//! writes are deduplicated by its overlay in any case. A node below the table's, so that every table
//! can have it, with a store or without.
//! # Invariants
//! - What is held back leaves before the stores of the task are drained, nodes upstream first: a
//!   commit covers what its updates have led to.
//! - The old value of an update is the one that was sent last: the value at the last commit.
//! - A record that is rolled back leaves nothing here; an aborted transaction rebuilds the task, and
//!   this node with it.
//! # Order
//! Updates leave in the order in which each key was updated last, as Kafka Streams flushes its cache.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::assembly::Children;
use super::builder::StoreKey;
use super::config::SharedSerde;
use super::stream::{KStream, Keeps};
use super::table::{Change, KTable};
use crate::clock::Timestamp;
use crate::log::Headers;
use crate::processor::{
    Downstream, HoldsBack, Node, ProcessError, Record, RecordMetadata, SharedNode, TaskContext,
};
use crate::topology::TopologyError;

/// What a side of a change is taken to weigh before one was measured.
const FIRST_SIDE_BYTES: usize = 64;

/// How many updates pass between two that are serialised to see what they weigh.
const MEASURED_ONE_IN: u64 = 64;

/// The update of a key that waits for the commit.
#[derive(Debug, Clone)]
struct Held<V> {
    /// The place in the order of updates.
    number: u64,
    change: Change<V>,
    timestamp: Timestamp,
    headers: Headers,
    /// Where the record came from that made the last update.
    origin: Option<RecordMetadata>,
}

struct EmitPerCommitNode<K, V> {
    held: HashMap<K, Held<V>>,
    /// What the record in progress has replaced, the latest last.
    undo: Vec<(K, Option<Held<V>>)>,
    /// While a commit empties the node.
    leaving: VecDeque<(K, Held<V>)>,
    updates: u64,
    send_old: bool,
    value_serde: Option<SharedSerde<V>>,
    scratch: Vec<u8>,
    /// A moving average.
    side_bytes: usize,
    downstream: Downstream<K, Change<V>>,
}

impl<K: StoreKey, V: Clone + 'static> EmitPerCommitNode<K, V> {
    /// Memory bounds transactions, and typed values do not say what they weigh: looks now and then.
    fn measure(&mut self, change: &Change<V>) {
        if !self.updates.is_multiple_of(MEASURED_ONE_IN) {
            return;
        }
        if let (Some(serde), Some(new)) = (&self.value_serde, &change.new) {
            self.scratch.clear();
            // A value that cannot be written is reported where it is written.
            if serde.serialize(new, &mut self.scratch).is_ok() {
                self.side_bytes = (3 * self.side_bytes + self.scratch.len()) / 4;
            }
        }
    }
}

impl<K: StoreKey, V: Clone + 'static> Node<K, Change<V>> for EmitPerCommitNode<K, V> {
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, Change<V>>,
    ) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        self.updates += 1;
        self.measure(&value);
        let before = self.held.remove(&key);
        // The first update of the transaction knows what downstream has heard of.
        let old = match &before {
            Some(before) => before.change.old.clone(),
            None => value.old,
        };
        let held = Held {
            number: self.updates,
            change: Change {
                new: value.new,
                old,
            },
            timestamp,
            headers,
            origin: cx.record_metadata().cloned(),
        };
        self.held.insert(key.clone(), held);
        self.undo.push((key, before));
        Ok(())
    }
}

impl<K: StoreKey, V: Clone + 'static> HoldsBack for EmitPerCommitNode<K, V> {
    fn release_savepoint(&mut self) {
        self.undo.clear();
    }

    fn rollback_savepoint(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(before) => drop(self.held.insert(key, before)),
                None => drop(self.held.remove(&key)),
            }
        }
    }

    fn emit_next(&mut self, cx: &mut TaskContext) -> Result<bool, ProcessError> {
        if self.leaving.is_empty() {
            let mut leaving: Vec<_> = self.held.drain().collect();
            leaving.sort_unstable_by_key(|(_, held)| held.number);
            self.leaving = leaving.into();
        }
        let Some((key, held)) = self.leaving.pop_front() else {
            return Ok(false);
        };
        let Held {
            mut change,
            timestamp,
            headers,
            origin,
            ..
        } = held;
        if change.new.is_none() && change.old.is_none() {
            // Made and deleted since the last commit: downstream has never heard of it.
            return Ok(true);
        }
        if !self.send_old {
            change.old = None;
        }
        cx.begin_held(origin, timestamp);
        self.downstream.process(
            cx,
            Record {
                key,
                value: change,
                timestamp,
                headers,
            },
        )?;
        Ok(true)
    }

    fn is_holding(&self) -> bool {
        !self.held.is_empty() || !self.leaving.is_empty()
    }

    fn held_bytes(&self) -> usize {
        let one = size_of::<(K, Held<V>)>() + 2 * self.side_bytes + FIRST_SIDE_BYTES;
        (self.held.len() + self.leaving.len()) * one
    }
}

impl<K: StoreKey, V: Clone + 'static> KTable<K, V> {
    /// Notes that a table whose updates wait for the commit was joined with another table: the other
    /// side's updates would meet values that have not been sent, and take back what never was.
    pub(crate) fn refuse_held_back<K2: StoreKey, V2: Clone + 'static>(
        &self,
        other: &KTable<K2, V2>,
    ) {
        if self.getter.is_held_back() || other.getter.is_held_back() {
            let mut draft = self.updates().draft.borrow_mut();
            draft.graph.mistakes.push(TopologyError::IllegalStore {
                store: "emit_per_commit".to_owned(),
                reason: "a join of tables reads values whose updates are held back; join first, then \
                         call `emit_per_commit`",
            });
        }
    }

    /// Sends one update per key and transaction, at its end, in place of every update at once.
    ///
    /// By default every update goes downstream as it happens, so that results do not depend on when
    /// commits are. This opts in to what Kafka Streams' cache does (`withCachingEnabled`): a hot key
    /// costs its readers one record per commit. The update that leaves has the last value, its
    /// timestamp and headers, and as old value the one of the last commit; a key that was made and
    /// deleted in between leaves nothing. Updates leave before the commit and belong to its
    /// transaction, with all that operators downstream make of them; after an abort nothing of them is
    /// left. How often there is a commit is up to
    /// [`commit.interval`](crate::runtime::RuntimeConfig::commit_interval) and the load.
    ///
    /// A join of tables reads each side's store, which is ahead of updates that wait: `build` refuses a
    /// join of such a table with another one. Join first, then hold back.
    ///
    /// An operator downstream that fails then stops the task: the records behind the update are done,
    /// and no error policy can meet them any more.
    ///
    /// ```
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// builder
    ///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
    ///     .group_by_key(Grouped::as_name("by-word"))
    ///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()))
    ///     .emit_per_commit()
    ///     .to_stream()
    ///     .map_values(|count| count.unwrap_or(0))
    ///     .to("counts-out", Produced::with(serdes::string(), serdes::i64()));
    ///
    /// let mut driver = TopologyTestDriver::builder()
    ///     .records_per_transaction(100)
    ///     .build(builder.build()?)?;
    /// let words = driver.input_topic("words", serdes::string(), serdes::string());
    /// let counts = driver.output_topic("counts-out", serdes::string(), serdes::i64());
    /// let word = |word: &str| Record::new(word.to_owned(), String::new(), 1);
    /// words.pipe_all(&mut driver, &[word("tea"), word("rice"), word("tea")])?;
    /// let expected = [("rice".to_owned(), 1), ("tea".to_owned(), 2)];
    /// assert_eq!(counts.read_key_values(&mut driver)?, expected);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "holding updates back has no effect of its own"]
    pub fn emit_per_commit(&self) -> Self {
        self.refuse_to_hold_back("emit_per_commit");
        let updates = self.updates();
        let node = updates
            .draft
            .borrow_mut()
            .graph
            .add_operator("KTABLE-EMITPERCOMMIT-", vec![updates.parts.node]);
        // Tells an update from one that downstream never hears of.
        self.old_values.request();
        let old_values = self.old_values.child();
        let children = Children::new();
        let keeps = Keeps {
            key_serde: self.key_serde.clone(),
            value_serde: None,
            repartition_required: false,
        };
        let lineage = updates.parts.lineage.clone();
        let emitted = KStream::new(&updates.draft, node, children.clone(), keeps, lineage);
        let mut table = Self::derived(
            emitted,
            self.key_serde.clone(),
            self.value_serde.clone(),
            &old_values,
            self.getter.clone().held_back(),
        );
        table.store = self.store.clone();
        table.skips_unseen = self.skips_unseen;
        let value_serde = self.value_serde.clone();
        updates.parts.children.add(node, move |assembly| {
            let downstream = children.assemble(assembly)?;
            let shared = assembly.shared(node, |_| {
                Ok(EmitPerCommitNode {
                    held: HashMap::new(),
                    undo: Vec::new(),
                    leaving: VecDeque::new(),
                    updates: 0,
                    send_old: old_values.sent(),
                    value_serde: value_serde.clone(),
                    scratch: Vec::new(),
                    side_bytes: FIRST_SIDE_BYTES,
                    downstream,
                })
            })?;
            assembly.hold_back(node, Rc::clone(&shared) as _);
            Ok(Box::new(SharedNode(shared)))
        });
        table
    }
}
