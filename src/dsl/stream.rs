//! [`KStream`]: a stream of records, and its stateless operators.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::assembly::Children;
use super::builder::SharedDraft;
use super::config::{Policies, SharedSerde};
use super::operator::{OperatorNode, Scope};
use super::source::StreamSource;
use crate::processor::{BoxError, ErrorPolicy, ProcessError, Record};
use crate::topology::{NodeId, TopicRef, TopologyError};

/// What a stream inherits from its sources, for the repartition topics drawn downstream.
#[derive(Debug, Clone)]
pub(crate) struct Lineage {
    pub(crate) policies: Policies,
    pub(crate) rewindable: bool,
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
        name: Option<String>,
        key_serde: SharedSerde<K>,
        value_serde: SharedSerde<V>,
        lineage: Lineage,
    ) -> Self {
        let children = Children::new();
        let (key, value) = (Arc::clone(&key_serde), Arc::clone(&value_serde));
        let downstream = children.clone();
        let node = draft.borrow_mut().add_source(topic, name, &lineage, |id| {
            Box::new(move |assembly| {
                Ok(Box::new(StreamSource {
                    name: assembly.name(id),
                    key_serde: Arc::clone(&key),
                    value_serde: Arc::clone(&value),
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
        self.parts.children.add(move |assembly| {
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
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.draft.borrow_mut().graph.rename(self.parts.node, name);
        self
    }

    /// Gives every record another key and value. The stream is repartitioned before the next
    /// grouping; prefer [`map_values`](Self::map_values) where the key stays.
    pub fn map<K2, V2>(
        &self,
        mapper: impl Fn(K, V) -> (K2, V2) + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.try_map(move |key, value| Ok(mapper(key, value)))
    }

    /// As [`map`](Self::map); an error meets the source's policy.
    pub fn try_map<K2, V2>(
        &self,
        mapper: impl Fn(K, V) -> Result<(K2, V2), BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.operator(
            "KSTREAM-MAP-",
            Self::keeps_nothing(),
            move |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                let (key, value) = mapper(key, value).map_err(|error| scope.failure(error))?;
                scope.forward(Record {
                    key,
                    value,
                    timestamp,
                    headers,
                })
            },
        )
    }

    /// Gives every record another value.
    pub fn map_values<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(V) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.try_map_values(move |value| Ok(mapper(value)))
    }

    /// As [`map_values`](Self::map_values); the mapper sees the key.
    pub fn map_values_with_key<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(&K, V) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.try_map_values_with_key(move |key, value| Ok(mapper(key, value)))
    }

    /// As [`map_values`](Self::map_values); an error meets the source's policy.
    pub fn try_map_values<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(V) -> Result<V2, BoxError> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.try_map_values_with_key(move |_, value| mapper(value))
    }

    /// As [`map_values_with_key`](Self::map_values_with_key); an error meets the source's policy.
    pub fn try_map_values_with_key<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(&K, V) -> Result<V2, BoxError> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.operator(
            "KSTREAM-MAPVALUES-",
            self.keeps_key(),
            move |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                let value = mapper(&key, value).map_err(|error| scope.failure(error))?;
                scope.forward(Record {
                    key,
                    value,
                    timestamp,
                    headers,
                })
            },
        )
    }

    /// Rewrites whole records: key, value, timestamp and headers. Stores downstream write with the
    /// new timestamp. Counts as a change of the key.
    pub fn map_records<K2, V2>(
        &self,
        mapper: impl Fn(Record<K, V>) -> Record<K2, V2> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.try_map_records(move |record| Ok(mapper(record)))
    }

    /// As [`map_records`](Self::map_records); an error meets the source's policy.
    pub fn try_map_records<K2, V2>(
        &self,
        mapper: impl Fn(Record<K, V>) -> Result<Record<K2, V2>, BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.operator(
            "KSTREAM-MAP-",
            Self::keeps_nothing(),
            move |scope, record| {
                let record = mapper(record).map_err(|error| scope.failure(error))?;
                scope.forward_at(record)
            },
        )
    }

    /// Keeps the records for which the predicate holds.
    pub fn filter(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.try_filter(move |key, value| Ok(predicate(key, value)))
    }

    /// Drops the records for which the predicate holds.
    pub fn filter_not(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.try_filter(move |key, value| Ok(!predicate(key, value)))
    }

    /// As [`filter`](Self::filter); an error meets the source's policy.
    pub fn try_filter(
        &self,
        predicate: impl Fn(&K, &V) -> Result<bool, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.operator("KSTREAM-FILTER-", self.keeps_all(), move |scope, record| {
            let keep = predicate(&record.key, &record.value);
            if keep.map_err(|error| scope.failure(error))? {
                scope.forward(record)
            } else {
                Ok(())
            }
        })
    }

    /// Maps and filters in one step: `None` drops the record. The key may change.
    pub fn filter_map<K2, V2>(
        &self,
        mapper: impl Fn(K, V) -> Option<(K2, V2)> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.flat_map(mapper)
    }

    /// As [`filter_map`](Self::filter_map); an error meets the source's policy.
    pub fn try_filter_map<K2, V2>(
        &self,
        mapper: impl Fn(K, V) -> Result<Option<(K2, V2)>, BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.try_flat_map(mapper)
    }

    /// Turns every record into none, one or several, forwarded in order.
    pub fn flat_map<K2, V2, I>(
        &self,
        mapper: impl Fn(K, V) -> I + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
        I: IntoIterator<Item = (K2, V2)>,
    {
        self.try_flat_map(move |key, value| Ok(mapper(key, value)))
    }

    /// As [`flat_map`](Self::flat_map); an error meets the source's policy.
    pub fn try_flat_map<K2, V2, I>(
        &self,
        mapper: impl Fn(K, V) -> Result<I, BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
        I: IntoIterator<Item = (K2, V2)>,
    {
        self.operator(
            "KSTREAM-FLATMAP-",
            Self::keeps_nothing(),
            move |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                let results = mapper(key, value).map_err(|error| scope.failure(error))?;
                for (key, value) in results {
                    scope.forward(Record {
                        key,
                        value,
                        timestamp,
                        headers: headers.clone(),
                    })?;
                }
                Ok(())
            },
        )
    }

    /// Turns every value into none, one or several under the same key, forwarded in order.
    pub fn flat_map_values<V2, I>(
        &self,
        mapper: impl Fn(V) -> I + Send + Sync + 'static,
    ) -> KStream<K, V2>
    where
        V2: Clone + 'static,
        I: IntoIterator<Item = V2>,
    {
        self.try_flat_map_values(move |value| Ok(mapper(value)))
    }

    /// As [`flat_map_values`](Self::flat_map_values); an error meets the source's policy.
    pub fn try_flat_map_values<V2, I>(
        &self,
        mapper: impl Fn(V) -> Result<I, BoxError> + Send + Sync + 'static,
    ) -> KStream<K, V2>
    where
        V2: Clone + 'static,
        I: IntoIterator<Item = V2>,
    {
        self.operator(
            "KSTREAM-FLATMAPVALUES-",
            self.keeps_key(),
            move |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                let results = mapper(value).map_err(|error| scope.failure(error))?;
                for value in results {
                    let (key, headers) = (key.clone(), headers.clone());
                    scope.forward(Record {
                        key,
                        value,
                        timestamp,
                        headers,
                    })?;
                }
                Ok(())
            },
        )
    }

    /// Gives every record another key, made from key and value.
    pub fn select_key<K2: Clone + 'static>(
        &self,
        selector: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
    ) -> KStream<K2, V> {
        self.try_select_key(move |key, value| Ok(selector(key, value)))
    }

    /// As [`select_key`](Self::select_key); an error meets the source's policy.
    pub fn try_select_key<K2: Clone + 'static>(
        &self,
        selector: impl Fn(&K, &V) -> Result<K2, BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V> {
        let keeps = Keeps {
            value_serde: self.parts.value_serde.clone(),
            ..Self::keeps_nothing()
        };
        self.operator("KSTREAM-KEY-SELECT-", keeps, move |scope, record| {
            let key = selector(&record.key, &record.value);
            let key = key.map_err(|error| scope.failure(error))?;
            scope.forward(record.with_key(key))
        })
    }

    /// Looks at every record and passes it on. What `action` does is not undone when the record is.
    pub fn peek(&self, action: impl Fn(&K, &V) + Send + Sync + 'static) -> Self {
        self.operator("KSTREAM-PEEK-", self.keeps_all(), move |scope, record| {
            action(&record.key, &record.value);
            scope.forward(record)
        })
    }

    /// Ends the stream with an action per record. What `action` does is not undone when the record
    /// is.
    pub fn for_each(&self, action: impl Fn(K, V) + Send + Sync + 'static) {
        self.try_for_each(move |key, value| {
            action(key, value);
            Ok(())
        });
    }

    /// As [`for_each`](Self::for_each); an error meets the source's policy.
    pub fn try_for_each(
        &self,
        action: impl Fn(K, V) -> Result<(), BoxError> + Send + Sync + 'static,
    ) {
        let _end: Self = self.operator(
            "KSTREAM-FOREACH-",
            self.keeps_all(),
            move |scope, record| {
                action(record.key, record.value).map_err(|error| scope.failure(error))
            },
        );
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
