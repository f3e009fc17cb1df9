//! [`StreamsBuilder`]: where a topology begins.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::assembly::{SourceFactory, StoreFactory, StoreInstance};
use super::config::{Consumed, Materialized, Policies, StoreBuilder};
use super::stream::{KStream, Lineage};
use super::table::KTable;
use super::timestamp::{SharedExtractor, same_extractor};
use crate::processor::ErrorPolicy;
use crate::state::{KeyValueStore, Layout, StoreRef, TimeToLive};
use crate::topology::{
    Graph, GraphNode, NodeId, NodeKind, SourceSpec, StoreId, StoreSpec, TopicPattern, TopicRef,
    Topology, TopologyError, TopologyErrors,
};
use crate::window::millis;

/// What a key of a store must be able to do.
pub trait StoreKey: Hash + Eq + Clone + 'static {}
impl<K: Hash + Eq + Clone + 'static> StoreKey for K {}

/// A topology that is being drawn: the graph, and how its parts become instances.
#[derive(Default)]
pub struct Draft {
    pub(crate) graph: Graph,
    pub(crate) sources: BTreeMap<NodeId, SourceFactory>,
    pub(crate) stores: HashMap<StoreId, StoreFactory>,
    streams: HashMap<String, KnownStream>,
}

/// A stream that was read from a topic, for a second `stream` of the same topic.
struct KnownStream {
    types: TypeId,
    handle: Rc<dyn Any>,
    policies: Policies,
    rewindable: bool,
    /// `Option<SharedExtractor<K, V>>`.
    timestamps: Rc<dyn Any>,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("graph", &self.graph)
            .finish_non_exhaustive()
    }
}

pub(crate) type SharedDraft = Rc<RefCell<Draft>>;

impl Draft {
    /// Adds a store and how it is made.
    pub(crate) fn add_store<K: StoreKey, V: Clone + 'static>(
        &mut self,
        store: Materialized<K, V>,
    ) -> StoreId {
        if store.durability == crate::topology::Durability::Record {
            store.refuse_ttl(
                self,
                "nothing else has what is in a record store; leave `ttl` out",
            );
        }
        if store.source_changelog.is_none() {
            store.refuse_source_changelog(self, "its entries do not come from a topic as they are");
        }
        let Materialized {
            name,
            key_serde,
            value_serde,
            ..
        } = store;
        let ttl = store.ttl.map(millis).map(TimeToLive::of_millis);
        let id = self.graph.add_store(StoreSpec {
            name: name.clone(),
            persistence: store.persistence,
            durability: store.durability,
            changelog: store.changelog,
            keeps_headers: store.keeps_headers,
            source_changelog: store.source_changelog,
            key_codec: store.key_codec,
            value_codec: store.value_codec,
            layout: ttl.map_or(Layout::KeyValue, Layout::Expiring),
        });
        let factory: StoreFactory = Box::new(move |env, cache_bytes| {
            let backend = env.backends.remove(&name);
            let backend = backend.unwrap_or_else(|| {
                unreachable!("the runtime opens every store of `SubTopology::stores`")
            });
            let store = KeyValueStore::new(
                name.clone(),
                backend,
                Arc::clone(&key_serde),
                Arc::clone(&value_serde),
                Rc::clone(&env.timestamp),
                cache_bytes,
            );
            let typed = StoreRef::new(match (ttl, env.indexes.remove(&name)) {
                (Some(ttl), Some(index)) => {
                    let metrics = env.metrics.as_ref();
                    let expired = metrics.map(|metrics| metrics.store(&name).expired_entries);
                    store.with_expiry(ttl, Rc::clone(&env.stream_time), index, expired)
                }
                _ => store,
            });
            let store = typed.state_store();
            Ok(StoreInstance {
                typed: Box::new(typed),
                store,
            })
        });
        self.stores.insert(id, factory);
        id
    }

    /// Adds a source node and how it is made.
    pub(crate) fn add_source(
        &mut self,
        topic: TopicRef,
        name: Option<String>,
        lineage: &Lineage,
        factory: impl FnOnce(NodeId) -> SourceFactory,
    ) -> NodeId {
        for policy in lineage.policies() {
            self.mention_dead_letters(policy, &topic);
        }
        let generated = self.graph.generate_name("KSTREAM-SOURCE-");
        let id = self.graph.add(GraphNode {
            name: generated.clone(),
            named: false,
            kind: NodeKind::Source(Box::new(SourceSpec {
                name: generated,
                topic,
                global: false,
                rewindable: lineage.rewindable,
                on_deserialization_error: lineage.policies.deserialization.clone(),
                on_processing_error: lineage.policies.processing.clone(),
                on_production_error: lineage.policies.production.clone(),
            })),
            parents: Vec::new(),
            stores: Vec::new(),
        });
        if let Some(name) = name {
            self.graph.rename(id, &name);
        }
        self.sources.insert(id, factory(id));
        id
    }

    fn mention_dead_letters(&mut self, policy: &ErrorPolicy, source: &TopicRef) {
        match policy {
            ErrorPolicy::Fail | ErrorPolicy::Skip => {}
            ErrorPolicy::DeadLetter { topic } => {
                self.graph.mention(topic);
                if *source == TopicRef::Declared(topic.clone()) {
                    let mistake = TopologyError::DeadLetterLoop {
                        topic: topic.clone(),
                    };
                    if !self.graph.mistakes.contains(&mistake) {
                        self.graph.mistakes.push(mistake);
                    }
                }
            }
            ErrorPolicy::Retry { then, .. } => self.mention_dead_letters(then, source),
        }
    }
}

/// Draws a topology.
///
/// Kafka Streams' `StreamsBuilder`. Mistakes are collected and reported together by
/// [`build`](Self::build).
///
/// ```
/// use millstream::prelude::*;
///
/// let builder = StreamsBuilder::new();
/// builder
///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
///     .group_by(|_, word| word.clone(), Grouped::with("by-word", serdes::string(), serdes::string()))
///     .count(Materialized::as_store("counts", serdes::string(), serdes::i64()))
///     .to_stream()
///     .to("word-counts", Produced::with(serdes::string(), serdes::optional(serdes::i64())));
/// let topology = builder.build()?;
/// assert_eq!(topology.sub_topologies().len(), 2, "grouping by another key repartitions");
/// # Ok::<(), TopologyErrors>(())
/// ```
#[derive(Default)]
pub struct StreamsBuilder {
    pub(crate) draft: SharedDraft,
}

impl fmt::Debug for StreamsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamsBuilder").finish_non_exhaustive()
    }
}

impl StreamsBuilder {
    /// Starts an empty topology.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `topic` as a stream of records.
    ///
    /// A second call for the same topic returns the same stream, so that a record is read and
    /// deserialised once; asking for other types, policies or rewinding is a mistake.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// let builder = StreamsBuilder::new();
    /// let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// words.to("copy", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "a source that nobody reads is a mistake"]
    pub fn stream<K, V>(&self, topic: &str, consumed: Consumed<K, V>) -> KStream<K, V>
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        let stream = self.read(TopicRef::Declared(topic.to_owned()), topic, consumed);
        self.draft.borrow_mut().graph.mention(topic);
        stream
    }

    /// Reads every topic whose whole name matches a regular expression as one stream (Kafka Streams'
    /// `stream(Pattern)`), lowest timestamp first across them. Topics that appear while the application
    /// runs are read from their start; one that is deleted is left.
    ///
    /// The source needs a name: the partitions of the internal topic `<application id>-<name>-millstream-driver`
    /// stand for its tasks. They are as many as the largest topic has that matches at the first start,
    /// and stay so. Beside a store every topic must have that many; otherwise the partitions of a larger
    /// topic are shared among the tasks. While nothing matches there are no tasks, and it is no error.
    ///
    /// A pattern that matches a topic of another source is a mistake, as in Kafka Streams; the
    /// application's own changelogs, repartition and driver topics match none. Physical names are what is
    /// matched. The expressions are those of the crate `regex`: no look-around, no back-references.
    ///
    /// ```
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// builder
    ///     .stream_pattern(
    ///         "orders-.*",
    ///         Consumed::with(serdes::string(), serdes::string()).named("orders"),
    ///     )
    ///     .to("all-orders", Produced::with(serdes::string(), serdes::string()));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let all = driver.output_topic("all-orders", serdes::string(), serdes::string());
    /// for country in ["orders-eu", "orders-us"] {
    ///     // The driver creates a topic that matches when it is first written to.
    ///     let orders = driver.input_topic(country, serdes::string(), serdes::string());
    ///     orders.pipe(&mut driver, "7".to_owned(), country.to_owned())?;
    /// }
    /// assert_eq!(all.read_values(&mut driver)?, ["orders-eu", "orders-us"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "a source that nobody reads is a mistake"]
    pub fn stream_pattern<K, V>(&self, pattern: &str, consumed: Consumed<K, V>) -> KStream<K, V>
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        let topic = match TopicPattern::new(pattern) {
            Ok(pattern) => TopicRef::Pattern(pattern),
            Err(reason) => {
                let pattern = pattern.to_owned();
                let mistake = TopologyError::IllegalPattern { pattern, reason };
                self.draft.borrow_mut().graph.mistakes.push(mistake);
                // Never built: the mistake is reported, and no other for this source.
                TopicRef::Repartition(String::new())
            }
        };
        // No topic's name: they have no slash.
        self.read(topic, &format!("/{pattern}/"), consumed)
    }

    /// Reads a source, or finds the stream that reads it already under `key`.
    fn read<K, V>(&self, topic: TopicRef, key: &str, consumed: Consumed<K, V>) -> KStream<K, V>
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        if let Some(known) = self.known_stream(key, &consumed) {
            return known;
        }
        let lineage = Lineage {
            policies: consumed.policies.clone(),
            rewindable: consumed.rewindable,
            window_grace: None,
        };
        let (policies, rewindable) = (consumed.policies.clone(), consumed.rewindable);
        let timestamps: Rc<dyn Any> = Rc::new(consumed.timestamps.clone());
        let stream = KStream::from_source(&self.draft, topic, consumed, lineage);
        let known = KnownStream {
            types: TypeId::of::<(K, V)>(),
            // Children are shared through an `Arc`; a draft that held a handle whole would hold
            // itself.
            handle: Rc::new(stream.parts()),
            policies,
            rewindable,
            timestamps,
        };
        let mut draft = self.draft.borrow_mut();
        draft.streams.entry(key.to_owned()).or_insert(known);
        drop(draft);
        stream
    }

    /// Reads several topics of one kind as one stream (Kafka Streams' `stream(Collection)`), lowest
    /// timestamp first across them.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// let orders = builder.streams(
    ///     ["orders-eu", "orders-us"],
    ///     Consumed::with(serdes::string(), serdes::string()),
    /// );
    /// # orders.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    ///
    /// # Panics
    /// When `topics` is empty.
    #[must_use = "a source that nobody reads is a mistake"]
    pub fn streams<K, V>(
        &self,
        topics: impl IntoIterator<Item = impl AsRef<str>>,
        consumed: Consumed<K, V>,
    ) -> KStream<K, V>
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        let mut sources = topics.into_iter().enumerate().map(|(index, topic)| {
            let mut consumed = consumed.clone();
            // One name cannot serve several nodes.
            consumed.name = consumed.name.filter(|_| index == 0);
            self.stream(topic.as_ref(), consumed)
        });
        let first = sources.next();
        assert!(first.is_some(), "a stream reads at least one topic");
        let first = first.unwrap_or_else(|| unreachable!());
        sources.fold(first, |all, source| all.merge(&source))
    }

    fn known_stream<K, V>(&self, topic: &str, consumed: &Consumed<K, V>) -> Option<KStream<K, V>>
    where
        K: Clone + 'static,
        V: Clone + 'static,
    {
        let mut draft = self.draft.borrow_mut();
        let known = draft.streams.get(topic)?;
        let how = if known.types != TypeId::of::<(K, V)>() {
            "as different types"
        } else if known.policies != consumed.policies {
            "with different error policies"
        } else if known.rewindable != consumed.rewindable {
            "once rewindable, once not"
        } else if !known
            .timestamps
            .downcast_ref::<Option<SharedExtractor<K, V>>>()
            .is_some_and(|it| same_extractor(it.as_ref(), consumed.timestamps.as_ref()))
        {
            "with different timestamp extractors"
        } else {
            let parts = Rc::clone(&known.handle).downcast().ok()?;
            drop(draft);
            return Some(KStream::from_parts(&self.draft, &parts));
        };
        draft.graph.mistakes.push(TopologyError::TopicReadTwice {
            topic: topic.to_owned(),
            how,
        });
        None
    }

    /// Reads `topic` as a [`KTable`]: the latest value per key, where a null value deletes the key.
    ///
    /// Adds a source node and a logged store. Two tables over one topic, or a table and a stream,
    /// are a mistake: read it once, and use [`KTable::to_stream`].
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// let users = builder.table(
    ///     "users",
    ///     Consumed::with(serdes::string(), serdes::string()),
    ///     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// );
    /// # drop(users);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "an unused table still costs a store"]
    pub fn table<K, V>(
        &self,
        topic: &str,
        consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V>
    where
        K: StoreKey,
        V: Clone + 'static,
    {
        self.draft.borrow_mut().graph.mention(topic);
        KTable::from_source(&self.draft, topic, consumed, materialized)
    }

    /// Declares a topic with configs, such as `cleanup.policy`. Topics that are read or written
    /// need no declaration; it adds to what they are created with.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// builder.declare_topic("out", [("cleanup.policy", "compact")]);
    /// # words.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn declare_topic<N, C>(&self, name: N, config: impl IntoIterator<Item = (C, C)>)
    where
        N: Into<String>,
        C: Into<String>,
    {
        let name = name.into();
        let config: BTreeMap<String, String> = config
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        let graph = &mut self.draft.borrow_mut().graph;
        match graph.declared.get(&name) {
            Some(before) if *before != config => {
                graph
                    .mistakes
                    .push(TopologyError::TopicDeclaredTwice { topic: name });
            }
            Some(_) => {}
            None => {
                if !graph.mentioned.contains(&name) {
                    graph.check_topic(&name);
                }
                graph.declared.insert(name, config);
            }
        }
    }

    /// Adds a store for [`process`](KStream::process) to connect.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// struct Latest(StoreRef<String, String>);
    ///
    /// impl Processor<String, String, String, String> for Latest {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, String>,
    ///         record: Record<String, String>,
    ///     ) -> Result<(), BoxError> {
    ///         self.0.put(record.key.clone(), record.value.clone())?;
    ///         Ok(context.forward(record)?)
    ///     }
    /// }
    ///
    /// let latest = builder.add_state_store(
    ///     StoreBuilder::as_store("latest", serdes::string(), serdes::string()),
    /// );
    /// words
    ///     .process("latest", (&latest,), |_setup, (latest,)| Latest(latest))
    ///     .to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "a store that no processor is connected to is a mistake"]
    pub fn add_state_store<K, V>(&self, store: StoreBuilder<K, V>) -> StoreHandle<K, V>
    where
        K: StoreKey,
        V: Clone + 'static,
    {
        let name = store.name.clone();
        let id = self.draft.borrow_mut().add_store(store);
        StoreHandle::new(&self.draft, id, name)
    }

    /// Checks what was drawn and makes it a topology. Handles that are still around are of no more
    /// use: drawing with one panics.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// let builder = StreamsBuilder::new();
    /// builder
    ///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
    ///     .map(|_, word| (word.clone(), word))
    ///     .group_by_key(Grouped::with("", serdes::string(), serdes::string()))
    ///     .count(Materialized::as_store("", serdes::string(), serdes::i64()));
    /// let mistakes = builder.build().unwrap_err();
    /// assert!(mistakes.to_string().lines().count() > 1, "a grouping and a store without a name");
    /// ```
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn build(self) -> Result<Topology, TopologyErrors> {
        let mut draft = self.draft.borrow_mut();
        let left = Draft {
            graph: Graph::closed(),
            ..Draft::default()
        };
        super::build::build(std::mem::replace(&mut *draft, left))
    }
}

/// A store of a topology that is being drawn, typed.
pub struct StoreHandle<K, V> {
    pub(crate) draft: SharedDraft,
    pub(crate) id: StoreId,
    pub(crate) name: String,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> StoreHandle<K, V> {
    pub(crate) fn new(draft: &SharedDraft, id: StoreId, name: String) -> Self {
        Self {
            draft: Rc::clone(draft),
            id,
            name,
            types: PhantomData,
        }
    }

    /// Returns the store's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<K, V> Clone for StoreHandle<K, V> {
    fn clone(&self) -> Self {
        Self {
            draft: Rc::clone(&self.draft),
            id: self.id,
            name: self.name.clone(),
            types: PhantomData,
        }
    }
}

impl<K, V> fmt::Debug for StoreHandle<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHandle")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
