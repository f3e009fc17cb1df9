//! What comes after an operator within a task.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::{Node, ProcessError, Record, TaskContext};

/// The operators after an operator, in the order the author attached them. A record is cloned only
/// when there is more than one.
pub struct Downstream<K, V> {
    kind: Kind<K, V>,
    /// The nodes' names in order, for a forward to one of them.
    names: Box<[Arc<str>]>,
}

enum Kind<K, V> {
    Nothing,
    One(Box<dyn Node<K, V>>),
    /// The last one gets the record itself, the others clones.
    Many {
        first: Vec<Box<dyn Node<K, V>>>,
        last: Box<dyn Node<K, V>>,
    },
}

impl<K, V> Downstream<K, V> {
    /// Puts operators together.
    #[must_use]
    pub fn new(nodes: Vec<Box<dyn Node<K, V>>>) -> Self {
        Self::named(nodes, Vec::new())
    }

    /// Puts operators together that a forward may name.
    #[must_use]
    pub fn named(mut nodes: Vec<Box<dyn Node<K, V>>>, names: Vec<Arc<str>>) -> Self {
        let kind = match nodes.pop() {
            None => Kind::Nothing,
            Some(last) if nodes.is_empty() => Kind::One(last),
            Some(last) => Kind::Many { first: nodes, last },
        };
        let names = names.into_boxed_slice();
        Self { kind, names }
    }

    /// Returns whether nobody reads what is forwarded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Nothing)
    }
}

impl<K: Clone, V: Clone> Downstream<K, V> {
    /// Hands a record on; stops at the first operator that fails.
    ///
    /// # Errors
    /// As [`Node::process`].
    #[inline]
    pub fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, V>,
    ) -> Result<(), ProcessError> {
        match &mut self.kind {
            Kind::Nothing => Ok(()),
            Kind::One(node) => node.process(cx, record),
            Kind::Many { first, last } => {
                for node in first {
                    node.process(cx, record.clone())?;
                }
                last.process(cx, record)
            }
        }
    }

    /// Hands a record on whose timestamp may differ from the one in progress: stores downstream
    /// write with the record's.
    ///
    /// # Errors
    /// As [`Node::process`].
    pub fn process_at(
        &mut self,
        cx: &mut TaskContext,
        record: Record<K, V>,
    ) -> Result<(), ProcessError> {
        let before = cx.set_timestamp(record.timestamp);
        let result = self.process(cx, record);
        cx.set_timestamp(before);
        result
    }
}

impl<K, V> Downstream<K, V> {
    /// As [`process_at`](Self::process_at), to the operator of that name alone; `None` where there is
    /// none.
    pub(crate) fn process_to(
        &mut self,
        cx: &mut TaskContext,
        name: &str,
        record: Record<K, V>,
    ) -> Option<Result<(), ProcessError>> {
        let index = self.names.iter().position(|child| **child == *name)?;
        let node = match &mut self.kind {
            Kind::Nothing => return None,
            Kind::One(node) => node,
            Kind::Many { first, last } => first.get_mut(index).unwrap_or(last),
        };
        let before = cx.set_timestamp(record.timestamp);
        let result = node.process(cx, record);
        cx.set_timestamp(before);
        Some(result)
    }
}

impl<K, V> fmt::Debug for Downstream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = match &self.kind {
            Kind::Nothing => 0,
            Kind::One(_) => 1,
            Kind::Many { first, .. } => first.len() + 1,
        };
        f.debug_struct("Downstream").field("nodes", &nodes).finish()
    }
}

/// A node instance that several operators of a task lead to: one instance per task, whatever way a
/// record takes to it. The graph has no cycles, so a node is never entered while it is busy.
pub(crate) struct SharedNode<N>(pub(crate) Rc<RefCell<N>>);

impl<K, V, N: Node<K, V>> Node<K, V> for SharedNode<N> {
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        self.0.borrow_mut().process(cx, record)
    }
}

impl<K: Clone, V: Clone> Node<K, V> for Downstream<K, V> {
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        Self::process(self, cx, record)
    }
}
