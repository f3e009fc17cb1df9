//! Stores of the author's own making.
//!
//! # Position
//! An author writes what operators see, and a [`StateStore`] for the task; committed bytes, changelog,
//! restore and queries are those of every other store. Kafka Streams' custom `StateStore`, less its
//! own files: what a store keeps lies in the task's database, in the same batch as the offsets it
//! belongs to, and that is what makes it exactly once.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::assembly::{Assembly, StoreFactory, StoreInstance};
use super::builder::{SharedDraft, StoreKey, StreamsBuilder};
use super::config::{SharedSerde, StoreBuilder};
use super::process::sealed;
use crate::clock::Timestamp;
use crate::state::{BytesStore, Layout, StateError, StateStore};
use crate::topology::{StoreId, StoreSpec, TaskId};

/// A store that its author wrote: a cheap handle that operators share, such as an `Rc<RefCell<..>>`.
pub trait CustomStore: Clone + 'static {
    /// Returns the same store as its task sees it.
    fn state_store(&self) -> Rc<RefCell<dyn StateStore>>;
}

/// What a custom store of one task is made of.
pub struct StoreContext<K, V> {
    /// The store's name, which [`StateStore::name`] returns.
    pub name: String,
    /// The task.
    pub task: TaskId,
    /// What is committed: values behind their timestamps
    /// ([`format::value`](crate::format::value)). It changes when a commit is applied, and is
    /// restored when the store is made.
    pub backend: Box<dyn BytesStore>,
    /// The timestamp of what is being processed.
    pub timestamp: Rc<Cell<Timestamp>>,
    /// The serde of keys.
    pub key_serde: SharedSerde<K>,
    /// The serde of values.
    pub value_serde: SharedSerde<V>,
    /// What the store may keep in memory of committed entries.
    pub cache_bytes: usize,
}

impl<K, V> fmt::Debug for StoreContext<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreContext")
            .field("name", &self.name)
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}

/// A custom store of a topology that is being drawn.
pub struct CustomStoreHandle<S> {
    draft: SharedDraft,
    id: StoreId,
    name: String,
    store: PhantomData<fn() -> S>,
}

impl<S> CustomStoreHandle<S> {
    /// Returns the store's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<S> Clone for CustomStoreHandle<S> {
    fn clone(&self) -> Self {
        Self {
            draft: Rc::clone(&self.draft),
            id: self.id,
            name: self.name.clone(),
            store: PhantomData,
        }
    }
}

impl<S> fmt::Debug for CustomStoreHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomStoreHandle")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<S: CustomStore> sealed::Store for CustomStoreHandle<S> {
    type Ref = S;

    fn parts(&self) -> (&SharedDraft, StoreId, &str) {
        (&self.draft, self.id, &self.name)
    }

    fn resolve(assembly: &Assembly<'_>, id: StoreId) -> Self::Ref {
        assembly.store(id)
    }
}

impl StreamsBuilder {
    /// Adds a store of the author's own making for [`process`](super::KStream::process) to connect.
    ///
    /// `make` is called for each task, when its committed bytes are restored, and again after an
    /// abort. `store` says where they lie, whether there is a changelog, and how queries read keys and
    /// values; a [`ttl`](StoreBuilder::ttl) is refused.
    ///
    /// The task calls the [`StateStore`]: after each record `release_savepoint` or
    /// `rollback_savepoint`, at a commit `drain_dirty`, whose entries go to the changelog and, once
    /// the transaction has committed, to the backend; then `mark_committed`.
    ///
    /// ```
    /// use std::cell::{Cell, RefCell};
    /// use std::collections::BTreeMap;
    /// use std::rc::Rc;
    ///
    /// use millstream::dsl::{CustomStore, StoreContext};
    /// use millstream::format::value;
    /// use millstream::prelude::*;
    /// use millstream::state::{BytesStore, DirtySink, StateStore};
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// /// The highest number of each key. A number that is no higher costs nothing at the commit.
    /// struct Highest {
    ///     name: String,
    ///     committed: Box<dyn BytesStore>,
    ///     uncommitted: BTreeMap<Vec<u8>, (i64, Timestamp)>,
    ///     undo: Vec<(Vec<u8>, Option<(i64, Timestamp)>)>,
    ///     now: Rc<Cell<Timestamp>>,
    /// }
    ///
    /// impl Highest {
    ///     /// Takes a number into account; returns the highest of its key.
    ///     fn raise(&mut self, key: &str, number: i64) -> Result<i64, StateError> {
    ///         let key = key.as_bytes().to_vec();
    ///         let before = self.uncommitted.get(&key).copied();
    ///         let highest = match before {
    ///             Some((highest, _)) => Some(highest),
    ///             None => self.committed.get(&key)?.and_then(|bytes| {
    ///                 let (_, plain) = value::decode(&bytes)?;
    ///                 Some(i64::from_be_bytes(plain.try_into().ok()?))
    ///             }),
    ///         };
    ///         if highest.is_some_and(|highest| highest >= number) {
    ///             return Ok(highest.unwrap_or(number));
    ///         }
    ///         self.uncommitted.insert(key.clone(), (number, self.now.get()));
    ///         self.undo.push((key, before));
    ///         Ok(number)
    ///     }
    /// }
    ///
    /// impl StateStore for Highest {
    ///     fn name(&self) -> &str {
    ///         &self.name
    ///     }
    ///     fn release_savepoint(&mut self) {
    ///         self.undo.clear();
    ///     }
    ///     fn rollback_savepoint(&mut self) {
    ///         while let Some((key, before)) = self.undo.pop() {
    ///             match before {
    ///                 Some(before) => self.uncommitted.insert(key, before),
    ///                 None => self.uncommitted.remove(&key),
    ///             };
    ///         }
    ///     }
    ///     fn drain_dirty(&mut self, sink: &mut dyn DirtySink) -> Result<(), StateError> {
    ///         self.uncommitted
    ///             .iter()
    ///             .try_for_each(|(key, (number, time))| {
    ///                 sink.entry(key, Some(&number.to_be_bytes()), *time)
    ///             })
    ///     }
    ///     fn mark_committed(&mut self) {
    ///         self.uncommitted.clear();
    ///     }
    ///     fn discard_uncommitted(&mut self) {
    ///         self.uncommitted.clear();
    ///     }
    ///     fn uncommitted_bytes(&self) -> usize {
    ///         self.uncommitted.keys().map(|key| key.len() + 64).sum()
    ///     }
    ///     fn is_dirty(&self) -> bool {
    ///         !self.uncommitted.is_empty()
    ///     }
    /// }
    ///
    /// #[derive(Clone)]
    /// struct HighestRef(Rc<RefCell<Highest>>);
    ///
    /// impl CustomStore for HighestRef {
    ///     fn state_store(&self) -> Rc<RefCell<dyn StateStore>> {
    ///         self.0.clone()
    ///     }
    /// }
    ///
    /// struct Bids(HighestRef);
    ///
    /// impl Processor<String, i64, String, i64> for Bids {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, i64>,
    ///         record: Record<String, i64>,
    ///     ) -> Result<(), BoxError> {
    ///         let highest = self.0.0.borrow_mut().raise(&record.key, record.value)?;
    ///         if record.value < 0 {
    ///             return Err("no bid".into());
    ///         }
    ///         Ok(context.forward(record.with_value(highest))?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let highest = builder.add_custom_store(
    ///     StoreBuilder::as_store("highest", serdes::string(), serdes::i64()),
    ///     |context: StoreContext<String, i64>| {
    ///         Ok(HighestRef(Rc::new(RefCell::new(Highest {
    ///             name: context.name,
    ///             committed: context.backend,
    ///             uncommitted: BTreeMap::new(),
    ///             undo: Vec::new(),
    ///             now: context.timestamp,
    ///         }))))
    ///     },
    /// );
    /// let bids = Consumed::with(serdes::string(), serdes::i64()).on_error(ErrorPolicy::Skip);
    /// builder
    ///     .stream("bids", bids)
    ///     .process("bids", (&highest,), |_, (highest,)| Bids(highest))
    ///     .to("highest-bids", Produced::with(serdes::string(), serdes::i64()));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let bids = driver.input_topic("bids", serdes::string(), serdes::i64());
    /// let out = driver.output_topic("highest-bids", serdes::string(), serdes::i64());
    /// for (item, bid) in [("vase", 10), ("vase", 7), ("lamp", -1)] {
    ///     bids.pipe(&mut driver, item.to_owned(), bid)?;
    /// }
    /// assert_eq!(out.read_values(&mut driver)?, [10, 10]);
    /// assert_eq!(driver.store_value("highest", "lamp")?, None, "rolled back");
    /// // Restored from its changelog.
    /// driver.restart(false)?;
    /// bids.pipe(&mut driver, "vase".to_owned(), 9)?;
    /// assert_eq!(out.read_values(&mut driver)?, [10]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "a store that no processor is connected to is a mistake"]
    pub fn add_custom_store<K, V, S>(
        &self,
        store: StoreBuilder<K, V>,
        make: impl Fn(StoreContext<K, V>) -> Result<S, StateError> + Send + Sync + 'static,
    ) -> CustomStoreHandle<S>
    where
        K: StoreKey,
        V: Clone + 'static,
        S: CustomStore,
    {
        let name = store.name.clone();
        let mut draft = self.draft.borrow_mut();
        store.refuse_ttl(
            &mut draft,
            "what a custom store forgets is up to it; leave `ttl` out",
        );
        store.refuse_headers(&mut draft);
        store.refuse_source_changelog(
            &mut draft,
            "what a custom store makes of a topic is up to it",
        );
        let (key_serde, value_serde) = (store.key_serde, store.value_serde);
        let id = draft.graph.add_store(StoreSpec {
            name: name.clone(),
            persistence: store.persistence,
            durability: store.durability,
            changelog: store.changelog,
            keeps_headers: false,
            source_changelog: None,
            key_codec: store.key_codec,
            value_codec: store.value_codec,
            layout: Layout::KeyValue,
        });
        let of_store = name.clone();
        let factory: StoreFactory = Box::new(move |env, cache_bytes| {
            let backend = env.backends.remove(&of_store).unwrap_or_else(|| {
                unreachable!("the runtime opens every store of `SubTopology::stores`")
            });
            let typed = make(StoreContext {
                name: of_store.clone(),
                task: env.task,
                backend,
                timestamp: Rc::clone(&env.timestamp),
                key_serde: Arc::clone(&key_serde),
                value_serde: Arc::clone(&value_serde),
                cache_bytes,
            })?;
            Ok(StoreInstance {
                store: typed.state_store(),
                typed: Box::new(typed),
            })
        });
        draft.stores.insert(id, factory);
        drop(draft);
        CustomStoreHandle {
            draft: Rc::clone(&self.draft),
            id,
            name,
            store: PhantomData,
        }
    }
}
