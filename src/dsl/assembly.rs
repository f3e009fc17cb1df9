//! From the drawing to a task: chains are assembled from the sinks upwards.
//!
//! # Position
//! Handles ([`KStream`](super::KStream) …) collect typed [`ChildFactory`]s; a task's assembly calls
//! those of its sources, which call those of their children, and so on. The result is monomorphised
//! operators with one dynamic call between two of them.
//! # Invariants
//! - `Any` is used here only, while a task is assembled: for instances that several parents share
//!   and for stores. No record passes through it.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::processor::{Downstream, HoldsBack, Node, ProcessorNode, SourceNode};
use crate::state::{StateError, StateStore};
use crate::topology::{NodeId, ResolvedTopic, StoreId, TaskEnv, TopicRef};

/// Makes one operator of a task, with everything downstream of it.
pub(crate) type ChildFactory<K, V> =
    Box<dyn Fn(&mut Assembly<'_>) -> Result<Box<dyn Node<K, V>>, StateError> + Send + Sync>;

/// Makes one source of a task, with everything downstream of it.
pub(crate) type SourceFactory =
    Box<dyn Fn(&mut Assembly<'_>) -> Result<Box<dyn SourceNode>, StateError> + Send + Sync>;

/// Makes one store of a task, with its share of the cache in bytes.
pub(crate) type StoreFactory =
    Box<dyn Fn(&mut TaskEnv, usize) -> Result<StoreInstance, StateError> + Send + Sync>;

/// A store of a task: as its operators see it (`StoreRef<K, V>`), and as the task does.
pub(crate) struct StoreInstance {
    pub(crate) typed: Box<dyn Any>,
    pub(crate) store: Rc<RefCell<dyn StateStore>>,
}

/// The operators that an author attached to a stream.
pub(crate) struct Children<K, V>(Attached<K, V>);

/// Each child's node, whose name is known once the topology is built, and how it is made.
type Attached<K, V> = Arc<Mutex<Vec<(NodeId, ChildFactory<K, V>)>>>;

impl<K, V> Clone for Children<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Children<K, V> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    fn factories(&self) -> MutexGuard<'_, Vec<(NodeId, ChildFactory<K, V>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches the operator that the graph calls `node`.
    pub(crate) fn add(
        &self,
        node: NodeId,
        factory: impl Fn(&mut Assembly<'_>) -> Result<Box<dyn Node<K, V>>, StateError>
        + Send
        + Sync
        + 'static,
    ) {
        self.factories().push((node, Box::new(factory)));
    }

    /// Makes the children of a task.
    pub(crate) fn assemble(
        &self,
        assembly: &mut Assembly<'_>,
    ) -> Result<Downstream<K, V>, StateError> {
        let mut nodes = Vec::new();
        let mut names = Vec::new();
        for (node, child) in self.factories().iter() {
            nodes.push(child(assembly)?);
            names.push(assembly.name(*node));
        }
        Ok(Downstream::named(nodes, names))
    }
}

/// What factories need while a task is made.
pub struct Assembly<'a> {
    env: &'a TaskEnv,
    /// By node id.
    names: &'a [Arc<str>],
    stores: &'a BTreeMap<StoreId, StoreInstance>,
    shared: HashMap<NodeId, Rc<dyn Any>>,
    /// By node id: the position in [`Self::processors`].
    processor_index: &'a HashMap<NodeId, usize>,
    processors: Vec<Option<Rc<RefCell<dyn ProcessorNode>>>>,
    /// In the order of the graph.
    holding: BTreeMap<NodeId, Rc<RefCell<dyn HoldsBack>>>,
}

/// The nodes of a task that its runtime calls, beside the sources.
pub(crate) struct Called {
    pub(crate) processors: Vec<Rc<RefCell<dyn ProcessorNode>>>,
    pub(crate) holding: Vec<Rc<RefCell<dyn HoldsBack>>>,
}

impl fmt::Debug for Assembly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembly")
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(
        env: &'a TaskEnv,
        names: &'a [Arc<str>],
        stores: &'a BTreeMap<StoreId, StoreInstance>,
        processor_index: &'a HashMap<NodeId, usize>,
    ) -> Self {
        let mut processors = Vec::new();
        processors.resize_with(processor_index.len(), || None);
        Self {
            env,
            names,
            stores,
            shared: HashMap::new(),
            processor_index,
            processors,
            holding: BTreeMap::new(),
        }
    }

    pub(crate) fn env(&self) -> &TaskEnv {
        self.env
    }

    pub(crate) fn name(&self, node: NodeId) -> Arc<str> {
        self.names
            .get(node.0)
            .map_or_else(|| Arc::from(""), Arc::clone)
    }

    /// Returns where a sink's topic is.
    pub(crate) fn topic(&self, topic: &TopicRef) -> ResolvedTopic {
        let resolved = self.env.topics.get(topic).cloned();
        assert!(
            resolved.is_some(),
            "the runtime resolves every topic of `SubTopology::sinks`"
        );
        resolved.unwrap_or_else(|| unreachable!())
    }

    /// Returns the one instance of a node that several parents lead to.
    pub(crate) fn shared<T: 'static>(
        &mut self,
        node: NodeId,
        make: impl FnOnce(&mut Self) -> Result<T, StateError>,
    ) -> Result<Rc<RefCell<T>>, StateError> {
        if let Some(instance) = self.shared.get(&node) {
            let typed = Rc::clone(instance).downcast::<RefCell<T>>();
            return Ok(typed.unwrap_or_else(|_| unreachable!("a node has one type")));
        }
        let instance = Rc::new(RefCell::new(make(self)?));
        let erased: Rc<dyn Any> = Rc::<RefCell<T>>::clone(&instance);
        self.shared.insert(node, erased);
        Ok(instance)
    }

    /// Returns a store of this task by its typed handle's id.
    pub(crate) fn store<S: Clone + 'static>(&self, id: StoreId) -> S {
        let typed = self
            .stores
            .get(&id)
            .and_then(|store| store.typed.downcast_ref::<S>());
        typed
            .unwrap_or_else(|| unreachable!("a connected store is in its sub-topology"))
            .clone()
    }

    /// Returns a processor's position among the task's processors.
    pub(crate) fn processor_index(&self, node: NodeId) -> usize {
        let index = self.processor_index.get(&node).copied();
        index.unwrap_or_else(|| unreachable!("a processor is in its sub-topology"))
    }

    pub(crate) fn register(&mut self, index: usize, processor: Rc<RefCell<dyn ProcessorNode>>) {
        let slot = self.processors.get_mut(index);
        let before = slot.and_then(|slot| slot.replace(processor));
        assert!(before.is_none(), "a processor is made once per task");
    }

    /// Registers a node that is emptied before each commit.
    pub(crate) fn hold_back(&mut self, node: NodeId, holding: Rc<RefCell<dyn HoldsBack>>) {
        self.holding.insert(node, holding);
    }

    pub(crate) fn into_called(self) -> Called {
        let expected = self.processors.len();
        let processors: Vec<_> = self.processors.into_iter().flatten().collect();
        assert!(
            processors.len() == expected,
            "every processor of a sub-topology is reachable"
        );
        Called {
            processors,
            holding: self.holding.into_values().collect(),
        }
    }
}
