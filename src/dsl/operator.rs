//! The instance of an operator without state of its own.

use std::sync::Arc;

use crate::processor::{BoxError, Downstream, Node, ProcessError, Record, TaskContext};

/// What an operation may do with a record.
pub(crate) struct Scope<'a, K, V> {
    name: &'a Arc<str>,
    cx: &'a mut TaskContext,
    downstream: &'a mut Downstream<K, V>,
}

impl<K: Clone, V: Clone> Scope<'_, K, V> {
    /// Hands on a record with the timestamp of the one in progress.
    #[inline]
    pub(crate) fn forward(&mut self, record: Record<K, V>) -> Result<(), ProcessError> {
        self.downstream.process(self.cx, record)
    }

    /// Hands on a record that may have another timestamp.
    #[inline]
    pub(crate) fn forward_at(&mut self, record: Record<K, V>) -> Result<(), ProcessError> {
        self.downstream.process_at(self.cx, record)
    }

    /// Hands on a record of a stream: it is no update of a table any more.
    pub(crate) fn forward_latest(&mut self, record: Record<K, V>) -> Result<(), ProcessError> {
        let before = self.cx.set_latest(true);
        let result = self.downstream.process(self.cx, record);
        self.cx.set_latest(before);
        result
    }

    /// Returns whether the update in progress is its key's latest: see [`TaskContext::is_latest`].
    pub(crate) const fn is_latest(&self) -> bool {
        self.cx.is_latest()
    }

    /// Returns the task's partition.
    pub(crate) const fn partition(&self) -> i32 {
        self.cx.task().partition
    }

    /// See [`TaskContext::drop_record`].
    pub(crate) const fn drop_record(&mut self) {
        self.cx.drop_record();
    }

    /// The node's name.
    pub(crate) fn name(&self) -> &str {
        self.name
    }

    #[cold]
    pub(crate) fn failure(&self, source: BoxError) -> ProcessError {
        ProcessError::Processing {
            node: self.name.to_string(),
            source,
        }
    }
}

/// An operator: monomorphised code, shared by all tasks, and this task's downstream.
pub(crate) struct OperatorNode<F, K2, V2> {
    pub(crate) name: Arc<str>,
    pub(crate) operation: Arc<F>,
    pub(crate) downstream: Downstream<K2, V2>,
}

impl<K, V, K2, V2, F> Node<K, V> for OperatorNode<F, K2, V2>
where
    F: Fn(&mut Scope<'_, K2, V2>, Record<K, V>) -> Result<(), ProcessError>,
{
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        let mut scope = Scope {
            name: &self.name,
            cx,
            downstream: &mut self.downstream,
        };
        (self.operation)(&mut scope, record)
    }
}
