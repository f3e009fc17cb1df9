//! Processors written by hand, and the stores they are connected to.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::assembly::{Assembly, Children};
use super::builder::{SharedDraft, StoreHandle, StoreKey};
use super::stream::KStream;
use crate::metrics::TaskMetrics;
use crate::processor::{
    BoxError, Downstream, Init, Node, ProcessError, Processor, ProcessorContext, ProcessorNode,
    Punctuation, Record, SharedNode, TaskContext,
};
use crate::state::StoreRef;
use crate::topology::{GraphNode, NodeKind, StoreId, TaskId};

/// What a processor is told when it is made.
#[derive(Debug, Clone)]
pub struct ProcessorSetup {
    task: TaskId,
    partitions: i32,
    metrics: Option<TaskMetrics>,
}

impl ProcessorSetup {
    /// Returns the task.
    #[must_use]
    pub const fn task(&self) -> TaskId {
        self.task
    }

    /// Returns the partition that the task owns of every source topic.
    #[must_use]
    pub const fn partition(&self) -> i32 {
        self.task.partition
    }

    /// Returns how many tasks, over all processes, do what this one does: one for each partition.
    #[must_use]
    pub const fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Returns the task's metrics; `None` where nobody reads them.
    #[must_use]
    pub const fn metrics(&self) -> Option<&TaskMetrics> {
        self.metrics.as_ref()
    }
}

/// A handle of a store of any kind; sealed.
pub trait Store: sealed::Store {}

impl<S: sealed::Store> Store for S {}

/// Stores that a processor is connected to: a tuple of up to six handles, each a value, a reference, or
/// an `Option` of either. The supplier gets the tuple of their references. Sealed.
pub trait Stores: sealed::Stores {}

impl<S: sealed::Stores> Stores for S {}

pub(crate) mod sealed {
    use super::{Assembly, SharedDraft, StoreId};

    /// The crate's side of a store handle.
    pub trait Store {
        /// What operators get: a shared reference to the task's store.
        type Ref: 'static;
        /// The builder's draft, the id, the name.
        fn parts(&self) -> (&SharedDraft, StoreId, &str);
        /// Finds the typed store of the task that is being made.
        fn resolve(assembly: &Assembly<'_>, id: StoreId) -> Self::Ref;
    }

    /// A place in a tuple of store handles: a handle, or one that need not be there.
    pub trait Place {
        /// What operators get.
        type Ref: 'static;
        /// As [`Store::parts`], where there is a store.
        fn parts(&self) -> Option<(&SharedDraft, StoreId, &str)>;
        /// As [`Store::resolve`]; the id is what `parts` told.
        fn resolve(assembly: &Assembly<'_>, id: Option<StoreId>) -> Self::Ref;
    }

    /// The crate's side of a tuple of store handles. The compiler names this trait, not the public
    /// one, where something else is passed.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` are not stores that a processor can be connected to",
        note = "pass a tuple of store handles, such as `(&balances, &history)`, `(&balances,)` or `()`"
    )]
    pub trait Stores {
        /// The references that the supplier gets, in the same order.
        type Refs: 'static;
        /// Of each place.
        fn parts(&self) -> Vec<Option<(&SharedDraft, StoreId, &str)>>;
        /// Finds the typed stores of the task that is being made.
        fn resolve(assembly: &Assembly<'_>, ids: &[Option<StoreId>]) -> Self::Refs;
    }
}

impl<K: StoreKey, V: Clone + 'static> sealed::Store for StoreHandle<K, V> {
    type Ref = StoreRef<K, V>;

    fn parts(&self) -> (&SharedDraft, StoreId, &str) {
        (&self.draft, self.id, &self.name)
    }

    fn resolve(assembly: &Assembly<'_>, id: StoreId) -> Self::Ref {
        assembly.store(id)
    }
}

impl<S: sealed::Store> sealed::Store for &S {
    type Ref = S::Ref;

    fn parts(&self) -> (&SharedDraft, StoreId, &str) {
        S::parts(self)
    }

    fn resolve(assembly: &Assembly<'_>, id: StoreId) -> Self::Ref {
        S::resolve(assembly, id)
    }
}

impl<S: sealed::Store> sealed::Place for S {
    type Ref = S::Ref;

    fn parts(&self) -> Option<(&SharedDraft, StoreId, &str)> {
        Some(sealed::Store::parts(self))
    }

    fn resolve(assembly: &Assembly<'_>, id: Option<StoreId>) -> Self::Ref {
        let Some(id) = id else {
            unreachable!("a handle has an id")
        };
        <S as sealed::Store>::resolve(assembly, id)
    }
}

impl<S: sealed::Store> sealed::Place for Option<S> {
    type Ref = Option<S::Ref>;

    fn parts(&self) -> Option<(&SharedDraft, StoreId, &str)> {
        self.as_ref().map(sealed::Store::parts)
    }

    fn resolve(assembly: &Assembly<'_>, id: Option<StoreId>) -> Self::Ref {
        id.map(|id| <S as sealed::Store>::resolve(assembly, id))
    }
}

impl sealed::Stores for () {
    type Refs = ();

    fn parts(&self) -> Vec<Option<(&SharedDraft, StoreId, &str)>> {
        Vec::new()
    }

    fn resolve(_assembly: &Assembly<'_>, _ids: &[Option<StoreId>]) {}
}

macro_rules! stores_as_tuple {
    ($($store:ident $id:ident $index:tt),*) => {
        impl<$($store: sealed::Place),*> sealed::Stores for ($($store,)*) {
            type Refs = ($($store::Ref,)*);

            fn parts(&self) -> Vec<Option<(&SharedDraft, StoreId, &str)>> {
                vec![$(sealed::Place::parts(&self.$index)),*]
            }

            fn resolve(assembly: &Assembly<'_>, ids: &[Option<StoreId>]) -> Self::Refs {
                let [$($id),*] = *ids else { unreachable!("one id per place") };
                ($($store::resolve(assembly, $id),)*)
            }
        }
    };
}

stores_as_tuple!(A a 0);
stores_as_tuple!(A a 0, B b 1);
stores_as_tuple!(A a 0, B b 1, C c 2);
stores_as_tuple!(A a 0, B b 1, C c 2, D d 3);
stores_as_tuple!(A a 0, B b 1, C c 2, D d 3, E e 4);
stores_as_tuple!(A a 0, B b 1, C c 2, D d 3, E e 4, F f 5);

struct ProcessorInstance<P, KIn, VIn, KOut, VOut> {
    name: Arc<str>,
    index: usize,
    processor: P,
    downstream: Downstream<KOut, VOut>,
    input: PhantomData<fn(KIn, VIn)>,
}

impl<P, KIn, VIn, KOut, VOut> ProcessorInstance<P, KIn, VIn, KOut, VOut>
where
    P: Processor<KIn, VIn, KOut, VOut>,
{
    /// Calls user code. The error of a downstream operator outranks what the processor made of it.
    fn call<R>(
        &mut self,
        cx: &mut TaskContext,
        call: impl FnOnce(&mut P, &mut ProcessorContext<'_, KOut, VOut>) -> Result<R, BoxError>,
    ) -> Result<R, ProcessError> {
        let mut context = ProcessorContext::new(cx, self.index, &mut self.downstream);
        let result = call(&mut self.processor, &mut context);
        match (context.into_failure(), result) {
            (Some(failure), _) => Err(failure),
            (None, Ok(result)) => Ok(result),
            (None, Err(error)) => Err(failure(&self.name, error)),
        }
    }
}

#[cold]
fn failure(name: &str, error: BoxError) -> ProcessError {
    match error.downcast() {
        Ok(state) => ProcessError::State(*state),
        Err(source) => ProcessError::Processing {
            node: name.to_owned(),
            source,
        },
    }
}

impl<P, KIn, VIn, KOut, VOut> Node<KIn, VIn> for ProcessorInstance<P, KIn, VIn, KOut, VOut>
where
    P: Processor<KIn, VIn, KOut, VOut>,
{
    fn process(
        &mut self,
        cx: &mut TaskContext,
        record: Record<KIn, VIn>,
    ) -> Result<(), ProcessError> {
        self.call(cx, |processor, context| processor.process(context, record))
    }
}

impl<P, KIn, VIn, KOut, VOut> ProcessorNode for ProcessorInstance<P, KIn, VIn, KOut, VOut>
where
    P: Processor<KIn, VIn, KOut, VOut>,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn init(&mut self, cx: &mut TaskContext) -> Result<Init, ProcessError> {
        self.call(cx, Processor::init)
    }

    fn punctuate(
        &mut self,
        cx: &mut TaskContext,
        punctuation: Punctuation,
    ) -> Result<(), ProcessError> {
        self.call(cx, |processor, context| {
            processor.punctuate(context, punctuation)
        })
    }

    fn close(&mut self) {
        self.processor.close();
    }
}

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Processes records with a [`Processor`] written by hand (KIP-820).
    ///
    /// `supplier` makes one instance per task, also when the stream is a
    /// [`merge`](Self::merge), and gets the task's `stores` typed: no lookup by name, no cast.
    /// Processors that share a store run in the same task. The key may change.
    ///
    /// ```
    /// use millstream::prelude::*;
    ///
    /// struct Deduplicate {
    ///     seen: StoreRef<String, i64>,
    /// }
    ///
    /// impl Processor<String, String, String, String> for Deduplicate {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, String>,
    ///         record: Record<String, String>,
    ///     ) -> Result<(), BoxError> {
    ///         if self.seen.get(&record.key)?.is_none() {
    ///             self.seen.put(record.key.clone(), record.timestamp)?;
    ///             context.forward(record)?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let seen = builder
    ///     .add_state_store(StoreBuilder::as_store("seen", serdes::string(), serdes::i64()));
    /// builder
    ///     .stream("orders", Consumed::with(serdes::string(), serdes::string()))
    ///     .process("deduplicate", (&seen,), |_setup, (seen,)| Deduplicate { seen })
    ///     .to("orders-once", Produced::with(serdes::string(), serdes::string()));
    /// println!("{}", builder.build()?.describe());
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn process<KOut, VOut, S, P>(
        &self,
        name: &str,
        stores: S,
        supplier: impl Fn(&ProcessorSetup, S::Refs) -> P + Send + Sync + 'static,
    ) -> KStream<KOut, VOut>
    where
        KOut: Clone + 'static,
        VOut: Clone + 'static,
        S: Stores,
        P: Processor<K, V, KOut, VOut> + 'static,
    {
        let mut ids = Vec::new();
        for part in stores.parts() {
            if let Some((draft, _, store)) = part {
                // Noted as a mistake: `build` fails, so that the id is never used.
                self.is_foreign(draft, store);
            }
            ids.push(part.map(|(_, id, _)| id));
        }
        let mut distinct: Vec<StoreId> = ids.iter().copied().flatten().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let mut draft = self.draft.borrow_mut();
        let node = draft.graph.add(GraphNode {
            name: String::new(),
            named: true,
            kind: NodeKind::Operator { processor: true },
            parents: vec![self.parts.node],
            stores: distinct,
        });
        draft.graph.rename(node, name);
        drop(draft);
        let children = Children::new();
        let downstream = children.clone();
        self.parts.children.add(node, move |assembly| {
            let index = assembly.processor_index(node);
            let env = assembly.env();
            let setup = ProcessorSetup {
                task: env.task,
                partitions: env.partitions,
                metrics: env.metrics.clone(),
            };
            let instance = Rc::new(RefCell::new(ProcessorInstance {
                name: assembly.name(node),
                index,
                processor: supplier(&setup, S::resolve(assembly, &ids)),
                downstream: downstream.assemble(assembly)?,
                input: PhantomData,
            }));
            let erased: Rc<RefCell<dyn ProcessorNode>> = Rc::clone(&instance) as _;
            assembly.register(index, erased);
            Ok(Box::new(SharedNode(instance)))
        });
        let lineage = self.parts.lineage.clone();
        KStream::new(&self.draft, node, children, Self::keeps_nothing(), lineage)
    }
}
