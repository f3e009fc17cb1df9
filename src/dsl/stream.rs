//! [`KStream`]: a handle of a stream that is being drawn.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::assembly::Children;
use super::builder::SharedDraft;
use super::config::{Consumed, Policies, SharedSerde};
use super::operator::{OperatorNode, Scope};
use super::source::StreamSource;
use super::timestamp::Heads;
use crate::processor::{ErrorPolicy, ProcessError, Record};
use crate::topology::{NodeId, TopicRef, TopologyError};

/// What a stream inherits from its sources, for the repartition topics drawn downstream.
#[derive(Debug, Clone)]
pub(crate) struct Lineage {
    pub(crate) policies: Policies,
    pub(crate) rewindable: bool,
    /// Below a windowed aggregation: by how much stream time passes a window's end before it closes.
    pub(crate) window_grace: Option<i64>,
}

impl Lineage {
    pub(crate) fn policies(&self) -> [&ErrorPolicy; 3] {
        [
            &self.policies.deserialization,
            &self.policies.processing,
            &self.policies.production,
        ]
    }
}

impl<K, V> KStream<K, V> {
    /// Has what is drawn behind the next repartition topics stop the task where it fails, whatever the
    /// source's policies: its records are not the user's, and none may be passed over.
    pub(crate) fn failing(mut self) -> Self {
        self.parts.lineage.policies = Policies::all(&ErrorPolicy::Fail);
        self
    }
}

/// A stream of records: every record is a fact of its own.
///
/// Kafka Streams' `KStream`. A handle is cheap to clone; attaching two operators to it sends every
/// record to both. Operators that run user code have a `try_` form whose error meets the source's
/// [`ErrorPolicy`]. Operators that may change the key mark the stream, and the next grouping
/// repartitions it.
pub struct KStream<K, V> {
    pub(crate) draft: SharedDraft,
    pub(crate) parts: StreamParts<K, V>,
}

/// A stream without its draft.
pub(crate) struct StreamParts<K, V> {
    pub(crate) node: NodeId,
    pub(crate) children: Children<K, V>,
    /// Whether the key may have changed since the records were partitioned by it.
    pub(crate) repartition_required: bool,
    /// How key and value were read, as long as they are unchanged.
    pub(crate) key_serde: Option<SharedSerde<K>>,
    pub(crate) value_serde: Option<SharedSerde<V>>,
    pub(crate) lineage: Lineage,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for StreamParts<K, V> {
    fn clone(&self) -> Self {
        Self {
            node: self.node,
            children: self.children.clone(),
            repartition_required: self.repartition_required,
            key_serde: self.key_serde.clone(),
            value_serde: self.value_serde.clone(),
            lineage: self.lineage.clone(),
            types: PhantomData,
        }
    }
}

impl<K, V> Clone for KStream<K, V> {
    fn clone(&self) -> Self {
        Self {
            draft: Rc::clone(&self.draft),
            parts: self.parts.clone(),
        }
    }
}

impl<K, V> fmt::Debug for KStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KStream")
            .field("node", &self.parts.node)
            .finish_non_exhaustive()
    }
}

/// What an operator does to key and value, for what its stream inherits.
pub(crate) struct Keeps<K, V> {
    pub(crate) key_serde: Option<SharedSerde<K>>,
    pub(crate) value_serde: Option<SharedSerde<V>>,
    pub(crate) repartition_required: bool,
}

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    pub(crate) fn from_source(
        draft: &SharedDraft,
        topic: TopicRef,
        consumed: Consumed<K, V>,
        lineage: Lineage,
    ) -> Self {
        let Consumed {
            key_serde,
            value_serde,
            name,
            timestamps,
            ..
        } = consumed;
        let children = Children::new();
        let (key, value) = (Arc::clone(&key_serde), Arc::clone(&value_serde));
        let downstream = children.clone();
        let node = draft.borrow_mut().add_source(topic, name, &lineage, |id| {
            Box::new(move |assembly| {
                Ok(Box::new(StreamSource {
                    name: assembly.name(id),
                    key_serde: Arc::clone(&key),
                    value_serde: Arc::clone(&value),
                    heads: timestamps.as_ref().map(Heads::new),
                    downstream: downstream.assemble(assembly)?,
                }))
            })
        });
        let keeps = Keeps {
            key_serde: Some(key_serde),
            value_serde: Some(value_serde),
            repartition_required: false,
        };
        Self::new(draft, node, children, keeps, lineage)
    }

    pub(crate) fn new(
        draft: &SharedDraft,
        node: NodeId,
        children: Children<K, V>,
        keeps: Keeps<K, V>,
        lineage: Lineage,
    ) -> Self {
        Self {
            draft: Rc::clone(draft),
            parts: StreamParts {
                node,
                children,
                repartition_required: keeps.repartition_required,
                key_serde: keeps.key_serde,
                value_serde: keeps.value_serde,
                lineage,
                types: PhantomData,
            },
        }
    }

    /// Makes a stream of the builder that `other` belongs to.
    pub(crate) fn new_in<K2, V2>(
        other: &KStream<K2, V2>,
        node: NodeId,
        children: Children<K, V>,
        keeps: Keeps<K, V>,
        lineage: Lineage,
    ) -> Self {
        Self::new(&other.draft, node, children, keeps, lineage)
    }

    pub(crate) fn from_parts(draft: &SharedDraft, parts: &StreamParts<K, V>) -> Self {
        Self {
            draft: Rc::clone(draft),
            parts: parts.clone(),
        }
    }

    pub(crate) fn parts(&self) -> StreamParts<K, V> {
        self.parts.clone()
    }

    /// The key and its serde stay; the value is new.
    pub(crate) fn keeps_key<V2>(&self) -> Keeps<K, V2> {
        Keeps {
            key_serde: self.parts.key_serde.clone(),
            value_serde: None,
            repartition_required: self.parts.repartition_required,
        }
    }

    /// Key and value stay.
    pub(crate) fn keeps_all(&self) -> Keeps<K, V> {
        Keeps {
            value_serde: self.parts.value_serde.clone(),
            ..self.keeps_key()
        }
    }

    /// The key may be new, the value is.
    pub(crate) const fn keeps_nothing<K2, V2>() -> Keeps<K2, V2> {
        Keeps {
            key_serde: None,
            value_serde: None,
            repartition_required: true,
        }
    }

    /// Attaches an operator without state of its own.
    pub(crate) fn operator<K2, V2>(
        &self,
        prefix: &str,
        keeps: Keeps<K2, V2>,
        operation: impl Fn(&mut Scope<'_, K2, V2>, Record<K, V>) -> Result<(), ProcessError>
        + Send
        + Sync
        + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        let node = self
            .draft
            .borrow_mut()
            .graph
            .add_operator(prefix, vec![self.parts.node]);
        let children = Children::new();
        let downstream = children.clone();
        let operation = Arc::new(operation);
        self.parts.children.add(node, move |assembly| {
            Ok(Box::new(OperatorNode {
                name: assembly.name(node),
                operation: Arc::clone(&operation),
                downstream: downstream.assemble(assembly)?,
            }))
        });
        KStream::new(
            &self.draft,
            node,
            children,
            keeps,
            self.parts.lineage.clone(),
        )
    }

    /// Names the node this stream comes from, in place of the generated name: for `describe`,
    /// metrics and error messages.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// let builder = StreamsBuilder::new();
    /// let words = builder
    ///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
    ///     .filter(|_, word| !word.is_empty())
    ///     .named("without-blanks");
    /// words.to("out", Produced::with(serdes::string(), serdes::string()));
    /// assert!(builder.build()?.describe().to_string().contains("without-blanks"));
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.draft.borrow_mut().graph.rename(self.parts.node, name);
        self
    }

    /// Says that the records are still in the partitions of their keys, although an operator before may
    /// have changed the keys: a grouping or join that follows repartitions nothing (KIP-759).
    ///
    /// Only the author can know. Where it is not so, a key has several aggregates, one for each partition
    /// that its records lie in.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// let builder = StreamsBuilder::new();
    /// builder
    ///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
    ///     .map(|key, word| (key, word.len() as i64))
    ///     .mark_as_partitioned()
    ///     .group_by_key(Grouped::with("by-key", serdes::string(), serdes::i64()))
    ///     .reduce(|a, b| a + b, Materialized::as_store("lengths", serdes::string(), serdes::i64()));
    /// let topology = builder.build()?;
    /// assert_eq!(topology.sub_topologies().len(), 1);
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use]
    pub const fn mark_as_partitioned(mut self) -> Self {
        self.parts.repartition_required = false;
        self
    }

    /// Notes a handle of another builder; returns whether it is one.
    pub(crate) fn is_foreign(&self, other: &SharedDraft, name: &str) -> bool {
        let foreign = !Rc::ptr_eq(&self.draft, other);
        if foreign {
            let mistake = TopologyError::ForeignHandle {
                name: name.to_owned(),
            };
            self.draft.borrow_mut().graph.mistakes.push(mistake);
        }
        foreign
    }
}
