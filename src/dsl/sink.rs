//! Sinks: typed records to bytes, staged until the record's chain has succeeded.

use std::sync::Arc;

use super::config::{Partitioner, Produced, Repartitioned, SharedSerde};
use super::stream::KStream;
use crate::format::partitioner::partition_for_key;
use crate::processor::{BoxError, Node, ProcessError, Record, TaskContext};
use crate::topology::{
    GraphNode, NodeKind, RepartitionTopic, ResolvedTopic, TopicRef, TopologyError,
};

struct SinkNode<K, V> {
    name: Arc<str>,
    topic: ResolvedTopic,
    key_serde: SharedSerde<K>,
    value_serde: SharedSerde<V>,
    partitioner: Option<Partitioner<K, V>>,
}

impl<K: 'static, V: 'static> Node<K, V> for SinkNode<K, V> {
    fn process(&mut self, cx: &mut TaskContext, record: Record<K, V>) -> Result<(), ProcessError> {
        let Record {
            key,
            value,
            timestamp,
            headers,
        } = record;
        let partitions = self.topic.partitions;
        let chosen = self
            .partitioner
            .as_ref()
            .and_then(|choose| choose(&key, &value, partitions));
        if let Some(partition) = chosen.filter(|chosen| !(0..partitions).contains(chosen)) {
            let error = format!("partitioner chose {partition} of {partitions} partitions");
            return Err(self.unwritable(error.into()));
        }
        let staged = cx.outputs.stage(
            &self.topic.name,
            timestamp,
            headers,
            |out| self.key_serde.serialize(&key, out),
            |out| self.value_serde.serialize(&value, out),
            |key| chosen.or_else(|| self.partition_of(key?)),
        );
        staged.map_err(|error| self.unwritable(error))
    }
}

impl<K: 'static, V> SinkNode<K, V> {
    /// Windows of one key go where the key's own records go, as Kafka Streams' `WindowedStreamPartitioner`
    /// has it; of all others the log takes the whole key.
    fn partition_of(&self, key: &[u8]) -> Option<i32> {
        let base = self.key_serde.base_key(key);
        (base.len() != key.len()).then(|| partition_for_key(base, self.topic.partitions))
    }

    #[cold]
    fn unwritable(&self, source: BoxError) -> ProcessError {
        ProcessError::Production {
            node: self.name.to_string(),
            source,
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

    fn sink(&self, topic: TopicRef, produced: Produced<K, V>) {
        let Produced {
            key_serde,
            value_serde,
            partitioner,
            name,
        } = produced;
        let mut draft = self.draft.borrow_mut();
        let generated = draft.graph.generate_name("KSTREAM-SINK-");
        let node = draft.graph.add(GraphNode {
            name: generated,
            named: false,
            kind: NodeKind::Sink(topic.clone()),
            parents: vec![self.parts.node],
            stores: Vec::new(),
        });
        if let Some(name) = name {
            draft.graph.rename(node, &name);
        }
        drop(draft);
        self.parts.children.add(move |assembly| {
            Ok(Box::new(SinkNode {
                name: assembly.name(node),
                topic: assembly.topic(&topic),
                key_serde: Arc::clone(&key_serde),
                value_serde: Arc::clone(&value_serde),
                partitioner: partitioner.clone(),
            }))
        });
    }

    /// Writes the stream to `<application_id>-<name>-repartition` and reads it back, partitioned by
    /// its key (KIP-221).
    ///
    /// What follows is a sub-topology of its own, whose records meet the error policies of the
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
            partitioner: None,
            name: Some(format!("{name}-repartition-sink")),
        };
        self.sink(topic.clone(), produced);
        let source = Some(format!("{name}-repartition-source"));
        let lineage = self.parts.lineage.clone();
        Self::from_source(&self.draft, topic, source, key_serde, value_serde, lineage)
    }
}
