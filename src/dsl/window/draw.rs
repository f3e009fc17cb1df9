//! Drawing a windowed aggregation: its node, its store, its late records.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{EmitStrategy, Fold, LateConsumer, ObservedTime, Windowing};
use crate::clock::Timestamp;
use crate::dsl::assembly::{Assembly, Children, StoreFactory, StoreInstance};
use crate::dsl::builder::{Draft, SharedDraft, StoreKey, StreamsBuilder};
use crate::dsl::config::{Materialized, SharedSerde, StoreBuilder};
use crate::dsl::getter::Getter;
use crate::dsl::nulls::Nulls;
use crate::dsl::process::sealed;
use crate::dsl::stream::{KStream, Lineage};
use crate::dsl::table_store::{Place, Stateful};
use crate::processor::{Downstream, Node};
use crate::serde::{
    SessionStoreCodec, SessionWindowedSerde, TextCodec, TimeWindowedSerde, WindowStoreCodec,
    session_windowed,
};
use crate::state::{Layout, Segments, SessionStore, StateError, WindowStore};
use crate::topology::{NodeId, StoreId, StoreSpec, TopologyError};
use crate::window::{Windowed, millis};

impl Draft {
    fn add_segmented<K: StoreKey, V: Clone + 'static>(
        &mut self,
        store: Materialized<K, V>,
        layout: Layout,
        key_codec: Arc<dyn TextCodec>,
    ) -> StoreId {
        store.refuse_ttl(
            self,
            "windows and sessions live as long as the store's retention; leave `ttl` out",
        );
        store.refuse_versions(self);
        store.refuse_source_changelog(
            self,
            "windows and sessions do not come from a topic as they are",
        );
        let Materialized {
            name,
            key_serde,
            value_serde,
            ..
        } = store;
        let id = self.graph.add_store(StoreSpec {
            name: name.clone(),
            persistence: store.persistence,
            durability: store.durability,
            changelog: store.changelog,
            keeps_headers: store.keeps_headers,
            source_changelog: None,
            key_codec,
            value_codec: store.value_codec,
            layout,
        });
        let factory: StoreFactory = Box::new(move |env, cache_bytes| {
            let backend = env.backends.remove(&name).unwrap_or_else(|| {
                unreachable!("the runtime opens every store of `SubTopology::stores`")
            });
            let name = name.clone();
            let (key, value) = (Arc::clone(&key_serde), Arc::clone(&value_serde));
            let time = Rc::clone(&env.timestamp);
            Ok(match layout {
                Layout::Window(segments) | Layout::Duplicates(segments) => {
                    let typed =
                        WindowStore::new(name, backend, key, value, time, cache_bytes, segments)?;
                    StoreInstance {
                        store: typed.state_store(),
                        typed: Box::new(typed),
                    }
                }
                Layout::Session(segments) => {
                    let typed =
                        SessionStore::new(name, backend, key, value, time, cache_bytes, segments)?;
                    StoreInstance {
                        store: typed.state_store(),
                        typed: Box::new(typed),
                    }
                }
                Layout::KeyValue | Layout::Versioned(_) | Layout::Expiring(_) => {
                    unreachable!("windows and sessions are segmented")
                }
            })
        });
        self.stores.insert(id, factory);
        id
    }

    pub(crate) fn add_window_store<K: StoreKey, V: Clone + 'static>(
        &mut self,
        store: Materialized<K, V>,
        layout: Layout,
    ) -> StoreId {
        let codec = Arc::new(WindowStoreCodec(Arc::clone(&store.key_codec)));
        self.add_segmented(store, layout, codec)
    }

    fn add_session_store<K: StoreKey, V: Clone + 'static>(
        &mut self,
        store: Materialized<K, V>,
        layout: Layout,
    ) -> StoreId {
        let codec = Arc::new(SessionStoreCodec(Arc::clone(&store.key_codec)));
        self.add_segmented(store, layout, codec)
    }
}

/// What the windows are, as far as drawing cares.
pub(in crate::dsl) struct WindowSpec {
    /// For the serde of windowed keys.
    pub(super) size: i64,
    /// How far stream time passes a window's end before it closes.
    pub(super) grace: i64,
    /// How long a store must keep windows at least; also the default.
    pub(super) retention_min: i64,
    pub(super) problem: Option<&'static str>,
}

/// A windowed aggregation before it has a store.
pub(in crate::dsl) struct Drawing<'a> {
    pub(in crate::dsl) draft: &'a SharedDraft,
    /// Of the node's generated name.
    pub(in crate::dsl) prefix: &'a str,
    /// The streams that are aggregated.
    pub(in crate::dsl) parents: Vec<NodeId>,
    pub(in crate::dsl) lineage: Lineage,
    pub(in crate::dsl) emit: EmitStrategy,
}

/// Reads a window's value and its time.
type Get<S, K, A> = fn(&S, &Windowed<K>) -> Result<Option<(A, Timestamp)>, StateError>;

impl<'a> Drawing<'a> {
    /// Of one stream.
    pub(super) fn of<K: StoreKey, V>(
        stream: &'a KStream<K, V>,
        emit: EmitStrategy,
        prefix: &'a str,
    ) -> Self {
        Self {
            draft: &stream.draft,
            prefix,
            parents: vec![stream.parts.node],
            lineage: stream.parts.lineage.clone(),
            emit,
        }
    }

    /// Adds a window store.
    pub(super) fn windows<K: StoreKey, A: Clone + 'static>(
        self,
        materialized: Materialized<K, A>,
        spec: &WindowSpec,
        layout: impl FnOnce(i64) -> Layout,
    ) -> Drawn<K, A, WindowStore<K, A>> {
        let layout = layout(self.retention(&materialized, spec));
        let key = Arc::clone(&materialized.key_serde);
        let key: SharedSerde<Windowed<K>> = Arc::new(
            TimeWindowedSerde::<SharedSerde<K>>::of_millis(key, spec.size),
        );
        let add = |draft: &mut Draft, store| draft.add_window_store(store, layout);
        self.draw(
            materialized,
            spec,
            key,
            add,
            |store: &WindowStore<K, A>, key| {
                store.fetch_with_timestamp(&key.key, key.window.start())
            },
        )
    }

    /// Adds a session store.
    pub(super) fn sessions<K: StoreKey, A: Clone + 'static>(
        self,
        materialized: Materialized<K, A>,
        spec: &WindowSpec,
        layout: impl FnOnce(i64) -> Layout,
    ) -> Drawn<K, A, SessionStore<K, A>> {
        let layout = layout(self.retention(&materialized, spec));
        let key = Arc::clone(&materialized.key_serde);
        let key: SharedSerde<Windowed<K>> =
            Arc::new(session_windowed::<SharedSerde<K>>(key) as SessionWindowedSerde<_>);
        let add = |draft: &mut Draft, store| draft.add_session_store(store, layout);
        self.draw(
            materialized,
            spec,
            key,
            add,
            |store: &SessionStore<K, A>, key| {
                let found = store.fetch_session(key)?;
                Ok(found.map(|value| (value, key.window.end())))
            },
        )
    }

    /// Returns how long the store keeps windows; notes what is wrong with them.
    fn retention<K, A>(&self, materialized: &Materialized<K, A>, spec: &WindowSpec) -> i64 {
        let mistakes = &mut self.draft.borrow_mut().graph.mistakes;
        let mut mistake = |reason: String| {
            mistakes.push(TopologyError::IllegalWindows {
                store: materialized.name.clone(),
                reason,
            });
        };
        if let Some(problem) = spec.problem {
            mistake(problem.to_owned());
        }
        let Some(retention) = materialized.retention.map(millis) else {
            return spec.retention_min;
        };
        if retention < spec.retention_min {
            mistake(format!(
                "the store keeps them for {retention} ms, but they take records for {} ms",
                spec.retention_min
            ));
        }
        retention
    }

    fn draw<K: StoreKey, A: Clone + 'static, S: Clone + 'static>(
        self,
        materialized: Materialized<K, A>,
        spec: &WindowSpec,
        key_serde: SharedSerde<Windowed<K>>,
        add_store: impl FnOnce(&mut Draft, Materialized<K, A>) -> StoreId,
        get: Get<S, K, A>,
    ) -> Drawn<K, A, S> {
        let store_name = materialized.name.clone();
        let keys = Arc::clone(&materialized.key_serde);
        let mut lineage = self.lineage;
        lineage.window_grace = Some(spec.grace);
        let place = Place {
            draft: self.draft,
            prefix: self.prefix,
            parents: self.parents,
            lineage,
            key_serde,
            value_serde: Arc::clone(&materialized.value_serde),
        };
        let stateful = Stateful::draw(
            place,
            |draft| add_store(draft, materialized),
            |store| {
                Getter::new(vec![store], move |assembly| {
                    let store: S = assembly.store(store);
                    Box::new(move |key| get(&store, key))
                })
            },
        );
        Drawn {
            stateful,
            emit: self.emit,
            keys,
            store_name,
            types: PhantomData,
        }
    }
}

/// A windowed aggregation that lacks its instances: one for each stream that is aggregated.
pub(in crate::dsl) struct Drawn<K, A, S> {
    pub(in crate::dsl) stateful: Stateful<Windowed<K>, A>,
    emit: EmitStrategy,
    keys: SharedSerde<K>,
    store_name: String,
    types: PhantomData<fn() -> S>,
}

/// A stream that is aggregated by windows.
pub(in crate::dsl) struct Input<'a, K, V> {
    pub(in crate::dsl) stream: &'a KStream<K, V>,
    pub(in crate::dsl) late: Option<&'a LateConsumer<K, V>>,
    /// Which of the streams of one aggregation it is, as they were added.
    pub(in crate::dsl) index: usize,
}

impl<'a, K, V> Input<'a, K, V> {
    /// One of several streams.
    pub(in crate::dsl) const fn nth(stream: &'a KStream<K, V>, index: usize) -> Self {
        let late = None;
        Self {
            stream,
            late,
            index,
        }
    }

    /// The only stream.
    pub(super) const fn of(
        stream: &'a KStream<K, V>,
        late: Option<&'a LateConsumer<K, V>>,
    ) -> Self {
        let index = 0;
        Self {
            stream,
            late,
            index,
        }
    }

    /// Draws the stream of late records below the aggregation, and what its consumer makes of it.
    fn draw_late(&self, node: NodeId) -> Option<Children<K, V>>
    where
        K: StoreKey,
        V: Clone + 'static,
    {
        let consumer = self.late?;
        let stream = self.stream;
        let late = stream
            .draft
            .borrow_mut()
            .graph
            .add_operator("KSTREAM-LATE-", vec![node]);
        let children = Children::new();
        let (keeps, lineage) = (stream.keeps_all(), stream.parts.lineage.clone());
        consumer(KStream::new(
            &stream.draft,
            late,
            children.clone(),
            keeps,
            lineage,
        ));
        Some(children)
    }
}

impl<K, A, S> Drawn<K, A, S>
where
    K: StoreKey,
    A: Clone + 'static,
    S: Clone + 'static,
{
    /// Attaches the node that `make` makes for each task to a stream.
    pub(super) fn attach<V: Clone + 'static, F: Fold<K, V, A>>(
        &self,
        input: &Input<'_, K, V>,
        fold: F,
        make: impl Fn(Windowing<F, K, V, A>, S) -> Box<dyn Node<K, V>> + Send + Sync + 'static,
    ) {
        let Stateful {
            node,
            store,
            children,
            old_values,
            ..
        } = &self.stateful;
        let (node, store, emit) = (*node, *store, self.emit);
        let (children, old_values) = (children.clone(), old_values.clone());
        let late = input.draw_late(node);
        let fold = Arc::new(fold);
        let nulls = Nulls::new(
            Some(Arc::clone(&self.keys)),
            input.stream.parts.value_serde.clone(),
        );
        let store_name: Arc<str> = Arc::from(self.store_name.as_str());
        // Each stream has a time of its own, as each has a processor of its own in Kafka Streams. No
        // name of a store has the sign.
        let observer = match input.index {
            0 => self.store_name.clone(),
            index => format!("{}#{index}", self.store_name),
        };
        input.stream.parts.children.add(node, move |assembly| {
            let late = match &late {
                Some(late) => late.assemble(assembly)?,
                None => Downstream::new(Vec::new()),
            };
            let downstream = assembly.shared(node, |assembly| children.assemble(assembly))?;
            let windowing = Windowing {
                name: assembly.name(node),
                store_name: Arc::clone(&store_name),
                time: ObservedTime::of(&observer),
                emit,
                fold: Arc::clone(&fold),
                nulls: nulls.clone(),
                send_old: old_values.sent(),
                downstream,
                late,
            };
            Ok(make(windowing, assembly.store(store)))
        });
    }
}

impl StreamsBuilder {
    /// Adds a window store for [`process`](KStream::process) to connect, that keeps windows for
    /// `retention` of stream time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millstream::prelude::*;
    ///
    /// struct PerMinute(WindowStore<String, i64>);
    ///
    /// impl Processor<String, i64, String, i64> for PerMinute {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, i64>,
    ///         record: Record<String, i64>,
    ///     ) -> Result<(), BoxError> {
    ///         let minute = record.timestamp / 60_000 * 60_000;
    ///         let total = self.0.fetch(&record.key, minute)?.unwrap_or(0) + record.value;
    ///         self.0.put(record.key.clone(), total, minute)?;
    ///         Ok(context.forward(record.with_value(total))?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let totals = builder.add_window_store(
    ///     StoreBuilder::as_store("totals", serdes::string(), serdes::i64()),
    ///     Duration::from_secs(3600),
    /// );
    /// builder
    ///     .stream("amounts", Consumed::with(serdes::string(), serdes::i64()))
    ///     .process("per-minute", (&totals,), |_setup, (totals,)| PerMinute(totals))
    ///     .to("totals-out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "a store that no processor is connected to is a mistake"]
    pub fn add_window_store<K: StoreKey, V: Clone + 'static>(
        &self,
        store: StoreBuilder<K, V>,
        retention: Duration,
    ) -> WindowStoreHandle<K, V> {
        let name = store.name.clone();
        let layout = Layout::Window(Segments::new(millis(retention)));
        let id = self.draft.borrow_mut().add_window_store(store, layout);
        WindowStoreHandle::new(&self.draft, id, name)
    }

    /// Adds a session store for [`process`](KStream::process) to connect, that keeps sessions for
    /// `retention` of stream time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// struct Visits(SessionStore<String, i64>);
    ///
    /// impl Processor<String, String, String, i64> for Visits {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, i64>,
    ///         record: Record<String, String>,
    ///     ) -> Result<(), BoxError> {
    ///         let now = Window::new(record.timestamp, record.timestamp);
    ///         self.0.put(Windowed::new(record.key.clone(), now), 1)?;
    ///         Ok(context.forward(record.with_value(1))?)
    ///     }
    /// }
    ///
    /// # let builder = StreamsBuilder::new();
    /// let visits = builder.add_session_store(
    ///     StoreBuilder::as_store("visits", serdes::string(), serdes::i64()),
    ///     Duration::from_secs(3600),
    /// );
    /// builder
    ///     .stream("clicks", Consumed::with(serdes::string(), serdes::string()))
    ///     .process("visits", (&visits,), |_setup, (visits,)| Visits(visits))
    ///     .to("visits-out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "a store that no processor is connected to is a mistake"]
    pub fn add_session_store<K: StoreKey, V: Clone + 'static>(
        &self,
        store: StoreBuilder<K, V>,
        retention: Duration,
    ) -> SessionStoreHandle<K, V> {
        let name = store.name.clone();
        let layout = Layout::Session(Segments::new(millis(retention)));
        let id = self.draft.borrow_mut().add_session_store(store, layout);
        SessionStoreHandle::new(&self.draft, id, name)
    }
}

macro_rules! handle {
    ($handle:ident, $store:ident, $what:literal) => {
        #[doc = concat!("A ", $what, " store of a topology that is being drawn, typed.")]
        pub struct $handle<K, V> {
            draft: SharedDraft,
            id: StoreId,
            name: String,
            types: PhantomData<fn() -> (K, V)>,
        }

        impl<K, V> $handle<K, V> {
            fn new(draft: &SharedDraft, id: StoreId, name: String) -> Self {
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

        impl<K, V> fmt::Debug for $handle<K, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($handle))
                    .field("name", &self.name)
                    .finish_non_exhaustive()
            }
        }

        impl<K: StoreKey, V: Clone + 'static> sealed::Store for $handle<K, V> {
            type Ref = $store<K, V>;

            fn parts(&self) -> (&SharedDraft, StoreId, &str) {
                (&self.draft, self.id, &self.name)
            }

            fn resolve(assembly: &Assembly<'_>, id: StoreId) -> Self::Ref {
                assembly.store(id)
            }
        }
    };
}

handle!(WindowStoreHandle, WindowStore, "window");
handle!(SessionStoreHandle, SessionStore, "session");
