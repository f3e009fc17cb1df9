//! Streams that come together and part: `merge`, `split`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::assembly::Children;
use super::stream::{KStream, Keeps};
use crate::processor::{Downstream, Node, ProcessError, Record, SharedNode, TaskContext};
use crate::topology::NodeId;

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Puts the records of both streams into one, with no order between them. What follows exists
    /// once per task. Error policies of topics drawn downstream are this stream's.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let more = builder.stream("more", Consumed::with(serdes::string(), serdes::string()));
    /// let all = words.merge(&more);
    /// # all.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "merging has no effect of its own"]
    pub fn merge(&self, other: &Self) -> Self {
        if self.is_foreign(&other.draft, "merged stream") {
            return self.clone();
        }
        let parents = vec![self.parts.node, other.parts.node];
        let node = self
            .draft
            .borrow_mut()
            .graph
            .add_operator("KSTREAM-MERGE-", parents);
        let children = Children::new();
        for parent in [self, other] {
            let downstream = children.clone();
            parent.parts.children.add(node, move |assembly| {
                let shared = assembly.shared(node, |assembly| downstream.assemble(assembly))?;
                Ok(Box::new(SharedNode(shared)))
            });
        }
        // Serdes stay only where both streams have some: a record of either must be writable.
        let keeps = Keeps {
            key_serde: self
                .parts
                .key_serde
                .clone()
                .filter(|_| other.parts.key_serde.is_some()),
            value_serde: self
                .parts
                .value_serde
                .clone()
                .filter(|_| other.parts.value_serde.is_some()),
            repartition_required: self.parts.repartition_required
                || other.parts.repartition_required,
        };
        let mut lineage = self.parts.lineage.clone();
        lineage.rewindable &= other.parts.lineage.rewindable;
        Self::new(&self.draft, node, children, keeps, lineage)
    }

    /// Parts the stream: each record goes to the first branch whose predicate holds (KIP-418).
    ///
    /// Kafka Streams collects the branches in a map by name; here each call returns its branch.
    ///
    /// ```
    /// use millstream::prelude::*;
    ///
    /// let builder = StreamsBuilder::new();
    /// let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// let mut split = orders.split();
    /// let large = split.branch(|_, amount| *amount > 1000);
    /// let small = split.branch(|_, amount| *amount > 0);
    /// let odd = split.default_branch();
    /// large.to("large", Produced::with(serdes::string(), serdes::i64()));
    /// small.to("small", Produced::with(serdes::string(), serdes::i64()));
    /// odd.to("odd", Produced::with(serdes::string(), serdes::i64()));
    /// println!("{}", builder.build()?.describe());
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "a split does nothing without branches"]
    pub fn split(&self) -> BranchedKStream<K, V> {
        let node = self
            .draft
            .borrow_mut()
            .graph
            .add_operator("KSTREAM-BRANCH-", vec![self.parts.node]);
        let branches: SharedBranches<K, V> = Arc::default();
        let shared = Arc::clone(&branches);
        self.parts.children.add(node, move |assembly| {
            let mut instances = Vec::new();
            for branch in shared.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let predicate = branch.predicate.clone();
                instances.push((predicate, branch.children.assemble(assembly)?));
            }
            Ok(Box::new(BranchNode {
                branches: instances,
            }))
        });
        BranchedKStream {
            stream: self.clone(),
            node,
            branches,
        }
    }
}

type Predicate<K, V> = Arc<dyn Fn(&K, &V) -> bool + Send + Sync>;

/// `None` takes everything.
struct Branch<K, V> {
    predicate: Option<Predicate<K, V>>,
    children: Children<K, V>,
}

type SharedBranches<K, V> = Arc<Mutex<Vec<Branch<K, V>>>>;

type BranchInstance<K, V> = (Option<Predicate<K, V>>, Downstream<K, V>);

struct BranchNode<K, V> {
    branches: Vec<BranchInstance<K, V>>,
}

impl<K: Clone, V: Clone> Node<K, V> for BranchNode<K, V> {
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        for (predicate, downstream) in &mut self.branches {
            if predicate
                .as_ref()
                .is_none_or(|holds| holds(&record.key, &record.value))
            {
                return downstream.process(cx, record);
            }
        }
        Ok(())
    }
}

/// A stream that is being parted.
pub struct BranchedKStream<K, V> {
    stream: KStream<K, V>,
    node: NodeId,
    branches: SharedBranches<K, V>,
}

impl<K, V> fmt::Debug for BranchedKStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BranchedKStream")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl<K: Clone + 'static, V: Clone + 'static> BranchedKStream<K, V> {
    /// Adds a branch for the records that no earlier one has taken and for which `predicate` holds.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// # let numbers = || Produced::with(serdes::string(), serdes::i64());
    /// let mut split = orders.split();
    /// split.branch(|_, amount| *amount > 1000).to("large", numbers());
    /// split.branch(|_, amount| *amount > 10).to("medium", numbers());
    /// split.default_branch().to("small", numbers());
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn branch(
        &mut self,
        predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
    ) -> KStream<K, V> {
        self.add(Some(Arc::new(predicate)))
    }

    /// Ends the split: the branch of all records that no other has taken.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// # let numbers = || Produced::with(serdes::string(), serdes::i64());
    /// let mut split = orders.split();
    /// split.branch(|_, amount| *amount > 1000).to("large", numbers());
    /// split.default_branch().to("others", numbers());
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn default_branch(mut self) -> KStream<K, V> {
        self.add(None)
    }

    /// Ends the split: records that no branch has taken are dropped.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    /// # let numbers = || Produced::with(serdes::string(), serdes::i64());
    /// let mut split = orders.split();
    /// split.branch(|_, amount| *amount > 1000).to("large", numbers());
    /// split.no_default_branch();
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn no_default_branch(self) {}

    fn add(&mut self, predicate: Option<Predicate<K, V>>) -> KStream<K, V> {
        let stream = &self.stream;
        let node = stream
            .draft
            .borrow_mut()
            .graph
            .add_operator("KSTREAM-BRANCHCHILD-", vec![self.node]);
        let children = Children::new();
        let branch = Branch {
            predicate,
            children: children.clone(),
        };
        self.branches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(branch);
        let lineage = stream.parts.lineage.clone();
        KStream::new(&stream.draft, node, children, stream.keeps_all(), lineage)
    }
}
