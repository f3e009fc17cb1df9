//! Sinks: typed records to bytes, staged until the record's chain has succeeded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{Consumed, Partitioner, Produced, Repartitioned, SharedSerde};
use super::nulls::Nulls;
use super::stream::KStream;
use crate::format::partitioner::partition_for_key;
use crate::processor::{BoxError, Node, ProcessError, Record, TaskContext};
use crate::topology::{
    GraphNode, NodeId, NodeKind, RepartitionTopic, ResolvedTopic, TopicRef, TopologyError,
};

/// Where a record goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Partitions {
    /// To the partition of its key.
    ByKey,
    /// To each of these: several, one, or none at all.
    These(Vec<i32>),
}

/// Writes records with their serdes.
struct Writer<K, V> {
    name: Arc<str>,
    key_serde: SharedSerde<K>,
    value_serde: SharedSerde<V>,
    partitioner: Option<Partitioner<K, V>>,
}

impl<K: 'static, V: 'static> Writer<K, V> {
    fn write(
        &self,
        cx: &mut TaskContext,
        topic: &ResolvedTopic,
        record: &Record<K, V>,
    ) -> Result<(), ProcessError> {
        let choose = self.partitioner.as_ref();
        match choose.map(|choose| choose(&record.key, &record.value, topic.partitions)) {
            None | Some(Partitions::ByKey) => self.stage(cx, topic, record, None),
            Some(Partitions::These(chosen)) => {
                if chosen.is_empty() {
                    // As Kafka Streams counts it (KIP-873).
                    cx.drop_record();
                }
                for partition in chosen {
                    if !(0..topic.partitions).contains(&partition) {
                        let of = topic.partitions;
                        let error = format!("partitioner chose {partition} of {of} partitions");
                        return Err(self.unwritable(error.into()));
                    }
                    self.stage(cx, topic, record, Some(partition))?;
                }
                Ok(())
            }
        }
    }

    fn stage(
        &self,
        cx: &mut TaskContext,
        topic: &ResolvedTopic,
        record: &Record<K, V>,
        partition: Option<i32>,
    ) -> Result<(), ProcessError> {
        let staged = cx.outputs.stage(
            &topic.name,
            record.timestamp,
            record.headers.clone(),
            |out| self.key_serde.serialize(&record.key, out),
            |out| self.value_serde.serialize(&record.value, out),
            |key| partition.or_else(|| self.partition_of(key?, topic.partitions)),
        );
        staged.map_err(|error| self.unwritable(error))
    }

    /// Windows of one key go where the key's own records go, as Kafka Streams' `WindowedStreamPartitioner`
    /// has it; of all others the log takes the whole key.
    fn partition_of(&self, key: &[u8], partitions: i32) -> Option<i32> {
        let base = self.key_serde.base_key(key);
        (base.len() != key.len()).then(|| partition_for_key(base, partitions))
    }

    #[cold]
    fn unwritable(&self, source: BoxError) -> ProcessError {
        ProcessError::Production {
            node: self.name.to_string(),
            source,
        }
    }
}

struct SinkNode<K, V> {
    writer: Writer<K, V>,
    topic: ResolvedTopic,
    /// For a repartition topic: a record without a key belongs nowhere.
    null_keys: Option<Nulls<K, V>>,
}

impl<K: 'static, V: 'static> Node<K, V> for SinkNode<K, V> {
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        if let Some(nulls) = &self.null_keys
            && nulls.is_key(&record.key)
        {
            cx.drop_record();
            return Ok(());
        }
        self.writer.write(cx, &self.topic, &record)
    }
}

/// Writes each record to the topic that its author chooses.
struct DynamicSinkNode<K, V, F> {
    writer: Writer<K, V>,
    topics: BTreeMap<String, ResolvedTopic>,
    choose: Arc<F>,
}

impl<K, V, F, T> Node<K, V> for DynamicSinkNode<K, V, F>
where
    K: 'static,
    V: 'static,
    F: Fn(&Record<K, V>) -> T,
    T: AsRef<str>,
{
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        let name = (self.choose)(&record);
        match self.topics.get(name.as_ref()) {
            Some(topic) => self.writer.write(cx, topic, &record),
            None => {
                let error = format!("topic `{}` is not one that was listed", name.as_ref());
                Err(self.writer.unwritable(error.into()))
            }
        }
    }
}

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Writes the stream to `topic`: timestamps and headers are the records'.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// words.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn to(&self, topic: &str, produced: Produced<K, V>) {
        self.draft.borrow_mut().graph.mention(topic);
        self.sink(TopicRef::Declared(topic.to_owned()), produced);
    }

    /// Writes every record to the one of `topics` that `choose` names (Kafka Streams' `to` with a
    /// `TopicNameExtractor`). Another name is an error of the production stage.
    ///
    /// Kafka Streams takes any name and expects the topic to exist; here the topics are listed, so that
    /// they are created, checked and shown like every other.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// words.to_dynamic(
    ///     ["short", "long"],
    ///     |record| if record.value.len() > 10 { "long" } else { "short" },
    ///     Produced::with(serdes::string(), serdes::string()),
    /// );
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn to_dynamic<T: AsRef<str>>(
        &self,
        topics: impl IntoIterator<Item = impl Into<String>>,
        choose: impl Fn(&Record<K, V>) -> T + Send + Sync + 'static,
        produced: Produced<K, V>,
    ) {
        let topics: Vec<String> = topics.into_iter().map(Into::into).collect();
        for topic in &topics {
            self.draft.borrow_mut().graph.mention(topic);
        }
        let references = topics.iter().cloned().map(TopicRef::Declared).collect();
        let node = self.sink_node(references, produced.name.as_deref());
        let choose = Arc::new(choose);
        self.parts.children.add(node, move |assembly| {
            let resolve = |topic: &String| {
                let resolved = assembly.topic(&TopicRef::Declared(topic.clone()));
                (topic.clone(), resolved)
            };
            Ok(Box::new(DynamicSinkNode {
                topics: topics.iter().map(resolve).collect(),
                writer: produced.writer(assembly.name(node)),
                choose: Arc::clone(&choose),
            }))
        });
    }

    fn sink_node(&self, topics: Vec<TopicRef>, name: Option<&str>) -> NodeId {
        let graph = &mut self.draft.borrow_mut().graph;
        let generated = graph.generate_name("KSTREAM-SINK-");
        let node = graph.add(GraphNode {
            name: generated,
            named: false,
            kind: NodeKind::Sink(topics),
            parents: vec![self.parts.node],
            stores: Vec::new(),
        });
        if let Some(name) = name {
            graph.rename(node, name);
        }
        node
    }

    fn sink(&self, topic: TopicRef, produced: Produced<K, V>) {
        let repartitions = matches!(topic, TopicRef::Repartition(_));
        let node = self.sink_node(vec![topic.clone()], produced.name.as_deref());
        let nulls = Nulls::new(Some(Arc::clone(&produced.key_serde)), None);
        self.parts.children.add(node, move |assembly| {
            Ok(Box::new(SinkNode {
                writer: produced.writer(assembly.name(node)),
                topic: assembly.topic(&topic),
                null_keys: repartitions.then(|| nulls.clone()),
            }))
        });
    }

    /// Writes the stream to `<application_id>-<name>-repartition` and reads it back, partitioned by
    /// its key (KIP-221).
    ///
    /// A record whose key is null is dropped and counted. What follows is a sub-topology of its own, whose records meet the error policies of the
    /// stream's source.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let by_word = words
    ///     .select_key(|_, word| word.clone())
    ///     .repartition(Repartitioned::with("by-word", serdes::string(), serdes::string()));
    /// # by_word.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "a repartition topic that nobody reads is a mistake"]
    pub fn repartition(&self, repartitioned: Repartitioned<K, V>) -> Self {
        let Repartitioned {
            name,
            key_serde,
            value_serde,
            partitions,
            partitioner,
        } = repartitioned;
        let key_serde = key_serde.or_else(|| self.parts.key_serde.clone());
        let value_serde = value_serde.or_else(|| self.parts.value_serde.clone());
        let mut draft = self.draft.borrow_mut();
        let graph = &mut draft.graph;
        for (field, known) in [
            ("key", key_serde.is_some()),
            ("value", value_serde.is_some()),
        ] {
            if !known {
                graph.mistakes.push(TopologyError::MissingSerde {
                    name: name.clone(),
                    field,
                });
            }
        }
        let (Some(key_serde), Some(value_serde)) = (key_serde, value_serde) else {
            // Reported by `build`; the stream goes on unpartitioned so that what follows is checked.
            drop(draft);
            return self.clone();
        };
        let topic = graph.add_repartition(RepartitionTopic {
            name: name.clone(),
            partitions,
        });
        drop(draft);
        let produced = Produced {
            key_serde: Arc::clone(&key_serde),
            value_serde: Arc::clone(&value_serde),
            partitioner,
            name: Some(format!("{name}-repartition-sink")),
        };
        self.sink(topic.clone(), produced);
        let lineage = self.parts.lineage.clone();
        let source = Consumed {
            key_serde,
            value_serde,
            policies: lineage.policies.clone(),
            rewindable: lineage.rewindable,
            name: Some(format!("{name}-repartition-source")),
            timestamps: None,
        };
        Self::from_source(&self.draft, topic, source, lineage)
    }
}

impl<K, V> Produced<K, V> {
    fn writer(&self, name: Arc<str>) -> Writer<K, V> {
        Writer {
            name,
            key_serde: Arc::clone(&self.key_serde),
            value_serde: Arc::clone(&self.value_serde),
            partitioner: self.partitioner.clone(),
        }
    }
}
