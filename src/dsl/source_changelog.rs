//! Stores whose changelog is the topic that they are read from: Kafka Streams'
//! `topology.optimization=reuse.ktable.source.topics` and read-only state stores (KIP-813).
//!
//! # Invariants
//! - The store holds what the topic holds below the committed input offset, no more and no less: a
//!   restore ends there, and a commit writes the store and the offset at once.
//! - What the source refused is not brought back by a restore: [`SourceChangelog::takes`] asks the
//!   source's serdes again. A policy that takes a record back later, when processing it has failed, is
//!   refused by `build`: nothing in the topic would tell such a record apart.

use std::fmt;
use std::sync::Arc;

use super::assembly::Assembly;
use super::builder::{Draft, SharedDraft, StoreHandle, StoreKey, StreamsBuilder};
use super::config::{Consumed, Materialized, SharedSerde, StoreBuilder};
use super::process::sealed;
use crate::processor::ErrorPolicy;
use crate::state::{ReadOnlyStore, StoreRef};
use crate::topology::{SourceChangelog, StoreId, Takes, TopicRef, TopologyError};

impl<K, V> Materialized<K, V> {
    /// Takes the table's own topic for the changelog, instead of a second one with the same content:
    /// Kafka Streams' `topology.optimization=reuse.ktable.source.topics`. For tables of a topic
    /// ([`table`](StreamsBuilder::table)).
    ///
    /// The topic must keep what the table needs: it is compacted, or never deletes. After the loss of a
    /// machine the table is read again from the topic's start to where the application was; of a key that
    /// has changed since, a compacted topic has only the value that comes later.
    ///
    /// `build` refuses it with a [timestamp extractor](Consumed::with_timestamp_extractor), with a
    /// time-to-live, with versions, and with a policy other than [`ErrorPolicy::Fail`] for records that
    /// cannot be processed.
    ///
    /// ```
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// let users = builder.table(
    ///     "users",
    ///     Consumed::with(serdes::string(), serdes::string()),
    ///     Materialized::as_store("users", serdes::string(), serdes::string())
    ///         .source_topic_as_changelog(),
    /// );
    /// # drop(users);
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let users = driver.input_topic("users", serdes::string(), serdes::string());
    /// users.pipe(&mut driver, "1".to_owned(), "Ann".to_owned())?;
    /// assert_eq!(driver.store_value("users", "1")?, Some("Ann".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn source_topic_as_changelog(mut self) -> Self {
        self.reuses_source = true;
        self
    }

    /// Notes that this store was asked to be restored from a topic that it is not a copy of.
    pub(super) fn refuse_source_changelog(&self, draft: &mut Draft, reason: &'static str) {
        if self.reuses_source {
            draft.graph.mistakes.push(TopologyError::IllegalStore {
                store: self.name.clone(),
                reason,
            });
        }
    }
}

impl<K: StoreKey, V: Clone + 'static> Materialized<K, V> {
    /// Makes the topic of a table its changelog, where the author has asked for it.
    pub(super) fn reuse_source(&mut self, draft: &mut Draft, topic: &str, of: &Consumed<K, V>) {
        // A versioned table refuses it by itself.
        if !self.reuses_source || self.history.is_some() {
            return;
        }
        let policies = &of.policies;
        let fails = |policy: &ErrorPolicy| matches!(policy, ErrorPolicy::Fail);
        if of.timestamps.is_some() {
            self.refuse_source_changelog(
                draft,
                "a timestamp extractor gives entries times that the topic does not have; leave \
                 `source_topic_as_changelog` out",
            );
        }
        if !fails(&policies.processing) || !fails(&policies.production) {
            self.refuse_source_changelog(
                draft,
                "a record that is skipped or dead-lettered when processing it fails would come back \
                 with the topic; leave `source_topic_as_changelog` out",
            );
        }
        if self.keeps_headers {
            self.refuse_source_changelog(
                draft,
                "the topic's values are read without their headers; use `as_store`",
            );
        }
        self.refuse_ttl(
            draft,
            "what expires would come back with the topic; leave `ttl` out",
        );
        self.changelog = None;
        self.source_changelog = Some(SourceChangelog {
            topic: TopicRef::Declared(topic.to_owned()),
            takes: takes(
                (Arc::clone(&of.key_serde), Arc::clone(&of.value_serde)),
                (Arc::clone(&self.key_serde), Arc::clone(&self.value_serde)),
            ),
        });
    }
}

type Serdes<K, V> = (SharedSerde<K>, SharedSerde<V>);

fn takes<K: 'static, V: 'static>(source: Serdes<K, V>, store: Serdes<K, V>) -> Arc<Takes> {
    Arc::new(move |key, value| {
        let key = source.0.deserialize(Some(key)).ok()?;
        if source.0.is_null(&key) {
            return None;
        }
        let mut stored_key = Vec::new();
        store.0.serialize(&key, &mut stored_key).ok()?;
        let Some(bytes) = value else {
            return Some((stored_key, None));
        };
        let value = source.1.deserialize(Some(bytes)).ok()?;
        let mut stored_value = Vec::new();
        let present = store.1.serialize(&value, &mut stored_value).ok()?;
        Some((stored_key, present.then_some(stored_value)))
    })
}

impl StreamsBuilder {
    /// Reads `topic` into a store that processors connect to and do not write: Kafka Streams'
    /// `addReadOnlyStateStore` (KIP-813). The topic is the changelog, as with
    /// [`source_topic_as_changelog`](Materialized::source_topic_as_changelog), whose conditions hold.
    ///
    /// Each task has the part of the topic that has its number: key and partition of what is looked up
    /// must fit. For the whole topic in every process there is
    /// [`global_table`](Self::global_table).
    ///
    /// ```
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// struct Named(ReadOnlyStore<String, String>);
    ///
    /// impl Processor<String, String, String, String> for Named {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, String>,
    ///         record: Record<String, String>,
    ///     ) -> Result<(), BoxError> {
    ///         let name = self.0.get(&record.key)?.unwrap_or_default();
    ///         let text = format!("{name}: {}", record.value);
    ///         Ok(context.forward(record.with_value(text))?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let names = builder.add_read_only_state_store(
    ///     "names",
    ///     Consumed::with(serdes::string(), serdes::string()),
    ///     StoreBuilder::as_store("names", serdes::string(), serdes::string()),
    /// );
    /// builder
    ///     .stream("mails", Consumed::with(serdes::string(), serdes::string()))
    ///     .process("named", (&names,), |_setup, (names,)| Named(names))
    ///     .to("named", Produced::with(serdes::string(), serdes::string()));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let names = driver.input_topic("names", serdes::string(), serdes::string());
    /// let mails = driver.input_topic("mails", serdes::string(), serdes::string());
    /// let named = driver.output_topic("named", serdes::string(), serdes::string());
    /// names.pipe(&mut driver, "1".to_owned(), "Ann".to_owned())?;
    /// mails.pipe(&mut driver, "1".to_owned(), "hello".to_owned())?;
    /// assert_eq!(named.read_values(&mut driver)?, ["Ann: hello"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "a store that nobody reads or queries costs all the same"]
    pub fn add_read_only_state_store<K, V>(
        &self,
        topic: &str,
        consumed: Consumed<K, V>,
        store: StoreBuilder<K, V>,
    ) -> ReadOnlyStoreHandle<K, V>
    where
        K: StoreKey,
        V: Clone + 'static,
    {
        let name = store.name.clone();
        let table = self.table(topic, consumed, store.source_topic_as_changelog());
        ReadOnlyStoreHandle(table.store().unwrap_or_else(|| {
            // A versioned store, which was refused above, and of which nothing is built.
            StoreHandle::new(&self.draft, StoreId(usize::MAX), name)
        }))
    }
}

/// A read-only store for [`process`](super::KStream::process) to connect; operators get a
/// [`ReadOnlyStore`].
pub struct ReadOnlyStoreHandle<K, V>(StoreHandle<K, V>);

impl<K, V> ReadOnlyStoreHandle<K, V> {
    /// Returns the store's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }
}

impl<K, V> fmt::Debug for ReadOnlyStoreHandle<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadOnlyStoreHandle").field(&self.0).finish()
    }
}

impl<K: StoreKey, V: Clone + 'static> sealed::Store for ReadOnlyStoreHandle<K, V> {
    type Ref = ReadOnlyStore<K, V>;

    fn parts(&self) -> (&SharedDraft, StoreId, &str) {
        self.0.parts()
    }

    fn resolve(assembly: &Assembly<'_>, id: StoreId) -> Self::Ref {
        ReadOnlyStore::new(assembly.store::<StoreRef<K, V>>(id))
    }
}
